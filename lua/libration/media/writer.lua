-- RGB frames to an H.264 file. Re-encoding of an existing video without leaving its planes: transcode.lua.
local ffi = require "ffi"
local core = require "libration.core"
local library = require "libration.media.library"

local media = {}

local C = core.C

---@class Writer
---@field path string
---@field width integer of the frames it takes; the file's is rounded up to even
---@field height integer
---@field warning string|nil what had to be done otherwise than asked
local Writer = {}
Writer.__index = Writer

local WRITER_OPTIONS = {
  width = "number", height = "number", fps = "number", crf = "number", preset = "string", codec = "string", audio_from = "string",
  start = "number", stop = "number", threads = "number",
}

---Opens a video file to write: H.264, yuv420p, variable frame rate. It stands under its name only after Writer:close.
---@param path string ends in .mp4, .mkv, .mov or .avi
---@param opts {width: integer, height: integer, fps: number, crf: integer, preset: string, codec: string, audio_from: string, start: number, stop: number, threads: integer}
---  fps: nominal (25); crf: x264 quality (20); preset: of x264 ("veryfast"); codec: "h264" or "mpeg4"; audio_from: the video whose audio
---  is kept; start: seconds taken off frames and audio; stop: where the audio ends
---@return Writer|nil writer, or nil and one line that names the file
function media.writer(path, opts)
  if type(path) ~= "string" or path == "" then error("media.writer: path is a " .. type(path) .. ", want a string", 2) end
  opts = library.options(opts, WRITER_OPTIONS, "media.writer")
  if not (opts.width and opts.height) then error("media.writer: width and height are missing", 2) end
  local lib = library.open()
  local o = ffi.new("lbr_writer_options")
  o.width, o.height, o.fps, o.crf, o.threads = opts.width, opts.height, opts.fps or 0, opts.crf or -1, opts.threads or 0
  o.preset, o.codec, o.audio_from = opts.preset, opts.codec, opts.audio_from
  o.start, o.stop = opts.start or 0, opts.stop or 0
  local out = ffi.new("lbr_writer *[1]")
  local code = lib.lbr_writer_open(path, o, out)
  if code ~= C.LBR_OK then return library.refusal(code) end
  local handle = ffi.gc(out[0], lib.lbr_writer_free)
  local warning = ffi.string(lib.lbr_writer_warning(handle))
  return setmetatable({ handle = handle, path = path, width = opts.width, height = opts.height, warning = warning ~= "" and warning or nil }, Writer)
end

local function drop(self)
  if not self.handle then return end
  library.open().lbr_writer_free(ffi.gc(self.handle, nil))
  self.handle = nil
end

---Queues a copy of a frame. Raises (and leaves no file) on a full disk, on Ctrl-C and where the time does not grow.
---@param frame Tensor u8 [H,W,3] RGB
---@param time number seconds, larger than the frame's before
function Writer:write(frame, time)
  if not self.handle then error("the writer is closed: " .. self.path, 2) end
  local shape = frame.shape
  if frame.dtype ~= "u8" or #shape ~= 3 or shape[1] ~= self.height or shape[2] ~= self.width or shape[3] ~= 3 then
    error(("writer:write: frame is %s [%s], want u8 [%d,%d,3]"):format(frame.dtype, table.concat(shape, ","), self.height, self.width), 2)
  end
  frame = frame:contiguous()
  local code = library.open().lbr_writer_write(self.handle, frame:ptr(), time)
  if code == C.LBR_OK then return end
  local why = library.reason()
  if code ~= C.LBR_EINVAL then drop(self) end
  if code == C.LBR_EINTR then core.poll() end
  core.raise(why)
end

---Encodes what is queued, and renames the file to its name. Raises one line where that failed; there is no file then. Idempotent.
function Writer:close()
  if not self.handle then return end
  local code = library.open().lbr_writer_finish(self.handle)
  local why = library.reason()
  drop(self)
  if code == C.LBR_EINTR then core.poll() end
  if code ~= C.LBR_OK then core.raise(why) end
end

---Gives up: no file is left. Idempotent; also what happens to a writer that is never closed.
function Writer:abort()
  drop(self)
end

return media
