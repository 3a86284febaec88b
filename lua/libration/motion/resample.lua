-- Brings a track to evenly spaced frames at a common rate, linearly in time. A frame beside a gap stays NaN.

local ffi = require "ffi"

local resample = {}

--- Resamples when the rate differs by more than 1 % or the frame times are uneven; otherwise gives the track back as it is.
---@param track Track
---@param options table? {rate: number frames per second, nil = the track's own; max_jump: number seconds, default 1:
--- between two frames further apart than this nothing is interpolated}
---@return Track track a new one, or the same
---@return boolean changed
function resample.to_rate(track, options)
  options = options or {}
  local rate = options.rate or track.fps
  if not (rate > 0 and rate < 1e6) then error(("resample: rate is %s frames per second"):format(tostring(rate)), 2) end
  local T, J, times = track.frames, track.joints, track.times
  local uneven = false
  if times then
    local step = 1 / track.fps
    for t = 1, T do
      if times[t] ~= times[t] or (t > 1 and times[t] <= times[t - 1]) then
        error(("sequence %s: time of frame %d is %s, want rising seconds"):format(tostring(track.id), t - 1, tostring(times[t])), 2)
      end
      if math.abs(times[t] - times[1] - (t - 1) * step) > .25 * step then uneven = true end
    end
  end
  if math.abs(rate - track.fps) <= .01 * track.fps and not uneven then return track, false end
  local function time(t) return times and times[t + 1] - times[1] or t / track.fps end
  local duration = time(T - 1)
  local n = math.floor(duration * rate + 1e-6) + 1
  if n > 1e8 then error(("sequence %s: %g frames after resampling"):format(tostring(track.id), n), 2) end
  local jump = math.max(options.max_jump or 1, 2.5 / track.fps)
  local x, y = track.x, ffi.new("double[?]", n * J * 2)
  local a, nan = 0, 0 / 0
  for i = 0, n - 1 do
    local u = math.min(i / rate, duration)
    while a < T - 2 and time(a + 1) <= u do a = a + 1 end
    local b = math.min(a + 1, T - 1)
    local ta, tb = time(a), time(b)
    local f = b > a and (u - ta) / (tb - ta) or 0
    for k = 0, J * 2 - 1 do
      local va, vb = x[a * J * 2 + k], x[b * J * 2 + k]
      if f <= 1e-6 then
        y[i * J * 2 + k] = va
      elseif f >= 1 - 1e-6 then
        y[i * J * 2 + k] = vb
      elseif tb - ta > jump then
        y[i * J * 2 + k] = nan
      else
        y[i * J * 2 + k] = va + (vb - va) * f
      end
    end
  end
  local new = {}
  for k, v in pairs(track) do new[k] = v end
  new.frames, new.x, new.fps, new.times, new.start = n, y, rate, nil, times and times[1] or 0
  return new, true
end

return resample
