-- BlazePose around its two networks: anchors, detections, regions, points. Runs no network and keeps no state from frame to frame.
-- Numbers and order of steps are MediaPipe's (modules/pose_detection, modules/pose_landmark); tests compare each step with its outputs.
local ffi = require "ffi"
local core = require "libration.core"
local regions = require "libration.regions"
local tensor = require "libration.tensor"
local ssd = require "libration.pose.ssd"

local C = core.C

local blazepose = {}

blazepose.detector_size = 224    -- pixels a side of the detector's input
blazepose.landmark_size = 256    -- pixels a side of the landmark network's input
blazepose.points = 39            -- 33 landmarks, 2 auxiliary ones that give the next region, 4 more
blazepose.landmarks = 33

blazepose.f32 = ssd.f32

local anchors = {} -- by device

--- Centres of the detector's anchors as fractions of the square input; each is 1 wide and 1 high.
---@param device string|nil
---@return Tensor centres f32 [2254,2]
function blazepose.anchors(device)
  device = device or "cpu"
  -- strides 8, 16 and three times 32: two anchors a cell and layer
  anchors[device] = anchors[device] or tensor.unscoped(function() return tensor.constant(ssd.anchors { { 28, 2 }, { 14, 2 }, { 7, 6 } }, device) end)
  return anchors[device]
end

--- Detections from the detector's raw outputs, after weighted suppression, worked out where these lie.
---@param boxes Tensor f32 [B,2254,12] box centre x, y, width, height, then 4 points x, y, in input pixels beside the anchor
---@param scores Tensor f32 [B,2254,1] logits
---@param least? number smallest score, default .5
---@param iou? number default .3
---@return number[][][] detections of each picture, best first: x0, y0, x1, y1, 4 points x, y (fractions of the square input), score
function blazepose.detections(boxes, scores, least, iou)
  return ssd.detections(boxes, scores, blazepose.anchors(boxes.device), { size = blazepose.detector_size, least = least or .5, iou = iou or .3 })
end

-- A detection in pixels of the picture that lies centred in the detector's square input.
blazepose.to_picture = ssd.to_picture

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
