-- The checked reader: numbers, conversions, bounds, and files that cannot be read.
local ffi = require "ffi"
local files = require "libration.files"
local reader = require "libration.formats.reader"
local flatbuffer = require "libration.formats.flatbuffer"
local helper_tflite = require "helper_tflite"

describe("reader", function()
  it("reads each kind little endian", function()
    local r = reader.memory("m", "\1\2\3\4\5\6\7\8\255\254\253\252\251\250\249\248")
    assert.equal(1, r:u8(0))
    assert.equal(-1, r:i8(8))
    assert.equal(0x0201, r:u16(0))
    assert.equal(-257, r:i16(8))
    assert.equal(0x04030201, r:u32(0))
    assert.equal(4244504319, r:u32(8))
    assert.equal(-50462977, r:i32(8))
    assert.equal(16, r:size())
    assert.equal("\3\4", r:bytes(2, 2))
    local big = reader.memory("m", helper_tflite.bytes("u64", { 2 ^ 53 - 2 ^ 20 }) .. helper_tflite.bytes("f32", { 1.5 }))
    assert.equal(2 ^ 53 - 2 ^ 20, big:u64(0))
    assert.equal(1.5, big:f32(8))
  end)

  it("half and bfloat numbers: normal, subnormal, infinite, NaN", function()
    local r = reader.memory("m", helper_tflite.bytes("u16", { 0x3c00, 0xc100, 0x0001, 0x83ff, 0x7c00, 0x7e00, 0x3fc0 }))
    assert.equal(1, r:f16(0))
    assert.equal(-2.5, r:f16(2))
    assert.equal(2 ^ -24, r:f16(4))
    assert.equal(-1023 * 2 ^ -24, r:f16(6))
    assert.equal(math.huge, r:f16(8))
    assert.is_true(r:f16(10) ~= r:f16(10))
    assert.equal(1.5, r:bf16(12))
    local t = reader.memory("m", helper_tflite.bytes("u16", { 0x3c00, 0xc100 })):tensor(0, "f16", { 2 }):to("f32")
    assert.same({ 1, -2.5 }, t:totable())
  end)

  it("reads a NaN of any bits as a number: LuaJIT would take some for nil or an object", function()
    for kind, width in pairs { f16 = 2, bf16 = 2, f32 = 4, f64 = 8 } do
      for _, last in ipairs { "\255", "\127" } do
        local bytes = ("\255"):rep(width - 1) .. last
        local r = reader.memory("m", bytes:rep(8))
        local t = r:tensor(0, kind, { 8 })
        local wide, n = t:to("f64"):ptr(), 0
        for i = 0, 7 do
          local v = kind:sub(1, 1) == "f" and width > 2 and t:ptr()[i] or wide[i]
          assert.equal("number", type(v))
          assert.equal("number", type(r[kind](r, width * i)))
          if v ~= v and wide[i] ~= wide[i] then n = n + 1 end
        end
        assert.equal(8, n)
      end
    end
  end)

  it("refuses what lies outside, naming offset and want", function()
    local r = reader.memory("name.bin", "12345678")
    assert.has_error(function() r:u32(5) end, "name.bin: 1 x u32 wanted at byte 5, the file has 8 bytes")
    for _, at in ipairs { -1, 0.5, 9, 2 ^ 60, 1e300, 0 / 0, math.huge, -math.huge } do
      assert.has_error(function() r:u8(at) end)
      assert.has_error(function() r:bytes(at, 1) end)
    end
    for _, n in ipairs { -1, 9, 2 ^ 40, 1e300, math.huge, 0 / 0 } do
      assert.has_error(function() r:bytes(0, n) end)
      assert.has_error(function() r:integers(0, "u8", n) end)
    end
  end)

  it("makes no tensor that is larger than the file", function()
    local r = reader.memory("m", ("x"):rep(64))
    assert.has_error(function() r:tensor(0, "f32", { 1000000, 1000 }) end)
    assert.has_error(function() r:tensor(0, "f32", { 17 }) end)
    assert.has_error(function() r:tensor(4, "f32", { 16 }) end)
    assert.has_error(function() r:tensor(0, "f32", { -1 }) end)
    assert.has_error(function() r:tensor(0, "f32", { 1.5 }) end)
    assert.has_error(function() r:tensor(0, "u8", { 2 ^ 31, 2 ^ 31, 2 ^ 31 }) end)
    assert.has_error(function() r:tensor(0, "u8", { 1, 1, 1, 1, 1, 1, 1 }) end)
    assert.same({ 4, 4 }, r:tensor(0, "f32", { 4, 4 }).shape)
  end)

  it("64-bit integers become i32 when they fit, else are refused", function()
    local bytes = ffi.string(ffi.new("int64_t[3]", { 7, -7, 2 ^ 40 }), 24)
    local r = reader.memory("m", bytes)
    assert.same({ 7, -7 }, r:tensor(0, "i64", { 2 }):totable())
    assert.has_error(function() r:tensor(0, "i64", { 3 }) end, "m: i64 at byte 16 does not fit an int32")
    assert.has_error(function() reader.memory("m", ("\255"):rep(8)):u64(0) end)
  end)

  it("files: maps, closes, refuses a missing one, a folder, an empty one", function()
    local folder = files.temporary_folder()
    local path = folder .. "/a.bin"
    files.write(path, "abcd")
    local r = assert(reader.open(path))
    assert.equal(4, r:size())
    assert.equal("cd", r:bytes(2, 2))
    r:close()
    r:close()
    files.write(path, "")
    for _, bad in ipairs { path, folder, folder .. "/none" } do
      local none, err = reader.open(bad)
      assert.is_nil(none)
      assert.is_truthy(err:find(bad, 1, true))
      assert.is_nil(err:find("\n"))
    end
    files.remove(folder)
  end)

  it("flatbuffers: a shared child cannot make a small file long to read", function()
    -- one vector of 20,000 offsets to one table that holds a vector of 5,000 numbers: 10^8 elements in 100 kB
    local list, offsets = {}, {}
    for i = 1, 5000 do list[i] = i end
    for i = 1, 20000 do offsets[i] = 0 end
    local bytes = helper_tflite.flatbuffer("TEST", { [0] = { "vector", "u32", offsets }, [1] = { "table", { [0] = { "vector", "i32", list } } } })
    local r = reader.memory("shared", bytes)
    local root = flatbuffer.root(r, "TEST")
    local first = root:vector(0, 4)
    local child = root:child(1).at
    local patched = {}
    for i = 1, 20000 do patched[i] = child - (first + 4 * (i - 1)) end
    r = reader.memory("shared", bytes:sub(1, first) .. helper_tflite.bytes("u32", patched) .. bytes:sub(first + 80001))
    root = flatbuffer.root(r, "TEST")
    assert.has_error(function()
      for _, t in ipairs(root:children(0)) do t:integers(0, "i32") end
    end, ("shared: more elements than a file of %d bytes can hold"):format(#bytes))
  end)
end)
