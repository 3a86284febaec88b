-- What an imported network consists of: the table of its layers with shapes, parameters and floating point operations. Runs nothing.
local tensor = require "libration.tensor"

local M = {}

local product = tensor.product

-- Operations of a layer; a product and a sum are two.
local flops = {
  conv2d = function(node)
    local w = node.inputs[2].shape
    return 2 * product(node.outputs[1].shape) * w[2] * w[3] * w[4]
  end,
  conv2d_int8 = function(node)
    local w = node.inputs[2].shape
    return 2 * product(node.outputs[1].shape) * w[2] * w[3] * w[4]
  end,
  depthwise = function(node)
    local w = node.inputs[2].shape
    return 2 * product(node.outputs[1].shape) * w[#w - 2] * w[#w - 1]
  end,
  linear = function(node) return 2 * product(node.outputs[1].shape) * node.inputs[2].shape[2] end,
  matmul = function(node)
    local a = node.inputs[1].shape
    return 2 * product(node.outputs[1].shape) * a[node.attr.transpose_a and #a - 1 or #a]
  end,
  lstm = function(node)
    local x, r = node.inputs[1].shape, node.inputs[3].shape
    return 2 * x[1] * x[2] * r[1] * (x[3] + r[2])
  end,
}
local moves = { reshape = true, transpose = true, slice = true, concat = true, pad = true, expand = true, gather = true, cast = true, to_bytes = true, to_numbers = true }

local function window(node)
  local w = (node.op == "conv2d" or node.op == "conv2d_int8") and node.inputs[2].shape
  if w then return ("%dx%d"):format(w[2], w[3]) end
  w = node.op == "depthwise" and node.inputs[2].shape
  if w then return ("%dx%d"):format(w[#w - 2], w[#w - 1]) end
  return node.attr.kernel and table.concat(node.attr.kernel, "x") or ""
end

---Rows of the table.
---@param g IrGraph
---@return {op: string, detail: string, shape: string, parameters: number, flops: number}[] rows
---@return number parameters of the network
---@return number flops
function M.rows(g)
  local rows, all_parameters, all_flops, counted = {}, 0, 0, {}
  for i, node in ipairs(g.nodes) do
    local parameters = 0
    for k = 1, node.arity do
      local v = node.inputs[k]
      if v and v.data and product(v.shape) > 1 and not counted[v] then
        parameters = parameters + product(v.shape)
        counted[v] = true
      end
    end
    local n = flops[node.op] and flops[node.op](node) or moves[node.op] and 0 or product(node.outputs[1].shape)
    local detail, a = window(node), node.attr
    if a.stride and (a.stride[1] > 1 or a.stride[2] > 1) then detail = detail .. " /" .. a.stride[1] end
    if a.act and a.act ~= "none" then detail = detail .. " " .. a.act end
    if (node.op == "conv2d" or node.op == "conv2d_int8" or node.op == "depthwise") and node.inputs[4] then detail = detail .. " + residual" end
    rows[i] = { op = node.op, detail = (detail:gsub("^ ", "")), shape = table.concat(node.outputs[1].shape, ","), parameters = parameters, flops = n }
    all_parameters, all_flops = all_parameters + parameters, all_flops + n
  end
  return rows, all_parameters, all_flops
end

---The table as text.
---@param g IrGraph
---@return string
function M.describe(g)
  local rows, parameters, operations = M.rows(g)
  local lines = { ("%4s  %-16s %-18s %-20s %12s %10s"):format("", "op", "", "shape", "parameters", "MFLOP") }
  for i, row in ipairs(rows) do
    lines[i + 1] = ("%4d  %-16s %-18s %-20s %12d %10.2f"):format(i, row.op, row.detail, row.shape, row.parameters, row.flops / 1e6)
  end
  lines[#lines + 1] = ("%d layers, %d parameters, %.1f MFLOP"):format(#rows, parameters, operations / 1e6)
  return table.concat(lines, "\n")
end

return M
