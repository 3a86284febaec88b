-- BlazePose around its two networks: anchors, detections, regions, refinement, projection. Runs no network and keeps no state from frame to frame.
-- Numbers and order of steps are MediaPipe's (modules/pose_detection, modules/pose_landmark); tests compare each step with its outputs.
local ffi = require "ffi"
local ssd = require "libration.pose.ssd"

local blazepose = {}

-- The C library's own single-precision functions: not each of their answers is the nearest one, and MediaPipe has them as they are.
ffi.cdef "float atan2f(float y, float x); float cosf(float x); float sinf(float x);"
local libm = ffi.C

local floor, sqrt, pi = math.floor, math.sqrt, math.pi

blazepose.detector_size = 224    -- pixels a side of the detector's input
blazepose.landmark_size = 256    -- pixels a side of the landmark network's input
blazepose.points = 39            -- 33 landmarks, 2 auxiliary ones that give the next region, 4 more
blazepose.landmarks = 33

local HEAT = 64
local f32, sigmoid = ssd.f32, ssd.sigmoid
blazepose.f32 = f32

local head

--- Centres of the detector's anchors as fractions of the square input; each is 1 wide and 1 high.
---@return ffi.cdata* centres float[2254*2] x, y
function blazepose.anchors()
  if not head then
    -- strides 8, 16 and three times 32: two anchors a cell and layer
    local at, n = ssd.anchors { { 28, 2 }, { 14, 2 }, { 7, 6 } }
    head = { anchors = at, count = n, coordinates = 12, size = blazepose.detector_size }
  end
  return head.anchors
end

--- Detections from the detector's raw outputs, after weighted suppression: the best box becomes the score-weighted mean of all boxes that overlap it
--- by more than `iou`, with its own score kept. Best first.
---@param boxes ffi.cdata* float[2254*12] box centre x, y, width, height, then 4 points x, y, in input pixels beside the anchor
---@param scores ffi.cdata* float[2254] logits
---@param least? number smallest score, default .5
---@param iou? number default .3
---@return number[][] detections each x0, y0, x1, y1, 4 points x, y (fractions of the square input), score
function blazepose.decode(boxes, scores, least, iou)
  blazepose.anchors()
  local kept = ssd.suppress(ssd.decode(head, boxes, scores, least or .5), iou or .3)
  for _, d in ipairs(kept) do d[13], d.score = d.score, nil end
  return kept
end

-- A detection in pixels of the picture that lies centred in the detector's square input.
blazepose.to_picture = ssd.to_picture

--- Square region round a body: centre = mid hip, half a side = 1.25 x the distance to a far point, turned so that the far point lies upwards.
---@param x number pixels: mid hip
---@param y number
---@param far_x number pixels: a point on the circle round the body
---@param far_y number
---@param width integer pixels of the picture
---@param height integer
---@param rect? ffi.cdata* float[5] to fill
---@return ffi.cdata* rect float[5] centre x, y, width, height (fractions of the picture's width and height), angle in radians clockwise
---@return number size twice the distance, in pixels
function blazepose.rect(x, y, far_x, far_y, width, height, rect)
  rect = rect or ffi.new("float[5]")
  x, y, far_x, far_y = f32(x), f32(y), f32(far_x), f32(far_y)
  local dx, dy = f32(far_x - x), f32(far_y - y)
  local angle = f32(f32(pi / 2) - libm.atan2f(-dy, dx))
  local size = f32(sqrt(f32(f32(dx * dx) + f32(dy * dy)))) * 2
  local w, h = f32(size / width), f32(size / height)
  size = f32((f32(w * width) + f32(h * height)) / 2)
  local long = math.max(f32(w * width), f32(h * height))
  rect[0], rect[1] = x / width, y / height
  rect[2], rect[3] = f32(long / width) * 1.25, f32(long / height) * 1.25
  rect[4] = angle - 2 * pi * floor((angle + pi) / (2 * pi))
  return rect, size
end

--- The square that is cropped for a region, in pixels.
---@param rect ffi.cdata* float[5] as blazepose.rect gives it
---@param width integer pixels of the picture
---@param height integer
---@param region? ffi.cdata* lbr_region to fill
---@return ffi.cdata* region lbr_region
---@return number beside share of the crop's width that lies beside the region (both sides together); 0 but for rounding
---@return number above likewise of its height
function blazepose.square(rect, width, height, region)
  region = region or ffi.new("lbr_region")
  local w, h = f32(rect[2] * width), f32(rect[3] * height)
  local tall = f32(h / w)
  local side, beside, above
  if tall < 1 then side, beside, above = w, 0, f32(1 - tall) else side, beside, above = h, f32(1 - f32(1 / tall)), 0 end
  region.x, region.y, region.width, region.height, region.angle = rect[0] * width, rect[1] * height, side, side, rect[4]
  return region, beside, above
end

--- Moves points to the sigmoid-weighted mean of their surroundings in the heat maps, where the largest value there is at least `least`; others stay.
---@param xy ffi.cdata* float[n*2] fractions of the crop, changed in place
---@param heat ffi.cdata* float[64*64*39] logits, row, column, point
---@param n integer points, 39 at most
---@param kernel integer odd width of the surroundings in cells: 9 (what the Python package does) or 7 (what its graph file says)
---@param least? number default .5
function blazepose.refine(xy, heat, n, kernel, least)
  least = least or .5
  local reach, points = (kernel - 1) / 2, blazepose.points
  for i = 0, n - 1 do
    local c, r = xy[2 * i] * HEAT, xy[2 * i + 1] * HEAT
    -- whole part towards zero: -.3 is cell 0
    c = c < 0 and -floor(-c) or floor(c)
    r = r < 0 and -floor(-r) or floor(r)
    if c >= 0 and c < HEAT and r >= 0 then -- below the last row MediaPipe does not look whether the point is outside
      local r0, r1 = math.max(0, r - reach), math.min(HEAT - 1, r + reach)
      local c0, c1 = math.max(0, c - reach), math.min(HEAT - 1, c + reach)
      local sum, sx, sy, top = 0, 0, 0, 0
      for y = r0, r1 do
        for x = c0, c1 do
          local v = sigmoid(heat[(y * HEAT + x) * points + i])
          sum, sx, sy = f32(sum + v), f32(sx + f32(x * v)), f32(sy + f32(y * v))
          if v > top then top = v end
        end
      end
      if top >= least and sum > 0 then xy[2 * i], xy[2 * i + 1] = f32(sx / HEAT) / sum, f32(sy / HEAT) / sum end
    end
  end
end

---@class Pose one frame's answer, before any smoothing; arrays are reused from call to call where they are passed in
---@field landmarks ffi.cdata* float[39*5] x, y, z as fractions (x and z of the picture's width, y of its height), visibility, presence
---@field world ffi.cdata* float[39*4] x, y, z metres, visibility

--- Room for one frame's answer.
---@return Pose
function blazepose.new_pose()
  return { landmarks = ffi.new("float[?]", 39 * 5), world = ffi.new("float[?]", 39 * 4), xy = ffi.new("float[?]", 39 * 2) }
end

--- Landmarks in the picture from the landmark network's raw outputs.
---@param out table ld_3d float[195] (39 x x, y, z in crop pixels, visibility and presence logits), heatmap float[64*64*39], world float[117] metres
---@param rect ffi.cdata* float[5] the region, as blazepose.rect gives it
---@param beside number shares of the crop that lie outside of the region, as blazepose.square gives them
---@param above number
---@param kernel integer heat-map kernel, 9 or 7
---@param pose? Pose to fill
---@return Pose
function blazepose.project(out, rect, beside, above, kernel, pose)
  pose = pose or blazepose.new_pose()
  local raw, world, xy, lm, wd = out.ld_3d, out.world, pose.xy, pose.landmarks, pose.world
  local size, n = blazepose.landmark_size, blazepose.landmarks + 2
  for i = 0, n - 1 do
    xy[2 * i], xy[2 * i + 1] = raw[5 * i] / size, raw[5 * i + 1] / size
  end
  blazepose.refine(xy, out.heatmap, n, kernel)
  local c, s, w, h = libm.cosf(rect[4]), libm.sinf(rect[4]), rect[2], rect[3]
  for i = 0, n - 1 do
    local x, y = f32(f32(xy[2 * i] - beside / 2) / f32(1 - beside)), f32(f32(xy[2 * i + 1] - above / 2) / f32(1 - above))
    x, y = f32(x - .5), f32(y - .5)
    lm[5 * i] = f32(f32(f32(c * x) - f32(s * y)) * w) + rect[0]
    lm[5 * i + 1] = f32(f32(f32(s * x) + f32(c * y)) * h) + rect[1]
    lm[5 * i + 2] = f32(f32(raw[5 * i + 2] / size) / f32(1 - beside)) * w
    lm[5 * i + 3] = sigmoid(raw[5 * i + 3])
    lm[5 * i + 4] = sigmoid(raw[5 * i + 4])
    x, y = world[3 * i], world[3 * i + 1]
    wd[4 * i] = f32(c * x) - f32(s * y)
    wd[4 * i + 1] = f32(s * x) + f32(c * y)
    wd[4 * i + 2] = world[3 * i + 2]
    wd[4 * i + 3] = lm[5 * i + 3]
  end
  return pose
end

--- Index, from 1, of the detection to follow: "best" = highest score (what MediaPipe does), "largest" = widest region round the body,
--- "central" = mid hip nearest to the picture's centre.
---@param detections number[][] in pixels (to_picture), best first
---@param person string
---@param width integer
---@param height integer
---@return integer
function blazepose.choose(detections, person, width, height)
  local choice, value = 1, nil
  if person == "best" then return 1 end
  for i, d in ipairs(detections) do
    local v
    if person == "largest" then
      v = -((d[7] - d[5]) ^ 2 + (d[8] - d[6]) ^ 2)
    else
      v = (d[5] - width / 2) ^ 2 + (d[6] - height / 2) ^ 2
    end
    if not value or v < value then choice, value = i, v end
  end
  return choice
end

return blazepose
