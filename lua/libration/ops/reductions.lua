-- reductions.lua: reductions made of others, sums and products along a dim, what compares an element with its neighbours. sum, mean, max and their like are in ops.lua.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"
require "libration.ops.functions"

local raw, raise = ops.raw, core.raise

local function dim_index(x, d, name)
  if not tensor.is_tensor(x) then raise(name .. ": x is a " .. type(x) .. ", want a tensor") end
  return tensor.dim_of(x, d, name)
end

--- Sum of absolute values over dims. See sum.
function ops.l1(x, dims, keep) return ops.sum(ops.abs(x), dims, keep) end
--- Square root of the sum of squares over dims. See sum.
function ops.l2(x, dims, keep) return ops.sqrt(ops.sum(ops.square(x), dims, keep)) end
--- Sum of squares over dims. See sum.
function ops.sum_square(x, dims, keep) return ops.sum(ops.square(x), dims, keep) end
--- Logarithm of the sum over dims. See sum.
function ops.log_sum(x, dims, keep) return ops.log(ops.sum(x, dims, keep)) end

--- Logarithm of the sum of exp(x) over dims, without overflow. See sum.
function ops.log_sum_exp(x, dims, keep)
  local top = ops.max(x, dims, true):detach()
  top = ops.where(ops.lt(ops.abs(top), math.huge), top, 0)
  local y = ops.log(ops.sum(ops.exp(x - top), dims, true)) + top
  if keep then return y end
  return ops.sum(y, dims, false)
end

--- Position (from 0, i32) of the first smallest element along dim d; last = true: of the last one.
function ops.argmin(x, d, keep, last)
  if not tensor.is_tensor(x) then raise("argmin: x is a " .. type(x) .. ", want a tensor") end
  return ops.argmax(x.dtype_ >= 4 and ops.bit_not(x) or ops.neg(x), d, keep, last)
end

local function cumulative(name)
  return function(x, d, options)
    options = options or {}
    local attr = ops.rows[name].attr()
    attr.dim, attr.exclusive, attr.reverse = dim_index(x, d or -1, name), options.exclusive and 1 or 0, options.reverse and 1 or 0
    return raw[name](x, attr)
  end
end

--- Sums of the elements up to each along dim d (default the last): cumsum(x, d, {exclusive = true: without the element itself, reverse = true: from the end}).
ops.cumsum = cumulative "cumsum"
--- Products of the elements up to each along dim d. Its gradient wants no 0 among them. See cumsum.
ops.cumprod = cumulative "cumprod"

--- 1 where the first largest element along dim d (default the last) is, else 0.
function ops.hardmax(x, d)
  local at = dim_index(x, d or -1, "hardmax")
  local shape = {}
  for i = 1, x.ndim do shape[i] = i == at + 1 and x.shape_[at] or 1 end
  local places = tensor.arange(x.shape_[at], "i32", x.device):reshape(shape)
  return ops.to(ops.eq(places, ops.argmax(x, at + 1, true)), x.dtype)
end

--- x / (bias + alpha / size * sum of squares over `size` neighbours along dim d) ^ beta. Source: Krizhevsky et al. 2012.
---@param size integer neighbours, the element itself among them; the one before the middle where it is even
---@param options table|nil alpha 1e-4, beta .75, bias 1, dim: default the last
---@return Tensor
function ops.local_response_norm(x, size, options)
  options = options or {}
  local at = dim_index(x, options.dim or -1, "local_response_norm")
  tensor.whole(size, "local_response_norm", "size", 1)
  local before, after, sum = {}, {}, nil
  for i = 1, x.ndim do before[i], after[i] = 0, 0 end
  before[at + 1] = math.floor((size - 1) / 2)
  after[at + 1] = size - 1 - before[at + 1]
  local squares = ops.pad(ops.square(x), before, after)
  for i = 1, size do
    local part = squares:narrow(at + 1, i, x.shape_[at])
    sum = sum and sum + part or part
  end
  return x / ops.pow(ops.affine(sum, (options.alpha or 1e-4) / size, options.bias or 1), options.beta or .75)
end

return ops
