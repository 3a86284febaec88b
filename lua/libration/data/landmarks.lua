-- A video or a folder of frames as a sequence of landmarks, with progress, notes and the cache. Finds nothing itself: pose.extract does.

local progress = require "libration.progress"
local extract = require "libration.pose.extract"
local Sequence = require "libration.motion.sequence"

local landmarks = {}

--- Settings for pose.extract from a recipe's options.
---@param o table model, precision, smooth, person, fps, cache, threads (0: all), weights ("": the user's models folder or cache),
---  check ("off": the frames themselves are not looked at), stability (frames from sample to sample; 0 or nil: none)
---@param device? string where landmarks are found, "cpu" (default) or "cuda:N"
---@return table
function landmarks.settings(o, device)
  return {
    model = o.model, precision = o.precision, smooth = o.smooth, person = o.person, fps = o.fps, cache = o.cache,
    threads = o.threads > 0 and o.threads or nil, weights = o.weights ~= "" and o.weights or nil, watch = o.check ~= "off",
    stability = o.stability, device = device,
  }
end

--- Finds the landmarks of a recording, or takes the remembered ones. Raises the reason in one line: not readable, nobody found.
---@param path string
---@param id string
---@param settings table as of `settings`
---@return Sequence sequence
---@return Recording recording
---@return string[] notes what a reader should know: damage, jumps to another person
function landmarks.sequence(path, id, settings)
  local bar
  local s = {}
  for k, v in pairs(settings) do s[k] = v end
  function s.on_open(source)
    bar = progress.new { label = id .. " landmarks", total = source.frames > 0 and source.frames or nil, unit = "frames" }
  end
  function s.on_frame(n, found)
    bar:update(n, found < n and ("%d without a pose"):format(n - found) or nil)
  end
  local ok, r, reason = pcall(extract.recording, path, s)
  if bar then
    bar.quiet = not (ok and r)
    bar:finish()
  end
  if not ok then error(r, 0) end
  if not r then error(reason, 0) end
  if r.found == 0 then error(("%s: no person found in %d frame%s"):format(path, r.frames, r.frames == 1 and "" or "s"), 0) end
  local notes = {}
  if r.warning and r.warning ~= "" then notes[1] = r.warning end
  for _, jump in ipairs(r.jumps) do
    notes[#notes + 1] = ("%s: jump at %.2f s, perhaps to another person"):format(id, jump.time)
  end
  return Sequence.new {
    points = r.landmarks, id = id, skeleton = "blazepose33", fps = r.fps > 0 and r.fps or 25, times = r.times, width = r.width, height = r.height, source = path,
  }, r, notes
end

--- Finds the landmarks of several recordings at once and remembers them, so that `sequence` takes each from there. What cannot be read is left for it to say.
---@param entries Entry[] those of landmark files are passed over
---@param settings table as of `settings`; without a cache nothing is done
---@param most integer recordings at once; 0: eight on a CUDA device, one on the CPU, where a batch gains nothing
function landmarks.ahead(entries, settings, most)
  if most == 0 then most = settings.device and settings.device ~= "cpu" and 8 or 1 end
  local paths, s = {}, {}
  for _, e in ipairs(entries) do
    if e.kind ~= "landmarks" then paths[#paths + 1] = e.path end
  end
  if settings.cache == false or most < 2 or #paths < 2 then return end
  local bar, n = nil, 0
  for k, v in pairs(settings) do s[k] = v end
  function s.on_frame()
    bar, n = bar or progress.new { label = ("landmarks, %d at once"):format(math.min(most, #paths)), unit = "frames" }, n + 1
    bar:update(n)
  end
  local ok, err = pcall(extract.recordings, paths, s, most)
  if bar then
    bar.quiet = not ok
    bar:finish()
  end
  if not ok then error(err, 0) end
end

return landmarks
