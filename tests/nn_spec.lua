-- nn_spec: layers, parameters by name, state, errors with their place, and the same losses as PyTorch.
local lr = require "libration"
local nn, optim = require "libration.nn", require "libration.optim"
local safetensors = require "libration.formats.safetensors"

local function difference(a, b)
  assert.are.same(a.shape, b.shape)
  return (a:to "f64" - b:to "f64"):abs():max():item()
end

local Autoencoder = nn.class "Autoencoder"

function Autoencoder.new(features, wide, narrow, latent)
  local self = nn.create(Autoencoder)
  self:child("encoder1", nn.LSTM(features, wide))
  self:child("encoder2", nn.LSTM(wide, narrow))
  self:child("to_latent", nn.Linear(narrow, latent))
  self:child("decoder1", nn.LSTM(latent, narrow))
  self:child("decoder2", nn.LSTM(narrow, wide, {layers = 2}))
  self:child("output", nn.Linear(wide, features))
  return self
end

function Autoencoder:forward(x)
  local _, h = self.encoder2((self.encoder1(x)))
  local z = self.to_latent(h[1])
  local y = self.decoder1(z:unsqueeze(2):expand(-1, x:size(2), -1))
  return self.output((self.decoder2(y)))
end

describe("nn", function()
  describe("twin of PyTorch: 50 losses within 1e-4", function()
    local golden = assert(safetensors.load "tests/golden/pytorch_twin/twin.safetensors")
    local makers = {
      adam_clip = function(model) return optim.Adam(model, {rate = 5e-3, clip = .1}) end,
      adamw = function(model) return optim.AdamW(model, {rate = 5e-3, weight_decay = .05}) end,
      sgd = function(model) return optim.SGD(model, {rate = .1, momentum = .9, nesterov = true, weight_decay = 1e-3}) end,
    }
    for name, make in pairs(makers) do
      for _, recorded in ipairs {false, true} do
        it(name .. (recorded and ", recorded" or ", eager"), function()
          local model = Autoencoder.new(11, 18, 9, 5)
          local start = {}
          for key, t in pairs(golden) do
            local own = key:match "^start%.(.*)"
            if own then start[own] = t end
          end
          model:load_state_dict(start)
          local optimizer, parameters = make(model), model:parameters()
          local function step(x)
            local tape = lr.tape()
            local loss = lr.mse(model(x), x)
            optimizer:step(tape:gradient(loss, parameters))
            return loss
          end
          local run = recorded and lr.record(step) or function(x) return lr.scope(step, x) end
          local want, worst = golden["losses." .. name]:ptr(), 0
          for i = 0, 49 do
            worst = math.max(worst, math.abs(run(golden.data:narrow(1, 7 * (i % 3) + 1, 7)):item() - want[i]))
          end
          print(("  %s: largest difference of 50 losses %.2g"):format(name, worst))
          assert(worst < 1e-4)
          if name == "adam_clip" then
            for key, t in pairs(model:state_dict()) do assert(difference(t, golden["end." .. key]) < 1e-4, key) end
          end
        end)
      end
    end
  end)

  it("initialises as PyTorch: uniform within 1/sqrt(fan), normal embeddings, the same for the same seed", function()
    nn.seed(5)
    local a = nn.Sequential(nn.Linear(30, 50), nn.ReLU(), nn.LSTM(50, 16), nn.Linear(16, 3))
    nn.seed(5)
    local b = nn.Sequential(nn.Linear(30, 50), nn.ReLU(), nn.LSTM(50, 16), nn.Linear(16, 3))
    nn.seed(6)
    local c = nn.Linear(30, 50)
    for i, t in ipairs(a:parameters()) do assert.are.equal(0, difference(t, b:parameters()[i])) end
    assert(difference(c.weight, a["0"].weight) > .01)
    local function bounds(t, fan)
      local bound = 1 / math.sqrt(fan)
      local top = t:abs():max():item()
      assert(top <= bound and top > .9 * bound)
      assert(math.abs(t:mean():item()) < .1 * bound)
    end
    bounds(a["0"].weight, 30)
    bounds(a["2"].weight_ih_l0, 16)
    bounds(a["2"].weight_hh_l0, 16)
    bounds(nn.Conv2d(8, 16, 3, {groups = 2}).weight, 36)
    bounds(nn.Depthwise(64, {3, 5}).weight, 15)
    local e = nn.Embedding(200, 30).weight
    assert(math.abs(e:square():mean():item() - 1) < .1)
  end)

  it("names parameters as PyTorch, in order", function()
    local model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LSTM(5, 3, {layers = 2}), nn.BatchNorm(3))
    local names = {}
    for i, p in ipairs(model:named_parameters()) do names[i] = p.name end
    assert.are.same({
      "0.weight", "0.bias", "2.weight_ih_l0", "2.weight_hh_l0", "2.bias_ih_l0", "2.bias_hh_l0", "2.weight_ih_l1", "2.weight_hh_l1",
      "2.bias_ih_l1", "2.bias_hh_l1", "3.weight", "3.bias",
    }, names)
    assert(model:state_dict()["3.running_var"])
    assert.are.equal(20 + 5 + (60 + 36 + 24) + (36 + 36 + 24) + 6, model:count())
    assert.matches("LSTM %(5 %-> 3, 2 layers%)", tostring(model))
  end)

  it("carries its state through safetensors", function()
    local path = os.tmpname()
    nn.seed(1)
    local a, b = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm(3)), nn.Sequential(nn.Linear(4, 3), nn.BatchNorm(3))
    local x = lr.randn({6, 4}, {seed = 2})
    a(x)
    safetensors.save(path, a:state_dict(), {kind = "test"})
    local state, metadata = assert(safetensors.load(path))
    os.remove(path)
    assert.are.equal("test", metadata.kind)
    b:load_state_dict(state)
    assert.are.equal(0, difference(a:eval()(x), b:eval()(x)))
    state["0.bias"], state.extra = nil, x
    local ok, text = pcall(b.load_state_dict, b, state)
    assert.is_false(ok)
    assert.matches("missing 0%.bias", text)
    state["0.bias"] = x
    ok, text = pcall(b.load_state_dict, b, state)
    assert.is_false(ok)
    assert.matches("0%.bias is f32 %[6,4%], want f32 %[3%]", text)
  end)

  it("says in which module an error arose, at the user's line", function()
    local model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(6, 2))
    local ok, text = pcall(function() return model(lr.ones {3, 4}) end)
    assert.is_false(ok)
    assert.matches("^tests/nn_spec%.lua:%d+: in module 3 of Sequential %(Linear%): linear: ", text)
    ok, text = pcall(nn.Sequential(model), lr.ones {3, 4})
    assert.is_false(ok)
    assert.matches("in module 1 of Sequential %(Sequential%): in module 3 of Sequential %(Linear%): ", text)
    ok, text = pcall(nn.Linear, 0, 3)
    assert.is_false(ok)
    assert.matches("Linear: inputs is 0", text)
    ok, text = pcall(nn.LSTM(4, 3), lr.ones {3, 4})
    assert.is_false(ok)
    assert.matches("LSTM: x is f32 %[3,4%], want %[B,T,4%]", text)
  end)

  it("drops out in training mode only, anew at each replay", function()
    nn.seed(4)
    local drop = nn.Dropout(.25)
    local x = lr.ones {100, 40}
    local run = lr.record(function(v) return drop(v) end)
    local first = run(x):clone()
    local share = first:gt(0):to("f32"):mean():item()
    assert(math.abs(share - .75) < .03)
    assert(math.abs(first:max():item() - 4 / 3) < 1e-6)
    assert(difference(first, run(x)) > 1)
    assert.are.equal(2, drop.counter:get(1))
    assert.are.equal(0, difference(drop:eval()(x), x))
    local tape = lr.tape()
    local w = lr.requires_grad(lr.ones {100, 40})
    local y = drop:train()(w)
    assert.are.equal(0, difference(tape:gradient(y:sum(), {w})[1], y))
  end)

  it("LSTM: states by layer, without bias, gradients reach every parameter", function()
    nn.seed(2)
    local x = lr.randn({3, 5, 4}, {seed = 1})
    for _, bias in ipairs {true, false} do
      local lstm = nn.LSTM(4, 6, {layers = 2, bias = bias})
      local tape = lr.tape()
      local y, hn, cn = lstm(x)
      assert.are.same({3, 5, 6}, y.shape)
      assert.are.equal(0, difference(y:select(2, 5), hn[2]))
      local grads = tape:gradient(y:square():sum() + cn[1]:sum(), lstm:parameters())
      assert.are.equal(bias and 8 or 4, #grads)
      for _, g in ipairs(grads) do assert(g:abs():max():item() > 0) end
      local whole = lstm:eval()(x)
      local _, h, c = lstm(x:narrow(2, 1, 2))
      assert(difference(lstm(x:narrow(2, 3, 3), h, c), whole:narrow(2, 3, 3)) < 1e-6)
    end
  end)

  it("batch norm in evaluation uses the running statistics", function()
    local bn = nn.BatchNorm(3)
    local x = lr.randn({50, 3}, {seed = 9, mean = 2, sd = 3})
    bn(x)
    assert(math.abs(bn.running_mean:get(1) - .1 * x:mean(1):get(1)) < 1e-5)
    bn:eval()
    local before = bn.running_mean:clone()
    assert(difference(bn(x), x) > 0)
    assert.are.equal(0, difference(before, bn.running_mean))
    local ln = nn.LayerNorm(3)
    assert(math.abs(ln(x):mean():item()) < 1e-5)
    assert.are.same({2, 2, 30}, nn.Embedding(7, 30)(lr.tensor({{0, 6}, {1, 1}}, "i32")).shape)
    assert.are.same({1, 4, 4, 5}, nn.Sequential(nn.Conv2d(3, 5, 3, {pad = 1}), nn.Depthwise(5, 3, {pad = 1, act = "relu"}))(lr.ones {1, 4, 4, 3}).shape)
  end)
end)
