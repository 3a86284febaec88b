-- Elementwise and reducing ops of the IR as calls of our ops. A row: {run = fn(inputs, attr, node) -> tensors, layout = how a change of the order of dims goes through}.
-- layout: "pointwise", "reduction" and "same" (remap(attr, order) -> attr of the op whose input dim order[d] is this one's d), "last" (works on the last dim alone),
-- "pixels" (a convolution), "reshape", "product"; without one the op takes its inputs as they are.
local ops = require "libration.ops"

local M = {}

---A row whose op takes every element by itself, operands broadcasting: any order of dims will do.
---@param run fun(x: Tensor[], attr: table, node: IrNode): Tensor
---@return table row
function M.pointwise(run)
  return { run = run, layout = "pointwise" }
end
local pointwise = M.pointwise

local function dims_through(attr, order)
  local dims = {}
  for i, d in ipairs(attr.dims) do dims[i] = order[d] end
  return { dims = dims, keep = attr.keep }
end

---A row that reduces attr.dims, keeping them as 1 where attr.keep.
---@param run fun(x: Tensor[], attr: table): Tensor
---@return table row
function M.reduction(run)
  return { run = run, layout = "reduction", remap = dims_through }
end

local rows = {
  relu6 = pointwise(function(x) return ops.clamp(x[1], 0, 6) end),
  relu_n1_to_1 = pointwise(function(x) return ops.clamp(x[1], -1, 1) end),
  prelu = pointwise(function(x) return ops.prelu(x[1], x[2]) end),
  leaky_relu = pointwise(function(x, a) return ops.leaky_relu(x[1], a.alpha) end),
  affine = pointwise(function(x, a) return ops.affine(x[1], a.scale, a.shift) end),
  clamp = pointwise(function(x, a) return ops.clamp(x[1], a.low, a.high) end),
  where = pointwise(function(x) return ops.where(x[1], x[2], x[3]) end),
  cast = pointwise(function(x, a) return x[1]:to(a.dtype) end),
}
for _, name in ipairs { "add", "sub", "mul", "div", "maximum", "minimum", "pow", "eq", "ne", "lt", "le" } do
  local op = ops[name]
  rows[name] = pointwise(function(x) return op(x[1], x[2]) end)
end
for _, name in ipairs { "neg", "abs", "sign", "exp", "log", "sqrt", "square", "reciprocal", "sin", "cos", "sigmoid", "tanh", "relu", "gelu", "silu", "isnan" } do
  local op = ops[name]
  rows[name] = pointwise(function(x) return op(x[1]) end)
end
for _, name in ipairs { "sum", "mean", "max", "min" } do
  local op = ops[name]
  rows[name] = M.reduction(function(x, a) return op(x[1], a.dims, a.keep) end)
end

M.rows = rows
return M
