-- RTMPose's SimCC head: [1,K,2W] and [1,K,2H], a place in half pixels for each of K points of one person in a crop.
local boxes = require "libration.pose.adapters.boxes"

local M = {
  name = "rtmpose", input = { fit = "letterbox", fill = 0, mean = { 123.675, 116.28, 103.53 }, deviation = { 58.395, 57.12, 57.375 }, scale = 1 },
  joints = boxes.coco, class = "person", one = true,
}

local SPLIT = 2 -- places a pixel

function M.recognise(outputs)
  local a, b = outputs[1] and outputs[1].shape, outputs[2] and outputs[2].shape
  return #outputs == 2 and #a == 3 and #b == 3 and a[2] == b[2] and a[3] > 64 and b[3] > 64
end

function M.decode(outputs, least)
  local x, y, points = outputs[1], outputs[2], {}
  local function top(out, k)
    local width = out.shape[3]
    local p = out.tensor:ptr() + k * width
    local at = boxes.best(p, width)
    return at / SPLIT, p[at]
  end
  for k = 0, x.shape[2] - 1 do
    local u, a = top(x, k)
    local v, b = top(y, k)
    points[3 * k + 1], points[3 * k + 2], points[3 * k + 3] = u, v, math.min(a, b)
  end
  return boxes.person(points, least)
end

return M
