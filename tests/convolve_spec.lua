-- Specs of the f32 convolutions with a fixed order of sums: against the f64 twins on odd shapes, and the order itself by sums that tell.
local lr = require "libration"
local core = require "libration.core"
local helper = require "helper"

local C = core.C
local exact = C.lbr_cpu_isa() >= C.LBR_ISA_AVX512

local function noise(shape, seed)
  return lr.randn(shape, { seed = seed })
end

-- The same call in f32 and in f64 (the slow twin).
local function both(op, x, w, b, options)
  local wide = {}
  for k, v in pairs(options) do wide[k] = lr.is_tensor(v) and v:to("f64") or v end
  return lr[op](x, w, b, options), lr[op](x:to("f64"), w:to("f64"), b and b:to("f64"), wide)
end

describe("convolve", function()
  for _, case in ipairs {
    -- B, H, W, C, O, kernel, stride, pad, act
    { 1, 7, 5, 3, 24, 3, 2, { 0, 1, 0, 1 }, "relu6" }, { 2, 9, 11, 17, 39, 1, 1, { 0, 0, 0, 0 }, "none" }, { 1, 5, 6, 8, 65, 5, 1, { 2, 2, 2, 2 }, "relu" },
    { 3, 4, 4, 30, 7, 2, 2, { 0, 0, 0, 0 }, "prelu" }, { 1, 1, 1, 200, 48, 1, 1, { 0, 0, 0, 0 }, "relu" }, { 1, 13, 13, 5, 33, 3, 1, { 1, 1, 1, 1 }, "none" },
  } do
    local B, H, W, I, O, kernel, stride, pad, act = unpack(case)
    it(("conv2d equals its f64 twin within 2e-5: [%d,%d,%d,%d] to %d by %d, stride %d, %s"):format(B, H, W, I, O, kernel, stride, act), function()
      local x, w, b = noise({ B, H, W, I }, 1), noise({ O, kernel, kernel, I }, 2), noise({ O }, 3)
      local y = lr.conv2d(x, w, b, { stride = stride, pad = pad })
      local options = { stride = stride, pad = pad, act = act, residual = noise(y.shape, 4), slope = act == "prelu" and noise({ O }, 5) or nil }
      local got, want = both("conv2d", x, w, b, options)
      local worst, size = helper.difference(got, want)
      assert.is_true(worst <= 2e-5 * math.max(1, size), ("off by %g of %g"):format(worst, size))
      got, want = both("conv2d", x, w, nil, { stride = stride, pad = pad })
      worst, size = helper.difference(got, want)
      assert.is_true(worst <= 2e-5 * math.max(1, size))
    end)
  end

  for _, case in ipairs { { 1, 7, 5, 3, 3, 1, 1 }, { 2, 9, 20, 24, 5, 2, 2 }, { 1, 30, 31, 37, 3, 2, 1 }, { 1, 2, 2, 288, 3, 1, 1 } } do
    local B, H, W, I, kernel, stride, pad = unpack(case)
    it(("depthwise equals its f64 twin within 1e-5: [%d,%d,%d,%d] by %d, stride %d"):format(B, H, W, I, kernel, stride), function()
      local x, w, b = noise({ B, H, W, I }, 1), noise({ kernel, kernel, I }, 2), noise({ I }, 3)
      local y = lr.depthwise(x, w, b, { stride = stride, pad = pad })
      local got, want = both("depthwise", x, w, b, { stride = stride, pad = pad, act = "relu6", residual = noise(y.shape, 4) })
      local worst, size = helper.difference(got, want)
      assert.is_true(worst <= 1e-5 * math.max(1, size), ("off by %g of %g"):format(worst, size))
    end)
  end

  it("packs weights again after they were written", function()
    local x, w = lr.ones({ 1, 2, 2, 3 }), lr.ones({ 2, 1, 1, 3 })
    local plan = lr.record(function(v) return lr.conv2d(v, w) end)
    assert.equal(3, plan(x):get(1, 1, 1, 1))
    w:fill_(2)
    assert.equal(6, plan(x):get(1, 1, 1, 1))
  end)

  it("lets NaN through an activation", function()
    local x = lr.full({ 1, 1, 1, 4 }, 0 / 0)
    local y = lr.conv2d(x, lr.ones({ 3, 1, 1, 4 }), lr.zeros({ 3 }), { act = "relu6" })
    assert.is_true(y:get(1, 1, 1, 1) ~= y:get(1, 1, 1, 1))
  end)

  it("adds the bias first, then channel by channel", function()
    if not exact then return pending("the order is fixed on AVX-512 only") end
    -- 1 is lost beside 1e8; a sum in any other order would keep it or the bias
    local x = lr.tensor({ 1e8, 1, -1e8, 0 }):view(1, 1, 1, 4)
    assert.equal(0, lr.conv2d(x, lr.ones({ 1, 1, 1, 4 }), lr.full({ 1 }, .5)):item())
  end)

  it("goes through a window in rows, depthwise in columns", function()
    if not exact then return pending("the order is fixed on AVX-512 only") end
    local x, one = lr.zeros({ 1, 3, 3, 1 }), lr.ones({ 1, 3, 3, 1 })
    x:set(1e8, 1, 1, 1, 1)
    x:set(1, 1, 1, 2, 1)
    x:set(-1e8, 1, 2, 1, 1)
    assert.equal(0, lr.conv2d(x, one, lr.zeros({ 1 })):item()) -- 1e8, 1, ..., -1e8: the 1 is lost
    local pair = lr.zeros({ 1, 3, 3, 2 })
    for c = 1, 2 do
      pair:set(1e8, 1, 1, 1, c)
      pair:set(1, 1, 1, 2, c)
      pair:set(-1e8, 1, 2, 1, c)
    end
    assert.equal(1, lr.depthwise(pair, lr.ones({ 3, 3, 2 }), lr.zeros({ 2 })):get(1, 1, 1, 1)) -- 1e8, -1e8, ..., 1: the 1 stays
  end)

  it("rounds an enlargement across before down, one operation at a time (twin within 1e-6)", function()
    local x = noise({ 1, 5, 4, 11 }, 7)
    local got, want = lr.resize_bilinear(x, { 10, 8 }, { half_pixel = true }), lr.resize_bilinear(x:to("f64"), { 10, 8 }, { half_pixel = true })
    assert.is_true(helper.difference(got, want) <= 1e-6)
  end)
end)
