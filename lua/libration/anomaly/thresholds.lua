-- From scores to decisions: threshold, limit, conformal p, verdict, episodes. Sees calibration and test scores, no models.

local statistics = require "libration.motion.statistics"

local thresholds = {}

---@class Calibration
---@field percentile number
---@field threshold number percentile of all calibration window errors
---@field limit number largest share of windows over the threshold of any calibration sequence
---@field sequences table[] {id, sha256, windows, frames, mean, p95, ratio, share, speed, pca, zero, variance}
---@field windows number[] all window errors, sequence after sequence
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

--- Calibrates on scored sequences that no training has seen.
---@param list Scored[]
---@param percentile number? 0..100, default 95
---@param explained table? as of scores.explained
---@return Calibration
function thresholds.calibrate(list, percentile, explained)
  local c = { percentile = percentile or 95, sequences = {}, windows = {}, frames = {}, limit = 0, explained = explained }
  local variances = {}
  for _, s in ipairs(list) do
    for i = 1, #s.error do
      c.windows[#c.windows + 1], variances[#variances + 1] = s.error[i], s.variance[i]
    end
  end
  if #c.windows == 0 then error("calibrate: no validation windows; every validation sequence is too short or has no person", 2) end
  c.threshold = statistics.percentile(c.windows, c.percentile)
  for _, s in ipairs(list) do
    if #s.error > 0 then
      local share = share_above(s.error, c.threshold)
      c.limit = math.max(c.limit, share)
      c.sequences[#c.sequences + 1] = {
        id = s.id, sha256 = s.sha256, windows = #s.error, frames = s.frames, mean = s.mean, p95 = s.p95, ratio = s.ratio,
        share = share, mean_speed = s.mean_speed, mean_pca = s.mean_pca, mean_zero = s.mean_zero, mean_variance = s.mean_variance,
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

---@class Verdict
---@field abnormal boolean? nil where nothing could be scored
---@field word string "abnormal", "normal" or "not scored"
---@field share number of windows over the threshold
---@field flagged integer windows over it
---@field limit number
---@field p number conformal p of the mean window error, the unit being a video
---@field smallest_p number
---@field episodes table[] {first, last, from, to}: frames from 0, seconds
---@field longest number seconds
---@field frame_flag boolean[] frame error (mean of the windows that cover it) over the threshold
---@field frame_p number[] conformal p of each frame
---@field baselines table<string, table> by key: {value, p, abnormal}

--- Judges one sequence: abnormal when its share of windows over the threshold exceeds the largest share of any
--- calibration sequence. A baseline says abnormal when its value exceeds that of every calibration sequence.
---@param c Calibration
---@param s Scored
---@return Verdict
function thresholds.judge(c, s)
  local v = { limit = c.limit, threshold = c.threshold, baselines = {}, episodes = {}, longest = 0, frame_flag = {}, frame_p = {} }
  if #s.error == 0 then
    v.word, v.share, v.flagged = "not scored", 0, 0
    v.reason = s.frames < s.window and ("%d frames, a window has %d"):format(s.frames, s.window)
      or "no window in which the body is seen without a long gap"
    return v
  end
  v.share, v.flagged = share_above(s.error, c.threshold)
  v.abnormal = v.share > c.limit
  v.word = v.abnormal and "abnormal" or "normal"
  v.p, v.smallest_p = statistics.conformal(column(c.sequences, "mean"), s.mean)
  local sorted = {}
  for i, e in ipairs(c.frames) do sorted[i] = e end
  table.sort(sorted)
  for t = 1, s.frames do
    local e = s.frame_error[t]
    v.frame_flag[t] = e > c.threshold
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
    local p, smallest = statistics.conformal(values, s[b.field])
    -- the smallest p means: above every calibration sequence
    v.baselines[b.key] = { name = b.name, value = s[b.field], p = p, abnormal = p == smallest }
  end
  return v
end

return thresholds
