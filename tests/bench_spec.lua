-- bench_spec.lua: the bench's own arithmetic and that its tool starts and ends; no speed is judged here.
require "helper"
local folder = debug.getinfo(1, "S").source:match "^@(.*)[/\\][^/\\]*$" or "tests"
package.path = folder .. "/../tools/?.lua;" .. package.path
local harness = require "bench.harness"

describe("bench", function()
  it("gives median, least and half the distance of the quartiles", function()
    local s = harness.summary {5, 1, 4, 2, 3}
    assert.are.same({3, 1, 5}, {s.median, s.least, s.n})
    assert.is_true(math.abs(s.spread - 1 / 3) < 1e-12)
    assert.are.equal(2.5, harness.summary({4, 1, 2, 3}).median)
  end)

  it("times ours and the peer in turns", function()
    local order = {}
    local h = harness.new {}
    local a, b = h:turns(function(i) order[#order + 1] = "a" .. i return .5 end, function(i) order[#order + 1] = "b" .. i return .25 end, 2)
    assert.are.equal("a1 b1 a2 b2", table.concat(order, " "))
    assert.are.same({{.5, .5}, {.25, .25}}, {a, b})
  end)

  it("takes rows by any part of a name", function()
    local h = harness.new {only = "LSTM"}
    assert.is_true(h:wants("recurrent", "lstm"))
    assert.is_false(h:wants("memory", "add sum"))
    assert.is_true(harness.new({}):wants "memory")
  end)

  it("writes rates of short times with their unit", function()
    assert.are.same({"29.0 ns", "1.50 us", "2.00 ms", "3.25 s"}, {harness.duration(29e-9), harness.duration(1.5e-6), harness.duration(2e-3), harness.duration(3.25)})
  end)
end)
