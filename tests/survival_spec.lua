-- Nothing lost: recipes killed at any moment, ended by signals, run twice into one folder, on full disks, over folders with bad recordings. Samples by default, all of it
-- with LIBRATION_FULL=1. Broken files are hostile_spec's, failing allocations allocation_spec's.
local csv = require "libration.formats.csv"
local files = require "libration.files"
local helper = require "helper"
local made_onnx = require "helper_onnx"
local runs = require "runs"
local shell = require "shell"
local small_disk = require "small_disk"
local weights = require "libration.weights"

local quote = files.quote
local full = helper.full()
local folder -- of the whole file: inputs are made once

local TRAIN = "--epochs 6 --checkpoint-every 2 --window 10 --batch 16 --stride 5 --hidden 8 --latent 4 --threads 1 --log-level warn"
local SPLIT = "--train 1-4 --validate 5,6 --test 7,8"

setup(function()
  folder = files.temporary_folder()
  files.mkdirs(folder .. "/bodies")
  for i = 1, 8 do runs.body(("%s/bodies/%02d.npy"):format(folder, i), 90, i) end
  files.write(folder .. "/bodies/labels.csv", "sequence,label\n01,0\n02,0\n03,0\n04,0\n05,0\n06,0\n07,1\n08,1\n")
end)
teardown(function() files.remove(folder) end)

local outputs = 0
local function fresh()
  outputs = outputs + 1
  return ("%s/out%d"):format(folder, outputs)
end

local function has_weights()
  return pcall(function() return assert(weights.find "pose_detection") and assert(weights.find "pose_landmark_full") end)
end

local function train(output, more)
  return ("luajit recipes/train.lua %s --data %s %s %s --output %s"):format(TRAIN, quote(folder .. "/bodies"), SPLIT, more or "", quote(output))
end

local detector
local function trained()
  if not detector then
    detector = folder .. "/trained/detector.safetensors"
    local text, code = shell(train(folder .. "/trained", "--epochs 1"))
    assert.equal(0, code, text)
  end
  return quote(detector)
end

local function detect(output, more)
  return ("luajit recipes/detect.lua --detector %s --threads 1 --log-level warn --landmarks %s/bodies %s --output %s"):format(trained(), quote(folder), more or "", quote(output))
end

-- Pictures of a rendered infant.
local function infant(frames)
  local set = ("%s/infant%d"):format(folder, frames)
  if not files.exists(set) then
    local text, code = shell(("luajit recipes/render.lua --sequences 1 --frames %d --output %s"):format(frames, quote(set)))
    assert.equal(0, code, text)
  end
  return quote(set .. "/01/rgb")
end

local function landmarks(output, frames, more)
  return ("luajit recipes/landmarks.lua %s --no-cache --threads 1 %s --output %s"):format(infant(frames or 4), more or "", quote(output))
end

local function evaluate(output)
  return ("luajit recipes/evaluate.lua --data %s/bodies --window 10 --epochs 1 --hidden 6 --latent 3 --seeds 1 --threads 1 --log-level error --output %s"):format(
    quote(folder), quote(output))
end

local function render(output, frames)
  return ("luajit recipes/render.lua --sequences 1 --frames %d --size 128x96 --output %s"):format(frames or 40, quote(output))
end

-- A network that sees the same two faces in every picture.
local function two_faces()
  local T, N = made_onnx.tensor, made_onnx.node
  return made_onnx.model {
    inputs = { made_onnx.info("x", "f32", { 1, 3, 32, 32 }) }, outputs = { made_onnx.info("scores", "f32", { 1, 2, 2 }), made_onnx.info("boxes", "f32", { 1, 2, 4 }) },
    constants = { T("none", "f32", {}, { 0 }), T("flat", "i64", { 3 }, { 1, 1, 1 }), T("s", "f32", { 1, 2, 2 }, { .1, .9, .1, .9 }),
      T("b", "f32", { 1, 2, 4 }, { .2, .2, .3, .35, .6, .3, .72, .5 }) },
    nodes = { N("ReduceMean", { "x" }, { "mean" }, { keepdims = 0 }), N("Mul", { "mean", "none" }, { "zero" }), N("Reshape", { "zero", "flat" }, { "z" }),
      N("Add", { "z", "s" }, { "scores" }), N("Add", { "z", "b" }, { "boxes" }) },
  }
end

-- Masks of a video, 24 frames of slowly changing colours; the recipe's only input, or beside two copies.
local function anonymise(output, more)
  local source, network = folder .. "/films/1.mp4", folder .. "/faces.onnx"
  if not files.exists(source) then
    files.mkdirs(folder .. "/films")
    files.write(network, two_faces())
    assert.equal(0, os.execute(("ffmpeg -nostdin -v error -y -f lavfi -i gradients=s=160x96:r=12:d=2:speed=.02 -pix_fmt yuv420p -c:v libx264 %s"):format(quote(source))))
    for i = 2, 3 do files.write(("%s/films/%d.mp4"):format(folder, i), files.read(source)) end
  end
  return ("luajit recipes/anonymise.lua %s --detector face --weights %s --style box --no-verify --threads 1 %s --output %s"):format(
    quote(source), quote(network), more or "", quote(output))
end

describe("kill -9 at random moments, then the same again:", function()
  local function survive(name, count, seed, command)
    local scratch = fresh()
    files.mkdirs(scratch)
    local sum = runs.kill_and_repeat(command, scratch, count, seed)
    if full then
      io.write(("%s: %d kills (%d runs had ended by then), %d files under final names, all whole; %d results the same after the next run; an undisturbed run %.1f s\n"):format(
        name, sum.killed, sum.finished, sum.files, sum.compared, sum.seconds))
    end
    assert.is_true(sum.compared > 2)
    files.remove(scratch)
  end

  if full then
    it("train --resume ends with the same bytes", function()
      survive("train", 20, 3, function(output) return train(output, "--resume") end)
    end)
  end
  it("detect ends with the same bytes #slow", function() survive("detect", full and 20 or 1, 5, detect) end)
  it("landmarks ends with the same bytes #slow", function()
    if not has_weights() then return pending "needs the networks' weights: make models" end
    survive("landmarks", full and 20 or 1, 7, function(output) return landmarks(output, full and 24 or 3) end)
  end)
  it("anonymise --resume ends with the same bytes, and the recordings are as they were #slow", function()
    local function three(output) return (anonymise(output, "--resume"):gsub("/1%.mp4", "")) end
    three(fresh())
    local before = runs.results(folder .. "/films")
    survive("anonymise", full and 20 or 1, 11, three)
    assert.same(before, runs.results(folder .. "/films"))
  end)
end)

describe("a second run with the same output folder is refused by name: #process", function()
  for name, command in pairs { train = train, detect = detect, landmarks = landmarks, evaluate = evaluate, render = render, anonymise = anonymise } do
    it(name .. (name == "train" and "" or " #slow"), function()
      if name == "landmarks" and not has_weights() then return pending "needs the networks' weights: make models" end
      local output = fresh()
      local line = command(output) -- may make its inputs
      local lock = assert(files.lock(output))
      local text, code = shell(line)
      lock:release()
      assert.equal(1, code, text)
      local lines = runs.errors_of(text)
      assert.truthy(lines[#lines]:find(("^%s: .*%s is in use by another run %%(process %%d+%%)$"):format(name, output:gsub("%p", "%%%0"))), text)
      assert.same({}, runs.tree(output))
    end)
  end
end)

describe("a full disk", function()
  -- Runs commands in a name space of their own with a file system of `size` at DIR; what they said, the last one's status, and what lies there after.
  local function on_small_disk(size, command)
    local disk = folder .. "/disk"
    files.mkdirs(disk)
    local text = small_disk(disk, size, ("(%s) 2>&1 >/dev/null; echo \"status $?\"; cd %s && find . -type f | sort; rm -rf %s/kept; cp -a . %s/kept"):format(
      command:gsub("DIR", quote(disk)), quote(disk), quote(folder), quote(folder)))
    if not text then return end
    local said, status, left = text:match "^(.-)status (%d+)\n(.*)$"
    return said, tonumber(status), left
  end

  local function one_line(recipe, said, status, left)
    assert.is_true(status ~= 0 and status < 128, ("ended with %d: %s"):format(status, said))
    local lines = runs.errors_of(said)
    assert.equal(1, #lines, said)
    assert.equal(recipe .. ": ", lines[1]:sub(1, #recipe + 2), said)
    assert.truthy(lines[1]:lower():find("disk is full", 1, true) or lines[1]:find("No space left", 1, true), said)
    assert.truthy(lines[1]:find(folder .. "/disk", 1, true), said)
    assert.falsy(left:find("/.tmp-", 1, true) or left:find(".partial", 1, true), left)
    runs.whole(folder .. "/kept")
    return lines[1]:match("disk[^:]*/([^:/]+):") or lines[1]
  end

  -- Sizes from the smallest disk on, a fifth more each time, until the recipe ends well: every file it writes is the first that finds no room.
  local function each_file(recipe, command, last)
    local kib, named, count = 4, {}, 0
    while true do
      local said, status, left = on_small_disk(kib .. "k", command)
      if not said then return nil end
      if status == 0 then break end
      local file = one_line(recipe, said, status, left)
      if not named[file] then named[#named + 1] = file end
      named[file], count = true, count + 1
      assert.falsy(left:find(last, 1, true), left)
      kib = math.ceil(kib * 1.2 / 4) * 4
    end
    io.write(("%s: %d disks too small, up to %d KiB; the file without room was %s\n"):format(recipe, count, kib, table.concat(named, ", ")))
    return count
  end

  local function at_each(recipe, sizes, command, last)
    return function()
      if recipe == "landmarks" and not has_weights() then return pending "needs the networks' weights: make models" end
      local line = command("DIR/out"):gsub("'DIR/out'", "DIR/out")
      if full then
        if not each_file(recipe, line, last) then return pending "needs the right to mount" end
        return
      end
      for _, size in ipairs(sizes) do
        local said, status, left = on_small_disk(size, line)
        if not said then return pending "needs the right to mount" end
        one_line(recipe, said, status, left)
        assert.falsy(left:find(last, 1, true), size .. ": " .. left)
      end
    end
  end

  it("is named by render, whole pictures stay #slow", at_each("render", { "40k" }, render, "labels.csv"))
  it("is named by train, files before it are whole #slow", at_each("train", { "8k", "100k" }, train, "report.html"))
  it("is named by detect #slow", at_each("detect", { "120k" }, function(output) return detect(output):gsub("/bodies ", "/bodies/06.npy ") end, "report.html"))
  it("is named by landmarks #slow", at_each("landmarks", { "12k" }, landmarks, "run.json"))
  it("is named by anonymise #slow", at_each("anonymise", { "4k", "16k" }, anonymise, "report.html"))
  it("is named by evaluate #slow", at_each("evaluate", { "16k" }, evaluate, "report.html"))

  it("keeps what training has so far: --resume goes on after space is made, to the same bytes #slow", function()
    local whole = fresh()
    local text, code = shell(train(whole))
    assert.equal(0, code, text)
    local line = train("DIR/out", "--resume"):gsub("'DIR/out'", "DIR/out")
    local said, status = on_small_disk("120k", ("%s; echo first $? >&2; mount -o remount,size=8m DIR; %s"):format(line, line))
    if not said then return pending "needs the right to mount" end
    assert.truthy(said:find("train: .-disk is full.-first 1"), said)
    assert.equal(0, status, said)
    local want, have = runs.results(whole), runs.results(folder .. "/kept/out")
    assert.same(want, have)
  end)

  it("silences the log once, with a warning, and ends no work", function()
    local script = folder .. "/log.lua"
    files.write(script, ([[package.path = "lua/?.lua;" .. package.path
      local log = require "libration.log"
      assert(log.setup {path = %q})
      for i = 1, 4000 do log.debug("a line that fills the disk, number %%d", i) end
      log.info("done") log.close()]]):format(folder .. "/disk/run.log"))
    local said, status = on_small_disk("16k", "luajit " .. quote(script))
    if not said then return pending "needs the right to mount" end
    assert.equal(0, status, said)
    assert.equal(("warning: cannot write %s/disk/run.log any more: the disk is full (no space left)\ndone\n"):format(folder), said)
  end)
end)

describe("a signal #process", function()
  for signal, want in pairs { INT = 130, TERM = 143, HUP = 129 } do
    it(("SIG%s ends a recipe with one line and %d, and leaves nothing half done%s"):format(signal, want, signal == "TERM" and "" or " #slow"), function()
      local out = fresh()
      local text = shell(([[
luajit recipes/render.lua --sequences 1 --frames 600 --output %s >/dev/null 2>%s/said & pid=$!
n=0; while [ -z "$(ls -d %s/.*.partial 2>/dev/null)" ] && [ $n -lt 200 ]; do sleep .05; n=$((n+1)); done
kill -%s $pid; wait $pid; echo "exit $?"; cat %s/said]]):format(out, folder, out, signal, folder))
      assert.truthy(text:find("exit " .. want, 1, true), text)
      assert.same({ "render: interrupted" }, runs.errors_of((text:gsub("exit %d+\n", ""))))
      assert.equal("", runs.leftovers(out))
    end)
  end
end)

describe("a folder with bad recordings", function()
  local function rows_of(path)
    local columns, rows = csv.read(path)
    assert(columns, rows)
    local at = {}
    for i, name in ipairs(columns) do at[name] = i end
    local list = {}
    for i, row in ipairs(rows) do list[i] = { input = files.name(row[at.input]), verdict = row[at.verdict], reason = row[at.reason] } end
    return list
  end

  -- Kills detect after `done` inputs are done, runs it again, and looks at the summary.
  local function killed_and_resumed(command, output, after, total, bad)
    shell(([[%s >/dev/null 2>&1 & pid=$!
n=0; while [ "$(ls %s/*/done.json 2>/dev/null | wc -l)" -lt %d ] && [ $n -lt 12000 ] && kill -0 $pid 2>/dev/null; do sleep .05; n=$((n+1)); done; kill -9 $pid; wait $pid]]):format(
      command, quote(output), after))
    runs.whole(output)
    local before = #runs.tree(output) > 0 and assert(files.list(output)) or {}
    local stamps, done = {}, 0
    for _, name in ipairs(before) do
      local path = files.join(output, name, "done.json")
      if files.exists(path) then
        stamps[name], done = require "lfs".attributes(files.join(output, name, "report.html"), "modification"), done + 1
      end
    end
    assert.is_true(done >= after and done < total, done .. " done before the kill")
    local text, code = shell(command)
    assert.equal(0, code, text)
    local said = 0
    for _ in text:gmatch("done before") do said = said + 1 end
    assert.equal(done, said, text)
    for name, stamp in pairs(stamps) do assert.equal(stamp, require "lfs".attributes(files.join(output, name, "report.html"), "modification"), name) end
    local list = rows_of(output .. "/summary.csv")
    assert.equal(total, #list)
    local failed = {}
    for _, row in ipairs(list) do
      if row.verdict == "error" then
        failed[row.input] = row.reason
      else
        assert.truthy(row.verdict == "normal" or row.verdict == "abnormal" or row.verdict == "not scored" and row.reason ~= "", row.input .. ": " .. row.verdict)
      end
    end
    for name, words in pairs(bad) do assert.truthy(failed[name] and failed[name]:find(words), name .. ": " .. tostring(failed[name])) end
    for name, reason in pairs(failed) do assert.truthy(bad[name], name .. ": " .. reason) end
    return done
  end

  it("six landmark files, two of them bad: the others are judged, after a kill what is done is left #slow", function()
    local set, out = fresh(), fresh()
    files.mkdirs(set)
    for i = 1, 4 do runs.body(("%s/%02d.npy"):format(set, i), 85 + i, 20 + i) end
    files.write(set .. "/text.npy", "this is text, whatever its name says\n")
    files.write(set .. "/cut.npy", assert(files.read(set .. "/01.npy")):sub(1, 2000))
    local command = ("luajit recipes/detect.lua --detector %s --threads 1 --landmarks %s --output %s"):format(trained(), quote(set), quote(out))
    killed_and_resumed(command, out, 1, 6, { ["text.npy"] = "text.npy", ["cut.npy"] = "cut.npy" })
    local text, code = shell(command .. " --no-resume")
    assert.equal(0, code, text)
    assert.falsy(text:find("done before", 1, true), text)
  end)

  if full then
    it("200 videos, three of them bad", function()
      if not has_weights() then return pending "needs the networks' weights: make models" end
      local set, out, sets = fresh(), fresh(), require("libration.data.infant").cached(1)
      if not files.exists(sets .. "/complete") then return pending "needs the rendered data set: make demo" end
      files.mkdirs(set)
      for i = 1, 198 do
        local sequence, first = (i - 1) % 12 + 1, math.floor((i - 1) / 12) * 9
        local how = "ffmpeg -v error -framerate 25 -start_number %d -i %s/%02d/rgb/syn_%%05d.png -frames:v 36 -pix_fmt yuv420p -c:v libx264 -preset ultrafast %s/%03d.mp4"
        assert.equal(0, os.execute(how:format(first, quote(sets), sequence, quote(set), i)))
      end
      files.write(set .. "/007.mp4", assert(files.read(set .. "/007.mp4")):sub(1, 3000))
      files.write(set .. "/199.mp4", "this is text, whatever its name says\n")
      assert.equal(0, os.execute(("ffmpeg -v error -f lavfi -i color=gray:s=320x240:r=25:d=1.44 -pix_fmt yuv420p -c:v libx264 %s/200.mp4"):format(quote(set))))
      local clock = require "libration.progress".clock
      local begin = clock()
      local command = ("luajit recipes/detect.lua --detector %s --no-cache --video %s --output %s"):format(trained(), quote(set), quote(out))
      local done = killed_and_resumed(command, out, 60, 200, { ["007.mp4"] = "007.mp4", ["199.mp4"] = "199.mp4", ["200.mp4"] = "no person found" })
      io.write(("200 videos of 36 frames: killed after %d, the rest done by the next run, 3 with their reason, %.0f s in all\n"):format(done, clock() - begin))
    end)
  end
end)

describe("a long recording", function()
  it("is written frame by frame: 3,000 frames of landmarks leave less than 1 MiB in memory", function()
    local ffi = require "ffi"
    local npy, openpose = require "libration.formats.npy", require "libration.formats.openpose"
    local skeleton, out = require "libration.pose.skeletons".blazepose33, fresh()
    local writers = {
      npy.writer(out .. "/a.npy", { 33, 5 }), csv.landmark_writer(out .. "/a.csv", { joints = skeleton.joints, channels = { "x", "y", "z", "visibility", "presence" } }),
      openpose.writer(out .. "/a.json", 33, 5),
    }
    local row = ffi.new("float[165]")
    local function write(from, to)
      for t = from, to do
        for i = 0, 164 do row[i] = t + i / 8 end
        writers[1]:append_row(row)
        writers[2]:append(row, t / 25)
        writers[3]:append(row, t / 25)
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage "count"
    end
    local before = write(1, 300)
    assert.is_true(write(301, 3000) - before < 1024)
    for _, writer in ipairs(writers) do writer:abort() end
    assert.same({}, runs.tree(out))
  end)

  -- Runs a recipe to its end; MiB every so many seconds, VmRSS: resident then, VmHWM: at most until then.
  local function watched(command, figure, seconds)
    local text, code = shell(([[%s >%s/said 2>&1 & pid=$!
  while kill -0 $pid 2>/dev/null; do awk '/%s/{print "resident " $2}' /proc/$pid/status 2>/dev/null; sleep %d; done
  wait $pid || exit 1]]):format(command, quote(folder), figure, seconds))
    assert.equal(0, code, files.read(folder .. "/said"))
    local curve = {}
    for kib in text:gmatch "resident (%d+)" do curve[#curve + 1] = tonumber(kib) / 1024 end
    return curve
  end

  if full then
    it("of an hour grows by at most 64 MiB after its first minute", function()
      if not has_weights() then return pending "needs the networks' weights: make models" end
      local frames = infant(200):gsub("'$", "/syn_%%05d.png'")
      local clip, hour, out = folder .. "/clip.mp4", folder .. "/hour.mp4", fresh()
      assert.equal(0, os.execute(("ffmpeg -v error -framerate 25 -i %s -pix_fmt yuv420p -c:v libx264 %s && ffmpeg -v error -stream_loop 449 -i %s -c copy %s"):format(
        frames, quote(clip), quote(clip), quote(hour))))
      local curve = watched(("luajit recipes/landmarks.lua %s --no-cache --output %s"):format(quote(hour), quote(out)), "VmRSS", 10)
      local first, most = curve[7], 0
      for i = 7, #curve do most = math.max(most, curve[i]) end
      io.write(("an hour of video: resident %.0f MiB after the first minute, at most %.0f MiB later, %d samples\n"):format(first, most, #curve))
      assert.is_true(most - first <= 64)
      assert.equal(90000, require "libration.formats.npy".load(out .. "/landmarks.npy"):size(1))
    end)

    -- Every frame is decoded, masked, encoded and decoded again for the second look; a network that always sees two faces stands in for the first look's detectors, whose
    -- time would be hours of a test, and leaves as many samples as frames. Ten frames a second: a quarter of an hour where nothing else runs.
    it("of an hour of 1080p is anonymised in at most 64 MiB more than a minute of it", function()
      local clip, network = folder .. "/wide.mp4", folder .. "/two.onnx"
      files.write(network, two_faces())
      local source = "ffmpeg -nostdin -v error -y -f lavfi -i gradients=s=1920x1080:r=10:d=12:speed=.02 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -crf 30 "
      assert.equal(0, os.execute(source .. quote(clip)))
      local most = {}
      for i, count in ipairs { 600, 36000 } do
        local long, out = ("%s/long%d.mp4"):format(folder, i), fresh()
        local repeated = ("ffmpeg -nostdin -v error -y -stream_loop %d -i %s -c copy -frames:v %d %s"):format(math.ceil(count / 120), quote(clip), count, quote(long))
        assert.equal(0, os.execute(repeated))
        local command = ("luajit recipes/anonymise.lua %s --detector face --weights %s --style box --every 2 --encoder-preset ultrafast --crf 40 --output %s"):format(
          quote(long), quote(network), quote(out))
        local curve = watched(command, "VmHWM", 1)
        most[i] = curve[#curve]
        local plan = assert(require "libration.pose.sidecar".read(out .. ("/long%d.anonymised.json"):format(i)))
        assert.same({ count, 2, count }, { plan.input.frames, #plan.tracks, plan.tracks[1].count })
        files.remove(long)
      end
      io.write(("an hour of 1080p anonymised: at most %.0f MiB resident; a minute: %.0f MiB\n"):format(most[2], most[1]))
      assert.is_true(most[2] - most[1] <= 64)
    end)
  end
end)
