-- ONNX's Fourier transforms, windows and mel weights: products with matrices that are computed when the network is made. Entries as in onnx/elementwise.lua.
local tensor = require "libration.tensor"
local onnx_format = require "libration.formats.onnx"

local entries = {}

local MOST = 2 ^ 25 -- numbers of a matrix

-- cos and sin of 2 pi i / n for i from 0; exact where they are 0 or 1.
local function circle(n)
  local cosine, sine = {}, {}
  for i = 0, n - 1 do
    local eighth = 8 * i / n
    cosine[i] = (eighth == 2 or eighth == 6) and 0 or math.cos(2 * math.pi * i / n)
    sine[i] = (eighth == 0 or eighth == 4) and 0 or math.sin(2 * math.pi * i / n)
  end
  return cosine, sine
end

-- [length * parts, bins * 2]: what a signal of `length` numbers of 1 or 2 parts is multiplied by for `bins` complex numbers of a transform of n; numbers from n on count as 0.
local function transform(self, n, length, parts, bins, inverse)
  local columns = bins * 2
  if n < 1 or length * parts * columns > MOST then self:fail("a transform of %s numbers", tostring(n)) end
  local m = tensor.zeros({ length * parts, columns })
  local p, cosine, sine = m:ptr(), circle(n)
  local sign, scale = inverse and 1 or -1, inverse and 1 / n or 1
  for i = 0, math.min(length, n) - 1 do
    for k = 0, bins - 1 do
      local at = i * k % n
      local re, im = cosine[at] * scale, sign * sine[at] * scale
      local row = i * parts * columns + k * 2
      p[row], p[row + 1] = re, im
      if parts == 2 then p[row + columns], p[row + columns + 1] = -im, re end
    end
  end
  return m
end

-- [bins * 2, n]: what the first half of a spectrum is multiplied by for the n real numbers that it is of.
local function real_inverse(self, n, bins)
  if n < 1 or bins * 2 * n > MOST then self:fail("a transform of %s numbers", tostring(n)) end
  local m = tensor.zeros({ bins * 2, n })
  local p, cosine, sine = m:ptr(), circle(n)
  for k = 0, math.min(bins - 1, math.floor(n / 2)) do
    local weight = (k == 0 or 2 * k == n) and 1 / n or 2 / n
    for i = 0, n - 1 do
      local at = i * k % n
      p[2 * k * n + i], p[(2 * k + 1) * n + i] = weight * cosine[at], -weight * sine[at]
    end
  end
  return m
end

local function parts_of(self, x)
  local parts = x.shape[#x.shape]
  if #x.shape < 2 or parts ~= 1 and parts ~= 2 then self:fail("[%s], want 1 or 2 numbers in the last dim", table.concat(x.shape, ",")) end
  return parts
end

function entries.DFT(self)
  local x = self:input(1)
  local parts, rank = parts_of(self, x), #x.shape
  local axis
  if self.opset >= 20 then
    local given = self:input(3, true)
    axis = given and self:list(given)[1] or -2
  else
    axis = self:attribute("axis", 1)
  end
  local d, given = self:dim(axis, rank), self:input(2, true)
  if d == rank then self:fail("axis %d holds the parts of a number", axis) end
  local inverse, half = self:attribute("inverse", 0) ~= 0, self:attribute("onesided", 0) ~= 0
  local length, order, rows = x.shape[d], {}, 1
  local n = given and self:list(given)[1] or inverse and half and 2 * (length - 1) or length
  for i = 1, rank do order[i] = i end
  order[d], order[rank - 1] = rank - 1, d
  local source = self:transposed(x, order)
  for i = 1, rank - 2 do rows = rows * source.shape[i] end
  local matrix, out, width
  if inverse and half then
    if parts ~= 2 then self:fail("half a spectrum of [%s], want two parts", table.concat(x.shape, ",")) end
    matrix, out, width = real_inverse(self, n, length), n, 1
  else
    out, width = half and math.floor(n / 2) + 1 or n, 2
    matrix = transform(self, n, length, parts, out, inverse)
  end
  local flat = self:reshaped(source, { rows, length * parts })
  local kind = self:dtype(x)
  local y = self:emit("matmul", { flat, self:cast(self:constant(matrix), kind) })
  local shape = { unpack(source.shape, 1, rank - 2) }
  shape[rank - 1], shape[rank] = out, width
  return self:transposed(self:reshaped(y, shape), order)
end

-- Transforms of frames as one convolution along the signal: its weights are the transform's rows, times the window.
function entries.STFT(self)
  local x, step = self:input(1), self:list(self:input(2))[1]
  local window, given = self:input(3, true), self:input(4, true)
  local parts = parts_of(self, x)
  if #x.shape ~= 3 then self:fail("[%s], want [batch,length,parts]", table.concat(x.shape, ",")) end
  local n = given and self:list(given)[1] or window and window.shape[1] or x.shape[2]
  if not step or step < 1 or n < 1 or n > x.shape[2] then self:fail("frames of %s every %s of %d numbers", tostring(n), tostring(step), x.shape[2]) end
  if window and (#window.shape ~= 1 or window.shape[1] ~= n) then self:fail("a window of [%s] for frames of %d", table.concat(window.shape, ","), n) end
  local bins = self:attribute("onesided", 1) ~= 0 and math.floor(n / 2) + 1 or n
  local weights = self:constant(transform(self, n, n, parts, bins, false):transpose(1, 2):contiguous():reshape(bins * 2, n, 1, parts))
  weights = self:cast(weights, self:dtype(x))
  if window then weights = self:emit("mul", { weights, self:reshaped(window, { 1, n, 1, 1 }) }) end
  local y = self:emit("conv2d", { self:reshaped(x, { x.shape[1], x.shape[2], 1, parts }), weights },
    { stride = { step, 1 }, pad = { 0, 0, 0, 0 }, dilation = { 1, 1 }, groups = 1, act = "none" })
  return self:reshaped(y, { x.shape[1], y.shape[2], bins, 2 })
end

-- Cosine windows: a0 - a1 cos(2 pi i / n) + a2 cos(4 pi i / n), n the size, or one less where the window is symmetric.
for name, a in pairs { HannWindow = { .5, .5, 0 }, HammingWindow = { 25 / 46, 21 / 46, 0 }, BlackmanWindow = { .42, .5, .08 } } do
  entries[name] = function(self)
    local size = self:list(self:input(1))[1]
    if not size or size < 0 or size > MOST then self:fail("a window of %s", tostring(size)) end
    local values, n = {}, self:attribute("periodic", 1) ~= 0 and size or size - 1
    for i = 1, size do
      local angle = 2 * math.pi * (i - 1) / math.max(n, 1)
      values[i] = a[1] - a[2] * math.cos(angle) + a[3] * math.cos(2 * angle)
    end
    return self:cast(self:constant(tensor.tensor(values, "f64"), "f64"), onnx_format.kind(self:attribute("output_datatype", 1)))
  end
end

-- Triangles of height 1, evenly spaced in mels, as columns over the bins of half a spectrum.
function entries.MelWeightMatrix(self)
  local list = {}
  for i = 1, 5 do list[i] = self:list(self:input(i))[1] or self:fail("input %d is empty", i) end
  local bands, n, rate, low, high = unpack(list)
  local bins = math.floor(n / 2) + 1
  if bands < 0 or n < 1 or rate <= 0 or low < 0 or high < low or bands * bins > MOST then
    self:fail("%s bands of %s numbers at %s Hz from %s to %s Hz", tostring(bands), tostring(n), tostring(rate), tostring(low), tostring(high))
  end
  local function mel(hertz) return 2595 * math.log(1 + hertz / 700) / math.log(10) end
  local first, step, edge = mel(low), (mel(high) - mel(low)) / (bands + 2), {}
  for i = 0, bands + 1 do
    edge[i] = math.floor((n + 1) * 700 * (10 ^ ((first + i * step) / 2595) - 1) / rate)
    if edge[i] >= bins then self:fail("%s Hz at %s numbers a second", tostring(high), tostring(rate)) end
  end
  local m = tensor.zeros({ bins, bands }, "f64")
  for i = 0, bands - 1 do
    local left, centre, right = edge[i], edge[i + 1], edge[i + 2]
    for j = left, centre do m:set(centre == left and 1 or (j - left) / (centre - left), j + 1, i + 1) end
    for j = centre, right - 1 do m:set((right - j) / (right - centre), j + 1, i + 1) end
  end
  return self:cast(self:constant(m, "f64"), onnx_format.kind(self:attribute("output_datatype", 1)))
end

return entries
