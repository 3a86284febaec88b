-- A video encoded anew with masks on its frames, everything else of it kept or dropped by rule. What is masked is the caller's business.
local ffi = require "ffi"
local core = require "libration.core"
local library = require "libration.media.library"
local mask = require "libration.media.mask"
local tensor = require "libration.tensor"
require "libration.ops" -- gives tensors their methods

local media = {}

local C = core.C

---@class Transcode
---@field input string
---@field output string|nil
---@field width integer of the upright picture: what rgb() gives and masks are drawn on
---@field height integer
---@field rotation integer degrees clockwise that players turn the stored picture by; kept (made upright in .mkv)
---@field fps number frames a second on average; 0 when unknown
---@field count integer frames announced or estimated; 0 when unknown
---@field duration number seconds; 0 when unknown
---@field codec string of the source
---@field format string pixel format of the source
---@field sounds integer sound streams kept
---@field threads integer of the encoder: the same number gives the same bytes
---@field queue integer frames on the way at most
---@field held integer of these, those of the option hold that there was room for
---@field cell integer pixels along a cell of coarse pictures, 0 without; across, down: cells
---@field dropped string[] what is left out of the output: "subtitles: stream 2, mov_text", "tag: location"; values are not told
---@field warning string|nil what was wrong with the input, what had to be done otherwise than asked; complete after close
local Transcode = {}
Transcode.__index = Transcode

---@class TranscodeFrame
---@field index integer from 1
---@field time number seconds from the beginning of the file
---@field damaged string|nil "broken": the decoder says so; "lost": it could not be decoded and is black. To be blanked by who must be sure
local Frame = {}
Frame.__index = Frame

local OPTIONS = {
  input = "string", output = "string", audio = "string", crf = "number", preset = "string", format = "string", threads = "number",
  decoder_threads = "number", queue = "number", hold = "number", convert = "boolean", coarse = "boolean",
}
local SOUND = { keep = 0, drop = 1, distort = 2 }
local DAMAGE = { "broken", "lost" }

local function sound_of(name, level)
  local sound = SOUND[name or "keep"]
  if not sound then error(('media.transcode: audio is "%s", want keep, drop or distort'):format(tostring(name)), level + 1) end
  return sound
end

local function warned(self)
  local warning = ffi.string(library.open().lbr_transcode_warning(self.handle))
  if warning ~= "" then self.warning = warning end
end

local function drop(self)
  if not self.handle then return end
  warned(self)
  library.open().lbr_transcode_free(ffi.gc(self.handle, nil))
  self.handle = nil
end

-- Ends the run where the failure is not the caller's mistake, and raises.
local function failed(self, code)
  local why = library.reason()
  if code ~= C.LBR_EINVAL then drop(self) end
  if code == C.LBR_EINTR then core.poll() end
  core.raise(why)
end

local function open(self, what)
  if not self.handle then error(("%s: the transcode is closed: %s"):format(what, self.input), 3) end
  return self.handle
end

---Opens a video to be encoded anew: H.264 by x264, each frame with the masks that `write` gives it. C threads decode, mask and encode, at most `queue` frames
---are on the way, and memory does not grow with the length. Without `output` frames are only read, numbered alike: the first of two passes.
---    local t = assert(media.transcode {input = "in.mov", output = "out.mp4"})
---    for frame in t:frames() do
---      local faces = detect(frame:rgb())
---      t:write(frame, faces, {style = "mosaic"})   -- or t:blank(frame)
---    end
---    t:close()
---Kept: number and times of the frames, sound with its language, rotation, pixel aspect, colour tags, bit depth; unmasked pixels reach the encoder bit for bit
---where their format is one of H.264's. Dropped and listed in `dropped`: all tags, cover art, further videos, subtitles, data streams, chapters, attachments.
---The same input, masks, options and encoder threads give the same bytes. The output stands under its name only after close.
---@param opts {input: string, output: string, audio: string, crf: number, preset: string, format: string, threads: integer, decoder_threads: integer, queue: integer,
---  hold: number, convert: boolean, coarse: boolean}
---  output: .mp4, .mkv or .mov (media.container says which fits); audio: "keep" (every sound stream copied, or made AAC with a warning where the container
---  cannot take it), "drop" or "distort" (voices made unrecognisable for good: energies of 16 bands as noise, AAC); crf: quality, lower is better (20); preset:
---  of x264 ("veryfast"); format: pixel format of the output (the source's, or the nearest of H.264); threads: of the encoder (1.5 x the cores);
---  decoder_threads (the cores); queue: frames on the way (16); hold: seconds of frames, and ten more, beside those, for who masks a frame when what follows is known
---  (0); convert: frames become RGB ahead, in a thread of its own (false): where every frame is looked at; coarse: frames have coarse pictures (false)
---@return Transcode|nil transcode, or nil and one line that names the file
function media.transcode(opts)
  opts = library.options(opts, OPTIONS, "media.transcode")
  if not opts.input then error("media.transcode: input is missing", 2) end
  local lib = library.open()
  local o, out = ffi.new("lbr_transcode_options"), ffi.new("lbr_transcode *[1]")
  o.output, o.preset, o.format, o.crf = opts.output, opts.preset, opts.format, opts.crf or -1
  o.threads, o.decoder_threads, o.queue, o.sound = opts.threads or 0, opts.decoder_threads or 0, opts.queue or 0, sound_of(opts.audio, 2)
  o.hold = opts.hold or 0
  o.convert, o.coarse = opts.convert and 1 or 0, opts.coarse and 1 or 0
  local code = lib.lbr_transcode_open(opts.input, o, out)
  if code ~= C.LBR_OK then return library.refusal(code) end
  local handle, info, dropped = ffi.gc(out[0], lib.lbr_transcode_free), ffi.new("lbr_transcode_info"), {}
  lib.lbr_transcode_describe(handle, info)
  for line in ffi.string(lib.lbr_transcode_dropped(handle)):gmatch("[^\n]+") do dropped[#dropped + 1] = line end
  local self = setmetatable({
    handle = handle, input = opts.input, output = opts.output, width = info.width, height = info.height, rotation = info.rotation, fps = info.fps,
    duration = info.duration, codec = ffi.string(info.codec), format = ffi.string(info.format), sounds = info.sounds,
    threads = info.threads, queue = info.queue, held = info.held, cell = info.cell, across = info.across, down = info.down, count = tonumber(info.frames), dropped = dropped,
    index_out = ffi.new("int64_t[1]"), time_out = ffi.new("double[1]"), damaged_out = ffi.new("int[1]"),
  }, Transcode)
  warned(self)
  return self
end

---The container that fits an input: "mkv" where it is Matroska or WebM or its sound can be kept only there, else "mp4".
---@param path string
---@param audio string|nil as media.transcode
---@return string|nil "mp4" or "mkv", or nil and one line that names the file
function media.container(path, audio)
  local name = ffi.new("char[8]")
  local code = library.open().lbr_transcode_container(path, sound_of(audio, 2), name)
  if code ~= C.LBR_OK then return library.refusal(code) end
  return ffi.string(name)
end

function Transcode:__tostring()
  return ("transcode %dx%d, %.4g frames/s, %d frames: %s%s"):format(self.width, self.height, self.fps, self.count, self.input,
    self.output and " -> " .. self.output or "")
end

---Next frame, to be given back by write or blank in order; up to queue - 1 may be in hand. Raises one line where the input cannot be read on, where the
---output cannot be written and on Ctrl-C; no output is left then.
---@return TranscodeFrame|nil frame; nil after the last
function Transcode:next()
  local handle = open(self, "transcode:next")
  local code = library.open().lbr_transcode_next(handle, self.index_out, self.time_out, self.damaged_out)
  if code == C.LBR_EEND then
    warned(self)
    return nil
  end
  if code ~= C.LBR_OK then failed(self, code) end
  return setmetatable({ of = self, index = tonumber(self.index_out[0]) + 1, time = self.time_out[0], damaged = DAMAGE[self.damaged_out[0]] }, Frame)
end

---Iterator: `for frame in t:frames() do`.
function Transcode:frames()
  return Transcode.next, self
end

-- The tensor that a picture of h x w goes into.
local function room_for(what, into, h, w)
  if into then
    local s = into.shape
    if into.dtype ~= "u8" or #s ~= 3 or s[1] ~= h or s[2] ~= w or s[3] ~= 3 or not into:is_contiguous() then
      error(("%s: tensor is %s [%s], want contiguous u8 [%d,%d,3]"):format(what, into.dtype, table.concat(s, ","), h, w), 3)
    end
  end
  return into or tensor.empty({ h, w, 3 }, "u8")
end

---The picture, upright, before any mask. Only until its masks were given; of a transcode without output, only for the last queue / 2 frames.
---@param into Tensor|nil u8 [height,width,3], contiguous; a new one otherwise
---@return Tensor u8 [height,width,3]
function Frame:rgb(into)
  local t = self.of
  local handle = open(t, "frame:rgb")
  local rgb = room_for("frame:rgb", into, t.height, t.width)
  local code = library.open().lbr_transcode_rgb(handle, self.index - 1, rgb:ptr())
  if code ~= C.LBR_OK then failed(t, code) end
  rgb:touch()
  return rgb
end

---The picture as the means of its cells, for comparisons with other frames of the same video; as long as rgb is there. Wants the option `coarse`.
---@param into Tensor|nil u8 [down,across,3], contiguous; a new one otherwise
---@return Tensor u8 [down,across,3]
function Frame:coarse(into)
  local t = self.of
  local handle = open(t, "frame:coarse")
  local coarse = room_for("frame:coarse", into, math.max(1, t.down), math.max(1, t.across))
  local code = library.open().lbr_transcode_coarse(handle, self.index - 1, coarse:ptr())
  if code ~= C.LBR_OK then failed(t, code) end
  coarse:touch()
  return coarse
end

---Gives a frame its masks and passes it on; frames in order. Raises at the caller's line what mask.apply refuses; the frame can be given others then.
---@param frame TranscodeFrame
---@param masks Mask[]|nil in pixels of the upright picture; nil or empty: the frame stays as it is
---@param options {style: string, strength: number, feather: number}|nil as mask.apply
function Transcode:write(frame, masks, options)
  local handle = open(self, "transcode:write")
  local array, count, anchors = mask.pack(masks or {}, options, 2)
  local code = library.open().lbr_transcode_write(handle, frame.index - 1, array, count)
  anchors[1] = nil
  if code ~= C.LBR_OK then failed(self, code) end
end

---Gives the output up: frames are only read from now on, though they are given back as before; close leaves no file.
function Transcode:abandon()
  library.open().lbr_transcode_abandon(open(self, "transcode:abandon"))
end

---Passes a frame on all black.
---@param frame TranscodeFrame
function Transcode:blank(frame)
  self:write(frame, { { shape = "box", x = self.width / 2, y = self.height / 2, width = self.width, height = self.height } }, { style = "box" })
end

---Seconds that each stage has been at work, and frames.
---@return {decode: number, convert: number, mask: number, encode: number, elapsed: number, read: integer, encoded: integer} convert: to RGB for the caller;
---  encode: with sound and file; elapsed: since opening
function Transcode:busy()
  local b = ffi.new("lbr_transcode_busy")
  library.open().lbr_transcode_busy_now(open(self, "transcode:busy"), b)
  return {
    decode = b.decode, convert = b.convert, mask = b.mask, encode = b.encode, elapsed = b.elapsed, read = tonumber(b.read), encoded = tonumber(b.encoded),
  }
end

---Ends the output and renames it to its name. Raises one line where that failed or where a frame was not given its masks; there is no output then. Idempotent.
function Transcode:close()
  if not self.handle then return end
  local code = library.open().lbr_transcode_finish(self.handle)
  local why = library.reason()
  drop(self)
  if code == C.LBR_EINTR then core.poll() end
  if code ~= C.LBR_OK then core.raise(why) end
end

---Gives up: no output is left. Idempotent; also what happens to a transcode that is never closed.
function Transcode:abort()
  drop(self)
end

return media
