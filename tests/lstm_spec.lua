-- lstm_spec: the LSTM ops against float64, finite differences, other layouts, instruction sets and thread counts.
local lr = require "libration"
local ops = require "libration.ops"
local C = lr.core.C
local raw, rows = ops.raw, ops.rows

local function forward(x, w, r, b, h0, c0, save)
  local attr = rows.lstm_forward.attr()
  attr.save = save and 1 or 0
  local y, hn, cn, gates, cells = raw.lstm_forward(x, w, r, b, h0, c0, attr)
  return {y = y, hn = hn, cn = cn, gates = gates, cells = cells}
end

local function backward(p, f, g, need_dx)
  local attr = rows.lstm_backward.attr()
  attr.need_dx = need_dx == false and 0 or 1
  local dx, dw, dr, db, dh0, dc0 = raw.lstm_backward(p.x, p.w, p.r, p.h0, p.c0, f.y, f.gates, f.cells, g.dy, g.dhn, g.dcn, attr)
  return {dx = dx, dw = dw, dr = dr, db = db, dh0 = dh0, dc0 = dc0}
end

-- Random layer, state and gradients; stream numbers keep the tensors apart.
local function layer(B, T, F, H, dtype, stateful)
  local function draw(shape, stream, size) return lr.uniform(shape, {seed = 7, stream = stream, low = -size, high = size, dtype = dtype}) end
  local k = 1 / math.sqrt(H)
  local p = {x = draw({B, T, F}, 1, 1), w = draw({4 * H, F}, 2, k), r = draw({4 * H, H}, 3, k), b = draw({4 * H}, 4, k)}
  local g = {dy = draw({B, T, H}, 5, 1)}
  if stateful then
    p.h0, p.c0 = draw({B, H}, 6, .5), draw({B, H}, 7, .5)
    g.dhn, g.dcn = draw({B, H}, 8, 1), draw({B, H}, 9, 1)
  end
  return p, g
end

local function run(p, save) return forward(p.x, p.w, p.r, p.b, p.h0, p.c0, save) end

local function widen(t)
  local out = {}
  for name, v in pairs(t) do out[name] = v:to "f64" end
  return out
end

-- Largest difference over the largest value of b.
local function relative(a, b)
  assert.are.same(a.shape, b.shape)
  a, b = a:to("f64"):contiguous(), b:to("f64"):contiguous()
  local pa, pb, worst, size = a:ptr(), b:ptr(), 0, 1e-12
  for i = 0, a:numel() - 1 do
    local d = math.abs(pa[i] - pb[i])
    if not (d <= worst) then worst = d end
    size = math.max(size, math.abs(pb[i]))
  end
  return worst / size
end

local function close(a, b, tolerance)
  for name, t in pairs(b) do
    local d = relative(a[name], t)
    assert(d <= tolerance, ("%s differs by %.3g, allowed %.3g"):format(name, d, tolerance))
  end
end

local function bits(a, b)
  for name, t in pairs(b) do assert(relative(a[name], t) == 0, name .. " differs") end
end

local sets = {{"portable", 0}, {"avx2", 1}, {"avx512", 2}}
local shapes = {{5, 7, 9, 11, true}, {1, 4, 3, 16, false}, {13, 12, 99, 37, true}, {33, 9, 20, 65, false}, {2, 1, 1, 1, true}, {101, 3, 7, 20, false}}

describe("lstm", function()
  after_each(function()
    C.lbr_cpu_limit(2)
    lr.threads(0)
  end)

  for _, set in ipairs(sets) do
    it(set[1] .. " forward equals float64 within 1e-6 and backward within 4e-6, odd sizes", function()
      C.lbr_cpu_limit(set[2])
      for _, s in ipairs(shapes) do
        local p, g = layer(s[1], s[2], s[3], s[4], "f32", s[5])
        local f = run(p, true)
        local p64, g64 = widen(p), widen(g)
        local f64 = run(p64, true)
        close(f, f64, 1e-6)
        close(backward(p, f, g), backward(p64, f64, g64), 4e-6)
      end
    end)

    it(set[1] .. " sigmoid and tanh have relative error below 3e-7, saturate at infinity and pass NaN", function()
      C.lbr_cpu_limit(set[2])
      local n = 20011
      local x, one = lr.empty({n, 1, 1}), lr.ones({4, 1})
      local p = x:ptr()
      for i = 0, n - 1 do p[i] = (i - 10005) ^ 3 / 10005 ^ 3 * 80 end
      local gates = forward(x, one, lr.zeros({4, 1}), lr.zeros({4}), nil, nil, true).gates
      local v, worst = gates:ptr(), 0
      for i = 0, n - 1 do
        local sigmoid, tanh = 1 / (1 + math.exp(-p[i])), math.tanh(p[i])
        worst = math.max(worst, math.abs(v[4 * i] / sigmoid - 1))
        if p[i] ~= 0 then worst = math.max(worst, math.abs(v[4 * i + 2] / tanh - 1)) end
        assert(math.abs(v[4 * i + 2]) <= 1)
      end
      assert(worst < 3e-7, ("relative error %.3g"):format(worst))
      p[0], p[1], p[2] = math.huge, -math.huge, 0 / 0
      v = forward(x, one, lr.zeros({4, 1}), lr.zeros({4}), nil, nil, true).gates:ptr()
      assert.are.equal(1, v[0])
      assert.are.equal(1, v[2])
      assert(v[4] >= 0 and v[4] < 1e-37)
      assert.are.equal(-1, v[6])
      for i = 8, 11 do assert(v[i] ~= v[i]) end
    end)
  end

  it("gradients equal finite differences in float64 within 1e-7, B=3 T=4 F=5 H=6", function()
    local p, g = layer(3, 4, 5, 6, "f64", true)
    local function loss()
      local f = run(p, true)
      local function dot(a, b) return (a * b):sum():item() end
      return dot(f.y, g.dy) + dot(f.hn, g.dhn) + dot(f.cn, g.dcn), f
    end
    local _, f = loss()
    local d = backward(p, f, g)
    for name, t in pairs {x = d.dx, w = d.dw, r = d.dr, b = d.db, h0 = d.dh0, c0 = d.dc0} do
      local value, grad, n = p[name]:ptr(), t:ptr(), t:numel()
      for i = 0, n - 1, math.max(1, math.floor(n / 17)) do
        local kept, e = value[i], 1e-5
        value[i] = kept + e
        local high = loss()
        value[i] = kept - e
        local low = loss()
        value[i] = kept
        assert(math.abs((high - low) / (2 * e) - grad[i]) < 1e-7, ("%s[%d]"):format(name, i))
      end
    end
  end)

  for _, hop in ipairs {1, 2, 5} do
    it("overlapping windows give the bits of their copy, hop " .. hop, function()
      local T, F, H = 11, 9, 21
      local p, g = layer(150, T, F, H, "f32", true)
      local frames = lr.uniform({149 * hop + T, F}, {seed = 3})
      p.x = frames:unfold(T, hop)
      local copy = {}
      for name, t in pairs(p) do copy[name] = t end
      copy.x = p.x:clone()
      assert(copy.x:is_contiguous() and not p.x:is_contiguous())
      local f, want = run(p, true), run(copy, true)
      bits(f, want)
      bits(backward(p, f, g), backward(copy, want, g))
    end)
  end

  it("an input expanded over time, a transposed one and one of few rows give the bits of their copy", function()
    local B, T, F, H = 9, 6, 10, 17
    local p, g = layer(B, T, F, H, "f32", true)
    for _, x in ipairs {lr.uniform({B, 1, F}, {seed = 4}):expand(B, T, F), lr.uniform({T, B, F}, {seed = 5}):transpose(1, 2), lr.uniform({F, T, B}, {seed = 6}):permute(3, 2, 1)} do
      p.x = x
      local f = run(p, true)
      p.x = x:clone()
      local want = run(p, true)
      bits(f, want)
      local d = backward(p, want, g)
      p.x = x
      bits(backward(p, f, g), d)
      for b = 1, B do
        local single = forward(p.x:narrow(1, b, 1), p.w, p.r, p.b, p.h0:narrow(1, b, 1), p.c0:narrow(1, b, 1))
        assert.are.equal(0, relative(single.y, want.y:narrow(1, b, 1)))
      end
    end
  end)

  it("gives the same bits with 1, 2 and 3 threads, with and without saving", function()
    local p, g = layer(29, 5, 14, 40, "f32", true)
    lr.threads(1)
    local f = run(p, true)
    local d = backward(p, f, g)
    for n = 2, 3 do
      lr.threads(n)
      bits(run(p, true), f)
      bits(backward(p, f, g), d)
    end
    local plain = run(p, false)
    bits(plain, {y = f.y, hn = f.hn, cn = f.cn})
    assert.are.equal(0, plain.gates:numel())
  end)

  it("takes dy of any strides and leaves out what is not wanted", function()
    local p, g = layer(4, 5, 6, 7, "f32", true)
    local f = run(p, true)
    g.dy = lr.uniform({5, 7, 4}, {seed = 8}):permute(3, 1, 2)
    local d = backward(p, f, g)
    local want = backward(p, f, {dy = g.dy:clone(), dhn = g.dhn, dcn = g.dcn})
    bits(d, want)
    local less = backward(p, f, g, false)
    assert.are.equal(0, less.dx:numel())
    want.dx = nil
    bits(less, want)
    local none = backward(p, f, {})
    assert.are.equal(0, none.dw:abs():max():item())
  end)

  it("a plan packs weights once and anew after any of them was written", function()
    local p = layer(9, 4, 5, 20, "f32", false)
    local function eager(w, r, b) return (lr.lstm(p.x, w, r, b)) end
    for _, name in ipairs {"none", "w", "r", "b"} do
      local kept = lr.record(function(x) return (lr.lstm(x, p.w, p.r, p.b)) end)
      kept(p.x)
      assert(relative(kept(p.x), eager(p.w, p.r, p.b)) == 0)
      if p[name] then p[name]:copy_(p[name] * 2) end
      for _ = 1, 2 do assert(relative(kept(p.x), eager(p.w, p.r, p.b)) == 0, "stale after writing " .. name) end
    end
  end)

  it("a NaN joint spoils its own row only", function()
    local p = layer(8, 5, 6, 19, "f32", false)
    p.x:set(0 / 0, 3, 2, 4)
    local y = run(p).y
    for b = 1, 8 do
      for t = 1, 5 do
        local v = y:get(b, t, 19)
        assert.are.equal(b == 3 and t >= 2, v ~= v)
      end
    end
  end)

  for dtype, bound in pairs {f16 = 2e-3, bf16 = 1.6e-2} do
    it(dtype .. " input beside f32 weights: forward and backward within " .. bound .. " of float64, gradients in their operand's type", function()
      for _, s in ipairs(shapes) do
        local p, g = layer(s[1], s[2], s[3], s[4], "f32", s[5])
        local p64, g64 = widen(p), widen(g)
        p.x, p.h0, g.dy, g.dhn = p.x:to(dtype), p.h0 and p.h0:to(dtype), g.dy:to(dtype), g.dhn and g.dhn:to(dtype)
        local f, f64 = run(p, true), run(p64, true)
        close(f, f64, bound)
        local d = backward(p, f, g)
        close(d, backward(p64, f64, g64), 2 * bound)
        for name, t in pairs {y = f.y, hn = f.hn, gates = f.gates, dx = d.dx, dh0 = d.dh0} do assert.are.equal(dtype, t.dtype, name) end
        for name, t in pairs {cn = f.cn, cells = f.cells, dw = d.dw, dr = d.dr, db = d.db, dc0 = d.dc0} do assert.are.equal("f32", t.dtype, name) end
      end
    end)
  end

  it("half precision goes through the tape and through a plan, and refuses half weights", function()
    local p = layer(3, 4, 5, 6, "f32", false)
    local x = p.x:to "f16"
    local function eager() return (lr.lstm(x, p.w, p.r, p.b)) end
    local plan = lr.record(function(v) return (lr.lstm(v, p.w, p.r, p.b)) end)
    for _, name in ipairs {"none", "w", "r"} do
      if p[name] then p[name]:copy_(p[name] * 2) end
      for _ = 1, 2 do assert(relative(plan(x), eager()) == 0, "stale after writing " .. name) end
    end
    lr.requires_grad(p.w, p.r)
    local tape = lr.tape()
    local g = tape:gradient(eager():to("f32"):sum(), {p.w, p.r})
    assert.are.equal("f32", g[1].dtype)
    assert.are.equal("f32", g[2].dtype)
    assert(g[2]:abs():max():item() > 0)
    assert.has_error(function() forward(x, p.w:to "f16", p.r, p.b) end)
    assert.has_error(function() forward(x, p.w, p.r, p.b, nil, lr.zeros({3, 6}, {dtype = "f16"})) end)
  end)

  it("refuses wrong shapes and dtypes by name", function()
    local p = layer(2, 3, 4, 5, "f32", true)
    assert.has_error(function() forward(p.x:narrow(3, 1, 3), p.w, p.r, p.b) end, nil)
    local function message(...)
      local ok, text = pcall(forward, ...)
      assert.is_false(ok)
      return text
    end
    assert.matches("lstm_forward: .*w", message(p.x, p.w:narrow(2, 1, 3), p.r, p.b))
    assert.matches("lstm_forward: .*%[2,3%]", message(p.x:select(3, 1), p.w, p.r, p.b))
    assert.matches("lstm_forward: b", message(p.x, p.w, p.r, p.b:narrow(1, 1, 19)))
    assert.matches("lstm_forward: h0", message(p.x, p.w, p.r, p.b, p.h0:narrow(1, 1, 1)))
    assert.matches("lstm_forward: .*f64", message(p.x, p.w:to "f64", p.r, p.b))
    assert.matches("lstm_forward: .*i32", message(p.x:to "i32", p.w, p.r, p.b))
  end)

  it("fails cleanly at each allocation", function()
    local p, g = layer(3, 4, 5, 6, "f32", true)
    local x = p.x
    p.x = lr.uniform({5, 4, 3}, {seed = 2}):permute(3, 2, 1)
    local failed, saved = 0, run(p, true)
    for n = 1, 40 do
      local live = lr.memory().storages
      C.lbr_memory_fail_at(n)
      local ok = pcall(function()
        local attr = rows.lstm_backward.attr()
        attr.need_dx = 1
        local o = {}
        for i = 1, 6 do o[i] = require("libration.tensor").new() end
        lr.core.check(C.lbr_lstm_backward(p.x, p.w, p.r, p.h0, p.c0, saved.y, saved.gates, saved.cells, g.dy, g.dhn, g.dcn, o[1], o[2], o[3], o[4], o[5], o[6], attr))
      end)
      C.lbr_memory_fail_at(0)
      if ok then break end
      failed = failed + 1
      collectgarbage()
      collectgarbage()
      assert(lr.memory().storages <= live)
    end
    assert(failed >= 7, "only " .. failed .. " allocations failed")
    p.x = x
    run(p)
  end)
end)
