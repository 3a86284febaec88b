-- Builds small .onnx files field by field, for specs that run anywhere. A protocol buffer writer of what ONNX needs; not for production use.
local ffi = require "ffi"

local M = {}

---A varint of a whole number, negative ones as 64 bits.
---@return string
function M.varint(v)
  local n, out = ffi.cast("uint64_t", ffi.cast("int64_t", v)), {}
  repeat
    local low = tonumber(n % 128)
    n = n / 128
    out[#out + 1] = string.char(n > 0 and low + 128 or low)
  until n == 0
  return table.concat(out)
end
local varint = M.varint

---A field of bytes: a string or a message.
function M.bytes(field, text) return varint(field * 8 + 2) .. varint(#text) .. text end
---A field of one whole number.
function M.number(field, v) return varint(field * 8) .. varint(v) end
---A field of one 32-bit float.
function M.float(field, v) return varint(field * 8 + 5) .. ffi.string(ffi.new("float[1]", v), 4) end
local bytes, number = M.bytes, M.number

local codes = { f32 = 1, u8 = 2, i8 = 3, i32 = 6, i64 = 7, bool = 9, f16 = 10, f64 = 11, u64 = 13, bf16 = 16 }
local ctypes = { f32 = "float", u8 = "uint8_t", i8 = "int8_t", i32 = "int32_t", i64 = "int64_t", bool = "uint8_t", f16 = "uint16_t", f64 = "double", u64 = "uint64_t",
  bf16 = "uint16_t" }

---Numbers as they lie in a file.
function M.raw(kind, values)
  local a = ffi.new(ctypes[kind] .. "[?]", #values, values)
  return ffi.string(a, ffi.sizeof(a))
end

---TensorProto with raw data; `fields` (encoded) instead of the data where given.
---@param name string
---@param kind string
---@param shape integer[]
---@param values number[]?
---@param fields string?
function M.tensor(name, kind, shape, values, fields)
  local out = {}
  for _, d in ipairs(shape) do out[#out + 1] = number(1, d) end
  out[#out + 1] = number(2, codes[kind] or kind)
  out[#out + 1] = bytes(8, name)
  out[#out + 1] = fields or bytes(9, M.raw(kind, values))
  return table.concat(out)
end

---AttributeProto: a number with a point or `{float = v}` is a float, a list holds whole numbers, {tensor = ...} and {graph = ...} hold messages.
function M.attribute(name, v)
  local head = bytes(1, name)
  if type(v) == "number" then return head .. number(3, v) .. number(20, 2) end
  if type(v) == "string" then return head .. bytes(4, v) .. number(20, 3) end
  if v.float then return head .. M.float(2, v.float) .. number(20, 1) end
  if v.tensor then return head .. bytes(5, v.tensor) .. number(20, 4) end
  if v.graph then return head .. bytes(6, v.graph) .. number(20, 5) end
  local out = {}
  for i, n in ipairs(v) do out[i] = number(8, n) end
  return head .. table.concat(out) .. number(20, 7)
end

---NodeProto.
---@param op string
---@param inputs string[]
---@param outputs string[]
---@param attributes table<string, any>?
function M.node(op, inputs, outputs, attributes)
  local out = {}
  for _, name in ipairs(inputs) do out[#out + 1] = bytes(1, name) end
  for _, name in ipairs(outputs) do out[#out + 1] = bytes(2, name) end
  out[#out + 1] = bytes(3, "n_" .. outputs[1]) .. bytes(4, op)
  local names = {}
  for name in pairs(attributes or {}) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do out[#out + 1] = bytes(5, M.attribute(name, attributes[name])) end
  return table.concat(out)
end

---ValueInfoProto of a tensor; a size may be a name.
function M.info(name, kind, shape)
  local dims = {}
  for i, d in ipairs(shape) do dims[i] = bytes(1, type(d) == "number" and number(1, d) or bytes(2, d)) end
  return bytes(1, name) .. bytes(2, bytes(1, number(1, codes[kind] or kind) .. bytes(2, table.concat(dims))))
end

---GraphProto from lists of encoded nodes, tensors and infos.
function M.graph(g)
  local out = { bytes(2, g.name or "graph") }
  for _, n in ipairs(g.nodes or {}) do out[#out + 1] = bytes(1, n) end
  for _, t in ipairs(g.constants or {}) do out[#out + 1] = bytes(5, t) end
  for _, i in ipairs(g.inputs or {}) do out[#out + 1] = bytes(11, i) end
  for _, o in ipairs(g.outputs or {}) do out[#out + 1] = bytes(12, o) end
  return table.concat(out)
end

---ModelProto: the bytes of a file.
---@param g table as for graph
---@param opset integer? default 17
function M.model(g, opset)
  return number(1, 8) .. bytes(2, "spec") .. bytes(7, M.graph(g)) .. bytes(8, number(2, opset or 17))
end

local function ramp(n, scale)
  local out = {}
  for i = 1, n do out[i] = (i * 7 % 11 - 5) * scale end
  return out
end

---A picture network of every part that passes look at: convolution, batch norm, relu6, a depthwise one, a residual sum, SiLU, a pool, a shape subgraph, a product.
---@return string bytes input x f32 [batch,2,height,width]; outputs y [batch,3], map [batch,4,height,width]
function M.small()
  local T, N = M.tensor, M.node
  return M.model {
    inputs = { M.info("x", "f32", { "batch", 2, "height", "width" }) },
    outputs = { M.info("y", "f32", { "batch", 3 }), M.info("map", "f32", { "batch", 4, "height", "width" }) },
    constants = {
      T("w1", "f32", { 4, 2, 3, 3 }, ramp(72, .05)), T("b1", "f32", { 4 }, { .1, -.2, .3, 0 }),
      T("scale", "f32", { 4 }, { 1, .5, 2, 1.5 }), T("shift", "f32", { 4 }, { 0, .1, -.1, .2 }), T("mean", "f32", { 4 }, { .1, 0, -.1, .2 }),
      T("var", "f32", { 4 }, { 1, 2, .5, 1 }), T("w2", "f32", { 4, 1, 3, 3 }, ramp(36, .1)), T("w3", "f32", { 4, 4, 1, 1 }, ramp(16, .1)),
      T("low", "f32", {}, { 0 }), T("high", "f32", {}, { 6 }), T("first", "i64", { 1 }, { 0 }), T("rest", "i64", { 1 }, { -1 }),
      T("w4", "f32", { 4, 3 }, ramp(12, .2)), T("b4", "f32", { 3 }, { .5, 0, -.5 }),
    },
    nodes = {
      N("Conv", { "x", "w1", "b1" }, { "c1" }, { pads = { 1, 1, 1, 1 }, kernel_shape = { 3, 3 } }),
      N("BatchNormalization", { "c1", "scale", "shift", "mean", "var" }, { "n1" }),
      N("Clip", { "n1", "low", "high" }, { "a1" }),
      N("Conv", { "a1", "w2" }, { "c2" }, { pads = { 1, 1, 1, 1 }, group = 4 }),
      N("Sigmoid", { "c2" }, { "s2" }), N("Mul", { "c2", "s2" }, { "a2" }),
      N("Conv", { "a2", "w3" }, { "c3" }), N("Add", { "c3", "a1" }, { "sum" }), N("Relu", { "sum" }, { "map" }),
      N("GlobalAveragePool", { "map" }, { "pool" }),
      N("Shape", { "pool" }, { "sizes" }), N("Gather", { "sizes", "first" }, { "count" }, { axis = 0 }), N("Concat", { "count", "rest" }, { "flat" }, { axis = 0 }),
      N("Reshape", { "pool", "flat" }, { "vector" }), N("Gemm", { "vector", "w4", "b4" }, { "y" }),
    },
  }
end

return M
