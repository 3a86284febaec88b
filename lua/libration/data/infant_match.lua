-- Matches the speed of rendered abnormal sequences to the normals' as BlazePose measures it: finds the landmarks and renders anew until they agree.
-- infant.lua matches by a simulated landmarker, which is right on average but 10 to 24 % off for a single sequence.
local files = require "libration.files"
local json = require "libration.formats.json"
local motion = require "libration.motion"
local infant = require "libration.data.infant"
local landmarks = require "libration.data.landmarks"

local infant_match = {}

--- How near the measured speed must come, how often a movement is rendered at most, and how many movements are drawn at most where none of these comes near: a
--- body in whom the landmarker loses a limb jumps past every wanted speed.
infant_match.TOLERANCE, infant_match.TRIES, infant_match.DRAWS = 0.05, 7, 4
-- A landmarker that swaps left and right measures several times the speed: no step may believe more than this.
local STEP = 1.3
-- Tries that step by what is missing; where those overshot, the next halve what lies between the nearest below and above.
local STEPS = 2

local function measured(folder, row, settings)
  local sequence = landmarks.sequence(files.join(folder, row.id, "rgb"), row.id, settings)
  return motion.normalise.mean_speed((motion.track(sequence, motion.options {})))
end

--- Renders abnormal sequences of a data set anew with more or less movement until their measured mean joint speed lies within 5 % of the median of the
--- normals'; a sequence that does not get there is drawn again. What was done stands in .match.json, so that a run that was cut short goes on. The nearest try
--- stays where none comes within 5 %.
---@param folder string of a data set that `infant.write` wrote
---@param rows table[] that it returned
---@param options table frames, width, height, seed as given to `infant.write`
---@param settings table as of `landmarks.settings`
---@param done? fun(row: table, measured: number, target: number, renders: integer) after each sequence
function infant_match.apply(folder, rows, options, settings, done)
  local lock, held = files.lock(folder)
  if not lock then error(held, 0) end
  local note, normals = files.join(folder, ".match.json"), {}
  local known = files.read(note)
  known = known and json.decode(known) or {}
  for _, row in ipairs(rows) do if row.label == 0 then normals[#normals + 1] = measured(folder, row, settings) end end
  if #normals == 0 then error("no normal sequence whose speed could be matched", 0) end
  local target = motion.statistics.median(normals)
  local function render(row)
    files.remove(files.join(folder, row.id))
    infant.sequence(row, options):write(folder)
  end
  for _, row in ipairs(rows) do
    if row.label == 1 and not known[row.id] then
      local first, renders, best = row.target, 0, nil
      -- what lies there may stem from a run that was killed at a later try
      if files.exists(files.join(folder, "." .. row.id .. ".matching")) then render(row) end
      files.write(files.join(folder, "." .. row.id .. ".matching"), "")
      for draw = 1, infant_match.DRAWS do
        if draw > 1 then
          row.draw, row.target = draw, first
          render(row)
        end
        local below, above = 0, math.huge
        for n = 1, infant_match.TRIES do
          local speed = measured(folder, row, settings)
          local off = math.abs(math.log(speed / target))
          renders = renders + 1
          if not best or off < best.off then best = {draw = row.draw, target = row.target, speed = speed, off = off} end
          best.near = math.abs(best.speed / target - 1) <= infant_match.TOLERANCE
          if best.near or n == infant_match.TRIES then break end
          if speed < target then below = math.max(below, row.target) else above = math.min(above, row.target) end
          local between = n > STEPS and below > 0 and below < above and above < math.huge
          row.target = between and math.sqrt(below * above) or row.target * math.max(1 / STEP, math.min(STEP, target / speed))
          render(row)
        end
        if best.near then break end
      end
      if best.target ~= row.target or best.draw ~= row.draw then
        row.target, row.draw = best.target, best.draw
        render(row)
      end
      known[row.id] = {measured = best.speed, target = target, renders = renders}
      files.write(note, json.encode(known) .. "\n")
      files.remove(files.join(folder, "." .. row.id .. ".matching"))
    end
    if known[row.id] and done then done(row, known[row.id].measured, known[row.id].target, known[row.id].renders) end
  end
  lock:release()
end

return infant_match
