-- Copies that share no byte: re-encoded, rescaled, brightened, mirrored or cut recordings, told by a perceptual hash of what moves. Knows no splits.

local ffi = require "ffi"
local lr = require "libration"
local core = require "libration.core"
local files = require "libration.files"
local motion = require "libration.motion"

local near = {}

-- A recording is kept as a sample every STEP seconds: a picture of GRID x GRID grey values, or the normalised joints. What is compared is the change
-- over some tenths of a second, so a background that stands still, and the camera it was taken with, say nothing; of pictures also what a change of
-- light or a small turn of the camera explains is taken out.
local VERSION = 1
local STEP = .1
local GRID, PER_CELL = 16, 8  -- samples of a cell: PER_CELL x PER_CELL pixels
local LAG = { picture = 6, joints = 10 }  -- steps
local STILL = { picture = .5, joints = .05 }  -- RMS of a change that is only noise: grey values of 255, torso lengths
local PROBES = 600

--- Two recordings whose movement agrees this well (mean correlation of the changes, moment by moment, at the best shift) are copies. Measured:
--- different recordings reach at most .38, copies of the whole picture at least .91 and landmarks found anew at least .59 (docs/FORMATS.md has the table).
near.LIMIT = .5
--- And no other shift may come near: a light that flickers over one background makes many shifts agree.
near.ABOVE = .15
--- Of less common movement than this nothing is said, unless it is all there is of a recording; then SHORT_LIMIT decides.
near.SECONDS = 3
local SHORT, SHORT_LIMIT = 8, .95

---@class Fingerprint
---@field kind "picture"|"joints"
---@field samples Tensor f32 or f16 [n,D], one every tenth of a second
---@field mirror Tensor? of joints: the samples of the mirrored track
---@field n integer
---@field begin number seconds of the first sample

-- Mean grey of each cell of an RGB picture.
local function cells(frame, out)
  local H, W = frame.shape[1], frame.shape[2]
  local p = ffi.cast("const uint8_t *", frame:ptr())
  local n, at = GRID * PER_CELL, 0
  for gy = 0, GRID - 1 do
    for gx = 0, GRID - 1 do
      local sum = 0
      for y = gy * PER_CELL, gy * PER_CELL + PER_CELL - 1 do
        local row = math.floor((y + .5) * H / n) * W
        for x = gx * PER_CELL, gx * PER_CELL + PER_CELL - 1 do
          local q = p + 3 * (row + math.floor((x + .5) * W / n))
          sum = sum + .299 * q[0] + .587 * q[1] + .114 * q[2]
        end
      end
      out[at] = sum / (PER_CELL * PER_CELL)
      at = at + 1
    end
  end
end

local function gathered()
  local list, D = {}, GRID * GRID
  local function add(frame)
    local row = ffi.new("float[?]", D)
    cells(frame, row)
    list[#list + 1] = row
  end
  local function tensor()
    local t = lr.empty { #list, D }
    local p = t:ptr()
    for i, row in ipairs(list) do ffi.copy(p + (i - 1) * D, row, D * 4) end
    return t:to("f16")
  end
  return add, tensor, list
end

-- Samples of a folder of pictures: only those that are wanted are opened.
local function of_folder(path, fps)
  local media = require "libration.media"
  local names, reason = media.pictures(path)
  if not names then return nil, reason end
  local add, tensor, list = gathered()
  for i = 0, math.floor((#names - 1) / fps / STEP) do
    local picture
    picture, reason = media.read_picture(names[math.floor(i * STEP * fps + .5) + 1])
    if not picture then return nil, reason end
    add(picture)
    lr.free(picture)
    core.poll()
  end
  return { kind = "picture", samples = tensor(), n = #list, begin = 0 }
end

local function of_video(path)
  local source, reason = require "libration.media".open(path)
  if not source then return nil, reason end
  local add, tensor, list = gathered()
  local begin
  local ok, err = pcall(function()
    for frame, time in source:each() do
      begin = begin or time
      if time - begin >= #list * STEP - 1e-4 then add(frame) end
    end
  end)
  source:close()
  if not ok then
    core.poll()
    return nil, err
  end
  if #list == 0 then return nil, path .. ": no frames" end
  return { kind = "picture", samples = tensor(), n = #list, begin = begin }
end

--- Fingerprint of a video or a folder of pictures, remembered in the user's cache folder by content.
---@param path string
---@param options? {fps: number of a folder (25), sha256: string of the content: without it nothing is remembered, cache: boolean}
---@return Fingerprint? fingerprint
---@return string? reason in one line
function near.of_pictures(path, options)
  options = options or {}
  local safetensors = require "libration.formats.safetensors"
  local fps = options.fps and options.fps > 0 and options.fps or 25
  local folder = files.is_folder(path)
  local place
  if options.sha256 and options.cache ~= false then
    place = files.join(files.cache("fingerprints"), ("%s-%d%s.safetensors"):format(options.sha256, VERSION, folder and ("-%g"):format(fps) or ""))
    local tensors, about = nil, nil
    if files.exists(place) then tensors, about = safetensors.load(place) end
    local t, begin = tensors and tensors.samples, tensors and tonumber(about.begin)
    if t and t.dtype == "f16" and #t.shape == 2 and t.shape[1] > 0 and t.shape[2] == GRID * GRID and begin and begin - begin == 0 then
      return { kind = "picture", samples = t, n = t.shape[1], begin = begin }
    end
  end
  local f, reason
  if folder then f, reason = of_folder(path, fps) else f, reason = of_video(path) end
  if f and place then -- a full cache is no reason to stop
    pcall(safetensors.save, place, { samples = f.samples }, { begin = ("%.17g"):format(f.begin) })
  end
  return f, reason
end

-- Joints of a track as samples; a missing joint is NaN.
local function joints_of(track)
  local n = track.joints * 2
  local t = lr.empty { track.frames, n }
  local p = t:ptr()
  for i = 0, track.frames * n - 1 do p[i] = track.x[i] end
  return t
end

--- Fingerprint of landmarks: torso-centred joints in torso lengths.
---@param sequence Sequence
---@param options? {coordinates: string, as of motion.DEFAULTS}
---@return Fingerprint
function near.of_sequence(sequence, options)
  local track = motion.track(sequence, { rate = 1 / STEP, coordinates = options and options.coordinates or nil })
  return {
    kind = "joints", samples = joints_of(track), mirror = joints_of(motion.normalise.mirror(track)), n = track.frames, begin = track.start or 0,
  }
end

-- Takes from d (n = GRID^2) its parts along 1, the picture, and the picture's slopes: changes of light and small shifts of the camera.
local basis = ffi.new(("double[4][%d]"):format(GRID * GRID))
local function take_out(d, picture)
  local D = GRID * GRID
  for y = 0, GRID - 1 do
    for x = 0, GRID - 1 do
      local i = y * GRID + x
      basis[0][i], basis[1][i] = 1, picture[i]
      basis[2][i] = picture[y * GRID + math.min(x + 1, GRID - 1)] - picture[y * GRID + math.max(x - 1, 0)]
      basis[3][i] = picture[math.min(y + 1, GRID - 1) * GRID + x] - picture[math.max(y - 1, 0) * GRID + x]
    end
  end
  for k = 0, 3 do
    for l = 0, k - 1 do
      local dot = 0
      for i = 0, D - 1 do dot = dot + basis[k][i] * basis[l][i] end
      for i = 0, D - 1 do basis[k][i] = basis[k][i] - dot * basis[l][i] end
    end
    local square = 0
    for i = 0, D - 1 do square = square + basis[k][i] * basis[k][i] end
    local scale = square > 1e-6 and 1 / math.sqrt(square) or 0
    local dot = 0
    for i = 0, D - 1 do
      basis[k][i] = basis[k][i] * scale
      dot = dot + basis[k][i] * d[i]
    end
    for i = 0, D - 1 do d[i] = d[i] - dot * basis[k][i] end
  end
end

-- Rows of pictures, left and right exchanged.
local function flipped(rows)
  local out = lr.empty(rows.shape)
  local p, q = rows:ptr(), out:ptr()
  for row = 0, rows.shape[1] * GRID - 1 do
    for x = 0, GRID - 1 do q[row * GRID + x] = p[row * GRID + GRID - 1 - x] end
  end
  return out
end

-- Changes of the samples as rows of length 1 (of nothing where nothing moves), every stride-th: f32 [m,D], and which of them move.
local function changes(f, mirrored, stride)
  local lag, kind = LAG[f.kind], f.kind
  if kind == "picture" and mirrored then
    local rows, moving, m = changes(f, false, stride)
    return flipped(rows), moving, m
  end
  local kept = not mirrored and stride == 1 and f.changes
  if kept then return kept[1], kept[2], kept[3] end
  local source = (mirrored and f.mirror or f.samples):to("f32")
  local D = source.shape[2]
  local p = source:ptr()
  local m = math.floor((f.n - lag - 1) / stride) + 1
  local out, moving = lr.empty { m, D }, ffi.new("double[?]", m)
  local q = out:ptr()
  local d, mean = ffi.new("double[?]", D), ffi.new("double[?]", D)
  for i = 0, m - 1 do
    local a, b = p + i * stride * D, p + (i * stride + lag) * D
    for k = 0, D - 1 do
      local v = b[k] - a[k]
      d[k] = v == v and v or 0
    end
    if kind == "picture" then
      for k = 0, D - 1 do mean[k] = (a[k] + b[k]) / 2 end
      take_out(d, mean)
    end
    local square = 0
    for k = 0, D - 1 do square = square + d[k] * d[k] end
    local on = math.sqrt(square / D) > STILL[kind]
    moving[i] = on and 1 or 0
    local scale = on and 1 / math.sqrt(square) or 0
    for k = 0, D - 1 do q[i * D + k] = d[k] * scale end
  end
  if not mirrored and stride == 1 and m <= PROBES then f.changes = { lr.keep(out), moving, m } end -- most are compared with many
  return out, moving, m
end

---@class NearDuplicate
---@field score number mean correlation of the changes at the best shift; -1 where too little moves
---@field above number how far that stands above the best of all other shifts
---@field alike boolean true: a copy
---@field moments integer that were compared
---@field seconds number of movement that both show
---@field from number[] seconds in a and in b where what they share begins
---@field mirrored boolean

-- The best shift of a's moments (every stride-th) against b's, and how far it stands above the best of the shifts apart from it.
local function best_shift(a, a_moving, na, stride, b, b_moving, nb, least, apart)
  local g = lr.matmul(a, b, false, true)
  local p, scores = g:ptr(), {}
  local best, moments, shift = -1, 0, 0
  for o = -(na - 1) * stride, nb - 1 do -- sample i * stride of a stands against sample i * stride + o of b
    local first, last = math.max(0, math.ceil(-o / stride)), math.min(na - 1, math.floor((nb - 1 - o) / stride))
    local sum, n = 0, 0
    for i = first, last do
      local j = i * stride + o
      if a_moving[i] + b_moving[j] > 0 then
        n = n + 1
        sum = sum + p[i * nb + j]
      end
    end
    if n >= least then
      scores[o] = sum / n
      if sum > best * n then best, moments, shift = sum / n, n, o end
    end
  end
  local second = 0
  for o, score in pairs(scores) do
    if math.abs(o - shift) > apart and score > second then second = score end
  end
  return best, moments, shift, best - second
end

--- Compares two recordings at every shift, also mirrored.
---@param a Fingerprint
---@param b Fingerprint
---@return NearDuplicate
function near.compare(a, b)
  local none = { score = -1, above = 0, alike = false, moments = 0, seconds = 0, from = { 0, 0 }, mirrored = false }
  local swapped = a.n > b.n
  if swapped then a, b = b, a end
  local lag = LAG[a.kind]
  if a.kind ~= b.kind or a.samples.shape[2] ~= b.samples.shape[2] or a.n - lag < SHORT then return none end
  return lr.scope(function()
    local stride = math.max(1, math.ceil((a.n - lag) / PROBES))
    local right, right_moving, nb = changes(b, false, 1)
    local best = none
    for _, mirrored in ipairs { false, true } do
      local left, left_moving, na = changes(a, mirrored, stride)
      local long = near.SECONDS / STEP
      local least = math.min(long, math.max(SHORT, math.floor(.8 * na)))
      local score, moments, shift, above = best_shift(left, left_moving, na, stride, right, right_moving, nb, least, 2 * lag)
      if score > best.score then
        local from_a, from_b = math.max(0, -shift), math.max(0, shift)
        best = {
          score = score, above = above, moments = moments, mirrored = mirrored,
          alike = score >= (moments >= long and near.LIMIT or SHORT_LIMIT) and above >= near.ABOVE,
          seconds = math.min(a.n - from_a, b.n - from_b) * STEP, from = { a.begin + from_a * STEP, b.begin + from_b * STEP },
        }
      end
    end
    if swapped then best.from[1], best.from[2] = best.from[2], best.from[1] end
    return best
  end)
end

return near
