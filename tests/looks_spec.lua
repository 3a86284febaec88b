-- Specs of which frames of a recording are looked at, on made-up sources: bisection, agreement, cuts, faults, frames held; and of what is told from coarse pictures.
local changes = require "libration.pose.changes"
local helper = require "helper"
local lr = require "libration"
local looks = require "libration.pose.looks"

local FPS, QUEUE, W, H = 32, 32, 30, 16 -- of coarse pictures; a look every eight frames

local function face(x, y, score, size) return { kind = "face", x = x, y = y, width = size or 20, height = size or 20, angle = 0, score = score or .9 } end

-- A source of n frames: scene(index) gives the grey of the coarse picture (50), or paints it; damaged: set of indices. Notes whose pixels were asked for how late.
local function source_of(n, scene, damaged)
  local self = { width = 8, height = 8, queue = QUEUE, cell = 16, newest = 0, latest = 0 }
  function self.frames()
    local i = 0
    return function()
      if i == n then return nil end
      i = i + 1
      local index = i
      self.newest = i
      return {
        index = index, time = (index - 1) / FPS, damaged = damaged and damaged[index],
        rgb = function()
          self.latest = math.max(self.latest, self.newest - index)
          return { index = index }
        end,
        coarse = function()
          local made = scene and scene(index)
          return type(made) == "cdata" and made or lr.full({ H, W, 3 }, made or 50, "u8")
        end,
      }
    end
  end
  return self
end

-- Runs a finder that sees things(index); returns the frames, how often each was looked at, and the counts.
local function run(source, things, every, fails, lead)
  local asked, list = {}, {}
  local finder = { resets = 0 }
  function finder.reset() finder.resets = finder.resets + 1 end
  function finder.look(_, rgb, at)
    assert.equal(at.index, rgb.index)
    asked[at.index] = (asked[at.index] or 0) + 1
    if fails and fails[at.index] then error(fails[at.index], 0) end
    return things(at.index)
  end
  local counts = looks.run(source, finder, { every = every or .25, lead = lead }, function(look) list[#list + 1] = look end)
  for i, look in ipairs(list) do assert.equal(i, look.index) end
  for i, n in pairs(asked) do assert.equal(1, n, "frame " .. i) end
  return list, asked, counts, finder
end

local function first_of(list)
  for i, look in ipairs(list) do
    if #(look.detections or {}) > 0 then return i end
  end
end

describe("looks", function()
  it("find the first and the last frame of a face that comes and goes between two looks, by bisection", function()
    for _, from in ipairs { 2, 12, 17, 20, 25 } do
      local to = from + 37
      local list, _, counts = run(source_of(80), function(i) return i >= from and i <= to and { face(100, 60) } or {} end)
      assert.equal(from, first_of(list))
      for i, look in ipairs(list) do assert.equal(i >= from and i <= to and 1 or 0, #look.detections, "frame " .. i) end
      assert.is_true(counts.looked <= 9 and counts.glances <= 8, counts.looked .. " looks, " .. counts.glances .. " glances")
      assert.equal(80, #list)
    end
  end)

  it("fill the frames between looks that agree, in a straight line, with the smaller score, and ask for none of them", function()
    local list, asked, counts = run(source_of(65), function(i) return { face(100 + .4 * i, 60, i == 1 and .5 or .9), face(300, 200) } end)
    assert.same({ 6, 0 }, { counts.looked, counts.glances }) -- 1, 9, then as far apart as half of the queue lets them be, to the last
    for i, look in ipairs(list) do
      assert.equal(2, #look.detections)
      local d = look.detections[look.detections[1].x < 200 and 1 or 2]
      assert.is_true(math.abs(d.x - (100 + .4 * i)) < 1e-9 and d.width >= 20 and d.width < 23)
      assert.equal(i < 9 and .5 or .9, d.score)
      assert.equal(asked[i] ~= nil, look.looked)
    end
  end)

  it("fill between weak answers too, but look at no frame for their sake", function()
    local function weak(x, score) return { kind = "face", x = x, y = 200, width = 20, height = 20, score = score or .2, weak = true } end
    local list, asked, counts = run(source_of(65), function(i) return { face(100, 60), i % 16 == 1 and weak(300 + i / 8) or weak(500 * (i % 3)) } end)
    assert.same({ 6, 0 }, { counts.looked, counts.glances })
    for i, look in ipairs(list) do
      assert.is_true(#look.detections >= 1 and not look.detections[1].weak)
      assert.is_true(asked[i] ~= nil or #look.detections == 1 or look.detections[2].weak)
    end
    -- a sure answer that is a weak one at the next look is where both are
    local short, _, few = run(source_of(9), function(i) return { i == 1 and face(300, 200, .5) or weak(301) } end)
    assert.same({ 2, 0 }, { few.looked, few.glances })
    for i = 2, 8 do assert.is_true(short[i].detections[1].weak and #short[i].detections == 1) end
  end)

  it("take what moves fast for straight only where a third look says so, and look at every frame of what does not", function()
    local list, _, counts = run(source_of(33), function(i) return { face(100 + 6 * i, 60) } end)
    assert.same({ 5, 4 }, { counts.looked, counts.glances })
    for i, look in ipairs(list) do assert.is_true(math.abs(look.detections[1].x - (100 + 6 * i)) < 1e-9) end
    local function wild(i) return { face(200 + 20 * (-1) ^ i, 100 + 25 * (i % 3)) } end
    local seen
    list, seen = run(source_of(33), wild)
    for i, look in ipairs(list) do
      assert.is_true(seen[i] == 1 and look.detections[1].x == wild(i)[1].x, "frame " .. i)
    end
  end)

  it("leave short ends to the lead of the tracks, and join what is a tenth of a second apart", function()
    local LEAD = 5
    for _, score in ipairs { .8, .5 } do
      local list, asked = run(source_of(40), function(i) return i >= 17 and { face(100, 60, score) } or {} end, .25, nil, LEAD)
      local first = first_of(list)
      assert.is_false(asked[16] ~= nil and asked[17] ~= nil)
      assert.is_true(first >= 17 and first <= 17 + LEAD, "from " .. first)
      for i = first, 40 do assert.equal(1, #list[i].detections, "frame " .. i) end
    end
    local _, asked = run(source_of(40), function(i) return i >= 17 and { face(100, 60, .8) } or {} end, .25)
    assert.is_true(asked[16] == 1 and asked[17] == 1)
    local function wild(i) return { face(200 + 20 * (-1) ^ i, 100 + 25 * (i % 3)) } end
    local list, seen = run(source_of(33), wild, .25, nil, LEAD)
    local last = 0
    for i, look in ipairs(list) do
      assert.equal(1, #look.detections, "frame " .. i)
      if seen[i] then
        assert.is_true(i - last <= 4)
        last = i
      end
    end
  end)

  it("never fill across a cut: both sides of it are looked at, and the finder begins anew", function()
    local list, asked, _, finder = run(source_of(40, function(i) return i < 21 and 30 or 200 end), function() return { face(100, 60) } end)
    assert.is_true(asked[20] == 1 and asked[21] == 1)
    for i, look in ipairs(list) do assert.equal(i == 21, look.cut) end
    assert.equal(2, finder.resets)
  end)

  it("look at a frame that is like neither end, though those agree", function()
    local function scene(i)
      local coarse = lr.full({ H, W, 3 }, 50, "u8")
      if i == 14 then require("ffi").fill(coarse:ptr(), W * H, 120) end -- a third of it
      return coarse
    end
    local list, asked = run(source_of(40, scene), function(i) return i == 14 and { face(40, 40) } or {} end)
    assert.is_true(asked[14] == 1 and #list[14].detections == 1)
    assert.is_true(asked[13] == nil or #list[13].detections == 0)
  end)

  it("leave a frame without detections where it is damaged or the finder fails, and look at its neighbours", function()
    local list, asked, _, finder = run(source_of(40, nil, { [12] = "broken" }), function() return { face(100, 60) } end, nil,
      { [21] = "the network broke\nhere", [33] = "again" })
    assert.equal("the frame is broken in the file", list[12].fault)
    assert.is_true(asked[11] == 1 and asked[13] == 1 and asked[12] == nil)
    local faults = {}
    for i, look in ipairs(list) do
      if look.fault then
        faults[#faults + 1] = i
        assert.is_nil(look.detections)
      else
        assert.equal(1, #look.detections, "frame " .. i)
      end
    end
    assert.same({ 12, 21 }, { faults[1], faults[2] })
    assert.equal("the network broke", list[21].fault)
    assert.equal(1 + #faults, finder.resets)
  end)

  it("hand on Ctrl-C", function()
    helper.refuses("interrupted", run, source_of(9), function() end, .25, { [1] = "interrupted" })
  end)

  it("hold no more than half of the queue, however seldom it is to be looked", function()
    local source = source_of(100)
    local list = run(source, function(i) return i == 57 and { face(10, 10) } or {} end, 2)
    assert.equal(100, #list)
    assert.is_true(source.latest <= QUEUE / 2, source.latest .. " frames back")
  end)

  it("look at every frame where that is asked for", function()
    local _, asked, counts = run(source_of(20), function() return { face(100, 60) } end, 0)
    assert.same({ 20, 0 }, { counts.looked, counts.glances })
    assert.equal(20, #asked)
  end)
end)

describe("changes", function()
  local ffi = require "ffi"
  local function grey(v) return lr.full({ H, W, 3 }, v, "u8") end

  it("tell a cut from motion and from dimmed light", function()
    local a, b = grey(50), grey(50)
    ffi.fill(a:ptr(), 90, 240)
    ffi.fill(b:ptr() + 200, 90, 240)
    assert.is_false(changes.is_cut(a, b))
    assert.is_false(changes.is_cut(grey(100), grey(112)))
    assert.is_true(changes.is_cut(a, grey(170)))
  end)

  it("remember answers about views until something changes there, or for eight looks", function()
    local memory, asked = changes.memory(), {}
    local views = { { x = 64, y = 64, side = 128, angle = 0 }, { x = 400, y = 200, side = 96, angle = 0 } }
    local function look(coarse)
      asked = {}
      return memory:of(views, coarse, 16, function(some)
        local lists = {}
        for i, view in ipairs(some) do
          asked[#asked + 1] = view.x
          lists[i] = { { x = view.x, points = { 1, 2 } } }
        end
        return lists
      end)
    end
    local first = look(grey(50))
    assert.same({ 64, 400 }, asked)
    first[1][1].x, first[1][1].points[1] = 0, 0 -- the caller's own
    local again = look(grey(53))
    assert.same({}, asked)
    assert.same({ 64, 1 }, { again[1][1].x, again[1][1].points[1] })
    local changed = grey(50)
    changed:ptr()[(12 * W + 25) * 3] = 60
    look(changed)
    assert.same({ 400 }, asked)
    for _ = 1, 5 do look(changed) end
    assert.same({}, asked)
    look(changed)
    assert.same({ 64 }, asked)
    memory:reset()
    look(changed)
    assert.same({ 64, 400 }, asked)
  end)

  it("do not take a noisy cell for a change of a large view, but a thing of a tenth of it, dark or bright", function()
    local memory, asked = changes.memory(), 0
    local function look(coarse)
      asked = 0
      memory:of({ { x = W * 8, y = W * 4, side = W * 16, angle = 0 } }, coarse, 16, function()
        asked = 1
        return { {} }
      end)
      return asked
    end
    local block = math.floor(W / 10 + .5)
    assert.equal(1, look(grey(50)))
    for _, level in ipairs { 62, 38 } do
      local noisy, thing = grey(50), grey(50)
      for i = 0, W * 8 - 1 do noisy:ptr()[3 * i] = i % 2 == 0 and level or 100 - level end
      for y = 3, 2 + block do ffi.fill(thing:ptr() + (y * W + 5) * 3, 3 * block, level) end
      assert.equal(0, look(noisy))
      assert.equal(1, look(thing))
      assert.equal(1, look(grey(50)))
    end
  end)
end)
