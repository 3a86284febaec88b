-- ONNX models for the shapes that come: a graph and a plan for each, in a bounded list. Knows when the numbers of an input shape the network itself.
local onnx = require "libration.graph.onnx"
local onnx_format = require "libration.formats.onnx"
local divide = require "libration.graph.divide"
local passes = require "libration.graph.passes"
local layout = require "libration.graph.layout"
local lower = require "libration.graph.lower"
local record = require "libration.record"
local tensor = require "libration.tensor"

local M = {}

local MOST = 8       -- sets of shapes kept at once
local FEW = 64       -- numbers of an input that a plan may be kept for

local Shaped = {}
Shaped.__index = Shaped

local function few(needs, inputs)
  for i in pairs(needs) do
    if inputs[i]:numel() > FEW then return false end
  end
  return true
end

-- Imports for these inputs. Where operators need to know numbers, the few that an input has are taken as constants; where they come from many, the model is divided there:
-- the graph is that of the head, and the tail is imported anew for what the head makes.
local function imported(self, given, inputs)
  local model, names, tail = self.model, self.options.outputs, nil
  local divisible = inputs and function(needs) return not few(needs, inputs) end
  while true do
    local graph, err, more = onnx.import(model, given, names, divisible)
    if graph then return graph, tail end
    if not more then return nil, err end
    if not inputs then return nil, nil end -- shapes alone were given
    if more.roots then
      local head, rest = divide.divide(self.model, more.roots, onnx.chosen(self.model, self.options.outputs))
      divisible = nil
      if head then model, names, tail = head, nil, rest end
    else
      local added = false
      for i in pairs(more.needs or {}) do
        if not given[i].data then
          given[i].data, added = inputs[i]:to("cpu"):contiguous():clone(), true
          self.frozen[i] = true
        end
      end
      if not added then return nil, ("%s: node '%s' needs numbers that are not known when the network is made"):format(self.model.name, more.node) end
    end
  end
end

-- The whole model's results from those of its head; made on the CPU, as numbers shape them.
local function finished(self, tail, graph, results, inputs)
  local values, given = {}, {}
  for i, out in ipairs(graph.outputs) do
    values[i] = out.value
    given[i] = { shape = results[i].shape, data = results[i]:to "cpu" }
  end
  for _, x in ipairs(inputs) do given[#given + 1] = { shape = x.shape, data = x:to("cpu"):contiguous() } end
  local rest, err = onnx.import(tail(values), given)
  if not rest then error(err, 0) end
  local out = lower.run(rest, {})
  for i, t in ipairs(out) do out[i] = t:to(self.device) end
  return out
end

local function optimised(self, graph)
  local ok, err
  if self.options.passes == false then
    ok, err = passes.remove_dead(graph)
  else
    layout.run(graph)
    ok, err = passes.run(graph, nil, (self.options.precision or "f32") ~= "f32", true)
  end
  if not ok then return nil, err end
  ok, err = self.to_precision(graph)
  if not ok then return nil, err end
  return graph:check()
end

local function numbers(x)
  local t = x:to("cpu"):contiguous():reshape(x:numel()):totable()
  for i, v in ipairs(t) do t[i] = ("%.17g"):format(v) end
  return table.concat(t, ",")
end

-- What a plan is kept under; nil where it serves these numbers only.
local function key_of(self, inputs)
  local parts = {}
  for i, x in ipairs(inputs) do
    parts[i] = tensor.describe(x)
    if self.frozen[i] then
      if x:numel() > FEW then return nil end
      parts[i] = parts[i] .. "=" .. numbers(x)
    end
  end
  return table.concat(parts, ";")
end

local function entry_of(self, graph, tail)
  graph.divided = tail ~= nil
  if self.device then lower.place(graph, self.device) end
  return { tail = tail, graph = graph, plan = record.record(function(...) return unpack(lower.run(graph, { ... })) end, self.device == "cpu") }
end

local function keep(self, key, entry)
  self.kept[key] = entry
  self.order[#self.order + 1] = key
  if #self.order > MOST then self.kept[table.remove(self.order, 1)] = nil end
end

local function made(self, inputs)
  local given = {}
  for i, x in ipairs(inputs) do given[i] = { shape = x.shape, data = self.frozen[i] and x:to("cpu"):contiguous():clone() or nil } end
  local graph, tail = imported(self, given, inputs)
  if not graph then error(tail, 0) end
  local ok, err = optimised(self, graph)
  if not ok then error(err, 0) end
  return entry_of(self, graph, tail)
end

local function check(self, inputs)
  for i, x in ipairs(inputs) do
    local want = self.inputs[i]
    local fits = x.dtype == onnx_format.carriers[want.kind] and (not want.shape or #want.shape == x:dim())
    for d, size in ipairs(want.shape or {}) do fits = fits and (type(size) == "string" or size == x:size(d)) end
    if not fits then
      error(("%s: input '%s' is %s, want %s [%s]"):format(self.model.name, want.name, tensor.describe(x), onnx_format.carriers[want.kind],
        table.concat(want.shape or { "..." }, ",")), 4)
    end
  end
end

-- The graph for these inputs, its plan, the inputs that the plan takes and, of a divided model, a function that makes the results from the plan's; without a plan: the results.
local function plan_for(self, inputs)
  check(self, inputs)
  local key = key_of(self, inputs)
  local entry = key and self.kept[key]
  if not entry then
    local ok, result = pcall(tensor.unscoped, made, self, inputs)
    if not ok then error(result, 3) end
    entry = result
    key = key_of(self, inputs) -- the import may have found more to depend on
    if key then keep(self, key, entry) end
  end
  local graph, arguments, finish = entry.graph, {}, nil
  if entry.tail then finish = function(results) return tensor.scope(finished, self, entry.tail, graph, results, inputs) end end
  if #graph.nodes == 0 and #graph.inputs == 0 then return graph, nil, lower.run(graph, {}), finish end
  for i, number in ipairs(graph.numbers) do arguments[i] = inputs[number] end
  return graph, entry.plan, arguments, finish
end

-- Shape of input i in what the network is calibrated with.
local function sampled(self, i)
  local sample = self.options.precision == "int8" and type(self.options.calibration) == "table" and self.options.calibration[1]
  if tensor.is_tensor(sample) then sample = { sample } end
  return sample and tensor.is_tensor(sample[i]) and sample[i].shape or nil
end

-- The graph for the shapes that the file names, open sizes taken as 1 or as the options say; nil where that is not enough.
local function by_declaration(self)
  local given, complete, key = {}, true, {}
  for i, info in ipairs(self.inputs) do
    local asked, sample = (self.options.shapes or {})[info.name] or {}, sampled(self, i) or {}
    complete = complete and info.shape ~= nil
    local shape = {}
    for d, size in ipairs(info.shape or {}) do
      local known = asked[d] or type(size) == "number" and size or sample[d]
      shape[d] = known or 1
      complete = complete and (known or d == 1)
    end
    given[i] = { shape = shape }
    key[i] = ("%s [%s]"):format(onnx_format.carriers[info.kind], table.concat(shape, ",")) -- tensor.describe of such an input
  end
  local graph, err = imported(self, given)
  if not graph then return nil, complete and err or nil end
  local ok
  ok, err = optimised(self, graph)
  if not ok then return nil, err end
  keep(self, table.concat(key, ";"), entry_of(self, graph))
  return graph
end

---A model that makes its graph and plan when inputs of new shapes come.
---@param model OnnxModel
---@param options table as for graph.load
---@param to_precision fun(g: IrGraph): true?, string?
---@return {inputs: table[], outputs: table[], graph: IrGraph?, plans: fun(device: string): function}? shaped plans: gives what finds the plan for inputs on a device
---@return string? error one line
function M.new(model, options, to_precision)
  local self = setmetatable({ model = model, options = options, to_precision = to_precision, inputs = {}, frozen = {}, kept = {}, order = {} }, Shaped)
  for i, info in ipairs(model.graph.inputs) do
    local asked = (options.shapes or {})[info.name]
    local shape = asked and {} or info.shape
    for d, size in ipairs(asked or {}) do -- wins over the file, whose sizes are at times only those of the export; what the file leaves open stays open
      local own = (info.shape or {})[d]
      shape[d] = type(own) == "string" and own or size
    end
    self.inputs[i] = { name = info.name, kind = info.kind, shape = shape }
    if not onnx_format.carriers[info.kind] then return nil, ("%s: input '%s' is of kind %s, which is not supported"):format(model.name, info.name, info.kind) end
  end
  local ok, why = onnx.check(model, options.outputs)
  if not ok then return nil, why end
  local ran, graph, err = pcall(tensor.unscoped, by_declaration, self)
  if not ran then return nil, tostring(graph) end
  if err then return nil, err end
  local outputs = {}
  for i, info in ipairs(options.outputs or model.graph.outputs) do
    local name = type(info) == "string" and info or info.name
    outputs[i] = { name = name, shape = graph and graph.outputs[i].value.shape or info.shape }
  end
  local function plans(device)
    self.device = device
    for key, entry in pairs(self.kept) do self.kept[key] = entry_of(self, entry.graph, entry.tail) end
    return function(_, inputs) return plan_for(self, inputs) end
  end
  return { inputs = self.inputs, outputs = outputs, graph = graph, plans = plans }
end

return M
