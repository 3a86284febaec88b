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
