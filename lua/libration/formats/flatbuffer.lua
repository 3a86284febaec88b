-- FlatBuffers: tables, vectors and strings at checked offsets. Knows no schema.
-- Offsets to children are unsigned and at least 4, so a walk only goes forward and cannot run in circles; elements read in all are limited by the file's size,
-- so that many parents sharing one large child cannot make a small file long to read.
-- Source: https://flatbuffers.dev/internals/

---@class FlatTable
---@field r Reader
---@field at number position of the table
local FlatTable = {}
FlatTable.__index = FlatTable

local M = {}

local width = { u8 = 1, i8 = 1, u16 = 2, i16 = 2, u32 = 4, i32 = 4, f32 = 4, u64 = 8, i64 = 8, f64 = 8 }

local function table_at(r, at, budget)
  local vtable = at - r:i32(at)
  local vsize, tsize = r:u16(vtable), r:u16(vtable + 2)
  if vsize < 4 or vsize % 2 ~= 0 or tsize < 4 then r:fail("table at byte %.17g: its vtable at %.17g is broken", at, vtable) end
  return setmetatable({ r = r, at = at, vtable = vtable, vsize = vsize, tsize = tsize, budget = budget }, FlatTable)
end

---Counts n elements or bytes against what a file of this size can hold; raises when a file claims more.
---@param n number
function FlatTable:spend(n)
  local budget = self.budget
  budget.left = budget.left - n
  if budget.left < 0 then self.r:fail("more elements than a file of %.17g bytes can hold", self.r:size()) end
end

---Root table of a file. identifier: the four letters at byte 4, refused when others stand there.
---@param r Reader
---@param identifier string
---@return FlatTable
function M.root(r, identifier)
  if r:size() < 8 or r:bytes(4, 4) ~= identifier then r:fail("not a %s file (no '%s' at byte 4)", identifier, identifier) end
  local budget = { left = 2 * r:size() + 65536 }
  return table_at(r, r:u32(0), budget)
end

---A table that leaves every field out: what a missing child means.
---@return FlatTable
function FlatTable:absent()
  return setmetatable({ r = self.r, at = self.at, vtable = 0, vsize = 4, tsize = 4, budget = self.budget }, FlatTable)
end

-- Position of field number `field` (from 0), or nil where the table leaves it out.
local function position(self, field, bytes)
  local slot = 4 + 2 * field
  if slot + 2 > self.vsize then return nil end
  local offset = self.r:u16(self.vtable + slot)
  if offset == 0 then return nil end
  if offset < 4 or offset + bytes > self.tsize then
    self.r:fail("table at byte %.17g: field %d lies at %d of %d bytes", self.at, field, offset, self.tsize)
  end
  return self.at + offset
end

---A number, or `default` where the field is left out.
---@param field integer number in the schema, from 0
---@param kind string
---@param default number
---@return number
function FlatTable:number(field, kind, default)
  local at = position(self, field, width[kind])
  return at and self.r[kind](self.r, at) or default
end

---A truth value.
---@return boolean
function FlatTable:flag(field)
  return self:number(field, "u8", 0) ~= 0
end

local function target(self, at)
  local offset = self.r:u32(at)
  if offset < 4 then self.r:fail("offset %.17g at byte %.17g, want at least 4", offset, at) end
  return at + offset
end

---A child table, or nil.
---@return FlatTable?
function FlatTable:child(field)
  local at = position(self, field, 4)
  if not at then return nil end
  self:spend(1)
  return table_at(self.r, target(self, at), self.budget)
end

---Where a vector's elements begin and how many there are, checked against the file's size; nil where the field is left out.
---@param bytes integer of one element
---@return number? at, number? count
function FlatTable:vector(field, bytes)
  local at = position(self, field, 4)
  if not at then return nil end
  local start = target(self, at)
  local count = self.r:u32(start)
  if start + 4 + count * bytes > self.r:size() then
    self.r:fail("vector of %.17g elements at byte %.17g, the file has %.17g bytes", count, start, self.r:size())
  end
  return start + 4, count
end

---A vector of whole numbers as a list; {} where the field is left out.
---@return integer[]
function FlatTable:integers(field, kind)
  local at, count = self:vector(field, width[kind])
  if not at then return {} end
  self:spend(count)
  return self.r:integers(at, kind, count)
end

---A vector of floats as a list; {} where the field is left out.
---@return number[]
function FlatTable:floats(field)
  local at, count = self:vector(field, 4)
  local list = {}
  if not at then return list end
  self:spend(count)
  for i = 1, count do list[i] = self.r:f32(at + 4 * (i - 1)) end
  return list
end

---A vector of tables as a list; {} where the field is left out.
---@return FlatTable[]
function FlatTable:children(field)
  local at, count = self:vector(field, 4)
  local list = {}
  if not at then return list end
  self:spend(count)
  for i = 1, count do list[i] = table_at(self.r, target(self, at + 4 * (i - 1)), self.budget) end
  return list
end

---A string, or "" where the field is left out.
---@return string
function FlatTable:text(field)
  local at, count = self:vector(field, 1)
  if not at then return "" end
  self:spend(count)
  return self.r:bytes(at, count)
end

return M
