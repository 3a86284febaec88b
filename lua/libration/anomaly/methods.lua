-- The methods that an evaluation compares, each fitted on the same normals: autoencoder, baselines, movement profile. Knows no protocol and no labels.

local ffi = require "ffi"
local baselines = require "libration.anomaly.baselines"
local profile = require "libration.anomaly.profile"
local movement = require "libration.anomaly.movement"
local dice = require "libration.data.dice"
local motion = require "libration.motion"

local methods = {}

-- Directions of the random projection.
local DIRECTIONS = 32
-- Windows that the network scores at once.
local BATCH = 128

---@class Recording what methods see of a recording
---@field id string
---@field features Features
---@field windows Windows of it alone
---@field subject string?
---@field movement Movement?
---@field profile Movement?

---@class Fold
---@field train Recording[] normals to fit on
---@field inner Recording? a further normal inside the training part: early stopping goes by it, and it sets the threshold of windows
---@field motion table options of `libration.motion`
---@field stride integer between training windows
---@field seed integer
---@field network table options of the autoencoder: epochs, batch, learning_rate, patience, hidden, latent, mask, task, device

---@class MethodScore
---@field [1] number of the recording
---@field windows number[]? of its windows, where the method has them

---@class Family one fit that serves several methods
---@field name string
---@field seeded boolean its figures depend on the seed
---@field fit fun(fold: Fold): fun(r: Recording): table<string, MethodScore>, table? scores by the method's key; sums {error, variance, square} over windows

---@class Method
---@field key string
---@field name string
---@field family Family

local function features_of(list)
  local out = {}
  for i, r in ipairs(list) do out[i] = r.features end
  return out
end

-- Windows and normaliser of a fold, made once for each way of post-processing.
local function prepared(fold, post)
  post = post or fold.motion.post
  fold.prepared = fold.prepared or {}
  local p = fold.prepared[post]
  if not p then
    local m = {}
    for k, v in pairs(fold.motion) do m[k] = v end
    m.post = post
    p = { motion = m, every = motion.windows(features_of(fold.train), m, 1), windows = motion.windows(features_of(fold.train), m, fold.stride) }
    if p.windows.count == 0 then error("evaluate: no training windows: every sequence is shorter than --window, or the body is not seen", 0) end
    p.normaliser = p.every:fit_normaliser()
    fold.prepared[post] = p
  end
  return p
end

local function averaged(values)
  return { motion.statistics.mean(values), windows = values }
end

-- Every window of a recording as float[P] and its weights, one after the other: each(x, weight, P) -> numbers, a list for each.
local function by_window(r, p, each)
  local w = motion.windows({ r.features }, p.motion, 1)
  local P = w.length * w.size
  local x, weight, first, second = ffi.new("float[?]", P), ffi.new("float[?]", P), {}, {}
  for i = 1, w.count do
    w:write({ i }, p.normaliser, false, x, weight)
    first[i], second[i] = each(x, weight, P)
  end
  return first, second
end

local function fit_speed()
  return function(r)
    local f, w, values = r.features, r.windows, {}
    for i = 1, w.count do values[i] = motion.normalise.mean_speed(f.track, w.start[i], w.length) end
    return { speed = { motion.normalise.mean_speed(f.track), windows = values } }
  end
end

-- No model: the variance of the window, and the error of repeating the frame at two thirds of it.
local function fit_plain(fold)
  local p = prepared(fold)
  local T, D = p.windows.length, p.windows.size
  local from = math.floor(T * 2 / 3)
  return function(r)
    local variance, still = by_window(r, p, function(x, weight)
      local _, spread = baselines.moments(x, weight, T, D)
      local sum, n = 0, 0
      for k = from * D, T * D - 1 do
        local last = (from - 1) * D + k % D
        local w, d = weight[k] * weight[last], x[k] - x[last]
        sum, n = sum + w * d * d, n + w
      end
      return spread, n > 0 and sum / n or 0
    end)
    return { variance = averaged(variance), ["repeat"] = averaged(still) }
  end
end

local function fit_pca(fold)
  local p = prepared(fold)
  local model = baselines.fit(p.every, p.normaliser, 32)
  return function(r)
    local w = motion.windows({ r.features }, p.motion, 1)
    local s = baselines.score(model, w, w:of_sequence(1), p.normaliser)
    local sums = { error = 0, variance = 0, square = 0 }
    for i, e in ipairs(s.pca) do sums.error, sums.variance, sums.square = sums.error + e, sums.variance + s.variance[i], sums.square + s.zero[i] end
    return { pca = averaged(s.pca) }, sums
  end
end

-- PCA of windows of unit amplitude: mean over windows of error / variance. One scale for all features, or z-scores would undo the unit amplitude.
local function fit_pca_unit(fold)
  local p = prepared(fold, "unit")
  local normaliser = p.every:fit_normaliser(true)
  local model = baselines.fit(p.every, normaliser, 32)
  return function(r)
    local w = motion.windows({ r.features }, p.motion, 1)
    local s, values = baselines.score(model, w, w:of_sequence(1), normaliser), {}
    for i, e in ipairs(s.pca) do values[i] = e / math.max(s.variance[i], 1e-12) end
    return { ["pca-unit"] = averaged(values) }
  end
end

-- Mean squared z-score of random directions of the window; source of the idea: DA-Flow, arXiv 2406.02976.
local function fit_projection(fold)
  local p = prepared(fold)
  local windows, P = p.windows, p.windows.length * p.windows.size
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
    windows:write({ i }, p.normaliser, false, x, weight)
    for k = 0, DIRECTIONS - 1 do
      local v = project(x, k)
      sum[k], square[k] = sum[k] + v, square[k] + v * v
    end
  end
  local n = windows.count
  return function(r)
    return { projection = averaged((by_window(r, p, function(one)
      local total = 0
      for k = 0, DIRECTIONS - 1 do
        local mean = sum[k] / n
        total = total + (project(one, k) - mean) ^ 2 / math.max(square[k] / n - mean * mean, 1e-12)
      end
      return total / DIRECTIONS
    end))) }
  end
end

-- Mean squared difference to the nearest training window.
local function fit_nearest(fold)
  local p = prepared(fold)
  local windows, P, n = p.windows, p.windows.length * p.windows.size, p.windows.count
  local known, weight = ffi.new("float[?]", n * P), ffi.new("float[?]", P)
  for i = 0, n - 1 do windows:write({ i + 1 }, p.normaliser, false, known + i * P, weight) end
  return function(r)
    return { nearest = averaged((by_window(r, p, function(x, w)
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
    end))) }
  end
end

local function movement_of(r)
  r.movement = r.movement or profile.measure(r.features.track)
  return r.movement
end

--- The statistics of a recording as train and detect see them: without the frames in which the landmarker takes left for right. Measured once.
---@param r Recording
---@return Movement
function methods.profile_of(r)
  if not r.profile then
    r.profile = profile.measure(profile.steady(r.features.track))
    r.profile.subject = r.subject
  end
  return r.profile
end
local profile_of = methods.profile_of

-- The normals of a fold as rows of statistics; nothing stops early here, so the inner one fits too.
local function movements(fold, of)
  local rows = {}
  for i, r in ipairs(fold.train) do rows[i] = of(r) end
  if fold.inner then rows[#rows + 1] = of(fold.inner) end
  return rows
end

local function fit_movement(fold)
  local fitted = movement.fit(movements(fold, movement_of))
  return function(r) return { movement = { movement.distance(fitted, movement_of(r)) } } end
end

local function fit_profile(fold)
  local fitted = profile.fit(movements(fold, profile_of))
  return function(r) return { profile = { (profile.distance(fitted, profile_of(r))) } } end
end

-- Window errors, variances and mean squares of a recording.
local function network_scores(r, p, model, mask)
  local w = motion.windows({ r.features }, p.motion, 1)
  local T, F, D, per = w.length, w:width(mask), w.size, w.size / r.features.joints
  local x, weight = ffi.new("float[?]", BATCH * T * F), ffi.new("float[?]", BATCH * T * F)
  local one, seen = ffi.new("float[?]", T * D), ffi.new("float[?]", T * D)
  local from, errors, variances, squares = model:scored_from(), {}, {}, {}
  for first = 1, w.count, BATCH do
    local list = {}
    for i = first, math.min(first + BATCH - 1, w.count) do list[#list + 1] = i end
    w:write(list, p.normaliser, mask, x, weight)
    local y = model:reconstruct(x, #list)
    for k = 0, #list - 1 do
      local sum, n = 0, 0
      for i = (k * T + from) * F, (k + 1) * T * F - 1 do
        local d = y[i] - x[i]
        sum, n = sum + weight[i] * d * d, n + weight[i]
      end
      errors[first + k] = n > 0 and sum / n or 0
      for t = from, T - 1 do -- without the masks
        for d = 0, D - 1 do
          local at, to = (k * T + t) * F + (mask and d + math.floor(d / per) or d), (t - from) * D + d
          one[to], seen[to] = x[at], weight[at]
        end
      end
      squares[first + k], variances[first + k] = baselines.moments(one, seen, T - from, D)
    end
  end
  return errors, variances, squares
end

-- The autoencoder on windows of one kind; `short`: only the mean error.
local function network(post, short)
  return function(fold)
    local fit = require "libration.anomaly.fit"
    local p, o = prepared(fold, post), fold.network
    local done = fit.run {
      train = p.windows, watch = fold.inner and motion.windows({ fold.inner.features }, p.motion, fold.stride) or nil, normaliser = p.normaliser,
      mask = o.mask, model = { hidden = o.hidden, latent = o.latent, task = o.task }, epochs = o.epochs, batch = o.batch,
      learning_rate = o.learning_rate, patience = fold.inner and o.patience or 0, seed = fold.seed, workers = 0, quiet = true, device = o.device,
    }
    if done.stopped == "interrupted" then error("interrupted", 0) end
    return function(r)
      local errors, variances, squares = network_scores(r, p, done.model, o.mask)
      local mean = averaged(errors)
      if short then return { [short] = mean } end
      local sums, ratios = { error = 0, variance = 0, square = 0 }, {}
      for i, e in ipairs(errors) do
        ratios[i] = e / math.max(variances[i], 1e-12)
        sums.error, sums.variance, sums.square = sums.error + e, sums.variance + variances[i], sums.square + squares[i]
      end
      return {
        autoencoder = mean, ["autoencoder-p95"] = { motion.statistics.percentile(errors, 95), windows = errors },
        ["autoencoder-ratio"] = { sums.error / math.max(sums.variance, 1e-12), windows = ratios },
      }, sums
    end
  end
end

local FAMILIES = {
  autoencoder = { name = "autoencoder", seeded = true, fit = network() },
  torso = { name = "autoencoder, torso-centred", seeded = true, fit = network("none", "autoencoder-torso") },
  speed = { name = "mean speed", fit = fit_speed },
  plain = { name = "no model", fit = fit_plain },
  projection = { name = "random projection", seeded = true, fit = fit_projection },
  pca = { name = "PCA-32", fit = fit_pca },
  ["pca-unit"] = { name = "PCA-32, unit amplitude", fit = fit_pca_unit },
  nearest = { name = "nearest training window", fit = fit_nearest },
  movement = { name = "movement statistics", fit = fit_movement },
  profile = { name = "movement profile", fit = fit_profile },
}

--- All methods in the order of a table.
---@type Method[]
methods.LIST = {
  { key = "autoencoder", name = "autoencoder", family = FAMILIES.autoencoder },
  { key = "autoencoder-p95", name = "autoencoder, 95th percentile", family = FAMILIES.autoencoder },
  { key = "autoencoder-ratio", name = "autoencoder, error / variance", family = FAMILIES.autoencoder },
  { key = "autoencoder-torso", name = "autoencoder, torso-centred", family = FAMILIES.torso },
  { key = "speed", name = "mean speed", family = FAMILIES.speed },
  { key = "variance", name = "window variance, no model", family = FAMILIES.plain },
  { key = "repeat", name = "repeat a frame, no model", family = FAMILIES.plain },
  { key = "projection", name = "random projection", family = FAMILIES.projection },
  { key = "pca", name = "PCA-32", family = FAMILIES.pca },
  { key = "pca-unit", name = "PCA-32 of unit windows, error / variance", family = FAMILIES["pca-unit"] },
  { key = "nearest", name = "nearest training window", family = FAMILIES.nearest },
  { key = "movement", name = "movement statistics, Mahalanobis", family = FAMILIES.movement },
  { key = "profile", name = "movement profile", family = FAMILIES.profile },
}

--- Methods by name.
---@param names string[] keys; {"all"} for all
---@param post string? of the windows; with "none" the autoencoder is the torso-centred one, which then stands once
---@return Method[]? list in the order of `methods.LIST`
---@return string? reason
function methods.choose(names, post)
  local wanted, known, list = {}, {}, {}
  for _, m in ipairs(methods.LIST) do known[#known + 1] = m.key end
  for _, name in ipairs(names) do wanted[name] = true end
  for _, m in ipairs(methods.LIST) do
    local twice = m.key == "autoencoder-torso" and post == "none" and (wanted.all or list[1] and list[1].key == "autoencoder")
    if (wanted.all or wanted[m.key]) and not twice then list[#list + 1] = m end
    wanted[m.key] = nil
  end
  wanted.all = nil
  local stray = next(wanted)
  if stray then return nil, ("unknown method %s; there are %s"):format(stray, table.concat(known, ", ")) end
  if #list == 0 then return nil, "no method; there are " .. table.concat(known, ", ") end
  return list
end

return methods
