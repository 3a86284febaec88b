-- Measures which kinds of rendered abnormal movement each method finds: renders, trains and judges seed by seed, and prints a table. Not a recipe.
-- Every step that is done already is kept, so that a run that was cut short goes on.
local here = arg and arg[0] and arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. package.path
local options = require "libration.options"

local about = "For each seed: renders 11 normal infants and one of each abnormal kind at their measured speed, trains on 01-08 with the defaults of train.lua, calibrates on\n" ..
  "09 and 10, and judges the normal 11 and each kind by every method. Writes kinds.csv (a row a sequence) and prints flagged counts and AUC."

local KINDS = {"burst", "synchronised", "one-sided", "tremor"}
local METHODS = {
  {"autoencoder", "autoencoder"}, {"speed", "mean speed"}, {"pca", "PCA-32"}, {"zero", "zero output"}, {"nearest", "nearest training window"},
  {"profile", "movement profile"},
}

local rows = {
  {"seeds", "101-110", "of the rendered sets: FIRST-LAST", metavar = "LIST"},
  {"output", "runs/kinds", "folder for sets, runs and kinds.csv", metavar = "DIR"},
  {"threads", 1, "processor threads; 0: all cores", min = 0},
}

-- Scores and flags of the sequences 01 to 15 of one seed: rows {seed, id, kind, method, score, flagged 0 | 1, p}.
local function judge(seed, data, run, o)
  local Detector, Dataset, landmarks = require "libration.anomaly.detector", require "libration.data.dataset", require "libration.data.landmarks"
  local anomaly, motion = require "libration.anomaly", require "libration.motion"
  local files = require "libration.files"
  local detector = assert(Detector.load(files.join(run, "detector.safetensors")))
  local profile = anomaly.profile
  local normals = assert(profile.unpack(detector.about.movement))
  local how = {settings = landmarks.settings {model = "full", precision = "f32", smooth = "one-euro", person = "best", fps = 0, cache = true, threads = o.threads, weights = ""}}
  local all, train = {}, {}
  for i, e in ipairs(assert(Dataset.open(data)).entries) do
    local sequence = Dataset.load(e, how)
    local features = motion.prepare(sequence, detector.motion)
    all[i] = {id = e.id, kind = i > 11 and KINDS[i - 11] or "normal", sequence = sequence, features = features}
    if i <= 8 then train[i] = all[i] end
  end
  local nearest = anomaly.methods.choose({"nearest"})[1].family.fit {train = train, motion = detector.motion, stride = 1, seed = 1, network = {}}
  local list, usual = {}, -math.huge
  for i, r in ipairs(all) do
    local speed = motion.normalise.mean_speed(r.features.track)
    if i < 9 then
      list[#list + 1] = {seed, r.id, r.kind, "speed", speed, "", ""} -- needs no fit: every normal is as good as another
    else
      local s = detector:score(r.sequence)
      local v = detector:judge(s)
      local near = nearest(r).nearest[1]
      local judged = profile.judge(normals, profile.of_sequence(r.sequence, detector.motion) or {})
      local known = i < 11
      -- of 09 and 10, on which is calibrated: no verdicts, and the profile's distance with that one left out
      local at = #normals.distances - 10 + i
      local found = {
        autoencoder = {s.mean, v.abnormal, v.p}, speed = {s.mean_speed, v.baselines.speed.abnormal, v.baselines.speed.p},
        pca = {s.mean_pca, v.baselines.pca.abnormal, v.baselines.pca.p}, zero = {s.mean_zero, v.baselines.zero.abnormal, v.baselines.zero.p},
        nearest = {near, near > usual}, profile = {known and normals.distances[at] or judged.distance, judged.abnormal, judged.student},
      }
      if known then usual = math.max(usual, near) end
      for _, m in ipairs(METHODS) do
        local f = found[m[1]]
        list[#list + 1] = {seed, r.id, r.kind, m[1], m[1] == "speed" and speed or f[1], known and "" or f[2] and 1 or 0, not known and f[3] or ""}
      end
    end
  end
  return list
end

-- Flagged counts, and AUC over the pairs of a kind with the normals of its own seed.
local function table_of(list, seeds)
  print(("%-24s %-9s"):format("method", "normal 11") .. (" %-22s"):rep(#KINDS):format(unpack(KINDS)))
  for _, m in ipairs(METHODS) do
    local cells = {}
    for k = 0, #KINDS do
      local kind, flagged, n, pairs_won, pairs_n, every_won, every_n = KINDS[k] or "normal", 0, 0, 0, 0, 0, 0
      for _, r in ipairs(list) do
        if r[4] == m[1] and r[3] == kind and r[6] ~= "" and (k > 0 or r[2] == "11") then
          n, flagged = n + 1, flagged + r[6]
          for _, b in ipairs(list) do
            if b[4] == m[1] and b[1] == r[1] and b[3] == "normal" then
              local won = r[5] > b[5] and 1 or r[5] == b[5] and .5 or 0
              every_won, every_n = every_won + won, every_n + 1
              if tonumber(b[2]) >= 9 then pairs_won, pairs_n = pairs_won + won, pairs_n + 1 end
            end
          end
        end
      end
      -- the speed of a sequence needs no fit, so its AUC is taken against every normal; the others against those that nothing was trained on
      cells[#cells + 1] = k == 0 and ("%d of %-4d"):format(flagged, n)
        or m[1] == "speed" and ("%d of %d, AUC %.2f (%.2f)"):format(flagged, n, every_won / every_n, pairs_won / pairs_n)
        or ("%d of %d, AUC %.2f"):format(flagged, n, pairs_won / pairs_n)
    end
    print(("%-24s %-9s"):format(m[2], cells[1]) .. (" %-22s"):rep(#KINDS):format(unpack(cells, 2)))
  end
  print(("%d seeds. AUC: a kind against the normals 09, 10, 11 of its own seed (%d pairs); " ..
    "mean speed against all eleven (%d pairs), in brackets against those three."):format(seeds, 3 * seeds, 11 * seeds))
end

options.main(function()
  local o = options.parse("kinds", about, rows, arg)
  local files, core, csv = require "libration.files", require "libration.core", require "libration.formats.csv"
  require "libration"
  local first, last = o.seeds:match("^(%d+)%-(%d+)$")
  first, last = tonumber(first or o.seeds:match("^%d+$")), tonumber(last or o.seeds:match("^%d+$"))
  if not first or last < first then error(("--seeds is %q, want FIRST-LAST such as 101-110"):format(o.seeds), 0) end
  core.threads(o.threads)
  local luajit, abnormal = arg[-1] or "luajit", {}
  for k, kind in ipairs(KINDS) do abnormal[k] = ("%d:%s"):format(11 + k, kind) end
  local function recipe(name, words)
    local quoted = {files.quote(luajit), files.quote(here .. "/../recipes/" .. name .. ".lua")}
    for _, word in ipairs(words) do quoted[#quoted + 1] = files.quote(tostring(word)) end
    if os.execute(table.concat(quoted, " ")) ~= 0 then error(("kinds: %s stopped; what it says stands above"):format(name), 0) end
  end
  assert(files.mkdirs(o.output))
  local list = {}
  for seed = first, last do
    local data, run = files.join(o.output, ("set-%d"):format(seed)), files.join(o.output, ("run-%d"):format(seed))
    recipe("render", {"--output", data, "--sequences", 11 + #KINDS, "--seed", seed, "--abnormal", table.concat(abnormal, ","), "--match", "landmarks", "--threads", o.threads})
    if not files.exists(files.join(run, "report.html")) then
      recipe("train", {"--data", data, "--train", "1-8", "--validate", "9,10", "--test", "11-15", "--threads", o.threads, "--output", run})
    end
    for _, row in ipairs(judge(seed, data, run, o)) do list[#list + 1] = row end
    csv.save(files.join(o.output, "kinds.csv"), {"seed", "sequence", "kind", "method", "score", "flagged", "p"}, list)
  end
  table_of(list, last - first + 1)
end)
