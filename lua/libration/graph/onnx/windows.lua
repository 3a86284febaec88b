-- ONNX's convolutions, pools and batch norm: what slides over pictures [B,C,H,W] or runs by channel. Entries as in onnx/elementwise.lua.
local entries = {}

local FROM_NCHW, TO_NCHW = { 1, 3, 4, 2 }, { 1, 4, 2, 3 }

local function spatial(self, x)
  local n = #x.shape - 2
  if n < 1 or n > 2 then self:fail("[%s]: %d dims of space, want one or two", table.concat(x.shape, ","), n) end
  return n
end

-- A sequence [B,C,W] as a picture of one row.
local function as_picture(self, x)
  return #x.shape == 3 and self:reshaped(x, { x.shape[1], x.shape[2], 1, x.shape[3] }) or x
end

local function as_before(self, y, x)
  return #x.shape == 3 and self:reshaped(y, { y.shape[1], y.shape[2], y.shape[4] }) or y
end

-- An attribute of one number a dim of space, for two dims.
local function by_dim(self, name, n, default)
  local list = self:attribute(name, nil, "table") or {}
  local out = n == 1 and { default, list[1] or default } or { list[1] or default, list[2] or default }
  for _, v in ipairs(out) do
    if v < (name == "pads" and 0 or 1) then self:fail("%s of [%s]", name, table.concat(list, ",")) end
  end
  return out
end

-- {top, bottom, left, right} of a window; with `ceil` enlarged at the end so that the last window, which must begin before the end, is whole.
local function padding(self, x, n, kernel, stride, dilation, ceil)
  local auto, list = self:attribute("auto_pad", "NOTSET"), self:attribute("pads", nil, "table") or {}
  local pad, extra = {}, { 0, 0 }
  for d = 1, 2 do
    local size, reach = x.shape[d + 2], (kernel[d] - 1) * dilation[d] + 1
    local before, after = 0, 0
    if n == 2 or d == 2 then
      if auto == "NOTSET" then
        local k = n == 2 and d or 1
        before, after = list[k] or 0, list[k + n] or 0
        if before < 0 or after < 0 then self:fail("negative pads") end
      elseif auto ~= "VALID" then
        local total = math.max((math.ceil(size / stride[d]) - 1) * stride[d] + reach - size, 0)
        before = auto == "SAME_UPPER" and math.floor(total / 2) or math.ceil(total / 2)
        after = total - before
      end
    end
    local room = size + before + after - reach
    if room < 0 then self:fail("a window of %d in %d pixels", reach, size + before + after) end
    if ceil then
      local windows = math.ceil(room / stride[d])
      if windows * stride[d] >= size + before then windows = windows - 1 end
      extra[d] = math.max(0, windows * stride[d] - room)
    end
    pad[2 * d - 1], pad[2 * d] = before, after
  end
  return pad, extra
end

function entries.Conv(self)
  local x0, w, b = self:input(1), self:input(2), self:input(3, true)
  local n, groups = spatial(self, x0), self:attribute("group", 1)
  local x = as_picture(self, x0)
  if #w.shape ~= #x0.shape then self:fail("weights [%s] for [%s]", table.concat(w.shape, ","), table.concat(x0.shape, ",")) end
  w = as_picture(self, w)
  local outputs, inputs, kernel = w.shape[1], w.shape[2], { w.shape[3], w.shape[4] }
  if groups < 1 or inputs * groups ~= x.shape[2] or outputs % groups ~= 0 then
    self:fail("weights [%s] in %d groups for %d channels", table.concat(w.shape, ","), groups, x.shape[2])
  end
  local stride, dilation = by_dim(self, "strides", n, 1), by_dim(self, "dilations", n, 1)
  local attr = { stride = stride, dilation = dilation, pad = padding(self, x, n, kernel, stride, dilation), act = "none" }
  local y
  local picture = self:transposed(x, FROM_NCHW)
  if groups > 1 and inputs == 1 and outputs == groups then
    y = self:emit("depthwise", { picture, self:transposed(w, { 2, 3, 4, 1 }), b }, attr)
  else
    attr.groups = groups
    y = self:emit("conv2d", { picture, self:transposed(w, FROM_NCHW), b }, attr)
  end
  return as_before(self, self:transposed(y, TO_NCHW), x0)
end

-- A pool of the IR over x [B,C,H,W].
local function pool(self, op, x, kernel, stride, pad)
  return self:transposed(self:emit(op, { self:transposed(x, FROM_NCHW) }, { kernel = kernel, stride = stride, pad = pad }), TO_NCHW)
end

local function window_of(self, x0)
  local n = spatial(self, x0)
  local x = as_picture(self, x0)
  if not self:attribute("kernel_shape", nil, "table") then self:fail("no kernel_shape") end
  local kernel, stride, dilation = by_dim(self, "kernel_shape", n, 1), by_dim(self, "strides", n, 1), by_dim(self, "dilations", n, 1)
  if dilation[1] ~= 1 or dilation[2] ~= 1 then self:fail("a pool with dilation is not supported") end
  local pad, extra = padding(self, x, n, kernel, stride, dilation, self:attribute("ceil_mode", 0) ~= 0)
  return x, kernel, stride, pad, extra
end

local function sum_pads(pad, extra)
  return { pad[1], pad[2] + extra[1], pad[3], pad[4] + extra[2] }
end

function entries.MaxPool(self)
  if self:wants(2) then self:fail("the positions of a maximum are not supported") end
  local x0 = self:input(1)
  local x, kernel, stride, pad, extra = window_of(self, x0)
  local whole = self:dtype(x) == "u8" or self:dtype(x) == "i32"
  if whole then x = self:cast(x, "f32") end
  local y = pool(self, "max_pool2d", x, kernel, stride, sum_pads(pad, extra))
  return as_before(self, whole and self:cast(y, x0.kind) or y, x0)
end

function entries.AveragePool(self)
  local x0 = self:input(1)
  local x, kernel, stride, pad, extra = window_of(self, x0)
  if self:attribute("count_include_pad", 0) ~= 0 and pad[1] + pad[2] + pad[3] + pad[4] > 0 then
    x = self:emit("pad", { x }, { before = { 0, 0, pad[1], pad[3] }, after = { 0, 0, pad[2], pad[4] }, value = 0 })
    pad = { 0, 0, 0, 0 }
  end
  return as_before(self, pool(self, "avg_pool2d", x, kernel, stride, sum_pads(pad, extra)), x0)
end

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
