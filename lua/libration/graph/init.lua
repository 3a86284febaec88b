-- Imported networks ready to run: file -> IR -> passes -> a recorded plan. Knows nothing of what the numbers mean.
local reader = require "libration.formats.reader"
local tflite_format = require "libration.formats.tflite"
local tflite = require "libration.graph.tflite"
local passes = require "libration.graph.passes"
local lower = require "libration.graph.lower"
local precision = require "libration.graph.precision"
local record = require "libration.record"
local tensor = require "libration.tensor"
local device = require "libration.device"

local M = {}

---@class Network
---@field name string
---@field inputs {name: string, shape: integer[]}[] shapes as in the file (batch 1)
---@field outputs {name: string, shape: integer[]}[]
---@field graph IrGraph after the passes
---@field device string where it runs: "cpu", "cuda:N"
local Network = {}
Network.__index = Network

local importers = { tflite = { tflite_format.load, tflite.import } }

local function outline(list)
  local out = {}
  for i, item in ipairs(list) do
    local v = item.value or item
    out[i] = { name = item.name, shape = v.shape }
  end
  return out
end

local half = { f32 = false, bf16 = "bf16", f16 = "f16" } -- precision -> dtype between the first layer and the heads

local function prepare(graph, options)
  local ok, err
  if options.passes == false then
    ok, err = passes.remove_dead(graph, options.outputs)
    if ok then passes.fold_constants(graph) end
  else
    ok, err = passes.run(graph, options.outputs, half[options.precision or "f32"]) -- f32 answers what TensorFlow Lite answers, bit for bit where the kernels can
  end
  if ok and half[options.precision or "f32"] then precision.lower(graph, half[options.precision]) end
  return ok, err
end

-- Moves the constants of a graph.
local function place(graph, name)
  local function move(v)
    if v and v.data then v.data = tensor.constant(v.data:contiguous(), name) end
  end
  for _, node in ipairs(graph.nodes) do
    for i = 1, node.arity do move(node.inputs[i]) end
  end
  for _, out in ipairs(graph.outputs) do move(out.value) end
end

---Turns a graph into a network: passes, then a plan for each batch size when it first comes.
---@param graph IrGraph as an importer made it
---@param options? {outputs: string[], passes: boolean, precision: string, device: string} as for load
---@return Network? network
---@return string? error one line
function M.compile(graph, options)
  options = options or {}
  local kind = options.precision or "f32"
  if half[kind] == nil then error(("graph: precision '%s', want f32, bf16 or f16"):format(tostring(kind)), 2) end
  local id, why = device.find(options.device)
  if not id then return nil, why end
  if kind == "f16" and id == 0 then error("graph: the CPU has no f16 products; precision f16 is for CUDA devices", 2) end
  local ran, ok, err = pcall(tensor.unscoped, prepare, graph, options)
  if not ran then return nil, reader.one_line(ok) end
  if not ok then return nil, err end
  local self = setmetatable({ name = graph.name, graph = graph, inputs = outline(graph.inputs), outputs = outline(graph.outputs), device = "cpu" }, Network)
  return self:to(device.name(id))
end

---Moves the network to a device; its plans there are made when the first batch comes. On a CUDA device a plan is one graph.
---@param name string "cpu", "cuda", "cuda:N"
---@return Network self
function Network:to(name)
  name = device.name(device.id(name))
  if name ~= self.device or not self.plan then
    self.plan, self.device = nil, name
    tensor.unscoped(place, self.graph, name)
    local graph = self.graph
    self.plan = record.record(function(...) return unpack(lower.run(graph, { ... })) end)
  end
  return self
end

---Loads a network file.
---@param path string .tflite
---@param options? {outputs: string[], passes: boolean, precision: string, device: string} outputs: names of those to compute (default all); what only the others need
---is left out. precision: "f32" (default), "bf16", or on a CUDA device "f16" between the first layer and the heads; device: "cpu" (default), "cuda", "cuda:N";
---passes = false runs the graph as it stands in the file (to compare with)
---@return Network? network
---@return string? error one line: missing, not a network, an operator that is not supported
function M.load(path, options)
  local kind = tostring(path):match("%.([%w]+)$")
  local importer = importers[kind or ""]
  if not importer then return nil, ("%s: a network file ends in .tflite"):format(tostring(path)) end
  local model, err = tensor.unscoped(importer[1], path)
  if not model then return nil, err end
  local graph
  graph, err = importer[2](model)
  if not graph then return nil, err end
  return M.compile(graph, options)
end

local function check_input(self, i, x, batch)
  local want = self.inputs[i]
  local shape = x.shape
  local fits = #shape == #want.shape and x.dtype == "f32" and shape[1] % want.shape[1] == 0 and (not batch or shape[1] / want.shape[1] == batch)
  for d = 2, #want.shape do fits = fits and shape[d] == want.shape[d] end
  if not fits then
    error(("%s: input '%s' is %s [%s], want f32 [B,%s]"):format(self.name, want.name, x.dtype, table.concat(shape, ","),
      table.concat(want.shape, ",", 2)), 3)
  end
  if x.device ~= self.device then error(("%s: input '%s' is on %s, the network on %s"):format(self.name, want.name, x.device, self.device), 3) end
  return shape[1] / want.shape[1]
end

---Runs the network on a batch. Results belong to the plan: the next run with the same batch size overwrites them (clone what must stay).
---@param ... Tensor f32 [B,H,W,C] on the network's device, one for each input
---@return table<string, Tensor> outputs by name, first dim grown by B
function Network:run(...)
  local batch
  for i = 1, #self.inputs do
    local x = select(i, ...)
    if not x then error(("%s: %d inputs given, want %d"):format(self.name, select("#", ...), #self.inputs), 2) end
    batch = check_input(self, i, x, batch)
  end
  if batch ~= 1 then
    local ok, why = lower.batchable(self.graph)
    if not ok then error(why, 2) end
  end
  local results = { self.plan(...) }
  local named = {}
  for i, out in ipairs(self.outputs) do named[out.name] = results[i] end
  return named
end

---Time of each op on a batch, one timed run: what `print` shows.
---@param ... Tensor inputs as for run
---@return table plan tostring(plan) is the table; plan:calls(true) its rows
function Network:profile(...)
  self:run(...)
  return (self.plan:plan(...))
end

function Network:__tostring()
  local parts = {}
  for i, v in ipairs(self.inputs) do parts[i] = ("%s [%s]"):format(v.name, table.concat(v.shape, ",")) end
  for i, v in ipairs(self.outputs) do parts[#self.inputs + i] = ("-> %s [%s]"):format(v.name, table.concat(v.shape, ",")) end
  return ("network %s: %s; %d nodes"):format(self.name, table.concat(parts, " "), #self.graph.nodes)
end

return M
