-- YOLOv8 and YOLO11 pose heads of one class: [1,5+3K,A] with box, score and K points, or [1,N,6+3K] where suppression is inside the network.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "yolo-pose", input = { fit = "letterbox", fill = 114, scale = 1 / 255 }, joints = boxes.coco, class = "person" }

-- 17 joints; other skeletons look like a detection head with more classes and are taken by name.
function M.recognise(outputs)
  local s = #outputs == 1 and outputs[1].shape
  return s and #s == 3 and s[1] == 1 and (s[2] == 56 and s[3] > 56 or s[3] == 57 and s[2] <= 1000) or false
end

function M.decode(outputs, least)
  local y, rows, n = outputs[1].tensor:select(1, 1), outputs[1].shape[2], outputs[1].shape[3]
  if rows > n then
    return boxes.above(y:select(2, 5), least, { y }, function(q)
      local d = { q[0], q[1], q[2], q[3], score = q[4], class = 0, points = {} }
      for k = 6, n - 1 do d.points[k - 5] = q[k] end
      return d
    end)
  end
  return boxes.suppress(boxes.above(y:select(1, 5), least, { y:transpose(1, 2) }, function(q)
    local d = boxes.centred(q, q[4], rows - 5)
    for k = 5, rows - 1 do d.points[k - 4] = q[k] end
    return d
  end), .45)
end

return M
