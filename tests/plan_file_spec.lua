-- Plan files: what a recorded plan or a network gives, its file gives again, bit for bit, in Lua and in a C program; broken and foreign files. Mutations: hostile_spec.
local ffi = require "ffi"
local files = require "libration.files"
local graph = require "libration.graph"
local helper = require "helper"
local helper_tflite = require "helper_tflite"
local lr = require "libration"
local made = require "helper_onnx"
local record = require "libration.record"
local shell = require "shell"

local folder

local function network(bytes, name)
  files.write(folder .. "/" .. name, bytes)
  return assert(graph.load(folder .. "/" .. name))
end

local function same(want, have)
  assert.same(want.shape, have.shape)
  assert.equal(want.dtype, have.dtype)
  local bytes = want:numel() * lr.core.C.lbr_dtype_size(want.dtype_)
  assert.is_true(ffi.string(want:contiguous():ptr(), bytes) == ffi.string(have:contiguous():ptr(), bytes))
end

-- The answers of a network before and after it went through a file, for two inputs.
local function through_file(net, shape, name)
  local path = folder .. "/" .. name
  net:plan(lr.zeros(shape)):save(path)
  local saved = assert(graph.load(path))
  for seed = 1, 2 do
    local x = lr.randn(shape, { seed = seed })
    local want, have = net:run(x), saved:run(x)
    for _, out in ipairs(net.outputs) do same(want[out.name], have[out.name]) end
  end
  return saved
end

describe("plan files", function()
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  it("of ONNX and TFLite networks answer what the networks do, bit for bit; names, kinds and shapes are kept", function()
    local saved = through_file(network(made.small(), "a.onnx"), { 3, 2, 6, 5 }, "a.plan")
    assert.same({ { name = "x", kind = "f32", shape = { 3, 2, 6, 5 } } }, saved.inputs)
    assert.same({ "y", "map" }, { saved.outputs[1].name, saved.outputs[2].name })
    assert.is_truthy(tostring(saved):find("a saved plan of %d calls"))
    assert.is_truthy(tostring(saved:profile(lr.zeros { 3, 2, 6, 5 })):find("conv2d", 1, true))
    local again = assert(graph.load(folder .. "/a.onnx"))
    again:plan(lr.zeros { 3, 2, 6, 5 }):save(folder .. "/again.plan")
    assert.is_true(files.read(folder .. "/a.plan") == files.read(folder .. "/again.plan"))
    through_file(network(helper_tflite.small(), "b.tflite"), { 1, 6, 5, 2 }, "b.plan")
  end)

  for _, case in ipairs { { "ultraface/version-RFB-320.onnx", { 1, 3, 240, 320 } }, { "lstm_onnx/v0.3_lower/model.onnx", { 2, 7, 47 } } } do
    it("of " .. case[1] .. ": the same", function()
      local path = helper.shared("data/models/" .. case[1])
      if not path then return pending "needs the shared models" end
      through_file(assert(graph.load(path)), case[2], "c.plan")
    end)
  end

  it("of recorded functions: several kinds of number, views, memory that a call changes", function()
    local base, sums = lr.randn({ 4, 6 }, { seed = 1 }), lr.zeros({ 2 }, "f64")
    local half = base:to "bf16"
    local f = lr.record(function(x, i)
      local y = lr.matmul(x, base)
      sums:add_(y:sum():to("f64"):expand(2))
      return y:transpose(1, 2), lr.gather(base, i, 1), y:to "u8", sums:clone(), lr.matmul(x:to "bf16", half), y:narrow(2, 2, 3)
    end)
    local x, i = lr.randn({ 3, 4 }, { seed = 2 }), lr.tensor({ 3, 0 }, "i32")
    f(x, i)
    local path = folder .. "/f.plan"
    f:plan(x, i):save(path, { inputs = { "x", "i" } })
    local saved = assert(record.open(path))
    assert.same({ "x", "i", "output1" }, { saved.inputs[1].name, saved.inputs[2].name, saved.outputs[1].name })
    for _ = 1, 3 do
      local want, have = { f(x, i) }, { saved:run(x, i) }
      for k = 1, 6 do same(want[k], have[k]) end
    end
    x:fill_(0 / 0)
    assert.is_true(saved:run(x, i):isnan():to("f32"):min():item() == 1)
  end)

  it("leave no memory behind, opened, run, closed and refused", function()
    local net = network(made.small(), "a.onnx")
    net:plan(lr.zeros { 1, 2, 6, 5 }):save(folder .. "/a.plan")
    local text = files.read(folder .. "/a.plan")
    files.write(folder .. "/bad.plan", text:sub(1, -65) .. ("x"):rep(63))
    local function used()
      collectgarbage()
      collectgarbage()
      return { tonumber(lr.core.C.lbr_memory_live(0)), tonumber(lr.core.C.lbr_memory_storages(0)) }
    end
    local before = used()
    for _ = 1, 3 do
      assert(graph.load(folder .. "/a.plan")):run(lr.zeros { 1, 2, 6, 5 })
      assert.is_nil((graph.load(folder .. "/bad.plan")))
    end
    assert.same(before, used())
  end)

  it("refuse wrong inputs, plans that cannot be kept, other files and other versions, in one line", function()
    local net = network(made.small(), "a.onnx")
    local path = net:plan(lr.zeros { 1, 2, 6, 5 }):save(folder .. "/a.plan")
    local saved, text = assert(graph.load(path)), files.read(path)
    helper.refuses("input 'x' is f32 [1,2,6,4] on cpu, want f32 [1,2,6,5] on the cpu", saved.run, saved, lr.zeros { 1, 2, 6, 4 })
    helper.refuses("input 'x' is a nil", saved.run, saved)
    helper.refuses("a saved plan has its precision", graph.load, path, { precision = "bf16" })
    local bytes = { ["not a plan file"] = ("x"):rep(200), ["it was written with"] = text .. "x", ["a plan file of version 9"] = text:sub(1, 8) .. "\9" .. text:sub(10),
      ["op 'copz' is not in this library"] = text:gsub("copy", "copz"), ["op 'conv2d' is another one"] = text:gsub("int32_t groups", "int64_t groups"),
      ["the file is empty"] = "", ["arena"] = text:sub(1, 40) .. "\255\255\255\255\255\255\15\0" .. text:sub(49) }
    for want, content in pairs(bytes) do
      files.write(folder .. "/other.plan", content)
      local none, err = graph.load(folder .. "/other.plan")
      assert.is_nil(none)
      assert.is_truthy(err:find(want, 1, true), err)
      assert.is_truthy(err:find("other.plan", 1, true) and not err:find "\n", err)
    end
    local stretched = lr.record(function(x) return (x + 1):expand(4, 3) end)
    helper.refuses("repeats its elements", function() stretched:plan(lr.zeros { 1, 3 }):save(folder .. "/none.plan") end)
    local number = lr.record(function(x, k) return x * k end)
    helper.refuses("only tensors can be saved", function() number:plan(lr.zeros { 3 }, 2):save(folder .. "/none.plan") end)
    assert.is_false(files.exists(folder .. "/none.plan"))
  end)

  it("survive a change of each of their bytes: a run or one line", function()
    for _, kind in ipairs(require "hostile".kinds) do
      local bytes, refused = kind.name:find "^plan" and kind.bytes() or "", 0
      for at = 1, #bytes do
        for _, value in ipairs { bit.bxor(bytes:byte(at), 1), bit.bxor(bytes:byte(at), 128), helper.full() and 255 or nil } do
          local ok, err = kind.read(bytes:sub(1, at - 1) .. string.char(value) .. bytes:sub(at + 1))
          if not ok then
            refused = refused + 1
            assert.is_true(type(err) == "string" and not err:find "\n", err)
          end
        end
      end
      assert.is_true(bytes == "" or refused > #bytes)
    end
  end)

  it("run in a C program without Lua, to the same bytes; a picture and made-up numbers too #process #slow", function()
    if os.execute "cc --version >/dev/null 2>&1" ~= 0 then return pending "needs a C compiler" end
    local program, library = folder .. "/run_plan", (lr.core.find_library "libration_core"):match "^(.*)/"
    local build = "cc -Wall -Wextra -Werror -Icsrc examples/run_plan.c -o %s -L%s -l:libration_core.so -Wl,-rpath,\"$(cd %s && pwd)\""
    local text, code = shell(build:format(program, library, library))
    assert.equal(0, code, text)
    local net = network(made.small(), "a.onnx")
    local x = lr.randn({ 2, 2, 6, 5 }, { seed = 4 })
    net:plan(x):save(folder .. "/a.plan")
    files.write(folder .. "/in.raw", ffi.string(x:ptr(), x:numel() * 4))
    text, code = shell(("%s %s/a.plan %s/in.raw %s/out.raw"):format(program, folder, folder, folder))
    assert.equal(0, code, text)
    assert.is_truthy(text:find("input x f32 [2,2,6,5]", 1, true) and text:find("output map f32 [2,4,6,5]", 1, true), text)
    local want, all = net:run(x), {}
    for i, out in ipairs(net.outputs) do all[i] = ffi.string(want[out.name]:contiguous():ptr(), want[out.name]:numel() * 4) end
    assert.is_true(table.concat(all) == files.read(folder .. "/out.raw"))

    local mean = network(made.model {
      inputs = { made.info("image", "f32", { 1, 3, 2, 2 }) }, outputs = { made.info("grey", "f32", { 1, 1, 2, 2 }) },
      constants = { made.tensor("w", "f32", { 1, 3, 1, 1 }, { 1, 2, 4 }) }, nodes = { made.node("Conv", { "image", "w" }, { "grey" }) },
    }, "m.onnx")
    mean:plan(lr.zeros { 1, 3, 2, 2 }):save(folder .. "/m.plan")
    files.write(folder .. "/p.ppm", "P6\n2 2\n255\n" .. string.char(255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255))
    text = shell(("%s %s/m.plan %s/p.ppm"):format(program, folder, folder))
    assert.is_truthy(text:find("output grey f32 [1,1,2,2] 1 2 4 7\n", 1, true), text)
    text, code = shell(("%s %s/m.plan"):format(program, folder))
    assert.is_true(code == 0 and text:find("ms", 1, true) ~= nil, text)
    text, code = shell(("%s %s/a.onnx"):format(program, folder))
    assert.equal(1, code)
    assert.is_truthy(text:find "^run_plan: [^\n]*a.onnx: not a plan file\n$", text)
  end)
end)
