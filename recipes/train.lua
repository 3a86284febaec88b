-- Trains an LSTM autoencoder on normal movement, calibrates a threshold on other normal recordings, then judges test recordings.
local here = arg and arg[0] and arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. package.path
local options = require "libration.options"

local about = "Trains an LSTM autoencoder on normal movement, calibrates it on other normal recordings, then judges test recordings.\n\n" ..
  "--data is a MINI-RGBD tree (NN/rgb/*.png; nothing but rgb is ever opened), a folder of videos, or a folder of landmark files (npy, csv, OpenPose json).\n" ..
  "Without it the embedded data set is rendered: 12 infants, 01-11 normal, 12 abnormal. Test recordings are decoded only after detector.safetensors is on disk.\n" ..
  "Defaults and their evidence (12 MINI-RGBD recordings, leave one normal out): each window minus its own mean, AUC 1.00 against .91 with --post none, where\n" ..
  "mean joint speed alone has 1.00 too; README.md has the table. Early stopping goes by a training normal, so that the calibration stays unseen.\n" ..
  "audit.txt tells what the split shares, also without sharing a byte, and where it contradicts the labels; an overlap ends the run unless --allow-leak.\n" ..
  "Writes best.safetensors, epoch_NNN.safetensors, detector.safetensors, training.log, training.{png,svg}, test.csv, audit.txt, run.json, report.html. " ..
  "Research use, not a diagnosis."

local rows = require("libration.data.rows").of {
  {"data", "", "folder of recordings; empty: the embedded data set", metavar = "DIR"},
  "kind",
  {"labels", "", "CSV with the columns sequence,label (and subject, age_weeks); empty: labels.csv in the folder, where there is one", metavar = "FILE"},
  {"train", "", "sequences to train on, by number or id: 1-8 or 01,02,anna; empty: 1-8 of twelve, else 60 %", metavar = "LIST"},
  {"validate", "", "normal sequences that set the threshold; empty: 9,10 of twelve, else 20 %", metavar = "LIST"},
  {"test", "", "sequences to judge afterwards; empty: 11,12 of twelve, else the rest; none: no test", metavar = "LIST"},
  {"allow-leak", false, "go on where parts of the split overlap; every page, audit.txt, run.json and the detector are stamped"},
  "window", "stride", "features", "mask", "post", "joints",
  {"root", "torso", "origin of each frame", choices = {"torso", "picture"}},
  {"scale", "torso", "unit of length: torso (the sequence's median torso length) or a number of pixels", check = function(v)
    if v == "torso" or (tonumber(v) or 0) > 0 then return true end
    return nil, "want torso or a number of pixels"
  end},
  {"rotation", "none", "turn the torso upright", choices = {"none", "sequence", "frame"}},
  {"gaps", "linear", "how missing joints are filled", choices = {"linear", "akima", "none"}},
  "max-gap",
  {"outliers", 0, "remove jumps beyond so many robust standard deviations of a joint's speed; 0: off", type = "number", min = 0},
  "min-score",
  {"min-seen", .5, "least share of joint positions seen in a window", type = "number", min = 0, max = 1},
  {"rate", 0, "frames a second that everything is brought to; 0: the median of the training sequences", type = "number", min = 0},
  {"augment", "none", "add mirrored, or mirrored and turned, copies of the training sequences", choices = {"none", "mirror", "turn"}},
  "hidden", "latent", "task",
  {"epochs", 100, "passes over the training windows", min = 1, max = 1000000},
  "batch", "learning-rate",
  {"schedule", "constant", "of the learning rate", choices = {"constant", "cosine", "step", "plateau"}},
  {"accumulate", 1, "batches whose gradients make one step", min = 1, max = 4096},
  {"clip", 0, "largest norm of the gradient; 0: not limited", type = "number", min = 0},
  {"patience", 10, "epochs without improvement before stopping; 0: run them all", min = 0},
  {"stop-on", "training", "what improvement is measured on: training (the last training sequence, held out), validation, or none (keep the last epoch)",
    choices = {"training", "validation", "none"}},
  {"percentile", 95, "of the validation windows' errors: the threshold", type = "number", min = 0, max = 100},
  "two-sided", "unit", "block",
  {"seed", 1, "of initial weights and order of the data", min = 0, max = 4294967295},
  {"checkpoint-every", 10, "epochs between epoch_NNN.safetensors; 0: none", min = 0},
  {"resume", false, "go on from the last checkpoint in the output folder, to the same numbers"},
  {"output", "", "folder for the results; empty: runs/NAME of the data", metavar = "DIR"},
  "device",
  {"amp", false, "mixed precision: products of 16-bit operands, summed in f32, f32 weights; on unless --no-amp on a CUDA device"},
  {"half", "f16", "number type of --amp's operands; f16 with loss scaling", choices = {"f16", "bf16"}},
  {"workers", 1, "threads that prepare batches", min = 0, max = 64},
  "threads", "model", "precision", "smooth", "person", "weights", "at-once", "cache", "check", "fps", "skeleton", "coordinates", "size",
  {"population", "", "whom the training sequences show, in words for the reports"},
  {"render-seed", 1, "of the embedded data set", min = 0, max = 4294967295},
  "log-level",
}

-- The embedded data set in the cache folder, rendered when missing.
local function embedded(o)
  local files, progress, infant = require "libration.files", require "libration.progress", require "libration.data.infant"
  local folder = infant.cached(o.render_seed)
  local marker = files.join(folder, "complete")
  if not files.exists(marker) then
    local bar = progress.new {label = "render", total = 12 * 200, unit = "frames"}
    infant.write(folder, {
      sequences = 12, frames = 200, width = 320, height = 240, seed = o.render_seed, abnormal = {[12] = "burst"}, step = function(n) bar:add(n) end,
    })
    bar:finish()
    files.write(marker, "")
  end
  return folder, "rendered infants (not real children)"
end

-- Options of the motion room as given on the command line.
local function motion_options(o)
  return {
    joints = o.joints, coordinates = o.coordinates, min_score = o.min_score, outliers = o.outliers, gaps = o.gaps,
    max_gap = o.max_gap == 0 and math.huge or o.max_gap, rate = o.rate, root = o.root, scale = tonumber(o.scale) or o.scale, rotation = o.rotation,
    features = o.features, mask = o.mask, post = o.post, window = o.window, min_seen = o.min_seen,
  }
end

-- Sequences of one part of the split; a bad recording stops training and calibration, but not the test of the others.
local function load_part(entries, how, warnings, tolerant)
  local Dataset, log = require "libration.data.dataset", require "libration.log"
  local list = {}
  for _, e in ipairs(entries) do
    local ok, sequence, notes, recording = pcall(Dataset.load, e, how)
    if ok then
      for _, note in ipairs(notes) do
        log.warn("%s", note)
        warnings[#warnings + 1] = note
      end
      list[#list + 1] = {entry = e, id = e.id, label = e.label, sequence = sequence, recording = recording}
    elseif tolerant and not tostring(sequence):find("interrupted", 1, true) then
      list[#list + 1] = {entry = e, id = e.id, label = e.label, reason = log.reason(sequence)}
      log.error("%s", log.reason(sequence))
    else
      error(sequence, 0)
    end
  end
  return list
end

-- Features of the training sequences, with copies where augmentation is asked for.
local function training_features(list, m, augment, seed)
  local motion = require "libration.motion"
  local features, originals = {}, {}
  for i, row in ipairs(list) do
    local track = motion.track(row.sequence, m)
    row.features = motion.features.of(track, m.features)
    features[#features + 1], originals[i] = row.features, row.features
    for _, copy in ipairs(motion.augment.copies(track, augment, seed, i)) do features[#features + 1] = motion.features.of(copy, m.features) end
  end
  return features, originals
end

-- All recordings must have the skeleton of the first training recording.
local function same_skeleton(row, first)
  if row.sequence.skeleton ~= first.sequence.skeleton then
    error(("sequences %s (%s) and %s (%s) have different skeletons"):format(first.id, first.sequence.skeleton, row.id, row.sequence.skeleton), 0)
  end
end

-- Scores a list of loaded sequences with a model; ids and checksums go along for the calibration.
local function score_all(list, m, model, first)
  local motion, scores = require "libration.motion", require "libration.anomaly.scores"
  local scored = {}
  for _, row in ipairs(list) do
    same_skeleton(row, first)
    row.features = row.features or motion.prepare(row.sequence, m)
    local w = motion.windows({row.features}, m, 1)
    local s = scores.of_sequence(w, 1, model, row.id)
    s.sha256, s.label, s.subject = row.entry.sha256, row.entry.label, require("libration.data.audit").subject_key(row.entry.subject)
    row.scored = s
    scored[#scored + 1] = s
  end
  return scored
end

options.main(function()
  local o, given = options.parse("train", about, rows, arg)
  local files, log, progress, lr = require "libration.files", require "libration.log", require "libration.progress", require "libration"
  local data, motion, anomaly, json = require "libration.data", require "libration.motion", require "libration.anomaly", require "libration.formats.json"
  local clock = progress.clock
  local begin, timings = clock(), {}
  log.setup {level = o.log_level}
  local device, which = lr.device.take(o.device)
  if not given.amp then o.amp = device ~= "cpu" end
  if o.threads > 0 then lr.threads(o.threads) end
  local width, height = data.rows.size_of(o.size)

  -- 1. the recordings, their split and its audit
  local folder_of_data, population = o.data, o.population
  if o.data == "" then
    local who
    folder_of_data, who = embedded(o)
    population = population ~= "" and population or who
    timings.render = clock() - begin
  end
  local mark = clock()
  local dataset, reason = data.dataset.open(folder_of_data, {kind = o.kind, labels = o.labels ~= "" and o.labels or nil})
  if not dataset then error(reason, 0) end
  local want = data.splits.default(dataset)
  for _, part in ipairs(data.splits.PARTS) do
    if o[part] ~= "" then want[part] = o[part] ~= "none" and o[part] or "" end
  end
  local split
  split, reason = data.splits.resolve(dataset, want, {allow_leak = o.allow_leak})
  if not split then error(reason, 0) end
  local name = o.data == "" and "default" or files.name((o.data:gsub("/+$", "")))
  local output = o.output ~= "" and o.output or files.join("runs", name)
  local lock, ok
  lock, reason = files.lock(output)
  if not lock then error(reason, 0) end
  options.undo(function() -- nothing stays behind when the run ends before training begins
    log.close()
    lock:abandon()
  end)
  ok, reason = log.setup {path = files.join(output, "training.log")}
  if not ok then error(reason, 0) end
  log.info("device: %s", which)
  log.info("%s: %d sequences (%s); device %s, %s", folder_of_data, #dataset.entries, dataset:ids(), device,
    o.amp and ("mixed precision, %s operands%s"):format(o.half, given.amp and "" or " (--no-amp: f32)") or "f32")
  local how = {
    fps = o.fps, skeleton = o.skeleton ~= "" and o.skeleton or nil, width = width, height = width and height, settings = data.landmarks.settings(o, device),
    coordinates = o.coordinates, check = o.check,
  }
  local told, warnings, audit = {findings = 0, lines = 0}, {}
  audit, reason = data.audit.run(split, {dataset = dataset, allow_leak = o.allow_leak})
  if not audit then error(reason, 0) end
  -- what the audit found since the last time, to the log and to audit.txt; an overlap ends the run
  local function audited(parts)
    local bar, passed
    passed, reason = data.audit.movement(audit, {
      parts = parts, how = how, coordinates = o.coordinates, cache = o.cache, allow_leak = o.allow_leak,
      progress = function(n, total)
        bar = bar or progress.new {label = "near-duplicates", total = total, unit = "pairs"}
        bar:update(n)
      end,
    })
    if bar then bar:finish() end
    data.audit.write(files.join(output, "audit.txt"), audit)
    if not passed then error(reason .. (parts.test and "; detector.safetensors is whole, judge other recordings with it" or ""), 0) end
    data.audit.tell(audit, told)
  end
  local seen = {}
  for _, part in ipairs {split.train, split.validate} do
    for _, e in ipairs(part) do seen[#seen + 1] = e end
  end
  data.landmarks.ahead(seen, how.settings, o.at_once)
  audited {train = true, validate = true}
  timings.audit = clock() - mark

  -- 2. landmarks and features of the training and validation recordings
  mark = clock()
  local train = load_part(split.train, how, warnings)
  local validate = load_part(split.validate, how, warnings)
  timings.landmarks = clock() - mark
  mark = clock()
  local m = motion.options(motion_options(o))
  if m.rate == 0 then
    local rates = {}
    for i, row in ipairs(train) do rates[i] = row.sequence.fps end
    m.rate = motion.statistics.median(rates)
  end
  local skeleton, joints = train[1].sequence.skeleton
  for _, list in ipairs {train, validate} do
    for _, row in ipairs(list) do same_skeleton(row, train[1]) end
  end
  local stop
  if o.stop_on == "training" and #train >= 3 then
    for i = #train, 1, -1 do
      if train[i].label ~= 1 then
        stop = table.remove(train, i)
        break
      end
    end
  end
  local features, originals = training_features(train, m, o.augment, o.seed)
  joints = train[1].features.track.names
  if stop then
    stop.features = motion.prepare(stop.sequence, m)
    originals[#originals + 1] = stop.features
  end
  for _, row in ipairs(validate) do row.features = motion.prepare(row.sequence, m) end
  local function windows_of(list, stride)
    local fs = {}
    for i, row in ipairs(list) do fs[i] = row.features end
    return motion.windows(fs, m, stride)
  end
  local training_windows = motion.windows(features, m, o.stride)
  if training_windows.count == 0 then
    error(("no training windows: every training sequence is shorter than --window %d frames, or the body is not seen"):format(o.window), 0)
  end
  local normaliser = motion.windows(originals, m, 1):fit_normaliser()
  local pca = anomaly.baselines.fit(motion.windows(originals, m, o.stride), normaliser, 32)
  local validation_windows, stop_windows = windows_of(validate, 1), stop and windows_of({stop}, 1)
  log.info("%d training windows of %d frames x %d numbers, %d validation windows%s", training_windows.count, o.window, training_windows:width(o.mask),
    validation_windows.count, stop and (", %d of the held-out sequence %s"):format(stop_windows.count, stop.id) or "")
  if validation_windows.count == 0 then error("no validation windows: every validation sequence is too short, or the body is not seen", 0) end
  timings["features and PCA"] = clock() - mark

  -- 3. training
  mark = clock()
  options.settled()
  if not o.resume then
    for _, old in ipairs(files.list(output) or {}) do
      if old:match("^epoch_%d+%.safetensors$") or old:match("^last%.safetensors$") or old:match("^best%.safetensors$") or old:match("^detector%.safetensors$") then
        files.remove(files.join(output, old))
      end
    end
  end
  local watched = stop_windows
  if o.stop_on == "validation" then watched = validation_windows end
  log.info("validation in the lines below: %s", stop and ("sequence %s, held out of training; the sequences of --validate set the threshold and nothing else"):format(stop.id)
    or watched and "the sequences of --validate, which also set the threshold: it may come out a little low" or "none, the last epoch is kept")
  local fit = anomaly.fit.run {
    train = training_windows, watch = watched, normaliser = normaliser, mask = o.mask, model = {hidden = o.hidden, latent = o.latent, task = o.task}, epochs = o.epochs,
    batch = o.batch, accumulate = o.accumulate, learning_rate = o.learning_rate, schedule = o.schedule, clip = o.clip, patience = o.patience, seed = o.seed,
    folder = output, checkpoint_every = o.checkpoint_every, resume = o.resume, workers = o.workers, device = device, amp = o.amp and o.half or nil,
    about = {data = audit.content.train, split = want, motion = m, hidden = o.hidden, latent = o.latent, task = o.task, stop_on = o.stop_on, augment = o.augment,
      stride = o.stride},
  }
  if fit.stopped == "interrupted" then error("interrupted", 0) end
  timings.training = clock() - mark

  -- 4. calibration on the validation recordings, and the detector on disk
  mark = clock()
  local model = {
    normaliser = normaliser, mask = o.mask, pca = pca, from = fit.model:scored_from(), network = fit.model, reconstruct = function(x, n) return fit.model:reconstruct(x, n) end,
  }
  local calibrating = score_all(validate, m, model, train[1])
  local calibration = anomaly.thresholds.calibrate(calibrating, o.percentile, anomaly.scores.explained(calibrating))
  local trained, frames = {}, 0
  local fitted = {normaliser = {}, threshold = {}}
  for i, e in ipairs(split.train) do trained[i] = {id = e.id, sha256 = e.sha256, label = e.label, subject = data.audit.subject_key(e.subject)} end
  for i, f in ipairs(originals) do
    frames = frames + f.frames
    fitted.normaliser[i] = f.track.id
  end
  for i, s in ipairs(calibrating) do fitted.threshold[i] = s.id end
  local ages = data.audit.ages(split.train)
  local movements = {} -- of the normals, for the movement profile
  for _, list in ipairs {train, {stop}, validate} do
    for _, row in ipairs(list) do
      local moves = row.label ~= 1 and row.sequence and anomaly.profile.of_sequence(row.sequence, m)
      if moves then
        moves.subject = data.audit.subject_key(row.entry.subject)
        movements[#movements + 1] = moves
      end
    end
  end
  local detector = anomaly.detector.new {
    model = fit.model, motion = m, skeleton = skeleton, joints = joints, normaliser = normaliser, pca = pca, calibration = calibration,
    training = {
      sequences = trained, ages = ages,
      population = ("%d sequences, %d frames%s%s"):format(#trained, frames, population ~= "" and ", " .. population or ", " .. name,
        ages and (", %g to %g weeks old"):format(ages.least, ages.most) or ""),
    },
    about = {version = lr.version, seed = o.seed, size = width and {width, height} or nil, movement = anomaly.profile.pack(movements),
      fitted = fitted, leak = audit.leak and data.audit.texts(audit, "error") or nil},
  }
  detector:save(files.join(output, "detector.safetensors"))
  timings.calibration = clock() - mark
  log.info("threshold %.4g: %gth percentile of %d validation windows; at most %.1f %% of a calibration sequence lies above it", calibration.threshold,
    o.percentile, #calibration.windows, 100 * calibration.limit)

  -- 5. only now are the test recordings decoded
  mark = clock()
  local clean = not audit.leak
  data.audit.of_ages(audit, ages, split.test)
  audited {train = true, validate = true, test = true}
  if clean and audit.leak then -- the stamp of what only the test recordings showed
    detector.about.leak = data.audit.texts(audit, "error")
    detector:save(files.join(output, "detector.safetensors"))
  end
  local test = load_part(split.test, how, warnings, true)
  local profile = anomaly.profile.unpack(detector.about.movement)
  if not profile then log.info("movement profile: not fitted, %d normal recordings (%d wanted)", #movements, anomaly.profile.LEAST) end
  for _, row in ipairs(test) do
    if row.sequence then
      local scored_ok, err = pcall(score_all, {row}, m, model, train[1])
      if scored_ok then
        row.verdict = detector:judge(row.scored, o)
        local v = row.verdict
        log.info("%s%s: %s", row.id, row.label and (row.label == 1 and " (labelled abnormal)" or " (labelled normal)") or "",
          anomaly.thresholds.line(v) .. (v.abnormal ~= nil and "; " .. anomaly.honesty.of_verdict(v) or ""))
        if profile then
          row.profile = anomaly.profile.judge(profile, anomaly.profile.of_sequence(row.sequence, m) or {})
          log.info("%s: movement profile: %s", row.id, anomaly.profile.line(row.profile))
        end
      else
        row.reason = log.reason(err)
        log.error("%s", row.reason)
      end
    end
  end
  anomaly.outputs.test(files.join(output, "test.csv"), test, calibration)
  timings.test = clock() - mark

  -- 6. what is known about the landmarks, and the report
  local accuracy
  if o.data == "" then
    local compared = {}
    for _, list in ipairs {train, stop and {stop} or {}, validate, test} do
      for _, row in ipairs(list) do
        if row.recording then compared[#compared + 1] = {landmarks = row.recording.landmarks, folder = files.folder(row.entry.path)} end
      end
    end
    local a
    a, reason = data.accuracy.measure(compared)
    if a then
      log.info("landmarks against ground truth: %s", data.accuracy.line(a))
      accuracy = {{"all joints", data.accuracy.line(a)}}
      for _, j in ipairs(a.joints) do accuracy[#accuracy + 1] = {(j.name:gsub("_", " ")), ("PCK@0.2 %.1f %%, median %.1f px"):format(100 * j.pck, j.median)} end
    else
      log.warn("%s", reason)
    end
  end
  timings.all = clock() - begin
  local run = {
    name = name, seed = o.seed, detector = detector, fit = fit, audit = audit, warnings = warnings, test = test, device = device, timings = timings, accuracy = accuracy,
    config = {
      data = folder_of_data, train = want.train, validate = want.validate, test = want.test, window = o.window, stride = o.stride, features = o.features,
      post = o.post, epochs = o.epochs, batch = o.batch, ["learning rate"] = o.learning_rate, seed = o.seed, percentile = o.percentile,
      hidden = table.concat(o.hidden, ","), latent = o.latent, ["stops on"] = stop and stop.id or o.stop_on, skeleton = skeleton, rate = m.rate,
    },
  }
  local page, tested = anomaly.outputs.training(run)
  for _, text in ipairs(anomaly.honesty.of_calibration(calibration)) do log.warn("%s", text) end
  for _, text in ipairs(tested and tested.warnings or {}) do log.warn("%s", text) end
  log.info("%s", anomaly.honesty.explained(calibration))
  local counts = anomaly.outputs.counts(test)
  log.info("test: %d of %d abnormal detected, %d false alarms on %d normal%s", counts.detected, counts.abnormal, counts.false_alarms, counts.normal,
    counts.unscored > 0 and (", %d not scored"):format(counts.unscored) or "")
  local checksums = {}
  for part, list in pairs(audit.content) do
    checksums[part] = {}
    for i, e in ipairs(list) do checksums[part][i] = {id = e.id, sha256 = e.sha256} end
  end
  files.write(files.join(output, "run.json"), json.encode({
    recipe = "train", version = lr.version, luajit = jit.version, device = device, threads = lr.threads(), options = o, motion = m, data = folder_of_data,
    split = want, checksums = checksums, seeds = {training = o.seed, rendering = o.data == "" and o.render_seed or nil}, timings = timings,
    epochs = #fit.history.train, best_epoch = fit.best, threshold = calibration.threshold, explained = calibration.explained, test = counts,
    auc = tested and tested.auc or nil, peak_memory_cpu = page.memory.cpu, peak_memory_gpu = page.memory.gpu, amp = o.amp and o.half or nil,
    warnings = json.list(page.warnings), audit = data.audit.page(audit),
  }, true) .. "\n")
  local report = require "libration.report"
  local html = report.training(output, page)
  lock:release()
  log.info("%s", html)
end)
