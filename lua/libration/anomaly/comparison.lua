-- Runs methods through the folds of a protocol, seed by seed, and sums up: AUC with interval, p, false alarms, shares explained. Loads and writes nothing.

local lr = require "libration"
local core = require "libration.core"
local progress = require "libration.progress"
local splits = require "libration.data.splits"
local statistics = require "libration.motion.statistics"
local protocols = require "libration.anomaly.protocols"

local comparison = {}

---@class Compared a row of the table, a method over all seeds
---@field key string
---@field name string
---@field auc number mean over seeds
---@field low number bootstrap interval over recordings or subjects, 2.5 %
---@field high number 97.5 %
---@field aucs number[] of each seed
---@field sd number? over seeds; nil of one
---@field alarms number? false alarms a minute on the normals that are judged
---@field p table<string, number> of each positive by id, mean over seeds
---@field scores table[][] by seed and left-out normal {normal, score, abnormal = {[id] = score}}

-- One fit of a family in one fold, and what it gives every recording; the network and its tensors end with the scope.
local function scores_of(family, fold, settings, recordings)
  local values, sums = {}, {}
  lr.scope(function()
    local score = family.fit(settings)
    for _, list in ipairs { fold.positives, fold.calibrate, fold.inner and { fold.inner } or {}, fold.normals } do
      for _, e in ipairs(list) do
        values[e], sums[e] = score(recordings[e])
        core.poll()
      end
    end
  end)
  return values, sums
end

-- One method in one fold, from the scores: rows for protocols.auc, p by id, false alarms on the normals.
local function judge(run, key, fold, values, recordings, window)
  local positives, calibration, subjects, inner = {}, {}, {}, {}
  for k, e in ipairs(fold.positives) do positives[k] = { entry = e, score = values[e][key][1] } end
  for i, e in ipairs(fold.calibrate) do
    calibration[i], subjects[i] = values[e][key][1], splits.group(e)
    for _, v in ipairs(values[e][key].windows or {}) do inner[#inner + 1] = v end
  end
  if #inner == 0 and fold.inner then inner = values[fold.inner][key].windows or {} end
  local threshold = #inner > 0 and statistics.percentile(inner, 95)
  for _, e in ipairs(fold.normals) do
    local s, r = values[e][key], recordings[e]
    run.rows[#run.rows + 1] = { normal = e, score = s[1], positives = positives }
    if threshold and s.windows then
      run.alarms = run.alarms + protocols.alarms(s.windows, r.windows.start, window, threshold)
      run.seconds = run.seconds + r.features.frames / r.features.track.fps
    end
  end
  if #calibration > 0 then
    for _, p in ipairs(positives) do run.p[p.entry.id] = statistics.conformal(calibration, p.score, false, subjects) end
  end
end

-- All seeds of one method as one row of the table.
local function summary(method, runs)
  local row = { key = method.key, name = method.name, p = {}, scores = {}, aucs = {} }
  local wins, normals, positives, alarms, seconds = {}, {}, {}, 0, 0
  for s, run in ipairs(runs) do
    local auc, won = protocols.auc(run.rows)
    for k, e in ipairs(run.positives) do run.p[e.id] = run.p[e.id] or protocols.p(run.rows, k) end
    row.aucs[s] = auc
    alarms, seconds = alarms + run.alarms, seconds + run.seconds
    row.scores[s] = {}
    for i, r in ipairs(run.rows) do
      normals[i], wins[i] = r.normal, wins[i] or {}
      row.scores[s][i] = { normal = r.normal.id, score = r.score, abnormal = {} }
      for k, p in ipairs(r.positives) do
        positives[k], wins[i][k] = p.entry, (wins[i][k] or 0) + won[i][k] / #runs
        row.scores[s][i].abnormal[p.entry.id] = p.score
      end
    end
    for id, p in pairs(run.p) do row.p[id] = (row.p[id] or 0) + p / #runs end
  end
  row.auc = statistics.mean(row.aucs)
  row.low, row.high = protocols.interval(wins, normals, positives)
  if #runs > 1 then row.sd = statistics.deviation(row.aucs) * math.sqrt(#runs / (#runs - 1)) end
  if seconds > 0 then row.alarms = alarms / (seconds / 60) end
  return row
end

-- Methods by the fit they share, in the order of the table.
local function by_family(chosen)
  local order, members = {}, {}
  for _, m in ipairs(chosen) do
    if not members[m.family] then members[m.family], order[#order + 1] = {}, m.family end
    table.insert(members[m.family], m)
  end
  return order, members
end

--- Number of fits that `run` will make.
---@param chosen Method[]
---@param folds integer
---@param seeds integer
---@return integer
function comparison.fits(chosen, folds, seeds)
  local n = 0
  for _, family in ipairs((by_family(chosen))) do n = n + (family.seeded and seeds or 1) * folds end
  return n
end

-- Shares explained, from sums over the windows of the normals that were judged.
local function explained(totals)
  local network, pca
  for key, t in pairs(totals) do if key:find("^autoencoder") then network = t elseif key == "pca" then pca = t end end
  if not (network and network.variance > 0) then return nil end
  return {
    network = 1 - network.error / network.variance, zero = 1 - network.square / network.variance,
    pca = pca and pca.variance > 0 and 1 - pca.error / pca.variance or nil,
  }
end

--- Runs all methods. Methods of one family share one fit a fold and seed.
---@param chosen Method[]
---@param plan Plan
---@param settings Fold[] as the methods take them, one for each fold of the plan
---@param recordings table<Entry, Recording>
---@param o table {seeds, seed: of the first run, window: frames, step: fun(family: string)}
---@return Compared[] rows in the order of the methods
---@return table? explained {network, pca, zero}: shares of the judged normals' movement, where autoencoder and PCA ran
---@return table<string, number> seconds by family
function comparison.run(chosen, plan, settings, recordings, o)
  local order, members = by_family(chosen)
  local rows, totals, timings = {}, {}, {}
  for _, family in ipairs(order) do
    local mark, runs = progress.clock(), {}
    for _, m in ipairs(members[family]) do runs[m] = {} end
    for seed = 1, family.seeded and o.seeds or 1 do
      for _, m in ipairs(members[family]) do runs[m][seed] = { rows = {}, p = {}, alarms = 0, seconds = 0, positives = plan.folds[1].positives } end
      for f, fold in ipairs(plan.folds) do
        settings[f].seed = o.seed + seed - 1
        local values, sums = scores_of(family, fold, settings[f], recordings)
        for _, m in ipairs(members[family]) do judge(runs[m][seed], m.key, fold, values, recordings, o.window) end
        for _, e in ipairs(fold.normals) do
          if sums[e] then
            local t = totals[members[family][1].key] or { error = 0, variance = 0, square = 0 }
            for name, v in pairs(sums[e]) do t[name] = t[name] + v end
            totals[members[family][1].key] = t
          end
        end
        if o.step then o.step(family.name) end
      end
    end
    for _, m in ipairs(members[family]) do rows[m] = summary(m, runs[m]) end
    timings[family.name] = progress.clock() - mark
  end
  local list = {}
  for i, m in ipairs(chosen) do list[i] = rows[m] end
  return list, explained(totals), timings
end

return comparison
