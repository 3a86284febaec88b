-- The LSTM autoencoder: encoder, latent, decoder over windows of features. Knows no joints, no threshold.
-- Source: LSTM encoder-decoder for anomalies: Malhotra et al. 2016.

local ffi = require "ffi"
local lr = require "libration"
local nn = require "libration.nn"

---@class Autoencoder: Module
local Autoencoder = nn.class "Autoencoder"

Autoencoder.TASKS = { "reconstruct", "reverse", "predict" }

local MOST_UNITS, MOST_LAYERS, MOST_INPUT = 4096, 8, 4096

---@class AutoencoderConfig
---@field input integer F numbers a frame
---@field window integer T frames
---@field hidden integer[] units of the encoder's LSTM layers; the decoder has them in reverse
---@field latent integer
---@field task string? "reconstruct" (also where it is missing), "reverse": the window backwards, "predict": its last third from the first two

local function whole(v, least, most)
  return type(v) == "number" and v % 1 == 0 and v >= least and v <= most
end

local function check(c, level)
  local function refuse(...) error("model: " .. string.format(...), level + 1) end
  if not whole(c.input, 1, MOST_INPUT) then refuse("input is %s, want 1 to %d numbers a frame", tostring(c.input), MOST_INPUT) end
  if not whole(c.window, 2, 4096) then refuse("window is %s, want 2 to 4096 frames", tostring(c.window)) end
  if not whole(c.latent, 1, MOST_UNITS) then refuse("latent is %s, want 1 to %d", tostring(c.latent), MOST_UNITS) end
  local known = c.task == nil
  for _, task in ipairs(Autoencoder.TASKS) do known = known or task == c.task end
  if not known then refuse("task is %q, want %s", tostring(c.task), table.concat(Autoencoder.TASKS, ", ")) end
  if c.task == "predict" and c.window < 3 then refuse("window is %d, want at least 3 frames to predict", c.window) end
  if type(c.hidden) ~= "table" or #c.hidden < 1 or #c.hidden > MOST_LAYERS then refuse("hidden wants 1 to %d layers", MOST_LAYERS) end
  for _, h in ipairs(c.hidden) do
    if not whole(h, 1, MOST_UNITS) then refuse("hidden holds %s, want 1 to %d units a layer", tostring(h), MOST_UNITS) end
  end
end

--- Builds the network with fresh weights (PyTorch's default initialisation).
---@param config table {input: F, window: T, hidden: units of the encoder's LSTM layers, default {128, 64}; latent: default 32;
--- task: default "reconstruct"; seed: starts the random numbers anew}
---@return Autoencoder
function Autoencoder.new(config)
  local c = { input = config.input, window = config.window, hidden = config.hidden or { 128, 64 }, latent = config.latent or 32, task = config.task }
  check(c, 2)
  if config.seed then nn.seed(config.seed) end
  local self = nn.create(Autoencoder)
  self.config, self.encoder, self.decoder = c, {}, {}
  local width = c.input
  for i, h in ipairs(c.hidden) do
    self.encoder[i] = self:child("encoder" .. i, nn.LSTM(width, h))
    width = h
  end
  self:child("latent", nn.Linear(width, c.latent))
  width = c.latent
  for i = #c.hidden, 1, -1 do
    self.decoder[#self.decoder + 1] = self:child("decoder" .. #self.decoder + 1, nn.LSTM(width, c.hidden[i]))
    width = c.hidden[i]
  end
  self:child("output", nn.Linear(width, c.input))
  return self
end

--- Rebuilds a network from the configuration in a file, for windows of F numbers and T frames; raises where they differ.
---@param config table
---@param F integer
---@param T integer
---@return Autoencoder
function Autoencoder.of_config(config, F, T)
  if config.input ~= F or config.window ~= T then
    error(("model: made for windows of %s x %s, the features have %d x %d"):format(tostring(config.window), tostring(config.input), T, F), 0)
  end
  check(config, 0)
  return Autoencoder.new { input = F, window = T, hidden = config.hidden, latent = config.latent, task = config.task }
end

--- First frame of a window, from 0, that the network must give and is scored on: 0, or two thirds of the window where it predicts.
---@return integer
function Autoencoder:scored_from()
  return self.config.task == "predict" and math.floor(self.config.window * 2 / 3) or 0
end

--- Chooses the operands of products while training: half precision accumulated in f32; weights, cell states and sums stay f32.
---@param dtype "f16"|"bf16"|nil nil: f32
---@return Autoencoder self
function Autoencoder:half(dtype)
  self.operands = dtype
  return self
end

--- What the network sees of windows: all frames, or where it predicts the first ones.
---@param x Tensor [B,T,F]
---@return Tensor a view
function Autoencoder:seen(x)
  local from = self:scored_from()
  return from > 0 and x:narrow(2, 1, from) or x
end

--- What the network must give for windows, in the order of its task.
---@param x Tensor [B,T,F]
---@return Tensor a view
function Autoencoder:wanted(x)
  if self.config.task == "reverse" then return x:flip(2) end
  local from = self:scored_from()
  return from > 0 and x:narrow(2, from + 1, self.config.window - from) or x
end

--- What the network gives for windows, in the order of its task.
---@param x Tensor f32 [B,T,F]; where it predicts the first frames alone
---@return Tensor f32 [B,T,F]; backwards in time with task reverse; the last frames alone where it predicts
function Autoencoder:forward(x)
  local y, last = self.training and self.operands and x:to(self.operands) or x, nil
  for _, layer in ipairs(self.encoder) do
    local states
    y, states = layer(y)
    last = states[1]
  end
  local z = self.latent(last)
  -- the decoder sees the latent at every step
  local from = self:scored_from()
  y = z:unsqueeze(2):expand(z:size(1), from > 0 and self.config.window - from or x:size(2), z:size(2))
  for _, layer in ipairs(self.decoder) do y = layer(y) end
  return self.output(y):to("f32")
end

--- Takes weights from a file: every one checked for name, shape and finite numbers before anything changes. Raises one line.
---@param state table<string, Tensor>
function Autoencoder:load_checked(state)
  for name, t in pairs(state) do
    if t.dtype ~= "f32" then error(("model: weight %s is %s, want f32"):format(name, t.dtype), 0) end
    t = t:contiguous()
    local values = t:ptr()
    for i = 0, t:numel() - 1 do
      if values[i] - values[i] ~= 0 then error(("model: weight %s holds %s"):format(name, tostring(values[i])), 0) end
    end
  end
  local ok, reason = pcall(self.load_state_dict, self, state)
  if not ok then error("model: " .. tostring(reason):gsub("^[^\n]-:%d+: ", ""):gsub("^load_state_dict: ", ""), 0) end
end

--- Reconstructs a batch outside of training, in the order of time whatever the task; frames before `scored_from` are the input's own.
---@param x ffi.cdata* float[n*T*F]
---@param n integer windows
---@return ffi.cdata* float[n*T*F], valid until the next call
function Autoencoder:reconstruct(x, n)
  local T, F = self.config.window, self.config.input
  local numbers = n * T * F
  if not self.room or self.room_size < numbers then
    self.room, self.room_size = ffi.new("float[?]", numbers), numbers
  end
  local from = self:scored_from()
  local seen, row = from > 0 and from or T, F * 4
  lr.scope(function()
    local input = lr.empty({ n, seen, F })
    local p = input:ptr()
    for k = 0, n - 1 do ffi.copy(p + k * seen * F, x + k * T * F, seen * row) end
    local y = lr.no_grad(function() return self(input:to(self:device())) end):to("cpu"):contiguous()
    local given = y:ptr()
    if from > 0 then
      for k = 0, n - 1 do
        ffi.copy(self.room + k * T * F, x + k * T * F, from * row)
        ffi.copy(self.room + (k * T + from) * F, given + k * (T - from) * F, (T - from) * row)
      end
    elseif self.config.task == "reverse" then
      for k = 0, n - 1 do
        for t = 0, T - 1 do ffi.copy(self.room + (k * T + t) * F, given + (k * T + T - 1 - t) * F, row) end
      end
    else
      ffi.copy(self.room, given, numbers * 4)
    end
  end)
  return self.room
end

return Autoencoder
