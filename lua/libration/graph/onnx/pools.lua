-- ONNX's pools over one to three dims, and what undoes one. Entries as in onnx/elementwise.lua.
local tensor = require "libration.tensor"
local space = require "libration.graph.onnx.space"

local entries = {}

local function window_of(self, x)
  local attr = space.window(self, x)
  attr.ceil = self:attribute("ceil_mode", 0) ~= 0
  return attr
end

function entries.MaxPool(self)
  local x = self:input(1)
  local attr = window_of(self, x)
  local whole = self:dtype(x) == "u8" or self:dtype(x) == "i32"
  local source = whole and self:cast(x, "f32") or x
  if not self:wants(2) then
    attr.kind = "max"
    local y = space.emit(self, "pool", { source }, attr)
    return whole and self:cast(y, x.kind) or y
  end
  local column_first = self:attribute("storage_order", 0) ~= 0
  if column_first and #x.shape ~= 4 then self:fail("storage_order 1 of [%s], want pictures", table.concat(x.shape, ",")) end
  attr.column_first = column_first
  local y, index = space.emit(self, "max_pool_index", { source }, attr)
  return whole and self:cast(y, x.kind) or y, self:cast(index, "i64")
end

function entries.AveragePool(self)
  local x = self:input(1)
  local attr = window_of(self, x)
  attr.kind, attr.include_pad = "mean", self:attribute("count_include_pad", 0) ~= 0
  return space.emit(self, "pool", { x }, attr)
end

function entries.MaxUnpool(self)
  local x, index = self:input(1), self:input(2)
  local n = space.count(self, x)
  local kernel, stride, pads = space.by_dim(self, "kernel_shape", n, 1), space.by_dim(self, "strides", n, 1), space.by_dim(self, "pads", 2 * n, 0)
  local shape, asked, more = { x.shape[1], x.shape[2] }, self:integers(3), { 0, 0 }
  for i = 1, n do
    shape[i + 2] = (x.shape[i + 2] - 1) * stride[i] + kernel[i] - pads[i] - pads[i + n]
    more[i + 2] = asked and (asked[i + 2] or 0) - shape[i + 2] or 0
    if more[i + 2] < 0 then self:fail("an output of [%s], want [%s] or more", table.concat(asked, ","), table.concat(shape, ",")) end
  end
  local total, count = 1, 1
  for _, size in ipairs(shape) do total = total * size end
  for _, size in ipairs(x.shape) do count = count * size end
  if total < 0 or total > 2 ^ 31 - 1 then self:fail("a shape of [%s]", table.concat(shape, ",")) end
  local zeros = self:emit("expand", { self:constant(tensor.zeros({ 1 }, self:dtype(x)), x.kind) }, { shape = { total } })
  local y = self:emit("scatter_elements", { zeros, self:reshaped(index, { count }), self:reshaped(x, { count }) }, { dim = 1 })
  y = self:reshaped(y, shape)
  local before = {}
  for d = 1, #shape do before[d] = 0 end
  return asked and (self:emit("pad", { y }, { before = before, after = more, value = 0 })) or y
end

-- (sum of |x|^p)^(1/p)
local function lp(sum)
  return function(self)
    local x, p = self:input(1), self:attribute("p", 2)
    if p <= 0 then self:fail("p %s", tostring(p)) end
    local function power(v, e) return (self:emit("pow", { v, self:constant(e, v.kind) })) end
    return power(sum(self, power(self:emit("abs", { x }), p)), 1 / p)
  end
end
entries.LpPool = lp(function(self, x)
  local attr = window_of(self, x)
  attr.kind = "sum"
  return space.emit(self, "pool", { x }, attr)
end)
entries.GlobalLpPool = lp(function(self, x)
  local dims = {}
  for d = 3, #x.shape do dims[#dims + 1] = d end
  return (self:emit("sum", { x }, { dims = dims, keep = true }))
end)

return entries
