-- Specs of landmark stability: the arithmetic on made-up answers; blur makes real landmarks less certain; the cache keeps it.
local ffi = require "ffi"
local helper = require "helper"
local lr = require "libration"
local files = require "libration.files"
local stability = require "libration.pose.stability"

-- A landmarker whose joint j moves j times as far as the crop does.
local function made_up(script)
  local pose = { landmarks = ffi.new("float[?]", 39 * 5) }
  local landmarker = { rect = ffi.new("float[5]", .5, .5, .4, .8, 0), runs = 0 }
  function landmarker:mark(_, rect)
    self.runs = self.runs + 1
    if script and script(self.runs) then return nil end
    for j = 0, 32 do
      local p = pose.landmarks + 5 * j
      p[0], p[1] = .5 + j * (rect[0] - .5), .5 + j * (rect[1] - .5)
    end
    pose.landmarks[5 * 11 + 1], pose.landmarks[5 * 12 + 1] = .25, .25
    pose.landmarks[5 * 23 + 1], pose.landmarks[5 * 24 + 1] = .5, .5
    return pose
  end
  return landmarker
end

describe("stability", function()
  local frame = lr.zeros({ 100, 200, 3 }, "u8")

  it("is the root mean square distance over the shifted crops, every so many frames", function()
    local s, landmarker = stability.new(4), made_up()
    for i = 1, 9 do s:take(frame, i, landmarker) end
    assert.equal(3 * stability.RUNS, landmarker.runs)
    local samples = s:samples()
    assert.same({ 3, stability.COLUMNS }, samples.shape)
    assert.equal(5, samples:get(2, 1))
    assert.near(25, samples:get(1, 2), 1e-4) -- a quarter of the height
    local out = stability.summary(samples, 4)
    assert.equal(3, out.frames)
    assert.equal("nose", out.joints[1].joint)
    assert.equal(0, out.joints[1].pixels)
    -- .5 and .25 crop pixels to and fro, a crop of 80 pixels a side
    local one = math.sqrt(.5 ^ 2 + .25 ^ 2) * 80 / 256
    assert.near(5 * one, out.joints[6].pixels, 1e-3)
    assert.near(5 * one / 25, out.joints[6].torso, 1e-4)
  end)

  it("counts a person who is lost as a torso length, and nobody as no sample", function()
    local s = stability.new(1)
    s:take(frame, 1, made_up(function(run) return run > 1 end))
    assert.near(1, stability.summary(s:samples(), 1).joints[1].torso, 1e-6)
    s = stability.new(1)
    s:take(frame, 1, made_up(function() return true end))
    assert.is_nil(stability.summary(s:samples(), 1))
  end)

  it("weighs joints in windows: half at .05 torso lengths", function()
    local weights = stability.weights { joints = { { joint = "a", torso = 0 }, { joint = "b", torso = .05 }, { joint = "c", torso = .15 } } }
    assert.near(1, weights.a, 1e-12)
    assert.near(.5, weights.b, 1e-12)
    assert.near(.1, weights.c, 1e-12)
    local Windows = require "libration.motion.windows"
    local values = ffi.new("double[?]", 3 * 4, 1, 2, 3, 4, 1, 2, 0 / 0, 4, 2, 2, 3, 5)
    local w = Windows.of({ { frames = 3, size = 4, joints = 2, per_joint = 2, values = values, joint_weight = { .25, .5 } } }, { window = 3, post = "none" })
    local x, weight = ffi.new("float[?]", 18), ffi.new("float[?]", 18)
    w:write({ 1 }, { mean = { 0, 0, 0, 0 }, sd = { 1, 1, 1, 1 } }, true, x, weight)
    local got = {}
    for i = 0, 11 do got[i + 1] = weight[i] end
    assert.same({ .25, .25, 0, .5, .5, 0, .25, .25, 0, 0, .5, 0 }, got)
  end)

  it("writes a row a joint", function()
    local s = stability.new(1)
    s:take(frame, 1, made_up())
    local folder = files.temporary_folder()
    stability.write(folder .. "/stability.csv", stability.summary(s:samples(), 1))
    local names, rows = require("libration.formats.csv").read(folder .. "/stability.csv")
    assert.same({ "joint", "pixels", "torso_lengths", "frames" }, names)
    assert.equal(33, #rows)
    files.remove(folder)
  end)

  it("grows with blur on real frames, and twice gives the same #slow", function()
    local video = helper.shared("data/video/ta_chi.mp4")
    if not video then return pending("needs ../shared") end
    local weights = require "libration.weights"
    if not (weights.find "pose_detection" and weights.find "pose_landmark_full") then return pending("needs the networks' weights: make models") end
    local landmarker = require("libration.pose").landmarker { smooth = "none" }
    local function measure(block)
      local source, s = assert(require("libration.media").open(video)), stability.new(1)
      landmarker:reset()
      for i = 1, 3 do
        local picture, time = source:next()
        if block > 1 then
          local p, h, w = picture:ptr(), picture:size(1), picture:size(2)
          for y = 0, h - block, block do
            for x = 0, w - block, block do
              for c = 0, 2 do
                local sum = 0
                for v = 0, block - 1 do for u = 0, block - 1 do sum = sum + p[((y + v) * w + x + u) * 3 + c] end end
                for v = 0, block - 1 do for u = 0, block - 1 do p[((y + v) * w + x + u) * 3 + c] = sum / block ^ 2 end end
              end
            end
          end
        end
        if landmarker:process(picture, time) then s:take(picture, i, landmarker) end
      end
      source:close()
      local out, sum = stability.summary(s:samples(), 1), 0
      for _, row in ipairs(out.joints) do sum = sum + row.torso / 33 end
      return sum
    end
    local clear, coarse = measure(1), measure(3)
    io.write(("stability: mean uncertainty %.4f torso lengths, %.4f of blocks of 3 pixels\n"):format(clear, coarse))
    assert.is_true(coarse > 1.3 * clear and clear > 0 and clear < .1)
    assert.equal(clear, measure(1))
  end)
end)
