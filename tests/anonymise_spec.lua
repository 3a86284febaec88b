-- Specs of the anonymiser: the two passes and the second look with a made-up finder on made videos, and recipes/anonymise.lua as people run it.
local ffi = require "ffi"
local files = require "libration.files"
local helper = require "helper"
local lr = require "libration"
local media = require "libration.media"
local made_onnx = require "helper_onnx"
local anonymiser = require "libration.pose.anonymiser"
local finder = require "libration.pose.finder"
local shell = require "shell"
local sidecar = require "libration.pose.sidecar"

local quote = files.quote
local W, H, FRAMES, SIDE = 320, 192, 24, 20
local folder

local function place(i) return 16 + 5 * i, 30 + i end

-- A bright square that moves over a dark ground.
local function frame_of(i)
  local frame = lr.full({ H, W, 3 }, 50, "u8")
  local left, top = place(i)
  for y = top, top + SIDE - 1 do ffi.fill(frame:ptr() + (y * W + left) * 3, SIDE * 3, (y + i) % 2 == 0 and 240 or 200) end
  return frame
end

-- Finds the square by its brightness; fails, or sees nothing, in the frames that it is told to.
local function square_finder(fails, misses)
  local self, n = {}, 0
  function self.reset() end
  function self.look(_, frame)
    n = n + 1
    if fails and fails[n] then error(fails[n], 0) end
    local p, x0, y0, x1, y1 = frame:ptr(), 1e9, 1e9, -1, -1
    for y = 0, H - 1 do
      for x = 0, W - 1 do
        if p[(y * W + x) * 3 + 1] > 150 then x0, y0, x1, y1 = math.min(x0, x), math.min(y0, y), math.max(x1, x + 1), math.max(y1, y + 1) end
      end
    end
    if x1 - x0 < 6 or y1 - y0 < 6 or misses and misses[n] then return {}, false end
    return { { kind = "face", x = (x0 + x1) / 2, y = (y0 + y1) / 2, width = x1 - x0, height = y1 - y0, angle = 0, score = .9 } }, false
  end
  return self
end

local function plan_of(found)
  return {
    input = { file = "in.mp4", frames = found.frames, width = found.width, height = found.height }, blank = found.blank, regions = {}, tracks = found.tracks,
    settings = { mask = "face", style = "box", margin = ".5", crf = 20, audio = "keep" },
  }
end

local OPTIONS = { gap = 1, lead = 3, evidence = .6, threads = 1 }

-- Share of bright pixels inside each frame's square: how much of it is seen.
local function seen(path)
  local list = {}
  local source = assert(media.open(path))
  for frame, _, i in source:each() do
    local left, top = place(i - 1)
    local n, black = 0, true
    for y = 0, H - 1 do
      for x = 0, W - 1 do
        local v = frame:ptr()[(y * W + x) * 3 + 1]
        if v > 140 and x >= left and x < left + SIDE and y >= top and y < top + SIDE then n = n + 1 end
        black = black and v < 30
      end
    end
    list[i] = black and "black" or n / SIDE ^ 2
  end
  source:close()
  return list
end

describe("anonymiser", function()
  local input, output
  setup(function()
    folder = files.temporary_folder()
    input, output = folder .. "/in.mp4", folder .. "/out.mp4"
    local writer = assert(media.writer(input, { width = W, height = H, fps = 12, crf = 12 }))
    for i = 0, FRAMES - 1 do writer:write(frame_of(i), i / 12) end
    writer:close()
  end)
  teardown(function() files.remove(folder) end)

  -- lossless: of such small pictures x264 does not always make the same bytes else, as its look-ahead reads beyond its own buffers
  local function cover(plan, to)
    sidecar.write(folder .. "/plan.json", plan)
    return anonymiser.cover(input, to or output, assert(sidecar.read(folder .. "/plan.json")), { crf = 0, audio = "keep", threads = 1, look = 3 })
  end

  it("covers the square in every frame, also in those that the finder misses, and keeps every frame", function()
    local found = assert(anonymiser.find(input, square_finder(nil, { [1] = true, [8] = true, [9] = true, [24] = true }), OPTIONS))
    assert.equal(FRAMES, found.frames)
    assert.equal(1, #found.tracks)
    local done = cover(plan_of(found))
    assert.equal(FRAMES, done.masked)
    assert.equal(1, #done.pictures)
    assert.equal("\255\216\255", done.pictures[1].data:sub(1, 3))
    local list = seen(output)
    assert.equal(FRAMES, #list)
    for i, share in ipairs(list) do assert.is_true(share < .02, "frame " .. i) end
  end)

  it("makes the same bytes again of an unchanged sidecar, and others of an edited one", function()
    local plan = plan_of(assert(anonymiser.find(input, square_finder(), OPTIONS)))
    cover(plan)
    cover(assert(sidecar.read(folder .. "/plan.json")), folder .. "/again.mp4")
    assert.is_true(files.read(output) == files.read(folder .. "/again.mp4"))
    plan.tracks[1].keep = true
    cover(plan, folder .. "/kept.mp4")
    for _, share in ipairs(seen(folder .. "/kept.mp4")) do assert.is_true(share > .9) end
  end)

  -- Options of a first pass that covers as it goes and leaves its sidecar in once.json.
  local function at_once(to, more)
    local plan = plan_of { tracks = {}, blank = {} }
    local options = setmetatable({
      threads = 1, cover = {
        output = to, audio = "keep", crf = 0, look = 3, settings = plan.settings, regions = {},
        on_found = function(found) sidecar.write(folder .. "/once.json", plan_of(found)) end,
      },
    }, { __index = OPTIONS })
    for k, v in pairs(more or {}) do options[k] = v end
    return options
  end

  it("covers in the pass that finds, and makes the same sidecar and the same bytes as in two", function()
    local cases = {
      { square_finder }, { function() return square_finder(nil, { [1] = true, [8] = true, [9] = true, [24] = true }) end },
      { function() return square_finder { [5] = "the network broke", [24] = "again" } end }, { square_finder, { every = .5 } }, { square_finder, { lead = 0, gap = 0 } },
      { function() -- seen weakly for long, in frames that wait until it is sure
        local look, n = square_finder(), 0
        local inner = look.look
        function look.look(...)
          n = n + 1
          local list = inner(...)
          for _, d in ipairs(list) do d.weak, d.score = n < 22, n < 22 and .2 or .9 end
          return list
        end
        return look
      end },
    }
    cases[7] = { cases[6][1], { gap = .5 } } -- and in frames that did not
    for i, case in ipairs(cases) do
      local options = at_once(output, case[2])
      local found = assert(anonymiser.find(input, case[1](), options))
      assert.equal(FRAMES, found.frames)
      assert.equal(i < 7, found.done ~= nil)
      if i == 7 then sidecar.write(folder .. "/once.json", plan_of(found)) end
      options.cover = nil
      local two = assert(anonymiser.find(input, case[1](), options))
      assert.is_nil(two.done)
      local done = cover(plan_of(two), folder .. "/two.mp4")
      found.done = found.done or cover(plan_of(found))
      assert.equal(files.read(folder .. "/plan.json"), files.read(folder .. "/once.json"), "case " .. i)
      assert.is_true(files.read(folder .. "/two.mp4") == files.read(output), "case " .. i)
      for _, name in ipairs { "masked", "sounds", "blanked", "dropped", "pictures" } do assert.same(done[name], found.done[name], name) end
      assert.same(i == 3 and 22 or 24, done.masked, "case " .. i)
    end
  end)

  it("goes through a recording twice where too many frames would wait, or come at once", function()
    local found = assert(anonymiser.find(input, square_finder(), at_once(folder .. "/none.mp4", { gap = 30 })))
    assert.is_nil(found.done)
    assert.equal(1, #found.tracks)
    local rush = folder .. "/rush.mkv" -- says that it has a frame a second, and in the end has a hundred
    local writer = assert(media.writer(rush, { width = W, height = H, fps = 1, crf = 12 }))
    for i = 0, 71 do writer:write(frame_of(i % FRAMES), i < 12 and i or 12 + (i - 12) / 100) end
    writer:close()
    local opened
    found = assert(anonymiser.find(rush, square_finder(), at_once(folder .. "/none.mp4", { on_open = function(_, covers) opened = covers end })))
    assert.same({ true, 72 }, { opened, found.frames })
    assert.is_nil(found.done)
    assert.is_false(files.exists(folder .. "/none.mp4"))
    for _, name in ipairs(files.list(folder)) do assert.is_nil(name:find "tmp") end
  end)

  it("covers a frame whole where detection fails, and where the sidecar knows nothing of it", function()
    local found = assert(anonymiser.find(input, square_finder { [5] = "the network broke" }, OPTIONS))
    assert.same({ { frame = 5, reason = "the network broke" } }, found.faults)
    local plan = plan_of(found)
    plan.input.frames = FRAMES - 2
    plan.tracks[1].count = plan.tracks[1].count - 2
    assert.same({ 5, 23, 24 }, cover(plan).blanked)
    local list = seen(output)
    for i = 1, FRAMES do assert.is_true((i == 5 or i > FRAMES - 2) == (list[i] == "black") and (list[i] == "black" or list[i] < .02), "frame " .. i) end
  end)

  it("hands on Ctrl-C and leaves no file", function()
    helper.refuses("interrupted", anonymiser.find, input, square_finder { [3] = "interrupted" }, OPTIONS)
    helper.refuses("interrupted", anonymiser.find, input, square_finder { [20] = "interrupted" }, at_once(folder .. "/none.mp4"))
    helper.refuses("no room", anonymiser.find, input, square_finder(), at_once(folder .. "/none.mp4", {
      cover = setmetatable({ on_found = function() error("no room", 0) end }, { __index = at_once(folder .. "/none.mp4").cover }),
    }))
    local unready = square_finder()
    function unready.prepare() error("the weights are missing", 0) end
    helper.refuses("the weights are missing", anonymiser.find, input, unready, OPTIONS)
    local plan, to = plan_of(assert(anonymiser.find(input, square_finder(), OPTIONS))), folder .. "/none.mp4"
    sidecar.write(folder .. "/plan.json", plan)
    helper.refuses("interrupted", anonymiser.cover, input, to, plan, { on_frame = function(n) if n == 4 then error("interrupted", 0) end end })
    assert.is_false(files.exists(to))
    for _, name in ipairs(files.list(folder)) do assert.is_nil(name:find "tmp") end
  end)

  it("refuses a sidecar of a recording of another size", function()
    local plan = plan_of(assert(anonymiser.find(input, square_finder(), OPTIONS)))
    plan.input.width = W + 2
    helper.refuses("320x192 pixels, but the sidecar was made of 322x192", anonymiser.cover, input, folder .. "/none.mp4", plan, {})
    assert.is_false(files.exists(folder .. "/none.mp4"))
  end)

  it("sees on the second look what was left, covers it by a solid box, and then sees nothing; its control sees the source", function()
    local found = assert(anonymiser.find(input, square_finder(), OPTIONS))
    local track = found.tracks[1]
    track.count = 12 -- what a detector lost for good
    local plan = plan_of(found)
    cover(plan)
    local looked, hits = anonymiser.control(input, plan, square_finder(), 8)
    assert.equal(8, looked)
    assert.equal(8, hits)
    local left, frames = anonymiser.verify(output, plan, square_finder(), OPTIONS)
    assert.equal(1, #left)
    for i = 1, FRAMES do assert.equal(i >= 10, frames[i] == true, "frame " .. i) end -- the square is lost from 13 on, the lead is 3
    assert.equal("box", plan.tracks[2].style)
    assert.equal(2, plan.tracks[2].id)
    cover(plan)
    assert.equal(0, #anonymiser.verify(output, plan, square_finder(), OPTIONS))
    for i, share in ipairs(seen(output)) do assert.is_true(share < .02, "frame " .. i) end
  end)

  it("looks again only where it is told to, covers more of it there, and leaves alone what is to stay visible", function()
    local plan = plan_of(assert(anonymiser.find(input, square_finder(), OPTIONS)))
    plan.tracks[1].count = 2
    cover(plan)
    local looks, look = 0, square_finder()
    local inner = look.look
    function look.look(...)
      looks = looks + 1
      return inner(...)
    end
    local left = anonymiser.verify(output, plan, look, { gap = 1, lead = 0, evidence = 0, threads = 1, only = { [6] = true, [7] = true }, grow = 2 })
    assert.equal(2, looks)
    assert.equal(1, #left)
    assert.equal(6, left[1].samples[0].frame)
    assert.is_true(left[1].samples[0].width > 1.8 * SIDE)
    plan = plan_of(assert(anonymiser.find(input, square_finder(), OPTIONS)))
    plan.tracks[1].keep = true
    cover(plan)
    assert.equal(0, #anonymiser.verify(output, plan, square_finder(), OPTIONS))
    plan.tracks[1].keep, plan.regions = false, { { mask = "never", points = { { 0, 0 }, { W, 0 }, { W, H }, { 0, H } } } }
    cover(plan)
    assert.equal(0, #anonymiser.verify(output, plan, square_finder(), OPTIONS))
    plan.tracks, plan.regions, plan.blocks = {}, {}, nil
    assert.is_true(#anonymiser.verify(output, plan, square_finder(), OPTIONS) > 0)
  end)

  it("tests the second look at frames that have a hit, and all over the recording where none has", function()
    local plan = plan_of(assert(anonymiser.find(input, square_finder(), OPTIONS)))
    local looked, hits = anonymiser.control(input, plan, square_finder(nil, { [1] = true }), 5)
    assert.same({ 5, 4 }, { looked, hits })
    for i = 0, FRAMES - 1 do plan.tracks[1].samples[i].score = i == 6 and .9 or 0 end
    assert.same({ 1, 1 }, { anonymiser.control(input, plan, square_finder(), 5) })
    plan.tracks = {}
    assert.same({ 8, 8 }, { anonymiser.control(input, plan, square_finder(), 8) })
  end)

  it("covers frames that are shown elsewhere, also of a folder of pictures, at their numbers", function()
    local hide = anonymiser.hider(input, {}, { finder = square_finder(nil, { [9] = true }) })
    for i = 0, FRAMES - 1, 4 do
      local frame, left, top = frame_of(i), place(i)
      hide(frame, i + 1)
      for y = top, top + SIDE - 1, 3 do
        for x = left, left + SIDE - 1, 3 do assert.equal(0, frame:ptr()[(y * W + x) * 3]) end
      end
      assert.equal(50, frame:ptr()[((H - 1) * W + W - 1) * 3])
    end
    files.mkdirs(folder .. "/rgb")
    for i = 0, 3 do media.write_png(("%s/rgb/%02d.png"):format(folder, i), frame_of(i)) end
    local frame, left, top = frame_of(2), place(2)
    anonymiser.hider(folder .. "/rgb", { fps = 12 }, { finder = square_finder() })(frame, 3)
    assert.equal(0, frame:ptr()[((top + 5) * W + left + 5) * 3])
  end)

  it("does not take its own masks for what is left", function()
    local plan = plan_of(assert(anonymiser.find(input, square_finder(), OPTIONS)))
    local look = square_finder()
    cover(plan)
    function look.look() -- a detector that takes the mask in the middle of the track for a face
      local s = plan.tracks[1].samples[10]
      return { { kind = "face", x = s.x, y = s.y, width = s.width / 3, height = s.height / 3, angle = 0, score = .9 } }, false
    end
    local left = anonymiser.verify(output, plan, look, OPTIONS)
    for _, track in ipairs(left) do assert.is_true(track:at(11) == nil or track:at(11).score == 0) end
  end)

  it("takes them for what is left where it is to be strict, but not what is to stay visible, nor what lies below a bar over the eyes", function()
    local strict = setmetatable({ strict = true }, { __index = OPTIONS })
    local plan = plan_of(assert(anonymiser.find(input, square_finder(), OPTIONS)))
    local look = square_finder()
    function look.look(_, _, at)
      local s = plan.tracks[1]:at(at.index)
      return { { kind = "face", x = s.x, y = s.y, width = s.width / 3, height = s.height / 3, angle = 0, score = .9 } }, false
    end
    local function left(eyes, kept, regions)
      plan.settings.mask, plan.tracks[1].keep, plan.regions, plan.blocks = eyes and "eyes" or "head", kept, regions or {}, nil
      cover(plan)
      local count = #anonymiser.verify(output, plan, look, strict)
      for i = 2, #plan.tracks do plan.tracks[i] = nil end
      return count
    end
    assert.equal(1, left(false, false))
    assert.equal(0, left(true, false))
    assert.equal(0, left(false, true))
    assert.equal(0, left(false, false, { { mask = "never", points = { { 0, 0 }, { W, 0 }, { W, H }, { 0, H } } } }))
  end)

  it("looks a few times only where little changes, covers the square in every frame all the same, and ends tracks at a cut", function()
    local finders = square_finder()
    local found = assert(anonymiser.find(input, finders, { gap = 1, lead = 3, evidence = .6, threads = 1, every = .5 }))
    assert.is_true(found.looks.looked + found.looks.glances < FRAMES, found.looks.looked .. " looks")
    cover(plan_of(found))
    for i, share in ipairs(seen(output)) do assert.is_true(share < .02, "frame " .. i) end
    local cut = folder .. "/cut.mp4"
    local writer = assert(media.writer(cut, { width = W, height = H, fps = 12, crf = 12 }))
    for i = 0, FRAMES - 1 do writer:write(i < 10 and frame_of(i) or lr.full({ H, W, 3 }, 120, "u8"), i / 12) end
    writer:close()
    local tracks = assert(anonymiser.find(cut, square_finder(), { gap = 1, lead = 3, evidence = .6, threads = 1, every = .5 })).tracks
    assert.same({ 1, 10 }, { #tracks, tracks[1].samples[tracks[1].count - 1].frame })
  end)

  it("takes heads of bodies where no face is, and a body below a face where no body is", function()
    local face = { x = 50, y = 40, width = 20, height = 20, angle = 0, score = .8, points = {} }
    local head = { x = 120, y = 40, width = 22, height = 22, angle = 0, score = .9, points = {} }
    local same = { x = 51, y = 41, width = 24, height = 24, angle = 0, score = .9, points = {} }
    local function look(target, persons)
      local f = finder.new {
        target = target, edges = false, faces = { search = function() return { face } end },
        people = { process = function() return persons end, reset = function() end },
      }
      return (f:look(frame_of(1)))
    end
    local body = { x = 120, y = 90, width = 50, height = 140, score = .9, head = head }
    assert.same({ 50, 120 }, { look("face", { body })[1].x, look("face", { body })[2].x })
    assert.equal(1, #look("face", { { x = 50, y = 90, width = 60, height = 150, score = .9, head = same } }))
    local persons = look("person", { body })
    assert.equal(2, #persons)
    assert.is_true(persons[2].y > 60 and persons[2].height > 100)
  end)
end)

describe("recipes/anonymise #process", function()
  local weights = require "libration.weights"
  local picture = helper.shared "data/images/grace_hopper.bmp"
  local why = not picture and "needs ../shared" or not weights.find "face_detection_full_range_sparse" and "needs the weights of face detection"
  setup(function() folder = files.temporary_folder() .. "/with space ü" end)
  teardown(function() files.remove(files.folder(folder)) end)

  -- fresh memory holds what it is told to: see the remark on x264 above
  local function run(arguments) return shell(("MALLOC_PERTURB_=85 luajit recipes/anonymise.lua --threads 1 --detector face %s"):format(arguments)) end

  it("masks a video and a picture, applies the sidecar to the same bytes, goes on where it was", function()
    if why then return pending(why) end
    files.mkdirs(folder)
    local face = assert(media.read_picture(picture))
    local h, w = face:size(1), face:size(2)
    local writer = assert(media.writer(folder .. "/film.mp4", { width = 320, height = 240, fps = 10, crf = 16 }))
    for i = 0, 9 do
      local frame = lr.full({ 240, 320, 3 }, 90, "u8")
      local region, small = ffi.new("lbr_region", w / 2, h / 2, w, h, 0), lr.empty({ 170, 145, 3 }, "u8")
      lr.core.check(lr.core.C.lbr_crop_u8(face:ptr(), h, w, w * 3, region, 1, small:ptr(), 170, 145))
      for y = 0, 169 do ffi.copy(frame:ptr() + ((30 + y) * 320 + 20 + 12 * i) * 3, small:ptr() + y * 145 * 3, 145 * 3) end
      writer:write(frame, i / 10)
    end
    writer:close()
    local out = folder .. "/out"
    local text, code = run(("%s %s --output %s --strict"):format(quote(folder .. "/film.mp4"), quote(picture), quote(out)))
    assert.equal(0, code, text)
    for _, name in ipairs { "film.anonymised.mp4", "film.anonymised.json", "grace_hopper.anonymised.png", "grace_hopper.anonymised.json", "report.html" } do
      assert.is_true(files.exists(out .. "/" .. name), name)
    end
    local detector = require "libration.pose.face".detector {}
    local source, n = assert(media.open(out .. "/film.anonymised.mp4")), 0
    for frame in source:each() do
      n = n + 1
      assert.equal(0, #detector:detect(frame), "frame " .. n)
    end
    assert.equal(10, n)
    assert.equal(0, #detector:detect(assert(media.read_picture(out .. "/grace_hopper.anonymised.png"))))
    local page = files.read(out .. "/report.html")
    assert.is_truthy(page:find("data:image/jpeg", 1, true) and page:find("film.anonymised.mp4", 1, true))
    assert.is_truthy(page:find("faces in 10 of 10 frames looked at", 1, true))

    text, code = run(("%s --apply %s --output %s"):format(quote(folder .. "/film.mp4"), quote(out .. "/film.anonymised.json"), quote(folder .. "/b.mp4")))
    assert.equal(0, code, text)
    assert.is_true(files.read(out .. "/film.anonymised.mp4") == files.read(folder .. "/b.mp4"))

    text, code = run(("%s --output %s --resume"):format(quote(folder .. "/film.mp4"), quote(out)))
    assert.equal(0, code, text)
    assert.is_truthy(text:find("done already", 1, true))

    text, code = run(("%s --apply %s --preview --output %s"):format(quote(folder .. "/film.mp4"), quote(out .. "/film.anonymised.json"), quote(folder .. "/p")))
    assert.equal(0, code, text)
    assert.is_true(files.exists(folder .. "/p/film.anonymised.preview.png") and not files.exists(folder .. "/p/film.anonymised.mp4"))

    text, code = run(("%s --apply %s --keep 7 --output %s"):format(quote(folder .. "/film.mp4"), quote(out .. "/film.anonymised.json"), quote(folder .. "/p")))
    assert.is_true(code ~= 0 and text:find("--keep 7: there are", 1, true) ~= nil, text)
  end)

  -- A network [1,rows,64] of two convolutions that sees the same face or person in every picture; column: of the first of its numbers.
  local function seer(rows, column)
    local T, N, values, factors = made_onnx.tensor, made_onnx.node, {}, {}
    for i = 1, rows * 64 do values[i] = 0 end
    for i = 1, 16 * 16 do factors[i] = (i % 7 - 3) / 16 end
    for i, v in ipairs(column) do values[(i - 1) * 64 + 1] = v end
    return made_onnx.model {
      inputs = { made_onnx.info("images", "f32", { 1, 3, 64, 64 }) }, outputs = { made_onnx.info("output0", "f32", { 1, rows, 64 }) },
      constants = { T("none", "f32", {}, { 0 }), T("flat", "i64", { 3 }, { 1, 1, 1 }), T("seen", "f32", { 1, rows, 64 }, values),
        T("first", "f32", { 16, 3, 1, 1 }, { unpack(factors, 1, 48) }), T("second", "f32", { 16, 16, 1, 1 }, factors) },
      nodes = { N("Conv", { "images", "first" }, { "inner" }), N("Conv", { "inner", "second" }, { "outer" }),
        N("ReduceMean", { "outer" }, { "mean" }, { keepdims = 0 }), N("Mul", { "mean", "none" }, { "zero" }), N("Reshape", { "zero", "flat" }, { "z" }),
        N("Add", { "z", "seen" }, { "output0" }) },
    }
  end

  it("takes the faces of networks that know five points, or a person's joints, to the sidecar and back; in either look", function()
    files.mkdirs(folder .. "/brought")
    local at, person = folder .. "/brought/", { 32, 32, 30, 40, .9 }
    for k = 1, 17 do
      person[3 * k + 3], person[3 * k + 4], person[3 * k + 5] = 20 + k, 20 + k, k == 4 and .1 or .9 -- an ear is not seen
    end
    files.write(at .. "face.onnx", seer(20, { 32, 32, 16, 20, .9, 28, 30, .9, 36, 30, .9, 32, 33, .9, 29, 37, .9, 35, 37, .9 }))
    files.write(at .. "pose.onnx", seer(56, person))
    local writer = assert(media.writer(at .. "film.mp4", { width = W, height = H, fps = 10, crf = 16 }))
    for i = 1, 6 do writer:write(frame_of(i), i / 10) end
    writer:close()
    for _, name in ipairs { "face", "pose" } do
      for _, mask in ipairs { "head", "eyes" } do
        local to = at .. name .. mask
        local text, code = run(("%s --weights %s --mask %s --no-verify --output %s"):format(quote(at .. "film.mp4"), quote(at .. name .. ".onnx"), mask, quote(to)))
        assert.equal(0, code, text)
        assert.truthy(text:find("6 of 6 frames masked", 1, true), text)
        local said, plan = files.read(to .. "/film.anonymised.json"), assert(sidecar.read(to .. "/film.anonymised.json"))
        assert.truthy(said:find("null", 1, true) and not said:find("nan", 1, true))
        local s = plan.tracks[1].samples[0]
        assert.is_true(s.points[0] == s.points[0] and s.points[10] ~= s.points[10])
        assert.equal(name == "pose", s.points[8] == s.points[8])
        text, code = run(("%s --apply %s --output %s"):format(quote(at .. "film.mp4"), quote(to .. "/film.anonymised.json"), quote(to .. "again")))
        assert.equal(0, code, text)
        assert.equal(files.sha256(to .. "/film.anonymised.mp4"), files.sha256(to .. "again/film.anonymised.mp4"))
      end
    end
    for precision, said in pairs { int8 = "2 of 2 convolutions in 8 bits", bf16 = "6 of 6 frames masked" } do
      local arguments = ("%s --weights %s --precision %s --no-verify --output %s"):format(quote(at .. "film.mp4"), quote(at .. "face.onnx"), precision, quote(at .. precision))
      local text, code = run(arguments)
      assert.equal(0, code, text)
      assert.truthy(text:find("6 of 6 frames masked", 1, true) and text:find(said, 1, true), text)
    end
    if why then return end
    local text, code = run(("%s --verify-weights %s --verify-every 0 --output %s"):format(quote(at .. "film.mp4"), quote(at .. "face.onnx"), quote(at .. "second")))
    assert.equal(0, code, text)
    assert.truthy(text:find("6 of 6 frames masked", 1, true), text)
    assert.equal("box", assert(sidecar.read(at .. "second/film.anonymised.json")).tracks[1].style)
  end)

  it("refuses in one line what it cannot do, and writes nothing", function()
    if why then return pending(why) end
    files.mkdirs(folder)
    files.write(folder .. "/edited.json", '{"format": "libration anonymisation",\n"version": 1, "inputs": 3}')
    files.write(folder .. "/x.png", files.read(picture))
    for arguments, want in pairs {
      [("%s --output %s"):format(quote(folder .. "/x.png"), quote(folder .. "/x.png"))] = "the output would be written over this input",
      [("%s --apply %s --output %s"):format(quote(picture), quote(folder .. "/edited.json"), quote(folder .. "/n"))] = "edited.json, line 2, inputs: unknown field",
      [("%s --style blur --strength .05"):format(quote(picture))] = "a blur or mosaic that weak can be undone",
      [("%s --keep-audio --distort-voice"):format(quote(picture))] = "--keep-audio, --drop-audio and --distort-voice exclude each other",
      [("%s --strict --no-verify --output %s"):format(quote(picture), quote(folder .. "/n"))] = "leave --no-verify out",
      [("%s --precision int8 --output %s"):format(quote(picture), quote(folder .. "/n"))] = "int8 is for a network that --weights names",
      [("%s --mask dog --output %s"):format(quote(picture), quote(folder .. "/n"))] = "want eyes, face, head or person",
      [("%s --margin 3cm"):format(quote(picture))] = "want a share of the face such as .3",
      ["/none/such.mp4 --output " .. quote(folder .. "/n")] = "/none/such.mp4: No such file or directory",
      [("recipes --output %s"):format(quote(folder .. "/n"))] = "recipes: no videos and no pictures in this folder",
    } do
      local text, code = run(arguments)
      assert.is_true(code ~= 0 and text:find(want, 1, true) ~= nil, arguments .. ": " .. text)
      assert.is_nil(text:find "traceback")
    end
  end)
end)
