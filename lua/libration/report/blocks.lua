-- Parts that the training page and the page of one video share: tables of baselines, configuration, timings. Scores nothing.

local statistics = require "libration.report.statistics"

local blocks = {}

-- {a = 1, b = {2, 3}} -> { {"a", "1"}, {"b", "2, 3"} } sorted by name; arrays of pairs keep their order
local function text_of(value, depth)
  if type(value) == "table" then
    if depth > 3 then
      return "..."
    end
    local parts = {}
    if #value > 0 then
      for i, v in ipairs(value) do
        parts[i] = text_of(v, depth + 1)
      end
    else
      for _, row in ipairs(blocks.pairs_of(value)) do
        parts[#parts + 1] = row[1] .. " = " .. row[2]
      end
    end
    return #parts > 0 and table.concat(parts, ", ") or "none"
  elseif type(value) == "number" then
    return statistics.number(value, 9)
  elseif type(value) == "boolean" then
    return value and "yes" or "no"
  end
  return tostring(value)
end

---Name and text of every entry of a table: an array of { name, value } in its order, or a map sorted by name.
---@param t table|nil
---@param as_text (fun(value: any): string)|nil as people read it when nil
---@return { [1]: string, [2]: string }[]
function blocks.pairs_of(t, as_text)
  as_text = as_text or text_of
  local out = {}
  if not t then
    return out
  end
  if type(t[1]) == "table" then
    for i, row in ipairs(t) do
      out[i] = { tostring(row[1]), as_text(row[2], 1) }
    end
    return out
  end
  for name, value in pairs(t) do
    out[#out + 1] = { tostring(name), as_text(value, 1) }
  end
  table.sort(out, function(a, b)
    return a[1] < b[1]
  end)
  return out
end

---Lines as sentences: a capital in front, a full stop at the end.
---@param list string[]|nil
---@return string[]
function blocks.sentences(list)
  local out = {}
  for i, line in ipairs(list or {}) do
    line = tostring(line):gsub("^%l", string.upper)
    out[i] = line:find "[.!?:]$" and line or line .. "."
  end
  return out
end

local function seconds_of(value)
  return type(value) == "number" and statistics.duration(value) or tostring(value)
end

---The sentence that says how much of unseen normal movement the network explains, beside its baselines, and what follows.
---@param e { network: number, pca: number?, zero: number?, pca_name: string? } shares, 0..1 (may be negative)
---@return string sentence
---@return string[] warnings
function blocks.explained(e)
  local name = e.pca_name or "PCA-32"
  local parts = { ("The autoencoder explains %s of unseen normal movement"):format(statistics.percent(e.network)) }
  if e.pca then
    parts[#parts + 1] = ("%s explains %s"):format(name, statistics.percent(e.pca))
  end
  parts[#parts + 1] = ("zero output explains %s"):format(statistics.percent(e.zero or 0))
  local warnings = {}
  if e.pca and e.network < e.pca then
    warnings[#warnings + 1] = ("The autoencoder explains less of unseen normal movement than %s: its score is no better than a linear model's."):format(name)
  end
  if e.network < 0.2 then
    warnings[#warnings + 1] = "The autoencoder explains less than 20 % of unseen normal movement: its error mostly follows how much a body moves, not how."
  end
  return table.concat(parts, "; ") .. ".", warnings
end

---The last sections of every page: configuration, versions, timings, files, audit.
---@param t { config: table?, versions: table?, device: string?, timings: table?, files: table?, memory: table? }
---@param audit table|nil section that stands before them
---@return table[] sections
function blocks.tail(t, audit)
  local out = { audit }
  local config = blocks.pairs_of(t.config)
  if #config > 0 then
    out[#out + 1] = { title = "Configuration", { kind = "keyvalues", rows = config } }
  end
  local made = {}
  if t.device then
    made[#made + 1] = { "device", t.device }
  end
  for _, row in ipairs(blocks.pairs_of(t.versions)) do
    made[#made + 1] = row
  end
  for _, row in ipairs(blocks.pairs_of(t.timings, seconds_of)) do
    made[#made + 1] = row
  end
  for _, name in ipairs { "cpu", "gpu" } do
    if t.memory and t.memory[name] then
      made[#made + 1] = { "peak memory, " .. name:upper(), statistics.bytes(t.memory[name]) }
    end
  end
  if #made > 0 then
    out[#out + 1] = { title = "Machine, versions and timings", { kind = "keyvalues", rows = made } }
  end
  local list = blocks.pairs_of(t.files)
  if #list > 0 then
    out[#out + 1] = { title = "Files", { kind = "keyvalues", rows = list } }
  end
  return out
end

---Adds the entries of one list to another.
function blocks.append(to, from)
  for _, entry in ipairs(from or {}) do
    to[#to + 1] = entry
  end
  return to
end

return blocks
