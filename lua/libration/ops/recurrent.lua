-- recurrent.lua: GRU, plain RNN and LSTM in all their variants, forwards, backwards and both ways, sequences of unequal length; made of ops, step by step.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"
require "libration.ops.index"

local raise = core.raise

-- 1 where step t (from 1) is inside a sequence.
local function alive(lengths, t) return ops.ge(lengths, t):unsqueeze(2) end

-- Runs step(x_t, states) -> states over x [B,T,G]; the first state is the output. Past a sequence's end its states stay and its outputs are 0.
local function unroll(x, states, lengths, step)
  local outputs = {}
  for t = 1, x:size(2) do
    local new = step(x:select(2, t), states)
    outputs[t] = new[1]
    if lengths then
      local live = alive(lengths, t)
      outputs[t] = ops.where(live, new[1], 0)
      for i = 1, #new do new[i] = ops.where(live, new[i], states[i]) end
    end
    states = new
  end
  return ops.stack(outputs, 2), states
end

-- A column of H of gate k (from 1).
local function gate(a, k, H) return a:narrow(-1, (k - 1) * H + 1, H) end

local cells = {}

-- Each: what it makes of x_t (already multiplied by w, with its bias), the states and the recurrent weights.
function cells.rnn(o)
  local act = o.activations[1]
  return function(x, s) return {act(ops.linear(s[1], o.r, o.rb) + x)} end
end

function cells.gru(o, H)
  local f, g = o.activations[1], o.activations[2]
  local zr, last = o.r:narrow(1, 1, 2 * H), o.r:narrow(1, 2 * H + 1, H)
  local zr_bias, last_bias = o.rb:narrow(1, 1, 2 * H), o.rb:narrow(1, 2 * H + 1, H)
  return function(x, s)
    local h = s[1]
    local a = f(ops.linear(h, zr, zr_bias) + x:narrow(2, 1, 2 * H))
    local z, r = gate(a, 1, H), gate(a, 2, H)
    local own = o.reset_after and r * ops.linear(h, last, last_bias) or ops.linear(r * h, last, last_bias)
    local n = g(own + gate(x, 3, H))
    return {n + z * (h - n)}
  end
end

function cells.lstm(o, H)
  local f, g, h = o.activations[1], o.activations[2], o.activations[3]
  local peep = o.peepholes
  local function seen(a, k, c) return peep and a + c * gate(peep, k, H) or a end
  return function(x, s)
    local a, c = ops.linear(s[1], o.r, o.rb) + x, s[2]
    if o.clip then a = ops.clamp(a, -o.clip, o.clip) end
    local i, forget = f(seen(gate(a, 1, H), 1, c)), f(seen(gate(a, 2, H), 2, c))
    c = forget * c + i * g(gate(a, 3, H))
    return {f(seen(gate(a, 4, H), 3, c)) * h(c), c}
  end
end

local gates = {rnn = 1, gru = 3, lstm = 4}
local usual = {rnn = {ops.tanh}, gru = {ops.sigmoid, ops.tanh}, lstm = {ops.sigmoid, ops.tanh, ops.tanh}}

-- The state of the last step of each sequence: t of y [B,T,H].
local function last_of(y, lengths)
  local B, H = y:size(1), y:size(3)
  local index = ops.maximum(ops.affine(lengths, 1, -1), tensor.zeros({}, "i32", y.device)):reshape(B, 1, 1):expand(B, 1, H)
  return ops.where(alive(lengths, 1), ops.gather_elements(y, index, 2):squeeze(2), 0)
end

local function fast_lstm(x, o, H)
  local b, lengths = o.wb + o.rb, o.lengths
  if not lengths then
    local y, hn, cn = ops.lstm(x, o.w, o.r, b, o.h0, o.c0)
    return y, {hn, cn}
  end
  local attr = ops.rows.lstm_forward.attr()
  attr.save = 1
  local y, _, _, _, c = ops.raw.lstm_forward(x, o.w, o.r, b, o.h0, o.c0, attr)
  local zero = tensor.zeros({x:size(1), H}, c.dtype, x.device)
  local live, started = ops.lt(tensor.arange(x:size(2), "i32", x.device):unsqueeze(1), lengths:unsqueeze(2)):unsqueeze(3), alive(lengths, 1)
  local hn, cn = last_of(y, lengths), last_of(c:transpose(1, 2), lengths)
  return ops.where(live, y, 0), {ops.where(started, hn, o.h0 or zero), ops.where(started, cn, o.c0 or zero)}
end

local function one_way(kind, x, o, backwards)
  local H, lengths = o.r:size(2), o.lengths
  local function turned(v)
    if not backwards then return v end
    return lengths and ops.reverse_sequence(v, lengths) or v:flip(2)
  end
  if o.w:size(1) ~= gates[kind] * H or o.r:size(1) ~= gates[kind] * H then
    raise(("%s: w is %s, r %s, want [%dH,F] and [%dH,H]"):format(kind, tensor.describe(o.w), tensor.describe(o.r), gates[kind], gates[kind]))
  end
  x = turned(x)
  local y, states
  if kind == "lstm" and not o.activations and not o.peepholes and not o.clip then
    y, states = fast_lstm(x, o, H)
  else
    o.activations = o.activations or usual[kind]
    local zero = tensor.zeros({x:size(1), H}, x.dtype, x.device)
    states = {o.h0 or zero, kind == "lstm" and (o.c0 or zero) or nil}
    y, states = unroll(ops.linear(x, o.w, o.wb), states, lengths, cells[kind](o, H))
  end
  return turned(y), states
end

--- A recurrent layer. kind "lstm": gates i, f, g, o; "gru": gates z, r, n with h = n + z (h - n); "rnn".
---@param kind string
---@param x Tensor [B,T,F]
---@param ways table[] one a direction: w [GH,F], r [GH,H], wb, rb [GH], h0, c0 [B,H] or nil, backwards; peepholes [3H] of i, f, o; lengths i32 [B] of the sequences;
--- activations: functions of the gates, of the candidate and (LSTM) of the cell, default sigmoid, tanh, tanh (RNN: tanh);
--- reset_after (GRU): the reset gate acts behind the recurrent product, as in PyTorch and cuDNN; clip (LSTM): gates are limited to -clip .. clip before they act
---@return Tensor y [B,T,H * directions]
---@return Tensor[] hn [B,H] a direction
---@return Tensor[] cn [B,H] a direction (LSTM)
function ops.recurrent(kind, x, ways)
  if not gates[kind] then raise(("recurrent: %s, want lstm, gru or rnn"):format(tostring(kind))) end
  if not tensor.is_tensor(x) then raise(("%s: x is a %s, want a tensor"):format(kind, type(x))) end
  if x.ndim ~= 3 or x:size(2) < 1 then raise(("%s: x is %s, want [B,T,F], T >= 1"):format(kind, tensor.describe(x))) end
  local y, hn, cn = {}, {}, {}
  for i, way in ipairs(ways) do
    local states
    y[i], states = one_way(kind, x, way, way.backwards)
    hn[i], cn[i] = states[1], states[2]
  end
  return #y == 1 and y[1] or ops.concat(y, 3), hn, cn
end

return ops
