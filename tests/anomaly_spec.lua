-- Specs of baselines, scores, thresholds and warnings; the exact columns of the check configuration to their printed digits.
local ffi = require "ffi"
local helper = require "helper"
local motion = require "libration.motion"
local pca = require "libration.anomaly.pca"
local baselines = require "libration.anomaly.baselines"
local scores = require "libration.anomaly.scores"
local thresholds = require "libration.anomaly.thresholds"
local honesty = require "libration.anomaly.honesty"
local attribution = require "libration.anomaly.attribution"
local measures = require "libration.anomaly.measures"
local statistics = motion.statistics

local function noise(seed)
  local state = seed
  return function()
    state = state * 16807 % 2147483647
    return state / 2147483647 - .5
  end
end

-- n rows of P numbers of rank r, the ith direction with weight 1/i.
local function rows(n, P, r)
  local draw, x = noise(7), ffi.new("double[?]", n * P)
  for k = 1, r do
    local a, b = {}, {}
    for i = 1, n do a[i] = draw() end
    for j = 1, P do b[j] = draw() end
    for i = 0, n - 1 do
      for j = 0, P - 1 do x[i * P + j] = x[i * P + j] + a[i + 1] * b[j + 1] / k end
    end
  end
  return x
end

local function left(model, x, n, P)
  local residual, sum = ffi.new("double[?]", P), 0
  for i = 0, n - 1 do
    pca.residual(model, x + i * P, residual)
    for k = 0, P - 1 do sum = sum + residual[k] ^ 2 end
  end
  return sum
end

describe("pca", function()
  for _, case in ipairs { { 60, 17, "more rows than columns" }, { 13, 50, "fewer rows than columns" } } do
    local n, P = case[1], case[2]
    it("leaves nothing of rows of its rank, " .. case[3], function()
      local x, copy = rows(n, P, 4), rows(n, P, 4)
      local model = pca.fit(x, n, P, 6)
      assert.is_true(model.rank <= 6 and model.rank >= 4)
      assert.is_near(0, left(model, copy, n, P), 1e-12)
      for i = 0, model.rank - 1 do
        for k = 0, i do
          local dot = 0
          for j = 0, P - 1 do dot = dot + model.components[i * P + j] * model.components[k * P + j] end
          assert.is_near(i == k and 1 or 0, dot, 1e-9)
        end
      end
    end)
  end

  it("keeps the largest eigenvalues: residual = sum of the others, both ways round", function()
    -- both Gram matrices have the same spectrum
    local tall, wide = rows(40, 12, 12), rows(12, 40, 12)
    for _, c in ipairs { { tall, 40, 12 }, { wide, 12, 40 } } do
      local x, n, P = c[1], c[2], c[3]
      local copy = ffi.new("double[?]", n * P)
      ffi.copy(copy, x, n * P * 8)
      local model = pca.fit(x, n, P, 3)
      local gram = ffi.new("double[?]", P * P)
      for i = 0, P - 1 do
        for j = 0, P - 1 do
          for r = 0, n - 1 do gram[i * P + j] = gram[i * P + j] + x[r * P + i] * x[r * P + j] end
        end
      end
      local values, others = pca.jacobi(gram, P), 0
      for i = 4, P do others = others + values[i] end
      assert.is_near(others, left(model, copy, n, P), 1e-9 * values[1])
    end
  end)

  it("gives the same bytes twice", function()
    local a, b = pca.fit(rows(30, 20, 9), 30, 20, 5), pca.fit(rows(30, 20, 9), 30, 20, 5)
    for i = 0, 5 * 20 - 1 do assert.equal(a.components[i], b.components[i]) end
  end)

  it("takes rows that are all alike", function()
    local x = ffi.new("double[?]", 6 * 4)
    for i = 0, 23 do x[i] = i % 4 end
    local model = pca.fit(x, 6, 4, 3)
    for i = 0, 3 do assert.equal(i, model.mean[i]) end
    local row = ffi.new("double[4]", { 0, 1, 2, 4 })
    local residual = ffi.new("double[4]")
    pca.residual(model, row, residual)
    for i = 0, 3 do assert.is_true(residual[i] == residual[i]) end
  end)
end)

-- From shared/goldens/autoencoder/l0_exact.txt: zero output (3 digits as printed there) and PCA-32 (4 digits) of 01..12.
local EXACT = {
  none = {
    zero = { "0.597", "0.830", "1.628", "7.150", "0.648", "1.298", "0.622", "1.825", "4.955", "1.480", "2.360", "6.782" },
    pca = { "0.0402", "0.0639", "0.0785", "3.0780", "0.0395", "0.0503", "0.1368", "0.2208", "1.8430", "0.3391", "0.2558", "0.5695" },
    validation = "1.2239", left = { [1] = "0.37", [7] = "1.10", [8] = "0.90", [11] = "0.96", [4] = "1.28" },
  },
  window = {
    zero = { "0.759", "0.908", "1.600", "23.240", "0.671", "1.061", "0.982", "1.954", "14.246", "3.129", "1.560", "2.652" },
    pca = { "0.1785", "0.2814", "0.3793", "20.0766", "0.2055", "0.2374", "0.3125", "0.5740", "10.9488", "1.0559", "0.6816", "1.1169" },
    validation = "1.4680", left = { [1] = "0.24", [7] = "0.32", [8] = "0.29", [11] = "0.44", [4] = "0.86" },
  },
}

local function check_data(folder, post)
  local npy = require "libration.formats.npy"
  local options = { coordinates = "centred", max_gap = math.huge, post = post, mask = false }
  local list = {}
  for i = 1, 12 do
    local id = ("%02d"):format(i)
    list[i] = motion.prepare(motion.Sequence.new {
      points = assert(npy.load(folder .. "/" .. id .. ".npy")), id = id, width = 640, height = 480,
    }, options)
  end
  return list, options
end

describe("check configuration", function()
  for _, post in ipairs { "none", "window" } do
    it("zero output and PCA-32 equal the golden's printed digits, post " .. post .. " #slow", function()
      local folder = helper.shared("data/anomaly/minirgbd_openpose18")
      if not folder then return pending("needs ../shared") end
      local list, options = check_data(folder, post)
      local train = motion.windows({ list[1], list[2], list[3], list[5], list[6] }, options)
      local norm = train:fit_normaliser()
      local model = baselines.fit(train, norm, 32)
      local zero = {}
      for i = 1, 12 do
        local w = motion.windows({ list[i] }, options)
        local r = baselines.score(model, w, w:of_sequence(1), norm)
        zero[i] = statistics.mean(r.zero)
        assert.equal(EXACT[post].zero[i], ("%.3f"):format(zero[i]))
        assert.equal(EXACT[post].pca[i], ("%.4f"):format(statistics.mean(r.pca)))
        if EXACT[post].left[i] then
          assert.equal(EXACT[post].left[i], ("%.2f"):format(statistics.mean(r.pca) / statistics.mean(r.variance)))
        end
      end
      assert.equal(EXACT[post].validation, ("%.4f"):format((zero[7] + zero[8]) / 2))
    end)
  end

  it("mean speed separates all abnormal from all normal sequences of MINI-RGBD, AUC 1.00", function()
    local folder = helper.shared("data/anomaly/minirgbd_openpose18")
    if not folder then return pending("needs ../shared") end
    local list = check_data(folder, "none")
    local speeds = { {}, {} }
    for i, f in ipairs(list) do
      local abnormal = i == 4 or i == 9 or i == 10 or i == 12
      table.insert(speeds[abnormal and 2 or 1], motion.normalise.mean_speed(f.track))
    end
    assert.equal(1, statistics.auc(speeds[1], speeds[2]))
  end)
end)

-- Features of `joints` joints that oscillate, with missing joints where `gap` says so.
local function swaying(frames, joints, amplitude, gap)
  local f = { frames = frames, size = 2 * joints, joints = joints, per_joint = 2, values = ffi.new("double[?]", frames * 2 * joints) }
  for t = 0, frames - 1 do
    for j = 0, joints - 1 do
      for c = 0, 1 do
        f.values[(t * joints + j) * 2 + c] = gap and gap(t, j) and 0 / 0 or amplitude * math.sin(.4 * t + j + 2 * c)
      end
    end
  end
  return f
end

local function zero_model(windows, mask)
  local norm = windows:fit_normaliser()
  return {
    normaliser = norm, mask = mask, pca = baselines.fit(windows, norm, 4),
    reconstruct = function(_, n) return ffi.new("float[?]", n * windows.length * windows:width(mask)) end,
  }
end

describe("scores", function()
  it("of a network that answers zero are those of the zero output, with and without masks", function()
    local w = motion.Windows.of({ swaying(60, 3, 1) }, { window = 10 })
    for _, mask in ipairs { true, false } do
      local s = scores.of_sequence(w, 1, zero_model(w, mask), "a")
      assert.equal(51, s.windows)
      for i = 1, 51 do assert.is_near(s.zero[i], s.error[i], 1e-6) end
      assert.is_near(1, s.ratio, 1e-5)
      assert.is_near(0, scores.explained({ s }).zero, 1e-5)
      assert.is_near(statistics.percentile(s.error, 95), s.p95, 1e-12)
    end
  end)

  it("of frames are means of the windows that cover them, of joints means of their own errors, whatever the batch", function()
    local w = motion.Windows.of({ swaying(400, 2, 1) }, { window = 10 })
    local model = zero_model(w, true)
    local s = scores.of_sequence(w, 1, model)
    -- frame 200 of joint 2 by hand
    local x, weight = ffi.new("float[60]"), ffi.new("float[60]")
    local sum = 0
    for first = 191, 200 do
      w:write({ first + 1 }, model.normaliser, true, x, weight)
      local at = (200 - first) * 6 + 3
      sum = sum + (x[at] ^ 2 + x[at + 1] ^ 2) / 2 / 10
    end
    assert.is_near(sum, s.joint_error[200 * 2 + 1], 1e-6)
    local around = 0
    for first = 191, 200 do around = around + s.error[first + 1] / 10 end
    assert.is_near(around, s.frame_error[201], 1e-12)
    assert.equal(s.error[1], s.frame_error[1])
  end)

  it("ignore missing joints", function()
    local whole = motion.Windows.of({ swaying(60, 3, 1) }, { window = 10, post = "none" })
    local model = zero_model(whole, true)
    local holed = motion.Windows.of({ swaying(60, 3, 1, function(t, j) return j == 1 and t >= 20 and t < 40 end) }, { window = 10, post = "none" })
    local s = scores.of_sequence(holed, 1, model)
    assert.equal(51, s.windows)
    for t = 20, 39 do assert.is_true(s.joint_error[t * 3 + 1] ~= s.joint_error[t * 3 + 1]) end
    local full = scores.of_sequence(whole, 1, model)
    assert.is_near(full.joint_error[30 * 3], s.joint_error[30 * 3], 1e-6)
    for _, e in ipairs(s.error) do assert.is_true(e == e) end
  end)

  it("of a sequence shorter than a window are none", function()
    local w = motion.Windows.of({ swaying(60, 2, 1), swaying(5, 2, 1) }, { window = 10 })
    local s = scores.of_sequence(w, 2, zero_model(w, true))
    assert.equal(0, s.windows)
    assert.is_nil(s.mean)
  end)
end)

-- A scored sequence with these window errors, one a frame.
local function scored(id, errors, speed)
  local s = { id = id, error = errors, zero = {}, pca = {}, variance = {}, speed = {}, start = {}, frames = #errors, fps = 10, begin = 0, window = 5,
    frame_error = {}, joints = {}, mean_speed = speed or 1 }
  for i, e in ipairs(errors) do
    s.zero[i], s.pca[i], s.variance[i], s.speed[i], s.start[i], s.frame_error[i] = 2 * e, e / 2, 1.5 * e + i % 3, 1, i - 1, e
  end
  return scores.summarise(s)
end

local function ramp(n, from, step)
  local list = {}
  for i = 1, n do list[i] = from + step * i end
  return list
end

describe("thresholds", function()
  it("threshold is the percentile of all calibration windows, limit the largest share of one sequence", function()
    local c = thresholds.calibrate({ scored("a", ramp(40, 0, 1)), scored("b", ramp(60, 0, 1)) }, 90)
    local all = ramp(40, 0, 1)
    for _, v in ipairs(ramp(60, 0, 1)) do all[#all + 1] = v end
    assert.equal(statistics.percentile(all, 90), c.threshold)
    assert.is_near(10 / 60, c.limit, 1e-12) -- of b, 51..60
    assert.equal(0, c.sequences[1].share)
    assert.equal(100, #c.windows)
    assert.equal(8 + 12, #c.frames)
  end)

  it("a video is abnormal when its share exceeds that of every calibration sequence; p beside it", function()
    local c = thresholds.calibrate({ scored("a", ramp(50, 0, 1), .5), scored("b", ramp(50, 0, 1), 1) }, 90)
    local v = thresholds.judge(c, scored("x", ramp(50, 20, 1), 2))
    assert.is_true(v.abnormal)
    assert.equal("abnormal", v.word)
    assert.is_near(1 / 3, v.p, 1e-12)
    assert.is_near(1 / 3, v.smallest_p, 1e-12)
    assert.is_true(v.baselines.speed.abnormal)
    v = thresholds.judge(c, scored("y", ramp(50, 0, 1), .7))
    assert.is_false(v.abnormal)
    assert.equal(c.limit, v.share)
    assert.equal(1, v.p)
    assert.is_false(v.baselines.speed.abnormal)
  end)

  it("finds episodes in seconds and the longest", function()
    local errors = ramp(50, 0, 0)
    for _, i in ipairs { 5, 6, 7, 20, 21, 22, 23, 50 } do errors[i] = 9 end
    local v = thresholds.judge(thresholds.calibrate({ scored("a", ramp(50, 0, .1)) }), scored("x", errors))
    assert.equal(3, #v.episodes)
    assert.same({ first = 19, last = 22, from = 1.9, to = 2.3 }, v.episodes[2])
    assert.is_near(.4, v.longest, 1e-12)
    assert.equal(8, v.flagged)
    assert.is_true(v.frame_flag[5])
    assert.is_false(v.frame_flag[4])
    assert.is_near(1 / 11, v.frame_p[5], 1e-12)
    assert.equal(1, v.frame_p[4])
  end)

  it("two-sided: a too low error is abnormal too, p counts both sides", function()
    local c = thresholds.calibrate({ scored("a", ramp(50, 10, 1)), scored("b", ramp(50, 10, 1)), scored("c", ramp(50, 10, 1)) }, 90)
    local still = scored("x", ramp(50, 1, .1))
    assert.is_false(thresholds.judge(c, still).abnormal)
    local v = thresholds.judge(c, still, { two_sided = true })
    assert.is_true(v.abnormal)
    assert.equal("low", v.side)
    assert.equal(1, v.low.share)
    assert.is_near(.1, v.low.limit, 1e-12)
    assert.matches("0.0 %% of the windows over the threshold %(calibration: at most 1?0.0 %%%), 100.0 %% under the low one %(calibration: at most 10.0 %%%)", thresholds.line(v))
    assert.equal(.5, v.p) -- 2 x 1 / 4
    assert.equal(.5, v.smallest_p)
    assert.is_true(v.frame_flag[1])
    assert.equal("high", thresholds.judge(c, scored("y", ramp(50, 40, 1)), { two_sided = true }).side)
    assert.is_false(thresholds.judge(c, scored("z", ramp(50, 10, 1)), { two_sided = true }).abnormal)
  end)

  it("p by block: windows that lie whole inside a block of seconds, the smallest p of m blocks counts m times", function()
    local c = thresholds.calibrate({ scored("a", ramp(50, 0, 1)), scored("b", ramp(50, 0, 1)) }, 90)
    local v = thresholds.judge(c, scored("x", ramp(40, 100, 1)), { unit = "block", block = 1 }) -- 10 frames, windows of 5
    assert.same({ kind = "block", seconds = 1, calibration = 10, judged = 4 }, v.unit)
    assert.equal(10, v.blocks[2].first)
    assert.is_near(100 + 11 + 2.5, v.blocks[2].mean, 1e-12) -- windows 11 to 16 begin at frames 10 to 15
    assert.is_near(1 / 11, v.blocks[2].p, 1e-12)
    assert.is_near(4 / 11, v.p, 1e-12)
    assert.is_near(4 / 11, v.smallest_p, 1e-12)
    assert.matches("4 blocks of 1 s against 10 of the calibration videos", thresholds.unit(v), 1, true)
    v = thresholds.judge(c, scored("x", ramp(40, 100, 1)), { unit = "block", block = 9 })
    assert.equal(1, v.p)
    assert.equal("no whole block of 9 s", thresholds.unit(v))
  end)

  it("does not score what has no windows, and refuses to calibrate on nothing", function()
    local c = thresholds.calibrate { scored("a", ramp(50, 0, 1)) }
    local v = thresholds.judge(c, { error = {}, frames = 3, window = 30 })
    assert.equal("not scored", v.word)
    assert.is_nil(v.abnormal)
    assert.equal("3 frames, a window has 30", v.reason)
    local ok, err = pcall(thresholds.calibrate, { { error = {} } })
    assert.is_false(ok)
    assert.matches("no validation windows", err, 1, true)
  end)
end)

-- Two frames a row: left wrist 3, right ankle 1, nose 0, for `frames` frames at 2 frames a second; the wrist is missing in the first second.
local function three_joints(frames)
  local s = scored("a", ramp(frames, 0, 1))
  s.fps, s.begin, s.joints, s.joint_error = 2, 10, { "left_wrist", "right_ankle", "nose" }, ffi.new("double[?]", frames * 3)
  for t = 0, frames - 1 do s.joint_error[t * 3], s.joint_error[t * 3 + 1] = t < 2 and 0 / 0 or 3, 1 end
  return s
end

describe("attribution", function()
  it("by joint, limb, side and second", function()
    local a = attribution.of(three_joints(5))
    assert.same({ name = "left wrist", error = 3, share = 9 / 14, limb = "left arm" }, a.joints[1])
    assert.same({ { name = "left arm", error = 3, share = 9 / 14 }, { name = "right leg", error = 1, share = 5 / 14 }, { name = "head", error = 0, share = 0 } }, a.limbs)
    assert.equal(3, a.left)
    assert.equal(1, a.right)
    assert.equal(3, #a.time)
    assert.same({ from = 10, to = 11, error = .5, ["left arm"] = 0, ["right leg"] = 1, head = 0 }, a.time[1])
    assert.equal(12.5, a.time[3].to)
    assert.equal(.75, a.time[3]["left arm"])
  end)

  it("as a table that reads back", function()
    local files, csv = require "libration.files", require "libration.formats.csv"
    local folder = files.temporary_folder()
    local _, cells = csv.read(attribution.write(folder .. "/a.csv", attribution.of(three_joints(5))))
    files.remove(folder)
    assert.equal(3 + 3 + 2 + 3 * 3, #cells)
    assert.equal("joint,left wrist,left arm,,,3,0.642857143", table.concat(cells[1], ","))
    assert.equal("side,left,,,,3,0.75", table.concat(cells[7], ","))
    assert.equal("time,right leg,right leg,10,11,0.5,1", table.concat(cells[10], ","))
  end)
end)

describe("movement statistics", function()
  local movement = require "libration.anomaly.movement"
  -- Six statistics that vary alone, each by +-1 around 3 (asymmetry by its size).
  local function normals()
    local list = {}
    for i = 1, 6 do
      for sign = -1, 1, 2 do
        local m = {}
        for k, key in ipairs { "speed", "jerk", "asymmetry", "synchrony", "centroid", "burstiness" } do m[key] = 3 + (k == i and sign or 0) end
        m.asymmetry = m.asymmetry * sign
        list[#list + 1] = m
      end
    end
    return list
  end

  it("Mahalanobis' distance: covariance 2/11 on the diagonal, as the shrunk one; asymmetry by its size; the unseen stands at the mean", function()
    local fitted = movement.fit(normals())
    local middle = { speed = 3, jerk = 3, asymmetry = -3, synchrony = 3, centroid = 3, burstiness = 3 }
    assert.is_near(0, movement.distance(fitted, middle), 1e-12)
    middle.jerk = 5
    assert.is_near(2 / math.sqrt(2 / 11), movement.distance(fitted, middle), 1e-9)
    middle.jerk = 0 / 0
    assert.is_near(0, movement.distance(fitted, middle), 1e-12)
    assert.has_error(function() movement.fit { middle } end)
  end)
end)

describe("measures", function()
  it("stand beside the headline with range and p, one-sided and two-sided", function()
    local c = thresholds.calibrate { scored("a", ramp(50, 0, 1)), scored("b", ramp(50, 1, 1)), three_joints(5) }
    local list = {}
    for _, m in ipairs(measures.of(c, three_joints(9))) do list[m.key] = m end
    assert.equal(5, list.mean.value)
    assert.is_near(3 / 4, list.mean.p, 1e-12)
    assert.is_near(1, list.mean.p_two_sided, 1e-12)
    assert.equal(1 / 4, list.ratio.smallest_p)
    assert.equal(3, list.mean.low)
    assert.is_near(26.5, list.mean.high, 1e-12)
    assert.is_near(2 / 2, list["left arm"].p, 1e-12) -- one calibration sequence shows it, and moves it as much
    assert.equal(3, list["left arm"].value)
    assert.truthy(list.p95 and list.log_sd)
  end)
end)

describe("honesty", function()
  it("warns of a network worse than PCA, of one that explains little, and of few calibration videos", function()
    local c = thresholds.calibrate({ scored("a", ramp(50, 0, 1)) }, 95, { network = .14, pca = .6, zero = 0 })
    local text = table.concat(honesty.of_calibration(c), "\n")
    assert.matches("less unseen normal movement (14 %) than PCA-32 (60 %)", text, 1, true)
    assert.matches("explains only 14 %", text, 1, true)
    assert.matches("not better than mean speed", text, 1, true)
    assert.matches("1 calibration video: too few (20 wanted)", text, 1, true)
    assert.matches("smallest p they allow is 0.5", text, 1, true)
    assert.equal("share of unseen normal movement explained (1 - error / variance, 1 calibration video): network 14 %, PCA-32 60 %, zero output 0 %",
      honesty.explained(c))
  end)

  it("says when mean speed separates the test videos as well", function()
    local rows_of = { { label = 0, scored = scored("a", ramp(9, 0, 1), 1) }, { label = 1, scored = scored("b", ramp(9, 3, 1), 2) } }
    local t = honesty.of_test(rows_of)
    assert.equal(1, t.auc.network)
    assert.matches("not better than mean speed (AUC 1.00)", table.concat(t.warnings, "\n"), 1, true)
    assert.is_nil(honesty.of_test { rows_of[1] })
  end)
end)
