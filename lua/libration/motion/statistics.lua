-- Order statistics and moments of plain Lua arrays. No tensors, no models.

local statistics = {}

--- Percentile with numpy's default, linear interpolation between order statistics.
---@param values number[] not empty, no NaN; left as it is
---@param q number 0..100
---@return number
function statistics.percentile(values, q)
  local n = #values
  if n == 0 then error("percentile: no values", 2) end
  if not (q >= 0 and q <= 100) then error(("percentile: %s, want 0..100"):format(tostring(q)), 2) end
  local sorted = {}
  for i = 1, n do sorted[i] = values[i] end
  table.sort(sorted)
  local at = q / 100 * (n - 1)
  local low = math.floor(at)
  local high = math.min(low + 1, n - 1)
  local a, b, f = sorted[low + 1], sorted[high + 1], at - low
  -- numpy's _lerp: from the nearer end, so that both ends are exact
  return f < .5 and a + (b - a) * f or b - (b - a) * (1 - f)
end

---@param values number[]
---@return number
function statistics.median(values)
  return statistics.percentile(values, 50)
end

---@param values number[]
---@return number mean NaN of nothing
function statistics.mean(values)
  local sum = 0
  for i = 1, #values do sum = sum + values[i] end
  return sum / #values
end

--- Population standard deviation.
---@param values number[]
---@return number
function statistics.deviation(values)
  local mean, sum = statistics.mean(values), 0
  for i = 1, #values do sum = sum + (values[i] - mean) ^ 2 end
  return math.sqrt(sum / #values)
end

--- Pearson's correlation; NaN where one of the two does not vary.
---@param a number[]
---@param b number[] as long as a
---@return number
function statistics.correlation(a, b)
  local ma, mb, saa, sbb, sab = statistics.mean(a), statistics.mean(b), 0, 0, 0
  for i = 1, #a do
    local u, v = a[i] - ma, b[i] - mb
    saa, sbb, sab = saa + u * u, sbb + v * v, sab + u * v
  end
  return sab / math.sqrt(saa * sbb)
end

--- Area under the ROC curve: share of pairs in which the positive scores above the negative, ties a half.
---@param negative number[] scores
---@param positive number[] scores
---@return number? nil where one of the groups is empty
function statistics.auc(negative, positive)
  if #negative == 0 or #positive == 0 then return nil end
  local sum = 0
  for _, p in ipairs(positive) do
    for _, n in ipairs(negative) do
      sum = sum + (p > n and 1 or p == n and .5 or 0)
    end
  end
  return sum / (#negative * #positive)
end

--- Conformal p-value: (1 + number of calibration scores at or above s) / (n + 1); two-sided: twice the smaller of this and
--- of the same with the scores at or below s, at most 1. With groups n is the number of groups, and each score of a group of k counts 1/k:
--- the p of a new group's score (Lee, Barber & Willett 2023, arXiv 2306.06342).
---@param calibration number[]
---@param s number
---@param two_sided boolean?
---@param groups any[]? of which group each score is
---@return number p
---@return number smallest the smallest p that so many calibration scores allow
function statistics.conformal(calibration, s, two_sided, groups)
  local n, above, below, sizes = #calibration, 0, 0, {}
  if groups then
    n = 0
    for i = 1, #calibration do
      local g = groups[i]
      if not sizes[g] then n = n + 1 end
      sizes[g] = (sizes[g] or 0) + 1
    end
  end
  for i = 1, #calibration do
    local weight = groups and 1 / sizes[groups[i]] or 1
    if calibration[i] >= s then above = above + weight end
    if calibration[i] <= s then below = below + weight end
  end
  if two_sided then return math.min(1, 2 * (1 + math.min(above, below)) / (n + 1)), math.min(1, 2 / (n + 1)) end
  return (1 + above) / (n + 1), 1 / (n + 1)
end

-- Regularised incomplete beta function by its continued fraction (Lentz); source: Abramowitz and Stegun 26.5.8.
local function incomplete_beta(a, b, x)
  local log_gamma = function(z) -- Lanczos, g = 5
    local sum = 1.000000000190015
    for i, k in ipairs { 76.18009172947146, -86.50532032941677, 24.01409824083091, -1.231739572450155, .1208650973866179e-2, -.5395239384953e-5 } do sum = sum + k / (z + i) end
    return (z + .5) * math.log(z + 5.5) - z - 5.5 + math.log(2.5066282746310005 * sum / z)
  end
  local front = math.exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * math.log(x) + b * math.log(1 - x))
  if x > (a + 1) / (a + b + 2) then return 1 - incomplete_beta(b, a, 1 - x) end
  local c, d = 1, 1 / (1 - (a + b) * x / (a + 1))
  local value = d
  for m = 1, 300 do
    local up = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    d, c = 1 / (1 + up * d), 1 + up / c
    value = value * d * c
    up = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    d, c = 1 / (1 + up * d), 1 + up / c
    value = value * d * c
    if math.abs(d * c - 1) < 1e-13 then break end
  end
  return front * value / a
end

--- Two-sided p-value of Student's t.
---@param t number
---@param df number degrees of freedom, above 0
---@return number p 0..1; NaN of NaN
function statistics.student(t, df)
  if t ~= t then return t end
  if t == 0 then return 1 end
  local x = df / (df + t * t)
  return x < 1e-300 and 0 or x >= 1 and 1 or incomplete_beta(df / 2, .5, x)
end

--- Magnitudes of the nth difference of a path, by frame rate: speed, acceleration, jerk. NaN beside a gap.
---@param x number[] from 1, NaN where missing
---@param y number[]
---@param n integer 1 to 3
---@param fps number
---@return number[] units of x / s^n, n fewer than frames
function statistics.magnitude(x, y, n, fps)
  local out, scale = {}, fps ^ n
  for t = 1, #x - n do
    local u, v
    if n == 1 then
      u, v = x[t + 1] - x[t], y[t + 1] - y[t]
    elseif n == 2 then
      u, v = x[t + 2] - 2 * x[t + 1] + x[t], y[t + 2] - 2 * y[t + 1] + y[t]
    else
      u, v = x[t + 3] - 3 * x[t + 2] + 3 * x[t + 1] - x[t], y[t + 3] - 3 * y[t + 2] + 3 * y[t + 1] - y[t]
    end
    out[t] = math.sqrt(u * u + v * v) * scale
  end
  return out
end

return statistics
