-- video.lua: a 1080p video encoded anew with masks on every frame beside the ffmpeg program's plain decoding and encoding with the same x264 settings. Detects nothing.
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

--- Rows of re-encoding, in turns with the ffmpeg program.
---@param h table a bench run
---@param o {folder: string, quick: boolean}
function video.compare(h, o)
  local input, ours, theirs = files.join(o.folder, "hd.mp4"), files.join(o.folder, "ours.mp4"), files.join(o.folder, "theirs.mp4")
  ffmpeg(("-f lavfi -i testsrc2=s=1920x1080:r=25:d=%d -vf noise=alls=8:allf=t -pix_fmt yuv420p -c:v libx264 -preset veryfast %s"):format(FRAMES / 25, files.quote(input)))
  local pipe = io.popen "ffmpeg -version 2>/dev/null"
  local version = (pipe:read "*l" or ""):match "version (%S+)" or "?"
  pipe:close()
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

return video
