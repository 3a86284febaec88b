-- lstm_spec: the LSTM ops against float64, finite differences, other layouts, instruction sets and thread counts.
local lr = require "libration"
local cases = require "lstm_cases"
local C = lr.core.C
local forward, backward, layer, moved = cases.forward, cases.backward, cases.layer, cases.moved
local relative, close, bits = cases.relative, cases.close, cases.bits

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
        local f = forward(p, true)
        local p64, g64 = moved(p, "f64"), moved(g, "f64")
        local f64 = forward(p64, true)
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
      local gates = forward({x = x, w = one, r = lr.zeros({4, 1}), b = lr.zeros({4})}, true).gates
      local v, worst = gates:ptr(), 0
      for i = 0, n - 1 do
        local sigmoid, tanh = 1 / (1 + math.exp(-p[i])), math.tanh(p[i])
        worst = math.max(worst, math.abs(v[4 * i] / sigmoid - 1))
        if p[i] ~= 0 then worst = math.max(worst, math.abs(v[4 * i + 2] / tanh - 1)) end
        assert(math.abs(v[4 * i + 2]) <= 1)
      end
      assert(worst < 3e-7, ("relative error %.3g"):format(worst))
      p[0], p[1], p[2] = math.huge, -math.huge, 0 / 0
      v = forward({x = x, w = one, r = lr.zeros({4, 1}), b = lr.zeros({4})}, true).gates:ptr()
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
      local f = forward(p, true)
      local function dot(a, b) return (a * b):sum():item() end
      return dot(f.y, g.dy) + dot(f.hn, g.dhn) + dot(f.cn, g.dcn), f
    end
    local _, f = loss()
    local d = backward(p, f, g)
    cases.finite_differences(p, d, loss, 17)
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
      local f, want = forward(p, true), forward(copy, true)
      bits(f, want)
      bits(backward(p, f, g), backward(copy, want, g))
    end)
  end

  it("an input expanded over time, a transposed one and one of few rows give the bits of their copy", function()
    local B, T, F, H = 9, 6, 10, 17
    local p, g = layer(B, T, F, H, "f32", true)
    for _, x in ipairs {lr.uniform({B, 1, F}, {seed = 4}):expand(B, T, F), lr.uniform({T, B, F}, {seed = 5}):transpose(1, 2), lr.uniform({F, T, B}, {seed = 6}):permute(3, 2, 1)} do
      p.x = x
      local f = forward(p, true)
      p.x = x:clone()
      local want = forward(p, true)
      bits(f, want)
      local d = backward(p, want, g)
      p.x = x
      bits(backward(p, f, g), d)
      for b = 1, B do
        local single = forward {x = p.x:narrow(1, b, 1), w = p.w, r = p.r, b = p.b, h0 = p.h0:narrow(1, b, 1), c0 = p.c0:narrow(1, b, 1)}
        assert.are.equal(0, relative(single.y, want.y:narrow(1, b, 1)))
      end
    end
  end)

  it("gives the same bits with 1, 2 and 3 threads, with and without saving", function()
    local p, g = layer(29, 5, 14, 40, "f32", true)
    lr.threads(1)
    local f = forward(p, true)
    local d = backward(p, f, g)
    for n = 2, 3 do
      lr.threads(n)
      bits(forward(p, true), f)
      bits(backward(p, f, g), d)
    end
    local plain = forward(p, false)
    bits(plain, {y = f.y, hn = f.hn, cn = f.cn})
    assert.are.equal(0, plain.gates:numel())
  end)

  it("takes dy of any strides and leaves out what is not wanted", function()
    local p, g = layer(4, 5, 6, 7, "f32", true)
    local f = forward(p, true)
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
    local y = forward(p).y
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
        local p64, g64 = moved(p, "f64"), moved(g, "f64")
        p.x, p.h0, g.dy, g.dhn = p.x:to(dtype), p.h0 and p.h0:to(dtype), g.dy:to(dtype), g.dhn and g.dhn:to(dtype)
        local f, f64 = forward(p, true), forward(p64, true)
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
    assert.has_error(function() forward {x = x, w = p.w:to "f16", r = p.r, b = p.b} end)
    assert.has_error(function() forward {x = x, w = p.w, r = p.r, b = p.b, c0 = lr.zeros({3, 6}, "f16")} end)
  end)

  it("refuses wrong shapes and dtypes by name", function()
    local p = layer(2, 3, 4, 5, "f32", true)
    assert.has_error(function() forward {x = p.x:narrow(3, 1, 3), w = p.w, r = p.r, b = p.b} end, nil)
    local function message(changed)
      for name, t in pairs {x = p.x, w = p.w, r = p.r, b = p.b} do changed[name] = changed[name] or t end
      local ok, text = pcall(forward, changed)
      assert.is_false(ok)
      return text
    end
    assert.matches("lstm_forward: .*w", message {w = p.w:narrow(2, 1, 3)})
    assert.matches("lstm_forward: .*%[2,3%]", message {x = p.x:select(3, 1)})
    assert.matches("lstm_forward: b", message {b = p.b:narrow(1, 1, 19)})
    assert.matches("lstm_forward: h0", message {h0 = p.h0:narrow(1, 1, 1)})
    assert.matches("lstm_forward: .*f64", message {w = p.w:to "f64"})
    assert.matches("lstm_forward: .*i32", message {x = p.x:to "i32"})
  end)

  it("fails cleanly at each allocation", function()
    local p, g = layer(3, 4, 5, 6, "f32", true)
    local x = p.x
    p.x = lr.uniform({5, 4, 3}, {seed = 2}):permute(3, 2, 1)
    local failed, saved = 0, forward(p, true)
    for n = 1, 40 do
      local live = lr.memory().storages
      C.lbr_memory_fail_at(n)
      local ok = pcall(function()
        local attr = require("libration.ops").rows.lstm_backward.attr()
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
    forward(p)
  end)
end)
