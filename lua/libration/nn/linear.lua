-- linear.lua: y = x W^T + b.
local module = require "libration.nn.module"
local ops = require "libration.ops"

---@class Linear: Module
local Linear = module.class "Linear"

--- Linear layer; weight [out,in], bias [out], both uniform within 1/sqrt(in) as PyTorch.
---@param inputs integer I
---@param outputs integer O
---@param options table|nil {bias = true}
---@return Linear
function Linear.new(inputs, outputs, options)
  local self = module.create(Linear)
  self.inputs, self.outputs = module.size(inputs, "Linear", "inputs"), module.size(outputs, "Linear", "outputs")
  local bound = 1 / math.sqrt(inputs)
  self:parameter("weight", module.uniform({outputs, inputs}, bound))
  if not (options and options.bias == false) then self:parameter("bias", module.uniform({outputs}, bound)) end
  return self
end

---@param x Tensor [..,I]; f16 or bf16 beside f32 weights: products of that type, summed in f32
---@return Tensor [..,O] of x's type
function Linear:forward(x)
  local w, b = self.weight, rawget(self, "bias")
  if x.dtype == "f16" or x.dtype == "bf16" then w, b = w:to(x.dtype), b and b:to(x.dtype) end
  return ops.linear(x, w, b)
end

function Linear:extra() return ("%d -> %d"):format(self.inputs, self.outputs) end

return Linear
