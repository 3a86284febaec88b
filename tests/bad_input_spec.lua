-- Specs of bad input: each recipe as a user runs it. One line on stderr that says what and where, a status that is not 0, no partial output.
local files = require "libration.files"
local lr = require "libration"
local media = require "libration.media"
local runs = require "runs"
local shell = require "shell"
local weights = require "libration.weights"

local quote = files.quote
local folder -- of the whole file: inputs are made once

-- Runs a recipe; it must refuse: one line that begins with the recipe's name and holds the words.
-- `output` (a folder) must hold nothing new.
local function refuses(recipe, arguments, words, output)
  local before = output and files.exists(output) and table.concat(runs.tree(output), " ") or ""
  local text, code = shell(("luajit recipes/%s.lua %s 2>&1 >/dev/null"):format(recipe, arguments))
  assert.is_true(code ~= 0 and code < 128, ("ended with %d: %s"):format(code, text))
  local lines = runs.errors_of(text)
  assert.equal(1, #lines, text)
  local line = lines[1]
  assert.equal(recipe .. ": ", line:sub(1, #recipe + 2), text)
  for _, word in ipairs(words) do
    assert.truthy(line:find(word, 1, true), ("%q is not in: %s"):format(word, line))
  end
  assert.falsy(text:find("stack traceback", 1, true), text)
  assert.falsy(line:find "%.lua:%d+:", text)
  if output then
    assert.equal(before, files.exists(output) and table.concat(runs.tree(output), " ") or "")
    assert.equal("", files.exists(output) and runs.leftovers(output) or "")
  end
  return line
end

local function picture(path, height, width)
  files.mkdirs(files.folder(path))
  local pixels = lr.full({ height, width, 3 }, 40, "u8")
  media.write_png(path, pixels)
end

local function text_file(path, text)
  files.write(path, text or "this is text, whatever its name says\n")
  return path
end

local FAST = "--epochs 1 --window 10 --batch 16 --stride 5 --hidden 8 --latent 4 --threads 1 --log-level warn"
local SPLIT = "--train 1-3 --validate 4,5 --test 6"

setup(function()
  folder = files.temporary_folder()
  files.mkdirs(folder .. "/bodies")
  for i = 1, 6 do runs.body(("%s/bodies/%02d.npy"):format(folder, i), 90, i) end
  files.mkdirs(folder .. "/empty")
  files.mkdirs(folder .. "/texts")
  text_file(folder .. "/texts/notes.txt")
  text_file(folder .. "/text.mp4")
  text_file(folder .. "/text.npy")
  files.write(folder .. "/empty.mp4", "")
  files.write(folder .. "/empty.npy", "")
  for i = 0, 2 do
    picture(("%s/mixed/frame_%d.png"):format(folder, i), 64, i == 2 and 96 or 80)
    picture(("%s/black/frame_%d.png"):format(folder, i), 128, 128)
    picture(("%s/corrupt/frame_%d.png"):format(folder, i), 64, 64)
  end
  local path = folder .. "/corrupt/frame_1.png"
  local bytes = assert(files.read(path))
  files.write(path, bytes:sub(1, 40) .. ("\255"):rep(30) .. bytes:sub(71, #bytes - 20))
end)
teardown(function() files.remove(folder) end)

-- A folder that nothing can be written into, whoever runs this: below a file, and where there is no root, one without the right to.
local function unwritable()
  local path = folder .. "/a_file"
  if not files.exists(path) then text_file(path) end
  return path .. "/out"
end

-- An output folder that is not there yet.
local outputs = 0
local function fresh()
  outputs = outputs + 1
  return ("%s/out%d"):format(folder, outputs)
end

local function has_weights()
  return pcall(function()
    return assert(weights.find "pose_detection") and assert(weights.find "pose_landmark_full")
  end)
end

describe("landmarks refuses #process", function()
  local function refused(arguments, words)
    local out = fresh()
    local line = refuses("landmarks", ("%s --no-cache --output %s"):format(arguments, quote(out)), words, out)
    assert.is_false(files.exists(out))
    return line
  end

  it("a missing file", function() refused(quote(folder .. "/nothing.mp4"), { "nothing.mp4", "No such file" }) end)
  it("an empty file", function() refused(quote(folder .. "/empty.mp4"), { "empty.mp4" }) end)
  it("text named .mp4", function() refused(quote(folder .. "/text.mp4"), { "text.mp4" }) end)
  it("a folder without pictures", function() refused(quote(folder .. "/texts"), { "texts", "picture" }) end)
  it("no input at all", function() refuses("landmarks", "", { "INPUT is missing" }) end)
  it("an unknown option, and lists the known", function()
    local line = refused("x.mp4 --modle lite", { "--modle", "--model", "--output", "--smooth" })
    assert.falsy(line:find("\n", 1, true))
  end)
  it("a wrong type", function() refused("x.mp4 --start soon", { "--start", '"soon"', "number" }) end)
  it("a value that is no choice", function() refused("x.mp4 --model huge", { "--model", "huge", "lite, full or heavy" }) end)

  it("pictures of mixed sizes", function()
    if not has_weights() then return pending "needs the networks' weights: make models" end
    refused(quote(folder .. "/mixed"), { "frame_2.png", "96", "80" })
  end)
  it("a corrupt PNG", function()
    if not has_weights() then return pending "needs the networks' weights: make models" end
    refused(quote(folder .. "/corrupt"), { "frame_1.png" })
  end)
  it("frames without a person", function()
    if not has_weights() then return pending "needs the networks' weights: make models" end
    refused(quote(folder .. "/black"), { "black", "no person found in 3 frames" })
  end)
  it("a folder that cannot be written", function()
    refuses("landmarks", ("%s --output %s"):format(quote(folder .. "/black"), quote(unwritable())), { "a_file", "a file is in the way" })
  end)
end)

describe("train refuses #process", function()
  local function refused(arguments, words)
    local out = fresh()
    local line = refuses("train", ("%s --output %s %s"):format(FAST, quote(out), arguments), words, out)
    assert.is_false(files.exists(out))
    return line
  end
  local function data() return "--data " .. quote(folder .. "/bodies") end

  it("a missing folder", function() refused("--data " .. quote(folder .. "/nowhere"), { "nowhere", "no such folder" }) end)
  it("an empty folder", function() refused("--data " .. quote(folder .. "/empty"), { folder .. "/empty", "no sequences" }) end)
  it("a folder of texts", function() refused("--data " .. quote(folder .. "/texts"), { folder .. "/texts", "no sequences" }) end)
  it("a file in place of a folder", function() refused("--data " .. quote(folder .. "/text.mp4"), { "text.mp4", "not a folder" }) end)
  it("text and empty files named .npy", function()
    for _, name in ipairs { "text.npy", "empty.npy" } do
      local bad = folder .. "/bad_" .. name
      for i = 1, 6 do files.copy(("%s/bodies/%02d.npy"):format(folder, i), ("%s/%02d.npy"):format(bad, i)) end
      files.copy(folder .. "/" .. name, bad .. "/02.npy")
      refused(("--data %s %s"):format(quote(bad), SPLIT), { "02.npy" })
    end
  end)
  it("an unknown option, and lists the known", function() refused(data() .. " --epoch 3", { "--epoch", "--epochs", "--window", "--data" }) end)
  it("a wrong type", function() refused(data() .. " --epochs many", { "--epochs", '"many"', "whole number" }) end)
  it("0 epochs", function() refused(data() .. " --epochs 0", { "--epochs is 0", "at least 1" }) end)
  it("an unknown sequence", function() refused(data() .. " --train 1-3,77 --validate 4,5 --test 6", { "--train", "77", "01" }) end)
  it("an empty validation set", function() refused(data() .. " --train 1-3 --validate none --test 6", { "--validate" }) end)
  it("an empty training set", function() refused(data() .. " --train none --validate 4,5 --test 6", { "--train" }) end)
  it("an overlap of splits", function() refused(data() .. " --train 1-4 --validate 4,5 --test 6", { "04", "--train", "--validate" }) end)
  it("the same content under two names", function()
    local twin = folder .. "/twins"
    for i = 1, 6 do files.copy(("%s/bodies/%02d.npy"):format(folder, i == 6 and 1 or i), ("%s/%02d.npy"):format(twin, i)) end
    refused(("--data %s %s"):format(quote(twin), SPLIT), { "01", "06", "same content" })
  end)
  it("recordings shorter than a window", function()
    refused(("%s %s --window 100"):format(data(), SPLIT), { "window" })
  end)
  it("--device cuda without one", function()
    if select(2, shell "nvidia-smi -L") == 0 then return pending "there is a GPU here" end
    refused(("%s %s --device cuda"):format(data(), SPLIT), { "cuda" })
  end)
  it("a missing configuration file, and an unknown name in one", function()
    refused(data() .. " --config " .. quote(folder .. "/none.lua"), { "none.lua" })
    text_file(folder .. "/wrong.lua", "return { epoch = 3 }\n")
    refused(data() .. " --config " .. quote(folder .. "/wrong.lua"), { "wrong.lua", "epoch" })
  end)
  it("a folder that cannot be written", function()
    refuses("train", ("%s %s %s --output %s"):format(FAST, data(), SPLIT, quote(unwritable())), { "a_file", "a file is in the way" })
  end)
  it("an unknown skeleton, a size and a scale that are none, before any work", function()
    refused(("--data %s --skeleton martian"):format(quote(folder .. "/bodies")), { "--skeleton", '"martian"', "openpose18" })
    refused(("--data %s --size 640"):format(quote(folder .. "/bodies")), { "--size", '"640"', "WIDTHxHEIGHT" })
    refused(("--data %s --scale -3"):format(quote(folder .. "/bodies")), { "--scale", "number of pixels" })
  end)
  it("labels that are no labels", function()
    local labelled = folder .. "/labelled"
    for i = 1, 6 do files.copy(("%s/bodies/%02d.npy"):format(folder, i), ("%s/%02d.npy"):format(labelled, i)) end
    text_file(labelled .. "/labels.csv", "sequence,label\n01,perhaps\n")
    refused(("--data %s %s"):format(quote(labelled), SPLIT), { "labels.csv", "line 2", "perhaps" })
  end)
end)

describe("render refuses #process", function()
  local function refused(arguments, words)
    local out = fresh()
    refuses("render", ("%s --output %s"):format(arguments, quote(out)), words, out)
    assert.is_false(files.exists(out))
  end

  it("an unknown option, and lists the known", function() refused("--frame 3", { "--frame", "--frames", "--sequences" }) end)
  it("a wrong type, size, count and kind", function()
    refused("--frames few", { "--frames", '"few"', "whole number" })
    refused("--size big", { "--size", "WIDTHxHEIGHT" })
    refused("--sequences 0", { "--sequences is 0" })
    refused("--abnormal 12:wild", { "--abnormal", "wild", "burst" })
    refused("--abnormal 12:normal", { "--abnormal", "normal", "burst" })
  end)
  it("a folder that cannot be written", function()
    refuses("render", ("--sequences 1 --frames 2 --size 64x64 --output %s"):format(quote(unwritable())), { "a_file", "a file is in the way" })
  end)
end)

-- a detector from a run as short as can be, made once
local detector
local function trained()
  if not detector then
    local text, code = shell(("luajit recipes/train.lua %s --data %s %s --output %s"):format(FAST, quote(folder .. "/bodies"), SPLIT, quote(folder .. "/run")))
    assert.equal(0, code, text)
    detector = folder .. "/run/detector.safetensors"
  end
  return "--detector " .. quote(detector)
end

describe("detect #process", function()
  local function good() return quote(folder .. "/bodies/06.npy") end
  local function refused(arguments, words)
    local out = fresh()
    refuses("detect", ("--log-level warn %s --output %s"):format(arguments, quote(out)), words, out)
    assert.is_false(files.exists(out))
  end

  it("refuses to work without a detector, with a missing one, and with a file that is none", function()
    refused("--landmarks " .. good(), { "--detector is missing" })
    refused(("--landmarks %s --detector %s"):format(good(), quote(folder .. "/none.safetensors")), { "none.safetensors" })
    refused(("--landmarks %s --detector %s"):format(good(), quote(folder .. "/text.mp4")), { "text.mp4" })
    refused(("--landmarks %s --detector %s"):format(good(), quote(folder .. "/bodies/01.npy")), { "01.npy" })
  end)
  it("refuses to work without an input", function() refused(trained(), { "--video", "--landmarks" }) end)
  it("refuses a missing, an empty and a text input", function()
    refused(("%s --landmarks %s"):format(trained(), quote(folder .. "/none.npy")), { "none.npy" })
    refused(("%s --landmarks %s"):format(trained(), quote(folder .. "/empty.npy")), { "empty.npy" })
    refused(("%s --landmarks %s"):format(trained(), quote(folder .. "/text.npy")), { "text.npy" })
    refused(("%s --video %s"):format(trained(), quote(folder .. "/none.mp4")), { "none.mp4" })
    refused(("%s --video %s"):format(trained(), quote(folder .. "/empty.mp4")), { "empty.mp4" })
    refused(("%s --video %s"):format(trained(), quote(folder .. "/text.mp4")), { "text.mp4" })
    refused(("%s --video %s"):format(trained(), quote(folder .. "/texts")), { folder .. "/texts" })
  end)
  it("refuses an unknown option, a wrong type and --device cuda without one", function()
    refused(trained() .. " --landmark x.npy", { "--landmark", "--landmarks", "--video" })
    refused(trained() .. " --fps fast --landmarks " .. good(), { "--fps", '"fast"', "number" })
    if select(2, shell "nvidia-smi -L") ~= 0 then
      refused(("%s --landmarks %s --device cuda"):format(trained(), good()), { "cuda" })
    end
  end)
  it("refuses a folder that cannot be written", function()
    refuses("detect", ("%s --landmarks %s --log-level warn --output %s"):format(trained(), good(), quote(unwritable())), { "a_file", "a file is in the way" })
  end)
  it("goes on after a bad input and says why in summary.csv", function()
    local out = folder .. "/many"
    local text, code = shell(("luajit recipes/detect.lua %s --landmarks %s %s %s --output %s"):format(
      trained(), quote(folder .. "/text.npy"), good(), quote(folder .. "/none.npy"), quote(out)))
    assert.equal(0, code, text)
    local summary = assert(files.read(out .. "/summary.csv"))
    local _, rows = summary:gsub("\n", "\n")
    assert.equal(4, rows, summary)
    assert.truthy(summary:find("text.npy", 1, true) and summary:find("none.npy", 1, true), summary)
    assert.is_true(files.exists(out .. "/06/report.html"))
    assert.is_false(files.exists(out .. "/text/report.html"))
  end)
end)
