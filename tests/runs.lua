-- Recipes run as a user runs them and ended by force: what lies in a folder, whether it is whole, what of it are results. For specs that kill, fill disks and resume.
local csv = require "libration.formats.csv"
local files = require "libration.files"
local json = require "libration.formats.json"
local lr = require "libration"
local npy = require "libration.formats.npy"
local safetensors = require "libration.formats.safetensors"
local shell = require "shell"

local M = {}

---A folder's tree as a list of paths; locks, hidden files and empty folders are no output.
---@return string[]
function M.tree(path, prefix, out)
  out = out or {}
  for _, name in ipairs(files.list(path) or {}) do
    local inner = files.join(path, name)
    if files.is_folder(inner) then
      M.tree(inner, (prefix or "") .. name .. "/", out)
    else
      out[#out + 1] = (prefix or "") .. name
    end
  end
  return out
end

---Hidden files that a writer left: temporary names (a lock file may stay).
---@return string text of `find`, "" where there is none
function M.leftovers(path)
  return (shell(("find %s -name '.tmp-*' -o -name '*.part' -o -name '.*.partial'"):format(files.quote(path))))
end

-- What a bar or the log says while work goes on, and warnings: not the error.
local function is_progress(line)
  return line:find "^[%w%-_ ]+: %d+[/ ]" or line:find "^warning: " or line:find "^epoch " or line:find "^device: " or line:find "%.mp4: [%a ]+ing: %d"
    or line:find "%.onnx: read as " or line:find "%.mp4: %d+ of %d+ frames masked"
end

---@param text string what a recipe said on stderr
---@return string[] lines that are errors
function M.errors_of(text)
  local out = {}
  for line in text:gmatch "[^\n]+" do
    if not is_progress(line) then out[#out + 1] = line end
  end
  return out
end

---Landmarks of a body that sways in its own way, BlazePose's layout.
function M.body(path, frames, seed)
  local points, r = lr.zeros { frames, 33, 5 }, lr.randn({ 33, 4 }, { seed = seed }):ptr()
  local p = points:ptr()
  for t = 0, frames - 1 do
    for j = 0, 32 do
      local at = (t * 33 + j) * 5
      p[at] = 150 + 6 * (j % 7) + 6 * math.sin((.31 + .05 * r[4 * j]) * t + 3 * r[4 * j + 1])
      p[at + 1] = 60 + 4 * j + 5 * math.cos((.23 + .05 * r[4 * j + 2]) * t + 3 * r[4 * j + 3])
      p[at + 3], p[at + 4] = .9, .9
    end
  end
  npy.save(path, points)
end

---OpenPose-18 key points of a body that sways with this speed.
function M.body18(path, frames, seed, speed)
  local points = lr.zeros { frames, 18, 3 }
  local p = points:ptr()
  for t = 0, frames - 1 do
    for j = 0, 17 do
      local at = (t * 18 + j) * 3
      local a = (j == 4 or j == 7 or j == 10 or j == 13) and 12 or 2
      p[at] = 160 + 14 * (j % 5) + a * math.sin(speed * .3 * t + j + seed)
      p[at + 1] = 60 + 6 * j + a * math.cos(speed * .23 * t + 2 * j + 3 * seed)
      p[at + 2] = .9
    end
  end
  npy.save(path, points)
end

local READ = {
  npy = npy.load, safetensors = safetensors.load, csv = csv.read, json = function(path) return json.decode(assert(files.read(path))) end,
  png = function(path) return require "libration.media".read_picture(path) end,
  html = function(path) return assert(files.read(path)):find("</html>%s*$") end,
  svg = function(path) return assert(files.read(path)):find("</svg>%s*$") end,
  txt = function(path) return assert(files.read(path)):find("\n$") end,
  log = function(path) return assert(files.read(path)):find("\n$") or files.size(path) == 0 end,
  mp4 = function(path) return require "libration.media".open(path) end,
}

---Raises where a file under a final name cannot be read whole.
---@return integer files
function M.whole(folder)
  local list = M.tree(folder)
  for _, name in ipairs(list) do
    local read = READ[name:match "%.(%w+)$"] or error("what is " .. name)
    local ok, why = read(files.join(folder, name))
    if not ok then error(("%s is not whole: %s"):format(name, tostring(why)), 0) end
  end
  return #list
end

local TIMES = { frames_per_second = true, peak_memory_cpu = true, seconds = true, timings = true, cached = true }

local function timeless(v)
  if type(v) ~= "table" then return v end
  local out = {}
  for k, inner in pairs(v) do
    if not TIMES[k] then out[k] = timeless(inner) end
  end
  return out
end

-- Without a time, a rate or the folder's own name in them.
local NOT_COMPARED = { ["last.safetensors"] = true, ["run.json"] = true, ["done.json"] = true, ["summary.csv"] = true }

---What of a folder must be the same whenever it was made: a checksum by path. Logs, pages and their texts tell times and are left out.
---@return table<string, string>
function M.results(folder)
  local out = {}
  for _, name in ipairs(M.tree(folder)) do
    local path, ending = files.join(folder, name), name:match "%.(%w+)$"
    if ending == "json" and not NOT_COMPARED[files.name(name)] then
      out[name] = json.encode(timeless(json.decode(assert(files.read(path)))))
    elseif (ending == "npy" or ending == "safetensors" or ending == "csv") and not NOT_COMPARED[files.name(name)] then
      out[name] = assert(files.sha256(path))
    end
  end
  return out
end

---Starts a command and kills it after so many seconds.
---@return boolean killed false where it had ended by itself
function M.kill_after(command, seconds)
  local text = shell(("%s >/dev/null 2>&1 & pid=$!; sleep %.3f; kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null; echo \"ended $?\""):format(command, seconds))
  return text:find("ended 137", 1, true) ~= nil
end

---Kills a command at `count` moments of its life (a run that had ended by then does not count), runs it again to the end each time, and compares with a run that nobody disturbed.
---@param command fun(output: string): string
---@param folder string scratch
---@param count integer
---@param seed integer of the moments
---@return table {killed=, finished= before the kill, files= that were whole after kills, compared=, seconds= of the whole run}
function M.kill_and_repeat(command, folder, count, seed)
  local clock = require "libration.progress".clock
  local line = command(folder .. "/undisturbed") -- may make its inputs
  local begin = clock()
  local text, code = shell(line)
  if code ~= 0 then error(text, 0) end
  local sum = { killed = 0, finished = 0, files = 0, compared = 0, seconds = clock() - begin }
  local want = M.results(folder .. "/undisturbed")
  for _ in pairs(want) do sum.compared = sum.compared + 1 end
  local i = 0
  while sum.killed < count do -- a moment after the end is no kill
    i = i + 1
    if sum.finished > 3 * count then error(("%d runs of %d ended before they were killed"):format(sum.finished, i), 0) end
    local torn = folder .. "/torn"
    seed = seed * 16807 % 2147483647
    local moment = (.05 + .95 * seed / 2147483647) * sum.seconds
    local killed = M.kill_after(command(torn), moment)
    sum[killed and "killed" or "finished"] = sum[killed and "killed" or "finished"] + 1
    sum.files = sum.files + M.whole(torn)
    text, code = shell(command(torn))
    if code ~= 0 then error(("kill %d after %.2f s: the run after it ended with %d: %s"):format(i, moment, code, text), 0) end
    local left, have = M.leftovers(torn), M.results(torn)
    if left ~= "" then error("left behind: " .. left, 0) end
    for name, digest in pairs(want) do
      if have[name] ~= digest then error(("kill %d after %.2f s: %s is %s"):format(i, moment, name, have[name] and "another" or "missing"), 0) end
    end
    for name in pairs(have) do
      if not want[name] then error(("kill %d after %.2f s: %s is one too many"):format(i, moment, name), 0) end
    end
    files.remove(torn)
  end
  return sum
end

return M
