-- ONNX's convolution, global pools and batch norm: what slides over pictures [B,C,H,W] or runs by channel. Entries as in onnx/elementwise.lua.
local space = require "libration.graph.onnx.space"

local entries = {}

function entries.Conv(self) return space.convolution(self, self:input(1), self:input(2), self:input(3, true)) end

local function global(op)
  return function(self)
    local x, dims = self:input(1), {}
    for d = 3, #x.shape do dims[#dims + 1] = d end
    return self:emit(op, { x }, { dims = dims, keep = true })
  end
end
entries.GlobalAveragePool = global "mean"
entries.GlobalMaxPool = global "max"

-- One number a channel, for broadcasting over [B,C,...].
local function channels(self, v, x)
  local shape = { #x.shape > 1 and v.shape[1] or nil }
  for _ = 3, #x.shape do shape[#shape + 1] = 1 end
  return self:reshaped(v, shape)
end

-- (x - mean) / sqrt(variance + eps) * scale + shift as one product and one sum by channel: constants where the statistics are.
function entries.BatchNormalization(self)
  local x, scale, shift, mean, variance = unpack(self:inputs())
  if not variance then self:fail("%d inputs, want 5", #self.node.inputs) end
  local function of(op, a, b) return (self:emit(op, { a, b })) end
  local running_mean, running_variance
  if self:attribute("training_mode", 0) ~= 0 then
    local dims, keep = {}, self:attribute("momentum", .9)
    for d = 1, #x.shape do
      if d ~= 2 then dims[#dims + 1] = d end
    end
    local function mixed(old, new)
      return of("add", self:emit("affine", { old }, { scale = keep, shift = 0 }), self:emit("affine", { new }, { scale = 1 - keep, shift = 0 }))
    end
    local centre = self:emit("mean", { x }, { dims = dims, keep = true })
    local spread = self:emit("mean", { (self:emit("square", { of("sub", x, centre) })) }, { dims = dims })
    centre = self:reshaped(centre, mean.shape)
    running_mean, running_variance = mixed(mean, centre), mixed(variance, spread)
    mean, variance = centre, spread
  end
  local inverse = self:emit("reciprocal", { (self:emit("sqrt", { (self:emit("affine", { variance }, { scale = 1, shift = self:attribute("epsilon", 1e-5) })) })) })
  local factor = of("mul", scale, inverse)
  local rest = of("sub", shift, of("mul", mean, factor))
  return of("add", of("mul", x, channels(self, factor, x)), channels(self, rest, x)), running_mean, running_variance
end

return entries
