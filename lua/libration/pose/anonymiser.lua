-- What the anonymiser does with a recording or a picture: find (and cover in the same pass) -> sidecar -> cover -> verify. Knows no options and no pages.
local ffi = require "ffi"
local files = require "libration.files"
local masks = require "libration.pose.masks"
local covering = require "libration.pose.covering"
local looks = require "libration.pose.looks"
local media = require "libration.media"
local sidecar = require "libration.pose.sidecar"
local tensor = require "libration.tensor"
local tracks = require "libration.pose.tracks"

local anonymiser = {}

--- True where a file begins like a picture, and is no video.
---@param path string
---@return boolean
function anonymiser.is_picture(path)
  return media.library().lbr_picture_is(path) == 1
end

-- A video or a picture as { width, height, count, each = iterator over {index, time, damaged, rgb()} }, nil and one line where it cannot be opened. Without output
-- a video is only read; frames have the same numbers either way.
local function open(path, options)
  if not files.exists(path) then return nil, path .. ": No such file or directory" end
  if not anonymiser.is_picture(path) then
    local video, why = media.transcode {
      input = path, output = options.output, audio = options.audio, crf = options.crf, preset = options.preset, threads = options.threads,
      decoder_threads = options.threads, queue = options.queue, hold = options.hold, convert = options.convert, coarse = options.coarse,
    }
    if not video then return nil, why end
    return video
  end
  local picture, why = media.read_picture(path)
  if not picture then return nil, why end
  local still = { still = true, width = picture:size(2), height = picture:size(1), count = 1, dropped = {} }
  function still.frames()
    local done = false
    return function()
      if done then return nil end
      done = true
      return { index = 1, time = 0, rgb = function() return picture end }
    end
  end
  function still.close() end
  still.abort = still.close
  return still
end

--- Frames from all over a recording, for networks that are calibrated by what they will see: some that can be decoded.
---@param path string video or picture
---@param count integer frames at most; a picture is one
---@return Tensor[] frames u8 [H,W,3]; raises one line that names the file where there is none
function anonymiser.sample(path, count)
  if anonymiser.is_picture(path) then return { (assert(media.read_picture(path))) } end
  local first = assert(media.open(path, { threads = 1 }))
  local length, frames, why = first.duration, {}, nil
  first:close()
  for k = 1, length > 0 and count or 1 do -- the first frame is one of them
    local video = media.open(path, { threads = 1, start = length * (k - 1) / count })
    local ok, frame = pcall(function() return video and video:next() end)
    if ok then frames[#frames + 1] = frame else why = frame end
    if video then video:close() end
  end
  if #frames == 0 then error(why or path .. ": no frame could be decoded", 0) end
  return frames
end

-- Ends a source that was covered: what was done.
local function finish(source, cover)
  local pictures, busy = cover:pictures(), source.busy and source:busy() -- while the last frames are encoded
  source:close()
  return {
    busy = busy, frames = cover.frames, masked = cover.masked, blanked = cover.blanked, pictures = pictures, dropped = source.dropped,
    sounds = source.sounds or 0, warning = source.warning,
  }
end

local SPARE = 8 -- frames held beside those of a gap: what is averaged over, and what came since
local PATIENCE = 2 -- gaps' times that a frame waits, where there is room, in which a track may turn out to be one

-- The source of a first pass; where it may cover as it goes, one that also writes and holds enough frames, if there is room for them.
local function open_to_find(path, options, every)
  local cover = options.cover
  if cover and not anonymiser.is_picture(path) then
    local source, why = open(path, {
      threads = options.threads, queue = options.queue, hold = math.max(PATIENCE * options.gap, .1), coarse = true, output = cover.output, audio = cover.audio,
      crf = cover.crf, preset = cover.preset,
    })
    if not source or source.held >= math.max(options.gap * source.fps, options.lead) + SPARE then return source, why end
    source:abort()
  end
  return open(path, { threads = options.threads, queue = options.queue, convert = every == 0, coarse = true })
end

--- What is to be covered; where asked for and possible, it is covered in the same pass: each frame some time later, when what follows hardly changes what covers it.
--- Where that happens all the same (who was seen weakly for long is seen surely) the output is given up, and left to anonymiser.cover.
---@param path string video or picture
---@param finder table with :look(frame, at) and :reset(), as pose/finder.lua makes them
---@param options {gap: number, lead: integer, evidence: number, threads: integer, every: number, queue: integer, on_open: fun(count: integer, covers: boolean),
---  on_frame: fun(n: integer, found: integer, busy: table?, looks: table), source: table?, cover: table?}
---  every: seconds between two looks at most, where those agree (0: every frame is looked at); queue: frames held at most, beside those of a gap where they are
---  covered at once; source: instead of the file's own frames, as media.open gives them in another rate or size: every frame of it is looked at;
---  cover: {output, audio, crf, preset, look as for anonymiser.cover; settings, regions: those of the sidecar; on_found: fun(found)} on_found is called before the
---  output gets its name
---@return table|nil found {frames, looks, busy, width, height, blank, tracks, warning, faults = {{frame, reason}, ...}, done}, or nil and one line that names the file;
---  looks: as looks.run gives it; busy: as the transcode's; done: as anonymiser.cover gives it, nil where nothing was covered: not asked for, a picture, frames too
---  large or too many to be held, given up; raises the error of a CUDA device that fails under a finder without a fallback
function anonymiser.find(path, finder, options)
  local every = options.source and 0 or options.every or 0
  local source, why = options.source, nil
  if not source then source, why = open_to_find(path, options, every) end
  if not source then return nil, why end
  -- one frame is all there is of a picture: nothing to add up, to smooth or to lead
  local tracker = tracks.tracker(source.still and { gap = 0, lead = 0, smooth = 0 } or {
    gap = options.gap, lead = options.lead, evidence = options.evidence, width = source.width, height = source.height,
    wait = source.held and source.held > 0 and math.min(PATIENCE * options.gap, (source.held - SPARE) / source.fps) or nil,
  })
  local found = { width = source.width, height = source.height, blank = {}, faults = {}, frames = 0, hits = 0 }
  local cover, waiting, first, last = nil, {}, 1, 0
  if source.held and source.held > 0 then
    cover = covering.new({
      settings = options.cover.settings, regions = options.cover.regions, blank = {}, input = { frames = math.huge },
      covering = function(frame) return tracker:covering(frame) end,
    }, options.cover.look)
  end
  -- Covers the frames of which all is known, by the numbers that the sidecar will have.
  local function hand_on()
    while first <= last and waiting[first].index <= tracker.final do
      local frame = waiting[first]
      for _, track in ipairs(tracker:covering(frame.index)) do sidecar.round(track:at(frame.index)) end
      cover:pass(source, frame)
      waiting[first], first = nil, first + 1
    end
  end
  -- Frames go back to their source as they are: no output of this pass can be right.
  local function give_up()
    cover = nil
    source:abandon()
    for i = first, last do source:write(waiting[i]) end
  end
  local function take(look, state)
    if look.fault then
      found.blank[#found.blank + 1] = look.index
      found.faults[#found.faults + 1] = { frame = look.index, reason = look.fault }
    end
    if look.cut then tracker:cut() end
    local detections = look.detections or {}
    tracker:update(look.time, detections)
    found.frames, found.hits = look.index, found.hits + #detections
    if cover then
      look.frame.fault = look.fault
      last = last + 1
      waiting[last] = look.frame
      if not tracker.late then hand_on() end
      if tracker.late or last - first >= source.held then give_up() end
    elseif source.held and source.held > 0 then
      source:write(look.frame)
    end
    if options.on_frame then options.on_frame(look.index, found.hits, source.busy and source:busy(), state) end
  end
  local ok, err = pcall(function()
    if finder.prepare then finder:prepare() end -- while the first frames are decoded
    if options.on_open then options.on_open(source.count, cover ~= nil) end
    found.looks = looks.run(source, finder, { every = every, lead = options.lead }, take)
    found.tracks = tracker:finish()
    if cover then
      hand_on()
      options.cover.on_found(found)
      found.done = finish(source, cover)
      found.busy = found.done.busy
    else
      found.busy = source.busy and source:busy()
      source:close()
    end
  end)
  if not ok then
    source:abort()
    error(err, 0)
  end
  found.warning = source.warning
  return found
end

--- Covers by a plan, and encodes.
---@param path string the recording that the plan was made of
---@param output string where the result goes: .png for pictures
---@param plan Sidecar as sidecar.read gives it
---@param options {audio: string, crf: integer, preset: string, threads: integer, queue: integer, look: integer, on_open: fun(count: integer),
---  on_frame: fun(n: integer, busy: table?)}
---  audio "keep", "drop" or "distort"; look: how many doubtful frames come back as pictures
---@return {frames: integer, masked: integer, blanked: integer[], pictures: table[], dropped: string[], sounds: integer, warning: string?, busy: table?} done;
---  raises one line where that is not possible, and leaves no output then
function anonymiser.cover(path, output, plan, options)
  local source = assert(open(path, {
    output = output, audio = options.audio, crf = options.crf, preset = options.preset, threads = options.threads, queue = options.queue,
  }))
  if source.width ~= plan.input.width or source.height ~= plan.input.height then
    source:abort()
    error(("%s: %dx%d pixels, but the sidecar was made of %dx%d"):format(path, source.width, source.height, plan.input.width, plan.input.height), 0)
  end
  if options.on_open then options.on_open(source.count) end
  local cover, done = covering.new(plan, options.look), nil
  local ok, err = pcall(function()
    for frame in source:frames() do
      if source.still then media.write_png(output, cover:paint(frame, frame.rgb())) else cover:pass(source, frame) end
      if options.on_frame then options.on_frame(frame.index, source.busy and source:busy()) end
    end
    done = finish(source, cover)
  end)
  if not ok then
    source:abort()
    error(err, 0)
  end
  return done
end

--- A sheet of masked frames, spread over the recording, for a look before anything is encoded.
---@param path string
---@param output string a .png
---@param plan Sidecar
---@param count integer frames at most
function anonymiser.preview(path, output, plan, count)
  local cover, source = covering.new(plan), assert(open(path, {}))
  local n = math.max(1, math.min(count, plan.input.frames))
  local columns = math.ceil(math.sqrt(n))
  local sheet, tall, wide, at = nil, nil, nil, 0
  local ok, err = pcall(function()
    for frame in source:frames() do
      if at < n and frame.index >= 1 + at * plan.input.frames / n then
        local small = covering.thumbnail(cover:paint(frame, frame:rgb()))
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
  source:abort()
  if not ok then error(err, 0) end
end

--- Covers heads in frames that are drawn over and shown elsewhere: finds them in the whole recording first, by the same pass.
---@param path string video or folder of pictures
---@param source_options table of media.open
---@param options {finder: table?, threads: integer, on_open: fun(count: integer), on_frame: fun(n: integer, found: integer)} finder: instead of the anonymiser's own
---@return fun(frame: Tensor, index: integer) hide covers frame u8 [H,W,3], the index-th (from 1) that media.open gives with those options, in place
function anonymiser.hider(path, source_options, options)
  local video = assert(media.open(path, source_options))
  local source = { width = video.width, height = video.height, count = video.frames or 0 }
  function source.frames()
    local index = 0
    return function()
      local frame, time = video:next()
      if not frame then return nil end
      index = index + 1
      return { index = index, time = time, rgb = function() return frame end }
    end
  end
  function source.close() video:close() end
  source.abort = source.close
  local confidence = .3
  local found = assert(anonymiser.find(path, options.finder or require "libration.pose.finder".new { confidence = confidence }, {
    gap = 1, lead = 5, evidence = 2 * confidence, source = source, threads = options.threads, on_open = options.on_open, on_frame = options.on_frame,
  }))
  local cover = covering.new {
    input = { frames = found.frames }, settings = { mask = "head", style = "box", margin = ".6" }, blank = found.blank, regions = {}, tracks = found.tracks,
  }
  return function(frame, index) cover:paint({ index = index }, frame) end
end

--- The second look's own test: in how many frames of the source it sees something, which it must where there are faces. Looks at frames all over the recording,
--- of those that have a hit where there are any.
---@param path string the recording before masking
---@param plan Sidecar
---@param finder table with :look(frame)
---@param count integer frames looked at, at most
---@return integer looked
---@return integer seen frames of these with a detection
function anonymiser.control(path, plan, finder, count)
  local hit, frames = {}, {}
  for _, track in ipairs(plan.tracks) do
    for i = 0, track.count - 1 do
      if track.samples[i].score > 0 then hit[track.samples[i].frame] = true end
    end
  end
  local any = next(hit) ~= nil
  for frame = 1, plan.input.frames do
    if hit[frame] or not any then frames[#frames + 1] = frame end
  end
  local wanted = {}
  for k = 1, math.min(count, #frames) do wanted[frames[math.floor((k - .5) * #frames / math.min(count, #frames)) + 1]] = true end
  local source, looked, seen = assert(open(path, {})), 0, 0
  local ok, err = pcall(function()
    for frame in source:frames() do
      if wanted[frame.index] and not frame.damaged then
        looked, seen = looked + 1, seen + (#finder:look(frame:rgb()) > 0 and 1 or 0)
      end
    end
  end)
  source:abort()
  if not ok then error(err, 0) end
  return looked, seen
end

--- Looks at a result with another detector: what it sees beside the masks, as tracks, joined to the plan, each to be covered solidly. What it takes for a
--- face under a mask is the mask: nothing of the face is left there, and it counts only where that is asked for; what was to stay visible is not reported.
---@param output string the covered recording or picture
---@param plan Sidecar that the result was made of; joined in place
---@param finder table with :look(frame), another one than the plan was made with
---@param options table as anonymiser.find; and only: set of frames, the others are not looked at again; grow: factor of what is covered (1);
---  strict: true takes what looks like a face under a mask for one, too, but under masks of eyes, which leave the rest of it
---@return Track[] left what was seen
---@return table<integer, boolean> frames that have new masks
function anonymiser.verify(output, plan, finder, options)
  local hidden, only, grow = {}, options.only, options.grow or 1
  for _, frame in ipairs(plan.blank) do hidden[frame] = true end
  plan.mask, plan.margin = plan.settings.mask, assert(masks.margin(plan.settings.margin))
  local known = not (options.strict and plan.mask ~= "eyes") or "visible"
  local beside = setmetatable({}, { __index = finder })
  function beside.reset() finder:reset() end
  function beside.look(_, frame, at)
    if hidden[at.index] or only and not only[at.index] then return {} end
    local list, left = masks.of_frame(plan, at.index, known), {}
    for _, d in ipairs(finder:look(frame, at)) do
      if masks.covered(list, d) < .9 then
        d.width, d.height = grow * d.width, grow * d.height
        left[#left + 1] = d
      end
    end
    return left
  end
  local seen, id, frames = assert(anonymiser.find(output, beside, options)), 0, {}
  for _, track in ipairs(plan.tracks) do id = math.max(id, track.id) end
  for i, track in ipairs(seen.tracks) do
    track.id, track.style = id + i, "box"
    plan.tracks[#plan.tracks + 1] = track
    for k = 0, track.count - 1 do frames[track.samples[k].frame] = true end
  end
  for _, frame in ipairs(seen.blank) do
    plan.blank[#plan.blank + 1] = frame
    frames[frame] = true
  end
  plan.blocks = nil
  return seen.tracks, frames
end

return anonymiser
