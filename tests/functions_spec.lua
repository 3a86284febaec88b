-- functions_spec.lua: functions by kind, activations of layers, reductions and products composed of other ops: gradients, values against plain arithmetic, bad input.
local lr = require "libration"
local device = require "libration.device"
local helper = require "helper"

local function randn(shape, seed) return lr.randn(shape, {seed = seed, dtype = "f64"}) end
local function between(low, high) return function(shape, seed) return lr.uniform(shape, {seed = seed, dtype = "f64", low = low, high = high}) end end
local function weigh(y) return (y * lr.randn(y.shape, {seed = 99, dtype = y.dtype}):to(y.device)):sum() end
local ACTS = {"silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh", "gelu", "mish"}

local function gradients(place)
  local function check(f, inputs, tolerance)
    for i, x in ipairs(inputs) do inputs[i] = x:to(place) end
    helper.check_gradient(f, inputs, tolerance)
  end
  local inside = between(-.9, .9)
  for name, make in pairs {
    tan = inside, asin = inside, acos = inside, atan = randn, sinh = randn, cosh = randn, asinh = randn, acosh = between(1.2, 3), atanh = inside, erf = randn, ceil = inside,
    floor = between(.1, .9), round = between(.6, .9), trunc = between(.1, .9), rsqrt = between(.3, 2), softplus = randn, softsign = randn, elu = randn, selu = randn, celu = randn,
    gelu_tanh = randn, hard_sigmoid = randn, hard_swish = randn, mish = randn, thresholded_relu = randn, shrink = randn, leaky_relu = randn,
  } do
    it(name .. " [3,5]", function() check(function(x) return weigh(lr[name](x)) end, {make({3, 5}, 1)}) end)
  end
  it("celu, elu, selu, leaky_relu with other parameters", function()
    check(function(x) return weigh(lr.celu(x, .7)) + weigh(lr.elu(x, 1.3)) + weigh(lr.selu(x, 1.1, .8)) + weigh(lr.leaky_relu(x, .3)) end, {randn({3, 5}, 2)})
  end)
  it("mod and fmod with broadcasting", function()
    for _, name in ipairs {"mod", "fmod"} do check(function(a, b) return weigh(lr[name](a, b)) end, {randn({3, 4}, 1), between(.7, 2)({4}, 2)}) end
  end)
  it("prod, with one and two zeros in a row", function()
    local x = randn({3, 4}, 1)
    x:set(0, 1, 2):set(0, 2, 1):set(0, 2, 3)
    check(function(v) return weigh(lr.prod(v, 2)) + weigh(lr.prod(v:narrow(1, 3, 1), {1, 2}, true)) end, {x})
  end)
  it("cumsum and cumprod forwards, backwards, exclusive", function()
    for _, o in ipairs {{}, {reverse = true}, {exclusive = true}, {exclusive = true, reverse = true}} do
      check(function(x) return weigh(lr.cumsum(x, 2, o)) end, {randn({2, 4, 3}, 1)})
      check(function(x) return weigh(lr.cumprod(x, 2, o)) end, {between(.4, 2)({2, 4, 3}, 1)})
    end
  end)
  it("l1, l2, sum_square, log_sum, log_sum_exp", function()
    for _, name in ipairs {"l1", "l2", "sum_square", "log_sum", "log_sum_exp"} do
      check(function(x) return weigh(lr[name](x, {1, 3})) + weigh(lr[name](x, 2, true)) end, {between(.3, 2)({2, 3, 4}, 1)})
    end
  end)
  it("softmax over the first dim, local_response_norm", function()
    check(function(x) return weigh(lr.softmax(x, 1)) + weigh(lr.log_softmax(x, 2)) end, {randn({3, 2, 2}, 1)})
    check(function(x) return weigh(lr.local_response_norm(x, 3, {alpha = .5, beta = .6, bias = 1.2, dim = 2})) end, {randn({2, 5, 3}, 1)})
  end)
  it("matmul with broadcast batches, einsum", function()
    check(function(a, b) return weigh(lr.matmul(a, b)) end, {randn({2, 1, 3, 4}, 1), randn({5, 4, 2}, 2)})
    check(function(a, b) return weigh(lr.einsum("bhid,bhjd->bhij", {a, b})) + weigh(lr.einsum("bhid,bhjd->hd", {a, b})) end, {randn({2, 2, 3, 2}, 1), randn({2, 2, 2, 2}, 2)})
  end)
  it("activations of linear, conv2d and depthwise", function()
    for _, act in ipairs(ACTS) do
      check(function(x, w, b) return weigh(lr.linear(x, w, b, act)) end, {randn({3, 4}, 1), randn({5, 4}, 2), randn({5}, 3)})
    end
    check(function(x, w, b, r) return weigh(lr.conv2d(x, w, b, {pad = 1, act = "silu", residual = r})) end,
      {randn({1, 3, 4, 2}, 1), randn({3, 3, 3, 2}, 2), randn({3}, 3), randn({1, 3, 4, 3}, 4)})
    check(function(x, w) return weigh(lr.depthwise(x, w, nil, {act = "hard_swish"})) end, {randn({1, 3, 4, 2}, 1), randn({2, 2, 2}, 2)})
  end)
end

describe("gradients in f64 against central differences", function() gradients "cpu" end)
describe("gradients in f64 against central differences, on a device", function()
  local count, reason = device.count()
  if count > 0 then gradients "cuda"
  else it("each function", function() pending(reason) end) end
end)

describe("values", function()
  it("f32 agrees with f64 within 2e-6 relative", function()
    local x64 = randn({37, 5}, 8)
    local x = x64:to "f32"
    for _, name in ipairs {"tan", "atan", "sinh", "cosh", "asinh", "erf", "softplus", "softsign", "elu", "selu", "celu", "gelu", "gelu_tanh", "hard_sigmoid", "hard_swish", "mish",
      "leaky_relu"} do
      local d, size = helper.difference(lr[name](x:to "f64"), lr[name](x))
      assert.is_true(d <= 2e-6 * math.max(size, 1), name .. " " .. d)
    end
    local u = lr.uniform({99}, {seed = 1, low = -.99, high = .99})
    for _, name in ipairs {"asin", "acos", "atanh"} do
      local d, size = helper.difference(lr[name](u:to "f64"), lr[name](u))
      assert.is_true(d <= 2e-6 * math.max(size, 1), name .. " " .. d)
    end
  end)
  it("erf is right within 3e-7 relative from 1e-4 to 6, at the ends and of NaN", function()
    local x = lr.exp(lr.affine(lr.arange(2000, "f64"), 11 / 2000, -9.2)):to "f32"
    local want, have = lr.erf(x:to "f64"), lr.erf(x):to "f64"
    assert.is_true(lr.max(lr.abs(have / want - 1)):item() < 3e-7)
    local t = lr.erf(lr.tensor {-math.huge, math.huge, 0 / 0, -0.}):totable()
    assert.is_true(t[1] == -1 and t[2] == 1 and t[3] ~= t[3] and 1 / t[4] == -math.huge)
  end)
  it("NaN survives every function of one number", function()
    for kind, name in pairs(require("libration.ops").kinds.unary) do
      local v = lr[name == "rint" and "round" or name](lr.tensor {.5, 0 / 0}):get(2)
      assert.is_true(v ~= v, name .. " " .. kind)
    end
  end)
  it("round takes half to even; ceil, floor, trunc, isinf", function()
    local x = lr.tensor {-2.5, -1.5, -.4, .5, 1.5, 2.5}
    assert.are.same({-2, -2, 0, 0, 2, 2}, lr.round(x):totable())
    assert.are.same({-2, -1, 0, 1, 2, 3}, lr.ceil(x):totable())
    assert.are.same({-3, -2, -1, 0, 1, 2}, lr.floor(x):totable())
    assert.are.same({-2, -1, 0, 0, 1, 2}, lr.trunc(x):totable())
    local y = lr.tensor {math.huge, -math.huge, 0 / 0, 1}
    assert.are.same({1, 1, 0, 0}, lr.isinf(y):totable())
    assert.are.same({1, 0, 0, 0}, lr.isinf(y, 1):totable())
    assert.are.same({0, 1, 0, 0}, lr.isinf(y, -1):totable())
  end)
  it("mod has the sign of b, fmod that of a, of f32 and i32; x mod 0 is 0 of whole numbers", function()
    local a, b = {-7, 7, -7, 7, 6}, {3, -3, -3, 3, 3}
    for _, dtype in ipairs {"f32", "i32", "f16"} do
      assert.are.same({2, -2, -1, 1, 0}, lr.mod(lr.tensor(a, dtype), lr.tensor(b, dtype)):totable())
      assert.are.same({-1, 1, -1, 1, 0}, lr.fmod(lr.tensor(a, dtype), lr.tensor(b, dtype)):totable())
    end
    assert.are.same({0, 0, 0}, lr.mod(lr.tensor({5, -2 ^ 31, 3}, "i32"), lr.tensor({0, -1, 1}, "i32")):totable())
  end)
  it("bits and shifts of i32 and u8", function()
    local a, b = lr.tensor({12, -1, 255}, "i32"), lr.tensor({10, 255, 1}, "i32")
    assert.are.same({8, 255, 1}, lr.bit_and(a, b):totable())
    assert.are.same({14, -1, 255}, lr.bit_or(a, b):totable())
    assert.are.same({6, -256, 254}, lr.bit_xor(a, b):totable())
    assert.are.same({-13, 0, -256}, lr.bit_not(a):totable())
    assert.are.same({243, 0, 255}, lr.bit_not(lr.tensor({12, 255, 0}, "u8")):totable())
    assert.are.same({48, -4, 1020}, lr.shift_left(a, 2):totable())
    assert.are.same({48, 252, 254}, lr.shift_left(lr.tensor({12, 255, 127}, "u8"), lr.tensor({2, 2, 1}, "u8")):totable())
    assert.are.same({3, -1, 63}, lr.shift_right(a, 2):totable())
    assert.are.same({0, -1, 0}, lr.shift_right(a, lr.tensor({32, -1, 99}, "i32")):totable())
    assert.are.same({0, 0, 0}, lr.shift_left(a, 40):totable())
  end)
  it("prod, cumsum, argmin, the last of equals, hardmax", function()
    local x = lr.tensor {{3, 1, 2}, {0, 5, 5}}
    assert.are.same({6, 0}, lr.prod(x, 2):totable())
    assert.are.same(1, lr.prod(lr.zeros {0}):item())
    assert.are.same({{3, 4, 6}, {0, 5, 10}}, lr.cumsum(x):totable())
    assert.are.same({{0, 3, 4}, {0, 0, 5}}, lr.cumsum(x, 2, {exclusive = true}):totable())
    assert.are.same({{3, 6, 7}, {0, 5, 5}}, lr.cumsum(lr.tensor({{3, 1, 2}, {0, 5, 5}}, "i32"), 1, {reverse = true}):totable())
    assert.are.same({{3, 3, 6}, {0, 0, 0}}, lr.cumprod(x):totable())
    assert.are.same({{2, 2, 1}, {25, 5, 1}}, lr.cumprod(x, 2, {exclusive = true, reverse = true}):totable())
    assert.are.same({1, 0}, lr.argmin(x, 2):totable())
    assert.are.same({1, 1, 2}, {lr.argmax(x, 2):get(2), lr.argmax(x, -1, true):get(2, 1), lr.argmax(x, 2, false, true):get(2)})
    assert.are.same({2, 1}, {lr.argmin(lr.tensor({3, 1, 0}, "u8"), 1):item(), lr.argmin(lr.tensor({1, -2 ^ 31, 5}, "i32"), 1):item()})
    assert.are.same({{1, 0, 0}, {0, 1, 0}}, lr.hardmax(x):totable())
    assert.are.same({{1, 0, 0}, {0, 1, 1}}, lr.hardmax(x, 1):totable())
  end)
  it("extremes, their places, sums and products along long and wide dims equal plain arithmetic; NaN wins, but not in argmax", function()
    for _, shape in ipairs {{3, 700}, {700, 3}, {2, 40, 600}} do
      local d = shape[1] == 700 and 1 or 2
      local x = lr.round(randn(shape, 7) * 20)
      local top, low, at, sums = lr.max(x, d), lr.min(x, d), lr.argmax(x, d), lr.cumsum(x, d)
      local n, outer, inner = shape[d], d == 1 and 1 or shape[1], shape[d + 1] or 1
      local function flat(t) return t:contiguous():reshape(t:numel()):totable() end
      local v, tops, lows, places, sum = flat(x), flat(top), flat(low), flat(at), flat(sums)
      for o = 0, outer - 1 do
        for i = 0, inner - 1, 37 do
          local best, least, place, total = -math.huge, math.huge, nil, 0
          for k = 0, n - 1 do
            local index = (o * n + k) * inner + i + 1
            total = total + v[index]
            if v[index] > best then best, place = v[index], k end
            least = math.min(least, v[index])
            assert.are.equal(total, sum[index])
          end
          local result = o * inner + i + 1
          assert.are.same({best, least, place}, {tops[result], lows[result], places[result]})
        end
      end
    end
    local x = lr.affine(lr.arange(700), -1, 0)
    x:set(0 / 0, 333)
    local top, low = lr.max(x):item(), lr.min(x:reshape(700, 1), 1):item()
    assert.is_true(top ~= top and low ~= low)
    assert.are.equal(0, lr.argmax(x):item())
    assert.are.equal(0, lr.argmax(lr.full({300}, 0 / 0)):item())
  end)
  it("where of dense, strided and single operands of every dtype", function()
    local c = lr.tensor({1, 0, 0, 1, 1, 0}, "u8")
    for _, dtype in ipairs {"f32", "f64", "f16", "u8", "i32"} do
      local a, b = lr.tensor({1, 2, 3, 4, 5, 6}, dtype), lr.tensor({7, 8, 9, 10, 11, 12}, dtype)
      local five = lr.full({}, 5, dtype)
      assert.are.same({1, 8, 9, 4, 5, 12}, lr.where(c, a, b):totable())
      assert.are.same({1, 5, 5, 4, 5, 5}, lr.where(c, a, five):totable())
      assert.are.same({5, 8, 9, 5, 5, 12}, lr.where(c, five, b):totable())
      assert.are.same({6, 8, 9, 3, 2, 12}, lr.where(c, a:flip(1), b):totable())
    end
  end)
  it("log_sum_exp neither overflows nor turns -infinity into NaN", function()
    local y = lr.log_sum_exp(lr.tensor {{1000, 1000}, {-math.huge, -math.huge}, {math.huge, 0}}, 2):totable()
    assert.is_true(math.abs(y[1] - 1000 - math.log(2)) < 1e-3 and y[2] == -math.huge and y[3] == math.huge)
  end)
  it("matmul of vectors, of broadcast batches, of i32 with either side transposed", function()
    local v, m = lr.tensor {1, 2}, lr.tensor {{1, 2, 3}, {4, 5, 6}}
    assert.are.same({9, 12, 15}, lr.matmul(v, m):totable())
    assert.are.same({14, 32}, lr.matmul(m, lr.tensor {1, 2, 3}):totable())
    assert.are.same(5, lr.matmul(v, v):item())
    local a, b = randn({2, 1, 3, 4}, 1), randn({5, 4, 2}, 2)
    local y = lr.matmul(a, b)
    assert.are.same({2, 5, 3, 2}, y.shape)
    assert.is_true(helper.difference(y:select(1, 2):select(1, 4), lr.matmul(a:select(1, 2):select(1, 1), b:select(1, 4))) < 1e-12)
    local p, q = lr.round(randn({2, 3, 4}, 3) * 50), lr.round(randn({2, 4, 5}, 4) * 50)
    for _, t in ipairs {{false, false}, {true, false}, {false, true}, {true, true}} do
      local u, w = t[1] and p:transpose(2, 3) or p, t[2] and q:transpose(2, 3) or q
      assert.are.equal(0, (helper.difference(lr.matmul(p, q), lr.matmul(u:to "i32", w:to "i32", t[1], t[2]):to "f64")))
    end
  end)
  it("einsum: sums, traces, outer products, dots, more than two operands", function()
    local a, b, c = randn({3, 4}, 1), randn({4, 5}, 2), randn({5}, 3)
    local function near(want, have) assert.is_true(helper.difference(want, have) < 1e-12) end
    near(lr.matmul(a, b), lr.einsum("ij,jk", {a, b}))
    near(lr.matmul(lr.matmul(a, b), c), lr.einsum("ij, jk, k -> i", {a, b, c}))
    near(lr.sum(a, 1), lr.einsum("ij->j", {a}))
    near(a:transpose(1, 2), lr.einsum("ij->ji", {a}))
    near(a:unsqueeze(3) * c, lr.einsum("ij,k->ijk", {a, c}))
    local s = randn({3, 3}, 4)
    near(lr.tensor({s:get(1, 1) + s:get(2, 2) + s:get(3, 3)}, "f64"):reshape {}, lr.einsum("ii", {s}))
    near(lr.tensor({s:get(1, 1), s:get(2, 2), s:get(3, 3)}, "f64"), lr.einsum("ii->i", {s}))
    local x, y = randn({2, 1, 3, 4}, 5), randn({6, 4, 2}, 6)
    near(lr.matmul(x, y), lr.einsum("...ij,...jk->...ik", {x, y}))
    near(lr.sum(x * x, {2, 3, 4}), lr.einsum("b...,b...->b", {x, x}))
  end)
  it("local_response_norm against plain arithmetic", function()
    local x = randn({2, 6}, 1)
    local y = lr.local_response_norm(x, 4, {alpha = .3, beta = .5, bias = 2})
    for i = 1, 2 do
      for c = 1, 6 do
        local sum = 0
        for k = math.max(1, c - 1), math.min(6, c + 2) do sum = sum + x:get(i, k) ^ 2 end
        assert.is_true(math.abs(y:get(i, c) - x:get(i, c) / (2 + .3 / 4 * sum) ^ .5) < 1e-12)
      end
    end
  end)
end)

describe("activations of layers", function()
  local function twin(fn, ...)
    local R = lr.record(fn)
    R(...)
    local first = lr.compare(R, 1e-5)
    assert.is_nil(first, first and (first.name .. " off by " .. first.difference))
  end
  local x = lr.randn({2, 9, 7, 20}, {seed = 1})
  for _, act in ipairs(ACTS) do
    it(act .. " f32 within 1e-5 of the slow twins", function()
      for _, outputs in ipairs {33, 16} do
        local w, b, r = lr.randn({outputs, 3, 3, 20}, {seed = 2}) * .1, lr.randn({outputs}, {seed = 3}), lr.randn({2, 9, 7, outputs}, {seed = 4})
        twin(function(v) return lr.conv2d(v, w, b, {pad = 1, act = act, residual = r}) end, x)
      end
      twin(function(v) return lr.conv2d(v, lr.randn({20, 1, 1, 10}, {seed = 2}), nil, {groups = 2, act = act}) end, x) -- oneDNN's
      twin(function(v) return lr.depthwise(v, lr.randn({3, 3, 20}, {seed = 2}), nil, {pad = 1, act = act}) end, x)
      twin(function(v) return lr.linear(v, lr.randn({13, 20}, {seed = 4}), lr.randn({13}, {seed = 5}), act) end, x)
    end)
    it(act .. " in bf16 within 2 % of f32", function()
      local w, b = lr.randn({16, 3, 3, 20}, {seed = 2}) * .1, lr.randn({16}, {seed = 3})
      local ok, y = pcall(function() return lr.conv2d(x:to "bf16", w:to "bf16", b, {act = act}):to "f32" end)
      if not ok then return pending("no bf16 convolution on this processor: " .. tostring(y)) end
      local d, size = helper.difference(lr.conv2d(x, w, b, {act = act}), y)
      assert.is_true(d <= .02 * size, d / size)
    end)
  end
  it("give the same bits on every instruction set", function()
    local w, d = lr.randn({19, 3, 3, 20}, {seed = 2}) * .1, lr.randn({3, 3, 20}, {seed = 2})
    local want
    helper.each_isa(function()
      local y, z = lr.conv2d(x, w, nil, {act = "silu"}), lr.depthwise(x, d, nil, {act = "mish"})
      want = want or {y, z}
      assert.are.equal(0, (helper.difference(want[1], y)))
      assert.are.equal(0, (helper.difference(want[2], z)))
    end)
  end)
end)

describe("bad input is refused by name", function()
  it("dtypes, shapes, equations", function()
    local a = lr.zeros {2, 3}
    helper.refuses("unary: x is i32 [2]", lr.tan, lr.zeros({2}, "i32"))
    helper.refuses("binary: bits of f32 [2,3]", lr.bit_and, a, a)
    helper.refuses("linear: activation prelu", lr.linear, a, a, nil, "prelu")
    helper.refuses("conv2d: activation swish", lr.conv2d, a, a, nil, {act = "swish"})
    helper.refuses("matmul: f32 [2,2,3] and f32 [3,3,1]", lr.matmul, lr.zeros {2, 2, 3}, lr.zeros {3, 3, 1})
    helper.refuses("cumsum: dim 3", lr.cumsum, a, 3)
    helper.refuses("'k' in the result", lr.einsum, "ij->k", {a})
    helper.refuses("sizes 2 and 3 of 'i'", lr.einsum, "ii", {a})
    helper.refuses("3 letters for f32 [2,3]", lr.einsum, "ijk", {a})
  end)
end)
