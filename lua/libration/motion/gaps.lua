-- Fills missing joints of a track, linearly or by Akima's spline. Gaps beyond the limit stay NaN.

local ffi = require "ffi"

local gaps = {}

--- Slopes at the knots of Akima's spline.
--- Source: Akima 1970, "A new method of interpolation and smooth curve fitting based on local procedures".
---@param t number[] times of the knots, ascending
---@param y number[] values
---@return number[] slopes
local function akima_slopes(t, y)
  local n = #t
  local m = {} -- slope of segment i stands at i + 2
  for i = 1, n - 1 do m[i + 2] = (y[i + 1] - y[i]) / (t[i + 1] - t[i]) end
  m[2] = 2 * m[3] - (m[4] or m[3])
  m[1] = 2 * m[2] - m[3]
  m[n + 2] = 2 * m[n + 1] - m[n]
  m[n + 3] = 2 * m[n + 2] - m[n + 1]
  local s = {}
  for i = 1, n do
    local before, after = math.abs(m[i + 3] - m[i + 2]), math.abs(m[i + 1] - m[i])
    if before + after > 1e-12 then
      s[i] = (before * m[i + 1] + after * m[i + 2]) / (before + after)
    else
      s[i] = .5 * (m[i + 1] + m[i + 2])
    end
  end
  return s
end

--- Value of Akima's spline between two knots.
---@param u number time
---@return number
local function hermite(t0, t1, y0, y1, s0, s1, u)
  local h = t1 - t0
  local a = (u - t0) / h
  local b, c = a * a, a * a * a
  return (2 * c - 3 * b + 1) * y0 + (c - 2 * b + a) * h * s0 + (3 * b - 2 * c) * y1 + (c - b) * h * s1
end

-- Fills one joint in place; `time` gives seconds or frames.
local function fill_joint(x, T, J, j, time, limit, akima)
  local seen = {}
  for t = 0, T - 1 do
    local v = x[(t * J + j) * 2]
    if v == v then seen[#seen + 1] = t end
  end
  if #seen == 0 then return false end
  for c = 0, 1 do
    local slopes, knots, values
    if akima and #seen >= 5 then
      knots, values = {}, {}
      for i, t in ipairs(seen) do knots[i], values[i] = time(t), x[(t * J + j) * 2 + c] end
      slopes = akima_slopes(knots, values)
    end
    local first, last = seen[1], seen[#seen]
    if first <= limit then
      for t = 0, first - 1 do x[(t * J + j) * 2 + c] = x[(first * J + j) * 2 + c] end
    end
    if T - 1 - last <= limit then
      for t = last + 1, T - 1 do x[(t * J + j) * 2 + c] = x[(last * J + j) * 2 + c] end
    end
    for i = 1, #seen - 1 do
      local a, b = seen[i], seen[i + 1]
      if b - a > 1 and b - a - 1 <= limit then
        local ta, tb = time(a), time(b)
        local ya, yb = x[(a * J + j) * 2 + c], x[(b * J + j) * 2 + c]
        local slope = (yb - ya) / (tb - ta)
        for t = a + 1, b - 1 do
          local u = time(t)
          if slopes then
            x[(t * J + j) * 2 + c] = hermite(ta, tb, ya, yb, slopes[i], slopes[i + 1], u)
          else
            x[(t * J + j) * 2 + c] = slope * (u - ta) + ya
          end
        end
      end
    end
  end
  return true
end

--- Fills gaps: between two seen frames by interpolation in time, beyond the ends with the nearest value. Runs of missing
--- frames longer than the limit stay NaN. Without a limit a joint that is never seen takes the mean of its frame.
---@param track Track changed in place
---@param options table? {method: "linear"|"akima"|"none", max_gap: number seconds, math.huge for no limit}
---@return Track track
---@return integer filled number of joint positions filled
function gaps.fill(track, options)
  options = options or {}
  local method = options.method or "linear"
  if method ~= "linear" and method ~= "akima" and method ~= "none" then
    error(("gaps: method is %q, want linear, akima or none"):format(tostring(method)), 2)
  end
  if method == "none" then return track, 0 end
  local T, J, x = track.frames, track.joints, track.x
  local max_gap = options.max_gap or 1
  local limit = max_gap == math.huge and T or math.floor(max_gap * track.fps + 1e-9)
  local before = gaps.missing(track)
  local times = track.times
  local function time(t) return times and times[t + 1] or t end
  local never = false
  for j = 0, J - 1 do
    if not fill_joint(x, T, J, j, time, limit, method == "akima") then never = true end
  end
  if never and max_gap == math.huge then
    for t = 0, T - 1 do
      for c = 0, 1 do
        local sum, n = 0, 0
        for j = 0, J - 1 do
          local v = x[(t * J + j) * 2 + c]
          if v == v then sum, n = sum + v, n + 1 end
        end
        if n > 0 then
          for j = 0, J - 1 do
            local at = (t * J + j) * 2 + c
            if x[at] ~= x[at] then x[at] = sum / n end
          end
        end
      end
    end
  end
  return track, before - gaps.missing(track)
end

--- Number of missing joint positions.
---@param track Track
---@return integer
function gaps.missing(track)
  local n, x = 0, track.x
  for i = 0, track.frames * track.joints - 1 do
    if x[2 * i] ~= x[2 * i] or x[2 * i + 1] ~= x[2 * i + 1] then n = n + 1 end
  end
  return n
end

--- A copy that shares nothing but names and times.
---@param track Track
---@return Track
function gaps.copy(track)
  local new = {}
  for k, v in pairs(track) do new[k] = v end
  local n = track.frames * track.joints * 2
  new.x = ffi.new("double[?]", n)
  ffi.copy(new.x, track.x, n * 8)
  return new
end

return gaps
