-- Training: the loader, the recorded step, checkpoints, the loop.
local step = require "libration.train.step"
local Loader = require "libration.train.loader"

return {
  Loader = Loader, loader = Loader.new,
  step = step.new, accumulating = step.accumulating, evaluation = step.evaluation,
  checkpoint = require "libration.train.checkpoint",
  run = require "libration.train.run",
}
