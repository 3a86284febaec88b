-- ONNX's functions, cumulative sums, Einstein sums, norms over neighbours, reductions and losses as operators of a file: each against plain arithmetic. Engines' ops are elsewhere.
local files = require "libration.files"
local graph = require "libration.graph"
local lr = require "libration"
local made = require "helper_onnx"

local folder

-- The answers of one operator; inputs are {kind, shape, values}, those with `constant` lie in the file.
local function run(op, inputs, attributes, opset, outputs)
  local names, infos, constants, given = {}, {}, {}, {}
  for i, input in ipairs(inputs) do
    local kind, shape, values = unpack(input)
    names[i] = "x" .. i
    if input.constant then constants[#constants + 1] = made.tensor(names[i], kind, shape, values)
    else
      local dtype = ({ i64 = "i32", i8 = "i32", bool = "u8", u64 = "i32" })[kind] or kind
      infos[#infos + 1], given[#given + 1] = made.info(names[i], kind, shape), lr.tensor(values, dtype):reshape(shape)
    end
  end
  local out, list = {}, {}
  for i = 1, outputs or 1 do out[i], list[i] = made.info("y" .. i, "f32", {}), "y" .. i end
  local path = folder .. "/a.onnx"
  files.write(path, made.model({ inputs = infos, outputs = out, constants = constants, nodes = { made.node(op, names, list, attributes) } }, opset or 20))
  local network, err = graph.load(path)
  if not network then return nil, err end
  local answers = network:run(unpack(given))
  for i, name in ipairs(list) do list[i] = answers[name] end
  return unpack(list)
end

local function flat(t) return t:to("f64"):contiguous():reshape(t:numel()):totable() end

local function near(want, have, what)
  local numbers = flat(have)
  assert.equal(#want, #numbers, what)
  for i, v in ipairs(want) do
    local u = numbers[i]
    assert.is_true(u == v or u ~= u and v ~= v or math.abs(u - v) <= 2e-6 * math.max(1, math.abs(v)), ("%s: element %d is %.9g, want %.9g"):format(what, i, u, v))
  end
end

local function erf(x) -- by its series
  local sum, term = 0, x
  for n = 0, 60 do
    sum = sum + term / (2 * n + 1)
    term = -term * x * x / (n + 1)
  end
  return 2 / math.sqrt(math.pi) * sum
end
local function softplus(x) return math.log(1 + math.exp(x)) end
local function gate(v) return math.max(0, math.min(1, v)) end

describe("onnx functions", function()
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  it("of one number, with and without attributes", function()
    local F = function(v) return { float = v } end
    local X, inside = { -2.5, -1.2, -.5, 0, .3, .5, 1.5, 2.2 }, { -.9, -.5, 0, .2, .7, .95 }
    for _, case in ipairs {
      { "Tan", math.tan }, { "Atan", math.atan }, { "Sinh", math.sinh }, { "Cosh", math.cosh }, { "Asin", math.asin, at = inside }, { "Acos", math.acos, at = inside },
      { "Asinh", function(x) return math.log(x + math.sqrt(x * x + 1)) end }, { "Acosh", function(x) return math.log(x + math.sqrt(x * x - 1)) end, at = { 1, 1.5, 7 } },
      { "Atanh", function(x) return .5 * math.log((1 + x) / (1 - x)) end, at = inside },
      { "Erf", erf }, { "Ceil", math.ceil }, { "Floor", math.floor }, { "Softplus", softplus }, { "Softsign", function(x) return x / (1 + math.abs(x)) end },
      { "Round", function(x) return ({ [-2.5] = -2, [-1.2] = -1, [-.5] = 0, [0] = 0, [.3] = 0, [.5] = 0, [1.5] = 2, [2.2] = 2 })[x] end },
      { "Mish", function(x) return x * math.tanh(softplus(x)) end }, { "HardSwish", function(x) return x * gate(x / 6 + .5) end },
      { "Gelu", function(x) return .5 * x * (1 + erf(x / math.sqrt(2))) end },
      { "Gelu", function(x) return .5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + .044715 * x ^ 3))) end, { approximate = "tanh" } },
      { "HardSigmoid", function(x) return gate(.2 * x + .5) end }, { "HardSigmoid", function(x) return gate(.4 * x + .1) end, { alpha = F(.4), beta = F(.1) } },
      { "Elu", function(x) return x > 0 and x or 1.5 * (math.exp(x) - 1) end, { alpha = F(1.5) } },
      { "Celu", function(x) return x > 0 and x or 2 * (math.exp(x / 2) - 1) end, { alpha = F(2) } },
      { "Selu", function(x) return 3 * (x > 0 and x or 2 * (math.exp(x) - 1)) end, { alpha = F(2), gamma = F(3) } },
      { "LeakyRelu", function(x) return x > 0 and x or .25 * x end, { alpha = F(.25) } },
      { "ThresholdedRelu", function(x) return x > .4 and x or 0 end, { alpha = F(.4) } },
      { "Shrink", function(x) return x < -1 and x + .5 or x > 1 and x - .5 or 0 end, { lambd = F(1), bias = F(.5) } },
      { "Swish", function(x) return x / (1 + math.exp(-x)) end, opset = 24 }, { "Swish", function(x) return x / (1 + math.exp(-2 * x)) end, { alpha = F(2) }, opset = 24 },
    } do
      local op, f, attributes, at, want = case[1], case[2], case[3], case.at or X, {}
      for i, x in ipairs(at) do want[i] = f(x) end
      near(want, assert(run(op, { { "f32", { #at }, at } }, attributes, case.opset)), op)
    end
  end)

  it("of two: rests, bits and shifts within the width of their kind", function()
    local function two(op, kind, a, b, attributes) return assert(run(op, { { kind, { #a }, a }, { kind, { #b }, b } }, attributes)) end
    near({ 2, -2, -1, 1 }, two("Mod", "i64", { -7, 7, -7, 7 }, { 3, -3, -3, 3 }), "Mod")
    near({ -1, 1, -1, 1.5 }, two("Mod", "f32", { -7, 7, -7, 5.5 }, { 3, -3, -3, 2 }, { fmod = 1 }), "Mod of floats")
    near({ 8, 1 }, two("BitwiseAnd", "i32", { 12, -1 }, { 10, 1 }), "and")
    near({ 14, 129 }, two("BitwiseOr", "u8", { 12, 128 }, { 10, 1 }), "or")
    near({ 6, 254 }, two("BitwiseXor", "u8", { 12, 255 }, { 10, 1 }), "xor")
    near({ 243, 0 }, assert(run("BitwiseNot", { { "u8", { 2 }, { 12, 255 } } })), "not")
    near({ -13, 0 }, assert(run("BitwiseNot", { { "i64", { 2 }, { 12, -1 } } })), "not of i64")
    near({ 48, 254 }, two("BitShift", "u8", { 12, 255 }, { 2, 1 }, { direction = "LEFT" }), "left")
    near({ -128, 48, 0 }, two("BitShift", "i8", { 64, 12, 1 }, { 1, 2, 8 }, { direction = "LEFT" }), "left of i8")
    near({ 3, 127 }, two("BitShift", "u8", { 12, 255 }, { 2, 1 }, { direction = "RIGHT" }), "right")
    local x = { "f32", { 4 }, { math.huge, -math.huge, 0 / 0, 1 } }
    near({ 1, 1, 0, 0 }, assert(run("IsInf", { x })), "IsInf")
    near({ 1, 0, 0, 0 }, assert(run("IsInf", { x }, { detect_negative = 0 })), "IsInf above")
    near({ 0, 0, 0, 0 }, assert(run("IsInf", { x }, { detect_negative = 0, detect_positive = 0 })), "IsInf of none")
  end)

  it("powers of a constant are the products and roots that they stand for", function()
    local x = { .25, 2, 3 }
    for power, want in pairs { [2] = { .0625, 4, 9 }, [.5] = { .5, math.sqrt(2), math.sqrt(3) }, [-1] = { 4, .5, 1 / 3 }, [3] = { .015625, 8, 27 } } do
      near(want, assert(run("Pow", { { "f32", { 3 }, x }, { "f32", {}, { power }, constant = true } })), "Pow " .. power)
    end
    near({ 4, 9 }, assert(run("Pow", { { "i64", { 2 }, { 2, 3 } }, { "f32", {}, { 2 }, constant = true } })), "Pow of i64")
  end)

  it("cumulative sums, Einstein sums, hardmax, extremes and reductions", function()
    local x, axis = { "f32", { 2, 3 }, { 3, 1, 2, 0, 5, 5 } }, { "i64", {}, { -1 }, constant = true }
    near({ 3, 4, 6, 0, 5, 10 }, assert(run("CumSum", { x, axis })), "CumSum")
    near({ 3, 2, 0, 10, 5, 0 }, assert(run("CumSum", { x, axis }, { exclusive = 1, reverse = 1 })), "CumSum back")
    near({ 14, 50 }, assert(run("Einsum", { x, x }, { equation = "ij,ij->i" })), "Einsum")
    near({ 1, 0, 0, 0, 1, 0 }, assert(run("Hardmax", { x })), "Hardmax")
    near({ 0, 1 }, assert(run("ArgMax", { x }, { axis = 1, keepdims = 0 })), "ArgMax")
    near({ 0, 2 }, assert(run("ArgMax", { x }, { axis = 1, select_last_index = 1 })), "ArgMax, last")
    near({ 2, 0 }, assert(run("ArgMin", { { "u8", { 2, 3 }, { 255, 1, 0, 3, 4, 5 } } }, { axis = 1 })), "ArgMin")
    local axes = { "i64", { 1 }, { 1 }, constant = true }
    near({ 6, 0 }, assert(run("ReduceProd", { x, axes }, { keepdims = 0 })), "ReduceProd")
    near({ math.log(math.exp(3) + math.exp(1) + math.exp(2)), math.log(1 + 2 * math.exp(5)) }, assert(run("ReduceLogSumExp", { x, axes })), "ReduceLogSumExp")
    local none = { "f32", { 2, 0 }, {} }
    near({ -math.huge, -math.huge }, assert(run("ReduceMax", { none, axes })), "ReduceMax of nothing")
    near({ math.huge, math.huge }, assert(run("ReduceMin", { none, axes })), "ReduceMin of nothing")
    near({ 1, 1 }, assert(run("ReduceProd", { none, axes })), "ReduceProd of nothing")
  end)

  it("norms over neighbours and along an axis, EyeLike, windows", function()
    local x = { "f32", { 1, 3, 1, 2 }, { 1, 2, 3, 4, 5, 6 } }
    local function lrn(v, ...)
      local sum = 0
      for _, w in ipairs { ... } do sum = sum + w * w end
      return v / (2 + .6 / 3 * sum) ^ .5
    end
    near({ lrn(1, 1, 3), lrn(2, 2, 4), lrn(3, 1, 3, 5), lrn(4, 2, 4, 6), lrn(5, 3, 5), lrn(6, 4, 6) },
      assert(run("LRN", { x }, { size = 3, alpha = { float = .6 }, beta = { float = .5 }, bias = { float = 2 } })), "LRN")
    near({ .6, .8, 0, 0 }, assert(run("LpNormalization", { { "f32", { 2, 2 }, { 3, 4, 0, 0 } } }, { axis = 1 })), "LpNormalization")
    near({ -1, 1 }, assert(run("MeanVarianceNormalization", { { "f32", { 1, 1, 1, 2 }, { 3, 7 } } })), "MeanVarianceNormalization")
    near({ 0, 1, 0, 0, 0, 1 }, assert(run("EyeLike", { { "f32", { 2, 3 }, { 9, 9, 9, 9, 9, 9 } } }, { k = 1 })), "EyeLike")
    near({ 0, .5, 1, .5 }, assert(run("HannWindow", { { "i64", {}, { 4 }, constant = true } })), "HannWindow")
  end)

  it("Fourier transforms of real and complex signals, there and back; of frames; mel weights", function()
    local x = { 3, -1, 4, 1, -5, 9 }
    local function spectrum(values, n, window)
      local out = {}
      for k = 0, math.floor(n / 2) do
        local re, im = 0, 0
        for i = 0, n - 1 do
          local v = values[i + 1] * (window and window[i + 1] or 1)
          re, im = re + v * math.cos(2 * math.pi * i * k / n), im - v * math.sin(2 * math.pi * i * k / n)
        end
        out[#out + 1], out[#out + 2] = re, im
      end
      return out
    end
    local half = assert(run("DFT", { { "f32", { 1, 6, 1 }, x } }, { onesided = 1 }))
    assert.same({ 1, 4, 2 }, half.shape)
    near(spectrum(x, 6), half, "DFT")
    near(x, assert(run("DFT", { { "f32", { 1, 4, 2 }, flat(half) } }, { onesided = 1, inverse = 1 })), "half a spectrum back")
    local whole = assert(run("DFT", { { "f32", { 6, 1, 1 }, x } }, { axis = 0 }, 17))
    assert.same({ 6, 1, 2 }, whole.shape)
    local back, both = flat(assert(run("DFT", { { "f32", { 6, 1, 2 }, flat(whole) } }, { axis = 0, inverse = 1 }, 17))), {}
    for i, v in ipairs(x) do both[2 * i - 1], both[2 * i] = v, 0 end
    for i, v in ipairs(both) do assert.is_true(math.abs(back[i] - v) < 1e-5) end
    local window = { .5, 1, 2, .25 }
    local frames = assert(run("STFT", { { "f32", { 1, 6, 1 }, x }, { "i64", {}, { 2 }, constant = true }, { "f32", { 4 }, window } }))
    assert.same({ 1, 2, 3, 2 }, frames.shape)
    near(spectrum(x, 4, window), frames:narrow(2, 1, 1), "first frame")
    near(spectrum({ 4, 1, -5, 9 }, 4, window), frames:narrow(2, 2, 1), "second frame")
    local function number(kind, v) return { kind, {}, { v }, constant = true } end
    local mel = assert(run("MelWeightMatrix", { number("i64", 3), number("i64", 32), number("i64", 8000), number("f32", 0), number("f32", 4000) }))
    assert.same({ 17, 3 }, mel.shape)
    assert.same({ 1, 1, 1 }, mel:max(1):totable())
  end)

  it("losses: weights, ignored classes, every way to reduce", function()
    local p = { "f32", { 2, 3 }, { -1, -2, -3, -4, -5, -6 } }
    local target, weight = { "i64", { 2 }, { 2, 0 } }, { "f32", { 3 }, { .5, 1, 2 } }
    near({ 3.5 }, assert(run("NegativeLogLikelihoodLoss", { p, target })), "mean")
    near({ 3, 4 }, assert(run("NegativeLogLikelihoodLoss", { p, target }, { reduction = "none" })), "none")
    near({ (3 * 2 + 4 * .5) / 2.5 }, assert(run("NegativeLogLikelihoodLoss", { p, target, weight })), "weighted mean")
    near({ 3 * 2 }, assert(run("NegativeLogLikelihoodLoss", { p, target, weight }, { reduction = "sum", ignore_index = 0 })), "ignored")
    local loss, log_p = run("SoftmaxCrossEntropyLoss", { { "f32", { 1, 2 }, { 1, 3 } }, { "i64", { 1 }, { 0 } } }, nil, nil, 2)
    local all = math.log(math.exp(1) + math.exp(3))
    near({ all - 1 }, loss, "SoftmaxCrossEntropyLoss")
    near({ 1 - all, 3 - all }, log_p, "its second output")
  end)

  it("what they do not take is refused with the node", function()
    local x = { "f32", { 2 }, { 1, 2 } }
    for want, case in pairs {
      ["approximate is 'fast'"] = { "Gelu", { x }, { approximate = "fast" } },
      ["no equation"] = { "Einsum", { x } },
      ["einsum"] = { "Einsum", { x }, { equation = "ij->i" } },
      ["direction is 'UP'"] = { "BitShift", { { "u8", { 1 }, { 1 } }, { "u8", { 1 }, { 1 } } }, { direction = "UP" } },
      ["bits of f32"] = { "BitwiseAnd", { x, x } },
      ["axis 3 of 1 dims"] = { "CumSum", { x, { "i64", {}, { 3 }, constant = true } } },
      ["reduction is 'all'"] = { "NegativeLogLikelihoodLoss", { { "f32", { 1, 2 }, { 1, 2 } }, { "i64", { 1 }, { 0 } } }, { reduction = "all" } },
      ["axis -1 holds the parts"] = { "DFT", { { "f32", { 2, 1 }, { 1, 2 } }, { "i64", {}, { 2 }, constant = true }, { "i64", {}, { -1 }, constant = true } } },
      ["frames of 9 every 1 of 2"] = { "STFT", { { "f32", { 1, 2, 1 }, { 1, 2 } }, { "i64", {}, { 1 }, constant = true }, { "f32", { 9 }, { 1, 1, 1, 1, 1, 1, 1, 1, 1 } } } },
      ["p is 3"] = { "LpNormalization", { x }, { p = 3 } },
    } do
      local y, err = run(unpack(case))
      assert.is_nil(y)
      assert.is_truthy(tostring(err):find(want, 1, true), tostring(err))
      assert.is_truthy(tostring(err):find("node 'n_y1' (" .. case[1] .. ")", 1, true), tostring(err))
    end
  end)
end)
