-- module.lua: what every layer is: named parameters, buffers and children, a mode, a state. Knows no particular layer.
local core = require "libration.core"
local tensor = require "libration.tensor"
local autograd = require "libration.autograd"
local ops = require "libration.ops.random"

local raise = core.raise

---@class Module
local Module = {}
Module.__index = Module
Module.kind = "Module"

local M = {Module = Module}

-- Random numbers of initialisation: Philox(seed, stream), a stream a parameter in the order they are made.
local seed, stream = 0, 0

--- Starts the random numbers of initialisation and of dropout anew: the same seed and the same layers give the same weights.
---@param n integer
function M.seed(n)
  if type(n) ~= "number" or n < 0 or n ~= math.floor(n) then raise("nn.seed: " .. tostring(n) .. ", want a whole number >= 0") end
  seed, stream = n, 0
end

--- Seed and next stream for one random op of a layer.
function M.draw()
  stream = stream + 1
  return seed, stream
end

--- A class of layers: `local Linear = module.class "Linear"`; calling it runs Linear.new.
---@param kind string name in errors and printing
---@return table class
function M.class(kind)
  local class = setmetatable({kind = kind}, {
    __index = Module,
    __call = function(self, ...) return self.new(...) end,
  })
  class.__index = class
  class.__call = Module.__call
  class.__tostring = Module.__tostring
  return class
end

--- An empty instance of a class, for its `new`.
function M.create(class)
  return setmetatable({training = true, names = {}, owned = {}, order = {}, children_ = {}, buffers_ = {}, constants_ = {}, transient = {}}, class)
end

--- Checks a size among the arguments of a layer.
function M.size(value, layer, name)
  if type(value) ~= "number" or value < 1 or value ~= math.floor(value) then
    raise(("%s: %s is %s, want a whole number >= 1"):format(layer, name, tostring(value)))
  end
  return value
end

--- Uniform in [-bound, bound), f32.
function M.uniform(shape, bound)
  local s, k = M.draw()
  return tensor.keep(ops.uniform(shape, {seed = s, stream = k, low = -bound, high = bound}))
end

--- Normal with mean 0 and SD 1, f32.
function M.normal(shape)
  local s, k = M.draw()
  return tensor.keep(ops.randn(shape, {seed = s, stream = k}))
end

--- Registers a parameter: a leaf of the tape, in the order of registration.
---@param name string
---@param t Tensor
---@return Tensor t
function Module:parameter(name, t)
  autograd.requires_grad(tensor.keep(t))
  self.order[#self.order + 1] = {name = name, tensor = t}
  self[name] = t
  return t
end

--- Registers a tensor that is saved with the module but not trained; transient = true: part of a checkpoint, not of the weights.
function Module:buffer(name, t, transient)
  tensor.keep(t)
  self.buffers_[#self.buffers_ + 1] = {name = name, tensor = t, transient = transient}
  self[name] = t
  return t
end

--- Registers a tensor that is neither trained nor saved, but goes to a device with the module.
function Module:constant(name, t)
  self.constants_[#self.constants_ + 1] = tensor.keep(t)
  self[name] = t
  return t
end

--- Registers a module within this one.
function Module:child(name, m)
  self.children_[#self.children_ + 1] = {name = name, module = m}
  self[name] = m
  return m
end

local function walk(self, prefix, visit)
  visit(self, prefix)
  for _, c in ipairs(self.children_) do walk(c.module, prefix .. c.name .. ".", visit) end
end

--- Parameters with their names, in the order of registration, children after their parent's own.
---@return {name: string, tensor: Tensor}[]
function Module:named_parameters()
  local out = {}
  walk(self, "", function(m, prefix)
    for _, p in ipairs(m.order) do out[#out + 1] = {name = prefix .. p.name, tensor = p.tensor} end
  end)
  return out
end

--- Parameters in the order of named_parameters.
---@return Tensor[]
function Module:parameters()
  local out = self:named_parameters()
  for i, p in ipairs(out) do out[i] = p.tensor end
  return out
end

--- Buffers with their names; all = true: also the transient ones (counters of dropout).
---@return {name: string, tensor: Tensor}[]
function Module:named_buffers(all)
  local out = {}
  walk(self, "", function(m, prefix)
    for _, b in ipairs(m.buffers_) do
      if all or not b.transient then out[#out + 1] = {name = prefix .. b.name, tensor = b.tensor} end
    end
  end)
  return out
end

--- Parameters and buffers by name: the tensors themselves, not copies. safetensors.save takes the table.
---@param all boolean|nil also transient buffers
---@return table<string, Tensor>
function Module:state_dict(all)
  local out = {}
  for _, list in ipairs {self:named_parameters(), self:named_buffers(all)} do
    for _, p in ipairs(list) do out[p.name] = p.tensor end
  end
  return out
end

local function listed(names)
  table.sort(names)
  local n = #names
  for i = 6, n do names[i] = nil end
  return table.concat(names, ", ") .. (n > 5 and (" and %d more"):format(n - 5) or "")
end

--- Copies a state into the module. Missing, unknown and differently shaped names are errors, found before anything is written.
---@param state table<string, Tensor>
---@param all boolean|nil expect transient buffers too
function Module:load_state_dict(state, all)
  local own = self:state_dict(all)
  local missing, unknown = {}, {}
  for name, t in pairs(own) do
    local given = state[name]
    if given == nil then missing[#missing + 1] = name
    elseif table.concat(given.shape, ",") ~= table.concat(t.shape, ",") then
      raise(("load_state_dict: %s is %s, want %s"):format(name, tensor.describe(given), tensor.describe(t)))
    end
  end
  for name in pairs(state) do
    if not own[name] then unknown[#unknown + 1] = name end
  end
  if #missing > 0 then raise("load_state_dict: missing " .. listed(missing)) end
  if #unknown > 0 then raise("load_state_dict: unknown " .. listed(unknown)) end
  for name, t in pairs(own) do t:copy_(state[name]) end
end

--- Moves parameters and buffers to a device. Optimisers made before keep the same tensors; move them too (`optimizer:to`). Plans recorded before do not follow.
---@param device string "cpu", "cuda", "cuda:N"
---@return Module self
function Module:to(device)
  walk(self, "", function(m)
    for _, p in ipairs(m.order) do tensor.relocate(p.tensor, device) end
    for _, b in ipairs(m.buffers_) do tensor.relocate(b.tensor, device) end
    for _, t in ipairs(m.constants_) do tensor.relocate(t, device) end
  end)
  return self
end

--- Device of the parameters and buffers; "cpu" where there are none.
---@return string
function Module:device()
  local found
  walk(self, "", function(m) found = found or m.order[1] or m.buffers_[1] end)
  return found and found.tensor.device or "cpu"
end

--- Sets training mode (dropout, batch statistics) for this module and all within it.
---@param on boolean|nil default true
---@return Module self
function Module:train(on)
  on = on ~= false
  walk(self, "", function(m) m.training = on end)
  return self
end

--- The opposite of train.
function Module:eval() return self:train(false) end

--- Number of trained numbers.
function Module:count()
  local n = 0
  for _, p in ipairs(self:parameters()) do n = n + p:numel() end
  return n
end

--- Runs the module: the same as module:forward(...).
function Module:__call(...) return self:forward(...) end

function Module:forward() raise(self.kind .. " has no forward") end

--- One line of the layer's sizes for printing.
function Module.extra() return "" end

local function lines(self, indent, out, label)
  out[#out + 1] = indent .. label .. self.kind .. (self:extra() ~= "" and " (" .. self:extra() .. ")" or "")
  for _, c in ipairs(self.children_) do lines(c.module, indent .. "  ", out, c.name .. ": ") end
end

function Module:__tostring()
  local out = {}
  lines(self, "", out, "")
  out[#out + 1] = self:count() .. " parameters"
  return table.concat(out, "\n")
end

--- Runs fn and puts a place in front of its error, without the position that the error began with.
---@param place string "in module 3 of Sequential (Linear): "
function M.located(place, fn, ...)
  local function finish(ok, ...)
    if ok then return ... end
    local err = ...
    if type(err) ~= "string" or err:find("interrupted", 1, true) then error(err, 0) end
    raise(place .. err:gsub("^[^\n]-:%d+: ", ""))
  end
  return finish(pcall(fn, ...))
end

return M
