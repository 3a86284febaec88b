-- depthwise.lua: one filter a channel of pictures [B,H,W,C].
local module = require "libration.nn.module"
local ops = require "libration.ops"

---@class Depthwise: Module
local Depthwise = module.class "Depthwise"

--- Depthwise convolution; weight [KH,KW,C], bias [C], uniform within 1/sqrt(KH*KW) as PyTorch's Conv2d with groups = C.
---@param channels integer C
---@param kernel integer|integer[] size or {h,w}
---@param options table|nil {stride=, pad=, dilation=, bias=true, act=} as ops.depthwise
---@return Depthwise
function Depthwise.new(channels, kernel, options)
  options = options or {}
  local self = module.create(Depthwise)
  local kh, kw = kernel, kernel
  if type(kernel) == "table" then kh, kw = kernel[1], kernel[2] end
  self.channels = module.size(channels, "Depthwise", "channels")
  module.size(kh, "Depthwise", "kernel")
  module.size(kw, "Depthwise", "kernel")
  self.options = {stride = options.stride, pad = options.pad, dilation = options.dilation, act = options.act}
  local bound = 1 / math.sqrt(kh * kw)
  self:parameter("weight", module.uniform({kh, kw, channels}, bound))
  if options.bias ~= false then self:parameter("bias", module.uniform({channels}, bound)) end
  return self
end

---@param x Tensor [B,H,W,C]
---@return Tensor [B,OH,OW,C]
function Depthwise:forward(x) return ops.depthwise(x, self.weight, rawget(self, "bias"), self.options) end

function Depthwise:extra() return ("%d channels, %dx%d"):format(self.channels, self.weight:size(1), self.weight:size(2)) end

return Depthwise
