-- device_train_spec.lua: training, scoring, mixed precision and recording on a CUDA device (or its emulation) against the CPU, and what happens when it is lost.
local ffi = require "ffi"
local lr = require "libration"
local helper = require "helper"
local files = require "libration.files"
local log = require "libration.log"
local anomaly, motion = require "libration.anomaly", require "libration.motion"
local nn, optim, train = require "libration.nn", require "libration.optim", require "libration.train"

local function absent() return lr.device.count() == 0 and pending(select(2, lr.device.count())) end

-- Features of a body of three joints that sways; some numbers missing.
local function swaying(frames, seed)
  local f = { frames = frames, size = 6, joints = 3, per_joint = 2, values = ffi.new("double[?]", frames * 6) }
  for t = 0, frames - 1 do
    for d = 0, 5 do f.values[t * 6 + d] = (t * 6 + d) % 37 == 5 and 0 / 0 or math.sin(t * .5 + d + seed) + .1 * math.cos(1.7 * t + d * seed) end
  end
  return f
end

local function windows(seed, stride) return motion.Windows.of({ swaying(22, seed), swaying(17, seed + 1) }, { window = 5, stride = stride or 3 }) end

local function fitted(device, amp, more)
  local w = windows(1)
  local o = {
    train = w, watch = windows(5), normaliser = w:fit_normaliser(), mask = true, model = { hidden = { 5, 3 }, latent = 2 }, epochs = 3, batch = 8,
    learning_rate = 1e-2, patience = 0, seed = 2, workers = 0, quiet = true, device = device, amp = amp,
  }
  for k, v in pairs(more or {}) do o[k] = v end
  return anomaly.fit.run(o), o
end

local function scored(fit, o)
  local w = windows(9, 1)
  return anomaly.scores.of_sequence(w, 1, {
    normaliser = o.normaliser, mask = true, pca = anomaly.baselines.fit(w, o.normaliser, 3), from = fit.model:scored_from(), network = fit.model,
    reconstruct = function(x, n) return fit.model:reconstruct(x, n) end,
  }, "a")
end

describe("training", function()
  setup(function() log.setup { level = "error" } end)
  teardown(function() log.setup { level = "info" } end)

  it("in f16 and bf16 ends within 3 % of f32 on the CPU, with f32 weights", function()
    local plain = fitted("cpu")
    for _, half in ipairs { "f16", "bf16" } do
      local narrow = fitted("cpu", half)
      local a, b = plain.history.validation[3], narrow.history.validation[3]
      assert.is_true(math.abs(a - b) <= .03 * a, ("%s: %g, f32 %g"):format(half, b, a))
      for _, p in ipairs(narrow.model:parameters()) do assert.equal("f32", p.dtype) end
    end
  end)

  it("survives an f16 overflow in the first step: it is skipped, the loss scale falls", function()
    nn.seed(1)
    local model = nn.Linear(4, 4)
    local optimizer = optim.Adam(model, { scaler = optim.scaler { initial = 2 ^ 40 } })
    local before = model.weight:clone()
    local step = train.step(model, optimizer, function(m, x) return lr.mse(m(x:to "f16"):to "f32", x) end)
    local x = lr.randn({ 6, 4 }, { seed = 3 })
    step(x)
    assert.equal(0, (helper.difference(before, model.weight)))
    assert.equal(1, optimizer:report().overflows)
    for _ = 1, 40 do step(x) end
    assert.is_true(optimizer:report().steps > 0)
    assert.is_true(helper.difference(before, model.weight) > 0)
  end)

  it("keeps the loss scale's state apart from that of a run without one", function()
    local model = nn.Linear(3, 2)
    local scaled, plain = optim.Adam(model, { scaler = optim.scaler() }), optim.Adam(model)
    plain:load_state_dict(scaled:state_dict())
    assert.equal(1, plain:report().scale)
    scaled:load_state_dict(plain:state_dict())
    assert.equal(65536, scaled:report().scale)
  end)
end)

describe("device training", function()
  local folder
  setup(function()
    log.setup { level = "error" }
    folder = files.temporary_folder()
  end)
  teardown(function()
    log.setup { level = "info" }
    files.remove(folder)
  end)

  it("gives the CPU's losses and scores within 1e-4; f16 and bf16 within 3 % #slow", function()
    if absent() then return end
    local cpu, o = fitted("cpu")
    local want = scored(cpu, o)
    for _, how in ipairs { { "cuda:0", nil, 1e-4 }, { "cuda:0", "f16", .03 }, { "cuda:0", "bf16", .03 } } do
      local gpu = fitted(how[1], how[2])
      assert.equal("cuda:0", gpu.model:device())
      for e = 1, 3 do assert.is_true(math.abs(gpu.history.validation[e] - cpu.history.validation[e]) <= how[3] * cpu.history.validation[e]) end
      local have = scored(gpu, o)
      assert.equal(want.windows, have.windows)
      for i, e in ipairs(want.error) do assert.is_true(math.abs(have.error[i] - e) <= 2 * how[3] * e) end
      for i, e in ipairs(want.frame_error) do assert.is_true(e ~= e or math.abs(have.frame_error[i] - e) <= 2 * how[3] * e) end
    end
  end)

  it("resumes on the other device: checkpoints know none #slow", function()
    if absent() then return end
    for i, order in ipairs { { "cpu", "cuda:0" }, { "cuda:0", "cpu" } } do
      local into = folder .. "/" .. i
      fitted(order[1], nil, { folder = into, epochs = 1 })
      local on = fitted(order[2], nil, { folder = into, epochs = 3, resume = true })
      local whole = fitted("cpu")
      for e = 1, 3 do assert.is_near(whole.history.train[e], on.history.train[e], 1e-4) end
    end
  end)

  it("a replayed step gives the eager step's bits, and compare finds nothing between cpu and cuda", function()
    if absent() then return end
    local function model()
      nn.seed(4)
      return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)):to "cuda"
    end
    local a, b = model(), model()
    local loss = function(m, x) return lr.mse(m(x), x) end
    local recorded = train.step(a, optim.Adam(a, { clip = 1 }), loss)
    local eager = train.step(b, optim.Adam(b, { clip = 1 }), loss, { eager = true })
    for i = 1, 3 do
      local x = lr.randn({ 4, 3 }, { seed = i }):to "cuda"
      assert.equal(eager(x):item(), recorded(x):item())
    end
    for name, t in pairs(a:state_dict()) do assert.same(t:totable(), b:state_dict()[name]:totable()) end
    assert.is_nil(lr.compare(recorded, "cpu", "cuda", 1e-4))
    assert.is_table(lr.compare(recorded, "cpu", "cuda", -1))
    helper.refuses("cannot be read while recording", lr.record(function(x) return x:item() end), lr.ones({ 1 }, "f32", "cuda"))
  end)

  it("a device that is lost ends the run in one line, the checkpoint stays, and the run goes on from it #slow", function()
    if absent() then return end
    local emulator = helper.emulator()
    if not emulator then return pending "only an emulated device can be lost" end
    local into = folder .. "/lost"
    local ok, why = pcall(fitted, "cuda:0", nil, { folder = into, on_epoch = function(row) if row.epoch == 2 then emulator.lbr_emu_lose_device(1) end end })
    emulator.lbr_emu_heal()
    assert.is_false(ok)
    assert.is_nil(tostring(why):find("\n", 1, true), why)
    assert.is_nil(tostring(why):find("out of memory", 1, true), why)
    assert.is_true(files.exists(into .. "/last.safetensors"))
    local on, whole = fitted("cuda:0", nil, { folder = into, resume = true }), fitted("cuda:0")
    for e = 1, 3 do assert.equal(whole.history.train[e], on.history.train[e]) end
  end)

  it("says what was asked for, live, free and there when the device's memory is full; the next allocation works", function()
    if absent() then return end
    local ok, why = pcall(lr.empty, { 2 ^ 30 }, "f64", "cuda:0")
    if ok then return pending "this device has room for 8 GiB" end
    assert.matches("out of memory on cuda:0: %d+ bytes wanted, %d+ live, %d+ cached, %d+ free of %d+; a smaller batch wants less", why)
    assert.equal(3, lr.full({ 1 }, 3, "f32", "cuda:0"):item())
    assert.is_true(lr.memory("cuda:0").total > 0)
  end)
end)
