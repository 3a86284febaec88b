-- Specs of face detection: anchors and decoding on made-up networks, and every recorded answer of MediaPipe's two networks, upright and turned.
local helper = require "helper"
local lr = require "libration"
local face = require "libration.pose.face"
local json = require "libration.formats.json"

local stills = {
  ["000000000785"] = "stills/coco/000000000785.jpg", ["000000040083"] = "stills/coco/000000040083.jpg", ["000000196141"] = "stills/coco/000000196141.jpg",
  ["000000197388"] = "stills/coco/000000197388.jpg", footballers = "stills/footballers.jpg", grace_hopper = "images/grace_hopper.bmp",
}

local function missing(range)
  if not helper.shared("goldens/face/grace_hopper.full_range.json") then return "needs ../shared" end
  local name = range == "full" and "face_detection_full_range_sparse" or "face_detection_short_range"
  if not require "libration.weights".find(name) then return "needs the weights " .. name end
end

local function golden(name, range)
  return assert(json.decode(io.open(helper.shared(("goldens/face/%s.%s_range.json"):format(name, range)), "rb"):read "*a"))
end

-- Largest distance in pixels of box corners and points of one face from a recorded one, and of the score.
local function distance(f, want, w, h)
  local b = want.box
  local far = math.max(math.abs(f.x - f.width / 2 - b[1] * w), math.abs(f.y - f.height / 2 - b[2] * h),
    math.abs(f.x + f.width / 2 - (b[1] + b[3]) * w), math.abs(f.y + f.height / 2 - (b[2] + b[4]) * h))
  for k = 1, 6 do
    far = math.max(far, math.abs(f.points[2 * k - 1] - want.keypoints[k][1] * w), math.abs(f.points[2 * k] - want.keypoints[k][2] * h))
  end
  return far, math.abs(f.score - want.score)
end

-- A picture turned clockwise by quarters, pixel for pixel.
local function turned(frame, quarter)
  local h, w = frame:size(1), frame:size(2)
  local out = quarter % 2 == 1 and lr.empty({ w, h, 3 }, "u8") or lr.empty({ h, w, 3 }, "u8")
  local from, to = frame:ptr(), out:ptr()
  local first, right, down = h - 1, h, -1
  if quarter == 2 then first, right, down = w * h - 1, -1, -w elseif quarter == 3 then first, right, down = (w - 1) * h, -h, 1 end
  for y = 0, h - 1 do
    local p, q = from + y * w * 3, (first + y * down) * 3
    for x = 0, w - 1 do
      to[q], to[q + 1], to[q + 2] = p[3 * x], p[3 * x + 1], p[3 * x + 2]
      q = q + right * 3
    end
  end
  return out
end

describe("face", function()
  for _, range in ipairs { "full", "short" } do
    it("finds what MediaPipe finds, " .. range .. " range: boxes and points within .5 px, scores within 1e-3", function()
      local why = missing(range)
      if why then return pending(why) end
      local media = require "libration.media"
      -- the package was asked for .5, but its full-range graph keeps its own .6: the least recorded score is .601
      local detector, worst, off, count = face.detector { range = range, confidence = range == "full" and .6 or .5 }, 0, 0, 0
      local function compare(name, frame, want)
        local found = detector:detect(frame)
        assert.equal(#want, #found, name)
        for i, f in ipairs(found) do
          local d, s = distance(f, want[i], frame:size(2), frame:size(1))
          worst, off, count = math.max(worst, d), math.max(off, s), count + 1
        end
      end
      for name, path in pairs(stills) do compare(name, assert(media.read_picture(helper.shared("data/" .. path))), golden(name, range)[1]) end
      local source, wanted = assert(media.open(helper.shared("data/video/egoblur_face.mp4"))), golden("egoblur_face", range)
      for frame, _, index in source:each() do compare("egoblur_face " .. index, frame, wanted[index]) end
      source:close()
      io.write(("bound: faces, %s range: %d faces, %.4f px, score %.1e\n"):format(range, count, worst, off))
      assert.is_true(count > 0 and worst <= .5 and off <= 1e-3)
    end)
  end

  it("finds the same faces in pictures turned by 90, 180 and 270 degrees, within .01 px #slow", function()
    local why = missing "full"
    if why then return pending(why) end
    local detector, worst, count = face.detector { confidence = .6 }, 0, 0
    for _, name in ipairs { "000000000785", "footballers", "grace_hopper" } do
      local frame, want = assert(require "libration.media".read_picture(helper.shared("data/" .. stills[name]))), golden(name, "full")[1]
      for quarter = 1, 3 do
        local picture = turned(frame, quarter)
        local h, w, ph, pw = frame:size(1), frame:size(2), picture:size(1), picture:size(2)
        local c, s = ({ 0, -1, 0 })[quarter], ({ -1, 0, 1 })[quarter] -- turns back
        local function back(x, y)
          local u, v = x - (pw - 1) / 2, y - (ph - 1) / 2 -- pixels are counted at their places, the first at 0
          return c * u - s * v + (w - 1) / 2, s * u + c * v + (h - 1) / 2
        end
        -- the view turned alike answers to the last digit
        local found = detector:detect(picture, quarter * math.pi / 2)
        assert.equal(#want, #found, ("%s turned by %d"):format(name, 90 * quarter))
        for i, f in ipairs(found) do
          local upright = { width = f.width, height = f.height, score = f.score, points = {} }
          upright.x, upright.y = back(f.x, f.y)
          for k = 1, 11, 2 do upright.points[k], upright.points[k + 1] = back(f.points[k], f.points[k + 1]) end
          worst, count = math.max(worst, (distance(upright, want[i], w, h))), count + 1
        end
        -- and the search, which is not told of the turn, has each face as well
        local searched = detector:search(picture)
        for _, g in ipairs(want) do
          local near, size = math.huge, g.box[3] * w
          for _, f in ipairs(searched) do
            local x, y = back(f.x, f.y)
            near = math.min(near, math.max(math.abs(x - (g.box[1] + g.box[3] / 2) * w), math.abs(y - (g.box[2] + g.box[4] / 2) * h)) / size)
          end
          assert.is_true(near < .25, ("%s turned by %d: %.2f faces off"):format(name, 90 * quarter, near))
        end
      end
    end
    io.write(("bound: turned faces: %d, %.4f px\n"):format(count, worst))
    assert.is_true(count == 12 and worst <= .01)
  end)

  it("finds small faces in tiles, in pixels of the frame", function()
    local why = missing "full"
    if why then return pending(why) end
    local picture = assert(require "libration.media".read_picture(helper.shared("data/images/grace_hopper.bmp")))
    local h, w = picture:size(1), picture:size(2)
    local frame = lr.zeros({ 1200, 2000, 3 }, "u8")
    local region = require "ffi".new("lbr_region", { x = w / 2, y = h / 2, width = w, height = h, angle = 0 })
    local small = lr.empty({ 90, 77, 3 }, "u8")
    lr.core.check(lr.core.C.lbr_crop_u8(picture:ptr(), h, w, w * 3, region, 1, small:ptr(), 90, 77))
    for y = 0, 89 do require "ffi".copy(frame:ptr() + ((900 + y) * 2000 + 1500) * 3, small:ptr() + y * 77 * 3, 77 * 3) end
    local detector = face.detector {}
    assert.equal(0, #detector:search(frame, { turned = false }))
    local found = detector:search(frame, { tile = 400, turned = false })
    assert.equal(1, #found)
    local want = golden("grace_hopper", "full")[1][1].box
    assert.near(1500 + (want[1] + want[3] / 2) * 77, found[1].x, 3)
    assert.near(900 + (want[2] + want[4] / 2) * 90, found[1].y, 3)
  end)

  it("covers the frame with tiles that share a quarter, none where one is the frame", function()
    assert.same({}, face.tiles(300, 200, 300))
    for _, case in ipairs { { 1920, 1080, 640 }, { 641, 1, 640 }, { 1080, 1920, 700 }, { 10000, 30, 64 } } do
      local w, h, side = unpack(case)
      local columns, rows = {}, {}
      for _, t in ipairs(face.tiles(w, h, side)) do
        columns[t.x], rows[t.y] = true, true
        assert.is_true(side >= w or t.x >= side / 2 and t.x <= w - side / 2)
      end
      for list, length in pairs { [columns] = w, [rows] = h } do
        local at = {}
        for v in pairs(list) do at[#at + 1] = v end
        table.sort(at)
        if length > side then
          assert.near(side / 2, at[1], 1e-9)
          assert.near(length - side / 2, at[#at], 1e-9)
          for i = 2, #at do assert.is_true(at[i] - at[i - 1] <= .75 * side + 1e-9) end
        end
      end
    end
  end)

  -- A network that answers one face in the middle of every view that is brighter at its upper edge than at its lower one.
  local function upright_only(seen, width)
    return { run = function(_, input)
      local n = input:size(1)
      local boxes, scores = lr.zeros({ n, 2304, 16 }), lr.full({ n, 2304, 1 }, -50)
      for k = 0, n - 1 do
        local p = input:ptr() + k * 192 * 192 * 3
        seen.views = seen.views + 1
        if p[(3 * 192 + 96) * 3] > p[(188 * 192 + 96) * 3] then
          local row = k * 2304 + 24 * 48 + 24
          local b = boxes:ptr() + row * 16
          b[2], b[3], b[4], b[5] = width or 19.2, 38.4, 0, -19.2
          scores:ptr()[row] = 3
        end
      end
      return { boxes, scores }
    end }
  end

  it("looks at turned views only where no upright face is found, and turns the answer back", function()
    for quarter = 0, 3 do
      local seen = { views = 0 }
      local detector = face.detector { network = upright_only(seen), batch = 2 }
      local frame = lr.zeros({ 100, 100, 3 }, "u8")
      for y = 0, 99 do
        for x = 0, 99 do
          local bright = ({ [0] = y < 50, x >= 50, y >= 50, x < 50 })[quarter]
          frame:ptr()[(y * 100 + x) * 3] = bright and 250 or 5
        end
      end
      local found = detector:search(frame)
      assert.equal(quarter == 0 and 2 or 8, seen.views) -- the frame, and the frame with its rim
      assert.equal(1, #found, "turn " .. tostring(quarter))
      local f = found[1]
      assert.near(quarter * math.pi / 2, f.angle, 1e-9)
      assert.near(10, f.width, 1e-4)
      assert.near(20, f.height, 1e-4)
      -- the first point lies a tenth of the side above the cell's centre before turning
      local dx, dy = f.points[1] - f.x, f.points[2] - f.y
      assert.near(({ [0] = 0, 10, 0, -10 })[quarter], dx, 1e-4)
      assert.near(({ [0] = -10, 0, 10, 0 })[quarter], dy, 1e-4)
      assert.equal(0, #detector:search(lr.zeros({ 8, 8, 3 }, "u8")))
    end
  end)

  it("looks closer at the left and right edge, and takes only faces that it cuts", function()
    local frame, seen = lr.zeros({ 240, 320, 3 }, "u8"), { views = 0 }
    for y = 0, 119 do
      for x = 0, 319 do frame:ptr()[(y * 320 + x) * 3] = 250 end
    end
    local detector = face.detector { network = upright_only(seen, 60), batch = 3 }
    local found = detector:edges(frame, 160)
    assert.is_true(seen.views >= 12 and #found >= 2)
    for _, f in ipairs(found) do assert.is_true(math.min(f.x, 320 - f.x) < f.width) end
    assert.equal(0, #face.detector { network = upright_only { views = 0 } }:edges(frame, 160)) -- too narrow
    assert.equal(0, #detector:edges(lr.zeros({ 8, 8, 3 }, "u8")))
    local asked = 0
    local function ask(self, picture, views, least)
      asked = asked + #views
      for _, view in ipairs(views) do assert.is_true(view.rim > 0 and picture:size(2) == 320) end
      return self:look(picture, views, least)
    end
    assert.equal(#found, #detector:edges(frame, 160, ask))
    assert.is_true(asked >= 12)
  end)

  it("finds a face that the edge cuts in half, by its mirror image", function()
    local why = missing "full"
    if why then return pending(why) end
    local picture = assert(require "libration.media".read_picture(helper.shared("data/images/grace_hopper.bmp")))
    local want = golden("grace_hopper", "full")[1][1].box
    local h, w = picture:size(1), picture:size(2)
    local middle = math.floor((want[1] + want[3] / 2) * w)
    local half = lr.empty({ h, middle, 3 }, "u8")
    for y = 0, h - 1 do require "ffi".copy(half:ptr() + y * middle * 3, picture:ptr() + y * w * 3, middle * 3) end
    local found = face.detector { confidence = .5 }:search(half, { turned = false })
    assert.equal(1, #found)
    assert.near(middle, found[1].x, .15 * found[1].width)
    assert.near((want[2] + want[4] / 2) * h, found[1].y, .2 * found[1].height)
  end)

  it("merges views: of faces that share more than half of the smaller box the best stays", function()
    local function at(x, size, score) return { x = x, y = 50, width = size, height = size, angle = 0, score = score } end
    local kept = face.merge { { at(50, 20, .6), at(200, 20, .9) }, { at(54, 40, .8), at(100, 10, .3) } }
    assert.same({ 200, 54, 100 }, { kept[1].x, kept[2].x, kept[3].x })
  end)

  it("gives the weaker faces apart, those beside the others alone", function()
    local detector, frame = face.detector { network = { run = function() return {} end }, confidence = .5 }, lr.zeros({ 100, 400, 3 }, "u8")
    local function at(x, score) return { x = x, y = 50, width = 20, height = 20, angle = 0, score = score, points = {} } end
    local asked = {}
    local function ask(_, _, views, least)
      asked[#asked + 1] = least
      local lists = {}
      for i in ipairs(views) do lists[i] = i <= 2 and { at(50, .9), at(52, .4), at(200, .55), at(300, .3) } or {} end
      return lists
    end
    local found, weaker = detector:search(frame, { turned = false, ask = ask, weak = .25 })
    assert.same({ .25 }, asked)
    -- .55 is enough for the whole frame, not for the view with a rim
    assert.same({ 2, 50, 200 }, { #found, found[1].x, found[2].x })
    assert.same({ 1, 300 }, { #weaker, weaker[1].x })
    found, weaker = detector:search(frame, { turned = false, ask = ask })
    assert.same({ 2, 0 }, { #found, #weaker })
    assert.same({ .25, .5 }, asked)
    found, weaker = detector:edges(frame, 160, function(...)
      local lists = ask(...)
      lists[1] = { at(4, .7), at(395, .5), at(200, .9) }
      return lists
    end, .25)
    assert.same({ 1, 4, 1, 395 }, { #found, found[1].x, #weaker, weaker[1].x })
  end)

  it("has an opinion of faces that another detector found: high of faces, low of what is none", function()
    local why = missing "short"
    if why then return pending(why) end
    local detector, count = face.detector { range = "short" }, 0
    for _, name in ipairs { "footballers", "000000000785", "grace_hopper" } do
      local picture = assert(require "libration.media".read_picture(helper.shared("data/" .. stills[name])))
      local h, w, faces = picture:size(1), picture:size(2), {}
      for i, g in ipairs(golden(name, "full")[1]) do
        faces[i] = { x = (g.box[1] + g.box[3] / 2) * w, y = (g.box[2] + g.box[4] / 2) * h, width = g.box[3] * w, height = g.box[4] * h, angle = 0 }
      end
      local n = #faces
      count = count + n
      -- the same boxes where there is sky, grass or a shirt
      for i = 1, n do faces[n + i] = { x = faces[i].x, y = faces[i].y + 2.5 * faces[i].height, width = faces[i].width, height = faces[i].height, angle = 0 } end
      local opinions = detector:opinions(picture, faces)
      for i = 1, n do
        assert.is_true(opinions[i] > .5, ("%s: %.2f of face %d"):format(name, opinions[i], i))
        assert.is_true(opinions[n + i] < opinions[i] - .2, ("%s: %.2f beside face %d"):format(name, opinions[n + i], i))
      end
    end
    assert.is_true(count >= 3)
    assert.same({}, detector:opinions(lr.zeros({ 8, 8, 3 }, "u8"), {}))
    assert.same({ 0 }, detector:opinions(lr.zeros({ 80, 80, 3 }, "u8"), { { x = 2, y = 70, width = 30, height = 30, angle = 0 } }))
  end)

  it("refuses unknown options, ranges and networks by name", function()
    helper.refuses("unknown option rnage; there are batch, confidence", face.detector, { rnage = "full" })
    helper.refuses("range is far, want full, short", face.detector, { range = "far" })
    helper.refuses("confidence is a string, want a number", face.detector, { confidence = "x" })
    local detector = face.detector { network = { run = function() return {} end } }
    helper.refuses("no outputs [B,2304,16] and [B,2304,1]", detector.detect, detector, lr.zeros({ 8, 8, 3 }, "u8"))
  end)
end)
