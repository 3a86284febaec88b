-- step.lua: one training step and one evaluation as recorded functions. Knows no epochs and no files.
local autograd = require "libration.autograd"
local ops = require "libration.ops"
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
---@param options table|nil {eager = true: without recording; tally = step.tally(...), which counts each loss}
---@return fun(...): Tensor loss before the step; valid until the next call
function step.new(model, optimizer, loss, options)
  local parameters, tally = optimizer:parameters(), options and options.tally
  return wrap(function(...)
    local value, grads = gradients(model, optimizer, parameters, loss, ...)
    optimizer:step(grads)
    if tally then tally:add(value, (...):size(1)) end
    return value
  end, options)
end

local Tally = {}
Tally.__index = Tally

--- Sum of loss x windows and windows, on the device of the model, so that a step needs no value on the host.
---@param device string
---@param accumulating boolean what micro-batches add counts when their step is taken
---@param finite boolean a loss that is not finite is left out: with a loss scaler such a step is skipped
---@return table {add(value, count), keep(), set(sum, seen), get(): sum, seen}
function step.tally(device, accumulating, finite)
  local sums = tensor.zeros({2}, "f64", device)
  return setmetatable({sums = sums, kept = accumulating and tensor.zeros({2}, "f64", device) or sums, finite = finite}, Tally)
end

function Tally:add(value, count) ops.tally_(self.sums, value, count, self.finite) end

function Tally:keep() self.kept:copy_(self.sums) end

function Tally:set(sum, seen)
  self.sums:copy_(tensor.tensor({sum, seen}, "f64"))
  if self.kept ~= self.sums then self:keep() end
end

function Tally:get()
  local t = tensor.move(self.kept, "cpu")
  return t:get(1), t:get(2)
end

--- The same split in two: accumulate(share, ...) adds a micro-batch's gradients times share, apply() takes the step.
---@return fun(share: number, ...): Tensor accumulate, fun() apply
function step.accumulating(model, optimizer, loss, options)
  local parameters, tally = optimizer:parameters(), options and options.tally
  optimizer:prepare_accumulation()
  local accumulate = wrap(function(share, ...)
    local value, grads = gradients(model, optimizer, parameters, loss, ...)
    optimizer:accumulate(grads, share)
    if tally then tally:add(value, (...):size(1)) end
    return value
  end, options)
  return accumulate, wrap(function()
    optimizer:step()
    if tally then tally:keep() end
  end, options)
end

--- loss(model, ...) without gradients, recorded; options as of step.new.
---@return fun(...): Tensor
function step.evaluation(model, loss, options)
  local tally = options and options.tally
  return wrap(function(...)
    local value = loss(model, ...)
    if tally then tally:add(value, (...):size(1)) end
    return value
  end, options)
end

return step
