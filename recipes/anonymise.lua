-- Covers eyes, faces, heads or persons in videos and pictures, and looks at the result again.
local here = arg and arg[0] and arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. package.path
local options = require "libration.options"

local about = "Covers eyes, faces, heads or persons in videos and pictures, and looks at the result again.\n\n" ..
  "An input is a video, a picture, or a folder of them. Each becomes NAME.anonymised.mp4 in the output folder (.mkv and .mov where that fits better; pictures become .png\n" ..
  "without metadata), with NAME.anonymised.json beside it: every track with its boxes, points and confidence, a line a frame. Edit that and give it to --apply: the\n" ..
  "masks are made anew from it without any detection. report.html has the counts and the doubtful frames, masked. A frame that is damaged or in which detection fails\n" ..
  "is covered whole and listed. A recording is covered as it is searched, each frame twice the seconds of --gap later; in a second pass where its frames are too large to\n" ..
  "wait (4K), with --keep, and where a face is sure only after that time. No detector sees every face: look at the result before you share it."

local function margin_of(v)
  local margin, why = require("libration.pose.masks").margin(v)
  if not margin then return nil, why end
  return true
end

local ADAPTERS = {"yolo-pose", "yolo-face", "scrfd", "centerface", "ultraface", "rtmpose", "movenet", "rtmdet", "yolox", "yolo-detect"}

local rows = {
  {"output", "anonymised", "folder for the results, made when missing; or the file, where there is one input", metavar = "DIR|FILE"},
  {"mask", "head", "what is covered: eyes (a bar), face (an oval), head (a box, with hair and neck: of an oval over the face detectors still say that it is " ..
    "one), person, or a class of the network that --weights names (class0, class1, ...)", metavar = "WHAT"},
  {"style", "mosaic", "how: blurred, in coarse blocks, or black", choices = {"blur", "mosaic", "box"}},
  {"strength", 1, "share of a mask's longer side: standard deviation of the blur, side of the blocks (1: one colour, the mean); less than .125 can be undone or shows " ..
    "who it is, and is refused",
    type = "number", max = 1, check = function(v)
      if v < .125 then return nil, "a blur or mosaic that weak can be undone or still shows who it is; want at least .125" end
      return true
    end},
  {"feather", 0, "pixels outside the mask over which it fades", type = "number", min = 0, max = 1000, metavar = "PX"},
  {"detector", "auto", "auto: BlazeFace full range, and heads and bodies by BlazePose; face, pose: one of them alone", choices = {"auto", "face", "pose"}},
  {"weights", "", "your own detection network (.onnx, .tflite) instead of BlazeFace; beside it BlazePose looks for heads unless --detector face", metavar = "FILE"},
  {"adapter", "", "how that network's answer is read, where its outputs do not tell: " .. table.concat(ADAPTERS, ", "), metavar = "NAME"},
  {"confidence", .3, "least score of a face (of two detectors together where one alone is not sure: .6); a track counts when its scores add up to twice that; half of it " ..
    "is enough where the face was surer a moment before or after", type = "number", above = 0, max = 1},
  {"margin", ".6", "what is covered around a face: a share of its size, or pixels such as 12px; a quarter of the share around persons", metavar = "SHARE|PX", check = margin_of},
  {"tile", -1, "side in pixels of the squares in which small faces are looked for; 0: the whole frame only; -1: a third of its longer side, at least 320",
    min = -1, metavar = "PX"},
  {"gap", 1, "seconds over which a face that is missed between two hits stays covered", type = "number", min = 0, metavar = "S"},
  {"lead", 5, "frames that are covered before a face's first hit and after its last; at the edge of the picture, over which a head comes and goes part by part, it is " ..
    "the seconds of --gap", min = 0, metavar = "FRAMES"},
  {"keep", {}, "numbers of tracks that stay visible, as the sidecar of an earlier run numbers them", of = "integer", metavar = "TRACK,..."},
  {"region", "", "JSON file of polygons in pixels: [{\"mask\": \"always\" or \"never\", \"points\": [[x, y], ...]}, ...]; never: what has its middle inside stays visible",
    metavar = "FILE"},
  {"keep-audio", false, "keep the sound as it is, the default: voices are not anonymised"},
  {"drop-audio", false, "leave the sound out"},
  {"distort-voice", false, "make voices unrecognisable for good, words too: what is left is how loud it is at which pitch"},
  {"verify", true, "look at the result with another detector (BlazeFace short range), cover what it still sees solidly and look there again, up to four times; what is seen " ..
    "even then is covered with its whole frame. At the source it must see faces where there are any: the report has the counts. With --apply and for a CLASS only when asked for"},
  {"verify-weights", "", "network of the second look instead of BlazeFace short range, such as UltraFace or CenterFace (.onnx); not the one that --weights names",
    metavar = "FILE"},
  {"verify-confidence", .6, "least score of the second look", type = "number", above = 0, max = 1},
  {"verify-every", -1, "seconds between two of its looks; 0: every frame, each time that it looks; -1: as --every", type = "number", min = -1, max = 2, metavar = "S"},
  {"strict", false, "cover solidly what the second look takes for a face within a mask, too (but for eyes), and end with an error where a frame could not be looked at, " ..
    "or where there are tracks but the second look sees nothing in the source either"},
  {"apply", "", "an edited NAME.anonymised.json: no detection, its masks are applied to the one input", metavar = "FILE"},
  {"preview", false, "write NAME.anonymised.preview.png, masked frames from all over the recording, instead of the result"},
  {"resume", false, "leave inputs alone whose result is there already, made of the same file in the same way"},
  {"every", .25, "seconds between two looks of the detectors, twice as many while these agree; between looks that do not, it is looked again, down to a tenth of a " ..
    "second, or to every frame if --lead is shorter; 0: every frame, as with --mask person", type = "number", min = 0, max = 2, metavar = "S"},
  {"batch", 0, "parts of a frame that BlazeFace takes at once; 0: as many as there are cores, at least 12", min = 0, max = 64, metavar = "N"},
  {"queue", 32, "frames on the way at most, beside those that wait for what follows them; half of them lie between two looks at most", min = 4, max = 64, metavar = "FRAMES"},
  {"precision", "f32", "of the networks; bf16 gains where the processor has units for it, f16 is for CUDA devices; int8: of the network that --weights names, on the CPU, " ..
    "by the ranges that frames of each recording show in it", choices = {"f32", "bf16", "f16", "int8"}},
  {"preset", "cpu", "defaults of --batch and --queue for a machine: cpu: 0, 32; gpu: 24, 64", choices = {"cpu", "gpu"}},
  {"pipeline", "multithread", "defaults of other options, for the one pipeline that there is; multithread: those printed here; batch: --batch 24 --queue 64; " ..
    "cpu-gpu: --batch 48 --queue 64; ultra: --every .5 --queue 64 --encoder-preset ultrafast", choices = {"multithread", "batch", "cpu-gpu", "ultra"}},
  {"encoder-preset", "veryfast", "of x264: how long it looks for a smaller file", choices = {"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"}},
  {"crf", 18, "quality of the H.264 encoder, lower is better", min = 0, max = 51},
  {"device", "auto", "where the networks look for faces and bodies: auto (CUDA where there is a device; the CPU goes on where that fails in the middle), cpu, cuda or cuda:N\n" ..
    "(which end in an error where it fails). Each frame goes there once and boxes come back; masks are painted on the CPU, in the frame that the decoder made", metavar = "DEVICE",
    check = function(v)
      if v ~= "auto" and v ~= "cpu" and not v:find "^cuda:%d+$" and v ~= "cuda" then return nil, "want auto, cpu, cuda or cuda:N" end
      return true
    end},
  {"threads", 0, "processor threads; 0: all cores", min = 0},
  positional = {"input", {}, "videos, pictures, or folders of them", metavar = "INPUT", many = true, required = true},
}

-- What --preset and --pipeline stand for; an option that was given wins over both, --pipeline over --preset.
local DEFAULTS = {
  cpu = {}, gpu = {batch = 24, queue = 64},
  multithread = {}, batch = {batch = 24, queue = 64}, ["cpu-gpu"] = {batch = 48, queue = 64}, ultra = {every = .5, queue = 64, encoder_preset = "ultrafast"},
}
local function take_defaults(o, given)
  for _, name in ipairs {o.preset, o.pipeline} do
    for option, value in pairs(DEFAULTS[name]) do
      if not given[option] then o[option] = value end
    end
  end
end

-- The option of the three that was taken for sound.
local function audio_of(o)
  local taken = {}
  for _, name in ipairs {"keep", "drop", "distort"} do
    if o[name .. (name == "distort" and "_voice" or "_audio")] then taken[#taken + 1] = name end
  end
  if #taken > 1 then error("--keep-audio, --drop-audio and --distort-voice exclude each other", 0) end
  return taken[1] or "keep"
end

local VIDEOS = {mp4 = true, mkv = true, mov = true, avi = true, flv = true, webm = true, m4v = true, mpg = true, mpeg = true, ts = true, wmv = true, ["3gp"] = true}
local PICTURES = {png = true, jpg = true, jpeg = true, jpe = true, bmp = true, webp = true, tif = true, tiff = true}

local function ending_of(path) return (path:match("%.(%w+)$") or ""):lower() end

-- Inputs as {path, name, output, sidecar, preview}; folders are taken apart, our own results left out.
local function inputs_of(o)
  local files = require "libration.files"
  local list, names, wanted = {}, {}, ending_of(o.output)
  local single = VIDEOS[wanted] or PICTURES[wanted]
  local function add(path)
    local stem, ending = files.name(path):gsub("%.%w+$", ""), ending_of(path)
    local base = stem
    while names[base] do base = base .. "_" end
    names[base] = true
    local to = PICTURES[ending] and "png" or VIDEOS[wanted] and wanted or ending == "mov" and "mov" or require("libration.media").container(path, audio_of(o)) or "mp4"
    list[#list + 1] = {path = path, base = base, ending = "." .. to}
  end
  for _, path in ipairs(o.input) do
    if files.is_folder(path) then
      local before = #list
      for _, name in ipairs(assert(files.list(path))) do
        local ending = ending_of(name)
        if (VIDEOS[ending] or PICTURES[ending]) and not name:find("%.anonymised%.") then add(files.join(path, name)) end
      end
      if #list == before then error(path .. ": no videos and no pictures in this folder", 0) end
    elseif files.exists(path) then
      add(path)
    else
      error(path .. ": No such file or directory", 0)
    end
  end
  if single and (#list > 1 or files.is_folder(o.input[1])) then error(("--output %s is a file, but there are %d inputs: name a folder"):format(o.output, #list), 0) end
  local folder = single and files.folder(o.output) or o.output
  for _, item in ipairs(list) do
    local stem = single and files.join(folder, (files.name(o.output):gsub("%.%w+$", ""))) or files.join(folder, item.base .. ".anonymised")
    item.output = single and o.output or stem .. item.ending
    item.sidecar, item.preview = stem .. ".json", stem .. ".preview.png"
    if single then item.sidecar, item.preview = stem .. ".anonymised.json", stem .. ".anonymised.preview.png" end
    if single and PICTURES[item.ending:sub(2)] and wanted ~= "png" then error(("--output %s: pictures are written as .png"):format(o.output), 0) end
  end
  return list, folder
end

-- Two names of one file, also through links.
local function same_file(a, b)
  local lfs = require "lfs"
  local p, q = lfs.attributes(a), lfs.attributes(b)
  return p and q and p.dev == q.dev and p.ino == q.ino
end

-- How masks are made, as the sidecar keeps it; what the user sets beside --apply wins over it.
local SETTINGS = {"mask", "style", "strength", "feather", "margin", "detector", "weights", "confidence", "gap", "lead", "every", "encoder_preset", "crf"}
local function settings_of(o)
  local settings = {audio = audio_of(o)}
  for _, name in ipairs(SETTINGS) do settings[name] = o[name] end
  return settings
end

local function now() return {processor = os.clock(), clock = require("libration.progress").clock()} end

-- One pass in the table of stages: shares of its time in which each was at work.
local function add_stage(row, name, frames, busy, more, start)
  if not busy then return end
  local used = (os.clock() - start.processor) / (require("libration.progress").clock() - start.clock) / require("libration").threads()
  local stage = {name = name, frames = frames, elapsed = busy.elapsed, processor = used, looks = more.looks}
  for _, part in ipairs {"decode", "convert", "mask", "encode"} do stage[part] = busy[part] / busy.elapsed end
  stage.networks = more.networks and more.networks / busy.elapsed
  row.stages[#row.stages + 1] = stage
end

-- The sidecar's content of what was found.
local function plan_of(item, o, found)
  local files, sidecar = require "libration.files", require "libration.pose.sidecar"
  return {
    input = {file = files.name(item.path), sha256 = assert(require("libration.media").sha256(item.path)), frames = found.frames, width = found.width, height = found.height},
    settings = settings_of(o), blank = found.blank, tracks = found.tracks,
    regions = o.region ~= "" and assert(sidecar.read_regions(o.region)) or {},
  }
end

-- Marks the tracks that stay visible, counts, and writes the sidecar but where it is one already.
local function put_down(item, o, plan, row, is_there)
  local known = {}
  for _, track in ipairs(plan.tracks) do known[track.id] = track end
  for _, id in ipairs(o.keep) do
    if not known[id] then error(("--keep %d: there are %d tracks, and none of that number"):format(id, #plan.tracks), 0) end
    known[id].keep = true
  end
  row.tracks, row.kept = #plan.tracks, 0
  for _, track in ipairs(plan.tracks) do row.kept = row.kept + (track.keep and 1 or 0) end
  if not is_there then require("libration.pose.sidecar").write(item.sidecar, plan) end
end

-- What the report says of frames that were covered.
local function add_covered(row, done, sound)
  row.frames, row.masked, row.blanked, row.pictures = done.frames, done.masked, done.blanked, done.pictures
  row.notes = {row.found_warning}
  row.notes[#row.notes + 1] = row.control
  if sound == "keep" and done.sounds > 0 then row.notes[#row.notes + 1] = "sound kept: voices not anonymised" end
  if sound == "distort" and done.sounds > 0 then row.notes[#row.notes + 1] = "voices distorted" end
  for _, line in ipairs(done.dropped) do row.notes[#row.notes + 1] = "dropped: " .. line end
  if done.warning and done.warning ~= row.found_warning then row.notes[#row.notes + 1] = done.warning end
end

local DOUBTFUL = 6 -- pictures of frames in the report

-- The first pass over an input, which covers it, too, where nothing must be known of all of it before: the numbers of tracks that stay visible. True where it did.
local function find(item, o, finder, row)
  local anonymiser, progress, sidecar = require "libration.pose.anonymiser", require "libration.progress", require "libration.pose.sidecar"
  local files = require "libration.files"
  if o.precision == "int8" then
    local ok, why = finder.adapter:quantise(anonymiser.sample(item.path, 8))
    if not ok then error(why, 0) end
    require("libration.log").info("%s: %s", item.path, why)
  end
  local function write(found) put_down(item, o, plan_of(item, o, found), row) end
  local bar, start, settings = nil, now(), settings_of(o)
  local found, why = anonymiser.find(item.path, finder, {
    gap = o.gap, lead = o.lead, evidence = 2 * o.confidence, threads = o.threads > 0 and o.threads or nil, queue = o.queue,
    every = o.mask ~= "person" and o.every or 0, -- outlines are known only of frames that were looked at
    cover = not o.preview and #o.keep == 0 and {
      output = item.output, audio = settings.audio, crf = o.crf, preset = o.encoder_preset, look = DOUBTFUL, settings = settings,
      regions = o.region ~= "" and assert(sidecar.read_regions(o.region)) or {}, on_found = write,
    },
    on_open = function(count, covers)
      bar = progress.new {label = files.name(item.path) .. (covers and ": finding and masking" or ": finding"), total = count > 0 and count or nil, unit = "frames"}
    end,
    on_frame = function(n, hits, busy, looks)
      bar:update(n, hits .. " hits" .. (busy and (", decoding %.0f %%, networks %.0f %%%s of the time"):format(100 * busy.decode / busy.elapsed,
        100 * looks.seconds / busy.elapsed, busy.encode > 0 and (", encoding %.0f %%"):format(100 * busy.encode / busy.elapsed) or "") or ""))
    end,
  })
  if not found then error(why, 0) end
  local name = found.done and "finding and masking" or "finding"
  add_stage(row, name, found.frames, found.busy, {networks = found.looks.seconds, looks = found.looks.looked + found.looks.glances}, start)
  bar:finish(("%d track%s"):format(#found.tracks, #found.tracks == 1 and "" or "s"))
  row.found_warning, row.faults = found.warning, found.faults
  if found.warning then require("libration.log").warn("%s", found.warning) end
  if found.done then add_covered(row, found.done, settings.audio) else write(found) end
  return found.done ~= nil
end

-- The second pass, from the sidecar as it was written, so that --apply of it makes the same bytes.
local function cover(item, o, row)
  local anonymiser, progress, sidecar = require "libration.pose.anonymiser", require "libration.progress", require "libration.pose.sidecar"
  local plan = assert(sidecar.read(item.sidecar))
  local bar, start = nil, now()
  local done = anonymiser.cover(item.path, item.output, plan, {
    audio = plan.settings.audio or "keep", crf = plan.settings.crf or o.crf, preset = plan.settings.encoder_preset or o.encoder_preset, queue = o.queue,
    threads = o.threads > 0 and o.threads or nil, look = DOUBTFUL,
    on_open = function() bar = progress.new {label = require("libration.files").name(item.path) .. ": masking", total = plan.input.frames, unit = "frames"} end,
    on_frame = function(n, busy)
      bar:update(n, busy and n % 16 == 0 and
        ("decoding %.0f %%, encoding %.0f %% of the time"):format(100 * busy.decode / busy.elapsed, 100 * busy.encode / busy.elapsed) or nil)
    end,
  })
  bar:finish()
  add_stage(row, "masking", done.frames, done.busy, {}, start)
  add_covered(row, done, plan.settings.audio or "keep")
  return plan
end

local ROUNDS = 4 -- looks at the result; what the last of them still sees is covered with its whole frame

-- Looks at the result; what is still seen joins the sidecar and is covered solidly, more of it in each round, until nothing is.
local function verify(item, o, plan, verifier, row)
  local anonymiser, progress, sidecar = require "libration.pose.anonymiser", require "libration.progress", require "libration.pose.sidecar"
  local name = require("libration.files").name(item.path)
  local looked, control = anonymiser.control(item.path, plan, verifier, 12)
  row.verified = {seen = 0, whole = 0, looked = looked, control = control}
  row.control = control > 0 and ("second look, at the source: faces in %d of %d frames looked at"):format(control, looked) or
    ("second look, at the source: no face in %d frames looked at; either none is there or this detector does not see it"):format(looked)
  row.notes[#row.notes + 1] = row.control
  local only
  for round = 1, ROUNDS do
    local bar
    local before = #plan.blank
    local left, frames = anonymiser.verify(item.output, plan, verifier, {
      gap = o.gap, lead = o.lead, evidence = 0, threads = o.threads > 0 and o.threads or nil, only = only, grow = 1 + .25 * (round - 1), strict = o.strict,
      every = only and 0 or o.verify_every >= 0 and o.verify_every or o.every, queue = o.queue,
      on_open = function() bar = progress.new {label = name .. ": verifying", total = plan.input.frames, unit = "frames"} end,
      on_frame = function(n, hits) bar:update(n, hits .. " seen") end,
    })
    bar:finish(("%d track%s seen"):format(#left, #left == 1 and "" or "s"))
    row.verified.seen = row.verified.seen + #left
    if #left == 0 and #plan.blank == before then return end
    if round == ROUNDS then
      local blank = {}
      for _, track in ipairs(left) do
        for i = 0, track.count - 1 do
          if track.samples[i].score > 0 then blank[track.samples[i].frame] = true end
        end
      end
      for frame in pairs(blank) do plan.blank[#plan.blank + 1] = frame end
      table.sort(plan.blank)
      row.verified.whole = #plan.blank - before
    end
    sidecar.write(item.sidecar, plan)
    plan, only = cover(item, o, row), o.verify_every ~= 0 and frames or nil -- encoded anew, frames without new masks look a little different, too
  end
end

-- What is to be covered, as the sidecar of an input: that is read again where it is needed, so that an hour's samples are in memory once. True where the input was
-- covered on the way.
local function prepare(item, o, given, tools, row)
  if o.apply == "" then return find(item, o, tools.finder, row) end
  local plan = assert(require("libration.pose.sidecar").read(o.apply))
  for name, value in pairs(settings_of(o)) do
    if given[name] or name == "audio" and (given.keep_audio or given.drop_audio or given.distort_voice) then plan.settings[name] = value end
  end
  put_down(item, o, plan, row, same_file(o.apply, item.sidecar) and #o.keep == 0)
  return false
end

-- One input from its file to its result; fills the row of the report.
local function work(item, o, given, tools, row)
  local sidecar = require "libration.pose.sidecar"
  local covered = prepare(item, o, given, tools, row)
  jit.flush() -- compiled traces hold what their functions held, here an hour's samples
  collectgarbage()
  if o.preview then
    require("libration.pose.anonymiser").preview(item.path, item.preview, assert(sidecar.read(item.sidecar)), 16)
    require("libration.log").info("%s: %d tracks -> %s", item.path, row.tracks, item.preview)
    return
  end
  local plan = not covered and cover(item, o, row)
  if tools.verifier then verify(item, o, plan or assert(sidecar.read(item.sidecar)), tools.verifier, row) end
end

-- True where an input's result is there, of the same file and by the same settings.
local function is_done(item, o)
  local files, json = require "libration.files", require "libration.formats.json"
  if not (files.exists(item.output) and files.exists(item.sidecar)) then return false end
  local plan = require("libration.pose.sidecar").read(item.sidecar)
  return plan and plan.input.sha256 == require("libration.media").sha256(item.path) and json.encode(plan.settings) == json.encode(settings_of(o))
end

-- The finders of the first pass and of the second look.
local function tools_of(o, given)
  local finder, adapters = require "libration.pose.finder", require "libration.pose.adapters"
  local target, tools = (o.mask == "eyes" or o.mask == "head") and "face" or o.mask, {}
  local log, place, which, fallback = require "libration.log", "cpu", nil, nil
  -- an edited sidecar is its editor's decision, and of plates and the like a look for faces says nothing
  local again = o.verify and (o.apply == "" and (target == "face" or target == "person") or given.verify)
  if o.precision == "int8" and o.weights == "" and o.apply == "" then error("--precision int8 is for a network that --weights names", 0) end
  if o.apply == "" or again then
    place, which = require("libration.device").take(o.device)
    if o.precision == "f16" and place == "cpu" then error("--precision f16 is for CUDA devices, on the CPU there is bf16", 0) end
    if o.precision == "int8" and place ~= "cpu" then error("--precision int8 is for the CPU: --device cpu", 0) end
  end
  if o.device == "auto" then
    function fallback(err)
      tools.failure = ("%s failed, detection went on on the CPU: %s"):format(place, tostring(err):match "^[^\n]*")
      log.warn("%s", tools.failure)
    end
  end
  local function brought(path, what)
    local own = path == o.weights
    local network, why = adapters.detector(path, {
      adapter = own and o.adapter ~= "" and o.adapter or nil, device = place, precision = own and o.precision ~= "int8" and o.precision or nil,
    })
    if network then
      local ok
      ok, why = network:offers(what)
      if not ok then network = nil end
    end
    if not network then error(why, 0) end
    log.info("%s: read as %s, %dx%d", path, network.adapter.name, network.size.width, network.size.height)
    return network
  end
  if o.apply == "" then
    if o.weights == "" and target ~= "face" and target ~= "person" then
      error(("--mask %s: want eyes, face, head or person, or a class of a network that --weights names"):format(o.mask), 0)
    end
    tools.finder = finder.new {
      detector = o.detector, confidence = o.confidence, target = target, margin = require("libration.pose.masks").margin(o.margin),
      tile = o.tile >= 0 and o.tile or nil, adapter = o.weights ~= "" and brought(o.weights, target) or nil,
      precision = o.precision ~= "int8" and o.precision or nil,
      batch = o.batch > 0 and o.batch or nil,
      device = place, fallback = fallback,
    }
  end
  if again then
    tools.verifier = finder.new {
      detector = "face", range = "short", alone = true, turned = false, edges = false, confidence = o.verify_confidence, tile = o.tile > 0 and o.tile or finder.close_tile,
      adapter = o.verify_weights ~= "" and brought(o.verify_weights, "face") or nil, device = place, fallback = fallback,
    }
  end
  if which then log.info("device: %s", which) end
  return tools
end

options.main(function()
  collectgarbage("setpause", 110) -- an hour's samples are tens of megabytes in a few blocks: as much again of garbage is not waited for
  local o, given = options.parse("anonymise", about, rows, arg)
  local files, log, progress, lr = require "libration.files", require "libration.log", require "libration.progress", require "libration"
  local list, folder = inputs_of(o)
  if o.apply ~= "" and #list ~= 1 then error(("--apply takes one input, not %d"):format(#list), 0) end
  audio_of(o)
  take_defaults(o, given)
  for _, item in ipairs(list) do
    for _, other in ipairs(list) do
      for _, to in ipairs {item.output, item.sidecar, item.preview} do
        if same_file(other.path, to) then error(("%s: the output would be written over this input; name another --output"):format(other.path), 0) end
      end
    end
  end
  if o.strict and not o.verify then error("--strict says what the second look does with what is left: leave --no-verify out", 0) end
  if o.threads > 0 then lr.core.C.lbr_set_threads(o.threads) end
  local lock, why = files.lock(folder)
  if not lock then error(why, 0) end
  if o.region ~= "" then assert(require("libration.pose.sidecar").read_regions(o.region)) end

  local tools = tools_of(o, given)

  local table_rows, failed, doubts = {}, 0, 0
  for i, item in ipairs(list) do
    local row = {input = item.path, output = item.output, link = files.name(item.output), frames = 0, masked = 0, tracks = 0, kept = 0, blanked = {}, faults = {},
      pictures = {}, notes = {}, stages = {}, seconds = 0}
    if o.resume and o.apply == "" and is_done(item, o) then
      log.info("%s: done already -> %s", item.path, item.output)
    else
      local started = progress.clock()
      local worked, err = pcall(work, item, o, given, tools, row)
      row.seconds = progress.clock() - started
      row.notes[#row.notes + 1], tools.failure = tools.failure, nil
      if not worked then
        if tostring(err):find("interrupted", 1, true) or #list == 1 then error(err, 0) end
        row.reason, row.link, failed = tostring(err), nil, failed + 1
        log.warn("%s", row.reason)
      elseif not o.preview then
        log.info("%s: %d of %d frames masked, %d blank, %d tracks%s -> %s", item.path, row.masked, row.frames, #row.blanked, row.tracks,
          row.verified and (", second look: faces in %d of %d frames of the source, %d seen in the result and covered"):format(row.verified.control, row.verified.looked,
            row.verified.seen) or "", item.output)
      end
      doubts = doubts + #row.faults + (row.verified and row.tracks > 0 and row.verified.control == 0 and 1 or 0)
      table_rows[#table_rows + 1] = row
    end
    if i == #list and #table_rows > 0 and not o.preview then
      local settings = {}
      for _, name in ipairs(SETTINGS) do settings[#settings + 1] = {name, tostring(o[name])} end
      require("libration.report.anonymisation").write(folder, {rows = table_rows, settings = settings})
    end
  end
  lock:release()
  if failed > 0 then error(("%d of %d inputs could not be masked"):format(failed, #list), 0) end
  if o.strict and doubts > 0 then
    error(("--strict: %d frames could not be looked at or recordings not verified; report.html in %s names them"):format(doubts, folder), 0)
  end
end)
