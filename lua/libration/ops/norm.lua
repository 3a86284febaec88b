-- norm.lua: normalisations made of layer_norm and reductions: over groups of channels and by root mean square.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"
require "libration.ops.spatial"

local raise = core.raise

--- Normalises each picture over its pixels and each group of channels; groups = C is instance norm.
---@param x Tensor [B,..,C]
---@param groups integer
---@param weight Tensor|nil [C]
---@param bias Tensor|nil [C]
---@param eps number|nil 1e-5
---@return Tensor
function ops.group_norm(x, groups, weight, bias, eps)
  local s = tensor.is_tensor(x) and x.shape or raise("group_norm: x is a " .. type(x) .. ", want a tensor")
  local C = s[#s]
  if #s < 2 or groups < 1 or C % groups ~= 0 or x:numel() == 0 then raise(("group_norm: x is %s, %s groups"):format(tensor.describe(x), tostring(groups))) end
  local n, each = x:numel() / (s[1] * C), C / groups
  -- mean over the pixels and the channels of a group, for each channel
  local function mean_of(v)
    v = ops.mean(v, 2, true)
    return each == 1 and v or ops.mean(v:reshape(s[1], 1, groups, each), 4, true):expand(s[1], 1, groups, each):reshape(s[1], 1, C)
  end
  local y = x:reshape(s[1], n, C)
  y = y - mean_of(y)
  local factor = ops.reciprocal(ops.sqrt(ops.affine(mean_of(ops.square(y)), 1, eps or 1e-5)))
  y = y * (weight and factor * weight or factor)
  return (bias and y + bias or y):reshape(s)
end

--- x / sqrt(mean(x^2) + eps) * weight over the last dim.
---@param x Tensor [..,C]
---@param weight Tensor|nil [C]
---@param eps number|nil 1e-5
function ops.rms_norm(x, weight, eps)
  local y = x / ops.sqrt(ops.affine(ops.mean(ops.square(x), -1, true), 1, eps or 1e-5))
  return weight and y * weight or y
end

return ops
