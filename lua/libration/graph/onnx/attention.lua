-- ONNX's attention and rotary positions as products, masks and softmax. Entries as in onnx/elementwise.lua.
local tensor = require "libration.tensor"

local entries = {}

local NEVER = -math.huge

local function half(v) return v.kind == "f16" or v.kind == "bf16" end

-- [B,S,H*D] -> [B,H,S,D]
local function by_head(self, v, heads)
  local s = v.shape
  if #s == 4 then return v end
  if #s ~= 3 or heads < 1 or s[3] % heads ~= 0 then self:fail("[%s] with %d heads", table.concat(s, ","), heads) end
  return self:transposed(self:reshaped(v, { s[1], s[2], heads, s[3] / heads }), { 1, 3, 2, 4 })
end

-- Each head of [B,G,S,D] `times` times.
local function repeated(self, v, times)
  if times == 1 then return v end
  local s = v.shape
  local y = self:emit("expand", { self:reshaped(v, { s[1], s[2], 1, s[3], s[4] }) }, { shape = { s[1], s[2], times, s[3], s[4] } })
  return self:reshaped(y, { s[1], s[2] * times, s[3], s[4] })
end

-- 0 where allowed, else -infinity.
local function bias_of(self, allowed, kind)
  return (self:emit("where", { allowed, self:constant(0, kind), self:constant(NEVER, kind) }, nil, kind))
end

-- A mask as what is added to the scores, as wide as they are.
local function mask_bias(self, mask, columns, kind)
  local bias = mask.kind == "bool" and bias_of(self, mask, kind) or self:cast(mask, kind)
  local before, after = {}, {}
  for d = 1, #bias.shape do before[d], after[d] = 0, 0 end
  after[#after] = columns - bias.shape[#bias.shape]
  if after[#after] < 0 then self:fail("a mask of [%s] for %d keys", table.concat(mask.shape, ","), columns) end
  return after[#after] > 0 and (self:emit("pad", { bias }, { before = before, after = after, value = NEVER })) or bias
end

local function column(self, n, dims)
  return self:constant(tensor.arange(n, "i32"):reshape(dims), "i64")
end

-- Which keys a query may see: from `left` before its own place to `right` behind it; offset: keys before the first query, a number or a value [B].
local function window_bias(self, rows, columns, left, right, offset, kind)
  local own, there = column(self, rows, { rows, 1 }), column(self, columns, { 1, columns })
  own = type(offset) == "number" and self:emit("affine", { own }, { scale = 1, shift = offset })
    or self:emit("add", { own, self:reshaped(offset, { offset.shape[1], 1, 1, 1 }) })
  local bias
  for _, side in ipairs { { right, there, own, 1 }, { left, own, there, 2 } } do
    local reach, a, b = side[1], side[2], side[3]
    if reach then
      local limit = self:emit("affine", { b }, { scale = 1, shift = reach })
      local v = bias_of(self, (self:emit("le", { a, limit }, nil, "bool")), kind)
      bias = bias and self:emit("add", { bias, v }) or v
    end
  end
  return bias
end

local function sum(self, list)
  local y = list[1]
  for i = 2, #list do y = self:emit("add", { y, list[i] }) end
  return y
end

-- Rows whose every key is forbidden are 0.
local function guarded(self, weights, bias)
  local highest = self:emit("max", { bias }, { dims = { #bias.shape }, keep = true })
  local closed = self:emit("le", { highest, self:constant(-3e38, bias.kind) }, nil, "bool")
  if closed.data then
    local any = false
    for _, v in ipairs(self:list(closed)) do any = any or v ~= 0 end
    if not any then return weights end
  end
  return (self:emit("where", { closed, self:constant(0, weights.kind), weights }, nil, weights.kind))
end

function entries.Attention(self)
  local q0, k0, v0, mask = self:input(1), self:input(2), self:input(3), self:input(4, true)
  local past_key, past_value, filled = self:input(5, true), self:input(6, true), self:input(7, true)
  local kind = half(q0) and "f32" or q0.kind
  local q, k, v = by_head(self, q0, self:attribute("q_num_heads", 1)), by_head(self, k0, self:attribute("kv_num_heads", 1)), by_head(self, v0, self:attribute("kv_num_heads", 1))
  if past_key then k = self:emit("concat", { past_key, k }, { dim = 3 }) end
  if past_value then v = self:emit("concat", { past_value, v }, { dim = 3 }) end
  local key, value, times = k, v, q.shape[2] / k.shape[2]
  if times ~= math.floor(times) then self:fail("%d heads beside %d", q.shape[2], k.shape[2]) end
  q, k, v = self:cast(q, kind), repeated(self, self:cast(k, kind), times), repeated(self, self:cast(v, kind), times)
  local rows, columns = q.shape[3], k.shape[3]

  local scores = self:emit("matmul", { q, k }, { transpose_b = true })
  scores = self:emit("affine", { scores }, { scale = self:attribute("scale", 1 / math.sqrt(q.shape[4])), shift = 0 })
  local shown, mode = { [0] = scores }, self:attribute("qk_matmul_output_mode", 0)
  local cap = self:attribute("softcap", 0)
  if cap > 0 then
    scores = self:emit("affine", { (self:emit("tanh", { (self:emit("affine", { scores }, { scale = 1 / cap, shift = 0 })) })) }, { scale = cap, shift = 0 })
  end
  shown[1] = scores

  local biases, causal = {}, self:attribute("is_causal", 0) ~= 0
  local left, right = self:attribute("left_window_size", -1), self:attribute("right_window_size", -1)
  if mask then biases[1] = mask_bias(self, mask, columns, kind) end
  if causal or left >= 0 or right >= 0 then
    local offset = past_key and past_key.shape[3] or 0
    if filled and not past_key then offset = self:emit("affine", { filled }, { scale = 1, shift = -rows }) end
    right = right >= 0 and right or nil
    if causal then right = math.min(right or 0, 0) end
    biases[#biases + 1] = window_bias(self, rows, columns, left >= 0 and left or nil, right, offset, kind)
  end
  if filled then
    local here = self:emit("lt", { column(self, columns, { 1, 1, 1, columns }), self:reshaped(filled, { filled.shape[1], 1, 1, 1 }) }, nil, "bool")
    biases[#biases + 1] = bias_of(self, here, kind)
  end
  local bias = #biases > 0 and sum(self, biases) or nil
  if bias then scores = self:emit("add", { scores, bias }) end
  shown[2] = scores
  local weights = self:emit("softmax", { scores })
  if bias then weights = guarded(self, weights, bias) end
  shown[3] = weights

  local y = self:emit("matmul", { weights, v })
  if #q0.shape == 3 then y = self:reshaped(self:transposed(y, { 1, 3, 2, 4 }), { y.shape[1], rows, y.shape[2] * y.shape[4] }) end
  return self:cast(y, q0.kind), key, value, self:cast(shown[mode] or self:fail("qk_matmul_output_mode %s", tostring(mode)), q0.kind)
end

-- Positions first, first + step .. of the last dim, n of them.
local function part(self, x, first, n, step)
  local attr = { first = {}, last = { unpack(x.shape) }, step = {} }
  for d = 1, #x.shape do attr.first[d], attr.step[d] = 1, 1 end
  attr.first[#x.shape], attr.last[#x.shape], attr.step[#x.shape] = first, first + (n - 1) * step, step
  return (self:emit("slice", { x }, attr))
end

function entries.RotaryEmbedding(self)
  local x, cosine, sine, positions = self:input(1), self:input(2), self:input(3), self:input(4, true)
  local s, heads = x.shape, self:attribute("num_heads", 0)
  -- [B,S,H,D]
  local y = #s == 4 and self:transposed(x, { 1, 3, 2, 4 })
    or (heads > 0 and s[3] % heads == 0 or self:fail("[%s] with %d heads", table.concat(s, ","), heads)) and self:reshaped(x, { s[1], s[2], heads, s[3] / heads })
  local whole = y.shape[4]
  local turned = self:attribute("rotary_embedding_dim", 0)
  turned = turned == 0 and whole or turned
  if turned > whole or turned % 2 ~= 0 then self:fail("%d of %d numbers turn", turned, whole) end
  local n, interleaved = turned / 2, self:attribute("interleaved", 0) ~= 0
  local function angles(v)
    v = positions and self:emit("gather", { v, positions }, { dim = 1 }, v.kind) or v
    if v.shape[#v.shape] ~= n then self:fail("angles [%s] for %d numbers", table.concat(v.shape, ","), turned) end
    return self:reshaped(v, { v.shape[1], v.shape[2], 1, n })
  end
  local c, d = angles(cosine), angles(sine)
  local a, b = part(self, y, 1, n, interleaved and 2 or 1), part(self, y, interleaved and 2 or n + 1, n, interleaved and 2 or 1)
  local function mul(p, q) return (self:emit("mul", { p, q })) end
  local real, other = self:emit("sub", { mul(c, a), mul(d, b) }), self:emit("add", { mul(d, a), mul(c, b) })
  local out
  if interleaved then
    local shape = { y.shape[1], y.shape[2], y.shape[3], n, 1 }
    out = self:reshaped((self:emit("concat", { self:reshaped(real, shape), self:reshaped(other, shape) }, { dim = 5 })), { y.shape[1], y.shape[2], y.shape[3], turned })
  else
    out = self:emit("concat", { real, other }, { dim = 4 })
  end
  if turned < whole then out = self:emit("concat", { out, part(self, y, turned + 1, whole - turned, 1) }, { dim = 4 }) end
  return #s == 4 and self:transposed(out, { 1, 3, 2, 4 }) or self:reshaped(out, s)
end

return entries
