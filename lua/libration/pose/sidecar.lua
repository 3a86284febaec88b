-- NAME.anonymised.json: what was found in a recording and what is to be covered, a line a sample, to be read, edited by hand and applied again. Finds nothing.
local ffi = require "ffi"
local files = require "libration.files"
local json = require "libration.formats.json"
local json_reader = require "libration.formats.json_reader"
local silhouette = require "libration.pose.silhouette"
local tracks = require "libration.pose.tracks"

local sidecar = {}

local FORMAT, VERSION = "libration anonymisation", 1
local LARGEST = 1073741824 -- bytes of a file that is read

---@class Sidecar
---@field input table file (name without folders), sha256, frames, width, height
---@field settings table<string, string|number> how masks are made: what the recipe was asked for
---@field blank integer[] frames, from 1, that are covered whole
---@field regions {mask: string, points: number[][]}[] polygons that are covered "always" or "never", pixels
---@field tracks Track[]

-- A number in so many parts of 1, as the formats below write it and a reader finds it: halves away from 0, and no -0.
local function as(v, parts)
  local n = math.floor(math.abs(v) * parts + .5) / parts
  return v < 0 and 0 - n or n
end

--- Makes of a sample what it is when it comes back from a sidecar.
---@param s ffi.cdata* lbr_track_sample, changed in place
function sidecar.round(s)
  s.time, s.score, s.angle = as(s.time, 1e6), as(s.score, 1e3), as(s.angle, 1e4)
  s.x, s.y, s.width, s.height = as(s.x, 100), as(s.y, 100), as(s.width, 100), as(s.height, 100)
  local known = s.points[0] == s.points[0]
  for k = 0, 11 do s.points[k] = known and as(s.points[k], 10) or 0 / 0 end
end

local rounded = ffi.new "lbr_track_sample[1]"

local function sample_line(sample, outline)
  rounded[0] = sample
  local s = rounded[0]
  sidecar.round(s)
  local parts = { ('{"frame": %d, "time": %.6f, "x": %.2f, "y": %.2f, "width": %.2f, "height": %.2f'):format(s.frame, s.time, s.x, s.y, s.width, s.height) }
  if s.angle ~= 0 then parts[#parts + 1] = (', "angle": %.4f'):format(s.angle) end
  parts[#parts + 1] = (', "confidence": %.3f'):format(s.score)
  if s.points[0] == s.points[0] then
    local list = {}
    for k = 0, 11 do list[k + 1] = s.points[k] == s.points[k] and ("%.1f"):format(s.points[k]) or "null" end -- networks know fewer than six
    parts[#parts + 1] = ', "points": [' .. table.concat(list, ", ") .. "]"
  end
  if outline then parts[#parts + 1] = ', "outline": "' .. outline .. '"' end
  parts[#parts + 1] = "}"
  return table.concat(parts)
end

--- Writes a sidecar; equal content gives equal bytes.
---@param path string
---@param plan Sidecar
function sidecar.write(path, plan)
  files.write(path, function(out)
    out:write('{\n"format": ', json.encode(FORMAT), ', "version": ', tostring(VERSION), ',\n')
    out:write('"input": ', json.encode(plan.input), ',\n"settings": ', json.encode(plan.settings), ',\n')
    out:write('"blank": ', json.encode(json.list(plan.blank)), ',\n"regions": ', json.encode(json.list(plan.regions)), ',\n"tracks": [')
    for t, track in ipairs(plan.tracks) do
      out:write(t > 1 and "," or "", ('\n{"id": %d, "kind": %s, "keep": %s%s, "samples": ['):format(track.id, json.encode(track.kind), tostring(track.keep),
        track.style and (', "style": ' .. json.encode(track.style)) or ""))
      for i = 0, track.count - 1 do out:write(i > 0 and ",\n " or "\n ", sample_line(track.samples[i], track.outlines[track.samples[i].frame])) end
      out:write("\n]}")
    end
    out:write("\n]\n}\n")
  end)
end

-- n numbers; unknown: null stands for one that is not known, NaN here.
local function read_points(r, n, unknown)
  local points = {}
  r:list(function(i)
    if n and i > n then r:fail(("more than %d numbers"):format(n)) end
    points[i] = unknown and r:null() and 0 / 0 or r:number(-1e6, 1e6)
  end)
  if n and #points ~= n then r:fail(("%d numbers, want %d"):format(#points, n)) end
  return points
end

--- Polygons from JSON: [{"mask": "always" | "never", "points": [[x, y], ...]}, ...].
---@param r JsonReader
---@return {mask: string, points: number[][]}[]
local function read_regions(r)
  local regions = {}
  r:list(function(i)
    local region = {}
    r:object({
      mask = function()
        region.mask = r:string()
        if region.mask ~= "always" and region.mask ~= "never" then r:fail(("'%s', want always or never"):format(region.mask)) end
      end,
      points = function()
        region.points = {}
        r:list(function(k)
          if k > 4096 then r:fail "more than 4096 corners" end
          region.points[k] = read_points(r, 2)
        end)
        if #region.points < 3 then r:fail(("a polygon of %d corners, want at least 3"):format(#region.points)) end
      end,
    }, { "mask", "points" })
    regions[i] = region
  end)
  return regions
end

--- A file of regions alone, as --region takes it.
---@param path string
---@return {mask: string, points: number[][]}[]|nil regions, or nil and one line that names file, line and field
function sidecar.read_regions(path)
  local r, why = json_reader.open(path, 16777216)
  if not r then return nil, why end
  local ok, regions = pcall(function()
    local list = read_regions(r)
    r:finish()
    return list
  end)
  if not ok then return nil, regions end
  return regions
end

local function read_samples(r, track, frames)
  local before, s, points, outline = 0, nil, nil, nil
  local function number(name, least, most) return function() s[name] = r:number(least, most) end end
  local fields, needed = {
    frame = function()
      s.frame = r:number(1, frames, true)
      if s.frame <= before then r:fail(("%d after %d, want frames in order"):format(s.frame, before)) end
      before = s.frame
    end,
    time = number("time", -1e9, 1e9), x = number("x", -1e6, 1e6), y = number("y", -1e6, 1e6), width = number("width", .01, 1e6), height = number("height", .01, 1e6),
    angle = number("angle", -100, 100), confidence = number("score", 0, 1), points = function() points = read_points(r, 12, true) end,
    outline = function()
      outline = r:string()
      local known, why = silhouette.read(outline)
      if not known then r:fail(why) end
    end,
  }, { "frame", "x", "y", "width", "height" }
  r:list(function()
    s, points, outline = track:append(), nil, nil
    r:object(fields, needed)
    for k = 1, points and 12 or 0 do s.points[k - 1] = points[k] end
    track.outlines[s.frame] = outline
  end)
  track = nil -- compiled traces hold the functions above, and what these hold
end

local STYLES = { blur = true, mosaic = true, box = true }

--- Reads a sidecar, also one that was edited by hand.
---@param path string
---@return Sidecar|nil plan, or nil and one line that names file, line and field
function sidecar.read(path)
  local r, why = json_reader.open(path, LARGEST)
  if not r then return nil, why end
  local plan = { blank = {}, regions = {}, tracks = {}, input = {}, settings = {} }
  local function input_number(name, least) return function() plan.input[name] = r:number(least, 1e9, true) end end
  local function setting(name) return function() plan.settings[name] = r:string() end end
  local function setting_number(name, least, most) return function() plan.settings[name] = r:number(least, most) end end
  local ids = {}
  local function read_track(i)
    local track = tracks.new_track "face"
    r:object({
      id = function()
        track.id = r:number(1, 1e9, true)
        if ids[track.id] then r:fail(("%d stands twice"):format(track.id)) end
        ids[track.id] = true
      end,
      kind = function() track.kind = r:string() end,
      keep = function() track.keep = r:boolean() end,
      style = function()
        track.style = r:string()
        if not STYLES[track.style] then r:fail(("'%s', want blur, mosaic or box"):format(track.style)) end
      end,
      samples = function() read_samples(r, track, plan.input.frames or 1e9) end,
    }, { "id", "kind", "samples" })
    plan.tracks[i], track = track, nil
  end
  local ok, err = pcall(function()
    r:object({
      format = function()
        if r:string() ~= FORMAT then r:fail(("want \"%s\""):format(FORMAT)) end
      end,
      version = function() r:number(VERSION, VERSION, true) end,
      input = function()
        r:object({
          file = function() plan.input.file = r:string() end, sha256 = function() plan.input.sha256 = r:string() end,
          frames = input_number("frames", 0), width = input_number("width", 1), height = input_number("height", 1),
        }, { "frames", "width", "height" })
      end,
      settings = function()
        r:object({
          mask = setting "mask", style = function()
            plan.settings.style = r:string()
            if not STYLES[plan.settings.style] then r:fail(("'%s', want blur, mosaic or box"):format(plan.settings.style)) end
          end, margin = setting "margin", audio = setting "audio", detector = setting "detector", weights = setting "weights",
          encoder_preset = setting "encoder_preset", every = setting_number("every", 0, 60),
          feather = setting_number("feather", 0, 1000), strength = setting_number("strength", 0, 1), crf = setting_number("crf", 0, 51),
          confidence = setting_number("confidence", 0, 1), gap = setting_number("gap", 0, 1e6), lead = setting_number("lead", 0, 1e6),
        }, { "mask", "style", "margin" })
      end,
      blank = function()
        r:list(function(i) plan.blank[i] = r:number(1, plan.input.frames or 1e9, true) end)
      end,
      regions = function() plan.regions = read_regions(r) end,
      tracks = function() r:list(read_track) end,
    }, { "format", "version", "input", "settings", "tracks" })
    r:finish()
  end)
  if not ok then return nil, err end
  local whole = plan
  plan = nil -- as in read_samples
  return whole
end

return sidecar
