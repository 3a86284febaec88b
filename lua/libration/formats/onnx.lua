-- ONNX models: graphs, nodes, attributes and tensors of an .onnx file as plain Lua tables. Knows the schema; what operators mean is graph/onnx.lua's.
-- Source: onnx/onnx.proto. Numbers after names are field numbers there.
local lfs = require "lfs"
local protobuf = require "libration.formats.protobuf"
local reader = require "libration.formats.reader"
local tensor = require "libration.tensor"

local M = {}

local kinds = { -- TensorProto.DataType -> kind of number
  "f32", "u8", "i8", "u16", "i16", "i32", "i64", "string", "bool", "f16", "f64", "u32", "u64", "complex64", "complex128", "bf16", "f8e4m3", "f8e4m3z", "f8e5m2",
  "f8e5m2z", "u4", "i4", "f4e2m1", "f8e8m0", "u2", "i2",
}

---Kind of number in the file -> dtype of the tensor that carries it. i64, u64 and u32 are limited to what an i32 holds.
M.carriers = {
  f32 = "f32", f64 = "f64", f16 = "f16", bf16 = "bf16", u8 = "u8", bool = "u8", i8 = "i32", u16 = "i32", i16 = "i32", i32 = "i32", i64 = "i32", u32 = "i32", u64 = "i32",
}

---Name of a TensorProto.DataType.
---@return string
function M.kind(code)
  return kinds[code] or ("type %d"):format(code)
end

local widths = { f64 = 8, i64 = 8, u64 = 8, f32 = 4, i32 = 4, u32 = 4, f16 = 2, bf16 = 2, i16 = 2, u16 = 2, i8 = 1, u8 = 1, bool = 1 }

local function limit(v)
  return math.max(-2147483648, math.min(2147483647, v))
end

-- Bytes in a file as a tensor of the kind's carrier.
local function raw_tensor(r, at, count, kind, shape, name)
  local n = reader.count_of(shape)
  if n * widths[kind] ~= count then
    r:fail("tensor '%s': %s [%s] in %.17g bytes", name, kind, table.concat(shape, ","), count)
  end
  if kind == "bool" then
    local t = r:tensor(at, "u8", shape)
    local p = t:ptr()
    for i = 0, n - 1 do p[i] = p[i] ~= 0 and 1 or 0 end
    return t
  elseif kind == "i64" or kind == "u64" or kind == "u32" then
    return r:limited(at, kind, shape)
  end
  return r:tensor(at, kind, shape)
end

-- Numbers in a typed field as a tensor.
local function typed_tensor(m, kind, shape, name)
  local n = reader.count_of(shape)
  local function counted(have)
    if have ~= n then m.r:fail("tensor '%s': %s [%s] with %.17g numbers", name, kind, table.concat(shape, ","), have) end
  end
  if kind == "f32" or kind == "f64" then
    local width = widths[kind]
    local pieces, total = m:pieces(kind == "f32" and 4 or 10, width)
    counted(total)
    if #pieces == 1 then return m.r:tensor(pieces[1].at, kind, shape) end
    local t = tensor.empty(shape, kind)
    local p, i = t:ptr(), 0
    for _, piece in ipairs(pieces) do
      for k = 0, piece.count - 1 do
        p[i] = m.r[kind](m.r, piece.at + width * k)
        i = i + 1
      end
    end
    return t
  end
  local values = m:integers((kind == "i64" and 7) or ((kind == "u64" or kind == "u32") and 11) or 5)
  counted(#values)
  local t = tensor.empty(shape, M.carriers[kind])
  local p = t:ptr()
  for i = 1, n do
    local v = values[i]
    if kind == "u64" and v < 0 then v = 2147483647 -- from 2^63 on
    elseif kind == "bool" then v = v ~= 0 and 1 or 0
    elseif kind == "f16" or kind == "bf16" then -- the bits; a NaN without its payload
      v = v % 65536
      local infinity = kind == "f16" and 0x7c00 or 0x7f80
      if v % 32768 > infinity then v = v - v % 32768 + (kind == "f16" and 0x7e00 or 0x7fc0) end
    else v = limit(v) end
    p[i - 1] = v
  end
  return t
end

-- The file that holds a tensor's bytes: inside the model's folder.
local function external(m, context, name)
  local r, where = m.r, {}
  for _, entry in ipairs(m:children(13)) do where[entry:text(1)] = entry:text(2) end
  local location = where.location or ""
  if not context.folder then r:fail("tensor '%s' lies in another file, and this model has no folder", name) end
  if location == "" or location:sub(1, 1) == "/" or location:find("%z") or ("/" .. location .. "/"):find("/../", 1, true) then
    r:fail("tensor '%s': external data in '%s', want a file inside the model's folder", name, location)
  end
  local path = context.folder .. location
  for at in (location .. "/"):gmatch "()/" do -- no folder on the way is a link either
    local step = location:sub(1, at - 1)
    if (lfs.symlinkattributes(context.folder .. step) or {}).mode == "link" then r:fail("tensor '%s': external data in '%s', but '%s' is a link", name, location, step) end
  end
  local open = context.files[path]
  if not open then
    local err
    open, err = reader.open(path)
    if not open then r:fail("tensor '%s': %s", name, err) end
    context.files[path] = open
  end
  local offset = tonumber(where.offset or "0") or -1
  return open, offset, tonumber(where.length or "") or open:size() - offset
end

---@class OnnxTensor
---@field name string
---@field kind string "f32", "i64", ...
---@field shape integer[]
---@field data? Tensor of the kind's carrier; nil where the kind has none
---@field strings? string[]

local function parse_tensor(m, context)
  local name, kind, shape = m:text(8), M.kind(m:number(2, 0)), m:integers(1)
  local n = reader.count_of(shape)
  if not n then m.r:fail("tensor '%s' has shape [%s], want at most 6 dims of 0 to 2^31-1", name, table.concat(shape, ",")) end
  local t = { name = name, kind = kind, shape = shape }
  if kind == "string" then
    t.strings = m:texts(6)
  elseif widths[kind] then
    if m:number(14, 0) == 1 then
      local r, at, count = external(m, context, name)
      t.data = raw_tensor(r, at, count, kind, shape, name)
    elseif m:has(9) then
      local at, count = m:span(9)
      t.data = raw_tensor(m.r, at, count, kind, shape, name)
    else
      t.data = typed_tensor(m, kind, shape, name)
    end
  end
  return t
end

-- Type and shape of an input or output: dims are numbers, names, or "?".
local function parse_info(m)
  local info = { name = m:text(1) }
  local type = m:child(2)
  local of_tensor = type and type:child(1)
  if not of_tensor then
    info.kind = type and (type:has(4) and "sequence" or type:has(9) and "optional" or type:has(5) and "map") or "unknown"
    return info
  end
  info.kind = M.kind(of_tensor:number(1, 0))
  local shape = of_tensor:child(2)
  if shape then
    info.shape = {}
    for d, dim in ipairs(shape:children(1)) do
      local size = dim:number(1, -1)
      info.shape[d] = size >= 0 and size or (dim:text(2) ~= "" and dim:text(2) or "?")
    end
  end
  return info
end

local parse_graph

-- AttributeProto.type -> reads the value
local attribute_readers = {
  [1] = function(m) return m:float(2, 0) end,
  [2] = function(m) return m:number(3, 0) end,
  [3] = function(m) return m:text(4) end,
  [4] = function(m, context) return parse_tensor(m:child(5) or m.r:fail("attribute '%s' has no tensor", m:text(1)), context) end,
  [5] = function(m, context) return parse_graph(m:child(6) or m.r:fail("attribute '%s' has no graph", m:text(1)), context) end,
  [6] = function(m) return m:floats(7) end,
  [7] = function(m) return m:integers(8) end,
  [8] = function(m) return m:texts(9) end,
}

-- Old files leave the type out.
local function attribute_type(m)
  local code = m:number(20, 0)
  if code ~= 0 then return code end
  for kind, field in ipairs { 2, 3, 4, 5, 6, 7, 8, 9 } do
    if m:has(field) then return kind end
  end
  return 0
end

---@class OnnxNode
---@field op string "Conv"
---@field domain string "" for the standard operators
---@field name string the file's, or ""
---@field inputs string[] "" = left out
---@field outputs string[]
---@field attr table<string, number|string|number[]|string[]|OnnxTensor|OnnxGraph>

local function parse_node(m, context)
  local node = { op = m:text(4), domain = m:text(7), name = m:text(3), inputs = m:texts(1), outputs = m:texts(2), attr = {} }
  if node.domain == "ai.onnx" then node.domain = "" end
  for _, a in ipairs(m:children(5)) do
    if a:has(21) then m.r:fail("node '%s' (%s) refers to an attribute of a function, which is not supported", node.name, node.op) end
    local code = attribute_type(a)
    local read = attribute_readers[code]
    if read then node.attr[a:text(1)] = read(a, context) end
  end
  return node
end

local function map(list, fn, context)
  local out = {}
  for i, item in ipairs(list) do out[i] = fn(item, context) end
  return out
end

---@class OnnxGraph
---@field name string
---@field nodes OnnxNode[]
---@field constants table<string, OnnxTensor> the initializers
---@field inputs {name: string, kind: string, shape: (integer|string)[]?}[] without those that are constants
---@field outputs {name: string, kind: string, shape: (integer|string)[]?}[]

function parse_graph(m, context)
  local g = { name = m:text(2), nodes = map(m:children(1), parse_node, context), constants = {}, inputs = {}, outputs = map(m:children(12), parse_info) }
  for _, t in ipairs(map(m:children(5), parse_tensor, context)) do
    if g.constants[t.name] then m.r:fail("two constants are named '%s'", t.name) end
    g.constants[t.name] = t
  end
  if m:has(15) then m.r:fail("sparse constants are not supported") end
  for _, info in ipairs(map(m:children(11), parse_info)) do
    if not g.constants[info.name] then g.inputs[#g.inputs + 1] = info end
  end
  return g
end

---@class OnnxModel
---@field name string path
---@field producer string
---@field opsets table<string, integer> domain -> version; "" is the standard one
---@field graph OnnxGraph
---@field bytes number size of the file, with external data

local function parse_model(m, context)
  local model = { name = m.r.name, producer = m:text(2), opsets = {}, functions = #m:children(25) }
  for _, o in ipairs(m:children(8)) do
    local domain = o:text(1)
    model.opsets[domain == "ai.onnx" and "" or domain] = o:number(2, 1)
  end
  local graph = m:child(7)
  if not graph then m.r:fail("no graph: not an ONNX model?") end
  model.graph = parse_graph(graph, context)
  return model
end

-- Closes the files beside the model, whatever came of it.
local function with_files(context, parse, ...)
  local ok, result = pcall(parse, ...)
  for _, open in pairs(context.files) do
    context.bytes = context.bytes + open:size()
    open:close()
  end
  if not ok then error(result, 0) end
  return result
end

---Reads a model.
---@param path string|Reader
---@return OnnxModel? model
---@return string? error one line
function M.load(path)
  return reader.read(path, function(r)
    local context = { folder = type(path) == "string" and (path:match "^.*/" or "./") or nil, files = {}, bytes = r:size() }
    local model = with_files(context, parse_model, protobuf.root(r), context)
    model.bytes = context.bytes
    return model
  end)
end

---Reads one tensor of a file of its own (TensorProto).
---@param path string|Reader
---@return OnnxTensor? tensor
---@return string? error one line
function M.load_tensor(path)
  return reader.read(path, function(r)
    return parse_tensor(protobuf.root(r), { files = {} })
  end)
end

return M
