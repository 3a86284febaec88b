-- safetensors files: named tensors and a table of strings. Reads and writes what the Python package does; knows nothing of models.
-- Layout: u64 size of the header, header (JSON padded with blanks so that data begins at a multiple of 8), data.
-- Source: https://github.com/huggingface/safetensors, README "Format".
local ffi = require "ffi"
local bit = require "bit"
local cjson = require "cjson"
local files = require "libration.files"
local reader = require "libration.formats.reader"
local tensor = require "libration.tensor"

local json = cjson.new()
json.decode_invalid_numbers(false)

local M = {}

local HEADER_LIMIT = 100e6 -- the format's own

-- name in the file -> kind of number, bytes
local dtypes = {
  F64 = { "f64", 8 }, F32 = { "f32", 4 }, F16 = { "f16", 2 }, BF16 = { "bf16", 2 }, U8 = { "u8", 1 }, BOOL = { "u8", 1 },
  I32 = { "i32", 4 }, I64 = { "i64", 8 }, I16 = { "i16", 2 }, I8 = { "i8", 1 }, U16 = { "u16", 2 }, U32 = { "u32", 4 }, U64 = { "u64", 8 },
}
local written = { f64 = "F64", f32 = "F32", f16 = "F16", bf16 = "BF16", u8 = "U8", i32 = "I32" }

-- First key that an object of the header has twice (cjson keeps the last one silently), or nil. text has been decoded once, so it is well formed.
local function duplicate_key(text)
  local seen, depth, at = {}, 0, 1
  while true do
    local start = text:find('["{}%[%]]', at)
    if not start then return nil end
    local c = text:sub(start, start)
    at = start + 1
    if c == '"' then
      local stop = at
      while true do
        local quote = text:find('["\\]', stop)
        if text:sub(quote, quote) == '"' then stop = quote break end
        stop = quote + 2
      end
      local keys = seen[depth]
      if keys and text:find("^%s*:", stop + 1) then
        local key = json.decode("[" .. text:sub(start, stop) .. "]")[1]
        if keys[key] then return key end
        keys[key] = true
      end
      at = stop + 1
    elseif c == "{" or c == "[" then
      depth = depth + 1
      seen[depth] = c == "{" and {} or nil
    else
      seen[depth] = nil
      depth = depth - 1
    end
  end
end

local function whole(v, limit)
  return type(v) == "number" and v >= 0 and v <= limit and v == math.floor(v)
end

-- A list of a broken header, for an error: JSON has no word for the infinity that it may hold.
local function listed(list)
  local words = {}
  for i = 1, math.min(#list, 8) do words[i] = tostring(list[i]) end
  return "[" .. table.concat(words, ",") .. (#list > 8 and ",...]" or "]")
end

-- One header entry, checked -> {name, kind, shape, first, last}
local function check_entry(r, name, e, bytes)
  if type(e) ~= "table" or type(e.dtype) ~= "string" or type(e.shape) ~= "table" or type(e.data_offsets) ~= "table" then
    r:fail("tensor '%s': want dtype, shape and data_offsets", name)
  end
  local dtype = dtypes[e.dtype]
  if not dtype then r:fail("tensor '%s': dtype '%s', want F64, F32, F16, BF16, U8, I32 or an integer", name, e.dtype) end
  local n = (#e.shape > 0 or next(e.shape) == nil) and reader.count_of(e.shape)
  if not n then r:fail("tensor '%s': shape %s is not one of ours (at most 6 dims)", name, listed(e.shape)) end
  local first, last = e.data_offsets[1], e.data_offsets[2]
  if #e.data_offsets ~= 2 or not whole(first, bytes) or not whole(last, bytes) or last < first then
    r:fail("tensor '%s': data_offsets %s outside the %.17g bytes of data", name, listed(e.data_offsets), bytes)
  end
  if last - first ~= n * dtype[2] then
    r:fail("tensor '%s': %.17g bytes for %s [%s], want %.17g", name, last - first, e.dtype, table.concat(e.shape, ","), n * dtype[2])
  end
  return { name = name, kind = dtype[1], shape = e.shape, first = first, last = last }
end

local function parse_header(r)
  local size = r:u64(0)
  if size > HEADER_LIMIT or 8 + size > r:size() then
    r:fail("header of %.17g bytes in a file of %.17g: not a safetensors file", size, r:size())
  end
  local text = r:bytes(8, size)
  local ok, header = pcall(json.decode, text)
  if text:find("\0", 1, true) then ok, header = false, "it holds a zero byte" end -- where cjson would stop reading
  if not ok or type(header) ~= "table" or not text:find("^%s*{") then
    r:fail("the header is not a JSON object%s", ok and "" or ": " .. tostring(header))
  end
  local twice = duplicate_key(text)
  if twice then r:fail("'%s' stands twice in the header", twice) end
  local metadata = header.__metadata__
  header.__metadata__ = nil
  if metadata ~= nil and type(metadata) ~= "table" then r:fail("__metadata__ is a %s, want strings by name", type(metadata)) end
  for key, value in pairs(metadata or {}) do
    if type(key) ~= "string" or type(value) ~= "string" then r:fail("__metadata__ '%s' is a %s, want a string", tostring(key), type(value)) end
  end
  local data = 8 + size
  local entries = {}
  for name, e in pairs(header) do entries[#entries + 1] = check_entry(r, tostring(name), e, r:size() - data) end
  table.sort(entries, function(a, b)
    if a.first ~= b.first then return a.first < b.first end
    if a.last ~= b.last then return a.last < b.last end
    return a.name < b.name
  end)
  local at = 0
  for i, e in ipairs(entries) do
    if e.first < at then r:fail("tensors '%s' and '%s' overlap", entries[i - 1].name, e.name) end
    if e.first > at then r:fail("%.17g bytes before tensor '%s' belong to none", e.first - at, e.name) end
    at = e.last
  end
  if data + at ~= r:size() then r:fail("%.17g bytes after the last tensor belong to none", r:size() - data - at) end
  return entries, metadata or {}, data
end

---Reads a file of named tensors.
---@param path string|Reader
---@return table<string, Tensor>? tensors f32, f64, f16, bf16, u8 and i32 as stored; other whole numbers become i32 when they fit
---@return table<string, string>|string metadata or, with nil, the error in one line
function M.load(path)
  return reader.read(path, function(r)
    local entries, metadata, data = parse_header(r)
    local tensors = {}
    for _, e in ipairs(entries) do tensors[e.name] = r:tensor(data + e.first, e.kind, e.shape) end
    return tensors, metadata
  end)
end

---Reads the header alone: what a file holds, without its data.
---@param path string|Reader
---@return table<string, {dtype: string, shape: integer[]}>?
---@return table<string, string>|string metadata or the error
function M.info(path)
  return reader.read(path, function(r)
    local entries, metadata = parse_header(r)
    local info = {}
    for _, e in ipairs(entries) do info[e.name] = { dtype = e.kind, shape = e.shape } end
    return info, metadata
  end)
end

local function header_text(entries, metadata)
  local parts = {}
  local keys = {}
  for key, value in pairs(metadata) do
    if type(key) ~= "string" or type(value) ~= "string" then
      error(("safetensors.save: metadata '%s' is a %s, want a string"):format(tostring(key), type(value)), 3)
    end
    keys[#keys + 1] = key
  end
  table.sort(keys)
  for i, key in ipairs(keys) do keys[i] = json.encode(key) .. ":" .. json.encode(metadata[key]) end
  if #keys > 0 then parts[1] = '"__metadata__":{' .. table.concat(keys, ",") .. "}" end
  for _, e in ipairs(entries) do
    parts[#parts + 1] = ('%s:{"dtype":"%s","shape":[%s],"data_offsets":[%.17g,%.17g]}'):format(
      json.encode(e.name), e.dtype, table.concat(e.shape, ","), e.first, e.last)
  end
  local text = "{" .. table.concat(parts, ",") .. "}"
  return text .. (" "):rep(-#text % 8)
end

local function little_u64(n)
  local bytes = {}
  for i = 1, 8 do
    bytes[i] = string.char(bit.band(n % 256, 255))
    n = math.floor(n / 256)
  end
  return table.concat(bytes)
end

---Writes named tensors, through a temporary file that is synced and renamed.
---@param path string
---@param tensors table<string, Tensor|Spool> of any device: the file knows none
---@param metadata? table<string, string>
---@return string path; raises one line where it cannot be written (the disk is full)
function M.save(path, tensors, metadata)
  local entries = {}
  for name, t in pairs(tensors) do
    if type(name) ~= "string" or name == "__metadata__" then
      error(("safetensors.save: '%s' is no name for a tensor"):format(tostring(name)), 2)
    end
    local dtype = written[t.dtype]
    if not dtype then error(("safetensors.save: '%s' is %s, want f32, f64, f16, bf16, u8 or i32"):format(name, tostring(t.dtype)), 2) end
    entries[#entries + 1] = { name = name, tensor = t, dtype = dtype, width = dtypes[dtype][2], shape = t.shape }
  end
  table.sort(entries, function(a, b) -- wide ones first, so that everything is aligned
    if a.width ~= b.width then return a.width > b.width end
    return a.name < b.name
  end)
  local at = 0
  for _, e in ipairs(entries) do
    e.first, e.last = at, at + e.tensor:numel() * e.width
    at = e.last
  end
  local header = header_text(entries, metadata or {})
  return files.write(path, function(out)
    out:write(little_u64(#header), header)
    for _, e in ipairs(entries) do
      if type(e.tensor) == "table" then
        e.tensor:pour(out)
      else
        local t = tensor.move(e.tensor, "cpu"):contiguous()
        if t:numel() > 0 then out:write(ffi.string(t:ptr(), e.last - e.first)) end
      end
    end
  end)
end

return M
