-- optimizer.lua: what all optimisers share: parameters, the control tensor, clipping, accumulation, loss scaling, state. Knows no update rule.
-- Everything that changes from step to step is a tensor, so that a whole training step can be recorded and replayed.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"

local raise = core.raise
local RATE, STEP, SKIP, SCALE, GOOD, OVERFLOWS, SCALED = 1, 2, 4, 5, 6, 7, 8 -- places in control, see ops.def; the last: is there a scaler

---@class Optimizer
local Optimizer = {}
Optimizer.__index = Optimizer

local M = {Optimizer = Optimizer}

--- A class of optimisers.
function M.class(kind)
  local class = setmetatable({kind = kind}, {
    __index = Optimizer,
    __call = function(self, ...) return self.new(...) end,
  })
  class.__index = class
  return class
end

-- A module, a list of {name=, tensor=} or a list of tensors -> list of {name=, tensor=}.
local function named(parameters, kind)
  if type(parameters) == "table" and parameters.named_parameters then parameters = parameters:named_parameters() end
  if type(parameters) ~= "table" or #parameters == 0 then raise(kind .. ": no parameters; give a module or a list of tensors") end
  local out = {}
  for i, p in ipairs(parameters) do
    if tensor.is_tensor(p) then p = {name = tostring(i), tensor = p} end
    if not tensor.is_tensor(p.tensor) then raise(kind .. ": parameter " .. i .. " is " .. type(p) .. ", want a tensor") end
    out[i] = p
  end
  return out
end

--- Checks an option that is a number within [low, high).
function M.number(options, kind, name, default, low, high)
  local v = options[name]
  if v == nil then v = default end
  if type(v) ~= "number" or not (v >= low and v < (high or math.huge)) then
    raise(("%s: %s is %s, want a number in [%g, %g)"):format(kind, name, tostring(v), low, high or math.huge))
  end
  return v
end

local common = {rate = true, clip = true, scaler = true}

--- Begins an instance. states: names of the tensors kept beside each parameter.
function M.create(class, parameters, options, states, known)
  options = options or {}
  for key in pairs(options) do
    if not common[key] and not known[key] then
      local names = {}
      for name in pairs(common) do names[#names + 1] = name end
      for name in pairs(known) do names[#names + 1] = name end
      table.sort(names)
      raise(("%s: no option '%s'; there are %s"):format(class.kind, tostring(key), table.concat(names, ", ")))
    end
  end
  local self = setmetatable({named = named(parameters, class.kind), states = states}, class)
  self.clip = M.number(options, class.kind, "clip", 0, 0)
  self.scaler = options.scaler or {}
  local device = self.named[1].tensor.device
  local control = tensor.zeros({8}, "f64", device)
  self.control, self.norm = tensor.keep(control), tensor.keep(tensor.zeros({1}, "f64", device))
  control:set(M.number(options, class.kind, "rate", 1e-3, 0), RATE)
  control:set(self.scaler.initial or 1, SCALE)
  control:set(self.scaler.initial and 1 or 0, SCALED)
  for _, name in ipairs(states) do
    self[name] = {}
    for i, p in ipairs(self.named) do self[name][i] = tensor.keep(tensor.zeros(p.tensor.shape, p.tensor.dtype, p.tensor.device)) end
  end
  local begin = ops.rows.optim_begin.attr()
  begin.growth, begin.backoff, begin.interval = self.scaler.growth or 1, self.scaler.backoff or 1, self.scaler.interval or 0
  self.begin = begin
  return self
end

--- The parameters in order, as the tape's gradient wants them.
---@return Tensor[]
function Optimizer:parameters()
  local out = {}
  for i, p in ipairs(self.named) do out[i] = p.tensor end
  return out
end

--- What the gradient of the loss starts with: nil without a scaler, else the present loss scale. For tape:gradient(loss, parameters, seed).
---@param dtype string|nil of the loss, "f32"
---@return Tensor|nil without dims
function Optimizer:seed(dtype)
  if not self.scaler.initial then return nil end
  return self.control:narrow(1, SCALE, 1):to(dtype or "f32"):reshape {}
end

local function check_grads(self, grads)
  if #grads ~= #self.named then raise(("%s: %d gradients for %d parameters"):format(self.kind, #grads, #self.named)) end
end

--- Adds gradients of one micro-batch to the accumulated ones; step() without gradients then uses and clears them.
---@param grads Tensor[]
---@param share number|nil what they are multiplied with, e.g. 1/4 for a mean over four micro-batches
function Optimizer:accumulate(grads, share)
  check_grads(self, grads)
  if not self.sums then
    if core.C.lbr_recording() ~= 0 then raise(self.kind .. ": call prepare_accumulation() before recording") end
    self:prepare_accumulation()
  end
  for i, g in ipairs(grads) do ops.add_(self.sums[i], g, share or 1) end
end

--- Makes the tensors that accumulate() fills.
function Optimizer:prepare_accumulation()
  if self.sums then return end
  self.sums = {}
  for i, p in ipairs(self.named) do self.sums[i] = tensor.keep(tensor.zeros(p.tensor.shape, p.tensor.dtype, p.tensor.device)) end
end

--- Moves the states to a device, where the parameters went.
---@param device string "cpu", "cuda", "cuda:N"
---@return Optimizer self
function Optimizer:to(device)
  for _, t in pairs(self:state_dict()) do tensor.relocate(t, device) end
  tensor.relocate(self.norm, device)
  for _, t in ipairs(self.sums or {}) do tensor.relocate(t, device) end
  return self
end

--- One step: unscales, clips by the norm over all gradients, updates; a gradient that is not finite skips the step (the step counter stays, the loss scale falls).
---@param grads Tensor[]|nil in the order of parameters; nil = the accumulated ones
function Optimizer:step(grads)
  local own = grads == nil
  if own then
    grads = self.sums
    if not grads then raise(self.kind .. ": step without gradients, and none were accumulated") end
  end
  check_grads(self, grads)
  ops.fill_(self.norm, 0)
  for _, g in ipairs(grads) do ops.raw.square_sum_into(g, self.norm, nil) end
  ops.raw.optim_begin(self.norm, self.control, self.begin)
  for i, g in ipairs(grads) do self:update(i, g, self.named[i].tensor) end
  if own then
    for _, g in ipairs(grads) do ops.fill_(g, 0) end
  end
end

--- Learning rate; with a value: sets it (between replays too).
function Optimizer:rate(value)
  if value then self.control:set(value, RATE) end
  return self.control:get(RATE)
end

--- Steps taken, steps skipped because of overflow, whether the last one was skipped, the loss scale, and the norm of the last gradients before clipping.
---@return table {steps=, overflows=, skipped=, scale=, norm=}
function Optimizer:report()
  local c = tensor.move(self.control, "cpu")
  local scale = c:get(3) ~= 0 and c:get(3) or 1
  return {steps = c:get(STEP), overflows = c:get(OVERFLOWS), skipped = c:get(SKIP) ~= 0, scale = c:get(SCALE), norm = math.sqrt(self.norm:item()) * scale}
end

--- Everything that a resumed run needs, by name: control and, for each parameter, its states ("m.0.weight"). The tensors themselves.
---@return table<string, Tensor>
function Optimizer:state_dict()
  local out = {control = self.control}
  for _, state in ipairs(self.states) do
    for i, p in ipairs(self.named) do out[state .. "." .. p.name] = self[state][i] end
  end
  return out
end

--- Copies a state in; missing, unknown and differently shaped names are errors. The loss scale begins anew where only one of the two has a scaler.
---@param state table<string, Tensor>
function Optimizer:load_state_dict(state)
  local own = self:state_dict()
  for name, t in pairs(own) do
    local given = state[name]
    if not given then raise(self.kind .. ".load_state_dict: missing " .. name) end
    if table.concat(given.shape, ",") ~= table.concat(t.shape, ",") then
      raise(("%s.load_state_dict: %s is %s, want %s"):format(self.kind, name, tensor.describe(given), tensor.describe(t)))
    end
  end
  for name in pairs(state) do
    if not own[name] then raise(self.kind .. ".load_state_dict: unknown " .. name) end
  end
  for name, t in pairs(own) do t:copy_(state[name]) end
  local scaled = self.scaler.initial and 1 or 0
  if self.control:get(SCALED) ~= scaled then
    self.control:set(scaled, SCALED)
    self.control:set(self.scaler.initial or 1, SCALE)
    self.control:set(0, GOOD)
  end
end

return M
