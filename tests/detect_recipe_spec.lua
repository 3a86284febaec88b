-- Specs of recipes/detect.lua with a small detector: files, verdicts, several inputs, the cover of heads in overlays.
local files = require "libration.files"
local csv = require "libration.formats.csv"
local helper = require "helper"
local json = require "libration.formats.json"
local npy = require "libration.formats.npy"
local lr = require "libration"
local shell = require "shell"

local quote = files.quote
local folder

-- BlazePose-33 landmarks of a body that sways.
local function body(path, frames, seed, speed)
  local points = lr.zeros { frames, 33, 5 }
  local p = points:ptr()
  for t = 0, frames - 1 do
    for j = 0, 32 do
      local at = (t * 33 + j) * 5
      p[at] = 150 + 6 * (j % 7) + 6 * math.sin(speed * .31 * t + j + seed)
      p[at + 1] = 60 + 4 * j + 5 * math.cos(speed * .23 * t + 2 * j + 3 * seed)
      p[at + 3], p[at + 4] = .9, .9
    end
  end
  npy.save(path, points)
end

local function detect(arguments)
  return shell(("luajit recipes/detect.lua --detector %s/run/detector.safetensors --threads 1 %s"):format(quote(folder), arguments))
end

local function table_of(path)
  local columns, rows = csv.read(path)
  assert(columns, rows)
  local list = {}
  for i, row in ipairs(rows) do
    list[i] = {}
    for k, name in ipairs(columns) do list[i][name] = row[k] end
  end
  return list, columns
end

describe("detect #process", function()
  setup(function()
    folder = files.temporary_folder()
    files.mkdirs(folder .. "/bodies")
    -- each at its own pace: the audit knows two recordings of one movement
    for i = 1, 6 do body(("%s/bodies/%02d.npy"):format(folder, i), 60, i, .6 + .17 * i % .8) end
    body(folder .. "/fast.npy", 80, 9, 5)
    body(folder .. "/slow.npy", 80, 7, .7)
    body(folder .. "/short.npy", 5, 7, 1)
    files.write(folder .. "/text.npy", "not an array")
    local text, code = shell(("luajit recipes/train.lua --epochs 2 --window 10 --stride 3 --hidden 8 --latent 4 --threads 1 --data %s/bodies "
      .. "--train 1-4 --validate 5,6 --test none --output %s/run"):format(quote(folder), quote(folder)))
    assert.equal(0, code, text)
  end)
  teardown(function() files.remove(folder) end)

  it("writes every file of one input into the output folder itself", function()
    local text, code = detect(("--landmarks %s/fast.npy --output %s/one"):format(quote(folder), quote(folder)))
    assert.equal(0, code, text)
    for _, name in ipairs {
      "reconstruction_error.png", "reconstruction_error.svg", "attribution.png", "attribution.svg", "anomaly_stats.txt", "anomaly.csv", "anomaly.json",
      "report.html", "summary.csv",
    } do
      assert.is_true((files.size(folder .. "/one/" .. name) or 0) > 50, name)
    end
    local page = assert(files.read(folder .. "/one/report.html"))
    for _, title in ipairs {
      "Verdict", "Error over time", "Key frames", "Movement profile", "Measures", "Where the error comes from", "Beside simpler methods", "Recording check",
      "Kinematics", "Configuration",
    } do assert.truthy(page:find("<h2>" .. title .. "</h2>", 1, true), title) end
    assert.truthy(page:find(">Skeleton</title>", 1, true)) -- a landmark file has no pictures
    local rows, columns = table_of(folder .. "/one/anomaly.csv")
    assert.equal(80, #rows)
    assert.equal(5 + 33, #columns)
    assert.equal("error_nose", columns[6])
    assert.is_near(79 / 25, tonumber(rows[80].time), 1e-6)
    assert.equal("1", rows[40].flag)
    assert.is_near(1 / 11, tonumber(rows[40].p), .05)
    local result = assert(json.decode(assert(files.read(folder .. "/one/anomaly.json"))))
    assert.equal("abnormal", result.verdict)
    assert.equal(71, result.windows)
    assert.is_near(1 / 3, result.p, 1e-9)
    assert.is_true(result.baselines.speed.abnormal)
    assert.is_true(result.longest_episode > 2)
    assert.equal("abnormal", result.movement_profile.verdict) -- the second verdict, of six normals left out one by one
    assert.is_near(1 / 7, result.movement_profile.p, 1e-9)
    assert.matches("frequency", table.concat(result.movement_profile.words, "\n"), 1, true)
    assert.matches("fast: movement profile: abnormal, [%d.]+ SD from the normals, p 0.143 %(smallest possible 0.143%): ", text)
    local stats = assert(files.read(folder .. "/one/anomaly_stats.txt"))
    for _, word in ipairs { "windows flagged", "longest episode", "p: ", "verdict", "frames per second, end to end", "peak memory, CPU", "peak memory, GPU", "movement profile" } do
      assert.truthy(stats:find(word, 1, true), word)
    end
    assert.truthy(text:find("share of unseen normal movement explained", 1, true))
  end)

  it("does several inputs in folders of their own; bad ones get their reason", function()
    local text, code = detect(("--landmarks %s/fast.npy %s/text.npy %s/slow.npy %s/short.npy %s/none.npy --output %s/many"):format(
      quote(folder), quote(folder), quote(folder), quote(folder), quote(folder), quote(folder)))
    assert.equal(0, code, text)
    local rows = table_of(folder .. "/many/summary.csv")
    local words = {}
    for i, row in ipairs(rows) do words[i] = row.verdict end
    assert.same({ "abnormal", "error", "normal", "not scored", "error" }, words)
    assert.equal("abnormal", rows[1].movement_profile) -- neither verdict hides the other
    assert.matches("frequency", rows[1].what_stands_out, 1, true)
    assert.equal("", rows[2].movement_profile)
    assert.truthy(rows[2].reason:find("text.npy", 1, true))
    assert.truthy(rows[4].reason:find("only 0.2 usable seconds of 0.2 (at least 3.0 wanted)", 1, true), rows[4].reason)
    assert.truthy(rows[5].reason:find("no such file", 1, true))
    assert.is_true(files.exists(folder .. "/many/fast/report.html"))
    assert.is_true(files.exists(folder .. "/many/short/report.html"))
    assert.is_false(files.exists(folder .. "/many/text"))
    local over_all = assert(files.read(folder .. "/many/index.html"))
    assert.truthy(over_all:find('href="./fast/report.html"', 1, true))
    assert.truthy(over_all:find('href="./short/report.html"', 1, true))
    assert.falsy(over_all:find('href="./text/', 1, true))
    assert.truthy(over_all:find("no such file", 1, true))
  end)

  it("leaves nothing of an earlier verdict beside a new one", function()
    local out = folder .. "/again"
    local text, code = detect(("--landmarks %s/fast.npy --output %s"):format(quote(folder), quote(out)))
    assert.equal(0, code, text)
    assert.is_true(files.exists(out .. "/anomaly.csv"))
    text, code = detect(("--landmarks %s/fast.npy --check-seconds 60 --output %s"):format(quote(folder), quote(out)))
    assert.equal(0, code, text)
    assert.same({ "anomaly.json", "anomaly_stats.txt", "audit.txt", "done.json", "report.html", "summary.csv" }, files.list(out))
    assert.matches("verdict: not scored", assert(files.read(out .. "/anomaly_stats.txt")), 1, true)
  end)

  it("takes a folder of landmark files and warns of the detector's own recordings", function()
    local text, code = detect(("--landmarks %s/bodies --output %s/own --log-level info"):format(quote(folder), quote(folder)))
    assert.equal(0, code, text)
    assert.equal(6, #table_of(folder .. "/own/summary.csv"))
    assert.truthy(text:find("05 is the detector's calibration sequence 05: its score does not count as new", 1, true), text)
    assert.truthy(text:find("01 is the detector's training sequence 01", 1, true), text)
  end)

  it("fails where nothing could be scored", function()
    local text, code = detect(("--landmarks %s/text.npy %s/none.npy --output %s/bad"):format(quote(folder), quote(folder), quote(folder)))
    assert.are_not.equal(0, code)
    assert.truthy(text:find("none of the 2 inputs could be scored", 1, true), text)
  end)

  it("scores a video with an overlay that covers the head in every frame #slow", function()
    local video = helper.shared("data/signs/asl_clips/help.mkv")
    if not video then return pending("needs ../shared") end
    local weights = require "libration.weights"
    if not (weights.find "pose_detection" and weights.find "pose_landmark_full") then return pending("needs the networks' weights: make models") end
    local text, code = detect(("--video %s --check warn --overlay --mask-faces --output %s/video"):format(quote(video), quote(folder)))
    assert.equal(0, code, text)
    assert.is_true(files.exists(folder .. "/video/overlay.mp4"))
    local media, extract = require "libration.media", require "libration.pose.extract"
    local r = assert(extract.recording(video, {}))
    local source = assert(media.open(folder .. "/video/overlay.mp4"))
    local p, frames = r.landmarks:ptr(), 0
    while true do
      local frame = source:next()
      if not frame then break end
      local q, w = frame:ptr(), frame:size(2)
      -- nose, eyes, ears and mouth lie under the cover's colour, #20242a
      for _, j in ipairs { 0, 2, 5, 7, 8, 9, 10 } do
        local x, y = math.floor(p[(frames * 33 + j) * 5]), math.floor(p[(frames * 33 + j) * 5 + 1])
        if x == x and x >= 2 and y >= 2 and x < w - 2 and y < frame:size(1) - 2 then
          local at = (y * w + x) * 3
          assert.is_true(math.abs(q[at] - 0x20) < 24 and math.abs(q[at + 1] - 0x24) < 24 and math.abs(q[at + 2] - 0x2a) < 24,
            ("frame %d joint %d is %d %d %d"):format(frames, j, q[at], q[at + 1], q[at + 2]))
        end
      end
      frames = frames + 1
    end
    source:close()
    assert.equal(r.frames, frames)
  end)
end)

describe("covers", function()
  local overlay = require "libration.anomaly.overlay"

  it("fill frames without a pose from the nearest found, larger", function()
    local points = lr.full({ 6, 33, 5 }, 0 / 0)
    local p = points:ptr()
    for _, t in ipairs { 1, 4 } do
      for j = 0, 32 do
        p[(t * 33 + j) * 5], p[(t * 33 + j) * 5 + 1] = 100 + 3 * (j % 4) + 50 * t, 60 + 2 * j
      end
    end
    local covers = overlay.covers(points)
    for t = 1, 6 do assert.is_true(covers[t].across > 5 and covers[t].x == covers[t].x, "frame " .. t) end
    assert.is_true(covers[1].across > covers[2].across)
    assert.equal(covers[2].x, covers[3].x)
    assert.equal(covers[5].x, covers[4].x)
    assert.same({}, overlay.covers(lr.full({ 2, 33, 5 }, 0 / 0)))
  end)
end)
