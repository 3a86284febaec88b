-- MoveNet's single-person head: [1,1,17,3] with y, x in parts of the input and score.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "movenet", input = { fit = "letterbox", fill = 0, scale = 1 }, joints = boxes.coco, class = "person", one = true }

function M.recognise(outputs)
  return #outputs == 1 and boxes.shape(outputs[1]) == "17x3"
end

function M.decode(outputs, least, size)
  local p, points = outputs[1].tensor:ptr(), {}
  for k = 0, 50, 3 do points[k + 1], points[k + 2], points[k + 3] = p[k + 1] * size.width, p[k] * size.height, p[k + 2] end
  return boxes.person(points, least)
end

return M
