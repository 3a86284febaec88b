-- Specs of the embedded data set: repeatable, matched in speed, exact joints, whole folders, refusals.
local ffi = require "ffi"
local data = require "libration.data"
local dice = require "libration.data.dice"
local body = require "libration.data.infant_body"
local files = require "libration.files"
local movement = require "libration.data.infant_movement"
local infant = data.infant


describe("dice", function()
  it("repeat by seed and purpose, uniform mean .5 and normal deviation 1 within .03", function()
    local a, b, c = dice.new(7, 1, 2), dice.new(7, 1, 2), dice.new(7, 2, 1)
    local sum, square, other = 0, 0, 0
    for _ = 1, 5000 do
      local u = a:uniform()
      assert.equal(u, b:uniform())
      if u ~= c:uniform() then other = other + 1 end
      local n = a:normal()
      b:normal()
      c:normal()
      sum, square = sum + u, square + n * n
    end
    assert.near(0.5, sum / 5000, 0.015)
    assert.near(1, square / 5000, 0.06)
    assert.is_true(other > 4990)
  end)

  it("keep to the published sfc32 sequence", function()
    local d = setmetatable({a = 0, b = 0, c = 0, n = 1}, getmetatable(dice.new(1)))
    local a, b, c, n = 0ULL, 0ULL, 0ULL, 1ULL
    local mask = 0xffffffffULL
    for _ = 1, 50 do
      local t = (a + b + n) % (mask + 1)
      n = (n + 1) % (mask + 1)
      a = require "bit".bxor(b, b / 512)
      b = (c + c * 8) % (mask + 1)
      c = ((c * 2097152) % (mask + 1) + c / 2048 + t) % (mask + 1)
      assert.equal(tonumber(t), d:bits() % 4294967296)
    end
  end)
end)

describe("infant movement", function()
  it("has drives of about unit variance for every kind", function()
    for _, kind in ipairs(movement.names()) do
      if kind ~= "one-sided" then
        local sum, n = 0, 0
        for seed = 1, 6 do
          for _, d in ipairs(movement.drives(dice.new(seed), kind, 200, 25)) do
            for t = 1, 200 do sum, n = sum + d[t] * d[t], n + 1 end
          end
        end
        assert.is_true(sum / n > 0.6 and sum / n < 2.2, kind .. ": " .. sum / n)
      end
    end
  end)

  it("one-sided keeps one arm and leg still, burst holds and rushes", function()
    local function speed_of(d, t) return math.abs(d[t + 1] - d[t]) end
    local d, side = movement.drives(dice.new(3), "one-sided", 200, 25), {0, 0}
    for i = 1, 12 do
      local l = math.floor((i - 1) / 3) % 2 + 1
      for t = 1, 199 do side[l] = side[l] + speed_of(d[i], t) end
    end
    assert.is_true(math.min(side[1], side[2]) < 0.4 * math.max(side[1], side[2]))
    local function burstiness(kind)
      local sum, square, n = 0, 0, 0
      for seed = 1, 8 do
        local b = movement.drives(dice.new(seed), kind, 200, 25)
        for i = 1, 12 do
          for t = 1, 199 do
            local v = speed_of(b[i], t)
            sum, square, n = sum + v, square + v * v, n + 1
          end
        end
      end
      return math.sqrt(square / n) / (sum / n)
    end
    assert.is_true(burstiness("burst") > 1.4 * burstiness("normal"))
  end)

  it("measures a known speed: one wrist of nine points at 1 torso length a second gives 1/9", function()
    local points, n = {}, movement.POINTS * 2
    local rest = {0, -50, 30, -20, -30, -20, 40, 0, -40, 0, 20, 90, -20, 90, 20, 120, -20, 120, 20, -30, -20, -30, 15, 30, -15, 30}
    for t = 0, 99 do
      for i = 1, n do points[t * n + i] = rest[i] end
      points[t * n + 7] = 40 + 60 * t / 25
    end
    assert.near(1 / 9, movement.speed(points, 100, 25), 1e-9)
  end)

  it("gives every kind the same mean target", function()
    for _, n in ipairs {1, 2, 11} do
      local sum = 0
      for _, v in ipairs(movement.targets(n, 0.6, 0.2)) do sum = sum + v end
      assert.near(0.6, sum / n, 1e-9)
    end
  end)
end)

describe("infant body", function()
  it("keeps its bones' lengths and stays above the blanket in every pose", function()
    local rng = dice.new(5)
    local pose, q = body.new_pose(), {}
    for _ = 1, 20 do
      local b = body.new(rng)
      for _ = 1, 20 do
        for i = 1, movement.ANGLES do q[i] = (i == 14 and 0.2 or 0.7) * rng:normal() end
        local j = body.pose(b, q, pose).joints
        local function length(a, c)
          local x, y, z = j[3 * a] - j[3 * c], j[3 * a + 1] - j[3 * c + 1], j[3 * a + 2] - j[3 * c + 2]
          return math.sqrt(x * x + y * y + z * z)
        end
        assert.near(0.135 * b.length[1], length(17, 19), 1e-9)
        assert.near(0.15 * b.length[8], length(4, 7), 1e-9)
        for i = 0, 24 do assert.is_true(j[3 * i + 2] > body.FLOOR - 0.01, body.JOINTS[i + 1] .. " sinks") end
      end
    end
  end)
end)

describe("infant data set", function()
  -- Measured: nose, elbows, wrists, knees, ankles against the torso's centre, the error of a landmarker added and smoothed as BlazePose smooths, times
  -- what MediaPipe measured of such pictures over that (movement.kinds' `seen`).
  it("matches the measured speed of every kind to the normals' mean within 5 % #slow", function()
    local kinds, all, sums = movement.names(), {[12] = "burst"}, {}
    for i = 3, #kinds do all[10 + i] = kinds[i] end
    local set = {sequences = 10 + #kinds, frames = 200, width = 320, height = 240, seed = 1, abnormal = all}
    for _, row in ipairs(infant.plan(set)) do
      local s = infant.sequence(row, set)
      assert.equal(row.index < 12 and "normal" or all[row.index], s.kind)
      sums[s.kind] = (sums[s.kind] or 0) + s.speed / (row.index < 12 and 11 or 1)
    end
    for _, kind in ipairs(kinds) do assert.near(1, sums[kind] / sums.normal, 0.05, kind) end
  end)

  it("has its joints in the picture, where the pictures show them", function()
    local small = {sequences = 2, frames = 3, width = 161, height = 121, seed = 3}
    local s = infant.sequence(infant.plan(small)[2], small)
    local rgb = s:render(1, 3)
    assert.same({3, 121, 161, 3}, rgb.shape)
    for t = 1, 3 do
      for i, j in ipairs(s:joints(t)) do
        assert.is_true(j[1] > 0 and j[1] < 161 and j[2] > 0 and j[2] < 121, body.JOINTS[i])
        assert.is_true(j[3] > 0.5 and j[3] < 3)
      end
    end
    local text = s:joints_text(2)
    assert.equal(25, select(2, text:gsub("\n", "\n")))
    assert.matches("^%d+%.%d%d%d%d %d+%.%d%d%d%d %d%.%d+ 0\n", text)
  end)

  it("writes whole sequences, goes on where it stopped, and gives the same bytes by seed", function()
    local folder, other = files.temporary_folder(), files.temporary_folder()
    local small = {sequences = 2, frames = 5, width = 96, height = 72, seed = 9, abnormal = {[2] = "tremor"}}
    infant.write(folder, small)
    assert.equal("sequence,label,kind\n01,0,normal\n02,1,tremor\n", files.read(files.join(folder, "labels.csv")))
    local first = files.read(files.join(folder, "02/rgb/syn_00004.png"))
    assert.equal(5, #files.list(files.join(folder, "01/joints_2Ddep")))
    files.remove(files.join(folder, "02"))
    files.mkdirs(files.join(folder, ".02.partial/rgb"))
    local frames = 0
    small.step = function(n) frames = frames + n end
    infant.write(folder, small)
    assert.equal(10, frames)
    assert.is_true(first == files.read(files.join(folder, "02/rgb/syn_00004.png")))
    assert.is_false(files.exists(files.join(folder, ".02.partial")))
    infant.write(other, small)
    assert.is_true(first == files.read(files.join(other, "02/rgb/syn_00004.png")))
    small.seed = 10
    assert.error_matches(function() infant.write(folder, small) end, "rendered with other options")
    local set = assert(data.dataset.open(other))
    assert.equal("01, 02", set:ids())
    files.remove(folder)
    files.remove(other)
  end)

  it("refuses unknown kinds and sequences", function()
    assert.error_matches(function() infant.plan {sequences = 3, seed = 1, abnormal = {[4] = "burst"}} end, "no sequence 4; there are 1 to 3")
    assert.error_matches(function() infant.plan {sequences = 3, seed = 1, abnormal = {[2] = "waltz"}} end, 'no movement "waltz"; there are normal, burst')
  end)

  it("leaves a folder alone that it did not render", function()
    local folder = files.temporary_folder()
    files.mkdirs(files.join(folder, "01/rgb"))
    assert.error_matches(function() infant.write(folder, {sequences = 1, frames = 2}) end, "was not rendered by this")
    files.remove(folder)
  end)

  it("cdata of scenes fits what a body needs", function()
    require "libration.media".library()
    assert.is_true(tonumber(ffi.sizeof("lbr_scene")) < 1024)
  end)
end)
