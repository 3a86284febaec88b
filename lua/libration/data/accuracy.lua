-- Landmarks against exact joints of rendered sequences: PCK and pixels, by joint. Opens joints files, so never on a data set that is only to be seen.

local files = require "libration.files"
local skeletons = require "libration.pose.skeletons"

local accuracy = {}

-- Joints that both skeletons have; eyes, fingers and toes of a landmarker are too far from MINI-RGBD's to compare.
local COMPARED = {
  "nose", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
  "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
}

-- x and y of the 25 joints of one frame.
local function read_joints(path)
  local text, reason = files.read(path, 65536)
  if not text then return nil, reason end
  local joints = {}
  for line in text:gmatch("[^\n]+") do
    local x, y, _, id = line:match("^(%S+)%s+(%S+)%s+(%S+)%s+(%d+)")
    if not id then return nil, ("%s: line %q, want x y depth id"):format(path, line:sub(1, 40)) end
    joints[tonumber(id) + 1] = { tonumber(x), tonumber(y) }
  end
  if #joints ~= 25 then return nil, ("%s: %d joints, want 25"):format(path, #joints) end
  return joints
end

--- Compares the landmarks of sequences of a MINI-RGBD tree with its joints_2Ddep.
---@param list table[] {landmarks: Tensor f32 [T,33,>=2] pixels, folder: string the sequence's folder, above rgb}
---@param share number? PCK's distance in torso lengths (mid shoulders to mid hips), default 0.2
---@return table? {pck, median, mean, p95: pixels, frames, missed: frames without a pose, joints = {name, pck, median}[]}, or nil and the reason
function accuracy.measure(list, share)
  share = share or .2
  local bp, mini = skeletons.get("blazepose33"), skeletons.get("minirgbd25")
  local distances, by_joint, hits, frames, missed = {}, {}, 0, 0, 0
  for _, name in ipairs(COMPARED) do by_joint[name] = { distances = {}, hits = 0 } end
  for _, s in ipairs(list) do
    local folder = files.join(s.folder, "joints_2Ddep")
    local names, reason = files.list(folder, "%.txt$")
    if not names then return nil, reason end
    local shape = s.landmarks.shape
    if shape[1] ~= #names then return nil, ("%s: %d files for %d frames"):format(folder, #names, shape[1]) end
    local p, C = s.landmarks:contiguous():ptr(), shape[3]
    for t = 0, shape[1] - 1 do
      local joints
      joints, reason = read_joints(files.join(folder, names[t + 1]))
      if not joints then return nil, reason end
      local function at(name) return joints[mini.index[name]] end
      local tx = (at("left_shoulder")[1] + at("right_shoulder")[1] - at("left_hip")[1] - at("right_hip")[1]) / 2
      local ty = (at("left_shoulder")[2] + at("right_shoulder")[2] - at("left_hip")[2] - at("right_hip")[2]) / 2
      local limit = share * math.sqrt(tx * tx + ty * ty)
      frames = frames + 1
      if p[t * shape[2] * C] ~= p[t * shape[2] * C] then missed = missed + 1 end
      for _, name in ipairs(COMPARED) do
        local o = (t * shape[2] + bp.index[name] - 1) * C
        local dx, dy = p[o] - at(name)[1], p[o + 1] - at(name)[2]
        local d = math.sqrt(dx * dx + dy * dy)
        local row = by_joint[name]
        if d == d then
          distances[#distances + 1] = d
          row.distances[#row.distances + 1] = d
          if d <= limit then
            hits = hits + 1
            row.hits = row.hits + 1
          end
        end
      end
    end
  end
  if #distances == 0 then return nil, "accuracy: no landmarks to compare" end
  local function quantile(values, q)
    table.sort(values)
    return values[math.max(1, math.ceil(q * #values))]
  end
  local sum = 0
  for _, d in ipairs(distances) do sum = sum + d end
  local out = {
    -- a joint that was not found counts as a miss
    pck = hits / (frames * #COMPARED), share = share, mean = sum / #distances, median = quantile(distances, .5), p95 = quantile(distances, .95),
    frames = frames, missed = missed, joints = {},
  }
  for i, name in ipairs(COMPARED) do
    local row = by_joint[name]
    out.joints[i] = { name = name, pck = row.hits / frames, median = #row.distances > 0 and quantile(row.distances, .5) or 0 / 0 }
  end
  return out
end

--- One line for logs and reports.
---@param a table of measure
---@return string
function accuracy.line(a)
  return ("PCK@%.1f %.1f %%, median %.1f px, 95th percentile %.1f px, %d of %d frames without a pose"):format(
    a.share, 100 * a.pck, a.median, a.p95, a.missed, a.frames)
end

return accuracy
