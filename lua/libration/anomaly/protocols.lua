-- Protocols of an evaluation: which normals train, which are left out, and the AUC, interval and p that follow. Fits nothing itself.

local dice = require "libration.data.dice"
local splits = require "libration.data.splits"
local statistics = require "libration.motion.statistics"

local protocols = {}

local RESAMPLES = 2000

-- Entries that count as one: a subject, or the recording itself where labels.csv names none.
local group = splits.group

---@class Plan
---@field split table? of "split" and "L0": as of splits.resolve
---@field folds table[] {train: Entry[], inner: Entry?, calibrate: Entry[], normals: Entry[] left out, positives: Entry[]}
---@field text string what it does, for the report

-- Everybody's split, or the label-aware one: 60 % of the normals train, 25 % calibrate, the others and all abnormal ones are judged.
local function one_split(dataset, want, aware, options)
  local parts = want
  if aware then
    local legal, few = splits.by_label(dataset)
    if not legal then return nil, "--protocol L0: " .. few end
    parts = splits.texts(dataset, legal)
  end
  local split, reason = splits.resolve(dataset, parts, options)
  if not split then return nil, reason end
  local fold = { train = split.train, calibrate = split.validate, normals = {}, positives = {} }
  for _, e in ipairs(split.test) do
    if e.label == 0 then table.insert(fold.normals, e) elseif e.label == 1 then table.insert(fold.positives, e) end
  end
  return { folds = { fold }, split = split, text = ("trained on %s; calibrated on %s; judged: %s"):format(parts.train, parts.validate, parts.test) }
end

-- Leave one normal (all normals of one subject) out.
local function leave_one_out(dataset)
  local positives, order, members = {}, {}, {}
  for _, e in ipairs(dataset.entries) do
    if e.label == 0 then
      local g = group(e)
      if not members[g] then members[g], order[#order + 1] = {}, g end
      table.insert(members[g], e)
    elseif e.label == 1 then
      positives[#positives + 1] = e
    end
  end
  -- who has an abnormal recording is judged by every model and trains none
  local judged, trains = {}, {}
  for _, e in ipairs(positives) do judged[group(e)] = true end
  for i, g in ipairs(order) do if not judged[g] then trains[#trains + 1] = { name = g, at = i } end end
  if #trains < 5 then return nil, ("--protocol L1: %d normal sequences or subjects that may train, want at least 5"):format(#trains) end
  local folds = {}
  for i, g in ipairs(order) do
    local rest, before = {}, nil
    for _, t in ipairs(trains) do
      if t.at ~= i then
        rest[#rest + 1] = t.name
        -- the inner normal is of the group before the left-out one, so that it changes from fold to fold
        if t.at < i then before = #rest end
      end
    end
    local inner = table.remove(rest, before or #rest)
    local train = {}
    for _, name in ipairs(rest) do
      for _, e in ipairs(members[name]) do train[#train + 1] = e end
    end
    folds[#folds + 1] = { train = train, inner = members[inner][1], calibrate = {}, normals = members[g], positives = positives }
  end
  return {
    folds = folds,
    text = ("%d models, each trained without one normal %s%s; scores are compared within one model only"):format(#folds, dataset.entries[1].subject and "subject" or "sequence",
      #trains < #order and ("; %d with abnormal recordings as well train none"):format(#order - #trains) or ""),
  }
end

--- Folds of a protocol.
---@param dataset Dataset with labels
---@param name "split"|"L0"|"L1"
---@param want table? {train, validate, test} of "split"
---@param options table? {allow_leak: boolean} as of splits.resolve
---@return Plan? plan
---@return string? reason
function protocols.plan(dataset, name, want, options)
  local plan, reason
  if name == "L1" then plan, reason = leave_one_out(dataset) else plan, reason = one_split(dataset, want, name == "L0", options) end
  if not plan then return nil, reason end
  local normals, positives = 0, #plan.folds[1].positives
  for _, f in ipairs(plan.folds) do
    normals = normals + #f.normals
    if not f.inner and #f.train >= 3 then -- early stopping and the thresholds of windows go by a training normal
      local rest = {}
      for i, e in ipairs(f.train) do rest[i] = e end
      f.inner, f.train = table.remove(rest), rest
    end
  end
  if normals == 0 or positives == 0 then
    return nil, ("--protocol %s: %d normal and %d abnormal sequences to judge; an AUC wants both"):format(name, normals, positives)
  end
  return plan
end

--- Share of pairs in which a model scores the positive above its own left-out normal, ties a half.
---@param rows table[] {normal = Entry, score, positives = {{entry = Entry, score}, ...}}, a row a left-out normal
---@return number auc
---@return number[][] wins [normal][positive] 0, .5 or 1
function protocols.auc(rows)
  local wins, sum, n = {}, 0, 0
  for i, r in ipairs(rows) do
    wins[i] = {}
    for k, p in ipairs(r.positives) do
      wins[i][k] = p.score > r.score and 1 or p.score == r.score and .5 or 0
      sum, n = sum + wins[i][k], n + 1
    end
  end
  return sum / n, wins
end

-- Positions of a list by group, and draws of groups with replacement.
local function grouped(entries)
  local at, order = {}, {}
  for i, e in ipairs(entries) do
    local g = group(e)
    if not at[g] then at[g], order[#order + 1] = {}, g end
    table.insert(at[g], i)
  end
  return function(rng)
    local list = {}
    for _ = 1, #order do
      for _, i in ipairs(at[order[rng:pick(#order)]]) do list[#list + 1] = i end
    end
    return list
  end
end

--- Bootstrap interval of an AUC: normals and positives are drawn anew, by subject where subjects are known.
---@param wins number[][] [normal][positive], means over seeds
---@param normals Entry[]
---@param positives Entry[]
---@return number low 2.5 %
---@return number high 97.5 %
function protocols.interval(wins, normals, positives)
  local rng, values = dice.new(1, 2), {}
  local some_normals, some_positives = grouped(normals), grouped(positives)
  for b = 1, RESAMPLES do
    local a, p = some_normals(rng), some_positives(rng)
    local sum = 0
    for _, i in ipairs(a) do
      for _, k in ipairs(p) do sum = sum + wins[i][k] end
    end
    values[b] = sum / (#a * #p)
  end
  return statistics.percentile(values, 2.5), statistics.percentile(values, 97.5)
end

--- Conformal p of a positive: in how many models its score does not exceed that of the left-out normal; the normals of one subject count as one.
---@param rows table[] as of `protocols.auc`
---@param k integer position of the positive
---@return number p
function protocols.p(rows, k)
  local above, groups = {}, {}
  for i, r in ipairs(rows) do above[i], groups[i] = r.score - r.positives[k].score, group(r.normal) end
  return (statistics.conformal(above, 0, false, groups))
end

--- False alarms on a normal recording: stretches of windows over a threshold; windows apart by less than one window are one stretch.
---@param windows number[] scores
---@param starts integer[] first frames
---@param length integer frames a window
---@param threshold number
---@return integer
function protocols.alarms(windows, starts, length, threshold)
  local n, last = 0, -math.huge
  for i, v in ipairs(windows) do
    if v > threshold then
      if starts[i] - last > length then n = n + 1 end
      last = starts[i]
    end
  end
  return n
end

return protocols
