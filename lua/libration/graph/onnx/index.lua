-- ONNX's operators that read, write and choose by index. Entries as in onnx/elementwise.lua.
local tensor = require "libration.tensor"

local entries = {}

-- index with negative positions counted from the end of n.
local function wrapped(self, index, n)
  return (self:emit("wrap_index", { index }, { size = n }, index.kind))
end

function entries.GatherElements(self)
  local x, index = self:input(1), self:input(2)
  local d = self:dim(self:attribute("axis", 0), #x.shape)
  return self:emit("gather_elements", { x, wrapped(self, index, x.shape[d]) }, { dim = d }, x.kind)
end

function entries.GatherND(self)
  local x, index = self:input(1), self:input(2)
  return self:emit("gather_nd", { x, index }, { batch = self:attribute("batch_dims", 0) }, x.kind)
end

local kinds = { none = "replace", add = "add", mul = "mul", min = "min", max = "max" }
local function kind_of(self)
  local name = self:attribute("reduction", "none")
  return kinds[name] or self:fail("reduction %s is not supported", name)
end

function entries.ScatterElements(self)
  local x, index, values = self:input(1), self:input(2), self:input(3)
  local d = self:dim(self:attribute("axis", 0), #x.shape)
  return self:emit("scatter_elements", { x, wrapped(self, index, x.shape[d]), values }, { dim = d, kind = kind_of(self) }, x.kind)
end
entries.Scatter = entries.ScatterElements

function entries.ScatterND(self)
  local x = self:input(1)
  return self:emit("scatter_nd", { x, self:input(2), self:input(3) }, { kind = kind_of(self) }, x.kind)
end

function entries.OneHot(self)
  local index, depth, values = self:input(1), self:list(self:input(2))[1], self:input(3)
  local d = self:dim(self:attribute("axis", -1), #index.shape + 1)
  if not depth or depth < 0 or depth > 2 ^ 24 then self:fail("a depth of %s", tostring(depth)) end
  return self:emit("one_hot", { index, values }, { depth = depth, dim = d }, values.kind)
end

function entries.TopK(self)
  local x = self:input(1)
  local k = self.opset >= 10 and self:list(self:input(2))[1] or self:attribute("k", 0)
  local d = self:dim(self:attribute("axis", -1), #x.shape)
  local y, index = self:emit("topk", { x }, { k = k, dim = d, smallest = self:attribute("largest", 1) == 0 }, x.kind)
  return y, self:cast(index, "i64")
end

function entries.ReverseSequence(self)
  local x, lengths = self:input(1), self:input(2)
  local attr = { batch = self:dim(self:attribute("batch_axis", 1), #x.shape), time = self:dim(self:attribute("time_axis", 0), #x.shape) }
  if attr.batch == attr.time then self:fail("batch_axis and time_axis are one") end
  return self:emit("reverse_sequence", { x, lengths }, attr, x.kind)
end

---------------------------------------------------------------------------------------------------- as many results as the numbers say

-- The first rows of a constant, as many as count says.
local function head(rows, count)
  return rows.data:narrow(1, 1, count.data:get(1)):contiguous()
end

function entries.NonZero(self)
  local x = self:input(1)
  self:known(x)
  return self:constant(head(self:emit("nonzero", { x })):transpose(1, 2):contiguous(), "i64")
end

function entries.Compress(self)
  local x, condition = self:input(1), self:list(self:input(2))
  local axis, index = self:attribute("axis", nil, "number"), {}
  for i, v in ipairs(condition) do
    if v ~= 0 then index[#index + 1] = i - 1 end
  end
  local count = 1
  for _, size in ipairs(x.shape) do count = count * size end
  x = axis and x or self:reshaped(x, { count })
  local places = self:constant(#index > 0 and tensor.tensor(index, "i32") or tensor.empty({ 0 }, "i32"), "i64")
  return self:emit("gather", { x, places }, { dim = axis and self:dim(axis, #x.shape) or 1 }, x.kind)
end

function entries.NonMaxSuppression(self)
  local boxes, scores = self:input(1), self:input(2)
  local function number(i, default)
    local v = self:input(i, true)
    return v and self:list(v)[1] or default
  end
  local attr = { most = math.min(math.max(number(3, 0), 0), 2 ^ 31 - 1), iou = number(4, 0), score = number(5, -math.huge), centre = self:attribute("center_point_box", 0) ~= 0 }
  self:known(boxes)
  self:known(scores)
  return self:constant(head(self:emit("nms", { boxes, scores }, attr)), "i64")
end

-- The different slices of x along d (of all its elements without d), in order of size, and where each stands.
function entries.Unique(self)
  local x, axis = self:input(1), self:attribute("axis", nil, "number")
  local data = self:known(x):contiguous()
  local shape = axis and data.shape or { data:numel() }
  local d = axis and self:dim(axis, #shape) or 1
  local order = { d }
  for i = 1, #shape do
    if i ~= d then order[#order + 1] = i end
  end
  local rows = data:reshape(shape):permute(order):contiguous()
  local n, width = shape[d], shape[d] > 0 and rows:numel() / shape[d] or 0
  if n > 2 ^ 20 then self:fail("'%s' has %d positions", x.name, n) end
  local flat, first, slices = rows:reshape(n * width):to("f64"):ptr(), {}, {}
  for i = 1, n do
    local slice = { index = i - 1 }
    for k = 1, width do slice[k] = flat[(i - 1) * width + k - 1] end
    local key = table.concat(slice, ",")
    if first[key] then
      first[key].count = first[key].count + 1
    else
      slice.count, first[key] = 1, slice
      slices[#slices + 1] = slice
    end
    slices[-i] = first[key]
  end
  if self:attribute("sorted", 1) ~= 0 then
    table.sort(slices, function(a, b)
      for k = 1, width do
        if a[k] ~= b[k] then return a[k] < b[k] end
      end
      return false
    end)
  end
  local index, inverse, counts = {}, {}, {}
  for i, slice in ipairs(slices) do index[i], counts[i], slice.rank = slice.index, slice.count, i - 1 end
  for i = 1, n do inverse[i] = slices[-i].rank end
  local function whole(list) return self:constant(#list > 0 and tensor.tensor(list, "i32") or tensor.empty({ 0 }, "i32"), "i64") end
  local source = axis and x or self:reshaped(x, shape)
  return self:emit("gather", { source, whole(index) }, { dim = d }, x.kind), whole(index), whole(inverse), whole(counts)
end

return entries
