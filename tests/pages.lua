-- Forged reports of every kind for the specs of pages: plausible figures, awkward names. Not a spec; nothing here was measured.
local lr = require "libration"
local detection = require "libration.report.detection"
local evaluation = require "libration.report.evaluation"
local overview = require "libration.report.overview"
local training = require "libration.report.training"

local NAN = 0 / 0

local pages = {}

pages.HOSTILE = [[<script>alert("x")</script>'"&<img src=x onerror=y>]]
pages.LONG = ("Donaudampfschifffahrtsgesellschaftskapitaensmuetze_"):rep(3) .. "recording-0001"
-- Hebrew, an override of the writing direction, control characters, broken UTF-8
pages.STRANGE = "\215\169\215\156\215\149\215\157 \226\128\174gpj.exe \1\27[31m\127 \255\254 " .. ("\230\188\162"):rep(40)

local LIMBS = { "left arm", "right arm", "left leg", "right leg", "head", "trunk" }
local JOINTS = {
  "nose", "left shoulder", "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee",
  "left ankle", "right ankle", "left heel", "right heel",
}

local function attribution(seconds, joints)
  local a = { joints = {}, limbs = {}, time = {}, left = 1.34, right = 0.71 }
  for i = 1, joints do a.joints[i] = { name = JOINTS[i], error = 2.5 / i, share = 1 / joints, limb = LIMBS[(i - 1) % 6 + 1] } end
  for i = 1, math.min(6, joints) do a.limbs[i] = { name = LIMBS[i], error = 1.8 / i, share = 1 / 6 } end
  for s = 0, seconds - 1 do
    local row = { from = s, to = s + 1, error = 1 }
    for i, limb in ipairs(a.limbs) do row[limb.name] = (1 + math.sin(s / 7 + i)) / 6 end
    a.time[s + 1] = row
  end
  return a
end

local function profile(abnormal)
  local v = { abnormal = abnormal, word = abnormal and "abnormal" or "normal", distance = 2.71, p = 1 / 11, smallest_p = 1 / 11, statistics = {}, words = {} }
  for i, name in ipairs { "mean speed", "jerk / speed", "left against right", "synchrony of the limbs", "mean frequency", "burstiness", "left arm" } do
    v.statistics[i] = {
      key = "k" .. i, name = name, unit = i == 5 and "Hz" or i == 4 and "correlation" or "log ratio", value = 0.2 * i - 0.5, usual = 0.1, z = i - 3.2, p = i / 11,
      unusual = abnormal and i == 6, words = "moves in bursts: speed varies 56 % more than the calibration videos",
    }
  end
  if abnormal then v.words = { v.statistics[6].words, "both legs move together" } end
  return v
end

local function check(passed)
  return {
    passed = passed, mode = "strict", stops = not passed, seconds = 12, usable_seconds = passed and 11.2 or 1.4,
    reason = not passed and "points seen 31 %, at least 70 wanted; the camera moves" or nil,
    measures = {
      { key = "points", name = "joint positions above likelihood .2", value = passed and 96.2 or 31.4, unit = "%", limit = "at least 70", passed = passed, stops = true },
      { key = "camera", name = "movement of the background in the fastest quarter", value = passed and 0.012 or 0.41, unit = "torso lengths/s", limit = "at most 0.15",
        passed = passed, stops = true },
      { key = "light", name = "light", value = 46, unit = "% grey", limit = "10 to 92", passed = true, stops = true },
      { key = "sharp", name = "sharpness", unit = "", limit = "at least 0.27", passed = true, stops = false, note = "no texture to measure it on" },
    },
    spans = { { from = 3.2, to = 4, reason = "body outside the picture" } },
    findings = { { level = "warning", code = "second", text = "A second person is seen in 4 % of the looks.", detail = { "at 3.2 s", "at 9.8 s" } } },
  }
end

local function kinematics()
  local list = { unit = "torso lengths" }
  for i, name in ipairs(JOINTS) do
    list[i] = { joint = name:gsub(" ", "_"), range = 1 / i, path = 12 / i, speed = 0.8 / i, acceleration = 4 / i, jerk = 40 / i, correlation = 0.31 }
  end
  return list
end

local function pose(lift)
  local p = {}
  local at = {
    { 0, -90 }, { -4, -94 }, { -6, -95 }, { -8, -94 }, { 4, -94 }, { 6, -95 }, { 8, -94 }, { -12, -90 }, { 12, -90 }, { -4, -84 }, { 4, -84 }, { -25, -60 }, { 25, -60 },
    { -45, -40 }, { 45, -40 - lift }, { -55, -10 }, { 55, -20 - 2 * lift }, { -58, -4 }, { 58, -4 - lift }, { -58, -2 }, { 58, -2 - lift }, { -54, -4 }, { 54, -4 - lift },
    { -15, 0 }, { 15, 0 }, { -22, 40 }, { 24, 35 }, { -25, 80 }, { 30, 70 + lift }, { -27, 84 }, { 32, 76 + lift }, { -30, 92 }, { 36, 82 + lift },
  }
  for i, xy in ipairs(at) do p[i] = { xy[1], xy[2], 0, 0.95, 0.99 } end
  return lr.tensor(p)
end

---A recording of so many seconds.
---@param o table? {seconds, joints, flagged: boolean|nil, name}
---@return libration.report.Result
function pages.result(o)
  o = o or {}
  local seconds, joints = o.seconds or 12, o.joints or 15
  local t, e = {}, {}
  for i = 1, seconds * 25 do
    t[i] = i / 25
    e[i] = 0.5 + 0.25 * math.sin(i / 9) + (o.flagged and i > 120 and i < 190 and 1.1 or 0)
    if i < 8 or i > seconds * 25 - 8 then e[i] = NAN end
  end
  local limbs = attribution(seconds, joints)
  local r = {
    video = "/data/" .. (o.name or "clip 7.mp4"), population = "8 normal sequences, 1600 frames, rendered infants (not real children)", flagged = o.flagged,
    share = o.flagged and 0.38 or 0.02, largest_calibration_share = 0.062, p = 1 / 3, smallest_p = 1 / 3,
    calibration = { { id = "09", score = 0.55, share = 0.062 }, { id = "10", score = 0.49, share = 0.038 } },
    longest_episode = o.flagged and 2.8 or 0, threshold = 0.87, score = 0.93, times = t, errors = e, spans = o.flagged and { { 4.8, 7.6 } } or {},
    profile = profile(o.flagged or false), attribution = limbs, check = check(true), kinematics = kinematics(),
    measures = {
      { key = "mean", name = "mean window error", value = 0.93, p = 1 / 3, p_two_sided = 2 / 3, low = 0.49, high = 0.55, note = "the headline score" },
      { key = "p95", name = "95th percentile of the window errors", value = 1.62, p = 2 / 3, p_two_sided = 1, low = 0.8, high = 1.9 },
      { key = "left arm", name = "error of the left arm", value = 0.93, p = 1, p_two_sided = 1, low = 1.2, high = 1.4 },
    },
    baselines = {
      { name = "mean joint speed, torso lengths/s", score = 0.61, low = 0.55, high = 0.66 }, { name = "PCA-32, mean window error", score = 0.81, low = 0.2, high = 0.3 },
      { name = "zero output, mean window error", score = 0.1, low = 0.2, high = 0.3 },
    },
    explained = { network = 0.14, pca = 0.6, zero = 0 }, fps = 41.26, frames = #t, memory = { cpu = 700 * 1024 ^ 2 },
    warnings = { "30 frames per second", "2 calibration videos: too few (20 wanted) to claim a rate of false alarms; the smallest p they allow is 0.333" },
    poses = { { points = pose(0), skeleton = "blazepose33", caption = "4.80 s, error 1.62, over the threshold of 0.87" },
      { points = pose(20), skeleton = "blazepose33", caption = "7.10 s, error 1.41, over the threshold of 0.87" } },
    audit = {
      findings = { { level = "note", code = "content", text = "content: 12 checksums, none in two parts" },
        { level = "warning", code = "few", text = "2 labelled test sequences are too few for a rate: read the counts", detail = { "11", "12" } } },
      leak = false, counts = {},
    },
    config = { window = 30, detector = "runs/default/detector.safetensors", skeleton = "blazepose33" }, versions = { libration = "0.1.0" }, device = "cpu",
    timings = { ["decode, landmarks and score"] = 7.2 },
  }
  if o.flagged == nil then
    r.reason, r.check, r.times, r.errors, r.spans = "points seen 31 %, at least 70 wanted", check(false), {}, {}, nil
    r.attribution, r.measures, r.baselines, r.poses, r.profile, r.kinematics, r.share = nil, nil, nil, nil, nil, nil, nil
  end
  return r
end

---A training run.
---@param o table? {calibration: integer, test: integer, name}
---@return libration.report.Run
function pages.run(o)
  o = o or {}
  local train, validation, calibration, test, scores = {}, {}, {}, {}, {}
  for i = 1, 40 do train[i], validation[i] = 1 / i, 0.2 + 1 / i end
  for i = 1, o.calibration or 2 do calibration[i] = { id = o.name or ("%02d"):format(8 + i), score = 0.5 + 0.04 * i, share = 0.06 / i } end
  for i = 1, o.test or 2 do
    local id, abnormal = (o.name or "") .. ("%02d"):format(10 + i), i % 2 == 0
    test[i] = { id = id, label = abnormal and "abnormal" or "normal", score = 0.5 + 0.2 * i, share = 0.1 * i, p = 1 / (i + 1), flagged = i % 3 == 0, profile = profile(abnormal) }
    scores[id] = 0.4 + 0.1 * i
  end
  return {
    title = "Training run", subtitle = "default, seed 1", population = "8 normal sequences, 1600 frames, rendered infants (not real children)",
    epochs = { train = train, validation = validation, best = 31 }, threshold = 0.8731, percentile = 95, calibration = calibration, test = test,
    baselines = { { name = "autoencoder", scores = scores, separates = "AUC 0.98" }, { name = "mean joint speed", scores = scores, note = "matched" } },
    explained = { network = 0.14, pca = 0.6, zero = 0 }, warnings = { "only 2 calibration sequences" }, audit = { "no id is shared", "test labels: 1 normal, 1 abnormal" },
    config = { window = 30, train = { 1, 2, 3 } }, versions = { libration = "0.1.0" }, device = "cpu", timings = { training = 42.9 },
  }
end

---An evaluation of seven methods.
---@return libration.report.Evaluation
function pages.evaluation()
  local methods, judged = {}, { { id = "04", words = { "moves in bursts" } }, { id = "09", words = {} }, { id = "10" }, { id = "12" } }
  for i, name in ipairs { "autoencoder", "mean speed", "random projection", "PCA-32", "nearest training window", "window variance", "movement profile" } do
    local p = {}
    for k, j in ipairs(judged) do p[j.id] = math.min(1, i * k / 9) end
    methods[i] = {
      name = name, auc = 1 - i / 16, low = 0.9 - i / 10, high = 1, aucs = i % 2 == 1 and { 1 - i / 16, 0.97 - i / 16, 1 - i / 16 } or nil, sd = i % 2 == 1 and 0.02 or nil,
      alarms = i < 7 and 4.4 or nil, p = p,
    }
  end
  return {
    population = "12 labelled recordings, 4 of them abnormal.", protocol = "Each normal recording left out once, eight folds.", seeds = 3, smallest_p = 1 / 9, minutes = 4.6,
    methods = methods, judged = judged, warnings = { "8 normal and 4 abnormal recordings are judged: the intervals are wide" }, config = { protocol = "L1" },
  }
end

---Every kind of page that a browser shall show well.
---@return { name: string, page: table }[]
function pages.all()
  local hostile = pages.result { flagged = true, name = pages.HOSTILE:gsub("/", "") .. ".mp4" }
  hostile.warnings, hostile.config, hostile.attribution.joints[1].name = { pages.HOSTILE, pages.STRANGE }, { [pages.HOSTILE] = pages.STRANGE }, pages.STRANGE
  local long = pages.result { flagged = true, name = pages.LONG .. ".mp4" }
  long.measures[1].name, long.attribution.joints[1].name, long.config.detector, long.profile.words = pages.LONG, pages.LONG, pages.LONG:rep(2), { pages.LONG }
  local leak = pages.run { calibration = 0, test = 0 }
  leak.audit = { leak = true, findings = { { level = "error", code = "overlap", text = "sequences 01 (train) and 11 (test) have the same content", detail = { "01", "11" } } } }
  local rows = {}
  for i = 1, 9 do
    local v = i ~= 4 and profile(i % 3 == 0) or nil
    local flagged
    if v then flagged = i % 2 == 0 end
    rows[i] = {
      input = i == 5 and pages.LONG or i == 6 and pages.STRANGE or ("new/infant %d.mp4"):format(i), flagged = flagged, share = v and i / 20, p = v and 1 / i, profile = v,
      reason = i == 4 and "points seen 31 %, at least 70 wanted" or nil, link = v and i .. "/report.html",
    }
  end
  return {
    { name = "normal", page = detection.page(pages.result { flagged = false }) },
    { name = "flagged", page = detection.page(pages.result { flagged = true }) },
    { name = "not-scored", page = detection.page(pages.result()) },
    { name = "long-names", page = detection.page(long) },
    { name = "hostile-names", page = detection.page(hostile) },
    { name = "one-joint", page = detection.page(pages.result { flagged = true, joints = 1, seconds = 3 }) },
    { name = "an-hour", page = detection.page(pages.result { flagged = true, seconds = 3600 }) },
    { name = "training", page = training.page(pages.run()) },
    { name = "training-long-names", page = training.page(pages.run { calibration = 12, test = 9, name = pages.LONG }) },
    { name = "no-calibration", page = training.page(leak) },
    { name = "evaluation", page = evaluation.page(pages.evaluation()) },
    { name = "overview", page = overview.page { population = "8 normal sequences", rows = rows, total = 12 } },
  }
end

return pages
