-- Functions of one and two numbers, sums along a dim and other compositions of the IR as calls of our ops. Rows as in lowering/elementwise.lua.
local ops = require "libration.ops"
require "libration.ops.functions"
require "libration.ops.reductions"
require "libration.ops.products"
local elementwise = require "libration.graph.lowering.elementwise"

local pointwise = elementwise.pointwise

-- Which dim an op works along, in another order of dims.
local function along(run)
  return {
    run = run, layout = "same",
    remap = function(attr, order)
      local out = {}
      for k, v in pairs(attr) do out[k] = v end
      out.dim = order[attr.dim]
      return out
    end,
  }
end

local rows = {
  elu = pointwise(function(x, a) return ops.elu(x[1], a.alpha) end),
  celu = pointwise(function(x, a) return ops.celu(x[1], a.alpha) end),
  selu = pointwise(function(x, a) return ops.selu(x[1], a.alpha, a.gamma) end),
  hard_sigmoid = pointwise(function(x, a) return ops.hard_sigmoid(x[1], a.slope, a.shift) end),
  thresholded_relu = pointwise(function(x, a) return ops.thresholded_relu(x[1], a.alpha) end),
  shrink = pointwise(function(x, a) return ops.shrink(x[1], a.half, a.shift) end),
  isinf = pointwise(function(x, a) return ops.isinf(x[1], a.sign) end),
  cumsum = along(function(x, a) return ops.cumsum(x[1], a.dim, a) end),
  cumprod = along(function(x, a) return ops.cumprod(x[1], a.dim, a) end),
  hardmax = along(function(x, a) return ops.hardmax(x[1], a.dim) end),
  local_response_norm = along(function(x, a) return ops.local_response_norm(x[1], a.size, a) end),
  prod = elementwise.reduction(function(x, a) return ops.prod(x[1], a.dims, a.keep) end),
  log_sum_exp = elementwise.reduction(function(x, a) return ops.log_sum_exp(x[1], a.dims, a.keep) end),
  einsum = { run = function(x, a) return ops.einsum(a.equation, x) end },
}
for _, name in ipairs {
  "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erf", "ceil", "floor", "round", "trunc", "softplus", "softsign", "mish", "gelu_tanh", "hard_swish",
  "bit_not",
} do
  local op = ops[name]
  rows[name] = pointwise(function(x) return op(x[1]) end)
end
for _, name in ipairs { "mod", "fmod", "bit_and", "bit_or", "bit_xor", "shift_left", "shift_right" } do
  local op = ops[name]
  rows[name] = pointwise(function(x) return op(x[1], x[2]) end)
end

return { rows = rows }
