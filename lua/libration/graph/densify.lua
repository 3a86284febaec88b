-- Sparse constants of TFLite unpacked: dimensions dense or compressed, in any traversal order, with blocks. Knows nothing of networks.
-- Source: tensorflow/lite/kernels/internal/utils/sparsity_format_converter.cc
local ffi = require "ffi"
local tensor = require "libration.tensor"

local M = {}

local EXPANSION = 4096 -- most dense elements a stored one, so that a small file cannot ask for much memory

local function fail(name, ...)
  error(("sparse tensor '%s': "):format(name) .. string.format(...), 0)
end

-- Elements that one step along each level of the traversal moves in the dense tensor, and the size that a dense level must have.
local function levels_of(name, shape, sparsity)
  local rank, blocks = #shape, #sparsity.block_map
  local stride, n = {}, 1
  for d = rank, 1, -1 do
    stride[d] = n
    n = n * shape[d]
  end
  local block = {} -- dense dim -> block size
  for b, d in ipairs(sparsity.block_map) do
    local dim = sparsity.dims[rank + b]
    if d < 0 or d >= rank or block[d + 1] then fail(name, "block map names dimension %d of %d", d, rank) end
    if not (dim and dim.size) or dim.size < 1 or shape[d + 1] % dim.size ~= 0 then
      fail(name, "block of %s in a dimension of %d", tostring(dim and dim.size), shape[d + 1])
    end
    block[d + 1] = dim.size
  end
  if #sparsity.order ~= rank + blocks or #sparsity.dims ~= rank + blocks then
    fail(name, "traversal of %d and %d dimensions, want %d", #sparsity.order, #sparsity.dims, rank + blocks)
  end
  local step, size, seen = {}, {}, {}
  for level, o in ipairs(sparsity.order) do
    if o < 0 or o >= rank + blocks or seen[o] then fail(name, "traversal order names dimension %d", o) end
    seen[o] = true
    if (level <= rank) ~= (o < rank) then fail(name, "blocks are traversed before whole dimensions") end
    local d = o < rank and o + 1 or sparsity.block_map[o - rank + 1] + 1
    local inner = block[d] or 1
    step[level] = o < rank and stride[d] * inner or stride[d]
    size[level] = o < rank and shape[d] / inner or inner
  end
  return step, size, n
end

---Unpacks a sparse constant.
---@param name string for errors
---@param data Tensor stored values, flat, any dtype
---@param shape integer[] of the dense tensor
---@param sparsity {order: integer[], block_map: integer[], dims: {size: integer?, segments: integer[]?, indices: integer[]?}[]}
---@return Tensor dense of data's dtype; raises one line that names the tensor where the description is broken
function M.densify(name, data, shape, sparsity)
  local step, size, total = levels_of(name, shape, sparsity)
  local stored = data:numel()
  if total > stored * EXPANSION + 65536 or total > 2 ^ 31 - 1 then fail(name, "%.17g elements from %.17g stored ones", total, stored) end
  -- offsets[i]: where the i-th node of the level so far lies in the dense tensor; the storage order is the traversal order
  local offsets, count = ffi.new("int32_t[1]"), 1
  for level, dim in ipairs(sparsity.dims) do
    local width, stride = size[level], step[level]
    if dim.size then
      if dim.size ~= width then fail(name, "dense level %d of %d, want %d", level, dim.size, width) end
      if count * width > total then fail(name, "level %d has more nodes than the tensor elements", level) end
      local next_offsets = ffi.new("int32_t[?]", math.max(count * width, 1))
      for i = 0, count - 1 do
        for k = 0, width - 1 do next_offsets[i * width + k] = offsets[i] + k * stride end
      end
      offsets, count = next_offsets, count * width
    else
      local segments, indices = dim.segments, dim.indices
      if #segments ~= count + 1 or segments[1] ~= 0 or segments[count + 1] ~= #indices then
        fail(name, "level %d: %d segments for %d nodes and %d indices", level, #segments, count, #indices)
      end
      local next_offsets = ffi.new("int32_t[?]", math.max(#indices, 1))
      for i = 0, count - 1 do
        local first, last = segments[i + 1], segments[i + 2]
        if first > last then fail(name, "level %d: segments run backwards", level) end
        local before = -1
        for k = first, last - 1 do
          local index = indices[k + 1]
          if not index or index <= before or index >= width then fail(name, "level %d: index %s of %d", level, tostring(index), width) end
          before = index
          next_offsets[k] = offsets[i] + index * stride
        end
      end
      offsets, count = next_offsets, #indices
    end
  end
  if count ~= stored then fail(name, "%d places for %d stored values", count, stored) end
  local dense = tensor.zeros(shape, data.dtype)
  local to, from = dense:ptr(), data:ptr()
  for i = 0, count - 1 do to[offsets[i]] = from[i] end
  return dense
end

return M
