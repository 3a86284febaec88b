-- functions.lua: functions of one and two numbers by kind (the rows unary and binary of ops.def). The rows with a name of their own are in ops.lua.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"

local C, raise, is_tensor = core.C, core.raise, tensor.is_tensor
local raw, unary_t, binary_t = ops.raw, ops.rows.unary.attr, ops.rows.binary.attr

local kinds = {unary = {}, binary = {}} -- kind -> name
ops.kinds = kinds

local function unary(name, p, q)
  local kind = C["LBR_UNARY_" .. name]
  kinds.unary[kind] = name
  return function(x, a, b)
    local attr = unary_t()
    a, b = a or p or 0, b or q or 0
    if type(a) ~= "number" or type(b) ~= "number" then raise(("%s: %s and %s, want numbers"):format(name, tostring(a), tostring(b))) end
    attr.kind, attr.p, attr.q = kind, a, b
    return raw.unary(x, attr)
  end
end

local function operand(value, like, name)
  if is_tensor(value) then return value end
  if type(value) == "number" and is_tensor(like) then return tensor.full({}, value, like.dtype, like.device) end
  raise(("%s: operands are a %s and a %s, want tensors, one of them may be a number"):format(name, type(value), is_tensor(like) and "tensor" or type(like)))
end

local function binary(name)
  local kind = C["LBR_BINARY_" .. name]
  kinds.binary[kind] = name
  return function(a, b)
    a, b = operand(a, b, name), operand(b, a, name)
    local attr = binary_t()
    attr.kind = kind
    return raw.binary(a, b, attr)
  end
end

for _, name in ipairs {"tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erf", "ceil", "floor", "trunc", "rsqrt", "softplus", "softsign", "mish"} do
  ops[name] = unary(name)
end

--- The nearest whole number, half to even.
ops.round = unary "rint"
--- x where x > 0, else alpha (e^x - 1): elu(x, alpha = 1).
ops.elu = unary("elu", 1)
--- gamma x where x > 0, else gamma alpha (e^x - 1): selu(x, alpha, gamma). Source: Klambauer et al. 2017.
ops.selu = unary("selu", 1.6732632423543772, 1.0507009873554805)
--- x where x > 0, else alpha (e^(x / alpha) - 1): celu(x, alpha = 1).
ops.celu = unary("celu", 1)
--- The approximation of gelu by tanh.
ops.gelu_tanh = unary "gelu_tanh"
--- slope x + shift limited to [0, 1]: hard_sigmoid(x, slope = 1/6, shift = 1/2).
ops.hard_sigmoid = unary("hard_sigmoid", 1 / 6, .5)
--- x hard_sigmoid(x).
ops.hard_swish = unary "hard_swish"
--- x where x > alpha, else 0: thresholded_relu(x, alpha = 1).
ops.thresholded_relu = unary("thresholded_relu", 1)
--- x + shift below -half, x - shift above half, else 0: shrink(x, half = .5, shift = 0).
ops.shrink = unary("shrink", .5)
--- x where x > 0, else alpha x: leaky_relu(x, alpha = .01).
ops.leaky_relu = unary("leaky_relu", .01)

--- The rest of a / b with the sign of b; of whole numbers x mod 0 is 0. One operand may be a number.
ops.mod = binary "mod"
--- The rest of a / b with the sign of a. See mod.
ops.fmod = binary "fmod"
--- Bits that both have (i32, u8); one operand may be a number.
ops.bit_and = binary "bit_and"
--- Bits that either has. See bit_and.
ops.bit_or = binary "bit_or"
--- Bits that one of both has. See bit_and.
ops.bit_xor = binary "bit_xor"
--- Bits moved down by b places, the sign comes in. See bit_and.
ops.shift_right = binary "shift_right"

local shift_left = binary "shift_left"
--- Bits moved up by b places; those that leave the dtype are gone. See bit_and.
function ops.shift_left(a, b)
  if is_tensor(a) and a.dtype == "u8" then
    if is_tensor(b) then b = b:to "i32" end
    return ops.bit_and(shift_left(a:to "i32", b), 255):to "u8"
  end
  return shift_left(a, b)
end

--- The other bits.
function ops.bit_not(x)
  if not is_tensor(x) then raise("bit_not: x is a " .. type(x) .. ", want a tensor") end
  return ops.bit_xor(x, x.dtype == "u8" and 255 or -1)
end

--- 1 where x is infinite, else 0 (u8): isinf(x, sign), sign > 0: only infinity, < 0: only -infinity.
function ops.isinf(x, sign)
  if not is_tensor(x) then raise("isinf: x is a " .. type(x) .. ", want a tensor") end
  if not sign then x, sign = ops.abs(x), 1 end
  return ops.eq(x, sign > 0 and math.huge or -math.huge)
end

return ops
