-- op_cases.lua: random valid arguments of every row of ops.def, seeded, and running one: for the specs that hold kernels against each other. Judges nothing.
local ffi = require "ffi"
local lr = require "libration"
local ops = require "libration.ops"

local tensor = require "libration.tensor"
local raw, rows, C = ops.raw, ops.rows, lr.core.C

local cases = {rows = rows}

---------------------------------------------------------------------------------------------------- random things

local state

--- From here on the numbers that follow from seed and name.
function cases.seed(seed, name)
  state = seed
  for i = 1, #name do state = (state * 31 + name:byte(i)) % 2 ^ 31 end
  for _ = 1, 5 do cases.int(0, 1) end
end

--- A whole number of low .. high.
function cases.int(low, high)
  state = (state * 1103515245 + 12345) % 2 ^ 31
  return low + math.floor(state / 2 ^ 31 * (high - low + 1))
end
local int = cases.int
local function pick(list) return list[int(1, #list)] end
local function chance(p) return int(1, 1000) <= p * 1000 end
cases.pick, cases.chance = pick, chance

local USUAL, LARGE = {0, 1, 1, 2, 3, 4, 5, 7, 17}, {1, 3, 33, 64, 70, 130}
local drawn = USUAL

--- Sizes from here on: of single elements, or beyond the tiles of kernels (in few dims).
function cases.large(on) drawn = on and LARGE or USUAL end

local function size(least)
  local n = pick(drawn)
  return n < (least or 0) and least or n
end
local function shape(low, high, least)
  local s = {}
  if drawn == LARGE then low, high = math.max(low, 1), math.max(low, math.min(high, 2)) end
  for i = 1, int(low, high) do s[i] = size(least) end
  return s
end
cases.shape = shape

-- The values of t behind other strides: permuted in memory, or inside of something larger.
local function disguise(t)
  local n = t:dim()
  if n == 0 or chance(.3) then return t end
  if chance(.5) then
    local order, inverse, sizes = {}, {}, {}
    for i = 1, n do table.insert(order, int(1, i), i) end
    for i = 1, n do sizes[i], inverse[order[i]] = t:size(order[i]), i end
    return lr.empty(sizes, t.dtype):permute(inverse):copy_(t)
  end
  local sizes, first = t.shape, {}
  for i = 1, n do
    first[i] = int(1, 3)
    sizes[i] = sizes[i] + first[i] + int(0, 2)
  end
  local v = lr.full(sizes, 1e30, t.dtype)
  for i = 1, n do v = v:narrow(i, first[i], t:size(i)) end
  return v:copy_(t)
end

local function F(s, low, high)
  local own = {}
  for i = 1, #s do own[i] = chance(.1) and s[i] > 0 and 1 or s[i] end -- some dims repeat one value
  return disguise(lr.uniform(own, {seed = int(0, 1e6), low = low or -1, high = high or 1})):expand(s)
end
local function I(s, low, high)
  local t = lr.empty(s, "i32")
  for i = 0, t:numel() - 1 do t:ptr()[i] = int(low, high) end
  return disguise(t)
end
-- Broadcasts to s: some dims 1, some leading ones gone.
local function part(s)
  local out = {}
  for i = chance(.3) and int(1, #s + 1) or 1, #s do out[#out + 1] = chance(.3) and 1 or s[i] end
  return out
end

---------------------------------------------------------------------------------------------------- a valid case of every op

--- cases.of[op]() -> inputs, attributes, outputs of ops in place
local case = {}
cases.of = case

for _, name in ipairs {"add", "sub", "mul", "maximum", "minimum", "eq", "ne", "lt", "le", "gelu_backward"} do
  case[name] = function()
    local s = shape(0, 5)
    return chance(.5) and {F(part(s)), F(s)} or {F(s), F(part(s))}
  end
end
case.div = function() local s = shape(0, 4) return {F(s), F(part(s), .5, 2)} end
case.pow = function() local s = shape(0, 4) return {F(s, .5, 2), F(part(s))} end
case.prelu = function() local s = shape(0, 4) return {F(s), F(part(s))} end
case.where = function() local s = shape(0, 4) return {I(part(s), 0, 1):to("u8"), F(s), F(part(s))} end
for _, name in ipairs {"neg", "abs", "sign", "exp", "square", "sin", "cos", "sigmoid", "tanh", "relu", "gelu", "silu", "isnan", "copy", "softmax", "log_softmax"} do
  case[name] = function() return {F(shape(0, 6), -3, 3)} end
end
for _, name in ipairs {"log", "sqrt", "reciprocal"} do case[name] = function() return {F(shape(0, 5), .3, 3)} end end
case.unary = function() return {F(shape(0, 5), -.9, .9)}, {kind = int(0, C.LBR_UNARIES - 1), p = .4, q = .6} end
case.binary = function() -- bits are refused of floating point numbers
  local s = shape(0, 4)
  return {F(s), F(part(s), .5, 2)}, {kind = int(0, 1)}
end
case.affine = function() return {F(shape(0, 5))}, {scale = int(-8, 8) / 4, shift = int(-8, 8) / 4} end
case.clamp = function() return {F(shape(0, 5))}, {low = -.5, high = .25} end
case.to_bytes = function() return {F(shape(0, 5), -300, 300)}, {scale = int(-8, 8) / 4, shift = int(-8, 8) / 4} end
case.cast = function() return {F(shape(0, 5), -300, 300)}, {dtype = pick {2, 3, 4, 5}} end
case.copy_into = function() local s = shape(0, 5) return {F(part(s))}, nil, {disguise(F(s):clone())} end
case.fill = function()
  local s = shape(0, 5)
  return {}, {value = .5, dtype = 0, ndim = #s, shape = s}
end
case.fill_into = function() return {}, {value = .5}, {disguise(F(shape(0, 5)):clone())} end
case.add_into = function() local s = shape(0, 5) return {F(s)}, {scale = .5}, {F(s):clone()} end
case.square_sum_into = function() return {F(shape(0, 4))}, nil, {lr.zeros({1}, "f64")} end
for _, name in ipairs {"sum", "mean", "max", "min", "prod"} do
  case[name] = function()
    local s = shape(0, 5, name ~= "sum" and 1 or 0)
    return {F(s)}, {dims = int(0, 2 ^ #s - 1), keep = int(0, 1)}
  end
end
for _, name in ipairs {"cumsum", "cumprod"} do
  case[name] = function() local s = shape(1, 5) return {F(s)}, {dim = int(0, #s - 1), exclusive = int(0, 1), reverse = int(0, 1)} end
end
case.argmax = function() local s = shape(1, 5, 1) return {F(s)}, {dim = int(0, #s - 1), keep = int(0, 1)} end
case.matmul = function()
  local ta, tb, m, k, n, lead = int(0, 1), int(0, 1), size(), size(), size(), drawn == LARGE and {} or shape(0, 3)
  local a, b = {unpack(lead)}, {}
  if #lead == 0 or ta == 1 or chance(.5) then b = {unpack(lead)} end
  a[#a + 1], a[#a + 2] = ta == 1 and k or m, ta == 1 and m or k
  b[#b + 1], b[#b + 2] = tb == 1 and n or k, tb == 1 and k or n
  return {F(a), F(b)}, {ta = ta, tb = tb}
end
case.linear = function()
  local s, o = shape(1, 4), size()
  return {F(s), F {o, s[#s]}, chance(.5) and F {o} or nil}, {act = pick {0, 1, 2, 4, 5, 6, 7, 8, 9, 10}}
end

local function window(depthwise)
  local large = drawn == LARGE
  local g = not depthwise and pick {1, 1, 2, 3} or 1
  local inputs, outputs = g * pick(large and {8, 20, 33} or {0, 1, 2, 5}), g * pick(large and {16, 36, 65} or {1, 2, 5, 16})
  local w = {B = int(0, 3), H = int(5, 9), W = int(5, 9), I = inputs, O = outputs, k = {int(1, 3), int(1, 3)}, g = g,
    attr = {stride = {int(1, 3), int(1, 3)}, pad = {int(0, 2), int(0, 2), int(0, 2), int(0, 2)}, dilation = {int(1, 2), int(1, 2)}}}
  if depthwise then w.I = pick(large and {32, 72} or {0, 1, 3, 16}) w.O = w.I end
  local a, x = w.attr, {w.H, w.W}
  w.x, w.y = {w.B, w.H, w.W, w.I}, {w.B, 0, 0, w.O}
  for i = 1, 2 do w.y[i + 1] = math.floor((x[i] + a.pad[2 * i - 1] + a.pad[2 * i] - a.dilation[i] * (w.k[i] - 1) - 1) / a.stride[i]) + 1 end
  w.w = depthwise and {w.k[1], w.k[2], w.I} or {w.O, w.k[1], w.k[2], w.I / g}
  if not depthwise then a.groups = g end
  return w
end
for _, name in ipairs {"conv2d", "depthwise"} do
  case[name] = function()
    local w, act = window(name == "depthwise"), chance(.5) and int(0, 3) or int(4, C.LBR_ACTS - 1)
    w.attr.act = act
    if name == "conv2d" then w.attr.loose = int(0, 1) end
    return {F(w.x), F(w.w), chance(.5) and F {w.O} or nil, chance(.3) and F(w.y) or nil, act == 3 and F {w.O} or nil}, w.attr
  end
  case[name .. "_backward_input"] = function()
    local w = window(name == "depthwise")
    w.attr.size = {w.H, w.W}
    return {F(w.y), F(w.w)}, w.attr
  end
  case[name .. "_backward_weight"] = function()
    local w = window(name == "depthwise")
    w.attr.kernel = w.k
    return {F(w.y), F(w.x)}, w.attr
  end
end
case.conv2d_int8 = function()
  local w = window()
  local a, bytes = w.attr, function(s) return I(s, 0, 255):to "u8" end
  a.groups, w.w[4] = nil, w.I
  a.act, a.late, a.x_zero, a.x_scale = pick {0, 1, 2, 4, 5, 6}, int(0, 1), int(0, 255), .01
  a.r_zero, a.r_scale = int(0, 255), .02 -- bytes out may differ by one from processor to processor: their spec is of its own
  return {bytes(w.x), F(w.w), chance(.5) and F {w.O} or nil, chance(.3) and bytes(w.y) or nil}, a
end
for _, name in ipairs {"max_pool2d", "avg_pool2d"} do
  local function pool()
    local k = {int(1, 3), int(1, 3)}
    local p = {int(0, k[1] - 1), int(0, k[1] - 1), int(0, k[2] - 1), int(0, k[2] - 1)}
    local a, x, y = {kernel = k, stride = {int(1, 3), int(1, 3)}, pad = p}, {int(0, 3), int(3, 8), int(3, 8), size()}, {}
    y[1], y[4] = x[1], x[4]
    for i = 1, 2 do y[i + 1] = math.floor((x[i + 1] + p[2 * i - 1] + p[2 * i] - k[i]) / a.stride[i]) + 1 end
    return a, x, y
  end
  case[name] = function() local a, x = pool() return {F(x)}, a end
  case[name .. "_backward"] = function() local a, x, y = pool() return {F(y), F(x)}, a end
end
for _, name in ipairs {"resize_bilinear", "resize_bilinear_backward"} do
  case[name] = function() return {F {int(0, 2), int(1, 6), int(1, 6), size()}}, {size = {int(1, 9), int(1, 9)}, align_corners = int(0, 1), half_pixel = int(0, 1)} end
end
case.depth_to_space = function() local r = int(1, 3) return {F {int(0, 2), size(), size(), r * r * int(0, 3)}}, {block = r} end
case.pad = function()
  local s, a = shape(0, 5), {before = {}, after = {}, value = .5}
  for i = 1, #s do a.before[i], a.after[i] = int(0, 2), int(0, 2) end
  return {F(s)}, a
end
case.concat = function()
  local s, list = shape(1, 4), {}
  local d = int(1, #s)
  for i = 1, int(1, 8) do
    local own = {unpack(s)}
    own[d] = size()
    list[i] = F(own)
  end
  return list, {dim = d - 1}
end
case.gather = function()
  local s = shape(1, 3, 1)
  local d = int(1, #s)
  return {F(s), I(shape(0, 3), 0, s[d] - 1)}, {dim = d - 1}
end
case.gather_backward = function()
  local index, n, s = shape(0, 3), int(1, 9), shape(0, 2)
  local d, dy = int(0, #s), {}
  for i = 1, d do dy[i] = s[i] end
  for i = 1, #index do dy[#dy + 1] = index[i] end
  for i = d + 1, #s do dy[#dy + 1] = s[i] end
  return {F(dy), I(index, 0, n - 1)}, {rows = n, dim = d}
end
local function elements()
  local s, own = shape(1, 4, 1), {}
  local d = int(1, #s)
  for i = 1, #s do own[i] = i == d and size() or int(0, s[i]) end
  return s, own, d
end
case.gather_elements = function()
  local s, own, d = elements()
  return {F(s), I(own, 0, s[d] - 1)}, {dim = d - 1}
end
case.scatter_elements = function()
  local s, own, d = elements()
  return {F(s), I(own, 0, s[d] - 1), F(own)}, {dim = d - 1, kind = int(0, 4)}
end
case.topk = function()
  local s = shape(1, 4)
  local d = int(1, #s)
  return {F(s)}, {dim = d - 1, k = int(0, s[d]), largest = int(0, 1)}
end
case.nonzero = function() return {F(shape(0, 4)):relu()} end
case.nms = function()
  local B, N = int(0, 2), size()
  return {F({B, N, 4}, 0, 1), F {B, int(0, 3), N}}, {iou = int(0, 10) / 10, score = -.5, most = int(0, 9), centre = int(0, 1)}
end
case.ssd_detections = function()
  local B, N, K = int(0, 2), size(), 4 + 2 * int(0, 3)
  return {F({B, N, K}, -20, 40), F(chance(.5) and {B, N} or {B, N, 1}, -3, 3), F({N, 2}, 0, 1)}, {least = .3, iou = int(0, 10) / 10, size = 64, most = int(1, 9)}
end
case.windows = function()
  local groups, per, T, n = int(1, 5), int(1, 3), int(1, 6), int(0, 4)
  local total, D = T + int(0, 9), groups * per
  local x = lr.randn({total, D}, {seed = int(0, 1e6)}):to "f64"
  for _ = 1, total * D / 10 do x:set(0 / 0, int(1, total), int(1, D)) end
  return {x, I({n}, 0, total - T), lr.randn({D}, {seed = int(0, 1e6)}):to "f64", lr.uniform({D}, {seed = int(0, 1e6), low = .5}):to "f64",
    chance(.5) and lr.uniform({groups}, {seed = int(0, 1e6)}):to "f64" or nil}, {window = T, groups = groups, mask = int(0, 1), centre = int(0, 2)}
end
case.crop = function()
  local regions, n = lr.empty({int(0, 3), 5}), pick {4, 31}
  for i = 0, regions:size(1) - 1 do
    local p = regions:ptr() + 5 * i
    p[0], p[1], p[2], p[3], p[4] = int(-5, n), int(-5, 20), int(1, 300) / 7, int(1, 300) / 7, int(-40, 40) / 11
  end
  local h, w = int(1, 20), int(1, n)
  return {I({h, w, 3}, 0, 255):to("u8"), regions},
    {size = {int(1, 20), int(1, drawn == LARGE and 140 or 30)}, border = int(0, 1), rim = chance(.5) and int(0, math.min(h, w)) or 0, scale = 2, shift = -1}
end
case.place_points = function()
  local B, M = int(0, 3), int(1, 9)
  return {F({B, 5 * M}, -3, 40), F({B, int(1, 9), int(1, 9), M}, -3, 3), F {B, M, 3}, F({B, 5}, .1, 2)},
    {n = int(1, M), width = int(1, 300), height = int(1, 300), size = 32, kernel = 2 * int(0, 7) + 1, least = .5}
end
case.follow_points = function()
  local n = pick {1, 5, 70}
  local function at(...) return lr.tensor({...}, "f64") end
  return {F({n + 2, 8}, 0, 1), F({1}, .3, 1), at(pick {1, 2})}, {width = 30, height = 20, follow = int(0, 1), smooth = int(0, 1), filters = {.05, 80, .01, 10, .1, 40}, alpha = .1},
    {F({2, 5}):clone(), F({19 * n + 12}):clone(), at(pick {5e8, 0 / 0}, pick {1.9e9, 0 / 0}, pick {5e8, 0 / 0}, pick {1, 0 / 0}), F({n + 2, 8}):clone()}
end
for _, name in ipairs {"softmax_backward", "log_softmax_backward"} do case[name] = function() local s = shape(0, 4) return {F(s), F(s, 0, 1)} end end
case.layer_norm = function() local s = shape(1, 4, 1) return {F(s), chance(.5) and F {s[#s]} or nil, chance(.5) and F {s[#s]} or nil}, {eps = 1e-3} end
case.layer_norm_backward = function()
  local s = shape(1, 4)
  s[#s] = math.max(s[#s], 1)
  local lead = {unpack(s, 1, #s - 1)}
  return {F(s), F(s), F(lead), F(lead), chance(.5) and F {s[#s]} or nil}
end
case.batch_norm = function()
  local s = shape(2, 4, 1)
  s[1] = s[1] + 1
  local c = {s[#s]}
  return {F(s), F(c), F(c), F(c):clone(), F(c, .5, 1):clone()}, {eps = 1e-3, momentum = .1, training = int(0, 1)}
end
case.batch_norm_backward = function()
  local s = shape(2, 4)
  s[#s] = math.max(s[#s], 1)
  local c = {s[#s]}
  return {F(s), F(s), F(c), F(c), F(c)}, {training = int(0, 1)}
end
case.lstm_forward = function()
  local B, T, N, H = int(0, 5), int(1, 6), size(), size(1)
  local x = chance(.3) and T > 1 and N > 0 and F({B + T, N}):contiguous():unfold(T, int(1, 3)) or F {B, T, N}
  B = x:size(1)
  return {x, F {4 * H, N}, F {4 * H, H}, F {4 * H}, chance(.5) and F {B, H} or nil, chance(.5) and F {B, H} or nil}, {save = int(0, 1)}
end
case.lstm_backward = function()
  local B, T, N, H = int(0, 5), int(1, 6), size(), size(1)
  local function some(s) return chance(.6) and F(s) or nil end
  return {F {B, T, N}, F {4 * H, N}, F {4 * H, H}, some {B, H}, some {B, H}, F {B, T, H}, F({T, B, 4 * H}, 0, 1), F {T, B, H}, some {B, T, H}, some {B, H}, some {B, H}},
    {need_dx = int(0, 1)}
end
case.loss = function() local s = shape(0, 4) return {F(s), F(s), chance(.5) and F(s, -1, 1):relu() or nil}, {kind = int(0, 2), delta = .3} end
case.loss_backward = function()
  local s = shape(0, 4)
  return {F {}, F(s), F(s), chance(.5) and F(s, -1, 1):relu() or nil, lr.full({}, .25, "f64")}, {kind = int(0, 2), delta = .3}
end
case.cross_entropy = function() local n, c = size(), size(1) return {F({n, c}, -3, 3), I({n}, -1, c - 1)} end
case.cross_entropy_backward = function() local n, c = size(), size(1) return {F {}, F({n, c}, 0, 1), I({n}, -1, c - 1)} end
case.random = function()
  local s = shape(0, 5)
  return {chance(.5) and I({1}, 0, 9) or nil}, {seed = int(0, 99), stream = int(0, 9), kind = int(0, 1), low = -1, high = 1, dtype = 0, ndim = #s, shape = s}
end
case.dropout = function() return {F(shape(0, 5)), I({1}, 0, 9)}, {seed = int(0, 99), stream = 1, p = .3} end
local function control() return lr.tensor({.01, int(1, 9), pick {.25, 1, 8}, 0, 1, 0, 0, 0}, "f64") end
case.tally = function() return {F {1}:clone():reshape {}}, {count = int(0, 9), finite = int(0, 1)}, {lr.full({2}, 3, "f64")} end
case.optim_begin = function() return {lr.full({1}, pick {2, math.huge}, "f64")}, {growth = 2, backoff = .5, interval = int(0, 2)}, {control()} end
case.sgd = function()
  local s = shape(0, 4)
  return {F(s), control(), lr.full({1}, 2, "f64")}, {momentum = .9, weight_decay = .1, nesterov = int(0, 1), clip = int(0, 1)}, {F(s):clone(), F(s):clone()}
end
case.adam = function()
  local s = shape(0, 4)
  return {F(s), control(), lr.full({1}, 2, "f64")}, {beta1 = .9, beta2 = .99, eps = 1e-3, weight_decay = .1, decoupled = int(0, 1), clip = int(0, 1)},
    {F(s):clone(), F(s):clone(), F(s, 0, 1):clone()}
end

---------------------------------------------------------------------------------------------------- running one

--- The op's attributes with these fields set; lists fill arrays.
function cases.attributes(name, fields)
  local a = rows[name].attr()
  for k, v in pairs(fields or {}) do
    if type(v) == "table" then
      for i = 1, #v do a[k][i - 1] = v[i] end
    else
      a[k] = v
    end
  end
  return a
end

--- Op, inputs and attributes in one line.
function cases.text(name, ins, fields)
  local parts = {}
  for i = 1, #rows[name].inputs do parts[i] = ins[i] and tensor.describe(ins[i]) or "-" end
  for k, v in pairs(fields or {}) do parts[#parts + 1] = k .. "=" .. (type(v) == "table" and table.concat(v, ",") or tostring(v)) end
  return name .. " of " .. table.concat(parts, " ")
end

local function writes(name, i) return name == "batch_norm" and i >= 4 end

--- A copy with the same strides in a storage of the same extent, of another dtype or on another device where these are given.
---@param change nil|fun(flat: Tensor): Tensor what becomes of all elements of the storage
function cases.twin(t, dtype, device, change)
  local bytes, flat, out = C.lbr_dtype_size(t.dtype_), tensor.new(), tensor.new()
  local first = tonumber(t.data - t.storage.base) / bytes
  local n = tonumber(t.storage.bytes) / bytes
  local whole, one = ffi.new("int32_t[1]", n), ffi.new("int32_t[1]", 1)
  lr.core.check(C.lbr_tensor_view(t, flat, 1, whole, one, -first))
  local copy = flat:clone()
  if change then copy = change(copy) end
  if dtype then copy = copy:to(dtype) end
  if device then copy = copy:to(device) end
  lr.core.check(C.lbr_tensor_view(copy, out, t.ndim, t.shape_, t.stride_, first))
  return out
end

--- Outputs of the op on copies of what it writes; batch norm's running statistics follow them.
---@param read nil|fun(t: Tensor): Tensor what an input becomes
---@param own nil|fun(t: Tensor): Tensor makes the copy of a tensor that the op writes
function cases.run(name, ins, attr, outs, read, own)
  local n, arguments = #rows[name].inputs, {}
  read, own = read or function(t) return t end, own or cases.twin
  for i = 1, n do arguments[i] = ins[i] and (writes(name, i) and own or read)(ins[i]) end
  local result
  if outs then
    result = {}
    for i = 1, #outs do
      result[i] = own(outs[i])
      arguments[n + i] = result[i]
    end
    n = n + #outs
    arguments[n + 1] = attr
    raw[name](unpack(arguments, 1, n + 1))
  else
    arguments[n + 1] = attr
    result = {raw[name](unpack(arguments, 1, n + 1))}
  end
  if name == "batch_norm" then result[#result + 1], result[#result + 2] = arguments[4], arguments[5] end
  return result
end

local function bits(t)
  t = t:to("cpu"):contiguous()
  return table.concat(t.shape, ",") .. t.dtype .. ffi.string(ffi.cast("const char *", t:ptr()), t:numel() * C.lbr_dtype_size(t.dtype_))
end

--- Number of the first output that does not have the same shape, dtype and bits; nil where all do.
function cases.differs(want, have)
  for i = 1, #want do
    if bits(want[i]) ~= bits(have[i]) then return i end
  end
end

return cases
