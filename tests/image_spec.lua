-- Single pictures and folders of them.
local helper = require "helper"
local made = require "helper_media"
local files = require "libration.files"
local media = require "libration.media"
local tensor = require "libration.tensor"

describe("image", function()
  local at = made.folder()
  local function fresh(name, count, width, height)
    files.mkdirs(at(name))
    for i = 1, count do media.write_png(("%s/frame%d.png"):format(at(name), i), made.picture(width or 24, height or 18, i)) end
    return at(name)
  end
  local function text(path) return (assert(files.read(path))) end
  local function refused(path, pattern, opts)
    local source, err = media.open(path, opts)
    assert.is_nil(source)
    assert.matches(pattern, err)
    assert.is_nil(err:find("\n"))
  end

  it("writes PNG and reads the same bytes, odd sizes, RGB", function()
    local picture = made.picture(37, 23, 1)
    media.write_png(at("rgb.png"), picture)
    local back = assert(media.read_picture(at("rgb.png")))
    assert.same({ 23, 37, 3 }, back.shape)
    assert.is_true(made.bytes(picture) == made.bytes(back))
  end)

  it("writes grey and RGBA; reading makes both RGB and drops alpha", function()
    local grey, rgba = tensor.empty({ 5, 7 }, "u8"), tensor.empty({ 5, 7, 4 }, "u8")
    local g, a = grey:ptr(), rgba:ptr()
    for i = 0, 34 do
      g[i] = 7 * i
      a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3] = i, 2 * i, 3 * i, 5 * i
    end
    media.write_png(at("grey.png"), grey)
    media.write_png(at("rgba.png"), rgba)
    local p, q = assert(media.read_picture(at("grey.png"))), assert(media.read_picture(at("rgba.png")))
    for i = 0, 34 do
      for c = 0, 2 do
        assert.equal(g[i], p:ptr()[3 * i + c])
        assert.equal(a[4 * i + c], q:ptr()[3 * i + c])
      end
    end
  end)

  it("refuses to write what is no picture, and where nothing can be written, in one line and without a file", function()
    assert.error_matches(function() media.write_png(at("x.png"), tensor.empty({ 5, 7, 2 }, "u8")) end, "pixels are u8 %[5,7,2%], want u8")
    assert.error_matches(function() media.write_png(at("x.png"), tensor.empty({ 5, 7 }, "f32")) end, "pixels are f32 %[5,7%], want u8")
    assert.error_matches(function() media.write_png(at("none/x.png"), made.picture(4, 4, 1)) end, "none/x.png: No such file or directory")
    files.mkdirs(at("taken.png"))
    assert.error_matches(function() media.write_png(at("taken.png"), made.picture(4, 4, 1)) end, "taken.png: Is a directory")
  end)

  local kinds = {
    ["palette PNG"] = { "palette.png", "-pix_fmt pal8", 0 },
    ["16-bit grey PNG"] = { "grey16.png", "-pix_fmt gray16be", 1 }, ["16-bit RGB PNG"] = { "rgb48.png", "-pix_fmt rgb48be", 1 },
    ["1-bit PNG"] = { "mono.png", "-pix_fmt monob", 0 }, ["PNG with alpha"] = { "alpha.png", "-pix_fmt rgba", 0 }, BMP = { "a.bmp", "", 0 },
    ["24-bit TIFF"] = { "a.tif", "-pix_fmt rgb24", 0 }, ["JPEG 4:4:4"] = { "b.jpg", "-pix_fmt yuvj444p", 3 },
    ["grey JPEG"] = { "c.jpg", "-pix_fmt gray", 3 }, ["odd JPEG"] = { "d.jpg", "-vf scale=61:47 -pix_fmt yuvj444p", 3 },
  }
  for name, kind in pairs(kinds) do
    it(("reads a %s within %d of ffmpeg's rgb24"):format(name, kind[3]), function()
      if not made.has_ffmpeg() then return pending("needs the ffmpeg program") end
      assert.is_true(made.ffmpeg(("-f lavfi -i testsrc=s=64x48 %s -frames:v 1 -update 1 %s"):format(kind[2], at(kind[1])))
        or made.ffmpeg(("-f lavfi -i testsrc=s=64x48 %s -frames:v 1 %s"):format(kind[2], at(kind[1]))))
      local picture = assert(media.read_picture(at(kind[1])))
      assert.is_true(made.ffmpeg(("-i %s -f rawvideo -pix_fmt rgb24 %s"):format(at(kind[1]), at("raw.rgb"))))
      local want, got = text(at("raw.rgb")), made.bytes(picture)
      assert.equal(#want, #got)
      local worst = 0
      for i = 1, #want do worst = math.max(worst, math.abs(want:byte(i) - got:byte(i))) end
      assert.is_true(worst <= kind[3], "differs by " .. worst)
    end)
  end

  it("reads photographs to the bytes that Pillow gives, of which the goldens keep the checksums", function()
    local path, golden = helper.shared("data/stills"), helper.shared("goldens/stills/stills.json")
    if not path or not golden then return pending("needs ../shared") end
    local n = 0
    for name, want in pairs(require("cjson").decode(text(golden))) do
      local picture = assert(media.read_picture(path .. "/../" .. name))
      assert.same({ want.height, want.width, 3 }, picture.shape)
      assert.equal(want.rgb24_sha256, media.hash():update(picture):hex(), name)
      n = n + 1
    end
    assert.equal(6, n)
  end)

  it("turns a JPEG as its EXIF block says, and survives a broken block", function()
    if not made.has_ffmpeg() then return pending("needs the ffmpeg program") end
    assert.is_true(made.ffmpeg("-f lavfi -i testsrc=s=40x24 -pix_fmt yuvj444p -frames:v 1 -update 1 " .. at("upright.jpg")))
    local plain = text(at("upright.jpg"))
    local upright = assert(media.read_picture(at("upright.jpg"))):totable()
    local function with(exif)
      local file = assert(io.open(at("turned.jpg"), "wb"))
      file:write(plain:sub(1, 2), "\255\225", string.char(math.floor((#exif + 2) / 256), (#exif + 2) % 256), exif, plain:sub(3))
      file:close()
      return assert(media.read_picture(at("turned.jpg")))
    end
    local function block(value) return "Exif\0\0MM\0*\0\0\0\8\0\1\1\18\0\3\0\0\0\1\0" .. string.char(value) .. "\0\0\0\0\0\0" end
    -- where the upright pixel (row 1, column 1) of each orientation lies in the stored picture
    local first = { { 1, 1 }, { 1, 40 }, { 24, 40 }, { 24, 1 }, { 1, 1 }, { 24, 1 }, { 24, 40 }, { 1, 40 } }
    for value = 1, 8 do
      local picture = with(block(value))
      assert.same(value < 5 and { 24, 40, 3 } or { 40, 24, 3 }, picture.shape)
      assert.same(upright[first[value][1]][first[value][2]], picture:totable()[1][1], "orientation " .. value)
    end
    local whole = block(6)
    for n = 6, #whole - 1 do assert.equal(3, #with(whole:sub(1, n)).shape) end
    assert.same({ 24, 40, 3 }, with(whole:gsub("\0\8\0\1", "\255\255\0\1")).shape)
  end)

  it("turns PNG, WebP and TIFF as their EXIF says", function()
    local bit = require "bit"
    local function crc(bytes)
      local c = -1
      for i = 1, #bytes do
        c = bit.bxor(c, bytes:byte(i))
        for _ = 1, 8 do c = bit.bxor(bit.rshift(c, 1), bit.band(c, 1) == 1 and 0xEDB88320 or 0) end
      end
      return bit.bnot(c)
    end
    local function big(n) return string.char(bit.band(bit.rshift(n, 24), 255), bit.band(bit.rshift(n, 16), 255), bit.band(bit.rshift(n, 8), 255), bit.band(n, 255)) end
    local function save(name, bytes)
      local file = assert(io.open(at(name), "wb"))
      file:write(bytes)
      file:close()
      return at(name)
    end
    local exif = "MM\0*\0\0\0\8\0\1\1\18\0\3\0\0\0\1\0\6\0\0\0\0\0\0" -- a quarter turn clockwise
    local function turned(name, plain)
      local a, b = assert(media.read_picture(plain)), assert(media.read_picture(name))
      assert.same({ a.shape[2], a.shape[1], 3 }, b.shape)
      assert.same(a:totable()[a.shape[1]][1], b:totable()[1][1])
    end
    media.write_png(at("plain.png"), made.picture(20, 10, 4))
    local png = text(at("plain.png"))
    local chunk = big(#exif) .. "eXIf" .. exif .. big(crc("eXIf" .. exif))
    turned(save("before.png", png:sub(1, 33) .. chunk .. png:sub(34)), at("plain.png"))
    turned(save("behind.png", png:sub(1, -13) .. chunk .. png:sub(-12)), at("plain.png"))

    -- 3 x 2 pixels of 8-bit RGB behind a directory of 10 entries
    local function tiff(orientation)
      local function short(n) return string.char(n, 0) end
      local function entry(tag, kind, count, value) return string.char(tag % 256, math.floor(tag / 256)) .. short(kind) .. short(count) .. "\0\0" .. short(value) .. "\0\0" end
      local pixels = 8 + 2 + 12 * 11 + 4 + 6
      return "II*\0\8\0\0\0" .. short(11) .. entry(256, 3, 1, 3) .. entry(257, 3, 1, 2) .. entry(258, 3, 3, pixels - 6) .. entry(259, 3, 1, 1) .. entry(262, 3, 1, 2)
        .. entry(273, 4, 1, pixels) .. entry(274, 3, 1, orientation) .. entry(277, 3, 1, 3) .. entry(278, 3, 1, 2) .. entry(279, 4, 1, 18) .. entry(284, 3, 1, 1)
        .. "\0\0\0\0" .. short(8):rep(3) .. "abcdefghijklmnopqr"
    end
    turned(save("turned.tif", tiff(6)), save("plain.tif", tiff(1)))

    if not made.has_ffmpeg() or not made.ffmpeg("-i " .. at("plain.png") .. " -c:v libwebp -lossless 1 " .. at("plain.webp")) then return end
    local webp = text(at("plain.webp"))
    turned(save("turned.webp", webp .. "EXIF" .. big(#exif):reverse() .. exif), at("plain.webp"))
    turned(save("named.webp", webp .. "EXIF" .. big(#exif + 6):reverse() .. "Exif\0\0" .. exif), at("plain.webp"))
    for n = 1, #exif do assert.truthy(media.read_picture(save("cut.webp", webp .. "EXIF" .. big(#exif):reverse() .. exif:sub(1, n)))) end
  end)

  it("writes JPEG without EXIF; refuses what is none", function()
    local picture = made.picture(37, 23, 1)
    for y = 0, 22 do -- soft, as JPEG likes it
      for x = 0, 36 do
        local p = picture:ptr() + 3 * (y * 37 + x)
        p[0], p[1], p[2] = 5 * x, 9 * y, 100
      end
    end
    media.write_jpeg(at("rgb.jpg"), picture, 95)
    local back = assert(media.read_picture(at("rgb.jpg")))
    assert.same({ 23, 37, 3 }, back.shape)
    assert.is_true(helper.difference(picture, back) <= 12)
    assert.is_nil(text(at("rgb.jpg")):find("\255\225", 1, true))
    local size = #text(at("rgb.jpg"))
    assert.is_true(media.pack_jpeg(picture, 95) == text(at("rgb.jpg")))
    media.write_jpeg(at("rgb.jpg"), picture, 30)
    assert.is_true(#text(at("rgb.jpg")) < size)
    local grey = tensor.empty({ 9, 8 }, "u8")
    for i = 0, 71 do grey:ptr()[i] = 90 end
    media.write_jpeg(at("grey.jpg"), grey)
    assert.near(90, assert(media.read_picture(at("grey.jpg"))):ptr()[30], 1)
    assert.error_matches(function() media.write_jpeg(at("x.jpg"), tensor.empty({ 5, 7, 4 }, "u8")) end, "write_jpeg: pixels are u8 %[5,7,4%], want u8 %[H,W%] or %[H,W,3%]")
    assert.error_matches(function() media.write_jpeg(at("x.jpg"), picture, 101) end, "quality is 101, want 1 to 100")
    assert.error_matches(function() media.pack_jpeg(picture, 0) end, "quality is 0, want 1 to 100")
    assert.error_matches(function() media.pack_jpeg(tensor.empty({ 5, 7, 2 }, "u8")) end, "media.pack_jpeg: pixels are u8 %[5,7,2%], want u8")
    assert.error_matches(function() media.write_jpeg(at("none/x.jpg"), picture) end, "none/x.jpg: No such file or directory")
    assert.is_false(files.exists(at("x.jpg")))
  end)

  it("is a source of one frame", function()
    media.write_png(at("one.png"), made.picture(20, 10, 4))
    local source = assert(media.open(at("one.png"), { crop = { 2, 1, 10, 4 }, rotate = 90 }))
    assert.same({ "picture", 4, 10, 20, 10, 1 }, { source.kind, source.width, source.height, source.source_width, source.source_height, source.frames })
    local frame, time, index = source:next()
    assert.same({ 0, 1 }, { time, index })
    assert.equal(made.picture(20, 10, 4):ptr()[3 * (4 * 20 + 2)], frame:ptr()[0]) -- the lower left corner of the crop
    assert.is_nil(source:next())
    assert.is_nil(source:next())
    source:close()
    source:close()
    assert.has_error(function() source:next() end)
  end)

  it("folders give their frames in natural order, with times from fps", function()
    local source = assert(media.open(fresh("order", 12)))
    assert.same({ "folder", 24, 18, 25, 12 }, { source.kind, source.width, source.height, source.fps, source.frames })
    local i = 0
    for frame, time, index in source:each() do
      i = i + 1
      assert.equal(i, index)
      assert.near((i - 1) / 25, time, 1e-12)
      assert.is_true(made.bytes(frame) == made.bytes(made.picture(24, 18, i)))
    end
    assert.equal(12, i)
    source:seek(.2)
    assert.is_true(made.bytes((source:next())) == made.bytes(made.picture(24, 18, 6)))
    source:close()

    source = assert(media.open(at("order"), { fps = 10, start = .3, stop = .65, threads = 1, queue = 1 }))
    assert.equal(4, source.frames)
    local times = made.drain(source)
    assert.same({ .3, .4, .5, .6 }, times)
    source:close()
    refused(at("order"), "order/frame1.png: no frame between start and stop", { start = 9 })
  end)

  it("only rgb/syn_*.png of a MINI-RGBD sequence is opened", function()
    for _, name in ipairs { "rgb", "depth", "fg_mask" } do files.mkdirs(at("01/" .. name)) end
    for i = 0, 2 do
      media.write_png(("%s/syn_%05d.png"):format(at("01/rgb"), i), made.picture(16, 12, i))
      media.write_png(("%s/syn_%05d_depth.png"):format(at("01/depth"), i), made.picture(8, 8, i))
      media.write_png(("%s/syn_%05d_depth.png"):format(at("01/rgb"), i), made.picture(8, 8, i))
    end
    media.write_png(at("01/rgb/preview.png"), made.picture(3, 3, 1))
    local source = assert(media.open(at("01")))
    assert.equal(3, #source.files)
    for _, path in ipairs(source.files) do assert.matches("rgb/syn_%d+%.png$", path) end
    assert.equal(3, (#made.drain(source)))
    source:close()
  end)

  it("mixed sizes are refused by name", function()
    local path = fresh("mixed", 8)
    media.write_png(path .. "/frame5.png", made.picture(18, 24, 5))
    local source = assert(media.open(path))
    local count = 0
    assert.error_matches(function() for _ in source:each() do count = count + 1 end end,
      "mixed/frame5.png is 18 x 24, want 24 x 18 as the first of the folder")
    assert.equal(4, count)
    source:close()
  end)

  it("a corrupt PNG, half a JPEG and a text are refused by name", function()
    local path = fresh("corrupt", 4)
    local whole = text(path .. "/frame3.png")
    for _, broken in ipairs { whole:sub(1, 80), whole:sub(1, 60) .. ("\0"):rep(20) .. whole:sub(81), "a text", "" } do
      files.write(path .. "/frame3.png", broken)
      local source = assert(media.open(path))
      local count = 0
      local ok, err = pcall(function() for _ in source:each() do count = count + 1 end end)
      assert.is_false(ok)
      assert.equal(2, count)
      assert.matches("corrupt/frame3.png: ", err)
      assert.is_nil(err:find("\n"))
      source:close()
      local none, why = media.read_picture(path .. "/frame3.png")
      assert.is_nil(none)
      assert.equal(path .. "/frame3.png: ", why:sub(1, #path + 13))
    end
    local photo = helper.shared("data/images/owl.jpg")
    if photo then
      local jpeg = text(photo)
      files.write(at("half.jpg"), jpeg:sub(1, math.floor(#jpeg / 2)))
      refused(at("half.jpg"), "half.jpg: broken JPEG: the file ends too early")
    end
    local none, why = media.read_picture(at("missing.png"))
    assert.is_nil(none)
    assert.equal(at("missing.png") .. ": No such file or directory", why)
  end)
end)
