-- Sections that tell of one recording or one run: movement profile, measures, recording check, kinematics, audit, skeletons. Judges nothing.

local blocks = require "libration.report.blocks"
local draw = require "libration.pose.draw"
local statistics = require "libration.report.statistics"
local svg = require "libration.report.svg"

local sections = {}

---How a value stands to a range, in words.
---@param value number
---@param low number?
---@param high number?
---@return string words "above all", "below all", "within" or ""
---@return boolean outside
function sections.reading(value, low, high)
  if type(value) ~= "number" or value ~= value or not (low and high) then
    return "", false
  elseif value > high then
    return "above all", true
  elseif value < low then
    return "below all", true
  end
  return "within", false
end

local function range_of(low, high)
  return low and high and ("%s to %s"):format(statistics.score(low), statistics.score(high)) or "-"
end

-- "log torso lengths/s" means that the value is a logarithm; people read the value itself
local function plain(value, unit)
  local rest = unit and unit:match "^log (.+)$"
  return statistics.score(rest and math.exp(value) or value), rest or unit
end

---The verdict of the movement profile as a block.
---@param v ProfileVerdict
---@return table block
function sections.profile_verdict(v)
  local lines = {}
  if v.abnormal ~= nil then
    lines[1] = ("%.2f SD from the normal recordings, p = %s%s."):format(v.distance, statistics.p(v.p),
      v.smallest_p and (", smallest possible %s"):format(statistics.p(v.smallest_p)) or "")
    if v.student then
      lines[2] = ("The verdict goes by p = %s: Student's t of its statistics, corrected for their number, if normal recordings are normally distributed."):format(
        statistics.p(v.student))
    end
    lines[#lines + 1] = #(v.words or {}) > 0 and "What stands out: " .. table.concat(v.words, "; ") .. "." or "No single statistic stands out."
  else
    lines[1] = v.reason and v.reason or "Too little of the body is seen."
  end
  return {
    kind = "verdict",
    by = "Movement profile",
    tone = v.abnormal and "flag" or v.abnormal == false and "good" or "calm",
    head = v.abnormal == nil and "Not scored" or v.abnormal and "Unusual movement (abnormal)" or "Not unusual (normal)",
    lines = lines,
  }
end

---The statistics of the movement profile as a section.
---@param v ProfileVerdict|nil
---@return table|nil section
function sections.profile(v)
  if not v or #(v.statistics or {}) == 0 then
    return nil
  end
  local rows = {}
  for i, s in ipairs(v.statistics) do
    local value, unit = plain(s.value, s.unit)
    rows[i] = {
      unit and ("%s, %s"):format(s.name, unit) or s.name,
      { text = value, tone = s.unusual and "flag" or nil },
      (plain(s.usual, s.unit)),
      ("%+.1f SD"):format(s.z),
      statistics.p(s.p),
      s.student and statistics.p(s.student) or "",
      { text = s.unusual and s.words or "", tone = s.unusual and "flag" or nil },
    }
  end
  return {
    title = "Movement profile",
    { kind = "table", head = { "statistic", "this recording", "usual", "distance", "p", "p by t", "unusual" },
      align = { "left", "right", "right", "right", "right", "right", "left" }, rows = rows,
      note = "Usual: the middle of the normal recordings. p compares with each of them; p by t takes them to be normally distributed, and a statistic is unusual "
        .. "when that p, times the number of statistics in the verdict, is at most .05." },
  }
end

---Measures with their range over the calibration recordings as a section.
---@param list { name: string, value: number, p: number?, p_two_sided: number?, low: number?, high: number?, note: string? }[]|nil
---@return table|nil section
function sections.measures(list)
  if not list or #list == 0 then
    return nil
  end
  local sided = false
  for _, m in ipairs(list) do
    sided = sided or m.p_two_sided ~= nil
  end
  local rows = {}
  for i, m in ipairs(list) do
    local words, outside = sections.reading(m.value, m.low, m.high)
    local row = { m.name, { text = statistics.score(m.value), tone = outside and "flag" or nil }, range_of(m.low, m.high), statistics.p(m.p) }
    if sided then
      row[#row + 1] = statistics.p(m.p_two_sided)
    end
    row[#row + 1] = words .. (m.note and (words ~= "" and "; " or "") .. m.note or "")
    rows[i] = row
  end
  local head, align = { "measure", "this recording", "calibration", "p" }, { "left", "right", "right", "right", "left" }
  if sided then
    head[#head + 1] = "p, two-sided"
    table.insert(align, 4, "right")
  end
  head[#head + 1] = "reading"
  return {
    title = "Measures",
    { kind = "table", head = head, align = align, rows = rows,
      note = "Calibration: smallest and largest value of the calibration recordings. p: share of them, this one counted, that reach this value." },
  }
end

local function seconds(from, to)
  return ("%.1f to %.1f s"):format(from, to)
end

---The recording check as a section.
---@param c RecordingCheck|nil
---@return table|nil section
function sections.check(c)
  if not c then
    return nil
  end
  local said = c.passed and "The recording can be scored" or c.stops == false and "The recording did not pass, and is scored all the same" or "The recording cannot be scored"
  said = said .. (c.reason and ": " .. tostring(c.reason):gsub("%.$", "") or "") .. "."
  if c.usable_seconds and c.seconds then
    said = said .. (" %.1f of %.1f seconds are usable."):format(c.usable_seconds, c.seconds)
  end
  local section = { title = "Recording check", { kind = "text", text = said } }
  local function put(block)
    section[#section + 1] = block
  end
  if #(c.measures or {}) > 0 then
    local rows, outside = {}, 0
    for i, m in ipairs(c.measures) do
      local name = m.name or m.key
      local reading, failed = "within", m.passed == false
      if type(m.value) ~= "number" then
        reading = "not measured" .. (m.note and ": " .. m.note or "")
      elseif failed then
        reading = m.stops == false and "outside, a warning" or "outside"
      end
      local tone = failed and "flag" or nil
      outside = outside + (failed and 1 or 0)
      rows[i] = {
        m.unit and m.unit ~= "" and name .. ", " .. m.unit or name,
        { text = type(m.value) == "number" and statistics.number(m.value, 3) or "-", tone = tone },
        type(m.limit) == "number" and statistics.number(m.limit, 3) or tostring(m.limit or "-"),
        { text = reading, tone = tone },
      }
    end
    put { kind = "fold", open = not c.passed, summary = ("%d measures, %s their limits"):format(#rows, outside == 0 and "all within" or outside .. " outside"),
      { kind = "table", head = { "measure", "this recording", "limit", "reading" }, align = { "left", "right", "right", "left" }, rows = rows } }
  end
  if #(c.spans or {}) > 0 then
    local rows = {}
    for i, span in ipairs(c.spans) do
      rows[i] = { seconds(span.from, span.to), span.reason or "" }
    end
    put { kind = "heading", text = "Stretches that are not usable" }
    local list = { kind = "keyvalues", rows = rows }
    put(#rows <= 8 and list or { kind = "fold", summary = ("%d stretches"):format(#rows), list })
  end
  if #(c.findings or {}) > 0 then
    put { kind = "findings", list = c.findings }
  end
  return section
end

-- Columns of the kinematics table, where the rows have them.
local COLUMNS_OF_MOTION = {
  { "range", "range" }, { "path", "path" }, { "speed", "speed" }, { "acceleration", "acceleration" }, { "jerk", "jerk" }, { "angle", "angle, degrees" },
  { "symmetry", "left-right correlation" }, { "correlation", "left-right correlation" },
}

---Kinematics as a section: a table behind a fold.
---@param list table[]|nil rows {joint, range, path, ...}; list.unit: of length
---@return table|nil section
function sections.kinematics(list)
  if not list or #list == 0 then
    return nil
  end
  local head, align, keys = { "joint" }, { "left" }, {}
  for _, column in ipairs(COLUMNS_OF_MOTION) do
    for _, row in ipairs(list) do
      if type(row[column[1]]) == "number" then
        keys[#keys + 1], head[#head + 1], align[#align + 1] = column[1], column[2], "right"
        break
      end
    end
  end
  local rows = {}
  for i, row in ipairs(list) do
    rows[i] = { (tostring(row.joint):gsub("_", " ")) }
    for k, key in ipairs(keys) do
      rows[i][k + 1] = statistics.score(row[key])
    end
  end
  return {
    title = "Kinematics",
    { kind = "fold", summary = ("Movement of %d joints"):format(#list),
      { kind = "table", head = head, align = align, rows = rows,
        note = ("Lengths in %s, speed per second, acceleration per second squared, jerk per second cubed. kinematics.csv holds more."):format(list.unit or "torso lengths") } },
  }
end

---Findings of an audit; lines of text count as notes.
---@param audit Audit|string[]|nil
---@return Finding[]
function sections.findings(audit)
  local out = {}
  for i, f in ipairs(audit and (audit.findings or audit) or {}) do
    out[i] = type(f) == "table" and { level = f.level, code = f.code, text = blocks.sentences({ f.text })[1], detail = f.detail }
      or { level = "note", text = blocks.sentences({ f })[1] }
  end
  return out
end

---The audit as a section: what was found, then what was looked at (findings of code "looked-at").
---@param audit Audit|string[]|nil
---@return table|nil section
function sections.audit(audit)
  local section, found, looked = { title = "Audit" }, {}, {}
  for _, f in ipairs(sections.findings(audit)) do
    if f.code == "looked-at" then
      looked[#looked + 1] = f.text
    else
      found[#found + 1] = f
    end
  end
  if #found > 0 then
    section[1] = { kind = "findings", list = found }
  end
  if #looked > 0 then
    blocks.append(section, { { kind = "heading", text = "What was looked at" }, { kind = "list", list = looked } })
  end
  return section[1] and section
end

---What is stamped over a page whose split overlaps and was let pass; nil else.
---@param audit Audit|string[]|nil
---@return string|nil
function sections.stamp(audit)
  if not audit or not audit.leak then
    return nil
  end
  local why = type(audit.leak) == "string" and audit.leak
  for _, f in ipairs(audit.findings or {}) do
    why = why or f.level == "error" and f.text
  end
  why = blocks.sentences({ why or "the parts of the split overlap" })[1]
  return ("LEAK ALLOWED: %s No figure on this page counts as a test."):format(why)
end

---Drawn skeletons side by side, all at one scale, without pictures.
---@param list { points: Tensor, skeleton: string, caption: string?, aspect: number? }[]|nil points [J,C>=2] x, y, ... as `pose.draw` takes them;
---aspect: how much longer a unit of x is than one of y, 1
---@return table|nil block
function sections.poses(list)
  if not list or #list == 0 then
    return nil
  end
  local x0, y0, x1, y1 = math.huge, math.huge, -math.huge, -math.huge
  local bodies = {}
  for i, pose in ipairs(list) do
    local J, C = pose.points:size(1), pose.points:size(2)
    local p, copy = pose.points:contiguous():ptr(), {}
    for k = 0, J * C - 1 do
      copy[k] = p[k]
    end
    local score = C == 3 and 2 or C >= 4 and 3
    for j = 0, J - 1 do
      copy[j * C] = copy[j * C] * (pose.aspect or 1)
      local x, y = copy[j * C], copy[j * C + 1]
      if x == x and y == y and not (score and copy[j * C + score] <= 0) then
        x0, y0, x1, y1 = math.min(x0, x), math.min(y0, y), math.max(x1, x), math.max(y1, y)
      end
    end
    bodies[i] = { J = J, C = C, values = copy }
  end
  if not (x1 > x0 or y1 > y0) then
    return nil
  end
  local width, pad = 200, 12
  local scale = (width - 2 * pad) / math.max(x1 - x0, (y1 - y0) * 0.75)
  local height = (y1 - y0) * scale + 2 * pad
  local left = (width - (x1 - x0) * scale) / 2
  local items = {}
  for i, pose in ipairs(list) do
    local body = bodies[i]
    for j = 0, body.J - 1 do
      local at = j * body.C
      body.values[at], body.values[at + 1] = (body.values[at] - x0) * scale + left, (body.values[at + 1] - y0) * scale + pad
    end
    local canvas = svg.canvas(width, height, { inline = true, id = "pose" .. i, title = "Skeleton", label = pose.caption })
    canvas:rect(0, 0, width, height, { fill = "panel" })
    draw.skeleton(canvas, {
      size = function(_, d) return d == 1 and body.J or body.C end,
      ptr = function() return body.values end,
    }, { skeleton = pose.skeleton, size = math.max(x1 - x0, y1 - y0) * scale })
    items[i] = { canvas = canvas, caption = pose.caption }
  end
  return { kind = "gallery", small = true, items = items }
end

return sections
