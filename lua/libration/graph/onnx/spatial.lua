-- ONNX's operators that enlarge, resize and sample pictures. Entries as in onnx/elementwise.lua.
local space = require "libration.graph.onnx.space"

local entries = {}

-- One number a dim of x from a list over `axes` (default all).
local function by_axes(self, x, list, rest)
  if not list or #list == 0 then return nil end
  local axes, out = self:attribute("axes", nil, "table"), {}
  for d, n in ipairs(x.shape) do out[d] = rest or n end
  if #list ~= #(axes or x.shape) then self:fail("%d numbers for %d axes", #list, #(axes or x.shape)) end
  for i, v in ipairs(list) do out[axes and self:dim(axes[i], #x.shape) or i] = v end
  return out
end

local function resize(self, x, sizes, scales, attr, roi)
  attr.axes = {}
  for d, n in ipairs(x.shape) do
    local size = sizes and sizes[d] or math.floor(n * scales[d] + 1e-6) -- a scale such as 1.3 is a little less in f32
    local scale = scales and scales[d] or sizes[d] / n
    if size < 1 then self:fail("dim %d of [%s] to %s", d, table.concat(x.shape, ","), tostring(size)) end
    if size ~= n or scale ~= 1 or attr.transform == "tf_crop_and_resize" and roi then
      attr.axes[#attr.axes + 1] = { d = d, size = size, scale = scale, first = roi and roi[1][d] or 0, last = roi and roi[2][d] or 1 }
    end
  end
  if #attr.axes == 0 then return x end
  local whole = attr.mode ~= "nearest" and (self:dtype(x) == "u8" or self:dtype(x) == "i32")
  local y = self:emit("resize", { whole and self:cast(x, "f32") or x }, attr, not whole and x.kind or nil)
  return whole and self:cast(y, x.kind) or y
end

local modes = { nearest = "nearest", linear = "linear", cubic = "cubic", bilinear = "linear", bicubic = "cubic" }

function entries.Resize(self)
  local x, late = self:input(1), self.opset >= 11
  local scales = self:integers(late and 3 or 2)
  local sizes = late and by_axes(self, x, self:integers(4)) or nil
  scales = not sizes and by_axes(self, x, scales, 1) or nil
  if not sizes and not scales then self:fail("neither scales nor sizes") end
  local policy = self:attribute("keep_aspect_ratio_policy", "stretch")
  if sizes and policy ~= "stretch" then
    local axes, ratio = self:attribute("axes", nil, "table"), nil
    local pick = policy == "not_larger" and math.min or policy == "not_smaller" and math.max or self:fail("keep_aspect_ratio_policy %s", policy)
    local chosen = {}
    for i = 1, axes and #axes or #x.shape do chosen[i] = axes and self:dim(axes[i], #x.shape) or i end
    for _, d in ipairs(chosen) do ratio = ratio and pick(ratio, sizes[d] / x.shape[d]) or sizes[d] / x.shape[d] end
    scales = {}
    for d in ipairs(x.shape) do scales[d] = 1 end
    for _, d in ipairs(chosen) do sizes[d], scales[d] = math.floor(x.shape[d] * ratio + .5), ratio end
  end
  local transform = late and self:attribute("coordinate_transformation_mode", "half_pixel") or "asymmetric"
  local mode = self:attribute("mode", "nearest")
  local roi = late and transform == "tf_crop_and_resize" and self:integers(2) or nil
  if roi then roi = { by_axes(self, x, { unpack(roi, 1, #roi / 2) }, 0), by_axes(self, x, { unpack(roi, #roi / 2 + 1) }, 1) } end
  return resize(self, x, sizes, scales, {
    mode = modes[mode] or self:fail("mode %s is not supported", mode), transform = transform,
    nearest = late and self:attribute("nearest_mode", "round_prefer_floor") or "floor", cubic = self:attribute("cubic_coeff_a", -.75),
    exclude_outside = self:attribute("exclude_outside", 0) ~= 0, antialias = self:attribute("antialias", 0) ~= 0, extrapolation = self:attribute("extrapolation_value", 0),
  }, roi)
end

function entries.Upsample(self)
  local x, mode = self:input(1), self:attribute("mode", "nearest")
  local scales = self:integers(2, "scales") or self:fail("no scales")
  if #scales ~= #x.shape then self:fail("%d scales for %d dims", #scales, #x.shape) end
  return resize(self, x, nil, scales, { mode = modes[mode] or self:fail("mode %s is not supported", mode), transform = "asymmetric", nearest = "floor" })
end

local samples = { bilinear = "linear", linear = "linear", nearest = "nearest", bicubic = "cubic", cubic = "cubic" }

function entries.GridSample(self)
  local x, grid, mode = self:input(1), self:input(2), self:attribute("mode", "linear")
  space.count(self, x)
  return space.emit(self, "grid_sample", { x, self:cast(grid, x.kind) }, { mode = samples[mode] or self:fail("mode %s is not supported", mode),
    padding = self:attribute("padding_mode", "zeros"), corners = self:attribute("align_corners", 0) ~= 0 })
end

-- Places of an affine map for GridSample: theta [N,n,n+1] times the places of a plain grid.
function entries.AffineGrid(self)
  local theta, size = self:input(1), self:list(self:input(2))
  local n, corners, places, count = #size - 2, self:attribute("align_corners", 0) ~= 0, {}, 1
  if n < 1 or n > 3 or #theta.shape ~= 3 or theta.shape[2] ~= n or theta.shape[3] ~= n + 1 then
    self:fail("[%s] for [%s]", table.concat(theta.shape, ","), table.concat(size, ","))
  end
  for d = 3, #size do count = count * size[d] end
  if not (count >= 1 and count <= 2 ^ 22) then self:fail("a grid of [%s]", table.concat(size, ",")) end
  for i = 1, count do
    local rest, row = i - 1, {}
    for d = n, 1, -1 do
      local length = size[d + 2]
      local at = rest % length
      rest = (rest - at) / length
      row[n + 1 - d] = corners and (length > 1 and 2 * at / (length - 1) - 1 or 0) or (2 * at + 1) / length - 1
    end
    row[n + 1] = 1
    places[i] = row
  end
  local grid = self:emit("expand", { self:constant({ places }, theta.kind) }, { shape = { theta.shape[1], count, n + 1 } })
  local shape = { theta.shape[1], unpack(size, 3) }
  shape[#shape + 1] = n
  return self:reshaped((self:emit("matmul", { grid, theta }, { transpose_b = true })), shape)
end

-- Windows [B,C*kernel,L] added up where they lie.
function entries.Col2Im(self)
  local x, image, kernel = self:input(1), self:list(self:input(2)), self:list(self:input(3))
  local n, pads = #image, self:attribute("pads", nil, "table") or {}
  local stride, dilation = space.by_dim(self, "strides", n, 1), space.by_dim(self, "dilations", n, 1)
  local taps, windows, counts, pixels, padded = 1, 1, {}, 1, {}
  for i = 1, n do
    padded[i] = image[i] + (pads[i] or 0) + (pads[i + n] or 0)
    counts[i] = math.floor((padded[i] - dilation[i] * (kernel[i] - 1) - 1) / stride[i]) + 1
    taps, windows, pixels = taps * kernel[i], windows * counts[i], pixels * padded[i]
  end
  if #kernel ~= n or #x.shape ~= 3 or x.shape[3] ~= windows or x.shape[2] % taps ~= 0 or taps * windows > 2 ^ 22 then
    self:fail("[%s] as windows of [%s] in [%s]", table.concat(x.shape, ","), table.concat(kernel, ","), table.concat(image, ","))
  end
  local index = {}
  for t = 0, taps - 1 do
    for w = 0, windows - 1 do
      local at, step, tap, window = 0, 1, t, w
      for i = n, 1, -1 do
        local k, o = tap % kernel[i], window % counts[i]
        tap, window = (tap - k) / kernel[i], (window - o) / counts[i]
        at = at + (o * stride[i] + k * dilation[i]) * step
        step = step * padded[i]
      end
      index[#index + 1] = at
    end
  end
  local planes = x.shape[1] * x.shape[2] / taps
  local where = self:emit("expand", { self:constant({ index }, "i64") }, { shape = { planes, taps * windows } })
  local zeros = self:emit("expand", { self:constant({ { 0 } }, x.kind) }, { shape = { planes, pixels } })
  local y = self:emit("scatter_elements", { zeros, where, self:reshaped(x, { planes, taps * windows }) }, { dim = 2, kind = "add" })
  y = self:reshaped(y, { x.shape[1], x.shape[2] / taps, unpack(padded) })
  local slice = { first = { 1, 1 }, last = { unpack(y.shape) }, step = { 1, 1 } }
  for i = 1, n do slice.first[i + 2], slice.last[i + 2], slice.step[i + 2] = 1 + (pads[i] or 0), (pads[i] or 0) + image[i], 1 end
  return (self:emit("slice", { y }, slice))
end

-- Regions of pictures as grids of equal size.
function entries.RoiAlign(self)
  local x, regions, picture = self:input(1), self:input(2), self:input(3)
  local size, ratio = { self:attribute("output_height", 1), self:attribute("output_width", 1) }, self:attribute("sampling_ratio", 0)
  if ratio < 1 then self:fail("a sampling_ratio of %d, which is another number of points for each region, is not supported", ratio) end
  local half = self.opset >= 16 and self:attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel"
  return space.emit(self, "roi_align", { x, regions, picture }, { size = size, ratio = ratio, scale = self:attribute("spatial_scale", 1), shift = half and .5 or 0,
    max = self:attribute("mode", "avg") == "max" })
end

-- The middle of x, or x in the middle of zeros.
function entries.CenterCropPad(self)
  local x, sizes, axes = self:input(1), self:list(self:input(2)), self:attribute("axes", nil, "table")
  local slice, before, after, more = { first = {}, last = {}, step = {} }, {}, {}, false
  for d, n in ipairs(x.shape) do slice.first[d], slice.last[d], slice.step[d], before[d], after[d] = 1, n, 1, 0, 0 end
  for i, size in ipairs(sizes) do
    local d = axes and self:dim(axes[i] or self:fail("%d axes for %d sizes", #axes, #sizes), #x.shape) or i
    local rest = size - (x.shape[d] or self:fail("%d sizes for [%s]", #sizes, table.concat(x.shape, ",")))
    if rest < 0 then
      slice.first[d] = math.floor(-rest / 2) + 1
      slice.last[d] = slice.first[d] + size - 1
    else
      before[d], after[d] = math.floor(rest / 2), math.ceil(rest / 2)
      more = more or rest > 0
    end
  end
  local y = self:emit("slice", { x }, slice)
  return more and (self:emit("pad", { y }, { before = before, after = after, value = 0 })) or y
end

function entries.ConvTranspose(self)
  local x0, w, b = self:input(1), self:input(2), self:input(3, true)
  local n, groups = space.count(self, x0), self:attribute("group", 1)
  if #w.shape ~= #x0.shape or w.shape[1] ~= x0.shape[2] or groups < 1 or w.shape[1] % groups ~= 0 then
    self:fail("weights [%s] in %d groups for [%s]", table.concat(w.shape, ","), groups, table.concat(x0.shape, ","))
  end
  local stride, dilation = space.by_dim(self, "strides", n, 1), space.by_dim(self, "dilations", n, 1)
  local more, asked, auto = space.by_dim(self, "output_padding", n, 0), self:attribute("output_shape", nil, "table"), self:attribute("auto_pad", "NOTSET")
  local pads, pad = self:attribute("pads", nil, "table") or {}, {}
  for i = 1, n do
    local full = (x0.shape[i + 2] - 1) * stride[i] + (w.shape[i + 2] - 1) * dilation[i] + 1
    local first, last = pads[i] or 0, pads[i + n] or 0
    local size = asked and (asked[#asked - n + i] or self:fail("output_shape of [%s]", table.concat(asked, ",")))
      or (auto == "SAME_UPPER" or auto == "SAME_LOWER") and x0.shape[i + 2] * stride[i]
    if size then
      local total = full + more[i] - size
      first = auto == "SAME_UPPER" and math.floor(total / 2) or math.ceil(total / 2)
      if asked and auto == "NOTSET" then first = math.floor(total / 2) end
      last = total - first
      if total < 0 then more[i], first, last = more[i] - total, 0, 0 end
    elseif auto == "VALID" then
      first, last = 0, 0
    end
    pad[2 * i - 1], pad[2 * i] = first, last
  end
  local x = x0
  if n == 1 then -- a picture of one row
    x, w = self:reshaped(x, { x.shape[1], x.shape[2], 1, x.shape[3] }), self:reshaped(w, { w.shape[1], w.shape[2], 1, w.shape[3] })
    stride, dilation, more, pad = { 1, stride[1] }, { 1, dilation[1] }, { 0, more[1] }, { 0, 0, pad[1], pad[2] }
  end
  local attr = { stride = stride, dilation = dilation, pad = pad, output_pad = more, groups = groups }
  local y = space.emit(self, n == 3 and "conv_transpose3d" or "conv_transpose2d", { x, self:transposed(w, (space.orders(#w.shape))), b }, attr)
  return n == 1 and self:reshaped(y, { y.shape[1], y.shape[2], y.shape[4] }) or y
end

return entries
