-- The rendered infant's looks: skin, hair, clothes, blanket and light of a sequence, and the shapes and paint of one pose. No movement here.
local ffi = require "ffi"
local bit = require "bit"
local body = require "libration.data.infant_body"

local look = {}

-- Skin by skin, each with hair colours that go with it.
local SKINS = {
  {0.93, 0.74, 0.63}, {0.90, 0.69, 0.56}, {0.84, 0.62, 0.47}, {0.72, 0.50, 0.36}, {0.58, 0.39, 0.28}, {0.46, 0.30, 0.21},
}
local HAIR = {{0.62, 0.46, 0.28}, {0.42, 0.29, 0.18}, {0.30, 0.20, 0.13}, {0.17, 0.12, 0.09}, {0.12, 0.09, 0.08}, {0.10, 0.08, 0.07}}
local EYES = {{0.24, 0.36, 0.48}, {0.30, 0.38, 0.30}, {0.28, 0.18, 0.10}, {0.20, 0.12, 0.08}, {0.17, 0.10, 0.07}, {0.15, 0.09, 0.06}}
local CLOTHS = {
  {0.93, 0.93, 0.90}, {0.95, 0.85, 0.45}, {0.40, 0.62, 0.78}, {0.52, 0.70, 0.50}, {0.88, 0.55, 0.50}, {0.64, 0.54, 0.76}, {0.35, 0.42, 0.58},
  {0.92, 0.66, 0.38}, {0.42, 0.66, 0.64},
}
local BLANKETS = {
  {0.56, 0.68, 0.78}, {0.70, 0.78, 0.68}, {0.82, 0.80, 0.72}, {0.62, 0.60, 0.72}, {0.42, 0.52, 0.58}, {0.76, 0.82, 0.86}, {0.52, 0.64, 0.58},
  {0.80, 0.72, 0.76}, {0.36, 0.44, 0.52}, {0.66, 0.72, 0.60},
}
--- What is worn: which parts of the body cloth covers.
look.OUTFITS = {
  {name = "vest", trunk = true},
  {name = "bodysuit", trunk = true, sleeves = 0.5},
  {name = "sleepsuit", trunk = true, sleeves = 2, legs = 2},
  {name = "shirt and leggings", trunk = true, sleeves = 0.5, legs = 2, second = true},
  {name = "romper", trunk = true, sleeves = 2, legs = 1},
}

local TRUNK, UPPER_ARM, FOREARM, HAND, THIGH, SHANK, FOOT, HEAD = 0, 1, 2, 3, 4, 5, 6, 7
local function groups(...)
  local mask = 0
  for i = 1, select("#", ...) do mask = bit.bor(mask, bit.lshift(1, (select(i, ...)))) end
  return mask
end

local PLAIN, STRIPES, DOTS, CHECKS, WEAVE = 0, 1, 2, 3, 4
local CAPSULE, ELLIPSOID, BOX = 0, 1, 1                -- shapes and regions of media.h

local function tint(c, k, towards)
  return {c[1] + (towards[1] - c[1]) * k, c[2] + (towards[2] - c[2]) * k, c[3] + (towards[3] - c[3]) * k}
end
local function apart(a, b) return math.abs(a[1] - b[1]) + math.abs(a[2] - b[2]) + math.abs(a[3] - b[3]) end

-- The first colour of a shuffled list that differs enough from some others.
local function distinct(rng, list, least, ...)
  local order, best, widest = {}, nil, -1
  for i = 1, #list do order[i] = list[i] end
  rng:shuffle(order)
  for _, colour in ipairs(order) do
    local near = math.huge
    for i = 1, select("#", ...) do near = math.min(near, apart(colour, (select(i, ...)))) end
    if near >= least then return colour end
    if near > widest then best, widest = colour, near end
  end
  return best
end

--- Looks of a sequence.
---@param rng table a stream of dice
---@param index integer number of the sequence: outfits and skins take turns
---@param offset integer where the turns begin
---@return table look
function look.new(rng, index, offset)
  local l = {}
  local s = (index * 5 + offset) % #SKINS + 1
  l.skin = tint(SKINS[s], rng:uniform(0, 0.12), {0.95, 0.70, 0.60})
  l.hair, l.hair_amount, l.hair_line = HAIR[s], rng:uniform(0.55, 0.95), rng:uniform(-0.012, 0.012)
  l.eyes = EYES[s]
  l.lips = tint(l.skin, 0.55, {0.72, 0.28, 0.28})
  l.outfit = look.OUTFITS[(index * 3 + offset) % #look.OUTFITS + 1]
  l.blanket = distinct(rng, BLANKETS, 0.42, l.skin)
  l.cloth = distinct(rng, CLOTHS, 0.5, l.skin, l.blanket)
  l.trousers = l.outfit.second and distinct(rng, CLOTHS, 0.45, l.cloth, l.blanket, l.skin) or l.cloth
  l.diaper = {0.93, 0.93, 0.94}
  local bright = {1, 1, 1}
  l.cloth_pattern = {kind = ({PLAIN, STRIPES, DOTS, STRIPES})[rng:pick(4)], period = rng:uniform(0.035, 0.055), angle = rng:uniform() < 0.5 and 0 or math.pi / 2,
    second = tint(l.cloth, 0.45, bright)}
  l.blanket_pattern = {kind = ({WEAVE, CHECKS, DOTS, STRIPES, WEAVE})[rng:pick(5)], period = rng:uniform(0.08, 0.16), angle = rng:uniform(0, math.pi),
    second = tint(l.blanket, rng:uniform(0.12, 0.3), rng:uniform() < 0.6 and bright or {0.3, 0.3, 0.4})}
  local around, high = rng:uniform(-2.6, -0.5), math.rad(rng:uniform(54, 72))
  l.light = {math.cos(around) * math.cos(high), math.sin(around) * math.cos(high), math.sin(high)}
  local warm = rng:uniform(-0.05, 0.06)
  local strong, fill = rng:uniform(0.5, 0.6), rng:uniform(0.5, 0.58)
  l.sun = {strong * (1 + warm), strong, strong * (1 - warm)}
  l.sky = {fill * (1 - 0.4 * warm), fill, fill * (1 + 0.5 * warm)}
  l.softness, l.folds = rng:uniform(0.10, 0.22), rng:uniform(0.010, 0.028)
  l.exposure, l.vignette, l.noise = rng:uniform(0.92, 1.04), rng:uniform(0.05, 0.18), rng:uniform(0.5, 0.9)
  l.texture = rng:bits() % 4294967296
  l.blinks = rng:uniform(2, 4.5)                       -- seconds between blinks
  l.blink_phase = rng:uniform(0, 4)
  return l
end

local function set3(field, a, b, c) field[0], field[1], field[2] = a, b, c end
local function set_colour(field, c) field[0], field[1], field[2] = c[1], c[2], c[3] end
local function set_axes(field, axes)
  for i = 0, 8 do field[i] = axes[i] end
end
local function set_pattern(field, p)
  if not p then field.kind = PLAIN return end
  field.kind, field.period, field.angle = p.kind, p.period, p.angle
  set_colour(field.second, p.second)
end

-- Writes shapes and paint one after the other into a scene's arrays.
local Writer = {}
Writer.__index = Writer

function Writer:primitive(shape, part, group, colour, gloss, blend)
  local p = self.primitives[self.count]
  self.count = self.count + 1
  p.shape, p.part, p.group, p.gloss, p.blend = shape, part, group, gloss, blend
  set_colour(p.colour, colour)
  return p
end

function Writer:capsule(part, group, colour, gloss, blend, j, from, to, r1, r2)
  local p = self:primitive(CAPSULE, part, group, colour, gloss, blend)
  set3(p.a, j[3 * from], j[3 * from + 1], j[3 * from + 2])
  set3(p.b, j[3 * to], j[3 * to + 1], j[3 * to + 2])
  p.radius[0], p.radius[1] = r1, r2
  return p
end

-- An ellipsoid at (x, y, z) of a frame (origin o, axes a).
function Writer:ellipsoid(part, group, colour, gloss, blend, o, a, x, y, z, rx, ry, rz)
  local p = self:primitive(ELLIPSOID, part, group, colour, gloss, blend)
  for k = 0, 2 do p.a[k] = o[k] + a[k] * x + a[3 + k] * y + a[6 + k] * z end
  set3(p.b, rx, ry, rz)
  set_axes(p.axes, a)
  return p
end

function Writer:paint(region, mask, colour, gloss, soft, opacity, o, a, x, y, z, rx, ry, rz, pattern)
  local p = self.paints[self.painted]
  self.painted = self.painted + 1
  p.region, p.groups, p.gloss, p.soft, p.opacity = region, mask, gloss, soft, opacity
  for k = 0, 2 do p.centre[k] = o[k] + a[k] * x + a[3 + k] * y + a[6 + k] * z end
  set3(p.radius, rx, ry, rz)
  set_axes(p.axes, a)
  set_colour(p.colour, colour)
  set_pattern(p.pattern, pattern)
  return p
end

local LIMBS = {                                        -- part of the far segment, joints from root to tip
  {part = 1, 17, 19, 21, 23}, {part = 2, 16, 18, 20, 22}, {part = 3, leg = true, 2, 5, 8, 11}, {part = 4, leg = true, 1, 4, 7, 10},
}

local function point(joints, i) return joints + 3 * i end

local function shape_trunk(w, l, b, pose)
  local j, o, a, f = pose.joints, point(pose.joints, 6), pose.trunk, b.plump
  local worn = l.outfit.trunk and l.cloth or l.skin
  local gloss = l.outfit.trunk and 0 or 0.05
  w:ellipsoid(0, TRUNK, worn, gloss, 0.06, o, a, 0, -0.065, 0, 0.112 * f, 0.15, 0.083)
  w:ellipsoid(0, TRUNK, worn, gloss, 0.06, o, a, 0, 0.07, 0.004, 0.112 * f, 0.12, 0.087)
  w:ellipsoid(0, TRUNK, worn, gloss, 0.05, o, a, 0, 0.165, -0.005, 0.105 * f, 0.075, 0.08)
  local neck = w:capsule(0, TRUNK, l.skin, 0.05, 0.03, j, 12, 15, 0.045, 0.045)
  neck.group = HEAD
  for _, limb in ipairs(LIMBS) do
    if limb.leg then
      w:capsule(0, THIGH, (l.outfit.legs or 0) >= 1 and l.trousers or l.skin, 0.05, 0.05, j, limb[1], limb[2], 0.063 * f, 0.05 * f)
    else
      w:capsule(0, UPPER_ARM, (l.outfit.sleeves or 0) >= 1 and l.cloth or l.skin, 0.05, 0.04, j, limb[1], limb[2], 0.041 * f, 0.033 * f)
    end
  end
end

local function shape_limbs(w, l, b, pose)
  local j, f = pose.joints, b.plump
  for _, limb in ipairs(LIMBS) do
    local _, mid, fin, tip = limb[1], limb[2], limb[3], limb[4]
    if limb.leg then
      w:capsule(limb.part, SHANK, (l.outfit.legs or 0) >= 2 and l.trousers or l.skin, 0.05, 0.02, j, mid, fin, 0.042 * f, 0.03 * f)
      w:capsule(limb.part, FOOT, l.skin, 0.05, 0.015, j, fin, tip, 0.028, 0.021)
    else
      w:capsule(limb.part, FOREARM, (l.outfit.sleeves or 0) >= 2 and l.cloth or l.skin, 0.05, 0.02, j, mid, fin, 0.033 * f, 0.023)
      local hand = w:capsule(limb.part, HAND, l.skin, 0.05, 0.012, j, fin, tip, 0.021, 0.026)
      -- the thumb, on the side of the head
      local s = limb.part == 2 and 1 or -1
      local dx, dy = hand.b[0] - hand.a[0], hand.b[1] - hand.a[1]
      local thumb = w:capsule(limb.part, HAND, l.skin, 0.05, 0.01, j, fin, tip, 0.011, 0.009)
      set3(thumb.a, hand.a[0] + 0.4 * dx, hand.a[1] + 0.4 * dy, hand.a[2] + 0.008)
      set3(thumb.b, hand.a[0] + 0.85 * dx + s * 0.65 * dy, hand.a[1] + 0.85 * dy - s * 0.65 * dx, hand.b[2] + 0.012)
    end
  end
end

local function shape_head(w, l, b, pose)
  local o, a, h = pose.skull, pose.head_axes, b.head
  local function part(blend, x, y, z, rx, ry, rz) w:ellipsoid(5, HEAD, l.skin, 0.06, blend, o, a, x * h, y * h, z * h, rx * h, ry * h, rz * h) end
  part(0.02, 0, -0.012, 0, 0.093, 0.108, 0.098)
  part(0.03, 0, 0.052, 0.03, 0.062, 0.054, 0.06)
  part(0.02, 0.034, 0.042, 0.052, 0.034, 0.032, 0.034)
  part(0.02, -0.034, 0.042, 0.052, 0.034, 0.032, 0.034)
  part(0.012, 0, 0.026, 0.1, 0.0125, 0.014, 0.014)
  part(0.01, 0.09, 0.012, -0.004, 0.014, 0.028, 0.02)
  part(0.01, -0.09, 0.012, -0.004, 0.014, 0.028, 0.02)
end

local WHITE, BLACK = {0.97, 0.97, 0.97}, {0.06, 0.04, 0.04}

local function paint_clothes(w, l, pose)
  local o, a, j = point(pose.joints, 6), pose.trunk, pose.joints
  local up = {[0] = 1, 0, 0, 0, 1, 0, 0, 0, 1}
  local mask = groups(TRUNK)
  if (l.outfit.sleeves or 0) >= 1 then mask = bit.bor(mask, groups(UPPER_ARM)) end
  if (l.outfit.sleeves or 0) >= 2 then mask = bit.bor(mask, groups(FOREARM)) end
  if (l.outfit.legs or 0) >= 1 and not l.outfit.second then mask = bit.bor(mask, groups(THIGH)) end
  if (l.outfit.legs or 0) >= 2 and not l.outfit.second then mask = bit.bor(mask, groups(SHANK)) end
  if l.cloth_pattern.kind ~= PLAIN then w:paint(BOX, mask, l.cloth, 0, 0, 1, o, a, 0, 0, 0, 1, 1, 1, l.cloth_pattern) end
  if l.outfit.second then w:paint(BOX, groups(TRUNK), l.trousers, 0, 0, 1, o, a, 0, 0.2, 0, 0.3, 0.075, 0.3) end
  if l.outfit.sleeves == 0.5 then
    for _, limb in ipairs({LIMBS[1], LIMBS[2]}) do
      w:paint(0, groups(UPPER_ARM), l.cloth, 0, 0, 1, point(j, limb[1]), up, 0, 0, 0, 0.082, 0.082, 0.12, l.cloth_pattern)
    end
  end
  if not l.outfit.legs and l.outfit.sleeves then      -- the suit ends in a curve around each thigh
    w:paint(0, groups(THIGH), l.cloth, 0, 0, 1, o, a, 0, 0.14, 0, 0.1, 0.095, 0.3, l.cloth_pattern)
  end
  w:paint(0, groups(TRUNK, UPPER_ARM), l.skin, 0.05, 0, 1, o, a, 0, -0.215, 0.05, 0.06, 0.048, 0.2)
  for k = 0, 2 do                                      -- buttons
    w:paint(0, groups(TRUNK), tint(l.cloth, 0.6, WHITE), 0.2, 0, 1, o, a, 0, -0.12 + 0.045 * k, 0.085, 0.006, 0.006, 0.05)
  end
  if l.outfit.name == "vest" then                      -- it ends above a diaper
    w:paint(BOX, groups(TRUNK), l.diaper, 0.02, 0, 1, o, a, 0, 0.205, 0, 0.3, 0.085, 0.3)
    w:paint(0, groups(THIGH), l.diaper, 0.02, 0, 1, o, a, 0, 0.165, 0, 0.11, 0.085, 0.3)
    w:paint(BOX, groups(TRUNK), tint(l.cloth, 0.5, BLACK), 0, 0, 0.35, o, a, 0, 0.118, 0.1, 0.3, 0.004, 0.15)
  end
end

-- Knees and elbows: rosy on skin, a fold in cloth.
local function paint_bends(w, l, pose)
  local up = {[0] = 1, 0, 0, 0, 1, 0, 0, 0, 1}
  local rosy = tint(l.skin, 0.3, {0.75, 0.30, 0.24})
  for _, limb in ipairs(LIMBS) do
    local far = limb.leg and (l.outfit.legs or 0) >= 2 or not limb.leg and (l.outfit.sleeves or 0) >= 2
    local r, near = limb.leg and 0.05 or 0.036, limb.leg and groups(THIGH, SHANK) or groups(UPPER_ARM, FOREARM)
    if limb.leg and l.outfit.legs == 1 then near = groups(SHANK) end
    local colour = far and tint(limb.leg and l.trousers or l.cloth, 0.3, BLACK) or rosy
    w:paint(0, near, colour, 0, 1, 0.45, point(pose.joints, limb[2]), up, 0, 0, r, r, r, r)
  end
end

local function paint_head(w, l, b, pose, shut)
  local o, a, h, mask = pose.skull, pose.head_axes, b.head, groups(HEAD)
  local function blob(colour, gloss, soft, opacity, x, y, z, rx, ry, rz)
    w:paint(0, mask, colour, gloss, soft, opacity, o, a, x * h, y * h, z * h, rx * h, ry * h, rz * h)
  end
  local rosy = tint(l.skin, 0.5, {0.92, 0.45, 0.42})
  local crease = tint(l.skin, 0.45, {0.30, 0.14, 0.10})
  blob(l.hair, 0.1, 0.3, l.hair_amount, 0, -0.105 + l.hair_line, -0.03, 0.125, 0.078, 0.13)
  blob(l.hair, 0.1, 0.3, l.hair_amount, 0, -0.02, -0.09, 0.14, 0.14, 0.075)
  for s = -1, 1, 2 do
    local x = s * 0.037
    blob(rosy, 0.05, 1, 0.55, s * 0.05, 0.042, 0.08, 0.03, 0.024, 0.05)
    if shut then
      blob(crease, 0, 0.5, 0.9, x, 0.006, 0.09, 0.02, 0.0035, 0.05)
    else
      blob(crease, 0, 0.4, 0.8, x, -0.002, 0.09, 0.0215, 0.0145, 0.05)
      blob({0.93, 0.92, 0.90}, 0.3, 0.1, 1, x, 0.0005, 0.09, 0.0185, 0.0122, 0.05)
      blob(l.eyes, 0.4, 0.1, 1, x, 0.0005, 0.09, 0.0128, 0.0122, 0.05)
      blob(BLACK, 0.5, 0.1, 1, x, 0.0005, 0.09, 0.0066, 0.0066, 0.05)
      blob(WHITE, 0, 0.2, 1, x - 0.004, -0.004, 0.09, 0.0032, 0.0032, 0.05)
    end
    blob(l.hair, 0, 0.7, 0.6, s * 0.038, -0.027, 0.085, 0.021, 0.005, 0.05)
    blob(crease, 0, 0.6, 0.6, s * 0.0055, 0.037, 0.108, 0.0035, 0.0026, 0.03)
  end
  blob(l.lips, 0.15, 0.35, 0.95, 0, 0.0645, 0.085, 0.022, 0.006, 0.05)
  blob(l.lips, 0.2, 0.4, 0.85, 0, 0.0705, 0.085, 0.0155, 0.0065, 0.05)
  for s = -1, 1, 2 do blob(crease, 0, 0.6, 0.6, s * 0.0205, 0.0615, 0.085, 0.0042, 0.003, 0.05) end
  blob(crease, 0, 0.5, 0.75, 0, 0.0655, 0.085, 0.018, 0.0019, 0.05)
end

--- Most primitives and paints that a pose takes.
look.PRIMITIVES, look.PAINTS = 40, 48

--- Fills a scene (struct lbr_scene of media.h) with a pose.
---@param scene ffi.cdata* lbr_scene, written; its arrays must hold look.PRIMITIVES and look.PAINTS
---@param primitives ffi.cdata* lbr_primitive[]
---@param paints ffi.cdata* lbr_paint[]
---@param l table look
---@param b table body
---@param pose table from infant_body.pose
---@param camera table from infant_body.camera
---@param seconds number time, for blinks
---@param seed integer of the sensor's noise
function look.fill(scene, primitives, paints, l, b, pose, camera, seconds, seed)
  local w = setmetatable({primitives = primitives, paints = paints, count = 0, painted = 0}, Writer)
  shape_trunk(w, l, b, pose)
  shape_limbs(w, l, b, pose)
  shape_head(w, l, b, pose)
  paint_clothes(w, l, pose)
  paint_bends(w, l, pose)
  paint_head(w, l, b, pose, (seconds + l.blink_phase) % l.blinks < 0.16)
  scene.primitives, scene.primitive_count = primitives, w.count
  scene.paints, scene.paint_count = paints, w.painted
  set3(scene.camera, 0, 0, camera.distance)
  set3(scene.axes, 1, 0, 0)
  scene.axes[3], scene.axes[4], scene.axes[5], scene.axes[6], scene.axes[7], scene.axes[8] = 0, 1, 0, 0, 0, -1
  scene.focal, scene.centre[0], scene.centre[1] = camera.focal, camera.cx, camera.cy
  set_colour(scene.light, l.light)
  set_colour(scene.sun, l.sun)
  set_colour(scene.sky, l.sky)
  set_colour(scene.colour, l.blanket)
  set_pattern(scene.pattern, l.blanket_pattern)
  scene.softness, scene.floor, scene.folds, scene.unit = l.softness, body.FLOOR, l.folds, 0.04
  scene.exposure, scene.gamma, scene.vignette, scene.noise = l.exposure, 1.1, l.vignette, l.noise
  scene.seed, scene.texture = seed, l.texture
end

--- Room for n scenes of an infant.
---@param n integer
---@return table room scenes lbr_scene[n], primitives, paints
function look.room(n)
  return {
    scenes = ffi.new("lbr_scene[?]", n), count = n,
    primitives = ffi.new("lbr_primitive[?]", n * look.PRIMITIVES), paints = ffi.new("lbr_paint[?]", n * look.PAINTS),
  }
end

return look
