-- The docstrings of the library, read from its own Lua source when somebody asks. Documents nothing itself, loads no room.

local lfs = require "lfs"

local help = {}

-- the rooms in the order of the house; what is not named here follows in alphabetical order
local ORDER = { "core", "tensor", "autograd", "record", "nn", "optim", "train", "formats", "media", "graph", "pose", "motion", "data", "anomaly", "report" }

-- folders that are links out of the library: weights' manifest and recipes hold no functions to call
local SKIPPED = { models = true, recipes = true }

local function root()
  return (debug.getinfo(1, "S").source:match "^@(.*)[/\\][^/\\]*$" or ".")
end

-- every Lua file below a folder: its path and the name it is required by
local function each(folder, prefix, out)
  local names = {}
  for name in lfs.dir(folder) do
    if name:sub(1, 1) ~= "." then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local path = folder .. "/" .. name
    local mode = lfs.attributes(path, "mode")
    if mode == "directory" and not SKIPPED[name] then
      each(path, prefix .. name .. ".", out)
    elseif mode == "file" and name:find "%.lua$" then
      out[#out + 1] = { path = path, module = name == "init.lua" and prefix:gsub("%.$", "") or prefix .. name:gsub("%.lua$", "") }
    end
  end
  return out
end

local function lines_of(path)
  local file = io.open(path, "rb")
  if not file then
    return {}
  end
  local out = {}
  for line in file:lines() do
    out[#out + 1] = line:gsub("\r$", "")
  end
  file:close()
  return out
end

-- the first comment of a file: what it is and is not
local function purpose(lines)
  local words = {}
  for _, line in ipairs(lines) do
    local text = line:match "^%-%-+%s?(.*)$"
    if not text or text == "" then
      break
    end
    words[#words + 1] = text
    if text:find "%.$" then
      break
    end
  end
  local text = table.concat(words, " "):gsub("^[%w_]+%.lua: ", "")
  return (text:gsub("^%l", string.upper))
end

-- "function a.b(x)" or "a.b = function(x)": the name and its arguments
local function declared(line)
  local name, arguments = line:match "^%s*function%s+([%w_.:]+)%s*(%b())"
  if not name then
    name, arguments = line:match "^%s*([%w_.]+)%s*=%s*function%s*(%b())"
  end
  if not name then
    name = line:match "^%s*([%w_]+%.[%w_.]+)%s*=[^=]"
  end
  return name, arguments or ""
end

-- LuaCATS lines as a person reads them
local function readable(block)
  local out = {}
  for _, line in ipairs(block) do
    local text = line:gsub("^%s*%-%-%-%s?", "")
    local tag, rest = text:match "^@(%w+)%s*(.*)$"
    if tag == "param" then
      local name, kind, words = rest:match "^(%S+)%s+(%b{}%S*)%s*(.*)$"
      if not name then
        name, kind, words = rest:match "^(%S+)%s+(%S+)%s*(.*)$"
      end
      out[#out + 1] = name and ("  %s: %s%s"):format(name, kind, words ~= "" and "  " .. words or "") or "  " .. rest
    elseif tag == "return" then
      out[#out + 1] = "  returns " .. rest
    elseif tag == "field" then
      out[#out + 1] = "  ." .. rest
    elseif tag == "class" or tag == "overload" then
      out[#out + 1] = "  " .. tag .. " " .. rest
    elseif not tag then
      out[#out + 1] = text
    end
  end
  return out
end

---@class libration.help.Entry
---@field name string as declared: "plot.figure", "Tensor:view"
---@field last string the last part of the name
---@field module string what to require
---@field signature string
---@field text string[] lines

local entries

-- all documented functions and classes of the library, read once
local function index()
  if entries then
    return entries
  end
  entries = {}
  for _, file in ipairs(each(root(), "libration.", {})) do
    local block = {}
    for _, line in ipairs(lines_of(file.path)) do
      if line:find "^%s*%-%-%-" then
        block[#block + 1] = line
      else
        local name, arguments = declared(line)
        local class = #block > 0 and block[1]:match "@class%s+([%w_.]+)"
        if #block > 0 and (name or class) and not line:find "^%s*local function" then
          name = name or class
          entries[#entries + 1] = {
            name = name,
            last = name:match "[^.:]+$",
            module = file.module,
            signature = name .. arguments,
            text = readable(block),
            class = class and true or nil,
          }
        end
        block = {}
      end
    end
  end
  return entries
end

-- how many letters must change to make b of a (Levenshtein)
local function distance(a, b)
  local row = {}
  for j = 0, #b do
    row[j] = j
  end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local above = row[j]
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(above + 1, row[j - 1] + 1, diagonal + cost)
      diagonal = above
    end
  end
  return row[#b]
end

local function show(entry)
  local out = { entry.signature .. "    [" .. entry.module .. "]" }
  for _, line in ipairs(entry.text) do
    out[#out + 1] = "  " .. line
  end
  return table.concat(out, "\n")
end

local function first_line(entry)
  for _, line in ipairs(entry.text) do
    if not line:find "^  " and line ~= "" then
      return line
    end
  end
  return (entry.text[1] or ""):gsub("^%s+", "")
end

local function listed(found)
  local out, width = {}, 0
  for _, entry in ipairs(found) do
    width = math.max(width, #entry.signature)
  end
  width = math.min(width, 48)
  for _, entry in ipairs(found) do
    out[#out + 1] = ("%-" .. width .. "s  %s"):format(entry.signature, first_line(entry))
  end
  return table.concat(out, "\n")
end

---The rooms of the library, a line each.
---@return string
function help.rooms()
  local seen, rooms = {}, {}
  local function add(name)
    if seen[name] then
      return
    end
    seen[name] = true
    local base = root() .. "/" .. name
    local lines = lines_of(base .. "/init.lua")
    if #lines == 0 then
      lines = lines_of(base .. ".lua")
    end
    local words = purpose(lines)
    if words == "" and lfs.attributes(base, "mode") == "directory" then
      local parts = {}
      for part in lfs.dir(base) do
        if part:find "%.lua$" then
          parts[#parts + 1] = part:gsub("%.lua$", "")
        end
      end
      table.sort(parts)
      words = #parts > 0 and "Holds " .. table.concat(parts, ", ") .. "." or ""
    end
    if words ~= "" then
      rooms[#rooms + 1] = ("%-10s %s"):format(name, words)
    end
  end
  for _, name in ipairs(ORDER) do
    add(name)
  end
  local rest = {}
  for name in lfs.dir(root()) do
    local bare = name:gsub("%.lua$", "")
    if name:sub(1, 1) ~= "." and bare ~= "init" and not SKIPPED[bare] then
      rest[#rest + 1] = bare
    end
  end
  table.sort(rest)
  for _, name in ipairs(rest) do
    add(name)
  end
  return table.concat(rooms, "\n") .. '\n\nhelp "nn" lists a room, help "lstm" shows a docstring.'
end

-- a class with what can be called on it
local function show_class(entry)
  local members = {}
  for _, other in ipairs(index()) do
    if other.module == entry.module and not other.class and other.name:match "^(.-)[.:][^.:]+$" == entry.last then
      members[#members + 1] = other
    end
  end
  if #members == 0 then
    return show(entry)
  elseif #members == 1 then
    return show(entry) .. "\n" .. show(members[1])
  end
  return show(entry) .. "\n" .. listed(members)
end

---The docstring of a name, the functions of a room, or names that are near. Case does not matter.
---@param name string "lstm", "plot.figure", "libration.report"
---@return string text
---@return boolean found
function help.text(name)
  local wanted = name:lower():gsub("^libration%.", ""):gsub("^lr%.", ""):gsub("%(.*$", "")
  local found, same_room, same_file, partial = {}, {}, {}, {}
  for _, entry in ipairs(index()) do
    local full = entry.module:lower():gsub("^libration%.?", "") .. "." .. entry.last:lower()
    local plain = entry.name:lower():gsub("^libration%.", ""):gsub(":", ".")
    if entry.last:lower() == wanted or plain == wanted:gsub(":", ".") or full == wanted then
      found[#found + 1] = entry
    elseif plain:find(wanted, 1, true) then
      partial[#partial + 1] = entry
    end
    local module = entry.module:lower():gsub("^libration%.?", "")
    if module == wanted or module:sub(1, #wanted + 1) == wanted .. "." then
      same_room[#same_room + 1] = entry
    elseif module:match "[^.]+$" == wanted then
      same_file[#same_file + 1] = entry
    end
  end
  if #found > 0 and #found <= 4 then
    local out = {}
    for i, entry in ipairs(found) do
      out[i] = entry.class and show_class(entry) or show(entry)
    end
    if #same_room > 0 then
      out[#out + 1] = "In the room " .. wanted .. ":\n" .. listed(same_room)
    end
    return table.concat(out, "\n\n"), true
  elseif #found > 0 then
    return listed(found), true
  elseif #same_room > 0 then
    return listed(same_room), true
  elseif #same_file > 0 then
    return #same_file == 1 and show(same_file[1]) or listed(same_file), true
  elseif #partial > 0 and #wanted > 2 then
    return ("nothing is called %s; names that hold it:\n%s"):format(name, listed(partial)), false
  end
  local near, seen = {}, {}
  for _, entry in ipairs(index()) do
    local last = entry.last:lower()
    local d = distance(wanted:match "[^.:]+$" or wanted, last)
    if d <= math.max(2, math.floor(#wanted / 3)) and not seen[last] then
      seen[last] = true
      near[#near + 1] = { d, entry.last }
    end
  end
  table.sort(near, function(a, b)
    return a[1] < b[1] or a[1] == b[1] and a[2] < b[2]
  end)
  local names = {}
  for i = 1, math.min(5, #near) do
    names[i] = near[i][2]
  end
  return ("nothing is called %s%s"):format(name, #names > 0 and "; near: " .. table.concat(names, ", ") or ""), false
end

---Prints the rooms, or the docstring of a name.
---@param name string|nil
function help.print(name)
  if name == nil then
    print(help.rooms())
  elseif type(name) ~= "string" then
    error("help: came a " .. type(name) .. ', want a name: help "lstm"', 2)
  else
    print((help.text(name)))
  end
end

return setmetatable(help, {
  __call = function(_, name)
    if name ~= nil and type(name) ~= "string" then
      error("help: came a " .. type(name) .. ', want a name: help "lstm"', 2)
    end
    return help.print(name)
  end,
})
