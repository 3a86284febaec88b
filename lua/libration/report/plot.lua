-- Plots: figures of stacked panels with axes, drawn by one code onto a canvas of pixels (PNG, Cairo) or of text (SVG).
-- Knows numbers and labels, nothing of infants, networks or files other than the picture it is asked to write.

local files = require "libration.files"
local cairo = require "libration.report.cairo"
local draw = require "libration.report.draw"
local log = require "libration.log"
local svg = require "libration.report.svg"
local theme = require "libration.report.theme"

local plot = {}

---@class libration.report.Figure
---@field panels libration.report.Axes[]
local Figure = {}
Figure.__index = Figure

---@class libration.report.Axes one panel; every method returns the panel, so that calls chain
---@field figure libration.report.Figure
---@field marks table[] what is drawn, in order
local Axes = {}
Axes.__index = Axes

local FIGURE_OPTIONS = { width = "number", height = "number", title = "string", subtitle = "string", footer = "string", description = "string" }
local AXES_OPTIONS = {
  title = "string",
  xlabel = "string",
  ylabel = "string",
  x = "string",
  y = "string",
  xlim = "table",
  ylim = "table",
  categories = "table",
  weight = "number",
  grid = "boolean",
}
local MARK_OPTIONS = {
  label = "string",
  colour = "string",
  width = "number",
  style = "string",
  marker = "string",
  size = "number",
  alpha = "number",
  note = "string",
}
local KINDS = { linear = true, integer = true, time = true, log = true }
local STYLES = { solid = true, dashed = true, dotted = true }
local MARKERS = { circle = true, square = true, triangle = true, diamond = true, ring = true }

local function known(set)
  local names = {}
  for name in pairs(set) do
    names[#names + 1] = name
  end
  table.sort(names)
  return table.concat(names, ", ")
end

-- refuses unknown options and wrong types at the caller's line
local function options_of(given, set, what, level)
  if given == nil then
    return {}
  elseif type(given) ~= "table" then
    error(("%s: options are a %s, want a table"):format(what, type(given)), level + 1)
  end
  local copy = {}
  for name, value in pairs(given) do
    local want = set[name]
    if not want then
      error(("%s: unknown option %s, known: %s"):format(what, tostring(name), known(set)), level + 1)
    elseif type(value) ~= want then
      error(("%s: option %s is a %s, want a %s"):format(what, name, type(value), want), level + 1)
    end
    copy[name] = value
  end
  if copy.style and not STYLES[copy.style] then
    error(("%s: style %s, known: %s"):format(what, copy.style, known(STYLES)), level + 1)
  elseif copy.marker and not MARKERS[copy.marker] then
    error(("%s: marker %s, known: %s"):format(what, copy.marker, known(MARKERS)), level + 1)
  elseif copy.colour then
    local ok, err = pcall(theme.hex, copy.colour)
    if not ok then
      error(what .. ": " .. tostring(err):gsub("^[^\n:]+%.lua:%d+: ", ""), level + 1)
    end
  end
  return copy
end

-- a Lua array or a 1-D tensor as a Lua array of numbers; anything that is no finite number becomes NaN
local function values(v, what, level)
  if type(v) == "cdata" then
    local ok, list = pcall(function()
      return v:totable()
    end)
    if not ok then
      error(what .. ": came a cdata that is no tensor, want numbers", level + 1)
    end
    v = list
  end
  if type(v) ~= "table" then
    error(("%s: came a %s, want an array of numbers or a tensor"):format(what, type(v)), level + 1)
  end
  local out, n = {}, #v
  for i = 1, n do
    local x = v[i]
    if type(x) == "table" then
      error(what .. ": came a table of tables, want one dimension", level + 1)
    end
    out[i] = type(x) == "number" and x - x == 0 and x or 0 / 0
  end
  return out
end

---A figure.
---@param options { width: number?, height: number?, title: string?, subtitle: string?, footer: string?, description: string? }|nil
---width and height in units of 1/96 inch (720 and 360); description: what a screen reader says
---@return libration.report.Figure
function plot.figure(options)
  local o = options_of(options, FIGURE_OPTIONS, "plot.figure", 2)
  if (o.width or 1) <= 0 or (o.height or 1) <= 0 then
    error("plot.figure: width and height must be positive", 2)
  end
  return setmetatable({
    width = o.width or 720,
    height = o.height or 360,
    title = o.title,
    subtitle = o.subtitle,
    footer = o.footer,
    description = o.description,
    panels = {},
  }, Figure)
end

---Adds a panel below the ones there are.
---@param options table|nil title; xlabel, ylabel (put the unit in: "time, s"); x, y = "linear" | "integer" | "time" | "log";
---xlim, ylim = {lo, hi}; categories = names of rows, from the top, instead of a y axis; weight = share of the height (1); grid = false
---@return libration.report.Axes
function Figure:axes(options)
  local o = options_of(options, AXES_OPTIONS, "plot axes", 2)
  for _, name in ipairs { "x", "y" } do
    if o[name] and not KINDS[o[name]] then
      error(("plot axes: %s is %s, known: %s"):format(name, o[name], known(KINDS)), 2)
    end
  end
  local panel = setmetatable({ figure = self, options = o, marks = {}, colours = 0, show_legend = false }, Axes)
  self.panels[#self.panels + 1] = panel
  return panel
end

---Another panel of the same figure.
function Axes:axes(options)
  return self.figure:axes(options)
end

local function add(self, kind, o, fields)
  fields.kind = kind
  fields.o = o
  self.marks[#self.marks + 1] = fields
  return self
end

local function next_colour(self, o)
  if not o.colour then
    self.colours = self.colours + 1
    o.colour = theme.nth(self.colours)
  end
end

local function pair(x, y, what)
  local ys = values(y, what .. ": y", 3)
  local xs
  if x == nil then
    xs = {}
    for i = 1, #ys do
      xs[i] = i
    end
  else
    xs = values(x, what .. ": x", 3)
  end
  if #xs ~= #ys then
    error(("%s: %d x values and %d y values"):format(what, #xs, #ys), 3)
  end
  return xs, ys
end

---A line. NaN breaks it.
---@param x number[]|Tensor|nil nil: 1, 2, 3, ...
---@param y number[]|Tensor
---@param options { label: string?, colour: string?, width: number?, style: string?, marker: string? }|nil style solid | dashed | dotted
---@return libration.report.Axes
function Axes:line(x, y, options)
  local o = options_of(options, MARK_OPTIONS, "plot line", 2)
  local xs, ys = pair(x, y, "plot line")
  next_colour(self, o)
  return add(self, "line", o, { x = xs, y = ys })
end

---Points. With categories, y counts the rows from 1 at the top.
---@param x number[]|Tensor|nil
---@param y number[]|Tensor
---@param options { label: string?, colour: string?, marker: string?, size: number?, alpha: number? }|nil marker circle | square | triangle | diamond | ring
---@return libration.report.Axes
function Axes:dots(x, y, options)
  local o = options_of(options, MARK_OPTIONS, "plot dots", 2)
  local xs, ys = pair(x, y, "plot dots")
  next_colour(self, o)
  return add(self, "dots", o, { x = xs, y = ys })
end

---Horizontal bars from zero, one a category, from the top.
---@param lengths number[]|Tensor
---@param options { label: string?, colour: string? }|nil
---@return libration.report.Axes
function Axes:bars(lengths, options)
  local o = options_of(options, MARK_OPTIONS, "plot bars", 2)
  if not self.options.categories then
    error("plot bars: the axes have no categories", 2)
  end
  next_colour(self, o)
  return add(self, "bars", o, { x = values(lengths, "plot bars", 2) })
end

-- called in the tail of hline and vline, so that level 2 is their caller
local function rule(self, kind, v, options)
  local o = options_of(options, MARK_OPTIONS, "plot " .. kind, 2)
  if type(v) ~= "number" then
    error(("plot %s: came %s, want a number"):format(kind, type(v)), 2)
  elseif v - v ~= 0 then
    return self -- no threshold, no line
  end
  o.colour = o.colour or "threshold"
  return add(self, kind, o, { at = v })
end

---A line across at height v.
---@param v number
---@param options { label: string?, colour: string?, style: string?, note: string? }|nil label: in the legend; note: written on the line
---@return libration.report.Axes
function Axes:hline(v, options)
  return rule(self, "hline", v, options)
end

---A line from top to bottom at v.
---@param v number
---@param options { label: string?, colour: string?, style: string?, note: string? }|nil
---@return libration.report.Axes
function Axes:vline(v, options)
  return rule(self, "vline", v, options)
end

---Shaded stretches of x, with a solid bar on top so that they show in black and white too.
---@param list { [1]: number, [2]: number }[] begin and end
---@param options { label: string?, colour: string?, alpha: number? }|nil
---@return libration.report.Axes
function Axes:spans(list, options)
  local o = options_of(options, MARK_OPTIONS, "plot spans", 2)
  if type(list) ~= "table" then
    error("plot spans: came " .. type(list) .. ", want {{begin, end}, ...}", 2)
  end
  for i, span in ipairs(list) do
    if type(span) ~= "table" or type(span[1]) ~= "number" or type(span[2]) ~= "number" then
      error(("plot spans: entry %d is not {begin, end}"):format(i), 2)
    end
  end
  o.colour = o.colour or "flag"
  local finite = {}
  for _, span in ipairs(list) do
    if span[1] - span[1] == 0 and span[2] - span[2] == 0 then
      finite[#finite + 1] = span
    end
  end
  return add(self, "spans", o, { list = finite })
end

---A strip of cells a category: the larger a value, the stronger the colour. NaN leaves a cell empty.
---@param edges number[]|Tensor where the columns begin, and the end of the last: n + 1 values, growing
---@param rows number[][] a list of n values of at least 0 for each category
---@param options { label: string?, colour: string? }|nil
---@return libration.report.Axes
function Axes:heat(edges, rows, options)
  local o = options_of(options, MARK_OPTIONS, "plot heat", 2)
  if not self.options.categories or type(rows) ~= "table" or #rows ~= #self.options.categories then
    error("plot heat: want a list of values for each category", 2)
  end
  local xs, cells, largest = values(edges, "plot heat: edges", 2), {}, 0
  for i, row in ipairs(rows) do
    cells[i] = values(row, "plot heat: row " .. i, 2)
    if #cells[i] ~= #xs - 1 then
      error(("plot heat: row %d has %d values for %d columns"):format(i, #cells[i], #xs - 1), 2)
    end
    for _, v in ipairs(cells[i]) do
      largest = v > largest and v or largest
    end
  end
  o.colour = o.colour or "s1"
  return add(self, "heat", o, { edges = xs, rows = cells, largest = largest })
end

---Shows the legend: the label of every mark that has one.
---@return libration.report.Axes
function Axes:legend()
  self.show_legend = true
  return self
end

---The figure as SVG.
---@param options { inline: boolean?, width: number?, height: number?, dark: boolean?, id: string? }|nil inline: an element for a page, without title;
---width, height: other than the figure's; id: prefix of the ids inside, unique in a page
---@return string
function Figure:svg(options)
  local o = options or {}
  local canvas = svg.canvas(o.width or self.width, o.height or self.height, {
    inline = o.inline,
    dark = o.dark,
    id = o.id,
    title = self.title or self.description,
    label = self.title and self.description,
  })
  draw.figure(self, canvas, o.inline)
  return canvas:text_of()
end

---Writes the figure as .png or .svg, first under a temporary name. Raises when it cannot be written or Cairo is missing (PNG).
---@param path string
---@param options { scale: number?, dark: boolean? }|nil scale: pixels a unit in a PNG, 2
---@return string path
function Figure:save(path, options)
  local o = options or {}
  local extension = type(path) == "string" and path:lower():match "%.(%w+)$"
  if extension ~= "svg" and extension ~= "png" then
    error(("plot save: %s ends in neither .png nor .svg"):format(tostring(path)), 2)
  end
  local ok, err = pcall(function()
    if extension == "svg" then
      return files.write(path, self:svg { dark = o.dark })
    end
    local canvas = cairo.canvas(self.width, self.height, o.scale, o.dark)
    draw.figure(self, canvas, false)
    return files.replace(path, function(temporary)
      local written, why = canvas:png(temporary)
      if not written then
        error(("cannot write %s: %s"):format(path, why), 0)
      end
    end)
  end)
  if not ok then
    error((tostring(err):gsub("^[^\n:]+%.lua:%d+: ", "")), 2)
  end
  return path
end

---Writes the figure as stem.svg and stem.png. A machine without Cairo gets a warning in one line and no PNG, so that a run does not end
---without its report.
---@param stem string path; an ending .png or .svg is taken off
---@return string|nil png path
function Figure:offer(stem)
  stem = stem:gsub("%.png$", ""):gsub("%.svg$", "")
  self:save(stem .. ".svg")
  local found, missing = cairo.open()
  if not found then
    log.warn("%s.png is not drawn: %s", stem, missing)
    return nil
  end
  return self:save(stem .. ".png")
end

function Axes:svg(options)
  return self.figure:svg(options)
end

function Axes:save(path, options)
  return self.figure:save(path, options)
end

return plot
