-- device_tiles_spec.lua: convolutions and matrix products of sizes that choose each of the device's tiles, and that share k among blocks: against the CPU in float64.
-- Sizes are for the four processors of the emulated device; on a larger one they choose smaller tiles.
local lr = require "libration"
local device = require "libration.device"

local count, missing = device.count()
local BOUND = {f32 = 1e-5, f16 = 1e-3, bf16 = 8e-3}

local function randn(shape, seed, dtype) return lr.randn(shape, {seed = seed}):to(dtype) end
local function wide(t) return t and t:to "f64" end
local function there(t) return t and t:to "cuda" end

local function judge(want, have, dtype)
  local size = math.max(1, want:abs():max():item())
  local worst = (want - have:to "cpu":to "f64"):abs():max():item()
  assert(worst <= BOUND[dtype] * size, ("off by %g of %g"):format(worst, size))
end

local function convolve(dtype, x, w, options)
  local b, r
  x, w, b = randn(x, 1, dtype), randn(w, 2, dtype), randn({w[1]}, 3, "f32")
  local function run(to)
    local o = {residual = r and to(r)}
    for k, v in pairs(options or {}) do o[k] = v end
    return lr.conv2d(to(x), to(w), to(b), o)
  end
  r = randn(run(wide).shape, 4, dtype)
  local have = run(there):to "cpu":to "f64"
  judge(run(wide), have, dtype)
  assert.equal(0, (have - run(there):to "cpu":to "f64"):abs():max():item()) -- the same each time
end

local convolutions = { -- name, x, w, options
  {"many pixels, few channels", {1, 23, 25, 8}, {24, 3, 3, 8}, {pad = {1, 1, 1, 1}}},
  {"many pixels, many channels", {2, 16, 17, 8}, {136, 1, 1, 8}},
  {"pixel for pixel with padding", {1, 9, 9, 16}, {40, 1, 1, 16}, {pad = {0, 1, 1, 0}}},
  {"few pixels, k shared", {1, 4, 4, 64}, {24, 3, 3, 64}, {pad = {1, 1, 1, 1}, act = "relu"}},
  {"few pixels in groups, k shared", {1, 3, 3, 144}, {16, 3, 3, 72}, {pad = {1, 1, 1, 1}, groups = 2}},
  {"three channels, stride 2", {1, 21, 20, 3}, {16, 3, 3, 3}, {stride = 2, pad = {0, 1, 0, 1}, act = "relu6"}},
  {"dilation and unequal strides", {1, 14, 19, 24}, {33, 3, 2, 24}, {stride = {1, 3}, dilation = {3, 2}, pad = {3, 2, 1, 0}}},
}

describe("device tiles", function()
  if count == 0 then
    it("against float64", function() pending(missing) end)
    return
  end
  for _, dtype in ipairs {"f32", "f16", "bf16"} do
    for _, c in ipairs(convolutions) do
      it(("conv2d %s, %s, within %g"):format(dtype, c[1], BOUND[dtype]), function() lr.scope(convolve, dtype, c[2], c[3], c[4]) end)
    end
    for _, size in ipairs {{520, 264, 24}, {400, 24, 40}, {200, 120, 56}, {16, 8, 1040}, {33, 19, 601}} do
      for _, t in ipairs {{false, false}, {false, true}, {true, false}, {true, true}} do
        local m, n, k = unpack(size)
        it(("matmul %s, %dx%dx%d%s%s, within %g"):format(dtype, m, n, k, t[1] and ", a^T" or "", t[2] and ", b^T" or "", BOUND[dtype]), function()
          lr.scope(function()
            local a, b = randn(t[1] and {k, m} or {m, k}, 1, dtype), randn(t[2] and {n, k} or {k, n}, 2, dtype)
            judge(lr.matmul(wide(a), wide(b), t[1], t[2]), lr.matmul(there(a), there(b), t[1], t[2]), dtype)
          end)
        end)
      end
    end
  end

  it("conv2d and depthwise in f32 are the CPU's bits, groups = 1, no k shared", function()
    lr.scope(function()
      for seed = 1, 3 do
        local x, w, b, d = randn({1, 13, 11, 12}, seed, "f32"), randn({20, 3, 3, 12}, 10 + seed, "f32"), randn({20}, 20 + seed, "f32"), randn({5, 3, 12}, 30 + seed, "f32")
        local o = {stride = {1, 2}, pad = {1, 2, 0, 1}}
        assert.equal(0, (lr.conv2d(x, w, b, o) - lr.conv2d(there(x), there(w), there(b), o):to "cpu"):abs():max():item())
        assert.equal(0, (lr.depthwise(x, d, nil, o) - lr.depthwise(there(x), there(d), nil, o):to "cpu"):abs():max():item())
      end
    end)
  end)

  it("gradients whose sums are shared among blocks are the same each time, within 2e-5 of float64", function()
    lr.scope(function()
      local raw, ffi = require "libration.ops".raw, require "ffi"
      local a = ffi.new("lbr_conv2d_backward_weight_attr", {stride = {1, 1}, pad = {1, 1, 1, 1}, dilation = {1, 1}, groups = 1, kernel = {3, 3}})
      local dy, x = randn({2, 24, 24, 4}, 1, "f32"), randn({2, 24, 24, 3}, 2, "f32")
      local want = raw.conv2d_backward_weight(wide(dy), wide(x), a)
      local once, twice = raw.conv2d_backward_weight(there(dy), there(x), a):to "cpu", raw.conv2d_backward_weight(there(dy), there(x), a):to "cpu"
      assert((want - wide(once)):abs():max():item() <= 2e-5 * want:abs():max():item())
      assert.equal(0, (once - twice):abs():max():item())
      local d = ffi.new("lbr_depthwise_backward_weight_attr", {stride = {1, 1}, pad = {1, 1, 1, 1}, dilation = {1, 1}, kernel = {3, 3}})
      dy = randn({2, 24, 24, 3}, 3, "f32")
      want = raw.depthwise_backward_weight(wide(dy), wide(x), d)
      once, twice = raw.depthwise_backward_weight(there(dy), there(x), d):to "cpu", raw.depthwise_backward_weight(there(dy), there(x), d):to "cpu"
      assert((want - wide(once)):abs():max():item() <= 2e-5 * want:abs():max():item())
      assert.equal(0, (once - twice):abs():max():item())
    end)
  end)
end)
