-- TRC: marker trajectories as OpenSim, Pose2Sim and Sports2D read them. Knows columns and units, not skeletons.
-- Source: https://opensimconfluence.atlassian.net/wiki/spaces/OpenSim/pages/53089970 (Marker (.trc) Files)
local files = require "libration.files"
local reader = require "libration.formats.reader"
local stream = require "libration.formats.stream"
local tensor = require "libration.tensor"

local M = {}

local FILE_LIMIT = 2 ^ 30
local LINE = 160 -- bytes of the line that is written again at the end, when frames and rate are known

local UNITS = { px = true, mm = true, m = true }

---@class TrcWriter a line a frame; the file appears under its name at close
local Writer = {}
Writer.__index = Writer

local function numbers(self, rate)
  local text = ("%.6g\t%.6g\t%d\t%d\t%s\t%.6g\t1\t%d"):format(rate, rate, self.frames, self.markers, self.units, rate, self.frames)
  return text .. (" "):rep(LINE - 1 - #text) .. "\n"
end

--- Begins a file. X points to the right, Y up, Z to the viewer: y (down) and z (away) of pictures change sign, and where the height of the picture is given
--- y counts from its lower edge.
---@param path string
---@param about {joints: string[], channels: integer a joint, units: "px"|"mm"|"m", factor: number? values are multiplied by it, height: number? of the picture,
---  depth: boolean? the third channel is z; else Z is 0}
---@return TrcWriter writer; raises one line where the folder cannot be written
function M.writer(path, about)
  if not UNITS[about.units] then error(("trc.writer: units are %q, want px, mm or m"):format(tostring(about.units)), 2) end
  local out = stream.begin(path)
  local self = setmetatable({
    out = out, markers = #about.joints, channels = about.channels, units = about.units, factor = about.factor or 1, height = about.height or 0, depth = about.depth,
    frames = 0,
  }, Writer)
  local head = ("PathFileType\t4\t(X/Y/Z)\t%s\n"):format(files.name(path))
    .. "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames\n"
  self.at = #head
  local names, axes = { "Frame#", "Time" }, { "", "" }
  for i, joint in ipairs(about.joints) do
    names[#names + 1] = joint .. "\t\t"
    axes[#axes + 1] = ("X%d\tY%d\tZ%d"):format(i, i, i)
  end
  out:write(head, numbers(self, 0), table.concat(names, "\t"), "\n", table.concat(axes, "\t"), "\n\n")
  return self
end

local function number(v) return ("%.7g"):format(v == 0 and 0 or v) end

--- Appends a frame; a missing joint has empty fields.
---@param values ffi.cdata* float[J*channels] x, y, z...: x to the right, y down, z away from the viewer
---@param time number seconds
function Writer:append(values, time)
  local cells, C, k = { ("%d\t%.6f"):format(self.frames + 1, time) }, self.channels, self.factor
  for j = 0, self.markers - 1 do
    local x, y, z = values[j * C], values[j * C + 1], self.depth and values[j * C + 2] or 0
    if x - x == 0 and y - y == 0 and z - z == 0 then
      cells[j + 2] = number(x * k) .. "\t" .. number((self.height - y) * k) .. "\t" .. number(-z * k)
    else
      cells[j + 2] = "\t\t"
    end
  end
  self.out:write(table.concat(cells, "\t"), "\n")
  self.frames = self.frames + 1
end

--- Fills in frames and rate, syncs and renames.
---@param rate number frames a second
---@return string path
function Writer:close(rate)
  self.out:patch(self.at, numbers(self, rate))
  return self.out:close()
end

--- Drops what was written.
function Writer:abort() self.out:abort() end

-- Fields of a line; a tab at the end makes no further one.
local function fields(line)
  local list = {}
  for field in (line .. "\t"):gmatch("([^\t]*)\t") do list[#list + 1] = field:match("^%s*(.-)%s*$") end
  return list
end

local function want_count(path, text, what, most)
  local n = tonumber(text or "")
  if not n or n < 1 or n % 1 ~= 0 or n > most then error(("%s: line 3: %s is '%s', want a whole number from 1 to %d"):format(path, what, tostring(text):sub(1, 40), most), 0) end
  return n
end

---@class TrcAbout
---@field joints string[]
---@field times number[] seconds
---@field rate number frames a second
---@field units string

local function parse(path)
  local text, err = files.read(path, FILE_LIMIT)
  if not text then error(err, 0) end
  if text:find("\0", 1, true) then error(path .. ": not a text file (it holds zero bytes)", 0) end
  local lines = {}
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do lines[#lines + 1] = (line:gsub("\r$", "")) end
  if not (lines[1] or ""):find("^PathFileType") then error(path .. ": line 1 does not begin with PathFileType: not a TRC file", 0) end
  if #lines < 6 then error(("%s: %d lines, want a header of five and frames"):format(path, #lines), 0) end
  local head = fields(lines[3])
  local rate, units = tonumber(head[1]), head[5]
  if not (rate and rate > 0 and rate < 1e6) then error(("%s: line 3: DataRate is '%s'"):format(path, tostring(head[1]):sub(1, 40)), 0) end
  if not UNITS[units or ""] then error(("%s: line 3: Units are '%s', want px, mm or m"):format(path, tostring(units):sub(1, 40)), 0) end
  local markers = want_count(path, head[4], "NumMarkers", 10000)
  local frames = want_count(path, head[3], "NumFrames", #lines)
  local names, joints = fields(lines[4]), {}
  for j = 1, markers do
    joints[j] = names[3 * j]
    if not joints[j] or joints[j] == "" then error(("%s: line 4: %d markers by line 3, but no name of marker %d"):format(path, markers, j), 0) end
  end
  local at = 6
  while lines[at] and lines[at]:find("^%s*$") do at = at + 1 end
  if #lines - at + 1 < frames then error(("%s: %d frames by line 3, but %d lines of them"):format(path, frames, math.max(0, #lines - at + 1)), 0) end
  local t, times = tensor.empty({ frames, markers, 3 }), {}
  local p = t:ptr()
  for i = 0, frames - 1 do
    local row = fields(lines[at + i])
    local time = tonumber(row[2] or "")
    if not time then error(("%s: line %d: no time"):format(path, at + i), 0) end
    if #row > 3 * markers + 3 then error(("%s: line %d has %d fields, want %d"):format(path, at + i, #row, 3 * markers + 2), 0) end
    times[i + 1] = time
    for k = 1, 3 * markers do
      local field = row[k + 2] or ""
      local v = field == "" and 0 / 0 or tonumber(field)
      if not v and field:lower() == "nan" then v = 0 / 0 end
      if not v then error(("%s: line %d: '%s' is not a number"):format(path, at + i, field:sub(1, 40)), 0) end
      p[i * 3 * markers + k - 1] = v
    end
  end
  return t, { joints = joints, times = times, rate = rate, units = units }
end

--- Reads a file as it stands: X, Y, Z in its units.
---@param path string
---@return Tensor? markers f32 [T,J,3]; NaN where fields are empty
---@return TrcAbout|string about or, with nil, the error in one line
function M.load(path)
  local ok, t, about = pcall(parse, path)
  if not ok then return nil, reader.one_line(t) end
  return t, about
end

return M
