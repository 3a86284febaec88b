-- Joins detections of frames into tracks: association over time, gaps filled, lead before the first and after the last hit, smoothing. Detects nothing.
local ffi = require "ffi"

local tracks = {}

ffi.cdef [[
typedef struct lbr_track_sample { int32_t frame; float time, x, y, width, height, angle, score, points[12]; } lbr_track_sample;
]]

---@class TrackSample one frame of a track (C struct): frame from 1, time in seconds, box by its centre in pixels, angle in radians clockwise, score (0 where the
---  frame was filled in), points: x, y of six, NaN where there are none

---@class Track
---@field id integer from 1, in order of the first frame
---@field kind string what is followed: "face", "person" or a class
---@field keep boolean true: never masked
---@field samples ffi.cdata* lbr_track_sample[room]
---@field count integer samples in use, one a frame without holes, in order
---@field outlines table<integer, string> of frames in which a person's outline is known, as pose/silhouette.lua writes it
local Track = {}
Track.__index = Track

--- An empty track.
---@param kind string
---@param room? integer samples that it is made for (8); it grows beyond
---@return Track
function tracks.new_track(kind, room)
  room = room or 8
  return setmetatable({ kind = kind, keep = false, count = 0, room = room, outlines = {}, samples = ffi.new("lbr_track_sample[?]", room) }, Track)
end

--- Room for one more sample; its points are NaN, its other numbers 0.
---@return ffi.cdata* sample to be filled
function Track:append()
  if self.count == self.room then
    local larger = ffi.new("lbr_track_sample[?]", 2 * self.room)
    ffi.copy(larger, self.samples, self.count * ffi.sizeof "lbr_track_sample")
    self.samples, self.room = larger, 2 * self.room
  end
  local s = self.samples + self.count
  for k = 0, 11 do s.points[k] = 0 / 0 end
  self.count = self.count + 1
  return s
end

--- Sample of a frame, nil where the track has none.
---@param frame integer from 1
---@return ffi.cdata*|nil
function Track:at(frame)
  if self.count == 0 then return nil end
  local first, last = self.samples[0].frame, self.samples[self.count - 1].frame
  if frame < first or frame > last then return nil end
  local s = self.samples + (frame - first)
  if s.frame == frame then return s end
  -- an edited track may have holes
  local low, high = 0, self.count - 1
  while low <= high do
    local mid = math.floor((low + high) / 2)
    local f = self.samples[mid].frame
    if f == frame then return self.samples + mid end
    if f < frame then low = mid + 1 else high = mid - 1 end
  end
end

local function put(s, frame, time, d)
  s.frame, s.time, s.x, s.y, s.width, s.height, s.angle, s.score = frame, time, d.x, d.y, d.width, d.height, d.angle or 0, d.score
  if d.points then
    for k = 0, 11 do s.points[k] = d.points[k + 1] or 0 / 0 end
  end
end

-- Seconds of frames, a number a frame, for recordings of any length.
local function clock()
  local room, n, list = 1024, 0, ffi.new("double[1024]")
  return {
    put = function(time)
      if n == room then
        local larger = ffi.new("double[?]", 2 * room)
        ffi.copy(larger, list, n * 8)
        list, room = larger, 2 * room
      end
      list[n] = time
      n = n + 1
    end,
    at = function(frame) return list[frame - 1] end,
  }
end

---@class Tracker
---@field final integer the last frame of which all is held to be known: no later detection adds to what covers it or changes that, but as `late` tells
---@field late boolean true once a track was kept that covers final frames, too
local Tracker = {}
Tracker.__index = Tracker

--- A tracker of one recording.
---@param options? {gap: number, wait: number, lead: integer, smooth: integer, evidence: number, width: number, height: number} gap: seconds between two hits over which a track
---  goes on (1); lead: frames covered before the first hit and after the last (5), where width and height, pixels, are known a gap's time at the edge; smooth:
---  frames on each side that a box is averaged over (2); evidence: what the scores of a track's hits must add up to, else it is dropped (0); and one of them must
---  not be weak, or most of them doubted, for as long as a gap may be; wait: seconds until a frame is final, in which a track may come to that (a gap's, and not less)
---@return Tracker
function tracks.tracker(options)
  options = options or {}
  return setmetatable({
    gap = options.gap or 1, wait = math.max(options.wait or 0, options.gap or 1), late = false, lead = options.lead or 5, reach = options.smooth or 2,
    evidence = options.evidence or 0, width = options.width, height = options.height, times = clock(), frame = 0, first = 1, past = 0, final = 0, born = 0,
    open = {}, ending = {}, kept = {}, live = {}, -- tracks that may go on; that are over, but for their lead; that are not dropped; of those, in frames not passed yet
  }, Tracker)
end

-- Where a track is expected in a frame, and over how many sizes a sure detection may lie away from there.
local function expected(track, frame)
  local s = track.samples[track.count - 1]
  local ahead = frame - s.frame
  local damped = (1 - .8 ^ ahead) / (1 - .8) -- trust in the speed fades
  return s, s.x + track.vx * damped, s.y + track.vy * damped, .8 + .05 * math.min(ahead - 1, 14)
end

-- How badly a detection fits a track that is expected at x, y, nil where it is another thing: 1 - IoU there, and the distance of the centres in sizes.
local function misfit(track, d, s, x, y, reach)
  local size = (s.width + s.height + d.width + d.height) / 4
  local weak = d.weak or not track.seen
  local most = (weak and .5 or reach) * math.max(size, 1e-6) -- what is weak is there or is something else
  if math.abs(d.x - x) > most or math.abs(d.y - y) > most then return nil end
  local far = math.sqrt((d.x - x) ^ 2 + (d.y - y) ^ 2)
  local ratio, growth = (d.width * d.height + 1e-6) / (s.width * s.height + 1e-6), weak and 2.2 or 5
  if far > most or ratio > growth or ratio < 1 / growth then return nil end
  local w = math.min(x + s.width / 2, d.x + d.width / 2) - math.max(x - s.width / 2, d.x - d.width / 2)
  local h = math.min(y + s.height / 2, d.y + d.height / 2) - math.max(y - s.height / 2, d.y - d.height / 2)
  local both = math.max(0, w) * math.max(0, h)
  return far / math.max(size, 1e-6) + 1 - both / (s.width * s.height + d.width * d.height - both + 1e-6)
end

-- Fills the frames between a track's last sample and a new hit in a straight line.
local function bridge(track, frame, time, d)
  local last = track.samples[track.count - 1]
  local from, n = ffi.new("lbr_track_sample", last), frame - last.frame
  local turn = ((d.angle or 0) - from.angle + math.pi) % (2 * math.pi) - math.pi
  for k = 1, n - 1 do
    local s, u = track:append(), k / n
    s.frame, s.time = from.frame + k, from.time + u * (time - from.time)
    s.x, s.y = from.x + u * (d.x - from.x), from.y + u * (d.y - from.y)
    -- what moved on a curve is still under a box that bulges between the hits
    local bulge = 1 + math.min(.3, .04 * math.min(k, n - k))
    s.width, s.height = (from.width + u * (d.width - from.width)) * bulge, (from.height + u * (d.height - from.height)) * bulge
    s.angle = from.angle + u * turn
    if d.points then
      for i = 0, 11 do s.points[i] = from.points[i] + u * ((d.points[i + 1] or 0 / 0) - from.points[i]) end
    end
  end
end

local AFTER = 100 -- larger than any misfit: weak detections get what the others leave
local UNSURE = .5 -- by which a detection must fit a track better that was only seen weakly than one that was seen surely

-- Averages boxes and points over neighbours, and makes each box as much larger as the average is off, so that it still covers what was found: as far as the
-- neighbours are known, to the end where the track is over.
local function smooth(track, reach, over)
  if reach < 1 then return end
  -- a sample is 20 numbers of four bytes: x, y, width, height are 2 to 5, points 8 to 19
  local base, n, fields = track.samples + track.head, track.count - track.head, ffi.sizeof "lbr_track_sample" / 4
  local raw = track.raw -- what the last samples were before
  local before, to = ffi.cast("float *", raw), ffi.cast("float *", base)
  local last = over and n - 1 or n - 1 - reach
  for i = track.smoothed, last do
    local near = math.min(reach, i, n - 1 - i)
    raw[i % (reach + 1)] = base[i]
    for field = 2, 19 do
      if field < 6 or field > 7 then
        local sum = 0
        for k = i - near, i do sum = sum + before[k % (reach + 1) * fields + field] end
        for k = i + 1, i + near do sum = sum + to[k * fields + field] end
        if sum == sum then to[i * fields + field] = sum / (2 * near + 1) end
      end
    end
    local s, r = base[i], raw[i % (reach + 1)]
    s.width = math.max(s.width, r.width + 2 * math.abs(s.x - r.x))
    s.height = math.max(s.height, r.height + 2 * math.abs(s.y - r.y))
  end
  track.smoothed = math.max(track.smoothed, last + 1)
end

-- True where a box lies no farther than its size from the edge of the picture.
local function is_at_edge(self, s)
  return self.width ~= nil and (s.x < s.width or s.x > self.width - s.width or s.y < s.height or s.y > self.height - s.height)
end

-- Frames that a sample stands for from it on, `most` at most: the lead, at the edge as long as a gap may be, since who leaves or comes does so part by part.
local function stands_for(self, s, step, most)
  local n, edge, frame, time, at = math.min(self.lead, most), is_at_edge(self, s), s.frame, s.time, self.times.at
  while edge and n < most and math.abs(at(frame + step * (n + 1)) - time) <= self.gap + 1e-4 do n = n + 1 end
  return math.max(0, n)
end

-- The track with copies of its first sample before it or of its last behind it, a little larger with each of the lead, in an array of its own.
local function extend(self, track, before, after, room)
  local whole, n = ffi.new("lbr_track_sample[?]", room), track.count
  local function copy(i, s, frame, k)
    local new, grow = whole + i, 1 + .06 * math.min(k, self.lead)
    ffi.copy(new, s, ffi.sizeof "lbr_track_sample")
    new.frame, new.time, new.score = frame, self.times.at(frame), 0
    new.width, new.height = s.width * grow, s.height * grow
  end
  local first, last = track.samples + 0, track.samples + n - 1
  for k = before, 1, -1 do copy(before - k, first, first.frame - k, k) end
  ffi.copy(whole + before, first, n * ffi.sizeof "lbr_track_sample")
  for k = 1, after do copy(before + n + k - 1, last, last.frame + k, k) end
  track.samples, track.count, track.room = whole, before + n + after, room
end

-- Order of tracks: by their first frame, then from left to right.
local function is_before(a, b)
  local p, q = a.place, b.place
  for k = 1, 3 do
    if p[k] ~= q[k] then return p[k] < q[k] end
  end
  return a.born < b.born
end

-- Keeps a track from the moment on in which that is sure: what was never seen surely is not kept, but where one detector insists against the other's doubt, in most
-- frames of a second and more.
local function keep(self, track)
  local first, last = track.samples[0], track.samples[track.count - 1]
  local long = last.time - first.time >= self.gap
  if not ((track.seen or long and track.doubted > track.count / 2) and track.sum >= self.evidence) then return end
  local before = stands_for(self, first, -1, first.frame - track.least)
  track.head, track.smoothed, track.raw = before, 0, ffi.new("lbr_track_sample[?]", self.reach + 1)
  extend(self, track, before, 0, 2 * (before + track.count))
  first = track.samples[0]
  self.late = self.late or first.frame <= self.final
  track.is_kept, track.place = true, { first.frame, first.x, first.y }
  self.kept[#self.kept + 1] = track
  local live, i = self.live, #self.live + 1
  while i > 1 and is_before(track, live[i - 1]) do
    live[i] = live[i - 1]
    i = i - 1
  end
  live[i] = track
end

-- A track that is over gets its end: the lead as far as the recording or the scene goes.
local function finish(self, track)
  local last = track.samples + track.count - 1
  local after = stands_for(self, last, 1, self.frame - last.frame)
  extend(self, track, 0, after, track.count + after)
  track.is_over = true
end

-- No detection goes on with a track.
local function close(self, track)
  if not track.is_kept then return end
  smooth(track, self.reach, true)
  track.raw = nil
  self.ending[#self.ending + 1] = track
end

--- The detections of the next frame.
---@param time number seconds
---@param detections table[] each x, y, width, height (pixels, centre), score, kind, and angle and points where there are any; weak: true for what goes on with a
---  track but is none by itself, doubted: true for weak ones that one detector was sure of (hysteresis: Canny 1986; with tracks: Zhang et al. 2022, ByteTrack)
function Tracker:update(time, detections)
  self.frame = self.frame + 1
  self.times.put(time)
  local frame, pairs_, taken_track, taken = self.frame, {}, {}, {}
  for t, track in ipairs(self.open) do
    local s, x, y, reach = expected(track, frame)
    for i, d in ipairs(detections) do
      local cost = track.kind == d.kind and misfit(track, d, s, x, y, reach)
      if cost then pairs_[#pairs_ + 1] = { cost + (d.weak and AFTER or 0) + (track.seen and 0 or UNSURE), t, i } end
    end
  end
  table.sort(pairs_, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    if a[2] ~= b[2] then return a[2] < b[2] end
    return a[3] < b[3]
  end)
  for _, pair in ipairs(pairs_) do
    local t, i = pair[2], pair[3]
    if not taken_track[t] and not taken[i] then
      taken_track[t], taken[i] = true, true
      local track, d = self.open[t], detections[i]
      local last = track.samples[track.count - 1]
      local n, x, y = frame - last.frame, last.x, last.y
      bridge(track, frame, time, d)
      put(track:append(), frame, time, d)
      track.outlines[frame] = d.outline
      track.sum, track.seen, track.doubted = track.sum + d.score, track.seen or not d.weak, track.doubted + (d.doubted and 1 or 0)
      track.vx, track.vy = .5 * track.vx + .5 * (d.x - x) / n, .5 * track.vy + .5 * (d.y - y) / n
    end
  end
  for i, d in ipairs(detections) do
    if not taken[i] then
      local track = tracks.new_track(d.kind)
      self.born = self.born + 1
      track.vx, track.vy, track.born, track.least, track.sum, track.seen, track.doubted = 0, 0, self.born, self.first, d.score, not d.weak, d.doubted and 1 or 0
      put(track:append(), frame, time, d)
      track.outlines[frame] = d.outline
      self.open[#self.open + 1] = track
    end
  end
  local still, ending = {}, {}
  for _, track in ipairs(self.open) do
    if not track.is_kept then keep(self, track) end
    if time - track.samples[track.count - 1].time > self.gap then close(self, track) else still[#still + 1] = track end
  end
  for _, track in ipairs(self.ending) do
    if frame >= track.samples[track.count - 1].frame + self.lead then finish(self, track) else ending[#ending + 1] = track end
  end
  self.open, self.ending = still, ending
  -- a new track may lead, an open one be bridged, a gap's time back from the next frame; both change what is averaged over beside them
  while self.past < frame and self.times.at(self.past + 1) < time - self.wait - 2e-4 do self.past = self.past + 1 end
  self.final = math.max(self.final, math.min(self.past, frame - self.lead) - self.reach - 1)
end

--- The scene ends: tracks do not go on in the next frame, nor do their leads.
function Tracker:cut()
  for _, track in ipairs(self.open) do close(self, track) end
  for _, track in ipairs(self.ending) do finish(self, track) end
  self.open, self.ending, self.first, self.final = {}, {}, self.frame + 1, self.frame
end

--- Tracks that cover a frame that is final; frames in order, none is asked for again.
---@param frame integer
---@return Track[] tracks in the order that they will have at the end
function Tracker:covering(frame)
  local live, found = {}, {}
  for _, track in ipairs(self.live) do
    if track.samples[track.count - 1].frame >= frame or not track.is_over then live[#live + 1] = track end
    if track:at(frame) then
      if track.raw and frame - track.samples[0].frame >= track.head + track.smoothed then smooth(track, self.reach) end
      found[#found + 1] = track
    end
  end
  self.live = live
  return found
end

--- Ends the recording.
---@return Track[] tracks in order of their first frame, numbered from 1
function Tracker:finish()
  self:cut()
  table.sort(self.kept, is_before)
  for id, track in ipairs(self.kept) do track.id = id end
  return self.kept
end

return tracks
