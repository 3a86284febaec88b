-- What the heads of detection networks share: arrays by shape, hard suppression, points of COCO's body. Knows no network.
local ssd = require "libration.pose.ssd"

local boxes = {}

---@class HeadOutput one output of a network: name, shape (integer[]), data (float*, row-major)

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

--- Numbers of an output's elements.
---@param output HeadOutput
---@return integer
function boxes.count(output)
  local n = 1
  for _, d in ipairs(output.shape) do n = n * d end
  return n
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
