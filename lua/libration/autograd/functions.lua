-- The slopes of the kinds of the row unary, by name: f(x, y, attr) from input and output. What is done with them is autograd.lua's.
local tensor = require "libration.tensor"
local ops = require "libration.ops"
require "libration.ops.functions"

local function flag(mask, like) return ops.to(mask, like.dtype) end

-- 1 where x > low, else what f gives.
local function above(f, low)
  return function(x, y, attr)
    local one = tensor.ones({}, x.dtype, x.device)
    return ops.where(x:gt(low and low(attr) or 0), one, f(x, y, attr))
  end
end
local function flat_slope(x) return ops.affine(x, 0, 0) end
local slopes = {
  tan = function(_, y) return ops.square(y) + 1 end,
  asin = function(x) return ops.rsqrt(1 - ops.square(x)) end,
  acos = function(x) return ops.neg(ops.rsqrt(1 - ops.square(x))) end,
  atan = function(x) return ops.reciprocal(ops.square(x) + 1) end,
  sinh = function(x) return ops.cosh(x) end,
  cosh = function(x) return ops.sinh(x) end,
  asinh = function(x) return ops.rsqrt(ops.square(x) + 1) end,
  acosh = function(x) return ops.rsqrt(ops.square(x) - 1) end,
  atanh = function(x) return ops.reciprocal(1 - ops.square(x)) end,
  erf = function(x) return ops.exp(ops.neg(ops.square(x))) * (2 / math.sqrt(math.pi)) end,
  ceil = flat_slope, floor = flat_slope, rint = flat_slope, trunc = flat_slope,
  rsqrt = function(_, y) return ops.square(y) * y * -.5 end,
  softplus = function(x) return ops.sigmoid(x) end,
  softsign = function(x) return ops.reciprocal(ops.square(ops.abs(x) + 1)) end,
  elu = above(function(_, y, attr) return y + attr.p end),
  selu = function(x, y, attr) return ops.where(x:gt(0), tensor.full({}, attr.q, x.dtype, x.device), y + attr.p * attr.q) end,
  celu = above(function(_, y, attr) return y * (1 / attr.p) + 1 end),
  gelu_tanh = function(x)
    local t = ops.tanh((x + ops.square(x) * x * .044715) * math.sqrt(2 / math.pi))
    return (t + 1) * .5 + x * (1 - ops.square(t)) * (ops.square(x) * (3 * .044715) + 1) * (.5 * math.sqrt(2 / math.pi))
  end,
  hard_sigmoid = function(x, y, attr) return (flag(y:gt(0), x) * flag(y:lt(1), x)) * attr.p end,
  hard_swish = function(x)
    local gate = ops.hard_sigmoid(x)
    return gate + x * flag(gate:gt(0), x) * flag(gate:lt(1), x) * (1 / 6)
  end,
  mish = function(x)
    local t = ops.tanh(ops.softplus(x))
    return t + x * (1 - ops.square(t)) * ops.sigmoid(x)
  end,
  thresholded_relu = above(flat_slope, function(attr) return attr.p end),
  shrink = function(x, _, attr) return flag(ops.gt(ops.abs(x), attr.p), x) end,
  leaky_relu = function(x, _, attr) return ops.where(x:gt(0), tensor.ones({}, x.dtype, x.device), tensor.full({}, attr.p, x.dtype, x.device)) end,
}

return slopes
