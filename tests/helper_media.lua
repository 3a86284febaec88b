-- Moving pictures and files made of them, for the specs of media. No spec itself.
local ffi = require "ffi"
local core = require "libration.core"
local files = require "libration.files"
local media = require "libration.media"
local tensor = require "libration.tensor"

local made = {}

---A folder of a describe block's own: made before its first spec and removed after its last. After each spec no stream is open and no file unfinished.
---@return fun(name: string?): string at path of a name in it, without a name its own
function made.folder()
  local busted, folder = require "busted", nil
  busted.setup(function() folder = files.temporary_folder() end)
  busted.teardown(function() files.remove(folder) end)
  busted.after_each(function()
    collectgarbage()
    collectgarbage()
    assert(media.live() == 0, "a stream is open")
    for name in require("lfs").dir(folder) do assert(not name:find("^%.tmp"), name) end
  end)
  return function(name) return name and folder .. "/" .. name or folder end
end

---A picture with structure in every corner, different for every step.
---@return Tensor u8 [height,width,3]
function made.picture(width, height, step)
  local frame = tensor.empty({ height, width, 3 }, "u8")
  local p = frame:ptr()
  for y = 0, height - 1 do
    for x = 0, width - 1 do
      local at = 3 * (y * width + x)
      p[at] = (x * 3 + step * 5) % 256
      p[at + 1] = (y * 4 + step * 3) % 256
      p[at + 2] = ((x + y) * 2 + 7 * step) % 256
    end
  end
  return frame
end

function made.bytes(frame)
  return ffi.string(frame:ptr(), frame:numel())
end

---A quick checksum of one frame.
function made.checksum(frame)
  return tostring(core.C.lbr_hash(frame:ptr(), frame:numel(), 0))
end

---Times and quick checksums of all that a source gives.
function made.drain(source)
  local times, sums = {}, {}
  for frame, time in source:each() do
    times[#times + 1], sums[#sums + 1] = time, made.checksum(frame)
  end
  return times, sums
end

---SHA-256 of all that a source gives, as one stream of bytes.
---@return string hex, integer frames
function made.digest(source, limit)
  local hash, count = media.hash(), 0
  while not limit or count < limit do
    local frame = source:next()
    if not frame then break end
    hash:update(frame)
    count = count + 1
  end
  return hash:hex(), count
end

---A video of our own writer. times: seconds of its frames.
function made.video(path, width, height, times, opts)
  opts = opts or {}
  opts.width, opts.height = width, height
  local writer = assert(media.writer(path, opts))
  for i, time in ipairs(times) do writer:write(made.picture(width, height, i), time) end
  writer:close()
  return path
end

function made.steady(count, fps)
  local times = {}
  for i = 1, count do times[i] = (i - 1) / fps end
  return times
end

local ok
---Whether the ffmpeg program is there: not needed by the product, a second opinion for the specs.
function made.has_ffmpeg()
  if ok == nil then ok = os.execute("ffmpeg -version >/dev/null 2>&1") == 0 end
  return ok
end

function made.ffmpeg(arguments)
  return os.execute("ffmpeg -nostdin -v error -y " .. arguments .. " 2>/dev/null") == 0
end

---Digest of what the ffmpeg program decodes to rgb24.
function made.ffmpeg_digest(path, folder)
  local raw = folder .. "/raw.rgb"
  assert(made.ffmpeg(("-i %s -fps_mode passthrough -f rawvideo -pix_fmt rgb24 %s"):format(files.quote(path), raw))
    or made.ffmpeg(("-i %s -vsync passthrough -f rawvideo -pix_fmt rgb24 %s"):format(files.quote(path), raw)))
  return assert(media.sha256(raw))
end

return made
