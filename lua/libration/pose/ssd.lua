-- Single-shot detectors of the BlazeFace family: anchors, decoding of boxes with points, weighted suppression. Runs no network and knows no body part.
-- Numbers and order of steps are MediaPipe's (calculators/tflite/ssd_anchors, calculators/tensor/tensors_to_detections, util/non_max_suppression).
local ffi = require "ffi"

local ssd = {}

-- The C library's own single-precision function: not each of its answers is the nearest one, and MediaPipe has them as they are.
ffi.cdef "float expf(float x);"
local libm = ffi.C

local single = ffi.new("float[1]")

--- The nearest single-precision number.
---@param v number
---@return number
function ssd.f32(v)
  single[0] = v
  return single[0]
end
local f32 = ssd.f32

--- Logistic function, each operation rounded to single precision: a last bit that differs moves regions, which then move the next ones.
---@param v number
---@return number
function ssd.sigmoid(v)
  return f32(1 / f32(1 + libm.expf(-v)))
end
local sigmoid = ssd.sigmoid

--- Centres of anchors as fractions of a square input; each anchor is 1 wide and 1 high.
---@param layers integer[][] cells a side, anchors a cell, in the order of the network's rows
---@return ffi.cdata* centres float[n*2] x, y
---@return integer n
function ssd.anchors(layers)
  local n = 0
  for _, layer in ipairs(layers) do n = n + layer[1] * layer[1] * layer[2] end
  local at, k = ffi.new("float[?]", n * 2), 0
  for _, layer in ipairs(layers) do
    for y = 0, layer[1] - 1 do
      for x = 0, layer[1] - 1 do
        for _ = 1, layer[2] do
          at[k], at[k + 1] = (x + .5) / layer[1], (y + .5) / layer[1]
          k = k + 2
        end
      end
    end
  end
  return at, n
end

--- Intersection over union of two boxes.
---@param a number[] x0, y0, x1, y1
---@param b number[]
---@return number
function ssd.iou(a, b)
  local w = f32(math.min(a[3], b[3]) - math.max(a[1], b[1]))
  local h = f32(math.min(a[4], b[4]) - math.max(a[2], b[2]))
  if w <= 0 or h <= 0 then return 0 end
  local both = f32(w * h)
  local all = f32(f32(f32((a[3] - a[1]) * (a[4] - a[2])) + f32((b[3] - b[1]) * (b[4] - b[2]))) - both)
  return all > 0 and f32(both / all) or 0
end

local function best_first(detections)
  for i, d in ipairs(detections) do d.place = d.place or i end
  table.sort(detections, function(a, b)
    if a.score ~= b.score then return a.score > b.score end
    return a.place < b.place
  end)
  return detections
end

--- Weighted suppression: the best box becomes the score-weighted mean of all boxes that overlap it by more than `iou`, points too, with its own score kept.
---@param detections table[] arrays of coordinates (x0, y0, x1, y1, points x, y) with a field score; place, where there is one, breaks ties
---@param iou number
---@return table[] kept best first
function ssd.suppress(detections, iou)
  local found, kept = best_first(detections), {}
  while #found > 0 do
    local best, rest, mean, weight = found[1], {}, {}, 0
    for k = 1, #best do mean[k] = 0 end
    for _, d in ipairs(found) do
      if d == best or ssd.iou(best, d) > iou then
        weight = f32(weight + d.score)
        for k = 1, #best do mean[k] = f32(mean[k] + f32(d[k] * d.score)) end
      else
        rest[#rest + 1] = d
      end
    end
    for k = 1, #best do mean[k] = f32(mean[k] / weight) end
    mean.score = best.score
    kept[#kept + 1] = mean
    found = rest
  end
  return kept
end

---@class SsdHead
---@field anchors ffi.cdata* float[n*2] as ssd.anchors gives them
---@field count integer n
---@field coordinates integer numbers a box: 4 and two a point
---@field size integer pixels a side of the input

--- Detections from a network's raw outputs, not yet suppressed.
---@param head SsdHead
---@param boxes ffi.cdata* float[n*coordinates] box centre x, y, width, height, then points x, y, in input pixels beside the anchor
---@param scores ffi.cdata* float[n] logits
---@param least number smallest score
---@return table[] detections each x0, y0, x1, y1, points x, y (fractions of the square input), score, place (its row)
function ssd.decode(head, boxes, scores, least)
  local at, size, found = head.anchors, head.size, {}
  for i = 0, head.count - 1 do
    local v = scores[i]
    if v > -100 then -- also leaves NaN out
      local score = sigmoid(v < 100 and v or 100)
      if score >= least then
        local p, ax, ay = boxes + i * head.coordinates, at[2 * i], at[2 * i + 1]
        local x, y, w, h = f32(f32(p[0] / size) + ax), f32(f32(p[1] / size) + ay), f32(p[2] / size) / 2, f32(p[3] / size) / 2
        local d = { f32(x - w), f32(y - h), f32(x + w), f32(y + h), score = score, place = i }
        for k = 4, head.coordinates - 2, 2 do
          d[k + 1], d[k + 2] = f32(f32(p[k] / size) + ax), f32(f32(p[k + 1] / size) + ay)
        end
        found[#found + 1] = d
      end
    end
  end
  return found
end

--- A detection in fractions of a square input, in pixels of the picture that lies centred in it. Changes it in place.
---@param detection number[] x, y pairs
---@param width integer pixels of the picture
---@param height integer
---@return number[] detection
function ssd.to_picture(detection, width, height)
  -- shares of the square that lie beside and above the picture, on both sides together
  local tall = f32(height / width)
  local beside, above = 0, 0
  if tall < 1 then above = f32(1 - tall) else beside = f32(1 - f32(1 / tall)) end
  for k = 1, #detection - #detection % 2, 2 do
    detection[k] = f32(f32(f32(detection[k] - beside / 2) / f32(1 - beside)) * width)
    detection[k + 1] = f32(f32(f32(detection[k + 1] - above / 2) / f32(1 - above)) * height)
  end
  return detection
end

return ssd
