-- recurrent_spec.lua: recurrent layers in all their variants: step by step against the fast LSTM and against formulas, both ways, unequal lengths; gradients against differences.
local lr = require "libration"
local helper = require "helper"

local function randn(shape, seed) return lr.randn(shape, {seed = seed, dtype = "f64"}) end
local function weigh(y) return (y * lr.randn(y.shape, {seed = 99, dtype = y.dtype})):sum() end
local function close(want, have, tolerance)
  local d, size = helper.difference(want, have)
  assert(d <= (tolerance or 1e-12) * math.max(size, 1), d)
end

local B, T, F, H = 3, 5, 2, 4
local x = randn({B, T, F}, 1)

local function way(gates, seed, more)
  local w = {w = randn({gates * H, F}, seed), r = randn({gates * H, H}, seed + 1), wb = randn({gates * H}, seed + 2), rb = randn({gates * H}, seed + 3),
    h0 = randn({B, H}, seed + 4), c0 = randn({B, H}, seed + 5)}
  for k, v in pairs(more or {}) do w[k] = v end
  return w
end

describe("recurrent", function()
  it("lstm step by step is the fast one, forwards and backwards, whole and by length", function()
    for _, more in ipairs {{}, {backwards = true}, {lengths = lr.tensor({5, 1, 3}, "i32")}, {lengths = lr.tensor({0, 5, 2}, "i32"), backwards = true}} do
      local fast, slow = way(4, 7, more), way(4, 7, more)
      slow.clip = 1e9
      local y, hn, cn = lr.recurrent("lstm", x, {fast})
      local y2, hn2, cn2 = lr.recurrent("lstm", x, {slow})
      close(y, y2)
      close(hn[1], hn2[1])
      close(cn[1], cn2[1])
    end
  end)
  it("a sequence's end is where its length says: outputs 0 behind it, the state of its last step", function()
    local lengths = {5, 2, 3}
    for kind, gates in pairs {rnn = 1, gru = 3, lstm = 4} do
      local w = way(gates, 3, {lengths = lr.tensor(lengths, "i32")})
      local y, hn = lr.recurrent(kind, x, {w})
      w.lengths = nil
      for b, n in ipairs(lengths) do
        local own = {}
        for k, v in pairs(w) do own[k] = (k == "h0" or k == "c0") and v:narrow(1, b, 1) or v end
        local alone, last = lr.recurrent(kind, x:narrow(1, b, 1):narrow(2, 1, n), {own})
        close(alone, y:narrow(1, b, 1):narrow(2, 1, n))
        close(last[1], hn[1]:narrow(1, b, 1))
        if n < T then close(lr.zeros({T - n, H}, "f64"), y:select(1, b):narrow(1, n + 1, T - n)) end
      end
    end
  end)
  it("gru in both conventions and rnn are their formulas", function()
    local function dense(v, w, b) return lr.linear(v, w, b) end
    for _, reset_after in ipairs {false, true} do
      local o = way(3, 5, {reset_after = reset_after})
      local h = o.h0
      for t = 1, 2 do
        local a = dense(x:select(2, t), o.w, o.wb)
        local function g(v, k) return v:narrow(2, (k - 1) * H + 1, H) end
        local p = dense(h, o.r, o.rb)
        local z, r = (g(a, 1) + g(p, 1)):sigmoid(), (g(a, 2) + g(p, 2)):sigmoid()
        local inner = reset_after and r * g(p, 3) or dense(r * h, o.r:narrow(1, 2 * H + 1, H), o.rb:narrow(1, 2 * H + 1, H))
        h = (1 - z) * (g(a, 3) + inner):tanh() + z * h
      end
      close(h, lr.recurrent("gru", x, {o}):select(2, 2))
    end
    local o = way(1, 6, {activations = {lr.relu}})
    close((dense(x:select(2, 1), o.w, o.wb) + dense(o.h0, o.r, o.rb)):relu(), lr.recurrent("rnn", x, {o}):select(2, 1))
  end)
  it("lstm with peepholes sees its cell", function()
    local o = way(4, 8, {peepholes = randn({3 * H}, 9)})
    local a = lr.linear(x:select(2, 1), o.w, o.wb) + lr.linear(o.h0, o.r, o.rb)
    local function g(k) return a:narrow(2, (k - 1) * H + 1, H) end
    local function p(k) return o.peepholes:narrow(1, (k - 1) * H + 1, H) end
    local c = (g(2) + p(2) * o.c0):sigmoid() * o.c0 + (g(1) + p(1) * o.c0):sigmoid() * g(3):tanh()
    close((g(4) + p(3) * c):sigmoid() * c:tanh(), lr.recurrent("lstm", x, {o}):select(2, 1))
  end)
  it("two directions stand beside each other and have gradients", function()
    local lengths = lr.tensor({5, 2, 4}, "i32")
    for kind, gates in pairs {rnn = 1, gru = 3, lstm = 4} do
      local there, back = way(gates, 1, {lengths = lengths}), way(gates, 11, {lengths = lengths, backwards = true})
      local y, hn = lr.recurrent(kind, x, {there, back})
      assert.are.same({B, T, 2 * H}, y.shape)
      close(hn[2], y:narrow(3, H + 1, H):select(2, 1))
      helper.check_gradient(function(v, w, r, b)
        there.w, there.r, there.rb = w, r, b
        return weigh((lr.recurrent(kind, v, {there, back})))
      end, {x:clone(), there.w, there.r, there.rb})
    end
  end)
  it("refuses what does not fit", function()
    helper.refuses("gru: w is f64 [16,2]", lr.recurrent, "gru", x, {way(4, 1)})
    helper.refuses("recurrent: mamba", lr.recurrent, "mamba", x, {})
    helper.refuses("rnn: x is f64 [3,0,2]", lr.recurrent, "rnn", lr.zeros({3, 0, 2}, "f64"), {way(1, 1)})
  end)
end)
