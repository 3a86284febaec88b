-- Imported networks ready to run: file -> IR -> passes -> a recorded plan. Knows nothing of what the numbers mean.
local reader = require "libration.formats.reader"
local tflite_format = require "libration.formats.tflite"
local onnx_format = require "libration.formats.onnx"
local tflite = require "libration.graph.tflite"
local passes = require "libration.graph.passes"
local lower = require "libration.graph.lower"
local precision = require "libration.graph.precision"
local int8 = require "libration.graph.int8"
local layers = require "libration.graph.layers"
local trainable = require "libration.graph.trainable"
local specialise = require "libration.graph.specialise"
local saved = require "libration.graph.saved"
local rows = require "libration.graph.rows"
local record = require "libration.record"
local tensor = require "libration.tensor"
local device = require "libration.device"

local M = {}

---@class Network
---@field name string
---@field inputs {name: string, kind: string, shape: (integer|string)[]}[] TFLite: for a batch of one; ONNX: as in the file, sizes that are open by their names
---@field outputs {name: string, shape: integer[]?}[]
---@field graph IrGraph? after the passes; of an ONNX file with open sizes: of the last run
---@field device string where it runs: "cpu", "cuda:N"
local Network = {}
Network.__index = Network

-- precision -> what makes a graph so: fun(g, options) -> true, or nil and a line
local precisions = {
  f32 = function() return true end,
  bf16 = function(g) return precision.lower(g, "bf16") end,
  f16 = function(g) return precision.lower(g, "f16") end,
  int8 = function(g, options) return int8.lower(g, options.calibration) end,
}

local function outline(list)
  local out = {}
  for i, item in ipairs(list) do
    local v = item.value or item
    out[i] = { name = item.name, kind = v.kind, shape = v.shape }
  end
  return out
end

-- The device's name, or nil and why there is none.
local function check_options(options)
  if not precisions[options.precision or "f32"] then error(("graph: precision '%s', want f32, bf16, f16 or int8"):format(tostring(options.precision)), 3) end
  local id, why = device.find(options.device)
  if not id then return nil, why end
  if options.precision == "f16" and id == 0 then error("graph: the CPU has no f16 products; precision f16 is for CUDA devices", 3) end
  if options.precision == "int8" and id ~= 0 then error("graph: precision int8 is for the CPU", 3) end
  return device.name(id)
end

local function prepare(graph, options)
  local ok, err
  if options.passes == false then
    ok, err = passes.remove_dead(graph, options.outputs)
    if ok then passes.fold_constants(graph) end
  else
    ok, err = passes.run(graph, options.outputs, (options.precision or "f32") ~= "f32") -- f32 answers what TensorFlow Lite answers, bit for bit where the kernels can
  end
  if ok then ok, err = precisions[options.precision or "f32"](graph, options) end
  return ok, err
end

-- What a network of the file's own shapes runs on: one plan for each batch size, a plan a core for batches of a small one. On a CUDA device a plan is one graph.
local function fixed(graph, name)
  lower.place(graph, name)
  local sizes = {}
  for i, v in ipairs(graph.inputs) do sizes[i] = v.shape[1] end
  local function work(...) return unpack(lower.run(graph, { ... })) end
  local split = name == "cpu" and #sizes > 0 and #sizes == #graph.inputs and rows.is_small(graph)
  local plan = split and rows.record(work, sizes) or record.record(work, name == "cpu")
  local function check(self, i, x, batch)
    local want = self.inputs[i]
    local shape = x.shape
    local fits = #shape == #want.shape and x.dtype == "f32" and shape[1] % want.shape[1] == 0 and (not batch or shape[1] / want.shape[1] == batch)
    for d = 2, #want.shape do fits = fits and shape[d] == want.shape[d] end
    if not fits then
      error(("%s: input '%s' is %s [%s], want f32 [B,%s]"):format(self.name, want.name, x.dtype, table.concat(shape, ","),
        table.concat(want.shape, ",", 2)), 4)
    end
    return shape[1] / want.shape[1]
  end
  return function(self, inputs)
    local batch
    for i, x in ipairs(inputs) do batch = check(self, i, x, batch) end
    if batch ~= 1 then
      local ok, why = lower.batchable(graph)
      if not ok then error(why, 3) end
    end
    return graph, plan, inputs
  end
end

---Turns a graph into a network: passes, then a plan for each batch size when it first comes.
---@param graph IrGraph as an importer of a file with fixed shapes made it
---@param options? {outputs: string[], passes: boolean, precision: string, device: string} as for load
---@return Network? network
---@return string? error one line
function M.compile(graph, options)
  options = options or {}
  local name, why = check_options(options)
  if not name then return nil, why end
  local ran, ok, err = pcall(tensor.unscoped, prepare, graph, options)
  if not ran then return nil, reader.one_line(ok) end
  if not ok then return nil, err end
  return setmetatable({
    name = graph.name, graph = graph, inputs = outline(graph.inputs), outputs = outline(graph.outputs), plans = function(to) return fixed(graph, to) end,
  }, Network):to(name)
end

local loaders = {}

function loaders.tflite(path, options)
  local model, err = tensor.unscoped(tflite_format.load, path)
  if not model then return nil, err end
  local graph
  graph, err = tflite.import(model)
  if not graph then return nil, err end
  return M.compile(graph, options)
end

function loaders.onnx(path, options)
  local model, err = tensor.unscoped(onnx_format.load, path)
  if not model then return nil, err end
  local shaped
  shaped, err = specialise.new(model, options, function(g) return precisions[options.precision or "f32"](g, options) end)
  if not shaped then return nil, err end
  return setmetatable({ name = model.name, graph = shaped.graph, inputs = shaped.inputs, outputs = shaped.outputs, plans = shaped.plans }, Network):to(options.device or "cpu")
end

function loaders.plan(path, options)
  if (options.device or "cpu") ~= "cpu" and options.device ~= "auto" then return nil, ("%s: a saved plan runs on the cpu, not on %s"):format(path, options.device) end
  if options.precision and options.precision ~= "f32" or options.outputs or options.passes == false then
    error("graph: a saved plan has its precision and outputs already", 3)
  end
  return saved.load(path)
end

---Loads a network file.
---@param path string .tflite, .onnx, or .plan as network:plan(...):save wrote it
---@param options? {outputs: string[], passes: boolean, precision: string, calibration: table, device: string, shapes: table<string, integer[]>}
---outputs: names of those to compute (default all); what only the others need is left out.
---precision: "f32" (default), "bf16", on a CUDA device "f16", on the CPU "int8" between the first layer and the heads; calibration: for int8, sample inputs from which
---the ranges of numbers are taken, a list of tensors or of lists with one for each input; device: "cpu" (default), "cuda",
---"cuda:N"; passes = false runs the graph as it stands in the file (to compare with);
---shapes: of the inputs by name, where an ONNX file leaves sizes open (default 1)
---@return Network|SavedNetwork? network
---@return string? error one line: missing, not a network, an operator that is not supported
function M.load(path, options)
  options = options or {}
  local name, why = check_options(options)
  if not name then return nil, why end
  local loader = loaders[tostring(path):match("%.([%w]+)$") or ""]
  if not loader then return nil, ("%s: a network file ends in .tflite, .onnx or .plan"):format(tostring(path)) end
  return loader(path, options)
end

---A network that is loaded when it first runs: for what is seldom asked.
---@param load fun(): Network loads it, or raises
---@return {run: fun(self: table, ...: Tensor): table<string, Tensor>}
function M.later(load)
  local network
  return { run = function(_, ...)
    network = network or tensor.unscoped(load)
    return network:run(...)
  end }
end

---Moves the network to a device; its plans there are made when the first batch comes.
---@param name string "cpu", "cuda", "cuda:N"
---@return Network self
function Network:to(name)
  name = device.name(device.id(name))
  if name ~= self.device then
    self.plan_for = tensor.unscoped(self.plans, name)
    self.device = name
  end
  return self
end

local function gather(self, ...)
  local inputs = {}
  for i = 1, #self.inputs do
    local x = select(i, ...)
    if not tensor.is_tensor(x) then error(("%s: %d inputs given, want %d"):format(self.name, select("#", ...), #self.inputs), 3) end
    if x.device ~= self.device then error(("%s: input '%s' is on %s, the network on %s"):format(self.name, self.inputs[i].name, x.device, self.device), 3) end
    inputs[i] = x
  end
  return inputs
end

-- A plan's results. What it refuses by the numbers that it meets is said of the node: that is found by running the graph node by node.
local function results_of(self, graph, plan, arguments)
  local results = { pcall(plan, unpack(arguments)) }
  if table.remove(results, 1) then return results end
  local err = tostring(results[1])
  if self.device == "cpu" and not err:find("interrupted", 1, true) then
    local ok, named = pcall(tensor.scope, lower.run, graph, arguments)
    if not ok then err = named end
  end
  error(err, 0)
end

---Runs the network. Results belong to the plan: the next run with inputs of the same shapes overwrites them (clone what must stay).
---@param ... Tensor one for each input, on the network's device; TFLite: f32 [B,H,W,C]; ONNX: of the kind and shape that the file says
---@return table<string, Tensor> outputs by name
function Network:run(...)
  local inputs = gather(self, ...)
  local graph, plan, arguments, finish = self:plan_for(inputs)
  self.graph = graph
  local results = plan and results_of(self, graph, plan, arguments) or arguments
  if finish then results = finish(results) end
  local named = {}
  for i, out in ipairs(self.outputs) do named[out.name] = results[i] end
  return named
end

Network.__call = Network.run

---Time of each op, one timed run: what `print` shows.
---@param ... Tensor inputs as for run
---@return table plan tostring(plan) is the table; plan:calls(true) its rows
function Network:profile(...)
  self:run(...)
  local _, plan, arguments = self:plan_for(gather(self, ...))
  if not plan then error(self.name .. ": nothing to time, its operators depend on the numbers of the inputs", 2) end
  local made = plan:plan(unpack(arguments))
  made:replay() -- what is timed has its weights packed and its memory touched
  return made
end

function Network:__tostring()
  local parts = {}
  for i, v in ipairs(self.inputs) do parts[i] = ("%s [%s]"):format(v.name, table.concat(v.shape or {}, ",")) end
  for i, v in ipairs(self.outputs) do parts[#self.inputs + i] = ("-> %s [%s]"):format(v.name, table.concat(v.shape or {}, ",")) end
  local head = ("network %s: %s"):format(self.name, table.concat(parts, " "))
  if not self.graph then return head .. "; layers: when inputs have come, or with option shapes" end
  return ("%s; %d nodes\n%s"):format(head, #self.graph.nodes, layers.describe(self.graph))
end

---The plan for these inputs, with the names of the file: network:plan(x):save "network.plan" writes what C runs without Lua.
---@param ... Tensor inputs as for run
---@return table plan
function Network:plan(...)
  local inputs = gather(self, ...)
  local _, plan, arguments, finish = self:plan_for(inputs)
  if not plan or finish or #arguments ~= #inputs then error(self.name .. ": no plan for all inputs, its operators depend on the numbers of the inputs", 2) end
  local made, names = plan:plan(unpack(arguments)), { inputs = {}, outputs = {} }
  for i, info in ipairs(self.inputs) do names.inputs[i] = info.name end
  for i, info in ipairs(self.outputs) do names.outputs[i] = info.name end
  made.names = names
  return made
end

---The network as a module whose weights have gradients, for the shapes of its last run, or those that the file says: fine-tune it with the usual loop, save its state_dict.
---@return ImportedModule module module(x, ...) gives the outputs in their order
function Network:trainable()
  local g = self.graph
  if not g then error(self.name .. ": run it once, or load it with option shapes: its file leaves sizes open", 2) end
  if #g.inputs ~= #self.inputs or g.divided then error(self.name .. ": its operators depend on the numbers of the inputs", 2) end
  return trainable.new(g, self.inputs, self.outputs)
end

return M
