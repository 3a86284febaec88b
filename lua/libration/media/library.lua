-- What the files of this room share: the C library, its errors in the reader's words, checked option tables. Not for users.
local ffi = require "ffi"
local core = require "libration.core"

local library = {}

local C, M = core.C, nil

---The C library behind this room (csrc/media/media.h), opened when first needed: training from landmark files needs no FFmpeg.
---@return ffi.namespace*
function library.open()
  M = M or core.open_library("libration_media", "lbr_media_cdef")
  return M
end

-- The C text without the C function's name: these lines are read by people who gave a file.
local OWN = { video_open = true, video_seek = true, pictures_open = true, picture = true, picture_read = true, png_write = true, writer = true, sha256 = true,
  mask = true, transcode = true, jpeg_write = true, jpeg_pack = true }

---The last error's text.
---@return string
function library.reason()
  local text = ffi.string(C.lbr_error())
  local name, rest = text:match("^([%l%d_]+): (.*)$")
  return OWN[name] and rest or text
end

---What an open that failed returns; Ctrl-C is no property of the file and raises.
---@param code integer LBR_E*
---@return nil, string reason
function library.refusal(code)
  if code == C.LBR_EINTR then core.poll() end
  return nil, library.reason()
end

---Checks an option table: unknown names and wrong types raise at the caller's caller.
---@param given table|nil
---@param known table<string, string> type of each option
---@param name string of the function, for errors
---@param level integer|nil where an error stands (3: the caller's caller)
---@return table
function library.options(given, known, name, level)
  for key, value in pairs(given or {}) do
    local want = known[key]
    if not want then
      local list = {}
      for k in pairs(known) do list[#list + 1] = k end
      table.sort(list)
      error(("%s: unknown option '%s', known are %s"):format(name, tostring(key), table.concat(list, ", ")), level or 3)
    elseif type(value) ~= want then
      error(("%s: option '%s' is a %s, want a %s"):format(name, key, type(value), want), level or 3)
    end
  end
  return given or {}
end

return library
