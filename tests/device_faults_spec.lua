-- device_faults_spec.lua: a CUDA device that is not there, fills up, fails or vanishes: one clear line, nothing kept, the process and the CPU go on.
local lr = require "libration"
local anomaly = require "libration.anomaly"
local device = require "libration.device"
local files = require "libration.files"
local helper = require "helper"
local optim = require "libration.optim"
local shell = require "shell"
local train = require "libration.train"

local C = lr.core.C
local count, missing = device.count()
local emulator = helper.emulator()

local function loss(model, x) return lr.mse(model(x), x) end

-- A fresh small autoencoder on the device and its step.
local function learner(eager)
  local model = anomaly.autoencoder.new {input = 5, window = 4, hidden = {6}, latent = 3, seed = 1}:to "cuda"
  return train.step(model, optim.Adam(model:parameters(), {rate = .01, clip = 1}), loss, {eager = eager})
end

local function left()
  local storages = helper.storages "cuda"
  return storages, lr.memory("cuda").live
end

-- The CPU still learns.
local function cpu_works()
  local x = lr.randn({4, 3}, {seed = 1})
  assert.is_true(math.abs((x * 2):sum():item() - 2 * x:sum():item()) < 1e-5)
end

local function one_line(message, ...)
  assert(not tostring(message):find("\n", 1, true), message)
  for _, text in ipairs {...} do
    if tostring(message):find(text, 1, true) then return end
  end
  error(("'%s' holds none of: %s"):format(tostring(message), table.concat({...}, ", ")), 2)
end

describe("without the CUDA library #process", function()
  local folder
  setup(function() folder = files.temporary_folder() end)
  teardown(function() files.remove(folder) end)

  it("the core links no CUDA, and asking for cuda says in a line what was looked for; the CPU works", function()
    local core = lr.core.find_library "libration_core"
    local linked, code = shell("ldd " .. core)
    assert.equal(0, code, linked)
    assert.is_nil(linked:lower():find "cuda", linked)
    assert.is_nil(linked:lower():find "nvidia", linked)
    shell(("cp -r lua %s/lua && mkdir %s/build && cp %s %s/build/"):format(folder, folder, core, folder))
    local text
    text, code = shell(([[cd %s && LUA_PATH="%s/lua/?.lua;%s/lua/?/init.lua;;" LUA_CPATH="%s/build/?.so;;" luajit -e '
      local lr = require "libration"
      print(lr.matmul(lr.ones({2, 3}), lr.ones({3, 2})):get(2, 2))
      print(select(2, pcall(lr.zeros, {1}, "f32", "cuda")))
      print(select(2, require("libration.device").choose "auto"))
      print(require("libration.device").choose "cuda")']]):format(folder, folder, folder, folder))
    assert.equal(0, code, text)
    local lines = {}
    for line in text:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal(4, #lines, text)
    assert.equal("3", lines[1])
    for i = 2, 4 do assert.truthy(lines[i]:find("no libration_cuda.so", 1, true), lines[i]) end
  end)
end)

-- Opening: the line that `--device cuda` ends with, in a process of its own.
describe("opening the CUDA library #process", function()
  local folder
  setup(function() folder = files.temporary_folder() end)
  teardown(function() files.remove(folder) end)

  -- What choosing a device says when the folder's libration_cuda.so lies before any other.
  local function said()
    local text = shell(([[LUA_PATH="lua/?.lua;lua/?/init.lua;;" LUA_CPATH="%s/?.so;$LUA_CPATH" luajit -e 'print(require("libration.device").choose "cuda")']]):format(folder))
    return (text:gsub("\n$", ""))
  end
  local function with_library(lines)
    files.write(folder .. "/cuda.c", lines)
    local text, code = shell(("cc -shared -fPIC -Icsrc -o %s/libration_cuda.so %s/cuda.c"):format(folder, folder))
    assert.equal(0, code, text)
    return said()
  end

  it("one of another ABI, without the door, that lacks a function, or that is no library: one line with its path and what to do", function()
    local path = folder .. "/libration_cuda.so"
    local backend = '#include "device.h"\nstatic lbr_backend b = {LBR_ABI + 1, 1};\nLBR_API const lbr_backend *lbr_cuda_backend(void) { return &b; }\n'
    local text = with_library(backend)
    assert.matches("^nil\t%-%-device cuda cannot be had: no CUDA device: %S+ has ABI %d+, the core has %d+; run make cuda$", text)
    assert.truthy(text:find(path, 1, true), text)
    one_line(with_library "int nothing;\n", path .. " has no function lbr_cuda_backend; run make cuda")
    text = with_library "extern int lbr_of_another_version(void);\nint lbr_cuda_backend(void) { return lbr_of_another_version(); }\n"
    one_line(text, "undefined symbol: lbr_of_another_version; run make cuda")
    files.write(path, "no library")
    one_line(said(), "found a library that does not open: " .. path)
  end)

  if not emulator then
    it("without a driver, with one that is too old, without a GPU", function() pending "asked of the emulated device alone" end)
    return
  end

  local function with_devices(n, driver, generation, call)
    return (shell(([[luajit -e '
      package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
      local core, ffi = require "libration.core", require "ffi"
      ffi.cdef "void lbr_emu_devices(int n, int version, int sm);"
      ffi.load((core.find_library "libration_cuda")).lbr_emu_devices(%d, %d, %d)
      print(%s)']]):format(n, driver, generation, call or [[require("libration.device").choose "cuda"]])):gsub("\n$", ""))
  end

  it("without a driver, with one that is too old, without a GPU, with one that is too old: what was looked for and found", function()
    local cannot = "nil\t--device cuda cannot be had: no CUDA device: "
    assert.equal(cannot .. "looked for an NVIDIA driver (libcuda.so.1) and found none", with_devices(1, 0, 90))
    assert.equal(cannot .. "the NVIDIA driver is too old: it knows CUDA 11.4, this library was built with 13.0", with_devices(1, 11040, 90))
    assert.matches("found an NVIDIA driver for CUDA 13.0, but no GPU: no CUDA%-capable device is detected", with_devices(0, 13000, 90))
    assert.equal(cannot .. "found no GPU of sm_80 or later, only: emulated device (sm_75), emulated device (sm_75)", with_devices(2, 13000, 75))
    assert.equal("nil\tno device cuda:7: there is one, cuda:0", with_devices(1, 13000, 80, [[require("libration.device").find "cuda:7"]]))
    assert.equal("cpu\tthe CPU: looked for an NVIDIA driver (libcuda.so.1) and found none", with_devices(1, 0, 90, [[require("libration.device").choose "auto"]]))
  end)
end)

describe("a recipe's --device #process", function()
  it("ends in one line where the device is not there", function()
    local text, code = shell "luajit recipes/train.lua --data tests/golden --device cuda:7"
    assert.equal(1, code, text)
    one_line(text:gsub("\n$", ""), "--device cuda:7 cannot be had: ")
  end)
end)

describe("a device's faults", function()
  if count == 0 then
    it("are survived", function() pending(missing) end)
    return
  end

  it("cuda:7 is not there", function()
    helper.refuses("no device cuda:7: there " .. (count == 1 and "is one, cuda:0" or ("are %d, cuda:0 to cuda:%d"):format(count, count - 1)), lr.zeros, {1}, "f32", "cuda:7")
    assert.is_nil((device.find "cuda:7"))
  end)

  it("tensors of two devices do not meet in an op", function()
    local x, y = lr.ones({2, 3}), lr.ones({2, 3}):to "cuda"
    helper.refuses("add: f32 [2,3] is on cpu, f32 [2,3] on cuda:0", lr.add, x, y)
    if count > 1 then helper.refuses("matmul: f32 [2,3] is on cuda:0, f32 [3,2] on cuda:1", lr.matmul, y, lr.ones({3, 2}):to "cuda:1") end
  end)

  for _, eager in ipairs {true, false} do
    local how = eager and "eager" or "recorded"
    it("the nth allocation of a training step fails, and all after it: " .. how, function()
      local x = lr.randn({3, 4, 5}, {seed = 1}):to "cuda"
      learner(true)(x)
      local storages, live = left()
      local n, failures = 0, 0
      local ok, message
      repeat
        n = n + 1
        C.lbr_device_fail_at(-n)
        ok, message = pcall(lr.scope, function() learner(eager)(x) end)
        C.lbr_device_fail_at(0)
        if not ok then
          failures = failures + 1
          one_line(message, "out of memory", "no room")
        end
        assert.equal(0, C.lbr_recording())
        lr.tape():close()
        local s, l = left()
        assert(s == storages and l == live, ("%d storages and %d bytes before, %d and %d after allocation %d failed: %s"):format(storages, live, s, l, n, tostring(message)))
      until ok or n == 500
      assert.is_true(ok)
      assert.is_true(failures > 40, failures)
    end)
  end

  if not emulator then
    it("failing kernels, a lost device", function() pending "asked of the emulated device alone" end)
    return
  end
  after_each(function()
    emulator.lbr_emu_heal()
    emulator.lbr_emu_memory(2 ^ 30)
  end)

  it("a batch that does not fit says the size, what is live and cached; a smaller one goes on", function()
    local step = learner(true)
    step(lr.randn({3, 4, 5}, {seed = 1}):to "cuda")
    C.lbr_memory_trim(1)
    emulator.lbr_emu_memory(emulator.lbr_emu_in_use() + 2e5)
    local ok, message = pcall(lr.zeros, {300, 1000}, "f32", "cuda")
    assert.is_false(ok)
    one_line(message, "out of memory on cuda:0: 1200000 bytes wanted")
    assert.truthy(message:find "%d+ live, %d+ cached")
    step(lr.randn({3, 4, 5}, {seed = 2}):to "cuda")
  end)

  it("a failing cudaMalloc gives the cache back and goes on", function()
    local x = lr.zeros({1000, 300}, "f32", "cuda")
    lr.free(x)
    emulator.lbr_emu_fail_malloc(1)
    assert.equal(0, lr.zeros({1000, 400}, "f32", "cuda"):sum():item())
  end)

  for _, fault in ipairs {{"fails", "lbr_emu_fail_launch", "cudaErrorLaunchFailure"}, {"vanishes", "lbr_emu_lose_device", "cudaErrorDevicesUnavailable"}} do
    for _, eager in ipairs {true, false} do
      it(("the device %s in the middle of training: %s"):format(fault[1], eager and "eager, the error has an op or says how to get it" or "recorded"), function()
        local step, x = learner(eager), lr.randn({3, 4, 5}, {seed = 1}):to "cuda"
        for _ = 1, 3 do step(x) end
        emulator[fault[2]](20)
        local ok, message = pcall(function()
          for _ = 1, 3 do step(x) end
          device.synchronize "cuda"
        end)
        assert.is_false(ok)
        one_line(message, fault[3])
        if eager then
          local name = message:match ":%d+: ([%w_]+): " or message:match "^([%w_]+): "
          assert.truthy(require("libration.ops").rows[name] or message:find("LIBRATION_SYNC=1 names the one", 1, true), message)
        end
        assert.equal(0, C.lbr_recording())
        lr.tape():close()
        cpu_works()
        assert.is_false((pcall(device.synchronize, "cuda"))) -- it stays that way
        step, x = nil, nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        cpu_works()
      end)
    end
  end

  it("LIBRATION_SYNC=1 names the very op whose kernel failed #process", function()
    local text = shell([[LIBRATION_SYNC=1 luajit -e '
      package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
      local lr, ffi = require "libration", require "ffi"
      local x = lr.ones({4, 4}):to "cuda"
      ffi.cdef "void lbr_emu_fail_launch(long n);"
      ffi.load((lr.core.find_library "libration_cuda")).lbr_emu_fail_launch(2)
      local y = lr.relu(x)
      print(select(2, pcall(lr.sin, y)))']])
    assert.truthy(text:find("sin: unspecified launch failure", 1, true), text)
  end)

  it("two processes on one device learn the same #process", function()
    local program = [[luajit -e '
      package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
      local lr, anomaly, optim, train = require "libration", require "libration.anomaly", require "libration.optim", require "libration.train"
      local model = anomaly.autoencoder.new {input = 5, window = 4, hidden = {6}, latent = 3, seed = 1}:to "cuda"
      local step = train.step(model, optim.Adam(model:parameters(), {rate = .01}), function(m, x) return lr.mse(m(x), x) end)
      local y
      for i = 1, 3 do y = step(lr.randn({3, 4, 5}, {seed = i}):to "cuda"):item() end
      print(("%.9g"):format(y))']]
    local folder = files.temporary_folder()
    local text = shell(("(%s >%s/a) & (%s >%s/b); wait; cat %s/a %s/b"):format(program, folder, program, folder, folder, folder))
    files.remove(folder)
    local a, b = text:match "^(%S+)\n(%S+)\n$"
    assert(a and a == b, text)
  end)
end)
