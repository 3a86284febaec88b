-- index.lua: reading and writing by index, and what is made of it: elements, triangles, tiles, the best, reversal, padding by the picture itself. Arithmetic is in ops.lua.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"
local mirrored = require "libration.ops.beyond"
require "libration.view"

local product = tensor.product

local raise = core.raise
local raw, rows, methods = ops.raw, ops.rows, tensor.methods
local whole, is_tensor, dim_of = tensor.whole, tensor.is_tensor, tensor.dim_of

local function given(x, name)
  if not is_tensor(x) then raise(("%s: x is a %s, want a tensor"):format(name, type(x))) end
  return x
end

-- The numbers of a list as a tensor beside x.
local function beside(x, list, dtype) return tensor.tensor(list, dtype or "i32", x.device) end

---------------------------------------------------------------------------------------------------- elements

--- x at the places of index, along dim d (default the last): y[i][j] = x[i][index[i][j]].
---@param x Tensor
---@param index Tensor i32, as many dims as x, from 0
---@return Tensor like index
function ops.gather_elements(x, index, d)
  local attr = rows.gather_elements.attr()
  attr.dim = dim_of(given(x, "gather_elements"), d or -1, "gather_elements")
  return raw.gather_elements(x, index, attr)
end

local scatters = {replace = 0, add = 1, mul = 2, min = 3, max = 4}
local function scatter_kind(kind, name)
  local id = scatters[kind or "replace"]
  if not id then raise(("%s: %s, want replace, add, mul, min or max"):format(name, tostring(kind))) end
  return id
end

--- x with values put at the places of index, along dim d: the inverse of gather_elements. Has a gradient for "replace" and "add".
---@param x Tensor
---@param index Tensor i32, as many dims as x, from 0
---@param values Tensor like index
---@param kind string|nil "replace" (default: the last one stays), "add", "mul", "min", "max"
---@return Tensor
function ops.scatter_elements(x, index, values, d, kind)
  local attr = rows.scatter_elements.attr()
  attr.dim = dim_of(given(x, "scatter_elements"), d or -1, "scatter_elements")
  attr.kind = scatter_kind(kind, "scatter_elements")
  return raw.scatter_elements(x, index, values, attr)
end

--- index with negative ones counted from the end of n positions.
---@param index Tensor i32
---@param n integer|Tensor i32
---@return Tensor i32
function ops.wrap_index(index, n) return ops.where(ops.lt(index, 0), index + n, index) end

-- Places [..] of index [..,K] among the first K of these sizes; -1, which is refused later, where one lies outside.
local function flat_index(index, sizes)
  local K = index:size(-1)
  if K == 0 then return tensor.zeros({unpack(index.shape, 1, index.ndim - 1)}, "i32", index.device) end
  local strides, own = {}, {}
  for i = 1, K do own[i], strides[i] = sizes[i], product(sizes, i + 1, K) end
  local limit = beside(index, own)
  index = ops.wrap_index(index, limit)
  local inside = ops.min(ops.mul(ops.ge(index, 0), ops.lt(index, limit)), -1)
  return ops.where(inside, ops.sum(ops.mul(index, beside(index, strides)), -1), -1)
end

--- Slices of x: the last dim of index holds positions in the first dims of x (after `batch` dims that both share); negative ones count from the end.
---@param x Tensor
---@param index Tensor i32 [..,K]
---@param batch integer|nil 0
---@return Tensor [.., the dims of x that index leaves]
function ops.gather_nd(x, index, batch)
  batch = batch or 0
  local shape, lead = given(x, "gather_nd").shape, index.shape
  local K = table.remove(lead)
  if not K or batch + K > #shape or batch > #lead then
    raise(("gather_nd: index %s in %s, %d dims of a batch"):format(tensor.describe(index), tensor.describe(x), batch))
  end
  local flat, each, many = flat_index(index, {unpack(shape, batch + 1, batch + K)}), product(shape, batch + 1, batch + K), product(shape, 1, batch)
  if batch > 0 then
    local first = {}
    for i = 1, #lead do first[i] = i <= batch and lead[i] or 1 end
    local start = ops.affine(tensor.arange(many, "i32", x.device), each, 0):reshape(first)
    flat = ops.where(ops.lt(flat, 0), flat, flat + start)
  end
  return ops.gather(x:reshape(many * each, unpack(shape, batch + K + 1)), flat)
end

--- x with slices put where gather_nd would read them; kinds as in scatter_elements.
---@param x Tensor
---@param index Tensor i32 [..,K]
---@param values Tensor [.., the dims of x that index leaves]
---@return Tensor
function ops.scatter_nd(x, index, values, kind)
  local shape = given(x, "scatter_nd").shape
  local K = index:size(-1)
  if K > #shape then raise(("scatter_nd: index %s in %s"):format(tensor.describe(index), tensor.describe(x))) end
  local flat, inner = flat_index(index, shape):reshape(-1), product(shape, K + 1)
  local n = flat:numel()
  if n == 0 then return ops.clone(x) end
  if values:numel() ~= n * inner then raise(("scatter_nd: values %s for index %s in %s"):format(tensor.describe(values), tensor.describe(index), tensor.describe(x))) end
  local y = ops.scatter_elements(x:reshape(product(shape, 1, K), inner), flat:unsqueeze(2):expand(n, inner), values:reshape(n, inner), 1, kind)
  return y:reshape(shape)
end

---------------------------------------------------------------------------------------------------- made of positions

--- A new dim d of `depth` positions: on where it is the index, else off. Negative ones count from the end, others outside are nowhere.
---@param index Tensor
---@param depth integer
---@param on number|Tensor|nil one element, default 1
---@param off number|Tensor|nil default 0
---@param d integer|nil the last
---@return Tensor f32, or on's type
function ops.one_hot(index, depth, on, off, d)
  given(index, "one_hot")
  d = d or -1
  local position = ops.wrap_index(index:to "i32", whole(depth, "one_hot", "depth", 0)):unsqueeze(d)
  local own = {}
  for i = 1, position.ndim do own[i] = 1 end
  own[d < 0 and position.ndim + 1 + d or d] = depth
  local hit = ops.eq(position, tensor.arange(depth, "i32", index.device):reshape(own))
  return ops.where(hit, on or tensor.ones({}, "f32", index.device), off or 0)
end

local function triangle(name, inside)
  return function(x, k)
    local n = given(x, name).ndim
    if n < 2 then raise(name .. ": x is " .. tensor.describe(x) .. ", want [..,R,C]") end
    local row, column = tensor.arange(x:size(-2), "i32", x.device):unsqueeze(2), tensor.arange(x:size(-1), "i32", x.device):unsqueeze(1)
    return ops.where(inside(column, row + whole(k or 0, name, "the diagonal")), x, 0)
  end
end
--- The lower triangle of the last two dims up to diagonal k (default 0), 0 above: tril(x, k).
ops.tril = triangle("tril", ops.le)
--- The upper triangle of the last two dims from diagonal k (default 0) on, 0 below: triu(x, k).
ops.triu = triangle("triu", ops.ge)

--- 1 on diagonal k, else 0.
---@param n integer rows
---@param m integer|nil columns, default n
---@param k integer|nil 0
---@return Tensor [n,m]
function ops.eye(n, m, k, dtype, device)
  local row, column = tensor.arange(n, "i32", device):unsqueeze(2), tensor.arange(m or n, "i32", device):unsqueeze(1)
  return ops.eq(column, row + (k or 0)):to(dtype or "f32")
end

--- first, first + step, ... before limit.
---@return Tensor [n]
function ops.range(first, limit, step, dtype, device)
  step = step or 1
  if step == 0 or step ~= step then raise("range: step " .. tostring(step)) end
  return ops.affine(tensor.arange(math.max(0, math.ceil((limit - first) / step)), dtype, device), step, first)
end

--- x repeated along each dim: tile(x, {2, 1}) is x twice along its first dim.
---@param repeats integer[] by dim
function ops.tile(x, repeats)
  local shape = given(x, "tile").shape
  if #repeats ~= #shape then raise(("tile: %d numbers for %s"):format(#repeats, tensor.describe(x))) end
  for d, r in ipairs(repeats) do
    if whole(r, "tile", "a number", 0) ~= 1 then
      local outer, inner = product(shape, 1, d - 1), product(shape, d)
      shape[d] = shape[d] * r
      x = x:reshape(outer, 1, inner):expand(outer, r, inner):reshape(shape)
    end
  end
  return x
end

--- Views of x cut along dim d.
---@param sizes integer[] that add up to the dim
---@return Tensor[]
function ops.split(x, sizes, d)
  local out, at = {}, 1
  for i, n in ipairs(sizes) do
    out[i] = given(x, "split"):narrow(d, at, n)
    at = at + n
  end
  if at ~= x:size(d) + 1 then raise(("split: %d positions of dim %d of %s"):format(at - 1, d, tensor.describe(x))) end
  return out
end

---------------------------------------------------------------------------------------------------- chosen by value

--- The k largest (smallest = true: smallest) along dim d (default the last), best first; equal ones in their order; NaN counts as the largest.
---@return Tensor y, Tensor index i32, from 0
function ops.topk(x, k, d, smallest)
  local attr = rows.topk.attr()
  attr.dim, attr.k, attr.largest = dim_of(given(x, "topk"), d or -1, "topk"), whole(k, "topk", "k"), smallest and 0 or 1
  return raw.topk(x, attr)
end

--- Positions (from 0) of the elements that are not 0.
---@return Tensor index i32 [numel,dims], rows past the count are 0
---@return Tensor count i32 [1]
function ops.nonzero(x) return raw.nonzero(x, nil) end

--- Non-maximum suppression of each picture and class: the best boxes that overlap no better one by more than iou.
---@param boxes Tensor f32 [B,N,4] two opposite corners y, x, y, x
---@param scores Tensor f32 [B,C,N]
---@param options table|nil iou .5; score: only above it; most of a class, default all; centre = true: boxes are centre x, y, width, height
---@return Tensor kept i32 [capacity,3] picture, class, box from 0; rows past the count are 0
---@return Tensor count i32 [1]
function ops.nms(boxes, scores, options)
  options = options or {}
  local attr = rows.nms.attr()
  attr.iou, attr.score, attr.centre = options.iou or .5, options.score or -math.huge, options.centre and 1 or 0
  attr.most = whole(options.most or 2 ^ 31 - 1, "nms", "most")
  return raw.nms(boxes, scores, attr)
end

--- The first lengths[b] positions of dim `time` backwards, the others as they are.
---@param x Tensor
---@param lengths Tensor i32 [B]
---@param batch integer|nil dim of B, default 1
---@param time integer|nil 2
---@return Tensor
function ops.reverse_sequence(x, lengths, batch, time)
  batch, time = batch or 1, time or 2
  local T, B, first = given(x, "reverse_sequence"):size(time), x:size(batch), {}
  local step = tensor.arange(T, "i32", x.device):unsqueeze(1)
  local limit = lengths:reshape(B, 1)
  local index = ops.where(ops.lt(step, limit), limit - step - 1, step)
  for i = 1, x.ndim do first[i] = 1 end
  first[batch], first[time] = B, T
  return ops.gather_elements(x, (batch < time and index or index:transpose(1, 2)):reshape(first):expand(x.shape), time)
end

---------------------------------------------------------------------------------------------------- places moved

--- Padding before and after each dim (negative: cut off): "constant" with a value, or from x itself: "reflect", "edge", "wrap".
---@param before integer[] by dim
---@param after integer[] by dim
---@param mode string|nil "constant"
---@param value number|nil 0
function ops.pad_mode(x, before, after, mode, value)
  local shape = given(x, "pad_mode").shape
  if mode and mode ~= "constant" and not mirrored[mode] then raise(("pad_mode: %s, want constant, reflect, edge or wrap"):format(tostring(mode))) end
  if #before ~= #shape or #after ~= #shape then raise(("pad_mode: %d and %d sizes for %s"):format(#before, #after, tensor.describe(x))) end
  local place, more, low, high = mirrored[mode], false, {}, {}
  for d, n in ipairs(shape) do
    local first, last = before[d], after[d]
    if n + first + last < 0 then raise(("pad_mode: %d and %d from dim %d of %s"):format(first, last, d, tensor.describe(x))) end
    if not place then
      x = x:narrow(d, 1 + math.max(-first, 0), n - math.max(-first, 0) - math.max(-last, 0))
      low[d], high[d] = math.max(first, 0), math.max(last, 0)
      more = more or low[d] + high[d] > 0
    elseif first ~= 0 or last ~= 0 then
      if n == 0 then raise("pad_mode: nothing to repeat in " .. tensor.describe(x)) end
      local list = {}
      for i = -first, n + last - 1 do list[#list + 1] = place(i, n) end
      x = ops.gather(x, beside(x, list), d)
    end
  end
  return more and ops.pad(x, low, high, value) or x
end

--- [B,H*r,W*r,C] -> [B,H,W,C*r*r], the inverse of depth_to_space. crd: channels outermost of the new ones.
function ops.space_to_depth(x, block, crd)
  local r, s = whole(block, "space_to_depth", "the block", 1), given(x, "space_to_depth").shape
  if #s ~= 4 or s[2] % r ~= 0 or s[3] % r ~= 0 then raise(("space_to_depth: x is %s, block %d"):format(tensor.describe(x), r)) end
  local y = x:reshape(s[1], s[2] / r, r, s[3] / r, r, s[4])
  return (crd and y:permute(1, 2, 4, 6, 3, 5) or y:permute(1, 2, 4, 3, 5, 6)):reshape(s[1], s[2] / r, s[3] / r, s[4] * r * r)
end

local rows_first = ops.depth_to_space

--- [B,H,W,C*r*r] -> [B,H*r,W*r,C]. crd: channels are the outermost of those that are moved (PyTorch's pixel shuffle), else the innermost.
function ops.depth_to_space(x, block, crd)
  if not crd then return rows_first(x, block) end
  local r, s = whole(block, "depth_to_space", "the block", 1), given(x, "depth_to_space").shape
  if #s ~= 4 or s[4] % (r * r) ~= 0 then raise(("depth_to_space: x is %s, block %d"):format(tensor.describe(x), r)) end
  local C = s[4] / (r * r)
  return x:reshape(s[1], s[2], s[3], C, r, r):permute(1, 2, 5, 3, 6, 4):reshape(s[1], s[2] * r, s[3] * r, C)
end

for _, name in ipairs {"gather_elements", "tril", "triu", "tile", "topk"} do methods[name] = ops[name] end

return ops
