-- Runs the specs in their passes and ends with `N passed, N failed`: luajit tools/test.lua [plain|interpreted|sanitized] [spec...]
-- plain: everything. interpreted: without the JIT compiler, sanitized: under AddressSanitizer and UBSan, both without #slow. What only starts other programs (#process) is
-- left out of the interpreted pass: they are compiled there as well.
local function capture(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read("*a"):gsub("%s+$", "")
  pipe:close()
  return text
end

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local HERE = capture("pwd")
local BUSTED = capture("command -v busted 2>/dev/null")
local LUAJIT = arg[-1] or "luajit"

-- Counts how a pass ended; a process that died without a report counts as one failure more.
local passed, failed, pendings, order = 0, 0, {}, {}

local function environment(build, preload)
  local words = {("LUA_CPATH=%s"):format(quote(("%s/%s/?.so;;"):format(HERE, build)))}
  if preload then
    local libraries = {}
    -- libstdc++ too: oneDNN throws, and the sanitizer looks for the thrower when the process starts
    for _, name in ipairs {"libasan.so", "libubsan.so", "libstdc++.so.6"} do
      local path = capture("gcc -print-file-name=" .. name)
      if path:sub(1, 1) == "/" then libraries[#libraries + 1] = path end
    end
    words[#words + 1] = "LD_PRELOAD=" .. quote(table.concat(libraries, ":"))
    -- LuaJIT frees nothing at exit and its collector is no leak: live tensors are counted by the specs themselves
    words[#words + 1] = "ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1:exitcode=99"
    words[#words + 1] = "UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1"
  end
  return table.concat(words, " ")
end

local PASSES = {
  {name = "plain", title = "all specs", build = "build", flags = ""},
  {name = "interpreted", title = "without the JIT compiler (-joff), slow ones left out", build = "build", flags = "-joff", left_out = "slow,process"},
  {name = "sanitized", title = "under AddressSanitizer and UBSan, slow ones left out", build = "build/asan", flags = "", left_out = "slow", preload = true},
}

local function run(pass, specs)
  local report = ("build/test-%s.txt"):format(pass.name)
  os.remove(report)
  print(("\n== %s =="):format(pass.title))
  io.stdout:flush()
  local started = os.time()
  local code = os.execute(("%s timeout -k 10 1500 %s %s %s --ignore-lua -o tools/busted_report.lua -Xoutput %s %s %s </dev/null"):format(
    environment(pass.build, pass.preload), quote(LUAJIT), pass.flags, quote(BUSTED), report,
    pass.left_out and "--exclude-tags=" .. pass.left_out or "", specs))
  local counted = false
  local file = io.open(report)
  if file then
    for line in file:lines() do
      local name, reason = line:match("^pending\t(.-)\t(.*)$")
      if name then
        if not pendings[name] then order[#order + 1] = name end
        pendings[name] = reason
      end
      local good, bad = line:match("^counts\t(%d+)\t(%d+)$")
      if good then
        counted = true
        passed, failed = passed + good, failed + bad
        if code ~= 0 and tonumber(bad) == 0 then failed = failed + 1 end
        print(("%s: %s passed, %s failed in %d s"):format(pass.name, good, bad, os.time() - started))
      end
    end
    file:close()
  end
  if not counted then
    failed = failed + 1
    print(("%s: ended without a report (status %s): crashed, ran over 25 minutes, or the specs could not start"):format(pass.name, tostring(code)))
  end
end

if BUSTED == "" then
  print("busted is not installed")
  print("0 passed, 1 failed")
  os.exit(1)
end
os.execute("mkdir -p build")
local only, specs = nil, {}
for _, word in ipairs(arg) do
  if word:find("%.lua$") or word:find("/", 1, true) then specs[#specs + 1] = quote(word) else only = word end
end
local known = false
for _, pass in ipairs(PASSES) do
  if not only or only == pass.name then
    known = true
    run(pass, table.concat(specs, " "))
  end
end
if not known then print(("no pass is called %s: plain, interpreted, sanitized"):format(only)) end

if #order > 0 then
  print(("\n%d pending:"):format(#order))
  for _, name in ipairs(order) do print(("  %s: %s"):format(name, pendings[name])) end
end
print(("\n%d passed, %d failed"):format(passed, failed))
io.stdout:flush()
os.exit(failed == 0 and passed > 0 and 0 or 1)
