-- Broken files: every reader survives copies of a small valid file with bytes changed, cut, doubled and made huge, with an unreadable page behind them.
-- A sample by default; LIBRATION_FULL=1: 2,000 copies a kind of file, 200 a kind of video.
local files = require "libration.files"
local helper = require "helper"
local hostile = require "hostile"
local meter = require "meter"
local mutate = require "mutate"

local COUNT = helper.full() and 2000 or 100

describe("broken copies", function()
  for _, kind in ipairs(hostile.kinds) do
    it(("of a file, %s: a result or one line, in little time and memory, nothing read behind the end"):format(kind.name), function()
      local sum = hostile.run(kind, COUNT)
      if not sum then return pending "needs the ffmpeg program" end
      assert.is_true(sum.refused > 0)
    end)
  end

  it("make no reader ask malloc for more than 16 x the file #process #slow", function()
    local text, code = meter(("luajit tests/hostile.lua %d"):format(helper.full() and 2000 or 20))
    if not text then return pending(code) end
    if helper.full() then io.write(text) end
    assert.equal(0, code, text)
    assert.truthy(text:find("largest malloc", 1, true), text)
  end)
end)

describe("broken copies of a video", function()
  local media = require "libration.media"
  local made = require "helper_media"
  local folder
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  for _, ending in ipairs { "mp4", "mkv", "avi" } do
    it(ending .. ": frames, a warning or one line; no thread and no frame stays behind", function()
      local path = folder .. "/whole." .. ending
      made.video(path, 48, 32, made.steady(12, 25), { crf = 20 })
      local valid, frames, slowest = assert(files.read(path)), 0, 0
      local count = helper.full() and 200 or 25
      local refused = mutate.survive(valid, count, function(copy)
        local broken = folder .. "/broken." .. ending
        local file = assert(io.open(broken, "wb"))
        file:write(copy)
        file:close()
        local clock = os.clock()
        local source, err = media.open(broken, { threads = 1 })
        if not source then return nil, err end
        local ok, why = pcall(function()
          for _ in source:each() do frames = frames + 1 end
        end)
        source:close()
        slowest = math.max(slowest, os.clock() - clock)
        if not ok then return nil, tostring(why) end
        return true
      end)
      if helper.full() then io.write(("%s: %d copies, %d refused, %d frames of the others, slowest %.2f s\n"):format(ending, count, refused, frames, slowest)) end
      assert.is_true(refused > 0 and frames > count and slowest < 5)
      assert.equal(0, media.live())
    end)
  end
end)
