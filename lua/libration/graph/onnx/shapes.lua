-- ONNX's operators that ask for, change or move by shape. Entries as in onnx/elementwise.lua.
local tensor = require "libration.tensor"
local sources = require "libration.ops.beyond"

local product = tensor.product

local entries = {}

local function slot(n, d, value, rest)
  local out = {}
  for i = 1, n do out[i] = i == d and value or rest end
  return out
end

function entries.Constant(self)
  local value = self:attribute("value", nil, "table")
  if value then
    if value.data then return self:constant(value.data, value.kind) end
    return self.state.graph:value(value.name, value.shape or {}, value.kind or "unknown")
  end
  for name, kind in pairs { value_float = "f32", value_floats = "f32", value_int = "i64", value_ints = "i64" } do
    local v = self:attribute(name)
    if v then return self:constant(v, kind) end
  end
  if self.node.attr.value_string or self.node.attr.value_strings then return self.state.graph:value(self.node.outputs[1], {}, "string") end
  self:fail("a kind of constant that is not supported")
end

-- Sizes of a shape that a file asks for; raises when they are none.
local function sizes(self, list)
  for _, n in ipairs(list) do
    if n < 0 then self:fail("a shape of [%s]", table.concat(list, ",")) end
  end
  return list
end

function entries.ConstantOfShape(self)
  local shape, value = sizes(self, self:list(self:input(1))), self:attribute("value", nil, "table")
  local fill = value and self:constant(value.data or self:fail("a value of kind %s", value.kind), value.kind) or self:constant(0)
  return self:emit("expand", { self:reshaped(fill, {}) }, { shape = shape })
end

function entries.Shape(self)
  local shape = self:input(1).shape
  local function position(name, default)
    local at = self:attribute(name, default)
    return math.max(0, math.min(#shape, at < 0 and at + #shape or at))
  end
  local out = {}
  for d = position("start", 0) + 1, position("end", #shape) do out[#out + 1] = shape[d] end
  return self:constant(out, "i64")
end

function entries.Size(self)
  return self:constant(product(self:input(1).shape), "i64")
end

function entries.Range(self)
  local first, last, step = self:list(self:input(1))[1], self:list(self:input(2))[1], self:list(self:input(3))[1]
  local n = math.max(0, math.ceil((last - first) / step))
  if not (n <= 2 ^ 24) then self:fail("a range of %.17g numbers", n) end
  local kind = self:input(1).kind
  local t = tensor.arange(n, self:dtype(self:input(1)))
  return self:emit("affine", { self:constant(t, kind) }, { scale = step, shift = first }, kind)
end

function entries.Reshape(self)
  local x, shape = self:input(1), self:integers(2, "shape") or self:fail("no shape")
  local open, known = nil, 1
  for d, n in ipairs(shape) do
    if n == 0 and self:attribute("allowzero", 0) == 0 then
      shape[d] = x.shape[d] or self:fail("size %d of [%s]", d, table.concat(x.shape, ","))
    end
    if n == -1 then
      if open then self:fail("two sizes are -1") end
      open = d
    elseif n < 0 then
      self:fail("a shape of [%s]", table.concat(shape, ","))
    else
      known = known * shape[d]
    end
  end
  local total = product(x.shape)
  if open then shape[open] = known > 0 and total / known or 0 end
  if product(shape) ~= total or open and shape[open] ~= math.floor(shape[open]) then
    self:fail("[%s] into [%s]", table.concat(x.shape, ","), table.concat(shape, ","))
  end
  return self:reshaped(x, shape)
end

function entries.Flatten(self)
  local x = self:input(1)
  local axis = self:attribute("axis", 1)
  if axis < 0 then axis = axis + #x.shape end
  if axis < 0 or axis > #x.shape then self:fail("axis %d of %d dims", axis, #x.shape) end
  return self:reshaped(x, { product(x.shape, 1, axis), product(x.shape, axis + 1) })
end

function entries.Squeeze(self)
  local x, axes = self:input(1), self:integers(2, "axes")
  local gone, shape = {}, {}
  for _, axis in ipairs(axes or {}) do gone[self:dim(axis, #x.shape)] = true end
  for d, n in ipairs(x.shape) do
    if gone[d] and n ~= 1 then self:fail("dim %d of [%s] is not 1", d, table.concat(x.shape, ",")) end
    if not gone[d] and (axes or n ~= 1) then shape[#shape + 1] = n end
  end
  return self:reshaped(x, shape)
end

function entries.Unsqueeze(self)
  local x, axes = self:input(1), self:integers(2, "axes") or self:fail("no axes")
  local rank, new, shape, from = #x.shape + #axes, {}, {}, 1
  for _, axis in ipairs(axes) do
    local d = self:dim(axis, rank)
    if new[d] then self:fail("axis %d twice", axis) end
    new[d] = true
  end
  for d = 1, rank do
    if new[d] then
      shape[d] = 1
    else
      shape[d], from = x.shape[from], from + 1
    end
  end
  return self:reshaped(x, shape)
end

function entries.Transpose(self)
  local x, order, seen = self:input(1), {}, {}
  local perm = self:attribute("perm", nil, "table")
  for i = 1, #x.shape do
    order[i] = perm and self:dim(perm[i] or self:fail("%d axes for %d dims", #perm, #x.shape), #x.shape) or #x.shape + 1 - i
    if seen[order[i]] then self:fail("an axis stands twice") end
    seen[order[i]] = true
  end
  return self:transposed(x, order)
end

function entries.Concat(self)
  local list = self:inputs()
  if #list == 0 then self:fail("nothing to concatenate") end
  local dim, kept = self:dim(self:attribute("axis", 0), #list[1].shape), {}
  for _, v in ipairs(list) do
    if v.shape[dim] ~= 0 then kept[#kept + 1] = v end
  end
  if #kept == 0 then return list[1] end
  return #kept == 1 and kept[1] or self:emit("concat", kept, { dim = dim })
end

-- Positions first .. last (from 1) of dim d, every step-th; a negative step counts down.
local function slice(self, x, d, first, last, step)
  if first == 1 and last == x.shape[d] and (step or 1) == 1 then return x end
  local attr = { first = slot(#x.shape, d, first, 1), last = { unpack(x.shape) }, step = slot(#x.shape, d, step or 1, 1) }
  attr.last[d] = last
  return (self:emit("slice", { x }, attr))
end

function entries.Split(self)
  local x = self:input(1)
  local d = self:dim(self:attribute("axis", 0), #x.shape)
  local split, n = self:integers(2, "split"), #self.node.outputs
  if not split then
    split = {}
    local part = math.ceil(x.shape[d] / n)
    for i = 1, n do split[i] = math.max(0, math.min(part, x.shape[d] - part * (i - 1))) end
  end
  local out, at = {}, 1
  for i, size in ipairs(split) do
    if size < 0 or at + size - 1 > x.shape[d] then self:fail("%d numbers split into [%s]", x.shape[d], table.concat(split, ",")) end
    out[i] = slice(self, x, d, at, at + size - 1)
    at = at + size
  end
  return unpack(out)
end

function entries.Slice(self)
  local x = self:input(1)
  local starts, ends = self:integers(2, "starts"), self:integers(3, "ends")
  local axes, steps = self:integers(4, "axes"), self:integers(5)
  if not starts or not ends or #starts ~= #ends or axes and #axes ~= #starts or steps and #steps ~= #starts then self:fail("starts, ends, axes and steps of unequal length") end
  for i, start in ipairs(starts) do
    local d = self:dim(axes and axes[i] or i - 1, #x.shape)
    local size, step, stop = x.shape[d], steps and steps[i] or 1, ends[i]
    if step == 0 then self:fail("a step of 0") end
    local low, high = step > 0 and 0 or -1, step > 0 and size or size - 1
    local first = math.max(low + (step < 0 and 1 or 0), math.min(high, start < 0 and start + size or start))
    stop = math.max(low, math.min(high, stop < 0 and stop + size or stop))
    if step > 0 then
      x = slice(self, x, d, first + 1, math.max(stop, first), step)
    else
      x = slice(self, x, d, first + 1, math.min(stop + 2, first + 2), step)
    end
  end
  return x
end

local function expanded(self, x, shape)
  local n, out = math.max(#shape, #x.shape), {}
  for d = 1, n do
    local a, b = x.shape[#x.shape - n + d] or 1, shape[#shape - n + d] or 1
    if a ~= b and a ~= 1 and b ~= 1 then self:fail("[%s] to [%s]", table.concat(x.shape, ","), table.concat(shape, ",")) end
    out[d] = a == 1 and b or a
  end
  return (self:emit("expand", { x }, { shape = sizes(self, out) }))
end

function entries.Expand(self)
  return expanded(self, self:input(1), self:list(self:input(2)))
end

-- x `times` times behind each other along dim d.
local function repeated(self, x, d, times)
  if times == 1 then return x end
  local shape = { unpack(x.shape) }
  shape[d] = shape[d] * times
  local flat = self:reshaped(x, { product(x.shape, 1, d - 1), 1, product(x.shape, d) })
  return self:reshaped((self:emit("expand", { flat }, { shape = { flat.shape[1], times, flat.shape[3] } })), shape)
end

function entries.Tile(self)
  local x, times = self:input(1), sizes(self, self:list(self:input(2)))
  if #times ~= #x.shape then self:fail("%d repeats for %d dims", #times, #x.shape) end
  for d = #times, 1, -1 do x = repeated(self, x, d, times[d]) end
  return x
end

-- Entries of x along dim d by index, a value of whole numbers of 0 or more.
local function gather(self, x, d, index)
  return (self:emit("gather", { x, index }, { dim = d }, x.kind))
end

-- index with negative positions counted from the end.
local function from_start(self, index, size)
  if index.data then
    local data = index.data:contiguous():clone()
    local p = data:ptr()
    for i = 0, data:numel() - 1 do
      if p[i] < 0 then p[i] = p[i] + size end
      if p[i] < 0 or p[i] >= size then self:fail("index %d of %d", p[i], size) end
    end
    return self:constant(data, index.kind)
  end
  local negative = self:emit("lt", { index, self:constant(0, index.kind) })
  return (self:emit("where", { negative, (self:emit("affine", { index }, { scale = 1, shift = size })), index }, nil, index.kind))
end

function entries.Gather(self)
  local x, index = self:input(1), self:input(2)
  local d = self:dim(self:attribute("axis", 0), #x.shape)
  if index.data and index.data:numel() == 1 then -- one position: a slice
    local at = self:list(index)[1]
    at = at < 0 and at + x.shape[d] or at
    if at < 0 or at >= x.shape[d] then self:fail("index %d of %d", at, x.shape[d]) end
    local shape = {}
    for i = 1, d - 1 do shape[i] = x.shape[i] end
    for _ = 1, #index.shape do shape[#shape + 1] = 1 end
    for i = d + 1, #x.shape do shape[#shape + 1] = x.shape[i] end
    return self:reshaped(slice(self, x, d, at + 1, at + 1), shape)
  end
  return gather(self, x, d, from_start(self, index, x.shape[d]))
end

function entries.Pad(self)
  local x, pads, mode = self:input(1), self:integers(2, "pads") or self:fail("no pads"), self:attribute("mode", "constant")
  local axes, n = self:integers(4), #x.shape
  local before, after = slot(n, 0, 0, 0), slot(n, 0, 0, 0)
  local count = axes and #axes or n
  if #pads ~= 2 * count then self:fail("%d pads for %d dims", #pads, count) end
  for i = 1, count do
    local d = axes and self:dim(axes[i], n) or i
    before[d], after[d] = pads[i], pads[i + count]
  end
  local fill = self:attribute("value", 0)
  if self:input(3, true) then fill = self:list(self:input(3))[1] or 0 end
  for d = 1, n do -- a negative pad cuts off
    local first, last = 1 + math.max(0, -before[d]), x.shape[d] - math.max(0, -after[d])
    x = slice(self, x, d, first, math.max(last, first - 1))
    before[d], after[d] = math.max(0, before[d]), math.max(0, after[d])
  end
  if mode == "constant" then
    for d = 1, n do
      if before[d] + after[d] > 0 then return self:emit("pad", { x }, { before = before, after = after, value = fill }) end
    end
    return x
  end
  local source = sources[mode] or self:fail("mode %s is not supported", mode)
  for d = 1, n do
    if before[d] + after[d] > 0 then
      local size, index = x.shape[d], {}
      if size == 0 then self:fail("padding of no numbers") end
      for i = -before[d], size + after[d] - 1 do index[#index + 1] = source(i, size) end
      x = gather(self, x, d, self:constant(index, "i64"))
    end
  end
  return x
end

function entries.DepthToSpace(self)
  local x, r = self:input(1), self:attribute("blocksize", 1)
  local b, c, h, w = unpack(x.shape)
  if #x.shape ~= 4 or r < 1 or c % (r * r) ~= 0 then self:fail("[%s] in blocks of %d", table.concat(x.shape, ","), r) end
  local depth_first = self:attribute("mode", "DCR") == "DCR"
  local y = self:reshaped(x, depth_first and { b, r, r, c / (r * r), h, w } or { b, c / (r * r), r, r, h, w })
  y = self:transposed(y, depth_first and { 1, 4, 5, 2, 6, 3 } or { 1, 2, 5, 3, 6, 4 })
  return self:reshaped(y, { b, c / (r * r), h * r, w * r })
end

function entries.SpaceToDepth(self)
  local x, r = self:input(1), self:attribute("blocksize", 1)
  local b, c, h, w = unpack(x.shape)
  if #x.shape ~= 4 or r < 1 or h % r ~= 0 or w % r ~= 0 then self:fail("[%s] in blocks of %d", table.concat(x.shape, ","), r) end
  local depth_first = self:attribute("mode", "DCR") == "DCR"
  local y = self:transposed(self:reshaped(x, { b, c, h / r, r, w / r, r }), depth_first and { 1, 4, 6, 2, 3, 5 } or { 1, 2, 4, 6, 3, 5 })
  return self:reshaped(y, { b, c * r * r, h / r, w / r })
end

-- The part of x at and below (upper: above) diagonal k of the last two dims, else 0.
function entries.Trilu(self)
  local x, k = self:input(1), self:input(2, true)
  local rows, columns = x.shape[#x.shape - 1] or self:fail("fewer than two dims"), x.shape[#x.shape]
  local shift, upper = k and self:list(k)[1] or 0, self:attribute("upper", 1) ~= 0
  local row = tensor.arange(rows, "i32"):reshape(rows, 1):affine(1, shift)
  local column = tensor.arange(columns, "i32"):reshape(1, columns)
  local mask = self:constant(upper and column:ge(row) or column:le(row), "bool")
  return self:emit("where", { mask, x, self:constant(tensor.zeros({}, self:dtype(x)), x.kind) }, nil, x.kind)
end

return entries
