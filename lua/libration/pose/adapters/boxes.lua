-- What the heads of detection networks share: candidates among many anchors, hard suppression, points of COCO's body. Knows no network.
local room = require "table.new"
local ops = require "libration.ops"
local tensor = require "libration.tensor"
local ssd = require "libration.pose.ssd"

local boxes = {}

---@class HeadOutput one output of a network: name, shape (integer[]), tensor (f32, contiguous, where the network ran)

--- COCO's 17 joints, in order.
boxes.coco = {
  "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
  "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
}

--- The five points of face detectors, in order; right and left are the person's own.
boxes.face = { "right_eye", "left_eye", "nose", "right_mouth", "left_mouth" }

--- Shape of an output without leading ones, as a text: "8400x56".
---@param output HeadOutput
---@return string
function boxes.shape(output)
  local from = 1
  while from < #output.shape and output.shape[from] == 1 do from = from + 1 end
  return table.concat(output.shape, "x", from)
end

--- Detections of a head with many anchors. Which anchors can be detections is found where the outputs lie; only the numbers of those come to the CPU.
---@param bound Tensor f32, a number for each of n anchors that its score does not exceed
---@param least number smallest score
---@param parts Tensor[] f32, what is known of the anchors, [n,k] each, or [k,n] transposed
---@param detection fun(q: ffi.cdata*, i: integer): table of the numbers of all parts (float*) of anchor i (from 0): x0, y0, x1, y1, score, class, points
---@return table[] detections of at least that score, in order
function boxes.above(bound, least, parts, detection)
  local found = {}
  tensor.scope(function() -- returns nothing: a scope looks for tensors in all that it returns
    local index, count = ops.nonzero(ops.ge(bound:reshape(-1), least))
    local n, rows = count:item(), {}
    if n == 0 then return end
    index = index:narrow(1, 1, n):reshape(-1)
    for k, part in ipairs(parts) do
      rows[k] = part:is_contiguous() and ops.gather(part, index) or ops.gather(part:transpose(1, 2), index, 2):transpose(1, 2)
    end
    local numbers = ops.concat(rows, 2):to "cpu"
    local q, at, width = numbers:ptr(), index:to("cpu"):ptr(), numbers:size(2)
    for i = 0, n - 1 do
      local d = detection(q + i * width, at[i])
      if d.score >= least then found[#found + 1] = d end
    end
  end)
  return found
end

--- A box of one class around a centre: x, y, width, height.
---@param q ffi.cdata* float*
---@param score number
---@param n integer numbers that its points will have
---@return table detection without points so far
function boxes.centred(q, score, n)
  local w, h = q[2] / 2, q[3] / 2
  return { q[0] - w, q[1] - h, q[0] + w, q[1] + h, score = score, class = 0, points = room(n, 0) }
end

--- One person by its points: the box of those that are seen, their mean score.
---@param points number[] x, y, score of each
---@param least number score of a point that is seen
---@return table[] detections one, or none where no point is seen
function boxes.person(points, least)
  local x0, y0, x1, y1, sum = math.huge, math.huge, -math.huge, -math.huge, 0
  for k = 1, #points, 3 do
    local x, y, score = points[k], points[k + 1], points[k + 2]
    if score >= least then x0, y0, x1, y1 = math.min(x0, x), math.min(y0, y), math.max(x1, x), math.max(y1, y) end
    sum = sum + score
  end
  return x0 <= x1 and { { x0, y0, x1, y1, score = math.max(0, math.min(1, sum * 3 / #points)), class = 0, points = points } } or {}
end

--- The first of the largest of n numbers, from 0.
---@param q ffi.cdata* float*
---@param n integer
---@return integer
function boxes.best(q, n)
  local best, class = -math.huge, 0
  for c = 0, n - 1 do
    if q[c] > best then best, class = q[c], c end
  end
  return class
end

--- Hard suppression: of boxes of one class that overlap by more than `iou` the best stays.
---@param found table[] arrays x0, y0, x1, y1 with score and class
---@param iou number
---@return table[] kept best first
function boxes.suppress(found, iou)
  for i, d in ipairs(found) do d.place = i end
  table.sort(found, function(a, b)
    if a.score ~= b.score then return a.score > b.score end
    return a.place < b.place
  end)
  local kept = {}
  for _, d in ipairs(found) do
    local new = true
    for _, other in ipairs(kept) do new = new and not (other.class == d.class and ssd.iou(d, other) > iou) end
    if new then kept[#kept + 1] = d end
  end
  return kept
end

return boxes
