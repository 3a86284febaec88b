-- device_graph_spec.lua: imported networks on a CUDA device against the CPU: both kinds of file, batches, replays, 16-bit precisions, to and fro. Runs on whichever CUDA library
-- is found, emulated or real; the pose networks are device_pose_spec's.
local lr = require "libration"
local device = require "libration.device"
local files = require "libration.files"
local graph = require "libration.graph"
local helper = require "helper"
local helper_tflite = require "helper_tflite"

local count, reason = device.count()

local function image(batch)
  local one, t = helper_tflite.small_input(), lr.empty({ batch, 6, 5, 2 })
  for i = 0, batch * 60 - 1 do t:ptr()[i] = one[i % 60 + 1] * (1 - .25 * math.floor(i / 60)) end
  return t
end

-- Largest difference of named outputs, relative to the largest value of each.
local function apart(want, have)
  local worst = 0
  for name, t in pairs(want) do
    local d, size = helper.difference(t, have[name]:to "cpu")
    worst = math.max(worst, d / size)
  end
  return worst
end

describe("imported networks on a device", function()
  if count == 0 then
    it("are the CPU's", function() pending(reason) end)
    return
  end

  local folder, path
  setup(function()
    folder = files.temporary_folder()
    path = folder .. "/small.tflite"
    files.write(path, helper_tflite.small())
  end)
  teardown(function() files.remove(folder) end)

  it("every kind of layer, one picture and three, recorded and replayed, with passes and without: within 1e-6", function()
    for _, passes in ipairs { true, false } do
      local here, there = assert(graph.load(path, { passes = passes })), assert(graph.load(path, { passes = passes, device = "cuda" }))
      assert.equal("cuda:0", there.device)
      for _, batch in ipairs { 1, 3 } do
        local x = image(batch)
        for _ = 1, 3 do assert.is_true(apart(here:run(x), there:run(x:to "cuda")) <= 1e-6) end
      end
    end
  end)

  it("a plan there is on the device call by call, and each call is the CPU's within 1e-5", function()
    local network = assert(graph.load(path, { device = "cuda" }))
    local plan = network:profile(image(1):to "cuda")
    assert.equal(device.id "cuda", lr.core.C.lbr_plan_device(plan.plan))
    assert.is_nil(lr.compare(plan, "cpu", "cuda", 1e-5))
  end)

  it("f16 within 4e-3, bf16 within 3e-2 of the largest value", function()
    local x, want = image(1), assert(graph.load(path)):run(image(1))
    for precision, bound in pairs { f16 = 4e-3, bf16 = 3e-2 } do
      local off = apart(want, assert(graph.load(path, { precision = precision, device = "cuda" })):run(x:to "cuda"))
      io.write(("network in %s: %.1e of the largest value\n"):format(precision, off))
      assert.is_true(off > 0 and off <= bound)
    end
  end)

  it("move to the device and back; an input elsewhere and a device that is not there are refused by name", function()
    local network, x = assert(graph.load(path)), image(1)
    local map = network:run(x).map:clone()
    network:to "cuda"
    assert.is_true(helper.difference(map, network:run(x:to "cuda").map:to "cpu") <= 1e-5)
    helper.refuses("is on cpu, the network on cuda:0", network.run, network, x)
    network:to "cpu"
    assert.equal(0, helper.difference(map, network:run(x).map))
    local none, why = graph.load(path, { device = "cuda:15" })
    assert.is_nil(none)
    assert.matches("no device cuda:15", why)
    helper.refuses("the CPU has no f16 products", graph.load, path, { precision = "f16" })
  end)

  it("ONNX files: a face detector and an LSTM within 1e-5", function()
    for file, shape in pairs { ["ultraface/version-RFB-320.onnx"] = { 1, 3, 240, 320 }, ["lstm_onnx/v0.3_lower/model.onnx"] = false } do
      local full = helper.shared("data/models/" .. file)
      if not full then return pending "needs ../shared" end
      local here, there = assert(graph.load(full)), assert(graph.load(full, { device = "cuda" }))
      if not shape then
        shape = {}
        for d, size in ipairs(here.inputs[1].shape) do shape[d] = type(size) == "number" and size or 2 end
      end
      local x = lr.uniform(shape, { seed = 3, low = -1 })
      assert.is_true(apart(here:run(x), there:run(x:to "cuda")) <= 1e-5, file)
    end
  end)
end)
