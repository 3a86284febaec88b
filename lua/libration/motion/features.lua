-- Numbers a model sees of each frame: positions, velocities or both of each joint. z never enters; masks come with the windows.

local ffi = require "ffi"

local features = {}

-- Numbers a joint contributes, mask aside.
local PER_JOINT = { positions = 2, velocities = 2, both = 4 }

-- Velocities beside positions are scaled to about the same spread.
local VELOCITY_WEIGHT = .3

---@class Features
---@field frames integer
---@field size integer D numbers a frame
---@field joints integer
---@field per_joint integer D / joints
---@field values ffi.cdata* double[frames*D], joint by joint; NaN where missing
---@field track Track the normalised track they were taken from

--- Takes features from a normalised track.
---@param track Track
---@param kind string? "positions" (default; x, y), "velocities" (torso lengths per second) or "both" (velocities x 0.3)
---@return Features
function features.of(track, kind)
  kind = kind or "positions"
  local per = PER_JOINT[kind]
  if not per then error(("features: kind is %q, want positions, velocities or both"):format(tostring(kind)), 2) end
  local T, J, x = track.frames, track.joints, track.x
  local values = ffi.new("double[?]", T * J * per)
  local weight = track.fps * (kind == "both" and VELOCITY_WEIGHT or 1)
  for t = 0, T - 1 do
    -- the first frame takes the velocity of the second
    local now = math.min(math.max(t, 1), T - 1)
    local before = math.max(now - 1, 0)
    for j = 0, J - 1 do
      local to = (t * J + j) * per
      if kind ~= "velocities" then
        values[to], values[to + 1] = x[(t * J + j) * 2], x[(t * J + j) * 2 + 1]
        to = to + 2
      end
      if kind ~= "positions" then
        for c = 0, 1 do
          values[to + c] = (x[(now * J + j) * 2 + c] - x[(before * J + j) * 2 + c]) * weight
        end
      end
    end
  end
  return { frames = T, size = J * per, joints = J, per_joint = per, values = values, track = track, kind = kind }
end

return features
