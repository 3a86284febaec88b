-- What detection and training write besides pictures and pages: tables, JSON and the figures that a report takes. Judges nothing.

local lr = require "libration"
local csv = require "libration.formats.csv"
local audit = require "libration.data.audit"
local files = require "libration.files"
local json = require "libration.formats.json"
local stream = require "libration.formats.stream"
local attribution = require "libration.anomaly.attribution"
local honesty = require "libration.anomaly.honesty"
local measures = require "libration.anomaly.measures"
local thresholds = require "libration.anomaly.thresholds"

local outputs = {}

--- Unit of errors: the network works on features divided by their training standard deviation.
outputs.UNIT = "SD²"

local OF_AN_INPUT = {
  "anomaly.csv", "anomaly.json", "anomaly_stats.txt", "attribution.csv", "attribution.png", "attribution.svg", "audit.txt", "kinematics.csv", "overlay.mp4",
  "reconstruction_error.png", "reconstruction_error.svg", "report.html", "stability.csv",
}

--- Takes away what an earlier run wrote for an input, so that nothing of another verdict stays beside the new one's files.
---@param folder string of the input's results
function outputs.clear(folder)
  for _, name in ipairs(OF_AN_INPUT) do files.remove(files.join(folder, name)) end
end

--- A row a frame: time, error (mean error of the windows that cover the frame), p, flag, and the error of each joint in this
--- frame; empty where no window covers the frame.
---@param path string
---@param s Scored
---@param v Verdict
---@return string path
function outputs.frames(path, s, v)
  local names = { "frame", "time", "error", "p", "flag" }
  for _, joint in ipairs(s.joints) do names[#names + 1] = "error_" .. joint end
  local J = #s.joints
  return stream.filled(csv.writer(path, names), function(writer)
    for t = 0, s.frames - 1 do
      local p = v.frame_p[t + 1]
      local row = { t, ("%.6f"):format(s.begin + t / s.fps), s.frame_error[t + 1], p or 0 / 0, v.frame_flag[t + 1] and 1 or 0 }
      for j = 0, J - 1 do row[5 + j + 1] = s.joint_error[t * J + j] end
      writer:row(row)
    end
  end)
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
    verdict = v.abnormal == nil and "not scored" or v.side == "low" and "unusual movement (abnormal: the error is too low)" or v.abnormal and "unusual movement (abnormal)"
      or "not unusual (normal)",
    share = v.share, largest_calibration_share = c.limit, calibration = {}, p = v.p, smallest_p = v.smallest_p,
    longest_episode = v.longest, threshold = c.threshold, score = s.mean, score_unit = outputs.UNIT, times = {}, errors = s.frame_error or {},
    spans = {}, explained = c.explained, warnings = {}, frames = s.frames, stats = {}, low = v.low,
  }
  for i, row in ipairs(c.sequences) do r.calibration[i] = { id = row.id, score = row.mean, share = row.share } end
  if v.abnormal ~= nil then
    for t = 0, s.frames - 1 do r.times[t + 1] = s.begin + t / s.fps end
    for i, e in ipairs(v.episodes) do r.spans[i] = { e.from, e.to } end
    r.attribution = attribution.of(s)
    r.joints, r.limbs = r.attribution.joints, r.attribution.limbs
    r.measures = measures.of(c, s, r.attribution)
    r.baselines = outputs.beside(c, s)
    r.stats = {
      { "windows", ("%d, over the threshold %d"):format(s.windows, v.flagged) },
      { "p counted", thresholds.unit(v) },
      { "mean joint speed, torso lengths/s", ("%.4g (p %.3g)"):format(s.mean_speed, v.baselines.speed.p) },
      { "PCA-32 error", ("%.4g (p %.3g)"):format(s.mean_pca, v.baselines.pca.p) },
      { "zero output error", ("%.4g (p %.3g)"):format(s.mean_zero, v.baselines.zero.p) },
      { "beside simpler methods", honesty.of_verdict(v) },
      { "share of unseen normal movement explained", honesty.shares(c) },
    }
    for i = 2, #r.measures do
      local m = r.measures[i]
      r.stats[#r.stats + 1] = { m.name, m.p and ("%.4g (p %.3g; calibration %.4g to %.4g)"):format(m.value, m.p, m.low, m.high) or ("%.4g"):format(m.value) }
    end
    if v.low then
      r.stats[#r.stats + 1] = { "windows under the low threshold", ("%.1f %%, of any calibration sequence at most %.1f %%"):format(100 * v.low.share, 100 * v.low.limit) }
    end
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
    episodes = json.list(), baselines = {}, explained = c.explained, cautions = json.list(honesty.of_calibration(c)), trained_on = detector.training.population,
  }
  for i, e in ipairs(v.episodes) do t.episodes[i] = { first_frame = e.first, last_frame = e.last, from = e.from, to = e.to } end
  for key, b in pairs(v.baselines) do t.baselines[key] = { value = b.value, p = b.p, abnormal = b.abnormal } end
  if v.abnormal ~= nil then
    local a = attribution.of(s)
    t.joints, t.limbs, t.left, t.right = {}, {}, a.left, a.right
    for _, row in ipairs(a.joints) do t.joints[row.name] = row.error end
    for _, row in ipairs(a.limbs) do t.limbs[row.name] = row.error end
    t.measures, t.unit, t.blocks, t.low, t.side = measures.of(c, s, a), v.unit, v.blocks, v.low, v.side
  end
  for k, value in pairs(more or {}) do t[k] = value end
  return files.write(path, json.encode(t, true) .. "\n")
end

local SUMMARY = {
  "input", "verdict", "reason", "share", "limit", "p", "smallest_p", "longest_episode_s", "mean_error", "p95_error", "error_over_variance",
  "mean_speed", "pca32_error", "zero_error", "movement_profile", "movement_profile_p", "what_stands_out", "windows", "frames", "frames_per_second", "output",
}

--- summary.csv: a row for each input, also for those that failed.
---@param path string
---@param rows table[] {input, scored?, verdict?, profile?, reason?, fps?, output?}
---@return string path
function outputs.summary(path, rows)
  local out = {}
  for i, r in ipairs(rows) do
    local s, v, second = r.scored or {}, r.verdict or {}, r.profile or {}
    out[i] = {
      r.input, v.word or "error", r.reason or v.reason or "", v.abnormal ~= nil and v.share or "", v.limit or "", v.p or "", v.smallest_p or "",
      v.abnormal ~= nil and v.longest or "", s.mean or "", s.p95 or "", s.ratio or "", s.mean_speed or "", s.mean_pca or "", s.mean_zero or "",
      second.word or "", second.student or second.p or "", table.concat(second.words or {}, "; "),
      s.windows or "", s.frames or "", r.fps and ("%.1f"):format(r.fps) or "", r.output or "",
    }
  end
  return csv.save(path, SUMMARY, out)
end

local TEST = {
  "sequence", "label", "verdict", "detected", "false_alarm", "windows", "flagged", "share", "limit", "p", "smallest_p", "longest_episode_s",
  "mean_error", "p95_error", "p95_p", "error_over_variance", "error_over_variance_p", "log_error_sd", "log_error_sd_p", "mean_speed",
  "pca32_error", "zero_error", "speed_abnormal", "pca32_abnormal", "zero_abnormal", "movement_profile", "movement_profile_p", "what_stands_out", "reason",
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
---@param rows table[] {id, label?, scored?, verdict?, profile?, reason?}
---@param c Calibration
---@return string path
function outputs.test(path, rows, c)
  local out = {}
  local function yes(v) return v == nil and "" or v and 1 or 0 end
  for i, r in ipairs(rows) do
    local s, v = r.scored or {}, r.verdict or { baselines = {} }
    local b, p, second = v.baselines, {}, r.profile or {}
    for _, m in ipairs(v.abnormal ~= nil and measures.of(c, s) or {}) do p[m.key] = m.p end
    out[i] = {
      r.id, r.label == 1 and "abnormal" or r.label == 0 and "normal" or "", v.word or "error",
      r.label == 1 and yes(v.abnormal) or "", r.label == 0 and yes(v.abnormal) or "", s.windows or "", v.flagged or "", v.share or "", v.limit or "",
      v.p or "", v.smallest_p or "", v.longest or "", s.mean or "", s.p95 or "", p.p95 or "", s.ratio or "", p.ratio or "", s.log_sd or "",
      p.log_sd or "", s.mean_speed or "", s.mean_pca or "", s.mean_zero or "", b.speed and yes(b.speed.abnormal) or "",
      b.pca and yes(b.pca.abnormal) or "", b.zero and yes(b.zero.abnormal) or "",
      second.word or "", second.student or second.p or "", table.concat(second.words or {}, "; "), r.reason or v.reason or "",
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

--- The table that report.training takes.
---@param run table { name, seed, detector, fit, audit, warnings, config, device, timings, accuracy?, test: rows { id, label?, scored?, verdict?, reason?, profile? } }
---@return table page
---@return table? tested as of honesty.of_test
function outputs.training(run)
  local c = run.detector.calibration
  local r = {
    title = "Training run", subtitle = ("%s, seed %d"):format(run.name, run.seed), population = run.detector.training.population,
    epochs = { train = run.fit.history.train, validation = run.fit.history.validation, best = run.fit.best, unit = "mean squared error, " .. outputs.UNIT },
    threshold = c.threshold, percentile = c.percentile, score_unit = outputs.UNIT, calibration = {}, test = {}, baselines = {}, explained = c.explained,
    warnings = {}, audit = audit.page(run.audit), config = run.config, versions = { libration = lr.version, LuaJIT = jit.version }, device = run.device,
    timings = run.timings, memory = outputs.memory(run.device), accuracy = run.accuracy,
    files = {
      ["best.safetensors"] = "weights of the best epoch", ["detector.safetensors"] = "what detect.lua needs", ["training.log"] = "a line an epoch",
      ["test.csv"] = "a row a test sequence", ["run.json"] = "configuration, checksums, split, timings",
    },
  }
  for i, s in ipairs(c.sequences) do r.calibration[i] = { id = s.id, score = s.mean, share = s.share } end
  local all = { { name = "autoencoder", field = "mean", scores = {} } }
  for _, b in ipairs(thresholds.BASELINES) do all[#all + 1] = { name = b.name, field = b.field, key = b.key, scores = {} } end
  for _, row in ipairs(run.test) do
    local s, v = row.scored, row.verdict
    if s and v.abnormal ~= nil then
      r.test[#r.test + 1] = {
        id = row.id, label = row.label == 1 and "abnormal" or row.label == 0 and "normal" or nil, score = s.mean, share = v.share, p = v.p,
        verdict = v.word, flagged = v.abnormal, profile = row.profile,
      }
      for _, b in ipairs(all) do b.scores[row.id] = s[b.field] end
    else
      r.warnings[#r.warnings + 1] = ("%s was not scored: %s"):format(row.id, row.reason or v.reason)
    end
  end
  local tested = honesty.of_test(run.test)
  for i, b in ipairs(all) do
    if tested then b.separates = ("AUC %.2f"):format(tested.auc[b.key or "network"]) end
    r.baselines[i] = { name = b.name, scores = b.scores, separates = b.separates }
  end
  for _, list in ipairs { audit.texts(run.audit), run.warnings, honesty.of_calibration(c), tested and tested.warnings or {} } do
    for _, text in ipairs(list) do
      -- the page itself says what follows from the explained shares
      if not text:find("^the network explains") then r.warnings[#r.warnings + 1] = text end
    end
  end
  return r, tested
end

--- Peak memory of this process and of the device it used.
---@param device string?
---@return { cpu: number?, gpu: number? } bytes
function outputs.memory(device)
  local on_gpu = device and device ~= "cpu"
  return { cpu = outputs.peak_memory(), gpu = on_gpu and require("libration").memory(device).peak or nil }
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
