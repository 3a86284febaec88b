-- OpenPose JSON: key points of people by frame, in a folder of files or in one. Knows counts and triples, not skeletons.
-- Source: https://github.com/CMU-Perceptual-Computing-Lab/openpose, doc/02_output.md
local cjson = require "cjson"
local files = require "libration.files"
local reader = require "libration.formats.reader"
local stream = require "libration.formats.stream"
local tensor = require "libration.tensor"

local json = cjson.new()
json.decode_invalid_numbers(true) -- some writers put NaN
local M = {}

local FILE_LIMIT = 2 ^ 30

local function fail(...)
  error(string.format(...), 0)
end

local function decode(path)
  local text, err = files.read(path, FILE_LIMIT)
  if not text then error(err, 0) end
  if text:find("^%s*$") then fail("%s: the file is empty", path) end
  if text:find("\0", 1, true) then fail("%s: not JSON: it holds a zero byte", path) end -- where cjson would stop reading
  local ok, value = pcall(json.decode, text)
  if not ok then fail("%s: not JSON: %s", path, tostring(value)) end
  if type(value) ~= "table" then fail("%s: a %s, want people by frame", path, type(value)) end
  return value
end

-- One person's triples, checked -> list of numbers
local function check_person(path, frame, person)
  local points = type(person) == "table" and (person.pose_keypoints_2d or person.pose_keypoints)
  if type(points) ~= "table" then fail("%s: frame %d: a person without pose_keypoints_2d", path, frame) end
  if #points == 0 or #points % 3 ~= 0 then fail("%s: frame %d: %d numbers, want triples x, y, score", path, frame, #points) end
  for i, v in ipairs(points) do
    if type(v) ~= "number" then fail("%s: frame %d: number %d is a %s", path, frame, i, type(v)) end
  end
  return points
end

local function check_frame(path, frame, value)
  local people = type(value) == "table" and value.people
  if type(people) ~= "table" then fail("%s: frame %d: no list 'people'", path, frame) end
  local found = {}
  for i, person in ipairs(people) do found[i] = check_person(path, frame, person) end
  return found
end

-- -> list of frames (each a list of people), list of seconds or nil
local function read_frames(path)
  local frames, times, timed = {}, {}, 0
  if files.is_folder(path) then
    local names, err = files.list(path, "%.json$")
    if not names then error(err, 0) end
    if #names == 0 then fail("%s: no .json file in the folder", path) end
    for i, name in ipairs(names) do
      local file = files.join(path, name)
      frames[i] = check_frame(file, i - 1, decode(file))
    end
    return frames
  end
  local value = decode(path)
  local list = value.people and { value } or value.frames or value
  if type(list) ~= "table" or #list == 0 then fail("%s: no frames with 'people'", path) end
  for i, frame in ipairs(list) do
    frames[i] = check_frame(path, i - 1, frame)
    if type(frame.time) == "number" then times[i], timed = frame.time, timed + 1 end
  end
  return frames, timed == #frames and times or nil
end

-- Area of the box around the points that were seen.
local function area(points)
  local x0, y0, x1, y1 = math.huge, math.huge, -math.huge, -math.huge
  for i = 1, #points, 3 do
    if points[i + 2] > 0 then
      x0, x1 = math.min(x0, points[i]), math.max(x1, points[i])
      y0, y1 = math.min(y0, points[i + 1]), math.max(y1, points[i + 1])
    end
  end
  return x1 >= x0 and (x1 - x0) * (y1 - y0) or -1
end

local function largest(people)
  local best, size = nil, -math.huge
  for _, points in ipairs(people) do
    local a = area(points)
    if a > size then best, size = points, a end
  end
  return best
end

---@class OpenposeAbout
---@field people integer[] number of people in each frame
---@field times? number[] seconds, where the file has them

---Reads one person's key points of every frame: a folder with a file a frame (in natural order of the names), one frame's file, or one file with
---a list of frames (itself, or under "frames").
---@param path string
---@param options? {person: string|integer} "largest" (default) or the person's number in the list from 1
---@return Tensor? landmarks f32 [T,J,3] x, y, score; NaN for a joint or a frame without (score 0)
---@return OpenposeAbout|string about or, with nil, the error in one line
function M.load(path, options)
  local person = options and options.person or "largest"
  if person ~= "largest" and type(person) ~= "number" then error("openpose.load: person is 'largest' or a number", 2) end
  local ok, landmarks, about = pcall(function()
    local frames, times = read_frames(path)
    local joints, counts = nil, {}
    for i, people in ipairs(frames) do
      counts[i] = #people
      for _, points in ipairs(people) do
        joints = joints or #points / 3
        if #points / 3 ~= joints then fail("%s: frame %d has %d joints, others %d", path, i - 1, #points / 3, joints) end
      end
    end
    if not joints then fail("%s: nobody in any of %d frames", path, #frames) end
    local t = tensor.empty({ #frames, joints, 3 }, "f32")
    local p = t:ptr()
    for i, people in ipairs(frames) do
      local points = person == "largest" and largest(people) or people[person]
      for j = 0, joints - 1 do
        local o, seen = ((i - 1) * joints + j) * 3, points and points[3 * j + 3] > 0
        for k = 1, 3 do p[o + k - 1] = seen and points[3 * j + k] or 0 / 0 end
      end
    end
    return t, { people = counts, times = times }
  end)
  if not ok then return nil, reader.one_line(landmarks) end
  return landmarks, about
end

local function number(v)
  return v == v and math.abs(v) < math.huge and ("%.9g"):format(v) or "0"
end

-- One frame's object; a frame without any joint has no people.
local function frame_text(p, offset, joints, channels, score, extra)
  local points, any = {}, false
  for j = 0, joints - 1 do
    local o = offset + j * channels
    local x, y, s = p[o], p[o + 1], score and p[o + score - 1] or 1
    if x ~= x or y ~= y or s ~= s then x, y, s = 0, 0, 0 else any = true end
    points[j + 1] = number(x) .. "," .. number(y) .. "," .. number(s)
  end
  local people = any and '{"person_id":[-1],"pose_keypoints_2d":[' .. table.concat(points, ",") .. "]}" or ""
  return ('{%s"people":[%s]}'):format(extra, people)
end

---@class OpenposeWriter frames of one file, one at once; the file appears under its name at close
local Writer = {}
Writer.__index = Writer

---Begins a file whose "frames" each hold "people"; their number is not known yet.
---@param path string a .json file
---@param joints integer J
---@param channels integer C >= 2: x, y, ...
---@param score? integer channel of the score from 1 (default 3 where C = 3, 4 where C > 3: visibility)
---@return OpenposeWriter writer; raises one line where the folder cannot be written
function M.writer(path, joints, channels, score)
  local out = stream.begin(path)
  out:write('{"version":1.3,"frames":[')
  return setmetatable({ out = out, joints = joints, channels = channels, score = score or (channels == 3 and 3 or channels > 3 and 4) or nil, frames = 0 }, Writer)
end

---Appends a frame. A missing joint is 0, 0, 0 as OpenPose writes it.
---@param values ffi.cdata* float[J*C]
---@param time? number seconds
function Writer:append(values, time)
  local extra = ('"frame":%d,%s'):format(self.frames, time and ('"time":%.17g,'):format(time) or "")
  self.out:write(self.frames > 0 and ",\n" or "\n", frame_text(values, 0, self.joints, self.channels, self.score, extra))
  self.frames = self.frames + 1
end

---Ends the list, syncs and renames.
---@return string path
function Writer:close()
  self.out:write("\n]}\n")
  return self.out:close()
end

---Drops what was written.
function Writer:abort() self.out:abort() end

---Writes key points in OpenPose's layout: one file whose "frames" each hold "people". A missing joint is 0, 0, 0 as OpenPose writes it.
---@param path string a .json file, or with options.folder a folder that gets NAME_000000000000_keypoints.json a frame
---@param landmarks Tensor f32 [T,J,C], C >= 2: x, y, ...
---@param options? {score: integer, times: number[], folder: boolean, name: string} score: as for `writer`
---@return string path; raises one line where it cannot be written
function M.save(path, landmarks, options)
  options = options or {}
  local shape = landmarks.shape
  if #shape ~= 3 or shape[3] < 2 then error(("openpose.save: [%s], want [T,J,C] with C >= 2"):format(table.concat(shape, ",")), 2) end
  local t, j, c = shape[1], shape[2], shape[3]
  if options.folder then
    local flat = landmarks:to("f32"):contiguous()
    local p = flat:ptr()
    local score = options.score or (c == 3 and 3 or c > 3 and 4) or nil
    for i = 0, t - 1 do
      local name = ("%s_%012d_keypoints.json"):format(options.name or "frame", i)
      files.write(files.join(path, name), frame_text(p, i * j * c, j, c, score, '"version":1.3,') .. "\n")
    end
    return path
  end
  return stream.fill(M.writer(path, j, c, options.score), landmarks, options.times)
end

return M
