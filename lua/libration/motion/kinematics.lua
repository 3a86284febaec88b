-- Kinematics of a recording: range, path, speed, acceleration, jerk, joint angles and left-right correlation, joint by joint. Describes; judges nothing.
-- Positions are those of the picture's plane, centred on the body (mean of shoulders and hips), so movement towards the camera is not in them.

local ffi = require "ffi"
local log = require "libration.log"
local lr = require "libration.tensor"
local smoothing = require "libration.pose.smoothing"
local statistics = require "libration.motion.statistics"
local gaps = require "libration.motion.gaps"
local motion = require "libration.motion"

local kinematics = {}

--- Cut-off of the zero-phase Butterworth that positions pass before anything is differentiated, Hz (pose/smoothing.lua; as --smooth offline).
kinematics.CUTOFF = 6
-- Percentiles between which a range lies, and the one that stands for a peak.
local LOW, HIGH = 5, 95
-- A number needs this many seconds in which it can be seen.
local LEAST = 1

-- The joint at which an angle is taken: one end, the joint, the other end; of both sides.
local ANGLES = { elbow = { "shoulder", "wrist" }, shoulder = { "elbow", "hip" }, hip = { "shoulder", "knee" }, knee = { "hip", "ankle" } }

---@class KinematicsRow lengths in the unit; NaN where too little is seen
---@field joint string
---@field seen number share of the frames in which the joint is seen, before gaps are filled
---@field range_x number distance of the 5th from the 95th percentile
---@field range_y number
---@field range number diagonal of that box
---@field path number length of the way over the frames that are there
---@field speed number mean, a second
---@field peak_speed number 95th percentile
---@field acceleration number mean magnitude, a second squared
---@field jerk number mean magnitude, a second cubed
---@field correlation number Pearson's, of the speeds of this joint and of the other side's
---@field angle number? mean angle at this joint in degrees, 180 straight, in the picture's plane: elbow (shoulder, wrist), shoulder (elbow, hip of the same
---  side), hip (shoulder, knee), knee (hip, ankle)
---@field angle_range number? 5th to 95th percentile, degrees
---@field angle_sd number? degrees
---@field angular_speed number? mean, degrees a second

kinematics.COLUMNS = {
  "joint", "unit", "seen", "range_x", "range_y", "range", "path", "speed", "peak_speed", "acceleration", "jerk", "correlation", "angle", "angle_range", "angle_sd",
  "angular_speed",
}

-- Values that are there.
local function there(values)
  local list = {}
  for i = 1, #values do
    if values[i] == values[i] then list[#list + 1] = values[i] end
  end
  return list
end

local function mean_of(values, least)
  values = there(values)
  return #values >= least and statistics.mean(values) or 0 / 0
end

local function extent(values, least)
  values = there(values)
  return #values >= least and statistics.percentile(values, HIGH) - statistics.percentile(values, LOW) or 0 / 0
end

-- Angle at b between a and c by frame, degrees.
local function angles(a, b, c)
  local out = {}
  for t = 1, #b.x do
    local ux, uy, vx, vy = a.x[t] - b.x[t], a.y[t] - b.y[t], c.x[t] - b.x[t], c.y[t] - b.y[t]
    out[t] = math.deg(math.abs(math.atan2(ux * vy - uy * vx, ux * vx + uy * vy)))
    if not (ux * ux + uy * uy > 0 and vx * vx + vy * vy > 0) then out[t] = 0 / 0 end
  end
  return out
end

local function measure_angle(row, values, fps, least)
  local seen = there(values)
  if #seen < least then return end
  row.angle, row.angle_sd, row.angle_range = statistics.mean(seen), statistics.deviation(seen), extent(values, least)
  local rates = {}
  for t = 1, #values - 1 do rates[t] = math.abs(values[t + 1] - values[t]) * fps end
  row.angular_speed = mean_of(rates, least)
end

local function correlation(a, b, least)
  local u, v = {}, {}
  for t = 1, #a do
    if a[t] == a[t] and b[t] == b[t] then u[#u + 1], v[#v + 1] = a[t], b[t] end
  end
  return #u >= least and statistics.correlation(u, v) or 0 / 0
end

--- Measures a track.
---@param track Track torso-centred, in torso lengths, gaps filled as the caller likes
---@param options table? {scale: number centimetres that a torso length measures (nil: results in torso lengths); seen: number[] by joint; cutoff: number Hz}
---@return KinematicsRow[] rows in the track's order, with the fields unit ("torso lengths" or "cm"), seconds and smoothing (in words)
function kinematics.measure(track, options)
  options = options or {}
  local T, J, fps = track.frames, track.joints, track.fps
  local scale, cutoff = options.scale or 1, options.cutoff or kinematics.CUTOFF
  local least = math.max(4, LEAST * fps)
  local points = lr.empty({ T, J, 2 }, "f32")
  local p = points:ptr()
  for i = 0, T * J * 2 - 1 do p[i] = track.x[i] * scale end
  local smooth = smoothing.offline(points, fps, cutoff, 2)
  local q = smooth:ptr()
  local places, rows, speeds = {}, {}, {}
  for j = 1, J do
    local place = { x = {}, y = {} }
    for t = 0, T - 1 do place.x[t + 1], place.y[t + 1] = q[(t * J + j - 1) * 2], q[(t * J + j - 1) * 2 + 1] end
    places[j], speeds[j] = place, statistics.magnitude(place.x, place.y, 1, fps)
  end
  for j, name in ipairs(track.names) do
    local place, row = places[j], { joint = name, seen = options.seen and options.seen[j] or #there(places[j].x) / T }
    row.range_x, row.range_y = extent(place.x, least), extent(place.y, least)
    row.range = math.sqrt(row.range_x ^ 2 + row.range_y ^ 2)
    row.speed = mean_of(speeds[j], least)
    local moving = there(speeds[j])
    row.path, row.peak_speed = 0 / 0, 0 / 0
    if #moving >= least then row.path, row.peak_speed = row.speed * #moving / fps, statistics.percentile(moving, HIGH) end
    row.acceleration = mean_of(statistics.magnitude(place.x, place.y, 2, fps), least)
    row.jerk = mean_of(statistics.magnitude(place.x, place.y, 3, fps), least)
    local side, part = name:match("^(%a+)_(.+)$")
    local other = side == "left" and "right" or side == "right" and "left"
    local twin = other and track.roles[other .. "_" .. part]
    row.correlation = twin and correlation(speeds[j], speeds[twin], least) or 0 / 0
    local ends = other and ANGLES[part]
    local a, c = ends and track.roles[side .. "_" .. ends[1]], ends and track.roles[side .. "_" .. ends[2]]
    if a and c then measure_angle(row, angles(places[a], place, places[c]), fps, least) end
    rows[j] = row
  end
  rows.unit, rows.seconds = options.scale and "cm" or "torso lengths", T / fps
  rows.smoothing = cutoff < fps / 2 * .95 and ("zero-phase Butterworth, %g Hz"):format(cutoff) or "none, the frame rate is too low for one"
  return rows
end

--- Measures a sequence: gaps filled and rate evened as the motion options say, always torso-centred and in torso lengths.
---@param sequence Sequence
---@param options table? {motion: options of `libration.motion`, scale, cutoff: as of `measure`}
---@return KinematicsRow[]|nil rows, or nil and the reason: no frame shows the torso
---@return string? reason
function kinematics.of_sequence(sequence, options)
  options = options or {}
  local o = motion.options(options.motion)
  o.root, o.scale, o.rotation = "torso", "torso", "none"
  local ok, track = pcall(motion.track, sequence, o)
  if not ok then return nil, log.reason(track) end
  local raw, seen = sequence:track { joints = o.joints, coordinates = o.coordinates, min_score = o.min_score }, {}
  for j = 1, raw.joints do
    local one = { frames = raw.frames, joints = 1, x = ffi.new("double[?]", raw.frames * 2) }
    for t = 0, raw.frames - 1 do
      one.x[2 * t], one.x[2 * t + 1] = raw.x[(t * raw.joints + j - 1) * 2], raw.x[(t * raw.joints + j - 1) * 2 + 1]
    end
    seen[j] = 1 - gaps.missing(one) / raw.frames
  end
  return kinematics.measure(track, { scale = options.scale, cutoff = options.cutoff, seen = seen })
end

--- Writes kinematics.csv: a row a joint.
---@param path string
---@param rows KinematicsRow[]
---@return string path
function kinematics.write(path, rows)
  local out = {}
  for i, row in ipairs(rows) do
    out[i] = {}
    for k, name in ipairs(kinematics.COLUMNS) do
      local v = row[name]
      if name == "unit" then v = rows.unit end
      out[i][k] = v == nil and "" or v
    end
  end
  return require("libration.formats.csv").save(path, kinematics.COLUMNS, out, "%.6g")
end

--- Centimetres a torso length measures, from an option's text: "12.5" or "12.5cm".
---@param text string
---@return number|nil centimetres; nil where the text is empty
---@return string? reason
function kinematics.scale_of(text)
  if text == "" then return nil end
  local value = tonumber((text:gsub("%s*cm$", "")))
  if not value or not (value >= .1 and value <= 1000) then return nil, ("'%s' is no torso length in centimetres, as 12.5cm"):format(text) end
  return value
end

return kinematics
