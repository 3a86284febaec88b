-- A canvas that emits SVG text, with the same calls as the Cairo canvas. Needs no library; knows nothing of axes or data.
--
-- Colours stand as attributes, for any viewer, and as classes ("st-s1" strokes, "fi-s1" fills), so that a page with a dark mode
-- recolours a figure by CSS. Widths of text are those of the wider of Helvetica (whose metrics most browsers' fonts share) and DejaVu Sans (what a bare Linux has).

local theme = require "libration.report.theme"

local svg = {}

-- larger of the advance widths of Helvetica (Adobe Font Metrics, Core 14) and DejaVu Sans, 1/1000 em, characters 32 to 126
local REGULAR = {
  318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636, 636, 636, 636,
  337, 337, 838, 838, 838, 556, 1015, 684, 686, 722, 770, 667, 611, 778, 752, 295, 500, 667, 557, 863, 748, 787, 667, 787, 722, 667,
  611, 732, 684, 989, 685, 667, 685, 390, 337, 390, 838, 556, 500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974,
  634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
}
local BOLD = 1.11 -- bold is wider by about this much
local OTHER, FULL = 650, 1000 -- any other character; those of East Asia and beyond

-- every byte of text that is no part of well-formed UTF-8 becomes "?" (lead byte, then 1 to 3 continuation bytes)
local function valid_utf8(text)
  if not text:find "[\128-\255]" then
    return text
  end
  local out, i = {}, 1
  while i <= #text do
    local byte = text:byte(i)
    local length = byte < 128 and 1 or byte >= 194 and byte < 224 and 2 or byte >= 224 and byte < 240 and 3 or byte >= 240 and byte < 245 and 4
    local piece = length and text:sub(i, i + length - 1)
    if length and (length == 1 or piece:match "^.[\128-\191]+$" and #piece == length) then
      out[#out + 1] = piece
      i = i + length
    else
      out[#out + 1] = "?"
      i = i + 1
    end
  end
  return table.concat(out)
end

---Escapes text for XML and HTML, attributes included. Bytes that XML forbids, broken UTF-8 and the marks that turn the writing
---direction of what follows (U+202A to U+202E, U+2066 to U+2069) become "?".
---@param text any
---@return string
function svg.escape(text)
  text = valid_utf8(tostring(text)):gsub("[%z\1-\8\11\12\14-\31\127]", "?")
  text = text:gsub("\226\128[\170-\174]", "?"):gsub("\226\129[\166-\169]", "?")
  return (text:gsub("[&<>\"']", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }))
end
local escape = svg.escape

local function round(v)
  local s = ("%.2f"):format(v)
  s = s:gsub("0+$", ""):gsub("%.$", "")
  return s == "-0" and "0" or s
end

---@class libration.report.SvgCanvas
---@field width number
---@field height number
local Canvas = {}
Canvas.__index = Canvas

---A canvas.
---@param width number logical units
---@param height number logical units
---@param options { inline: boolean?, title: string?, label: string?, dark: boolean?, id: string? }|nil inline: for a page (no namespace header,
---no ground); title, label: name and description that a screen reader says; id: prefix of the ids inside, unique in a page
---@return libration.report.SvgCanvas
function svg.canvas(width, height, options)
  options = options or {}
  return setmetatable({
    width = width,
    height = height,
    inline = options.inline or false,
    title = options.title or "Plot",
    label = options.label,
    dark = options.dark or false,
    id = options.id or "c",
    clips = 0,
    out = {},
  }, Canvas)
end

---Width of a line of text, estimated.
---@param text string UTF-8
---@param size number
---@param bold boolean|nil
---@return number width logical units
function Canvas:text_width(text, size, bold) -- luacheck: no self
  local sum = 0
  for i = 1, #text do
    local byte = text:byte(i)
    if byte < 128 then
      sum = sum + (REGULAR[byte - 31] or 0)
    elseif byte >= 192 then
      sum = sum + (byte >= 225 and byte ~= 226 and FULL or OTHER)
    end
  end
  return sum * size / 1000 * (bold and BOLD or 1)
end

local function push(self, ...)
  self.out[#self.out + 1] = table.concat { ... }
end

---Text with its baseline at y.
---@param x number
---@param y number
---@param text string UTF-8, one line
---@param style { size: number, bold: boolean?, anchor: string?, fill: string? }
function Canvas:text(x, y, text, style)
  local role = style.fill or "ink"
  push(
    self, '<text x="', round(x), '" y="', round(y), '" font-size="', round(style.size), '"',
    style.bold and ' font-weight="bold"' or "", style.anchor and style.anchor ~= "start" and ' text-anchor="' .. style.anchor .. '"' or "",
    theme.roles[role] and ' class="fi-' .. role .. '"' or "", ' fill="', theme.hex(role, self.dark), '">', escape(text), "</text>"
  )
end

local function look(self, style)
  local parts, classes = {}, {}
  local function add(...)
    parts[#parts + 1] = table.concat { ... }
  end
  if style.fill then
    add(' fill="', theme.hex(style.fill, self.dark), '"')
    if style.alpha and style.alpha < 1 then
      add(' fill-opacity="', round(style.alpha), '"')
    end
    classes[#classes + 1] = theme.roles[style.fill] and "fi-" .. style.fill or nil
  else
    add ' fill="none"'
  end
  if style.stroke then
    add(' stroke="', theme.hex(style.stroke, self.dark), '" stroke-width="', round(style.width or 1), '"')
    if style.alpha and style.alpha < 1 and not style.fill then
      add(' stroke-opacity="', round(style.alpha), '"')
    end
    if style.dash then
      add(' stroke-dasharray="', table.concat(style.dash, " "), '"')
    else
      add ' stroke-linecap="round"'
    end
    add ' stroke-linejoin="round"'
    classes[#classes + 1] = theme.roles[style.stroke] and "st-" .. style.stroke or nil
  end
  if #classes > 0 then
    add(' class="', table.concat(classes, " "), '"')
  end
  return table.concat(parts)
end

---A path through points; a NaN lifts the pen, a lone point becomes a dot.
---@param xs number[]
---@param ys number[]
---@param style { stroke: string?, width: number?, dash: number[]?, fill: string?, alpha: number?, closed: boolean? }
function Canvas:path(xs, ys, style)
  local d, down, n = {}, false, #xs
  for i = 1, n do
    local x, y = xs[i], ys[i]
    if x ~= x or y ~= y then
      down = false
    elseif down then
      d[#d + 1] = round(x) .. " " .. round(y)
    else
      d[#d + 1] = "M" .. round(x) .. " " .. round(y) .. "L" .. round(x) .. " " .. round(y)
      down = true
    end
  end
  if #d == 0 then
    return
  end
  push(self, '<path d="', table.concat(d, " "), style.closed and "Z" or "", '"', look(self, style), "/>")
end

---A rectangle.
---@param x number
---@param y number
---@param w number
---@param h number
---@param style { fill: string?, alpha: number?, stroke: string?, width: number?, crisp: boolean? } crisp: edges on whole pixels, so that neighbours meet
function Canvas:rect(x, y, w, h, style)
  push(
    self, '<rect x="', round(x), '" y="', round(y), '" width="', round(w), '" height="', round(h), '"', look(self, style),
    style.crisp and ' shape-rendering="crispEdges"/>' or "/>"
  )
end

---A disc.
---@param x number
---@param y number
---@param radius number
---@param style { fill: string?, alpha: number?, stroke: string?, width: number? }
function Canvas:circle(x, y, radius, style)
  push(self, '<circle cx="', round(x), '" cy="', round(y), '" r="', round(radius), '"', look(self, style), "/>")
end

---Draws only inside the rectangle until `unclip`.
function Canvas:clip(x, y, w, h)
  self.clips = self.clips + 1
  local id = self.id .. self.clips
  push(
    self, '<clipPath id="', id, '"><rect x="', round(x), '" y="', round(y), '" width="', round(w), '" height="', round(h),
    '"/></clipPath><g clip-path="url(#', id, ')">'
  )
end

function Canvas:unclip()
  push(self, "</g>")
end

---The whole document (or element, when inline).
---@return string
function Canvas:text_of()
  local w, h = round(self.width), round(self.height)
  local head = {
    self.inline and "" or '<?xml version="1.0" encoding="UTF-8"?>\n',
    "<svg",
    self.inline and "" or ' xmlns="http://www.w3.org/2000/svg"',
    ' width="', w, '" height="', h, '" viewBox="0 0 ', w, " ", h, '" role="img" aria-labelledby="', self.id, "-t", self.label and " " .. self.id .. "-d" or "",
    '" font-family="', escape(theme.css_family), '">\n<title id="', self.id, '-t">', escape(self.title), "</title>\n",
    self.label and '<desc id="' .. self.id .. '-d">' .. escape(self.label) .. "</desc>\n" or "",
  }
  if not self.inline then
    head[#head + 1] = ('<rect width="%s" height="%s" fill="%s"/>\n'):format(w, h, theme.hex("paper", self.dark))
  end
  return table.concat(head) .. table.concat(self.out, "\n") .. "\n</svg>\n"
end

return svg
