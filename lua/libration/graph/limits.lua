-- What this processor can do at most, by a short measurement, and how near to it the calls of a plan come. Knows no network.
local core = require "libration.core"
local ops = require "libration.ops"
require "libration.ops.random"
local record = require "libration.record"
local tensor = require "libration.tensor"

local M = {}

-- The least time of fn as a plan within about `seconds`.
local function least(fn, x, seconds)
  local recorded = record.record(fn)
  recorded(x)
  local plan, best = recorded:plan(x), math.huge
  local till = core.C.lbr_clock() + seconds
  repeat
    local start = core.C.lbr_clock()
    plan:replay()
    best = math.min(best, core.C.lbr_clock() - start)
  until core.C.lbr_clock() > till
  return best
end

---Operations and bytes a second that large products, products of 8-bit numbers and copies reach on the threads of the library; .1 s each.
---@return {flops: number, int8: number, bytes: number}
function M.measure()
  return tensor.scope(function()
    local n, side, channels = 768, 64, 256
    local w, x = ops.randn({ n, n }, { seed = 1 }), ops.randn({ n, n }, { seed = 2 })
    local flops = 2 * n ^ 3 / least(function(v) return ops.matmul(v, w) end, x, .1)
    local filter = ops.randn({ channels, 3, 3, channels }, { seed = 3 })
    local picture = (ops.randn({ 1, side, side, channels }, { seed = 4 }) * 30 + 128):to "u8"
    local int8 = 2 * (side - 2) ^ 2 * channels ^ 2 * 9 / least(function(v) return ops.conv2d_int8(v, filter, nil, { x = { .01, 128 } }) end, picture, .1)
    local large = tensor.full({ 2 ^ 23 }, 1)
    return { flops = flops, int8 = int8, bytes = 2 ^ 26 / least(function(v) return v:clone() end, large, .1) }
  end)
end

---The share of the limit that a call reaches: what its operations or its bytes, whichever takes longer, would take at the limit, of what it took. Above 1: operations that the
---definition counts were saved (Winograd's algorithm), or its numbers lay in the caches.
---@param call {name: string, seconds: number, flops: number, bytes: number} of plan:calls(true)
---@param limits {flops: number, int8: number, bytes: number}
---@return number
function M.share(call, limits)
  if not (call.seconds > 0) then return 0 end
  return math.max(call.flops / (call.name == "conv2d_int8" and limits.int8 or limits.flops), call.bytes / limits.bytes) / call.seconds
end

---How far results are from those that they stand for.
---@param have Tensor
---@param want Tensor of the same shape
---@return number relative L2 norm of the difference
---@return number largest difference
function M.difference(have, want)
  local a, b = have:to("cpu"):to "f64", want:to("cpu"):to "f64"
  if a:numel() == 0 then return 0, 0 end
  local d, size = a - b, math.sqrt(ops.square(b):sum():item())
  return math.sqrt(ops.square(d):sum():item()) / (size > 0 and size or 1), d:abs():max():item()
end

return M
