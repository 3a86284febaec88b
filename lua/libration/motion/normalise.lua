-- Takes position, size and turning of the body out of a track: root, torso length, rotation. Fits nothing to other tracks.

local ffi = require "ffi"
local body = require "libration.motion.body"
local statistics = require "libration.motion.statistics"

local normalise = {}

local function need(track, role)
  local at = track.roles[role]
  if not at then
    error(("sequence %s: the joints used have no %s; want shoulders and hips among them"):format(tostring(track.id), role), 4)
  end
  return at - 1
end

-- The torso's upper end: the neck, or the middle of the shoulders where there is none.
local function torso(track)
  local J, x = track.joints, track.x
  local lh, rh = need(track, "left_hip"), need(track, "right_hip")
  local neck = track.roles.neck and track.roles.neck - 1
  local ls, rs
  if not neck then ls, rs = need(track, "left_shoulder"), need(track, "right_shoulder") end
  return function(t)
    local o = t * J * 2
    local nx, ny
    if neck then
      nx, ny = x[o + 2 * neck], x[o + 2 * neck + 1]
    else
      nx, ny = (x[o + 2 * ls] + x[o + 2 * rs]) / 2, (x[o + 2 * ls + 1] + x[o + 2 * rs + 1]) / 2
    end
    return nx - (x[o + 2 * rh] + x[o + 2 * lh]) / 2, ny - (x[o + 2 * rh + 1] + x[o + 2 * lh + 1]) / 2
  end
end

--- Median length from the middle of the hips to the neck (or the middle of the shoulders) over the frames that show them.
---@param track Track
---@return number pixels
---@return number[] ux, number[] uy the vector, frame by frame, where it is seen
function normalise.torso_length(track)
  local up = torso(track)
  local lengths, ux, uy = {}, {}, {}
  for t = 0, track.frames - 1 do
    local u, v = up(t)
    if u == u and v == v then
      lengths[#lengths + 1] = math.sqrt(u * u + v * v)
      ux[#ux + 1], uy[#uy + 1] = u, v
    end
  end
  if #lengths == 0 then
    error(("sequence %s: no frame shows both shoulders and hips"):format(tostring(track.id)), 2)
  end
  local length = statistics.median(lengths)
  if length <= 0 then error(("sequence %s: the torso has no length"):format(tostring(track.id)), 2) end
  return length, ux, uy
end

--- Normalises a track in place. By default: each frame minus the mean of
--- shoulders and hips, divided by the sequence's median torso length, not rotated.
--- A frame without all four root joints becomes missing as a whole when the root is "torso".
---@param track Track changed in place
---@param options table? {root: "torso"|"picture", scale: "torso"|number pixels, rotation: "none"|"sequence"|"frame"}
---@return Track track x now in torso lengths (or in units of `scale`)
function normalise.apply(track, options)
  options = options or {}
  local root, scale, rotation = options.root or "torso", options.scale or "torso", options.rotation or "none"
  local T, J, x = track.frames, track.joints, track.x
  local nan = 0 / 0
  if root ~= "torso" and root ~= "picture" then error(("normalise: root is %q, want torso or picture"):format(tostring(root)), 2) end
  if rotation ~= "none" and rotation ~= "sequence" and rotation ~= "frame" then
    error(("normalise: rotation is %q, want none, sequence or frame"):format(tostring(rotation)), 2)
  end
  local length, ux, uy
  if scale == "torso" or rotation ~= "none" then length, ux, uy = normalise.torso_length(track) end
  track.torso_length = length
  if scale ~= "torso" then
    length = tonumber(scale)
    if not (length and length > 0) then error(("normalise: scale is %q, want torso or a number of pixels"):format(tostring(scale)), 2) end
  end
  local mx, my
  if rotation == "sequence" then mx, my = statistics.median(ux), statistics.median(uy) end
  local up = rotation == "frame" and torso(track)
  local joints = {}
  if root == "torso" then
    for i, role in ipairs(body.ROOT) do joints[i] = need(track, role) end
  elseif not (track.width and track.height) then
    error(("sequence %s: root picture needs --size WIDTHxHEIGHT"):format(tostring(track.id)), 2)
  end
  for t = 0, T - 1 do
    local o = t * J * 2
    local cx, cy = 0, 0
    if root == "torso" then
      for i = 1, #joints do cx, cy = cx + x[o + 2 * joints[i]], cy + x[o + 2 * joints[i] + 1] end
      cx, cy = cx / #joints, cy / #joints
    else
      cx, cy = track.width / 2, track.height / 2
    end
    local c, s = 1, 0
    if rotation ~= "none" then
      local u, v = mx, my
      if up then u, v = up(t) end
      local a = math.atan2(u, -v) -- the torso axis turns to (0, -1)
      c, s = math.cos(a), math.sin(a)
    end
    for j = 0, J - 1 do
      local at = o + 2 * j
      local a, b = x[at] - cx, x[at + 1] - cy
      if a == a and b == b then
        x[at], x[at + 1] = (a * c + b * s) / length, (b * c - a * s) / length
      else
        x[at], x[at + 1] = nan, nan
      end
    end
  end
  track.unit = scale == "torso" and "torso lengths" or "units"
  return track
end

--- Mean joint speed of head and limbs over the frames that show them.
---@param track Track normalised
---@param from integer? first frame from 0
---@param count integer? frames
---@return number torso lengths per second; NaN where nothing is seen in two neighbouring frames
function normalise.mean_speed(track, from, count)
  local x, J = track.x, track.joints
  from = from or 0
  local last = count and from + count - 1 or track.frames - 1
  local sum, n = 0, 0
  for _, role in ipairs(body.MOVING) do
    local j = track.roles[role]
    if j then
      for t = from + 1, last do
        local a, b = (t * J + j - 1) * 2, ((t - 1) * J + j - 1) * 2
        local dx, dy = x[a] - x[b], x[a + 1] - x[b + 1]
        local v = math.sqrt(dx * dx + dy * dy)
        if v == v then sum, n = sum + v, n + 1 end
      end
    end
  end
  return sum / n * track.fps
end

--- Moves mirrored: x negated and left and right exchanged, for augmentation.
---@param track Track normalised
---@return Track new
function normalise.mirror(track)
  local T, J = track.frames, track.joints
  local swap = {}
  for j, name in ipairs(track.names) do
    local other = name:find("left", 1, true) and name:gsub("left", "right", 1) or name:gsub("right", "left", 1)
    swap[j] = track.roles[other] or j
  end
  local new = {}
  for k, v in pairs(track) do new[k] = v end
  new.x = ffi.new("double[?]", T * J * 2)
  for t = 0, T - 1 do
    for j = 0, J - 1 do
      local from = (t * J + swap[j + 1] - 1) * 2
      new.x[(t * J + j) * 2], new.x[(t * J + j) * 2 + 1] = -track.x[from], track.x[from + 1]
    end
  end
  return new
end

--- Turns a track about the root, for augmentation.
---@param track Track normalised
---@param angle number radians
---@return Track new
function normalise.turn(track, angle)
  local new = {}
  for k, v in pairs(track) do new[k] = v end
  local n = track.frames * track.joints
  new.x = ffi.new("double[?]", n * 2)
  local c, s = math.cos(angle), math.sin(angle)
  for i = 0, n - 1 do
    local a, b = track.x[2 * i], track.x[2 * i + 1]
    new.x[2 * i], new.x[2 * i + 1] = a * c - b * s, a * s + b * c
  end
  return new
end

return normalise
