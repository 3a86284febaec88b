-- The layers, and the seed of their random numbers.
local module = require "libration.nn.module"

local nn = {
  Module = module.Module, class = module.class, create = module.create, uniform = module.uniform, seed = module.seed,
  Linear = require "libration.nn.linear",
  LSTM = require "libration.nn.lstm",
  Conv2d = require "libration.nn.conv2d",
  Depthwise = require "libration.nn.depthwise",
  BatchNorm = require "libration.nn.batch_norm",
  LayerNorm = require "libration.nn.layer_norm",
  Dropout = require "libration.nn.dropout",
  Embedding = require "libration.nn.embedding",
  Sequential = require "libration.nn.sequential",
}
for name, class in pairs(require "libration.nn.activation") do nn[name] = class end

return nn
