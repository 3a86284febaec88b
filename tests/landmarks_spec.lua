-- Specs of the whole way from a video file to landmarks, against MediaPipe's own answers; the networks run for real here.
local ffi = require "ffi"
local helper = require "helper"
require "libration"
local npy = require "libration.formats.npy"
local cases = require "pose_cases"
local pose = require "libration.pose"

local each_frame, golden, percentile, missing = cases.each_frame, cases.recorded, cases.percentile, cases.missing
local videos, names = cases.files, cases.names

-- The landmark network alone, on the region that MediaPipe used in each frame.
local function from_golden_regions(name, most)
  local mean, p99, above, flags, n = cases.golden_regions(name, most, { clock = "mediapipe" })
  assert.is_true(mean <= .02 and p99 <= .3 and above <= .001 * n and flags == 0)
end

-- From the file to smoothed landmarks, nothing taken from the goldens.
local function chain(name, most, folder, kernel) return cases.chain(name, most, folder, { clock = "mediapipe", kernel = kernel }) end

describe("landmarks", function()
  after_each(cases.forget)

  it("bound: golden regions ta_chi, 12 frames: mean <= .02 px, 99th percentile <= .3, .1 % above .5, found alike", function()
    local why = missing()
    if why then return pending(why) end
    from_golden_regions("ta_chi", 12)
  end)

  for _, name in ipairs(names) do
    it(("bound: golden regions %s, every frame: mean <= .02 px, 99th percentile <= .3, .1 %% above .5, found alike #slow"):format(name), function()
      local why = missing()
      if why then return pending(why) end
      from_golden_regions(name, 1e9)
    end)
  end

  it("answers about several regions at once what it answers about each, also where nobody is", function()
    local why = missing()
    if why then return pending(why) end
    local roi, n = golden("video", "ta_chi", "roi"), 0
    local landmarker = pose.landmarker { static = true }
    each_frame(videos.ta_chi[1], 4, function(frame, i)
      local q = roi:ptr() + 6 * i
      local rects = { q, ffi.new("float[5]", .02, .02, .02, .03, 1), ffi.new("float[5]", q[0] + .02, q[1] - .01, 1.1 * q[2], 1.1 * q[3], .2), q }
      local alone = {}
      for k, rect in ipairs(rects) do
        local found, flag = landmarker:mark(frame, rect)
        alone[k] = { flag = flag, text = found and ffi.string(found.landmarks, 5 * 35 * 4) .. ffi.string(found.world, 3 * 35 * 4) }
      end
      local found, flags = landmarker:marks(frame, rects)
      assert.is_true(found[1] and found[3] and not found[2] and found[1] ~= found[3])
      for k in ipairs(rects) do
        assert.equal(alone[k].flag, flags[k])
        assert.equal(alone[k].text or false, found[k] and ffi.string(found[k].landmarks, 5 * 35 * 4) .. ffi.string(found[k].world, 3 * 35 * 4))
        n = n + 1
      end
    end)
    assert.equal(16, n)
  end)

  it("bf16 products stay within 1 px (median) and 5 px (95th percentile) of ta_chi's recorded landmarks, found alike #slow", function()
    local why = missing()
    if why then return pending(why) end
    local roi, raw = golden("video", "ta_chi", "roi"), golden("video", "ta_chi", "raw.landmarks")
    local landmarker, off = pose.landmarker { precision = "bf16" }, {}
    each_frame(videos.ta_chi[1], 24, function(frame, i)
      local h, w, g = frame:size(1), frame:size(2), raw:ptr() + 165 * i
      local found = landmarker:mark(frame, roi:ptr() + 6 * i)
      for k = 0, 32 do
        off[#off + 1] = math.sqrt(((found.landmarks[5 * k] - g[5 * k]) * w) ^ 2 + ((found.landmarks[5 * k + 1] - g[5 * k + 1]) * h) ^ 2)
      end
    end)
    local median, p95 = percentile(off, 50), percentile(off, 95)
    io.write(("bf16: ta_chi median %.3f px 95th percentile %.3f max %.2f\n"):format(median, p95, off[#off]))
    assert.is_true(median <= 1 and p95 <= 5)
  end)

  it("bound: whole chain again, 12 frames: median <= .5 px, 95th percentile <= 3 px, the same frames", function()
    local why = missing()
    if why then return pending(why) end
    local median, p95, different = chain("again", 12)
    assert.is_true(median <= .5 and p95 <= 3 and different == 0)
  end)

  for _, name in ipairs { "ta_chi", "again", "book", "help", "thanks" } do
    it(("bound: whole chain %s: median <= .5 px, 95th percentile <= 3 px, the same frames #slow"):format(name), function()
      local why = missing()
      if why then return pending(why) end
      local median, p95, different = chain(name, 1e9)
      assert.is_true(median <= .5 and p95 <= 3 and different == 0)
    end)
  end

  -- In 8 of its 100 frames (36, 60, 62, 71, 72, 74, 81, 83) the landmark network itself moves points by 10 to 150 pixels when the region, 1000 pixels wide, moves by
  -- .02: only sums in the order of MediaPipe's own kernels (csrc/cpu/convolve.c) stay with it; others end 6 to 10 pixels apart at the 95th percentile. AVX2 is forced
  -- here; that the networks answer the same bits under every instruction set is the next spec's, which is why no whole chain runs on portable kernels (1 s a frame).
  it("bound: whole chain pose2sim_cam02 on AVX2 kernels: median <= .5 px, 95th percentile <= 3 px, the same frames #slow", function()
    local why = missing()
    if why then return pending(why) end
    local C = require "libration.core".C
    C.lbr_cpu_limit(C.LBR_ISA_AVX2)
    local ok, median, p95, different = pcall(chain, "pose2sim_cam02", 1e9)
    C.lbr_cpu_limit(C.LBR_ISA_AVX512)
    assert(ok, median)
    assert.is_true(median <= .5 and p95 <= 3 and different == 0)
  end)

  it("the networks answer the same bits under every instruction set #slow", function()
    local why = missing()
    if why then return pending(why) end
    local C = require "libration.core".C
    local best = C.lbr_cpu_isa()
    for which, key in pairs { pose_detection = "detector_input_u8", pose_landmark_full = "landmark_input_u8" } do
      local outputs = which == "pose_landmark_full" and { "Identity", "Identity_1", "Identity_3", "Identity_4" } or nil
      local network = assert(require "libration.graph".load(require "libration.weights".path(which), { outputs = outputs }))
      local picture = assert(npy.load(helper.shared("goldens/stages/pose2sim_cam02_f050") .. "/" .. key .. ".npy"))
      local x, first = (picture:to("f32") * (1 / 255)):view(unpack(network.inputs[1].shape)), nil
      for isa = best, 0, -1 do
        C.lbr_cpu_limit(isa)
        local ok, out = pcall(network.run, network, x)
        C.lbr_cpu_limit(C.LBR_ISA_AVX512)
        assert(ok, out)
        local bytes = {}
        for name, t in pairs(out) do bytes[name] = ffi.string(t:ptr(), t:numel() * 4) end
        first = first or bytes
        for name in pairs(first) do assert.is_true(first[name] == bytes[name], ("%s %s, instruction set %d"):format(which, name, isa)) end
      end
    end
  end)

  it("bound: whole chain sports2d_walk: a pose in 215-230 frames, median <= 3 px #slow", function()
    local why = missing()
    if why then return pending(why) end
    local median, _, _, ours = chain("sports2d_walk", 1e9)
    assert.is_true(median <= 3 and ours >= 215 and ours <= 230)
  end)

  it("bound: whole chain ta_chi with kernel 7: median <= .5 px, 95th percentile <= 3 px, the same frames #slow", function()
    local why = missing()
    if why then return pending(why) end
    local median, p95, different = chain("ta_chi", 1e9, "video_kernel7", 7)
    assert.is_true(median <= .5 and p95 <= 3 and different == 0)
  end)

  for _, still in ipairs { "images/grace_hopper.bmp", "stills/coco/000000000785.jpg", "stills/coco/000000040083.jpg", "stills/coco/000000196141.jpg",
    "stills/coco/000000197388.jpg", "stills/footballers.jpg" } do
    it(("bound: still %s: mean <= .1 px, found alike"):format(still), function()
      local why = missing()
      if why then return pending(why) end
      local name = still:match("([^/]+)%.%w+$")
      local want = golden("stills", name, "landmarks"):ptr()
      local landmarker = pose.landmarker { static = true, smooth = "none" }
      each_frame(still, 1, function(frame)
        local h, w = frame:size(1), frame:size(2)
        local found = landmarker:process(frame)
        assert.equal(want[0] == want[0], found ~= nil)
        local sum, max = 0, 0
        for k = 0, 32 do
          local d = math.sqrt((found:ptr()[5 * k] - want[5 * k] * w) ^ 2 + (found:ptr()[5 * k + 1] - want[5 * k + 1] * h) ^ 2)
          sum, max = sum + d / 33, math.max(max, d)
        end
        io.write(("bound: still %s mean %.4f px max %.3f\n"):format(name, sum, max))
        assert.is_true(sum <= .1)
      end)
    end)
  end
end)

describe("recording", function()
  local extract = require "libration.pose.extract"

  it("maps source pixels to frame pixels and back for every turn and crop", function()
    for _, rotate in ipairs { 0, 90, 180, 270 } do
      local folder = require "libration.files".temporary_folder()
      local media = require "libration.media"
      media.write_png(folder .. "/a.png", require "libration".zeros({ 50, 60, 3 }, "u8"))
      local source = assert(media.open(folder .. "/a.png", { crop = { 7, 11, 30, 20 }, rotate = rotate }))
      local to_frame, direction = extract.turning(source)
      for _, point in ipairs { { 0, 0 }, { source.width, source.height }, { 3, 17 } } do
        local x, y = source:to_source(unpack(point))
        assert.is_true(x >= 7 and x <= 37 and y >= 11 and y <= 31)
        assert.same(point, { to_frame(x, y) })
      end
      local x0, y0 = source:to_source(0, 0)
      local x1, y1 = source:to_source(3, 5)
      assert.same({ x1 - x0, y1 - y0 }, { direction(3, 5) })
      source:close()
      require "libration.files".remove(folder)
    end
  end)
end)

-- Runs the recipe; returns its exit status and what it wrote to stderr.
local function recipe(arguments)
  local log = os.tmpname()
  local status = os.execute(("luajit recipes/landmarks.lua %s >%s 2>&1"):format(arguments, log))
  local file = assert(io.open(log))
  local text = file:read("*a")
  file:close()
  os.remove(log)
  return type(status) == "number" and status or (status and 0 or 1), text
end

describe("landmarks recipe #process", function()
  local files = require "libration.files"
  local folder
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  it("writes arrays, table, OpenPose JSON, run.json and overlay; the second time from memory", function()
    local why = missing()
    if why then return pending(why) end
    local input, out = helper.shared("data/signs/asl_clips/thanks.mkv"), folder .. "/out"
    local quoted = ("%s --output %s --end .4"):format(files.quote(input), files.quote(out))
    local status, text = recipe("--no-cache --overlay " .. quoted)
    assert.equal(0, status, text)
    assert.matches("a pose in %d+ of %d+ frames, [%d.]+ frames/s", text)
    local landmarks, world = assert(npy.load(out .. "/landmarks.npy")), assert(npy.load(out .. "/world.npy"))
    local T = landmarks:size(1)
    assert.is_true(T >= 5)
    assert.same({ T, 33, 5 }, landmarks.shape)
    assert.same({ T, 33, 3 }, world.shape)
    local csv, about = require "libration.formats.csv".load_landmarks(out .. "/landmarks.csv")
    assert.same(landmarks:totable(), assert(csv, about):totable())
    assert.equal(T, #about.times)
    assert.equal("right_foot_index", about.joints[33])
    local json = assert(require "libration.formats.openpose".load(out .. "/landmarks.json"))
    assert.same({ T, 33, 3 }, json.shape)
    assert.near(landmarks:ptr()[5 * 11], json:ptr()[3 * 11], 1e-3)
    local source = assert(require "libration.media".open(out .. "/overlay.mp4"))
    local n = 0
    while source:next() do n = n + 1 end
    source:close()
    assert.equal(T, n)
    assert.is_true(files.exists(out .. "/run.json"))
    -- the same again: remembered, and the very same bytes
    local cache = "XDG_CACHE_HOME=" .. files.quote(folder .. "/cache")
    local models = require "libration.weights".path("pose_detection")
    local landmark = require "libration.weights".path("pose_landmark_full")
    files.mkdirs(folder .. "/models")
    files.copy(models, folder .. "/models/pose_detection.tflite")
    files.copy(landmark, folder .. "/models/pose_landmark_full.tflite")
    local function run(name)
      return os.execute(("%s luajit recipes/landmarks.lua %s --weights %s --output %s --end .4 >%s 2>&1"):format(
        cache, files.quote(input), files.quote(folder .. "/models"), files.quote(folder .. "/" .. name), files.quote(folder .. "/" .. name .. ".log")))
    end
    run("a")
    run("b")
    assert.matches("remembered", assert(files.read(folder .. "/b.log")))
    assert.equal(files.read(out .. "/landmarks.npy"), files.read(folder .. "/a/landmarks.npy"))
    assert.equal(files.read(folder .. "/a/landmarks.npy"), files.read(folder .. "/b/landmarks.npy"))
    assert.equal(files.read(folder .. "/a/world.npy"), files.read(folder .. "/b/world.npy"))
  end)

  it("ends with one line, a status and no files: missing input, text named .mp4, nobody in it, a wrong option", function()
    local function refused(text, arguments)
      local status, said = recipe(arguments .. " --output " .. files.quote(folder .. "/none"))
      assert.is_true(status ~= 0, said)
      assert.matches(text, said)
      assert.is_false(files.exists(folder .. "/none"))
      return said
    end
    refused("nothing%.mp4", files.quote(folder .. "/nothing.mp4"))
    refused("unknown option %-%-modle", "x.mp4 --modle full")
    refused("model", "x.mp4 --model huge")
    local why = missing()
    if why then return pending(why) end
    files.write(folder .. "/text.mp4", "this is no video\n")
    local said = refused("text%.mp4", files.quote(folder .. "/text.mp4"))
    assert.equal(1, select(2, said:gsub("\n", "\n")))
    refused("no person found in 1 frame", "--no-cache " .. files.quote(helper.shared("data/images/sunflower.bmp")))
  end)
end)
