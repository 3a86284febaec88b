-- Runs the specs in their passes and ends with `N passed, N failed`: luajit tools/test.lua [plain|interpreted|sanitized|emulated|cuda] [spec...]
-- plain: everything. interpreted: without the JIT compiler, sanitized: under AddressSanitizer and UBSan, both without #slow. What only starts other programs (#process) is
-- left out of the interpreted pass: they are compiled there as well. emulated: what uses the CUDA device, on tests/emu's: its threads in other orders, under AddressSanitizer,
-- and under ThreadSanitizer with barriers as the only order. cuda: the same specs on a real one, only when asked for.
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
  local words = {"env", ("LUA_CPATH=%s"):format(quote(table.concat(paths, ";") .. ";;"))}
  if pass.group == "checks" then words[#words + 1] = "OMP_WAIT_POLICY=passive" end -- they share the cores
  if pass.seed then words[#words + 1] = "EMU_SEED=" .. pass.seed end
  if pass.checked then CHECKED[pass.checked](words) end
  return table.concat(words, " ")
end

local DEVICE = "tests/device_spec.lua tests/device_sizes_spec.lua tests/device_tiles_spec.lua tests/lstm_device_spec.lua tests/device_training_spec.lua " ..
  "tests/device_train_spec.lua tests/device_faults_spec.lua tests/cudnn_spec.lua tests/ops_spec.lua"

local PASSES = {
  {name = "plain", title = "all specs", build = "build", flags = ""},
  {name = "interpreted", title = "without the JIT compiler (-joff), slow ones left out", build = "build", flags = "-joff", left_out = "slow,process", group = "checks"},
  {name = "sanitized", title = "under AddressSanitizer and UBSan, slow ones left out", build = "build/asan", flags = "", left_out = "slow", checked = "address",
    group = "checks"},
  {name = "emulated", title = "the CUDA device emulated, threads in order", build = "build/emu build", flags = "", specs = DEVICE},
  {name = "emulated, mixed", group = "emulated", title = "emulated, threads in another order", build = "build/emu build", flags = "", specs = "tests/device_spec.lua", seed = 7},
  {name = "emulated, address", group = "emulated", title = "emulated, under AddressSanitizer", build = "build/emu-asan build", flags = "", specs = "tests/device_spec.lua",
    checked = "address", asked = true},
  {name = "emulated, races", group = "emulated", title = "emulated, under ThreadSanitizer: barriers are the only order", build = "build/emu-tsan build", flags = "-joff",
    specs = "tests/device_spec.lua", checked = "thread", asked = true},
  {name = "cuda", title = "on the CUDA device", build = "build", flags = "", specs = DEVICE, asked = true},
}

local function report_of(pass) return ("build/test-%s.txt"):format((pass.name:gsub("%W+", "-"))) end

local function command(pass, specs)
  os.remove(report_of(pass))
  return ("%s timeout -k 10 1500 %s %s %s --ignore-lua -o tools/busted_report.lua -Xoutput %s %s %s </dev/null"):format(
    environment(pass), quote(LUAJIT), pass.flags, quote(BUSTED), report_of(pass),
    pass.left_out and "--exclude-tags=" .. pass.left_out or "", specs ~= "" and specs or pass.specs or "")
end

-- Adds a pass to the counts by what its report says.
local function count(pass, code, started)
  local counted = false
  local file = io.open(report_of(pass))
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
local only, specs = nil, {} -- one pass or group of passes; spec files instead of all
for _, word in ipairs(arg) do
  if word:find("%.lua$") or word:find("/", 1, true) then specs[#specs + 1] = quote(word) else only = word end
end

-- Runs passes at the same time (each keeps about one core busy); alone one shows its output as it comes, of several it follows when each has ended.
local function run(passes)
  local started, ends = os.time(), {}
  for i, pass in ipairs(passes) do
    local line = command(pass, table.concat(specs, " "))
    if #passes > 1 then
      ends[i] = io.popen(("{ %s; } >%s.out 2>&1; echo $?"):format(line, report_of(pass)))
    else
      print(("\n== %s =="):format(pass.title))
      io.stdout:flush()
      count(pass, os.execute(line), started)
    end
  end
  for i, pass in ipairs(passes) do
    if not ends[i] then break end
    local code = tonumber(ends[i]:read "*a") or 1
    ends[i]:close()
    print(("\n== %s =="):format(pass.title))
    local file = io.open(report_of(pass) .. ".out")
    if file then
      io.write(file:read "*a")
      file:close()
    end
    count(pass, code, started)
  end
end

local known, at_once = false, {}
for _, pass in ipairs(PASSES) do
  if only and (only == pass.name or only == pass.group) or not (only or pass.asked) then
    known = true
    if pass.build:find "emu" and capture "uname -m" ~= "x86_64" then print(("\n%s: left out, the emulator is for x86-64"):format(pass.name))
    elseif pass.group == "checks" then at_once[#at_once + 1] = pass
    else run {pass} end
  end
end
run(at_once)
if not known then print(("no pass is called %s: plain, interpreted, sanitized, emulated, cuda"):format(only)) end

if #order > 0 then
  print(("\n%d pending:"):format(#order))
  for _, name in ipairs(order) do print(("  %s: %s"):format(name, pendings[name])) end
end
print(("\n%d passed, %d failed"):format(passed, failed))
io.stdout:flush()
os.exit(failed == 0 and passed > 0 and 0 or 1)
