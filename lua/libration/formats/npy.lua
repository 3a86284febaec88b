-- NumPy .npy files: one array each. Reads versions 1 to 3, writes version 1, appends along the first axis. Knows nothing of what the numbers mean.
-- Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
local ffi = require "ffi"
local files = require "libration.files"
local reader = require "libration.formats.reader"
local stream = require "libration.formats.stream"

local M = {}

local HEADER = 128 -- of every file we write: room for any shape of ours, and data stays aligned to 64 as NumPy wants it

local kinds = { -- descr -> kind of number
  ["<f8"] = "f64", ["<f4"] = "f32", ["<f2"] = "f16", ["|u1"] = "u8", ["|b1"] = "u8", ["|i1"] = "i8",
  ["<i2"] = "i16", ["<u2"] = "u16", ["<i4"] = "i32", ["<u4"] = "u32", ["<i8"] = "i64", ["<u8"] = "u64",
}
local descr_of = { f64 = "<f8", f32 = "<f4", f16 = "<f2", u8 = "|u1", i32 = "<i4" }
local width_of = { f64 = 8, f32 = 4, f16 = 2, u8 = 1, i32 = 4 }

-- The header's text and where the data begins.
local function header_of(r)
  if r:size() < 10 or r:bytes(0, 6) ~= "\147NUMPY" then r:fail("not an npy file (it does not begin with \\x93NUMPY)") end
  local major = r:u8(6)
  if major < 1 or major > 3 then r:fail("npy version %d, want 1, 2 or 3", major) end
  local start = major == 1 and 10 or 12
  local size = major == 1 and r:u16(8) or r:u32(8)
  return r:bytes(start, size), start + size
end

-- The literal is a Python dict of three keys; anything else is refused rather than guessed.
local function parse_header(r)
  local text, data = header_of(r)
  local descr = text:match("['\"]descr['\"]%s*:%s*['\"]([^'\"]*)['\"]")
  if not descr then r:fail("no descr of one plain dtype in the header (structured arrays are not read)") end
  local kind = kinds[descr]
  if not kind then r:fail("dtype '%s', want little-endian f2, f4, f8, u1, i1 to i8", descr) end
  local order = text:match("['\"]fortran_order['\"]%s*:%s*(%a+)")
  if order ~= "True" and order ~= "False" then r:fail("no fortran_order in the header") end
  local list = text:match("['\"]shape['\"]%s*:%s*(%b())")
  if not list then r:fail("no shape in the header") end
  local shape = {}
  for item in list:sub(2, -2):gmatch("[^,]+") do
    local d = item:match("^%s*(%d+)L?%s*$")
    if d then
      shape[#shape + 1] = tonumber(d)
    elseif not item:match("^%s*$") then
      r:fail("shape %s is not a tuple of whole numbers", list)
    end
  end
  if not reader.count_of(shape) then r:fail("shape %s is not one of ours (at most 6 dims)", list) end
  return kind, shape, order == "True", data
end

---Reads an array. f8, f4, f2, u1 and i4 keep their type, other whole numbers become i32 when they fit; Fortran order is turned into C order.
---@param path string|Reader
---@return Tensor? array
---@return string? error one line
function M.load(path)
  return reader.read(path, function(r)
    local kind, shape, fortran, data = parse_header(r)
    if not fortran or #shape < 2 then return r:tensor(data, kind, shape) end
    local n = #shape
    local reversed, order = {}, {}
    for i, d in ipairs(shape) do
      reversed[n + 1 - i], order[i] = d, n + 1 - i
    end
    return r:tensor(data, kind, reversed):permute(unpack(order)):contiguous()
  end)
end

local function header_text(dtype, shape)
  local text = ("{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }"):format(
    descr_of[dtype], table.concat(shape, ", "), #shape == 1 and "," or "")
  return "\147NUMPY\1\0" .. string.char((HEADER - 10) % 256, math.floor((HEADER - 10) / 256)) .. text .. (" "):rep(HEADER - 11 - #text) .. "\n"
end

local function check_dtype(name, dtype, level)
  if not descr_of[dtype] then error(("%s: %s, want f32, f64, f16, u8 or i32"):format(name, tostring(dtype)), level + 1) end
end

local function bytes_of(t)
  if t:numel() == 0 then return "" end
  local c = t:contiguous()
  return ffi.string(c:ptr(), c:numel() * width_of[c.dtype])
end

---Writes a tensor as version 1, C order, through a temporary file that is synced and renamed.
---@param path string
---@param t Tensor f32, f64, f16, u8 or i32 (bf16 has no NumPy type)
---@return string path; raises one line where it cannot be written
function M.save(path, t)
  check_dtype("npy.save", t.dtype, 2)
  return files.write(path, header_text(t.dtype, t.shape) .. bytes_of(t))
end

---@class NpyWriter appends along the first axis; the file appears under its name at close
local Writer = {}
Writer.__index = Writer

---Begins a file of [T, ...] whose T is not known yet.
---@param path string
---@param shape integer[] of one row, without T: {33, 5} for [T,33,5]; {} for [T]
---@param dtype? string default "f32"
---@return NpyWriter writer; raises one line where the folder cannot be written
function M.writer(path, shape, dtype)
  dtype = dtype or "f32"
  check_dtype("npy.writer", dtype, 2)
  if not reader.count_of(shape) or #shape > 5 then error("npy.writer: the shape of a row wants at most 5 whole numbers", 2) end
  local file = stream.begin(path)
  file:write((" "):rep(HEADER))
  return setmetatable({ file = file, shape = shape, dtype = dtype, rows = 0 }, Writer)
end

---Appends one row [...] or several [n, ...]. Raises one line where the disk is full.
---@param t Tensor of the writer's dtype
function Writer:append(t)
  local shape = t.shape
  local extra = #shape - #self.shape
  local fits = t.dtype == self.dtype and (extra == 0 or extra == 1)
  for i, d in ipairs(self.shape) do fits = fits and shape[i + extra] == d end
  if not fits then
    local row = table.concat(self.shape, ",")
    error(("npy append: %s [%s], want %s [%s] or [n,%s]"):format(t.dtype, table.concat(shape, ","), self.dtype, row, row), 2)
  end
  self.file:write(bytes_of(t))
  self.rows = self.rows + (extra == 1 and shape[1] or 1)
end

---Appends one row from memory.
---@param values ffi.cdata* as many numbers of the writer's dtype as a row has
function Writer:append_row(values)
  local n = width_of[self.dtype]
  for _, d in ipairs(self.shape) do n = n * d end
  self.file:write(ffi.string(values, n))
  self.rows = self.rows + 1
end

---Patches T into the header, syncs and renames.
---@return string path
function Writer:close()
  local shape = { self.rows }
  for i, d in ipairs(self.shape) do shape[i + 1] = d end
  self.file:patch(0, header_text(self.dtype, shape))
  return self.file:close()
end

---Drops what was written; the file never appears.
function Writer:abort()
  self.file:abort()
end

return M
