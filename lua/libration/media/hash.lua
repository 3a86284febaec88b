-- SHA-256 of files, strings and tensors.
local ffi = require "ffi"
local core = require "libration.core"
local library = require "libration.media.library"

local media = {}

local C = core.C

---SHA-256 of a file.
---@return string|nil hex 64 digits, or nil and the reason
function media.sha256(path)
  local hex = ffi.new("char[65]")
  local code = library.open().lbr_sha256_file(path, hex)
  if code ~= C.LBR_OK then return library.refusal(code) end
  return ffi.string(hex)
end

---@class Hash
local Hash = {}
Hash.__index = Hash

---An SHA-256 that grows: media.hash():update(...):hex().
---@return Hash
function media.hash()
  local lib = library.open()
  local handle = lib.lbr_sha256_new()
  if handle == nil then error("media.hash: no memory", 2) end
  return setmetatable({ handle = ffi.gc(handle, lib.lbr_sha256_free), text = ffi.new("char[65]") }, Hash)
end

local BYTES = { u8 = 1, f16 = 2, bf16 = 2, f32 = 4, i32 = 4, f64 = 8 }

---Adds a string, or a contiguous CPU tensor's bytes.
---@param data string|Tensor
---@return Hash itself
function Hash:update(data)
  if type(data) == "string" then
    library.open().lbr_sha256_update(self.handle, data, #data)
  else
    library.open().lbr_sha256_update(self.handle, data:ptr(), data:numel() * BYTES[data.dtype])
  end
  return self
end

---The digest of all that was added; the hash starts again.
---@return string hex 64 digits
function Hash:hex()
  library.open().lbr_sha256_hex(self.handle, self.text)
  return ffi.string(self.text)
end

return media
