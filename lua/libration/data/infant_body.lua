-- The rendered infant's skeleton: proportions, posture and joint limits that turn 14 angles into 25 joints in space, and the camera. No colours here.
local ffi = require "ffi"

local body = {}

local sin, cos, sqrt, rad, asin = math.sin, math.cos, math.sqrt, math.rad, math.asin

--- Joints in the order of MINI-RGBD (Hesse et al. 2018), named after the bone that begins there.
body.JOINTS = {
  "global", "leftThigh", "rightThigh", "spine", "leftCalf", "rightCalf", "spine1", "leftFoot", "rightFoot", "spine2", "leftToes", "rightToes",
  "neck", "leftShoulder", "rightShoulder", "head", "leftUpperArm", "rightUpperArm", "leftForeArm", "rightForeArm", "leftHand", "rightHand",
  "leftFingers", "rightFingers", "noseVertex",
}
--- One unit of length in metres: an infant of some three months is about one unit long.
body.METRES = 0.6
--- Height of the blanket under the middle of the body.
body.FLOOR = -0.088
-- Mid shoulders to mid hips, in units: the torso of which pictures are scaled.
local TORSO = 0.33

-- For each limb (right arm, left arm, right leg, left leg): joints of root, middle, end and tip, counted from 0.
local CHAINS = {{17, 19, 21, 23}, {16, 18, 20, 22}, {2, 5, 8, 11}, {1, 4, 7, 10}}

--- A body: its proportions, resting posture and place in the picture.
---@param rng table a stream of dice
---@return table body
function body.new(rng)
  local b = {rest = {}, length = {}}
  b.torso = rng:uniform(54, 66)                       -- pixels in a picture of 320x240
  for i = 1, 8 do b.length[i] = 1 + 0.05 * math.max(-2, math.min(2, rng:normal())) end
  for i = 1, 12 do b.rest[i] = rad(14) * math.max(-2, math.min(2, rng:normal())) end
  b.turn = rad(rng:uniform(-25, 25))
  b.x, b.y = rng:uniform(-20, 20), rng:uniform(-12, 12)
  b.plump = rng:uniform(1, 1.13)
  b.head = rng:uniform(1.04, 1.13)
  b.gaze = rad(rng:uniform(-9, 9))
  return b
end

-- max(a, b) and min(a, b) with a rounded corner of width k
local function soft_max(a, b, k)
  local h = k - math.abs(a - b)
  if h < 0 then h = 0 end
  return (a > b and a or b) + h * h / (4 * k)
end
local function soft_min(a, b, k) return -soft_max(-a, -b, k) end
local function within(x, lo, hi, k) return soft_min(soft_max(x, rad(lo), rad(k)), rad(hi), rad(k)) end

-- Elevation of a bone of some length that starts at height z, such that its end stays above the blanket.
local function lifted(el, z, length, clearance)
  local s = soft_max(sin(el), (body.FLOOR + clearance - z) / length, 0.15)
  return asin(s > 0.98 and 0.98 or s < -0.98 and -0.98 or s)
end

--- Room for a pose: joints [25][3] in units (x right, y down the picture, z up), axes of trunk and head (rows right, down, out).
---@return table pose
function body.new_pose()
  return {joints = ffi.new("double[75]"), trunk = ffi.new("double[9]"), head_axes = ffi.new("double[9]"), skull = ffi.new("double[3]")}
end

local function put(joints, i, x, y, z)
  joints[3 * i], joints[3 * i + 1], joints[3 * i + 2] = x, y, z
end

-- Turns rows of points or axes in the picture's plane about (0, 0).
local function turn(a, first, last, c, s)
  for i = first, last do
    local x, y = a[3 * i], a[3 * i + 1]
    a[3 * i], a[3 * i + 1] = x * c - y * s, x * s + y * c
  end
end

--- Where everything is for one set of angles.
---@param b table body
---@param q number[] 14 radians: excursions from rest (right arm, left arm, right leg, left leg x in plane, out of plane, flexion; head; trunk)
---@param pose table from new_pose, written
---@return table pose
function body.pose(b, q, pose)
  local j = pose.joints
  local roll = q[14]
  local cr, sr = cos(roll), sin(roll)
  -- the trunk, rolled about its long axis; it rests on the blanket
  put(j, 0, 0, 0.15, 0)
  put(j, 3, 0, 0.08, 0)
  put(j, 6, 0, 0, 0)
  put(j, 9, 0, -0.08, 0)
  put(j, 12, 0, -0.2, 0)
  for side = 0, 1 do
    local s = side == 0 and 1 or -1                   -- the infant's left is on the right of the picture
    put(j, 1 + side, s * 0.062 * cr, 0.18, -s * 0.062 * sr)
    put(j, 13 + side, s * 0.05 * cr, -0.165, -s * 0.05 * sr)
    put(j, 16 + side, s * 0.115 * cr, -0.15, -s * 0.115 * sr)
  end
  local trunk = pose.trunk
  trunk[0], trunk[1], trunk[2] = cr, 0, -sr
  trunk[3], trunk[4], trunk[5] = 0, 1, 0
  trunk[6], trunk[7], trunk[8] = sr, 0, cr
  for l = 1, 4 do
    local leg, s = l > 2, (l % 2 == 0) and 1 or -1
    local chain, at = CHAINS[l], 3 * (l - 1)
    local az, el, fl = q[at + 1] + b.rest[at + 1], q[at + 2] + b.rest[at + 2], q[at + 3] + b.rest[at + 3]
    local az2, el2, upper, lower, clear1, clear2
    if leg then
      upper, lower, clear1, clear2 = 0.16, 0.15, 0.05, 0.032
      az, el, fl = within(az + rad(38), 6, 80, 12), within(el + rad(24), 0, 58, 12), within(fl - rad(48), -105, -20, 12)
      az2, el2 = within(az + fl, -38, 75, 12), within(0.9 * (el + fl), -50, 40, 12)
    else
      upper, lower, clear1, clear2 = 0.135, 0.115, 0.036, 0.028
      az, el, fl = within(az + rad(72), 18, 140, 12), within(el + rad(16), -4, 52, 12), within(fl + rad(58), 8, 125, 12)
      az2, el2 = within(az + fl, 30, 172, 14), within(0.6 * el + 0.15 * fl, -4, 50, 12)
    end
    upper, lower = upper * b.length[2 * l - 1], lower * b.length[2 * l]
    local root, mid, fin, tip = chain[1], chain[2], chain[3], chain[4]
    local x, y, z = j[3 * root], j[3 * root + 1], j[3 * root + 2]
    el = lifted(el, z, upper, clear1)
    x, y, z = x + upper * s * sin(az) * cos(el), y + upper * cos(az) * cos(el), z + upper * sin(el)
    put(j, mid, x, y, z)
    el2 = lifted(el2, z, lower, clear2)
    local ux, uy, uz = s * sin(az2) * cos(el2), cos(az2) * cos(el2), sin(el2)
    x, y, z = x + lower * ux, y + lower * uy, z + lower * uz
    put(j, fin, x, y, z)
    local tx, ty, tz, reach
    if leg then tx, ty, tz, reach = 0.6 * ux + 0.35 * s, 0.6 * uy, 0.6 * uz + 0.6, 0.062
    else tx, ty, tz, reach = ux, uy, uz + 0.15, 0.056 end
    local norm = reach / sqrt(tx * tx + ty * ty + tz * tz)
    put(j, tip, x + tx * norm, y + ty * norm, z + tz * norm)
  end
  -- the head tilts in the plane and turns about the long axis
  local tilt, yaw = within(0.5 * q[13], -22, 22, 10), within(b.gaze + 0.7 * q[13], -27, 27, 10)
  put(j, 15, 0.06 * sin(tilt), -0.2 - 0.06 * cos(tilt), 0.01)
  local skull, a = pose.skull, pose.head_axes
  skull[0], skull[1], skull[2] = 0.13 * sin(tilt), -0.2 - 0.13 * cos(tilt), 0.1 * b.head + body.FLOOR - 0.006
  local cy, sy, ct, st = cos(yaw), sin(yaw), cos(tilt), sin(tilt)
  a[0], a[1], a[2] = ct * cy, st * cy, -sy
  a[3], a[4], a[5] = -st, ct, 0
  a[6], a[7], a[8] = ct * sy, st * sy, cy
  local ny, nz = 0.03 * b.head, 0.112 * b.head
  put(j, 24, skull[0] + a[3] * ny + a[6] * nz, skull[1] + a[4] * ny + a[7] * nz, skull[2] + a[5] * ny + a[8] * nz)
  local angle = b.turn + 0.5 * roll
  local c, s = cos(angle), sin(angle)
  turn(j, 0, 24, c, s)
  turn(skull, 0, 0, c, s)
  turn(a, 0, 2, c, s)
  turn(trunk, 0, 2, c, s)
  return pose
end

--- The camera above the body for a picture size: the torso takes the body's share of the picture's smaller side.
---@param b table body
---@param width integer pixels
---@param height integer pixels
---@return table camera focal [pixels], distance [units above z = 0], cx, cy [pixels: where the middle of the body appears]
function body.camera(b, width, height)
  local side = math.min(width * 0.75, height)
  local focal = 2.08 * side
  return {focal = focal, distance = focal * TORSO / (b.torso * side / 240), cx = width / 2 + b.x * side / 240, cy = height / 2 + b.y * side / 240}
end

--- A joint in the picture.
---@param camera table
---@param joints ffi.cdata* double[75]
---@param i integer joint, from 0
---@return number x pixels; the picture's left edge is 0
---@return number y pixels; its top edge is 0
---@return number depth units from the camera along its axis
function body.project(camera, joints, i)
  local depth = camera.distance - joints[3 * i + 2]
  return camera.cx + camera.focal * joints[3 * i] / depth, camera.cy + camera.focal * joints[3 * i + 1] / depth, depth
end

return body
