-- Protocol buffers: the wire format's messages, numbers, strings and packed lists at checked offsets. Knows no schema.
-- A message is read once, its children when they are asked for; a child lies inside its parent and is shorter, so a walk ends.
-- Source: https://protobuf.dev/programming-guides/encoding/

---@class ProtoMessage
---@field r Reader
---@field at number first byte
---@field stop number byte after the last
local Message = {}
Message.__index = Message

local M = {}

local VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
local DEEPEST = 32 -- messages within messages

-- A varint at `at` as a signed whole number (exact below 2^53), and the byte after it.
local function varint(r, at, stop)
  local low, high, first = 0, 0, at
  for i = 0, 9 do
    if at >= stop then r:fail("a number at byte %.17g goes on behind its message's end at %.17g", first, stop) end
    local byte = r:u8(at)
    at = at + 1
    local bits = byte % 128
    if i < 4 then low = low + bits * 2 ^ (7 * i)
    elseif i == 4 then low, high = low + bits % 16 * 2 ^ 28, math.floor(bits / 16)
    else high = high + bits * 2 ^ (7 * i - 32) end
    if byte < 128 then
      high = high % 2 ^ 32
      return (high >= 2 ^ 31 and high - 2 ^ 32 or high) * 2 ^ 32 + low, at
    end
  end
  r:fail("a number at byte %.17g has more than ten bytes", first)
end

-- fields[number] = flat list of wire type, number or position, bytes
local function scan(r, at, stop)
  local fields = {}
  while at < stop do
    local start, size, value = at, 0, nil
    local key, after = varint(r, at, stop)
    at = after
    local wire, number = key % 8, math.floor(key / 8)
    if number < 1 or number >= 2 ^ 29 then r:fail("field number %.17g at byte %.17g", number, start) end
    if wire == VARINT then
      value, at = varint(r, at, stop)
    elseif wire == FIXED64 or wire == FIXED32 then
      value, size = at, wire == FIXED64 and 8 or 4
      at = at + size
    elseif wire == BYTES then
      size, at = varint(r, at, stop)
      if size < 0 then r:fail("a length of %.17g at byte %.17g", size, start) end
      value = at
      at = at + size
    else
      r:fail("wire type %d at byte %.17g, want 0, 1, 2 or 5: not a protocol buffer?", wire, start)
    end
    if at > stop then r:fail("field %d at byte %.17g goes on behind its message's end at %.17g", number, start, stop) end
    local list = fields[number]
    if not list then
      list = {}
      fields[number] = list
    end
    local n = #list
    list[n + 1], list[n + 2], list[n + 3] = wire, value, size
  end
  return fields
end

local function message(r, at, stop, depth)
  if depth > DEEPEST then r:fail("messages nested more than %d deep at byte %.17g", DEEPEST, at) end
  return setmetatable({ r = r, at = at, stop = stop, depth = depth, fields = scan(r, at, stop) }, Message)
end

---The message that a file is.
---@param r Reader
---@return ProtoMessage
function M.root(r)
  return message(r, 0, r:size(), 1)
end

---Whether a field is there.
function Message:has(field)
  return self.fields[field] ~= nil
end

-- The last entry of a field, which counts where it is not a list; raises when it is of another wire type.
local function last(self, field, wire)
  local list = self.fields[field]
  if not list then return nil end
  local n = #list
  if list[n - 2] ~= wire then self.r:fail("message at byte %.17g: field %d has wire type %d, want %d", self.at, field, list[n - 2], wire) end
  return list[n - 1], list[n]
end

---A whole number; `default` where it is left out.
---@return number
function Message:number(field, default)
  return last(self, field, VARINT) or default
end

---A 32-bit float.
---@return number
function Message:float(field, default)
  local at = last(self, field, FIXED32)
  return at and self.r:f32(at) or default
end

---Where the last bytes of a field lie.
---@return number? at, number? count
function Message:span(field)
  return last(self, field, BYTES)
end

---A string.
---@return string
function Message:text(field, default)
  local at, count = last(self, field, BYTES)
  return at and self.r:bytes(at, count) or default or ""
end

-- Calls visit(wire, value, size) for every entry of a field.
local function each(self, field, visit)
  local list = self.fields[field]
  for i = 1, list and #list or 0, 3 do visit(list[i], list[i + 1], list[i + 2]) end
end

local function want_bytes(self, field, wire)
  if wire ~= BYTES then self.r:fail("message at byte %.17g: field %d has wire type %d, want %d", self.at, field, wire, BYTES) end
end

---All strings of a field.
---@return string[]
function Message:texts(field)
  local out = {}
  each(self, field, function(wire, at, size)
    want_bytes(self, field, wire)
    out[#out + 1] = self.r:bytes(at, size)
  end)
  return out
end

---All child messages of a field.
---@return ProtoMessage[]
function Message:children(field)
  local out = {}
  each(self, field, function(wire, at, size)
    want_bytes(self, field, wire)
    out[#out + 1] = message(self.r, at, at + size, self.depth + 1)
  end)
  return out
end

---The last child message of a field, or nil.
---@return ProtoMessage?
function Message:child(field)
  local at, size = last(self, field, BYTES)
  return at and message(self.r, at, at + size, self.depth + 1) or nil
end

---All whole numbers of a field, packed or one by one.
---@return number[]
function Message:integers(field)
  local out, r = {}, self.r
  each(self, field, function(wire, value, size)
    if wire == VARINT then
      out[#out + 1] = value
      return
    end
    want_bytes(self, field, wire)
    local at, stop = value, value + size
    while at < stop do out[#out + 1], at = varint(r, at, stop) end
  end)
  return out
end

---Where the floating-point numbers of a field lie: pieces of `width` bytes each number, packed or one by one.
---@param width integer 4 or 8
---@return {at: number, count: number}[] pieces
---@return number total numbers in all
function Message:pieces(field, width)
  local out, total = {}, 0
  each(self, field, function(wire, at, size)
    if wire ~= (width == 8 and FIXED64 or FIXED32) then want_bytes(self, field, wire) end
    if size % width ~= 0 then self.r:fail("message at byte %.17g: %.17g bytes of field %d are no list of %d-byte numbers", self.at, size, field, width) end
    out[#out + 1] = { at = at, count = size / width }
    total = total + size / width
  end)
  return out, total
end

---All 32-bit floats of a field.
---@return number[]
function Message:floats(field)
  local out = {}
  for _, piece in ipairs((self:pieces(field, 4))) do
    for i = 0, piece.count - 1 do out[#out + 1] = self.r:f32(piece.at + 4 * i) end
  end
  return out
end

return M
