-- quantise.lua: whole numbers for real ones and back, and exact products of whole numbers. 8-bit signed and 16-bit numbers are carried as i32, 8-bit unsigned ones as u8.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"

local ranges = {u8 = {0, 255, "u8"}, i8 = {-128, 127, "i32"}, u16 = {0, 65535, "i32"}, i16 = {-32768, 32767, "i32"}, i4 = {-8, 7, "i32"}, u4 = {0, 15, "u8"},
  i2 = {-2, 1, "i32"}, u2 = {0, 3, "u8"}}

local function range_of(kind, name)
  return ranges[kind] or core.raise(("%s: %s, want u8, i8, u16, i16, u4, i4, u2 or i2"):format(name, tostring(kind)))
end

local FAR = 2 ^ 20 -- beyond all ranges and their zeros, far from what i32 holds

--- round(x / scale) + zero, to nearest even, saturated.
---@param x Tensor
---@param scale Tensor broadcasts to x
---@param zero Tensor|nil u8 or i32, broadcasts to x, default 0
---@param kind string|nil "u8" (default), "i8", "u16", "i16", "u4", "i4", "u2", "i2"
---@return Tensor u8, of signed and 16-bit kinds i32
function ops.quantize(x, scale, zero, kind)
  local range = range_of(kind or "u8", "quantize")
  local y = ops.clamp(x / scale, -FAR, FAR):to "i32"
  if zero then y = y + zero:to "i32" end
  return ops.clamp(y, range[1], range[2]):to(range[3])
end

--- (x - zero) * scale.
---@param x Tensor u8 or i32
---@param scale Tensor broadcasts to x, its dtype is the result's
---@param zero Tensor|nil as in quantize
---@return Tensor
function ops.dequantize(x, scale, zero)
  x = x:to "i32"
  if zero then x = x - zero:to "i32" end
  return x:to(scale.dtype) * scale
end

--- u8 numbers for all of x, with the scale and the zero that its own range asks for.
---@return Tensor y u8, Tensor scale f32 [], Tensor zero u8 []
function ops.dynamic_quantize(x)
  local none = tensor.zeros({}, x.dtype, x.device)
  local low, high = ops.minimum(ops.min(x), none), ops.maximum(ops.max(x), none)
  local scale = (high - low) / tensor.full({}, 255, x.dtype, x.device)
  local zero = (ops.neg(low) / scale):to "u8"
  return ops.quantize(x, scale, zero), scale, zero
end

--- x minus its zero as numbers in which a sum of n products of two such is exact: f32 while it stays below 2^24, else f64.
---@param x Tensor u8 or i32, of 8 bits
---@param zero Tensor|nil broadcasts to x
---@param n integer products in a sum
---@return Tensor
function ops.exact(x, zero, n)
  local wide = n * 255 * 255 < 2 ^ 24 and "f32" or "f64"
  return zero and x:to(wide) - zero:to(wide) or x:to(wide)
end

return ops
