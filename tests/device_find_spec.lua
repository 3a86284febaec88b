-- device_find_spec.lua: finding what is to be covered on a CUDA device: the same boxes as on the CPU, brought networks, a device that fails in the middle of a recording.
-- Runs on whichever CUDA library is found, emulated or real.
local cjson = require "cjson"
local ffi = require "ffi"
local lr = require "libration"
local adapters = require "libration.pose.adapters"
local build = require "helper_onnx"
local cases = require "pose_cases"
local device = require "libration.device"
local files = require "libration.files"
local helper = require "helper"
local finder = require "libration.pose.finder"
local regions = require "libration.regions"
local shell = require "shell"
local ssd = require "libration.pose.ssd"
local weights = require "libration.weights"

local count, reason = device.count()
local emulator = helper.emulator()

-- A grey picture with a bright square.
local function bright(w, h, x, y, side)
  local frame = lr.full({ h, w, 3 }, 20, "u8")
  for row = y, y + side - 1 do ffi.fill(frame:ptr() + (row * w + x) * 3, side * 3, 230) end
  return frame
end

describe("detections of a single-shot detector", function()
  -- two boxes of one thing, one apart, one too weak, one that is no number
  local anchors = lr.tensor { { .25, .5 }, { .25, .5 }, { .75, .5 }, { .5, .5 }, { .5, .5 } }
  local boxes = lr.tensor { { { 0, 0, 20, 20, 1, 2 }, { 2, 0, 20, 20, 3, 4 }, { 0, 0, 10, 10, 5, 6 }, { 0, 0, 10, 10, 0, 0 }, { 0, 0, 10, 10, 0, 0 } } }
  local scores = lr.tensor { { 1, 2, 0, -3, 0 / 0 } }
  local options = { size = 100, least = .4, iou = .3 }
  local function s(v) return 1 / (1 + math.exp(-v)) end

  local function check(name)
    local found = ssd.detections(boxes:to(name), scores:to(name), anchors:to(name), options)[1]
    assert.equal(2, #found)
    local share = s(2) / (s(1) + s(2)) -- of the better one in the mean
    for k, v in ipairs { .15 + .02 * share, .4, .35 + .02 * share, .6, .26 + .02 * share, .52 + .02 * share, s(2) } do assert.near(v, found[1][k], 1e-6) end
    for k, v in ipairs { .7, .45, .8, .55, .8, .56, .5 } do assert.near(v, found[2][k], 1e-6) end
    local one = options
    one.iou = 1
    assert.equal(3, #ssd.detections(boxes:to(name), scores:to(name), anchors:to(name), one)[1])
    one.iou = .3
  end

  it("are the weighted means of what overlaps, best first, on the CPU", function() check "cpu" end)
  it("and on a device", function()
    if count == 0 then return pending(reason) end
    check "cuda"
  end)

  it("of every box of a detector, many alike: the device's are the CPU's to 1e-6, as many", function()
    if count == 0 then return pending(reason) end
    local n = 400
    local at = lr.uniform({ n, 2 }, { seed = 1 })
    for _, spread in ipairs { 4, 60 } do
      local raw = lr.uniform({ 2, n, 8 }, { seed = 2, low = 1, high = spread })
      local logits = lr.uniform({ 2, n, 1 }, { seed = 3, low = -2, high = 2 })
      local want = ssd.detections(raw, logits, at, options)
      local have = ssd.detections(raw:to "cuda", logits:to "cuda", at:to "cuda", options)
      assert.is_true(#want[1] > 5)
      for b = 1, 2 do
        assert.equal(#want[b], #have[b])
        for i, d in ipairs(want[b]) do
          for k = 1, #d do assert.near(d[k], have[b][i][k], 1e-6) end
        end
      end
    end
  end)

  it("refuse what does not fit by name", function()
    helper.refuses("ssd_detections: scores are f32 [1,4], want f32 [1,5]", ssd.detections, boxes, lr.zeros { 1, 4 }, anchors, options)
    helper.refuses("ssd_detections: anchors are f32 [4,2], want f32 [5,2]", ssd.detections, boxes, scores, lr.zeros { 4, 2 }, options)
    helper.refuses("ssd_detections: boxes are f32 [1,5,5], want f32 [B,N,4 + 2P]", ssd.detections, lr.zeros { 1, 5, 5 }, scores, anchors, options)
    helper.refuses("least score 0", ssd.detections, boxes, scores, anchors, { size = 1, least = 0, iou = .3 })
    helper.refuses("crop: a rim of 3", regions.crop, lr.zeros({ 2, 9, 3 }, "u8"), lr.ones { 1, 5 }, { size = { 1, 1 }, rim = 3 })
  end)
end)

describe("a rim around a picture", function()
  it("is the picture mirrored at its edges, on every device", function()
    local h, w, rim = 5, 7, 4
    local picture, big = lr.empty({ h, w, 3 }, "u8"), lr.empty({ h + 2 * rim, w + 2 * rim, 3 }, "u8")
    for i = 0, h * w * 3 - 1 do picture:ptr()[i] = i * 37 % 251 end
    local function mirrored(v, n) return v < 0 and -1 - v or v >= n and 2 * n - 1 - v or v end
    for y = 0, h + 2 * rim - 1 do
      for x = 0, w + 2 * rim - 1 do
        ffi.copy(big:ptr() + (y * (w + 2 * rim) + x) * 3, picture:ptr() + (mirrored(y - rim, h) * w + mirrored(x - rim, w)) * 3, 3)
      end
    end
    for _, border in ipairs { "zero", "replicate" } do
      local y = regions.crop(big, lr.tensor { { w / 2 + rim, h / 2 + rim, 24, 24, 0 } }, { size = { 24, 24 }, border = border })
      for _, name in ipairs(count > 0 and { "cpu", "cuda" } or { "cpu" }) do
        local own = regions.crop(picture:to(name), lr.tensor({ { w / 2, h / 2, 24, 24, 0 } }):to(name), { size = { 24, 24 }, border = border, rim = rim })
        if border == "zero" then assert.equal(0, helper.difference(y, own:to "cpu"))
        else -- beyond the rim an edge pixel of the picture, not of the rim
          assert.equal(0, helper.difference(y:narrow(2, 9, 8):narrow(3, 8, 10), own:to("cpu"):narrow(2, 9, 8):narrow(3, 8, 10)))
        end
      end
    end
  end)
end)

describe("finding on a device", function()
  if count == 0 then
    it("is the CPU's", function() pending(reason) end)
    return
  end
  local folder
  local path = weights.path
  setup(function()
    folder = files.temporary_folder()
    cases.write_networks(folder)
  end)
  teardown(function() files.remove(folder) end)
  before_each(function() weights.path = function(name) return ("%s/%s.tflite"):format(folder, name) end end)
  after_each(function() weights.path = path end)

  it("finds the same faces and heads, in whole frames, tiles and turned views, .01 px", function()
    local here, there, n = finder.new { device = "cpu" }, finder.new { device = "cuda" }, 0
    local pictures = { bright(120, 90, 30, 20, 24), bright(90, 120, 50, 90, 30), lr.full({ 40, 60, 3 }, 20, "u8") }
    if not emulator then pictures[4] = bright(1000, 700, 700, 300, 90) end -- with tiles
    for _, picture in ipairs(pictures) do
      local want, have = here:look(picture), there:look(picture)
      assert.equal(#want, #have)
      for i, d in ipairs(want) do
        n = n + 1
        for _, k in ipairs { "x", "y", "width", "height", "angle", "score" } do assert.near(d[k], have[i][k], .01) end
        for k = 1, d.points and #d.points or 0 do assert.is_true(d.points[k] ~= d.points[k] or math.abs(d.points[k] - have[i].points[k]) < .01) end
      end
    end
    assert.is_true(n > 3)
    local tiles, views = there.faces:search(pictures[1], { tile = 70, turned = false }), here.faces:search(pictures[1], { tile = 70, turned = false })
    assert.equal(#views, #tiles)
    for i, f in ipairs(views) do assert.near(f.x, tiles[i].x, .01) end
    local bounds = there.faces:look(pictures[1]:to "cuda", { { x = 42, y = 32, side = 60, angle = 0 } })[1][1] -- what is there already stays there
    assert.near(42, bounds.x, 12)
  end)

  it("the CPU goes on with the same frame where the device fails and a fallback is given, else the error ends it", function()
    if not emulator then return pending "asked of the emulated device alone" end
    local ok, err = pcall(function()
      local picture, said = bright(90, 70, 30, 20, 24), {}
      local want = finder.new { device = "cpu" }:look(picture)
      for _, fault in ipairs { "lbr_emu_lose_device", "lbr_emu_fail_launch" } do
        for _, n in ipairs { 1, 30 } do
          local f = finder.new { device = "cuda", fallback = function(message) said[#said + 1] = message end }
          emulator[fault](n)
          local have = f:look(picture)
          assert.equal("cpu", f.device)
          assert.equal(#want, #have)
          assert.near(want[1].x, have[1].x, .01)
          assert.equal(#want, #f:look(picture))
          emulator.lbr_emu_heal()
        end
      end
      assert.equal(4, #said)
      for _, message in ipairs(said) do assert.truthy(message:find("cudaError", 1, true), message) end
      local f = finder.new { device = "cuda" }
      emulator.lbr_emu_lose_device(4)
      local looked, message = pcall(f.look, f, picture)
      assert.is_false(looked)
      assert.truthy(message:find("cudaErrorDevicesUnavailable", 1, true), message)
      assert.is_true(device.failed("cuda:0", "anything")) -- it stays that way
      emulator.lbr_emu_heal()
      assert.is_false(device.failed("cuda:0", "anything"))
    end)
    emulator.lbr_emu_heal()
    if not ok then error(err, 0) end
  end)

  it("a brought network in f16 is read again, in f32, where the CPU takes over", function()
    local file = folder .. "/brought.onnx"
    files.write(file, build.model {
      inputs = { build.info("x", "f32", { 1, 3, 6, 8 }) }, outputs = { build.info("y", "f32", { 1, 2, 6, 8 }) },
      constants = { build.tensor("w", "f32", { 2, 3, 1, 1 }, { .1, -.3, .7, 1 / 3, .9, -.2 }) }, nodes = { build.node("Conv", { "x", "w" }, { "y" }) },
    })
    local x = lr.randn({ 1, 6, 8, 3 }, { seed = 1 })
    local function answer(d) return assert(d:run(x:to(d.device)))[1].tensor:to "cpu" end
    local want = answer(assert(adapters.detector(file, { adapter = "yolox" })))
    local brought = assert(adapters.detector(file, { adapter = "yolox", device = "cuda", precision = "f16" }))
    local off = helper.difference(want, answer(brought))
    assert.is_true(off > 0 and off < .01, off)
    assert.equal("cpu", brought:to("cpu").network.device)
    assert.equal(0, (helper.difference(want, answer(brought))))
  end)

  -- The recipe on made-up networks and a folder of pictures; what: Lua that runs before it.
  local function recipe(what, more)
    local pictures = folder .. "/pictures"
    if not files.exists(pictures) then
      files.mkdirs(pictures)
      for i = 1, 2 do require("libration.media").write_png(("%s/%d.png"):format(pictures, i), bright(90, 70, 10 + 9 * i, 20, 24)) end
    end
    files.remove(folder .. "/out")
    local setup = ([[
      package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
      local lr, ffi = require "libration", require "ffi"
      require("libration.weights").path = function(name) return "%s/" .. name .. ".tflite" end
      assert(lr.device.count() > 0)
      ffi.cdef "void lbr_emu_lose_device(long n);"
      local emulator = ffi.load((lr.core.find_library "libration_cuda"))
      %s]]):format(folder, what)
    return shell(("luajit -e %s recipes/anonymise.lua --threads 1 --no-verify --detector face %s --output %s %s"):format(files.quote(setup), files.quote(pictures),
      files.quote(folder .. "/out"), more))
  end
  local function tracks(i)
    local text = files.read(("%s/out/%d.anonymised.json"):format(folder, i))
    return text and cjson.decode(text).tracks
  end

  it("under the recipe: auto goes on on the CPU and says so, cuda ends with one line; the same tracks #process", function()
    if not emulator then return pending "asked of the emulated device alone" end
    local text, code = recipe("", "--device cpu")
    assert.equal(0, code, text)
    local want = { tracks(1), tracks(2) }
    assert.is_true(#want[1] > 0)
    text, code = recipe("", "--device auto")
    assert.equal(0, code, text)
    assert.truthy(text:find("device: cuda:0, ", 1, true), text)
    assert.same(want, { tracks(1), tracks(2) })
    text, code = recipe("emulator.lbr_emu_lose_device(9)", "--device auto")
    assert.equal(0, code, text)
    assert.truthy(text:find("cuda:0 failed, detection went on on the CPU: ", 1, true), text)
    assert.same(want, { tracks(1), tracks(2) })
    assert.truthy(files.read(folder .. "/out/report.html"):find("detection went on on the CPU", 1, true))
    text, code = recipe("emulator.lbr_emu_lose_device(9)", "--device cuda")
    assert.is_true(code ~= 0, text)
    assert.truthy(text:find("cudaErrorDevicesUnavailable", 1, true), text)
    assert.is_nil(tracks(1))
  end)
end)
