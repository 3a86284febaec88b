-- How the rendered infant moves: drives for its 14 joint angles by kind of movement, and the gain that gives a wanted speed. No pictures here.

local movement = {}

local exp, cos, sin, sqrt, log, pi = math.exp, math.cos, math.sin, math.sqrt, math.log, math.pi

--- Kinds of movement, a row each; every field departs from the normal row.
--   clock {strength, lowest, highest Hz}: each limb's time runs fast and slow (holds and rushes)
--   shared: correlation of all limbs with one drive                 stiff: amplitude of one side's arm and leg
--   tremor {amplitude, lowest, highest Hz}: added to every angle
--   seen: speed that BlazePose measures on the pictures over what movement.speed says with landmark noise: geometric mean without the top and bottom
--   tenth of 71 normal sequences and 13 or 14 of each other kind (seeds 1, 2, 3, 5, 11-20; SD of the logarithm .10 to .24): knees of slow legs wander;
--   tremor, which the landmarker's filter cuts now more, now less: the factor at which 35 sequences (seeds to 37) are as often faster as slower than normals
movement.kinds = {
  normal = {seen = 1.02},
  burst = {clock = {1.5, 0.3, 2}, seen = 1.07},
  synchronised = {shared = 0.9, seen = 1.05},
  ["one-sided"] = {stiff = 0.15, seen = 1.05},
  tremor = {tremor = {0.12, 3, 5}, seen = 1.13},
}

--- Names of the kinds, normal first.
---@return string[]
function movement.names()
  local names = {}
  for name in pairs(movement.kinds) do
    if name ~= "normal" then names[#names + 1] = name end
  end
  table.sort(names)
  table.insert(names, 1, "normal")
  return names
end

-- Angles: right arm, left arm, right leg, left leg x (in plane, out of plane, flexion), head, trunk.
movement.ANGLES = 14
local LIMB_OF = {1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5}
local SPREAD = {25, 20, 30, 25, 20, 30, 25, 20, 30, 25, 20, 30, 20, 5}   -- degrees, before the gain

-- A Gaussian signal of unit variance, amplitude ~ f^-slope in [lo, hi] Hz, as a function of time; it repeats after `period` seconds.
local function band(rng, period, lo, hi, slope)
  local first, last = math.max(1, math.ceil(lo * period)), math.floor(hi * period)
  if last < first then last = first end
  local a, b, power = {}, {}, 0
  for k = first, last do
    local amplitude = (k / first) ^ -slope
    a[k], b[k] = amplitude * rng:normal(), amplitude * rng:normal()
    power = power + amplitude * amplitude
  end
  local scale, base = 1 / sqrt(power), 2 * pi / period
  return function(t)
    local s, c, ds, dc, sum = sin(base * first * t), cos(base * first * t), sin(base * t), cos(base * t), 0
    for k = first, last do
      sum = sum + a[k] * c + b[k] * s
      s, c = s * dc + c * ds, c * dc - s * ds
    end
    return sum * scale
  end
end

-- Times at which a limb is, frame by frame: the plain clock, or one that holds and rushes with the same mean rate.
local function clock_of(rng, row, frames, fps)
  local times, total = {}, 0
  if not row then
    for t = 1, frames do times[t] = (t - 1) / fps end
    return times
  end
  local rate = band(rng, 4 * frames / fps, row[2], row[3], 0.5)
  for t = 1, frames do
    times[t] = total
    total = total + exp(row[1] * rate((t - 1) / fps))
  end
  for t = 1, frames do times[t] = times[t] * (frames / fps) / total end
  return times
end

--- Drives: one signal an angle, about unit variance.
---@param rng table a stream of dice
---@param kind string a row of movement.kinds
---@param frames integer
---@param fps number
---@return number[][] drives [14][frames]
function movement.drives(rng, kind, frames, fps)
  local row = movement.kinds[kind]
  if not row then error(("no movement %q; there are %s"):format(tostring(kind), table.concat(movement.names(), ", ")), 2) end
  local period, high = 4 * frames / fps, rng:uniform(1, 2)
  local common = band(rng, period, 0.1, high, 1)
  local limb, wax, clock, sign = {}, {}, {}, {}
  for l = 1, 5 do
    limb[l] = band(rng, period, 0.1, high, 1)
    wax[l] = band(rng, period, 0.03, 0.2, 0.5)
    clock[l] = clock_of(rng, row.clock, frames, fps)
  end
  for k = 1, 3 do sign[k] = rng:uniform() < 0.5 and -1 or 1 end
  local still = row.stiff and rng:pick(2)
  local drives = {}
  for i = 1, movement.ANGLES do
    local l = LIMB_OF[i]
    local own = band(rng, period, 0.1, high, 1)
    local shiver = row.tremor and band(rng, period, row.tremor[2], row.tremor[3], 0)
    local d = {}
    for t = 1, frames do
      local at = clock[l][t]
      local x = own(at)
      if row.shared and i <= 13 then
        x = sqrt(1 - row.shared) * x + sqrt(row.shared) * common(at) * (l <= 4 and sign[(i - 1) % 3 + 1] or 1)
      elseif l <= 4 then
        x = sqrt(0.5) * x + sqrt(0.5) * limb[l](at)
      end
      local loud = exp(0.5 * wax[l]((t - 1) / fps))
      x = x * loud
      if still and l <= 4 and (l - 1) % 2 + 1 == still then x = x * row.stiff end
      if shiver then x = x + row.tremor[1] * sqrt(loud) * shiver((t - 1) / fps) end
      d[t] = x
    end
    drives[i] = d
  end
  return drives
end

--- Excursions of the angles under a gain, softly limited to three times their spread.
---@param drives number[][] [14][frames]
---@param gain number
---@param t integer frame, from 1
---@param out number[] 14 radians, written
---@return number[] out
function movement.angles(drives, gain, t, out)
  for i = 1, movement.ANGLES do
    local d = drives[i][t]
    local e = exp(-2 * math.abs(d) / 3)
    local bounded = 3 * (1 - e) / (1 + e)
    out[i] = gain * math.rad(SPREAD[i]) * (d < 0 and -bounded or bounded)
  end
  return out
end

--- A landmarker's errors: half the variance white, half first order with .9 from frame to frame.
---@param rng table a stream of dice
---@param frames integer
---@param joints integer
---@param pixels number standard deviation of x and of y
---@return number[] noise [frames * joints * 2], x before y
function movement.landmark_noise(rng, frames, joints, pixels)
  local n, noise, slow = joints * 2, {}, {}
  local half, step = pixels * sqrt(0.5), sqrt(1 - 0.81)
  for i = 1, n do slow[i] = rng:normal() end
  for t = 1, frames do
    for i = 1, n do
      if t > 1 then slow[i] = 0.9 * slow[i] + step * rng:normal() end
      noise[(t - 1) * n + i] = half * (slow[i] + rng:normal())
    end
  end
  return noise
end

-- The points of which speed is measured, in this order: nose, elbows, wrists, knees, ankles, then the torso's shoulders and hips.
local MOVING, TORSO = 9, 4
movement.POINTS = MOVING + TORSO

-- Side of the square that BlazePose looks at, in torso lengths of the rendered infant (measured).
local SIGHT = 4.3

-- What MediaPipe's One-Euro filter makes of a point's coordinate, in place: x [frames] every `stride`-th number from `first`.
-- Source: Casiez et al. 2012; constants of pose_landmark_filtering.pbtxt.
local function one_euro(x, first, stride, frames, fps, scale)
  local factor = 1 / (1 + fps / (2 * pi * 1))
  local last, value, slope = x[first], x[first], 0
  for t = 1, frames - 1 do
    local at = first + t * stride
    local raw = x[at]
    slope = slope + factor * ((raw - last) * scale * fps - slope)
    local cutoff = 0.05 + 80 * math.abs(slope)
    value = value + (raw - value) / (1 + fps / (2 * pi * cutoff))
    last, x[at] = raw, value
  end
end

--- Mean speed of nose, elbows, wrists, knees and ankles, relative to the centre of the torso. With noise: as a landmarker measures it, whose errors are
--- added and whose output is smoothed as BlazePose's.
---@param points number[] [frames * 13 * 2] pixels: nose, elbows, wrists, knees, ankles, left and right shoulder, left and right hip
---@param frames integer at least 2
---@param fps number
---@param noise? number[] of the same layout
---@return number speed torso lengths a second (the median of mid shoulders to mid hips)
function movement.speed(points, frames, fps, noise)
  local n = movement.POINTS * 2
  local x, torso, sum = {}, {}, 0
  for i = 1, frames * n do x[i] = points[i] + (noise and noise[i] or 0) end
  if noise then
    local s = 2 * MOVING
    local ux, uy = (points[s + 1] + points[s + 3] - points[s + 5] - points[s + 7]) / 2, (points[s + 2] + points[s + 4] - points[s + 6] - points[s + 8]) / 2
    local scale = 1 / (SIGHT * sqrt(ux * ux + uy * uy))
    for i = 1, n do one_euro(x, i, n, frames, fps, scale) end
  end
  for t = 0, frames - 1 do
    local s = t * n + 2 * MOVING
    local cx, cy = (x[s + 1] + x[s + 3] + x[s + 5] + x[s + 7]) / 4, (x[s + 2] + x[s + 4] + x[s + 6] + x[s + 8]) / 4
    local ux, uy = (x[s + 1] + x[s + 3] - x[s + 5] - x[s + 7]) / 2, (x[s + 2] + x[s + 4] - x[s + 6] - x[s + 8]) / 2
    torso[t + 1] = sqrt(ux * ux + uy * uy)
    for j = 0, MOVING - 1 do
      local at = t * n + 2 * j
      x[at + 1], x[at + 2] = x[at + 1] - cx, x[at + 2] - cy
      if t > 0 then
        local dx, dy = x[at + 1] - x[at - n + 1], x[at + 2] - x[at - n + 2]
        sum = sum + sqrt(dx * dx + dy * dy)
      end
    end
  end
  table.sort(torso)
  local middle = (torso[math.floor((frames + 1) / 2)] + torso[math.floor(frames / 2) + 1]) / 2
  return sum / (MOVING * (frames - 1)) * fps / middle
end

--- Gain at which `measure(gain)` is within a thousandth of a target, by bisection; the nearer end where it cannot be reached.
---@param measure fun(gain: number): number rising
---@param target number
---@return number gain
function movement.match(measure, target)
  local lo, hi, middle = 0.02, 6, nil
  for _ = 1, 20 do
    middle = sqrt(lo * hi)
    local reached = measure(middle)
    if math.abs(reached - target) < 0.001 * target then break end
    if reached < target then lo = middle else hi = middle end
  end
  return middle
end

-- Inverse error function; source: Winitzki 2008.
local function inverse_erf(y)
  local a, l = 0.147, log(1 - y * y)
  local t = 2 / (pi * a) + l / 2
  local value = sqrt(sqrt(t * t - l / a) - t)
  return y < 0 and -value or value
end

--- Speeds for n sequences of one kind: quantiles of a lognormal, scaled so that every kind has the same mean.
---@param n integer
---@param mean number torso lengths a second
---@param spread number standard deviation of the logarithm
---@return number[] speeds rising
function movement.targets(n, mean, spread)
  local speeds, sum = {}, 0
  for i = 1, n do
    speeds[i] = exp(spread * sqrt(2) * inverse_erf(2 * (i - 0.5) / n - 1))
    sum = sum + speeds[i]
  end
  for i = 1, n do speeds[i] = speeds[i] * mean * n / sum end
  return speeds
end

return movement
