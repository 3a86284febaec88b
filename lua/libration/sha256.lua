-- SHA-256 in Lua (FIPS 180-4), compiled by LuaJIT; for text and small files. Large files go through files.sha256. No other hash is here.
local bit = require "bit"
local ffi = require "ffi"

local band, bnot, bxor, ror, rshift, lshift = bit.band, bit.bnot, bit.bxor, bit.ror, bit.rshift, bit.lshift

local sha256 = {}

-- The first 32 bits of the fractional parts of the square roots (start) and cube roots (K) of the first primes, computed
-- exactly enough in double arithmetic: a square root has 53 bits, a cube root is corrected by one Newton step.
local K, START = ffi.new("int32_t[64]"), ffi.new("int32_t[8]")
do
  local count, candidate = 0, 2
  while count < 64 do
    local prime = true
    for divisor = 2, math.floor(math.sqrt(candidate)) do
      if candidate % divisor == 0 then prime = false break end
    end
    if prime then
      local root = candidate ^ (1 / 3)
      root = root - (root * root * root - candidate) / (3 * root * root)
      K[count] = bit.tobit(math.floor(root % 1 * 2 ^ 32))
      if count < 8 then START[count] = bit.tobit(math.floor(math.sqrt(candidate) % 1 * 2 ^ 32)) end
      count = count + 1
    end
    candidate = candidate + 1
  end
end

local W = ffi.new("int32_t[64]")

-- One block of 64 bytes at p[at..at+63] into state.
local function block(state, p, at)
  for i = 0, 15 do
    local o = at + i * 4
    W[i] = bit.bor(lshift(p[o], 24), lshift(p[o + 1], 16), lshift(p[o + 2], 8), p[o + 3])
  end
  for i = 16, 63 do
    local x, y = W[i - 15], W[i - 2]
    -- tobit: storing a number outside int32 into an int32_t array differs between interpreter and compiled code
    W[i] = bit.tobit(W[i - 16] + bxor(ror(x, 7), ror(x, 18), rshift(x, 3)) + W[i - 7] + bxor(ror(y, 17), ror(y, 19), rshift(y, 10)))
  end
  local a, b, c, d, e, f, g, h = state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7]
  for i = 0, 63 do
    local t1 = bit.tobit(h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(band(e, f), band(bnot(e), g)) + K[i] + W[i])
    local t2 = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bxor(band(a, b), band(a, c), band(b, c))
    h, g, f, e, d, c, b, a = g, f, e, bit.tobit(d + t1), c, b, a, bit.tobit(t1 + t2)
  end
  state[0], state[1], state[2], state[3] = bit.tobit(state[0] + a), bit.tobit(state[1] + b), bit.tobit(state[2] + c), bit.tobit(state[3] + d)
  state[4], state[5], state[6], state[7] = bit.tobit(state[4] + e), bit.tobit(state[5] + f), bit.tobit(state[6] + g), bit.tobit(state[7] + h)
end

local Hash = {}
Hash.__index = Hash

---A hash that is fed piece by piece.
---@return table hash with :add(text) and :hex()
function sha256.new()
  return setmetatable({state = ffi.new("int32_t[8]", START), length = 0, rest = ""}, Hash)
end

---Adds bytes; returns the hash itself.
function Hash:add(text)
  self.length = self.length + #text
  if #self.rest > 0 then text = self.rest .. text end
  local p, whole = ffi.cast("const uint8_t *", text), #text - #text % 64
  for at = 0, whole - 64, 64 do block(self.state, p, at) end
  self.rest = text:sub(whole + 1)
  return self
end

---@return string hex 64 lower-case digits; the hash must not be fed any more
function Hash:hex()
  local bits = self.length * 8
  local tail = "\128" .. ("\0"):rep((55 - self.length) % 64)
  for shift = 7, 0, -1 do tail = tail .. string.char(math.floor(bits / 2 ^ (8 * shift)) % 256) end
  self:add(tail)
  local words = {}
  for i = 0, 7 do words[i + 1] = bit.tohex(self.state[i]) end
  return table.concat(words)
end

---@param text string any bytes
---@return string hex 64 lower-case digits
function sha256.hex(text)
  return sha256.new():add(text):hex()
end

return sha256
