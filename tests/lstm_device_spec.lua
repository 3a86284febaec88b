-- lstm_device_spec: the LSTM ops on the device against float64 on the CPU: each kernel's sizes, layouts, halves, NaN, replay. Runs on whichever CUDA library is found.
local lr = require "libration"
local device = require "libration.device"
local helper = require "helper"
local cases = require "lstm_cases"
local forward, backward, layer, moved = cases.forward, cases.backward, cases.layer, cases.moved
local relative, close, bits = cases.relative, cases.close, cases.bits

local count, missing = device.count()
local emulator = helper.emulator()
local thorough = not emulator or emulator.lbr_emu_build() == 0 -- checked builds are slow: fewer sizes

-- B, T, F, H, with state: one of each kernel's sizes and of what does not fill them; 130 units walk on a cluster where there are any and by single launches in f64 and where
-- there are none, 40 x 30 steps are summed in parts.
local SIZES = {{1, 1, 1, 1, true}, {3, 2, 28, 5, false}, {17, 2, 56, 32, true}, {1, 30, 28, 37, false}, {3, 2, 1, 64, true}, {9, 2, 7, 90, true}, {3, 2, 28, 128, true},
  {5, 3, 3, 130, true}, {40, 30, 12, 8, false}, {17, 30, 8, 5, true}}
-- forward and backward, relative to the largest value of a tensor
local BOUNDS = {f64 = {1e-13, 1e-12}, f32 = {1e-6, 4e-6}, f16 = {2e-3, 6e-3}, bf16 = {1e-2, 2e-2}}

describe("lstm on the device", function()
  if count == 0 then
    it("equals float64", function() pending(missing) end)
    return
  end

  for dtype, bound in pairs(BOUNDS) do
    it(("%s forward equals float64 within %g and backward within %g; saving, dx and a thread's turn change no bits"):format(dtype, bound[1], bound[2]), function()
      for i, s in ipairs(SIZES) do
        if thorough or i < 4 or i == 8 then
          local text = table.concat({s[1], s[2], s[3], s[4]}, ", ")
          local p, g = layer(s[1], s[2], s[3], s[4], dtype, s[5])
          local p64, g64 = moved(p, "f64"), moved(g, "f64")
          local f64 = forward(p64, true)
          local dp, dg = moved(p, "cuda"), moved(g, "cuda")
          local f = forward(dp, true)
          close(f, f64, bound[1], text)
          local d = backward(dp, f, dg)
          close(d, backward(p64, f64, g64), bound[2], text)
          if emulator then emulator.lbr_emu_seed(i) end
          local plain, less = forward(dp, false), backward(dp, f, dg, false)
          if emulator then emulator.lbr_emu_seed(0) end
          bits(plain, {y = f.y, hn = f.hn, cn = f.cn})
          assert.are.equal(0, plain.gates:numel() + less.dx:numel())
          less.dx, d.dx = nil, nil
          bits(less, d)
        end
      end
    end)

    it(dtype .. ": a NaN or infinite joint spoils its own sequence only", function()
      for _, H in ipairs(thorough and {19, 32, 131} or {19}) do
        local p = layer(10, 4, 6, H, dtype, false)
        local clean = forward(moved(p, "cuda"), true)
        local spoiled = moved(p, "f64")
        spoiled.x:set(0 / 0, 3, 2, 4)
        spoiled.x:set(math.huge, 6, 3, 1)
        p.x = spoiled.x:to(dtype)
        local dp = moved(p, "cuda")
        local f = forward(dp, true)
        local y, want, cpu = f.y:to "cpu":to "f64", clean.y:to "cpu":to "f64", forward(spoiled).y
        for b = 1, 10 do
          for t = 1, 4 do
            for u = 1, H, H - 1 do
              local v, w = y:get(b, t, u), cpu:get(b, t, u)
              assert.are.equal(w ~= w, v ~= v, ("sequence %d, step %d, unit %d"):format(b, t, u))
              if b ~= 3 and b ~= 6 then assert.are.equal(want:get(b, t, u), v) end
            end
          end
        end
        local dx = backward(dp, f, {dy = lr.ones({10, 4, H}):to(dtype):to "cuda"}).dx:to "cpu":to "f64"
        assert(dx:get(3, 1, 1) ~= dx:get(3, 1, 1) and dx:get(4, 1, 1) == dx:get(4, 1, 1))
      end
    end)
  end

  it("130 units before sm_90, which has no clusters: a launch a step, within the same bounds #process", function()
    if not emulator then return pending "asked of the emulated device alone" end
    local text = require "shell"([[luajit -e '
      package.path = "lua/?.lua;lua/?/init.lua;tests/?.lua;" .. package.path
      local lr, cases, ffi = require "libration", require "lstm_cases", require "ffi"
      ffi.cdef "void lbr_emu_devices(int n, int version, int sm); long lbr_emu_kernels(char *text, long room);"
      local emu, room = ffi.load((lr.core.find_library "libration_cuda")), ffi.new("char[65536]")
      emu.lbr_emu_devices(1, 13000, 80)
      for dtype, bound in pairs {f32 = {1e-6, 4e-6}, f16 = {2e-3, 6e-3}} do
        local p, g = cases.layer(2, 3, 3, 130, dtype, true)
        local p64 = cases.moved(p, "f64")
        local f64, dp = cases.forward(p64, true), cases.moved(p, "cuda")
        local f = cases.forward(dp, true)
        cases.close(f, f64, bound[1], dtype)
        cases.close(cases.backward(dp, f, cases.moved(g, "cuda")), cases.backward(p64, f64, cases.moved(g, "f64")), bound[2], dtype)
      end
      emu.lbr_emu_kernels(room, 65536)
      local all = ffi.string(room)
      print(all:find("lstm_steps.cu", 1, true) and not all:find("lstm_cluster.cu", 1, true) and "steps" or all)']])
    assert.equal("steps\n", text)
  end)

  it("gradients equal finite differences in float64 within 1e-7, B=3 T=4 F=5 H=6", function()
    local p, g = layer(3, 4, 5, 6, "f64", true)
    local dg = moved(g, "cuda")
    local function loss()
      local f = forward(moved(p, "cuda"), true)
      local sum = 0
      for name, to in pairs {y = "dy", hn = "dhn", cn = "dcn"} do sum = sum + (f[name]:to "cpu" * g[to]):sum():item() end
      return sum, f
    end
    local _, f = loss()
    local d = moved(backward(moved(p, "cuda"), f, dg), "cpu")
    cases.finite_differences(p, d, loss, 7)
  end)

  for _, dtype in ipairs {"f32", "bf16"} do
    it(dtype .. ": overlapping windows, one frame for all steps, transposed and strided operands equal their copies within 1e-6 (bf16 1e-2)", function()
      local B, T, F, H = 9, 6, 10, 17
      local p, g = layer(B, T, F, H, dtype, true)
      local dp, dg = moved(p, "cuda"), moved(g, "cuda")
      local tolerance = dtype == "f32" and 1e-6 or 1e-2
      local function uniform(shape, seed, as) return lr.uniform(shape, {seed = seed, low = -.3, high = .3}):to(as or dtype):to "cuda" end
      local function same(text)
        local dense = {}
        for name, v in pairs(dp) do dense[name] = v:clone() end
        local f, want = forward(dp, true), forward(dense, true)
        close(f, want, tolerance, text)
        local other = {}
        for name, v in pairs(dg) do other[name] = v:clone() end
        close(backward(dp, want, dg), backward(dense, want, other), tolerance, text)
      end
      for hop = 1, 3 do
        dp.x = uniform({(B - 1) * hop + T, F}, hop):unfold(T, hop)
        same("hop " .. hop)
      end
      dp.x = uniform({B, 1, F}, 4):expand(B, T, F)
      same "one frame"
      dp.x = uniform({1, T, F}, 4):expand(B, T, F)
      same "one sequence"
      dp.x = uniform({T, B, F}, 5):transpose(1, 2)
      same "steps first"
      dp.x = uniform({F, T, B}, 6):permute(3, 2, 1)
      dp.w, dp.r = uniform({F, 4 * H}, 7, "f32"):transpose(1, 2), uniform({H, 4 * H}, 8, "f32"):transpose(1, 2)
      dp.b, dp.h0, dp.c0 = uniform({4 * H, 2}, 9, "f32"):select(2, 1), uniform({H, B}, 10):transpose(1, 2), uniform({H, B}, 11, "f32"):transpose(1, 2)
      dg.dy, dg.dhn, dg.dcn = uniform({T, H, B}, 12):permute(3, 1, 2), uniform({H, B}, 13):transpose(1, 2), uniform({H, B}, 14, "f32"):transpose(1, 2)
      same "all turned"
      dg = {dy = uniform({B, 1, H}, 15):expand(B, T, H)}
      same "one dy"
      assert.are.equal(0, backward(dp, forward(dp, true), {}).dw:to("cpu"):abs():max():item())
    end)
  end

  it("many sequences: 16 a block in half precision; and none", function()
    local B = emulator and 140 or 20000
    local p, g = layer(B, 2, 3, 5, "f16", true)
    local dp, dg = moved(p, "cuda"), moved(g, "cuda")
    local f, want = forward(dp, true), forward(moved(p, "f64"), true)
    close(f, want, 3e-3, "many")
    close(backward(dp, f, dg), backward(moved(p, "f64"), want, moved(g, "f64")), 8e-3, "many")
    for _, dtype in ipairs {"f64", "f32", "f16"} do
      local e, eg = layer(0, 3, 4, 5, dtype, true)
      e, eg = moved(e, "cuda"), moved(eg, "cuda")
      local d = backward(e, forward(e, true), eg)
      for _, name in ipairs {"dw", "dr", "db"} do assert.are.equal(0, d[name]:to("cpu"):abs():max():item()) end
    end
  end)

  it("a plan replays the bits of eager calls, also after a weight was written", function()
    for _, dtype in ipairs {"f32", "f16"} do
      local p = moved(layer(5, 3, 4, 20, dtype, false), "cuda")
      local function run(x) return (lr.lstm(x, p.w, p.r, p.b)) end
      local plan = lr.record(run)
      for _ = 1, 3 do
        assert.are.equal(0, relative(plan(p.x), run(p.x)))
        p.r:copy_(p.r * 1.5)
      end
    end
  end)

  it("fails by name where there is no memory, and works afterwards", function()
    local p, g = layer(3, 2, 4, 5, "f32", true)
    local dp, dg = moved(p, "cuda"), moved(g, "cuda")
    local f = forward(dp, true)
    for _, run in ipairs {function() return forward(dp, true) end, function() return backward(dp, f, dg) end} do
      local failed = 0
      for n = 1, 20 do
        lr.core.C.lbr_device_fail_at(-n)
        local ok, why = pcall(run)
        lr.core.C.lbr_device_fail_at(0)
        if ok then break end
        assert.matches("lstm_%w+: .*memory", why)
        failed = failed + 1
      end
      assert(failed >= 6, "only " .. failed .. " allocations failed")
      run()
    end
  end)
end)
