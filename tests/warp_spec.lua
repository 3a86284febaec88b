-- Specs of the crop: against OpenCV's own bytes, on every instruction set, and what it refuses.
local ffi = require "ffi"
local cjson = require "cjson"
local helper = require "helper"
local core = require "libration.core"
require "libration"

local C = core.C
local HEIGHT, WIDTH = 23, 31

-- The made-up picture of golden/warp.py.
local function picture()
  local p = ffi.new("uint8_t[?]", HEIGHT * WIDTH * 3)
  for i = 0, HEIGHT * WIDTH * 3 - 1 do p[i] = (i * i * 7 + i * 31 + 11) % 251 end
  return p
end

local function goldens()
  local file = assert(io.open("tests/golden/warp.json"))
  local list = cjson.decode(file:read("*a"))
  file:close()
  return list
end

local function region(r)
  return ffi.new("lbr_region", r[1], r[2], r[3], r[4], r[5])
end

describe("warp", function()
  it("answers OpenCV's bytes: odd sizes, turned, half outside, both borders, every instruction set", function()
    local src = picture()
    helper.each_isa(function(isa)
      for k, g in ipairs(goldens()) do
        local n = g.rows * g.cols * 3
        local out = ffi.new("uint8_t[?]", n + 8)
        ffi.fill(out, n + 8, 0xa5)
        assert.equal(0, C.lbr_crop_u8(src, HEIGHT, WIDTH, WIDTH * 3, region(g.region), g.border, out, g.rows, g.cols))
        local different = 0
        for i = 0, n - 1 do
          if out[i] ~= tonumber(g.hex:sub(2 * i + 1, 2 * i + 2), 16) then different = different + 1 end
        end
        assert.equal(0, different, ("crop %d, instruction set %d"):format(k, isa))
        for i = n, n + 7 do assert.equal(0xa5, out[i], "written past the end") end
      end
    end)
  end)

  it("writes floats that are the bytes scaled, with one rounding", function()
    local src, g = picture(), goldens()[2]
    local n = g.rows * g.cols * 3
    helper.each_isa(function()
      local bytes, floats = ffi.new("uint8_t[?]", n), ffi.new("float[?]", n)
      for _, range in ipairs { { 1 / 255, 0 }, { 2 / 255, -1 } } do
        assert.equal(0, C.lbr_crop_u8(src, HEIGHT, WIDTH, WIDTH * 3, region(g.region), g.border, bytes, g.rows, g.cols))
        assert.equal(0, C.lbr_crop_f32(src, HEIGHT, WIDTH, WIDTH * 3, region(g.region), g.border, range[1], range[2], floats, g.rows, g.cols))
        local scale, one = tonumber(ffi.new("float", range[1])), ffi.new("float[1]")
        for i = 0, n - 1 do
          one[0] = bytes[i] * scale + range[2]
          assert.equal(one[0], floats[i])
        end
      end
    end)
  end)

  it("reads rows that are farther apart than their pixels", function()
    local src, g, row = picture(), goldens()[3], WIDTH * 3 + 29
    local wide = ffi.new("uint8_t[?]", HEIGHT * row)
    for y = 0, HEIGHT - 1 do ffi.copy(wide + y * row, src + y * WIDTH * 3, WIDTH * 3) end
    local out = ffi.new("uint8_t[?]", g.rows * g.cols * 3)
    assert.equal(0, C.lbr_crop_u8(wide, HEIGHT, WIDTH, row, region(g.region), g.border, out, g.rows, g.cols))
    for i = 0, g.rows * g.cols * 3 - 1 do assert.equal(tonumber(g.hex:sub(2 * i + 1, 2 * i + 2), 16), out[i]) end
  end)

  it("crops pictures of a single pixel, row or column", function()
    local src, out = ffi.new("uint8_t[15]", { 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150 }), ffi.new("uint8_t[48]")
    helper.each_isa(function()
      assert.equal(0, C.lbr_crop_u8(src, 1, 1, 3, region { .5, .5, 9, 9, .4 }, C.LBR_BORDER_REPLICATE, out, 4, 4))
      for i = 0, 47 do assert.equal(src[i % 3], out[i]) end
      assert.equal(0, C.lbr_crop_u8(src, 1, 5, 15, region { 2.5, .5, 5, 5, 0 }, C.LBR_BORDER_REPLICATE, out, 3, 5))
      for i = 0, 14 do assert.equal(src[i], out[i]) end
      assert.equal(0, C.lbr_crop_u8(src, 5, 1, 3, region { .5, 2.5, 5, 5, 0 }, C.LBR_BORDER_REPLICATE, out, 5, 3))
      for y = 0, 4 do assert.equal(src[3 * y + 1], out[9 * y + 1]) end
    end)
  end)

  it("refuses what cannot be cropped, by name", function()
    local src, out = picture(), ffi.new("uint8_t[12]")
    local function refused(code, text, ...)
      assert.equal(code, C.lbr_crop_u8(...))
      assert.matches(text, ffi.string(C.lbr_error()))
    end
    local whole = region { 15, 11, 10, 10, 0 }
    refused(C.LBR_EINVAL, "no area", src, HEIGHT, WIDTH, WIDTH * 3, region { 1, 1, 0, 0, 0 }, 0, out, 2, 2)
    refused(C.LBR_EINVAL, "not finite", src, HEIGHT, WIDTH, WIDTH * 3, region { 0 / 0, 1, 4, 4, 0 }, 0, out, 2, 2)
    refused(C.LBR_EINVAL, "border is 7", src, HEIGHT, WIDTH, WIDTH * 3, whole, 7, out, 2, 2)
    refused(C.LBR_ESHAPE, "picture is %[0,31,3%]", src, 0, WIDTH, WIDTH * 3, whole, 0, out, 2, 2)
    refused(C.LBR_ESHAPE, "rows of 20 bytes", src, HEIGHT, WIDTH, 20, whole, 0, out, 2, 2)
    refused(C.LBR_EINVAL, "no picture", nil, HEIGHT, WIDTH, WIDTH * 3, whole, 0, out, 2, 2)
    refused(C.LBR_EINVAL, "crop_u8: region, matrix or a size", src, HEIGHT, WIDTH, WIDTH * 3, whole, 0, out, 0, 2)
  end)

  it("turns RGB into Cairo's pixels and back", function()
    local src, four, back = picture(), ffi.new("uint32_t[?]", HEIGHT * WIDTH), ffi.new("uint8_t[?]", HEIGHT * WIDTH * 3)
    assert.equal(0, C.lbr_rgb_to_bgrx(src, WIDTH * 3, ffi.cast("uint8_t *", four), WIDTH * 4, HEIGHT, WIDTH))
    local x, y = 5, 9
    local p = src + (y * WIDTH + x) * 3
    assert.equal(0xff000000 + p[0] * 65536 + p[1] * 256 + p[2], four[y * WIDTH + x])
    assert.equal(0, C.lbr_bgrx_to_rgb(ffi.cast("uint8_t *", four), WIDTH * 4, back, WIDTH * 3, HEIGHT, WIDTH))
    assert.equal(ffi.string(src, HEIGHT * WIDTH * 3), ffi.string(back, HEIGHT * WIDTH * 3))
    assert.equal(C.LBR_ESHAPE, C.lbr_rgb_to_bgrx(src, WIDTH * 3, ffi.cast("uint8_t *", four), WIDTH * 3, HEIGHT, WIDTH))
  end)
end)

describe("warp beside MediaPipe's crops", function()
  local npy = require "libration.formats.npy"
  local stages = {
    { "ta_chi_f040", "video/ta_chi.mp4", 40 }, { "ta_chi_f200", "video/ta_chi.mp4", 200 }, { "sports2d_walk_f060", "video/sports2d_walk.mp4", 60 },
    { "sports2d_walk_f150", "video/sports2d_walk.mp4", 150 }, { "pose2sim_cam02_f050", "video/pose2sim_cam02.mp4", 50 },
    { "000000000785_f000", "stills/coco/000000000785.jpg", 0 },
  }
  -- Each file is decoded once, for all its frames.
  local frames = {}
  local function frame_of(path, index)
    local key = path .. "#" .. index
    if frames[key] then return frames[key] end
    local source = assert(require "libration.media".open(helper.shared("data/" .. path)))
    for i = 0, 200 do
      local frame = source:next()
      if not frame then break end
      for _, stage in ipairs(stages) do
        if stage[2] == path and stage[3] == i then frames[path .. "#" .. i] = frame:clone() end
      end
    end
    source:close()
    return frames[key]
  end

  for _, stage in ipairs(stages) do
    it(("bound: crop %s mean <= .05 levels, max <= 1%s"):format(stage[1], stage[2]:find "2sim" and " #slow" or stage[2]:find "sports2d" and " #slow" or ""), function()
      local folder = helper.shared("goldens/stages/" .. stage[1])
      if not folder then return pending("needs ../shared") end
      local frame = frame_of(stage[2], stage[3])
      local h, w = frame:size(1), frame:size(2)
      local place = assert(npy.load(folder .. "/roi.npy"))
      local roi = place:ptr()
      for _, kind in ipairs { { "detector", 224, C.LBR_BORDER_ZERO }, { "landmark", 256, C.LBR_BORDER_REPLICATE } } do
        local name, size, border = unpack(kind)
        local side = math.max(w, h)
        local r = name == "detector" and region { w / 2, h / 2, side, side, 0 } or region { roi[0], roi[1], roi[2], roi[2], roi[3] }
        assert.equal(4, place:numel())
        local golden = assert(npy.load(folder .. "/" .. name .. "_input_u8.npy"))
        local want, got = golden:ptr(), ffi.new("uint8_t[?]", size * size * 3)
        assert.equal(0, C.lbr_crop_u8(frame:ptr(), h, w, w * 3, r, border, got, size, size))
        local sum, max = 0, 0
        for i = 0, size * size * 3 - 1 do
          local d = math.abs(got[i] - want[i])
          sum, max = sum + d, math.max(max, d)
        end
        io.write(("bound: crop %s %s mean %.5f max %d\n"):format(stage[1], name, sum / (size * size * 3), max))
        assert.is_true(sum / (size * size * 3) <= .05 and max <= 1)
      end
    end)
  end
end)
