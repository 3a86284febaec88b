-- Scores videos or landmark files with a detector that train.lua made, and writes a verdict, plots and a report for each.
local here = arg and arg[0] and arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. package.path
local options = require "libration.options"

local about = "Scores videos or landmark files with a detector that train.lua made.\n\n" ..
  "For each input: reconstruction_error.{png,svg}, anomaly_stats.txt, anomaly.csv (a row a frame: time, error, p, flag, error of each joint),\n" ..
  "attribution.{csv,png,svg} (error by joint, limb, side, second), kinematics.csv, anomaly.json, audit.txt, report.html;\n" ..
  "with --overlay overlay.mp4. Over all inputs: summary.csv and, of several, index.html. One input writes into the output folder itself, several into folders below it.\n" ..
  "An input that cannot be scored gets its reason in summary.csv; the others go on. Research use, not a diagnosis."

local rows = require("libration.data.rows").of {
  {"video", {}, "videos, folders of frames, or folders that hold them", of = "string", many = true, metavar = "F"},
  {"landmarks", {}, "landmark files (npy, csv, OpenPose json), or folders that hold them", of = "string", many = true, metavar = "F"},
  {"detector", "", "detector.safetensors of a training run", required = true, metavar = "D"},
  {"output", "detections", "folder for the results, made when missing", metavar = "DIR"},
  "two-sided", "unit", "block",
  {"overlay", false, "write overlay.mp4: the frames with skeleton, error and flag"},
  {"frames", true, "show key frames in the report; --no-frames: skeletons alone, nothing of the picture leaves the recording"},
  {"mask-faces", false, "cover heads in overlay and key frames: the followed person's, and whatever the anonymiser finds in a pass of its own, which takes time"},
  "model", "precision", "smooth", "person", "weights", "fps",
  {"skeleton", "", "skeleton of the landmark files; empty: the detector's"},
  "size",
  {"coordinates", "", "of landmark files: pixels, unit (x / width) or centred (x / width - 0.5); empty: as the detector was trained",
    choices = {"", "pixels", "unit", "centred"}},
  "device", "threads", "cache",
  {"check", "strict", "recording check before any verdict; strict: what does not pass is not scored; warn: it is scored with a warning; off: not looked at",
    choices = {"strict", "warn", "off"}},
  {"age-weeks", "", "age of the recorded infant in weeks; empty: as a labels.csv beside the recording tells", metavar = "N", check = function(v)
    if v ~= "" and not (tonumber(v) and tonumber(v) >= 0) then return nil, "want a number of weeks, 0 or more" end
    return true
  end},
  {"scale", "", "known torso length (middle of the shoulders to middle of the hips), as 12.5cm: kinematics.csv is in cm instead of torso lengths", metavar = "CM",
    check = function(v) return require("libration.motion.kinematics").scale_of(v) end},
  {"stability", 0, "frames from one to the next at which each joint's uncertainty is measured on shifted crops, for the recording check: joints beyond 0.1 torso\n" ..
    "lengths count as unseen; 0: never; 50 costs about a tenth more time", min = 0},
  {"weigh-uncertainty", false, "with --stability: weigh each joint's errors by 1 / (1 + (u / 0.05)^2), u its uncertainty in torso lengths; the calibration was not weighed"},
  {"check-points", 70, "least % of joint positions above likelihood 0.2", type = "number", min = 0, max = 100},
  {"check-outside", 20, "largest % of joint positions outside the frame", type = "number", min = 0, max = 100},
  {"check-seconds", 3, "least usable seconds", type = "number", min = 0},
  {"check-torso", 20, "least torso length in pixels", type = "number", min = 0},
  {"check-camera", .15, "torso lengths a second that the background may move in the fastest quarter of the time", type = "number", min = 0},
  {"resume", true, "leave what is done: results in the output folder that are whole and of the same recording, detector and options; --no-resume does all again"},
  "log-level",
}

-- The inputs as {path, id, kind}; a folder that holds recordings is taken apart.
local function inputs_of(o)
  local files, Dataset = require "libration.files", require "libration.data.dataset"
  local list, seen = {}, {}
  local function add(path, id, kind, label)
    local name, n = id, 1
    while seen[name] do
      n = n + 1
      name = id .. "-" .. n
    end
    seen[name] = true
    label = label or Dataset.label_beside(path, id) or {}
    list[#list + 1] = {path = path, id = name, kind = kind, subject = label.subject, age_weeks = tonumber(o.age_weeks) or label.age_weeks}
  end
  local function id_of(path) return (files.name((path:gsub("/+$", ""))):gsub("%.%w+$", "")) end
  for _, kind in ipairs {"video", "landmarks"} do
    for _, path in ipairs(o[kind]) do
      local rgb = files.join(path, "rgb")
      local pictures = files.is_folder(path) and (#(files.list(path, "%.png$") or {}) > 0 or #(files.list(path, "%.jpe?g$") or {}) > 0)
      local inside = files.is_folder(path) and not files.is_folder(rgb) and not pictures
        and Dataset.open(path, {kind = kind == "landmarks" and "landmarks" or "auto"})
      if inside then
        for _, e in ipairs(inside.entries) do add(e.path, e.id, e.kind == "landmarks" and "landmarks" or "video", e) end
      elseif files.is_folder(rgb) then
        add(rgb, id_of(path), "video")
      else
        local name = id_of(path)
        add(path, name == "rgb" and id_of(files.folder((path:gsub("/+$", "")))) or name, kind)
      end
    end
  end
  return list
end

-- Decodes once more and draws what was found and judged.
local function write_overlay(input, recording, scored, verdict, o, path, hide)
  local media, draw, cairo = require "libration.media", require "libration.pose.draw", require "libration.report.cairo"
  local extract, progress, lr = require "libration.pose.extract", require "libration.progress", require "libration"
  local paint = require "libration.anomaly.overlay"
  local source = assert(media.open(input.path, extract.source_options(setmetatable({fps = o.fps}, {__index = extract.defaults}))))
  local writer, reason = media.writer(path, {
    width = source.width, height = source.height, fps = recording.fps, audio_from = source.has_audio and input.path or nil,
  })
  if not writer then error(reason, 0) end
  local overlay = draw.overlay(source.width, source.height, cairo.over)
  local covers = hide and paint.covers(recording.landmarks) or {}
  local bar = progress.new {label = input.id .. " overlay", total = recording.frames, unit = "frames"}
  local ok, err = pcall(function()
    for t = 1, recording.frames do
      lr.scope(function()
        local frame, time = source:next()
        if not frame then error(time or input.path .. ": fewer frames than before", 0) end
        -- scores may stand at another rate than the video
        local k = math.min(scored.frames, math.max(1, math.floor((time - scored.begin) * scored.fps + .5) + 1))
        if hide then hide(frame, t) end
        overlay:paint(frame, function(canvas)
          paint.paint(canvas, {
            points = recording.landmarks:select(1, t), width = source.width, height = source.height, cover = covers[t],
            flagged = verdict.frame_flag[k], error = scored.frame_error[k], threshold = verdict.threshold, time = time,
          })
        end)
        writer:write(frame, time)
      end)
      bar:update(t)
    end
    writer:close()
  end)
  bar.quiet = not ok
  bar:finish()
  source:close()
  if not ok then
    writer:abort()
    error(err, 0)
  end
end

-- What covers every head in the recording's frames.
local function hider_of(input, o)
  local progress, extract = require "libration.progress", require "libration.pose.extract"
  local bar
  local hide = require("libration.pose.anonymiser").hider(input.path, extract.source_options(setmetatable({fps = o.fps}, {__index = extract.defaults})), {
    threads = o.threads > 0 and o.threads or nil,
    on_open = function(count) bar = progress.new {label = input.id .. " faces", total = count > 0 and count or nil, unit = "frames"} end,
    on_frame = function(n) bar:update(n) end,
  })
  bar:finish()
  return hide
end

-- Scores one input and writes its files; gives a row for the summary.
local function detect(input, detector, o, folder, facts)
  local files, progress, lr = require "libration.files", require "libration.progress", require "libration"
  local Dataset, outputs, report = require "libration.data.dataset", require "libration.anomaly.outputs", require "libration.report"
  local log, landmarks = require "libration.log", require "libration.data.landmarks"
  local begin = progress.clock()
  local sequence, recording, notes, reason
  if input.kind == "video" then
    if detector.skeleton ~= "blazepose33" then
      error(("%s: the detector was trained on %s key points; give it such files with --landmarks"):format(input.path, detector.skeleton), 0)
    end
    sequence, recording, notes = landmarks.sequence(input.path, input.id, landmarks.settings(o, facts.device))
  else
    sequence, reason = Dataset.read_landmarks(input.path, {
      id = input.id, skeleton = o.skeleton ~= "" and o.skeleton or detector.skeleton, fps = o.fps > 0 and o.fps or nil, width = facts.width, height = facts.height,
    })
    if not sequence then error(reason, 0) end
    notes = {}
  end
  local audit = require "libration.data.audit"
  local audited, known = audit.input(facts.audit, detector, {
    id = input.id, sha256 = Dataset.hash {path = input.path}, subject = input.subject, age_weeks = input.age_weeks,
  })
  for _, text in ipairs(known) do notes[#notes + 1] = text end
  local recording_check = require "libration.data.recording_check"
  local check = o.check ~= "off" and recording_check.of_sequence(sequence, recording, {
    mode = o.check, coordinates = not recording and detector.motion.coordinates or nil, limits = {
      points = o.check_points / 100, outside = o.check_outside / 100, seconds = o.check_seconds, torso = o.check_torso, camera = o.check_camera,
    },
  }) or nil
  local stops = check and check.stops
  -- a recording that does not pass has no windows, so that nobody judges it
  local scored, seen = {id = input.id, windows = 0, start = {}, error = {}, frames = sequence.points.shape[1], fps = sequence.fps, window = 0}, nil
  if check and check.mode == "strict" then sequence = recording_check.usable(sequence, check) end
  local weights
  if o.weigh_uncertainty then
    if not (recording and recording.stability) then error(input.path .. ": --weigh-uncertainty needs a video and --stability N", 0) end
    weights = require("libration.pose.stability").weights(recording.stability)
  end
  if not stops then scored, seen = detector:score(sequence, weights) end
  local verdict = detector:judge(scored, o)
  if stops then verdict.reason = check.reason end
  local profile, second = require "libration.anomaly.profile", nil
  local normals = profile.unpack(detector.about.movement)
  if normals and not stops then second = profile.judge(normals, profile.of_sequence(sequence, detector.motion) or {}) end
  local seconds = progress.clock() - begin
  local fps = sequence.points.shape[1] / seconds
  if seen and seen.seen < .7 then notes[#notes + 1] = ("%s: only %.0f %% of the joint positions are seen"):format(input.id, 100 * seen.seen) end
  for _, note in ipairs(notes) do log.warn("%s", note) end
  for _, finding in ipairs(check and check.findings or {}) do
    if finding.level ~= "note" then log.warn("%s: recording check: %s", input.id, finding.text) end
  end

  audit.write(files.join(folder, "audit.txt"), audited)
  local more = {
    video = (input.path:gsub("/rgb/*$", "")), fps = fps, memory = outputs.memory(facts.device), device = facts.device,
    config = {detector = o.detector, window = detector.motion.window, features = detector.motion.features, skeleton = detector.skeleton,
      model = input.kind == "video" and o.model or nil, smooth = input.kind == "video" and o.smooth or nil},
    versions = {libration = lr.version}, timings = {["decode, landmarks and score"] = seconds},
  }
  local result = outputs.result(detector, scored, verdict, more)
  for i, note in ipairs(notes) do table.insert(result.warnings, i, note) end
  if seen then result.stats[#result.stats + 1] = {"joint positions seen", ("%.1f %%"):format(100 * seen.seen)} end
  result.stats[#result.stats + 1] = second and {"movement profile", profile.line(second)} or nil
  if recording and recording.cached then result.stats[#result.stats + 1] = {"landmarks", "remembered from an earlier run, so the rate above leaves them out"} end
  for _, row in ipairs(check and recording_check.rows(check) or {}) do result.stats[#result.stats + 1] = row end
  result.check = check
  if recording and recording.stability then require("libration.pose.stability").write(files.join(folder, "stability.csv"), recording.stability) end
  local kinematics = require "libration.motion.kinematics"
  local rows_of_motion = not stops and kinematics.of_sequence(sequence, {motion = detector.motion, scale = kinematics.scale_of(o.scale)}) or nil
  result.kinematics = rows_of_motion
  if rows_of_motion then
    kinematics.write(files.join(folder, "kinematics.csv"), rows_of_motion)
    result.stats[#result.stats + 1] = {"kinematics", ("in %s, smoothed by %s"):format(rows_of_motion.unit, rows_of_motion.smoothing)}
  end
  local hide = o.mask_faces and recording and verdict.abnormal ~= nil and (o.overlay or o.frames) and hider_of(input, o) or nil
  if verdict.abnormal ~= nil then
    outputs.frames(files.join(folder, "anomaly.csv"), scored, verdict)
    require("libration.anomaly.attribution").write(files.join(folder, "attribution.csv"), result.attribution)
    if o.overlay and recording then
      write_overlay(input, recording, scored, verdict, o, files.join(folder, "overlay.mp4"), hide)
    end
  end
  outputs.json(files.join(folder, "anomaly.json"), detector, scored, verdict, {
    input = input.path, frames_per_second = fps, peak_memory_cpu = more.memory.cpu, peak_memory_gpu = more.memory.gpu, device = facts.device, version = lr.version,
    warnings = notes[1] and notes or nil,
    recording_check = check,
    movement_profile = second and {
      verdict = second.word, distance = second.distance, p = second.p, smallest_p = second.smallest_p, student = second.student,
      words = require("libration.formats.json").list(second.words), statistics = second.statistics,
    },
  })
  result.profile, result.audit = second, audit.page(audited)
  if verdict.abnormal ~= nil then
    local keyframes, extract = require "libration.report.keyframes", require "libration.pose.extract"
    if o.frames and recording then
      local how = extract.source_options(setmetatable({fps = o.fps}, {__index = extract.defaults}))
      result.pictures = keyframes.pictures(input.path, how, recording, scored, verdict, hide)
    else
      result.poses = keyframes.poses(sequence, scored, verdict, not recording and detector.motion.coordinates or nil)
    end
  end
  report.detection(folder, result)
  if o.overlay and not recording then log.warn("%s: --overlay needs a video, this is a landmark file", input.id) end
  return {input = input.path, scored = scored, verdict = verdict, profile = second, second = second and profile.line(second), fps = fps, output = folder}
end

-- The page over all inputs so far.
local function index(folder, summary, total, detector, facts)
  local list, depth = {}, #folder + 2
  for i, row in ipairs(summary) do
    local v = row.verdict
    list[i] = {
      input = row.input, flagged = v and v.abnormal, share = v and v.share, p = v and v.p, profile = row.profile, reason = row.reason or v and v.reason,
      link = row.output and row.output:sub(depth) .. "/report.html",
    }
  end
  require("libration.report.overview").write(folder, {
    population = detector.training.population, rows = list, total = total, audit = require("libration.data.audit").page(facts.audit),
  })
end

-- What an input's results depend on, as a key; nil where the recording cannot be read.
local function key_of(input, o, detector_hash)
  local Dataset, lr = require "libration.data.dataset", require "libration"
  local hash = Dataset.hash {path = input.path}
  local kept = {}
  for name, value in pairs(o) do kept[name] = value end
  for _, name in ipairs {"video", "landmarks", "detector", "output", "threads", "cache", "resume", "log_level"} do kept[name] = nil end
  return hash and require("libration.anomaly.done").key {
    recording = hash, id = input.id, kind = input.kind, subject = input.subject, age_weeks = input.age_weeks, detector = detector_hash, options = kept, version = lr.version,
  }
end

options.main(function()
  local o = options.parse("detect", about, rows, arg)
  local files, log, lr = require "libration.files", require "libration.log", require "libration"
  local Detector, outputs, honesty = require "libration.anomaly.detector", require "libration.anomaly.outputs", require "libration.anomaly.honesty"
  log.setup {level = o.log_level}
  if #o.video == 0 and #o.landmarks == 0 then error("nothing to score: give --video or --landmarks", 0) end
  local device, which = lr.device.take(o.device)
  local facts = {device = device}
  if o.threads > 0 then lr.threads(o.threads) end
  if o.size ~= "" then
    facts.width, facts.height = o.size:match("^(%d+)[xX](%d+)$")
    facts.width, facts.height = tonumber(facts.width), tonumber(facts.height)
    if not facts.width then error(("--size is %q, want WIDTHxHEIGHT such as 640x480"):format(o.size), 0) end
  end
  local detector, reason = Detector.load(o.detector)
  if not detector then error(reason, 0) end
  detector:to(facts.device)
  local audit = require "libration.data.audit"
  facts.audit = audit.of_detector(detector)
  for _, text in ipairs(audit.texts(facts.audit, "warning")) do log.warn("%s", text) end
  if facts.audit.leak then log.warn("%s", audit.stamp(facts.audit)) end
  if o.coordinates ~= "" then detector.motion.coordinates = o.coordinates end
  if detector.motion.coordinates ~= "pixels" and not facts.width and detector.about.size then
    facts.width, facts.height = detector.about.size[1], detector.about.size[2]
  end
  local inputs = inputs_of(o)
  local fresh = not files.exists(o.output)
  local folder
  folder, reason = files.writable(o.output)
  if not folder then error(reason, 0) end
  local lock
  lock, reason = files.lock(folder)
  if not lock then error(reason, 0) end
  if fresh and #inputs == 1 then -- an input that cannot be scored leaves nothing; of several, summary.csv says why
    options.undo(function()
      lock:release()
      files.remove(folder)
    end)
  end

  local summary, failed = {}, 0
  local done, detector_hash = require "libration.anomaly.done", files.sha256(o.detector)
  for i, input in ipairs(inputs) do
    local into = #inputs == 1 and folder or files.join(folder, input.id)
    local key = key_of(input, o, detector_hash)
    local before = o.resume and key and done.find(into, key)
    local ok, row = true, before
    if before then
      log.info("%s: done before, %s; --no-resume does it again", input.id, before.verdict.word or "not scored")
    else
      ok, row = pcall(function()
        return lr.scope(function()
          files.sweep(into)
          files.remove(files.join(into, "done.json"))
          local fresh_row = detect(input, detector, o, into, facts)
          if key then done.note(into, key, fresh_row) end
          return fresh_row
        end)
      end)
    end
    if ok and not before then
      local v = row.verdict
      if v.abnormal == nil then
        log.info("%s: not scored, %s", input.id, v.reason)
      else
        log.info("%s: %s, %.1f %% of the windows over the threshold (calibration: at most %.1f %%), p %.3g (smallest possible %.3g, %s), longest episode %.2f s, %.1f frames/s; %s",
          input.id, v.word, 100 * v.share, 100 * v.limit, v.p, v.smallest_p, require("libration.anomaly.thresholds").unit(v), v.longest, row.fps, honesty.of_verdict(v))
      end
      if row.second then log.info("%s: movement profile: %s", input.id, row.second) end
    elseif not ok then
      if tostring(row):find("interrupted", 1, true) then error(row, 0) end
      failed = failed + 1
      local text = tostring(row):match("^[^\n]*"):gsub("^[^%s:]+%.lua:%d+: ", "")
      row = {input = input.path, reason = text}
      if #inputs > 1 then log.error("%s", text) end
    end
    summary[i] = row
    if ok or #inputs > 1 then outputs.summary(files.join(folder, "summary.csv"), summary) end
    if #inputs > 1 then index(folder, summary, #inputs, detector, facts) end
  end
  log.info("device: %s", which)
  for _, text in ipairs(honesty.of_calibration(detector.calibration)) do log.warn("%s", text) end
  log.info("%s", honesty.explained(detector.calibration))
  if #inputs == 1 and failed == 1 then error(summary[1].reason, 0) end
  if failed == #inputs then error(("none of the %d inputs could be scored; %s says why"):format(#inputs, files.join(folder, "summary.csv")), 0) end
  lock:release()
  log.info("%s", files.join(folder, #inputs == 1 and "report.html" or "index.html"))
end)
