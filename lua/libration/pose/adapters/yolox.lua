-- YOLOX's head: [1,A,5+C] with centres and sizes in cells of strides 8, 16 and 32, objectness and classes.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "yolox", input = { fit = "corner", fill = 114, scale = 1, bgr = true } }

function M.recognise(outputs)
  local s = #outputs == 1 and outputs[1].shape
  return s and #s == 3 and s[1] == 1 and s[2] > s[3] and s[3] > 16 and s[2] % 21 == 0 or false
end

function M.decode(outputs, least, size)
  local y, cells, ends = outputs[1].tensor:select(1, 1), 0, {} -- of each stride: cells up to its last
  for level = 1, 3 do
    local stride = 4 * 2 ^ level
    cells = cells + math.floor(size.width / stride) * math.floor(size.height / stride)
    ends[level] = cells
  end
  if cells ~= y:size(1) then error(("yolox: the head has %d cells, want %d for %dx%d"):format(y:size(1), cells, size.width, size.height), 0) end
  return boxes.suppress(boxes.above(y:select(2, 5), least, { y }, function(q, i) -- no probability of a class is above 1
    local level = i < ends[1] and 1 or i < ends[2] and 2 or 3
    local stride, cell = 4 * 2 ^ level, i - (ends[level - 1] or 0)
    local columns, class = math.floor(size.width / stride), boxes.best(q + 5, y:size(2) - 5)
    local u, v, w, h = (q[0] + cell % columns) * stride, (q[1] + math.floor(cell / columns)) * stride, math.exp(q[2]) * stride / 2, math.exp(q[3]) * stride / 2
    return { u - w, v - h, u + w, v + h, score = q[5 + class] * q[4], class = class }
  end), .45)
end

function M.classes(outputs) return outputs[1].shape[3] - 5 end

return M
