-- batch_norm.lua: normalisation over all dims but the last, with running statistics.
local module = require "libration.nn.module"
local ops = require "libration.ops"
local tensor = require "libration.tensor"

---@class BatchNorm: Module
local BatchNorm = module.class "BatchNorm"

--- Batch norm; weight 1, bias 0, running_mean 0, running_var 1, all [C].
---@param channels integer C
---@param options table|nil {eps = 1e-5, momentum = .1}
---@return BatchNorm
function BatchNorm.new(channels, options)
  options = options or {}
  local self = module.create(BatchNorm)
  self.channels = module.size(channels, "BatchNorm", "channels")
  self.eps, self.momentum = options.eps or 1e-5, options.momentum or .1
  self:parameter("weight", tensor.ones {channels})
  self:parameter("bias", tensor.zeros {channels})
  self:buffer("running_mean", tensor.zeros {channels})
  self:buffer("running_var", tensor.ones {channels})
  return self
end

--- Training mode: statistics of the batch, which move the running ones; else the running ones.
---@param x Tensor [..,C]
---@return Tensor [..,C]
function BatchNorm:forward(x)
  return ops.batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, self.training, self.momentum, self.eps)
end

function BatchNorm:extra() return self.channels .. " channels" end

return BatchNorm
