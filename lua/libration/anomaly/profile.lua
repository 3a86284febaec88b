-- The movement profile: a dozen statistics of how a body moves, fitted on normal recordings; distance, p and words. No network, no windows.
-- The definitions are this file's own; which statistics are worth having was measured on simulated infants at matched mean speed.

local ffi = require "ffi"
local log = require "libration.log"
local statistics = require "libration.motion.statistics"
local normalise = require "libration.motion.normalise"
local motion = require "libration.motion"

local profile = {}

local LIMBS = {
  { key = "right_arm", name = "right arm", "right_elbow", "right_wrist" },
  { key = "left_arm", name = "left arm", "left_elbow", "left_wrist" },
  { key = "right_leg", name = "right leg", "right_knee", "right_ankle" },
  { key = "left_leg", name = "left leg", "left_knee", "left_ankle" },
}

-- Seconds of the centred moving average that positions pass before speeds and jerks are taken: landmark noise is mostly faster.
local SMOOTH = .2
-- Seconds of a stretch whose spectrum is taken, and the highest frequency of it, Hz.
local STRETCH, HIGHEST = 4, 6
-- Torso lengths a second added before a logarithm: the speed that landmark noise alone leaves after smoothing, so that stillness has a logarithm.
local STILL = .02
-- Weight of the diagonal in the correlations.
local SHRINKAGE = .5
-- Values farther than so many robust standard deviations from the median count as standing there.
local WINSOR = 3.5
-- A position farther than this from the median of the five frames around it, torso lengths, is a landmarker's slip and becomes that median.
local SLIP = .1
--- The whole verdict's share of false alarms where the statistics of normals are normally distributed (an upper bound: Bonferroni).
profile.ALPHA = .05
-- A statistic of one recording needs this many seconds in which it can be seen.
local LEAST_SECONDS = 1
-- Fewer normals than this: calibrate by leaving one out.
profile.FEW = 40
-- Fewest normals that a profile can be fitted on.
profile.LEAST = 4

--- The statistics, in order. `least` is the smallest standard deviation assumed among normals; `log`: differences read as ratios.
---   speed        log mean joint speed of head and limbs, torso lengths a second
---   jerk         log (mean jerk / mean speed) of elbows, wrists, knees, ankles, 1/s^2: how often movement changes its mind
---   asymmetry    log (mean speed of the left arm and leg / that of the right): 0 is even, .69 is twice as much on the left
---   synchrony    mean correlation of limb speeds over the six pairs of limbs, -1..1
---   legs, arms   that correlation of the two legs, of the two arms; for words, not part of the whole
---   centroid     power-weighted mean frequency of a joint's velocity up to 6 Hz, median of the eight joints, Hz
---   burstiness   log of SD / mean of a limb's speed, mean of the four limbs
---   right_arm .. left_leg   log (the limb's mean speed / mean of the four): its share; for words
profile.STATISTICS = {
  { key = "speed", name = "mean speed", unit = "log torso lengths/s", log = true, least = .1, whole = true },
  { key = "jerk", name = "jerk / speed", unit = "log 1/s²", log = true, least = .05, whole = true },
  { key = "asymmetry", name = "left against right", unit = "log ratio", log = true, least = .05, whole = true },
  { key = "synchrony", name = "synchrony of the limbs", unit = "correlation", least = .03, whole = true },
  { key = "legs", name = "synchrony of the legs", unit = "correlation", least = .05 },
  { key = "arms", name = "synchrony of the arms", unit = "correlation", least = .05 },
  { key = "centroid", name = "mean frequency", unit = "Hz", least = .05, whole = true },
  { key = "burstiness", name = "burstiness", unit = "log SD/mean", log = true, least = .05, whole = true },
  { key = "right_arm", name = "right arm", unit = "log share", log = true, least = .05 },
  { key = "left_arm", name = "left arm", unit = "log share", log = true, least = .05 },
  { key = "right_leg", name = "right leg", unit = "log share", log = true, least = .05 },
  { key = "left_leg", name = "left leg", unit = "log share", log = true, least = .05 },
}

-- Centred moving average over `width` (odd) frames; NaN where a frame of it is missing. The ends lose half a width.
local function smoothed(x, width)
  local out, half = {}, (width - 1) / 2
  for t = 1 + half, #x - half do
    local sum = 0
    for k = t - half, t + half do sum = sum + x[k] end
    out[t - half] = sum / width
  end
  return out
end

-- Slips of one or two frames, in place: x, y (arrays from 1).
local function without_slips(x, y)
  local fixed = {}
  for t = 3, #x - 2 do
    local a, b = { unpack(x, t - 2, t + 2) }, { unpack(y, t - 2, t + 2) }
    table.sort(a)
    table.sort(b)
    local dx, dy = x[t] - a[3], y[t] - b[3]
    if dx * dx + dy * dy > SLIP * SLIP then fixed[#fixed + 1] = { t, a[3], b[3] } end
  end
  for _, f in ipairs(fixed) do x[f[1]], y[f[1]] = f[2], f[3] end
end

--- A copy without the frames in which the landmarker takes left for right or up for down: the torso or the shoulders' line (from right to left) points
--- away from the recording's median. Holes up to half a second are bridged. The track itself where no frame is lost, where more than a third is (then it
--- is the body that turns), or where the torso is not among the joints. Only BlazePose was seen to do this, on lying infants; key points of others stay as
--- they are (on MINI-RGBD's, the frames that this would drop belong to the movement: AUC .84 with them, .56 without).
---@param track Track normalised
---@return Track
function profile.steady(track)
  if track.skeleton ~= "blazepose33" then return track end
  local r, x, J = track.roles, track.x, track.joints
  local ls, rs, lh, rh = r.left_shoulder, r.right_shoulder, r.left_hip, r.right_hip
  if not (ls and rs and lh and rh) then return track end
  local lines = { {}, {}, {}, {} } -- torso x y, shoulders x y
  for t = 0, track.frames - 1 do
    local function at(j, c) return x[(t * J + j - 1) * 2 + c] end
    for c = 0, 1 do
      lines[1 + c][t + 1] = at(ls, c) + at(rs, c) - at(lh, c) - at(rh, c)
      lines[3 + c][t + 1] = at(ls, c) - at(rs, c)
    end
  end
  local middle, lost = {}, {}
  for i = 1, 4 do
    local seen = {}
    for _, v in ipairs(lines[i]) do if v == v then seen[#seen + 1] = v end end
    if #seen == 0 then return track end
    middle[i] = statistics.median(seen)
  end
  local torso, shoulders = middle[1] ^ 2 + middle[2] ^ 2, middle[3] ^ 2 + middle[4] ^ 2
  for t = 1, track.frames do
    local a = (lines[1][t] * middle[1] + lines[2][t] * middle[2]) / torso
    local b = (lines[3][t] * middle[3] + lines[4][t] * middle[4]) / shoulders
    if a < .3 or b < .2 then lost[#lost + 1] = t end
  end
  if #lost == 0 or #lost > track.frames / 3 then return track end
  local copy, nan = motion.gaps.copy(track), 0 / 0
  for _, t in ipairs(lost) do
    for f = math.max(1, t - 2), math.min(track.frames, t + 2) do
      for i = (f - 1) * J * 2, f * J * 2 - 1 do copy.x[i] = nan end
    end
  end
  motion.gaps.fill(copy, { method = "linear", max_gap = .5 })
  return copy
end

-- Mean of what is there, and how many that is.
local function mean_of(values)
  local sum, n = 0, 0
  for i = 1, #values do
    local v = values[i]
    if v == v then sum, n = sum + v, n + 1 end
  end
  return sum / n, n
end

-- Mean over several arrays frame by frame, of those that are seen.
local function mean_frames(list)
  local out = {}
  for t = 1, #list[1] do
    local sum, n = 0, 0
    for i = 1, #list do
      local v = list[i][t]
      if v == v then sum, n = sum + v, n + 1 end
    end
    out[t] = sum / n
  end
  return out
end

-- Correlation over the frames that both have.
local function correlation(a, b, least)
  local u, v = {}, {}
  for t = 1, #a do
    local p, q = a[t], b[t]
    if p == p and q == q then u[#u + 1], v[#v + 1] = p, q end
  end
  if #u < least then return 0 / 0 end
  return statistics.correlation(u, v)
end

-- Adds the power of the stretches of a velocity: sums of power and of power x frequency over 1/STRETCH .. HIGHEST Hz, Hann window.
local function add_spectrum(v, fps, sums)
  local n = math.min(#v, math.floor(STRETCH * fps + .5))
  if n < 2 * fps then return end
  local w = ffi.new("double[?]", n)
  for start = 0, #v - n, math.max(1, math.floor(n / 2)) do
    local mean = 0
    for t = 0, n - 1 do mean = mean + v[start + t + 1] end
    mean = mean / n
    if mean == mean then
      for t = 0, n - 1 do w[t] = (v[start + t + 1] - mean) * (.5 - .5 * math.cos(2 * math.pi * (t + .5) / n)) end
      for k = 1, math.floor(math.min(HIGHEST, fps / 2) * n / fps + 1e-9) do
        local step = 2 * math.cos(2 * math.pi * k / n) -- Goertzel 1958
        local a, b = 0, 0
        for t = 0, n - 1 do a, b = w[t] + step * a - b, a end
        local power = a * a + b * b - step * a * b
        sums[1], sums[2] = sums[1] + power, sums[2] + power * k * fps / n
      end
    end
  end
end

-- Speeds, jerks and spectra of one limb.
local function limb_of(track, limb, width, centroids)
  local speeds, jerks, J = {}, {}, track.joints
  for _, role in ipairs(limb) do
    local j = track.roles[role]
    if j then
      local x, y, vx, vy = {}, {}, {}, {}
      for t = 0, track.frames - 1 do x[t + 1], y[t + 1] = track.x[(t * J + j - 1) * 2], track.x[(t * J + j - 1) * 2 + 1] end
      without_slips(x, y)
      local spectrum = { 0, 0 }
      for t = 1, #x - 1 do vx[t], vy[t] = x[t + 1] - x[t], y[t + 1] - y[t] end
      add_spectrum(vx, track.fps, spectrum)
      add_spectrum(vy, track.fps, spectrum)
      if spectrum[1] > 0 then centroids[#centroids + 1] = spectrum[2] / spectrum[1] end
      x, y = smoothed(x, width), smoothed(y, width)
      speeds[#speeds + 1], jerks[#jerks + 1] = statistics.magnitude(x, y, 1, track.fps), statistics.magnitude(x, y, 3, track.fps)
    end
  end
  if #speeds == 0 then return nil end
  return { speed = mean_frames(speeds), jerk = mean_frames(jerks) }
end

---@class Movement statistics of one recording by key, NaN where they cannot be seen; see `profile.STATISTICS`
---@field subject string? whom it shows, where that is known: the recordings of one subject count as one

--- Measures a track. Frames or joints that are missing (NaN) are left out; a statistic seen for less than a second is NaN.
---@param track Track normalised: torso-centred, torso lengths
---@return Movement
function profile.measure(track)
  local nan, fps = 0 / 0, track.fps
  local least = math.max(8, LEAST_SECONDS * fps)
  local width = 2 * math.floor(SMOOTH * fps / 2) + 1
  local out, centroids, limbs, jerk, speed = {}, {}, {}, {}, {}
  for _, s in ipairs(profile.STATISTICS) do out[s.key] = nan end
  if track.frames < least + width + 3 then return out end
  local joint_speed = normalise.mean_speed(track)
  out.speed = math.log(joint_speed + STILL)
  for i, limb in ipairs(LIMBS) do
    local l = limb_of(track, limb, width, centroids)
    limbs[i] = { mean = nan }
    if l then
      local mean, n = mean_of(l.speed)
      if n >= least then
        local square = 0
        for t = 1, #l.speed do
          local d = l.speed[t] - mean
          if d == d then square = square + d * d end
        end
        limbs[i] = { speed = l.speed, mean = mean, burst = math.log(math.sqrt(square / n) / (mean + STILL) + 1e-3) }
        jerk[#jerk + 1], speed[#speed + 1] = mean_of(l.jerk), mean
      end
    end
  end
  if #speed > 0 then out.jerk = math.log(statistics.mean(jerk) / (statistics.mean(speed) + STILL) + 1e-3) end
  if #centroids > 0 then out.centroid = statistics.median(centroids) end
  local pairs_sum, pairs_n, burst = 0, 0, {}
  for i = 1, 4 do
    if limbs[i].burst then burst[#burst + 1] = limbs[i].burst end
    for k = i + 1, 4 do
      if limbs[i].speed and limbs[k].speed then
        local r = correlation(limbs[i].speed, limbs[k].speed, least)
        if r == r then pairs_sum, pairs_n = pairs_sum + r, pairs_n + 1 end
        if i == 1 and k == 2 then out.arms = r end
        if i == 3 and k == 4 then out.legs = r end
      end
    end
  end
  if pairs_n >= 3 then out.synchrony = pairs_sum / pairs_n end
  if #burst >= 2 then out.burstiness = statistics.mean(burst) end
  local all = (limbs[1].mean + limbs[2].mean + limbs[3].mean + limbs[4].mean) / 4
  for i, limb in ipairs(LIMBS) do out[limb.key] = math.log((limbs[i].mean + STILL) / (all + STILL)) end
  out.asymmetry = math.log((limbs[2].mean + limbs[4].mean + 2 * STILL) / (limbs[1].mean + limbs[3].mean + 2 * STILL))
  return out
end

---@class MovementProfile
---@field n integer recordings it was fitted on
---@field location table<string, number> winsorised mean by key
---@field scale table<string, number> winsorised SD by key
---@field count table<string, integer> subjects that show it, by key (recordings where no subject is known)
---@field correlation table<string, table<string, number>> shrunk, by keys

-- Robust location and scale of what is seen, or nil where fewer than half of the normals show it.
local function robust(values, n, least)
  if #values < math.max(2, n / 2) then return nil end
  local median, off = statistics.median(values), {}
  for i, v in ipairs(values) do off[i] = math.abs(v - median) end
  local reach, held = WINSOR * math.max(1.4826 * statistics.median(off), least), {}
  for i, v in ipairs(values) do held[i] = math.max(median - reach, math.min(median + reach, v)) end
  local mean, k = statistics.mean(held), #held
  return mean, math.max(statistics.deviation(held) * math.sqrt(k / (k - 1)), least), reach
end

-- Who each recording shows: its subject, or the recording itself; and how many that are.
local function groups_of(rows)
  local groups, seen, n = {}, {}, 0
  for i, r in ipairs(rows) do
    local g = r.subject or r
    groups[i] = g
    if not seen[g] then seen[g], n = true, n + 1 end
  end
  return groups, n
end

--- Fits location, scale and correlation: mean and SD of values winsorised at 3.5 robust SDs from the median (SD not below `least`), correlations halved.
---@param rows Movement[] of normals, at least `profile.LEAST`
---@return MovementProfile
function profile.fit(rows)
  local n = #rows
  if n < profile.LEAST - 1 then error(("profile: %d normal recordings, want at least %d"):format(n, profile.LEAST), 2) end
  local self = { n = n, location = {}, scale = {}, count = {}, correlation = {}, keys = {} }
  local z = {}
  for _, s in ipairs(profile.STATISTICS) do
    local values, from = {}, {}
    for _, r in ipairs(rows) do
      local v = r[s.key]
      if v - v == 0 then values[#values + 1], from[#values + 1] = v, r end
    end
    local location, scale, reach = robust(values, n, s.least)
    if location then
      self.location[s.key], self.scale[s.key], self.count[s.key] = location, scale, select(2, groups_of(from))
      z[s.key] = {}
      for i, r in ipairs(rows) do
        local d = r[s.key] - location
        z[s.key][i] = d - d == 0 and math.max(-reach, math.min(reach, d)) / scale or 0 -- missing: as usual
      end
      if s.whole then self.keys[#self.keys + 1] = s.key end
    end
  end
  for _, a in ipairs(self.keys) do
    self.correlation[a] = {}
    for _, b in ipairs(self.keys) do
      local sum = 0
      for i = 1, n do sum = sum + z[a][i] * z[b][i] end
      self.correlation[a][b] = a == b and 1 or (1 - SHRINKAGE) * math.max(-1, math.min(1, sum / (n - 1)))
    end
  end
  return self
end

-- Solves L L' y = z for a positive matrix (rows from 1) and gives z' y.
local function quadratic(matrix, z)
  local n, L, u, sum = #z, {}, {}, 0
  for i = 1, n do
    L[i] = {}
    for k = 1, i do
      local s = matrix[i][k]
      for j = 1, k - 1 do s = s - L[i][j] * L[k][j] end
      if i == k then L[i][i] = math.sqrt(math.max(s, 1e-9)) else L[i][k] = s / L[k][k] end
    end
    local s = z[i]
    for j = 1, i - 1 do s = s - L[i][j] * u[j] end
    u[i] = s / L[i][i]
    sum = sum + u[i] * u[i]
  end
  return sum
end

--- Distance of a recording from the normals: root of Mahalanobis' square over the number of statistics that are seen, in SDs.
---@param self MovementProfile
---@param row Movement
---@return number distance about 1 for a normal recording; NaN where fewer than half of the statistics are seen
---@return table<string, number> z winsorised standard deviations from the mean, by key
function profile.distance(self, row)
  local z, seen, values = {}, {}, {}
  for key, location in pairs(self.location) do z[key] = ((row[key] or 0 / 0) - location) / self.scale[key] end
  for _, key in ipairs(self.keys) do
    if z[key] == z[key] then seen[#seen + 1], values[#values + 1] = key, z[key] end
  end
  if #seen == 0 or #seen < #self.keys / 2 then return 0 / 0, z end
  local matrix = {}
  for i, a in ipairs(seen) do
    matrix[i] = {}
    for k, b in ipairs(seen) do matrix[i][k] = self.correlation[a][b] end
  end
  return math.sqrt(quadratic(matrix, values) / #seen), z
end

---@class ProfileCalibration
---@field profile MovementProfile fitted on all normals
---@field distances number[] of the calibration recordings
---@field groups any[] of which subject each distance is
---@field deviations table<string, {values: number[], groups: any[]}> |z| of the calibration recordings, by key
---@field left_out boolean each calibration recording was judged by a profile fitted on the others

--- Are there recordings of enough subjects to calibrate on?
---@param rows Movement[]
---@return boolean
function profile.enough(rows) return select(2, groups_of(rows)) >= profile.LEAST end

--- Fits and calibrates. With few normal subjects each of them, training and validation alike, is left out once with all its recordings and judged by the
--- others; with `profile.FEW` or more the profile is fitted on the training normals and calibrated on the validation normals.
---@param training Movement[]
---@param validation Movement[]? normals too; no training has seen them
---@return ProfileCalibration
function profile.calibrate(training, validation)
  local all = {}
  for _, list in ipairs { training, validation or {} } do
    for _, r in ipairs(list) do all[#all + 1] = r end
  end
  local groups, subjects = groups_of(all)
  if not profile.enough(all) then
    error(("profile: %d normal %s, want at least %d"):format(subjects, subjects < #all and "subjects" or "recordings", profile.LEAST), 2)
  end
  local _, held = groups_of(validation or {})
  local c = { distances = {}, groups = {}, deviations = {}, left_out = not (subjects >= profile.FEW and held >= profile.FEW / 2) }
  c.profile = profile.fit(c.left_out and all or training)
  local function take(fitted, row)
    local d, z = profile.distance(fitted, row)
    local group = row.subject or row
    if d == d then c.distances[#c.distances + 1], c.groups[#c.distances + 1] = d, group end
    for key, v in pairs(z) do
      local known = c.deviations[key] or { values = {}, groups = {} }
      c.deviations[key] = known
      if v == v then known.values[#known.values + 1], known.groups[#known.values + 1] = math.abs(v), group end
    end
  end
  if c.left_out then
    local fitted = {} -- by subject
    for i, row in ipairs(all) do
      if not fitted[groups[i]] then
        local others = {}
        for k, r in ipairs(all) do if groups[k] ~= groups[i] then others[#others + 1] = r end end
        fitted[groups[i]] = profile.fit(others)
      end
      take(fitted[groups[i]], row)
    end
  else
    for _, row in ipairs(validation) do take(c.profile, row) end
  end
  return c
end

-- "40 % less than the calibration videos", "3.0 times as much as the calibration videos"; `what` stands behind less, more or much.
local VIDEOS = " the calibration videos"
local function compared(d, what)
  local ratio = math.exp(d)
  what = what and " " .. what or ""
  if ratio >= 2 then return ("%.1f times as much%s as%s"):format(ratio, what, VIDEOS) end
  return ("%.0f %% %s%s than%s"):format(100 * math.abs(ratio - 1), d < 0 and "less" or "more", what, VIDEOS)
end

-- What a statistic that stands out means: words of its distance from the usual value.
local WORDS = {
  speed = function(d) return "moves " .. compared(d) end,
  jerk = function(d) return (d > 0 and "jerkier: " or "smoother: ") .. compared(d, "jerk for its speed") end,
  asymmetry = function(d)
    local weak, strong = d > 0 and "right" or "left", d > 0 and "left" or "right"
    return ("%s side, against the %s, %s"):format(weak, strong, compared(-math.abs(d)))
  end,
  synchrony = function(d) return d > 0 and "all limbs move together" or "limbs move together less than" .. VIDEOS end,
  legs = function(d) return d > 0 and "both legs move together" or "legs move together less than" .. VIDEOS end,
  arms = function(d) return d > 0 and "both arms move together" or "arms move together less than" .. VIDEOS end,
  centroid = function(d)
    return ("%s to and fro: mean frequency %.1f Hz %s than%s"):format(d > 0 and "faster" or "slower", math.abs(d), d > 0 and "higher" or "lower", VIDEOS)
  end,
  burstiness = function(d) return (d > 0 and "moves in bursts: speed varies " or "moves evenly: speed varies ") .. compared(d) end,
}
for _, limb in ipairs(LIMBS) do
  WORDS[limb.key] = function(d) return limb.name .. " " .. compared(d) end
end

---@class ProfileVerdict
---@field abnormal boolean? nil where too little of the body is seen
---@field word string "abnormal", "normal" or "not scored"
---@field distance number
---@field p number conformal p of the distance, the unit being a subject, or a recording where none is known; assumes nothing of how the statistics are distributed
---@field smallest_p number the smallest conformal p that so many normals allow
---@field student number p of the statistic that stands out most, by Student's t of a new recording, times the number of statistics that are part of the
---  whole (Bonferroni): assumes that each statistic is normally distributed among normal recordings; the verdict rests on it
---@field statistics table[] {key, name, unit, value, usual, z, p: conformal, two-sided, student: by Student's t, unusual: boolean, words: string}
---@field words string[] of the statistics that stand out, the most unusual first

--- Judges a recording: abnormal when one of the statistics of the whole lies so far off that chance alone would put any of them there in at most
--- `profile.ALPHA` of normal recordings (Student's t with the normals' own SD, Bonferroni). Two-sided. A statistic that is for words only stands out at
--- the same p; the conformal p and the smallest one that so few normals allow stand beside it and decide nothing.
---@param c ProfileCalibration
---@param row Movement
---@return ProfileVerdict
function profile.judge(c, row)
  local distance, z = profile.distance(c.profile, row)
  local v = { distance = distance, statistics = {}, words = {} }
  if distance == distance then
    v.p, v.smallest_p = statistics.conformal(c.distances, distance, false, c.groups)
    v.student, v.abnormal = 1, false
  end
  local seen, whole, order = 0, {}, {}
  for _, key in ipairs(c.profile.keys) do
    whole[key] = true
    if z[key] == z[key] then seen = seen + 1 end
  end
  for _, s in ipairs(profile.STATISTICS) do
    local d = z[s.key]
    if d and d == d then
      local k, known = c.profile.count[s.key], c.deviations[s.key]
      local student = statistics.student(d / math.sqrt(1 + 1 / k), k - 1)
      local off = row[s.key] - c.profile.location[s.key]
      local entry = {
        key = s.key, name = s.name, unit = s.unit, value = row[s.key], usual = c.profile.location[s.key], z = d,
        p = statistics.conformal(known.values, math.abs(d), false, known.groups), student = student, unusual = student * seen <= profile.ALPHA, words = WORDS[s.key](off),
      }
      if v.student and whole[s.key] then v.student = math.min(v.student, student * seen) end
      v.statistics[#v.statistics + 1] = entry
      if entry.unusual then order[#order + 1] = entry end
    end
  end
  if v.student then v.abnormal = v.student <= profile.ALPHA end
  v.word = v.abnormal == nil and "not scored" or v.abnormal and "abnormal" or "normal"
  table.sort(order, function(a, b) return math.abs(a.z) > math.abs(b.z) end)
  for i, entry in ipairs(order) do v.words[i] = entry.words end
  return v
end

--- Measures a sequence after the pre-processing of a detector, always torso-centred and in torso lengths.
---@param sequence Sequence
---@param options table of `libration.motion`
---@return Movement? nil where the joints used show no torso or no frame does
---@return string? reason
function profile.of_sequence(sequence, options)
  local o = motion.options(options)
  o.root, o.scale, o.rotation = "torso", "torso", "none"
  local ok, track = pcall(motion.track, sequence, o)
  if not ok then return nil, log.reason(track) end
  return profile.measure(profile.steady(track))
end

--- Statistics as they stand in a detector file: numbers that are there, and whose they are.
---@param rows Movement[]
---@return table[]
function profile.pack(rows)
  local list = {}
  for i, r in ipairs(rows) do
    list[i] = { subject = r.subject }
    for _, s in ipairs(profile.STATISTICS) do
      local v = r[s.key]
      if v and v - v == 0 then list[i][s.key] = v end
    end
  end
  return list
end

--- Calibrates on what `pack` gave; leaves each subject out once.
---@param list any from a file
---@return ProfileCalibration? nil where the file holds no usable statistics
function profile.unpack(list)
  if type(list) ~= "table" or #list < profile.LEAST or #list > 10000 then return nil end
  local rows = {}
  for i, given in ipairs(list) do
    if type(given) ~= "table" then return nil end
    rows[i] = { subject = type(given.subject) == "string" and given.subject or nil }
    for _, s in ipairs(profile.STATISTICS) do
      local v = given[s.key]
      rows[i][s.key] = type(v) == "number" and v - v == 0 and math.abs(v) < 1e6 and v or 0 / 0
    end
  end
  return profile.enough(rows) and profile.calibrate(rows) or nil
end

--- A verdict in one line.
---@param v ProfileVerdict
---@return string
function profile.line(v)
  if v.abnormal == nil then return "not scored, too little of the body is seen" end
  return ("%s, %.2f SD from the normals, p %.3g (smallest possible %.3g)%s [p %.2g if normals are normally distributed]"):format(v.word, v.distance, v.p,
    v.smallest_p, #v.words > 0 and ": " .. table.concat(v.words, "; ") or "", v.student)
end

return profile
