-- machine.lua: what the bench ran on and what that can do at most. Measures nothing of the library itself.
local ffi = require "ffi"
local core = require "libration.core"
local files = require "libration.files"

local C = core.C

local machine = {}

local isa = {[0] = "portable", [1] = "AVX2", [2] = "AVX-512"}

-- The number in the name of the library that is mapped, as libdnnl.so.2.6 tells.
local function onednn_version()
  local maps = io.open "/proc/self/maps"
  if not maps then return "unknown" end
  local path
  for line in maps:lines() do path = path or line:match "(/%S*libdnnl[^%s]*)" end
  maps:close()
  return path and path:match "%.so%.([%d.]+)$" or "unknown"
end

local function processor()
  local file = io.open "/proc/cpuinfo"
  local name
  if file then
    for line in file:lines() do name = name or line:match "^model name%s*:%s*(.-)%s*$" end
    file:close()
  end
  return name or ffi.arch
end

local function load_average()
  local text = files.read "/proc/loadavg"
  return text and text:match "^%S+" or "unknown"
end

--- One line about processor, threads, instruction set and oneDNN.
function machine.describe()
  return ("%s, %d threads, kernels %s%s, oneDNN %s, %s, load %s"):format(processor(), C.lbr_threads(), isa[C.lbr_cpu_isa()],
    C.lbr_cpu_bf16() == 1 and " with bf16" or "", onednn_version(), jit.version, load_average())
end

-- Compiles ceiling.c for this very processor; nil where no compiler is.
local function library(here, build)
  local target = files.join(build, "bench_ceiling.so")
  files.mkdirs(build)
  local command = ("cc -O3 -march=native -ffp-contract=fast -shared -fPIC -o %s %s -lpthread 2>/dev/null"):format(
    files.quote(target), files.quote(files.join(here, "ceiling.c")))
  if os.execute(command) ~= 0 then return nil end
  ffi.cdef "double ceiling_flops(int n, int times); double ceiling_bytes(int n, int times);"
  return ffi.load(target)
end

--- A function that measures the peak of all threads, floating point operations and bytes copied a second, and keeps the best so far: other programs on the
--- machine only lower it.
---@return fun(times: integer): {flops: number, bytes: number}|nil nil where no compiler is or no thread starts
function machine.limit(here, build)
  local lib = library(here, build)
  if not lib then return function() return nil end end
  local best = {flops = 0, bytes = 0}
  return function(times)
    local n = C.lbr_threads()
    best.flops, best.bytes = math.max(best.flops, lib.ceiling_flops(n, times)), math.max(best.bytes, lib.ceiling_bytes(n, times))
    return best.flops > 0 and best.bytes > 0 and best or nil
  end
end

return machine
