-- regions.lua: regions of pictures and the points that networks find in them, as ops: crops, places in the picture, places from picture to picture. Runs no network.
local core = require "libration.core"
local ops = require "libration.ops"
local tensor = require "libration.tensor"

local raw, rows, whole, raise = ops.raw, ops.rows, tensor.whole, core.raise
local crop_t, place_t, follow_t = rows.crop.attr, rows.place_points.attr, rows.follow_points.attr

local regions = {}

local borders = { zero = 0, replicate = 1 }

--- Regions of a picture, bilinear: the bytes of OpenCV's warpPerspective, times scale + shift.
---@param x Tensor u8 [H,W,3]
---@param region Tensor f32 [B,5] centre x, y, width, height in pixels, angle in radians clockwise, on x's device
---@param options table size {H, W}; border "zero" (default) or "replicate": what lies outside; rim 0: pixels outside in which x is mirrored before that,
---  at most its sides; scale 1, shift 0
---@return Tensor y f32 [B,size,3]
function regions.crop(x, region, options)
  local attr, border = crop_t(), borders[options.border or "zero"]
  if not border then raise(("crop: border is %s, want zero or replicate"):format(tostring(options.border))) end
  if type(options.size) ~= "table" then raise("crop: size is " .. tostring(options.size) .. ", want {H, W}") end
  for i = 1, 2 do attr.size[i - 1] = whole(options.size[i], "crop", "the size", 1) end
  attr.border, attr.scale, attr.shift = border, options.scale or 1, options.shift or 0
  attr.rim = whole(options.rim or 0, "crop", "the rim")
  return raw.crop(x, region, attr)
end

--- Points that a network found in square crops, in the picture: refined by their heat maps, turned back, logits as probabilities.
---@param points Tensor f32 [B,5M] x, y, z in pixels of the crop and two logits each
---@param heat Tensor f32 [B,h,w,M] logits
---@param world Tensor f32 [B,3M] metres
---@param rect Tensor f32 [B,5] the crops' centre x, y, width, height (fractions of the picture's), angle
---@param options table n: points that are wanted, the first ones; width, height: of the picture; size: pixels along the crop; kernel: cells along a heat map's
---  surroundings, odd, 15 at most; least .5: probability that one of them must have for the point to move there
---@return Tensor y f32 [B,n,8] x, y, z (x, z in widths, y in heights of the picture), two probabilities, world x, y, z in metres
function regions.place_points(points, heat, world, rect, options)
  local attr = place_t()
  for _, name in ipairs { "n", "width", "height", "size", "kernel" } do attr[name] = whole(options[name], "place_points", name, 1) end
  attr.least = options.least or .5
  return raw.place_points(points, heat, world, rect, attr)
end

--- A picture on a device: itself where it is there already, else a copy in `room`, a picture there, or in a new one where that has other sizes.
---@param picture Tensor u8 [H,W,3], contiguous
---@param device string
---@param room Tensor|nil what this gave for the picture before: it is overwritten
---@return Tensor
function regions.show(picture, device, room)
  if picture.device == device then return picture end
  if not room or room:size(1) ~= picture:size(1) or room:size(2) ~= picture:size(2) then room = tensor.unscoped(tensor.empty, picture.shape, "u8", device) end
  core.check(core.C.lbr_transfer(picture, room))
  return room
end

---@class Following state of points that are followed from picture to picture; all on one device
---@field place Tensor f32 [2,5] rect (as place_points takes it) and square region in pixels (as crop takes it) of the next picture
---@field y Tensor f32 [n+2,8] the last answer
---@field state Tensor f32
---@field clock Tensor f64 [4]

--- Room to follow n points.
---@param n integer
---@param device string|nil
---@return Following
function regions.following(n, device)
  return {
    place = tensor.zeros({ 2, 5 }, "f32", device), y = tensor.zeros({ n + 2, 8 }, "f32", device), state = tensor.zeros({ 19 * n + 12 }, "f32", device),
    clock = tensor.full({ 4 }, 0 / 0, "f64", device),
  }
end

--- Follows points: smooths them (One-Euro filters; probabilities first order) and says where they will be looked for in the next picture.
---@param f Following changed in place; a clock filled with NaN begins anew
---@param points Tensor f32 [n+2,8] as place_points gives them; the last two are auxiliary: centre, and a point on the circle round all
---@param flag Tensor f32 [1] probability that they are there; above .5 they are
---@param time Tensor f64 [1] seconds
---@param options table width, height: of the picture; follow, smooth: booleans; filters {cut-off, speed coefficient} x {picture, auxiliary, world}; alpha 1: share
---  of a new probability
---@return Tensor y f32 [n+2,8] f.y: n points x, y, z in pixels, two probabilities, world; NaN where they are not there; next rect, flag, 1 where there is a next
---  region; that region
function regions.follow_points(f, points, flag, time, options)
  local attr = follow_t()
  attr.width, attr.height = whole(options.width, "follow_points", "width", 1), whole(options.height, "follow_points", "height", 1)
  attr.follow, attr.smooth, attr.alpha = options.follow and 1 or 0, options.smooth and 1 or 0, options.alpha or 1
  if type(options.filters) ~= "table" or #options.filters ~= 6 then raise "follow_points: filters, want a list of six numbers" end
  for i = 1, 6 do attr.filters[i - 1] = options.filters[i] end
  raw.follow_points(points, flag, time, f.place, f.state, f.clock, f.y, attr)
  return f.y
end

return regions
