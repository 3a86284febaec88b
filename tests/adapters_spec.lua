-- Specs of brought networks' heads: made-up answers, encoded by a slow twin of each head, are decoded to the boxes and points they were made of; recognition; placing.
local ffi = require "ffi"
local device = require "libration.device"
local helper = require "helper"
local lr = require "libration"
local adapters = require "libration.pose.adapters"

local SIZE = { width = 320, height = 256 }

-- Persons and faces that are put into the outputs: box, score, five or seventeen points, far from each other.
local function wanted(joints)
  local list = {}
  for i, b in ipairs { { 20, 30, 90, 150, .9 }, { 180.5, 40.25, 260, 170, .6 }, { 120, 180, 150, 230, .35 } } do
    local d = { b[1], b[2], b[3], b[4], score = b[5], class = 0, points = {} }
    for k = 0, joints - 1 do
      d.points[3 * k + 1], d.points[3 * k + 2], d.points[3 * k + 3] = b[1] + 3 * k + i, b[2] + 5 * k + .5, b[5]
    end
    list[i] = d
  end
  return list
end

local function output(name, shape, fill)
  local t = lr.full(shape, fill or 0)
  return { name = name, shape = shape, tensor = t, data = t:ptr() }
end

-- Cells of the strides 8, 16, 32, in order: row, column, stride of each.
local function cells()
  local list = {}
  for _, s in ipairs { 8, 16, 32 } do
    for r = 0, SIZE.height / s - 1 do
      for c = 0, SIZE.width / s - 1 do list[#list + 1] = { r, c, s } end
    end
  end
  return list
end

-- Row of a head without cells where detection i stands, and a row beside it where the same stands a little weaker and shifted: suppression must drop that.
local function rows_of(i) return 37 * i, 37 * i + 1 end

local function both(d, put)
  put(d, d.score, 0)
  put(d, d.score - .01, 1.5)
end

local twins = {}

twins["yolo-detect"] = function(list)
  local n = #cells()
  local out = output("output0", { 1, 84, n }, .01)
  for i, d in ipairs(list) do
    local row = 0
    both(d, function(_, score, shift)
      local a = select(row + 1, rows_of(i))
      row = row + 1
      out.data[a], out.data[n + a] = (d[1] + d[3]) / 2 + shift, (d[2] + d[4]) / 2
      out.data[2 * n + a], out.data[3 * n + a], out.data[4 * n + a] = d[3] - d[1], d[4] - d[2], score
    end)
  end
  return { out }
end

local function yolo_points(rows, first)
  return function(list)
    local n = #cells()
    local out = output("output0", { 1, rows, n }, .01)
    for i, d in ipairs(list) do
      local row = 0
      both(d, function(_, score, shift)
        local a = select(row + 1, rows_of(i))
        row = row + 1
        out.data[a], out.data[n + a] = (d[1] + d[3]) / 2 + shift, (d[2] + d[4]) / 2
        out.data[2 * n + a], out.data[3 * n + a], out.data[4 * n + a] = d[3] - d[1], d[4] - d[2], score
        for k, v in ipairs(d.points) do out.data[(first + k - 1) * n + a] = v end
      end)
    end
    return { out }
  end
end
twins["yolo-pose"] = yolo_points(56, 5)
twins["yolo-face"] = yolo_points(20, 5)

twins.scrfd = function(list)
  local outs = {}
  for level, s in ipairs { 8, 16, 32 } do
    local n = SIZE.width / s * SIZE.height / s * 2
    outs[level], outs[3 + level], outs[6 + level] = output("score" .. s, { n, 1 }), output("bbox" .. s, { n, 4 }), output("kps" .. s, { n, 10 })
  end
  for i, d in ipairs(list) do
    local s, columns = 4 * 2 ^ i, SIZE.width / (4 * 2 ^ i)
    local c, r = math.floor((d[1] + d[3]) / 2 / s), math.floor((d[2] + d[4]) / 2 / s)
    local a = (r * columns + c) * 2 + i % 2
    local x, y = c * s, r * s
    outs[i].data[a] = d.score
    local side, point = outs[3 + i].data + 4 * a, outs[6 + i].data + 10 * a
    side[0], side[1], side[2], side[3] = (x - d[1]) / s, (y - d[2]) / s, (d[3] - x) / s, (d[4] - y) / s
    for k = 0, 4 do point[2 * k], point[2 * k + 1] = (d.points[3 * k + 1] - x) / s, (d.points[3 * k + 2] - y) / s end
  end
  return outs
end

twins.centerface = function(list)
  local h, w = SIZE.height / 4, SIZE.width / 4
  local n = h * w
  local heat, scale, offset, points = output("537", { 1, 1, h, w }), output("538", { 1, 2, h, w }), output("539", { 1, 2, h, w }), output("540", { 1, 10, h, w })
  for _, d in ipairs(list) do
    local x, y, wide, tall = (d[1] + d[3]) / 2, (d[2] + d[4]) / 2, d[3] - d[1], d[4] - d[2]
    local c, r = math.floor(x / 4), math.floor(y / 4)
    local i = r * w + c
    heat.data[i] = d.score
    scale.data[i], scale.data[n + i] = math.log(tall / 4), math.log(wide / 4)
    offset.data[i], offset.data[n + i] = y / 4 - r - .5, x / 4 - c - .5
    for k = 0, 4 do
      points.data[2 * k * n + i], points.data[(2 * k + 1) * n + i] = (d.points[3 * k + 2] - d[2]) / tall, (d.points[3 * k + 1] - d[1]) / wide
    end
  end
  return { heat, scale, offset, points }
end

twins.ultraface = function(list)
  local scores, corners = output("scores", { 1, 4420, 2 }), output("boxes", { 1, 4420, 4 })
  for i, d in ipairs(list) do
    local row = 0
    both(d, function(_, score, shift)
      local a = select(row + 1, rows_of(i))
      row = row + 1
      scores.data[2 * a], scores.data[2 * a + 1] = 1 - score, score
      local q = corners.data + 4 * a
      q[0], q[1], q[2], q[3] = (d[1] + shift) / SIZE.width, d[2] / SIZE.height, (d[3] + shift) / SIZE.width, d[4] / SIZE.height
    end)
  end
  return { scores, corners }
end

twins.yolox = function(list)
  local all = cells()
  local out = output("output", { 1, #all, 85 }, .01)
  for i, d in ipairs(list) do
    local a = rows_of(i)
    local cell, q = all[a + 1], out.data + 85 * a
    q[0], q[1] = (d[1] + d[3]) / 2 / cell[3] - cell[2], (d[2] + d[4]) / 2 / cell[3] - cell[1]
    q[2], q[3], q[4], q[5] = math.log((d[3] - d[1]) / cell[3]), math.log((d[4] - d[2]) / cell[3]), .95, d.score / .95
  end
  return { out }
end

twins.rtmdet = function(list)
  local corners, classes = output("dets", { 1, 100, 5 }), output("labels", { 1, 100 })
  for i, d in ipairs(list) do
    local q = corners.data + 5 * (i - 1)
    q[0], q[1], q[2], q[3], q[4] = d[1], d[2], d[3], d[4], d.score
  end
  return { corners, classes }
end

twins.movenet = function(list)
  local out, d = output("output_0", { 1, 1, 17, 3 }), list[1]
  for k = 0, 16 do
    local q = out.data + 3 * k
    q[0], q[1], q[2] = d[k % 2 == 0 and 2 or 4] / SIZE.height, d[k % 2 == 0 and 1 or 3] / SIZE.width, d.score
  end
  return { out }
end

local function check(name, found, list, points)
  assert.equal(#list, #found, name)
  for i, d in ipairs(list) do
    for k = 1, 4 do assert.near(d[k], found[i][k], 1e-3, ("%s %d %d"):format(name, i, k)) end
    assert.near(d.score, found[i].score, 1e-5)
    for k = 1, points and #d.points or 0 do
      if k % 3 ~= 0 then assert.near(d.points[k], found[i].points[k], 1e-3, ("%s %d point %d"):format(name, i, k)) end
    end
  end
end

describe("adapters", function()
  local _, by_name = adapters.all()

  -- What the adapter decodes on the CPU and, where there is one, on a device: the same to the last bit.
  local function decode(name, outputs, least)
    local found, there = by_name[name].decode(outputs, least, SIZE), {}
    if device.count() == 0 then return found end
    for i, out in ipairs(outputs) do there[i] = { name = out.name, shape = out.shape, tensor = out.tensor:to "cuda" } end
    assert.same(found, by_name[name].decode(there, least, SIZE))
    return found
  end

  for name, joints in pairs { ["yolo-detect"] = 0, ["yolo-pose"] = 17, ["yolo-face"] = 5, scrfd = 5, centerface = 5, ultraface = 0, yolox = 0, rtmdet = 0 } do
    it(name .. " decodes what its twin encodes within .001 px, suppressed, and is recognised", function()
      local list = wanted(joints)
      local outputs = twins[name](list)
      assert.equal(name, assert(adapters.recognise(outputs)).name)
      check(name, decode(name, outputs, .3), list, joints > 0)
      table.remove(list)
      check(name, decode(name, outputs, .5), list, joints > 0)
      assert.same({}, decode(name, outputs, .97))
    end)
  end

  it("decode heads that suppress inside: rows of six numbers, and of six and three a point", function()
    local list = wanted(17)
    local detect, pose = output("output0", { 1, 300, 6 }), output("output0", { 1, 300, 57 })
    for i, d in ipairs(list) do
      for k = 0, 3 do detect.data[6 * i + k], pose.data[57 * i + k] = d[k + 1], d[k + 1] end
      detect.data[6 * i + 4], pose.data[57 * i + 4] = d.score, d.score
      for k, v in ipairs(d.points) do pose.data[57 * i + 5 + k] = v end
    end
    assert.equal("yolo-detect", adapters.recognise({ detect }).name)
    assert.equal("yolo-pose", adapters.recognise({ pose }).name)
    check("yolo-detect", decode("yolo-detect", { detect }, .3), list)
    check("yolo-pose", decode("yolo-pose", { pose }, .3), list, true)
  end)

  it("decode YOLOv5-face's rows of sixteen", function()
    local list, out = wanted(5), output("output", { 1, 1260, 16 })
    for i, d in ipairs(list) do
      local q = out.data + 16 * (100 * i)
      q[0], q[1], q[2], q[3], q[4], q[15] = (d[1] + d[3]) / 2, (d[2] + d[4]) / 2, d[3] - d[1], d[4] - d[2], d.score / .8, .8
      for k = 0, 4 do q[5 + 2 * k], q[6 + 2 * k] = d.points[3 * k + 1], d.points[3 * k + 2] end
    end
    assert.equal("yolo-face", adapters.recognise({ out }).name)
    check("yolo-face", decode("yolo-face", { out }, .3), list, true)
  end)

  it("decode SimCC's bins and MoveNet's fractions", function()
    local d = wanted(17)[1]
    local x, y, net = output("simcc_x", { 1, 17, 2 * SIZE.width }, -1), output("simcc_y", { 1, 17, 2 * SIZE.height }, -1), output("out", { 1, 1, 17, 3 })
    for k = 0, 16 do
      local u, v = math.floor(2 * d.points[3 * k + 1] + .5), math.floor(2 * d.points[3 * k + 2] + .5)
      x.data[k * 2 * SIZE.width + u], y.data[k * 2 * SIZE.height + v] = .8, .7
      net.data[3 * k], net.data[3 * k + 1], net.data[3 * k + 2] = d.points[3 * k + 2] / SIZE.height, d.points[3 * k + 1] / SIZE.width, .7
    end
    for name, outputs in pairs { rtmpose = { x, y }, movenet = { net } } do
      assert.equal(name, adapters.recognise(outputs).name)
      local found = by_name[name].decode(outputs, .3, SIZE)
      assert.equal(1, #found)
      assert.near(.7, found[1].score, 1e-5)
      for k = 0, 16 do
        assert.near(d.points[3 * k + 1], found[1].points[3 * k + 1], .26)
        assert.near(d.points[3 * k + 2], found[1].points[3 * k + 2], .26)
      end
    end
    assert.same({}, by_name.movenet.decode({ output("out", { 1, 1, 17, 3 }) }, .3, SIZE))
  end)

  it("an unknown network: says what outputs it has", function()
    local adapter, why = adapters.recognise { { name = "probabilities", shape = { 1, 1000 } } }
    assert.is_nil(adapter)
    assert.is_truthy(why:find("outputs probabilities [1,1000] fit no known head; --adapter takes yolo-pose, yolo-face", 1, true))
  end)

  it("places the picture as the network was trained, and turns the answer back: letterbox, corner, stretch; either order of dims; on every device", function()
    for _, case in ipairs { { "yolo-detect", { 1, 3, 128, 160 } }, { "yolox", { 1, 128, 160, 3 } }, { "ultraface", { 1, 3, 120, 160 } }, { "movenet", { 1, 128, 160, 3 } } } do
      local name, shape = unpack(case)
      local first = shape[2] == 3
      local h, w = first and shape[3] or shape[2], first and shape[4] or shape[3]
      for _, place in ipairs(device.count() > 0 and { "cpu", "cuda:0" } or { "cpu" }) do
        -- a network that answers the bounds of what is nearly white in its input
        local network = { inputs = { { name = "images", shape = shape } }, outputs = {}, device = place }
        function network.run(_, input)
          assert.equal(place, input.device)
          local t = input:to "cpu"
          local p, x0, y0, x1, y1, top = t:ptr(), 1e9, 1e9, -1, -1, -1e9
          for i = 0, t:numel() - 1 do top = math.max(top, p[i]) end
          for y = 0, h - 1 do
            for x = 0, w - 1 do
              if p[first and y * w + x or (y * w + x) * 3] >= top - 1e-3 then x0, y0, x1, y1 = math.min(x0, x), math.min(y0, y), math.max(x1, x + 1), math.max(y1, y + 1) end
            end
          end
          SIZE = { width = w, height = h }
          local answer = {}
          network.outputs = twins[name] { { x0, y0, x1, y1, score = .9, class = 0, points = {} } }
          for _, out in ipairs(network.outputs) do answer[out.name] = out.tensor:to(place) end
          return answer
        end
        local detector = assert(adapters.detector("made-up", { network = network, adapter = name }))
        local frame = lr.full({ 150, 400, 3 }, 40, "u8")
        for y = 50, 109 do ffi.fill(frame:ptr() + (y * 400 + 120) * 3, 80 * 3, 250) end
        local found = detector:see(frame:to(place), .5)
        assert.equal(1, #found, name)
        for k, want in ipairs { 120, 50, 200, 110 } do assert.near(want, found[1][k], .01, name .. " " .. k) end
      end
    end
    SIZE = { width = 320, height = 256 }
  end)

  it("UltraFace answers what ONNX Runtime does on a picture, within .5 px", function()
    local path, picture = helper.shared "data/models/ultraface/version-RFB-320.onnx", helper.shared "data/stills/footballers.jpg"
    if not (path and picture) then return pending("needs ../shared") end
    local detector = assert(adapters.detector(path))
    assert.equal("ultraface", detector.adapter.name)
    local found = detector:see(assert(require "libration.media".read_picture(picture)), .7)
    local want = { { 570.8, 26.7, 606.8, 78.1 }, { 301.3, 108.2, 357.9, 191.5 }, { 753.4, 46.8, 810.4, 106.9 }, { 152.7, 148.8, 170.3, 169.9 } } -- onnxruntime 1.31.1, cv2.resize
    assert.equal(#want, #found)
    for i, b in ipairs(want) do
      for k = 1, 4 do assert.near(b[k], found[i][k], .5) end
    end
    local face = detector:detect(assert(require "libration.media".read_picture(picture)), .7, "face")[1]
    assert.equal("face", face.kind)
    helper.refuses("finds face, not person", function() assert(detector:offers "person") end)
  end)
end)
