-- Shows the whole path on the embedded data set: render, landmarks, train, detect, report.
local here = arg and arg[0] and arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. package.path
local options = require "libration.options"

local about = "Shows the whole path on the embedded data set: renders 12 infants, finds their landmarks, trains a detector on normal movement, calibrates it,\n" ..
  "and judges two infants that it has not seen, one normal (11) and one abnormal (12). Prints the commands, so that they can be run on your own data."

local rows = require("libration.data.rows").of {
  {"output", "runs/demo", "folder for the results", metavar = "DIR"},
  {"seed", 1, "of the data set, the initial weights and the order of the data", min = 0, max = 4294967295},
  {"overlay", true, "write overlay videos of the two test infants"},
  "device", "threads",
}

options.main(function()
  local o = options.parse("demo", about, rows, arg)
  local files, progress = require "libration.files", require "libration.progress"
  local begin = progress.clock()
  local luajit = arg[-1] or "luajit"

  local function run(recipe, words)
    local quoted = {files.quote(luajit), files.quote(here .. "/" .. recipe .. ".lua")}
    for _, word in ipairs(words) do quoted[#quoted + 1] = files.quote(word) end
    io.stdout:write("\n$ luajit recipes/", recipe, ".lua ", table.concat(words, " "), "\n")
    io.stdout:flush()
    if os.execute(table.concat(quoted, " ")) ~= 0 then error(("demo: %s stopped; what it says stands above"):format(recipe), 0) end
  end

  local threads = tostring(o.threads)
  local data = require("libration.data.infant").cached(o.seed)
  local detector = files.join(o.output, "detector.safetensors")
  run("train", {"--render-seed", tostring(o.seed), "--seed", tostring(o.seed), "--threads", threads, "--device", o.device, "--output", o.output})
  run("detect", {"--video", files.join(data, "11"), files.join(data, "12"), "--detector", detector, "--output", files.join(o.output, "detect"), "--threads", threads,
    "--device", o.device,
    o.overlay and "--overlay" or "--no-overlay"})

  local absolute = files.absolute(o.output)
  print(("\ndone in %.0f s. Training and test: %s\nthe two test infants: %s and %s"):format(progress.clock() - begin, files.join(absolute, "report.html"),
    files.join(absolute, "detect", "11", "report.html"), files.join(absolute, "detect", "12", "report.html")))
  print("report: " .. files.join(absolute, "report.html"))
end)
