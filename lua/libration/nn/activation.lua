-- activation.lua: elementwise functions as modules, for Sequential.
local module = require "libration.nn.module"
local ops = require "libration.ops"

local activation = {}

for kind, op in pairs {ReLU = "relu", Tanh = "tanh", Sigmoid = "sigmoid", GELU = "gelu", SiLU = "silu"} do
  local class = module.class(kind)
  local fn = ops[op]
  function class.new() return module.create(class) end
  function class:forward(x) return fn(x) end -- luacheck: ignore 212
  activation[kind] = class
end

return activation
