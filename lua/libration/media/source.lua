-- Videos, pictures and folders of pictures as sources of frames, read ahead by C threads. Writes nothing.
local ffi = require "ffi"
local core = require "libration.core"
local files = require "libration.files"
local library = require "libration.media.library"
local tensor = require "libration.tensor"
require "libration.ops" -- gives tensors their methods

local media = {}

local C = core.C

-- {x=,y=,w=,h=} or {x, y, w, h}, or width and height spelled out
local function rectangle(crop, name)
  local x, y = crop.x or crop[1], crop.y or crop[2]
  local w, h = crop.w or crop.width or crop[3], crop.h or crop.height or crop[4]
  for _, v in ipairs { x or false, y or false, w or false, h or false } do
    if type(v) ~= "number" or v ~= math.floor(v) then error(name .. ": crop wants four whole numbers: x, y, w, h in pixels", 3) end
  end
  if x < 0 or y < 0 or w < 1 or h < 1 then error(("%s: crop %d,%d,%d,%d, want x, y >= 0 and w, h >= 1"):format(name, x, y, w, h), 3) end
  return x, y, w, h
end

---@class Source
---@field kind string "video", "picture" or "folder"
---@field path string as given
---@field width integer of the frames delivered, after crop and rotation
---@field height integer
---@field source_width integer of the upright picture before crop and rotation
---@field source_height integer
---@field fps number frames a second on average (folders: as asked for); 0 when the file does not tell
---@field frames integer estimate of the frames to come between start and stop; 0 when unknown
---@field duration number seconds; 0 when unknown
---@field codec string
---@field has_audio boolean
---@field files string[]|nil the pictures of a folder, in order
---@field warning string|nil what was wrong with the file (truncated, damaged); complete after the last frame
local Source = {}
Source.__index = Source

function Source:__tostring()
  return ("source %s %dx%d, %.4g frames/s, %d frames: %s"):format(self.kind, self.width, self.height, self.fps, self.frames, self.path)
end

local PICTURE = { png = true, jpg = true, jpeg = true, jpe = true, bmp = true, webp = true, tif = true, tiff = true }

---The pictures of a folder in natural order. A MINI-RGBD sequence (with a folder rgb/ in it) gives its rgb/syn_*.png; depth is never listed.
---@param path string
---@return string[]|nil paths, or nil and the reason
function media.pictures(path)
  local folder = path
  if files.is_folder(files.join(path, "rgb")) then folder = files.join(path, "rgb") end
  local names, why = files.list(folder)
  if not names then return nil, why end
  local found, rendered = {}, {}
  for _, name in ipairs(names) do
    local lower = name:lower()
    if PICTURE[lower:match("%.(%w+)$") or ""] and not lower:find("_depth%.%w+$") then
      found[#found + 1] = files.join(folder, name)
      if lower:find("^syn_%d+%.png$") then rendered[#rendered + 1] = found[#found] end
    end
  end
  if #rendered > 0 then found = rendered end
  if #found == 0 then return nil, ("%s: no pictures in this folder (want .png, .jpg, .bmp, .webp or .tif)"):format(folder) end
  return found
end

local SOURCE_OPTIONS = { fps = "number", start = "number", stop = "number", crop = "table", rotate = "number", threads = "number", queue = "number" }

---Opens a video, a picture or a folder of pictures as a source of frames.
---@param path string
---@param opts? {fps: number, start: number, stop: number, crop: table, rotate: integer, threads: integer, queue: integer} fps: for pictures
---  (25; a video has its own); start, stop: seconds, frames with start <= time < stop; crop: {x=,y=,w=,h=} in the upright picture; rotate: 90,
---  180, 270 degrees clockwise, after the crop; threads of the decoder; queue: frames read ahead (8)
---@return Source|nil source, or nil and one line that names the file
function media.open(path, opts)
  if type(path) ~= "string" or path == "" then error("media.open: path is " .. (path == "" and "empty" or "a " .. type(path)) .. ", want a string", 2) end
  opts = library.options(opts, SOURCE_OPTIONS, "media.open")
  local lib = library.open()
  local o = ffi.new("lbr_source_options")
  o.start, o.stop, o.fps = opts.start or 0, opts.stop or 0, opts.fps or 0
  if o.start < 0 then error("media.open: start is negative", 2) end
  if opts.stop and opts.stop <= o.start then error(("media.open: stop %g s is not after start %g s"):format(opts.stop, o.start), 2) end
  if opts.fps and not (opts.fps > 0 and opts.fps < math.huge) then error("media.open: fps wants a positive number", 2) end
  o.rotate, o.threads, o.queue = opts.rotate or 0, opts.threads or 0, opts.queue or 0
  if o.rotate ~= (opts.rotate or 0) or o.rotate % 90 ~= 0 or o.rotate < 0 or o.rotate > 270 then
    error(("media.open: rotate is %s, want 0, 90, 180 or 270"):format(opts.rotate), 2)
  end
  if opts.crop then o.crop[0], o.crop[1], o.crop[2], o.crop[3] = rectangle(opts.crop, "media.open") end

  if not files.exists(path) then return nil, path .. ": No such file or directory" end
  local out, list, kind = ffi.new("lbr_source *[1]"), nil, "video"
  if files.is_folder(path) then
    local why
    list, why = media.pictures(path)
    if not list then return nil, why end
    kind = "folder"
  elseif lib.lbr_picture_is(path) == 1 then
    list, kind = { path }, "picture"
  end
  local code = list and lib.lbr_pictures_open(table.concat(list, "\0") .. "\0", #list, o, out) or lib.lbr_video_open(path, o, out)
  if code ~= C.LBR_OK then return library.refusal(code) end

  local handle = ffi.gc(out[0], lib.lbr_source_close)
  local info = ffi.new("lbr_source_info")
  lib.lbr_source_describe(handle, info)
  return setmetatable({
    handle = handle, path = path, kind = kind, files = list,
    width = info.width, height = info.height, source_width = info.source_width, source_height = info.source_height,
    fps = info.fps, duration = info.duration, frames = tonumber(info.frames), codec = ffi.string(info.codec), has_audio = info.has_audio ~= 0,
    crop = opts.crop and { rectangle(opts.crop, "media.open") } or { 0, 0, info.source_width, info.source_height }, rotate = o.rotate,
    time_out = ffi.new("double[1]"), index_out = ffi.new("int64_t[1]"),
  }, Source)
end

-- Next frame into a tensor, or nothing at the end.
local function take(self, frame)
  if not self.handle then core.raise("the source is closed: " .. self.path) end
  local code = library.open().lbr_source_next(self.handle, frame:ptr(), self.time_out, self.index_out)
  if code == C.LBR_OK then
    frame:touch()
    return frame, self.time_out[0], tonumber(self.index_out[0]) + 1
  end
  local warning = ffi.string(library.open().lbr_source_warning(self.handle))
  if warning ~= "" then self.warning = warning end
  if code == C.LBR_EINTR then core.poll() end
  if code ~= C.LBR_EEND then core.raise(library.reason()) end
end

---Next frame, in a tensor that the next call overwrites. Raises where a picture is broken or of another size, and on Ctrl-C.
---@return Tensor|nil frame u8 [H,W,3] RGB; nil after the last
---@return number time seconds from the beginning of the file
---@return integer index 1 for the first frame after opening or seeking
function Source:next()
  local frame = self.frame
  if not frame or frame.storage == nil then -- an outer scope may have freed it
    frame = tensor.empty({ self.height, self.width, 3 }, "u8")
    self.frame = frame
  end
  return take(self, tensor.keep(frame))
end

---Next frame in a tensor of its own, or in the one given.
---@param frame? Tensor u8 [H,W,3], contiguous
---@return Tensor|nil frame, number time, integer index as Source:next
function Source:read(frame)
  if frame then
    local shape = frame.shape
    if frame.dtype ~= "u8" or #shape ~= 3 or shape[1] ~= self.height or shape[2] ~= self.width or shape[3] ~= 3 then
      error(("source:read: frame is %s [%s], want u8 [%d,%d,3]"):format(frame.dtype, table.concat(shape, ","), self.height, self.width), 2)
    end
  end
  return take(self, frame or tensor.empty({ self.height, self.width, 3 }, "u8"))
end

---Iterator: `for frame, time, index in source:each() do`; the frame is overwritten by the next step.
function Source:each()
  return Source.next, self
end

---The next frame will be the first whose time is at or after `seconds`; its index is 1.
---@param seconds number from the beginning of the file
function Source:seek(seconds)
  if not self.handle then error("the source is closed: " .. self.path, 2) end
  if type(seconds) ~= "number" or seconds ~= seconds or seconds < 0 then error("source:seek: want seconds >= 0", 2) end
  if library.open().lbr_source_seek(self.handle, seconds) ~= C.LBR_OK then error(library.reason(), 2) end
end

---A point of a delivered frame in pixels of the upright picture before crop and rotation (corners at 0 and width, height).
---@return number x, number y
function Source:to_source(x, y)
  local left, top, w, h = self.crop[1], self.crop[2], self.crop[3], self.crop[4]
  if self.rotate == 90 then x, y = y, h - x
  elseif self.rotate == 180 then x, y = w - x, h - y
  elseif self.rotate == 270 then x, y = w - y, x end
  return x + left, y + top
end

---Stops the decoder and frees its memory; idempotent.
function Source:close()
  if not self.handle then return end
  local warning = ffi.string(library.open().lbr_source_warning(self.handle))
  if warning ~= "" then self.warning = warning end
  library.open().lbr_source_close(ffi.gc(self.handle, nil))
  self.handle, self.frame = nil, nil
end

return media
