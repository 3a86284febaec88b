-- Videos for the specs of transcode, one run of it, and what ffprobe and ffmpeg say of the outcome. No spec itself.
local json = require "cjson"
local made = require "helper_media"
local files = require "libration.files"
local media = require "libration.media"

---@param at fun(name: string): string of made.folder
return function(at)
  local shared = {
    MASK = { { shape = "box", x = 40, y = 30, width = 32, height = 20 } },
    PLAIN = "-f lavfi -i testsrc2=s=96x64:r=10:d=0.8 -f lavfi -i sine=440:d=0.8 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac",
  }

  -- A video by the ffmpeg program; nil without it.
  function shared.clip(name, arguments)
    if not made.has_ffmpeg() then return end
    if not files.exists(at(name)) then assert(made.ffmpeg(arguments .. " " .. files.quote(at(name))), name) end
    return at(name)
  end

  function shared.probe(path)
    local pipe = io.popen("ffprobe -v error -count_frames -show_streams -show_format -show_chapters -of json " .. files.quote(path) .. " 2>/dev/null")
    local text = pipe:read "*a"
    pipe:close()
    local all = json.decode(text)
    for _, s in ipairs(all.streams) do all[s.codec_type] = all[s.codec_type] or s end
    return all
  end

  -- Digests of the packets of a stream, in order, without their times.
  function shared.packets(path, stream)
    local pipe = io.popen(("ffmpeg -nostdin -v error -i %s -map 0:%s -c copy -f framehash -hash md5 - 2>/dev/null"):format(files.quote(path), stream))
    local list = {}
    for line in pipe:lines() do list[#list + 1] = line:match "([%da-f]+)$" and not line:find "^#" and line:match "([%da-f]+)$" or nil end
    pipe:close()
    return list
  end

  -- Runs it all; masks: for each frame, or a function of it.
  function shared.run(opts, masks, style)
    opts.preset, opts.threads = opts.preset or "ultrafast", opts.threads or 2
    local t = assert(media.transcode(opts))
    local list = {}
    for frame in t:frames() do
      list[#list + 1] = frame
      local m = masks
      if type(masks) == "function" then m = masks(frame, t) end
      if opts.output then t:write(frame, m, style) end
    end
    t:close()
    return t, list
  end

  function shared.frames_of(path)
    local source, list = assert(media.open(path)), {}
    for frame, time in source:each() do list[#list + 1] = { time = time, bytes = made.bytes(frame) } end
    source:close()
    return list
  end

  return shared
end
