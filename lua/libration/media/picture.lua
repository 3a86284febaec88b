-- Single pictures in and out: PNG, JPEG, BMP, WebP, TIFF. No sequences.
local ffi = require "ffi"
local core = require "libration.core"
local library = require "libration.media.library"
local tensor = require "libration.tensor"
require "libration.ops" -- gives tensors their methods

local media = {}

local C = core.C
local QUALITY = 92 -- of a JPEG

---Reads a picture: PNG, JPEG, BMP, WebP, TIFF. Grey and palettes become RGB, 16 bits 8, transparency is dropped, a stored orientation applied.
---@param path string
---@return Tensor|nil rgb u8 [H,W,3], or nil and one line that names the file
function media.read_picture(path)
  if type(path) ~= "string" then error("media.read_picture: path is a " .. type(path) .. ", want a string", 2) end
  local lib = library.open()
  local out, size = ffi.new("uint8_t *[1]"), ffi.new("int[2]")
  local code = lib.lbr_picture_read(path, out, size, size + 1)
  if code ~= C.LBR_OK then return library.refusal(code) end
  local pixels = ffi.gc(out[0], lib.lbr_picture_free)
  local rgb = tensor.empty({ size[1], size[0], 3 }, "u8")
  ffi.copy(rgb:ptr(), pixels, size[0] * size[1] * 3)
  lib.lbr_picture_free(ffi.gc(pixels, nil))
  return rgb
end

-- Channels of pixels that a picture can be made of; raises at the caller's caller.
local function channels_of(pixels, name, most)
  local shape = pixels.shape
  local channels = #shape == 2 and 1 or shape[3]
  if pixels.dtype ~= "u8" or #shape < 2 or #shape > 3 or not (channels == 1 or channels == 3 or channels == most) then
    error(("%s: pixels are %s [%s], want u8 [H,W]%s [H,W,3]%s"):format(name, pixels.dtype, table.concat(shape, ","), most == 4 and "," or " or",
      most == 4 and " or [H,W,4]" or ""), 3)
  end
  return channels
end

---Writes a PNG under a temporary name and renames it: pixels and nothing else. Raises one line where that is not possible.
---@param path string
---@param pixels Tensor u8 [H,W] grey, [H,W,1] grey, [H,W,3] RGB or [H,W,4] RGBA
function media.write_png(path, pixels)
  local channels = channels_of(pixels, "media.write_png", 4)
  pixels = pixels:contiguous()
  if library.open().lbr_png_write(path, pixels:ptr(), pixels.shape[2], pixels.shape[1], channels) ~= C.LBR_OK then error(library.reason(), 2) end
end

---Writes a JPEG in the same way: no EXIF, no comment.
---@param path string
---@param pixels Tensor u8 [H,W] grey, [H,W,1] grey or [H,W,3] RGB
---@param quality integer|nil 1 to 100 (92); from 90 on chroma is not subsampled
function media.write_jpeg(path, pixels, quality)
  local channels = channels_of(pixels, "media.write_jpeg")
  pixels = pixels:contiguous()
  local code = library.open().lbr_jpeg_write(path, pixels:ptr(), pixels.shape[2], pixels.shape[1], channels, quality or QUALITY)
  if code ~= C.LBR_OK then error(library.reason(), 2) end
end

---The bytes of a JPEG as write_jpeg writes it.
---@param pixels Tensor as for write_jpeg
---@param quality integer|nil as for write_jpeg
---@return string
function media.pack_jpeg(pixels, quality)
  local channels = channels_of(pixels, "media.pack_jpeg")
  pixels = pixels:contiguous()
  local lib, data, size = library.open(), ffi.new("char *[1]"), ffi.new("size_t[1]")
  if lib.lbr_jpeg_pack(pixels:ptr(), pixels.shape[2], pixels.shape[1], channels, quality or QUALITY, data, size) ~= C.LBR_OK then error(library.reason(), 2) end
  local bytes = ffi.string(data[0], size[0])
  lib.lbr_jpeg_free(data[0])
  return bytes
end

return media
