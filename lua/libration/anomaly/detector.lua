-- The detector file: network, skeleton, pre-processing, normaliser, PCA, threshold, calibration; and scoring with it. Trains nothing.

local ffi = require "ffi"
local lr = require "libration"
local log = require "libration.log"
local json = require "libration.formats.json"
local safetensors = require "libration.formats.safetensors"
local skeletons = require "libration.pose.skeletons"
local motion = require "libration.motion"
local autoencoder = require "libration.anomaly.autoencoder"
local scores = require "libration.anomaly.scores"
local thresholds = require "libration.anomaly.thresholds"

local Detector = {}
Detector.__index = Detector

local FORMAT = 1
-- What is kept of each calibration sequence, beside its id and checksum; files of older versions end here or sooner.
local COLUMNS = { "windows", "frames", "mean", "p95", "ratio", "share", "mean_speed", "mean_pca", "mean_zero", "mean_variance" }
local LATER = { "log_sd" }
for _, limb in ipairs(skeletons.limbs) do LATER[#LATER + 1] = "limb " .. limb:gsub("_", " ") end

---@class Detector
---@field model table the network, see anomaly/autoencoder.lua
---@field motion table options of `libration.motion`, the rate resolved
---@field skeleton string
---@field joints string[] the joints used
---@field normaliser Normaliser
---@field pca Pca
---@field calibration Calibration
---@field training table {sequences = {id, sha256, label, subject: a key that does not tell the name}[], population: string, ages: {least, most}? weeks}
---@field about table<string, any> whatever else is written: configuration, version

---@param t table the fields above
---@return Detector
function Detector.new(t)
  return setmetatable(t, Detector)
end

local function vector(values, dtype)
  local t = lr.empty({ #values }, dtype or "f64")
  local p = t:ptr()
  for i = 1, #values do p[i - 1] = values[i] end
  return t
end

local function doubles_to(shape, data, n, dtype)
  local t = lr.empty(shape, dtype)
  local p = t:ptr()
  for i = 0, n - 1 do p[i] = data[i] end
  return t
end

local function list_of(t)
  local p, values = t:ptr(), {}
  for i = 1, t:numel() do values[i] = p[i - 1] end
  return values
end

--- Writes the detector, through a temporary file that is renamed; the same detector gives the same bytes.
---@param path string
---@return string path; raises one line where it cannot be written
function Detector:save(path)
  local c, tensors = self.calibration, {}
  for name, t in pairs(self.model:state_dict()) do tensors["model." .. name] = t end
  tensors["normaliser.mean"], tensors["normaliser.sd"] = vector(self.normaliser.mean), vector(self.normaliser.sd)
  local p = self.pca
  tensors["pca.mean"] = doubles_to({ p.size }, p.mean, p.size, "f32")
  tensors["pca.components"] = doubles_to({ p.rank, p.size }, p.components, p.rank * p.size, "f32")
  tensors["calibration.windows"], tensors["calibration.frames"] = vector(c.windows), vector(c.frames)
  tensors["calibration.starts"] = vector(c.starts)
  tensors["calibration.threshold"] = vector { c.threshold, c.limit, c.percentile, c.correlation or 0 / 0,
    c.explained and c.explained.network or 0 / 0, c.explained and c.explained.pca or 0 / 0, c.explained and c.explained.zero or 0 / 0 }
  local rows, sequences, columns = {}, {}, {}
  for _, list in ipairs { COLUMNS, LATER } do
    for _, name in ipairs(list) do columns[#columns + 1] = name end
  end
  for i, s in ipairs(c.sequences) do
    sequences[i] = { id = s.id, sha256 = s.sha256, label = s.label, subject = s.subject }
    for _, name in ipairs(columns) do
      local limb = name:match("^limb (.+)$")
      if limb then rows[#rows + 1] = s.limbs and s.limbs[limb] or 0 / 0 else rows[#rows + 1] = s[name] or 0 / 0 end
    end
  end
  tensors["calibration.sequences"] = doubles_to({ #c.sequences, #columns }, ffi.new("double[?]", #rows, rows), #rows, "f64")
  local settings = {
    format = FORMAT, kind = "lstm autoencoder", model = self.model.config, motion = self.motion, skeleton = self.skeleton, joints = self.joints,
    calibration = { columns = columns, sequences = sequences }, training = self.training, about = self.about,
  }
  return safetensors.save(path, tensors, { ["libration.detector"] = json.encode(settings) })
end

-- Reading: every helper raises one line, `load` turns it into nil and the reason.

local function refuse(...)
  error(string.format(...), 0)
end

local function want_table(v, what)
  if type(v) ~= "table" then refuse("%s is a %s, want a table", what, type(v)) end
  return v
end

local function want_text(v, what)
  if type(v) ~= "string" or #v > 4096 then refuse("%s is missing or no text", what) end
  return v
end

local function want_number(v, what, least, most)
  if type(v) ~= "number" or v ~= v or v < least or v > most then
    refuse("%s is %s, want a number from %g to %g", what, tostring(v), least, most)
  end
  return v
end

local function want_tensor(tensors, name, dtype, ...)
  local t = tensors[name]
  if not t then refuse("tensor '%s' is missing", name) end
  local shape, want = t.shape, { ... }
  local same = #shape == #want and t.dtype == dtype
  for i = 1, #want do same = same and (want[i] == -1 or shape[i] == want[i]) end
  if not same then
    refuse("tensor '%s' is %s [%s], want %s [%s]", name, t.dtype, table.concat(shape, ","), dtype, (table.concat(want, ","):gsub("%-1", "n")))
  end
  t = t:contiguous()
  return t
end

local function finite(values, what)
  for i, v in ipairs(values) do
    if v - v ~= 0 then refuse("%s holds %s at %d", what, tostring(v), i) end
  end
  return values
end

local RANGES = {
  min_score = { 0, 1 }, outliers = { 0, 1e6 }, max_gap = { 0, math.huge }, rate = { 1e-3, 1e5 }, window = { 2, 4096 }, min_seen = { 0, 1 },
}

local function read_motion(m)
  want_table(m, "motion")
  local options = {}
  for name, default in pairs(motion.DEFAULTS) do
    local v = m[name]
    if name == "max_gap" and (v == nil or v == json.null) then v = math.huge end -- JSON has no infinity
    if v == nil then refuse("motion.%s is missing", name) end
    if type(v) ~= type(default) and name ~= "scale" then refuse("motion.%s is a %s, want a %s", name, type(v), type(default)) end
    if RANGES[name] then want_number(v, "motion." .. name, RANGES[name][1], RANGES[name][2]) end
    options[name] = v
  end
  for name in pairs(m) do
    if motion.DEFAULTS[name] == nil then refuse("motion.%s is not known", tostring(name)) end
  end
  local choices = {
    gaps = { "linear", "akima", "none" }, root = { "torso", "picture" }, rotation = { "none", "sequence", "frame" },
    features = motion.features.KINDS, post = { "window", "none", "unit" }, coordinates = { "pixels", "unit", "centred" },
  }
  for name, list in pairs(choices) do
    local found = false
    for _, word in ipairs(list) do found = found or word == options[name] end
    if not found then refuse("motion.%s is %q, want %s", name, tostring(options[name]), table.concat(list, ", ")) end
  end
  if options.window % 1 ~= 0 then refuse("motion.window is %s, want a whole number", tostring(options.window)) end
  return options
end

local function read_joints(settings)
  local ok, skeleton = pcall(skeletons.get, want_text(settings.skeleton, "skeleton"))
  if not ok then refuse("skeleton %q is not known", settings.skeleton) end
  local joints = want_table(settings.joints, "joints")
  if #joints == 0 then refuse("joints is empty") end
  local seen = {}
  for _, name in ipairs(joints) do
    if not skeleton.index[want_text(name, "joints")] or seen[name] then refuse("joint %q is not one of %s, or stands twice", name, skeleton.name) end
    seen[name] = true
  end
  return skeleton.name, joints
end

-- Columns of the calibration table: those that every version writes, then later ones by name.
local function read_columns(list)
  list = want_table(list, "calibration.columns")
  for i, name in ipairs(COLUMNS) do
    if list[i] ~= name then refuse("calibration.columns has %s at %d, want %s", tostring(list[i]), i, name) end
  end
  local known = {}
  for _, name in ipairs(LATER) do known[name] = true end
  for i = #COLUMNS + 1, #list do
    if not known[list[i]] then refuse("calibration.columns: %s is not known, or stands twice", tostring(list[i])) end
    known[list[i]] = nil
  end
  return list
end

-- First frames of the calibration windows; older files do not have them, and windows are side by side but for gaps.
local function read_starts(tensors, c)
  if tensors["calibration.starts"] then
    local starts = list_of(want_tensor(tensors, "calibration.starts", "f64", #c.windows))
    for i, v in ipairs(starts) do if v % 1 ~= 0 or v < 0 then refuse("calibration.starts holds %s at %d", tostring(v), i) end end
    return starts
  end
  local starts = {}
  for _, s in ipairs(c.sequences) do
    for i = 0, s.windows - 1 do starts[#starts + 1] = i end
  end
  return starts
end

-- What is known of a recording that trained or calibrated.
local function read_identity(s, what)
  local row = { id = want_text(s.id, what) }
  if s.sha256 ~= nil then row.sha256 = want_text(s.sha256, "checksum") end
  if s.subject ~= nil then row.subject = want_text(s.subject, "subject") end
  if s.label ~= nil then row.label = want_number(s.label, "label", 0, 1) end
  return row
end

local function read_calibration(tensors, meta, options)
  want_table(meta, "calibration")
  local names = want_table(meta.sequences, "calibration.sequences")
  if #names == 0 then refuse("calibration.sequences is empty") end
  local c = { sequences = {} }
  local values = list_of(want_tensor(tensors, "calibration.threshold", "f64", 7))
  c.threshold = want_number(values[1], "threshold", 0, 1e12)
  c.limit = want_number(values[2], "limit", 0, 1)
  c.percentile = want_number(values[3], "percentile", 0, 100)
  c.correlation = values[4]
  if values[5] == values[5] then c.explained = { network = values[5], pca = values[6], zero = values[7] } end
  c.windows = finite(list_of(want_tensor(tensors, "calibration.windows", "f64", -1)), "calibration.windows")
  c.frames = finite(list_of(want_tensor(tensors, "calibration.frames", "f64", -1)), "calibration.frames")
  local columns = read_columns(meta.columns)
  local rows = list_of(want_tensor(tensors, "calibration.sequences", "f64", #names, #columns))
  local windows = 0
  for i, s in ipairs(names) do
    want_table(s, "calibration.sequences")
    local row = read_identity(s, "calibration sequence")
    row.limbs = {}
    for k, name in ipairs(columns) do
      local v = rows[(i - 1) * #columns + k]
      if v - v ~= 0 and k <= #COLUMNS then refuse("calibration.sequences holds %s at %s of %s", tostring(v), name, row.id) end
      local limb = name:match("^limb (.+)$")
      if v - v == 0 then -- a limb that was never seen has no error
        if limb then row.limbs[limb] = v else row[name] = v end
      end
    end
    windows = windows + row.windows
    c.sequences[i] = row
  end
  if windows ~= #c.windows then refuse("calibration.windows has %d errors, its sequences have %d windows", #c.windows, windows) end
  c.starts, c.window, c.rate = read_starts(tensors, c), options.window, options.rate
  return c
end

local function read_training(t)
  want_table(t, "training")
  local training = { population = want_text(t.population, "training.population"), sequences = {} }
  for i, s in ipairs(want_table(t.sequences, "training.sequences")) do
    want_table(s, "training.sequences")
    training.sequences[i] = read_identity(s, "training sequence")
  end
  if t.ages ~= nil then
    local least = want_number(want_table(t.ages, "training.ages").least, "training.ages.least", 0, 1e4)
    training.ages = { least = least, most = want_number(t.ages.most, "training.ages.most", least, 1e4) }
  end
  return training
end

local function to_doubles(t)
  local n, p = t:numel(), t:ptr()
  local out = ffi.new("double[?]", n)
  for i = 0, n - 1 do
    local v = tonumber(p[i])
    if v - v ~= 0 then refuse("the PCA holds %s", tostring(v)) end
    out[i] = v
  end
  return out
end

local function build(tensors, metadata)
  local text = metadata["libration.detector"]
  if not text then refuse("no detector: its metadata have no libration.detector") end
  local settings, reason = json.decode(text)
  if type(settings) ~= "table" then refuse("libration.detector is no JSON object%s", reason and ": " .. reason or "") end
  if settings.format ~= FORMAT then refuse("format is %s, this version reads %d", tostring(settings.format), FORMAT) end
  local options = read_motion(settings.motion)
  local skeleton, joints = read_joints(settings)
  local units, per = motion.features.units(options.features, skeleton, joints)
  local D = #units * per
  local F = options.mask and D + #units or D
  local model, state = autoencoder.of_config(want_table(settings.model, "model"), F, options.window), {}
  for name, t in pairs(tensors) do
    local inner = name:match("^model%.(.+)$")
    if inner then state[inner] = t end
  end
  model:load_checked(state)
  local normaliser = {
    mean = finite(list_of(want_tensor(tensors, "normaliser.mean", "f64", D)), "normaliser.mean"),
    sd = finite(list_of(want_tensor(tensors, "normaliser.sd", "f64", D)), "normaliser.sd"),
  }
  for i, s in ipairs(normaliser.sd) do
    if s <= 0 then refuse("normaliser.sd is %g at %d, want more than 0", s, i) end
  end
  local P = D * options.window
  local components = want_tensor(tensors, "pca.components", "f32", -1, P)
  local pca = {
    size = P, rank = components.shape[1], components = to_doubles(components), mean = to_doubles(want_tensor(tensors, "pca.mean", "f32", P)),
  }
  return Detector.new {
    model = model, motion = options, skeleton = skeleton, joints = joints, normaliser = normaliser, pca = pca,
    calibration = read_calibration(tensors, settings.calibration, options), training = read_training(settings.training),
    about = type(settings.about) == "table" and settings.about or {},
  }
end

--- Reads and checks a detector file.
---@param path string
---@return Detector? detector
---@return string? reason in one line
function Detector.load(path)
  local tensors, metadata = safetensors.load(path)
  if not tensors then return nil, metadata end
  local ok, result = pcall(build, tensors, metadata)
  if not ok then return nil, ("%s: %s"):format(path, log.reason(result)) end
  return result
end

--- Moves the network to a device; the detector scores there.
---@param device string "cpu", "cuda:N"
---@return Detector self
function Detector:to(device)
  self.model:to(device)
  return self
end

--- Windows errors and all else about one sequence.
---@param sequence Sequence of the detector's skeleton
---@param certainty? table<string, number> weight of each joint's errors in the score, default 1
---@return Scored
---@return table report of motion.track
function Detector:score(sequence, certainty)
  if sequence.skeleton ~= self.skeleton then
    error(("sequence %s: its skeleton is %s, the detector's %s"):format(sequence.id, sequence.skeleton, self.skeleton), 2)
  end
  local features, report = motion.prepare(sequence, self.motion)
  if certainty and #self.joints == features.joints then
    features.joint_weight = {}
    for j, name in ipairs(self.joints) do features.joint_weight[j] = certainty[name] or 1 end
  end
  local windows = motion.windows({ features }, self.motion, 1)
  return scores.of_sequence(windows, 1, self:scorer(), sequence.id), report
end

--- What scores.of_sequence wants.
---@return table
function Detector:scorer()
  return {
    normaliser = self.normaliser, mask = self.motion.mask, pca = self.pca, from = self.model:scored_from(),
    network = self.model, reconstruct = function(x, n) return self.model:reconstruct(x, n) end,
  }
end

--- Judges a scored sequence by the calibration in the file.
---@param scored Scored
---@param how table? as of `thresholds.judge`
---@return Verdict
function Detector:judge(scored, how)
  return thresholds.judge(self.calibration, scored, how)
end

return Detector
