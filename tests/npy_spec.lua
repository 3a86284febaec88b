-- npy: versions, dtypes, orders, the appending writer, broken files.
local ffi = require "ffi"
local lr = require "libration"
local files = require "libration.files"
local reader = require "libration.formats.reader"
local npy = require "libration.formats.npy"
local helper = require "helper"

local function file(dict, data, major)
  local header = dict .. (" "):rep(-(#dict + 11) % 64) .. "\n"
  local size = major and major > 1 and ffi.string(ffi.new("uint32_t[1]", #header), 4) or ffi.string(ffi.new("uint16_t[1]", #header), 2)
  return "\147NUMPY" .. string.char(major or 1, 0) .. size .. header .. data
end

local function load(bytes)
  return npy.load(reader.memory("x.npy", bytes))
end

describe("npy", function()
  local folder
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  it("writes and reads f32, f64, f16, u8, i32", function()
    for _, dtype in ipairs { "f32", "f64", "f16", "u8", "i32" } do
      local t = lr.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, dtype)
      npy.save(folder .. "/t.npy", t)
      local back = assert(npy.load(folder .. "/t.npy"))
      assert.equal(dtype, back.dtype)
      assert.same({ 2, 3 }, back.shape)
      assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, back:to("f64"):totable())
    end
    assert.has_error(function() npy.save(folder .. "/t.npy", lr.tensor({ 1 }, "bf16")) end)
  end)

  it("the header is what NumPy writes, 128 bytes", function()
    npy.save(folder .. "/t.npy", lr.zeros({ 5 }))
    local bytes = files.read(folder .. "/t.npy")
    assert.equal(128 + 20, #bytes)
    assert.equal("\147NUMPY\1\0\118\0{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }", bytes:sub(1, 67))
    assert.equal("\n", bytes:sub(128, 128))
  end)

  it("versions 1, 2 and 3, other spellings of the header", function()
    local data = ffi.string(ffi.new("float[2]", { 1.5, -2 }), 8)
    for major = 1, 3 do
      assert.same({ 1.5, -2 }, load(file("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", data, major)):totable())
    end
    assert.same({ 1, 2 }, load(file('{"shape":(1,2),"fortran_order":False,"descr":"<f4"}', data)).shape)
    assert.equal(1, load(file("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", data:sub(1, 4))):numel())
  end)

  it("i8 that fits becomes i32, bool u8", function()
    local data = ffi.string(ffi.new("int64_t[2]", { 5, -6 }), 16)
    local t = load(file("{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }", data))
    assert.equal("i32", t.dtype)
    assert.same({ 5, -6 }, t:totable())
    assert.same({ 1, 0 }, load(file("{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }", "\1\0")):totable())
  end)

  it("Fortran order is transposed", function()
    local data = ffi.string(ffi.new("float[6]", { 1, 4, 2, 5, 3, 6 }), 24)
    local t = load(file("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", data))
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, t:totable())
  end)

  for name, case in pairs {
    ["text"] = { "this is not an array", "not an npy file" },
    ["version 9"] = { "\147NUMPY\9\0\4\0{}  ", "npy version 9" },
    ["big endian"] = { file("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "1234"), "dtype '>f4'" },
    ["a structured array"] = { file("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "1234"), "structured" },
    ["objects"] = { file("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "1234"), "dtype '|O'" },
    ["data cut off"] = { file("{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }", "1234"), "wanted at byte" },
    ["a huge shape"] = { file("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999, 999999), }", "1234"), "wants" },
    ["a negative shape"] = { file("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "1234"), "tuple of whole numbers" },
    ["seven dims"] = { file("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1), }", "1234"), "at most 6 dims" },
    ["no order"] = { file("{'descr': '<f4', 'shape': (1,), }", "1234"), "fortran_order" },
  } do
    it("refuses " .. name, function()
      local none, err = load(case[1])
      assert.is_nil(none)
      assert.is_truthy(err:find(case[2], 1, true), err)
    end)
  end

  it("appends rows and blocks; T stands in the header after close, nothing before", function()
    local path = folder .. "/deep/rows.npy"
    local w = npy.writer(path, { 2, 3 })
    w:append(lr.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }))
    w:append(lr.full({ 4, 2, 3 }, 7))
    assert.is_false(files.exists(path))
    w:close()
    local t = npy.load(path)
    assert.same({ 5, 2, 3 }, t.shape)
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, t:select(1, 1):totable())
    assert.same({ { 7, 7, 7 }, { 7, 7, 7 } }, t:select(1, 5):totable())
    assert.equal(128 + 5 * 24, files.size(path))
    w = npy.writer(path, {}, "f64")
    assert.has_error(function() w:append(lr.zeros({ 3 })) end)
    w:append(lr.tensor({ 1, 2 }, "f64"))
    w:abort()
    assert.same({ 5, 2, 3 }, npy.load(path).shape)
    assert.equal(1, #files.list(folder .. "/deep"))
    assert.has_error(function() npy.writer("/proc/nowhere/x.npy", {}) end)
  end)

  it("NumPy's own files of the goldens", function()
    local path = helper.shared("goldens/stages/ta_chi_f040/ld_3d.npy")
    if not path then return pending("needs ../shared") end
    local t = assert(npy.load(path))
    assert.equal("f32", t.dtype)
    assert.equal(195, t:numel())
    assert.same({ 224, 224, 3 }, npy.load(helper.shared("goldens/stages/ta_chi_f040/detector_input_u8.npy")).shape)
  end)
end)
