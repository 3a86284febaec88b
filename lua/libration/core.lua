-- core.lua: opens the C core and turns its status codes into Lua errors at the user's line. Knows no ops by name.
local ffi = require "ffi"

ffi.cdef "int setenv(const char *name, const char *value, int overwrite); char *getenv(const char *name);"
-- libgomp reads these once, when it is loaded: workers that wait sleep, so that a busy neighbour does not stall a parallel region, but only after some
-- microseconds in which the next layer of a network comes: where waking takes 40 of them two threads were slower than one.
ffi.C.setenv("OMP_WAIT_POLICY", "passive", 0)
ffi.C.setenv("GOMP_SPINCOUNT", "1000", 0)
-- A recipe compiles to more than LuaJIT gives room for by itself (1000 traces, 512 KB): when that is full it forgets all of them and begins anew.
if jit.status() then jit.opt.start("maxtrace=4000", "maxmcode=8192") end

local core = {}

local own = debug.getinfo(1, "S").source
local folder = own:match("^@(.*)[/\\]core%.lua$") or "."

--- Where the library `name` lies: on LUA_CPATH, in the checkout's build folder beside this file, or on package.cpath.
---@param name string for example "libration_core"
---@return string|nil path, string|nil looked what was looked for, when it is not there
function core.find_library(name)
  local chosen = os.getenv("LUA_CPATH")
  chosen = chosen and package.searchpath(name, chosen)
  if chosen then return chosen end
  local path = folder .. "/../../build/" .. name .. ".so"
  local file = io.open(path, "rb")
  if file then
    file:close()
    return path
  end
  return package.searchpath(name, package.cpath)
end

local opened = {}

--- Opens a library of the toolkit and declares the ABI that it carries itself.
---@param name string
---@param door string name of its function that returns the cdef text
---@return ffi.namespace* library the same one for each call: its structs can be declared only once
function core.open_library(name, door)
  if opened[name] then return opened[name] end
  local path, looked = core.find_library(name)
  if not path then
    error(name .. " is not built: run make. Looked for:" .. tostring(looked), 0)
  end
  ffi.cdef("const char *" .. door .. "(void);")
  local library = ffi.load(path)
  ffi.cdef(ffi.string(library[door]()))
  opened[name] = library
  return library
end

local C = core.open_library("libration_core", "lbr_cdef")
core.C = C
if C.lbr_abi() ~= C.LBR_ABI then error("libration_core has ABI " .. C.lbr_abi() .. ", this Lua wants " .. tonumber(C.LBR_ABI), 0) end


-- Level of the first caller outside the library's own files, so that an error names the user's line.
local function user_level()
  local level = 3
  while true do
    local info = debug.getinfo(level, "S")
    if not info then return 2 end
    local source = info.source
    if info.what ~= "C" and source:sub(1, 4) ~= "=op " and source:sub(1, #folder + 1) ~= "@" .. folder then return level - 1 end
    level = level + 1
  end
end

--- Raises message at the first line outside the library.
---@param message string
function core.raise(message)
  error(message, user_level())
end

--- Raises the core's error text when rc is negative, at the user's line.
---@param rc integer status of a C function
---@return integer rc
function core.check(rc)
  if rc < 0 then
    local text = ffi.string(C.lbr_error())
    if rc == -7 then C.lbr_interrupt_clear() end -- one Ctrl-C is one error; what cleans up after it may run ops
    if rc == -7 and text == "" then text = "interrupted" end
    error(text, user_level())
  end
  return rc
end

--- Raises "interrupted" when Ctrl-C was pressed; long loops call it.
function core.poll()
  if C.lbr_interrupted() ~= 0 then
    C.lbr_interrupt_clear()
    error("interrupted", 0)
  end
end

--- Threads that the CPU kernels use. Without n: the present number; n < 1: all cores of this process.
---@param n integer|nil
---@return integer
function core.threads(n)
  if n and (type(n) ~= "number" or not (n < 2 ^ 31)) then core.raise("threads: " .. tostring(n) .. ", want a number") end
  if n then C.lbr_set_threads(n) end
  return C.lbr_threads()
end

C.lbr_interrupt_install() -- a compiled loop of FFI calls never sees LuaJIT's own handler
if os.getenv("LIBRATION_DEBUG") == "nan" then C.lbr_debug_nan(1) end

core.folder = folder
return core
