-- The page of an evaluation: methods beside each other with intervals, p of each recording, false alarms. Reads numbers, computes no score.

local files = require "libration.files"
local blocks = require "libration.report.blocks"
local html = require "libration.report.html"
local plot = require "libration.report.plot"
local sections = require "libration.report.sections"
local statistics = require "libration.report.statistics"

local evaluation = {}

---@class libration.report.Evaluation
---@field title string?
---@field subtitle string?
---@field population string
---@field protocol string what was trained on what, in a sentence
---@field seeds integer
---@field smallest_p number
---@field minutes number of normal recordings on which false alarms are counted
---@field methods table[] {name, auc, low, high, aucs?: of each seed, sd?: over seeds, alarms?: a minute, p = {by id}}
---@field judged table[] {id, words?: string[]} the abnormal recordings
---@field warnings string[]
---@field audit Audit|string[]|nil with `leak`, the page is stamped
---@field config table? versions table? timings table? device string?

local function two(v) return v and ("%.2f"):format(v) or "-" end

local function table_of(run)
  local rows = {}
  for i, m in ipairs(run.methods) do
    rows[i] = { m.name, two(m.auc), ("%.2f to %.2f"):format(m.low, m.high), m.sd and ("± %.2f"):format(m.sd) or "", m.alarms and ("%.1f"):format(m.alarms) or "" }
  end
  return {
    kind = "table", head = { "method", "AUC", "95 % interval", "seeds", "false alarms a minute" }, align = { "left", "right", "right", "right", "right" }, rows = rows,
    note = ("AUC: share of pairs in which an abnormal recording scores above a normal one that was left out, both scored by one model. Interval: bootstrap over "
      .. "recordings (subjects, where known); where every pair is won it cannot widen, which does not prove an AUC of 1. "
      .. "Seeds: standard deviation over %d. False alarms: stretches of windows over the 95th percentile of a normal recording "
      .. "that did not train, on %.1f minutes of normal movement; the movement profile has no windows."):format(run.seeds, run.minutes),
  }
end

-- p by method and recording, the longer list downwards
local function p_table(run)
  local function cell(m, j)
    local p = m.p[j.id]
    return { text = statistics.p(p), tone = p and p <= math.max(.05, run.smallest_p + 1e-9) and "flag" or nil }
  end
  local down = #run.methods >= #run.judged
  local lines, columns = down and run.methods or run.judged, down and run.judged or run.methods
  local head, align, rows = { down and "method" or "abnormal recording" }, { down and "left" or "short" }, {}
  for k, column in ipairs(columns) do head[k + 1], align[k + 1] = down and column.id or column.name, "right" end
  for i, line in ipairs(lines) do
    rows[i] = { down and line.name or line.id }
    for k, column in ipairs(columns) do rows[i][k + 1] = down and cell(line, column) or cell(column, line) end
  end
  return { kind = "table", head = head, align = align, rows = rows,
    note = ("No p can fall below %s here. In bold: the smallest possible, or .05 and less."):format(statistics.p(run.smallest_p)) }
end

local function figure_of(run)
  local names, x, y = {}, {}, {}
  local figure = plot.figure { title = "AUC by method", height = 120 + 30 * #run.methods, description = "AUC of each method with its 95 % interval, and of each seed" }
  for i, m in ipairs(run.methods) do names[i], x[i], y[i] = m.name, m.auc, i end
  local axes = figure:axes { xlabel = "AUC", categories = names }
  local first = true
  for i, m in ipairs(run.methods) do
    axes:line({ m.low, m.high }, { i, i }, { label = first and "95 % interval" or nil, colour = "s6" })
    first = false
  end
  local seed_x, seed_y = {}, {}
  for i, m in ipairs(run.methods) do
    if m.aucs and #m.aucs > 1 then
      for s, auc in ipairs(m.aucs) do
        seed_x[#seed_x + 1], seed_y[#seed_y + 1] = auc, i + .24 + .18 * (s - 1) / (#m.aucs - 1) -- below the line, beside each other where they are equal
      end
    end
  end
  if #seed_x > 0 then axes:dots(seed_x, seed_y, { label = "each seed", marker = "circle", colour = "s2", size = 2.2 }) end
  axes:dots(x, y, { label = "AUC", marker = "diamond", colour = "s1", size = 5 })
  axes:vline(.5, { style = "dotted", note = "chance" })
  axes:legend()
  return { kind = "figure", figure = figure, narrow_height = figure.height + 34, caption = "AUC of each method with its bootstrap interval." }
end

---The page, for `html.page`.
---@param run libration.report.Evaluation
---@return table page
function evaluation.page(run)
  local list = { { title = "Result", { kind = "text", text = run.protocol }, table_of(run) } }
  if #run.warnings > 0 then list[2] = { title = "Warnings", { kind = "warnings", list = blocks.sentences(run.warnings) } } end
  list[#list + 1] = { title = "AUC by method", figure_of(run) }
  list[#list + 1] = { title = "p of each abnormal recording", p_table(run) }
  local said = {}
  for _, j in ipairs(run.judged) do
    if j.words then said[#said + 1] = { j.id, #j.words > 0 and table.concat(j.words, "; ") or "no single statistic stands out" } end
  end
  if #said > 0 then list[#list + 1] = { title = "What the movement profile finds unusual", { kind = "keyvalues", rows = said } } end
  blocks.append(list, blocks.tail(run, sections.audit(run.audit)))
  return { title = run.title or "Evaluation", subtitle = run.subtitle, population = run.population, stamp = sections.stamp(run.audit), sections = list }
end

---Writes report.html into a folder. Raises when it cannot be written.
---@param folder string
---@param run libration.report.Evaluation
---@return string path
function evaluation.write(folder, run)
  return html.write(files.join(folder, "report.html"), evaluation.page(run))
end

return evaluation
