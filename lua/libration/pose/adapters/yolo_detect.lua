-- YOLOv8 and YOLO11 detection heads: [1,4+C,A] with centres, sizes and scores, or [1,N,6] where suppression is inside the network.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "yolo-detect", input = { fit = "letterbox", fill = 114, scale = 1 / 255 }, iou = .45 }

function M.recognise(outputs)
  local s = #outputs == 1 and outputs[1].shape
  if not s or #s ~= 3 or s[1] ~= 1 then return false end
  return s[3] == 6 and s[2] <= 1000 or s[2] >= 5 and s[3] > s[2] and s[3] % 21 == 0 -- three strides: 64, 16 and 4 parts of 21 cells
end

function M.decode(outputs, least)
  local out, found = outputs[1], {}
  local p, rows, n = out.data, out.shape[2], out.shape[3]
  if n == 6 and rows <= 1000 then
    for i = 0, rows - 1 do
      local q = p + 6 * i
      if q[4] >= least then found[#found + 1] = { q[0], q[1], q[2], q[3], score = q[4], class = q[5] } end
    end
    return found
  end
  for i = 0, n - 1 do
    local best, class = -1, 0
    for c = 4, rows - 1 do
      local v = p[c * n + i]
      if v > best then best, class = v, c - 4 end
    end
    if best >= least then
      local x, y, w, h = p[i], p[n + i], p[2 * n + i] / 2, p[3 * n + i] / 2
      found[#found + 1] = { x - w, y - h, x + w, y + h, score = best, class = class }
    end
  end
  return boxes.suppress(found, M.iou)
end

-- COCO's first class is the person; what others are called the file does not say.
function M.class(index, count) return count == 80 and index == 0 and "person" or ("class%d"):format(index) end

function M.classes(outputs)
  local s = outputs[1].shape
  return s[3] ~= 6 and s[2] - 4 or 80
end

return M
