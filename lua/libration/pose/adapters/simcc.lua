-- RTMPose's SimCC head: [1,K,2W] and [1,K,2H], a place in half pixels for each of K points of one person in a crop.
local boxes = require "libration.pose.adapters.boxes"

local M = {
  name = "rtmpose", input = { fit = "letterbox", fill = 0, mean = { 123.675, 116.28, 103.53 }, deviation = { 58.395, 57.12, 57.375 }, scale = 1 },
  joints = boxes.coco, class = "person", one = true,
}

local SPLIT = 2 -- places a pixel

function M.recognise(outputs)
  local a, b = outputs[1] and outputs[1].shape, outputs[2] and outputs[2].shape
  return #outputs == 2 and #a == 3 and #b == 3 and a[2] == b[2] and a[3] > 64 and b[3] > 64
end

function M.decode(outputs, least)
  local x, y = outputs[1], outputs[2]
  local d, sum = { class = 0, points = {} }, 0
  local x0, y0, x1, y1 = math.huge, math.huge, -math.huge, -math.huge
  for k = 0, x.shape[2] - 1 do
    local function top(out)
      local p, best, at = out.tensor:ptr() + k * out.shape[3], -math.huge, 0
      for i = 0, out.shape[3] - 1 do
        if p[i] > best then best, at = p[i], i end
      end
      return at / SPLIT, best
    end
    local u, a = top(x)
    local v, b = top(y)
    local score = math.min(a, b)
    d.points[3 * k + 1], d.points[3 * k + 2], d.points[3 * k + 3] = u, v, score
    if score >= least then x0, y0, x1, y1 = math.min(x0, u), math.min(y0, v), math.max(x1, u), math.max(y1, v) end
    sum = sum + score
  end
  d.score = math.max(0, math.min(1, sum / x.shape[2]))
  if x0 > x1 then return {} end
  d[1], d[2], d[3], d[4] = x0, y0, x1, y1
  return { d }
end

return M
