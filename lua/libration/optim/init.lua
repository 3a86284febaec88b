-- Optimisers, learning-rate schedules, clipping, loss scaling.
local adam = require "libration.optim.adam"

return {
  Adam = adam.Adam, AdamW = adam.AdamW,
  SGD = require "libration.optim.sgd",
  schedule = require "libration.optim.schedule",
  scaler = require "libration.optim.scaler",
  clip_grad_norm = require "libration.optim.clip",
}
