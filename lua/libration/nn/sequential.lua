-- sequential.lua: modules one after the other.
local core = require "libration.core"
local module = require "libration.nn.module"

---@class Sequential: Module
local Sequential = module.class "Sequential"

--- Modules in a row, named 0, 1, ... as PyTorch. A module that returns several values (LSTM) passes on its first.
---@param ... Module or functions of one tensor
---@return Sequential
function Sequential.new(...)
  local self = module.create(Sequential)
  self.list = {...}
  for i, m in ipairs(self.list) do
    if type(m) == "table" and m.forward then self:child(tostring(i - 1), m)
    elseif type(m) ~= "function" then core.raise(("Sequential: module %d is %s, want a module or a function"):format(i, type(m))) end
  end
  return self
end

--- Errors name the place: "in module 3 of Sequential (Linear): ...".
---@param x Tensor
---@return Tensor
function Sequential:forward(x)
  for i, m in ipairs(self.list) do
    local kind = type(m) == "table" and m.kind or "function"
    x = module.located(("in module %d of Sequential (%s): "):format(i, kind), m, x)
  end
  return x
end

return Sequential
