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

local function empty(x, dims)
  for _, d in ipairs(dims) do
    if x.shape[d] == 0 then return true end
  end
  return false
end

-- What is left of x after a reduction of dims, all of it `value` (of whole numbers the nearest there is).
local function constant(self, x, dims, value)
  local shape, gone = {}, {}
  for _, d in ipairs(dims) do gone[d] = true end
  for d, size in ipairs(x.shape) do
    if not gone[d] then shape[#shape + 1] = size elseif self:attribute("keepdims", 1) ~= 0 then shape[#shape + 1] = 1 end
  end
  if x.kind == "bool" then value = value > 0 and 1 or 0 end
  return (self:emit("expand", { self:constant(tensor.full({}, value, self:dtype(x)), x.kind) }, { shape = shape }))
end

local neutral = { max = -math.huge, min = math.huge, log_sum_exp = -math.huge } -- over no elements; sums and products have theirs

-- A Reduce operator: before(x), the IR's reduction, after(y).
local function reduction(op, before, after)
  before, after = before or same, after or same
  return function(self)
    local x = self:input(1)
    local dims = reduced(self, x)
    local y = before(self, x)
    if dims and neutral[op] and empty(x, dims) then return constant(self, x, dims, neutral[op]) end
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
entries.ReduceProd = reduction "prod"
entries.ReduceLogSumExp = reduction "log_sum_exp"
entries.ReduceLogSum = reduction("sum", nil, unary "log")

-- Calls fn on x with dim d as its last one.
local function along(self, x, d, fn)
  local order, n = {}, #x.shape
  for i = 1, n do order[i] = i end
  order[d], order[n] = n, d
  return self:transposed(fn(self:transposed(x, order)), order)
end

-- Before opset 13 everything from the axis on counts as one dim.
local function flattened(x, axis)
  local outer, inner = 1, 1
  if axis < 0 then axis = axis + #x.shape end
  for d, size in ipairs(x.shape) do
    if d <= axis then outer = outer * size else inner = inner * size end
  end
  return { outer, inner }
end

local function softmax(op)
  return function(self)
    local x = self:input(1)
    if self.opset < 13 then return self:reshaped((self:emit(op, { self:reshaped(x, flattened(x, self:attribute("axis", 1))) })), x.shape) end
    local d = self:dim(self:attribute("axis", -1), #x.shape)
    return along(self, x, d, function(v) return (self:emit(op, { v })) end)
  end
end
entries.Softmax = softmax "softmax"
entries.LogSoftmax = softmax "log_softmax"

local function argument(op)
  return function(self)
    local x = self:input(1)
    local attr = { dim = self:dim(self:attribute("axis", 0), #x.shape), keep = self:attribute("keepdims", 1) ~= 0, last = self:attribute("select_last_index", 0) ~= 0 }
    return self:emit(op, { x }, attr, "i64")
  end
end
entries.ArgMax = argument "argmax"
entries.ArgMin = argument "argmin"

function entries.Hardmax(self)
  local x, axis = self:input(1), self:attribute("axis", self.opset < 13 and 1 or -1)
  if self.opset >= 13 then return self:emit("hardmax", { x }, { dim = self:dim(axis, #x.shape) }) end
  return self:reshaped((self:emit("hardmax", { self:reshaped(x, flattened(x, axis)) }, { dim = 2 })), x.shape)
end

return entries
