-- Specs of the anonymiser's sidecar: what is written reads back to the same bytes, a wrong edit is refused by line and field; masks of samples, outlines of persons.
local helper = require "helper"
require "libration"
local files = require "libration.files"
local masks = require "libration.pose.masks"
local sidecar = require "libration.pose.sidecar"
local tracks = require "libration.pose.tracks"

local POINTS = { 90, 95, 110, 95, 100, 101.5, 100, 112, 82, 98, 118, 98 }

local function plan_of()
  local track, other = tracks.new_track "face", tracks.new_track "person"
  for i = 1, 20 do
    local s = track:append()
    s.frame, s.time, s.x, s.y, s.width, s.height, s.score = i + 3, i / 25, 100 + i / 3, 50.126, 40, 41, .87654
    if i % 2 == 0 then
      for k = 1, 12 do s.points[k - 1] = POINTS[k] end
    end
  end
  local s = other:append()
  s.frame, s.time, s.x, s.y, s.width, s.height, s.angle, s.score = 7, .5, -20, 10, 300, 500, .25, 0
  other.outlines[7] = "-5,0 20.5,0 20,90;40,50 60,50 60,80 40,80"
  track.id, other.id, other.keep, track.style = 1, 2, true, "box"
  return {
    input = { file = 'a "b"\\ü.mp4', frames = 100, width = 640, height = 480, sha256 = ("0"):rep(64) },
    settings = { mask = "face", style = "mosaic", margin = ".3", crf = 18, feather = 0 }, blank = { 9 },
    regions = { { mask = "always", points = { { 1, 2 }, { 30, 2 }, { 30, 40.5 } } } }, tracks = { track, other },
  }
end

describe("sidecar", function()
  it("rounds a sample to what is read back of it", function()
    local path, plan = files.temporary_folder() .. "/plan.json", plan_of()
    local track, seed = tracks.new_track "face", 5
    local function random(most)
      seed = (seed * 16807) % 2147483647
      return (seed / 2147483647 - .5) * 2 * most
    end
    for i = 1, 4000 do
      local s = track:append()
      local tie = i % 3 == 0 -- half between two that can be written
      local function number(most, parts) return tie and math.floor(random(most) * parts) / parts + .5 / parts or random(most) end
      s.frame, s.time, s.score, s.angle = i, number(9000, 64), math.abs(random(1)), i % 5 == 0 and 0 or number(7, 1e4)
      s.x, s.y, s.width, s.height = number(4000, 4), i == 7 and -.001 or number(4000, 100), math.abs(number(900, 8)) + .5, math.abs(number(900, 100)) + .5
      for k = 0, 11 do s.points[k] = (i % 4 == 0 or k > 9 and i % 2 == 0) and 0 / 0 or number(4000, 10) end
      if i % 4 == 0 then s.points[5] = 7 end -- of a network that does not know the first
    end
    track.id, plan.tracks, plan.input.frames = 1, { track }, 4000
    sidecar.write(path, plan)
    local read = assert(sidecar.read(path)).tracks[1]
    for i = 0, track.count - 1 do
      local s, r = track.samples[i], read.samples[i]
      sidecar.round(s)
      for _, name in ipairs { "frame", "time", "x", "y", "width", "height", "angle", "score" } do
        assert.is_true(s[name] == r[name] and 1 / s[name] == 1 / r[name], ("sample %d, %s: %.9g, %.9g"):format(i, name, s[name], r[name]))
      end
      for k = 0, 11 do assert.is_true(s.points[k] == r.points[k] or s.points[k] ~= s.points[k] and r.points[k] ~= r.points[k], ("sample %d, point %d"):format(i, k)) end
    end
    files.remove(files.folder(path))
  end)

  local folder, path
  before_each(function()
    folder = files.temporary_folder()
    path = folder .. "/x.anonymised.json"
  end)
  after_each(function() files.remove(folder) end)

  it("reads back what it wrote, and writes the same bytes again", function()
    sidecar.write(path, plan_of())
    local plan = assert(sidecar.read(path))
    assert.equal('a "b"\\ü.mp4', plan.input.file)
    assert.equal(2, #plan.tracks)
    local s = plan.tracks[1]:at(5)
    assert.near(100.67, s.x, 1e-3)
    assert.near(.877, s.score, 1e-6)
    assert.near(101.5, s.points[5], 1e-5)
    assert.is_true(plan.tracks[1]:at(4).points[0] ~= plan.tracks[1]:at(4).points[0])
    assert.is_true(plan.tracks[2].keep)
    assert.equal("box", plan.tracks[1].style)
    assert.equal("-5,0 20.5,0 20,90;40,50 60,50 60,80 40,80", plan.tracks[2].outlines[7])
    assert.same({ 9 }, plan.blank)
    local before = files.read(path)
    sidecar.write(path, plan)
    assert.equal(before, files.read(path))
  end)

  it("keeps points of which some are not known", function()
    local plan = plan_of()
    for i = 0, 19 do
      for k = 8, 11 do plan.tracks[1].samples[i].points[k] = 0 / 0 end
    end
    sidecar.write(path, plan)
    local before = files.read(path)
    assert.truthy(before:find('"points": [90.0, 95.0, 110.0, 95.0, 100.0, 101.5, 100.0, 112.0, null, null, null, null]', 1, true))
    plan = assert(sidecar.read(path))
    local points = plan.tracks[1]:at(5).points
    assert.is_true(points[7] == 112 and points[8] ~= points[8] and points[11] ~= points[11])
    sidecar.write(path, plan)
    assert.equal(before, files.read(path))
  end)

  it("is JSON that others read too, also after another program has laid it out anew", function()
    local json = require "libration.formats.json"
    sidecar.write(path, plan_of())
    local value = assert(json.decode(files.read(path)))
    assert.equal(20, #value.tracks[1].samples)
    setmetatable(value.blank, { list = true })
    files.write(path, json.encode(value, true))
    local plan = assert(sidecar.read(path))
    assert.equal(20, plan.tracks[1].count)
    assert.near(.25, plan.tracks[2]:at(7).angle, 1e-6)
  end)

  it("names file, line and field of a wrong edit", function()
    sidecar.write(path, plan_of())
    local good = files.read(path)
    for _, case in ipairs {
      { '"x": 100.67', '"x": "left"', "line 10, tracks[1].samples[2].x: '\"left\"', want a number" },
      { '"width": 40.00', '"width": -3', "line 9, tracks[1].samples[1].width: -3, want at least 0.01" },
      { '"x": 100.67', '"xx": 100.67', "line 10, tracks[1].samples[2].xx: unknown field; known are angle, confidence, frame, height" },
      { '"frame": 5, ', "", "line 10, tracks[1].samples[2]: the field 'frame' is missing" },
      { '"frame": 5,', '"frame": 2,', "line 10, tracks[1].samples[2].frame: 2 after 4, want frames in order" },
      { '"frame": 7, "time": 0.5', '"frame": 101, "time": 0.5', "tracks[2].samples[1].frame: 101, want at most 100" },
      { '"frame": 7, "time": 0.5', '"frame": 7.5, "time": 0.5', "tracks[2].samples[1].frame: 7.5, want a whole number" },
      { '"id": 2', '"id": 1', "tracks[2].id: 1 stands twice" },
      { '"keep": true', '"keep": yes', "tracks[2].keep: 'yes', want true or false" },
      { '"style": "box"', '"style": "smoke"', "tracks[1].style: 'smoke', want blur, mosaic or box" },
      { '"mask":"always"', '"mask":"often"', "line 6, regions[1].mask: 'often', want always or never" },
      { "[1,2],[30,2],", "[30,2],", "regions[1].points: a polygon of 2 corners" },
      { "[9]", "[0]", "line 5, blank[1]: 0, want at least 1" },
      { "95.0, 100.0", "95.0, 1e999", "points[5]: 1e999, want at most 1000000" },
      { "libration anonymisation", "something else", 'line 2, format: want "libration anonymisation"' },
      { '"version": 1', '"version": 2', "line 2, version: 2, want at most 1" },
      { "]\n}\n$", "]\n", "'the end of the file'", plain = "the end of the file, want ',' or '}'" },
      { "]\n}\n$", "]\n}\nmore", "line 35: 'more' after the end" },
      { "-5,0 20.5,0 20,90", "-5,0 20.5,0", "tracks[2].samples[1].outline: a polygon of 2 corners, want at least 3" },
      { "20,90", "20,1e9", "tracks[2].samples[1].outline: '20,1e9', want points such as 12,30 in pixels" },
      { "a \\\"b", "a \\x", "input.file: unknown escape \\x" },
    } do
      local from = case[1]:find "%$$" and case[1] or case[1]:gsub("%p", "%%%0")
      local wrong, n = good:gsub(from, (case[2]:gsub("%%", "%%%%")), 1)
      assert.equal(1, n, case[1])
      files.write(path, wrong)
      local plan, err = sidecar.read(path)
      assert.is_nil(plan)
      assert.is_true(err:find(path, 1, true) == 1 and err:find(case.plain or case[3], 1, true) ~= nil and not err:find "\n", err)
    end
  end)

  it("answers cut and flipped bytes with one line or a plan, and never hangs", function()
    sidecar.write(path, plan_of())
    local good, state = files.read(path), 12345
    local function random(n)
      state = (state * 1103515245 + 12345) % 2147483648
      return math.floor(state / 65536) % n
    end
    for i = 1, helper.full() and 2000 or 200 do
      local at = random(#good) + 1
      local text = i % 3 == 0 and good:sub(1, at) or good:sub(1, at - 1) .. string.char(random(256)) .. good:sub(at + 1)
      files.write(path, text)
      local plan, err = sidecar.read(path)
      assert.is_true(plan ~= nil or type(err) == "string" and not err:find "\n" and err:find(path, 1, true) == 1, tostring(err))
    end
    files.write(path, ("["):rep(100000))
    helper.refuses("want '{'", function() assert(sidecar.read(path)) end)
    files.write(path, '{"regions": ' .. ("["):rep(100000))
    helper.refuses("want '{'", function() assert(sidecar.read(path)) end)
  end)

  it("reads a file of regions alone", function()
    files.write(path, '[{"mask": "never", "points": [[0, 0], [10, 0], [10, 10]]}]')
    assert.equal("never", assert(sidecar.read_regions(path))[1].mask)
    files.write(path, '[{"mask": "never",\n "points": [[0, 0], [10], [10, 10]]}]')
    local _, err = sidecar.read_regions(path)
    assert.is_truthy(err:find("line 2, [1].points[2]: 1 numbers, want 2", 1, true))
  end)
end)

describe("masks", function()
  local margin = masks.margin "0.3"
  local function sample(points, more)
    local s = tracks.new_track("face"):append()
    s.frame, s.x, s.y, s.width, s.height = 1, 100, 100, 40, 40
    for k, v in pairs(more or {}) do s[k] = v end
    for k = 1, points and 12 or 0 do s.points[k - 1] = points[k] end
    return s
  end

  -- POINTS turned clockwise about (100, 100)
  local function turned(angle)
    local out, c, s = {}, math.cos(angle), math.sin(angle)
    for k = 1, 11, 2 do
      local x, y = POINTS[k] - 100, POINTS[k + 1] - 100
      out[k], out[k + 1] = 100 + c * x - s * y, 100 + s * x + c * y
    end
    return out
  end

  it("follow the head's turn, for every angle", function()
    for _, what in ipairs { "eyes", "face", "head" } do
      for angle = -3, 3, .5 do
        local m = masks.of(sample(turned(angle)), "face", what, margin)
        assert.near(math.cos(angle), math.cos(m.angle), 1e-4)
        assert.near(math.sin(angle), math.sin(m.angle), 1e-4)
      end
    end
  end)

  it("cover the box of the face with its margin; the head covers the face", function()
    local f, h = masks.of(sample(POINTS), "face", "face", margin), masks.of(sample(POINTS), "face", "head", margin)
    assert.equal("ellipse", f.shape)
    assert.equal("box", h.shape)
    -- corners of the detector's box lie inside the head's box even without its corners, its sides' middles inside the face's ellipse
    local function within(m, x, y) return ((x - m.x) / (m.width / 2)) ^ 2 + ((y - m.y) / (m.height / 2)) ^ 2 <= 1 end
    for _, p in ipairs { { 80, 100 }, { 120, 100 }, { 100, 80 }, { 100, 120 } } do assert.is_true(within(f, p[1], p[2])) end
    for _, p in ipairs { { 80, 80 }, { 120, 80 }, { 80, 120 }, { 120, 120 } } do assert.is_true(within(h, p[1], p[2])) end
    assert.is_true(h.width > f.width and h.height > f.height)
  end)

  it("cover the eyes by a bar through both, wider than they are apart, and a seen-from-the-side face by the box's width", function()
    local m = masks.of(sample(POINTS), "face", "eyes", margin)
    assert.equal("box", m.shape)
    assert.near(100, m.x, 1e-4)
    assert.near(95, m.y, 1e-4)
    assert.is_true(m.width >= 40 and m.height >= 12 and m.height < 40)
    local side = masks.of(sample { 99, 95, 100, 95, 90, 101, 99, 112, 110, 98, 112, 98 }, "face", "eyes", margin)
    assert.is_true(side.width >= 40)
    assert.is_true(masks.of(sample(), "face", "eyes", margin).y < 100)
  end)

  it("cover other kinds by their box, pixels of margin on each side", function()
    local m = masks.of(sample(nil, { width = 100, height = 300 }), "person", "person", masks.margin "12px")
    assert.same({ "box", 124, 324 }, { m.shape, m.width, m.height })
    assert.near(130, masks.of(sample(nil, { width = 100, height = 300 }), "plate", "plate", masks.margin "1.2").width, 1e-6)
    for _, wrong in ipairs { "x", "-1", "11", "nan", "1px1", "", "12 pixels" } do assert.is_nil((masks.margin(wrong))) end
  end)

  it("say which share of a detection they cover", function()
    local list = { { shape = "ellipse", x = 50, y = 50, width = 40, height = 80, angle = math.pi / 2 }, { shape = "box", x = 200, y = 50, width = 20, height = 20, angle = 0 },
      { shape = "polygon", points = { 300, 0, 400, 0, 300, 100 } } }
    local function at(x, y, size) return masks.covered(list, { x = x, y = y, width = size, height = size }) end
    assert.equal(1, at(50, 50, 20))
    assert.equal(1, at(80, 50, 5)) -- turned: it reaches 40 pixels to the side, 20 down
    assert.equal(0, at(50, 75, 5))
    assert.near(.25, at(210, 60, 20), .1)
    assert.equal(1, at(310, 10, 10))
    assert.equal(0, at(390, 90, 10))
  end)

  it("of a frame: kept tracks and what lies in a never-region are left, always-regions are covered", function()
    local plan = plan_of()
    plan.mask, plan.margin = "face", margin
    assert.equal(2, #masks.of_frame(plan, 5))
    assert.equal("box", masks.of_frame(plan, 5)[1].style)
    assert.equal("polygon", masks.of_frame(plan, 50)[1].shape)
    plan.regions[2] = { mask = "never", points = { { 90, 40 }, { 130, 40 }, { 130, 60 }, { 90, 60 } } }
    assert.equal(1, #masks.of_frame(plan, 5))
    plan.tracks[2].keep = false
    local list = masks.of_frame(plan, 7) -- a person's outline in place of the box
    assert.same({ "polygon", "polygon", "polygon" }, { list[1].shape, list[2].shape, list[3].shape })
    assert.same({ 40, 50, 60, 50, 60, 80, 40, 80 }, list[2].points)
    plan.tracks[2].keep, plan.mask = true, "eyes"
    list = masks.of_frame(plan, 7, true) -- what is known: kept ones, never-regions, and faces whole
    assert.equal(5, #list)
    assert.equal("ellipse", list[1].shape)
  end)
end)

describe("silhouette", function()
  local ffi = require "ffi"
  local silhouette = require "libration.pose.silhouette"
  local mask = require "libration.media".mask
  local lr = require "libration"
  local logits = ffi.new("float[65536]")
  local head = { x = 130, y = 60, width = 12 }

  -- Landmarks on a line downwards from the head, and a body that the segmentation sees: a box of the region, in shares of its side.
  local function outline(angle, margin, x0, y0, x1, y1)
    local points = ffi.new("float[99]")
    for i = 0, 32 do points[3 * i], points[3 * i + 1] = 130, 60 + 2 * i end
    for j = 0, 255 do
      for i = 0, 255 do logits[j * 256 + i] = i >= 256 * x0 and i < 256 * x1 and j >= 256 * y0 and j < 256 * y1 and 3 or -9 end
    end
    return silhouette.outline(logits, { x = 100, y = 90, width = 128, angle = angle }, points, head, margin)
  end

  local function covered(text)
    local frame, list = lr.full({ 200, 200, 3 }, 200, "u8"), {}
    for i, flat in ipairs(assert(silhouette.read(text))) do list[i] = { shape = "polygon", points = flat } end
    mask.apply(frame, list, { style = "box" })
    return function(x, y) return frame:ptr()[(math.floor(y) * 200 + math.floor(x)) * 3] == 0 end, #list
  end

  it("holds what the segmentation calls body, turned as the region is, with the margin and no more than a few cells beyond", function()
    for _, angle in ipairs { 0, .5, -2 } do
      local at, n = covered(outline(angle, 4, .3, .25, .5, .8))
      assert.is_true(n >= 1)
      local c, s = math.cos(angle), math.sin(angle)
      for u = -.19, -.01, .03 do
        for v = -.24, .29, .05 do
          local x, y = 128 * u, 128 * v
          assert.is_true(at(100 + c * x - s * y, 90 + s * x + c * y), ("%g %g %g"):format(angle, u, v))
        end
      end
      for _, p in ipairs { { -.31, 0 }, { -.1, -.36 }, { -.1, .41 } } do
        local x, y = 128 * p[1], 128 * p[2]
        local px, py = 100 + c * x - s * y, 90 + s * x + c * y
        if math.abs(px - 130) > 20 then assert.is_false(at(px, py), ("%g %g %g"):format(angle, p[1], p[2])) end
      end
    end
  end)

  it("holds the limbs and the head round the landmarks where the segmentation sees nothing", function()
    local at, n = covered(outline(0, 0, 0, 0, 0, 0))
    assert.equal(1, n)
    for y = 54, 122, 4 do assert.is_true(at(130, y), "at " .. y) end
    assert.is_false(at(160, 90))
    local parts = select(2, covered(outline(0, 0, .05, .05, .2, .2)))
    assert.equal(2, parts)
  end)

  it("is the same text again, and text that is no outline is refused", function()
    assert.equal(outline(.3, 5, .2, .2, .6, .9), outline(.3, 5, .2, .2, .6, .9))
    for text, want in pairs { ["1,2 3,4"] = "a polygon of 2 corners", ["1,2 3,x 4,5"] = "'3,x'", [""] = "0 corners", ["0,0 1,1 2,0;"] = "0 corners",
      ["0,0 1,1 2,2000001"] = "2000001",
      [("1,1 "):rep(4097)] = "more than 4096" } do
      local list, why = silhouette.read(text)
      assert.is_nil(list)
      assert.is_truthy(why:find(want, 1, true), why)
    end
  end)
end)
