-- A model in two: what comes before a node whose results have as many elements as the numbers say (suppressed boxes, what is not 0), and what follows. Imports nothing itself.
local onnx = require "libration.graph.onnx"

local M = {}

-- The nodes that read, directly or not, what the roots make; the roots among them.
local function behind(graph, roots)
  local late, made, grown = {}, {}, true
  local function add(node)
    late[node] = true
    for _, name in ipairs(node.outputs) do made[name] = true end
  end
  for _, node in ipairs(roots) do add(node) end
  while grown do
    grown = false
    for _, node in ipairs(graph.nodes) do
      for _, name in ipairs(late[node] and {} or onnx.reads(node)) do
        if made[name] and not late[node] then
          add(node)
          grown = true
        end
      end
    end
  end
  return late
end

local function with_graph(model, graph)
  return setmetatable({ graph = graph }, { __index = model })
end

---Cuts a model before its nodes `roots`.
---@param model OnnxModel
---@param roots OnnxNode[]
---@param outputs table[] of the whole
---@return OnnxModel? head makes what the tail reads; nil where the tail reads nothing but the model's inputs
---@return fun(values: IrValue[]): OnnxModel tail the rest, for what the head made: its inputs are these, then those of the model
function M.divide(model, roots, outputs)
  local graph, early, late_nodes, cut, seen = model.graph, {}, {}, {}, {}
  local late = behind(graph, roots)
  for _, node in ipairs(graph.nodes) do
    if late[node] then
      late_nodes[#late_nodes + 1] = node
    else
      for _, name in ipairs(node.outputs) do early[name] = name ~= "" or nil end
    end
  end
  local function wanted(name)
    if early[name] and not seen[name] then
      cut[#cut + 1], seen[name] = { name = name }, true
    end
  end
  for _, node in ipairs(late_nodes) do
    for _, name in ipairs(onnx.reads(node)) do wanted(name) end
  end
  for _, info in ipairs(outputs) do wanted(info.name) end
  if #cut == 0 then return nil end
  local head = with_graph(model, { nodes = graph.nodes, constants = graph.constants, inputs = graph.inputs, outputs = cut })
  return head, function(values)
    local inputs = {}
    for i, info in ipairs(cut) do inputs[i] = { name = info.name, kind = values[i].kind } end
    for _, info in ipairs(graph.inputs) do inputs[#inputs + 1] = info end
    return with_graph(model, { nodes = late_nodes, constants = graph.constants, inputs = inputs, outputs = outputs })
  end
end

return M
