-- checkpoint.lua: the whole state of a training run in one safetensors file, written atomically. Numbers are f64 tensors, so that they come back to the bit.
local core = require "libration.core"
local tensor = require "libration.tensor"
local files = require "libration.files"
local safetensors = require "libration.formats.safetensors"

local checkpoint = {}

-- One line a value, sorted: "motion.window=30". What two runs must share to be one run.
local function flatten(value, prefix, out)
  if type(value) ~= "table" then
    out[#out + 1] = prefix .. "=" .. (type(value) == "number" and ("%.17g"):format(value) or tostring(value))
    return
  end
  local keys = {}
  for k in pairs(value) do keys[#keys + 1] = k end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, k in ipairs(keys) do flatten(value[k], prefix == "" and tostring(k) or prefix .. "." .. tostring(k), out) end
end

--- A configuration as text that two runs can be compared by.
---@param about table nested, of strings, numbers and booleans
---@return string
function checkpoint.describe(about)
  local out = {}
  flatten(about, "", out)
  return table.concat(out, "\n")
end

local function column(list)
  return tensor.tensor(#list > 0 and list or {}, "f64")
end

local function list_of(t)
  local out, p = {}, t:ptr()
  for i = 1, t:numel() do out[i] = p[i - 1] end
  return out
end

--- Writes a run's state.
---@param path string
---@param run table {model=, optimizer=, schedule=, history=, numbers = {name = number}, about = string}
function checkpoint.save(path, run)
  local all = {}
  for name, t in pairs(run.model:state_dict(true)) do all["model." .. name] = t end
  for name, t in pairs(run.optimizer:state_dict()) do all["optimizer." .. name] = t end
  for name, v in pairs(run.schedule:state()) do all["schedule." .. name] = column {v} end
  for name, list in pairs(run.history) do all["history." .. name] = column(list) end
  for name, v in pairs(run.numbers) do all["numbers." .. name] = column {v} end
  safetensors.save(path, all, {kind = "libration checkpoint", about = run.about})
end

-- First line that two descriptions do not share.
local function first_difference(was, is)
  local have = {}
  for line in was:gmatch "[^\n]+" do have[line:match "^[^=]*"] = line end
  for line in is:gmatch "[^\n]+" do
    local name = line:match "^[^=]*"
    if have[name] ~= line then return (have[name] or name .. " was not set"), line end
    have[name] = nil
  end
  local _, line = next(have)
  return line or "nothing", "nothing"
end

--- Reads a state written by save into model, optimizer and schedule.
---@param path string
---@param run table {model=, optimizer=, schedule=, about=}
---@return table|nil {history=, numbers=}, or nil where there is no file
function checkpoint.load(path, run)
  if not files.exists(path) then return nil end
  local all, metadata = safetensors.load(path)
  if not all then core.raise(metadata) end
  if metadata.kind ~= "libration checkpoint" then core.raise(path .. ": not a checkpoint of a training run") end
  if metadata.about ~= run.about then
    local was, is = first_difference(metadata.about, run.about)
    core.raise(("cannot resume from %s: it was made with %s, this run has %s"):format(path, was, is))
  end
  local parts = {model = {}, optimizer = {}, schedule = {}, history = {}, numbers = {}}
  for name, t in pairs(all) do
    local room, key = name:match "^(%a+)%.(.*)$"
    if not parts[room] then core.raise(path .. ": unknown entry " .. name) end
    parts[room][key] = t
  end
  run.model:load_state_dict(parts.model, true)
  run.optimizer:load_state_dict(parts.optimizer)
  for name, t in pairs(parts.schedule) do parts.schedule[name] = t:get(1) end
  run.schedule:load_state(parts.schedule)
  for name, t in pairs(parts.history) do parts.history[name] = list_of(t) end
  for name, t in pairs(parts.numbers) do parts.numbers[name] = t:get(1) end
  return {history = parts.history, numbers = parts.numbers}
end

return checkpoint
