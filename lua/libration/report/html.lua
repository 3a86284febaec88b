-- One self-contained HTML page from typed blocks: inline style and figures, no script, no network. Knows no meaning of what it shows.

local ffi = require "ffi"
local bit = require "bit"
local files = require "libration.files"
local svg = require "libration.report.svg"
local style = require "libration.report.style"

local html = {}

-- a number stays with its per cent sign
local function escape(text)
  return (svg.escape(text):gsub("(%d) %%", "%1\194\160%%"))
end

-- units that the two drawings of a figure are wide; shown on a page they are a little enlarged, and their text with them
local WIDE, NARROW = 660, 310

local DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

---Base64 of a string of bytes (RFC 4648).
---@param bytes string
---@return string
function html.base64(bytes)
  local n = #bytes
  local out = ffi.new("uint8_t[?]", math.ceil(n / 3) * 4)
  local digit = ffi.cast("const uint8_t *", DIGITS)
  local p = ffi.cast("const uint8_t *", bytes)
  local j = 0
  for i = 0, n - 1, 3 do
    local v = p[i] * 65536 + (i + 1 < n and p[i + 1] or 0) * 256 + (i + 2 < n and p[i + 2] or 0)
    out[j] = digit[bit.rshift(v, 18)]
    out[j + 1] = digit[bit.band(bit.rshift(v, 12), 63)]
    out[j + 2] = i + 1 < n and digit[bit.band(bit.rshift(v, 6), 63)] or 61
    out[j + 3] = i + 2 < n and digit[bit.band(v, 63)] or 61
    j = j + 4
  end
  return ffi.string(out, j)
end

local TONES = { flag = "flagged", good = "good", muted = "muted" }
-- Longer texts of a cell may break anywhere.
local LONG = 24

-- A relative address: every byte that an address may not hold is written as %xx, so that no name becomes a scheme or leaves the attribute.
local function address(path)
  return "./" .. path:gsub("[^%w%-%._~/]", function(c)
    return ("%%%02X"):format(c:byte())
  end)
end

-- one cell; on a phone each row of a wide table becomes a card whose cells carry the name of their column
local function cell_of(cell, align, tag, label)
  local text, tone, link = cell, nil, nil
  if type(cell) == "table" then
    text, tone, link = cell.text, cell.tone, cell.link
  end
  text = text == nil and "" or tostring(text)
  local classes = {}
  if align == "right" then
    classes[#classes + 1] = "number"
  elseif tag ~= "th" and not text:find(" ", 1, true) and #text > LONG then
    classes[#classes + 1] = "long"
  elseif align == "short" then
    classes[#classes + 1] = "short"
  end
  classes[#classes + 1] = TONES[tone]
  local attributes = tag == "row" and ' scope="row"' or tag == "th" and ' scope="col"' or ""
  if #classes > 0 then
    attributes = attributes .. (' class="%s"'):format(table.concat(classes, " "))
  end
  if label then
    attributes = attributes .. ' role="' .. (tag == "row" and "rowheader" or tag == "th" and "columnheader" or "cell") .. '"'
    if tag == "td" and label ~= "" then
      attributes = attributes .. (' data-label="%s"'):format(escape(label))
    end
  end
  local name = tag == "row" and "th" or tag
  text = escape(text)
  if link then
    text = ('<a href="%s">%s</a>'):format(escape(address(link)), text)
  end
  return ("<%s%s>%s</%s>"):format(name, attributes, text, name)
end

local render = {}

function render.text(block)
  return ('<p class="%s">%s</p>'):format(block.small and "small" or "text", escape(block.text))
end

function render.heading(block)
  return "<h3>" .. escape(block.text) .. "</h3>"
end

function render.verdict(block)
  local tone = block.tone == "flag" and "flag" or block.tone == "good" and "good" or "calm"
  local out = { ('<div class="verdict %s">%s<b>%s</b>'):format(tone, block.by and "<small>" .. escape(block.by) .. "</small>" or "", escape(block.head)) }
  for _, line in ipairs(block.lines or {}) do
    out[#out + 1] = "<p>" .. escape(line) .. "</p>"
  end
  out[#out + 1] = "</div>"
  return table.concat(out, "\n")
end

function render.facts(block)
  local out = { '<dl class="facts">' }
  for _, item in ipairs(block.items) do
    out[#out + 1] = ("<div><dt>%s</dt><dd>%s%s</dd></div>"):format(
      escape(item.label), escape(item.value), item.note and "<small>" .. escape(item.note) .. "</small>" or "")
  end
  out[#out + 1] = "</dl>"
  return table.concat(out, "\n")
end

function render.table(block)
  local align, head = block.align or {}, block.head or {}
  local cards = #head >= 4
  local function role(name)
    return cards and (' role="%s"'):format(name) or ""
  end
  local out = { ('<div class="scroll"><table%s%s>'):format(#head >= 7 and ' class="many"' or cards and ' class="cards"' or "", role "table") }
  if #head > 0 then
    local cells = {}
    for i, name in ipairs(head) do
      cells[i] = cell_of(name, align[i], "th", cards and "" or nil)
    end
    out[#out + 1] = ("<thead%s><tr%s>%s</tr></thead>"):format(role "rowgroup", role "row", table.concat(cells, "\n"))
  end
  out[#out + 1] = ("<tbody%s>"):format(role "rowgroup")
  for _, row in ipairs(block.rows) do
    local cells = {}
    for i = 1, math.max(#row, #head) do
      cells[i] = cell_of(row[i], align[i], i == 1 and "row" or "td", cards and tostring(head[i] or "") or nil)
    end
    out[#out + 1] = ("<tr%s>%s</tr>"):format(role "row", table.concat(cells, "\n"))
  end
  out[#out + 1] = "</tbody></table></div>"
  if block.note then
    out[#out + 1] = '<p class="small">' .. escape(block.note) .. "</p>"
  end
  return table.concat(out, "\n")
end

function render.keyvalues(block)
  local out = { '<dl class="pairs">' }
  for _, row in ipairs(block.rows) do
    out[#out + 1] = ("<dt>%s</dt><dd>%s</dd>"):format(escape(row[1]), escape(row[2]))
  end
  out[#out + 1] = "</dl>"
  return table.concat(out, "\n")
end

local function listing(block, class)
  local out = { ('<ul class="%s">'):format(class) }
  for _, line in ipairs(block.list) do
    out[#out + 1] = "<li>" .. escape(line) .. "</li>"
  end
  out[#out + 1] = "</ul>"
  return table.concat(out, "\n")
end

function render.warnings(block)
  return listing(block, "warnings")
end

function render.list(block)
  return listing(block, "list")
end

function render.figure(block, id)
  local figure = block.figure
  local height = block.height or figure.height
  local wide = figure:svg { inline = true, width = WIDE, height = height, id = id .. "w" }
  local narrow = figure:svg { inline = true, width = NARROW, height = block.narrow_height or height, id = id .. "n" }
  local caption = block.caption and "<figcaption>" .. escape(block.caption) .. "</figcaption>" or ""
  return ('<figure><div class="wide">%s</div><div class="narrow">%s</div>%s</figure>'):format(wide, narrow, caption)
end

local LEVELS = { error = "Error", warning = "Warning", note = "Note" }
local DETAILS = 12

function render.findings(block)
  local out = { '<ul class="findings">' }
  for _, f in ipairs(block.list) do
    local level = LEVELS[f.level] and f.level or "note"
    local more = {}
    for i = 1, math.min(#(f.detail or {}), DETAILS) do
      more[i] = "<li>" .. escape(f.detail[i]) .. "</li>"
    end
    if f.detail and #f.detail > DETAILS then
      more[#more + 1] = ("<li>and %d more</li>"):format(#f.detail - DETAILS)
    end
    out[#out + 1] = ('<li class="%s"><b>%s.</b> %s%s</li>'):format(
      level, LEVELS[level], escape(f.text), #more > 0 and "<ul>" .. table.concat(more) .. "</ul>" or "")
  end
  out[#out + 1] = "</ul>"
  return table.concat(out, "\n")
end

local function picture(item)
  local caption = item.caption and "<figcaption>" .. escape(item.caption) .. "</figcaption>" or ""
  if item.canvas then
    return "<figure>" .. item.canvas:text_of() .. caption .. "</figure>"
  end
  return ('<figure><img alt="%s" src="data:%s;base64,%s">%s</figure>'):format(
    escape(item.alt or item.caption or "picture"), escape(item.type), html.base64(item.data), caption)
end

function render.gallery(block)
  local out = { ('<div class="gallery%s">'):format(block.small and " small" or "") }
  for _, item in ipairs(block.items) do
    out[#out + 1] = picture(item)
  end
  out[#out + 1] = "</div>"
  return table.concat(out, "\n")
end

local function block_of(block, id, where, level)
  local by = render[block.kind]
  if not by then
    local known = {}
    for kind in pairs(render) do
      known[#known + 1] = kind
    end
    table.sort(known)
    error(("html.page: %s is of kind %s, known: %s"):format(where, tostring(block.kind), table.concat(known, ", ")), level + 1)
  end
  return by(block, id)
end

function render.fold(block, id)
  local out = { ("<details%s><summary>%s</summary>"):format(block.open and " open" or "", escape(block.summary)) }
  for i, inner in ipairs(block) do
    out[#out + 1] = block_of(inner, id .. "-" .. i, "block " .. i .. " of a fold", 1)
  end
  out[#out + 1] = "</details>"
  return table.concat(out, "\n")
end

---@class libration.report.html.Block one of, by `kind`:
---text { text, small = boolean? }; heading { text };
---verdict { head, by = whose verdict?, lines = string[], tone = "flag" | "good" | "calm" };
---facts { items = { { label, value, note? } } };
---table { head = string[]?, rows = cell[][], align = ("left" | "right" | "short")[]?, note? }, a cell is a text, a number or
---{ text, tone = "flag" | "good" | "muted", link = relative path }; four columns and more become cards on a phone, seven on a tablet;
---figure { figure = a plot, caption?, height?, narrow_height? };
---gallery { items = { { data = bytes of a picture, type = "image/jpeg" or another, alt? } | { canvas = an SvgCanvas }, each with caption? }, small = boolean? };
---keyvalues { rows = { { name, value } } }; warnings { list = string[] }; list { list = string[] };
---findings { list = { level = "error" | "warning" | "note", text, detail = string[]? }[] };
---fold { summary, open = boolean?, block, block, ... }: closed on the screen until asked for, open in print

-- "Error over time" -> "error-over-time", for links inside the page
local function anchor(title, s)
  local name = title:lower():gsub("[^%w]+", "-"):gsub("^%-+", ""):gsub("%-+$", "")
  return (name == "" or #name > 60) and "part-" .. s or name
end

---A whole page. Everything shown is escaped. Raises for a block of unknown kind.
---@param page { title: string, subtitle: string?, banner: string?, population: string, stamp: string?, roomy: boolean?, sections: table[], footer: string? } a section is
---{ title = string?, block, block, ... }; banner: "Research use, not a diagnosis." when nil; population: whom the model was trained on;
---stamp: what makes the whole page unfit to quote, over everything and on every printed page; roomy: wider, for a page that is one table
---@return string
function html.page(page)
  if type(page.title) ~= "string" or type(page.population) ~= "string" then
    error("html.page: title and population must be texts", 2)
  end
  local out = {
    "<!DOCTYPE html>",
    '<html lang="en">',
    "<head>",
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">",
    '<meta name="generator" content="libration">',
    "<title>" .. escape(page.title) .. "</title>",
    "<style>\n" .. style.sheet(page.stamp ~= nil) .. "</style>",
    "</head>",
    page.roomy and '<body class="roomy">' or "<body>",
  }
  local function put(text)
    out[#out + 1] = text
  end
  if page.stamp then
    put('<div class="stamp" role="note"><div>' .. escape(page.stamp) .. '</div></div><div class="watermark" aria-hidden="true">LEAK ALLOWED</div>')
  end
  put(('<div class="banner" role="note"><div><strong>%s</strong><span>%s</span></div></div>'):format(
    escape(page.banner or "Research use, not a diagnosis."), escape(page.population)))
  put "<main>"
  put("<header><h1>" .. escape(page.title) .. "</h1>")
  if page.subtitle then
    put('<p class="under">' .. escape(page.subtitle) .. "</p>")
  end
  local links = {}
  for s, section in ipairs(page.sections) do
    if section.title then
      links[#links + 1] = ('<a href="#%s">%s</a>'):format(anchor(section.title, s), escape(section.title))
    end
  end
  if #links >= 5 then
    put('<nav aria-label="Contents">' .. table.concat(links, "\n") .. "</nav>")
  end
  put "</header>"
  for s, section in ipairs(page.sections) do
    put(section.title and ('<section id="%s">\n<h2>%s</h2>'):format(anchor(section.title, s), escape(section.title)) or "<section>")
    for b, block in ipairs(section) do
      put(block_of(block, ("f%d-%d"):format(s, b), ("section %d, block %d"):format(s, b), 2))
    end
    put "</section>"
  end
  put("<footer>" .. escape(page.footer or "Made by libration. This file needs no network and holds everything it shows.") .. "</footer>")
  put "</main>\n</body>\n</html>\n"
  return table.concat(out, "\n")
end

---Writes a page to a file, first under a temporary name. Raises when it cannot be written.
---@param path string
---@param page table as for `html.page`
---@return string path
function html.write(path, page)
  return files.write(path, html.page(page))
end

return html
