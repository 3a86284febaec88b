-- What ONNX's windows over space have in common: orders of dims, attributes by dim, padding, convolution. Holds no entries.
local M = {}

---Orders of dims that bring [B,C,..] to [B,..,C] and back.
---@param rank integer
---@return integer[] from, integer[] to
function M.orders(rank)
  local from, to = { 1 }, { 1, rank }
  for d = 3, rank do
    from[#from + 1] = d
    to[#to + 1] = d - 1
  end
  from[#from + 1] = 2
  return from, to
end

---Number of dims of space, one to three.
---@param self OnnxImport
---@param x IrValue
function M.count(self, x)
  local n = #x.shape - 2
  if n < 1 or n > 3 then self:fail("[%s]: %d dims of space, want one to three", table.concat(x.shape, ","), n) end
  return n
end

---Attribute `name`: a number for each of n dims.
---@return integer[]
function M.by_dim(self, name, n, default)
  local list, out = self:attribute(name, nil, "table") or {}, {}
  for i = 1, n do
    out[i] = list[i] or default
    if out[i] < (default > 0 and 1 or 0) then self:fail("%s of [%s]", name, table.concat(list, ",")) end
  end
  return out
end

---{first, last, first, last ..} of the windows over x, after auto_pad and pads.
---@return integer[]
function M.padding(self, x, kernel, stride, dilation)
  local auto, list, n, pad = self:attribute("auto_pad", "NOTSET"), self:attribute("pads", nil, "table") or {}, #kernel, {}
  for i = 1, n do
    local size, reach = x.shape[i + 2], (kernel[i] - 1) * dilation[i] + 1
    local first, last = 0, 0
    if auto == "NOTSET" then
      first, last = list[i] or 0, list[i + n] or 0
      if first < 0 or last < 0 then self:fail("negative pads") end
    elseif auto ~= "VALID" then
      local total = math.max((math.ceil(size / stride[i]) - 1) * stride[i] + reach - size, 0)
      first = auto == "SAME_UPPER" and math.floor(total / 2) or math.ceil(total / 2)
      last = total - first
    end
    if size + first + last < reach then self:fail("a window of %d in %d pixels", reach, size + first + last) end
    pad[2 * i - 1], pad[2 * i] = first, last
  end
  return pad
end

---The attributes of a window as the IR's ops take them; kernel from kernel_shape where it is not given.
---@return {kernel: integer[], stride: integer[], dilation: integer[], pad: integer[]}
function M.window(self, x, kernel)
  local n = M.count(self, x)
  if not kernel and not self:attribute("kernel_shape", nil, "table") then self:fail("no kernel_shape") end
  kernel = kernel or M.by_dim(self, "kernel_shape", n, 1)
  local stride, dilation = M.by_dim(self, "strides", n, 1), M.by_dim(self, "dilations", n, 1)
  return { kernel = kernel, stride = stride, dilation = dilation, pad = M.padding(self, x, kernel, stride, dilation) }
end

---Emits an op that wants channels last on x [B,C,..]; the results have channels second again.
---@return IrValue ...
function M.emit(self, op, inputs, attr)
  local from, to = M.orders(#inputs[1].shape)
  local list = { unpack(inputs, 1, 8) }
  list[1] = self:transposed(inputs[1], from)
  local results = { self:emit(op, list, attr) }
  for i, y in ipairs(results) do results[i] = self:transposed(y, to) end
  return unpack(results)
end

---The convolution of x [B,C,..] and w [O,I,..] that the node's attributes ask for.
---@param x0 IrValue
---@param w IrValue
---@param b IrValue? [O]
---@return IrValue
function M.convolution(self, x0, w, b)
  local n, groups, x = M.count(self, x0), self:attribute("group", 1), x0
  if #w.shape ~= #x.shape then self:fail("weights [%s] for [%s]", table.concat(w.shape, ","), table.concat(x.shape, ",")) end
  local outputs, inputs = w.shape[1], w.shape[2]
  if groups < 1 or inputs * groups ~= x.shape[2] or outputs % groups ~= 0 then
    self:fail("weights [%s] in %d groups for %d channels", table.concat(w.shape, ","), groups, x.shape[2])
  end
  local attr = M.window(self, x, { unpack(w.shape, 3) })
  attr.kernel, attr.groups, attr.act = nil, groups, "none"
  if n == 1 then -- a picture of one row
    x, w = self:reshaped(x, { x.shape[1], x.shape[2], 1, x.shape[3] }), self:reshaped(w, { outputs, inputs, 1, w.shape[3] })
    attr.stride, attr.dilation, attr.pad = { 1, attr.stride[1] }, { 1, attr.dilation[1] }, { 0, 0, attr.pad[1], attr.pad[2] }
  end
  local y
  if n < 3 and groups > 1 and inputs == 1 and outputs == groups then
    attr.groups = nil
    y = M.emit(self, "depthwise", { x, self:transposed(w, { 2, 3, 4, 1 }), b }, attr)
  else
    y = M.emit(self, n == 3 and "conv3d" or "conv2d", { x, self:transposed(w, (M.orders(#w.shape))), b }, attr)
  end
  return n == 1 and self:reshaped(y, { y.shape[1], y.shape[2], y.shape[4] }) or y
end

return M
