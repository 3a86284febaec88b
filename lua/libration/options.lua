-- Options of a recipe: one table of documented defaults -> --help, the command line, --config FILE. Does no work of its own.
local config = require "libration.config"
local log = require "libration.log"

local options = {}

local DASH = "(--help shows all)"

-- "learning_rate" and "learning-rate" are one name; the values table uses the first form, the command line the second.
local function key_of(name) return (name:gsub("%-", "_")) end
local function flag_of(name) return (name:gsub("_", "-")) end

local function is_integer(v) return type(v) == "number" and v % 1 == 0 and math.abs(v) <= 2 ^ 53 end

-- How a list's elements or a lone default name their type.
local function type_of(default)
  if type(default) == "table" then return "list" end
  if type(default) == "number" then return is_integer(default) and "integer" or "number" end
  return type(default)
end

local TYPES = {integer = true, number = true, string = true, boolean = true, list = true}

-- The rows of a recipe as specs by key, checked once so that a wrong row is the author's error, not the user's.
local function read_rows(rows, level)
  local specs, by_key = {}, {}
  local function take(row, positional)
    local name = row[1]
    if type(name) ~= "string" then error("options: a row starts with its name", level + 2) end
    local spec = {
      name = flag_of(name), key = key_of(name), default = row[2], help = row[3] or "", positional = positional,
      metavar = row.metavar, min = row.min, max = row.max, above = row.above, choices = row.choices,
      many = row.many, required = row.required, check = row.check, hidden = row.hidden,
    }
    spec.type = row.type or (row[2] == nil and "string") or type_of(row[2])
    if not TYPES[spec.type] then error(("options: %s has no type (default %s)"):format(name, tostring(row[2])), level + 2) end
    if spec.type == "list" then spec.of = row.of or (row[2] and row[2][1] ~= nil and type_of(row[2][1])) or "string" end
    if by_key[spec.key] then error(("options: %s stands twice"):format(name), level + 2) end
    by_key[spec.key] = spec
    specs[#specs + 1] = spec
    return spec
  end
  for _, row in ipairs(rows) do take(row) end
  local positional
  if rows.positional then
    positional = take(rows.positional, true)
    if rows.positional.required == nil then positional.required = rows.positional[2] == nil or rows.positional[2] == "" end
    positional.metavar = positional.metavar or positional.name:upper()
    specs[#specs] = nil
  end
  return specs, by_key, positional
end

-- Damerau-Levenshtein distance (adjacent swaps count one), for "did you mean".
local function distance(a, b)
  local d = {}
  for i = 0, #a do d[i] = {[0] = i} end
  for j = 0, #b do d[0][j] = j end
  for i = 1, #a do
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      d[i][j] = math.min(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        d[i][j] = math.min(d[i][j], d[i - 2][j - 2] + 1)
      end
    end
  end
  return d[#a][#b]
end

---The candidate nearest to a misspelt name, or nil where none is near.
---@param candidates string[]
function options.nearest(name, candidates)
  local best, least
  for _, candidate in ipairs(candidates) do
    local far = distance(name, candidate)
    if #name >= 3 and candidate:sub(1, #name) == name then far = 1 end
    if not least or far < least then best, least = candidate, far end
  end
  if best and least <= math.max(1, math.floor(#name / 3)) then return best end
end

local function unknown(label, name, specs)
  local names = {}
  for _, spec in ipairs(specs) do
    if not spec.hidden then names[#names + 1] = spec.name end
  end
  local near = options.nearest(flag_of(name), names)
  return ("unknown option %s%s; known: %s"):format(label, near and (" (did you mean --%s?)"):format(near) or "",
    "--" .. table.concat(names, " --") .. " --config --help")
end

local WANT = {integer = "a whole number", number = "a number", boolean = "true or false", string = "text"}

-- One value from text (command line, YAML) or from a Lua value of a config file.
local function scalar(kind, value)
  if type(value) == "string" and kind ~= "string" then
    if kind == "boolean" then
      local truth = ({["true"] = true, yes = true, on = true, ["false"] = false, no = false, off = false})[value:lower()]
      if truth ~= nil then return truth end
    else
      value = not value:find("[xXpP]") and tonumber(value) or value
    end
  end
  if kind == "string" and type(value) == "string" then return value end
  if kind == "boolean" and type(value) == "boolean" then return value end
  if kind == "number" and type(value) == "number" and value == value then return value end
  if kind == "integer" and is_integer(value) then return value end
  return nil
end

local function bounds(spec, v)
  if spec.min and v < spec.min then return ("at least %s"):format(spec.min) end
  if spec.max and v > spec.max then return ("at most %s"):format(spec.max) end
  if spec.above and v <= spec.above then return ("more than %s"):format(spec.above) end
end

local function show(v)
  return type(v) == "string" and '"' .. v .. '"' or tostring(v)
end

-- The value checked against its spec: value, or nil and what is wrong with it.
local function convert(spec, label, value)
  if spec.type == "list" then
    local list = {}
    if type(value) == "string" then
      if spec.many then
        value = {value}
      else
        local parts = {}
        for part in (value .. ","):gmatch("%s*(.-)%s*,") do parts[#parts + 1] = part end
        if value:match("^%s*$") then parts = {} end
        value = parts
      end
    elseif type(value) ~= "table" then
      value = {value}
    end
    local count = 0
    for _ in pairs(value) do count = count + 1 end
    if count ~= #value then return nil, ("%s: a table with names, want a list"):format(label) end
    local element = setmetatable({type = spec.of, check = false}, {__index = spec})
    for i, v in ipairs(value) do
      local one, reason = convert(element, label, v)
      if one == nil then return nil, reason end
      list[i] = one
    end
    if spec.check then
      local ok, reason = spec.check(list)
      if not ok then return nil, ("%s: %s"):format(label, reason) end
    end
    return list
  end
  local v = scalar(spec.type, value)
  if v == nil then return nil, ("%s is %s, want %s"):format(label, show(value), WANT[spec.type]) end
  local wrong = type(v) == "number" and bounds(spec, v)
  if wrong then return nil, ("%s is %s, want %s"):format(label, show(v), wrong) end
  if spec.choices then
    local found = false
    for _, choice in ipairs(spec.choices) do found = found or choice == v end
    if not found then
      local names = {}
      for i, choice in ipairs(spec.choices) do names[i] = tostring(choice) end
      return nil, ("%s is %s, want %s"):format(label, show(v), table.concat(names, ", "):gsub(", ([^,]*)$", " or %1"))
    end
  end
  if spec.check and not (v == "" and spec.default == "") then
    local ok, reason = spec.check(v)
    if not ok then return nil, ("%s: %s"):format(label, reason) end
  end
  return v
end

local function default_of(spec)
  if type(spec.default) == "table" then
    local copy = {}
    for i, v in ipairs(spec.default) do copy[i] = v end
    return copy
  end
  return spec.default
end

local function metavar(spec)
  if spec.metavar then return spec.metavar end
  if spec.choices then
    local names = {}
    for i, choice in ipairs(spec.choices) do names[i] = tostring(choice) end
    return table.concat(names, "|")
  end
  return ({integer = "N", number = "X", list = "LIST", string = "TEXT"})[spec.type]
end

local function wrap(text, width, indent)
  local lines, line = {}, ""
  for word in text:gmatch("%S+") do
    if #line > 0 and #line + 1 + #word > width then
      lines[#lines + 1] = line
      line = word
    else
      line = line == "" and word or line .. " " .. word
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n" .. (" "):rep(indent))
end

local function remark(spec)
  local parts, default = {}, spec.default
  if type(default) == "table" then default = #default > 0 and table.concat(default, ",") or nil end
  if spec.required then
    parts[1] = "required"
  elseif spec.type ~= "boolean" and default ~= nil and default ~= "" then
    parts[1] = "default " .. tostring(default)
  elseif spec.type == "boolean" and default then
    parts[1] = "on unless --no-" .. spec.name
  end
  if spec.min and spec.max then
    parts[#parts + 1] = ("%s to %s"):format(spec.min, spec.max)
  elseif spec.min or spec.max or spec.above then
    parts[#parts + 1] = spec.min and ("at least %s"):format(spec.min) or spec.max and ("at most %s"):format(spec.max) or ("more than %s"):format(spec.above)
  end
  return #parts > 0 and " (" .. table.concat(parts, "; ") .. ")" or ""
end

local function usage(name, positional)
  local line = ("usage: %s [options]"):format(name)
  if positional then
    local meta = positional.metavar .. (positional.many and "..." or "")
    line = line .. " " .. (positional.required and meta or "[" .. meta .. "]")
  end
  return line
end

---The text of --help, made from the table alone.
function options.help(name, about, rows)
  local specs, _, positional = read_rows(rows, 1)
  local lines = {("%s: %s"):format(name, about), "", usage(name, positional), ""}
  local function row(left, text)
    left = "  " .. left
    local gap = #left < 30 and (" "):rep(30 - #left) or "\n" .. (" "):rep(30)
    lines[#lines + 1] = left .. gap .. wrap(text, 90, 30)
  end
  if positional then row(positional.metavar .. (positional.many and "..." or ""), positional.help .. remark(positional)) end
  for _, spec in ipairs(specs) do
    if not spec.hidden then
      local left = "--" .. spec.name
      if spec.type ~= "boolean" then left = left .. " " .. metavar(spec) .. (spec.many and "..." or "") end
      row(left, spec.help .. remark(spec))
    end
  end
  row("--config FILE", "options from a file: a Lua table, or YAML lines 'name: value'; the command line overrides it")
  row("--help", "this text")
  return table.concat(lines, "\n") .. "\n"
end

-- The command line as {spec, label, value} in order, positional words, and the config file's name.
local function scan(argv, specs, by_key, positional)
  local taken, words, config_path = {}, {}, nil
  local i, only_words = 1, false
  while i <= #argv do
    local word = tostring(argv[i])
    if only_words or word == "-" or word:find("^%-%.?%d") or word:sub(1, 1) ~= "-" then
      words[#words + 1] = word
    elseif word == "--" then
      only_words = true
    elseif word == "--help" or word == "-h" then
      return nil, nil, "help"
    else
      local name, value = word:match("^%-%-([^=]+)=(.*)$")
      name = name or word:match("^%-%-(.+)$")
      local spec = name and by_key[key_of(name)]
      if spec == positional then spec = nil end
      if not spec and name and not value and name:sub(1, 3) == "no-" then
        local negated = by_key[key_of(name:sub(4))]
        if negated and negated.type == "boolean" then spec, value = negated, "false" end
      end
      if not spec and name ~= "config" then return nil, unknown(word:match("^[^=]+"), name or word:gsub("^%-+", ""), specs) end
      local label = spec and "--" .. spec.name or "--config"
      if spec and spec.type == "boolean" then
        taken[#taken + 1] = {spec, label, value or "true"}
      elseif value then
        if spec then taken[#taken + 1] = {spec, label, value} else config_path = value end
      else
        local first = true
        while first or spec and spec.many do
          local following = argv[i + 1]
          if following == nil or tostring(following):sub(1, 2) == "--" then
            if first then return nil, ("%s wants a value %s"):format(label, DASH) end
            break
          end
          i, first = i + 1, false
          if spec then taken[#taken + 1] = {spec, label, tostring(following)} else config_path = following end
        end
      end
    end
    i = i + 1
  end
  return taken, words, config_path
end

---Reads options without printing or leaving: what parse does, for tests and for callers with their own manners.
---@return table|nil values by name with underscores; nil on a mistake
---@return table|string given names that the user set (a set); the mistake in one line; or "help"
function options.read(name, about, rows, argv)
  local _ = about
  local specs, by_key, positional = read_rows(rows, 1)
  local taken, words, config_path = scan(argv, specs, by_key, positional)
  if not taken then return nil, config_path or words end
  local values, given = {}, {}
  for _, spec in ipairs(specs) do values[spec.key] = default_of(spec) end
  if positional then values[positional.key] = default_of(positional) end

  if config_path then
    local settings, reason = config.read(config_path)
    if not settings then return nil, reason end
    for _, setting in ipairs(settings) do
      local label = ("%s: %s"):format(config_path, setting.name)
      local spec = by_key[key_of(setting.name)]
      if not spec then return nil, ("%s: %s"):format(config_path, unknown(setting.name, setting.name, specs)) end
      local value, wrong = convert(spec, label, setting.value)
      if value == nil then return nil, wrong end
      values[spec.key], given[spec.key] = value, true
    end
  end

  local fresh = {} -- a list on the command line replaces the config's, then grows
  for _, item in ipairs(taken) do
    local spec, label = item[1], item[2]
    local value, wrong = convert(spec, label, item[3])
    if value == nil then return nil, wrong .. " " .. DASH end
    if spec.type == "list" and spec.many and fresh[spec] then
      for _, v in ipairs(value) do table.insert(values[spec.key], v) end
    else
      values[spec.key] = value
    end
    fresh[spec], given[spec.key] = true, true
  end

  if #words > 0 then
    if not positional then return nil, ("unexpected argument %s; %s"):format(show(words[1]), usage(name)) end
    if #words > 1 and not positional.many then return nil, ("unexpected argument %s; %s"):format(show(words[2]), usage(name, positional)) end
    local list = {}
    for i, word in ipairs(words) do
      local value, wrong = convert(setmetatable({type = "string"}, {__index = positional}), positional.metavar, word)
      if value == nil then return nil, wrong end
      list[i] = value
    end
    values[positional.key] = positional.many and list or list[1]
    given[positional.key] = true
  end
  if positional and positional.required and not given[positional.key] then
    return nil, ("%s is missing; %s %s"):format(positional.metavar, usage(name, positional), DASH)
  end
  for _, spec in ipairs(specs) do
    if spec.required and not given[spec.key] then return nil, ("--%s is missing %s"):format(spec.name, DASH) end
  end
  return values, given
end

---A recipe's options. Prints and leaves on --help (0) and on a mistake of the user (one line on stderr, 2).
---@param name string the recipe's name, as in "train"
---@param about string one line for --help
---@param rows table rows {name, default, help, metavar=, min=, max=, above=, choices=, type=, of=, many=, required=, check=, hidden=};
--- `positional` holds such a row for the words without a name. The type follows the default: whole number, number, text, boolean
--- (--name, --no-name), list (a,b or, with many, name a b c). check(value) returns nil and the reason when it refuses.
---@param argv? table the words; the script's own `arg` when left out
---@return table values by name, dashes as underscores
---@return table given set of the names that the user set
function options.parse(name, about, rows, argv)
  local values, given = options.read(name, about, rows, argv or rawget(_G, "arg") or {})
  if values then
    local built, core = pcall(require, "libration.core")
    if built then core.C.lbr_interrupt_install_all() end -- a recipe takes back what is half done, whoever ends it
    return values, given
  end
  if given == "help" then
    io.stdout:write(options.help(name, about, rows))
    io.stdout:flush()
    os.exit(0)
  end
  io.stderr:write(name, ": ", given, "\n")
  os.exit(2)
end

local undone = {}

---Registers what a recipe takes back when it fails or is interrupted from here on: a folder that only it made, a half-written file.
---@param fn fun()
function options.undo(fn) undone[#undone + 1] = fn end

---Drops what options.undo registered: from here on results are worth keeping.
function options.settled() undone = {} end

---Runs the body of a recipe: any error becomes one line on stderr (with a traceback under LIBRATION_DEBUG) and exit 1,
---Ctrl-C becomes exit 130, SIGTERM 143. Returns what the body returns.
---@param body fun()
---@param name? string stands before the message; the script's name when left out
function options.main(body, name)
  local script = rawget(_G, "arg") and arg[0] or "libration"
  name = name or script:match("([^/]*)%.lua$") or script:match("[^/]*$")
  local function handler(err)
    local trace = os.getenv("LIBRATION_DEBUG")
    if trace and trace ~= "" then io.stderr:write(debug.traceback(tostring(err), 2), "\n") end
    return err
  end
  local result = {xpcall(body, handler)}
  if result[1] then return unpack(result, 2, table.maxn(result)) end
  local message = log.reason(result[2])
  for i = #undone, 1, -1 do pcall(undone[i]) end
  if tostring(result[2]):find("interrupted", 1, true) then
    io.stderr:write("\n", name, ": interrupted\n")
    local core = package.loaded["libration.core"]
    local signal = core and core.C.lbr_interrupt_signal() or 0
    os.exit(128 + (signal > 0 and signal or 2))
  end
  io.stderr:write(name, ": ", message, "\n")
  os.exit(1)
end

return options
