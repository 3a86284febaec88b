-- schedule.lua: learning rates over the epochs: constant, cosine, step, plateau. Plain numbers; knows no optimiser.
local core = require "libration.core"

local raise = core.raise

---@class Schedule
local Schedule = {}
Schedule.__index = Schedule

local schedule = {}

local function make(kind, fields, fn)
  fields.kind, fields.fn = kind, fn
  return setmetatable(fields, Schedule)
end

local function positive(value, name)
  if type(value) ~= "number" or not (value > 0) then raise(("schedule: %s is %s, want a number > 0"):format(name, tostring(value))) end
  return value
end

--- The same rate always.
---@param rate number
function schedule.constant(rate)
  return make("constant", {base = positive(rate, "rate")}, function(self) return self.base end)
end

--- From rate down to `final` along half a cosine over `epochs`, after `warmup` epochs of linear rise. Source: Loshchilov & Hutter 2017.
---@param options table {epochs=, final = 0, warmup = 0}
function schedule.cosine(rate, options)
  local fields = {base = positive(rate, "rate"), epochs = positive(options.epochs, "epochs"), final = options.final or 0, warmup = options.warmup or 0}
  return make("cosine", fields, function(self, epoch)
    if epoch <= self.warmup then return self.base * epoch / self.warmup end
    local share = math.min(1, (epoch - 1 - self.warmup) / math.max(1, self.epochs - self.warmup))
    return self.final + (self.base - self.final) * (1 + math.cos(math.pi * share)) / 2
  end)
end

--- Multiplied by `factor` every `every` epochs.
---@param options table {every=, factor = .1}
function schedule.step(rate, options)
  local fields = {base = positive(rate, "rate"), every = positive(options.every, "every"), factor = positive(options.factor or .1, "factor")}
  return make("step", fields, function(self, epoch) return self.base * self.factor ^ math.floor((epoch - 1) / self.every) end)
end

--- Multiplied by `factor` when the metric has not fallen below (1 - threshold) x its best for more than `patience` epochs. As PyTorch's ReduceLROnPlateau.
---@param options table|nil {factor = .1, patience = 10, threshold = 1e-4, lowest = 0}
function schedule.plateau(rate, options)
  options = options or {}
  local fields = {
    base = positive(rate, "rate"), factor = positive(options.factor or .1, "factor"), patience = options.patience or 10,
    threshold = options.threshold or 1e-4, lowest = options.lowest or 0, best = math.huge, bad = 0, scale = 1,
  }
  return make("plateau", fields, function(self) return math.max(self.base * self.scale, self.lowest) end)
end

--- A schedule by name, as recipes take it: "constant", "cosine", "step" or "plateau".
---@param kind string
---@param rate number
---@param options table|nil of that schedule
---@return Schedule
function schedule.new(kind, rate, options)
  if kind == "new" or type(schedule[kind]) ~= "function" then raise(("schedule: %s, want constant, cosine, step or plateau"):format(tostring(kind))) end
  return schedule[kind](rate, options or {})
end

--- Learning rate of an epoch, from 1.
---@return number
function Schedule:rate(epoch) return self.fn(self, epoch) end

--- Tells the schedule what an epoch came to; only plateau listens.
---@param metric number lower is better
function Schedule:observe(metric)
  if self.kind ~= "plateau" then return end
  if metric < self.best * (1 - self.threshold) then
    self.best, self.bad = metric, 0
    return
  end
  self.bad = self.bad + 1
  if self.bad > self.patience then
    self.scale, self.bad = self.scale * self.factor, 0
  end
end

--- What a checkpoint keeps, as numbers by name.
function Schedule:state()
  if self.kind ~= "plateau" then return {} end
  return {best = self.best, bad = self.bad, scale = self.scale}
end

function Schedule:load_state(state)
  for name, v in pairs(state) do self[name] = v end
end

return schedule
