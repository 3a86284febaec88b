-- Fits the autoencoder to windows: masked squared error, Adam, early stopping, checkpoints. Knows no recordings and no thresholds.

local ffi = require "ffi"
local lr = require "libration"
local json = require "libration.formats.json"
local log = require "libration.log"
local optim = require "libration.optim"
local train = require "libration.train"
local Autoencoder = require "libration.anomaly.autoencoder"

local fit = {}

-- Windows of an evaluation batch.
local EVALUATION = 256

-- Windows as the network takes them, with the weights that loss and score give each number; of other tasks than to reconstruct
-- input, target and weights of the target.
local function tensors(windows, normaliser, mask, model)
  local N, T, F = windows.count, windows.length, windows:width(mask)
  local x, weight = lr.empty { N, T, F }, lr.empty { N, T, F }
  local list = {}
  for i = 1, N do list[i] = i end
  windows:write(list, normaliser, mask, x:ptr(), weight:ptr())
  local task, from = model.config.task, model:scored_from()
  if task == "predict" then
    local function frames(t, first, count) return t:narrow(2, first, count):contiguous() end
    return { frames(x, 1, from), frames(x, from + 1, T - from), frames(weight, from + 1, T - from) }
  elseif task == "reverse" then
    local function backwards(t)
      local out = lr.empty { N, T, F }
      local source, target = t:ptr(), out:ptr()
      for row = 0, N - 1 do
        for k = 0, T - 1 do ffi.copy(target + (row * T + k) * F, source + (row * T + T - 1 - k) * F, F * 4) end
      end
      return out
    end
    return { x, backwards(x), backwards(weight) }
  end
  return { x, weight }
end

--- Mean squared error over the numbers that are seen; masks themselves do not count.
---@param model Autoencoder
---@param x Tensor f32 [B,T,F]
---@param target Tensor f32 [B,T,F]; left out where it is x
---@param weight Tensor f32 [B,T,F], 0 where a number does not count
---@return Tensor of one element
---@overload fun(model: Autoencoder, x: Tensor, weight: Tensor): Tensor
function fit.loss(model, x, target, weight)
  if not weight then return lr.mse(model(x), x, target) end
  return lr.mse(model(x), target, weight)
end

local function schedule_of(o)
  local more = { epochs = o.epochs, every = math.max(1, math.floor(o.epochs / 3)), patience = math.max(1, math.floor((o.patience > 0 and o.patience or 10) / 2)) }
  return optim.schedule.new(o.schedule or "constant", o.learning_rate, more)
end

--- Trains a new network, or goes on with the one in the folder.
---@param o table
--- train       Windows       training windows
--- watch       Windows|nil   what early stopping and the best weights go by: windows that no step trains on; nil: the last epoch is kept
--- normaliser  Normaliser    mask  boolean  masks among the features
--- model       table         {hidden, latent, task}
--- epochs, batch, learning_rate, schedule "constant", clip 0, accumulate 1, patience 0, seed 1, workers 1
--- folder      string|nil    for checkpoints; checkpoint_every 0; resume boolean; about table: what a resumed run must share
--- amp         boolean       bf16 operands in the linear layers, where the processor has them
--- on_epoch    fun(row)|nil, quiet boolean
---@return table {model: Autoencoder, history = {train, validation, ...} a number an epoch, best: epoch, stopped}
function fit.run(o)
  local T, F = o.train.length, o.train:width(o.mask)
  local model = Autoencoder.new { input = F, window = T, hidden = o.model.hidden, latent = o.model.latent, task = o.model.task, seed = o.seed or 1 }
  if o.amp and not model:half(true) then log.warn("--amp: this processor has no fast bf16 products; training in f32") end
  local settings = { epochs = o.epochs, learning_rate = o.learning_rate, schedule = o.schedule, patience = o.patience or 0 }
  local optimizer = optim.Adam(model, { rate = o.learning_rate, clip = o.clip or 0 })
  local loader = train.loader {
    streams = tensors(o.train, o.normaliser, o.mask, model), batch = o.batch, seed = o.seed or 1, workers = o.workers or 1,
  }
  local watch = o.watch and o.watch.count > 0 and train.loader {
    streams = tensors(o.watch, o.normaliser, o.mask, model), batch = EVALUATION, shuffle = false, workers = 0,
  } or nil
  local about = {
    learning_rate = o.learning_rate, clip = o.clip or 0, seed = o.seed or 1, patience = o.patience or 0, mask = o.mask, amp = o.amp or false,
    watch = o.watch and o.watch.count or 0,
  }
  for name, value in pairs(o.about or {}) do about[name] = value end
  if o.schedule and o.schedule ~= "constant" then about.epochs = o.epochs end
  local ok, run = pcall(train.run, {
    model = model, optimizer = optimizer, loss = fit.loss, loader = loader, validate = watch, schedule = schedule_of(settings), epochs = o.epochs,
    accumulate = o.accumulate or 1, patience = watch and o.patience or 0, folder = o.folder, checkpoint_every = o.checkpoint_every, resume = o.resume,
    about = about, metadata = { config = json.encode(model.config) }, keep = watch and "best" or "last", on_epoch = o.on_epoch, quiet = o.quiet,
  })
  loader:close()
  if watch then watch:close() end
  if not ok then error(run, 0) end
  return { model = model, history = run.history, best = watch and run.best.epoch or run.epochs, stopped = run.stopped }
end

return fit
