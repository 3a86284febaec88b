-- Specs of data sets and splits: what a folder holds, ids, labels, ranges, and every mistake by name.
local files = require "libration.files"
local lr = require "libration"
local data = require "libration.data"

local function folder_with(names)
  local folder = files.temporary_folder()
  for name, text in pairs(names) do
    local path = files.join(folder, name)
    files.mkdirs(files.folder(path))
    local file = assert(io.open(path, "wb"))
    file:write(text == true and name or text)
    file:close()
  end
  return folder
end

local function tree(n, more)
  local names = {}
  for i = 1, n do
    names[("%02d/rgb/syn_00000.png"):format(i)] = true
    names[("%02d/depth/syn_00000_depth.png"):format(i)] = true
  end
  for k, v in pairs(more or {}) do names[k] = v end
  return folder_with(names)
end

local function opened(folder, options)
  local set, reason = data.dataset.open(folder, options)
  files.remove(folder)
  return set, reason
end

describe("dataset", function()
  it("takes a MINI-RGBD tree and opens only rgb", function()
    local set = assert(opened(tree(3)))
    assert.equal("01, 02, 03", set:ids())
    for _, e in ipairs(set.entries) do
      assert.equal("frames", e.kind)
      assert.matches("/rgb$", e.path)
    end
  end)

  it("takes videos, landmark files and folders of them, in natural order", function()
    local set = assert(opened(folder_with { ["b10.mp4"] = true, ["b9.MKV"] = true, ["notes.txt"] = true, [".hidden.mp4"] = true }))
    assert.equal("b9, b10", set:ids())
    assert.equal("video", set.entries[1].kind)
    set = assert(opened(folder_with { ["a.npy"] = true, ["b.csv"] = true, ["c.json"] = true, ["labels.csv"] = "sequence,label\na,0\n",
      ["d/landmarks.npy"] = true, ["e/x_000_keypoints.json"] = true }))
    assert.equal("a, b, c, d, e", set:ids())
    assert.equal(0, set.by_id.a.label)
    assert.is_nil(set.by_id.b.label)
  end)

  it("says what is wrong with a folder", function()
    local function refused(want, folder, options)
      local set, reason = opened(folder, options)
      assert.is_nil(set)
      assert.matches(want, reason, 1, true)
      assert.is_nil(reason:find("\n"))
    end
    refused("no such folder", "/nowhere/at/all")
    refused("no sequences; want folders NN/rgb", folder_with { ["a.txt"] = true })
    refused("a.mp4 and a.npy would both be sequence a", folder_with { ["a.npy"] = true, ["a.mp4"] = true })
    refused("holds landmark files beside videos or pictures", folder_with { ["a.npy"] = true, ["b.mp4"] = true })
    refused('labels.csv: line 3: label is "maybe"', folder_with { ["a.npy"] = true, ["labels.csv"] = "sequence,label\na,1\nb,maybe\n" })
    refused("want sequence and label", folder_with { ["a.npy"] = true, ["labels.csv"] = "id,kind\na,1\n" })
    refused("line 4: sequence a stands twice, first in line 2", folder_with { ["a.npy"] = true, ["labels.csv"] = "sequence,label\na,1\n\na,0\n" })
    local function labels(text) return folder_with { ["01.npy"] = true, ["02.npy"] = true, ["labels.csv"] = text } end
    refused("sequence 01 stands twice, as 01 and 1", labels "sequence,label\n1,0\n01,0\n")
    refused('line 2: age_weeks is "-3", want a number of weeks, 0 or more', labels "age_weeks,sequence,label\n-3,01,0\n")
    refused('line 3: age_weeks is "old"', labels "age_weeks,sequence,label\n,01,0\nold,02,0\n")
    refused("line 3: sequence 02 has no subject, others have", labels "sequence,label,subject\n01,0,anna\n02,0, \n")
    refused("line 2: the sequence has no name", labels "sequence,label\n,0\n")
    refused("separated by commas", labels "sequence;label\n01;0\n")
    refused("line 1: the column label stands twice", labels "sequence,label,Label\n01,0,0\n")
  end)

  it("takes labels.csv with columns in any order, columns of its own, and numbers that lost their zeros", function()
    local set = assert(opened(folder_with { ["01.npy"] = true, ["02.npy"] = true,
      ["labels.csv"] = "note,age_weeks, Label,subject,sequence\nx,12.5,normal,anna,1\ny,,Abnormal,ben,02\nz,3,0,carl,77\n" }))
    assert.same({ 0, "anna", 12.5 }, { set.by_id["01"].label, set.by_id["01"].subject, set.by_id["01"].age_weeks })
    assert.same({ 1, "ben" }, { set.by_id["02"].label, set.by_id["02"].subject, set.by_id["02"].age_weeks })
    assert.same({ "77" }, set.unknown)
    set = assert(opened(folder_with { ["01.npy"] = true, ["labels.csv"] = "sequence,label,subject\n01,0,\n" }))
    assert.is_nil(set.by_id["01"].subject)
  end)

  it("--kind picks among what a folder holds", function()
    local set = assert(opened(folder_with { ["a.npy"] = true, ["b.mp4"] = true }, { kind = "videos" }))
    assert.equal("b", set:ids())
  end)

  it("hashes a file and a folder of pictures without decoding", function()
    local folder = tree(2, { ["01/rgb/syn_00001.png"] = true })
    local set = assert(data.dataset.open(folder))
    local a = assert(data.dataset.hash(set.entries[1]))
    assert.equal(64, #a)
    assert.equal(2, #set.entries[1].frame_hashes)
    assert.equal(files.sha256_text("01/rgb/syn_00000.png"), set.entries[1].frame_hashes[1])
    assert.are_not.equal(a, data.dataset.hash(set.entries[2]))
    files.remove(folder)
  end)

  it("reads npy, landmark CSV with times and OpenPose JSON as sequences", function()
    local npy, csv, openpose = require "libration.formats.npy", require "libration.formats.csv", require "libration.formats.openpose"
    local skeletons = require "libration.pose.skeletons"
    local folder = files.temporary_folder()
    local points = lr.zeros({ 4, 18, 3 })
    local p = points:ptr()
    for i = 0, 4 * 18 * 3 - 1 do p[i] = i % 3 == 2 and .5 or 10 + i end
    npy.save(folder .. "/a.npy", points)
    csv.save_landmarks(folder .. "/b.csv", points, {
      joints = skeletons.get("openpose18").joints, channels = { "x", "y", "score" }, times = { 0, .1, .2, .3 },
    })
    openpose.save(folder .. "/c.json", points)
    for _, name in ipairs { "a.npy", "b.csv", "c.json" } do
      local s = assert(data.dataset.read_landmarks(folder .. "/" .. name, { fps = name ~= "b.csv" and 30 or nil }))
      assert.equal("openpose18", s.skeleton)
      assert.equal(name:sub(1, 1), s.id)
      assert.is_near(name == "b.csv" and 10 or 30, s.fps, 1e-9)
      local t = s:track()
      assert.equal(10, t.x[0])
      assert.is_near(10 + 3 * 18 * 3, t.x[3 * 14 * 2], 1e-4)
    end
    files.write(folder .. "/d.npy", "no array")
    for _, case in ipairs { { "/d.npy", "d.npy" }, { "/e.npy", "no such file" }, { "", "no" } } do
      local s, reason = data.dataset.read_landmarks(folder .. case[1])
      assert.is_nil(s)
      assert.matches(case[2], reason, 1, true)
    end
    files.remove(folder)
  end)
end)

describe("splits", function()
  local function split(n, want)
    local set = assert(opened(tree(n)))
    local s, reason = data.splits.resolve(set, want)
    if not s then return nil, reason end
    local out = {}
    for _, part in ipairs(data.splits.PARTS) do
      local list = {}
      for i, e in ipairs(s[part]) do list[i] = e.id end
      out[part] = table.concat(list, " ")
    end
    return out
  end

  it("understand numbers, ranges and ids", function()
    assert.same({ train = "01 02 03 04 05 06 07 08", validate = "09 10", test = "11 12" },
      split(12, { train = "1-8", validate = "9,10", test = "11,12" }))
    assert.same({ train = "03 01", validate = "02", test = "" }, split(3, { train = "3, 01", validate = "2", test = "" }))
    local set = assert(opened(folder_with { ["anna.mp4"] = true, ["ben.mp4"] = true, ["c-1.mp4"] = true }))
    local s = assert(data.splits.resolve(set, { train = "1,c-1", validate = "ben" }))
    assert.equal("anna", s.train[1].id)
    assert.equal("c-1", s.train[2].id)
  end)

  it("refuse overlap, unknown sequences and empty parts by name", function()
    local function refused(want, ...)
      local s, reason = split(...)
      assert.is_nil(s)
      assert.matches(want, reason, 1, true)
    end
    refused("sequence 08 is in both --train and --validate", 12, { train = "1-8", validate = "8,9" })
    refused("sequence 01 is in both --train and --test", 12, { train = "1-8", validate = "9", test = "01" })
    refused("--test: unknown sequence 13; there are 01, 02", 12, { train = "1-8", validate = "9", test = "11-13" })
    refused("--train: unknown sequence x", 3, { train = "x", validate = "2" })
    refused("--train: no sequences", 3, { train = "", validate = "2" })
    refused("--validate: the validation set is empty", 3, { train = "1", validate = "" })
    refused("--train: 8-1 runs backwards", 12, { train = "8-1", validate = "9" })
    refused("--train: sequence 02 stands twice", 3, { train = "1,2,02", validate = "3" })
  end)

  it("propose a split for any number of sequences", function()
    assert.same({ train = "1-8", validate = "9,10", test = "11,12" }, data.splits.default(12))
    for _, n in ipairs { 2, 3, 4, 7, 12, 20 } do
      local s, reason = split(n, data.splits.default(n))
      assert(s, reason)
      local count = 0
      for _, list in pairs(s) do for _ in list:gmatch("%S+") do count = count + 1 end end
      assert.equal(n, count)
    end
  end)

  it("keep a person together where there are subjects", function()
    local set = { entries = {}, by_id = {} }
    for i, subject in ipairs { "a", "b", "a", "c", "d", "d", "e", "b" } do
      set.entries[i] = { id = ("%02d"):format(i), subject = subject, label = i == 7 and 1 or 0 }
      set.by_id[set.entries[i].id] = set.entries[i]
    end
    assert.same({ train = "1-4,8", validate = "5,6", test = "7" }, data.splits.default(set))
    assert.same({ train = "1-3,8", validate = "4", test = "5-7" }, data.splits.texts(set, assert(data.splits.by_label(set))))
    set.entries[6].label = 1 -- d is of both kinds: judged, whatever its other label
    local none, reason = data.splits.by_label(set)
    assert.is_nil(none)
    assert.equal("3 normal subjects, want at least 4", reason)
  end)

  it("that the labels allow come as options to paste", function()
    local function options(labels, name)
      local set = { entries = {} }
      for i, label in ipairs(labels) do set.entries[i] = { id = name(i), label = label } end
      return data.splits.options(set, assert(data.splits.by_label(set)))
    end
    assert.equal("--train 1-3,5-6 --validate 7,8 --test 4,9-12",
      options({ 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 1 }, function(i) return ("%02d"):format(i) end))
    assert.equal("--train baby1,baby2 --validate baby3 --test 'baby 4,baby 5'",
      options({ 0, 0, 0, 0, 1 }, function(i) return (i > 3 and "baby " or "baby") .. i end))
  end)
end)
