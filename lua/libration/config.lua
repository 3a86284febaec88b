-- Reads a file of settings: a Lua table evaluated with nothing in reach, or flat YAML. Knows no option's name or type.
local files = require "libration.files"

local config = {}

local MAX_BYTES, MAX_STEPS, MAX_GROWTH = 262144, 100000, 8192 -- of the file; VM instructions; kilobytes

-- A Lua chunk that can only build values: no globals, no string methods, bounded steps and memory.
local function run(text, path)
  if text:byte(1) == 27 then return nil, path .. ": compiled Lua is not read" end
  local chunk, reason = load(text, "=" .. path, "t", {})
  if not chunk then return nil, (tostring(reason):gsub("^(.-):(%d+): ", "%1, line %2: ")) end
  jit.off(chunk, true) -- compiled traces do not call hooks
  local strings = getmetatable("")
  local methods, steps, base = strings.__index, 0, collectgarbage("count")
  local hook, mask, count = debug.gethook()
  strings.__index = nil
  debug.sethook(function()
    steps = steps + 1
    local heavy = collectgarbage("count") - base > MAX_GROWTH
    if steps <= MAX_STEPS and not heavy then return end
    debug.sethook() -- or it would raise again behind the pcall
    error((heavy and "uses too much memory" or "runs too long") .. ", want a plain table", 0)
  end, "", 1)
  local ok, value = pcall(chunk)
  debug.sethook(hook, mask, count)
  strings.__index = methods
  return ok, value
end

local function read_lua(text, path)
  local ok, value = run(text, path)
  if ok == nil then return nil, value end
  if not ok then return nil, ("%s: %s"):format(path, (tostring(value):gsub("^.-:(%d+): ", "line %1: "))) end
  if type(value) ~= "table" then return nil, ("%s returns %s, want a table"):format(path, type(value)) end
  local settings = {}
  for name, setting in pairs(value) do
    if type(name) ~= "string" then return nil, ("%s: %s is no option name"):format(path, tostring(name)) end
    if type(setting) == "function" then return nil, ("%s: %s is a function"):format(path, name) end
    settings[#settings + 1] = {name = name, value = setting}
  end
  table.sort(settings, function(a, b) return a.name < b.name end)
  return settings
end

local ESCAPES = {n = "\n", t = "\t", ["\\"] = "\\", ['"'] = '"', ["/"] = "/"}

-- The scalar at the start of text: value, what stands behind it. Plain scalars stay text; the option's type decides.
local function yaml_scalar(text, stop)
  local quote = text:sub(1, 1)
  if quote == '"' then
    local out, i = {}, 2
    while i <= #text do
      local c = text:sub(i, i)
      if c == '"' then return table.concat(out), text:sub(i + 1) end
      if c == "\\" then
        i = i + 1
        c = ESCAPES[text:sub(i, i)]
        if not c then return nil, "unknown escape \\" .. text:sub(i, i) end
      end
      out[#out + 1] = c
      i = i + 1
    end
    return nil, "the quote is not closed"
  elseif quote == "'" then
    local out, rest = "", text:sub(2)
    while true do
      local piece, behind = rest:match("^([^']*)'(.*)$")
      if not piece then return nil, "the quote is not closed" end
      out = out .. piece
      if behind:sub(1, 1) ~= "'" then return out, behind end
      out, rest = out .. "'", behind:sub(2)
    end
  end
  local plain = text:match(stop)
  local rest = text:sub(#plain + 1)
  local cut = (" " .. plain):find("%s#")
  if cut then plain, rest = plain:sub(1, cut - 1), "" end
  plain = plain:gsub("%s+$", "")
  if plain:find("^[%[%]{}&*!|>%%@`]") then return nil, "nested values, anchors and blocks are not read, only 'name: value' and '[a, b]'" end
  return plain, rest
end

local function yaml_value(text)
  if text:sub(1, 1) ~= "[" then
    local value, rest = yaml_scalar(text, "^.*$")
    if not value then return nil, rest end
    if rest:gsub("^%s+#.*$", ""):find("%S") then return nil, "text behind the closing quote" end
    return value
  end
  local list, rest = {}, text:sub(2):gsub("^%s+", "")
  while rest:sub(1, 1) ~= "]" do
    if rest == "" then return nil, "the list is not closed" end
    local value, behind = yaml_scalar(rest, "^[^,%]]*")
    if not value then return nil, behind end
    list[#list + 1] = value
    rest = behind:gsub("^%s+", "")
    if rest:sub(1, 1) == "," then
      rest = rest:sub(2):gsub("^%s+", "")
    elseif rest:sub(1, 1) ~= "]" then
      return nil, "the list is not closed"
    end
  end
  if rest:sub(2):gsub("^%s*#.*$", ""):find("%S") then return nil, "text behind the list" end
  return list
end

local function read_yaml(text, path)
  local settings, number, seen = {}, 0, {}
  local open -- a setting whose list stands on the lines below it
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do
    number = number + 1
    local function wrong(reason) return nil, ("%s, line %d: %s"):format(path, number, reason) end
    local item = line:match("^%s*%-%s+(.*)$")
    local blank = line:match("^%s*$") or line:match("^%s*#") or line:match("^%-%-%-%s*$") or line:match("^%.%.%.%s*$")
    if not blank and item and open then
      local value, reason = yaml_scalar(item, "^.*$")
      if not value then return wrong(reason) end
      table.insert(open.value, value)
    elseif not blank and line:match("^%s") then
      return wrong("nested values are not read, only 'name: value'")
    elseif not blank then
      local name, rest = line:match("^([%w_%-]+)%s*:%s+(.*)$")
      if not name then name, rest = line:match("^([%w_%-]+)%s*:$"), "" end
      if not name then return wrong("want 'name: value'") end
      if seen[name] then return wrong(name .. " stands twice") end
      seen[name], open = true, nil
      if rest == "" or rest:match("^#") then
        open = {name = name, value = {}}
        settings[#settings + 1] = open
      else
        local value, reason = yaml_value(rest)
        if value == nil then return wrong(reason) end
        settings[#settings + 1] = {name = name, value = value}
      end
    end
  end
  for _, setting in ipairs(settings) do
    if type(setting.value) == "table" and #setting.value == 0 and setting == open then
      return nil, ("%s: %s has no value"):format(path, setting.name)
    end
  end
  return settings
end

---Settings of a file. Lua where the name ends in .lua or the text starts with "return"; flat YAML otherwise.
---@param path string at most 256 KiB
---@return {name: string, value: any}[]|nil settings in the file's order (Lua: by name), or nil and the reason in one line
function config.read(path)
  local text, reason = files.read(path, MAX_BYTES)
  if not text then return nil, reason end
  local body = text:gsub("^\239\187\191", "")
  local code = body:gsub("^%s+", "")
  while code:match("^%-%-[^\n]*\n") and not path:find("%.ya?ml$") do code = code:gsub("^%-%-[^\n]*\n%s*", "", 1) end
  if path:find("%.lua$") or path:find("%.ya?ml$") == nil and (code:match("^return[%s{]") or code:sub(1, 1) == "\27") then
    return read_lua(body, path)
  end
  return read_yaml(body, path)
end

return config
