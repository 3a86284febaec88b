-- ONNX graphs into the IR, for the shapes that the inputs have: walks the nodes and hands each to its operator's entry in onnx/. Knows no operator itself.
-- Values keep ONNX's order of dims (pictures [B,C,H,W]) and its kind of number; what depends on shapes and constants alone is computed on the way.
local onnx_format = require "libration.formats.onnx"
local reader = require "libration.formats.reader"
local tensor = require "libration.tensor"
local ir = require "libration.graph.ir"
local lower = require "libration.graph.lower"

local M = {}

local carriers = onnx_format.carriers

-- Subjects of onnx/: each file returns operator -> fn(self) -> value of its first output, second, ...; the domain's name stands before an operator of its own domain.
local entries = {}
for _, subject in ipairs { "elementwise", "functions", "signal", "losses", "reductions", "shapes", "products", "windows", "control", "index", "pools", "attention", "spatial",
  "norms", "recurrent", "quantised", "sequences" } do
  for op, entry in pairs(require("libration.graph.onnx." .. subject)) do
    assert(not entries[op], op)
    entries[op] = entry
  end
end

---Names of all operators that can be imported.
---@return string[] sorted
function M.operators()
  local names = {}
  for op in pairs(entries) do names[#names + 1] = op end
  table.sort(names)
  return names
end

---One node being imported: what an operator's entry is given.
---@class OnnxImport
---@field node OnnxNode
---@field opset integer version of the operator's domain
---@field scope table<string, IrValue> values by name
local Import = {}
Import.__index = Import

local function label(node)
  return node.name ~= "" and node.name or node.outputs[1] or "without a name"
end

---Stops the import: the error names the file and the node.
function Import:fail(...)
  error(("%s: node '%s' (%s): %s"):format(self.state.model.name, label(self.node), self.node.op, string.format(...)), 0)
end

---Value of input i (from 1).
---@param i integer
---@param optional? boolean nil where it is left out, instead of an error
---@return IrValue?
function Import:input(i, optional)
  local name = self.node.inputs[i]
  if not name or name == "" then
    if optional then return nil end
    self:fail("input %d is missing", i)
  end
  local v = self.scope[name]
  if v.sequence then self:fail("input '%s' is a sequence, want a tensor", name) end
  if not carriers[v.kind] then self:fail("input '%s' is of kind %s, which is not supported", name, v.kind) end
  return v
end

---The values of the sequence that input i is.
---@return IrValue[]
function Import:sequence(i)
  local v = self.scope[self.node.inputs[i] or ""]
  return v and v.sequence or self:fail("input %d is no sequence", i)
end

---All inputs.
---@return IrValue[]
function Import:inputs()
  local list = {}
  for i = 1, #self.node.inputs do list[i] = self:input(i) end
  return list
end

---Whether somebody may want output i.
function Import:wants(i)
  local name = self.node.outputs[i]
  return name ~= nil and name ~= ""
end

---An attribute, or `default`. What is there must be of the default's Lua type, or of the type named.
---@param name string
---@param default any
---@param want? string "number", "string", "table"
function Import:attribute(name, default, want)
  local v = self.node.attr[name]
  if v == nil then return default end
  want = want or default ~= nil and type(default) or type(v)
  if type(v) ~= want then self:fail("attribute %s is a %s, want a %s", name, type(v), want) end
  return v
end

---The numbers of a value that must be known when the network is made. Where they depend on what the network is given, the import starts anew with these inputs' numbers.
---@param v IrValue
---@return Tensor
function Import:known(v)
  if v.data then return v.data end
  error({ needs = self.state.sources[v], node = label(self.node) }, 0)
end

---Numbers of a value that must be known, as a flat list.
---@param v IrValue
---@return number[]
function Import:list(v)
  local data = self:known(v):contiguous()
  local out, n = {}, data:numel()
  if n > 2 ^ 20 then self:fail("'%s' is a list of %d numbers", v.name, n) end
  local flat = data:reshape(n)
  for k = 1, n do out[k] = flat:get(k) end
  return out
end

---A list of whole numbers that is input i in newer files and attribute `name` in older ones; nil where it is neither.
---@return integer[]?
function Import:integers(i, name)
  local v = i and self:input(i, true)
  if v then return self:list(v) end
  return name and self:attribute(name, nil, "table") or nil
end

---Axis as ONNX counts it (from 0, negative from the end) -> dim from 1.
---@return integer
function Import:dim(axis, rank)
  if axis ~= math.floor(axis) or axis < -rank or axis >= rank then self:fail("axis %s of %d dims", tostring(axis), rank) end
  return axis < 0 and axis + rank + 1 or axis + 1
end

---A constant: a tensor, or a number or nested tables of numbers.
---@param data Tensor|number|table
---@param kind? string default "f32"
---@return IrValue
function Import:constant(data, kind)
  kind = kind or tensor.is_tensor(data) and data.dtype or "f32"
  if not tensor.is_tensor(data) then data = tensor.tensor(data, carriers[kind]) end
  return self.state.graph:value(label(self.node) .. "/constant", data.shape, kind, data)
end

---dtype of the tensor that a value will be.
---@return string
function M.dtype(v)
  return v.data and v.data.dtype or carriers[v.kind]
end
Import.dtype = function(_, v) return M.dtype(v) end

-- Kind of a result of this dtype: that of the first input which is carried so.
local function kind_of(dtype, inputs, arity)
  for i = 1, arity do
    local v = inputs[i]
    if v and carriers[v.kind] == dtype then return v.kind end
  end
  return dtype == "i32" and "i64" or dtype == "u8" and "bool" or dtype
end

local LARGEST = 2 ^ 26 -- bytes of a computed constant, unless the file is large itself

local function check_constant(self, outlines)
  for _, o in ipairs(outlines) do
    local n = reader.count_of(o.shape)
    if n * 8 > math.max(LARGEST, 16 * self.state.model.bytes) then
      self:fail("a constant of [%s] from a file of %.17g bytes", table.concat(o.shape, ","), self.state.model.bytes)
    end
  end
end

---Appends a node of the IR; one whose inputs are all known is computed right away.
---@param op string a row of lowering/
---@param inputs table<integer, IrValue> holes where an input is left out
---@param attr? table
---@param kind? string of the results, default that of the first input which has the result's dtype
---@return IrValue ... one for each result
function Import:emit(op, inputs, attr, kind)
  local g, sources = self.state.graph, self.state.sources
  local node = { op = op, inputs = inputs, outputs = {}, attr = attr or {}, arity = 0 }
  for i in pairs(inputs) do node.arity = math.max(node.arity, i) end
  local constant, from, dtypes, learned = true, {}, {}, nil
  for i = 1, node.arity do
    local v = inputs[i]
    if v then
      constant = constant and v.data ~= nil
      learned = learned or v.learned and v
      dtypes[i] = M.dtype(v)
      for number in pairs(sources[v] or {}) do from[number] = true end
    end
  end
  local ok, outlines = pcall(lower.outline, node, dtypes)
  if not ok then self:fail("%s", lower.plain(outlines)) end
  local results
  if constant then
    check_constant(self, outlines)
    results = { pcall(tensor.scope, lower.evaluate, node) }
    if not results[1] then self:fail("%s", lower.plain(results[2])) end
  else
    g.nodes[#g.nodes + 1] = node
  end
  for i, o in ipairs(outlines) do
    local k = kind and carriers[kind] == o.dtype and kind or kind_of(o.dtype, inputs, node.arity)
    local v = g:value(constant and learned and learned.name or self.node.outputs[i] or label(self.node), o.shape, k, results and results[i + 1])
    node.outputs[i] = v
    if constant then v.learned = learned and true or nil else sources[v] = from end
  end
  return unpack(node.outputs)
end

---x in another order of dims, itself where that is the same.
---@param x IrValue
---@param order integer[]
---@return IrValue
function Import:transposed(x, order)
  local same = true
  for i, d in ipairs(order) do same = same and i == d end
  if same then return x end
  if not (x.data and x.learned) then return (self:emit("transpose", { x }, { order = order })) end
  -- weights are turned once for all shapes that a model is imported for
  local kept, key = self.state.model.turned, table.concat(order, ",")
  kept[x.data] = kept[x.data] or {}
  local data = kept[x.data][key]
  if not data then
    local v = self:emit("transpose", { x }, { order = order })
    kept[x.data][key] = v.data
    return v
  end
  local v = self.state.graph:value(x.name, data.shape, x.kind, data)
  v.learned = true
  return v
end

---x in another shape, itself where that is the same.
---@return IrValue
function Import:reshaped(x, shape)
  local same = #shape == #x.shape
  for d = 1, #shape do same = same and shape[d] == x.shape[d] end
  return same and x or (self:emit("reshape", { x }, { shape = shape }))
end

---x as another kind of number as ONNX converts: to whole numbers towards zero.
---@return IrValue
function Import:cast(x, kind)
  local from, to = M.dtype(x), carriers[kind]
  if not to then self:fail("kind %s is not supported", kind) end
  if kind == "bool" then
    if x.kind == "bool" then return x end
    return (self:emit("ne", { x, self:constant(tensor.zeros({}, from)) }, nil, "bool"))
  end
  local whole = { i32 = true, u8 = true }
  if whole[to] and not whole[from] then
    local near = self:emit("cast", { x }, { dtype = "i32" })
    local back = self:emit("cast", { near }, { dtype = from })
    local far = self:emit("cast", { (self:emit("lt", { (self:emit("abs", { x })), (self:emit("abs", { back })) })) }, { dtype = "i32" })
    x = self:emit("sub", { near, (self:emit("mul", { far, (self:emit("sign", { near })) })) }, nil, kind)
    if to == "i32" then return x end
  elseif from == to then
    if x.kind == kind then return x end
    local same = self.state.graph:value(x.name, x.shape, kind, x.data)
    if x.data then return same end
    return (self:emit("reshape", { x }, { shape = x.shape }, kind))
  end
  return (self:emit("cast", { x }, { dtype = to }, kind))
end

---The graph that an attribute holds, imported with these values for its inputs; it sees the names around it.
---@param graph OnnxGraph
---@param values IrValue[]
---@return IrValue[] its outputs
function Import:subgraph(graph, values)
  local scope = setmetatable({}, { __index = self.scope })
  if #values ~= #graph.inputs then self:fail("%d values for a graph of %d inputs", #values, #graph.inputs) end
  for i, info in ipairs(graph.inputs) do scope[info.name] = values[i] end
  local outer = self.state.inside
  self.state.inside = true
  local outputs = M.walk(self.state, graph, scope)
  self.state.inside = outer
  return outputs
end

---Names that a node reads, those of the graphs within it included.
---@param node OnnxNode
---@return string[]
function M.reads(node)
  local names = {}
  for _, name in ipairs(node.inputs) do
    if name ~= "" then names[#names + 1] = name end
  end
  for _, value in pairs(node.attr) do
    if type(value) == "table" and value.nodes then
      local own = {}
      for name in pairs(value.constants) do own[name] = true end
      for _, info in ipairs(value.inputs) do own[info.name] = true end
      for _, inner in ipairs(value.nodes) do
        for _, name in ipairs(inner.outputs) do own[name] = true end
      end
      for _, inner in ipairs(value.nodes) do
        for _, name in ipairs(M.reads(inner)) do
          if not own[name] then names[#names + 1] = name end
        end
      end
      for _, info in ipairs(value.outputs) do
        if not own[info.name] then names[#names + 1] = info.name end
      end
    end
  end
  return names
end

-- The nodes that the outputs need, each after those it reads. A file in its right order stays in that order.
local function ordered(state, graph, scope)
  local function fail(...) error(state.model.name .. ": " .. string.format(...), 0) end
  local makers, alive, stack = {}, {}, {}
  for _, node in ipairs(graph.nodes) do
    for _, name in ipairs(node.outputs) do
      if name ~= "" then
        if makers[name] or rawget(scope, name) then fail("node '%s' (%s) makes '%s' again", label(node), node.op, name) end
        makers[name] = node
      end
    end
  end
  for _, info in ipairs(graph.outputs) do stack[#stack + 1] = makers[info.name] end
  local needs = {}
  while #stack > 0 do
    local node = table.remove(stack)
    if not alive[node] then
      alive[node] = true
      needs[node] = M.reads(node)
      for _, name in ipairs(needs[node]) do
        if makers[name] then
          stack[#stack + 1] = makers[name]
        elseif not scope[name] then
          fail("node '%s' (%s) reads '%s', which nothing makes", label(node), node.op, name)
        end
      end
    end
  end
  local list, done, open = {}, {}, {}
  -- depth first without recursion: a node stands on the stack until what it reads is done
  for _, first in ipairs(graph.nodes) do
    if alive[first] then stack[1] = first end
    while #stack > 0 do
      local node = stack[#stack]
      local waiting
      if not done[node] then
        open[node] = true
        for _, name in ipairs(needs[node]) do
          local maker = makers[name]
          if maker and not done[maker] then
            if open[maker] then fail("nodes '%s' and '%s' (%s) wait for each other: the graph is cyclic", label(maker), label(node), node.op) end
            waiting = maker
            break
          end
        end
      end
      if waiting then
        stack[#stack + 1] = waiting
      else
        if not done[node] then list[#list + 1] = node end
        done[node], open[node] = true, nil
        stack[#stack] = nil
      end
    end
  end
  return list
end

local function entry_of(state, node)
  local key = node.domain == "" and node.op or node.domain .. "." .. node.op
  return entries[key] or error(("%s: node '%s' (%s): this operator is not supported"):format(state.model.name, label(node), key), 0)
end

---The outputs of these names, all of them without names.
---@return table[]
function M.chosen(model, names)
  if not names then return model.graph.outputs end
  local by_name, all, list = {}, {}, {}
  for i, info in ipairs(model.graph.outputs) do by_name[info.name], all[i] = info, info.name end
  for i, name in ipairs(names) do
    list[i] = by_name[name] or error(("%s has no output '%s', but %s"):format(model.name, tostring(name), table.concat(all, ", ")), 0)
  end
  return list
end

---Whether all operators of a model's main graph are known; those of graphs within it are looked up when they are reached.
---@param model OnnxModel
---@param names? string[] outputs that must be there
---@return true? ok
---@return string? error names the first node, or lists the outputs
function M.check(model, names)
  local ok, err = pcall(M.chosen, model, names)
  if not ok then return nil, reader.one_line(err) end
  for _, node in ipairs(model.graph.nodes) do
    ok, err = pcall(entry_of, { model = model }, node)
    if not ok then return nil, reader.one_line(err) end
  end
  return true
end

-- Results of a node.
local function imported(state, node, scope)
  return { entry_of(state, node)(setmetatable({ state = state, node = node, scope = scope, opset = state.model.opsets[node.domain] or 1 }, Import)) }
end

local LATE = {}

-- The same, or LATE where the node needs numbers that a model may be divided for, or reads what is late.
local function put_off(state, node, scope, late, roots)
  for _, name in ipairs(M.reads(node)) do
    if late[name] then return LATE end
  end
  local ok, results = pcall(imported, state, node, scope)
  if ok then return results end
  state.inside = nil
  if type(results) ~= "table" or not results.needs or not state.divisible(results.needs) then error(results, 0) end
  roots[#roots + 1] = node
  return LATE
end

---Imports a graph's nodes; names not in `scope` are its own.
---@return IrValue[] outputs
function M.walk(state, graph, scope)
  for name, t in pairs(graph.constants) do
    if rawget(scope, name) then error(("%s: '%s' is an input and a constant"):format(state.model.name, name), 0) end
    scope[name] = state.graph:value(name, t.shape, t.kind, t.data)
    scope[name].learned = t.kind == "f32" or nil
  end
  local nodes = ordered(state, graph, scope)
  for _, node in ipairs(nodes) do entry_of(state, node) end
  local late, roots = {}, {} -- names of what depends on numbers that only a run can tell, and the nodes that asked for them
  for _, node in ipairs(nodes) do
    local results = not state.inside and state.divisible and put_off(state, node, scope, late, roots) or imported(state, node, scope)
    for i, name in ipairs(node.outputs) do
      if results == LATE then
        late[name] = true
      elseif name ~= "" then
        scope[name] = results[i] or error(("%s: node '%s' (%s): output %d is not supported"):format(state.model.name, label(node), node.op, i), 0)
      end
    end
  end
  if #roots > 0 then error({ roots = roots }, 0) end
  local outputs = {}
  for i, info in ipairs(graph.outputs) do
    outputs[i] = scope[info.name] or error(("%s: nothing makes the output '%s'"):format(state.model.name, info.name), 0)
  end
  return outputs
end

---Turns a parsed model into the IR for inputs of these shapes.
---@param model OnnxModel
---@param given {shape: integer[], data: Tensor?}[] for each input; with data: its numbers are known
---@param names? string[] outputs to import, default all
---@param divisible? fun(needs: table<integer, boolean>): boolean where numbers of these inputs are needed: whether the model may be divided for them
---@return IrGraph? graph inputs with data are not among its inputs; g.numbers[i] is the model's number of input i
---@return string? error one line; an operator that is not supported is named with its node
---@return {needs: table<integer, boolean>, node: string}|{roots: OnnxNode[]}? more numbers of the inputs `needs` must be known, for this node; or the nodes to divide it at
function M.import(model, given, names, divisible)
  local ok, graph = pcall(function()
    local opset = model.opsets[""] or 1
    if opset < 7 then error(("%s: operators of version %d, want 7 or later"):format(model.name, opset), 0) end
    local g = ir.new(model.name)
    model.turned = model.turned or {}
    local state, scope = { graph = g, model = model, sources = {}, divisible = divisible }, {}
    g.numbers = {}
    for i, info in ipairs(model.graph.inputs) do
      if not carriers[info.kind] then error(("%s: input '%s' is of kind %s, which is not supported"):format(model.name, info.name, info.kind), 0) end
      local v = g:value(info.name, given[i].shape, info.kind, given[i].data)
      if scope[info.name] then error(("%s: two inputs are named '%s'"):format(model.name, info.name), 0) end
      scope[info.name] = v
      if not given[i].data then
        state.sources[v] = { [i] = true }
        g.inputs[#g.inputs + 1], g.numbers[#g.numbers + 1] = v, i
      end
    end
    local wanted = M.chosen(model, names)
    local view = { nodes = model.graph.nodes, constants = model.graph.constants, outputs = wanted }
    for i, v in ipairs(M.walk(state, view, scope)) do
      if v.sequence then error(("%s: output '%s' is a sequence, which is not supported"):format(model.name, wanted[i].name), 0) end
      if not carriers[v.kind] then error(("%s: output '%s' is of kind %s, which is not supported"):format(model.name, wanted[i].name, v.kind), 0) end
      g.outputs[i] = { name = wanted[i].name, value = v }
    end
    if #g.outputs == 0 then error(model.name .. ": no outputs", 0) end
    return g
  end)
  if ok then return graph end
  if type(graph) == "table" then return nil, nil, graph end
  return nil, reader.one_line(graph)
end

return M
