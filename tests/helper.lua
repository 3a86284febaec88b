-- helper.lua: loaded before every spec: keeps ffi and the library alive over busted's reloading, and holds what specs share.
local ffi = require "ffi"
local lr = require "libration"

local helper = {}

-- busted unloads modules between files; finalizers of a second ffi would never run, a second core would declare its structs twice.
local kept = {}
for _, name in ipairs {
  "ffi", "libration", "libration.core", "libration.tensor", "libration.view", "libration.ops", "libration.record", "libration.autograd", "helper",
} do kept[name] = package.loaded[name] end
kept.ffi = ffi

--- Path of a file in ../shared beside the checkout, nil where it is absent.
function helper.shared(path)
  local full = "../shared/" .. path
  local file = io.open(full, "rb")
  if file then
    file:close()
    return full
  end
end

local emulator

--- What specs ask of the emulated device (tests/emu); nil where the CUDA library is a real one or missing.
---@return ffi.namespace*|nil
function helper.emulator()
  if emulator == nil then
    emulator = false
    if require("libration.device").count() > 0 then
      ffi.cdef [[
        void lbr_emu_seed(unsigned seed); int lbr_emu_build(void); long lbr_emu_barriers(char *text, long room); void lbr_emu_ignore(const char *barrier);
        void lbr_emu_fail_malloc(long n); void lbr_emu_fail_launch(long n); void lbr_emu_lose_device(long n); void lbr_emu_heal(void);
        void lbr_emu_memory(double bytes); double lbr_emu_in_use(void); void lbr_emu_cublaslt(int on);
        void lbr_emu_cudnn(int on); long lbr_emu_cudnn_runs(void);]]
      local library = ffi.load((lr.core.find_library "libration_cuda"))
      if pcall(function() return library.lbr_emu_build end) then emulator = library end
    end
  end
  return emulator or nil
end

--- True where LIBRATION_FULL=1 asks for campaigns in full size; they are samples otherwise.
function helper.full() return os.getenv "LIBRATION_FULL" == "1" end

--- Calls fn(isa) under each instruction set that this processor has, the portable one first.
function helper.each_isa(fn)
  local C = lr.core.C
  for isa = 0, C.lbr_cpu_isa() do
    C.lbr_cpu_limit(isa)
    local ok, err = pcall(fn, isa)
    C.lbr_cpu_limit(C.LBR_ISA_AVX512)
    if not ok then error(err, 0) end
  end
end

--- Largest absolute difference of two tensors (NaN equal to NaN), and the largest absolute value of the first.
function helper.difference(a, b)
  assert(table.concat(a.shape, ",") == table.concat(b.shape, ","), "shapes " .. table.concat(a.shape, ",") .. " and " .. table.concat(b.shape, ","))
  local x, y = a:contiguous():to("f64"), b:contiguous():to("f64")
  local p, q, worst, size = x:ptr(), y:ptr(), 0, 0
  for i = 0, x:numel() - 1 do
    local u, v = p[i], q[i]
    if not (u ~= u and v ~= v) then
      local d = math.abs(u - v)
      if not (d <= worst) then worst = d end
      if math.abs(u) > size then size = math.abs(u) end
    end
  end
  return worst, size
end

--- Checks gradients of f (tensors in, one-element tensor out) in f64 against central differences.
---@param f fun(...): Tensor
---@param inputs Tensor[] f64 leaves, contiguous, on any device
---@param tolerance number|nil relative to the largest entry, 1e-6
function helper.check_gradient(f, inputs, tolerance)
  for _, x in ipairs(inputs) do lr.requires_grad(x) end
  local tape = lr.tape()
  local grads = tape:gradient(f(unpack(inputs)), inputs)
  local h, C, value = 1e-5, lr.core.C, ffi.new "double[1]"
  local function get(t, i)
    lr.core.check(C.lbr_element_get(t, i, value))
    return value[0]
  end
  local function at(x, i, v)
    lr.core.check(C.lbr_element_set(x, i, v))
    return f(unpack(inputs)):item()
  end
  for k, x in ipairs(inputs) do
    local worst, size, where = 0, 1e-3, 0
    local g = grads[k]:contiguous()
    for i = 0, x:numel() - 1 do
      local saved = get(x, i)
      local up, down = at(x, i, saved + h), at(x, i, saved - h)
      lr.core.check(C.lbr_element_set(x, i, saved))
      local numeric, analytic = (up - down) / (2 * h), get(g, i)
      size = math.max(size, math.abs(numeric))
      if not (math.abs(numeric - analytic) <= worst) then worst, where = math.abs(numeric - analytic), i end
    end
    assert(worst <= (tolerance or 1e-6) * size, ("gradient of input %d is off by %g of %g at element %d"):format(k, worst, size, where))
  end
end

--- Storages alive after a full collection, on the CPU or a named device.
function helper.storages(device)
  local count, last
  jit.flush() -- compiled traces hold what they were made for, until something else drops them
  repeat -- what a finalizer lets go may be held by another that the collector comes to next time
    last = count
    collectgarbage()
    count = lr.memory(device).storages
  until count == last
  return count
end

--- Runs fn and fails when it leaves storages behind. Ballast, so that the collector has something to do.
function helper.leaves_nothing(fn)
  local ballast = {}
  for i = 1, 1e4 do ballast[i] = {i} end
  local before = helper.storages()
  fn()
  local after = helper.storages()
  assert(after == before, ("%d storages before, %d after"):format(before, after))
  return #ballast
end

--- Asserts that fn fails with a message that holds text.
function helper.refuses(text, fn, ...)
  local ok, message = pcall(fn, ...)
  assert(not ok, "no error, want one with: " .. text)
  assert(tostring(message):find(text, 1, true), "error '" .. tostring(message) .. "' does not hold: " .. text)
end

package.loaded.helper = helper
kept.helper = helper
package.preload.helper = function() return helper end

local ok, busted = pcall(require, "busted")
if ok and busted.subscribe then
  busted.subscribe({"file", "start"}, function()
    for name, module in pairs(kept) do package.loaded[name] = module end
    return nil, true
  end)
end

return helper
