-- ONNX's functions of one and two numbers beyond arithmetic, sums along an axis, Einstein sums and norms over neighbours. Entries as in onnx/elementwise.lua.
local tensor = require "libration.tensor"
local onnx_format = require "libration.formats.onnx"

local entries = {}

-- ONNX's name -> the IR's, one input
for name, op in pairs {
  Acos = "acos", Acosh = "acosh", Asin = "asin", Asinh = "asinh", Atan = "atan", Atanh = "atanh", Ceil = "ceil", Cosh = "cosh", Erf = "erf", Floor = "floor", Mish = "mish",
  Round = "round", Sinh = "sinh", Softplus = "softplus", Softsign = "softsign", Tan = "tan",
} do
  entries[name] = function(self) return self:emit(op, { self:input(1) }) end
end

-- One input and attributes: the IR's name, then {ONNX's attribute, the IR's, default}
for name, row in pairs {
  Elu = { "elu", { "alpha", "alpha", 1 } },
  Celu = { "celu", { "alpha", "alpha", 1 } },
  Selu = { "selu", { "alpha", "alpha", 1.6732631921768188 }, { "gamma", "gamma", 1.0507010221481323 } },
  HardSigmoid = { "hard_sigmoid", { "alpha", "slope", .2 }, { "beta", "shift", .5 } },
  ThresholdedRelu = { "thresholded_relu", { "alpha", "alpha", 1 } },
  Shrink = { "shrink", { "lambd", "half", .5 }, { "bias", "shift", 0 } },
} do
  entries[name] = function(self)
    local attr = {}
    for i = 2, #row do attr[row[i][2]] = self:attribute(row[i][1], row[i][3]) end
    local x = self:input(1)
    local whole = self:dtype(x) == "i32" or self:dtype(x) == "u8" -- Shrink takes whole numbers
    local y = self:emit(row[1], { whole and self:cast(x, "f32") or x }, attr)
    return whole and self:cast(y, x.kind) or y
  end
end

function entries.Gelu(self)
  local approximate = self:attribute("approximate", "none")
  if approximate ~= "none" and approximate ~= "tanh" then self:fail("approximate is '%s', want none or tanh", approximate) end
  return self:emit(approximate == "tanh" and "gelu_tanh" or "gelu", { self:input(1) })
end

function entries.Swish(self)
  local x, alpha = self:input(1), self:attribute("alpha", 1)
  if alpha == 1 then return self:emit("silu", { x }) end
  return self:emit("mul", { x, (self:emit("sigmoid", { (self:emit("affine", { x }, { scale = alpha, shift = 0 })) })) })
end

function entries.SwiGLU(self) return self:emit("mul", { entries.Swish(self), self:input(2) }) end

function entries.IsInf(self)
  local x = self:input(1)
  local negative, positive = self:attribute("detect_negative", 1) ~= 0, self:attribute("detect_positive", 1) ~= 0
  if not negative and not positive then return self:emit("lt", { x, x }, nil, "bool") end
  local sign = nil
  if not (negative and positive) then sign = positive and 1 or -1 end
  return self:emit("isinf", { x }, { sign = sign }, "bool")
end

function entries.Mod(self)
  return self:emit(self:attribute("fmod", 0) ~= 0 and "fmod" or "mod", { self:input(1), self:input(2) })
end

for name, op in pairs { BitwiseAnd = "bit_and", BitwiseOr = "bit_or", BitwiseXor = "bit_xor" } do
  entries[name] = function(self) return self:emit(op, { self:input(1), self:input(2) }) end
end

-- Bits of a kind that is carried in a wider one; nil: it has all bits of its carrier.
local masks = { u16 = 65535 }
local unused = { i8 = 24, i16 = 16 } -- bits of the carrier above a signed kind

function entries.BitwiseNot(self)
  local x = self:input(1)
  if x.kind == "u32" or x.kind == "u64" then self:fail("the complement of %s is not supported", x.kind) end
  if masks[x.kind] then return self:emit("bit_xor", { x, self:constant(masks[x.kind], x.kind) }) end
  return self:emit("bit_not", { x })
end

function entries.BitShift(self)
  local x, direction = self:input(1), self:attribute("direction", nil, "string")
  if direction ~= "LEFT" and direction ~= "RIGHT" then self:fail("direction is '%s', want LEFT or RIGHT", tostring(direction)) end
  local y = self:emit(direction == "LEFT" and "shift_left" or "shift_right", { x, self:input(2) })
  if masks[x.kind] then return self:emit("bit_and", { y, self:constant(masks[x.kind], x.kind) }) end
  if not unused[x.kind] then return y end
  local far = self:constant(unused[x.kind], x.kind)
  return self:emit("shift_right", { (self:emit("shift_left", { y, far })), far })
end

local function cumulative(op)
  return function(self)
    local x = self:input(1)
    local axis = self:list(self:input(2))
    if #axis ~= 1 then self:fail("%d axes, want one", #axis) end
    return self:emit(op, { x }, { dim = self:dim(axis[1], #x.shape), exclusive = self:attribute("exclusive", 0) ~= 0, reverse = self:attribute("reverse", 0) ~= 0 })
  end
end
entries.CumSum = cumulative "cumsum"
entries.CumProd = cumulative "cumprod"

function entries.Einsum(self)
  local list = self:inputs()
  return self:emit("einsum", list, { equation = self:attribute("equation", nil, "string") or self:fail("no equation") })
end

function entries.LRN(self)
  local x = self:input(1)
  if #x.shape < 2 then self:fail("[%s] has no channels", table.concat(x.shape, ",")) end
  return self:emit("local_response_norm", { x }, { dim = 2, size = self:attribute("size", nil, "number") or self:fail("no size"), alpha = self:attribute("alpha", 1e-4),
    beta = self:attribute("beta", .75), bias = self:attribute("bias", 1) })
end

-- x / (sum of |x|^p along the axis)^(1/p); 0 where all are 0.
function entries.LpNormalization(self)
  local x, p = self:input(1), self:attribute("p", 2)
  if p ~= 1 and p ~= 2 then self:fail("p is %s, want 1 or 2", tostring(p)) end
  local attr = { dims = { self:dim(self:attribute("axis", -1), #x.shape) }, keep = true }
  local norm = self:emit("sum", { (self:emit(p == 1 and "abs" or "square", { x })) }, attr)
  if p == 2 then norm = self:emit("sqrt", { norm }) end
  local zero = self:constant(0, x.kind)
  return self:emit("where", { (self:emit("eq", { norm, zero }, nil, "bool")), zero, (self:emit("div", { x, norm })) }, nil, x.kind)
end

-- (x - mean) / (standard deviation + 1e-9) over the axes.
function entries.MeanVarianceNormalization(self)
  local x = self:input(1)
  local dims = {}
  for i, axis in ipairs(self:attribute("axes", { 0, 2, 3 })) do dims[i] = self:dim(axis, #x.shape) end
  local attr = { dims = dims, keep = true }
  local centred = self:emit("sub", { x, (self:emit("mean", { x }, attr)) })
  local spread = self:emit("sqrt", { (self:emit("mean", { (self:emit("square", { centred })) }, attr)) })
  return self:emit("div", { centred, (self:emit("affine", { spread }, { scale = 1, shift = 1e-9 })) })
end

function entries.EyeLike(self)
  local x, offset = self:input(1), self:attribute("k", 0)
  if #x.shape ~= 2 then self:fail("[%s], want two dims", table.concat(x.shape, ",")) end
  local kind, rows, columns = self.node.attr.dtype and onnx_format.kind(self.node.attr.dtype) or x.kind, x.shape[1], x.shape[2]
  local row = tensor.arange(rows, "i32"):reshape(rows, 1)
  local y = self:emit("eq", { self:constant(row + offset, "i32"), self:constant(tensor.arange(columns, "i32"), "i32") }, nil, "bool")
  return self:cast(y, kind)
end

return entries
