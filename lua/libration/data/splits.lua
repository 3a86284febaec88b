-- Which sequences train, calibrate and test: "1-8", "9,10" or ids become entries of a data set. Sees names only.

local splits = {}

--- The parts in the order in which they are used.
splits.PARTS = { "train", "validate", "test" }

-- Entry by number: 7 is the id 7 or 07 where all ids are numbers, else the 7th sequence in order.
local function by_number(dataset)
  local numeric, table_of = true, {}
  for _, e in ipairs(dataset.entries) do numeric = numeric and e.id:match("^%d+$") ~= nil end
  for i, e in ipairs(dataset.entries) do table_of[numeric and tonumber(e.id) or i] = e end
  return table_of
end

--- Sequences that a list names: ids, numbers and ranges, separated by commas ("1-8,11", "anna,ben").
---@param dataset Dataset
---@param text string
---@param part string for messages
---@return Entry[]? entries in the order named
---@return string? reason
function splits.select(dataset, text, part)
  local numbers, chosen, seen = by_number(dataset), {}, {}
  local function take(entry, word)
    if not entry then
      return nil, ("--%s: unknown sequence %s; there are %s"):format(part, word, dataset:ids())
    end
    if seen[entry] then return nil, ("--%s: sequence %s stands twice"):format(part, entry.id) end
    seen[entry] = true
    chosen[#chosen + 1] = entry
    return true
  end
  for word in tostring(text):gmatch("[^,]+") do
    word = word:match("^%s*(.-)%s*$")
    local first, last = word:match("^(%d+)%s*%-%s*(%d+)$")
    local ok, reason
    if dataset.by_id[word] then
      ok, reason = take(dataset.by_id[word], word)
    elseif first then
      first, last = tonumber(first), tonumber(last)
      if last < first then return nil, ("--%s: %s runs backwards"):format(part, word) end
      if last - first >= 100000 then return nil, ("--%s: %s is too long a range"):format(part, word) end
      for n = first, last do
        ok, reason = take(numbers[n], tostring(n))
        if not ok then break end
      end
    elseif word ~= "" then
      ok, reason = take(word:match("^%d+$") and numbers[tonumber(word)], word)
    else
      ok = true
    end
    if not ok then return nil, reason end
  end
  return chosen
end

--- Resolves the three parts; empty train or validation and any overlap are errors by name. An empty test part is allowed.
---@param dataset Dataset
---@param want table {train: string, validate: string, test: string}
---@return table? split {train: Entry[], validate: Entry[], test: Entry[]}
---@return string? reason
function splits.resolve(dataset, want)
  local split, owner = {}, {}
  for _, part in ipairs(splits.PARTS) do
    local entries, reason = splits.select(dataset, want[part] or "", part)
    if not entries then return nil, reason end
    if #entries == 0 and part ~= "test" then
      return nil, part == "train" and "--train: no sequences to train on"
        or "--validate: the validation set is empty; the threshold needs at least one normal sequence that no training sees"
    end
    for _, e in ipairs(entries) do
      if owner[e] then
        return nil, ("sequence %s is in both --%s and --%s; the parts may not overlap"):format(e.id, owner[e], part)
      end
      owner[e] = part
    end
    split[part] = entries
  end
  return split
end

--- A split for a folder that is not twelve long: 60 % train, 20 % validate, the rest test, at least one each of the first two.
---@param n integer number of sequences
---@return table want {train, validate, test} as texts for `resolve`, by position
function splits.default(n)
  if n == 12 then return { train = "1-8", validate = "9,10", test = "11,12" } end
  local validate = math.max(1, math.floor(.2 * n + .5))
  local train = math.max(1, math.min(n - validate, math.floor(.6 * n + .5)))
  local function range(a, b) return a > b and "" or a == b and tostring(a) or a .. "-" .. b end
  return { train = range(1, train), validate = range(train + 1, math.min(n, train + validate)), test = range(train + validate + 1, n) }
end

return splits
