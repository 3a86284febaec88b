-- Renders the embedded default data set: infants on their backs, normal and abnormal movement, with exact joints.
local here = arg and arg[0] and arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. package.path
local options = require "libration.options"
local movement = require "libration.data.infant_movement"

local about = "Renders infants on their backs in the layout of MINI-RGBD: DIR/01/rgb/syn_00000.png, DIR/01/joints_2Ddep/syn_joints_2Ddep_00000.txt\n" ..
  "(x y depth id a line: pixels, metres), DIR/labels.csv (1 = abnormal). A render that was cut short goes on where it stopped."

-- "12:burst,7:tremor" -> {[12] = "burst", [7] = "tremor"}
local function abnormal_of(list)
  local kinds = {}
  for _, item in ipairs(list) do
    local index, kind = item:match("^(%d+):([%a-]+)$")
    if not index then return nil, ("'%s' is not SEQUENCE:KIND, as in 12:burst"):format(item) end
    if kind == "normal" or not movement.kinds[kind] then return nil, ("no kind '%s'; there are %s"):format(kind, table.concat(movement.names(), ", ", 2)) end
    if kinds[tonumber(index)] then return nil, ("sequence %s stands twice"):format(index) end
    kinds[tonumber(index)] = kind
  end
  return kinds
end

local function size_of(text)
  local width, height = require("libration.data.rows").size_of(text)
  if not width or width < 64 or height < 64 or width > 4096 or height > 4096 then return nil, "want WIDTHxHEIGHT of 64 to 4096 pixels, as in 320x240" end
  return width, height
end

local rows = {
  {"output", "infants", "folder for the sequences, made when missing", metavar = "DIR"},
  {"sequences", 12, "how many", min = 1, max = 99},
  {"frames", 200, "frames a sequence, 25 a second", min = 2, max = 99999},
  {"size", "320x240", "of the pictures", metavar = "WxH", check = size_of},
  {"seed", 1, "of bodies, looks and movement; the same seed gives the same pictures", min = 0, max = 4294967295},
  {"abnormal", {"12:burst"}, "which sequences move abnormally and how: " .. table.concat(movement.names(), ", ", 2) .. "; none: 'none'",
    of = "string", metavar = "SEQUENCE:KIND,...", check = function(list)
      if #list == 1 and list[1] == "none" then return true end
      return abnormal_of(list)
    end},
  {"match", "simulated", "what the abnormal sequences' mean joint speed is matched by: simulated landmarks, or landmarks found in the pictures, which are " ..
    "rendered anew until within 5 % of the normals' median (some seconds a sequence)", choices = {"simulated", "landmarks"}},
  {"threads", 0, "processor threads; 0: all cores", min = 0},
}

local settings, given = options.parse("render", about, rows)

options.main(function()
  local core, infant, progress = require "libration.core", require "libration.data.infant", require "libration.progress"
  core.threads(settings.threads)
  local width, height = size_of(settings.size)
  local abnormal = #settings.abnormal == 1 and settings.abnormal[1] == "none" and {} or abnormal_of(settings.abnormal)
  if not given.abnormal and settings.sequences < 12 then abnormal = {} end
  local bar = progress.new {label = "render", total = settings.sequences * settings.frames, unit = "frames"}
  local set = {
    sequences = settings.sequences, frames = settings.frames, width = width, height = height, seed = settings.seed, abnormal = abnormal,
    step = function(frames) bar:add(frames) end,
  }
  local sequences = infant.write(settings.output, set)
  bar:finish()
  if settings.match == "landmarks" then
    require "libration"
    local how = require("libration.data.landmarks").settings {
      model = "full", precision = "f32", smooth = "one-euro", person = "best", fps = 0, cache = true, threads = settings.threads, weights = "",
    }
    require("libration.data.infant_match").apply(settings.output, sequences, set, how, function(row, measured, target, renders)
      print(("%s %s: mean joint speed %.3f torso lengths/s as BlazePose measures it, the normals' median %.3f, rendered %d time%s"):format(
        row.id, row.kind, measured, target, renders, renders == 1 and "" or "s"))
    end)
  end
  local speeds, order = {}, {}
  for _, s in ipairs(sequences) do
    if not speeds[s.kind] then
      speeds[s.kind] = {n = 0, sum = 0, clean = 0}
      order[#order + 1] = s.kind
    end
    local kind = speeds[s.kind]
    kind.n, kind.sum, kind.clean = kind.n + 1, kind.sum + s.speed, kind.clean + s.clean
  end
  for _, name in ipairs(order) do
    local kind = speeds[name]
    print(("%-12s %2d sequences, mean joint speed %.3f torso lengths/s as a landmarker measures it, %.3f without its noise"):format(
      name, kind.n, kind.sum / kind.n, kind.clean / kind.n))
  end
  print(settings.output)
end)
