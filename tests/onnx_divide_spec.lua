-- onnx_divide_spec.lua: networks whose results have as many elements as the numbers say, and what their operators refuse. Operators one by one: tools/conformance.lua.
local lr = require "libration"
local helper = require "helper"
local build = require "helper_onnx"
local files = require "libration.files"
local graph = require "libration.graph"

local T, N, I = build.tensor, build.node, build.info
local name = os.tmpname()
local path = name .. ".onnx"
teardown(function()
  os.remove(name)
  os.remove(path)
end)

local function load(model, options)
  assert(files.write(path, build.model(model, 17)))
  return graph.load(path, options)
end

-- 100 boxes of a picture [1,1,10,10]: centres on a lattice 1 apart, 1.5 wide; the scores are the picture times 2. Results: boxes, scores and how many.
local function detector()
  local shift = {}
  for i = 0, 99 do
    for _, v in ipairs {i % 10, math.floor(i / 10), 1.5, 1.5} do shift[#shift + 1] = v end
  end
  return {
    inputs = {I("x", "f32", {1, 1, 10, 10})},
    outputs = {I("kept", "f32", {"n", 4}), I("score", "f32", {"n"}), I("count", "i64", {1}), I("map", "f32", {1, 1, 10, 10})},
    constants = {
      T("w", "f32", {1, 1, 1, 1}, {2}), T("boxes", "f32", {1, 100, 4}, shift), T("flat", "i64", {3}, {1, 1, 100}), T("line", "i64", {1}, {100}),
      T("most", "i64", {1}, {20}), T("iou", "f32", {1}, {.1}), T("least", "f32", {1}, {1}),
      T("last", "i64", {1}, {2}), T("second", "i64", {1}, {1}), T("all", "i64", {2}, {100, 4}),
    },
    nodes = {
      N("Conv", {"x", "w"}, {"map"}), N("Reshape", {"map", "flat"}, {"scores"}),
      N("NonMaxSuppression", {"boxes", "scores", "most", "iou", "least"}, {"picked"}, {center_point_box = 1}),
      N("Gather", {"picked", "last"}, {"column"}, {axis = 1}), N("Squeeze", {"column", "second"}, {"index"}),
      N("Reshape", {"boxes", "all"}, {"table"}), N("Gather", {"table", "index"}, {"kept"}, {axis = 0}),
      N("Reshape", {"scores", "line"}, {"row"}), N("Gather", {"row", "index"}, {"score"}, {axis = 0}),
      N("Shape", {"score"}, {"count"}),
    },
  }
end

describe("a network with suppression inside", function()
  it("has one plan for all pictures, and as many results as are kept", function()
    local net = assert(load(detector()))
    for round, want in ipairs {{{12, 1.8}, {67, 1.4}, {45, 1.2}}, {{90, 1.6}}, {}} do
      local x = lr.zeros {1, 1, 10, 10}
      for _, v in ipairs(want) do x:set(v[2] / 2, 1, 1, math.floor(v[1] / 10) + 1, v[1] % 10 + 1) end
      if round == 1 then x:set(.8, 1, 1, 2, 4) end -- beside the best, suppressed
      local y = net:run(x)
      assert.are.equal(#want, y.count:get(1))
      assert.are.same({#want, 4}, y.kept.shape)
      for i, v in ipairs(want) do
        assert.are.equal(v[1] % 10, y.kept:get(i, 1))
        assert.is_true(math.abs(y.score:get(i) - v[2]) < 1e-6)
      end
      assert.are.equal(0, helper.difference(x * 2, y.map))
      assert.is_true(net.graph.divided)
    end
    assert.is_truthy(tostring(net:profile(lr.zeros {1, 1, 10, 10})):find("conv2d", 1, true))
    helper.refuses("depend on the numbers", net.trainable, net)
  end)
  it("is left whole where the results that are asked for need none of it", function()
    local net = assert(load(detector(), {outputs = {"map"}}))
    net:run(lr.zeros {1, 1, 10, 10})
    assert.is_falsy(net.graph.divided)
  end)
  it("what is not 0, what is different and what is chosen by a mask follow the numbers", function()
    local net = assert(load {
      inputs = {I("x", "f32", {"n"})},
      outputs = {I("places", "i64", {1, "k"}), I("different", "f32", {"d"}), I("positive", "f32", {"p"})},
      constants = {T("zero", "f32", {}, {0})},
      nodes = {N("Abs", {"x"}, {"a"}), N("NonZero", {"a"}, {"places"}), N("Unique", {"a"}, {"different"}), N("Greater", {"x", "zero"}, {"mask"}),
        N("Compress", {"a", "mask"}, {"positive"})},
    })
    for _, n in ipairs {5, 200} do -- few numbers make a plan of their own, many divide the model
      local list = {}
      for i = 1, n do list[i] = (i % 5 - 2) end
      local y = net:run(lr.tensor(list))
      assert.are.same({1, n * 4 / 5}, y.places.shape)
      assert.are.same({0, 1, 2}, y.different:totable())
      assert.are.equal(n * 2 / 5, y.positive:numel())
    end
  end)
end)

describe("operators name their node where they cannot", function()
  local function refused(text, op, inputs, attributes, shapes)
    local infos, names, constants = {}, {}, {}
    for i, v in ipairs(inputs) do
      names[i] = "i" .. i
      if v == "" then names[i] = "" elseif type(v) == "string" then constants[#constants + 1] = v else infos[#infos + 1] = I(names[i], v[1], v[2]) end
    end
    local net, err = load {inputs = infos, outputs = {I("y", "f32", shapes or {1})}, constants = constants, nodes = {N(op, names, {"y"}, attributes)}}
    assert(not net and err:find("node 'n_y' (" .. op .. "): ", 1, true) and err:find(text, 1, true) and not err:find "\n", tostring(err))
  end
  local x = {"f32", {1, 4, 6, 6}}
  it("by the numbers that they meet, at the first run and at later ones", function()
    local nodes = {N("Abs", {"table"}, {"size"}), N("Gather", {"size", "index"}, {"y"}, {axis = 0})}
    for _, first in ipairs {{0, 1, 9}, {0, 1, 2}} do
      local net = assert(load {inputs = {I("table", "f32", {4, 2}), I("index", "i64", {3})}, outputs = {I("y", "f32", {3, 2})}, nodes = nodes})
      pcall(net.run, net, lr.zeros {4, 2}, lr.tensor(first, "i32"))
      helper.refuses("(gather): gather: index 9 at element 3, there are 4 rows", net.run, net, lr.zeros {4, 2}, lr.tensor({0, 1, 9}, "i32"))
      assert.are.same({3, 2}, net:run(lr.zeros {4, 2}, lr.tensor({3, 2, 1}, "i32")).y.shape)
    end
  end)
  it("by shapes and attributes", function()
    refused("topk: 9 of dim 4", "TopK", {x, T("i2", "i64", {1}, {9})})
    refused("index 7", "GatherElements", {T("i1", "f32", {2}, {1, 2}), T("i2", "i64", {2}, {0, 7})}, {axis = 0})
    refused("reduction sum", "ScatterElements", {x, T("i2", "i64", {1, 1, 1, 1}, {0}), T("i3", "f32", {1, 1, 1, 1}, {0})}, {reduction = "sum"})
    refused("a window of 9 in 6 pixels", "MaxPool", {x}, {kernel_shape = {9, 9}})
    refused("weights [3,2,3,3] in 1 groups for [1,4,6,6]", "ConvTranspose", {x, {"f32", {3, 2, 3, 3}}})
    refused("mode area", "Resize", {x, "", T("i3", "f32", {4}, {1, 1, 2, 2})}, {mode = "area"})
    refused("3 groups of 4 channels", "GroupNormalization", {x, {"f32", {4}}, {"f32", {4}}}, {num_groups = 3})
    refused("want three dims", "LSTM", {x, {"f32", {1, 8, 6}}, {"f32", {1, 8, 2}}}, {hidden_size = 2})
    refused("weights [1,8,6] and [1,6,2]", "GRU", {{"f32", {5, 1, 6}}, {"f32", {1, 8, 6}}, {"f32", {1, 6, 2}}})
    refused("numbers of kind i64", "QuantizeLinear", {x, T("i2", "f32", {}, {1}), T("i3", "i64", {}, {0})})
    refused("[1,4,6] with 5 heads", "Attention", {{"f32", {1, 4, 6}}, {"f32", {1, 4, 6}}, {"f32", {1, 4, 6}}}, {q_num_heads = 5, kv_num_heads = 5})
    refused("a depth of -1", "OneHot", {{"i64", {3}}, T("i2", "i64", {}, {-1}), T("i3", "f32", {2}, {0, 1})})
  end)
end)
