-- OpenPose JSON: one frame a file, a list of frames, several people, missing joints, broken files.
local lr = require "libration"
local files = require "libration.files"
local openpose = require "libration.formats.openpose"

local NAN = 0 / 0
local small = '{"version":1.3,"people":[{"person_id":[-1],"pose_keypoints_2d":[1,2,0.5,0,0,0]},{"pose_keypoints_2d":[0,0,1,40,30,0.25]}]}'

describe("openpose", function()
  local folder, path
  before_each(function()
    folder = files.temporary_folder()
    path = folder .. "/f.json"
  end)
  after_each(function() files.remove(folder) end)

  it("one frame: the largest person, or one by number; score 0 is missing", function()
    files.write(path, small)
    local t, about = openpose.load(path)
    assert.same({ 1, 2, 3 }, t.shape)
    assert.same({ 2 }, about.people)
    assert.is_nil(about.times)
    assert.same({ 40, 30, 0.25 }, t:select(1, 1):select(1, 2):totable())
    t = openpose.load(path, { person = 1 })
    assert.equal(2, t:get(1, 1, 2))
    assert.is_true(t:get(1, 2, 1) ~= t:get(1, 2, 1))
    t = openpose.load(path, { person = 3 })
    assert.is_true(t:get(1, 1, 1) ~= t:get(1, 1, 1))
    assert.has_error(function() openpose.load(path, { person = "tallest" }) end)
  end)

  it("a folder in natural order; frames without people are NaN", function()
    for i, name in ipairs { "v_2_keypoints", "v_10_keypoints", "v_1_keypoints" } do
      files.write(folder .. "/" .. name .. ".json", i == 1 and '{"people":[]}' or ('{"people":[{"pose_keypoints_2d":[%d,0,1]}]}'):format(i))
    end
    local t, about = openpose.load(folder)
    assert.same({ 3, 1, 3 }, t.shape)
    assert.same({ 1, 0, 1 }, about.people)
    assert.equal(3, t:get(1, 1, 1))
    assert.is_true(t:get(2, 1, 1) ~= t:get(2, 1, 1))
    assert.equal(2, t:get(3, 1, 1))
  end)

  it("writes one file of frames or a folder, and reads both back", function()
    local points = lr.tensor({ { { 1.25, 2, 0.5 }, { 3, 4, 1 } }, { { NAN, NAN, NAN }, { 5, 6, 0.125 } }, { { NAN, NAN, NAN }, { NAN, NAN, NAN } } })
    openpose.save(path, points, { times = { 0, 0.5, 1 } })
    local back, about = openpose.load(path)
    assert.same({ 0, 0.5, 1 }, about.times)
    assert.same({ 1, 1, 0 }, about.people)
    openpose.save(folder .. "/frames", points, { folder = true, name = "clip" })
    assert.same({ "clip_000000000000_keypoints.json", "clip_000000000001_keypoints.json", "clip_000000000002_keypoints.json" },
      files.list(folder .. "/frames"))
    for _, t in ipairs { back, (openpose.load(folder .. "/frames")) } do
      local p, q = t:ptr(), points:ptr()
      for i = 0, 17 do assert.is_true(p[i] == q[i] or p[i] ~= p[i] and q[i] ~= q[i]) end
    end
  end)

  it("the score of five channels is the visibility; of two it is 1", function()
    openpose.save(path, lr.tensor({ { { 1, 2, 9, 0.75, 0.5 } } }))
    assert.same({ 1, 2, 0.75 }, openpose.load(path):select(1, 1):select(1, 1):totable())
    openpose.save(path, lr.tensor({ { { 1, 2 } } }))
    assert.same({ 1, 2, 1 }, openpose.load(path):select(1, 1):select(1, 1):totable())
    assert.has_error(function() openpose.save(path, lr.zeros({ 2, 2 })) end)
  end)

  for name, case in pairs {
    ["an empty file"] = { " \n", "empty" },
    ["no JSON"] = { "hello", "not JSON" },
    ["a number"] = { "7", "want people by frame" },
    ["no people"] = { '{"a":1}', "no frames" },
    ["people of no points"] = { '{"people":[{}]}', "without pose_keypoints_2d" },
    ["pairs"] = { '{"people":[{"pose_keypoints_2d":[1,2]}]}', "2 numbers, want triples" },
    ["words"] = { '{"people":[{"pose_keypoints_2d":[1,2,"x"]}]}', "number 3 is a string" },
    ["nobody at all"] = { '{"people":[]}', "nobody in any of 1 frames" },
    ["mixed skeletons"] = { '[{"people":[{"pose_keypoints_2d":[1,2,1]}]},{"people":[{"pose_keypoints_2d":[1,2,1,1,2,1]}]}]', "frame 1 has 2 joints, others 1" },
    ["null people"] = { '[{"people":null}]', "no list 'people'" },
    ["numbers for frames"] = { '[1,2]', "no list 'people'" },
  } do
    it("refuses " .. name, function()
      files.write(path, case[1])
      local none, err = openpose.load(path)
      assert.is_nil(none)
      assert.is_truthy(err:find(case[2], 1, true), err)
      assert.is_truthy(err:find(path, 1, true))
    end)
  end

  it("refuses a missing file and a folder without any", function()
    assert.is_nil((openpose.load(folder .. "/none.json")))
    assert.is_truthy(select(2, openpose.load(folder)):find("no .json file", 1, true))
  end)
end)
