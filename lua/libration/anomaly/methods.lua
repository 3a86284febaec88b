-- The methods that an evaluation compares, each fitted on the same normals: autoencoder, baselines, movement profile. Knows no protocol and no labels.

local ffi = require "ffi"
local baselines = require "libration.anomaly.baselines"
local profile = require "libration.anomaly.profile"
local dice = require "libration.data.dice"
local motion = require "libration.motion"

local methods = {}

-- Directions of the random projection.
local DIRECTIONS = 32

---@class Recording what methods see of a recording
---@field id string
---@field features Features
---@field movement Movement?

---@class Fold
---@field train Recording[] normals to fit on
---@field inner Recording? a further normal inside the training part: early stopping goes by it, and it sets the threshold of windows
---@field motion table options of `libration.motion`
---@field stride integer between training windows
---@field seed integer
---@field network table options of the autoencoder: epochs, batch, learning_rate, patience, hidden, latent, mask

---@class Method
---@field key string
---@field name string
---@field seeded boolean its figures depend on the seed
---@field fit fun(fold: Fold): fun(r: Recording): number, number[]? score of a recording and, where there are any, of its windows

local function features_of(list)
  local out = {}
  for i, r in ipairs(list) do out[i] = r.features end
  return out
end

-- Windows and normaliser of a fold, made once for all methods.
local function prepared(fold)
  if not fold.windows then
    fold.windows = motion.windows(features_of(fold.train), fold.motion, fold.stride)
    if fold.windows.count == 0 then error("evaluate: no training windows: every sequence is shorter than --window, or the body is not seen", 0) end
    fold.normaliser = motion.windows(features_of(fold.train), fold.motion, 1):fit_normaliser()
  end
  return fold.windows, fold.normaliser
end

-- Every window of a recording as float[P] and its weights, one after the other: each(x, weight) -> number.
local function by_window(r, fold, each)
  local _, norm = prepared(fold)
  local w = motion.windows({ r.features }, fold.motion, 1)
  local P = w.length * w.size
  local x, weight, values = ffi.new("float[?]", P), ffi.new("float[?]", P), {}
  for i = 1, w.count do
    w:write({ i }, norm, false, x, weight)
    values[i] = each(x, weight, P)
  end
  return motion.statistics.mean(values), values
end

local function fit_speed()
  return function(r)
    local f = r.features
    local w, values = r.windows, {}
    for i = 1, w.count do values[i] = motion.normalise.mean_speed(f.track, w.start[i], w.length) end
    return motion.normalise.mean_speed(f.track), values
  end
end

local function fit_variance(fold)
  local windows = prepared(fold)
  local T, D = windows.length, windows.size
  return function(r)
    return by_window(r, fold, function(x, weight)
      local total, features = 0, 0
      for d = 0, D - 1 do
        local sum, square, n = 0, 0, 0
        for t = 0, T - 1 do
          local w, v = weight[t * D + d], x[t * D + d]
          sum, square, n = sum + w * v, square + w * v * v, n + w
        end
        if n > 0 then total, features = total + n * math.max(square / n - (sum / n) ^ 2, 0), features + n end
      end
      return total / features
    end)
  end
end

local function fit_pca(fold)
  local windows, norm = prepared(fold)
  local model = baselines.fit(windows, norm, 32)
  return function(r)
    local w = motion.windows({ r.features }, fold.motion, 1)
    local values = baselines.score(model, w, w:of_sequence(1), norm).pca
    return motion.statistics.mean(values), values
  end
end

-- Mean squared z-score of random directions of the window; source of the idea: DA-Flow, arXiv 2406.02976.
local function fit_projection(fold)
  local windows, norm = prepared(fold)
  local P = windows.length * windows.size
  local rng, direction = dice.new(fold.seed, 77), ffi.new("float[?]", DIRECTIONS * P)
  for i = 0, DIRECTIONS * P - 1 do direction[i] = rng:normal() / math.sqrt(P) end
  local function project(x, k)
    local sum, from = 0, direction + k * P
    for i = 0, P - 1 do sum = sum + x[i] * from[i] end
    return sum
  end
  local sum, square = ffi.new("double[?]", DIRECTIONS), ffi.new("double[?]", DIRECTIONS)
  local x, weight = ffi.new("float[?]", P), ffi.new("float[?]", P)
  for i = 1, windows.count do
    windows:write({ i }, norm, false, x, weight)
    for k = 0, DIRECTIONS - 1 do
      local v = project(x, k)
      sum[k], square[k] = sum[k] + v, square[k] + v * v
    end
  end
  local n = windows.count
  return function(r)
    return by_window(r, fold, function(one)
      local total = 0
      for k = 0, DIRECTIONS - 1 do
        local mean = sum[k] / n
        total = total + (project(one, k) - mean) ^ 2 / math.max(square[k] / n - mean * mean, 1e-12)
      end
      return total / DIRECTIONS
    end)
  end
end

-- Mean squared difference to the nearest training window.
local function fit_nearest(fold)
  local windows, norm = prepared(fold)
  local P, n = windows.length * windows.size, windows.count
  local known, weight = ffi.new("float[?]", n * P), ffi.new("float[?]", P)
  for i = 0, n - 1 do windows:write({ i + 1 }, norm, false, known + i * P, weight) end
  return function(r)
    return by_window(r, fold, function(x, w)
      local best = math.huge
      for i = 0, n - 1 do
        local row, sum = known + i * P, 0
        for from = 0, P - 1, 64 do
          for k = from, math.min(from + 63, P - 1) do
            local d = x[k] - row[k]
            sum = sum + w[k] * d * d
          end
          if sum >= best then break end
        end
        if sum < best then best = sum end
      end
      local seen = 0
      for k = 0, P - 1 do seen = seen + w[k] end
      return best / seen
    end)
  end
end

local function movement_of(r)
  r.movement = r.movement or profile.measure(r.features.track)
  return r.movement
end

local function fit_profile(fold)
  local rows = {}
  for i, r in ipairs(fold.train) do rows[i] = movement_of(r) end
  if fold.inner then rows[#rows + 1] = movement_of(fold.inner) end
  local fitted = profile.fit(rows)
  return function(r) return (profile.distance(fitted, movement_of(r))) end
end

local function fit_network(fold)
  local fit = require "libration.anomaly.fit"
  local windows, norm = prepared(fold)
  local o = fold.network
  local done = fit.run {
    train = windows, watch = fold.inner and motion.windows({ fold.inner.features }, fold.motion, 1) or nil, normaliser = norm, mask = o.mask,
    model = { hidden = o.hidden, latent = o.latent }, epochs = o.epochs, batch = o.batch, learning_rate = o.learning_rate,
    patience = fold.inner and o.patience or 0, seed = fold.seed, workers = 0, quiet = true,
  }
  if done.stopped == "interrupted" then error("interrupted", 0) end
  local BATCH = 128
  return function(r)
    local w = motion.windows({ r.features }, fold.motion, 1)
    local numbers = w.length * w:width(o.mask)
    local x, weight, values = ffi.new("float[?]", BATCH * numbers), ffi.new("float[?]", BATCH * numbers), {}
    for first = 1, w.count, BATCH do
      local list = {}
      for i = first, math.min(first + BATCH - 1, w.count) do list[#list + 1] = i end
      w:write(list, norm, o.mask, x, weight)
      local y = done.model:reconstruct(x, #list)
      for k = 0, #list - 1 do
        local sum, n = 0, 0
        for i = k * numbers, (k + 1) * numbers - 1 do
          local d = y[i] - x[i]
          sum, n = sum + weight[i] * d * d, n + weight[i]
        end
        values[first + k] = sum / n
      end
    end
    return motion.statistics.mean(values), values
  end
end

--- All methods in the order of a table.
---@type Method[]
methods.LIST = {
  { key = "autoencoder", name = "autoencoder", seeded = true, fit = fit_network },
  { key = "speed", name = "mean speed", fit = fit_speed },
  { key = "projection", name = "random projection", seeded = true, fit = fit_projection },
  { key = "pca", name = "PCA-32", fit = fit_pca },
  { key = "nearest", name = "nearest training window", fit = fit_nearest },
  { key = "variance", name = "window variance", fit = fit_variance },
  { key = "profile", name = "movement profile", fit = fit_profile },
}

--- Methods by name.
---@param names string[] keys; {"all"} for all
---@return Method[]? list in the order of `methods.LIST`
---@return string? reason
function methods.choose(names)
  local wanted, known, list = {}, {}, {}
  for _, m in ipairs(methods.LIST) do known[#known + 1] = m.key end
  for _, name in ipairs(names) do wanted[name] = true end
  for _, m in ipairs(methods.LIST) do
    if wanted.all or wanted[m.key] then list[#list + 1] = m end
    wanted[m.key] = nil
  end
  wanted.all = nil
  local stray = next(wanted)
  if stray then return nil, ("unknown method %s; there are %s"):format(stray, table.concat(known, ", ")) end
  if #list == 0 then return nil, "no method; there are " .. table.concat(known, ", ") end
  return list
end

return methods
