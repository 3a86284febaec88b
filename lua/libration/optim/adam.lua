-- adam.lua: Adam and AdamW.
local optimizer = require "libration.optim.optimizer"
local ops = require "libration.ops"

local known = {beta1 = true, beta2 = true, eps = true, weight_decay = true}

local function make(kind, decoupled, decay)
  local class = optimizer.class(kind)

  --- options: rate (1e-3), beta1 (.9), beta2 (.999), eps (1e-8), weight_decay (Adam 0, AdamW .01), clip (0 = off; largest norm over all gradients),
  --- scaler (optim.scaler). Bias correction and order of operations as PyTorch. Source: Kingma & Ba 2015; Loshchilov & Hutter 2019.
  ---@param parameters Module|Tensor[]
  ---@param options table|nil
  ---@return Optimizer
  function class.new(parameters, options)
    options = options or {}
    local self = optimizer.create(class, parameters, options, {"m", "v"}, known)
    local attr = ops.rows.adam.attr()
    attr.beta1 = optimizer.number(options, kind, "beta1", .9, 0, 1)
    attr.beta2 = optimizer.number(options, kind, "beta2", .999, 0, 1)
    attr.eps = optimizer.number(options, kind, "eps", 1e-8, 0)
    attr.weight_decay = optimizer.number(options, kind, "weight_decay", decay, 0)
    attr.decoupled, attr.clip = decoupled, self.clip
    self.attr = attr
    return self
  end

  function class:update(i, grad, parameter)
    ops.raw.adam(grad, self.control, self.norm, parameter, self.m[i], self.v[i], self.attr)
  end

  return class
end

return {Adam = make("Adam", 0, 0), AdamW = make("AdamW", 1, 1e-2)}
