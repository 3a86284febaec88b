-- Key frames of a recording for its page: where the error is largest in the longest flagged stretches, as pictures with the skeleton or as
-- the skeleton alone. Decodes a video once more; judges nothing.

local media = require "libration.media"
local tensor = require "libration.tensor"
local draw = require "libration.pose.draw"
local overlay = require "libration.anomaly.overlay"
local cairo = require "libration.report.cairo"

local keyframes = {}

-- Pictures wider than this are halved until they are not: a page with three frames of a 4K video would have 50 MB.
local WIDEST = 960

local function is_low(error, verdict)
  return verdict.low ~= nil and error < verdict.low.threshold
end

---Times worth showing, in order, and the frame of the scores that each falls on: of the largest error, in a stretch of too low errors of the least.
---One alone gets the frame of the least error of all beside it.
---@param scored Scored
---@param verdict Verdict
---@param count integer at most
---@return { time: number, frame: integer }[] frame from 1
function keyframes.times(scored, verdict, count)
  local stretches = {}
  for i, e in ipairs(verdict.episodes) do
    stretches[i] = e
  end
  table.sort(stretches, function(a, b)
    return a.last - a.first > b.last - b.first or a.last - a.first == b.last - b.first and a.first < b.first
  end)
  if #stretches == 0 then
    stretches[1] = { first = 0, last = scored.frames - 1 }
  end
  local times = {}
  for i = 1, math.min(count, #stretches) do
    local best, most = nil, -math.huge
    for t = stretches[i].first, stretches[i].last do
      local e = scored.frame_error[t + 1]
      local weight = is_low(e, verdict) and -e or e
      if weight > most then
        best, most = t, weight
      end
    end
    if best then
      times[#times + 1] = { time = scored.begin + best / scored.fps, frame = best + 1 }
    end
  end
  if #times == 1 and count > 1 then
    local best, least = nil, math.huge
    for t = 0, scored.frames - 1 do
      local e = scored.frame_error[t + 1]
      if e == e and e < least then
        best, least = t, e
      end
    end
    if best + 1 ~= times[1].frame then
      times[2] = { time = scored.begin + best / scored.fps, frame = best + 1 }
    end
  end
  table.sort(times, function(a, b)
    return a.time < b.time
  end)
  return times
end

local function caption_of(time, error, verdict)
  if is_low(error, verdict) then
    return ("%.2f s, error %.2f, under the low threshold of %.2f"):format(time, error, verdict.low.threshold)
  end
  return ("%.2f s, error %.2f, %s the threshold of %.2f"):format(time, error, error > verdict.threshold and "over" or "under", verdict.threshold)
end

-- a picture of half the width and height, each pixel the mean of four
local function halved(frame)
  local h, w = math.floor(frame:size(1) / 2), math.floor(frame:size(2) / 2)
  local out = tensor.zeros({ h, w, 3 }, "u8")
  local from, to, row = frame:ptr(), out:ptr(), frame:size(2) * 3
  for y = 0, h - 1 do
    for x = 0, w - 1 do
      local at = 2 * y * row + 6 * x
      for c = 0, 2 do
        to[(y * w + x) * 3 + c] = (from[at + c] + from[at + 3 + c] + from[at + row + c] + from[at + row + 3 + c] + 2) / 4
      end
    end
  end
  return out
end

---Pictures with the skeleton drawn over them, PNG.
---@param path string of the video or folder
---@param source_options table of media.open
---@param recording Recording
---@param scored Scored
---@param verdict Verdict
---@param hide fun(frame: Tensor, index: integer)|nil covers the faces of the index-th frame, as anonymiser.hider makes it; then the followed head is covered, too
---@return { data: string, type: string, caption: string }[]
function keyframes.pictures(path, source_options, recording, scored, verdict, hide)
  local times = keyframes.times(scored, verdict, 4)
  local source = assert(media.open(path, source_options))
  local room = draw.overlay(source.width, source.height, cairo.over)
  local covers = hide and overlay.covers(recording.landmarks) or {}
  local pictures, t = {}, 0
  local half = .5 / recording.fps
  local ok, err = pcall(function()
    while #pictures < #times do
      local frame, time = source:next()
      if not frame then
        break
      end
      t = t + 1
      if time >= times[#pictures + 1].time - half then
        local k = math.min(scored.frames, math.max(1, math.floor((time - scored.begin) * scored.fps + .5) + 1))
        if hide then hide(frame, t) end
        room:paint(frame, function(canvas)
          overlay.paint(canvas, {
            points = recording.landmarks:select(1, math.min(t, recording.frames)), width = source.width, height = source.height, cover = covers[t],
            flagged = verdict.frame_flag[k], error = scored.frame_error[k], threshold = verdict.threshold, time = time,
          })
        end)
        while frame:size(2) > WIDEST do
          frame = halved(frame)
        end
        pictures[#pictures + 1] = {
          data = media.pack_jpeg(frame), type = "image/jpeg", caption = caption_of(time, scored.frame_error[k], verdict),
          alt = "Frame with the skeleton found in it",
        }
      end
    end
  end)
  source:close()
  if not ok then
    error(err, 0)
  end
  return pictures
end

---The skeletons alone, as `sections.poses` takes them: nothing of the picture.
---@param sequence Sequence
---@param scored Scored
---@param verdict Verdict
---@param coordinates string|nil "pixels", or those in parts of the picture's width and height: "unit", "centred"
---@return { points: Tensor, skeleton: string, caption: string, aspect: number }[]
function keyframes.poses(sequence, scored, verdict, coordinates)
  local out, frames = {}, sequence.points:size(1)
  local parts = (coordinates == "unit" or coordinates == "centred") and sequence.width and sequence.height
  for i, at in ipairs(keyframes.times(scored, verdict, 4)) do
    local best = math.floor(at.time * sequence.fps + .5) + 1
    if sequence.times then
      best = 1
      for t, time in ipairs(sequence.times) do
        if math.abs(time - at.time) < math.abs(sequence.times[best] - at.time) then
          best = t
        end
      end
    end
    best = math.max(1, math.min(frames, best))
    out[i] = { points = sequence.points:select(1, best), skeleton = sequence.skeleton, aspect = parts and sequence.width / sequence.height or 1,
      caption = caption_of(at.time, scored.frame_error[at.frame], verdict) }
  end
  return out
end

return keyframes
