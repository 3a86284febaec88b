-- UltraFace's head: scores [1,n,2] (background, face) and corners [1,n,4] in parts of the input, already decoded in the network.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "ultraface", input = { fit = "stretch", mean = { 127, 127, 127 }, scale = 1 / 128 }, class = "face" }

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
  local y, w, h = scores.tensor:select(1, 1), size.width, size.height
  return boxes.suppress(boxes.above(y:select(2, 2), least, { corners.tensor:select(1, 1), y }, function(q)
    return { q[0] * w, q[1] * h, q[2] * w, q[3] * h, score = q[5], class = 0 }
  end), .3)
end

return M
