-- allocation_spec.lua: the nth allocation fails: every tensor's of a training step, eager and recorded, every malloc (tests/starve.lua): one clear line or success, and
-- nothing kept.
local lr = require "libration"
local helper = require "helper"
local meter = require "meter"
local anomaly = require "libration.anomaly"
local optim = require "libration.optim"
local train = require "libration.train"

local C = lr.core.C

local function loss(model, x) return lr.mse(model(x), x) end

-- Runs fn with the nth allocation failing, alone (the door collects and tries again) or with all after it, until none does.
local function every_failure(fn, sticky)
  local before, failures, n = helper.storages(), 0, 0
  repeat
    n = n + 1
    C.lbr_memory_fail_at(sticky and -n or n)
    local ok, message = pcall(fn)
    C.lbr_memory_fail_at(0)
    if not ok then
      failures = failures + 1
      assert(not message:find("\n", 1, true) and (message:find("out of memory", 1, true) or message:find("no room", 1, true)), message)
    end
    assert.are.equal(0, C.lbr_recording())
    lr.tape():close() -- none was left open
    local after = helper.storages()
    assert(after == before, ("%d storages before, %d after allocation %d failed: %s"):format(before, after, n, tostring(message)))
  until sticky and ok or n == 150
  return failures, n
end

describe("a failing allocation in a training step", function()
  local x = lr.randn({3, 4, 5}, {seed = 1})
  for _, eager in ipairs {true, false} do
    local function make()
      local model = anomaly.autoencoder.new {input = 5, window = 4, hidden = {6}, latent = 3, seed = 1}
      local optimizer = optim.Adam(model:parameters(), {rate = .01, clip = 1})
      return model, optimizer
    end
    local how = eager and "eager" or "recorded"
    it("and all after it: " .. how, function()
      local model, optimizer = make()
      train.step(model, optimizer, loss, {eager = true})(x)
      local failures, n = every_failure(function()
        lr.scope(function() train.step(model, optimizer, loss, {eager = eager})(x) end)
      end, true)
      assert.are.equal(n - 1, failures)
      assert.is_true(failures > 40, failures)
    end)
    it("alone heals in the op, or is an error: " .. how, function()
      local model, optimizer = make()
      train.step(model, optimizer, loss, {eager = true})(x)
      every_failure(function()
        lr.scope(function() train.step(model, optimizer, loss, {eager = eager})(x) end)
      end)
    end)
  end
end)

describe("a failing malloc #process", function()
  it("in training, loading, pictures, video, landmarks: a clear line or no effect, nothing alive #slow", function()
    local text, code = meter(helper.full() and "luajit tests/starve.lua" or 'luajit tests/starve.lua 17 "training step, recorded" loader "pictures in and out"')
    if not text then return pending(code) end
    if helper.full() then io.write(text) end
    assert.equal(0, code, text)
  end)
end)
