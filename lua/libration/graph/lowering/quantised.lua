-- Quantising ops of the IR as calls of our ops. Rows as in lowering/elementwise.lua.
local ops = require "libration.ops"
require "libration.ops.quantise"

local rows = {
  quantize = { run = function(x, a) return ops.quantize(x[1], x[2], x[3], a.kind) end, layout = "pointwise" },
  dequantize_by = { run = function(x) return ops.dequantize(x[1], x[2], x[3]) end, layout = "pointwise" },
  dynamic_quantize = { run = function(x) return ops.dynamic_quantize(x[1]) end },
  -- a value minus its zero, in numbers in which a sum of `count` products is exact
  exact = { run = function(x, a) return ops.exact(x[1], x[2], a.count) end, layout = "pointwise" },
}

return { rows = rows }
