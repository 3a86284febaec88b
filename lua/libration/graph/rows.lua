-- A small network's batch, a picture on each core: several plans of one picture side by side, where one plan for all would wait at each of its many small layers.
-- Knows no file format; what a plan is and how one is run is record.lua's.
local ffi = require "ffi"
local core = require "libration.core"
local record = require "libration.record"
local tensor = require "libration.tensor"

local C, check = core.C, core.check

local M = {}

-- Bytes of a network's weights, and of what all cores together read of them when each has a picture of its own; larger ones keep all cores busy with one picture.
local SMALL, MOST = 4194304, 33554432

---Whether a network's weights are few enough.
---@param graph IrGraph
---@return boolean
function M.is_small(graph)
  local bytes, seen = 0, {}
  for _, node in ipairs(graph.nodes) do
    for i = 1, node.arity do
      local v = node.inputs[i]
      if v and v.data and not seen[v] then
        seen[v] = true
        bytes = bytes + 4 * v.data:numel()
      end
    end
  end
  return bytes <= SMALL or bytes * core.threads() <= MOST
end

local plans_t, tensors_t = ffi.typeof "lbr_plan *[?]", ffi.typeof "lbr_tensor *[?]"

---@class Rows
local Rows = {}
Rows.__index = Rows

-- As many plans of one picture; nil where their results do not lie in rows.
local function crew(self, count, inputs)
  local one = {}
  for i, x in ipairs(inputs) do one[i] = x:narrow(1, 1, self.sizes[i]) end
  for k = #self.crew + 1, count do
    local plan = record.record(self.fn, true):plan(unpack(one))
    for _, out in ipairs(plan.results) do
      if not out:is_contiguous() then return nil end
    end
    self.crew[k] = plan
  end
  return self.crew
end

-- The batch by these plans; nil where they cannot work side by side.
local function run(plans, count, batch, inputs)
  local n, m = #inputs, #plans[1].results
  local raw, own, whole, outputs, alive = plans_t(count), tensors_t(count * (n + m)), tensors_t(n + m), {}, {}
  for i, x in ipairs(inputs) do
    alive[i] = x:contiguous()
    whole[i - 1] = alive[i]
  end
  for i, out in ipairs(plans[1].results) do
    local shape = out.shape
    shape[1] = shape[1] * batch
    outputs[i] = tensor.empty(shape, out.dtype)
    whole[n + i - 1] = outputs[i]
  end
  for k = 1, count do
    raw[k - 1] = plans[k].plan
    for i = 1, n do own[(k - 1) * (n + m) + i - 1] = plans[k].held[i] end
    for i = 1, m do own[(k - 1) * (n + m) + n + i - 1] = plans[k].results[i] end
  end
  local code = C.lbr_plan_rows(raw, count, own, n, m, whole, batch)
  if code == C.LBR_EUNSUPPORTED then return nil end
  check(code)
  return outputs
end

---Runs the batch: its pictures side by side where there are as many as cores, a single one by all cores together, else in one plan.
---@param ... Tensor [B, ...]
---@return Tensor ... as fn makes them of the batch
function Rows:__call(...)
  local inputs, threads = { ... }, core.threads()
  local batch = inputs[1]:size(1) / self.sizes[1]
  if batch > 1 and (threads < 2 or batch < threads) or self.refused or C.lbr_recording() ~= 0 then return self.whole(...) end
  local count = math.min(batch, threads)
  local plans = crew(self, count, inputs)
  local outputs = plans and run(plans, count, batch, inputs)
  if outputs then return unpack(outputs) end
  self.refused, self.crew = true, {}
  return self.whole(...)
end

---The plan for the whole batch: what is timed and saved.
---@return table plan as record.record's
function Rows:plan(...) return self.whole:plan(...) end

---A callable as record.record makes it, for a function of pictures of which none knows of the others.
---@param fn fun(...: Tensor): ...
---@param sizes integer[] rows that one picture has in each argument
---@return Rows
function M.record(fn, sizes)
  return setmetatable({ fn = fn, sizes = sizes, whole = record.record(fn, true), crew = {} }, Rows)
end

return M
