-- loader_spec: windows arrive whole, once an epoch, in the order that seed and epoch give, whatever the workers.
local lr = require "libration"
local Loader = require "libration.train.loader"
local C = lr.core.C

-- Sequences whose every number tells sequence, frame and feature.
local function sequences(lengths, features)
  local out, mask = {}, {}
  for s, n in ipairs(lengths) do
    local t, m = lr.empty {n, features}, lr.empty({n}, "u8")
    local p, q = t:ptr(), m:ptr()
    for f = 0, n - 1 do
      q[f] = (s * 7 + f) % 256
      for k = 0, features - 1 do p[f * features + k] = s * 1e5 + f * 10 + k end
    end
    out[s], mask[s] = t, m
  end
  return out, mask
end

local function seen(loader, epoch, first)
  local out = {}
  for i, x, m in loader:epoch(epoch, first) do
    assert.are.equal(x:size(1), m and m:size(1) or x:size(1))
    for b = 1, x:size(1) do
      local s, start = math.floor(x:get(b, 1, 1) / 1e5), x:get(b, 1, 1) % 1e5 / 10
      out[#out + 1] = s .. ":" .. start
      for t = 1, x:size(2) do
        for k = 1, x:size(3) do assert.are.equal(s * 1e5 + (start + t - 1) * 10 + k - 1, x:get(b, t, k)) end
        if m then assert.are.equal((s * 7 + start + t - 1) % 256, m:get(b, t)) end
      end
    end
    assert(i <= loader.batches)
  end
  return out
end

describe("loader", function()
  it("gives every window once, in the same order with 0, 1 and 3 workers", function()
    local x, mask = sequences({13, 4, 9, 30}, 3)
    local orders = {}
    for w, workers in ipairs {0, 1, 3} do
      local loader = Loader.new {streams = {x, mask}, window = 5, stride = 2, batch = 4, workers = workers, depth = 3, seed = 11}
      assert.are.equal(5 + 0 + 3 + 13, loader.count)
      assert.are.equal(6, loader.batches)
      orders[w] = {seen(loader, 1), seen(loader, 2)}
      local once = {}
      for _, name in ipairs(orders[w][1]) do
        assert.is_nil(once[name])
        once[name] = true
      end
      assert.are.equal(loader.count, #orders[w][1])
      assert.are.same(orders[w][1], seen(loader, 1))
      loader:close()
      loader:close()
    end
    assert.are.same(orders[1], orders[2])
    assert.are.same(orders[1], orders[3])
    assert.are_not.same(orders[1][1], orders[1][2])
  end)

  it("goes on from a batch in the middle, and drops what is left of an epoch", function()
    local x = sequences({40}, 2)
    local loader = Loader.new {streams = {x}, window = 3, batch = 5, workers = 2, seed = 3}
    local all = seen(loader, 7)
    local part = {}
    for i = 11, #all do part[#part + 1] = all[i] end
    loader:epoch(2)()
    assert.are.same(part, seen(loader, 7, 3))
    assert.are.same({}, seen(loader, 7, loader.batches + 1))
    assert.has_error(function() loader:epoch(1, loader.batches + 2) end)
  end)

  it("keeps the order without shuffling, takes given windows and rows", function()
    local x = sequences({10, 10}, 2)
    local loader = Loader.new {streams = {x}, window = 4, windows = {sequence = {2, 1, 2}, start = {6, 0, 1}}, batch = 8, shuffle = false}
    assert.are.same({"2:6", "1:0", "2:1"}, seen(loader, 1))
    local rows = Loader.new {streams = {lr.arange(7), lr.arange(7, "i32")}, batch = 3, shuffle = false, workers = 0}
    local out = {}
    for _, a, b in rows:epoch(1) do
      assert.are.same(a:totable(), b:totable())
      out[#out + 1] = a:totable()
    end
    assert.are.same({{0, 1, 2}, {3, 4, 5}, {6}}, out)
  end)

  it("permutes 0 .. n-1 without gaps for any n, differently by seed and epoch", function()
    for _, n in ipairs {1, 2, 3, 16, 17, 1000, 4097} do
      local hit, moved = {}, 0
      for i = 0, n - 1 do
        local j = C.lbr_permute(5, 3, n, i)
        assert(j >= 0 and j < n and not hit[j])
        hit[j] = true
        if j ~= i then moved = moved + 1 end
      end
      assert(n < 16 or moved > n / 2)
    end
    local same = 0
    for i = 0, 999 do
      if C.lbr_permute(5, 3, 1000, i) == C.lbr_permute(5, 4, 1000, i) then same = same + 1 end
      if C.lbr_permute(5, 3, 1000, i) == C.lbr_permute(6, 3, 1000, i) then same = same + 1 end
    end
    assert(same < 20)
  end)

  it("refuses what cannot be loaded, by name", function()
    local x = sequences({10, 10}, 2)
    local function message(options)
      local ok, text = pcall(Loader.new, options)
      assert.is_false(ok)
      return text
    end
    assert.matches("no windows: no sequence has 11 frames", message {streams = {x}, window = 11})
    assert.matches("window 0 starts at frame 8 of sequence 1, which does not hold 3 frames", message {streams = {x}, window = 3, windows = {sequence = {2}, start = {8}}})
    assert.matches("batch is 0", message {streams = {x}, window = 3, batch = 0})
    assert.matches("no option 'bach'", message {streams = {x}, bach = 3})
    assert.matches("sequence 2 is f32 %[10,3%], the first f32 %[10,2%]", message {streams = {{lr.ones {10, 2}, lr.ones {10, 3}}}, window = 3})
    assert.matches("sequence 2 has 9 frames in stream 2, 10 in the first", message {streams = {x, {lr.ones {10}, lr.ones {9}}}, window = 3})
    assert.matches("contiguous", message {streams = {lr.ones({4, 5}):transpose(1, 2)}})
  end)
end)
