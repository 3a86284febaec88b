-- Files and folders: atomic writes, natural order, the cache folder, checksums, locks. Knows no file format.
local ffi = require "ffi"
local lfs = require "lfs"
local sha256 = require "libration.sha256"

ffi.cdef [[
int fileno(void *stream);
int fsync(int fd);
int flock(int fd, int operation);
int fcntl(int fd, int command, ...);
int getpid(void);
]]
local C = ffi.C
local LOCK_EX_NB, F_SETFD, FD_CLOEXEC = 6, 2, 1 -- the same on Linux and macOS

local files = {}

---Joins parts with single slashes; an absolute later part replaces what stands before it. Empty parts are skipped.
---@return string path
function files.join(...)
  local path = ""
  for i = 1, select("#", ...) do
    local part = tostring((select(i, ...)))
    if part:sub(1, 1) == "/" or path == "" then
      path = part
    elseif part ~= "" then
      path = path:gsub("/+$", "") .. "/" .. part
    end
  end
  return path
end

---@return string folder the part before the last slash; "." where there is none, "/" for what lies in the root
function files.folder(path)
  local folder = path:gsub("/+$", ""):match("^(.*)/[^/]*$")
  if not folder then return "." end
  return folder == "" and "/" or folder
end

---@return string name the part after the last slash
function files.name(path)
  return (path:gsub("/+$", ""):match("[^/]*$"))
end

---@return string|nil kind "file", "directory", ... as lfs says; nil where there is nothing
function files.kind(path)
  return (lfs.attributes(path, "mode"))
end

---@return boolean true where something is there, of whatever kind
function files.exists(path)
  return files.kind(path) ~= nil
end

---@return boolean
function files.is_folder(path)
  return files.kind(path) == "directory"
end

---@return integer|nil bytes
function files.size(path)
  return (lfs.attributes(path, "size"))
end

-- "x: No space left on device" and the like, in one form for all of this file's errors.
local function refusal(verb, path, reason)
  reason = tostring(reason or "unknown reason")
  if reason:sub(1, #path + 2) == path .. ": " then reason = reason:sub(#path + 3) end
  if reason:find("No space left", 1, true) then reason = "the disk is full (no space left)" end
  return ("cannot %s %s: %s"):format(verb, path, reason)
end

---Makes a folder and what is missing above it.
---@return string|nil path the folder, or nil and the reason
function files.mkdirs(path)
  local kind = files.kind(path)
  if kind == "directory" then return path end
  if kind then return nil, refusal("make folder", path, "a " .. kind .. " is in the way") end
  local above = files.folder(path)
  if above ~= path then
    local ok, reason = files.mkdirs(above)
    if not ok then return nil, reason end
  end
  local ok, reason = lfs.mkdir(path)
  if not ok and not files.is_folder(path) then return nil, refusal("make folder", path, reason) end
  return path
end

---Makes the folder and proves with a file of a few bytes that one can write there.
---@return string|nil path the folder, or nil and the reason in one line
function files.writable(path)
  local ok, reason = files.mkdirs(path)
  if not ok then return nil, reason end
  local probe = files.temporary(files.join(path, "probe"))
  local file, err = io.open(probe, "wb")
  if not file then
    return nil, refusal("write to folder", path, (tostring(err):gsub("^" .. probe:gsub("%p", "%%%0") .. ": ", "")))
  end
  local wrote, why = file:write("libration\n")
  local closed, later = file:close()
  os.remove(probe)
  if not (wrote and closed) then return nil, refusal("write to folder", path, why or later) end
  return path
end

-- Sort key of natural order: digits padded, so that "frame2" stands before "frame10".
local function natural_key(name)
  return (name:lower():gsub("%d+", function(digits)
    digits = digits:gsub("^0+", "")
    return ("%04d"):format(#digits) .. digits
  end))
end

---Sorts a list of names in place in natural order (2 before 10, case ignored); returns it.
function files.sort(names)
  local key = {}
  for _, name in ipairs(names) do key[name] = natural_key(name) end
  table.sort(names, function(a, b)
    if key[a] ~= key[b] then return key[a] < key[b] end
    return a < b
  end)
  return names
end

---Names in a folder in natural order, hidden ones left out.
---@param pattern? string Lua pattern that the lower-case name must match, e.g. "%.png$"
---@return string[]|nil names, or nil and the reason
function files.list(path, pattern)
  local ok, step, handle = pcall(lfs.dir, path)
  if not ok then
    local reason = files.exists(path) and not files.is_folder(path) and "it is not a folder" or tostring(step):match("[^:]*$"):gsub("^%s+", "")
    return nil, refusal("list", path, reason)
  end
  local names = {}
  for name in step, handle do
    if name:sub(1, 1) ~= "." and (not pattern or name:lower():find(pattern)) then names[#names + 1] = name end
  end
  return files.sort(names)
end

local PIECE = 65536

--- A file piece by piece.
---@param path string
---@param limit? integer refuse files of more bytes
---@return (fun(): string|nil, string|nil)|nil next gives the next piece; nil at the end, nil and the reason where it cannot be read; or nil and the reason
---@return string|nil reason
function files.pieces(path, limit)
  if files.is_folder(path) then return nil, refusal("read", path, "it is a folder") end
  local file, err = io.open(path, "rb")
  if not file then return nil, refusal("read", path, err) end
  local size = 0
  return function()
    local piece, reason = file:read(PIECE)
    size = size + #(piece or "")
    if not piece then file:close() end
    if reason then return nil, refusal("read", path, reason) end
    if limit and size > limit then
      file:close()
      return nil, refusal("read", path, ("it has more than %d bytes"):format(limit))
    end
    return piece
  end
end

---The whole file as a string.
---@param limit? integer refuse files of more bytes
---@return string|nil text, or nil and the reason
function files.read(path, limit)
  local next_piece, why = files.pieces(path, limit)
  if not next_piece then return nil, why end
  local parts, piece, reason = {}
  repeat -- never a buffer of the limit's size: LuaJIT keeps it, and its collector rests until as much garbage again has come
    piece, reason = next_piece()
    parts[#parts + 1] = piece
  until not piece
  if reason then return nil, reason end
  return table.concat(parts)
end

local counter = 0

---A name in the same folder, hidden, with the same ending, that no other process uses: for writing first, renaming then.
function files.temporary(path)
  counter = counter + 1
  return files.join(files.folder(path), (".tmp-%d-%d-%s"):format(C.getpid(), counter, files.name(path)))
end

-- Data and name on the disk before anybody relies on them. Failure to sync a folder is not fatal: some file systems refuse it.
local function sync(path)
  local file, err = io.open(path, "rb")
  if not file then return nil, err end
  local ok = C.fsync(C.fileno(file)) == 0
  local reason = not ok and ("fsync failed, errno %d"):format(ffi.errno()) or nil
  file:close()
  return ok, reason
end

---Atomic replacement for writers that want a path: fn(temporary_path) writes, then the file is synced and renamed to path.
---On any error the temporary file is removed, path stays as it was, and the error is raised.
---@param fn fun(temporary: string)
---@return string path
function files.replace(path, fn)
  if files.is_folder(path) then error(refusal("write", path, "it is a folder"), 2) end
  local made, why = files.mkdirs(files.folder(path))
  if not made then error(why, 2) end
  local temporary = files.temporary(path)
  local ok, err = xpcall(function() fn(temporary) end, function(e)
    return os.getenv("LIBRATION_DEBUG") and type(e) == "string" and debug.traceback(e, 2) or e
  end)
  if not ok then
    os.remove(temporary)
    error(err, 0)
  end
  local synced, reason = sync(temporary)
  if synced then synced, reason = os.rename(temporary, path) end
  if not synced then
    os.remove(temporary)
    error(refusal("write", path, reason), 2)
  end
  sync(files.folder(path))
  return path
end

---Atomic write: readers see the old file or the whole new one, also after a crash or a full disk. Makes missing folders.
---@param content string|fun(file: table) text, or a function that gets an object with :write(...) and :seek(...) that raise on failure
---@return string path
function files.write(path, content)
  local ok, err = pcall(files.replace, path, function(temporary)
    local file, reason = io.open(temporary, "wb")
    if not file then error(refusal("write", path, tostring(reason):match("[^:]*$"):gsub("^%s+", "")), 0) end
    local function check(done, why)
      if not done then error(refusal("write", path, why), 0) end
      return done
    end
    local written, fault = pcall(function()
      if type(content) == "string" then
        check(file:write(content))
      else
        local out = {}
        function out.write(_, ...) check(file:write(...)) return out end
        function out.seek(_, ...) return check(file:seek(...)) end
        content(out)
      end
    end)
    local closed, why = file:close()
    if not written then error(fault, 0) end
    check(closed, why)
  end)
  if not ok then error(err, type(err) == "string" and not err:find("^[^\n]-:%d+: ") and 2 or 0) end
  return path
end

---Copies a file, atomically at the destination.
---@return string to
function files.copy(from, to)
  local input, err = io.open(from, "rb")
  if not input then error(refusal("read", from, err), 2) end
  files.write(to, function(out)
    while true do
      local piece = input:read(1048576)
      if not piece then break end
      out:write(piece)
    end
  end)
  input:close()
  return to
end

---Removes a file or a folder with all it holds; what is not there is no error. Links are removed, not followed.
function files.remove(path)
  if lfs.symlinkattributes(path, "mode") == "directory" then
    for name in lfs.dir(path) do
      if name ~= "." and name ~= ".." then files.remove(files.join(path, name)) end
    end
    return lfs.rmdir(path)
  end
  return os.remove(path)
end

---A new empty folder under $TMPDIR or /tmp; the caller removes it.
---@return string path
function files.temporary_folder()
  local name = os.tmpname() -- a file of its own, so the name beside it is ours as well
  os.remove(name)
  local base = os.getenv("TMPDIR")
  local path = (base and base ~= "" and files.join(base, files.name(name)) or name) .. ".libration"
  local ok, reason = files.mkdirs(path)
  if not ok then error(reason, 2) end
  return path
end

---The user's cache folder for this project, made when missing: $XDG_CACHE_HOME/libration, else ~/.cache/libration.
---@param ... string folders below it
---@return string path; raises one line that says what to set where nothing can be written there
function files.cache(...)
  local base = os.getenv("XDG_CACHE_HOME")
  if not base or base:sub(1, 1) ~= "/" then
    local home = os.getenv("HOME")
    if not home or home == "" then error("no cache folder: neither XDG_CACHE_HOME nor HOME is set", 2) end
    base = files.join(home, ".cache")
  end
  local path, reason = files.writable(files.join(base, "libration", ...))
  if not path then error(reason .. " (set XDG_CACHE_HOME to a folder that can be written)", 2) end
  return path
end

---The path from the root of the file system; . and .. stay as they are.
---@return string path
function files.absolute(path)
  return path:sub(1, 1) == "/" and path or files.join(lfs.currentdir(), path)
end

---One argument for a shell command line, quoted so that nothing in it is special.
function files.quote(argument)
  return "'" .. tostring(argument):gsub("'", "'\\''") .. "'"
end

local LARGE = 4194304 -- bytes from which starting sha256sum is quicker than hashing here

---Sha256 of a file's content. Large files go to sha256sum (coreutils) where there is one.
---@return string|nil hex 64 lower-case digits, or nil and the reason
function files.sha256(path)
  if files.is_folder(path) then return nil, refusal("read", path, "it is a folder") end
  local file, err = io.open(path, "rb")
  if not file then return nil, refusal("read", path, err) end
  if (files.size(path) or 0) > (jit.status() and LARGE or 65536) then
    local pipe = io.popen("sha256sum < " .. files.quote(path) .. " 2>/dev/null")
    local hex = pipe and pipe:read("*a"):match("^%x+")
    if pipe then pipe:close() end
    if hex and #hex == 64 then
      file:close()
      return hex
    end
  end
  local hash = sha256.new()
  while true do
    local piece, reason = file:read(1048576)
    if reason then
      file:close()
      return nil, refusal("read", path, reason)
    end
    if not piece then break end
    hash:add(piece)
  end
  file:close()
  return hash:hex()
end

---Sha256 of a string.
files.sha256_text = sha256.hex

---Removes temporary files that a killed process left in a folder. Only for who holds the lock of the folder, or of one above it.
---@param folder string
function files.sweep(folder)
  if not files.is_folder(folder) then return end
  for name in lfs.dir(folder) do
    if name:find("^%.tmp%-%d+%-%d+%-") then os.remove(files.join(folder, name)) end
  end
end

local held = {} -- anchors: a collected file handle would give its lock back

local Lock = {}
Lock.__index = Lock

---Claims a folder for this process until release() or the process ends, however it ends. Makes the folder when missing, proves that one
---can write there, and removes temporary files that a killed process left in it.
---@return table|nil lock with :release() and :abandon(), or nil and the reason (another run holds it, or it cannot be written)
function files.lock(folder)
  local fresh = not files.exists(folder)
  local ok, reason = files.writable(folder)
  if not ok then return nil, reason end
  local path = files.join(folder, ".lock")
  if held[path] then return nil, ("%s is in use by this process already"):format(folder) end
  local file, err = io.open(path, "a+")
  if not file then return nil, refusal("write to folder", folder, tostring(err):match("[^:]*$"):gsub("^%s+", "")) end
  local fd = C.fileno(file)
  C.fcntl(fd, F_SETFD, ffi.cast("int", FD_CLOEXEC)) -- children must not inherit the lock
  if C.flock(fd, LOCK_EX_NB) ~= 0 then
    file:seek("set")
    local owner = file:read("*l")
    file:close()
    return nil, ("%s is in use by another run%s"):format(folder, owner and owner ~= "" and " (process " .. owner .. ")" or "")
  end
  local truncate = io.open(path, "w") -- the number of whoever holds it now; the lock sits on the file, not on the text
  if truncate then
    truncate:write(("%d\n"):format(C.getpid()))
    truncate:close()
  end
  files.sweep(folder)
  held[path] = file
  return setmetatable({path = path, folder = folder, fresh = fresh}, Lock)
end

---Gives the folder back; idempotent. The file stays: removing it would let two others hold locks on two files of one name.
function Lock:release()
  local file = held[self.path]
  if not file then return end
  held[self.path] = nil
  file:close()
end

---Gives the folder back, and removes it with all it holds where the lock had made it.
function Lock:abandon()
  self:release()
  if self.fresh then files.remove(self.folder) end
end

return files
