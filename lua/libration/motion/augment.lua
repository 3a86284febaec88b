-- Copies of normalised tracks for training: mirrored, or mirrored and turned. Deterministic: a seed and a number give the same angles everywhere.

local normalise = require "libration.motion.normalise"

local augment = {}

-- Largest angle of a turned copy, radians, and turned copies of a track.
local REACH, TURNS = math.pi / 6, 2

--- Copies of a track, without the track itself.
---@param track Track normalised
---@param kind string "none"; "mirror": the mirror image; "turn": that and two turns by at most 30 degrees of each
---@param seed integer
---@param number integer place of the track in the training list
---@return Track[]
function augment.copies(track, kind, seed, number)
  if kind == "none" then return {} end
  local both = { track, normalise.mirror(track) }
  local list = { both[2] }
  for k, copy in ipairs(kind == "turn" and both or {}) do
    for turn = 1, TURNS do
      local u = (seed * 7919 + number * 104729 + k * 1299709 + turn * 15485863) * 16807 % 2147483647 / 2147483647
      list[#list + 1] = normalise.turn(copy, (2 * u - 1) * REACH)
    end
  end
  return list
end

return augment
