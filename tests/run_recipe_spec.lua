-- Specs of recipes/run.lua: what it prints of a small network, inputs of each kind, files it writes, and what it refuses in one line.
local files = require "libration.files"
local lr = require "libration"
local made = require "helper_onnx"
local media = require "libration.media"
local npy = require "libration.formats.npy"
local shell = require "shell"

local folder

local function run(arguments) return shell(("luajit recipes/run.lua --threads 1 --repeat 1 %s"):format(arguments)) end

-- The mean of a picture's channels, as a 1x1 convolution; height and width are open.
local function mean_of_channels()
  return made.model {
    inputs = { made.info("image", "f32", { 1, 3, "height", "width" }) }, outputs = { made.info("grey", "f32", { 1, 1, "height", "width" }) },
    constants = { made.tensor("w", "f32", { 1, 3, 1, 1 }, { 1 / 3, 1 / 3, 1 / 3 }) }, nodes = { made.node("Conv", { "image", "w" }, { "grey" }) },
  }
end

describe("run #process", function()
  setup(function()
    folder = files.temporary_folder()
    files.write(folder .. "/grey.onnx", mean_of_channels())
    files.write(folder .. "/odd.onnx", made.model { inputs = { made.info("x", "f32", { 2 }) }, outputs = { made.info("y", "f32", { 2 }) },
      nodes = { made.node("Frobnicate", { "x" }, { "y" }) } })
    local pixels = lr.full({ 4, 6, 3 }, 30, "u8")
    pixels:narrow(3, 1, 1):fill_(90)
    media.write_png(folder .. "/a.png", pixels)
    files.mkdirs(folder .. "/empty")
    npy.save(folder .. "/a.npy", lr.ones { 1, 3, 2, 5 })
  end)
  teardown(function() files.remove(folder) end)

  it("a picture in its own size, prepared as asked; layers, outputs and times are printed, arrays written", function()
    local text, code = run(("--model %s/grey.onnx --input %s/a.png --divide 10 --mean 1,2,3 --sd 2 --output %s/out"):format(folder, folder, folder))
    assert.equal(0, code, text)
    assert.is_truthy(text:find("conv2d           1x1", 1, true), text)
    assert.is_truthy(text:find("3 layers, 3 parameters", 1, true), text)
    assert.is_truthy(text:find("output  grey", 1, true) and text:find("f32 [1,1,4,6]: 1.5 to 1.5, mean 1.5", 1, true), text) -- ((9 - 1) + (3 - 2) + (3 - 3)) / 2 / 3
    assert.is_truthy(text:find("ms a run", 1, true), text)
    assert.same({ 1, 1, 4, 6 }, (assert(npy.load(folder .. "/out/grey.npy"))).shape)
  end)

  it("an array, random numbers, sizes that are asked for", function()
    local text, code = run(("--model %s/grey.onnx --input %s/a.npy"):format(folder, folder))
    assert.equal(0, code, text)
    assert.is_truthy(text:find("f32 [1,1,2,5]: 1 to 1", 1, true), text)
    text, code = run(("--model %s/grey.onnx --shape image=1x3x7x9"):format(folder))
    assert.equal(0, code, text)
    assert.is_truthy(text:find("output  grey%s+f32 %[1,1,7,9%]"), text)
  end)

  it("saves a plan, which it runs like any network, to the same numbers", function()
    local text, code = run(("--model %s/grey.onnx --shape image=1x3x4x6 --input %s/a.png --save %s/grey.plan"):format(folder, folder, folder))
    assert.equal(0, code, text)
    assert.is_truthy(text:find("saved   " .. folder .. "/grey.plan", 1, true), text)
    local again
    again, code = run(("--model %s/grey.plan --input %s/a.png"):format(folder, folder))
    assert.equal(0, code, again)
    assert.is_truthy(again:find("a saved plan of", 1, true), again)
    assert.equal(text:match "output[^\n]*", again:match "output[^\n]*")
    text, code = run(("--model %s/grey.plan --input %s/a.png --save %s/b.plan"):format(folder, folder, folder))
    assert.is_true(code ~= 0 and text:find("is a saved plan already", 1, true) ~= nil, text)
    text, code = run(("--model %s/grey.onnx --save %s/b.txt"):format(folder, folder))
    assert.is_true(code ~= 0 and text:find("want a name that ends in .plan", 1, true) ~= nil, text)
  end)

  it("int8: calibrated with the pictures of a folder, its error against f32 and the share of the limit printed", function()
    local text, code = run(("--model %s/grey.onnx --input %s/a.png --precision int8 --calibrate %s"):format(folder, folder, folder .. "/a.png"))
    assert.equal(0, code, text)
    assert.is_truthy(text:find("int8: 1 of 1 convolutions in 8 bits, percentile calibration", 1, true), text)
    assert.is_truthy(text:find("error   grey%s+against f32: relative L2 0, largest 0"), text)
    assert.is_truthy(text:find("of limit", 1, true) and text:find("limit, measured beside it", 1, true), text)
  end)

  it("refuses in one line: no file, an unknown operator, wrong inputs and shapes", function()
    for arguments, words in pairs {
      ["--model " .. folder .. "/none.onnx"] = "none.onnx: No such file", ["--model " .. folder .. "/a.npy"] = "a network file ends in .tflite, .onnx or .plan",
      ["--model " .. folder .. "/odd.onnx"] = "node 'n_y' (Frobnicate): this operator is not supported",
      ["--model " .. folder .. "/grey.onnx --input a.npy,b.npy"] = "2 files, ", ["--model " .. folder .. "/grey.onnx --precision int8"] = "wants --calibrate",
      ["--model " .. folder .. "/grey.onnx --precision int8 --calibrate " .. folder .. "/empty"] = "has no picture",
      ["--model " .. folder .. "/grey.onnx --precision int4"] = "int4", ["--model " .. folder .. "/grey.onnx --shape 3x4"] = "want NAME=1x3x640x640",
      ["--model " .. folder .. "/grey.onnx --shape image=1x4x3x3"] = "for 4 channels",
    } do
      local text, code = run(arguments .. " 2>&1 >/dev/null")
      assert.is_true(code ~= 0 and code < 128, text)
      assert.is_truthy(text:find(words, 1, true), text)
      assert.is_truthy(text:find "^run: [^\n]*\n$", text)
    end
  end)
end)
