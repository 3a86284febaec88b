-- A sequence: the landmarks of one recording with its rate, size and skeleton; and the plain x, y track taken from it.
-- z, world coordinates and everything beyond x, y and a score are never read.

local ffi = require "ffi"
local body = require "libration.motion.body"
local skeletons = require "libration.pose.skeletons"

local Sequence = {}
Sequence.__index = Sequence

---@class Sequence
---@field id string
---@field points Tensor [T,J,C>=2] x, y, ...; NaN where a joint is missing
---@field skeleton string
---@field fps number frames per second
---@field width number? pixels
---@field height number? pixels
---@field times number[]? seconds, one a frame; nil: frame number / fps
---@field score_channel integer? position from 1 of a score or visibility in C

---@class Track
---@field frames integer
---@field joints integer
---@field x ffi.cdata* double[frames*joints*2], pixels or torso lengths; NaN where missing
---@field fps number
---@field times number[]? seconds
---@field start number seconds of the first frame
---@field names string[]
---@field roles table<string, integer>

--- Where each layout keeps its score: [T,J,3] is x, y, score, but x, y, z for BlazePose; [T,J,>=4] is x, y, z, visibility.
---@param skeleton string
---@param channels integer
---@return integer? position from 1
function Sequence.score_channel_of(skeleton, channels)
  if channels >= 4 then return 4 end
  if channels == 3 and skeleton ~= "blazepose33" then return 3 end
  return nil
end

--- Makes a sequence, checking shape and skeleton.
---@param t table {points, id?, skeleton?, fps?, width?, height?, times?, source?}
---@return Sequence
function Sequence.new(t)
  local points = t.points
  local shape = points and points.shape
  if not shape or #shape ~= 3 or shape[3] < 2 then
    error(("sequence %s: points are [%s], want [T,J,C>=2]"):format(tostring(t.id), shape and table.concat(shape, ",") or "nil"), 2)
  end
  if shape[1] < 1 then error(("sequence %s: no frames"):format(tostring(t.id)), 2) end
  local skeleton = t.skeleton and skeletons.get(t.skeleton) or skeletons.of_size(shape[2])
  if not skeleton then
    error(("sequence %s: %d joints fit no skeleton known by size; name one with --skeleton (%s)"):format(
      tostring(t.id), shape[2], table.concat(skeletons.names(), ", ")), 2)
  end
  if #skeleton.joints ~= shape[2] then
    error(("sequence %s: %d joints, but skeleton %s has %d"):format(tostring(t.id), shape[2], skeleton.name, #skeleton.joints), 2)
  end
  local fps = t.fps or 25
  if not (fps > 0 and fps < 1e6) then error(("sequence %s: %s frames per second"):format(tostring(t.id), tostring(fps)), 2) end
  if t.times and #t.times ~= shape[1] then
    error(("sequence %s: %d times for %d frames"):format(tostring(t.id), #t.times, shape[1]), 2)
  end
  local self = setmetatable({
    id = tostring(t.id or "?"), points = points, skeleton = skeleton.name, fps = fps, width = t.width, height = t.height,
    times = t.times, source = t.source, names = skeleton.joints,
    score_channel = t.score_channel or Sequence.score_channel_of(skeleton.name, shape[3]),
  }, Sequence)
  return self
end

--- Time of a frame.
---@param frame integer from 0
---@return number seconds
function Sequence:time(frame)
  return self.times and self.times[frame + 1] or frame / self.fps
end

--- How x and y become pixels: (value + offset) * factor.
---@param coordinates "pixels"|"unit"|"centred"|nil
---@return number sx, number sy, number offset
function Sequence:to_pixels(coordinates)
  if coordinates == nil or coordinates == "pixels" then return 1, 1, 0 end
  if not (self.width and self.height) then
    error(("sequence %s: --coordinates %s needs --size WIDTHxHEIGHT"):format(self.id, coordinates), 3)
  end
  if coordinates == "centred" then return self.width, self.height, .5 end
  if coordinates == "unit" then return self.width, self.height, 0 end
  error(("coordinates: %q, want pixels, unit (x / width) or centred (x / width - 0.5)"):format(tostring(coordinates)), 3)
end

--- Takes x and y of the chosen joints, in pixels; a joint whose x or y is not finite, or whose score is not above
--- `min_score`, is missing (NaN).
---@param options table? {joints: string?, coordinates: "pixels"|"unit"|"centred"?, min_score: number?}
---@return Track
function Sequence:track(options)
  options = options or {}
  local shape = self.points.shape
  local T, J, C = shape[1], shape[2], shape[3]
  local keep = body.choose(options.joints, self.skeleton, self.names)
  local sx, sy, offset = self:to_pixels(options.coordinates)
  local points = self.points
  if points.dtype ~= "f64" then points = points:to("f64") end
  points = points:contiguous()
  local p = points:ptr()
  local channel, least = self.score_channel, options.min_score or 0
  local n = #keep
  local x = ffi.new("double[?]", T * n * 2)
  local largest, nan = 0, 0 / 0
  for k = 1, n do
    local j = keep[k] - 1
    for t = 0, T - 1 do
      local at, to = (t * J + j) * C, (t * n + k - 1) * 2
      local a, b = p[at], p[at + 1]
      -- a - a is NaN for NaN and for infinity
      local seen = a - a == 0 and b - b == 0
      if channel and seen then seen = p[at + channel - 1] > least end
      if seen then
        largest = math.max(largest, math.abs(a), math.abs(b))
        x[to], x[to + 1] = (a + offset) * sx, (b + offset) * sy
      else
        x[to], x[to + 1] = nan, nan
      end
    end
  end
  if largest > 0 and largest <= 1.5 and (options.coordinates or "pixels") == "pixels" then
    error(("sequence %s: no coordinate exceeds %.3g, so these are no pixels; say --coordinates unit or centred, with --size"):format(
      self.id, largest), 2)
  end
  local names = {}
  for k = 1, n do names[k] = self.names[keep[k]] end
  local track = {
    frames = T, joints = n, x = x, fps = self.fps, times = self.times, names = names, roles = body.roles(names),
    width = self.width, height = self.height, id = self.id, start = self.times and self.times[1] or 0,
  }
  return track, points -- points is returned so that it outlives p
end

return Sequence
