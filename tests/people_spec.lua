-- Specs of finding every person: made-up detector and landmark networks for following, dropping and faces; the recorded stills for real ones.
local ffi = require "ffi"
local helper = require "helper"
local lr = require "libration"
local face = require "libration.pose.face"
local people = require "libration.pose.people"

-- A landmarker whose detector sees bodies at the places given, and whose landmark network agrees where agrees(rect) says so.
local function landmarker(script)
  local self = { asked = 0 }
  function self.search(_, _, views)
    local lists = {}
    for i, view in ipairs(views) do
      lists[i] = {}
      for _, p in ipairs(view.side and {} or script.bodies) do
        if p[3] >= view.least then table.insert(lists[i], { 0, 0, 0, 0, p[1], p[2], p[1], p[2] - 40, 0, 0, 0, 0, p[3] }) end
      end
    end
    return lists
  end
  local function mark(frame, rect)
    self.asked = self.asked + 1
    local h, w = frame:size(1), frame:size(2)
    if script.agrees and not script.agrees(rect[0] * w, rect[1] * h) then return nil, .1 end
    local pose = { landmarks = ffi.new("float[195]") }
    local function put(i, x, y) pose.landmarks[5 * i], pose.landmarks[5 * i + 1], pose.landmarks[5 * i + 3] = rect[0] + x / w, rect[1] + y / h, .9 end
    for i = 0, 10 do put(i, (i % 3 - 1) * 2, -34) end
    for i = 11, 22 do put(i, i % 2 == 1 and 8 or -8, -24) end
    for i = 23, 32 do put(i, i % 2 == 1 and 5 or -5, (i - 23) * 3) end
    put(33, 0, 0)
    put(34, 0, -40)
    return pose, .95
  end
  function self.marks(_, at, rects)
    local poses, flags = {}, {}
    for i, rect in ipairs(rects) do
      local pose, flag = mark(at, rect)
      poses[i], flags[i] = pose or false, flag
    end
    return poses, flags
  end
  return self
end

local frame = lr.full({ 200, 200, 3 }, 90, "u8")

describe("people", function()
  it("gives every person that the detector sees, each with a head above the body", function()
    local found = people.finder { landmarker = landmarker { bodies = { { 40, 100, .9 }, { 100, 100, .8 }, { 160, 100, .6 } } } }:process(frame)
    assert.equal(3, #found)
    for _, p in ipairs(found) do
      assert.is_true(p.head.y < p.y and p.head.width > 5 and p.y - p.height / 2 < p.head.y and p.x - p.width / 2 < p.head.x)
      assert.equal(12, #p.head.points)
    end
  end)

  it("follows whom the detector loses, and lets go of who was never seen again", function()
    local script = { bodies = { { 60, 100, .9 } } }
    local finder = people.finder { landmarker = landmarker(script) }
    assert.equal(1, #finder:process(frame))
    script.bodies = {}
    for _ = 1, 30 do assert.equal(1, #finder:process(frame)) end
    for _ = 1, 3 do finder:process(frame) end
    assert.equal(0, #finder:process(frame))
    script.bodies = { { 60, 100, .9 } }
    assert.equal(1, #finder:process(frame))
    finder:reset()
    script.bodies = {}
    assert.equal(0, #finder:process(frame))
  end)

  it("follows somebody from where he was known, where the landmark network does not answer in the detector's own region", function()
    local script = { bodies = { { 60, 100, .9 } } }
    local finder = people.finder { landmarker = landmarker(script) }
    finder:process(frame)
    script.bodies, script.agrees = { { 70, 100, .9 } }, function(x) return math.abs(x - 60) < 5 end
    local found = finder:process(frame, nil, { steps = 5 })
    assert.equal(1, #found)
    assert.is_truthy(found[1].landmarks)
    assert.is_true(math.abs(found[1].head.x - 60) < 5)
    script.agrees = function() return false end
    found = finder:process(frame, nil, { steps = 5 })
    assert.equal(1, #found)
    assert.is_nil(found[1].landmarks)
  end)

  it("looks between two looks for who was there at the first alone", function()
    local script = { bodies = { { 60, 100, .9 } } }
    local finder = people.finder { landmarker = landmarker(script) }
    local head = finder:process(frame)[1].head
    script.bodies, script.agrees = {}, function() return false end
    assert.equal(0, #finder:process(frame, nil, { steps = 5 }))
    script.agrees = nil
    assert.equal(1, #finder:process(frame, nil, { steps = 3, near = { head } }))
    assert.equal(0, #finder:process(frame, nil, { steps = 3, near = { { x = head.x + 90, y = head.y, width = 10, height = 10 } } }))
    assert.equal(0, #finder:process(frame, nil, { steps = 5 })) -- he is not followed any more,
    assert.equal(0, #finder:process(frame, nil, { steps = 3, near = { head } })) -- and a look later gone
  end)

  it("does not count a person twice whom it follows and the detector sees", function()
    local finder = people.finder { landmarker = landmarker { bodies = { { 60, 100, .9 } } } }
    for _ = 1, 3 do assert.equal(1, #finder:process(frame)) end
  end)

  it("believes a sure detection against the landmark network, a weak one not", function()
    local function none() return false end
    local found = people.finder { confidence = .3, landmarker = landmarker { bodies = { { 60, 100, .8 }, { 140, 100, .45 } }, agrees = none } }:process(frame)
    assert.equal(1, #found)
    assert.is_nil(found[1].landmarks)
    assert.is_true(found[1].head.y < 100 and math.abs(found[1].head.x - 60) < 1)
  end)

  it("looks for a body below a face that no person has, and takes it only with its head there", function()
    local function with(size, agrees)
      local finder = people.finder { landmarker = landmarker { bodies = {}, agrees = function() return agrees end } }
      return #finder:process(frame, { { x = 100, y = 66, width = size, height = size, angle = 0, score = .8 } })
    end
    assert.equal(1, with(7.6, true)) -- the mid hip lies 4.5 faces below: where the made-up body has its head
    assert.equal(0, with(20, true))
    assert.equal(0, with(7.6, false))
  end)

  it("finds the persons of footballers.jpg and of the photos, one of them by his face alone #slow", function()
    local weights = require "libration.weights"
    local path = helper.shared "data/stills/footballers.jpg"
    if not path then return pending("needs ../shared") end
    for _, name in ipairs { "pose_detection", "pose_landmark_full", "face_detection_full_range_sparse" } do
      if not weights.find(name) then return pending("needs the weights " .. name) end
    end
    local finder, detector = people.finder { confidence = .3 }, face.detector { confidence = .3 }
    for name, heads in pairs { ["footballers.jpg"] = { { 778, 80 }, { 339, 160 }, { 593, 58 } }, ["coco/000000197388.jpg"] = { { 36, 68 }, { 330, 118 }, { 587, 76 } },
      ["coco/000000196141.jpg"] = { { 308, 110 } } } do
      local picture = assert(require "libration.media".read_picture(helper.shared("data/stills/" .. name)))
      finder:reset()
      local persons = finder:process(picture, detector:search(picture, { tile = 320, turned = false }))
      for _, head in ipairs(heads) do
        local near = math.huge
        for _, p in ipairs(persons) do near = math.min(near, math.sqrt((p.head.x - head[1]) ^ 2 + (p.head.y - head[2]) ^ 2)) end
        assert.is_true(near < 25, ("%s: no head at %d, %d"):format(name, head[1], head[2]))
      end
    end
  end)
end)
