-- Specs of recipes/train.lua on small landmark folders: every file it writes, the verdicts, the order of decoding, what it warns of.
local files = require "libration.files"
local json = require "libration.formats.json"
local csv = require "libration.formats.csv"
local npy = require "libration.formats.npy"
local safetensors = require "libration.formats.safetensors"
local lr = require "libration"
local runs = require "runs"
local shell = require "shell"

local quote = files.quote
local folder

local FAST = "--epochs 3 --window 10 --batch 16 --stride 3 --hidden 8,6 --latent 4 --checkpoint-every 2 --threads 1"

local function train(arguments)
  return shell(("luajit recipes/train.lua %s --output %s/run --data %s/bodies %s"):format(FAST, quote(folder), quote(folder), arguments or ""))
end

-- "warning: ..." lines of what a run said.
local function warnings(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do if line:find "^warning: " then list[#list + 1] = line end end
  return table.concat(list, "\n")
end

describe("train #process", function()
  local text, code

  setup(function()
    folder = files.temporary_folder()
    files.mkdirs(folder .. "/bodies")
    -- each at its own pace: the audit knows two recordings of one movement
    for i = 1, 8 do runs.body18(("%s/bodies/%02d.npy"):format(folder, i), 50 + i, i, (i == 8 and 4 or 1) * (.6 + .17 * i % .8)) end
    local labels = { "sequence,label\n" }
    for i = 1, 8 do labels[#labels + 1] = ("%02d,%d\n"):format(i, i == 8 and 1 or 0) end
    files.write(folder .. "/bodies/labels.csv", table.concat(labels))
    text, code = train "--train 1-4 --validate 5,6 --test 7,8"
  end)
  teardown(function() files.remove(folder) end)

  it("ends well and says where the report lies", function()
    assert.equal(0, code, text)
    assert.truthy(text:find(folder .. "/run/report.html", 1, true), text)
    assert.truthy(text:find("share of unseen normal movement explained", 1, true), text)
    assert.truthy(text:find("test: 1 of 1 abnormal detected", 1, true), text)
  end)

  it("writes every file of section 7", function()
    for _, name in ipairs {
      "best.safetensors", "epoch_002.safetensors", "detector.safetensors", "training.log", "training.png", "training.svg", "test.csv", "audit.txt", "run.json", "report.html",
    } do
      assert.is_true((files.size(folder .. "/run/" .. name) or 0) > 100, name)
    end
  end)

  it("test.csv has a row a sequence and the counts", function()
    local columns, rows = csv.read(folder .. "/run/test.csv")
    local at = {}
    for i, name in ipairs(columns) do at[name] = i end
    assert.equal(3, #rows)
    assert.equal("07", rows[1][at.sequence])
    assert.equal("abnormal", rows[2][at.verdict])
    assert.equal("1", rows[2][at.detected])
    assert.equal("", rows[2][at.false_alarm])
    assert.equal("1 of 1", rows[3][at.detected])
    assert.matches("^[01] of 1$", rows[3][at.false_alarm])
    assert.is_near(1 / 3, tonumber(rows[2][at.smallest_p]), 1e-6)
    assert.is_true(tonumber(rows[2][at.mean_speed]) > 2 * tonumber(rows[1][at.mean_speed]))
  end)

  it("run.json holds configuration, split, checksums, seeds and timings", function()
    local run = assert(json.decode(assert(files.read(folder .. "/run/run.json"))))
    assert.equal("1-4", run.split.train)
    assert.equal(files.sha256(folder .. "/bodies/05.npy"), run.checksums.validate[1].sha256)
    assert.equal(1, run.seeds.training)
    assert.equal(3, run.epochs)
    assert.equal(10, run.options.window)
    assert.is_true(run.timings.training > 0)
    assert.equal(lr.version, run.version)
  end)

  it("training.log has a line an epoch", function()
    local log = assert(files.read(folder .. "/run/training.log"))
    for epoch = 1, 3 do assert.truthy(log:find(("epoch +%d/3"):format(epoch)), log) end
  end)

  it("the detector lists its calibration sequences and holds the weights of the best epoch", function()
    local detector = assert(require("libration.anomaly.detector").load(folder .. "/run/detector.safetensors"))
    assert.same({ "05", "06" }, { detector.calibration.sequences[1].id, detector.calibration.sequences[2].id })
    assert.equal(files.sha256(folder .. "/bodies/06.npy"), detector.calibration.sequences[2].sha256)
    assert.equal(14, #detector.joints)
    assert.equal(42, detector.model.config.input)
    local best = assert(safetensors.load(folder .. "/run/best.safetensors"))
    for name, t in pairs(detector.model:state_dict()) do
      local other = assert(best[name] or best["model." .. name], name)
      for i = 0, t:numel() - 1 do assert.equal(t:contiguous():ptr()[i], other:contiguous():ptr()[i]) end
    end
  end)

  it("says what is weak about the result", function()
    local said = warnings(text)
    assert.truthy(said:find("2 calibration videos: too few (20 wanted)", 1, true), said)
    assert.truthy(text:find("2 labelled test recordings: too few for a rate", 1, true), text)
    local html = assert(files.read(folder .. "/run/report.html"))
    for _, word in ipairs { "mean speed", "PCA-32", "zero output", "esearch use, not a diagnosis" } do
      assert.truthy(html:find(word, 1, true), word)
    end
  end)

  it("gives the same detector twice, and other weights with another seed", function()
    local first = assert(files.sha256(folder .. "/run/detector.safetensors"))
    local again
    again, code = train "--train 1-4 --validate 5,6 --test none"
    assert.equal(0, code, again)
    assert.equal(first, files.sha256(folder .. "/run/detector.safetensors"))
    again, code = train "--train 1-4 --validate 5,6 --test none --seed 2"
    assert.equal(0, code, again)
    assert.are_not.equal(first, files.sha256(folder .. "/run/detector.safetensors"))
  end)

  it("warns about abnormal training and validation sequences and names the legal split", function()
    local said, status = train "--train 1-3,8 --validate 5 --test 7"
    assert.equal(0, status, said)
    assert.truthy(said:find("it trains on abnormal 08, tests 1 normal and 0 abnormal", 1, true), said)
    assert.truthy(said:find("a split that the labels allow: --train 1-4 --validate 5,6 --test 7,8", 1, true), said)
    local audit = assert(files.read(folder .. "/run/audit.txt"))
    assert.truthy(audit:find("verdict: 1 warning\n", 1, true), audit)
    assert.truthy(audit:find("warning  abnormal-as-normal", 1, true), audit)
  end)

  it("refuses an overlap by name, or stamps the pages, audit.txt, run.json and the detector, and detect.lua stamps its pages", function()
    local leak = folder .. "/leak"
    local function run(more)
      return shell(("luajit recipes/train.lua %s --data %s/bodies --output %s --train 1-4 --test 7,8 %s"):format(FAST, quote(folder), quote(leak), more))
    end
    local said, status = run "--validate 4,5"
    assert.are_not.equal(0, status)
    assert.truthy(said:find("sequence 04 is in both --train and --validate; the parts may not overlap (--allow-leak", 1, true), said)
    assert.is_false(files.exists(leak))
    said, status = run "--validate 4,5 --allow-leak"
    assert.equal(0, status, said)
    local stamp = "LEAK ALLOWED: sequence 04 is in both train and validate"
    assert.truthy(said:find("warning: " .. stamp, 1, true), said)
    assert.truthy(files.read(leak .. "/audit.txt"):find(stamp, 1, true))
    local function stamped(page)
      assert.truthy(page:gsub("\194\160", " "):find("LEAK ALLOWED: Sequence 04 is in both train and validate", 1, true))
    end
    stamped(assert(files.read(leak .. "/report.html")))
    local run_json = assert(json.decode(assert(files.read(leak .. "/run.json"))))
    assert.is_true(run_json.audit.leak)
    assert.equal("shared-id", run_json.audit.findings[1].code)
    said, status = shell(("luajit recipes/detect.lua --detector %s/detector.safetensors --landmarks %s/bodies/04.npy --check off --output %s/found"):format(
      quote(leak), quote(folder), quote(leak)))
    assert.equal(0, status, said)
    assert.truthy(said:find("warning: 04 is the detector's calibration sequence 04: its score does not count as new", 1, true), said)
    assert.truthy(files.read(leak .. "/found/audit.txt"):find(stamp, 1, true))
    stamped(assert(files.read(leak .. "/found/report.html")))
  end)

  it("decodes no test recording before the detector is on disk", function()
    local broken = folder .. "/broken"
    for i = 1, 7 do files.copy(("%s/bodies/%02d.npy"):format(folder, i), ("%s/%02d.npy"):format(broken, i)) end
    files.write(broken .. "/08.npy", "not an array")
    local said, status = shell(("luajit recipes/train.lua %s --data %s --output %s/late --train 1-4 --validate 5,6 --test 7,8"):format(
      FAST, quote(broken), quote(folder)))
    assert.equal(0, status, said)
    local threshold, failed = said:find("threshold ", 1, true), said:find("08.npy", 1, true)
    assert.truthy(threshold and failed and threshold < failed, said)
    local _, rows = csv.read(folder .. "/late/test.csv")
    assert.equal("error", rows[2][3])
    assert.truthy(rows[2][#rows[2]]:find("08.npy", 1, true))
    assert.is_true(files.exists(folder .. "/late/detector.safetensors"))
  end)

  it("names a recording of another skeleton: fatal among training and validation, a row with the reason in the test", function()
    local mixed = folder .. "/mixed"
    for i = 1, 7 do files.copy(("%s/bodies/%02d.npy"):format(folder, i), ("%s/%02d.npy"):format(mixed, i)) end
    npy.save(mixed .. "/08.npy", lr.full({ 40, 17, 3 }, 50))
    local command = ("luajit recipes/train.lua %s --data %s --output %s/mix --train 1-4 "):format(FAST, quote(mixed), quote(folder))
    local said, status = shell(command .. "--validate 5,8 --test none")
    assert.are_not.equal(0, status)
    assert.truthy(said:find("sequences 01 (openpose18) and 08 (coco17) have different skeletons", 1, true), said)
    said, status = shell(command .. "--validate 5,6 --test 7,8")
    assert.equal(0, status, said)
    local _, test = csv.read(folder .. "/mix/test.csv")
    assert.truthy(test[2][#test[2]]:find("different skeletons", 1, true))
  end)

  it("takes every option of features and normalisation", function()
    for _, more in ipairs {
      "--features velocities --no-mask --task reverse", "--features both --rotation frame --post unit", "--gaps akima --outliers 8 --rotation sequence --post none",
      "--joints nose,neck,left_shoulder,right_shoulder,left_hip,right_hip,left_wrist,right_wrist --augment turn", "--root picture --size 320x240 --scale 50 --rate 12.5",
      "--stop-on validation --schedule cosine --clip 1 --features angles --task predict --two-sided --unit block --block 1", "--stop-on none --percentile 90 --fps 30 --max-gap 0",
    } do
      local said, status = train("--epochs 1 --train 1-4 --validate 5,6 --test 8 " .. more)
      assert.equal(0, status, more .. "\n" .. said)
      local detector = assert(require("libration.anomaly.detector").load(folder .. "/run/detector.safetensors"))
      assert.equal(more:match("%-%-features (%a+)") or "positions", detector.motion.features)
      assert.equal(more:match("%-%-task (%a+)") or "reconstruct", detector.model.config.task)
    end
  end)

  it("killed twice and resumed ends with the same bytes, and no epoch is repeated #slow", function()
    local arguments = ("%s --data %s/bodies --train 1-4 --validate 5,6 --test 7,8 --epochs 80 --patience 0 --stride 1"):format(FAST, quote(folder))
    local said, status = shell(("luajit recipes/train.lua %s --output %s/whole"):format(arguments, quote(folder)))
    assert.equal(0, status, said)
    local log = folder .. "/torn/training.log"
    for _, epoch in ipairs { 9, 33 } do
      shell(([[luajit recipes/train.lua %s --resume --output %s/torn >/dev/null 2>&1 & pid=$!
n=0; while ! grep -q "epoch %d/80" %s && [ $n -lt 400 ] && kill -0 $pid; do sleep .05; n=$((n+1)); done; kill -9 $pid; wait $pid]]):format(
        arguments, quote(folder), epoch, quote(log)))
      assert.is_false(files.exists(folder .. "/torn/detector.safetensors"))
    end
    said, status = shell(("luajit recipes/train.lua %s --resume --output %s/torn"):format(arguments, quote(folder)))
    assert.equal(0, status, said)
    for _, name in ipairs { "best.safetensors", "epoch_040.safetensors", "detector.safetensors", "test.csv" } do
      assert.equal(files.sha256(folder .. "/whole/" .. name), files.sha256(folder .. "/torn/" .. name), name)
    end
    local seen = {}
    for epoch in assert(files.read(log)):gmatch("epoch (%d+)/80: train") do
      assert.is_nil(seen[epoch], "epoch " .. epoch .. " twice")
      seen[epoch] = true
    end
    -- killed between checkpoint and log line, an epoch is told by the line of the resumed run instead
    for epoch in files.read(log):gmatch("resumed after epoch (%d+)") do seen[epoch] = true end
    for epoch = 1, 80 do assert.is_true(seen[tostring(epoch)], "epoch " .. epoch) end
  end)

  it("resumes only what is the same run: goes on from the one above #slow", function()
    local said, status = shell(("luajit recipes/train.lua %s --data %s/bodies --train 1-4 --validate 5,6 --test 7,8 --epochs 80 --patience 0 --stride 2 --resume --output %s/torn")
      :format(FAST, quote(folder), quote(folder)))
    assert.are_not.equal(0, status)
    assert.truthy(said:find("cannot resume", 1, true), said)
    assert.truthy(said:find("stride=", 1, true) or said:find("windows=", 1, true), said)
  end)
end)
