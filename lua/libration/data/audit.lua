-- The audit: what two parts of a split share, labels that contradict "normal only", numbers too small, recordings scored as if they were new.
-- Finds and words; what follows is the recipe's.

local Dataset = require "libration.data.dataset"
local files = require "libration.files"
local log = require "libration.log"
local near = require "libration.data.near_duplicates"
local splits = require "libration.data.splits"

local audit = {}

-- Two recordings that share more than this part of the shorter one's pictures are copies.
local MOST_SHARED = .05
-- From fewer calibration recordings no rate of false alarms is claimed, from fewer test recordings no rate at all.
local LEAST = 20

---@class Finding
---@field level "error"|"warning"|"note" an error stands in an audit only where --allow-leak let it pass
---@field code string
---@field text string one sentence
---@field detail string[]?

---@class Audit
---@field findings Finding[]
---@field leak boolean an overlap was let pass: every page is stamped
---@field counts table<string, integer>
---@field lines string[] what was looked at, with its outcome
---@field content table<string, table[]> by part: {id, sha256}

---@return Audit
function audit.new()
  return { findings = {}, leak = false, counts = {}, lines = {}, content = {}, rows = {}, prints = {}, compared = {} }
end

--- Adds a finding.
---@param a Audit
---@param level "error"|"warning"|"note"
---@param code string
---@param text string
---@param detail string[]?
function audit.add(a, level, code, text, detail)
  a.findings[#a.findings + 1] = { level = level, code = code, text = text, detail = detail }
  a.counts[level] = (a.counts[level] or 0) + 1
end

local function line(a, ...) a.lines[#a.lines + 1] = string.format(...) end

-- An overlap: an error that ends the run, or a stamped finding. True where the run goes on.
local function overlap(a, options, code, text)
  audit.add(a, "error", code, text)
  if not options.allow_leak then return nil, text .. splits.NO_OVERLAP end
  a.leak = true
  return true
end

--- The texts of some levels.
---@param a Audit
---@param ... "error"|"warning"|"note" default: error and warning
---@return string[]
function audit.texts(a, ...)
  local wanted, list = {}, {}
  for _, level in ipairs(select("#", ...) > 0 and { ... } or { "error", "warning" }) do wanted[level] = true end
  for _, f in ipairs(a.findings) do if wanted[f.level] then list[#list + 1] = f.text end end
  return list
end

--- What stands on every page of a run that an overlap did not stop; nil where there is none.
---@param a Audit
---@return string?
function audit.stamp(a)
  if not a.leak then return nil end
  local texts = audit.texts(a, "error")
  return ("LEAK ALLOWED: %s%s"):format(texts[1] or "the parts overlap", #texts > 1 and (" (and %d more)"):format(#texts - 1) or "")
end

local function count_of(n, word) return ("%d %s%s"):format(n, word, n == 1 and "" or "s") end

local function ids(entries)
  local list = {}
  for i, e in ipairs(entries) do list[i] = e.id end
  return table.concat(list, ", ")
end

local function named(row) return row.part and ("%s (%s)"):format(row.entry.id, row.part) or row.entry.id end

-- Rows that may not share anything: of two parts, or, where there are no parts (each is left out in its turn), of two groups.
local function apart(x, y)
  if x.part then return x.part ~= y.part end
  return splits.group(x.entry) ~= splits.group(y.entry)
end

-- Pairs of rows that are not the same recording.
local function each_pair(rows, fn)
  for i, x in ipairs(rows) do
    for k = i + 1, #rows do
      if rows[k].entry ~= x.entry then
        local _, reason = fn(x, rows[k])
        if reason then return nil, reason end
      end
    end
  end
  return true
end

-- Number of pictures of b that a also has.
local function shared_frames(a, b)
  if not (a.frame_hashes and b.frame_hashes) then return 0 end
  local known, n = {}, 0
  for _, h in ipairs(a.frame_hashes) do known[h] = true end
  for _, h in ipairs(b.frame_hashes) do if known[h] then n = n + 1 end end
  return n
end

local function check_content(a, options)
  for i, row in ipairs(a.rows) do
    local hash, reason = Dataset.hash(row.entry)
    if not hash then
      -- a broken test file is reported when it is decoded; training and calibration need theirs
      if row.part ~= "test" then return nil, reason end
      audit.add(a, "warning", "unreadable", reason)
    end
    if options.progress then options.progress(i, #a.rows) end
    local part = row.part or "all"
    a.content[part] = a.content[part] or {}
    table.insert(a.content[part], { id = row.entry.id, sha256 = hash })
  end
  local ok, reason = each_pair(a.rows, function(x, y)
    local where = ("%s and %s"):format(named(x), named(y))
    if x.entry.sha256 and x.entry.sha256 == y.entry.sha256 then
      a.compared[x.entry] = a.compared[x.entry] or {}
      a.compared[x.entry][y.entry] = true
      local text = ("sequences %s have the same content"):format(where)
      if apart(x, y) then return overlap(a, options, "shared-content", text) end
      audit.add(a, "warning", "twice", text)
    elseif apart(x, y) then
      local n = shared_frames(x.entry, y.entry)
      local least = x.entry.frame_hashes and y.entry.frame_hashes and math.min(#x.entry.frame_hashes, #y.entry.frame_hashes) or 0
      if n > MOST_SHARED * least then
        return overlap(a, options, "shared-pictures", ("sequences %s share %d of %d pictures"):format(where, n, least))
      elseif n > 0 then
        audit.add(a, "warning", "some-pictures", ("sequences %s share %s"):format(where, count_of(n, "identical picture")))
      end
    end
  end)
  if not ok then return nil, reason end
  line(a, "content: %s%s", count_of(#a.rows, "checksum"), a.leak and "" or ", none in two parts")
  return true
end

local function check_subjects(a, options)
  local subjects, n = {}, 0
  for _, row in ipairs(a.rows) do
    local s = row.entry.subject
    if s and not subjects[s] then subjects[s], n = true, n + 1 end
  end
  local seen, both = {}, {}
  local ok, reason = each_pair(a.rows, function(x, y)
    local s = x.entry.subject
    if s and s == y.entry.subject then
      if x.part ~= y.part and not seen[s] then
        seen[s] = true
        return overlap(a, options, "shared-subject", ("subject %s is in both %s and %s"):format(s, named(x), named(y)))
      end
      if x.entry.label and y.entry.label and x.entry.label ~= y.entry.label and not both[s] then
        both[s] = true
        audit.add(a, "note", "subject-of-both-kinds", ("subject %s has normal and abnormal recordings (%s, %s)"):format(s, x.entry.id, y.entry.id))
      end
    end
  end)
  if not ok then return nil, reason end
  if n > 0 then line(a, "persons: %s%s", count_of(n, "subject"), next(seen) and "" or ", none in two parts")
  else line(a, "persons: labels.csv names no subjects, so that nobody is in two parts is taken on trust") end
  return true
end

local function with_label(entries, label)
  local list = {}
  for _, e in ipairs(entries) do if e.label == label then list[#list + 1] = e end end
  return list
end

local function unknown_labels(a, dataset)
  if dataset and dataset.unknown and #dataset.unknown > 0 then
    audit.add(a, "warning", "unknown-label", ("%s names sequences that the data folder does not have: %s"):format(
      files.name(dataset.labels_file), table.concat(dataset.unknown, ", ")))
  end
end

-- Labels that contradict "normal only", missing ones, and numbers.
local function check_labels(a, split, dataset)
  local all, without = {}, {}
  for _, part in ipairs(splits.PARTS) do
    for _, e in ipairs(split[part]) do
      all[#all + 1] = e
      if not e.label then without[#without + 1] = ("%s (%s)"):format(e.id, part) end
    end
  end
  if #without == #all then
    audit.add(a, "note", "no-labels", "the recordings have no labels: that training and calibration are normal is taken on trust")
  elseif #without > 0 then
    audit.add(a, "warning", "unlabelled", ("%s without a label: %s"):format(count_of(#without, "recording"), table.concat(without, ", ")))
  end
  unknown_labels(a, dataset)
  local train, validate = with_label(split.train, 1), with_label(split.validate, 1)
  local test, normal = with_label(split.test, 1), with_label(split.test, 0)
  if #train + #validate > 0 then
    local parts = {}
    if #train > 0 then parts[#parts + 1] = ("trains on abnormal %s"):format(ids(train)) end
    if #validate > 0 then parts[#parts + 1] = ("calibrates the threshold on abnormal %s"):format(ids(validate)) end
    if #test + #normal > 0 then parts[#parts + 1] = ("tests %d normal and %d abnormal"):format(#normal, #test) end
    local text = "this split contradicts its labels: it " .. table.concat(parts, ", ") .. "; only normal recordings may train and calibrate"
    local legal, few = splits.by_label(dataset or { entries = all })
    text = text .. (legal and "; a split that the labels allow: " .. splits.options(dataset or { entries = all }, legal)
      or "; the labels allow no split: " .. few)
    audit.add(a, "warning", "abnormal-as-normal", text)
  elseif #without == 0 then
    line(a, "labels: all training and calibration recordings are labelled normal")
  end
  if #normal + #test > 0 then line(a, "test labels: %d normal, %d abnormal", #normal, #test) end
  audit.numbers(a, split.validate, #normal + #test)
end

--- Notes where numbers are too small for a rate.
---@param a Audit
---@param calibration Entry[] or rows with a field subject
---@param tested integer? labelled recordings that are judged
function audit.numbers(a, calibration, tested)
  local groups, n = {}, 0
  for _, e in ipairs(calibration) do
    local g = e.subject or e
    if not groups[g] then groups[g], n = true, n + 1 end
  end
  if n < LEAST then
    audit.add(a, "note", "few-calibration", ("%s: no rate of false alarms is claimed from fewer than %d; the smallest p is %.3g"):format(
      count_of(n, n < #calibration and "calibration subject" or "calibration recording"), LEAST, 1 / (n + 1)))
  end
  if tested and tested > 0 and tested < LEAST then
    audit.add(a, "note", "few-tests", ("%s: too few for a rate, read the counts"):format(count_of(tested, "labelled test recording")))
  end
end

--- Checks a split by names, bytes, persons and labels; decodes nothing.
---@param split table of splits.resolve
---@param options table? {dataset: Dataset, hash: boolean (true), allow_leak: boolean, progress: fun(done, total)?}
---@return Audit? audit
---@return string? reason an overlap that names both sides, or what cannot be read, in one line
function audit.run(split, options)
  options = options or {}
  local a = audit.new()
  for _, part in ipairs(splits.PARTS) do
    line(a, "%s: %s (%s)", part, count_of(#split[part], "sequence"), ids(split[part]))
    for _, e in ipairs(split[part]) do a.rows[#a.rows + 1] = { entry = e, part = part } end
  end
  local ok, reason
  for _, o in ipairs(split.overlaps or {}) do
    ok, reason = overlap(a, options, "shared-id", ("sequence %s is in both %s and %s"):format(o[1], o[2], o[3]))
    if not ok then return nil, reason end
  end
  if options.hash ~= false then
    ok, reason = check_content(a, options)
    if not ok then return nil, reason end
  end
  ok, reason = check_subjects(a, options)
  if not ok then return nil, reason end
  line(a, "normaliser, PCA and network see the training sequences only; the threshold sees the validation sequences only")
  check_labels(a, split, options.dataset)
  return a
end

--- Checks recordings of which each is left out in its turn: whatever two recordings or subjects share would be trained on and judged.
---@param entries Entry[]
---@param options table? as of `run`
---@return Audit? audit
---@return string? reason
function audit.left_out(entries, options)
  options = options or {}
  local a = audit.new()
  line(a, "%s, each left out in its turn (%s)", count_of(#entries, "sequence"), ids(entries))
  for _, e in ipairs(entries) do a.rows[#a.rows + 1] = { entry = e } end
  local ok, reason = check_content(a, options)
  if ok then ok, reason = check_subjects(a, options) end
  if not ok then return nil, reason end
  unknown_labels(a, options.dataset)
  return a
end

-- The fingerprint of a row's recording, or nil where it has none.
local function print_of(a, row, options)
  local e = row.entry
  if a.prints[e] == nil then
    local ok, f, reason = pcall(function()
      if e.kind ~= "landmarks" then return near.of_pictures(e.path, { fps = options.how and options.how.fps, sha256 = e.sha256, cache = options.cache }) end
      return near.of_sequence((Dataset.load(e, options.how)), { coordinates = options.coordinates })
    end)
    if not ok and tostring(f):find("interrupted", 1, true) then error(f, 0) end
    a.prints[e] = ok and f or false
    if not a.prints[e] then
      line(a, "near-duplicates: %s was not compared: %s", e.id, log.reason(ok and reason or f))
    end
  end
  return a.prints[e]
end

--- Looks for recordings of different parts that show the same movement without sharing a byte: re-encoded, rescaled, brightened, mirrored, cut.
--- Decodes the recordings of the parts named, so test recordings are for the end of a run.
---@param a Audit of `run` or `left_out`
---@param options table? {parts: table<string, true> (all), how: as of Dataset.load, coordinates, cache: boolean, allow_leak: boolean, progress: fun(done, total)?}
---@return boolean? ok
---@return string? reason in one line, naming both sides
function audit.movement(a, options)
  options = options or {}
  local rows, todo = {}, {}
  for _, row in ipairs(a.rows) do if not options.parts or not row.part or options.parts[row.part] then rows[#rows + 1] = row end end
  each_pair(rows, function(x, y)
    local done = a.compared[x.entry] or {}
    a.compared[x.entry] = done
    if apart(x, y) and not done[y.entry] then
      done[y.entry] = true
      todo[#todo + 1] = { x, y }
    end
  end)
  local closest, pair, compared, found
  if options.progress and #todo > 0 then options.progress(0, #todo) end
  for i, p in ipairs(todo) do
    local f, g = print_of(a, p[1], options), print_of(a, p[2], options)
    if f and g then
      local d = near.compare(f, g)
      compared = (compared or 0) + 1
      if not closest or d.score > closest then closest, pair = d.score, p end
      if d.alike then
        found = true
        local ok, reason = overlap(a, options, "near-duplicate", ("sequences %s and %s show the same movement%s: %.1f s, from %.1f s and %.1f s on, agree to %.2f"):format(
          named(p[1]), named(p[2]), d.mirrored and ", mirrored" or "", d.seconds, d.from[1], d.from[2], d.score))
        if not ok then return nil, reason end
      end
    end
    if options.progress then options.progress(i, #todo) end
  end
  if compared then
    line(a, "near-duplicates: %s compared%s (closest: %s and %s, %s)", count_of(compared, "pair"), found and "" or ", none alike", named(pair[1]), named(pair[2]),
      closest < 0 and "too little in common to say" or closest >= near.LIMIT and not found and ("%.2f, but too short or too regular to tell"):format(closest)
      or ("%.2f; copies have %.2f and more"):format(closest, near.LIMIT))
  end
  return true
end

--- The range of ages of some recordings.
---@param entries table[] with a field age_weeks
---@return table? ages {least, most, known: integer, of: integer} nil where none is known
function audit.ages(entries)
  local least, most, known = math.huge, -math.huge, 0
  for _, e in ipairs(entries) do
    if e.age_weeks then least, most, known = math.min(least, e.age_weeks), math.max(most, e.age_weeks), known + 1 end
  end
  return known > 0 and { least = least, most = most, known = known, of = #entries } or nil
end

--- A subject as it stands in a detector file, where its name has no business.
---@param subject string?
---@return string? key 16 hex digits
function audit.subject_key(subject)
  return subject and files.sha256_text("subject " .. subject):sub(1, 16)
end

local function weeks(ages) return ages.least == ages.most and ("%g weeks"):format(ages.least) or ("%g to %g weeks"):format(ages.least, ages.most) end

-- The detector's recording that is this one, by content, person or name.
local function known_to(a, detector, input)
  for _, part in ipairs { { "calibration", detector.calibration.sequences }, { "training", detector.training.sequences } } do
    for _, s in ipairs(part[2]) do
      local what = ("the detector's %s sequence %s"):format(part[1], s.id)
      if input.sha256 and s.sha256 == input.sha256 then
        return audit.add(a, "warning", "scored-as-new", ("%s is %s: its score does not count as new"):format(input.id, what))
      elseif input.subject and s.subject == audit.subject_key(input.subject) then
        return audit.add(a, "warning", "known-subject", ("%s shows the person of %s: its score does not count as new"):format(input.id, what))
      elseif s.id == input.id then
        return audit.add(a, "note", "known-name", ("%s has the name of %s and other content: it counts as new unless it is another copy"):format(input.id, what))
      end
    end
  end
end

--- Checks a detector file: what it was fitted on, and what it was stamped with.
---@param detector Detector
---@return Audit
function audit.of_detector(detector)
  local a = audit.new()
  local training, calibration, fitted = detector.training.sequences, detector.calibration.sequences, detector.about.fitted
  line(a, "detector: trained on %s, calibrated on %s (%s)", count_of(#training, "sequence"), count_of(#calibration, "other"), ids(calibration))
  local leak = detector.about.leak
  a.leak = leak and true or false
  for _, text in ipairs(type(leak) == "table" and leak or {}) do audit.add(a, "error", "leak", tostring(text)) end
  local trained = {}
  for _, s in ipairs(training) do
    trained[s.id] = true
    for _, c in ipairs(calibration) do
      if not a.leak and (s.sha256 and s.sha256 == c.sha256 or not s.sha256 and s.id == c.id) then
        audit.add(a, "error", "shared-content", ("the detector's calibration sequence %s is its training sequence %s"):format(c.id, s.id))
        a.leak = true
      end
    end
  end
  local normaliser = type(fitted) == "table" and fitted.normaliser
  if type(normaliser) ~= "table" then
    audit.add(a, "note", "normaliser-unknown", "the detector file does not say which sequences its normaliser was fitted on")
  else
    local strange = {}
    for _, id in ipairs(normaliser) do if not trained[id] then strange[#strange + 1] = tostring(id) end end
    if #strange > 0 then
      audit.add(a, "error", "normaliser", ("the detector's normaliser was fitted on sequences that did not train it: %s"):format(table.concat(strange, ", ")))
      a.leak = true
    else
      line(a, "normaliser: fitted on %s, all of them training sequences", count_of(#normaliser, "sequence"))
    end
  end
  local abnormal = {}
  for _, list in ipairs { training, calibration } do
    for _, s in ipairs(list) do if s.label == 1 then abnormal[#abnormal + 1] = s.id end end
  end
  if #abnormal > 0 then
    audit.add(a, "warning", "abnormal-as-normal", ("the detector took recordings labelled abnormal as normal: %s"):format(table.concat(abnormal, ", ")))
  end
  audit.numbers(a, calibration)
  return a
end

--- Warns of recordings outside the ages that trained.
---@param a Audit
---@param ages table? of `ages`, or of a detector file; nil: nothing is said
---@param inputs table[] {id, age_weeks?}
function audit.of_ages(a, ages, inputs)
  if not ages then return end
  local unknown = {}
  for _, input in ipairs(inputs) do
    if not input.age_weeks then
      unknown[#unknown + 1] = input.id
    elseif input.age_weeks < ages.least or input.age_weeks > ages.most then
      audit.add(a, "warning", "age", ("%s is %g weeks old, the training recordings are of %s: its verdict says little"):format(
        input.id, input.age_weeks, weeks(ages)))
    end
  end
  if #unknown > 0 then
    audit.add(a, "note", "age-unknown", ("the training recordings are of %s; of unknown age: %s"):format(weeks(ages), table.concat(unknown, ", ")))
  end
end

--- The audit of one recording that a detector is to judge: whether it is new to it, and of the ages it knows.
---@param a Audit of `of_detector`; stays as it is
---@param detector Detector
---@param input table {id, sha256?, subject?, age_weeks?}
---@return Audit audit
---@return string[] texts of the warnings about this recording alone
function audit.input(a, detector, input)
  local b = audit.new()
  for _, f in ipairs(a.findings) do audit.add(b, f.level, f.code, f.text, f.detail) end
  for i, text in ipairs(a.lines) do b.lines[i] = text end
  b.leak = a.leak
  local before = #b.findings
  known_to(b, detector, input)
  audit.of_ages(b, detector.training.ages, { input })
  local texts = {}
  for i = before + 1, #b.findings do if b.findings[i].level ~= "note" then texts[#texts + 1] = b.findings[i].text end end
  return b, texts
end

--- What a page and run.json take of an audit: what was found, then what was looked at.
---@param a Audit
---@return table {findings: Finding[], leak: boolean, counts: table}
function audit.page(a)
  local list = {}
  for i, f in ipairs(a.findings) do list[i] = f end
  for _, text in ipairs(a.lines) do list[#list + 1] = { level = "note", code = "looked-at", text = text } end
  return { findings = list, leak = a.leak, counts = a.counts }
end

--- To the log what it has not been told yet: errors and warnings as warnings, the rest as information.
---@param a Audit
---@param told table? {findings: integer, lines: integer} so far; counted up
function audit.tell(a, told)
  told = told or { findings = 0, lines = 0 }
  for i = told.lines + 1, #a.lines do log.info("%s", a.lines[i]) end
  for i = told.findings + 1, #a.findings do
    local f = a.findings[i]
    if f.level == "note" then log.info("%s", f.text) else log.warn("%s%s", f.level == "error" and "LEAK ALLOWED: " or "", f.text) end
  end
  told.lines, told.findings = #a.lines, #a.findings
end

--- Writes audit.txt: the verdict, what was looked at, what was found.
---@param path string
---@param a Audit
---@return string path; raises one line where it cannot be written
function audit.write(path, a)
  local out = { "libration audit", "" }
  local n = a.counts.warning or 0
  out[#out + 1] = audit.stamp(a) or "verdict: " .. (a.counts.error and "the parts overlap" or n > 0 and count_of(n, "warning") or "nothing found")
  out[#out + 1] = "\nlooked at"
  for _, text in ipairs(a.lines) do out[#out + 1] = "  " .. text end
  if #a.findings > 0 then out[#out + 1] = "\nfound" end
  for _, level in ipairs { "error", "warning", "note" } do
    for _, f in ipairs(a.findings) do
      if f.level == level then
        out[#out + 1] = ("  %-8s %-22s %s"):format(level, f.code, f.text)
        for _, text in ipairs(f.detail or {}) do out[#out + 1] = "           " .. text end
      end
    end
  end
  return files.write(path, table.concat(out, "\n") .. "\n")
end

return audit
