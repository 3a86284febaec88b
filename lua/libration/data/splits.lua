-- Which sequences train, calibrate and test: "1-8", "9,10" or ids become entries of a data set. Sees names, labels and subjects, no content.

local files = require "libration.files"

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

--- What two parts of a split share, and what to do about it.
splits.NO_OVERLAP = "; the parts may not overlap (--allow-leak goes on all the same and stamps every page)"

--- Who counts as one: the subject where labels.csv names one, else the recording.
---@param entry Entry
---@return string
function splits.group(entry)
  return entry.subject and "subject " .. entry.subject or "recording " .. entry.id
end

--- Resolves the three parts; empty train or validation and any overlap are errors by name. An empty test part is allowed.
---@param dataset Dataset
---@param want table {train: string, validate: string, test: string}
---@param options table? {allow_leak: boolean, an overlap passes and stands in split.overlaps}
---@return table? split {train: Entry[], validate: Entry[], test: Entry[], overlaps: {id, part, other}[]}
---@return string? reason
function splits.resolve(dataset, want, options)
  local split, owner = { overlaps = {} }, {}
  for _, part in ipairs(splits.PARTS) do
    local entries, reason = splits.select(dataset, want[part] or "", part)
    if not entries then return nil, reason end
    if #entries == 0 and part ~= "test" then
      return nil, part == "train" and "--train: no sequences to train on"
        or "--validate: the validation set is empty; the threshold needs at least one normal sequence that no training sees"
    end
    for _, e in ipairs(entries) do
      if owner[e] then
        if not (options and options.allow_leak) then
          return nil, ("sequence %s is in both --%s and --%s%s"):format(e.id, owner[e], part, splits.NO_OVERLAP)
        end
        table.insert(split.overlaps, { e.id, owner[e], part })
      end
      owner[e] = owner[e] or part
    end
    split[part] = entries
  end
  return split
end

-- Groups of entries (all of one subject, or one recording) in the order of the data set.
local function groups_of(entries)
  local list, by_name = {}, {}
  for _, e in ipairs(entries) do
    local name = splits.group(e)
    if not by_name[name] then
      by_name[name] = {}
      list[#list + 1] = by_name[name]
    end
    table.insert(by_name[name], e)
  end
  return list
end

--- How many subjects, or recordings where no subject is known.
---@param entries Entry[]
---@return integer
function splits.count(entries) return #groups_of(entries) end

local function range(a, b) return a > b and "" or a == b and tostring(a) or a .. "-" .. b end

--- A split for data that is not twelve recordings: 60 % train, 20 % validate, the rest test, at least one each of the first two. Of data with subjects
--- the same by subject, and nobody stands in two parts.
---@param dataset Dataset|integer or the number of sequences
---@return table want {train, validate, test} as texts for `resolve`
function splits.default(dataset)
  local entries = type(dataset) == "table" and dataset.entries
  local n = entries and #entries or dataset
  local groups = entries and groups_of(entries) or {}
  if entries and #groups < n then
    local validate = math.max(1, math.floor(.2 * #groups + .5))
    local train = math.max(1, math.min(#groups - validate, math.floor(.6 * #groups + .5)))
    local parts = { train = {}, validate = {}, test = {} }
    for i, group in ipairs(groups) do
      local part = parts[i <= train and "train" or i <= train + validate and "validate" or "test"]
      for _, e in ipairs(group) do part[#part + 1] = e end
    end
    return splits.texts(dataset, parts)
  end
  if n == 12 then return { train = "1-8", validate = "9,10", test = "11,12" } end
  local validate = math.max(1, math.floor(.2 * n + .5))
  local train = math.max(1, math.min(n - validate, math.floor(.6 * n + .5)))
  return { train = range(1, train), validate = range(train + 1, math.min(n, train + validate)), test = range(train + validate + 1, n) }
end

--- The split that the labels allow: of the normals 60 % train, 25 % calibrate and the others are judged, with everything labelled abnormal. By subject,
--- where there are subjects: a person with an abnormal recording is judged and neither trains nor calibrates.
---@param dataset Dataset with labels
---@return table? parts {train: Entry[], validate: Entry[], test: Entry[]}
---@return string? reason where the normals are too few
function splits.by_label(dataset)
  local labelled, clean, judged = {}, {}, {}
  for _, e in ipairs(dataset.entries) do if e.label then labelled[#labelled + 1] = e end end
  for _, group in ipairs(groups_of(labelled)) do
    local normal = true
    for _, e in ipairs(group) do normal = normal and e.label == 0 end
    if normal then
      clean[#clean + 1] = group
    else
      for _, e in ipairs(group) do judged[e] = true end
    end
  end
  local calibrate, test = math.max(1, math.floor(.25 * #clean + .5)), math.max(1, math.floor(.125 * #clean + .5))
  local train = #clean - calibrate - test
  if train < 2 then
    return nil, ("%d normal %s, want at least 4"):format(#clean, labelled[1] and labelled[1].subject and "subjects" or "sequences")
  end
  local parts = { train = {}, validate = {}, test = {} }
  for i, group in ipairs(clean) do
    for _, e in ipairs(group) do
      if i > train + calibrate then judged[e] = true else table.insert(parts[i <= train and "train" or "validate"], e) end
    end
  end
  for _, e in ipairs(labelled) do if judged[e] then table.insert(parts.test, e) end end
  return parts
end

-- Ids as a list that `select` reads: 1-3,5-6 where all ids are numbers.
local function text_of(dataset, entries)
  local words, numeric = {}, true
  for _, e in ipairs(dataset.entries) do numeric = numeric and e.id:match("^%d+$") ~= nil end
  if not numeric then
    for i, e in ipairs(entries) do words[i] = e.id end
    return table.concat(words, ",")
  end
  local numbers = {}
  for i, e in ipairs(entries) do numbers[i] = tonumber(e.id) end
  table.sort(numbers)
  local i = 1
  while i <= #numbers do
    local k = i
    while numbers[k + 1] == numbers[k] + 1 do k = k + 1 end
    words[#words + 1] = k == i + 1 and #numbers == 2 and numbers[i] .. "," .. numbers[k] or range(numbers[i], numbers[k])
    i = k + 1
  end
  return table.concat(words, ",")
end

--- A split as the texts of the options.
---@param dataset Dataset
---@param parts table {train: Entry[], validate: Entry[], test: Entry[]}
---@return table want {train, validate, test}
function splits.texts(dataset, parts)
  local want = {}
  for _, part in ipairs(splits.PARTS) do want[part] = text_of(dataset, parts[part]) end
  return want
end

--- The options that ask for a split, ready for a command line.
---@param dataset Dataset
---@param parts table {train: Entry[], validate: Entry[], test: Entry[]}
---@return string
function splits.options(dataset, parts)
  local words, want = {}, splits.texts(dataset, parts)
  for i, part in ipairs(splits.PARTS) do
    local text = want[part]
    words[i] = ("--%s %s"):format(part, text:match("^[%w_.,-]+$") and text or files.quote(text))
  end
  return table.concat(words, " ")
end

return splits
