-- Finds one person's 33 landmarks in a video, a picture or a folder of frames, as MediaPipe's BlazePose does.
local here = arg and arg[0] and arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. package.path
local options = require "libration.options"

local about = "Finds one person's 33 landmarks in a video, a picture or a folder of frames, as MediaPipe's BlazePose does.\n\n" ..
  "Writes to the output folder: landmarks.npy float32 [T,33,5] (x, y, z in pixels of the upright source picture, visibility, presence; NaN where nobody is found),\n" ..
  "world.npy float32 [T,33,3] (metres from the mid hip), landmarks.csv (frame, time in seconds, JOINT_x ...), landmarks.json (OpenPose layout, one file with all\n" ..
  "frames), run.json (with the recording check), and with --overlay overlay.mp4 (overlay.png for a picture). With --export dlc landmarks_dlc.csv (DeepLabCut's layout),\n" ..
  "with --export trc landmarks.trc (OpenSim, Pose2Sim), with --kinematics kinematics.csv (range, path, speed, acceleration, jerk, angles by joint),\n" ..
  "with --stability stability.csv (uncertainty of each joint in pixels and torso lengths)."

local rows = require("libration.data.rows").of {
  {"output", "landmarks", "folder for the results, made when missing", metavar = "DIR"},
  {"model", "full", "landmark network", choices = {"lite", "full", "heavy"}},
  {"precision", "f32", "number type of the networks' products; bf16 moves landmarks by .26 pixels (median; 95th percentile 2.2, most 34; 24 frames of 340x256);\n" ..
    "f16, on CUDA devices, by .02 (.2, most 2.6)",
    choices = {"f32", "bf16", "f16"}},
  {"smooth", "one-euro", "one-euro: MediaPipe's, frame by frame; offline: zero-phase Butterworth over the whole recording, held in memory for it; none",
    choices = {"one-euro", "offline", "none"}},
  {"cutoff", 6, "cut-off of --smooth offline in Hz (amplitude 1/sqrt 2 there)", type = "number", above = 0, metavar = "HZ"},
  {"clock", "video", "time that the one-euro filters see: the video's own, or 33333 us a frame as MediaPipe's Python package counts", choices = {"video", "mediapipe"}},
  {"heatmap-kernel", 9, "side of the heat-map surroundings that refine a point: 9 as the Python package, 7 as its graph file", choices = {9, 7}},
  {"person", "best", "whom to follow where the detector finds several: best (highest score, as MediaPipe), largest, central (nearest to the middle)",
    choices = {"best", "largest", "central"}},
  {"start", 0, "seconds to begin at", type = "number", min = 0, metavar = "S"},
  {"end", 0, "seconds to end at; 0: the end of the recording", type = "number", min = 0, metavar = "S"},
  {"crop", {}, "part of the upright picture to look at: x,y,width,height", of = "integer", metavar = "X,Y,W,H",
    check = function(v) if #v ~= 0 and #v ~= 4 then return nil, "want x,y,width,height" end return true end},
  {"rotate", 0, "degrees clockwise to turn the picture by before looking, after the crop; results stay in source pixels", choices = {0, 90, 180, 270}},
  {"fps", 0, "frames a second of a folder of pictures; 0: 25", type = "number", min = 0},
  "device", "threads",
  {"weights", "", "your own file of the landmark network, or a folder with the files of both networks", metavar = "FILE"},
  {"export", {"csv", "json"}, "what is written beside landmarks.npy and world.npy: csv, json (OpenPose), dlc (DeepLabCut CSV), trc", of = "string",
    choices = {"csv", "json", "dlc", "trc"}, metavar = "LIST"},
  {"trc-units", "px", "of landmarks.trc; px: places in the picture; mm: world landmarks, as large as the network takes the body to be. X right, Y up, Z to the viewer",
    choices = {"px", "mm"}},
  {"kinematics", false, "write kinematics.csv; holds the whole recording in memory"},
  {"scale", "", "known torso length (middle of the shoulders to middle of the hips), as 12.5cm: kinematics.csv is in cm instead of torso lengths", metavar = "CM",
    check = function(v) return require("libration.motion.kinematics").scale_of(v) end},
  {"check", "warn", "recording check (camera, light, other people, body in the frame); warn: say what does not pass; off: do not look at the frames for it",
    choices = {"warn", "off"}},
  {"stability", 0, "frames from one to the next at which each joint's uncertainty is measured by five runs of the landmark network on shifted crops; 0: never;\n" ..
    "50 costs about a tenth more time", min = 0},
  {"overlay", false, "draw the skeleton over the frames: overlay.mp4 with the source's times and sound"},
  {"cache", true, "remember answers, and take a remembered one (in the user's cache folder)"},
}
rows.positional = {"input", "", "video, picture or folder of PNG or JPEG frames", metavar = "INPUT", required = true}

-- What is written where it is asked for.
local OPTIONAL = {
  "landmarks.csv", "landmarks.json", "landmarks_dlc.csv", "landmarks.trc", "kinematics.csv", "stability.csv", "overlay.mp4", "overlay.png",
}

-- Everything that a frame's landmarks are written to, a frame at once: { put(time, landmarks, world), close(frames a second), abort() }.
local function writers(folder, o, height)
  local files, skeleton = require "libration.files", require "libration.pose.skeletons".blazepose33
  local npy, csv, openpose = require "libration.formats.npy", require "libration.formats.csv", require "libration.formats.openpose"
  local list, wanted, joints = {}, {}, skeleton.joints
  for _, name in ipairs(o.export) do wanted[name] = true end
  local trc
  local ok, err = pcall(function()
    list[1] = npy.writer(files.join(folder, "landmarks.npy"), {33, 5})
    list[2] = npy.writer(files.join(folder, "world.npy"), {33, 3})
    if wanted.csv then
      list[#list + 1] = csv.landmark_writer(files.join(folder, "landmarks.csv"), {joints = joints, channels = {"x", "y", "z", "visibility", "presence"}})
    end
    if wanted.json then list[#list + 1] = openpose.writer(files.join(folder, "landmarks.json"), 33, 5) end
    if wanted.dlc then list[#list + 1] = require("libration.formats.dlc").writer(files.join(folder, "landmarks_dlc.csv"), {joints = joints, channels = 5}) end
    if wanted.trc then
      local px = o.trc_units == "px"
      trc = require("libration.formats.trc").writer(files.join(folder, "landmarks.trc"), {
        joints = joints, channels = px and 5 or 3, units = o.trc_units, factor = not px and 1000 or nil, height = px and height or nil, depth = true,
      })
      list[#list + 1] = trc
    end
  end)
  local all = {}
  function all.put(time, landmarks, world)
    list[1]:append_row(landmarks)
    list[2]:append_row(world)
    for i = 3, #list do list[i]:append(list[i] == trc and o.trc_units == "mm" and world or landmarks, time) end
  end
  function all.close(rate)
    while list[1] do table.remove(list, 1):close(rate) end
  end
  function all.abort()
    for _, writer in ipairs(list) do writer:abort() end
  end
  if not ok then
    all.abort()
    error(err, 0)
  end
  return all
end

-- The overlay: decodes once more and draws what was found, as landmarks.npy in the folder has it.
local function draw_overlay(recording, input, settings, folder)
  local files, ffi = require "libration.files", require "ffi"
  local media, draw, cairo = require "libration.media", require "libration.pose.draw", require "libration.report.cairo"
  local extract, progress, lr = require "libration.pose.extract", require "libration.progress", require "libration"
  local still = recording.kind == "picture"
  local path = files.join(folder, still and "overlay.png" or "overlay.mp4")
  local found = assert(io.open(files.join(folder, "landmarks.npy"), "rb"))
  found:seek("end", -recording.frames * 660)
  local source = assert(media.open(input, extract.source_options(setmetatable(settings, {__index = extract.defaults}))))
  local overlay = draw.overlay(source.width, source.height, cairo.over)
  local to_frame = extract.turning(source)
  local writer
  if not still then
    writer = assert(media.writer(path, {
      width = source.width, height = source.height, fps = recording.fps, audio_from = source.has_audio and input or nil,
      start = settings.start, stop = settings.stop ~= 0 and settings.stop or nil,
    }))
  end
  local bar = progress.new {label = "overlay", total = recording.frames, unit = "frames"}
  local points = lr.empty({33, 5})
  local from, to = ffi.new("float[165]"), points:ptr()
  local ok, err = pcall(function()
    for t = 0, recording.frames - 1 do
      local frame, time = source:next()
      if not frame then error(input .. ": fewer frames than before", 0) end
      ffi.copy(from, found:read(660), 660)
      for i = 0, 32 do
        local p = from + i * 5
        to[5 * i], to[5 * i + 1] = to_frame(p[0], p[1])
        to[5 * i + 2], to[5 * i + 3], to[5 * i + 4] = p[2], p[3], p[4]
      end
      overlay:paint(frame, function(canvas) draw.skeleton(canvas, points, {skeleton = "blazepose33"}) end)
      if still then media.write_png(path, frame) else writer:write(frame, time) end
      bar:update(t + 1)
    end
    if writer then writer:close() end
  end)
  bar:finish()
  source:close()
  found:close()
  if not ok then
    if writer then writer:abort() end
    error(err, 0)
  end
end

options.main(function()
  local o = options.parse("landmarks", about, rows, arg)
  local files, log, progress = require "libration.files", require "libration.log", require "libration.progress"
  local extract, lr = require "libration.pose.extract", require "libration"

  local device, which = lr.device.take(o.device)
  if o.precision == "f16" and device == "cpu" then error("--precision f16 is for CUDA devices, on the CPU there is bf16", 0) end
  if o.precision == "bf16" and device == "cpu" then
    log.info("bf16 products: landmarks move by about .26 pixels (median; 95th percentile 2.2, most 34; 24 frames of 340x256)%s",
      lr.core.C.lbr_cpu_bf16() == 0 and "; without bf16 units, which this processor lacks, nothing is gained by them" or "")
  end
  local folder = o.output
  local lock, reason = files.lock(folder)
  if not lock then error(reason, 0) end
  options.undo(function() lock:abandon() end)
  local bar
  local recording_check = require "libration.data.recording_check"
  local size, seen
  local settings = {
    model = o.model, precision = o.precision, kernel = o.heatmap_kernel, smooth = o.smooth, cutoff = o.cutoff, clock = o.clock, person = o.person,
    start = o.start, stop = o["end"], fps = o.fps, crop = #o.crop == 4 and o.crop or nil, rotate = o.rotate, cache = o.cache,
    threads = o.threads > 0 and o.threads or nil, weights = o.weights ~= "" and o.weights or nil, watch = o.check ~= "off", stability = o.stability,
    device = device,
    on_size = function(width, height)
      size = {width, height}
      if o.check ~= "off" then
        seen = recording_check.begin {skeleton = "blazepose33", channels = 5, score = 4, width = width, height = height}
      end
    end,
    on_open = function(source)
      log.info("device: %s", which)
      bar = progress.new {label = "landmarks", total = source.frames > 0 and source.frames or nil, unit = "frames"}
    end,
    on_frame = function(n, found) bar:update(n, found < n and ("%d without a pose"):format(n - found) or nil) end,
  }
  local out
  function settings.sink(time, landmarks, world)
    out = out or writers(folder, o, size[2])
    out.put(time, landmarks, world)
    if seen then seen:add(time, landmarks) end
  end
  local ok, err = pcall(function()
    local r = assert(extract.recording(o.input, settings))
    if bar then bar:finish() end
    if r.cached then log.info("landmarks: remembered from an earlier run (%d frames); --no-cache finds them again", r.frames) end
    if r.warning and r.warning ~= "" then log.warn("%s", r.warning) end
    if r.found == 0 then error(("%s: no person found in %d frame%s"):format(o.input, r.frames, r.frames == 1 and "" or "s"), 0) end
    for _, jump in ipairs(r.jumps) do
      log.warn("jump at %.3f s (frame %d): the body is %.0f pixels from where it was, perhaps another person", jump.time, jump.frame - 1, jump.distance)
    end
    for _, name in ipairs(OPTIONAL) do files.remove(files.join(folder, name)) end -- of an earlier run, perhaps of another input
    out.close(r.fps > 0 and r.fps or 25)
    options.settled()
    local check
    if seen and r.kind ~= "picture" then
      seen.fps = r.fps > 0 and r.fps or 25
      check = seen:judge {watch = r.watch, stability = r.stability, mode = "warn", cost = r.watch_seconds > 0 and r.watch_seconds / (r.seconds - r.watch_seconds) or nil}
      for _, finding in ipairs(check.findings) do
        if finding.level ~= "note" then log.warn("recording check: %s", finding.text) end
      end
    end
    if r.stability then require("libration.pose.stability").write(files.join(folder, "stability.csv"), r.stability) end
    if o.kinematics then
      local kinematics, Sequence = require "libration.motion.kinematics", require "libration.motion.sequence"
      local points = assert(require("libration.formats.npy").load(files.join(folder, "landmarks.npy")))
      local list, why = kinematics.of_sequence(Sequence.new {points = points, id = o.input, skeleton = "blazepose33", fps = r.fps > 0 and r.fps or 25, times = r.times},
        {scale = kinematics.scale_of(o.scale)})
      if list then kinematics.write(files.join(folder, "kinematics.csv"), list) else log.warn("no kinematics: %s", why) end
    end
    if o.overlay then draw_overlay(r, o.input, settings, folder) end
    local cjson = require "cjson"
    local rate = r.seconds > 0 and r.frames / r.seconds or 0
    files.write(files.join(folder, "run.json"), cjson.encode {
      recipe = "landmarks", version = lr.version, device = device, input = o.input, options = o, key = r.key, cached = r.cached, frames = r.frames, found = r.found,
      width = r.width, height = r.height, fps = r.fps, jumps = #r.jumps > 0 and r.jumps or nil, seconds = r.seconds, frames_per_second = rate,
      recording_check = check, peak_memory_gpu = device ~= "cpu" and lr.memory(device).peak or nil,
    } .. "\n")
    if check then log.info("recording check: %s", recording_check.line(check)) end
    log.info("%s: a pose in %d of %d frames%s -> %s", o.input, r.found, r.frames,
      rate > 0 and (", %.1f frames/s"):format(rate) or "", folder)
  end)
  if not ok then
    if bar then bar.quiet = true bar:finish() end
    if out then out.abort() end
    error(err, 0)
  end
end)
