-- DeepLabCut CSV and TRC: round trips, the layouts that are met, broken files; DeepLabCut files as landmarks of a data set.
local lr = require "libration"
local files = require "libration.files"
local dlc = require "libration.formats.dlc"
local trc = require "libration.formats.trc"
local Dataset = require "libration.data.dataset"
local skeletons = require "libration.pose.skeletons"
local helper = require "helper"
local mutate = require "mutate"

local NAN = 0 / 0
local folder, path

local function same(a, b)
  assert.same(a.shape, b.shape)
  local p, q = a:contiguous():ptr(), b:contiguous():ptr()
  for i = 0, a:numel() - 1 do assert.is_true(p[i] == q[i] or p[i] ~= p[i] and q[i] ~= q[i], ("element %d: %s and %s"):format(i, p[i], q[i])) end
end

local function refused(reader, text, want)
  files.write(path, text)
  local none, err = reader(path)
  assert.is_nil(none)
  assert.is_truthy(err:find(want, 1, true), err)
  assert.is_truthy(err:find(path, 1, true), err)
  assert.is_nil(err:find("\n", 1, true))
end

describe("dlc", function()
  before_each(function()
    folder = files.temporary_folder()
    path = folder .. "/t.csv"
  end)
  after_each(function() files.remove(folder) end)

  it("writes pandas' three header rows, and reads back what it wrote", function()
    local points = lr.tensor { { { 1.25, 2, .5 }, { 1 / 3, 4, 1 } }, { { NAN, NAN, NAN }, { 5, 6, .125 } } }
    dlc.save(path, points, { joints = { "nose", "left_eye" } })
    assert.equal("scorer,libration,libration,libration,libration,libration,libration\nbodyparts,nose,nose,nose,left_eye,left_eye,left_eye\n"
      .. "coords,x,y,likelihood,x,y,likelihood\n0,1.25,2,0.5,0.333333343,4,1\n1,,,0,5,6,0.125\n", files.read(path))
    assert.is_true(dlc.is(path))
    local back, about = dlc.load(path)
    assert.same({ "nose", "left_eye" }, about.joints)
    assert.same({ "x", "y", "likelihood" }, about.channels)
    same(lr.tensor { { { 1.25, 2, .5 }, { 1 / 3, 4, 1 } }, { { NAN, NAN, 0 }, { 5, 6, .125 } } }, back)
    -- of BlazePose's five channels the fourth is the likelihood
    dlc.save(path, lr.tensor { { { 1, 2, 3, .75, .5 } } }, { joints = { "nose" } })
    same(lr.tensor { { { 1, 2, .75 } } }, (dlc.load(path)))
    assert.has_error(function() dlc.save(path, points, { joints = { "nose" } }) end)
  end)

  it("reads labels without likelihood, an index of three columns, individuals", function()
    files.write(path, "scorer,,,me,me\r\nbodyparts,,,snout,snout\r\ncoords,,,x,y\r\nlabeled-data,video,img1.png,1,2\r\nlabeled-data,video,img9.png,,\r\n")
    local points, about = dlc.load(path)
    same(lr.tensor { { { 1, 2 } }, { { NAN, NAN } } }, points)
    assert.same({ "x", "y" }, about.channels)
    assert.equal("me", about.scorer)
    files.write(path, "scorer,s,s,s,s,s,s\nindividuals,a,a,a,b,b,b\nbodyparts,n,n,n,n,n,n\ncoords,x,y,likelihood,x,y,likelihood\n0,,,,3,4,.5\n1,1,2,.25,5,6,1\n")
    points, about = dlc.load(path)
    assert.equal("b", about.individual) -- it is there more often
    assert.same({ "a", "b" }, about.individuals)
    same(lr.tensor { { { 3, 4, .5 } }, { { 5, 6, 1 } } }, points)
    same(lr.tensor { { { NAN, NAN, NAN } }, { { 1, 2, .25 } } }, (dlc.load(path, { individual = "a" })))
    assert.matches("no individual 'c', there are a, b", select(2, dlc.load(path, { individual = "c" })), 1, true)
  end)

  it("reads DeepLabCut's and Lightning Pose's own files", function()
    local mouse, mirror = helper.shared("data/animals/openfield_mouse/labeled-data/m4s1/CollectedData_Pranav.csv"), helper.shared("data/animals/mirror_mouse/CollectedData.csv")
    if not (mouse and mirror) then return pending("needs ../shared") end
    local points, about = dlc.load(mouse)
    assert.same({ 116, 4, 2 }, points.shape)
    assert.same({ "snout", "leftear", "rightear", "tailbase" }, about.joints)
    assert.near(21.521, points:get(1, 1, 1), 1e-4)
    assert.same({ 90, 17, 2 }, (dlc.load(mirror)).shape)
    -- 17 points of a mouse are no person
    local none, err = Dataset.read_landmarks(mirror)
    assert.is_nil(none)
    assert.matches("no skeleton has all its joints among them; name one with --skeleton", err, 1, true)
  end)

  for text, want in pairs {
    ["bodyparts,a,a\ncoords,x,y\n0,1,2\n"] = "line 1 begins with 'bodyparts'", ["scorer,s,s\ncoords,x,y\n0,1,2\n"] = "line 2 begins with 'coords'",
    ["scorer,s,s\nbodyparts,a,a\n0,1,2\n"] = "want the header row 'coords'", ["scorer,s,s\nbodyparts,a,a\ncoords,x,y\n"] = "no rows",
    ["scorer,s,s\nbodyparts,a,a\ncoords,x,x\n0,1,2\n"] = "'a' has 'x' twice", ["scorer,s,s\nbodyparts,a,a\ncoords,x,z\n0,1,2\n"] = "column 3 is 'z'",
    ["scorer,s,s\nbodyparts,a,b\ncoords,x,y\n0,1,2\n"] = "'a' has no x or no y", ["scorer,s,s\nbodyparts,a,\ncoords,x,y\n0,1,2\n"] = "column 3 has no body part",
    ["scorer,s,s\nbodyparts,a,a\ncoords,x,y\n0,1,2\n1,1,two\n"] = "line 5, column 'a y': 'two' is not a number",
    ["scorer,s,s\nbodyparts,a,a\ncoords,x,y\n0,1\n"] = "line 4 has 2 cells", ["scorer\nbodyparts\ncoords\n0\n"] = "no body parts",
  } do
    it("refuses " .. want, function() refused(dlc.load, text, want) end)
  end

  it("is a source of landmarks: body parts by name, in any order, whatever their case", function()
    local coco = skeletons.coco17
    local T, J = 12, #coco.joints
    local points = lr.zeros { T, J, 3 }
    local p, names, order = points:ptr(), {}, {}
    for j = 1, J do
      order[j] = coco.joints[J + 1 - j]
      names[j] = order[j]:gsub("_", " "):gsub("^%l", string.upper)
      for t = 0, T - 1 do p[(t * J + j - 1) * 3], p[(t * J + j - 1) * 3 + 1], p[(t * J + j - 1) * 3 + 2] = 10 * j, t + 5 * j, .5 end
    end
    dlc.save(path, points, { joints = names })
    local s = assert(Dataset.read_landmarks(path))
    assert.equal("coco17", s.skeleton)
    assert.equal(3, s.score_channel)
    assert.equal(10 * J, s.points:get(1, 1, 1))
    assert.equal(10, s.points:get(1, J, 1))
    -- a named skeleton may lack joints, but for the torso
    local few = lr.zeros { 2, 5, 3 }
    for i = 0, 29 do few:ptr()[i] = i + 1 end
    dlc.save(path, few, { joints = { "left-hip", "right-hip", "Left Shoulder", "right_shoulder", "tail" } })
    s = assert(Dataset.read_landmarks(path, { skeleton = "openpose18" }))
    assert.equal(1, s.points:get(1, skeletons.openpose18.index.left_hip, 1))
    assert.is_true(s.points:get(1, skeletons.openpose18.index.nose, 1) ~= s.points:get(1, skeletons.openpose18.index.nose, 1))
    local none, err = Dataset.read_landmarks(path)
    assert.is_nil(none)
    assert.matches("its body parts are left-hip, right-hip", err, 1, true)
    dlc.save(path, few:narrow(2, 1, 2), { joints = { "left_hip", "right_hip" } })
    none, err = Dataset.read_landmarks(path, { skeleton = "openpose18" })
    assert.is_nil(none)
    assert.matches("openpose18 wants at least left_shoulder", err, 1, true)
    assert.equal(1, #assert(Dataset.open(folder)).entries)
  end)

  it("survives 300 broken copies", function()
    mutate.survive("scorer,s,s,s\nindividuals,a,a,a\nbodyparts,n,n,n\ncoords,x,y,likelihood\n0,1,2,.5\n1,,,\n", 300, function(copy)
      local file = io.open(path, "wb")
      file:write(copy)
      file:close()
      return dlc.load(path)
    end)
  end)
end)

describe("trc", function()
  before_each(function()
    folder = files.temporary_folder()
    path = folder .. "/t.trc"
  end)
  after_each(function() files.remove(folder) end)

  local function write(about, frames)
    local w = trc.writer(path, about)
    for i, values in ipairs(frames) do w:append(values, (i - 1) / 25) end
    return w:close(25)
  end

  it("writes markers with units, y up, empty fields for NaN; reads them back", function()
    local ffi = require "ffi"
    local one, two = ffi.new("float[10]", 10, 20, 3, .9, .9, 30, 40, -5, .8, .8), ffi.new("float[10]", 11, 22, 0, .9, .9, NAN, NAN, NAN, 0, 0)
    write({ joints = { "nose", "left_eye" }, channels = 5, units = "px", height = 100, depth = true }, { one, two })
    local lines = {}
    for line in files.read(path):gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
    assert.equal("PathFileType\t4\t(X/Y/Z)\tt.trc", lines[1])
    assert.equal("25\t25\t2\t2\tpx\t25\t1\t2", (lines[3]:gsub(" +$", "")))
    assert.equal("Frame#\tTime\tnose\t\t\tleft_eye\t\t", lines[4])
    assert.equal("\t\tX1\tY1\tZ1\tX2\tY2\tZ2", lines[5])
    assert.equal("", lines[6])
    assert.equal("1\t0.000000\t10\t80\t-3\t30\t60\t5", lines[7])
    assert.equal("2\t0.040000\t11\t78\t0\t\t\t", lines[8])
    assert.equal(8, #lines)
    local t, about = trc.load(path)
    same(lr.tensor { { { 10, 80, -3 }, { 30, 60, 5 } }, { { 11, 78, 0 }, { NAN, NAN, NAN } } }, t)
    assert.same({ joints = { "nose", "left_eye" }, times = { 0, .04 }, rate = 25, units = "px" }, about)
    -- metres as millimetres
    write({ joints = { "hip" }, channels = 3, units = "mm", factor = 1000, depth = true }, { ffi.new("float[3]", .1, -.25, .5) })
    same(lr.tensor { { { 100, 250, -500 } } }, (trc.load(path)))
    assert.has_error(function() trc.writer(path, { joints = {}, channels = 3, units = "inch" }) end)
  end)

  local head = "PathFileType\t4\t(X/Y/Z)\tt.trc\nDataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\n"
  for text, want in pairs {
    ["a,b\n1,2\n"] = "not a TRC file", [head .. "25\t25\t1\t1\tmm\n"] = "want a header of five",
    [head .. "x\t25\t1\t1\tmm\nFrame#\tTime\tn\n\tX1\n\n1\t0\t1\t2\t3\n"] = "DataRate is 'x'",
    [head .. "25\t25\t1\t1\tft\nFrame#\tTime\tn\n\tX1\n\n1\t0\t1\t2\t3\n"] = "Units are 'ft'",
    [head .. "25\t25\t999999999\t1\tmm\nFrame#\tTime\tn\n\tX1\n\n1\t0\t1\t2\t3\n"] = "NumFrames is '999999999'",
    [head .. "25\t25\t3\t1\tmm\nFrame#\tTime\tn\n\tX1\n\n1\t0\t1\t2\t3\n"] = "3 frames by line 3, but",
    [head .. "25\t25\t1\t2\tmm\nFrame#\tTime\tn\n\tX1\n\n1\t0\t1\t2\t3\n"] = "no name of marker 2",
    [head .. "25\t25\t1\t1\tmm\nFrame#\tTime\tn\n\tX1\n\n1\t0\t1\ttwo\t3\n"] = "line 7: 'two' is not a number",
    [head .. "25\t25\t1\t1\tmm\nFrame#\tTime\tn\n\tX1\n\n1\t\t1\t2\t3\n"] = "line 7: no time",
    [head .. "25\t25\t1\t1\tmm\nFrame#\tTime\tn\n\tX1\n\n1\t0\t1\t2\t3\t4\t5\n"] = "line 7 has 7 fields, want 5",
  } do
    it("refuses " .. want, function() refused(trc.load, text, want) end)
  end

  it("survives 300 broken copies", function()
    mutate.survive(head .. "25\t25\t2\t1\tmm\nFrame#\tTime\tn\t\t\n\tX1\tY1\tZ1\n\n1\t0\t1\t2\t3\n2\t.04\t\t\t\n", 300, function(copy)
      local file = io.open(path, "wb")
      file:write(copy)
      file:close()
      return trc.load(path)
    end)
  end)
end)
