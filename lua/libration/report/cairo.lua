-- Cairo through FFI: the few calls that plots and overlays need, and a canvas that writes PNG. Knows nothing of axes or data.
--
-- The library is opened when something is drawn, never on require: a machine without it still trains, scores and writes HTML.

local ffi = require "ffi"
local bit = require "bit"
local theme = require "libration.report.theme"

local cairo = {}

ffi.cdef [[
typedef struct _cairo cairo_t;
typedef struct _cairo_surface cairo_surface_t;
typedef struct { double x_bearing, y_bearing, width, height, x_advance, y_advance; } libration_cairo_extents;
typedef struct _cairo_font_options cairo_font_options_t;

cairo_surface_t *cairo_image_surface_create(int format, int width, int height);
cairo_surface_t *cairo_image_surface_create_for_data(unsigned char *data, int format, int width, int height, int stride);
cairo_surface_t *cairo_image_surface_create_from_png(const char *filename);
unsigned char *cairo_image_surface_get_data(cairo_surface_t *surface);
int cairo_image_surface_get_width(cairo_surface_t *surface);
int cairo_image_surface_get_height(cairo_surface_t *surface);
int cairo_image_surface_get_stride(cairo_surface_t *surface);
int cairo_image_surface_get_format(cairo_surface_t *surface);
void cairo_surface_flush(cairo_surface_t *surface);
void cairo_surface_mark_dirty(cairo_surface_t *surface);
int cairo_surface_status(cairo_surface_t *surface);
int cairo_surface_write_to_png(cairo_surface_t *surface, const char *filename);
void cairo_surface_destroy(cairo_surface_t *surface);
cairo_t *cairo_create(cairo_surface_t *target);
int cairo_status(cairo_t *cr);
const char *cairo_status_to_string(int status);
void cairo_destroy(cairo_t *cr);
void cairo_save(cairo_t *cr);
void cairo_restore(cairo_t *cr);
void cairo_scale(cairo_t *cr, double sx, double sy);
void cairo_set_source_rgba(cairo_t *cr, double red, double green, double blue, double alpha);
void cairo_set_line_width(cairo_t *cr, double width);
void cairo_set_line_cap(cairo_t *cr, int line_cap);
void cairo_set_line_join(cairo_t *cr, int line_join);
void cairo_set_dash(cairo_t *cr, const double *dashes, int num_dashes, double offset);
void cairo_new_path(cairo_t *cr);
void cairo_new_sub_path(cairo_t *cr);
void cairo_move_to(cairo_t *cr, double x, double y);
void cairo_line_to(cairo_t *cr, double x, double y);
void cairo_arc(cairo_t *cr, double xc, double yc, double radius, double angle1, double angle2);
void cairo_rectangle(cairo_t *cr, double x, double y, double width, double height);
void cairo_close_path(cairo_t *cr);
void cairo_stroke(cairo_t *cr);
void cairo_fill(cairo_t *cr);
void cairo_fill_preserve(cairo_t *cr);
void cairo_paint(cairo_t *cr);
void cairo_clip(cairo_t *cr);
void cairo_select_font_face(cairo_t *cr, const char *family, int slant, int weight);
void cairo_set_font_size(cairo_t *cr, double size);
void cairo_show_text(cairo_t *cr, const char *utf8);
void cairo_text_extents(cairo_t *cr, const char *utf8, libration_cairo_extents *extents);
cairo_font_options_t *cairo_font_options_create(void);
void cairo_font_options_destroy(cairo_font_options_t *options);
void cairo_font_options_set_hint_style(cairo_font_options_t *options, int hint_style);
void cairo_font_options_set_hint_metrics(cairo_font_options_t *options, int hint_metrics);
void cairo_font_options_set_antialias(cairo_font_options_t *options, int antialias);
char *strerror(int code);
void cairo_set_font_options(cairo_t *cr, const cairo_font_options_t *options);
]]

local ARGB32, RGB24 = 0, 1
local ROUND = 1
local WRITE_ERROR, ENOSPC = 11, 28
local NAMES = { "libcairo.so.2", "cairo" }

local opened

---The library itself, opened on the first call.
---@return ffi.namespace*|nil lib
---@return string|nil err one line: what is missing and how to get it
function cairo.open()
  if opened then
    return opened
  end
  for _, name in ipairs(NAMES) do
    local ok, lib = pcall(ffi.load, name)
    if ok then
      opened = lib
      return opened
    end
  end
  return nil, "cairo: libcairo.so.2 was not found, it is needed to draw pictures (Debian: apt-get install libcairo2)"
end

local function lib(level)
  local found, err = cairo.open()
  if not found then
    error(err, level + 1)
  end
  return found
end

local function check(library, status, what)
  if status ~= 0 then
    return nil, what .. ": " .. ffi.string(library.cairo_status_to_string(status))
  end
  return true
end

---@class libration.report.CairoCanvas
---@field cr ffi.cdata* the cairo_t, for what the canvas has no call for
---@field width number logical units
---@field height number logical units
local Canvas = {}
Canvas.__index = Canvas

local function context(library, surface, scale)
  local cr = ffi.gc(library.cairo_create(surface), library.cairo_destroy)
  library.cairo_scale(cr, scale, scale)
  local options = library.cairo_font_options_create()
  library.cairo_font_options_set_hint_style(options, 1) -- none: glyphs keep their shape at any scale
  library.cairo_font_options_set_hint_metrics(options, 1) -- off: widths add up
  library.cairo_font_options_set_antialias(options, 2) -- grey: no colour fringes
  library.cairo_set_font_options(cr, options)
  library.cairo_font_options_destroy(options)
  library.cairo_set_line_join(cr, ROUND)
  return cr
end

---A canvas of its own. Raises when Cairo is missing or the size cannot be had.
---@param width number logical units (1/96 inch)
---@param height number logical units
---@param scale number|nil pixels a unit, 2 when nil
---@param dark boolean|nil colours for a dark ground
---@return libration.report.CairoCanvas
function cairo.canvas(width, height, scale, dark)
  local library = lib(2)
  scale = scale or 2
  local w, h = math.floor(width * scale + 0.5), math.floor(height * scale + 0.5)
  local surface = ffi.gc(library.cairo_image_surface_create(RGB24, w, h), library.cairo_surface_destroy)
  local ok, err = check(library, library.cairo_surface_status(surface), ("cairo: picture of %dx%d"):format(w, h))
  if not ok then
    error(err, 2)
  end
  local self = setmetatable({
    lib = library,
    surface = surface,
    cr = context(library, surface, scale),
    width = width,
    height = height,
    dark = dark or false,
    extents = ffi.new "libration_cairo_extents",
  }, Canvas)
  self:colour("paper")
  library.cairo_paint(self.cr)
  return self
end

---A canvas over pixels that somebody else owns (an overlay on a frame). Keep `pixels` alive while drawing.
---@param pixels ffi.cdata* uint8_t*, 4 bytes a pixel: blue, green, red, unused
---@param width integer pixels
---@param height integer pixels
---@param stride integer bytes a row, a multiple of 4
---@return libration.report.CairoCanvas
function cairo.over(pixels, width, height, stride)
  local library = lib(2)
  local surface = library.cairo_image_surface_create_for_data(pixels, RGB24, width, height, stride)
  surface = ffi.gc(surface, library.cairo_surface_destroy)
  local ok, err = check(library, library.cairo_surface_status(surface), ("cairo: picture of %dx%d"):format(width, height))
  if not ok then
    error(err, 2)
  end
  return setmetatable({
    lib = library,
    surface = surface,
    cr = context(library, surface, 1),
    width = width,
    height = height,
    dark = false,
    anchor = pixels,
    extents = ffi.new "libration_cairo_extents",
  }, Canvas)
end

---Reads a PNG back, for checks: how much of it is not of the colour of its first pixel.
---@param path string
---@return { width: integer, height: integer, painted: number, colours: integer }|nil picture painted = share of pixels, 0..1
---@return string|nil err
function cairo.inspect(path)
  local library, why = cairo.open()
  if not library then
    return nil, why
  end
  local surface = ffi.gc(library.cairo_image_surface_create_from_png(path), library.cairo_surface_destroy)
  local ok, err = check(library, library.cairo_surface_status(surface), path)
  if not ok then
    return nil, err
  end
  library.cairo_surface_flush(surface)
  local width = library.cairo_image_surface_get_width(surface)
  local height = library.cairo_image_surface_get_height(surface)
  local stride = library.cairo_image_surface_get_stride(surface)
  local format = library.cairo_image_surface_get_format(surface)
  if format ~= RGB24 and format ~= ARGB32 then
    return nil, path .. ": not a picture of 8-bit colour"
  end
  local data = library.cairo_image_surface_get_data(surface)
  local first = bit.band(ffi.cast("uint32_t *", data)[0], 0xffffff)
  local painted, colours, seen = 0, 0, {}
  for y = 0, height - 1 do
    local row = ffi.cast("uint32_t *", data + y * stride)
    for x = 0, width - 1 do
      local value = bit.band(row[x], 0xffffff)
      if value ~= first then
        painted = painted + 1
      end
      if not seen[value] then
        seen[value] = true
        colours = colours + 1
      end
    end
  end
  return { width = width, height = height, painted = painted / (width * height), colours = colours }
end

---Sets the colour of what is drawn next.
---@param role string a role of the theme, or "#rrggbb"
---@param alpha number|nil 0..1
function Canvas:colour(role, alpha)
  local r, g, b = theme.rgb(role, self.dark)
  self.lib.cairo_set_source_rgba(self.cr, r, g, b, alpha or 1)
end

local function font(self, size, bold)
  self.lib.cairo_select_font_face(self.cr, theme.family, 0, bold and 1 or 0)
  self.lib.cairo_set_font_size(self.cr, size)
end

---Width of a line of text.
---@param text string UTF-8
---@param size number
---@param bold boolean|nil
---@return number width logical units
function Canvas:text_width(text, size, bold)
  font(self, size, bold)
  self.lib.cairo_text_extents(self.cr, text, self.extents)
  return self.extents.x_advance
end

---Text with its baseline at y.
---@param x number
---@param y number
---@param text string UTF-8, one line
---@param style { size: number, bold: boolean?, anchor: string?, fill: string? } anchor start | middle | end
function Canvas:text(x, y, text, style)
  local size = style.size
  if style.anchor == "middle" then
    x = x - self:text_width(text, size, style.bold) / 2
  elseif style.anchor == "end" then
    x = x - self:text_width(text, size, style.bold)
  end
  font(self, size, style.bold)
  self:colour(style.fill or "ink")
  self.lib.cairo_move_to(self.cr, x, y)
  self.lib.cairo_show_text(self.cr, text)
  self.lib.cairo_new_path(self.cr)
end

local function paint(self, style)
  local library, cr = self.lib, self.cr
  if style.fill then
    self:colour(style.fill, style.alpha)
    if style.stroke then
      library.cairo_fill_preserve(cr)
    else
      library.cairo_fill(cr)
    end
  end
  if style.stroke then
    self:colour(style.stroke, style.fill and 1 or style.alpha)
    library.cairo_set_line_width(cr, style.width or 1)
    library.cairo_set_line_cap(cr, style.dash and 0 or ROUND)
    if style.dash then
      library.cairo_set_dash(cr, ffi.new("double[?]", #style.dash, style.dash), #style.dash, 0)
    end
    library.cairo_stroke(cr)
    if style.dash then
      library.cairo_set_dash(cr, nil, 0, 0)
    end
  end
end

---A path through points; a NaN lifts the pen, a lone point becomes a dot.
---@param xs number[]
---@param ys number[]
---@param style { stroke: string?, width: number?, dash: number[]?, fill: string?, alpha: number?, closed: boolean? }
function Canvas:path(xs, ys, style)
  local library, cr = self.lib, self.cr
  library.cairo_new_path(cr)
  local down = false
  for i = 1, #xs do
    local x, y = xs[i], ys[i]
    if x ~= x or y ~= y then
      down = false
    elseif down then
      library.cairo_line_to(cr, x, y)
    else
      library.cairo_move_to(cr, x, y)
      library.cairo_line_to(cr, x, y)
      down = true
    end
  end
  if style.closed then
    library.cairo_close_path(cr)
  end
  paint(self, style)
end

---A rectangle.
---@param x number
---@param y number
---@param w number
---@param h number
---@param style { fill: string?, alpha: number?, stroke: string?, width: number? }
function Canvas:rect(x, y, w, h, style)
  self.lib.cairo_new_path(self.cr)
  self.lib.cairo_rectangle(self.cr, x, y, w, h)
  paint(self, style)
end

---A disc.
---@param x number
---@param y number
---@param radius number
---@param style { fill: string?, alpha: number?, stroke: string?, width: number? }
function Canvas:circle(x, y, radius, style)
  self.lib.cairo_new_path(self.cr)
  self.lib.cairo_arc(self.cr, x, y, radius, 0, 2 * math.pi)
  paint(self, style)
end

---Draws only inside the rectangle until `unclip`.
function Canvas:clip(x, y, w, h)
  self.lib.cairo_save(self.cr)
  self.lib.cairo_new_path(self.cr)
  self.lib.cairo_rectangle(self.cr, x, y, w, h)
  self.lib.cairo_clip(self.cr)
end

function Canvas:unclip()
  self.lib.cairo_restore(self.cr)
end

---Writes the picture as PNG, straight to that path (callers that want atomic files give a temporary one).
---@param path string
---@return boolean|nil ok
---@return string|nil err one line
function Canvas:png(path)
  local library = self.lib
  local ok, err = check(library, library.cairo_status(self.cr), "cairo")
  if not ok then
    return nil, err
  end
  library.cairo_surface_flush(self.surface)
  ffi.errno(0)
  local status = library.cairo_surface_write_to_png(self.surface, path)
  local code = ffi.errno()
  if status == 0 then
    return true
  elseif status == WRITE_ERROR and code == ENOSPC then
    return nil, "the disk is full (no space left)"
  elseif status == WRITE_ERROR and code ~= 0 then
    return nil, ffi.string(ffi.C.strerror(code))
  end
  return nil, ffi.string(library.cairo_status_to_string(status))
end

return cairo
