-- Specs of plots: ticks, refused options, pictures that are not blank, SVG that is well formed and small. Pages are in report_spec.
local cairo = require "libration.report.cairo"
local files = require "libration.files"
local plot = require "libration.report.plot"
local statistics = require "libration.report.statistics"
local svg = require "libration.report.svg"
local ticks = require "libration.report.ticks"

local NAN = 0 / 0

local function texts(list)
  local out = {}
  for i, tick in ipairs(list) do out[i] = tick[2] end
  return table.concat(out, " ")
end

-- Checks that tags nest and close, that attributes are quoted and that nothing stands outside the root.
local function well_formed(text)
  local open, roots = {}, 0
  text = text:gsub("^%s*<%?xml.-%?>", ""):gsub("<!DOCTYPE html>", "")
  local rest = text:gsub("<(/?)([%w:]+)([^<>]*)>", function(close, name, inner)
    local bare = inner:gsub('[%w:-]+="[^"<]*"', ""):gsub("%s+", "")
    assert(bare == "" or bare == "/", "attributes of " .. name .. ": " .. inner)
    if close == "/" then
      assert(open[#open] == name, "closed " .. name .. " inside " .. tostring(open[#open]))
      open[#open] = nil
    elseif bare ~= "/" then
      if #open == 0 then roots = roots + 1 end
      open[#open + 1] = name
    end
    return ""
  end)
  assert(#open == 0, "left open: " .. table.concat(open, " "))
  assert(not rest:find "[<>]", "a bare < or >")
  assert(not rest:gsub("&%a+;", ""):gsub("&#%d+;", ""):find "&", "a bare &")
  assert.equal(1, roots)
end

local function sample()
  local t, e = {}, {}
  for i = 1, 500 do
    t[i], e[i] = i / 25, 1 + math.sin(i / 20)
    if i > 300 and i < 320 then e[i] = NAN end
  end
  local figure = plot.figure { title = "Error over time", subtitle = "clip <1> & \"two\"" }
  figure:axes({ xlabel = "time, s", ylabel = "error, SD²", x = "time" })
    :spans({ { 2, 4 }, { 10, 10.01 } }, { label = "flagged" })
    :line(t, e, { label = "error" })
    :hline(1.5, { label = "threshold", style = "dashed" })
    :legend()
  return figure
end

describe("ticks", function()
  it("are round numbers inside the range", function()
    assert.equal("0 0.25 0.50 0.75 1.00", texts(ticks.make(0, 1.1, 5)))
    assert.equal("-2 0 2", texts(ticks.make(-3, 3, 4)))
    assert.equal("0 20 40 60 80 100", texts(ticks.make(0, 100, 7)))
    assert.equal("0.0002 0.0004", texts(ticks.make(0.0001, 0.0005, 2)))
    assert.equal("4 5 6", texts(ticks.make(4, 6, 9, "integer")))
  end)

  it("write clocks from two minutes on and decades on a log axis", function()
    assert.equal("0 15 30 45 60", texts(ticks.make(0, 60, 5, "time")))
    assert.equal("0:00 1:00 2:00 3:00", texts(ticks.make(0, 200, 5, "time")))
    assert.equal("0.01 0.1 1 10", texts(ticks.make(0.01, 20, 6, "log")))
    assert.equal("1:02:05", ticks.clock(3725))
  end)

  it("write numbers so that a person reads them", function()
    assert.equal("12,000", ticks.number(12000, 1000))
    assert.equal("-12,000", ticks.number(-12000, 1000))
    assert.equal("2e-5", ticks.number(2e-5, 1e-5))
    assert.equal("-", ticks.number(NAN))
    assert.equal("0.930", ticks.short(0.93))
  end)

  it("start at zero where zero is near, and give one value room", function()
    local lo = ticks.limits(0.3, 1)
    assert.equal(0, lo)
    lo = ticks.limits(9, 10)
    assert.is_true(lo > 8)
    local a, b = ticks.limits(5, 5)
    assert.is_true(a < 5 and b > 5)
  end)
end)

describe("plot", function()
  local folder
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  it("writes a PNG that is not blank, at two pixels a unit, and leaves no other file", function()
    if not cairo.open() then return pending "needs libcairo.so.2" end
    local path = files.join(folder, "x.png")
    sample():save(path)
    local seen = assert(cairo.inspect(path))
    assert.same({ 1440, 720 }, { seen.width, seen.height })
    assert.is_true(seen.painted > 0.03 and seen.painted < 0.5, "painted " .. seen.painted)
    assert.is_true(seen.colours > 50)
    assert.same({ "x.png" }, files.list(folder))
  end)

  it("writes SVG that is well formed, with text as text", function()
    local path = files.join(folder, "x.svg")
    sample():save(path)
    local text = assert(files.read(path))
    well_formed(text)
    assert.truthy(text:find("clip &lt;1&gt; &amp; &quot;two&quot;", 1, true))
    assert.truthy(text:find("threshold", 1, true))
    assert.falsy(text:find("nan", 1, true))
    assert.falsy(text:find("inf", 1, true))
  end)

  it("draws the same SVG twice, byte for byte", function()
    assert.equal(sample():svg(), sample():svg())
  end)

  it("breaks a line at NaN", function()
    local text = plot.figure():axes():line({ 1, 2, 3, 4, 5 }, { 1, 2, NAN, 2, 1 }):svg()
    local path = text:match '<path d="(M[^"]*)"[^>]*class="st%-s1"'
    local _, lifts = path:gsub("M", "")
    assert.equal(2, lifts)
  end)

  it("keeps every peak of an hour of video in a small file", function()
    local t, e = {}, {}
    for i = 1, 90000 do t[i], e[i] = i / 25, (i * 7919 % 1000) / 1000 end
    e[45678] = 9.5
    local text = plot.figure():axes({ x = "time" }):line(t, e):svg()
    assert.is_true(#text < 120000, #text .. " bytes")
    local top = math.huge
    local path = text:match '<path d="(M[^"]*)"[^>]*class="st%-s1"'
    for y in path:gmatch "[%d.]+ ([%d.]+)" do top = math.min(top, tonumber(y)) end
    local low = math.huge
    for y in path:gmatch "[%d.]+ ([%d.]+)" do
      if tonumber(y) > top + 1 then low = math.min(low, tonumber(y)) end
    end
    assert.is_true(low > top + 100, "the peak stands out")
  end)

  it("draws every kind of mark, empty data and constant data", function()
    local figure = plot.figure { width = 300, height = 900, title = "a title that is too long for one line of a figure this narrow" }
    figure:axes():line(nil, {}):legend()
    figure:axes():line(nil, { 3, 3, 3 }, { marker = "square" }):vline(2, { note = "here" })
    figure:axes({ y = "log" }):dots(nil, { 0, 1, 100, NAN }, { marker = "triangle" })
    figure:axes({ categories = { "a", "a name that does not fit beside a plot", "c" } }):bars { 1, 2, NAN }
    figure:axes():dots({ 1 }, { 1 }, { marker = "ring" }):dots({ 2 }, { 1 }, { marker = "diamond" })
    well_formed(figure:svg())
    if cairo.open() then
      figure:save(files.join(folder, "all.png"))
    end
  end)

  it("survives infinite, huge, tiny and nearly equal numbers", function()
    local INF = 1 / 0
    for _, y in ipairs { { INF, 1, -INF }, { 1e300, -1e300 }, { 1e-300, 2e-300 }, { 1e6, 1e6 + 1e-10 }, { NAN }, { -5, -5 }, { 3, 3 + 1e-15 } } do
      for _, kind in ipairs { "linear", "log", "time", "integer" } do
        local axes = plot.figure():axes { y = kind, x = kind ~= "log" and kind or nil }
        local text = axes:line(nil, y):line(y, y):dots(y, y):hline(INF):vline(NAN):spans({ { NAN, 1 }, { 0, INF } }):svg()
        well_formed(text)
        for _, word in ipairs { "nan", "inf" } do
          assert.falsy(text:gsub("%-%-", ""):lower():find('[" ]%-?' .. word), word .. " in " .. text)
        end
      end
    end
  end)

  it("takes tensors", function()
    local lr = require "libration"
    local text = plot.figure():axes():line(lr.tensor { 1, 2, 3 }, lr.tensor { 3, 1, 2 }):svg()
    assert.equal(text, plot.figure():axes():line({ 1, 2, 3 }, { 3, 1, 2 }):svg())
    assert.has_error(function() plot.figure():axes():line(nil, lr.zeros { 2, 2 }) end, "plot line: y: came a table of tables, want one dimension")
  end)

  it("refuses unknown options and wrong types, and lists what there is", function()
    assert.has_error(function() plot.figure { widht = 3 } end,
      "plot.figure: unknown option widht, known: description, footer, height, subtitle, title, width")
    assert.has_error(function() plot.figure { width = "3" } end, "plot.figure: option width is a string, want a number")
    assert.has_error(function() plot.figure():axes():line({ 1 }, { 1, 2 }) end, "plot line: 1 x values and 2 y values")
    assert.has_error(function() plot.figure():axes():line(nil, 5) end, "plot line: y: came a number, want an array of numbers or a tensor")
    assert.has_error(function() plot.figure():axes():line(nil, {}, { style = "wavy" }) end, "plot line: style wavy, known: dashed, dotted, solid")
    assert.has_error(function() plot.figure():axes():line(nil, {}, { colour = "red" }) end,
      "plot line: plot colour: came red, wanted a role (s1..s6, ink, muted, flag) or #rrggbb")
    assert.has_error(function() plot.figure():axes { x = "polar" } end, "plot axes: x is polar, known: integer, linear, log, time")
    assert.has_error(function() plot.figure():axes():spans { { 1 } } end, "plot spans: entry 1 is not {begin, end}")
    assert.has_error(function() plot.figure():save "x.gif" end, "plot save: x.gif ends in neither .png nor .svg")
  end)

  it("names the file that it cannot write", function()
    local blocked = files.join(folder, "file")
    files.write(blocked, "text")
    for _, name in ipairs { "x.svg", "x.png" } do
      local ok, err = pcall(function() sample():save(files.join(blocked, name)) end)
      assert.is_false(ok)
      assert.truthy(err:find(blocked, 1, true), err)
      assert.falsy(err:find("\n", 1, true))
    end
  end)
end)

describe("svg", function()
  it("escapes what XML forbids, broken UTF-8 too", function()
    assert.equal("&lt;&amp;&gt;&quot;&#39;???é", svg.escape "<&>\"'\0\27\255é")
    assert.equal("a?b", svg.escape "a\195b")
  end)
end)

describe("report statistics", function()
  it("write shares, times and bytes for people", function()
    assert.equal("0 %", statistics.percent(0))
    assert.equal("0.4 %", statistics.percent(0.004))
    assert.equal("38 %", statistics.percent(0.38))
    assert.equal("0.0 %", statistics.percent(-0.0002))
    assert.equal("-12 %", statistics.percent(-0.12))
    assert.equal("-", statistics.percent(NAN))
    assert.equal("4 min 05 s", statistics.duration(245))
    assert.equal("1.50 GiB", statistics.bytes(1.5 * 1024 ^ 3))
    assert.equal("< 0.001", statistics.p(1e-5))
    assert.equal("0.333", statistics.p(1 / 3))
  end)
end)
