-- products.lua: matrix products of vectors and of broadcast batches, Einstein sums: all made of the row matmul, of views and of sums.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"

local raise = core.raise

-- The leading dims that both broadcast to, and whether a and b have them already.
local function leading(a, b)
  local n = math.max(a.ndim, b.ndim) - 2
  local shape = {}
  for i = 1, n do
    local p, q = i - 1 - (n + 2 - a.ndim), i - 1 - (n + 2 - b.ndim)
    local u, v = p < 0 and 1 or a.shape_[p], q < 0 and 1 or b.shape_[q]
    if u ~= v and u ~= 1 and v ~= 1 then raise(("matmul: %s and %s, leading dims do not broadcast"):format(tensor.describe(a), tensor.describe(b))) end
    shape[i] = u == 1 and v or u
  end
  return shape
end

local function spread(t, shape)
  local own = {unpack(shape)}
  own[#own + 1], own[#own + 2] = t.shape_[t.ndim - 2], t.shape_[t.ndim - 1]
  return t:expand(own)
end

local plain = ops.matmul

--- Matrix product. transpose_a, transpose_b: the last two dims are given transposed. A vector is a row on the left, a column on the right, and leaves no dim.
---@param a Tensor [..,M,K] or [K]; f32, f64, f16, bf16 or i32
---@param b Tensor [..,K,N] or [K]; leading dims broadcast
---@return Tensor [..,M,N]
function ops.matmul(a, b, transpose_a, transpose_b)
  if not tensor.is_tensor(a) or not tensor.is_tensor(b) then return plain(a, b) end
  if a.ndim == 1 and b.ndim > 0 then
    local y = ops.matmul(a:unsqueeze(1), b, false, transpose_b)
    return y:squeeze(b.ndim == 1 and 1 or y.ndim - 1)
  end
  if b.ndim == 1 and a.ndim > 1 then
    local y = ops.matmul(a, b:unsqueeze(2), transpose_a, false)
    return y:squeeze(y.ndim)
  end
  local same = a.ndim == b.ndim or b.ndim == 2 and not transpose_a
  for i = 0, same and b.ndim > 2 and a.ndim - 3 or -1 do same = same and a.shape_[i] == b.shape_[i] end
  if not same and a.ndim >= 2 and b.ndim >= 2 then
    local shape = leading(a, b)
    a, b = spread(a, shape), spread(b, shape)
  end
  return plain(a, b, transpose_a, transpose_b)
end

tensor.methods.matmul = ops.matmul

---------------------------------------------------------------------------------------------------- einsum

local function fail(equation, text) raise(("einsum: %q: %s"):format(equation, text)) end

-- "ab...c" -> {"a", "b", "...", "c"}
local function letters(equation, term)
  local out, at = {}, 1
  while at <= #term do
    local one = term:match("^%.%.%.", at) or term:match("^%a", at) or fail(equation, "want letters, '...', ',' and '->'")
    out[#out + 1], at = one, at + #one
  end
  return out
end

-- Letters of an operand by dim, "..." spelled out as "1", "2" ... counted from the last of `most`.
local function labels_of(equation, term, t)
  local dots = t.ndim - #term + 1
  local labels, seen = {}, false
  for _, name in ipairs(term) do
    if name ~= "..." then labels[#labels + 1] = name
    elseif seen or dots < 0 then fail(equation, seen and "two '...' in a term" or "more letters than dims of " .. tensor.describe(t))
    else
      seen = true
      for i = dots, 1, -1 do labels[#labels + 1] = tostring(i) end
    end
  end
  if #labels ~= t.ndim then fail(equation, ("%d letters for %s"):format(#labels, tensor.describe(t))) end
  return labels, seen and dots or 0
end

local function position(labels, name)
  for i, own in ipairs(labels) do
    if own == name then return i end
  end
end

-- The diagonal where a letter stands twice, the sum over letters that `keep` does not hold.
local function reduce(t, labels, keep)
  for d = #labels, 2, -1 do
    local first = position(labels, labels[d])
    if first < d then
      local n, row, column = t.shape_[d - 1], {}, {}
      for i = 1, t.ndim do row[i], column[i] = i == first and n or 1, i == d and n or 1 end
      local places = tensor.arange(n, "i32", t.device)
      t = ops.sum(t * ops.to(ops.eq(places:reshape(row), places:reshape(column)), t.dtype), d)
      table.remove(labels, d)
    end
  end
  local gone, left = {}, {}
  for i, name in ipairs(labels) do
    if keep[name] then left[#left + 1] = name else gone[#gone + 1] = i end
  end
  return #gone > 0 and ops.sum(t, gone) or t, left
end

-- t with its dims in the order of `wanted`, those that it has not of size 1.
local function arrange(t, labels, wanted)
  local order, shape = {}, {}
  for i, name in ipairs(wanted) do
    local at = position(labels, name)
    order[#order + 1] = at
    shape[i] = at and t.shape_[at - 1] or 1
  end
  if #order > 0 then t = t:permute(order) end
  return t:reshape(shape)
end

local function times(sizes, names)
  local n = 1
  for _, name in ipairs(names) do n = n * sizes[name] end
  return n
end

-- The product of two operands, summed over the letters that `keep` does not hold.
local function contract(a, la, b, lb, keep)
  local sizes, both, sums, left, right = {}, {}, {}, {}, {}
  for i, name in ipairs(la) do sizes[name] = a.shape_[i - 1] end
  for i, name in ipairs(lb) do sizes[name] = sizes[name] and math.max(sizes[name], b.shape_[i - 1]) or b.shape_[i - 1] end
  for _, name in ipairs(la) do
    local list = not position(lb, name) and left or keep[name] and both or sums
    list[#list + 1] = name
  end
  for _, name in ipairs(lb) do
    if not position(la, name) then right[#right + 1] = name end
  end
  local labels = {}
  for _, list in ipairs {both, left, right} do
    for _, name in ipairs(list) do labels[#labels + 1] = name end
  end
  if #sums == 0 then return arrange(a, la, labels) * arrange(b, lb, labels), labels end
  local function matrix(t, own, second, third)
    local wanted, shape = {}, {}
    for _, list in ipairs {both, second, third} do
      for _, name in ipairs(list) do
        wanted[#wanted + 1], shape[#shape + 1] = name, sizes[name]
      end
    end
    return arrange(t, own, wanted):expand(shape):reshape(times(sizes, both), times(sizes, second), times(sizes, third))
  end
  local shape = {}
  for i, name in ipairs(labels) do shape[i] = sizes[name] end
  return ops.matmul(matrix(a, la, left, sums), matrix(b, lb, sums, right)):reshape(shape), labels
end

--- Einstein's sum: einsum("bij,bjk->bik", {a, b}). Letters name dims, those that the result lacks are summed over, "..." stands for dims that broadcast; without "->"
--- the result has the letters that stand once, in order.
---@param equation string
---@param operands Tensor[] of one dtype
---@return Tensor
function ops.einsum(equation, operands)
  if type(equation) ~= "string" or type(operands) ~= "table" then raise "einsum: want an equation and a list of tensors" end
  local text = equation:gsub("%s", "")
  local left, arrow, right = text:match "^(.-)(%->)(.*)$"
  left = left or text
  local terms, most = {}, 0
  for term in (left .. ","):gmatch "([^,]*)," do
    local t = operands[#terms + 1]
    if not tensor.is_tensor(t) then fail(equation, ("operand %d is a %s, want a tensor"):format(#terms + 1, type(t))) end
    local labels, dots = labels_of(equation, letters(equation, term), t)
    terms[#terms + 1], most = labels, math.max(most, dots)
  end
  if #terms ~= #operands then fail(equation, ("%d terms for %d operands"):format(#terms, #operands)) end

  local count, sizes = {}, {}
  for k, labels in ipairs(terms) do
    for i, name in ipairs(labels) do
      local size = operands[k].shape_[i - 1]
      count[name] = (count[name] or 0) + 1
      if sizes[name] and sizes[name] ~= size and sizes[name] ~= 1 and size ~= 1 then fail(equation, ("sizes %d and %d of '%s'"):format(sizes[name], size, name)) end
      sizes[name] = math.max(sizes[name] or 1, size)
    end
  end
  local out = {}
  local function dots() for i = most, 1, -1 do out[#out + 1] = tostring(i) end end
  if arrow then
    for _, name in ipairs(letters(equation, right)) do
      if name == "..." then dots()
      elseif not count[name] or position(out, name) then fail(equation, ("'%s' in the result stands %s"):format(name, count[name] and "twice" or "in no term"))
      else out[#out + 1] = name end
    end
  else
    dots()
    local once = {}
    for name, n in pairs(count) do
      if n == 1 and name:find "%a" then once[#once + 1] = name end
    end
    table.sort(once)
    for _, name in ipairs(once) do out[#out + 1] = name end
  end

  local y, own
  for k, labels in ipairs(terms) do
    local needed = {} -- by the result or by an operand that comes
    for _, name in ipairs(out) do needed[name] = true end
    for later = k + 1, #terms do
      for _, name in ipairs(terms[later]) do needed[name] = true end
    end
    local here = {}
    for name in pairs(needed) do here[name] = true end
    for _, name in ipairs(own or {}) do here[name] = true end
    local t, left_over = reduce(operands[k], {unpack(labels)}, here)
    if not y then y, own = t, left_over
    else
      local mine = {}
      for name in pairs(needed) do mine[name] = true end
      for _, name in ipairs(left_over) do mine[name] = true end
      y, own = reduce(y, own, mine)
      y, own = contract(y, own, t, left_over, needed)
    end
  end
  local shape = {}
  for i, name in ipairs(out) do shape[i] = sizes[name] end
  return arrange(y, own, out):expand(shape)
end

return ops
