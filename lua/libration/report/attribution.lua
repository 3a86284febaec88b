-- Where an error comes from, drawn: bars by limb, by side and by joint, and the limbs' shares over time. Reads numbers, computes no score.

local blocks = require "libration.report.blocks"
local plot = require "libration.report.plot"

local attribution = {}

-- Joints that bars show; attribution.csv holds all.
local SHOWN = 12
-- Columns that a strip over time has at most.
local COLUMNS = 120

-- Names and values of the largest rows, largest first; NaN last.
local function largest(rows, count)
  local sorted = blocks.append({}, rows)
  table.sort(sorted, function(a, b)
    local x, y = a.error, b.error
    if x ~= x or y ~= y then
      return x == x and y ~= y or (x ~= x) == (y ~= y) and a.name < b.name
    end
    return x == y and a.name < b.name or x > y
  end)
  local names, lengths = {}, {}
  for i = 1, math.min(count, #sorted) do
    names[i], lengths[i] = (sorted[i].name:gsub("_", " ")), sorted[i].error
  end
  return names, lengths
end

-- the part of a limb in one stretch, wherever the row keeps it
local function part_of(row, name)
  local key = name:gsub(" ", "_")
  for _, from in ipairs { row, row.shares or row.limbs or {} } do
    local v = from[name] or from[key]
    if type(v) == "number" then
      return v
    end
  end
  return 0 / 0
end

-- edges and rows of the strip: at most COLUMNS columns, each the mean of its stretches
local function strip(a)
  local every = math.ceil(#a.time / COLUMNS)
  local edges, rows = {}, {}
  for l in ipairs(a.limbs) do
    rows[l] = {}
  end
  for first = 1, #a.time, every do
    local last = math.min(first + every - 1, #a.time)
    edges[#edges + 1] = a.time[first].from
    for l, limb in ipairs(a.limbs) do
      local sum, n = 0, 0
      for i = first, last do
        local v = part_of(a.time[i], limb.name)
        if v == v then
          sum, n = sum + v, n + 1
        end
      end
      rows[l][#edges] = n > 0 and sum / n or 0 / 0
    end
  end
  edges[#edges + 1] = a.time[#a.time].to
  return edges, rows
end

local function bar_axes(figure, rows, unit, weight, title)
  local names, lengths = largest(rows, SHOWN)
  figure:axes({ title = title, categories = names, xlabel = "mean error, " .. unit, weight = weight or 30 + #names * 24 }):bars(lengths)
  return #names
end

local function strip_axes(figure, a, title)
  local names = {}
  for i, limb in ipairs(a.limbs) do
    names[i] = limb.name:gsub("_", " ")
  end
  local edges, rows = strip(a)
  local long = edges[#edges] - edges[1] >= 120
  figure:axes({ title = title, categories = names, x = "time", xlabel = long and "time, min:s" or "time, s", grid = false, weight = 80 + #names * 26 })
    :heat(edges, rows, { label = "share of the error (stronger: larger)" })
    :legend()
end

local function sides(a)
  return { { name = "left side", error = a.left }, { name = "right side", error = a.right } }
end

-- "The left side has 55 % more error than the right."
local function sides_words(a)
  if not (a.left and a.right and a.left > 0 and a.right > 0) then
    return nil
  end
  local more, less = math.max(a.left, a.right), math.min(a.left, a.right)
  if more / less < 1.1 then
    return "Left and right carry about the same error."
  end
  return ("The %s side has %s the error of the %s."):format(a.left > a.right and "left" or "right",
    more / less >= 2 and ("%.1f times"):format(more / less) or ("%.0f %% more than"):format(100 * (more / less - 1)), a.left > a.right and "right" or "left")
    :gsub("more than the error of", "more error than")
end

---The picture of an attribution: bars by limb, by side and by joint, and the strip over time. Nil where there is nothing to draw.
---@param a Attribution|nil
---@param options { unit: string?, title: string?, subtitle: string? }|nil unit of the errors, "SD²"
---@return libration.report.Figure|nil
function attribution.figure(a, options)
  local o = options or {}
  local unit = o.unit or "SD²"
  if not a or #(a.joints or {}) + #(a.limbs or {}) == 0 then
    return nil
  end
  local limbs, joints = #(a.limbs or {}), math.min(SHOWN, #(a.joints or {}))
  local two, time = a.left and a.right, limbs > 0 and a.time and #a.time > 0
  local figure = plot.figure {
    title = o.title or "Where the error comes from", subtitle = o.subtitle, description = "Mean error by limb, side and joint, and over time",
    footer = "Research use, not a diagnosis.", width = 760,
    height = 120 + (limbs > 0 and 90 + limbs * 25 or 0) + (two and 130 or 0) + (joints > 0 and 90 + joints * 25 or 0) + (time and 140 + limbs * 26 or 0),
  }
  if limbs > 0 then
    bar_axes(figure, a.limbs, unit, 90 + limbs * 25, "By limb")
  end
  if two then
    bar_axes(figure, sides(a), unit, 130, "Left against right")
  end
  if joints > 0 then
    bar_axes(figure, a.joints, unit, 90 + joints * 25, #a.joints > joints and ("By joint, the %d of %d with the largest error"):format(joints, #a.joints) or "By joint")
  end
  if time then
    strip_axes(figure, a, "Over time")
  end
  return figure
end

---Attribution as a section.
---@param a Attribution|nil
---@param unit string of the errors
---@return table|nil section
function attribution.section(a, unit)
  if not a or #(a.joints or {}) + #(a.limbs or {}) == 0 then
    return nil
  end
  local section = { title = "Where the error comes from" }
  local function put(block)
    section[#section + 1] = block
  end
  local function bars(rows, title, caption)
    local figure = plot.figure { title = title, height = 48 + math.min(SHOWN, #rows) * 24, description = "Mean error by body part, the largest first" }
    bar_axes(figure, rows, unit)
    put { kind = "heading", text = title }
    put { kind = "figure", figure = figure, caption = caption }
  end
  if #(a.limbs or {}) > 0 then
    bars(a.limbs, "By limb")
  end
  if a.left and a.right then
    bars(sides(a), "Left against right", sides_words(a))
  end
  if a.limbs and #a.limbs > 0 and a.time and #a.time > 0 then
    local figure = plot.figure { title = "Limbs over time", height = 92 + #a.limbs * 26, description = "Share of the error that each limb carries, over time" }
    strip_axes(figure, a)
    put { kind = "heading", text = "Over time" }
    put { kind = "figure", figure = figure, narrow_height = figure.height + 20 }
  end
  if #(a.joints or {}) > 0 then
    bars(a.joints, "By joint", #a.joints > SHOWN and ("The %d of %d with the largest error; the files hold all."):format(SHOWN, #a.joints) or nil)
  end
  return section
end

return attribution
