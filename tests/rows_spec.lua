-- Specs of batches that run a picture a core: the bits of one plan for all, in every number of rows and threads; refusals, failures, memory.
local ffi = require "ffi"
local core = require "libration.core"
local files = require "libration.files"
local graph = require "libration.graph"
local helper = require "helper"
local helper_tflite = require "helper_tflite"
local lr = require "libration"
local record = require "libration.record"
local rows = require "libration.graph.rows"

local C = core.C

local function images(batch)
  local x = lr.empty { batch, 6, 5, 2 }
  for i = 0, x:numel() - 1 do x:ptr()[i] = math.sin(7 * i + batch) end
  return x
end

local function same(a, b)
  assert.same(a.shape, b.shape)
  assert.equal(ffi.string(a:contiguous():ptr(), a:numel() * 4), ffi.string(b:contiguous():ptr(), b:numel() * 4))
end

describe("rows of a batch", function()
  local folder, path, threads
  setup(function()
    folder, threads = files.temporary_folder(), lr.threads()
    path = folder .. "/small.tflite"
    files.write(path, helper_tflite.small())
  end)
  after_each(function() lr.threads(threads) end)
  teardown(function() files.remove(folder) end)

  it("are what one plan makes of them, bit for bit", function()
    helper.each_isa(function()
      local network = assert(graph.load(path))
      for batch = 1, 7 do
        local x = images(batch)
        lr.threads(1)
        local want = assert(graph.load(path)):run(x)
        for _, n in ipairs { 2, 3, 4 } do
          lr.threads(n)
          for _ = 1, 2 do -- its plans are made, then replayed
            local have = network:run(x)
            same(want.map, have.map)
            same(want.probability, have.probability)
          end
        end
      end
    end)
  end)

  it("go on one plan each, as many as there are threads, and on one for all where they are fewer than these", function()
    local run = rows.record(function(x) return x * 2 end, { 1 })
    lr.threads(3)
    same(images(3) * 2, run(images(3)))
    assert.equal(3, #run.crew)
    same(images(2) * 2, run(images(2)))
    same(images(9) * 2, run(images(9)))
    assert.equal(3, #run.crew)
    lr.threads(2)
    local x = images(4)
    same(x:transpose(2, 3):contiguous() * 2, rows.record(function(y) return y * 2 end, { 1 })(x:transpose(2, 3)))
  end)

  it("of a large network are one plan's", function()
    local function of(n) return { nodes = { { arity = 1, inputs = { { data = lr.zeros { n } } } } } } end
    lr.threads(2)
    assert.is_true(rows.is_small(of(4194304)))
    assert.is_false(rows.is_small(of(4194305)))
    lr.threads(16) -- each would pack its own
    assert.is_true(rows.is_small(of(1048576)))
    assert.is_false(rows.is_small(of(1048577)))
  end)

  it("of what a library computes are one plan's", function()
    lr.threads(2)
    local w, x = lr.full({ 96, 96 }, .5), lr.full({ 192, 96 }, .25)
    local run = rows.record(function(y) return lr.matmul(y, w) end, { 96 })
    same(lr.matmul(x, w), run(x))
    assert.is_true(run.refused)
    assert.equal(0, #run.crew)
    local raw, own = ffi.new("lbr_plan *[1]", run:plan(x).plan), ffi.new("lbr_tensor *[2]", run:plan(x).held[1], run:plan(x).results[1])
    lr.threads(1)
    helper.refuses("plan 1 uses what works for one plan at a time", function() core.check(C.lbr_plan_rows(raw, 1, own, 1, 1, own, 1)) end)
  end)

  it("of operands that are widened are one plan's, and give its bits", function()
    lr.threads(2)
    local w, x = lr.full({ 8, 3 }, .5, "f16"), lr.full({ 6, 3 }, .25, "f16")
    local run = rows.record(function(y) return lr.linear(y, w):to "f32" end, { 1 })
    same(lr.linear(x, w):to "f32", run(x))
    assert.is_true(run.refused)
  end)

  it("are refused by name where they do not fit the plans", function()
    lr.threads(2)
    local plan = record.record(function(x) return x * 2 end):plan(lr.zeros { 1, 3 })
    local function try(count, batch, batch_out, n)
      local raw, own, whole = ffi.new("lbr_plan *[2]", plan.plan, plan.plan), ffi.new("lbr_tensor *[4]"), ffi.new("lbr_tensor *[2]", batch, batch_out)
      for k = 0, 1 do own[2 * k], own[2 * k + 1] = plan.held[1], plan.results[1] end
      return core.check(C.lbr_plan_rows(raw, count, own, 1, 1, whole, n))
    end
    helper.refuses("plan_rows: 1 plans for 2 rows on 2 threads", try, 1, lr.zeros { 2, 3 }, lr.zeros { 2, 3 }, 2)
    helper.refuses("plan_rows: 2 plans for 0 rows", try, 2, lr.zeros { 2, 3 }, lr.zeros { 2, 3 }, 0)
    helper.refuses("plan_rows: tensor 1 is f32 [2,4], a batch of 2 rows of f32 [1,3] is wanted", try, 2, lr.zeros { 2, 4 }, lr.zeros { 2, 3 }, 2)
    helper.refuses("plan_rows: tensor 2 is f64 [2,3], a batch of 2 rows of f32 [1,3] is wanted", try, 2, lr.zeros { 2, 3 }, lr.zeros({ 2, 3 }, "f64"), 2)
    helper.refuses("plan_rows: tensor 1 is f32 [3,2]", try, 2, lr.zeros { 2, 3 }:transpose(1, 2), lr.zeros { 2, 3 }, 2)
  end)

  it("end with the first error, also where memory ends on one of the threads, and leave nothing", function()
    lr.threads(2)
    helper.leaves_nothing(function()
      local network = assert(graph.load(path))
      local x = images(6)
      local want = network:run(x).map:clone()
      local failures = 0
      for n = 1, 12 do
        C.lbr_memory_fail_at(n)
        local ok, err = pcall(network.run, network, x)
        C.lbr_memory_fail_at(0)
        if not ok then
          failures = failures + 1
          assert.truthy(tostring(err):find("out of memory", 1, true), tostring(err))
        end
        same(want, network:run(x).map)
      end
      assert.is_true(failures > 1)
    end)
  end)
end)
