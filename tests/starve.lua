-- The nth malloc fails, for every n: luajit tests/starve.lua [EVERY [NAME...]], with tests/meter.c preloaded. The requests of our libraries are counted, tensors among
-- them, and of libpng and libjpeg; Lua's allocator is left alone. Each failure ends in a clear line or goes unnoticed, and leaves nothing alive.
package.path = "lua/?.lua;lua/?/init.lua;tests/?.lua;" .. package.path
local ffi = require "ffi"
local lr = require "libration"
local files = require "libration.files"
local media = require "libration.media"
local made = require "helper_media"

ffi.cdef "int meter_watch(const char *name); int meter_fail(int64_t n, int all);"
local C, core = ffi.C, lr.core.C
local lib = media.library()

local folder = files.temporary_folder()
lr.threads(2)
-- what is printed of a failed drawing is no error of ours
require "libration.log".setup { level = "error" }

local function picture()
  local t, u = lr.empty({ 24, 40, 3 }, "u8"), 7
  for i = 0, 24 * 40 * 3 - 1 do
    u = u * 16807 % 2147483647
    t:ptr()[i] = u % 256
  end
  return t
end

local function sum_of(t)
  local s, p = 0, t:ptr()
  for i = 0, t:numel() - 1 do s = s + (p[i] == p[i] and p[i] or 0) * (i % 31) end
  return s
end

-- Each gives a function to be run again and again; its number is the same whenever nothing fails.
local scenarios = {}
local order = {}
local function scenario(name, make)
  order[#order + 1], scenarios[name] = name, make
end

for _, eager in ipairs { true, false } do
  scenario(eager and "training step, eager" or "training step, recorded", function()
    local anomaly, optim, train = require "libration.anomaly", require "libration.optim", require "libration.train"
    local x = lr.randn({ 3, 4, 5 }, { seed = 1 })
    return function()
      local model = anomaly.autoencoder.new { input = 5, window = 4, hidden = { 6 }, latent = 3, seed = 1 }
      local optimizer = optim.Adam(model:parameters(), { rate = .01, clip = 1 })
      local step = train.step(model, optimizer, function(m, v) return lr.mse(m(v), v) end, { eager = eager })
      step(x)
      return step(x):item()
    end
  end)
end

scenario("scoring and judging a recording", function()
  local hostile = require "hostile"
  for _, kind in ipairs(hostile.kinds) do
    if kind.name == "detector" then
      files.write(folder .. "/d.safetensors", kind.bytes())
      return function() return assert(kind.read(assert(files.read(folder .. "/d.safetensors")))).share end
    end
  end
end)

scenario("loader", function()
  local train = require "libration.train"
  local frames = { lr.randn({ 30, 6 }, { seed = 1 }), lr.randn({ 25, 6 }, { seed = 2 }) }
  return function()
    local loader = train.loader { streams = { frames }, window = 7, batch = 8, seed = 4, workers = 2 }
    local s = 0
    for i, x in loader:epoch(1) do s = s + i * sum_of(x) end
    loader:close()
    return s
  end
end)

scenario("landmark frame", function()
  local ok, landmarker = pcall(require "libration.pose.landmarker", {})
  if not ok then return nil end
  local path = folder .. "/infant"
  local infant = require "libration.data.infant"
  infant.write(path, { sequences = 1, frames = 2, abnormal = {} })
  local frame = assert(media.read_picture(path .. "/01/rgb/syn_00001.png"))
  return function()
    landmarker:reset()
    return sum_of((assert(landmarker:process(frame, 0), "no memory for a pose")))
  end
end)

-- Weights read, unpacked and packed, plans made: hundreds of requests, of which one in 40 fails.
scenario("networks and a first landmark frame", function()
  local landmarker = require "libration.pose.landmarker"
  local frame = media.read_picture(folder .. "/infant/01/rgb/syn_00001.png")
  if not frame then return nil end
  return function() return sum_of((assert(landmarker({}):process(frame, 0), "no memory for a pose"))) end, 40
end)

scenario("video in", function()
  made.video(folder .. "/in.mp4", 48, 32, made.steady(4, 25), { crf = 20 })
  return function()
    local source = assert(media.open(folder .. "/in.mp4", { threads = 1 }))
    local ok, s = pcall(function()
      local n = 0
      for frame in source:each() do n = n + sum_of(frame) end
      return n
    end)
    source:close()
    if not ok then error(s, 0) end
    return s
  end
end)

scenario("video out", function()
  return function()
    made.video(folder .. "/out.mp4", 48, 32, made.steady(3, 25), { crf = 20, preset = "ultrafast" })
    return files.size(folder .. "/out.mp4")
  end
end)

scenario("video encoded anew", function()
  made.video(folder .. "/plain.mp4", 48, 32, made.steady(4, 25), { crf = 20 })
  return function()
    local t = assert(media.transcode { input = folder .. "/plain.mp4", output = folder .. "/anew.mp4", preset = "ultrafast", threads = 1, decoder_threads = 1 })
    local ok, why = pcall(function()
      for frame in t:frames() do
        frame:rgb()
        t:write(frame, { { shape = "ellipse", x = 10, y = 12, width = 20, height = 16, feather = 2 }, { shape = "polygon", points = { 30, 4, 45, 5, 38, 20 } } },
          { style = frame.index % 2 == 0 and "blur" or "mosaic" })
      end
      t:close()
    end)
    t:abort()
    if not ok then error(why, 0) end
    return files.size(folder .. "/anew.mp4")
  end
end)

scenario("pictures in and out", function()
  local pixels = picture()
  files.mkdirs(folder .. "/p")
  return function()
    media.write_png(folder .. "/p/a.png", pixels)
    local s = sum_of(assert(media.read_picture(folder .. "/p/a.png")))
    local source = assert(media.open(folder .. "/p", { threads = 1 }))
    local frame = source:next()
    s = s + sum_of(frame)
    source:close()
    return s
  end
end)

scenario("report", function()
  local report = require "libration.report"
  local train = {}
  for i = 1, 10 do train[i] = 1 / i end
  return function()
    report.training(folder .. "/page", {
      title = "Training run", population = "two", epochs = { train = train, best = 9 }, threshold = .8, percentile = 95,
      calibration = { { id = "09", score = .5, share = .06 } }, test = { { id = "11", score = .5, share = .04, p = .5, flagged = false } },
      baselines = {}, warnings = {}, audit = {}, config = {}, versions = {}, device = "cpu", timings = {},
    })
    return files.exists(folder .. "/page/report.html") and 1 or 0
  end
end)

local function collect()
  for _ = 1, 3 do collectgarbage() end
  return tonumber(core.lbr_memory_storages(0)), tonumber(core.lbr_memory_live(0)), tonumber(lib.lbr_media_live())
end

local CLEAR = { "memory", "no room", "Cannot allocate", "not enough" }

-- FFmpeg's demuxers and encoders, Cairo and pixman do not survive a failing malloc of their own (an assertion, a call of what was freed): there our requests alone.
local OTHERS = { ["pictures in and out"] = { "libavutil", "libpng", "libjpeg" } }

local function watch(name)
  C.meter_watch(nil)
  assert(C.meter_watch "libration_core" > 0)
  for _, library in ipairs(OTHERS[name] or {}) do C.meter_watch(library) end
  C.meter_watch "libration_media"
end

local function one(name, every, all)
  local fn, sparse = scenarios[name]()
  watch(name)
  if not fn then return print(("%-36s needs the networks' weights"):format(name)) end
  local want = lr.scope(fn)
  lr.scope(fn)
  local storages, live, sources = collect()
  local n, failures, healed = 1, 0, 0
  while true do
    core.lbr_memory_trim(0) -- or a block that was kept would be taken in place of a request
    C.meter_fail(n, all and 1 or 0)
    local ok, result = pcall(lr.scope, fn)
    local failed = C.meter_fail(0, 0)
    if failed == 0 then
      assert(ok, result)
      break
    end
    local text = tostring(result)
    if ok then
      healed = healed + 1
      assert(name == "video out" or result == want, ("%s: request %d failed, and %s came instead of %s"):format(name, n, text, tostring(want)))
    else
      failures = failures + 1
      local clear = not text:find("\n", 1, true)
      local said = false
      for _, word in ipairs(CLEAR) do said = said or text:find(word, 1, true) end
      -- FFmpeg tells another cause now and then; the file is named
      said = said or name:find "^video" and text:find("%.mp4")
      assert(clear and said, ("%s: request %d failed: %s"):format(name, n, text))
    end
    if core.lbr_recording() ~= 0 then error(name .. ": still recording after request " .. n) end
    lr.tape():close()
    local a, b, c = collect()
    assert(a <= storages and b <= live and c <= sources,
      ("%s: after request %d failed: %d storages (%d before), %d live bytes (%d), %d sources (%d); %s"):format(name, n, a, storages, b, live, c, sources, text))
    n = n + every * (sparse or 1)
  end
  assert(lr.scope(fn) == want, name .. ": another result afterwards")
  print(("%-36s %5d requests failed one by one%s: %d errors, %d without any effect, nothing alive"):format(
    name, failures + healed, all and ", with all after" or "", failures, healed))
  io.stdout:flush()
end

local wanted = {}
for i = 2, #arg do wanted[arg[i]] = true end
local bad = false
for _, name in ipairs(order) do
  if not next(wanted) or wanted[name] then
    for _, all in ipairs { false, true } do
      local ok, why = pcall(one, name, tonumber(arg[1]) or 1, all)
      C.meter_fail(0, 0)
      if not ok then
        bad = true
        print(("%-36s FAILED: %s"):format(name, tostring(why)))
      end
    end
  end
end
files.remove(folder)
os.exit(bad and 1 or 0)
