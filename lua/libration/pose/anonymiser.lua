-- The two passes of the anonymiser over a recording or a picture, and the look at its result: find -> sidecar -> cover -> verify. Knows no options and no pages.
local ffi = require "ffi"
local files = require "libration.files"
local masks = require "libration.pose.masks"
local media = require "libration.media"
local tracks = require "libration.pose.tracks"

local anonymiser = {}

local WIDEST = 480 -- pixels of a thumbnail

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

-- True for errors that end the run and say nothing of a frame: Ctrl-C.
local function interrupted(err)
  return tostring(err):find("interrupted", 1, true) ~= nil
end

--- Pass one: what is to be covered.
---@param path string video or picture
---@param finder table with :look(frame) and :reset(), as pose/finder.lua makes them
---@param options {gap: number, lead: integer, evidence: number, threads: integer, on_open: fun(source: Source), on_frame: fun(n: integer, found: integer)}
---@return table|nil found {frames, width, height, fps, kind, blank, tracks, warning, faults = {{frame, reason}, ...}}, or nil and one line that names the file
function anonymiser.find(path, finder, options)
  local source, why = media.open(path, { threads = options.threads })
  if not source then return nil, why end
  if options.on_open then options.on_open(source) end
  finder:reset()
  local still = source.kind == "picture"
  -- one frame is all there is of a picture: nothing to add up, to smooth or to lead
  local tracker = tracks.tracker(still and { lead = 0, smooth = 0 } or { gap = options.gap, lead = options.lead, evidence = options.evidence })
  local times, found = clock(), { width = source.width, height = source.height, fps = source.fps, kind = source.kind, blank = {}, faults = {}, frames = 0, hits = 0 }
  local ok, err = pcall(function()
    for frame, time, index in source:each() do
      local looked, detections, cut = pcall(finder.look, finder, frame)
      if not looked then
        if interrupted(detections) then error(detections, 0) end
        found.blank[#found.blank + 1] = index
        found.faults[#found.faults + 1] = { frame = index, reason = tostring(detections):match "^[^\n]*" }
        detections, cut = {}, false
        finder:reset()
      end
      if cut then tracker:cut() end
      times.put(time)
      tracker:update(time, detections)
      found.frames, found.hits = index, found.hits + #detections
      if options.on_frame then options.on_frame(index, found.hits) end
    end
  end)
  source:close()
  if not ok then error(err, 0) end
  found.tracks, found.warning = tracker:finish(times.at), source.warning
  return found
end

--- Frames that deserve a second look: those of the weakest hits and the middles of the longest bridges, at most `count`, in order.
---@param plan Sidecar
---@param count integer
---@return {frame: integer, reason: string}[]
function anonymiser.doubtful(plan, count)
  local all = {}
  for _, track in ipairs(plan.tracks) do
    local weakest, run, longest, middle = nil, 0, 0, nil
    for i = 0, track.keep and -1 or track.count - 1 do
      local s = track.samples[i]
      if s.score > 0 then
        run = 0
        if not weakest or s.score < weakest.score then weakest = s end
      else
        run = run + 1
        if run > longest then longest, middle = run, track.samples[i - math.floor(run / 2)].frame end
      end
    end
    if weakest then
      all[#all + 1] = { weight = weakest.score, frame = weakest.frame, reason = ("track %d, confidence %.2f at %.2f s"):format(track.id, weakest.score, weakest.time) }
    end
    if middle and longest > 2 then
      all[#all + 1] = { weight = 1 / longest, frame = middle, reason = ("track %d, %d frames without a hit"):format(track.id, longest) }
    end
  end
  table.sort(all, function(a, b)
    if a.weight ~= b.weight then return a.weight < b.weight end
    return a.frame < b.frame
  end)
  local chosen, used = {}, {}
  for _, item in ipairs(all) do
    if #chosen < count and not used[item.frame] then
      used[item.frame] = true
      chosen[#chosen + 1] = item
    end
  end
  table.sort(chosen, function(a, b) return a.frame < b.frame end)
  return chosen
end

-- A small PNG of a frame.
local function thumbnail(frame)
  local tensor, core = require "libration.tensor", require "libration.core"
  local h, w = frame:size(1), frame:size(2)
  local scale = math.min(1, WIDEST / w)
  local oh, ow = math.max(1, math.floor(h * scale)), math.max(1, math.floor(w * scale))
  local small, region = tensor.empty({ oh, ow, 3 }, "u8"), ffi.new("lbr_region", w / 2, h / 2, w, h, 0)
  core.check(core.C.lbr_crop_u8(frame:ptr(), h, w, w * 3, region, core.C.LBR_BORDER_REPLICATE, small:ptr(), oh, ow))
  return small
end

--- PNG bytes of a frame, made small.
---@param frame Tensor u8 [H,W,3]
---@return string
function anonymiser.picture(frame)
  local folder = files.temporary_folder()
  local path = files.join(folder, "frame.png")
  local ok, err = pcall(function()
    media.write_png(path, thumbnail(frame))
    return assert(files.read(path))
  end)
  files.remove(folder)
  if not ok then error(err, 0) end
  return err
end

-- What covers frames of a recording: called with each frame, covers it in place. A frame that the plan does not know, or whose masks fail, is covered whole.
local function painter(plan, look)
  local settings, blank, state = plan.settings, {}, { blanked = {}, masked = 0, pictures = {} }
  for _, frame in ipairs(plan.blank) do blank[frame] = true end
  plan.mask, plan.margin = settings.mask, assert(masks.margin(settings.margin))
  local style = { style = settings.style, strength = settings.strength, feather = settings.feather }
  local doubtful, next_look = look and anonymiser.doubtful(plan, look) or {}, 1
  function state.paint(frame, index)
    local whole = blank[index] or index > plan.input.frames
    if not whole then
      local ok, err = pcall(function()
        local list = masks.of_frame(plan, index)
        if #list > 0 then
          media.mask.apply(frame, list, style)
          state.masked = state.masked + 1
        end
      end)
      if not ok and interrupted(err) then error(err, 0) end
      whole = not ok
    end
    if whole then
      ffi.fill(frame:ptr(), frame:numel())
      state.blanked[#state.blanked + 1] = index
    end
    local wanted = doubtful[next_look]
    if wanted and wanted.frame == index then
      state.pictures[next_look] = { data = anonymiser.picture(frame), caption = ("frame %d: %s"):format(index, wanted.reason), alt = "masked frame" }
      next_look = next_look + 1
    end
  end
  return state
end

--- Pass two: covers and encodes.
---@param path string the recording that the plan was made of
---@param output string where the result goes: .png for pictures
---@param plan Sidecar as sidecar.read gives it
---@param options {audio: string, crf: integer, threads: integer, look: integer, on_open: fun(source: Source), on_frame: fun(n: integer)} audio "keep", "drop" or "distort";
---  look: how many doubtful frames come back as pictures
---@return {frames: integer, masked: integer, blanked: integer[], pictures: table[], warning: string?} done; raises one line where that is not possible
function anonymiser.cover(path, output, plan, options)
  local state = painter(plan, options.look)
  local source = assert(media.open(path, { threads = options.threads }))
  if options.on_open then options.on_open(source) end
  if source.width ~= plan.input.width or source.height ~= plan.input.height then
    local w, h = source.width, source.height
    source:close()
    error(("%s: %dx%d pixels, but the sidecar was made of %dx%d"):format(path, w, h, plan.input.width, plan.input.height), 0)
  end
  local still, writer = source.kind == "picture", nil
  local ok, err = pcall(function()
    for frame, time, index in source:each() do
      state.paint(frame, index)
      if still then
        media.write_png(output, frame)
      else
        writer = writer or assert(media.writer(output, {
          width = source.width, height = source.height, fps = source.fps, crf = options.crf, threads = options.threads,
          audio_from = options.audio == "keep" and source.has_audio and path or nil,
        }))
        writer:write(frame, time)
      end
      state.frames = index
      if options.on_frame then options.on_frame(index) end
    end
    if writer then writer:close() end
  end)
  source:close()
  if not ok then
    if writer then writer:abort() end
    error(err, 0)
  end
  state.warning = writer and writer.warning
  return state
end

--- A sheet of masked frames, spread over the recording, for a look before anything is encoded.
---@param path string
---@param output string a .png
---@param plan Sidecar
---@param count integer frames at most
function anonymiser.preview(path, output, plan, count)
  local tensor = require "libration.tensor"
  local state, source = painter(plan), assert(media.open(path))
  local n = math.max(1, math.min(count, plan.input.frames))
  local columns = math.ceil(math.sqrt(n))
  local sheet, tall, wide, at = nil, nil, nil, 0
  local ok, err = pcall(function()
    for frame, _, index in source:each() do
      if at < n and index >= 1 + at * plan.input.frames / n then
        state.paint(frame, index)
        local small = thumbnail(frame)
        tall, wide = small:size(1), small:size(2)
        sheet = sheet or tensor.full({ math.ceil(n / columns) * tall, columns * wide, 3 }, 0, "u8")
        for y = 0, tall - 1 do
          ffi.copy(sheet:ptr() + ((math.floor(at / columns) * tall + y) * columns * wide + at % columns * wide) * 3, small:ptr() + y * wide * 3, wide * 3)
        end
        at = at + 1
      end
    end
    if sheet then media.write_png(output, sheet) end
  end)
  source:close()
  if not ok then error(err, 0) end
end

--- Looks at a result with another detector: what it sees beside the masks, as tracks, joined to the plan, each to be covered by a solid ellipse. What it takes for a
--- face under a mask is the mask: nothing of the face is left there.
---@param output string the covered recording or picture
---@param plan Sidecar that the result was made of; joined in place
---@param finder table with :look(frame), another one than the plan was made with
---@param options table as anonymiser.find
---@return Track[] left what was seen
function anonymiser.verify(output, plan, finder, options)
  local index, hidden = 0, {}
  for _, frame in ipairs(plan.blank) do hidden[frame] = true end
  plan.mask, plan.margin = plan.settings.mask, assert(masks.margin(plan.settings.margin))
  local open = {}
  function open.reset() finder:reset() end
  function open.look(_, frame)
    index = index + 1
    local seen, cut = finder:look(frame)
    local list, left = masks.of_frame(plan, index), {}
    for _, d in ipairs(seen) do
      if not hidden[index] and masks.covered(list, d) < .6 then left[#left + 1] = d end
    end
    return left, cut
  end
  local seen = assert(anonymiser.find(output, open, options))
  local id = 0
  for _, track in ipairs(plan.tracks) do id = math.max(id, track.id) end
  for i, track in ipairs(seen.tracks) do
    track.id, track.style = id + i, "box"
    plan.tracks[#plan.tracks + 1] = track
  end
  for _, frame in ipairs(seen.blank) do plan.blank[#plan.blank + 1] = frame end
  plan.blocks = nil
  return seen.tracks
end

return anonymiser
