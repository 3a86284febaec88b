-- A video encoded anew with masks: its frames, its order, what is refused; broken and odd inputs. What is kept and dropped: transcode_kept_spec.lua.
local helper = require "helper"
local mutate = require "mutate"
local made = require "helper_media"
local files = require "libration.files"
local libration = require "libration"
local media = require "libration.media"

describe("transcode", function()
  local at = made.folder()
  local shared = require "helper_transcode"(at)
  local run, frames_of, probe, packets, MASK, PLAIN = shared.run, shared.frames_of, shared.probe, shared.packets, shared.MASK, shared.PLAIN
  local function clip(...) return shared.clip(...) or pending "needs the ffmpeg program" end

  it("without masks and losslessly encoded gives every frame bit for bit, and the sound's packets", function()
    local input = clip("plain.mp4", PLAIN)
    if not input then return end
    local t = run { input = input, output = at("same.mp4"), crf = 0 }
    assert.same({ 96, 64, 1, nil }, { t.width, t.height, t.sounds, t.warning })
    local a, b = frames_of(input), frames_of(at("same.mp4"))
    assert.equal(8, #b)
    for i = 1, 8 do
      assert.near(a[i].time, b[i].time, 1e-6)
      assert.is_true(a[i].bytes == b[i].bytes)
    end
    assert.same(packets(input, "a"), packets(at("same.mp4"), "a"))
  end)

  it("changes what is masked and nothing else; the same masks give the same bytes", function()
    local input = clip("plain.mp4", PLAIN)
    if not input then return end
    for _, ending in ipairs { "mp4", "mkv" } do
      for k = 1, 2 do run({ input = input, output = at("masked" .. k .. "." .. ending), crf = 0 }, MASK, { style = "box" }) end
      assert.equal(assert(media.sha256(at("masked1." .. ending))), assert(media.sha256(at("masked2." .. ending))))
    end
    local a, b = frames_of(input), frames_of(at("masked1.mp4"))
    for i = 1, #a do
      local wrong, lit = 0, 0
      for y = 0, 63 do
        for x = 0, 95 do
          local k = 3 * (y * 96 + x) + 1
          local inside = x >= 24 and x < 56 and y >= 20 and y < 40
          if inside and b[i].bytes:byte(k, k + 2) > 2 then lit = lit + 1 end
          local near = x >= 23 and x < 57 and y >= 19 and y < 41 -- a chroma sample colours the pixels around it
          if not near and a[i].bytes:sub(k, k + 2) ~= b[i].bytes:sub(k, k + 2) then wrong = wrong + 1 end
        end
      end
      assert.same({ 0, 0 }, { wrong, lit })
    end
  end)

  it("draws on planes of 8 and 10 bits what mask.apply draws on RGB, within 3 of 255", function()
    local masks = { { shape = "ellipse", x = 40, y = 30, width = 44, height = 30, angle = .4 }, { shape = "polygon", points = { 60, 8, 90, 12, 70, 50 } } }
    for name, format in pairs { ["g8.mkv"] = "gray", ["g10.mkv"] = "yuv444p10le" } do
      local input = clip(name, "-f lavfi -i testsrc2=s=96x64:r=10:d=0.2 -vf format=gray,format=" .. format .. " -c:v ffv1")
      if not input then return end
      for _, style in ipairs { { style = "blur", feather = 5 }, { style = "mosaic" }, { style = "mosaic", feather = 3, strength = .3 } } do
        run({ input = input, output = at("drawn.mkv"), crf = 0 }, masks, style)
        local source, got, worst = assert(media.open(input)), frames_of(at("drawn.mkv")), 0
        for frame, _, index in source:each() do
          media.mask.apply(frame, masks, style)
          local p = frame:ptr()
          for i = 0, 96 * 64 * 3 - 1 do worst = math.max(worst, math.abs(p[i] - got[index].bytes:byte(i + 1))) end
        end
        source:close()
        assert.is_true(worst <= 3, worst)
      end
    end
    local lists = {}
    for i, format in ipairs { "yuv420p", "nv12" } do
      local input = clip(format .. ".mkv", "-f lavfi -i testsrc2=s=96x64:r=10:d=0.2 -c:v rawvideo -pix_fmt " .. format)
      if not input then return end
      run({ input = input, output = at("drawn.mkv"), crf = 0 }, masks, { style = "blur", feather = 5 })
      lists[i] = frames_of(at("drawn.mkv"))
    end
    for i = 1, 2 do assert.is_true(lists[1][i].bytes == lists[2][i].bytes) end
  end)

  it("reads the frames that media.open gives, numbered alike with and without output", function()
    local input = clip("plain.mp4", PLAIN)
    if not input then return end
    local want = frames_of(input)
    local t, seen = assert(media.transcode { input = input, queue = 6 }), {}
    for frame in t:frames() do
      seen[#seen + 1] = frame
      assert.equal(#seen, frame.index)
      assert.equal(want[frame.index].time, frame.time)
      assert.is_true(made.bytes(frame:rgb()) == want[frame.index].bytes)
      if #seen > 2 then assert.is_true(made.bytes(seen[#seen - 2]:rgb()) == want[#seen - 2].bytes) end
    end
    assert.has_error(function() seen[1]:rgb() end)
    t:close()
    for _, convert in ipairs { false, true } do
      local again = {}
      run({ input = input, output = at("pass.mp4"), convert = convert, queue = 5 }, function(frame)
        again[#again + 1] = made.bytes(frame:rgb())
        return MASK
      end)
      for i = 1, #want do assert.is_true(again[i] == want[i].bytes) end
    end
    t = assert(media.transcode { input = input, convert = true, queue = 4 })
    for frame in t:frames() do assert.is_true(made.bytes(frame:rgb()) == want[frame.index].bytes) end
    t:close()
  end)

  local odd = {
    ["4:2:2 in 10 bits"] = { "ten.mkv", "-f lavfi -i testsrc2=s=64x48:r=10:d=0.3 -pix_fmt yuv422p10le -c:v libx264 -preset ultrafast", "yuv422p10le", 64, 48 },
    ["full-range 4:2:2"] = { "j.avi", "-f lavfi -i testsrc2=s=64x48:r=10:d=0.3 -pix_fmt yuvj422p -c:v mjpeg", "yuvj422p", 64, 48 },
    ["a pixel"] = { "one.mkv", "-f lavfi -i testsrc=s=1x1:r=10:d=0.3 -pix_fmt yuv444p -c:v ffv1", "yuv444p", 1, 1 },
    ["an odd size"] = { "odd.mkv", "-f lavfi -i testsrc=s=97x63:r=10:d=0.3 -pix_fmt yuv420p -c:v ffv1", "yuv420p", 98, 64 },
    ["RGB"] = { "rgb.mkv", "-f lavfi -i testsrc2=s=64x48:r=10:d=0.3 -pix_fmt bgr0 -c:v ffv1", "yuv444p", 64, 48 },
    ["grey"] = { "grey.mkv", "-f lavfi -i testsrc2=s=64x48:r=10:d=0.3 -pix_fmt gray -c:v ffv1", "yuvj420p", 64, 48 },
    ["flv"] = { "f.flv", "-f lavfi -i testsrc2=s=64x48:r=10:d=0.3 -f lavfi -i sine=d=0.3 -c:v flv -ar 44100 -c:a libmp3lame", "yuv420p", 64, 48 },
    ["MPEG-4 with B frames in avi"] = { "b.avi", "-f lavfi -i testsrc2=s=64x48:r=10:d=0.6 -c:v mpeg4 -bf 2", "yuv420p", 64, 48 },
  }
  for name, c in pairs(odd) do
    it("takes " .. name .. ", masked, with all its frames", function()
      local input = clip(c[1], c[2])
      if not input then return end
      local t, list = run({ input = input, output = at(c[1] .. ".mp4") }, { { shape = "ellipse", x = 10, y = 10, width = 30, height = 20, feather = 3 } }, { style = "blur" })
      local a, b = probe(input), probe(at(c[1] .. ".mp4"))
      assert.equal("h264", b.video.codec_name)
      assert.equal(a.video.nb_read_frames, b.video.nb_read_frames)
      assert.equal(tonumber(a.video.nb_read_frames), #list)
      assert.same({ c[4], c[5] }, { b.video.width, b.video.height })
      assert.equal(c[3], b.video.pix_fmt)
      if a.audio then assert.equal(a.audio.codec_name, b.audio.codec_name) end
      assert.is_nil(t.warning)
    end)
  end

  it("does not leak the masked border of an odd size into its padding", function()
    local input = clip("odd444.mkv", "-f lavfi -i testsrc=s=33x17:r=10:d=0.2 -vf lutyuv=y=235 -pix_fmt yuv420p -c:v ffv1")
    if not input then return end
    run({ input = input, output = at("odd444.mp4"), crf = 0 }, { { shape = "box", x = 30, y = 8, width = 6, height = 40 } }, { style = "box" })
    local frame = frames_of(at("odd444.mp4"))[1].bytes
    assert.equal(34 * 18 * 3, #frame)
    for y = 0, 17 do assert.is_true(frame:byte(3 * (y * 34 + 33) + 1) < 3) end
  end)

  it("takes 8K #slow", function()
    local input = clip("8k.mkv", "-f lavfi -i color=gray:s=7680x4320:r=10:d=0.2 -pix_fmt yuv420p -c:v libx264 -preset ultrafast")
    if not input then return end
    local t, list = run({ input = input, output = at("8k.mp4"), decoder_threads = 1, threads = 1 }, { { shape = "ellipse", x = 4000, y = 2000, width = 900, height = 1200 } })
    assert.same({ 7680, 4320, 2 }, { t.width, t.height, #list })
    assert.is_true(t.queue <= 10)
    assert.equal("2", probe(at("8k.mp4")).video.nb_read_frames)
  end)

  it("changes of size inside the stream are scaled to the first frame's", function()
    if not clip("plain.mp4", PLAIN) then return end
    for i, size in ipairs { "64x48", "32x32" } do
      assert.is_true(made.ffmpeg(("-f lavfi -i testsrc2=s=%s:r=10:d=0.3 -c:v libx264 -preset ultrafast -bsf:v h264_mp4toannexb %s"):format(size, at("part" .. i .. ".h264"))))
    end
    files.write(at("both.h264"), files.read(at("part1.h264")) .. files.read(at("part2.h264")))
    local _, list = run({ input = at("both.h264"), output = at("both.mkv") }, MASK)
    assert.equal(6, #list)
    assert.same({ 64, 48, "6" }, { probe(at("both.mkv")).video.width, probe(at("both.mkv")).video.height, probe(at("both.mkv")).video.nb_read_frames })
  end)

  it("goes on over a broken packet: the frame comes as lost or broken with its time, and the count is the source's", function()
    local input = clip("mid.mkv", "-f lavfi -i testsrc2=s=96x64:r=10:d=2 -c:v libx264 -preset ultrafast -g 5 -bf 0 -threads 1")
    if not input then return end
    local pipe = io.popen(("ffprobe -v error -show_entries packet=pos,size -of csv=p=0 %s"):format(input))
    local list = {}
    for line in pipe:lines() do list[#list + 1] = { line:match "(%d+),(%d+)" } end
    pipe:close()
    local text = assert(files.read(input))
    local size, pos = tonumber(list[8][1]), tonumber(list[8][2])
    if pos < size then size, pos = pos, size end
    local place = pos + 7 -- behind the block's header, over the lengths of what follows
    files.write(at("broken.mkv"), text:sub(1, place) .. ("\255"):rep(size - 20) .. text:sub(place + size - 19))
    local damaged = {}
    local t, seen = run({ input = at("broken.mkv"), output = at("mended.mkv") }, function(frame, t)
      if frame.damaged then
        damaged[#damaged + 1] = frame
        if frame.damaged == "lost" then
          for _, v in ipairs { made.bytes(frame:rgb()):byte(1, 300) } do assert.is_true(v < 3) end
        end
        return { { shape = "box", x = t.width / 2, y = t.height / 2, width = t.width, height = t.height, style = "box" } }
      end
    end)
    assert.is_true(#damaged >= 1 and #damaged <= 3, #damaged)
    assert.near(.7, damaged[1].time, .001)
    assert.equal(20, #seen)
    for i, frame in ipairs(seen) do assert.near((i - 1) / 10, frame.time, .001) end
    assert.matches("broken.mkv: the file is damaged", t.warning)
    assert.equal("20", probe(at("mended.mkv")).video.nb_read_frames)
  end)

  it("gives the readable part of a truncated file, with a warning", function()
    local input = clip("long.mkv", "-f lavfi -i testsrc2=s=96x64:r=10:d=2 -f lavfi -i sine=d=2 -c:v libx264 -preset ultrafast -g 5 -c:a aac")
    if not input then return end
    local text = assert(files.read(input))
    files.write(at("cut.mkv"), text:sub(1, math.floor(#text * .6)))
    local t, list = run({ input = at("cut.mkv"), output = at("cut out.mkv") }, MASK)
    assert.is_true(#list > 5 and #list < 20)
    assert.matches("cut.mkv: the file is truncated", t.warning)
  end)

  it("broken copies: an output with all the frames that were given, or one line and no file", function()
    for _, ending in ipairs { "mp4", "mkv" } do
      local input = clip("small." .. ending, "-f lavfi -i testsrc2=s=48x32:r=10:d=0.8 -f lavfi -i sine=d=0.8 -metadata location=+1 -c:v libx264 -preset ultrafast -c:a aac")
      if not input then return end
      local finished = 0
      local count = helper.full() and 300 or 12
      mutate.survive(assert(files.read(input)), count, function(copy)
        local file = assert(io.open(at("copy." .. ending), "wb"))
        file:write(copy)
        file:close()
        files.remove(at("copied.mkv"))
        local t, err = media.transcode { input = at("copy." .. ending), output = at("copied.mkv"), preset = "ultrafast", threads = 1, decoder_threads = 1 }
        if not t then return nil, err end
        local given = 0
        local ok, why = pcall(function()
          for frame in t:frames() do
            t:write(frame, MASK)
            given = given + 1
          end
          t:close()
        end)
        t:abort()
        assert.equal(ok, files.exists(at("copied.mkv")))
        if not ok then return nil, why end
        finished = finished + 1
        if finished % 6 == 1 then assert.equal(given, tonumber(probe(at("copied.mkv")).video.nb_read_frames)) end
        return true
      end)
      assert.is_true(finished > count / 3, finished)
    end
  end)

  it("takes paths with spaces and umlauts; refuses an output that is its input, by any name", function()
    local input = clip("plain.mp4", PLAIN)
    if not input then return end
    local name = at("Grüße an Mädchen, 50 % größer.mp4")
    files.write(name, files.read(input))
    run({ input = name, output = at("für dich.mp4") }, MASK)
    assert.equal("8", probe(at("für dich.mp4")).video.nb_read_frames)
    local before = assert(media.sha256(name))
    require("lfs").link(name, at("other name.mp4"))
    for _, out in ipairs { name, at() .. "/./Grüße an Mädchen, 50 % größer.mp4", at("other name.mp4") } do
      local t, err = media.transcode { input = name, output = out }
      assert.is_nil(t)
      assert.matches("the output is the input itself$", err)
    end
    assert.equal(before, assert(media.sha256(name)))
  end)

  it("refuses in one line what it cannot do", function()
    local input = clip("plain.mp4", PLAIN)
    if not input then return end
    clip("sound.mp4", "-f lavfi -i sine=d=0.3 -c:a aac")
    files.write(at("text.mp4"), ("not a video\n"):rep(50))
    local function refused(opts, pattern)
      opts.input = opts.input or input
      local t, err = media.transcode(opts)
      assert.is_nil(t)
      assert.matches(pattern, err)
      assert.is_nil(err:find("\n"))
    end
    refused({ input = at("sound.mp4"), output = at("x.mp4") }, "sound.mp4: no video in it")
    refused({ input = at("text.mp4"), output = at("x.mp4") }, "text.mp4: ")
    refused({ input = at("missing.mp4") }, "missing.mp4: No such file")
    refused({ output = at("x.avi") }, "x.avi: want a name that ends in .mp4, .mkv or .mov")
    refused({ output = at("x.txt") }, "x.txt: no known kind of video")
    refused({ output = at("x.mp4"), preset = "hasty" }, 'preset is "hasty"')
    refused({ output = at("x.mp4"), format = "mauve" }, 'format is "mauve"')
    refused({ output = at("none/x.mp4") }, "none/x.mp4: No such file or directory")
    assert.error_matches(function() media.transcode { input = input, audio = "loud" } end, 'media.transcode: audio is "loud", want keep, drop or distort')
    assert.error_matches(function() media.transcode { output = at("x.mp4") } end, "input is missing")
    assert.error_matches(function() media.transcode { input = input, speed = 3 } end, "unknown option 'speed'")
    assert.is_false(files.exists(at("x.mp4")))
  end)

  it("holds the caller to its order, and leaves no file when a frame has no masks, on abort and when forgotten", function()
    local input = clip("plain.mp4", PLAIN)
    if not input then return end
    local function fresh(queue) return assert(media.transcode { input = input, output = at("partial.mp4"), preset = "ultrafast", queue = queue }) end
    local t = fresh()
    local one, two = t:next(), t:next()
    assert.error_matches(function() t:write(two, MASK) end, "masks of frame 2, want those of frame 1")
    assert.error_matches(function() t:write(one, { { shape = "box", x = 0 / 0, y = 1, width = 1, height = 1 } }) end, "mask 1: x is %-?nan")
    t:write(one, MASK)
    assert.error_matches(function() one:rgb() end, "frame 1 is not in hand")
    assert.same({ 64, 96, 3 }, two:rgb().shape)
    assert.error_matches(function() t:write(one, MASK) end, "masks of frame 1, want those of frame 2")
    assert.error_matches(function() t:close() end, "plain.mp4: frame 2 has not been given its masks")
    assert.error_matches(function() t:next() end, "the transcode is closed")
    t = fresh(4)
    for _ = 1, 3 do t:next() end
    assert.error_matches(function() t:next() end, "3 frames wait for their masks, and there is no room for more")
    t:abort()
    t:abort()
    fresh():next()
    fresh()
    collectgarbage()
    collectgarbage()
    assert.is_false(files.exists(at("partial.mp4")))
  end)

  it("holds frames beside those on the way for as long as is asked for, and no more than fit", function()
    local input = clip("long.mp4", (PLAIN:gsub("d=0.8", "d=3")))
    if not input then return end
    local t = assert(media.transcode { input = input, output = at("held.mp4"), preset = "ultrafast", queue = 6, hold = .1 })
    assert.same({ math.ceil(.1 * t.fps) + 10, 6 + math.ceil(.1 * t.fps) + 10 }, { t.held, t.queue })
    local hand, seen = {}, 0
    for frame in t:frames() do
      hand[#hand + 1] = frame
      if #hand > t.held + 2 then
        seen = math.max(seen, #hand)
        t:write(table.remove(hand, 1))
      end
    end
    for _, frame in ipairs(hand) do t:write(frame) end
    t:close()
    local plain = assert(media.transcode { input = input, output = at("unheld.mp4"), preset = "ultrafast" })
    for frame in plain:frames() do plain:write(frame) end
    plain:close()
    assert.is_true(seen == t.held + 3 and files.read(at "held.mp4") == files.read(at "unheld.mp4"))
    for hold, held in pairs { [0] = 0, [1e9] = 248, [1e300] = 248, [-1] = 0, [200 / t.fps] = 210, [240.5 / t.fps] = 248 } do
      local other = assert(media.transcode { input = input, queue = 8, hold = hold })
      assert.same({ held, 8 + held }, { other.held, other.queue })
      other:abort()
    end
  end)

  it("only reads on once its output is given up", function()
    local input = clip("plain.mp4", PLAIN)
    if not input then return end
    local t, n = assert(media.transcode { input = input, output = at("given_up.mp4"), preset = "ultrafast", queue = 4 }), 0
    for frame in t:frames() do
      n = frame.index
      assert.same({ 64, 96, 3 }, frame:rgb().shape)
      if n == 3 then t:abandon() end
      t:write(frame, MASK)
    end
    t:close()
    assert.equal(8, n)
    for _, name in ipairs(files.list(files.folder(at("x")))) do assert.is_nil(name:find "given_up") end
  end)

  it("stops on Ctrl-C and leaves no file", function()
    local input = clip("plain.mp4", PLAIN)
    if not input then return end
    local ffi = require "ffi"
    ffi.cdef "int raise(int);"
    local t = assert(media.transcode { input = input, output = at("stopped.mp4"), queue = 4, preset = "ultrafast" })
    t:write(t:next())
    libration.core.C.lbr_interrupt_install()
    ffi.C.raise(2)
    local ok, err = pcall(function()
      for frame in t:frames() do t:write(frame) end
      t:close()
    end)
    assert.is_false(ok)
    assert.matches("interrupted", err)
    assert.equal(0, libration.core.C.lbr_interrupted())
    assert.is_false(files.exists(at("stopped.mp4")))
  end)

  it("reports a disk that is full in one line and leaves no file #process", function()
    local input = clip("noise.mkv", "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -vf noise=alls=90:allf=t -c:v libx264 -preset ultrafast")
    if not input then return end
    files.write(at("full.lua"), ([[
      package.path, package.cpath = %q, %q
      local media = require "libration.media"
      local ok, err = pcall(function()
        local t = assert(media.transcode {input = %q, output = %q, crf = 0, preset = "ultrafast"})
        for frame in t:frames() do t:write(frame) end
        t:close()
      end)
      io.stdout:write(tostring(ok), " ", tostring(err))]]):format(package.path, package.cpath, input, at("full.mp4")))
    local pipe = io.popen(("cd %s && trap '' XFSZ && ulimit -f 400 && luajit %s 2>&1"):format(files.quote(require("lfs").currentdir()), at("full.lua")))
    local text = pipe:read("*a")
    pipe:close()
    assert.matches("^false .*full.mp4: File too large$", text)
    assert.is_false(files.exists(at("full.mp4")))
  end)

  it("gives coarse pictures: the means of each frame's cells, upright, in every format", function()
    local formats = {
      yuv420p = "-c:v libx264 -crf 1", yuv420p10le = "-c:v libx264 -crf 1", pal8 = "-c:v png", gray = "-c:v ffv1", gbrp = "-c:v ffv1", yuvj422p = "-c:v mjpeg -q:v 2",
    }
    for format, codec in pairs(formats) do
      local input = clip("coarse_" .. format .. ".mkv", "-f lavfi -i testsrc=s=90x54:r=10:d=0.3 -an -pix_fmt " .. format .. " " .. codec)
      if not input then return end
      local t = assert(media.transcode { input = input, coarse = true })
      assert.same({ 4, 23, 14 }, { t.cell, t.across, t.down })
      for frame in t:frames() do
        local coarse, rgb = frame:coarse(), frame:rgb()
        local far = 0
        for y = 0, t.down - 1 do
          for x = 0, t.across - 1 do
            for c = 0, 2 do
              local sum, n = 0, 0
              for v = 4 * y, math.min(53, 4 * y + 3) do
                for u = 4 * x, math.min(89, 4 * x + 3) do sum, n = sum + rgb:ptr()[(v * 90 + u) * 3 + c], n + 1 end
              end
              far = far + math.abs(sum / n - coarse:ptr()[(y * t.across + x) * 3 + c])
            end
          end
        end
        far = far / (t.across * t.down * 3)
        assert.is_true(far < 4, ("%s: %.2f"):format(format, far)) -- one matrix for all files, and colours that are cut off
      end
      t:close()
    end
    local plain, turned = clip("plain.mp4", PLAIN), at "coarse_turned.mp4"
    assert.is_true(made.ffmpeg(("-display_rotation 90 -i %s -c copy %s"):format(plain, turned))
      or made.ffmpeg(("-i %s -c copy -metadata:s:v rotate=90 %s"):format(plain, turned)))
    local t = assert(media.transcode { input = turned, coarse = true })
    assert.same({ 24, 16 }, { t.down, t.across })
    local frame = t:next()
    local coarse, rgb = frame:coarse():ptr(), frame:rgb():ptr()
    for _, x in ipairs { 0, 3, 7, 12 } do -- red of single cells, which differ along both sides of a test picture
      local mean = 0
      for v = 8, 11 do
        for u = 4 * x, 4 * x + 3 do mean = mean + rgb[(v * 64 + u) * 3] / 16 end
      end
      assert.is_true(math.abs(coarse[(2 * 16 + x) * 3] - mean) < 14, ("%d: %d, %.1f"):format(x, coarse[(2 * 16 + x) * 3], mean))
    end
    helper.refuses("want contiguous u8 [24,16,3]", frame.coarse, frame, libration.zeros({ 16, 24, 3 }, "u8"))
    t:abort()
    t = assert(media.transcode { input = turned })
    helper.refuses("it was opened without coarse pictures", t:next().coarse, t:next())
    t:abort()
  end)

  it("says how busy each stage was", function()
    local input = clip("plain.mp4", PLAIN)
    if not input then return end
    local t = assert(media.transcode { input = input, output = at("busy.mp4"), preset = "ultrafast" })
    for frame in t:frames() do
      frame:rgb()
      t:blank(frame)
    end
    local b = t:busy()
    for _, stage in ipairs { "decode", "convert", "elapsed" } do assert.is_true(b[stage] > 0, stage) end
    assert.same({ 8, true }, { b.read, b.encoded <= 8 })
    assert.is_true(b.convert <= b.elapsed)
    t:close()
    for _, f in ipairs(frames_of(at("busy.mp4"))) do assert.is_true(f.bytes:byte(1) < 3 and f.bytes:byte(-1) < 3) end
  end)
end)
