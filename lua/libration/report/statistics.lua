-- Numbers as a person reads them: shares, p-values, scores, times, bytes. Scores are anomaly's.

local ticks = require "libration.report.ticks"

local statistics = {}

local floor = math.floor

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
---@param seconds number as a clock counts them
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
