-- conv2d.lua: convolution of pictures [B,H,W,C].
local module = require "libration.nn.module"
local ops = require "libration.ops"

---@class Conv2d: Module
local Conv2d = module.class "Conv2d"

--- Convolution; weight [O,KH,KW,C/groups] (PyTorch's permuted to 1,3,4,2), bias [O], uniform within 1/sqrt(C/groups*KH*KW) as PyTorch.
---@param inputs integer C
---@param outputs integer O
---@param kernel integer|integer[] size or {h,w}
---@param options table|nil {stride=, pad=, dilation=, groups=, bias=true, act=} as ops.conv2d
---@return Conv2d
function Conv2d.new(inputs, outputs, kernel, options)
  options = options or {}
  local self = module.create(Conv2d)
  local kh, kw = kernel, kernel
  if type(kernel) == "table" then kh, kw = kernel[1], kernel[2] end
  local groups = options.groups or 1
  self.inputs, self.outputs = module.size(inputs, "Conv2d", "inputs"), module.size(outputs, "Conv2d", "outputs")
  module.size(kh, "Conv2d", "kernel")
  module.size(kw, "Conv2d", "kernel")
  module.size(inputs / groups, "Conv2d", "inputs / groups")
  self.options = {stride = options.stride, pad = options.pad, dilation = options.dilation, groups = groups, act = options.act}
  local bound = 1 / math.sqrt(inputs / groups * kh * kw)
  self:parameter("weight", module.uniform({outputs, kh, kw, inputs / groups}, bound))
  if options.bias ~= false then self:parameter("bias", module.uniform({outputs}, bound)) end
  return self
end

---@param x Tensor [B,H,W,C]
---@return Tensor [B,OH,OW,O]
function Conv2d:forward(x) return ops.conv2d(x, self.weight, rawget(self, "bias"), self.options) end

function Conv2d:extra() return ("%d -> %d, %dx%d"):format(self.inputs, self.outputs, self.weight:size(2), self.weight:size(3)) end

return Conv2d
