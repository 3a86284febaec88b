-- dropout.lua: random zeros in training mode.
local core = require "libration.core"
local module = require "libration.nn.module"
local ops = require "libration.ops.random"
local tensor = require "libration.tensor"

---@class Dropout: Module
local Dropout = module.class "Dropout"

--- Sets elements to 0 with probability p and scales the rest by 1 / (1 - p); nothing in evaluation mode. The numbers are Philox(seed, stream, counter);
--- the counter is a tensor that each forward moves, so that every replay of a plan draws anew.
---@param p number|nil .5
---@return Dropout
function Dropout.new(p)
  local self = module.create(Dropout)
  self.p = p or .5
  if type(self.p) ~= "number" or not (self.p >= 0 and self.p < 1) then core.raise("Dropout: p is " .. tostring(p) .. ", want 0 <= p < 1") end
  self.seed, self.stream = module.draw()
  self:buffer("counter", tensor.zeros({1}, "i32"), true)
  self:constant("one", tensor.ones({1}, "i32"))
  return self
end

---@param x Tensor
---@return Tensor of x's shape
function Dropout:forward(x)
  if not self.training or self.p == 0 then return x end
  local y = ops.dropout(x, self.counter, {p = self.p, seed = self.seed, stream = self.stream})
  self.counter:copy_(ops.raw.add(self.counter, self.one, nil))
  return y
end

function Dropout:extra() return "p " .. self.p end

return Dropout
