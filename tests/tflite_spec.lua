-- TFLite files: operators, options, constants, sparse tensors, broken files. Running them is graph_spec's.
local reader = require "libration.formats.reader"
local tflite = require "libration.formats.tflite"
local import = require "libration.graph.tflite"
local densify = require "libration.graph.densify"
local lr = require "libration"
local helper_tflite = require "helper_tflite"

local function load(bytes)
  return tflite.load(reader.memory("x.tflite", bytes))
end

-- A model of one operator on float tensors of the given shapes.
local function one(code, shapes, outputs, extra)
  local tensors = {}
  for i, shape in ipairs(shapes) do tensors[i] = { name = "t" .. i - 1, shape = shape } end
  for i, t in pairs(extra and extra.tensors or {}) do tensors[i] = t end
  local inputs = {}
  for i = 0, #tensors - 2 do inputs[#inputs + 1] = i end
  return helper_tflite.model { tensors = tensors, inputs = { 0 }, outputs = { #tensors - 1 },
    operators = { { code = code, inputs = extra and extra.inputs or inputs, outputs = outputs or { #tensors - 1 }, type = extra and extra.type,
      options = extra and extra.options } } }
end

describe("tflite", function()
  it("reads operators, options, names and constants", function()
    local model = assert(load(helper_tflite.small()))
    local names = {}
    for i, op in ipairs(model.operators) do names[i] = op.name end
    assert.equal("PAD DEQUANTIZE CONV_2D MUL ADD DEPTHWISE_CONV_2D DENSIFY CONV_2D ADD PRELU LOGISTIC RESIZE_BILINEAR CONV_2D", table.concat(names, " "))
    assert.same({ padding = "valid", stride = { 2, 2 }, dilation = { 1, 1 }, activation = "none" }, model.operators[3].options)
    assert.same({ align_corners = false, half_pixel = true }, model.operators[12].options)
    assert.equal("relu6", model.operators[5].options.activation)
    assert.same({ 0 }, model.inputs)
    assert.same({ 24, 20 }, model.outputs)
    assert.equal("image", model.tensors[1].name)
    assert.same({ 1, 6, 5, 2 }, model.tensors[1].shape)
    assert.is_nil(model.tensors[1].data)
    assert.same({ 2, 0.5, -1, 1.5 }, model.tensors[8].data:totable())
    assert.equal("f16", model.tensors[4].data.dtype)
    assert.same({ 0, 1, 2, 3 }, model.tensors[15].sparsity.order)
  end)

  it("unpacks sparse constants: compressed rows, blocks, other orders", function()
    local data = lr.tensor({ 1, 2, 3, 4, 5 })
    -- rows compressed: [[1,0,2],[0,3,0],[0,4,5]]
    local sparsity = { order = { 0, 1 }, block_map = {}, dims = { { size = 3 }, { segments = { 0, 2, 3, 5 }, indices = { 0, 2, 1, 1, 2 } } } }
    assert.same({ { 1, 0, 2 }, { 0, 3, 0 }, { 0, 4, 5 } }, densify.densify("t", data, { 3, 3 }, sparsity):totable())
    -- columns first
    sparsity.order = { 1, 0 }
    assert.same({ { 1, 0, 0 }, { 0, 3, 4 }, { 2, 0, 5 } }, densify.densify("t", data, { 3, 3 }, sparsity):totable())
    -- blocks of 1 x 2 in rows: [[1,2,0,0],[0,0,3,4]]
    sparsity = { order = { 0, 1, 2 }, block_map = { 1 }, dims = { { size = 2 }, { segments = { 0, 1, 2 }, indices = { 0, 1 } }, { size = 2 } } }
    assert.same({ { 1, 2, 0, 0 }, { 0, 0, 3, 4 } }, densify.densify("t", lr.tensor({ 1, 2, 3, 4 }), { 2, 4 }, sparsity):totable())
  end)

  it("refuses broken sparse descriptions", function()
    local data = lr.tensor({ 1, 2, 3, 4, 5 })
    for _, case in ipairs {
      { order = { 0, 0 }, dims = { { size = 3 }, { segments = { 0, 2, 3, 5 }, indices = { 0, 2, 1, 1, 2 } } } },
      { order = { 0, 5 }, dims = { { size = 3 }, { segments = { 0, 2, 3, 5 }, indices = { 0, 2, 1, 1, 2 } } } },
      { order = { 0 }, dims = { { size = 3 } } },
      { order = { 0, 1 }, dims = { { size = 4 }, { segments = { 0, 2, 3, 5 }, indices = { 0, 2, 1, 1, 2 } } } },
      { order = { 0, 1 }, dims = { { size = 3 }, { segments = { 0, 2, 3, 5 }, indices = { 0, 3, 1, 1, 2 } } } },
      { order = { 0, 1 }, dims = { { size = 3 }, { segments = { 0, 2, 3, 5 }, indices = { 0, 2, 1, 1, -2 } } } },
      { order = { 0, 1 }, dims = { { size = 3 }, { segments = { 0, 900, 3, 5 }, indices = { 0, 2, 1, 1, 2 } } } },
      { order = { 0, 1 }, dims = { { size = 3 }, { segments = { 0, 2, 1, 5 }, indices = { 0, 2, 1, 1, 2 } } } },
      { order = { 0, 1 }, dims = { { size = 3 }, { segments = { 0, 5 }, indices = { 0, 2, 1, 1, 2 } } } },
      { order = { 0, 1 }, dims = { { size = 3 }, { segments = { 0, 1, 2, 3 }, indices = { 0, 2, 1 } } } },
    } do
      case.block_map = {}
      local ok, err = pcall(densify.densify, "t", data, { 3, 3 }, case)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find("^sparse tensor 't': "), err)
    end
    assert.has_error(function()
      densify.densify("t", lr.tensor({ 1 }), { 30000, 30000 }, { order = { 0, 1 }, block_map = {}, dims = { { size = 30000 }, { size = 30000 } } })
    end)
  end)

  for name, case in pairs {
    ["other bytes"] = { ("x"):rep(64), "not a TFL3 file" },
    ["a short file"] = { "abc", "not a TFL3 file" },
    ["a root outside"] = { "\255\255\255\127TFL3", "wanted at byte" },
    ["another version"] = { helper_tflite.flatbuffer("TFL3", { [0] = { "u32", 9 } }), "schema version 9" },
    ["no subgraph"] = { helper_tflite.flatbuffer("TFL3", { [0] = { "u32", 3 } }), "0 subgraphs" },
    ["a tensor that is not there"] = { one(19, { { 1, 2 }, { 1, 2 } }, { 7 }), "tensor 7 of 2" },
    ["a constant of another size"] = { one(0, { { 1, 2 }, { 3 }, { 1, 2 } }, nil,
      { tensors = { [2] = { name = "c", shape = { 3 }, data = "12345678" } } }), "'c': f32 [3] in a buffer of 8 bytes" },
    ["a constant of 10^9 elements"] = { one(0, { { 1, 2 }, { 1, 2 }, { 1, 2 } }, nil,
      { tensors = { [2] = { name = "c", shape = { 1000, 1000, 1000 }, data = "12345678" } } }), "'c': f32 [1000,1000,1000] in a buffer of 8 bytes" },
    ["a shape that overflows"] = { one(0, { { 1, 2 }, { 1, 2 }, { 1, 2 } }, nil,
      { tensors = { [2] = { name = "c", shape = { 65536, 65536, 65536, 65536 }, data = "12345678" } } }), "'c': f32 [65536,65536,65536,65536] in a buffer of 8 bytes" },
    ["a stride of 0"] = { one(3, { { 1, 4, 4, 2 }, { 2, 1, 1, 2 }, { 1, 4, 4, 2 } }, nil, { type = 1, options = { [0] = { "i8", 0 } } }), "want at least 1" },
  } do
    it("refuses " .. name, function()
      local none, err = load(case[1])
      assert.is_nil(none)
      assert.is_truthy(err:find(case[2], 1, true), err)
    end)
  end

  for name, case in pairs {
    ["an unknown operator"] = { one(79, { { 1, 2 }, { 1, 2 } }), "operator 0 (OPERATOR_79): this operator is not supported" },
    ["a missing input"] = { one(3, { { 1, 4, 4, 2 }, { 1, 4, 4, 2 } }, nil,
      { inputs = { 0 }, type = 1, options = { [1] = { "i32", 1 }, [2] = { "i32", 1 } } }), "input 2 is missing" },
    ["a computed padding"] = { one(34, { { 1, 4, 4, 2 }, { 4, 2 }, { 1, 4, 4, 2 } }), "not a constant of whole numbers" },
    ["a graph in a circle"] = { helper_tflite.model { tensors = { { name = "x", shape = { 1, 2 } }, { name = "a", shape = { 1, 2 } }, { name = "b", shape = { 1, 2 } } },
      inputs = { 0 }, outputs = { 2 }, operators = { { code = 0, inputs = { 0, 2 }, outputs = { 1 } }, { code = 0, inputs = { 1, 0 }, outputs = { 2 } } } },
      "reads 'b' before it is made" },
    ["an output read before it is made"] = { one(0, { { 1, 2 }, { 1, 2 }, { 1, 2 } }, nil, { inputs = { 0, 1 } }), "reads 't1' before it is made" },
    ["the wrong number of dims"] = { one(17, { { 1, 4 }, { 1, 4 } }, nil,
      { type = 5, options = { [1] = { "i32", 1 }, [2] = { "i32", 1 }, [3] = { "i32", 1 }, [4] = { "i32", 1 } } }), "want 4 dims" },
  } do
    it("import refuses " .. name, function()
      local none, err = import.import(assert(load(case[1])))
      assert.is_nil(none)
      assert.is_truthy(err:find(case[2], 1, true), err)
    end)
  end

  it("a network that is larger than a tensor can be is refused in one line, where it is loaded or where it is run", function()
    local g = assert(import.import(assert(load(one(0, { { 65536, 65536 }, { 65536, 65536 } }, nil, { inputs = { 0, 0 } })))))
    local network, err = require "libration.graph".compile(g)
    if network then err = select(2, pcall(network.run, network, lr.zeros { 65536, 1 })) end
    assert.is_truthy(tostring(err):find("65536", 1, true), err)
    assert.is_falsy(tostring(err):find "\n")
  end)
end)
