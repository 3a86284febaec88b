-- Specs of kinematics: circles, sines and angles whose numbers are known, gaps, units, the CSV.
local ffi = require "ffi"
local files = require "libration.files"
local motion = require "libration.motion"
local kinematics = require "libration.motion.kinematics"

-- A track whose joints go where the functions say: f(seconds) -> x, y.
local function track(seconds, fps, joints)
  local names, order = {}, {}
  for name in pairs(joints) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do order[i] = joints[name] end
  local T = seconds * fps
  local t = { frames = T, joints = #names, fps = fps, names = names, roles = motion.body.roles(names), id = "t", x = ffi.new("double[?]", T * #names * 2) }
  for k = 0, T - 1 do
    for j, f in ipairs(order) do t.x[(k * #names + j - 1) * 2], t.x[(k * #names + j - 1) * 2 + 1] = f(k / fps) end
  end
  return t
end

local function by_joint(rows)
  local list = {}
  for _, row in ipairs(rows) do list[row.joint] = row end
  return list
end

local function circle(r, hz, phase)
  return function(t) return r * math.cos(2 * math.pi * hz * t + (phase or 0)), r * math.sin(2 * math.pi * hz * t + (phase or 0)) end
end

describe("kinematics", function()
  it("of a circle: speed, acceleration, jerk, path and range within 2 %, 50 frames/s", function()
    local r, hz = .4, .5
    local row = by_joint(kinematics.measure(track(20, 50, { nose = circle(r, hz) }))).nose
    local w = 2 * math.pi * hz
    assert.near(r * w, row.speed, .02 * r * w)
    assert.near(r * w, row.peak_speed, .02 * r * w)
    assert.near(r * w ^ 2, row.acceleration, .02 * r * w ^ 2)
    assert.near(r * w ^ 3, row.jerk, .03 * r * w ^ 3)
    assert.near(r * w * 20, row.path, .02 * r * w * 20)
    -- 5 % of the time the cosine lies above cos(.05 pi)
    assert.near(2 * r * math.cos(.05 * math.pi), row.range_x, .01 * r)
    assert.near(2 * math.sqrt(2) * r * math.cos(.05 * math.pi), row.range, .02 * r)
    assert.equal(1, row.seen)
    assert.is_true(row.correlation ~= row.correlation)
    assert.is_nil(row.angle)
  end)

  it("of a sine: mean speed 4 a f, peak near 2 pi a f; the left and right that move as one correlate", function()
    local function sine(a, hz, phase) return function(t) return a * math.sin(2 * math.pi * hz * t + (phase or 0)), 0 end end
    local rows = by_joint(kinematics.measure(track(20, 50, {
      left_wrist = sine(.3, 1), right_wrist = sine(.1, 1), left_ankle = sine(.3, .5), right_ankle = sine(.3, .5, math.pi / 2),
    })))
    assert.near(4 * .3, rows.left_wrist.speed, .02 * 4 * .3)
    assert.near(2 * math.pi * .3 * math.sin(.475 * math.pi), rows.left_wrist.peak_speed, .04)
    assert.near(1, rows.left_wrist.correlation, 1e-3)
    assert.near(rows.left_wrist.correlation, rows.right_wrist.correlation, 1e-12)
    assert.near(-1, rows.left_ankle.correlation, .1)
  end)

  it("of a hinge: mean angle, range, SD and angular speed", function()
    -- a forearm that swings 40 degrees to both sides of a right angle, once in two seconds
    local function angle(t) return math.rad(90 + 40 * math.sin(math.pi * t)) end
    local rows = by_joint(kinematics.measure(track(20, 50, {
      left_shoulder = function() return 0, -1 end, left_elbow = function() return 0, 0 end,
      left_wrist = function(t) return math.sin(angle(t)), -math.cos(angle(t)) end,
    })))
    local row = rows.left_elbow
    assert.near(90, row.angle, .5)
    assert.near(80 * math.cos(.05 * math.pi), row.angle_range, 1)
    assert.near(40 / math.sqrt(2), row.angle_sd, .5)
    assert.near(80, row.angular_speed, 2)
    assert.is_nil(rows.left_wrist.angle)
  end)

  it("is in centimetres with a scale, and the numbers go with it", function()
    local t = track(5, 25, { nose = circle(.4, .5), left_eye = circle(.1, .5) })
    local one, cm = kinematics.measure(t), kinematics.measure(t, { scale = 12.5 })
    assert.equal("torso lengths", one.unit)
    assert.equal("cm", cm.unit)
    for _, name in ipairs { "range", "path", "speed", "peak_speed", "acceleration", "jerk" } do assert.near(12.5 * one[1][name], cm[1][name], 1e-3 * cm[1][name]) end
    assert.matches("Butterworth, 6 Hz", one.smoothing, 1, true)
  end)

  it("leaves gaps out and says nothing of what is hardly seen", function()
    local t = track(10, 25, { nose = circle(.4, .5), left_eye = circle(.4, .5) })
    for k = 0, 249 do
      if k >= 100 and k < 150 then t.x[k * 4 + 2] = 0 / 0 end -- the nose
      if k >= 10 then t.x[k * 4] = 0 / 0 end -- the eye
    end
    local rows = by_joint(kinematics.measure(t))
    assert.near(.4 * math.pi, rows.nose.speed, .03 * .4 * math.pi)
    assert.near(.8, rows.nose.seen, 1e-9)
    assert.near(198 / 25 * rows.nose.speed, rows.nose.path, 1e-6)
    for _, name in ipairs { "range", "path", "speed", "jerk" } do assert.is_true(rows.left_eye[name] ~= rows.left_eye[name]) end
  end)

  it("of a sequence counts what was seen before gaps were filled; csv", function()
    local lr = require "libration"
    local points = lr.zeros { 100, 33, 5 }
    local p = points:ptr()
    for t = 0, 99 do
      for j = 0, 32 do
        local at = (t * 33 + j) * 5
        p[at], p[at + 1], p[at + 3] = 100 + 3 * j + (j == 15 and 20 * math.sin(t / 8) or 0), 50 + 4 * j, .9
      end
      if t % 2 == 1 then p[(t * 33 + 15) * 5] = 0 / 0 end
    end
    local rows = assert(kinematics.of_sequence(motion.Sequence.new { points = points, fps = 25 }))
    assert.equal(33, #rows)
    assert.near(.5, rows[16].seen, 1e-9)
    assert.is_true(rows[16].speed > 10 * rows[17].speed)
    local folder = files.temporary_folder()
    kinematics.write(folder .. "/kinematics.csv", rows)
    local names, cells = require("libration.formats.csv").read(folder .. "/kinematics.csv")
    assert.same(kinematics.COLUMNS, names)
    assert.equal("left_wrist", cells[16][1])
    assert.equal("torso lengths", cells[16][2])
    assert.equal("0.5", cells[16][3])
    files.remove(folder)
    for t = 0, 99 do p[(t * 33 + 11) * 5] = 0 / 0 end
    local none, reason = kinematics.of_sequence(motion.Sequence.new { points = points, fps = 25 })
    assert.is_nil(none)
    assert.matches("no frame shows both shoulders and hips", reason, 1, true)
  end)

  it("reads a scale", function()
    assert.is_nil((kinematics.scale_of ""))
    assert.equal(12.5, kinematics.scale_of "12.5cm")
    assert.equal(40, kinematics.scale_of "40 cm")
    assert.equal(40, kinematics.scale_of "40")
    for _, text in ipairs { "x", "0", "-3cm", "12in", "nan", "1e9" } do
      local none, reason = kinematics.scale_of(text)
      assert.is_nil(none)
      assert.matches("centimetres", reason, 1, true)
    end
  end)
end)
