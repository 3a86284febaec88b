-- The IR as calls of our ops: finds an op's row in lowering/. Runs them on whatever tensors it is given; recording is graph/init.lua's.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"

local M = {}

-- Rows of lowering/: op -> {run = fn(inputs, attr, node) -> tensors, layout = ...}
local rows = {}
for _, subject in ipairs { "elementwise", "functions", "layers", "shapes", "index", "spatial", "recurrent", "quantised" } do
  for op, row in pairs(require("libration.graph.lowering." .. subject).rows) do
    assert(not rows[op], op)
    rows[op] = row
  end
end
M.rows = rows

-- Ops that would mix the pictures of a batch when they work on dim 1.
local function mixes_batch(node)
  local a = node.attr
  if node.op == "concat" then return a.dim == 1 end
  if node.op == "transpose" then return a.order[1] ~= 1 end
  if node.op == "mean" then
    for _, d in ipairs(a.dims) do
      if d == 1 then return true end
    end
  end
  if node.op == "slice" then return a.first[1] ~= 1 or a.last[1] ~= node.inputs[1].shape[1] or a.step[1] ~= 1 end
  return node.op == "pad" and (a.before[1] ~= 0 or a.after[1] ~= 0)
end

---Whether a graph may run on more pictures at once than its file says.
---@param g IrGraph
---@return boolean ok
---@return string? why names the op
function M.batchable(g)
  for number, node in ipairs(g.nodes) do
    if mixes_batch(node) then return false, ("%s: node %d (%s) mixes pictures of a batch"):format(g.name, number, node.op) end
  end
  return true
end

local function apply(node, inputs)
  local row = rows[node.op] or error(("no lowering for '%s'"):format(node.op), 0)
  return row.run(inputs, node.attr, node)
end

---An op's error without the line of Lua that it was raised at.
---@param err any
---@return string
function M.plain(err)
  return (tostring(err):gsub("^[^\n]-%.lua:%d+: ", ""))
end

---Runs one node whose inputs are all constants.
---@param node IrNode
---@return Tensor ... one for each of its outputs
function M.evaluate(node)
  local inputs = {}
  for i = 1, node.arity do inputs[i] = node.inputs[i] and node.inputs[i].data end
  return apply(node, inputs)
end

local function shaped(node, dtypes)
  local before = core.C.lbr_dry_run(1)
  local results = { pcall(function()
    local inputs = {}
    for i = 1, node.arity do
      local v = node.inputs[i]
      inputs[i] = v and (v.data or tensor.full(v.shape, 0, dtypes[i]))
    end
    return apply(node, inputs)
  end) }
  core.C.lbr_dry_run(before)
  if not results[1] then error(results[2], 0) end
  local out = {}
  for i = 2, #results do out[i - 1] = { shape = results[i].shape, dtype = results[i].dtype } end
  return out
end

---Shapes and dtypes of what a node makes, without running it: what its ops infer.
---@param node IrNode
---@param dtypes string[] of its inputs
---@return {shape: integer[], dtype: string}[]
function M.outline(node, dtypes)
  return tensor.scope(shaped, node, dtypes)
end

---Runs a graph.
---@param g IrGraph
---@param inputs Tensor[] in the order of g.inputs
---@param instead? table<IrValue, Tensor> constants that are not what the graph says
---@param seen? fun(node: IrNode, inputs: Tensor[], results: Tensor[]) is shown each node's work
---@return Tensor[] outputs in the order of g.outputs
function M.run(g, inputs, instead, seen)
  local values = {}
  for v, t in pairs(instead or {}) do values[v] = t end
  for i, v in ipairs(g.inputs) do values[v] = inputs[i] end
  for number, node in ipairs(g.nodes) do
    local x = {}
    for i = 1, node.arity do
      local v = node.inputs[i]
      x[i] = v and (values[v] or v.data)
    end
    local results = { pcall(apply, node, x) }
    if not results[1] then error(("%s: node %d (%s): %s"):format(g.name, number, node.op, M.plain(results[2])), 0) end
    for i, v in ipairs(node.outputs) do values[v] = results[i + 1] end
    if seen then seen(node, x, { unpack(results, 2) }) end
  end
  local outputs = {}
  for i, out in ipairs(g.outputs) do outputs[i] = out.value.data or values[out.value] end
  return outputs
end

---Moves the constants of a graph to a device.
---@param g IrGraph
---@param name string "cpu", "cuda:N"
function M.place(g, name)
  local function move(v)
    if v and v.data then v.data = tensor.constant(v.data:contiguous(), name) end
  end
  for _, node in ipairs(g.nodes) do
    for i = 1, node.arity do move(node.inputs[i]) end
  end
  for _, out in ipairs(g.outputs) do move(out.value) end
end

---A number, or a tensor of one, as a flat f32 tensor of n.
---@return Tensor f32 [n]
function M.spread(value, n)
  if type(value) ~= "number" then value = value:reshape(1):get(1) end
  return tensor.full({ n }, value)
end

---op ("add", "sub", "mul") of two constants.
---@return Tensor
function M.combine(op, a, b)
  return ops[op](a, b)
end

---Weights whose output channel o is multiplied by scale[o]: the first dim, or the last of a depthwise.
---@return Tensor
function M.scale_weights(w, scale, depthwise)
  if depthwise then return ops.mul(w, scale) end
  local shape = { w:size(1) }
  for d = 2, w:dim() do shape[d] = 1 end
  return ops.mul(w, scale:reshape(shape))
end

return M
