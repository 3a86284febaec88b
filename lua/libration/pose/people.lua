-- Finds every person in a frame with BlazePose's two networks and follows each: bodies, and heads where no face network sees one. Smooths and draws nothing.
local ffi = require "ffi"
local blazepose = require "libration.pose.blazepose"
local face = require "libration.pose.face"
local silhouette = require "libration.pose.silhouette"

local people = {}

local UNSEEN = 30 -- frames over which somebody is followed whom the detector does not see: the landmark network keeps to what it once took for a body
local ROUND = 4   -- looks in which all squares of a frame have been looked at
local LEAST_SQUARE = 320 -- pixels of the side of a smaller square
local SURE = .5   -- of the detector, to be believed against the landmark network

---@class Person
---@field x number pixels: centre of the upright box round the landmarks
---@field y number
---@field width number
---@field height number
---@field score number probability, by the landmark network, that somebody is there
---@field landmarks ffi.cdata*|nil float[33*3] x, y in pixels, visibility; nil where the detector alone saw somebody
---@field head Face the head, in the terms of a face detector
---@field outline string|nil polygons as pose/silhouette.lua writes them, where the finder was given a margin
---@field rect ffi.cdata* float[5] region of the landmark network, as blazepose.rect gives it
---@field waiting boolean|nil true for a face whose body was not asked for yet

local function middle(p, a, b)
  return (p[3 * a] + p[3 * b]) / 2, (p[3 * a + 1] + p[3 * b + 1]) / 2
end

local function length(x, y) return math.sqrt(x * x + y * y) end

-- A face of the head round which the landmarks lie; seen from the side or from behind it keeps the size that shoulders and trunk ask for.
local function head_of(p, score)
  local ex, ey = middle(p, 2, 5)
  local mx, my = middle(p, 9, 10)
  local rx, ry = middle(p, 7, 8)
  local sx, sy = middle(p, 11, 12)
  local hx, hy = middle(p, 23, 24)
  local function between(a, b) return length(p[3 * a] - p[3 * b], p[3 * a + 1] - p[3 * b + 1]) end
  local size = math.max(1.05 * between(7, 8), 2.2 * length(mx - ex, my - ey), 1.8 * between(2, 5), .36 * between(11, 12), .26 * length(sx - hx, sy - hy))
  local points = {}
  for i, j in ipairs { 5, 2, 0, -1, 8, 7 } do
    if j < 0 then points[2 * i - 1], points[2 * i] = mx, my else points[2 * i - 1], points[2 * i] = p[3 * j], p[3 * j + 1] end
  end
  return { x = .35 * (ex + mx) + .3 * rx, y = .35 * (ey + my) + .3 * ry, width = size, height = size, angle = 0, score = score, points = points }
end

-- A person of whom only the circle round the body is known: the head is somewhere near its upper end.
local function outline(rect, w, h, score)
  local x, y, r, angle = rect[0] * w, rect[1] * h, rect[2] * w / 2.5, rect[4]
  local up_x, up_y = math.sin(angle), -math.cos(angle)
  local size = .45 * r
  local head = { x = x + .8 * r * up_x, y = y + .8 * r * up_y, width = size, height = size, angle = 0, score = score }
  return { x = x, y = y, width = 2 * r, height = 2 * r, score = score, head = head, rect = rect, unseen = 0 }
end

---@class PeopleFinder
local Finder = {}
Finder.__index = Finder

--- A finder for one stream of frames.
---@param options? {landmarker: Landmarker, confidence: number, precision: string, margin: {share: number, pixels: number}, device: string} landmarker: a ready one
---  (by default one of its own: model full, of that precision, on that device); confidence: least score of the detector, .5; margin: persons have outlines that are
---  larger by a quarter of the share of their boxes' smaller side
---@return PeopleFinder
function people.finder(options)
  options = options or {}
  local landmarker = options.landmarker or require "libration.pose.landmarker" {
    static = true, smooth = "none", precision = options.precision, segment = options.margin ~= nil, device = options.device, late = true,
  }
  local self = setmetatable({ landmarker = landmarker, confidence = options.confidence or .5, margin = options.margin }, Finder)
  self:reset()
  return self
end

--- Forgets everybody: the next frame is a first one.
function Finder:reset()
  self.known, self.gone, self.next = {}, {}, nil -- gone: who was known at the last look but one, and not found at the last
end

--- Goes on with those whom another finder follows: where its device failed.
---@param other PeopleFinder
function Finder:inherit(other) self.known, self.gone, self.next = other.known, other.gone, other.next end

-- The person whose landmarks a pose is. following: region of the same person in the frame after.
local function person_of(self, pose, flag, rect, w, h)
  local p, x0, y0, x1, y1 = ffi.new("float[99]"), math.huge, math.huge, -math.huge, -math.huge
  for i = 0, 32 do
    local x, y = pose.landmarks[5 * i] * w, pose.landmarks[5 * i + 1] * h
    p[3 * i], p[3 * i + 1], p[3 * i + 2] = x, y, pose.landmarks[5 * i + 3]
    x0, y0, x1, y1 = math.min(x0, x), math.min(y0, y), math.max(x1, x), math.max(y1, y)
  end
  local a = pose.landmarks + 5 * blazepose.landmarks
  local following = blazepose.rect(a[0] * w, a[1] * h, a[5] * w, a[6] * h, w, h)
  local person = { score = flag, landmarks = p, head = head_of(p, flag), rect = rect, following = following, unseen = 0 }
  -- the body reaches beyond its joints by about half a head
  local rim = .5 * person.head.width
  x0, y0, x1, y1 = x0 - rim, y0 - rim, x1 + rim, y1 + rim
  person.x, person.y, person.width, person.height = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
  local margin = self.margin
  if margin and pose.body then
    person.outline = silhouette.outline(pose.body, blazepose.square(rect, w, h), p, person.head,
      margin.share / 4 * math.min(person.width, person.height) + margin.pixels)
  end
  return person
end

-- Landmarks in regions, all in one batch: persons, false where the network says that nobody is there.
local function mark(self, frame, rects)
  local h, w, asked, places, persons = frame:size(1), frame:size(2), {}, {}, {}
  for i, rect in ipairs(rects) do
    persons[i] = false
    if rect[2] > 0 and rect[3] > 0 then asked[#asked + 1], places[#places + 1] = rect, i end
  end
  if #asked == 0 then return persons end
  local poses, flags = self.landmarker:marks(frame, asked)
  for k, rect in ipairs(asked) do persons[places[k]] = poses[k] and person_of(self, poses[k], flags[k], rect, w, h) end
  return persons
end

-- True where two sets of landmarks are one person's.
local function same(a, b)
  if not (a.landmarks and b.landmarks) then return false end
  local sum, p, q = 0, a.landmarks, b.landmarks
  for i = 0, 32 do sum = sum + length(p[3 * i] - q[3 * i], p[3 * i + 1] - q[3 * i + 1]) end
  return sum / 33 < .12 * math.max(a.width, a.height, b.width, b.height)
end

-- Who of a list has such a region round the body, nil where nobody has.
local function owner(list, rect, w, h)
  local x, y, r = rect[0] * w, rect[1] * h, rect[2] * w / 2.5
  for _, person in ipairs(list) do
    local other = person.following or person.rect
    local radius = other[2] * w / 2.5
    if length(other[0] * w - x, other[1] * h - y) < .35 * math.max(r, radius) and r < 1.7 * radius and radius < 1.7 * r then return person end
  end
end

-- True for somebody of whom the circle round the body is all that is known.
local function is_guess(person) return not (person.landmarks or person.waiting) end

-- The region that a person with such a face would fill when standing or sitting upright beside it.
local function below(f, w, h)
  local ux, uy = math.sin(f.angle), -math.cos(f.angle)
  local x, y = f.x - 4.5 * f.height * ux, f.y - 4.5 * f.height * uy
  return blazepose.rect(x, y, x + 6 * f.height * ux, y + 6 * f.height * uy, w, h)
end

-- The face that a head is now, nil where there is none.
local function face_of(head, faces)
  for _, f in ipairs(faces or {}) do
    if length(f.x - head.x, f.y - head.y) < .5 * (f.width + f.height + head.width + head.height) / 4 then return f end
  end
end

-- Somebody of whom only the face was looked at: the body went with it.
local function moved(person, f, w, h)
  local new = {}
  for name, value in pairs(person) do new[name] = value end
  new.following = ffi.new("float[5]", person.following)
  new.following[0], new.following[1] = new.following[0] + (f.x - person.head.x) / w, new.following[1] + (f.y - person.head.y) / h
  if person.waiting then new.following = below(f, w, h) end
  new.head, new.unseen = f, 0
  return new
end

-- True where a head lies so near to a box that it may have been there a moment ago.
local function is_near(head, boxes)
  for _, d in ipairs(boxes) do
    local size = (d.width + d.height + head.width + head.height) / 4
    if length(head.x - d.x, head.y - d.y) < 3 * size then return true end
  end
  return false
end

-- Adds somebody who is not among those found.
local function put(found, person)
  for _, other in ipairs(found) do
    if same(person, other) then return end
  end
  found[#found + 1] = person
end

-- Goes on with those of a list from where they were `steps` frames ago. Who is found already, and that not by the detector alone, is not asked about.
local function follow(self, frame, list, found, steps)
  local h, w, who, rects = frame:size(1), frame:size(2), {}, {}
  local function is_found(person)
    local other = steps > 1 and owner(found, person.following, w, h)
    return other and not is_guess(other)
  end
  for _, person in ipairs(list) do
    if person.unseen < UNSEEN and not is_found(person) then who[#who + 1], rects[#rects + 1] = person, person.following end
  end
  for i, again in ipairs(mark(self, frame, rects)) do
    local person = who[i]
    if i > 1 and is_found(person) then again = nil end
    if again and person.waiting and not face_of(person.head, { again.head }) then again = nil end -- it likes to answer with a neighbour
    if again then
      again.unseen = person.unseen + steps
      for k = #found, 1, -1 do -- whom the detector saw there as well
        if is_guess(found[k]) and owner({ again }, found[k].rect, w, h) then
          again.unseen = 0
          table.remove(found, k)
        end
      end
      put(found, again)
    end
  end
end

-- The whole frame, and the squares of it whose turn it is.
local function views_of(self, w, h)
  local squares, close = face.tiles(w, h, 1.2 * math.min(w, h)), .6 * math.min(w, h)
  for _, square in ipairs(squares) do square.least = self.confidence end
  if self.margin or close >= LEAST_SQUARE then -- those who are small or turn their backs the detector sees in smaller squares
    for _, square in ipairs(face.tiles(w, h, close)) do
      square.least = math.max(SURE, self.confidence)
      squares[#squares + 1] = square
    end
  end
  local first, views = self.next or 1, { { least = self.confidence } }
  self.next = first + (self.next and math.ceil(#squares / ROUND) or #squares)
  for k = first, self.next - 1 do views[#views + 1] = squares[(k - 1) % #squares + 1] end
  return views
end

--- Every person in a frame: those followed from the frame before, those that the detector sees in the whole frame and in squares of it (all of them in the first
--- frame, then a quarter of them a look, in turn), and those below faces.
---@param frame Tensor u8 [H,W,3] RGB; on the landmarker's device already, or it goes there for each look
---@param faces? Face[] faces found in the same frame
---@param at? {steps: integer, near: table[], heads: boolean} steps: frames since the one before (1), when it is many the detector is asked first and believed; near: only who
---  is known and had the head near one of these boxes is wanted, and nobody is forgotten; heads: only heads are wanted, so that the landmark network is not asked about those
---  whose face is there: they are kept in mind until it is not
---@return Person[] persons
function Finder:process(frame, faces, at)
  local h, w = frame:size(1), frame:size(2)
  local steps, near = at and at.steps or 1, at and at.near
  frame = frame:contiguous()
  local found, followed = {}, {}
  for _, person in ipairs(self.known) do
    local f = at and at.heads and face_of(person.head, faces)
    if f then put(found, moved(person, f, w, h)) else followed[#followed + 1] = person end
  end
  if near then
    local asked = {}
    for _, list in ipairs { followed, self.gone } do
      for _, person in ipairs(list) do
        if is_near(person.head, near) then asked[#asked + 1] = person end
      end
    end
    follow(self, frame, asked, found, steps)
    return found
  end
  if steps == 1 then follow(self, frame, followed, found, steps) end
  for _, detections in ipairs(self.landmarker:search(frame, views_of(self, w, h))) do
    for _, d in ipairs(detections) do
      local rect = blazepose.rect(d[5], d[6], d[7], d[8], w, h)
      local known = owner(found, rect, w, h)
      if known then
        known.unseen = 0
      elseif rect[2] > 0 then
        local person = mark(self, frame, { rect })[1] or d[13] >= SURE and outline(rect, w, h, d[13])
        if person then put(found, person) end
      end
    end
  end
  if steps > 1 then follow(self, frame, followed, found, steps) end
  for _, f in ipairs(faces or {}) do
    local known = false
    for _, person in ipairs(found) do known = known or face.shared(person.head, f) > .3 end
    if not known and at and at.heads then
      local rect = below(f, w, h)
      found[#found + 1] = { x = f.x, y = f.y, width = f.width, height = f.height, score = f.score, head = f, rect = rect, following = rect, unseen = 0, waiting = true }
    elseif not known then
      local person = mark(self, frame, { (below(f, w, h)) })[1]
      -- the network likes to answer with a neighbour: the head must be where the face is
      if person and face.shared(person.head, f) > .3 then put(found, person) end
    end
  end
  local before = self.known
  self.known, self.gone = {}, {}
  for _, person in ipairs(found) do
    if person.landmarks or person.waiting then self.known[#self.known + 1] = person end
  end
  for _, person in ipairs(before) do
    if not owner(self.known, person.following, w, h) then self.gone[#self.gone + 1] = person end
  end
  return found
end

return people
