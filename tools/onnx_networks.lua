-- Compares exported networks (tools/onnx_networks.py made them) with ONNX Runtime's answers: luajit tools/onnx_networks.lua FOLDER. Ends with 1 where one is off by more than 1e-3.
local here = arg and arg[0] and arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. package.path
require "libration"
local graph = require "libration.graph"
local npy = require "libration.formats.npy"
local layers = require "libration.graph.layers"
local lfs = require "lfs"

local LIMIT = 1e-3 -- of the largest answer

local function arrays(folder, kind)
  local list = {}
  while lfs.attributes(("%s/%s_%d.npy"):format(folder, kind, #list)) do list[#list + 1] = assert(npy.load(("%s/%s_%d.npy"):format(folder, kind, #list))) end
  return list
end

local names, failed = {}, false
for name in lfs.dir(assert(arg[1], "want a folder")) do
  if lfs.attributes(arg[1] .. "/" .. name .. "/model.onnx") then names[#names + 1] = name end
end
table.sort(names)
print "| network | nodes in the file | ops run | parameters | MFLOP | largest difference / largest answer |\n|---|---|---|---|---|---|"
for _, name in ipairs(names) do
  local folder = arg[1] .. "/" .. name
  local model = assert(require "libration.formats.onnx".load(folder .. "/model.onnx"))
  local network = assert(graph.load(folder .. "/model.onnx"))
  local out, worst = network:run(unpack(arrays(folder, "in"))), 0
  for i, want in ipairs(arrays(folder, "out")) do
    local have = out[network.outputs[i].name]
    assert(table.concat(have.shape, ",") == table.concat(want.shape, ","), name .. ": output " .. i .. " has another shape")
    have, want = have:to "f64", want:to "f64"
    worst = math.max(worst, (have - want):abs():max():item() / want:abs():max():item())
  end
  local _, parameters, flops = layers.rows(network.graph)
  failed = failed or not (worst <= LIMIT)
  print(("| %s | %d | %d | %d | %.0f | %.1e%s |"):format(name, #model.graph.nodes, #network.graph.nodes, parameters, flops / 1e6, worst, worst <= LIMIT and "" or " FAILED"))
end
os.exit(failed and 1 or 0)
