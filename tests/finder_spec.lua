-- Specs of the finder's judgement: faces that are not sure are asked of another detector, weak ones go on with tracks, and no face that MediaPipe knows is lost by that.
local helper = require "helper"
local finder = require "libration.pose.finder"
local json = require "libration.formats.json"
local lr = require "libration"

local function at(x, score) return { x = x, y = 50, width = 20, height = 20, angle = 0, score = score, points = {} } end

-- A finder of faces with these answers; opinions: of the other detector, by x.
local function made(found, weaker, opinions, options)
  local asked, o = {}, { faces = {}, other = {}, detector = "face", edges = false, turned = false }
  function o.faces.search() return found, weaker end
  function o.faces.look() return { found } end
  function o.other.opinions(_, _, faces)
    local list = {}
    for i, f in ipairs(faces) do
      asked[f.x] = (asked[f.x] or 0) + 1
      list[i] = opinions[f.x] or 0
    end
    return list
  end
  for name, value in pairs(options or {}) do o[name] = value end
  return finder.new(o), asked
end

local function by_place(list)
  local places = {}
  for _, d in ipairs(list) do places[d.x] = d end
  return places
end

describe("finder", function()
  local frame = lr.zeros({ 100, 600, 3 }, "u8")

  it("believes sure faces at once, and others where the mean of both detectors is enough", function()
    local f, asked = made({ at(50, .9), at(150, .6), at(250, .5), at(350, .4), at(450, .35) }, {}, { [250] = .2, [350] = .15, [450] = .7 })
    local found = by_place(f:look(frame))
    assert.same({ [250] = 1, [350] = 1, [450] = 1 }, asked)
    assert.same({ .9, .6 }, { found[50].score, found[150].score })
    assert.near(.35, found[250].score, 1e-9)
    assert.near(.525, found[450].score, 1e-9)
    for _, x in ipairs { 50, 150, 250, 450 } do assert.is_nil(found[x].weak) end
    -- what falls below is no more than weak
    assert.near(.275, found[350].score, 1e-9)
    assert.is_true(found[350].weak and found[350].doubted and not found[250].doubted)
    -- round a detection of a moment ago the same is asked
    f, asked = made({ at(50, .5), at(150, .5) }, {}, { [50] = .5 })
    found = by_place(f:look(frame, { index = 1, near = { at(50, .5), at(150, .5) } }))
    assert.is_true(found[50] ~= nil and found[150] == nil and asked[50] == 1 and asked[150] == 1)
  end)

  it("keeps in mind what is doubted in turned views, too", function()
    local f = made({}, {}, {}, { turned = true })
    f:prepare()
    function f.faces.search(_, _, o) return o.upright == false and { at(50, .4) } or {}, {} end
    local found = f:look(frame)
    assert.equal(1, #found)
    assert.is_true(found[1].weak and found[1].doubted)
  end)

  it("hands on weak faces beside the others, none of them to bodies, and none in a second look or for persons", function()
    local seen
    local people = { reset = function() end, process = function(_, _, faces)
      seen = #faces
      return {}
    end }
    local f = made({ at(50, .9) }, { at(55, .25), at(300, .2) }, {}, { detector = "auto", people = people })
    local found = by_place(f:look(frame))
    assert.is_true(found[50] ~= nil and found[55] == nil and found[300].weak)
    assert.equal(1, seen)
    assert.equal(1, #made({ at(50, .9) }, { at(300, .2) }, {}, { alone = true }):look(frame))
    assert.equal(1, #made({ at(50, .9) }, { at(300, .2) }, {}, { target = "person" }):look(frame))
  end)

  it("looks again in tiles of 160 pixels or a twelfth of the longer side, and a quarter of it where there are few pixels", function()
    for _, case in ipairs { { 340, 256, 85 }, { 639, 480, 160 }, { 640, 480, 160 }, { 1080, 1920, 160 }, { 3840, 2160, 320 }, { 8, 3, 2 } } do
      assert.equal(case[3], finder.close_tile(case[1], case[2]))
    end
  end)

  it("loads its networks when it is told to or first looks, what is seldom asked at the first question", function()
    local face, loaded, asked = require "libration.pose.face", {}, 0
    local before = face.detector
    function face.detector(options)
      loaded[#loaded + 1] = options
      return { search = function() return {}, {} end, look = function() return {} end }
    end
    finally(function() face.detector = before end)
    local f = finder.new { detector = "face", edges = false, turned = false }
    assert.equal(0, #loaded)
    f:prepare()
    assert.equal(2, #loaded)
    assert.is_nil(loaded[1].late)
    assert.is_true(loaded[2].late)
    f:look(frame)
    assert.equal(2, #loaded)
    local late = require "libration.graph".later(function()
      asked = asked + 1
      return { run = function(_, x) return { y = x } end }
    end)
    assert.equal(0, asked)
    assert.equal(7, late:run(7).y)
    assert.equal(8, late:run(8).y)
    assert.equal(1, asked)
  end)

  it("has every face that MediaPipe finds in the photos, by either of its networks", function()
    for _, name in ipairs { "face_detection_full_range_sparse", "face_detection_short_range" } do
      if not require "libration.weights".find(name) then return pending("needs the weights " .. name) end
    end
    if not helper.shared "goldens/face/footballers.full_range.json" then return pending "needs ../shared" end
    local f, count = finder.new { detector = "face" }, 0
    for name, path in pairs {
      ["000000000785"] = "stills/coco/000000000785.jpg", ["000000040083"] = "stills/coco/000000040083.jpg", ["000000196141"] = "stills/coco/000000196141.jpg",
      ["000000197388"] = "stills/coco/000000197388.jpg", footballers = "stills/footballers.jpg", grace_hopper = "images/grace_hopper.bmp",
    } do
      local picture = assert(require "libration.media".read_picture(helper.shared("data/" .. path)))
      local h, w, sure = picture:size(1), picture:size(2), {}
      for _, d in ipairs(f:look(picture)) do
        if not d.weak then sure[#sure + 1] = d end
      end
      for _, range in ipairs { "full", "short" } do
        for _, g in ipairs(assert(json.decode(io.open(helper.shared(("goldens/face/%s.%s_range.json"):format(name, range)), "rb"):read "*a"))[1]) do
          local near, size = math.huge, g.box[3] * w
          for _, d in ipairs(sure) do
            near = math.min(near, math.max(math.abs(d.x - (g.box[1] + g.box[3] / 2) * w), math.abs(d.y - (g.box[2] + g.box[4] / 2) * h)) / size)
          end
          assert.is_true(near < .5, ("%s, %s range: %.2f faces off"):format(name, range, near))
          count = count + 1
        end
      end
    end
    assert.is_true(count >= 5, count)
  end)
end)
