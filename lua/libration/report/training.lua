-- The report of a training run: training.png, training.svg and report.html from one table. Reads numbers, computes no score.

local files = require "libration.files"
local blocks = require "libration.report.blocks"
local html = require "libration.report.html"
local plot = require "libration.report.plot"
local sections = require "libration.report.sections"
local median = require("libration.motion.statistics").median
local statistics = require "libration.report.statistics"

local training = {}

---@class libration.report.Run what `training.write` takes
---@field title string|nil headline, "Training run" when nil
---@field subtitle string|nil e.g. date, output folder
---@field population string whom it was trained on: "8 normal sequences, 1600 frames, rendered infants (not real children)"
---@field epochs { train: number[], validation: number[], best: integer?, unit: string? } loss of each epoch; best counts from 1; unit "mean squared error, SD^2"
---@field threshold number error above which a window is flagged
---@field percentile number|nil of the validation error that gave the threshold
---@field score_unit string|nil unit of errors and threshold, "SD²"
---@field calibration { id: string, score: number, share: number }[] a row a sequence: mean window error, share of windows over the threshold
---@field test { id: string, label: string?, score: number, share: number, p: number?, verdict: string?, flagged: boolean, profile: ProfileVerdict? }[]
---label "normal", "abnormal", nil
---@field baselines { name: string, scores: table<string, number>, separates: string?, note: string? }[] a row a method, the autoencoder first; score by sequence id
---@field explained { network: number, pca: number?, zero: number?, pca_name: string? }|nil shares of unseen normal movement
---@field accuracy { [1]: string, [2]: string }[]|nil landmark accuracy against ground truth: name and text
---@field warnings string[]|nil
---@field audit Audit|string[]|nil with `leak`, the page is stamped
---@field config table|nil name = value, or { { name, value }, ... }
---@field versions table|nil
---@field device string|nil
---@field timings table|nil seconds by name, or { { name, seconds }, ... }
---@field memory { cpu: number?, gpu: number? }|nil peak bytes
---@field files table|nil name = what it holds, or { { name, text }, ... }

local function check(run)
  for _, name in ipairs { "population", "threshold", "epochs", "calibration", "test" } do
    if run[name] == nil then
      error("report.training: field " .. name .. " is missing", 3)
    end
  end
end

-- calibration and test sequences in one list
local function score_rows(run)
  local rows = {}
  for _, row in ipairs(run.calibration) do
    rows[#rows + 1] = { name = row.id, score = row.score, share = row.share, group = "calibration" }
  end
  for _, row in ipairs(run.test) do
    rows[#rows + 1] = { name = row.id, score = row.score, share = row.share, group = row.label or "test" }
  end
  return rows
end

local GROUPS = {
  { "calibration", "calibration (normal)", "ring", "s3" },
  { "normal", "test, normal", "circle", "s1" },
  { "abnormal", "test, abnormal", "diamond", "s2" },
  { "test", "test, no label", "square", "s6" },
}

local function curves(figure, run, weight, title)
  local e = run.epochs
  local axes = figure:axes {
    title = title,
    xlabel = "epoch",
    ylabel = "loss, " .. (e.unit or "mean squared error, SD²"),
    x = "integer",
    weight = weight,
  }
  local marker = #e.train < 12 and "circle" or nil -- a single epoch is a point
  axes:line(nil, e.train, { label = "train", marker = marker })
  if e.validation and #e.validation > 0 then
    axes:line(nil, e.validation, { label = "validation", style = "dashed", marker = marker })
  end
  if e.best then
    axes:vline(e.best, { style = "dotted", note = ("best, epoch %d"):format(e.best) })
  end
  axes:legend()
end

-- More sequences than this, and a row holds a group instead of one sequence.
local MANY = 40

-- how many rows the scores take
local function score_lines(run)
  local n = #run.calibration + #run.test
  return n > MANY and 8 or math.max(2, n)
end

local function scores(figure, run, weight, title)
  local rows, names = score_rows(run), {}
  local place = {}
  if #rows <= MANY then
    for i, row in ipairs(rows) do
      names[i], place[i] = row.name, i
    end
  else
    local line, seen = {}, {}
    for _, group in ipairs(GROUPS) do
      for _, row in ipairs(rows) do
        if row.group == group[1] and not line[group[1]] then
          names[#names + 1] = group[2]
          line[group[1]] = #names
        end
      end
    end
    for i, row in ipairs(rows) do
      local k = seen[row.group] or 0
      seen[row.group] = k + 1
      place[i] = line[row.group] + (k * 0.381966 % 1 - 0.5) * 0.6 -- spread by the golden ratio, so that dots do not hide each other
    end
  end
  local axes = figure:axes {
    title = title,
    xlabel = "mean window error, " .. (run.score_unit or "SD²"),
    categories = names,
    weight = weight,
  }
  axes:vline(run.threshold, { label = "threshold for one window", style = "dashed" })
  for _, group in ipairs(GROUPS) do
    local x, y = {}, {}
    for i, row in ipairs(rows) do
      if row.group == group[1] and type(row.score) == "number" then
        x[#x + 1], y[#y + 1] = row.score, place[i]
      end
    end
    if #x > 0 then
      axes:dots(x, y, { label = group[2], marker = group[3], colour = group[4], size = #rows > MANY and 4 or 5 })
    end
  end
  axes:legend()
end

---The picture of the run: loss curves above, scores of the calibration and test sequences with the threshold below.
---@param run libration.report.Run
---@return libration.report.Figure
function training.figure(run)
  check(run)
  local lines = score_lines(run)
  local figure = plot.figure {
    title = run.title or "Training run",
    subtitle = run.population,
    footer = "Research use, not a diagnosis.",
    width = 760,
    height = 520 + lines * 22,
  }
  curves(figure, run, 300, "Loss")
  scores(figure, run, 110 + lines * 22, "Scores by sequence")
  return figure
end

local function headline(run)
  local total, hit = { normal = 0, abnormal = 0 }, { normal = 0, abnormal = 0 }
  local judged, second = { normal = 0, abnormal = 0 }, { normal = 0, abnormal = 0 } -- by the movement profile
  for _, row in ipairs(run.test) do
    if total[row.label] then
      total[row.label] = total[row.label] + 1
      hit[row.label] = hit[row.label] + (row.flagged and 1 or 0)
      if row.profile and row.profile.abnormal ~= nil then
        judged[row.label] = judged[row.label] + 1
        second[row.label] = second[row.label] + (row.profile.abnormal and 1 or 0)
      end
    end
  end
  local lines = {}
  local function line(label, text)
    if total[label] > 0 then
      lines[#lines + 1] = ("%s: %d of %d%s."):format(text, hit[label], total[label],
        judged[label] > 0 and (" by the autoencoder, %d of %d by the movement profile"):format(second[label], judged[label]) or "")
    end
  end
  line("abnormal", "Abnormal test sequences flagged")
  line("normal", "Normal test sequences flagged (false alarms)")
  local n = #run.calibration
  lines[#lines + 1] = ("Calibrated on %d sequence%s: no p-value can fall below 1/%d = %s."):format(
    n, n == 1 and "" or "s", n + 1, statistics.p(1 / (n + 1)))
  if total.normal + total.abnormal < 20 or n < 20 then
    lines[#lines + 1] = "These are counts, not rates: fewer than 20 sequences allow no claim about false alarms or sensitivity."
  end
  local head
  if total.normal + total.abnormal == 0 then
    head = ("%d test sequence%s, no labels"):format(#run.test, #run.test == 1 and "" or "s")
  else
    head = ("%d of %d labelled test sequences judged as labelled by the autoencoder"):format(
      hit.abnormal + total.normal - hit.normal, total.normal + total.abnormal)
  end
  return { kind = "verdict", tone = "calm", head = head, lines = lines }
end

-- a verdict beside the label
local function verdict_cell(flagged, word, label)
  return {
    text = (word or (flagged and "flagged" or "not flagged"))
      .. (flagged and label == "normal" and " (false alarm)" or flagged == false and label == "abnormal" and " (missed)" or ""),
    tone = flagged and "flag" or nil,
  }
end

local function test_table(run)
  local rows, some = {}, false
  for _, row in ipairs(run.test) do
    some = some or row.profile ~= nil
  end
  for i, row in ipairs(run.test) do
    rows[i] = {
      row.id,
      row.label or { text = "no label", tone = "muted" },
      verdict_cell(row.flagged, row.verdict, row.label),
      statistics.percent(row.share),
      statistics.score(row.score),
      statistics.p(row.p),
    }
    if some then
      local v = row.profile
      blocks.append(rows[i], v and {
        verdict_cell(v.abnormal, v.word or v.abnormal == nil and "not scored" or nil, row.label), statistics.p(v.student or v.p), table.concat(v.words or {}, "; "),
      } or { "not judged" })
    end
  end
  local largest = 0
  for _, row in ipairs(run.calibration) do
    largest = math.max(largest, row.share or 0)
  end
  local head = { "sequence", "label", some and "autoencoder" or "verdict", "windows over threshold", "mean error", "p" }
  local align = { "short", "short", "left", "right", "right", "right" }
  if some then
    blocks.append(head, { "movement profile", "its p, by t", "what stands out" })
    blocks.append(align, { "left", "right", "left" })
  end
  return {
    kind = "table",
    head = head,
    align = align,
    rows = rows,
    note = ("A sequence is flagged when more of its windows lie over the threshold than of any calibration sequence (largest: %s). "
      .. "p is the share of normal sequences, this one counted, that score as high.%s"):format(
      statistics.percent(largest), some and " The movement profile goes by Student's t of its statistics." or ""),
  }
end

-- Baselines as a table: a row a method, then a column a sequence, or the medians of each label where there are many.
local function baselines(list, test)
  local head, align = { "method" }, { "left" }
  local columns = {} -- ids of the sequences that a column stands for
  if #test <= 8 then
    for i, row in ipairs(test) do
      head[i + 1], columns[i] = row.label and row.id .. " (" .. row.label .. ")" or row.id, { row.id }
    end
  else
    for _, label in ipairs { "normal", "abnormal", "no label" } do
      local ids = {}
      for _, row in ipairs(test) do
        if (row.label or "no label") == label then
          ids[#ids + 1] = row.id
        end
      end
      if #ids > 0 then
        columns[#columns + 1] = ids
        head[#columns + 1] = ("median of %d, %s"):format(#ids, label)
      end
    end
  end
  for i = 1, #columns do
    align[i + 1] = "right"
  end
  local some = false
  for _, row in ipairs(list) do
    some = some or row.separates ~= nil or row.note ~= nil
  end
  if some then
    head[#head + 1], align[#align + 1] = "reading", "left"
  end
  local rows = {}
  for r, row in ipairs(list) do
    local out = { row.name }
    for i, ids in ipairs(columns) do
      local values = {}
      for _, id in ipairs(ids) do
        values[#values + 1] = row.scores[id]
      end
      out[i + 1] = statistics.score(#values > 0 and median(values))
    end
    if some then
      out[#columns + 2] = row.separates or row.note or ""
    end
    rows[r] = out
  end
  return { kind = "table", head = head, align = align, rows = rows }
end

---The page of the run, for `html.page`.
---@param run libration.report.Run
---@return table page
function training.page(run)
  check(run)
  local warnings = blocks.append({}, run.warnings)
  local explained
  if run.explained then
    local more
    explained, more = blocks.explained(run.explained)
    blocks.append(warnings, more)
  end
  local list = { { title = "Result", headline(run) } }
  local result = list[1]
  result[#result + 1] = {
    kind = "facts",
    items = {
      {
        label = "threshold",
        value = statistics.number(run.threshold, 4),
        note = (run.percentile and ("%gth percentile of the validation error, "):format(run.percentile) or "") .. (run.score_unit or "SD²"),
      },
      { label = "epochs", value = #run.epochs.train, note = run.epochs.best and ("best: %d"):format(run.epochs.best) or nil },
      { label = "calibration sequences", value = #run.calibration },
      { label = "test sequences", value = #run.test },
    },
  }
  if #run.test > 0 then
    result[#result + 1] = test_table(run)
  end
  if #warnings > 0 then
    table.insert(list, 2, { title = "Warnings", { kind = "warnings", list = blocks.sentences(warnings) } })
  end

  local loss = plot.figure { title = "Loss", height = 270, description = "Loss of each epoch, train and validation" }
  curves(loss, run, 1)
  list[#list + 1] = { title = "Training", { kind = "figure", figure = loss, narrow_height = 260 } }

  local seen = plot.figure {
    title = "Scores by sequence", height = 110 + score_lines(run) * 26, description = "Mean window error of each calibration and test sequence, with the threshold",
  }
  scores(seen, run, 1)
  list[#list + 1] = #run.calibration + #run.test > 0 and {
    title = "Calibration and test scores",
    { kind = "figure", figure = seen, narrow_height = seen.height + 34,
      caption = "A dot is the mean error of one sequence. The threshold applies to single windows; a sequence is judged by its share of windows over it." },
  } or nil

  if run.baselines and #run.baselines > 0 then
    local section = { title = "Beside simpler methods", baselines(run.baselines, run.test) }
    if explained then
      table.insert(section, 1, { kind = "text", text = explained })
    end
    list[#list + 1] = section
  elseif explained then
    list[#list + 1] = { title = "Beside simpler methods", { kind = "text", text = explained } }
  end
  if run.accuracy and #run.accuracy > 0 then
    list[#list + 1] = { title = "Landmarks against ground truth", { kind = "keyvalues", rows = blocks.pairs_of(run.accuracy) } }
  end
  blocks.append(list, blocks.tail(run, sections.audit(run.audit)))
  return {
    title = run.title or "Training run",
    subtitle = run.subtitle,
    population = "Trained on " .. run.population .. (run.population:match "%.$" and "" or "."),
    stamp = sections.stamp(run.audit),
    sections = list,
  }
end

---Writes training.png, training.svg and report.html into a folder, each under a temporary name first. Raises when one cannot be written.
---@param folder string
---@param run libration.report.Run
---@return string html path of the page
---@return string|nil png path of the picture, nil without Cairo
function training.write(folder, run)
  local png = training.figure(run):offer(files.join(folder, "training"))
  return html.write(files.join(folder, "report.html"), training.page(run)), png
end

return training
