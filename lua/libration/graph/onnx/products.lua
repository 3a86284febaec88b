-- ONNX's matrix products. Entries as in onnx/elementwise.lua.
local entries = {}

local function swapped(self, x)
  local order, n = {}, #x.shape
  for d = 1, n do order[d] = d end
  order[n], order[n - 1] = n - 1, n
  return self:transposed(x, order)
end

-- The dims before the last two of both, broadcast.
local function leading(self, a, b)
  local out, n = {}, math.max(#a.shape, #b.shape) - 2
  for d = 1, n do
    local x, y = a.shape[#a.shape - 2 - n + d] or 1, b.shape[#b.shape - 2 - n + d] or 1
    if x ~= y and x ~= 1 and y ~= 1 then self:fail("[%s] with [%s]", table.concat(a.shape, ","), table.concat(b.shape, ",")) end
    out[d] = x == 1 and y or x
  end
  return out
end

-- x with these dims before its last two.
local function led(self, x, lead)
  local shape, same = { unpack(lead) }, #x.shape == #lead + 2
  for d = 1, #lead do same = same and x.shape[d] == lead[d] end
  if same then return x end
  shape[#shape + 1], shape[#shape + 2] = x.shape[#x.shape - 1], x.shape[#x.shape]
  return (self:emit("expand", { x }, { shape = shape }))
end

-- NumPy's product of a and b of two dims or more.
local function product(self, a, b)
  if #b.shape == 2 and b.data and self:dtype(b) == self:dtype(a) then return (self:emit("linear", { a, swapped(self, b) }, { act = "none" })) end
  if #b.shape == 2 then return (self:emit("matmul", { a, b })) end
  local lead = leading(self, a, b)
  return (self:emit("matmul", { led(self, a, lead), led(self, b, lead) }))
end

-- NumPy's product; whole numbers run as f64, which is exact as far as an i32 reaches.
local function matmul(self, a, b)
  if #a.shape == 0 or #b.shape == 0 then self:fail("a product with a single number") end
  local whole = self:dtype(a) == "i32" or self:dtype(a) == "u8"
  local kind = a.kind
  if whole then a, b = self:cast(a, "f64"), self:cast(b, "f64") end
  local row, column = #a.shape == 1, #b.shape == 1
  if row then a = self:reshaped(a, { 1, a.shape[1] }) end
  if column then b = self:reshaped(b, { b.shape[1], 1 }) end
  local y = product(self, a, b)
  local shape = { unpack(y.shape) }
  if column then table.remove(shape) end
  if row then table.remove(shape, column and #shape or #shape - 1) end
  y = self:reshaped(y, shape)
  return whole and self:cast(y, kind) or y
end

function entries.MatMul(self)
  return matmul(self, self:input(1), self:input(2))
end

local function scaled(self, x, factor)
  return factor == 1 and x or (self:emit("affine", { x }, { scale = factor, shift = 0 }))
end

function entries.Gemm(self)
  local a, b, c = self:input(1), self:input(2), self:input(3, true)
  if #a.shape ~= 2 or #b.shape ~= 2 then self:fail("[%s] with [%s], want two dims", table.concat(a.shape, ","), table.concat(b.shape, ",")) end
  local kind, whole = a.kind, self:dtype(a) == "i32"
  if whole then a, b = self:cast(a, "f64"), self:cast(b, "f64") end
  if self:attribute("transA", 0) ~= 0 then a = swapped(self, a) end
  if self:attribute("transB", 0) == 0 then b = swapped(self, b) end
  local y
  if b.data then
    y = self:emit("linear", { a, scaled(self, b, self:attribute("alpha", 1)) }, { act = "none" })
  else
    y = scaled(self, self:emit("linear", { a, b }, { act = "none" }), self:attribute("alpha", 1))
  end
  if c then y = self:emit("add", { y, scaled(self, whole and self:cast(c, "f64") or c, self:attribute("beta", 1)) }) end
  return whole and self:cast(y, kind) or y
end

return entries
