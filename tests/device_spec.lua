-- device_spec.lua: every row of ops.def on the device against the CPU, and against its own replay: the cases of op_cases in every dtype, with NaN and infinity among them.
-- Runs on whichever CUDA library is found, emulated or real; what has no kernel there is pending by name.
local lr = require "libration"
local helper = require "helper"
local cases = require "op_cases"
local device = require "libration.device"

local rows, C = cases.rows, lr.core.C
local count, missing = device.count()
local emulator = helper.emulator()

-- Ops whose results are the CPU's bit for bit (any NaN alike); the others within BOUND times the largest value (at least 1).
local EXACT = {}
for name in ([[add sub mul div maximum minimum eq ne lt le isnan where neg abs sign sqrt square reciprocal relu clamp prelu cast copy copy_into fill fill_into
  max min argmax max_pool2d depth_to_space pad concat gather gather_elements topk nonzero nms]]):gmatch "%S+" do EXACT[name] = true end
local BOUND = {f64 = 1e-11, f32 = 2e-5, f16 = 4e-3, bf16 = 3e-2, u8 = 0, i32 = 0}
local LSTM = {f64 = 1e-11, f32 = 1e-4, f16 = 1e-2, bf16 = 6e-2, u8 = 0, i32 = 0} -- errors of a step go into the next
local DTYPES, ROUNDS = {"f32", "f64", "f16", "bf16", "i32", "u8"}, 4
if emulator and emulator.lbr_emu_build() == 2 then DTYPES, ROUNDS = {"f32", "f16", "i32"}, 2 end -- for races one number type is as good as another
-- Padding is zeros that are multiplied: what they meet stays finite, as whether the CPU multiplies them too depends on its kernel.
local FINITE = {conv2d = 2, depthwise = 2, conv2d_backward_input = 2, depthwise_backward_input = 2, conv2d_backward_weight = 1, depthwise_backward_weight = 1}
local MOST, LARGEST = 4000, 30000 -- elements of an operand: threads are slow where they are emulated

local function small(ins, outs, most)
  for _, list in ipairs {ins, outs or {}} do
    for i = 1, 11 do
      if list[i] and (list[i]:numel() > most or tonumber(list[i].storage.bytes) > 8 * most) then return false end
    end
  end
  return true
end

-- A few elements of the storage become NaN, infinite or -0.
local function spoil(flat)
  local n = flat:numel()
  if flat.dtype ~= "f32" or n == 0 then return flat end
  for _ = 1, cases.int(0, 2) do flat:set(cases.pick {0 / 0, math.huge, -math.huge, -0.}, cases.int(1, n)) end
  return flat
end

local function widen(flat) return flat.dtype == "f32" and lr.affine(flat, 7, 0) or flat end -- whole numbers that are not all 0

-- Largest difference beside the largest finite value; any NaN is alike, infinities must agree.
local function difference(want, have)
  assert(table.concat(want.shape, ",") == table.concat(have.shape, ","), "shapes differ")
  local x, y = want:to("cpu"):contiguous():to("f64"), have:to("cpu"):contiguous():to("f64")
  local p, q, worst, size = x:ptr(), y:ptr(), 0, 1
  for i = 0, x:numel() - 1 do
    local u, v = p[i], q[i]
    if not (u == v or (u ~= u and v ~= v)) then
      local d = math.abs(u - v)
      if not (d <= worst) then worst = d end
    end
    if math.abs(u) > size and math.abs(u) < math.huge then size = math.abs(u) end
  end
  return worst, size
end

local function judge(name, want, have, text)
  for i = 1, #want do
    local worst, size = difference(want[i], have[i])
    local bound = EXACT[name] and 0 or (name:find "^lstm" and LSTM or BOUND)[have[i].dtype]
    assert(worst <= bound * size, ("%s: output %d is off by %g of %g, want %g of it"):format(text, i, worst, size, bound))
  end
end

local function of_dtype(dtype, to, spoiled)
  return function(t)
    if t.dtype ~= "f32" then return cases.twin(t, nil, to) end
    return cases.twin(t, dtype, to, spoiled or (dtype == "i32" or dtype == "u8") and widen or nil)
  end
end

-- One case on both devices: nil, or why the device does not take it. how: "spoiled", "large" or nil.
local function check(name, dtype, how)
  local spoiled = how == "spoiled"
  local ins, fields, outs
  assert(cases.of[name], name .. " has no case in op_cases")
  cases.large(how == "large")
  repeat ins, fields, outs = cases.of[name]() until small(ins, outs, how == "large" and LARGEST or MOST)
  cases.large(false)
  local text = ("%s, %s%s"):format(cases.text(name, ins, fields), dtype, spoiled and ", NaN and infinity" or "")
  local attr = cases.attributes(name, fields)
  if name == "fill" or name == "random" then attr.dtype = ({f32 = 0, f64 = 1, f16 = 2, bf16 = 3, u8 = 4, i32 = 5})[dtype] end
  local here, n = {}, #rows[name].inputs
  for i = 1, n do here[i] = ins[i] and of_dtype(dtype, nil, spoiled and FINITE[name] ~= i and spoil or nil)(ins[i]) end
  local given = outs and {}
  for i = 1, outs and #outs or 0 do given[i] = of_dtype(dtype)(outs[i]) end

  local function there(t) return cases.twin(t, nil, "cuda") end
  local ok, want = pcall(cases.run, name, here, attr, given)
  local could, have
  if name == "fill" or (name == "random" and not here[1]) then -- nothing tells the device but the output
    could, have = pcall(function()
      local y = lr.empty(fields.shape, dtype, "cuda")
      lr.core.check(name == "fill" and C.lbr_fill(y, attr) or name == "random" and C.lbr_random(nil, y, attr))
      return {y}
    end)
  else
    could, have = pcall(cases.run, name, here, attr, given, there, there)
  end
  if not could then
    if not ok and tostring(want):match ":%d+: (.*)$" == tostring(have):match ":%d+: (.*)$" then return end -- refused alike
    if tostring(have):find("no kernel", 1, true) or tostring(have):find("CUDA", 1, true) then return (tostring(have):gsub("^.-:%d+: ", "")) end
    error(("%s: %s%s"):format(text, tostring(have), ok and "" or ", CPU: " .. tostring(want)), 0)
  end
  if not ok then -- a dtype that the CPU does not take: the numbers are judged by float64
    local function wide(t) return (t.dtype == "f16" or t.dtype == "bf16") and cases.twin(t, "f64") or cases.twin(t) end
    want = cases.run(name, here, attr, given, wide, wide)
  end
  judge(name, want, have, text)

  -- dense, eager and as a graph: the same bits each time
  local dense, owned = {}, given and {}
  for i = 1, n do dense[i] = here[i] and here[i]:contiguous():to "cuda" end
  if not dense[1] then return end
  for i = 1, given and #given or 0 do owned[i] = given[i]:contiguous():to "cuda" end
  local function clone(t) return t:clone() end
  local eager = cases.run(name, dense, attr, owned, nil, clone)
  judge(name, want, eager, text .. ", dense")
  local replay = lr.record(function(...) return unpack(cases.run(name, {...}, attr, owned, nil, clone)) end)
  for round = 1, 3 do
    local i = cases.differs(eager, {replay(unpack(dense, 1, n))})
    if i then error(("%s: output %d of replay %d differs"):format(text, i, round), 0) end
  end
end

local names = {}
for name in pairs(rows) do names[#names + 1] = name end
table.sort(names)

describe("device", function()
  if count == 0 then
    it("every op against the CPU", function() pending(missing) end)
    return
  end
  for _, name in ipairs(names) do
    it(("%s: %s, small and large, dense and strided, every dtype, NaN, replay"):format(name, EXACT[name] and "the CPU's bits" or "within bounds of the CPU"), function()
      local refused = {}
      for _, dtype in ipairs(DTYPES) do
        for round = 1, ROUNDS + 1 do
          cases.seed(round, name .. dtype)
          local why = lr.scope(check, name, dtype, round == 2 and "spoiled" or round > ROUNDS and "large" or nil)
          if why and not why:find(" no kernel ", 1, true) then why = dtype .. ": " .. why end
          local kind = why and why:gsub("%[[%d,]*%]", "[]")
          if why and not refused[kind] then refused[#refused + 1], refused[kind] = why, true end
        end
      end
      if #refused > 0 then pending(table.concat(refused, "; ")) end
    end)
  end
end)
