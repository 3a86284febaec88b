-- Covers the frames of a recording by a plan, and keeps small pictures of the most doubtful ones as they are covered. Finds nothing and opens no file.
local ffi = require "ffi"
local core = require "libration.core"
local masks = require "libration.pose.masks"
local media = require "libration.media"
local tensor = require "libration.tensor"

local covering = {}

local LONGEST = 480 -- pixels of a thumbnail

--- A frame made small.
---@param frame Tensor u8 [H,W,3]
---@return Tensor u8 at most 480 a side
---@return number scale pixels of it for one of the frame
function covering.thumbnail(frame)
  local h, w = frame:size(1), frame:size(2)
  local scale = math.min(1, LONGEST / math.max(w, h))
  local oh, ow = math.max(1, math.floor(h * scale)), math.max(1, math.floor(w * scale))
  local small, region = tensor.unscoped(tensor.empty, { oh, ow, 3 }, "u8"), ffi.new("lbr_region", w / 2, h / 2, w, h, 0)
  core.check(core.C.lbr_crop_u8(frame:ptr(), h, w, w * 3, region, core.C.LBR_BORDER_REPLICATE, small:ptr(), oh, ow))
  return small, scale
end

-- Covers RGB in place.
local function paint(rgb, list, style)
  if list then return media.mask.apply(rgb, list, style) end
  ffi.fill(rgb:ptr(), rgb:numel())
  return rgb
end

-- Masks as they lie on a picture that is made smaller.
local function scaled(list, scale)
  local new = {}
  for i, mask in ipairs(list) do
    local m = { shape = mask.shape, angle = mask.angle, style = mask.style }
    for _, name in ipairs { "x", "y", "width", "height" } do m[name] = mask[name] and mask[name] * scale end
    if mask.points then
      m.points = {}
      for k, v in ipairs(mask.points) do m.points[k] = v * scale end
    end
    new[i] = m
  end
  return new
end

-- How little a track's place in a frame is to be trusted, and why: less where its hit is weaker, or where the gap is longer in whose middle it lies; nil elsewhere.
local function doubt(track, frame)
  local s = track:at(frame)
  if not s then return nil end
  -- in tenths: what is hardly weaker than the last one is no news
  if s.score > 0 then return "hit", math.floor(10 * s.score) / 10, ("confidence %.2f at %.2f s"):format(s.score, s.time) end
  local samples, at = track.samples, tonumber(s - track.samples)
  local first, last = at, at
  while first > 0 and samples[first - 1].score == 0 do first = first - 1 end
  while last < track.count - 1 and samples[last + 1].score == 0 do last = last + 1 end
  local n = last - first + 1
  if first == 0 or last == track.count - 1 or n < 3 or at ~= first + math.floor(n / 2) then return nil end
  return "gap", 1 / n, ("%d frames without a hit"):format(n)
end

---@class Covering
---@field frames integer frames so far
---@field masked integer of these, those that something was covered in
---@field blanked integer[] those that were covered whole
local Covering = {}
Covering.__index = Covering

--- Covers frames by a plan.
---@param plan Sidecar as sidecar.read gives it; or with covering(frame) instead of tracks, while those are still being made
---@param count? integer doubtful frames of which pictures are kept (0)
---@return Covering
function covering.new(plan, count)
  local settings, blank = plan.settings, {}
  for _, frame in ipairs(plan.blank) do blank[frame] = true end
  plan.mask, plan.margin = settings.mask, assert(masks.margin(settings.margin))
  return setmetatable({
    plan = plan, blank = blank, style = { style = settings.style, strength = settings.strength, feather = settings.feather }, count = count or 0, doubtful = {},
    frames = 0, masked = 0, blanked = {},
  }, Covering)
end

-- The masks of a frame; nil where all of it is to be covered: one that the plan does not know or that failed.
local function list_of(self, frame)
  self.frames = frame.index
  if frame.damaged or frame.fault or self.blank[frame.index] or frame.index > self.plan.input.frames then
    self.blanked[#self.blanked + 1] = frame.index
    return nil
  end
  local list = masks.of_frame(self.plan, frame.index)
  if #list > 0 then self.masked = self.masked + 1 end
  return list
end

-- A covered picture of a frame, made small.
local function small_of(self, frame, list)
  self.room = frame:rgb(self.room)
  local small, scale = covering.thumbnail(self.room)
  local style = { style = self.style.style, strength = self.style.strength, feather = (self.style.feather or 0) * scale }
  return paint(small, list and scaled(list, scale), style)
end

-- Keeps a picture of the frame where one of its tracks is more doubtful than what is kept so far: of each track its weakest hit and its longest gap.
local function watch(self, frame, list)
  for _, track in ipairs(self.count > 0 and masks.tracks_near(self.plan, frame.index) or {}) do
    local what, weight, reason = doubt(track, frame.index)
    if what and not track.keep then
      local mine, worst, known
      for i, item in ipairs(self.doubtful) do
        if item.track == track and item.what == what then mine = i end
        if not worst or item.weight > self.doubtful[worst].weight then worst = i end
        known = known or item.frame == frame.index
      end
      local place = mine or #self.doubtful < self.count and #self.doubtful + 1 or worst
      local other = self.doubtful[place]
      if not known and (not other or weight < other.weight) then
        self.doubtful[place] = { track = track, what = what, weight = weight, frame = frame.index, reason = reason, small = small_of(self, frame, list) }
      end
    end
  end
end

--- Covers a frame of a transcode and passes it on; frames in order.
---@param source Transcode
---@param frame TranscodeFrame fault: why it was not looked at, then all of it is covered
function Covering:pass(source, frame)
  local list = list_of(self, frame)
  watch(self, frame, list)
  if list then source:write(frame, list, self.style) else source:blank(frame) end
end

--- Covers the pixels of a frame.
---@param frame table index, and rgb() where pictures of doubtful frames are kept
---@param rgb Tensor u8 [H,W,3], in place
---@return Tensor rgb
function Covering:paint(frame, rgb)
  local list = list_of(self, frame)
  watch(self, frame, list)
  return paint(rgb, list, self.style)
end

--- Pictures of the most doubtful frames, in order, as a page's gallery takes them.
---@return {data: string, type: string, caption: string, alt: string}[]
function Covering:pictures()
  local list = {}
  table.sort(self.doubtful, function(a, b) return a.frame < b.frame end)
  for i, item in ipairs(self.doubtful) do
    list[i] = { data = media.pack_jpeg(item.small), type = "image/jpeg", caption = ("frame %d: track %d, %s"):format(item.frame, item.track.id, item.reason),
      alt = "masked frame" }
  end
  return list
end

return covering
