-- An imported network as a module: its weights are parameters with gradients, its ops run one by one. What was folded (batch norm) stays folded.
local module = require "libration.nn.module"
local lower = require "libration.graph.lower"
local tensor = require "libration.tensor"

---@class ImportedModule: Module
local Imported = module.class "Imported"

-- Inputs of layers that are weights whatever file they come from.
local weights = { conv2d = { 2, 3, 5 }, depthwise = { 2, 3, 5 }, linear = { 2, 3 }, prelu = { 2 }, layer_norm = { 2, 3 }, lstm = { 2, 3, 4 } }

---@param g IrGraph
---@param inputs {name: string}[]
---@param outputs {name: string}[]
function Imported.new(g, inputs, outputs)
  local self = module.create(Imported)
  self.graph, self.inputs, self.outputs, self.values = g, inputs, outputs, {}
  local used = {}
  local function take(v)
    if not v or self.values[v] or not v.data or v.data.dtype ~= "f32" then return end
    local base = v.name:gsub("[^%w_/%.%-]", "_")
    local name = base
    while used[name] do
      used[base] = (used[base] or 1) + 1
      name = base .. "." .. used[base]
    end
    used[name] = 1
    self.values[v] = self:parameter(name, tensor.unscoped(function() return v.data:contiguous():clone() end))
  end
  for _, node in ipairs(g.nodes) do
    for _, i in ipairs(weights[node.op] or {}) do take(node.inputs[i]) end
    for i = 1, node.arity do
      local v = node.inputs[i]
      if v and v.learned and v.data and v.data:numel() > 1 then take(v) end
    end
  end
  return self
end

---Runs the network; a tape that is open follows it.
---@param ... Tensor one for each input, of the shapes that the module was made for
---@return Tensor ... one for each output, in their order
function Imported:forward(...)
  return unpack(lower.run(self.graph, { ... }, self.values))
end

function Imported:extra()
  return ("%d inputs, %d outputs, %d nodes"):format(#self.inputs, #self.outputs, #self.graph.nodes)
end

return Imported
