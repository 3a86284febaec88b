-- Runs a network file (ONNX, TFLite, a saved plan) on a picture, arrays or random numbers and prints its layers, outputs and times.
local here = arg and arg[0] and arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. package.path
local options = require "libration.options"

local about = "Runs a network file (ONNX, TFLite, a saved plan) on a picture, arrays or random numbers and prints its layers, outputs and times.\n\n" ..
  "A picture is resized (bilinear) to what the network takes; its numbers become (pixel / divide - mean) / sd. Several inputs: as many files, with commas between."

local function shape_list(list)
  for _, text in ipairs(list) do
    if not text:find "^[^=]+=%d+[x%d]*$" then return nil, ("'%s', want NAME=1x3x640x640"):format(text) end
  end
  return true
end

local function plan_name(path)
  if path ~= "" and not path:find "%.plan$" then return nil, "want a name that ends in .plan" end
  return true
end

local rows = {
  {"model", "", "network file: .onnx, .tflite, or .plan as --save writes it", metavar = "FILE", required = true},
  {"input", {"random"}, "for each input a picture, a .npy file or `random`", of = "string", metavar = "LIST"},
  {"shape", {}, "sizes that the file leaves open: NAME=1x3x640x640; default: those of the .npy file, the picture's own height and width, else 1", of = "string", metavar = "LIST",
    check = shape_list},
  {"divide", 255, "what a picture's numbers are divided by", type = "number", above = 0},
  {"mean", {0}, "subtracted then: one number, or one for each channel", of = "number", metavar = "LIST"},
  {"sd", {1}, "divided by then", of = "number", metavar = "LIST"},
  {"order", "rgb", "order of a picture's channels", choices = {"rgb", "bgr"}},
  {"output", "", "folder for the outputs, NAME.npy each; empty: none is written", metavar = "DIR"},
  {"save", "", "file for network, weights and plan for these inputs' sizes, which --model and C programs run: .plan", metavar = "FILE", check = plan_name},
  {"precision", "f32", "number type between the first layer and the heads; its error against f32 is printed", choices = {"f32", "bf16", "int8"}},
  {"calibrate", {}, "for int8, of a network with one input: sample pictures or .npy files, or a folder of them; ranges of numbers are taken from them (at most 32)",
    of = "string", metavar = "LIST"},
  {"repeat", 5, "timed runs", min = 1},
  {"layers", 15, "slowest ops to list; 0: all, in their order", min = 0},
  {"seed", 0, "of random inputs", min = 0},
  {"threads", 0, "processor threads; 0: all cores", min = 0},
}

local function parse_shapes(list)
  local shapes = {}
  for _, text in ipairs(list) do
    local name, sizes = text:match "^([^=]+)=(.*)$"
    shapes[name] = {}
    for n in sizes:gmatch "%d+" do table.insert(shapes[name], tonumber(n)) end
  end
  return shapes
end

-- One number a channel as [C].
local function by_channel(list, name)
  if #list ~= 1 and #list ~= 3 then error(("--%s: %d numbers, want one or three"):format(name, #list), 0) end
  return require("libration").tensor { list[1], list[2] or list[1], list[3] or list[1] }
end

-- A picture as the network takes it: f32 [B,H,W,3] or [B,3,H,W].
local function picture(path, info, shape, o)
  local lr, media = require "libration", require "libration.media"
  local pixels = assert(media.read_picture(path))
  local first = shape[2] == 3 -- channels before the place
  if #shape ~= 4 or not (first or shape[4] == 3) then error(("%s: input '%s' is [%s], no picture of three channels"):format(path, info.name, table.concat(shape, ",")), 0) end
  local h, w = shape[first and 3 or 2], shape[first and 4 or 3]
  h, w = type(h) == "number" and h or pixels:size(1), type(w) == "number" and w or pixels:size(2)
  local x = pixels:to("f32"):reshape(1, pixels:size(1), pixels:size(2), 3)
  if h ~= pixels:size(1) or w ~= pixels:size(2) then x = lr.resize_bilinear(x, {h, w}) end
  if o.order == "bgr" then x = x:flip(4) end
  x = (x / o.divide - by_channel(o.mean, "mean")) / by_channel(o.sd, "sd")
  return (first and x:permute(1, 4, 2, 3) or x):contiguous()
end

local function input(info, what, shape, o, seed)
  local lr, npy = require "libration", require "libration.formats.npy"
  local kinds = require("libration.formats.onnx").carriers
  local dtype = kinds[info.kind] or "f32"
  if what == "random" then
    local sizes = {}
    for d, n in ipairs(shape) do sizes[d] = type(n) == "number" and n or 1 end
    local x = lr.randn(sizes, {seed = seed})
    return (dtype == "i32" or dtype == "u8") and (x:abs() * 2):to(dtype) or x:to(dtype)
  elseif what:find "%.npy$" then
    return assert(npy.load(what)):to(dtype)
  end
  return picture(what, info, shape, o):to(dtype)
end

local function summary(t)
  local numbers = t:to("f64")
  return ("%s [%s]: %.6g to %.6g, mean %.6g"):format(t.dtype, table.concat(t.shape, ","), numbers:min():item(), numbers:max():item(), numbers:mean():item())
end

local MOST_SAMPLES = 32

-- The sample inputs of --calibrate.
local function samples(o, info, shape)
  local files = require "libration.files"
  local list = {}
  if #o.calibrate == 0 then error("--precision int8 wants --calibrate with sample pictures", 0) end
  for _, path in ipairs(o.calibrate) do
    if files.is_folder(path) then
      for _, name in ipairs(assert(files.list(path))) do
        local ending = (name:match "%.(%w+)$" or ""):lower()
        if ending == "png" or ending == "jpg" or ending == "jpeg" or ending == "npy" then list[#list + 1] = files.join(path, name) end
      end
    else
      list[#list + 1] = path
    end
  end
  if #list == 0 then error(("--calibrate: %s has no picture and no .npy file"):format(table.concat(o.calibrate, ",")), 0) end
  local out, step = {}, math.max(1, #list / MOST_SAMPLES)
  for i = 1, #list, step do out[#out + 1] = input(info, list[math.floor(i)], shape, o, 0) end
  return out
end

-- What another number type than f32 costs, output by output.
local function print_errors(o, model, inputs, results, shapes)
  local graph, limits = require "libration.graph", require "libration.graph.limits"
  if model.graph.quantised then print(("int8: %d of %d convolutions in 8 bits, percentile calibration"):format(unpack(model.graph.quantised))) end
  local exact = assert(graph.load(o.model, {shapes = shapes})):run(unpack(inputs))
  for _, out in ipairs(model.outputs) do
    print(("error   %-24s against f32: relative L2 %.3g, largest %.3g"):format(out.name, limits.difference(results[out.name], exact[out.name])))
  end
end

options.main(function()
  local o = options.parse("run", about, rows, arg)
  local lr, files = require "libration", require "libration.files"
  local npy, graph, limits = require "libration.formats.npy", require "libration.graph", require "libration.graph.limits"
  local core = lr.core
  if o.threads > 0 then lr.threads(o.threads) end

  local shapes = parse_shapes(o.shape)
  local calibration
  if o.precision == "int8" then
    local plain = assert(graph.load(o.model, {shapes = shapes}))
    if #plain.inputs ~= 1 then error(("--precision int8: %s has %d inputs; only networks with one are calibrated here"):format(o.model, #plain.inputs), 0) end
    calibration = samples(o, plain.inputs[1], shapes[plain.inputs[1].name] or plain.inputs[1].shape or {})
  end
  local model = assert(graph.load(o.model, {precision = o.precision, calibration = calibration, shapes = shapes}))
  local given = #o.input == 1 and o.input[1] == "random" and {} or o.input
  if #given > 0 and #given ~= #model.inputs then error(("--input: %d files, %s has %d inputs"):format(#given, o.model, #model.inputs), 0) end
  local inputs = {}
  for i, info in ipairs(model.inputs) do
    inputs[i] = input(info, given[i] or "random", shapes[info.name] or info.shape or {}, o, o.seed + i - 1)
    print(("input   %-24s %s"):format(info.name, summary(inputs[i])))
  end

  local results = model:run(unpack(inputs))
  print(model)
  local times = {}
  for i = 1, o["repeat"] do
    local start = core.C.lbr_clock()
    results = model:run(unpack(inputs))
    times[i] = core.C.lbr_clock() - start
  end
  for _, out in ipairs(model.outputs) do
    print(("output  %-24s %s"):format(out.name, summary(results[out.name])))
    if o.output ~= "" then
      assert(files.mkdirs(o.output))
      npy.save(files.join(o.output, out.name:gsub("[^%w_%-%.]", "_") .. ".npy"), results[out.name])
    end
  end

  if o.precision ~= "f32" then print_errors(o, model, inputs, results, shapes) end

  if o.save ~= "" then
    if not model.plan then error(("--save: %s is a saved plan already"):format(o.model), 0) end
    print(("saved   %s"):format(model:plan(unpack(inputs)):save(o.save)))
  end

  local limit = limits.measure()
  local calls, total = model:profile(unpack(inputs)):calls(true), 0
  for i, call in ipairs(calls) do
    call.number = i
    total = total + call.seconds
  end
  if o.layers > 0 then table.sort(calls, function(a, b) return a.seconds > b.seconds end) end
  print(("\n%4s  %-18s %-24s %10s %7s %9s %9s"):format("", o.layers > 0 and "slowest ops" or "ops", "output", "ms", "share", "GF/s", "of limit"))
  for i = 1, o.layers > 0 and math.min(o.layers, #calls) or #calls do
    local call = calls[i]
    print(("%4d  %-18s %-24s %10.3f %6.1f%% %9.1f %8.0f%%"):format(call.number, call.name, call.outputs[1] or "", call.seconds * 1e3, 100 * call.seconds / total,
      call.seconds > 0 and call.flops / call.seconds / 1e9 or 0, 100 * limits.share(call, limit)))
  end
  print(("\nlimit, measured beside it: %.0f GF/s (f32), %.0f GF/s (int8), %.1f GB/s (copy); above 100 %%: operations saved, or numbers in the caches"):format(
    limit.flops / 1e9, limit.int8 / 1e9, limit.bytes / 1e9))
  table.sort(times)
  print(("\n%.2f ms a run (median of %d, fastest %.2f)"):format(times[math.ceil(#times / 2)] * 1e3, #times, times[1] * 1e3))
end)
