-- device.lua: devices by name: "cpu", "cuda", "cuda:N". Opens the CUDA library when one is asked for. Holds no tensors.
local ffi = require "ffi"
local core = require "libration.core"

local C, raise = core.C, core.raise

local device = {}

local opened, reason -- number of CUDA devices once the library was opened; why not

-- Opens the CUDA library once; nil and the reason where there is none or it finds no device.
local function open()
  if opened or reason then return opened, reason end
  local path = core.find_library "libration_cuda"
  if not path then
    reason = "no libration_cuda.so beside the core; `make cuda` builds it with nvcc"
    return nil, reason
  end
  local n = C.lbr_device_open(path)
  if n < 1 then
    reason = ffi.string(C.lbr_error())
    return nil, reason
  end
  opened = n
  return n
end

--- CUDA devices that can be used.
---@return integer n 0 where there is none
---@return string|nil reason why there is none: what was looked for and found
function device.count()
  local n, why = open()
  return n or 0, why
end

--- Number of a device for the C side.
---@param name string|nil "cpu" (default), "cuda" (the first one), "cuda:N" from 0
---@return integer|nil id
---@return string|nil reason
function device.find(name)
  if name == nil or name == "cpu" then return 0 end
  local n = type(name) == "string" and name:match "^cuda:?(%d*)$"
  if not n or name == "cuda:" then return nil, ("device %s, want cpu, cuda or cuda:N"):format(tostring(name)) end
  local count, why = open()
  if not count then return nil, "no CUDA device: " .. why end
  n = tonumber(n) or 0
  if n >= count then return nil, ("no device cuda:%d: there %s"):format(n, count == 1 and "is one, cuda:0" or ("are %d, cuda:0 to cuda:%d"):format(count, count - 1)) end
  return 1 + n
end

--- The device that the option --device names, and a line that says what was taken and why. "cuda" never becomes the CPU.
---@param name string "auto": CUDA where there is a device, else the CPU; "cpu", "cuda", "cuda:N"
---@return string|nil name "cpu" or "cuda:N"
---@return string line, or the reason why there is none
function device.choose(name)
  if name == "auto" then
    local n, why = device.count()
    if n == 0 then return "cpu", "the CPU: " .. why end
    return "cuda:0", ("%s%s"):format(device.describe "cuda:0", n > 1 and (", the first of %d"):format(n) or "")
  end
  local id, why = device.find(name)
  if not id then return nil, ("--device %s cannot be had: %s"):format(name, why) end
  return device.name(id), id == 0 and "the CPU, as asked" or device.describe(device.name(id)) .. ", as asked"
end

--- The device of the option --device; raises the reason where there is none.
---@param name string
---@return string name "cpu" or "cuda:N"
---@return string line which it is and why, for the log
function device.take(name)
  local taken, line = device.choose(name)
  if not taken then error(line, 0) end
  return taken, line
end

--- Number of a device; raises where there is none.
---@param name string|nil
---@return integer id
function device.id(name)
  if name == nil or name == "cpu" then return 0 end
  local id, why = device.find(name)
  return id or raise(why)
end

--- Name of a device by its number.
---@param id integer
---@return string
function device.name(id) return id == 0 and "cpu" or "cuda:" .. id - 1 end

--- One line about a device.
---@param name string
---@return string
function device.describe(name)
  local id = device.id(name)
  if id == 0 then return "cpu" end
  local text = ffi.new "char[256]"
  core.check(C.lbr_device_describe(id, text, 256))
  return device.name(id) .. ", " .. ffi.string(text)
end

--- Whether an error is a CUDA device's own: it failed or vanished, is full, or lacks a kernel. Another error leaves it as it was.
---@param name string where the work ran: "cpu", "cuda:N"
---@param err any the error
---@return boolean
function device.failed(name, err)
  return name ~= "cpu" and (tostring(err):find("cuda", 1, true) ~= nil or not pcall(device.synchronize, name))
end

--- Waits until the device has done all that was asked of it. Reading a value waits by itself.
---@param name string|nil default "cuda"
function device.synchronize(name) core.check(C.lbr_device_synchronize(device.id(name or "cuda"))) end

return device
