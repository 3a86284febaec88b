-- clip.lua: clipping of gradients on its own; the optimisers' option `clip` does the same within the step.
local tensor = require "libration.tensor"
local ops = require "libration.ops"

--- Scales gradients in place so that their norm over all is at most `limit`. Source: PyTorch's clip_grad_norm_.
---@param grads Tensor[] f32 or f64
---@param limit number
---@return Tensor norm f64 [1] before clipping
return function(grads, limit)
  local norm = tensor.zeros({1}, "f64")
  for _, g in ipairs(grads) do ops.raw.square_sum_into(g, norm, nil) end
  norm = ops.sqrt(norm)
  local factor = ops.clamp(ops.reciprocal(norm + 1e-6) * limit, nil, 1)
  for _, g in ipairs(grads) do g:copy_(g * factor:to(g.dtype):reshape {}) end
  return norm
end
