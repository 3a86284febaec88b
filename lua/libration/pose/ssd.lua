-- Single-shot detectors of the BlazeFace family: anchors, and their answers as detections. Runs no network and knows no body part.
-- Numbers and order of steps are MediaPipe's (calculators/tflite/ssd_anchors, calculators/tensor/tensors_to_detections, util/non_max_suppression).
local ffi = require "ffi"
local ops = require "libration.ops"
local tensor = require "libration.tensor"

local ssd = {}

local single = ffi.new("float[1]")

--- The nearest single-precision number.
---@param v number
---@return number
function ssd.f32(v)
  single[0] = v
  return single[0]
end
local f32 = ssd.f32

--- Centres of anchors as fractions of a square input; each anchor is 1 wide and 1 high.
---@param layers integer[][] cells a side, anchors a cell, in the order of the network's rows
---@return Tensor centres f32 [n,2] x, y
function ssd.anchors(layers)
  local n = 0
  for _, layer in ipairs(layers) do n = n + layer[1] * layer[1] * layer[2] end
  local centres = tensor.empty { n, 2 }
  local at, k = centres:ptr(), 0
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
  return centres
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

local MOST = 512 -- detections of one picture

--- Detections from a network's raw outputs: probability at least `least`, after weighted suppression: the best box becomes the score-weighted mean of all boxes that
--- overlap it by more than `iou`, points too, with its own score kept. Worked out where the outputs lie; a few numbers a detection come to the CPU.
---@param boxes Tensor f32 [B,n,4 + 2P] box centre x, y, width, height, then points x, y, in input pixels beside the anchor
---@param scores Tensor f32 [B,n] or [B,n,1] logits
---@param anchors Tensor f32 [n,2] on their device
---@param options {size: integer, least: number, iou: number} size: pixels a side of the input
---@return table[][] detections of each picture, best first, at most 512: x0, y0, x1, y1, points x, y (fractions of the square input), and the score as field and last number
function ssd.detections(boxes, scores, anchors, options)
  local attr = ops.rows.ssd_detections.attr()
  attr.least, attr.iou, attr.size, attr.most = options.least, options.iou, options.size, math.min(MOST, anchors:size(1))
  local y = ops.raw.ssd_detections(boxes, scores, anchors, attr):to "cpu"
  local p, n, pictures = y:ptr(), y:size(3), {}
  for b = 1, y:size(1) do
    local list = {}
    for i = 1, y:size(2) do
      local row = p + ((b - 1) * y:size(2) + i - 1) * n
      if row[n - 1] == 0 then break end
      local d = { score = row[n - 1] }
      for k = 1, n do d[k] = row[k - 1] end
      list[i] = d
    end
    pictures[b] = list
  end
  return pictures
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
