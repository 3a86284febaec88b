-- Specs of tracks: association, gaps, lead, cuts, smoothing that never uncovers what was found.
require "libration"
local tracks = require "libration.pose.tracks"

local function box(x, y, size, more)
  local d = { x = x, y = y, width = size, height = size, score = .9, kind = "face" }
  for k, v in pairs(more or {}) do d[k] = v end
  return d
end

-- Tracks of frames given as lists of detections; 10 frames a second.
local function run(options, frames)
  local tracker = tracks.tracker(options)
  for i, detections in ipairs(frames) do
    if detections.cut then tracker:cut() end
    tracker:update((i - 1) / 10, detections)
  end
  return tracker:finish()
end

local function frames_of(track)
  local list = {}
  for i = 0, track.count - 1 do list[i + 1] = track.samples[i].frame end
  return list
end

describe("tracks", function()
  it("follows two faces that pass each other, whatever the order of the detections", function()
    local frames = {}
    for i = 0, 20 do
      local a, b = box(100 + 12 * i, 100, 40), box(340 - 12 * i, 130, 40)
      frames[i + 1] = i % 2 == 0 and { a, b } or { b, a }
    end
    local all = run({ lead = 0, smooth = 0 }, frames)
    assert.equal(2, #all)
    for id, track in ipairs(all) do
      assert.equal(21, track.count)
      assert.equal(id, track.id)
      for i = 0, 20 do assert.near(id == 1 and 100 + 12 * i or 340 - 12 * i, track.samples[i].x, 1e-3) end
    end
  end)

  it("fills a gap of up to a second, with score 0, and makes two tracks of a longer one", function()
    for _, missed in ipairs { 1, 5, 10, 11, 15 } do
      local frames = { { box(100, 100, 40, { points = { 90, 90, 110, 90, 100, 100, 100, 110, 80, 95, 120, 95 } }) } }
      for _ = 1, missed do frames[#frames + 1] = {} end
      frames[#frames + 1] = { box(110, 100, 44, { points = { 100, 90, 120, 90, 110, 100, 110, 110, 90, 95, 130, 95 } }) }
      local all = run({ lead = 0, smooth = 0, gap = 1 }, frames)
      assert.equal(missed <= 10 and 1 or 2, #all, missed .. " missed")
      if missed <= 10 then
        assert.equal(missed + 2, all[1].count)
        local s = all[1].samples[1]
        assert.equal(0, s.score)
        assert.near(100 + 10 / (missed + 1), s.x, 1e-3)
        assert.near(90 + 10 / (missed + 1), s.points[0], 1e-3)
        assert.is_true(s.width >= 40 + 4 / (missed + 1) - 1e-3)
      end
    end
  end)

  it("begins before the first hit and ends after the last, never outside of the recording", function()
    local frames = {}
    for i = 1, 30 do frames[i] = (i == 3 or i == 28) and { box(i == 3 and 100 or 300, 50, 20) } or {} end
    local all = run({ lead = 4 }, frames)
    assert.same({ 1, 2, 3, 4, 5, 6, 7 }, frames_of(all[1]))
    assert.same({ 24, 25, 26, 27, 28, 29, 30 }, frames_of(all[2]))
    assert.is_true(all[1].samples[0].width > 20)
    assert.near(.6, all[1].samples[6].time, 1e-6)
  end)

  it("holds what comes or leaves over the edge of the picture as long as a gap may be, but not across a cut", function()
    local frames = {}
    for i = 1, 40 do frames[i] = i == 20 and { box(12, 100, 20), box(320, 100, 20), box(300, 470, 20) } or {} end
    local options = { lead = 2, gap = .7, width = 640, height = 480 }
    for id, track in ipairs(run(options, frames)) do
      local list = frames_of(track)
      local reach = id == 3 and 2 or 7 -- the third is in the middle
      assert.same({ 20 - reach, 20 + reach }, { list[1], list[#list] })
      assert.near(20 * 1.12, track.samples[0].width, 1e-4)
    end
    frames[24].cut = true
    local list = frames_of(run(options, frames)[1])
    assert.same({ 13, 23 }, { list[1], list[#list] })
    list = frames_of(run({ lead = 2, gap = .7 }, frames)[1])
    assert.same({ 18, 22 }, { list[1], list[#list] })
  end)

  it("ends at a cut: no lead across it, no gap filled across it", function()
    local frames = {}
    for i = 1, 12 do frames[i] = (i == 4 or i == 8) and { box(100, 50, 20) } or {} end
    frames[6].cut = true
    local all = run({ lead = 10 }, frames)
    assert.same({ 1, 2, 3, 4, 5 }, frames_of(all[1]))
    assert.same({ 6, 7, 8, 9, 10, 11, 12 }, frames_of(all[2]))
  end)

  it("smooths a trembling box and still covers every detection", function()
    local frames, found = {}, {}
    for i = 1, 40 do
      found[i] = box(100 + ((i * 7919) % 13) - 6, 80 + ((i * 104729) % 11) - 5, 40 + (i * 31) % 5)
      frames[i] = { found[i] }
    end
    local track = run({ lead = 0 }, frames)[1]
    local raw, calm = 0, 0
    for i = 1, 40 do
      local s, d = track.samples[i - 1], found[i]
      assert.is_true(s.x - s.width / 2 <= d.x - d.width / 2 + 1e-3 and s.x + s.width / 2 >= d.x + d.width / 2 - 1e-3)
      assert.is_true(s.y - s.height / 2 <= d.y - d.height / 2 + 1e-3 and s.y + s.height / 2 >= d.y + d.height / 2 - 1e-3)
      if i > 1 then
        raw, calm = raw + math.abs(d.x - found[i - 1].x), calm + math.abs(s.x - track.samples[i - 2].x)
      end
    end
    assert.is_true(calm < .5 * raw)
  end)

  it("keeps kinds apart, and faces of very different size", function()
    local all = run({ lead = 0 }, { { box(100, 100, 40) }, { box(100, 100, 40, { kind = "person" }) }, { box(100, 100, 200) } })
    assert.equal(3, #all)
    assert.equal("person", all[2].kind)
  end)

  it("drops what was seen too rarely and too weakly, where evidence is asked for", function()
    local frames = { { box(100, 100, 40, { score = .35 }) }, { box(300, 100, 40, { score = .35 }) }, {}, { box(300, 100, 40, { score = .35 }), box(500, 100, 40, { score = .7 }) } }
    local all = run({ evidence = .6 }, frames)
    assert.equal(2, #all)
    assert.same({ 300, 500 }, { all[1].samples[0].x, all[2].samples[0].x })
    assert.equal(3, #run({}, frames))
  end)

  it("go on with weak hits before and after a sure one, none is made of weak hits alone, and the sure hits go first", function()
    local weak, frames = { score = .2, weak = true }, {}
    for i = 1, 30 do
      frames[i] = { box(100 + i, 100, 40, i ~= 16 and weak or { score = .5 }) }
      if i % 2 == 0 then frames[i][2] = box(300, 100, 40, weak) end
    end
    local all = run({ evidence = .6, lead = 0 }, frames)
    assert.equal(1, #all)
    assert.same({ 30, 1, 30 }, { all[1].count, all[1].samples[0].frame, all[1].samples[29].frame })
    assert.equal(0, #run({}, { { box(100, 100, 40, weak) }, { box(100, 100, 40, weak) } }))
    assert.equal(0, #run({ evidence = .8 }, { { box(100, 100, 40, weak) }, { box(100, 100, 40, { score = .5 }) } }))
    -- what one detector is sure of in most frames of a second stays, against the other's doubt
    for _, case in ipairs { { 12, 1, 1 }, { 12, 2, 0 }, { 9, 1, 0 } } do
      frames = {}
      for i = 1, case[1] do frames[i] = { box(100, 100, 40, { score = .25, weak = true, doubted = i % case[2] == 0 }) } end
      assert.equal(case[3], #run({ evidence = .6 }, frames))
    end
    -- one frame is all there is of a picture: the doubt leaves it covered
    assert.equal(1, #run({ gap = 0, lead = 0, smooth = 0 }, { { box(100, 100, 40, { score = .25, weak = true, doubted = true }), box(300, 100, 40, weak) } }))
    -- what is weak must lie nearer than what is sure, and be of nearly the same size
    for _, case in ipairs { { 128, 40, 1, 2 }, { 115, 40, 2, 2 }, { 105, 70, 1, 2 }, { 105, 56, 2, 2 } } do
      for first = 1, 2 do
        local pair = { { box(100, 100, 40) }, { box(case[1], 100, case[2], weak) } }
        all = run({ lead = 0, smooth = 0 }, { pair[first], pair[3 - first] })
        assert.same({ 1, case[3] }, { #all, all[1].count })
      end
      all = run({ lead = 0, smooth = 0 }, { { box(100, 100, 40) }, { box(case[1], 100, case[2]) } })
      assert.same({ 1, case[4] }, { #all, all[1].count })
    end
    -- the weak one lies where the track was, the sure one beside it
    all = run({ lead = 0, smooth = 0 }, { { box(100, 100, 40) }, { box(100, 100, 40, weak), box(112, 100, 40) }, { box(112, 100, 40) } })
    assert.same({ 1, 3, 112 }, { #all, all[1].count, all[1].samples[1].x })
    -- a sure hit goes on with what was seen weakly in its own place, not with a surer one beside that
    all = run({ lead = 0, smooth = 0 }, { { box(100, 100, 40, weak), box(130, 120, 30) }, { box(101, 100, 40) } })
    assert.same({ 2, 2, 1 }, { #all, all[1].count, all[2].count })
  end)

  it("knows all of a frame some time later: whatever comes, nothing adds to it or changes it, or it says so", function()
    local seed = 7
    local function random(n)
      seed = (seed * 16807) % 2147483647
      return seed % n
    end
    local kept_late = 0
    for _, case in ipairs {
      { 3, 9 }, { 10, 2 }, { 30, .5 }, { 30, 1 }, { 30, 1.2 }, { 60, .1 }, { 60, 1 }, -- frames and seconds; true: nobody is seen weakly
      { 3, .5, true }, { 10, .5, true }, { 30, .5, true }, { 60, .5, true },
    } do
      local fps, wait = case[1], math.max(case[2], .5)
      local tracker = tracks.tracker { lead = 4, evidence = .6, width = 400, height = 300, gap = .5, wait = case[2] }
      local known, passed, cut = {}, 0, 0
      local function pass()
        assert.is_true(tracker.final >= passed and tracker.final <= tracker.frame)
        for frame = passed + 1, tracker.final do
          known[frame] = {}
          for k, track in ipairs(tracker:covering(frame)) do
            local s = track:at(frame)
            known[frame][k] = { track, s.x, s.y, s.width, s.height, s.angle, s.score, s.points[0] }
          end
        end
        passed = tracker.final
      end
      local n = 400
      for i = 1, n do
        if random(90) == 0 then
          tracker:cut()
          pass()
          assert.equal(i - 1, passed)
          cut = cut + 1
        end
        local list = {}
        for k = 1, 5 do -- who come and go, some at the edge, some seen weakly most of the time, some fast
          if math.floor(i / (9 * k + random(3))) % 3 > 0 then
            local weak = not case[3] and k > 2 and random(fps > 10 and 9 or 4) > 0
            local x = (80 * k + i * (k == 2 and 9 or 1)) % 400
            list[#list + 1] = box(x + random(5), k == 4 and 8 or 60 * k, 30 + random(4), {
              score = weak and .2 or .3 + random(6) / 10, weak = weak, doubted = weak and random(2) == 0,
              points = k == 1 and { x, 50, x + 9, 50, x, 60, x, 70, 0, 0, 9, 9 } or nil,
            })
          end
        end
        tracker:update((i - 1) / fps, list)
        pass()
        assert.is_true(passed >= i - math.max(wait * fps, 4) - 5, ("%d of %d at %d fps"):format(passed, i, fps))
      end
      local all = tracker:finish()
      assert.equal(n, tracker.final)
      pass()
      assert.is_true(#all > 4 and cut > 0, ("%d tracks, %d cuts"):format(#all, cut))
      local ids, late = {}, false
      for frame = 1, n do
        local want = {}
        for _, track in ipairs(all) do
          local s = track:at(frame)
          if s then
            want[#want + 1] = { track, s.x, s.y, s.width, s.height, s.angle, s.score, s.points[0] }
            ids[track.id] = true
          end
        end
        late = late or #want ~= #known[frame]
        for k, row in ipairs(want) do
          for i, v in ipairs(row) do
            local seen = known[frame][k] and known[frame][k][i]
            late = late or not (rawequal(v, seen) or v ~= v and seen ~= seen)
          end
        end
      end
      assert.equal(#all, #ids)
      assert.equal(tracker.late, late, ("%d fps, %g s"):format(fps, wait))
      kept_late = kept_late + (late and 1 or 0)
    end
    assert.is_true(kept_late > 0 and kept_late < 5, kept_late .. " of 11")
  end)

  it("gives the sample of a frame, also in a track with holes", function()
    local track = tracks.new_track "face"
    for _, frame in ipairs { 2, 3, 7, 8, 20 } do track:append().frame = frame end
    for _, frame in ipairs { 2, 3, 7, 8, 20 } do assert.equal(frame, track:at(frame).frame) end
    for _, frame in ipairs { 1, 4, 6, 9, 19, 21 } do assert.is_nil(track:at(frame)) end
    assert.is_nil(tracks.new_track("face"):at(1))
  end)
end)
