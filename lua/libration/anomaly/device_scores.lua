-- Window and joint errors of a sequence on a device: windows are read there from the sequence, a batch is one plan, and only the errors come down.
-- scores.lua's tally is its slow twin. Decides nothing.

local ffi = require "ffi"
local lr = require "libration"
local ops = require "libration.ops"
local motion = require "libration.motion"

local device_scores = {}

local BATCH = 512

-- What the network gives for windows in the order of time, and the frames of them that count: views of y, x and weight.
local function answers(network, x, weight)
  local y = network(network:seen(x))
  if network.config.task == "reverse" then y = y:flip(2) end
  local from = network:scored_from()
  if from == 0 then return y, x, weight end
  local n = network.config.window - from
  return y, x:narrow(2, from + 1, n), weight:narrow(2, from + 1, n)
end

--- Errors of windows of one sequence.
---@param windows Windows
---@param s integer position of the sequence in it, from 1
---@param model table {network: Autoencoder on a device, normaliser, mask}
---@param out number[] out: mean squared error of each window, as of `windows:of_sequence(s)`
---@param sums {error: ffi.cdata*, count: ffi.cdata*} double[frames*J] out: squared errors of each joint and frame over the windows, and their weights
function device_scores.tally(windows, s, model, out, sums)
  local network, device = model.network, model.network:device()
  local f, list = windows.sequences[s], windows:of_sequence(s)
  local J, T = f.joints, windows.length - network:scored_from()
  if #list == 0 then return end
  local reader = motion.WindowReader.new({ windows }, model.normaliser, model.mask, device)
  local starts = reader:starts(windows, list)
  local first = lr.tensor(reader.base[f] - network:scored_from(), "i32", device) -- a row of the reader less the sequence's own
  local steps = lr.arange(T, "i32", device)
  local total = { lr.zeros({ f.frames, J }, "f64", device), lr.zeros({ f.frames, J }, "f64", device) }
  local attr = ops.rows.gather_backward.attr()
  attr.rows = f.frames
  local run = lr.record(function(start)
    local B = start:size(1)
    local y, x, weight = answers(network, reader:read(start))
    local per = x:size(3) / J
    local w = weight:contiguous():to("f64")
    local d = y:to("f64") - x:contiguous():to("f64")
    local e, m = (w * d * d):reshape(B, T, J, per):sum(4), w:reshape(B, T, J, per):sum(4)
    local frames = (start - first):reshape(B, 1) + steps
    lr.add_(total[1], ops.raw.gather_backward(e, frames, attr))
    lr.add_(total[2], ops.raw.gather_backward(m, frames, attr))
    return e:sum({ 2, 3 }) / m:sum({ 2, 3 })
  end)
  for at = 1, #list, BATCH do
    local n = math.min(BATCH, #list - at + 1)
    local errors = lr.no_grad(run, starts:narrow(1, at, n):to(device)):to("cpu")
    local p = errors:ptr()
    for i = 0, n - 1 do out[at + i] = p[i] end
  end
  for i, name in ipairs { "error", "count" } do ffi.copy(sums[name], total[i]:to("cpu"):ptr(), f.frames * J * 8) end
end

return device_scores
