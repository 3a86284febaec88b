-- Masks over what must not be seen: ellipses, boxes and polygons, solid, as mosaic or blurred. Where they belong is the caller's business.
local ffi = require "ffi"
local core = require "libration.core"
local library = require "libration.media.library"

local mask = {}

local C = core.C
local SHAPES = { ellipse = 0, box = 1, polygon = 2 }
local STYLES = { blur = 0, mosaic = 1, box = 2 }
local STRENGTH = { blur = .2, mosaic = .125, box = 0 }
local OPTIONS = { style = "string", strength = "number", feather = "number" }

---@class Mask
---@field shape string "ellipse", "box" or "polygon"
---@field x number centre, pixels; the picture's corners lie at 0, 0 and width, height
---@field y number
---@field width number sides of the box or axes of the ellipse, pixels; a pixel is covered where its centre lies inside
---@field height number
---@field angle number|nil radians clockwise (0)
---@field points number[]|nil of a polygon: x1, y1, x2, y2, ...; what its boundary winds around is inside
---@field style string|nil overrides the options' for this mask, as do strength and feather
---@field strength number|nil
---@field feather number|nil

local function choice(value, known, what, i, level)
  local code = known[value]
  if code then return code end
  local list = {}
  for name in pairs(known) do list[#list + 1] = name end
  table.sort(list)
  error(("mask %d: %s is %s, want %s"):format(i, what, type(value) == "string" and '"' .. value .. '"' or tostring(value), table.concat(list, ", ")), level + 1)
end

local function number(m, name, default, i, level)
  local value = m[name]
  if value == nil then value = default end
  if type(value) ~= "number" then error(("mask %d: %s is a %s, want a number"):format(i, name, type(value)), level + 1) end
  return value
end

---Masks as the C library takes them. Numbers are checked there.
---@param masks Mask[]
---@param options {style: string, strength: number, feather: number}|nil as mask.apply
---@param level integer|nil where an error stands: 1 the caller's line
---@return ffi.cdata* array, integer count, table points what must live as long as the array is used
function mask.pack(masks, options, level)
  level = (level or 1) + 1
  options = library.options(options, OPTIONS, "mask", level + 1)
  library.open()
  local array, anchors = ffi.new("lbr_mask[?]", math.max(1, #masks)), {}
  for i, m in ipairs(masks) do
    local c = array[i - 1]
    local style = m.style or options.style or "mosaic"
    c.shape, c.style = choice(m.shape, SHAPES, "shape", i, level), choice(style, STYLES, "style", i, level)
    local default = options.strength
    if default == nil or m.style and m.style ~= options.style then default = STRENGTH[style] end
    c.strength, c.feather = number(m, "strength", default, i, level), number(m, "feather", options.feather or 0, i, level)
    if m.shape == "polygon" then
      local points = m.points
      if type(points) ~= "table" or #points % 2 ~= 0 then error(("mask %d: points wants a list of x1, y1, x2, y2, ..."):format(i), level) end
      local flat = ffi.new("double[?]", math.max(1, #points))
      for k, v in ipairs(points) do
        if type(v) ~= "number" then error(("mask %d: point %d is a %s, want numbers"):format(i, math.ceil(k / 2), type(v)), level) end
        flat[k - 1] = v
      end
      anchors[#anchors + 1] = flat
      c.points, c.point_count = flat, #points / 2
    else
      c.x, c.y, c.width, c.height = number(m, "x", nil, i, level), number(m, "y", nil, i, level), number(m, "width", nil, i, level), number(m, "height", nil, i, level)
      c.angle = number(m, "angle", 0, i, level)
    end
  end
  return array, #masks, anchors
end

---Covers masks in a picture, in place and in order. Raises at the caller's line where a number is not finite or beyond 1e6 pixels, and where a strength
---is below 1/8 of the mask's longer side: a weaker blur can be undone by deconvolution, smaller blocks let a face be known. Nothing is drawn then.
---What lies outside the picture is clipped.
---@param frame Tensor u8 [H,W,3], contiguous
---@param masks Mask[]
---@param options {style: string, strength: number, feather: number}|nil style: "mosaic" (means of square blocks), "box" (black) or "blur"; strength: share
---  of the mask's longer side, .125 to 1: side of a block (.125, at least 4 pixels) or standard deviation of the blur (.2); feather: pixels outside the shape
---  over which the mask fades (0)
---@return Tensor frame
function mask.apply(frame, masks, options)
  local shape = frame.shape
  if frame.dtype ~= "u8" or #shape ~= 3 or shape[3] ~= 3 or not frame:is_contiguous() then
    error(("mask.apply: frame is %s [%s], want contiguous u8 [H,W,3]"):format(frame.dtype, table.concat(shape, ",")), 2)
  end
  local array, count, anchors = mask.pack(masks, options, 2)
  local code = library.open().lbr_mask_apply(frame:ptr(), shape[2], shape[1], array, count)
  anchors[1] = nil
  if code ~= C.LBR_OK then error(library.reason(), 2) end
  frame:touch()
  return frame
end

return mask
