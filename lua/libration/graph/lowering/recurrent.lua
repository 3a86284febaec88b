-- Recurrent layers of the IR as calls of our ops. Rows as in lowering/elementwise.lua.
local ops = require "libration.ops"
require "libration.ops.recurrent"

local activations = {
  Relu = function() return ops.relu end, Tanh = function() return ops.tanh end, Sigmoid = function() return ops.sigmoid end,
  Affine = function(a, b) return function(x) return ops.affine(x, a or 1, b or 0) end end,
  LeakyRelu = function(a) return function(x) return ops.maximum(x, 0) + ops.minimum(x, 0) * (a or .01) end end,
  ThresholdedRelu = function(a) return function(x) return x * ops.gt(x, a or 1):to(x.dtype) end end,
  ScaledTanh = function(a, b) return function(x) return ops.tanh(x * (b or 1)) * (a or 1) end end,
  HardSigmoid = function(a, b) return function(x) return ops.clamp(ops.affine(x, a or .2, b or .5), 0, 1) end end,
  Elu = function(a) return function(x) return ops.maximum(x, 0) + (ops.exp(ops.minimum(x, 0)) - 1) * (a or 1) end end,
  Softsign = function() return function(x) return x / (ops.abs(x) + 1) end end,
  Softplus = function() return function(x) return ops.log(ops.exp(ops.neg(ops.abs(x))) + 1) + ops.relu(x) end end,
}

local gates = { rnn = 1, gru = 3, lstm = 4 }

-- x [B,T,F], lengths [B]?, then of each direction w [GH,F], r [GH,H], wb, rb [GH]?, h0, c0 [B,H]?, peepholes [3H]?
local function recurrent(x, a)
  local ways = {}
  for i = 1, #a.backwards do
    local at, acts = 2 + (i - 1) * 7, nil
    if a.activations then
      acts = {}
      for k, f in ipairs(a.activations[i]) do acts[k] = activations[f.name](f.alpha, f.beta) end
    end
    local hidden = x[at + 2]:size(2)
    local zero = (not x[at + 3] or not x[at + 4]) and ops.affine(x[at + 2]:select(2, 1):narrow(1, 1, gates[a.kind] * hidden), 0, 0) or nil
    ways[i] = { w = x[at + 1], r = x[at + 2], wb = x[at + 3] or zero, rb = x[at + 4] or zero, h0 = x[at + 5], c0 = x[at + 6], peepholes = x[at + 7],
      lengths = x[2], backwards = a.backwards[i], activations = acts, reset_after = a.reset_after, clip = a.clip }
  end
  local y, hn, cn = ops.recurrent(a.kind, x[1], ways)
  if a.kind == "lstm" then return y, ops.stack(hn, 1), ops.stack(cn, 1) end
  return y, ops.stack(hn, 1)
end

return { rows = { recurrent = { run = recurrent } }, activations = activations }
