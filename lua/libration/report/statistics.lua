-- Small statistics of presentation: summaries, intervals, bins, and numbers as a person reads them. Scores are anomaly's.

local ticks = require "libration.report.ticks"

local statistics = {}

local floor, sqrt, min, max = math.floor, math.sqrt, math.min, math.max

-- the numbers of an array or a 1-D tensor that are not NaN
local function finite(v)
  if type(v) == "cdata" then
    v = v:totable()
  end
  local out = {}
  for i = 1, #v do
    local x = v[i]
    if type(x) == "number" and x == x then
      out[#out + 1] = x
    end
  end
  return out
end

---Mean, spread and extremes; NaN is left out.
---@param v number[]|Tensor [N]
---@return { n: integer, mean: number, sd: number, min: number, max: number, median: number } summary NaN where n = 0; sd with n - 1
function statistics.summary(v)
  local x = finite(v)
  local n, nan = #x, 0 / 0
  if n == 0 then
    return { n = 0, mean = nan, sd = nan, min = nan, max = nan, median = nan }
  end
  table.sort(x)
  local mean = 0
  for i = 1, n do
    mean = mean + x[i]
  end
  mean = mean / n
  local square = 0
  for i = 1, n do
    square = square + (x[i] - mean) ^ 2
  end
  return {
    n = n,
    mean = mean,
    sd = n > 1 and sqrt(square / (n - 1)) or 0,
    min = x[1],
    max = x[n],
    median = statistics.quantile(x, 0.5),
  }
end

---Quantile with linear interpolation between order statistics (type 7 of Hyndman & Fan 1996, the rule of numpy). NaN is left out.
---@param v number[]|Tensor [N]
---@param q number 0..1
---@return number
function statistics.quantile(v, q)
  local x = finite(v)
  local n = #x
  if n == 0 then
    return 0 / 0
  end
  table.sort(x)
  local h = (n - 1) * q + 1
  local i = min(floor(h), n)
  local j = min(i + 1, n)
  return x[i] + (h - i) * (x[j] - x[i])
end

---Wilson's 95 % interval of a share (Wilson 1927).
---@param k integer successes
---@param n integer trials
---@return number low 0..1
---@return number high 0..1
function statistics.wilson(k, n)
  if n == 0 then
    return 0, 1
  end
  local z = 1.959963984540054
  local p, z2 = k / n, z * z
  local centre = (p + z2 / (2 * n)) / (1 + z2 / n)
  local half = z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
  return max(0, centre - half), min(1, centre + half)
end

---Equal bins over the range of the values; NaN is left out.
---@param v number[]|Tensor [N]
---@param bins integer|nil nil: by the rule of Freedman & Diaconis (1981), 5 to 60
---@return number[] edges bins + 1
---@return integer[] counts
function statistics.histogram(v, bins)
  local x = finite(v)
  local n = #x
  if n == 0 then
    return { 0, 1 }, { 0 }
  end
  table.sort(x)
  local lo, hi = x[1], x[n]
  if lo == hi then
    local pad = lo == 0 and 0.5 or math.abs(lo) * 0.05
    lo, hi = lo - pad, hi + pad
  end
  if not bins then
    local width = 2 * (statistics.quantile(x, 0.75) - statistics.quantile(x, 0.25)) / n ^ (1 / 3)
    bins = width > 0 and math.ceil((hi - lo) / width) or 10
    bins = max(5, min(60, bins))
  end
  local edges, counts = {}, {}
  for i = 0, bins do
    edges[i + 1] = lo + (hi - lo) * i / bins
    if i < bins then
      counts[i + 1] = 0
    end
  end
  for i = 1, n do
    local b = min(bins, floor((x[i] - lo) / (hi - lo) * bins) + 1)
    counts[b] = counts[b] + 1
  end
  return edges, counts
end

---A share as a person reads it: 0 %, 0.4 %, 12 %, 100 %.
---@param share number 0..1
---@return string
function statistics.percent(share)
  if type(share) ~= "number" or share ~= share then
    return "-"
  end
  local p = share * 100
  local text = (p == 100 or math.abs(p) >= 10) and ("%.0f"):format(p) or ("%.1f"):format(p)
  return (tonumber(text) == 0 and p == 0 and "0" or text:gsub("^%-0%.0$", "0.0")) .. " %"
end

---Bytes in MiB or GiB.
---@param bytes number
---@return string
function statistics.bytes(bytes)
  if bytes >= 1024 ^ 3 then
    return ("%.2f GiB"):format(bytes / 1024 ^ 3)
  elseif bytes >= 1024 ^ 2 then
    return ("%.0f MiB"):format(bytes / 1024 ^ 2)
  end
  return ("%.0f KiB"):format(bytes / 1024)
end

---Seconds as a person reads them: 0.42 s, 12.3 s, 4 min 05 s.
---@param seconds number
---@return string
function statistics.duration(seconds)
  if seconds < 1 then
    return ("%.2f s"):format(seconds)
  elseif seconds < 60 then
    return ("%.1f s"):format(seconds)
  elseif seconds < 3600 then
    local s = floor(seconds + 0.5)
    return ("%d min %02d s"):format(floor(s / 60), s % 60)
  end
  local m = floor(seconds / 60 + 0.5)
  return ("%d h %02d min"):format(floor(m / 60), m % 60)
end

---A p-value: three digits, never 0.
---@param p number
---@return string
function statistics.p(p)
  if type(p) ~= "number" or p ~= p then
    return "-"
  elseif p < 0.001 then
    return "< 0.001"
  end
  return ("%.3f"):format(p)
end

---A number with `digits` significant digits, trailing zeros dropped.
---@param v number
---@param digits integer|nil 4
---@return string
function statistics.number(v, digits)
  if type(v) ~= "number" or v ~= v then
    return "-"
  end
  local text = ("%." .. (digits or 4) .. "g"):format(v)
  if text:find "e" and math.abs(v) >= 1 and math.abs(v) < 1e7 then
    text = ("%.0f"):format(v)
  end
  return text
end

---A score for a table: three significant digits, trailing zeros kept, so that columns line up.
---@param v number
---@return string
function statistics.score(v)
  if type(v) ~= "number" or v ~= v then
    return "-"
  end
  return ticks.short(v)
end

return statistics
