-- Specs of the f32 convolutions with a fixed order of sums: against the f64 twins on odd shapes, the order itself by sums that tell, and every instruction set
-- bit for bit against a slow twin that calls fmaf.
local ffi = require "ffi"
local lr = require "libration"
local helper = require "helper"

ffi.cdef "float fmaf(float, float, float);"
local libm = ffi.load "m"

-- Number of elements whose bits differ; NaN equals NaN.
local function differing(a, b)
  local n, p, q = 0, a:ptr(), b:ptr()
  local u, v = ffi.cast("int32_t *", p), ffi.cast("int32_t *", q)
  for i = 0, a:numel() - 1 do
    if u[i] ~= v[i] and (p[i] == p[i] or q[i] == q[i]) then n = n + 1 end
  end
  return n
end

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

  it("has one copy of packed weights for all plans, and each plan answers for the weights as they are and as it sees them", function()
    local w = noise({ 32, 1, 1, 64 }, 5)
    local turned = w:view(64, 1, 1, 32) -- the same numbers, as many, of another shape
    local x, z = noise({ 1, 5, 5, 64 }, 6), noise({ 1, 5, 5, 32 }, 7)
    local function twin(v, u) return lr.conv2d(v:to "f64", u:to "f64") end
    local function close(got, want) assert.is_true(helper.difference(got, want) < 1e-4) end
    local one = lr.record(function(v) return lr.conv2d(v, w) end)
    do
      local two, other = lr.record(function(v) return lr.conv2d(v, w) end), lr.record(function(v) return lr.conv2d(v, turned) end)
      close(two(x), twin(x, w))
      close(other(z), twin(z, turned))
      close(one(x), twin(x, w))
      w:fill_(.5)
      close(two(x), twin(x, w))
      close(other(z), twin(z, turned))
    end
    collectgarbage() -- the others are gone
    collectgarbage()
    close(one(x), twin(x, w))
    w:fill_(-1)
    close(one(x), twin(x, w))
    close(lr.conv2d(z, turned), twin(z, turned))
  end)

  it("lets NaN through an activation", function()
    local x = lr.full({ 1, 1, 1, 4 }, 0 / 0)
    local y = lr.conv2d(x, lr.ones({ 3, 1, 1, 4 }), lr.zeros({ 3 }), { act = "relu6" })
    assert.is_true(y:get(1, 1, 1, 1) ~= y:get(1, 1, 1, 1))
  end)

  it("adds the bias first, then channel by channel", function()
    -- 1 is lost beside 1e8; a sum in any other order would keep it or the bias
    local x = lr.tensor({ 1e8, 1, -1e8, 0 }):view(1, 1, 1, 4)
    helper.each_isa(function() assert.equal(0, lr.conv2d(x, lr.ones({ 1, 1, 1, 4 }), lr.full({ 1 }, .5)):item()) end)
  end)

  it("goes through a window in rows, depthwise in columns", function()
    local x, one = lr.zeros({ 1, 3, 3, 1 }), lr.ones({ 1, 3, 3, 1 })
    x:set(1e8, 1, 1, 1, 1)
    x:set(1, 1, 1, 2, 1)
    x:set(-1e8, 1, 2, 1, 1)
    helper.each_isa(function() assert.equal(0, lr.conv2d(x, one, lr.zeros({ 1 })):item()) end) -- 1e8, 1, ..., -1e8: the 1 is lost
    local pair = lr.zeros({ 1, 3, 3, 2 })
    for c = 1, 2 do
      pair:set(1e8, 1, 1, 1, c)
      pair:set(1, 1, 1, 2, c)
      pair:set(-1e8, 1, 2, 1, c)
    end
    helper.each_isa(function()
      assert.equal(1, lr.depthwise(pair, lr.ones({ 3, 3, 2 }), lr.zeros({ 2 })):get(1, 1, 1, 1)) -- 1e8, -1e8, ..., 1: the 1 stays
    end)
  end)

  it("rounds an enlargement across before down, one operation at a time (twin within 1e-6)", function()
    local x = noise({ 1, 5, 4, 11 }, 7)
    local got, want = lr.resize_bilinear(x, { 10, 8 }, { half_pixel = true }), lr.resize_bilinear(x:to("f64"), { 10, 8 }, { half_pixel = true })
    assert.is_true(helper.difference(got, want) <= 1e-6)
  end)

  -- Plans keep their packed weights: the set may change between replays only in tests, and each must answer for itself.
  it("answers the same in one plan whatever the instruction set of the replay", function()
    local x, w, d = noise({ 1, 6, 7, 19 }, 1), noise({ 21, 3, 3, 19 }, 2), noise({ 3, 3, 21 }, 3)
    local plan = lr.record(function(v) return lr.depthwise(lr.conv2d(v, w, nil, { pad = 1 }), d, nil, { pad = 1 }) end)
    local first = plan(x):clone()
    helper.each_isa(function(isa) assert.equal(0, differing(first, plan(x)), "instruction set " .. isa) end)
  end)

  it("multiplies and adds with one rounding under every instruction set: 4096 sums of any bit patterns, infinities and NaN among them", function()
    local n = 4096
    local x, want = lr.empty { 1, 1, n, 1 }, lr.empty { 1, 1, n, 1 }
    local bits, state = ffi.cast("uint32_t *", x:ptr()), 1
    local function draw()
      state = (state * 16807) % 2147483647
      return state
    end
    local one = ffi.new("uint32_t[1]")
    local value = ffi.cast("float *", one)
    for round = 1, 24 do
      -- NaN comes in one form: LuaJIT takes others for objects
      local function pattern()
        local v = draw() * 2 + draw() % 2
        return v % 2147483648 > 2139095040 and 2143289344 or v
      end
      for i = 0, n - 1 do bits[i] = pattern() end
      one[0] = pattern()
      local w, b = lr.full({ 1, 1, 1, 1 }, 0), lr.full({ 1 }, 0)
      w:ptr()[0] = value[0]
      -- a bias near one of the products, half of the time: cancellation, halves and what lies just beside them
      b:ptr()[0] = round % 2 == 0 and -w:ptr()[0] * x:ptr()[round] or x:ptr()[round]
      for i = 0, n - 1 do want:ptr()[i] = libm.fmaf(x:ptr()[i], w:ptr()[0], b:ptr()[0]) end
      helper.each_isa(function(isa) assert.equal(0, differing(lr.conv2d(x, w, b), want), ("instruction set %d, round %d"):format(isa, round)) end)
    end
  end)

  -- The slow twin: sums in the same order, one fmaf a tap and channel; then residual and activation, each rounded to f32.
  local function twin(x, w, b, o, depthwise)
    local B, H, W, I = unpack(x.shape)
    local KH, KW = w:size(depthwise and 1 or 2), w:size(depthwise and 2 or 3)
    local O, sy, sx, dy, dx = depthwise and I or w:size(1), o.stride[1], o.stride[2], o.dilation[1], o.dilation[2]
    local OH, OW = math.floor((H + o.pad[1] + o.pad[2] - (KH - 1) * dy - 1) / sy) + 1, math.floor((W + o.pad[3] + o.pad[4] - (KW - 1) * dx - 1) / sx) + 1
    local y, xp, wp = lr.empty { B, OH, OW, O }, x:ptr(), w:ptr()
    local at = 0
    local function tap(sum, n, row, column, ky, kx, out, channel)
      local iy, ix = row * sy - o.pad[1] + ky * dy, column * sx - o.pad[3] + kx * dx
      local inside = iy >= 0 and iy < H and ix >= 0 and ix < W
      local v = inside and xp[((n * H + iy) * W + ix) * I + channel] or 0
      return libm.fmaf(v, depthwise and wp[(ky * KW + kx) * I + channel] or wp[((out * KH + ky) * KW + kx) * I + channel], sum)
    end
    for n = 0, B - 1 do
      for row = 0, OH - 1 do
        for column = 0, OW - 1 do
          for out = 0, O - 1 do
            local sum = b and b:ptr()[out] or 0
            if depthwise then
              for kx = 0, KW - 1 do
                for ky = 0, KH - 1 do sum = tap(sum, n, row, column, ky, kx, out, out) end
              end
            else
              for ky = 0, KH - 1 do
                for kx = 0, KW - 1 do
                  for channel = 0, I - 1 do sum = tap(sum, n, row, column, ky, kx, out, channel) end
                end
              end
            end
            y:ptr()[at] = sum
            if o.residual then y:ptr()[at] = sum + o.residual:ptr()[at] end
            local v = y:ptr()[at]
            if o.act == "relu" or o.act == "relu6" then v = v < 0 and 0 or v end
            if o.act == "relu6" then v = v > 6 and 6 or v end
            if o.act == "prelu" and v < 0 then v = v * o.slope:ptr()[out] end
            y:ptr()[at] = v
            at = at + 1
          end
        end
      end
    end
    return y
  end

  for _, case in ipairs {
    -- x, O, stride, dilation, act, residual; 345 channels under 3x3 are too many weights for AVX-512's groups of 64 outputs, 920 for AVX2's of 24
    { { 2, 4, 5, 345 }, 57, { 1, 1 }, { 1, 1 }, "prelu", true }, { { 1, 7, 6, 345 }, 64, { 2, 1 }, { 1, 2 }, "none", false },
    { { 1, 3, 4, 920 }, 24, { 1, 1 }, { 1, 1 }, "relu6", true },
  } do
    local shape, O, stride, dilation, act, more = unpack(case)
    it(("conv2d has its twin's bits where a group's weights are too many for the cache: %d channels to %d"):format(shape[4], O), function()
      local x, w, b = noise(shape, 1), noise({ O, 3, 3, shape[4] }, 2), noise({ O }, 3)
      local o = { stride = stride, dilation = dilation, pad = { 1, 1, 1, 1 }, act = act, slope = act == "prelu" and noise({ O }, 5) or nil }
      if more then o.residual = noise(lr.conv2d(x, w, b, o).shape, 4) end
      local want = twin(x, w, b, o, false)
      helper.each_isa(function(isa) assert.equal(0, differing(lr.conv2d(x, w, b, o), want), "instruction set " .. isa) end)
    end)
  end

  it("and where their tiles are more than are summed at once, activated", function()
    local x, w, b, first = noise({ 1, 17, 23, 345 }, 1), noise({ 61, 3, 3, 345 }, 2), noise({ 61 }, 3), nil
    helper.each_isa(function(isa)
      local y = lr.conv2d(x, w, b, { pad = 1, act = "silu" })
      first = first or y
      assert.equal(0, differing(y, first), "instruction set " .. isa)
    end)
  end)

  for _, depthwise in ipairs { false, true } do
    local most = helper.full() and 2000 or 40
    it(("%s has its twin's bits under every instruction set: %d calls drawn at random"):format(depthwise and "depthwise" or "conv2d", most), function()
      local seed = depthwise and 2 or 1
      local function draw(low, high)
        seed = seed * 16807 % 2147483647
        return low + math.floor(seed / 2147483647 * (high - low + 1))
      end
      for call = 1, most do
        local kernel = { draw(1, 4), draw(1, 4) }
        if draw(1, 3) == 1 then kernel = { 1, 1 } end
        local o = { stride = { draw(1, 2), draw(1, 3) }, dilation = { draw(1, 2), draw(1, 2) }, pad = { draw(0, 2), draw(0, 2), draw(0, 2), draw(0, 2) } }
        if draw(1, 2) == 1 then o.pad, o.stride = { 0, 0, 0, 0 }, { 1, 1 } end
        local B, H, W = draw(1, 2), draw(1, 4) + (kernel[1] - 1) * o.dilation[1], draw(1, 11) + (kernel[2] - 1) * o.dilation[2]
        local I, O = draw(1, depthwise and 41 or 20), draw(1, 60)
        local x, b = noise({ B, H, W, I }, seed), draw(1, 4) > 1 and noise({ depthwise and I or O }, seed + 2) or nil
        if depthwise and I == 1 then x, I = noise({ B, H, W, 2 }, seed), 2 end
        if b and depthwise then b = noise({ I }, seed + 2) end
        local w = noise(depthwise and { kernel[1], kernel[2], I } or { O, kernel[1], kernel[2], I }, seed + 1)
        o.act = ({ "none", "relu", "relu6", "prelu" })[draw(1, 4)]
        o.slope = o.act == "prelu" and noise({ depthwise and I or O }, seed + 4) or nil
        if draw(1, 2) == 1 then o.residual = noise(twin(x, w, b, o, depthwise).shape, seed + 3) end
        local want = twin(x, w, b, o, depthwise)
        helper.each_isa(function(isa)
          local off = differing(lr[depthwise and "depthwise" or "conv2d"](x, w, b, o), want)
          local text = ("call %d, instruction set %d: x [%s] w [%s] stride %s pad %s dilation %s %s"):format(call, isa, table.concat(x.shape, ","),
            table.concat(w.shape, ","), table.concat(o.stride, ","), table.concat(o.pad, ","), table.concat(o.dilation, ","), o.act)
          assert.equal(0, off, text)
        end)
      end
    end)
  end
end)
