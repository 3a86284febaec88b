-- Windows over the features of several sequences, and the normaliser fitted on them. No window straddles two sequences.

local ffi = require "ffi"

local Windows = {}
Windows.__index = Windows

---@class Windows
---@field sequences Features[]
---@field length integer T frames a window
---@field size integer D numbers a frame
---@field count integer N
---@field sequence integer[] of each window, position in `sequences`
---@field start integer[] of each window, first frame from 0

local POSTS = { window = true, none = true, unit = true }

-- A window is usable when no frame of it lacks the whole body and at least `min_seen` of its joint positions are there.
local function usable(f, start, T, min_seen)
  local per, J = f.per_joint, f.joints
  local seen = 0
  for t = start, start + T - 1 do
    local here = 0
    for j = 0, J - 1 do
      local v = f.values[t * f.size + j * per]
      if v == v then here = here + 1 end
    end
    if here == 0 then return false end
    seen = seen + here
  end
  return seen >= min_seen * T * J
end

--- Cuts windows out of each sequence.
---@param list Features[]
---@param options table? {window: integer frames, default 30; stride: integer, default 1; min_seen: number share of joint
--- positions, default 0.5; post: "window" (default: each window minus its own mean), "none" or "unit" (minus its mean,
--- divided by its SD + 0.02 torso lengths)}
---@return Windows
function Windows.of(list, options)
  options = options or {}
  local T, stride = options.window or 30, options.stride or 1
  if T < 2 or T % 1 ~= 0 then error(("windows: window is %s frames, want a whole number of at least 2"):format(tostring(T)), 2) end
  if stride < 1 or stride % 1 ~= 0 then error(("windows: stride is %s, want a whole number of at least 1"):format(tostring(stride)), 2) end
  local post = options.post or "window"
  if not POSTS[post] then error(("windows: post is %q, want window, none or unit"):format(tostring(post)), 2) end
  local self = setmetatable({
    sequences = list, length = T, stride = stride, post = post, sequence = {}, start = {}, count = 0,
    size = list[1] and list[1].size or 0, first = {}, number = {},
  }, Windows)
  for s, f in ipairs(list) do
    if f.size ~= self.size then
      error(("windows: sequence %d has %d features a frame, the first has %d"):format(s, f.size, self.size), 2)
    end
    self.first[s], self.number[s] = self.count + 1, 0
    for start = 0, f.frames - T, stride do
      if usable(f, start, T, options.min_seen or .5) then
        self.count = self.count + 1
        self.sequence[self.count], self.start[self.count] = s, start
        self.number[s] = self.number[s] + 1
      end
    end
  end
  self.scratch = ffi.new("double[?]", T * math.max(self.size, 1))
  return self
end

--- Writes window i, after the post-processing, before the normaliser.
---@param i integer from 1
---@param out ffi.cdata* double[T*D]; NaN where missing
function Windows:raw(i, out)
  local f, T, D = self.sequences[self.sequence[i]], self.length, self.size
  local from = f.values + self.start[i] * D
  if self.post == "none" then
    ffi.copy(out, from, T * D * 8)
    return
  end
  for d = 0, D - 1 do
    local sum, n = 0, 0
    for t = 0, T - 1 do
      local v = from[t * D + d]
      if v == v then sum, n = sum + v, n + 1 end
    end
    local mean = sum / n
    for t = 0, T - 1 do out[t * D + d] = from[t * D + d] - mean end
  end
  if self.post == "unit" then
    local sum, square, n = 0, 0, 0
    for k = 0, T * D - 1 do
      local v = out[k]
      if v == v then sum, square, n = sum + v, square + v * v, n + 1 end
    end
    local scale = math.sqrt(math.max(square / n - (sum / n) ^ 2, 0)) + .02
    for k = 0, T * D - 1 do out[k] = out[k] / scale end
  end
end

---@class Normaliser
---@field mean number[] D
---@field sd number[] D

--- Mean and population SD of each feature over all frames of all windows, the SD not below 1 % of the largest.
--- Fit it on training windows only.
---@param common boolean? one SD for all features, the root of their mean variance: keeps the amplitude of a window what it is
---@return Normaliser
function Windows:fit_normaliser(common)
  if self.count == 0 then error("normaliser: no windows to fit it on", 2) end
  local T, D = self.length, self.size
  local sum, n, square = ffi.new("double[?]", D), ffi.new("double[?]", D), ffi.new("double[?]", D)
  local w = self.scratch
  for i = 1, self.count do
    self:raw(i, w)
    for t = 0, T - 1 do
      for d = 0, D - 1 do
        local v = w[t * D + d]
        if v == v then sum[d], n[d] = sum[d] + v, n[d] + 1 end
      end
    end
  end
  for d = 0, D - 1 do sum[d] = n[d] > 0 and sum[d] / n[d] or 0 end
  for i = 1, self.count do
    self:raw(i, w)
    for t = 0, T - 1 do
      for d = 0, D - 1 do
        local v = w[t * D + d] - sum[d]
        if v == v then square[d] = square[d] + v * v end
      end
    end
  end
  local norm = { mean = {}, sd = {} }
  local largest = 0
  for d = 0, D - 1 do
    norm.mean[d + 1] = sum[d]
    norm.sd[d + 1] = n[d] > 0 and math.sqrt(square[d] / n[d]) or 0
    largest = math.max(largest, norm.sd[d + 1])
  end
  if largest <= 0 then error("normaliser: nothing moves in the training windows", 2) end
  local variance = 0
  for d = 1, D do variance = variance + norm.sd[d] ^ 2 / D end
  for d = 1, D do norm.sd[d] = common and math.sqrt(variance) or math.max(norm.sd[d], 1e-2 * largest) end
  return norm
end

--- Numbers a frame as the network takes them.
---@param mask boolean whether each joint also carries its mask
---@return integer F
function Windows:width(mask)
  local f = self.sequences[1]
  if not f then error("windows: no sequences", 2) end
  return mask and self.size + f.joints or self.size
end

--- Writes windows as the network takes them: z-scored, missing numbers 0; with `mask`, after the numbers of each joint
--- 0 where it is seen and -1 where not. The weights are 1 for numbers that count in loss and score (or what the features' `joint_weight` says of their joint), else 0.
---@param list integer[] window numbers from 1
---@param norm Normaliser
---@param mask boolean
---@param x ffi.cdata* float[#list*T*F] out
---@param weight ffi.cdata* float[#list*T*F] out
function Windows:write(list, norm, mask, x, weight)
  local T, D = self.length, self.size
  local per = #self.sequences > 0 and self.sequences[1].per_joint or 2
  local joints = D / per
  local F = mask and D + joints or D
  local mean, sd = norm.mean, norm.sd
  local w = self.scratch
  for k = 1, #list do
    self:raw(list[k], w)
    local certain = self.sequences[self.sequence[list[k]]].joint_weight
    for t = 0, T - 1 do
      local to = ((k - 1) * T + t) * F
      local from = t * D
      for j = 0, joints - 1 do
        local seen = true
        for c = 0, per - 1 do
          local d = j * per + c
          local v = (w[from + d] - mean[d + 1]) / sd[d + 1]
          if v == v then
            x[to], weight[to] = v, certain and certain[j + 1] or 1
          else
            x[to], weight[to] = 0, 0
            seen = false
          end
          to = to + 1
        end
        if mask then
          x[to], weight[to] = seen and 0 or -1, 0
          to = to + 1
        end
      end
    end
  end
end

--- Window numbers of one sequence.
---@param s integer position of the sequence from 1
---@return integer[] window numbers
function Windows:of_sequence(s)
  local list = {}
  for i = 1, self.number[s] or 0 do list[i] = self.first[s] + i - 1 end
  return list
end

return Windows
