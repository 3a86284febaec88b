-- A graph in lower precision: bf16 or f16 between the first layer and the heads, f32 at both ends. Biases and slopes stay f32, products add up in f32.
local M = {}

-- Ops that have 16-bit kernels and gain by them; others get f32 by a cast.
local capable = { conv2d = true, depthwise = true, add = true, concat = true, reshape = true, depth_to_space = true, relu = true, relu6 = true, pad = true,
  slice = true, transpose = true }
local SMALL = 4 -- input channels up to which a convolution stays f32: a 16-bit stem of three channels is slower

-- Nodes between which and the outputs no convolution stands: their result is what the caller sees, it is not rounded.
local function heads_of(g)
  local readers, wanted = g:uses()
  local head = {}
  for n = #g.nodes, 1, -1 do
    local node = g.nodes[n]
    local v, is_head = node.outputs[1], true
    for _, reader in ipairs(readers[v] or {}) do
      is_head = is_head and head[reader] and reader.op ~= "conv2d" and reader.op ~= "depthwise"
    end
    head[node] = is_head and (wanted[v] or readers[v] ~= nil)
  end
  return head
end

---Casts weights and activations to a 16-bit type where kernels gain by it.
---@param g IrGraph after the other passes
---@param dtype string "bf16", "f16"
function M.lower(g, dtype)
  local head = heads_of(g)
  local kinds, casts, out = {}, {}, {}
  local function cast(v, to)
    local key = to .. v.id
    if not casts[key] then
      local made
      if v.data then
        made = g:constant(v.name .. "/" .. to, v.data:to(to))
      else
        made = g:value(v.name .. "/" .. to, v.shape, to)
        out[#out + 1] = { op = "cast", inputs = { v }, outputs = { made }, attr = { dtype = to }, arity = 1 }
      end
      kinds[made], casts[key] = to, made
    end
    return casts[key]
  end
  for _, node in ipairs(g.nodes) do
    local stem = node.op == "conv2d" and node.inputs[1].shape[4] <= SMALL
    local half = capable[node.op] and not stem and not head[node]
    local layer = node.op == "conv2d" or node.op == "depthwise"
    for i = 1, node.arity do
      local v = node.inputs[i]
      local parameter = layer and (i == 3 or i == 5) -- bias, slope
      if v and not parameter then
        local want = half and dtype or "f32"
        local have = kinds[v] or "f32"
        if have ~= want and (v.kind == "f32" or v.kind == dtype) then node.inputs[i] = cast(v, want) end
      end
    end
    out[#out + 1] = node
    kinds[node.outputs[1]] = half and dtype or "f32"
    node.outputs[1].kind = kinds[node.outputs[1]]
  end
  g.nodes = out
  for _, o in ipairs(g.outputs) do
    if kinds[o.value] == dtype then o.value = cast(o.value, "f32") end
  end
  return true
end

return M
