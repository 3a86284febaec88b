-- ONNX's elementwise, comparing and converting operators. An entry: operator -> fn(self: OnnxImport) -> values of its outputs.
local onnx_format = require "libration.formats.onnx"

local entries = {}

-- min(max(x, low), high), under the name of an activation where it is one that layers take in.
local function limited(self, x, low, high)
  if low == 0 and high == math.huge then return self:emit("relu", { x }) end
  if low == 0 and high == 6 then return self:emit("relu6", { x }) end
  return self:emit("clamp", { x }, { low = math.min(low, high), high = high })
end

-- ONNX's name -> the IR's, one input
for name, op in pairs {
  Abs = "abs", Neg = "neg", Sign = "sign", Exp = "exp", Log = "log", Sqrt = "sqrt", Reciprocal = "reciprocal", Sin = "sin", Cos = "cos", Sigmoid = "sigmoid",
  Tanh = "tanh", Relu = "relu", HardSwish = "hard_swish",
} do
  entries[name] = function(self) return self:emit(op, { self:input(1) }) end
end

-- two inputs, broadcasting
for name, op in pairs { Add = "add", Sub = "sub", Mul = "mul", Div = "div" } do
  entries[name] = function(self) return self:emit(op, { self:input(1), self:input(2) }) end
end

-- a bool of two inputs; the operands may change places
for name, row in pairs { Equal = { "eq", 1, 2 }, Less = { "lt", 1, 2 }, LessOrEqual = { "le", 1, 2 }, Greater = { "lt", 2, 1 }, GreaterOrEqual = { "le", 2, 1 },
  And = { "mul", 1, 2 }, Or = { "maximum", 1, 2 }, Xor = { "ne", 1, 2 } } do
  entries[name] = function(self) return self:emit(row[1], { self:input(row[2]), self:input(row[3]) }, nil, "bool") end
end

-- any number of inputs
for name, op in pairs { Max = "maximum", Min = "minimum", Sum = "add", Mean = "add" } do
  entries[name] = function(self)
    local list = self:inputs()
    local y = list[1] or self:fail("no inputs")
    for i = 2, #list do y = self:emit(op, { y, list[i] }) end
    return name == "Mean" and self:emit("affine", { y }, { scale = 1 / #list, shift = 0 }) or y
  end
end

-- Also of sequences.
function entries.Identity(self) return self.scope[self.node.inputs[1] or ""] or self:input(1) end

function entries.Not(self) return self:emit("affine", { self:input(1) }, { scale = -1, shift = 1 }, "bool") end

function entries.IsNaN(self) return self:emit("isnan", { self:input(1) }, nil, "bool") end

function entries.Where(self)
  local a = self:input(2)
  return self:emit("where", { self:input(1), a, self:input(3) }, nil, a.kind)
end

-- What a constant exponent makes of floating point numbers, many times faster.
local powers = { [2] = "square", [.5] = "sqrt", [-1] = "reciprocal" }

function entries.Pow(self)
  local x, power = self:input(1), self:input(2)
  local one = power.data and power.data:numel() == 1 and #power.shape <= #x.shape
  local op = one and self:dtype(x) ~= "i32" and self:dtype(x) ~= "u8" and powers[self:list(power)[1]]
  if op then return self:emit(op, { x }) end
  return self:emit("pow", { x, self:cast(power, x.kind) })
end

function entries.Clip(self)
  local x = self:input(1)
  if self.opset < 11 then
    return limited(self, x, self:attribute("min", -math.huge), self:attribute("max", math.huge))
  end
  local low, high = self:input(2, true), self:input(3, true)
  if (not low or low.data) and (not high or high.data) then
    return limited(self, x, low and self:list(low)[1] or -math.huge, high and self:list(high)[1] or math.huge)
  end
  if low then x = self:emit("maximum", { x, low }) end
  if high then x = self:emit("minimum", { x, high }) end
  return x
end

function entries.LeakyRelu(self) return self:emit("leaky_relu", { self:input(1) }, { alpha = self:attribute("alpha", .01) }) end

function entries.PRelu(self) return self:emit("prelu", { self:input(1), self:input(2) }) end

function entries.Cast(self)
  return self:cast(self:input(1), onnx_format.kind(self:attribute("to", 0)))
end

function entries.CastLike(self)
  return self:cast(self:input(1), self:input(2).kind)
end

-- Dropout does nothing in a network that runs; its mask keeps everything.
function entries.Dropout(self)
  local x, training = self:input(1), self:input(3, true)
  if training and self:list(training)[1] ~= 0 then
    local ratio = self:input(2, true)
    if not ratio or self:list(ratio)[1] ~= 0 then self:fail("training mode draws random numbers, which is not supported") end
  end
  if not self:wants(2) then return x end
  return x, self:emit("expand", { self:constant(1, "bool") }, { shape = x.shape }, "bool")
end

return entries
