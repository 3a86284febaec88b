-- Lays a figure out and draws it onto a canvas. The canvas decides what comes of it; the figure is only read.

local ticks = require "libration.report.ticks"

local draw = {}

local TITLE, SUBTITLE, PANEL, TEXT, SMALL = 15, 12, 13, 11.5, 11
local MARGIN = 18
local DASHES = { dashed = { 6, 4 }, dotted = { 1.5, 3 } }
local NAN = 0 / 0

local floor, min, max, huge = math.floor, math.min, math.max, math.huge

-- the first part of a text that is no wider than `width`, at least one character, and the rest
local function split(canvas, text, width, size, bold)
  local cut = text
  while canvas:text_width(cut, size, bold) > width do
    local shorter = cut:gsub("[%z\1-\127\192-\255][\128-\191]*$", "")
    if shorter == "" or shorter == cut then
      break
    end
    cut = shorter
  end
  return cut, text:sub(#cut + 1)
end

-- lines of text no wider than `width`; a word that is wider alone goes on in the next line
local function wrap(canvas, text, width, size, bold)
  local lines, line = {}, ""
  for word in tostring(text):gmatch "%S+" do
    while canvas:text_width(word, size, bold) > width and #word > 1 do
      if line ~= "" then
        lines[#lines + 1] = line
        line = ""
      end
      local first, rest = split(canvas, word, width, size, bold)
      if rest == "" then
        break
      end
      lines[#lines + 1], word = first, rest
    end
    local longer = line == "" and word or line .. " " .. word
    if line ~= "" and canvas:text_width(longer, size, bold) > width then
      lines[#lines + 1] = line
      line = word
    else
      line = longer
    end
  end
  if line ~= "" then
    lines[#lines + 1] = line
  end
  return lines
end

-- text cut to a width, with an ellipsis
local function fit(canvas, text, width, size)
  if canvas:text_width(text, size) <= width then
    return text
  end
  return (split(canvas, text, width - canvas:text_width("...", size), size)) .. "..."
end

-- text cut in its middle: names of recordings often differ in their ends only
local function squeeze(canvas, text, width, size)
  if canvas:text_width(text, size) <= width then
    return text
  end
  local room = (width - canvas:text_width("...", size)) / 2
  local head, tail = split(canvas, text, room, size)
  while canvas:text_width(tail, size) > room do
    local shorter = tail:gsub("^[%z\1-\127\192-\255][\128-\191]*", "")
    if shorter == "" or shorter == tail then
      break
    end
    tail = shorter
  end
  return head .. "..." .. tail
end

local function range_of(panel)
  local x0, x1, y0, y1 = huge, -huge, huge, -huge
  local logx, logy = panel.options.x == "log", panel.options.y == "log"
  local function x(v)
    if v == v and v > -huge and v < huge and not (logx and v <= 0) then
      x0, x1 = min(x0, v), max(x1, v)
    end
  end
  local function y(v)
    if v == v and v > -huge and v < huge and not (logy and v <= 0) then
      y0, y1 = min(y0, v), max(y1, v)
    end
  end
  for _, mark in ipairs(panel.marks) do
    if mark.kind == "line" or mark.kind == "dots" then
      for i = 1, #mark.x do
        x(mark.x[i])
        y(mark.y[i])
      end
    elseif mark.kind == "bars" then
      x(0)
      for i = 1, #mark.x do
        x(mark.x[i])
      end
    elseif mark.kind == "heat" then
      for i = 1, #mark.edges do
        x(mark.edges[i])
      end
    elseif mark.kind == "hline" then
      y(mark.at)
    elseif mark.kind == "vline" then
      x(mark.at)
    end
  end
  return x0, x1, y0, y1
end

-- limits of both axes; time and curves fill the width, dots and bars keep a margin
local function limits(panel)
  local o = panel.options
  local x0, x1, y0, y1 = range_of(panel)
  if x0 > x1 then
    x0, x1 = o.x == "log" and 0.1 or 0, 1
  end
  if y0 > y1 then
    y0, y1 = o.y == "log" and 0.1 or 0, 1
  end
  local tight = false
  for _, mark in ipairs(panel.marks) do
    tight = tight or mark.kind == "line" or mark.kind == "heat"
  end
  if o.xlim then
    x0, x1 = o.xlim[1], o.xlim[2]
  elseif not tight or x1 - x0 <= 1e-9 * max(math.abs(x0), math.abs(x1)) then
    x0, x1 = ticks.limits(x0, x1, o.x)
  end
  if o.categories then
    y0, y1 = #o.categories + 0.5, 0.5
  elseif o.ylim then
    y0, y1 = o.ylim[1], o.ylim[2]
  else
    y0, y1 = ticks.limits(y0, y1, o.y)
  end
  return x0, x1, y0, y1
end

local function scale(lo, hi, from, to, kind)
  if kind == "log" then
    local a, b = math.log(lo), math.log(hi)
    return function(v)
      return v > 0 and from + (math.log(v) - a) / (b - a) * (to - from) or NAN
    end
  end
  local k = (to - from) / (hi - lo)
  return function(v)
    return from + (v - lo) * k
  end
end

-- At most a few points a column of pixels: each column keeps its first, lowest, highest and last point, so nothing that could be
-- seen is lost. A NaN stays.
local function thin(xs, ys, columns)
  local n = #xs
  if n <= 4 * columns then
    return xs, ys
  end
  local ox, oy, m = {}, {}, 0
  local bucket, first, last, low, high
  local function put(i)
    m = m + 1
    ox[m], oy[m] = xs[i], ys[i]
  end
  local function flush()
    if not first then
      return
    end
    local a, b = min(low, high), max(low, high)
    put(first)
    if a ~= first and a ~= last then
      put(a)
    end
    if b ~= a and b ~= first and b ~= last then
      put(b)
    end
    if last ~= first then
      put(last)
    end
    first = nil
  end
  for i = 1, n do
    local x, y = xs[i], ys[i]
    if x ~= x or y ~= y then
      flush()
      m = m + 1
      ox[m], oy[m] = NAN, NAN
    else
      local b = floor(x * 2)
      if not first or b ~= bucket then
        flush()
        bucket, first, last, low, high = b, i, i, i, i
      else
        last = i
        low = y < ys[low] and i or low
        high = y > ys[high] and i or high
      end
    end
  end
  flush()
  return ox, oy
end

local function marker(canvas, x, y, shape, size, colour, alpha)
  local r = size
  if shape == "square" then
    canvas:rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8, { fill = colour, alpha = alpha })
  elseif shape == "triangle" then
    canvas:path({ x - r * 1.15, x, x + r * 1.15 }, { y + r * 0.9, y - r * 1.15, y + r * 0.9 }, { fill = colour, alpha = alpha, closed = true })
  elseif shape == "diamond" then
    canvas:path({ x - r * 1.2, x, x + r * 1.2, x }, { y, y - r * 1.2, y, y + r * 1.2 }, { fill = colour, alpha = alpha, closed = true })
  elseif shape == "ring" then
    canvas:circle(x, y, r, { stroke = colour, width = 1.8 })
  else
    canvas:circle(x, y, r, { fill = colour, alpha = alpha })
  end
end

-- a note on a plot, on a ground of its own so that it reads on anything
local function note(canvas, x, y, text, anchor, colour, room)
  text = fit(canvas, text, room, SMALL)
  local w = canvas:text_width(text, SMALL)
  canvas:rect(anchor == "end" and x - w - 3 or x - 3, y - SMALL, w + 6, SMALL + 4, { fill = "paper", alpha = 0.82 })
  canvas:text(x, y, text, { size = SMALL, anchor = anchor, fill = colour })
end

local paint = {}

function paint.spans(canvas, mark, f)
  for _, span in ipairs(mark.list) do
    local a, b = max(f.x(span[1]), f.left), min(f.x(span[2]), f.right)
    if b - a < 1.5 then
      local middle = (a + b) / 2
      a, b = middle - 0.75, middle + 0.75
    end
    if b > f.left and a < f.right then
      canvas:rect(a, f.top, b - a, f.bottom - f.top, { fill = mark.o.colour, alpha = mark.o.alpha or 0.16 })
      canvas:rect(a, f.top, b - a, 3, { fill = mark.o.colour })
    end
  end
end

function paint.line(canvas, mark, f)
  local xs, ys = {}, {}
  for i = 1, #mark.x do
    xs[i], ys[i] = f.x(mark.x[i]), f.y(mark.y[i])
  end
  local px, py = thin(xs, ys, f.right - f.left)
  canvas:path(px, py, { stroke = mark.o.colour, width = mark.o.width or 1.8, dash = DASHES[mark.o.style], alpha = mark.o.alpha })
  if mark.o.marker then
    for i = 1, #xs do
      if xs[i] == xs[i] and ys[i] == ys[i] then
        marker(canvas, xs[i], ys[i], mark.o.marker, mark.o.size or 3.2, mark.o.colour)
      end
    end
  end
end

function paint.dots(canvas, mark, f)
  for i = 1, #mark.x do
    local x, y = f.x(mark.x[i]), f.y(mark.y[i])
    if x == x and y == y then
      marker(canvas, x, y, mark.o.marker or "circle", mark.o.size or 4.5, mark.o.colour, mark.o.alpha)
    end
  end
end

-- three digits of the longest bar, so that the values behind bars line up
local function step_of(mark)
  local largest = 0
  for i = 1, #mark.x do
    largest = max(largest, mark.x[i] == mark.x[i] and math.abs(mark.x[i]) or 0)
  end
  return 10 ^ (floor(math.log10(max(largest, 1e-12))) - 2)
end

function paint.bars(canvas, mark, f)
  local zero = f.x(0)
  local step = step_of(mark)
  for i = 1, #mark.x do
    local v = mark.x[i]
    if v == v then
      local x = f.x(v)
      local half = min(9, math.abs(f.y(1.5) - f.y(1)) * 0.62)
      canvas:rect(min(x, zero), f.y(i) - half, math.abs(x - zero), 2 * half, { fill = mark.o.colour, alpha = mark.o.alpha })
      canvas:text(max(x, zero) + 5, f.y(i) + SMALL * 0.35, ticks.number(v, step), { size = SMALL, fill = "muted" })
    end
  end
end

-- How strong a cell of a strip is drawn: never invisible, so that it differs from one without a value.
local function strength(v, largest)
  return 0.06 + 0.94 * (largest > 0 and max(v, 0) / largest or 0)
end

function paint.heat(canvas, mark, f)
  local function place(v)
    return floor(f.x(v) * 2 + 0.5) / 2 -- whole pixels of a PNG: no seams between neighbours
  end
  local half = min(13, math.abs(f.y(1.5) - f.y(1)) * 0.84)
  for i, row in ipairs(mark.rows) do
    local y = floor((f.y(i) - half) * 2 + 0.5) / 2
    for k, v in ipairs(row) do
      if v == v then
        local a = place(mark.edges[k])
        canvas:rect(a, y, place(mark.edges[k + 1]) - a, 2 * half, { fill = mark.o.colour, alpha = strength(v, mark.largest), crisp = true })
      end
    end
  end
end

function paint.hline(canvas, mark, f)
  local y = f.y(mark.at)
  canvas:path({ f.left, f.right }, { y, y }, { stroke = mark.o.colour, width = mark.o.width or 1.5, dash = DASHES[mark.o.style] })
  if mark.o.note then
    note(canvas, f.right - 4, y - 6, mark.o.note, "end", mark.o.colour, f.right - f.left - 8)
  end
end

function paint.vline(canvas, mark, f)
  local x = f.x(mark.at)
  canvas:path({ x, x }, { f.top, f.bottom }, { stroke = mark.o.colour, width = mark.o.width or 1.5, dash = DASHES[mark.o.style] })
  if mark.o.note then
    local left = x < (f.left + f.right) / 2
    note(canvas, left and x + 6 or x - 6, f.top + 10, mark.o.note, left and "start" or "end", mark.o.colour, (left and f.right - x or x - f.left) - 10)
  end
end

-- entries of the legend with the width each takes, cut into rows
local function legend_rows(canvas, panel, width)
  local rows, row, used = {}, {}, 0
  for _, mark in ipairs(panel.marks) do
    if mark.o.label then
      local text = fit(canvas, mark.o.label, width - 30, SMALL)
      local w = 26 + canvas:text_width(text, SMALL) + 18
      if used + w - 18 > width and #row > 0 then
        rows[#rows + 1] = row
        row, used = {}, 0
      end
      row[#row + 1] = { mark = mark, text = text, x = used }
      used = used + w
    end
  end
  if #row > 0 then
    rows[#rows + 1] = row
  end
  return rows
end

local function swatch(canvas, mark, x, y)
  local o = mark.o
  if mark.kind == "dots" then
    marker(canvas, x + 10, y, o.marker or "circle", min(o.size or 4.5, 4.5), o.colour)
  elseif mark.kind == "spans" then
    canvas:rect(x + 1, y - 5, 18, 10, { fill = o.colour, alpha = o.alpha or 0.16 })
    canvas:rect(x + 1, y - 5, 18, 2.5, { fill = o.colour })
  elseif mark.kind == "heat" then
    for i = 0, 3 do
      canvas:rect(x + 1 + 4.5 * i, y - 5, 4.5, 10, { fill = o.colour, alpha = strength(i, 3), crisp = true })
    end
  elseif mark.kind == "bars" then
    canvas:rect(x + 1, y - 5, 18, 10, { fill = o.colour, alpha = o.alpha or 0.85 })
  else
    canvas:path({ x + 1, x + 19 }, { y, y }, { stroke = o.colour, width = o.width or 1.8, dash = DASHES[o.style] })
    if o.marker then
      marker(canvas, x + 10, y, o.marker, 3.2, o.colour)
    end
  end
end

-- room behind bars for their values, nil where there are no bars
local function room_of_bars(canvas, panel)
  local room
  for _, mark in ipairs(panel.marks) do
    if mark.kind == "bars" then
      local step = step_of(mark)
      for i = 1, #mark.x do
        room = max(room or 30, canvas:text_width(ticks.number(mark.x[i], step), SMALL) + 9)
      end
    end
  end
  return room
end

-- title, legend and the y axis's name above a panel; gives the height where the plot begins
local function header(panel, canvas, x, top, w)
  local o = panel.options
  if o.title then
    for _, line in ipairs(wrap(canvas, o.title, w, PANEL, true)) do
      canvas:text(x, top + PANEL, line, { size = PANEL, bold = true })
      top = top + PANEL + 5
    end
    top = top + 3
  end
  if panel.show_legend then
    for _, row in ipairs(legend_rows(canvas, panel, w)) do
      for _, entry in ipairs(row) do
        swatch(canvas, entry.mark, x + entry.x, top + 7)
        canvas:text(x + entry.x + 26, top + 11, entry.text, { size = SMALL, fill = "ink" })
      end
      top = top + 18
    end
    top = top + 4
  end
  if o.ylabel then
    for _, line in ipairs(wrap(canvas, o.ylabel, w, SMALL)) do
      canvas:text(x, top + SMALL, line, { size = SMALL, fill = "muted" })
      top = top + SMALL + 4
    end
    top = top + 5
  end
  return top + 4
end

-- as many ticks of the x axis as their own text leaves room for
local function x_ticks_of(canvas, x0, x1, width, kind)
  local count = max(2, floor(width / 70))
  local list = ticks.make(x0, x1, count, kind)
  for _ = 1, 4 do
    local widest = 0
    for _, tick in ipairs(list) do
      widest = max(widest, canvas:text_width(tick[2], TEXT))
    end
    if #list < 2 or (#list * (widest + 14)) <= width or count <= 2 then
      break
    end
    count = max(2, floor(count * 0.7))
    list = ticks.make(x0, x1, count, kind)
  end
  return list
end

-- one panel inside the rectangle x, y, w, h
local function draw_panel(panel, canvas, x, y, w, h)
  local o = panel.options
  local top = header(panel, canvas, x, y, w)
  local bottom = y + h - 20 - (o.xlabel and 18 or 0)
  local x0, x1, y0, y1 = limits(panel)
  local y_ticks
  if o.categories then
    y_ticks = {}
    for i, name in ipairs(o.categories) do
      y_ticks[i] = { i, squeeze(canvas, tostring(name), w * 0.36, TEXT) }
    end
  else
    y_ticks = ticks.make(y0, y1, max(2, floor((bottom - top) / 34)), o.y)
  end
  local label_width = 0
  for _, tick in ipairs(y_ticks) do
    label_width = max(label_width, canvas:text_width(tick[2], TEXT))
  end
  local bars = room_of_bars(canvas, panel)
  local left, right = x + label_width + 9, x + w - (bars or 4)
  local f = { left = left, right = right, top = top, bottom = bottom }
  f.x = scale(x0, x1, left, right, o.x)
  f.y = scale(y0, y1, bottom, top, o.y)

  local x_ticks = x_ticks_of(canvas, x0, x1, right - left, o.x)
  -- the text of the last tick stays inside the figure
  local last = x_ticks[#x_ticks]
  if last then
    local over = f.x(last[1]) + canvas:text_width(last[2], TEXT) / 2 - (x + w)
    if over > 0 then
      right = right - over
      f.right = right
      f.x = scale(x0, x1, left, right, o.x)
    end
  end

  if o.grid ~= false then
    for _, tick in ipairs(bars and {} or y_ticks) do
      local gy = floor(f.y(tick[1])) + 0.5
      canvas:path({ left, right }, { gy, gy }, { stroke = "grid", width = 1, dash = o.categories and { 1.5, 3 } or nil })
    end
    if o.categories then
      for _, tick in ipairs(x_ticks) do
        local gx = floor(f.x(tick[1])) + 0.5
        canvas:path({ gx, gx }, { top, bottom }, { stroke = "grid", width = 1 })
      end
    end
  end
  for _, tick in ipairs(y_ticks) do
    canvas:text(left - 9, f.y(tick[1]) + TEXT * 0.35, tick[2], { size = TEXT, anchor = "end", fill = o.categories and "ink" or "muted" })
  end

  canvas:clip(left - 6, top - 6, x + w - left + 6, bottom - top + 7)
  for _, layer in ipairs { "spans", "bars", "heat" } do
    for _, mark in ipairs(panel.marks) do
      if mark.kind == layer then
        paint[mark.kind](canvas, mark, f)
      end
    end
  end
  for _, layer in ipairs { "line", "rule", "dots" } do
    for _, mark in ipairs(panel.marks) do
      if mark.kind == layer or layer == "rule" and (mark.kind == "hline" or mark.kind == "vline") then
        paint[mark.kind](canvas, mark, f)
      end
    end
  end
  canvas:unclip()

  local base = floor(bottom) + 0.5
  canvas:path({ left, right }, { base, base }, { stroke = "axis", width = 1 })
  for _, tick in ipairs(x_ticks) do
    local tx = f.x(tick[1])
    canvas:path({ floor(tx) + 0.5, floor(tx) + 0.5 }, { base, base + 4 }, { stroke = "axis", width = 1 })
    canvas:text(tx, bottom + 17, tick[2], { size = TEXT, anchor = "middle", fill = "muted" })
  end
  if o.xlabel then
    local middle = (left + right) / 2
    canvas:text(middle, bottom + 35, fit(canvas, o.xlabel, 2 * min(middle - x, x + w - middle), SMALL), { size = SMALL, anchor = "middle", fill = "muted" })
  end
end

---Draws a figure.
---@param figure libration.report.Figure
---@param canvas libration.report.CairoCanvas|libration.report.SvgCanvas
---@param bare boolean|nil without outer margin and title (a page gives them)
function draw.figure(figure, canvas, bare)
  local margin = bare and 2 or MARGIN
  local width = canvas.width - 2 * margin
  local y = margin
  if not bare then
    if figure.title then
      for _, line in ipairs(wrap(canvas, figure.title, width, TITLE, true)) do
        canvas:text(margin, y + TITLE, line, { size = TITLE, bold = true })
        y = y + TITLE + 6
      end
    end
    if figure.subtitle then
      for _, line in ipairs(wrap(canvas, figure.subtitle, width, SUBTITLE)) do
        canvas:text(margin, y + SUBTITLE, line, { size = SUBTITLE, fill = "muted" })
        y = y + SUBTITLE + 5
      end
    end
    if y > margin then
      y = y + 10
    end
  end
  local gap = 18
  local weights = 0
  for _, panel in ipairs(figure.panels) do
    weights = weights + (panel.options.weight or 1)
  end
  local foot = not bare and figure.footer and 16 or 0
  if foot > 0 then
    canvas:text(margin, canvas.height - margin + 2, fit(canvas, figure.footer, width, SMALL), { size = SMALL, fill = "muted" })
  end
  local room = canvas.height - margin - foot - y - gap * (#figure.panels - 1)
  for _, panel in ipairs(figure.panels) do
    local h = room * (panel.options.weight or 1) / weights
    draw_panel(panel, canvas, margin, y, width, h)
    y = y + h + gap
  end
end

return draw
