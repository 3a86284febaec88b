-- Specs of the movement profile: statistics of movements known in closed form, missing joints, calibration, words, and the simulated kinds.
local ffi = require "ffi"
local motion = require "libration.motion"
local profile = require "libration.anomaly.profile"
local infant = require "libration.data.infant"
local movement = require "libration.data.infant_movement"
local dice = require "libration.data.dice"
local json = require "libration.formats.json"
local statistics = motion.statistics

local NAMES = {
  "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
  "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
}
-- The same joints in MINI-RGBD's order, from 0.
local MINI = { 24, 12, 17, 19, 21, 16, 18, 20, 2, 5, 8, 1, 4, 7 }
local LIMB_OF = { right_elbow = 1, right_wrist = 1, left_elbow = 2, left_wrist = 2, right_knee = 3, right_ankle = 3, left_knee = 4, left_ankle = 4 }

-- A normalised track: limb l at angle(l, t) moves its joints on the x axis.
local function track_of(frames, place)
  local x = ffi.new("double[?]", frames * 28)
  for t = 0, frames - 1 do
    for j, name in ipairs(NAMES) do
      local l = LIMB_OF[name]
      x[(t * 14 + j - 1) * 2], x[(t * 14 + j - 1) * 2 + 1] = l and place(l, t / 25) or 0, j
    end
  end
  return { frames = frames, joints = 14, x = x, fps = 25, names = NAMES, roles = motion.body.roles(NAMES), id = "made" }
end

local function sine(hertz, loud)
  return function(l, t) return (loud and loud[l] or .2) * math.sin(2 * math.pi * hertz * t + l) end
end

-- Normal movements as rows of statistics, drawn around known values.
local function rows(n, change)
  local rng, list = dice.new(5, n), {}
  for i = 1, n do
    local r = {}
    for _, s in ipairs(profile.STATISTICS) do r[s.key] = 1 + .2 * rng:normal() end
    for k, v in pairs(change or {}) do r[k] = r[k] + v end
    list[i] = r
  end
  return list
end

describe("movement profile", function()
  it("measures what closed forms say", function()
    local m = profile.measure(track_of(400, sine(1)))
    assert.is_near(1, m.centroid, .05)
    assert.is_near(0, m.asymmetry, .02)
    for _, key in ipairs { "right_arm", "left_arm", "right_leg", "left_leg" } do assert.is_near(0, m[key], .02) end
    -- mean |speed| of .2 sin is .8 f; of the nine joints the nose rests
    assert.is_near(math.log(.8 * 8 / 9 + .02), m.speed, 1e-2)
    -- |cos| has SD / mean sqrt(pi^2 / 8 - 1)
    assert.is_near(math.log(math.sqrt(math.pi ^ 2 / 8 - 1)), m.burstiness, .05)
    -- third derivative over first: (2 pi f)^2
    assert.is_near(math.log((2 * math.pi) ^ 2), m.jerk, .05)
    assert.is_near(2.5, profile.measure(track_of(400, sine(2.5))).centroid, .05)
    local half = profile.measure(track_of(400, sine(1, { .2, .1, .2, .1 })))
    assert.is_near(math.log(.5), half.asymmetry, .03)
    assert.is_near(math.log(4 / 3), half.right_leg, .03)
    local together = profile.measure(track_of(400, function(_, t) return math.sin(2 * t) + .3 * math.sin(5 * t) end))
    for _, key in ipairs { "synchrony", "legs", "arms" } do assert.is_near(1, together[key], 1e-9) end
  end)

  it("does without what is missing", function()
    local whole, holed = track_of(400, sine(1)), track_of(400, sine(1))
    local function hide(j, from, to)
      for t = from, to do holed.x[(t * 14 + j - 1) * 2], holed.x[(t * 14 + j - 1) * 2 + 1] = 0 / 0, 0 / 0 end
    end
    hide(4, 60, 90) -- right elbow
    hide(8, 200, 240) -- left wrist
    local a, b = profile.measure(whole), profile.measure(holed)
    for _, s in ipairs(profile.STATISTICS) do assert.is_near(a[s.key], b[s.key], .08, s.key) end
    hide(10, 0, 399)
    hide(11, 0, 399)
    b = profile.measure(holed)
    for _, key in ipairs { "right_leg", "asymmetry", "legs" } do assert.is_true(b[key] ~= b[key], key) end
    for _, key in ipairs { "speed", "jerk", "centroid", "burstiness", "synchrony", "arms" } do assert.is_true(b[key] == b[key], key) end
    local still = profile.measure(track_of(400, function() return 0 end))
    assert.is_true(still.speed == still.speed and still.jerk - still.jerk == 0)
    for _, v in pairs(profile.measure(track_of(20, sine(1)))) do assert.is_true(v ~= v) end
  end)

  it("distance is about one among normals, and a missing statistic does not count", function()
    local p = profile.fit(rows(60))
    local sum = 0
    for _, r in ipairs(rows(50)) do sum = sum + profile.distance(p, r) ^ 2 / 50 end
    assert.is_near(1, sum, .35)
    local r = rows(1, { synchrony = 3 })[1]
    local far, z = profile.distance(p, r)
    assert.is_true(far > 3 and z.synchrony > 8)
    r.synchrony = 0 / 0
    assert.is_true(profile.distance(p, r) < 2)
    for _, s in ipairs(profile.STATISTICS) do r[s.key] = 0 / 0 end
    local none = profile.distance(p, r)
    assert.is_true(none ~= none)
  end)

  it("one wild normal neither moves nor blinds it", function()
    local list = rows(9)
    list[3].centroid = 60
    local p = profile.fit(list)
    assert.is_near(1, p.location.centroid, .25)
    assert.is_true(p.scale.centroid < .6)
  end)

  it("leaves one out when normals are few, and says p for the whole and for each statistic", function()
    local list = rows(9)
    local c = profile.calibrate({ unpack(list, 1, 6) }, { unpack(list, 7, 9) })
    assert.is_true(c.left_out)
    assert.equal(9, #c.distances)
    assert.equal(profile.distance(profile.fit { unpack(list, 1, 8) }, list[9]), c.distances[9])
    local far = profile.judge(c, rows(1, { legs = 2, synchrony = 2, left_arm = -1.5 })[1])
    assert.equal("abnormal", far.word)
    assert.is_near(1 / 10, far.p, 1e-12)
    assert.is_near(1 / 10, far.smallest_p, 1e-12)
    local text = table.concat(far.words, "\n")
    assert.matches("both legs move together", text, 1, true)
    assert.matches("left arm %d+ %% less than the calibration videos", text)
    assert.equal(#profile.STATISTICS, #far.statistics)
    for _, s in ipairs(far.statistics) do
      if s.key == "legs" then assert.is_true(s.unusual and s.p == 1 / 10) end
    end
    assert.equal("normal", profile.judge(c, list[4]).word)
    assert.equal("not scored", profile.judge(c, {}).word)
    local many = rows(60)
    assert.is_false(profile.calibrate({ unpack(many, 1, 40) }, { unpack(many, 41, 60) }).left_out)
  end)

  it("passes through a detector file, and takes nothing bad from one", function()
    local list = rows(6)
    list[2].legs = 0 / 0
    local text = json.encode(profile.pack(list))
    local r = rows(1, { legs = 2 })[1]
    local a, b = profile.judge(profile.calibrate(list), r), profile.judge(profile.unpack(json.decode(text)), r)
    assert.is_near(a.distance, b.distance, 1e-9)
    assert.equal(profile.line(a), profile.line(b))
    assert.is_nil(profile.unpack(nil))
    assert.is_nil(profile.unpack(3))
    assert.is_nil(profile.unpack {})
    assert.is_nil(profile.unpack { 1, 2, 3, 4, 5 })
    local odd = profile.unpack { { speed = "x" }, { speed = 1e300 }, { jerk = {} }, {} }
    assert.equal("not scored", profile.judge(odd, r).word)
    assert.matches("not scored", profile.line(profile.judge(odd, r)))
  end)

  it("verdict rests on Student's t, tables within 1e-6, and the conformal p stands beside it", function()
    assert.is_near(.05, statistics.student(2.2621572, 9), 1e-6)
    assert.is_near(.01, statistics.student(-3.2498355, 9), 1e-6)
    assert.is_near(.05, statistics.student(12.7062047, 1), 1e-6)
    local c = profile.calibrate(rows(10))
    local r = {}
    for key, v in pairs(c.profile.location) do r[key] = v end
    r.jerk = r.jerk + 6 * c.profile.scale.jerk
    local v = profile.judge(c, r)
    assert.is_near(6 * statistics.student(6 / math.sqrt(1.1), 9), v.student, 1e-12)
    assert.is_true(v.abnormal and #v.words == 1 and v.words[1]:find("jerk", 1, true) ~= nil)
    r.jerk = c.profile.location.jerk + 3 * c.profile.scale.jerk
    assert.is_false(profile.judge(c, r).abnormal)
  end)

  it("leaves out frames in which the body is turned round, and slips of one joint", function()
    local function made()
      local t = track_of(400, sine(1))
      for f = 0, 399 do
        for name, at in pairs { left_shoulder = { .3, -.5 }, right_shoulder = { -.3, -.5 }, left_hip = { .2, .5 }, right_hip = { -.2, .5 } } do
          local j = t.roles[name] - 1
          t.x[(f * 14 + j) * 2], t.x[(f * 14 + j) * 2 + 1] = at[1], at[2]
        end
      end
      return t
    end
    local a, turned = profile.measure(made()), made()
    for _, f in ipairs { 100, 101, 102, 230, 231 } do
      for i = f * 28, f * 28 + 27 do turned.x[i] = -turned.x[i] end
    end
    turned.x[(300 * 14 + 7) * 2] = 5
    assert.equal(turned, profile.steady(turned)) -- of another landmarker
    turned.skeleton = "blazepose33"
    local b = profile.measure(profile.steady(turned))
    for _, key in ipairs { "jerk", "centroid", "burstiness", "synchrony", "asymmetry" } do assert.is_near(a[key], b[key], .1, key) end
  end)

  it("refuses fewer normals than it can be fitted on", function()
    local ok, err = pcall(profile.calibrate, rows(3))
    assert.is_false(ok)
    assert.matches("3 normal recordings, want at least 4", err, 1, true)
    local list = rows(6)
    for i, r in ipairs(list) do r.subject = i < 4 and "a" or i < 6 and "b" or "c" end
    ok, err = pcall(profile.calibrate, list)
    assert.is_false(ok)
    assert.matches("3 normal subjects, want at least 4", err, 1, true)
    assert.is_nil(profile.unpack(profile.pack(list)))
  end)

  it("counts the recordings of a subject as one, and leaves them out together", function()
    local list = rows(10)
    for i, r in ipairs(list) do r.subject = ("s%d"):format(math.ceil(i / 2)) end
    local c, far = profile.calibrate(list), rows(1, { jerk = 3 })[1]
    assert.equal(profile.distance(profile.fit { unpack(list, 1, 8) }, list[9]), c.distances[9])
    local v = profile.judge(c, far)
    assert.is_near(1 / 6, v.p, 1e-12)
    assert.is_near(1 / 6, v.smallest_p, 1e-12)
    for _, s in ipairs(v.statistics) do
      if s.key == "jerk" then assert.is_near(statistics.student(s.z / math.sqrt(1 + 1 / 5), 4), s.student, 1e-12) end
    end
    assert.equal(profile.line(v), profile.line(profile.judge(profile.unpack(json.decode(json.encode(profile.pack(list)))), far)))
    for _, r in ipairs(list) do r.subject = nil end
    assert.is_near(1 / 11, profile.judge(profile.calibrate(list), far).p, 1e-12)
  end)

  -- shared/goldens/autoencoder/README.md section 2, last row: 1.00, .89, 1.00, .91 on another simulator
  it("separates the simulated kinds at matched speed, 8 normals to fit, 24 fresh normals, 12 of each kind #slow", function()
    local FRAMES, SEED, PIXELS = 300, 1, 1
    local kinds, abnormal = { "synchronised", "one-sided", "burst", "tremor" }, {}
    for i, kind in ipairs(kinds) do
      for k = 1, 12 do abnormal[32 + (i - 1) * 12 + k] = kind end
    end
    local measured, speeds = { normal = {} }, { normal = {} }
    for _, kind in ipairs(kinds) do measured[kind], speeds[kind] = {}, {} end
    for _, row in ipairs(infant.plan { sequences = 80, seed = SEED, abnormal = abnormal }) do
      local s = infant.sequence(row, { frames = FRAMES, width = 320, height = 240, seed = SEED })
      local noise = movement.landmark_noise(dice.new(SEED, row.index, 9), FRAMES, 14, PIXELS)
      local function track()
        local x = ffi.new("double[?]", FRAMES * 28)
        for t = 1, FRAMES do
          local joints = s:joints(t)
          for k = 1, 14 do
            local at = ((t - 1) * 14 + k - 1) * 2
            x[at], x[at + 1] = joints[MINI[k] + 1][1] + noise[at + 1], joints[MINI[k] + 1][2] + noise[at + 2]
          end
        end
        return motion.normalise.apply { frames = FRAMES, joints = 14, x = x, fps = 25, names = NAMES, roles = motion.body.roles(NAMES), id = row.id }
      end
      -- the speed that is measured here, noise and all, is brought to 1.3 of the plan's: noise alone makes half of it
      local made
      for _ = 1, 5 do
        made = track()
        s.gain = s.gain * (1.3 * row.target / motion.normalise.mean_speed(made)) ^ 1.5
      end
      made = track()
      table.insert(measured[row.kind], profile.measure(made))
      table.insert(speeds[row.kind], motion.normalise.mean_speed(made))
    end
    local fitted = profile.fit { unpack(measured.normal, 1, 8) }
    local normal = {}
    for i = 9, 32 do normal[i - 8] = profile.distance(fitted, measured.normal[i]) end
    local least = { synchronised = .95, ["one-sided"] = .75, burst = .95, tremor = .80 }
    local report = {}
    for _, kind in ipairs(kinds) do
      local far = {}
      for i, r in ipairs(measured[kind]) do far[i] = profile.distance(fitted, r) end
      local auc, by_speed = statistics.auc(normal, far), statistics.auc({ unpack(speeds.normal, 9) }, speeds[kind])
      report[#report + 1] = ("%s %.2f (mean speed %.2f)"):format(kind, auc, by_speed)
      assert.is_true(auc >= least[kind], report[#report])
      assert.is_true(by_speed > .3 and by_speed < .7, report[#report])
    end
    print("movement profile, AUC: " .. table.concat(report, ", "))
  end)
end)
