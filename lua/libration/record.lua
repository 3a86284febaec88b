-- record.lua: records a function's ops once into a plan and replays it; a plan per shapes and dtypes, in a bounded list.
local ffi = require "ffi"
local core = require "libration.core"
local tensor = require "libration.tensor"
local device = require "libration.device"
local files = require "libration.files"

local C, check, raise = core.C, core.check, core.raise
local is_tensor = tensor.is_tensor

local record = {}

local Plan = {}
Plan.__index = Plan

local PLANS = 32 -- plans kept for one recorded function

local function key_of(args, n)
  local parts = {}
  for i = 1, n do
    local a = args[i]
    if is_tensor(a) then
      if a.storage == nil then raise("record: argument " .. i .. " is a freed tensor") end
      parts[i] = tensor.describe(a) .. a.device_ .. (bit.band(a.flags, tensor.FLAG_GRAD) ~= 0 and " leaf" or "")
    elseif type(a) == "number" then parts[i] = ("%.17g"):format(a) -- tostring would take 0.1 + 0.2 for 0.3
    elseif type(a) == "string" then parts[i] = ("%q"):format(a)
    elseif a == nil or type(a) == "boolean" then parts[i] = type(a) .. tostring(a)
    else raise("record: argument " .. i .. " is " .. type(a) .. ", want a tensor, number, string or boolean") end
  end
  return table.concat(parts, ";")
end

-- A fresh handle of a result: valid until the next replay writes its storage.
local function handle(t)
  local v = tensor.new()
  check(C.lbr_tensor_view(t, v, t.ndim, t.shape_, t.stride_, 0))
  v.flags = bit.bor(v.flags, tensor.FLAG_RESULT)
  v.seen = v.storage.version
  return v
end

local function hand_out(value, seen)
  if is_tensor(value) then return handle(value) end
  if type(value) ~= "table" then return value end
  if not seen[value] then
    local out = {}
    seen[value] = out
    for k, v in next, value do out[k] = hand_out(v, seen) end
  end
  return seen[value]
end

local function unpack_results(list, i, seen)
  if i > list.n then return end
  return hand_out(list[i], seen), unpack_results(list, i + 1, seen)
end

local function pack(...) return {n = select("#", ...), ...} end

-- Arguments are cloned before recording starts, so that the plan owns what it reads.
local function make(fn, lazily, args, n)
  local held = {}
  for i = 1, n do
    if is_tensor(args[i]) then
      held[i] = tensor.empty(args[i].shape, args[i].dtype, args[i].device)
      check(C.lbr_copy_into(args[i], held[i], nil))
      held[i].flags = bit.band(args[i].flags, tensor.FLAG_GRAD)
    else
      held[i] = args[i]
    end
  end
  local raw = C.lbr_record_begin(lazily and 1 or 0)
  if raw == nil then raise(ffi.string(C.lbr_error())) end
  local tape = tensor.tape_state()
  local ok, results = pcall(tensor.scope, function()
    local results = pack(fn(unpack(held, 1, n)))
    if tensor.tape_state() ~= tape then raise "record: the function left a tape open; call its gradient() or close()" end
    return results
  end)
  if not ok then
    C.lbr_record_abort(raw)
    error(results, 0)
  end
  local plan = ffi.gc(raw, C.lbr_plan_free)
  check(C.lbr_record_end(raw))
  return setmetatable({plan = plan, held = held, n = n, results = results, replays = 0}, Plan)
end

--- Copies the arguments in, runs the calls again, hands the results out (valid until the next replay).
function Plan:run(...)
  local held = self.held
  for i = 1, self.n do
    local h = held[i]
    if is_tensor(h) then
      local a = select(i, ...)
      if not is_tensor(a) then raise("plan: argument " .. i .. " is a " .. type(a) .. ", want " .. tensor.describe(h)) end
      if not (a.storage == h.storage and a.data == h.data and a:is_contiguous()) then check(C.lbr_copy_into(a, h, nil)) end
    end
  end
  check(C.lbr_plan_run(self.plan))
  self.replays = self.replays + 1
  return unpack_results(self.results, 1, {})
end

--- Replays without handing anything out; arguments stay what they were.
function Plan:replay()
  check(C.lbr_plan_run(self.plan))
  self.replays = self.replays + 1
end

--- The plan's own copy of argument i: write it directly to save a copy.
function Plan:argument(i) return self.held[i] end

local call_t = ffi.typeof "lbr_plan_call"

--- Calls of the plan: {name=, inputs={text}, outputs={text}, seconds=, flops=, bytes=}. time = true runs it once with a clock.
function Plan:calls(time)
  if time then check(C.lbr_plan_time(self.plan)) end
  local out, call = {}, call_t()
  for i = 0, C.lbr_plan_size(self.plan) - 1 do
    check(C.lbr_plan_at(self.plan, i, call))
    local row = {name = ffi.string(call.name), inputs = {}, outputs = {}, seconds = call.seconds, flops = call.flops, bytes = tonumber(call.bytes)}
    for k = 0, call.inputs - 1 do
      if call["in"][k].storage ~= nil then row.inputs[#row.inputs + 1] = tensor.describe(call["in"][k]) end
    end
    for k = 0, call.outputs - 1 do row.outputs[k + 1] = tensor.describe(call.out[k]) end
    out[i + 1] = row
  end
  return out
end

--- Table of calls: op, shapes, microseconds of one timed run, GF/s, kB moved; and the arena.
function Plan:__tostring()
  local lines, total = {}, 0
  for i, c in ipairs(self:calls(true)) do
    total = total + c.seconds
    lines[i] = ("%3d %-22s %-24s <- %-40s %9.1f us %7.1f GF/s %9.1f kB"):format(
      i, c.name, c.outputs[1] or "", table.concat(c.inputs, " "), c.seconds * 1e6, c.seconds > 0 and c.flops / c.seconds / 1e9 or 0, c.bytes / 1e3)
  end
  lines[#lines + 1] = ("%d calls, %.1f us, arena %.1f kB"):format(#lines, total * 1e6, tonumber(C.lbr_plan_arena(self.plan)) / 1e3)
  return table.concat(lines, "\n")
end

local ports_t, name_t = ffi.typeof "lbr_plan_port[?]", ffi.typeof "const char *"

-- Tensors with their names for C; what must live as long comes second.
local function ports(list, n, names, what)
  local out, alive = ports_t(math.max(n, 1)), {}
  for i = 1, n do
    if not is_tensor(list[i]) then raise(("plan: %s %d is a %s; only tensors can be saved"):format(what, i, type(list[i]))) end
    alive[i] = names and names[i] or ("%s%d"):format(what, i)
    out[i - 1].name, out[i - 1].tensor = name_t(alive[i]), list[i]
  end
  return out, alive
end

--- Writes the plan with all that it reads (weights) to one file, which lbr_plan_open runs without Lua and record.open with it. Plans of the CPU only.
---@param path string
---@param names? {inputs: string[], outputs: string[]} default input1, ... and output1, ...; network:plan(...) knows those of its file
---@return string path; raises one line where it cannot be written
function Plan:save(path, names)
  names = names or self.names or {}
  local results = self.results.n == 1 and type(self.results[1]) == "table" and self.results[1] or self.results
  local n = results.n or #results
  local inputs, alive_inputs = ports(self.held, self.n, names.inputs, "input")
  local outputs, alive_outputs = ports(results, n, names.outputs, "output")
  return files.replace(path, function(temporary)
    check(C.lbr_plan_write(self.plan, temporary, inputs, self.n, outputs, n))
    return alive_inputs, alive_outputs
  end)
end

---@class OpenedPlan
---@field inputs {name: string, kind: string, shape: integer[]}[]
---@field outputs {name: string, kind: string, shape: integer[]}[]
---@field plan table tostring and calls as a recorded plan's
local Opened = {}
Opened.__index = Opened

local value_t = ffi.typeof "lbr_plan_value"
local read_only, writable = ffi.typeof "const void *[?]", ffi.typeof "void *[?]"

local function values(raw, count, describe)
  local list, value = {}, value_t()
  for i = 0, count - 1 do
    check(describe(raw, i, value))
    local shape = {}
    for d = 0, value.ndim - 1 do shape[d + 1] = value.shape[d] end
    list[i + 1] = {name = ffi.string(value.name), kind = tensor.dtype_names[value.dtype], shape = shape}
  end
  return list
end

--- Opens a plan that Plan:save wrote.
---@param path string
---@return OpenedPlan? plan
---@return string? error one line
function record.open(path)
  local out = ffi.new "lbr_plan *[1]"
  if C.lbr_plan_open(path, out) < 0 then return nil, ffi.string(C.lbr_error()) end
  local raw = ffi.gc(out[0], C.lbr_plan_free)
  return setmetatable({
    inputs = values(raw, C.lbr_plan_inputs(raw), C.lbr_plan_input), outputs = values(raw, C.lbr_plan_outputs(raw), C.lbr_plan_output),
    plan = setmetatable({plan = raw, held = {}, n = 0, results = {n = 0}, replays = 0}, Plan),
  }, Opened)
end

--- Runs it.
---@param ... Tensor one for each input, of its dtype and shape, on the CPU
---@return Tensor ... fresh ones
function Opened:run(...)
  local from, to, given, made = read_only(math.max(#self.inputs, 1)), writable(math.max(#self.outputs, 1)), {}, {}
  for i, want in ipairs(self.inputs) do
    local x = select(i, ...)
    local text = ("%s [%s]"):format(want.kind, table.concat(want.shape, ","))
    if not is_tensor(x) or tensor.describe(x) ~= text or x.device_ ~= 0 then
      raise(("plan: input '%s' is %s, want %s on the cpu"):format(want.name, is_tensor(x) and tensor.describe(x) .. " on " .. x.device or "a " .. type(x), text))
    end
    given[i] = x:contiguous()
    from[i - 1] = given[i].data
  end
  for i, out in ipairs(self.outputs) do
    made[i] = tensor.empty(out.shape, out.kind)
    to[i - 1] = made[i].data
  end
  check(C.lbr_plan_apply(self.plan.plan, from, to))
  return unpack(made)
end

local Recorded = {}
Recorded.__index = Recorded

-- Least recently used plan out.
local function remember(self, key, plan)
  self.plans[key] = plan
  self.order[#self.order + 1] = key
  if #self.order > PLANS then self.plans[table.remove(self.order, 1)] = nil end
end

--- The plan for these arguments, made if there is none yet.
---@return table plan
function Recorded:plan(...)
  if C.lbr_recording() ~= 0 then raise "record: a plan cannot be made while another is being recorded; call the recorded function, which joins it" end
  if tensor.tape_push then
    raise "record: called while a tape is open: no gradient flows through a plan; open the tape in the recorded function, or call it in no_grad"
  end
  local n = select("#", ...)
  local args = {...}
  local key = key_of(args, n)
  local plan = self.plans[key]
  if not plan then
    plan = tensor.unscoped(make, self.fn, self.lazily, args, n) -- the plan outlives the scopes that the caller stands in
    remember(self, key, plan)
    return plan, true
  end
  if self.order[#self.order] ~= key then
    for i, k in ipairs(self.order) do
      if k == key then
        table.remove(self.order, i)
        break
      end
    end
    self.order[#self.order + 1] = key
  end
  return plan, false
end

function Recorded:__call(...)
  if C.lbr_recording() ~= 0 then return self.fn(...) end -- inside another recording its ops belong to that plan
  local plan, fresh = self:plan(...)
  if not fresh then return plan:run(...) end
  if self.lazily then plan:replay() end
  return unpack_results(plan.results, 1, {})
end

--- A callable that records fn's ops on the first call with given shapes and dtypes and replays them afterwards, bit for bit.
--- fn gets copies of the tensor arguments; numbers, strings and booleans freeze into the plan (a new value makes a new plan).
--- Reading a value inside fn raises. Results are valid until the next call; clone() what must last. What else fn depends on (a model's
--- training mode) freezes as well: pass it as an argument. Inside another recorded function it simply joins that one's plan.
---@param fn fun(...): ...
---@param lazily? boolean true: on the CPU, its ops are only written down while it is called, and run by the plan: no memory for all that they make at once, no
--- work done twice where plan() is asked for; an op that fails does so behind fn
---@return table callable
function record.record(fn, lazily)
  return setmetatable({fn = fn, lazily = lazily, plans = {}, order = {}}, Recorded)
end

-- Of two devices the one that a plan is not on, which must be on the other.
local function other_device(plan, a, b)
  local own, first, second = C.lbr_plan_device(plan.plan), device.id(a), device.id(b)
  if own == first then return second end
  if own == second then return first end
  raise(("compare: the plan is on %s, not on %s or %s"):format(own < 0 and "several devices" or device.name(own), tostring(a), tostring(b)))
end

--- Runs a plan call by call against the slow twins: compare(plan), compare(plan, tolerance); or each call, from the same inputs, on two devices, one of them the
--- plan's: compare(plan, "cpu", "cuda"), compare(plan, "cpu", "cuda", tolerance).
---@param plan table a plan, or a recorded function that holds one
---@param a string|number|nil device, or the largest relative difference allowed, default 1e-4
---@param b string|nil device
---@param tolerance number|nil
---@return table|nil first {index=, name=, difference=} of the first op that diverges, nil when none does
function record.compare(plan, a, b, tolerance)
  if getmetatable(plan) == Recorded then plan = plan.plans[plan.order[#plan.order]] end
  if getmetatable(plan) ~= Plan then raise "compare: want a plan" end
  local index, difference = ffi.new "int[1]", ffi.new "double[1]"
  if type(a) == "string" then
    check(C.lbr_plan_compare_device(plan.plan, other_device(plan, a, b), tolerance or 1e-4, index, difference))
  else
    check(C.lbr_plan_compare(plan.plan, a or 1e-4, index, difference))
  end
  if index[0] < 0 then return nil end
  return {index = index[0] + 1, name = plan:calls()[index[0] + 1].name, difference = difference[0]}
end

--- Names the first op that makes a NaN from inputs without one (also: LIBRATION_DEBUG=nan).
---@param on boolean
function record.debug_nan(on) C.lbr_debug_nan(on and 1 or 0) end

return record
