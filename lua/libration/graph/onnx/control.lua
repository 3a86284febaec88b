-- ONNX's control flow: branches whose condition is known, loops unrolled. Entries as in onnx/elementwise.lua.
local entries = {}

local MOST = 4096 -- steps that a loop is unrolled to

function entries.If(self)
  local chosen = self:list(self:input(1))[1] ~= 0 and "then_branch" or "else_branch"
  local graph = self:attribute(chosen, nil, "table")
  if not graph or not graph.nodes then self:fail("no %s", chosen) end
  return unpack(self:subgraph(graph, {}))
end

-- Values of equal shape behind each other along a new dim.
local function stacked(self, list, d)
  local parts = {}
  for i, v in ipairs(list) do
    local shape = { unpack(v.shape) }
    table.insert(shape, d, 1)
    parts[i] = self:reshaped(v, shape)
  end
  return #parts == 1 and parts[1] or (self:emit("concat", parts, { dim = d }))
end

function entries.Loop(self)
  local body = self:attribute("body", nil, "table")
  if not body or not body.nodes then self:fail("no body") end
  local count, condition = self:input(1, true), self:input(2, true)
  local trips = count and self:list(count)[1] or math.huge
  local going = not condition or self:list(condition)[1] ~= 0
  local carried = {}
  for i = 3, #self.node.inputs do carried[i - 2] = self:input(i) end
  local scanned, step = {}, 0
  while going and step < trips do
    if step >= MOST then self:fail("a loop of more than %d steps", MOST) end
    local out = self:subgraph(body, { self:constant(step, "i64"), self:constant(1, "bool"), unpack(carried) })
    -- the condition matters where there is no count, or where it is known to end the loop
    if out[1].data or trips == math.huge or not body.outputs[1] then going = self:list(out[1])[1] ~= 0 else self:known(out[1]) end
    for i = 1, #carried do carried[i] = out[i + 1] end
    for i = #carried + 2, #out do
      local list = scanned[i - #carried - 1] or {}
      scanned[i - #carried - 1] = list
      list[#list + 1] = out[i]
    end
    step = step + 1
  end
  local results = { unpack(carried) }
  for i = 1, #body.outputs - 1 - #carried do
    if not scanned[i] then self:fail("a loop without a step") end
    results[#carried + i] = stacked(self, scanned[i], 1)
  end
  return unpack(results)
end

-- Position `at` (from 1) of dim d, without that dim.
local function picked(self, x, d, at)
  local attr, shape = { first = {}, last = {}, step = {} }, {}
  for i, size in ipairs(x.shape) do
    attr.first[i], attr.last[i], attr.step[i] = i == d and at or 1, i == d and at or size, 1
    if i ~= d then shape[#shape + 1] = size end
  end
  return self:reshaped((self:emit("slice", { x }, attr)), shape)
end

function entries.Scan(self)
  if self.opset < 9 then self:fail("Scan of operators before version 9 is not supported") end
  local body, inputs = self:attribute("body", nil, "table"), self:inputs()
  local scans = self:attribute("num_scan_inputs", 1)
  if not body or not body.nodes or scans < 1 or scans > #inputs then self:fail("no body, or nothing to go over") end
  local states, axes = #inputs - scans, self:attribute("scan_input_axes", {})
  local backwards, out_axes, out_backwards = self:attribute("scan_input_directions", {}), self:attribute("scan_output_axes", {}), self:attribute("scan_output_directions", {})
  local carried, scanned, length = { unpack(inputs, 1, states) }, {}, nil
  for i = 1, scans do
    local x = inputs[states + i]
    axes[i] = self:dim(axes[i] or 0, #x.shape)
    if length and x.shape[axes[i]] ~= length then self:fail("inputs of %d and %d steps", length, x.shape[axes[i]]) end
    length = x.shape[axes[i]]
  end
  if length > MOST then self:fail("%d steps, want at most %d", length, MOST) end
  if length == 0 then self:fail("no steps") end
  for step = 1, length do
    local values = { unpack(carried) }
    for i = 1, scans do values[states + i] = picked(self, inputs[states + i], axes[i], backwards[i] == 1 and length + 1 - step or step) end
    local out = self:subgraph(body, values)
    for i = 1, states do carried[i] = out[i] end
    for i = states + 1, #out do
      local list = scanned[i - states] or {}
      scanned[i - states] = list
      table.insert(list, out_backwards[i - states] == 1 and 1 or #list + 1, out[i])
    end
  end
  local results = { unpack(carried) }
  for i, list in ipairs(scanned) do
    local axis = out_axes[i] or 0
    results[states + i] = stacked(self, list, axis < 0 and axis + #list[1].shape + 2 or axis + 1)
  end
  return unpack(results)
end

return entries
