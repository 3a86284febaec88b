-- YOLOv8 and YOLO11 detection heads: [1,4+C,A] with centres, sizes and scores, or [1,N,6] where suppression is inside the network.
local ops = require "libration.ops"
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "yolo-detect", input = { fit = "letterbox", fill = 114, scale = 1 / 255 } }

function M.recognise(outputs)
  local s = #outputs == 1 and outputs[1].shape
  if not s or #s ~= 3 or s[1] ~= 1 then return false end
  return s[3] == 6 and s[2] <= 1000 or s[2] >= 5 and s[3] > s[2] and s[3] % 21 == 0 -- three strides: 64, 16 and 4 parts of 21 cells
end

function M.decode(outputs, least)
  local y, rows = outputs[1].tensor:select(1, 1), outputs[1].shape[2]
  if outputs[1].shape[3] == 6 and rows <= 1000 then
    return boxes.above(y:select(2, 5), least, { y }, function(q) return { q[0], q[1], q[2], q[3], score = q[4], class = q[5] } end)
  end
  return boxes.suppress(boxes.above(ops.max(y:narrow(1, 5, rows - 4), 1), least, { y:transpose(1, 2) }, function(q)
    local w, h, class = q[2] / 2, q[3] / 2, boxes.best(q + 4, rows - 4)
    return { q[0] - w, q[1] - h, q[0] + w, q[1] + h, score = q[4 + class], class = class }
  end), .45)
end

function M.classes(outputs)
  local s = outputs[1].shape
  return s[3] ~= 6 and s[2] - 4 or 80
end

return M
