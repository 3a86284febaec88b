-- YOLO face heads with five points: YOLOv8-face [1,20,A] (box, score, points with visibility) and YOLOv5-face [1,A,16] (box, objectness, points, class).
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "yolo-face", input = { fit = "letterbox", fill = 114, scale = 1 / 255 }, points = boxes.face, class = "face" }

function M.recognise(outputs)
  local s = #outputs == 1 and outputs[1].shape
  return s and #s == 3 and s[1] == 1 and (s[2] == 20 and s[3] > 20 or s[3] == 16 and s[2] > 1000) or false
end

function M.decode(outputs, least)
  local y, five = outputs[1].tensor:select(1, 1), outputs[1].shape[3] == 16
  local bound, rows = five and y:select(2, 5) or y:select(1, 5), five and y or y:transpose(1, 2) -- no probability of a class is above 1
  return boxes.suppress(boxes.above(bound, least, { rows }, function(q)
    local d = boxes.centred(q, five and q[4] * q[15] or q[4], 15)
    for k = 0, 4 do
      local p = q + 5 + (five and 2 or 3) * k
      d.points[3 * k + 1], d.points[3 * k + 2], d.points[3 * k + 3] = p[0], p[1], five and d.score or p[2]
    end
    return d
  end), .45)
end

return M
