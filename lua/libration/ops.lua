-- ops.lua: the ops as Lua functions and operators on tensors. Each checks little itself: the typed door in C names what is wrong.
local ffi = require "ffi"
local core = require "libration.core"
local tensor = require "libration.tensor"
require "libration.view"

local C, raise = core.C, core.raise
local new, is_tensor, dtype_id, whole = tensor.new, tensor.is_tensor, tensor.dtype_id, tensor.whole

local ops = {}

---------------------------------------------------------------------------------------------------- one Lua function a row of ops.def

local rows = {} -- name -> {inputs = {...}, outputs = {...}, attr = ctype}
ops.rows = rows

local function words(text)
  local out = {}
  for word in text:gmatch "%S+" do out[#out + 1] = word end
  return out
end

local function refuse(op, what, value)
  raise(("%s: %s is a %s, want a tensor"):format(op, (what:gsub("%?", "")), type(value)))
end

-- Lines that refuse what is no tensor, before the FFI does it in its own words; nil goes through, the C side names it.
local function type_checks(name, variables, titles)
  local lines = {}
  for i, v in ipairs(variables) do
    lines[i] = ("if %s ~= nil and not is_tensor(%s) then refuse(%q, %q, %s) end"):format(v, v, name, titles[i], v)
  end
  return table.concat(lines, "\n      ")
end

-- The door of a row as Lua: raw.conv2d(x, w, b, residual, slope, attr) -> y. Written as text so that every op has its own straight trace.
local function door(name, inputs, outputs)
  local ins, outs, makes = {}, {}, {}
  for i = 1, #inputs do ins[i] = "i" .. i end
  makes[1] = type_checks(name, ins, inputs)
  for i = 1, #outputs do
    outs[i] = "o" .. i
    makes[i + 1] = ("local o%d = new()"):format(i)
  end
  local arguments = table.concat(ins, ", ") .. (#ins > 0 and ", " or "")
  local results = table.concat(outs, ", ")
  local text = ([[
    local new, check, tensor, fn, collect, is_tensor, refuse = ...
    return function(%sattr)
      %s
      local rc = fn(%s%s, attr)
      if rc ~= 0 then
        if rc == -4 then
          collect()
          rc = fn(%s%s, attr)
        end
        check(rc)
      end
      local push = tensor.tape_push
      if push then push(%q, {%s}, {%s}, attr) end
      return %s
    end]]):format(arguments, table.concat(makes, "\n      "), arguments, results, arguments, results, name, table.concat(ins, ", "), results, results)
  return assert(loadstring(text, "=op " .. name))(new, core.check, tensor, C["lbr_" .. name], collectgarbage, is_tensor, refuse)
end

-- In place: the outputs are given after the inputs, nothing is pushed on the tape. Out of memory comes before anything is written.
local function door_in_place(name, inputs, outputs)
  local arguments, titles = {}, {}
  for i = 1, #inputs do arguments[i], titles[i] = "i" .. i, inputs[i] end
  for i = 1, #outputs do arguments[#inputs + i], titles[#inputs + i] = "o" .. i, outputs[i] end
  local list = table.concat(arguments, ", ")
  local text = ([[
    local check, fn, collect, is_tensor, refuse = ...
    return function(%s, attr)
      %s
      local rc = fn(%s, attr)
      if rc == -4 then
        collect()
        rc = fn(%s, attr)
      end
      return check(rc)
    end]]):format(list, type_checks(name, arguments, titles), list, list)
  return assert(loadstring(text, "=op " .. name))(core.check, C["lbr_" .. name], collectgarbage, is_tensor, refuse)
end

local in_place = {copy_into = true, fill_into = true, add_into = true, optim_begin = true, sgd = true, adam = true, square_sum_into = true, tally = true,
  follow_points = true}
local raw = {}
ops.raw = raw

for i = 0, 1e6 do
  local info = C.lbr_op_info(i)
  if info == nil then break end
  local name = ffi.string(info.name)
  local row = {inputs = words(ffi.string(info.inputs)), outputs = words(ffi.string(info.outputs)), attr = ffi.typeof("lbr_" .. name .. "_attr"),
    attributes = ffi.string(info.attributes)}
  rows[name] = row
  raw[name] = (in_place[name] and door_in_place or door)(name, row.inputs, row.outputs)
end

local attr_of = setmetatable({}, {__index = function(self, name)
  self[name] = rows[name].attr
  return rows[name].attr
end})

---------------------------------------------------------------------------------------------------- elementwise

local affine_t = attr_of.affine
local function affine(x, scale, shift)
  if type(scale) ~= "number" or type(shift) ~= "number" then raise("affine: scale " .. tostring(scale) .. ", shift " .. tostring(shift) .. ", want numbers") end
  local attr = affine_t()
  attr.scale, attr.shift = scale, shift
  return raw.affine(x, attr)
end

--- x * scale + shift, elementwise.
---@param x Tensor
---@param scale number
---@param shift number
---@return Tensor
ops.affine = affine

--- x * scale + shift as u8, in one pass: rounded to nearest even, saturated, NaN is 0. On the CPU.
---@param x Tensor f32
---@param scale number
---@param shift number
---@return Tensor u8 of x's shape
function ops.to_bytes(x, scale, shift)
  if type(scale) ~= "number" or type(shift) ~= "number" then raise("to_bytes: scale " .. tostring(scale) .. ", shift " .. tostring(shift) .. ", want numbers") end
  local attr = attr_of.to_bytes()
  attr.scale, attr.shift = scale, shift
  return raw.to_bytes(x, attr)
end

local function as_tensor(value, like, name)
  if is_tensor(value) then return value end
  if type(value) == "number" and is_tensor(like) then return tensor.full({}, value, like.dtype, like.device) end
  raise(("%s: operands are a %s and a %s, want tensors, one of them may be a number"):format(name, type(value), is_tensor(like) and "tensor" or type(like)))
end

local function binary(name)
  local fn = raw[name]
  return function(a, b)
    if not is_tensor(a) then a = as_tensor(a, b, name) end
    if not is_tensor(b) then b = as_tensor(b, a, name) end
    return fn(a, b, nil)
  end
end

--- a + b with broadcasting; one operand may be a number.
function ops.add(a, b)
  if type(b) == "number" and is_tensor(a) then return affine(a, 1, b) end
  if type(a) == "number" and is_tensor(b) then return affine(b, 1, a) end
  return raw.add(as_tensor(a, b, "add"), as_tensor(b, a, "add"), nil)
end

--- a - b with broadcasting; one operand may be a number.
function ops.sub(a, b)
  if type(b) == "number" and is_tensor(a) then return affine(a, 1, -b) end
  if type(a) == "number" and is_tensor(b) then return affine(b, -1, a) end
  return raw.sub(as_tensor(a, b, "sub"), as_tensor(b, a, "sub"), nil)
end

--- a * b with broadcasting; one operand may be a number.
function ops.mul(a, b)
  if type(b) == "number" and is_tensor(a) then return affine(a, b, 0) end
  if type(a) == "number" and is_tensor(b) then return affine(b, a, 0) end
  return raw.mul(as_tensor(a, b, "mul"), as_tensor(b, a, "mul"), nil)
end

--- a / b with broadcasting; one operand may be a number. i32: towards zero, x / 0 = 0.
ops.div = binary "div"
--- The larger of a and b; NaN survives.
ops.maximum = binary "maximum"
--- The smaller of a and b; NaN survives.
ops.minimum = binary "minimum"
--- a to the power of b.
ops.pow = binary "pow"
--- 1 where a == b, else 0 (u8).
ops.eq = binary "eq"
--- 1 where a ~= b, else 0 (u8).
ops.ne = binary "ne"
--- 1 where a < b, else 0 (u8).
ops.lt = binary "lt"
--- 1 where a <= b, else 0 (u8).
ops.le = binary "le"
--- 1 where a > b, else 0 (u8).
function ops.gt(a, b) return ops.lt(b, a) end
--- 1 where a >= b, else 0 (u8).
function ops.ge(a, b) return ops.le(b, a) end
--- x where x > 0, else slope * x; slope broadcasts.
ops.prelu = binary "prelu"

--- a where condition (u8) is not 0, else b; broadcasting.
---@param condition Tensor u8
---@return Tensor
function ops.where(condition, a, b)
  if not is_tensor(a) then a = as_tensor(a, is_tensor(b) and b or tensor.zeros({}), "where") end
  b = as_tensor(b, a, "where")
  return raw.where(condition, a, b, nil)
end

for _, name in ipairs {"neg", "abs", "sign", "exp", "log", "sqrt", "square", "reciprocal", "sin", "cos", "sigmoid", "tanh", "relu", "gelu", "silu", "isnan"} do
  local fn = raw[name]
  ops[name] = function(x) return fn(x, nil) end
end

--- x limited to [low, high]; NaN survives.
function ops.clamp(x, low, high)
  local attr = attr_of.clamp()
  attr.low, attr.high = low or -math.huge, high or math.huge
  return raw.clamp(x, attr)
end

--- Conversion to another dtype (to u8 and i32 with rounding to nearest even and saturation, NaN becomes 0), or a copy on another device.
---@param dtype string "f32", ..., "i32"; or "cpu", "cuda", "cuda:N"
---@return Tensor
function ops.to(x, dtype)
  if dtype == "cpu" or type(dtype) == "string" and dtype:find "^cuda" then return tensor.move(x, dtype) end
  local id = dtype_id(dtype)
  if x.dtype_ == id then return x end
  local attr = attr_of.cast()
  attr.dtype = id
  return raw.cast(x, attr)
end

--- Contiguous copy.
function ops.clone(x) return raw.copy(x, nil) end

--- Copies x into y (same shape, or x broadcasts; dtypes are converted; x may be on another device). In place, without a gradient.
function ops.copy_(y, x)
  if not is_tensor(y) then refuse("copy_into", "y", y) end
  x = as_tensor(x, y, "copy_into")
  if x.device_ ~= y.device_ then x = tensor.move(x, y.device) end
  raw.copy_into(x, y, nil)
  return y
end

--- Sets every element of y. In place.
function ops.fill_(y, value)
  local attr = attr_of.fill_into()
  attr.value = value
  raw.fill_into(y, attr)
  return y
end

--- y = y + scale * x. In place, without a gradient.
function ops.add_(y, x, scale)
  local attr = attr_of.add_into()
  attr.scale = scale or 1
  raw.add_into(x, y, attr)
  return y
end

--- sums[1] += x * count and sums[2] += count, for a mean that is read later. In place, without a gradient.
---@param sums Tensor f64 [2]
---@param x Tensor one element f32 or f64
---@param count number
---@param finite boolean|nil true: an x that is not finite is left out
---@return Tensor sums
function ops.tally_(sums, x, count, finite)
  local attr = attr_of.tally()
  attr.count, attr.finite = count, finite and 1 or 0
  raw.tally(x, sums, attr)
  return sums
end

---------------------------------------------------------------------------------------------------- reductions

local function dim_index(x, d, name)
  if not is_tensor(x) then refuse(name, "x", x) end
  return tensor.dim_of(x, d, name)
end

local function mask_of(x, dims, name)
  if not is_tensor(x) then refuse(name, "x", x) end
  if dims == nil then return bit.lshift(1, x.ndim) - 1 end
  if type(dims) == "number" then return bit.lshift(1, dim_index(x, dims, name)) end
  local mask = 0
  if type(dims) ~= "table" then raise(name .. ": dims are " .. tostring(dims) .. ", want a dim or a table of dims") end
  for _, d in ipairs(dims) do mask = bit.bor(mask, bit.lshift(1, dim_index(x, d, name))) end
  return mask
end

local function reduction(name)
  local fn, attr_t = raw[name], attr_of[name]
  return function(x, dims, keep)
    local attr = attr_t()
    attr.dims, attr.keep = mask_of(x, dims, name), keep and 1 or 0
    return fn(x, attr)
  end
end

--- Sum over dims (a dim, a table of dims, nil = all), from 1; keep = true keeps them as size 1.
ops.sum = reduction "sum"
--- Mean over dims; see sum.
ops.mean = reduction "mean"
--- Largest element over dims; NaN survives. See sum.
ops.max = reduction "max"
--- Smallest element over dims; NaN survives. See sum.
ops.min = reduction "min"
--- Product over dims; see sum.
ops.prod = reduction "prod"

--- Position (from 0, i32) of the first largest element along dim d; last = true: of the last one.
function ops.argmax(x, d, keep, last)
  local attr = attr_of.argmax()
  attr.dim, attr.keep = dim_index(x, d or -1, "argmax"), keep and 1 or 0
  if last then return ops.affine(raw.argmax(x:flip(attr.dim + 1), attr), -1, x.shape_[attr.dim] - 1) end
  return raw.argmax(x, attr)
end

---------------------------------------------------------------------------------------------------- products and layers

local act_names = {"none", "relu", "relu6", "prelu", "silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh", "gelu", "mish"} -- LBR_ACT_* from 0
local acts = {}
for i, name in ipairs(act_names) do acts[name] = i - 1 end
assert(#act_names == C.LBR_ACTS)
ops.act_names = act_names

local function act_id(act, name)
  local id = acts[act or "none"]
  if not id then raise(name .. ": activation " .. tostring(act) .. ", want one of " .. table.concat(act_names, ", ")) end
  return id
end

-- As the row takes it; ops/products.lua broadcasts.
function ops.matmul(a, b, transpose_a, transpose_b)
  local attr = attr_of.matmul()
  attr.ta, attr.tb = transpose_a and 1 or 0, transpose_b and 1 or 0
  return raw.matmul(a, b, attr)
end

--- x w^T + b.
---@param x Tensor [..,I]
---@param w Tensor [O,I]
---@param b Tensor|nil [O]
---@param act string|nil "none" or another of conv2d's but "prelu"
---@return Tensor [..,O]
function ops.linear(x, w, b, act)
  local attr = attr_of.linear()
  attr.act = act_id(act, "linear")
  if act == "prelu" then raise "linear: activation prelu wants a slope, which linear does not take" end
  return raw.linear(x, w, b, attr)
end

local function pair(value, default, name, what)
  if value == nil then return default, default end
  if type(value) ~= "table" then
    whole(value, name, what)
    return value, value
  end
  return whole(value[1], name, what), whole(value[2], name, what)
end

local function window(attr, options, name)
  attr.stride[0], attr.stride[1] = pair(options.stride, 1, name, "stride")
  local pad = options.pad
  if type(pad) == "table" and #pad == 4 then
    for i = 0, 3 do attr.pad[i] = whole(pad[i + 1], name, "pad") end
  else
    local h, w = pair(pad, 0, name, "pad")
    attr.pad[0], attr.pad[1], attr.pad[2], attr.pad[3] = h, h, w, w
  end
end

local none = {}

--- Convolution. options: stride, dilation (number or {h,w}), pad (number, {h,w} or {top,bottom,left,right}), groups,
--- act ("none", "relu", "relu6", "prelu", "silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh", "gelu", "mish"), residual [B,OH,OW,O] added before act, slope [O] of prelu.
---@param x Tensor [B,H,W,C]
---@param w Tensor [O,KH,KW,C/groups]
---@param b Tensor|nil [O]
---@param options table|nil
---@return Tensor [B,OH,OW,O]
function ops.conv2d(x, w, b, options)
  options = options or none
  local attr = attr_of.conv2d()
  window(attr, options, "conv2d")
  attr.dilation[0], attr.dilation[1] = pair(options.dilation, 1, "conv2d", "dilation")
  attr.groups, attr.act, attr.loose = whole(options.groups or 1, "conv2d", "groups"), act_id(options.act, "conv2d"), options.loose and 1 or 0
  return raw.conv2d(x, w, b, options.residual, options.slope, attr)
end

--- Convolution of 8-bit numbers (v - zero) * scale; w is rounded to signed 8 bits by output channel, sums are exact.
---@param x Tensor u8 [B,H,W,C]
---@param w Tensor f32 [O,KH,KW,C], at most 64 taps
---@param b Tensor|nil f32 [O]
---@param options table {x={scale, zero}, y={scale, zero} of a u8 result or nil: f32, residual= u8 with r={scale, zero}, late=true: added behind the activation;
--- stride, pad, dilation, act as conv2d}
---@return Tensor [B,OH,OW,O]
function ops.conv2d_int8(x, w, b, options)
  local attr = attr_of.conv2d_int8()
  window(attr, options, "conv2d_int8")
  attr.dilation[0], attr.dilation[1] = pair(options.dilation, 1, "conv2d_int8", "dilation")
  attr.act, attr.late = act_id(options.act, "conv2d_int8"), options.late and 1 or 0
  attr.x_scale, attr.x_zero = options.x[1], options.x[2]
  if options.y then attr.y_scale, attr.y_zero = options.y[1], options.y[2] end
  if options.residual then attr.r_scale, attr.r_zero = options.r[1], options.r[2] end
  return raw.conv2d_int8(x, w, b, options.residual, attr)
end

--- Depthwise convolution; options as conv2d.
---@param x Tensor [B,H,W,C]
---@param w Tensor [KH,KW,C]
---@param b Tensor|nil [C]
---@return Tensor [B,OH,OW,C]
function ops.depthwise(x, w, b, options)
  options = options or none
  local attr = attr_of.depthwise()
  window(attr, options, "depthwise")
  attr.dilation[0], attr.dilation[1] = pair(options.dilation, 1, "depthwise", "dilation")
  attr.act = act_id(options.act, "depthwise")
  return raw.depthwise(x, w, b, options.residual, options.slope, attr)
end

local function pooling(name)
  return function(x, kernel, options)
    options = options or none
    local attr = attr_of[name]()
    attr.kernel[0], attr.kernel[1] = pair(kernel, 2, name, "kernel")
    window(attr, {stride = options.stride or kernel or 2, pad = options.pad}, name)
    return raw[name](x, attr)
  end
end

--- Largest value of each window of [B,H,W,C]: max_pool2d(x, kernel, {stride=kernel, pad=}).
ops.max_pool2d = pooling "max_pool2d"
--- Mean of each window of [B,H,W,C], padding left out: avg_pool2d(x, kernel, {stride=kernel, pad=}).
ops.avg_pool2d = pooling "avg_pool2d"

--- Bilinear resizing of [B,H,W,C]; options align_corners, half_pixel as TFLite names them (default: half_pixel).
---@param size integer[] {H, W}
function ops.resize_bilinear(x, size, options)
  options = options or {half_pixel = true}
  local attr = attr_of.resize_bilinear()
  attr.size[0], attr.size[1] = pair(size or 0, 0, "resize_bilinear", "size")
  attr.align_corners, attr.half_pixel = options.align_corners and 1 or 0, options.half_pixel and 1 or 0
  return raw.resize_bilinear(x, attr)
end

--- [B,H,W,C*r*r] -> [B,H*r,W*r,C].
function ops.depth_to_space(x, block)
  local attr = attr_of.depth_to_space()
  attr.block = whole(block, "depth_to_space", "the block")
  return raw.depth_to_space(x, attr)
end

--- Padding with a value.
---@param before integer[] by dim
---@param after integer[] by dim
---@param value number|nil 0
function ops.pad(x, before, after, value)
  local attr = attr_of.pad()
  if not is_tensor(x) then refuse("pad", "x", x) end
  if #before ~= x.ndim or #after ~= x.ndim then raise("pad: " .. #before .. " and " .. #after .. " sizes for " .. tensor.describe(x)) end
  for i = 1, x.ndim do attr.before[i - 1], attr.after[i - 1] = whole(before[i], "pad", "before"), whole(after[i], "pad", "after") end
  attr.value = value or 0
  return raw.pad(x, attr)
end

--- Concatenation of a list of tensors along dim d.
function ops.concat(list, d)
  if #list == 0 then raise "concat: an empty list" end
  if #list > 8 then
    local head, rest = {}, {}
    for i = 1, 8 do head[i] = list[i] end
    rest[1] = ops.concat(head, d)
    for i = 9, #list do rest[#rest + 1] = list[i] end
    return ops.concat(rest, d)
  end
  local attr = attr_of.concat()
  attr.dim = dim_index(list[1], d or -1, "concat")
  return raw.concat(list[1], list[2], list[3], list[4], list[5], list[6], list[7], list[8], attr)
end

--- Concatenation along a new dim d (default 1).
function ops.stack(list, d)
  local out = {}
  for i = 1, #list do out[i] = list[i]:unsqueeze(d or 1) end
  return ops.concat(out, d or 1)
end

--- Positions of x along dim d (default the first) by index (i32, from 0).
---@param x Tensor [N,...]
---@param index Tensor i32 [...]
---@param d integer|nil 1
---@return Tensor [..., ...] index's dims in the place of d
function ops.gather(x, index, d)
  local attr = attr_of.gather()
  attr.dim = dim_index(x, d or 1, "gather")
  return raw.gather(x, index, attr)
end
--- Rows of a table by index (i32, from 0); gather under the name of its layer.
ops.embedding = ops.gather

--- Windows of sequences as networks take them: each number minus its own mean over the window where asked, then (v - mean) / sd, missing numbers 0.
---@param x Tensor f64 [rows,D], NaN where missing
---@param start Tensor i32 [B], first row of each window, from 0
---@param options table window: T rows; mean, sd: Tensor f64 [D]; groups 1; mask false: after each of the groups of numbers 0 where all of it is seen, else -1;
--- centre 0, 1: minus the window's mean, 2: also divided by its SD + 0.02; certainty: Tensor f64 [groups], what a seen number weighs, default 1
---@return Tensor y f32 [B,T,F], F = D, with masks D + groups
---@return Tensor weight f32 [B,T,F], 0 where missing and of masks
function ops.windows(x, start, options)
  local attr = attr_of.windows()
  attr.window, attr.groups = whole(options.window, "windows", "the window", 1), whole(options.groups or 1, "windows", "groups", 1)
  attr.mask, attr.centre = options.mask and 1 or 0, whole(options.centre or 0, "windows", "centre", 0)
  return raw.windows(x, start, options.mean, options.sd, options.certainty, attr)
end

-- A function over the last dim, over any.
local function over(name)
  local fn = raw[name]
  return function(x, d)
    if d == nil or not is_tensor(x) then return fn(x, nil) end
    local at = dim_index(x, d, name) + 1
    if at == x.ndim then return fn(x, nil) end
    return fn(x:transpose(at, x.ndim), nil):transpose(at, x.ndim)
  end
end

--- exp(x) / sum exp(x) over dim d (default the last).
ops.softmax = over "softmax"
--- log of softmax over dim d (default the last).
ops.log_softmax = over "log_softmax"

--- (x - mean) / sqrt(var + eps) * weight + bias over the last dim.
---@return Tensor y
function ops.layer_norm(x, weight, bias, eps)
  local attr = attr_of.layer_norm()
  attr.eps = eps or 1e-5
  return (raw.layer_norm(x, weight, bias, attr))
end

--- Batch norm over all dims but the last; training = true uses the batch and moves the running statistics (momentum .1).
---@return Tensor y
function ops.batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps)
  local attr = attr_of.batch_norm()
  attr.eps, attr.momentum, attr.training = eps or 1e-5, momentum or .1, training and 1 or 0
  return (raw.batch_norm(x, weight, bias, running_mean, running_var, attr))
end

--- LSTM over all steps; gate order i, f, g, o. save = true keeps what backward needs (set by itself while a tape is open).
--- Mixed precision: x in f16 or bf16 beside f32 weights and c0; y, hn and the gradients of x and h0 are x's type, cn and all other gradients f32.
---@param x Tensor [B,T,F], any strides
---@param w Tensor [4H,F]
---@param r Tensor [4H,H]
---@param b Tensor [4H], the sum of PyTorch's two biases
---@param h0 Tensor|nil [B,H]
---@param c0 Tensor|nil [B,H]
---@return Tensor y [B,T,H], Tensor hn [B,H], Tensor cn [B,H]
function ops.lstm(x, w, r, b, h0, c0, save)
  local attr = attr_of.lstm_forward()
  attr.save = (save or tensor.tape_push) and 1 or 0
  local y, hn, cn = raw.lstm_forward(x, w, r, b, h0, c0, attr)
  return y, hn, cn
end

---------------------------------------------------------------------------------------------------- losses

local function loss(kind)
  return function(x, target, mask, delta)
    local attr = attr_of.loss()
    attr.kind, attr.delta = kind, delta or 1
    return (raw.loss(x, target, mask, attr))
  end
end

--- Mean squared error over the elements whose mask is not 0 (no mask: all). Without dims.
ops.mse = loss(0)
--- Mean absolute error; see mse.
ops.mae = loss(1)
--- Huber loss of delta (default 1): huber(x, target, mask, delta); see mse.
ops.huber = loss(2)

--- Mean cross entropy of logits [N,C] and classes i32 [N] (from 0; < 0 = left out).
function ops.cross_entropy(x, target) return (raw.cross_entropy(x, target, nil)) end

---------------------------------------------------------------------------------------------------- methods and operators

local methods = tensor.methods
for _, name in ipairs {
  "add", "sub", "mul", "div", "maximum", "minimum", "pow", "eq", "ne", "lt", "le", "gt", "ge", "neg", "abs", "sign", "exp", "log",
  "sqrt", "square", "reciprocal", "sin", "cos", "sigmoid", "tanh",
  "relu", "gelu", "silu", "isnan", "clamp", "to", "clone", "copy_", "fill_", "add_", "sum", "mean", "max", "min", "argmax", "matmul", "softmax", "log_softmax", "affine",
} do methods[name] = ops[name] end

local metatype = tensor.metatype
metatype.__add, metatype.__sub, metatype.__mul, metatype.__div = ops.add, ops.sub, ops.mul, ops.div
metatype.__unm, metatype.__pow = ops.neg, ops.pow
ffi.metatype(tensor.type, metatype)

return ops
