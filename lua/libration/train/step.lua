-- step.lua: one training step and one evaluation as recorded functions. Knows no epochs and no files.
local autograd = require "libration.autograd"
local record = require "libration.record"
local tensor = require "libration.tensor"

local step = {}

local function wrap(fn, options)
  if options and options.eager then return function(...) return tensor.scope(fn, ...) end end
  return record.record(fn)
end

-- Gradients of loss(model, ...) with the optimiser's loss scale as seed; a tape left open by an error is closed.
local function gradients(model, optimizer, parameters, loss, ...)
  local tape = autograd.tape()
  local ok, value = pcall(loss, model, ...)
  if not ok then
    tape:close()
    error(value, 0)
  end
  return value, tape:gradient(value, parameters, optimizer:seed(value.dtype))
end

--- A whole training step, recorded once a batch shape and replayed: forward, loss, backward, unscaling, clipping, update.
---@param model Module
---@param optimizer Optimizer of model's parameters
---@param loss fun(model, ...): Tensor of one element, made by ops from the batch's tensors
---@param options table|nil {eager = true: without recording}
---@return fun(...): Tensor loss before the step; valid until the next call
function step.new(model, optimizer, loss, options)
  local parameters = optimizer:parameters()
  return wrap(function(...)
    local value, grads = gradients(model, optimizer, parameters, loss, ...)
    optimizer:step(grads)
    return value
  end, options)
end

--- The same split in two: accumulate(share, ...) adds a micro-batch's gradients times share, apply() takes the step.
---@return fun(share: number, ...): Tensor accumulate, fun() apply
function step.accumulating(model, optimizer, loss, options)
  local parameters = optimizer:parameters()
  optimizer:prepare_accumulation()
  local accumulate = wrap(function(share, ...)
    local value, grads = gradients(model, optimizer, parameters, loss, ...)
    optimizer:accumulate(grads, share)
    return value
  end, options)
  return accumulate, wrap(function() optimizer:step() end, options)
end

--- loss(model, ...) without gradients, recorded.
---@return fun(...): Tensor
function step.evaluation(model, loss, options)
  return wrap(function(...) return loss(model, ...) end, options)
end

return step
