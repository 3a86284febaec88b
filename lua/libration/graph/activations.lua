-- Passes that find activations which a file spells out as several nodes (SiLU, hard swish, GELU) and make each one op.
local M = {}

-- What a pass looks at: who reads and makes what, in the graph as it stands.
local View = {}
View.__index = View

local function view(g)
  local readers, wanted, makers = g:uses()
  return setmetatable({ readers = readers, wanted = wanted, makers = makers }, View)
end

-- The node that makes v, of this op, where nobody else wants v.
function View:sole_maker(v, op)
  local maker = self.makers[v]
  if maker and (not op or maker.op == op) and #self.readers[v] == 1 and not self.wanted[v] then return maker end
end

-- The node that alone reads what `node` makes.
function View:sole_reader(node, op)
  local v = node.outputs[1]
  local list = self.readers[v]
  if list and #list == 1 and not self.wanted[v] and list[1].op == op then return list[1] end
end

local function number_of(v)
  if v and v.data and v.data:numel() == 1 and v.data.dtype == "f32" then return v.data:reshape(1):get(1) end
end

local function near(a, b) return a ~= nil and math.abs(a - b) <= 1e-5 * math.abs(b) end

-- x and the number that a node multiplies it by.
local function scaled(node)
  if not node then return nil end
  local a, b = node.inputs[1], node.inputs[2]
  if node.op == "mul" then
    if number_of(b) then return a, number_of(b) end
    if number_of(a) then return b, number_of(a) end
  elseif node.op == "div" and number_of(b) then
    return a, 1 / number_of(b)
  elseif node.op == "affine" and node.attr.shift == 0 then
    return a, node.attr.scale
  end
end

-- x and the number that a node adds to it.
local function shifted(node)
  if not node then return nil end
  local a, b = node.inputs[1], node.inputs[2]
  if node.op == "add" then
    if number_of(b) then return a, number_of(b) end
    if number_of(a) then return b, number_of(a) end
  elseif node.op == "affine" and node.attr.scale == 1 then
    return a, node.attr.shift
  end
end

-- Turns `node` into op(x); what it read before dies where nobody else reads it.
local function become(node, op, x)
  node.op, node.inputs, node.arity, node.attr = op, { x }, 1, {}
  return true
end

-- x * sigmoid(x)
local function silu(self, node)
  for i = 1, 2 do
    local gate = self:sole_maker(node.inputs[i], "sigmoid")
    if gate and gate.inputs[1] == node.inputs[3 - i] then return become(node, "silu", gate.inputs[1]) end
  end
end

-- v is relu6(x + 3) -> x
local function ramp(self, v)
  local limit = self:sole_maker(v, "relu6")
  local x, shift = shifted(limit and self:sole_maker(limit.inputs[1]))
  if near(shift, 3) then return x end
end

-- x * hard_sigmoid(x), x * (relu6(x + 3) / 6), (x * relu6(x + 3)) / 6
local function hard_swish(self, node)
  for i = 1, 2 do
    local x, v = node.inputs[3 - i], node.inputs[i]
    local gate = self:sole_maker(v, "hard_sigmoid")
    if gate and gate.inputs[1] == x and near(gate.attr.slope, 1 / 6) and near(gate.attr.shift, .5) then return become(node, "hard_swish", x) end
    local inner, factor = scaled(self:sole_maker(v))
    if near(factor, 1 / 6) and ramp(self, inner) == x then return become(node, "hard_swish", x) end
    if x and not x.data and ramp(self, v) == x then
      local after = self:sole_reader(node, "div") or self:sole_reader(node, "mul") or self:sole_reader(node, "affine")
      local _, last = scaled(after)
      if near(last, 1 / 6) then return become(after, "hard_swish", x) end
    end
  end
end

-- x (1 + erf(x / sqrt 2)) / 2, the half before, behind or on either factor
local function gelu(self, node)
  local x, inside = scaled(self:sole_maker(node.inputs[1]))
  local sum = near(inside, math.sqrt(.5)) and self:sole_reader(node, "add") or nil
  local _, one = shifted(sum)
  local product = near(one, 1) and self:sole_reader(sum, "mul") or nil
  if not product then return end
  local other = product.inputs[product.inputs[1] == sum.outputs[1] and 2 or 1]
  if other == x then
    local after = self:sole_reader(product, "mul") or self:sole_reader(product, "div") or self:sole_reader(product, "affine")
    local _, half = scaled(after)
    if near(half, .5) then return become(after, "gelu", x) end
    return
  end
  local source, half = scaled(self.makers[other])
  if near(half, .5) and source == x then return become(product, "gelu", x) end
end

local patterns = { { "mul", silu }, { "mul", hard_swish }, { "erf", gelu } }

---Makes the activations of a graph one op each.
---@param g IrGraph
function M.run(g)
  for _, pattern in ipairs(patterns) do
    local again = true
    while again do
      again = false
      local self = view(g)
      for _, node in ipairs(g.nodes) do
        if node.op == pattern[1] and pattern[2](self, node) then
          again = true
          self = view(g)
        end
      end
    end
  end
end

return M
