-- Evaluates detectors on labelled recordings: AUC with intervals, p and false alarms of the autoencoder beside simpler methods.
local here = arg and arg[0] and arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. package.path
local options = require "libration.options"

local about = "Evaluates detectors on labelled recordings: the autoencoder beside simpler methods and the movement profile.\n\n" ..
  "--protocol L1 (the number to publish) leaves each normal recording or subject out once and compares scores within one model only; L0 is one label-aware split;\n" ..
  "split is the split of train.lua, with --train, --validate and --test. AUC with a bootstrap interval over recordings, or subjects where labels.csv names them.\n" ..
  "Writes evaluation.csv (a row a method), evaluation.json (every score and p), audit.txt and report.html. Research use, not a diagnosis."

local rows = require("libration.data.rows").of {
  {"data", "", "folder of recordings: MINI-RGBD tree, videos or landmark files", required = true, metavar = "DIR"},
  {"labels", "", "CSV with the columns sequence,label (and subject); empty: labels.csv in the folder", metavar = "FILE"},
  "kind",
  {"protocol", "L1", "how recordings train and are judged", choices = {"split", "L0", "L1"}},
  {"train", "", "of --protocol split: sequences to train on; empty: 1-8 of twelve, else 60 %", metavar = "LIST"},
  {"validate", "", "of --protocol split: normal sequences that calibrate; empty: 9,10 of twelve, else 20 %", metavar = "LIST"},
  {"test", "", "of --protocol split: sequences to judge; empty: 11,12 of twelve, else the rest", metavar = "LIST"},
  {"allow-leak", false, "go on where recordings that must be apart overlap; the page, audit.txt and evaluation.json are stamped"},
  {"methods", {"all"}, "all, or some of autoencoder,autoencoder-p95,autoencoder-ratio,autoencoder-torso,speed,variance,repeat,projection,pca,pca-unit,nearest,movement,profile"},
  {"seeds", 5, "runs of the methods that chance enters: autoencoder and random projection", min = 1, max = 1000},
  {"seed", 1, "of the first run", min = 0, max = 4294960000},
  "window", {"stride", 5}, "features", "post", "joints", "max-gap", "min-score",
  {"epochs", 30, "of the autoencoder", min = 1, max = 1000000},
  {"patience", 8, "epochs without improvement on a normal inside the training part before stopping; 0: run them all", min = 0},
  "batch", "learning-rate", "hidden", "latent", "task", "mask",
  {"output", "", "folder for the results; empty: runs/NAME-evaluation of the data", metavar = "DIR"},
  "device", "threads", "model", "precision", "smooth", "person", "weights", "at-once", "cache", "check", "fps", "skeleton", "size", "coordinates", "log-level",
}

-- Recordings by entry, as the methods take them; what cannot be used leaves the data set with a warning.
local function load_all(dataset, o, m, warnings, device)
  local data, motion, log = require "libration.data", require "libration.motion", require "libration.log"
  local progress = require "libration.progress"
  local width, height = data.rows.size_of(o.size)
  local how = {
    fps = o.fps, skeleton = o.skeleton ~= "" and o.skeleton or nil, width = width, height = width and height, settings = data.landmarks.settings(o, device),
    coordinates = o.coordinates, check = o.check,
  }
  local wanted = {}
  for _, e in ipairs(dataset.entries) do wanted[#wanted + 1] = e.label and e or nil end
  data.landmarks.ahead(wanted, how.settings, o.at_once)
  local loaded, rates, kept, first = {}, {}, {}, nil
  local bar = progress.new {label = "recordings", total = #dataset.entries}
  for i, e in ipairs(dataset.entries) do
    if e.label then
      local ok, sequence, notes = pcall(data.dataset.load, e, how)
      if not ok and tostring(sequence):find("interrupted", 1, true) then error(sequence, 0) end
      if not ok then
        warnings[#warnings + 1] = log.reason(sequence)
      elseif first and sequence.skeleton ~= first.skeleton then
        error(("%s has %s key points, %s has %s; evaluate them apart"):format(e.id, sequence.skeleton, first.id, first.skeleton), 0)
      else
        first = first or sequence
        loaded[e], rates[#rates + 1] = sequence, sequence.fps
        for _, note in ipairs(notes) do warnings[#warnings + 1] = note end
      end
    end
    bar:update(i)
  end
  bar:finish()
  if #rates == 0 then error(("%s: no labelled recording can be read"):format(o.data), 0) end
  m.rate = motion.statistics.median(rates)
  local recordings = {}
  for _, e in ipairs(dataset.entries) do
    if loaded[e] then
      local features = motion.prepare(loaded[e], m)
      local windows = motion.windows({features}, m, 1)
      if windows.count == 0 then
        warnings[#warnings + 1] = ("%s was not scored: no window of %d frames in which the body is seen"):format(e.id, m.window)
      else
        recordings[e] = {id = e.id, subject = e.subject, features = features, windows = windows}
        kept[#kept + 1] = e
      end
    end
  end
  for _, text in ipairs(warnings) do log.warn("%s", text) end
  local by_id = {}
  for _, e in ipairs(kept) do by_id[e.id] = e end
  dataset.entries, dataset.by_id = kept, by_id
  return recordings, first.skeleton, how
end

local function of_entries(list, recordings)
  local out = {}
  for i, e in ipairs(list) do out[i] = recordings[e] end
  return out
end

options.main(function()
  local o = options.parse("evaluate", about, rows, arg)
  local files, log, progress, lr = require "libration.files", require "libration.log", require "libration.progress", require "libration"
  local data, motion, anomaly, json = require "libration.data", require "libration.motion", require "libration.anomaly", require "libration.formats.json"
  local begin, timings = progress.clock(), {}
  log.setup {level = o.log_level}
  local device, which = lr.device.take(o.device)
  if o.threads > 0 then lr.threads(o.threads) end

  -- 1. what is compared, on which recordings
  local chosen, reason = anomaly.methods.choose(o.methods, o.post)
  if not chosen then error("--methods: " .. reason, 0) end
  local dataset
  dataset, reason = data.dataset.open(o.data, {kind = o.kind, labels = o.labels ~= "" and o.labels or nil})
  if not dataset then error(reason, 0) end
  if not dataset.labelled then error(("%s has no labels.csv; give one with --labels FILE"):format(o.data), 0) end
  local output = o.output ~= "" and o.output or files.join("runs", files.name((o.data:gsub("/+$", ""))) .. "-evaluation")
  local lock
  lock, reason = files.lock(output)
  if not lock then error(reason, 0) end
  options.undo(function() lock:abandon() end)
  local warnings = {}
  local m = motion.options {
    joints = o.joints, coordinates = o.coordinates, min_score = o.min_score, max_gap = o.max_gap > 0 and o.max_gap or math.huge,
    features = o.features, post = o.post, window = o.window,
  }
  local want = data.splits.default(dataset)
  for _, part in ipairs(data.splits.PARTS) do if o[part] ~= "" then want[part] = o[part] end end
  local without = {}
  for _, e in ipairs(dataset.entries) do if not e.label then without[#without + 1] = e.id end end
  local recordings, skeleton, how = load_all(dataset, o, m, warnings, device)
  local plan
  plan, reason = anomaly.protocols.plan(dataset, o.protocol, want, {allow_leak = o.allow_leak})
  if not plan then error(reason, 0) end
  local audit
  if plan.split then
    audit, reason = data.audit.run(plan.split, {dataset = dataset, allow_leak = o.allow_leak})
  else
    audit, reason = data.audit.left_out(dataset.entries, {dataset = dataset, allow_leak = o.allow_leak})
  end
  if not audit then error(reason, 0) end
  if #without > 0 then data.audit.add(audit, "note", "unlabelled", "left out, for they have no label: " .. table.concat(without, ", ")) end
  local looked
  looked, reason = data.audit.movement(audit, {how = how, coordinates = o.coordinates, cache = o.cache, allow_leak = o.allow_leak})
  data.audit.write(files.join(output, "audit.txt"), audit)
  if not looked then error(reason, 0) end
  data.audit.tell(audit)
  for _, text in ipairs(data.audit.texts(audit)) do warnings[#warnings + 1] = text end
  local said = #warnings
  log.info("device: %s", which)
  local folds, positives, normals, seconds = {}, plan.folds[1].positives, 0, 0
  for f, fold in ipairs(plan.folds) do
    folds[f] = {
      train = of_entries(fold.train, recordings), inner = fold.inner and recordings[fold.inner], motion = m, stride = o.stride,
      network = {epochs = o.epochs, batch = o.batch, learning_rate = o.learning_rate, patience = o.patience, hidden = o.hidden, latent = o.latent, mask = o.mask, task = o.task,
        device = device},
    }
    normals = normals + #fold.normals
    for _, e in ipairs(fold.normals) do seconds = seconds + recordings[e].features.frames / m.rate end
  end
  local known, left_out = plan.folds[1].calibrate, {}
  for _, fold in ipairs(plan.folds) do
    for _, e in ipairs(fold.normals) do left_out[#left_out + 1] = e end
  end
  local smallest = 1 / (1 + data.splits.count(#known > 0 and known or left_out))
  log.info("protocol %s: %s", o.protocol, plan.text)
  if normals < 20 then
    warnings[#warnings + 1] = ("%d normal and %d abnormal recordings are judged: the intervals are wide, and false alarms are counts, not a rate"):format(normals, #positives)
  end
  timings.recordings = progress.clock() - begin

  -- 2. every method through every fold
  local bar = progress.new {label = "methods", total = anomaly.comparison.fits(chosen, #folds, o.seeds), unit = "models"}
  if o.log_level == "info" then log.setup {level = "warn"} end -- the epochs of so many networks are not read; --log-level debug shows them
  local results, explained, by_family = anomaly.comparison.run(chosen, plan, folds, recordings, {
    seeds = o.seeds, seed = o.seed, window = m.window, step = function(family) bar:add(1, family) end,
  })
  bar:finish()
  for family, seconds_of in pairs(by_family) do timings[family] = seconds_of end
  log.setup {level = o.log_level}

  -- 3. what the movement profile says of the abnormal ones, calibrated on the normals that train
  local judged, by_key = {}, {}
  for _, r in ipairs(results) do by_key[r.key] = r end
  for k, e in ipairs(positives) do judged[k] = {id = e.id} end
  if by_key.profile then
    local usual = {}
    local alone = o.protocol == "L1" and plan.folds[1].normals or {}
    for _, list in ipairs {folds[1].train, {folds[1].inner}, of_entries(plan.folds[1].calibrate, recordings), of_entries(alone, recordings)} do
      for _, r in ipairs(list) do usual[#usual + 1] = anomaly.methods.profile_of(r) end
    end
    if anomaly.profile.enough(usual) then
      local c = anomaly.profile.calibrate(usual)
      for k, e in ipairs(positives) do judged[k].words = anomaly.profile.judge(c, anomaly.methods.profile_of(recordings[e])).words end
    end
  end
  local line, weak = anomaly.honesty.of_comparison(by_key, explained, normals)
  local function sentence(text) return text and text:gsub("^%l", string.upper) .. "." end
  for _, text in ipairs(weak) do warnings[#warnings + 1] = text end

  -- 4. files
  local csv = require "libration.formats.csv"
  local cells = {}
  for i, r in ipairs(results) do cells[i] = {r.name, r.auc, r.low, r.high, r.sd, #r.aucs, r.alarms} end
  csv.save(files.join(output, "evaluation.csv"), {"method", "auc", "low", "high", "sd_over_seeds", "seeds", "false_alarms_per_minute"}, cells)
  timings.all = progress.clock() - begin
  files.write(files.join(output, "evaluation.json"), json.encode({
    recipe = "evaluate", version = lr.version, options = o, motion = m, protocol = plan.text, methods = results, explained = explained, judged = judged, smallest_p = smallest,
    normals = normals, abnormals = #positives, skeleton = skeleton, timings = timings, warnings = json.list(warnings),
    audit = data.audit.page(audit),
  }, true) .. "\n")
  local page = require("libration.report.evaluation").write(output, {
    subtitle = ("%s, protocol %s"):format(o.data, o.protocol), protocol = table.concat({sentence(plan.text), sentence(line)}, " "),
    seeds = o.seeds, smallest_p = smallest,
    population = ("%d labelled recordings, %d of them abnormal."):format(#dataset.entries, #positives), minutes = seconds / 60, methods = results, judged = judged,
    warnings = warnings, audit = data.audit.page(audit), device = device, timings = timings, versions = {libration = lr.version, LuaJIT = jit.version},
    config = {protocol = o.protocol, window = o.window, stride = o.stride, features = o.features, post = o.post, epochs = o.epochs, seeds = o.seeds, skeleton = skeleton},
  })
  options.settled()
  lock:release()
  for i = said + 1, #warnings do log.warn("%s", warnings[i]) end
  for _, r in ipairs(results) do
    log.info("%-40s AUC %.2f (%.2f to %.2f)%s%s", r.name, r.auc, r.low, r.high, r.sd and (", SD over seeds %.2f"):format(r.sd) or "",
      r.alarms and (", %.1f false alarms a minute"):format(r.alarms) or "")
  end
  if line then log.info("%s", line) end
  log.info("%s", page)
end)
