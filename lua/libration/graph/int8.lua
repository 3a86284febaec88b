-- A graph in 8 bits: convolutions whose inputs and outputs are u8 by ranges seen on sample inputs (percentile calibration), weights s8 by output channel, symmetric.
-- What is not a convolution or loses too much stays f32, and so does what the caller sees.
local tensor = require "libration.tensor"
local ops = require "libration.ops"
local lower = require "libration.graph.lower"

local M = {}

local LEFT_OUT = 1e-4 -- share of a value's numbers beyond its range, half at each end: the percentile 99.99
local LARGE, ENOUGH = 4194304, 1048576 -- numbers
local LOSS = .1       -- relative L2 error of a layer by itself, up to which it runs in 8 bits
local MOST_TAPS, MOST_SUM = 64, 65536
local FEW = 8         -- output channels

-- Ops that hand on numbers as they are.
local function moves(node)
  if node.op == "pool" then
    local a = node.attr
    return a.kind == "max" and #node.inputs[1].shape == 4 and not a.ceil
  elseif node.op == "resize" then
    return node.attr.mode == "nearest" and node.attr.transform ~= "tf_crop_and_resize"
  end
  return node.op == "concat" or node.op == "slice" or node.op == "transpose" or node.op == "max_pool2d"
end

-- A convolution that has a kernel of 8 bits.
local function eligible(node)
  if node.op ~= "conv2d" then return false end
  local w, b, a = node.inputs[2], node.inputs[3], node.attr
  local taps = w.shape[2] * w.shape[3]
  return w.data and (not b or b.data) and not node.inputs[5] and (a.groups or 1) == 1 and a.act ~= "prelu" and taps <= MOST_TAPS and taps * w.shape[4] <= MOST_SUM
end

---Scale and zero of u8 numbers for a range.
---@param low number
---@param high number
---@return {[1]: number, [2]: integer}
function M.parameters(low, high)
  low, high = math.min(low, 0), math.max(high, 0)
  local scale = (high - low) / 255
  if not (scale > 1e-30) then scale = 1 end
  return { scale, math.max(0, math.min(255, math.floor(-low / scale + .5))) }
end

-- The range of a tensor without its outliers; of large ones by evenly spread numbers.
local function range_of(x)
  local n = x:numel()
  if n > LARGE then
    local step = math.ceil(n / ENOUGH)
    x = x:contiguous():reshape(n):narrow(1, 1, math.floor(n / step) * step):reshape(-1, step):narrow(2, 1, 1)
    n = x:numel()
  end
  local k = math.max(1, math.floor(n * LEFT_OUT / 2))
  if k == 1 then return x:min():item(), x:max():item() end
  local flat = x:contiguous():reshape(n)
  return ops.topk(flat, k, 1, true):get(k), (ops.topk(flat, k, 1)):get(k)
end

local function finite(x) return (x:to "f32" * 0):sum():item() == 0 end

-- nil and why where the samples are none for this graph.
local function check(g, samples)
  if type(samples) ~= "table" or #samples == 0 then return nil, ("%s: precision int8 wants calibration, a list of sample inputs; there is none"):format(g.name) end
  for n, sample in ipairs(samples) do
    if tensor.is_tensor(sample) then sample = { sample } end
    for i, v in ipairs(g.inputs) do
      local x = sample[g.numbers and g.numbers[i] or i]
      if not tensor.is_tensor(x) then return nil, ("%s: calibration: sample %d has no input '%s'"):format(g.name, n, v.name) end
      if table.concat(x.shape, ",") ~= table.concat(v.shape, ",") then
        return nil, ("%s: calibration: input '%s' of sample %d is [%s], the network runs on [%s]"):format(g.name, v.name, n, table.concat(x.shape, ","), table.concat(v.shape, ","))
      end
      if not finite(x) then return nil, ("%s: calibration: input '%s' of sample %d has numbers that are not finite"):format(g.name, v.name, n) end
    end
  end
  return true
end

local function each_sample(g, samples, seen)
  for _, sample in ipairs(samples) do
    if tensor.is_tensor(sample) then sample = { sample } end
    local inputs = {}
    for i in ipairs(g.inputs) do inputs[i] = sample[g.numbers and g.numbers[i] or i]:to("cpu"):contiguous() end
    for i, v in ipairs(g.inputs) do seen(nil, nil, { inputs[i] }, { v }) end
    lower.run(g, inputs, nil, seen)
  end
end

-- Ranges of all values that a convolution reads or that may be bytes.
local function ranges_of(g, samples)
  local wanted, ranges = {}, {}
  for _, node in ipairs(g.nodes) do
    if eligible(node) or node.op == "add" or moves(node) then
      for i = 1, node.arity do
        if node.inputs[i] and not node.inputs[i].data then wanted[node.inputs[i]] = true end
      end
      wanted[node.outputs[1]] = true
    end
  end
  each_sample(g, samples, function(node, _, results, values)
    for i, v in ipairs(values or node.outputs) do
      if wanted[v] and results[i].dtype == "f32" and results[i]:numel() > 0 then
        local low, high = range_of(results[i])
        local r = ranges[v] or { low, high }
        ranges[v] = { math.min(r[1], low), math.max(r[2], high) }
      end
    end
  end)
  return ranges
end

local function bytes_of(x, q) return ops.to_bytes(x, 1 / q[1], q[2]) end

local function norm(x) return math.sqrt(ops.square(x:to "f64"):sum():item()) end

-- Convolutions that lose little in 8 bits, each for itself on the first sample -> node: true.
local function bearable(g, samples, ranges)
  local kept = {}
  each_sample(g, { samples[1] }, function(node, x, results)
    local range = node and eligible(node) and ranges[node.inputs[1]]
    if range then
      local q, a = M.parameters(range[1], range[2]), node.attr
      local options = { stride = a.stride, pad = a.pad, dilation = a.dilation, act = a.act, x = q }
      if x[4] then
        options.r = M.parameters(range_of(x[4]))
        options.residual = bytes_of(x[4], options.r)
      end
      local error_of = norm(ops.conv2d_int8(bytes_of(x[1], q), x[2], x[3], options) - results[1]) / math.max(norm(results[1]), 1e-30)
      kept[node] = error_of <= LOSS or nil
    end
  end)
  return kept
end

-- Values that a convolution of 8 bits reads, by itself or through ops that hand numbers on.
local function readers_of(g, kept)
  local read = {}
  for n = #g.nodes, 1, -1 do
    local node = g.nodes[n]
    local passes = read[node.outputs[1]] and (moves(node) or node.op == "add")
    if kept[node] then
      read[node.inputs[1]] = true
      if node.inputs[4] then read[node.inputs[4]] = true end
    elseif passes then
      for i = 1, node.arity do read[node.inputs[i]] = true end
    end
  end
  return read
end

local function same_shape(a, b) return table.concat(a.shape, ",") == table.concat(b.shape, ",") end

-- Which values are bytes, and additions that a convolution takes with it: add node -> {convolution, other summand}.
local function chosen(g, kept)
  local read, bytes, late = readers_of(g, kept), {}, {}
  local readers, wanted, makers = g:uses()
  local is_input = {}
  for _, v in ipairs(g.inputs) do is_input[v] = true end
  for _, node in ipairs(g.nodes) do
    local out = node.outputs[1]
    if read[out] and not wanted[out] then
      if kept[node] then
        bytes[out] = true
      elseif node.op == "add" then
        for i = 1, 2 do
          local v, other = node.inputs[i], node.inputs[3 - i]
          local layer = v and makers[v]
          if not late[node] and kept[layer] and #readers[v] == 1 and not layer.inputs[4] and not wanted[v] and bytes[other] and v ~= other and same_shape(v, other) then
            late[node], bytes[out], bytes[v] = { layer, other }, true, nil
          end
        end
      elseif moves(node) then
        local some = is_input[node.inputs[1]]
        for i = 1, node.arity do some = some or bytes[node.inputs[i]] end
        bytes[out] = some and out.kind == "f32" or nil
      end
    end
  end
  return bytes, late
end

-- Values that share scale and zero, as some op hands numbers from one to the other -> value: {scale, zero}.
local function shared(g, bytes, ranges)
  local parent, joined = {}, {}
  local function root(v)
    while parent[v] do v = parent[v] end
    return v
  end
  for _, node in ipairs(g.nodes) do
    if moves(node) and bytes[node.outputs[1]] then
      for i = 1, node.arity do
        local a, b = root(node.inputs[i]), root(node.outputs[1])
        if a ~= b then parent[a] = b end
      end
    end
  end
  for v, range in pairs(ranges) do
    local top = root(v)
    local r = joined[top] or range
    joined[top] = { math.min(r[1], range[1]), math.max(r[2], range[2]) }
  end
  return function(v) return M.parameters(unpack(joined[root(v)])) end
end

---Makes convolutions run in 8 bits where they bear it.
---@param g IrGraph after the other passes
---@param samples (Tensor|Tensor[])[] sample inputs, each of the shapes that the graph takes
---@return true? ok g.quantised says how many convolutions run in 8 bits, and of how many
---@return string? error one line
function M.lower(g, samples)
  local ok, why = check(g, samples)
  if not ok then return nil, why end
  local ranges = ranges_of(g, samples)
  local kept = bearable(g, samples, ranges)
  local bytes, late = chosen(g, kept)
  local few = false
  for node in pairs(kept) do -- a sum of a few channels is not worth making bytes for
    if node.inputs[2].shape[1] < FEW and not bytes[node.inputs[1]] then kept[node], few = nil, true end
  end
  if few then bytes, late = chosen(g, kept) end
  local scale_of = shared(g, bytes, ranges)
  local out, as_bytes, as_numbers, taken, count, all = {}, {}, {}, {}, 0, 0
  local function emit(op, inputs, to, attr)
    out[#out + 1] = { op = op, inputs = inputs, outputs = { to }, attr = attr, arity = table.maxn(inputs) }
  end
  local function to_bytes(v)
    if not as_bytes[v] then
      as_bytes[v] = g:value(v.name .. "/u8", v.shape, "u8")
      emit("to_bytes", { v }, as_bytes[v], { q = scale_of(v) })
    end
    return as_bytes[v]
  end
  local function to_numbers(v)
    if not bytes[v] then return v end
    if not as_numbers[v] then
      as_numbers[v] = g:value(v.name .. "/f32", v.shape, "f32")
      emit("to_numbers", { as_bytes[v] }, as_numbers[v], { q = scale_of(v) })
    end
    return as_numbers[v]
  end
  local function convolve(node, result, other)
    local a, x, residual = node.attr, node.inputs[1], other or node.inputs[4]
    local attr = { stride = a.stride, pad = a.pad, dilation = a.dilation, act = a.act, late = other ~= nil }
    local inputs = { to_bytes(x), node.inputs[2], node.inputs[3], residual and to_bytes(residual) }
    attr.x, attr.y, attr.r = scale_of(x), bytes[result] and scale_of(result) or nil, residual and scale_of(residual) or nil
    local to = result
    if bytes[result] then
      to = g:value(result.name .. "/u8", result.shape, "u8")
      as_bytes[result] = to
    end
    emit("conv2d_int8", inputs, to, attr)
    count = count + 1
  end
  for _, pair in pairs(late) do taken[pair[1]] = true end
  for _, node in ipairs(g.nodes) do
    local result = node.outputs[1]
    if node.op == "conv2d" then all = all + 1 end
    if late[node] then
      convolve(late[node][1], result, late[node][2])
    elseif kept[node] then
      if not taken[node] then convolve(node, result) end
    elseif bytes[result] and node.op == "transpose" and node.attr.order[1] == 1 and not bytes[node.inputs[1]] then
      as_bytes[result] = g:value(result.name .. "/u8", result.shape, "u8")
      emit("to_bytes", { node.inputs[1] }, as_bytes[result], { q = scale_of(result), order = node.attr.order })
    elseif bytes[result] then
      local inputs = {}
      for i = 1, node.arity do inputs[i] = to_bytes(node.inputs[i]) end
      as_bytes[result] = g:value(result.name .. "/u8", result.shape, "u8")
      emit(node.op, inputs, as_bytes[result], node.attr)
    else
      for i = 1, node.arity do
        if node.inputs[i] then node.inputs[i] = to_numbers(node.inputs[i]) end
      end
      out[#out + 1] = node
    end
  end
  g.nodes = out
  g.quantised = { count, all }
  return true
end

return M
