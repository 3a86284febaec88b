-- spatial_spec.lua: convolutions and pools of one to three dims, resizing, norms over groups: against plain loops, adjoints, known numbers; gradients against differences.
local lr = require "libration"
local helper = require "helper"

local function randn(shape, seed) return lr.randn(shape, {seed = seed, dtype = "f64"}) end
local function weigh(y) return (y * lr.randn(y.shape, {seed = 99, dtype = y.dtype})):sum() end
local function close(want, have, tolerance)
  local d, size = helper.difference(want, have)
  assert(d <= (tolerance or 1e-12) * math.max(size, 1), d)
end
local function same(want, t) assert.are.same(want, t:totable()) end

-- fn(places of the window along each axis, the output's place) for every window of a pool or convolution.
local function windows(sizes, a, fn)
  local n, out = #sizes, {}
  for i = 1, n do out[i] = lr.window_count(sizes[i], a.kernel[i], a.stride[i], a.pad[2 * i - 1], a.pad[2 * i], a.dilation[i], a.ceil) end
  local function visit(i, place)
    if i > n then return fn(place) end
    for o = 0, out[i] - 1 do
      place[i] = o
      visit(i + 1, place)
    end
  end
  visit(1, {})
  return out
end

-- The pool of x [B,..,C] with one picture and one channel, number by number.
local function plain_pool(x, kind, a)
  local sizes, values = {}, {}
  for i = 1, #a.kernel do sizes[i] = x:size(i + 1) end
  local out = windows(sizes, a, function(place)
    local best, sum, count = -math.huge, 0, 0
    local function visit(i, at, inside)
      if i > #sizes then
        if inside then
          local p = {unpack(at)}
          p[#p + 1] = 1
          local v = x:get(1, unpack(p))
          best, sum = math.max(best, v), sum + v
        end
        count = count + ((inside or a.include_pad) and 1 or 0)
        return
      end
      for k = 0, a.kernel[i] - 1 do
        local p = place[i] * a.stride[i] - a.pad[2 * i - 1] + k * a.dilation[i]
        if p < sizes[i] + a.pad[2 * i] or not a.include_pad then -- what ceil adds past the padding never counts
          at[i] = p + 1
          visit(i + 1, {unpack(at, 1, i)}, inside and p >= 0 and p < sizes[i])
        end
      end
    end
    visit(1, {}, true)
    values[#values + 1] = kind == "max" and best or kind == "sum" and sum or sum / count
  end)
  return lr.tensor(values, "f64"):reshape(1, unpack(out)):unsqueeze(-1)
end

describe("pool", function()
  local x2, x3 = randn({1, 7, 8, 1}, 1), randn({1, 5, 4, 6, 1}, 2)
  for _, dilation in ipairs {1, 2} do
    for _, ceil in ipairs {false, true} do
      it(("max, mean and sum over 2 and 3 dims: dilation %d, ceil %s"):format(dilation, tostring(ceil)), function()
        for _, include in ipairs {false, true} do
          for _, kind in ipairs {"max", "mean", "sum"} do
            local a = {kernel = {3, 2}, stride = {2, 3}, pad = {1, 0, 0, 1}, dilation = {dilation, 1}, ceil = ceil, include_pad = include}
            close(plain_pool(x2, kind, a), lr.pool(x2, kind, a))
            local b = {kernel = {2, 2, 3}, stride = {2, 1, 2}, pad = {1, 0, 0, 1, 1, 1}, dilation = {dilation, 1, 1}, ceil = ceil, include_pad = include}
            close(plain_pool(x3, kind, b), lr.pool(x3, kind, b))
          end
        end
      end)
    end
  end
  it("tells where a maximum comes from", function()
    local x = lr.tensor({{{{1, 9}, {4, 2}, {3, 3}}, {{5, 1}, {0, 7}, {6, 0}}}}) -- [1,2,3,2]
    local y, index = lr.max_pool_index(x, {kernel = {2, 2}, pad = {0, 0, 1, 0}})
    same({{{{5, 9}, {5, 9}, {6, 7}}}}, y)
    same({{{{3, 6}, {3, 6}, {5, 10}}}}, index) -- in [1,2,2,3]
    same({{{{1, 6}, {1, 6}, {5, 9}}}}, (select(2, lr.max_pool_index(x, {kernel = {2, 2}, pad = {0, 0, 1, 0}, column_first = true}))))
  end)
  it("has gradients and refuses what does not fit", function()
    for _, kind in ipairs {"max", "mean", "sum"} do
      local options = {kernel = {2, 3}, stride = 2, dilation = {1, 2}, pad = {1, 0, 1, 1}, ceil = true, include_pad = true}
      helper.check_gradient(function(x) return weigh(lr.pool(x, kind, options)) end, {randn({2, 5, 6, 2}, 3)})
    end
    helper.refuses("pool: a kernel of 9", lr.pool, x2, "max", {kernel = 9})
    helper.refuses("pool: median", lr.pool, x2, "median", {kernel = 2})
    helper.refuses("pool: stride", lr.pool, x2, "max", {kernel = 2, stride = 0})
  end)
end)

describe("convolutions", function()
  it("conv_transpose2d is the adjoint of conv2d, and adds zeros past its end", function()
    local o = {stride = {2, 3}, pad = {1, 0, 0, 1}, dilation = {1, 2}, groups = 2}
    local w = randn({4, 3, 2, 3}, 1)
    local v = randn({2, 9, 14, 6}, 2)
    local u = lr.conv2d(v, w, nil, o)
    local x = randn(u.shape, 3)
    local rest = {9 - 2 * (u:size(2) - 1) - 2, 14 - 3 * (u:size(3) - 1) - 2}
    local y = lr.conv_transpose2d(x, w, nil, {stride = o.stride, pad = o.pad, dilation = o.dilation, groups = 2, output_pad = rest})
    assert.are.same(v.shape, y.shape)
    close((u * x):sum(), (v * y):sum())
    local long = lr.conv_transpose2d(x, w, randn({6}, 4), {stride = o.stride, pad = o.pad, dilation = o.dilation, groups = 2, output_pad = {7, 0}})
    close(randn({6}, 4), long:select(2, long:size(2)):select(1, 2):select(1, 3))
  end)
  it("conv3d is a loop over its taps; conv_transpose3d its adjoint", function()
    local x, w = randn({1, 5, 4, 6, 2}, 1), randn({3, 2, 3, 2, 2}, 2)
    local o = {stride = {2, 1, 2}, pad = {1, 0, 1, 1, 0, 0}, dilation = {2, 1, 1}}
    local y = lr.conv3d(x, w, nil, o)
    local function at(d, h, v, c) return (d < 0 or d > 4 or h < 0 or h > 3) and 0 or x:get(1, d + 1, h + 1, v + 1, c) end
    for _, p in ipairs {{1, 1, 1, 1}, {2, 4, 3, 3}, {1, 3, 2, 2}} do
      local sum = 0
      for d = 0, 1 do
        for h = 0, 2 do
          for v = 0, 1 do
            for c = 1, 2 do sum = sum + w:get(p[4], d + 1, h + 1, v + 1, c) * at((p[1] - 1) * 2 - 1 + 2 * d, p[2] - 2 + h, (p[3] - 1) * 2 + v, c) end
          end
        end
      end
      assert.is_true(math.abs(sum - y:get(1, unpack(p))) < 1e-12)
    end
    local back = lr.conv_transpose3d(y, w, nil, {stride = o.stride, pad = o.pad, dilation = o.dilation, output_pad = {5 - ((y:size(2) - 1) * 2 + 3 - 1), 0, 0}})
    assert.are.same(x.shape, back.shape)
    close((y * y):sum(), (x * back):sum())
  end)
  it("have gradients", function()
    helper.check_gradient(function(x, w, b) return weigh(lr.conv_transpose2d(x, w, b, {stride = 2, pad = {1, 0}, output_pad = 1, groups = 2})) end,
      {randn({1, 2, 3, 4}, 1), randn({4, 3, 2, 2}, 2), randn({4}, 3)})
    helper.check_gradient(function(x, w, b) return weigh(lr.conv3d(x, w, b, {stride = {1, 2, 1}, pad = 1})) end,
      {randn({1, 2, 3, 2, 2}, 1), randn({2, 2, 3, 2, 2}, 2), randn({2}, 3)})
  end)
  it("refuse what does not fit", function()
    helper.refuses("conv_transpose2d: stride", lr.conv_transpose2d, lr.zeros {1, 2, 2, 2}, lr.zeros {2, 2, 2, 2}, nil, {stride = 0})
    helper.refuses("conv_transpose2d: the output's size", lr.conv_transpose2d, lr.zeros {1, 2, 2, 2}, lr.zeros {2, 2, 2, 2}, nil, {pad = 4})
    helper.refuses("conv3d: a kernel of 5", lr.conv3d, lr.zeros {1, 2, 4, 4, 1}, lr.zeros {1, 5, 1, 1, 1})
  end)
end)

describe("resize", function()
  local x = lr.tensor({{1, 2}, {3, 4}}, "f64")
  local function rows(size, o, scale) return lr.resize(x, {{d = 1, size = size, scale = scale}}, o):select(2, 1) end
  it("nearest in its roundings and conventions", function()
    same({1, 1, 3, 3}, rows(4, {}))
    same({1, 1, 1, 3, 3}, rows(5, {}))
    same({1, 1, 3, 3, 3}, rows(5, {nearest = "round_prefer_ceil", transform = "align_corners"}))
    same({1, 1, 1, 3}, rows(4, {nearest = "floor", transform = "align_corners"}))
    same({1, 3, 3, 3}, rows(4, {nearest = "ceil", transform = "asymmetric"}))
    same({{1, 1, 2}, {1, 1, 2}, {3, 3, 4}}, lr.resize(x:to "i32", {{d = 1, size = 3}, {d = 2, size = 3}}, {nearest = "floor", transform = "asymmetric"}))
  end)
  it("linear and cubic", function()
    close(lr.tensor({1, 1.5, 2.5, 3}, "f64"), rows(4, {mode = "linear"}))
    close(lr.tensor({1, 5 / 3, 7 / 3, 3}, "f64"), rows(4, {mode = "linear", transform = "align_corners"}))
    close(lr.tensor({1, 2, 3, 3}, "f64"), rows(4, {mode = "linear", transform = "asymmetric"}))
    close(lr.tensor({1, 3}, "f64"), rows(2, {mode = "cubic"}))
    close(lr.tensor({2}, "f64"), rows(1, {mode = "linear", antialias = true}))
    close(lr.tensor({2, 9}, "f64"), lr.resize(x, {{d = 1, size = 2, first = .5, last = 1.5}}, {mode = "linear", transform = "tf_crop_and_resize", extrapolation = 9}):select(2, 1))
    local picture = lr.randn({1, 3, 4, 2}, {seed = 1})
    local both = lr.resize(picture, {{d = 2, size = 6}, {d = 3, size = 7}}, {mode = "linear"})
    close(both, lr.resize(lr.resize(picture, {{d = 2, size = 6}}, {mode = "linear"}), {{d = 3, size = 7}}, {mode = "linear"}), 1e-6)
  end)
  it("has a gradient and refuses what it does not know", function()
    helper.check_gradient(function(v) return weigh(lr.resize(v, {{d = 2, size = 5}, {d = 1, size = 2}}, {mode = "cubic"})) end, {randn({3, 4}, 1)})
    helper.check_gradient(function(v) return weigh(lr.resize(v, {{d = 2, size = 5}})) end, {randn({3, 4}, 1)})
    helper.refuses("resize: mode area", lr.resize, x, {{d = 1, size = 2}}, {mode = "area"})
    helper.refuses("resize: size", lr.resize, x, {{d = 1, size = 0}})
  end)
end)

describe("normalisations", function()
  it("over groups: mean 0 and variance 1 in each, then weight and bias", function()
    local x, w, b = randn({2, 3, 4, 6}, 1), randn({6}, 2), randn({6}, 3)
    local y = ((lr.group_norm(x, 3, w, b, 0) - b) / w):reshape(2, 12, 3, 2)
    close(lr.zeros({2, 3}, "f64"), y:mean {2, 4})
    close(lr.ones({2, 3}, "f64"), y:square():mean {2, 4})
    helper.check_gradient(function(v, p, q) return weigh(lr.group_norm(v, 2, p, q)) end, {randn({2, 3, 4}, 1), randn({4}, 2), randn({4}, 3)}, 1e-5)
    helper.refuses("group_norm: x is f64 [2,3,4,6], 4 groups", lr.group_norm, x, 4)
  end)
  it("by the root of the mean square, and by neighbouring channels", function()
    close(lr.tensor {{6 / 5, 8 / 5}} * math.sqrt(.5), lr.rms_norm(lr.tensor {{3, 4}}, nil, 0), 1e-6)
    local x = lr.tensor({{1, 2, 3}}, "f64")
    close(lr.tensor({{1 / (1 + 5 / 3), 2 / (1 + 14 / 3), 3 / (1 + 13 / 3)}}, "f64"), lr.local_response_norm(x, 3, {alpha = 1, beta = 1}))
    helper.check_gradient(function(v, w) return weigh(lr.rms_norm(v, w)) end, {randn({3, 4}, 1), randn({4}, 2)}, 1e-5)
  end)
end)
