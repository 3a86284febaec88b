-- ONNX's normalisations but batch norm. Entries as in onnx/elementwise.lua.
local space = require "libration.graph.onnx.space"
local tensor = require "libration.tensor"

local product = tensor.product

local entries = {}

-- Values in numbers that the norms take: halves in f32.
local function wide(self, v)
  return v and (v.kind == "f16" or v.kind == "bf16") and self:cast(v, "f32") or v
end

-- A scale or shift for the dims of x from d on, as a row; nil where it does not repeat over exactly these.
local function as_row(self, v, x, d)
  if not v then return nil end
  local shape = { unpack(x.shape, d) }
  if product(v.shape) ~= product(shape) then v = self:emit("expand", { v }, { shape = shape }) end
  return self:reshaped(v, { product(shape) })
end

-- x [..] as rows of the dims from d on.
local function as_rows(self, x, d)
  if d == #x.shape then return x end
  local shape = { unpack(x.shape, 1, d - 1) }
  shape[d] = product(x.shape, d)
  return self:reshaped(x, shape)
end

-- Mean over dims, and 1 / sqrt(variance + eps).
local function moments(self, x, d, eps)
  local dims = {}
  for i = d, #x.shape do dims[#dims + 1] = i end
  local attr = { dims = dims, keep = true }
  local mean = self:emit("mean", { x }, attr)
  local variance = self:emit("mean", { (self:emit("square", { (self:emit("sub", { x, mean })) })) }, attr)
  return mean, self:emit("reciprocal", { (self:emit("sqrt", { (self:emit("affine", { variance }, { scale = 1, shift = eps })) })) })
end

function entries.LayerNormalization(self)
  local x0, scale, shift = self:input(1), wide(self, self:input(2)), wide(self, self:input(3, true))
  local x, eps = wide(self, x0), self:attribute("epsilon", 1e-5)
  local d = self:dim(self:attribute("axis", -1), #x.shape)
  local y = self:emit("layer_norm", { as_rows(self, x, d), as_row(self, scale, x, d), as_row(self, shift, x, d) }, { eps = eps })
  y = self:cast(self:reshaped(y, x0.shape), x0.kind)
  if not self:wants(2) and not self:wants(3) then return y end
  return y, moments(self, x, d, eps)
end

function entries.RMSNormalization(self)
  local x0, scale = self:input(1), wide(self, self:input(2))
  local x = wide(self, x0)
  local d = self:dim(self:attribute("axis", -1), #x.shape)
  local y = self:emit("rms_norm", { as_rows(self, x, d), as_row(self, scale, x, d) }, { eps = self:attribute("epsilon", 1e-5) })
  return self:cast(self:reshaped(y, x0.shape), x0.kind)
end

-- One number a channel of [B,C,..], from one a channel or one a group.
local function by_channel(self, v, channels)
  if v.shape[1] == channels then return v end
  local each = channels / v.shape[1]
  if each ~= math.floor(each) then self:fail("%d numbers for %d channels", v.shape[1], channels) end
  return self:reshaped((self:emit("expand", { self:reshaped(v, { v.shape[1], 1 }) }, { shape = { v.shape[1], each } })), { channels })
end

local function group_norm(groups_of)
  return function(self)
    local x0, scale, shift = self:input(1), wide(self, self:input(2)), wide(self, self:input(3))
    local x, channels = wide(self, x0), x0.shape[2] or self:fail("fewer than two dims")
    local groups = groups_of(self, channels)
    if groups < 1 or channels % groups ~= 0 then self:fail("%d groups of %d channels", groups, channels) end
    local attr = { groups = groups, eps = self:attribute("epsilon", 1e-5) }
    return self:cast(space.emit(self, "group_norm", { x, by_channel(self, scale, channels), by_channel(self, shift, channels) }, attr), x0.kind)
  end
end
entries.GroupNormalization = group_norm(function(self) return self:attribute("num_groups", 1) end)
entries.InstanceNormalization = group_norm(function(_, channels) return channels end)

return entries
