-- Where an axis puts its ticks and how it writes them. Numbers in, numbers and text out; draws nothing.

local ticks = {}

local floor, ceil, abs, log10 = math.floor, math.ceil, math.abs, math.log10
local STEPS = { 1, 2, 2.5, 5, 10 }
local TIME_STEPS = { 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200 }

---A round step that cuts a range into at most `count` pieces.
---@param range number > 0
---@param count integer
---@return number step
function ticks.step(range, count)
  local rough = range / count
  local magnitude = 10 ^ floor(log10(rough))
  for _, s in ipairs(STEPS) do
    if s * magnitude >= rough * (1 - 1e-9) then
      return s * magnitude
    end
  end
  return 10 * magnitude
end

---Writes a number with as many decimals as a step of `step` needs.
---@param value number
---@param step number|nil nil: four significant digits
---@return string
function ticks.number(value, step)
  if value ~= value then
    return "-"
  elseif value == 0 then
    return "0"
  end
  local size = abs(value)
  if size >= 1e7 or (step and step < 1e-4) or (not step and size < 1e-4) then
    local text = ("%.3g"):format(value):gsub("e([+-])0*(%d)", function(sign, digit)
      return "e" .. (sign == "-" and "-" or "") .. digit
    end)
    return text
  end
  local decimals
  if step then
    decimals = math.max(0, -floor(log10(step) + 1e-9)) + 0 -- not -0
    local scaled = step * 10 ^ decimals
    if abs(scaled - floor(scaled + 0.5)) > 1e-6 then
      decimals = decimals + 1 -- a step of 2.5
    end
  else
    decimals = math.max(0, 3 - floor(log10(size))) + 0
  end
  local text = ("%." .. decimals .. "f"):format(value)
  if not step and text:find(".", 1, true) then
    text = text:gsub("0+$", ""):gsub("%.$", "")
  end
  local whole, rest = text:match "^(%-?%d+)(.*)$"
  if #whole:gsub("-", "") > 4 then
    whole = whole:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""):gsub("^%-,", "-")
  end
  return whole .. rest
end

---Writes a number with three significant digits.
---@param value number
---@return string
function ticks.short(value)
  if value == 0 or value ~= value then
    return ticks.number(value)
  end
  return ticks.number(value, 10 ^ (floor(log10(abs(value))) - 2))
end

---Writes seconds as a clock: 0:07, 2:30, 1:02:00.
---@param seconds number
---@return string
function ticks.clock(seconds)
  local sign = seconds < 0 and "-" or ""
  local s = floor(abs(seconds) + 0.5)
  if s >= 3600 then
    return ("%s%d:%02d:%02d"):format(sign, floor(s / 3600), floor(s / 60) % 60, s % 60)
  end
  return ("%s%d:%02d"):format(sign, floor(s / 60), s % 60)
end

---Ticks inside [lo, hi].
---@param lo number
---@param hi number > lo
---@param count integer at most about this many
---@param kind string|nil "linear" (default), "integer", "time" (seconds; a clock from two minutes on) or "log"
---@return { [1]: number, [2]: string }[] ticks position and text
function ticks.make(lo, hi, count, kind)
  local out = {}
  count = math.max(count, 2)
  if kind == "log" then
    local first, last = floor(log10(lo) + 1e-9), ceil(log10(hi) - 1e-9)
    local every = math.max(1, ceil((last - first) / count))
    local subs = last - first <= 2 and { 1, 2, 5 } or { 1 }
    for decade = first, last, every do
      for _, sub in ipairs(subs) do
        local v = sub * 10 ^ decade
        if v >= lo * (1 - 1e-9) and v <= hi * (1 + 1e-9) then
          out[#out + 1] = { v, ticks.number(v) }
        end
      end
    end
    return out
  end
  local range = hi - lo
  if range <= 1e-9 * math.max(abs(lo), abs(hi)) then
    return { { lo, ticks.number(lo) } } -- too narrow for numbers of double precision to count through
  end
  local step
  if kind == "time" and range > 0.5 then
    for _, s in ipairs(TIME_STEPS) do
      step = s
      if range / s <= count then
        break
      end
    end
    while range / step > count do
      step = step * 2
    end
  else
    step = ticks.step(range, count)
    if kind == "integer" then
      step = math.max(1, step == 2.5 and 5 or step)
    end
  end
  for k = ceil(lo / step - 1e-9), floor(hi / step + 1e-9) do
    local v = k * step
    local text = kind == "time" and range >= 120 and ticks.clock(v) or ticks.number(v, step)
    out[#out + 1] = { v, text }
  end
  return out
end

---Limits a little wider than the data, from zero where zero is near.
---@param lo number
---@param hi number
---@param kind string|nil as in `make`
---@return number lo
---@return number hi
function ticks.limits(lo, hi, kind)
  if kind == "log" then
    if hi / lo <= 1 + 1e-9 then
      return lo / 2, hi * 2
    end
    local pad = (hi / lo) ^ 0.06
    return lo / pad, hi * pad
  end
  if hi - lo <= 1e-9 * math.max(abs(lo), abs(hi)) then
    local pad = lo == 0 and 1 or abs(lo) * 0.5
    return lo >= 0 and lo < pad * 1.01 and 0 or lo - pad, hi + pad
  end
  local pad = (hi - lo) * 0.06
  local low = lo - pad
  if lo >= 0 and lo <= 0.7 * hi then
    low = 0
  end
  return low, hi + pad
end

return ticks
