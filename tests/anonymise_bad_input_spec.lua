-- Odd and broken videos through the whole of recipes/anonymise.lua: one run over a folder of them. What decoding and encoding alone do with them is transcode_spec's.
local files = require "libration.files"
local made_onnx = require "helper_onnx"
local made = require "helper_media"
local media = require "libration.media"
local sidecar = require "libration.pose.sidecar"
local shell = require "shell"

local quote = files.quote
local CLIP = "-f lavfi -i testsrc2=s=%s:r=10:d=%s %s -pix_fmt %s -c:v libx264 -preset ultrafast -g 5 -bf 0 -threads 1"

describe("recipes/anonymise, bad videos #process", function()
  local weights = require "libration.weights"
  local why = not made.has_ffmpeg() and "needs the ffmpeg program" or not weights.find "face_detection_full_range_sparse" and "needs the weights of face detection"
  local folder, out

  local function run(arguments) return shell(("luajit recipes/anonymise.lua --threads 1 --detector face %s"):format(arguments)) end
  local function ffmpeg(arguments, name) assert.is_true(made.ffmpeg(arguments .. " " .. quote(folder .. "/" .. name))) end

  -- A packet in the middle becomes noise; its header stays.
  local function corrupt(from, to)
    local pipe = io.popen(("ffprobe -v error -show_entries packet=pos,size -of json %s"):format(quote(folder .. "/" .. from)))
    local packet = require "libration.formats.json".decode(pipe:read "*a").packets[8]
    pipe:close()
    local text = assert(files.read(folder .. "/" .. from))
    local at, size = tonumber(packet.pos) + 7, tonumber(packet.size) - 20
    files.write(folder .. "/" .. to, text:sub(1, at) .. ("\255"):rep(size) .. text:sub(at + size + 1))
    os.remove(folder .. "/" .. from)
  end

  -- What the run made of an input: its sidecar, and frames and size of the video.
  local function result(base, ending)
    local plan = assert(sidecar.read(("%s/%s.anonymised.json"):format(out, base)))
    local source = assert(media.open(("%s/%s.anonymised.%s"):format(out, base, ending)))
    local frames, black = 0, {}
    for frame, _, i in source:each() do
      frames = i
      black[i] = frame:to("f32"):max():item() < 40
    end
    source:close()
    return plan, { frames = frames, width = source.width, height = source.height, black = black }
  end

  it("without faces, without sound, with a broken packet, in 4:2:2 of 10 bits, of one pixel, with spaces and umlauts: each is covered, every frame kept", function()
    if why then return pending(why) end
    folder = files.temporary_folder() .. "/viele Vögel, 50 % größer"
    out = folder .. "/für dich"
    files.mkdirs(folder)
    ffmpeg("-f lavfi -i color=teal:s=96x64:r=10:d=0.8 -f lavfi -i sine=d=0.8 -c:v libx264 -preset ultrafast -threads 1", "ohne Gesicht.mp4")
    ffmpeg(CLIP:format("96x64", "0.8", "", "yuv420p"), "silent.mp4")
    ffmpeg(CLIP:format("96x64", "2", "", "yuv420p"), "whole.mkv")
    corrupt("whole.mkv", "broken.mkv")
    ffmpeg(CLIP:format("64x48", "0.4", "", "yuv422p10le"), "ten.mkv")
    ffmpeg("-f lavfi -i testsrc=s=1x1:r=10:d=0.4 -pix_fmt yuv444p -c:v ffv1", "one.mkv")
    local text, code = run(("--output %s %s"):format(quote(out), quote(folder)))
    assert.equal(0, code, text)
    assert.is_nil(text:find "traceback", text)
    assert.is_truthy(text:find "warning: [^\n]*broken.mkv: the file is damaged", text)
    local cases = {
      { "ohne Gesicht", "mp4", 8, 96, 64 }, { "silent", "mp4", 8, 96, 64 }, { "broken", "mkv", 20, 96, 64 }, { "ten", "mkv", 4, 64, 48 }, { "one", "mkv", 4, 1, 1 },
    }
    for _, case in ipairs(cases) do
      local base, ending, frames, width, height = unpack(case)
      if not files.exists(("%s/%s.anonymised.%s"):format(out, base, ending)) then ending = ending == "mkv" and "mp4" or "mkv" end
      local plan, video = result(base, ending)
      assert.same({ base, frames, width, height }, { base, video.frames, video.width, video.height })
      assert.same({ frames, width, height }, { plan.input.frames, plan.input.width, plan.input.height }, base)
      if base == "ohne Gesicht" then assert.equal(0, #plan.tracks) end
      if base == "broken" then -- what could not be decoded is covered whole, and only that
        assert.is_true(#plan.blank >= 1 and #plan.blank <= 3, #plan.blank)
        for i = 1, frames do
          local blank = false
          for _, b in ipairs(plan.blank) do blank = blank or b == i end
          assert.equal(blank, video.black[i], "frame " .. i)
        end
      else
        assert.same({}, plan.blank)
      end
    end
    assert.is_truthy(files.read(out .. "/report.html"):find("the file is damaged", 1, true))
    files.remove(files.folder(folder))
  end)

  it("of 8K #slow", function()
    if why then return pending(why) end
    folder = files.temporary_folder()
    out = folder .. "/out"
    ffmpeg("-f lavfi -i testsrc=s=7680x4320:r=10:d=0.3 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -qp 40 -threads 1", "8k.mp4")
    local text, code = run(("--output %s %s"):format(quote(out), quote(folder .. "/8k.mp4")))
    assert.equal(0, code, text)
    local plan, video = result("8k", "mp4")
    assert.same({ 7680, 4320, 3, 3 }, { video.width, video.height, video.frames, plan.input.frames })
    files.remove(folder)
  end)

  it("refuses an output that is the input, wrong edits and an unknown network, in one line, and leaves the input as it was", function()
    if why then return pending(why) end
    folder = files.temporary_folder()
    ffmpeg(CLIP:format("64x48", "0.4", "", "yuv420p"), "in.mp4")
    local input = folder .. "/in.mp4"
    local before = assert(media.sha256(input))
    assert(require "lfs".link(input, folder .. "/same.mp4"))
    assert(require "lfs".link(input, folder .. "/linked.mp4", true))
    files.write(folder .. "/edited.json", '{"format": "libration anonymisation",\n"version": 1,\n"settings": {"mask": 3}}')
    files.write(folder .. "/unknown.onnx", made_onnx.model {
      inputs = { made_onnx.info("image", "f32", { 1, 3, 32, 32 }) }, outputs = { made_onnx.info("mood", "f32", { 1, 3, 1, 1 }) },
      nodes = { made_onnx.node("GlobalAveragePool", { "image" }, { "mood" }) },
    })
    files.write(folder .. "/bent.onnx", "no network at all")
    for arguments, want in pairs {
      ["--output " .. quote(input)] = "the output would be written over this input",
      ["--output " .. quote(folder .. "/./in.mp4")] = "the output would be written over this input",
      ["--output " .. quote(folder .. "/same.mp4")] = "the output would be written over this input",
      ["--output " .. quote(folder .. "/linked.mp4")] = "the output would be written over this input",
      [("--apply %s --output %s"):format(quote(folder .. "/edited.json"), quote(folder .. "/n"))] = "edited.json, line 3, settings.mask: ",
      [("--weights %s --output %s"):format(quote(folder .. "/unknown.onnx"), quote(folder .. "/n"))] = "unknown.onnx: outputs mood [1,3,1,1] fit no known head; --adapter takes",
      [("--weights %s --output %s"):format(quote(folder .. "/bent.onnx"), quote(folder .. "/n"))] = "bent.onnx: ",
    } do
      local text, code = run(("%s %s 2>&1 >/dev/null"):format(quote(input), arguments))
      assert.is_true(code ~= 0 and code < 128, text)
      assert.is_truthy(text:find(want, 1, true), arguments .. ": " .. text)
      assert.is_truthy(text:find "^anonymise: [^\n]*\n$", text)
    end
    assert.equal(before, assert(media.sha256(input)))
    assert.is_false(files.exists(folder .. "/n/in.anonymised.mp4"))
    files.remove(folder)
  end)
end)
