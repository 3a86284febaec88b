-- random.lua: counter-based random numbers and what draws them. Keeps no generator: the same seed, stream and counter give the same numbers.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"

local raise = core.raise
local raw, rows = ops.raw, ops.rows
local none = {}

local function random(kind)
  return function(shape, options)
    options = options or none
    local attr = rows.random.attr()
    attr.seed, attr.stream, attr.kind = options.seed or 0, options.stream or 0, kind
    attr.low, attr.high = options.low or options.mean or 0, options.high or options.sd or 1
    local dims, n = tensor.dims(shape, "random")
    attr.dtype, attr.ndim = tensor.dtype_id(options.dtype), n
    for i = 0, n - 1 do attr.shape[i] = dims[i] end
    return raw.random(options.counter, attr)
  end
end

--- Uniform numbers in [low, high): uniform(shape, {seed=, stream=, low=0, high=1, dtype=, counter=i32 tensor [1]}).
--- The same seed, stream and counter give the same numbers anywhere. Source: Salmon et al., SC 2011 (Philox).
ops.uniform = random(0)
--- Normal numbers: randn(shape, {seed=, stream=, mean=0, sd=1, dtype=, counter=}). See uniform.
ops.randn = random(1)

--- Sets elements to 0 with probability p and scales the rest by 1 / (1 - p). counter: i32 [1], moved by the training step.
---@param options table {p=, seed=, stream=}
function ops.dropout(x, counter, options)
  local attr = rows.dropout.attr()
  if type(options) ~= "table" or type(options.p) ~= "number" then raise "dropout: want options {p = probability}" end
  attr.p, attr.seed, attr.stream = options.p, options.seed or 0, options.stream or 0
  return (raw.dropout(x, counter, attr))
end

return ops
