-- Motion: from landmarks to windows of features, one call for the whole chain. Knows no models and no files.

local Sequence = require "libration.motion.sequence"
local gaps = require "libration.motion.gaps"
local outliers = require "libration.motion.outliers"
local resample = require "libration.motion.resample"
local normalise = require "libration.motion.normalise"
local features = require "libration.motion.features"
local Windows = require "libration.motion.windows"

local motion = {
  Sequence = Sequence, Windows = Windows, WindowReader = require "libration.motion.window_reader", gaps = gaps, outliers = outliers, resample = resample,
  normalise = normalise, augment = require "libration.motion.augment", features = features, body = require "libration.motion.body",
  statistics = require "libration.motion.statistics",
}

--- What `prepare` and the windows take, with defaults. Stored in a detector as it stands.
--- The defaults are those that did best with autoencoders trained on few normal recordings (torso-centred, each window minus its own mean).
motion.DEFAULTS = {
  joints = "default", coordinates = "pixels", min_score = 0,
  outliers = 0, gaps = "linear", max_gap = 1, rate = 0,
  root = "torso", scale = "torso", rotation = "none",
  features = "positions", mask = true, post = "window", window = 30, min_seen = .5,
}

--- Fills in what is missing from the defaults; an unknown name is an error.
---@param options table?
---@return table
function motion.options(options)
  local full = {}
  for k, v in pairs(motion.DEFAULTS) do full[k] = v end
  for k, v in pairs(options or {}) do
    if motion.DEFAULTS[k] == nil then error(("motion: unknown option %q"):format(tostring(k)), 2) end
    full[k] = v
  end
  return full
end

--- Landmarks to a normalised track: outliers, gaps, rate, root, size, rotation, in this order.
---@param sequence Sequence
---@param options table? see `motion.DEFAULTS`; rate 0 keeps the sequence's own
---@return Track track torso lengths
---@return table report {seen: share of joint positions seen, filled, removed, resampled, torso: pixels}
function motion.track(sequence, options)
  local o = motion.options(options)
  local track = sequence:track { joints = o.joints, coordinates = o.coordinates, min_score = o.min_score }
  local all = track.frames * track.joints
  local report = { seen = 1 - gaps.missing(track) / all }
  local _
  _, report.removed = outliers.remove(track, { threshold = o.outliers })
  _, report.filled = gaps.fill(track, { method = o.gaps, max_gap = o.max_gap })
  track, report.resampled = resample.to_rate(track, { rate = o.rate > 0 and o.rate or nil, max_jump = o.max_gap })
  normalise.apply(track, { root = o.root, scale = o.scale, rotation = o.rotation })
  report.torso, track.skeleton = track.torso_length, sequence.skeleton
  return track, report
end

--- Landmarks to features.
---@param sequence Sequence
---@param options table?
---@return Features
---@return table report as of `motion.track`
function motion.prepare(sequence, options)
  local o = motion.options(options)
  local track, report = motion.track(sequence, o)
  return features.of(track, o.features), report
end

--- Windows of several prepared sequences.
---@param list Features[]
---@param options table? as of `motion.DEFAULTS`
---@param stride integer?
---@return Windows
function motion.windows(list, options, stride)
  local o = motion.options(options)
  return Windows.of(list, { window = o.window, stride = stride or 1, min_seen = o.min_seen, post = o.post })
end

return motion
