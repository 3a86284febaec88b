-- tensor.lua: the tensor: creation, views, access from Lua, printing, scopes and memory. Arithmetic is in ops.lua.
local ffi = require "ffi"
local core = require "libration.core"
local device_of = require "libration.device"

local C, check, raise = core.C, core.check, core.raise
local tensor_t = ffi.typeof "lbr_tensor"
local dims_t = ffi.typeof "int32_t[6]"

local tensor = {}

local dtype_names = {[0] = "f32", [1] = "f64", [2] = "f16", [3] = "bf16", [4] = "u8", [5] = "i32"}
tensor.dtype_names = dtype_names
local dtype_ids = {f32 = 0, f64 = 1, f16 = 2, bf16 = 3, u8 = 4, i32 = 5}
local pointers = {
  [0] = ffi.typeof "float *", [1] = ffi.typeof "double *", [2] = ffi.typeof "uint16_t *",
  [3] = ffi.typeof "uint16_t *", [4] = ffi.typeof "uint8_t *", [5] = ffi.typeof "int32_t *",
}
local FLAG_KEEP, FLAG_RESULT, FLAG_GRAD = 1, 2, 4 -- dispatch.c knows the second

--- Number of a dtype's name for the C side; an unknown name raises and lists the known.
---@param name string|nil "f32" (default), "f64", "f16", "bf16", "u8", "i32"
---@return integer
function tensor.dtype_id(name)
  local id = dtype_ids[name or "f32"]
  if not id then raise("dtype " .. tostring(name) .. ", want f32, f64, f16, bf16, u8 or i32") end
  return id
end
local dtype_id = tensor.dtype_id

---------------------------------------------------------------------------------------------------- scopes and memory

local scope -- list of the tensors made in the innermost scope, nil outside
local collected_at = 0
local BUDGET = 64 * 2 ^ 20

local function release(t)
  C.lbr_tensor_release(t)
end

-- A handle for the C side to fill. Inside a scope it goes on the scope's list, outside it gets a finalizer; bytes drive the collector,
-- which cannot see them itself.
local function new()
  local t = tensor_t()
  if scope then
    local n = scope.n + 1
    scope.n = n
    scope[n] = t
    return t
  end
  local live = tonumber(C.lbr_memory_held())
  if live - collected_at > BUDGET then
    collectgarbage()
    collected_at = tonumber(C.lbr_memory_held())
  elseif live < collected_at then
    collected_at = live
  end
  return ffi.gc(t, C.lbr_tensor_release)
end
tensor.new = new

-- Marks the tensors in value, however deep its tables; `marked` lists them, `seen` knows the tables that were visited.
local function mark(value, marked, seen)
  if ffi.istype(tensor_t, value) then
    if bit.band(value.flags, FLAG_KEEP) == 0 then
      value.flags = bit.bor(value.flags, FLAG_KEEP)
      marked[#marked + 1] = value
    end
  elseif type(value) == "table" and not seen[value] then
    seen[value] = true
    for _, v in next, value do mark(v, marked, seen) end
  end
end

local function leave(list, outer)
  for i = 1, list.n do
    local t = list[i]
    if bit.band(t.flags, FLAG_KEEP) ~= 0 then
      t.flags = bit.band(t.flags, bit.bnot(FLAG_KEEP))
      if outer then
        outer.n = outer.n + 1
        outer[outer.n] = t
      else
        ffi.gc(t, C.lbr_tensor_release)
      end
    else
      release(t)
    end
  end
end

local function finish(list, outer, ok, ...)
  scope = outer
  local marked = {}
  if ok then mark({...}, marked, {}) end
  leave(list, outer)
  for i = 1, #marked do marked[i].flags = bit.band(marked[i].flags, bit.bnot(FLAG_KEEP)) end -- also those of outer scopes
  if not ok then
    if tensor.tape_restore then tensor.tape_restore(list.tape) end
    error((...), 0)
  end
  return ...
end

--- Runs fn(...); tensors made in it are freed when it returns, except those it returns (also in tables) or passed to `keep`.
--- An error in fn frees them too, closes the tape that fn left open, and goes on.
---@param fn function
---@return any ... what fn returned
function tensor.scope(fn, ...)
  local outer, list = scope, {n = 0, tape = tensor.tape_state and tensor.tape_state()}
  scope = list
  return finish(list, outer, pcall(fn, ...))
end

local function resume(outer, ok, ...)
  scope = outer
  if not ok then error((...), 0) end
  return ...
end

--- Runs fn(...) as if outside of every scope: what it makes lives until it is collected (a network's constants, a plan's arguments).
---@param fn function
---@return any ... what fn returned
function tensor.unscoped(fn, ...)
  local outer = scope
  scope = nil
  return resume(outer, pcall(fn, ...))
end

--- Lets a tensor outlive the scope it was made in.
---@param t Tensor
---@return Tensor t
function tensor.keep(t)
  t.flags = bit.bor(t.flags, FLAG_KEEP)
  return t
end

--- Frees a tensor's hold on its memory now. Using it afterwards is an error.
---@param t Tensor
function tensor.free(t)
  ffi.gc(t, nil)
  release(t)
end

--- Memory of a device: bytes live, at most so far, cached for reuse, and number of storages; of a CUDA device also all that it has.
---@param device string|nil "cpu" (default), "cuda:N"
---@return table {live=, peak=, cached=, storages=, total=} bytes
function tensor.memory(device)
  local id = device_of.id(device)
  return {
    live = tonumber(C.lbr_memory_live(id)), peak = tonumber(C.lbr_memory_peak(id)),
    cached = tonumber(C.lbr_memory_cached(id)), storages = tonumber(C.lbr_memory_storages(id)), total = id > 0 and tonumber(C.lbr_memory_total(id)) or nil,
  }
end

---------------------------------------------------------------------------------------------------- hooks of autograd and record

-- Set by autograd.lua. tape_push: called after an op with its name, inputs, outputs and attributes while a tape is open.
-- tape_state() -> the open tape or nil; tape_restore(state) closes what was opened since.
tensor.tape_push, tensor.tape_state, tensor.tape_restore = nil, nil, nil

---------------------------------------------------------------------------------------------------- creation

local WHOLE = 2 ^ 31 - 1

--- v when it is a whole number in [low, 2^31 - 1]; else raises "name: what is v".
---@param v any
---@param name string the function
---@param what string the argument
---@param low integer|nil default -2^31
---@return integer v
function tensor.whole(v, name, what, low)
  low = low or -2 ^ 31
  if type(v) == "number" and v >= low and v <= WHOLE and v == math.floor(v) then return v end
  raise(("%s: %s is %s, want a whole number >= %d"):format(name, what, tostring(v), low))
end

--- Product of a list's numbers, or of those from first to last: how many elements a shape or some of its dims have.
---@param list integer[]
---@param first integer|nil default 1
---@param last integer|nil default #list
---@return integer
function tensor.product(list, first, last)
  local n = 1
  for i = first or 1, last or #list do n = n * list[i] end
  return n
end

--- Sizes of a shape as the C side takes them: at most 6 whole numbers >= least (default 0).
---@return ffi.cdata* dims, integer n
function tensor.dims(shape, name, least)
  if type(shape) ~= "table" then raise(name .. ": shape is " .. type(shape) .. ", want a table such as {2, 3}") end
  local dims, n = dims_t(), #shape
  if n > 6 then raise(name .. ": shape has " .. n .. " dims, want at most 6") end
  for i = 1, n do
    local v = shape[i]
    if type(v) ~= "number" or not (v >= (least or 0) and v <= WHOLE) or v ~= math.floor(v) then
      raise(("%s: dim %d is %s, want a whole number >= %d below 2^31"):format(name, i, tostring(v), least or 0))
    end
    dims[i - 1] = v
  end
  return dims, n
end
local dims_of = tensor.dims

local function fill_dims(shape) return dims_of(shape, "shape") end

--- Tensor with undefined contents.
---@param shape integer[] sizes
---@param dtype string|nil "f32"
---@param device string|nil "cpu"
---@return Tensor
function tensor.empty(shape, dtype, device)
  local dims, n = fill_dims(shape)
  local t, id = new(), device_of.id(device)
  local rc = C.lbr_tensor_new(t, dtype_id(dtype), n, dims, id)
  if rc == -4 then
    collectgarbage()
    rc = C.lbr_tensor_new(t, dtype_id(dtype), n, dims, id)
  end
  check(rc)
  return t
end

local fill_attr, fill_into_attr = ffi.typeof "lbr_fill_attr", ffi.typeof "lbr_fill_into_attr"

--- Tensor filled with value.
---@param shape integer[]
---@param value number
---@param dtype string|nil "f32"
---@param device string|nil "cpu"
---@return Tensor
function tensor.full(shape, value, dtype, device)
  if device and device ~= "cpu" then
    local t = tensor.empty(shape, dtype, device)
    local attr = fill_into_attr()
    attr.value = value
    check(C.lbr_fill_into(t, attr))
    return t
  end
  local attr = fill_attr()
  local dims, n = fill_dims(shape)
  attr.value, attr.dtype, attr.ndim = value, dtype_id(dtype), n
  for i = 0, n - 1 do attr.shape[i] = dims[i] end
  local t = new()
  local rc = C.lbr_fill(t, attr)
  if rc == -4 then
    collectgarbage()
    rc = C.lbr_fill(t, attr)
  end
  check(rc)
  return t
end

--- Tensor of zeros. See full.
function tensor.zeros(shape, dtype, device) return tensor.full(shape, 0, dtype, device) end

--- Tensor of ones. See full.
function tensor.ones(shape, dtype, device) return tensor.full(shape, 1, dtype, device) end

local function measure(value, shape, depth)
  if type(value) ~= "table" then return end
  if depth > 6 then raise("tensor: more than 6 nested tables") end
  shape[depth] = #value
  measure(value[1], shape, depth + 1)
end

-- Integers as the cast op makes them: nearest even, saturated, NaN becomes 0.
local ranges = {[4] = {0, 255}, [5] = {-2 ^ 31, 2 ^ 31 - 1}}
local function integer(v, range)
  if v ~= v then return 0 end
  if v <= range[1] then return range[1] end
  if v >= range[2] then return range[2] end
  local low = math.floor(v)
  if v - low > .5 or (v - low == .5 and low % 2 == 1) then return low + 1 end
  return low
end

local function scatter(value, shape, depth, p, at, range)
  if depth > #shape then
    if type(value) == "boolean" then value = value and 1 or 0 end
    if type(value) ~= "number" then raise("tensor: element " .. tostring(value) .. " is not a number") end
    p[at] = range and integer(value, range) or value
    return at + 1
  end
  if type(value) ~= "table" or #value ~= shape[depth] then raise("tensor: tables of unequal length in dim " .. depth) end
  for i = 1, #value do at = scatter(value[i], shape, depth + 1, p, at, range) end
  return at
end

--- Tensor from nested tables or a number (then without dims).
---@param values table|number
---@param dtype string|nil "f32"
---@param device string|nil "cpu"
---@return Tensor
function tensor.tensor(values, dtype, device)
  if device and device ~= "cpu" then return tensor.constant(tensor.tensor(values, dtype), device) end
  local shape = {}
  measure(values, shape, 1)
  local id = dtype_id(dtype)
  local wide = id == 2 or id == 3
  local t = tensor.empty(shape, wide and "f32" or dtype)
  scatter(values, shape, 1, ffi.cast(pointers[t.dtype_], t.data), 0, ranges[id])
  if wide then return t:to(dtype) end
  return t
end

--- 0, 1, ... n - 1.
---@param n integer
---@param dtype string|nil "f32"
---@param device string|nil "cpu"
---@return Tensor [n]
function tensor.arange(n, dtype, device)
  local id = dtype_id(dtype)
  if id == 2 or id == 3 then return tensor.arange(n, "f32", device):to(dtype) end
  local t = tensor.empty({n}, dtype)
  local p = ffi.cast(pointers[t.dtype_], t.data)
  for i = 0, n - 1 do p[i] = i end
  return tensor.constant(t, device)
end

local methods = {}
tensor.methods = methods

--- Numbers that never change on a device: itself where it is there already, else a copy. A plan that is being recorded keeps them as they are.
---@param t Tensor contiguous
---@param name string|nil "cpu" (default), "cuda", "cuda:N"
---@return Tensor
function tensor.constant(t, name)
  local id = device_of.id(name)
  if t.device_ == id then return t end
  local out = tensor.empty(t.shape, dtype_names[t.dtype_], device_of.name(id))
  check(C.lbr_transfer(t, out))
  return out
end

--- The tensor on another device: itself where it is there already, else a contiguous copy without a gradient.
---@param t Tensor
---@param name string "cpu", "cuda", "cuda:N"
---@return Tensor
function tensor.move(t, name)
  if t.device_ == device_of.id(name) then return t end
  if C.lbr_recording() ~= 0 then raise "to: a tensor cannot change its device while recording; move it before" end
  return tensor.constant(t:contiguous(), name)
end

--- Moves the tensor itself to another device, so that all who hold it (a module, its optimiser) have it there. Its views stay where they were.
---@param t Tensor
---@param name string "cpu", "cuda", "cuda:N"
---@return Tensor t
function tensor.relocate(t, name)
  local there = tensor.unscoped(tensor.move, t, name)
  if rawequal(there, t) then return t end
  local size, flags, old = ffi.sizeof(tensor_t), t.flags, tensor_t()
  ffi.copy(old, t, size)
  ffi.copy(t, there, size)
  t.flags = flags
  ffi.gc(there, nil)
  release(old)
  return t
end

--- Position from 0 of dim d (from 1, negative ones from the end).
function tensor.dim_of(t, d, name)
  local n = t.ndim
  if type(d) ~= "number" or d == 0 or not (d <= n and d >= -n) or d ~= math.floor(d) then raise(name .. ": dim " .. tostring(d) .. " of " .. n) end
  return d > 0 and d - 1 or n + d
end
local dim_of = tensor.dim_of

---------------------------------------------------------------------------------------------------- access

function methods.dim(t) return t.ndim end
function methods.numel(t) return tonumber(C.lbr_tensor_numel(t)) end

--- Size of dim d; without d a table of all sizes.
function methods.size(t, d)
  if not d then return t.shape end
  return t.shape_[dim_of(t, d, "size")]
end

function methods.is_contiguous(t) return C.lbr_tensor_contiguous(t) ~= 0 end

-- A value may be read when no plan is being recorded and no later replay has overwritten it.
local function readable(t, what)
  if t.storage == nil then raise(what .. ": the tensor was freed") end
  if C.lbr_recording() ~= 0 then raise(what .. ": a value cannot be read while recording; the recorded plan could not follow a branch on it") end
  if bit.band(t.flags, FLAG_RESULT) ~= 0 and t.seen ~= t.storage.version then
    raise(what .. ": this result was overwritten by a later replay of its plan; clone() it before replaying")
  end
end

--- Typed FFI pointer to the first element of a contiguous tensor (index from 0; keep the tensor alive meanwhile).
--- Nobody sees a write through it: call t:touch() after one to a tensor that ops have read before, so that packed weights are packed
--- again and a gradient that needs the old values raises.
---@return ffi.cdata* float*, double*, uint16_t* (f16, bf16), uint8_t* or int32_t*
function methods.ptr(t)
  readable(t, "ptr")
  if t.device_ ~= 0 then raise(("ptr: %s is on %s; take t:to \"cpu\""):format(tensor.describe(t), device_of.name(t.device_))) end
  if C.lbr_tensor_contiguous(t) == 0 then raise("ptr: " .. tensor.describe(t) .. " is not contiguous; take t:contiguous()") end
  return ffi.cast(pointers[t.dtype_], t.data)
end

--- Says that the tensor's memory was written through a pointer. See ptr.
---@return Tensor t
function methods.touch(t)
  readable(t, "touch")
  local storage = t.storage
  storage.version = (storage.version + 1) % 2 ^ 32
  if bit.band(t.flags, FLAG_RESULT) ~= 0 then t.seen = storage.version end
  return t
end

local wide = ffi.new "double[1]"

local function offset_of(t, name, ...)
  local n = select("#", ...)
  if n ~= t.ndim then raise(name .. ": " .. n .. " positions for " .. tensor.describe(t)) end
  local at = 0
  for d = 0, n - 1 do
    local i = select(d + 1, ...)
    if type(i) ~= "number" or not (i >= 1 and i <= t.shape_[d]) or i ~= math.floor(i) then
      raise(name .. ": position " .. tostring(i) .. " in dim " .. d + 1 .. " of " .. tensor.describe(t))
    end
    at = at + (i - 1) * t.stride_[d]
  end
  return at
end

--- One element as a number, positions from 1.
function methods.get(t, ...)
  readable(t, "get")
  check(C.lbr_element_get(t, offset_of(t, "get", ...), wide))
  return wide[0]
end

--- Sets one element: t:set(value, i, j, ...).
function methods.set(t, value, ...)
  readable(t, "set")
  if type(value) ~= "number" then raise("set: value is " .. tostring(value) .. ", want a number before the positions") end
  check(C.lbr_element_set(t, offset_of(t, "set", ...), value))
  if bit.band(t.flags, FLAG_RESULT) ~= 0 then t.seen = t.storage.version end
  return t
end

--- The only element as a number.
function methods.item(t)
  readable(t, "item")
  if t:numel() ~= 1 then raise("item: " .. tensor.describe(t) .. ", want one element") end
  check(C.lbr_element_get(t, 0, wide))
  return wide[0]
end

local function gather(t, d, at)
  if d == t.ndim then
    C.lbr_element_get(t, at, wide)
    return wide[0]
  end
  local out = {}
  for i = 0, t.shape_[d] - 1 do out[i + 1] = gather(t, d + 1, at + i * t.stride_[d]) end
  return out
end

--- Nested Lua tables with the tensor's values (a number for a tensor without dims).
function methods.totable(t)
  readable(t, "totable")
  return gather(tensor.move(t, "cpu"), 0, 0)
end

--- The tensor itself when it is contiguous, else a contiguous copy.
function methods.contiguous(t)
  if C.lbr_tensor_contiguous(t) ~= 0 then return t end
  return t:clone()
end

--- Stops gradients: a view that no tape follows.
function methods.detach(t)
  local v = new()
  check(C.lbr_tensor_view(t, v, t.ndim, t.shape_, t.stride_, 0))
  return v
end

---------------------------------------------------------------------------------------------------- printing

--- Summary without values: "f32 [2,3]".
---@param t Tensor
---@return string
function tensor.describe(t)
  if t.storage == nil then return "freed tensor" end
  local sizes = {}
  for i = 0, t.ndim - 1 do sizes[i + 1] = t.shape_[i] end
  return dtype_names[t.dtype_] .. " [" .. table.concat(sizes, ",") .. "]"
end

local function number(v)
  if v == math.floor(v) and math.abs(v) < 1e6 then return ("%d"):format(v) end
  return ("%.4g"):format(v)
end

local function row(t, d, at)
  if d == t.ndim then
    C.lbr_element_get(t, at, wide)
    return number(wide[0])
  end
  local out, n = {}, t.shape_[d]
  for i = 0, math.min(n, 6) - 1 do out[i + 1] = row(t, d + 1, at + i * t.stride_[d]) end
  if n > 6 then out[#out + 1] = "..." end
  if d == t.ndim - 1 then return table.concat(out, "  ") end
  return table.concat(out, "\n")
end

local function tostring_tensor(t)
  if t.storage == nil then return "tensor (freed)" end
  local head = "tensor " .. dtype_names[t.dtype_] .. " " .. device_of.name(t.device_) .. " " .. tensor.describe(t):match("%[.*")
  if t:numel() == 0 or C.lbr_recording() ~= 0 then return head end
  t = tensor.move(t, "cpu")
  if t.ndim == 0 then return head .. " " .. row(t, 0, 0) end
  -- at most 6x6 values: of the last two dims, at the first position of the others
  local text = row(t, math.max(0, t.ndim - 2), 0)
  if t.ndim > 2 then head = head .. ", first [" .. t.shape_[t.ndim - 2] .. "," .. t.shape_[t.ndim - 1] .. "]" end
  return head .. "\n" .. text
end

---------------------------------------------------------------------------------------------------- the metatype

local properties = {
  shape = function(t)
    local out = {}
    for i = 0, t.ndim - 1 do out[i + 1] = t.shape_[i] end
    return out
  end,
  dtype = function(t) return dtype_names[t.dtype_] end,
  device = function(t) return device_of.name(t.device_) end,
  requires_grad = function(t) return bit.band(t.flags, FLAG_GRAD) ~= 0 end,
}

local metatype = {
  __index = function(t, key)
    local method = methods[key]
    if method then return method end
    local property = properties[key]
    if property then return property(t) end
    if type(key) == "number" then raise("a tensor is not indexed by [" .. key .. "]; use t:get(i, ...), t:select(d, i) or t:ptr()") end
    raise("a tensor has no field or method '" .. tostring(key) .. "'")
  end,
  __newindex = function(_, key) raise("a tensor has no field '" .. tostring(key) .. "'") end,
  __tostring = tostring_tensor,
  __len = function(t) return t.ndim > 0 and t.shape_[0] or 0 end,
}
tensor.metatype = metatype

--- True for tensors.
function tensor.is_tensor(value) return ffi.istype(tensor_t, value) end

--- Address of the storage as a number: equal for views of one storage.
function tensor.storage_key(t) return tonumber(ffi.cast("uintptr_t", t.storage)) end

tensor.FLAG_RESULT, tensor.FLAG_GRAD = FLAG_RESULT, FLAG_GRAD
tensor.type = tensor_t
return tensor
