-- Draws skeletons over frames: which bones in which colours, in which order. The canvas is the caller's (report/cairo.lua has one); nothing is decoded here.
local ffi = require "ffi"
local core = require "libration.core"
local skeletons = require "libration.pose.skeletons"

local draw = {}

-- Left warm, right cool, middle light; apart for the colour-blind as well (after Okabe and Ito 2008).
draw.colours = {
  left_arm = "#f0a830", right_arm = "#4cb4e8", left_leg = "#e0662a", right_leg = "#2f7fd0", head = "#f2f2f2", trunk = "#f2f2f2",
}

local order = { "trunk", "right_leg", "left_leg", "head", "right_arm", "left_arm" }

-- Bones by limb, once a skeleton: a bone belongs to the limb of its farther joint.
local plans = {}

local function plan_of(skeleton)
  local plan = plans[skeleton]
  if plan then return plan end
  local limb_of = {}
  for limb, joints in pairs(skeleton.limbs) do
    for _, j in ipairs(joints) do limb_of[j] = limb end
  end
  plan = {}
  for _, limb in ipairs(order) do plan[limb] = { bones = {}, joints = skeleton.limbs[limb] } end
  for _, edge in ipairs(skeleton.edges) do
    local a, b = limb_of[edge[1]], limb_of[edge[2]]
    local limb = a == b and a or a == "trunk" and b or b == "trunk" and a or "trunk"
    table.insert(plan[limb].bones, edge)
  end
  plans[skeleton] = plan
  return plan
end

--- Draws one person.
---@param canvas table with :path(xs, ys, style) and :circle(x, y, radius, style), as report/cairo.lua's
---@param landmarks Tensor f32 [J,C] C >= 2: x, y in pixels of the canvas, then as skeletons.convert says; NaN joints are left out
---@param options? {skeleton: string|Skeleton, least: number, size: number} skeleton default: by J; least score that is drawn fully, default .5 (fainter
---  below it, nothing below a fifth of it); size: of the person in pixels, sets the width of the lines
function draw.skeleton(canvas, landmarks, options)
  options = options or {}
  local J, channels = landmarks:size(1), landmarks:size(2)
  local skeleton = skeletons.get(options.skeleton or skeletons.of_size(J) or "blazepose33")
  local least, plan, p = options.least or .5, plan_of(skeleton), landmarks:ptr()
  local score = channels == 3 and 2 or channels >= 4 and 3
  local x0, y0, x1, y1 = math.huge, math.huge, -math.huge, -math.huge
  local xs, ys, sure = {}, {}, {}
  for j = 1, J do
    local x, y = p[(j - 1) * channels], p[(j - 1) * channels + 1]
    xs[j], ys[j] = x, y
    local s = score and p[(j - 1) * channels + score] or 1
    sure[j] = (x ~= x or y ~= y or s ~= s) and 0 or s
    if sure[j] > 0 then x0, y0, x1, y1 = math.min(x0, x), math.min(y0, y), math.max(x1, x), math.max(y1, y) end
  end
  local size = options.size or math.max(x1 - x0, y1 - y0)
  if not (size >= 0 and size < math.huge) then return end
  local width = math.min(math.max(size / 110, 1.2), 9)
  local function alpha(s) return s >= least and 1 or s >= least / 5 and .25 + .5 * s / least or nil end
  for _, dark in ipairs { true, false } do -- a dark rim first, so that lines show on any ground
    for _, limb in ipairs(order) do
      local colour = dark and "#101418" or draw.colours[limb]
      local thick = limb == "head" and width * .55 or width -- a face has many points in little room
      for _, bone in ipairs(plan[limb].bones) do
        local a = alpha(math.min(sure[bone[1]], sure[bone[2]]))
        if a then
          canvas:path({ xs[bone[1]], xs[bone[2]] }, { ys[bone[1]], ys[bone[2]] },
            { stroke = colour, width = dark and thick * 1.9 or thick, alpha = dark and a * .6 or a })
        end
      end
      for _, j in ipairs(plan[limb].joints) do
        local a = alpha(sure[j])
        if a then canvas:circle(xs[j], ys[j], thick * (dark and 1.35 or .95), { fill = colour, alpha = dark and a * .6 or a }) end
      end
    end
  end
end

---@class Overlay frames of one size with something drawn over them
local Overlay = {}
Overlay.__index = Overlay

--- Room for drawing over RGB frames of one size.
---@param width integer
---@param height integer
---@param over fun(pixels: ffi.cdata*, width: integer, height: integer, stride: integer): table makes the canvas: report/cairo.lua's `over`
---@return Overlay
function draw.overlay(width, height, over)
  local pixels = ffi.new("uint8_t[?]", width * height * 4)
  return setmetatable({ width = width, height = height, pixels = pixels, canvas = over(pixels, width, height, width * 4) }, Overlay)
end

--- Draws over a frame, in place.
---@param frame Tensor u8 [H,W,3] RGB, changed
---@param paint fun(canvas: table)
---@return Tensor frame
function Overlay:paint(frame, paint)
  local h, w = frame:size(1), frame:size(2)
  if h ~= self.height or w ~= self.width then
    error(("overlay:paint: frame is %dx%d, want %dx%d"):format(w, h, self.width, self.height), 2)
  end
  local canvas = self.canvas
  core.check(core.C.lbr_rgb_to_bgrx(frame:ptr(), w * 3, self.pixels, w * 4, h, w))
  canvas.lib.cairo_surface_mark_dirty(canvas.surface)
  paint(canvas)
  canvas.lib.cairo_surface_flush(canvas.surface)
  core.check(core.C.lbr_bgrx_to_rgb(self.pixels, w * 4, frame:ptr(), w * 3, h, w))
  frame:touch()
  return frame
end

return draw
