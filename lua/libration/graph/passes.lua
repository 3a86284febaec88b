-- Passes over the IR: each takes a graph and makes it do the same with less. Runs ops only to fold constants.
local ir = require "libration.graph.ir"
local activations = require "libration.graph.activations"
local lower = require "libration.graph.lower"
local slices = require "libration.graph.slices"
local tensor = require "libration.tensor"

local M = {}

local convolution = { conv2d = true, depthwise = true }
-- input positions of the convolutions and of linear
local BIAS, RESIDUAL, SLOPE = 3, 4, 5

-- The node whose only reader `node` is, making input i; nil where others or the caller want that value too.
local function sole_maker(node, i, readers, wanted, makers)
  local v = node.inputs[i]
  local maker = v and makers[v]
  if maker and #readers[v] == 1 and not wanted[v] then return maker end
end

---Evaluates every node whose inputs are all constants (unpacking of half-precision and sparse weights above all).
---@param g IrGraph
function M.fold_constants(g)
  local drop = {}
  for _, node in ipairs(g.nodes) do
    local constant = node.arity > 0
    for i = 1, node.arity do
      local v = node.inputs[i]
      if v and not v.data then constant = false end
    end
    if constant then
      local data = lower.evaluate(node)
      local out = node.outputs[1]
      out.data, out.shape, out.kind = data, data.shape, data.dtype
      drop[node] = true
    end
  end
  g:remove(drop)
end

---Removes nodes whose results nobody reads, and keeps only the named outputs when there are names.
---@param g IrGraph
---@param names? string[] outputs to keep
---@return true? ok
---@return string? error lists the outputs that exist
function M.remove_dead(g, names)
  if names then
    local by_name, all, kept = {}, {}, {}
    for i, out in ipairs(g.outputs) do
      by_name[out.name], all[i] = out, out.name
    end
    for i, name in ipairs(names) do
      if not by_name[name] then return nil, ("%s has no output '%s', but %s"):format(g.name, tostring(name), table.concat(all, ", ")) end
      kept[i] = by_name[name]
    end
    g.outputs = kept
  end
  local alive, drop = {}, {}
  for _, out in ipairs(g.outputs) do alive[out.value] = true end
  for n = #g.nodes, 1, -1 do
    local node, needed = g.nodes[n], false
    for _, v in ipairs(node.outputs) do needed = needed or alive[v] end
    if needed then
      for i = 1, node.arity do
        if node.inputs[i] then alive[node.inputs[i]] = true end
      end
    else
      drop[node] = true
    end
  end
  g:remove(drop)
  return true
end

---Moves zero padding of height and width into the convolutions that read it.
---@param g IrGraph
function M.fold_pads(g)
  local _, _, makers = g:uses()
  for _, node in ipairs(g.nodes) do
    local maker = convolution[node.op] and makers[node.inputs[1]]
    if maker and maker.op == "pad" and maker.attr.value == 0 then
      local b, a = maker.attr.before, maker.attr.after
      if b[1] == 0 and a[1] == 0 and b[4] == 0 and a[4] == 0 then
        local pad = node.attr.pad
        node.attr.pad = { pad[1] + b[2], pad[2] + a[2], pad[3] + b[3], pad[4] + a[3] }
        node.inputs[1] = maker.inputs[1]
      end
    end
  end
  M.remove_dead(g)
end

local function same_shape(a, b)
  if #a ~= #b then return false end
  for d = 1, #a do
    if a[d] ~= b[d] then return false end
  end
  return true
end

local broadcasting = { add = true, sub = true, mul = true, div = true, maximum = true, minimum = true }
local SHORT, LARGE = 64, 2 ^ 20 -- numbers: of a run that is not worth a call of an inner loop; of a constant that is not worth its memory

---Writes out constants that would be repeated, or taken, a few numbers at a time.
---@param g IrGraph
function M.expand_constants(g)
  for _, node in ipairs(g.nodes) do
    local shape = node.outputs[1].shape
    for i = 1, broadcasting[node.op] and 2 or 0 do
      local v, other = node.inputs[i], node.inputs[3 - i]
      if v.data and not other.data and v.data:numel() > 1 and same_shape(other.shape, shape) and v.data:numel() < tensor.product(shape) and tensor.product(shape) <= LARGE then
        local run, same = 1, true
        for d = 0, #shape - 1 do -- from the back: dims that both have, or that the constant repeats
          local mine = v.shape[#v.shape - d] or 1
          if d == 0 then same = mine == shape[#shape] end
          if (mine == shape[#shape - d]) ~= same then break end
          run = run * shape[#shape - d]
        end
        if run < SHORT then node.inputs[i] = g:constant(v.name .. "/expanded", v.data:expand(unpack(shape)):contiguous()) end
      end
    end
  end
end

-- A constant that holds one number or one a channel (last dim) -> flat copy [channels], or nil.
local function per_channel(v, channels)
  if not v.data or v.data.dtype ~= "f32" then return nil end
  local n = v.data:numel()
  if n ~= 1 and not (n == channels and v.shape[#v.shape] == channels) then return nil end
  return n == 1 and lower.spread(v.data, channels) or v.data:reshape(channels)
end

-- Which input of a commutative node is the constant -> constant, other position
local function constant_side(node)
  if node.inputs[2].data then return node.inputs[2], 1 end
  if node.inputs[1].data then return node.inputs[1], 2 end
end

---Folds multiplication by, and addition of, a constant a channel (BatchNorm after import) into the weights and bias of the layer before.
---@param g IrGraph
function M.fold_affine(g)
  local changed = true
  while changed do
    changed = false
    local readers, wanted, makers = g:uses()
    for _, node in ipairs(g.nodes) do
      local is_sum = node.op == "add" or node.op == "sub"
      if node.op == "mul" or is_sum then
        local constant, side = constant_side(node)
        local layer = constant and not (node.op == "sub" and side == 2) and sole_maker(node, side, readers, wanted, makers)
        local known = layer and (convolution[layer.op] or layer.op == "linear") and layer.attr.act == "none" and not layer.inputs[RESIDUAL]
        local w = known and layer.inputs[2]
        local bias = known and layer.inputs[BIAS]
        if w and w.data and (not bias or bias.data) and #node.outputs[1].shape == #layer.outputs[1].shape then
          local channels = layer.outputs[1].shape[#layer.outputs[1].shape]
          local c = per_channel(constant, channels)
          if c then
            local old = bias and bias.data or lower.spread(0, channels)
            if is_sum then
              layer.inputs[BIAS] = g:constant(node.outputs[1].name .. "/bias", lower.combine(node.op, old, c))
            else
              layer.inputs[2] = g:constant(w.name, lower.scale_weights(w.data, c, layer.op == "depthwise"))
              layer.inputs[BIAS] = g:constant(node.outputs[1].name .. "/bias", lower.combine("mul", old, c))
            end
            layer.arity = math.max(layer.arity, BIAS)
            local made = layer.outputs[1]
            g:remove { [node] = true }
            g:replace(node.outputs[1], made)
            changed = true
            break
          end
        end
      end
    end
  end
end

---Lets a 1x1 convolution run before the bilinear enlargement that feeds it: both are linear and the weights of the enlargement sum to one, so only
---the order of rounding changes, and the convolution works on fewer pixels. An activation stays behind the enlargement.
---@param g IrGraph
function M.delay_resize(g)
  local changed = true
  while changed do
    changed = false
    local readers, wanted, makers = g:uses()
    for _, node in ipairs(g.nodes) do
      local resize = node.op == "conv2d" and not node.inputs[RESIDUAL] and not node.inputs[SLOPE] and sole_maker(node, 1, readers, wanted, makers)
      local w, a = node.inputs[2], node.attr
      if resize and resize.op == "resize_bilinear" and w.shape[2] == 1 and w.shape[3] == 1 and a.stride[1] == 1 and a.stride[2] == 1
        and a.pad[1] + a.pad[2] + a.pad[3] + a.pad[4] == 0 then
        local small, large, out = resize.inputs[1].shape, resize.outputs[1].shape, node.outputs[1]
        -- worth it when pixels saved in the convolution outweigh channels added to the enlargement
        if large[2] * large[3] > small[2] * small[3] and out.shape[4] <= 2 * large[4] then
          local act = a.act
          a.act = "none"
          local low = g:value(out.name .. "/small", { small[1], small[2], small[3], out.shape[4] }, out.kind)
          node.inputs[1], node.outputs[1] = resize.inputs[1], low
          local position
          for i, other in ipairs(g.nodes) do
            if other == node then position = i end
          end
          local enlarged = act == "none" and out or g:value(out.name .. "/linear", out.shape, out.kind)
          g:node("resize_bilinear", { low }, { enlarged }, resize.attr, position + 1)
          if act ~= "none" then g:node(act, { enlarged }, { out }, nil, position + 2) end
          g:remove { [resize] = true }
          changed = true
          break
        end
      end
    end
  end
end

-- Whether a prelu's slope is a constant of one number a channel.
local function channel_slope(node, layer)
  if not convolution[layer.op] then return nil end
  return per_channel(node.inputs[2], layer.outputs[1].shape[4])
end

local plain = { relu = true, relu6 = true, prelu = true }
local all = { relu = true, relu6 = true, prelu = true, silu = true, hard_swish = true, sigmoid = true, tanh = true, gelu = true, mish = true }

---Moves an activation into the layer before it, where nobody else reads that layer's result.
---@param g IrGraph
---@param rich? boolean every activation that layers know, not only those that TFLite's layers have
function M.fuse_activations(g, rich)
  local fusible = rich and all or plain
  local readers, wanted, makers = g:uses()
  local drop = {}
  for _, node in ipairs(g.nodes) do
    local layer = fusible[node.op] and sole_maker(node, 1, readers, wanted, makers)
    if layer and (convolution[layer.op] or layer.op == "linear") and layer.attr.act == "none" then
      local slope = node.op == "prelu" and channel_slope(node, layer)
      if node.op ~= "prelu" or slope then
        if slope then ir.set_input(layer, SLOPE, g:constant(node.inputs[2].name .. "/channels", slope)) end
        layer.attr.act = node.op
        layer.outputs = node.outputs
        makers[node.outputs[1]] = layer
        drop[node] = true
      end
    end
  end
  g:remove(drop)
end

---Moves the addition of another branch into the convolution that makes one of the summands. The convolution then runs where the sum stood.
---@param g IrGraph
function M.fuse_residuals(g)
  local readers, wanted, makers = g:uses()
  local drop, order = {}, {}
  for i, node in ipairs(g.nodes) do order[node] = i end
  for at, node in ipairs(g.nodes) do
    if node.op == "add" then
      local best, side
      for i = 1, 2 do
        local layer, other = sole_maker(node, i, readers, wanted, makers), node.inputs[3 - i]
        if layer and convolution[layer.op] and layer.attr.act == "none" and not layer.inputs[RESIDUAL] and not drop[layer]
          and same_shape(other.shape, layer.outputs[1].shape) and other ~= layer.outputs[1] and (not best or order[layer] > order[best]) then
          best, side = layer, i
        end
      end
      if best then
        ir.set_input(best, RESIDUAL, node.inputs[3 - side])
        best.outputs = node.outputs
        makers[node.outputs[1]] = best
        g.nodes[at] = best
        drop[node] = true
        for i = order[best], at - 1 do -- the convolution leaves its old place
          if g.nodes[i] == best then g.nodes[i] = node end
        end
        order[best] = at
      end
    end
  end
  g:remove(drop)
end

---Removes reshapes and transposes that change nothing and joins a reshape with the one before it.
---@param g IrGraph
function M.simplify(g)
  local _, _, makers = g:uses()
  local drop = {}
  for _, node in ipairs(g.nodes) do
    if node.op == "reshape" then
      local before = makers[node.inputs[1]]
      if before and before.op == "reshape" then node.inputs[1] = before.inputs[1] end
      local wanted = false
      for _, out in ipairs(g.outputs) do wanted = wanted or out.value == node.outputs[1] end
      if not wanted and same_shape(node.inputs[1].shape, node.outputs[1].shape) then
        g:replace(node.outputs[1], node.inputs[1])
        drop[node] = true
      end
    end
  end
  g:remove(drop)
end

---All passes in order. What constants that cannot be folded raise goes through.
---@param g IrGraph
---@param outputs? string[] names of the outputs to keep
---@param loose? boolean also passes that change the order of rounding (delay_resize)
---@param rich? boolean find activations that are spelled out, fuse all that layers know, and join slices
---@return true? ok
---@return string? error one line
function M.run(g, outputs, loose, rich)
  local ok, err = M.remove_dead(g, outputs)
  if not ok then return nil, err end
  M.fold_constants(g)
  M.fold_pads(g)
  M.fold_affine(g)
  if loose then M.delay_resize(g) end
  if rich then
    for _, node in ipairs(g.nodes) do
      if node.op == "conv2d" then node.attr.loose = true end
    end
    activations.run(g)
    slices.join(g)
    M.remove_dead(g)
  end
  M.fuse_activations(g, rich)
  M.fuse_residuals(g)
  M.fuse_activations(g, rich)
  if rich then M.expand_constants(g) end
  M.simplify(g)
  M.remove_dead(g)
  return g:check()
end

return M
