-- Specs of recipes/evaluate.lua and its protocols: figures on MINI-RGBD key points, files, splits, and what it refuses.
local files = require "libration.files"
local helper = require "helper"
local json = require "libration.formats.json"
local csv = require "libration.formats.csv"
local protocols = require "libration.anomaly.protocols"
local methods = require "libration.anomaly.methods"
local runs = require "runs"
local shell = require "shell"

local quote = files.quote

-- A data set of entries with these labels, and subjects where given.
local function dataset(labels, subjects)
  local d = { entries = {}, by_id = {} }
  for i, label in ipairs(labels) do
    local e = { id = ("%02d"):format(i), label = label, subject = subjects and subjects[i] }
    d.entries[i], d.by_id[e.id] = e, e
  end
  function d.ids() return "" end
  return d
end

local function names(list)
  local out = {}
  for i, e in ipairs(list) do out[i] = e.id end
  return table.concat(out, ",")
end

local MINI = { 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 1 }

describe("protocols", function()
  it("L0 is the label-aware split: train 01,02,03,05,06, calibrate 07,08, test 11 and the abnormal", function()
    local f = assert(protocols.plan(dataset(MINI), "L0")).folds[1]
    assert.equal("01,02,03,05", names(f.train))
    assert.equal("06", f.inner.id) -- early stopping goes by a training normal
    assert.equal("07,08", names(f.calibrate))
    assert.equal("11", names(f.normals))
    assert.equal("04,09,10,12", names(f.positives))
  end)

  it("L1 leaves each normal out once, its inner normal comes from inside the training part", function()
    local plan = assert(protocols.plan(dataset(MINI), "L1"))
    assert.equal(8, #plan.folds)
    local inner = {}
    for _, f in ipairs(plan.folds) do
      assert.equal(6, #f.train)
      local all = names(f.train) .. "," .. f.inner.id
      assert.is_nil(all:find(f.normals[1].id, 1, true))
      for _, id in ipairs { "04", "09", "10", "12" } do assert.is_nil(all:find(id, 1, true)) end
      inner[f.inner.id] = true
    end
    local n = 0
    for _ in pairs(inner) do n = n + 1 end
    assert.equal(8, n)
  end)

  it("L1 leaves whole subjects out, keeps them whole inside, and trains nobody who is judged", function()
    local plan = assert(protocols.plan(dataset({ 0, 0, 0, 0, 0, 0, 0, 1 }, { "a", "a", "b", "c", "d", "e", "f", "b" }), "L1"))
    assert.equal(6, #plan.folds)
    assert.equal("01,02", names(plan.folds[1].normals))
    assert.equal("03", names(plan.folds[2].normals))
    for i, f in ipairs(plan.folds) do
      local all = names(f.train) .. "," .. f.inner.id
      assert.is_nil(all:find("03", 1, true)) -- of b, who is judged
      if i == 2 then -- a is the inner group: its second recording does not train
        assert.equal("01", f.inner.id)
        assert.is_nil(names(f.train):find("02", 1, true))
      end
    end
    assert.matches("1 with abnormal recordings as well train none", plan.text, 1, true)
  end)

  it("the split users ask for runs as asked", function()
    local plan = assert(protocols.plan(dataset(MINI), "split", { train = "1-8", validate = "9,10", test = "11,12" }))
    assert.equal("09,10", names(plan.split.validate))
    assert.equal("12", names(plan.folds[1].positives))
  end)

  it("refuse what gives no AUC", function()
    local plan, reason = protocols.plan(dataset { 0, 0, 0, 0, 0, 0 }, "L1")
    assert.is_nil(plan)
    assert.matches("0 abnormal", reason)
    plan, reason = protocols.plan(dataset { 0, 0, 1 }, "L1")
    assert.is_nil(plan)
    assert.matches("want at least 5", reason)
    plan, reason = protocols.plan(dataset { 0, 0, 1 }, "L0")
    assert.is_nil(plan)
    assert.matches("want at least 4", reason)
  end)

  it("AUC, p, interval and alarms by hand", function()
    local d = dataset { 0, 0, 1, 1 }
    local e = d.entries
    local function row(normal, score, a, b) return { normal = normal, score = score, positives = { { entry = e[3], score = a }, { entry = e[4], score = b } } } end
    local rows = { row(e[1], 1, 2, 1), row(e[2], 5, 6, 4) }
    local auc, wins = protocols.auc(rows)
    assert.equal((1 + .5 + 1 + 0) / 4, auc)
    assert.equal(1 / 3, protocols.p(rows, 1))
    assert.equal(1, protocols.p(rows, 2))
    local low, high = protocols.interval(wins, { e[1], e[2] }, { e[3], e[4] })
    assert.is_true(low <= .25 and low >= 0 and high == 1)
    low, high = protocols.interval({ { 1, 1 }, { 1, 1 } }, { e[1], e[2] }, { e[3], e[4] })
    assert.equal(1, low)
    assert.equal(1, high)
    assert.equal(2, protocols.alarms({ 2, 0, 2, 0, 0, 0, 2 }, { 0, 1, 2, 3, 4, 5, 6 }, 3, 1))
  end)

  it("methods of one family share a fit: a seed and a fold each, sums of the judged normals give the shares explained", function()
    local comparison = require "libration.anomaly.comparison"
    local d = dataset { 0, 0, 0, 0, 0, 1 }
    local plan, fits, settings, recordings = assert(protocols.plan(d, "L1")), 0, {}, {}
    local family = { name = "made up", seeded = true, fit = function(fold)
      fits = fits + 1
      return function(r) return { autoencoder = { r.label * fold.seed }, second = { -r.label } }, { error = 1, variance = 4, square = 2 } end
    end }
    for f = 1, #plan.folds do settings[f] = {} end
    for _, e in ipairs(d.entries) do recordings[e] = e end
    local chosen = { { key = "autoencoder", name = "a", family = family }, { key = "second", name = "b", family = family } }
    local rows, explained = comparison.run(chosen, plan, settings, recordings, { seeds = 3, seed = 1, window = 5 })
    assert.equal(15, fits)
    assert.equal(15, comparison.fits(chosen, 5, 3))
    assert.same({ 1, 1, 1 }, rows[1].aucs)
    assert.equal(0, rows[2].auc)
    assert.is_near(1 / 6, rows[1].p["06"], 1e-12)
    assert.same({ network = .75, zero = .5 }, explained)
    local honesty = require "libration.anomaly.honesty"
    local line, weak = honesty.of_comparison({ autoencoder = rows[1], speed = { auc = 1, name = "mean speed" } }, { network = .1, pca = .6, zero = 0 }, 5)
    assert.equal("share of unseen normal movement explained (1 - error / variance, 5 left-out normal recordings): autoencoder 10 %, PCA-32 60 %, zero output 0 %", line)
    assert.same({ "the autoencoder (AUC 1.00) is not better than mean speed (AUC 1.00)", "the autoencoder explains less unseen normal movement (10 %) than PCA-32 (60 %)",
      "the autoencoder explains only 10 % of unseen normal movement: its error measures mostly how much the body moves" }, weak)
  end)

  it("methods are chosen by name, a stray one is refused with those there are", function()
    assert.equal(13, #methods.choose { "all" })
    assert.equal(12, #methods.choose({ "all" }, "none"))
    local list = methods.choose { "profile", "speed" }
    assert.equal("speed", list[1].key)
    assert.equal("profile", list[2].key)
    local none, reason = methods.choose { "speed", "sped" }
    assert.is_nil(none)
    assert.matches("unknown method sped; there are autoencoder, autoencoder-p95", reason, 1, true)
  end)
end)

describe("evaluate #process", function()
  local folder
  setup(function() folder = files.temporary_folder() end)
  teardown(function() files.remove(folder) end)

  local function made()
    local bodies = folder .. "/bodies"
    if not files.exists(bodies) then
      files.mkdirs(bodies)
      local labels = { "sequence,label\n" }
      for i = 1, 8 do
        runs.body18(("%s/%02d.npy"):format(bodies, i), 80, i, (i > 6 and 4 or 1) * (.6 + .17 * i % .8))
        labels[#labels + 1] = ("%02d,%d\n"):format(i, i > 6 and 1 or 0)
      end
      files.write(bodies .. "/labels.csv", table.concat(labels))
    end
    return quote(bodies)
  end

  it("compares all methods on a small folder and writes its three files", function()
    local out = folder .. "/small"
    local text, code = shell(("luajit recipes/evaluate.lua --data %s --window 10 --epochs 2 --hidden 6 --latent 3 --seeds 2 --threads 1 --output %s"):format(
      made(), quote(out)))
    assert.equal(0, code, text)
    local columns, cells = csv.read(out .. "/evaluation.csv")
    assert.equal("method", columns[1])
    assert.equal(13, #cells)
    assert.equal("autoencoder", cells[1][1])
    assert.equal("2", cells[1][6])
    local run = assert(json.decode(files.read(out .. "/evaluation.json")))
    assert.equal(6, run.normals)
    for _, m in ipairs(run.methods) do
      assert.is_true(m.low <= m.auc and m.auc <= m.high, m.name)
      assert.is_true(m.p["07"] >= run.smallest_p - 1e-12 and m.p["07"] <= 1, m.name)
      if m.key == "speed" then assert.equal(1, m.auc) end
    end
    assert.truthy(#run.judged[1].words >= 1)
    local html = files.read(out .. "/report.html")
    for _, word in ipairs { "Research use, not a diagnosis", "movement profile", "nearest training window", "95 % interval" } do
      assert.truthy(html:gsub("\194\160", " "):find(word, 1, true), word)
    end
  end)

  it("runs L0 and the user's split", function()
    for _, protocol in ipairs { "L0", "split --train 1-4 --validate 5 --test 6-8" } do
      local text, code = shell(("luajit recipes/evaluate.lua --data %s --window 10 --methods speed,pca,profile --threads 1 --protocol %s --output %s"):format(
        made(), protocol, quote(folder .. "/other")))
      assert.equal(0, code, text)
      assert.matches("mean speed +AUC 1.00", text)
    end
  end)

  it("says in one line what is wrong, and leaves nothing behind", function()
    for words, want in pairs {
      [("--data %s --methods speed,dance"):format(made())] = "unknown method dance",
      [("--data %s --window 200"):format(made())] = "normal sequences or subjects that may train, want at least 5",
      [("--data %s --protocol L2"):format(made())] = "--protocol",
      ["--data " .. quote(folder .. "/nowhere")] = "no such folder",
    } do
      local text, code = shell(("luajit recipes/evaluate.lua %s --output %s 2>&1 >/dev/null | grep -v -e ^warning -e ^recordings"):format(words, quote(folder .. "/wrong")))
      assert.truthy(text:find(want, 1, true), text)
      assert.equal(1, select(2, text:gsub("\n", "")), text)
      assert.is_false(files.exists(folder .. "/wrong"))
      assert.is_not_nil(code)
    end
  end)

  -- shared/goldens/autoencoder/README.md section 2, column A: 1.00, 1.00, 1.00, .88; PCA and the networks take minutes, README.md has their figures.
  -- The profile's figure rests on 32 pairs.
  it("on MINI-RGBD key points by L1: what needs no model 1.00, movement statistics .88, the movement profile beside them #slow", function()
    local data = helper.shared("data/anomaly/minirgbd_openpose18")
    if not data then return pending("needs ../shared") end
    local text, code = shell(("luajit recipes/evaluate.lua --data %s --coordinates centred --size 640x480 --methods speed,variance,repeat,movement,profile --output %s"):format(
      data, quote(folder .. "/mini")))
    assert.equal(0, code, text)
    local run, said = assert(json.decode(files.read(folder .. "/mini/evaluation.json"))), {}
    for _, m in ipairs(run.methods) do
      said[#said + 1] = ("%s %.2f (%.2f to %.2f)"):format(m.name, m.auc, m.low, m.high)
      if m.key == "profile" then
        assert.is_true(m.auc >= .65 and m.high >= .88, said[#said])
      elseif m.key == "movement" then
        assert.is_true(math.abs(m.auc - .88) <= 2 / 32, said[#said]) -- two of the 32 pairs
      else
        assert.equal(1, m.auc)
      end
    end
    assert.is_near(1 / 9, run.methods[1].p["04"], 1e-12)
    print("MINI-RGBD, L1: " .. table.concat(said, ", "))
  end)
end)
