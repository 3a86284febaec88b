-- Specs of tracks, gaps, outliers, resampling and normalisation on hand-made sequences; features and windows are in windows_spec.
local lr = require "libration"
local motion = require "libration.motion"

local NAN = 0 / 0
local JOINTS = {
  "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
  "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
}

-- A track of n joints whose x is f(t, j) and y is g(t, j).
local function track(frames, joints, f, g, fps)
  local ffi = require "ffi"
  local names = {}
  for j = 1, joints do names[j] = JOINTS[j] end
  local t = { frames = frames, joints = joints, fps = fps or 25, names = names, roles = motion.body.roles(names), id = "t",
    x = ffi.new("double[?]", frames * joints * 2) }
  for k = 0, frames - 1 do
    for j = 0, joints - 1 do
      t.x[(k * joints + j) * 2], t.x[(k * joints + j) * 2 + 1] = f(k, j), (g or f)(k, j)
    end
  end
  return t
end

local function xs(t, joint, c)
  local list = {}
  for k = 0, t.frames - 1 do list[k + 1] = t.x[(k * t.joints + (joint or 0)) * 2 + (c or 0)] end
  return list
end

-- A sequence of a body that sways, BlazePose's layout [T,33,5].
local function blazepose(frames, change)
  local points = lr.zeros({ frames, 33, 5 })
  local p = points:ptr()
  for t = 0, frames - 1 do
    for j = 0, 32 do
      local at = (t * 33 + j) * 5
      p[at] = 100 + 7 * j + 9 * math.sin(.3 * t + j)
      p[at + 1] = 50 + 11 * (j % 5) + 6 * math.cos(.2 * t + 2 * j) + (j > 22 and 80 or 0)
      p[at + 2], p[at + 3], p[at + 4] = 3 * j, .9, .9
    end
  end
  if change then change(p) end
  return motion.Sequence.new { points = points, id = "b", fps = 25 }
end

describe("sequence", function()
  it("knows the skeleton by the number of joints and refuses what fits none", function()
    assert.equal("blazepose33", blazepose(3).skeleton)
    assert.equal("openpose18", motion.Sequence.new({ points = lr.zeros({ 2, 18, 3 }) }).skeleton)
    assert.has_error(function() motion.Sequence.new { points = lr.zeros({ 2, 7, 3 }), id = "q" } end)
    local ok, err = pcall(motion.Sequence.new, { points = lr.zeros({ 2, 17, 3 }), skeleton = "openpose18", id = "q" })
    assert.is_false(ok)
    assert.matches("sequence q: 17 joints, but skeleton openpose18 has 18", err, 1, true)
    ok, err = pcall(motion.Sequence.new, { points = lr.zeros({ 2, 17 }), id = "q" })
    assert.is_false(ok)
    assert.matches("[2,17], want [T,J,C>=2]", err, 1, true)
  end)

  it("takes a score of 0, NaN and infinity as missing, and 14 joints of OpenPose's 18", function()
    local points = lr.zeros({ 3, 18, 3 })
    local p = points:ptr()
    for i = 0, 3 * 18 - 1 do p[3 * i], p[3 * i + 1], p[3 * i + 2] = 10 + i, 20 + i, .5 end
    p[2] = 0
    p[18 * 3] = NAN
    p[2 * 18 * 3 + 1] = math.huge
    local t = motion.Sequence.new({ points = points, id = "a" }):track()
    assert.equal(14, t.joints)
    for k, v in ipairs(xs(t)) do assert.is_true(v ~= v, "frame " .. k) end
    assert.equal(11, t.x[2])
    assert.same(JOINTS, t.names)
  end)

  it("turns centred fractions into pixels and refuses fractions taken for pixels", function()
    local points = lr.zeros({ 1, 18, 3 })
    local p = points:ptr()
    for i = 0, 17 do p[3 * i], p[3 * i + 1], p[3 * i + 2] = .25, -.5, 1 end
    local s = motion.Sequence.new { points = points, id = "a", width = 640, height = 480 }
    local t = s:track { coordinates = "centred" }
    assert.same({ 480, 0 }, { t.x[0], t.x[1] })
    t = s:track { coordinates = "unit" }
    assert.same({ 160, -240 }, { t.x[0], t.x[1] })
    local ok, err = pcall(s.track, s)
    assert.is_false(ok)
    assert.matches("no coordinate exceeds 0.5, so these are no pixels", err, 1, true)
    s.width = nil
    ok, err = pcall(s.track, s, { coordinates = "centred" })
    assert.is_false(ok)
    assert.matches("needs --size", err, 1, true)
  end)

  it("takes joints by name and names one that is not there", function()
    assert.same({ "left_wrist", "nose" }, blazepose(2):track({ joints = "left_wrist,nose" }).names)
    assert.equal(33, blazepose(2):track().joints)
    assert.equal(13, blazepose(2):track({ joints = "body" }).joints)
    local ok, err = pcall(function() blazepose(2):track { joints = "tail" } end)
    assert.is_false(ok)
    assert.matches('"tail" is not a joint of blazepose33', err, 1, true)
  end)
end)

describe("gaps", function()
  local holes = { [2] = true, [3] = true, [6] = true }
  local function holed(frames, limit)
    return track(frames or 8, 2, function(t, j)
      if j == 1 then return NAN end
      return (holes[t] or (limit and t < limit)) and NAN or t * t
    end, function(t, j) return (j == 1 or holes[t] or (limit and t < limit)) and NAN or 5 - t end)
  end

  it("fills linearly between seen frames and gives a joint never seen the mean of its frame", function()
    local t, filled = motion.gaps.fill(holed(), { max_gap = math.huge })
    assert.same({ 0, 1, 6, 11, 16, 25, 37, 49 }, xs(t))
    assert.same({ 5, 4, 3, 2, 1, 0, -1, -2 }, xs(t, 0, 1))
    assert.same(xs(t), xs(t, 1))
    assert.equal(3 + 8, filled)
  end)

  it("leaves longer gaps and joints never seen as NaN", function()
    local t = motion.gaps.fill(holed(), { max_gap = 1.5 / 25 })
    local x = xs(t)
    assert.is_true(x[3] ~= x[3] and x[4] ~= x[4])
    assert.equal(37, x[7])
    assert.equal(2 + 8, motion.gaps.missing(t))
  end)

  it("takes the nearest value beyond the ends, within the limit", function()
    assert.equal(16, xs((motion.gaps.fill(holed(8, 4), { max_gap = 1 })))[1])
    local x = xs((motion.gaps.fill(holed(8, 4), { max_gap = .1 })))
    assert.is_true(x[1] ~= x[1])
  end)

  it("Akima goes through the knots of a parabola's neighbourhood and of a straight line exactly", function()
    local line = track(9, 1, function(t) return (t == 4 or t == 5) and NAN or 3 * t - 1 end)
    for k, v in ipairs(xs((motion.gaps.fill(line, { method = "akima" })))) do assert.is_near(3 * k - 4, v, 1e-12) end
    -- evenly spaced knots of t^2 give Akima the exact slopes 2t, so the cubic is the parabola
    local bow = track(12, 1, function(t) return t == 5 and NAN or t * t end)
    local x = xs((motion.gaps.fill(bow, { method = "akima" })))
    assert.is_near(25, x[6], .75)
    local straight = xs((motion.gaps.fill(track(12, 1, function(t) return t == 5 and NAN or t * t end))))
    assert.is_true(math.abs(x[6] - 25) < math.abs(straight[6] - 25))
  end)

  it("refuses a method by name", function()
    local ok, err = pcall(motion.gaps.fill, holed(), { method = "spline" })
    assert.is_false(ok)
    assert.matches('method is "spline", want linear, akima or none', err, 1, true)
  end)
end)

describe("outliers", function()
  local function jumpy(at)
    return track(60, 1, function(t) return 10 * math.sin(.2 * t) + (at[t] and 200 or 0) end)
  end
  it("removes a jump of one and of three frames, and leaves the movement", function()
    local t, removed = motion.outliers.remove(jumpy { [20] = true, [40] = true, [41] = true, [42] = true }, { threshold = 8 })
    assert.equal(4, removed)
    for k, v in ipairs(xs(t)) do
      local f = k - 1
      assert.equal(f == 20 or (f >= 40 and f <= 42), v ~= v, "frame " .. f)
    end
  end)
  it("keeps a lasting step and is off by default", function()
    local _, removed = motion.outliers.remove(track(60, 1, function(t) return math.sin(t) + (t > 30 and 100 or 0) end), { threshold = 8 })
    assert.equal(0, removed)
    _, removed = motion.outliers.remove(jumpy { [20] = true })
    assert.equal(0, removed)
  end)
end)

describe("resample", function()
  it("takes 60 to 25 frames a second along a line", function()
    local t, changed = motion.resample.to_rate(track(61, 1, function(k) return 6 * k end, nil, 60), { rate = 25 })
    assert.is_true(changed)
    assert.equal(26, t.frames)
    for k, v in ipairs(xs(t)) do assert.is_near(6 * 60 * (k - 1) / 25, v, 1e-9) end
  end)
  it("leaves a track whose rate is right as it is", function()
    local a = track(5, 1, function(k) return k end, nil, 25)
    assert.equal(a, (motion.resample.to_rate(a, { rate = 25.1 })))
  end)
  it("follows uneven frame times and does not bridge a long pause", function()
    local a = track(4, 1, function(k) return ({ 0, 1, 2, 100 })[k + 1] end, nil, 10)
    a.times = { 0, .1, .2, 10 }
    local x = xs((motion.resample.to_rate(a, { rate = 10, max_jump = 1 })))
    assert.equal(101, #x)
    assert.is_near(2, x[3], 1e-9)
    assert.is_true(x[50] ~= x[50])
    assert.equal(100, x[101])
    a.times = { 0, .2, .1, .3 }
    assert.has_error(function() motion.resample.to_rate(a, { rate = 10 }) end)
  end)
end)

describe("normalise", function()
  it("centres on shoulders and hips and divides by the median torso length", function()
    local s = blazepose(40)
    local t = s:track()
    local length = motion.normalise.torso_length(t)
    local p = s.points:ptr()
    -- BlazePose has no neck: the middle of the shoulders 11, 12 above the middle of the hips 23, 24
    local lengths = {}
    for k = 0, 39 do
      local function at(j, c) return p[(k * 33 + j) * 5 + c] end
      local dx = (at(11, 0) + at(12, 0) - at(23, 0) - at(24, 0)) / 2
      local dy = (at(11, 1) + at(12, 1) - at(23, 1) - at(24, 1)) / 2
      lengths[k + 1] = math.sqrt(dx * dx + dy * dy)
    end
    assert.is_near(motion.statistics.median(lengths), length, 1e-9)
    motion.normalise.apply(t)
    for k = 0, 39 do
      local sum = 0
      for _, j in ipairs { 11, 12, 23, 24 } do sum = sum + t.x[(k * 33 + j) * 2] end
      assert.is_near(0, sum, 1e-9)
    end
    assert.is_near((p[0] - (p[11 * 5] + p[12 * 5] + p[23 * 5] + p[24 * 5]) / 4) / length, t.x[0], 1e-12)
  end)

  it("turns the torso up, frame by frame", function()
    local t = blazepose(10):track()
    motion.normalise.apply(t, { rotation = "frame" })
    for k = 0, 9 do
      local function mid(a, b, c) return (t.x[(k * 33 + a) * 2 + c] + t.x[(k * 33 + b) * 2 + c]) / 2 end
      assert.is_near(0, mid(11, 12, 0) - mid(23, 24, 0), 1e-9)
      assert.is_true(mid(11, 12, 1) < mid(23, 24, 1))
    end
  end)

  it("a frame without a hip is missing as a whole; a sequence without any is refused by name", function()
    local nan = NAN
    local s = blazepose(10, function(p) p[(4 * 33 + 23) * 5] = nan end)
    local t = s:track()
    motion.normalise.apply(t)
    for j = 0, 32 do assert.is_true(t.x[(4 * 33 + j) * 2] ~= t.x[(4 * 33 + j) * 2]) end
    assert.is_true(t.x[0] == t.x[0])
    s = blazepose(10, function(p) for k = 0, 9 do p[(k * 33 + 23) * 5] = nan end end)
    local ok, err = pcall(motion.track, s)
    assert.is_false(ok)
    assert.matches("sequence b: no frame shows both shoulders and hips", err, 1, true)
  end)

  it("mirrors twice to itself and a turn leaves the speed", function()
    local t = motion.track(blazepose(12))
    local back = motion.normalise.mirror(motion.normalise.mirror(t))
    for i = 0, 12 * 33 * 2 - 1 do assert.is_near(t.x[i], back.x[i], 1e-12) end
    local once = motion.normalise.mirror(t)
    assert.equal(-t.x[11 * 2], once.x[12 * 2])
    assert.is_near(motion.normalise.mean_speed(t), motion.normalise.mean_speed(motion.normalise.turn(t, .4)), 1e-12)
  end)

  it("mean speed counts head and limbs in torso lengths per second", function()
    local t = motion.track(blazepose(30))
    for _, role in ipairs(motion.body.MOVING) do
      local j = t.roles[role] - 1
      for k = 0, 29 do t.x[(k * 33 + j) * 2], t.x[(k * 33 + j) * 2 + 1] = .02 * k, 0 end
    end
    assert.is_near(.5, motion.normalise.mean_speed(t), 1e-9)
  end)
end)

describe("z and world coordinates", function()
  it("never enter a track or a feature", function()
    local plain = motion.prepare(blazepose(40))
    local changed = motion.prepare(blazepose(40, function(p)
      for i = 0, 40 * 33 - 1 do p[5 * i + 2] = (i % 7) * 1000 - 3e4 end
    end))
    for i = 0, plain.frames * plain.size - 1 do assert.equal(plain.values[i], changed.values[i]) end
    local s = blazepose(40)
    s.world = lr.full({ 40, 33, 3 }, 7)
    local with_world = motion.prepare(s)
    for i = 0, plain.frames * plain.size - 1 do assert.equal(plain.values[i], with_world.values[i]) end
  end)
end)

describe("statistics", function()
  local statistics = motion.statistics
  it("percentile is numpy's linear one", function()
    -- numpy.percentile([3,1,4,1,5,9,2,6], q)
    local v = { 3, 1, 4, 1, 5, 9, 2, 6 }
    assert.is_near(7.95, statistics.percentile(v, 95), 1e-12)
    assert.equal(3.5, statistics.median(v))
    assert.equal(9, statistics.percentile(v, 100))
    assert.equal(1, statistics.percentile(v, 0))
    assert.is_near(1.7, statistics.percentile(v, 24.285714285714285), 1e-9)
    assert.has_error(function() statistics.percentile({}, 50) end)
    assert.has_error(function() statistics.percentile(v, 101) end)
  end)
  it("auc counts ties as a half and conformal p counts the video itself", function()
    assert.equal(.875, statistics.auc({ 1, 2 }, { 2, 3 }))
    assert.is_nil(statistics.auc({}, { 1 }))
    local p, least = statistics.conformal({ 1, 2, 3 }, 2)
    assert.equal(.75, p)
    assert.equal(.25, least)
    assert.equal(.25, (statistics.conformal({ 1, 2, 3 }, 4)))
  end)
end)

describe("motion options", function()
  it("refuse an unknown name", function()
    assert.has_error(function() motion.prepare(blazepose(3), { windw = 3 }) end)
  end)
end)
