-- index_spec.lua: reading and writing by index against plain loops, gradients against finite differences, what lies outside is refused. Random arguments are in fuzz_spec.
local lr = require "libration"
local helper = require "helper"

local function randn(shape, seed) return lr.randn(shape, {seed = seed, dtype = "f64"}) end
local function weigh(y) return (y * lr.randn(y.shape, {seed = 99, dtype = y.dtype})):sum() end
local function same(want, t) assert.are.same(want, t:totable()) end
local function ints(list) return lr.tensor(list, "i32") end

describe("gather along a dim", function()
  local x = lr.arange(24):reshape(2, 3, 4)
  it("moves what lies behind it, whatever its type", function()
    for _, dtype in ipairs {"f32", "f64", "bf16", "u8", "i32"} do
      local v = x:to(dtype)
      local y = v:gather_elements(ints {{{3, 0}, {1, 1}, {2, 3}}, {{0, 0}, {3, 2}, {1, 0}}}, 3):to "f32"
      same({{{3, 0}, {5, 5}, {10, 11}}, {{12, 12}, {19, 18}, {21, 20}}}, y)
      same({{{8, 9, 10, 11}, {0, 1, 2, 3}}, {{20, 21, 22, 23}, {12, 13, 14, 15}}}, lr.gather(v, ints {2, 0}, 2):to "f32")
      same({{{1, 3}}, {{5, 7}}}, lr.gather(v, ints {{1, 3}}, -1):narrow(1, 1, 1):select(1, 1):narrow(1, 1, 2):to "f32")
    end
  end)
  it("has gradients, as elements, slices and the best have", function()
    local index, places = ints {{0, 2}, {2, 1}}, ints {{{2, 0, 0, 1}}, {{1, 1, 0, 2}}}
    helper.check_gradient(function(a) return weigh(lr.gather(a, index, 2)) end, {randn({2, 3, 4}, 1)})
    helper.check_gradient(function(a) return weigh(lr.gather_elements(a, places, 2)) end, {randn({2, 3, 4}, 1)})
    helper.check_gradient(function(a) return weigh(lr.gather_nd(a, ints {{1, -1}, {0, 2}, {1, 2}})) end, {randn({2, 3, 4}, 1)})
    helper.check_gradient(function(a) return weigh((lr.topk(a, 2, 2))) + weigh((lr.topk(a, 1, 3, true))) end, {randn({2, 3, 4}, 1)})
    helper.check_gradient(function(a) return weigh(a:slice(3, 4, 2, -2)) end, {randn({2, 3, 4}, 1)})
  end)
  it("refuses what lies outside", function()
    helper.refuses("gather: index 3", lr.gather, x, ints {0, 3}, 2)
    helper.refuses("gather_elements: index -1", lr.gather_elements, x, ints {{{-1}}}, 3)
    helper.refuses("gather_elements: index i32 [3,1,1] in x", lr.gather_elements, x, ints {{{0}}, {{0}}, {{0}}}, 3)
    helper.refuses("gather: index -1 at element 2", lr.gather_nd, x, ints {{1, 2}, {0, 3}})
    helper.refuses("gather_nd: index i32 [1,4]", lr.gather_nd, x, ints {{0, 0, 0, 0}})
    helper.refuses("slice: 3 positions from 2 by -1", x.slice, x, 2, 2, 3, -1)
    helper.refuses("topk: 5 of dim 3", lr.topk, x, 5)
  end)
  it("with dims of a batch that both share", function()
    same({{4, 5, 6, 7}, {20, 21, 22, 23}}, lr.gather_nd(x, ints {{1}, {2}}, 1))
    same({6, 23}, lr.gather_nd(x, ints {{1, 2}, {-1, -1}}, 1))
  end)
end)

describe("scatter", function()
  it("replaces, adds, multiplies, keeps the smaller or the larger", function()
    local x, index, values = lr.ones {2, 3}, ints {{0, 0}, {2, 1}}, lr.tensor {{2, 4}, {-3, .5}}
    local want = {replace = {{4, 1, 1}, {1, .5, -3}}, add = {{7, 1, 1}, {1, 1.5, -2}}, mul = {{8, 1, 1}, {1, .5, -3}}, min = {{1, 1, 1}, {1, .5, -3}}, max = {{4, 1, 1}, {1, 1, 1}}}
    for kind, y in pairs(want) do same(y, lr.scatter_elements(x, index, values, 2, kind)) end
    same({{1, 1, 1}, {7, 8, 9}}, lr.scatter_nd(x, ints {{-1}}, lr.tensor {{7, 8, 9}}))
    same({{1, 9, 1}, {1, 1, 8}}, lr.scatter_nd(x:to "i32", ints {{0, 1}, {1, 2}}, ints {9, 8}))
    helper.refuses("scatter_elements: sum, want", lr.scatter_elements, x, index, values, 2, "sum")
  end)
  it("has gradients where it replaces and adds", function()
    local index = ints {{2, 0}, {1, 0}}
    for _, kind in ipairs {"replace", "add"} do
      helper.check_gradient(function(x, v) return weigh(lr.scatter_elements(x, index, v, 2, kind)) end, {randn({2, 3}, 1), randn({2, 2}, 2)})
    end
    helper.check_gradient(function(x, v) return weigh(lr.scatter_nd(x, ints {{2}, {0}}, v, "add")) end, {randn({3, 4}, 1), randn({2, 4}, 2)})
  end)
end)

describe("what is chosen by value", function()
  it("topk is a stable sort's head, with NaN as the largest", function()
    local n, values, order = 200, {}, {}
    for i = 1, n do values[i], order[i] = (i * 37 % 23) / 4, i end
    table.sort(order, function(a, b) return values[a] > values[b] or (values[a] == values[b] and a < b) end)
    for _, k in ipairs {1, 7, n} do
      local y, index = lr.topk(lr.tensor(values):reshape(1, n):expand(3, n), k)
      for i = 1, k do
        assert.are.equal(order[i] - 1, index:get(3, i))
        assert.are.equal(values[order[i]], y:get(3, i))
      end
    end
    local _, index = lr.topk(lr.tensor {1, 0 / 0, math.huge, -2}, 4)
    same({1, 2, 0, 3}, index)
    same({3, 0, 1}, (select(2, lr.topk(lr.tensor {1, 0 / 0, 7, -2}:narrow(1, 1, 4), 4, 1, true)):gather_elements(ints {0, 1, 3}, 1)))
  end)
  it("nonzero lists places in order, with their count", function()
    local index, count = lr.nonzero(ints {{0, 5, 0}, {-1, 0, 2}})
    assert.are.equal(3, count:item())
    same({{0, 1}, {1, 0}, {1, 2}, {0, 0}, {0, 0}, {0, 0}}, index)
  end)
  it("nms keeps the best of each class and picture that overlap too little", function()
    local boxes = lr.tensor {{{0, 0, 1, 1}, {0, .1, 1, 1.1}, {0, -.1, 1, .9}, {0, 10, 1, 11}, {1, 101, 0, 100}}}
    local scores = lr.tensor {{{.9, .75, .6, .95, .3}, {.1, .2, .8, .2, .1}}}
    local kept, count = lr.nms(boxes, scores, {iou = .5, score = .15, most = 3})
    assert.are.equal(5, count:item())
    same({{0, 0, 3}, {0, 0, 0}, {0, 0, 4}, {0, 1, 2}, {0, 1, 3}, {0, 0, 0}}, kept)
    local centred = lr.tensor {{{.5, .5, 1, 1}, {.6, .5, 1, 1}, {10.5, .5, 1, 1}}}
    kept, count = lr.nms(centred, lr.tensor {{{.1, .9, .5}}}, {iou = .5, centre = true})
    assert.are.equal(2, count:item())
    same({{0, 0, 1}, {0, 0, 2}, {0, 0, 0}}, kept)
    helper.refuses("nms: boxes are f32 [1,3,3]", lr.nms, lr.zeros {1, 3, 3}, scores)
  end)
end)

describe("made of positions", function()
  it("one_hot, triangles, eye, range, tile", function()
    same({{0, 1, 0}, {0, 0, 1}, {0, 0, 0}}, lr.one_hot(ints {1, -1, 3}, 3))
    same({{2, 5}, {5, 2}}, lr.one_hot(ints {1, 0}, 2, 5, ints {2}, 1))
    same({{1, 2, 0}, {4, 5, 6}}, lr.tensor({{1, 2, 3}, {4, 5, 6}}):tril(1))
    same({{0, 2, 3}, {0, 0, 6}}, lr.tensor({{1, 2, 3}, {4, 5, 6}}):triu(1))
    same({{0, 1, 0}, {0, 0, 1}}, lr.eye(2, 3, 1))
    same({10, 7, 4}, lr.range(10, 3, -3, "i32"))
    same({}, lr.range(0, -1))
    same({{1, 2, 1, 2}, {1, 2, 1, 2}}, lr.tile(lr.tensor {{1, 2}}, {2, 2}))
    helper.check_gradient(function(x) return weigh(lr.tile(x, {2, 3})) + weigh(x:tril()) end, {randn({2, 3}, 1)})
  end)
  it("reverse_sequence turns each by its own length, in either layout", function()
    local x = lr.arange(8):reshape(2, 4)
    same({{1, 0, 2, 3}, {6, 5, 4, 7}}, lr.reverse_sequence(x, ints {2, 3}))
    same({{1, 6}, {0, 5}, {2, 4}, {3, 7}}, lr.reverse_sequence(x:transpose(1, 2), ints {2, 3}, 2, 1))
  end)
  it("padding by the picture itself and negative padding", function()
    local x = lr.tensor {1, 2, 3}
    same({3, 2, 1, 2, 3, 2, 1, 2}, lr.pad_mode(x, {2}, {3}, "reflect"))
    same({1, 1, 1, 2, 3, 3}, lr.pad_mode(x, {2}, {1}, "edge"))
    same({2, 3, 1, 2, 3, 1}, lr.pad_mode(x, {2}, {1}, "wrap"))
    same({2, 3, 9}, lr.pad_mode(x, {-1}, {1}, "constant", 9))
    helper.check_gradient(function(v) return weigh(lr.pad_mode(v, {1, -1}, {2, 3}, "reflect")) end, {randn({3, 4}, 1)})
    helper.refuses("pad_mode: mirror", lr.pad_mode, x, {1}, {1}, "mirror")
    helper.refuses("pad_mode: -2 and -2", lr.pad_mode, x, {-2}, {-2})
  end)
  it("depth to space and back, in both orders of channels", function()
    local x = lr.arange(72):reshape(1, 2, 3, 12)
    for _, crd in ipairs {false, true} do same(x:totable(), lr.space_to_depth(lr.depth_to_space(x, 2, crd), 2, crd)) end
    same({{{{0, 4, 8}, {1, 5, 9}}, {{2, 6, 10}, {3, 7, 11}}}}, lr.depth_to_space(x, 2, true):narrow(2, 1, 2):narrow(3, 1, 2))
  end)
end)
