-- Specs of the pages and of the two reports: hostile text escaped, nothing from outside, the figures of the table on the page.
local cairo = require "libration.report.cairo"
local files = require "libration.files"
local log = require "libration.log"
local html = require "libration.report.html"
local plot = require "libration.report.plot"
local report = require "libration.report"
local detection = require "libration.report.detection"
local training = require "libration.report.training"

local NAN = 0 / 0
local HOSTILE = [[<script>alert("x")</script>'"&<img src=x onerror=y>]]

local function run()
  local train, validation = {}, {}
  for i = 1, 40 do train[i], validation[i] = 1 / i, 0.2 + 1 / i end
  return {
    title = "Training run",
    population = "8 normal sequences, 1600 frames, rendered infants",
    epochs = { train = train, validation = validation, best = 31 },
    threshold = 0.8731,
    percentile = 95,
    calibration = { { id = "09", score = 0.55, share = 0.062 }, { id = "10", score = 0.49, share = 0.038 } },
    test = {
      { id = "11", label = "normal", score = 0.51, share = 0.047, p = 2 / 3, flagged = false },
      { id = "12", label = "abnormal", score = 0.93, share = 0.38, p = 1 / 3, flagged = true },
    },
    baselines = { { name = "autoencoder", scores = { ["11"] = 0.51, ["12"] = 0.93 } }, { name = "mean speed", scores = { ["11"] = 0.6, ["12"] = 0.61 }, note = "matched" } },
    explained = { network = 0.14, pca = 0.6 },
    warnings = { "only 2 calibration sequences" },
    audit = { "no id is shared" },
    config = { window = 30, train = { 1, 2, 3 } },
    versions = { libration = "0.1.0" },
    device = "cpu",
    timings = { training = 42.9 },
  }
end

local function result()
  local t, e = {}, {}
  for i = 1, 300 do t[i], e[i] = i / 25, i < 280 and 0.4 + (i > 150 and i < 200 and 1 or 0) or NAN end
  return {
    video = "/data/clip 7.mp4",
    population = "8 normal sequences",
    flagged = true,
    share = 0.38,
    largest_calibration_share = 0.062,
    p = 1 / 3,
    smallest_p = 1 / 3,
    calibration = run().calibration,
    longest_episode = 2,
    threshold = 0.87,
    score = 0.93,
    times = t,
    errors = e,
    spans = { { 6, 8 } },
    joints = { { name = "left wrist", error = 1.25 }, { name = "nose", error = NAN }, { name = "right ankle", error = 2.5 } },
    baselines = { { name = "mean speed", score = 0.61, low = 0.55, high = 0.66 } },
    fps = 41.26,
    frames = 300,
    memory = { cpu = 700 * 1024 ^ 2 },
    warnings = { "30 frames per second" },
  }
end

-- the text of a page with plain spaces
local function page_of(page) return (html.page(page):gsub("\194\160", " ")) end

-- what a browser would load from elsewhere or run
local function self_contained(text)
  for _, word in ipairs { "<script", "<link", "<iframe", "<object", "<embed", "http://", "https://", "url(h", "@import", "javascript:", "srcset" } do
    assert.falsy(text:lower():find(word, 1, true), word)
  end
  for value in text:gmatch 'src="([^"]*)"' do
    assert.truthy(value:find "^data:image/", value)
  end
  for address in text:gmatch 'href="([^"]*)"' do
    assert.truthy(address:find "^#" or address:find "^%./", address)
  end
end

-- that tags nest; the few that HTML never closes aside
local function nested(text)
  local open = {}
  for close, name, inner in text:gsub("<style>.-</style>", ""):gmatch "<(/?)([%w]+)([^<>]*)>" do
    if close == "/" then
      assert.equal(name, open[#open])
      open[#open] = nil
    elseif name ~= "meta" and name ~= "img" and not inner:find "/$" then
      open[#open + 1] = name
    end
  end
  assert.same({}, open)
end

describe("html page", function()
  it("escapes hostile text in every block", function()
    local figure = plot.figure { title = HOSTILE, description = HOSTILE }
    figure:axes({ title = HOSTILE, xlabel = HOSTILE, ylabel = HOSTILE, categories = { HOSTILE, HOSTILE } })
      :dots({ 1 }, { 1 }, { label = HOSTILE }):vline(1, { note = HOSTILE }):legend()
    local text = html.page {
      title = HOSTILE,
      subtitle = HOSTILE,
      banner = HOSTILE,
      stamp = HOSTILE,
      population = HOSTILE,
      footer = HOSTILE,
      sections = {
        {
          title = HOSTILE,
          { kind = "verdict", head = HOSTILE, lines = { HOSTILE }, tone = HOSTILE },
          { kind = "facts", items = { { label = HOSTILE, value = HOSTILE, note = HOSTILE } } },
          { kind = "table", head = { HOSTILE }, rows = { { { text = HOSTILE, tone = HOSTILE, link = HOSTILE } } }, note = HOSTILE, align = { HOSTILE } },
          { kind = "table", head = { HOSTILE, HOSTILE, HOSTILE, HOSTILE }, rows = { { HOSTILE, HOSTILE, HOSTILE, HOSTILE } } },
          { kind = "figure", figure = figure, caption = HOSTILE },
          { kind = "gallery", items = { { data = "\1\2\3", type = HOSTILE, alt = HOSTILE, caption = HOSTILE } } },
          { kind = "findings", list = { { level = HOSTILE, text = HOSTILE, detail = { HOSTILE } } } },
          { kind = "fold", summary = HOSTILE, { kind = "heading", text = HOSTILE } },
          { kind = "keyvalues", rows = { { HOSTILE, HOSTILE } } },
          { kind = "warnings", list = { HOSTILE } },
          { kind = "list", list = { HOSTILE } },
          { kind = "text", text = HOSTILE },
        },
      },
    }
    assert.falsy(text:find("<script", 1, true))
    assert.falsy(text:find("<img src=x", 1, true))
    assert.truthy(text:find("&lt;script&gt;", 1, true))
    for address in text:gmatch 'href="([^"]*)"' do
      assert.truthy(address:find "^#[%w-]+$" or address:find "^%./[%w%%._~/-]*$", address)
    end
    nested(text)
  end)

  it("names an unknown block", function()
    local ok, err = pcall(html.page, { title = "t", population = "p", sections = { { { kind = "chart" } } } })
    assert.is_false(ok)
    assert.truthy(err:find("section 1, block 1 is of kind chart, known: facts", 1, true), err)
  end)

  it("writes base64 as RFC 4648 says", function()
    assert.equal("", html.base64 "")
    assert.equal("Zg==", html.base64 "f")
    assert.equal("Zm8=", html.base64 "fo")
    assert.equal("Zm9vYmFy", html.base64 "foobar")
    assert.equal("AP+A", html.base64 "\0\255\128")
  end)
end)

describe("training report", function()
  local folder
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  it("says first that it is no diagnosis and whom it was trained on", function()
    local text = page_of(training.page(run()))
    local body = text:match "<body>(.*)"
    local plain = body:gsub("<[^>]*>", " "):gsub("%s+", " ")
    assert.equal(1, (plain:find(" ?Research use, not a diagnosis%. Trained on 8 normal sequences, 1600 frames, rendered infants%.")))
    self_contained(text)
    nested(text)
  end)

  it("holds counts, threshold, p, baselines and the warnings that follow from the figures", function()
    local text = page_of(training.page(run()))
    for _, words in ipairs {
      "Abnormal test sequences flagged: 1 of 1.", "Normal test sequences flagged (false alarms): 0 of 1.", "0.8731", "95th percentile", "0.333",
      "mean speed", "12 (abnormal)", "explains 14 %", "PCA-32 explains 60 %", "less than 20 %", "Only 2 calibration sequences.", "1, 2, 3", "42.9 s",
    } do
      assert.truthy(text:find(words, 1, true), words)
    end
  end)

  it("writes the picture and the page, the same bytes each time", function()
    if not cairo.open() then return pending "needs libcairo.so.2" end
    local page, png = report.training(folder, run())
    assert.same({ "report.html", "training.png", "training.svg" }, files.list(folder))
    assert.is_true(assert(cairo.inspect(png)).painted > 0.02)
    local first = assert(files.read(page))
    report.training(folder, run())
    assert.equal(first, files.read(page))
  end)

  it("comes without the picture, and says so, where Cairo is missing", function()
    local open = cairo.open
    cairo.open = function() return nil, "cairo: libcairo.so.2 was not found" end
    local said = {}
    log.setup { stream = { write = function(_, ...) said[#said + 1] = table.concat { ... } end, flush = function() end } }
    local ok, page, png = pcall(report.training, folder, run())
    log.setup { stream = io.stderr }
    cairo.open = open
    assert.is_true(ok, page)
    assert.is_nil(png)
    assert.same({ "report.html", "training.svg" }, files.list(folder))
    assert.truthy(table.concat(said):find("training.png is not drawn: cairo: libcairo.so.2 was not found", 1, true))
  end)

  it("does without validation, baselines and labels", function()
    local r = run()
    r.epochs.validation, r.baselines, r.explained, r.warnings = {}, nil, nil, nil
    r.test = { { id = "x", score = 0.5, share = 0, flagged = false } }
    nested(page_of(training.page(r)))
    r.test, r.calibration = {}, {}
    nested(page_of(training.page(r)))
  end)

  it("stays as wide and as high with 300 sequences", function()
    local few, r = training.figure(run()), run()
    r.test = {}
    for i = 1, 300 do
      r.test[i] = { id = "clip" .. i, label = i % 3 == 0 and "abnormal" or "normal", score = i / 100, share = 0, flagged = false }
      for _, row in ipairs(r.baselines) do row.scores["clip" .. i] = i end
    end
    assert.is_true(training.figure(r).height <= few.height + 100)
    local text = page_of(training.page(r))
    nested(text)
    assert.truthy(text:find("median of 200, normal", 1, true))
    assert.truthy(text:find(">151<", 1, true) or text:find(">150<", 1, true))
  end)

  it("names a field that is missing", function()
    assert.has_error(function() training.page { population = "p" } end, "report.training: field threshold is missing")
  end)
end)

describe("detection report", function()
  local folder
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  it("gives the verdict, how sure it is, and names the weakest claim", function()
    local text = page_of(detection.page(result()))
    for _, words in ipairs {
      "Research use, not a diagnosis.", "Detector trained on 8 normal sequences.",
      "Unusual movement", "38 % of its windows", "of any calibration sequence at most 6.2 %", "no smaller p than 0.333",
      "How sure: weak.", "left wrist", "0.550 to 0.660", "within", "clip 7.mp4", "41.3", "30 frames per second",
    } do
      assert.truthy(text:find(words, 1, true), words)
    end
    self_contained(text)
    nested(text)
  end)

  it("writes its files; the text has a line for each figure", function()
    if not cairo.open() then return pending "needs libcairo.so.2" end
    report.detection(folder, result())
    assert.same(
      { "anomaly_stats.txt", "attribution.png", "attribution.svg", "reconstruction_error.png", "reconstruction_error.svg", "report.html" }, files.list(folder))
    local text = assert(files.read(files.join(folder, "anomaly_stats.txt")))
    for _, line in ipairs {
      "verdict: unusual movement", "windows flagged: 38 %", "longest episode: 2.00 s", "p: 0.333", "frames per second, end to end: 41.3",
      "peak memory, CPU: 700 MiB", "peak memory, GPU: none used",
    } do
      assert.truthy(("\n" .. text):find("\n" .. line .. "\n", 1, true), line)
    end
  end)

  it("takes a log axis where the errors climb far above the threshold", function()
    local r = result()
    assert.falsy(detection.figure(r):svg():find("log scale", 1, true))
    for i = 100, 140 do r.errors[i] = 60 end
    local text = detection.figure(r):svg()
    assert.truthy(text:find("log scale", 1, true))
    assert.truthy(text:find(">10<", 1, true))
    r.errors[1] = 0
    assert.falsy(detection.figure(r):svg():find("log scale", 1, true))
  end)

  it("shows the joints with the largest errors, not all 33", function()
    local r = result()
    for i = 1, 33 do r.joints[i] = { name = "joint " .. i, error = i } end
    local text = page_of(detection.page(r))
    assert.truthy(text:find("The 12 of 33 with the largest error", 1, true))
    assert.truthy(text:find(">joint 33<", 1, true))
    assert.falsy(text:find(">joint 21<", 1, true))
  end)

  it("says why a video was not scored", function()
    local text = page_of(detection.page {
      video = "a.mp4", population = "8 sequences", reason = "no person was found in 90 % of the frames", times = {}, errors = {}, threshold = 1,
    })
    assert.truthy(text:find("Not scored", 1, true))
    assert.truthy(text:find("no person was found", 1, true))
    nested(text)
  end)

  it("shows hostile file names as text", function()
    local r = result()
    r.video = "/x/" .. HOSTILE:gsub("/", "") .. ".mp4"
    r.warnings = { HOSTILE }
    r.joints[1].name = HOSTILE
    r.config = { [HOSTILE] = HOSTILE }
    local text = page_of(detection.page(r))
    assert.falsy(text:find("<script", 1, true))
    assert.falsy(text:find("<img", 1, true))
    nested(text)
  end)
end)

describe("sections of a recording", function()
  local pages = require "pages"
  local function text_of(r) return page_of(detection.page(r)) end
  local function has(text, list)
    for _, words in ipairs(list) do assert.truthy(text:find(words, 1, true), words) end
  end

  it("show both verdicts, say where they differ, and what is unusual", function()
    local r = pages.result { flagged = true }
    has(text_of(r), { "Autoencoder", "Movement profile", "2.71 SD from the normal recordings, p = 0.091, smallest possible 0.091.",
      "What stands out: moves in bursts: speed varies 56 % more than the calibration videos; both legs move together." })
    assert.falsy(text_of(r):find("do not agree", 1, true))
    r.profile.abnormal = false
    has(text_of(r), { "The two do not agree" })
  end)

  it("give each measure its calibration range, p and a reading in words", function()
    has(text_of(pages.result { flagged = true }), { "mean window error", "0.490 to 0.550", "above all; the headline score", "0.800 to 1.90", "within", "below all" })
  end)

  it("give the recording check's measures with limits, spans and reasons; above everything where it stops the verdict", function()
    local text = text_of(pages.result())
    has(text, { "Not scored", "Reason: points seen 31 %, at least 70 wanted", "1.4 of 12.0 seconds are usable", "at least 70", "outside", "3.2 to 4.0 s",
      "body outside the picture", "<details open><summary>4 measures, 2 outside their limits</summary>",
      "not measured: no texture to measure it on", "A second person is seen" })
    assert.is_true(text:find('id="recording-check"', 1, true) < text:find('id="warnings"', 1, true))
    text = text_of(pages.result { flagged = true })
    assert.is_true(text:find('id="recording-check"', 1, true) > text:find('id="measures"', 1, true))
    has(text, { "not usable, see the recording check" })
  end)

  it("attribute the error to limbs, sides and joints, and over an hour in at most 120 columns", function()
    local text = text_of(pages.result { flagged = true, seconds = 3600 })
    has(text, { "By limb", "Left against right", "The left side has 89 % more error than the right.", "Over time", "By joint" })
    local strip = text:match '<svg[^>]*>%s*<title[^>]*>Limbs over time.-</svg>'
    local _, cells = strip:gsub("crispEdges", "")
    assert.equal(6 * 120 + 4, cells)
  end)

  it("fold the kinematics away, with the unit", function()
    has(text_of(pages.result { flagged = true }), { "<details><summary>Movement of 15 joints</summary>", "Lengths in torso lengths", "left-right correlation" })
  end)

  it("list an audit's findings by level with their details, at most twelve of them", function()
    local r = pages.result { flagged = true }
    local detail = {}
    for i = 1, 20 do detail[i] = "frame " .. i end
    r.audit.findings[4] = { level = "note", code = "looked-at", text = "train: 8 sequences" }
    r.audit.findings[3] = { level = "error", code = "near", text = "two parts share frames", detail = detail }
    local text = text_of(r)
    has(text, { "<b>Note.</b> Content: 12 checksums", "<b>Warning.</b> 2 labelled test", "<b>Error.</b> Two parts share frames.", "frame 12<", "and 8 more",
      "<h3>What was looked at</h3>", "<li>Train: 8 sequences.</li>" })
    assert.falsy(text:find("frame 13<", 1, true))
    assert.falsy(text:find("LEAK ALLOWED", 1, true))
    r.audit.leak = true
    has(text_of(r), { "LEAK ALLOWED: Two parts share frames. No figure on this page counts as a test." })
    has(detection.stats(r), { "stamp: LEAK ALLOWED: Two parts share frames." })
  end)

  it("draw key frames as skeletons where no picture may leave the recording", function()
    local r = pages.result { flagged = true }
    local text = text_of(r)
    assert.falsy(text:find("<img", 1, true))
    local _, drawn = text:gsub(">Skeleton</title>", "")
    assert.equal(2, drawn)
    r.poses[1].points = r.poses[1].points * NAN
    r.poses[2].points = r.poses[2].points * NAN
    assert.falsy(text_of(r):find(">Skeleton</title>", 1, true))
  end)

  it("say nothing twice: a figure that a section shows is not among the further ones", function()
    local r = pages.result { flagged = true }
    r.stats = { { "mean window error", "0.93" }, { "recording check", "passed" }, { "  light", "46" }, { "movement profile", "normal" }, { "windows", "271" } }
    local further = text_of(r):match 'id="further%-figures">(.-)</section>'
    assert.falsy(further:find("0.93", 1, true) or further:find("passed", 1, true) or further:find("light", 1, true) or further:find("profile", 1, true))
    assert.truthy(further:find("271", 1, true))
    assert.truthy(detection.stats(r):find("mean window error: 0.93", 1, true))
  end)

  it("write the attribution as picture and drawing, with nothing on it but numbers and names", function()
    local figure = require("libration.report.attribution").figure(pages.result({ flagged = true }).attribution, { unit = "SD²", subtitle = HOSTILE })
    local text = figure:svg()
    assert.falsy(text:find("<script", 1, true))
    has(text, { "By limb", "Left against right", "By joint, the 12 of 15 with the largest error", "Over time", "Research use, not a diagnosis." })
    assert.is_nil(require("libration.report.attribution").figure { joints = {}, limbs = {}, time = {} })
  end)
end)

describe("pages over many", function()
  local overview, pages = require "libration.report.overview", require "pages"

  it("link each input's own page, and say why one has none", function()
    local folder = files.temporary_folder()
    local page
    for _, entry in ipairs(pages.all()) do if entry.name == "overview" then page = entry.page end end
    local text = page_of(page)
    for _, words in ipairs { "9 inputs, 3 still to come", '<a href="./1/report.html">infant 1.mp4</a>', "points seen 31 %", "not scored", "moves in bursts" } do
      assert.truthy(text:find(words, 1, true), words)
    end
    assert.falsy(text:find('href="./4/', 1, true))
    local path = overview.write(folder, { population = "8 sequences", rows = { { input = "a.mp4", flagged = true, share = 1, p = 0.5, link = "a b/rep\"ort.html" } } })
    assert.truthy(assert(files.read(path)):find('href="./a%20b/rep%22ort.html"', 1, true))
    files.remove(folder)
  end)

  it("set the p of methods and recordings with the longer list downwards, and every seed beside the mean", function()
    local evaluation = require "libration.report.evaluation"
    local given = pages.evaluation()
    local text = page_of(evaluation.page(given))
    for _, words in ipairs { "0.80 to 1.00", "± 0.02", "each seed", "No p can fall below 0.111 here.", '<th scope="row" role="rowheader">movement profile</th>' } do
      assert.truthy(text:find(words, 1, true), words)
    end
    for i = 1, 9 do
      given.judged[i] = { id = "r" .. i }
      for _, m in ipairs(given.methods) do m.p["r" .. i] = 1 end
    end
    assert.truthy(page_of(evaluation.page(given)):find(">abnormal recording<", 1, true))
  end)
end)

describe("key frames", function()
  local keyframes = require "libration.report.keyframes"

  it("lie where the error is largest in the longest stretches, in order; one alone gets the calmest frame beside it", function()
    local scored = { frames = 8, fps = 2, begin = 1, frame_error = { NAN, 3, 9, 1, 5, 2, 7, 4 } }
    assert.same({ { time = 2, frame = 3 }, { time = 4, frame = 7 } },
      keyframes.times(scored, { episodes = { { first = 5, last = 7 }, { first = 1, last = 2 } } }, 4))
    assert.same({ { time = 4, frame = 7 } }, keyframes.times(scored, { episodes = { { first = 5, last = 7 }, { first = 1, last = 2 } } }, 1))
    assert.same({ { time = 2, frame = 3 }, { time = 2.5, frame = 4 } }, keyframes.times(scored, { episodes = {} }, 4))
  end)

  it("of too low errors show the lowest, and say so", function()
    local scored = { frames = 4, fps = 2, begin = 0, frame_error = { 1, 0.2, 0.1, 2 } }
    local verdict = { episodes = { { first = 1, last = 2 } }, threshold = 3, low = { threshold = 0.5, share = 0.4, limit = 0.1 } }
    assert.same({ { time = 1, frame = 3 } }, keyframes.times(scored, verdict, 1))
    local sequence = { points = require("libration").zeros { 4, 18, 2 }, fps = 2, skeleton = "openpose18", width = 640, height = 480 }
    assert.equal("1.00 s, error 0.10, under the low threshold of 0.50", keyframes.poses(sequence, scored, verdict)[1].caption)
    local r = require("pages").result { flagged = true }
    r.low = verdict.low
    local text = page_of(require("libration.report.detection").page(r))
    for _, words in ipairs { "40 % lie under the low threshold; of any calibration sequence at most 10 %.", ">low threshold<" } do
      assert.truthy(text:find(words, 1, true), words)
    end
  end)

  it("of landmarks take the nearest time, and the picture's form where x and y are parts of it", function()
    local lr = require "libration"
    local points = lr.zeros { 4, 18, 2 }
    local scored = { frames = 4, fps = 2, begin = 0, frame_error = { 1, 2, 9, 2 } }
    local verdict = { episodes = { { first = 2, last = 2 } }, threshold = 3 }
    local sequence = { points = points, fps = 2, times = { 0, 0.4, 0.9, 1.6 }, skeleton = "openpose18", width = 640, height = 480 }
    local poses = keyframes.poses(sequence, scored, verdict, "centred")
    assert.equal(2, #poses)
    assert.equal("1.00 s, error 9.00, over the threshold of 3.00", poses[2].caption)
    assert.is_near(640 / 480, poses[2].aspect, 1e-12)
    assert.equal(1, keyframes.poses(sequence, scored, verdict)[1].aspect)
  end)
end)
