-- ONNX: the wire format, the schema, the importer, the passes on it and networks that run. Small files are made here; shared models are compared with ONNX Runtime's answers.
local files = require "libration.files"
local graph = require "libration.graph"
local helper = require "helper"
local lr = require "libration"
local npy = require "libration.formats.npy"
local onnx = require "libration.formats.onnx"
local made = require "helper_onnx"
local mutate = require "mutate"
local reader = require "libration.formats.reader"

local folder

local function save(bytes, name)
  local path = folder .. "/" .. (name or "a.onnx")
  local file = assert(io.open(path, "wb")) -- without files.write's waiting for the disk
  file:write(bytes)
  file:close()
  return path
end

local function load(bytes, options) return graph.load(save(bytes), options) end

-- A network of one node over input x: its answer for a tensor.
local function apply(op, x, attributes, more, opset)
  local kinds = { f32 = "f32", i32 = "i64", u8 = "u8" }
  local names, constants = { "x" }, {}
  for i, t in ipairs(more or {}) do
    names[i + 1] = "c" .. i
    constants[i] = made.tensor(names[i + 1], t[1], t[2], t[3])
  end
  local network = assert(load(made.model({
    inputs = { made.info("x", kinds[x.dtype], x.shape) }, outputs = { made.info("y", "f32", {}) }, constants = constants,
    nodes = { made.node(op, names, { "y" }, attributes) },
  }, opset)))
  return network:run(x).y
end

local function near(want, have, tolerance)
  assert.same(want.shape, have.shape)
  assert.is_true((want:to "f64" - have:to "f64"):abs():max():item() <= (tolerance or 1e-5))
end

local function difference(a, b)
  return (a:to "f64" - b:to "f64"):abs():max():item() / math.max(1, b:to "f64":abs():max():item())
end

describe("onnx", function()
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  describe("files", function()
    local function tensor(bytes) return onnx.load_tensor(reader.memory("t", bytes)) end

    it("numbers of every kind, raw and typed, become the carrier's; wide whole numbers are limited", function()
      assert.same({ 1.5, -2 }, tensor(made.tensor("t", "f32", { 2 }, { 1.5, -2 })).data:totable())
      assert.same({ 1.5, -2 }, tensor(made.tensor("t", "f64", { 2 }, { 1.5, -2 })).data:totable())
      assert.same({ -3, 4 }, tensor(made.tensor("t", "i8", { 2 }, { -3, 4 })).data:totable())
      assert.same({ 1, 0 }, tensor(made.tensor("t", "bool", { 2 }, { 7, 0 })).data:totable())
      assert.same({ 2147483647, -2147483648, 5 }, tensor(made.tensor("t", "i64", { 3 }, { 2 ^ 40, -2 ^ 40, 5 })).data:totable())
      assert.same({ 1, -2 }, tensor(made.tensor("t", "f16", { 2 }, { 0x3c00, 0xc000 })).data:to("f32"):totable())
      assert.same({ 1, -2 }, tensor(made.tensor("t", "bf16", { 2 }, { 0x3f80, 0xc000 })).data:to("f32"):totable())
      local packed = made.bytes(4, made.raw("f32", { 1, 2, 3 }))
      assert.same({ 1, 2, 3 }, tensor(made.tensor("t", "f32", { 3 }, nil, packed)).data:totable())
      local single = made.float(4, 1) .. made.float(4, 2)
      assert.same({ 1, 2 }, tensor(made.tensor("t", "f32", { 2 }, nil, single)).data:totable())
      local whole = made.bytes(7, made.varint(-1) .. made.varint(300))
      assert.same({ -1, 300 }, tensor(made.tensor("t", "i64", { 2 }, nil, whole)).data:totable())
      assert.same({ 1, -2 }, tensor(made.tensor("t", "f16", { 2 }, nil, made.number(5, 0x3c00) .. made.number(5, 0xc000))).data:to("f32"):totable())
      assert.equal("string", tensor(made.tensor("t", 8, { 1 }, nil, made.bytes(6, "a"))).kind)
    end)

    it("constants larger than their bytes, shapes that overflow and other broken tensors are refused by name", function()
      for text, bytes in pairs {
        ["tensor 'big': f32 [1000000000] in 4 bytes"] = made.tensor("big", "f32", { 1e9 }, { 1 }),
        ["tensor 'big': f32 [1000000000] with 0 numbers"] = made.tensor("big", "f32", { 1e9 }, nil, ""),
        ["tensor 'wide' has shape [2147483648]"] = made.tensor("wide", "f32", { 2 ^ 31 }, { 1 }),
        ["tensor 'many' has shape [2147483647,2147483647,2147483647]"] = made.tensor("many", "f32", { 2147483647, 2147483647, 2147483647 }, { 1 }),
        ["tensor 'less' has shape [-1]"] = made.tensor("less", "f32", { -1 }, { 1 }),
        ["wire type 4"] = "\12\0", ["behind its message's end"] = "\10\5ab", ["more than ten bytes"] = "\8" .. ("\255"):rep(11),
      } do
        local t, err = tensor(bytes)
        assert.is_nil(t)
        assert.is_truthy(err:find(text, 1, true), err)
        assert.falsy(err:find "\n")
      end
    end)

    it("external data is read from beside the model and from nowhere else", function()
      local function model(location, extra)
        local data = made.bytes(13, made.bytes(1, "location") .. made.bytes(2, location)) .. (extra or "") .. made.number(14, 1)
        return made.model {
          inputs = { made.info("x", "f32", { 2 }) }, outputs = { made.info("y", "f32", { 2 }) }, constants = { made.tensor("w", "f32", { 2 }, nil, data) },
          nodes = { made.node("Mul", { "x", "w" }, { "y" }) },
        }
      end
      files.write(folder .. "/weights.bin", ("\0"):rep(8) .. made.raw("f32", { 3, 5 }))
      local offset = made.bytes(13, made.bytes(1, "offset") .. made.bytes(2, "8")) .. made.bytes(13, made.bytes(1, "length") .. made.bytes(2, "8"))
      local network = assert(load(model("weights.bin", offset)))
      assert.same({ 3, 10 }, network:run(lr.tensor { 1, 2 }).y:totable())
      for location, text in pairs { ["../weights.bin"] = "inside the model's folder", ["/etc/passwd"] = "inside the model's folder", ["a/../../b"] = "inside the model's folder",
        ["none.bin"] = "none.bin: No such file", ["weights.bin"] = "f32 [2] in 16 bytes" } do
        local none, err = load(model(location))
        assert.is_nil(none)
        assert.is_truthy(err:find(text, 1, true), err)
      end
      os.execute(("ln -s weights.bin %s/link.bin"):format(files.quote(folder)))
      assert.is_truthy(select(2, load(model("link.bin", offset))):find("'link.bin' is a link", 1, true))
      files.mkdirs(folder .. "/in/side")
      files.write(folder .. "/in/side/weights.bin", files.read(folder .. "/weights.bin"))
      os.execute(("ln -s .. %s/in/up && ln -s %s/in %s/there"):format(files.quote(folder), files.quote(folder), files.quote(folder)))
      assert(load(model("in/side/weights.bin", offset)))
      for location, link in pairs { ["in/up/weights.bin"] = "in/up", ["in/up/../weights.bin"] = "inside the model's folder", ["there/side/weights.bin"] = "there",
        ["in//up/weights.bin"] = "in//up", ["./there/./side/weights.bin"] = "./there" } do
        local none, err = load(model(location, offset))
        assert.is_nil(none)
        assert.is_truthy(err:find(link, 1, true) and (err:find("is a link", 1, true) or link:find " "), err)
      end
    end)

    it("cyclic graphs, names that nothing makes or that are made twice, and unknown operators are named", function()
      local function refused(nodes, text)
        local none, err = load(made.model { inputs = { made.info("x", "f32", { 2 }) }, outputs = { made.info("y", "f32", { 2 }) }, nodes = nodes })
        assert.is_nil(none)
        assert.is_truthy(err:find(text, 1, true), err)
        assert.falsy(err:find "\n")
      end
      refused({ made.node("Add", { "x", "b" }, { "a" }), made.node("Neg", { "a" }, { "b" }), made.node("Neg", { "b" }, { "y" }) }, "wait for each other: the graph is cyclic")
      refused({ made.node("Neg", { "z" }, { "y" }) }, "node 'n_y' (Neg) reads 'z', which nothing makes")
      refused({ made.node("Neg", { "x" }, { "y" }), made.node("Abs", { "x" }, { "y" }) }, "makes 'y' again")
      refused({ made.node("Neg", { "x" }, { "a" }), made.node("Frobnicate", { "a" }, { "y" }) }, "node 'n_y' (Frobnicate): this operator is not supported")
      refused({ made.node("Neg", { "x" }, { "a" }) }, "nothing makes the output 'y'")
    end)

    it("nodes that stand in the wrong order are put in order", function()
      local network = assert(load(made.model { inputs = { made.info("x", "f32", { 2 }) }, outputs = { made.info("y", "f32", { 2 }) },
        nodes = { made.node("Neg", { "a" }, { "y" }), made.node("Exp", { "x" }, { "a" }) } }))
      near(lr.tensor { -1, -math.exp(1) }, network:run(lr.tensor { 0, 1 }).y)
    end)

    it("a computed constant is not larger than such a file should make", function()
      local none, err = load(made.model { inputs = { made.info("x", "f32", { 2 }) }, outputs = { made.info("y", "f32", { 2 }) },
        constants = { made.tensor("s", "i64", { 1 }, { 1e9 }) }, nodes = { made.node("ConstantOfShape", { "s" }, { "a" }), made.node("Add", { "x", "a" }, { "y" }) } })
      assert.is_nil(none)
      assert.is_truthy(err:find("a constant of [1000000000] from a file of", 1, true), err)
    end)

    it("shapes that overflow inside the network are refused at their node", function()
      local big = { 2147483647, 2147483647, 2147483647 }
      for _, case in ipairs {
        { "Expand", "i64", { 65536, 65536, 65536, 1 } }, { "Tile", "i64", { 65536, 65536, 65536, 2 } }, { "Reshape", "i64", { 65536, 65536, 65536, 65536 } },
        { "Expand", "i64", big },
        { "Pad", "i64", { 2 ^ 31 - 1, 0, 0, 0, 2 ^ 31 - 1, 0, 0, 0 } }, { "Resize", "f32", { 1e9, 1e9, 1e9, 1e9 } }, { "Resize", "f32", { 1, 1, 1e5, 1e5 } },
      } do
        local op, kind, numbers = unpack(case)
        local names = op == "Resize" and { "x", "", "c" } or { "x", "c" }
        local none, err = load(made.model {
          inputs = { made.info("x", "f32", { 1, 1, 2, 2 }) }, outputs = { made.info("y", "f32", {}) }, constants = { made.tensor("c", kind, { #numbers }, numbers) },
          nodes = { made.node(op, names, { "y" }) },
        })
        assert.is_nil(none, op)
        assert.is_truthy(err:find("node 'n_y' (" .. op .. ")", 1, true), err)
        assert.is_falsy(err:find "\n")
      end
    end)
  end)

  describe("operators", function()
    it("Reshape, Slice, Pad, Gather, Concat and Split count as ONNX does", function()
      local x = lr.arange(24):reshape(2, 3, 4)
      assert.same({ 2, 12 }, apply("Reshape", x, nil, { { "i64", { 2 }, { 0, -1 } } }).shape)
      near(x:narrow(3, 2, 2), apply("Slice", x, nil, { { "i64", { 1 }, { 1 } }, { "i64", { 1 }, { -1 } }, { "i64", { 1 }, { 2 } } }))
      near(x:flip(2), apply("Slice", x, nil, { { "i64", { 1 }, { -1 } }, { "i64", { 1 }, { -2 ^ 40 } }, { "i64", { 1 }, { 1 } }, { "i64", { 1 }, { -1 } } }))
      near(lr.tensor { { 1, 0, 1, 2, 1 } }, apply("Pad", lr.tensor { { 0, 1, 2 } }, { mode = "reflect" }, { { "i64", { 4 }, { 0, 1, 0, 1 } } }))
      near(lr.stack({ x:select(2, 3), x:select(2, 1) }, 2), apply("Gather", x, { axis = 1 }, { { "i64", { 2 }, { -1, 0 } } }))
    end)

    it("a whole number of a float is that towards zero", function()
      local y = apply("Cast", lr.tensor { 1.7, -1.7, 2.5, -.5, 3 }, { to = 7 })
      assert.equal("i32", y.dtype)
      assert.same({ 1, -1, 2, 0, 3 }, y:totable())
    end)

    it("pools: the last window of ceil_mode begins before the end; padding counts where it is asked for", function()
      local x = lr.arange(5):reshape(1, 1, 1, 5)
      near(lr.tensor { { { { 1, 3, 4 } } } }, apply("MaxPool", x, { kernel_shape = { 1, 2 }, strides = { 1, 2 }, ceil_mode = 1 }))
      near(lr.tensor { { { { 0, 1.5, 3.5 } } } }, apply("AveragePool", x, { kernel_shape = { 1, 2 }, strides = { 1, 2 }, pads = { 0, 1, 0, 0 }, count_include_pad = 1 }))
    end)

    it("sequences are lists of values while a network is made", function()
      local N = made.node
      local network = assert(load(made.model {
        inputs = { made.info("x", "f32", { 5, 2 }) }, outputs = { made.info("y", "f32", { 3, 2 }), made.info("n", "i64", {}) },
        constants = { made.tensor("two", "i64", {}, { 2 }), made.tensor("one", "i64", {}, { 1 }) },
        nodes = { N("SplitToSequence", { "x", "two" }, { "s" }), N("SequenceErase", { "s", "one" }, { "t" }), N("ConcatFromSequence", { "t" }, { "y" }, { axis = 0 }),
          N("SequenceLength", { "s" }, { "n" }) },
      }))
      local out = network:run(lr.arange(10):reshape(5, 2))
      assert.same({ { 0, 1 }, { 2, 3 }, { 8, 9 } }, out.y:totable())
      assert.equal(3, out.n:item())
    end)

    it("If takes the branch of its condition, Loop unrolls, a shape in numbers of an input makes a plan for each", function()
      local function branch(name, op) return { graph = made.graph { nodes = { made.node(op, { "x" }, { name }) }, outputs = { made.info(name, "f32", { 2 }) } } } end
      local model = made.model {
        inputs = { made.info("x", "f32", { 2 }), made.info("c", "bool", {}) }, outputs = { made.info("y", "f32", { 2 }) },
        nodes = { made.node("If", { "c" }, { "y" }, { then_branch = branch("t", "Neg"), else_branch = branch("e", "Abs") }) },
      }
      local network = assert(load(model))
      local x = lr.tensor { 1, -2 }
      assert.same({ -1, 2 }, network:run(x, lr.tensor(1, "u8")).y:totable())
      assert.same({ 1, 2 }, network:run(x, lr.tensor(0, "u8")).y:totable())
      assert.same({ -1, 2 }, network:run(x, lr.tensor(1, "u8")).y:totable())
      local body = made.graph {
        inputs = { made.info("i", "i64", {}), made.info("go", "bool", {}), made.info("v", "f32", { 2 }) },
        outputs = { made.info("go2", "bool", {}), made.info("v2", "f32", { 2 }), made.info("s", "f32", { 2 }) },
        nodes = { made.node("Identity", { "go" }, { "go2" }), made.node("Add", { "v", "x" }, { "v2" }), made.node("Identity", { "v2" }, { "s" }) },
      }
      local loop = assert(load(made.model {
        inputs = { made.info("x", "f32", { 2 }) }, outputs = { made.info("y", "f32", { 2 }), made.info("all", "f32", { 3, 2 }) },
        constants = { made.tensor("n", "i64", {}, { 3 }) }, nodes = { made.node("Loop", { "n", "", "x" }, { "y", "all" }, { body = { graph = body } }) },
      }))
      local out = loop:run(x)
      assert.same({ 4, -8 }, out.y:totable())
      assert.same({ { 2, -4 }, { 3, -6 }, { 4, -8 } }, out.all:totable())
    end)
  end)

  describe("networks", function()
    local function input(b, h, w) return lr.randn({ b, 2, h, w }, { seed = 3 }) end

    it("batch norm, activations and the residual are folded, pictures run as [B,H,W,C] with one transpose at each end", function()
      local network = assert(load(made.small(), { shapes = { x = { 1, 2, 6, 5 } } }))
      assert.same({ conv2d = 2, depthwise = 1, mean = 1, reshape = 1, linear = 1, transpose = 2 }, network.graph:count())
      assert.same({ "batch", 2, "height", "width" }, network.inputs[1].shape)
      local acts = {}
      for _, node in ipairs(network.graph.nodes) do acts[#acts + 1] = node.attr.act end
      assert.same({ "relu6", "silu", "relu", "none" }, acts)
    end)

    it("activations that a file spells out become one op, in the layer before them", function()
      local N, T = made.node, made.tensor
      local function network(nodes)
        return assert(load(made.model {
          inputs = { made.info("x", "f32", { 4, 3 }) }, outputs = { made.info("y", "f32", { 4, 3 }) }, nodes = nodes,
          constants = { T("w", "f32", { 3, 3 }, { 1, -2, .5, 3, 1, 0, -1, 1, 2 }), T("three", "f32", {}, { 3 }), T("six", "f32", {}, { 6 }), T("zero", "f32", {}, { 0 }),
            T("root", "f32", {}, { math.sqrt(2) }), T("one", "f32", {}, { 1 }), T("half", "f32", { 1 }, { .5 }) },
        }))
      end
      local x, layer = lr.randn({ 4, 3 }, { seed = 5 }), N("MatMul", { "x", "w" }, { "v" })
      local v = x:matmul(lr.tensor { { 1, -2, .5 }, { 3, 1, 0 }, { -1, 1, 2 } })
      for op, case in pairs {
        silu = { { layer, N("Sigmoid", { "v" }, { "s" }), N("Mul", { "s", "v" }, { "y" }) }, lr.silu(v) },
        hard_swish = { { layer, N("Add", { "v", "three" }, { "a" }), N("Clip", { "a", "zero", "six" }, { "b" }), N("Div", { "b", "six" }, { "c" }),
          N("Mul", { "v", "c" }, { "y" }) }, lr.hard_swish(v) },
        gelu = { { layer, N("Div", { "v", "root" }, { "a" }), N("Erf", { "a" }, { "b" }), N("Add", { "b", "one" }, { "c" }), N("Mul", { "v", "c" }, { "d" }),
          N("Mul", { "d", "half" }, { "y" }) }, lr.gelu(v) },
      } do
        local made_of = network(case[1])
        assert.same({ linear = 1 }, made_of.graph:count(), op)
        assert.equal(op, made_of.graph.nodes[1].attr.act)
        near(case[2], made_of:run(x).y)
      end
    end)

    it("slices that a concat puts side by side again are taken as the whole; bf16 stays within 5 %", function()
      local N, T = made.node, made.tensor
      local model = made.model {
        inputs = { made.info("x", "f32", { 1, 8, 6, 6 }) }, outputs = { made.info("y", "f32", { 1, 4, 6, 6 }) },
        constants = { T("w", "f32", { 8, 8, 1, 1 }, (function()
          local list = {}
          for i = 1, 64 do list[i] = (i * 5 % 13 - 6) * .1 end
          return list
        end)()), T("v", "f32", { 4, 12, 1, 1 }, (function()
          local list = {}
          for i = 1, 48 do list[i] = (i * 7 % 11 - 5) * .1 end
          return list
        end)()) },
        nodes = { N("Conv", { "x", "w" }, { "c" }), N("Split", { "c" }, { "a", "b" }, { axis = 1, num_outputs = 2 }), N("Relu", { "b" }, { "r" }),
          N("Concat", { "a", "b", "r" }, { "j" }, { axis = 1 }), N("Conv", { "j", "v" }, { "y" }) },
      }
      local network, plain = assert(load(model)), assert(load(model, { passes = false }))
      assert.equal(1, network.graph:count().slice)
      local x = lr.randn({ 1, 8, 6, 6 }, { seed = 2 })
      local want = plain:run(x).y
      near(want, network:run(x).y)
      near(want, assert(load(model, { precision = "bf16" })):run(x).y, .05 * want:abs():max():item())
    end)

    it("equal what the file says node by node, for every batch and size; one plan for each", function()
      local network, plain = assert(load(made.small())), assert(load(made.small(), { passes = false }))
      for _ = 1, 2 do
        for _, size in ipairs { { 1, 6, 5 }, { 3, 6, 5 }, { 2, 9, 4 } } do
          local x = input(unpack(size))
          local have, want = network:run(x), plain:run(x)
          assert.same({ size[1], 3 }, have.y.shape)
          near(want.y, have.y)
          near(want.map, have.map)
        end
      end
    end)

    it("print as a table of layers, profile, and refuse wrong inputs by name", function()
      local network = assert(load(made.small(), { shapes = { x = { 1, 2, 6, 5 } } }))
      local text = tostring(network)
      assert.is_truthy(text:find("x [batch,2,height,width]", 1, true), text)
      assert.is_truthy(text:find("conv2d           1x1 relu + residual", 1, true), text)
      assert.is_truthy(text:find("8 layers, 143 parameters, 0.0 MFLOP", 1, true), text)
      assert.is_true(#network:profile(input(1, 6, 5)):calls(true) >= 7)
      local ok, err = pcall(function() network:run(lr.zeros { 1, 3, 6, 5 }) end)
      assert.is_false(ok)
      assert.is_truthy(err:find("onnx_spec.lua:%d+: .*input 'x' is f32 %[1,3,6,5%], want f32 %[batch,2,height,width%]"), err)
      assert.has_error(function() network:run() end)
    end)

    it("only what the asked outputs need is computed", function()
      local network = assert(load(made.small(), { outputs = { "map" } }))
      assert.is_nil(network:run(input(1, 4, 4)).y)
      assert.is_nil(network.graph:count().linear)
      local none, err = load(made.small(), { outputs = { "nothing" } })
      assert.is_nil(none)
      assert.is_truthy(err:find("has no output 'nothing', but y, map", 1, true), err)
    end)

    it("are trained: gradients reach every weight, the loss falls, the state is saved and comes back", function()
      local network = assert(load(made.small(), { shapes = { x = { 2, 2, 6, 5 } } }))
      local module, x = network:trainable(), input(2, 6, 5)
      near(network:run(x).y, (module(x)))
      local names = {}
      for _, p in ipairs(module:named_parameters()) do names[#names + 1] = p.name end
      assert.equal(6, #names)
      local optim, step = require "libration.optim", require "libration.train.step"
      local train = step.new(module, optim.Adam(module:parameters(), { rate = .01 }), function(m, v)
        local y = m(v)
        return (y * y):mean()
      end)
      local first = train(x):item()
      for _ = 1, 20 do train(x) end
      assert.is_true(train(x):item() < .5 * first)
      local safetensors = require "libration.formats.safetensors"
      safetensors.save(folder .. "/w.safetensors", module:state_dict())
      local again = network:trainable()
      again:load_state_dict((assert(safetensors.load(folder .. "/w.safetensors"))))
      near((module(x)), (again(x)), 0)
    end)
  end)

  it("broken copies load or are refused in one line, in little time", function()
    local slowest = 0
    local refused = mutate.survive(made.small(), helper.full() and 2000 or 100, function(copy)
      if copy == "" then return nil, "empty" end
      local clock = os.clock()
      local network, err = load(copy, { shapes = { x = { 1, 2, 6, 5 } } })
      slowest = math.max(slowest, os.clock() - clock)
      return network, err
    end)
    assert.is_true(refused > 0 and slowest < 5)
  end)

  -- Inputs are tests/golden/onnx.py's: sin(.37 i) of element i; it keeps ONNX Runtime's answers, of UltraFace each 40th row.
  describe("shared models", function()
    local function waves(shape)
      local x = lr.empty(shape)
      local p = x:ptr()
      for i = 0, x:numel() - 1 do p[i] = math.sin(.37 * i) end
      return x
    end

    local function rows(t)
      local list = {}
      for i = 1, t:size(2), 40 do list[#list + 1] = t:narrow(2, i, 1) end
      return lr.concat(list, 2)
    end

    for _, case in ipairs {
      { "ultraface", "ultraface/version-RFB-320.onnx", { 1, 3, 240, 320 }, { "scores", "boxes" }, rows },
      { "lstm_lower", "lstm_onnx/v0.3_lower/model.onnx", { 2, 7, 47 }, { "output_0" }, function(t) return t end },
      { "lstm_upper", "lstm_onnx/v0.3_upper/model.onnx", { 2, 7, 23 }, { "output_0" }, function(t) return t end },
    } do
      it(case[1] .. " equals ONNX Runtime within 1e-5", function()
        local path = helper.shared("data/models/" .. case[2])
        if not path then return pending "needs the shared models" end
        local network = assert(graph.load(path))
        local out = network:run(waves(case[3]))
        for i, name in ipairs(case[4]) do
          local want = assert(npy.load(("tests/golden/onnx/%s_%d.npy"):format(case[1], i)))
          assert.is_true(difference(case[5](out[name]), want) < 1e-5)
        end
      end)
    end
  end)
end)
