-- ops_spec.lua: every op with a gradient against finite differences in f64, values against plain arithmetic, bad input refused by name.
local lr = require "libration"
local device = require "libration.device"
local helper = require "helper"

local function randn(shape, seed) return lr.randn(shape, {seed = seed, dtype = "f64"}) end
local function away(shape, seed) -- no element near 0
  local x = randn(shape, seed)
  local p = x:ptr()
  for i = 0, x:numel() - 1 do p[i] = p[i] + (p[i] >= 0 and .2 or -.2) end
  return x
end
local function positive(shape, seed) return (randn(shape, seed):abs() + .3):clone() end
-- a weighted sum, so that every output element has its own gradient
local function weigh(y) return (y * lr.randn(y.shape, {seed = 99, dtype = y.dtype}):to(y.device)):sum() end

local function gradients(place)
  local function check(f, inputs, tolerance)
    for i, x in ipairs(inputs) do inputs[i] = x:to(place) end
    helper.check_gradient(f, inputs, tolerance)
  end
  local unary = {
    exp = randn, sin = randn, cos = randn, sigmoid = randn, tanh = randn, gelu = randn, silu = randn, square = randn, neg = randn, abs = away,
    relu = away, log = positive, sqrt = positive, reciprocal = positive,
  }
  for name, make in pairs(unary) do
    it(name .. " [3,5]", function() check(function(x) return weigh(lr[name](x)) end, {make({3, 5}, 1)}) end)
  end
  for _, name in ipairs {"add", "sub", "mul", "div", "maximum", "minimum"} do
    it(name .. " with broadcasting [4,1,3] and [5,1]", function()
      check(function(a, b) return weigh(lr[name](a, b)) end, {randn({4, 1, 3}, 1), away({5, 1}, 2)})
    end)
  end
  it("pow", function() check(function(a, b) return weigh(lr.pow(a, b)) end, {positive({3, 4}, 1), randn({4}, 2)}) end)
  it("where", function()
    local condition = lr.gt(randn({3, 4}, 3), 0):to(place)
    check(function(a, b) return weigh(lr.where(condition, a, b)) end, {randn({3, 4}, 1), randn({4}, 2)})
  end)
  it("affine and clamp", function() check(function(x) return weigh(lr.clamp(x * 3 + 1, -2, 2.5)) end, {randn({7}, 5)}) end)
  it("prelu", function() check(function(x, s) return weigh(lr.prelu(x, s)) end, {away({2, 3, 4}, 1), randn({4}, 2)}) end)
  for _, name in ipairs {"sum", "mean", "max", "min"} do
    for _, case in ipairs {{nil, false}, {2, false}, {{1, 3}, true}, {-1, true}, {{1, 2}, false}} do
      it(name .. " over " .. (type(case[1]) == "table" and table.concat(case[1], "+") or tostring(case[1])), function()
        check(function(x) return weigh(lr[name](x, case[1], case[2])) end, {randn({3, 4, 5}, 1)})
      end)
    end
  end
  for _, t in ipairs {{false, false}, {true, false}, {false, true}, {true, true}} do
    it(("matmul %s %s"):format(tostring(t[1]), tostring(t[2])), function()
      local a, b = t[1] and {2, 4, 3} or {2, 3, 4}, t[2] and {2, 5, 4} or {2, 4, 5}
      check(function(x, y) return weigh(lr.matmul(x, y, t[1], t[2])) end, {randn(a, 1), randn(b, 2)})
    end)
  end
  it("matmul with one matrix for all", function() check(function(x, y) return weigh(lr.matmul(x, y)) end, {randn({2, 3, 4}, 1), randn({4, 5}, 2)}) end)
  it("linear with bias and relu", function()
    check(function(x, w, b) return weigh(lr.linear(x, w, b, "relu")) end, {randn({2, 3, 4}, 1), randn({5, 4}, 2), randn({5}, 3)})
  end)
  it("conv2d: groups, stride, pad, dilation, residual, relu", function()
    local options = {groups = 2, stride = {2, 1}, pad = {1, 2, 0, 1}, dilation = {1, 2}, act = "relu"}
    local y = lr.conv2d(randn({2, 5, 6, 4}, 1), randn({6, 3, 2, 2}, 2), nil, options)
    check(function(x, w, b, r)
      return weigh(lr.conv2d(x, w, b, {groups = 2, stride = {2, 1}, pad = {1, 2, 0, 1}, dilation = {1, 2}, act = "relu", residual = r}))
    end, {randn({2, 5, 6, 4}, 1), randn({6, 3, 2, 2}, 2), randn({6}, 3), randn(y.shape, 4)})
  end)
  it("depthwise", function()
    check(function(x, w, b) return weigh(lr.depthwise(x, w, b, {stride = 2, pad = 1})) end, {randn({2, 5, 6, 3}, 1), randn({3, 3, 3}, 2), randn({3}, 3)})
  end)
  it("max_pool2d and avg_pool2d", function()
    check(function(x) return weigh(lr.max_pool2d(x, {3, 2}, {stride = {2, 1}, pad = {1, 1, 0, 1}})) end, {randn({2, 5, 4, 3}, 1)})
    check(function(x) return weigh(lr.avg_pool2d(x, {3, 2}, {stride = {2, 1}, pad = {1, 1, 0, 1}})) end, {randn({2, 5, 4, 3}, 1)})
  end)
  it("resize_bilinear in three conventions", function()
    for _, o in ipairs {{half_pixel = true}, {align_corners = true}, {}} do
      check(function(x) return weigh(lr.resize_bilinear(x, {7, 5}, o)) end, {randn({1, 3, 4, 2}, 1)})
    end
  end)
  it("depth_to_space", function() check(function(x) return weigh(lr.depth_to_space(x, 2)) end, {randn({2, 2, 3, 8}, 1)}) end)
  it("pad and concat", function()
    check(function(a, b) return weigh(lr.concat({lr.pad(a, {0, 1}, {2, 0}), b}, 1)) end, {randn({2, 3}, 1), randn({3, 4}, 2)})
  end)
  it("gather (embedding) with a repeated row", function()
    local index = lr.tensor({{0, 3}, {3, 1}}, "i32"):to(place)
    check(function(x) return weigh(lr.gather(x, index)) end, {randn({4, 3}, 1)})
  end)
  it("softmax and log_softmax", function()
    check(function(x) return weigh(lr.softmax(x)) end, {randn({3, 5}, 1)})
    check(function(x) return weigh(lr.log_softmax(x)) end, {randn({3, 5}, 1)})
  end)
  it("layer_norm", function() check(function(x, w, b) return weigh(lr.layer_norm(x, w, b)) end, {randn({2, 3, 5}, 1), randn({5}, 2), randn({5}, 3)}, 1e-5) end)
  it("batch_norm, training and not", function()
    for _, training in ipairs {true, false} do
      check(function(x, w, b)
        return weigh(lr.batch_norm(x, w, b, lr.zeros({3}, "f64", place), lr.ones({3}, "f64", place), training))
      end, {randn({4, 2, 3}, 1), randn({3}, 2), randn({3}, 3)}, 1e-5)
    end
  end)
  it("losses with a mask", function()
    local mask = lr.tensor({{1, 0, 1}, {1, 1, 0}}, "f64"):to(place)
    for _, name in ipairs {"mse", "mae", "huber"} do
      check(function(x, t) return lr[name](x, t, mask, .5) end, {randn({2, 3}, 1), randn({2, 3}, 2)})
      check(function(x, t) return lr[name](x, t) end, {randn({2, 3}, 1), randn({2, 3}, 2)})
    end
  end)
  it("cross_entropy with a row left out", function()
    local target = lr.tensor({2, -1, 0}, "i32"):to(place)
    check(function(x) return lr.cross_entropy(x, target) end, {randn({3, 4}, 1)})
  end)
  it("dropout at a fixed counter", function()
    local counter = lr.tensor({7}, "i32"):to(place)
    check(function(x) return weigh(lr.dropout(x, counter, {p = .4, seed = 3})) end, {randn({5, 6}, 1)})
  end)
  it("views: reshape, narrow, permute, expand, select, squeeze", function()
    check(function(x)
      return weigh(x:reshape(2, 6, 2):narrow(2, 2, 3):permute(3, 1, 2)) + weigh(x:select(1, 2):unsqueeze(1):expand(3, 3, 2)) + weigh(x:transpose(1, 3):squeeze())
    end, {randn({4, 3, 2}, 1)})
  end)
  it("lstm, two steps chained, with initial state", function()
    check(function(x, w, r, b, h0, c0)
      local y, hn, cn = lr.lstm(x, w, r, b, h0, c0)
      return weigh(y) + weigh(hn) * 2 + weigh(cn)
    end, {randn({2, 3, 4}, 1), randn({12, 4}, 2) * .5, randn({12, 3}, 3) * .5, randn({12}, 4), randn({2, 3}, 5), randn({2, 3}, 6)})
  end)
end

describe("gradients in f64 against central differences", function() gradients "cpu" end)
describe("gradients in f64 against central differences, on a device", function()
  local count, reason = device.count()
  if count > 0 then gradients "cuda"
  else it("each op", function() pending(reason) end) end
end)

describe("values", function()
  it("f32 agrees with f64 within 2e-6 relative, all dtypes round trip", function()
    local x64 = randn({37, 5}, 8)
    local x = x64:to("f32")
    for _, name in ipairs {"exp", "sigmoid", "tanh", "gelu", "silu", "sin", "cos", "square", "softmax"} do
      local d, size = helper.difference(lr[name](x:to("f64")), lr[name](x))
      assert.is_true(d <= 2e-6 * math.max(size, 1), name .. " " .. d)
    end
    for _, dtype in ipairs {"f16", "bf16"} do
      assert.are.equal(0, (helper.difference(x:to(dtype), x:to(dtype):to("f32"):to(dtype))))
      local d = helper.difference((x:to(dtype) + x:to(dtype)):to("f32"), x:to(dtype):to("f32") * 2)
      assert.are.equal(0, d)
    end
    assert.are.same({0, 2, 4, 255, 0, 0}, lr.tensor({-3, 1.5, 3.5, 300, 0 / 0, .5}):to("u8"):totable())
  end)
  it("softmax and log_softmax of f32 rows of any length on every processor: within 2e-6 of f64, the same infinities and NaN", function()
    for n, s in ipairs {{48, 16}, {1, 1}, {9, 5}, {8, 15}, {19, 17}, {3, 64}, {5, 100}, {2, 197}, {17, 2}} do
      local x = randn(s, n) * 6
      x:narrow(1, 1, 1):narrow(2, s[2], 1):fill_(-200) -- far below the rest: 0
      if s[1] > 2 then x:narrow(1, 2, 1):fill_(-1 / 0) end
      if s[1] > 7 then
        x:narrow(1, 4, 1):narrow(2, 1, 1):fill_(-1 / 0)
        x:narrow(1, 5, 1):narrow(2, 2, 1):fill_(1 / 0)
        x:narrow(1, 6, 1):narrow(2, 2, 1):fill_(0 / 0)
      end
      for _, name in ipairs {"softmax", "log_softmax"} do
        local want = lr[name](x):totable()
        helper.each_isa(function(isa)
          for r, row in ipairs(lr[name](x:to "f32"):totable()) do
            for i, v in ipairs(row) do
              local w = want[r][i]
              local near = w == v or (w ~= w and v ~= v) or math.abs(v - w) <= 2e-6 * math.max(1, math.abs(w))
              assert.is_true(near, ("%s [%d,%d], set %d, row %d, %d: %g, want %g"):format(name, s[1], s[2], isa, r, i, v, w))
            end
          end
        end)
      end
    end
  end)
  it("half floats convert as IEEE says", function()
    assert.are.same({65504, math.huge, 2 ^ -24, -2, 0}, lr.tensor({65504, 65520, 2 ^ -24, -2, 2 ^ -26}):to("f16"):to("f32"):totable())
  end)
  it("exp, sigmoid and tanh are right at the ends and let NaN pass", function()
    local x = lr.tensor {-math.huge, -200, 0, 200, math.huge, 0 / 0}
    local function same(a, b) for i = 1, 6 do assert.is_true(a[i] == b[i] or (a[i] ~= a[i] and b[i] ~= b[i]), i .. ": " .. a[i]) end end
    same(lr.exp(x):totable(), {0, 0, 1, math.huge, math.huge, 0 / 0})
    same(lr.sigmoid(x):totable(), {0, 0, .5, 1, 1, 0 / 0})
    same(lr.tanh(x):totable(), {-1, -1, 0, 1, 1, 0 / 0})
  end)
  it("NaN survives add, maximum, relu, clamp, max, sum; mask takes it out of a loss", function()
    local x = lr.tensor {1, 0 / 0, 3}
    for _, y in ipairs {x + 1, lr.maximum(x, 2), lr.maximum(lr.full({}, 2), x), lr.relu(x), lr.clamp(x, 0, 1)} do
      local t = y:totable()
      assert.is_true(t[2] ~= t[2])
    end
    for _, name in ipairs {"max", "min", "sum", "mean"} do
      local v = lr[name](x):item()
      assert.is_true(v ~= v, name)
    end
    assert.are.equal(5, lr.mse(x, lr.zeros {3}, lr.tensor {1, 0, 1}):item())
    assert.are.same({0, 1, 0}, lr.isnan(x):totable())
  end)
  it("comparisons and i32, u8 arithmetic", function()
    local a, b = lr.tensor({1, 2, 3}, "i32"), lr.tensor({3, 2, 1}, "i32")
    assert.are.same({1, 0, 0}, lr.lt(a, b):totable())
    assert.are.same({0, 1, 0}, lr.eq(a, b):totable())
    assert.are.same({0, 1, 3}, lr.div(a, b):totable())
    assert.are.same({255, 0}, (lr.tensor({250, 3}, "u8") + lr.tensor({10, 0}, "u8") - lr.tensor({0, 4}, "u8")):totable())
  end)
  it("strided operands equal dense ones", function()
    local x = lr.randn({6, 7, 5}, {seed = 1})
    local v = x:permute(3, 1, 2):narrow(2, 2, 4)
    assert.are.equal(0, (helper.difference(v + v, v:clone() + v:clone())))
    assert.are.equal(0, (helper.difference(lr.sum(v, 2), lr.sum(v:clone(), 2))))
    assert.are.equal(0, (helper.difference(lr.concat({v, v}, 2), lr.concat({v:clone(), v:clone()}, 2))))
    local y = lr.zeros {5, 4, 7}
    y:transpose(1, 2):copy_(v:transpose(1, 2))
    assert.are.equal(0, (helper.difference(y, v)))
  end)
  it("sums do not depend on the thread count", function()
    local x = lr.randn({300, 501}, {seed = 3})
    local threads = lr.threads()
    lr.threads(1)
    local a, b, c = lr.sum(x):item(), lr.sum(x, 1), lr.mean(x, 2)
    lr.threads(2)
    assert.are.equal(a, lr.sum(x):item())
    assert.are.equal(0, (helper.difference(b, lr.sum(x, 1))))
    assert.are.equal(0, (helper.difference(c, lr.mean(x, 2))))
    lr.threads(threads)
  end)
  it("uniform and normal numbers: moments, range, reproducible, streams differ", function()
    local u = lr.uniform({20000}, {seed = 5, low = -1, high = 3})
    assert.is_true(math.abs(u:mean():item() - 1) < .03 and u:min():item() >= -1 and u:max():item() < 3)
    local n = lr.randn({20001}, {seed = 5, mean = 2, sd = .5})
    assert.is_true(math.abs(n:mean():item() - 2) < .02 and math.abs(((n - 2) * (n - 2)):mean():item() - .25) < .02)
    assert.are.equal(0, (helper.difference(n, lr.randn({20001}, {seed = 5, mean = 2, sd = .5}))))
    assert.is_true(helper.difference(n, lr.randn({20001}, {seed = 5, stream = 1, mean = 2, sd = .5})) > 1)
  end)
  it("Philox 4x32-10 gives the published vectors", function()
    local ffi = require "ffi"
    local out = ffi.new "uint32_t[4]"
    lr.core.C.lbr_philox(0, 0, 0, out)
    assert.are.same({0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, {out[0], out[1], out[2], out[3]})
    local ones = 0xffffffffffffffffULL
    lr.core.C.lbr_philox(ones, ones, ones, out)
    assert.are.same({0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}, {out[0], out[1], out[2], out[3]})
  end)
end)

describe("fast kernels against their slow twins", function()
  local function twin(tolerance, fn, ...)
    local R = lr.record(fn)
    R(...)
    local first = lr.compare(R, tolerance)
    assert.is_nil(first, first and (first.name .. " off by " .. first.difference))
  end
  it("conv2d f32 within 1e-5: act, residual, prelu, groups, dilation, odd sizes", function()
    local x, w, b = lr.randn({2, 9, 7, 6}, {seed = 1}), lr.randn({10, 3, 3, 6}, {seed = 2}), lr.randn({10}, {seed = 3})
    local r, s = lr.randn({2, 9, 7, 10}, {seed = 4}), lr.randn({10}, {seed = 5})
    for _, o in ipairs {{pad = 1}, {pad = 1, act = "relu"}, {pad = 1, act = "relu6", residual = r}, {pad = 1, act = "prelu", slope = s},
      {pad = 1, act = "prelu", slope = s, residual = r},
      {stride = 2, pad = {0, 1, 0, 1}}, {dilation = 2, pad = 2}} do
      twin(1e-5, function(a) return lr.conv2d(a, w, b, o) end, x)
    end
    twin(1e-5, function(a) return lr.conv2d(a, lr.randn({10, 3, 3, 3}, {seed = 2}), b, {groups = 2}) end, x)
    twin(1e-5, function(a) return lr.conv2d(a, lr.randn({11, 1, 1, 6}, {seed = 2})) end, x)
  end)
  it("depthwise f32 within 1e-5", function()
    local x = lr.randn({2, 9, 7, 13}, {seed = 1})
    for _, o in ipairs {{pad = 1}, {pad = {1, 2, 1, 2}, stride = 2, act = "relu6"}, {pad = 2, dilation = 2, act = "prelu", slope = lr.randn({13}, {seed = 5})}} do
      twin(1e-5, function(a) return lr.depthwise(a, lr.randn({3, 3, 13}, {seed = 2}), lr.randn({13}, {seed = 3}), o) end, x)
    end
  end)
  it("convolution gradients f32 within 1e-5", function()
    local x, w = lr.requires_grad(lr.randn({2, 9, 7, 6}, {seed = 1})), lr.requires_grad(lr.randn({10, 3, 3, 6}, {seed = 2}))
    twin(1e-5, function()
      local tape = lr.tape()
      return tape:gradient(weigh(lr.conv2d(x, w, nil, {pad = 1, stride = 2})), {x, w})
    end)
    local d = lr.requires_grad(lr.randn({3, 3, 6}, {seed = 2}))
    twin(1e-5, function()
      local tape = lr.tape()
      return tape:gradient(weigh(lr.depthwise(x, d, nil, {pad = 1, stride = 2})), {x, d})
    end)
  end)
  it("matmul and linear f32 within 1e-5", function()
    local a, b = lr.randn({3, 17, 29}, {seed = 1}), lr.randn({3, 29, 11}, {seed = 2})
    twin(1e-5, function(x, y) return lr.matmul(x, y) end, a, b)
    twin(1e-5, function(x, y) return lr.matmul(x, y, true, false) end, a:transpose(2, 3):clone(), b)
    twin(1e-5, function(x) return lr.linear(x, lr.randn({13, 29}, {seed = 4}), lr.randn({13}, {seed = 5}), "relu6") end, a)
  end)
  it("bf16 convolution and matmul stay within 1 % of f32", function()
    local x, w = lr.randn({1, 8, 8, 16}, {seed = 1}), lr.randn({16, 3, 3, 16}, {seed = 2})
    local y = lr.conv2d(x, w, nil, {pad = 1})
    local ok, z = pcall(function() return lr.conv2d(x:to("bf16"), w:to("bf16"), nil, {pad = 1}) end)
    if not ok then
      pending("no bf16 convolution on this processor: " .. tostring(z))
      return
    end
    local d, size = helper.difference(y, z:to("f32"))
    assert.is_true(d <= .01 * size, d / size)
    local a, b = lr.randn({33, 40}, {seed = 1}), lr.randn({40, 21}, {seed = 2})
    d, size = helper.difference(lr.matmul(a, b), lr.matmul(a:to("bf16"), b:to("bf16")):to("f32"))
    assert.is_true(d <= .01 * size, d / size)
  end)
  it("packed weights follow a write to the weights", function()
    local x, w = lr.randn({1, 5, 5, 8}, {seed = 1}), lr.randn({8, 3, 3, 8}, {seed = 2})
    local before = lr.conv2d(x, w)
    w:copy_(w * 2)
    assert.is_true(helper.difference(before * 2, lr.conv2d(x, w)) < 1e-4)
  end)
end)

describe("bad input is refused by name", function()
  local a = lr.zeros {2, 3}
  it("shapes and dtypes", function()
    helper.refuses("matmul: f32 [2,3] and f32 [2,3]", lr.matmul, a, a)
    helper.refuses("add: f32 [2,3] and f32 [4]", lr.add, a, lr.zeros {4})
    helper.refuses("add: f32 [2,3] and f64 [2,3]", lr.add, a, lr.zeros({2, 3}, "f64"))
    helper.refuses("conv2d: x is f32 [2,3]", lr.conv2d, a, a)
    helper.refuses("lstm_forward: x is f32 [2,3]", lr.lstm, a, a, a, a)
    helper.refuses("gather: index 7", lr.gather, a, lr.tensor({7}, "i32"))
    helper.refuses("dropout: p 1", lr.dropout, a, lr.tensor({0}, "i32"), {p = 1})
    helper.refuses("dtype f8", lr.zeros, {2}, "f8")
    helper.refuses("more than 2^31 elements", lr.empty, {2 ^ 20, 2 ^ 20})

  end)
end)
