-- Campaigns of broken files: every reader of a file that a user may bring, a small valid file of its kind, and what reading a broken copy may cost.
-- Also a program: luajit tests/hostile.lua [COUNT [NAME...]] prints a line a kind; with tests/meter.c preloaded it also knows the largest malloc.
local bit = require "bit"
local ffi = require "ffi"
local here = ... == "hostile"
if not here then package.path = "lua/?.lua;lua/?/init.lua;tests/?.lua;" .. package.path end
local lr = require "libration"
local files = require "libration.files"
local mutate = require "mutate"
local reader = require "libration.formats.reader"

ffi.cdef [[
void *mmap(void *address, size_t bytes, int protection, int flags, int file, long offset);
int mprotect(void *address, size_t bytes, int protection);
size_t meter_take(void);
]]
local C, core = ffi.C, lr.core.C
local metered = pcall(function() return C.meter_take() end)

local M = {}

local ROOM, PAGE = 2 ^ 22, 65536 -- of a broken copy; at least any system's page
local guarded

---`bytes` where the byte after the last one cannot be read.
---@return ffi.cdata* unsigned char *; valid until the next call
function M.guard(bytes)
  if not guarded then
    local base = C.mmap(nil, ROOM + PAGE, 3, 0x22, -1, 0) -- PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
    assert(ffi.cast("intptr_t", base) ~= -1, "no memory")
    guarded = ffi.cast("unsigned char *", base) + ROOM
    assert(C.mprotect(guarded, PAGE, 0) == 0)
  end
  assert(#bytes <= ROOM)
  local at = guarded - #bytes
  ffi.copy(at, bytes, #bytes)
  return at
end

-- Reader over guarded bytes.
local function borrowed(bytes, parse)
  local out = ffi.new("lbr_reader *[1]")
  if core.lbr_reader_borrow("copy", M.guard(bytes), #bytes, out) < 0 then return nil, ffi.string(core.lbr_error()) end
  local r = setmetatable({ name = "copy", handle = ffi.gc(out[0], core.lbr_reader_close) }, getmetatable(reader.memory("x", "x")))
  local result, err = parse(r)
  r:close()
  return result, err
end

local folder -- for readers that want a path
local function at_path(name, read)
  return function(bytes)
    folder = folder or files.temporary_folder()
    local path = folder .. "/" .. name
    local file = assert(io.open(path, "wb")) -- without files.write's waiting for the disk
    file:write(bytes)
    file:close()
    return read(path)
  end
end

-- The bytes of a file that `write` makes.
local function made(name, write)
  return function()
    local scratch = files.temporary_folder()
    write(scratch .. "/" .. name)
    local bytes = assert(files.read(scratch .. "/" .. name))
    files.remove(scratch)
    return bytes
  end
end

local function picture(bytes)
  local lib = require "libration.media".library()
  local out, size = ffi.new("uint8_t *[1]"), ffi.new("int[2]")
  if lib.lbr_picture_parse("copy", M.guard(bytes), #bytes, out, size, size + 1) < 0 then return nil, ffi.string(core.lbr_error()) end
  local sum = 0
  for i = 0, size[0] * size[1] * 3 - 1, 97 do sum = sum + out[0][i] end
  lib.lbr_picture_free(out[0])
  return sum
end

-- CRC-32 of PNG's chunks, so that a broken copy gets past the first check.
local function crc(bytes)
  local c = -1
  for i = 1, #bytes do
    c = bit.bxor(c, bytes:byte(i))
    for _ = 1, 8 do c = bit.bxor(bit.rshift(c, 1), bit.band(-bit.band(c, 1), 0xedb88320)) end
  end
  c = bit.bnot(c)
  return string.char(bit.band(bit.rshift(c, 24), 255), bit.band(bit.rshift(c, 16), 255), bit.band(bit.rshift(c, 8), 255), bit.band(c, 255))
end

local function with_checksums(png)
  local at = 9
  while at + 11 <= #png do
    local a, b, c, d = png:byte(at, at + 3)
    local size = ((a * 256 + b) * 256 + c) * 256 + d
    local stop = at + 8 + size
    if stop + 3 > #png then break end
    png = png:sub(1, stop - 1) .. crc(png:sub(at + 4, stop - 1)) .. png:sub(stop + 4)
    at = stop + 4
  end
  return png
end

-- A raised error as nil and the error.
local function caught(read)
  return function(...)
    local ok, result, err = pcall(read, ...)
    if not ok then return nil, (tostring(result):gsub("^[^%s:]+%.lua:%d+: ", "")) end
    return result, err
  end
end

local function noise(width, height)
  local t, u = lr.empty({ height, width, 3 }, "u8"), 7
  for i = 0, width * height * 3 - 1 do
    u = u * 16807 % 2147483647
    t:ptr()[i] = u % 256
  end
  return t
end

-- A JPEG by FFmpeg's program; nil where it is missing.
local function jpeg(options)
  return function()
    local scratch = files.temporary_folder()
    require "libration.media".write_png(scratch .. "/a.png", noise(40, 24))
    os.execute(("ffmpeg -v quiet -i %s/a.png %s %s/a.jpg"):format(scratch, options, scratch))
    local bytes = files.read(scratch .. "/a.jpg")
    files.remove(scratch)
    return bytes
  end
end

-- A body that sways, as a sequence.
local function sequence(frames, phase)
  local points = lr.zeros { frames, 18, 3 }
  local p = points:ptr()
  for t = 0, frames - 1 do
    for j = 0, 17 do
      local at = (t * 18 + j) * 3
      p[at], p[at + 1], p[at + 2] = 160 + 20 * (j % 3) + 4 * math.sin(.21 * t + j + phase), 60 + 9 * j + 4 * math.cos(.17 * t + 2 * j + phase), .9
    end
  end
  return require "libration.motion".Sequence.new { points = points, id = "s" .. phase, fps = 25, width = 320, height = 240 }
end

local function detector(path)
  local anomaly, motion = require "libration.anomaly", require "libration.motion"
  local options = motion.options { window = 6, rate = 25 }
  local features = { (motion.prepare(sequence(24, 1), options)), (motion.prepare(sequence(24, 2), options)) }
  local windows = motion.windows(features, options)
  local d = anomaly.detector.new {
    model = anomaly.autoencoder.new { input = windows:width(true), window = 6, hidden = { 4 }, latent = 2, seed = 1 }, motion = options, skeleton = "openpose18",
    joints = features[1].track.names, normaliser = windows:fit_normaliser(), training = { sequences = { { id = "a" } }, population = "two" }, about = {},
  }
  d.pca = anomaly.baselines.fit(windows, d.normaliser, 2)
  local scored = {}
  for i, f in ipairs(features) do scored[i] = anomaly.scores.of_sequence(motion.windows({ f }, options), 1, d:scorer(), "a" .. i) end
  d.calibration = anomaly.thresholds.calibrate(scored, 95, anomaly.scores.explained(scored))
  d:save(path)
end

local function run_of(path)
  local nn, optim = require "libration.nn", require "libration.optim"
  nn.seed(1)
  local model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
  return { model = model, optimizer = optim.AdamW(model, { rate = .01 }), schedule = optim.schedule.constant(.01), about = "a=1", path = path }
end

local function remembered(path)
  local t, safetensors = 5, require "libration.formats.safetensors"
  local times, jumps = lr.arange(t, "f64"), lr.tensor({ { 2, 1, 30 } }, "f64")
  safetensors.save(path, { landmarks = lr.zeros { t, 33, 5 }, world = lr.zeros { t, 33, 3 }, times = times, jumps = jumps },
    { found = "5", width = "320", height = "240", fps = "25", warning = "" })
end

local JOINTS = { joints = { "nose", "hip" }, channels = { "x", "y", "score" }, times = { 0, .04, .08, .12 } }

-- A network up to its plan: lowered by shapes alone, and run on zeros where that costs little.
local function lowered(network)
  local g = network.graph
  if not g then return true end -- its file leaves too much open
  local inputs, cost, lower, tensor = {}, 0, require "libration.graph.lower", require "libration.tensor"
  for i, v in ipairs(g.inputs) do
    local n = reader.count_of(v.shape)
    if not n then return nil, "an input without a size" end
    inputs[i], cost = v, cost + n
  end
  for _, node in ipairs(g.nodes) do
    for _, v in ipairs(node.outputs) do cost = cost + (v.shape and reader.count_of(v.shape) or math.huge) end
  end
  local function zeros(dry)
    local before = core.lbr_dry_run(dry)
    local ok, why = pcall(tensor.scope, function()
      local x = {}
      for i, v in ipairs(inputs) do x[i] = tensor.full(v.shape, 0, v.dtype or "f32") end
      lower.run(g, x)
    end)
    core.lbr_dry_run(before)
    if not ok then return nil, reader.one_line(why) end
    return true
  end
  local ok, why = zeros(1)
  if ok and cost < 20000 then ok, why = zeros(0) end
  return ok, why
end

-- A plan file opened, and run on zeros.
local function plan_run(bytes)
  local lender, out = ffi.new("lbr_reader *[1]"), ffi.new("lbr_plan *[1]")
  if core.lbr_reader_borrow("copy", M.guard(bytes), #bytes, lender) < 0 or core.lbr_plan_read(lender[0], out) < 0 then return nil, ffi.string(core.lbr_error()) end
  local plan, value, all = ffi.gc(out[0], core.lbr_plan_free), ffi.new("lbr_plan_value"), {}
  local function buffers(count, describe)
    local list = ffi.new("void *[?]", count + 1)
    for i = 0, count - 1 do
      assert(describe(plan, i, value) == 0)
      all[#all + 1] = ffi.new("char[?]", value.bytes + 1)
      list[i] = all[#all]
    end
    return list
  end
  local inputs = buffers(core.lbr_plan_inputs(plan), core.lbr_plan_input)
  local rc = core.lbr_plan_apply(plan, ffi.cast("const void *const *", inputs), buffers(core.lbr_plan_outputs(plan), core.lbr_plan_output))
  local why = rc < 0 and ffi.string(core.lbr_error())
  core.lbr_plan_free(ffi.gc(plan, nil))
  if why then return nil, why end
  return true
end

---@class HostileKind
---@field runs boolean? a network, whose own sizes say what a run takes
---@field name string
---@field bytes fun(): string?  a small valid file; nil where it cannot be made here
---@field read fun(bytes: string): any, string?  a result, or nil and one line
M.kinds = {
  { name = "safetensors", bytes = made("a.safetensors", function(path)
    require "libration.formats.safetensors".save(path, { a = lr.arange(64):reshape(8, 8), b = lr.tensor({ 1, 2, 3 }, "u8") }, { k = "v" })
  end), read = function(bytes) return borrowed(bytes, require "libration.formats.safetensors".load) end },
  { name = "npy", bytes = made("a.npy", function(path) require "libration.formats.npy".save(path, lr.arange(60):reshape(5, 4, 3)) end),
    read = function(bytes) return borrowed(bytes, require "libration.formats.npy".load) end },
  { name = "TFLite", bytes = function() return require "helper_tflite".small() end, read = function(bytes)
    local model, err = borrowed(bytes, require "libration.formats.tflite".load)
    if not model then return nil, err end
    local g
    g, err = require "libration.graph.tflite".import(model)
    if not g then return nil, err end
    local network
    network, err = require "libration.graph".compile(g)
    if not network then return nil, err end
    return lowered(network)
  end, runs = true },
  { name = "ONNX", bytes = function() return require "helper_onnx".small() end, read = function(bytes)
    local model, err = borrowed(bytes, require "libration.formats.onnx".load)
    if not model then return nil, err end
    local network
    network, err = require "libration.graph.specialise".new(model, { shapes = { x = { 1, 2, 6, 5 } } }, function() end)
    if not network then return nil, err end
    return lowered(network)
  end, runs = true },
  { name = "plan", bytes = made("a.plan", function(path)
    files.write(path .. ".onnx", require "helper_onnx".small())
    local network = assert(require "libration.graph".load(path .. ".onnx"))
    network:plan(lr.zeros { 1, 2, 6, 5 }):save(path)
  end), read = plan_run, runs = true },
  { name = "plan of other ops", bytes = made("a.plan", function(path)
    local base, index = lr.randn({ 5, 4 }, { seed = 1 }), lr.tensor({ 4, 0, 2 }, "i32")
    local f = lr.record(function(x)
      local y = lr.concat({ x, lr.gather(base, index, 1) }, 1)
      local best, at = lr.topk(y, 2, 2)
      return lr.matmul(lr.softmax(y), base:transpose(1, 2)), best, at, y:narrow(2, 2, 2):sum(), lr.where(y:lt(lr.tensor(0)), y, lr.square(y)):to "u8"
    end)
    f:plan(lr.zeros { 2, 4 }):save(path)
  end), read = plan_run, runs = true },
  { name = "PNG", bytes = made("a.png", function(path) require "libration.media".write_png(path, noise(40, 24)) end), read = picture },
  { name = "PNG with right checksums", bytes = made("a.png", function(path) require "libration.media".write_png(path, noise(40, 24)) end),
    read = function(bytes) return picture(with_checksums(bytes)) end },
  { name = "JPEG", bytes = jpeg "-q:v 2 -pix_fmt yuvj444p", read = picture },
  { name = "CSV", bytes = made("a.csv", function(path) require "libration.formats.csv".save_landmarks(path, lr.randn({ 4, 2, 3 }, { seed = 1 }), JOINTS) end),
    read = at_path("a.csv", function(path) return require "libration.formats.csv".load_landmarks(path) end) },
  { name = "DeepLabCut CSV", bytes = made("a.csv", function(path) require "libration.formats.dlc".save(path, lr.randn({ 4, 2, 3 }, { seed = 1 }), JOINTS) end),
    read = at_path("a.csv", function(path) return require "libration.formats.dlc".load(path) end) },
  { name = "TRC", bytes = made("a.trc", function(path)
    local w = require "libration.formats.trc".writer(path, { joints = JOINTS.joints, channels = 3, units = "px", height = 100 })
    for t = 0, 3 do w:append(ffi.new("float[6]", { 1, 2, 3, 4.5, t, 6 }), t / 25) end
    w:close(25)
  end), read = at_path("a.trc", function(path) return require "libration.formats.trc".load(path) end) },
  { name = "labels CSV", bytes = function() return "sequence,label,subject,age_weeks\n01,0,anna,12\n02,1,\"b,c\",14.5\n03,normal,carl,9\n" end,
    read = at_path("labels.csv", function(path)
      files.mkdirs(files.folder(path) .. "/01/rgb")
      return require "libration.data.dataset".open(files.folder(path), { kind = "frames", labels = path })
    end) },
  { name = "OpenPose JSON", bytes = made("a.json", function(path)
    require "libration.formats.openpose".save(path, lr.randn({ 3, 4, 3 }, { seed = 2 }):abs(), { times = { 0, 1, 2 } })
  end),
    read = at_path("a.json", function(path) return require "libration.formats.openpose".load(path) end) },
  { name = "landmark file as a sequence", bytes = made("a.json", function(path)
    require "libration.formats.openpose".save(path, lr.randn({ 4, 18, 3 }, { seed = 2 }):abs())
  end), read = at_path("b.json", function(path) return require "libration.data.dataset".read_landmarks(path) end) },
  { name = "YAML options", bytes = function()
    return "# a run\ntrain: 1-8\nhidden: [128, 64]\nrate: 2.5e-3\nname: \"a \\\"b\\\"\"\nlist:\n  - one\n  - 'it''s'\nmask: true\n"
  end, read = at_path("a.yaml", function(path) return require "libration.config".read(path) end) },
  { name = "Lua options", bytes = function()
    return "return {\n  train = \"1-8\", hidden = {128, 64}, -- two\n  rate = 2.5e-3, mask = true, name = [[a]] .. 'b',\n  n = 3 * 4 + 2 ^ 3,\n}\n"
  end, read = at_path("a.lua", function(path) return require "libration.config".read(path) end) },
  { name = "detector", bytes = made("d.safetensors", detector), read = at_path("d.safetensors", function(path)
    local d, err = require "libration.anomaly.detector".load(path)
    if not d then return nil, err end
    local ok, scored = pcall(d.score, d, sequence(12, 3))
    if not ok then return nil, (tostring(scored):gsub("^[^%s:]+%.lua:%d+: ", "")) end
    return d:judge(scored)
  end) },
  { name = "checkpoint", bytes = made("c.safetensors", function(path)
    local run = run_of(path)
    run.history, run.numbers = { train = { 1, 2 } }, { epoch = 2 }
    require "libration.train.checkpoint".save(path, run)
  end), read = at_path("c.safetensors", caught(function(path) return require "libration.train.checkpoint".load(path, run_of(path)) end)) },
  { name = "remembered landmarks", bytes = made("r.safetensors", remembered), read = at_path("r.safetensors", function(path)
    local r = require "libration.pose.extract".remembered(path)
    if not r then return nil, "not whole" end
    return require "libration.motion".Sequence.new { points = r.landmarks, id = "r", skeleton = "blazepose33", fps = 25, times = r.times }
  end) },
}

---Largest piece of memory that reading a file of so many bytes may ask for: 16 x the file, and what a decoder takes for any file (windows, tables) or a small network's run.
function M.limit(bytes, kind) return 16 * bytes + (kind.runs and 2 ^ 20 or 65536) end

---Reads `count` broken copies of a kind's file. Raises where one crashes Lua, raises, takes a second or too much memory, or where an error is not one line.
---@param kind HostileKind
---@param count integer
---@param seed? integer
---@return table? {bytes=, tried=, refused=, largest= bytes by malloc (nil without the meter), tensors= bytes at once, slowest= seconds}; nil: no file of this kind here
function M.run(kind, count, seed)
  local valid = kind.bytes()
  if not valid then return nil end
  local result, why = kind.read(valid)
  if not result then error(("%s: the whole file is refused: %s"):format(kind.name, tostring(why)), 0) end
  local limit = M.limit(#valid, kind)
  local sum = { bytes = #valid, tried = count, largest = metered and 0 or nil, tensors = 0, slowest = 0 }
  sum.refused = mutate.survive(valid, count, function(copy)
    if copy == "" then return nil, "empty" end
    if metered then C.meter_take() end
    core.lbr_memory_reset_peak(0)
    local before, clock = tonumber(core.lbr_memory_live(0)), os.clock()
    local read, err = kind.read(copy)
    local seconds, tensors = os.clock() - clock, tonumber(core.lbr_memory_peak(0)) - before
    local largest = metered and tonumber(C.meter_take()) or 0
    sum.slowest, sum.tensors = math.max(sum.slowest, seconds), math.max(sum.tensors, tensors)
    if metered then sum.largest = math.max(sum.largest, largest) end
    if seconds > 1 or tensors > limit or largest > limit then
      local kept = os.tmpname()
      files.write(kept, copy)
      error(("%s: %.2f s, %d bytes of tensors, malloc of %d for a file of %d: %s"):format(kind.name, seconds, tensors, largest, #copy, kept), 0)
    end
    return read, err
  end, seed)
  collectgarbage()
  if folder then files.remove(folder) end
  folder = nil
  return sum
end

if not here then
  local wanted, count = {}, tonumber(arg[1]) or 100
  for i = 2, #arg do wanted[arg[i]] = true end
  local failed = false
  for _, kind in ipairs(M.kinds) do
    if not next(wanted) or wanted[kind.name] then
      local ok, s = pcall(M.run, kind, count)
      if not ok then
        failed = true
        print(("%-28s FAILED: %s"):format(kind.name, tostring(s)))
      elseif s then
        print(("%-28s %5d bytes, %5d copies, %5d refused, slowest %.0f ms, tensors %d bytes at once%s"):format(
          kind.name, s.bytes, s.tried, s.refused, 1e3 * s.slowest, s.tensors, s.largest and (", largest malloc %d bytes of %d"):format(s.largest, M.limit(s.bytes, kind)) or ""))
      else
        print(("%-28s not made here"):format(kind.name))
      end
      io.stdout:flush()
    end
  end
  os.exit(failed and 1 or 0)
end

return M
