-- RTMDet with suppression inside, as mmdeploy exports it: [1,N,5] corners and score, [1,N] classes.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "rtmdet", input = { fit = "corner", fill = 114, mean = { 103.53, 116.28, 123.675 }, deviation = { 57.375, 57.12, 58.395 }, scale = 1, bgr = true } }

local function pair(outputs)
  local corners, classes
  for _, out in ipairs(outputs) do
    if #out.shape == 3 and out.shape[3] == 5 then corners = out elseif #out.shape == 2 then classes = out end
  end
  if corners and classes and corners.shape[2] == classes.shape[2] then return corners, classes end
end

function M.recognise(outputs) return #outputs == 2 and pair(outputs) ~= nil end

function M.decode(outputs, least)
  local corners, classes = pair(outputs)
  local y = corners.tensor:select(1, 1)
  return boxes.above(y:select(2, 5), least, { y, classes.tensor:reshape(-1, 1) }, function(q) return { q[0], q[1], q[2], q[3], score = q[4], class = q[5] } end)
end

function M.classes() return 80 end

return M
