-- Specs of matching rendered movement to the speed that BlazePose measures; the networks run for real here.
require "libration"
local infant = require "libration.data.infant"
local infant_match = require "libration.data.infant_match"
local landmarks = require "libration.data.landmarks"
local files = require "libration.files"
local json = require "libration.formats.json"
local motion = require "libration.motion"

local set = {sequences = 2, frames = 12, width = 320, height = 240, seed = 4, abnormal = {[2] = "tremor"}}
local settings = landmarks.settings {model = "full", precision = "f32", smooth = "one-euro", person = "best", fps = 0, cache = false, threads = 0, weights = ""}

local function picture(folder) return files.sha256(files.join(folder, "02", "rgb", "syn_00006.png")) end

describe("infant speed by landmarks", function()
  it("comes within 5 % of the normals' median, is kept, and is the same after a run that was cut short #slow", function()
    if not pcall(require("libration.weights").path, "pose_landmark_full") then return pending "needs the networks' weights: make models" end
    local folder = os.tmpname()
    os.remove(folder)
    local function apply()
      local said = {}
      infant_match.apply(folder, infant.write(folder, set), set, settings, function(row, measured, target, renders) said = {row.id, measured, target, renders} end)
      return said
    end
    -- a tremor of twice the speed: the plan's target stands in the row
    local rows = infant.write(folder, set)
    rows[2].target = 2 * rows[2].target
    files.remove(files.join(folder, "02"))
    infant.sequence(rows[2], set):write(folder)
    local said
    infant_match.apply(folder, rows, set, settings, function(row, measured, target, renders) said = {row.id, measured, target, renders} end)
    assert.equal("02", said[1])
    assert.is_near(1, said[2] / said[3], infant_match.TOLERANCE)
    assert.is_true(said[4] > 1)
    local note = json.decode(files.read(files.join(folder, ".match.json")))
    assert.is_near(said[2], note["02"].measured, 1e-9)
    local before = picture(folder)
    assert.equal(said[4], apply()[4])
    assert.equal(before, picture(folder))

    -- from the plan, whole; then as if killed at a later try
    files.remove(folder)
    apply()
    local whole = picture(folder)
    files.remove(files.join(folder, ".match.json"))
    files.write(files.join(folder, ".02.matching"), "")
    assert.is_true(apply()[4] >= 1)
    assert.equal(whole, picture(folder))
    assert.is_false(files.exists(files.join(folder, ".02.matching")))
    files.remove(folder)
  end)

  it("draws another movement where none of a draw's speeds comes near, and keeps the nearest of all #slow", function()
    if not pcall(require("libration.weights").path, "pose_landmark_full") then return pending "needs the networks' weights: make models" end
    local tolerance, tries, draws = infant_match.TOLERANCE, infant_match.TRIES, infant_match.DRAWS
    finally(function() infant_match.TOLERANCE, infant_match.TRIES, infant_match.DRAWS = tolerance, tries, draws end)
    infant_match.TOLERANCE, infant_match.TRIES, infant_match.DRAWS = 1e-9, 1, 3
    local folder, said = os.tmpname(), nil
    os.remove(folder)
    local rows = infant.write(folder, set)
    local first = picture(folder)
    infant_match.apply(folder, rows, set, settings, function(_, measured, target, renders) said = {off = math.abs(math.log(measured / target)), renders = renders} end)
    assert.equal(3, said.renders)
    -- each draw by itself: other pictures of the same infant, and none of them nearer than what was kept
    local nearest, kept = math.huge, picture(folder)
    local seen = {}
    for draw = 1, 3 do
      local row = infant.plan(set)[2]
      row.draw = draw > 1 and draw or nil
      files.remove(files.join(folder, "02"))
      infant.sequence(row, set):write(folder)
      local normal = landmarks.sequence(files.join(folder, "01", "rgb"), "01", settings)
      local sequence = landmarks.sequence(files.join(folder, "02", "rgb"), "02", settings)
      local speed = {}
      for i, s in ipairs {normal, sequence} do speed[i] = motion.normalise.mean_speed((motion.track(s, motion.options {}))) end
      seen[picture(folder)] = math.abs(math.log(speed[2] / speed[1]))
      nearest = math.min(nearest, seen[picture(folder)])
    end
    assert.is_near(nearest, said.off, 1e-9)
    assert.is_near(nearest, seen[kept], 1e-9)
    assert.is_truthy(seen[first])
    local n = 0
    for _ in pairs(seen) do n = n + 1 end
    assert.equal(3, n)
    files.remove(folder)
  end)
end)
