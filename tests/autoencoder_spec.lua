-- Specs of the autoencoder and its training: shapes, parameters, masks, and the check configuration against PyTorch's figures.
local ffi = require "ffi"
local helper = require "helper"
local lr = require "libration"
local log = require "libration.log"
local motion = require "libration.motion"
local anomaly = require "libration.anomaly"

describe("autoencoder", function()
  it("of the reference sizes has 306,179 parameters", function()
    local model = anomaly.autoencoder.new { input = 99, window = 30 }
    assert.equal(306179, model:count())
  end)

  it("maps [B,T,F] to [B,T,F], any layers, and reconstructs the same outside of training", function()
    local model = anomaly.autoencoder.new { input = 5, window = 7, hidden = { 6, 4, 3 }, latent = 2, seed = 3 }
    local x = lr.randn({ 3, 7, 5 }, { seed = 4 })
    local y = model(x)
    assert.same({ 3, 7, 5 }, y.shape)
    local out = model:reconstruct(x:ptr(), 3)
    for i = 0, 3 * 7 * 5 - 1 do assert.equal(y:contiguous():ptr()[i], out[i]) end
    assert.same({ "encoder1.weight_ih_l0", "encoder1.weight_hh_l0" }, { model:named_parameters()[1].name, model:named_parameters()[2].name })
  end)

  it("the same seed gives the same weights", function()
    local function first(seed) return anomaly.autoencoder.new({ input = 5, window = 7, seed = seed }):parameters()[1]:get(1, 1) end
    assert.equal(first(3), first(3))
    assert.are_not.equal(first(3), first(4))
  end)

  it("task reverse gives the window backwards, reconstructed in the order of time", function()
    local model = anomaly.autoencoder.new { input = 2, window = 5, hidden = { 4 }, latent = 2, task = "reverse", seed = 3 }
    local x = lr.randn({ 3, 5, 2 }, { seed = 4 })
    local y, out = model(x):contiguous():ptr(), model:reconstruct(x:ptr(), 3)
    for k = 0, 2 do
      for t = 0, 4 do assert.equal(y[(k * 5 + 4 - t) * 2 + 1], out[(k * 5 + t) * 2 + 1]) end
    end
    assert.equal(0, model:scored_from())
  end)

  it("task predict gives the last third from the first two, and is scored there alone", function()
    local model = anomaly.autoencoder.new { input = 2, window = 7, hidden = { 4 }, latent = 2, task = "predict", seed = 3 }
    local x = lr.randn({ 3, 7, 2 }, { seed = 4 })
    assert.equal(4, model:scored_from())
    local y = model(x:narrow(2, 1, 4):contiguous())
    assert.same({ 3, 3, 2 }, y.shape)
    local out, p = model:reconstruct(x:ptr(), 3), y:contiguous():ptr()
    for k = 0, 2 do
      for i = 0, 7 do assert.equal(x:ptr()[k * 14 + i], out[k * 14 + i]) end
      for i = 0, 5 do assert.equal(p[k * 6 + i], out[k * 14 + 8 + i]) end
    end
    x:ptr()[6 * 2] = 99 -- the future does not enter
    assert.equal(p[0], model:reconstruct(x:ptr(), 3)[8])
  end)

  for _, task in ipairs { "reconstruct", "reverse", "predict" } do
    it("learns to " .. task .. " a slow wave", function()
      local values = ffi.new("double[?]", 60 * 2)
      for t = 0, 59 do values[2 * t], values[2 * t + 1] = math.sin(.3 * t), math.cos(.3 * t) end
      local f = { frames = 60, size = 2, joints = 1, per_joint = 2, values = values, names = { "nose" } }
      local w = motion.Windows.of({ f }, { window = 9, post = "none" })
      log.setup { level = "error" }
      local done = anomaly.fit.run {
        train = w, normaliser = w:fit_normaliser(), mask = true, model = { hidden = { 8 }, latent = 4, task = task }, epochs = 12, batch = 13,
        learning_rate = .02, seed = 1, workers = 0, quiet = true,
      }
      log.setup { level = "info" }
      assert.is_true(done.history.train[12] < .5 * done.history.train[1], task)
      local model = { normaliser = w:fit_normaliser(), mask = true, pca = anomaly.baselines.fit(w, w:fit_normaliser(), 2), from = done.model:scored_from(),
        reconstruct = function(x, n) return done.model:reconstruct(x, n) end }
      local s = anomaly.scores.of_sequence(w, 1, model, "wave")
      assert.is_true(s.mean < .6, task)
      assert.equal(task == "predict", s.joint_error[0] ~= s.joint_error[0]) -- no window is scored on its first frames
    end)
  end

  it("refuses sizes by name", function()
    helper.refuses("latent is 0", anomaly.autoencoder.new, { input = 5, window = 7, latent = 0 })
    helper.refuses("hidden holds -3", anomaly.autoencoder.new, { input = 5, window = 7, hidden = { -3 } })
    helper.refuses("hidden wants 1 to 8 layers", anomaly.autoencoder.new, { input = 5, window = 7, hidden = {} })
    helper.refuses('task is "dream"', anomaly.autoencoder.new, { input = 5, window = 7, task = "dream" })
    helper.refuses("window is 1", anomaly.autoencoder.new, { input = 5, window = 1 })
    assert.equal("cpu", (lr.device.choose "cpu"))
    local taken, why = lr.device.choose "cuda:99"
    assert.is_nil(taken)
    assert.truthy(why:find("--device cuda:99 cannot be had: no ", 1, true), why)
    assert.is_truthy((lr.device.choose "auto"))
  end)

  it("numbers without weight change neither loss nor gradient", function()
    local model = anomaly.autoencoder.new { input = 4, window = 5, hidden = { 6 }, latent = 2, seed = 1 }
    local function gradient(value)
      local x, weight = lr.randn({ 2, 5, 4 }, { seed = 2 }), lr.ones { 2, 5, 4 }
      for k = 0, 4 do weight:ptr()[4 * k + 1] = 0 end
      local target = x:clone()
      for k = 0, 4 do target:ptr()[4 * k + 1] = value end
      local tape = lr.tape()
      local loss = lr.mse(model(x), target, weight)
      return loss:item(), tape:gradient(loss, model:parameters())[1]:get(1, 1)
    end
    local a, da = gradient(0)
    local b, db = gradient(1e6)
    assert.equal(a, b)
    assert.equal(da, db)
  end)

  it("f16 and bf16 operands change the training output by at most 2 %, and nothing outside of training", function()
    local model = anomaly.autoencoder.new { input = 5, window = 7, hidden = { 6 }, latent = 3, seed = 3 }
    local x = lr.randn({ 3, 7, 5 }, { seed = 4 })
    local y = model(x)
    for _, half in ipairs { "f16", "bf16" } do
      model:train():half(half)
      local difference, size = helper.difference(y, model(x))
      assert.is_true(difference > 0 and difference <= .02 * size)
      model:eval()
      assert.equal(0, (helper.difference(y, model(x))))
    end
  end)

  it("leaves nothing behind while scoring", function()
    local model = anomaly.autoencoder.new { input = 4, window = 5, hidden = { 6 }, latent = 2, seed = 1 }
    local x = ffi.new("float[?]", 2 * 5 * 4)
    model:reconstruct(x, 2)
    helper.leaves_nothing(function() for _ = 1, 20 do model:reconstruct(x, 2) end end)
  end)
end)

-- PyTorch's training on the check configuration of shared/goldens/autoencoder/README.md section 1. Post window: its table, mean over 3 seeds, held to within
-- 10 % (training sequences 35 %). Post none: the mean and SD over 20 seeds named beforehand (101 to 120), by the same script. There the training is chaotic: 1e-7 on
-- one bias moves sequence 07 by .3, the table's three seeds gave it 1.22 and PyTorch's seeds 101 to 103 give 1.07, so PyTorch would not hold the table's 10 % either.
-- Over the 20 seeds this library, with the same weights and orders of the data, gives 1.043 (SD .111) for PyTorch's 1.050 (.101), with its own 1.063 (.128).
-- Here three seeds stand for all, so a mean may be off by 4 standard errors of three where that is more than 10 % (35 %).
local GOLDEN = {
  none = {
    loss = .147, threshold = { 2.06, 2.32 },
    scores = { .121, .137, .226, 6.352, .072, .167, 1.050, 1.545, 4.738, 1.499, 1.898, 3.750 },
    deviations = { .014, .023, .050, .343, .015, .056, .101, .113, .172, .103, .095, .341 },
  },
  window = {
    loss = .382, threshold = { 3.08, 3.49 },
    scores = { .251, .410, .584, 23.38, .315, .320, .973, 1.733, 14.11, 2.888, 1.570, 2.608 },
  },
}
local TRAINING = { [1] = true, [2] = true, [3] = true, [5] = true, [6] = true }
local SEEDS, EPOCHS = 3, 40

describe("check configuration", function()
  for _, post in ipairs { "none", "window" } do
    local title = "post %s, %d epochs, mean of %d seeds against PyTorch: loss within .06, scores within 10 %% (training sequences 35 %%) or 4 standard errors #slow"
    it(title:format(post, EPOCHS, SEEDS), function()
      local folder = helper.shared("data/anomaly/minirgbd_openpose18")
      if not folder then return pending("needs ../shared") end
      local npy = require "libration.formats.npy"
      local options = { coordinates = "centred", max_gap = math.huge, post = post, mask = false }
      local list = {}
      for i = 1, 12 do
        local id = ("%02d"):format(i)
        list[i] = motion.prepare(motion.Sequence.new { points = assert(npy.load(folder .. "/" .. id .. ".npy")), id = id, width = 640, height = 480 }, options)
      end
      local train = motion.windows({ list[1], list[2], list[3], list[5], list[6] }, options)
      local normaliser = train:fit_normaliser()
      local pca = anomaly.baselines.fit(train, normaliser, 32)
      log.setup { level = "error" }
      local runs = {}
      local function run(seed)
        local fitted = anomaly.fit.run {
          train = train, normaliser = normaliser, mask = false, model = { hidden = { 128, 64 }, latent = 32 }, epochs = EPOCHS, batch = 32,
          learning_rate = 1e-3, seed = seed, quiet = true,
        }
        local model = { normaliser = normaliser, mask = false, pca = pca, reconstruct = function(x, n) return fitted.model:reconstruct(x, n) end }
        local scored, means = {}, {}
        for k = 1, 12 do
          scored[k] = anomaly.scores.of_sequence(motion.windows({ list[k] }, options), 1, model, ("%02d"):format(k))
          means[k] = scored[k].mean
        end
        runs[#runs + 1] = { loss = fitted.history.train[EPOCHS], means = means, limit = anomaly.thresholds.calibrate({ scored[7], scored[8] }, 95).threshold }
      end
      local function mean(pick)
        local sum = 0
        for _, r in ipairs(runs) do sum = sum + pick(r) / #runs end
        return sum
      end
      local golden = GOLDEN[post]
      local function judge()
        local worst, line = 0, {}
        for i = 1, 12 do
          local value = mean(function(r) return r.means[i] end)
          local off = value / golden.scores[i] - 1
          line[i] = ("%02d %.3f (%+.0f %%)"):format(i, value, 100 * off)
          local bound = TRAINING[i] and .35 or .10
          if golden.deviations then bound = math.max(bound, 4 * golden.deviations[i] / math.sqrt(SEEDS) / golden.scores[i]) end
          worst = math.max(worst, math.abs(off) / bound)
        end
        local loss = mean(function(r) return r.loss end)
        line = table.concat(line, ", ")
        print(("\npost %s, %d seeds: training loss %.3f (golden %.3f), threshold %.2f (golden %.2f to %.2f)\n%s"):format(
          post, #runs, loss, golden.loss, mean(function(r) return r.limit end), golden.threshold[1], golden.threshold[2], line))
        return math.abs(loss - golden.loss) <= .06 and worst <= 1, line
      end
      for seed = 1, SEEDS do run(seed) end
      local fits, line = judge()
      log.setup { level = "info" }
      assert.is_true(fits, line)
    end)
  end
end)
