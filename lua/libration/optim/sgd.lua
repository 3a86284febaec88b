-- sgd.lua: stochastic gradient descent with momentum.
local core = require "libration.core"
local optimizer = require "libration.optim.optimizer"
local ops = require "libration.ops"

---@class SGD: Optimizer
local SGD = optimizer.class "SGD"

local known = {momentum = true, weight_decay = true, nesterov = true}

--- options: rate (1e-3), momentum (0), nesterov (false), weight_decay (0), clip (0 = off), scaler. As PyTorch's SGD with dampening 0.
---@param parameters Module|Tensor[]
---@param options table|nil
---@return Optimizer
function SGD.new(parameters, options)
  options = options or {}
  local self = optimizer.create(SGD, parameters, options, {"velocity"}, known)
  local attr = ops.rows.sgd.attr()
  attr.momentum = optimizer.number(options, "SGD", "momentum", 0, 0, 1)
  attr.weight_decay = optimizer.number(options, "SGD", "weight_decay", 0, 0)
  attr.nesterov, attr.clip = options.nesterov and 1 or 0, self.clip
  if options.nesterov and attr.momentum == 0 then core.raise "SGD: nesterov wants momentum" end
  self.attr = attr
  return self
end

function SGD:update(i, grad, parameter)
  ops.raw.sgd(grad, self.control, self.norm, parameter, self.velocity[i], self.attr)
end

return SGD
