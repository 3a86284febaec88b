-- first_score.lua: a whole process from its start to the first score on the screen: first_score.lua WEIGHTS.safetensors WINDOWS.npy. The peer is first_score.py.
local here = arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../../lua/?.lua;" .. here .. "/../../lua/?/init.lua;" .. package.path
local lr = require "libration"
local Autoencoder = require "libration.anomaly.autoencoder"

local state = assert(require("libration.formats.safetensors").load(arg[1]))
local x = assert(require("libration.formats.npy").load(arg[2]))
local model = Autoencoder.new {input = x:size(3), window = x:size(2)}
model:load_state_dict(state)
lr.no_grad(function()
  local e = lr.mean(lr.square(model(x) - x), {2, 3})
  print(("%.6f"):format(e:get(1)))
end)
