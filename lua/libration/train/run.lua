-- run.lua: the training loop: epochs, validation, schedule, checkpoints, early stopping, resuming, interruption. Knows no model and no data set.
local core = require "libration.core"
local tensor = require "libration.tensor"
local files = require "libration.files"
local log = require "libration.log"
local progress = require "libration.progress"
local safetensors = require "libration.formats.safetensors"
local step = require "libration.train.step"
local checkpoint = require "libration.train.checkpoint"
local schedules = require "libration.optim.schedule"

local C, raise = core.C, core.raise

local READ_EVERY = 50 -- batches after which the loss is read from a device: reading waits for it

local known = {
  model = true, optimizer = true, loss = true, loader = true, validate = true, schedule = true, epochs = true, accumulate = true, patience = true, folder = true,
  checkpoint_every = true, resume = true, about = true, metadata = true, keep = true, on_epoch = true, eager = true, quiet = true,
}

-- Mean of loss over a loader, each batch weighted by its windows, in evaluation mode.
local function evaluator(o)
  if type(o.validate) == "function" then return o.validate end
  local tally = step.tally(o.optimizer.control.device, false, false)
  local evaluate = step.evaluation(o.model, o.loss, {eager = o.eager, tally = tally})
  return function()
    o.model:eval()
    tally:set(0, 0)
    for _, x, a, b, c in o.validate:epoch(1) do evaluate(x, a, b, c) end
    o.model:train()
    local sum, n = tally:get()
    return sum / n
  end
end

local function clones(model)
  local out = {}
  for name, t in pairs(model:state_dict()) do out[name] = tensor.keep(t:clone()) end
  return out
end

-- Reads the epoch's loss so far; one that is not finite ends the run, but for a loss scaler, which skips such steps.
local function read_loss(self, epoch, i)
  local sum, seen = self.tally:get()
  if not (math.abs(sum) < math.huge) and not self.o.optimizer.scaler.initial then
    raise(("training: the loss is %s at epoch %d, batch %d%s: lower the learning rate, or look for missing numbers in the data"):format(
      tostring(sum), epoch, i, self.read_every > 1 and " or a few before" or ""))
  end
  return sum, seen
end

-- One pass over the training windows from batch `first` on; returns the mean loss, nil when interrupted. self.at: where a resumed run goes on.
local function pass(self, epoch, first)
  local o, loader = self.o, self.o.loader
  local every = o.accumulate
  for i, x, a, b, c in loader:epoch(epoch, first) do
    if every > 1 then
      local group = math.min(every, loader.batches - math.floor((i - 1) / every) * every)
      self.accumulate(1 / group, x, a, b, c)
      if i % every == 0 or i == loader.batches then self.apply() end
    else
      self.train(x, a, b, c)
    end
    if i % every == 0 or i == loader.batches then self.at = {epoch = epoch - 1, batch = i + 1} end
    self.done = self.done + x:size(1)
    if i % self.read_every == 0 or i == loader.batches then
      local sum, seen = read_loss(self, epoch, i)
      if self.bar then self.bar:update(self.done, ("epoch %d/%d, loss %.4g"):format(epoch, o.epochs, sum / seen)) end
    end
    if C.lbr_interrupted() ~= 0 and i % every == 0 and i < loader.batches then return nil end
  end
  local sum, seen = self.tally:get()
  return sum / seen
end

local function interrupted_in(err) return type(err) == "string" and err:find("interrupted", 1, true) end

local function save(self, numbers)
  local o = self.o
  if not o.folder then return end
  numbers.best, numbers.best_epoch = self.best.loss, self.best.epoch
  checkpoint.save(files.join(o.folder, "last.safetensors"), {
    model = o.model, optimizer = o.optimizer, schedule = o.schedule, history = self.history, numbers = numbers, about = self.about,
  })
end

local function save_weights(self, name, epoch)
  local metadata = {}
  for key, value in pairs(self.o.metadata or {}) do metadata[key] = value end
  metadata.epoch = tostring(epoch)
  safetensors.save(files.join(self.o.folder, name), self.o.model:state_dict(), metadata)
end

-- After an epoch: history, schedule, best weights, then the checkpoint, then the log line: a run killed between any two of them repeats no logged epoch.
local function finish_epoch(self, epoch, train_loss, seconds)
  local o, h = self.o, self.history
  local validation = self.evaluate and self.evaluate() or nil
  local metric = validation or train_loss
  h.train[epoch], h.rate[epoch], h.seconds[epoch] = train_loss, o.optimizer:rate(), seconds
  if validation then h.validation[epoch] = validation end
  o.schedule:observe(metric)
  local better = metric < self.best.loss
  if better then
    self.best = {loss = metric, epoch = epoch}
    if o.folder then save_weights(self, "best.safetensors", epoch) else self.best.weights = clones(o.model) end
  end
  if o.folder and o.checkpoint_every > 0 and epoch % o.checkpoint_every == 0 then save_weights(self, ("epoch_%03d.safetensors"):format(epoch), epoch) end
  save(self, {epoch = epoch, batch = 1, sum = 0, seen = 0})
  local report = o.optimizer:report()
  log.info("epoch %d/%d: train %.6g%s, rate %.3g, %.1f s%s%s", epoch, o.epochs, train_loss, validation and (", validation %.6g"):format(validation) or "",
    h.rate[epoch], seconds, better and ", best so far" or "", report.overflows > 0 and (", %d steps skipped, loss scale %g"):format(report.overflows, report.scale) or "")
  if o.on_epoch then o.on_epoch {epoch = epoch, train = train_loss, validation = validation, rate = h.rate[epoch], seconds = seconds, best = better} end
end

local function restore_best(self)
  local o = self.o
  if self.best.epoch == 0 or self.best.epoch == #self.history.train then return end
  if self.best.weights then
    o.model:load_state_dict(self.best.weights)
  else
    local state, reason = safetensors.load(files.join(o.folder, "best.safetensors"))
    if not state then raise(reason) end
    o.model:load_state_dict(state)
  end
end

local function resume(self)
  local o = self.o
  local path = o.folder and files.join(o.folder, "last.safetensors")
  if not path then raise "training: resume without a folder" end
  local state = checkpoint.load(path, {model = o.model, optimizer = o.optimizer, schedule = o.schedule, about = self.about})
  if not state then
    log.info("nothing to resume in %s: starting from the first epoch", o.folder)
    return {epoch = 0, batch = 1, sum = 0, seen = 0}
  end
  local n = state.numbers
  for name in pairs(self.history) do self.history[name] = state.history[name] or {} end
  self.best = {loss = n.best, epoch = n.best_epoch}
  local last = n.epoch > 0 and (": train %.6g"):format(self.history.train[n.epoch]) or ""
  log.info("resumed after epoch %d%s%s", n.epoch, n.batch > 1 and (" and %d batches of the next"):format(n.batch - 1) or "", last)
  return n
end

local function check(o)
  for key in pairs(o) do
    if not known[key] then raise("training: no option '" .. tostring(key) .. "'") end
  end
  for _, name in ipairs {"model", "optimizer", "loss", "loader"} do
    if not o[name] then raise("training: " .. name .. " is missing") end
  end
  o.epochs, o.accumulate, o.patience, o.checkpoint_every = o.epochs or 100, o.accumulate or 1, o.patience or 0, o.checkpoint_every or 0
  for _, name in ipairs {"epochs", "accumulate"} do
    if o[name] < 1 or o[name] % 1 ~= 0 then raise(("training: %s is %s, want a whole number >= 1"):format(name, tostring(o[name]))) end
  end
  o.schedule = o.schedule or schedules.constant(o.optimizer:rate())
  if o.keep and o.keep ~= "best" and o.keep ~= "last" then raise("training: keep is " .. tostring(o.keep) .. ", want best or last") end
end

local function loop(self, at)
  local o = self.o
  local epoch, first = at.epoch + 1, at.batch
  self.tally:set(at.sum, at.seen)
  while epoch <= o.epochs do
    if o.patience > 0 and epoch - 1 - self.best.epoch >= o.patience and epoch > 1 then
      log.info("stopped: no improvement for %d epochs, best epoch %d", o.patience, self.best.epoch)
      return "patience"
    end
    local began = progress.clock()
    o.optimizer:rate(o.schedule:rate(epoch))
    o.model:train()
    local loss = pass(self, epoch, first)
    if not loss then return "interrupted" end
    finish_epoch(self, epoch, loss, progress.clock() - began)
    self.at = nil
    if C.lbr_interrupted() ~= 0 then return "interrupted" end
    epoch, first = epoch + 1, 1
    self.tally:set(0, 0)
  end
  return "finished"
end

--- Trains a model. Every step is a replay of a recorded plan; the same seeds, data and number of threads give the same bits, also over a resume.
---@param o table
--- model      Module
--- optimizer  Optimizer      of its parameters
--- loss       fun(model, x, ...): Tensor   one element, made by ops; the batch's tensors in the order of the loader's streams (at most 4)
--- loader     Loader         training windows
--- validate   Loader|fun(): number|nil     what early stopping and the best weights go by; nil: the training loss
--- schedule   Schedule|nil   default: the optimiser's rate throughout
--- epochs 100, accumulate 1 (micro-batches a step), patience 0 (epochs without improvement; 0: never stop early)
--- folder     string|nil     where best.safetensors, last.safetensors (the whole state, at the end of each epoch and on Ctrl-C) and, every
---                           checkpoint_every epochs, epoch_NNN.safetensors go
--- resume     boolean        continue from folder's last.safetensors where there is one
--- about      table|nil      what a resumed run must share with the one it continues (seed, data, sizes); a difference is an error that names it
--- metadata   table|nil      strings for the files of weights
--- keep       "best"|"last"  weights in the model at the end; default best
--- on_epoch   fun(row)       called after each epoch;  quiet: no progress bar;  eager: without recording
---@return table {history = {train=, validation=, rate=, seconds=} a number an epoch, best = {epoch=, loss=}, epochs = completed,
--- stopped = "finished"|"patience"|"interrupted"}; the model is in evaluation mode
return function(o)
  local copy = {}
  for k, v in pairs(o) do copy[k] = v end
  o = copy
  check(o)
  local self = {o = o, history = {train = {}, validation = {}, rate = {}, seconds = {}}, best = {loss = math.huge, epoch = 0}}
  self.about = checkpoint.describe {
    about = o.about or {}, windows = o.loader.count, batch = o.loader.batch, order = o.loader.seed, accumulate = o.accumulate,
    optimizer = o.optimizer.kind, schedule = o.schedule.kind,
  }
  if o.folder then
    local ok, reason = files.mkdirs(o.folder)
    if not ok then raise(reason) end
  end
  local at = o.resume and resume(self) or {epoch = 0, batch = 1, sum = 0, seen = 0}
  local device = o.optimizer.control.device
  self.read_every = device == "cpu" and 1 or READ_EVERY
  self.tally = step.tally(device, o.accumulate > 1, o.optimizer.scaler.initial ~= nil)
  o.tally = self.tally
  if o.accumulate > 1 then
    self.accumulate, self.apply = step.accumulating(o.model, o.optimizer, o.loss, o)
  else
    self.train = step.new(o.model, o.optimizer, o.loss, o)
  end
  self.evaluate = o.validate and evaluator(o)
  self.done = 0
  if not o.quiet and at.epoch < o.epochs then
    self.bar = progress.new {label = "training", total = (o.epochs - at.epoch) * o.loader.count - at.seen, unit = "windows", every = 30}
  end
  local ok, stopped = pcall(loop, self, at)
  if self.bar then self.bar:finish() end
  if not ok then
    if not interrupted_in(stopped) then error(stopped, 0) end
    stopped = "interrupted"
  end
  if stopped == "interrupted" then
    C.lbr_interrupt_clear()
    if self.at then
      self.at.sum, self.at.seen = self.tally:get()
      save(self, self.at)
    end
    log.warn("interrupted after %d epochs%s", #self.history.train, o.folder and "; the state is saved, --resume continues" or "")
  elseif o.keep ~= "last" then
    restore_best(self)
  end
  o.model:eval()
  return {history = self.history, best = {epoch = self.best.epoch, loss = self.best.loss}, epochs = #self.history.train, stopped = stopped}
end
