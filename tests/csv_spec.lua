-- CSV: tables, quoting, NaN, landmark sequences, broken files.
local lr = require "libration"
local files = require "libration.files"
local csv = require "libration.formats.csv"

local NAN = 0 / 0

describe("csv", function()
  local folder, path
  before_each(function()
    folder = files.temporary_folder()
    path = folder .. "/t.csv"
  end)
  after_each(function() files.remove(folder) end)

  it("writes numbers that read back to the same float32, NaN as an empty cell", function()
    local t = lr.tensor({ { 1 / 3, NAN }, { -2.5e-7, 12345678 } })
    csv.save(path, { "a", "b" }, t)
    local text = files.read(path)
    assert.equal("a,b\n0.333333343,\n-2.49999999e-07,12345678\n", text)
    local back, names = csv.load(path)
    assert.same({ "a", "b" }, names)
    assert.equal("f64", back.dtype)
    local p, q = back:to("f32"):ptr(), t:ptr()
    for i = 0, 3 do assert.is_true(p[i] == q[i] or p[i] ~= p[i] and q[i] ~= q[i]) end
  end)

  it("quotes as RFC 4180 and reads it back, with any line end", function()
    csv.save(path, { "name", 'a "b"' }, { { "x,y", "line\nend" }, { 'say "hi"', true } })
    local names, rows = csv.read(path)
    assert.same({ "name", 'a "b"' }, names)
    assert.same({ { "x,y", "line\nend", line = rows[1].line }, { 'say "hi"', "true", line = rows[2].line } }, rows)
    files.write(path, "\239\187\191a,b\r\n1,2\r\n\r\n3,\"4\"\r\n")
    names, rows = csv.read(path)
    assert.same({ "a", "b" }, names)
    assert.same({ { "1", "2", line = 2 }, { "3", "4", line = 4 } }, rows)
  end)

  it("reads nan, inf, blanks and words for nothing", function()
    files.write(path, "a,b,c,d,e\nnan, NA ,inf,-Infinity, 7 \n,null,+inf,1e3,-0.5")
    local t = csv.load(path)
    local p = t:ptr()
    for _, i in ipairs { 0, 1, 5, 6 } do assert.is_true(p[i] ~= p[i]) end
    assert.equal(math.huge, p[2])
    assert.equal(-math.huge, p[3])
    assert.equal(7, p[4])
    assert.equal(1000, p[8])
  end)

  it("landmarks: header, frame, time, round trip", function()
    local points = lr.tensor({ { { 1.25, 2, 0.5 }, { 3, 4, 1 } }, { { NAN, NAN, NAN }, { 5, 6, 0.125 } } })
    csv.save_landmarks(path, points, { joints = { "nose", "left_eye" }, channels = { "x", "y", "visibility" }, times = { 0, 1 / 30 } })
    local text = files.read(path)
    assert.equal("frame,time,nose_x,nose_y,nose_visibility,left_eye_x,left_eye_y,left_eye_visibility", text:match("^[^\n]*"))
    assert.is_truthy(text:find("\n1,0.033333333333333333,,,,5,6,0.125\n", 1, true))
    local back, about = csv.load_landmarks(path)
    assert.same({ 2, 2, 3 }, back.shape)
    assert.same({ "nose", "left_eye" }, about.joints)
    assert.same({ "x", "y", "visibility" }, about.channels)
    assert.same({ 0, 1 / 30 }, about.times)
    assert.equal(0.125, back:get(2, 2, 3))
    assert.is_true(back:get(2, 1, 1) ~= back:get(2, 1, 1))
    csv.save_landmarks(path, points, { joints = { "a", "b" }, channels = { "x", "y", "score" } })
    assert.is_nil(select(2, csv.load_landmarks(path)).times)
    assert.has_error(function() csv.save_landmarks(path, points, { joints = { "a" }, channels = { "x", "y", "score" } }) end)
  end)

  for name, case in pairs {
    ["an empty file"] = { "", "empty" },
    ["a header alone"] = { "a,b\n", "no rows" },
    ["a short row"] = { "a,b\n1\n", "line 2 has 1 cells, the header has 2" },
    ["words in numbers"] = { "a,b\n1,2\n3,hello\n", "line 3, column 'b': 'hello' is not a number" },
    ["an open quote"] = { 'a,b\n1,"2\n', "does not end" },
    ["text after a quote"] = { 'a,b\n1,"2"x\n', "after a closing quote" },
    ["binary"] = { "a\0b", "not a text file" },
  } do
    it("refuses " .. name, function()
      files.write(path, case[1])
      local none, err = csv.load(path)
      assert.is_nil(none)
      assert.is_truthy(err:find(case[2], 1, true), err)
      assert.is_truthy(err:find(path, 1, true))
    end)
  end

  it("refuses landmark tables with other columns or mixed channels", function()
    for text, want in pairs {
      ["frame,label\n1,2"] = "column 'label'", ["nose_x,nose_y,eye_x\n1,2,3"] = "3 columns for 2 joints",
      ["nose_x,nose_y,eye_y,eye_x\n1,2,3,4"] = "order of channels", ["frame,time\n0,1"] = "no columns",
      ["nose_x,eye_x,nose_y\n1,2,3"] = "not side by side",
    } do
      files.write(path, text)
      local none, err = csv.load_landmarks(path)
      assert.is_nil(none)
      assert.is_truthy(err:find(want, 1, true), err)
    end
  end)

  it("names a missing file, a folder and an unwritable place", function()
    assert.is_nil((csv.load(folder .. "/none.csv")))
    assert.is_truthy(select(2, csv.load(folder)):find("folder", 1, true))
    assert.has_error(function() csv.save("/proc/nowhere/t.csv", { "a" }, {}) end)
    local w = csv.writer(path, { "a" })
    assert.has_error(function() w:row({ 1, 2 }) end)
    w:abort()
    assert.same({}, files.list(folder))
  end)
end)
