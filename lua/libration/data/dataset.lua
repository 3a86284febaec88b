-- A folder of recordings as a list of sequences: MINI-RGBD trees, videos, landmark files. Lists and hashes; decodes nothing before `load`.

local files = require "libration.files"
local skeletons = require "libration.pose.skeletons"
local Sequence = require "libration.motion.sequence"
local tensor = require "libration.tensor"

local Dataset = {}
Dataset.__index = Dataset

---@class Entry one recording
---@field id string
---@field kind "frames"|"video"|"landmarks"
---@field path string file, or folder of pictures; of a MINI-RGBD sequence only NN/rgb is ever opened
---@field label integer? 0 normal, 1 abnormal, where labels.csv says so
---@field subject string?
---@field age_weeks number?

local VIDEO = { mp4 = true, mkv = true, avi = true, webm = true, flv = true, mov = true, m4v = true }
local LANDMARKS = { npy = true, csv = true, json = true }
local PICTURES = "%.png$"
local PICTURES_JPEG = "%.jpe?g$"

local function ending(name)
  local e = name:match("%.([%w]+)$")
  return e and e:lower()
end

local function has(folder, pattern)
  local names = files.list(folder, pattern)
  return names and #names > 0
end

local function pictures(folder)
  return has(folder, PICTURES) or has(folder, PICTURES_JPEG)
end

-- What a name in the data folder is, or nil.
local function classify(folder, name)
  local path = files.join(folder, name)
  if files.is_folder(path) then
    local rgb = files.join(path, "rgb")
    if files.is_folder(rgb) then return { id = name, kind = "frames", path = rgb } end
    for _, inner in ipairs { "landmarks.csv", "landmarks.npy" } do
      local file = files.join(path, inner)
      if files.exists(file) then return { id = name, kind = "landmarks", path = file } end
    end
    if has(path, "_keypoints%.json$") then return { id = name, kind = "landmarks", path = path } end
    if pictures(path) then return { id = name, kind = "frames", path = path } end
    return nil
  end
  local e = ending(name)
  local id = name:match("^(.*)%.[^.]*$")
  if VIDEO[e] then return { id = id, kind = "video", path = path } end
  if LANDMARKS[e] and name ~= "labels.csv" and name ~= "run.json" and name ~= "summary.csv" and name ~= "data.json" then
    return { id = id, kind = "landmarks", path = path }
  end
end

local LABELS = { ["0"] = 0, normal = 0, ["1"] = 1, abnormal = 1 }

-- labels.csv: sequence and label, where they stand subject and age_weeks; columns in any order, others are left alone.
local function read_labels(path)
  local columns, rows = require("libration.formats.csv").read(path)
  if not columns then return nil, rows end
  local at = {}
  for i, name in ipairs(columns) do
    name = name:lower():gsub("%s", "")
    if at[name] then return nil, ("%s: line 1: the column %s stands twice"):format(path, name) end
    at[name] = i
  end
  if not (at.sequence and at.label) then
    return nil, ("%s: line 1: columns are %s, want sequence and label%s"):format(path, table.concat(columns, ", "),
      #columns == 1 and columns[1]:find("[;\t]") and ", separated by commas" or "")
  end
  local labels, subjects, line_of = {}, 0, {}
  for i, row in ipairs(rows) do
    local line = row.line or i + 1
    local function refuse(...) return nil, ("%s: line %d: "):format(path, line) .. string.format(...) end
    local function cell(name) return at[name] and row[at[name]]:match("^%s*(.-)%s*$") or "" end
    local id, text, age = cell "sequence", cell "label", cell "age_weeks"
    if id == "" then return refuse("the sequence has no name") end
    if text ~= "" and not LABELS[text:lower()] then return refuse("label is %q, want 0, 1, normal or abnormal", text) end
    if labels[id] then return refuse("sequence %s stands twice, first in line %d", id, line_of[id]) end
    local weeks = tonumber(age)
    if age ~= "" and not (weeks and weeks >= 0 and weeks < 10000) then return refuse("age_weeks is %q, want a number of weeks, 0 or more", age) end
    labels[id] = { label = LABELS[text:lower()], subject = cell "subject" ~= "" and cell "subject" or nil, age_weeks = weeks }
    line_of[id] = line
    if labels[id].subject then subjects = subjects + 1 end
  end
  for i, row in ipairs(rows) do
    local id = row[at.sequence]:match("^%s*(.-)%s*$")
    if subjects > 0 and not labels[id].subject then
      return nil, ("%s: line %d: sequence %s has no subject, others have; name one for each, or for none"):format(path, row.line or i + 1, id)
    end
  end
  return labels
end

-- The recording that a name in labels.csv means; spreadsheets make 1 of 01.
local function entry_named(self, name)
  local entry = self.by_id[name]
  if entry or not name:match("^%d+$") then return entry end
  for _, e in ipairs(self.entries) do
    if e.id:match("^%d+$") and tonumber(e.id) == tonumber(name) then return e end
  end
end

--- What a labels.csv beside a recording says of it, where there is one that can be read.
---@param path string of the recording
---@param id string
---@return table? row {label, subject, age_weeks}
function Dataset.label_beside(path, id)
  path = path:gsub("/+$", ""):gsub("/rgb$", "")
  local file = files.join(files.folder(path), "labels.csv")
  if not files.exists(file) then return nil end
  local labels = read_labels(file)
  return labels and (labels[id] or labels[(id:gsub("^0+(%d)", "%1"))])
end

--- Lists the recordings of a folder in natural order.
---@param path string MINI-RGBD tree (NN/rgb/*.png), folder of videos, of landmark files (npy, csv, json), or of folders of pictures
---@param options table? {kind: "auto"|"frames"|"videos"|"landmarks", labels: string? file}
---@return Dataset? dataset {path, entries, by_id, labelled: boolean, labels_file: string?, unknown: string[] names in it that no recording has}
---@return string? reason in one line
function Dataset.open(path, options)
  options = options or {}
  if not files.exists(path) then return nil, ("%s: no such folder"):format(path) end
  if not files.is_folder(path) then return nil, ("%s: not a folder; want a folder of sequences, videos or landmark files"):format(path) end
  local names, reason = files.list(path)
  if not names then return nil, reason end
  local want = ({ frames = "frames", videos = "video", landmarks = "landmarks" })[options.kind or "auto"]
  local self = setmetatable({ path = path, entries = {}, by_id = {} }, Dataset)
  local kinds = {}
  for _, name in ipairs(names) do
    local entry = classify(path, name)
    if entry and (not want or entry.kind == want) then
      local other = self.by_id[entry.id]
      if other then
        return nil, ("%s: %s and %s would both be sequence %s"):format(path, files.name(other.path), files.name(entry.path), entry.id)
      end
      self.by_id[entry.id] = entry
      self.entries[#self.entries + 1] = entry
      kinds[entry.kind] = (kinds[entry.kind] or 0) + 1
    end
  end
  if #self.entries == 0 then
    return nil, ("%s: no sequences; want folders NN/rgb with pictures, videos (mp4, mkv, avi, webm, flv) or landmark files (npy, csv, json)"):format(path)
  end
  if kinds.landmarks and (kinds.video or kinds.frames) then
    return nil, ("%s: holds landmark files beside videos or pictures; say --kind landmarks, videos or frames"):format(path)
  end
  local labels_file = options.labels or files.join(path, "labels.csv")
  if options.labels and not files.exists(labels_file) then return nil, ("%s: no such file"):format(labels_file) end
  if files.exists(labels_file) then
    local labels
    labels, reason = read_labels(labels_file)
    if not labels then return nil, reason end
    self.labels_file, self.unknown = labels_file, {}
    local named = {}
    for id, row in pairs(labels) do
      local entry = entry_named(self, id)
      if entry then
        local other = named[entry]
        if other then
          return nil, ("%s: sequence %s stands twice, as %s and %s"):format(labels_file, entry.id, id < other and id or other, id < other and other or id)
        end
        named[entry] = id
        entry.label, entry.subject, entry.age_weeks = row.label, row.subject, row.age_weeks
      else
        self.unknown[#self.unknown + 1] = id
      end
    end
    files.sort(self.unknown)
    self.labelled = true
  end
  return self
end

--- The names of all sequences, for messages.
---@return string
function Dataset:ids()
  local list = {}
  for i, e in ipairs(self.entries) do list[i] = e.id end
  if #list > 12 then return ("%s, %s, ... %s (%d)"):format(list[1], list[2], list[#list], #list) end
  return table.concat(list, ", ")
end

-- sha256 of every picture of a folder, 256 at a time; nil where sha256sum is missing.
local function hash_pictures(folder, names)
  local hashes = {}
  for first = 1, #names, 256 do
    local words = {}
    for i = first, math.min(first + 255, #names) do words[#words + 1] = files.quote("./" .. names[i]) end
    local pipe = io.popen(("cd %s && sha256sum %s 2>/dev/null"):format(files.quote(folder), table.concat(words, " ")))
    local text = pipe:read("*a")
    pipe:close()
    for hash in text:gmatch("(%x+)  [^\n]*\n") do
      if #hash == 64 then hashes[#hashes + 1] = hash end
    end
  end
  if #hashes == #names then return hashes end
  hashes = {}
  for i, name in ipairs(names) do
    local hash, reason = files.sha256(files.join(folder, name))
    if not hash then return nil, reason end
    hashes[i] = hash
  end
  return hashes
end

--- Checksum of a recording's content: of the file, or of all its pictures in order. Decodes nothing.
---@param entry Entry gets the fields sha256 and, for pictures, frame_hashes
---@return string? sha256 64 hex digits, or nil and the reason
function Dataset.hash(entry)
  if entry.sha256 then return entry.sha256 end
  if files.is_folder(entry.path) then
    local names, hashes, reason
    for _, pattern in ipairs { PICTURES, PICTURES_JPEG, "%.json$" } do
      names, reason = files.list(entry.path, pattern)
      if not names then return nil, reason end
      if #names > 0 then break end
    end
    if #names == 0 then return nil, ("%s: no pictures"):format(entry.path) end
    hashes, reason = hash_pictures(entry.path, names)
    if not hashes then return nil, reason end
    entry.frame_hashes = hashes
    entry.sha256 = files.sha256_text(table.concat(hashes, "\n"))
  else
    local hash, reason = files.sha256(entry.path)
    if not hash then return nil, reason end
    entry.sha256 = hash
  end
  return entry.sha256
end

-- Skeleton by joint names, for tables that name their joints.
local function skeleton_named(joints)
  for _, name in ipairs(skeletons.names()) do
    local s = skeletons.get(name)
    if #s.joints == #joints then
      local same = true
      for i, joint in ipairs(joints) do same = same and s.joints[i] == joint end
      if same then return name end
    end
  end
end

-- The rate that times tell: 1 / median step.
local function rate_of(times)
  if not times or #times < 2 then return nil end
  local steps = {}
  for i = 2, #times do steps[i - 1] = times[i] - times[i - 1] end
  table.sort(steps)
  local step = steps[math.ceil(#steps / 2)]
  return step > 0 and 1 / step or nil
end

-- Body parts of a DeepLabCut file in the order of a skeleton: of the one that is named, whose missing joints become NaN, or of the first all of whose joints
-- the file has. Names are compared without case, blanks and dashes.
local function arranged(path, points, about, wanted)
  local at = {}
  for i, joint in ipairs(about.joints) do at[joint:lower():gsub("[%s%-%.]+", "_")] = i end
  local chosen
  for _, name in ipairs(wanted and { wanted } or skeletons.names()) do
    local s, known = skeletons.get(name), 0
    for _, joint in ipairs(s.joints) do known = known + (at[joint] and 1 or 0) end
    if not chosen and (known == #s.joints or wanted and at.left_shoulder and at.right_shoulder and at.left_hip and at.right_hip) then chosen = s end
  end
  if not chosen then
    error(("%s: its body parts are %s: %s"):format(path, table.concat(about.joints, ", "),
      wanted and ("%s wants at least left_shoulder, right_shoulder, left_hip, right_hip"):format(wanted)
      or "no skeleton has all its joints among them; name one with --skeleton"), 0)
  end
  local T, J, C = points.shape[1], points.shape[2], points.shape[3]
  local out = tensor.full({ T, #chosen.joints, C }, 0 / 0)
  local from, to = points:ptr(), out:ptr()
  for k, joint in ipairs(chosen.joints) do
    local i = at[joint]
    for t = 0, i and T - 1 or -1 do
      for c = 0, C - 1 do to[(t * #chosen.joints + k - 1) * C + c] = from[(t * J + i - 1) * C + c] end
    end
  end
  return out, chosen.name
end

--- Reads a landmark file as a sequence.
---@param path string .npy [T,J,C], landmark or DeepLabCut .csv, OpenPose .json or a folder of OpenPose files
---@param options table? {id, skeleton, fps, width, height}
---@return Sequence? sequence
---@return string? reason
function Dataset.read_landmarks(path, options)
  options = options or {}
  local e = files.is_folder(path) and "json" or ending(path)
  local points, about
  if not files.exists(path) then
    return nil, ("%s: no such file"):format(path)
  elseif e == "npy" then
    points, about = require("libration.formats.npy").load(path)
  elseif e == "csv" and require("libration.formats.dlc").is(path) then
    points, about = require("libration.formats.dlc").load(path)
    if points then
      local ok, better, name = pcall(arranged, path, points, about, options.skeleton ~= "" and options.skeleton or nil)
      if not ok then return nil, (tostring(better):gsub("^[^\n]-:%d+: ", "")) end
      points, about = better, { channels = about.channels, skeleton = name }
    end
  elseif e == "csv" then
    points, about = require("libration.formats.csv").load_landmarks(path)
  elseif e == "json" then
    points, about = require("libration.formats.openpose").load(path)
  else
    return nil, ("%s: not a landmark file; want .npy, .csv or .json"):format(path)
  end
  if not points then return nil, about end
  if #points.shape ~= 3 then
    return nil, ("%s: array is [%s], want [frames, joints, channels]"):format(path, table.concat(points.shape, ","))
  end
  about = type(about) == "table" and about or {}
  local score
  for i, name in ipairs(about.channels or {}) do
    if name == "visibility" or name == "score" or name == "confidence" or name == "likelihood" then score = score or i end
  end
  local ok, sequence = pcall(Sequence.new, {
    points = points, id = options.id or files.name(path):gsub("%.%w+$", ""), times = about.times, source = path, score_channel = score,
    skeleton = about.skeleton or options.skeleton ~= "" and options.skeleton or about.joints and skeleton_named(about.joints) or nil,
    fps = options.fps or rate_of(about.times), width = options.width, height = options.height,
  })
  if not ok then return nil, (tostring(sequence):gsub("^[^\n]-:%d+: ", "")) end
  return sequence
end

--- Reads one recording as a sequence: a landmark file, or a video or pictures whose landmarks are found or remembered.
--- Raises the reason in one line.
---@param entry Entry
---@param options table? {fps (0: the file's own, else 25), skeleton, width, height, coordinates, settings: as of data.landmarks.settings,
---  check: "warn": what the recording check finds stands in the notes}
---@return Sequence sequence
---@return string[] notes
---@return Recording? recording of a video or pictures
function Dataset.load(entry, options)
  options = options or {}
  local sequence, recording, notes, reason
  if entry.kind == "landmarks" then
    sequence, reason = Dataset.read_landmarks(entry.path, {
      id = entry.id, skeleton = options.skeleton, fps = options.fps ~= 0 and options.fps or nil, width = options.width, height = options.height,
    })
    if not sequence then error(reason, 0) end
    notes = {}
  else
    sequence, recording, notes = require("libration.data.landmarks").sequence(entry.path, entry.id, options.settings)
  end
  if options.check == "warn" then
    local check = require("libration.data.recording_check").of_sequence(sequence, recording, {
      mode = "warn", coordinates = entry.kind == "landmarks" and options.coordinates or nil,
    })
    for _, finding in ipairs(check.findings) do
      if finding.level ~= "note" then notes[#notes + 1] = ("%s: recording check: %s"):format(entry.id, finding.text) end
    end
  end
  return sequence, notes, recording
end

return Dataset
