-- YOLOX's head: [1,A,5+C] with centres and sizes in cells of strides 8, 16 and 32, objectness and classes.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "yolox", input = { fit = "corner", fill = 114, scale = 1, bgr = true }, iou = .45 }

local function cells(size)
  local n = 0
  for _, stride in ipairs { 8, 16, 32 } do n = n + math.floor(size.width / stride) * math.floor(size.height / stride) end
  return n
end

function M.recognise(outputs)
  local s = #outputs == 1 and outputs[1].shape
  return s and #s == 3 and s[1] == 1 and s[2] > s[3] and s[3] > 16 and s[2] % 21 == 0 or false
end

function M.decode(outputs, least, size)
  local out, found = outputs[1], {}
  local width = out.shape[3]
  if cells(size) ~= out.shape[2] then error(("yolox: the head has %d cells, want %d for %dx%d"):format(out.shape[2], cells(size), size.width, size.height), 0) end
  local q = out.data
  for _, stride in ipairs { 8, 16, 32 } do
    for r = 0, math.floor(size.height / stride) - 1 do
      for c = 0, math.floor(size.width / stride) - 1 do
        local best, class = -1, 0
        for k = 5, width - 1 do
          if q[k] > best then best, class = q[k], k - 5 end
        end
        local score = best * q[4]
        if score >= least then
          local x, y, w, h = (q[0] + c) * stride, (q[1] + r) * stride, math.exp(q[2]) * stride / 2, math.exp(q[3]) * stride / 2
          found[#found + 1] = { x - w, y - h, x + w, y + h, score = score, class = class }
        end
        q = q + width
      end
    end
  end
  return boxes.suppress(found, M.iou)
end

function M.class(index, count) return count == 80 and index == 0 and "person" or ("class%d"):format(index) end
function M.classes(outputs) return outputs[1].shape[3] - 5 end

return M
