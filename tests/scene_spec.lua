-- Specs of the scene renderer: geometry against formulas, paint, threads, instruction sets, files and refusals.
local ffi = require "ffi"
local lr = require "libration"
local core = require "libration.core"
local media = require "libration.media"
local files = require "libration.files"

local C, M = core.C, media.library()
local W, H = 75, 61

local function fill(field, ...)
  for i = 1, select("#", ...) do field[i - 1] = (select(i, ...)) end
end

-- A camera at height 5 that looks straight down; flat light from the whole sky, so that a white thing is white.
local function new_scene(primitives, paints)
  local s = {primitives = ffi.new("lbr_primitive[?]", math.max(1, primitives or 0)), paints = ffi.new("lbr_paint[?]", math.max(1, paints or 0))}
  local scene = ffi.new("lbr_scene[1]")
  s.scene, s.at = scene, scene[0]
  local a = scene[0]
  a.primitives, a.primitive_count, a.paints, a.paint_count = s.primitives, primitives or 0, s.paints, paints or 0
  fill(a.camera, 0, 0, 5)
  fill(a.axes, 1, 0, 0, 0, 1, 0, 0, 0, -1)
  a.focal = 100
  fill(a.centre, W / 2, H / 2)
  fill(a.light, 0.2, -0.3, 0.9)
  fill(a.sky, 0.5, 0.5, 0.5)
  fill(a.sun, 0.5, 0.5, 0.5)
  a.softness, a.floor, a.unit, a.exposure, a.gamma = 0.1, 0, 0.2, 1, 1
  return s
end

local function ball(p, x, y, z, rx, ry, rz, part, group, r, g, b)
  p.shape, p.part, p.group, p.blend = 1, part, group, 0
  fill(p.a, x, y, z)
  fill(p.b, rx, ry, rz)
  fill(p.axes, 1, 0, 0, 0, 1, 0, 0, 0, 1)
  fill(p.colour, r, g, b)
end

local function render(scene, n, w, h)
  local rgb = lr.empty({n or 1, h or H, w or W, 3}, "u8")
  core.check(M.lbr_scene_render(scene, n or 1, w or W, h or H, rgb:ptr()))
  return rgb
end

local function bytes(t) return ffi.string(t:ptr(), t:numel()) end

-- Red things on a black floor: the sum of coverage and its centre.
local function redness(rgb)
  local p, sum, x, y = rgb:ptr(), 0, 0, 0
  for i = 0, W * H - 1 do
    local r = p[3 * i] > 50 and 1 or 0
    sum, x, y = sum + r, x + r * (i % W + 0.5), y + r * (math.floor(i / W) + 0.5)
  end
  return sum, x / sum, y / sum
end

-- A busy scene that uses every path: blends, paints, patterns, folds, noise.
local function busy()
  local s = new_scene(3, 1)
  ball(s.primitives[0], -0.3, 0.1, 0.3, 0.5, 0.3, 0.25, 0, 0, 0.9, 0.6, 0.5)
  ball(s.primitives[1], 0.2, -0.2, 0.35, 0.3, 0.4, 0.3, 0, 1, 0.4, 0.5, 0.8)
  s.primitives[1].blend = 0.1
  local c = s.primitives[2]
  c.shape, c.part, c.group, c.blend, c.gloss = 0, 1, 2, 0, 0.4
  fill(c.a, -0.8, -0.6, 0.2)
  fill(c.b, 0.9, 0.7, 0.8)
  c.radius[0], c.radius[1] = 0.12, 0.06
  fill(c.colour, 0.7, 0.8, 0.4)
  local p = s.paints[0]
  p.region, p.groups, p.soft, p.opacity = 1, 7, 0.2, 0.8
  fill(p.axes, 1, 0, 0, 0, 1, 0, 0, 0, 1)
  fill(p.radius, 0.3, 0.3, 2)
  fill(p.colour, 0.1, 0.7, 0.3)
  p.pattern.kind, p.pattern.period = 1, 0.1
  s.at.pattern.kind, s.at.pattern.period, s.at.pattern.angle = 3, 0.3, 0.4
  fill(s.at.colour, 0.4, 0.5, 0.6)
  fill(s.at.pattern.second, 0.5, 0.6, 0.7)
  s.at.folds, s.at.noise, s.at.seed, s.at.vignette = 0.03, 1.5, 7, 0.2
  return s
end

describe("scene", function()
  local threads
  before_each(function() threads = core.threads() end)
  after_each(function() core.threads(threads) C.lbr_cpu_limit(C.LBR_ISA_AVX512) end)

  it("draws a sphere where the camera's formula puts it, area within 4 %", function()
    local s = new_scene(1)
    s.at.unit = 0.02                                    -- the surface is met within a twenty-fifth of this
    ball(s.primitives[0], 0.3, -0.2, 1, 0.4, 0.4, 0.4, 0, 0, 1, 0, 0)
    local area, x, y = redness(render(s.scene))
    assert.near(W / 2 + 100 * 0.3 / 4, x, 0.5)
    assert.near(H / 2 - 100 * 0.2 / 4, y, 0.5)
    assert.near(1, area / (math.pi * (100 * 0.4 / math.sqrt(16 - 0.16)) ^ 2), 0.04)
  end)

  it("draws a capsule of two radii between its ends", function()
    local s = new_scene(1)
    local p = s.primitives[0]
    p.shape, p.group = 0, 0
    fill(p.a, -1, 0, 0.3)
    fill(p.b, 1, 0, 0.3)
    p.radius[0], p.radius[1] = 0.1, 0.2
    fill(p.colour, 1, 0, 0)
    local rgb = render(s.scene)
    local scale = 100 / 4.7
    local function is_red(x, y) return rgb:get(1, math.floor(H / 2 + y * scale) + 1, math.floor(W / 2 + x * scale) + 1, 1) > 8 end
    assert.is_true(is_red(-1.05, 0) and is_red(1.15, 0) and is_red(0, 0.1) and is_red(1, 0.14) and is_red(-1, 0.04))
    assert.is_false(is_red(-1.2, 0) or is_red(1.3, 0) or is_red(0, 0.22) or is_red(-1, 0.18))
  end)

  it("throws a shadow away from the light, and none without a body", function()
    local s = new_scene(1)
    fill(s.at.light, -0.6, 0, 0.8)
    fill(s.at.colour, 0.8, 0.8, 0.8)
    ball(s.primitives[0], 0, 0, 0.5, 0.15, 0.15, 0.15, 0, 0, 0, 1, 0)
    local rgb = render(s.scene)
    local shade = rgb:get(1, 31, math.floor(W / 2 + 20 * 0.375) + 1, 1)
    local bare = rgb:get(1, 31, math.floor(W / 2 - 20 * 0.6) + 1, 1)
    assert.is_true(shade < 0.75 * bare, ("%d in the shadow, %d beside it"):format(shade, bare))
    s.at.primitive_count = 0
    local empty = render(s.scene)
    assert.equal(empty:get(1, 31, 10, 1), empty:get(1, 31, 60, 1))
  end)

  it("paints only the groups that a paint names", function()
    local s = new_scene(2, 1)
    ball(s.primitives[0], -0.5, 0, 0.5, 0.3, 0.3, 0.3, 0, 3, 1, 0, 0)
    ball(s.primitives[1], 0.5, 0, 0.5, 0.3, 0.3, 0.3, 1, 4, 1, 0, 0)
    local p = s.paints[0]
    p.region, p.groups, p.opacity = 0, 2 ^ 4, 1
    fill(p.axes, 1, 0, 0, 0, 1, 0, 0, 0, 1)
    fill(p.radius, 9, 9, 9)
    fill(p.colour, 0, 0, 1)
    local rgb = render(s.scene)
    local function at(x) return rgb:get(1, 31, math.floor(W / 2 + x * 100 / 4.5) + 1, 1), rgb:get(1, 31, math.floor(W / 2 + x * 100 / 4.5) + 1, 3) end
    local red, blue = at(-0.5)
    assert.is_true(red > 100 and blue < 8)
    red, blue = at(0.5)
    assert.is_true(red < 8 and blue > 100)
  end)

  it("gives the same bytes for 1 and 3 threads, alone and in a batch", function()
    local s = busy()
    core.threads(1)
    local one = bytes(render(s.scene))
    core.threads(3)
    assert.is_true(one == bytes(render(s.scene)))
    local batch = ffi.new("lbr_scene[4]")
    for i = 0, 3 do batch[i] = s.at end
    assert.is_true(one:rep(4) == bytes(render(batch, 4)))
  end)

  it("gives the same picture with and without AVX2: 99 % of bytes within 2 steps", function()
    local s = busy()
    local best = render(s.scene)
    C.lbr_cpu_limit(C.LBR_ISA_PORTABLE)
    local plain = render(s.scene)
    local p, q, off = best:ptr(), plain:ptr(), 0
    for i = 0, best:numel() - 1 do
      if math.abs(p[i] - q[i]) > 2 then off = off + 1 end
    end
    assert.is_true(off < 0.01 * best:numel(), off .. " bytes differ by more than 2")
  end)

  it("writes the same pictures as it renders", function()
    local s = busy()
    local folder = files.temporary_folder()
    local paths = {files.join(folder, "a.png"), files.join(folder, "b.png")}
    local two = ffi.new("lbr_scene[2]")
    two[0], two[1] = s.at, s.at
    two[1].seed = 8
    core.check(M.lbr_scene_write(two, 2, W, H, paths[1] .. "\0" .. paths[2] .. "\0"))
    local want = render(two, 2)
    for i = 1, 2 do assert.is_true(bytes(assert(media.read_picture(paths[i]))) == bytes(want:select(1, i):contiguous())) end
    files.remove(folder)
  end)

  it("refuses by name what it cannot draw", function()
    local rgb = ffi.new("uint8_t[?]", W * H * 3)
    local function refused(pattern, change, w)
      local s = busy()
      change(s)
      assert.is_true(M.lbr_scene_render(s.scene, 1, w or W, H, rgb) == C.LBR_EINVAL)
      assert.matches(pattern, ffi.string(C.lbr_error()))
    end
    refused("129 primitives", function(s) s.at.primitive_count = 129 end)
    refused("not finite", function(s) s.at.focal = 0 / 0 end)
    refused("camera and light above the floor", function(s) s.at.camera[2] = -1 end)
    refused("camera and light above the floor", function(s) s.at.light[2] = 0 end)
    refused("primitive 1 has no size", function(s) s.primitives[1].b[1] = 0 end)
    refused("primitive 0 has shape 9", function(s) s.primitives[0].shape = 9 end)
    refused("paint 0", function(s) s.paints[0].radius[0] = 0 end)
    refused("0x61", function() end, 0)
    assert.equal(0, M.lbr_scene_render(nil, 0, W, H, nil))
  end)

  it("names the file that cannot be written", function()
    local s = busy()
    assert.equal(tonumber(C.LBR_EIO), M.lbr_scene_write(s.scene, 1, W, H, "/nowhere/at/all.png\0"))
    assert.matches("/nowhere/at/all.png", ffi.string(C.lbr_error()))
  end)
end)
