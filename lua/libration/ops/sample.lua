-- sample.lua: reading pictures between their pixels: at the places of a grid, and averaged over regions. Made of gathers; channels are the last dim.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"
require "libration.ops.spatial"

local raise = core.raise

-- The whole number at or below each of x, as x's dtype; no gradient.
local function floor(x)
  local near = x:detach():to("i32"):to(x.dtype)
  return near - ops.gt(near, x:detach()):to(x.dtype)
end

-- Places folded back between low and high.
local function reflected(x, low, high)
  if high <= low then return ops.affine(x, 0, low) end
  local t = ops.affine(x, 1 / (high - low), -low / (high - low))
  local n = floor(t)
  local rest, odd = t - n, n - floor(n * .5) * 2
  return ops.affine(rest + odd * (1 - rest * 2), high - low, low)
end

local function inside(x, n) return ops.clamp(x, 0, n - 1) end

local paddings = {
  zeros = function(x) return x end,
  border = function(x, n) return inside(x, n) end,
  reflection = function(x, n, corners) return reflected(x, corners and 0 or -.5, corners and n - 1 or n - .5) end,
}

local function cubic(v, near)
  if near then return ops.square(v) * (v * 1.25 - 2.25) + 1 end
  return ((v * -.75 + 3.75) * v - 6) * v + 3
end

-- Pixels that a place lies between, and their weights.
local taps = {
  nearest = function(x) return {{x:detach():to("i32"):to(x.dtype), nil}} end,
  linear = function(x)
    local low = floor(x)
    local share = x - low
    return {{low, 1 - share}, {low + 1, share}}
  end,
  cubic = function(x)
    local low = floor(x)
    local share = x - low
    return {{low - 1, cubic(share + 1, false)}, {low, cubic(share, true)}, {low + 1, cubic(1 - share, true)}, {low + 2, cubic(2 - share, false)}}
  end,
}

--- x at the places of a grid, whose numbers run from -1 to 1 over each dim of space.
---@param x Tensor [B,S1,..,Sn,C], n = 1 to 3
---@param grid Tensor [B,P1,..,n] places, the last dim of space first
---@param options table|nil mode "linear" (default), "nearest", "cubic"; padding "zeros" (default), "border", "reflection"; corners: -1 and 1 are the middles of the outer pixels
---@return Tensor [B,P1,..,C]
function ops.grid_sample(x, grid, options)
  options = options or {}
  local mode, padding, corners = options.mode or "linear", options.padding or "zeros", options.corners
  if not tensor.is_tensor(x) or not tensor.is_tensor(grid) then raise "grid_sample: x and grid, want tensors" end
  local s, g, pad, tap = x.shape, grid.shape, paddings[padding], taps[mode]
  local n = #s - 2
  if n < 1 or n > 3 or #g < 2 or g[#g] ~= n or g[1] ~= s[1] or x:numel() == 0 then raise(("grid_sample: x is %s, grid %s"):format(tensor.describe(x), tensor.describe(grid))) end
  if not pad or not tap then raise(("grid_sample: mode %s, padding %s"):format(tostring(mode), tostring(padding))) end
  local places, pixels = 1, 1
  for i = 2, #g - 1 do places = places * g[i] end
  for i = 2, n + 1 do pixels = pixels * s[i] end
  grid = grid:reshape(s[1], places, n)
  local lists = {}
  for d = 1, n do
    local size = s[d + 1]
    local at = grid:select(3, n + 1 - d)
    at = corners and ops.affine(at, (size - 1) / 2, (size - 1) / 2) or ops.affine(at, size / 2, (size - 1) / 2)
    if mode ~= "cubic" then at = pad(at, size, corners) end
    lists[d] = tap(at)
    for _, t in ipairs(lists[d]) do
      local pixel = mode == "cubic" and pad(t[1], size, corners) or t[1]
      local own = inside(pixel, size)
      t[3] = own:to "i32"
      if padding == "zeros" then
        local seen = ops.eq(pixel, own):to(x.dtype)
        t[2] = t[2] and t[2] * seen or seen
      end
    end
  end
  local flat, y = x:reshape(s[1] * pixels, s[n + 2]), nil
  local start = ops.affine(tensor.arange(s[1], "i32", x.device), pixels, 0):unsqueeze(2)
  local function visit(d, place, weight)
    if d > n then
      local v = ops.gather(flat, place + start)
      if weight then v = v * weight:unsqueeze(3) end
      y = y and y + v or v
      return
    end
    for _, t in ipairs(lists[d]) do
      visit(d + 1, place and ops.affine(place, s[d + 1], 0) + t[3] or t[3], weight and t[2] and weight * t[2] or weight or t[2])
    end
  end
  visit(1)
  g[#g] = s[n + 2]
  return y:reshape(g)
end

--- Regions of pictures as grids of equal size; each number is the mean (or the maximum) of ratio x ratio points in its cell.
---@param x Tensor [B,H,W,C]
---@param regions Tensor [N,4] x, y, x, y in the units of scale
---@param picture Tensor i32 [N] from 0
---@param options table size {h,w}; ratio points a side of a cell; scale 1: pixels a unit; shift 0: taken off of the places (.5: pixels have their middle at .5); max: true
---@return Tensor [N,h,w,C]
function ops.roi_align(x, regions, picture, options)
  local s, n, scale, shift = x.shape, regions:size(1), options.scale or 1, options.shift or 0
  local size, ratio = options.size, tensor.whole(options.ratio, "roi_align", "ratio", 1)
  if #s ~= 4 or regions.ndim ~= 2 or regions:size(2) ~= 4 or x:numel() == 0 then raise(("roi_align: x is %s, regions %s"):format(tensor.describe(x), tensor.describe(regions))) end
  -- along a dim: places [N,count], then the two pixels and their weights
  local function along(first, pixels, cells)
    local low = ops.affine(regions:narrow(2, first, 1), scale, -shift)
    local wide = ops.affine(regions:narrow(2, first + 2, 1), scale, -shift) - low
    if shift == 0 then wide = ops.maximum(wide, 1) end
    local steps = ops.affine(tensor.arange(cells * ratio, x.dtype, x.device), 1 / (cells * ratio), .5 / (cells * ratio))
    local at = low + wide * steps
    local seen = (ops.ge(at, -1) * ops.le(at, pixels)):to(x.dtype)
    local out = taps.linear(inside(at, pixels))
    for _, t in ipairs(out) do
      t[2] = t[2] * seen
      t[3] = inside(t[1], pixels):to "i32"
    end
    return out
  end
  local rows, columns = along(2, s[2], size[1]), along(1, s[3], size[2])
  local flat, y = x:reshape(s[1] * s[2] * s[3], s[4]), nil
  local start = ops.affine(picture, s[2] * s[3], 0):reshape(n, 1, 1)
  for _, r in ipairs(rows) do
    for _, c in ipairs(columns) do
      local v = ops.gather(flat, start + ops.affine(r[3], s[3], 0):unsqueeze(3) + c[3]:unsqueeze(2)) * (r[2]:unsqueeze(3) * c[2]:unsqueeze(2)):unsqueeze(4)
      y = y and (options.max and ops.maximum(y, v) or y + v) or v
    end
  end
  return ops.pool(y, options.max and "max" or "mean", {kernel = {ratio, ratio}, stride = {ratio, ratio}})
end

return ops
