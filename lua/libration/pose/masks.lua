-- What is covered of a found face, head or person: shapes in pixels for media's compositing. Finds nothing and draws nothing.
local silhouette = require "libration.pose.silhouette"

local masks = {}

---@class Mask as media.mask takes it: pixels of the frame, its corners at 0 and its size
---@field shape string "ellipse", "box" or "polygon"
---@field x number centre
---@field y number
---@field width number
---@field height number
---@field angle number radians clockwise
---@field points number[]|nil corners of a polygon: x1, y1, x2, y2, ...

--- A margin from its text.
---@param text string ".3" (share of the size of a face) or "12px"
---@return {share: number, pixels: number}|nil margin, or nil and the reason
function masks.margin(text)
  local pixels = tostring(text):match("^%s*([%d%.]+)%s*px%s*$")
  local value = tonumber(pixels or text)
  if not value or value ~= value or value < 0 or value > (pixels and 10000 or 10) then
    return nil, "want a share of the face such as .3, at most 10, or pixels such as 12px"
  end
  return { share = pixels and 0 or value, pixels = pixels and value or 0 }
end

-- Direction in which a face's upper end lies, as an angle clockwise from upwards; from the eyes and the mouth where they are known and apart.
local function roll_of(s, points)
  if points then
    local ux, uy = (points[0] + points[2]) / 2 - points[6], (points[1] + points[3]) / 2 - points[7]
    if math.sqrt(ux * ux + uy * uy) > .12 * s.height then return math.atan2(ux, -uy) end
    local ex, ey = points[2] - points[0], points[3] - points[1] -- the left eye lies on the right of an upright face
    if math.sqrt(ex * ex + ey * ey) > .12 * s.width then return math.atan2(ey, ex) end
  end
  return s.angle
end

--- The mask over one sample of a track.
---@param s ffi.cdata* lbr_track_sample
---@param kind string what was found: "face", or anything else, whose box is covered
---@param mask string "eyes", "face" or "head": what of a face is covered; other kinds take their whole box
---@param margin {share: number, pixels: number} as masks.margin gives it; boxes of other kinds grow by a quarter of the share
---@return Mask
function masks.of(s, kind, mask, margin)
  local grow, rim = 1 + margin.share, 2 * margin.pixels
  if kind ~= "face" then
    local more = margin.share / 4 * math.min(s.width, s.height) + rim
    return { shape = "box", x = s.x, y = s.y, width = s.width + more, height = s.height + more, angle = s.angle }
  end
  local points = s.points[0] == s.points[0] and s.points or nil
  local roll = roll_of(s, points)
  local ux, uy = math.sin(roll), -math.cos(roll)
  if mask == "eyes" then
    local x, y, apart, height = s.x + .15 * s.height * ux, s.y + .15 * s.height * uy, 0, .5 * s.height
    if points then
      local dx, dy = points[2] - points[0], points[3] - points[1]
      x, y, apart, height = (points[0] + points[2]) / 2, (points[1] + points[3]) / 2, math.sqrt(dx * dx + dy * dy), .3 * s.height
    end
    return { shape = "box", x = x, y = y, width = math.max(2 * apart, .85 * s.width) * grow + rim, height = height * grow + rim, angle = roll }
  end
  -- a face detector's box reaches from the brows to the chin, the face from the hair
  local up, across, along = .06, 1.1, 1.3
  if mask == "head" then up, across, along = .2, 1.5, 1.9 end
  return {
    shape = mask == "head" and "box" or "ellipse", x = s.x + up * s.height * ux, y = s.y + up * s.height * uy,
    width = across * s.width * grow + rim, height = along * s.height * grow + rim, angle = roll,
  }
end

-- True where a point lies in a polygon x1, y1, x2, y2, ...
local function inside(flat, x, y)
  local odd, j = false, #flat - 1
  for i = 1, #flat, 2 do
    local ax, ay, bx, by = flat[i], flat[i + 1], flat[j], flat[j + 1]
    if (ay > y) ~= (by > y) and x < (bx - ax) * (y - ay) / (by - ay) + ax then odd = not odd end
    j = i
  end
  return odd
end

-- True where a point lies under a mask.
local function under(mask, x, y)
  if mask.shape == "polygon" then return inside(mask.points, x, y) end
  local c, s, dx, dy = math.cos(mask.angle), math.sin(mask.angle), x - mask.x, y - mask.y
  local u, v = (c * dx + s * dy) / (mask.width / 2), (c * dy - s * dx) / (mask.height / 2)
  if mask.shape == "ellipse" then return u * u + v * v <= 1 end
  return math.abs(u) <= 1 and math.abs(v) <= 1
end

--- Share of a detection's box that lies under masks.
---@param list Mask[] as masks.of_frame gives them
---@param d {x: number, y: number, width: number, height: number} upright box by its centre
---@return number share 0..1
function masks.covered(list, d)
  local n = 0
  for i = -3, 3 do
    for k = -3, 3 do
      local x, y, hidden = d.x + i * d.width / 7, d.y + k * d.height / 7, false
      for _, mask in ipairs(list) do hidden = hidden or under(mask, x, y) end
      n = n + (hidden and 1 or 0)
    end
  end
  return n / 49
end

local BLOCK = 256 -- frames

--- The tracks that may have a sample in a frame, in their order: an hour has thousands of tracks, a block of frames few.
---@param plan {tracks: Track[], covering: fun(frame: integer)?} covering: gives them where the plan is still being made
---@param frame integer
---@return Track[]
function masks.tracks_near(plan, frame)
  if plan.covering then return plan.covering(frame) end
  local blocks = plan.blocks
  if not blocks then
    blocks = {}
    for _, track in ipairs(plan.tracks) do
      if track.count > 0 then
        for b = math.floor(track.samples[0].frame / BLOCK), math.floor(track.samples[track.count - 1].frame / BLOCK) do
          blocks[b] = blocks[b] or {}
          table.insert(blocks[b], track)
        end
      end
    end
    plan.blocks = blocks
  end
  return blocks[math.floor(frame / BLOCK)] or {}
end

-- Corners {{x, y}, ...} as x1, y1, x2, y2, ...
local function flat_of(corners)
  local flat = {}
  for _, p in ipairs(corners) do flat[#flat + 1], flat[#flat + 2] = p[1], p[2] end
  return flat
end

-- True where a sample of a track is to stay visible.
local function stays(plan, track, s)
  local never = track.keep or false
  for _, region in ipairs(plan.regions) do never = never or region.mask == "never" and inside(flat_of(region.points), s.x, s.y) end
  return never
end

--- All masks of a frame.
---@param plan {tracks: Track[], regions: table[], mask: string, margin: table} as pose/sidecar.lua reads it; regions: {mask = "always" | "never", points = {{x, y}, ...}}
---@param frame integer from 1
---@param known? boolean|string true: what is known of, also where it stays visible; faces whole where only their eyes are covered. "visible": of that only what
---  stays visible
---@return Mask[] with style = "box" where a track asks for it by its own style
function masks.of_frame(plan, frame, known)
  local list, what = {}, known and plan.mask == "eyes" and "face" or plan.mask
  for _, track in ipairs(masks.tracks_near(plan, frame)) do
    local s = track:at(frame)
    if s and (known == true or stays(plan, track, s) == (known == "visible")) then
      local outline = track.kind == "person" and track.outlines[frame]
      if outline then
        for _, flat in ipairs(assert(silhouette.read(outline))) do list[#list + 1] = { shape = "polygon", points = flat, style = track.style } end
      else
        local mask = masks.of(s, track.kind, what, plan.margin)
        mask.style = track.style
        list[#list + 1] = mask
      end
    end
  end
  for _, region in ipairs(plan.regions) do
    if known == true or region.mask == (known and "never" or "always") then
      list[#list + 1] = { shape = "polygon", points = flat_of(region.points) }
    end
  end
  return list
end

return masks
