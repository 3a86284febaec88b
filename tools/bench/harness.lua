-- harness.lua: times functions alone or in turns with a peer, prints rows, keeps the raw times. Knows no workload.
local core = require "libration.core"
local files = require "libration.files"

local C = core.C

local harness = {}
harness.__index = harness

--- A bench run.
---@param options {only: string, quick: boolean, tsv: string} only: part of a row's group or name; quick: fewer repetitions; tsv: file of the raw times
---@return table
function harness.new(options)
  local self = setmetatable({only = options.only or "", quick = options.quick, path = options.tsv, lines = {"row\twhose\tseconds ...\n"}, ceiling = {}}, harness)
  return self
end

--- Whether a row is asked for: any of its names holds the text of --only.
function harness:wants(...)
  if self.only == "" then return true end
  for _, name in ipairs {...} do
    if name:lower():find(self.only:lower(), 1, true) then return true end
  end
  return false
end

--- Seconds that a call takes.
function harness.time(fn)
  local start = C.lbr_clock()
  fn()
  return C.lbr_clock() - start
end

local function sorted(list)
  local s = {unpack(list)}
  table.sort(s)
  return s
end

local function at(s, share) return s[math.max(1, math.min(#s, math.floor(share * (#s - 1) + 1.5)))] end

--- Median, least and spread (half the distance of the quartiles, as a share of the median) of a list of seconds.
---@return {median: number, least: number, spread: number, n: integer}
function harness.summary(list)
  local s = sorted(list)
  local n = #s
  local median = n % 2 == 1 and s[(n + 1) / 2] or (s[n / 2] + s[n / 2 + 1]) / 2
  return {median = median, least = s[1], spread = (at(s, .75) - at(s, .25)) / 2 / median, n = n}
end

--- Times fn: warm-up, then at least 20 runs (quick: 5), more while they fit into `seconds`.
---@param fn fun()
---@param seconds number|nil 0.4
---@return number[]
function harness:measure(fn, seconds)
  local least, room = self.quick and 5 or 20, self.quick and .1 or seconds or .4
  local begin = C.lbr_clock()
  for _ = 1, 3 do
    fn()
    if C.lbr_clock() - begin > room then break end
  end
  local list = {}
  begin = C.lbr_clock()
  while #list < least or (C.lbr_clock() - begin < room and #list < 2000) do list[#list + 1] = self.time(fn) end
  return list
end

--- Times ours and the peer in turns: A B A B ...
---@param ours fun(i: integer): number|nil seconds, where it keeps its own clock
---@param peer fun(i: integer): number seconds by the peer's own clock
---@param n integer pairs
---@return number[] ours, number[] peer
function harness:turns(ours, peer, n)
  local a, b = {}, {}
  for i = 1, n do
    local own
    local took = self.time(function() own = ours(i) end)
    a[i] = type(own) == "number" and own or took
    self.rest()
    b[i] = peer(i)
    self.rest()
  end
  return a, b
end

--- A pause that lets the other side's waiting threads fall asleep.
function harness.rest()
  local till = C.lbr_clock() + .004
  while C.lbr_clock() < till do harness.sleep(2) end
end

local ffi = require "ffi"
ffi.cdef "int poll(void *fds, unsigned long n, int milliseconds);"
function harness.sleep(milliseconds) ffi.C.poll(nil, 0, milliseconds) end

local function duration(s)
  if s < 1e-6 then return ("%.1f ns"):format(s * 1e9) end
  if s < 1e-3 then return ("%.2f us"):format(s * 1e6) end
  if s < 1 then return ("%.2f ms"):format(s * 1e3) end
  return ("%.2f s"):format(s)
end
harness.duration = duration

local function keep(self, name, whose, list)
  local parts = {name, whose}
  for i, s in ipairs(list) do parts[i + 2] = ("%.9g"):format(s) end
  self.lines[#self.lines + 1] = table.concat(parts, "\t") .. "\n"
end

function harness.heading(_, text) print(("\n%s"):format(text)) end

--- Prints a row of ours.
---@param name string
---@param sizes string
---@param list number[] seconds
---@param work {flops: number, bytes: number, count: number, unit: string}|nil of one call
function harness:row(name, sizes, list, work)
  local s = self.summary(list)
  work = work or {}
  local rate, share = "", ""
  if work.flops then
    rate = ("%.1f GF/s"):format(work.flops / s.median / 1e9)
    if self.ceiling.flops then share = ("%3.0f %% of flops"):format(100 * work.flops / s.median / self.ceiling.flops) end
  elseif work.bytes then
    rate = ("%.1f GB/s"):format(work.bytes / s.median / 1e9)
    if self.ceiling.bytes then share = ("%3.0f %% of copy"):format(100 * work.bytes / s.median / self.ceiling.bytes) end
  end
  if work.count then rate = (rate ~= "" and rate .. ", " or "") .. ("%.0f %s/s"):format(work.count / s.median, work.unit) end
  keep(self, name .. " " .. sizes, "ours", list)
  print(("  %-24s %-34s %10s +-%3.0f %%  least %10s  %-26s %s"):format(name, sizes, duration(s.median), 100 * s.spread, duration(s.least), rate, share))
  io.stdout:flush()
end

--- Prints ours beside a peer; ratio > 1: ours is faster.
---@param row {number: string, name: string, peer: string, settings: string, floor: number, target: string, scale: number|nil, unit: string|nil}
---  scale, unit: rate = scale / seconds
---@return number ratio of the medians
function harness:versus(row, ours, peer, check)
  local a, b = self.summary(ours), self.summary(peer)
  local ratio, least = b.median / a.median, b.least / a.least
  keep(self, row.name, "ours", ours)
  keep(self, row.name, row.peer, peer)
  local function side(s)
    local text = ("%s +-%.0f %%, least %s"):format(duration(s.median), 100 * s.spread, duration(s.least))
    if row.scale then text = text .. (", %.0f %s"):format(row.scale / s.median, row.unit) end
    return text
  end
  print(("  (%s) %s"):format(row.number, row.name))
  print(("       ours %s"):format(side(a)))
  print(("       %s (%s) %s"):format(row.peer, row.settings, side(b)))
  print(("       ratio %.2f (of the least %.2f), floor %g %s, target %s; %d pairs; %s"):format(ratio, least, row.floor,
    ratio >= row.floor and "met" or "MISSED", row.target, a.n, check or ""))
  local function raw(list)
    local parts = {}
    for i, s in ipairs(list) do parts[i] = ("%.4g"):format(s * 1e3) end
    return table.concat(parts, " ")
  end
  print("       raw ms, ours: " .. raw(ours))
  print(("       raw ms, %s: %s"):format(row.peer, raw(peer)))
  io.stdout:flush()
  return ratio
end

--- Writes the raw times.
function harness:finish()
  if not self.path then return end
  files.mkdirs(files.folder(self.path))
  files.write(self.path, table.concat(self.lines))
  print("\nraw times: " .. self.path)
end

return harness
