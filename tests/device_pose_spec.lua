-- device_pose_spec.lua: pose on a CUDA device against the CPU and MediaPipe: crops, points and filters step by step, the tracker on made-up networks, one BlazePose frame,
-- and a device that fills up or vanishes. Runs on whichever CUDA library is found, emulated or real.
local ffi = require "ffi"
local cjson = require "cjson"
local lr = require "libration"
local cases = require "pose_cases"
local device = require "libration.device"
local files = require "libration.files"
local helper = require "helper"
local pose = require "libration.pose"
local regions = require "libration.regions"
local shell = require "shell"

local f32 = require("libration.pose.blazepose").f32

local count, reason = device.count()
local emulator = helper.emulator()

local function first_frame(path)
  local source = assert(require("libration.media").open(helper.shared(path)))
  local frame = source:next():clone()
  source:close()
  return frame
end

describe("pose on a device", function()
  if count == 0 then
    it("is the CPU's", function() pending(reason) end)
    return
  end

  it("crops OpenCV's bytes: odd sizes, turned, half outside, both borders; regions of one picture at once", function()
    local H, W = 23, 31 -- the made-up picture of golden/warp.py
    local picture = lr.empty({ H, W, 3 }, "u8")
    for i = 0, H * W * 3 - 1 do picture:ptr()[i] = (i * i * 7 + i * 31 + 11) % 251 end
    picture = picture:to "cuda"
    for k, g in ipairs(cjson.decode((assert(files.read "tests/golden/warp.json")))) do
      local options = { size = { g.rows, g.cols }, border = g.border == 0 and "zero" or "replicate" }
      local y = regions.crop(picture, lr.tensor({ { 15, 11, 9, 9, .5 }, g.region }):to "cuda", options):select(1, 2):to "cpu":contiguous():ptr()
      for i = 0, g.rows * g.cols * 3 - 1 do
        if y[i] ~= tonumber(g.hex:sub(2 * i + 1, 2 * i + 2), 16) then error(("crop %d, byte %d"):format(k, i)) end
      end
    end
  end)

  it("a region without an area, or not finite, is told when something is read, once", function()
    local picture = lr.zeros({ 4, 5, 3 }, "u8"):to "cuda"
    for _, bad in ipairs { { 2, 2, 0, 0, 0 }, { 2, 0 / 0, 1, 1, 0 } } do
      local y = regions.crop(picture, lr.tensor({ { 2, 2, 3, 3, 0 }, bad }):to "cuda", { size = { 3, 3 } })
      helper.refuses("crop: region 2 of 2 is not finite or has no area", y.to, y, "cpu")
      assert.equal(0, y:to("cpu"):sum():item())
    end
  end)

  for stage in pairs(cases.stages) do
    it(("bound: refinement and projection %s within .01 px, 1e-5 m"):format(stage), function()
      if not helper.shared("goldens/stages/" .. stage) then return pending "needs ../shared" end
      local worst, sure, metres, seven = cases.projection(stage, "cuda")
      io.write(("bound: projection on a device %s %.5f px visibility %.1e world %.1e m kernel 7 %.1e of the crop\n"):format(stage, worst, sure, metres, seven))
      assert.is_true(worst <= .01 and sure <= 1e-6 and metres <= 1e-5 and seven <= 1e-6)
    end)
  end

  it("bound: smoothing within .01 px, world 1e-5 m, visibility 1e-5; 60 frames of sports2d_walk, 40 of thanks", function()
    if not helper.shared "goldens/video" then return pending "needs ../shared" end
    for name, most in pairs { sports2d_walk = 60, thanks = 40 } do
      for _, video in ipairs(cases.videos) do
        if video[1] == name then
          local worst, metres, visibility = cases.smoothing(video, "cuda", most)
          io.write(("bound: smoothing on a device %s %.5f px world %.1e m visibility %.1e\n"):format(name, worst, metres, visibility))
          assert.is_true(worst <= .01 and metres <= 1e-5 and visibility <= 1e-5)
        end
      end
    end
  end)

  it("tracks, loses, finds again and smooths as the CPU does (1e-3 px), the detector called as often", function()
    for _, options in ipairs { { smooth = "one-euro" }, { smooth = "none" }, { smooth = "none", static = true } } do
      local answers, runs = {}, {}
      for _, name in ipairs { "cpu", "cuda" } do
        local script = { flag = function(n) return n == 4 and .5 or .9 end }
        local networks, seen = cases.networks(script)
        local l = pose.landmarker { networks = networks, device = name, smooth = options.smooth, static = options.static }
        assert.equal(name == "cpu" and "cpu" or "cuda:0", l.device)
        for i = 1, 8 do
          script.drift = 9 * (i % 3)
          if i == 7 then l:reset() end
          local landmarks, world = l:process(cases.frame(320, 200), i / 30)
          answers[i] = answers[i] or {}
          table.insert(answers[i], { landmarks, world, l.region.x, l.region.width, l.region.angle, l.detected, l.flag })
        end
        runs[#runs + 1] = seen
      end
      assert.same(runs[1], runs[2])
      for i, pair in ipairs(answers) do
        local a, b = unpack(pair)
        assert.equal(a[1] == nil, b[1] == nil)
        for k = 1, a[1] and 2 or 0 do assert.is_true(helper.difference(a[k], b[k]) <= 1e-3, ("%s frame %d"):format(options.smooth, i)) end
        for k = 3, 5 do assert.near(a[k], b[k], 1e-3) end
        assert.same({ a[6], a[7] }, { b[6], b[7] })
      end
    end
  end)

  it("a tracked frame makes nothing that stays", function()
    local l = pose.landmarker { networks = cases.networks {}, device = "cuda" }
    local frame = cases.frame(64, 48)
    for i = 1, 2 do l:process(frame, i / 30) end
    helper.storages "cuda"
    local before = lr.memory "cuda"
    for i = 3, 9 do l:process(frame, i / 30) end
    helper.storages "cuda"
    local after = lr.memory "cuda"
    assert.same({ before.live, before.storages }, { after.live, after.storages })
  end)

  it("one BlazePose frame, detector and landmark network: within .02 px and 1e-5 m of the CPU; the landmark network's graph again, the same bits; f16 within 1 px", function()
    local why = cases.missing()
    if why then return pending(why) end
    local frame, found = first_frame "data/video/ta_chi.mp4", {}
    local there
    for _, name in ipairs { "cpu", "cuda" } do
      there = pose.landmarker { device = name }
      found[#found + 1] = { there:process(frame, 0) }
    end
    local off, metres = helper.difference(found[1][1]:narrow(2, 1, 2), found[2][1]:narrow(2, 1, 2)), helper.difference(found[1][2], found[2][2])
    local rest = helper.difference(found[1][1]:narrow(2, 4, 2), found[2][1]:narrow(2, 4, 2))
    io.write(("bound: one frame on a device %.5f px, world %.1e m, visibility %.1e\n"):format(off, metres, rest))
    assert.is_true(off <= .02 and metres <= 1e-5 and rest <= 1e-5)
    -- the first run was eager, the next is its graph's; nothing was smoothed yet
    local rect = ffi.new("float[5]")
    ffi.copy(rect, there.rect, 20)
    local w, h = frame:size(2), frame:size(1)
    local function mark(l, picture)
      local found_there, list = l:mark(picture, rect).landmarks, {}
      for j = 0, 32 do list[2 * j + 1], list[2 * j + 2] = f32(found_there[5 * j] * w), f32(found_there[5 * j + 1] * h) end
      return list
    end
    local once = mark(there)
    local half = mark(pose.landmarker { device = "cuda", precision = "f16" }, frame)
    local distances = {}
    for j = 1, 33 do
      assert.same({ found[2][1]:get(j, 1), found[2][1]:get(j, 2) }, { once[2 * j - 1], once[2 * j] })
      distances[j] = math.sqrt((half[2 * j - 1] - once[2 * j - 1]) ^ 2 + (half[2 * j] - once[2 * j]) ^ 2)
    end
    table.sort(distances)
    io.write(("f16: one frame median %.3f px max %.3f\n"):format(distances[17], distances[33]))
    assert.is_true(distances[33] <= 1)
  end)

  -- A frame takes the emulated device some seconds.
  it("bound: golden regions ta_chi: mean <= .02 px, 99th percentile <= .3, .1 % above .5, found alike; f16, 24 frames: .2, 3, 3 %", function()
    local why = cases.missing()
    if why then return pending(why) end
    local mean, p99, above, flags, n = cases.golden_regions("ta_chi", emulator and 1 or 300, { device = "cuda" })
    assert.is_true(mean <= .02 and p99 <= .3 and above <= .001 * n and flags == 0)
    if emulator then return cases.forget() end
    mean, p99, above, flags, n = cases.golden_regions("ta_chi", 24, { device = "cuda", precision = "f16" })
    assert.is_true(mean <= .2 and p99 <= 3 and above <= .03 * n and flags == 0)
    cases.forget()
  end)

  it("bound: whole chain again, ta_chi: median <= .5 px, 95th percentile <= 3 px, the same frames", function()
    if emulator then return pending "a frame takes an emulated device some seconds" end
    local why = cases.missing()
    if why then return pending(why) end
    for _, name in ipairs { "again", "ta_chi" } do
      local median, p95, different = cases.chain(name, 1e9, nil, { clock = "mediapipe", device = "cuda" })
      assert.is_true(median <= .5 and p95 <= 3 and different == 0)
    end
    cases.forget()
  end)

  it("precision f16 is refused on the CPU, an input of another device by name", function()
    helper.refuses("precision f16 is for CUDA devices", pose.landmarker, { precision = "f16" })
    local why = cases.missing()
    if why then return pending(why) end
    local network = assert(require("libration.graph").load(require("libration.weights").path "pose_detection", { device = "cuda" }))
    helper.refuses("is on cpu, the network on cuda:0", network.run, network, lr.zeros { 1, 224, 224, 3 })
  end)
end)

describe("pose on a device that fails", function()
  if count == 0 or not emulator then
    it("ends in one line", function() pending(count == 0 and reason or "asked of the emulated device alone") end)
    return
  end
  after_each(function()
    emulator.lbr_emu_heal()
    emulator.lbr_emu_memory(2 ^ 30)
  end)

  local function one_line(message, ...)
    assert(not tostring(message):find("\n", 1, true), message)
    for _, text in ipairs { ... } do assert(tostring(message):find(text, 1, true), message) end
  end

  it("vanishes in the middle of a video, or a kernel fails: one line, at each of the first kernels of a frame; the CPU goes on", function()
    for _, fault in ipairs { { "lbr_emu_lose_device", "cudaErrorDevicesUnavailable" }, { "lbr_emu_fail_launch", "cudaErrorLaunchFailure" } } do
      for n = 1, 5 do
        local l = pose.landmarker { networks = cases.networks {}, device = "cuda" }
        for i = 1, 2 do assert(l:process(cases.frame(64, 48), i / 30)) end
        emulator[fault[1]](n)
        local ok, message = pcall(function()
          for i = 3, 5 do l:process(cases.frame(64, 48), i / 30) end
        end)
        assert.is_false(ok)
        one_line(message, fault[2])
        assert(pose.landmarker { networks = cases.networks {} }:process(cases.frame(64, 48), 0))
        emulator.lbr_emu_heal()
      end
    end
  end)

  it("has no memory at the nth allocation of two frames, and after it: one line, nothing kept; then as if nothing had been", function()
    local C, networks, frame = lr.core.C, cases.networks {}, cases.frame(64, 48)
    local function run()
      local l = pose.landmarker { networks = networks, device = "cuda" }
      for i = 1, 2 do l:process(frame, i / 30) end
      return (l:process(frame, .1))
    end
    local function left()
      helper.storages "cuda"
      local m = lr.memory "cuda"
      return m.storages, m.live
    end
    local want = run()
    local storages, live = left()
    local n, failures, ok, found = 0, 0
    repeat
      n = n + 1
      C.lbr_device_fail_at(-n)
      ok, found = pcall(run)
      C.lbr_device_fail_at(0)
      if not ok then
        failures = failures + 1
        one_line(found, "out of memory")
      end
      local s, l = left()
      assert(s == storages and l == live, ("%d storages and %d bytes before, %d and %d after allocation %d failed: %s"):format(storages, live, s, l, n, tostring(found)))
    until ok or n == 200
    assert.is_true(ok and failures > 20, failures)
    assert.equal(0, helper.difference(want, found))
  end)

  it("has no room for the networks: one line with the sizes, nothing kept", function()
    local why = cases.missing()
    if why then return pending(why) end
    helper.storages "cuda"
    lr.core.C.lbr_memory_trim(device.id "cuda")
    local before = lr.memory "cuda"
    emulator.lbr_emu_memory(emulator.lbr_emu_in_use() + 3e6)
    local ok, message = pcall(pose.landmarker, { device = "cuda" })
    assert.is_false(ok)
    one_line(message, "out of memory on cuda:0: ", " live, ")
    helper.storages "cuda"
    local after = lr.memory "cuda"
    assert.same({ before.live, before.storages }, { after.live, after.storages })
  end)

  -- The recipe on made-up networks and pictures; what: Lua that runs before it.
  local function recipe(folder, what, more)
    local pictures = folder .. "/pictures"
    if not files.exists(pictures) then
      files.mkdirs(pictures)
      cases.write_networks(folder)
      for i = 1, 9 do require("libration.media").write_png(("%s/%02d.png"):format(pictures, i), cases.frame(90, 70)) end
    end
    local setup = ([[
      package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
      local lr, ffi = require "libration", require "ffi"
      require("libration.weights").path = function(name) return "%s/" .. name .. ".tflite" end
      assert(lr.device.count() > 0)
      ffi.cdef "void lbr_emu_lose_device(long n); void lbr_emu_memory(double bytes);"
      local emulator = ffi.load((lr.core.find_library "libration_cuda"))
      %s]]):format(folder, what)
    return shell(("luajit -e %s recipes/landmarks.lua %s --no-cache --check off --output %s %s"):format(files.quote(setup), files.quote(pictures), files.quote(folder .. "/out"),
      more or ""))
  end

  it("vanishes under the recipe, or is full: one line, a status, no file under its name and none beside it; without a fault all of them #process", function()
    local folder = files.temporary_folder()
    -- a frame has about twelve kernels, the first some more
    for what, words in pairs { ["emulator.lbr_emu_lose_device(60)"] = "cudaErrorDevicesUnavailable", ["emulator.lbr_emu_memory(1e5)"] = "out of memory on cuda:0" } do
      local text, code = recipe(folder, what, "--device cuda")
      assert.is_true(code ~= 0, text)
      one_line(text:match "([^\n]+)\n$", "landmarks: ", words)
      assert.equal(1, select(2, text:gsub("landmarks: %D", "")), text)
      assert.is_false(files.exists(folder .. "/out"), text)
    end
    local text, code = recipe(folder, "", "--device cuda:0")
    assert.equal(0, code, text)
    local there = assert(files.read(folder .. "/out/landmarks.npy"))
    assert.equal("cuda:0", cjson.decode(files.read(folder .. "/out/run.json")).device)
    text, code = recipe(folder, "", "--device cpu")
    assert.equal(0, code, text)
    assert.equal(there, files.read(folder .. "/out/landmarks.npy"))
    files.remove(folder)
  end)
end)
