-- ONNX's reductions and what runs along one axis. Entries as in onnx/elementwise.lua.
local tensor = require "libration.tensor"

local entries = {}

-- The dims that a Reduce operator works on; nil: on none, the operator is the identity.
local function reduced(self, x)
  local axes = self:integers(2, "axes")
  local dims, seen = {}, {}
  if not axes or #axes == 0 then
    if self:attribute("noop_with_empty_axes", 0) ~= 0 then return nil end
    for d = 1, #x.shape do dims[d] = d end
    return dims
  end
  for _, axis in ipairs(axes) do
    local d = self:dim(axis, #x.shape)
    if not seen[d] then dims[#dims + 1] = d end
    seen[d] = true
  end
  table.sort(dims)
  return dims
end

local function same(_, x) return x end

-- A Reduce operator: before(x), the IR's reduction, after(y).
local function reduction(op, before, after)
  before, after = before or same, after or same
  return function(self)
    local x = self:input(1)
    local dims = reduced(self, x)
    local y = before(self, x)
    if not dims then return op == "sum" and after(self, y) or x end
    if #dims > 0 then y = self:emit(op, { y }, { dims = dims, keep = self:attribute("keepdims", 1) ~= 0 }, x.kind) end
    return after(self, y)
  end
end

local function unary(op)
  return function(self, x) return (self:emit(op, { x })) end
end

entries.ReduceSum = reduction "sum"
entries.ReduceMean = reduction "mean"
entries.ReduceMax = reduction "max"
entries.ReduceMin = reduction "min"
entries.ReduceL1 = reduction("sum", unary "abs")
entries.ReduceL2 = reduction("sum", unary "square", unary "sqrt")
entries.ReduceSumSquare = reduction("sum", unary "square")
entries.ReduceLogSum = reduction("sum", nil, unary "log")

-- log(sum(exp(x - max))) + max
function entries.ReduceLogSumExp(self)
  local x = self:input(1)
  local dims = reduced(self, x)
  if not dims then return x end
  local function of(op, v, keep) return (self:emit(op, { v }, { dims = dims, keep = keep })) end
  local keep = self:attribute("keepdims", 1) ~= 0
  local high = self:emit("clamp", { of("max", x, true) }, { low = -3e38, high = 3e38 })
  local y = self:emit("log", { of("sum", self:emit("exp", { (self:emit("sub", { x, high })) }), true) })
  y = self:emit("add", { y, high })
  if keep then return y end
  local shape, gone = {}, {}
  for _, d in ipairs(dims) do gone[d] = true end
  for d, size in ipairs(x.shape) do
    if not gone[d] then shape[#shape + 1] = size end
  end
  return self:reshaped(y, shape)
end

-- Calls fn on x with dim d as its last one.
local function along(self, x, d, fn)
  local order, n = {}, #x.shape
  for i = 1, n do order[i] = i end
  order[d], order[n] = n, d
  return self:transposed(fn(self:transposed(x, order)), order)
end

local function softmax(op)
  return function(self)
    local x = self:input(1)
    if self.opset < 13 then -- everything from the axis on counts as one
      local axis, outer, inner = self:attribute("axis", 1), 1, 1
      if axis < 0 then axis = axis + #x.shape end
      for d, size in ipairs(x.shape) do
        if d <= axis then outer = outer * size else inner = inner * size end
      end
      return self:reshaped((self:emit(op, { self:reshaped(x, { outer, inner }) })), x.shape)
    end
    local d = self:dim(self:attribute("axis", -1), #x.shape)
    return along(self, x, d, function(v) return (self:emit(op, { v })) end)
  end
end
entries.Softmax = softmax "softmax"
entries.LogSoftmax = softmax "log_softmax"

-- Position of the first largest element; of the last one: that of the reversed list, counted back.
local function argument(sign)
  return function(self)
    local x = self:input(1)
    local d = self:dim(self:attribute("axis", 0), #x.shape)
    local last = self:attribute("select_last_index", 0) ~= 0
    if sign < 0 then x = self:emit("neg", { x }) end
    if last then
      local attr = { first = {}, last = {}, step = {} }
      for i, size in ipairs(x.shape) do attr.first[i], attr.last[i], attr.step[i] = 1, size, 1 end
      attr.first[d], attr.last[d], attr.step[d] = x.shape[d], 1, -1
      x = self:emit("slice", { x }, attr)
    end
    local y = self:emit("argmax", { x }, { dim = d, keep = self:attribute("keepdims", 1) ~= 0 }, "i64")
    return last and self:emit("affine", { y }, { scale = -1, shift = x.shape[d] - 1 }) or y
  end
end
entries.ArgMax = argument(1)
entries.ArgMin = argument(-1)

-- 1 at the first largest element along the axis, else 0.
function entries.Hardmax(self)
  local x = self:input(1)
  local d = self:dim(self:attribute("axis", self.opset < 13 and 1 or -1), #x.shape)
  local at = self:emit("argmax", { x }, { dim = d, keep = true })
  local positions, shape = tensor.arange(x.shape[d], "i32"), {}
  for i = 1, #x.shape do shape[i] = i == d and x.shape[d] or 1 end
  return self:cast(self:emit("eq", { at, self:constant(positions:reshape(shape), "i64") }), x.kind)
end

return entries
