-- Reads JSON piece by piece, for files that people edit: every refusal names file, line and field, and nothing is held but what the caller keeps.
local files = require "libration.files"

local json_reader = {}

---@class JsonReader
---@field path string file, for errors
---@field text string a window of the file; `at` is the place in it
---@field line integer of the file, at the place `counted` of the window
local Reader = {}
Reader.__index = Reader

local AHEAD = 65536 -- bytes of the window before its end at which more is fetched: no word or number is longer

--- A reader of a file.
---@param path string
---@param limit integer bytes that the file may have
---@return JsonReader|nil reader, or nil and the reason
---@return string|nil reason
function json_reader.open(path, limit)
  local more, why = files.pieces(path, limit)
  if not more then return nil, why end
  return setmetatable({ more = more, text = "", path = path, at = 1, line = 1, counted = 1, trail = {} }, Reader)
end

-- The line of the file at which the reader is.
local function line_here(self)
  local text, at = self.text, self.at
  local stop = text:find("\n", self.counted, true)
  while stop and stop < at do
    self.line, self.counted = self.line + 1, stop + 1
    stop = text:find("\n", stop + 1, true)
  end
  return self.line
end

--- Raises one line: file, line, field, what is wrong.
---@param what string
---@param line? integer the line at which it is, where that is not where the reader is
function Reader:fail(what, line)
  local field = table.concat(self.trail):gsub("^%.", "")
  error(("%s, line %d%s: %s"):format(self.path, line or line_here(self), field ~= "" and ", " .. field or "", what), 0)
end

-- Moves the window on: what was read goes, more comes. False at the end of the file.
local function fetch(self)
  if not self.more then return false end
  line_here(self)
  local parts = { self.text:sub(self.at) }
  for i = 2, 5 do
    local piece, reason = self.more()
    if reason then error(reason, 0) end
    if not piece then
      self.more = nil
      break
    end
    parts[i] = piece
  end
  self.text, self.at, self.counted = table.concat(parts), 1, 1
  return true
end

-- Goes to the next character that is no white space; returns it, "" at the end.
local function peek(self)
  if self.more and #self.text - self.at < AHEAD then fetch(self) end
  local at = self.text:find("[^ \t\r\n]", self.at)
  while not at do
    self.at = #self.text + 1
    if not fetch(self) then return "" end
    at = self.text:find "[^ \t\r\n]"
  end
  self.at = at
  return self.text:sub(at, at)
end

local function shown(self)
  local word = self.text:match("^[%w_%.%+%-\"{%[]+", self.at) or self.text:sub(self.at, self.at)
  return word == "" and "the end of the file" or "'" .. word:sub(1, 20) .. "'"
end

local function expect(self, character, after)
  if peek(self) ~= character then self:fail(("%s, want '%s'%s"):format(shown(self), character, after or "")) end
  self.at = self.at + 1
end

local ESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

local function utf8(code)
  local char, floor = string.char, math.floor
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then return char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64) end
  return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
end

---@return string
function Reader:string()
  if peek(self) ~= '"' then self:fail(shown(self) .. ", want text in double quotes") end
  local parts, at = {}, self.at + 1
  while true do
    local stop = self.text:find('["\\%c]', at)
    while self.more and (not stop or #self.text - stop < 12) do -- it, or an escape in it, goes on behind the window
      self.at = stop or #self.text + 1
      parts[#parts + 1] = self.text:sub(at, self.at - 1)
      fetch(self)
      at, stop = 1, self.text:find '["\\%c]'
    end
    if not stop then self:fail "text without its closing quote" end
    parts[#parts + 1] = self.text:sub(at, stop - 1)
    local c = self.text:sub(stop, stop)
    if c == '"' then
      self.at = stop + 1
      return table.concat(parts)
    end
    if c ~= "\\" then self:fail "a control character inside text" end
    local e = self.text:sub(stop + 1, stop + 1)
    if e == "u" then
      local code = tonumber(self.text:match("^%x%x%x%x", stop + 2) or self:fail "\\u without four hexadecimal digits", 16)
      at = stop + 6
      local low = code >= 0xD800 and code < 0xDC00 and self.text:match("^\\u([Dd][C-Fc-f]%x%x)", at)
      if low then code, at = 0x10000 + (code - 0xD800) * 1024 + tonumber(low, 16) - 0xDC00, at + 6 end
      parts[#parts + 1] = utf8(code)
    else
      parts[#parts + 1] = ESCAPES[e] or self:fail("unknown escape \\" .. e)
      at = stop + 2
    end
  end
end

--- A number within bounds.
---@param least? number
---@param most? number
---@param whole? boolean whole numbers only
---@return number
function Reader:number(least, most, whole)
  peek(self)
  local word = self.text:match("^%-?%d+%.?%d*[eE]?[%+%-]?%d*", self.at)
  local value = word and tonumber(word)
  if not value then self:fail(shown(self) .. ", want a number") end
  if least and value < least then self:fail(("%s, want at least %.9g"):format(word, least)) end
  if most and value > most or value == math.huge then self:fail(("%s, want at most %.9g"):format(word, most or 1e308)) end
  if whole and value % 1 ~= 0 then self:fail(word .. ", want a whole number") end
  self.at = self.at + #word
  return value
end

---@return boolean
function Reader:boolean()
  peek(self)
  local word = self.text:match("^%a+", self.at)
  if word ~= "true" and word ~= "false" then self:fail(shown(self) .. ", want true or false") end
  self.at = self.at + #word
  return word == "true"
end

--- True, and past it, where null comes next.
---@return boolean
function Reader:null()
  peek(self)
  if self.text:match("^null%f[^%w]", self.at) then
    self.at = self.at + 4
    return true
  end
  return false
end

--- A list: calls each(i) before each element, which it must read.
---@param each fun(i: integer)
---@return integer count
function Reader:list(each)
  expect(self, "[", ", the beginning of a list")
  local n, depth = 0, #self.trail + 1
  if depth > 64 then self:fail "nested too deeply" end
  if peek(self) == "]" then
    self.at = self.at + 1
    return 0
  end
  while true do
    n = n + 1
    self.trail[depth] = "[" .. n .. "]"
    each(n)
    local c = peek(self)
    if c ~= "," and c ~= "]" then self:fail(shown(self) .. ", want ',' or ']'") end
    self.at, self.trail[depth] = self.at + 1, nil
    if c == "]" then return n end
  end
end

--- An object: calls each field's function, which must read its value. Unknown, repeated and missing fields are refused by name.
---@param fields table<string, fun()> by name
---@param needed? string[] names that must be there
function Reader:object(fields, needed)
  expect(self, "{", ", the beginning of an object")
  local depth, seen = #self.trail + 1, {}
  if depth > 64 then self:fail "nested too deeply" end
  local start = line_here(self)
  if peek(self) == "}" then
    self.at = self.at + 1
  else
    while true do
      local name = self:string()
      self.trail[depth] = "." .. name
      if seen[name] then self:fail "stands twice" end
      seen[name] = true
      if not fields[name] then
        local known = {}
        for key in pairs(fields) do known[#known + 1] = key end
        table.sort(known)
        self:fail("unknown field; known are " .. table.concat(known, ", "))
      end
      expect(self, ":")
      fields[name]()
      local c = peek(self)
      if c ~= "," and c ~= "}" then self:fail(shown(self) .. ", want ',' or '}'") end
      self.at, self.trail[depth] = self.at + 1, nil
      if c == "}" then break end
      peek(self)
    end
  end
  for _, name in ipairs(needed or {}) do
    if not seen[name] then self:fail(("the field '%s' is missing"):format(name), start) end
  end
end

--- Refuses anything behind the last value.
function Reader:finish()
  if peek(self) ~= "" then self:fail(shown(self) .. " after the end") end
end

return json_reader
