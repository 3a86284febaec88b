-- view.lua: views of a tensor: other shapes and strides over the same storage, without copying. Creation and access are in tensor.lua.
local ffi = require "ffi"
local core = require "libration.core"
local tensor = require "libration.tensor"

local C, check, raise = core.C, core.check, core.raise
local new, dim_of, whole, dims_of, methods = tensor.new, tensor.dim_of, tensor.whole, tensor.dims, tensor.methods
local dims_t = ffi.typeof "int32_t[6]"

local function view(t, ndim, shape, stride, offset, kind, detail)
  local v = new()
  for i = 0, ndim - 1 do
    if shape[i] == 0 then offset = 0 end -- nothing has no place
  end
  check(C.lbr_tensor_view(t, v, ndim, shape, stride, offset))
  local push = tensor.tape_push
  if push then push(kind, {t}, {v}, detail) end
  return v
end

--- View with another shape, the same number of elements; one size may be -1. Copies when the strides forbid a view.
---@return Tensor
function methods.reshape(t, ...)
  local shape = type((...)) == "table" and (...) or {...}
  local dims, n = dims_of(shape, "reshape", -1)
  local known, open = 1, nil
  local total = t:numel()
  for i = 1, n do
    if shape[i] ~= -1 then known = known * shape[i]
    elseif open then raise("reshape: two sizes are -1")
    else open = i end
  end
  if open then
    if known == 0 or total % known ~= 0 then raise("reshape: " .. tensor.describe(t) .. " to [" .. table.concat(shape, ",") .. "]") end
    dims[open - 1] = total / known
    known = total
  end
  if known ~= total then raise("reshape: " .. tensor.describe(t) .. " to [" .. table.concat(shape, ",") .. "]") end
  if C.lbr_tensor_contiguous(t) == 0 then t = t:contiguous() end
  local strides, step = dims_t(), 1
  for i = n - 1, 0, -1 do
    strides[i] = step
    step = step * dims[i]
  end
  return view(t, n, dims, strides, 0, "reshape")
end
methods.view = methods.reshape

--- View of positions start .. start + length - 1 of dim d (from 1).
---@param d integer
---@param start integer
---@param length integer
---@return Tensor
function methods.narrow(t, d, start, length)
  local k = dim_of(t, d, "narrow")
  whole(start, "narrow", "start")
  whole(length, "narrow", "length")
  if start < 1 or length < 0 or start + length - 1 > t.shape_[k] then
    raise(("narrow: %d..%d of dim %d of %s"):format(start, start + length - 1, d, tensor.describe(t)))
  end
  local dims = dims_t(t.shape_)
  dims[k] = length
  return view(t, t.ndim, dims, t.stride_, (start - 1) * t.stride_[k], "narrow", {k, start - 1})
end

--- View of count positions of dim d from start on (from 1), every step-th; a negative step goes backwards.
---@param d integer
---@param start integer
---@param count integer
---@param step integer|nil 1
---@return Tensor
function methods.slice(t, d, start, count, step)
  step = whole(step or 1, "slice", "step")
  if step == 1 then return t:narrow(d, start, count) end
  local k = dim_of(t, d, "slice")
  local last = whole(start, "slice", "start") + (whole(count, "slice", "count") - 1) * step
  if count < 0 or step == 0 or (count > 0 and math.min(start, last) < 1) or (count > 0 and math.max(start, last) > t.shape_[k]) then
    raise(("slice: %d positions from %d by %d of dim %d of %s"):format(count, start, step, d, tensor.describe(t)))
  end
  local dims, strides = dims_t(t.shape_), dims_t(t.stride_)
  dims[k] = count
  if count > 1 then strides[k] = strides[k] * step end -- of one position the step means nothing and may not fit
  return view(t, t.ndim, dims, strides, (start - 1) * t.stride_[k], "slice", {k + 1, start, count, step})
end

--- View without dim d, at its position i.
function methods.select(t, d, i)
  local k = dim_of(t, d, "select")
  return t:narrow(d, i, 1):squeeze(k + 1)
end

--- View with the dims in another order.
---@param ... integer every dim once
---@return Tensor
function methods.permute(t, ...)
  local order = type((...)) == "table" and (...) or {...}
  local dims, strides, seen, zero = dims_t(), dims_t(), {}, {}
  if #order ~= t.ndim then raise("permute: " .. #order .. " dims given, " .. tensor.describe(t) .. " has " .. t.ndim) end
  for i = 1, #order do
    local k = dim_of(t, order[i], "permute")
    if seen[k] then raise("permute: dim " .. order[i] .. " twice") end
    seen[k] = true
    zero[i] = k
    dims[i - 1], strides[i - 1] = t.shape_[k], t.stride_[k]
  end
  return view(t, t.ndim, dims, strides, 0, "permute", zero)
end

--- View with dims a and b exchanged.
function methods.transpose(t, a, b)
  local order = {}
  for i = 1, t.ndim do order[i] = i end
  local i, j = dim_of(t, a or -2, "transpose") + 1, dim_of(t, b or -1, "transpose") + 1
  order[i], order[j] = j, i
  return t:permute(order)
end

--- View with a new dim of size 1 at d.
function methods.unsqueeze(t, d)
  local n = t.ndim
  whole(d, "unsqueeze", "the dim")
  local k = d < 0 and n + 1 + d or d - 1
  if k < 0 or k > n then raise("unsqueeze: dim " .. d .. " of " .. n .. " + 1") end
  if n == 6 then raise("unsqueeze: " .. tensor.describe(t) .. " has 6 dims already") end
  local dims, strides = dims_t(), dims_t()
  for i = 0, n do
    local from = i < k and i or i - 1
    if i == k then
      dims[i], strides[i] = 1, 1
    else
      dims[i], strides[i] = t.shape_[from], t.stride_[from]
    end
  end
  return view(t, n + 1, dims, strides, 0, "reshape")
end

--- View without dim d of size 1 (without d: without all of them).
function methods.squeeze(t, d)
  local dims, strides, n = dims_t(), dims_t(), 0
  local only = d and dim_of(t, d, "squeeze")
  if only and t.shape_[only] ~= 1 then raise("squeeze: dim " .. d .. " of " .. tensor.describe(t) .. " is not 1") end
  for i = 0, t.ndim - 1 do
    if (only and i ~= only) or (not only and t.shape_[i] ~= 1) then
      dims[n], strides[n] = t.shape_[i], t.stride_[i]
      n = n + 1
    end
  end
  return view(t, n, dims, strides, 0, "reshape")
end

--- View in which dims of size 1 are repeated without copying.
---@param ... integer the wanted sizes (-1 keeps one)
function methods.expand(t, ...)
  local shape = type((...)) == "table" and (...) or {...}
  local dims, strides, shift = dims_of(shape, "expand", -1), dims_t(), #shape - t.ndim
  if shift < 0 then raise("expand: " .. tensor.describe(t) .. " to " .. #shape .. " dims") end
  for i = 0, #shape - 1 do
    local own, want = i - shift, shape[i + 1]
    local have = own < 0 and 1 or t.shape_[own]
    if want == -1 then want = have end
    if have ~= want and have ~= 1 then raise("expand: " .. tensor.describe(t) .. " to [" .. table.concat(shape, ",") .. "]") end
    dims[i], strides[i] = want, (have == want and own >= 0) and t.stride_[own] or 0
  end
  return view(t, #shape, dims, strides, 0, "expand")
end

--- View of dim d backwards.
---@param d integer
---@return Tensor
function methods.flip(t, d)
  local k = dim_of(t, d, "flip")
  local strides = dims_t(t.stride_)
  strides[k] = -strides[k]
  return view(t, t.ndim, dims_t(t.shape_), strides, (t.shape_[k] - 1) * t.stride_[k], "flip", {k})
end

--- Overlapping windows of a sequence without copying.
---@param t Tensor [M,F]
---@param window integer T
---@param stride integer|nil 1
---@return Tensor [N,T,F], N = floor((M - T) / stride) + 1
function methods.unfold(t, window, stride)
  stride = whole(stride or 1, "unfold", "the stride")
  whole(window, "unfold", "the window")
  if t.ndim ~= 2 or window < 1 or stride < 1 then raise("unfold: " .. tensor.describe(t) .. ", window " .. window .. ", stride " .. stride .. "; want [M,F]") end
  local n = t.shape_[0] < window and 0 or math.floor((t.shape_[0] - window) / stride) + 1
  local step = n > 1 and stride * t.stride_[0] or t.stride_[0] -- of one window the step means nothing and may not fit
  local dims, strides = dims_t(n, window, t.shape_[1]), dims_t(step, t.stride_[0], t.stride_[1])
  return view(t, 3, dims, strides, 0, "unfold", {window, stride})
end

return methods
