-- Options of recipes: parsing, configuration files, help, errors. The recipes themselves are tested beside their subjects.
local files = require "libration.files"
local options = require "libration.options"
local shell = require "shell"

local ROWS = {
  {"data", "", "folder of sequences", metavar = "DIR"},
  {"window", 30, "frames in a window", min = 2, max = 500},
  {"learning-rate", .001, "step size of the optimiser", above = 0},
  {"model", "full", "network", choices = {"lite", "full", "heavy"}},
  {"overlay", false, "also write overlay.mp4"},
  {"smooth", true, "smooth the landmarks"},
  {"train", "1-8", "sequences to train on", check = function(v) return v:find("^[%d,-]+$"), "want numbers like 1-8,10" end},
  {"sizes", {64, 32}, "hidden sizes"},
  {"video", {}, "videos", many = true, metavar = "FILE"},
  positional = {"input", "", "video, picture or folder", metavar = "INPUT", required = false},
}

local function read(...) return options.read("train", "Trains.", ROWS, {...}) end

local function refused(...)
  local values, reason = read(...)
  assert.is_nil(values)
  assert.is_nil(reason:find("\n"))
  return reason
end

describe("options", function()
  local folder
  setup(function() folder = files.temporary_folder() end)
  teardown(function() files.remove(folder) end)

  local function written(name, text)
    return files.write(files.join(folder, name), text)
  end

  it("gives the defaults and says that none was set", function()
    local o, given = read()
    assert.same({data = "", window = 30, learning_rate = .001, model = "full", overlay = false, smooth = true, train = "1-8",
      sizes = {64, 32}, video = {}, input = ""}, o)
    assert.same({}, given)
  end)

  it("does not hand out the defaults' own tables", function()
    table.insert(read().sizes, 7)
    assert.same({64, 32}, read().sizes)
  end)

  it("reads --name value, --name=value, --flag and --no-flag", function()
    local o, given = read("--window", "12", "--learning-rate=1e-2", "--overlay", "--no-smooth", "a b.mp4", "--model=heavy")
    assert.equal(12, o.window)
    assert.equal(.01, o.learning_rate)
    assert.equal(true, o.overlay)
    assert.equal(false, o.smooth)
    assert.equal("a b.mp4", o.input)
    assert.equal("heavy", o.model)
    assert.same({window = true, learning_rate = true, overlay = true, smooth = true, input = true, model = true}, given)
  end)

  it("takes underscores for dashes, the last of two, and words after --", function()
    local o = read("--learning_rate", "1", "--window", "5", "--window", "6", "--", "--odd.mp4")
    assert.equal(1, o.learning_rate)
    assert.equal(6, o.window)
    assert.equal("--odd.mp4", o.input)
  end)

  it("reads lists by comma, and by word where many are wanted", function()
    local o = read("--sizes", "8, 4,2", "--video", "a,b.mp4", "c.mp4", "--video", "d.mp4")
    assert.same({8, 4, 2}, o.sizes)
    assert.same({"a,b.mp4", "c.mp4", "d.mp4"}, o.video)
  end)

  it("takes negative numbers as values", function()
    local rows = {{"shift", 0, "frames"}, positional = {"x", nil, "a number"}}
    local o = options.read("t", "", rows, {"--shift", "-3", "-7"})
    assert.equal(-3, o.shift)
    assert.equal("-7", o.x)
  end)

  it("names the nearest option and lists the known ones", function()
    local reason = refused("--widnow", "3")
    assert.truthy(reason:find("unknown option --widnow (did you mean --window?)", 1, true))
    assert.truthy(reason:find("--learning-rate", 1, true))
    assert.truthy(refused("-x"):find("unknown option -x", 1, true))
    assert.truthy(refused("--learn=3"):find("did you mean --learning-rate?", 1, true))
    assert.falsy(refused("--colour"):find("did you mean"))
  end)

  it("refuses wrong types, bounds and choices by name", function()
    assert.truthy(refused("--window", "ten"):find('--window is "ten", want a whole number', 1, true))
    assert.truthy(refused("--window", "2.5"):find('want a whole number', 1, true))
    assert.truthy(refused("--window", "0x10"):find('want a whole number', 1, true))
    assert.truthy(refused("--window", "1"):find("--window is 1, want at least 2", 1, true))
    assert.truthy(refused("--window", "501"):find("want at most 500", 1, true))
    assert.truthy(refused("--learning-rate", "0"):find("want more than 0", 1, true))
    assert.truthy(refused("--learning-rate", "nan"):find("want a number", 1, true))
    assert.truthy(refused("--model", "tiny"):find('--model is "tiny", want lite, full or heavy', 1, true))
    assert.truthy(refused("--overlay=maybe"):find('--overlay is "maybe", want true or false', 1, true))
    assert.truthy(refused("--train", "eight"):find("--train: want numbers like 1-8,10", 1, true))
    assert.truthy(refused("--sizes", "8,x"):find('--sizes is "x", want a whole number', 1, true))
  end)

  it("refuses missing values and superfluous words", function()
    assert.truthy(refused("--window"):find("--window wants a value", 1, true))
    assert.truthy(refused("--window", "--overlay"):find("--window wants a value", 1, true))
    assert.truthy(refused("--config"):find("--config wants a value", 1, true))
    assert.truthy(refused("a", "b"):find('unexpected argument "b"; usage: train [options] [INPUT]', 1, true))
    local _, reason = options.read("landmarks", "", {positional = {"input", "", "video"}}, {})
    assert.truthy(reason:find("INPUT is missing; usage: landmarks [options] INPUT", 1, true))
    _, reason = options.read("landmarks", "", {{"output", "", "folder", required = true}}, {})
    assert.truthy(reason:find("--output is missing", 1, true))
  end)

  it("raises a wrong row at the recipe's author", function()
    assert.error_matches(function() options.read("t", "", {{"a", 1}, {"a", 2}}, {}) end, "a stands twice")
    assert.error_matches(function() options.read("t", "", {{"a", print}}, {}) end, "a has no type")
  end)

  it("reads a Lua table as configuration; the command line overrides it", function()
    local path = written("run.lua", "-- mine\nreturn {window = 7, ['learning-rate'] = .5, model = 'lite', overlay = true, sizes = {1, 2, 3}}\n")
    local o, given = read("--config", path, "--window", "9")
    assert.equal(9, o.window)
    assert.equal(.5, o.learning_rate)
    assert.equal("lite", o.model)
    assert.equal(true, o.overlay)
    assert.same({1, 2, 3}, o.sizes)
    assert.is_true(given.model)
    assert.equal(7, read("--config=" .. written("plain", "return {window=7}")).window)
  end)

  it("reads flat YAML", function()
    local path = written("run.yaml", table.concat({
      "# a run", "---", "window: 7   # frames", "learning_rate: 1e-3", 'data: "a # b"', "model: 'lite'", "overlay: yes",
      "train: 1-4,6", "sizes: [16, 8]  # two", "video:", "  - 'it''s.mp4'", "- b.mp4", ""}, "\r\n"))
    local o = read("--config", path)
    assert.equal(7, o.window)
    assert.equal(.001, o.learning_rate)
    assert.equal("a # b", o.data)
    assert.equal("lite", o.model)
    assert.equal(true, o.overlay)
    assert.equal("1-4,6", o.train)
    assert.same({16, 8}, o.sizes)
    assert.same({"it's.mp4", "b.mp4"}, o.video)
  end)

  it("refuses bad configuration by file, line and name", function()
    assert.truthy(refused("--config", folder .. "/none.yaml"):find("cannot read .*none.yaml: No such file"))
    assert.truthy(refused("--config", folder):find("it is a folder", 1, true))
    assert.truthy(refused("--config", written("a.yaml", "window: 3\nwidnow: 4\n")):find("a.yaml: unknown option widnow (did you mean --window?)", 1, true))
    assert.truthy(refused("--config", written("b.yaml", "window: 3\nmodel:\n  name: full\n")):find("b.yaml, line 3: nested", 1, true))
    assert.truthy(refused("--config", written("c.yaml", "window 3\n")):find("c.yaml, line 1: want 'name: value'", 1, true))
    assert.truthy(refused("--config", written("d.yaml", "window: 3\nwindow: 3\n")):find("line 2: window stands twice", 1, true))
    assert.truthy(refused("--config", written("e.yaml", "sizes: [1, 2\n")):find("line 1: the list is not closed", 1, true))
    assert.truthy(refused("--config", written("f.yaml", 'data: "x\n')):find("the quote is not closed", 1, true))
    assert.truthy(refused("--config", written("g.yaml", "data: &a x\n")):find("nested values, anchors", 1, true))
    assert.truthy(refused("--config", written("h.yaml", "window: ten\n")):find('window is "ten", want a whole number', 1, true))
    assert.truthy(refused("--config", written("i.lua", "return {window = '7x'}")):find('window is "7x", want a whole number', 1, true))
    assert.truthy(refused("--config", written("j.lua", "return {data = 3}")):find("data is 3, want text", 1, true))
    assert.truthy(refused("--config", written("k.lua", "return 3")):find("returns number, want a table", 1, true))
    assert.truthy(refused("--config", written("l.lua", "return {window = }")):find("l.lua, line 1", 1, true))
    assert.truthy(refused("--config", written("m.yaml", "sizes:\n")):find("sizes has no value", 1, true))
  end)

  it("keeps a Lua configuration from doing anything but building a table", function()
    assert.truthy(refused("--config", written("n.lua", "os.execute('true') return {}")):find("global 'os'", 1, true))
    assert.truthy(refused("--config", written("o.lua", "while true do end")):find("runs too long", 1, true))
    assert.truthy(refused("--config", written("p.lua", "local s = 'x' for i = 1, 40 do s = s .. s end return {}")):find("too much memory", 1, true))
    assert.truthy(refused("--config", written("q.lua", "return {data = ('x'):rep(1e9)}")):find("attempt to", 1, true))
    assert.truthy(refused("--config", written("r.lua", "\27LJ\2")):find("compiled Lua is not read", 1, true))
    assert.truthy(refused("--config", written("s.lua", "return {" .. ("1,"):rep(200000) .. "}")):find("more than 262144 bytes", 1, true))
    assert.equal("X", ("x"):upper()) -- string methods are back
  end)

  it("makes --help from the table", function()
    local _, reason = read("--window", "3", "--help")
    assert.equal("help", reason)
    local text = options.help("train", "Trains.", ROWS)
    assert.truthy(text:find("^train: Trains%.\n\nusage: train %[options%] %[INPUT%]\n"))
    assert.truthy(text:find("  --window N                  frames in a window (default 30; 2 to 500)\n", 1, true))
    assert.truthy(text:find("  --model lite|full|heavy     network (default full)\n", 1, true))
    assert.truthy(text:find("--smooth                    smooth the landmarks (on unless --no-smooth)\n", 1, true))
    assert.truthy(text:find("--video FILE...", 1, true))
    assert.truthy(text:find("--config FILE", 1, true))
  end)

  -- A script of its own process: text of stdout and stderr together, exit code.
  local function script(body, words, environment)
    local path = written("script.lua", 'package.path = "lua/?.lua;" .. package.path\n' .. body)
    return shell(("%s luajit %s %s"):format(environment or "", files.quote(path), words or ""))
  end

  it("parse prints one line and leaves with 2, --help with 0", function()
    local body = 'local o = require("libration.options").parse("t", "A test.", {{"n", 1, "a number"}}) print("n", o.n)'
    local text = script(body, "--n 5")
    assert.equal("n\t5\n", text)
    local code
    text, code = script(body, "--m 5")
    assert.equal(2, code)
    assert.equal("t: unknown option --m (did you mean --n?); known: --n --config --help\n", text)
    text, code = script(body, "--help")
    assert.equal(0, code)
    assert.truthy(text:find("^t: A test%."))
  end)

  it("main turns an error into one line and 1, Ctrl-C into 130", function()
    local body = 'require("libration.options").main(function() %s end)'
    local text, code = script(body:format('error("no video at /tmp/x: nothing there")'))
    assert.equal("script: no video at /tmp/x: nothing there\n", text)
    assert.equal(1, code)
    text, code = script(body:format("local t = nil; t.x = 1"))
    assert.truthy(text:find("^script: .*script.lua:2: attempt to index"))
    assert.equal(1, code)
    text = script(body:format('require "libration.nowhere"'))
    assert.truthy(text:find("module 'libration.nowhere' not found", 1, true))
    local _, lines = text:gsub("\n", "")
    assert.equal(1, lines)
    text = script(body:format('error("x")'), "", "LIBRATION_DEBUG=1")
    assert.truthy(text:find("stack traceback", 1, true))
    text, code = script(body:format('error("lstm: interrupted")'))
    assert.equal(130, code)
    assert.truthy(text:find("script: interrupted", 1, true))
    text, code = script(body:format("print(7)"))
    assert.equal("7\n", text)
    assert.equal(0, code)
  end)
end)
