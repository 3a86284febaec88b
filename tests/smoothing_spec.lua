-- Specs of the smoothing: One-Euro and low-pass against MediaPipe's own tracks, the zero-phase Butterworth against its definition.
local ffi = require "ffi"
local helper = require "helper"
local lr = require "libration"
local npy = require "libration.formats.npy"
local smoothing = require "libration.pose.smoothing"

-- Widths and heights of the golden videos.
local videos = {
  { "ta_chi", 340, 256 }, { "sports2d_walk", 1768, 994 }, { "pose2sim_cam02", 1080, 1920 }, { "egoblur_face", 2560, 1920 },
  { "again", 640, 480 }, { "book", 640, 480 }, { "help", 640, 480 }, { "thanks", 640, 480 },
}

local function single(v)
  return tonumber(ffi.new("float", v))
end

describe("smoothing", function()
  for _, video in ipairs(videos) do
    local name, w, h = unpack(video)
    it(("bound: smoothing %s within .01 px, world 1e-5 m, visibility 1e-5"):format(name), function()
      local folder = helper.shared("goldens/video")
      if not folder then return pending("needs ../shared") end
      local function load(key)
        local t = assert(npy.load(("%s/%s.%s.npy"):format(folder, name, key)))
        return t:ptr(), t
      end
      local raw, whole = load("raw.landmarks")
      local aux, keep1 = load("aux")
      local smooth, keep2 = load("smooth.landmarks")
      local raw_world, keep3 = load("raw.world")
      local smooth_world, keep4 = load("smooth.world")
      local picture, space = smoothing.one_euro(99, .05, 80), smoothing.one_euro(99, .1, 40)
      local seen = smoothing.low_pass(33, .1)
      local px, m, v = ffi.new("float[99]"), ffi.new("float[99]"), ffi.new("float[33]")
      local worst, worst_world, worst_visibility = 0, 0, 0
      for t = 0, whole:size(1) - 1 do
        local l = raw + t * 165
        if l[0] ~= l[0] then
          picture:reset()
        else
          for i = 0, 32 do
            px[3 * i], px[3 * i + 1], px[3 * i + 2], v[i] = l[5 * i] * w, l[5 * i + 1] * h, l[5 * i + 2] * w, l[5 * i + 3]
            for k = 0, 2 do m[3 * i + k] = raw_world[t * 132 + 4 * i + k] end
          end
          local a = aux + t * 8
          local dx, dy = single(a[4] * w) - single(a[0] * w), single(a[5] * h) - single(a[1] * h)
          local time = (t + 1) * .033333
          picture:apply(px, time, single(1 / single(2 * math.sqrt(dx * dx + dy * dy))))
          space:apply(m, time, 1)
          seen:apply(v, 1)
          for i = 0, 32 do
            local g = smooth + t * 165 + 5 * i
            worst = math.max(worst, math.abs(px[3 * i] - g[0] * w), math.abs(px[3 * i + 1] - g[1] * h), math.abs(px[3 * i + 2] - g[2] * w))
            worst_visibility = math.max(worst_visibility, math.abs(v[i] - g[3]))
            for k = 0, 2 do worst_world = math.max(worst_world, math.abs(m[3 * i + k] - smooth_world[t * 132 + 4 * i + k])) end
          end
        end
      end
      assert.is_truthy(keep1 and keep2 and keep3 and keep4)
      io.write(("bound: smoothing %s %.5f px world %.1e m visibility %.1e\n"):format(name, worst, worst_world, worst_visibility))
      assert.is_true(worst <= .01 and worst_world <= 1e-5 and worst_visibility <= 1e-5)
    end)
  end

  it("one-euro passes the first value, ignores a time that does not grow, and forgets on reset", function()
    local f, v = smoothing.one_euro(1, .05, 80), ffi.new("float[1]", 5)
    f:apply(v, 0, 1)
    assert.equal(5, v[0])
    v[0] = 9
    f:apply(v, 0, 1)
    assert.equal(9, v[0])
    v[0] = 9
    f:apply(v, .04, 1e-6)
    assert.is_true(v[0] > 5 and v[0] < 6)
    f:reset()
    v[0] = 9
    f:apply(v, .01, 1)
    assert.equal(9, v[0])
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
