-- BlazePose around its two networks: anchors, detections, regions, points. Runs no network and keeps no state from frame to frame.
-- Numbers and order of steps are MediaPipe's (modules/pose_detection, modules/pose_landmark); tests compare each step with its outputs.
local ffi = require "ffi"
local core = require "libration.core"
local regions = require "libration.regions"

local blazepose = {}

-- The C library's own single-precision functions: not each of their answers is the nearest one, and MediaPipe has them as they are.
ffi.cdef "float expf(float x);"
local libm, C = ffi.C, core.C

blazepose.detector_size = 224    -- pixels a side of the detector's input
blazepose.landmark_size = 256    -- pixels a side of the landmark network's input
blazepose.points = 39            -- 33 landmarks, 2 auxiliary ones that give the next region, 4 more
blazepose.landmarks = 33

local ANCHORS = 2254
local single = ffi.new("float[1]")

-- The nearest single-precision number.
local function f32(v)
  single[0] = v
  return single[0]
end
blazepose.f32 = f32

-- In single precision, as every number below: the region of a frame hangs on the frame before, and a last bit that differs there moves points by hundredths of a
-- pixel, which then move the next region. So each operation is rounded where MediaPipe's is.
local function sigmoid(v)
  return f32(1 / f32(1 + libm.expf(-v)))
end

local anchors

--- Centres of the detector's anchors as fractions of the square input; each is 1 wide and 1 high.
---@return ffi.cdata* centres float[2254*2] x, y
function blazepose.anchors()
  if anchors then return anchors end
  anchors = ffi.new("float[?]", ANCHORS * 2)
  local n = 0
  -- strides 8, 16 and three times 32: two anchors a cell and layer
  for _, layer in ipairs { { 28, 2 }, { 14, 2 }, { 7, 6 } } do
    for y = 0, layer[1] - 1 do
      for x = 0, layer[1] - 1 do
        for _ = 1, layer[2] do
          anchors[n], anchors[n + 1] = (x + .5) / layer[1], (y + .5) / layer[1]
          n = n + 2
        end
      end
    end
  end
  return anchors
end

-- Intersection over union of two boxes given as x0, y0, x1, y1.
local function overlap(a, b)
  local w = f32(math.min(a[3], b[3]) - math.max(a[1], b[1]))
  local h = f32(math.min(a[4], b[4]) - math.max(a[2], b[2]))
  if w <= 0 or h <= 0 then return 0 end
  local both = f32(w * h)
  local all = f32(f32(f32((a[3] - a[1]) * (a[4] - a[2])) + f32((b[3] - b[1]) * (b[4] - b[2]))) - both)
  return all > 0 and f32(both / all) or 0
end

--- Detections from the detector's raw outputs, after weighted suppression: the best box becomes the score-weighted mean of all boxes that overlap it
--- by more than `iou`, with its own score kept. Best first.
---@param boxes ffi.cdata* float[2254*12] box centre x, y, width, height, then 4 points x, y, in input pixels beside the anchor
---@param scores ffi.cdata* float[2254] logits
---@param least? number smallest score, default .5
---@param iou? number default .3
---@return number[][] detections each x0, y0, x1, y1, 4 points x, y (fractions of the square input), score
function blazepose.decode(boxes, scores, least, iou)
  least, iou = least or .5, iou or .3
  local at, size = blazepose.anchors(), blazepose.detector_size
  local found = {}
  for i = 0, ANCHORS - 1 do
    local v = scores[i]
    if v > -100 then -- also leaves NaN out
      local score = sigmoid(v < 100 and v or 100)
      if score >= least then
        local p, ax, ay = boxes + i * 12, at[2 * i], at[2 * i + 1]
        local x, y, w, h = f32(f32(p[0] / size) + ax), f32(f32(p[1] / size) + ay), f32(p[2] / size) / 2, f32(p[3] / size) / 2
        local d = { f32(x - w), f32(y - h), f32(x + w), f32(y + h) }
        for k = 4, 10, 2 do
          d[k + 1], d[k + 2] = f32(f32(p[k] / size) + ax), f32(f32(p[k + 1] / size) + ay)
        end
        d[13], d.place = score, i
        found[#found + 1] = d
      end
    end
  end
  table.sort(found, function(a, b)
    if a[13] ~= b[13] then return a[13] > b[13] end
    return a.place < b.place
  end)
  local kept = {}
  while #found > 0 do
    local best, rest, mean, weight = found[1], {}, {}, 0
    for k = 1, 12 do mean[k] = 0 end
    for _, d in ipairs(found) do
      if d == best or overlap(best, d) > iou then
        weight = f32(weight + d[13])
        for k = 1, 12 do mean[k] = f32(mean[k] + f32(d[k] * d[13])) end
      else
        rest[#rest + 1] = d
      end
    end
    for k = 1, 12 do mean[k] = f32(mean[k] / weight) end
    mean[13] = best[13]
    kept[#kept + 1] = mean
    found = rest
  end
  return kept
end

--- A detection in fractions of the detector's square input, in pixels of the picture that lies centred in it. Changes it in place.
---@param detection number[] as decode gives it
---@param width integer pixels of the picture
---@param height integer
---@return number[] detection
function blazepose.to_picture(detection, width, height)
  -- shares of the square that lie beside and above the picture, on both sides together
  local tall = f32(height / width)
  local beside, above = 0, 0
  if tall < 1 then above = f32(1 - tall) else beside = f32(1 - f32(1 / tall)) end
  for k = 1, 12, 2 do
    detection[k] = f32(f32(f32(detection[k] - beside / 2) / f32(1 - beside)) * width)
    detection[k + 1] = f32(f32(f32(detection[k + 1] - above / 2) / f32(1 - above)) * height)
  end
  return detection
end

local body = ffi.new("float[4]")

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
  body[0], body[1], body[2], body[3] = x, y, far_x, far_y
  return rect, C.lbr_region_rect(body, width, height, rect)
end

--- The square that is cropped for a region, in pixels.
---@param rect ffi.cdata* float[5] as blazepose.rect gives it
---@param width integer pixels of the picture
---@param height integer
---@param region? ffi.cdata* lbr_region to fill
---@return ffi.cdata* region lbr_region
function blazepose.square(rect, width, height, region)
  region = region or ffi.new("lbr_region")
  C.lbr_region_square(rect, width, height, region)
  return region
end

--- Landmarks and the two points that give the next region, in the picture, from the landmark network's outputs.
---@param out table ld_3d: Tensor f32 [B,195] (39 x x, y, z in crop pixels, visibility and presence logits), heatmap: [B,64,64,39], world: [B,117] metres
---@param rect Tensor f32 [B,5] the regions, as blazepose.rect gives them
---@param width integer pixels of the picture
---@param height integer
---@param kernel integer heat-map kernel, 9 (what the Python package does) or 7 (what its graph file says)
---@return Tensor points f32 [B,35,8] x, y, z as fractions (x and z of the picture's width, y of its height), visibility, presence, x, y, z in metres
function blazepose.project(out, rect, width, height, kernel)
  return regions.place_points(out.ld_3d, out.heatmap, out.world, rect,
    { n = blazepose.landmarks + 2, width = width, height = height, size = blazepose.landmark_size, kernel = kernel })
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
