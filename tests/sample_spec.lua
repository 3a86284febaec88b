-- sample_spec.lua: pictures read between their pixels: by a grid and over regions; known numbers, gradients against differences.
local lr = require "libration"
local helper = require "helper"

local function same(want, t) assert.are.same(want, t:totable()) end
local function randn(shape, seed) return lr.randn(shape, {seed = seed, dtype = "f64"}) end
local function weigh(y) return (y * lr.randn(y.shape, {seed = 99, dtype = y.dtype})):sum() end

describe("grid_sample", function()
  local x = randn({2, 4, 5, 3}, 1)
  local function plain(corners)
    local list = {}
    for i = 0, 3 do
      list[i + 1] = {}
      for j = 0, 4 do list[i + 1][j + 1] = corners and {j / 2 - 1, i / 1.5 - 1} or {(2 * j + 1) / 5 - 1, (2 * i + 1) / 4 - 1} end
    end
    return lr.tensor({list, list}, "f64")
  end
  it("at the pixels themselves is the picture, in every mode and padding", function()
    for _, mode in ipairs {"nearest", "linear", "cubic"} do
      for _, padding in ipairs {"zeros", "border", "reflection"} do
        for _, corners in ipairs {true, false} do
          assert.is_true(helper.difference(x, lr.grid_sample(x, plain(corners), {mode = mode, padding = padding, corners = corners})) < 1e-12)
        end
      end
    end
  end)
  it("outside is 0, the border or the mirror; between is the mean", function()
    local row = lr.tensor({{{{1}, {2}, {4}}}}, "f64")
    local function at(v, padding) return lr.grid_sample(row, lr.tensor({{{{v, 0}}}}, "f64"), {padding = padding, corners = true}):item() end
    assert.are.equal(1.5, at(-.5))
    assert.are.equal(0, at(-2.5))
    assert.are.equal(.5, at(-1.5))
    assert.are.equal(1, at(-2.5, "border"))
    assert.are.equal(3, at(1.5, "reflection"))
    assert.are.equal(1.5, at(-1.5, "reflection"))
  end)
  it("has gradients of the picture and of the places", function()
    local grid = lr.tensor({{{{-.31, .22}, {.47, -.64}, {1.13, .4}}}}, "f64")
    for _, mode in ipairs {"linear", "cubic"} do
      for _, padding in ipairs {"zeros", "reflection"} do
        helper.check_gradient(function(v, g) return weigh(lr.grid_sample(v, g, {mode = mode, padding = padding})) end, {randn({1, 3, 4, 2}, 2), grid})
      end
    end
  end)
  it("roi_align averages points of each cell", function()
    local ramp = lr.arange(8, "f64"):reshape(1, 1, 8, 1):expand(1, 6, 8, 1)
    local y = lr.roi_align(ramp, lr.tensor({{1, 1, 5, 3}}, "f64"), lr.tensor({0}, "i32"), {size = {1, 2}, ratio = 2})
    same({{{{2}, {4}}}}, y)
    helper.refuses("grid_sample: mode area", lr.grid_sample, x, plain(true), {mode = "area"})
  end)
end)
