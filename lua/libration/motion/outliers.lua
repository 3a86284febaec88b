-- Removes jumps of single joints: positions that are left and entered faster than that joint ever moves. Fills nothing.

local statistics = require "libration.motion.statistics"

local outliers = {}

--- Marks outliers as missing. For each joint the speed between neighbouring frames has a median and a MAD; a run of at most
--- `longest` frames that is entered and left at more than median + threshold * 1.4826 * MAD becomes NaN.
---@param track Track changed in place
---@param options table? {threshold: number robust standard deviations, 0 = off (default); longest: integer frames, default 3}
---@return Track track
---@return integer removed number of joint positions removed
function outliers.remove(track, options)
  options = options or {}
  local threshold, longest = options.threshold or 0, options.longest or 3
  if threshold <= 0 then return track, 0 end
  local T, J, x = track.frames, track.joints, track.x
  local removed, nan = 0, 0 / 0
  for j = 0, J - 1 do
    local speeds, values = {}, {}
    for t = 1, T - 1 do
      local a, b = (t * J + j) * 2, ((t - 1) * J + j) * 2
      local dx, dy = x[a] - x[b], x[a + 1] - x[b + 1]
      local v = math.sqrt(dx * dx + dy * dy)
      speeds[t] = v -- speed into frame t, NaN beside a gap
      if v == v then values[#values + 1] = v end
    end
    if #values >= 5 then
      local median = statistics.median(values)
      local deviations = {}
      for i, v in ipairs(values) do deviations[i] = math.abs(v - median) end
      local spread = 1.4826 * statistics.median(deviations)
      local limit = median + threshold * math.max(spread, 1e-9 + .05 * median)
      local t = 1
      while t <= T - 1 do
        local step = 1
        if speeds[t] > limit then
          for last = t, math.min(t + longest - 1, T - 1) do
            -- the last frame of a track has no way out: the jump into it decides
            if last == T - 1 or speeds[last + 1] > limit then
              for k = t, last do
                x[(k * J + j) * 2], x[(k * J + j) * 2 + 1] = nan, nan
                removed = removed + 1
              end
              step = last - t + 2 -- the speed out of the run belongs to it
              break
            end
          end
        end
        t = t + step
      end
    end
  end
  return track, removed
end

return outliers
