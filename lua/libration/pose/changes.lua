-- What changed between two frames of one video, told from their coarse pictures: another scene, motion, parts that stayed as they were. Finds nobody.
local ffi = require "ffi"
local core = require "libration.core"
local tensor = require "libration.tensor"

local changes = {}

local function pixels(coarse) return coarse:ptr(), coarse:size(1), coarse:size(2) end

--- A coarse picture of a frame whose source gives none; not to be compared with those of a source that does.
---@param frame Tensor u8 [H,W,3]
---@return Tensor u8 [18,32,3]
function changes.coarse(frame)
  local h, w = frame:size(1), frame:size(2)
  local small, region = tensor.unscoped(tensor.empty, { 18, 32, 3 }, "u8"), ffi.new("lbr_region", w / 2, h / 2, w, h, 0)
  core.check(core.C.lbr_crop_u8(frame:ptr(), h, w, w * 3, region, core.C.LBR_BORDER_REPLICATE, small:ptr(), 18, 32))
  return small
end

local counts = ffi.new("int32_t[96]")

--- True where two frames show different scenes: most cells changed, and so did the share of the colours.
---@param a Tensor u8 [h,w,3] coarse picture of a frame, as media's transcode gives it
---@param b Tensor of another frame
---@return boolean
function changes.is_cut(a, b)
  local p, h, w = pixels(a)
  local q, n = b:ptr(), h * w * 3
  local moved, other = 0, 0
  ffi.fill(counts, ffi.sizeof(counts))
  for i = 0, n - 3, 3 do
    for k = 0, 2 do
      local u, v = p[i + k], q[i + k]
      moved = moved + math.abs(u - v)
      local x, y = 32 * k + math.floor(u / 8), 32 * k + math.floor(v / 8)
      counts[x], counts[y] = counts[x] + 1, counts[y] - 1
    end
  end
  for k = 0, 95 do other = other + math.abs(counts[k]) end
  return moved / n > 30 and other / (2 * n) > .35
end

--- Share of the cells that look in a frame as in neither of two others, between which it lies: something passed, or the camera swung.
---@param a Tensor
---@param b Tensor
---@param between Tensor
---@param least integer difference of a colour, of 255, that counts
---@return number share 0..1
function changes.novelty(a, b, between, least)
  local m, h, w = pixels(between)
  local p, q, n = a:ptr(), b:ptr(), 0
  for i = 0, h * w * 3 - 3, 3 do
    local x, y, z = m[i], m[i + 1], m[i + 2]
    local one = math.max(math.abs(x - p[i]), math.abs(y - p[i + 1]), math.abs(z - p[i + 2]))
    local two = math.max(math.abs(x - q[i]), math.abs(y - q[i + 1]), math.abs(z - q[i + 2]))
    if math.min(one, two) >= least then n = n + 1 end
  end
  return n / (h * w)
end

-- Largest difference of a colour in a rectangle of cells, ends included, between the means of blocks of `side` cells: what coding and noise do to single cells is
-- none of a thing of a block's size.
local function largest(a, b, left, top, right, bottom, side)
  local p, h, w = pixels(a)
  local q, most = b:ptr(), 0
  left, top, right, bottom = math.max(0, left), math.max(0, top), math.min(w - 1, right), math.min(h - 1, bottom)
  side = math.max(1, math.min(side, right - left + 1, bottom - top + 1))
  local step = math.max(1, math.floor(side / 2))
  for y = top, bottom - side + 1, step do
    for x = left, right - side + 1, step do
      local red, green, blue = 0, 0, 0
      for v = y, y + side - 1 do
        for i = (v * w + x) * 3, (v * w + x + side - 1) * 3, 3 do
          red, green, blue = red + p[i] - q[i], green + p[i + 1] - q[i + 1], blue + p[i + 2] - q[i + 2]
        end
      end
      most = math.max(most, math.abs(red), math.abs(green), math.abs(blue))
    end
  end
  return most / side ^ 2
end

-- What a stretch that reaches into a mirrored rim shows of a frame.
local function folded(from, to, length) return math.min(from, 2 * length - to), math.max(to, -from) end

local ALIKE = 8 -- of 255: what coding and noise make of the mean of a block
local BLOCK = .1 -- of a view's side: a block, and the smallest face that is found surely
local OLDEST = 8 -- looks after which an answer is asked for anew

---@class ViewMemory answers about square views of frames, for as long as nothing changes in them
local Memory = {}
Memory.__index = Memory

--- A memory for one video.
---@return ViewMemory
function changes.memory()
  return setmetatable({ answers = {} }, Memory)
end

--- Forgets everything.
function Memory:reset() self.answers = {} end

local function copied(list)
  local new = {}
  for i, found in ipairs(list) do
    local d = {}
    for name, value in pairs(found) do d[name] = type(value) == "table" and { unpack(value) } or value end
    new[i] = d
  end
  return new
end

--- Answers about views, asked for where the view changed since it was asked about, or that was long ago.
---@param views {x: number, y: number, side: number, angle: number}[] squares in pixels of a frame
---@param coarse Tensor coarse picture of the frame
---@param cell integer pixels along its cells
---@param ask fun(views: table[]): table[][] lists of detections, one a view
---@return table[][] lists, the caller's own
function Memory:of(views, coarse, cell, ask)
  local lists, missing, places, keys, kept = {}, {}, {}, {}, nil
  for i, view in ipairs(views) do
    local key = ("%.1f %.1f %.1f %.3f %d"):format(view.x, view.y, view.side, view.angle, view.rim or 0)
    local known = self.answers[key]
    local x, y, r = view.x, view.y, view.side / 2
    if known then known.age = known.age + 1 end
    local left, right = folded(x - r, x + r, coarse:size(2) * cell)
    local top, bottom = folded(y - r, y + r, coarse:size(1) * cell)
    if known and known.age < OLDEST and largest(known.coarse, coarse, math.floor(left / cell), math.floor(top / cell), math.floor(right / cell),
        math.floor(bottom / cell), math.floor(view.side * BLOCK / cell + .5)) <= ALIKE then
      lists[i] = copied(known.list)
    else
      missing[#missing + 1], places[#places + 1], keys[i] = view, i, key
    end
  end
  if #missing == 0 then return lists end
  for k, list in ipairs(ask(missing)) do
    if not kept then
      kept = tensor.unscoped(tensor.empty, coarse.shape, "u8")
      ffi.copy(kept:ptr(), coarse:ptr(), coarse:numel())
    end
    local i = places[k]
    lists[i] = list
    self.answers[keys[i]] = { list = copied(list), coarse = kept, age = 0 }
  end
  return lists
end

return changes
