-- YOLO face heads with five points: YOLOv8-face [1,20,A] (box, score, points with visibility) and YOLOv5-face [1,A,16] (box, objectness, points, class).
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "yolo-face", input = { fit = "letterbox", fill = 114, scale = 1 / 255 }, iou = .45, points = boxes.face }

function M.recognise(outputs)
  local s = #outputs == 1 and outputs[1].shape
  return s and #s == 3 and s[1] == 1 and (s[2] == 20 and s[3] > 20 or s[3] == 16 and s[2] > 1000) or false
end

function M.decode(outputs, least)
  local out, found = outputs[1], {}
  local p, five = out.data, out.shape[3] == 16
  local n = five and out.shape[2] or out.shape[3]
  local function at(row, i) return five and p[16 * i + row] or p[row * n + i] end
  for i = 0, n - 1 do
    local score = five and at(4, i) * at(15, i) or at(4, i)
    if score >= least then
      local x, y, w, h = at(0, i), at(1, i), at(2, i) / 2, at(3, i) / 2
      local d = { x - w, y - h, x + w, y + h, score = score, class = 0, points = {} }
      for k = 0, 4 do
        local row = five and 5 + 2 * k or 5 + 3 * k
        d.points[3 * k + 1], d.points[3 * k + 2], d.points[3 * k + 3] = at(row, i), at(row + 1, i), five and score or at(row + 2, i)
      end
      found[#found + 1] = d
    end
  end
  return boxes.suppress(found, M.iou)
end

function M.class() return "face" end

return M
