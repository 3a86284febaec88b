-- Runs the specs in their passes and ends with `N passed, N failed`: luajit tools/test.lua [plain|interpreted|sanitized|emulated|cuda] [spec...]
-- plain: everything. interpreted: without the JIT compiler, sanitized: under AddressSanitizer and UBSan, both without #slow. What only starts other programs (#process) is
-- left out of the interpreted pass: they are compiled there as well. emulated: what uses the CUDA device, on tests/emu's: its threads in other orders, under AddressSanitizer,
-- and under ThreadSanitizer with barriers as the only order (which starts no program once the device's threads are there). cuda: the same specs on a real one, only when asked for.
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

local function libraries(names)
  local found = {}
  for _, name in ipairs(names) do
    local path = capture("gcc -print-file-name=" .. name)
    if path:sub(1, 1) == "/" then found[#found + 1] = path end
  end
  return "LD_PRELOAD=" .. quote(table.concat(found, ":"))
end

local CHECKED = {
  address = function(words)
    -- libstdc++ too: oneDNN throws, and the sanitizer looks for the thrower when the process starts
    words[#words + 1] = libraries {"libasan.so", "libubsan.so", "libstdc++.so.6"}
    -- LuaJIT frees nothing at exit and its collector is no leak: live tensors are counted by the specs themselves
    words[#words + 1] = "ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1:exitcode=99"
    words[#words + 1] = "UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1"
  end,
  thread = function(words)
    words[#words + 1] = libraries {"libtsan.so"}
    words[#words + 1] = "OMP_NUM_THREADS=1 TSAN_OPTIONS='suppressions=tests/emu/tsan.supp exitcode=66'"
    -- it wants its shadow where a random address may lie
    if os.execute("setarch -R true 2>/dev/null") == 0 then words[#words + 1] = "setarch -R" end
  end,
}

local function environment(pass)
  local paths = {}
  for build in pass.build:gmatch "%S+" do paths[#paths + 1] = ("%s/%s/?.so"):format(HERE, build) end
  local words = {"env", "OMP_WAIT_POLICY=passive", ("LUA_CPATH=%s"):format(quote(table.concat(paths, ";") .. ";;"))} -- passes share the cores
  if pass.seed then words[#words + 1] = "EMU_SEED=" .. pass.seed end
  if pass.checked then CHECKED[pass.checked](words) end
  return table.concat(words, " ")
end

local DEVICE = "tests/device_spec.lua tests/device_sizes_spec.lua tests/device_tiles_spec.lua tests/lstm_device_spec.lua tests/device_training_spec.lua " ..
  "tests/device_train_spec.lua tests/device_pose_spec.lua tests/device_find_spec.lua tests/device_graph_spec.lua tests/device_faults_spec.lua " ..
  "tests/together_spec.lua tests/adapters_spec.lua tests/cudnn_spec.lua tests/ops_spec.lua"

-- apart: a process for each file.
local PASSES = {
  {name = "interpreted", title = "without the JIT compiler (-joff), slow ones left out", build = "build", flags = "-joff", left_out = "slow,process"},
  {name = "sanitized", title = "under AddressSanitizer and UBSan, slow ones left out", build = "build/asan", flags = "", left_out = "slow", checked = "address"},
  {name = "plain", title = "all specs", build = "build", flags = "", apart = true},
  {name = "emulated", title = "the CUDA device emulated, threads in order", build = "build/emu build", flags = "", specs = DEVICE},
  {name = "emulated, mixed", group = "emulated", title = "emulated, threads in another order", build = "build/emu build", flags = "", specs = "tests/device_spec.lua", seed = 7},
  {name = "emulated, address", group = "emulated", title = "emulated, under AddressSanitizer", build = "build/emu-asan build", flags = "", specs = "tests/device_spec.lua",
    checked = "address", asked = true},
  {name = "emulated, races", group = "emulated", title = "emulated, under ThreadSanitizer: barriers are the only order", build = "build/emu-tsan build", flags = "-joff",
    specs = "tests/device_spec.lua", checked = "thread", left_out = "process", asked = true},
  {name = "cuda", title = "on the CUDA device", build = "build", flags = "", specs = DEVICE, asked = true},
}

local function report_of(name) return ("build/test-%s"):format((name:gsub("%W+", "-"))) end

-- The shell's line for one process: specs of a pass.
local function command(pass, name, specs)
  local report = report_of(name)
  os.remove(report .. ".txt")
  return ("%s timeout -k 10 1500 %s %s %s --ignore-lua -o tools/busted_report.lua -Xoutput %s.txt %s %s >%s.out 2>&1 </dev/null; echo $? >%s.code"):format(
    environment(pass), quote(LUAJIT), pass.flags, quote(BUSTED), report, pass.left_out and "--exclude-tags=" .. pass.left_out or "", specs, report, report)
end

local function lines_of(path)
  local file = io.open(path)
  if not file then return {} end
  local lines = {}
  for line in file:lines() do lines[#lines + 1] = line end
  file:close()
  return lines
end

-- Adds a process to the counts by what its report says.
local function count(pass, name)
  local code, counted = tonumber(lines_of(report_of(name) .. ".code")[1]), false
  for _, line in ipairs(lines_of(report_of(name) .. ".txt")) do
    local test, reason = line:match("^pending\t(.-)\t(.*)$")
    if test then
      if not pendings[test] then order[#order + 1] = test end
      pendings[test] = reason
    end
    local good, bad = line:match("^counts\t(%d+)\t(%d+)$")
    if good then
      counted = true
      if code ~= 0 and tonumber(bad) == 0 then bad = 1 end
      passed, failed = passed + good, failed + bad
      pass.passed, pass.failed = (pass.passed or 0) + good, (pass.failed or 0) + bad
    end
  end
  if not counted then
    failed = failed + 1
    pass.failed = (pass.failed or 0) + 1
    print(("%s: ended without a report (status %s): crashed, ran over 25 minutes, or the specs could not start"):format(name, tostring(code)))
  end
end

if BUSTED == "" then
  print("busted is not installed")
  print("0 passed, 1 failed")
  os.exit(1)
end
os.execute("mkdir -p build")
local only, specs = nil, {} -- one pass or group of passes; spec files instead of all
for _, word in ipairs(arg) do
  if word:find("%.lua$") or word:find("/", 1, true) then specs[#specs + 1] = word else only = word end
end

-- The files of a pass, those with tests of minutes first, then those with most slow ones.
local function files_of(pass)
  local list, slow = {}, {}
  for file in capture("ls tests/*_spec.lua"):gmatch "%S+" do list[#list + 1] = file end
  if #specs > 0 then list = specs
  elseif pass.specs then
    list = {}
    for file in pass.specs:gmatch "%S+" do list[#list + 1] = file end
  end
  for i, file in ipairs(list) do
    local text = table.concat(lines_of(file), "\n")
    slow[file] = select(2, text:gsub("#slow", "")) + (text:find("#minutes", 1, true) and 1000 or 0) - i / 1000
  end
  table.sort(list, function(a, b) return slow[a] > slow[b] end)
  return list
end

local known, jobs = false, {}
local function add(pass, name, files)
  jobs[#jobs + 1] = { pass = pass, name = name, line = command(pass, name, files) }
end
for _, pass in ipairs(PASSES) do
  if only and (only == pass.name or only == pass.group) or not (only or pass.asked) then
    known = true
    if pass.build:find "emu" and capture "uname -m" ~= "x86_64" then print(("%s: left out, the emulator is for x86-64"):format(pass.name))
    elseif pass.apart then
      for _, file in ipairs(files_of(pass)) do add(pass, pass.name .. " " .. file:match "([^/]+)%.lua$", file) end
    else
      add(pass, pass.name, table.concat(files_of(pass), " "))
    end
  end
end
if not known then print(("no pass is called %s: plain, interpreted, sanitized, emulated, cuda"):format(only)) end

-- As many processes at once as there are cores, the longest first; the output of each follows when it has ended.
local script = io.open("build/test-jobs.sh", "w")
for _, job in ipairs(jobs) do
  local title = job.pass.apart and "" or ("echo; echo %s; "):format(quote(("== %s =="):format(job.pass.title)))
  script:write(("%s; { %scat %s.out; }\n"):format(job.line, title, report_of(job.name)))
end
script:close()
local started = os.time()
os.execute("xargs -d '\\n' -P \"$(nproc 2>/dev/null || echo 1)\" -I LINE sh -c LINE <build/test-jobs.sh")
for _, job in ipairs(jobs) do count(job.pass, job.name) end
print(("\n%d s"):format(os.time() - started))
for _, pass in ipairs(PASSES) do
  if pass.passed then print(("%s: %d passed, %d failed"):format(pass.name, pass.passed, pass.failed)) end
end

if #order > 0 then
  print(("\n%d pending:"):format(#order))
  for _, name in ipairs(order) do print(("  %s: %s"):format(name, pendings[name])) end
end
print(("\n%d passed, %d failed"):format(passed, failed))
io.stdout:flush()
os.exit(failed == 0 and passed > 0 and 0 or 1)
