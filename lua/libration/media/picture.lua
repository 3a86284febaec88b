-- Single pictures in and out: PNG, JPEG, BMP, WebP, TIFF. No sequences.
local ffi = require "ffi"
local core = require "libration.core"
local library = require "libration.media.library"
local tensor = require "libration.tensor"
require "libration.ops" -- gives tensors their methods

local media = {}

local C = core.C

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

---Writes a PNG under a temporary name and renames it. Raises one line where that is not possible.
---@param path string
---@param pixels Tensor u8 [H,W] grey, [H,W,1] grey, [H,W,3] RGB or [H,W,4] RGBA
function media.write_png(path, pixels)
  local shape = pixels.shape
  local channels = #shape == 2 and 1 or shape[3]
  if pixels.dtype ~= "u8" or #shape < 2 or #shape > 3 or not (channels == 1 or channels == 3 or channels == 4) then
    error(("media.write_png: pixels are %s [%s], want u8 [H,W], [H,W,3] or [H,W,4]"):format(pixels.dtype, table.concat(shape, ",")), 2)
  end
  pixels = pixels:contiguous()
  if library.open().lbr_png_write(path, pixels:ptr(), shape[2], shape[1], channels) ~= C.LBR_OK then error(library.reason(), 2) end
end

return media
