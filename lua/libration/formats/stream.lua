-- A file that grows over a long run and appears under its name only when it is whole; rows that wait on the disk. Knows no format.
local files = require "libration.files"

---@class Stream
local Stream = {}
Stream.__index = Stream

local M = {}

---Begins a file in the folder of `path`, made when missing, under a temporary name.
---@param path string
---@return Stream stream; raises one line where the folder cannot be written
function M.begin(path)
  local made, why = files.mkdirs(files.folder(path))
  if not made then error(why, 0) end
  local temporary = files.temporary(path)
  local file, reason = io.open(temporary, "w+b")
  if not file then error(("cannot write %s: %s"):format(path, tostring(reason):match("[^:]*$"):gsub("^%s+", "")), 0) end
  return setmetatable({ path = path, temporary = temporary, file = file }, Stream)
end

local function check(self, ok, reason)
  if ok then return end
  self:abort()
  reason = tostring(reason)
  if reason:find("No space left", 1, true) then reason = "the disk is full (no space left)" end
  error(("cannot write %s: %s"):format(self.path, reason), 0)
end

---Writes strings at the end. Raises one line where the disk is full; the stream is gone then.
function Stream:write(...)
  if not self.file then error(self.path .. ": the stream is closed", 2) end
  check(self, self.file:write(...))
end

---Replaces bytes at `at` (from 0), then goes on at the end.
function Stream:patch(at, text)
  if not self.file then error(self.path .. ": the stream is closed", 2) end
  check(self, self.file:seek("set", at))
  check(self, self.file:write(text))
  check(self, self.file:seek("end"))
end

---Syncs and renames: from here on the file is there under its name.
---@return string path
function Stream:close()
  if not self.file then error(self.path .. ": the stream is closed", 2) end
  local file = self.file
  check(self, file:flush())
  self.file = nil
  local closed, reason = file:close()
  check(self, closed, reason)
  return files.replace(self.path, function(temporary)
    local ok, why = os.rename(self.temporary, temporary)
    if not ok then error(why, 0) end
  end)
end

---Drops what was written; idempotent.
function Stream:abort()
  if self.file then
    self.file:close()
    self.file = nil
  end
  os.remove(self.temporary)
end

---Closes a writer that `put` has filled; drops it where that raises, and raises the same.
---@generic W
---@param writer W {close: fun(self): string, abort: fun(self)}
---@param put fun(writer: W)
---@return string path
function M.filled(writer, put)
  local ok, err = pcall(put, writer)
  if not ok then
    writer:abort()
    error(err, 0)
  end
  return writer:close()
end

---Appends every frame to a writer and closes it; drops it where that fails.
---@param writer {append: fun(self, values: ffi.cdata*, time: number?), close: fun(self): string, abort: fun(self)}
---@param landmarks Tensor f32 [T,J,C]
---@param times number[]? seconds, one a frame
---@return string path
function M.fill(writer, landmarks, times)
  return M.filled(writer, function()
    local flat, shape = landmarks:to("f32"):contiguous(), landmarks.shape
    local p, values = flat:ptr(), shape[2] * shape[3]
    for t = 0, shape[1] - 1 do writer:append(p + t * values, times and times[t + 1]) end
  end)
end

---@class Spool rows that wait in a file without a name, gone with the process: what safetensors.save takes in place of a tensor
---@field dtype string
---@field shape integer[] [rows, ...] so far
local Spool = {}
Spool.__index = Spool

---@param dtype string
---@param row integer[] shape of one row
---@return Spool? spool, or nil and the reason: no room for temporary files
function M.spool(dtype, row)
  local file, reason = io.tmpfile()
  if not file then return nil, reason end
  return setmetatable({ dtype = dtype, shape = { 0, unpack(row) }, file = file }, Spool)
end

---Appends a row's bytes. After a full disk the spool is closed and takes nothing more.
---@param bytes string
function Spool:append(bytes)
  if not self.file then return end
  if self.file:write(bytes) then
    self.shape[1] = self.shape[1] + 1
  else
    self:close()
  end
end

---@return integer elements
function Spool:numel()
  local n = 1
  for _, d in ipairs(self.shape) do n = n * d end
  return n
end

---All bytes in order, a piece at once. Raises where the disk was full.
---@param out {write: function}
function Spool:pour(out)
  if not (self.file and self.file:flush() and self.file:seek("set")) then error("the disk is full (no space left)", 0) end
  for piece in function() return self.file:read(1048576) end do out:write(piece) end
end

---Lets go of the file; idempotent.
function Spool:close()
  if self.file then self.file:close() end
  self.file = nil
end

return M
