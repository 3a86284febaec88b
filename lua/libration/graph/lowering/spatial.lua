-- Ops of the IR over one to three dims of space, channels last, as calls of our ops. Rows as in lowering/elementwise.lua.
local ops = require "libration.ops"
require "libration.ops.norm"
require "libration.ops.sample"

local rows = {
  conv3d = { run = function(x, a) return ops.conv3d(x[1], x[2], x[3], a) end },
  conv_transpose2d = { run = function(x, a) return ops.conv_transpose2d(x[1], x[2], x[3], a) end },
  conv_transpose3d = { run = function(x, a) return ops.conv_transpose3d(x[1], x[2], x[3], a) end },
  pool = { run = function(x, a) return ops.pool(x[1], a.kind, a) end },
  max_pool_index = { run = function(x, a) return ops.max_pool_index(x[1], a) end },
  resize = {
    run = function(x, a) return ops.resize(x[1], a.axes, a) end,
    layout = "same",
    remap = function(attr, order)
      local out = { axes = {} }
      for k, v in pairs(attr) do out[k] = out[k] or v end
      for i, axis in ipairs(attr.axes) do
        local own = {}
        for k, v in pairs(axis) do own[k] = v end
        own.d = order[axis.d]
        out.axes[i] = own
      end
      return out
    end,
  },
  grid_sample = { run = function(x, a) return ops.grid_sample(x[1], x[2], a) end },
  roi_align = { run = function(x, a) return ops.roi_align(x[1], x[2], x[3], a) end },
  group_norm = { run = function(x, a) return ops.group_norm(x[1], a.groups, x[2], x[3], a.eps) end },
  rms_norm = { run = function(x, a) return ops.rms_norm(x[1], x[2], a.eps) end, layout = "last" },
}

return { rows = rows }
