-- Which inputs of a detection run are done: a small file that is written last beside an input's results says what they were made from. Judges nothing.

local files = require "libration.files"
local json = require "libration.formats.json"
local checkpoint = require "libration.train.checkpoint"

local done = {}

local NAME = "done.json"
local OVER_ALL = { [NAME] = true, ["summary.csv"] = true, ["index.html"] = true } -- grow after an input is done

--- What results depend on, as one checksum.
---@param facts table nested, of strings, numbers and booleans: content of the recording, detector, options, version
---@return string
function done.key(facts)
  return files.sha256_text(checkpoint.describe(facts))
end

-- Strings, truth values and finite numbers of a table; with `deep` also its tables.
local function plain(t, deep)
  local out = {}
  for k, v in pairs(t) do
    if type(v) == "number" and v - v == 0 or type(v) == "string" or type(v) == "boolean" then out[k] = v end
    if deep and type(v) == "table" then out[k] = plain(v, true) end
  end
  return out
end

local function sizes(folder)
  local out = {}
  for _, name in ipairs(files.list(folder) or {}) do
    if not OVER_ALL[name] and not files.is_folder(files.join(folder, name)) then out[name] = files.size(files.join(folder, name)) end
  end
  return out
end

--- Notes that everything of an input is on the disk.
---@param folder string of the input's results
---@param key string as of `key`
---@param row table the row of outputs.summary; of its tables scored and verdict the single values are kept, of profile all
function done.note(folder, key, row)
  local kept = plain(row)
  kept.scored, kept.verdict, kept.profile = plain(row.scored), plain(row.verdict), row.profile and plain(row.profile, true)
  files.write(files.join(folder, NAME), json.encode({ key = key, files = sizes(folder), row = kept }, true) .. "\n")
end

-- null, which stands for a number that was none, as nothing.
local function without_null(t)
  for k, v in pairs(t) do
    if v == json.null then t[k] = nil elseif type(v) == "table" then without_null(v) end
  end
  return t
end

--- The row of an input that is done, or nil where it is to be done: nothing noted, made from something else, or a file is missing or of another size.
---@param folder string
---@param key string
---@return table|nil row as it was given to `note`
function done.find(folder, key)
  local text = files.read(files.join(folder, NAME), 2 ^ 24)
  local noted = text and json.decode(text)
  if type(noted) ~= "table" or noted.key ~= key or type(noted.files) ~= "table" or type(noted.row) ~= "table" then return nil end
  local there = sizes(folder)
  for name, bytes in pairs(noted.files) do
    if there[name] ~= bytes then return nil end
  end
  local row = without_null(noted.row)
  if type(row.scored) ~= "table" or type(row.verdict) ~= "table" or type(row.input) ~= "string" then return nil end
  row.output = folder
  return row
end

return done
