-- Pass over slices: parts of one value that a concat puts side by side again are taken as the whole that they are.
local M = {}

-- The only dim that a slice cuts, nil where it cuts none or several or takes steps.
local function cut(node)
  local a, shape, dim = node.attr, node.inputs[1].shape, nil
  for d = 1, #a.first do
    if a.step[d] ~= 1 then return nil end
    if a.first[d] ~= 1 or a.last[d] ~= shape[d] then
      if dim then return nil end
      dim = d
    end
  end
  return dim
end

---Joins neighbouring slices of one value in the inputs of each concat.
---@param g IrGraph
function M.join(g)
  local _, _, makers = g:uses()
  local function slice_of(v, dim)
    local node = makers[v]
    if node and node.op == "slice" and cut(node) == dim then return node end
  end
  local nodes = {}
  for _, node in ipairs(g.nodes) do
    if node.op == "concat" then
      local dim, inputs, i = node.attr.dim, {}, 1
      while i <= node.arity do
        local first = slice_of(node.inputs[i], dim)
        local last, k = first, i + 1
        while last and k <= node.arity do
          local following = slice_of(node.inputs[k], dim)
          if not (following and following.inputs[1] == last.inputs[1] and following.attr.first[dim] == last.attr.last[dim] + 1) then break end
          last, k = following, k + 1
        end
        if not first or last == first then
          inputs[#inputs + 1] = node.inputs[i]
        elseif first.attr.first[dim] == 1 and last.attr.last[dim] == first.inputs[1].shape[dim] then
          inputs[#inputs + 1] = first.inputs[1]
        else
          local attr = { first = first.attr.first, last = last.attr.last, step = first.attr.step }
          local shape = { unpack(first.inputs[1].shape) }
          shape[dim] = attr.last[dim] - attr.first[dim] + 1
          local joined = g:value(first.outputs[1].name, shape, first.outputs[1].kind)
          nodes[#nodes + 1] = { op = "slice", inputs = { first.inputs[1] }, outputs = { joined }, attr = attr, arity = 1 }
          inputs[#inputs + 1] = joined
        end
        i = k
      end
      node.inputs, node.arity = inputs, #inputs
    end
    nodes[#nodes + 1] = node
  end
  g.nodes = nodes
end

return M
