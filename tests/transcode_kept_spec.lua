-- What a video encoded anew keeps of the one it was, times, tags, turns and sound, and what it drops and lists.
local made = require "helper_media"
local files = require "libration.files"
local media = require "libration.media"

describe("transcode keeps", function()
  local at = made.folder()
  local shared = require "helper_transcode"(at)
  local run, frames_of, probe, packets, MASK, PLAIN = shared.run, shared.frames_of, shared.probe, shared.packets, shared.MASK, shared.PLAIN
  local function clip(...) return shared.clip(...) or pending "needs the ffmpeg program" end

  it("keeps uneven times, pixel aspect, colour tags and language; drops and lists tags, cover, subtitles, data, chapters", function()
    if not clip("plain.mp4", PLAIN) then return end
    files.write(at("s.srt"), "1\n00:00:00,000 --> 00:00:00,500\nher name\n")
    files.write(at("meta.txt"), ";FFMETADATA1\ntitle=our child\nlocation=+48.1+011.6/\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=first\n")
    media.write_png(at("cover.png"), made.picture(32, 32, 1))
    local input = clip("rich.mkv", ("-f lavfi -i testsrc2=s=96x64:r=25:d=0.8 -f lavfi -i sine=440:d=0.8 -f lavfi -i sine=880:d=0.8 -i %s -i %s " ..
      "-map 0:v -map 1:a -map 2:a -map 3:s -map_metadata 4 -map_chapters 4 -vf \"select='not(eq(mod(n\\,5)\\,2))',setsar=4/3\" -fps_mode vfr -c:v libx264 -preset ultrafast " ..
      "-pix_fmt yuv420p -color_range pc -colorspace bt709 -color_primaries bt709 -color_trc bt709 -c:a:0 libvorbis -c:a:1 aac -c:s srt " ..
      "-metadata:s:a:0 language=deu -metadata:s:v camera=C1000 -attach %s -metadata:s:t mimetype=image/png"):format(at("s.srt"), at("meta.txt"), at("cover.png")))
    local t = run({ input = input, output = at("rich out.mkv") }, MASK)
    local a, b = probe(input), probe(at("rich out.mkv"))
    assert.same({ "h264", "vorbis", "aac" }, { b.streams[1].codec_name, b.streams[2].codec_name, b.streams[3].codec_name })
    assert.equal(3, #b.streams)
    for _, key in ipairs { "nb_read_frames", "sample_aspect_ratio", "color_range", "color_space", "color_primaries", "color_transfer", "avg_frame_rate", "pix_fmt" } do
      assert.equal(a.video[key], b.video[key], key)
    end
    assert.near(tonumber(a.format.duration), tonumber(b.format.duration), .05)
    assert.equal("ger", b.streams[2].tags.language == "deu" and "ger" or b.streams[2].tags.language)
    assert.same(packets(input, "1"), packets(at("rich out.mkv"), "1"))
    assert.same({}, b.chapters)
    local p, q = frames_of(input), frames_of(at("rich out.mkv"))
    for i = 1, #p do assert.near(p[i].time - p[1].time, q[i].time - q[1].time, 1e-6) end
    local text = assert(files.read(at("rich out.mkv")))
    for _, secret in ipairs { "our child", "+48.1", "her name", "C1000" } do assert.is_nil(text:find(secret, 1, true)) end
    local dropped = table.concat(t.dropped, "\n"):lower()
    for _, want in ipairs { "subtitles: stream 3, subrip", "chapters: 1", "tag: title", "tag: location", "tag: camera of stream 0" } do
      assert.truthy(dropped:find(want, 1, true), want .. " in " .. dropped)
    end
    assert.truthy(dropped:find "cover art: stream 4" or dropped:find "attachment: stream 4", dropped)
    assert.is_nil(dropped:find("our child", 1, true))
  end)

  it("keeps rotation as a tag in mp4 and turns the frames in mkv; masks lie where they are seen", function()
    local input = clip("plain.mp4", PLAIN)
    if not input then return end
    for _, angle in ipairs { 90, 180, 270 } do
      local turned = at("turned" .. angle .. ".mp4")
      assert.is_true(made.ffmpeg(("-display_rotation %d -i %s -c copy %s"):format(angle, input, turned))
        or made.ffmpeg(("-i %s -c copy -metadata:s:v rotate=%d %s"):format(input, angle, turned)))
      local seen = assert(media.open(turned))
      local w, h = seen.width, seen.height
      seen:close()
      for _, ending in ipairs { "mp4", "mkv" } do
        local out = at("upright" .. angle .. "." .. ending)
        local t = run({ input = turned, output = out, crf = 0 }, { { shape = "polygon", points = { 2, 4, 30, 4, 30, 24, 2, 24 } },
          { shape = "box", x = w - 16, y = h - 10, width = 20, height = 8, angle = math.pi } }, { style = "box" })
        assert.same({ w, h, angle % 180 == 0 and 180 or t.rotation }, { t.width, t.height, t.rotation })
        local a, b = frames_of(turned), frames_of(out)
        assert.equal(#a[1].bytes, #b[1].bytes)
        local wrong = 0
        for y = 0, h - 1 do
          for x = 0, w - 1 do
            local k = 3 * (y * w + x) + 1
            local function inside(grow)
              return x >= 2 - grow and x < 30 + grow and y >= 4 - grow and y < 24 + grow or x >= w - 26 - grow and x < w - 6 + grow and y >= h - 14 - grow and y < h - 6 + grow
            end
            if inside(0) and b[1].bytes:byte(k) > 2 then wrong = wrong + 1 end
            if not inside(2) and math.abs(a[1].bytes:byte(k) - b[1].bytes:byte(k)) > 2 then wrong = wrong + 1 end
          end
        end
        assert.equal(0, wrong)
      end
    end
  end)

  it("keeps a beginning that is a little late, and takes off a late one", function()
    for offset, want in pairs { [.3] = .3, [5] = 0 } do
      local input = clip("late" .. offset .. ".mkv", ("-f lavfi -i testsrc2=s=64x48:r=10:d=0.5 -f lavfi -i sine=d=0.5 -c:v libx264 -preset ultrafast -bf 0 -c:a pcm_s16le " ..
        "-output_ts_offset %g"):format(offset))
      if not input then return end
      local _, list = run({ input = input, output = at("late.mkv") }, MASK)
      assert.near(0, list[1].time, .001)
      local b = probe(at("late.mkv"))
      assert.near(want, tonumber(b.video.start_time), .002)
      assert.near(want, tonumber(b.audio.start_time), .002)
    end
  end)

  it("without sound, with it dropped, and made AAC where mp4 cannot hold it; container() says which fits", function()
    local silent = clip("silent.mp4", "-f lavfi -i testsrc2=s=64x48:r=10:d=0.3 -c:v libx264 -preset ultrafast")
    local flac = clip("flac.mkv", "-f lavfi -i testsrc2=s=64x48:r=10:d=0.5 -f lavfi -i sine=d=0.5 -c:v libx264 -preset ultrafast -c:a flac")
    local pcm = clip("pcm.mov", "-f lavfi -i testsrc2=s=64x48:r=10:d=0.5 -f lavfi -i sine=d=0.5 -c:v libx264 -preset ultrafast -c:a pcm_s16le")
    if not pcm then return end
    assert.equal(0, run({ input = silent, output = at("s.mp4") }).sounds)
    local t = run { input = flac, output = at("dropped.mp4"), audio = "drop" }
    assert.equal("sound: stream 1, flac", t.dropped[1])
    assert.is_nil(probe(at("dropped.mp4")).audio)
    t = run { input = flac, output = at("aac.mp4") }
    assert.matches("encoded anew, as AAC", t.warning)
    assert.equal("aac", probe(at("aac.mp4")).audio.codec_name)
    assert.same({ "mkv", "mkv", "mp4", "mp4" }, { media.container(flac), media.container(pcm), media.container(pcm, "drop"), media.container(silent) })
    run { input = pcm, output = at("pcm.mkv") }
    assert.same({ "pcm_s16le", "5" }, { probe(at("pcm.mkv")).audio.codec_name, probe(at("pcm.mkv")).video.nb_read_frames })
    run { input = pcm, output = at("pcm out.mov") }
    assert.same(packets(pcm, "a"), packets(at("pcm out.mov"), "a"))
  end)

  it("empties the tags inside a copied Vorbis header, which decodes as before", function()
    local ogg = clip("tagged.ogg", "-f lavfi -i sine=d=0.5 -c:a libvorbis -metadata LOCATION=ourgarden")
    local input = ogg and clip("tagged.mkv", "-f lavfi -i testsrc2=s=64x48:r=10:d=0.5 -i " .. ogg .. " -c:v libx264 -preset ultrafast -c:a copy")
    if not input then return end
    -- whatever that ffmpeg wrote there: a tag of ours, as long as its own
    local text = assert(files.read(input))
    local from, to = text:find("\3vorbis....[^%c]+", 1)
    assert.truthy(from)
    files.write(input, text:sub(1, from + 10) .. ("G"):rep(to - from - 10) .. text:sub(to + 1))
    run { input = input, output = at("untagged.mkv") }
    assert.truthy(assert(files.read(input)):find "GGGGG")
    assert.is_nil(assert(files.read(at("untagged.mkv"))):find "GGGGG")
    assert.is_true(made.ffmpeg(("-i %s -map 0:a -f s16le %s"):format(input, at("v1.raw"))) and made.ffmpeg(("-i %s -map 0:a -f s16le %s"):format(at("untagged.mkv"), at("v2.raw"))))
    assert.equal(assert(media.sha256(at("v1.raw"))), assert(media.sha256(at("v2.raw"))))
  end)

  it("distorts voices: as long, as loud over time, the waveform gone, the same bytes again", function()
    local input = clip("voice.mkv", "-f lavfi -i testsrc2=s=64x48:r=10:d=1 -f lavfi -i \"aevalsrc=exprs='sin(2*PI*t*150)*lt(mod(t,.4),.2)*.5|sin(2*PI*t*900)*.3':s=44100:d=1\" " ..
      "-c:v libx264 -preset ultrafast -c:a pcm_s16le")
    if not input then return end
    for k = 1, 2 do run { input = input, output = at("voice" .. k .. ".mp4"), audio = "distort" } end
    assert.equal(assert(media.sha256(at("voice1.mp4"))), assert(media.sha256(at("voice2.mp4"))))
    local function samples(path, name)
      assert.is_true(made.ffmpeg(("-i %s -map 0:a -f f32le -ac 2 -ar 44100 %s"):format(path, at(name))))
      local text = assert(files.read(at(name)))
      local ffi = require "ffi"
      return ffi.cast("const float *", text), #text / 8, text
    end
    local a, n, keep_a = samples(input, "a.raw")
    local b, m, keep_b = samples(at("voice1.mp4"), "b.raw")
    assert.is_true(#keep_a > 0 and #keep_b > 0)
    assert.near(n, m, 1100)
    local function power(p, from, to, channel)
      local sum = 0
      for i = math.floor(from * 44100), math.floor(to * 44100) - 1 do sum = sum + p[2 * i + channel] ^ 2 end
      return sum / ((to - from) * 44100)
    end
    assert.is_true(power(b, .45, .55, 0) > 20 * power(b, .25, .35, 0)) -- on, off
    assert.is_true(math.abs(math.log(power(b, .05, .95, 1) / power(a, .05, .95, 1))) < .3)
    local best = 0
    for lag = -300, 300, 3 do
      local ab, aa, bb = 0, 0, 0
      for i = 10000, 30000, 3 do
        local x, y = a[2 * i + 1], b[2 * (i + lag) + 1]
        ab, aa, bb = ab + x * y, aa + x * x, bb + y * y
      end
      best = math.max(best, math.abs(ab) / math.sqrt(aa * bb))
    end
    assert.is_true(best < .35, best) -- a sine that was left alone has 1
  end)
end)
