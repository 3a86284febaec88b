-- tensor_spec.lua: creation, views, access, scopes, memory and what it costs, printing, errors at the user's line.
local lr = require "libration"
local helper = require "helper"

describe("tensor", function()
  it("holds nested tables, prints a summary and at most 6x6 values", function()
    local t = lr.tensor {{1, 2.5, -3}, {4, 0 / 0, 6}}
    assert.are.same({2, 3}, t.shape)
    assert.are.equal("tensor f32 cpu [2,3]\n1  2.5  -3\n4  nan  6", (tostring(t):gsub("%-nan", "nan")))
    local _, lines = tostring(lr.zeros {50, 50, 50}):gsub("\n", "\n")
    assert.is_true(lines <= 7)
    assert.are.equal("tensor f32 cpu [] 7", tostring(lr.tensor(7)))
    assert.are.equal("tensor u8 cpu [0,4]", tostring(lr.empty({0, 4}, "u8")))
  end)
  it("views share storage", function()
    local t = lr.arange(24):reshape(2, 3, 4)
    local v = t:narrow(2, 2, 2):transpose(1, 3)
    v:set(100, 1, 1, 2)
    assert.are.equal(100, t:get(2, 2, 1))
    assert.are.same({4, 2, 2}, v.shape)
    assert.are.equal(-1, (t:select(1, 2):fill_(-1) and t:get(2, 3, 4)))
    assert.are.same({{0, 1, 2}, {2, 3, 4}, {4, 5, 6}}, lr.arange(7):unsqueeze(2):unfold(3, 2):squeeze(3):totable())
  end)
  it("refuses views that leave the storage, at the user's line", function()
    local t = lr.zeros {2, 3}
    helper.refuses("narrow: 2..4 of dim 2 of f32 [2,3]", t.narrow, t, 2, 2, 3)
    helper.refuses("reshape: f32 [2,3] to [4,2]", t.reshape, t, 4, 2)
    helper.refuses("position 3 in dim 1", t.get, t, 3, 1)
    local line = debug.getinfo(1, "l").currentline + 1
    local _, message = pcall(function() return lr.matmul(t, t) end)
    assert.is_truthy(message:find("tensor_spec.lua:" .. line .. ":", 1, true), message)
    helper.refuses("no field or method 'shpae'", function() return t.shpae end)
  end)
  it("frees what a scope made, keeps what it returns", function()
    helper.leaves_nothing(function()
      local before = lr.memory().storages
      local kept = lr.scope(function()
        local x = lr.zeros {100}
        for _ = 1, 50 do x = x + 1 end
        assert.is_true(lr.memory().storages >= before + 50)
        return {deep = {x}}
      end)
      assert.are.equal(before + 1, lr.memory().storages)
      assert.are.equal(50, kept.deep[1]:get(7))
      lr.free(kept.deep[1])
      helper.refuses("was freed", function() return kept.deep[1]:ptr() end)
    end)
  end)
  it("frees a scope's tensors when it fails", function()
    helper.leaves_nothing(function()
      helper.refuses("oops", lr.scope, function()
        lr.zeros {100}
        error "oops"
      end)
    end)
  end)
  it("stays bounded in a loop of temporaries with ballast in the Lua heap", function()
    local ballast = {}
    for i = 1, 2e5 do ballast[i] = {i} end
    local x, peak = lr.ones {20000}, 0
    for _ = 1, 5000 do
      local y = x * 2 + 1
      peak = math.max(peak, lr.memory().live)
      assert(y)
    end
    assert.is_true(peak < 200 * 2 ^ 20, peak)
    assert.are.equal(2e5, #ballast)
  end)
  it("turns the nth failing allocation into an error and leaves nothing behind", function()
    local C = lr.core.C
    for n = 1, 6 do
      helper.leaves_nothing(function()
        C.lbr_memory_fail_at(n)
        local ok = pcall(function()
          local x = lr.zeros {64}
          -- the door collects and tries once more, so that a lone failure heals
          return lr.matmul(x:reshape(8, 8):transpose(1, 2), x:reshape(8, 8)) + 1
        end)
        C.lbr_memory_fail_at(0)
        assert.is_boolean(ok)
      end)
    end
  end)
end)

describe("record", function()
  local w = lr.requires_grad(lr.randn({5, 4}, {seed = 1}))
  local function step(x, t)
    local tape = lr.tape()
    local loss = lr.mse(lr.tanh(lr.linear(x, w)), t)
    local g = tape:gradient(loss, {w})
    lr.add_(w, g[1], -.1)
    return loss
  end
  it("replays a training step bit for bit", function()
    local x, t = lr.randn({7, 4}, {seed = 2}), lr.randn({7, 5}, {seed = 3})
    local start, eager, replayed = w:clone(), {}, {}
    for i = 1, 5 do eager[i] = step(x, t):item() end
    local last = w:clone()
    w:copy_(start)
    local R = lr.record(step)
    for i = 1, 5 do replayed[i] = R(x, t):item() end
    assert.are.same(eager, replayed)
    assert.are.equal(0, (helper.difference(last, w)))
    assert.is_true(eager[5] < eager[1])
  end)
  it("makes a plan a shape, gives the arena back", function()
    helper.leaves_nothing(function()
      local R = lr.record(function(x) return lr.relu(x * 2 - 1):sum() end)
      for n = 3, 5 do assert.are.equal(n, R(lr.ones {n}):item()) end
      assert.are.equal(3, #R.order)
      assert.are.equal(4, R(lr.ones {4}):item())
      assert.is_truthy(tostring(R:plan(lr.ones {4})):find("4 calls", 1, true) or tostring(R:plan(lr.ones {4})):find("3 calls", 1, true))
    end)
  end)
  it("refuses to read a value while recording and leaves nothing behind", function()
    helper.leaves_nothing(function()
      local R = lr.record(function(x) return x + x:sum():item() end)
      helper.refuses("cannot be read while recording", function() R(lr.ones {3}) end)
      assert.are.equal(0, lr.core.C.lbr_recording())
    end)
  end)
  it("refuses a result that a later replay overwrote", function()
    local R = lr.record(function(x) return x * 2 end)
    local a = R(lr.ones {3})
    assert.are.equal(2, a:get(1))
    local b = R(lr.full({3}, 5))
    assert.are.equal(10, b:get(1))
    helper.refuses("overwritten by a later replay", function() return a:get(1) end)
  end)
  it("draws anew in each replay of a dropout", function()
    local counter = lr.tensor({0}, "i32")
    local one = lr.tensor({1}, "i32")
    local R = lr.record(function(x)
      local y = lr.dropout(x, counter, {p = .5, seed = 1})
      counter:copy_(counter + one)
      return y
    end)
    local a = R(lr.ones {64}):clone()
    assert.is_true(helper.difference(a, R(lr.ones {64})) > 0)
    assert.are.equal(2, counter:get(1))
  end)
  it("names the first op that makes a NaN", function()
    lr.debug_nan(true)
    local ok, message = pcall(function() return lr.log(lr.full({3}, -1)) + 1 end)
    lr.debug_nan(false)
    assert.is_false(ok)
    assert.is_truthy(message:find("log: made the first NaN", 1, true), message)
  end)
  it("names the op that diverges from its slow twin", function()
    local wide = lr.randn({64, 999}, {seed = 4})
    local R = lr.record(function(x) return lr.linear(lr.relu(x), wide) end)
    R(lr.randn({20, 999}, {seed = 5}))
    assert.is_nil(lr.compare(R, 1e-5))
    assert.are.equal("linear", lr.compare(R, 0).name)
  end)
end)

describe("tape", function()
  it("sees a write to what it saved", function()
    local x = lr.requires_grad(lr.ones {3})
    local y = lr.ones {3}
    local tape = lr.tape()
    local z = (x * y):sum()
    y:fill_(2)
    helper.refuses("written after the forward pass", function() tape:gradient(z, {x}) end)
  end)
  it("gives zeros for a leaf that is not used and follows no_grad", function()
    local x, y = lr.requires_grad(lr.ones {3}), lr.requires_grad(lr.ones {2})
    local tape = lr.tape()
    local z = (x * lr.no_grad(function() return x * 3 end)):sum()
    local g = tape:gradient(z, {x, y})
    assert.are.same({3, 3, 3}, g[1]:totable())
    assert.are.same({0, 0}, g[2]:totable())
  end)
end)
