-- Specs of BlazePose without its networks: decoding, regions, refinement and projection on golden raw outputs, and the tracker on made-up networks.
local helper = require "helper"
local lr = require "libration"
local npy = require "libration.formats.npy"
local blazepose = require "libration.pose.blazepose"
local pose = require "libration.pose"
local cases = require "pose_cases"

local networks, frame_of = cases.networks, cases.frame

local anchor = {} -- keeps golden tensors alive while their pointers are used
local function load(stage, key)
  local t = assert(npy.load(helper.shared("goldens/stages/" .. stage) .. "/" .. key .. ".npy"))
  anchor[#anchor + 1] = t
  return t:ptr()
end

describe("blazepose", function()
  after_each(function() anchor = {} end)

  it("makes MediaPipe's 2254 anchors", function()
    local a = blazepose.anchors():ptr()
    assert.near(.5 / 28, a[0], 1e-8)
    assert.near(.5 / 28, a[3], 1e-8)
    assert.near(1.5 / 28, a[4], 1e-8)
    assert.near(6.5 / 7, a[2253 * 2 + 1], 1e-7)
    if helper.shared("goldens/stages") then
      local golden = assert(npy.load(helper.shared("goldens/stages") .. "/anchors.npy"))
      for i = 0, 2254 * 2 - 1 do assert.equal(golden:ptr()[i], a[i]) end
    end
  end)

  for stage, size in pairs(cases.stages) do
    local w, h = unpack(size)
    it(("bound: decoding %s within .05 px, angle 1e-4"):format(stage), function()
      if not helper.shared("goldens/stages/" .. stage) then return pending("needs ../shared") end
      load(stage, "detector_boxes")
      load(stage, "detector_scores")
      local found = blazepose.detections(anchor[1]:reshape(1, 2254, 12), anchor[2]:reshape(1, 2254))[1]
      local best, golden, roi = blazepose.to_picture(found[1], w, h), load(stage, "detection"), load(stage, "roi")
      local worst = 0
      for k = 1, 12 do worst = math.max(worst, math.abs(best[k] - golden[k - 1])) end
      assert.near(golden[12], best[13], 1e-6)
      local r = blazepose.square(blazepose.rect(best[5], best[6], best[7], best[8], w, h), w, h)
      local off, angle = math.max(math.abs(r.x - roi[0]), math.abs(r.y - roi[1]), math.abs(r.width - roi[2])), math.abs(r.angle - roi[3])
      io.write(("bound: decoding %s detection %.5f px region %.5f px angle %.1e\n"):format(stage, worst, off, angle))
      assert.is_true(worst <= .05 and off <= .05 and angle <= 1e-4)
    end)

    it(("bound: refinement and projection %s within .01 px, 1e-5 m"):format(stage), function()
      if not helper.shared("goldens/stages/" .. stage) then return pending("needs ../shared") end
      local worst, sure, metres, seven = cases.projection(stage, "cpu")
      io.write(("bound: projection %s %.5f px visibility %.1e world %.1e m kernel 7 %.1e of the crop\n"):format(stage, worst, sure, metres, seven))
      assert.is_true(worst <= .01 and sure <= 1e-6 and metres <= 1e-5 and seven <= 1e-6)
    end)
  end

  it("suppresses by the weighted mean of overlapping boxes, best first", function()
    local raw, logits = lr.zeros { 1, 2254, 12 }, lr.full({ 1, 2254 }, -50)
    local boxes, scores = raw:ptr(), logits:ptr()
    local a = blazepose.anchors():ptr()
    -- two overlapping boxes at x = .3 and .32, one apart at .8, all at y = .5 with sides .2; points at the centre
    for k, x in ipairs { .3, .32, .8 } do
      local i = 100 * k
      boxes[12 * i], boxes[12 * i + 1] = (x - a[2 * i]) * 224, (.5 - a[2 * i + 1]) * 224
      boxes[12 * i + 2], boxes[12 * i + 3] = .2 * 224, .2 * 224
      for p = 4, 11, 2 do boxes[12 * i + p], boxes[12 * i + p + 1] = boxes[12 * i], boxes[12 * i + 1] end
      scores[i] = ({ 0, 2, 1 })[k]
    end
    local found = blazepose.detections(raw, logits)[1]
    local function s(v) return 1 / (1 + math.exp(-v)) end
    assert.equal(2, #found)
    assert.near(s(2), found[1][13], 1e-6)
    assert.near((.3 * s(0) + .32 * s(2)) / (s(0) + s(2)), found[1][5], 1e-6)
    assert.near(.7, found[2][1], 1e-6)
    scores[100], scores[200], scores[300] = -1, 0 / 0, -1e9
    assert.equal(0, #blazepose.detections(raw, logits)[1])
  end)

  it("chooses the best, the largest or the most central person", function()
    local people = { { 0, 0, 0, 0, 10, 10, 10, 30 }, { 0, 0, 0, 0, 300, 10, 300, 90 }, { 0, 0, 0, 0, 160, 100, 160, 110 } }
    assert.equal(1, blazepose.choose(people, "best", 320, 200))
    assert.equal(2, blazepose.choose(people, "largest", 320, 200))
    assert.equal(3, blazepose.choose(people, "central", 320, 200))
  end)

  it("gives an upright region no angle and turns clockwise", function()
    local r, size = blazepose.rect(50, 80, 50, 40, 200, 100)
    assert.near(0, r[4], 1e-7)
    assert.near(80, size, 1e-5)
    assert.near(.25, r[0], 1e-7)
    assert.near(.8, r[1], 1e-7)
    assert.near(.5, r[2], 1e-7)
    assert.near(1, r[3], 1e-7)
    local square = blazepose.square(r, 200, 100)
    assert.near(100, square.width, 1e-5)
    assert.near(100, square.height, 1e-5)
    assert.near(math.pi / 2, blazepose.rect(50, 80, 90, 80, 200, 100)[4], 1e-6)
    assert.near(-math.pi / 2, blazepose.rect(50, 80, 10, 80, 200, 100)[4], 1e-6)
  end)
end)

describe("landmarker", function()
  it("runs the detector on the first frame only, then follows the auxiliary points", function()
    local nets, seen = networks {}
    local l = pose.landmarker { networks = nets, clock = "mediapipe" }
    for i = 1, 5 do
      local landmarks, world = l:process(frame_of(320, 200))
      assert.same({ 33, 5 }, landmarks.shape)
      assert.same({ 33, 3 }, world.shape)
      assert.equal(i == 1, l.detected)
      assert.near(160, l.region.x, 1e-3)
      assert.near(2.5 * .25 * 320, l.region.width, 1e-3)
    end
    assert.same({ detector = 1, landmark = 5 }, seen)
  end)

  it("looks again with the detector in the frame after one without a pose, and after a reset", function()
    local nets, seen = networks { flag = function(n) return n == 3 and .5 or .51 end }
    local l, answers = pose.landmarker { networks = nets, clock = "mediapipe" }, {}
    for i = 1, 5 do answers[i] = l:process(frame_of(320, 200)) ~= nil end
    assert.same({ true, true, false, true, true }, answers)
    assert.equal(2, seen.detector)
    assert.is_false(l.detected)
    l:reset()
    l:process(frame_of(320, 200))
    assert.is_true(l.detected)
    assert.equal(3, seen.detector)
  end)

  it("says nil where the detector finds nobody, and tries every frame", function()
    local nets, seen = networks { people = {} }
    local l = pose.landmarker { networks = nets }
    for i = 1, 3 do assert.is_nil(l:process(frame_of(31, 47), i / 30)) end
    assert.same({ detector = 3, landmark = 0 }, seen)
    assert.is_nil(l.region)
  end)

  it("smooths only when asked, and tracks alike with and without", function()
    local tracks = {}
    for _, smooth in ipairs { "one-euro", "none", "offline" } do
      local script = { drift = 0 }
      local l = pose.landmarker { networks = networks(script), smooth = smooth }
      local list = {}
      for i = 1, 6 do
        script.drift = 12 * (i % 2)
        local landmarks = l:process(frame_of(320, 200), i / 30)
        list[i] = { landmarks:ptr()[5 * 20], l.region.x, l.region.angle }
      end
      tracks[smooth] = list
    end
    for i = 1, 6 do
      assert.equal(tracks.none[i][2], tracks["one-euro"][i][2])
      assert.equal(tracks.none[i][3], tracks["one-euro"][i][3])
      assert.same(tracks.none[i], tracks.offline[i])
    end
    assert.equal(tracks.none[1][1], tracks["one-euro"][1][1])
    assert.is_true(math.abs(tracks.none[3][1] - tracks["one-euro"][3][1]) > 1e-3)
  end)

  it("takes the time of the video or counts 33333 us a frame", function()
    local function run(clock, step)
      local script = { drift = 0 }
      local l, last = pose.landmarker { networks = networks(script), clock = clock }, nil
      for i = 1, 4 do
        script.drift = 3 * i
        last = l:process(frame_of(320, 200), i * step):ptr()[5 * 20]
      end
      return last
    end
    assert.equal(run("mediapipe", .2), run("mediapipe", .04))
    assert.near(run("mediapipe", 1), run("video", .033333), 1e-4)
    assert.is_true(math.abs(run("video", .2) - run("video", .033333)) > 1e-4)
    local l = pose.landmarker { networks = networks {} }
    assert.error_matches(function() l:process(frame_of(20, 20)) end, "a time in seconds is wanted")
  end)

  it("detects on every frame when static", function()
    local nets, seen = networks {}
    local l = pose.landmarker { networks = nets, static = true, smooth = "none" }
    for _ = 1, 3 do assert.is_truthy(l:process(frame_of(64, 48))) end
    assert.same({ detector = 3, landmark = 3 }, seen)
  end)

  it("follows whom it is told to", function()
    for person, x in pairs { best = .2, largest = .8, central = .5 } do
      local l = pose.landmarker { networks = networks { people = { { .2, .5, .1, 5 }, { .8, .5, .3, 3 }, { .5, .5, .2, 1 } } }, person = person }
      l:process(frame_of(300, 300), 0)
      assert.near(300 * x, l.region.x, .01, person)
    end
  end)

  it("refuses unknown options, values and frames by name", function()
    assert.error_matches(function() pose.landmarker { modle = "full" } end, "unknown option modle; there are clock, device, kernel")
    assert.error_matches(function() pose.landmarker { model = "huge" } end, "model is huge, want full, lite, heavy")
    assert.error_matches(function() pose.landmarker { kernel = 8 } end, "kernel is 8, want 9, 7")
    local l = pose.landmarker { networks = networks {} }
    assert.error_matches(function() l:process(lr.zeros({ 4, 4, 3 }), 0) end, "frame is f32 %[4,4,3%], want u8 %[H,W,3%]")
    assert.error_matches(function() pose.landmarker { networks = { detector = { run = function() return {} end } } }:process(frame_of(9, 9), 0) end, "no output")
  end)
end)
