-- The report of one recording: reconstruction_error and attribution as pictures, anomaly_stats.txt and report.html from one table.
-- Reads numbers, scores nothing.

local files = require "libration.files"
local attribution = require "libration.report.attribution"
local blocks = require "libration.report.blocks"
local html = require "libration.report.html"
local plot = require "libration.report.plot"
local sections = require "libration.report.sections"
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
---@field low { threshold: number, share: number, limit: number }|nil of two-sided scoring: the threshold of low errors
---@field score number|nil mean error of the windows
---@field score_unit string|nil "SD²"
---@field times number[] seconds, one a frame
---@field errors number[] error of the frame (mean of the windows that hold it), NaN where none
---@field spans { [1]: number, [2]: number }[]|nil flagged stretches in seconds
---@field profile ProfileVerdict|nil what the movement profile says
---@field attribution Attribution|nil error by joint, limb, side and over time
---@field measures Measure[]|nil with the range over the calibration recordings
---@field check RecordingCheck|nil
---@field kinematics table[]|nil rows {joint, range, path, speed, acceleration, jerk, ...}; its field unit: of length
---@field stats { [1]: string, [2]: any }[]|nil further statistics, name and value, written to anomaly_stats.txt; those that no other section has, also shown
---@field baselines { name: string, score: number, low: number?, high: number?, note: string? }[]|nil low, high: range over the calibration sequences
---@field explained { network: number, pca: number?, zero: number?, pca_name: string? }|nil of unseen normal movement, from training
---@field warnings string[]|nil
---@field audit Audit|string[]|nil with `leak`, the page is stamped
---@field frames integer|nil
---@field fps number|nil frames per second, end to end
---@field memory { cpu: number?, gpu: number? }|nil peak bytes
---@field config table|nil
---@field device string|nil
---@field timings table|nil seconds by name
---@field pictures { data: string, type: string, caption: string?, alt: string? }[]|nil key frames
---@field poses { points: Tensor, skeleton: string, caption: string?, aspect: number? }[]|nil key frames as skeletons alone
---@field versions table|nil

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
  if r.low then
    lines[2] = ("%s lie under the low threshold; of any calibration sequence at most %s."):format(statistics.percent(r.low.share), statistics.percent(r.low.limit))
  end
  if r.p then
    local smallest = r.smallest_p or (r.calibration and 1 / (#r.calibration + 1))
    lines[#lines + 1] = ("p = %s%s."):format(statistics.p(r.p), smallest and (", where the calibration allows no smaller p than %s"):format(statistics.p(smallest)) or "")
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
  if r.check and #(r.check.spans or {}) > 0 then
    local unused = {}
    for i, span in ipairs(r.check.spans) do
      unused[i] = { span.from, span.to }
    end
    axes:spans(unused, { label = "not usable, see the recording check", colour = "muted" })
  end
  if r.spans and #r.spans > 0 then
    axes:spans(r.spans, { label = "flagged" })
  end
  axes:line(r.times, r.errors, { label = "error", colour = "s1", width = 1.6 })
  if r.threshold then
    axes:hline(r.threshold, { label = "threshold", style = "dashed" })
  end
  if r.low then
    axes:hline(r.low.threshold, { label = "low threshold", style = "dotted" })
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

local function where_of(r)
  return r.attribution or { joints = r.joints, limbs = r.limbs }
end

-- The autoencoder's verdict and the movement profile's, and whether they agree.
local function verdicts(r)
  local word = verdict_of(r)
  local out = {
    title = "Verdict",
    {
      kind = "verdict",
      by = r.profile and "Autoencoder" or nil,
      tone = r.flagged and "flag" or r.flagged == false and "good" or "calm",
      head = word:sub(1, 1):upper() .. word:sub(2),
      lines = how_sure(r),
    },
  }
  if r.profile and not (r.flagged == nil and r.profile.abnormal == nil) then
    out[#out + 1] = sections.profile_verdict(r.profile)
    if r.flagged ~= nil and r.profile.abnormal ~= nil and r.flagged ~= r.profile.abnormal then
      out[#out + 1] = { kind = "text", text = "The two do not agree: the autoencoder looks at each stretch of movement, the profile at the whole recording." }
    end
  end
  if r.flagged ~= nil then
    local items = { { label = "windows over threshold", value = statistics.percent(r.share) } }
    if r.low then
      items[2] = { label = "windows under the low threshold", value = statistics.percent(r.low.share) }
    end
    if r.p then
      items[#items + 1] = { label = "p", value = statistics.p(r.p), note = r.smallest_p and "smallest possible " .. statistics.p(r.smallest_p) or nil }
    end
    if r.longest_episode then
      items[#items + 1] = { label = "longest flagged episode", value = statistics.duration(r.longest_episode) }
    end
    if r.score then
      items[#items + 1] = { label = "mean error, " .. (r.score_unit or "SD²"), value = statistics.score(r.score), note = "threshold " .. statistics.score(r.threshold) }
    end
    out[#out + 1] = { kind = "facts", items = items }
  end
  return out
end

local function curve(r)
  if not r.times or #r.times == 0 then
    return nil
  end
  local flagged = r.spans and #r.spans or 0
  local figure = plot.figure {
    title = "Error over time", height = 290,
    description = ("Reconstruction error over time of %s with the threshold, %d stretches flagged"):format(files.name(r.video), flagged),
  }
  error_axes(figure, r)
  return {
    title = "Error over time",
    { kind = "figure", figure = figure, narrow_height = 300,
      caption = flagged > 0 and ("%d flagged stretch%s, shaded."):format(flagged, flagged == 1 and "" or "es") or "No stretch is flagged." },
  }
end

local function key_frames(r)
  local section = { title = "Key frames" }
  if r.pictures and #r.pictures > 0 then
    section[1] = { kind = "gallery", items = r.pictures }
  end
  section[#section + 1] = sections.poses(r.poses)
  return section[1] and section
end

local function beside(r, explained)
  local section = { title = "Beside simpler methods" }
  if explained and r.flagged ~= nil then
    section[1] = { kind = "text", text = explained }
  end
  if r.baselines and #r.baselines > 0 then
    local rows = {}
    for i, row in ipairs(r.baselines) do
      local words, outside = sections.reading(row.score, row.low, row.high)
      rows[i] = {
        row.name,
        { text = statistics.score(row.score), tone = outside and "flag" or nil },
        row.low and row.high and ("%s to %s"):format(statistics.score(row.low), statistics.score(row.high)) or "-",
        row.note or words,
      }
    end
    section[#section + 1] = { kind = "table", head = { "method", "this recording", "calibration", "reading" }, align = { "left", "right", "right", "left" }, rows = rows }
  end
  return section[1] and section
end

-- what no other section shows
local function further(r)
  local elsewhere, stats = { ["recording check"] = r.check, ["movement profile"] = r.profile, kinematics = r.kinematics }, {}
  for _, m in ipairs(r.measures or {}) do
    elsewhere[m.name] = true
  end
  for _, row in ipairs(blocks.pairs_of(r.stats)) do
    if not elsewhere[row[1]] and not (r.check and row[1]:find "^  ") then
      stats[#stats + 1] = row
    end
  end
  if r.frames then
    table.insert(stats, 1, { "frames", tostring(r.frames) })
  end
  if r.fps then
    stats[#stats + 1] = { "frames per second, end to end", statistics.number(r.fps, 3) }
  end
  return #stats > 0 and { title = "Further figures", { kind = "keyvalues", rows = stats } } or nil
end

---The page of one recording, for `html.page`.
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
  local list = {}
  local function put(section)
    list[#list + 1] = section or nil
  end
  put(verdicts(r))
  local checked = sections.check(r.check)
  if r.flagged == nil then
    put(checked) -- why it was not scored stands on top
  end
  if #warnings > 0 then
    put { title = "Warnings", { kind = "warnings", list = blocks.sentences(warnings) } }
  end
  put(curve(r))
  put(key_frames(r))
  put(sections.profile(r.profile))
  put(sections.measures(r.measures))
  put(attribution.section(where_of(r), unit))
  put(beside(r, explained))
  if r.flagged ~= nil then
    put(checked)
  end
  put(sections.kinematics(r.kinematics))
  put(further(r))
  blocks.append(list, blocks.tail(r, sections.audit(r.audit)))
  return {
    title = files.name(r.video),
    subtitle = "Movement compared with the normal movement of the training set",
    population = "Detector trained on " .. r.population .. (r.population:match "%.$" and "" or "."),
    stamp = sections.stamp(r.audit),
    sections = list,
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
  line("stamp", sections.stamp(r.audit))
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

---Writes reconstruction_error and attribution (png, svg), anomaly_stats.txt and report.html into a folder, each under a temporary name first.
---Raises when one cannot be written.
---@param folder string
---@param r libration.report.Result
---@return string html path of the page
function detection.write(folder, r)
  if r.times and #r.times > 0 then
    detection.figure(r):offer(files.join(folder, "reconstruction_error"))
  end
  local where = attribution.figure(where_of(r), { unit = r.score_unit, subtitle = files.name(r.video) })
  if where then
    where:offer(files.join(folder, "attribution"))
  end
  files.write(files.join(folder, "anomaly_stats.txt"), detection.stats(r))
  return html.write(files.join(folder, "report.html"), detection.page(r))
end

return detection
