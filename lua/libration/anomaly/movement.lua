-- Movement statistics as a plain baseline: six of the profile's statistics, Mahalanobis' distance from the normals, covariance shrunk by half. No words, no p.
-- Source of the shrinkage: Ledoit & Wolf 2004 (towards a multiple of the identity), with a fixed weight.

local movement = {}

local WEIGHT = .5
-- Of `profile.STATISTICS`; asymmetry counts by its size, whichever side it favours.
local KEYS = { "speed", "jerk", "asymmetry", "synchrony", "centroid", "burstiness" }

local function row_of(m)
  local row = {}
  for i, key in ipairs(KEYS) do row[i] = key == "asymmetry" and math.abs(m[key]) or m[key] end
  return row
end

---@class MovementStatistics
---@field mean number[] NaN where no normal shows the statistic
---@field factor number[][] lower triangle L of the shrunk covariance L L'

--- Fits mean and covariance. A statistic that a recording does not show stands at its mean.
---@param list Movement[] of normals, at least 2
---@return MovementStatistics
function movement.fit(list)
  local n, D = #list, #KEYS
  if n < 2 then error(("movement statistics: %d normal recordings, want at least 2"):format(n), 2) end
  local rows, mean, covariance = {}, {}, {}
  for i, m in ipairs(list) do rows[i] = row_of(m) end
  for d = 1, D do
    local sum, seen = 0, 0
    for _, r in ipairs(rows) do if r[d] == r[d] then sum, seen = sum + r[d], seen + 1 end end
    mean[d] = sum / seen
  end
  local trace = 0
  for a = 1, D do
    covariance[a] = {}
    for b = 1, a do
      local sum = 0
      for _, r in ipairs(rows) do
        local p = (r[a] - mean[a]) * (r[b] - mean[b])
        if p == p then sum = sum + p end
      end
      covariance[a][b] = sum / (n - 1)
    end
    trace = trace + covariance[a][a]
  end
  local L = {}
  for i = 1, D do
    L[i] = {}
    for k = 1, i do
      local s = (1 - WEIGHT) * covariance[i][k] + (i == k and WEIGHT * trace / D or 0)
      for j = 1, k - 1 do s = s - L[i][j] * L[k][j] end
      if i == k then L[i][i] = math.sqrt(math.max(s, 1e-12)) else L[i][k] = s / L[k][k] end
    end
  end
  return { mean = mean, factor = L }
end

--- Mahalanobis' distance of a recording from the normals.
---@param self MovementStatistics
---@param m Movement
---@return number
function movement.distance(self, m)
  local row, L, y, square = row_of(m), self.factor, {}, 0
  for i = 1, #row do
    local z = row[i] - self.mean[i]
    local s = z == z and z or 0
    for j = 1, i - 1 do s = s - L[i][j] * y[j] end
    y[i] = s / L[i][i]
    square = square + y[i] * y[i]
  end
  return math.sqrt(square)
end

return movement
