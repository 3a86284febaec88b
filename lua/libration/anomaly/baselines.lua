-- What a detector must beat: zero output, PCA of the windows, window variance, mean speed. All exact, none trained by gradient.

local ffi = require "ffi"
local pca = require "libration.anomaly.pca"
local normalise = require "libration.motion.normalise"

local baselines = {}

-- PCA is fitted on at most so many windows, evenly spread: its Gram matrix grows with the square.
local MOST_WINDOWS = 3000

--- Fits PCA on training windows.
---@param windows Windows of the training sequences
---@param norm Normaliser
---@param rank integer? default 32
---@return Pca
function baselines.fit(windows, norm, rank)
  local P = windows.length * windows.size
  local n = math.min(windows.count, MOST_WINDOWS)
  if n == 0 then error("baselines: no training windows", 2) end
  local x = ffi.new("double[?]", n * P)
  local one, weight = ffi.new("float[?]", P), ffi.new("float[?]", P)
  for i = 0, n - 1 do
    windows:write({ math.floor(i * windows.count / n) + 1 }, norm, false, one, weight)
    for k = 0, P - 1 do x[i * P + k] = one[k] end
  end
  return pca.fit(x, n, P, rank or 32)
end

--- Two figures of one window, over the numbers that are seen.
---@param x ffi.cdata* float|double[T*D]
---@param weight ffi.cdata* float[T*D]
---@param T integer
---@param D integer
---@return number square mean square: the error of a network that always answers the training mean
---@return number variance mean over features of the variance over time
function baselines.moments(x, weight, T, D)
  local total, seen, variance, features = 0, 0, 0, 0
  for d = 0, D - 1 do
    local sum, square, m = 0, 0, 0
    for t = 0, T - 1 do
      local w, v = weight[t * D + d], x[t * D + d]
      sum, square, m = sum + w * v, square + w * v * v, m + w
    end
    if m > 0 then
      variance, features = variance + m * math.max(square / m - (sum / m) ^ 2, 0), features + m
      total, seen = total + square, seen + m
    end
  end
  return total / seen, variance / features
end

---@class BaselineScores
---@field zero number[] mean square of each window: the error of a network that always answers the training mean
---@field pca number[] mean square that the components leave
---@field variance number[] mean over features of the variance over time
---@field speed number[] mean joint speed inside the window, torso lengths per second

--- Scores windows; numbers that are missing do not count.
---@param model Pca
---@param windows Windows
---@param list integer[] window numbers
---@param norm Normaliser
---@param from integer? first frame of a window, from 0, that counts (default 0); PCA sees the whole window all the same
---@return BaselineScores
function baselines.score(model, windows, list, norm, from)
  local T, D = windows.length, windows.size
  local P = T * D
  if model.size ~= P then error(("baselines: windows have %d numbers, PCA was fitted on %d"):format(P, model.size), 2) end
  local one, weight = ffi.new("float[?]", P), ffi.new("float[?]", P)
  local row, residual = ffi.new("double[?]", P), ffi.new("double[?]", P)
  local out = { zero = {}, pca = {}, variance = {}, speed = {} }
  from = from or 0
  local frames, skip = T - from, from * D
  for i, number in ipairs(list) do
    windows:write({ number }, norm, false, one, weight)
    for k = 0, P - 1 do row[k] = one[k] end
    pca.residual(model, row, residual)
    out.pca[i] = baselines.moments(residual + skip, weight + skip, frames, D)
    out.zero[i], out.variance[i] = baselines.moments(row + skip, weight + skip, frames, D)
    local track = windows.sequences[windows.sequence[number]].track
    local speed = track and normalise.mean_speed(track, windows.start[number], T) or 0
    out.speed[i] = speed == speed and speed or 0
  end
  return out
end

return baselines
