-- Scores of one sequence: error by window, by frame and by joint, with the baselines beside it. Decides nothing.

local ffi = require "ffi"
local baselines = require "libration.anomaly.baselines"
local device_scores = require "libration.anomaly.device_scores"
local normalise = require "libration.motion.normalise"
local statistics = require "libration.motion.statistics"

local scores = {}

local BATCH = 128

---@class Scored
---@field id string
---@field windows integer number of windows scored
---@field start integer[] first frame of each, from 0
---@field error number[] mean squared error of each, in training standard deviations squared
---@field variance number[] variance over time of each
---@field zero number[] error of the zero output of each
---@field pca number[] error of PCA of each
---@field speed number[] mean joint speed of each, torso lengths per second
---@field frames integer
---@field fps number
---@field frame_error number[] mean error of the windows that cover a frame, one a frame; NaN where none does
---@field joint_error ffi.cdata* double[frames*J], a joint's own squared error in a frame, mean over those windows; NaN where missing
---@field joints string[] as of Features.names: joints, or bones
---@field mean number mean window error: the headline score
---@field p95 number 95th percentile of the window errors
---@field ratio number sum of errors / sum of variances; 1 - ratio is the share of the movement explained
---@field log_sd number SD of the log error
---@field mean_zero number
---@field mean_pca number
---@field mean_variance number
---@field mean_speed number of the whole track

-- Adds squared errors of a batch to the window, frame and joint sums.
local function tally(batch, first, windows, mask, x, y, weight, out, sums)
  local T, J = windows.length, sums.joints
  local per = windows.size / J
  local F = mask and windows.size + J or windows.size
  local stride = mask and per + 1 or per
  local error_sum, count = sums.error, sums.count
  for k = 0, #batch - 1 do
    local start = windows.start[batch[k + 1]]
    local total, n = 0, 0
    for t = sums.from, T - 1 do
      for j = 0, J - 1 do
        local at = (k * T + t) * F + j * stride
        local e, m = 0, 0
        for c = at, at + per - 1 do
          local w = weight[c]
          local d = y[c] - x[c]
          e, m = e + w * d * d, m + w
        end
        total, n = total + e, n + m
        local to = (start + t) * J + j
        error_sum[to], count[to] = error_sum[to] + e, count[to] + m
      end
    end
    out[first + k] = total / n
  end
end

--- Scores one sequence of the windows.
---@param windows Windows cut at the stride to score with
---@param s integer position of the sequence in it, from 1
---@param model table {normaliser, mask, pca, reconstruct = fun(x: float[n*T*F], n) -> float[n*T*F], from: first frame of a window that counts, default 0,
--- network: Autoencoder?, on a device it scores there}
---@param id string?
---@return Scored
function scores.of_sequence(windows, s, model, id)
  local f = windows.sequences[s]
  local T, J = windows.length, f.joints
  local F = windows:width(model.mask)
  local list = windows:of_sequence(s)
  local x, weight = ffi.new("float[?]", BATCH * T * F), ffi.new("float[?]", BATCH * T * F)
  local sums = {
    joints = J, from = model.from or 0, error = ffi.new("double[?]", f.frames * J), count = ffi.new("double[?]", f.frames * J),
  }
  local out = {
    id = id or f.track and f.track.id, windows = #list, start = {}, error = {}, frames = f.frames,
    fps = f.track and f.track.fps or 25, begin = f.track and f.track.start or 0, window = T,
    joints = f.names or {}, frame_error = {}, joint_error = sums.error,
  }
  for i, number in ipairs(list) do out.start[i] = windows.start[number] end
  local there = model.network and model.network:device() ~= "cpu"
  if there then device_scores.tally(windows, s, model, out.error, sums) end
  for first = 1, there and 0 or #list, BATCH do
    local batch = {}
    for i = first, math.min(first + BATCH - 1, #list) do batch[#batch + 1] = list[i] end
    windows:write(batch, model.normaliser, model.mask, x, weight)
    local y = model.reconstruct(x, #batch)
    tally(batch, first, windows, model.mask, x, y, weight, out.error, sums)
  end
  for i = 0, f.frames * J - 1 do sums.error[i] = sums.error[i] / sums.count[i] end
  local frame_sum, covering = ffi.new("double[?]", f.frames), ffi.new("double[?]", f.frames)
  for i, start in ipairs(out.start) do
    for t = start, start + T - 1 do frame_sum[t], covering[t] = frame_sum[t] + out.error[i], covering[t] + 1 end
  end
  for t = 0, f.frames - 1 do out.frame_error[t + 1] = frame_sum[t] / covering[t] end
  local plain = baselines.score(model.pca, windows, list, model.normaliser, model.from)
  out.zero, out.pca, out.variance, out.speed = plain.zero, plain.pca, plain.variance, plain.speed
  out.mean_speed = f.track and normalise.mean_speed(f.track) or 0
  return scores.summarise(out)
end

--- Fills in the means and percentiles; nothing where there are no windows.
---@param scored table
---@return Scored
function scores.summarise(scored)
  if #scored.error == 0 then return scored end
  local logs = {}
  for i, e in ipairs(scored.error) do logs[i] = math.log(math.max(e, 1e-12)) end
  scored.mean = statistics.mean(scored.error)
  scored.p95 = statistics.percentile(scored.error, 95)
  scored.log_sd = statistics.deviation(logs)
  scored.mean_zero, scored.mean_pca = statistics.mean(scored.zero), statistics.mean(scored.pca)
  scored.mean_variance = statistics.mean(scored.variance)
  scored.ratio = scored.mean / scored.mean_variance
  return scored
end

--- Share of movement explained, 1 - error / variance, over several sequences together.
---@param list Scored[]
---@return table {network, pca, zero}: shares, at most 1; nil of nothing
function scores.explained(list)
  local e, p, z, v = 0, 0, 0, 0
  for _, s in ipairs(list) do
    for i = 1, #s.error do
      e, p, z, v = e + s.error[i], p + s.pca[i], z + s.zero[i], v + s.variance[i]
    end
  end
  if v ~= v or v <= 0 then return nil end
  return { network = 1 - e / v, pca = 1 - p / v, zero = 1 - z / v }
end

return scores
