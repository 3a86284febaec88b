-- The interactive prompt: reads a line or a whole statement, runs it, prints what it gives. No features beyond that.
--
-- LuaJIT's own prompt puts its handler of Ctrl-C back before each line, and a compiled loop never sees that handler. So this one
-- takes over when LuaJIT first asks for its prompt, and keeps the core's flag installed while a line runs.

local ffi = require "ffi"

local repl = {}

ffi.cdef [[
int isatty(int fd);
void *signal(int number, void *handler);
char *readline(const char *prompt);
void add_history(const char *line);
int read_history(const char *path);
int write_history(const char *path);
void stifle_history(int max);
extern int rl_catch_signals;
int rl_bind_key(int key, void *fn);
int rl_insert(int count, int key);
void free(void *p);
]]

local SIGINT = 2
local IGNORE = ffi.cast("void *", 1)
local HISTORY = 1000

-- values as text: strings quoted inside tables, tables two levels deep and 16 entries long, anything else by tostring
local function show(value, depth)
  if type(value) == "string" and depth > 0 then
    return ("%q"):format(value)
  elseif type(value) ~= "table" or (getmetatable(value) or {}).__tostring then
    return tostring(value)
  elseif depth > 2 then
    return "{...}"
  end
  local parts, count = {}, 0
  local array = #value
  for i = 1, math.min(array, 16) do
    parts[#parts + 1] = show(value[i], depth + 1)
  end
  if array > 16 then
    parts[#parts + 1] = ("... %d more"):format(array - 16)
  end
  local names = {}
  for name in pairs(value) do
    if type(name) ~= "number" or name < 1 or name > array or name % 1 ~= 0 then
      names[#names + 1] = name
    end
  end
  table.sort(names, function(a, b)
    return tostring(a) < tostring(b)
  end)
  for _, name in ipairs(names) do
    count = count + 1
    if count > 16 then
      parts[#parts + 1] = ("... %d more"):format(#names - 16)
      break
    end
    local key = type(name) == "string" and name:match "^[%a_][%w_]*$" or "[" .. tostring(name) .. "]"
    parts[#parts + 1] = key .. " = " .. show(value[name], depth + 1)
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

-- GNU readline where there is one and somebody sits there; else plain lines
local function reader()
  if ffi.C.isatty(0) == 0 then
    return function(prompt)
      io.stdout:write(prompt)
      io.stdout:flush()
      return io.read "*l"
    end
  end
  local ok, lib
  for _, name in ipairs { "libreadline.so.8", "readline" } do
    ok, lib = pcall(ffi.load, name)
    if ok then
      break
    end
  end
  if not ok then
    return function(prompt)
      io.stdout:write(prompt)
      io.stdout:flush()
      return io.read "*l"
    end
  end
  local path
  pcall(function()
    path = require("libration.files").cache() .. "/history"
  end)
  lib.rl_catch_signals = 0
  lib.rl_bind_key(9, ffi.cast("void *", lib.rl_insert))
  lib.stifle_history(HISTORY)
  if path then
    lib.read_history(path)
  end
  return function(prompt)
    local line = lib.readline(prompt)
    if line == nil then
      return nil
    end
    local text = ffi.string(line)
    ffi.C.free(line)
    if text:find "%S" then
      lib.add_history(text)
      if path then
        lib.write_history(path)
      end
    end
    return text
  end
end

-- Reads until a statement is whole; an expression is one as well ("x" or "= x"). The chunk gives one value more in front of an
-- expression's own: without it the last call would be a tail call, and errors would lose their line.
local function read(ask)
  local text = ask "> "
  if not text then
    return nil
  end
  text = text:gsub("^%s*=", "")
  while true do
    local chunk, unfinished = loadstring("return 0, " .. text, "=stdin")
    if chunk then
      return chunk
    end
    local err
    chunk, err = loadstring(text, "=stdin")
    if chunk then
      return chunk
    elseif not (err .. unfinished):find "near '<eof>'" then
      return nil, err
    end
    local more = ask ">> "
    if not more then
      return nil, err
    end
    text = text .. "\n" .. more
  end
end

---Runs the prompt until the input ends. Errors are printed in one line (with a trace under LIBRATION_DEBUG) and the prompt goes on.
function repl.run()
  local ask = reader()
  local C = require("libration.core").C
  local tty = ffi.C.isatty(0) ~= 0
  if tty then
    print 'libration: help() lists the rooms, help "lstm" shows a docstring; Ctrl-C stops a loop, Ctrl-D leaves'
  end
  while true do
    ffi.C.signal(SIGINT, IGNORE) -- a Ctrl-C that comes too late must not end the session
    local chunk, err = read(ask)
    if not chunk and not err then
      break
    end
    C.lbr_interrupt_clear()
    C.lbr_interrupt_install()
    if chunk then
      local function run()
        local values, n = {}, 0
        local function keep(_, ...)
          n = select("#", ...)
          for i = 1, n do
            values[i] = show((select(i, ...)), 0)
          end
        end
        keep(chunk())
        if n > 0 then
          print(table.concat(values, "\t", 1, n))
        end
      end
      local ok
      ok, err = xpcall(run, function(e)
        return os.getenv "LIBRATION_DEBUG" and type(e) == "string" and debug.traceback(e, 2) or e
      end)
      err = not ok and tostring(err) or nil
    end
    if err then
      io.stdout:flush()
      io.stderr:write(err, "\n")
    end
  end
  if tty then
    io.stdout:write "\n"
  end
end

-- `luajit ... -i` without a script: the command line stands at negative indices, and nothing at 0
local function interactive()
  if type(arg) ~= "table" or arg[0] then
    return false
  end
  local i = -1
  while arg[i] do
    if arg[i] == "-i" then
      return true
    end
    i = i - 1
  end
  return false
end

---Called at the end of `require "libration"`: under `luajit -l libration -i` makes the library a global (as `libration` and `lr`, with
---`help`) and takes over when LuaJIT asks for its first prompt, so that other options on the command line are done before.
---@param library table what `require "libration"` returns
function repl.attach(library)
  if not interactive() or getmetatable(_G) then
    return
  end
  rawset(_G, "libration", library)
  rawset(_G, "lr", library)
  rawset(_G, "help", require "libration.help")
  local started = false
  setmetatable(_G, {
    __index = function(_, name)
      if name == "_PROMPT" and not started then
        started = true
        setmetatable(_G, nil)
        repl.run()
        os.exit(0)
      end
    end,
  })
end

return repl
