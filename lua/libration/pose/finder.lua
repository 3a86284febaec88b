-- Finds in each frame of a recording what is to be covered: faces, heads where the face network misses them, persons, or what a brought network finds.
-- Follows nothing from frame to frame but bodies; tracks.lua joins the answers, masks.lua makes shapes of them.
local device = require "libration.device"
local changes = require "libration.pose.changes"
local face = require "libration.pose.face"
local regions = require "libration.regions"

local finder = {}

local SURE = .6 -- score of a face that is believed at once
local WEAK = .5 -- of the least score: what goes on with a track, but makes none

---@class Finder
local Finder = {}
Finder.__index = Finder

--- Side of the tiles in which small faces are looked for: a third of the longer side, 320 pixels at least (a face of a tenth of a tile is found surely); 0, none,
--- in frames that are hardly larger than a tile.
---@param width integer pixels of the frame
---@param height integer
---@return integer
function finder.tile(width, height)
  local long = math.max(width, height)
  return long < 480 and 0 or math.max(320, math.ceil(long / 3))
end

--- Side of the tiles of a second look, that sees what the first one is too far away for: a twelfth of the longer side, 160 pixels at least, or a quarter of it in
--- frames where that is less, as faces have few pixels there.
---@param width integer pixels of the frame
---@param height integer
---@return integer
function finder.close_tile(width, height)
  local long = math.max(width, height)
  return math.ceil(math.max(math.min(160, long / 4), long / 12))
end

--- A finder for one recording.
---@param options? table detector "auto" (BlazeFace full range and BlazePose), "face" (BlazeFace alone), "pose" (BlazePose's heads and bodies alone);
---  confidence: least score, .3; target "face" (faces and heads), "person"; tile: side of tiles in pixels, 0: none, or a function that gives it as finder.tile does
---  (the default); range: of BlazeFace, "full" or "short"; turned: false never looks at turned views; edges: false never looks closer at the left and right edge;
---  alone: true asks no other detector about faces that are not sure, and gives no weak ones; adapter: a brought network as adapters.detector gives it, instead of
---  BlazeFace; target may be one of its classes, too; margin: as masks.margin gives it, for outlines of persons (boxes without); precision: of BlazeFace and BlazePose;
---  batch: views of a frame that BlazeFace takes at once; device "cpu" (default), "cuda", "cuda:N": where the networks run; fallback(err): is called when that device
---  fails, and the CPU goes on with the same frame (without it the error goes on); faces, other, people: ready ones instead of the finder's own
---@return Finder
function finder.new(options)
  options = options or {}
  local self = setmetatable({
    confidence = options.confidence or .3, target = options.target or "face", tile = options.tile or finder.tile, turned = options.turned ~= false,
    adapter = options.adapter, edges = options.edges ~= false, options = options, memory = changes.memory(),
  }, Finder)
  if self.target == "face" and not options.alone then self.weak = WEAK * self.confidence end
  self.device = device.name(device.id(options.device))
  self:reset()
  return self
end

--- Loads the networks, which the first look does otherwise: who has opened a recording by then has its first frames decoded meanwhile.
function Finder:prepare()
  if not self.built then self:guard(function() self:build(self.device) end, function() end) end
end

-- What fn gives; where the device fails under it and a fallback is given, what again() gives when all networks are on the CPU.
function Finder:guard(fn, again)
  local fallback = self.options.fallback
  if self.device == "cpu" or not fallback then return fn() end
  local ok, result = pcall(fn)
  if ok then return result end
  if not device.failed(self.device, result) then error(result, 0) end
  fallback(result)
  self:build "cpu"
  return again()
end

-- The networks on a device.
function Finder:build(to)
  local options = self.options
  local detector, class = options.detector or "auto", self.target ~= "face" and self.target ~= "person"
  local precision = not (to == "cpu" and options.precision == "f16") and options.precision or nil -- the CPU that takes over has no f16
  self.built, self.device, self.picture = false, to, nil
  if self.adapter then
    self.adapter:to(to)
  elseif detector ~= "pose" then
    self.faces = options.faces
      or face.detector { range = options.range, confidence = self.confidence, precision = precision, batch = options.batch, device = to }
    self.other = options.other
    if not (self.other or options.faces or options.alone) then
      self.other = face.detector { range = options.range == "short" and "full" or "short", precision = precision, batch = options.batch, device = to, late = true }
    end
  end
  if detector ~= "face" and not class and not (self.adapter and self.target == "person") then
    local known = self.people
    self.people = options.people or require "libration.pose.people".finder {
      confidence = math.max(.3, math.min(.5, self.confidence)), precision = precision, margin = self.target == "person" and options.margin or nil, device = to,
    }
    if known then self.people:inherit(known) end
  end
  self.built = true
end

--- The next frame is a first one.
function Finder:reset()
  self.index = nil
  self.memory:reset()
  if self.people then self.people:reset() end
end

-- A person of whom only the face is known: what lies below a face that no body was found for.
local function body_of(f)
  local ux, uy = math.sin(f.angle), -math.cos(f.angle)
  local side = math.abs(ux) > .5
  local long, wide = 9 * f.height, 4 * f.width
  return { x = f.x - 3.5 * f.height * ux, y = f.y - 3.5 * f.height * uy, width = side and long or wide, height = side and wide or long, score = f.score }
end

local function as(kind, d)
  return { kind = kind, x = d.x, y = d.y, width = d.width, height = d.height, angle = d.angle, score = d.score, points = d.points, outline = d.outline,
    doubted = d.doubted }
end

-- Faces as the other detector has its say, too: those that are not sure get the mean of both scores, and those that it brings below the least are doubted.
local function believe(self, frame, faces)
  if not self.other then return faces, {} end
  local kept, weaker, doubtful = {}, {}, {}
  for _, f in ipairs(faces) do
    if f.score < SURE then doubtful[#doubtful + 1] = f end
  end
  for i, opinion in ipairs(#doubtful > 0 and self.other:opinions(frame, doubtful) or {}) do doubtful[i].score = (doubtful[i].score + opinion) / 2 end
  for _, f in ipairs(faces) do
    f.doubted = f.score < self.confidence or nil
    local to = f.doubted and weaker or kept
    to[#to + 1] = f
  end
  return kept, weaker
end

-- Faces and persons as detections of the target; weaker faces beside those.
local function gather(self, faces, persons, weaker)
  local found = {}
  if self.target == "person" then
    for _, person in ipairs(persons) do found[#found + 1] = as("person", person) end
    for _, f in ipairs(faces) do
      local known = false
      for _, person in ipairs(persons) do known = known or face.shared(person.head, f) > .3 end
      if not known then found[#found + 1] = as("person", body_of(f)) end
    end
    return found
  end
  for _, f in ipairs(faces) do found[#found + 1] = as("face", f) end
  for _, person in ipairs(persons) do
    local known = false
    for _, f in ipairs(faces) do known = known or face.shared(person.head, f) > .5 end
    if not known then found[#found + 1] = as("face", person.head) end
  end
  for _, f in ipairs(face.besides(weaker or {}, found)) do
    found[#found + 1] = as("face", f)
    found[#found].weak = true
  end
  return found
end

-- What is to be covered in a whole frame that the networks' device has.
local function look_all(self, frame, at, steps)
  local tile = type(self.tile) == "number" and self.tile or self.tile(frame:size(2), frame:size(1))
  tile = tile > 0 and tile or nil
  local faces, weaker, ask = {}, {}, nil
  if at and at.coarse and at.cell then
    function ask(detector, picture, views, least)
      return self.memory:of(views, at.coarse, at.cell, function(some) return detector:look(picture, some, least) end)
    end
  end
  if self.adapter then
    faces = self.adapter:detect(frame, self.confidence, self.target)
    if not self.people then return faces end
  elseif self.faces then
    local cut, weakly, fallen = {}
    faces, weaker = self.faces:search(frame, { tile = tile, turned = false, ask = ask, weak = self.weak })
    if self.edges then cut, weakly = self.faces:edges(frame, tile, ask, self.weak) end
    faces, fallen = believe(self, frame, face.merge { faces, cut })
    weaker = self.weak and face.merge { fallen, face.besides(face.merge { weaker or {}, weakly or {} }, fallen) } or {}
  end
  local persons = self.people and self.people:process(frame, faces, { steps = steps, heads = self.target ~= "person" and steps > 1 }) or {}
  if self.faces and self.turned and #faces == 0 and #persons == 0 then
    local fallen
    faces, fallen = believe(self, frame, (self.faces:search(frame, { tile = tile, upright = false, ask = ask })))
    weaker = face.merge { fallen, face.besides(weaker, fallen) }
  end
  return gather(self, faces, persons, weaker)
end

-- Side of a square round a detection in which the face network finds what is there, in its sizes.
local ROUND = 4

-- The same round detections of a moment before or after: faces in squares, bodies only for those where no face is.
local function look_near(self, frame, near, steps)
  if self.adapter and not self.people then return self.adapter:detect(frame, self.confidence, self.target) end
  local faces, views, missing = {}, {}, {}
  for i, d in ipairs(near) do views[i] = { x = d.x, y = d.y, side = math.max(ROUND * math.max(d.width, d.height), 96), angle = d.angle or 0 } end
  if self.adapter then faces = self.adapter:detect(frame, self.confidence, self.target) end
  if self.faces then faces = believe(self, frame, face.merge(self.faces:look(frame, views, self.confidence + (1 - self.confidence) / 4))) end
  for _, d in ipairs(near) do
    local seen = false
    for _, f in ipairs(faces) do seen = seen or self.target ~= "person" and math.sqrt((f.x - d.x) ^ 2 + (f.y - d.y) ^ 2) < (d.width + d.height) / 2 end
    if not seen then missing[#missing + 1] = d end
  end
  return gather(self, faces, self.people and #missing > 0 and self.people:process(frame, nil, { steps = steps, near = missing }) or {})
end

--- What is to be covered in a frame of the scene.
---@param frame Tensor u8 [H,W,3] RGB
---@param at? {index: integer, coarse: Tensor?, cell: integer?, near: table[]?} its number, if frames are left out between the looks; its coarse picture: views in which
---  nothing changed are not searched again; near: only what is near one of these detections is wanted
---@return table[] detections kind "face", "person" or the brought network's class; x, y, width, height (pixels, centre), angle, score, points (faces); weak: true where
---  the score is below the least, so that it only tells where something surer of a moment before or after is; doubted: true where that is so by the other detector's say
function Finder:look(frame, at)
  self:prepare()
  frame = frame:contiguous()
  local steps = at and self.index and math.abs(at.index - self.index) or 1
  if not (at and at.near) then self.index = at and at.index end
  local function seen()
    self.picture = regions.show(frame, self.device, self.picture)
    if at and at.near then return look_near(self, self.picture, at.near, steps) end
    return look_all(self, self.picture, at, steps)
  end
  return self:guard(seen, seen)
end

return finder
