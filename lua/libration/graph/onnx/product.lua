-- NumPy's matrix product of two values of an ONNX graph. Holds no entries.
local M = {}

---x with its last two dims exchanged.
function M.swapped(self, x)
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

---NumPy's product of a and b of two dims or more.
---@return IrValue
function M.of(self, a, b)
  if #b.shape == 2 and b.data and self:dtype(a) ~= "i32" and self:dtype(b) == self:dtype(a) then return (self:emit("linear", { a, M.swapped(self, b) }, { act = "none" })) end
  if #b.shape == 2 then return (self:emit("matmul", { a, b })) end
  local lead = leading(self, a, b)
  return (self:emit("matmul", { led(self, a, lead), led(self, b, lead) }))
end

return M
