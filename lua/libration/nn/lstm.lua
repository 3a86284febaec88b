-- lstm.lua: stacked LSTM layers over sequences [B,T,F].
local core = require "libration.core"
local module = require "libration.nn.module"
local ops = require "libration.ops"
local tensor = require "libration.tensor"
local Dropout = require "libration.nn.dropout"

---@class LSTM: Module
local LSTM = module.class "LSTM"

--- LSTM, batch first, gate order i, f, g, o; parameters weight_ih_l0 [4H,F], weight_hh_l0 [4H,H], bias_ih_l0, bias_hh_l0 [4H], ... as PyTorch names
--- and initialises them (uniform within 1/sqrt(H)).
---@param inputs integer F
---@param hidden integer H
---@param options table|nil {layers = 1, bias = true, dropout = 0 between layers}
---@return LSTM
function LSTM.new(inputs, hidden, options)
  options = options or {}
  local self = module.create(LSTM)
  self.inputs, self.hidden = module.size(inputs, "LSTM", "inputs"), module.size(hidden, "LSTM", "hidden")
  self.layers = module.size(options.layers or 1, "LSTM", "layers")
  local bound = 1 / math.sqrt(hidden)
  for l = 0, self.layers - 1 do
    self:parameter("weight_ih_l" .. l, module.uniform({4 * hidden, l == 0 and inputs or hidden}, bound))
    self:parameter("weight_hh_l" .. l, module.uniform({4 * hidden, hidden}, bound))
    if options.bias ~= false then
      self:parameter("bias_ih_l" .. l, module.uniform({4 * hidden}, bound))
      self:parameter("bias_hh_l" .. l, module.uniform({4 * hidden}, bound))
    end
  end
  if options.bias == false then self:buffer("no_bias", tensor.zeros({4 * hidden}), true) end
  if (options.dropout or 0) > 0 and self.layers > 1 then
    for l = 0, self.layers - 2 do self:child("dropout_l" .. l, Dropout.new(options.dropout)) end
  end
  return self
end

--- Runs all steps.
---@param x Tensor [B,T,F], any strides; windows that overlap in memory (`unfold`) cost one input product a distinct frame
---@param h0 Tensor[]|nil state [B,H] of each layer, default zeros
---@param c0 Tensor[]|nil cell [B,H] of each layer
---@return Tensor y [B,T,H] of the last layer, Tensor[] hn [B,H] a layer, Tensor[] cn
function LSTM:forward(x, h0, c0)
  if x.ndim ~= 3 or x.shape_[2] ~= self.inputs then core.raise(("LSTM: x is %s, want [B,T,%d]"):format(tensor.describe(x), self.inputs)) end
  local hn, cn = {}, {}
  for l = 0, self.layers - 1 do
    local b_ih = rawget(self, "bias_ih_l" .. l)
    local b = b_ih and b_ih + self["bias_hh_l" .. l] or self.no_bias
    x, hn[l + 1], cn[l + 1] = ops.lstm(x, self["weight_ih_l" .. l], self["weight_hh_l" .. l], b, h0 and h0[l + 1], c0 and c0[l + 1])
    local dropout = rawget(self, "dropout_l" .. l)
    if dropout then x = dropout(x) end
  end
  return x, hn, cn
end

function LSTM:extra() return ("%d -> %d, %d layer%s"):format(self.inputs, self.hidden, self.layers, self.layers > 1 and "s" or "") end

return LSTM
