-- Looks at a recording where something changes: frames some way apart first, those between only where the answers at both ends do not agree. Finds nothing itself.
local core = require "libration.core"
local device = require "libration.device"
local changes = require "libration.pose.changes"
local overlap = require("libration.pose.face").shared
local tensor = require "libration.tensor"

local looks = {}

local clock = core.C.lbr_clock

local NEAR = .35     -- sizes of a box by which it may move between two looks that agree
local FAR = 3.5      -- sizes over which a third look in the middle can tell that it moved in a straight line
local STRAIGHT = .3  -- sizes by which that look may differ
local GROWTH = 2.2   -- of a box's area between two looks that agree
local LONGER = 2     -- times as far as asked for is the next look where nothing was to be settled between the last two
local SHORT = .105   -- seconds: what is nearer than that together is joined by a straight line
local NOVEL, SHARE = 28, .15 -- difference of a colour, and share of the picture that looks like neither end: something happens between the looks

---@class Look a frame as it comes out, in order
---@field index integer
---@field time number
---@field detections table[] what is there; between two looks interpolated, with the smaller score
---@field looked boolean true where the finder was asked
---@field cut boolean true where a new scene begins
---@field fault string|nil why the frame could not be looked at

local function size_of(a, b) return (a.width + a.height + b.width + b.height) / 4 end

-- How far apart two detections are, in their size; nil where they cannot be one thing a moment apart.
local function apart(a, b)
  local growth = (a.width * a.height + 1e-6) / (b.width * b.height + 1e-6)
  if a.kind ~= b.kind or growth > GROWTH or growth < 1 / GROWTH then return nil end
  return math.sqrt((a.x - b.x) ^ 2 + (a.y - b.y) ^ 2) / math.max(size_of(a, b), 1e-6)
end

-- True for what is not among the things that are sure, and may be one of those that are looked for.
local function is_wanted(d, near, sure)
  for i = 1, #sure do
    if overlap(sure[i], d) > .5 then return false end
  end
  for _, other in ipairs(near) do
    local distance = apart(other, d)
    if distance and distance <= FAR then return true end
  end
  return false
end

-- The finder's answer for a frame, once; false where it failed. near: detections round which alone it is wanted; sure: what is known of the rest.
local function look(self, e, near, sure)
  if e.detections or e.fault then return e.detections ~= nil end
  local rgb, begin = e.frame:rgb(self.room), clock()
  e.near = near
  local ok, found = pcall(self.finder.look, self.finder, rgb, e)
  self.seconds = self.seconds + clock() - begin
  if ok then
    e.detections, e.looked = sure or {}, true
    for _, d in ipairs(found) do
      if not near or is_wanted(d, near, sure) then e.detections[#e.detections + 1] = d end
    end
    self[near and "glances" or "looked"] = self[near and "glances" or "looked"] + 1
  else
    if tostring(found):find("interrupted", 1, true) or device.failed(self.finder.device or "cpu", found) then error(found, 0) end
    e.fault = tostring(found):match "^[^\n]*"
    self.finder:reset()
  end
  return ok
end

-- Detections of two looks one to one, the nearest first and weak ones last, as {a, b, distance in sizes}; and those of either that have no other, but for weak ones.
local function match(a, b)
  local all, taken, list, alone = {}, {}, {}, {}
  for i, d in ipairs(a) do
    for k, e in ipairs(b) do
      local distance = apart(d, e)
      if distance and distance <= FAR then all[#all + 1] = { d, e, distance, i, k } end
    end
  end
  local function weakness(p) return (p[1].weak and 1 or 0) + (p[2].weak and 1 or 0) end
  table.sort(all, function(p, q)
    if weakness(p) ~= weakness(q) then return weakness(p) < weakness(q) end
    if p[3] ~= q[3] then return p[3] < q[3] end
    if p[4] ~= q[4] then return p[4] < q[4] end
    return p[5] < q[5]
  end)
  for _, pair in ipairs(all) do
    if not taken[pair[1]] and not taken[pair[2]] then
      taken[pair[1]], taken[pair[2]] = true, true
      list[#list + 1] = pair
    end
  end
  for _, side in ipairs { a, b } do
    for _, d in ipairs(side) do
      if not taken[d] and not d.weak then alone[#alone + 1] = d end
    end
  end
  return list, alone
end

-- A detection on the way from one to another; wide enough for one that does not go straight.
local function between(a, b, u)
  local angle = ((b.angle or 0) - (a.angle or 0) + math.pi) % (2 * math.pi) - math.pi
  local bow = 2 * u * (1 - u)
  local d = {
    kind = a.kind, x = a.x + u * (b.x - a.x), y = a.y + u * (b.y - a.y), angle = (a.angle or 0) + u * angle, score = math.min(a.score, b.score),
    width = a.width + u * (b.width - a.width) + bow * math.abs(b.x - a.x), height = a.height + u * (b.height - a.height) + bow * math.abs(b.y - a.y),
    weak = a.weak or b.weak, doubted = a.doubted or b.doubted,
  }
  if a.points and b.points and #a.points == #b.points then
    d.points = {}
    for k, v in ipairs(a.points) do d.points[k] = v + u * (b.points[k] - v) end
  end
  return d
end

-- Detections at frame k on the way between pairs of frames i and j.
local function at(list, i, j, k, pairs_)
  local from, to = list[i].time, list[j].time
  local u, found = to > from and (list[k].time - from) / (to - from) or (k - i) / (j - i), {}
  for n, pair in ipairs(pairs_) do found[n] = between(pair[1], pair[2], math.max(0, math.min(1, u))) end
  return found
end

-- The frame between i and j that shows most of what neither shows, nil where nothing much happens.
local function novel(list, i, j)
  local place, most = nil, SHARE
  for k = i + 1, j - 1 do
    local share = list[i].coarse and changes.novelty(list[i].coarse, list[j].coarse, list[k].coarse, NOVEL) or 0
    if share > most then place, most = k, share end
  end
  return place
end

-- Sees to it that each frame from i to j of a scene has its detections or a fault. straight: detections at one end that are known to come straight from the other.
local function settle(self, list, i, j, straight)
  while i <= j and not look(self, list[i]) do i = i + 1 end
  while j > i and not look(self, list[j]) do j = j - 1 end
  if j - i < 2 then return end
  local pairs_, loose = match(list[i].detections, list[j].detections)
  local sure, swift = {}, {}
  local short = j - i <= self.lead + 1 and list[j].time - list[i].time <= SHORT
  if short then loose = {} end -- what is there at one end alone: a track's lead covers that
  for _, pair in ipairs(pairs_) do
    if pair[3] <= NEAR or short or straight and (straight[pair[1]] or straight[pair[2]]) then
      sure[#sure + 1] = pair
    elseif not (pair[1].weak and pair[2].weak) then
      swift[#swift + 1] = pair
      loose[#loose + 1], loose[#loose + 2] = pair[1], pair[2]
    end
  end
  local busy = novel(list, i, j)
  if #loose == 0 and not busy then
    for k = i + 1, j - 1 do list[k].detections = at(list, i, j, k, sure) end
    return
  end
  self.calm = false
  local middle, known = busy or math.floor((i + j) / 2), {}
  if busy then look(self, list[middle]) else look(self, list[middle], loose, at(list, i, j, middle, sure)) end
  for _, pair in ipairs(match(at(list, i, j, middle, swift), list[middle].detections or {})) do
    if pair[3] <= STRAIGHT then known[pair[2]] = true end
  end
  settle(self, list, i, middle, known)
  settle(self, list, middle, j, known)
end

--- Runs through a recording and hands out each of its frames, in order.
---@param source table as media.transcode gives it, or a still picture: frames(), width, height, queue
---@param finder table :look(frame, at) -> detections, :reset(); at: the Look
---@param options {every: number, lead: integer} every: seconds between two looks, twice that while they agree; 0: every frame is looked at; lead: that of the tracks
---  that are made of the answers (0)
---@param emit fun(look: Look, state: {looked: integer, glances: integer, seconds: number}) state: what is returned at the end, so far
---@return {looked: integer, glances: integer, seconds: number} whole frames that were looked at, frames in which some places were; what the finder took
function looks.run(source, finder, options, emit)
  local every, most = options.every or 0, source.queue and math.max(2, math.floor((source.queue - (source.held or 0)) / 2)) or 1
  local self = {
    finder = finder, lead = options.lead or 0, looked = 0, glances = 0, seconds = 0,
    room = not source.still and tensor.empty({ source.height, source.width, 3 }, "u8") or nil,
  }
  local stretch = 1 -- of the time between looks: what agreed all along may wait longer
  local list, last = {}, nil -- frames of the scene from the last one looked at; the frame before
  local function hand_out(n)
    for i = 1, n do emit(list[i], self) end
  end
  local function finish()
    if #list > 0 then settle(self, list, 1, #list) end
    hand_out(#list)
    list, last = {}, nil
  end
  finder:reset()
  for frame in source:frames() do
    local e = { frame = frame, index = frame.index, time = frame.time, cell = source.cell, looked = false, cut = false }
    if frame.damaged then
      finish()
      stretch = 1
      e.fault = ("the frame is %s in the file"):format(frame.damaged)
      finder:reset()
      emit(e, self)
    else
      e.coarse = frame.coarse and frame:coarse() or not source.still and changes.coarse(frame:rgb(self.room)) or nil
      if last and e.coarse and changes.is_cut(last.coarse, e.coarse) then
        finish()
        finder:reset()
        e.cut, stretch = true, 1
      end
      list[#list + 1], last = e, e
      if e.time - list[1].time >= every * stretch - 1e-4 or #list >= most then
        self.calm = true
        settle(self, list, 1, #list)
        stretch = self.calm and #list > 1 and LONGER or 1
        if every == 0 then
          hand_out(#list)
          list = {}
        elseif #list > 1 then
          hand_out(#list - 1)
          list = { e }
        end
      end
    end
  end
  finish()
  return { looked = self.looked, glances = self.glances, seconds = self.seconds }
end

return looks
