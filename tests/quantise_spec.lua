-- quantise_spec.lua: whole numbers for real ones and back, in every range, by tensor and by axis; sums of products that stay exact.
local lr = require "libration"
local helper = require "helper"

local function same(want, t) assert.are.same(want, t:totable()) end

describe("quantize", function()
  it("rounds to nearest even before the zero is added, and saturates; NaN becomes the zero", function()
    local x, one = lr.tensor {-1000, -2.5, -.5, .5, 1.5, 2.5, 1000, 1e30, 0 / 0, -math.huge}, lr.tensor {1}
    same({0, 1, 3, 3, 5, 5, 255, 255, 3, 0}, lr.quantize(x, one, lr.tensor({3}, "u8")))
    same({-128, -1, 1, 1, 3, 3, 127, 127, 1, -128}, lr.quantize(x, one, lr.tensor({1}, "i32"), "i8"))
    same({-1000, -2, 0, 0, 2, 2, 1000, 32767, 0, -32768}, lr.quantize(x, one, nil, "i16"))
    same({-8, -2, 0, 0, 2, 2, 7, 7, 0, -8}, lr.quantize(x, one, nil, "i4"))
    assert.are.equal("u8", lr.quantize(x, one).dtype)
    assert.are.equal("i32", lr.quantize(x, one, nil, "i8").dtype)
    helper.refuses("quantize: f8", lr.quantize, x, one, nil, "f8")
  end)
  it("there and back is off by half a step at most, each column with its own scale", function()
    local x, scale, zero = lr.randn({50, 3}, {seed = 1}), lr.tensor {.1, .02, .05}, lr.tensor({0, 5, -7}, "i32")
    local back = lr.dequantize(lr.quantize(x, scale, zero, "i16"), scale, zero)
    for k = 1, 3 do assert.is_true(helper.difference(x:select(2, k), back:select(2, k)) <= scale:get(k) / 2 + 1e-6) end
  end)
  it("by its own range", function()
    local x = lr.randn({40}, {seed = 2})
    local y, scale, zero = lr.dynamic_quantize(x)
    assert.is_true(helper.difference(x, lr.dequantize(y, scale, zero)) <= scale:item() * .5 + 1e-6)
    assert.are.equal(255, y:to("f32"):max():item())
    same({0, 0}, (lr.dynamic_quantize(lr.zeros {2})))
  end)
  it("sums of products are exact, short and long", function()
    for _, n in ipairs {7, 300, 70000} do
      local a, b = lr.full({1, n}, 255, "u8"), lr.full({n, 1}, -128, "i32")
      local product = lr.matmul(lr.exact(a, lr.tensor({0}, "u8"), n), lr.exact(b, lr.tensor({127}, "i32"), n))
      assert.are.equal(-255 * 255 * n, product:item())
    end
  end)
end)
