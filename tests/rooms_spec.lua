-- rooms_spec.lua: the layout shows the architecture: who may require whom, who alone knows a library, a first line in every file.
local function capture(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function sources(folder, pattern)
  local list = {}
  for path in capture("find " .. folder .. " -type f -name '" .. pattern .. "' | sort"):gmatch "[^\n]+" do list[#list + 1] = path end
  assert(#list > 0, "no " .. pattern .. " below " .. folder)
  return list
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

-- A room may require rooms of its own floor's number or lower; the ground floor's helpers serve all.
local floors = {
  core = 0, sha256 = 0, files = 0, lazy = 0, log = 0, progress = 0, options = 0, config = 0, weights = 0, models = 0,
  device = 1, tensor = 1, view = 1, ops = 2, autograd = 3, record = 3, regions = 3,
  formats = 4, nn = 5, optim = 5, train = 7, media = 8, graph = 9, pose = 10, motion = 11, data = 12, anomaly = 13, report = 14,
}

describe("rooms", function()
  it("require only rooms above their own", function()
    local wrong = {}
    for _, path in ipairs(sources("lua/libration", "*.lua")) do
      local room = path:match "^lua/libration/([%w_]+)"
      local floor = floors[room]
      if room ~= "init" and room ~= "repl" and room ~= "help" and room ~= "recipes" then
        assert(floor, path .. " is in a room that rooms_spec does not know")
        for other in read(path):gmatch "require[%s%(]*[\"']libration%.([%w_]+)" do
          if not floors[other] or floors[other] > floor then wrong[#wrong + 1] = path .. " requires " .. other end
        end
      end
    end
    assert.are.same({}, wrong)
  end)
  it("every source file says in its first line what it is", function()
    local wrong = {}
    for _, path in ipairs(sources("lua csrc recipes tests tools", "*.lua")) do
      if not read(path):match "^%-%-+%s*%w.-%w" and not read(path):match "^#!.-\n%-%-" then wrong[#wrong + 1] = path end
    end
    for _, path in ipairs(sources("csrc", "*.[ch]")) do
      if not read(path):match "^/%*%s*%w.-%w" then wrong[#wrong + 1] = path end
    end
    assert.are.same({}, wrong)
  end)
  it("one file alone knows oneDNN, one OpenMP; the engine knows nothing of poses", function()
    for _, path in ipairs(sources("csrc", "*.[ch]")) do
      local text = read(path)
      if path ~= "csrc/cpu/onednn.c" then assert(not text:find "#include <dnnl", path .. " knows oneDNN") end
      if path ~= "csrc/threads.c" then assert(not text:find "#pragma omp" and not text:find "#include <omp", path .. " knows OpenMP") end
      if not path:find "csrc/media/" then assert(not text:find "libav" and not text:find "png%.h", path .. " knows FFmpeg or libpng") end
    end
  end)
  it("every recipe's first line is what `libration` prints of it", function()
    for _, path in ipairs(sources("recipes", "*.lua")) do assert(read(path):match "^%-%- %u[^\n]+%.\n", path) end
  end)
end)
