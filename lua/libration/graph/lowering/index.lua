-- Ops of the IR that read and write by index, as calls of our ops. Rows as in lowering/elementwise.lua.
local ops = require "libration.ops"
require "libration.ops.index"

local rows = {
  -- negative positions counted from the end of `size`
  wrap_index = { run = function(x, a) return ops.wrap_index(x[1], a.size) end },
  gather_elements = { run = function(x, a) return ops.gather_elements(x[1], x[2], a.dim) end },
  gather_nd = { run = function(x, a) return ops.gather_nd(x[1], x[2], a.batch) end },
  scatter_elements = { run = function(x, a) return ops.scatter_elements(x[1], x[2], x[3], a.dim, a.kind) end },
  scatter_nd = { run = function(x, a) return ops.scatter_nd(x[1], x[2], x[3], a.kind) end },
  -- x[2]: what stands elsewhere, what stands at the index
  one_hot = {
    run = function(x, a)
      local values = x[2]:reshape(2)
      return ops.one_hot(x[1], a.depth, values:narrow(1, 2, 1), values:narrow(1, 1, 1), a.dim)
    end,
  },
  topk = { run = function(x, a) return ops.topk(x[1], a.k, a.dim, a.smallest) end },
  nonzero = { run = function(x) return ops.nonzero(x[1]) end },
  nms = { run = function(x, a) return ops.nms(x[1], x[2], a) end },
  reverse_sequence = { run = function(x, a) return ops.reverse_sequence(x[1], x[2], a.batch, a.time) end },
}

return { rows = rows }
