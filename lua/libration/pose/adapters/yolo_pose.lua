-- YOLOv8 and YOLO11 pose heads of one class: [1,5+3K,A] with box, score and K points, or [1,N,6+3K] where suppression is inside the network.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "yolo-pose", input = { fit = "letterbox", fill = 114, scale = 1 / 255 }, iou = .45, joints = boxes.coco }

-- 17 joints; other skeletons look like a detection head with more classes and are taken by name.
function M.recognise(outputs)
  local s = #outputs == 1 and outputs[1].shape
  return s and #s == 3 and s[1] == 1 and (s[2] == 56 and s[3] > 56 or s[3] == 57 and s[2] <= 1000) or false
end

function M.decode(outputs, least)
  local out, found = outputs[1], {}
  local p, rows, n = out.data, out.shape[2], out.shape[3]
  if rows > n then
    for i = 0, rows - 1 do
      local q = p + n * i
      if q[4] >= least then
        local d = { q[0], q[1], q[2], q[3], score = q[4], class = 0, points = {} }
        for k = 6, n - 1 do d.points[k - 5] = q[k] end
        found[#found + 1] = d
      end
    end
    return found
  end
  for i = 0, n - 1 do
    local score = p[4 * n + i]
    if score >= least then
      local x, y, w, h = p[i], p[n + i], p[2 * n + i] / 2, p[3 * n + i] / 2
      local d = { x - w, y - h, x + w, y + h, score = score, class = 0, points = {} }
      for k = 5, rows - 1 do d.points[k - 4] = p[k * n + i] end
      found[#found + 1] = d
    end
  end
  return boxes.suppress(found, M.iou)
end

function M.class() return "person" end

return M
