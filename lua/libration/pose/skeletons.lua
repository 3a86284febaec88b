-- Skeletons as data (names, edges, mirror pairs, limbs) and conversion between them by name; nothing here finds a landmark or moves one.
local ffi = require "ffi"

local skeletons = {}

---@class Skeleton
---@field name string
---@field joints string[] name of each joint, position = index from 1
---@field index table<string, integer> name -> index from 1
---@field edges integer[][] bones to draw, pairs of indices from 1
---@field mirror integer[] mirror[j] = the joint that j becomes when left and right change places
---@field limbs table<string, integer[]> left_arm, right_arm, left_leg, right_leg, head, trunk -> indices; every joint is in exactly one
---@field torso table left_shoulder, right_shoulder, left_hip, right_hip -> index or nil

local limb_order = { "left_arm", "right_arm", "left_leg", "right_leg", "head", "trunk" }
skeletons.limbs = limb_order

-- One name for one place of the body, in every skeleton; a joint that others do not have keeps its own name.
local sources = {
  blazepose33 = {
    joints = [[nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer left_ear right_ear mouth_left mouth_right
      left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_pinky right_pinky left_index right_index left_thumb right_thumb
      left_hip right_hip left_knee right_knee left_ankle right_ankle left_heel right_heel left_foot_index right_foot_index]],
    edges = [[nose-left_eye_inner left_eye_inner-left_eye left_eye-left_eye_outer left_eye_outer-left_ear nose-right_eye_inner
      right_eye_inner-right_eye right_eye-right_eye_outer right_eye_outer-right_ear mouth_left-mouth_right left_shoulder-right_shoulder
      left_shoulder-left_elbow left_elbow-left_wrist left_wrist-left_pinky left_wrist-left_index left_wrist-left_thumb left_pinky-left_index
      right_shoulder-right_elbow right_elbow-right_wrist right_wrist-right_pinky right_wrist-right_index right_wrist-right_thumb
      right_pinky-right_index left_shoulder-left_hip right_shoulder-right_hip left_hip-right_hip left_hip-left_knee right_hip-right_knee
      left_knee-left_ankle right_knee-right_ankle left_ankle-left_heel right_ankle-right_heel left_heel-left_foot_index
      right_heel-right_foot_index left_ankle-left_foot_index right_ankle-right_foot_index]],
  },
  coco17 = {
    joints = [[nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist
      left_hip right_hip left_knee right_knee left_ankle right_ankle]],
    edges = [[nose-left_eye nose-right_eye left_eye-right_eye left_eye-left_ear right_eye-right_ear left_ear-left_shoulder
      right_ear-right_shoulder left_shoulder-right_shoulder left_shoulder-left_elbow left_elbow-left_wrist right_shoulder-right_elbow
      right_elbow-right_wrist left_shoulder-left_hip right_shoulder-right_hip left_hip-right_hip left_hip-left_knee left_knee-left_ankle
      right_hip-right_knee right_knee-right_ankle]],
  },
  openpose18 = {
    joints = [[nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee right_ankle
      left_hip left_knee left_ankle right_eye left_eye right_ear left_ear]],
    edges = [[neck-right_shoulder neck-left_shoulder right_shoulder-right_elbow right_elbow-right_wrist left_shoulder-left_elbow
      left_elbow-left_wrist neck-right_hip right_hip-right_knee right_knee-right_ankle neck-left_hip left_hip-left_knee left_knee-left_ankle
      neck-nose nose-right_eye right_eye-right_ear nose-left_eye left_eye-left_ear]],
  },
  openpose25 = {
    joints = [[nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist mid_hip right_hip right_knee right_ankle
      left_hip left_knee left_ankle right_eye left_eye right_ear left_ear left_foot_index left_small_toe left_heel right_foot_index
      right_small_toe right_heel]],
    edges = [[neck-mid_hip neck-right_shoulder neck-left_shoulder right_shoulder-right_elbow right_elbow-right_wrist left_shoulder-left_elbow
      left_elbow-left_wrist mid_hip-right_hip right_hip-right_knee right_knee-right_ankle mid_hip-left_hip left_hip-left_knee
      left_knee-left_ankle neck-nose nose-right_eye right_eye-right_ear nose-left_eye left_eye-left_ear left_ankle-left_foot_index
      left_foot_index-left_small_toe left_ankle-left_heel right_ankle-right_foot_index right_foot_index-right_small_toe
      right_ankle-right_heel]],
  },
  -- MINI-RGBD names a joint after the bone that begins there (leftThigh is the hip, leftCalf the knee); here it has the name of the place.
  minirgbd25 = {
    joints = [[mid_hip left_hip right_hip spine left_knee right_knee spine1 left_ankle right_ankle spine2 left_foot_index right_foot_index
      neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_index right_index nose]],
    edges = [[mid_hip-left_hip mid_hip-right_hip mid_hip-spine left_hip-left_knee right_hip-right_knee spine-spine1 left_knee-left_ankle
      right_knee-right_ankle spine1-spine2 left_ankle-left_foot_index right_ankle-right_foot_index spine2-neck spine2-left_collar
      spine2-right_collar neck-head left_collar-left_shoulder right_collar-right_shoulder left_shoulder-left_elbow right_shoulder-right_elbow
      left_elbow-left_wrist right_elbow-right_wrist left_wrist-left_index right_wrist-right_index head-nose]],
  },
}

local places = {
  shoulder = "arm", elbow = "arm", wrist = "arm", pinky = "arm", index = "arm", thumb = "arm",
  hip = "leg", knee = "leg", ankle = "leg", heel = "leg", foot_index = "leg", small_toe = "leg",
}
local head = { nose = true, head = true, mouth_left = true, mouth_right = true }

--- The limb that a joint belongs to, by its name.
---@param name string as in `Skeleton.joints`
---@return string one of `skeletons.limbs`
function skeletons.limb_of(name)
  local side, place = name:match("^(%a+)_(.+)$")
  if places[place] and (side == "left" or side == "right") then return side .. "_" .. places[place] end
  if head[name] or name:find("eye", 1, true) or name:find("_ear", 1, true) then return "head" end
  return "trunk"
end

local function mirrored(name)
  if name == "mouth_left" then return "mouth_right" elseif name == "mouth_right" then return "mouth_left" end
  local side, rest = name:match("^(%a+)_(.+)$")
  if side == "left" then return "right_" .. rest elseif side == "right" then return "left_" .. rest end
  return name
end

local function build(name, source)
  local s = { name = name, joints = {}, index = {}, edges = {}, mirror = {}, limbs = {}, torso = {} }
  for _, limb in ipairs(limb_order) do s.limbs[limb] = {} end
  for joint in source.joints:gmatch("%S+") do
    s.joints[#s.joints + 1] = joint
    s.index[joint] = #s.joints
    local limb = s.limbs[skeletons.limb_of(joint)]
    limb[#limb + 1] = #s.joints
  end
  for a, b in source.edges:gmatch("([%w_]+)%-([%w_]+)") do s.edges[#s.edges + 1] = { s.index[a], s.index[b] } end
  for j, joint in ipairs(s.joints) do s.mirror[j] = s.index[mirrored(joint)] end
  for _, joint in ipairs { "left_shoulder", "right_shoulder", "left_hip", "right_hip" } do s.torso[joint] = s.index[joint] end
  return s
end

local order = { "blazepose33", "coco17", "openpose18", "openpose25", "minirgbd25" }
for _, name in ipairs(order) do skeletons[name] = build(name, sources[name]) end

--- Names of the skeletons that are built in.
---@return string[]
function skeletons.names()
  return { unpack(order) }
end

--- A skeleton by name, or the one given.
---@param which string|Skeleton
---@return Skeleton
function skeletons.get(which)
  if type(which) == "table" and which.joints then return which end
  for _, name in ipairs(order) do
    if name == which then return skeletons[name] end
  end
  error(("skeletons.get: no skeleton %q; there are %s"):format(tostring(which), table.concat(order, ", ")), 2)
end

--- The skeleton that has J joints, where only one of the built-in ones does (25 joints: OpenPose's, the commoner one in files).
---@param joints integer
---@return Skeleton|nil
function skeletons.of_size(joints)
  for _, name in ipairs(order) do
    if #skeletons[name].joints == joints then return skeletons[name] end
  end
  return nil
end

-- Joints that a skeleton lacks but whose place is the mean of two that it has.
local means = { neck = { "left_shoulder", "right_shoulder" }, mid_hip = { "left_hip", "right_hip" } }

--- How each joint of one skeleton is made from another: plan[j] = {a} (copied), {a, b} (mean) or {} (absent).
---@param from string|Skeleton
---@param to string|Skeleton
---@return integer[][] plan indices from 1 into `from`
function skeletons.plan(from, to)
  from, to = skeletons.get(from), skeletons.get(to)
  local plan = {}
  for j, joint in ipairs(to.joints) do
    local pair = means[joint]
    if from.index[joint] then
      plan[j] = { from.index[joint] }
    elseif pair and from.index[pair[1]] and from.index[pair[2]] then
      plan[j] = { from.index[pair[1]], from.index[pair[2]] }
    else
      plan[j] = {}
    end
  end
  return plan
end

--- Landmarks of one skeleton as landmarks of another, joint by joint of the same name. Neck and mid hip, where absent, become the mean of both
--- shoulders or hips. A joint that cannot be had is NaN, with 0 in the columns that say how sure it is.
---@param landmarks Tensor f32 [T,J,C] C >= 2: x, y; 3: x, y, score; 4: x, y, z, visibility; 5: x, y, z, visibility, presence
---@param from string|Skeleton
---@param to string|Skeleton
---@return Tensor f32 [T,K,C]
function skeletons.convert(landmarks, from, to)
  from, to = skeletons.get(from), skeletons.get(to)
  local lr = require "libration.tensor"
  local shape = landmarks.shape
  if #shape ~= 3 or shape[2] ~= #from.joints or shape[3] < 2 then
    error(("skeletons.convert: landmarks are [%s], want [T,%d,C] with C >= 2 (%s)"):format(table.concat(shape, ","), #from.joints, from.name), 2)
  end
  local T, J, C, K = shape[1], shape[2], shape[3], #to.joints
  local out = lr.empty({ T, K, C })
  local source = landmarks:to("f32"):contiguous()
  local s, d = source:ptr(), out:ptr()
  -- columns from here on say how sure a joint is: a mean is as sure as the less sure of its two, an absent joint is 0
  local sure = C == 3 and 2 or C >= 4 and 3 or C
  local nan = 0 / 0
  for j, parts in ipairs(skeletons.plan(from, to)) do
    local a, b = parts[1], parts[2] or parts[1]
    for t = 0, T - 1 do
      local o = (t * K + j - 1) * C
      if not a then
        for c = 0, C - 1 do d[o + c] = c < sure and nan or 0 end
      else
        local pa, pb = (t * J + a - 1) * C, (t * J + b - 1) * C
        for c = 0, C - 1 do
          local u, v = s[pa + c], s[pb + c]
          if c < sure then d[o + c] = a == b and u or (u + v) / 2 else d[o + c] = u < v and u or v end
        end
      end
    end
  end
  return out
end

-- Joints of the MINI-RGBD files in their order, as its documentation names them.
skeletons.minirgbd25.documented = {}
for name in ([[global leftThigh rightThigh spine leftCalf rightCalf spine1 leftFoot rightFoot spine2 leftToes rightToes neck leftShoulder
    rightShoulder head leftUpperArm rightUpperArm leftForeArm rightForeArm leftHand rightHand leftFingers rightFingers noseVertex]]):gmatch("%S+") do
  table.insert(skeletons.minirgbd25.documented, name)
end

--- Mirrors landmarks: x becomes width - x and left and right joints change places.
---@param landmarks Tensor f32 [T,J,C] x in pixels
---@param skeleton string|Skeleton
---@param width number pixels; 0 mirrors about x = 0
---@return Tensor f32 [T,J,C]
function skeletons.mirror(landmarks, skeleton, width)
  skeleton = skeletons.get(skeleton)
  local lr = require "libration.tensor"
  local shape = landmarks.shape
  if #shape ~= 3 or shape[2] ~= #skeleton.joints then
    error(("skeletons.mirror: landmarks are [%s], want [T,%d,C] (%s)"):format(table.concat(shape, ","), #skeleton.joints, skeleton.name), 2)
  end
  local T, J, C = shape[1], shape[2], shape[3]
  local out, source = lr.empty({ T, J, C }), landmarks:to("f32"):contiguous()
  local s, d = source:ptr(), out:ptr()
  for j = 1, J do
    local k = skeleton.mirror[j]
    for t = 0, T - 1 do
      local from, to = (t * J + k - 1) * C, (t * J + j - 1) * C
      ffi.copy(d + to, s + from, C * 4)
      d[to] = width - d[to]
    end
  end
  return out
end

return skeletons
