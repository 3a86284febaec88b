-- spatial.lua: convolutions and pools of one to three dims, transposed, dilated, and resizing in every convention; made of the ops in ops.lua. Channels are the last dim.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"
require "libration.ops.index"

local raise = core.raise
local raw, rows = ops.raw, ops.rows
local none = {}

-- A number for each of n dims.
local function each(value, n, default)
  if type(value) == "table" then return value end
  local out = {}
  for i = 1, n do out[i] = value or default end
  return out
end

local function dims(x, name, low, high)
  if not tensor.is_tensor(x) then raise(("%s: x is a %s, want a tensor"):format(name, type(x))) end
  if x.ndim < low or x.ndim > high then raise(("%s: x is %s, want %d to %d dims"):format(name, tensor.describe(x), low, high)) end
  return x.shape
end

---------------------------------------------------------------------------------------------------- convolutions

--- Transposed convolution: the gradient of conv2d as an op. options: stride, dilation (number or {h,w}), pad (number, {h,w} or {top,bottom,left,right}: cut off),
--- output_pad (number or {h,w}: added at the bottom and right), groups.
---@param x Tensor [B,H,W,C]
---@param w Tensor [C,KH,KW,O/groups]
---@param b Tensor|nil [O]
---@param options table|nil
---@return Tensor [B,OH,OW,O], OH = (H - 1) * stride + dilation * (KH - 1) + 1 - top - bottom + output_pad
function ops.conv_transpose2d(x, w, b, options)
  local name = "conv_transpose2d"
  options = options or none
  local shape, attr, after = dims(x, name, 4, 4), rows.conv2d_backward_input.attr(), {0, 0, 0, 0}
  dims(w, name, 4, 4)
  local stride, dilation, pad, more = each(options.stride, 2, 1), each(options.dilation, 2, 1), each(options.pad, 4, 0), each(options.output_pad, 2, 0)
  if #pad == 2 then pad = {pad[1], pad[1], pad[2], pad[2]} end
  attr.groups = tensor.whole(options.groups or 1, name, "groups", 1)
  for i = 1, 2 do
    local full = (shape[i + 1] - 1) * stride[i] + dilation[i] * (w:size(i + 1) - 1) + 1
    local first, last = pad[2 * i - 1], pad[2 * i] - more[i] -- what output_pad adds is less cut off, and zeros past the end
    after[i + 1] = math.max(0, -last)
    last = math.max(0, last)
    attr.stride[i - 1], attr.dilation[i - 1] = tensor.whole(stride[i], name, "stride", 1), tensor.whole(dilation[i], name, "dilation", 1)
    attr.pad[2 * i - 2], attr.pad[2 * i - 1] = tensor.whole(first, name, "pad", 0), tensor.whole(last, name, "pad", 0)
    attr.size[i - 1] = tensor.whole(full - first - last, name, "the output's size", 0)
  end
  local y = raw.conv2d_backward_input(x, w, attr)
  if after[2] + after[3] > 0 then y = ops.pad(y, {0, 0, 0, 0}, after) end
  return b and y + b or y
end

-- Picture by picture: [B,D,H,W,C] -> [B*D,H,W,C], and back with other sizes.
local function flat(x)
  local s = x.shape
  return x:reshape(s[1] * s[2], s[3], s[4], s[5])
end
local function deep(y, batch, depth)
  local s = y.shape
  return y:reshape(batch, depth, s[2], s[3], s[4])
end

--- Convolution over three dims, a sum of convolutions over two. options: stride, dilation (number or {d,h,w}), pad (number or {front,back,top,bottom,left,right}), groups.
---@param x Tensor [B,D,H,W,C]
---@param w Tensor [O,KD,KH,KW,C/groups]
---@param b Tensor|nil [O]
---@param options table|nil
---@return Tensor [B,OD,OH,OW,O]
function ops.conv3d(x, w, b, options)
  options = options or none
  local s = dims(x, "conv3d", 5, 5)
  dims(w, "conv3d", 5, 5)
  local stride, dilation, pad = each(options.stride, 3, 1), each(options.dilation, 3, 1), each(options.pad, 6, 0)
  local KD = w:size(2)
  local depth = math.floor((s[2] + pad[1] + pad[2] - dilation[1] * (KD - 1) - 1) / stride[1]) + 1
  if depth < 1 then raise(("conv3d: a kernel of %d does not fit into %s"):format(KD, tensor.describe(x))) end
  local padded, y = ops.pad(x, {0, pad[1], 0, 0, 0}, {0, pad[2], 0, 0, 0}), nil
  for k = 1, KD do
    local slices = flat(padded:slice(2, 1 + (k - 1) * dilation[1], depth, stride[1]))
    y = ops.conv2d(slices, w:select(2, k), k == 1 and b or nil, {stride = {stride[2], stride[3]}, dilation = {dilation[2], dilation[3]},
      pad = {pad[3], pad[4], pad[5], pad[6]}, groups = options.groups, residual = y})
  end
  return deep(y, s[1], depth)
end

--- Transposed convolution over three dims; options as conv3d and conv_transpose2d.
---@param x Tensor [B,D,H,W,C]
---@param w Tensor [C,KD,KH,KW,O/groups]
---@param b Tensor|nil [O]
---@return Tensor [B,OD,OH,OW,O]
function ops.conv_transpose3d(x, w, b, options)
  options = options or none
  local s = dims(x, "conv_transpose3d", 5, 5)
  dims(w, "conv_transpose3d", 5, 5)
  local stride, dilation, pad, more = each(options.stride, 3, 1), each(options.dilation, 3, 1), each(options.pad, 6, 0), each(options.output_pad, 3, 0)
  local reach, y = (s[2] - 1) * stride[1] + dilation[1] * (w:size(2) - 1) + 1, nil
  for k = 1, w:size(2) do
    local z = deep(ops.conv_transpose2d(flat(x), w:select(2, k), nil, {stride = {stride[2], stride[3]}, dilation = {dilation[2], dilation[3]},
      pad = {pad[3], pad[4], pad[5], pad[6]}, output_pad = {more[2], more[3]}, groups = options.groups}), s[1], s[2])
    local own = z.shape
    z = ops.pad(z:unsqueeze(3), {0, 0, 0, 0, 0, 0}, {0, 0, stride[1] - 1, 0, 0, 0}):reshape(own[1], own[2] * stride[1], own[3], own[4], own[5])
    local first = (k - 1) * dilation[1]
    z = ops.pad_mode(z, {0, first - pad[1], 0, 0, 0}, {0, reach - first - own[2] * stride[1] + more[1] - pad[2], 0, 0, 0})
    y = y and y + z or z
  end
  return b and y + b or y
end

---------------------------------------------------------------------------------------------------- pools

--- Positions of a window along n pixels: ceil counts one that only starts inside (or in the padding before).
---@return integer
function ops.window_count(n, kernel, stride, first, last, dilation, ceil)
  local room = n + first + last - dilation * (kernel - 1) - 1
  if room < 0 then raise(("pool: a kernel of %d (dilation %d) does not fit into %d + %d + %d"):format(kernel, dilation, first, n, last)) end
  local count = (ceil and math.ceil or math.floor)(room / stride) + 1
  return (count - 1) * stride >= n + first and count - 1 or count
end

-- Sum or maximum of each window along dim d, as slices of the padded tensor.
local function slide(x, d, kind, a, count)
  local first, last = {}, {}
  for i = 1, x.ndim do first[i], last[i] = 0, 0 end
  first[d], last[d] = a.first, math.max(0, (count - 1) * a.stride + a.dilation * (a.kernel - 1) + 1 - x:size(d) - a.first)
  x = ops.pad(x, first, last, kind == "max" and -math.huge or 0)
  local y
  for k = 0, a.kernel - 1 do
    local v = x:slice(d, 1 + k * a.dilation, count, a.stride)
    y = y and (kind == "max" and ops.maximum(y, v) or y + v) or v
  end
  return y
end

-- How many pixels (and of the padding, where it counts) each window along an axis covers.
local function covered(a, n, count)
  local out = {}
  local low, high = a.include_pad and -a.first or 0, a.include_pad and n + a.last or n
  for i = 1, count do
    out[i] = 0
    for k = 0, a.kernel - 1 do
      local at = (i - 1) * a.stride - a.first + k * a.dilation
      if at >= low and at < high then out[i] = out[i] + 1 end
    end
  end
  return out
end

local function pool_axis(x, d, kind, a)
  local shape = x.shape
  local n, count = shape[d], ops.window_count(shape[d], a.kernel, a.stride, a.first, a.last, a.dilation, a.ceil)
  local outer, inner = 1, 1
  for i = 1, d - 1 do outer = outer * shape[i] end
  for i = d + 1, #shape do inner = inner * shape[i] end
  local y = x:reshape(outer, n, inner)
  if kind == "max" and a.dilation == 1 and a.first < a.kernel then
    local last = math.max(0, (count - 1) * a.stride + a.kernel - n - a.first)
    y = ops.max_pool2d(y:unsqueeze(3), {a.kernel, 1}, {stride = {a.stride, 1}, pad = {a.first, last, 0, 0}})
  else
    y = slide(y, 2, kind == "max" and "max" or "sum", a, count)
    if kind == "mean" then
      local weights = covered(a, n, count)
      for i = 1, count do weights[i] = 1 / weights[i] end
      y = y * tensor.tensor(weights, x.dtype, x.device):reshape(count, 1)
    end
  end
  shape[d] = count
  return y:reshape(shape)
end

--- Windows over one to three dims. kind: "max", "mean" or "sum" (of the pixels, padding is 0). options: kernel, stride (1), dilation (1): by dim;
--- pad {first, last, first, last ..}; ceil: windows that only start inside count; include_pad: padding counts in a mean.
---@param x Tensor [B,..,C]
---@param kind string
---@param options table
---@return Tensor [B,..,C]
function ops.pool(x, kind, options)
  local shape = dims(x, "pool", 3, 5)
  local n, axes, plain = #shape - 2, {}, #shape == 4
  if kind ~= "max" and kind ~= "mean" and kind ~= "sum" then raise(("pool: %s, want max, mean or sum"):format(tostring(kind))) end
  local kernel, stride, dilation, pad = each(options.kernel, n), each(options.stride, n, 1), each(options.dilation, n, 1), each(options.pad, 2 * n, 0)
  for i = 1, n do
    local a = {kernel = kernel[i], stride = stride[i], dilation = dilation[i], first = pad[2 * i - 1], last = pad[2 * i],
      ceil = options.ceil, include_pad = options.include_pad}
    for _, key in ipairs {"kernel", "stride", "dilation"} do tensor.whole(a[key], "pool", key, 1) end
    for _, key in ipairs {"first", "last"} do tensor.whole(a[key], "pool", "pad", 0) end
    axes[i] = a
    plain = plain and a.dilation == 1 and a.first < a.kernel and (kind == "max" or kind == "mean" and not (a.include_pad and a.first + a.last > 0))
  end
  if plain then -- both dims at once; what is left out at the end needs no padding there
    local edge = {}
    for i, a in ipairs(axes) do
      local count = ops.window_count(shape[i + 1], a.kernel, a.stride, a.first, a.last, 1, a.ceil)
      edge[2 * i - 1], edge[2 * i] = a.first, math.max(0, (count - 1) * a.stride + a.kernel - shape[i + 1] - a.first)
    end
    return ops[kind == "max" and "max_pool2d" or "avg_pool2d"](x, kernel, {stride = stride, pad = edge})
  end
  for i, a in ipairs(axes) do x = pool_axis(x, i + 1, kind, a) end
  return x
end

--- Windows' largest numbers and where each comes from. options as pool.
---@param x Tensor [B,..,C]
---@return Tensor y [B,..,C]
---@return Tensor index i32 [B,..,C], place in the [B,C,..] of x, the last dim running fastest (column_first: of pictures, the rows)
function ops.max_pool_index(x, options)
  local shape = dims(x, "max_pool_index", 3, 5)
  local n, total, whole = #shape - 2, 1, {}
  local kernel, stride, dilation, pad = each(options.kernel, n), each(options.stride, n, 1), each(options.dilation, n, 1), each(options.pad, 2 * n, 0)
  for i = 2, n + 1 do total = total * shape[i] end
  local B, C = shape[1], shape[n + 2]
  local place = tensor.arange(B * C * total, "i32", x.device):reshape(B, C, unpack(shape, 2, n + 1))
  if options.column_first then place = tensor.arange(B * C * total, "i32", x.device):reshape(B, C, shape[3], shape[2]):transpose(3, 4) end
  local order = {1}
  for i = 1, n do order[i + 1] = i + 2 end
  order[n + 2] = 2
  place = place:permute(order)
  local first, last, counts = {0}, {0}, {}
  for i = 1, n do
    counts[i] = ops.window_count(shape[i + 1], kernel[i], stride[i], pad[2 * i - 1], pad[2 * i], dilation[i], options.ceil)
    first[i + 1] = pad[2 * i - 1]
    last[i + 1] = math.max(0, (counts[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - shape[i + 1] - pad[2 * i - 1])
    whole[i] = 0
  end
  first[n + 2], last[n + 2] = 0, 0
  x, place = ops.pad(x, first, last, -math.huge), ops.pad(place, first, last, 0)
  local y, index
  local function visit(i)
    if i <= n then
      for k = 0, kernel[i] - 1 do
        whole[i] = k
        visit(i + 1)
      end
      return
    end
    local v, p = x, place
    for d = 1, n do
      v = v:slice(d + 1, 1 + whole[d] * dilation[d], counts[d], stride[d])
      p = p:slice(d + 1, 1 + whole[d] * dilation[d], counts[d], stride[d])
    end
    if not y then
      y, index = v, p
    else
      local better = ops.gt(v, y)
      y, index = ops.where(better, v, y), ops.where(better, p, index)
    end
  end
  visit(1)
  return y, index
end

---------------------------------------------------------------------------------------------------- resizing

-- Where position i (from 0) of the result lies in the source. r: n, size, scale, first, last (of the region, as shares of the source).
local places = {
  half_pixel = function(i, r) return (i + .5) / r.scale - .5 end,
  half_pixel_symmetric = function(i, r)
    local share = r.size / (r.scale * r.n) -- the size was rounded
    return r.n / 2 * (1 - share) + (i + .5) / r.scale - .5
  end,
  pytorch_half_pixel = function(i, r) return r.size > 1 and (i + .5) / r.scale - .5 or 0 end,
  align_corners = function(i, r) return r.size > 1 and i * (r.n - 1) / (r.scale * r.n - 1) or 0 end,
  asymmetric = function(i, r) return i / r.scale end,
  tf_half_pixel_for_nn = function(i, r) return (i + .5) / r.scale end,
  tf_crop_and_resize = function(i, r)
    if r.size > 1 then return r.first * (r.n - 1) + i * (r.last - r.first) * (r.n - 1) / (r.size - 1) end
    return .5 * (r.first + r.last) * (r.n - 1)
  end,
}

local rounded = {
  round_prefer_floor = function(v) return math.ceil(v - .5) end,
  round_prefer_ceil = function(v) return math.floor(v + .5) end,
  floor = math.floor, ceil = math.ceil,
}

local kernels = {
  linear = function(v) return math.max(0, 1 - math.abs(v)) end,
  cubic = function(v, a) -- Keys 1981
    v = math.abs(v)
    if v <= 1 then return ((a + 2) * v - (a + 3)) * v * v + 1 end
    return v < 2 and ((a * v - 5 * a) * v + 8 * a) * v - 4 * a or 0
  end,
}
local reach = {linear = 1, cubic = 2}

-- Weights of the n source positions for each of the results: rows of a matrix [size,n].
local function weights(r, o, at)
  local out, stretch = {}, o.antialias and math.min(r.scale, 1) or 1
  local kernel, wide = kernels[o.mode], reach[o.mode] / stretch
  for i = 1, r.size do
    local row, sum, v = {}, 0, at[i]
    for k = 1, r.n do row[k] = 0 end
    for k = math.floor(v - wide) + 1, math.ceil(v + wide) - 1 do
      local w, inside = kernel((v - k) * stretch, o.cubic), k >= 0 and k < r.n
      if inside or not o.exclude_outside then
        sum = sum + w
        local to = math.min(math.max(k, 0), r.n - 1) + 1
        row[to] = row[to] + w
      end
    end
    for k = 1, r.n do row[k] = sum ~= 0 and row[k] / sum or 0 end
    out[i] = row
  end
  return out
end

-- A line of places, or of weights, is made for each position of the result.
local MOST_POSITIONS, MOST_WEIGHTS = 2 ^ 20, 2 ^ 26

local function resize_axis(x, d, r, o)
  if r.size > MOST_POSITIONS or o.mode ~= "nearest" and r.size * r.n > MOST_WEIGHTS then
    raise(("resize: dim %d of %s to %d, which is too many"):format(d, tensor.describe(x), r.size))
  end
  local at, outside = {}, {}
  for i = 1, r.size do
    at[i] = places[o.transform](i - 1, r)
    outside[i] = o.transform == "tf_crop_and_resize" and (at[i] < 0 or at[i] > r.n - 1)
  end
  local y
  if o.mode == "nearest" then
    local index = {}
    for i = 1, r.size do index[i] = math.min(math.max(rounded[o.nearest](at[i]), 0), r.n - 1) end
    y = ops.gather(x, tensor.tensor(index, "i32", x.device), d)
  else
    local matrix = tensor.tensor(weights(r, o, at), x.dtype, x.device)
    if x.ndim == 1 then y = ops.matmul(x:unsqueeze(1), matrix, false, true):squeeze(1)
    else y = ops.matmul(x:transpose(d, -1), matrix, false, true):transpose(d, -1) end
  end
  for i = 1, r.size do
    if outside[i] then
      local shape = {}
      for k = 1, x.ndim do shape[k] = 1 end
      shape[d] = r.size
      return ops.where(tensor.tensor(outside, "u8", x.device):reshape(shape), o.extrapolation, y)
    end
  end
  return y
end

--- Resizing along any dims, one after the other; the conventions bear the names of ONNX.
---@param x Tensor floating point; "nearest": any type
---@param axes table[] {d = dim, size = positions of the result, scale = size / positions of x, first = 0, last = 1: the region of tf_crop_and_resize}
---@param options table|nil mode "nearest" (default), "linear", "cubic"; transform "half_pixel" (default), "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
--- "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize"; nearest "round_prefer_floor" (default), "round_prefer_ceil", "floor", "ceil"; cubic -.75, its coefficient;
--- exclude_outside, antialias: true; extrapolation 0: value outside of the region
---@return Tensor
function ops.resize(x, axes, options)
  options = options or none
  dims(x, "resize", 1, 6)
  local o = {mode = options.mode or "nearest", transform = options.transform or "half_pixel", nearest = options.nearest or "round_prefer_floor", cubic = options.cubic or -.75,
    exclude_outside = options.exclude_outside, antialias = options.antialias, extrapolation = options.extrapolation or 0}
  if o.mode ~= "nearest" and not kernels[o.mode] then raise(("resize: mode %s, want nearest, linear or cubic"):format(tostring(o.mode))) end
  if not places[o.transform] then raise(("resize: transform %s is not known"):format(tostring(o.transform))) end
  if not rounded[o.nearest] then raise(("resize: nearest %s is not known"):format(tostring(o.nearest))) end
  local list, exact = {}, o.mode == "linear" and not o.antialias and x.ndim == 4
  for i, axis in ipairs(axes) do
    local d = tensor.dim_of(x, axis.d, "resize") + 1
    local n, size = x:size(d), tensor.whole(axis.size, "resize", "size", 1)
    if n == 0 then raise("resize: " .. tensor.describe(x) .. " has nothing in dim " .. d) end
    local r = {d = d, n = n, size = size, scale = axis.scale or size / n, first = axis.first or 0, last = axis.last or 1}
    exact = exact and d == i + 1 and math.abs(r.scale * n - size) < 1e-6 * size
    list[i] = r
  end
  local kind = o.transform
  if exact and #list == 2 and (kind == "half_pixel" or kind == "align_corners" or kind == "asymmetric") then -- the kernel of pictures
    return ops.resize_bilinear(x, {list[1].size, list[2].size}, {half_pixel = kind == "half_pixel", align_corners = kind == "align_corners"})
  end
  for _, r in ipairs(list) do
    if r.size ~= r.n or o.transform == "tf_crop_and_resize" or r.scale ~= 1 then x = resize_axis(x, r.d, r, o) end
  end
  return x
end

return ops
