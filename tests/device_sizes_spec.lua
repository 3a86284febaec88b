-- device_sizes_spec: ops on a CUDA device at the sizes at which their kernels go another way: rows that belong to a warp or a block, sums in parts, many tensors a launch;
-- what only the device can refuse; random numbers bit for bit. device_spec has every op at small sizes.
local lr = require "libration"
local device = require "libration.device"
local helper = require "helper"
local ops = require "libration.ops"
local optim = require "libration.optim"

local count, reason = device.count()
local function draw(shape, seed, dtype) return lr.randn(shape, {seed = seed or 1, dtype = dtype}) end

-- fn of the same tensors on both devices, within tolerance of the largest value; and twice the same bits on the device.
local function same(tolerance, fn, ...)
  local here, there = {...}, {}
  for i, t in ipairs(here) do there[i] = t:to "cuda" end
  local want, have, again = {fn(unpack(here))}, {fn(unpack(there))}, {fn(unpack(there))}
  for i = 1, #want do
    local d, size = helper.difference(want[i], have[i]:to "cpu")
    assert(d <= tolerance * math.max(size, 1), ("output %d is off by %g of %g"):format(i, d, size))
    assert(helper.difference(have[i]:to "cpu", again[i]:to "cpu") == 0, "twice the same gives other bits")
  end
end

describe("device", function()
  if count == 0 then
    it("kernels at their sizes", function() pending(reason) end)
    return
  end

  it("reductions: threads, warps, blocks, columns, parts, within 1e-6", function()
    for _, case in ipairs {
      {{3, 9}, 2}, {{5, 100}, 2}, {{2, 1500}, 2}, {{140, 1027}, 2}, {{1, 40001}, 2}, {{40001}, 1}, {{700, 3}, 1}, {{700, 40}, 1}, {{3000, 33}, 1}, {{4, 300, 10}, {1, 2}},
      {{9, 70, 5, 3}, {2, 4}}, {{2, 1, 1300}, {1, 3}},
    } do
      local x = draw(case[1], 3)
      for _, name in ipairs {"sum", "mean", "max", "min"} do same(1e-6, function(t) return lr[name](t, case[2]) end, x) end
      for _, dtype in ipairs {"f16", "i32"} do same(dtype == "f16" and 1e-3 or 0, function(t) return lr.sum(t, case[2]) end, (x * 3):to(dtype)) end
    end
    same(0, function(t) return lr.sum(t) end, lr.full({3, 1000}, 2 ^ 30, "i32")) -- saturates
  end)

  it("argmax: threads, warps, blocks; ties, NaN and -infinity as on the CPU", function()
    for _, case in ipairs {{{5, 4}, 2}, {{6, 700}, 2}, {{130, 1300}, 2}, {{50, 7, 3}, 2}} do
      for _, dtype in ipairs {"f32", "i32"} do same(0, function(t) return lr.argmax(t, case[2]) end, (draw(case[1], 5) * 4):to("i32"):to(dtype)) end
    end
    for _, value in ipairs {0 / 0, -math.huge} do
      local x = lr.full({4, 1100}, value)
      x:set(-5, 2, 900)
      x:set(0 / 0, 3, 1)
      x:set(-5, 3, 77)
      same(0, function(t) return lr.argmax(t, 2) end, x)
    end
  end)

  it("softmax and norms with their gradients: rows of a warp and of a block, columns in parts, within 2e-6", function()
    for _, shape in ipairs {{3, 7}, {2, 130}, {200, 1026}, {1500, 5}} do
      local x, dy, w, b = draw(shape, 1), draw(shape, 2), draw({shape[2]}, 3), draw({shape[2]}, 4)
      for _, name in ipairs {"softmax", "log_softmax"} do
        same(2e-6, lr[name], x)
        local y = lr[name](x)
        same(2e-6, function(d, v) return ops.raw[name .. "_backward"](d, v, nil) end, dy, y)
      end
      local attr = ops.rows.layer_norm.attr()
      attr.eps = 1e-5
      local _, mean, rstd = ops.raw.layer_norm(x, w, b, attr)
      same(2e-6, function(u) return ops.raw.layer_norm(u, nil, nil, attr) end, x)
      same(2e-6, function(u, v, t) return ops.raw.layer_norm(u, v, t, attr) end, x, w, b)
      same(2e-6, function(d, u, m, r, v) return ops.raw.layer_norm_backward(d, u, m, r, v, nil) end, dy, x, mean, rstd, w)
      local batch = ops.rows.batch_norm.attr()
      batch.eps, batch.momentum, batch.training = 1e-5, .1, 1
      local offset = x + 1000 -- the variance is small beside the mean
      same(1e-6, function(u, v, t)
        local running_mean, running_var = lr.zeros({shape[2]}, "f32", u.device), lr.ones({shape[2]}, "f32", u.device)
        local y, m, r = ops.raw.batch_norm(u, v, t, running_mean, running_var, batch)
        return y, m, r, running_mean, running_var
      end, offset, w, b)
      local back = ops.rows.batch_norm_backward.attr()
      back.training = 1
      same(2e-6, function(d, u, m, r, v) return ops.raw.batch_norm_backward(d, u, m, r, v, back) end, dy, x, lr.mean(x, 1), lr.reciprocal(w:abs() + 1), w)
    end
  end)

  it("losses and cross entropy in one block and in several, within 1e-6", function()
    for _, n in ipairs {10, 5000, 300000} do
      same(1e-6, function(x, t, m) return lr.mse(x, t), lr.huber(x, t, m, .5) end, draw({n}, 1), draw({n}, 2), draw({n}, 3):relu())
    end
    for _, shape in ipairs {{3, 5}, {40, 9}, {2100, 3}, {5, 300}} do
      local classes = lr.uniform({shape[1]}, {seed = 5, low = -.5, high = shape[2] - .6}):to "i32"
      same(2e-6, function(x, t) return ops.raw.cross_entropy(x, t, nil) end, draw(shape), classes)
      same(2e-6, function(dy, p, t) return ops.raw.cross_entropy_backward(dy, p, t, nil) end, lr.full({}, .7), lr.softmax(draw(shape)), classes)
    end
  end)

  it("gather moves rows of any width, its gradient adds them in the CPU's order: the same bits", function()
    for _, width in ipairs {1, 3, 4, 6, 129, 300} do
      for _, dtype in ipairs {"f32", "f64", "u8", "bf16"} do
        local x, index = (draw({9, width}) * 9):to(dtype), lr.uniform({70}, {seed = 2, high = 8.4}):to "i32"
        same(0, lr.gather, x, index)
        same(0, lr.gather, x:narrow(1, 2, 8), index:reshape(7, 10):narrow(2, 1, 3):clamp(0, 7))
        if dtype == "f32" or dtype == "f64" then
          local attr = ops.rows.gather_backward.attr()
          attr.rows = 11
          same(0, function(dy, i) return ops.raw.gather_backward(dy, i, attr) end, draw({70, width}, 4, dtype), index)
        end
      end
    end
  end)

  it("an index or a class outside is an error at the next read, once, with the CPU's words", function()
    local x, index = draw {5, 3}, lr.tensor({1, 5, 2}, "i32")
    local attr = ops.rows.gather_backward.attr()
    attr.rows = 2
    for _, case in ipairs {
      {function(t, i) return lr.gather(t, i) end, x, index}, {function(t, i) return lr.gather(t, i) end, x:narrow(2, 1, 0), index},
      {function(dy, i) return ops.raw.gather_backward(dy, i, attr) end, draw {3, 2}, lr.tensor({0, -1, 1}, "i32")},
      {function(t, c) return lr.cross_entropy(t, c) end, x, lr.tensor({0, 2, -1, 3, 1}, "i32")},
    } do
      local fn, a, b = unpack(case)
      local _, want = pcall(fn, a, b)
      local y = fn(a:to "cuda", b:to "cuda")
      local ok, have = pcall(device.synchronize)
      assert.is_false(ok)
      assert.are.equal((want:gsub("^.-:%d+: ", "")), (have:gsub("^.-:%d+: ", "")))
      device.synchronize()
      assert.is_not_nil(y:to "cpu")
    end
    local gather = lr.record(function(t, i) return lr.gather(t, i) end)
    local there, good, bad = x:to "cuda", lr.tensor({1, 4, 2}, "i32"):to "cuda", index:to "cuda"
    gather(there, good)
    gather(there, bad)
    assert.has_error(function() device.synchronize() end)
    assert.are.equal(0, (helper.difference(lr.gather(x, good:to "cpu"), gather(there, good):to "cpu")))
  end)

  it("uniform numbers and dropout have the CPU's bits, normal ones 1 unit in the last place", function()
    local function numbers(kind, dtype, place)
      local attr = ops.rows.random.attr()
      attr.seed, attr.stream, attr.kind, attr.low, attr.high, attr.ndim, attr.dtype = 77, 5, kind, kind == 0 and -.3 or .25, 1.7, 1, dtype == "f64" and 1 or 0
      attr.shape[0] = 4001
      return ops.raw.random(lr.tensor({3}, "i32"):to(place), attr)
    end
    for dtype, bound in pairs {f32 = 2 ^ -24, f64 = 1e-14} do
      assert.are.equal(0, (helper.difference(numbers(0, dtype, "cpu"), numbers(0, dtype, "cuda"):to "cpu")))
      local d, size = helper.difference(numbers(1, dtype, "cpu"), numbers(1, dtype, "cuda"):to "cpu")
      assert.is_true(d <= 2 * bound * size)
    end
    for _, dtype in ipairs {"f32", "f16"} do
      same(0, function(x, counter) return lr.dropout(x, counter, {p = .3, seed = 9, stream = 2}) end, draw({1003}):to(dtype), lr.tensor({8}, "i32"))
    end
  end)

  it("products through cuBLASLt, as an emulated one counts: batches, transposes, bias, activations that let NaN pass, graphs; within 1e-6", function()
    local emulator = helper.emulator()
    if not emulator then return pending "tells nothing of the real library" end
    local function products()
      for _, dtype in ipairs {"f32", "f64"} do
        for _, t in ipairs {{false, false}, {true, false}, {false, true}, {true, true}} do
          local a, b = t[1] and {3, 29, 13} or {3, 13, 29}, t[2] and {3, 11, 29} or {3, 29, 11}
          same(1e-6, function(x, y) return lr.matmul(x, y, t[1], t[2]) end, draw(a, 1, dtype), draw(b, 2, dtype))
          table.remove(b, 1)
          if not t[1] then same(1e-6, function(x, y) return lr.matmul(x, y, false, t[2]) end, draw(a, 1, dtype), draw(b, 2, dtype)) end
        end
        local x = draw({2, 13, 29}, 1, dtype) * 9
        x:set(0 / 0, 2, 3, 4)
        for _, act in ipairs {"none", "relu", "relu6"} do
          same(1e-6, function(u, w, b) return lr.linear(u, w, b, act), lr.linear(u, w, nil, act) end, x, draw({11, 29}, 2, dtype), draw({11}, 3, dtype))
        end
      end
    end
    emulator.lbr_emu_cublaslt(1)
    local ok, message = pcall(function()
      products()
      local linear = lr.record(function(x, w, b) return lr.linear(x, w, b, "relu") end)
      local x, w, b = draw({17, 29}, 1), draw({11, 29}, 2), draw({11}, 3)
      for _ = 1, 3 do assert.is_true(helper.difference(lr.linear(x, w, b, "relu"), linear(x:to "cuda", w:to "cuda", b:to "cuda"):to "cpu") < 1e-5) end
      for _, dtype in ipairs {"f16", "bf16"} do
        local function halves(u, v) return lr.linear(u:to(dtype), v:to(dtype)):to "f32" end
        local d = helper.difference(lr.linear(x:to(dtype):to "f32", w:to(dtype):to "f32"), halves(x:to "cuda", w:to "cuda"):to "cpu")
        assert.is_true(d < (dtype == "f16" and .02 or .16))
      end
    end)
    emulator.lbr_emu_cublaslt(0)
    assert(ok, message)
  end)

  it("an optimiser's step of 14 parameters is 5 kernels", function()
    local emulator = helper.emulator()
    if not emulator then return pending "only an emulated device counts kernels" end
    local p, g = {}, {}
    for i = 1, 14 do p[i], g[i] = draw({i, 3}, i):to "cuda", draw({i, 3}, 20 + i):to "cuda" end
    local adam = optim.Adam(p, {clip = 1})
    local step, k = lr.record(function() adam:step(g) end), 0
    step()
    repeat
      k = k + 1
      emulator.lbr_emu_fail_launch(k)
      local ok = pcall(function()
        step()
        device.synchronize()
      end)
      emulator.lbr_emu_heal()
    until ok or k == 50
    assert.are.equal(5, k - 1)
  end)

  it("an optimiser's step in a graph: more tensors than one kernel takes, the bits of eager steps", function()
    local function parameters(n, place)
      local out = {}
      for i = 1, n do out[i] = lr.randn({i % 7 == 0 and 5000 or i % 5}, {seed = i}):to(place) end
      return out
    end
    for name, options in pairs {
      Adam = {rate = .01, clip = 1, weight_decay = .1}, AdamW = {rate = .01, clip = 1, scaler = optim.scaler {initial = 2, interval = 2}},
      SGD = {rate = .1, momentum = .9, clip = 3},
    } do
      local n = 70
      local here, eager, replayed = parameters(n, "cpu"), parameters(n, "cuda"), parameters(n, "cuda")
      local o1, o2, o3 = optim[name](here, options), optim[name](eager, options), optim[name](replayed, options)
      local grads = {}
      for i, p in ipairs(here) do grads[i] = lr.randn(p.shape, {seed = 100 + i}) end
      local there = {}
      for i, g in ipairs(grads) do there[i] = g:to "cuda" end
      local step = lr.record(function(scale)
        local scaled = {}
        for i, g in ipairs(there) do scaled[i] = g * scale end
        o3:accumulate(scaled, .5)
        o3:accumulate(scaled, .5)
        o3:step()
      end)
      o3:prepare_accumulation()
      for _, scale in ipairs {1, .5, 1 / 0, 2, 1} do
        local function scaled(list, place)
          local out = {}
          for i, g in ipairs(list) do out[i] = g * lr.full({}, scale):to(place) end
          return out
        end
        for i, list in ipairs {scaled(grads, "cpu"), scaled(there, "cuda")} do
          local o = i == 1 and o1 or o2
          o:accumulate(list, .5)
          o:accumulate(list, .5)
          o:step()
        end
        step(lr.full({}, scale):to "cuda")
      end
      for i = 1, n do
        assert.are.equal(0, (helper.difference(eager[i]:to "cpu", replayed[i]:to "cpu")))
        local d, size = helper.difference(here[i], eager[i]:to "cpu")
        assert.is_true(d <= 1e-6 * math.max(size, 1), name .. " tensor " .. i .. ": " .. d)
      end
      assert.are.same(o1:report().steps, o3:report().steps)
      assert.are.equal(1, o3:report().overflows)
    end
  end)
end)
