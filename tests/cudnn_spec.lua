-- cudnn_spec.lua: convolutions through the emulated device's cuDNN: what is asked of it, the choice of an engine and its file, what it refuses.
-- The real library is for a machine with a GPU.
local lr = require "libration"
local device = require "libration.device"
local files = require "libration.files"
local helper = require "helper"
local shell = require "shell"

local count, missing = device.count()
local emulator = helper.emulator()

local function randn(shape, seed, dtype) return lr.randn(shape, {seed = seed}):to(dtype) end

-- A program that convolves and prints how often cuDNN ran, for a spec with a cache folder of its own.
local PROGRAM = [[luajit -e '
  package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
  local lr, ffi = require "libration", require "ffi"
  ffi.cdef "void lbr_emu_cudnn(int on); long lbr_emu_cudnn_runs(void);"
  local x = lr.full({1, 6, 5, 4}, 2, "f16"):to "cuda"
  local emulator = ffi.load((lr.core.find_library "libration_cuda"))
  emulator.lbr_emu_cudnn(1)
  local y = lr.conv2d(x, lr.ones({3, 3, 3, 4}):to "f16":to "cuda", nil, {pad = {1, 1, 1, 1}})
  print(y:get(1, 1, 1, 1), y:get(1, 3, 3, 3), tonumber(emulator.lbr_emu_cudnn_runs()))']]

describe("cudnn", function()
  if not emulator then
    it("serves convolutions in half precision", function() pending(count == 0 and missing or "asked of the emulated device alone") end)
    return
  end

  local folder
  setup(function() folder = files.temporary_folder() end)
  teardown(function() files.remove(folder) end)
  local function kept() return folder .. "/libration/cudnn-choices.txt" end
  local function run(what)
    local text = shell(("env XDG_CACHE_HOME=%s HOME=%s %s"):format(what or folder, folder, PROGRAM))
    local corner, middle, runs = text:match "^(%S+)\t(%S+)\t(%d+)\n$"
    assert.same({"32", "72"}, {corner, middle}, text)
    return tonumber(runs)
  end

  it("answers within 1e-3 (bf16 8e-3) of float64: bias, residual, relu, relu6, strides, paddings, dilation, groups; NaN stays; replay is eager's bits", function()
    emulator.lbr_emu_cudnn(1)
    local ok, message = pcall(lr.scope, function()
      for i, c in ipairs {
        {{2, 9, 8, 5}, {7, 3, 3, 5}, {pad = {1, 1, 1, 1}}},
        {{1, 9, 8, 6}, {4, 3, 2, 3}, {pad = {0, 1, 2, 1}, stride = {2, 1}, groups = 2, act = "relu"}, bias = "f32"},
        {{1, 10, 9, 8}, {8, 3, 3, 8}, {dilation = {2, 1}, act = "relu6"}, bias = "bf16", residual = true},
        {{3, 4, 4, 8}, {8, 1, 1, 8}, {}, residual = true},
      } do
        for _, dtype in ipairs {"f16", "bf16"} do
          local x, w, b, r = randn(c[1], i, dtype), randn(c[2], 10 + i, dtype), c.bias and randn({c[2][1]}, 20 + i, c.bias), nil
          x:set(0 / 0, 1, 2, 3, 4)
          local function convolve(to, u)
            local o = {residual = r and to(r)}
            for k, v in pairs(c[3]) do o[k] = v end
            return lr.conv2d(to(u), to(w), b and to(b), o)
          end
          local function wide(t) return t:to "f64" end
          local function there(t) return t:to "cuda" end
          local shape = convolve(wide, x).shape
          r = c.residual and randn(shape, 30 + i, dtype)
          local before = tonumber(emulator.lbr_emu_cudnn_runs())
          local have = convolve(there, x):to "cpu"
          assert.is_true(tonumber(emulator.lbr_emu_cudnn_runs()) > before)
          local d, size = helper.difference(convolve(wide, x), have:to "f64")
          assert(d <= (dtype == "f16" and 1e-3 or 8e-3) * math.max(1, size), ("case %d, %s: off by %g of %g"):format(i, dtype, d, size))
          w, b, r = there(w), b and there(b), r and there(r)
          local replay = lr.record(function(u) return convolve(function(t) return t end, u) end)
          for _ = 1, 3 do assert.equal(0, (helper.difference(have:to "f64", replay(there(x)):to "cpu":to "f64"))) end
        end
      end
    end)
    emulator.lbr_emu_cudnn(0)
    assert(ok, message)
  end)

  it("leaves f32, prelu and what does not lie by sixteen bytes to the kernels of libration", function()
    emulator.lbr_emu_cudnn(1)
    local ok, message = pcall(lr.scope, function()
      local before = tonumber(emulator.lbr_emu_cudnn_runs())
      local x, w = randn({1, 5, 5, 4}, 1, "f16"):to "cuda", randn({3, 2, 2, 4}, 2, "f16"):to "cuda"
      lr.conv2d(x:to "f32", w:to "f32")
      lr.conv2d(x, w, nil, {act = "prelu", slope = lr.ones({3}):to "f16":to "cuda"})
      lr.conv2d(randn({101}, 3, "f16"):to("cuda"):narrow(1, 2, 100):reshape {1, 5, 5, 4}, w)
      assert.equal(before, tonumber(emulator.lbr_emu_cudnn_runs()))
    end)
    emulator.lbr_emu_cudnn(0)
    assert(ok, message)
  end)

  it("times an engine once: the next process takes the choice from the file; engines that vary, need too much or fail are not chosen #process", function()
    assert.equal(2 * 4 + 1, run()) -- two engines work: one run that does not count, three timed; then the answer
    local text = files.read(kept())
    local name, choice = text:match "^libration cudnn choices 1\n(emulated device, .-; 91000; [%d -]+)=(%d)\n$"
    assert.equal("4", choice, text)
    assert.truthy(name)
    assert.equal(2, run()) -- the choice tried, the answer
    assert.equal(text, files.read(kept()))
  end)

  it("survives a corrupt file of choices, and none that can be written: the answer is the same #process", function()
    run()
    local text = files.read(kept())
    local key = text:match "\n(.*)=4\n"
    local hostile = {"", "\0\1\2", text:sub(1, 40), text:sub(1, -3), "libration cudnn choices 2\n" .. text,
      text:gsub("=4", "=99"), text:gsub("=4", "=-1"), text:gsub("=4", "="), text:gsub("=4", "=1"), text:gsub("=4", "=4444444444444444444"),
      "libration cudnn choices 1\n" .. ("x"):rep(3e6), "libration cudnn choices 1\n=\n==\n=4\n\n\0=4\n"}
    for i, bytes in ipairs(hostile) do
      files.write(kept(), bytes)
      assert.equal(9, run(), "file " .. i)
      assert.truthy(files.read(kept()):find(key .. "=4\n", 1, true), "file " .. i)
    end
    files.write(kept(), text:gsub("=4", "=3")) -- another that works
    assert.equal(2, run())
    files.write(folder .. "/file", "")
    assert.equal(9, run(folder .. "/file"))
  end)
end)
