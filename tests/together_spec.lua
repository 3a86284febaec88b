-- together_spec.lua: several recordings through one pair of networks: batches of what they need at once, each recording's numbers those that it has alone, bit for bit.
local cases = require "pose_cases"
local device = require "libration.device"
local extract = require "libration.pose.extract"
local ffi = require "ffi"
local files = require "libration.files"
local helper = require "helper"
local lr = require "libration"
local together = require "libration.pose.together"
local weights = require "libration.weights"

describe("streams through one network", function()
  it("run as one batch what they ask at once, end by themselves, and fail alone", function()
    local batches = {}
    local network = {}
    function network.run(_, x)
      batches[#batches + 1] = x:size(1)
      if x:get(1, 1) == 99 then error("too much", 0) end
      return { y = x * 2 }
    end
    local results = together.run({ double = network }, 4, 3, function(i, shared)
      return lr.scope(function()
        local x = lr.full({ 1, 2 }, i)
        for _ = 1, i do
          local scratch = lr.zeros { 3 } -- lives in this stream's scope alone
          x = shared.double:run(x).y + scratch:get(1)
        end
        if i == 3 then error("three", 0) end
        if i == 4 then shared.double:run(lr.full({ 1, 2 }, 99)) end
        return x:get(1, 2)
      end)
    end)
    assert.same({ { true, 2 }, { true, 8 }, { false, "three" }, { false, "too much" } }, results)
    assert.same({ 3, 3, 2, 1, 1, 1 }, batches)
  end)

  it("an interruption ends all", function()
    local ok, err = pcall(together.run, { a = { run = function(_, x) return { y = x } end } }, 2, 2, function(i, shared)
      shared.a:run(lr.zeros { 1, 1 })
      if i == 1 then error("interrupted", 0) end
    end)
    assert.is_false(ok)
    assert.equal("interrupted", err)
  end)
end)

describe("recordings at once", function()
  local folder, inputs, path
  setup(function()
    folder, inputs, path = files.temporary_folder(), {}, weights.path
    cases.write_networks(folder, .25)
    for i, about in ipairs { { 90, 70, 3 }, { 64, 80, 1 }, { 90, 70, 2 } } do
      inputs[i] = ("%s/%d"):format(folder, i)
      files.mkdirs(inputs[i])
      for n = 1, about[3] do
        local frame = lr.full({ about[2], about[1], 3 }, 40 * i, "u8")
        for y = 0, about[2] - 1 do ffi.fill(frame:ptr() + (y * about[1] + 5 * n) * 3, 60, 30 * n + i) end
        require("libration.media").write_png(("%s/%02d.png"):format(inputs[i], n), frame)
      end
    end
    inputs[4] = folder .. "/nothing"
  end)
  teardown(function() files.remove(folder) end)
  after_each(function() weights.path = path end)

  local function same(a, b)
    assert.same(a.shape, b.shape)
    return ffi.string(a:ptr(), a:numel() * 4) == ffi.string(b:ptr(), b:numel() * 4)
  end

  local function check(name)
    weights.path = function(file) return ("%s/%s.tflite"):format(folder, file) end
    local function options() return { cache = false, device = name, stability = name == "cpu" and 2 or 0, smooth = "offline" } end
    local alone = {}
    for i = 1, 3 do alone[i] = extract.recording(inputs[i], options()) end
    for _, most in ipairs(name == "cpu" and { 2, 4 } or { 4 }) do
      local results = extract.recordings(inputs, options(), most)
      for i, a in ipairs(alone) do
        assert.is_true(results[i][1], results[i][2])
        local r = results[i][2]
        assert.is_true(a.found > 0)
        assert.same({ a.frames, a.found, a.width, a.key, a.times, a.stability }, { r.frames, r.found, r.width, r.key, r.times, r.stability })
        assert.is_true(same(a.landmarks, r.landmarks) and same(a.world, r.world) and same(a.watch, r.watch))
      end
      assert.same({ true, nil }, { results[4][1], results[4][2] })
      assert.truthy(results[4][3]:find(inputs[4], 1, true))
    end
  end

  it("are what each is alone, bit for bit; one that cannot be read says so", function() check "cpu" end)
  it("on a device too", function()
    local count, reason = device.count()
    if count == 0 then return pending(reason) end
    check "cuda"
  end)

  it("BlazePose itself: the landmarks of two videos at once are those of each alone #slow", function()
    local why = cases.missing() or helper.emulator() and "the plain pass asks this of the CPU"
    if why then return pending(why) end
    local list, o = { helper.shared "data/video/ta_chi.mp4", helper.shared "data/video/sports2d_walk.mp4" }, { cache = false, stop = .3 }
    local results = extract.recordings(list, o, 2)
    for i, input in ipairs(list) do
      local alone = extract.recording(input, { cache = false, stop = .3 })
      assert.is_true(alone.found > 0 and same(alone.landmarks, results[i][2].landmarks))
    end
  end)
end)
