-- Outline of a person as polygons: what a segmentation calls body, together with thick limbs and the head round the landmarks. Finds nobody and draws nothing.
local ffi = require "ffi"

local silhouette = {}

local GRID = 64    -- cells a side of a region
local SIZE = 256   -- values a side of the segmentation
local SURE = -.85  -- logit (.3) from which a value counts as body
local LEAST = 6    -- cells of a piece that is kept

-- Landmarks that a limb or a line of the trunk joins, and its half width in shares of the head's size.
local LIMBS = {
  { 11, 13, .3 }, { 13, 15, .25 }, { 15, 19, .25 }, { 12, 14, .3 }, { 14, 16, .25 }, { 16, 20, .25 }, { 11, 12, .35 }, { 23, 24, .4 }, { 11, 23, .35 }, { 12, 24, .35 },
  { 11, 24, .35 }, { 12, 23, .35 }, { 23, 25, .35 }, { 25, 27, .3 }, { 27, 31, .3 }, { 27, 29, .25 }, { 24, 26, .35 }, { 26, 28, .3 }, { 28, 32, .3 }, { 28, 30, .25 },
}

local STRIDE = GRID + 2 -- a rim of empty cells
local cells, wide = ffi.new("uint8_t[?]", STRIDE * STRIDE), ffi.new("uint8_t[?]", STRIDE * STRIDE)

local function disc(map, x, y, r)
  for j = math.max(0, math.floor(y - r)), math.min(GRID - 1, math.floor(y + r)) do
    for i = math.max(0, math.floor(x - r)), math.min(GRID - 1, math.floor(x + r)) do
      if (i + .5 - x) ^ 2 + (j + .5 - y) ^ 2 <= r * r then map[(j + 1) * STRIDE + i + 1] = 1 end
    end
  end
end

local function line(map, x0, y0, x1, y1, r)
  local n = math.max(1, math.ceil(2 * math.max(math.abs(x1 - x0), math.abs(y1 - y0))))
  if n > 16 * GRID then return end
  for k = 0, n do disc(map, x0 + (x1 - x0) * k / n, y0 + (y1 - y0) * k / n, r) end
end

-- Marks a piece that hangs together by edges with 2; cells in it.
local function flood(map, start)
  local stack, n = { start }, 0
  map[start] = 2
  while #stack > 0 do
    local at = table.remove(stack)
    n = n + 1
    for _, step in ipairs { -1, 1, -STRIDE, STRIDE } do
      if map[at + step] == 1 then
        map[at + step] = 2
        stack[#stack + 1] = at + step
      end
    end
  end
  return n
end

-- Right, down, left, up; the cells to the right and the left of an edge that leaves corner x, y in that direction (offsets from the cell below and right of it).
local TURNS = { { 1, 0, 0, -STRIDE }, { 0, 1, -1, 0 }, { -1, 0, -STRIDE - 1, -1 }, { 0, -1, -STRIDE, -STRIDE - 1 } }

-- Outer boundary of the piece whose first cell, in reading order, is at `start`: middles of the edges, those on a straight line left out, in cells from the map's corner.
local function trace(map, start)
  local x, y, direction, points = start % STRIDE, math.floor(start / STRIDE), 1, {}
  local x0, y0 = x, y
  repeat
    local turn = TURNS[direction]
    points[#points + 1] = { x + turn[1] / 2 - 1, y + turn[2] / 2 - 1 }
    x, y = x + turn[1], y + turn[2]
    local at = y * STRIDE + x
    for _, d in ipairs { direction % 4 + 1, direction, (direction + 2) % 4 + 1 } do -- to the right, straight on, to the left: pieces that touch at a corner stay apart
      local next_turn = TURNS[d]
      if map[at + next_turn[3]] == 2 and map[at + next_turn[4]] ~= 2 then
        direction = d
        break
      end
    end
  until x == x0 and y == y0 and direction == 1
  local kept, n = {}, #points
  for i = 1, n do
    local a, b, c = points[(i - 2) % n + 1], points[i], points[i % n + 1]
    if (b[1] - a[1]) * (c[2] - b[2]) ~= (b[2] - a[2]) * (c[1] - b[1]) then kept[#kept + 1] = b end
  end
  return kept
end

--- The outline of a person, as text: polygons parted by ";", each "x,y x,y ..." in pixels, as SVG writes points. Holes are filled.
---@param logits ffi.cdata* float[256*256] of the region: body where greater than 0, taken for body from -.85 on
---@param region {x: number, y: number, width: number, angle: number} square that the logits are of, in pixels: centre, side, turn in radians clockwise
---@param landmarks ffi.cdata* float[33*3] x, y in pixels, visibility
---@param head Face
---@param margin number pixels by which it grows; a cell, a 64th of the region's side, at least
---@return string
function silhouette.outline(logits, region, landmarks, head, margin)
  ffi.fill(cells, ffi.sizeof(cells))
  ffi.fill(wide, ffi.sizeof(wide))
  local cell, many = region.width / GRID, SIZE / GRID
  for j = 0, SIZE - 1 do
    for i = 0, SIZE - 1 do
      if logits[j * SIZE + i] > SURE then cells[(math.floor(j / many) + 1) * STRIDE + math.floor(i / many) + 1] = 1 end
    end
  end
  local c, s = math.cos(region.angle), math.sin(region.angle)
  local function place(x, y)
    local dx, dy = (x - region.x) / cell, (y - region.y) / cell
    return c * dx + s * dy + GRID / 2, c * dy - s * dx + GRID / 2
  end
  local size = head.width / cell
  for _, limb in ipairs(LIMBS) do
    local a, b = landmarks + 3 * limb[1], landmarks + 3 * limb[2]
    local x0, y0 = place(a[0], a[1])
    local x1, y1 = place(b[0], b[1])
    line(cells, x0, y0, x1, y1, math.min(limb[3] * size, GRID / 8))
  end
  local hx, hy = place(head.x, head.y)
  disc(cells, hx, hy, math.min(.8 * size, GRID / 4))
  local sx, sy = place((landmarks[33] + landmarks[36]) / 2, (landmarks[34] + landmarks[37]) / 2)
  line(cells, hx, hy, sx, sy, math.min(.4 * size, GRID / 8)) -- the neck
  local r = math.min(math.max(1, margin / cell), GRID / 4)
  for j = 0, GRID - 1 do
    for i = 0, GRID - 1 do
      if cells[(j + 1) * STRIDE + i + 1] == 1 then disc(wide, i + .5, j + .5, r) end
    end
  end
  local polygons = {}
  for start = STRIDE, STRIDE * (GRID + 1) - 1 do
    if wide[start] == 1 and flood(wide, start) >= LEAST then
      local points = {}
      for k, p in ipairs(trace(wide, start)) do
        local dx, dy = (p[1] - GRID / 2) * cell, (p[2] - GRID / 2) * cell
        points[k] = ("%.0f,%.0f"):format(region.x + c * dx - s * dy, region.y + s * dx + c * dy)
      end
      polygons[#polygons + 1] = table.concat(points, " ")
    end
  end
  return table.concat(polygons, ";")
end

--- Polygons of an outline.
---@param text string
---@return number[][] polygons x1, y1, x2, y2, ...; or nil and what is wrong with it
function silhouette.read(text)
  local polygons = {}
  for part in (text .. ";"):gmatch "(.-);" do
    local flat = {}
    for pair in part:gmatch "%S+" do
      local x, y = pair:match "^(%-?%d+%.?%d*),(%-?%d+%.?%d*)$"
      x, y = tonumber(x), tonumber(y)
      if not x or math.abs(x) > 1e6 or math.abs(y) > 1e6 then return nil, ("'%s', want points such as 12,30 in pixels"):format(pair:sub(1, 40)) end
      if #flat >= 8192 then return nil, "a polygon of more than 4096 corners" end
      flat[#flat + 1], flat[#flat + 2] = x, y
    end
    if #flat < 6 then return nil, ("a polygon of %d corners, want at least 3"):format(#flat / 2) end
    polygons[#polygons + 1] = flat
  end
  return polygons
end

return silhouette
