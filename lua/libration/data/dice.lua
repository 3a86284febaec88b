-- Small repeatable random numbers for generated data: sfc32 in 32-bit integer arithmetic. Not the tensors' generator.
local bit = require "bit"
local tobit, bxor, lshift, rshift, rol = bit.tobit, bit.bxor, bit.lshift, bit.rshift, bit.rol

local dice = {}
local Dice = {}
Dice.__index = Dice

--- Next 32 random bits. Source: Doty-Humphrey, PractRand, sfc32.
---@return integer bits -2^31 .. 2^31-1
function Dice:bits()
  local t = tobit(tobit(self.a + self.b) + self.n)
  self.n = tobit(self.n + 1)
  self.a = bxor(self.b, rshift(self.b, 9))
  self.b = tobit(self.c + lshift(self.c, 3))
  self.c = tobit(rol(self.c, 21) + t)
  return t
end

--- Uniform number in (lo, hi); without arguments in (0, 1).
---@param lo? number
---@param hi? number
---@return number
function Dice:uniform(lo, hi)
  local u = ((self:bits() % 4294967296) + 0.5) / 4294967296
  if not lo then return u end
  return lo + (hi - lo) * u
end

--- Standard normal number (Box and Muller; the second of each pair is dropped, so that every draw costs the same).
---@return number
function Dice:normal()
  local u, v = self:uniform(), self:uniform()
  return math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v)
end

--- Whole number in 1..n.
---@param n integer
---@return integer
function Dice:pick(n)
  return math.floor(self:uniform() * n) + 1
end

--- Puts a list into random order, in place.
---@param list any[]
---@return any[] list
function Dice:shuffle(list)
  for i = #list, 2, -1 do
    local j = self:pick(i)
    list[i], list[j] = list[j], list[i]
  end
  return list
end

--- A stream of its own for each combination of numbers.
---@param seed integer
---@param ... integer what the stream is for: sequence, purpose
---@return table
function dice.new(seed, ...)
  local self = setmetatable({a = tobit(seed), b = tobit(math.floor(seed / 4294967296)), c = 0x2545f491, n = 1}, Dice)
  for i = 1, select("#", ...) do
    for _ = 1, 6 do self:bits() end
    self.c = bxor(self.c, tobit((select(i, ...)) * 40503 + i))
  end
  for _ = 1, 15 do self:bits() end
  return self
end

return dice
