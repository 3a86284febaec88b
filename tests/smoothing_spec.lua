-- Specs of the smoothing: the filters from frame to frame against MediaPipe's own tracks, the zero-phase Butterworth against its definition.
local helper = require "helper"
local lr = require "libration"
local cases = require "pose_cases"
local regions = require "libration.regions"
local smoothing = require "libration.pose.smoothing"

describe("smoothing", function()
  for _, video in ipairs(cases.videos) do
    it(("bound: smoothing %s within .01 px, world 1e-5 m, visibility 1e-5"):format(video[1]), function()
      if not helper.shared("goldens/video") then return pending("needs ../shared") end
      local worst, worst_world, worst_visibility = cases.smoothing(video, "cpu")
      io.write(("bound: smoothing %s %.5f px world %.1e m visibility %.1e\n"):format(video[1], worst, worst_world, worst_visibility))
      assert.is_true(worst <= .01 and worst_world <= 1e-5 and worst_visibility <= 1e-5)
    end)
  end

  it("passes the first value, ignores a time that does not grow, begins anew where nobody was there; visibility goes on", function()
    local f, points = regions.following(1), lr.zeros({ 3, 8 })
    local p = points:ptr()
    p[8], p[9], p[16], p[17] = .5, .5, .5, .1 -- a body of 80 pixels
    local function step(x, visibility, time, flag)
      p[0], p[3] = x / 100, visibility
      points:touch()
      local y = regions.follow_points(f, points, lr.full({ 1 }, flag or 1), lr.full({ 1 }, time, "f64"),
        { width = 100, height = 100, follow = true, smooth = true, filters = { .05, 80, .01, 10, .1, 40 }, alpha = .25 }):ptr()
      return y[0], y[3], y[8 + 6]
    end
    local function near(x, visibility, tracked, ...)
      local a, b, c = ...
      assert.near(x, a, 1e-5)
      assert.near(visibility, b, 1e-6)
      assert.equal(tracked, c)
    end
    near(5, 1, 1, step(5, 1, 0))
    near(9, .75, 1, step(9, 0, 0))
    local x = step(9, 0, .04)
    assert.is_true(x > 5 and x < 9, x)
    x = step(9, 0, .08, .5)
    assert.is_true(x ~= x)
    assert.equal(0, f.y:get(2, 7))
    local before = .75 * .75
    near(9, .25 + .75 * before, 1, step(9, 1, .09))
    f.clock:fill_(0 / 0)
    near(7, .5, 1, step(7, .5, .01))
  end)
end)

describe("offline smoothing", function()
  -- [T,1,3] with x = f(t / rate), y its negative, z constant
  local function signal(T, rate, f)
    local t = lr.zeros({ T, 1, 3 })
    local p = t:ptr()
    for i = 0, T - 1 do p[3 * i], p[3 * i + 1], p[3 * i + 2] = f(i / rate), -f(i / rate), 7 end
    return t
  end

  -- Amplitude and lag (seconds) of a sine of frequency f in the middle of x.
  local function sine_of(t, rate, frequency)
    local p, T, re, im, n = t:ptr(), t:size(1), 0, 0, 0
    local period = rate / frequency
    local span = math.floor(math.floor(T / 2 / period) * period + .5)
    local begin = math.floor((T - span) / 2)
    for i = begin, begin + span - 1 do
      local a = 2 * math.pi * frequency * i / rate
      re, im, n = re + p[3 * i] * math.sin(a), im + p[3 * i] * math.cos(a), n + 1
    end
    return 2 / n * math.sqrt(re * re + im * im), math.atan2(im, re) / (2 * math.pi * frequency)
  end

  it("halves the power at the cut-off, without any lag (gain .7071 within 1e-3, lag below .1 ms)", function()
    for _, case in ipairs { { 30, 6 }, { 25, 3 }, { 60, 6 } } do
      local rate, cutoff = unpack(case)
      local gain, lag = sine_of(smoothing.offline(signal(1200, rate, function(s) return math.sin(2 * math.pi * cutoff * s) end), rate, cutoff), rate, cutoff)
      assert.near(math.sqrt(.5), gain, 1e-3)
      assert.near(0, lag, 1e-4)
      gain = sine_of(smoothing.offline(signal(1200, rate, function(s) return math.sin(2 * math.pi * cutoff / 6 * s) end), rate, cutoff), rate, cutoff / 6)
      assert.is_true(gain > .998)
    end
  end)

  it("leaves constants and straight lines as they are (1e-4)", function()
    local out = smoothing.offline(signal(40, 30, function(s) return 100 + 20 * s end), 30, 4):ptr()
    for i = 0, 39 do
      assert.near(100 + 20 * i / 30, out[3 * i], 1e-4)
      assert.near(7, out[3 * i + 2], 1e-5)
    end
  end)

  it("filters each span alone: NaN stays, nothing leaks over a gap, short spans stay", function()
    local T = 60
    local t = signal(T, 30, function(s) return math.sin(40 * s) end)
    local p = t:ptr()
    for i = 30, 34 do for k = 0, 2 do p[3 * i + k] = 0 / 0 end end
    for i = 38, 40 do for k = 0, 2 do p[3 * i + k] = 0 / 0 end end
    local out = smoothing.offline(t, 30, 4)
    local alone = smoothing.offline(t:narrow(1, 1, 30):clone(), 30, 4)
    for i = 0, 29 do assert.equal(alone:ptr()[3 * i], out:ptr()[3 * i]) end
    for i = 30, 34 do assert.is_true(out:ptr()[3 * i] ~= out:ptr()[3 * i]) end
    for i = 35, 37 do assert.equal(p[3 * i], out:ptr()[3 * i]) end
  end)

  it("is the same forwards and backwards in time (1e-4)", function()
    local T = 50
    local t, r = signal(T, 25, function(s) return math.sin(9 * s) + .3 * math.sin(70 * s) end), lr.zeros({ T, 1, 3 })
    for i = 0, T - 1 do for k = 0, 2 do r:ptr()[3 * i + k] = t:ptr()[3 * (T - 1 - i) + k] end end
    local a, b = smoothing.offline(t, 25, 5):ptr(), smoothing.offline(r, 25, 5):ptr()
    for i = 0, T - 1 do assert.near(a[3 * i], b[3 * (T - 1 - i)], 1e-4) end
  end)

  it("refuses what cannot be filtered", function()
    assert.error_matches(function() smoothing.offline(lr.zeros({ 4, 3 }), 30) end, "want %[T,J,C%]")
    assert.error_matches(function() smoothing.offline(lr.zeros({ 4, 3, 2 }), 0) end, "rate is 0")
  end)
end)
