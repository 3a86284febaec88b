-- The one intermediate form of imported networks: values and the nodes that make them, in order of execution. Knows no file format and runs nothing.
--
-- Ops (images [B,H,W,C]; attr fields; an input may be nil where marked ?):
--   A row of lowering/ stands for each op; what follows are those that TFLite files and passes know by name.
--   conv2d x w[O,KH,KW,I] b? residual? slope?     stride {h,w} pad {top,bottom,left,right} dilation {h,w} groups act loose?
--   depthwise x w[KH,KW,C] b? residual? slope?    stride pad dilation act
--   linear x w[O,I] b?                            act
--   add sub mul div (broadcasting), prelu x slope
--   relu relu6 relu_n1_to_1 sigmoid tanh hard_swish softmax, leaky_relu {alpha}
--   pad {before, after, value}, max_pool2d avg_pool2d {kernel, stride, pad}
--   resize_bilinear {size, align_corners, half_pixel}, depth_to_space {block}
--   mean {dims, keep}, concat {dim}, reshape {shape}, transpose {order}, slice {first, last, step, keep}
--   cast {dtype}: precision.lua's
--   dequantize, densify: of constants; folded when a network is loaded
-- act: "none", "relu", "relu6" or, with a slope, "prelu". Dims count from 1.

---@class IrValue
---@field id integer
---@field name string
---@field shape integer[] for the batch that the file was written with
---@field kind string "f32", ...
---@field data? Tensor constants only
---@field learned? boolean a constant that training may move: ONNX's initializers and what is computed of them

---@class IrNode
---@field op string
---@field inputs table<integer, IrValue>
---@field outputs IrValue[]
---@field attr table
---@field arity integer highest input position that an op may have

---@class IrGraph
---@field name string
---@field nodes IrNode[] in order of execution
---@field inputs IrValue[]
---@field outputs {name: string, value: IrValue}[]
local Graph = {}
Graph.__index = Graph

local M = {}

---@param name string
---@return IrGraph
function M.new(name)
  return setmetatable({ name = name, nodes = {}, inputs = {}, outputs = {}, made = 0 }, Graph)
end

---@param name string
---@param shape integer[]
---@param kind? string default "f32"
---@param data? Tensor of a constant
---@return IrValue
function Graph:value(name, shape, kind, data)
  self.made = self.made + 1
  return { id = self.made, name = name, shape = shape, kind = kind or "f32", data = data }
end

---A constant.
---@return IrValue
function Graph:constant(name, data)
  return self:value(name, data.shape, data.dtype, data)
end

---Appends a node, or puts it before position `at`.
---@param op string
---@param inputs table<integer, IrValue> holes allowed up to `arity`
---@param outputs IrValue[]
---@param attr? table
---@param at? integer
---@return IrNode
function Graph:node(op, inputs, outputs, attr, at)
  local arity = 0
  for i in pairs(inputs) do arity = math.max(arity, i) end
  local node = { op = op, inputs = inputs, outputs = outputs, attr = attr or {}, arity = arity }
  table.insert(self.nodes, at or #self.nodes + 1, node)
  return node
end

---Sets input i of a node.
function M.set_input(node, i, value)
  node.inputs[i] = value
  node.arity = math.max(node.arity, i)
end

---Who reads what: value -> list of nodes (a node that reads it twice stands twice), and the set of graph outputs.
---@return table<IrValue, IrNode[]> readers
---@return table<IrValue, boolean> wanted
---@return table<IrValue, IrNode> makers
function Graph:uses()
  local readers, wanted, makers = {}, {}, {}
  for _, node in ipairs(self.nodes) do
    for i = 1, node.arity do
      local v = node.inputs[i]
      if v then
        readers[v] = readers[v] or {}
        table.insert(readers[v], node)
      end
    end
    for _, v in ipairs(node.outputs) do makers[v] = node end
  end
  for _, out in ipairs(self.outputs) do wanted[out.value] = true end
  return readers, wanted, makers
end

---Lets every reader (and the graph's outputs) of `old` read `new`.
function Graph:replace(old, new)
  for _, node in ipairs(self.nodes) do
    for i = 1, node.arity do
      if node.inputs[i] == old then node.inputs[i] = new end
    end
  end
  for _, out in ipairs(self.outputs) do
    if out.value == old then out.value = new end
  end
end

---Removes nodes for which `drop` holds.
---@param drop table<IrNode, boolean>
function Graph:remove(drop)
  local kept = {}
  for _, node in ipairs(self.nodes) do
    if not drop[node] then kept[#kept + 1] = node end
  end
  self.nodes = kept
end

---Checks that every value is made before it is read: by the graph's inputs, a constant or an earlier node, once.
---@return true? ok
---@return string? error names the node
function Graph:check()
  local known = {}
  for _, v in ipairs(self.inputs) do known[v] = true end
  for number, node in ipairs(self.nodes) do
    for i = 1, node.arity do
      local v = node.inputs[i]
      if v and not v.data and not known[v] then
        return nil, ("%s: node %d (%s) reads '%s' before it is made"):format(self.name, number, node.op, v.name)
      end
    end
    for _, v in ipairs(node.outputs) do
      if known[v] or v.data then return nil, ("%s: node %d (%s) makes '%s' again"):format(self.name, number, node.op, v.name) end
      known[v] = true
    end
  end
  for _, out in ipairs(self.outputs) do
    if not known[out.value] and not out.value.data then return nil, ("%s: nobody makes the output '%s'"):format(self.name, out.name) end
  end
  return true
end

---Number of nodes by op.
---@return table<string, integer>
function Graph:count()
  local counts = {}
  for _, node in ipairs(self.nodes) do counts[node.op] = (counts[node.op] or 0) + 1 end
  return counts
end

local function describe(v)
  return ("%s[%s]"):format(v.data and "const " or "", table.concat(v.shape, ","))
end

function Graph:__tostring()
  local lines = { ("%s: %d nodes"):format(self.name, #self.nodes) }
  for number, node in ipairs(self.nodes) do
    local parts = {}
    for i = 1, node.arity do parts[i] = node.inputs[i] and describe(node.inputs[i]) or "-" end
    local act = node.attr.act and node.attr.act ~= "none" and " " .. node.attr.act or ""
    lines[#lines + 1] = ("%4d  %-16s %s -> %s%s"):format(number, node.op, table.concat(parts, " "), describe(node.outputs[1]), act)
  end
  return table.concat(lines, "\n")
end

return M
