-- The embedded default data set: sequences of a rendered infant with exact joints, in the layout of MINI-RGBD. Shapes are drawn by scene.c.
local dice = require "libration.data.dice"
local movement = require "libration.data.infant_movement"
local body = require "libration.data.infant_body"
local look = require "libration.data.infant_look"

local infant = {}

infant.FPS = 25
infant.JOINTS = body.JOINTS
--- The landmarker's error that speeds are matched with: pixels at 320x240, as movement.landmark_noise spreads it over time.
infant.NOISE = 1.0
--- Mean measured joint speed of every kind, torso lengths a second, and the spread of its logarithm over the sequences of a kind.
infant.SPEED, infant.SPREAD = 0.9, 0.2

-- Purposes of the random streams of a sequence.
local BODY, LOOK, DRIVES, NOISE, ORDER = 1, 2, 3, 4, 5

-- The joints that movement.speed wants: nose, elbows, wrists, knees, ankles, shoulders, hips (left before right).
local POINTS = {24, 18, 19, 20, 21, 4, 5, 7, 8, 16, 17, 1, 2}

--- Which sequence moves how, and how fast.
---@param options table sequences, seed, abnormal {[number of the sequence] = kind}
---@return table[] rows {index, id "01", kind, label 0 normal / 1 abnormal, target torso lengths a second}
function infant.plan(options)
  local rows, kinds, order = {}, {}, {}
  for index, kind in pairs(options.abnormal or {}) do
    if type(index) ~= "number" or index % 1 ~= 0 or index < 1 or index > options.sequences then
      error(("no sequence %s; there are 1 to %d"):format(tostring(index), options.sequences), 2)
    end
    if not movement.kinds[kind] then
      error(("no movement %q; there are %s"):format(tostring(kind), table.concat(movement.names(), ", ")), 2)
    end
  end
  for index = 1, options.sequences do
    local kind = options.abnormal and options.abnormal[index] or "normal"
    rows[index] = {index = index, id = ("%02d"):format(index), kind = kind, label = kind == "normal" and 0 or 1}
    if not kinds[kind] then kinds[kind], order[#order + 1] = {}, kind end
    table.insert(kinds[kind], rows[index])
  end
  for at, kind in ipairs(order) do
    local targets = movement.targets(#kinds[kind], infant.SPEED, infant.SPREAD)
    dice.new(options.seed, 0, ORDER, at):shuffle(targets)
    for i, row in ipairs(kinds[kind]) do row.target = targets[i] end
  end
  return rows
end

local Sequence = {}
Sequence.__index = Sequence

-- Projects the 13 points of movement.speed for every frame.
local function track(self, gain, points)
  local q, pose, n = {}, self.pose, movement.POINTS
  for t = 1, self.frames do
    body.pose(self.body, movement.angles(self.drives, gain, t, q), pose)
    for k = 1, n do
      local x, y = body.project(self.camera, pose.joints, POINTS[k])
      local at = ((t - 1) * n + k - 1) * 2
      points[at + 1], points[at + 2] = x, y
    end
  end
  return points
end

--- One sequence: its body, looks and movement; the gain makes the measured speed (with a landmarker's noise) equal the row's target.
---@param row table of infant.plan
---@param options table frames (at least 2), width, height, seed
---@return table sequence id, kind, label, frames, width, height, body, look, camera, gain, speed measured, clean torso lengths a second
function infant.sequence(row, options)
  local seed, index, frames = options.seed, row.index, options.frames
  local self = setmetatable({
    id = row.id, index = index, kind = row.kind, label = row.label, target = row.target,
    frames = frames, width = options.width, height = options.height, seed = seed, fps = infant.FPS,
    body = body.new(dice.new(seed, index, BODY)),
    look = look.new(dice.new(seed, index, LOOK), index, dice.new(seed, 0, LOOK):pick(30)),
    drives = movement.drives(dice.new(seed, index, DRIVES), row.kind, frames, infant.FPS),
    pose = body.new_pose(),
  }, Sequence)
  self.camera = body.camera(self.body, self.width, self.height)
  local side = math.min(self.width * 0.75, self.height)
  local noise = movement.landmark_noise(dice.new(seed, index, NOISE), frames, movement.POINTS, infant.NOISE * side / 240)
  local points = {}
  self.gain = movement.match(function(gain) return movement.speed(track(self, gain, points), frames, infant.FPS, noise) end, row.target)
  track(self, self.gain, points)
  self.speed = movement.speed(points, frames, infant.FPS, noise)
  self.clean = movement.speed(points, frames, infant.FPS)
  return self
end

--- The pose of a frame; overwritten by the next call.
---@param t integer frame, from 1
---@return table pose joints double[75] in units, axes of trunk and head
function Sequence:at(t)
  return body.pose(self.body, movement.angles(self.drives, self.gain, t, {}), self.pose)
end

--- Exact joints of a frame in the picture.
---@param t integer frame, from 1
---@return number[][] joints [25]{x, y pixels (the corner is 0, 0), depth metres from the camera}
function Sequence:joints(t)
  local pose, out = self:at(t), {}
  for i = 0, 24 do
    local x, y, depth = body.project(self.camera, pose.joints, i)
    out[i + 1] = {x, y, depth * body.METRES}
  end
  return out
end

--- The text of a frame's joints file: x y depth id a line, as in MINI-RGBD.
---@param t integer frame, from 1
---@return string
function Sequence:joints_text(t)
  local lines = {}
  for i, j in ipairs(self:joints(t)) do lines[i] = ("%.4f %.4f %.5f %d\n"):format(j[1], j[2], j[3], i - 1) end
  return table.concat(lines)
end

--- Scenes of some frames, for lbr_scene_render and lbr_scene_write.
---@param first integer frame, from 1
---@param count integer
---@param room? table from an earlier call with at least this count, used again
---@return table room scenes lbr_scene[count]; keep it alive while the scenes are in use
function Sequence:scenes(first, count, room)
  if not room or room.count < count then room = look.room(count) end
  for i = 0, count - 1 do
    local t = first + i
    local pose = self:at(t)
    look.fill(room.scenes[i], room.primitives + i * look.PRIMITIVES, room.paints + i * look.PAINTS, self.look, self.body,
      pose, self.camera, (t - 1) / self.fps, (self.seed * 131071 + self.index * 8191 + t) % 4294967296)
  end
  return room
end

return infant
