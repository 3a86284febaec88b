-- UltraFace's head: scores [1,n,2] (background, face) and corners [1,n,4] in parts of the input, already decoded in the network.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "ultraface", input = { fit = "stretch", mean = { 127, 127, 127 }, scale = 1 / 128 }, iou = .3 }

local function pair(outputs)
  local scores, corners
  for _, out in ipairs(outputs) do
    local s = out.shape
    if #s == 3 and s[3] == 2 then scores = out elseif #s == 3 and s[3] == 4 then corners = out end
  end
  if scores and corners and scores.shape[2] == corners.shape[2] then return scores, corners end
end

function M.recognise(outputs) return #outputs == 2 and pair(outputs) ~= nil end

function M.decode(outputs, least, size)
  local scores, corners = pair(outputs)
  local found = {}
  for i = 0, scores.shape[2] - 1 do
    local score, q = scores.data[2 * i + 1], corners.data + 4 * i
    if score > least then
      found[#found + 1] = { q[0] * size.width, q[1] * size.height, q[2] * size.width, q[3] * size.height, score = score, class = 0 }
    end
  end
  return boxes.suppress(found, M.iou)
end

function M.class() return "face" end

return M
