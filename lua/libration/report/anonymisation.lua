-- The page over one run of the anonymiser: counts, what was dropped, doubtful frames as masked thumbnails, what the second look found. Masks nothing itself.
local files = require "libration.files"
local html = require "libration.report.html"

local anonymisation = {}

---@class libration.report.Anonymised
---@field input string
---@field output string|nil
---@field reason string|nil why there is no output
---@field frames integer
---@field masked integer frames with a mask
---@field tracks integer
---@field kept integer tracks that stay visible
---@field blanked integer[] frames that were covered whole
---@field faults {frame: integer, reason: string}[]
---@field pictures table[] masked thumbnails, as html's gallery takes them
---@field notes string[] sound, dropped streams, warnings
---@field verified {seen: integer, whole: integer, looked: integer, control: integer}|nil what the second look saw and what was covered for it; frames
---  that it left no other way than to cover whole; frames of the source that it looked at, and in which it saw something
---@field stages table[] passes over it: name, frames, elapsed (seconds), looks; decode, convert, networks, mask, encode: shares of that time in which each was at work;
---  processor: share of the cores' time
---@field seconds number
---@field link string|nil the output relative to the page

local function verdict(row)
  if row.reason then return { text = "not masked", tone = "flag" } end
  local v = row.verified
  if not v then return { text = "not verified", tone = "muted" } end
  if v.seen > 0 then return { text = ("%d covered on second look"):format(v.seen), tone = "good" } end
  return { text = v.control > 0 and "nothing seen" or "nothing seen, nor in the source", tone = v.control > 0 and "good" or "muted" }
end

-- "3, 7 to 12"
local function ranges(list)
  local parts, i = {}, 1
  while i <= #list do
    local j = i
    while list[j + 1] == list[j] + 1 do j = j + 1 end
    parts[#parts + 1] = i == j and tostring(list[i]) or ("%d to %d"):format(list[i], list[j])
    i = j + 1
  end
  return table.concat(parts, ", ")
end
anonymisation.ranges = ranges

local GOAL = 70 -- per cent of the cores that a run should keep at work

-- Which stage was at work for how much of the time.
local function stages_of(rows)
  local list, used, elapsed = {}, 0, 0
  for _, r in ipairs(rows) do
    for _, s in ipairs(r.stages or {}) do
      local function share(part) return s[part] and s[part] > .0005 and ("%.0f"):format(100 * s[part]) or "" end
      used, elapsed = used + s.processor * s.elapsed, elapsed + s.elapsed
      list[#list + 1] = { files.name(r.input), s.name, ("%.1f"):format(s.frames / s.elapsed), s.looks and ("%.0f"):format(100 * s.looks / math.max(1, s.frames)) or "",
        share "decode", share "convert", share "networks", share "mask", share "encode", share "processor" }
    end
  end
  if #list == 0 then return nil end
  return { title = "Speed by stage",
    { kind = "text", text = ("Per cent of a pass's time in which each stage was at work; they run side by side. The cores were busy for %.0f %% of the time; the goal is %d %%.")
      :format(100 * used / elapsed, GOAL) },
    { kind = "table", head = { "input", "pass", "frames/s", "frames looked at", "decoding", "to RGB", "networks", "masks", "encoding", "cores" },
      align = { "left", "left", "right", "right", "right", "right", "right", "right", "right", "right" }, rows = list } }
end

---The page, for `html.page`.
---@param o {rows: libration.report.Anonymised[], settings: {[1]: string, [2]: string}[], verifier: string?}
---@return table page
function anonymisation.page(o)
  local rows, frames, masked, tracks, failed = {}, 0, 0, 0, 0
  for i, r in ipairs(o.rows) do
    frames, masked, tracks = frames + r.frames, masked + r.masked, tracks + r.tracks
    failed = failed + (r.reason and 1 or 0)
    rows[i] = {
      { text = files.name(r.input), link = r.link }, tostring(r.frames), tostring(r.tracks - r.kept), tostring(r.masked), tostring(#r.blanked), verdict(r),
      r.seconds > 0 and ("%.1f"):format(r.frames / r.seconds) or "", r.reason or "",
    }
  end
  local page = {
    title = "Anonymised recordings",
    banner = "Look before you share: no detector sees every face.",
    population = "Masks are only as good as what was found. Bodies, clothes, gait, voices and places can tell who somebody is, too.",
    roomy = true,
    sections = {
      { title = "Counts",
        { kind = "facts", items = {
          { label = "inputs", value = #o.rows }, { label = "frames", value = frames }, { label = "frames with a mask", value = masked }, { label = "tracks", value = tracks },
          { label = "not masked", value = failed },
        } },
        { kind = "table", head = { "input", "frames", "tracks masked", "frames masked", "frames blank", "second look", "frames/s", "reason" },
          align = { "left", "right", "right", "right", "right", "short", "right", "left" }, rows = rows } },
    },
  }
  for _, r in ipairs(o.rows) do
    local section = { title = files.name(r.input) }
    if r.kept > 0 then section[#section + 1] = { kind = "text", text = ("Tracks that stay visible, as asked: %d."):format(r.kept) } end
    if #r.notes > 0 then section[#section + 1] = { kind = "list", list = r.notes } end
    if #r.blanked > 0 then
      local list = { ("frames covered whole: %s"):format(ranges(r.blanked)) }
      for i = 1, math.min(#r.faults, 5) do list[#list + 1] = ("frame %d: %s"):format(r.faults[i].frame, r.faults[i].reason) end
      section[#section + 1] = { kind = "warnings", list = list }
    end
    if #r.pictures > 0 then
      section[#section + 1] = { kind = "heading", text = "Frames to look at first" }
      section[#section + 1] = { kind = "gallery", small = true, items = r.pictures }
    end
    if #section > 0 then page.sections[#page.sections + 1] = section end
  end
  page.sections[#page.sections + 1] = stages_of(o.rows)
  page.sections[#page.sections + 1] = { title = "Settings", { kind = "keyvalues", rows = o.settings } }
  return page
end

---Writes report.html into a folder. Raises when it cannot be written.
---@param folder string
---@param o table as for anonymisation.page
---@return string path
function anonymisation.write(folder, o)
  return html.write(files.join(folder, "report.html"), anonymisation.page(o))
end

return anonymisation
