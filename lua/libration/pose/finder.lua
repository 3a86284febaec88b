-- Finds in each frame of a recording what is to be covered: faces, heads where the face network misses them, persons, or what a brought network finds; and cuts.
-- Follows nothing from frame to frame but bodies; tracks.lua joins the answers, masks.lua makes shapes of them.
local ffi = require "ffi"
local core = require "libration.core"
local device = require "libration.device"
local face = require "libration.pose.face"
local regions = require "libration.regions"

local finder = {}

finder.detectors = { "auto", "face", "pose" }

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

--- A finder for one recording.
---@param options? table detector "auto" (BlazeFace full range and BlazePose), "face" (BlazeFace alone), "pose" (BlazePose's heads and bodies alone);
---  confidence: least score, .3; target "face" (faces and heads), "person"; tile: side of tiles in pixels, 0: none, nil: finder.tile's; range: of BlazeFace,
---  "full" or "short"; turned: false never looks at turned views; edges: false never looks closer at the left and right edge; adapter: a brought
---  network as adapters.detector gives it, instead of BlazeFace; target may be one of its classes, too; margin: as masks.margin gives it, for outlines of persons
---  (boxes without); device "cpu" (default), "cuda", "cuda:N": where the networks run; fallback(err): is called when that device fails, and the CPU goes on with the
---  same frame (without it the error goes on)
---@return Finder
function finder.new(options)
  options = options or {}
  local self = setmetatable({
    confidence = options.confidence or .3, target = options.target or "face", tile = options.tile, turned = options.turned ~= false,
    adapter = options.adapter, edges = options.edges ~= false, device = device.name(device.id(options.device)),
  }, Finder)
  self.options = options
  self:build(self.device)
  self.small, self.before = ffi.new("uint8_t[?]", 32 * 18 * 3), ffi.new("uint8_t[?]", 32 * 18 * 3)
  self:reset()
  return self
end

-- The networks on a device.
function Finder:build(to)
  local options = self.options
  local detector, class = options.detector or "auto", self.target ~= "face" and self.target ~= "person"
  self.device, self.picture = to, nil
  if self.adapter then
    self.adapter:to(to)
  elseif detector ~= "pose" then
    self.faces = options.faces or face.detector { range = options.range, confidence = self.confidence, device = to }
  end
  if detector ~= "face" and not class and not (self.adapter and self.target == "person") then
    local known = self.people
    self.people = options.people or require "libration.pose.people".finder {
      confidence = math.max(.3, math.min(.5, self.confidence)), margin = self.target == "person" and options.margin or nil, device = to,
    }
    if known then self.people:inherit(known) end
  end
end

--- The next frame is a first one.
function Finder:reset()
  self.seen, self.turn = false, nil
  if self.people then self.people:reset() end
end

-- True where this frame belongs to another scene than the one before: most of a small copy changed, and so did the share of its colours.
local function is_cut(self, frame)
  local h, w = frame:size(1), frame:size(2)
  local region = ffi.new("lbr_region", w / 2, h / 2, w, h, 0)
  local now, last, n = self.small, self.before, 32 * 18 * 3
  core.check(core.C.lbr_crop_u8(frame:ptr(), h, w, w * 3, region, core.C.LBR_BORDER_REPLICATE, now, 18, 32))
  local moved, counts = 0, {}
  for k = 0, 95 do counts[k] = 0 end
  for i = 0, n - 1 do
    moved = moved + math.abs(now[i] - last[i])
    local channel = i % 3 * 32
    local a, b = channel + math.floor(now[i] / 8), channel + math.floor(last[i] / 8)
    counts[a], counts[b] = counts[a] + 1, counts[b] - 1
  end
  local other = 0
  for k = 0, 95 do other = other + math.abs(counts[k]) end
  ffi.copy(last, now, n)
  local first = not self.seen
  self.seen = true
  return not first and moved / n > 30 and other / (2 * n) > .35
end

-- A person of whom only the face is known: what lies below a face that no body was found for.
local function body_of(f)
  local ux, uy = math.sin(f.angle), -math.cos(f.angle)
  local side = math.abs(ux) > .5
  local long, wide = 9 * f.height, 4 * f.width
  return { x = f.x - 3.5 * f.height * ux, y = f.y - 3.5 * f.height * uy, width = side and long or wide, height = side and wide or long, score = f.score }
end

local function as(kind, d)
  return { kind = kind, x = d.x, y = d.y, width = d.width, height = d.height, angle = d.angle, score = d.score, points = d.points, outline = d.outline }
end

-- What is to be covered in a frame that the networks' device has.
local function find(self, frame, cut)
  local tile = self.tile or finder.tile(frame:size(2), frame:size(1))
  tile = tile > 0 and tile or nil
  local faces = {}
  if self.adapter then
    faces = self.adapter:detect(frame, self.confidence, self.target)
    if not self.people then return faces end
  elseif self.faces then
    faces = self.faces:search(frame, { tile = tile, turned = false })
    if self.edges then
      if cut then self.turn = nil end
      faces = face.merge { faces, self.faces:edges(frame, tile, self.turn) }
      self.turn = (self.turn or 0) + 1
    end
  end
  local persons = self.people and self.people:process(frame, faces) or {}
  if self.faces and self.turned and #faces == 0 and #persons == 0 then faces = self.faces:search(frame, { tile = tile, upright = false }) end
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
  return found
end

--- What is to be covered in the next frame.
---@param frame Tensor u8 [H,W,3] RGB
---@return table[] detections kind "face", "person" or the brought network's class; x, y, width, height (pixels, centre), angle, score, points (faces)
---@return boolean cut true where a new scene begins with this frame
function Finder:look(frame)
  frame = frame:contiguous()
  local cut = is_cut(self, frame)
  if cut and self.people then self.people:reset() end
  local function seen()
    self.picture = regions.show(frame, self.device, self.picture)
    return find(self, self.picture, cut)
  end
  local fallback = self.options.fallback
  if self.device == "cpu" or not fallback then return seen(), cut end
  local ok, found = pcall(seen)
  if not ok then
    if not device.failed(self.device, found) then error(found, 0) end
    fallback(found)
    self:build "cpu"
    found = seen()
  end
  return found, cut
end

return finder
