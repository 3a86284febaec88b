-- loader.lua: batches for training, gathered by C threads ahead of their use, in an order that depends on seed and epoch alone.
local ffi = require "ffi"
local core = require "libration.core"
local tensor = require "libration.tensor"

local C, check, raise = core.C, core.check, core.raise

---@class Loader
---@field count integer windows an epoch
---@field batches integer batches an epoch, the last one perhaps short
local Loader = {}
Loader.__index = Loader

local known = {streams = true, window = true, stride = true, windows = true, batch = true, workers = true, depth = true, shuffle = true, seed = true, device = true}

local function whole(options, name, default, least)
  local v = options[name]
  if v == nil then v = default end
  if type(v) ~= "number" or v < least or v ~= math.floor(v) then raise(("loader: %s is %s, want a whole number >= %d"):format(name, tostring(v), least)) end
  return v
end

-- Sizes of a frame and its bytes; every sequence of a stream must agree with the first.
local function frame_of(stream, s, T)
  local first = stream[1]
  for i, t in ipairs(stream) do
    if not tensor.is_tensor(t) then raise(("loader: stream %d, sequence %d is %s, want a tensor"):format(s, i, type(t))) end
    if t.device_ ~= 0 then raise(("loader: stream %d, sequence %d is on %s, want it on the cpu"):format(s, i, t.device)) end
    if t.ndim < 1 or not t:is_contiguous() then raise(("loader: stream %d, sequence %d is %s, want contiguous [frames,...]"):format(s, i, tensor.describe(t))) end
    local same = t.dtype_ == first.dtype_ and t.ndim == first.ndim
    for d = 1, t.ndim - 1 do same = same and t.shape_[d] == first.shape_[d] end
    if not same then raise(("loader: stream %d, sequence %d is %s, the first %s"):format(s, i, tensor.describe(t), tensor.describe(first))) end
  end
  local shape = T and {0, T} or {0}
  local bytes = C.lbr_dtype_size(first.dtype_)
  for d = 1, first.ndim - 1 do
    shape[#shape + 1] = first.shape_[d]
    bytes = bytes * first.shape_[d]
  end
  return shape, bytes
end

local function cut(frames, T, stride)
  local sequence, start = {}, {}
  for i, n in ipairs(frames) do
    for at = 0, n - T, stride do
      sequence[#sequence + 1], start[#start + 1] = i, at
    end
  end
  return {sequence = sequence, start = start}
end

--- A loader over sequences. Several streams (values, masks) are cut alike; each sample is [T,...], or one row [...] without `window`.
---@param options table
--- streams  Tensor[][]   streams of sequences [frames,...]; or Tensor[]: one sequence a stream; contiguous, any dtype
--- window   integer|nil  T frames a sample; nil: every row is a sample
--- stride   integer      1; frames between windows
--- windows  table|nil    instead of stride: {sequence = integer[] from 1, start = integer[] from 0} of each window
--- batch 32, workers 2 (0: in the calling thread), depth 4 batches ahead, shuffle true, seed 0
--- device   string|nil   where the batches go; the streams lie on the CPU. A batch of starts of windows is all that a step on a device needs
--- (motion.WindowReader has the windows there)
---@return Loader
function Loader.new(options)
  for key in pairs(options) do
    if not known[key] then raise("loader: no option '" .. tostring(key) .. "'") end
  end
  local T = options.window
  if T then whole(options, "window", nil, 1) end
  if type(options.streams) ~= "table" or #options.streams == 0 then raise "loader: no streams" end
  local streams = {}
  for s, stream in ipairs(options.streams) do streams[s] = tensor.is_tensor(stream) and {stream} or stream end
  local self = setmetatable({
    batch = whole(options, "batch", 32, 1), seed = options.seed or 0, shuffle = options.shuffle ~= false, streams = streams, outs = {},
    device = options.device or "cpu", sent = {},
  }, Loader)
  local workers = whole(options, "workers", 2, 0)
  local depth = math.max(whole(options, "depth", 4, 1), workers > 0 and 2 or 1)
  local sequences, frames = #streams[1], {}
  if sequences == 0 then raise "loader: no sequences" end
  local row_bytes, shapes = ffi.new("int64_t[?]", #streams), {}
  local data = ffi.new("const void *[?]", #streams * sequences)
  for s, stream in ipairs(streams) do
    if #stream ~= sequences then raise(("loader: stream %d has %d sequences, the first %d"):format(s, #stream, sequences)) end
    shapes[s], row_bytes[s - 1] = frame_of(stream, s, T)
    for i, t in ipairs(stream) do
      data[(s - 1) * sequences + i - 1] = t.data
      frames[i] = frames[i] or t.shape_[0]
      if t.shape_[0] ~= frames[i] then raise(("loader: sequence %d has %d frames in stream %d, %d in the first"):format(i, t.shape_[0], s, frames[i])) end
    end
  end
  local windows = options.windows or cut(frames, T or 1, whole(options, "stride", 1, 1))
  local n = #windows.start
  if n == 0 then raise(("loader: no windows: no sequence has %d frames"):format(T or 1)) end
  local sequence, start = ffi.new("int32_t[?]", n), ffi.new("int32_t[?]", n)
  for i = 1, n do
    sequence[i - 1], start[i - 1] = windows.sequence[i] - 1, windows.start[i]
  end
  local slots = ffi.new("void *[?]", depth * #streams)
  for k = 1, depth do
    self.outs[k] = {}
    for s, shape in ipairs(shapes) do
      shape[1] = math.min(self.batch, n)
      local out = tensor.unscoped(tensor.empty, shape, streams[s][1].dtype)
      self.outs[k][s] = out
      slots[(k - 1) * #streams + s - 1] = out.data
    end
  end
  local lengths = ffi.new("int32_t[?]", sequences)
  for i = 1, sequences do lengths[i - 1] = frames[i] end
  local o = ffi.new("lbr_loader_options", {
    streams = #streams, sequences = sequences, windows = n, window = T or 1, batch = self.batch, depth = depth, workers = workers, row_bytes = row_bytes,
    data = data, frames = lengths, sequence = sequence, start = start, slots = slots,
  })
  local out = ffi.new "lbr_loader *[1]"
  check(C.lbr_loader_new(o, out))
  -- The finalizer holds what the threads read and write, so that neither is freed before they end.
  local held = {self.outs, streams}
  self.loader = ffi.gc(out[0], function(handle)
    C.lbr_loader_free(handle)
    return held
  end)
  self.count, self.batches = n, math.ceil(n / self.batch)
  return self
end

-- A batch on the loader's device, in memory that every batch of its size reuses: what is queued there comes after the work on the one before.
local function sent(self, out, n)
  local there = self.sent[n]
  if not there then
    there = {}
    for s, t in ipairs(out) do there[s] = tensor.unscoped(tensor.empty, t.shape, t.dtype, self.device) end
    self.sent[n] = there
  end
  for s, t in ipairs(out) do check(C.lbr_transfer(t, there[s])) end
  return unpack(there)
end

--- Iterator over the batches of an epoch: `for i, x, mask in loader:epoch(e) do`. The tensors are valid until the next turn.
---@param epoch integer from 1; the same seed and epoch give the same order
---@param first integer|nil batch to begin with, from 1
---@return fun(): integer, Tensor ... position of the batch from 1, one tensor [B,T,...] a stream
function Loader:epoch(epoch, first)
  local i = (first or 1) - 1
  check(C.lbr_loader_start(self.loader, self.seed, epoch, self.shuffle and 1 or 0, i))
  local slot, count = ffi.new "int32_t[1]", ffi.new "int32_t[1]"
  return function()
    local rc = C.lbr_loader_next(self.loader, slot, count)
    if rc == C.LBR_EEND then return nil end
    check(rc)
    i = i + 1
    local out, n = self.outs[slot[0] + 1], count[0]
    for _, t in ipairs(out) do t:touch() end -- the threads wrote it
    if n < out[1].shape_[0] then
      local short = {}
      for s, t in ipairs(out) do short[s] = t:narrow(1, 1, n) end
      out = short
    end
    if self.device ~= "cpu" then return i, sent(self, out, n) end
    return i, unpack(out)
  end
end

--- Ends the threads now; the loader cannot be used afterwards.
function Loader:close()
  if not self.loader then return end
  C.lbr_loader_free(ffi.gc(self.loader, nil))
  self.loader = nil
end

return Loader
