-- The IR as calls of our ops: one entry an op. Runs them on whatever tensors it is given; recording is graph/init.lua's.
local tensor = require "libration.tensor"
local ops = require "libration.ops"
local densify = require "libration.graph.densify"

local M = {}

local function conv_options(a, extra)
  local o = { stride = a.stride, pad = a.pad, dilation = a.dilation, groups = a.groups, act = a.act }
  for k, v in pairs(extra) do o[k] = v end
  return o
end

local function product(shape)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  return n
end

-- The shape of the file, with its first dim grown by as many times as there are more elements: a batch.
local function batched(shape, static, actual)
  local n = product(static)
  local times = n > 0 and actual / n or 1
  if times == 1 then return shape end
  local out = { unpack(shape) }
  if times ~= math.floor(times) or not out[1] then
    error(("reshape: %d elements into [%s]"):format(actual, table.concat(shape, ",")), 0)
  end
  out[1] = out[1] * times
  return out
end

-- op -> fn(inputs, attr, node) -> tensor
local lowered = {
  conv2d = function(x, a) return ops.conv2d(x[1], x[2], x[3], conv_options(a, { residual = x[4], slope = x[5] })) end,
  depthwise = function(x, a)
    local w = x[2]
    if w:dim() == 4 then w = w:reshape(w:size(2), w:size(3), w:size(4)) end
    return ops.depthwise(x[1], w, x[3], conv_options(a, { residual = x[4], slope = x[5] }))
  end,
  linear = function(x, a) return ops.linear(x[1], x[2], x[3], a.act) end,
  add = function(x) return ops.add(x[1], x[2]) end,
  sub = function(x) return ops.sub(x[1], x[2]) end,
  mul = function(x) return ops.mul(x[1], x[2]) end,
  div = function(x) return ops.div(x[1], x[2]) end,
  relu = function(x) return ops.relu(x[1]) end,
  relu6 = function(x) return ops.clamp(x[1], 0, 6) end,
  relu_n1_to_1 = function(x) return ops.clamp(x[1], -1, 1) end,
  sigmoid = function(x) return ops.sigmoid(x[1]) end,
  tanh = function(x) return ops.tanh(x[1]) end,
  softmax = function(x) return ops.softmax(x[1]) end,
  -- x * clamp(x / 6 + 1/2, 0, 1)
  hard_swish = function(x) return ops.mul(x[1], ops.clamp(ops.affine(x[1], 1 / 6, 0.5), 0, 1)) end,
  prelu = function(x) return ops.prelu(x[1], x[2]) end,
  leaky_relu = function(x, a) return ops.prelu(x[1], tensor.full({ 1 }, a.alpha, "f32", x[1].device)) end,
  pad = function(x, a) return ops.pad(x[1], a.before, a.after, a.value) end,
  max_pool2d = function(x, a) return ops.max_pool2d(x[1], a.kernel, a) end,
  avg_pool2d = function(x, a) return ops.avg_pool2d(x[1], a.kernel, a) end,
  resize_bilinear = function(x, a)
    return ops.resize_bilinear(x[1], a.size, { align_corners = a.align_corners, half_pixel = a.half_pixel })
  end,
  depth_to_space = function(x, a) return ops.depth_to_space(x[1], a.block) end,
  mean = function(x, a) return ops.mean(x[1], a.dims, a.keep) end,
  concat = function(x, a)
    -- the op takes eight at a time
    local list = x
    while #list > 8 do
      local joined = {}
      for i = 1, #list, 8 do
        local part = { unpack(list, i, math.min(i + 7, #list)) }
        joined[#joined + 1] = #part == 1 and part[1] or ops.concat(part, a.dim)
      end
      list = joined
    end
    return #list == 1 and list[1] or ops.concat(list, a.dim)
  end,
  reshape = function(x, a, node) return x[1]:reshape(batched(a.shape, node.inputs[1].shape, x[1]:numel())) end,
  transpose = function(x, a) return x[1]:permute(unpack(a.order)):contiguous() end,
  slice = function(x, a)
    local y = x[1]
    for d = 1, #a.first do
      local first, last, step = a.first[d], a.last[d], a.step[d]
      if first ~= 1 or last ~= y:size(d) or step ~= 1 then
        if d == 1 then error("slice: along the batch is not supported", 0) end
        if step == 1 then
          y = y:narrow(d, first, last - first + 1)
        else
          local parts = {}
          for i = first, last, step do parts[#parts + 1] = y:narrow(d, i, 1) end
          y = ops.concat(parts, d)
        end
      end
    end
    return y:contiguous()
  end,
  cast = function(x, a) return x[1]:to(a.dtype) end,
  dequantize = function(x) return x[1]:to("f32") end,
  densify = function(x, a) return densify.densify(a.name, x[1], a.shape, a.sparsity) end,
}

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
  local fn = lowered[node.op] or error(("no lowering for '%s'"):format(node.op), 0)
  return fn(inputs, node.attr, node)
end

---Runs one node whose inputs are all constants.
---@param node IrNode
---@return Tensor
function M.evaluate(node)
  local inputs = {}
  for i = 1, node.arity do inputs[i] = node.inputs[i] and node.inputs[i].data end
  return apply(node, inputs)
end

---Runs a graph.
---@param g IrGraph
---@param inputs Tensor[] in the order of g.inputs
---@return Tensor[] outputs in the order of g.outputs
function M.run(g, inputs)
  local values = {}
  for i, v in ipairs(g.inputs) do values[v] = inputs[i] end
  for number, node in ipairs(g.nodes) do
    local x = {}
    for i = 1, node.arity do
      local v = node.inputs[i]
      x[i] = v and (v.data or values[v])
    end
    local ok, y = pcall(apply, node, x)
    if not ok then error(("%s: node %d (%s): %s"):format(g.name, number, node.op, tostring(y)), 0) end
    values[node.outputs[1]] = y
  end
  local outputs = {}
  for i, out in ipairs(g.outputs) do outputs[i] = out.value.data or values[out.value] end
  return outputs
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
