-- ONNX's losses, as exports of whole training graphs have them. Entries as in onnx/elementwise.lua.
local tensor = require "libration.tensor"

local entries = {}

-- Weighted -log p of the classes `target` [N,...] among log p [N,C,...]; none, summed or the weighted mean.
local function negative_log_likelihood(self, log_p, target, weight)
  local classes, dims, places = log_p.shape[2], {}, {}
  if #log_p.shape < 2 or #target.shape ~= #log_p.shape - 1 then
    self:fail("[%s] with classes [%s]", table.concat(log_p.shape, ","), table.concat(target.shape, ","))
  end
  local function emit(...) return (self:emit(...)) end
  for d = 1, #log_p.shape do
    dims[d] = d == 2 and 1 or target.shape[d - (d > 2 and 1 or 0)]
    places[d] = d == 2 and classes or 1
  end
  local wanted = self:reshaped(target, dims)
  local zero = self:constant(0, log_p.kind)
  local hit = emit("eq", { wanted, self:constant(tensor.arange(classes, self:dtype(target)):reshape(places), target.kind) }, nil, "bool")
  local function picked(v) return emit("sum", { emit("where", { hit, v, zero }, nil, log_p.kind) }, { dims = { 2 } }) end
  local share = weight and picked(self:reshaped(weight, places)) or emit("expand", { self:constant(1, log_p.kind) }, { shape = target.shape })
  local ignored = self.node.attr.ignore_index
  if ignored then
    share = emit("where", { emit("eq", { target, self:constant(ignored, target.kind) }, nil, "bool"), zero, share }, nil, log_p.kind)
  end
  local loss = emit("neg", { emit("mul", { picked(log_p), share }) })
  local reduction = self:attribute("reduction", "mean")
  if reduction == "none" then return loss end
  local all = {}
  for d = 1, #target.shape do all[d] = d end
  local total = emit("sum", { loss }, { dims = all })
  if reduction == "sum" then return total end
  if reduction ~= "mean" then self:fail("reduction is '%s', want none, sum or mean", reduction) end
  return emit("div", { total, emit("sum", { share }, { dims = all }) })
end

function entries.NegativeLogLikelihoodLoss(self)
  return negative_log_likelihood(self, self:input(1), self:input(2), self:input(3, true))
end

function entries.SoftmaxCrossEntropyLoss(self)
  local x = self:input(1)
  if #x.shape < 2 then self:fail("[%s] has no classes", table.concat(x.shape, ",")) end
  local order = {}
  for d = 1, #x.shape do order[d] = d end
  order[2], order[#order] = order[#order], order[2]
  local log_p = self:transposed((self:emit("log_softmax", { self:transposed(x, order) })), order)
  return negative_log_likelihood(self, log_p, self:input(2), self:input(3, true)), log_p
end

return entries
