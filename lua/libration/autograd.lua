-- autograd.lua: a tape of the ops run while it is open, and the gradient of each op. Gradients of gradients are not offered.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"
local unary = require "libration.autograd.functions"

local raise = core.raise
local raw, rows = ops.raw, ops.rows
local FLAG_GRAD = tensor.FLAG_GRAD

local autograd = {}

-- backward[op](row, need, dy, ...) -> gradient by input position. row: inputs, outputs, attr. need[i]: is the gradient of input i wanted.
local backward = {}
-- uses[op]: inputs and outputs whose values the gradient reads; they must not have been written since.
local uses = {}
autograd.backward = backward

---------------------------------------------------------------------------------------------------- helpers

-- Sums g over the dims that broadcasting added or stretched, back to the shape of like.
local function unbroadcast(g, like)
  local extra, dims = g.ndim - like.ndim, {}
  for i = 1, extra do dims[i] = i end
  for i = 0, like.ndim - 1 do
    if like.shape_[i] == 1 and g.shape_[i + extra] ~= 1 then dims[#dims + 1] = i + extra + 1 end
  end
  if #dims == 0 then return g end
  return ops.sum(g, dims, false):reshape(like.shape)
end

local function attr_copy(op, from, fields)
  local attr = rows[op].attr()
  for _, name in ipairs(fields) do attr[name] = from[name] end
  return attr
end

local function flag(mask, like) return ops.to(mask, like.dtype) end

---------------------------------------------------------------------------------------------------- elementwise

function backward.add(row, _, dy) return unbroadcast(dy, row.inputs[1]), unbroadcast(dy, row.inputs[2]) end
function backward.sub(row, need, dy) return unbroadcast(dy, row.inputs[1]), need[2] and unbroadcast(ops.neg(dy), row.inputs[2]) end

uses.mul = "a b"
function backward.mul(row, need, dy)
  local a, b = row.inputs[1], row.inputs[2]
  return need[1] and unbroadcast(dy * b, a), need[2] and unbroadcast(dy * a, b)
end

uses.div = "b y"
function backward.div(row, need, dy)
  local a, b = row.inputs[1], row.inputs[2]
  local g = dy / b
  return unbroadcast(g, a), need[2] and unbroadcast(ops.neg(g * row.outputs[1]), b)
end

local function extreme(pick)
  return function(row, need, dy)
    local a, b = row.inputs[1], row.inputs[2]
    local first = flag(pick(a, b), dy)
    return need[1] and unbroadcast(dy * first, a), need[2] and unbroadcast(dy * (1 - first), b)
  end
end
uses.maximum, uses.minimum = "a b", "a b"
backward.maximum, backward.minimum = extreme(ops.gt), extreme(ops.lt)

uses.pow = "a b y"
function backward.pow(row, need, dy)
  local a, b, y = row.inputs[1], row.inputs[2], row.outputs[1]
  return need[1] and unbroadcast(dy * b * ops.pow(a, b - 1), a), need[2] and unbroadcast(dy * y * ops.log(a), b)
end

uses.where = "condition"
function backward.where(row, need, dy)
  local zero = tensor.zeros({}, dy.dtype, dy.device)
  local condition, a, b = row.inputs[1], row.inputs[2], row.inputs[3]
  return nil, need[2] and unbroadcast(ops.where(condition, dy, zero), a), need[3] and unbroadcast(ops.where(condition, zero, dy), b)
end

function backward.neg(_, _, dy) return ops.neg(dy) end
function backward.affine(row, _, dy) return ops.affine(dy, row.attr.scale, 0) end
function backward.copy(_, _, dy) return dy end
function backward.cast(row, _, dy) return ops.to(dy, row.inputs[1].dtype) end

-- f(x, y, attr): the local slope from input and output.
local slopes = {}
local function slope(name, used, f)
  uses[name], slopes[name] = used, f
  backward[name] = function(row, _, dy) return dy * f(row.inputs[1], row.outputs[1], row.attr) end
end
slope("abs", "x", function(x) return ops.sign(x) end)
slope("exp", "y", function(_, y) return y end)
slope("log", "x", function(x) return ops.reciprocal(x) end)
slope("sqrt", "y", function(_, y) return ops.affine(ops.reciprocal(y), .5, 0) end)
slope("square", "x", function(x) return x * 2 end)
slope("reciprocal", "y", function(_, y) return ops.neg(ops.square(y)) end)
slope("sin", "x", function(x) return ops.cos(x) end)
slope("cos", "x", function(x) return ops.neg(ops.sin(x)) end)
slope("sigmoid", "y", function(_, y) return y * (1 - y) end)
slope("tanh", "y", function(_, y) return 1 - ops.square(y) end)
slope("relu", "y", function(_, y) return flag(y:gt(0), y) end)
slope("silu", "x y", function(x, y)
  local s = ops.sigmoid(x)
  return s + y * (1 - s)
end)
slope("clamp", "x", function(x, _, attr) return flag(ops.ge(x, attr.low), x) * flag(ops.le(x, attr.high), x) end)
function backward.sign(_, _, dy) return ops.affine(dy, 0, 0) end
uses.gelu = "x"
function backward.gelu(row, _, dy) return raw.gelu_backward(dy, row.inputs[1], nil) end
function slopes.gelu(x) return raw.gelu_backward(tensor.ones({}, x.dtype, x.device), x, nil) end

for name, f in pairs(unary) do slopes[name] = f end
slopes.hard_sigmoid = function(x, y) return unary.hard_sigmoid(x, y, {p = 1 / 6}) end -- as the activation of a layer
slope("unary", "x y", function(x, y, attr) return unary[ops.kinds.unary[attr.kind]](x, y, attr) end)

uses.binary = "a b y"
function backward.binary(row, need, dy) -- mod and fmod
  local a, b = row.inputs[1], row.inputs[2]
  return unbroadcast(dy, a), need[2] and unbroadcast(dy * (row.outputs[1] - a) / b, b)
end

uses.prelu = "x slope"
function backward.prelu(row, need, dy)
  local x, s = row.inputs[1], row.inputs[2]
  local up = x:gt(0)
  local zero = tensor.zeros({}, dy.dtype, dy.device)
  return need[1] and ops.where(up, dy, dy * s), need[2] and unbroadcast(ops.where(up, zero, dy * x), s)
end

---------------------------------------------------------------------------------------------------- reductions

-- dy of a reduction, spread over the reduced dims again (a view).
local function spread(g, x, mask, keep)
  if keep == 0 then
    for d = 1, x.ndim do
      if bit.band(bit.rshift(mask, d - 1), 1) == 1 then g = g:unsqueeze(d) end
    end
  end
  return g:expand(x.shape)
end

function backward.sum(row, _, dy) return spread(dy, row.inputs[1], row.attr.dims, row.attr.keep) end
function backward.mean(row, _, dy)
  local x = row.inputs[1]
  return spread(ops.affine(dy, row.outputs[1]:numel() / x:numel(), 0), x, row.attr.dims, row.attr.keep)
end
local function reduced_extreme(row, _, dy)
  local x, attr = row.inputs[1], row.attr
  local hit = flag(ops.eq(x, spread(row.outputs[1], x, attr.dims, attr.keep)), dy)
  local dims = {}
  for d = 1, x.ndim do
    if bit.band(bit.rshift(attr.dims, d - 1), 1) == 1 then dims[#dims + 1] = d end
  end
  return spread(dy, x, attr.dims, attr.keep) * hit / ops.sum(hit, dims, true)
end
uses.max, uses.min = "x y", "x y"
backward.max, backward.min = reduced_extreme, reduced_extreme

-- The product of the others; where one of them is 0, division by x does not give it.
uses.prod = "x"
function backward.prod(row, _, dy)
  local x, attr, dims = row.inputs[1], row.attr, {}
  for d = 1, x.ndim do
    if bit.band(bit.rshift(attr.dims, d - 1), 1) == 1 then dims[#dims + 1] = d end
  end
  local zero = ops.eq(x, 0)
  local filled, zeros = ops.where(zero, 1, x), ops.sum(flag(zero, x), dims, true)
  local others = ops.prod(filled, dims, true) / filled
  return spread(dy, x, attr.dims, attr.keep) * others * (flag(zeros:eq(0), x) + flag(zeros:eq(1), x) * flag(zero, x))
end

function backward.cumsum(row, _, dy)
  local attr = attr_copy("cumsum", row.attr, {"dim", "exclusive"})
  attr.reverse = 1 - row.attr.reverse
  return raw.cumsum(dy, attr)
end
uses.cumprod = "x y"
function backward.cumprod(row, need, dy) return backward.cumsum(row, need, dy * row.outputs[1]) / row.inputs[1] end

---------------------------------------------------------------------------------------------------- products and layers

local function flat(t) -- [..,n] -> [rows,n]; -1 could not tell the rows of an empty tensor
  local count, n = 1, t.ndim - 1
  for i = 0, n - 1 do count = count * t.shape_[i] end
  return t:reshape(count, t.shape_[n])
end

uses.matmul = "a b"
function backward.matmul(row, need, dy)
  local a, b, ta, tb = row.inputs[1], row.inputs[2], row.attr.ta ~= 0, row.attr.tb ~= 0
  local da, db
  if need[1] then
    if ta then da = ops.matmul(b, dy, tb, true) else da = ops.matmul(dy, b, false, not tb) end
  end
  if need[2] then
    if b.ndim == 2 and a.ndim > 2 then a, dy = flat(a), flat(dy) end
    if tb then db = ops.matmul(dy, a, true, ta) else db = ops.matmul(a, dy, not ta, false) end
  end
  return da, db
end

-- dy before the activation that was fused into an op: from its result y, or (but for prelu, see convolution) from what went into it, made again by plain().
local function before_act(dy, y, act, plain)
  if act == 1 then return dy * flag(y:gt(0), dy) end
  if act == 2 then return dy * flag(y:gt(0), dy) * flag(y:lt(6), dy) end
  if act <= 3 then return dy end
  return dy * slopes[ops.act_names[act + 1]](plain(), y)
end

-- The result of an op without its activation.
local function unactivated(op, row)
  local attr, inputs = rows[op].attr(row.attr), row.inputs
  attr.act = 0
  if op == "linear" then return raw.linear(inputs[1], inputs[2], inputs[3], attr) end
  return raw[op](inputs[1], inputs[2], inputs[3], inputs[4], nil, attr)
end

uses.linear = "x w b y"
function backward.linear(row, need, dy)
  local x, w = row.inputs[1], row.inputs[2]
  local g = flat(before_act(dy, row.outputs[1], row.attr.act, function() return unactivated("linear", row) end))
  return need[1] and ops.matmul(g, w):reshape(x.shape), need[2] and ops.matmul(g, flat(x), true, false), need[3] and ops.sum(g, 1)
end

local convolution_fields = {"stride", "pad", "dilation"}
local function convolution(op, fields)
  uses[op] = "x w b residual slope y"
  return function(row, need, dy)
    local x, w, attr = row.inputs[1], row.inputs[2], row.attr
    local g, dx, dw, dslope = before_act(dy, row.outputs[1], attr.act, function() return unactivated(op, row) end), nil, nil, nil
    if attr.act == 3 then
      local s, u = row.inputs[5], unactivated(op, row)
      local up = u:gt(0)
      g = ops.where(up, dy, dy * s:reshape(s:numel()))
      if need[5] then dslope = ops.sum(ops.where(up, tensor.zeros({}, dy.dtype, dy.device), dy * u), {1, 2, 3}):reshape(s.shape) end
    end
    if need[1] then
      local a = attr_copy(op .. "_backward_input", attr, fields)
      a.size[0], a.size[1] = x.shape_[1], x.shape_[2]
      dx = raw[op .. "_backward_input"](g, w, a)
    end
    if need[2] then
      local a = attr_copy(op .. "_backward_weight", attr, fields)
      local first = op == "conv2d" and 1 or 0
      a.kernel[0], a.kernel[1] = w.shape_[first], w.shape_[first + 1]
      dw = raw[op .. "_backward_weight"](g, x, a)
    end
    return dx, dw, need[3] and ops.sum(g, {1, 2, 3}):reshape(row.inputs[3].shape), need[4] and g, dslope
  end
end
backward.conv2d = convolution("conv2d", {"stride", "pad", "dilation", "groups"})
backward.depthwise = convolution("depthwise", convolution_fields)

uses.conv2d_backward_input = "dy w" -- a transposed convolution
function backward.conv2d_backward_input(row, need, g)
  local x, w, attr = row.inputs[1], row.inputs[2], row.attr
  local fields, dx, dw = {"stride", "pad", "dilation", "groups"}, nil, nil
  if need[1] then dx = raw.conv2d(g, w, nil, nil, nil, attr_copy("conv2d", attr, fields)) end
  if need[2] then
    local a = attr_copy("conv2d_backward_weight", attr, fields)
    a.kernel[0], a.kernel[1] = w.shape_[1], w.shape_[2]
    dw = raw.conv2d_backward_weight(x, g, a)
  end
  return dx, dw
end

for _, name in ipairs {"max_pool2d", "avg_pool2d"} do
  uses[name] = "x"
  backward[name] = function(row, _, dy)
    return raw[name .. "_backward"](dy, row.inputs[1], attr_copy(name .. "_backward", row.attr, {"kernel", "stride", "pad"}))
  end
end

function backward.resize_bilinear(row, _, dy)
  local attr, x = attr_copy("resize_bilinear_backward", row.attr, {"align_corners", "half_pixel"}), row.inputs[1]
  attr.size[0], attr.size[1] = x.shape_[1], x.shape_[2]
  return raw.resize_bilinear_backward(dy, attr)
end

function backward.depth_to_space(row, _, dy)
  local x, r = row.inputs[1], row.attr.block
  local B, H, W, N = x.shape_[0], x.shape_[1], x.shape_[2], x.shape_[3]
  return dy:reshape(B, H, r, W, r * N / (r * r)):permute(1, 2, 4, 3, 5):reshape(B, H, W, N)
end

function backward.pad(row, _, dy)
  local x = row.inputs[1]
  for d = 1, x.ndim do dy = dy:narrow(d, row.attr.before[d - 1] + 1, x.shape_[d - 1]) end
  return dy
end

function backward.concat(row, _, dy)
  local d, at, out = row.attr.dim, 1, {}
  for i = 1, 8 do
    local t = row.inputs[i]
    if t then
      out[i] = dy:narrow(d + 1, at, t.shape_[d])
      at = at + t.shape_[d]
    end
  end
  return unpack(out, 1, 8)
end

uses.gather = "index"
function backward.gather(row, _, dy)
  local attr = attr_copy("gather_backward", row.attr, {"dim"})
  attr.rows = row.inputs[1].shape_[attr.dim]
  return raw.gather_backward(dy, row.inputs[2], attr)
end

-- What was read at the places of index, put back and added up.
local function put_back(dy, x, index, dim)
  local attr = rows.scatter_elements.attr()
  attr.dim, attr.kind = dim, 1
  return raw.scatter_elements(tensor.zeros(x.shape, dy.dtype, dy.device), index, dy, attr)
end
uses.gather_elements, uses.topk = "index", "index"
function backward.gather_elements(row, _, dy) return put_back(dy, row.inputs[1], row.inputs[2], row.attr.dim) end
function backward.topk(row, _, dy) return put_back(dy, row.inputs[1], row.outputs[2], row.attr.dim) end

uses.scatter_elements = "index"
function backward.scatter_elements(row, need, dy)
  local attr, index = row.attr, row.inputs[2]
  if attr.kind > 1 then raise "gradient: scatter_elements has none for mul, min and max" end
  local dx = need[1] and (attr.kind == 1 and dy or raw.scatter_elements(dy, index, tensor.zeros(index.shape, dy.dtype, dy.device), attr))
  return dx, nil, need[3] and raw.gather_elements(dy, index, attr_copy("gather_elements", attr, {"dim"}))
end

uses.softmax, uses.log_softmax = "y", "y"
function backward.softmax(row, _, dy) return raw.softmax_backward(dy, row.outputs[1], nil) end
function backward.log_softmax(row, _, dy) return raw.log_softmax_backward(dy, row.outputs[1], nil) end

uses.layer_norm = "x weight mean rstd"
function backward.layer_norm(row, _, dy)
  local dx, dw, db = raw.layer_norm_backward(dy, row.inputs[1], row.outputs[2], row.outputs[3], row.inputs[2], nil)
  return dx, dw, db
end

uses.batch_norm = "x weight mean rstd"
function backward.batch_norm(row, _, dy)
  local attr = attr_copy("batch_norm_backward", row.attr, {"training"})
  local dx, dw, db = raw.batch_norm_backward(dy, row.inputs[1], row.outputs[2], row.outputs[3], row.inputs[2], attr)
  return dx, dw, db
end

uses.lstm_forward = "x w r h0 c0 y gates cells"
function backward.lstm_forward(row, need, dy, dhn, dcn)
  local i, o = row.inputs, row.outputs
  if row.attr.save == 0 then raise "lstm: no gradient: it ran with save = false" end
  local attr = rows.lstm_backward.attr()
  attr.need_dx = need[1] and 1 or 0
  local dx, dw, dr, db, dh0, dc0 = raw.lstm_backward(i[1], i[2], i[3], i[5], i[6], o[1], o[4], o[5], dy, dhn, dcn, attr)
  return need[1] and dx, dw, dr, db, need[5] and dh0, need[6] and dc0
end

---------------------------------------------------------------------------------------------------- losses, dropout

uses.loss = "x target mask weight"
function backward.loss(row, need, dy)
  local attr = attr_copy("loss_backward", row.attr, {"kind", "delta"})
  local g = raw.loss_backward(dy, row.inputs[1], row.inputs[2], row.inputs[3], row.outputs[2], attr)
  return g, need[2] and ops.neg(g)
end

uses.cross_entropy = "target p"
function backward.cross_entropy(row, _, dy) return raw.cross_entropy_backward(dy, row.outputs[2], row.inputs[2], nil) end

uses.dropout = "mask"
function backward.dropout(row, _, dy) return dy * flag(row.outputs[2], dy) * (1 / (1 - row.attr.p)) end

---------------------------------------------------------------------------------------------------- views

function backward.reshape(row, _, dy) return dy:reshape(row.inputs[1].shape) end
function backward.expand(row, _, dy) return unbroadcast(dy, row.inputs[1]) end
function backward.permute(row, _, dy)
  local inverse = {}
  for i, k in ipairs(row.attr) do inverse[k + 1] = i end
  return dy:permute(inverse)
end
function backward.slice(row, _, dy)
  local dx, d, start, count, step = tensor.zeros(row.inputs[1].shape, dy.dtype, dy.device), unpack(row.attr)
  if step < 0 then start, step, dy = start + (count - 1) * step, -step, dy:flip(d) end
  raw.copy_into(dy, dx:slice(d, start, count, step), nil)
  return dx
end
function backward.flip(row, _, dy) return dy:flip(row.attr[1] + 1) end
function backward.narrow(row, _, dy)
  local x, before, after = row.inputs[1], {}, {}
  for d = 1, x.ndim do before[d], after[d] = 0, 0 end
  local k, start = row.attr[1], row.attr[2]
  before[k + 1] = start
  after[k + 1] = x.shape_[k] - start - dy.shape_[k]
  return ops.pad(dy, before, after)
end

function backward.unfold(row, _, dy)
  local x, window, stride = row.inputs[1], row.attr[1], row.attr[2]
  local n, attr = dy.shape_[0], rows.gather_backward.attr()
  local starts = ops.affine(tensor.arange(n, "i32", dy.device), stride, 0):unsqueeze(2)
  attr.rows = x.shape_[0]
  return raw.gather_backward(dy, starts + tensor.arange(window, "i32", dy.device), attr)
end

---------------------------------------------------------------------------------------------------- the tape

local Tape = {}
Tape.__index = Tape
local open -- the tape that ops are pushed on

local function names_of(op)
  local row = rows[op]
  if not row then return nil end
  if not row.positions then
    row.positions = {}
    for i, name in ipairs(row.inputs) do row.positions[name:gsub("%?", "")] = {"inputs", i} end
    for i, name in ipairs(row.outputs) do row.positions[name] = {"outputs", i} end
  end
  return row.positions
end

local function tracked(tape, t)
  if t == nil then return false end
  if rawequal(tape.nodes[t.node], t) then return true end
  if bit.band(t.flags, FLAG_GRAD) ~= 0 then
    local n = #tape.nodes + 1
    tape.nodes[n] = t
    t.node = n
    return true
  end
  return false
end

local function push(op, inputs, outputs, attr)
  local tape, need, any = open, {}, false
  for i = 1, rows[op] and #rows[op].inputs or #inputs do
    need[i] = tracked(tape, inputs[i])
    any = any or need[i]
  end
  if not any then return end
  local floating = false
  for i = 1, #outputs do floating = floating or outputs[i].dtype_ <= 3 end
  if not floating then return end -- comparisons, indices: no gradient flows through them
  local versions = {}
  if uses[op] then
    local positions = names_of(op)
    for name in uses[op]:gmatch "%S+" do
      local at = positions[name]
      local t = (at[1] == "inputs" and inputs or outputs)[at[2]]
      if t then versions[#versions + 1] = {t, t.storage.version, name} end
    end
  end
  for i = 1, #outputs do
    if outputs[i].dtype_ <= 3 then
      local n = #tape.nodes + 1
      tape.nodes[n] = outputs[i]
      outputs[i].node = n
    end
  end
  tape.rows[#tape.rows + 1] = {op = op, inputs = inputs, outputs = outputs, attr = attr, need = need, versions = versions}
end

--- Marks tensors as leaves whose gradients are wanted; returns the first.
---@param ... Tensor
function autograd.requires_grad(...)
  for i = 1, select("#", ...) do
    local t = select(i, ...)
    if t.dtype_ > 1 then raise("requires_grad: " .. tensor.describe(t) .. ", want f32 or f64") end
    t.flags = bit.bor(t.flags, FLAG_GRAD)
  end
  return ...
end

--- Runs fn() without pushing ops on the open tape.
function autograd.no_grad(fn, ...)
  local saved, tape = tensor.tape_push, open
  tensor.tape_push = nil
  local function finish(ok, ...)
    if open == tape then tensor.tape_push = saved end -- fn may have closed the tape, or opened one
    if not ok then error((...), 0) end
    return ...
  end
  return finish(pcall(fn, ...))
end

--- Opens a tape: ops on leaves (`requires_grad`) and what follows from them are kept until `gradient` or `close`.
--- An error that leaves a `scope` or a recorded function closes the tape opened there; elsewhere `close_tape` does.
---@return table tape
function autograd.tape()
  if open then raise "tape: another tape is open; call its gradient() or close() first, or close_tape() when an error left it open" end
  open = setmetatable({rows = {}, nodes = {}}, Tape)
  tensor.tape_push = push
  return open
end

--- Closes the tape without gradients and forgets what it kept.
function Tape:close()
  if open == self then
    open = nil
    tensor.tape_push = nil
  end
  self.rows, self.nodes = nil, nil
end

--- Closes the tape that is open, if one is (after an error between `tape` and `gradient`).
function autograd.close_tape()
  if open then open:close() end
end

tensor.tape_state = function() return open end
tensor.tape_restore = function(state)
  if open ~= state then
    autograd.close_tape()
    if state and state.rows then open, tensor.tape_push = state, push end
  end
end

--- Gradients of a one-element tensor with respect to the leaves; closes the tape, which gives gradients once.
---@param y Tensor f32 or f64, one element
---@param leaves Tensor[]
---@param seed Tensor|nil gradient of y (default 1); a loss scale goes here
---@return Tensor[] gradients in the order of leaves; zeros where y does not depend on one
function Tape:gradient(y, leaves, seed)
  local rows_kept, nodes = self.rows, self.nodes
  if not rows_kept then raise "gradient: this tape is closed; a tape gives gradients once" end
  if open and open ~= self then raise "gradient: another tape is open" end
  self:close()
  if not tensor.is_tensor(y) or y:numel() ~= 1 or y.dtype_ > 1 then
    raise("gradient: of " .. (tensor.is_tensor(y) and tensor.describe(y) or type(y)) .. ", want one element f32 or f64")
  end
  local grads = {}
  local function give(t, g)
    local n = t.node
    if not rawequal(nodes[n], t) then return end
    local have = grads[n]
    grads[n] = have and raw.add(have, g, nil) or g
  end
  if rawequal(nodes[y.node], y) then grads[y.node] = seed or tensor.ones(y.shape, y.dtype, y.device) end
  for r = #rows_kept, 1, -1 do
    local row = rows_kept[r]
    local outs, any = {}, false
    for i = 1, #row.outputs do
      outs[i] = rawequal(nodes[row.outputs[i].node], row.outputs[i]) and grads[row.outputs[i].node] or nil
      any = any or outs[i] ~= nil
    end
    if any then
      local fn = backward[row.op]
      if not fn then raise("gradient: " .. row.op .. " has none") end
      for _, v in ipairs(row.versions) do
        if v[1].storage == nil then raise("gradient: " .. row.op .. "'s " .. v[3] .. " was freed before the backward pass") end
        if v[1].storage.version ~= v[2] then raise("gradient: " .. row.op .. "'s " .. v[3] .. " was written after the forward pass") end
      end
      local results = {fn(row, row.need, outs[1], outs[2], outs[3])}
      for i, wanted in pairs(row.need) do
        if wanted and results[i] then give(row.inputs[i], results[i]) end
      end
      for i = 1, #row.outputs do
        if outs[i] then grads[row.outputs[i].node] = nil end
      end
    end
  end
  -- Each gradient is the caller's own: contiguous, in memory that no other shares (x + y gives both the same, a sum gives a view).
  local out, owned = {}, {}
  if seed then owned[tensor.storage_key(seed)] = true end
  for i, leaf in ipairs(leaves) do
    local g = rawequal(nodes[leaf.node], leaf) and grads[leaf.node] or tensor.zeros(leaf.shape, leaf.dtype, leaf.device)
    if owned[tensor.storage_key(g)] or not g:is_contiguous() then g = ops.clone(g) end
    owned[tensor.storage_key(g)] = true
    out[i] = g
  end
  return out
end

return autograd
