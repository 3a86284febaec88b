-- ONNX's operators that enlarge, resize and sample pictures. Entries as in onnx/elementwise.lua.
local space = require "libration.graph.onnx.space"

local entries = {}

local function resize(self, x, sizes, scales, attr)
  local roi = self:integers(2)
  if not (roi and #roi == 2 * #x.shape) then roi = nil end
  attr.axes = {}
  for d, n in ipairs(x.shape) do
    local size = sizes and sizes[d] or math.floor(n * scales[d] + 1e-6) -- a scale such as 1.3 is a little less in f32
    local scale = scales and scales[d] or sizes[d] / n
    if size < 1 then self:fail("dim %d of [%s] to %s", d, table.concat(x.shape, ","), tostring(size)) end
    if size ~= n or scale ~= 1 or attr.transform == "tf_crop_and_resize" and roi then
      attr.axes[#attr.axes + 1] = { d = d, size = size, scale = scale, first = roi and roi[d] or 0, last = roi and roi[d + #x.shape] or 1 }
    end
  end
  if #attr.axes == 0 then return x end
  local whole = attr.mode ~= "nearest" and (self:dtype(x) == "u8" or self:dtype(x) == "i32")
  local y = self:emit("resize", { whole and self:cast(x, "f32") or x }, attr, not whole and x.kind or nil)
  return whole and self:cast(y, x.kind) or y
end

-- One number a dim of x from a list over `axes` (default all).
local function by_axes(self, x, list, rest)
  if not list or #list == 0 then return nil end
  local axes, out = self:attribute("axes", nil, "table"), {}
  for d, n in ipairs(x.shape) do out[d] = rest or n end
  if #list ~= #(axes or x.shape) then self:fail("%d numbers for %d axes", #list, #(axes or x.shape)) end
  for i, v in ipairs(list) do out[axes and self:dim(axes[i], #x.shape) or i] = v end
  return out
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
  local roi = self:integers(2)
  local axes = self:attribute("axes", nil, "table")
  if late and roi and axes and #roi == 2 * #axes then self:fail("a region of some axes is not supported") end
  return resize(self, x, sizes, scales, {
    mode = modes[mode] or self:fail("mode %s is not supported", mode), transform = transform,
    nearest = late and self:attribute("nearest_mode", "round_prefer_floor") or "floor", cubic = self:attribute("cubic_coeff_a", -.75),
    exclude_outside = self:attribute("exclude_outside", 0) ~= 0, antialias = self:attribute("antialias", 0) ~= 0, extrapolation = self:attribute("extrapolation_value", 0),
  })
end

function entries.Upsample(self)
  local x, mode = self:input(1), self:attribute("mode", "nearest")
  local scales = self:integers(2, "scales") or self:fail("no scales")
  if #scales ~= #x.shape then self:fail("%d scales for %d dims", #scales, #x.shape) end
  return resize(self, x, nil, scales, { mode = modes[mode] or self:fail("mode %s is not supported", mode), transform = "asymmetric", nearest = "floor" })
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
      if first < 0 then self:fail("an output of %d from %d", size, full) end
      if last < 0 then more[i], last = more[i] - last, 0 end
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
