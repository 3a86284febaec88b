-- MoveNet's single-person head: [1,1,17,3] with y, x in parts of the input and score.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "movenet", input = { fit = "letterbox", fill = 0, scale = 1 }, joints = boxes.coco, class = "person", one = true }

function M.recognise(outputs)
  return #outputs == 1 and boxes.shape(outputs[1]) == "17x3"
end

function M.decode(outputs, least, size)
  local p, d, sum = outputs[1].tensor:ptr(), { class = 0, points = {} }, 0
  local x0, y0, x1, y1 = math.huge, math.huge, -math.huge, -math.huge
  for k = 0, 16 do
    local x, y, score = p[3 * k + 1] * size.width, p[3 * k] * size.height, p[3 * k + 2]
    d.points[3 * k + 1], d.points[3 * k + 2], d.points[3 * k + 3] = x, y, score
    if score >= least then x0, y0, x1, y1 = math.min(x0, x), math.min(y0, y), math.max(x1, x), math.max(y1, y) end
    sum = sum + score
  end
  d.score = sum / 17
  if x0 > x1 then return {} end
  d[1], d[2], d[3], d[4] = x0, y0, x1, y1
  return { d }
end

return M
