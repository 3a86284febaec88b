-- libration: the toolkit's door. The engine is here; rooms such as libration.nn, libration.pose are required by name.
local core = require "libration.core"
local tensor = require "libration.tensor"
local ops = require "libration.ops"
local record = require "libration.record"
local regions = require "libration.regions"
local device = require "libration.device"
local autograd = require "libration.autograd"
require "libration.ops.functions"
require "libration.ops.reductions"
require "libration.ops.products"
require "libration.ops.index"
require "libration.ops.norm"
require "libration.ops.random"
require "libration.ops.recurrent"
require "libration.ops.quantise"
require "libration.ops.sample"

local libration = {version = "0.1.0", core = core, threads = core.threads, device = device}

for _, name in ipairs {"tensor", "empty", "full", "zeros", "ones", "arange", "scope", "keep", "free", "memory", "is_tensor"} do libration[name] = tensor[name] end
for name, fn in pairs(ops) do
  if type(fn) == "function" then libration[name] = fn end
end
for name, fn in pairs(regions) do libration[name] = fn end
libration.record, libration.compare, libration.debug_nan = record.record, record.compare, record.debug_nan
libration.tape, libration.close_tape, libration.requires_grad, libration.no_grad = autograd.tape, autograd.close_tape, autograd.requires_grad, autograd.no_grad

-- Rooms and the interactive parts load when they are first touched.
require "libration.lazy"("libration.", "help nn optim train formats media graph pose motion data anomaly report", libration)

-- `luajit -l libration -i`: no script stands at arg[0]
if type(arg) == "table" and not arg[0] then require("libration.repl").attach(libration) end

return libration
