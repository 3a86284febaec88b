-- TFLite operators into the IR, one importer an operator. Knows what the operators mean; passes and lowering do the rest.
local reader = require "libration.formats.reader"
local ir = require "libration.graph.ir"
local tensor = require "libration.tensor"

local product = tensor.product

local M = {}

local function fail(name, ...)
  error(("%s: "):format(name) .. string.format(...), 0)
end

-- One operator being imported: its values and the graph.
local Import = {}
Import.__index = Import

function Import:fail(...)
  fail(self.graph.name, "operator %d (%s): %s", self.number, self.op.custom or self.op.name, string.format(...))
end

-- Value of input i (from 1); nil where it is left out and `optional`.
function Import:input(i, optional)
  local index = self.op.inputs[i]
  if not index or index < 0 then
    if optional then return nil end
    self:fail("input %d is missing", i)
  end
  return self.values[index + 1]
end

function Import:output()
  local index = self.op.outputs[1]
  if not index or index < 0 then self:fail("no output") end
  return self.values[index + 1]
end

-- Whole numbers of a constant input, as a flat list.
function Import:integers(i)
  local v = self:input(i)
  if not v.data or v.data.dtype ~= "i32" then self:fail("input %d is not a constant of whole numbers", i) end
  local list, p = {}, v.data:ptr()
  for k = 1, v.data:numel() do list[k] = p[k - 1] end
  return list
end

-- The shape of a value, refused unless it has n dims.
function Import:dims(v, n)
  if #v.shape ~= n then self:fail("'%s' is [%s], want %d dims", v.name, table.concat(v.shape, ","), n) end
  return v.shape
end

-- Refuses an output whose declared shape is not what the operator makes of its inputs: passes rely on shapes.
function Import:expect(shape)
  local out = self:output()
  local same = #shape == #out.shape
  for d = 1, #shape do same = same and shape[d] == out.shape[d] end
  if not same then self:fail("output '%s' is declared [%s], the operator makes [%s]", out.name, table.concat(out.shape, ","), table.concat(shape, ",")) end
end

-- Appends a node that makes the operator's output, with the fused activation as a node of its own.
function Import:emit(op, inputs, attr, activation)
  local out = self:output()
  if activation and activation ~= "none" then
    local known = { relu = true, relu6 = true, relu_n1_to_1 = true, tanh = true }
    if not known[activation] then self:fail("fused activation %s is not supported", activation) end
    local before = self.graph:value(out.name .. "/linear", out.shape, out.kind)
    self.graph:node(op, inputs, { before }, attr)
    self.graph:node(activation, { before }, { out })
  else
    self.graph:node(op, inputs, { out }, attr)
  end
end

-- TFLite's SAME: as many outputs as strides fit, the odd pixel of padding at the end.
local function same_padding(size, kernel, stride, dilation)
  local out = math.ceil(size / stride)
  local total = math.max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
  return math.floor(total / 2), total - math.floor(total / 2)
end

local function padding_of(options, shape, kernel)
  if options.padding == "valid" then return { 0, 0, 0, 0 } end
  local dilation = options.dilation or { 1, 1 }
  local top, bottom = same_padding(shape[2], kernel[1], options.stride[1], dilation[1])
  local left, right = same_padding(shape[3], kernel[2], options.stride[2], dilation[2])
  return { top, bottom, left, right }
end

-- Input 3, where there is one, is one number for each of n channels.
function Import:expect_bias(n)
  local b = self:input(3, true)
  if b and not (#b.shape == 1 and b.shape[1] == n) then self:fail("a bias of [%s], want [%d]", table.concat(b.shape, ","), n) end
end

-- Picture that a window of `kernel` makes of `shape`: [B,H,W,channels].
function Import:expect_windows(shape, kernel, channels)
  local o, pad = self.op.options, padding_of(self.op.options, shape, kernel)
  local out = { shape[1], 0, 0, channels }
  for d = 1, 2 do
    local reach = (kernel[d] - 1) * (o.dilation and o.dilation[d] or 1) + 1
    local room = shape[d + 1] + pad[2 * d - 1] + pad[2 * d] - reach
    if room < 0 then self:fail("a window of %d in %d pixels", reach, shape[d + 1]) end
    out[d + 1] = math.floor(room / o.stride[d]) + 1
  end
  self:expect(out)
end

local function conv(self)
  local x, w = self:input(1), self:input(2)
  local shape, ws, o = self:dims(x, 4), self:dims(w, 4), self.op.options
  if ws[4] == 0 or shape[4] % ws[4] ~= 0 or ws[1] % (shape[4] / ws[4]) ~= 0 then
    self:fail("weights [%s] for %d channels", table.concat(ws, ","), shape[4])
  end
  self:expect_windows(shape, { ws[2], ws[3] }, ws[1])
  self:expect_bias(ws[1])
  self:emit("conv2d", { x, w, self:input(3, true) },
    { stride = o.stride, pad = padding_of(o, shape, { ws[2], ws[3] }), dilation = o.dilation, groups = shape[4] / ws[4], act = "none" }, o.activation)
end

local function depthwise(self)
  local x, w = self:input(1), self:input(2)
  local shape, ws, o = self:dims(x, 4), self:dims(w, 4), self.op.options
  if ws[1] ~= 1 or ws[4] ~= shape[4] then
    self:fail("weights [%s] for %d channels: a depth multiplier other than 1 is not supported", table.concat(ws, ","), shape[4])
  end
  self:expect_windows(shape, { ws[2], ws[3] }, ws[4])
  self:expect_bias(ws[4])
  self:emit("depthwise", { x, w, self:input(3, true) },
    { stride = o.stride, pad = padding_of(o, shape, { ws[2], ws[3] }), dilation = o.dilation, act = "none" }, o.activation)
end

local function pool(op)
  return function(self)
    local x, o = self:input(1), self.op.options
    self:expect_windows(self:dims(x, 4), o.kernel, x.shape[4])
    self:emit(op, { x }, { kernel = o.kernel, stride = o.stride, pad = padding_of(o, self:dims(x, 4), o.kernel) }, o.activation)
  end
end

-- NumPy's broadcasting.
function Import:broadcast(a, b)
  local out, n = {}, math.max(#a, #b)
  for d = 1, n do
    local x, y = a[#a - n + d] or 1, b[#b - n + d] or 1
    if x ~= y and x ~= 1 and y ~= 1 then self:fail("[%s] with [%s]", table.concat(a, ","), table.concat(b, ",")) end
    out[d] = x == 1 and y or x
  end
  return out
end

local function binary(op)
  return function(self)
    local a, b = self:input(1), self:input(2)
    self:expect(self:broadcast(a.shape, b.shape))
    self:emit(op, { a, b }, nil, self.op.options.activation)
  end
end

local function unary(op)
  return function(self)
    self:expect(self:input(1).shape)
    self:emit(op, { self:input(1) })
  end
end

-- Axis as TFLite counts it (from 0, negative from the end) -> dim from 1.
function Import:axis(axis, rank)
  local dim = axis < 0 and axis + rank + 1 or axis + 1
  if dim < 1 or dim > rank then self:fail("axis %d of %d", axis, rank) end
  return dim
end

local function reshape(self)
  local from, to = self:input(1).shape, self:output().shape
  if product(from) ~= product(to) then self:fail("[%s] into [%s]", table.concat(from, ","), table.concat(to, ",")) end
  self:emit("reshape", { self:input(1) }, { shape = self:output().shape })
end

local function pad(self)
  local x, pairs_ = self:input(1), self:integers(2)
  if #pairs_ ~= 2 * #x.shape then self:fail("%d paddings for %d dims", #pairs_, #x.shape) end
  local before, after, shape = {}, {}, {}
  for d = 1, #x.shape do
    before[d], after[d] = pairs_[2 * d - 1], pairs_[2 * d]
    if before[d] < 0 or after[d] < 0 then self:fail("negative padding") end
    shape[d] = before[d] + x.shape[d] + after[d]
  end
  self:expect(shape)
  local fill = self.op.name == "PADV2" and self:input(3) or nil
  if fill and not (fill.data and fill.data:numel() == 1) then self:fail("padding with a computed value") end
  self:emit("pad", { x }, { before = before, after = after, value = fill and fill.data:to("f64"):reshape(1):get(1) or 0 })
end

local function bit_set(mask, d)
  return math.floor(mask / 2 ^ (d - 1)) % 2 == 1
end

local function strided_slice(self)
  local x, o = self:input(1), self.op.options
  local first, last, step = self:integers(2), self:integers(3), self:integers(4)
  if o.ellipsis_mask ~= 0 or o.new_axis_mask ~= 0 then self:fail("ellipsis and new axes are not supported") end
  if #first > #x.shape or #last ~= #first or #step ~= #first then self:fail("%d begins, %d ends, %d strides for %d dims", #first, #last, #step, #x.shape) end
  local attr = { first = {}, last = {}, step = {} }
  for d, size in ipairs(x.shape) do
    local a, b, s = first[d] or 0, last[d] or size, step[d] or 1
    if s < 1 then self:fail("stride %d, want at least 1", s) end
    if a < 0 then a = a + size end
    if b < 0 then b = b + size end
    if d > #first or bit_set(o.begin_mask, d) then a = 0 end
    if d > #first or bit_set(o.end_mask, d) then b = size end
    if d <= #first and bit_set(o.shrink_mask, d) then b = a + 1 end
    a, b = math.max(a, 0), math.min(b, size)
    if b <= a then self:fail("an empty slice of dim %d", d) end
    attr.first[d], attr.last[d], attr.step[d] = a + 1, b, s
  end
  local shape = {}
  for d = 1, #x.shape do shape[d] = math.ceil((attr.last[d] - attr.first[d] + 1) / attr.step[d]) end
  if o.shrink_mask == 0 then
    self:expect(shape)
    return self:emit("slice", { x }, attr)
  end
  local out = self:output()
  if product(shape) ~= product(out.shape) then self:fail("[%s] into [%s]", table.concat(shape, ","), table.concat(out.shape, ",")) end
  local kept = self.graph:value(out.name .. "/kept", shape, out.kind)
  self.graph:node("slice", { x }, { kept }, attr)
  self.graph:node("reshape", { kept }, { out }, { shape = out.shape })
end

local importers = {
  CONV_2D = conv,
  DEPTHWISE_CONV_2D = depthwise,
  MAX_POOL_2D = pool "max_pool2d",
  AVERAGE_POOL_2D = pool "avg_pool2d",
  ADD = binary "add", SUB = binary "sub", MUL = binary "mul", DIV = binary "div",
  RELU = unary "relu", RELU6 = unary "relu6", RELU_N1_TO_1 = unary "relu_n1_to_1", LOGISTIC = unary "sigmoid", TANH = unary "tanh",
  HARD_SWISH = unary "hard_swish", DEQUANTIZE = unary "dequantize",
  RESHAPE = reshape, SQUEEZE = reshape, EXPAND_DIMS = reshape,
  PAD = pad, PADV2 = pad, STRIDED_SLICE = strided_slice,
  PRELU = function(self)
    local x, slope = self:input(1), self:input(2)
    self:broadcast(x.shape, slope.shape)
    self:expect(x.shape)
    self:emit("prelu", { x, slope })
  end,
  LEAKY_RELU = function(self)
    self:expect(self:input(1).shape)
    self:emit("leaky_relu", { self:input(1) }, { alpha = self.op.options.alpha })
  end,
  SOFTMAX = function(self)
    if self.op.options.beta ~= 1 then self:fail("beta %g, want 1", self.op.options.beta) end
    self:expect(self:input(1).shape)
    self:emit("softmax", { self:input(1) })
  end,
  FULLY_CONNECTED = function(self)
    local x, w, o = self:input(1), self:input(2), self.op.options
    local ws, out = self:dims(w, 2), self:output()
    local shape, n = x.shape, product(x.shape)
    if not o.keep_dims and not (#shape == 2 and shape[2] == ws[2]) then
      if ws[2] == 0 or n % ws[2] ~= 0 then self:fail("[%s] for weights [%s]", table.concat(shape, ","), table.concat(ws, ",")) end
      local flat = self.graph:value(x.name .. "/flat", { n / ws[2], ws[2] }, x.kind)
      self.graph:node("reshape", { x }, { flat }, { shape = flat.shape })
      x = flat
    end
    if x.shape[#x.shape] ~= ws[2] then self:fail("[%s] for weights [%s]", table.concat(x.shape, ","), table.concat(ws, ",")) end
    local made = { unpack(x.shape) }
    made[#made] = ws[1]
    if product(made) ~= product(out.shape) or #made ~= #out.shape then self:expect(made) end
    self:expect_bias(ws[1])
    self:emit("linear", { x, w, self:input(3, true) }, { act = "none" }, o.activation)
  end,
  CONCATENATION = function(self)
    local inputs = {}
    for i = 1, #self.op.inputs do inputs[i] = self:input(i) end
    if #inputs == 0 then self:fail("nothing to concatenate") end
    local dim = self:axis(self.op.options.axis, #inputs[1].shape)
    local shape = { unpack(inputs[1].shape) }
    shape[dim] = 0
    for _, v in ipairs(inputs) do
      for d = 1, #shape do
        if #v.shape ~= #shape or d ~= dim and v.shape[d] ~= shape[d] then
          self:fail("[%s] beside [%s]", table.concat(v.shape, ","), table.concat(inputs[1].shape, ","))
        end
      end
      shape[dim] = shape[dim] + v.shape[dim]
    end
    self:expect(shape)
    self:emit("concat", inputs, { dim = dim }, self.op.options.activation)
  end,
  RESIZE_BILINEAR = function(self)
    local x, size, o = self:input(1), self:integers(2), self.op.options
    self:dims(x, 4)
    if #size ~= 2 or size[1] < 1 or size[2] < 1 then self:fail("a size of [%s]", table.concat(size, ",")) end
    self:expect { x.shape[1], size[1], size[2], x.shape[4] }
    self:emit("resize_bilinear", { x }, { size = size, align_corners = o.align_corners, half_pixel = o.half_pixel })
  end,
  DEPTH_TO_SPACE = function(self)
    local x, block = self:input(1), self.op.options.block
    if self:dims(x, 4)[4] % (block * block) ~= 0 then self:fail("%d channels in blocks of %d", x.shape[4], block) end
    self:expect { x.shape[1], x.shape[2] * block, x.shape[3] * block, x.shape[4] / (block * block) }
    self:emit("depth_to_space", { x }, { block = block })
  end,
  MEAN = function(self)
    local x, dims, gone, shape = self:input(1), {}, {}, {}
    for i, axis in ipairs(self:integers(2)) do
      dims[i] = self:axis(axis, #x.shape)
      if gone[dims[i]] then self:fail("axis %d twice", axis) end
      gone[dims[i]] = true
    end
    for d, size in ipairs(x.shape) do
      if not gone[d] then shape[#shape + 1] = size elseif self.op.options.keep_dims then shape[#shape + 1] = 1 end
    end
    self:expect(shape)
    self:emit("mean", { x }, { dims = dims, keep = self.op.options.keep_dims })
  end,
  TRANSPOSE = function(self)
    local x, order, seen, shape = self:input(1), self:integers(2), {}, {}
    for i, axis in ipairs(order) do
      order[i] = self:axis(axis, #x.shape)
      shape[i] = x.shape[order[i]]
      if seen[order[i]] then self:fail("axis %d twice", axis) end
      seen[order[i]] = true
    end
    if #order ~= #x.shape then self:fail("%d axes for %d dims", #order, #x.shape) end
    self:expect(shape)
    self:emit("transpose", { x }, { order = order })
  end,
  DENSIFY = function(self)
    local index = self.op.inputs[1]
    local sparse = index and index >= 0 and self.model.tensors[index + 1]
    if not sparse or not sparse.sparsity then self:fail("its input is not sparse") end
    self:expect(sparse.shape)
    self:emit("densify", { self:input(1) }, { sparsity = sparse.sparsity, shape = sparse.shape, name = sparse.name })
  end,
}

---Turns a parsed model into the IR.
---@param model TfliteModel
---@return IrGraph? graph
---@return string? error one line: an operator that is not supported, by number and name
function M.import(model)
  local ok, graph = pcall(function()
    local g = ir.new(model.name)
    local values = {}
    for i, t in ipairs(model.tensors) do
      if t.quantization and t.kind ~= "f32" and t.kind ~= "f16" and t.kind ~= "i32" then
        fail(model.name, "tensor '%s' is quantised %s: int8 networks are not supported", t.name, t.kind)
      end
      values[i] = g:value(t.name, t.shape, t.kind, t.data)
    end
    for number, op in ipairs(model.operators) do
      local importer = importers[op.name]
      local self = setmetatable({ graph = g, values = values, op = op, number = number - 1, model = model }, Import)
      if not importer then self:fail("this operator is not supported") end
      importer(self)
    end
    for i, index in ipairs(model.inputs) do g.inputs[i] = values[index + 1] end
    for i, index in ipairs(model.outputs) do g.outputs[i] = { name = values[index + 1].name, value = values[index + 1] } end
    if #g.inputs == 0 or #g.outputs == 0 then fail(model.name, "%d inputs, %d outputs", #g.inputs, #g.outputs) end
    local fine, err = g:check()
    if not fine then error(err, 0) end
    return g
  end)
  if not ok then return nil, reader.one_line(graph) end
  return graph
end

return M
