-- What detection and training write besides pictures and pages: tables, JSON and the figures that a report takes. Judges nothing.

local csv = require "libration.formats.csv"
local files = require "libration.files"
local json = require "libration.formats.json"
local skeletons = require "libration.pose.skeletons"
local honesty = require "libration.anomaly.honesty"
local scores = require "libration.anomaly.scores"
local thresholds = require "libration.anomaly.thresholds"

local outputs = {}

--- Unit of errors: the network works on features divided by their training standard deviation.
outputs.UNIT = "SD²"

--- A row a frame: time, error (mean error of the windows that cover the frame), p, flag, and the error of each joint in this
--- frame; empty where no window covers the frame.
---@param path string
---@param s Scored
---@param v Verdict
---@return string path
function outputs.frames(path, s, v)
  local names = { "frame", "time", "error", "p", "flag" }
  for _, joint in ipairs(s.joints) do names[#names + 1] = "error_" .. joint end
  local writer = csv.writer(path, names)
  local J = #s.joints
  local ok, err = pcall(function()
    for t = 0, s.frames - 1 do
      local p = v.frame_p[t + 1]
      local row = { t, ("%.6f"):format(s.begin + t / s.fps), s.frame_error[t + 1], p or 0 / 0, v.frame_flag[t + 1] and 1 or 0 }
      for j = 0, J - 1 do row[5 + j + 1] = s.joint_error[t * J + j] end
      writer:row(row)
    end
  end)
  if not ok then
    writer:abort()
    error(err, 0)
  end
  return writer:close()
end

-- Mean error by limb, from the joints that count.
local function by_limb(s, joint_errors, skeleton)
  local of, sum, n = {}, {}, {}
  local sk = skeletons.get(skeleton)
  for limb, members in pairs(sk.limbs) do
    for _, j in ipairs(members) do of[sk.joints[j]] = limb end
  end
  for j, name in ipairs(s.joints) do
    local limb, e = of[name], joint_errors[j]
    if limb and e == e then sum[limb], n[limb] = (sum[limb] or 0) + e, (n[limb] or 0) + 1 end
  end
  local list = {}
  for _, limb in ipairs { "left_arm", "right_arm", "left_leg", "right_leg", "head", "trunk" } do
    if n[limb] then list[#list + 1] = { name = (limb:gsub("_", " ")), error = sum[limb] / n[limb] } end
  end
  return list
end

--- Errors by joint and by limb.
---@param s Scored
---@param skeleton string
---@return table joints {name, error}[]
---@return table limbs {name, error}[]
function outputs.attribution(s, skeleton)
  local errors, joints = scores.by_joint(s), {}
  for j, name in ipairs(s.joints) do
    if errors[j] == errors[j] then joints[#joints + 1] = { name = (name:gsub("_", " ")), error = errors[j] } end
  end
  return joints, by_limb(s, errors, skeleton)
end

-- A field's range over the calibration sequences.
local function range(c, field)
  local low, high = math.huge, -math.huge
  for _, row in ipairs(c.sequences) do low, high = math.min(low, row[field]), math.max(high, row[field]) end
  return low, high
end

--- The autoencoder and its baselines, with their range over the calibration sequences.
---@param c Calibration
---@param s Scored
---@return table[] {name, score, low, high, note}
function outputs.beside(c, s)
  local low, high = range(c, "mean")
  local list = { { name = "autoencoder, mean window error", score = s.mean, low = low, high = high } }
  for _, b in ipairs(thresholds.BASELINES) do
    low, high = range(c, b.field)
    list[#list + 1] = { name = b.name .. (b.key == "speed" and ", torso lengths/s" or ", mean window error"), score = s[b.field], low = low, high = high }
  end
  low, high = range(c, "mean_variance")
  list[#list + 1] = { name = "window variance, no model", score = s.mean_variance, low = low, high = high }
  return list
end

--- The table that report.detection takes, without what only the recipe knows (video, device, timings, memory).
---@param detector Detector
---@param s Scored
---@param v Verdict
---@param more table? fields added or replaced
---@return table result
function outputs.result(detector, s, v, more)
  local c = detector.calibration
  local r = {
    population = detector.training.population, flagged = v.abnormal, reason = v.reason,
    verdict = v.abnormal == nil and "not scored" or v.abnormal and "unusual movement (abnormal)" or "not unusual (normal)",
    share = v.share, largest_calibration_share = c.limit, calibration = {}, p = v.p, smallest_p = v.smallest_p,
    longest_episode = v.longest, threshold = c.threshold, score = s.mean, score_unit = outputs.UNIT, times = {}, errors = s.frame_error or {},
    spans = {}, explained = c.explained, warnings = {}, frames = s.frames, stats = {},
  }
  for i, row in ipairs(c.sequences) do r.calibration[i] = { id = row.id, score = row.mean, share = row.share } end
  if v.abnormal ~= nil then
    for t = 0, s.frames - 1 do r.times[t + 1] = s.begin + t / s.fps end
    for i, e in ipairs(v.episodes) do r.spans[i] = { e.from, e.to } end
    r.joints, r.limbs = outputs.attribution(s, detector.skeleton)
    r.baselines = outputs.beside(c, s)
    r.stats = {
      { "windows", ("%d, over the threshold %d"):format(s.windows, v.flagged) },
      { "95th percentile of the window errors", ("%.4g"):format(s.p95) },
      { "error / variance of the movement", ("%.4g"):format(s.ratio) },
      { "SD of the log error", ("%.4g"):format(s.log_sd) },
      { "mean joint speed, torso lengths/s", ("%.4g (p %.3g)"):format(s.mean_speed, v.baselines.speed.p) },
      { "PCA-32 error", ("%.4g (p %.3g)"):format(s.mean_pca, v.baselines.pca.p) },
      { "zero output error", ("%.4g (p %.3g)"):format(s.mean_zero, v.baselines.zero.p) },
      { "beside simpler methods", honesty.of_verdict(v) },
    }
    for _, text in ipairs(honesty.of_calibration(c)) do
      -- the page itself says what follows from the explained shares
      if not text:find("^the network explains") then r.warnings[#r.warnings + 1] = text end
    end
  end
  for k, value in pairs(more or {}) do r[k] = value end
  return r
end

--- anomaly.json: verdict, figures, episodes, attribution and baselines of one input.
---@param path string
---@param detector Detector
---@param s Scored
---@param v Verdict
---@param more table? further fields
---@return string path
function outputs.json(path, detector, s, v, more)
  local c = detector.calibration
  local t = {
    note = "research use, not a diagnosis", verdict = v.word, reason = v.reason, share = v.share, limit = c.limit, threshold = c.threshold,
    windows = s.windows, flagged = v.flagged, p = v.p, smallest_p = v.smallest_p, longest_episode = v.longest, mean_error = s.mean,
    p95_error = s.p95, error_over_variance = s.ratio, log_error_sd = s.log_sd, frames = s.frames, rate = s.fps,
    episodes = json.list(), baselines = {}, explained = c.explained, trained_on = detector.training.population,
  }
  for i, e in ipairs(v.episodes) do t.episodes[i] = { first_frame = e.first, last_frame = e.last, from = e.from, to = e.to } end
  for key, b in pairs(v.baselines) do t.baselines[key] = { value = b.value, p = b.p, abnormal = b.abnormal } end
  if v.abnormal ~= nil then
    local joints, limbs = outputs.attribution(s, detector.skeleton)
    t.joints, t.limbs = {}, {}
    for _, row in ipairs(joints) do t.joints[row.name] = row.error end
    for _, row in ipairs(limbs) do t.limbs[row.name] = row.error end
  end
  for k, value in pairs(more or {}) do t[k] = value end
  return files.write(path, json.encode(t, true) .. "\n")
end

local SUMMARY = {
  "input", "verdict", "reason", "share", "limit", "p", "smallest_p", "longest_episode_s", "mean_error", "p95_error", "error_over_variance",
  "mean_speed", "pca32_error", "zero_error", "windows", "frames", "frames_per_second", "output",
}

--- summary.csv: a row for each input, also for those that failed.
---@param path string
---@param rows table[] {input, scored?, verdict?, reason?, fps?, output?}
---@return string path
function outputs.summary(path, rows)
  local out = {}
  for i, r in ipairs(rows) do
    local s, v = r.scored or {}, r.verdict or {}
    local cells = {
      r.input, v.word or "error", r.reason or v.reason or "", v.abnormal ~= nil and v.share or "", v.limit or "", v.p or "", v.smallest_p or "",
      v.abnormal ~= nil and v.longest or "", s.mean or "", s.p95 or "", s.ratio or "", s.mean_speed or "", s.mean_pca or "", s.mean_zero or "",
      s.windows or "", s.frames or "", r.fps and ("%.1f"):format(r.fps) or "", r.output or "",
    }
    out[i] = cells
  end
  return csv.save(path, SUMMARY, out)
end

local TEST = {
  "sequence", "label", "verdict", "detected", "false_alarm", "windows", "flagged", "share", "limit", "p", "smallest_p", "longest_episode_s",
  "mean_error", "p95_error", "error_over_variance", "mean_speed", "pca32_error", "zero_error", "speed_abnormal", "pca32_abnormal", "zero_abnormal", "reason",
}

--- Detection rate and false alarms as counts.
---@param rows table[] {id, label?, scored?, verdict?}
---@return table {detected, abnormal, false_alarms, normal, unscored}
function outputs.counts(rows)
  local n = { detected = 0, abnormal = 0, false_alarms = 0, normal = 0, unscored = 0 }
  for _, r in ipairs(rows) do
    local flagged = r.verdict and r.verdict.abnormal
    if flagged == nil then
      n.unscored = n.unscored + 1
    elseif r.label == 1 then
      n.abnormal, n.detected = n.abnormal + 1, n.detected + (flagged and 1 or 0)
    elseif r.label == 0 then
      n.normal, n.false_alarms = n.normal + 1, n.false_alarms + (flagged and 1 or 0)
    end
  end
  return n
end

--- test.csv: a row for each test sequence and a last row with the counts, "1 of 1".
---@param path string
---@param rows table[] {id, label?, scored?, verdict?, reason?}
---@return string path
function outputs.test(path, rows)
  local out = {}
  local function yes(v) return v == nil and "" or v and 1 or 0 end
  for i, r in ipairs(rows) do
    local s, v = r.scored or {}, r.verdict or { baselines = {} }
    local b = v.baselines
    out[i] = {
      r.id, r.label == 1 and "abnormal" or r.label == 0 and "normal" or "", v.word or "error",
      r.label == 1 and yes(v.abnormal) or "", r.label == 0 and yes(v.abnormal) or "", s.windows or "", v.flagged or "", v.share or "", v.limit or "",
      v.p or "", v.smallest_p or "", v.longest or "", s.mean or "", s.p95 or "", s.ratio or "", s.mean_speed or "", s.mean_pca or "", s.mean_zero or "",
      b.speed and yes(b.speed.abnormal) or "", b.pca and yes(b.pca.abnormal) or "", b.zero and yes(b.zero.abnormal) or "", r.reason or v.reason or "",
    }
  end
  local n = outputs.counts(rows)
  local total = {}
  for i = 1, #TEST do total[i] = "" end
  total[1] = "all"
  total[4] = ("%d of %d"):format(n.detected, n.abnormal)
  total[5] = ("%d of %d"):format(n.false_alarms, n.normal)
  out[#out + 1] = total
  return csv.save(path, TEST, out)
end

--- Peak memory of this process.
---@return number? bytes, where the system tells
function outputs.peak_memory()
  local status = io.open("/proc/self/status")
  if not status then return nil end
  local kib = status:read("*a"):match("VmHWM:%s*(%d+)")
  status:close()
  return kib and tonumber(kib) * 1024
end

return outputs
