-- Looks at the frames of a recording while its landmarks are found: light, blur, motion of the background, other people. Measures; judges nothing.
-- Everything is taken from a grid of at most 80 cells a side, so that it costs little beside the landmark network.
local ffi = require "ffi"
local tensor = require "libration.tensor"

local watch = {}

local GRID = 80         -- cells along the longer side
local BLOCK, STEP, REACH = 8, 6, 5 -- cells: side of a block, from block to block, how far a block is looked for
local EVERY = .2        -- seconds between two looks at the background and at blur
local PEOPLE = 1        -- seconds between two looks for other people
local TEXTURE = 6       -- squared grey levels a cell: the weaker gradient of a block that can be followed
local FEWEST = 6        -- blocks that must be followed before they say how the camera moves
local DARK, BRIGHT = 10, 245 -- grey levels of 0..255 that count as clipped

--- Numbers taken of each frame; NaN where none was taken.
---   light       mean grey level of the whole picture, 0..255
---   background  the same outside the body's box
---   dark, bright   share of the picture at or below 10, at or above 245
---   camera      pixels a second: median length of the background's displacement since the look before
---   camera_x, camera_y   median displacement, pixels a second
---   blocks      share of the textured blocks of the background that could be followed; NaN where there are too few
---   sharp       mean difference of neighbouring places in the body's box over that of places four times as far apart: 1 crisp, .25 wholly blurred
---   others      people whom the detector finds beside the one that is followed; over: 1 where one of them lies over that one's box
watch.COLUMNS = { "light", "background", "dark", "bright", "camera", "camera_x", "camera_y", "blocks", "sharp", "others", "over" }
watch.at = {}
for i, name in ipairs(watch.COLUMNS) do watch.at[name] = i end

local Watch = {}
Watch.__index = Watch

--- A watch over frames of one size.
---@param width integer pixels
---@param height integer
---@param grid? integer cells along the longer side, default 80
---@return Watch
function watch.new(width, height, grid)
  local scale = (grid or GRID) / math.max(width, height)
  local gw, gh = math.max(1, math.min(width, math.floor(width * scale + .5))), math.max(1, math.min(height, math.floor(height * scale + .5)))
  local self = setmetatable({ width = width, height = height, gw = gw, gh = gh, rows = 0, room = 256, seconds = 0 }, Watch)
  self.data = ffi.new("float[?]", self.room * #watch.COLUMNS)
  -- three by three samples a cell: byte offsets in a row, and rows
  self.xs, self.ys = ffi.new("int32_t[?]", 3 * gw), ffi.new("int32_t[?]", 3 * gh)
  for i = 0, 3 * gw - 1 do self.xs[i] = 3 * math.floor((i + .5) * width / (3 * gw)) end
  for i = 0, 3 * gh - 1 do self.ys[i] = math.floor((i + .5) * height / (3 * gh)) end
  self.grid, self.before = ffi.new("float[?]", gw * gh), ffi.new("float[?]", gw * gh)
  self.box = { 0, 0, 0, 0 } -- of the body, in cells; empty
  return self
end

-- The picture on the grid; mean, share dark and share bright of the samples.
local function shrink(p, row, xs, ys, gw, gh, grid)
  local total, dark, bright = 0, 0, 0
  for gy = 0, gh - 1 do
    for gx = 0, gw - 1 do grid[gy * gw + gx] = 0 end
    for k = 0, 2 do
      local line = p + ys[3 * gy + k] * row
      for gx = 0, gw - 1 do
        local a, b, c = line + xs[3 * gx], line + xs[3 * gx + 1], line + xs[3 * gx + 2]
        local u, v, w = a[0] + 2 * a[1] + a[2], b[0] + 2 * b[1] + b[2], c[0] + 2 * c[1] + c[2]
        grid[gy * gw + gx] = grid[gy * gw + gx] + (u + v + w) / 36
        if v <= 4 * DARK then dark = dark + 1 elseif v >= 4 * BRIGHT then bright = bright + 1 end
      end
    end
  end
  local n = gw * gh
  for i = 0, n - 1 do total = total + grid[i] end
  return total / n, dark / (3 * n), bright / (3 * n)
end

-- Mean outside a box of cells.
local function outside(grid, gw, gh, x0, y0, x1, y1)
  local sum, n = 0, 0
  for y = 0, gh - 1 do
    for x = 0, gw - 1 do
      if x < x0 or x > x1 or y < y0 or y > y1 then sum, n = sum + grid[y * gw + x], n + 1 end
    end
  end
  return sum / n
end

-- Structure of a block: sums of squared gradients.
local function structure(a, gw, x0, y0)
  local xx, yy, xy = 0, 0, 0
  for y = y0, y0 + BLOCK - 1 do
    for x = x0, x0 + BLOCK - 1 do
      local i = y * gw + x
      local u, v = (a[i + 1] - a[i - 1]) / 2, (a[i + gw] - a[i - gw]) / 2
      xx, yy, xy = xx + u * u, yy + v * v, xy + u * v
    end
  end
  return xx, yy, xy
end

-- Sum of absolute differences of a block of a and the block of b that lies dx, dy away, where b is brighter by `lift`.
local function difference(a, b, gw, x0, y0, dx, dy, lift, most)
  local sum = 0
  for y = y0, y0 + BLOCK - 1 do
    local i, k = y * gw + x0, (y + dy) * gw + x0 + dx
    for x = 0, BLOCK - 1 do sum = sum + math.abs(b[k + x] - a[i + x] - lift) end
    if sum >= most then break end
  end
  return sum
end

-- Where the block of a at x0, y0 lies in b: displacement in cells, and whether it was found. Looks at `near_x`, `near_y` first, so that the rest ends early.
local function follow(a, b, gw, gh, x0, y0, lift, xx, yy, xy, near_x, near_y)
  local bx, by = math.max(-x0, math.min(gw - BLOCK - x0, near_x)), math.max(-y0, math.min(gh - BLOCK - y0, near_y))
  local best = difference(a, b, gw, x0, y0, bx, by, lift, math.huge) + .01 * (math.abs(bx) + math.abs(by))
  for dy = math.max(-REACH, -y0), math.min(REACH, gh - BLOCK - y0) do
    for dx = math.max(-REACH, -x0), math.min(REACH, gw - BLOCK - x0) do
      -- of equals the nearer
      local d = difference(a, b, gw, x0, y0, dx, dy, lift, best) + .01 * (math.abs(dx) + math.abs(dy))
      if d < best then best, bx, by = d, dx, dy end
    end
  end
  local cells = BLOCK * BLOCK
  local strength = math.sqrt((xx + yy) / cells)
  if best / cells > .6 * strength + 1 or math.abs(bx) == REACH or math.abs(by) == REACH then return 0, 0, false end
  -- one step of Lucas and Kanade (1981) for the part of a cell
  local ex, ey = 0, 0
  for y = y0, y0 + BLOCK - 1 do
    for x = x0, x0 + BLOCK - 1 do
      local i = y * gw + x
      local u, v = (a[i + 1] - a[i - 1]) / 2, (a[i + gw] - a[i - gw]) / 2
      local e = b[(y + by) * gw + x + bx] - a[i] - lift
      ex, ey = ex + u * e, ey + v * e
    end
  end
  local det = xx * yy - xy * xy
  local fx, fy = -(yy * ex - xy * ey) / det, -(xx * ey - xy * ex) / det
  return bx + math.max(-1, math.min(1, fx)), by + math.max(-1, math.min(1, fy)), true
end

local function median(values)
  table.sort(values)
  local n = #values
  return n % 2 == 1 and values[(n + 1) / 2] or (values[n / 2] + values[n / 2 + 1]) / 2
end

-- Displacement of the background from `before` to `grid` in cells: median length, x, y, and the share of blocks that were found again.
local function background(self, lift)
  local a, b, gw, gh = self.before, self.grid, self.gw, self.gh
  local p, q = self.box, self.box_before
  local lengths, xs, ys, textured, near_x, near_y = {}, {}, {}, 0, 0, 0
  for y0 = 1, gh - BLOCK - 1, STEP do
    for x0 = 1, gw - BLOCK - 1, STEP do
      local x1, y1 = x0 + BLOCK - 1, y0 + BLOCK - 1
      local clear = (x1 < p[1] or x0 > p[3] or y1 < p[2] or y0 > p[4]) and (x1 < q[1] or x0 > q[3] or y1 < q[2] or y0 > q[4])
      if clear then
        local xx, yy, xy = structure(a, gw, x0, y0)
        local weaker = (xx + yy) / 2 - math.sqrt(((xx - yy) / 2) ^ 2 + xy * xy)
        if weaker / (BLOCK * BLOCK) >= TEXTURE then
          textured = textured + 1
          local dx, dy, found = follow(a, b, gw, gh, x0, y0, lift, xx, yy, xy, near_x, near_y)
          if found then
            near_x, near_y = math.floor(dx + .5), math.floor(dy + .5)
            xs[#xs + 1], ys[#ys + 1], lengths[#lengths + 1] = dx, dy, math.sqrt(dx * dx + dy * dy)
          end
        end
      end
    end
  end
  if textured < FEWEST then return nil end
  local share = #xs / textured
  if share < .25 or #xs < FEWEST / 2 then return REACH, REACH, 0, share end -- farther than could be followed
  return median(lengths), median(xs), median(ys), share
end

-- Mean difference of near places over that of far ones, in a box of pixels.
local function crispness(p, row, x0, y0, x1, y1, near)
  local far = 4 * near
  x1, y1 = x1 - far, y1 - far
  if x1 - x0 < far or y1 - y0 < far then return 0 / 0 end
  local close, wide = 0, 0
  for i = 0, 47 do
    local line = math.floor(y0 + (y1 - y0) * i / 47)
    for k = 0, 47 do
      local x = math.floor(x0 + (x1 - x0) * k / 47)
      local at = p + line * row + 3 * x + 1
      local v = at[0]
      close = close + math.abs(at[3 * near] - v) + math.abs(at[near * row] - v)
      wide = wide + math.abs(at[3 * far] - v) + math.abs(at[far * row] - v)
    end
  end
  return wide > 0 and close / wide or 0 / 0
end

-- Box of the body in pixels, with a margin for what lies beyond the joints.
local function body_box(points)
  local p = points:ptr()
  local x0, y0, x1, y1 = math.huge, math.huge, -math.huge, -math.huge
  for j = 0, 32 do
    local x, y = p[5 * j], p[5 * j + 1]
    x0, y0, x1, y1 = math.min(x0, x), math.min(y0, y), math.max(x1, x), math.max(y1, y)
  end
  local margin = .1 * math.max(x1 - x0, y1 - y0)
  return x0 - margin, y0 - margin, x1 + margin, y1 + margin
end

local function hypot(x, y) return math.sqrt(x * x + y * y) end

-- Other people than the one whose landmarks are given: how many, and whether one lies over that one's box. Detections as Landmarker:detect gives them.
local function other_people(detections, points, x0, y0, x1, y1)
  local p = points:ptr()
  local hx, hy = (p[5 * 23] + p[5 * 24]) / 2, (p[5 * 23 + 1] + p[5 * 24 + 1]) / 2
  local sx, sy = (p[5 * 11] + p[5 * 12]) / 2, (p[5 * 11 + 1] + p[5 * 12 + 1]) / 2
  local torso = hypot(sx - hx, sy - hy)
  local n, over = 0, 0
  for _, d in ipairs(detections) do
    local radius = hypot(d[7] - d[5], d[8] - d[6])
    -- two answers about one body lie closer together than two bodies can
    local same = hypot(d[5] - hx, d[6] - hy) < math.max(torso, .5 * radius) and hypot(d[9] - sx, d[10] - sy) < math.max(torso, .5 * radius)
    if not same then
      n = n + 1
      for k = 0, 4 do
        local x, y = d[5] + (d[9] - d[5]) * k / 4, d[6] + (d[10] - d[6]) * k / 4
        if x >= x0 and x <= x1 and y >= y0 and y <= y1 then over = 1 end
      end
    end
  end
  return n, over
end

--- Takes one frame.
---@param frame Tensor u8 [H,W,3] RGB
---@param time number seconds
---@param points Tensor|nil f32 [33,5] landmarks in pixels of the frame; nil where nobody was found
---@param landmarker Landmarker that was given the frame: its detector looks for other people
function Watch:look(frame, time, points, landmarker)
  local clock = require "libration.progress".clock
  local begin = clock()
  local n = #watch.COLUMNS
  if self.rows == self.room then
    local larger = ffi.new("float[?]", 2 * self.room * n)
    ffi.copy(larger, self.data, self.room * n * 4)
    self.data, self.room = larger, 2 * self.room
  end
  local row, at = self.data + self.rows * n, watch.at
  self.rows = self.rows + 1
  for i = 0, n - 1 do row[i] = 0 / 0 end
  local function put(name, value) row[at[name] - 1] = value end
  local p, w, h, gw, gh = frame:ptr(), self.width, self.height, self.gw, self.gh
  local x0, y0, x1, y1
  if points then
    x0, y0, x1, y1 = body_box(points)
    self.box = { math.floor(x0 * gw / w), math.floor(y0 * gh / h), math.ceil(x1 * gw / w), math.ceil(y1 * gh / h) }
  end
  local box = self.box -- where nobody is found, that of the last one
  local light, dark, bright = shrink(p, 3 * w, self.xs, self.ys, gw, gh, self.grid)
  local behind = outside(self.grid, gw, gh, box[1], box[2], box[3], box[4])
  put("light", light)
  put("dark", dark)
  put("bright", bright)
  put("background", behind)
  if not self.looked or time >= self.looked + EVERY - 1e-6 or time < self.looked then
    if self.looked and time > self.looked then
      local length, dx, dy, share = background(self, behind == behind and self.behind == self.behind and behind - self.behind or 0)
      if length then
        local scale = w / gw / (time - self.looked)
        put("camera", length * scale)
        put("camera_x", dx * scale)
        put("camera_y", dy * scale)
        put("blocks", share)
      end
    end
    if points then
      local q = points:ptr()
      local torso = hypot((q[55] + q[60] - q[115] - q[120]) / 2, (q[56] + q[61] - q[116] - q[121]) / 2)
      put("sharp", crispness(p, 3 * w, math.max(0, x0), math.max(0, y0), math.min(w - 1, x1), math.min(h - 1, y1), math.max(1, math.floor(torso / 50 + .5))))
    end
    self.grid, self.before = self.before, self.grid
    self.looked, self.behind, self.box_before = time, behind, self.box
  end
  if points and (not self.asked or time >= self.asked + PEOPLE - 1e-6 or time < self.asked) then
    local others, over = other_people(landmarker:detect(), points, x0, y0, x1, y1)
    put("others", others)
    put("over", over)
    self.asked = time
  end
  self.seconds = self.seconds + clock() - begin
end

--- Whether a tensor can be such a series of so many frames.
---@param series Tensor|nil
---@param frames integer
---@return boolean
function watch.fits(series, frames)
  return series ~= nil and series.dtype == "f32" and series:dim() == 2 and series:size(1) == frames and series:size(2) == #watch.COLUMNS
end

--- What was taken.
---@return Tensor series f32 [T, #watch.COLUMNS]
---@return number seconds that it took
function Watch:series()
  local t = tensor.empty({ self.rows, #watch.COLUMNS })
  if self.rows > 0 then ffi.copy(t:ptr(), self.data, self.rows * #watch.COLUMNS * 4) end
  return t, self.seconds
end

return watch
