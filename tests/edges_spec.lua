-- edges_spec.lua: the engine at its edges: numbers that are no sizes, nothing inside, shared memory, state left by errors. Values are in ops_spec.
local lr = require "libration"
local helper = require "helper"

local raw, rows = lr.raw or require "libration.ops".raw, require "libration.ops".rows
local refuses, nan = helper.refuses, 0 / 0

local function same(want, t) assert.are.same(want, t:totable()) end

describe("numbers that are no sizes or positions", function()
  local t = lr.arange(6):reshape(2, 3)
  it("are refused by get and set", function()
    for _, i in ipairs {nan, 1.5, 0, 3, -1, math.huge, 2 ^ 40} do
      refuses("get: position", t.get, t, i, 1)
      refuses("set: position", t.set, t, 1, i, 1)
    end
  end)
  it("are refused by views", function()
    for _, v in ipairs {nan, 1.5, 2 ^ 32, -2 ^ 32, math.huge} do
      refuses("narrow: ", t.narrow, t, 1, v, 1)
      refuses("narrow: ", t.narrow, t, 1, 1, v)
      refuses("narrow: dim", t.narrow, t, v, 1, 1)
      refuses("unsqueeze: ", t.unsqueeze, t, v)
      refuses("expand: ", t.expand, t, v, 2, 3)
      refuses("unfold: ", t.unfold, t, v)
      refuses("unfold: ", t.unfold, t, 1, v)
      refuses("reshape: ", t.reshape, t, v, 3)
    end
    refuses("reshape: ", t.reshape, t, -2, -3)
    refuses("reshape: two sizes", t.reshape, t, -1, -1)
    refuses("reshape: ", t.reshape, t, 1.5, 4)
    refuses("at most 6", t.reshape, t, 1, 1, 1, 1, 1, 2, 3)
    refuses("at most 6", t.expand, t, 1, 1, 1, 1, 1, 2, 3)
    refuses("6 dims already", function() return lr.zeros({1, 1, 1, 1, 1, 1}):unsqueeze(1) end)
    refuses("2^31", function() return lr.zeros({1, 1, 1}):expand(2 ^ 30, 2 ^ 30, 2 ^ 30) end)
  end)
  it("are refused by shapes, dims and options of ops", function()
    for _, v in ipairs {nan, 1.5, 2 ^ 32, -1, math.huge} do
      refuses("shape: dim 1", lr.zeros, {v})
      refuses("random: dim 1", lr.randn, {v})
    end
    for _, v in ipairs {nan, 1.5, 0, 3, math.huge} do
      refuses("sum: dim", lr.sum, t, v)
      refuses("argmax: dim", lr.argmax, t, v)
    end
    local x, w = lr.zeros {1, 4, 4, 2}, lr.zeros {2, 3, 3, 2}
    for _, v in ipairs {nan, 1.5, 2 ^ 31, -1, 0} do
      refuses("conv2d: ", lr.conv2d, x, w, nil, {stride = v})
      refuses("conv2d: ", lr.conv2d, x, w, nil, {dilation = v})
      refuses("max_pool2d: ", lr.max_pool2d, x, v)
      refuses("resize_bilinear: ", lr.resize_bilinear, x, {v, 3})
    end
    refuses("conv2d: pad", lr.conv2d, x, w, nil, {pad = nan})
    refuses("conv2d: 2147483647", lr.conv2d, x, w, nil, {pad = 2 ^ 31 - 1})
    refuses("pad: 2147483647", lr.pad, t, {2 ^ 31 - 1, 0}, {2 ^ 31 - 1, 0})
    refuses("depth_to_space: ", lr.depth_to_space, x, 65536)
    refuses("concat: ", function() return lr.concat({lr.zeros({1}):expand(2 ^ 30), lr.zeros({1}):expand(2 ^ 30), lr.zeros({1}):expand(2 ^ 30)}, 1) end)
    refuses("linear: activation prelu", lr.linear, t, t, nil, "prelu")
  end)
  it("that are no tensors are refused by the op's name", function()
    refuses("add: operands are a string and a number", lr.add, "x", 3)
    refuses("conv2d: w is a string", lr.conv2d, lr.zeros {1, 2, 2, 1}, "w")
    refuses("copy_into: operands", function() t:copy_({}) end)
    refuses("sum: x is a number", lr.sum, 5)
  end)
  it("saturate and round in integer tensors as the cast does", function()
    local list = {-3, 1.5, 2.5, 300, nan, -math.huge, 3e9}
    same(lr.tensor(list, "f64"):to("u8"):totable(), lr.tensor(list, "u8"))
    same(lr.tensor(list, "f64"):to("i32"):totable(), lr.tensor(list, "i32"))
    same({0, 1, 2}, lr.arange(3, "f16"):to("f32"))
  end)
  it("cannot start more threads than the system has", function()
    local before = lr.threads()
    assert.is_true(lr.threads(1e6) <= 256)
    lr.threads(before)
    refuses("threads: ", lr.threads, "many")
  end)
end)

describe("nothing inside", function()
  it("argmax of a stretched dim of size 1", function() same({{0, 0, 0}}, lr.argmax(lr.arange(3):expand(1, 3), 1, true)) end)
  it("convolutions without input channels or pictures give bias and zeros", function()
    local y = lr.conv2d(lr.zeros {1, 3, 3, 0}, lr.zeros {2, 3, 3, 0}, lr.tensor {1, 2})
    same({{{{1, 2}}}}, y)
    local x, w = lr.requires_grad(lr.zeros {0, 4, 4, 2}), lr.requires_grad(lr.ones {3, 3, 3, 2})
    local tape = lr.tape()
    local g = tape:gradient(lr.conv2d(x, w):sum(), {x, w})
    assert.are.equal(0, g[2]:abs():sum():item())
    assert.are.same({0, 4, 4, 2}, g[1].shape)
  end)
  it("padding past the kernel is done by the slow twin", function()
    local x, w = lr.randn({1, 3, 4, 2}, {seed = 1}), lr.randn({3, 2, 2, 2}, {seed = 2})
    local d, size = helper.difference(lr.conv2d(x:to("f64"), w:to("f64"), nil, {pad = 5}), lr.conv2d(x, w, nil, {pad = 5}))
    assert.is_true(d <= 1e-5 * size, d)
  end)
  it("gradients of empty products and of batch norm have shapes and zeros", function()
    for _, s in ipairs {{0, 3, 4}, {2, 0, 4}, {2, 3, 0}} do
      local a, b = lr.requires_grad(lr.zeros({s[1], s[2], s[3]})), lr.requires_grad(lr.ones {s[3], 5})
      local tape = lr.tape()
      local g = tape:gradient(lr.matmul(a, b):sum(), {a, b})
      assert.are.same(s, g[1].shape)
      assert.are.same({s[3], 5}, g[2].shape)
    end
    local x, w, b = lr.requires_grad(lr.zeros {0, 3}), lr.requires_grad(lr.ones {3}), lr.requires_grad(lr.ones {3})
    local tape = lr.tape()
    local g = tape:gradient(lr.batch_norm(x, w, b, lr.zeros {3}, lr.ones {3}, false):sum(), {x, w, b})
    same({0, 0, 0}, g[2])
    same({0, 0, 0}, g[3])
  end)
  it("a pool of a picture without pixels is refused", function() refuses("max_pool2d: x is f32 [1,0,3,2]", lr.max_pool2d, lr.zeros {1, 0, 3, 2}, 2, {pad = 1}) end)
end)

describe("raw doors check what the wrappers guarantee", function()
  local function attr(name, fields)
    local a = rows[name].attr()
    for k, v in pairs(fields or {}) do
      if type(v) == "table" then
        for i, e in ipairs(v) do a[k][i - 1] = e end
      else
        a[k] = v
      end
    end
    return a
  end
  it("gelu_backward of integers", function() refuses("gelu_backward: dy is i32", raw.gelu_backward, lr.zeros({2}, "i32"), lr.zeros({2}, "i32"), nil) end)
  it("gather_backward of another shape or too many dims", function()
    refuses("gather_backward: ", raw.gather_backward, lr.zeros {3}, lr.zeros({7}, "i32"), attr("gather_backward", {rows = 2}))
    refuses("gather_backward: ", raw.gather_backward, lr.zeros {1, 1, 1, 1, 1, 1}, lr.zeros({}, "i32"), attr("gather_backward", {rows = 2}))
  end)
  it("pools' gradients of another batch", function()
    refuses("max_pool2d_backward: ", raw.max_pool2d_backward, lr.zeros {1, 2, 2, 3}, lr.zeros {9, 4, 4, 3}, attr("max_pool2d_backward", {kernel = {2, 2}, stride = {2, 2}}))
  end)
  it("norms without what forward saved", function()
    local x, none = lr.zeros {5, 3}, lr.zeros {0}
    refuses("layer_norm_backward: mean", raw.layer_norm_backward, x, x, none, none, nil, nil)
    refuses("batch_norm_backward: mean", raw.batch_norm_backward, x, x, none, none, none, attr "batch_norm_backward")
    refuses("layer_norm_backward: x", raw.layer_norm_backward, lr.zeros {}, lr.zeros {}, none, none, nil, nil)
    refuses("cross_entropy_backward: p", raw.cross_entropy_backward, lr.zeros {}, lr.zeros {4}, lr.zeros({4}, "i32"), nil)
    refuses("loss_backward: weight", raw.loss_backward, lr.zeros {}, x, x, nil, none, attr "loss_backward")
  end)
  it("an lstm of hidden size 2^30", function()
    refuses("want r f32 [4H,H]", lr.lstm, lr.zeros {1, 1, 1}, lr.zeros {0, 1}, lr.zeros({0, 1}):expand(0, 2 ^ 30), lr.zeros {0})
  end)
end)

describe("shared memory", function()
  it("copy_ between overlapping views moves the old values", function()
    local t = lr.arange(20000)
    t:narrow(1, 2, 19999):copy_(t:narrow(1, 1, 19999))
    assert.are.equal(0, (helper.difference(t:narrow(1, 2, 19999), lr.arange(19999))))
    local m = lr.arange(9):reshape(3, 3)
    m:copy_(m:transpose(1, 2))
    same({{0, 3, 6}, {1, 4, 7}, {2, 5, 8}}, m)
  end)
  it("add_ of a shifted view reads the old values", function()
    local t = lr.ones {2000}
    lr.add_(t:narrow(1, 2, 1999), t:narrow(1, 1, 1999))
    assert.are.equal(2, t:get(2000))
    lr.add_(t, t)
    assert.are.equal(4, t:get(2000))
  end)
  it("is not written where elements lie at one place", function()
    refuses("copy_into: elements of output 1 f32 [3,2] share memory", function() lr.zeros({2}):expand(3, 2):copy_(lr.ones {3, 2}) end)
    refuses("copy_into: elements", function() lr.zeros({5, 2}):unfold(3, 1):copy_(lr.ones {3, 3, 2}) end)
    lr.zeros({6, 2}):unfold(3, 3):copy_(lr.ones {2, 3, 2}) -- windows side by side do not
    same({1, 1}, (lr.zeros({1}):expand(2):fill_(1)))
  end)
  it("batch norm's running statistics are not lost in a copy", function()
    local x, two = lr.randn({4, 3}, {seed = 1}), lr.zeros {3, 2}
    refuses("batch_norm: running statistics", lr.batch_norm, x, lr.ones {3}, lr.zeros {3}, two:select(2, 1), lr.ones {3}, true)
  end)
  it("touch() tells packed weights and tapes of a write through ptr()", function()
    local x, w = lr.randn({1, 5, 5, 8}, {seed = 1}), lr.randn({8, 3, 3, 8}, {seed = 2})
    local before = lr.conv2d(x, w)
    for i = 0, w:numel() - 1 do w:ptr()[i] = w:ptr()[i] * 2 end
    w:touch()
    assert.is_true(helper.difference(before * 2, lr.conv2d(x, w)) < 1e-4)
    local leaf, y = lr.requires_grad(lr.ones {3}), lr.ones {3}
    local tape = lr.tape()
    local z = (leaf * y):sum()
    y:touch()
    refuses("written after the forward pass", function() tape:gradient(z, {leaf}) end)
  end)
end)

describe("scopes", function()
  it("keep what lies deep in tables, once, with cycles", function()
    helper.leaves_nothing(function()
      local r = lr.scope(function()
        local t = {a = {b = {c = {d = {e = {lr.ones {3}}}}}}}
        t.self = t
        return t
      end)
      assert.are.equal(1, r.self.a.b.c.d.e[1]:get(1))
    end)
  end)
  it("free an outer scope's tensor although an inner one returned it", function()
    helper.leaves_nothing(function()
      local x
      lr.scope(function()
        x = lr.ones {3}
        lr.scope(function() return x end)
      end)
      refuses("was freed", x.ptr, x)
    end)
  end)
  it("unwind through nested errors", function()
    helper.leaves_nothing(function()
      local inner
      refuses("deep", lr.scope, function()
        lr.zeros {3}
        lr.scope(function()
          inner = lr.zeros {4}
          lr.scope(function() error "deep" end)
        end)
      end)
      refuses("was freed", inner.ptr, inner)
      lr.free(lr.ones {2}) -- outside again: has a finalizer of its own
    end)
  end)
  it("views inherit neither a leaf's mark nor a request to keep", function()
    local w = lr.requires_grad(lr.ones {4})
    assert.is_false(w:detach().requires_grad)
    assert.is_false(w:narrow(1, 1, 2).requires_grad)
  end)
end)

describe("tapes", function()
  local leaf = lr.requires_grad(lr.ones {3})
  it("left open by an error: a scope closes its own, close_tape any", function()
    refuses("oops", lr.scope, function()
      lr.tape()
      error "oops"
    end)
    lr.tape()
    refuses("another tape is open", lr.tape)
    lr.close_tape()
    lr.close_tape()
    lr.tape():close()
  end)
  it("opened outside survive a failing scope", function()
    local tape = lr.tape()
    pcall(lr.scope, function() error "oops" end)
    same({2, 2, 2}, tape:gradient((leaf * 2):sum(), {leaf})[1])
  end)
  it("closed inside no_grad stay closed", function()
    local tape = lr.tape()
    local y = (leaf * leaf):sum()
    same({2, 2, 2}, lr.no_grad(function() return tape:gradient(y, {leaf}) end)[1])
    same({2, 2, 2}, leaf * 2) -- an op on a leaf with no tape behind it
  end)
  it("give gradients once, and none when closed", function()
    local tape = lr.tape()
    local y = (leaf * 2):sum()
    tape:gradient(y, {leaf})
    refuses("a tape gives gradients once", tape.gradient, tape, y, {leaf})
  end)
  it("let comparisons and indices pass without a gradient", function()
    local x = lr.requires_grad(lr.tensor {-1, 2, 3})
    local tape = lr.tape()
    local loss = (x * lr.gt(x, 0):to("f32")):sum()
    same({0, 1, 1}, tape:gradient(loss, {x})[1])
  end)
  it("give each leaf a gradient of its own", function()
    local x, y = lr.requires_grad(lr.ones {3}), lr.requires_grad(lr.ones {3})
    local tape = lr.tape()
    local g = tape:gradient((x + y):sum(), {x, y, x})
    lr.add_(g[1], g[1])
    same({2, 2, 2}, g[1])
    same({1, 1, 1}, g[2])
    same({1, 1, 1}, g[3])
  end)
  it("follow the slope of a fused prelu and overlapping windows", function()
    local function weigh(y) return (y * lr.randn(y.shape, {seed = 99, dtype = "f64"})):sum() end
    local function draw(shape, seed) return lr.randn(shape, {seed = seed, dtype = "f64"}) end
    helper.check_gradient(function(x, w, b, r, s) return weigh(lr.conv2d(x, w, b, {act = "prelu", slope = s, residual = r})) end,
      {draw({1, 4, 3, 2}, 1), draw({3, 2, 2, 2}, 2), draw({3}, 3), draw({1, 3, 2, 3}, 4), draw({3}, 5)})
    helper.check_gradient(function(x) return weigh(x:unfold(3, 2)) end, {draw({8, 2}, 1)})
  end)
end)

describe("plans", function()
  it("keep the rest of a constant that is filled in part", function()
    local R = lr.record(function(x)
      local c = lr.tensor {1, 2, 3, 4}
      c:narrow(1, 1, 1):fill_(9)
      local big = x * 2 + 1
      return c + 0, big
    end)
    local x = lr.ones {4}
    same({9, 2, 3, 4}, (R(x)))
    same({9, 2, 3, 4}, (R(x)))
    same({9, 2, 3, 4}, (R(x)))
  end)
  it("join another recorded function's ops", function()
    local inner = lr.record(function(x) return x * 3 end)
    inner(lr.ones {2}) -- has a plan of its own already
    local outer = lr.record(function(x) return inner(x + 1) + 1 end)
    for i = 1, 3 do same({3 * (i + 1) + 1, 3 * (i + 1) + 1}, outer(lr.full({2}, i))) end
    same({15, 15}, inner(lr.full({2}, 5)))
  end)
  it("of a function that is recorded lazily run each op once a call, and none where only the plan is asked for", function()
    helper.leaves_nothing(function()
      local runs = lr.zeros {1}
      local R = lr.record(function(x, k)
        runs:add_(lr.ones {1})
        return x * k, (x + 1):narrow(1, 2, 1) * 2
      end, true)
      R:plan(lr.ones {2}, 3)
      same({0}, runs)
      for i = 1, 3 do
        local a, b = R(lr.full({2}, i), 3)
        same({3 * i, 3 * i}, a)
        same({2 * i + 2}, b)
        same({i}, runs)
      end
      same({5, 5}, (R(lr.ones {2}, 5)))
      same({4}, runs)
      assert.are.equal(0, lr.core.C.lbr_recording())
    end)
  end)
  it("cannot run while another is recorded", function()
    local inner = lr.record(function(x) return x * 3 end)
    local plan = inner:plan(lr.ones {2})
    refuses("another plan is being recorded", lr.record(function(x) return x + plan:run(x) end), lr.ones {2})
    assert.are.equal(0, lr.core.C.lbr_recording())
  end)
  it("refuse to be called below an open tape, not in no_grad", function()
    local leaf, R = lr.requires_grad(lr.ones {2}), lr.record(function(x) return x * 3 end)
    local tape = lr.tape()
    refuses("while a tape is open", R, leaf)
    local c = lr.no_grad(function() return R(leaf) end)
    same({3, 3}, tape:gradient((leaf * c):sum(), {leaf})[1])
  end)
  it("leave no tape, no recording and nothing alive after an error", function()
    helper.leaves_nothing(function()
      local R = lr.record(function(x, how)
        lr.tape()
        if how == "error" then error "oops" end
        return x * 2
      end)
      refuses("oops", R, lr.ones {2}, "error")
      refuses("left a tape open", R, lr.ones {2}, "open")
      lr.tape():close()
      assert.are.equal(0, lr.core.C.lbr_recording())
    end)
  end)
  it("refuse a stale result as an op's input, also a view of it; follow their owner's writes", function()
    local R = lr.record(function(x) return x * 2 end)
    local a = R(lr.ones {3})
    local v = a:narrow(1, 1, 2)
    a:add_(lr.ones {3}):set(7, 1)
    same({7, 3, 3}, a)
    R(lr.ones {3})
    refuses("add: input 1 f32 [3] is a result that a later replay", lr.add, a, lr.ones {3})
    refuses("a later replay", function() return v + v end)
    refuses("a later replay", R, a)
    same({8, 8, 8}, R(R(lr.full({3}, 2))))
  end)
  it("take numbers that differ in the last place for different", function()
    local R = lr.record(function(x, k) return x * k end)
    local x = lr.ones({1}, "f64")
    assert.are.equal(.3, R(x, .3):item())
    assert.are.equal(.1 + .2, R(x, .1 + .2):item())
  end)
  it("hand out results deep in tables, an argument itself, and leaves", function()
    local R = lr.record(function(x)
      lr.requires_grad(x)
      local tape = lr.tape()
      local loss = (x * x):sum()
      local t = {a = {b = {c = {d = {g = tape:gradient(loss, {x})[1]}}}}, x = x}
      t.again = t
      return t
    end)
    for i = 1, 2 do
      local r = R(lr.full({2}, i))
      same({2 * i, 2 * i}, r.again.a.b.c.d.g)
      same({i, i}, r.x)
    end
  end)
  it("copy a transposed view of their own argument in", function()
    local R = lr.record(function(x) return x * 1 end)
    local m = lr.arange(4):reshape(2, 2)
    local own = R:plan(m):argument(1)
    same({{0, 2}, {1, 3}}, R(own:transpose(1, 2)))
  end)
  it("freed while their results live leave the results", function()
    local r
    do
      local R = lr.record(function(x) return x * 2 end)
      r = R(lr.ones {5})
      R = nil -- luacheck: ignore
    end
    collectgarbage()
    collectgarbage()
    same({2, 2, 2, 2, 2}, r)
  end)
end)
