-- layer_norm.lua: normalisation over the last dim.
local module = require "libration.nn.module"
local ops = require "libration.ops"
local tensor = require "libration.tensor"

---@class LayerNorm: Module
local LayerNorm = module.class "LayerNorm"

--- Layer norm; weight 1, bias 0, both [C].
---@param channels integer C
---@param options table|nil {eps = 1e-5, affine = true}
---@return LayerNorm
function LayerNorm.new(channels, options)
  options = options or {}
  local self = module.create(LayerNorm)
  self.channels, self.eps = module.size(channels, "LayerNorm", "channels"), options.eps or 1e-5
  if options.affine ~= false then
    self:parameter("weight", tensor.ones {channels})
    self:parameter("bias", tensor.zeros {channels})
  end
  return self
end

---@param x Tensor [..,C]
---@return Tensor [..,C]
function LayerNorm:forward(x) return ops.layer_norm(x, rawget(self, "weight"), rawget(self, "bias"), self.eps) end

function LayerNorm:extra() return self.channels .. " channels" end

return LayerNorm
