-- nvcc_spec.lua: nvcc compiles every kernel for every GPU generation without a warning. What the kernels compute is for the device's specs.
local files = require "libration.files"
local shell = require "shell"

local GENERATIONS = {"80", "86", "89", "90a", "100", "120"}

local function make(words) return shell("env -u MAKEFLAGS make -s --no-print-directory cuda-check BUILD=build " .. words) end

describe("nvcc #process #slow", function()
  it("compiles all of csrc/cuda for sm_" .. table.concat(GENERATIONS, ", ") .. ", warnings being errors", function()
    if select(2, shell "command -v nvcc || ls /usr/local/cuda/bin/nvcc") ~= 0 then return pending "nvcc is neither in PATH nor in /usr/local/cuda/bin" end
    local text, code = make "-k -j$(nproc)"
    assert.same({"", 0}, {text, code})
    local commands = make "-n -B"
    for _, source in ipairs(files.list("csrc/cuda", "%.cu$")) do
      local command = commands:match("[^\n]* csrc/cuda/" .. source .. " [^\n]*")
      for _, name in ipairs(GENERATIONS) do assert.truthy(command:find("sm_" .. name, 1, true), command) end
      assert.is_true(files.exists("build/cuda-check/" .. source:gsub("cu$", "fatbin")))
    end
  end)
end)
