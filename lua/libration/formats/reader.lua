-- A file's bytes behind the bounds checks of csrc/reader.c, for the parsers of this room. Knows numbers and tensors, not formats.
local ffi = require "ffi"
local core = require "libration.core"
local tensor = require "libration.tensor"

local C = core.C

---@class Reader
---@field name string the path, for errors
local Reader = {}
Reader.__index = Reader

local number = ffi.new("double[1]")
local handle = ffi.new("lbr_reader *[1]")

-- Errors of this room are plain strings without a position: `protect` turns them into nil, err.
local function check(code)
  if code < 0 then error(ffi.string(C.lbr_error()), 0) end
end

-- kind in the file -> C constant, bytes each, dtype of the tensor it becomes, method that converts
local kinds = {
  f64 = { C.LBR_READ_F64, 8, "f64" }, f32 = { C.LBR_READ_F32, 4, "f32" }, f16 = { C.LBR_READ_F16, 2, "f16" },
  bf16 = { C.LBR_READ_BF16, 2, "bf16" }, u8 = { C.LBR_READ_U8, 1, "u8" }, i32 = { C.LBR_READ_I32, 4, "i32" },
  i8 = { C.LBR_READ_I8, 1, "i32", true }, i16 = { C.LBR_READ_I16, 2, "i32", true }, u16 = { C.LBR_READ_U16, 2, "i32", true },
  u32 = { C.LBR_READ_U32, 4, "i32", true }, i64 = { C.LBR_READ_I64, 8, "i32", true }, u64 = { C.LBR_READ_U64, 8, "i32", true },
}

for name, kind in pairs(kinds) do
  local code = kind[1]
  ---One little-endian number at byte `at` (from 0). Raises "path: ..." where the file ends before.
  Reader[name] = function(self, at)
    check(C.lbr_reader_number(self.handle, at, code, number))
    return number[0]
  end
end

---Bytes in the file.
---@return number
function Reader:size()
  return C.lbr_reader_size(self.handle)
end

---`count` bytes at byte `at` as a Lua string.
---@param at number
---@param count number
---@return string
function Reader:bytes(at, count)
  -- the copy is refused before a buffer is made when the file cannot hold that many
  if not (count >= 0 and count <= self:size()) then count = math.huge end
  local buffer = ffi.new("char[?]", count < math.huge and count or 1)
  check(C.lbr_reader_copy(self.handle, at, count, buffer, count))
  return ffi.string(buffer, count)
end

---Stops reading with "path: text".
function Reader:fail(format, ...)
  error(self.name .. ": " .. format:format(...), 0)
end

---Product of a shape, or nil where a dimension is not a whole number of 0 to 2^31-1, there are more than six, or the product passes 2^53.
---@param shape number[]
---@return number?
local function count_of(shape)
  if #shape > 6 then return nil end
  local n = 1
  for _, d in ipairs(shape) do
    if type(d) ~= "number" or d < 0 or d > 2147483647 or d ~= math.floor(d) then return nil end
    n = n * d
    if n > 2 ^ 53 then return nil end
  end
  return n
end

---Tensor of `shape` read from byte `at`. f64, f32, f16, bf16, u8 and i32 keep their dtype, other whole kinds become i32 when they fit.
---@param at number first byte
---@param kind string kind of number in the file
---@param shape number[]
---@return Tensor
function Reader:tensor(at, kind, shape)
  local k = kinds[kind]
  local n = count_of(shape)
  if not n then self:fail("shape [%s] is not one of ours (at most 6 dims of 0 to 2^31-1)", table.concat(shape, ",")) end
  if n * k[2] > self:size() then
    self:fail("%s [%s] wants %.17g bytes, the file has %.17g", kind, table.concat(shape, ","), n * k[2], self:size())
  end
  local t = tensor.empty(shape, k[3])
  if n > 0 then
    if k[4] then
      check(C.lbr_reader_i32(self.handle, at, n, k[1], t:ptr(), n))
    elseif k[3] == "u8" or k[3] == "i32" then
      check(C.lbr_reader_copy(self.handle, at, n * k[2], t:ptr(), n * k[2]))
    else
      check(C.lbr_reader_reals(self.handle, at, n, k[1], t:ptr(), n))
    end
  end
  return t
end

local wide = { i64 = ffi.typeof "int64_t[?]", u64 = ffi.typeof "uint64_t[?]", u32 = ffi.typeof "uint32_t[?]" }

---Tensor i32 of whole numbers that may be wider, limited to what an i32 holds.
---@param at number first byte
---@param kind string "i64", "u64" or "u32"
---@param shape number[] of a count that count_of knows
---@return Tensor
function Reader:limited(at, kind, shape)
  local n, width = count_of(shape), kinds[kind][2]
  if n * width > self:size() then self:fail("%s [%s] wants %.17g bytes, the file has %.17g", kind, table.concat(shape, ","), n * width, self:size()) end
  local t, buffer = tensor.empty(shape, "i32"), wide[kind](math.max(n, 1))
  check(C.lbr_reader_copy(self.handle, at, n * width, buffer, n * width))
  local p, signed = t:ptr(), kind == "i64"
  for i = 0, n - 1 do
    local v = buffer[i]
    if v > 2147483647 then v = 2147483647 elseif signed and v < -2147483648LL then v = -2147483648LL end
    p[i] = tonumber(v)
  end
  return t
end

---`count` whole numbers at byte `at` as a Lua list.
---@return integer[]
function Reader:integers(at, kind, count)
  local k = kinds[kind]
  if not (count >= 0 and count * k[2] <= self:size()) then
    self:fail("%.17g x %s wanted at byte %.17g, the file has %.17g bytes", count, kind, at, self:size())
  end
  local buffer = ffi.new("int32_t[?]", math.max(count, 1))
  check(C.lbr_reader_i32(self.handle, at, count, k[1], buffer, count))
  local list = {}
  for i = 1, count do list[i] = buffer[i - 1] end
  return list
end

---Lets go of the file. Tensors that were read stay.
function Reader:close()
  if self.handle ~= nil then
    C.lbr_reader_close(ffi.gc(self.handle, nil))
    self.handle = nil
  end
end

local M = { count_of = count_of }

---An error as one line of at most 300 bytes: names in broken files hold anything.
---@param err any
---@return string
function M.one_line(err)
  local text = tostring(err):gsub("%c", "?")
  return #text > 300 and text:sub(1, 297) .. "..." or text
end

local function wrap(name)
  return setmetatable({ name = name, handle = ffi.gc(handle[0], C.lbr_reader_close) }, Reader)
end

---Opens a file for reading.
---@param path string
---@return Reader? reader
---@return string? error one line: missing, a folder, empty
function M.open(path)
  if C.lbr_reader_open(path, handle) < 0 then return nil, ffi.string(C.lbr_error()) end
  return wrap(path)
end

---Reader over bytes in memory. Raises when there are none.
---@param name string for errors
---@param bytes string
---@return Reader
function M.memory(name, bytes)
  check(C.lbr_reader_memory(name, bytes, #bytes, handle))
  return wrap(name)
end

---Opens `source` (a path, or a Reader, which stays open), calls parse(reader) and closes. What the parser raises about the file comes back as nil, err.
---@param source string|Reader
---@param parse fun(r: Reader): any, any
---@return any? result
---@return any more the parser's second result, or the error
function M.read(source, parse)
  local r = source
  if type(source) == "string" then
    local opened, err = M.open(source)
    if not opened then return nil, err end
    r = opened
  end
  local ok, a, b = pcall(parse, r)
  if r ~= source then r:close() end
  if not ok then return nil, M.one_line(a) end
  return a, b
end

return M
