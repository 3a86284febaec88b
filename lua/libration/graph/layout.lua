-- Moves changes of the order of dims forward through the graph until they meet and cancel: a network of pictures [B,C,H,W] then runs as [B,H,W,C] whole.
-- Works on the IR; what an op lets through is said by its row in lowering/ (layout).
local lower = require "libration.graph.lower"
local tensor = require "libration.tensor"

local product = tensor.product

local M = {}

local function is_identity(order)
  for i, d in ipairs(order) do
    if i ~= d then return false end
  end
  return true
end

-- out[i] = list[order[i]]
local function picked(list, order)
  local out = {}
  for i, d in ipairs(order) do out[i] = list[d] end
  return out
end

local function inverse(order)
  local out = {}
  for i, d in ipairs(order) do out[d] = i end
  return out
end

local function same(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

-- One sweep: from[v] = {value, order} where v is that value with its dims in this order; renamed[v] = the value that stands for v.
local Sweep = {}
Sweep.__index = Sweep

function Sweep:append(op, inputs, shape, attr, like, kind)
  local v = self.g:value(like.name, shape, kind or like.kind)
  local node = { op = op, inputs = inputs, outputs = { v }, attr = attr, arity = 0 }
  for i in pairs(inputs) do node.arity = math.max(node.arity, i) end
  self.out[#self.out + 1] = node
  return v
end

-- v, made by an earlier place of the graph, is y with its dims in this order: says so and, where the order matters to a later reader, makes it.
function Sweep:define(v, y, order)
  if is_identity(order) then
    self.renamed[v] = y
    return
  end
  self.from[v] = { y, order }
  self.out[#self.out + 1] = { op = "transpose", inputs = { y }, outputs = { v }, attr = { order = order }, arity = 1 }
end

-- The value x such that v is x with its dims in `order`; nil where that would cost more than it saves.
function Sweep:undone(v, order)
  local rank = #order
  if product(v.shape) == 1 and #v.shape <= rank then return v end
  if v.data then
    local shape = { unpack(v.shape) }
    while #shape < rank do table.insert(shape, 1, 1) end
    return self.g:constant(v.name .. "/ordered", v.data:reshape(shape):permute(inverse(order)):contiguous())
  end
  if #v.shape ~= rank then return nil end
  local source = self.from[v]
  if source and same(source[2], order) then return source[1] end
  return self:append("transpose", { v }, picked(v.shape, inverse(order)), { order = inverse(order) }, v)
end

-- The order of the first input that has one, where as many numbers come in that order as do not.
local function common_order(self, node)
  local order, with, without = nil, 0, 0
  for i = 1, node.arity do
    local v = node.inputs[i]
    local source = v and self.from[v]
    if v and not v.data then
      local n = product(v.shape)
      if source and #v.shape == #node.outputs[1].shape and (not order or same(order, source[2])) then
        order, with = source[2], with + n
      elseif n > 1 then
        if #v.shape ~= #node.outputs[1].shape then return nil end
        without = without + n
      end
    end
  end
  return with >= without and order or nil
end

-- Ops of equal dims in and out: the same op with its dims renamed, then the change of order.
local function through(self, node, row)
  local v = node.outputs[1]
  local order = common_order(self, node)
  if not order or #order ~= #v.shape then return false end
  local inputs = {}
  for i = 1, node.arity do
    if node.inputs[i] then
      inputs[i] = self:undone(node.inputs[i], order)
      if not inputs[i] then return false end
    end
  end
  local attr = row.remap and row.remap(node.attr, order) or node.attr
  self:define(v, self:append(node.op, inputs, picked(v.shape, inverse(order)), attr, v), order)
  return true
end

local rules = { pointwise = through, same = through }

-- Ops over the last dim, which must stay the last one.
function rules.last(self, node)
  local x, v = node.inputs[1], node.outputs[1]
  local source = self.from[x]
  if not source or source[2][#source[2]] ~= #source[2] then return false end
  local inputs = { unpack(node.inputs, 1, node.arity) }
  inputs[1] = source[1]
  self:define(v, self:append(node.op, inputs, picked(v.shape, inverse(source[2])), node.attr, v), source[2])
  return true
end

-- A 1x1 convolution takes each pixel by itself.
function rules.pixels(self, node)
  local w, a = node.inputs[2].shape, node.attr
  local one = w[2] == 1 and w[3] == 1 and a.stride[1] == 1 and a.stride[2] == 1 and a.pad[1] + a.pad[2] + a.pad[3] + a.pad[4] == 0
  return one and not node.inputs[4] and rules.last(self, node)
end

-- Two last dims that change places are a flag of a product.
function rules.product(self, node)
  local changed, inputs, attr = false, { node.inputs[1], node.inputs[2] }, { transpose_a = node.attr.transpose_a, transpose_b = node.attr.transpose_b }
  for i, flag in ipairs { "transpose_a", "transpose_b" } do
    local source = self.from[inputs[i]]
    if source then
      local n, swapped = #source[2], {}
      for d = 1, n do swapped[d] = d end
      swapped[n], swapped[n - 1] = n - 1, n
      if same(source[2], swapped) then
        inputs[i], attr[flag], changed = source[1], not attr[flag], true
      end
    end
  end
  if changed then
    self.out[#self.out + 1] = { op = node.op, inputs = inputs, outputs = node.outputs, attr = attr, arity = 2 }
  end
  return changed
end

function rules.reduction(self, node, row)
  local source = self.from[node.inputs[1]]
  if not source then return false end
  local y, order, v = source[1], source[2], node.outputs[1]
  local attr, gone = row.remap(node.attr, order), {}
  for _, d in ipairs(attr.dims) do gone[d] = true end
  local shape, place = {}, {}
  for d, size in ipairs(y.shape) do
    if attr.keep or not gone[d] then
      shape[#shape + 1] = gone[d] and 1 or size
      place[d] = #shape
    end
  end
  local kept = {}
  for _, d in ipairs(order) do
    if place[d] then kept[#kept + 1] = place[d] end
  end
  self:define(v, self:append(node.op, { y }, shape, attr, v), kept)
  return true
end

-- Dims that a reshape joins or splits, as groups {from = dims of x, to = dims of the new shape}, sizes of 1 left out of `from`; nil where they do not come apart.
local function groups_of(from, to)
  local groups, i, j = {}, 1, 1
  local function skip_ones()
    while from[i] == 1 do i = i + 1 end
    while to[j] == 1 do j = j + 1 end
  end
  skip_ones()
  while i <= #from and j <= #to do
    local group, a, b = { from = { i }, to = { j } }, from[i], to[j]
    if a == 0 or b == 0 then return nil end
    i, j = i + 1, j + 1
    while a ~= b do
      if a < b then
        if not from[i] then return nil end
        a = a * from[i]
        if from[i] ~= 1 then group.from[#group.from + 1] = i end
        i = i + 1
      else
        if not to[j] then return nil end
        b = b * to[j]
        if to[j] ~= 1 then group.to[#group.to + 1] = j end
        j = j + 1
      end
    end
    groups[#groups + 1] = group
    skip_ones()
  end
  return groups
end

function rules.reshape(self, node)
  local source, v = self.from[node.inputs[1]], node.outputs[1]
  if not source then return false end
  local x, y, order, target = node.inputs[1], source[1], source[2], v.shape
  local groups = groups_of(x.shape, target)
  if not groups or #groups == 0 then return false end
  for _, group in ipairs(groups) do
    group.at = order[group.from[1]]
    for k = 2, #group.from do -- dims that become one must follow each other in y as well
      for d = order[group.from[k - 1]] + 1, order[group.from[k]] - 1 do
        if y.shape[d] ~= 1 then return false end
      end
      if order[group.from[k]] < order[group.from[k - 1]] then return false end
    end
  end
  table.sort(groups, function(a, b) return a.at < b.at end)
  local placed, shape, position = {}, {}, {}
  for _, group in ipairs(groups) do
    for _, j in ipairs(group.to) do placed[j] = group end
  end
  -- a size of 1 stands with the dim before it
  local last = nil
  local with = { [false] = {} }
  for j = 1, #target do
    if placed[j] then last = j else
      with[last or false] = with[last or false] or {}
      table.insert(with[last or false], j)
    end
  end
  local function put(j)
    shape[#shape + 1] = target[j]
    position[j] = #shape
  end
  for _, j in ipairs(with[false]) do put(j) end
  for _, group in ipairs(groups) do
    for _, j in ipairs(group.to) do
      put(j)
      for _, one in ipairs(with[j] or {}) do put(one) end
    end
  end
  local moved = {}
  for j = 1, #target do moved[j] = position[j] end
  self:define(v, self:append("reshape", { y }, shape, { shape = shape }, v), moved)
  return true
end

---Moves changes of order through the graph, once from front to back.
---@param g IrGraph
function M.run(g)
  local self = setmetatable({ g = g, out = {}, from = {}, renamed = {} }, Sweep)
  local renamed = self.renamed
  for _, node in ipairs(g.nodes) do
    for i = 1, node.arity do node.inputs[i] = renamed[node.inputs[i]] or node.inputs[i] end
    local done = true
    if node.op == "transpose" then
      local source = self.from[node.inputs[1]]
      if source then
        self:define(node.outputs[1], source[1], picked(source[2], node.attr.order))
      else
        self:define(node.outputs[1], node.inputs[1], node.attr.order)
      end
    else
      local row = lower.rows[node.op]
      local rule = #node.outputs == 1 and rules[row.layout]
      done = rule and rule(self, node, row)
    end
    if not done then self.out[#self.out + 1] = node end
  end
  g.nodes = self.out
  for _, out in ipairs(g.outputs) do out.value = renamed[out.value] or out.value end
end

return M
