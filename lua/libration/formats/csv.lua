-- CSV: tables with a header, and landmark sequences in one. Numbers are written so that they read back to the same float32; NaN is an empty cell.
-- Quoting as RFC 4180.
local files = require "libration.files"
local reader = require "libration.formats.reader"
local stream = require "libration.formats.stream"
local tensor = require "libration.tensor"

local M = {}

local FILE_LIMIT = 2 ^ 30

-- Cells of one record from position `at` -> list, next position. A quoted cell may hold commas and line ends.
local function parse_record(path, text, at, line)
  local cells = {}
  while true do
    local cell
    if text:byte(at) == 34 then
      local parts, from = {}, at + 1
      while true do
        local quote = text:find('"', from, true)
        if not quote then error(("%s: line %d: a quoted cell does not end"):format(path, line), 0) end
        parts[#parts + 1] = text:sub(from, quote - 1)
        from = quote + 1
        if text:byte(from) ~= 34 then break end
        parts[#parts + 1] = '"'
        from = from + 1
      end
      cell, at = table.concat(parts), from
      if at <= #text and not text:find("^[,\r\n]", at) then
        error(("%s: line %d: text after a closing quote"):format(path, line), 0)
      end
    else
      local stop = text:find("[,\r\n]", at) or #text + 1
      cell, at = text:sub(at, stop - 1), stop
    end
    cells[#cells + 1] = cell
    if text:byte(at) == 44 then
      at = at + 1
    else
      if text:byte(at) == 13 then at = at + 1 end
      if text:byte(at) == 10 then at = at + 1 end
      return cells, at
    end
  end
end

local function parse(path)
  local text, err = files.read(path, FILE_LIMIT)
  if not text then error(err, 0) end
  if text:sub(1, 3) == "\239\187\191" then text = text:sub(4) end -- a byte order mark
  if text == "" then error(path .. ": the file is empty", 0) end
  if text:find("\0", 1, true) then error(path .. ": not a text file (it holds zero bytes)", 0) end
  local names, at = parse_record(path, text, 1, 1)
  local rows, line = {}, 1
  while at <= #text do
    line = line + 1
    local cells
    cells, at = parse_record(path, text, at, line)
    if #cells == #names then
      cells.line = line
      rows[#rows + 1] = cells
    elseif not (#cells == 1 and cells[1] == "") then -- blank lines are skipped
      error(("%s: line %d has %d cells, the header has %d"):format(path, line, #cells, #names), 0)
    end
  end
  return names, rows
end

local function protect(fn, ...)
  local ok, a, b, c = pcall(fn, ...)
  if not ok then return nil, reader.one_line(a) end
  return a, b, c
end

---Reads a table as text.
---@param path string
---@return string[]? names of the columns
---@return string[][]|string rows, each with its line in the field `line`; or, with nil, the error in one line
function M.read(path)
  return protect(parse, path)
end

local nan_words = { [""] = true, nan = true, na = true, null = true, none = true }

local function to_number(path, text, row, name)
  local n = tonumber(text)
  if n then return n end
  if nan_words[text:lower()] then return 0 / 0 end
  local word = text:lower():gsub("%s", "")
  if nan_words[word] then return 0 / 0 end
  if word == "inf" or word == "+inf" or word == "infinity" then return math.huge end
  if word == "-inf" or word == "-infinity" then return -math.huge end
  n = tonumber(word)
  if n then return n end
  return error(("%s: line %d, column '%s': '%s' is not a number"):format(path, row + 1, name, text:sub(1, 40)), 0)
end

---A cell as a number, with the words for nothing and infinity. Raises one line where it is none.
---@param path string
---@param text string
---@param line integer of the file
---@param name string of the column
---@return number
function M.number(path, text, line, name)
  return to_number(path, text, line - 1, name)
end

---Reads a table of numbers; an empty cell, nan, na, null or none is NaN.
---@param path string
---@return Tensor? values f64 [rows, columns]
---@return string[]|string names of the columns or, with nil, the error in one line
function M.load(path)
  return protect(function()
    local names, rows = parse(path)
    if #rows == 0 then error(path .. ": a header and no rows", 0) end
    local t = tensor.empty({ #rows, #names }, "f64")
    local p, c = t:ptr(), #names
    for i, cells in ipairs(rows) do
      for j = 1, c do p[(i - 1) * c + j - 1] = to_number(path, cells[j], i, names[j]) end
    end
    return t, names
  end)
end

local function quote(cell)
  if cell:find('[",\r\n]') then return '"' .. cell:gsub('"', '""') .. '"' end
  return cell
end

local function to_cell(v, format)
  if type(v) == "number" then
    if v ~= v then return "" end
    if v == math.huge then return "inf" elseif v == -math.huge then return "-inf" end
    return format:format(v)
  end
  if v == nil then return "" end
  return quote(tostring(v))
end

---@class CsvWriter
local Writer = {}
Writer.__index = Writer

---Begins a table; the file appears under its name at close.
---@param path string
---@param names string[] of the columns
---@param format? string for numbers, default "%.9g" (float32 reads back the same); "%.17g" for doubles
---@return CsvWriter writer; raises one line where the folder cannot be written
function M.writer(path, names, format)
  local w = setmetatable({ out = stream.begin(path), columns = #names, format = format or "%.9g" }, Writer)
  local cells = {}
  for i, name in ipairs(names) do cells[i] = quote(name) end
  w.out:write(table.concat(cells, ",") .. "\n")
  return w
end

---Appends one row: numbers, strings, booleans; NaN and nil become empty cells.
---@param cells any[] one for each column
function Writer:row(cells)
  local line = {}
  for i = 1, self.columns do line[i] = to_cell(cells[i], self.format) end
  if cells[self.columns + 1] ~= nil then error(("csv row: more than %d cells"):format(self.columns), 2) end
  self.out:write(table.concat(line, ","), "\n")
end

---Syncs and renames.
---@return string path
function Writer:close()
  return self.out:close()
end

---Drops what was written.
function Writer:abort()
  self.out:abort()
end

---Writes a whole table.
---@param path string
---@param names string[]
---@param rows any[][]|Tensor lists of cells, or a tensor [rows, columns]
---@param format? string as for `writer`
---@return string path
function M.save(path, names, rows, format)
  if type(rows) ~= "table" then
    if rows:dim() ~= 2 or rows:size(2) ~= #names then
      error(("csv.save: %s for %d names, want [rows,%d]"):format(tostring(rows):match("^[^\n]*"), #names, #names), 2)
    end
    rows = rows:totable()
  end
  return stream.filled(M.writer(path, names, format), function(w)
    for _, cells in ipairs(rows) do w:row(cells) end
  end)
end

---@class LandmarkTable
---@field joints string[] names of the joints
---@field channels string[] of each joint: "x", "y", "z", "visibility", "presence"
---@field times? number[] seconds of each frame

---Column names of a landmark table: frame, time, then JOINT_CHANNEL.
---@param joints string[]
---@param channels string[]
---@return string[]
function M.landmark_names(joints, channels)
  local names = { "frame", "time" }
  for _, joint in ipairs(joints) do
    for _, channel in ipairs(channels) do names[#names + 1] = joint .. "_" .. channel end
  end
  return names
end

---@class LandmarkWriter rows of a landmark table, a frame at once; the file appears under its name at close
local LandmarkWriter = {}
LandmarkWriter.__index = LandmarkWriter

---Begins a landmark table whose number of frames is not known yet.
---@param path string
---@param about LandmarkTable joints and channels
---@return LandmarkWriter writer; raises one line where the folder cannot be written
function M.landmark_writer(path, about)
  return setmetatable({ out = M.writer(path, M.landmark_names(about.joints, about.channels)), values = #about.joints * #about.channels, frames = 0, cells = {} },
    LandmarkWriter)
end

---Appends a frame.
---@param values ffi.cdata* float[J*C]
---@param time? number seconds
function LandmarkWriter:append(values, time)
  local cells = self.cells
  cells[1], cells[2] = self.frames, time and ("%.17g"):format(time) or ""
  for i = 0, self.values - 1 do cells[i + 3] = values[i] end
  self.out:row(cells)
  self.frames = self.frames + 1
end

---Syncs and renames.
---@return string path
function LandmarkWriter:close() return self.out:close() end

---Drops what was written.
function LandmarkWriter:abort() self.out:abort() end

---Writes a landmark sequence: a row a frame, "frame" from 0, "time" in seconds (empty without times).
---@param path string
---@param landmarks Tensor f32 [T,J,C]
---@param about LandmarkTable
---@return string path
function M.save_landmarks(path, landmarks, about)
  local shape = landmarks.shape
  if #shape ~= 3 or shape[2] ~= #about.joints or shape[3] ~= #about.channels then
    error(("csv.save_landmarks: [%s] for %d joints of %d channels"):format(table.concat(shape, ","), #about.joints, #about.channels), 2)
  end
  return stream.fill(M.landmark_writer(path, about), landmarks, about.times)
end

local channel_set = { x = true, y = true, z = true, visibility = true, presence = true, score = true, confidence = true, likelihood = true }

---Reads a landmark table: columns JOINT_CHANNEL, where every joint has the same channels (x, y, z, visibility, presence, score,
---confidence or likelihood) in the same order; "frame" and "time" where they stand, other columns are refused by name.
---@param path string
---@return Tensor? landmarks f32 [T,J,C]
---@return LandmarkTable|string about or, with nil, the error in one line
function M.load_landmarks(path)
  return protect(function()
    local values, names = M.load(path)
    if not values then error(names, 0) end
    local joints, channels, columns, time = {}, {}, {}, nil
    local position = {}
    for column, name in ipairs(names) do
      local joint, channel = name:match("^(.+)_([^_]+)$")
      if name == "time" then
        time = column
      elseif name ~= "frame" and not (joint and channel_set[channel]) then
        error(("%s: column '%s' is not JOINT_CHANNEL with a channel of x, y, z, visibility, presence, score"):format(path, name), 0)
      elseif name ~= "frame" then
        if joints[#joints] ~= joint then
          if position[joint] then error(("%s: the columns of joint '%s' are not side by side"):format(path, joint), 0) end
          joints[#joints + 1], position[joint] = joint, 0
        end
        position[joint] = position[joint] + 1
        if #joints == 1 then channels[position[joint]] = channel end
        if channels[position[joint]] ~= channel then
          error(("%s: column '%s' breaks the order of channels (%s)"):format(path, name, table.concat(channels, ", ")), 0)
        end
        columns[#columns + 1] = column - 1
      end
    end
    local j, c, rows, width = #joints, #channels, values:size(1), values:size(2)
    if j == 0 then error(path .. ": no columns JOINT_x, JOINT_y", 0) end
    if #columns ~= j * c then error(("%s: %d columns for %d joints of %d channels"):format(path, #columns, j, c), 0) end
    local t = tensor.empty({ rows, j, c }, "f32")
    local from, to, times = values:ptr(), t:ptr(), time and {} or nil
    for i = 0, rows - 1 do
      for k = 1, #columns do to[i * #columns + k - 1] = from[i * width + columns[k]] end
      if time then times[i + 1] = from[i * width + time - 1] end
    end
    if times and times[1] ~= times[1] then times = nil end
    return t, { joints = joints, channels = channels, times = times }
  end)
end

return M
