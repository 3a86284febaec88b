-- safetensors: round trips, the layout that the Python package reads, and broken headers refused by name.
local ffi = require "ffi"
local lr = require "libration"
local files = require "libration.files"
local reader = require "libration.formats.reader"
local safetensors = require "libration.formats.safetensors"

local function u64(n)
  return ffi.string(ffi.new("uint64_t[1]", n), 8)
end

-- A file of the given header text and bytes of data.
local function file(header, data)
  return u64(#header) .. header .. ("\0"):rep(data)
end

local function load(bytes)
  return safetensors.load(reader.memory("x.safetensors", bytes))
end

describe("safetensors", function()
  local folder
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  it("writes and reads every dtype, shapes, metadata", function()
    local path = folder .. "/all.safetensors"
    local tensors = {
      ["w f32"] = lr.tensor({ { 1.5, -2, 3 }, { 4, 5, 0 / 0 } }), f64 = lr.tensor({ 1 / 3, 2 }, "f64"), f16 = lr.tensor({ 1, 2.5, -3 }, "f16"),
      bf16 = lr.tensor({ 1, -2 }, "bf16"), u8 = lr.tensor({ 1, 2, 255 }, "u8"), i32 = lr.tensor({ -7, 2 ^ 31 - 1 }, "i32"),
    }
    safetensors.save(path, tensors, { note = 'a "quoted" line\nand more, äöü', empty = "" })
    local back, metadata = safetensors.load(path)
    assert.same({ note = 'a "quoted" line\nand more, äöü', empty = "" }, metadata)
    for name, t in pairs(tensors) do
      assert.equal(t.dtype, back[name].dtype)
      assert.same(t.shape, back[name].shape)
      local n = t:numel() * ({ f32 = 4, f64 = 8, f16 = 2, bf16 = 2, u8 = 1, i32 = 4 })[t.dtype]
      assert.equal(ffi.string(t:contiguous():ptr(), n), ffi.string(back[name]:ptr(), n))
    end
    local info = safetensors.info(path)
    assert.same({ dtype = "f32", shape = { 2, 3 } }, info["w f32"])
  end)

  it("a view is written as what it shows", function()
    local path = folder .. "/view.safetensors"
    safetensors.save(path, { t = lr.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }):transpose(1, 2) })
    assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, safetensors.load(path).t:totable())
  end)

  it("header padded to 8 bytes, data without holes, wide dtypes first", function()
    local path = folder .. "/pad.safetensors"
    safetensors.save(path, { a = lr.tensor({ 1, 2, 3 }, "u8"), b = lr.tensor({ 1, 2 }, "f64"), c = lr.tensor({ 1 }) })
    local bytes = files.read(path)
    local r = reader.memory("m", bytes)
    local size = r:u64(0)
    assert.equal(0, size % 8)
    assert.equal("{", bytes:sub(9, 9))
    assert.equal(8 + size + 16 + 4 + 3, #bytes)
    assert.is_truthy(bytes:find('"b":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}', 1, true))
    assert.is_truthy(bytes:find('"a":{"dtype":"U8","shape":[3],"data_offsets":[20,23]}', 1, true))
  end)

  it("no tensors at all", function()
    safetensors.save(folder .. "/none.safetensors", {}, { k = "v" })
    local tensors, metadata = safetensors.load(folder .. "/none.safetensors")
    assert.is_nil(next(tensors))
    assert.equal("v", metadata.k)
  end)

  it("I64 that fits is read as i32, one that does not is refused", function()
    local header = '{"a":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}}'
    local values = ffi.string(ffi.new("int64_t[2]", { 5, -6 }), 16)
    assert.same({ 5, -6 }, load(u64(#header) .. header .. values).a:totable())
    values = ffi.string(ffi.new("int64_t[2]", { 5, 2 ^ 33 }), 16)
    local none, err = load(u64(#header) .. header .. values)
    assert.is_nil(none)
    assert.is_truthy(err:find("does not fit an int32", 1, true))
  end)

  for name, case in pairs {
    ["a huge header"] = { u64(2 ^ 40) .. "{}", "not a safetensors file" },
    ["a header beyond 2^53"] = { ("\255"):rep(8) .. "{}", "2^53" },
    ["no JSON"] = { file("{nonsense", 0), "not a JSON object" },
    ["a JSON array"] = { file("[1,2]", 0), "not a JSON object" },
    ["too short"] = { "\1\2", "u64 wanted at byte 0" },
    ["a name twice"] = { file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', 2), "'a' stands twice" },
    ["a field twice"] = { file('{"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}', 1), "'shape' stands twice" },
    ["an overlap"] = { file('{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}', 6), "'a' and 'b' overlap" },
    ["a hole"] = { file('{"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}', 4), "before tensor 'a' belong to none" },
    ["bytes left over"] = { file('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', 4), "after the last tensor" },
    ["data out of range"] = { file('{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}', 4), "tensor 'a': data_offsets" },
    ["offsets backwards"] = { file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[2,1]}}', 4), "tensor 'a': data_offsets" },
    ["a size that does not fit"] = { file('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', 4), "tensor 'a': 4 bytes for F32 [2], want 8" },
    ["a negative dim"] = { file('{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}', 1), "tensor 'a': shape" },
    ["an unknown dtype"] = { file('{"a":{"dtype":"Q7","shape":[1],"data_offsets":[0,1]}}', 1), "tensor 'a': dtype 'Q7'" },
    ["null inside"] = { file('{"a":{"dtype":"U8","shape":[null],"data_offsets":[0,1]}}', 1), "tensor 'a': shape" },
    ["metadata of numbers"] = { file('{"__metadata__":{"a":1}}', 0), "__metadata__ 'a' is a number" },
  } do
    it("refuses " .. name, function()
      local none, err = load(case[1])
      assert.is_nil(none)
      assert.is_truthy(err:find(case[2], 1, true), err)
      assert.is_truthy(err:find("x.safetensors: ", 1, true))
    end)
  end

  it("names the caller's mistakes and unwritable places", function()
    assert.has_error(function() safetensors.save(folder .. "/x", { a = lr.zeros({ 1 }) }, { n = 1 }) end)
    assert.has_error(function() safetensors.save(folder .. "/x", { __metadata__ = lr.zeros({ 1 }) }) end)
    assert.has_error(function() safetensors.save(folder, { a = lr.zeros({ 1 }) }) end)
    local none, err = safetensors.load(folder .. "/missing.safetensors")
    assert.is_nil(none)
    assert.is_truthy(err:find("missing.safetensors", 1, true))
  end)
end)
