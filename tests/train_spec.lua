-- train_spec: the loop, and that a killed, interrupted and resumed run ends with the same bits.
local lr = require "libration"
local nn, optim, train = require "libration.nn", require "libration.optim", require "libration.train"
local files = require "libration.files"
local log = require "libration.log"

-- A run in a process of its own: arguments are folder, resume, and where to send itself which signal.
local script = [[
local folder, resume, at_epoch, at_batch, signal, accumulate = arg[1], arg[2] == "resume", tonumber(arg[3]), tonumber(arg[4]), tonumber(arg[5]), tonumber(arg[6])
local ffi = require "ffi"
local lr = require "libration"
local nn, optim, train = require "libration.nn", require "libration.optim", require "libration.train"
ffi.cdef "int kill(int pid, int signal);"
lr.threads(1)
require("libration.log").setup {path = folder .. "/training.log", level = "error"}
nn.seed(3)
local model = nn.Sequential(nn.LSTM(6, 9), nn.Dropout(.2), nn.LSTM(9, 6), nn.Linear(6, 6))
local frames = {lr.randn({60, 6}, {seed = 1}), lr.randn({45, 6}, {seed = 2})}
local loader = train.loader {streams = {frames}, window = 7, batch = 8, seed = 4, workers = 2}
local held_out = train.loader {streams = {lr.randn({30, 6}, {seed = 5})}, window = 7, batch = 8, shuffle = false, workers = 0}
local watched = setmetatable({epoch = function(_, epoch, first)
  local step = loader:epoch(epoch, first)
  return function()
    local i, x = step()
    if epoch == at_epoch and i == at_batch then ffi.C.kill(require("ffi").C.getpid(), signal) end
    return i, x
  end
end}, {__index = loader})
local optimizer = optim.AdamW(model, {rate = 1e-2, clip = 1})
local fit = train.run {
  model = model, optimizer = optimizer, loss = function(m, x) return lr.mse(m(x), x) end, loader = watched, validate = held_out,
  schedule = optim.schedule.plateau(1e-2, {patience = 1}),
  epochs = 5, folder = folder, checkpoint_every = 2, resume = resume, about = {seed = 3}, quiet = true, accumulate = accumulate,
}
io.write(fit.stopped)
]]

local folders = {}
local function folder()
  local path = files.temporary_folder()
  folders[#folders + 1] = path
  return path
end

local function run(...)
  local path = os.tmpname()
  files.write(path, script)
  local words = {}
  for i = 1, select("#", ...) do words[i] = files.quote(tostring((select(i, ...)))) end
  local pipe = io.popen(("LUA_PATH='./lua/?.lua;./lua/?/init.lua;;' luajit %s %s 2>&1"):format(path, table.concat(words, " ")))
  local out = pipe:read "*a"
  pipe:close()
  os.remove(path)
  return out
end

local function epochs_logged(path)
  local out = {}
  for epoch in files.read(path .. "/training.log"):gmatch "epoch (%d+)/5" do out[#out + 1] = tonumber(epoch) end
  return out
end

local function same_files(a, b)
  for _, name in ipairs {"last.safetensors", "best.safetensors", "epoch_002.safetensors", "epoch_004.safetensors"} do
    local one, two = assert(files.read(a .. "/" .. name)), assert(files.read(b .. "/" .. name))
    if name == "last.safetensors" then -- the seconds of an epoch are the one thing that differs
      local safetensors = require "libration.formats.safetensors"
      one, two = safetensors.load(a .. "/" .. name), safetensors.load(b .. "/" .. name)
      for key, t in pairs(one) do
        if key ~= "history.seconds" then assert.are.same(t:totable(), two[key]:totable(), key) end
      end
    else
      assert(one == two, name .. " differs")
    end
  end
end

local function small(options)
  nn.seed(1)
  local model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))
  local loader = train.loader {streams = {lr.randn({50, 4}, {seed = 1})}, batch = 16, workers = 1}
  local o = {model = model, optimizer = optim.Adam(model, {rate = 1e-2}), loss = function(m, x) return lr.mse(m(x), x) end, loader = loader, epochs = 4, quiet = true}
  for k, v in pairs(options or {}) do o[k] = v end
  return o
end

describe("train", function()
  setup(function() log.setup {level = "error"} end)
  teardown(function()
    log.setup {level = "info"}
    for _, path in ipairs(folders) do files.remove(path) end
  end)

  it("killed twice by kill -9 and resumed ends with the same bytes; no completed epoch is logged twice", function()
    local whole, killed = folder(), folder()
    assert.are.equal("finished", run(whole, "new", 0, 0, 0, 1))
    for k, at in ipairs {{2, 5}, {4, 1}} do
      assert.are_not.equal("finished", run(killed, k == 1 and "new" or "resume", at[1], at[2], 9, 1))
    end
    assert.are.equal("finished", run(killed, "resume", 0, 0, 0, 1))
    assert.are.same({1, 2, 3, 4, 5}, epochs_logged(whole))
    assert.are.same({1, 2, 3, 4, 5}, epochs_logged(killed))
    same_files(whole, killed)
  end)

  for _, accumulate in ipairs {1, 3} do
    it("Ctrl-C saves within the epoch and the resumed run ends with the same bytes, accumulating " .. accumulate, function()
      local whole, stopped = folder(), folder()
      assert.are.equal("finished", run(whole, "new", 0, 0, 0, accumulate))
      assert.are.equal("interrupted", run(stopped, "new", 3, 4, 2, accumulate))
      assert.are.same({1, 2}, epochs_logged(stopped))
      assert.are.equal("finished", run(stopped, "resume", 0, 0, 0, accumulate))
      assert.are.same({1, 2, 3, 4, 5}, epochs_logged(stopped))
      same_files(whole, stopped)
    end)
  end

  it("recorded and eager steps give the same bits, the short batch included", function()
    local a, b = small(), small {eager = true}
    local fit, plain = train.run(a), train.run(b)
    assert.are.same(fit.history.train, plain.history.train)
    assert.are.equal(4, fit.epochs)
    assert(fit.history.train[4] < fit.history.train[1])
    for name, t in pairs(a.model:state_dict()) do assert.are.same(t:totable(), b.model:state_dict()[name]:totable()) end
  end)

  it("stops early, keeps the best weights, follows the schedule", function()
    local metrics, calls, rows = {3, 2, 2.5, 2.1, 2.2, 1}, 0, {}
    local best
    local o = small {epochs = 6, patience = 3, schedule = optim.schedule.step(1e-2, {every = 2})}
    o.validate = function()
      calls = calls + 1
      if calls == 2 then best = o.model["0"].weight:clone() end
      return metrics[calls]
    end
    o.on_epoch = function(row) rows[#rows + 1] = row end
    local fit = train.run(o)
    assert.are.equal("patience", fit.stopped)
    assert.are.equal(5, fit.epochs)
    assert.are.equal(2, fit.best.epoch)
    assert.are.same(best:totable(), o.model["0"].weight:totable())
    assert.are.same({1e-2, 1e-2, 1e-3, 1e-3, 1e-4}, (function()
      local out = {}
      for i, v in ipairs(fit.history.rate) do out[i] = tonumber(("%.10g"):format(v)) end
      return out
    end)())
    assert.are.equal(5, #rows)
    assert.is_true(rows[2].best)
  end)

  it("refuses to go on with another configuration, and a loss that is not a number, by name", function()
    local path = folder()
    train.run(small {folder = path, epochs = 1, about = {window = 30, split = {train = "1-8"}}})
    local function message(options)
      local ok, text = pcall(train.run, small(options))
      assert.is_false(ok)
      return text
    end
    assert.matches("made with about%.split%.train=1%-8, this run has about%.split%.train=1%-7",
      message {folder = path, resume = true, about = {window = 30, split = {train = "1-7"}}})
    assert.matches("no option 'epoch'", message {epoch = 3})
    assert.matches("epochs is 0", message {epochs = 0})
    local bad = lr.ones {8, 4}
    bad:set(0 / 0, 3, 2)
    assert.matches("the loss is %-?nan at epoch 1, batch 1", message {loader = train.loader {streams = {bad}, batch = 4, shuffle = false}})
    assert.are.equal(3, train.run(small {folder = folder(), resume = true, epochs = 3}).epochs)
  end)

  it("needs no more memory as steps go on", function()
    local o = small {epochs = 3}
    local live
    o.on_epoch = function(row)
      if row.epoch == 2 then
        collectgarbage()
        live = lr.memory().live
      elseif row.epoch == 3 then
        collectgarbage()
        assert(lr.memory().live <= live + 4096)
      end
    end
    train.run(o)
    assert(live)
  end)
end)
