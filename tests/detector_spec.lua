-- Specs of the detector file: what is written reads back, equal bytes for equal detectors, and every field refused by name when it is wrong.
local ffi = require "ffi"
local files = require "libration.files"
local json = require "libration.formats.json"
local lr = require "libration"
local motion = require "libration.motion"
local anomaly = require "libration.anomaly"
local safetensors = require "libration.formats.safetensors"

local NAMES = require("libration.pose.skeletons").get("openpose18").joints

-- A body that sways; `wild` moves more.
local function sequence(id, frames, phase, wild, change)
  local points = lr.zeros({ frames, 18, 3 })
  local p = points:ptr()
  for t = 0, frames - 1 do
    for j = 0, 17 do
      local at = (t * 18 + j) * 3
      p[at] = 160 + 20 * (j % 3) + wild * math.sin(.21 * t + j + phase)
      p[at + 1] = 60 + 9 * j + wild * math.cos(.17 * t + 2 * j + phase)
      p[at + 2] = .9
      if change then change(p, at, t, j) end
    end
  end
  return motion.Sequence.new { points = points, id = id, fps = 25, width = 320, height = 240 }
end

local OPTIONS = motion.options { window = 8, rate = 25 }

local made -- one for all specs: fitting it takes a second without the compiler

local function detector()
  if made then
    local copy = {}
    for k, v in pairs(made) do copy[k] = v end
    return setmetatable(copy, getmetatable(made))
  end
  local list = {}
  for i = 1, 2 do list[i] = motion.prepare(sequence("n" .. i, 40, i, 4), OPTIONS) end
  local w = motion.windows(list, OPTIONS)
  local normaliser = w:fit_normaliser()
  local model = anomaly.autoencoder.new { input = w:width(true), window = 8, hidden = { 6, 5 }, latent = 3, seed = 1 }
  local d = anomaly.detector.new {
    model = model, motion = OPTIONS, skeleton = "openpose18", joints = list[1].track.names, normaliser = normaliser,
    pca = anomaly.baselines.fit(w, normaliser, 4), training = { sequences = { { id = "n1", sha256 = ("a"):rep(64) } }, population = "2 spec sequences" },
    about = { seed = 1 },
  }
  local scored = {}
  for i = 3, 5 do
    local f = motion.prepare(sequence("n" .. i, 40, i, 4), OPTIONS)
    scored[#scored + 1] = anomaly.scores.of_sequence(motion.windows({ f }, OPTIONS), 1, d:scorer(), "n" .. i)
    scored[#scored].sha256 = ("%x"):format(i):rep(64)
  end
  d.calibration = anomaly.thresholds.calibrate(scored, 95, anomaly.scores.explained(scored))
  made = d
  return d
end

local function saved(d)
  local folder = files.temporary_folder()
  local path = d:save(folder .. "/detector.safetensors")
  return path, folder
end

describe("detector file", function()
  it("reads back: same scores, same verdict, same calibration", function()
    local d = detector()
    local path, folder = saved(d)
    local e = assert(anomaly.detector.load(path))
    files.remove(folder)
    local s = sequence("x", 50, .5, 9)
    local a, b = d:score(s), e:score(s)
    assert.equal(43, a.windows)
    for i = 1, a.windows do assert.equal(a.error[i], b.error[i]) end
    assert.is_near(a.mean_pca, b.mean_pca, 1e-9)
    assert.equal(d.calibration.threshold, e.calibration.threshold)
    assert.equal(d.calibration.limit, e.calibration.limit)
    local v, w = d:judge(a), e:judge(b)
    assert.equal(v.word, w.word)
    assert.equal(v.p, w.p)
    assert.same(d.motion, e.motion)
    assert.same(d.calibration.sequences, e.calibration.sequences)
    assert.equal("2 spec sequences", e.training.population)
  end)

  it("files of the first version still load: without starts, without the later columns of the calibration", function()
    local d = detector()
    local path, folder = saved(d)
    local tensors, metadata = safetensors.load(path)
    local settings = json.decode(metadata["libration.detector"])
    local wide, narrow = tensors["calibration.sequences"], lr.empty({ 3, 10 }, "f64")
    for i = 0, 2 do for k = 0, 9 do narrow:ptr()[10 * i + k] = wide:ptr()[wide.shape[2] * i + k] end end
    tensors["calibration.sequences"], tensors["calibration.starts"] = narrow, nil
    local first = json.list()
    for k = 1, 10 do first[k] = settings.calibration.columns[k] end
    settings.calibration.columns = first
    metadata["libration.detector"] = json.encode(settings)
    safetensors.save(path, tensors, metadata)
    local old, s = assert(anomaly.detector.load(path)), sequence("x", 50, .5, 9)
    files.remove(folder)
    assert.equal(d:judge((d:score(s))).p, old:judge((old:score(s))).p)
    assert.same(d:judge((d:score(s)), { unit = "block", block = .8 }).blocks, old:judge((old:score(s)), { unit = "block", block = .8 }).blocks)
    local p = {}
    for _, m in ipairs(anomaly.measures.of(old.calibration, (old:score(s)))) do p[m.key] = m.p or false end
    assert.is_false(p.log_sd)
    assert.truthy(p.ratio)
  end)

  it("equal detectors give equal bytes", function()
    local a, folder_a = saved(detector())
    made = nil
    local b, folder_b = saved(detector())
    assert.equal(files.read(a), files.read(b))
    files.remove(folder_a)
    files.remove(folder_b)
  end)

  it("no limit of gaps survives the file", function()
    local d = detector()
    d.motion = motion.options { window = 8, rate = 25, max_gap = math.huge }
    local path, folder = saved(d)
    assert.equal(math.huge, assert(anomaly.detector.load(path)).motion.max_gap)
    files.remove(folder)
  end)

  it("refuses a sequence of another skeleton", function()
    local s = motion.Sequence.new { points = lr.ones({ 40, 17, 3 }), id = "coco" }
    local ok, err = pcall(function() detector():score(s) end)
    assert.is_false(ok)
    assert.matches("its skeleton is coco17, the detector's openpose18", err, 1, true)
  end)

  -- One changed thing, and what the reader must say.
  local function broken(want, change)
    local path, folder = saved(detector())
    local tensors, metadata = safetensors.load(path)
    local settings = json.decode(metadata["libration.detector"])
    local replaced = change(tensors, settings, metadata)
    if replaced ~= false then metadata["libration.detector"] = replaced or json.encode(settings) end
    safetensors.save(path, tensors, metadata)
    local d, reason = anomaly.detector.load(path)
    files.remove(folder)
    assert.is_nil(d)
    assert.matches(want, reason, 1, true)
    assert.is_nil(reason:find("\n"))
    assert.matches("detector.safetensors: ", reason, 1, true)
  end

  it("refuses hostile settings by name", function()
    broken("no detector", function(_, _, m) m["libration.detector"] = nil return false end)
    broken("no JSON object", function() return "{" end)
    broken("format is 9", function(_, s) s.format = 9 end)
    broken("motion.window is", function(_, s) s.motion.window = 1e9 end)
    broken("motion.window is 8.5", function(_, s) s.motion.window = 8.5 end)
    broken("motion.rate is", function(_, s) s.motion.rate = -1 end)
    broken("motion.gaps is a number", function(_, s) s.motion.gaps = 7 end)
    broken('motion.post is "sum"', function(_, s) s.motion.post = "sum" end)
    broken("motion.joints is missing", function(_, s) s.motion.joints = nil end)
    broken("motion.shell is not known", function(_, s) s.motion.shell = "rm" end)
    broken('skeleton "octopus" is not known', function(_, s) s.skeleton = "octopus" end)
    broken("stands twice", function(_, s) s.joints[2] = s.joints[1] end)
    broken("joints is empty", function(_, s) s.joints = json.list() end)
    broken("calibration.sequences is empty", function(_, s) s.calibration.sequences = json.list() end)
    broken("calibration.columns: shell is not known", function(_, s) s.calibration.columns[11] = "shell" end)
    broken("calibration.columns has mean at 10, want mean_variance", function(_, s) s.calibration.columns[10] = "mean" end)
    broken("training.population is missing", function(_, s) s.training.population = nil end)
    broken("latent", function(_, s) s.model.latent = 1e6 end)
    broken("hidden", function(_, s) s.model.hidden = { -1 } end)
  end)

  it("refuses hostile tensors by name", function()
    broken("tensor 'normaliser.mean' is missing", function(t) t["normaliser.mean"] = nil end)
    broken("tensor 'normaliser.sd' is f64 [3], want f64 [28]", function(t) t["normaliser.sd"] = lr.ones({ 3 }, "f64") end)
    broken("normaliser.sd is 0 at 5", function(t) t["normaliser.sd"]:ptr()[4] = 0 end)
    broken("normaliser.mean holds nan", function(t) t["normaliser.mean"]:ptr()[4] = 0 / 0 end)
    broken("threshold is nan", function(t) t["calibration.threshold"]:ptr()[0] = 0 / 0 end)
    broken("limit is 7", function(t) t["calibration.threshold"]:ptr()[1] = 7 end)
    broken("calibration.windows has 5 errors", function(t) t["calibration.windows"] = lr.ones({ 5 }, "f64") end)
    broken("calibration.starts holds -1 at 1", function(t) t["calibration.starts"]:ptr()[0] = -1 end)
    broken("tensor 'calibration.sequences' is f64 [1,1]", function(t) t["calibration.sequences"] = lr.ones({ 1, 1 }, "f64") end)
    broken("tensor 'pca.components' is f32 [4,7]", function(t) t["pca.components"] = lr.ones({ 4, 7 }) end)
    broken("the PCA holds", function(t) t["pca.mean"]:ptr()[0] = math.huge end)
    local function first(t)
      local names = {}
      for name in pairs(t) do if name:find("^model%.") then names[#names + 1] = name end end
      table.sort(names)
      return names[1]
    end
    broken("model", function(t) t[first(t)] = nil end)
    broken("model", function(t) t[first(t)] = lr.ones({ 2, 2 }) end)
    broken("model", function(t) t["model.more"] = lr.ones({ 2 }) end)
    broken("model", function(t) local w = t[first(t)] w:ptr()[0] = 0 / 0 end)
  end)

  it("refuses other files", function()
    local folder = files.temporary_folder()
    files.write(folder .. "/d.safetensors", "a text")
    for _, path in ipairs { folder .. "/d.safetensors", folder .. "/none", folder } do
      local d, reason = anomaly.detector.load(path)
      assert.is_nil(d)
      assert.is_nil(reason:find("\n"))
    end
    files.remove(folder)
  end)
end)

describe("z and world coordinates", function()
  it("change no score", function()
    local d = detector()
    local points = lr.zeros({ 40, 18, 5 })
    local from, to = sequence("x", 40, 2, 5).points:ptr(), points:ptr()
    for i = 0, 40 * 18 - 1 do to[5 * i], to[5 * i + 1], to[5 * i + 2], to[5 * i + 3], to[5 * i + 4] = from[3 * i], from[3 * i + 1], 0, .9, .9 end
    local a = d:score(motion.Sequence.new { points = points, id = "a", width = 320, height = 240 })
    for i = 0, 40 * 18 - 1 do to[5 * i + 2] = 1e4 * math.sin(i) end
    local s = motion.Sequence.new { points = points, id = "a", width = 320, height = 240 }
    s.world = lr.full({ 40, 18, 3 }, 9)
    local b = d:score(s)
    for i = 1, a.windows do
      assert.equal(a.error[i], b.error[i])
      assert.equal(a.pca[i], b.pca[i])
      assert.equal(a.speed[i], b.speed[i])
    end
  end)
end)

describe("missing joints", function()
  it("count neither in the loss mask nor in the score", function()
    local d = detector()
    local s = sequence("holes", 40, 1, 5, function(p, at, t, j)
      if j == 4 and t >= 5 then p[at] = 0 / 0 end
    end)
    -- gaps of more than a second stay
    local a = d:score(s)
    assert.equal(33, a.windows)
    local wrist
    for i, name in ipairs(a.joints) do if name == NAMES[5] then wrist = i - 1 end end
    assert.is_true(a.joint_error[35 * #a.joints + wrist] ~= a.joint_error[35 * #a.joints + wrist])
    for _, e in ipairs(a.error) do assert.is_true(e == e and e < math.huge) end
    assert.is_true(ffi.istype("double[?]", a.joint_error))
  end)
end)
