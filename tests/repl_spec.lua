-- Specs of the prompt and of help, with `luajit -l libration -i` as a user starts it.
local files = require "libration.files"
local help = require "libration.help"
local shell = require "shell"

-- What the prompt prints for these lines, on both streams; its banner and prompts taken off.
local function prompt(lines, before)
  local folder = files.temporary_folder()
  local path = files.join(folder, "input")
  files.write(path, table.concat(lines, "\n") .. "\n")
  local text, code = shell(("%s LUA_PATH='./lua/?.lua;./lua/?/init.lua;;' luajit -l libration -i < %s"):format(before or "", path))
  files.remove(folder)
  text = text:gsub("^LuaJIT[^\n]*\nJIT:[^\n]*\n", ""):gsub("\n>[> ]*", "\n"):gsub("^>[> ]*", "")
  return text, code
end

local function has(text, words) assert.truthy(text:find(words, 1, true), text) end

describe("prompt", function()
  it("prints values without being asked, tables and tensors too", function()
    local text, code = prompt { "x = 3", "x + 1", "= x", "nil, 'two'", "{1, {a = 'b'}}", "lr.tensor {{1, 2}, {3, 4}}" }
    assert.equal(0, code)
    has(text, "4\n")
    has(text, "nil\ttwo\n")
    has(text, '{1, {a = "b"}}\n')
    has(text, "tensor f32 cpu [2,2]")
  end)

  it("reads statements over several lines", function()
    local text = prompt { "for i = 1, 2 do", "print('row', i)", "end", "1 +", "41" }
    has(text, "row\t1\n")
    has(text, "row\t2\n")
    has(text, "42\n")
  end)

  it("raises mistakes at the user's line and goes on", function()
    local text = prompt {
      "function f(a)", "  local b = lr.zeros {2, 3}", "  return a + b", "end", "f(lr.zeros {4, 5})", "lr.zeros('a')", "error 'mine'", ")", "print 'still here'",
    }
    has(text, "stdin:3: add:")
    has(text, "stdin:1: mine")
    has(text, "stdin:1: unexpected symbol")
    has(text, "still here")
    assert.falsy(text:find("stack traceback", 1, true))
    assert.falsy(text:find("lua/libration", 1, true), text)
  end)

  it("shows help", function()
    local text = prompt { "help()", 'libration.help "lstm"', 'lr.help "plot.figure"', "help(3)" }
    has(text, "report     The report room")
    has(text, "plot.figure(options)")
    has(text, 'stdin:1: help: came a number, want a name')
    assert.falsy(text:find("nothing is called lstm", 1, true), text)
  end)

  it("keeps memory flat in a loop of temporaries, 40 MB of ordinary tables alive #slow", function()
    local kib, steps, text = require "repl_loop"(3)
    assert.is_true(#kib >= 4, text)
    assert.is_true(steps > 400, "steps " .. steps)
    assert.is_true(kib[#kib] - kib[1] < 32 * 1024, ("from %d to %d KiB"):format(kib[1], kib[#kib]))
  end)

  it("stops a compiled loop of operations at Ctrl-C and keeps the session", function()
    local folder = files.temporary_folder()
    local input = files.join(folder, "input")
    files.write(input, table.concat({
      "a = lr.ones {8, 8}", "kept = 17", "io.open('" .. folder .. "/started', 'w'):close()", "while true do local b = a + a end", "print('kept', kept)",
      "for i = 1, 10 do local b = a * a end", "print 'well'",
    }, "\n") .. "\n")
    local text = shell(([[
LUA_PATH='./lua/?.lua;./lua/?/init.lua;;' timeout --foreground -s KILL 20 luajit -l libration -i < %s > %s/out 2>&1 & pid=$!
n=0; while [ ! -e %s/started ] && [ $n -lt 100 ]; do sleep .1; n=$((n+1)); done
sleep .5; kill -INT $pid
wait $pid; echo "exit $?"; cat %s/out]]):format(input, folder, folder, folder))
    files.remove(folder)
    has(text, "exit 0")
    has(text, "interrupted")
    has(text, "kept\t17")
    has(text, "well")
  end)
end)

describe("help", function()
  it("names every room of the house in a line", function()
    local text = help.rooms()
    for _, room in ipairs { "core", "tensor", "autograd", "nn", "optim", "train", "formats", "media", "graph", "pose", "motion", "data", "anomaly", "report" } do
      assert.truthy(("\n" .. text):find("\n" .. room .. " +%S"), room .. " is missing in\n" .. text)
    end
  end)

  it("finds a name whatever its case, and shows arguments and results", function()
    local text, found = help.text "Statistics.Duration"
    assert.is_true(found)
    has(text, "statistics.duration(seconds)    [libration.report.statistics]")
    has(text, "seconds: number  as a clock counts them")
    has(text, "returns string")
    local twin = help.text "libration.report.statistics.duration"
    assert.equal(text, twin)
  end)

  it("shows a class with what can be called on it", function()
    local text = help.text "libration.report.Figure"
    has(text, "class libration.report.Figure")
    has(text, "Figure:save(path, options)")
  end)

  it("lists a room, and names what is near a mistake", function()
    has(help.text "report.plot", "Axes:hline(v, options)")
    local text, found = help.text "duratoin"
    assert.is_false(found)
    has(text, "near: duration")
    assert.equal("nothing is called qqqqqqqqqq", (help.text "qqqqqqqqqq"))
  end)

  it("refuses anything but a name at the caller's line", function()
    local ok, err = pcall(loadstring("require 'libration.help'(3)", "=mine"))
    assert.is_false(ok)
    assert.equal('mine:1: help: came a number, want a name: help "lstm"', err)
  end)
end)
