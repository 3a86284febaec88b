-- regions_spec.lua: crops, points and following as ops on the CPU: what they answer beyond the goldens of MediaPipe (warp_spec, pose_spec, smoothing_spec), what they refuse.
-- The device's are device_pose_spec's and device_spec's.
local ffi = require "ffi"
local helper = require "helper"
local lr = require "libration"
local regions = require "libration.regions"

local C = lr.core.C

describe("regions", function()
  it("crop several regions of one picture into the bytes that each gives alone", function()
    local picture, list = lr.empty({ 19, 23, 3 }, "u8"), { { 9, 8, 30, 11, .4 }, { 3.5, 17, 6, 6, 0 }, { 40, -3, 5, 9, -2 } }
    for i = 0, 19 * 23 * 3 - 1 do picture:ptr()[i] = i * 37 % 256 end
    for border, id in pairs { zero = 0, replicate = 1 } do
      local y = regions.crop(picture, lr.tensor(list), { size = { 7, 12 }, border = border, scale = 2, shift = 1 })
      assert.same({ 3, 7, 12, 3 }, y.shape)
      local bytes = ffi.new("uint8_t[?]", 7 * 12 * 3)
      for k, r in ipairs(list) do
        lr.core.check(C.lbr_crop_u8(picture:ptr(), 19, 23, 69, ffi.new("lbr_region", unpack(r)), id, bytes, 7, 12))
        for i = 0, 7 * 12 * 3 - 1 do assert.equal(2 * bytes[i] + 1, y:ptr()[(k - 1) * 252 + i]) end
      end
    end
    assert.same({ 0, 7, 12, 3 }, regions.crop(picture, lr.empty { 0, 5 }, { size = { 7, 12 } }).shape)
  end)

  it("move a point to the weighted mean of its heat map where that is sure, and leave it where not, outside or not a number", function()
    local heat = lr.full({ 1, 8, 8, 2 }, -30)
    heat:set(3, 1, 3, 5, 1)
    heat:set(3, 1, 3, 6, 1)
    heat:set(-1, 1, 3, 5, 2) -- too little
    local function place(x, y)
      local out = regions.place_points(lr.tensor { { x, y, 4, 0, 100, x, y, 4, 0, 0 } }, heat, lr.tensor { { 1, 2, 3, 0, 0, 0 } }, lr.tensor { { .5, .5, 1, 1, 0 } },
        { n = 2, width = 100, height = 100, size = 16, kernel = 3 }):ptr()
      return { out[0], out[1] }, { out[8], out[9] }, out
    end
    local sure, unsure, p = place(9, 5) -- cell 4, 2
    assert.near(4.5 / 8, sure[1], 1e-6)
    assert.near(2 / 8, sure[2], 1e-6)
    assert.near(9 / 16, unsure[1], 1e-7)
    assert.near(5 / 16, unsure[2], 1e-7)
    assert.same({ .25, .5, 1, 1, 2, 3 }, { p[2], p[3], p[4], p[5], p[6], p[7] })
    for _, outside in ipairs { { -4, 5 }, { 9, -4 }, { 40, 5 }, { 9, 80 }, { 1e30, -1e30 } } do
      sure = place(unpack(outside))
      for k = 1, 2 do assert.near(outside[k] / 16, sure[k], 1e-6 * math.abs(outside[k])) end
    end
    sure = place(0 / 0, 5)
    assert.is_true(sure[1] ~= sure[1])
  end)

  it("without following, points are in pixels and no place comes after", function()
    local f, points = regions.following(2), lr.uniform({ 4, 8 }, { seed = 1 })
    local y = regions.follow_points(f, points, lr.ones { 1 }, lr.zeros({ 1 }, "f64"), { width = 10, height = 20, filters = { 1, 1, 1, 1, 1, 1 } })
    assert.near(10 * points:get(2, 1), y:get(2, 1), 1e-6)
    assert.near(20 * points:get(2, 2), y:get(2, 2), 1e-6)
    assert.same({ 1, 0 }, { y:get(3, 6), y:get(3, 7) })
    assert.equal(0, f.place:sum():item())
  end)

  it("refuse what does not fit by name", function()
    local picture, region = lr.zeros({ 4, 5, 3 }, "u8"), lr.tensor { { 2, 2, 3, 3, 0 } }
    local size = { size = { 3, 3 } }
    helper.refuses("crop: x is u8 [4,5], want u8 [H,W,3]", regions.crop, lr.zeros({ 4, 5 }, "u8"), region, size)
    helper.refuses("crop: region is f32 [5], want f32 [B,5]", regions.crop, picture, lr.zeros { 5 }, size)
    helper.refuses("has no area", regions.crop, picture, lr.zeros { 1, 5 }, size)
    helper.refuses("is not finite", regions.crop, picture, lr.full({ 1, 5 }, 0 / 0), size)
    helper.refuses("border is mirror", regions.crop, picture, region, { size = { 3, 3 }, border = "mirror" })
    helper.refuses("size is nil, want {H, W}", regions.crop, picture, region, {})
    helper.refuses("want a whole number >= 1", regions.crop, picture, region, { size = { 0, 3 } })
    local options = { n = 2, width = 9, height = 9, size = 16, kernel = 9 }
    local function place(points, o) return regions.place_points(lr.zeros(points), lr.zeros { 1, 4, 4, 2 }, lr.zeros { 1, 6 }, lr.ones { 1, 5 }, o or options) end
    helper.refuses("points are f32 [1,11], want f32 [1,10]", place, { 1, 11 })
    helper.refuses("3 of 2 points", place, { 1, 10 }, { n = 3, width = 9, height = 9, size = 16, kernel = 9 })
    helper.refuses("kernel 8, want an odd one up to 15", place, { 1, 10 }, { n = 2, width = 9, height = 9, size = 16, kernel = 8 })
    local f, how = regions.following(2), { width = 9, height = 9, filters = { 1, 1, 1, 1, 1, 1 } }
    helper.refuses("points is f32 [3,8], want f32 with 32 elements", regions.follow_points, f, lr.zeros { 3, 8 }, lr.ones { 1 }, lr.zeros({ 1 }, "f64"), how)
    helper.refuses("time is f32 [1], want f64", regions.follow_points, f, lr.zeros { 4, 8 }, lr.ones { 1 }, lr.zeros { 1 }, how)
    helper.refuses("six numbers", regions.follow_points, f, lr.zeros { 4, 8 }, lr.ones { 1 }, lr.zeros({ 1 }, "f64"), { width = 9, height = 9, filters = {} })
  end)
end)
