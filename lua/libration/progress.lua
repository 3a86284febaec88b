-- How far a long job is: a bar with rate and time left on a terminal, sparse plain lines elsewhere, on stderr. Never on stdout.
local ffi = require "ffi"
local log = require "libration.log"

ffi.cdef [[
int isatty(int fd);
int ioctl(int fd, unsigned long request, ...);
typedef struct { long seconds, nanoseconds; } lbr_progress_time;
int clock_gettime(int clock, void *time);
]]

local progress = {}

local now
do
  local time = ffi.new("lbr_progress_time[1]")
  local MONOTONIC = ffi.os == "OSX" and 6 or 1
  ---Seconds of a clock that never goes back.
  function now()
    ffi.C.clock_gettime(MONOTONIC, time)
    return tonumber(time[0].seconds) + tonumber(time[0].nanoseconds) * 1e-9
  end
end
progress.clock = now

---@return boolean true where stderr is a terminal that can redraw a line
function progress.terminal()
  return ffi.C.isatty(2) == 1 and os.getenv("TERM") ~= "dumb"
end

local function terminal_width()
  local size = ffi.new("unsigned short[4]")
  local TIOCGWINSZ = ffi.os == "OSX" and 0x40087468 or 0x5413
  if ffi.C.ioctl(2, TIOCGWINSZ, ffi.cast("void *", size)) == 0 and size[1] > 20 then return size[1] end
  return 80
end

---Seconds in words: "42 s", "3:07", "1:02:05".
function progress.duration(seconds)
  seconds = math.floor(seconds + .5)
  if seconds < 60 then return ("%d s"):format(seconds) end
  if seconds < 3600 then return ("%d:%02d"):format(math.floor(seconds / 60), seconds % 60) end
  return ("%d:%02d:%02d"):format(math.floor(seconds / 3600), math.floor(seconds / 60) % 60, seconds % 60)
end

local Bar = {}
Bar.__index = Bar

---@param options {label: string, total: number?, unit: string?, stream: table?, terminal: boolean?, every: number?, quiet: boolean?}
---label what is done; total how many (nil: unknown); unit "frames"; every: seconds between plain lines (10); quiet: print nothing
---@return table bar with :update(n [, note]), :add(k [, note]), :finish([note])
function progress.new(options)
  local terminal = options.terminal
  if terminal == nil then terminal = progress.terminal() end
  local bar = setmetatable({
    label = options.label or "", total = options.total, unit = options.unit or "", stream = options.stream or io.stderr,
    terminal = terminal, every = terminal and .1 or options.every or 10, quiet = options.quiet,
    n = 0, started = now(), width = 0,
  }, Bar)
  bar.shown = terminal and -1 or bar.started
  if terminal and not bar.quiet then
    bar.before, bar.after = log.before, log.after
    log.before = function() bar:clear() end
    log.after = function() bar:draw() end
  end
  return bar
end

---The state in one line without its bar.
function Bar:text(note)
  local elapsed = now() - self.started
  local rate = elapsed > 0 and self.n / elapsed or 0
  local parts = {}
  parts[1] = self.total and ("%d/%d"):format(self.n, self.total) or ("%d"):format(self.n)
  if self.unit ~= "" then parts[1] = parts[1] .. " " .. self.unit end
  if rate > 0 then parts[#parts + 1] = (rate >= 100 and "%.0f" or rate >= 1 and "%.1f" or "%.3f"):format(rate) .. "/s" end
  if self.done then
    parts[#parts + 1] = "in " .. progress.duration(elapsed)
  elseif self.total and rate > 0 and self.n < self.total then
    parts[#parts + 1] = progress.duration((self.total - self.n) / rate) .. " left"
  end
  if note and note ~= "" then parts[#parts + 1] = note end
  return table.concat(parts, ", ")
end

function Bar:clear()
  if self.width > 0 then self.stream:write("\r\27[K") end
  self.width = 0
end

function Bar:draw()
  if self.finished then return end
  local text = self:text(self.note)
  local line = self.label .. " "
  if self.total and self.total > 0 then
    local cells = 24
    local full = math.floor(cells * math.min(1, self.n / self.total))
    line = line .. "[" .. ("="):rep(full) .. (" "):rep(cells - full) .. "] "
  end
  line = (line .. text):sub(1, terminal_width() - 1)
  self.stream:write("\r", line, "\27[K")
  self.stream:flush()
  self.width = #line
end

---Sets the count that is done; draws when the last drawing is old enough.
---@param n number
---@param note? string shown behind the rate, e.g. "loss 0.012"
function Bar:update(n, note)
  self.n, self.note = n, note or self.note
  if self.quiet or self.finished then return end
  local time = now()
  if time - self.shown < self.every then return end
  self.shown = time
  if self.terminal then
    self:draw()
  else
    self.stream:write(self.label, ": ", self:text(self.note), "\n")
    self.stream:flush()
  end
end

function Bar:add(k, note)
  self:update(self.n + (k or 1), note)
end

---Ends the bar with one plain line that stays: count, rate and time taken.
function Bar:finish(note)
  if self.finished then return end
  self.done = true
  if not self.quiet then
    if self.terminal then self:clear() end
    self.stream:write(self.label, ": ", self:text(note or self.note), "\n")
    self.stream:flush()
    if self.terminal then log.before, log.after = self.before, self.after end
  end
  self.finished = true
end

return progress
