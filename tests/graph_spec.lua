-- Imported networks: passes, lowering and plans on a network made here, and the pose networks against what LiteRT answered.
local lr = require "libration"
local files = require "libration.files"
local graph = require "libration.graph"
local npy = require "libration.formats.npy"
local reader = require "libration.formats.reader"
local tflite = require "libration.formats.tflite"
local import = require "libration.graph.tflite"
local passes = require "libration.graph.passes"
local weights = require "libration.weights"
local helper = require "helper"
local helper_tflite = require "helper_tflite"
local mutate = require "mutate"

-- What LiteRT 1.4.0 (without XNNPACK) answers on helper_tflite.small() and its input.
local map = { 3.06614, 0, 0.887457, 3.34821, 0.349394, 1.81833, 3.91236, 2.07276, 3.68006, 4.61232, 3.66042, 5.52848, 5.4481, 5.11235, 7.36359,
  5.866, 5.83832, 8.28114, 5.67426, 0, 1.54795, 4.92192, 0.14041, 1.99049, 3.41724, 1.31274, 2.87556, 3.00784, 2.47002, 4.03432, 3.69373, 3.61226,
  5.46675, 4.03667, 4.18338, 6.18296, 10.8905, 0, 2.86894, 8.06933, 0, 2.33481, 2.427, 0, 1.26656, 0, 0.0892267, 1.04598, 0.184982, 0.612079,
  1.67306, 0.378029, 0.873505, 1.98661, 9.63687, 0, 2.36271, 6.80885, 0, 1.89719, 1.1528, 0, 0.966139, 0, 0, 0.724267, 0, 0.0466061, 1.17157, 0,
  0.23719, 1.39523, 1.91339, 0, 0.0292821, 1.14047, 0, 0.677621, 0, 0.26733, 1.9743, 0, 1.19865, 3.06919, 0.810951, 1.91584, 3.96228, 1.47403,
  2.27444, 4.40883, 0, 0, 0, 0, 0, 0.0678372, 0, 0.678888, 2.47838, 0, 1.96526, 4.24164, 1.6044, 2.85046, 5.35763, 2.44914, 3.29306, 5.91563 }
local probability = { 0.904398, 0.797911, 0.845942, 0.43598, 0.962462, 0.692122, 0.592667, 0.798147, 0.994749, 0.664078, 0.5, 0.872347, 0.998532,
  0.992102, 0.588327, 0.422825, 0.558327, 0.49527, 0.948917, 0.480578, 0.617513, 0.5, 0.933431, 0.5, 0.5, 0.542591, 0.958148, 0.48459, 0.519521,
  0.479907, 0.903347, 0.992334, 0.986507, 0.620262, 0.929007, 0.725649 }

local function imported(bytes)
  return assert(import.import(assert(tflite.load(reader.memory("small.tflite", bytes)))))
end

-- Largest difference of a tensor from a list or another tensor of as many elements.
local function difference(t, want)
  local p, n, worst = t:contiguous():ptr(), t:numel(), 0
  local q = type(want) == "table" and function(i) return want[i + 1] end
  if not q then
    local r = want:contiguous()
    local rp = r:ptr()
    assert.equal(n, r:numel())
    q = function(i) return rp[i] end
  else
    assert.equal(n, #want)
  end
  for i = 0, n - 1 do
    local d = math.abs(p[i] - q(i))
    if d ~= d then return math.huge end
    worst = math.max(worst, d)
  end
  return worst
end

local function small_image(batch)
  local one = helper_tflite.small_input()
  local t = lr.empty({ batch or 1, 6, 5, 2 })
  local p = t:ptr()
  for b = 0, (batch or 1) - 1 do
    for i = 0, 59 do p[b * 60 + i] = one[i + 1] * (1 - 0.25 * b) end
  end
  return t
end

describe("graph", function()
  local folder
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  it("a network of every kind of layer equals LiteRT within 1e-4, with passes and without", function()
    files.write(folder .. "/small.tflite", helper_tflite.small())
    for _, with in ipairs { true, false } do
      local network = assert(graph.load(folder .. "/small.tflite", { passes = with }))
      for _ = 1, 2 do -- recorded, then replayed
        local out = network:run(small_image())
        assert.is_true(difference(out.map, map) < 1e-4)
        assert.is_true(difference(out.probability, probability) < 1e-5)
      end
      assert.same({ 1, 6, 6, 3 }, network:run(small_image()).map.shape)
    end
  end)

  it("passes fold what can be folded", function()
    local g = imported(helper_tflite.small())
    assert.equal(16, #g.nodes) -- 13 operators, three of them with an activation of their own
    assert(passes.run(g, nil, true))
    -- PAD, DEQUANTIZE, MUL, ADD, RELU6, DENSIFY, ADD, PRELU are gone; the last convolution runs before the enlargement
    assert.same({ conv2d = 3, depthwise = 1, sigmoid = 1, resize_bilinear = 1, relu = 1 }, g:count())
    local acts = {}
    for _, node in ipairs(g.nodes) do acts[#acts + 1] = node.attr.act end
    assert.same({ "relu6", "relu", "prelu", "none" }, acts)
    assert.same({ 1, 1, 1, 1 }, g.nodes[1].attr.pad)
    assert.is_truthy(g.nodes[3].inputs[4])
    assert.is_truthy(tostring(g):find("conv2d", 1, true))
  end)

  it("a batch equals its pictures one by one", function()
    local network = assert(graph.compile(imported(helper_tflite.small())))
    local three = network:run(small_image(3))
    assert.same({ 3, 6, 6, 3 }, three.map.shape)
    local maps, chances = three.map:clone(), three.probability:clone()
    for b = 1, 3 do
      local one = network:run(small_image(3):narrow(1, b, 1):contiguous())
      assert.is_true(difference(one.map, maps:narrow(1, b, 1)) < 1e-5)
      assert.is_true(difference(one.probability, chances:narrow(1, b, 1)) < 1e-6)
    end
  end)

  it("loaded and first run inside scopes, it lives on after them", function()
    files.write(folder .. "/small.tflite", helper_tflite.small())
    local network
    lr.scope(function()
      lr.scope(function()
        network = assert(graph.load(folder .. "/small.tflite"))
        assert.is_true(difference(network:run(small_image()).map, map) < 1e-4)
      end)
    end)
    assert.is_true(difference(network:run(small_image()).map, map) < 1e-4)
    assert.same({ 2, 6, 6, 3 }, network:run(small_image(2)).map.shape)
  end)

  it("only the outputs that are asked for are computed", function()
    local network = assert(graph.compile(imported(helper_tflite.small()), { outputs = { "probability" } }))
    assert.is_nil(network.graph:count().resize_bilinear)
    local out = network:run(small_image())
    assert.is_nil(out.map)
    assert.is_true(difference(out.probability, probability) < 1e-5)
    local none, err = graph.compile(imported(helper_tflite.small()), { outputs = { "nothing" } })
    assert.is_nil(none)
    assert.equal("small.tflite has no output 'nothing', but map, probability", err)
  end)

  it("bf16 between the first layer and the heads: within 5 % of the largest answer", function()
    local g = imported(helper_tflite.small())
    local network = assert(graph.compile(g, { precision = "bf16" }))
    assert.equal(2, g:count().cast) -- after the stem, before the sigmoid and the head
    local out = network:run(small_image())
    assert.equal("f32", out.map.dtype)
    assert.is_true(difference(out.map, map) < 0.05 * 10.9)
    assert.is_true(difference(out.probability, probability) < 0.05)
    assert.has_error(function() graph.compile(imported(helper_tflite.small()), { precision = "f12" }) end)
  end)

  it("refuses wrong inputs at the caller's line, and files that are no networks", function()
    local network = assert(graph.compile(imported(helper_tflite.small())))
    for _, wrong in ipairs { lr.zeros({ 1, 6, 5, 3 }), lr.zeros({ 6, 5, 2 }), lr.zeros({ 1, 6, 5, 2 }, "f64") } do
      local ok, err = pcall(function() network:run(wrong) end)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find("graph_spec.lua:%d+: small.tflite: input 'image' is .*, want f32 %[B,6,5,2%]"), err)
    end
    assert.has_error(function() network:run() end)
    assert.is_truthy(select(2, graph.load(folder .. "/none.tflite")):find("none.tflite", 1, true))
    assert.is_truthy(select(2, graph.load(folder .. "/x.bin")):find("ends in .tflite", 1, true))
    files.write(folder .. "/x.tflite", "hello, this is text")
    assert.is_truthy(select(2, graph.load(folder .. "/x.tflite")):find("not a TFL3 file", 1, true))
  end)

  it("networks that mix pictures refuse a batch", function()
    local bytes = helper_tflite.model { inputs = { 0 }, outputs = { 1 },
      tensors = { { name = "x", shape = { 1, 2, 2, 1 } }, { name = "y", shape = { 2, 2, 2, 1 } } },
      operators = { { code = 2, inputs = { 0, 0 }, outputs = { 1 }, type = 10, options = { [0] = { "i32", 0 } } } } }
    local network = assert(graph.compile(imported(bytes)))
    assert.same({ { { { 1 }, { 2 } }, { { 3 }, { 4 } } }, { { { 1 }, { 2 } }, { { 3 }, { 4 } } } },
      network:run(lr.tensor({ { { { 1 }, { 2 } }, { { 3 }, { 4 } } } })).y:totable())
    assert.has_error(function() network:run(lr.zeros({ 2, 2, 2, 1 })) end)
  end)

  it("slice, transpose, mean, pooling, average, depth to space, fully connected", function()
    local i = function(list) return helper_tflite.bytes("i32", list) end
    local bytes = helper_tflite.model { inputs = { 0 }, outputs = { 2, 4, 6, 7, 8, 9, 12 },
      tensors = {
        { name = "x", shape = { 1, 2, 2, 4 } }, { name = "begin", shape = { 4 }, kind = "i32", data = i { 0, 0, 0, -3 } },
        { name = "cut", shape = { 1, 2, 2 } }, { name = "order", shape = { 4 }, kind = "i32", data = i { 0, 3, 1, 2 } },
        { name = "turned", shape = { 1, 4, 2, 2 } }, { name = "axes", shape = { 2 }, kind = "i32", data = i { 1, 2 } },
        { name = "mean", shape = { 1, 4 } }, { name = "max", shape = { 1, 1, 1, 4 } }, { name = "average", shape = { 1, 1, 1, 4 } },
        { name = "space", shape = { 1, 4, 4, 1 } }, { name = "w", shape = { 2, 16 }, data = helper_tflite.bytes("f32", helper_tflite.wave(32, 1, 1)) },
        { name = "b", shape = { 2 }, data = helper_tflite.bytes("f32", { 1, -1000 }) }, { name = "connected", shape = { 1, 2 } },
        { name = "ones", shape = { 4 }, kind = "i32", data = i { 1, 1, 1, 1 } },
      },
      operators = {
        { code = 45, inputs = { 0, 1, 13, 13 }, outputs = { 2 }, type = 32, options = { [1] = { "i32", 7 }, [4] = { "i32", 8 } } },
        { code = 39, inputs = { 0, 3 }, outputs = { 4 } },
        { code = 40, inputs = { 0, 5 }, outputs = { 6 }, type = 27, options = { [0] = { "u8", 0 } } },
        { code = 17, inputs = { 0 }, outputs = { 7 }, type = 5, options = { [0] = { "i8", 1 }, [1] = { "i32", 2 }, [2] = { "i32", 2 }, [3] = { "i32", 2 }, [4] = { "i32", 2 } } },
        { code = 1, inputs = { 0 }, outputs = { 8 }, type = 5, options = { [0] = { "i8", 1 }, [1] = { "i32", 2 }, [2] = { "i32", 2 }, [3] = { "i32", 2 }, [4] = { "i32", 2 } } },
        { code = 5, inputs = { 0 }, outputs = { 9 }, type = 94, options = { [0] = { "i32", 2 } } },
        { code = 9, inputs = { 0, 10, 11 }, outputs = { 12 }, type = 8, options = { [0] = { "i8", 1 } } },
      } }
    local network = assert(graph.compile(imported(bytes)))
    local x = lr.arange(16):reshape(1, 2, 2, 4)
    local first = x:get(1, 1, 1, 1) -- whichever number arange begins with
    local y = network:run(x)
    assert.same({ { { first + 1, first + 5 }, { first + 9, first + 13 } } }, y.cut:totable())
    assert.same({ { first + 1, first + 5 }, { first + 9, first + 13 } }, y.turned:select(1, 1):select(1, 2):totable())
    assert.same({ { first + 6, first + 7, first + 8, first + 9 } }, y.mean:totable())
    assert.same({ { { { first + 12, first + 13, first + 14, first + 15 } } } }, y.max:totable())
    assert.same({ { { { first + 6, first + 7, first + 8, first + 9 } } } }, y.average:totable())
    assert.same({ first, first + 1, first + 4, first + 5, first + 2, first + 3, first + 6, first + 7 }, y.space:reshape(16):narrow(1, 1, 8):totable())
    local w, sum = helper_tflite.wave(32, 1, 1), 1
    for k = 1, 16 do sum = sum + w[k] * (first + k - 1) end
    assert.is_true(math.abs(y.connected:get(1, 1) - math.max(sum, 0)) < 1e-3)
    assert.equal(0, y.connected:get(1, 2))
  end)

  it("survives 150 broken copies up to a run", function()
    local refused = mutate.survive(helper_tflite.small(), 150, function(copy)
      if copy == "" then return nil, "empty" end
      local model, err = tflite.load(reader.memory("x", copy))
      if not model then return nil, err end
      local g
      g, err = import.import(model)
      if not g then return nil, err end
      local network
      network, err = graph.compile(g)
      if not network then return nil, err end
      local inputs = {}
      for i, v in ipairs(network.inputs) do
        local n = reader.count_of(v.shape)
        if not n or n == 0 or n > 1e5 then return true end
        inputs[i] = lr.zeros(v.shape)
      end
      local ok = pcall(network.run, network, unpack(inputs))
      return ok
    end)
    assert.is_true(refused > 50)
  end)
end)

-- u8 [H,W,3] -> f32 [1,H,W,3], value * scale + shift
local function picture(path, scale, shift)
  local bytes = assert(npy.load(path))
  local h, w = bytes:size(1), bytes:size(2)
  local t = lr.empty({ 1, h, w, 3 })
  local from, to = bytes:ptr(), t:ptr()
  for i = 0, h * w * 3 - 1 do to[i] = from[i] * scale + shift end
  return t
end

local frames = { "000000000785_f000", "pose2sim_cam02_f050", "sports2d_walk_f060", "sports2d_walk_f150", "ta_chi_f040", "ta_chi_f200" }

describe("pose networks #slow", function()
  local function network(name, options)
    if not helper.shared("goldens/stages/anchors.npy") then return nil, "needs ../shared" end
    local ok, path = pcall(weights.path, name)
    if not ok then return nil, "needs the weights " .. name .. " (make models)" end
    return assert(graph.load(path, options))
  end
  local function golden(frame, name)
    return assert(npy.load(helper.shared(("goldens/stages/%s/%s.npy"):format(frame, name))))
  end

  it("pose_detection: boxes and scores within 1e-2 on six frames", function()
    local net, why = network("pose_detection")
    if not net then return pending(why) end
    for _, frame in ipairs(frames) do
      local out = net:run(picture(helper.shared(("goldens/stages/%s/detector_input_u8.npy"):format(frame)), 2 / 255, -1))
      local boxes, scores = difference(out.Identity, golden(frame, "detector_boxes")), difference(out.Identity_1, golden(frame, "detector_scores"))
      print(("  detector  %-20s boxes %.2g scores %.2g"):format(frame, boxes, scores))
      assert.is_true(boxes <= 1e-2 and scores <= 1e-2)
    end
  end)

  it("pose_landmark_full: ld_3d within .05, flag 1e-3, world 1e-3 on six frames; heatmap 1e-2, segmentation .5 (of 1667; LiteRT with and without XNNPACK differ by .27)", function()
    local net, why = network("pose_landmark_full")
    if not net then return pending(why) end
    for _, frame in ipairs(frames) do
      local out = net:run(picture(helper.shared(("goldens/stages/%s/landmark_input_u8.npy"):format(frame)), 1 / 255, 0))
      local d = { difference(out.Identity, golden(frame, "ld_3d")), difference(out.Identity_1, golden(frame, "flag")),
        difference(out.Identity_4, golden(frame, "world_raw")), difference(out.Identity_3, golden(frame, "heatmap")),
        difference(out.Identity_2, golden(frame, "segmentation")) }
      print(("  landmarks %-20s ld_3d %.2g flag %.2g world %.2g heatmap %.2g segmentation %.2g"):format(frame, unpack(d)))
      assert.is_true(d[1] <= 0.05 and d[2] <= 1e-3 and d[3] <= 1e-3 and d[4] <= 1e-2 and d[5] <= 0.5)
    end
  end)

  it("pose_landmark_full without segmentation answers the same", function()
    local net, why = network("pose_landmark_full", { outputs = { "Identity", "Identity_1", "Identity_3", "Identity_4" } })
    if not net then return pending(why) end
    local out = net:run(picture(helper.shared("goldens/stages/ta_chi_f040/landmark_input_u8.npy"), 1 / 255, 0))
    assert.is_nil(out.Identity_2)
    assert.is_true(difference(out.Identity, golden("ta_chi_f040", "ld_3d")) <= 0.05)
    assert.is_true(difference(out.Identity_3, golden("ta_chi_f040", "heatmap")) <= 1e-2)
  end)

  it("bf16: landmarks within 3 crop pixels on average, 10 at most, flag within .01 on six frames", function()
    local net, why = network("pose_landmark_full", { precision = "bf16", outputs = { "Identity", "Identity_1" } })
    if not net then return pending(why) end
    for _, frame in ipairs(frames) do
      local out = net:run(picture(helper.shared(("goldens/stages/%s/landmark_input_u8.npy"):format(frame)), 1 / 255, 0))
      local got, want = out.Identity:ptr(), golden(frame, "ld_3d")
      local p, sum, worst = want:ptr(), 0, 0
      for j = 0, 32 do
        local d = math.sqrt((got[5 * j] - p[5 * j]) ^ 2 + (got[5 * j + 1] - p[5 * j + 1]) ^ 2)
        sum, worst = sum + d / 33, math.max(worst, d)
      end
      local flag = difference(out.Identity_1, golden(frame, "flag"))
      print(("  bf16      %-20s mean %.2f worst %.2f crop pixels, flag %.2g"):format(frame, sum, worst, flag))
      assert.is_true(sum <= 3 and worst <= 10 and flag <= 0.01)
    end
  end)

  it("the passes change no answer of pose_detection by more than 1e-2", function()
    local net, why = network("pose_detection")
    if not net then return pending(why) end
    local plain = network("pose_detection", { passes = false })
    local x = picture(helper.shared("goldens/stages/ta_chi_f200/detector_input_u8.npy"), 2 / 255, -1)
    local a = net:run(x)
    local boxes, scores = a.Identity:clone(), a.Identity_1:clone()
    local b = plain:run(x)
    assert.is_true(difference(boxes, b.Identity) <= 1e-2 and difference(scores, b.Identity_1) <= 1e-2)
  end)
end)
