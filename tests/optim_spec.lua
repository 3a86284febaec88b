-- optim_spec: update rules against plain arithmetic in double, clipping, accumulation, schedules, loss scaling, state.
local lr = require "libration"
local optim = require "libration.optim"

local function close(a, b, tolerance) assert(math.abs(a - b) <= tolerance, ("%.12g, want %.12g"):format(a, b)) end

-- Three steps on two parameters with made-up gradients; rule(state, p, g, t) -> p.
local function against(make, rule, scale)
  local values = {{.5, -1.25, 2}, {3}}
  local params = {lr.tensor(values[1], "f64"), lr.tensor(values[2], "f64")}
  local optimizer, states = make(params), {}
  for t = 1, 3 do
    local grads, plain = {}, {}
    for i, v in ipairs(values) do
      plain[i] = {}
      for k = 1, #v do plain[i][k] = math.sin(t + 2 * i + 3 * k) * (scale or 1) end
      grads[i] = lr.tensor(plain[i], "f64")
    end
    optimizer:step(grads)
    for i, v in ipairs(values) do
      for k = 1, #v do
        states[i .. k] = states[i .. k] or {}
        v[k] = rule(states[i .. k], v[k], plain[i][k], t, plain)
        close(params[i]:get(k), v[k], 1e-12)
      end
    end
  end
end

local function adam(decay, decoupled)
  return function(s, p, g, t)
    if decoupled then p = p * (1 - .01 * decay) else g = g + decay * p end
    s.m, s.v = .9 * (s.m or 0) + .1 * g, .99 * (s.v or 0) + .01 * g * g
    return p - .01 / (1 - .9 ^ t) * s.m / (math.sqrt(s.v) / math.sqrt(1 - .99 ^ t) + 1e-8)
  end
end

describe("optim", function()
  it("Adam, AdamW, SGD follow their rules to 1e-12 in float64", function()
    against(function(p) return optim.Adam(p, {rate = .01, beta2 = .99}) end, adam(0))
    against(function(p) return optim.Adam(p, {rate = .01, beta2 = .99, weight_decay = .1}) end, adam(.1))
    against(function(p) return optim.AdamW(p, {rate = .01, beta2 = .99, weight_decay = .1}) end, adam(.1, true))
    against(function(p) return optim.SGD(p, {rate = .1}) end, function(_, p, g) return p - .1 * g end)
    for _, nesterov in ipairs {true, false} do
      against(function(p) return optim.SGD(p, {rate = .1, momentum = .8, weight_decay = .2, nesterov = nesterov}) end, function(s, p, g)
        g = g + .2 * p
        s.v = .8 * (s.v or 0) + g
        return p - .1 * (nesterov and g + .8 * s.v or s.v)
      end)
    end
  end)

  it("clips by the norm over all gradients, in the step and on its own", function()
    local function clipped(all, g)
      local sum = 0
      for _, list in ipairs(all) do
        for _, v in ipairs(list) do sum = sum + v * v end
      end
      return g * math.min(1, .5 / (math.sqrt(sum) + 1e-6))
    end
    for _, scale in ipairs {.01, 10} do
      against(function(p) return optim.SGD(p, {rate = .1, clip = .5}) end, function(_, p, g, _, all) return p - .1 * clipped(all, g) end, scale)
      local a, b = lr.tensor {3 * scale, 0}, lr.tensor({{4 * scale}}, "f64")
      local norm = optim.clip_grad_norm({a, b}, .5)
      close(norm:item(), 5 * scale, 1e-6 * scale)
      close(a:get(1), clipped({{3 * scale, 4 * scale}}, 3 * scale), 1e-6)
      close(b:get(1, 1), clipped({{3 * scale, 4 * scale}}, 4 * scale), 1e-12)
    end
  end)

  it("accumulated micro-batches equal one batch", function()
    local a, b = lr.tensor {1, 2, 3}, lr.tensor {1, 2, 3}
    local one, many = optim.Adam({a}, {rate = .1, clip = 1}), optim.Adam({b}, {rate = .1, clip = 1})
    for t = 1, 3 do
      local g1, g2 = lr.randn({3}, {seed = t}), lr.randn({3}, {seed = 10 + t})
      one:step {(g1 + g2) * .5}
      many:accumulate({g1}, .5)
      many:accumulate({g2}, .5)
      many:step()
    end
    close((a - b):abs():max():item(), 0, 1e-6)
    assert.are.equal(3, many:report().steps)
    assert.has_error(function() optim.SGD({a}):step() end)
  end)

  it("an overflow skips the step and Adam's counter, halves the scale; good steps double it; recorded", function()
    local w = lr.requires_grad(lr.tensor {1, -2, .5})
    local optimizer = optim.Adam({w}, {rate = .1, scaler = optim.scaler {initial = 1024, interval = 3}})
    local plain = lr.requires_grad(lr.tensor {1, -2, .5})
    local reference = optim.Adam({plain}, {rate = .1})
    local schedule, epochs = optim.schedule.step(.1, {every = 2, factor = .5}), 0
    local step = lr.record(function(x)
      local tape = lr.tape()
      local loss = (w * x):square():sum()
      optimizer:step(tape:gradient(loss, {w}, optimizer:seed()))
      return loss
    end)
    local scales = {}
    for t = 1, 9 do
      epochs = epochs + 1
      optimizer:rate(schedule:rate(epochs))
      local x = lr.tensor {t, 1, 2}
      if t == 3 or t == 4 then x:set(3e38, 2) end
      local before = w:clone()
      step(x)
      local report = optimizer:report()
      scales[t] = report.scale
      if t == 3 or t == 4 then
        assert.is_true(report.skipped)
        assert.are.equal(0, (w - before):abs():max():item())
      else
        assert.is_false(report.skipped)
        reference:rate(schedule:rate(epochs))
        local tape = lr.tape()
        reference:step(tape:gradient((plain * x):square():sum(), {plain}))
      end
    end
    assert.are.same({1024, 1024, 512, 256, 256, 256, 512, 512, 512}, scales)
    assert.are.equal(7, optimizer:report().steps)
    assert.are.equal(2, optimizer:report().overflows)
    assert.are.equal(0, (w - plain):abs():max():item())
  end)

  it("a new rate between replays takes effect", function()
    local w = lr.requires_grad(lr.tensor {1, 1})
    local optimizer = optim.SGD({w}, {rate = 0})
    local step = lr.record(function(x)
      local tape = lr.tape()
      optimizer:step(tape:gradient((w * x):sum(), {w}))
    end)
    step(lr.tensor {1, 2})
    assert.are.same({1, 1}, w:totable())
    optimizer:rate(.5)
    step(lr.tensor {1, 2})
    assert.are.same({.5, 0}, w:totable())
  end)

  it("schedules", function()
    local s = optim.schedule
    assert.are.equal(.1, s.constant(.1):rate(50))
    local cosine = s.cosine(1, {epochs = 10, final = .1, warmup = 2})
    close(cosine:rate(1), .5, 1e-15)
    close(cosine:rate(2), 1, 1e-15)
    close(cosine:rate(7), .55, 1e-12)
    close(cosine:rate(11), .1, 1e-12)
    local steps = s.new("step", 1, {every = 3, factor = .1})
    close(steps:rate(3), 1, 0)
    close(steps:rate(4), .1, 1e-15)
    close(steps:rate(7), .01, 1e-15)
    local plateau = s.plateau(1, {patience = 1, factor = .5, lowest = .3})
    for _, metric in ipairs {5, 4, 4, 4} do plateau:observe(metric) end
    close(plateau:rate(1), .5, 0)
    local copy = s.plateau(1, {patience = 1, factor = .5, lowest = .3})
    copy:load_state(plateau:state())
    for _, p in ipairs {plateau, copy} do
      for _ = 1, 4 do p:observe(4) end
      close(p:rate(1), .3, 0)
    end
    assert.has_error(function() s.new("cosin", 1) end)
    assert.has_error(function() s.constant(0) end)
  end)

  it("carries its state, and refuses what does not fit by name", function()
    local a, b = lr.tensor {1, 2, 3}, lr.tensor {1, 2, 3}
    local one, two = optim.Adam({a}, {rate = .1}), optim.Adam({b}, {rate = .5})
    one:step {lr.tensor {1, -1, 2}}
    b:copy_(a)
    two:load_state_dict(one:state_dict())
    for _, o in ipairs {one, two} do o:step {lr.tensor {.5, 1, 0}} end
    assert.are.same(a:totable(), b:totable())
    local function message(fn, ...)
      local ok, text = pcall(fn, ...)
      assert.is_false(ok)
      return text
    end
    assert.matches("Adam.load_state_dict: missing", message(one.load_state_dict, one, {control = one.control}))
    assert.matches("Adam: no option 'lr'; there are beta1,", message(optim.Adam, {a}, {lr = 1}))
    assert.matches("Adam: beta1 is 1, want a number in", message(optim.Adam, {a}, {beta1 = 1}))
    assert.matches("SGD: no parameters", message(optim.SGD, {}))
    assert.matches("SGD: 2 gradients for 1 parameters", message(function() optim.SGD({a}):step {a, a} end))
    assert.matches("nesterov wants momentum", message(optim.SGD, {a}, {nesterov = true}))
  end)
end)
