-- CenterFace's head: a heat map of face centres [1,1,H,W], sizes [1,2,H,W], offsets [1,2,H,W] and points [1,10,H,W] at a quarter of the input.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "centerface", input = { fit = "stretch", multiple = 32, scale = 1 }, points = boxes.face, class = "face" }

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
  local parts, h, w = {}, nil, nil -- heat, sizes, offsets, points, in whatever order they come; sizes stand before offsets
  for _, out in ipairs(outputs) do
    local c = out.shape[2]
    h, w = out.shape[3], out.shape[4]
    parts[c == 1 and 1 or c == 10 and 4 or parts[2] and 3 or 2] = out.tensor:reshape(c, h * w):transpose(1, 2)
  end
  return boxes.suppress(boxes.above(parts[1], least, parts, function(q, i)
    local score, tall, wide = q[0], math.exp(q[1]) * 4, math.exp(q[2]) * 4
    local x, y = math.max(0, (i % w + q[4] + .5) * 4 - wide / 2), math.max(0, (math.floor(i / w) + q[3] + .5) * 4 - tall / 2)
    local d = { x, y, math.min(x + wide, 4 * w), math.min(y + tall, 4 * h), score = score, class = 0, points = {} }
    for k = 0, 4 do
      d.points[3 * k + 1], d.points[3 * k + 2], d.points[3 * k + 3] = q[6 + 2 * k] * wide + x, q[5 + 2 * k] * tall + y, score
    end
    return d
  end), .3)
end

return M
