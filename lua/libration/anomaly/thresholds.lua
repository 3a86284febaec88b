-- From scores to decisions: threshold, limit, conformal p, verdict, episodes. Sees calibration and test scores, no models.

local attribution = require "libration.anomaly.attribution"
local statistics = require "libration.motion.statistics"

local thresholds = {}

---@class Calibration
---@field percentile number
---@field threshold number percentile of all calibration window errors
---@field limit number largest share of windows over the threshold of any calibration sequence
---@field sequences table[] {id, sha256, windows, frames, mean, p95, ratio, log_sd, share, mean_speed, mean_pca, mean_zero, mean_variance, limbs = {[name] = error}}
---@field windows number[] all window errors, sequence after sequence
---@field starts integer[] first frame of each, from 0
---@field window integer frames a window
---@field rate number frames a second
---@field frames number[] frame errors thinned to one a window length, so that neighbours are not near duplicates
---@field explained table {network, pca, zero}
---@field correlation number between window error and window variance

-- What a baseline's verdict rests on: its name in a report and its field in a summary.
thresholds.BASELINES = {
  { key = "speed", name = "mean speed", field = "mean_speed" },
  { key = "pca", name = "PCA-32", field = "mean_pca" },
  { key = "zero", name = "zero output", field = "mean_zero" },
}

local function share_above(values, threshold)
  local n = 0
  for i = 1, #values do if values[i] > threshold then n = n + 1 end end
  return n / #values, n
end

local function share_below(values, threshold, first, count)
  local n = 0
  for i = first or 1, (first or 1) + (count or #values) - 1 do if values[i] < threshold then n = n + 1 end end
  return n / (count or #values), n
end

-- Mean errors of the contiguous stretches of `length` frames, one after the other, in which at least half of the windows are there.
local function blocks_of(errors, starts, first, count, window, length)
  local list, possible = {}, length - window + 1
  if possible < 1 then return list end
  local sum, n, number = 0, 0, 0
  for i = first, first + count do
    local k = i < first + count and math.floor(starts[i] / length) or -1
    if k ~= number then
      if n >= possible / 2 then list[#list + 1] = { first = number * length, last = (number + 1) * length - 1, mean = sum / n } end
      sum, n, number = 0, 0, k
    end
    -- a window that reaches into the next block belongs to none
    if i < first + count and starts[i] + window <= (k + 1) * length then sum, n = sum + errors[i], n + 1 end
  end
  return list
end

--- Calibrates on scored sequences that no training has seen.
---@param list Scored[]
---@param percentile number? 0..100, default 95
---@param explained table? as of scores.explained
---@return Calibration
function thresholds.calibrate(list, percentile, explained)
  local c = { percentile = percentile or 95, sequences = {}, windows = {}, starts = {}, frames = {}, limit = 0, explained = explained }
  local variances = {}
  for _, s in ipairs(list) do
    for i = 1, #s.error do
      c.windows[#c.windows + 1], c.starts[#c.starts + 1], variances[#variances + 1] = s.error[i], s.start[i], s.variance[i]
    end
  end
  if #c.windows == 0 then error("calibrate: no validation windows; every validation sequence is too short or has no person", 2) end
  c.threshold = statistics.percentile(c.windows, c.percentile)
  for _, s in ipairs(list) do
    if #s.error > 0 then
      c.window, c.rate = s.window, s.fps
      local limbs = {}
      for _, limb in ipairs(attribution.of(s).limbs) do limbs[limb.name] = limb.error end
      local share = share_above(s.error, c.threshold)
      c.limit = math.max(c.limit, share)
      c.sequences[#c.sequences + 1] = {
        id = s.id, sha256 = s.sha256, label = s.label, subject = s.subject, windows = #s.error, frames = s.frames, mean = s.mean, p95 = s.p95, ratio = s.ratio,
        log_sd = s.log_sd, limbs = limbs, share = share, mean_speed = s.mean_speed, mean_pca = s.mean_pca, mean_zero = s.mean_zero, mean_variance = s.mean_variance,
      }
      for t = math.floor(s.window / 2), s.frames - 1, s.window do
        local e = s.frame_error[t + 1]
        if e == e then c.frames[#c.frames + 1] = e end
      end
    end
  end
  c.correlation = statistics.correlation(c.windows, variances)
  return c
end

-- Runs of flagged frames as {first, last} from 0.
local function runs(flags, frames)
  local list, from = {}, nil
  for t = 0, frames do
    local on = t < frames and flags[t + 1]
    if on and not from then from = t end
    if not on and from then
      list[#list + 1] = { first = from, last = t - 1 }
      from = nil
    end
  end
  return list
end

local function column(sequences, field)
  local values = {}
  for i, s in ipairs(sequences) do values[i] = s[field] end
  return values
end

--- Who each calibration sequence shows: its subject, or where none is known the sequence itself.
---@param c Calibration
---@return any[] groups
---@return integer count of different ones
function thresholds.groups(c)
  local list, seen, n = {}, {}, 0
  for i, s in ipairs(c.sequences) do
    list[i] = s.subject or s
    if not seen[list[i]] then seen[list[i]], n = true, n + 1 end
  end
  return list, n
end

---@class Verdict
---@field abnormal boolean? nil where nothing could be scored
---@field word string "abnormal", "normal" or "not scored"
---@field share number of windows over the threshold
---@field flagged integer windows over it
---@field limit number
---@field low table? two-sided: {share, limit, threshold} of windows under the threshold of low errors
---@field side string? two-sided and abnormal: "high", "low" or "high and low"
---@field p number conformal p of the mean window error; of blocks: of the most unusual one, times their number
---@field smallest_p number the smallest that so much calibration allows
---@field unit table {kind: "video"|"block", seconds: number?, calibration: integer units that calibrate, judged: integer, subjects: boolean? true:
--- the recordings of one subject count as one}
---@field blocks table[]? {from, to, mean, p} of unit block
---@field episodes table[] {first, last, from, to}: frames from 0, seconds
---@field longest number seconds
---@field frame_flag boolean[] frame error (mean of the windows that cover it) over the threshold
---@field frame_p number[] conformal p of each frame
---@field baselines table<string, table> by key: {value, p, abnormal}

-- Windows under the mirrored threshold of low errors, against the largest such share of a calibration sequence.
local function judge_low(c, s, v)
  local low = { threshold = statistics.percentile(c.windows, 100 - c.percentile), limit = 0 }
  local at = 1
  for _, row in ipairs(c.sequences) do
    low.limit = math.max(low.limit, (share_below(c.windows, low.threshold, at, row.windows)))
    at = at + row.windows
  end
  low.share = share_below(s.error, low.threshold)
  v.low = low
  local high = v.abnormal
  if low.share > low.limit then
    v.abnormal, v.side = true, high and "high and low" or "low"
  elseif high then
    v.side = "high"
  end
end

-- p of the blocks of a recording against the blocks of the calibration sequences.
local function judge_blocks(c, s, v, seconds, two_sided)
  local length, known, at = math.floor(seconds * c.rate + .5), {}, 1
  for _, row in ipairs(c.sequences) do
    for _, b in ipairs(blocks_of(c.windows, c.starts, at, row.windows, c.window, length)) do known[#known + 1] = b.mean end
    at = at + row.windows
  end
  v.blocks = blocks_of(s.error, s.start, 1, #s.error, s.window, length)
  v.unit = { kind = "block", seconds = seconds, calibration = #known, judged = #v.blocks }
  v.p, v.smallest_p = 1, 1
  if #known == 0 or #v.blocks == 0 then return end
  for _, b in ipairs(v.blocks) do
    local p, smallest = statistics.conformal(known, b.mean, two_sided)
    b.p, b.from, b.to = p, s.begin + b.first / s.fps, s.begin + (b.last + 1) / s.fps
    -- of m blocks the smallest p counts m times: Bonferroni
    v.p, v.smallest_p = math.min(v.p, p * #v.blocks), math.min(1, smallest * #v.blocks)
  end
end

--- What a p was counted against, in words, for a sentence in brackets.
---@param v Verdict
---@return string
function thresholds.unit(v)
  local u = v.unit
  if u.kind == "video" then
    local what = u.subjects and "calibration subject" or "calibration video"
    return ("against %d %s%s"):format(u.calibration, what, u.calibration == 1 and "" or "s")
  end
  if u.calibration == 0 or u.judged == 0 then return ("no whole block of %g s"):format(u.seconds) end
  return ("%d block%s of %g s against %d of the calibration videos; blocks of one video are alike, so this p is rather too small"):format(
    u.judged, u.judged == 1 and "" or "s", u.seconds, u.calibration)
end

--- The verdict in one line.
---@param v Verdict
---@return string
function thresholds.line(v)
  if v.abnormal == nil then return "not scored, " .. v.reason end
  local low = v.low and (", %.1f %% under the low one (calibration: at most %.1f %%)"):format(100 * v.low.share, 100 * v.low.limit) or ""
  return ("%s, %.1f %% of the windows over the threshold (calibration: at most %.1f %%)%s, p %.3g (smallest possible %.3g, %s)"):format(
    v.word, 100 * v.share, 100 * v.limit, low, v.p, v.smallest_p, thresholds.unit(v))
end

--- Judges one sequence: abnormal when its share of windows over the threshold exceeds the largest share of any
--- calibration sequence. A baseline says abnormal when its value exceeds that of every calibration sequence.
---@param c Calibration
---@param s Scored
---@param how table? {two_sided: boolean, a too low error is abnormal too; unit: "video" (default) or "block"; block: seconds, default 5}
---@return Verdict
function thresholds.judge(c, s, how)
  how = how or {}
  local v = { limit = c.limit, threshold = c.threshold, baselines = {}, episodes = {}, longest = 0, frame_flag = {}, frame_p = {} }
  if #s.error == 0 then
    v.word, v.share, v.flagged = "not scored", 0, 0
    v.reason = s.frames < s.window and ("%d frames, a window has %d"):format(s.frames, s.window)
      or "no window in which the body is seen without a long gap"
    return v
  end
  local groups, count = thresholds.groups(c)
  v.share, v.flagged = share_above(s.error, c.threshold)
  v.abnormal = v.share > c.limit
  if how.two_sided then judge_low(c, s, v) end
  v.word = v.abnormal and "abnormal" or "normal"
  if how.unit == "block" then
    judge_blocks(c, s, v, how.block or 5, how.two_sided)
  else
    v.p, v.smallest_p = statistics.conformal(column(c.sequences, "mean"), s.mean, how.two_sided, groups)
    v.unit = { kind = "video", calibration = count, judged = 1, subjects = count < #groups or nil }
  end
  local sorted = {}
  for i, e in ipairs(c.frames) do sorted[i] = e end
  table.sort(sorted)
  for t = 1, s.frames do
    local e = s.frame_error[t]
    v.frame_flag[t] = e > c.threshold or v.low ~= nil and e < v.low.threshold
    if e == e then
      local low, high = 1, #sorted + 1 -- first position whose value is at or above e
      while low < high do
        local middle = math.floor((low + high) / 2)
        if sorted[middle] < e then low = middle + 1 else high = middle end
      end
      v.frame_p[t] = (1 + #sorted - low + 1) / (#sorted + 1)
    else
      v.frame_p[t] = 0 / 0
    end
  end
  v.episodes = runs(v.frame_flag, s.frames)
  for _, e in ipairs(v.episodes) do
    e.from, e.to = s.begin + e.first / s.fps, s.begin + (e.last + 1) / s.fps
    v.longest = math.max(v.longest, e.to - e.from)
  end
  for _, b in ipairs(thresholds.BASELINES) do
    local values = column(c.sequences, b.field)
    local p, smallest = statistics.conformal(values, s[b.field], false, groups)
    -- the smallest p means: above every calibration sequence
    v.baselines[b.key] = { name = b.name, value = s[b.field], p = p, abnormal = p == smallest }
  end
  return v
end

return thresholds
