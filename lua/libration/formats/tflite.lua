-- TFLite models: operators, tensors and constants of a .tflite file as plain Lua tables. Knows the schema; what operators mean is graph/tflite.lua's.
-- Source: tensorflow/lite/schema/schema.fbs, version 3. Numbers after names are field numbers there.
local flatbuffer = require "libration.formats.flatbuffer"
local reader = require "libration.formats.reader"

local M = {}

local types = { -- TensorType -> kind of number
  [0] = "f32", "f16", "i32", "u8", "i64", "string", "u8", "i16", "complex64", "i8", "f64", "complex128", "u64", "resource", "variant", "u32", "u16", "i4",
}
local bytes_of = { f32 = 4, f16 = 2, i32 = 4, u8 = 1, i64 = 8, i16 = 2, i8 = 1, f64 = 8, u64 = 8, u32 = 4, u16 = 2 }

local operators = { -- BuiltinOperator -> name; others are named OPERATOR_n
  [0] = "ADD", [1] = "AVERAGE_POOL_2D", [2] = "CONCATENATION", [3] = "CONV_2D", [4] = "DEPTHWISE_CONV_2D", [5] = "DEPTH_TO_SPACE", [6] = "DEQUANTIZE",
  [9] = "FULLY_CONNECTED", [14] = "LOGISTIC", [17] = "MAX_POOL_2D", [18] = "MUL", [19] = "RELU", [20] = "RELU_N1_TO_1", [21] = "RELU6", [22] = "RESHAPE",
  [23] = "RESIZE_BILINEAR", [25] = "SOFTMAX", [28] = "TANH", [32] = "CUSTOM", [34] = "PAD", [39] = "TRANSPOSE", [40] = "MEAN", [41] = "SUB", [42] = "DIV",
  [43] = "SQUEEZE", [45] = "STRIDED_SLICE", [54] = "PRELU", [60] = "PADV2", [65] = "SLICE", [67] = "TRANSPOSE_CONV", [70] = "EXPAND_DIMS", [98] = "LEAKY_RELU",
  [114] = "QUANTIZE", [117] = "HARD_SWISH", [124] = "DENSIFY",
}

local activations = { [0] = "none", "relu", "relu_n1_to_1", "relu6", "tanh", "sign_bit" }

local function activation(t, field)
  local code = t:number(field, "i8", 0)
  return activations[code] or t.r:fail("fused activation %d is not known", code)
end

local function padding(t, field)
  local code = t:number(field, "i8", 0)
  if code ~= 0 and code ~= 1 then t.r:fail("padding %d, want SAME (0) or VALID (1)", code) end
  return code == 0 and "same" or "valid"
end

-- A stride, size or dilation: at least 1.
local function positive(t, field, default)
  local n = t:number(field, "i32", default)
  if n < 1 then t.r:fail("a stride, size or dilation of %d, want at least 1", n) end
  return n
end

local function pool(t)
  return { padding = padding(t, 0), stride = { positive(t, 2, 0), positive(t, 1, 0) }, kernel = { positive(t, 4, 0), positive(t, 3, 0) },
    activation = activation(t, 5) }
end

local function fused_only(t)
  return { activation = activation(t, 0) }
end

-- operator -> reads its options table. Operators without an entry have no options that matter.
local options = {
  CONV_2D = function(t)
    return { padding = padding(t, 0), stride = { positive(t, 2, 0), positive(t, 1, 0) }, activation = activation(t, 3),
      dilation = { positive(t, 5, 1), positive(t, 4, 1) } }
  end,
  DEPTHWISE_CONV_2D = function(t)
    return { padding = padding(t, 0), stride = { positive(t, 2, 0), positive(t, 1, 0) }, activation = activation(t, 4),
      dilation = { positive(t, 6, 1), positive(t, 5, 1) } }
  end,
  TRANSPOSE_CONV = function(t)
    return { padding = padding(t, 0), stride = { positive(t, 2, 0), positive(t, 1, 0) }, activation = activation(t, 3) }
  end,
  MAX_POOL_2D = pool,
  AVERAGE_POOL_2D = pool,
  FULLY_CONNECTED = function(t)
    if t:number(1, "i8", 0) ~= 0 then t.r:fail("FULLY_CONNECTED with shuffled weights is not supported") end
    return { activation = activation(t, 0), keep_dims = t:flag(2) }
  end,
  ADD = fused_only, MUL = fused_only, SUB = fused_only, DIV = fused_only,
  CONCATENATION = function(t) return { axis = t:number(0, "i32", 0), activation = activation(t, 1) } end,
  RESHAPE = function(t) return { shape = t:integers(0, "i32") } end,
  RESIZE_BILINEAR = function(t) return { align_corners = t:flag(2), half_pixel = t:flag(3) } end,
  DEPTH_TO_SPACE = function(t) return { block = positive(t, 0, 0) } end,
  MEAN = function(t) return { keep_dims = t:flag(0) } end,
  SOFTMAX = function(t) return { beta = t:number(0, "f32", 0) } end,
  LEAKY_RELU = function(t) return { alpha = t:number(0, "f32", 0) } end,
  SQUEEZE = function(t) return { dims = t:integers(0, "i32") } end,
  STRIDED_SLICE = function(t)
    return { begin_mask = t:number(0, "i32", 0), end_mask = t:number(1, "i32", 0), ellipsis_mask = t:number(2, "i32", 0),
      new_axis_mask = t:number(3, "i32", 0), shrink_mask = t:number(4, "i32", 0) }
  end,
}

local function parse_operator(t, codes, tensors)
  local index = t:number(0, "u32", 0)
  local code = codes[index + 1] or t.r:fail("operator code %.17g of %d", index, #codes)
  local function check(list)
    for _, i in ipairs(list) do
      if i < -1 or i >= tensors then t.r:fail("%s names tensor %d of %d", code.name, i, tensors) end
    end
    return list
  end
  local op = { name = code.name, custom = code.custom, inputs = check(t:integers(1, "i32")), outputs = check(t:integers(2, "i32")) }
  local read = options[code.name]
  op.options = read and read(t:child(4) or t:absent()) or {}
  return op
end

-- Int32Vector, Uint16Vector, Uint8Vector
local index_kinds = { "i32", "u16", "u8" }

local function index_list(t, field)
  local kind = index_kinds[t:number(field, "u8", 0)]
  local vector = t:child(field + 1)
  if not kind or not vector then t.r:fail("a sparse dimension without segments or indices") end
  return vector:integers(0, kind)
end

local function parse_sparsity(t)
  local dims = {}
  for i, d in ipairs(t:children(2)) do
    local format = d:number(0, "i8", 0)
    if format == 0 then
      dims[i] = { size = d:number(1, "i32", 0) }
    elseif format == 1 then
      dims[i] = { segments = index_list(d, 2), indices = index_list(d, 4) }
    else
      t.r:fail("sparse dimension format %d, want DENSE (0) or SPARSE_CSR (1)", format)
    end
  end
  return { order = t:integers(0, "i32"), block_map = t:integers(1, "i32"), dims = dims }
end

-- Where a buffer's bytes lie: inside the flatbuffer, or, in files above 2 GB, behind it.
local function parse_buffer(t)
  local at, count = t:vector(0, 1)
  if at and count > 0 then return { at = at, count = count } end
  local offset, size = t:number(1, "u64", 0), t:number(2, "u64", 0)
  if offset > 1 and size > 0 then return { at = offset, count = size } end
  return { at = 0, count = 0 }
end

local function parse_quantization(t)
  if not t then return nil end
  local scale = t:floats(2)
  if #scale == 0 then return nil end
  return { scale = scale, zero_point = t:integers(3, "i64"), dimension = t:number(6, "i32", 0) }
end

local function parse_tensor(t, buffers)
  local code = t:number(1, "i8", 0)
  local tensor = { name = t:text(3), kind = types[code] or t.r:fail("tensor type %d is not known", code), shape = t:integers(0, "i32") }
  local index = t:number(2, "u32", 0)
  local buffer = buffers[index + 1] or t.r:fail("tensor '%s' names buffer %.17g of %d", tensor.name, index, #buffers)
  for _, d in ipairs(tensor.shape) do
    if d < 0 then t.r:fail("tensor '%s' has shape [%s]", tensor.name, table.concat(tensor.shape, ",")) end
  end
  tensor.quantization = parse_quantization(t:child(4))
  local sparsity = t:child(6)
  if buffer.count == 0 then return tensor end
  local width = bytes_of[tensor.kind]
  if not width then return tensor end
  local shape = tensor.shape
  if sparsity then -- the buffer holds the stored values alone
    tensor.sparsity = parse_sparsity(sparsity)
    shape = { math.floor(buffer.count / width) }
  end
  local n = reader.count_of(shape)
  if not n or n * width ~= buffer.count then
    t.r:fail("tensor '%s': %s [%s] in a buffer of %.17g bytes", tensor.name, tensor.kind, table.concat(shape, ","), buffer.count)
  end
  local flat = buffer[tensor.kind] -- tensors may share a buffer
  if not flat then
    t:spend(buffer.count)
    flat = t.r:tensor(buffer.at, tensor.kind, { n })
    buffer[tensor.kind] = flat
  end
  tensor.data = flat:reshape(shape)
  return tensor
end

local function parse_code(t)
  -- old files have a byte, new ones a word; the larger one counts
  local code = math.max(t:number(0, "i8", 0), t:number(3, "i32", 0))
  local name = operators[code] or ("OPERATOR_%d"):format(code)
  return { name = name, custom = name == "CUSTOM" and t:text(1) or nil }
end

---@class TfliteTensor
---@field name string
---@field kind string kind of number in the file
---@field shape integer[]
---@field data? Tensor constant content (of a sparse tensor: the stored values, flat)
---@field sparsity? {order: integer[], block_map: integer[], dims: table[]}
---@field quantization? {scale: number[], zero_point: integer[], dimension: integer}

---@class TfliteOperator
---@field name string "CONV_2D"; CUSTOM operators have their own name in `custom`
---@field inputs integer[] tensors from 0, -1 = left out
---@field outputs integer[]
---@field options table

---@class TfliteModel
---@field name string path
---@field description string
---@field tensors TfliteTensor[] number i of the file is tensors[i + 1]
---@field operators TfliteOperator[] in order of execution
---@field inputs integer[]
---@field outputs integer[]

local function map(list, fn, ...)
  local out = {}
  for i, item in ipairs(list) do out[i] = fn(item, ...) end
  return out
end

---Reads a model of one subgraph.
---@param path string|Reader
---@return TfliteModel? model
---@return string? error one line
function M.load(path)
  return reader.read(path, function(r)
    local root = flatbuffer.root(r, "TFL3")
    local version = root:number(0, "u32", 0)
    if version ~= 3 then r:fail("TFLite schema version %d, want 3", version) end
    local subgraphs = root:children(2)
    if #subgraphs ~= 1 then r:fail("%d subgraphs, want 1", #subgraphs) end
    local graph = subgraphs[1]
    local buffers = map(root:children(4), parse_buffer)
    local codes = map(root:children(1), parse_code)
    local tensors = map(graph:children(0), parse_tensor, buffers)
    local model = {
      name = r.name, description = root:text(3), tensors = tensors, inputs = graph:integers(1, "i32"), outputs = graph:integers(2, "i32"),
      operators = map(graph:children(3), parse_operator, codes, #tensors),
    }
    for _, list in ipairs { model.inputs, model.outputs } do
      for _, i in ipairs(list) do
        if i < 0 or i >= #tensors then r:fail("input or output names tensor %d of %d", i, #tensors) end
      end
    end
    return model
  end)
end

return M
