-- ONNX's matrix products. Entries as in onnx/elementwise.lua.
local product = require "libration.graph.onnx.product"

local entries = {}

-- NumPy's product; that of small whole numbers runs as i32.
local function matmul(self, a, b)
  if #a.shape == 0 or #b.shape == 0 then self:fail("a product with a single number") end
  local small, kind = self:dtype(a) == "u8", a.kind
  if small then a, b = self:cast(a, "i32"), self:cast(b, "i32") end
  local row, column = #a.shape == 1, #b.shape == 1
  if row then a = self:reshaped(a, { 1, a.shape[1] }) end
  if column then b = self:reshaped(b, { b.shape[1], 1 }) end
  local y = product.of(self, a, b)
  local shape = { unpack(y.shape) }
  if column then table.remove(shape) end
  if row then table.remove(shape, column and #shape or #shape - 1) end
  y = self:reshaped(y, shape)
  return small and self:cast(y, kind) or y
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
  if self:attribute("transA", 0) ~= 0 then a = product.swapped(self, a) end
  if self:attribute("transB", 0) == 0 then b = product.swapped(self, b) end
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
