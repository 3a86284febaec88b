-- Smoothing of recorded landmarks: a zero-phase Butterworth. Fills no gaps and knows no skeleton; the filters that MediaPipe runs frame by frame are an op (regions.lua).
local ffi = require "ffi"

local smoothing = {}

local pi = math.pi

-- Second-order Butterworth low-pass by the bilinear transform, of which two passes halve the power at `cutoff`. b0, b1, b2, a1, a2.
local function butterworth(cutoff, rate)
  local k = math.tan(pi * cutoff / rate) / (math.sqrt(2) - 1) ^ .25
  local norm = 1 / (1 + math.sqrt(2) * k + k * k)
  return k * k * norm, 2 * k * k * norm, k * k * norm, 2 * (k * k - 1) * norm, (1 - math.sqrt(2) * k + k * k) * norm
end

-- One pass over x[0..n-1] in the direction of step, begun as if the first value had stood there for ever.
local function pass(x, from, step, n, b0, b1, b2, a1, a2)
  local v = x[from]
  local z1, z2 = v * (1 - b0), v * (b2 - a2) -- the filter's state at rest with a gain of 1
  local i = from
  for _ = 1, n do
    local u = x[i]
    local y = b0 * u + z1
    z1 = b1 * u - a1 * y + z2
    z2 = b2 * u - a2 * y
    x[i] = y
    i = i + step
  end
end

-- Zero-phase filter of work[pad .. pad+n-1], whose ends are continued by turning the signal round its first and last value.
local function both_ways(work, n, pad, b0, b1, b2, a1, a2)
  local first, last, total = work[pad], work[pad + n - 1], n + 2 * pad
  for i = 1, pad do
    work[pad - i] = 2 * first - work[pad + i]
    work[pad + n - 1 + i] = 2 * last - work[pad + n - 1 - i]
  end
  pass(work, 0, 1, total, b0, b1, b2, a1, a2)
  pass(work, total - 1, -1, total, b0, b1, b2, a1, a2)
end

--- Zero-phase Butterworth low-pass: a second-order filter run forwards and backwards (fourth order in all), so that nothing lags. The amplitude at
--- `cutoff` is 1/sqrt(2) after both passes, as is usual in biomechanics (Winter 2009): each pass is designed for a higher one.
--- Each joint's unbroken spans are filtered apart: NaN stays NaN and nothing leaks across a gap. Spans of fewer than 4 frames stay as they are.
---@param landmarks Tensor f32 [T,J,C]
---@param rate number frames per second
---@param cutoff? number Hz, default 6
---@param columns? integer how many leading columns are filtered, default 3 (at most C)
---@return Tensor f32 [T,J,C] a new tensor
function smoothing.offline(landmarks, rate, cutoff, columns)
  cutoff = cutoff or 6
  local shape = landmarks.shape
  if #shape ~= 3 then error(("smoothing.offline: landmarks have %d dimensions, want [T,J,C]"):format(#shape), 2) end
  if rate ~= rate or cutoff ~= cutoff or rate <= 0 or cutoff <= 0 then
    error(("smoothing.offline: rate is %s and cutoff %s, want both above 0"):format(tostring(rate), tostring(cutoff)), 2)
  end
  local T, J, C = shape[1], shape[2], shape[3]
  local out = landmarks:to("f32"):clone():contiguous()
  columns = math.min(columns or 3, C)
  if cutoff >= rate / 2 * .95 then return out end -- nothing above the cutoff can be in the data
  local b0, b1, b2, a1, a2 = butterworth(cutoff, rate)
  local reach = math.max(9, math.ceil(2 * rate / cutoff)) -- the ends are continued for two periods of the cutoff
  local p, stride, work = out:ptr(), J * C, ffi.new("double[?]", T + 2 * math.min(reach, T))
  for j = 0, J - 1 do
    for c = 0, columns - 1 do
      local at, t = j * C + c, 0
      while t < T do
        if p[t * stride + at] ~= p[t * stride + at] then
          t = t + 1
        else
          local begin = t
          while t < T and p[t * stride + at] == p[t * stride + at] do t = t + 1 end
          local n = t - begin
          if n >= 4 then
            local pad = math.min(reach, n - 1)
            for i = 0, n - 1 do work[pad + i] = p[(begin + i) * stride + at] end
            both_ways(work, n, pad, b0, b1, b2, a1, a2)
            for i = 0, n - 1 do p[(begin + i) * stride + at] = work[pad + i] end
          end
        end
      end
    end
  end
  return out
end

return smoothing
