-- Runs the node cases of the onnx package (tools/onnx_cases.py wrote them) and counts by operator what passes and what does not, and why; --write
-- replaces the section Node cases of docs/ONNX.md.
-- luajit tools/conformance.lua FOLDER [--write FILE] [--only PATTERN]
require "libration"
local graph = require "libration.graph"
local onnx_import = require "libration.graph.onnx"
local onnx_format = require "libration.formats.onnx"
local files = require "libration.files"
local lfs = require "lfs"
local tensor = require "libration.tensor"

local folder, target, only = arg[1], nil, nil
for i = 2, #arg do
  if arg[i] == "--write" then target = arg[i + 1] end
  if arg[i] == "--only" then only = arg[i + 1] end
end

local function read_list()
  local text = assert(files.read(folder .. "/cases.txt"))
  local version, cases = text:match "^onnx (%S+)", {}
  for name, inputs, outputs, rtol, atol in text:gmatch "\n(%S+) (%d+) (%d+) (%S+) (%S+)" do
    cases[#cases + 1] = { name = name, inputs = tonumber(inputs), outputs = tonumber(outputs), rtol = tonumber(rtol), atol = tonumber(atol) }
  end
  return cases, version
end

-- Why two tensors differ; nil where they do not.
local function difference(name, have, want, case)
  if not have then return name .. " is missing" end
  local a, b = table.concat(have.shape, ","), table.concat(want.shape, ",")
  if a ~= b then return ("%s is [%s], want [%s]"):format(name, a, b) end
  local n = have:numel()
  local x, y = have:to("f64"):contiguous():reshape(n), want:to("f64"):contiguous():reshape(n)
  if n == 0 then return nil end
  local p, q, whole = x:ptr(), y:ptr(), want.dtype == "i32" or want.dtype == "u8"
  for i = 0, n - 1 do
    local u, v = p[i], q[i]
    local allowed = whole and 0 or case.atol + case.rtol * math.abs(v)
    if not (u == v or u ~= u and v ~= v or math.abs(u - v) <= allowed) then
      return ("%s: element %d is %.9g, want %.9g"):format(name, i, u, v)
    end
  end
end

local function run(case)
  local at = folder .. "/" .. case.name .. "/"
  local function load(kind, i)
    if not lfs.attributes(at .. kind .. "_" .. i .. ".pb") then return nil, kind .. " is a sequence or an optional" end
    local t = assert(onnx_format.load_tensor(at .. kind .. "_" .. i .. ".pb"))
    return t.data, not t.data and ("%s of kind %s"):format(kind, t.kind) or nil
  end
  local inputs = {}
  for i = 0, case.inputs - 1 do
    local t, why = load("input", i)
    if not t then return why end
    inputs[i + 1] = t
  end
  local shapes = {}
  local model = assert(onnx_format.load(at .. "model.onnx"))
  for i, info in ipairs(model.graph.inputs) do shapes[info.name] = inputs[i] and inputs[i].shape end
  local network, err = graph.load(at .. "model.onnx", { shapes = shapes })
  if not network then return err end
  local results = network:run(unpack(inputs))
  for i = 0, case.outputs - 1 do
    local want, why = load("output", i)
    if not want then return why end
    local name = network.outputs[i + 1].name
    why = difference(name, results[name], want, case)
    if why then return why end
  end
end

-- The operator that a case is for: that of its only node, else by the case's name.
local function operator_of(case, names)
  local model = onnx_format.load(folder .. "/" .. case.name .. "/model.onnx")
  if model and #model.graph.nodes == 1 then return model.graph.nodes[1].op end
  local plain, best = case.name:gsub("^test_", ""):gsub("_", ""), nil
  for name in pairs(names) do
    if plain:sub(1, #name) == name:lower() and (not best or #name > #best) then best = name end
  end
  return best or "others"
end

local function plain(why, case)
  why = tostring(why):gsub("^.-%.onnx: ", ""):gsub("^.-%.pb: ", "")
  why = why:gsub("node '.-' %((.-)%): ", "%1: ")
  return (why:gsub(case.name, ""))
end

local function main()
  local cases, version = read_list()
  local names, rows, passed, listed = {}, {}, 0, 0
  for _, name in ipairs(onnx_import.operators()) do names[name] = true end
  for _, case in ipairs(cases) do
    if not only or case.name:find(only) then
      local operator = operator_of(case, names)
      local ok, why = pcall(tensor.scope, run, case)
      local row = rows[operator] or { passed = 0, listed = {} }
      rows[operator] = row
      if ok and not why then
        passed, row.passed = passed + 1, row.passed + 1
      else
        listed = listed + 1
        row.listed[#row.listed + 1] = { name = case.name, why = plain(why, case) }
        if not target then print(case.name, plain(why, case)) end
      end
    end
  end
  local order = {}
  for operator in pairs(rows) do order[#order + 1] = operator end
  table.sort(order)
  if target then
    local supported = 0
    for _ in pairs(names) do supported = supported + 1 end
    local about = "`make conformance` runs the node cases of the `onnx` package %s: %d pass, %d are listed with their reasons; %d operators are supported.\n"
    local out = { "## Node cases\n", about:format(version, passed, listed, supported), "| operator | passed | listed |", "|---|---|---|" }
    for _, operator in ipairs(order) do
      out[#out + 1] = ("| %s%s | %d | %d |"):format(operator, names[operator] and "" or " (not supported)", rows[operator].passed, #rows[operator].listed)
    end
    out[#out + 1] = "\n## Listed cases of supported operators\n"
    for _, operator in ipairs(order) do
      if names[operator] then
        for _, item in ipairs(rows[operator].listed) do out[#out + 1] = ("- `%s`: %s"):format(item.name, item.why) end
      end
    end
    local head = ((files.read(target) or "") .. "\n## Node cases\n"):match "^(.-)\n*## Node cases\n"
    assert(files.write(target, head .. "\n\n" .. table.concat(out, "\n") .. "\n"))
  end
  print(("%d passed, %d listed"):format(passed, listed))
end

main()
