-- workloads.lua: the models, numbers and frames that both our rows and the peers' use: made from fixed seeds. Times nothing.
local ffi = require "ffi"
local lr = require "libration"
local files = require "libration.files"

local workloads = {WINDOW = 30, FEATURES = 99, FRAMES = 2000}

-- Multiply-adds of the reference autoencoder, two a pair: forward, a window.
function workloads.autoencoder_flops()
  local T, sum = workloads.WINDOW, 0
  for _, l in ipairs {{99, 128}, {128, 64}, {32, 64}, {64, 128}} do sum = sum + T * 2 * 4 * l[2] * (l[1] + l[2]) end
  return sum + 2 * 64 * 32 + T * 2 * 128 * 99
end

--- The reference autoencoder of 306,179 parameters.
---@return Autoencoder
function workloads.autoencoder()
  return require("libration.anomaly.autoencoder").new {input = workloads.FEATURES, window = workloads.WINDOW, seed = 1}
end

--- Frames of normal noise: f32 [n,99].
function workloads.frames(n) return lr.keep(lr.randn({n or workloads.FRAMES, workloads.FEATURES}, {seed = 7})) end

--- A function that scores all windows of frames [n,99]: recorded, in chunks that go through unfold, so that frames shared by windows are projected once.
---@param model Autoencoder
---@param frames Tensor f32 [n,99]
---@param chunk integer windows at once
---@return fun(): Tensor f32 [n-29] mean squared error of each window
function workloads.scorer(model, frames, chunk)
  local T = workloads.WINDOW
  local windows = frames:size(1) - T + 1
  local errors = lr.keep(lr.empty {windows})
  local score = lr.record(function(part)
    local x = part:unfold(T, 1)
    return lr.mean(lr.square(lr.sub(model(x), x)), {2, 3})
  end)
  return function()
    for first = 1, windows, chunk do
      local n = math.min(chunk, windows - first + 1)
      local part = frames:narrow(1, first, n + T - 1)
      local e = score(part)
      ffi.copy(errors:ptr() + first - 1, e:ptr(), n * 4)
    end
    return errors
  end
end

--- The same over windows that are copies of their own, as detect.lua makes them (a window's own mean is taken off each).
---@return fun(): Tensor f32 [n-29]
function workloads.window_scorer(model, frames, chunk)
  local T = workloads.WINDOW
  local all = lr.keep(frames:unfold(T, 1):contiguous())
  local windows = all:size(1)
  local errors = lr.keep(lr.empty {windows})
  local score = lr.record(function(x) return lr.mean(lr.square(lr.sub(model(x), x)), {2, 3}) end)
  return function()
    for first = 1, windows, chunk do
      local n = math.min(chunk, windows - first + 1)
      local e = score(all:narrow(1, first, n))
      ffi.copy(errors:ptr() + first - 1, e:ptr(), n * 4)
    end
    return errors
  end
end

--- The training step of the train room and a batch for it.
---@return fun(): Tensor step, Tensor x f32 [B,30,99], table optimizer
function workloads.training(model, B)
  local fit, optim, train = require "libration.anomaly.fit", require "libration.optim", require "libration.train"
  local optimizer = optim.Adam(model, {rate = 1e-3})
  local step = train.step(model, optimizer, fit.loss)
  local x = lr.keep(lr.randn({B, workloads.WINDOW, workloads.FEATURES}, {seed = 11}))
  local weight = lr.keep(lr.ones(x.shape))
  return function() return step(x, weight) end, x, optimizer
end

--- Writes what a process needs for its first score: the weights and one window.
---@return string weights .safetensors, string windows .npy f32 [1,30,99]
function workloads.save(folder)
  local weights, windows = files.join(folder, "weights.safetensors"), files.join(folder, "window.npy")
  require("libration.formats.safetensors").save(weights, workloads.autoencoder():state_dict())
  require("libration.formats.npy").save(windows, workloads.frames(workloads.WINDOW):reshape(1, workloads.WINDOW, workloads.FEATURES))
  return weights, windows
end

--- Frames of a person: of ../shared's video where it lies beside the checkout, else of our own renderer.
---@param root string the checkout
---@param count integer
---@return table list of tensors u8 [H,W,3], string where they come from
function workloads.pictures(root, count)
  local video = files.join(root, "..", "shared", "data", "video", "ta_chi.mp4")
  local list = {}
  if files.exists(video) then
    local source = assert(require("libration.media").open(video))
    while #list < count do
      local frame = source:read()
      if not frame then break end
      list[#list + 1] = lr.keep(frame)
    end
    source:close()
    return list, ("ta_chi.mp4, %dx%d"):format(source.width, source.height)
  end
  local infant = require "libration.data.infant"
  local options = {sequences = 1, frames = count, width = 320, height = 240, seed = 1}
  local sequence = infant.sequence(infant.plan(options)[1], options)
  for first = 1, count, 20 do
    local some = sequence:render(first, math.min(20, count - first + 1))
    for i = 1, some:size(1) do list[#list + 1] = lr.keep(some:select(1, i):clone()) end
  end
  return list, "rendered infant, 320x240"
end

return workloads
