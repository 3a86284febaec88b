-- pose_cases.lua: what the pose specs of the CPU and of the device share: made-up networks, and MediaPipe's own numbers step by step. Judges nothing.
local ffi = require "ffi"
local assert = require "luassert"
local files = require "libration.files"
local helper = require "helper"
local tflite = require "helper_tflite"
local lr = require "libration"
local npy = require "libration.formats.npy"
local regions = require "libration.regions"
local blazepose = require "libration.pose.blazepose"

local cases = {}

--- Sizes of the pictures of goldens/stages.
cases.stages = {
  ta_chi_f040 = { 340, 256 }, ta_chi_f200 = { 340, 256 }, sports2d_walk_f060 = { 1768, 994 }, sports2d_walk_f150 = { 1768, 994 },
  pose2sim_cam02_f050 = { 1080, 1920 }, ["000000000785_f000"] = { 640, 425 },
}

--- Widths and heights of the golden videos.
cases.videos = {
  { "ta_chi", 340, 256 }, { "sports2d_walk", 1768, 994 }, { "pose2sim_cam02", 1080, 1920 }, { "egoblur_face", 2560, 1920 },
  { "again", 640, 480 }, { "book", 640, 480 }, { "help", 640, 480 }, { "thanks", 640, 480 },
}

--- An array of goldens/FOLDER; nil where ../shared is absent.
function cases.golden(path)
  local full = helper.shared("goldens/" .. path)
  return full and assert(npy.load(full))
end

--- Networks that answer what a script says, on the device of their input: the detector sees people at places (script.people), the landmark network is sure or not
--- (script.flag(run)), its auxiliary points drift (script.drift).
---@return table networks for pose.landmarker
---@return table seen runs of each
function cases.networks(script)
  local seen = { detector = 0, landmark = 0 }
  local boxes, scores = lr.zeros({ 1, 2254, 12 }), lr.full({ 1, 2254, 1 }, -80)
  local a = blazepose.anchors():ptr()
  local function place(i, x, y, radius, logit)
    local b = boxes:ptr() + 12 * i
    local cx, cy = (x - a[2 * i]) * 224, (y - a[2 * i + 1]) * 224
    b[0], b[1], b[2], b[3] = cx, cy, 50, 50
    b[4], b[5], b[6], b[7] = cx, cy, cx, cy - radius * 224
    scores:ptr()[i] = logit
  end
  local detector = {}
  function detector.run(_, input)
    seen.detector = seen.detector + 1
    assert.same({ 1, 224, 224, 3 }, input.shape)
    for i = 0, 2253 do scores:ptr()[i] = -80 end
    for k, person in ipairs(script.people or { { .5, .5, .25, 3 } }) do place(500 * k, unpack(person)) end
    return { a = boxes:to(input.device), b = scores:to(input.device) }
  end
  local points, flag, heat, world = lr.zeros({ 1, 195 }), lr.zeros({ 1, 1 }), lr.full({ 1, 64, 64, 39 }, -20), lr.zeros({ 1, 117 })
  for i = 0, 116 do world:ptr()[i] = math.sin(i) end
  local marker = {}
  function marker.run(_, input)
    seen.landmark = seen.landmark + 1
    assert.same({ 1, 256, 256, 3 }, input.shape)
    local p = points:ptr()
    for i = 0, 38 do p[5 * i], p[5 * i + 1], p[5 * i + 2], p[5 * i + 3], p[5 * i + 4] = 128 + i, 128 - i, i, 4, 4 end
    local drift = script.drift or 0
    p[33 * 5], p[33 * 5 + 1], p[34 * 5], p[34 * 5 + 1] = 128 + drift, 128, 128 + drift, 128 - 256 / 2.5
    flag:ptr()[0] = script.flag and script.flag(seen.landmark) or 1
    local out = { Identity = points, Identity_1 = flag, Identity_2 = lr.zeros({ 1, 256, 256, 1 }), Identity_3 = heat, Identity_4 = world }
    for name, t in pairs(out) do out[name] = t:to(input.device) end
    return out
  end
  return { detector = detector, landmark = marker }, seen
end

--- Writes files of two networks with the shapes of BlazePose's that see somebody in the top left corner of every picture, and one of BlazeFace's that takes what is
--- bright for faces: what they cost is next to nothing.
---@param folder string where pose_detection.tflite, pose_landmark_full.tflite, face_detection_full_range_sparse.tflite and face_detection_short_range.tflite go
---@param weight number|nil of the picture in the landmarks, 0
function cases.write_networks(folder, weight)
  local function f32(list) return tflite.bytes("f32", list) end
  local function same(n, v)
    local list = {}
    for i = 1, n do list[i] = v end
    return list
  end
  -- heads: {name, rows, columns, bias, weight, flat}: the picture enlarged or shrunk to rows x columns, then a 1x1 convolution of such weights (0) and this bias; flat: as
  -- [1,rows * columns,n]
  local function write(name, side, heads)
    local tensors, operators, outputs = { { name = "input", shape = { 1, side, side, 3 } } }, {}, {}
    local function tensor(t)
      tensors[#tensors + 1] = t
      return #tensors - 1
    end
    for _, head in ipairs(heads) do
      local rows, columns, n = head[2], head[3], #head[4]
      local size = tensor { name = head[1] .. " size", shape = { 2 }, kind = "i32", data = tflite.bytes("i32", { rows, columns }) }
      local small = tensor { name = head[1] .. " small", shape = { 1, rows, columns, 3 } }
      local w = tensor { name = head[1] .. " w", shape = { n, 1, 1, 3 }, data = f32(same(3 * n, head[5] or 0)) }
      local b = tensor { name = head[1] .. " b", shape = { n }, data = f32(head[4]) }
      local y = tensor { name = head[1], shape = { 1, rows, columns, n } }
      operators[#operators + 1] = { code = 23, inputs = { 0, size }, outputs = { small }, type = 15, options = { [3] = { "u8", 1 } } } -- RESIZE_BILINEAR
      operators[#operators + 1] = { code = 3, inputs = { small, w, b }, outputs = { y }, type = 1, options = { [1] = { "i32", 1 }, [2] = { "i32", 1 } } } -- CONV_2D
      if head[6] then
        local flat = { 1, rows * columns, n }
        local shape = tensor { name = head[1] .. " shape", shape = { 3 }, kind = "i32", data = tflite.bytes("i32", flat) }
        operators[#operators + 1] = { code = 22, inputs = { y, shape }, outputs = { tensor { name = head[1] .. " flat", shape = flat } }, type = 17, options = {} } -- RESHAPE
        y = #tensors - 1
      end
      outputs[#outputs + 1] = y
    end
    assert(files.write(folder .. "/" .. name .. ".tflite", tflite.model { inputs = { 0 }, outputs = outputs, tensors = tensors, operators = operators }))
  end
  write("pose_detection", 224, { { "boxes", 46, 49, { 0, 0, 90, 90, 0, 0, 0, -60, 0, -30, 0, -60 } }, { "scores", 46, 49, { 2 } } })
  local points = {}
  for i = 0, 38 do
    for k, v in ipairs { 128 + 2 * i, 128 - i, i, 3, 4 } do points[5 * i + k] = v end
  end
  points[5 * 33 + 1], points[5 * 33 + 2], points[5 * 34 + 1], points[5 * 34 + 2] = 128, 128, 128, 26
  local box = { 0, 0, 40, 48, -8, -6, 8, -6, 0, 2, 0, 9, -18, 0, 18, 0 }
  write("face_detection_full_range_sparse", 192, { { "boxes", 48, 48, box, 0, true }, { "scores", 48, 48, { -2 }, 2, true } })
  write("face_detection_short_range", 128, { { "boxes", 32, 28, box, 0, true }, { "scores", 32, 28, { -2 }, 2, true } })
  write("pose_landmark_full", 256, { { "Identity", 1, 1, points, weight }, { "Identity_1", 1, 1, { .9 } }, { "Identity_3", 64, 64, same(39, -20) },
    { "Identity_4", 1, 1, same(117, .5), weight } })
end

--- A grey frame.
function cases.frame(w, h) return lr.full({ h, w, 3 }, 90, "u8") end

--- Refinement and projection of a golden stage on a device: largest differences in pixels, of probabilities, in metres, and of kernel 7 in fractions of the crop's side.
function cases.projection(stage, device)
  local w, h = unpack(cases.stages[stage])
  local function load(key) return cases.golden(("stages/%s/%s.npy"):format(stage, key)):contiguous() end
  local roi = load("roi"):ptr()
  local rect = lr.tensor({ { roi[0] / w, roi[1] / h, roi[2] / w, roi[2] / h, roi[3] } }):to(device)
  local out = { ld_3d = load("ld_3d"):reshape(1, 195), heatmap = load("heatmap"):reshape(1, 64, 64, 39), world = load("world_raw"):reshape(1, 117) }
  for name, t in pairs(out) do out[name] = t:to(device) end
  local got = blazepose.project(out, rect, w, h, 9):to "cpu"
  local l, landmarks, aux, world = got:ptr(), load "landmarks", load "aux", load "world"
  local worst, sure, metres, seven = 0, 0, 0, 0
  for i = 0, 34 do
    local want, p = i < 33 and landmarks:ptr() + 5 * i or aux:ptr() + 5 * (i - 33), l + 8 * i
    worst = math.max(worst, math.abs(p[0] - want[0]) * w, math.abs(p[1] - want[1]) * h, math.abs(p[2] - want[2]) * w)
    sure = math.max(sure, math.abs(p[3] - want[3]), math.abs(p[4] - want[4]))
    for k = 0, i < 33 and 2 or -1 do metres = math.max(metres, math.abs(p[5 + k] - world:ptr()[4 * i + k])) end
  end
  -- an upright region as large as the picture leaves the crop's own fractions
  local refined = load "refined_xy_kernel7"
  got = blazepose.project(out, lr.tensor({ { .5, .5, 1, 1, 0 } }):to(device), 256, 256, 7):to "cpu"
  for i = 0, 34 do
    for k = 0, 1 do seven = math.max(seven, math.abs(got:ptr()[8 * i + k] - refined:ptr()[2 * i + k])) end
  end
  return worst, sure, metres, seven
end

--- MediaPipe's raw landmarks of a golden video through follow_points on a device, at most so many frames: largest differences from its smoothed ones in pixels, metres, of
--- visibility.
function cases.smoothing(video, device, most)
  local name, w, h = unpack(video)
  local function load(key) return cases.golden(("video/%s.%s.npy"):format(name, key)):contiguous() end
  local raw, aux, smooth, raw_world, smooth_world = load "raw.landmarks", load "aux", load "smooth.landmarks", load "raw.world", load "smooth.world"
  local l, a, g, rw, gw = raw:ptr(), aux:ptr(), smooth:ptr(), raw_world:ptr(), smooth_world:ptr()
  local following = regions.following(33, device)
  local options = { width = w, height = h, follow = true, smooth = true, filters = { .05, 80, .01, 10, .1, 40 }, alpha = .1 }
  local points, flag, time = lr.zeros({ 35, 8 }), lr.zeros({ 1 }), lr.zeros({ 1 }, "f64")
  local p = points:ptr()
  local worst, metres, visibility = 0, 0, 0
  for t = 0, math.min(most or 1e9, raw:size(1)) - 1 do
    local there = l[t * 165] == l[t * 165]
    flag:ptr()[0], time:ptr()[0] = there and 1 or 0, (t + 1) * .033333
    for i = 0, 32 do
      ffi.copy(p + 8 * i, l + t * 165 + 5 * i, 20)
      ffi.copy(p + 8 * i + 5, rw + t * 132 + 4 * i, 12)
    end
    for i = 0, 1 do p[8 * (33 + i)], p[8 * (33 + i) + 1] = a[t * 8 + 4 * i], a[t * 8 + 4 * i + 1] end
    for _, tensor in ipairs { points, flag, time } do tensor:touch() end
    local y = regions.follow_points(following, points:to(device), flag:to(device), time:to(device), options):to "cpu":ptr()
    assert.equal(there, y[0] == y[0])
    for i = 0, there and 32 or -1 do
      local want, have = g + t * 165 + 5 * i, y + 8 * i
      worst = math.max(worst, math.abs(have[0] - want[0] * w), math.abs(have[1] - want[1] * h), math.abs(have[2] - want[2] * w))
      visibility = math.max(visibility, math.abs(have[3] - want[3]))
      for k = 0, 2 do metres = math.max(metres, math.abs(have[5 + k] - gw[t * 132 + 4 * i + k])) end
    end
  end
  return worst, metres, visibility
end

---------------------------------------------------------------------------------------------------- videos with MediaPipe's recorded answers

--- Videos of ../shared/data by name.
cases.files = {
  ta_chi = { "video/ta_chi.mp4" }, sports2d_walk = { "video/sports2d_walk.mp4" }, pose2sim_cam02 = { "video/pose2sim_cam02.mp4" },
  egoblur_face = { "video/egoblur_face.mp4" }, again = { "signs/asl_clips/again.mkv" }, book = { "signs/asl_clips/book.mkv" },
  help = { "signs/asl_clips/help.mkv" }, thanks = { "signs/asl_clips/thanks.mkv" },
}
cases.names = { "ta_chi", "sports2d_walk", "pose2sim_cam02", "egoblur_face", "again", "book", "help", "thanks" }

--- What a spec with the networks and the recorded answers lacks, or nil: the answers, or the weights.
function cases.missing()
  if not helper.shared("goldens/video") then return "needs ../shared" end
  local ok, err = pcall(require "libration.weights".path, "pose_landmark_full")
  if ok then ok, err = pcall(require "libration.weights".path, "pose_detection") end
  if not ok then return "needs weights: " .. tostring(err) end
end

local anchor = {} -- keeps recorded answers alive while their pointers are used

--- A recorded answer, alive until forget.
function cases.recorded(folder, name, key)
  local t = assert(npy.load(helper.shared(("goldens/%s/%s.%s.npy"):format(folder, name, key))))
  anchor[#anchor + 1] = t
  return t
end

function cases.forget() anchor = {} end

--- Calls fn(frame, i) for the first `most` frames of a file, i from 0.
function cases.each_frame(path, most, fn)
  local source = assert(require "libration.media".open(helper.shared("data/" .. path)))
  local i = 0
  while i < most do
    local frame = source:next()
    if not frame then break end
    fn(frame, i)
    i = i + 1
  end
  source:close()
  return i
end

function cases.percentile(list, p)
  table.sort(list)
  return list[math.max(1, math.ceil(#list * p / 100))] or 0 / 0
end

--- The landmark network alone, on the region that MediaPipe used in each frame: mean and 99th percentile of the distances in pixels, points above .5, frames in which a pose is
--- found here alone or there alone, points.
---@param options table of the landmarker
function cases.golden_regions(name, most, options)
  local roi, raw = cases.recorded("video", name, "roi"), cases.recorded("video", name, "raw.landmarks")
  local r, want = roi:ptr(), raw:ptr()
  local landmarker = require("libration.pose").landmarker(options)
  local off, flags, above, sum = {}, 0, 0, 0
  cases.each_frame(cases.files[name][1], math.min(most, roi:size(1)), function(frame, i)
    local h, w, q = frame:size(1), frame:size(2), r + 6 * i
    if q[0] ~= q[0] then return end
    local found = landmarker:mark(frame, q)
    local g = want + 165 * i
    if (found ~= nil) ~= (g[0] == g[0]) then flags = flags + 1 end
    if found and g[0] == g[0] then
      for k = 0, 32 do
        local d = math.sqrt(((found.landmarks[5 * k] - g[5 * k]) * w) ^ 2 + ((found.landmarks[5 * k + 1] - g[5 * k + 1]) * h) ^ 2)
        off[#off + 1], sum = d, sum + d
        if d > .5 then above = above + 1 end
      end
    end
  end)
  local mean, p99 = sum / #off, cases.percentile(off, 99)
  io.write(("bound: golden regions %s on %s (%d points) mean %.4f px 99th percentile %.4f max %.3f; %d above .5 px, pose found differs %d times\n"):format(
    name, landmarker.device, #off, mean, p99, off[#off], above, flags))
  return mean, p99, above, flags, #off
end

--- From the file to smoothed landmarks, nothing taken from the goldens: median and 95th percentile of the distances in pixels, frames in which a pose is found here alone or
--- there alone, frames with a pose here.
function cases.chain(name, most, folder, options)
  local smooth = cases.recorded(folder or "video", name, "smooth.landmarks")
  local want = smooth:ptr()
  local landmarker = require("libration.pose").landmarker(options)
  local off, ours, theirs, different = {}, 0, 0, 0
  cases.each_frame(cases.files[name][1], math.min(most, smooth:size(1)), function(frame, i)
    local h, w, g = frame:size(1), frame:size(2), want + 165 * i
    local found = landmarker:process(frame)
    if found then ours = ours + 1 end
    if g[0] == g[0] then theirs = theirs + 1 end
    if (found ~= nil) ~= (g[0] == g[0]) then different = different + 1 end
    if found and g[0] == g[0] then
      local p = found:ptr()
      for k = 0, 32 do
        off[#off + 1] = math.sqrt((p[5 * k] - g[5 * k] * w) ^ 2 + (p[5 * k + 1] - g[5 * k + 1] * h) ^ 2)
      end
    end
  end)
  local median, p95 = cases.percentile(off, 50), cases.percentile(off, 95)
  io.write(("bound: whole chain %s on %s%s median %.4f px 95th percentile %.4f max %.2f; a pose in %d frames, MediaPipe %d, %d frames differ\n"):format(
    name, landmarker.device, options.kernel and " kernel " .. options.kernel or "", median, p95, off[#off], ours, theirs, different))
  return median, p95, different, ours
end

return cases
