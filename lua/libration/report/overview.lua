-- The page over all inputs of one detection run: a row an input with verdict, reason and a link to its own page. Reads verdicts, makes none.

local files = require "libration.files"
local html = require "libration.report.html"
local sections = require "libration.report.sections"
local statistics = require "libration.report.statistics"

local overview = {}

---@class libration.report.Overview
---@field population string whom the detector was trained on
---@field rows table[] {input: string, flagged: boolean?, word: string?: in place of abnormal or normal, reason: string?, share: number?,
---  p: number?, profile: ProfileVerdict?, link: string?: of its page, relative to the folder}
---@field total integer? inputs of the run, where it is not yet done with all of them
---@field audit Audit|string[]|nil with `leak`, the page is stamped

local function cell(flagged, word)
  return { text = word or (flagged == nil and "not scored" or flagged and "abnormal" or "normal"), tone = flagged and "flag" or flagged == nil and "muted" or nil }
end

---The page, for `html.page`.
---@param o libration.report.Overview
---@return table page
function overview.page(o)
  local rows, count = {}, { flagged = 0, second = 0, unscored = 0 }
  for i, r in ipairs(o.rows) do
    local v = r.profile
    count.flagged = count.flagged + (r.flagged and 1 or 0)
    count.second = count.second + (v and v.abnormal and 1 or 0)
    count.unscored = count.unscored + (r.flagged == nil and 1 or 0)
    rows[i] = {
      { text = files.name(r.input), link = r.link }, cell(r.flagged, r.word), r.flagged ~= nil and statistics.percent(r.share) or "",
      r.p and statistics.p(r.p) or "", v and cell(v.abnormal, v.word) or "", v and v.p and statistics.p(v.student or v.p) or "",
      r.reason or v and table.concat(v.words or {}, "; ") or "",
    }
  end
  local waiting = (o.total or #o.rows) - #o.rows
  return {
    title = "Recordings",
    subtitle = ("%d input%s%s"):format(#o.rows, #o.rows == 1 and "" or "s", waiting > 0 and (", %d still to come"):format(waiting) or ""),
    population = "Detector trained on " .. o.population .. (o.population:match "%.$" and "" or "."),
    stamp = sections.stamp(o.audit),
    roomy = true,
    sections = { {
      title = "Verdicts",
      { kind = "facts", items = {
        { label = "unusual, autoencoder", value = count.flagged }, { label = "unusual, movement profile", value = count.second }, { label = "not scored", value = count.unscored },
      } },
      { kind = "table", head = { "input", "autoencoder", "windows over threshold", "p", "movement profile", "its p, by t", "reason, or what stands out" },
        align = { "left", "short", "right", "right", "short", "right", "left" }, rows = rows },
    } },
  }
end

---Writes index.html into a folder. Raises when it cannot be written.
---@param folder string
---@param o libration.report.Overview
---@return string path
function overview.write(folder, o)
  return html.write(files.join(folder, "index.html"), overview.page(o))
end

return overview
