-- scaler.lua: dynamic loss scaling as data; the optimiser's step does the work on its control tensor.
local core = require "libration.core"

--- Loss scaling for half-precision gradients: the loss is multiplied by a scale, the step divides by it, an overflow halves the scale and skips the step
--- (and Adam's counter, not the schedule), `interval` good steps in a row double it. Source: Micikevicius et al. 2018.
---@param options table|nil {initial = 65536, growth = 2, backoff = .5, interval = 2000}
---@return table for the option `scaler` of an optimiser
return function(options)
  options = options or {}
  local s = {initial = options.initial or 65536, growth = options.growth or 2, backoff = options.backoff or .5, interval = options.interval or 2000}
  if not (s.initial > 0 and s.growth >= 1 and s.backoff > 0 and s.backoff <= 1 and s.interval >= 1) then
    core.raise "scaler: want initial > 0, growth >= 1, 0 < backoff <= 1, interval >= 1"
  end
  return s
end
