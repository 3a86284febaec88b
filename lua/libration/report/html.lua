-- One self-contained HTML page from typed blocks: inline style and figures, no script, no network. Knows no meaning of what it shows.

local ffi = require "ffi"
local bit = require "bit"
local files = require "libration.files"
local svg = require "libration.report.svg"
local theme = require "libration.report.theme"

local html = {}

-- a number stays with its per cent sign
local function escape(text)
  return (svg.escape(text):gsub("(%d) %%", "%1\194\160%%"))
end

-- What a page looks like. Wide and narrow drawings of each figure stand in the page; a media query shows the one that fits.
local STYLE = [[
:root{color-scheme:light dark;--paper:#fff;--ground:#f4f5f7;--ink:#1c2128;--muted:#5b6470;--rule:#dfe3e8;--flag:#b54700;--flag-ground:#fdf0e6;
--good:#00694d;--good-ground:#e8f5f0;--note:#7a5200;--note-ground:#fdf6e3;--calm-ground:#eef1f5}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Liberation Sans",sans-serif;
font-variant-numeric:tabular-nums;overflow-wrap:break-word}
main{max-width:832px;margin:0 auto;padding:0 20px 48px}
.banner{background:var(--note-ground);color:var(--note);border-bottom:1px solid var(--rule);padding:12px 20px}
.banner div{max-width:792px;margin:0 auto}
.banner strong{display:block;font-size:17px}
.banner span{font-size:14.5px}
header{padding:28px 0 8px}
h1{font-size:28px;line-height:1.2;margin:0;font-weight:650;letter-spacing:-.01em}
h2{font-size:19px;line-height:1.3;margin:0 0 10px;font-weight:650}
p{margin:0 0 12px}
.under{color:var(--muted);margin:6px 0 0}
section{background:var(--paper);border:1px solid var(--rule);border-radius:10px;padding:22px 24px;margin-top:18px}
section>:last-child,.verdict>:last-child{margin-bottom:0}
.verdict{border-left:5px solid var(--muted);background:var(--calm-ground);border-radius:6px;padding:16px 20px;margin:0 0 16px}
.verdict.flag{border-color:var(--flag);background:var(--flag-ground)}
.verdict.good{border-color:var(--good);background:var(--good-ground)}
.verdict b{display:block;font-size:22px;line-height:1.3;margin-bottom:6px;font-weight:650}
.verdict.flag b{color:var(--flag)}.verdict.good b{color:var(--good)}
.verdict p{margin:0 0 4px}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:14px 20px;margin:0 0 16px}
.facts dt{color:var(--muted);font-size:13.5px;line-height:1.35}
.facts dd{margin:2px 0 0;font-size:21px;line-height:1.25;font-weight:600}
.facts dd small{display:block;color:var(--muted);font-size:13px;font-weight:400;line-height:1.35}
.scroll{overflow-x:auto;margin:0 0 12px}
table{border-collapse:collapse;width:100%;font-size:14.5px;line-height:1.4}
caption{text-align:left;color:var(--muted);padding:0 0 8px}
th,td{padding:7px 12px 7px 0;border-bottom:1px solid var(--rule);text-align:left;vertical-align:baseline}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--muted);font-weight:500;font-size:13px;vertical-align:bottom}
tbody th{font-weight:500}
tbody tr:last-child>*{border-bottom:0}
.number{text-align:right}td.number{white-space:nowrap}.number+td:not(.number),.number+th:not(.number){padding-left:14px}
td.short,th.short{white-space:nowrap}
.flagged{color:var(--flag);font-weight:600}.good{color:var(--good);font-weight:600}.muted{color:var(--muted)}
.strong>*{font-weight:600}
.pairs{display:grid;grid-template-columns:minmax(9em,max-content) 1fr;gap:4px 22px;margin:0 0 12px;font-size:14.5px}
.pairs dt{color:var(--muted)}.pairs dd{margin:0;min-width:0}
figure{margin:0 0 12px}
figure svg{display:block;width:100%;height:auto;overflow:visible}
figure img{display:block;max-width:100%;height:auto;border-radius:6px}
figcaption{color:var(--muted);font-size:14px;margin-top:8px}
.narrow{display:none}
.warnings{margin:0 0 12px;padding:0;list-style:none}
.warnings li{background:var(--note-ground);border-left:4px solid #e69f00;border-radius:4px;padding:9px 14px;margin-bottom:8px}
.warnings li::before{content:"Warning. ";font-weight:650;color:var(--note)}
.list{margin:0 0 12px;padding-left:20px}.list li{margin-bottom:4px}
.small{color:var(--muted);font-size:14px}
footer{color:var(--muted);font-size:13.5px;padding:20px 0 0}
@media (max-width:640px){
body{font-size:15.5px}main{padding:0 12px 32px}.banner{padding:10px 16px}header{padding:20px 4px 4px}h1{font-size:23px}
section{padding:16px 14px;border-radius:8px;margin-top:12px}.verdict{padding:13px 14px}.verdict b{font-size:19px}
.wide{display:none}.narrow{display:block}.facts{grid-template-columns:1fr 1fr}.facts dd{font-size:18px}
table{font-size:14px}th,td{padding-right:9px}.pairs{grid-template-columns:minmax(7em,40%) 1fr;gap:4px 14px}}
@media (prefers-color-scheme:dark){:root{--paper:%PAPER%;--ground:#0e1115;--ink:#e8eaed;--muted:#a3abb6;--rule:#2b313a;--flag:#ff9d66;--flag-ground:#2c1d14;
--good:#55d6ae;--good-ground:#10251f;--note:#f0cf86;--note-ground:#2a2313;--calm-ground:#1d2229}
%DARK%}
@media print{:root{color-scheme:light;--paper:#fff;--ground:#fff;--ink:#000;--muted:#444;--rule:#bbb;--flag:#8a3600;--flag-ground:#fff;--good:#004d38;--good-ground:#fff;
--note:#4a3200;--note-ground:#fff;--calm-ground:#fff}
body{font-size:11pt;background:#fff}main{max-width:none;padding:0}section{border:0;border-top:1px solid #bbb;border-radius:0;padding:12px 0;margin:0;break-inside:auto}
figure,table,.verdict,.facts,.warnings li{break-inside:avoid}h2{break-after:avoid}.banner{padding:8px 0;border-bottom:2px solid #000}.scroll{overflow:visible}
.wide{display:block}.narrow{display:none}
%LIGHT%}
@page{margin:16mm}
]]

local style

-- the colours of figures under the dark and the print media query
local function style_sheet()
  if not style then
    local sets = { {}, {} }
    local names = {}
    for role in pairs(theme.roles) do
      names[#names + 1] = role
    end
    table.sort(names)
    for _, role in ipairs(names) do
      for i = 1, 2 do
        local colour = theme.roles[role][i]
        sets[i][#sets[i] + 1] = (".fi-%s{fill:%s}.st-%s{stroke:%s}"):format(role, colour, role, colour)
      end
    end
    style = STYLE:gsub("%%(%u+)%%", {
      PAPER = theme.roles.paper[2],
      LIGHT = table.concat(sets[1]),
      DARK = table.concat(sets[2]),
    })
  end
  return style
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

local function cell_of(cell, align, tag)
  local text, tone = cell, nil
  if type(cell) == "table" then
    text, tone = cell.text, cell.tone
  end
  local classes = {}
  if align == "right" then
    classes[#classes + 1] = "number"
  elseif align == "short" then
    classes[#classes + 1] = "short"
  end
  classes[#classes + 1] = TONES[tone]
  local class = #classes > 0 and (' class="%s"'):format(table.concat(classes, " ")) or ""
  local name = tag == "row" and "th" or tag
  return ("<%s%s%s>%s</%s>"):format(name, tag == "row" and ' scope="row"' or tag == "th" and ' scope="col"' or "", class, escape(text == nil and "" or text), name)
end

local render = {}

function render.text(block)
  return ("<p%s>%s</p>"):format(block.small and ' class="small"' or "", escape(block.text))
end

function render.verdict(block)
  local out = { ('<div class="verdict %s"><b>%s</b>'):format(block.tone == "flag" and "flag" or block.tone == "good" and "good" or "calm", escape(block.head)) }
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
  local align = block.align or {}
  local out = { '<div class="scroll"><table>' }
  if block.caption then
    out[#out + 1] = "<caption>" .. escape(block.caption) .. "</caption>"
  end
  if block.head then
    local cells = {}
    for i, name in ipairs(block.head) do
      cells[i] = cell_of(name, align[i], "th")
    end
    out[#out + 1] = "<thead><tr>" .. table.concat(cells) .. "</tr></thead>"
  end
  out[#out + 1] = "<tbody>"
  for _, row in ipairs(block.rows) do
    local cells = {}
    for i = 1, math.max(#row, block.head and #block.head or 0) do
      cells[i] = cell_of(row[i], align[i], i == 1 and "row" or "td")
    end
    out[#out + 1] = (row.strong and '<tr class="strong">' or "<tr>") .. table.concat(cells) .. "</tr>"
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

function render.picture(block)
  local caption = block.caption and "<figcaption>" .. escape(block.caption) .. "</figcaption>" or ""
  return ('<figure><img alt="%s" src="data:%s;base64,%s">%s</figure>'):format(
    escape(block.alt or block.caption or "picture"), escape(block.type or "image/png"), html.base64(block.data), caption)
end

---@class libration.report.html.Block one of, by `kind`:
---verdict { head, lines = string[], tone = "flag" | "good" | "calm" };
---facts { items = { { label, value, note? } } };
---table { head = string[]?, rows = cell[][], align = ("left" | "right" | "short")[]?, caption?, note? }, a cell is a text, a number or
---{ text, tone = "flag" | "good" | "muted" }, a row may be strong = true;
---figure { figure = a plot, caption?, height?, narrow_height? };
---picture { data = bytes of a PNG or JPEG, type = "image/png", alt, caption? };
---keyvalues { rows = { { name, value } } }; warnings { list = string[] }; list { list = string[] }; text { text, small = boolean? }

---A whole page. Everything shown is escaped. Raises for a block of unknown kind.
---@param page { title: string, subtitle: string?, banner: string?, population: string, sections: table[], footer: string? } a section is
---{ title = string?, block, block, ... }; banner: "Research use, not a diagnosis." when nil; population: whom the model was trained on
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
    "<style>\n" .. style_sheet() .. "</style>",
    "</head>",
    "<body>",
    ('<div class="banner" role="note"><div><strong>%s</strong><span>%s</span></div></div>'):format(
      escape(page.banner or "Research use, not a diagnosis."), escape(page.population)),
    "<main>",
    "<header><h1>" .. escape(page.title) .. "</h1>",
  }
  local function put(text)
    out[#out + 1] = text
  end
  if page.subtitle then
    put('<p class="under">' .. escape(page.subtitle) .. "</p>")
  end
  put "</header>"
  for s, section in ipairs(page.sections) do
    put "<section>"
    if section.title then
      put("<h2>" .. escape(section.title) .. "</h2>")
    end
    for b, block in ipairs(section) do
      local by = render[block.kind]
      if not by then
        error(("html.page: section %d, block %d is of kind %s, known: facts, figure, keyvalues, list, picture, table, text, verdict, warnings"):format(
          s, b, tostring(block.kind)), 2)
      end
      put(by(block, ("f%d-%d"):format(s, b)))
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
