-- Layers of the IR as calls of our ops: products, convolutions, pools, norms. Rows as in lowering/elementwise.lua.
local ops = require "libration.ops"

local function conv_options(a, extra)
  local o = { stride = a.stride, pad = a.pad, dilation = a.dilation, groups = a.groups, act = a.act, loose = a.loose }
  for k, v in pairs(extra) do o[k] = v end
  return o
end

local rows = {
  conv2d = { run = function(x, a) return ops.conv2d(x[1], x[2], x[3], conv_options(a, { residual = x[4], slope = x[5] })) end, layout = "pixels" },
  depthwise = {
    run = function(x, a)
      local w = x[2]
      if w:dim() == 4 then w = w:reshape(w:size(2), w:size(3), w:size(4)) end
      return ops.depthwise(x[1], w, x[3], conv_options(a, { residual = x[4], slope = x[5] }))
    end,
  },
  linear = { run = function(x, a) return ops.linear(x[1], x[2], x[3], a.act) end, layout = "last" },
  matmul = { run = function(x, a) return ops.matmul(x[1], x[2], a.transpose_a, a.transpose_b) end, layout = "product" },
  softmax = { run = function(x) return ops.softmax(x[1]) end, layout = "last" },
  log_softmax = { run = function(x) return ops.log_softmax(x[1]) end, layout = "last" },
  layer_norm = { run = function(x, a) return ops.layer_norm(x[1], x[2], x[3], a.eps) end, layout = "last" },
  max_pool2d = { run = function(x, a) return ops.max_pool2d(x[1], a.kernel, a) end },
  avg_pool2d = { run = function(x, a) return ops.avg_pool2d(x[1], a.kernel, a) end },
  resize_bilinear = {
    run = function(x, a) return ops.resize_bilinear(x[1], a.size, { align_corners = a.align_corners, half_pixel = a.half_pixel }) end,
  },
  depth_to_space = { run = function(x, a) return ops.depth_to_space(x[1], a.block) end },
  argmax = { run = function(x, a) return ops.argmax(x[1], a.dim, a.keep, a.last) end },
  argmin = { run = function(x, a) return ops.argmin(x[1], a.dim, a.keep, a.last) end },
  lstm = { run = function(x) return ops.lstm(x[1], x[2], x[3], x[4], x[5], x[6]) end },
}

return { rows = rows }
