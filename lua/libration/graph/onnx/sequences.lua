-- ONNX's sequences, which exist while a network is made only: lists of values whose positions are known. Entries as in onnx/elementwise.lua.
local entries = {}

-- The list of a sequence, copied.
local function list_of(self, i)
  return { unpack(self:sequence(i)) }
end

-- Position from 1 that input i names; `room` more than the list has is allowed.
local function position(self, i, list, room, default)
  local v = self:input(i, true)
  local at = v and self:list(v)[1] or default
  if at < 0 then at = at + #list end
  if at < 0 or at >= #list + room then self:fail("position %d of %d", at, #list) end
  return at + 1
end

function entries.SequenceConstruct(self) return { sequence = self:inputs() } end

function entries.SequenceEmpty() return { sequence = {} } end

function entries.SequenceAt(self)
  local list = self:sequence(1)
  return list[position(self, 2, list, 0)]
end

function entries.SequenceLength(self) return self:constant(#self:sequence(1), "i64") end

function entries.SequenceInsert(self)
  local list = list_of(self, 1)
  table.insert(list, position(self, 3, list, 1, #list), self:input(2))
  return { sequence = list }
end

function entries.SequenceErase(self)
  local list = list_of(self, 1)
  table.remove(list, position(self, 2, list, 0, #list - 1))
  return { sequence = list }
end

function entries.SplitToSequence(self)
  local x, split = self:input(1), self:input(2, true)
  local d = self:dim(self:attribute("axis", 0), #x.shape)
  local sizes, size, at, list = nil, 1, 1, {}
  if split and #split.shape > 0 then sizes = self:list(split) elseif split then size = self:list(split)[1] end
  if size < 1 then self:fail("parts of %d", size) end
  while at <= x.shape[d] do
    local n = sizes and (sizes[#list + 1] or self:fail("%d numbers in fewer parts", x.shape[d])) or math.min(size, x.shape[d] - at + 1)
    if n < 0 or at + n - 1 > x.shape[d] then self:fail("parts of [%s]", table.concat(sizes, ",")) end
    local attr, shape = { first = {}, last = {}, step = {} }, {}
    for i, whole in ipairs(x.shape) do
      attr.first[i], attr.last[i], attr.step[i] = i == d and at or 1, i == d and at + n - 1 or whole, 1
      if i ~= d then shape[#shape + 1] = whole end
    end
    local part = self:emit("slice", { x }, attr)
    list[#list + 1] = not split and self:attribute("keepdims", 1) == 0 and self:reshaped(part, shape) or part
    at = at + n
    if #list > 2 ^ 16 then self:fail("more than 65536 parts") end
  end
  return { sequence = list }
end

function entries.ConcatFromSequence(self)
  local list, new = list_of(self, 1), self:attribute("new_axis", 0) ~= 0
  if #list == 0 then self:fail("an empty sequence") end
  local d = self:dim(self:attribute("axis", nil, "number") or self:fail("no axis"), #list[1].shape + (new and 1 or 0))
  if new then
    for i, v in ipairs(list) do
      local shape = { unpack(v.shape) }
      table.insert(shape, d, 1)
      list[i] = self:reshaped(v, shape)
    end
  end
  return #list == 1 and list[1] or self:emit("concat", list, { dim = d })
end

return entries
