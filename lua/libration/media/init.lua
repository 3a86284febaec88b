-- Video, pictures and folders of frames in, video and pictures out, masks, checksums: FFmpeg, libpng and libjpeg behind one Lua face. Knows nothing of poses.
local library = require "libration.media.library"

local media = {}

for _, room in ipairs { "source", "picture", "writer", "transcode", "hash" } do
  for name, value in pairs(require("libration.media." .. room)) do media[name] = value end
end

--- Masks: ellipses, boxes and polygons over pixels.
media.mask = require "libration.media.mask"

--- The opened C library, for rooms that draw with its scene renderer.
---@return ffi.namespace*
media.library = library.open

---Sources, writers and hashes that hold memory in the media library, for leak checks.
---@return integer
function media.live()
  return tonumber(library.open().lbr_media_live())
end

return media
