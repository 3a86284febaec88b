-- A loop of temporaries at the prompt, with ballast on the Lua heap: how the process's memory goes. `luajit tests/repl_loop.lua 600` runs it
-- for ten minutes from the root of the checkout and prints a line for each tenth.

-- @param seconds number how long the loop runs
-- @return integer[] kib resident memory after each tenth of the time
-- @return integer steps operations done
-- @return string text all that the prompt printed
local function loop(seconds)
  local input = os.tmpname()
  local file = assert(io.open(input, "w"))
  file:write(([[
ballast = {} for i = 1, 200000 do ballast[i] = {i, tostring(i)} end
function resident() for line in io.lines "/proc/self/status" do local kib = line:match "^VmRSS:%%s*(%%d+)" if kib then return tonumber(kib) end end end
a, b = lr.randn({64, 512}, {seed = 1}), lr.randn({64, 512}, {seed = 2})
steps = 0
do
  local now = lr.core.C.lbr_clock
  local stop, mark = now() + %g, now() + %g
  while now() < stop do
    for _ = 1, 50 do
      local c = (a + b) * a
      local d = lr.sum(c - b)
      steps = steps + 4
    end
    if now() >= mark then
      mark = mark + %g
      print("resident", resident(), steps)
    end
  end
end
print("end")
]]):format(seconds, seconds / 10, seconds / 10))
  file:close()
  local pipe = io.popen(("LUA_PATH='./lua/?.lua;./lua/?/init.lua;;' luajit -l libration -i < %s 2>&1"):format(input))
  local text = pipe:read "*a"
  pipe:close()
  os.remove(input)
  local kib, steps = {}, 0
  for memory, count in text:gmatch "resident%s+(%d+)%s+(%d+)" do
    kib[#kib + 1], steps = tonumber(memory), tonumber(count)
  end
  return kib, steps, text
end

if arg and arg[0] and arg[0]:match "repl_loop%.lua$" then
  local kib, steps, text = loop(tonumber(arg[1]) or 600)
  if #kib == 0 then io.stderr:write(text) os.exit(1) end
  for i, memory in ipairs(kib) do print(("%3d %%  %.1f MiB"):format(i * 10, memory / 1024)) end
  print(("%d operations, growth after the first tenth %.1f MiB"):format(steps, (kib[#kib] - kib[1]) / 1024))
end

return loop
