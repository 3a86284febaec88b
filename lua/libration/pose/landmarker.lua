-- Finds one person's 33 landmarks frame by frame: detector when nobody is tracked, landmark network on the tracked region, smoothing.
-- Decodes no video and draws nothing; the networks themselves run in graph/.
local ffi = require "ffi"
local core = require "libration.core"
local tensor = require "libration.tensor"
local blazepose = require "libration.pose.blazepose"
local smoothing = require "libration.pose.smoothing"

local C = core.C
local f32 = blazepose.f32

---@class Landmarker
---@field region ffi.cdata*|nil lbr_region in pixels that the landmark network saw in the last frame; nil where nobody was detected
---@field rect ffi.cdata* float[5] the same in fractions of the frame, as blazepose.rect gives it
---@field detected boolean true where that region came from the detector and not from tracking
---@field flag number probability, by the landmark network, that somebody is in the region; 0 without a region
---@field frames integer frames seen since the last reset
local Landmarker = {}
Landmarker.__index = Landmarker

local choices = {
  model = { "full", "lite", "heavy" },
  precision = { "f32", "bf16" },
  kernel = { 9, 7 },
  smooth = { "one-euro", "offline", "none" },
  clock = { "video", "mediapipe" },
  person = { "best", "largest", "central" },
}
local defaults = { model = "full", precision = "f32", kernel = 9, smooth = "one-euro", clock = "video", person = "best" }

local function read_options(options)
  local o = {}
  local others = { weights = true, threads = true, static = true, networks = true }
  for name, value in pairs(options) do
    if choices[name] then
      local known = false
      for _, choice in ipairs(choices[name]) do known = known or choice == value end
      if not known then
        error(("pose.landmarker: %s is %s, want %s"):format(name, tostring(value), table.concat(choices[name], ", ")), 3)
      end
    elseif not others[name] then
      error(("pose.landmarker: unknown option %s; there are clock, kernel, model, networks, person, precision, smooth, static, threads, weights"):format(tostring(name)), 3)
    end
    o[name] = value
  end
  for name, value in pairs(defaults) do
    if o[name] == nil then o[name] = value end
  end
  return o
end

-- Outputs by their number of elements: their names differ between versions of the files.
local detector_outputs = { [2254 * 12] = "boxes", [2254] = "scores" }
local landmark_outputs = { [195] = "ld_3d", [1] = "flag", [64 * 64 * 39] = "heatmap", [117] = "world" }

local function by_size(outputs, sizes, what)
  local found = {}
  for _, t in pairs(outputs) do
    if type(t) == "cdata" or type(t) == "table" then
      local name = sizes[t:numel()]
      if name then
        found[name] = t:ptr()
        found[name .. "_tensor"] = t -- keeps the memory alive
      end
    end
  end
  for _, name in pairs(sizes) do
    if not found[name] then error(("pose.landmarker: the %s network has no output '%s' of the known size"):format(what, name), 0) end
  end
  return found
end

-- Names of the landmark network's outputs that are read; the fifth, a segmentation, costs a fifth of the time and is left out.
local wanted = { "Identity", "Identity_1", "Identity_3", "Identity_4" }

local function load_network(path, precision, outputs)
  local graph = require "libration.graph"
  local network, err = graph.load(path, { precision = precision, outputs = outputs })
  if not network and outputs then network, err = graph.load(path, { precision = precision }) end -- a user's own file may name them otherwise
  if not network then error(err, 0) end
  return network
end

--- The files of the two networks, fetched when they are missing.
---@param options table model and weights as for a landmarker
---@return {detector: string, landmark: string} paths
function Landmarker.weight_files(options)
  local weights, given = require "libration.weights", options.weights
  local own = type(given) == "table" and given or { landmark = given, detector = require "libration.files".is_folder(given or "") and given or nil }
  return {
    detector = weights.path("pose_detection", own.detector and { file = own.detector }),
    landmark = weights.path("pose_landmark_" .. (options.model or defaults.model), own.landmark and { file = own.landmark }),
  }
end

--- A landmarker for one stream of frames.
---@param options? table model "full" | "lite" | "heavy"; precision "f32" | "bf16"; kernel 9 | 7 (heat-map surroundings; 9 is what MediaPipe's Python package
---  uses, 7 what its graph file says); smooth "one-euro" (as MediaPipe), "none" or "offline" (raw here; filter the whole sequence with smoothing.offline
---  afterwards); clock "video" (the times given to process) or "mediapipe" (33333 us a frame); person "best" (highest score, as MediaPipe), "largest" or
---  "central": whom to follow where the detector finds several; static: true runs the detector on every frame and tracks nothing;
---  weights: file of the landmark network, folder with both, or {detector = file, landmark = file}; threads; networks: {detector =, landmark =}, ready objects with :run
---@return Landmarker
local function landmarker(options)
  local o = read_options(options or {})
  local self = setmetatable({ options = o }, Landmarker)
  if o.threads then C.lbr_set_threads(o.threads) end
  if o.networks then
    self.detector, self.marker = o.networks.detector, o.networks.landmark
  else
    self.files = Landmarker.weight_files(o)
    self.detector = load_network(self.files.detector, o.precision)
    self.marker = load_network(self.files.landmark, o.precision, wanted)
  end
  local n = blazepose.landmarks
  self.detector_input = tensor.empty({ 1, blazepose.detector_size, blazepose.detector_size, 3 })
  self.landmark_input = tensor.empty({ 1, blazepose.landmark_size, blazepose.landmark_size, 3 })
  self.pose = blazepose.new_pose()
  self.whole, self.square, self.rect, self.next_rect = ffi.new("lbr_region"), ffi.new("lbr_region"), ffi.new("float[5]"), ffi.new("float[5]")
  self.picture_filter = smoothing.one_euro(n * 3, .05, 80)
  self.auxiliary_filter = smoothing.one_euro(4, .01, 10)
  self.world_filter = smoothing.one_euro(n * 3, .1, 40)
  self.visibility_filter = smoothing.low_pass(n, .1)
  self.picture, self.auxiliary, self.space = ffi.new("float[?]", n * 3), ffi.new("float[4]"), ffi.new("float[?]", n * 3)
  self:reset()
  return self
end

--- Forgets the person and every filter: the next frame is a first one.
function Landmarker:reset()
  self.tracked, self.region, self.detected, self.flag, self.frames = nil, nil, false, 0, 0
  self.picture_filter:reset()
  self.auxiliary_filter:reset()
  self.world_filter:reset()
  self.visibility_filter:reset()
end

local function crop(frame, h, w, region, border, scale, shift, into, size)
  core.check(C.lbr_crop_f32(frame:ptr(), h, w, w * 3, region, border, scale, shift, into:ptr(), size, size))
  into:touch()
end

--- All people in a frame, after suppression.
---@param frame Tensor u8 [H,W,3] RGB
---@param least? number smallest score, default .5
---@param view? {x: number, y: number, side: number} square to look at instead of the whole frame: centre and side in pixels
---@return number[][] detections in pixels, best first: x0, y0, x1, y1, then mid hip, a point on the circle round the body, mid shoulder and a point on the
---  circle round the upper body (x, y each), score
function Landmarker:detect(frame, least, view)
  local h, w = frame:size(1), frame:size(2)
  local whole, side = self.whole, view and view.side or math.max(w, h)
  whole.x, whole.y, whole.width, whole.height, whole.angle = view and view.x or w / 2, view and view.y or h / 2, side, side, 0
  crop(frame, h, w, whole, C.LBR_BORDER_ZERO, f32(2 / 255), -1, self.detector_input, blazepose.detector_size)
  local out = by_size(self.detector:run(self.detector_input), detector_outputs, "detector")
  local detections = blazepose.decode(out.boxes, out.scores, least)
  for _, d in ipairs(detections) do
    if view then
      for k = 1, 11, 2 do d[k], d[k + 1] = view.x + (d[k] - .5) * side, view.y + (d[k + 1] - .5) * side end
    else
      blazepose.to_picture(d, w, h)
    end
  end
  return detections
end

--- The landmark network's answer in one region, neither tracked nor smoothed.
---@param frame Tensor u8 [H,W,3] RGB
---@param rect ffi.cdata* float[5] as blazepose.rect gives it: centre x, y, width, height in fractions of the frame, angle
---@return Pose|nil pose as blazepose.project gives it, valid until the next call; nil where the network says that nobody is there
---@return number flag probability that somebody is there
function Landmarker:mark(frame, rect)
  local h, w = frame:size(1), frame:size(2)
  local region, beside, above = blazepose.square(rect, w, h, self.square)
  crop(frame, h, w, region, C.LBR_BORDER_REPLICATE, f32(1 / 255), 0, self.landmark_input, blazepose.landmark_size)
  local out = by_size(self.marker:run(self.landmark_input), landmark_outputs, "landmark")
  local flag = out.flag[0]
  if flag > .5 then return blazepose.project(out, rect, beside, above, self.options.kernel, self.pose), flag end
  return nil, flag
end

-- Smooths the auxiliary points and derives the next frame's region. Returns 1 / size of the body in pixels; infinite where it has none.
local function follow(self, w, h, time)
  local lm, a = self.pose.landmarks, self.auxiliary
  for i = 0, 1 do
    local p = (blazepose.landmarks + i) * 5
    a[2 * i], a[2 * i + 1] = lm[p] * w, lm[p + 1] * h
  end
  local _, size = blazepose.rect(a[0], a[1], a[2], a[3], w, h, self.next_rect)
  local scale = size < 1e-6 and math.huge or f32(1 / size)
  if scale < math.huge then self.auxiliary_filter:apply(a, time, scale) end
  local x, y, far_x, far_y = f32(a[0] / w) * w, f32(a[1] / h) * h, f32(a[2] / w) * w, f32(a[3] / h) * h
  self.tracked = blazepose.rect(x, y, far_x, far_y, w, h, self.next_rect)
  return scale
end

--- Landmarks of the person in a frame.
---@param frame Tensor u8 [H,W,3] RGB
---@param time? number seconds, growing from frame to frame; not needed with clock = "mediapipe" or static
---@return Tensor|nil landmarks f32 [33,5] x, y, z (pixels of the frame; z relative to the hips, smaller is nearer), visibility, presence; nil: nobody
---@return Tensor|nil world f32 [33,3] metres from the mid hip
function Landmarker:process(frame, time)
  if frame.dtype ~= "u8" or frame:dim() ~= 3 or frame:size(3) ~= 3 then
    error(("landmarker:process: frame is %s [%s], want u8 [H,W,3]"):format(frame.dtype, table.concat(frame.shape, ",")), 2)
  end
  local o, h, w = self.options, frame:size(1), frame:size(2)
  self.frames = self.frames + 1
  if o.clock == "mediapipe" then
    time = self.frames * .033333
  elseif not time and not o.static then
    error("landmarker:process: a time in seconds is wanted (or clock = \"mediapipe\")", 2)
  end
  frame = frame:contiguous()
  self.region, self.detected, self.flag = nil, false, 0
  local rect = self.rect
  if self.tracked then
    ffi.copy(rect, self.tracked, 20)
    self.region = self.square
  else
    local found = self:detect(frame)
    if #found > 0 then
      local d = found[blazepose.choose(found, o.person, w, h)]
      blazepose.rect(d[5], d[6], d[7], d[8], w, h, rect)
      self.region, self.detected = self.square, true
    end
  end
  self.tracked = nil
  local pose
  if self.region and rect[2] > 0 then pose, self.flag = self:mark(frame, rect) end
  if not pose then
    self.picture_filter:reset() -- the filters of visibility and of world coordinates go on, as MediaPipe's do
    self.auxiliary_filter:reset()
    return nil
  end
  local n, picture, space = blazepose.landmarks, self.picture, self.space
  for i = 0, n - 1 do
    picture[3 * i] = pose.landmarks[5 * i] * w
    picture[3 * i + 1] = pose.landmarks[5 * i + 1] * h
    picture[3 * i + 2] = pose.landmarks[5 * i + 2] * w
    for k = 0, 2 do space[3 * i + k] = pose.world[4 * i + k] end
  end
  if not o.static then
    local scale = follow(self, w, h, time)
    if o.smooth == "one-euro" then
      if scale < math.huge then self.picture_filter:apply(picture, time, scale) end
      self.world_filter:apply(space, time, 1)
      self.visibility_filter:apply(pose.landmarks + 3, 5)
    end
  end
  local landmarks, world = tensor.empty({ n, 5 }), tensor.empty({ n, 3 })
  local l, d = landmarks:ptr(), world:ptr()
  for i = 0, n - 1 do
    for k = 0, 2 do
      l[5 * i + k] = picture[3 * i + k]
      d[3 * i + k] = space[3 * i + k]
    end
    l[5 * i + 3], l[5 * i + 4] = pose.landmarks[5 * i + 3], pose.landmarks[5 * i + 4]
  end
  return landmarks, world
end

return landmarker
