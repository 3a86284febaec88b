-- Windows read straight from their sequences on a device: the rows of all sequences lie there once, a batch is a list of starts. Cuts none out on the host.
-- Windows:write is its slow twin.

local ffi = require "ffi"
local lr = require "libration"

local CENTRE = { none = 0, window = 1, unit = 2 }

---@class WindowReader
---@field count integer windows of all sets
local WindowReader = {}
WindowReader.__index = WindowReader

local function doubles(values, n, device)
  local t = lr.empty({ n }, "f64")
  local p = t:ptr()
  for i = 1, n do p[i - 1] = values[i] end
  return t:to(device)
end

--- A reader over sets of windows of one kind (length, numbers a frame, post-processing).
---@param sets Windows[]
---@param norm Normaliser
---@param mask boolean as of `Windows:write`
---@param device string?
---@return WindowReader
function WindowReader.new(sets, norm, mask, device)
  local first, base, rows = sets[1], {}, 0
  for _, set in ipairs(sets) do
    if set.length ~= first.length or set.size ~= first.size or set.post ~= first.post then error("window reader: the sets have windows of different kinds", 2) end
    for _, f in ipairs(set.sequences) do
      if not base[f] then
        base[f] = rows
        rows = rows + f.frames
      end
    end
  end
  local D, features = first.size, first.sequences[1]
  local all = lr.empty({ rows, D }, "f64")
  for f, at in pairs(base) do ffi.copy(all:ptr() + at * D, f.values, f.frames * D * 8) end
  local certainty = features.joint_weight
  return setmetatable({
    rows = all:to(device or "cpu"), base = base, device = device or "cpu",
    options = {
      window = first.length, groups = features.joints, mask = mask, centre = CENTRE[first.post], mean = doubles(norm.mean, D, device or "cpu"),
      sd = doubles(norm.sd, D, device or "cpu"), certainty = certainty and doubles(certainty, features.joints, device or "cpu"),
    },
  }, WindowReader)
end

--- Starts of windows of a set, as `read` takes them.
---@param set Windows one of the sets
---@param list integer[]? window numbers from 1, default all
---@return Tensor i32 [n] on the CPU
function WindowReader:starts(set, list)
  local n = list and #list or set.count
  local t = lr.empty({ n }, "i32")
  local p = t:ptr()
  for i = 1, n do
    local w = list and list[i] or i
    p[i - 1] = self.base[set.sequences[set.sequence[w]]] + set.start[w]
  end
  return t
end

--- Windows as the network takes them; may be recorded.
---@param starts Tensor i32 [B] on the reader's device
---@return Tensor x f32 [B,T,F]
---@return Tensor weight f32 [B,T,F]
function WindowReader:read(starts) return lr.windows(self.rows, starts, self.options) end

return WindowReader
