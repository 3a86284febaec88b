-- ONNX's quantising operators and products of whole numbers. Entries as in onnx/elementwise.lua.
local space = require "libration.graph.onnx.space"
local matrix = require "libration.graph.onnx.product"
local elementwise = require "libration.graph.onnx.elementwise"
local reductions = require "libration.graph.onnx.reductions"
local windows = require "libration.graph.onnx.windows"
local pools = require "libration.graph.onnx.pools"

local entries = {}

local known = { u8 = true, i8 = true, u16 = true, i16 = true }

local function kind_of(self, kind)
  return known[kind] and kind or self:fail("numbers of kind %s are not supported", kind)
end

-- One number, one along an axis of x, or one a block of `block` along it, in a shape that broadcasts to x.
local function spread(self, v, x)
  if not v then return nil end
  local count = 1
  for _, size in ipairs(v.shape) do count = count * size end
  if count == 1 then return self:reshaped(v, {}) end
  local d, block, shape = self:dim(self:attribute("axis", 1), #x.shape), self:attribute("block_size", 0), {}
  if #v.shape == 1 then
    for i = 1, #x.shape do shape[i] = i == d and count or 1 end
    return self:reshaped(v, shape)
  end
  if block < 1 or #v.shape ~= #x.shape or v.shape[d] ~= math.ceil(x.shape[d] / block) then
    self:fail("scales [%s] for [%s] in blocks of %d", table.concat(v.shape, ","), table.concat(x.shape, ","), block)
  end
  local index = {}
  for i = 1, x.shape[d] do index[i] = math.floor((i - 1) / block) end
  return (self:emit("gather", { v, self:constant(index, "i64") }, { dim = d }, v.kind))
end

local function wide(self, v)
  return (v.kind == "f16" or v.kind == "bf16") and self:cast(v, "f32") or v
end

local function quantize(self, x, scale, zero, kind)
  local y = self:emit("quantize", { x, scale, zero }, { kind = kind_of(self, kind) }, kind)
  return y
end

local names = { [2] = "u8", [3] = "i8", [4] = "u16", [5] = "i16" }

function entries.QuantizeLinear(self)
  local x, scale, zero = self:input(1), self:input(2), self:input(3, true)
  local to = self:attribute("output_dtype", 0)
  local kind = zero and zero.kind or to == 0 and "u8" or names[to] or ("type %d"):format(to)
  return quantize(self, wide(self, x), spread(self, wide(self, scale), x), spread(self, zero, x), kind)
end

function entries.DequantizeLinear(self)
  local x, scale, zero = self:input(1), self:input(2), self:input(3, true)
  local y = self:emit("dequantize_by", { x, spread(self, wide(self, scale), x), spread(self, zero, x) })
  return self:cast(y, scale.kind)
end

function entries.DynamicQuantizeLinear(self)
  local y, scale, zero = self:emit("dynamic_quantize", { self:input(1) })
  return self:cast(y, "u8"), scale, self:cast(zero, "u8")
end

local function exact(self, v, zero, count)
  return (self:emit("exact", { v, zero }, { count = count }))
end

-- A zero for each row of a, or for each column of b.
local function beside(self, zero, row)
  if not zero or #zero.shape ~= 1 or not row then return zero end
  return self:reshaped(zero, { zero.shape[1], 1 })
end

local function product(self, a, b, a_zero, b_zero)
  local count = a.shape[#a.shape] or 1
  return matrix.of(self, exact(self, a, beside(self, a_zero, true), count), exact(self, b, b_zero, count))
end

function entries.MatMulInteger(self)
  return self:cast(product(self, self:input(1), self:input(2), self:input(3, true), self:input(4, true)), "i32")
end

-- sums * (scale of a * scale of b / scale of y), rounded, plus y's zero.
local function rescaled(self, sums, a_scale, b_scale, y_scale, y_zero)
  local factor = self:emit("mul", { wide(self, a_scale), wide(self, b_scale) })
  return quantize(self, self:emit("mul", { self:cast(sums, "f32"), factor }), wide(self, y_scale), y_zero, y_zero.kind)
end

function entries.QLinearMatMul(self)
  local v = self:inputs()
  if not v[8] then self:fail("%d inputs, want 8", #v) end
  return rescaled(self, product(self, v[1], v[4], v[3], v[6]), beside(self, v[2], true), v[5], v[7], v[8])
end

-- One number an output channel of w [O,..].
local function of_channel(self, v, w)
  if not v or #v.shape == 0 or v.shape[1] == 1 then return v and self:reshaped(v, {}) end
  local shape = { v.shape[1] }
  for d = 2, #w.shape do shape[d] = 1 end
  return self:reshaped(v, shape)
end

local function convolution(self, x, w, x_zero, w_zero)
  local count = 1
  for d = 2, #w.shape do count = count * w.shape[d] end
  return space.convolution(self, exact(self, x, x_zero and self:reshaped(x_zero, {}), count), exact(self, w, of_channel(self, w_zero, w), count))
end

function entries.ConvInteger(self)
  return self:cast(convolution(self, self:input(1), self:input(2), self:input(3, true), self:input(4, true)), "i32")
end

function entries.QLinearConv(self)
  local v, bias = {}, self:input(9, true)
  for i = 1, 8 do v[i] = self:input(i) end
  local sums = convolution(self, v[1], v[4], v[3], v[6])
  local shape = { 1, sums.shape[2] }
  for _ = 1, space.count(self, sums) do shape[#shape + 1] = 1 end
  if bias then sums = self:emit("add", { sums, self:reshaped(self:cast(bias, sums.kind), shape) }) end
  local scale = #v[5].shape > 0 and v[5].shape[1] > 1 and self:reshaped(v[5], shape) or self:reshaped(v[5], {})
  return rescaled(self, sums, self:reshaped(v[2], {}), scale, self:reshaped(v[7], {}), self:reshaped(v[8], {}))
end

---------------------------------------------------------------------------------------------------- ONNX Runtime's own, as its quantiser writes them

entries["com.microsoft.QuantizeLinear"], entries["com.microsoft.DequantizeLinear"] = entries.QuantizeLinear, entries.DequantizeLinear

-- The node with other inputs, for the entry of the operator that it quantises.
local function given(self, list)
  return setmetatable({ opset = 13, input = function(_, i) return list[i] end, inputs = function() return list end }, { __index = self })
end

local function real(self, v, scale, zero)
  return (self:emit("dequantize_by", { v, spread(self, wide(self, scale), v), spread(self, zero, v) }))
end

local function whole(self, y, scale, zero)
  return quantize(self, y, self:reshaped(wide(self, scale), {}), zero and self:reshaped(zero, {}), zero and zero.kind or "u8")
end

for name, entry in pairs { Add = elementwise.Add, Mul = elementwise.Mul } do
  entries["com.microsoft.QLinear" .. name] = function(self)
    local a, b = real(self, self:input(1), self:input(2), self:input(3, true)), real(self, self:input(4), self:input(5), self:input(6, true))
    return whole(self, entry(given(self, { a, b })), self:input(7), self:input(8, true))
  end
end

for name, entry in pairs { Sigmoid = elementwise.Sigmoid, LeakyRelu = elementwise.LeakyRelu, Softmax = reductions.Softmax, AveragePool = pools.AveragePool,
  GlobalAveragePool = windows.GlobalAveragePool } do
  entries["com.microsoft.QLinear" .. name] = function(self)
    if self:attribute("channels_last", 0) ~= 0 then self:fail("channels_last is not supported") end
    return whole(self, entry(given(self, { real(self, self:input(1), self:input(2), self:input(3, true)) })), self:input(4), self:input(5, true))
  end
end

entries["com.microsoft.QLinearConcat"] = function(self)
  local parts = {}
  for i = 3, #self.node.inputs, 3 do parts[#parts + 1] = real(self, self:input(i), self:input(i + 1), self:input(i + 2, true)) end
  if #parts == 0 then self:fail("nothing to concatenate") end
  local y = #parts == 1 and parts[1] or self:emit("concat", parts, { dim = self:dim(self:attribute("axis", 0), #parts[1].shape) })
  return whole(self, y, self:input(1), self:input(2))
end

entries["com.microsoft.QGemm"] = function(self)
  local a, b, bias, zero = self:input(1), self:input(4), self:input(7, true), self:input(9, true)
  if #a.shape ~= 2 or #b.shape ~= 2 then self:fail("[%s] with [%s], want two dims", table.concat(a.shape, ","), table.concat(b.shape, ",")) end
  if self:attribute("transA", 0) ~= 0 then a = matrix.swapped(self, a) end
  if self:attribute("transB", 0) ~= 0 then b = matrix.swapped(self, b) end
  local sums = product(self, a, b, self:input(3), self:input(6))
  if bias then sums = self:emit("add", { sums, self:cast(bias, sums.kind) }) end
  local factor = self:emit("affine", { (self:emit("mul", { wide(self, self:input(2)), wide(self, self:input(5)) })) }, { scale = self:attribute("alpha", 1), shift = 0 })
  local y = self:emit("mul", { self:cast(sums, "f32"), factor })
  return self:input(8, true) and whole(self, y, self:input(8), zero) or y
end

return entries
