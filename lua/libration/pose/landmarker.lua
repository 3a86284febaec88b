-- Finds one person's 33 landmarks frame by frame: detector when nobody is tracked, landmark network on the tracked region, smoothing. On either device: a frame goes up
-- once, crops, networks, refinement and filters run there, the landmarks come down. Decodes no video and draws nothing; the networks themselves run in graph/.
local ffi = require "ffi"
local core = require "libration.core"
local device = require "libration.device"
local regions = require "libration.regions"
local tensor = require "libration.tensor"
local blazepose = require "libration.pose.blazepose"

local C = core.C
local f32 = blazepose.f32

---@class Pose one frame's answer, before any smoothing: 33 landmarks and the two points that give the next region
---@field landmarks ffi.cdata* float[35*5] x, y, z as fractions (x and z of the picture's width, y of its height), visibility, presence
---@field world ffi.cdata* float[35*3] x, y, z metres
---@field body ffi.cdata*|nil float[256*256] of the region: greater than 0 where the body is; only of landmarkers that segment

---@class Landmarker
---@field device string where it runs: "cpu", "cuda:N"
---@field region ffi.cdata*|nil lbr_region in pixels that the landmark network saw in the last frame; nil where nobody was detected
---@field rect ffi.cdata* float[5] the same in fractions of the frame, as blazepose.rect gives it
---@field detected boolean true where that region came from the detector and not from tracking
---@field flag number probability, by the landmark network, that somebody is in the region; 0 without a region
---@field frames integer frames seen since the last reset
local Landmarker = {}
Landmarker.__index = Landmarker

local choices = {
  model = { "full", "lite", "heavy" },
  precision = { "f32", "bf16", "f16" },
  kernel = { 9, 7 },
  smooth = { "one-euro", "offline", "none" },
  clock = { "video", "mediapipe" },
  person = { "best", "largest", "central" },
}
-- One-Euro filters as MediaPipe's: least cut-off in Hz and speed coefficient of the picture's, the two auxiliary and the world's points; share of a new visibility.
local FILTERS, ALPHA = { .05, 80, .01, 10, .1, 40 }, .1
local defaults = { model = "full", precision = "f32", kernel = 9, smooth = "one-euro", clock = "video", person = "best" }

local function read_options(options)
  local o = {}
  local others = { weights = true, threads = true, static = true, networks = true, device = true, segment = true, late = true }
  for name, value in pairs(options) do
    if choices[name] then
      local known = false
      for _, choice in ipairs(choices[name]) do known = known or choice == value end
      if not known then
        error(("pose.landmarker: %s is %s, want %s"):format(name, tostring(value), table.concat(choices[name], ", ")), 3)
      end
    elseif not others[name] then
      local known = "clock, device, kernel, late, model, networks, person, precision, segment, smooth, static, threads, weights"
      error(("pose.landmarker: unknown option %s; there are %s"):format(tostring(name), known), 3)
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
local segment_outputs = { [195] = "ld_3d", [1] = "flag", [64 * 64 * 39] = "heatmap", [117] = "world", [256 * 256] = "body" }

local function by_size(outputs, sizes, what, batch)
  local found = {}
  for _, t in pairs(outputs) do
    local name = sizes[t:numel() / (batch or 1)]
    if name then found[name] = t end
  end
  for _, name in pairs(sizes) do
    if not found[name] then error(("pose.landmarker: the %s network has no output '%s' of the known size"):format(what, name), 0) end
  end
  return found
end

-- Names of the landmark network's outputs that are read; the fifth, a segmentation, costs a fifth of the time and is left out where it is not asked for.
local wanted = { "Identity", "Identity_1", "Identity_3", "Identity_4" }

local function load_network(path, precision, name, outputs)
  local graph = require "libration.graph"
  local network, err = graph.load(path, { precision = precision, outputs = outputs, device = name })
  if not network and outputs then network, err = graph.load(path, { precision = precision, device = name }) end -- a user's own file may name them otherwise
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

-- A tensor that Lua writes, and its twin on the landmarker's device: itself on the CPU.
local function pair(shape, dtype, name)
  local here = tensor.zeros(shape, dtype)
  return { here = here, p = here:ptr(), there = tensor.constant(here, name) }
end

local function send(both)
  both.here:touch()
  if not rawequal(both.here, both.there) then core.check(C.lbr_transfer(both.here, both.there)) end
  return both.there
end

local function room_for_pose(segment)
  local n = blazepose.landmarks + 2
  return { landmarks = ffi.new("float[?]", 5 * n), world = ffi.new("float[?]", 3 * n), body = segment and ffi.new("float[65536]") or nil }
end

--- A landmarker for one stream of frames.
---@param options? table model "full" | "lite" | "heavy"; precision "f32" | "bf16" | "f16" (CUDA); kernel 9 | 7 (heat-map surroundings; 9 is what MediaPipe's Python
---  package uses, 7 what its graph file says); smooth "one-euro" (as MediaPipe), "none" or "offline" (raw here; filter the whole sequence with smoothing.offline
---  afterwards); clock "video" (the times given to process) or "mediapipe" (33333 us a frame); person "best" (highest score, as MediaPipe), "largest" or
---  "central": whom to follow where the detector finds several; static: true runs the detector on every frame and tracks nothing;
---  segment: true: mark also tells where the body is; weights: file of the landmark network, folder with both, or {detector = file, landmark = file};
---  threads; late: true loads the landmark network when it is first asked; device "cpu" (default), "cuda", "cuda:N"; networks: {detector =, landmark =, files =},
---  ready objects with :run on that device, and the files that they were made of
---@return Landmarker
local function landmarker(options)
  local o = read_options(options or {})
  local self = setmetatable({ options = o, device = device.name(device.id(o.device)) }, Landmarker)
  if o.precision == "f16" and self.device == "cpu" then error("pose.landmarker: precision f16 is for CUDA devices, on the CPU there is bf16", 2) end
  if o.threads then C.lbr_set_threads(o.threads) end
  if o.networks then
    self.detector, self.marker, self.files = o.networks.detector, o.networks.landmark, o.networks.files
  else
    self.files = Landmarker.weight_files(o)
    self.detector = load_network(self.files.detector, o.precision, self.device)
    local function load() return load_network(self.files.landmark, o.precision, self.device, not o.segment and wanted or nil) end
    self.marker = o.late and require("libration.graph").later(load) or load()
  end
  self.following = regions.following(blazepose.landmarks, self.device)
  self.place = pair({ 2, 5 }, "f32", self.device) -- rect and region of a mark
  self.time = pair({ 1 }, "f64", self.device)
  self.poses = {}
  self.square, self.rect, self.next_rect = ffi.new("lbr_region"), ffi.new("float[5]"), ffi.new("float[5]")
  self:reset()
  return self
end

--- Forgets the person and every filter: the next frame is a first one.
function Landmarker:reset()
  self.tracked, self.region, self.detected, self.flag, self.frames = false, nil, false, 0, 0
  self.following.clock:fill_(0 / 0)
end

-- The frame on the device; nil: the one that was seen last, as long as its memory is what it was.
local function see(self, frame)
  if frame then
    if not frame:is_contiguous() then frame = tensor.unscoped(frame.contiguous, frame) end
    self.picture = regions.show(frame, self.device, self.picture)
  end
  return self.picture, self.picture:size(1), self.picture:size(2)
end

-- Rect and region that the landmark network is to look at.
local function look_at(self, rect, w, h)
  local place = self.place
  ffi.copy(place.p, rect, 20)
  ffi.copy(place.p + 5, blazepose.square(rect, w, h, self.square), 20)
  return send(place)
end

local function search(self, frame, views)
  local picture, h, w = see(self, frame)
  local n, size, long, found = #views, blazepose.detector_size, math.max(w, h), {}
  local places = tensor.empty { n, 5 }
  for i, view in ipairs(views) do
    local p, side = places:ptr() + 5 * (i - 1), view.side or long
    p[0], p[1], p[2], p[3], p[4] = view.x or w / 2, view.y or h / 2, side, side, 0
  end
  places:touch()
  local input = regions.crop(picture, places:to(self.device), { size = { size, size }, scale = f32(2 / 255), shift = -1 })
  local out = by_size(self.detector:run(input), detector_outputs, "detector", n)
  local boxes, scores = out.boxes:reshape(n, -1, 12), out.scores:reshape(n, -1)
  for i, view in ipairs(views) do
    found[i] = blazepose.detections(boxes:narrow(1, i, 1), scores:narrow(1, i, 1), view.least)[1]
    for _, d in ipairs(found[i]) do
      if view.side then
        for k = 1, 11, 2 do d[k], d[k + 1] = view.x + (d[k] - .5) * view.side, view.y + (d[k + 1] - .5) * view.side end
      else
        blazepose.to_picture(d, w, h)
      end
    end
  end
  return found
end

-- Points and flags of the landmark network, on the device, where places [2n,5] says: n rects, then their n squares.
local function look(self, places)
  local picture, h, w = see(self)
  local size, n = blazepose.landmark_size, places:size(1) / 2
  local input = regions.crop(picture, places:narrow(1, n + 1, n), { size = { size, size }, border = "replicate", scale = f32(1 / 255) })
  local out = by_size(self.marker:run(input), self.options.segment and segment_outputs or landmark_outputs, "landmark", n)
  return blazepose.project(out, places:narrow(1, 1, n), w, h, self.options.kernel), out.flag, out.body
end

local function marks(self, frame, rects)
  local _, h, w = see(self, frame)
  local n, poses, flags = #rects, {}, {}
  local places = tensor.empty { 2 * n, 5 }
  for i, rect in ipairs(rects) do
    ffi.copy(places:ptr() + 5 * (i - 1), rect, 20)
    ffi.copy(places:ptr() + 5 * (n + i - 1), blazepose.square(rect, w, h, self.square), 20)
  end
  places:touch()
  local points, flag, body = look(self, places:to(self.device))
  points, flag, body = points:to "cpu", flag:to "cpu", body and body:to "cpu"
  for i = 1, n do
    flags[i], poses[i] = flag:ptr()[i - 1], false
    if flags[i] > .5 then
      local pose, p, count = self.poses[i] or room_for_pose(self.options.segment), points:ptr() + (i - 1) * points:size(2) * 8, points:size(2)
      for k = 0, count - 1 do
        ffi.copy(pose.landmarks + 5 * k, p + 8 * k, 20)
        ffi.copy(pose.world + 3 * k, p + 8 * k + 5, 12)
      end
      if body then ffi.copy(pose.body, body:ptr() + (i - 1) * 65536, 65536 * 4) end
      self.poses[i], poses[i] = pose, pose
    end
  end
  return poses, flags
end

--- All people in square views of a frame, each view searched and suppressed by itself.
---@param frame Tensor|nil u8 [H,W,3] RGB, here or on the landmarker's device; nil: the frame that was seen last, whose memory is what it was
---@param views {x: number?, y: number?, side: number?, least: number?}[] centre and side in pixels, without them the whole frame; smallest score, default .5
---@return number[][][] detections of each view in pixels, best first: x0, y0, x1, y1, then mid hip, a point on the circle round the body, mid shoulder and a point
---  on the circle round the upper body (x, y each), score
function Landmarker:search(frame, views) return tensor.scope(search, self, frame, views) end

--- All people in a frame, after suppression.
---@param frame Tensor|nil as of search
---@param least? number smallest score, default .5
---@return number[][] detections as of search
function Landmarker:detect(frame, least) return self:search(frame, { { least = least } })[1] end

--- The landmark network's answers in regions, neither tracked nor smoothed.
---@param frame Tensor|nil u8 [H,W,3] RGB; nil: as of detect
---@param rects ffi.cdata*[] float[5] as blazepose.rect gives them: centre x, y, width, height in fractions of the frame, angle
---@return (Pose|false)[] poses valid until the next call; false where the network says that nobody is there
---@return number[] flags probabilities that somebody is there
function Landmarker:marks(frame, rects) return tensor.scope(marks, self, frame, rects) end

--- The same in one region.
---@param frame Tensor|nil
---@param rect ffi.cdata*
---@return Pose|nil pose valid until the next call; nil where the network says that nobody is there
---@return number flag probability that somebody is there
function Landmarker:mark(frame, rect)
  local poses, flags = self:marks(frame, { rect })
  return poses[1] or nil, flags[1]
end

-- Landmarks and world of y's first rows.
local function answer(y)
  local n = blazepose.landmarks
  local landmarks, world = tensor.empty({ n, 5 }), tensor.empty({ n, 3 })
  local l, d = landmarks:ptr(), world:ptr()
  for i = 0, n - 1 do
    ffi.copy(l + 5 * i, y + 8 * i, 20)
    ffi.copy(d + 3 * i, y + 8 * i + 5, 12)
  end
  return landmarks, world
end

local function process(self, frame, time)
  local o, following = self.options, self.following
  local _, h, w = see(self, frame)
  local rect = self.rect
  self.region, self.detected, self.flag = nil, false, 0
  local place = following.place
  if self.tracked then
    ffi.copy(rect, self.next_rect, 20)
    blazepose.square(rect, w, h, self.square)
    self.region = self.square
  else
    local found = search(self, nil, { {} })[1]
    if #found > 0 then
      local d = found[blazepose.choose(found, o.person, w, h)]
      blazepose.rect(d[5], d[6], d[7], d[8], w, h, rect)
      place = look_at(self, rect, w, h)
      self.region, self.detected = self.square, true
    end
  end
  self.tracked = false
  if not (self.region and rect[2] > 0) then
    following.clock:narrow(1, 1, 2):fill_(0 / 0) -- the filters of visibility and of world coordinates go on, as MediaPipe's do
    return nil
  end
  local points, flag = look(self, place)
  self.time.p[0] = time
  local y = regions.follow_points(following, points, flag, send(self.time),
    { width = w, height = h, follow = not o.static, smooth = o.smooth == "one-euro", filters = FILTERS, alpha = ALPHA }):to "cpu" -- the only wait for the device
  local p = y:ptr()
  local tail = p + 8 * blazepose.landmarks
  self.flag, self.tracked = tail[5], tail[6] == 1
  ffi.copy(self.next_rect, tail, 20)
  if self.flag > .5 then return answer(p) end
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
  self.frames = self.frames + 1
  if self.options.clock == "mediapipe" then
    time = self.frames * .033333
  elseif not time and not self.options.static then
    error("landmarker:process: a time in seconds is wanted (or clock = \"mediapipe\")", 2)
  end
  return tensor.scope(process, self, frame, time or 0)
end

return landmarker
