-- Quantising ops of the IR as calls of our ops. Rows as in lowering/elementwise.lua.
local ops = require "libration.ops"
require "libration.ops.quantise"

local rows = {
  quantize = { run = function(x, a) return ops.quantize(x[1], x[2], x[3], a.kind) end, layout = "pointwise" },
  dequantize_by = { run = function(x) return ops.dequantize(x[1], x[2], x[3]) end, layout = "pointwise" },
  dynamic_quantize = { run = function(x) return ops.dynamic_quantize(x[1]) end },
  -- f32 as u8 of {scale, zero}, maybe with dims in another order, and back, and the convolution between them
  to_bytes = { run = function(x, a) return ops.to_bytes(a.order and x[1]:permute(unpack(a.order)) or x[1], 1 / a.q[1], a.q[2]) end },
  to_numbers = { run = function(x, a) return ops.affine(x[1]:to "f32", a.q[1], -a.q[1] * a.q[2]) end },
  conv2d_int8 = {
    run = function(x, a)
      return ops.conv2d_int8(x[1], x[2], x[3], { stride = a.stride, pad = a.pad, dilation = a.dilation, act = a.act, late = a.late, residual = x[4], x = a.x, y = a.y, r = a.r })
    end,
  },
  -- a value minus its zero, in numbers in which a sum of `count` products is exact
  exact = { run = function(x, a) return ops.exact(x[1], x[2], a.count) end, layout = "pointwise" },
}

return { rows = rows }
