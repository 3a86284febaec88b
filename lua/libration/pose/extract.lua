-- A whole recording to landmarks: decodes, tracks, maps back to source pixels, lists jumps to another person, remembers the answer. Writes no result files.
local ffi = require "ffi"
local tensor = require "libration.tensor"
local files = require "libration.files"
local sha256 = require "libration.sha256"
local smoothing = require "libration.pose.smoothing"
local watch = require "libration.pose.watch"
local stability = require "libration.pose.stability"
local stream = require "libration.formats.stream"

local extract = {}

local VERSION = 1 -- of what is remembered: grows when an answer would change
local JUMP = .5   -- of the radius of the body's circle, from one found frame to the next

extract.defaults = {
  model = "full", precision = "f32", kernel = 9, smooth = "one-euro", cutoff = 6, clock = "video", person = "best",
  start = 0, stop = 0, fps = 0, rotate = 0, crop = false, watch = true, stability = 0, device = "cpu",
}

---@class Recording
---@field landmarks? Tensor f32 [T,33,5] x, y, z in pixels of the upright source picture, visibility, presence; NaN in frames without a pose; nil where a sink took them
---@field world? Tensor f32 [T,33,3] metres from the mid hip, NaN likewise
---@field times number[] seconds of each frame
---@field frames integer T
---@field found integer frames with a pose
---@field width integer of the upright source picture
---@field height integer
---@field fps number frames a second: from the times, or the source's own
---@field jumps {frame: integer, time: number, distance: number}[] frame from 1; distance in pixels of the middle of the body
---@field cached boolean true where the answer was remembered
---@field key string sha256 of everything the answer depends on
---@field seconds number that finding the landmarks took, decoding included; 0 when cached
---@field warning string what was wrong with the file; "" when nothing
---@field kind string "video", "picture" or "folder"
---@field stability? LandmarkStability where it was asked for and somebody was found
---@field watch? Tensor f32 [T,#watch.COLUMNS] what pose.watch took of each frame; nil where it was not asked for
---@field watch_seconds? number of `seconds` that this took; 0 when cached

-- Sha256 over the content of a file, or of all pictures of a folder by name.
local function content_of(source)
  local media = require "libration.media"
  local function digest(path)
    local hex, err = media.sha256(path)
    if not hex then error(err, 0) end
    return hex
  end
  if source.kind ~= "folder" then return digest(source.path) end
  local hash = media.hash()
  for _, path in ipairs(source.files) do hash:update(files.name(path) .. "\0" .. digest(path) .. "\n") end
  return hash:hex()
end

local function key_of(source, o, weight_files)
  local parts = { "landmarks " .. VERSION, content_of(source) }
  for _, which in ipairs { "detector", "landmark" } do
    local hex, err = files.sha256(weight_files[which])
    if not hex then error(err, 0) end
    parts[#parts + 1] = hex
  end
  local crop = o.crop and table.concat(o.crop, ",") or "all"
  for _, v in ipairs {
    o.model, o.precision, o.kernel, o.smooth == "one-euro" and "one-euro" or "raw", o.clock, o.person, o.start, o.stop, o.fps, o.rotate, crop,
  } do
    parts[#parts + 1] = type(v) == "number" and ("%.17g"):format(v) or v
  end
  if o.device ~= "cpu" then parts[#parts + 1] = "cuda" end -- it adds up in another order
  return sha256.hex(table.concat(parts, "\n"))
end

--- The way back from pixels of the upright source picture to those of the frames a source delivers (Source:to_source is the way there), and directions.
---@param source Source with its crop and rotation
---@return fun(x: number, y: number): number, number to_frame
---@return fun(x: number, y: number): number, number direction of a vector, from frame to source
function extract.turning(source)
  local left, top, w, h = unpack(source.crop)
  if source.rotate == 90 then
    return function(x, y) return h - (y - top), x - left end, function(x, y) return y, -x end
  elseif source.rotate == 180 then
    return function(x, y) return w - (x - left), h - (y - top) end, function(x, y) return -x, -y end
  elseif source.rotate == 270 then
    return function(x, y) return y - top, w - (x - left) end, function(x, y) return -y, x end
  end
  return function(x, y) return x - left, y - top end, function(x, y) return x, y end
end

-- Numbers that grow as frames come, of n floats each.
local function growing(n)
  local room, used, data = 256, 0, ffi.new("float[?]", 256 * n)
  local list = {}
  function list.next()
    if used == room then
      local larger = ffi.new("float[?]", room * 2 * n)
      ffi.copy(larger, data, room * n * 4)
      data, room = larger, room * 2
    end
    used = used + 1
    return data + (used - 1) * n
  end
  function list.tensor(...)
    local t = tensor.empty({ used, ... })
    if used > 0 then ffi.copy(t:ptr(), data, used * n * 4) end
    return t
  end
  return list
end

-- Middle of shoulders and hips, in pixels.
local function middle(l)
  local x, y = 0, 0
  for _, j in ipairs { 11, 12, 23, 24 } do x, y = x + l[5 * j] / 4, y + l[5 * j + 1] / 4 end
  return x, y
end

-- Where a frame's numbers go: kept, to be tensors at the end.
local function keeping()
  local landmarks, world = growing(165), growing(99)
  return {
    room = function() return landmarks.next(), world.next() end,
    take = function() end,
    result = function() return landmarks.tensor(33, 5), world.tensor(33, 3) end,
  }
end

-- Or handed on frame by frame, and spooled where they are to be remembered: an hour needs no more memory than a minute.
local function handing_on(sink, spooled)
  local landmarks, world = ffi.new("float[165]"), ffi.new("float[99]")
  local l, w
  if spooled then l, w = stream.spool("f32", { 33, 5 }), stream.spool("f32", { 33, 3 }) end
  return {
    room = function() return landmarks, world end,
    take = function(time)
      sink(time, landmarks, world)
      if l and w then
        l:append(ffi.string(landmarks, 660))
        w:append(ffi.string(world, 396))
      end
    end,
    result = function() return l, w end,
  }
end

local function find(source, landmarker, on_frame, place, watcher, steady)
  local times, jumps = {}, {}
  local _, direct = extract.turning(source)
  local found, last = 0, nil
  for frame, time in source:each() do
    times[#times + 1] = time
    local l, w = landmarker:process(frame, time)
    local to, metres = place.room()
    if not l then
      for i = 0, 164 do to[i] = 0 / 0 end
      for i = 0, 98 do metres[i] = 0 / 0 end
    else
      found = found + 1
      local p, q = l:ptr(), w:ptr()
      for i = 0, 32 do
        local x, y = source:to_source(p[5 * i], p[5 * i + 1])
        to[5 * i], to[5 * i + 1], to[5 * i + 2], to[5 * i + 3], to[5 * i + 4] = x, y, p[5 * i + 2], p[5 * i + 3], p[5 * i + 4]
        x, y = direct(q[3 * i], q[3 * i + 1])
        metres[3 * i], metres[3 * i + 1], metres[3 * i + 2] = x, y, q[3 * i + 2]
      end
      local x, y = middle(to)
      local radius = landmarker.region.width / 2.5
      if last then
        local distance = math.sqrt((x - last.x) ^ 2 + (y - last.y) ^ 2)
        if distance > JUMP * math.max(radius, last.radius) then jumps[#jumps + 1] = { frame = #times, time = time, distance = distance } end
      end
      last = { x = x, y = y, radius = radius }
    end
    place.take(time)
    if steady and l then steady:take(frame, #times, landmarker) end
    if watcher then watcher:look(frame, time, l, landmarker) end
    if on_frame then on_frame(#times, found) end
  end
  local landmarks, world = place.result()
  return landmarks, world, times, jumps, found
end

-- Whether a tensor is what was written: the file may be damaged, or another's.
local function as_written(t, dtype, ...)
  local want = { ... }
  if not t or t.dtype ~= dtype or #t.shape ~= #want then return false end
  for i, d in ipairs(want) do
    if t.shape[i] ~= d then return false end
  end
  return true
end

--- A remembered answer, or nil where there is none or the file is not whole.
---@param path string
---@param watched boolean? it must hold what pose.watch took
---@param every integer? it must hold what pose.stability took of every so many frames; nil and 0: it need not
---@return Recording|nil
function extract.remembered(path, watched, every)
  if not files.exists(path) then return nil end
  local tensors, about = require "libration.formats.safetensors".load(path)
  local n = tensors and tensors.times and tensors.times:numel()
  if not (n and as_written(tensors.times, "f64", n) and as_written(tensors.landmarks, "f32", n, 33, 5) and as_written(tensors.world, "f32", n, 33, 3)
    and tensors.jumps and as_written(tensors.jumps, "f64", tensors.jumps.shape[1], 3)) then return nil end
  if watched and not watch.fits(tensors.watch, n) then return nil end -- found before anybody watched
  local asked = every and every > 0
  if asked and not (tonumber(about.stability) == every and tensors.stability and as_written(tensors.stability, "f32", tensors.stability.shape[1], stability.COLUMNS)) then
    return nil
  end
  local r = {
    landmarks = tensors.landmarks, world = tensors.world, times = {}, jumps = {}, frames = n, warning = about.warning, cached = true, seconds = 0,
    watch = watched and tensors.watch or nil, watch_seconds = 0, stability = asked and stability.summary(tensors.stability, every) or nil,
  }
  for _, name in ipairs { "found", "width", "height", "fps" } do
    local v = tonumber(about[name])
    if not (v and v >= 0 and v < math.huge) then return nil end
    r[name] = v
  end
  if not r.warning or r.found > n then return nil end
  local times, jumps = tensors.times:ptr(), tensors.jumps:ptr()
  for i = 1, n do
    r.times[i] = times[i - 1]
    if not (r.times[i] - (r.times[i - 1] or -math.huge) > 0 and r.times[i] < math.huge) then return nil end
  end
  for i = 0, tensors.jumps:size(1) - 1 do
    local p = jumps + 3 * i
    if not (p[0] >= 1 and p[0] <= n) then return nil end
    r.jumps[i + 1] = { frame = p[0], time = p[1], distance = p[2] }
  end
  return r
end

local function remember(path, r, samples, every)
  local times, jumps = tensor.empty({ #r.times }, "f64"), tensor.empty({ math.max(#r.jumps, 1), 3 }, "f64")
  for i, time in ipairs(r.times) do times:ptr()[i - 1] = time end
  for i, jump in ipairs(r.jumps) do
    local p = jumps:ptr() + 3 * (i - 1)
    p[0], p[1], p[2] = jump.frame, jump.time, jump.distance
  end
  jumps = jumps:narrow(1, 1, #r.jumps)
  local about = { found = ("%d"):format(r.found), width = ("%d"):format(r.width), height = ("%d"):format(r.height), fps = ("%.17g"):format(r.fps), warning = r.warning,
    stability = samples and ("%d"):format(every) or nil }
  local tensors = { landmarks = r.landmarks, world = r.world, times = times, jumps = jumps, watch = r.watch, stability = samples }
  pcall(require "libration.formats.safetensors".save, path, tensors, about) -- a full cache is no reason to lose the answer
end

-- Frames a second from the times themselves: the median step.
local function rate_of(times, fallback)
  local steps = {}
  for i = 2, #times do steps[#steps + 1] = times[i] - times[i - 1] end
  if #steps == 0 then return fallback end
  table.sort(steps)
  local step = steps[math.ceil(#steps / 2)]
  return step > 0 and 1 / step or fallback
end

--- Options for media.open that give the frames that a recording's landmarks were found in.
---@param o table options of extract.recording
---@return table
function extract.source_options(o)
  return { start = o.start, stop = o.stop ~= 0 and o.stop or nil, fps = o.fps ~= 0 and o.fps or nil, crop = o.crop or nil, rotate = o.rotate, threads = o.threads }
end

--- Landmarks of one person throughout a video, a picture or a folder of frames. The answer is remembered in the user's cache folder by the content of the
--- input, the weights and the options.
---@param input string
---@param options? table model, precision, kernel, smooth ("one-euro", "none", "offline": zero-phase Butterworth with `cutoff` Hz, default 6), clock, person, weights
---  (as pose.landmarker takes them), start, stop (seconds; stop 0: to the end), fps (folders), crop {x, y, width, height}, rotate (degrees clockwise, after the crop),
---  threads, device ("cpu", "cuda:N"), networks (as pose.landmarker takes them, with their files),
---  cache (false: neither look nor remember), watch (false: do not look at the frames themselves, see pose/watch.lua),
---  on_open(source), on_frame(frames, found),
---  stability (frames from one to the next at which the landmark network looks again at shifted crops, see pose/stability.lua; 0: never),
---  on_size(width, height): of the upright source picture, before the first frame, also of a remembered answer,
---  sink(time, landmarks, world): takes each frame in order, float[33*5] and float[33*3] that are valid during the call; the recording then holds neither, and
---  its length costs no memory, unless smooth is "offline" or the answer was remembered
---@return Recording|nil recording
---@return string|nil err one line: the input cannot be opened
function extract.recording(input, options)
  local o = setmetatable(options or {}, { __index = extract.defaults })
  local source, err = require "libration.media".open(input, extract.source_options(o))
  if not source then return nil, err end
  local still = source.kind == "picture"
  local smooth = still and "none" or o.smooth
  local landmarker = require "libration.pose.landmarker" {
    model = o.model, precision = o.precision, kernel = o.kernel, smooth = smooth, clock = o.clock, person = o.person, static = still, weights = o.weights,
    threads = o.threads, device = o.device, networks = o.networks,
  }
  local key = key_of(source, setmetatable({ smooth = smooth }, { __index = o }), landmarker.files)
  local place = o.cache ~= false and files.join(files.cache("landmarks"), key .. ".safetensors")
  if o.on_size then o.on_size(source.source_width, source.source_height) end
  local r = place and extract.remembered(place, o.watch, o.stability)
  if r then
    source:close()
  else
    if o.on_open then o.on_open(source) end
    local clock = require "libration.progress".clock
    local begin = clock()
    local streamed = o.sink and smooth ~= "offline"
    local watcher = o.watch and watch.new(source.width, source.height)
    local steady = o.stability > 0 and stability.new(o.stability) or nil
    local ok, landmarks, world, times, jumps, found = pcall(find, source, landmarker, o.on_frame, streamed and handing_on(o.sink, place) or keeping(), watcher, steady)
    source:close()
    if not ok then error(landmarks, 0) end
    r = {
      landmarks = landmarks, world = world, times = times, jumps = jumps, frames = #times, found = found, width = source.source_width, height = source.source_height,
      fps = rate_of(times, source.fps), cached = false, seconds = clock() - begin, warning = source.warning or "",
    }
    if watcher then r.watch, r.watch_seconds = watcher:series() end
    local samples = steady and steady:samples()
    if samples then r.stability = stability.summary(samples, o.stability) end
    if place and landmarks and world then remember(place, r, samples, o.stability) end
    if streamed then
      r.landmarks, r.world = nil, nil
      if landmarks then landmarks:close() end
      if world then world:close() end
    end
  end
  r.key, r.kind = key, source.kind
  if smooth == "offline" and r.fps > 0 and r.frames > 0 then
    r.landmarks, r.world = smoothing.offline(r.landmarks, r.fps, o.cutoff), smoothing.offline(r.world, r.fps, o.cutoff)
  end
  if o.sink and r.landmarks then
    local l, w = r.landmarks:ptr(), r.world:ptr()
    for i = 0, r.frames - 1 do o.sink(r.times[i + 1], l + 165 * i, w + 99 * i) end
    r.landmarks, r.world = nil, nil
  end
  return r
end

--- Several recordings at once on one pair of networks, a batch of what they need at the same time: what `recording` gives for each of them, bit for bit.
---@param inputs string[]
---@param options table as for `recording`, without a sink
---@param most integer recordings at once
---@return table[] results of each input: {true, recording, err} as `recording` gives them, or {false, the error it raised}
function extract.recordings(inputs, options, most)
  local o = setmetatable({}, { __index = function(_, name) return options[name] == nil and extract.defaults[name] or options[name] end })
  local first = require "libration.pose.landmarker" { model = o.model, precision = o.precision, weights = o.weights, threads = o.threads, device = o.device }
  return require("libration.pose.together").run({ detector = first.detector, landmark = first.marker }, #inputs, most, function(i, shared)
    local own = { networks = { detector = shared.detector, landmark = shared.landmark, files = first.files } }
    for name, value in pairs(options) do own[name] = value end
    return extract.recording(inputs[i], own)
  end)
end

return extract
