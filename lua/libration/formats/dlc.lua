-- DeepLabCut CSV: key points of one animal or person by frame, under header rows scorer, (individuals), bodyparts, coords. Knows names, not skeletons.
-- Source: https://deeplabcut.github.io/DeepLabCut/docs/convert_maDLC.html and the files that DeepLabCut writes.
local csv = require "libration.formats.csv"
local reader = require "libration.formats.reader"
local stream = require "libration.formats.stream"
local tensor = require "libration.tensor"

local M = {}

local function fail(...)
  error(string.format(...), 0)
end

--- Whether a CSV file begins as DeepLabCut's do.
---@param path string
---@return boolean
function M.is(path)
  local file = io.open(path, "rb")
  local begin = file and file:read(16) or ""
  if file then file:close() end
  return begin:gsub("^\239\187\191", ""):find("^\"?scorer\"?,") ~= nil
end

---- writing -----------------------------------------------------------------------------------------------------------------------

---@class DlcWriter a row a frame; the file appears under its name at close
local Writer = {}
Writer.__index = Writer

--- Begins a file with x, y and likelihood of each body part.
---@param path string
---@param about {joints: string[], channels: integer a joint, score: integer? channel of the likelihood from 1 (4 where there are more than 3, 3 where there are 3),
---  scorer: string?}
---@return DlcWriter writer; raises one line where the folder cannot be written
function M.writer(path, about)
  local scorer = about.scorer or "libration"
  local scorers, parts, coords = { "scorer" }, { "bodyparts" }, { "coords" }
  for j, joint in ipairs(about.joints) do
    local c = 3 * j - 1
    for k = c, c + 2 do scorers[k], parts[k] = scorer, joint end
    coords[c], coords[c + 1], coords[c + 2] = "x", "y", "likelihood"
  end
  local C = about.channels
  local self = setmetatable({
    out = csv.writer(path, scorers), joints = #about.joints, channels = C, score = about.score or C > 3 and 4 or C == 3 and 3 or nil, frames = 0, cells = {},
  }, Writer)
  self.out:row(parts)
  self.out:row(coords)
  return self
end

--- Appends a frame; a missing joint has empty cells and likelihood 0.
---@param values ffi.cdata* float[J*channels] x, y, ...
function Writer:append(values)
  local cells, C = self.cells, self.channels
  cells[1] = self.frames
  for j = 0, self.joints - 1 do
    local x, y = values[j * C], values[j * C + 1]
    local score = self.score and values[j * C + self.score - 1] or 1
    local seen = x - x == 0 and y - y == 0
    cells[3 * j + 2], cells[3 * j + 3] = seen and x or 0 / 0, seen and y or 0 / 0
    cells[3 * j + 4] = seen and score == score and score or 0
  end
  self.out:row(cells)
  self.frames = self.frames + 1
end

--- Syncs and renames.
---@return string path
function Writer:close() return self.out:close() end

--- Drops what was written.
function Writer:abort() self.out:abort() end

--- Writes a landmark sequence.
---@param path string
---@param landmarks Tensor f32 [T,J,C], C >= 2: x, y, ...
---@param about table as of `writer`, channels from the tensor
---@return string path
function M.save(path, landmarks, about)
  local shape = landmarks.shape
  if #shape ~= 3 or shape[2] ~= #about.joints or shape[3] < 2 then
    error(("dlc.save: [%s] for %d joints, want [T,%d,C] with C >= 2"):format(table.concat(shape, ","), #about.joints, #about.joints), 2)
  end
  return stream.fill(M.writer(path, { joints = about.joints, channels = shape[3], score = about.score, scorer = about.scorer }), landmarks)
end

---- reading -----------------------------------------------------------------------------------------------------------------------

-- Header rows by name, and the first row of numbers.
local function header_of(path, first, rows)
  local found, at = { scorer = first }, 1
  local order = { "individuals", "bodyparts", "coords" }
  for _, name in ipairs(order) do
    local row = rows[at]
    if row and row[1]:lower() == name then
      found[name], at = row, at + 1
    elseif name ~= "individuals" then
      fail("%s: line %d begins with '%s', want the header row '%s' of a DeepLabCut file", path, row and row.line or 2, row and row[1]:sub(1, 40) or "", name)
    end
  end
  return found, at
end

-- Body parts with their columns, by individual: {name, parts = {{name, x, y, likelihood}}}.
local function parts_of(path, head)
  local people, by_name, columns = {}, {}, #head.coords
  local first = 2
  while first <= columns and head.coords[first] == "" do first = first + 1 end -- an index of several columns
  for c = first, columns do
    local who, part, coord = head.individuals and head.individuals[c] or "", head.bodyparts[c], head.coords[c]:lower()
    if part == "" then fail("%s: column %d has no body part", path, c) end
    local person = by_name[who]
    if not person then
      person = { name = who, parts = {}, at = {} }
      by_name[who], people[#people + 1] = person, person
    end
    local p = person.at[part]
    if not p then
      p = { name = part }
      person.at[part], person.parts[#person.parts + 1] = p, p
    end
    if coord ~= "x" and coord ~= "y" and coord ~= "likelihood" and coord ~= "visible" then
      fail("%s: column %d is '%s', want x, y or likelihood", path, c, head.coords[c]:sub(1, 40))
    end
    if coord == "visible" then coord = "likelihood" end
    if p[coord] then fail("%s: column %d: '%s' has '%s' twice", path, c, part:sub(1, 40), coord) end
    p[coord] = c
  end
  if #people == 0 then fail("%s: no body parts", path) end
  for _, person in ipairs(people) do
    for _, p in ipairs(person.parts) do
      if not (p.x and p.y) then fail("%s: body part '%s' has no x or no y", path, p.name:sub(1, 40)) end
    end
  end
  return people
end

-- Share of a person's places that are there.
local function places(person, rows, at)
  local n = 0
  for i = at, #rows do
    for _, p in ipairs(person.parts) do
      if rows[i][p.x] ~= "" then n = n + 1 end
    end
  end
  return n
end

---@class DlcAbout
---@field joints string[] body parts
---@field channels string[] x, y and, where the file has it, likelihood
---@field individuals string[] names, where the file has them
---@field individual string the one that was read
---@field scorer string

--- Reads one individual's key points: predictions (with likelihood) or labels (without), with or without a row of individuals, an index of one or several columns.
---@param path string
---@param options? {individual: string} of a file with several; default: the one with most places
---@return Tensor? landmarks f32 [T,J,2 or 3] x, y, likelihood; NaN where a cell is empty
---@return DlcAbout|string about or, with nil, the error in one line
function M.load(path, options)
  local wanted = options and options.individual
  local ok, landmarks, about = pcall(function()
    local first, rows = csv.read(path)
    if not first then error(rows, 0) end
    if first[1]:lower() ~= "scorer" then fail("%s: line 1 begins with '%s', want the header row 'scorer' of a DeepLabCut file", path, first[1]:sub(1, 40)) end
    local head, at = header_of(path, first, rows)
    local people = parts_of(path, head)
    local frames = #rows - at + 1
    if frames < 1 then fail("%s: a header and no rows", path) end
    local person, names = people[1], {}
    for i, one in ipairs(people) do names[i] = one.name end
    if wanted then
      person = nil
      for _, one in ipairs(people) do if one.name == wanted then person = one end end
      if not person then fail("%s: no individual '%s', there are %s", path, wanted, table.concat(names, ", ")) end
    elseif #people > 1 then
      local most = -1
      for _, one in ipairs(people) do
        local n = places(one, rows, at)
        if n > most then person, most = one, n end
      end
    end
    local sure = true
    for _, p in ipairs(person.parts) do sure = sure and p.likelihood end
    local J, C = #person.parts, sure and 3 or 2
    local t = tensor.empty({ frames, J, C })
    local to = t:ptr()
    for i = 0, frames - 1 do
      local row = rows[at + i]
      for j, p in ipairs(person.parts) do
        local o = (i * J + j - 1) * C
        to[o], to[o + 1] = csv.number(path, row[p.x], row.line, p.name .. " x"), csv.number(path, row[p.y], row.line, p.name .. " y")
        if sure then to[o + 2] = csv.number(path, row[p.likelihood], row.line, p.name .. " likelihood") end
      end
    end
    local joints = {}
    for j, p in ipairs(person.parts) do joints[j] = p.name end
    return t, { joints = joints, channels = sure and { "x", "y", "likelihood" } or { "x", "y" }, individuals = names, individual = person.name, scorer = first[#first] }
  end)
  if not ok then return nil, reader.one_line(landmarks) end
  return landmarks, about
end

return M
