-- own.lua: the rows of our own ops, networks and steps, each beside the limit of the processor. Compares with nobody.
local lr = require "libration"
local files = require "libration.files"
local ops = require "libration.ops"
local workloads = require "bench.workloads"

local own = {}

local seed = 100
local function random(...)
  seed = seed + 1
  return lr.keep(lr.randn({...}, {seed = seed}))
end

-- A plan of fn, so that a row times the kernel and not the host.
local function planned(fn, ...)
  local recorded = lr.record(fn)
  recorded(...)
  local plan = recorded:plan(...)
  return function() plan:replay() end
end

local function products(h)
  for _, s in ipairs {{256, 256, 256}, {1024, 1024, 1024}, {960, 512, 128}, {32, 512, 128}} do
    local m, n, k = unpack(s)
    h:row("matmul", ("[%d,%d] x [%d,%d]"):format(m, k, k, n), h:measure(planned(lr.matmul, random(m, k), random(k, n))), {flops = 2 * m * n * k})
  end
end

local function convolutions(h)
  for _, s in ipairs {{64, 64, 64, 3}, {32, 128, 128, 3}, {64, 48, 288, 1}, {128, 24, 8, 1}, {256, 3, 24, 3}} do
    local side, i, o, k = unpack(s)
    local x, w, b = random(1, side, side, i), random(o, k, k, i), random(o)
    local pad = (k - 1) / 2
    h:row("conv2d", ("[1,%d,%d,%d] %dx%d -> %d"):format(side, side, i, k, k, o),
      h:measure(planned(function(v) return lr.conv2d(v, w, b, {pad = pad, act = "relu"}) end, x)), {flops = 2 * side * side * i * o * k * k})
  end
  for _, s in ipairs {{64, 144, 3}, {32, 288, 5}, {16, 384, 5}, {8, 1152, 5}} do
    local side, c, k = unpack(s)
    local x, w, b = random(1, side, side, c), random(k, k, c), random(c)
    h:row("depthwise", ("[1,%d,%d,%d] %dx%d"):format(side, side, c, k, k),
      h:measure(planned(function(v) return lr.depthwise(v, w, b, {pad = (k - 1) / 2, act = "relu"}) end, x)), {flops = 2 * side * side * c * k * k})
  end
end

local function recurrent(h)
  local T, F, H = 30, 99, 128
  for _, B in ipairs {32, 256} do
    local x, w, r, b = random(B, T, F), lr.keep(random(4 * H, F) * .1), lr.keep(random(4 * H, H) * .1), random(4 * H)
    local flops = 2 * B * T * 4 * H * (F + H)
    h:row("LSTM forward", ("B=%d T=%d F=%d H=%d"):format(B, T, F, H), h:measure(planned(function(v) return (lr.lstm(v, w, r, b)) end, x)), {flops = flops})
    local save, need = ops.rows.lstm_forward.attr(), ops.rows.lstm_backward.attr()
    save.save, need.need_dx = 1, 1
    local y, _, _, gates, cells = ops.raw.lstm_forward(x, w, r, b, nil, nil, save)
    local dy = random(B, T, H)
    h:row("LSTM backward", ("B=%d T=%d F=%d H=%d"):format(B, T, F, H), h:measure(planned(function(v)
      return (ops.raw.lstm_backward(v, w, r, nil, nil, y, gates, cells, dy, nil, nil, need))
    end, x)), {flops = 2 * flops})
  end
end

local function memory(h)
  for _, n in ipairs {4096, 2 ^ 18, 2 ^ 23} do
    h:row("add", ("[%d]"):format(n), h:measure(planned(lr.add, random(n), random(n))), {bytes = 12 * n})
  end
  h:row("add, row broadcast", "[8192,1024] + [1024]", h:measure(planned(lr.add, random(8192, 1024), random(1024))), {bytes = 8 * 8192 * 1024})
  h:row("tanh", "[1048576]", h:measure(planned(lr.tanh, random(2 ^ 20))), {bytes = 8 * 2 ^ 20})
  h:row("sum of all", "[8388608]", h:measure(planned(function(x) return lr.sum(x) end, random(2 ^ 23))), {bytes = 4 * 2 ^ 23})
  h:row("sum over rows", "[8192,1024] -> [8192]", h:measure(planned(function(x) return lr.sum(x, {2}) end, random(8192, 1024))), {bytes = 4 * 2 ^ 23})
  h:row("sum over columns", "[8192,1024] -> [1024]", h:measure(planned(function(x) return lr.sum(x, {1}) end, random(8192, 1024))), {bytes = 4 * 2 ^ 23})
  h:row("resize bilinear x2", "[1,64,64,8] -> [1,128,128,8]",
    h:measure(planned(function(x) return lr.resize_bilinear(x, {128, 128}, {half_pixel = true}) end, random(1, 64, 64, 8))), {bytes = 4 * 8 * (64 * 64 + 128 * 128)})
end

--- A chain of adds of one element.
---@return fun() eager, fun() replayed, integer ops of a run
function own.chain()
  local N = 1000
  local x, y = random(1), random(1)
  local function eager()
    lr.scope(function()
      local v = x
      for _ = 1, N do v = lr.add(v, y) end
    end)
  end
  local replay = planned(function(v)
    for _ = 1, N do v = lr.add(v, y) end
    return v
  end, x)
  return eager, replay, N
end

local function overhead(h)
  local eager, replay, N = own.chain()
  for _, e in ipairs {{"add chain, eager", eager}, {"add chain, replayed", replay}} do
    local list = h:measure(e[2])
    for i, s in ipairs(list) do list[i] = s / N end
    h:row(e[1], "an op of [1] + [1]", list)
  end
end

local function blazepose(h, o)
  local landmarker = require("libration.pose.landmarker") {model = "full", clock = "mediapipe"}
  local small, large = lr.zeros {1, 224, 224, 3}, lr.zeros {1, 256, 256, 3}
  h:row("BlazePose detector", "[1,224,224,3]", h:measure(function() landmarker.detector:run(small) end, 1), {count = 1, unit = "runs"})
  h:row("BlazePose landmarks full", "[1,256,256,3]", h:measure(function() landmarker.marker:run(large) end, 1), {count = 1, unit = "runs"})
  local pictures, from = workloads.pictures(o.root, o.quick and 20 or 60)
  local list = {}
  lr.scope(function()
    for round = 1, 2 do
      landmarker:reset()
      for i, frame in ipairs(pictures) do
        local s = h.time(function() lr.scope(function() landmarker:process(frame) end) end)
        if round == 2 or #pictures < 40 or i > 5 then list[#list + 1] = s end
      end
    end
  end)
  h:row("landmarker, a frame", from, list, {count = 1, unit = "frames"})
end

local function scoring(h)
  local model, frames = workloads.autoencoder(), workloads.frames()
  local windows, flops = workloads.FRAMES - workloads.WINDOW + 1, workloads.autoencoder_flops()
  local sizes = ("%d windows, T=30 F=99"):format(windows)
  for _, chunk in ipairs {128, 512} do
    h:row("autoencoder scoring", ("%s, %d at once"):format(sizes, chunk), h:measure(workloads.scorer(model, frames, chunk), 2),
      {flops = windows * flops, count = windows, unit = "windows"})
  end
  local B = 128
  local x = random(B, workloads.WINDOW, workloads.FEATURES)
  h:row("reconstruct, as detect", ("%d windows, each on its own"):format(B), h:measure(function() model:reconstruct(x:ptr(), B) end, 1),
    {flops = B * flops, count = B, unit = "windows"})
end

local function training(h)
  for _, B in ipairs {32, 256} do
    local step = workloads.training(workloads.autoencoder(), B)
    h:row("training step", ("B=%d T=30 F=99, Adam"):format(B), h:measure(function() step() end, 1), {flops = 3 * B * workloads.autoencoder_flops(), count = B, unit = "windows"})
  end
end

local function start(h, o)
  local folder = files.temporary_folder()
  local weights, windows = workloads.save(folder)
  local command = ("luajit %s %s %s > /dev/null"):format(files.quote(files.join(o.here, "first_score.lua")), files.quote(weights), files.quote(windows))
  local list = h:measure(function()
    if os.execute(command) ~= 0 then error("first_score.lua failed", 0) end
  end, 1)
  h:row("start to first score", "a process, 1 window", list)
  files.remove(folder)
end

local groups = {
  {"products", "matmul", products}, {"convolutions", "conv2d depthwise", convolutions}, {"recurrent", "lstm", recurrent},
  {"memory", "add sum tanh resize elementwise reductions", memory}, {"overhead", "add chain eager replayed", overhead},
  {"blazepose", "landmarker detector landmarks", blazepose}, {"scoring", "autoencoder reconstruct", scoring}, {"training", "training step", training},
  {"start", "start to first score", start},
}

--- Runs the rows that are asked for.
---@param h table a bench run
---@param o {root: string, here: string, quick: boolean}
function own.run(h, o)
  for _, g in ipairs(groups) do
    if h:wants(g[1], g[2]) then
      if o.limit then o.limit() end
      h:heading(g[1])
      local ok, why = pcall(lr.scope, g[3], h, o)
      if not ok then
        if tostring(why):find("interrupted", 1, true) then error(why, 0) end
        print("  not measured: " .. tostring(why):match "^[^\n]*")
      end
      collectgarbage()
    end
  end
end

return own
