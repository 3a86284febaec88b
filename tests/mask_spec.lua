-- Masks over RGB frames: what is covered and with what, against a slow twin in Lua; what is refused.
require "helper"
local made = require "helper_media"
local mask = require "libration.media.mask"
local tensor = require "libration.tensor"

---------------------------------------------------------------------------------------------------- the slow twin

local function corners(m)
  if m.shape == "polygon" then return m.points end
  local c, s, list = math.cos(m.angle or 0), math.sin(m.angle or 0), {}
  for _, k in ipairs { { -1, -1 }, { 1, -1 }, { 1, 1 }, { -1, 1 } } do
    local u, v = k[1] * m.width / 2, k[2] * m.height / 2
    list[#list + 1] = m.x + u * c - v * s
    list[#list + 1] = m.y + u * s + v * c
  end
  return list
end

local function inside(m, x, y)
  if m.shape == "ellipse" then
    local c, s = math.cos(m.angle or 0), math.sin(m.angle or 0)
    local u, v = (x - m.x) * c + (y - m.y) * s, (y - m.y) * c - (x - m.x) * s
    return (2 * u / m.width) ^ 2 + (2 * v / m.height) ^ 2 < 1
  end
  local p, turns = corners(m), 0
  for i = 1, #p, 2 do
    local x1, y1, x2, y2 = p[i], p[i + 1], p[i + 2] or p[1], p[i + 3] or p[2]
    if (y1 <= y) ~= (y2 <= y) and x1 + (x2 - x1) * (y - y1) / (y2 - y1) <= x then turns = turns + (y1 < y2 and 1 or -1) end
  end
  return turns ~= 0
end

-- Share 0..1 of the mask at each pixel of [h,w]: inside all, outside less by the steps (5 straight, 7 diagonal) to the nearest pixel inside.
local function coverage(m, w, h)
  local list, alpha, f = {}, {}, m.feather or 0
  for y = 0, h - 1 do
    for x = 0, w - 1 do
      local yes = inside(m, x + .5, y + .5)
      alpha[y * w + x] = yes and 1 or 0
      if yes then list[#list + 1] = { x, y } end
    end
  end
  local reach = math.ceil(f)
  for _, p in ipairs(f > 0 and list or {}) do
    for y = math.max(0, p[2] - reach), math.min(h - 1, p[2] + reach) do
      for x = math.max(0, p[1] - reach), math.min(w - 1, p[1] + reach) do
        local a, b = math.abs(p[1] - x), math.abs(p[2] - y)
        local share = 1 - (7 * math.min(a, b) + 5 * math.abs(a - b)) / 5 / (f + 1)
        if share > alpha[y * w + x] then alpha[y * w + x] = share end
      end
    end
  end
  return alpha
end

-- The rectangle in which cells lie: around the mask and where it fades, clipped.
local function rectangle(m, w, h)
  local left, top, right, bottom = math.huge, math.huge, -math.huge, -math.huge
  local p = m.shape ~= "ellipse" and corners(m)
  if not p then
    local c, s, a, b = math.cos(m.angle or 0), math.sin(m.angle or 0), m.width / 2, m.height / 2
    local u, v = math.sqrt((a * c) ^ 2 + (b * s) ^ 2), math.sqrt((a * s) ^ 2 + (b * c) ^ 2)
    p = { m.x - u, m.y - v, m.x + u, m.y + v }
  end
  for i = 1, #p, 2 do
    left, right, top, bottom = math.min(left, p[i]), math.max(right, p[i]), math.min(top, p[i + 1]), math.max(bottom, p[i + 1])
  end
  local side = math.max(right - left, bottom - top)
  if m.shape ~= "polygon" then side = math.max(m.width, m.height) end
  local margin = (m.feather or 0) > 0 and m.feather + 1 or 0
  local function clip(v, limit) return math.max(0, math.min(limit, v)) end
  return math.floor(clip(left - margin, w)), math.floor(clip(top - margin, h)), math.ceil(clip(right + margin, w)), math.ceil(clip(bottom + margin, h)), side
end

local function twin(frame, m, options)
  local h, w = frame.shape[1], frame.shape[2]
  local p, alpha = frame:ptr(), coverage(m, w, h)
  local left, top, right, bottom, side = rectangle(m, w, h)
  local strength = options.strength or (options.style == "blur" and .2 or .125)
  local cell = options.style == "blur" and math.max(1, math.ceil(side * strength / 3.5)) or math.max(4, math.ceil(side * strength))
  local across, down = math.ceil((right - left) / cell), math.ceil((bottom - top) / cell)
  local out = {}
  for c = 0, 2 do
    local grid = {}
    for j = 0, down - 1 do
      grid[j] = {}
      for i = 0, across - 1 do
        local sum, n = 0, 0
        for y = top + j * cell, math.min(bottom, top + (j + 1) * cell) - 1 do
          for x = left + i * cell, math.min(right, left + (i + 1) * cell) - 1 do
            sum, n = sum + p[3 * (y * w + x) + c], n + 1
          end
        end
        grid[j][i] = sum / n
      end
    end
    for _ = 1, options.style == "blur" and 3 or 0 do
      local next = {}
      for j = 0, down - 1 do
        next[j] = {}
        for i = 0, across - 1 do
          local sum = 0
          for v = j - 3, j + 3 do
            for u = i - 3, i + 3 do sum = sum + grid[math.max(0, math.min(down - 1, v))][math.max(0, math.min(across - 1, u))] end
          end
          next[j][i] = sum / 49
        end
      end
      grid = next
    end
    for y = top, bottom - 1 do
      for x = left, right - 1 do
        local value = 0
        if options.style == "mosaic" then
          value = grid[math.floor((y - top) / cell)][math.floor((x - left) / cell)]
        elseif options.style == "blur" then
          local u = math.max(0, math.min(across - 1, (x - left + .5) / cell - .5))
          local v = math.max(0, math.min(down - 1, (y - top + .5) / cell - .5))
          local i, j = math.floor(u), math.floor(v)
          local i2, j2 = math.min(i + 1, across - 1), math.min(j + 1, down - 1)
          u, v = u - i, v - j
          value = (grid[j][i] * (1 - u) + grid[j][i2] * u) * (1 - v) + (grid[j2][i] * (1 - u) + grid[j2][i2] * u) * v
        end
        local at, a = 3 * (y * w + x) + c, alpha[y * w + x]
        out[at] = p[at] * (1 - a) + value * a
      end
    end
  end
  return out
end

---------------------------------------------------------------------------------------------------- specs

describe("mask", function()
  local shapes = {
    ["an ellipse"] = { shape = "ellipse", x = 23.3, y = 18.8, width = 21, height = 30, angle = .5 },
    ["a box"] = { shape = "box", x = 24, y = 20, width = 26, height = 9, angle = -.35 },
    ["a polygon that crosses itself"] = { shape = "polygon", points = { 6, 5, 40, 30.5, 41, 6, 8, 33 } },
    ["an ellipse across a corner"] = { shape = "ellipse", x = 2, y = 40, width = 30, height = 22, angle = 2 },
    ["a box beyond three borders"] = { shape = "box", x = 30, y = 20, width = 50, height = 90 },
  }
  for name, m in pairs(shapes) do
    for _, style in ipairs { "blur", "mosaic", "box" } do
      for _, feather in ipairs { 0, 4 } do
        it(("%s, %s, feather %d: as the slow twin within 1.01 of 255; nothing else changes"):format(name, style, feather), function()
          local before, frame = made.picture(48, 41, 3), made.picture(48, 41, 3)
          m.feather = feather
          assert.equal(frame, mask.apply(frame, { m }, { style = style }))
          local want, p, q, changed = twin(before, m, { style = style }), before:ptr(), frame:ptr(), 0
          for i = 0, 48 * 41 * 3 - 1 do
            local w = want[i] or p[i]
            if math.abs(w - q[i]) > 1.01 then error(("element %d is %d, want %g, was %d"):format(i, q[i], w, p[i])) end
            if p[i] ~= q[i] then changed = changed + 1 end
          end
          assert.is_true(changed > 200)
        end)
      end
    end
  end

  local function filled(value)
    local frame = tensor.empty({ 60, 80, 3 }, "u8")
    local p = frame:ptr()
    for i = 0, 60 * 80 * 3 - 1 do p[i] = value(i % 3, math.floor(i / 3) % 80, math.floor(i / 240)) end
    return frame, p
  end
  local function all(p, want)
    local wrong = 0
    for i = 0, 60 * 80 * 3 - 1 do
      if p[i] ~= want(i) then wrong = wrong + 1 end
    end
    assert.equal(0, wrong)
  end
  local function box(width, height) return { shape = "box", x = 40, y = 30, width = width, height = height } end

  it("mosaic leaves at most 8 blocks along the longer side, and none below 4 pixels", function()
    for _, width in ipairs { 8, 16, 33, 64 } do
      local frame, p = filled(function(_, x, y) return (37 * x + 101 * y) % 256 end)
      mask.apply(frame, { box(width, 8) })
      local runs, last = 0, nil
      for x = math.ceil(40 - width / 2 - .5), math.ceil(40 + width / 2 - .5) - 1 do
        local v = p[3 * (30 * 80 + x)]
        if v ~= last then runs, last = runs + 1, v end
      end
      assert.is_true(runs <= math.min(8, math.ceil((width + 1) / 4)), width .. ": " .. runs)
    end
  end)

  it("a blur hides a wave of five periods across the mask below a level of 255", function()
    local frame, p = filled(function(_, x) return math.floor(127.5 + 127 * math.sin(2 * math.pi * 5 * (x - 10) / 60)) end)
    mask.apply(frame, { box(60, 40) }, { style = "blur" })
    local re, im = 0, 0 -- of that wave in four of its periods, faded in and out
    for x = 16, 63 do
      local v = p[3 * (30 * 80 + x)] * (1 - math.cos(2 * math.pi * (x - 15.5) / 48))
      re, im = re + v * math.cos(2 * math.pi * x / 12) / 24, im + v * math.sin(2 * math.pi * x / 12) / 24
    end
    assert.is_true(math.sqrt(re * re + im * im) < 1, math.sqrt(re * re + im * im))
  end)

  it("keeps a mean: a flat picture stays flat under blur and mosaic", function()
    for _, style in ipairs { "blur", "mosaic" } do
      local frame, p = filled(function(c) return 90 + 50 * c end)
      mask.apply(frame, { { shape = "ellipse", x = 40, y = 30, width = 50, height = 70, angle = 1 } }, { style = style, feather = 7 })
      all(p, function(i) return 90 + 50 * (i % 3) end)
    end
  end)

  it("draws several in order, each in its own style", function()
    local frame, p = filled(function() return 200 end)
    mask.apply(frame, { box(20, 20), { shape = "box", x = 10, y = 10, width = 4, height = 4, style = "mosaic" } }, { style = "box" })
    assert.same({ 0, 200, 200 }, { p[3 * (30 * 80 + 40)], p[3 * (10 * 80 + 10)], p[3 * (30 * 80 + 52)] })
  end)

  it("beyond the picture changes nothing; huge ones cover all; one pixel works", function()
    local frame, p = filled(function(_, x) return x end)
    mask.apply(frame, { { shape = "ellipse", x = -5e5, y = 1e6, width = 9e5, height = 3 }, { shape = "polygon", points = { 90, 0, 99, 0, 99, 70 } } })
    all(p, function(i) return math.floor(i / 3) % 80 end)
    for _, style in ipairs { "blur", "mosaic", "box" } do
      mask.apply(frame, { { shape = "ellipse", x = 3, y = 4, width = 1e6, height = 1e6, angle = 1 } }, { style = style, feather = 1000, strength = 1 })
      all(p, function(i) return i > 2 and math.abs(p[i] - p[i - 3]) > 1 and -1 or p[i] end)
      local one = tensor.empty({ 1, 1, 3 }, "u8")
      mask.apply(one, { { shape = "box", x = .5, y = .5, width = 1e-9, height = 1e-9 }, { shape = "ellipse", x = .2, y = .8, width = 40, height = 1 } }, { style = style })
    end
  end)

  it("refuses in one line what is not a mask, and draws nothing", function()
    local frame, p = filled(function() return 7 end)
    local good = box(30, 30)
    local function refused(bad, options, pattern)
      local ok, err = pcall(mask.apply, frame, { good, bad }, options)
      assert.is_false(ok)
      assert.matches(pattern, err)
      assert.is_nil(err:find("\n"))
      all(p, function() return 7 end)
    end
    local function with(key, value)
      local m = box(20, 20)
      m[key] = value
      return m
    end
    refused(with("x", 0 / 0), nil, "mask 2: x is %-?nan, want a number within 1e6")
    refused(with("y", math.huge), nil, "mask 2: y is inf")
    refused(with("width", -1), nil, "mask 2: width is %-1, want more than 0")
    refused(with("height", 0), nil, "mask 2: height is 0")
    refused(with("width", 1e9), nil, "mask 2: width is 1e%+09")
    refused(with("angle", 0 / 0), nil, "mask 2: angle is")
    refused(with("feather", -3), nil, "mask 2: feather is %-3")
    refused(with("shape", "star"), nil, 'mask 2: shape is "star", want box, ellipse, polygon')
    refused(with("x", "3"), nil, "mask 2: x is a string, want a number")
    refused(box(20, 20), { style = "smear" }, 'mask 1: style is "smear", want blur, box, mosaic')
    refused(box(20, 20), { style = "blur", strength = .05 }, "strength of the blur is 0.05, want at least 0.125 of its longer side: a weaker blur can be undone")
    refused(box(20, 20), { strength = .1 }, "strength is 0.1, want 0.125 to 1 of its longer side: smaller blocks let a face be known")
    refused(box(20, 20), { strength = 0 / 0 }, "strength is")
    refused(box(20, 20), { colour = "red" }, "unknown option 'colour'")
    refused({ shape = "polygon", points = { 1, 2, 3, 4 } }, nil, "its number of points is 2, want 3 to 4096")
    refused({ shape = "polygon", points = { 1, 2, 3, 4, 5, 0 / 0 } }, nil, "mask 2: y of a point is")
    refused({ shape = "polygon", points = { 1, 2, 3 } }, nil, "mask 2: points wants a list")
    assert.error_matches(function() mask.apply(tensor.empty({ 4, 4 }, "u8"), {}) end, "mask.apply: frame is u8 %[4,4%]")
    for _, m in ipairs { with("width", 0), with("shape", 3), with("x", {}) } do
      local _, message = pcall(function() mask.apply(frame, { m }) end)
      assert.matches("mask_spec.lua:%d+: mask 1: %w+ is", message)
    end
  end)
end)
