-- fuzz_spec.lua: every row of ops.def with random shapes, strides and attributes: f32 against f64, replay, threads, instruction sets; and with
-- arguments that make no sense: a one-line error by the op's name or an answer, never a crash. Seeded; gradients and exact values are in ops_spec.
local lr = require "libration"
local helper = require "helper"
local cases = require "op_cases"
local ops = require "libration.ops"

local raw, rows, C = ops.raw, ops.rows, lr.core.C
local int, pick, chance, shape, run = cases.int, cases.pick, cases.chance, cases.shape, cases.run

local function same_bits(want, have, text)
  local i = cases.differs(want, have)
  if i then error(text .. ": output " .. i .. " differs by " .. helper.difference(want[i], have[i])) end
end

local function close(want, have, tolerance, text)
  for i = 1, #want do
    local d, scale = helper.difference(want[i], have[i])
    assert(d <= tolerance * math.max(scale, 1), ("%s: output %d is off by %g of %g"):format(text, i, d, scale))
  end
end

local function wide(t) return t.dtype == "f32" and t:to("f64") or t end
local function clone(t) return t:clone() end
local function wide_copy(t) return wide(t):clone() end

-- oneDNN splits these sums over the threads, so their last bits follow the number of threads (not the run).
local splits = {conv2d_backward_weight = true, depthwise_backward_weight = true}

-- Places in pictures are f32 only, rounded as another engine rounds them; products of bytes have no other type.
local single = {crop = true, ssd_detections = true, place_points = true, follow_points = true, conv2d_int8 = true, to_bytes = true}

local function check(name)
  local ins, fields, outs = cases.of[name]()
  local attr, text = cases.attributes(name, fields), cases.text(name, ins, fields)
  local narrow = run(name, ins, attr, outs)
  local wider = cases.attributes(name, fields)
  if name == "fill" or name == "random" then wider.dtype = 1 end
  if not single[name] then close(run(name, ins, wider, outs, wide, wide_copy), narrow, name:find "lstm" and 1e-4 or 2e-5, text .. ", f64 against f32") end

  local dense = {}
  for i = 1, #rows[name].inputs do dense[i] = ins[i] and ins[i]:clone() end
  local eager = run(name, dense, attr, outs)
  close(eager, narrow, 1e-5, text .. ", dense against strided")
  for _, lazily in ipairs {false, true} do
    local R = lr.record(function(...) return unpack(run(name, {...}, attr, outs, nil, clone)) end, lazily)
    for _ = 1, 2 do same_bits(eager, {R(unpack(dense, 1, #rows[name].inputs))}, text .. (lazily and ", recorded lazily" or ", replay")) end
  end

  local threads = lr.threads()
  for n = 1, 3 do
    lr.threads(n)
    local ok, message = pcall(function()
      if splits[name] then close(eager, run(name, dense, attr, outs), 1e-5, text .. ", " .. n .. " threads")
      else same_bits(eager, run(name, dense, attr, outs), text .. ", " .. n .. " threads") end
    end)
    lr.threads(threads)
    if not ok then error(message, 0) end
  end
  for limit = 0, 2 do
    C.lbr_cpu_limit(limit)
    local ok, message = pcall(function() close(eager, run(name, dense, attr, outs), name:find "lstm" and 1e-4 or 1e-5, text .. ", instruction set " .. limit) end)
    C.lbr_cpu_limit(2)
    if not ok then error(message, 0) end
  end
end

---------------------------------------------------------------------------------------------------- nonsense

local WRONG = {-2 ^ 31, 2 ^ 31 - 1, -7, -1, 0, 1, 7}

local function anything()
  local kind = int(1, 10)
  if kind == 1 then return nil end
  if kind == 2 then return pick {"text", 7, true, {}, print} end
  local t = lr.zeros(shape(0, 6), pick {"f32", "f64", "f16", "bf16", "u8", "i32"})
  if kind == 3 and t:dim() > 0 then return t:transpose(1, -1) end
  if kind == 4 and t:dim() < 6 then return t:unsqueeze(1):expand(3, unpack(t.shape)) end
  if kind == 5 then lr.free(t) end
  return t
end

-- Sizes that may grow an output stay off when little else bounds it: two or more elements beside them pass 2^31 at once.
local function nonsense(name)
  local ins, fields, outs = cases.of[name]()
  local n, attr = #rows[name].inputs, cases.attributes(name, fields)
  local arguments, changed = {}, false
  for i = 1, n do arguments[i] = ins[i] end
  for i = 1, outs and #outs or 0 do arguments[n + i] = outs[i] end
  n = n + (outs and #outs or 0)
  for i = 1, n do
    if chance(.4) then arguments[i], changed = anything(), true end
  end
  if not changed or chance(.3) then
    for field, count in rows[name].attributes:gmatch "int32_t ([%w_]+)%[?(%d*)%]?;" do
      if chance(.5) then
        local value = pick(WRONG)
        if value > 7 and (name == "fill" or name == "random" or name == "pad" or name:find "resize" or field == "rows" or field == "size") then value = -value end
        if count == "" then attr[field] = value else attr[field][int(0, tonumber(count) - 1)] = value end
      end
    end
  end
  arguments[n + 1] = attr
  local ok, message = pcall(raw[name], unpack(arguments, 1, n + 1))
  if ok then return end
  local text = tostring(message):match "^[^\n]-:%d+: (.*)$" or tostring(message)
  assert(not text:find("\n", 1, true) and text:sub(1, #name + 2) == name .. ": ", name .. " said: " .. tostring(message))
end

local function seeded(seed, name, fn)
  cases.seed(seed, name)
  local ok, message = pcall(lr.scope, fn, name)
  assert(ok, ("seed %d: %s"):format(seed, tostring(message)))
end

local names = {}
for name in pairs(rows) do names[#names + 1] = name end
table.sort(names)

describe("fuzz", function()
  it("every op has a case", function()
    for _, name in ipairs(names) do assert(cases.of[name], name .. " has no case") end
  end)
  for _, round in ipairs {{"5 rounds", 1, 5}, {"100 rounds #slow", 6, 105}} do
    it("valid arguments: f64, dense, replay, 1 to 3 threads, instruction sets; " .. round[1], function()
      for seed = round[2], round[3] do
        for _, name in ipairs(names) do seeded(seed, name, check) end
      end
    end)
  end
  for _, round in ipairs {{"60 rounds", 1, 60}, {"1500 rounds #slow", 61, 1560}} do
    it("nonsense: one line that begins with the op's name; " .. round[1], function()
      helper.leaves_nothing(function()
        for seed = round[2], round[3] do
          for _, name in ipairs(names) do seeded(seed, name, nonsense) end
        end
      end)
    end)
  end
end)
