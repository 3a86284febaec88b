-- PyTorch's and numpy's random numbers for the CPU, bit for bit: initial weights of nn.LSTM and nn.Linear, numpy's permutations. Not PyTorch itself: no layers, no other
-- distribution, nothing for use outside of specs. Written from the published algorithms: MT19937 (Matsumoto and Nishimura 1998), PCG XSL RR 128/64 (O'Neill 2014) with
-- O'Neill's seed_seq of 2015, the shuffle of Fisher and Yates (Durstenfeld 1964); how the two libraries use them is settled by comparing numbers.
local bit = require "bit"
local ffi = require "ffi"

local band, bor, bxor, lshift, rshift, ror = bit.band, bit.bor, bit.bxor, bit.lshift, bit.rshift, bit.ror
local tobit, u64 = bit.tobit, ffi.typeof "uint64_t"

local function u32(x) return band(x, 0xffffffffULL) end

local twin = {}

-- ---- torch.manual_seed and uniform_ ----

local N, M = 624, 397

---@class TorchGenerator
local Torch = {}
Torch.__index = Torch

--- PyTorch's generator after torch.manual_seed(seed).
---@param seed integer
---@return TorchGenerator
function twin.manual_seed(seed)
  local state = ffi.new("int32_t[?]", N)
  state[0] = tobit(seed)
  for i = 1, N - 1 do
    local last = state[i - 1]
    state[i] = tobit(tonumber(u32(u64(bxor(last, rshift(last, 30)) % 2 ^ 32) * 1812433253ULL + i)))
  end
  return setmetatable({ state = state, at = N }, Torch)
end

local function twist(state)
  for i = 0, N - 1 do
    local y = bor(band(state[i], 0x80000000), band(state[(i + 1) % N], 0x7fffffff))
    state[i] = bxor(state[(i + M) % N], rshift(y, 1), band(y, 1) * 0x9908b0df)
  end
end

--- Next 32 bits, as a signed number.
function Torch:random()
  if self.at == N then
    twist(self.state)
    self.at = 0
  end
  local y = self.state[self.at]
  self.at = self.at + 1
  y = bxor(y, rshift(y, 11))
  y = bxor(y, band(lshift(y, 7), 0x9d2c5680))
  y = bxor(y, band(lshift(y, 15), 0xefc60000))
  return bxor(y, rshift(y, 18))
end

--- A float32 tensor's uniform_(-bound, bound).
---@param t Tensor contiguous
---@param bound number
function Torch:uniform(t, bound)
  local p, float = t:ptr(), ffi.new("float[1]", bound)[0]
  for i = 0, t:numel() - 1 do p[i] = band(self:random(), 0xffffff) * 2 ^ -24 * (2 * float) - float end
  t:touch()
end

--- Weights of a fresh nn.LSTM of one layer, into a layer of ours.
function Torch:lstm(layer)
  for _, name in ipairs { "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0" } do self:uniform(layer[name], 1 / math.sqrt(layer.hidden)) end
end

--- Weights of a fresh nn.Linear, into a layer of ours.
function Torch:linear(layer)
  self:uniform(layer.weight, 1 / math.sqrt(layer.inputs))
  self:uniform(layer.bias, 1 / math.sqrt(layer.inputs))
end

-- ---- numpy.random.default_rng ----

-- Four words of 64 bits from a seed below 2^32.
local function seed_words(seed)
  local hash = 0x43b0d7e5ULL
  local function hashed(value)
    value = bxor(value, hash)
    hash = u32(hash * 0x931e8875ULL)
    value = u32(value * hash)
    return bxor(value, rshift(value, 16))
  end
  local pool = {}
  for i = 1, 4 do pool[i] = hashed(i == 1 and u64(seed) or 0ULL) end
  for from = 1, 4 do
    for to = 1, 4 do
      if from ~= to then
        local value = u32(pool[to] * 0xca01f9ddULL - hashed(pool[from]) * 0x4973f715ULL)
        pool[to] = bxor(value, rshift(value, 16))
      end
    end
  end
  hash = 0x8b51f9ddULL
  local words = { 0ULL, 0ULL, 0ULL, 0ULL }
  for i = 0, 7 do
    local value = bxor(pool[i % 4 + 1], hash)
    hash = u32(hash * 0x58f38dedULL)
    value = u32(value * hash)
    value = bxor(value, rshift(value, 16))
    local k = math.floor(i / 2) + 1
    words[k] = bor(words[k], lshift(value, i % 2 * 32))
  end
  return words
end

-- All 128 bits of a product.
local function product(a, b)
  local a0, a1, b0, b1 = u32(a), rshift(a, 32), u32(b), rshift(b, 32)
  local low = a0 * b0
  local middle = a1 * b0 + rshift(low, 32)
  local other = a0 * b1 + u32(middle)
  return a1 * b1 + rshift(middle, 32) + rshift(other, 32), bor(lshift(other, 32), u32(low))
end

local function sum(a_high, a_low, b_high, b_low)
  local low = a_low + b_low
  return a_high + b_high + (low < a_low and 1 or 0), low
end

---@class NumpyGenerator
local Numpy = {}
Numpy.__index = Numpy

local MULTIPLIER_HIGH, MULTIPLIER_LOW = 0x2360ed051fc65da4ULL, 0x4385df649fccf645ULL

local function advance(self)
  local high, low = product(self.low, MULTIPLIER_LOW)
  high = high + self.high * MULTIPLIER_LOW + self.low * MULTIPLIER_HIGH
  self.high, self.low = sum(high, low, self.step_high, self.step_low)
end

--- numpy.random.default_rng(seed).
---@param seed integer below 2^32
---@return NumpyGenerator
function twin.default_rng(seed)
  local w = seed_words(seed)
  local self = setmetatable({ high = 0ULL, low = 0ULL, step_high = bor(lshift(w[3], 1), rshift(w[4], 63)), step_low = bor(lshift(w[4], 1), 1ULL) }, Numpy)
  advance(self)
  self.high, self.low = sum(self.high, self.low, w[1], w[2])
  advance(self)
  return self
end

--- Next 32 bits: the lower half of 64, then the upper.
---@return ffi.cdata* uint64_t
function Numpy:random()
  local kept = self.kept
  if kept then
    self.kept = nil
    return kept
  end
  advance(self)
  local value = ror(bxor(self.high, self.low), tonumber(rshift(self.high, 58)))
  self.kept = rshift(value, 32)
  return u32(value)
end

--- A whole number from 0 to most, each as likely: as many bits as most has, drawn until they are no larger.
---@param most integer from 1, below 2^31
---@return integer
function Numpy:interval(most)
  local mask = 1
  while mask < most do mask = 2 * mask + 1 end
  while true do
    local value = tonumber(band(self:random(), u64(mask)))
    if value <= most then return value end
  end
end

--- permutation(n).
---@return integer[] n numbers from 0
function Numpy:permutation(n)
  local list = {}
  for i = 1, n do list[i] = i - 1 end
  for i = n - 1, 1, -1 do
    local j = self:interval(i)
    list[i + 1], list[j + 1] = list[j + 1], list[i + 1]
  end
  return list
end

return twin
