-- bench.lua: speed of the library beside what the processor can do at most and, with --peers, beside MediaPipe, PyTorch and ONNX Runtime in the same run.
local here = arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. here .. "/?.lua;" .. package.path
local options = require "libration.options"

local about = "Prints machine, workload, time (median, spread, least), rate, share of what the processor can do; with --peers the ratio to each peer, ours and theirs in turns."

local rows = {
  {"only", "", "rows whose group or name holds this text", metavar = "NAME"},
  {"quick", false, "fewer repetitions"},
  {"peers", false, "compare with MediaPipe, PyTorch and ONNX Runtime, in Python environments made in the user's cache folder"},
  {"peers-only", false, "leave our own rows out"},
  {"python", "", "a Python that has torch, onnx and onnxruntime already, instead of a new environment", metavar = "FILE"},
  {"mediapipe-python", "", "a Python that has mediapipe already", metavar = "FILE"},
  {"threads", 0, "threads of ours; 0: all cores", min = 0},
  {"output", "", "file of the raw times; empty: build/bench.tsv", metavar = "FILE"},
}

options.main(function()
  local o = options.parse("bench", about, rows, arg)
  local lr, files = require "libration", require "libration.files"
  local harness, machine, own = require "bench.harness", require "bench.machine", require "bench.own"
  if o.threads > 0 then lr.threads(o.threads) end
  local root = files.join(here, "..")
  local build = files.join(root, "build")
  local h = harness.new {only = o.only, quick = o.quick, tsv = o.output ~= "" and o.output or files.join(build, "bench.tsv")}
  local run = {
    root = root, here = files.join(here, "bench"), quick = o.quick, python = o.python ~= "" and o.python or nil,
    mediapipe_python = o.mediapipe_python ~= "" and o.mediapipe_python or nil,
  }
  lr.matmul(lr.ones {2, 2}, lr.ones {2, 2}) -- opens oneDNN, whose version stands in the line below
  print(machine.describe())
  local measure = machine.limit(run.here, build)
  local limit = measure(o.quick and 3 or 10)
  if limit then
    print(("limit of %d threads: %.0f GF/s (f32 multiply-add), %.1f GB/s (copy, read and written)"):format(lr.threads(), limit.flops / 1e9, limit.bytes / 1e9))
  else
    print "limit: not measured, no C compiler here"
  end
  h.ceiling = limit or {}
  function run.limit() measure(2) end
  if not o.peers_only then own.run(h, run) end
  if o.peers or o.peers_only then require("bench.peers").run(h, run) end
  if limit then print(("\nlimit, best of the whole run: %.0f GF/s, %.1f GB/s"):format(limit.flops / 1e9, limit.bytes / 1e9)) end
  h:finish()
end, "bench")
