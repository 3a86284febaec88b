-- Builds small .tflite files byte by byte, for specs that run anywhere. A FlatBuffer writer of a few field kinds; not for production use.
local ffi = require "ffi"

local M = {}

local width = { i8 = 1, u8 = 1, i32 = 4, u32 = 4, f32 = 4, u64 = 8, i64 = 8, u16 = 2 }
local ctype = { i8 = "int8_t", u8 = "uint8_t", i32 = "int32_t", u32 = "uint32_t", f32 = "float", u64 = "uint64_t", i64 = "int64_t", u16 = "uint16_t" }

---Numbers as little-endian bytes (on a little-endian machine).
---@param kind string
---@param list number[]
---@return string
function M.bytes(kind, list)
  local a = ffi.new(ctype[kind] .. "[?]", #list, list)
  return ffi.string(a, #list * width[kind])
end

---Nearest half-precision number of v (normal range only) as its bits.
function M.half(v)
  if v == 0 then return 0 end
  local mantissa, exponent = math.frexp(math.abs(v))
  local bits = math.floor((mantissa * 2 - 1) * 1024 + 0.5) + (exponent + 14) * 1024
  return v < 0 and bits + 32768 or bits
end

local Out = {}
Out.__index = Out

function Out:align(n)
  while self.size % n ~= 0 do self:raw("\0") end
end

function Out:raw(s)
  for i = 1, #s do self[self.size + i - 1] = s:sub(i, i) end
  self.size = self.size + #s
end

function Out:patch(at, s)
  for i = 1, #s do self[at + i - 1] = s:sub(i, i) end
end

local write

-- Writes what `spec` describes after everything so far and patches the offset at `slot` to it.
local function write_child(out, slot, spec)
  local kind = spec[1]
  if kind == "bytes" then
    while (out.size + 4) % 16 ~= 0 do out:raw("\0") end
  else
    out:align(4)
  end
  if kind == "table" then
    local at = write(out, spec[2])
    out:patch(slot, M.bytes("u32", { at - slot }))
    return
  end
  out:patch(slot, M.bytes("u32", { out.size - slot }))
  if kind == "string" then
    out:raw(M.bytes("u32", { #spec[2] }) .. spec[2] .. "\0")
  elseif kind == "bytes" then
    out:raw(M.bytes("u32", { #spec[2] }) .. spec[2])
  elseif kind == "vector" then
    out:raw(M.bytes("u32", { #spec[3] }) .. M.bytes(spec[2], spec[3]))
  elseif kind == "tables" then
    out:raw(M.bytes("u32", { #spec[2] }))
    local first = out.size
    out:raw(("\0"):rep(4 * #spec[2]))
    for i, fields in ipairs(spec[2]) do write_child(out, first + 4 * (i - 1), { "table", fields }) end
  end
end

-- Writes a table: vtable, then the fields, then what they point to. fields: number in the schema -> spec.
write = function(out, fields)
  local last = -1
  for number in pairs(fields) do last = math.max(last, number) end
  local offsets, size = {}, 4
  for number = 0, last do
    local spec = fields[number]
    if spec then
      local w = width[spec[1]] or 4
      while size % w ~= 0 do size = size + 1 end
      offsets[number] = size
      size = size + w
    end
  end
  local vtable = { 4 + 2 * (last + 1), size }
  for number = 0, last do vtable[#vtable + 1] = offsets[number] or 0 end
  out:align(8)
  local vtable_at = out.size
  out:raw(M.bytes("u16", vtable))
  out:align(8)
  local at = out.size
  out:raw(M.bytes("i32", { at - vtable_at }) .. ("\0"):rep(size - 4))
  for number = 0, last do
    local spec = fields[number]
    if spec then
      if width[spec[1]] then
        out:patch(at + offsets[number], M.bytes(spec[1], { spec[2] }))
      else
        write_child(out, at + offsets[number], spec)
      end
    end
  end
  return at
end

---A FlatBuffer of one root table.
---@param identifier string four letters
---@param fields table<integer, table> number in the schema -> {kind, value}
---@return string
function M.flatbuffer(identifier, fields)
  local out = setmetatable({ size = 0 }, Out)
  out:raw("\0\0\0\0" .. identifier)
  local at = write(out, fields)
  out:patch(0, M.bytes("u32", { at }))
  local bytes = {}
  for i = 0, out.size - 1 do bytes[i + 1] = out[i] end
  return table.concat(bytes)
end

local type_code = { f32 = 0, f16 = 1, i32 = 2, u8 = 3, i64 = 4, i8 = 9 }

---A model of one subgraph.
---@param model {tensors: table[], operators: table[], inputs: integer[], outputs: integer[]}
---tensors: {name=, shape=, kind=, data= bytes?, sparsity= fields?}; operators: {code=, inputs=, outputs=, type= of options?, options= fields?}; tensors count from 0
---@return string bytes of the file
function M.model(model)
  local buffers, tensors, codes, code_at, operators = { {} }, {}, {}, {}, {}
  for i, t in ipairs(model.tensors) do
    local index = 0
    if t.data then
      buffers[#buffers + 1] = { [0] = { "bytes", t.data } }
      index = #buffers - 1
    end
    tensors[i] = { [0] = { "vector", "i32", t.shape }, [1] = { "i8", type_code[t.kind or "f32"] }, [2] = { "u32", index }, [3] = { "string", t.name },
      [6] = t.sparsity and { "table", t.sparsity } or nil }
  end
  for i, op in ipairs(model.operators) do
    if not code_at[op.code] then
      codes[#codes + 1] = { [0] = { "i8", op.code }, [2] = { "i32", 1 }, [3] = { "i32", op.code } }
      code_at[op.code] = #codes - 1
    end
    operators[i] = { [0] = { "u32", code_at[op.code] }, [1] = { "vector", "i32", op.inputs }, [2] = { "vector", "i32", op.outputs },
      [3] = op.options and { "u8", op.type } or nil, [4] = op.options and { "table", op.options } or nil }
  end
  local subgraph = { [0] = { "tables", tensors }, [1] = { "vector", "i32", model.inputs }, [2] = { "vector", "i32", model.outputs },
    [3] = { "tables", operators }, [4] = { "string", "main" } }
  return M.flatbuffer("TFL3", { [0] = { "u32", 3 }, [1] = { "tables", codes }, [2] = { "tables", { subgraph } },
    [3] = { "string", "made by a spec" }, [4] = { "tables", buffers } })
end

-- Small weights without structure: the same on every machine.
local function wave(n, scale, phase)
  local list = {}
  for i = 1, n do list[i] = math.floor(((i * 37 + phase * 11) % 29 - 14) * scale * 64 + 0.5) / 64 end
  return list
end
M.wave = wave

---A network that uses what the passes fold: padding before a strided convolution, half-precision and sparse weights, batch norm as MUL and ADD,
---a depthwise layer, a residual, PRELU, enlargement before a 1x1 convolution, concatenation. Input [1,6,5,2].
---@return string bytes of the file
function M.small()
  local halves = {}
  for i, v in ipairs(wave(4 * 9 * 2, 1 / 16, 1)) do halves[i] = M.half(v) end
  -- 1x1 weights [4,1,1,4] of which the diagonal and one more are stored
  local sparse = { 0.5, -0.25, 1, 0.75, -1.5 }
  local sparsity = { [0] = { "vector", "i32", { 0, 1, 2, 3 } }, [2] = { "tables", {
    { [0] = { "i8", 0 }, [1] = { "i32", 4 } },
    { [0] = { "i8", 0 }, [1] = { "i32", 1 } },
    { [0] = { "i8", 0 }, [1] = { "i32", 1 } },
    { [0] = { "i8", 1 }, [2] = { "u8", 1 }, [3] = { "table", { [0] = { "vector", "i32", { 0, 1, 3, 4, 5 } } } },
      [4] = { "u8", 3 }, [5] = { "table", { [0] = { "vector", "u8", { 0, 1, 3, 2, 3 } } } } },
  } } }
  local f = function(list) return M.bytes("f32", list) end
  local i = function(list) return M.bytes("i32", list) end
  local conv = function(padding, stride, act)
    return { [0] = { "i8", padding }, [1] = { "i32", stride }, [2] = { "i32", stride }, [3] = { "i8", act } }
  end
  return M.model {
    inputs = { 0 }, outputs = { 24, 20 },
    tensors = {
      { name = "image", shape = { 1, 6, 5, 2 } },                                                          -- 0
      { name = "paddings", shape = { 4, 2 }, kind = "i32", data = i { 0, 0, 1, 1, 1, 1, 0, 0 } },
      { name = "padded", shape = { 1, 8, 7, 2 } },
      { name = "w1 half", shape = { 4, 3, 3, 2 }, kind = "f16", data = M.bytes("u16", halves) },
      { name = "w1", shape = { 4, 3, 3, 2 } },                                                             -- 4
      { name = "b1", shape = { 4 }, data = f { 0.5, -0.5, 0.25, 0 } },
      { name = "conv1", shape = { 1, 3, 3, 4 } },
      { name = "scale", shape = { 4 }, data = f { 2, 0.5, -1, 1.5 } },
      { name = "scaled", shape = { 1, 3, 3, 4 } },                                                         -- 8
      { name = "shift", shape = { 1, 1, 1, 4 }, data = f { 0.125, 0.25, 0.5, -0.75 } },
      { name = "normed", shape = { 1, 3, 3, 4 } },
      { name = "w2", shape = { 1, 3, 3, 4 }, data = f(wave(36, 1 / 16, 5)) },
      { name = "b2", shape = { 4 }, data = f { 0, 0.25, 0.5, 0.75 } },                                     -- 12
      { name = "depthwise", shape = { 1, 3, 3, 4 } },
      { name = "w3 sparse", shape = { 4, 1, 1, 4 }, data = f(sparse), sparsity = sparsity },
      { name = "w3", shape = { 4, 1, 1, 4 } },
      { name = "conv3", shape = { 1, 3, 3, 4 } },                                                          -- 16
      { name = "sum", shape = { 1, 3, 3, 4 } },
      { name = "slope", shape = { 1, 1, 4 }, data = f { 0.25, 0.5, -0.5, 0.125 } },
      { name = "active", shape = { 1, 3, 3, 4 } },
      { name = "probability", shape = { 1, 3, 3, 4 } },                                                    -- 20
      { name = "size", shape = { 2 }, kind = "i32", data = i { 6, 6 } },
      { name = "large", shape = { 1, 6, 6, 4 } },
      { name = "w4", shape = { 3, 1, 1, 4 }, data = f(wave(12, 1 / 8, 9)) },
      { name = "map", shape = { 1, 6, 6, 3 } },                                                            -- 24
      { name = "zero3", shape = { 3 }, data = f { 0.5, 0, -0.5 } },
      { name = "zero4", shape = { 4 }, data = f { 0, 0, 0, 0 } },
    },
    operators = {
      { code = 34, inputs = { 0, 1 }, outputs = { 2 } },                                                   -- PAD
      { code = 6, inputs = { 3 }, outputs = { 4 } },                                                       -- DEQUANTIZE
      { code = 3, inputs = { 2, 4, 5 }, outputs = { 6 }, type = 1, options = conv(1, 2, 0) },              -- CONV_2D, VALID, stride 2
      { code = 18, inputs = { 6, 7 }, outputs = { 8 }, type = 21, options = { [0] = { "i8", 0 } } },       -- MUL
      { code = 0, inputs = { 8, 9 }, outputs = { 10 }, type = 11, options = { [0] = { "i8", 3 } } },       -- ADD, RELU6
      { code = 4, inputs = { 10, 11, 12 }, outputs = { 13 }, type = 2,                                     -- DEPTHWISE_CONV_2D, SAME
        options = { [0] = { "i8", 0 }, [1] = { "i32", 1 }, [2] = { "i32", 1 }, [3] = { "i32", 1 }, [4] = { "i8", 1 } } },
      { code = 124, inputs = { 14 }, outputs = { 15 } },                                                   -- DENSIFY
      { code = 3, inputs = { 13, 15, 26 }, outputs = { 16 }, type = 1, options = conv(0, 1, 0) },
      { code = 0, inputs = { 10, 16 }, outputs = { 17 }, type = 11, options = { [0] = { "i8", 0 } } },
      { code = 54, inputs = { 17, 18 }, outputs = { 19 } },                                                -- PRELU
      { code = 14, inputs = { 19 }, outputs = { 20 } },                                                    -- LOGISTIC
      { code = 23, inputs = { 19, 21 }, outputs = { 22 }, type = 15, options = { [3] = { "u8", 1 } } },    -- RESIZE_BILINEAR, half pixel
      { code = 3, inputs = { 22, 23, 25 }, outputs = { 24 }, type = 1, options = conv(0, 1, 1) },
    },
  }
end

---The input that goes with `small`.
---@return number[] 60 values
function M.small_input()
  return wave(60, 1 / 8, 3)
end

return M
