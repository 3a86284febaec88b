-- Which joints of a skeleton form the torso, the limbs and the head. Knows names, not pixels.

local body = {}

--- The joints whose mean speed is "how much it moves": head and limbs, not the torso.
body.MOVING = {
  "nose", "right_elbow", "right_wrist", "left_elbow", "left_wrist",
  "right_knee", "right_ankle", "left_knee", "left_ankle",
}
--- The joints whose mean is the root.
body.ROOT = { "right_shoulder", "left_shoulder", "right_hip", "left_hip" }

-- Roles kept by default where a skeleton also has eyes, ears and toes that key-point detectors rarely see.
local BODY_ONLY = { openpose18 = true, openpose25 = true, coco17 = true }

-- The 14 places that every skeleton of a body has (COCO and BlazePose lack the neck).
local BODY = {
  "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
  "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
}

--- Positions of joints by name.
---@param names string[] joint names in order
---@return table<string, integer> roles name -> position from 1
function body.roles(names)
  local at = {}
  for i, name in ipairs(names) do at[name] = i end
  return at
end

local function body_joints(names)
  local wanted, keep = {}, {}
  for _, name in ipairs(BODY) do wanted[name] = true end
  for i, name in ipairs(names) do if wanted[name] then keep[#keep + 1] = i end end
  return keep
end

--- Joints that enter features when the caller names none: the 14 (COCO: 13) body joints of OpenPose and COCO, else all.
---@param skeleton string name of the skeleton
---@param names string[] its joint names
---@return integer[] positions from 1, ascending
function body.default_joints(skeleton, names)
  if BODY_ONLY[skeleton] then return body_joints(names) end
  local keep = {}
  for i = 1, #names do keep[i] = i end
  return keep
end

--- Reads "default", "all", "body" or names separated by commas.
---@param text string? as the option --joints takes it; nil and "default": as `default_joints`
---@param skeleton string
---@param names string[]
---@return integer[] positions from 1, in the order asked for
function body.choose(text, skeleton, names)
  if text == nil or text == "default" then return body.default_joints(skeleton, names) end
  if text == "body" then return body_joints(names) end
  local keep = {}
  if text == "all" then
    for i = 1, #names do keep[i] = i end
    return keep
  end
  local at = body.roles(names)
  for word in text:gmatch("[^,%s]+") do
    local i = at[word]
    if not i then
      error(("joints: %q is not a joint of %s; it has %s"):format(word, skeleton, table.concat(names, ", ")), 2)
    end
    keep[#keep + 1] = i
  end
  if #keep == 0 then error("joints: the list is empty", 2) end
  return keep
end

return body
