-- Video in and out: colours, times, seeking, damage, audio, errors.
local ffi = require "ffi"
local json = require "cjson"
local helper = require "helper"
local made = require "helper_media"
local core = require "libration.core"
local libration = require "libration"
local files = require "libration.files"
local media = require "libration.media"

describe("media", function()
  local at = made.folder()
  local function write(name, text)
    files.write(at(name), text)
    return at(name)
  end

  local function needs(path)
    path = helper.shared(path)
    if not path then pending("needs ../shared") end
    return path
  end

  describe("decoding", function()
    local quick = { "video/ta_chi.mp4", "signs/asl_clips/again.mkv", "signs/asl_clips/thanks.mkv" }
    local slow = { "video/egoblur_face.mp4", "video/sports2d_walk.mp4", "video/pose2sim_cam02.mp4", "signs/asl_clips/book.mkv", "signs/asl_clips/help.mkv" }
    local function golden(name)
      local path, list = needs("data/" .. name), needs("goldens/video/videos.json")
      if not path or not list then return end
      local want = json.decode((assert(files.read(list))))[name]
      local source = assert(media.open(path))
      assert.same({ want.width, want.height }, { source.width, source.height })
      local hash, count = made.digest(source, 300)
      source:close()
      assert.equal(want.frames, count)
      assert.equal(want.rgb24_sha256, hash)
    end
    for _, name in ipairs(quick) do it("gives ffmpeg's rgb24 of " .. name .. ", bit for bit", function() golden(name) end) end
    for _, name in ipairs(slow) do it("gives ffmpeg's rgb24 of " .. name .. ", bit for bit #slow", function() golden(name) end) end

    local counters = { ["counter_FLV_H264_AAC.flv"] = "h264", ["counter_MKV_VP8_VORBIS.mkv"] = "vp8", ["counter_MP4_AVC720P_AAC.mp4"] = "h264" }
    for name, codec in pairs(counters) do
      it("numbers, times and seeks exactly in " .. name .. (name:find "720P" and " #slow" or ""), function()
        local path = needs("data/video/" .. name)
        if not path then return end
        local source = assert(media.open(path))
        assert.equal(codec, source.codec)
        assert.is_true(source.has_audio)
        assert.near(180, source.frames, 2)
        assert.near(30, source.fps, .01)
        local times, sums = made.drain(source)
        assert.equal(180, #times)
        for i = 2, #times do assert.near(1 / 30, times[i] - times[i - 1], .0021) end
        assert.is_nil(source.warning)
        for _, i in ipairs { 1, 2, 90, 91, 179, 180, 37, 5 } do
          source:seek(times[i])
          local frame, time, index = source:next()
          assert.same({ times[i], 1, sums[i] }, { time, index, made.checksum(frame) })
          frame, time, index = source:next()
          if i < 180 then assert.same({ times[i + 1], 2, sums[i + 1] }, { time, index, made.checksum(frame) }) end
        end
        source:seek(times[100] + .01)
        assert.equal(times[101], (select(2, source:next())))
        source:close()

        source = assert(media.open(path, { start = 2, stop = 3 }))
        local part = made.drain(source)
        assert.near(30, source.frames, 1)
        assert.is_true(part[1] >= 1.999 and part[1] < 2.034 and part[#part] < 3)
        assert.near(30, #part, 1)
        source:close()
      end)
    end

    local formats = {
      ["odd 4:4:4"] = { "odd444.mkv", "testsrc=s=321x241", "-pix_fmt yuv444p -c:v ffv1" }, ["odd 4:2:0"] = { "odd420.mkv", "testsrc=s=333x217", "-pix_fmt yuv420p -c:v ffv1" },
      grey = { "grey.mkv", "testsrc=s=322x240", "-pix_fmt gray -c:v ffv1" }, ["10 bits"] = { "ten.mp4", "testsrc=s=322x240", "-pix_fmt yuv420p10le -c:v libx264" },
      ["4:2:2 in webm"] = { "v.webm", "testsrc=s=160x120", "-pix_fmt yuv422p -c:v libvpx-vp9 -deadline realtime" }, avi = { "m.avi", "testsrc=s=160x120", "-c:v mpeg4" },
    }
    for name, f in pairs(formats) do
      it("gives ffmpeg's rgb24 of " .. name, function()
        if not made.has_ffmpeg() then return pending("needs the ffmpeg program") end
        assert.is_true(made.ffmpeg(("-f lavfi -i %s:r=10:d=0.5 %s %s"):format(f[2], f[3], at(f[1]))))
        local source = assert(media.open(at(f[1])))
        local width, height = f[2]:match("(%d+)x(%d+)")
        assert.same({ tonumber(width), tonumber(height) }, { source.width, source.height })
        assert.equal(made.ffmpeg_digest(at(f[1]), at()), (made.digest(source)))
        source:close()
      end)
    end

    for _, angle in ipairs { 90, 180, 270 } do
      it(("applies a display matrix of %d degrees"):format(angle), function()
        if not made.has_ffmpeg() then return pending("needs the ffmpeg program") end
        for _, pixels in ipairs { "yuv420p", "yuv420p10le" } do
          local plain, turned = at(pixels .. ".mp4"), at(pixels .. angle .. ".mp4")
          assert.is_true(made.ffmpeg(("-f lavfi -i testsrc=s=322x240:r=10:d=0.5 -pix_fmt %s -c:v libx264 %s"):format(pixels, plain)))
          assert.is_true(made.ffmpeg(("-display_rotation %d -i %s -c copy %s"):format(angle, plain, turned))
            or made.ffmpeg(("-i %s -c copy -metadata:s:v rotate=%d %s"):format(plain, angle, turned)))
          local source = assert(media.open(turned))
          assert.same(angle == 180 and { 322, 240 } or { 240, 322 }, { source.width, source.height })
          assert.equal(made.ffmpeg_digest(turned, at()), (made.digest(source)))
          source:close()
        end
      end)
    end
  end)

  describe("cropping and turning", function()
    it("takes the rectangle, turns it clockwise, and maps points back", function()
      made.video(at("plain.mkv"), 48, 32, made.steady(2, 25), { crf = 0 })
      local whole = assert(media.open(at("plain.mkv")))
      local all = whole:read()
      whole:close()
      local p = all:ptr()
      for _, rotate in ipairs { 0, 90, 180, 270 } do
        local source = assert(media.open(at("plain.mkv"), { crop = { x = 5, y = 3, w = 20, h = 9 }, rotate = rotate }))
        local frame = source:next()
        assert.same(rotate % 180 == 0 and { 20, 9 } or { 9, 20 }, { source.width, source.height })
        local q = frame:ptr()
        for y = 0, source.height - 1 do
          for x = 0, source.width - 1 do
            local u, v = source:to_source(x + .5, y + .5)
            for c = 0, 2 do
              assert.equal(p[3 * ((v - .5) * 48 + u - .5) + c], q[3 * (y * source.width + x) + c])
            end
          end
        end
        source:close()
      end
      local none, err = media.open(at("plain.mkv"), { crop = { x = 40, y = 0, w = 9, h = 9 } })
      assert.is_nil(none)
      assert.equal(at("plain.mkv") .. ": crop 40,0,9,9, want a rectangle inside 48 x 32", err)
    end)
  end)

  describe("writing", function()
    it("keeps uneven timestamps within 1/90000 s, in mp4 and mkv, odd sizes padded", function()
      local times, t = {}, .04
      for i = 1, 40 do
        times[i] = t
        t = t + (i % 3 == 0 and .1001 or .0333)
      end
      for name, slack in pairs { ["uneven.mp4"] = 1 / 90000, ["uneven.mkv"] = .00051 } do
        made.video(at(name), 65, 49, times)
        local source = assert(media.open(at(name)))
        assert.same({ 66, 50 }, { source.width, source.height })
        local got = made.drain(source)
        local origin = name:find("mkv") and times[1] or 0
        assert.equal(#times, #got)
        for i = 1, #times do assert.near(times[i] - times[1], got[i] - got[1], 2 * slack) end
        assert.near(times[1], got[1] + (got[1] < .001 and times[1] or 0), .001 + origin)
        source:close()
      end
    end)

    it("is close to what it was given", function()
      made.video(at("close.mp4"), 64, 48, made.steady(3, 25), { crf = 4 })
      local source = assert(media.open(at("close.mp4")))
      local frame = source:next()
      local p, q, sum = made.picture(64, 48, 1):ptr(), frame:ptr(), 0
      for i = 0, 64 * 48 * 3 - 1 do sum = sum + math.abs(p[i] - q[i]) end
      assert.is_true(sum / (64 * 48 * 3) < 6)
      source:close()
    end)

    local function copied(name, out, opts)
      local path = needs("data/video/" .. name)
      if not path then return end
      local source = assert(media.open(path, { start = opts.start, stop = opts.stop }))
      local writer = assert(media.writer(at(out), { width = source.width, height = source.height, fps = source.fps, preset = "ultrafast",
        audio_from = path, start = opts.start, stop = opts.stop }))
      local count = 0
      for frame, time in source:each() do
        writer:write(frame, time)
        count = count + 1
      end
      source:close()
      writer:close()
      source = assert(media.open(at(out)))
      assert.is_true(source.has_audio)
      local times = made.drain(source)
      assert.equal(count, #times)
      assert.is_nil(source.warning)
      source:close()
      return writer, times
    end
    it("copies AAC audio #slow", function()
      local writer = copied("counter_FLV_H264_AAC.flv", "flv.mp4", {})
      assert.is_nil(writer and writer.warning)
    end)
    it("makes AAC of Vorbis for mp4, and says so; mkv takes Vorbis #slow", function()
      local writer = copied("counter_MKV_VP8_VORBIS.mkv", "vorbis.mp4", {})
      if not writer then return end
      assert.matches("AAC", writer.warning)
      assert.is_nil(copied("counter_MKV_VP8_VORBIS.mkv", "vorbis.mkv", {}).warning)
    end)
    it("takes a part, audio with it, and begins it at 0", function()
      local _, times = copied("counter_MP4_AVC720P_AAC.mp4", "part.mp4", { start = 2, stop = 3 })
      if not times then return end
      assert.near(0, times[1], .034)
      assert.near(30, #times, 1)
    end)
    it("leaves the audio out, with a warning, where it cannot be read", function()
      local text = write("noise.wav", ("not a sound\n"):rep(50))
      local writer = assert(media.writer(at("silent.mp4"), { width = 32, height = 32, audio_from = text }))
      assert.matches("noise.wav", writer.warning)
      writer:write(made.picture(32, 32, 1), 0)
      writer:close()
      assert.is_true(files.exists(at("silent.mp4")))
    end)

    it("leaves no file when aborted, forgotten or never written to", function()
      local before = #files.list(at())
      local writer = assert(media.writer(at("gone.mp4"), { width = 32, height = 32 }))
      for i = 1, 20 do writer:write(made.picture(32, 32, i), i) end
      writer:abort()
      writer:abort()
      assert.has_error(function() writer:write(made.picture(32, 32, 1), 99) end)
      assert(media.writer(at("gone.mp4"), { width = 32, height = 32 })):write(made.picture(32, 32, 1), 0)
      writer = assert(media.writer(at("gone.mp4"), { width = 32, height = 32 }))
      assert.error_matches(function() writer:close() end, "gone.mp4: no frame was written")
      collectgarbage()
      collectgarbage()
      assert.equal(before, #files.list(at()))
      end)

    it("tells who decodes: NVDEC where the machine has it, else the CPU and why; decoder = cpu asks for the CPU and gives the same frames", function()
      made.video(at("who.mp4"), 66, 50, made.steady(6, 25))
      local function drained(decoder)
        local source = assert(media.open(at("who.mp4"), { decoder = decoder }))
        local _, sums = made.drain(source)
        return source.decoder, sums
      end
      local who, frames = drained()
      local cpu, same = drained "cpu"
      assert.truthy(who == "NVDEC" or who:find "^the CPU: ." and not who:find "\n", who)
      assert.equal("the CPU: as asked", cpu)
      assert.equal(6, #frames)
      assert.same(same, frames)
      assert.error_matches(function() media.open(at("who.mp4"), { decoder = "gpu" }) end, 'decoder is "gpu", want "auto" or "cpu"')
    end)

    it("falls back to MPEG-4 when asked, and refuses what it cannot do", function()
      made.video(at("old.mp4"), 64, 48, made.steady(5, 25), { codec = "mpeg4" })
      local source = assert(media.open(at("old.mp4")))
      assert.equal("mpeg4", source.codec)
      source:close()
      local function refused(path, opts, pattern)
        local writer, err = media.writer(path, opts)
        assert.is_nil(writer)
        assert.matches(pattern, err)
        assert.is_nil(err:find("\n"))
      end
      refused(at("a.mp4"), { width = 32, height = 32, codec = "av1" }, 'codec is "av1", want "h264" or "mpeg4"')
      refused(at("a.mp4"), { width = 32, height = 32, preset = "hasty" }, [[a.mp4: preset is "hasty", want ultrafast, .* or placebo$]])
      refused(at("a.txt"), { width = 32, height = 32 }, "a.txt: no known kind of video")
      refused(at("a.webm"), { width = 32, height = 32 }, "a.webm: a webm file cannot hold this video")
      refused(at("none/a.mp4"), { width = 32, height = 32 }, "none/a.mp4: No such file or directory")
      refused(at("a.mp4"), { width = 0, height = 32 }, "size is 0 x 32")
      local writer = assert(media.writer(at("a.mp4"), { width = 32, height = 32 }))
      writer:write(made.picture(32, 32, 1), 1)
      assert.error_matches(function() writer:write(made.picture(32, 32, 1), 1) end, "time of frame 2 is 1.000000 s, want more than 1.000000 s")
      assert.error_matches(function() writer:write(made.picture(32, 30, 1), 2) end, "frame is u8 %[30,32,3%], want u8 %[32,32,3%]")
      writer:abort()
    end)

    it("reports a disk that is full in one line and leaves no file", function()
      local script = write("full.lua", ([[
        package.path, package.cpath = %q, %q
        local made, media = require "helper_media", require "libration.media"
        local ok, err = pcall(made.video, %q, 320, 240, made.steady(60, 25), { crf = 0 })
        io.stdout:write(tostring(ok), " ", tostring(err))]]):format(package.path, package.cpath, at("full.mp4")))
      local pipe = io.popen(("cd %s && trap '' XFSZ && ulimit -f 40 && luajit %s 2>&1"):format(files.quote(require("lfs").currentdir()), script))
      local text = pipe:read("*a")
      pipe:close()
      assert.matches("^false .*full.mp4: File too large$", text)
      assert.is_false(files.exists(at("full.mp4")))
      end)
  end)

  describe("bad input", function()
    it("gives the frames of a truncated file, and a warning", function()
      made.video(at("long.mkv"), 64, 48, made.steady(100, 25), { crf = 10 })
      local text = assert(files.read(at("long.mkv")))
      write("cut.mkv", text:sub(1, math.floor(#text * .6)))
      local source = assert(media.open(at("cut.mkv")))
      local times = made.drain(source)
      assert.is_true(#times > 10 and #times < 95)
      assert.matches("cut.mkv: the file is truncated: %d+ frames, to %d.%d+ s, could be read of 4.00 s", source.warning)
      source:close()
    end)
    it("does the same for a truncated mp4 of the real ones", function()
      local path = needs("data/video/egoblur_face.mp4")
      if not path then return end
      local text = assert(files.read(path))
      local head = text:find("moov", 1, true)
      if head > #text / 2 then
        write("cut.mp4", text:sub(1, math.floor(#text * .6)))
        local none, err = media.open(at("cut.mp4"))
        assert.is_nil(none)
        assert.matches("cut.mp4: .*moov", err)
      else
        write("cut.mp4", text:sub(1, math.floor(#text * .6)))
        local source = assert(media.open(at("cut.mp4")))
        local times = made.drain(source)
        assert.is_true(#times > 2 and #times < 14)
        assert.matches("truncated", source.warning)
        source:close()
      end
    end)

    local function refused(path, pattern, opts)
      local source, err = media.open(path, opts)
      assert.is_nil(source)
      assert.equal(path, err:sub(1, #path))
      assert.is_nil(err:find("\n"))
      assert.matches(pattern, err:sub(#path + 1))
    end
    it("is refused in one line that names the file", function()
      refused(write("text.mp4", ("This is a text.\n"):rep(100)), "^: ")
      refused(write("empty.mp4", ""), "^: the file is empty$")
      refused(at("missing.mp4"), "^: No such file or directory$")
      files.mkdirs(at("bare"))
      refused(at("bare"), "no pictures in this folder")
      refused(write("noise.mkv", ("\27\69\223\163"):rep(400)), "^: ")
      made.video(at("short.mp4"), 32, 32, made.steady(5, 25))
      refused(at("short.mp4"), "start is 9 s, but it lasts 0.20 s", { start = 9 })
    end)
    it("of a file with sound alone says that there is no video", function()
      local path = needs("data/audio")
      if not path then return end
      local name = assert(files.list(path, "%.wav$"))[1]
      refused(path .. "/" .. name, "no video in it")
    end)
    it("raises the caller's mistakes at the caller's line", function()
      assert.error_matches(function() media.open(at("x.mp4"), { speed = 2 }) end, "media.open: unknown option 'speed', known are crop, decoder, fps, queue")
      assert.error_matches(function() media.open(at("x.mp4"), { fps = "25" }) end, "media.open: option 'fps' is a string, want a number")
      assert.error_matches(function() media.open(at("x.mp4"), { rotate = 45 }) end, "media.open: rotate is 45")
      assert.error_matches(function() media.open(at("x.mp4"), { crop = { 1, 2, 3 } }) end, "media.open: crop wants")
      assert.error_matches(function() media.open(at("x.mp4"), { start = 3, stop = 2 }) end, "media.open: stop 2 s is not after start 3 s")
      assert.error_matches(function() media.open(nil) end, "media.open: path is a nil")
      local _, message = pcall(function() media.open(at("x.mp4"), { speed = 2 }) end)
      assert.matches("media_spec.lua:%d+: media.open: unknown", message)
      assert.error_matches(function() media.writer(at("x.mp4"), {}) end, "media.writer: width and height are missing")
    end)
    it("stops on Ctrl-C and goes on afterwards", function()
      made.video(at("long.mp4"), 64, 48, made.steady(50, 25))
      local source = assert(media.open(at("long.mp4")))
      ffi.cdef "int raise(int);"
      core.C.lbr_interrupt_install()
      ffi.C.raise(2)
      local ok, err = pcall(source.next, source)
      assert.is_false(ok)
      assert.matches("interrupted", err)
      assert.equal(0, core.C.lbr_interrupted())
      source:seek(1)
      assert.equal(1, (select(2, source:next())))
      source:close()
    end)
  end)

  it("keeps its frame from one scope to the next", function()
    made.video(at("scope.mp4"), 64, 48, made.steady(3, 25))
    local source = assert(media.open(at("scope.mp4")))
    local sums = {}
    libration.scope(function()
      for i = 1, 2 do sums[i] = libration.scope(function() return made.checksum((source:next())) end) end
    end)
    sums[3] = made.checksum((source:next()))
    source:seek(0)
    for i = 1, 3 do assert.equal(sums[i], made.checksum((source:read()))) end
    source:close()
  end)

  it("frees sources that were forgotten, at any stage", function()
    made.video(at("many.mp4"), 64, 48, made.steady(50, 25))
    for i = 1, 30 do
      local source = assert(media.open(at("many.mp4"), { threads = i % 3 + 1, queue = i % 4 + 1 }))
      for _ = 1, i % 5 do source:next() end
      if i % 2 == 0 then source:seek(1) end
    end
    collectgarbage()
    collectgarbage()
    assert.equal(0, media.live())
  end)

  it("hashes strings, tensors and files alike", function()
    assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", media.hash():update("a"):update("bc"):hex())
    assert.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", media.hash():hex())
    local frame = made.picture(40, 30, 3)
    local path = write("frame.raw", made.bytes(frame))
    assert.equal(media.hash():update(frame):hex(), media.sha256(path))
    local none, err = media.sha256(at("missing"))
    assert.is_nil(none)
    assert.equal(at("missing") .. ": No such file or directory", err)
  end)
end)
