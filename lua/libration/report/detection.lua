-- The report of one video: reconstruction_error.png, anomaly_stats.txt and report.html from one table. Reads numbers, scores nothing.

local files = require "libration.files"
local blocks = require "libration.report.blocks"
local html = require "libration.report.html"
local plot = require "libration.report.plot"
local statistics = require "libration.report.statistics"

local detection = {}

---@class libration.report.Result what `detection.write` takes
---@field video string name or path of the input
---@field population string whom the detector was trained on
---@field flagged boolean|nil the verdict; nil: not scored
---@field verdict string|nil the verdict in words ("unusual movement", "not unusual", "not scored") when nil made from `flagged`
---@field reason string|nil why it was not scored
---@field share number share of windows over the threshold, 0..1
---@field largest_calibration_share number|nil largest share of any calibration sequence, 0..1
---@field calibration { id: string, score: number, share: number }[]|nil
---@field p number|nil conformal p
---@field smallest_p number|nil smallest p that the number of calibration sequences allows
---@field longest_episode number|nil seconds
---@field threshold number
---@field score number|nil mean error of the windows
---@field score_unit string|nil "SD²"
---@field times number[] seconds, one a frame
---@field errors number[] error of the frame (mean of the windows that hold it), NaN where none
---@field spans { [1]: number, [2]: number }[]|nil flagged stretches in seconds
---@field joints { name: string, error: number, limb: string? }[]|nil mean error by joint
---@field limbs { name: string, error: number }[]|nil mean error by limb
---@field stats { [1]: string, [2]: any }[]|nil further statistics, name and value, shown and written to anomaly_stats.txt
---@field baselines { name: string, score: number, low: number?, high: number?, note: string? }[]|nil low, high: range over the calibration sequences
---@field explained { network: number, pca: number?, zero: number?, pca_name: string? }|nil of unseen normal movement, from training
---@field warnings string[]|nil
---@field audit string[]|nil
---@field frames integer|nil
---@field fps number|nil frames per second, end to end
---@field memory { cpu: number?, gpu: number? }|nil peak bytes
---@field config table|nil
---@field versions table|nil
---@field device string|nil
---@field timings table|nil seconds by name
---@field pictures { data: string, type: string?, caption: string? }[]|nil key frames, PNG or JPEG bytes

local function check(r)
  for _, name in ipairs { "video", "population", "threshold", "times", "errors", "share" } do
    if r[name] == nil and (r.flagged ~= nil or name == "video" or name == "population") then
      error("report.detection: field " .. name .. " is missing", 3)
    end
  end
end

local function verdict_of(r)
  return r.verdict or (r.flagged == nil and "not scored") or (r.flagged and "unusual movement") or "not unusual"
end

-- sentences that say how sure the verdict is
local function how_sure(r)
  local lines = {}
  if r.flagged == nil then
    lines[1] = r.reason and "Reason: " .. r.reason or "The recording gave no window that can be scored."
    return lines
  end
  local share = ("%s of its windows lie over the threshold"):format(statistics.percent(r.share))
  if r.largest_calibration_share then
    share = share .. ("; of any calibration sequence at most %s"):format(statistics.percent(r.largest_calibration_share))
  end
  lines[1] = share .. "."
  if r.p then
    local smallest = r.smallest_p or (r.calibration and 1 / (#r.calibration + 1))
    lines[2] = ("p = %s%s."):format(statistics.p(r.p), smallest and (", where the calibration allows no smaller p than %s"):format(statistics.p(smallest)) or "")
  end
  local n = r.calibration and #r.calibration
  if n and n < 20 then
    lines[#lines + 1] = ("How sure: weak. It was compared with %d normal recording%s; fewer than 20 allow no claim about false alarms."):format(n, n == 1 and "" or "s")
  elseif n then
    lines[#lines + 1] = ("It was compared with %d normal recordings."):format(n)
  end
  return lines
end

-- A log axis where errors climb so far that the threshold would lie on the ground.
local function scale_of(r)
  local low, high = math.huge, -math.huge
  for _, e in ipairs(r.errors) do
    if e == e then
      low, high = math.min(low, e), math.max(high, e)
    end
  end
  return low > 0 and r.threshold and high > 8 * r.threshold and "log" or "linear"
end

local function error_axes(figure, r, title)
  local scale = scale_of(r)
  local long = #r.times > 0 and r.times[#r.times] - r.times[1] >= 120
  local axes = figure:axes {
    title = title,
    x = "time",
    xlabel = long and "time, min:s" or "time, s",
    y = scale,
    ylabel = "reconstruction error, " .. (r.score_unit or "SD²") .. (scale == "log" and ", log scale" or ""),
  }
  if r.spans and #r.spans > 0 then
    axes:spans(r.spans, { label = "flagged" })
  end
  axes:line(r.times, r.errors, { label = "error", colour = "s1", width = 1.6 })
  if r.threshold then
    axes:hline(r.threshold, { label = "threshold", style = "dashed" })
  end
  axes:legend()
end

---The curve: error over time, threshold, flagged spans.
---@param r libration.report.Result
---@return libration.report.Figure
function detection.figure(r)
  check(r)
  local figure = plot.figure {
    title = "Reconstruction error over time",
    subtitle = ("%s: %s"):format(files.name(r.video), verdict_of(r)),
    footer = "Research use, not a diagnosis.",
    width = 860,
    height = 400,
  }
  error_axes(figure, r)
  return figure
end

-- Joints that the page shows; anomaly.csv holds all.
local SHOWN = 12

-- bars, largest first, at most SHOWN of them
local function bars(rows, unit)
  local names, lengths = {}, {}
  local sorted = blocks.append({}, rows)
  table.sort(sorted, function(a, b)
    local x, y = a.error, b.error
    if x ~= x or y ~= y then
      return x == x and y ~= y or (x ~= x) == (y ~= y) and a.name < b.name
    end
    return x == y and a.name < b.name or x > y
  end)
  for i = 1, math.min(SHOWN, #sorted) do
    names[i], lengths[i] = sorted[i].name, sorted[i].error
  end
  local figure = plot.figure { height = 48 + #names * 24, description = "Mean error by body part, largest first" }
  figure:axes({ categories = names, xlabel = "mean error, " .. unit }):bars(lengths)
  return figure
end

---The page of one video, for `html.page`.
---@param r libration.report.Result
---@return table page
function detection.page(r)
  check(r)
  local unit = r.score_unit or "SD²"
  local warnings = blocks.append({}, r.warnings)
  local explained
  if r.explained then
    local more
    explained, more = blocks.explained(r.explained)
    blocks.append(warnings, more)
  end
  local word = verdict_of(r)
  local result = {
    title = "Verdict",
    {
      kind = "verdict",
      tone = r.flagged and "flag" or r.flagged == false and "good" or "calm",
      head = word:sub(1, 1):upper() .. word:sub(2),
      lines = how_sure(r),
    },
  }
  local sections = { result }
  if r.flagged ~= nil then
    local items = { { label = "windows over threshold", value = statistics.percent(r.share) } }
    if r.p then
      items[#items + 1] = { label = "p", value = statistics.p(r.p), note = r.smallest_p and "smallest possible " .. statistics.p(r.smallest_p) or nil }
    end
    if r.longest_episode then
      items[#items + 1] = { label = "longest flagged episode", value = statistics.duration(r.longest_episode) }
    end
    if r.score then
      items[#items + 1] = { label = "mean error, " .. unit, value = statistics.score(r.score), note = "threshold " .. statistics.score(r.threshold) }
    end
    result[#result + 1] = { kind = "facts", items = items }
  end
  if #warnings > 0 then
    sections[#sections + 1] = { title = "Warnings", { kind = "warnings", list = blocks.sentences(warnings) } }
  end
  if r.times and #r.times > 0 then
    local curve = plot.figure { height = 290, description = ("Reconstruction error over time of %s with the threshold"):format(files.name(r.video)) }
    error_axes(curve, r)
    local flagged = r.spans and #r.spans or 0
    sections[#sections + 1] = {
      title = "Error over time",
      {
        kind = "figure",
        figure = curve,
        narrow_height = 280,
        caption = flagged > 0 and ("%d flagged stretch%s, shaded."):format(flagged, flagged == 1 and "" or "es") or "No stretch is flagged.",
      },
    }
  end
  if r.pictures and #r.pictures > 0 then
    local section = { title = "Key frames" }
    for _, picture in ipairs(r.pictures) do
      section[#section + 1] = { kind = "picture", data = picture.data, type = picture.type, caption = picture.caption }
    end
    sections[#sections + 1] = section
  end
  if r.limbs and #r.limbs > 0 or r.joints and #r.joints > 0 then
    local section = { title = "Where the error comes from" }
    if r.limbs and #r.limbs > 0 then
      section[#section + 1] = { kind = "figure", figure = bars(r.limbs, unit), caption = "By limb." }
    end
    if r.joints and #r.joints > 0 then
      local joints = #r.joints <= SHOWN and "By joint." or ("By joint: the %d of %d with the largest error. anomaly.csv holds all."):format(SHOWN, #r.joints)
      section[#section + 1] = { kind = "figure", figure = bars(r.joints, unit), caption = joints }
    end
    sections[#sections + 1] = section
  end
  if r.baselines and #r.baselines > 0 then
    local rows = {}
    for i, row in ipairs(r.baselines) do
      local range = row.low and row.high and ("%s to %s"):format(statistics.score(row.low), statistics.score(row.high)) or "-"
      local outside = row.low and row.high and (row.score > row.high or row.score < row.low)
      rows[i] = {
        row.name,
        { text = statistics.score(row.score), tone = outside and "flag" or nil },
        range,
        row.note or (row.low and row.high and (row.score > row.high and "above all of them" or row.score < row.low and "below all of them" or "within") or ""),
      }
    end
    local section = {
      title = "Beside simpler methods",
      { kind = "table", head = { "method", "this video", "calibration sequences", "reading" }, align = { "left", "right", "right", "left" }, rows = rows },
    }
    if explained then
      table.insert(section, 1, { kind = "text", text = explained })
    end
    sections[#sections + 1] = section
  elseif explained then
    sections[#sections + 1] = { title = "Beside simpler methods", { kind = "text", text = explained } }
  end
  local stats = blocks.pairs_of(r.stats)
  if r.frames then
    table.insert(stats, 1, { "frames", tostring(r.frames) })
  end
  if r.fps then
    stats[#stats + 1] = { "frames per second, end to end", statistics.number(r.fps, 3) }
  end
  if #stats > 0 then
    sections[#sections + 1] = { title = "Further figures", { kind = "keyvalues", rows = stats } }
  end
  blocks.append(sections, blocks.tail(r))
  return {
    title = files.name(r.video),
    subtitle = "Movement compared with the normal movement of the training set",
    population = "Detector trained on " .. r.population .. (r.population:match "%.$" and "" or "."),
    sections = sections,
  }
end

---The text of anomaly_stats.txt: one "name: value" a line.
---@param r libration.report.Result
---@return string
function detection.stats(r)
  check(r)
  local out = {}
  local function line(name, value)
    if value ~= nil then
      out[#out + 1] = name .. ": " .. tostring(value)
    end
  end
  line("note", "research use, not a diagnosis")
  line("video", r.video)
  line("verdict", verdict_of(r))
  line("reason", r.reason)
  if r.flagged ~= nil then
    line("windows flagged", statistics.percent(r.share))
    line("largest share of a calibration sequence", r.largest_calibration_share and statistics.percent(r.largest_calibration_share))
    line("longest episode", r.longest_episode and ("%.2f s"):format(r.longest_episode))
    line("p", r.p and statistics.p(r.p))
    line("smallest p possible", r.smallest_p and statistics.p(r.smallest_p))
    line("mean error", r.score and statistics.number(r.score, 6))
    line("threshold", r.threshold and statistics.number(r.threshold, 6))
  end
  line("frames", r.frames)
  for _, row in ipairs(blocks.pairs_of(r.stats)) do
    line(row[1], row[2])
  end
  line("frames per second, end to end", r.fps and ("%.1f"):format(r.fps))
  line("peak memory, CPU", r.memory and r.memory.cpu and statistics.bytes(r.memory.cpu))
  line("peak memory, GPU", r.memory and (r.memory.gpu and statistics.bytes(r.memory.gpu) or "none used"))
  line("trained on", r.population)
  for _, warning in ipairs(r.warnings or {}) do
    line("warning", warning)
  end
  return (table.concat(out, "\n"):gsub("\r", " ")) .. "\n"
end

---Writes reconstruction_error.png, anomaly_stats.txt and report.html into a folder, each under a temporary name first. Raises when one cannot be written.
---@param folder string
---@param r libration.report.Result
---@return string html path of the page
function detection.write(folder, r)
  if r.times and #r.times > 0 then
    detection.figure(r):offer(files.join(folder, "reconstruction_error.png"))
  end
  files.write(files.join(folder, "anomaly_stats.txt"), detection.stats(r))
  return html.write(files.join(folder, "report.html"), detection.page(r))
end

return detection
