-- Networks from plan files: fixed shapes, nothing to lower. The same face as an imported network's. Knows nothing of the file's bytes.
local record = require "libration.record"

local M = {}

---@class SavedNetwork
---@field name string path
---@field inputs {name: string, kind: string, shape: integer[]}[]
---@field outputs {name: string, kind: string, shape: integer[]}[]
---@field device string "cpu"
local Saved = {}
Saved.__index = Saved

---@param path string
---@return SavedNetwork? network
---@return string? error one line
function M.load(path)
  local opened, err = record.open(path)
  if not opened then return nil, err end
  return setmetatable({ name = path, inputs = opened.inputs, outputs = opened.outputs, device = "cpu", opened = opened }, Saved)
end

---Runs the network.
---@param ... Tensor one for each input, of the dtype and shape in the file
---@return table<string, Tensor> outputs by name
function Saved:run(...)
  local named, results = {}, { self.opened:run(...) }
  for i, out in ipairs(self.outputs) do named[out.name] = results[i] end
  return named
end

Saved.__call = Saved.run

---Time of each op, one timed run.
---@param ... Tensor inputs as for run
---@return table plan tostring(plan) is the table; plan:calls(true) its rows
function Saved:profile(...)
  self:run(...)
  return self.opened.plan
end

function Saved:__tostring()
  local parts = {}
  for i, v in ipairs(self.inputs) do parts[i] = ("%s [%s]"):format(v.name, table.concat(v.shape, ",")) end
  for i, v in ipairs(self.outputs) do parts[#self.inputs + i] = ("-> %s [%s]"):format(v.name, table.concat(v.shape, ",")) end
  return ("network %s: %s; a saved plan of %d calls"):format(self.name, table.concat(parts, " "), #self.opened.plan:calls())
end

return M
