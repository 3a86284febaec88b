-- Numbers a model sees of each frame: positions, velocities or both of each joint, or the direction of each bone. z never enters; masks come with the windows.

local ffi = require "ffi"
local skeletons = require "libration.pose.skeletons"

local features = {}

--- Kinds in the order of an option's choices.
features.KINDS = { "positions", "velocities", "both", "angles" }

-- Numbers a joint (of angles: a bone) contributes, mask aside.
local PER_JOINT = { positions = 2, velocities = 2, both = 4, angles = 2 }

-- Velocities beside positions are scaled to about the same spread.
local VELOCITY_WEIGHT = .3

---@class Features
---@field frames integer
---@field size integer D numbers a frame
---@field joints integer joints, or bones
---@field per_joint integer D / joints
---@field names string[] of the joints; of a bone "left_elbow-left_wrist"
---@field values ffi.cdata* double[frames*D], joint by joint; NaN where missing
---@field track Track the normalised track they were taken from

--- The bones of a skeleton between the joints used, in the skeleton's order.
---@param skeleton string
---@param names string[] joints used
---@return table[] {from, to: positions in names from 1, name}
function features.bones(skeleton, names)
  local sk, at, list = skeletons.get(skeleton), {}, {}
  for j, name in ipairs(names) do at[name] = j end
  for _, edge in ipairs(sk.edges) do
    local a, b = sk.joints[edge[1]], sk.joints[edge[2]]
    if at[a] and at[b] then list[#list + 1] = { from = at[a], to = at[b], name = a .. "-" .. b } end
  end
  return list
end

--- Names of what a kind of features describes: joints, or bones.
---@param kind string
---@param skeleton string
---@param names string[] joints used
---@return string[] names
---@return integer per numbers a name
function features.units(kind, skeleton, names)
  if kind ~= "angles" then return names, PER_JOINT[kind] end
  local list = {}
  for i, bone in ipairs(features.bones(skeleton, names)) do list[i] = bone.name end
  return list, PER_JOINT[kind]
end

-- Cosine and sine of each bone's direction in the picture: nothing of the body's place or size is left.
local function angles(track)
  local bones = features.bones(track.skeleton or "?", track.names)
  if #bones == 0 then error("features: angles want bones, and no two of the joints used are the ends of one", 3) end
  local T, J, n, x, names = track.frames, track.joints, #bones, track.x, {}
  local values = ffi.new("double[?]", T * n * 2)
  for i, bone in ipairs(bones) do
    names[i] = bone.name
    for t = 0, T - 1 do
      local a, b, to = (t * J + bone.from - 1) * 2, (t * J + bone.to - 1) * 2, (t * n + i - 1) * 2
      local dx, dy = x[b] - x[a], x[b + 1] - x[a + 1]
      local length = math.sqrt(dx * dx + dy * dy) -- both ends in one place have no direction: 0 / 0 is missing
      values[to], values[to + 1] = dx / length, dy / length
    end
  end
  return { frames = T, size = 2 * n, joints = n, per_joint = 2, names = names, values = values, track = track, kind = "angles" }
end

--- Takes features from a normalised track.
---@param track Track
---@param kind string? "positions" (default; x, y), "velocities" (torso lengths per second), "both" (velocities x 0.3) or "angles"
--- (cosine and sine of each bone's direction; the track's skeleton says which bones)
---@return Features
function features.of(track, kind)
  kind = kind or "positions"
  local per = PER_JOINT[kind]
  if not per then error(("features: kind is %q, want %s"):format(tostring(kind), table.concat(features.KINDS, ", ")), 2) end
  if kind == "angles" then return angles(track) end
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
  return { frames = T, size = J * per, joints = J, per_joint = per, names = track.names, values = values, track = track, kind = kind }
end

return features
