-- Specs of convolutions in any order of sums (Winograd's algorithm) and in 8 bits: against the f64 twins, instruction sets against each other, networks against f32,
-- what calibration refuses.
local files = require "libration.files"
local helper = require "helper"
local lr = require "libration"
local graph = require "libration.graph"
local int8 = require "libration.graph.int8"
local limits = require "libration.graph.limits"
local made = require "helper_onnx"

local function noise(shape, seed, scale) return lr.randn(shape, { seed = seed }) * (scale or 1) end

-- batch, height, width, inputs, outputs
local sizes = { { 1, 16, 16, 16, 16 }, { 2, 13, 10, 20, 37 }, { 1, 9, 22, 51, 64 }, { 1, 13, 13, 130, 130 }, { 3, 14, 7, 12, 8 } }

describe("conv2d, loose", function()
  it("is within 5e-5 of the largest answer on every instruction set, whatever the edges, the batch and the residual", function()
    for n, s in ipairs(sizes) do
      local B, H, W, I, O = unpack(s)
      local x, w, b = noise({ B, H, W, I }, n), noise({ O, 3, 3, I }, n + 10, .1), noise({ O }, n + 20)
      local options = { pad = ({ 0, 1, { 2, 1, 0, 2 } })[n % 3 + 1], act = ({ "none", "relu", "silu", "sigmoid", "gelu" })[n], loose = true }
      local shape = lr.conv2d(x, w, b, options).shape
      local residual = n % 2 == 0 and noise(shape, n + 30) or nil
      options.residual = residual and residual:to "f64"
      local want = lr.conv2d(x:to "f64", w:to "f64", b:to "f64", options)
      options.residual = residual
      helper.each_isa(function()
        local have = lr.conv2d(x, w, b, options)
        assert.is_true((have:to "f64" - want):abs():max():item() <= 5e-5 * want:abs():max():item(), ("case %d"):format(n))
      end)
    end
  end)

  it("in a plan, weights that change are transformed anew, and a plan outlives a change of the instruction set", function()
    local x, w = noise({ 1, 16, 16, 16 }, 1), noise({ 16, 3, 3, 16 }, 2)
    local recorded = lr.record(function(v) return lr.conv2d(v, w, nil, { pad = 1, loose = true }) end)
    for round = 1, 2 do
      helper.each_isa(function()
        local want = lr.conv2d(x, w, nil, { pad = 1 })
        assert.is_true((recorded(x) - want):abs():max():item() <= 1e-4 * want:abs():max():item())
      end)
      if round == 1 then w:copy_(w * 2) end
    end
  end)
end)

describe("conv2d_int8", function()
  it("is the f32 convolution of the numbers that its bytes stand for, with weights of 1/127; the same on every processor", function()
    local q, r = { .013, 77 }, { .02, 100 }
    for n, s in ipairs { { 2, 9, 11, 64, 40, 3, 1 }, { 1, 7, 7, 3, 20, 3, 2 }, { 1, 8, 8, 51, 51, 1, 1 }, { 1, 16, 26, 3, 64, 7, 2 }, { 1, 13, 9, 18, 96, 2, 1 } } do
      local B, H, W, I, O, K, stride = unpack(s)
      local x, w, b = (noise({ B, H, W, I }, n) * 50 + 128):to "u8", noise({ O, K, K, I }, n + 10), noise({ O }, n + 20)
      local most = w:abs():reshape(O, K * K * I):max(2, true):reshape(O, 1, 1, 1) / 127
      local rounded = (w / most):to("i32"):to "f32" * most
      for _, act in ipairs { n % 2 == 0 and "none" or "relu", n % 2 == 0 and "silu" or "hard_swish" } do
        local options = { stride = stride, pad = math.floor(K / 2), act = act, x = q }
        local want = lr.conv2d((x:to "f32" - q[2]) * q[1], rounded, b, options)
        local have = lr.conv2d_int8(x, w, b, options)
        assert.is_true((have - want):abs():max():item() <= 1e-4 * want:abs():max():item(), ("case %d, %s"):format(n, act))
        local other = (noise(want.shape, n + 30) * 40 + 120):to "u8"
        options.residual, options.r, options.late, options.y = other, r, true, { .1, 90 }
        local bytes = lr.conv2d_int8(x, w, b, options)
        local near = ((want + (other:to "f32" - r[2]) * r[1]) / .1 + 90):to "u8"
        assert.is_true((bytes:to "i32" - near:to "i32"):abs():max():item() <= 1)
        helper.each_isa(function()
          assert.is_true((lr.conv2d_int8(x, w, b, options):to "i32" - bytes:to "i32"):abs():max():item() <= 1)
        end)
      end
    end
  end)

  it("max_pool2d of bytes is that of numbers, at the edges too", function()
    for n, s in ipairs { -- batch, height, width, channels, kernel, stride, pad
      { 1, 2, 2, 1, 2, 2, 0 }, { 2, 13, 9, 3, 3, 2, 1 }, { 1, 7, 8, 70, 5, 1, 2 }, { 3, 5, 6, 17, { 1, 4 }, { 2, 3 }, { 0, 0, 3, 1 } },
      { 2, 9, 1, 64, { 3, 1 }, 1, { 1, 1, 0, 0 } }, { 4, 64, 64, 32, 3, 1, 1 },
    } do
      local x = (noise({ s[1], s[2], s[3], s[4] }, n) * 80 + 128):to "u8"
      local have, want = lr.max_pool2d(x, s[5], { stride = s[6], pad = s[7] }), lr.max_pool2d(x:to "f32", s[5], { stride = s[6], pad = s[7] })
      assert.equal("u8", have.dtype)
      assert.equal(0, (have:to "f32" - want):abs():max():item(), ("case %d"):format(n))
    end
  end)

  it("sums exactly: any channels, strides, edges, dilation, pictures narrower than a tile, batches, on every processor", function()
    for n, s in ipairs { -- batch, height, width, inputs, outputs, kernel, stride, pad, dilation
      { 1, 1, 3, 1, 1, { 1, 1 }, 1, 0, 1 }, { 1, 5, 7, 1, 16, { 1, 1 }, 1, 0, 1 }, { 2, 9, 11, 5, 33, { 1, 1 }, 1, 0, 1 }, { 1, 13, 5, 51, 51, { 1, 1 }, 2, 0, 1 },
      { 1, 19, 50, 3, 16, { 3, 3 }, 2, 1, 1 }, { 2, 6, 40, 17, 32, { 3, 3 }, 1, 1, 1 }, { 3, 5, 4, 8, 17, { 3, 3 }, 1, { 2, 0, 0, 3 }, 1 },
      { 1, 7, 7, 16, 100, { 3, 3 }, 1, 1, 1 }, { 1, 11, 30, 4, 20, { 3, 2 }, { 1, 2 }, 1, { 2, 3 } }, { 2, 1, 1, 3, 48, { 7, 7 }, 3, 3, 1 },
      { 1, 2, 3, 64, 70, { 1, 3 }, 1, { 0, 0, 6, 1 }, 1 }, { 1, 150, 90, 12, 16, { 5, 5 }, 1, 2, 1 },
    } do
      local B, H, W, I, O, k = unpack(s)
      local x = (noise({ B, H, W, I }, n) * 60 + 100):to "u8"
      local w = lr.clamp(noise({ O, k[1], k[2], I }, n + 10) * 50, -127, 127):to("i32"):to "f32"
      w:reshape(O, k[1] * k[2] * I):narrow(2, 1, 1):copy_(lr.full({ O, 1 }, 127)) -- so that a step of the weights is 1
      local options = { stride = s[7], pad = s[8], dilation = s[9], x = { 1, 9 } }
      local want = lr.conv2d((x:to "f64" - 9), w:to "f64", nil, options)
      helper.each_isa(function(isa)
        assert.equal(0, (lr.conv2d_int8(x, w, nil, options):to "f64" - want):abs():max():item(), ("case %d, instruction set %d"):format(n, isa))
      end)
    end
  end)

  it("refuses scales and shapes that are none", function()
    local x, w = lr.zeros({ 1, 4, 4, 2 }, "u8"), noise({ 3, 3, 3, 2 }, 1)
    for _, options in ipairs { { x = { 0, 0 } }, { x = { 1, 256 } }, { x = { 0 / 0, 0 } }, { x = { 1, 0 }, y = { -1, 0 } }, { x = { 1, 0 }, act = "prelu" } } do
      assert.has_error(function() lr.conv2d_int8(x, w, nil, options) end)
    end
    assert.has_error(function() lr.conv2d_int8(x:to "f32", w, nil, { x = { 1, 0 } }) end)
  end)
end)

-- Stem, two SiLU layers with a sum around them, a concat, a pool, an enlargement, a head.
local function small()
  local function weights(name, ...) return made.tensor(name, "f32", { ... }, noise({ ... }, #name + select(1, ...), .25):reshape(-1):totable()) end
  local N, same = made.node, { pads = { 1, 1, 1, 1 }, kernel_shape = { 3, 3 } }
  local nodes, x = {}, "x"
  local function silu(y, w)
    nodes[#nodes + 1] = N("Conv", { x, w }, { y .. "c" }, same)
    nodes[#nodes + 1] = N("Sigmoid", { y .. "c" }, { y .. "s" })
    nodes[#nodes + 1] = N("Mul", { y .. "c", y .. "s" }, { y })
    x = y
  end
  silu("a", "w1")
  silu("b", "w22")
  silu("c", "w333")
  nodes[#nodes + 1] = N("Add", { "a", "c" }, { "d" })
  nodes[#nodes + 1] = N("MaxPool", { "d" }, { "e" }, { kernel_shape = { 2, 2 }, strides = { 2, 2 } })
  nodes[#nodes + 1] = N("Resize", { "e", "", "scales" }, { "f" }, { mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor" })
  nodes[#nodes + 1] = N("Concat", { "f", "b" }, { "g" }, { axis = 1 })
  nodes[#nodes + 1] = N("Conv", { "g", "w4444" }, { "y" })
  return made.model {
    inputs = { made.info("x", "f32", { 1, 3, 24, 24 }) }, outputs = { made.info("y", "f32", { 1, 5, 24, 24 }) }, nodes = nodes,
    constants = { weights("w1", 16, 3, 3, 3), weights("w22", 16, 16, 3, 3), weights("w333", 16, 16, 3, 3), weights("w4444", 5, 32, 1, 1),
      made.tensor("scales", "f32", { 4 }, { 1, 1, 2, 2 }) },
  }
end

describe("to_bytes", function()
  it("writes some channels of a larger picture and nothing beside them", function()
    local x, whole = noise({ 1, 3, 4, 5 }, 1):permute(1, 3, 4, 2), lr.full({ 1, 4, 5, 6 }, 7, "u8")
    local attr = require("libration.ops").rows.to_bytes.attr()
    attr.scale, attr.shift = 30, 100
    lr.core.check(lr.core.C.lbr_to_bytes(x, whole:narrow(4, 3, 3), attr))
    assert.equal(0, (helper.difference(lr.to_bytes(x, 30, 100), whole:narrow(4, 3, 3):contiguous())))
    assert.equal(0, (helper.difference(lr.full({ 1, 4, 5, 2 }, 7, "u8"), whole:narrow(4, 1, 2):contiguous())))
    assert.equal(0, (helper.difference(lr.full({ 1, 4, 5, 1 }, 7, "u8"), whole:narrow(4, 6, 1):contiguous())))
  end)

  it("gives the bits of affine and a cast, whatever lies how in memory: planes, crops, every third number", function()
    local function same(x, scale, shift, words)
      helper.each_isa(function(isa)
        local have, want = lr.to_bytes(x, scale, shift), lr.affine(x, scale, shift):to("u8"):contiguous()
        assert.equal("u8", have.dtype)
        assert.same(want.shape, have.shape)
        assert.equal(0, (have:to "i32" - want:to "i32"):abs():sum():item(), ("%s, instruction set %d"):format(words, isa))
      end)
    end
    for n, s in ipairs { { 2, 3, 5, 300 }, { 1, 1, 4, 7 }, { 3, 2, 9, 1 }, { 1, 4, 2, 257 }, { 2, 5, 3, 40 }, { 1, 3, 1, 256 } } do
      local x, words = noise(s, n, 90), "case " .. n
      x:narrow(4, 1, 1):narrow(3, 1, 1):fill_(n % 2 == 0 and 0 / 0 or 1 / 0)
      same(x, 1.7, 100, words)
      same(x:permute(1, 3, 4, 2), 1.7, 100, words .. ", planes")
      same(x:permute(1, 3, 4, 2):narrow(3, math.ceil(s[4] / 2), math.floor(s[4] / 2) + 1), -2.3, 90.5, words .. ", a crop")
      same(x:permute(4, 2, 1, 3), .5, 0, words .. ", another order")
    end
    same(noise({ 1000, 3 }, 9, 90):narrow(2, 2, 1), 1, 128, "every third")
    same(lr.tensor { .5, 1.5, 2.5, -.5, 254.5, 255.5 }, 1, 0, "halves")
    same(lr.zeros { 0, 3 }, 1, 0, "nothing")
    assert.has_error(function() lr.to_bytes(lr.zeros({ 2 }, "f64"), 1, 0) end, "to_bytes: x is f64 [2], want f32")
    assert.has_error(function() lr.to_bytes(lr.zeros { 2 }, 1) end)
  end)
end)

describe("a network in int8", function()
  local folder, path, x

  setup(function()
    folder = files.temporary_folder()
    path = folder .. "/small.onnx"
    files.write(path, small())
    x = noise({ 1, 3, 24, 24 }, 7)
  end)
  teardown(function() files.remove(folder) end)

  it("is within 5 % of f32; all of its convolutions, the sum, the pool, the enlargement and the concat are in bytes", function()
    local want = assert(graph.load(path)):run(x).y
    local network = assert(graph.load(path, { precision = "int8", calibration = { x, noise({ 1, 3, 24, 24 }, 8) } }))
    local have = network:run(x).y
    local relative, largest = limits.difference(have, want)
    assert.is_true(relative > 0 and relative < .05, ("relative %g"):format(relative))
    assert.is_true(largest < .1 * want:abs():max():item())
    assert.same({ 4, 4 }, network.graph.quantised)
    local count = network.graph:count()
    assert.equal(4, count.conv2d_int8)
    assert.is_nil(count.add)
    assert.is_nil(count.to_numbers)
    assert.equal(1, count.to_bytes)
    assert.equal(1, count.transpose) -- the answer's: the input's is one with its bytes
    assert.is_truthy(tostring(network):find("conv2d_int8      3x3 silu + residual", 1, true))
  end)

  it("wants calibration: some, of the network's shape, finite; and a precision that there is", function()
    for words, calibration in pairs {
      ["there is none"] = false, ["there is none "] = {}, ["has no input 'x'"] = { "picture" },
      ["is %[1,3,8,24%], the network runs on %[1,3,24,24%]"] = { noise({ 1, 3, 8, 24 }, 1) }, ["sample 2 has numbers that are not finite"] = { x, x / 0 },
    } do
      local network, why = graph.load(path, { precision = "int8", calibration = calibration or nil })
      assert.is_nil(network)
      assert.is_truthy(why:find((words:gsub(" $", ""))), why)
      assert.is_nil(why:find "\n")
    end
    assert.has_error(function() graph.load(path, { precision = "int4" }) end, "graph: precision 'int4', want f32, bf16, f16 or int8")
  end)

  it("a layer that loses too much stays f32", function()
    local text = made.model {
      inputs = { made.info("x", "f32", { 1, 2, 16, 16 }) }, outputs = { made.info("y", "f32", { 1, 8, 16, 16 }) }, nodes = { made.node("Conv", { "x", "w" }, { "y" }) },
      constants = { made.tensor("w", "f32", { 8, 2, 1, 1 }, { 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1 }) },
    }
    files.write(folder .. "/hard.onnx", text)
    local hard = noise({ 1, 2, 16, 16 }, 3) -- the second channel, which alone is looked at, is a hundredth of one step of the first
    hard:narrow(2, 1, 1):copy_(hard:narrow(2, 1, 1) * 1000)
    hard:narrow(2, 2, 1):copy_(hard:narrow(2, 2, 1) * .1)
    local network = assert(graph.load(folder .. "/hard.onnx", { precision = "int8", calibration = { hard } }))
    assert.same({ 0, 1 }, network.graph.quantised)
  end)

  it("ranges: zero is in them, constants are not divided by nothing", function()
    assert.same({ 1, 0 }, int8.parameters(0, 0))
    local q = int8.parameters(-1, 3)
    assert.near(4 / 255, q[1], 1e-9)
    assert.equal(64, q[2])
    assert.equal(0, int8.parameters(2, 4)[2])
    assert.equal(255, int8.parameters(-2, -1)[2])
  end)
end)

describe("limits", function()
  it("the share is that of what takes longer, operations or bytes", function()
    local limit = { flops = 100, int8 = 400, bytes = 10 }
    assert.near(.5, limits.share({ name = "conv2d", seconds = 2, flops = 100, bytes = 5 }, limit), 1e-9)
    assert.near(.25, limits.share({ name = "conv2d_int8", seconds = 1, flops = 100, bytes = 0 }, limit), 1e-9)
    assert.near(1, limits.share({ name = "copy", seconds = 1, flops = 0, bytes = 10 }, limit), 1e-9)
    assert.equal(0, limits.share({ name = "copy", seconds = 0, flops = 0, bytes = 10 }, limit))
    local relative, largest = limits.difference(lr.tensor { 3, 4 }, lr.tensor { 3, 5 })
    assert.near(1 / math.sqrt(34), relative, 1e-9)
    assert.equal(1, largest)
    assert.equal(0, (limits.difference(lr.zeros { 0 }, lr.zeros { 0 })))
  end)
end)
