-- Protocols of an evaluation: which normals train, which are left out, and the AUC, interval and p that follow. Fits nothing itself.

local dice = require "libration.data.dice"
local splits = require "libration.data.splits"
local statistics = require "libration.motion.statistics"

local protocols = {}

local RESAMPLES = 2000

-- Entries that count as one: a subject, or the recording itself where labels.csv names none.
local function group(e) return e.subject and "subject " .. e.subject or "recording " .. e.id end

---@class Plan
---@field folds table[] {train: Entry[], inner: Entry?, calibrate: Entry[], normals: Entry[] left out, positives: Entry[]}
---@field text string what it does, for the report
---@field warnings string[]

-- Everybody's split, or the label-aware one: 60 % of the normals train, 25 % calibrate, the others and all abnormal ones are judged.
local function one_split(dataset, want, aware)
  local parts = want
  if aware then
    local normals, abnormal = {}, {}
    for _, e in ipairs(dataset.entries) do
      if e.label == 0 then normals[#normals + 1] = e.id elseif e.label == 1 then abnormal[#abnormal + 1] = e.id end
    end
    local calibrate = math.max(1, math.floor(.25 * #normals + .5))
    local test = math.max(1, math.floor(.125 * #normals + .5))
    local train = #normals - calibrate - test
    if train < 2 then return nil, ("--protocol L0: %d normal sequences, want at least 4"):format(#normals) end
    local function pick(from, to) return table.concat(normals, ",", from, to) end
    parts = { train = pick(1, train), validate = pick(train + 1, train + calibrate), test = pick(train + calibrate + 1, #normals) .. "," .. table.concat(abnormal, ",") }
  end
  local split, reason = splits.resolve(dataset, parts)
  if not split then return nil, reason end
  local fold = { train = split.train, calibrate = split.validate, normals = {}, positives = {} }
  for _, e in ipairs(split.test) do
    if e.label == 0 then table.insert(fold.normals, e) elseif e.label == 1 then table.insert(fold.positives, e) end
  end
  local warnings = {}
  for _, part in ipairs { "train", "validate" } do
    local bad = {}
    for _, e in ipairs(split[part]) do if e.label == 1 then bad[#bad + 1] = e.id end end
    if #bad > 0 then
      warnings[#warnings + 1] = ("--%s holds sequences labelled abnormal (%s): what it learns as normal is not; --protocol L0 or L1 avoids this"):format(
        part, table.concat(bad, ", "))
    end
  end
  return { folds = { fold }, warnings = warnings, text = ("trained on %s; calibrated on %s; judged: %s"):format(parts.train, parts.validate, parts.test) }
end

-- Leave one normal (all normals of one subject) out.
local function leave_one_out(dataset)
  local normals, positives, order, members = {}, {}, {}, {}
  for _, e in ipairs(dataset.entries) do
    if e.label == 0 then
      normals[#normals + 1] = e
      local g = group(e)
      if not members[g] then members[g], order[#order + 1] = {}, g end
      table.insert(members[g], e)
    elseif e.label == 1 then
      positives[#positives + 1] = e
    end
  end
  if #order < 5 then return nil, ("--protocol L1: %d normal sequences or subjects, want at least 5"):format(#order) end
  local folds = {}
  for _, g in ipairs(order) do
    local rest, last = {}, nil
    for _, e in ipairs(normals) do
      if group(e) ~= g then
        rest[#rest + 1] = e
        -- the inner normal is the one before the left-out one, so that it changes from fold to fold
        if e.id < members[g][1].id or not last then last = #rest end
      end
    end
    if members[g][1] == normals[1] then last = #rest end
    local inner = table.remove(rest, last)
    folds[#folds + 1] = { train = rest, inner = inner, calibrate = {}, normals = members[g], positives = positives }
  end
  local warnings, seen = {}, {}
  for _, e in ipairs(normals) do seen[group(e)] = true end
  for _, e in ipairs(positives) do
    if seen[group(e)] then warnings[#warnings + 1] = ("sequence %s is of %s, of whom normal sequences train"):format(e.id, group(e)) end
  end
  return {
    folds = folds, warnings = warnings,
    text = ("%d models, each trained without one normal %s; scores are compared within one model only"):format(#folds, dataset.entries[1].subject and "subject" or "sequence"),
  }
end

--- Folds of a protocol.
---@param dataset Dataset with labels
---@param name "split"|"L0"|"L1"
---@param want table? {train, validate, test} of "split"
---@return Plan? plan
---@return string? reason
function protocols.plan(dataset, name, want)
  local plan, reason
  if name == "L1" then plan, reason = leave_one_out(dataset) else plan, reason = one_split(dataset, want, name == "L0") end
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

--- Conformal p of a positive: in how many models its score does not exceed that of the left-out normal.
---@param rows table[] as of `protocols.auc`
---@param k integer position of the positive
---@return number p
function protocols.p(rows, k)
  local above = 0
  for _, r in ipairs(rows) do if r.score >= r.positives[k].score then above = above + 1 end end
  return (1 + above) / (#rows + 1)
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
