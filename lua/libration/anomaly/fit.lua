-- Fits the autoencoder to windows: masked squared error, Adam, early stopping, checkpoints. Knows no recordings and no thresholds.

local lr = require "libration"
local motion = require "libration.motion"
local json = require "libration.formats.json"
local optim = require "libration.optim"
local train = require "libration.train"
local Autoencoder = require "libration.anomaly.autoencoder"

local fit = {}

-- Windows of an evaluation batch.
local EVALUATION = 256

--- Mean squared error over the numbers that are seen, in the order of the network's task; masks themselves do not count.
---@param model Autoencoder
---@param x Tensor f32 [B,T,F] windows
---@param weight Tensor f32 [B,T,F], 0 where a number does not count
---@return Tensor of one element
function fit.loss(model, x, weight)
  return lr.mse(model(model:seen(x)), model:wanted(x), model:wanted(weight))
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
--- device      string        "cpu" (default), "cuda:N": where the network is, then and afterwards
--- amp         string|nil    "f16", "bf16": operands of the products, accumulated in f32, with f32 weights, and loss scaling for f16; nil, "f32": none
--- on_epoch    fun(row)|nil, quiet boolean
---@return table {model: Autoencoder, history = {train, validation, ...} a number an epoch, best: epoch, stopped}
function fit.run(o)
  local T, F = o.train.length, o.train:width(o.mask)
  local model = Autoencoder.new { input = F, window = T, hidden = o.model.hidden, latent = o.model.latent, task = o.model.task, seed = o.seed or 1 }
  local device = o.device or "cpu"
  local half = o.amp and o.amp ~= "f32" and o.amp or nil
  model:to(device):half(half)
  local settings = { epochs = o.epochs, learning_rate = o.learning_rate, schedule = o.schedule, patience = o.patience or 0 }
  local optimizer = optim.Adam(model, { rate = o.learning_rate, clip = o.clip or 0, scaler = half == "f16" and optim.scaler() or nil })
  local watched = o.watch and o.watch.count > 0
  -- the sequences lie on the device; a batch is the starts of its windows, and the step reads them from there
  local reader = motion.WindowReader.new({ o.train, watched and o.watch or nil }, o.normaliser, o.mask, device)
  local loader = train.loader {
    streams = { reader:starts(o.train) }, batch = o.batch, seed = o.seed or 1, workers = o.workers or 1, device = device,
  }
  local watch = watched and train.loader {
    streams = { reader:starts(o.watch) }, batch = EVALUATION, shuffle = false, workers = 0, device = device,
  } or nil
  local about = {
    learning_rate = o.learning_rate, clip = o.clip or 0, seed = o.seed or 1, patience = o.patience or 0, mask = o.mask,
    watch = o.watch and o.watch.count or 0,
  }
  for name, value in pairs(o.about or {}) do about[name] = value end
  if o.schedule and o.schedule ~= "constant" then about.epochs = o.epochs end
  local ok, run = pcall(train.run, {
    model = model, optimizer = optimizer, loader = loader, validate = watch,
    loss = function(m, starts) return fit.loss(m, reader:read(starts)) end, schedule = schedule_of(settings), epochs = o.epochs,
    accumulate = o.accumulate or 1, patience = watch and o.patience or 0, folder = o.folder, checkpoint_every = o.checkpoint_every, resume = o.resume,
    about = about, metadata = { config = json.encode(model.config) }, keep = watch and "best" or "last", on_epoch = o.on_epoch, quiet = o.quiet,
  })
  loader:close()
  if watch then watch:close() end
  if not ok then error(run, 0) end
  return { model = model, history = run.history, best = watch and run.best.epoch or run.epochs, stopped = run.stopped }
end

return fit
