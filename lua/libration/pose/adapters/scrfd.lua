-- SCRFD face heads: for strides 8, 16 and 32 scores [n,1], distances to the sides [n,4] and, in the networks with points, points [n,10], two anchors a cell.
local boxes = require "libration.pose.adapters.boxes"

local M = { name = "scrfd", input = { fit = "corner", mean = { 127.5, 127.5, 127.5 }, scale = 1 / 128 }, points = boxes.face, class = "face" }

local WIDTHS = { [1] = "scores", [4] = "sides", [10] = "points" }

-- Outputs by kind, finest stride first: the one with the most rows.
local function sorted(outputs)
  local by = { scores = {}, sides = {}, points = {} }
  for _, out in ipairs(outputs) do
    local kind = WIDTHS[out.shape[#out.shape]]
    if not kind then return nil end
    table.insert(by[kind], out)
  end
  for _, list in pairs(by) do table.sort(list, function(a, b) return a.shape[#a.shape - 1] > b.shape[#b.shape - 1] end) end
  return by
end

function M.recognise(outputs)
  if #outputs ~= 6 and #outputs ~= 9 then return false end
  for _, out in ipairs(outputs) do
    if #out.shape < 2 then return false end
  end
  local by = sorted(outputs)
  return by and #by.scores == 3 and #by.sides == 3 and by.scores[1].shape[#by.scores[1].shape - 1] == 4 * by.scores[2].shape[#by.scores[2].shape - 1] or false
end

function M.decode(outputs, least, size)
  local by, found = sorted(outputs), {}
  for level = 1, 3 do
    local stride = 4 * 2 ^ level
    local columns, parts = math.ceil(size.width / stride), {}
    for i, kind in ipairs { "scores", "sides", "points" } do
      local out = by[kind][level]
      parts[i] = out and out.tensor:reshape(-1, out.shape[#out.shape])
    end
    for _, d in ipairs(boxes.above(parts[1], least, parts, function(q, i)
      local cell = math.floor(i / 2)
      local x, y = cell % columns * stride, math.floor(cell / columns) * stride
      local d = { x - q[1] * stride, y - q[2] * stride, x + q[3] * stride, y + q[4] * stride, score = q[0], class = 0, points = parts[3] and {} }
      for k = 0, parts[3] and 4 or -1 do
        d.points[3 * k + 1], d.points[3 * k + 2], d.points[3 * k + 3] = x + q[5 + 2 * k] * stride, y + q[6 + 2 * k] * stride, q[0]
      end
      return d
    end)) do found[#found + 1] = d end
  end
  return boxes.suppress(found, .4)
end

return M
