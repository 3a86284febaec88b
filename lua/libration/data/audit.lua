-- The audit of a split: content that stands in two parts, labels that contradict "normal only", numbers too small. Decodes nothing.

local Dataset = require "libration.data.dataset"
local splits = require "libration.data.splits"

local audit = {}

-- Two recordings that share more than this part of the shorter one's pictures are copies.
local MOST_SHARED = .05

local function ids(entries)
  local list = {}
  for i, e in ipairs(entries) do list[i] = e.id end
  return table.concat(list, ", ")
end

local function labelled(entries, label)
  local list = {}
  for _, e in ipairs(entries) do if e.label == label then list[#list + 1] = e end end
  return list
end

-- Number of pictures of b that a also has.
local function shared_frames(a, b)
  if not (a.frame_hashes and b.frame_hashes) then return 0 end
  local known, n = {}, 0
  for _, h in ipairs(a.frame_hashes) do known[h] = true end
  for _, h in ipairs(b.frame_hashes) do if known[h] then n = n + 1 end end
  return n
end

--- Checks a split.
---@param split table of splits.resolve
---@param options table? {hash: boolean, default true; progress: fun(done, total)?}
---@return table? report {lines: string[], warnings: string[], content: table by part of {id, sha256}}
---@return string? reason the error in one line
function audit.run(split, options)
  options = options or {}
  local report = { lines = {}, warnings = {}, content = {} }
  local all = {}
  for _, part in ipairs(splits.PARTS) do
    report.lines[#report.lines + 1] = ("%s: %d sequence%s (%s)"):format(part, #split[part], #split[part] == 1 and "" or "s", ids(split[part]))
    for _, e in ipairs(split[part]) do all[#all + 1] = { entry = e, part = part } end
  end
  if options.hash ~= false then
    for i, row in ipairs(all) do
      local hash, reason = Dataset.hash(row.entry)
      if not hash then
        -- a broken test file is reported when it is decoded; training and calibration need theirs
        if row.part ~= "test" then return nil, reason end
        report.warnings[#report.warnings + 1] = reason
      end
      if options.progress then options.progress(i, #all) end
    end
    for i, a in ipairs(all) do
      for k = i + 1, #all do
        local b = all[k]
        local where = ("%s (%s) and %s (%s)"):format(a.entry.id, a.part, b.entry.id, b.part)
        if a.entry.sha256 and a.entry.sha256 == b.entry.sha256 then
          if a.part ~= b.part then return nil, ("sequences %s have the same content; the parts may not overlap"):format(where) end
          report.warnings[#report.warnings + 1] = ("sequences %s have the same content"):format(where)
        elseif a.part ~= b.part then
          local n = shared_frames(a.entry, b.entry)
          local least = a.entry.frame_hashes and b.entry.frame_hashes and math.min(#a.entry.frame_hashes, #b.entry.frame_hashes) or 0
          if n > MOST_SHARED * least then
            return nil, ("sequences %s share %d of %d pictures; the parts may not overlap"):format(where, n, least)
          elseif n > 0 then
            report.warnings[#report.warnings + 1] = ("sequences %s share %d identical picture%s"):format(where, n, n == 1 and "" or "s")
          end
        end
      end
      report.content[a.part] = report.content[a.part] or {}
      table.insert(report.content[a.part], { id = a.entry.id, sha256 = a.entry.sha256 })
    end
    report.lines[#report.lines + 1] = ("content: %d checksums, none in two parts"):format(#all)
  end
  for i, a in ipairs(all) do
    for k = i + 1, #all do
      local b = all[k]
      if a.entry.subject and a.entry.subject == b.entry.subject and a.part ~= b.part then
        return nil, ("subject %s is in both %s (%s) and %s (%s); the parts may not share a person"):format(
          a.entry.subject, a.entry.id, a.part, b.entry.id, b.part)
      end
    end
  end
  report.lines[#report.lines + 1] = "normaliser, PCA and network see the training sequences only; the threshold sees the validation sequences only"
  audit.labels(split, report)
  return report
end

--- Warnings about labels and numbers.
---@param split table
---@param report table gets lines and warnings
function audit.labels(split, report)
  local function warn(text) report.warnings[#report.warnings + 1] = text end
  local train, validate = labelled(split.train, 1), labelled(split.validate, 1)
  if #train > 0 or #validate > 0 then
    local parts = {}
    if #train > 0 then parts[#parts + 1] = ("training holds %s, labelled abnormal"):format(ids(train)) end
    if #validate > 0 then
      parts[#parts + 1] = ("validation holds %s, labelled abnormal, so the threshold is calibrated on abnormal movement"):format(ids(validate))
    end
    local normals, abnormals = {}, {}
    for _, part in ipairs(splits.PARTS) do
      for _, e in ipairs(split[part]) do
        if e.label == 0 then normals[#normals + 1] = e.id end
        if e.label == 1 then abnormals[#abnormals + 1] = e.id end
      end
    end
    local text = "only normal sequences may train and calibrate: " .. table.concat(parts, "; ")
    if #normals >= 3 then
      local n = #normals
      local held, calibrate = math.max(1, math.floor(.15 * n)), math.max(1, math.floor(.25 * n))
      text = text .. (". A split that the labels allow: --train %s --validate %s --test %s"):format(
        table.concat(normals, ",", 1, n - held - calibrate), table.concat(normals, ",", n - held - calibrate + 1, n - held),
        table.concat(normals, ",", n - held + 1) .. (#abnormals > 0 and "," .. table.concat(abnormals, ",") or ""))
    end
    warn(text)
  end
  local normal, abnormal = #labelled(split.test, 0), #labelled(split.test, 1)
  if normal + abnormal > 0 then
    report.lines[#report.lines + 1] = ("test labels: %d normal, %d abnormal"):format(normal, abnormal)
    if normal + abnormal < 20 then
      warn(("%d labelled test sequences are too few for a rate: read the counts"):format(normal + abnormal))
    end
  end
end

return audit
