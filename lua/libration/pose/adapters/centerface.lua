-- CenterFace's head: a heat map of face centres [1,1,H,W], sizes [1,2,H,W], offsets [1,2,H,W] and points [1,10,H,W] at a quarter of the input.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "centerface", input = { fit = "stretch", multiple = 32, scale = 1 }, iou = .3, points = boxes.face }

function M.recognise(outputs)
  if #outputs ~= 4 then return false end
  local one, two, ten = 0, 0, 0
  for _, out in ipairs(outputs) do
    local s = out.shape
    if #s ~= 4 then return false end
    one, two, ten = one + (s[2] == 1 and 1 or 0), two + (s[2] == 2 and 1 or 0), ten + (s[2] == 10 and 1 or 0)
  end
  return one == 1 and two == 2 and ten == 1
end

function M.decode(outputs, least)
  local heat, scale, offset, points
  for _, out in ipairs(outputs) do -- sizes stand before offsets
    local c = out.shape[2]
    if c == 1 then heat = out elseif c == 10 then points = out elseif scale then offset = out else scale = out end
  end
  local h, w, found = heat.shape[3], heat.shape[4], {}
  local n = h * w
  for i = 0, n - 1 do
    local score = heat.data[i]
    if score > least then
      local r, c = math.floor(i / w), i % w
      local tall, wide = math.exp(scale.data[i]) * 4, math.exp(scale.data[n + i]) * 4
      local x = math.max(0, (c + offset.data[n + i] + .5) * 4 - wide / 2)
      local y = math.max(0, (r + offset.data[i] + .5) * 4 - tall / 2)
      local d = { x, y, math.min(x + wide, 4 * w), math.min(y + tall, 4 * h), score = score, class = 0, points = {} }
      for k = 0, 4 do
        d.points[3 * k + 1], d.points[3 * k + 2], d.points[3 * k + 3] = points.data[(2 * k + 1) * n + i] * wide + x, points.data[2 * k * n + i] * tall + y, score
      end
      found[#found + 1] = d
    end
  end
  return boxes.suppress(found, M.iou)
end

function M.class() return "face" end

return M
