-- Specs of features, windows and the normaliser: shapes, masks, gaps, and the exact golden values of the check configuration.
local ffi = require "ffi"
local helper = require "helper"
local motion = require "libration.motion"

local NAN = 0 / 0

-- Features of two joints without a track behind them.
local function features(frames, value)
  local f = { frames = frames, size = 4, joints = 2, per_joint = 2, values = ffi.new("double[?]", frames * 4) }
  for t = 0, frames - 1 do
    for d = 0, 3 do f.values[t * 4 + d] = value(t, d) end
  end
  return f
end

local function written(w, list, norm, mask)
  local F = w:width(mask)
  local n = #list * w.length * F
  local x, weight = ffi.new("float[?]", n), ffi.new("float[?]", n)
  w:write(list, norm, mask, x, weight)
  return x, weight, F
end

describe("windows", function()
  it("never straddle two sequences: N = sum of (frames - T) / stride + 1", function()
    local a, b, c = features(10, function(t) return t end), features(7, function(t) return -t end), features(4, function() return 0 end)
    local w = motion.Windows.of({ a, b, c }, { window = 5, stride = 2 })
    assert.equal(3 + 2 + 0, w.count)
    assert.same({ 1, 1, 1, 2, 2 }, w.sequence)
    assert.same({ 0, 2, 4, 0, 2 }, w.start)
    assert.same({ 4, 5 }, w:of_sequence(2))
    assert.same({}, w:of_sequence(3))
  end)

  it("leave out frames without a body and windows with less than half of the joints", function()
    local w = motion.Windows.of({ features(20, function(t) return t == 9 and NAN or t end) }, { window = 5 })
    assert.same({ 0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15 }, w.start)
    local half = features(8, function(t, d) return d > 1 and t > 2 and NAN or t end)
    assert.equal(4, motion.Windows.of({ half }, { window = 5 }).count)
    assert.equal(2, motion.Windows.of({ half }, { window = 5, min_seen = .65 }).count)
  end)

  it("minus their own mean over the frames that are seen", function()
    local w = motion.Windows.of({ features(6, function(t, d) return (d == 2 or d == 3) and t == 1 and NAN or t * (d + 1) end) }, { window = 5 })
    local out = ffi.new("double[?]", 20)
    w:raw(1, out)
    assert.is_near(-2, out[0], 1e-12)
    assert.is_near(0 - 3 * 9 / 4, out[2], 1e-12)
    assert.is_true(out[4 + 2] ~= out[4 + 2])
  end)

  it("of unit amplitude have an SD just below 1", function()
    local w = motion.Windows.of({ features(6, function(t, d) return 50 * math.sin(t + d) end) }, { window = 6, post = "unit" })
    local out, square = ffi.new("double[?]", 24), 0
    w:raw(1, out)
    for i = 0, 23 do square = square + out[i] ^ 2 end
    assert.is_near(1, math.sqrt(square / 24), .001)
  end)

  it("normaliser: population SD over the windows, floor of 1 % of the largest", function()
    local w = motion.Windows.of({ features(4, function(t, d) return d == 0 and t or d == 1 and 10 * t or 3 end) }, { window = 3, post = "none" })
    local norm = w:fit_normaliser()
    -- frames 0,1,2 and 1,2,3
    assert.is_near(1.5, norm.mean[1], 1e-12)
    assert.is_near(math.sqrt(11 / 12), norm.sd[1], 1e-12)
    assert.is_near(10 * math.sqrt(11 / 12), norm.sd[2], 1e-12)
    assert.is_near(.1 * math.sqrt(11 / 12), norm.sd[3], 1e-12)
    assert.has_error(function() motion.Windows.of({ features(4, function() return 1 end) }, { window = 3 }):fit_normaliser() end)
    assert.has_error(function() motion.Windows.of({ features(2, function(t) return t end) }, { window = 3 }):fit_normaliser() end)
  end)

  it("carry x, y and mask of each joint, F = 3J; a missing joint is 0, 0, -1 and has no weight", function()
    local w = motion.Windows.of({ features(5, function(t, d) return d >= 2 and t == 3 and NAN or t + d end) }, { window = 5, post = "none" })
    local norm = { mean = { 1, 1, 1, 1 }, sd = { 2, 2, 2, 2 } }
    local x, weight, F = written(w, { 1 }, norm, true)
    assert.equal(6, F)
    assert.same({ 1, 1.5, 0, 0, 0, -1 }, { x[18], x[19], x[20], x[21], x[22], x[23] })
    assert.same({ 1, 1, 0, 0, 0, 0 }, { weight[18], weight[19], weight[20], weight[21], weight[22], weight[23] })
    assert.same({ 1, 1, 0 }, { weight[3], weight[4], weight[5] })
    local plain, _, narrow = written(w, { 1 }, norm, false)
    assert.equal(4, narrow)
    assert.same({ 1, 1.5, 0, 0 }, { plain[12], plain[13], plain[14], plain[15] })
  end)

  it("refuse wrong options by name", function()
    local f = { features(5, function(t) return t end) }
    for _, o in ipairs { { window = 1 }, { window = 2.5 }, { stride = 0 }, { post = "sum" } } do
      assert.has_error(function() motion.Windows.of(f, o) end)
    end
    assert.has_error(function() motion.features.of({ frames = 1, joints = 1, fps = 25, x = ffi.new("double[2]") }, "angles") end)
  end)

  it("angles: cosine and sine of each bone between the joints used, whatever the place and size; missing with either end", function()
    local names = { "neck", "nose", "left_shoulder" }
    local function of(scale, dx)
      local x = ffi.new("double[?]", 2 * 6, { 0, 0, 0, -2, 3, 4, 0, 0, NAN, NAN, 0, 0 })
      for i = 0, 11 do x[i] = scale * x[i] + dx end
      return motion.features.of({ frames = 2, joints = 3, fps = 25, x = x, names = names, skeleton = "openpose18" }, "angles")
    end
    local f, g = of(1, 0), of(7, 3)
    assert.same({ "neck-left_shoulder", "neck-nose" }, f.names)
    assert.same({ 2, 4, 2 }, { f.joints, f.size, f.per_joint })
    assert.is_near(.6, f.values[0], 1e-12)
    assert.is_near(.8, f.values[1], 1e-12)
    assert.is_near(-1, f.values[3], 1e-12)
    for i = 0, 3 do assert.is_near(f.values[i], g.values[i], 1e-12) end
    for i = 4, 7 do assert.is_true(f.values[i] ~= f.values[i]) end -- no length, and no nose
    local units, per = motion.features.units("angles", "openpose18", names)
    assert.same({ f.names, 2 }, { units, per })
    helper.refuses("no two of the joints", motion.features.of, { frames = 1, joints = 1, fps = 25, x = ffi.new("double[2]"), names = { "nose" }, skeleton = "coco17" }, "angles")
  end)

  it("velocities: the first frame takes the second's, times the rate; both has them x 0.3", function()
    local x = ffi.new("double[?]", 8, { 0, 0, 1, 2, 3, 2, 6, 2 })
    local track = { frames = 4, joints = 1, fps = 10, x = x }
    local v = motion.features.of(track, "velocities")
    local list = {}
    for i = 0, 7 do list[i + 1] = v.values[i] end
    assert.same({ 10, 20, 10, 20, 20, 0, 30, 0 }, list)
    local both = motion.features.of(track, "both")
    assert.equal(4, both.size)
    assert.is_near(3, both.values[2], 1e-12)
    assert.equal(1, both.values[4])
  end)
end)

-- From shared/goldens/autoencoder/l0_exact.txt, made by l0_exact.py there.
local EXACT = {
  none = {
    mean = { "-0.03037", "-0.91462", "-0.90635", "-0.24633" }, sd = { "0.16199", "0.09061", "0.18856", "0.28348" },
    range = "0.01809/0.35806",
  },
  window = { sd = { "0.05474", "0.02491", "0.07568", "0.11729" }, range = "0.01239/0.11807" },
}

describe("check configuration", function()
  for post, want in pairs(EXACT) do
    it("normaliser values equal the golden's printed digits, post " .. post, function()
      local folder = helper.shared("data/anomaly/minirgbd_openpose18")
      if not folder then return pending("needs ../shared") end
      local npy = require "libration.formats.npy"
      local list, options = {}, { coordinates = "centred", max_gap = math.huge, post = post, mask = false }
      for _, id in ipairs { "01", "02", "03", "05", "06" } do
        local s = motion.Sequence.new { points = assert(npy.load(folder .. "/" .. id .. ".npy")), id = id, width = 640, height = 480 }
        list[#list + 1] = motion.prepare(s, options)
      end
      local w = motion.windows(list, options)
      assert.equal(1355, w.count)
      assert.equal(28, w:width(false))
      assert.equal(42, w:width(true))
      local norm = w:fit_normaliser()
      -- nose x, y and right wrist x, y
      for i, d in ipairs { 1, 2, 9, 10 } do
        if want.mean then assert.equal(want.mean[i], ("%.5f"):format(norm.mean[d])) else assert.is_near(0, norm.mean[d], 1e-12) end
        assert.equal(want.sd[i], ("%.5f"):format(norm.sd[d]))
      end
      local least, most = math.huge, 0
      for _, s in ipairs(norm.sd) do least, most = math.min(least, s), math.max(most, s) end
      assert.equal(want.range, ("%.5f/%.5f"):format(least, most))
    end)
  end
end)
