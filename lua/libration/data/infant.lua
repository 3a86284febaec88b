-- The embedded default data set: sequences of a rendered infant with exact joints, in the layout of MINI-RGBD. Shapes are drawn by scene.c.
local core = require "libration.core"
local files = require "libration.files"
local tensor = require "libration.tensor"
local media = require "libration.media"
local dice = require "libration.data.dice"
local movement = require "libration.data.infant_movement"
local body = require "libration.data.infant_body"
local look = require "libration.data.infant_look"

local infant = {}

infant.FPS = 25
--- Raised whenever the same seed gives other pictures.
infant.GENERATOR = 2
--- The landmarker's error that speeds are matched with: pixels at 320x240, as movement.landmark_noise spreads it over time. With it the measured speeds
--- of six rendered sequences are within 5 % (median) of what MediaPipe 0.10.21 gives for their pictures.
infant.NOISE = 0.7
--- Mean measured joint speed of every kind, torso lengths a second, and the spread of its logarithm over the sequences of a kind.
infant.SPEED, infant.SPREAD = 0.6, 0.2

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
---@param row table of infant.plan; its `draw` (nil: the first), a number from 2, gives the same body and looks other movements of the same kind
---@param options table frames (at least 2), width, height, seed
---@return table sequence id, kind, label, frames, width, height, body, look, camera, gain, speed measured, clean torso lengths a second
function infant.sequence(row, options)
  local seed, index, frames = options.seed, row.index, options.frames
  local self = setmetatable({
    id = row.id, index = index, kind = row.kind, label = row.label, target = row.target,
    frames = frames, width = options.width, height = options.height, seed = seed, fps = infant.FPS,
    body = body.new(dice.new(seed, index, BODY)),
    look = look.new(dice.new(seed, index, LOOK), index, dice.new(seed, 0, LOOK):pick(30)),
    drives = movement.drives(dice.new(seed, index, DRIVES, unpack {row.draw}), row.kind, frames, infant.FPS),
    pose = body.new_pose(),
  }, Sequence)
  self.camera = body.camera(self.body, self.width, self.height)
  local side = math.min(self.width * 0.75, self.height)
  local noise = movement.landmark_noise(dice.new(seed, index, NOISE), frames, movement.POINTS, infant.NOISE * side / 240)
  local points, seen = {}, movement.kinds[row.kind].seen
  self.gain = movement.match(function(gain) return seen * movement.speed(track(self, gain, points), frames, infant.FPS, noise) end, row.target)
  track(self, self.gain, points)
  self.speed = seen * movement.speed(points, frames, infant.FPS, noise)
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
  media.library()                                     -- declares the structs
  if not room or room.count < count then room = look.room(count) end
  for i = 0, count - 1 do
    local t = first + i
    local pose = self:at(t)
    look.fill(room.scenes[i], room.primitives + i * look.PRIMITIVES, room.paints + i * look.PAINTS, self.look, self.body,
      pose, self.camera, (t - 1) / self.fps, (self.seed * 131071 + self.index * 8191 + t) % 4294967296)
  end
  return room
end

--- Pictures of some frames.
---@param first integer frame, from 1
---@param count integer
---@return Tensor u8 [count,height,width,3]
function Sequence:render(first, count)
  local rgb = tensor.empty({count, self.height, self.width, 3}, "u8")
  local room = self:scenes(first, count)
  core.check(media.library().lbr_scene_render(room.scenes, count, self.width, self.height, rgb:ptr()))
  return rgb
end

local function put(path, text)
  local file, why = io.open(path, "wb")
  local ok = file
  if file then ok, why = file:write(text) end
  if file then
    local closed, later = file:close()
    if not closed then ok, why = nil, later end
  end
  if not ok then error(("cannot write %s: %s"):format(path, tostring(why):match("[^:]*$"):gsub("^%s+", "")), 0) end
end

-- Pictures and joints of all frames, a few frames at once.
local function write_frames(self, partial, step)
  local BATCH = 16
  for _, part in ipairs {"rgb", "joints_2Ddep"} do assert(files.mkdirs(files.join(partial, part))) end
  local room
  for first = 1, self.frames, BATCH do
    local count, paths = math.min(BATCH, self.frames - first + 1), {}
    room = self:scenes(first, count, room)
    for i = 1, count do paths[i] = ("%s/rgb/syn_%05d.png\0"):format(partial, first + i - 2) end
    core.check(media.library().lbr_scene_write(room.scenes, count, self.width, self.height, table.concat(paths)))
    for t = first, first + count - 1 do
      put(("%s/joints_2Ddep/syn_joints_2Ddep_%05d.txt"):format(partial, t - 1), self:joints_text(t))
    end
    core.poll()
    if step then step(count) end
  end
end

--- Where the default data set of a seed lies in the user's cache folder.
---@param seed integer
---@return string folder
function infant.cached(seed) return files.cache("infants", ("generator%d-12x200-320x240-seed%d"):format(infant.GENERATOR, seed)) end

--- Writes the sequence's folder: rgb/syn_00000.png ... and joints_2Ddep/syn_joints_2Ddep_00000.txt ...; it appears whole or not at all.
---@param folder string that holds the sequences
---@param step? fun(frames: integer) called after each few frames
function Sequence:write(folder, step)
  local target, partial = files.join(folder, self.id), files.join(folder, "." .. self.id .. ".partial")
  files.remove(partial)
  local ok, why = pcall(write_frames, self, partial, step)
  if not ok then
    files.remove(partial)
    error(why, 0)
  end
  ok, why = os.rename(partial, target)
  if not ok then error(("cannot write %s: %s"):format(target, tostring(why)), 0) end
end

-- What decides every byte of a data set, as text.
local function recipe_of(options)
  local abnormal = {}
  for index, kind in pairs(options.abnormal or {}) do abnormal[#abnormal + 1] = ("%d:%s"):format(index, kind) end
  table.sort(abnormal)
  return ("{\"generator\": %d, \"sequences\": %d, \"frames\": %d, \"width\": %d, \"height\": %d, \"seed\": %d, \"fps\": %d, \"abnormal\": \"%s\"}\n"):format(
    infant.GENERATOR, options.sequences, options.frames, options.width, options.height, options.seed, infant.FPS, table.concat(abnormal, ","))
end

-- Renders what is missing of a data set into a folder that is ours.
local function write_sequences(folder, o, rows)
  local text, note = recipe_of(o), files.join(folder, ".render.json")
  local there = files.read(note)
  if there and there ~= text then
    error(("%s holds a data set rendered with other options (%s): take another folder"):format(folder, there:gsub("%s+$", "")), 0)
  elseif not there then
    for _, row in ipairs(rows) do
      if files.exists(files.join(folder, row.id)) then
        error(("%s is there already and was not rendered by this: take another folder"):format(files.join(folder, row.id)), 0)
      end
    end
    files.write(note, text)
  end
  local labels = {"sequence,label,kind\n"}
  for _, row in ipairs(rows) do
    local sequence = infant.sequence(row, o)
    row.speed, row.clean = sequence.speed, sequence.clean
    labels[#labels + 1] = ("%s,%d,%s\n"):format(row.id, row.label, row.kind)
    if files.is_folder(files.join(folder, row.id)) then
      if o.step then o.step(o.frames) end
    else
      sequence:write(folder, o.step)
    end
  end
  files.write(files.join(folder, "labels.csv"), table.concat(labels))
end

--- Renders a data set: a folder a sequence in the layout of MINI-RGBD, labels.csv (sequence, label, kind; 1 = abnormal) and .render.json. Sequences that
--- are there already stay as they are, so that a render that was cut short goes on.
---@param folder string made when missing
---@param options? table sequences (12), frames (200), width (320), height (240), seed (1), abnormal ({[12] = "burst"}), step fun(frames)
---@return table[] rows of infant.plan, with speed and clean (torso lengths a second)
function infant.write(folder, options)
  local o = {sequences = 12, frames = 200, width = 320, height = 240, seed = 1}
  for name, value in pairs(options or {}) do o[name] = value end
  o.abnormal = o.abnormal or (o.sequences >= 12 and {[12] = "burst"} or {})
  local rows = infant.plan(o)
  local lock, why = files.lock(folder)
  if not lock then error(why, 0) end
  local made
  made, why = pcall(write_sequences, folder, o, rows)
  lock:release()
  if not made then error(why, 0) end
  return rows
end

return infant
