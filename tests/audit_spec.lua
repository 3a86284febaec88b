-- Specs of the audit: every finding by a forged data set, none by a clean one; copies across the parts refused by name, also where they share no byte.
local ffi = require "ffi"
local files = require "libration.files"
local helper = require "helper"
local lr = require "libration"
local data = require "libration.data"
local dice = require "libration.data.dice"
local Sequence = require "libration.motion.sequence"
local near = require "libration.data.near_duplicates"

-- A data set of n sequences of `frames` pictures (bytes, no pictures: nothing here is decoded), their content by `text`, with labels.csv where given.
local function forged(n, want, text, labels, options)
  local folder = files.temporary_folder()
  for i = 1, n do
    files.mkdirs(("%s/%02d/rgb"):format(folder, i))
    for frame = 0, 19 do
      local file = assert(io.open(("%s/%02d/rgb/syn_%05d.png"):format(folder, i, frame), "wb"))
      file:write(text and text(i, frame) or ("%d %d"):format(i, frame))
      file:close()
    end
  end
  if labels then files.write(folder .. "/labels.csv", labels) end
  options = options or {}
  local set = assert(data.dataset.open(folder))
  options.dataset = set
  local split, reason = data.splits.resolve(set, want, options)
  local a
  if split then a, reason = data.audit.run(split, options) end
  files.remove(folder)
  return a, reason, set
end

local function finding(a, code)
  for _, f in ipairs(a.findings) do if f.code == code then return f end end
end

local function codes(a)
  local list = {}
  for i, f in ipairs(a.findings) do list[i] = f.code end
  return table.concat(list, " ")
end

local CLEAN = "sequence,label,subject,age_weeks\n01,0,a,10\n02,0,b,11\n03,0,c,12\n"
local THREE = { train = "1", validate = "2", test = "3" }
local MINI_RGBD = "sequence,label\n01,0\n02,0\n03,0\n04,1\n05,0\n06,0\n07,0\n08,0\n09,1\n10,1\n11,0\n12,1\n"

describe("audit", function()
  it("passes a clean split: no error, no warning, numbers as notes, checksums", function()
    local a = assert(forged(3, THREE, nil, CLEAN))
    assert.same({}, data.audit.texts(a))
    assert.equal("few-calibration few-tests", codes(a))
    assert.is_false(a.leak)
    assert.is_nil(data.audit.stamp(a))
    assert.equal("train: 1 sequence (01)", a.lines[1])
    assert.equal(64, #a.content.test[1].sha256)
  end)

  it("refuses an id in two parts, or goes on with a stamp", function()
    local want = { train = "1,2", validate = "2", test = "3" }
    local a, reason = forged(3, want, nil, CLEAN)
    assert.is_nil(a)
    assert.matches("^sequence 02 is in both %-%-train and %-%-validate; the parts may not overlap %(%-%-allow%-leak", reason)
    a = assert(forged(3, want, nil, CLEAN, { allow_leak = true }))
    assert.is_true(a.leak)
    assert.equal("error", finding(a, "shared-id").level)
    assert.equal("LEAK ALLOWED: sequence 02 is in both train and validate", data.audit.stamp(a))
    assert.is_true(data.audit.page(a).leak)
  end)

  it("refuses a copy under another id, or goes on with a stamp", function()
    local function copy(i, f) return (i == 3 and 1 or i) .. " " .. f end
    local a, reason = forged(3, THREE, copy)
    assert.is_nil(a)
    assert.matches("sequences 01 (train) and 03 (test) have the same content; the parts may not overlap", reason, 1, true)
    a = assert(forged(3, THREE, copy, nil, { allow_leak = true }))
    assert.equal("LEAK ALLOWED: sequences 01 (train) and 03 (test) have the same content", data.audit.stamp(a))
  end)

  it("refuses shared pictures beyond 5 % and mentions fewer", function()
    local function some(count)
      return function(i, f) return f < count and tostring(f) or i .. " " .. f end
    end
    local a, reason = forged(2, { train = "1", validate = "2" }, some(2))
    assert.is_nil(a)
    assert.matches("sequences 01 (train) and 02 (validate) share 2 of 20 pictures", reason, 1, true)
    a = assert(forged(2, { train = "1", validate = "2" }, some(1)))
    assert.matches("share 1 identical picture", finding(a, "some-pictures").text, 1, true)
  end)

  it("a copy inside one part is a warning", function()
    local a = assert(forged(3, { train = "1,2", validate = "3" }, function(i, f) return math.max(i, 2) .. " " .. f end))
    assert.matches("sequences 01 (train) and 02 (train) have the same content", finding(a, "twice").text, 1, true)
    assert.is_false(a.leak)
  end)

  it("the split 1-8 / 9,10 / 11,12 on MINI-RGBD's labels: one warning, what is wrong and the legal split to paste", function()
    local a = assert(forged(12, { train = "1-8", validate = "9,10", test = "11,12" }, nil, MINI_RGBD))
    local texts = data.audit.texts(a)
    assert.equal(1, #texts)
    assert.matches("trains on abnormal 04, calibrates the threshold on abnormal 09, 10, tests 1 normal and 1 abnormal", texts[1], 1, true)
    assert.matches(": %-%-train 1%-3,5%-6 %-%-validate 7,8 %-%-test 4,9%-12$", texts[1])
    local legal = assert(forged(12, { train = "1-3,5-6", validate = "7,8", test = "4,9-12" }, nil, MINI_RGBD))
    assert.same({}, data.audit.texts(legal))
  end)

  it("refuses one person in two parts, names who has recordings of both kinds", function()
    local labels = "subject,age_weeks,sequence,label\nanna,3,01,0\nanna,4,02,0\n"
    local a, reason = forged(2, { train = "1", validate = "2" }, nil, labels)
    assert.is_nil(a)
    assert.matches("subject anna is in both 01 (train) and 02 (validate); the parts may not overlap", reason, 1, true)
    a = assert(forged(2, { train = "1", validate = "2" }, nil, labels, { allow_leak = true }))
    assert.equal("error", finding(a, "shared-subject").level)
    a = assert(forged(4, { train = "1", validate = "2", test = "3,4" }, nil, "sequence,label,subject\n01,0,a\n02,0,b\n03,0,c\n04,1,c\n"))
    assert.matches("subject c has normal and abnormal recordings (03, 04)", finding(a, "subject-of-both-kinds").text, 1, true)
  end)

  it("labels: none, some missing, some of nobody", function()
    local a = assert(forged(3, THREE))
    assert.equal("note", finding(a, "no-labels").level)
    a = assert(forged(3, THREE, nil, "sequence,label\n01,0\n02,\n7,1\n"))
    assert.matches("2 recordings without a label: 02 (validate), 03 (test)", finding(a, "unlabelled").text, 1, true)
    assert.matches("labels.csv names sequences that the data folder does not have: 7", finding(a, "unknown-label").text, 1, true)
  end)

  it("each left out in its turn: nothing may be shared by two of them but by the recordings of one person", function()
    local a, reason = forged(2, { train = "1", validate = "2" }, function(_, f) return tostring(f) end, "sequence,label,subject\n01,0,a\n02,0,a\n", { allow_leak = true })
    assert.is_string(a and "", reason)
    local e = { a.rows[1].entry, a.rows[2].entry }
    assert.equal("twice", codes(assert(data.audit.left_out(e))))
    e[2].subject = "b"
    local b
    b, reason = data.audit.left_out(e)
    assert.is_nil(b)
    assert.matches("sequences 01 and 02 have the same content", reason, 1, true)
  end)

  it("audit.txt holds the verdict, what was looked at and what was found", function()
    local folder = files.temporary_folder()
    local a = assert(forged(3, THREE, nil, CLEAN))
    local text = files.read(data.audit.write(folder .. "/audit.txt", a))
    assert.matches("verdict: nothing found", text, 1, true)
    assert.matches("content: 3 checksums, none in two parts", text, 1, true)
    data.audit.add(a, "warning", "unlabelled", "one")
    assert.matches("verdict: 1 warning\n", files.read(data.audit.write(folder .. "/audit.txt", a)), 1, true)
    data.audit.add(a, "error", "shared-id", "two")
    a.leak = true
    assert.matches("LEAK ALLOWED: two\n.*error    shared%-id", files.read(data.audit.write(folder .. "/audit.txt", a)))
    files.remove(folder)
  end)
end)

describe("audit of a detector", function()
  local function detector(change)
    local d = {
      training = { sequences = { { id = "n1", sha256 = ("a"):rep(64), subject = data.audit.subject_key "anna" }, { id = "n2", sha256 = ("b"):rep(64) } },
        ages = { least = 10, most = 14, known = 2, of = 2 } },
      calibration = { sequences = {} }, about = { fitted = { normaliser = { "n1", "n2" } } },
    }
    for i = 1, 20 do d.calibration.sequences[i] = { id = "c" .. i, sha256 = ("%064d"):format(i) } end
    if change then change(d) end
    return d, data.audit.of_detector(d)
  end

  it("finds nothing in a clean one", function()
    local _, a = detector()
    assert.equal("", codes(a))
  end)

  it("finds a stamp, shared sequences, a strange normaliser, abnormal normals, few calibration recordings", function()
    local function found(code, change)
      local _, a = detector(change)
      assert.equal(code, codes(a))
      return a
    end
    assert.equal("LEAK ALLOWED: x is in both", data.audit.stamp(found("leak", function(d) d.about.leak = { "x is in both" } end)))
    found("shared-content", function(d) d.calibration.sequences[3].sha256 = ("a"):rep(64) end)
    assert.matches("fitted on sequences that did not train it: c4",
      found("normaliser", function(d) d.about.fitted.normaliser[2] = "c4" end).findings[1].text, 1, true)
    found("normaliser-unknown", function(d) d.about.fitted = nil end)
    found("abnormal-as-normal", function(d) d.calibration.sequences[1].label = 1 end)
    found("few-calibration", function(d) d.calibration.sequences[20] = nil end)
  end)

  it("warns of what is scored as if it were new, and of ages it does not know", function()
    local d, a = detector()
    local function of(input, code)
      local b, texts = data.audit.input(a, d, input)
      assert.equal(code, codes(b))
      return texts[1]
    end
    local age = 12
    assert.is_nil(of({ id = "x", sha256 = ("f"):rep(64), age_weeks = age }, ""))
    assert.matches("x is the detector's calibration sequence c7: its score does not count as new",
      of({ id = "x", sha256 = ("%064d"):format(7), age_weeks = age }, "scored-as-new"), 1, true)
    assert.matches("x is the detector's training sequence n1", of({ id = "x", sha256 = ("a"):rep(64), age_weeks = age }, "scored-as-new"), 1, true)
    assert.is_nil(of({ id = "n2", sha256 = ("f"):rep(64), age_weeks = age }, "known-name"))
    assert.matches("x shows the person of the detector's training sequence n1", of({ id = "x", subject = "anna", age_weeks = age }, "known-subject"), 1, true)
    assert.matches("x is 20 weeks old, the training recordings are of 10 to 14 weeks", of({ id = "x", age_weeks = 20 }, "age"), 1, true)
    assert.is_nil(of({ id = "x" }, "age-unknown"))
    d.training.ages = nil
    assert.is_nil(of({ id = "x", age_weeks = 20 }, ""))
    assert.equal("", codes(a))
  end)
end)

describe("calibration by subject", function()
  it("counts a subject once: each of k recordings is 1/k of one", function()
    local conformal = require("libration.motion.statistics").conformal
    local p, smallest = conformal({ 1, 2, 3, 4 }, 2.5, false, { "a", "b", "b", "b" })
    assert.is_near((1 + 2 / 3) / 3, p, 1e-12)
    assert.equal(1 / 3, smallest)
    p, smallest = conformal({ 1, 2, 3, 4 }, 9, true, { "a", "b", "b", "b" })
    assert.equal(2 / 3, p)
    assert.equal(2 / 3, smallest)
    local thresholds = require "libration.anomaly.thresholds"
    local groups, n = thresholds.groups { sequences = { { subject = "a" }, {}, { subject = "a" }, {} } }
    assert.equal(3, n)
    assert.equal(groups[1], groups[3])
    assert.equal("against 3 calibration subjects", thresholds.unit { unit = { kind = "video", calibration = n, subjects = true } })
  end)
end)

-- A body of 18 points whose limbs swing; `seed` decides how.
local function moving(seed, frames, from, change)
  local points = lr.zeros { frames, 18, 3 }
  local p, rng = points:ptr(), dice.new(seed, 1)
  local base, swing = {}, {}
  local home = { { 320, 80 }, { 320, 140 }, { 270, 140 }, { 240, 190 }, { 220, 240 }, { 370, 140 }, { 400, 190 }, { 420, 240 }, { 290, 280 }, { 270, 340 }, { 260, 400 },
    { 350, 280 }, { 370, 340 }, { 380, 400 }, { 310, 70 }, { 330, 70 }, { 300, 80 }, { 340, 80 } }
  for j = 1, 18 do
    base[j], swing[j] = home[j], {}
    local reach = (j == 2 or j == 3 or j == 6 or j == 9 or j == 12) and 2 or 30
    for k = 1, 4 do swing[j][k] = { reach * rng:uniform(0, 1), .3 + 1.5 * rng:uniform(0, 1), 6.3 * rng:uniform(0, 1), rng:uniform(0, 1) - .5, rng:uniform(0, 1) - .5 } end
  end
  for t = 0, frames - 1 do
    for j = 1, 18 do
      local x, y = base[j][1], base[j][2]
      for _, s in ipairs(swing[j]) do
        local v = s[1] * math.sin(6.2832 * s[2] * (t + from) / 25 + s[3])
        x, y = x + s[4] * v, y + s[5] * v
      end
      local at = (t * 18 + j - 1) * 3
      if change then x, y = change(x, y, t, j) end
      p[at], p[at + 1], p[at + 2] = x, y, .9
    end
  end
  return Sequence.new { points = points, id = tostring(seed), skeleton = "openpose18", fps = 25, width = 640, height = 480 }
end

describe("near-duplicates of landmarks", function()
  local original = near.of_sequence(moving(1, 200, 0))

  it("a shifted cut with noise, moved and rescaled, is a copy; so is a mirrored one", function()
    local noise = dice.new(9, 9)
    local d = near.compare(original, near.of_sequence(moving(1, 120, 37, function(x, y)
      return 100 + .5 * (x + 3 * (noise:uniform(0, 1) - .5)), 30 + .5 * (y + 3 * (noise:uniform(0, 1) - .5))
    end)))
    assert.is_true(d.alike)
    assert.is_true(d.score > .8)
    assert.is_near(1.5, d.from[1] - d.from[2], .11)
    assert.is_false(d.mirrored)
    local left = { [3] = 6, [4] = 7, [5] = 8, [9] = 12, [10] = 13, [11] = 14, [15] = 16, [17] = 18 }
    for a, b in pairs(left) do left[b] = a end
    local s, m = moving(1, 200, 0), moving(1, 200, 0)
    local p, q = s.points:ptr(), m.points:ptr()
    for t = 0, 199 do
      for j = 1, 18 do
        local from, to = (t * 18 + (left[j] or j) - 1) * 3, (t * 18 + j - 1) * 3
        q[to], q[to + 1] = 640 - p[from], p[from + 1]
      end
    end
    d = near.compare(original, near.of_sequence(m))
    assert.is_true(d.alike and d.mirrored)
    assert.is_true(s ~= nil)
  end)

  it("other movement is none, standing still is none", function()
    for seed = 2, 4 do
      local d = near.compare(original, near.of_sequence(moving(seed, 200, 0)))
      assert.is_false(d.alike)
      assert.is_true(d.score < .45, d.score)
    end
    local still = near.of_sequence(moving(1, 200, 0, function(_, _, _, j) return 300 + 10 * j, 100 + (j * 37) % 200 end))
    assert.is_false(near.compare(still, still).alike)
  end)

  it("the key points of MINI-RGBD: no two are alike, a cut with noise of 3 pixels is found in each #slow", function()
    if not helper.shared "data/anomaly/minirgbd_openpose18/01.npy" then return pending "needs ../shared" end
    local prints, noise = {}, dice.new(3, 3)
    local largest, least = -1, 1
    for i = 1, 12 do
      local s = assert(data.dataset.read_landmarks(helper.shared(("data/anomaly/minirgbd_openpose18/%02d.npy"):format(i)), { fps = 25, width = 640, height = 480 }))
      prints[i] = near.of_sequence(s, { coordinates = "centred" })
      for k = 1, i - 1 do
        local d = near.compare(prints[k], prints[i])
        assert.is_false(d.alike)
        largest = math.max(largest, d.score)
      end
      local cut = lr.zeros { 200, 18, 3 }
      local p, q = s.points:ptr() + 61 * 54, cut:ptr()
      for n = 0, 200 * 54 - 1 do
        q[n] = p[n] + (n % 3 < 2 and (noise:uniform(0, 1) + noise:uniform(0, 1) + noise:uniform(0, 1) - 1.5) * 6 / (n % 3 == 0 and 640 or 480) or 0)
      end
      local d = near.compare(prints[i], near.of_sequence(
        Sequence.new { points = cut, id = "cut", skeleton = "openpose18", fps = 25, width = 640, height = 480 }, { coordinates = "centred" }))
      assert.is_true(d.alike)
      least = math.min(least, d.score)
    end
    assert.is_true(largest < .45 and least > .6, ("different %.2f, copies %.2f"):format(largest, least))
  end)
end)

-- A film of a textured room in which two bright patches wander; `seed` decides how. light(t): gain and offset.
local function filmed(path, seed, frames, options)
  local media = require "libration.media"
  options = options or {}
  local W, H, noise = options.width or 64, options.height or 48, options.noise or 0
  local rng = dice.new(seed, 1)
  local waves = {}
  for k = 1, 4 do waves[k] = { rng:uniform(.2, 1.3), rng:uniform(0, 6.3) } end
  local folder = not path:find("%.mp4$") and path
  files.mkdirs(folder or files.folder(path))
  local writer = not folder and assert(media.writer(path, { width = W, height = H, fps = 25, crf = options.crf or 20 }))
  local frame = lr.zeros({ H, W, 3 }, "u8")
  local p = ffi.cast("uint8_t *", frame:ptr())
  for t = 0, frames - 1 do
    local time = (t + (options.from or 0)) / 25
    local function at(k, mid, reach) return mid + reach * math.sin(6.2832 * waves[k][1] * time + waves[k][2]) end
    local ax, ay, bx, by = at(1, .35, .12), at(2, .5, .2), at(3, .65, .12), at(4, .5, .25)
    local gain, offset = 1, 0
    if options.light then gain, offset = options.light(time) end
    for y = 0, H - 1 do
      for x = 0, W - 1 do
        local u, v = (x + .5) / W, (y + .5) / H
        local g = 90 + 40 * math.sin(11 * u + 3) * math.cos(9 * v)
        if (u - ax) ^ 2 + (v - ay) ^ 2 < .02 or (u - bx) ^ 2 + (v - by) ^ 2 < .02 then g = 200 end
        g = math.max(0, math.min(255, g * gain + offset + noise * ((x * 37 + y * 101 + t * 89 + seed) * 7919 % 97 / 97 - .5)))
        local o = (y * W + x) * 3
        p[o], p[o + 1], p[o + 2] = g, g, g
      end
    end
    if writer then writer:write(frame, t / 25) else media.write_png(("%s/syn_%05d.png"):format(folder, t), frame) end
  end
  if writer then writer:close() end
  return path
end

describe("near-duplicates of pictures", function()
  local folder = files.temporary_folder()
  teardown(function() files.remove(folder) end)

  it("a rescaled, brightened, noisy cut of another offset is a copy; others in the same room under the same flicker are none #slow", function()
    local function print_of(...) return assert(near.of_pictures(filmed(folder .. "/film.mp4", ...))) end
    local original = print_of(1, 150)
    local d = near.compare(original, print_of(1, 100, { from = 31, width = 40, height = 36, noise = 12, crf = 35, light = function() return 1.15, 10 end }))
    assert.is_true(d.alike)
    assert.is_true(d.score > .8)
    assert.is_near(1.24, d.from[1] - d.from[2], .11)
    local function flicker(t) return 1 + .1 * math.sin(5 * t), 8 * math.sin(5 * t) end
    local a, b = print_of(2, 120, { light = flicker, noise = 4 }), print_of(3, 120, { light = flicker, noise = 4 })
    for _, pair in ipairs { { original, a }, { original, b }, { a, b } } do
      d = near.compare(pair[1], pair[2])
      assert.is_false(d.alike)
      assert.is_true(d.score < .45, d.score)
    end
  end)

  it("is refused by name where it crosses the parts, and only where those parts are looked at #slow", function()
    filmed(folder .. "/set/01.mp4", 1, 110)
    filmed(folder .. "/set/02.mp4", 2, 110)
    filmed(folder .. "/set/03.mp4", 1, 90, { from = 10, width = 48, height = 40, crf = 30 })
    local set = assert(data.dataset.open(folder .. "/set"))
    local function audited(options)
      local split = assert(data.splits.resolve(set, { train = "1", validate = "2", test = "3" }))
      local a = assert(data.audit.run(split))
      options.cache = false
      local ok, reason = data.audit.movement(a, options)
      return ok and a, reason
    end
    local a = assert(audited { parts = { train = true, validate = true } })
    assert.matches("near-duplicates: 1 pair compared, none alike (closest: 01 (train) and 02 (validate), ", a.lines[#a.lines], 1, true)
    local refused, reason = audited {}
    assert.is_false(refused or false)
    assert.matches("^sequences 01 %(train%) and 03 %(test%) show the same movement: [%d.]+ s, from [%d.]+ s and 0.0 s on, agree to 0?[.%d]+; the parts may not overlap", reason)
    a = assert(audited { allow_leak = true })
    assert.matches("LEAK ALLOWED: sequences 01 (train) and 03 (test) show the same movement", data.audit.stamp(a), 1, true)
  end)

  it("remembers a fingerprint by content; what cannot be read is a note, not an error", function()
    local sha = ("%064x"):format(os.time())
    filmed(folder .. "/kept", 5, 8)
    local first = assert(near.of_pictures(folder .. "/kept", { sha256 = sha }))
    assert.equal(3, first.n)
    files.remove(folder .. "/kept/syn_00003.png")
    local again = assert(near.of_pictures(folder .. "/kept", { sha256 = sha }))
    assert.equal(0, (helper.difference(first.samples, again.samples)))
    for _, name in ipairs(files.list(files.cache "fingerprints")) do
      if name:sub(1, 64) == sha then files.remove(files.join(files.cache "fingerprints", name)) end
    end
    files.write(folder .. "/broken/a.mp4", "no video")
    files.write(folder .. "/broken/b.mp4", "none either")
    local set = assert(data.dataset.open(folder .. "/broken"))
    local a = assert(data.audit.run(assert(data.splits.resolve(set, { train = "1", validate = "2" }))))
    assert(data.audit.movement(a, { cache = false }))
    assert.matches("near-duplicates: a was not compared: ", a.lines[#a.lines - 1], 1, true)
  end)

  it("different videos are none, one video in three encodings is one; MP4 and MKV of it #slow", function()
    if not helper.shared "data/video/ta_chi.mp4" then return pending "needs ../shared" end
    local mp4 = assert(near.of_pictures(helper.shared "data/video/counter_FLV_H264_AAC.flv"))
    local mkv = assert(near.of_pictures(helper.shared "data/video/counter_MKV_VP8_VORBIS.mkv"))
    local other = assert(near.of_pictures(helper.shared "data/video/ta_chi.mp4"))
    local d = near.compare(mp4, mkv)
    assert.is_true(d.alike and d.score > .95)
    d = near.compare(mkv, other)
    assert.is_true(not d.alike and d.score < .45)
  end)
end)
