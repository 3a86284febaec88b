-- How steady landmarks are: the landmark network looks again at crops that are shifted and scaled by less than a pixel, and each joint's answers are compared.
-- A joint whose place hangs on a fraction of a pixel is not known better than that. Deterministic; tracks and smooths nothing.
local ffi = require "ffi"
local tensor = require "libration.tensor"
local skeletons = require "libration.pose.skeletons"

local stability = {}

local J = 33
-- Shifts of the crop in its own pixels (256 a side), and its size against the one that was used.
local JITTERS = { { .5, .25, 1 }, { -.25, .5, 1 }, { -.5, -.25, 1.005 }, { .25, -.5, .995 } }
--- Landmark-network runs a sampled frame.
stability.RUNS = #JITTERS + 1
--- Numbers a sampled frame: frame from 1, torso length in pixels, then each joint's root mean square distance from the unshifted answer, pixels.
stability.COLUMNS = 2 + J

local Stability = {}
Stability.__index = Stability

--- Begins; every so many frames that show somebody one is looked at.
---@param every integer
---@return Stability
function stability.new(every)
  return setmetatable({ every = every, rows = {}, waiting = 0, rect = ffi.new("float[5]"), base = ffi.new("double[?]", 2 * J), sums = ffi.new("double[?]", J) }, Stability)
end

--- Takes the frame that the landmarker has just processed, where its turn has come.
---@param frame Tensor u8 [H,W,3] RGB, the one it was
---@param number integer of the frame from 1
---@param landmarker Landmarker
function Stability:take(frame, number, landmarker)
  if self.waiting > 0 then
    self.waiting = self.waiting - 1
    return
  end
  local h, w, rect, base, sums = frame:size(1), frame:size(2), self.rect, self.base, self.sums
  local from = ffi.new("float[5]")
  ffi.copy(from, landmarker.rect, 20)
  local pose = landmarker:mark(nil, from)
  if not pose then return end
  for j = 0, J - 1 do
    base[2 * j], base[2 * j + 1], sums[j] = pose.landmarks[5 * j] * w, pose.landmarks[5 * j + 1] * h, 0
  end
  local function between(a, b, c) return (base[2 * a + c] + base[2 * b + c]) / 2 end
  local torso = math.sqrt((between(11, 12, 0) - between(23, 24, 0)) ^ 2 + (between(11, 12, 1) - between(23, 24, 1)) ^ 2)
  for _, jitter in ipairs(JITTERS) do
    ffi.copy(rect, from, 20)
    rect[0], rect[1] = from[0] + jitter[1] * from[2] / 256, from[1] + jitter[2] * from[3] / 256
    rect[2], rect[3] = from[2] * jitter[3], from[3] * jitter[3]
    pose = landmarker:mark(nil, rect)
    for j = 0, J - 1 do
      -- a person who is lost by a fraction of a pixel is as uncertain as a torso is long
      local dx, dy = torso, 0
      if pose then dx, dy = pose.landmarks[5 * j] * w - base[2 * j], pose.landmarks[5 * j + 1] * h - base[2 * j + 1] end
      sums[j] = sums[j] + dx * dx + dy * dy
    end
  end
  local row = { number, torso }
  for j = 0, J - 1 do row[j + 3] = math.sqrt(sums[j] / #JITTERS) end
  self.rows[#self.rows + 1] = row
  self.waiting = self.every - 1
end

--- What was taken.
---@return Tensor samples f32 [n, stability.COLUMNS]
function Stability:samples()
  local t = tensor.empty({ #self.rows, stability.COLUMNS })
  local p = t:ptr()
  for i, row in ipairs(self.rows) do
    for k, v in ipairs(row) do p[(i - 1) * stability.COLUMNS + k - 1] = v end
  end
  return t
end

---@class LandmarkStability
---@field every integer frames from one that was looked at to the next
---@field frames integer that were looked at
---@field joints {joint: string, pixels: number, torso: number}[] medians over these frames of a joint's uncertainty: pixels, torso lengths

local function median(values)
  table.sort(values)
  local n = #values
  return n % 2 == 1 and values[(n + 1) / 2] or (values[n / 2] + values[n / 2 + 1]) / 2
end

--- The uncertainty of each joint of a recording.
---@param samples Tensor as of `samples`
---@param every integer
---@return LandmarkStability|nil nil where no frame was looked at
function stability.summary(samples, every)
  local n, p = samples:size(1), samples:ptr()
  if n == 0 then return nil end
  local out = { every = every, frames = n, joints = {} }
  for j, name in ipairs(skeletons.blazepose33.joints) do
    local pixels, torso = {}, {}
    for i = 0, n - 1 do
      local row = p + i * stability.COLUMNS
      pixels[i + 1], torso[i + 1] = row[j + 1], row[j + 1] / math.max(row[1], 1e-6)
    end
    out.joints[j] = { joint = name, pixels = median(pixels), torso = median(torso) }
  end
  return out
end

--- Weights for scores: 1 / (1 + (u / u0)^2) of a joint whose uncertainty is u torso lengths.
---@param s LandmarkStability
---@param u0? number torso lengths at which a joint counts half, default .05
---@return table<string, number> by joint
function stability.weights(s, u0)
  local out = {}
  for _, row in ipairs(s.joints) do out[row.joint] = 1 / (1 + (row.torso / (u0 or .05)) ^ 2) end
  return out
end

--- Writes stability.csv: a row a joint.
---@param path string
---@param s LandmarkStability
---@return string path
function stability.write(path, s)
  local rows = {}
  for i, row in ipairs(s.joints) do rows[i] = { row.joint, row.pixels, row.torso, s.frames } end
  return require("libration.formats.csv").save(path, { "joint", "pixels", "torso_lengths", "frames" }, rows, "%.6g")
end

return stability
