-- Ops of the IR that move numbers about, as calls of our ops. Rows as in lowering/elementwise.lua.
local ops = require "libration.ops"
local densify = require "libration.graph.densify"
local tensor = require "libration.tensor"

local product = tensor.product

-- The shape of the file, with its first dim grown by as many times as there are more elements: a batch.
local function batched(shape, static, actual)
  local n = product(static)
  local times = n > 0 and actual / n or 1
  if times == 1 then return shape end
  local out = { unpack(shape) }
  if times ~= math.floor(times) or not out[1] then
    error(("reshape: %d elements into [%s]"):format(actual, table.concat(shape, ",")), 0)
  end
  out[1] = out[1] * times
  return out
end

-- Every step-th position of dim d, the first one included.
local function stepped(x, d, step)
  local shape = x.shape
  if step >= shape[d] then return x:narrow(d, 1, math.min(1, shape[d])) end
  local count = math.ceil(shape[d] / step)
  local missing = count * step - shape[d]
  if missing > 0 then -- to whole steps
    local before, after = {}, {}
    for i = 1, #shape do before[i], after[i] = 0, i == d and missing or 0 end
    x = ops.pad(x, before, after, 0)
  end
  local outer, inner = product(shape, 1, d - 1), product(shape, d + 1)
  shape[d] = count
  return x:reshape(outer, count, step, inner):narrow(3, 1, 1):reshape(shape)
end

-- attr's lists by dim, in another order of dims.
local function reordered(...)
  local names = { ... }
  return function(attr, order)
    local out = {}
    for k, v in pairs(attr) do out[k] = v end
    for _, name in ipairs(names) do
      out[name] = {}
      for d, v in ipairs(attr[name]) do out[name][order[d]] = v end
    end
    return out
  end
end

local rows = {
  pad = { run = function(x, a) return ops.pad(x[1], a.before, a.after, a.value) end, layout = "same", remap = reordered("before", "after") },
  concat = {
    run = function(x, a)
      -- the op takes eight at a time
      local list = x
      while #list > 8 do
        local joined = {}
        for i = 1, #list, 8 do
          local part = { unpack(list, i, math.min(i + 7, #list)) }
          joined[#joined + 1] = #part == 1 and part[1] or ops.concat(part, a.dim)
        end
        list = joined
      end
      return #list == 1 and list[1] or ops.concat(list, a.dim)
    end,
    layout = "same", remap = function(attr, order) return { dim = order[attr.dim] } end,
  },
  reshape = { run = function(x, a, node) return x[1]:reshape(batched(a.shape, node.inputs[1].shape, x[1]:numel())) end, layout = "reshape" },
  transpose = { run = function(x, a) return x[1]:permute(unpack(a.order)):contiguous() end },
  expand = { run = function(x, a) return x[1]:expand(unpack(a.shape)):contiguous() end },
  -- last and first count from 1; a negative step goes from first down to last
  slice = {
    run = function(x, a, node)
      local y = x[1]
      for d = 1, #a.first do
        local first, last, step = a.first[d], a.last[d], a.step[d]
        if first ~= 1 or last ~= node.inputs[1].shape[d] or step ~= 1 then -- all of a batch is more than the file says
          if step > 0 then
            y = y:narrow(d, first, math.max(last - first + 1, 0))
          else
            y = y:narrow(d, last, math.max(first - last + 1, 0)):flip(d)
          end
          if math.abs(step) > 1 then y = stepped(y, d, math.abs(step)) end
        end
      end
      return y:contiguous()
    end,
    layout = "same", remap = reordered("first", "last", "step"),
  },
  -- positions of x along a dim by an index that is 0 or more
  gather = { run = function(x, a) return ops.gather(x[1], x[2], a.dim) end },
  dequantize = { run = function(x) return x[1]:to("f32") end },
  densify = { run = function(x, a) return densify.densify(a.name, x[1], a.shape, a.sparsity) end },
}

return { rows = rows }
