-- Messages with levels to the console and, once opened, to a file with timestamps. Decides nothing about what is said.
local log = {}

local LEVELS = {debug = 1, info = 2, warn = 3, error = 4}
local PREFIX = {debug = "debug: ", info = "", warn = "warning: ", error = "error: "}

local threshold, console, file, file_path = LEVELS.info, io.stderr, nil, nil

-- progress.lua puts a function here that clears its bar before a line is printed and one that draws it again after.
log.before, log.after = nil, nil

---@param level? "debug"|"info"|"warn"|"error" what reaches the console; the file gets everything from "debug" on
---@param stream? table where the console's lines go instead of stderr
---@param path? string log file, appended to, one line at once
---@param options {level: string, stream: table, path: string}
---@return boolean|nil true, or nil and the reason when the file cannot be opened
function log.setup(options)
  if options.level then
    threshold = LEVELS[options.level] or error(("log.setup: level is %s, want debug, info, warn or error"):format(options.level), 2)
  end
  if options.stream then console = options.stream end
  if options.path then
    local opened, reason = io.open(options.path, "a")
    if not opened then return nil, "cannot write log " .. reason end
    opened:setvbuf("no") -- a line is one string and one write; of a line-buffered file one never hears that the disk is full
    log.close()
    file, file_path = opened, options.path
  end
  return true
end

---Closes the log file, if one is open.
function log.close()
  if file then file:close() end
  file = nil
end

local write
function write(level, format, ...)
  local text = select("#", ...) > 0 and format:format(...) or tostring(format)
  if file then
    local written, reason = file:write(("%s %-5s %s\n"):format(os.date("%Y-%m-%d %H:%M:%S"), level, text))
    if not written then -- results matter more than the log: the work goes on
      log.close()
      reason = tostring(reason):find("No space left", 1, true) and "the disk is full (no space left)" or tostring(reason)
      write("warn", "cannot write %s any more: %s", file_path, reason)
    end
  end
  if LEVELS[level] < threshold then return end
  if log.before then log.before() end
  console:write(PREFIX[level], text, "\n")
  console:flush()
  if log.after then log.after() end
end

---Each takes a format and its values, as string.format; a lone text is printed as it is.
function log.debug(...) write("debug", ...) end
function log.info(...) write("info", ...) end
function log.warn(...) write("warn", ...) end
function log.error(...) write("error", ...) end

---An error as one line for people: without the position it was raised at, unless it is a fault of the program itself.
---@param err any what pcall caught
---@return string
function log.reason(err)
  local text = tostring(err)
  local first = text:match("^[^\n]*")
  if first:match(":$") and text:find("\n") then first = first .. " " .. text:match("\n%s*([^\n]*)") end
  local position, rest = first:match("^([^%s:][^\n:]-:%d+): (.*)$")
  if position and not (rest:find("^attempt to ") or rest:find("^bad argument") or rest:find("^module ") or rest:find("overflow")) then
    first = rest
  end
  return first
end

return log
