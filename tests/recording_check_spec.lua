-- Specs of the recording check: what is watched in made-up frames, what is judged of it, limits, spans, modes.
local helper = require "helper"
local lr = require "libration"
local watch = require "libration.pose.watch"
local recording_check = require "libration.data.recording_check"
local Sequence = require "libration.motion.sequence"

local W, H = 160, 120

-- Grey level of an endless patterned wall.
local function wall(x, y)
  return 110 + 40 * math.sin(.15 * x + .09 * y) + 35 * math.sin(.07 * x - .14 * y + 2) + 25 * math.sin(.05 * x * y / 40 + 1)
end

local function noise(i)
  return math.abs(math.sin(i * 12.9898) * 43758.5453) % 1
end

local frames = {}

-- A frame of the wall seen from ox, oy, with something crisp in the middle; light is added, gain multiplied.
local function frame_at(ox, oy, light, gain)
  local key = ("%g %g %g %g"):format(ox, oy, light or 0, gain or 1)
  if frames[key] then return frames[key] end
  local t = lr.empty({ H, W, 3 }, "u8")
  local p = t:ptr()
  for y = 0, H - 1 do
    for x = 0, W - 1 do
      local v = wall(x + ox, y + oy)
      if math.abs(x - 80) < 12 and math.abs(y - 60) < 26 then v = v + 60 * noise(y * W + x) end
      v = math.max(0, math.min(255, v * (gain or 1) + (light or 0)))
      for c = 0, 2 do p[(y * W + x) * 3 + c] = v end
    end
  end
  frames[key] = t
  return t
end

-- A frame that the caller changes.
local function canvas(grey)
  return lr.full({ H, W, 3 }, grey, "u8")
end

-- BlazePose landmarks of a body about x, y, 40 pixels tall; visibility of all.
local function person(x, y, visible)
  local t = lr.zeros { 33, 5 }
  local p = t:ptr()
  for j = 0, 32 do
    p[5 * j], p[5 * j + 1], p[5 * j + 3], p[5 * j + 4] = x + (j % 5 - 2) * 4, y - 20 + j * 1.25, visible or .9, .9
  end
  for _, j in ipairs { 11, 12 } do p[5 * j + 1] = y - 14 end
  for _, j in ipairs { 23, 24 } do p[5 * j + 1] = y + 8 end
  return t
end

local function detection(x, y)
  return { x - 5, y - 5, x + 5, y + 5, x, y + 8, x, y - 30, x, y - 14, x, y - 20, .9 }
end

-- Watches n frames at 10 a second: frame(i), points(i), people.
local function watched(n, make, points, people)
  local w = watch.new(W, H, 40)
  local landmarker = { detect = function() return people or { detection(80, 60) } end }
  for i = 0, n - 1 do
    local body
    if points then body = points(i) else body = person(80, 60) end
    w:look(make(i), i / 10, body, landmarker)
  end
  return (w:series())
end

local function values(series, name)
  local list = {}
  for t = 0, series:size(1) - 1 do
    local v = series:ptr()[t * series:size(2) + watch.at[name] - 1]
    if v == v then list[#list + 1] = v end
  end
  return list
end

-- Judges n frames of a still body with a series.
local function judge(n, series, options)
  options = options or {}
  local points = lr.empty { n, 33, 5 }
  for t = 0, n - 1 do
    local one = (options.person or person)(80, 60, options.visible)
    for i = 0, 164 do points:ptr()[t * 165 + i] = one:ptr()[i] end
    if options.change then options.change(t, points:ptr() + t * 165) end
  end
  local sequence = Sequence.new { points = points, id = "r", fps = 10, width = W, height = H, skeleton = "blazepose33" }
  local recording = { watch = series, seconds = 1, watch_seconds = 0, stability = options.stability }
  return recording_check.of_sequence(sequence, recording, { mode = options.mode, limits = options.limits }), sequence
end

local function measure(check, key)
  for _, m in ipairs(check.measures) do if m.key == key then return m end end
end

describe("watch", function()
  it("follows the background: 7 pixels a second to the left, within .5", function()
    local series = watched(9, function(i) return frame_at(.7 * i, 0) end)
    local x, y = values(series, "camera_x"), values(series, "camera_y")
    assert.equal(4, #x)
    for i = 1, #x do
      assert.near(-7, x[i], .5)
      assert.near(0, y[i], .5)
      assert.near(7, values(series, "camera")[i], .5)
    end
  end)

  it("sees a still camera as still, whatever the light does", function()
    local series = watched(9, function(i) return frame_at(3, 4, i % 4 < 2 and 0 or 30) end)
    for _, v in ipairs(values(series, "camera")) do assert.is_true(v < .5, v) end
    assert.near(30, values(series, "light")[3] - values(series, "light")[2], 2)
  end)

  it("says nothing of the camera before a blank wall, and leaves the body out", function()
    local blank = watched(5, function() return canvas(100) end)
    assert.equal(0, #values(blank, "camera"))
    -- the body moves over a blank wall: nothing of it counts as background
    local series = watched(5, function(i)
      local f = canvas(100)
      for y = 45, 75 do for x = 70, 90 do f:ptr()[(y * W + x) * 3 + 1] = wall(x + 3 * i, y) end end
      return f
    end)
    assert.equal(0, #values(series, "camera"))
    assert.near(100, values(series, "background")[1], .01)
  end)

  it("measures clipped light and sharpness", function()
    local dark = watched(2, function() return frame_at(0, 0, -260) end)
    assert.equal(1, values(dark, "dark")[1])
    local bright = watched(2, function() return frame_at(0, 0, 250) end)
    assert.equal(1, values(bright, "bright")[1])
    local crisp = watched(1, function()
      local f = canvas(0)
      for i = 0, W * H * 3 - 1 do f:ptr()[i] = 255 * noise(math.floor(i / 3)) end
      return f
    end)
    assert.is_true(values(crisp, "sharp")[1] > .7)
    local soft = watched(1, function()
      local f = canvas(0)
      for y = 0, H - 1 do for x = 0, W - 1 do f:ptr()[(y * W + x) * 3 + 1] = x end end
      return f
    end)
    assert.near(.25, values(soft, "sharp")[1], .01)
  end)

  it("asks for other people once a second, and tells a second answer about the same body from another body", function()
    local both = { detection(80, 60), detection(84, 63), detection(140, 60) }
    local series = watched(21, function() return frame_at(0, 0) end, nil, both)
    assert.same({ 1, 1, 1 }, values(series, "others"))
    assert.same({ 0, 0, 0 }, values(series, "over"))
    series = watched(1, function() return frame_at(0, 0) end, nil, { detection(80, 60), detection(80, 90) })
    assert.same({ 1 }, values(series, "over"))
    series = watched(3, function() return frame_at(0, 0) end, function() return nil end)
    assert.equal(0, #values(series, "others"))
  end)

  it("grows with the frames, is deterministic, leaves nothing behind", function()
    local picture = frame_at(2, 2)
    local function long() return watched(300, function() return picture end, function() return nil end) end
    helper.leaves_nothing(function() long() end)
    local first = long()
    assert.same({ 300, #watch.COLUMNS }, first.shape)
    assert.is_true(watch.fits(first, 300))
    assert.is_false(watch.fits(first, 299))
    assert.is_false(watch.fits(nil, 1))
    local make = function(i) return frame_at(i, .3 * i) end
    assert.equal(0, (helper.difference(watched(5, make), watched(5, make))))
  end)
end)

describe("recording check", function()
  local still = watched(40, function() return frame_at(0, 0) end)

  it("passes a whole body before a still camera, every measure with value, unit and limit", function()
    local check = judge(40, still)
    assert.is_true(check.passed, check.reason)
    assert.is_false(check.stops)
    assert.same({}, check.spans)
    assert.near(4, check.usable_seconds, 1e-6)
    assert.near(4, check.seconds, 1e-6)
    for _, m in ipairs(check.measures) do
      assert.is_true(m.passed, m.key)
      assert.equal("number", type(m.value), m.key)
      assert.equal("string", type(m.limit), m.key)
    end
    assert.matches("^passed, 4.0 of 4.0 s usable$", recording_check.line(check))
  end)

  it("refuses a camera that pans, with spans and one line", function()
    local check = judge(40, watched(40, function(i) return frame_at(1.2 * i, 0) end))
    assert.is_false(check.passed)
    assert.is_true(check.stops)
    assert.near(12 / 22, measure(check, "camera").value, .05)
    assert.matches("^the camera moves: .*put it on a stand; only 0.%d usable seconds", check.reason)
    assert.equal("camera moves", check.spans[1].reason)
    assert.is_nil(check.reason:find("\n", 1, true))
  end)

  it("marks a short jolt but goes on without it", function()
    local check, sequence = judge(40, watched(40, function(i) return frame_at(i >= 20 and i < 23 and 5 * (i - 19) or 0, 0) end))
    assert.is_true(check.passed)
    assert.equal(1, #check.spans)
    assert.is_true(check.spans[1].from >= 1.8 and check.spans[1].to <= 2.7)
    assert.is_true(check.usable_seconds < 4 and check.usable_seconds > 3)
    local left = recording_check.usable(sequence, check)
    local gone = 0
    for t = 0, 39 do
      local v = left.points:ptr()[t * 165]
      if v ~= v then
        gone = gone + 1
        assert.is_true(t / 10 >= check.spans[1].from - 1e-6 and t / 10 < check.spans[1].to)
      end
    end
    assert.near(check.seconds - check.usable_seconds, gone / 10, 1e-6)
    assert.equal(sequence, recording_check.usable(sequence, judge(40, still)))
  end)

  it("refuses the dark, and warns of flicker and of light that is switched", function()
    assert.matches("too dark", judge(40, watched(40, function() return frame_at(0, 0, 0, .15) end)).reason, 1, true)
    local check = judge(40, watched(40, function(i) return frame_at(0, 0, i % 2 * 12) end))
    assert.is_true(check.passed, check.reason)
    assert.is_false(measure(check, "flicker").passed)
    assert.equal("warning", check.findings[1].level)
    check = judge(40, watched(40, function(i) return frame_at(0, 0, i % 20 < 10 and 0 or 40) end))
    assert.is_false(measure(check, "light_steps").passed)
    assert.is_true(measure(check, "flicker").passed)
    assert.equal("light changes suddenly", check.spans[1].reason)
  end)

  it("refuses points below likelihood, bodies beyond the border, small bodies, short recordings", function()
    assert.matches("only 0 % of the joint positions lie above likelihood 0.2", judge(40, still, { visible = .1 }).reason, 1, true)
    assert.is_true(judge(40, still, { visible = .1, limits = { likelihood = .05 } }).passed)
    local check = judge(40, still, { change = function(_, p) for j = 20, 32 do p[5 * j + 1] = 130 end end })
    assert.matches("39 % of the joint positions lie outside the frame", check.reason, 1, true)
    assert.equal("body outside the frame", check.spans[1].reason)
    check = judge(40, still, { change = function(_, p) for j = 0, 32 do p[5 * j + 1] = 60 + (p[5 * j + 1] - 60) * .5 end end })
    assert.matches("its torso measures 14 pixels (at least 20 wanted)", check.reason, 1, true)
    assert.matches("only 2.0 usable seconds of 2.0 (at least 3.0 wanted)", judge(20, watched(20, function() return frame_at(0, 0) end)).reason, 1, true)
    assert.is_true(judge(20, nil, { limits = { seconds = 1 } }).passed)
    check = judge(40, still, { change = function(t, p) if t >= 10 and t < 20 then for i = 0, 164 do p[i] = 0 / 0 end end end })
    assert.is_true(check.passed, check.reason)
    assert.same({ { from = 1, to = 2, reason = "nobody found" } }, check.spans)
  end)

  it("only warns of another person, unless that one lies over the body for long", function()
    local picture = frame_at(0, 0)
    local check = judge(60, watched(60, function() return picture end, nil, { detection(80, 60), detection(140, 60) }))
    assert.is_true(check.passed)
    assert.matches("seen in 6 of 6 looks", check.findings[1].text, 1, true)
    check = judge(60, watched(60, function() return picture end, nil, { detection(80, 60), detection(80, 90) }))
    assert.is_false(check.passed)
    assert.matches("another person is over the body in 6 of 6 looks", check.reason, 1, true)
    check = judge(60, watched(60, function() return picture end, nil, { detection(80, 60), detection(80, 90) }), { mode = "warn" })
    assert.is_false(check.passed)
    assert.is_false(check.stops)
    for _, f in ipairs(check.findings) do assert.are_not.equal("error", f.level) end
  end)

  it("counts joints that are not steady as unseen", function()
    local stability = { joints = {} }
    for i, name in ipairs(require("libration.pose.skeletons").blazepose33.joints) do stability.joints[i] = { joint = name, pixels = 1, torso = i <= 13 and .3 or .01 } end
    local check = judge(40, still, { stability = stability })
    assert.near(100 * 20 / 33, measure(check, "points").value, 1e-6)
    assert.is_false(check.passed)
    assert.is_false(measure(check, "steady").passed)
  end)

  it("says of landmarks without a video what could not be measured", function()
    local check = judge(40, nil)
    assert.is_true(check.passed)
    local note = check.findings[#check.findings]
    assert.equal("note", note.level)
    assert.matches("not measured: camera motion (no frames were watched), light", note.text, 1, true)
    assert.is_nil(measure(check, "camera"))
    local rows = recording_check.rows(check)
    assert.equal("recording check", rows[1][1])
    helper.refuses("no limit \"speed\"", judge, 40, nil, { limits = { speed = 1 } })
  end)
end)
