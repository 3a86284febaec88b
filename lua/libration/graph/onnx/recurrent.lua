-- ONNX's recurrent layers. Entries as in onnx/elementwise.lua.
local recurrent = require "libration.graph.lowering.recurrent"

local entries = {}

-- Part i of v [D,..], without that dim: rows first .. last of it, blocks of H in this order (all of it where order is nil).
local function part(self, v, i, from, count)
  if not v then return nil end
  local attr = { first = {}, last = {}, step = {} }
  for d, size in ipairs(v.shape) do attr.first[d], attr.last[d], attr.step[d] = 1, size, 1 end
  attr.first[1], attr.last[1] = i, i
  if from then attr.first[2], attr.last[2] = from, from + count - 1 end
  local y = self:emit("slice", { v }, attr)
  return self:reshaped(y, { unpack(y.shape, 2) })
end

-- Blocks of H rows in another order.
local function blocks(self, v, order, H)
  if not v or #order == 1 then return v end
  local index = {}
  for _, block in ipairs(order) do
    for i = 0, H - 1 do index[#index + 1] = (block - 1) * H + i end
  end
  return (self:emit("gather", { v, self:constant(index, "i64") }, { dim = 1 }))
end

-- Functions of each direction where they are not the usual ones.
local function activations(self, usual, ways)
  local names = self:attribute("activations", nil, "table")
  if not names or #names == 0 then return nil end
  local alpha, beta = self:attribute("activation_alpha", {}), self:attribute("activation_beta", {})
  local out, plain, a, b = {}, true, 0, 0
  for i = 1, ways do
    out[i] = {}
    for k = 1, #usual do
      local own = names[(i - 1) * #usual + k] or self:fail("%d activations for %d directions", #names, ways)
      for known in pairs(recurrent.activations) do
        if known:lower() == own:lower() then own = known end
      end
      if not recurrent.activations[own] then self:fail("activation %s is not supported", own) end
      plain = plain and own == usual[k]
      local f = { name = own }
      -- the lists hold numbers for those functions only that take some
      if own ~= "Relu" and own ~= "Tanh" and own ~= "Sigmoid" and own ~= "Softsign" and own ~= "Softplus" then a = a + 1 f.alpha = alpha[a] end
      if own == "Affine" or own == "ScaledTanh" or own == "HardSigmoid" then b = b + 1 f.beta = beta[b] end
      out[i][k] = f
    end
  end
  return not plain and out or nil
end

-- kind of lowering/recurrent.lua, its gates' usual functions, and ONNX's blocks in our order.
local function layer(kind, usual, order)
  return function(self)
    local x, w, r = self:input(1), self:input(2), self:input(3)
    local b, lengths, h0, c0, peepholes = self:input(4, true), self:input(5, true), self:input(6, true), self:input(7, true), self:input(8, true)
    local direction, batch_first = self:attribute("direction", "forward"), self:attribute("layout", 0) ~= 0
    for _, v in ipairs { x, w, r } do
      if #v.shape ~= 3 then self:fail("'%s' is [%s], want three dims", v.name, table.concat(v.shape, ",")) end
    end
    local backwards = ({ forward = { false }, reverse = { true }, bidirectional = { false, true } })[direction] or self:fail("direction %s", direction)
    local H, ways = r.shape[3], #backwards
    if w.shape[1] ~= ways or r.shape[1] ~= ways then self:fail("weights of %d directions, want %d", w.shape[1], ways) end
    if w.shape[2] ~= #order * H or r.shape[2] ~= #order * H then self:fail("weights [%s] and [%s]", table.concat(w.shape, ","), table.concat(r.shape, ",")) end
    local clip = self:attribute("clip", nil, "number")
    if clip and kind ~= "lstm" then self:fail("clip is not supported") end
    if self:attribute("input_forget", 0) ~= 0 then self:fail("input_forget is not supported") end
    local function states(v) return v and batch_first and self:transposed(v, { 2, 1, 3 }) or v end
    h0, c0 = states(h0), states(c0)
    local inputs = { [1] = batch_first and x or self:transposed(x, { 2, 1, 3 }), [2] = lengths }
    for i = 1, ways do
      local at = 2 + (i - 1) * 7
      inputs[at + 1], inputs[at + 2] = blocks(self, part(self, w, i), order, H), blocks(self, part(self, r, i), order, H)
      inputs[at + 3], inputs[at + 4] = blocks(self, part(self, b, i, 1, #order * H), order, H), blocks(self, part(self, b, i, #order * H + 1, #order * H), order, H)
      inputs[at + 5], inputs[at + 6] = part(self, h0, i), part(self, c0, i)
      inputs[at + 7] = blocks(self, part(self, peepholes, i), { 1, 3, 2 }, H)
    end
    local y, hn, cn = self:emit("recurrent", inputs, { kind = kind, backwards = backwards, activations = activations(self, usual, ways), clip = clip,
      reset_after = self:attribute("linear_before_reset", 0) ~= 0 })
    -- y [B,T,D*H] -> [T,D,B,H], or [B,T,D,H]
    y = self:reshaped(y, { y.shape[1], y.shape[2], ways, H })
    y = batch_first and y or self:transposed(y, { 2, 3, 1, 4 })
    return y, states(hn), cn and states(cn)
  end
end

-- ONNX has i, o, f, c; z, r, h
entries.LSTM = layer("lstm", { "Sigmoid", "Tanh", "Tanh" }, { 1, 3, 4, 2 })
entries.GRU = layer("gru", { "Sigmoid", "Tanh" }, { 1, 2, 3 })
entries.RNN = layer("rnn", { "Tanh" }, { 1 })

return entries
