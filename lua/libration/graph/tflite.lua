-- TFLite operators into the IR, one importer an operator. Knows what the operators mean; passes and lowering do the rest.
local ir = require "libration.graph.ir"

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

local function conv(self)
  local x, w = self:input(1), self:input(2)
  local shape, ws, o = self:dims(x, 4), self:dims(w, 4), self.op.options
  if ws[4] == 0 or shape[4] % ws[4] ~= 0 then self:fail("weights [%s] for %d channels", table.concat(ws, ","), shape[4]) end
  self:emit("conv2d", { x, w, self:input(3, true) },
    { stride = o.stride, pad = padding_of(o, shape, { ws[2], ws[3] }), dilation = o.dilation, groups = shape[4] / ws[4], act = "none" }, o.activation)
end

local function depthwise(self)
  local x, w = self:input(1), self:input(2)
  local shape, ws, o = self:dims(x, 4), self:dims(w, 4), self.op.options
  if ws[1] ~= 1 or ws[4] ~= shape[4] then
    self:fail("weights [%s] for %d channels: a depth multiplier other than 1 is not supported", table.concat(ws, ","), shape[4])
  end
  self:emit("depthwise", { x, w, self:input(3, true) },
    { stride = o.stride, pad = padding_of(o, shape, { ws[2], ws[3] }), dilation = o.dilation, act = "none" }, o.activation)
end

local function pool(op)
  return function(self)
    local x, o = self:input(1), self.op.options
    self:emit(op, { x }, { kernel = o.kernel, stride = o.stride, pad = padding_of(o, self:dims(x, 4), o.kernel) }, o.activation)
  end
end

local function binary(op)
  return function(self) self:emit(op, { self:input(1), self:input(2) }, nil, self.op.options.activation) end
end

local function unary(op)
  return function(self) self:emit(op, { self:input(1) }) end
end

-- Axis as TFLite counts it (from 0, negative from the end) -> dim from 1.
function Import:axis(axis, rank)
  local dim = axis < 0 and axis + rank + 1 or axis + 1
  if dim < 1 or dim > rank then self:fail("axis %d of %d", axis, rank) end
  return dim
end

local function reshape(self)
  self:emit("reshape", { self:input(1) }, { shape = self:output().shape })
end

local function pad(self)
  local x, pairs_ = self:input(1), self:integers(2)
  if #pairs_ ~= 2 * #x.shape then self:fail("%d paddings for %d dims", #pairs_, #x.shape) end
  local before, after = {}, {}
  for d = 1, #x.shape do
    before[d], after[d] = pairs_[2 * d - 1], pairs_[2 * d]
    if before[d] < 0 or after[d] < 0 then self:fail("negative padding") end
  end
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
  if o.shrink_mask == 0 then return self:emit("slice", { x }, attr) end
  local out = self:output()
  local shape = {}
  for d = 1, #x.shape do shape[d] = math.ceil((attr.last[d] - attr.first[d] + 1) / attr.step[d]) end
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
    self:emit("prelu", { self:input(1), self:input(2) })
  end,
  LEAKY_RELU = function(self)
    self:emit("leaky_relu", { self:input(1) }, { alpha = self.op.options.alpha })
  end,
  SOFTMAX = function(self)
    if self.op.options.beta ~= 1 then self:fail("beta %g, want 1", self.op.options.beta) end
    self:emit("softmax", { self:input(1) })
  end,
  FULLY_CONNECTED = function(self)
    local x, w, o = self:input(1), self:input(2), self.op.options
    local ws, out = self:dims(w, 2), self:output()
    local shape, n = x.shape, 1
    for _, d in ipairs(shape) do n = n * d end
    if not o.keep_dims and not (#shape == 2 and shape[2] == ws[2]) then
      if ws[2] == 0 or n % ws[2] ~= 0 then self:fail("[%s] for weights [%s]", table.concat(shape, ","), table.concat(ws, ",")) end
      local flat = self.graph:value(x.name .. "/flat", { n / ws[2], ws[2] }, x.kind)
      self.graph:node("reshape", { x }, { flat }, { shape = flat.shape })
      x = flat
    end
    if #out.shape ~= #x.shape then self:fail("output [%s] of [%s]", table.concat(out.shape, ","), table.concat(x.shape, ",")) end
    self:emit("linear", { x, w, self:input(3, true) }, { act = "none" }, o.activation)
  end,
  CONCATENATION = function(self)
    local inputs = {}
    for i = 1, #self.op.inputs do inputs[i] = self:input(i) end
    if #inputs == 0 then self:fail("nothing to concatenate") end
    self:emit("concat", inputs, { dim = self:axis(self.op.options.axis, #inputs[1].shape) }, self.op.options.activation)
  end,
  RESIZE_BILINEAR = function(self)
    local x, size, o = self:input(1), self:integers(2), self.op.options
    self:dims(x, 4)
    if #size ~= 2 or size[1] < 1 or size[2] < 1 then self:fail("a size of [%s]", table.concat(size, ",")) end
    self:emit("resize_bilinear", { x }, { size = size, align_corners = o.align_corners, half_pixel = o.half_pixel })
  end,
  DEPTH_TO_SPACE = function(self)
    local x, block = self:input(1), self.op.options.block
    if self:dims(x, 4)[4] % (block * block) ~= 0 then self:fail("%d channels in blocks of %d", x.shape[4], block) end
    self:emit("depth_to_space", { x }, { block = block })
  end,
  MEAN = function(self)
    local x, dims = self:input(1), {}
    for i, axis in ipairs(self:integers(2)) do dims[i] = self:axis(axis, #x.shape) end
    self:emit("mean", { x }, { dims = dims, keep = self.op.options.keep_dims })
  end,
  TRANSPOSE = function(self)
    local x, order, seen = self:input(1), self:integers(2), {}
    for i, axis in ipairs(order) do
      order[i] = self:axis(axis, #x.shape)
      if seen[order[i]] then self:fail("axis %d twice", axis) end
      seen[order[i]] = true
    end
    if #order ~= #x.shape then self:fail("%d axes for %d dims", #order, #x.shape) end
    self:emit("transpose", { x }, { order = order })
  end,
  DENSIFY = function(self)
    local index = self.op.inputs[1]
    local sparse = index and index >= 0 and self.model.tensors[index + 1]
    if not sparse or not sparse.sparsity then self:fail("its input is not sparse") end
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
  if not ok then return nil, tostring(graph) end
  return graph
end

return M
