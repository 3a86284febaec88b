-- What detection draws over a frame: skeleton, a mark while flagged, the error, and a solid cover over the head. Knows no video files.

local draw = require "libration.pose.draw"

local overlay = {}

local FACE = 10 -- BlazePose's landmarks 0..10 lie on the face
local LARGER = 1.9 -- the head reaches further than the face's landmarks
local FILL = 1.35 -- larger still in frames whose cover comes from a neighbour

---@class Cover an ellipse: centre and half axes in pixels, the second axis along the face's height; angle in radians of the first axis
---@field x number
---@field y number
---@field across number
---@field along number
---@field angle number

-- The cover of one frame from its landmarks, or nil where nobody was found.
local function cover_of(p)
  local sx, sy, n = 0, 0, 0
  for j = 0, FACE do
    local x, y = p[5 * j], p[5 * j + 1]
    if x == x and y == y then sx, sy, n = sx + x, sy + y, n + 1 end
  end
  if n == 0 then return nil end
  local cx, cy, farthest = sx / n, sy / n, 0
  for j = 0, FACE do
    local dx, dy = p[5 * j] - cx, p[5 * j + 1] - cy
    local d = math.sqrt(dx * dx + dy * dy)
    if d == d then farthest = math.max(farthest, d) end
  end
  -- the face's own height runs from the mouth (9, 10) to the eyes (2, 5)
  local ux = (p[5 * 2] + p[5 * 5] - p[5 * 9] - p[5 * 10]) / 2
  local uy = (p[5 * 2 + 1] + p[5 * 5 + 1] - p[5 * 9 + 1] - p[5 * 10 + 1]) / 2
  local length = math.sqrt(ux * ux + uy * uy)
  local bx, by = p[5 * 11] - p[5 * 12], p[5 * 11 + 1] - p[5 * 12 + 1]
  local shoulders = math.sqrt(bx * bx + by * by)
  local tx = (p[5 * 11] + p[5 * 12] - p[5 * 23] - p[5 * 24]) / 2
  local ty = (p[5 * 11 + 1] + p[5 * 12 + 1] - p[5 * 23 + 1] - p[5 * 24 + 1]) / 2
  local torso = math.sqrt(tx * tx + ty * ty)
  -- a face seen from the side is narrow, a head is not: shoulders and trunk give the least size
  local across = math.max(LARGER * farthest, .42 * shoulders, .3 * torso)
  if across ~= across then across = LARGER * farthest end
  local c = { x = cx, y = cy, across = across, along = 1.25 * across, angle = 0 }
  if length > 1e-6 then
    -- half a face higher: hair and skull lie above the eyes
    c.x, c.y = cx + .25 * across * ux / length, cy + .25 * across * uy / length
    c.angle = math.atan2(uy, ux) - math.pi / 2
  end
  return c
end

--- Covers of the head for every frame. A frame in which nobody was found takes the nearest cover in time, larger, so that no
--- frame between two finds shows the head.
---@param landmarks Tensor f32 [T,33,5] pixels
---@return table<integer, Cover> covers by frame from 1; empty where nobody was found in the whole recording
function overlay.covers(landmarks)
  local T = landmarks.shape[1]
  local p = landmarks:contiguous():ptr()
  local covers, found = {}, {}
  for t = 1, T do
    covers[t] = cover_of(p + (t - 1) * 165)
    found[t] = covers[t] ~= nil
  end
  local before, after = {}, {}
  local last
  for t = 1, T do
    if found[t] then last = t end
    before[t] = last
  end
  last = nil
  for t = T, 1, -1 do
    if found[t] then last = t end
    after[t] = last
  end
  for t = 1, T do
    local a, b = before[t], after[t]
    if not found[t] and (a or b) then
      local near = (not b or a and t - a <= b - t) and a or b
      local c = covers[near]
      covers[t] = { x = c.x, y = c.y, across = FILL * c.across, along = FILL * c.along, angle = c.angle }
    end
  end
  return covers
end

--- Draws a cover, solid.
---@param canvas table with :path
---@param c Cover
function overlay.cover(canvas, c)
  local xs, ys, cos, sin = {}, {}, math.cos(c.angle), math.sin(c.angle)
  for i = 0, 47 do
    local a, b = c.across * math.cos(i * math.pi / 24), c.along * math.sin(i * math.pi / 24)
    xs[#xs + 1], ys[#ys + 1] = c.x + a * cos - b * sin, c.y + a * sin + b * cos
  end
  canvas:path(xs, ys, { fill = "#20242a", closed = true })
end

--- Draws over one frame: cover, skeleton, and while the frame is flagged a frame around the picture and the word.
---@param canvas table
---@param view table {points: Tensor [33,5], width, height, cover: Cover?, flagged: boolean, error: number?, threshold: number, time: number}
function overlay.paint(canvas, view)
  draw.skeleton(canvas, view.points, { skeleton = "blazepose33" })
  if view.cover then overlay.cover(canvas, view.cover) end -- last, so that not even the face's landmarks show
  local size = math.max(11, math.min(view.width, view.height) / 26)
  local text = ("%.2f s"):format(view.time)
  if view.error and view.error == view.error then
    text = text .. ("  error %.2f, threshold %.2f"):format(view.error, view.threshold)
  end
  if view.flagged then text = text .. "  flagged" end
  local width = canvas:text_width(text, size, view.flagged)
  if width + size > view.width then -- smaller, so that a narrow picture holds all of it
    size, width = size * view.width / (width + size), width * view.width / (width + size)
  end
  canvas:rect(0, 0, width + size, 1.6 * size, { fill = "#000000", alpha = .65 })
  canvas:text(size / 2, 1.15 * size, text, { size = size, bold = view.flagged, fill = "#ffffff" })
  if view.flagged then
    local w = math.max(3, size / 3)
    canvas:rect(w / 2, w / 2, view.width - w, view.height - w, { stroke = "#e6550d", width = w })
  end
end

return overlay
