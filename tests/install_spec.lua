-- Set-up and installation: tools/setup on systems played by a PATH of our own, make install, the command. The rock is in rock_spec.
local files = require "libration.files"
local shell = require "shell"

describe("setup", function()
  local folder
  before_each(function()
    folder = files.temporary_folder()
    files.mkdirs(folder .. "/bin")
    for _, tool in ipairs {"sh", "awk", "tr", "dirname", "mktemp", "rm", "grep", "tail", "env", "cat"} do
      local at = shell("command -v " .. tool):gsub("%s+$", "")
      require("lfs").link(at, folder .. "/bin/" .. tool, true)
    end
  end)
  after_each(function() files.remove(folder) end)

  local function program(name, body)
    files.write(folder .. "/bin/" .. name, "#!/bin/sh\n" .. body .. "\n")
    shell("chmod +x " .. folder .. "/bin/" .. name)
  end

  local function setup_run(words) return shell(("PATH=%s/bin tools/setup %s"):format(folder, words)) end

  it("prints what is needed on another system and stops", function()
    local text, code = setup_run("build run test")
    assert.equal(1, code)
    assert.truthy(text:find("neither Debian nor Ubuntu", 1, true))
    assert.truthy(text:find("Not found here: cc make pkg-config libavformat", 1, true))
    assert.truthy(text:find("libdnnl-dev", 1, true))
    assert.truthy(text:find("busted", 1, true))
  end)

  it("goes on silently on another system that has everything", function()
    for _, tool in ipairs {"luajit", "curl", "busted"} do program(tool, "exit 0") end
    assert.same({"", 0}, {setup_run("run test")})
  end)

  it("installs only what is missing, through sudo where not root", function()
    program("dpkg-query", "echo 'luajit installed'; echo 'lua-cjson config-files'; exit 1")
    program("id", "echo 1000")
    program("apt-get", ('echo "$@" >> %s/log'):format(folder))
    local text, code = setup_run("run")
    assert.equal(1, code)
    assert.truthy(text:find("needs root or sudo. As root: apt-get install lua-filesystem lua-cjson", 1, true), text)
    assert.is_false(files.exists(folder .. "/log"))
    program("sudo", ('echo sudo >> %s/log; exec "$@"'):format(folder))
    text, code = setup_run("run")
    assert.equal(0, code, text)
    local asked = files.read(folder .. "/log")
    assert.truthy(asked:find("^sudo\n.- update\nsudo\n.- install %-%-no%-install%-recommends lua%-filesystem lua%-cjson "), asked)
    assert.falsy(asked:find("luajit", 1, true))
  end)

  it("does nothing where all is installed, and takes either of two names", function()
    program("apt-get", "exit 1")
    program("dpkg-query", [[for name in "$@"; do case $name in -*|*'{'*|pkg-config) ;; *) echo "$name installed" ;; esac; done; exit 1]])
    assert.same({"", 0}, {setup_run("build run test lint")})
  end)

  it("takes an optional package where the archive has it, and goes on without it", function()
    program("dpkg-query", [[for name in "$@"; do case $name in -*|*'{'*|chromium) ;; *) echo "$name installed" ;; esac; done; exit 1]])
    program("id", "echo 0")
    program("apt-get", ('echo "$@" >> %s/log; echo "E: no network"; exit 100'):format(folder))
    program("apt-cache", "exit 100")
    assert.same({"", 0}, {setup_run("test")})
    assert.is_false(files.exists(folder .. "/log"))
    program("apt-cache", "echo 'Filename: pool/c'")
    local text, code = setup_run("test")
    assert.equal(0, code)
    assert.truthy(text:find("E: no network\nsetup: going on without chromium", 1, true), text)
    assert.truthy(files.read(folder .. "/log"):find("install --no-install-recommends chromium\n", 1, true))
  end)

  it("shows apt's own complaint", function()
    program("dpkg-query", "exit 1")
    program("id", "echo 0")
    program("apt-get", "echo 'E: Unable to locate package libdnnl-dev'; exit 100")
    local text, code = setup_run("build")
    assert.equal(1, code)
    assert.truthy(text:find("E: Unable to locate package libdnnl-dev", 1, true))
    assert.truthy(text:find("could not install: gcc", 1, true))
  end)
end)

describe("command", function()
  it("lists the recipes with a line each", function()
    local text, code = shell("bin/libration")
    assert.equal(0, code)
    assert.truthy(text:find("\n  models +Fetches pretrained weights"))
    assert.equal(text, (shell("bin/libration --help")))
    for name in require("lfs").dir("recipes") do
      local recipe = name:match("^(.*)%.lua$")
      if recipe then assert.truthy(text:find("\n  " .. recipe:gsub("%p", "%%%0") .. " +%u"), recipe .. " has no line") end
    end
  end)

  it("refuses an unknown recipe by listing those it knows", function()
    local text, code = shell("bin/libration modls")
    assert.equal(2, code)
    assert.truthy(text:find("libration: no recipe modls (did you mean models?); known: ", 1, true))
    text, code = shell("bin/libration ../init")
    assert.equal(2, code)
    assert.truthy(text:find("no recipe ../init", 1, true))
  end)

  it("runs a recipe as luajit does", function()
    assert.same({shell("luajit recipes/models.lua --help")}, {shell("bin/libration models --help")})
    assert.same({shell("luajit recipes/models.lua --nonsense")}, {shell("bin/libration models --nonsense")})
  end)

  it("prints the version of the library", function()
    assert.equal("libration " .. require("libration").version .. "\n", (shell("bin/libration --version")))
  end)
end)

describe("make install", function()
  it("puts modules, libraries, recipes, definitions and the command under PREFIX #slow", function()
    local folder = files.temporary_folder()
    local text, code = shell(("make -s install CUDA=0 PREFIX=%s/usr"):format(folder))
    assert.equal(0, code, text)
    for _, path in ipairs {"lib/lua/5.1/libration_core.so", "lib/lua/5.1/libration_media.so", "share/lua/5.1/libration/init.lua",
      "share/lua/5.1/libration/options.lua", "share/lua/5.1/libration/models/manifest.lua", "share/lua/5.1/libration/recipes/models.lua", "bin/libration"} do
      assert.is_true(files.exists(folder .. "/usr/" .. path), path .. " is missing")
    end
    text = shell(("cd %s && env -u LUA_PATH -u LUA_CPATH usr/bin/libration --version"):format(folder))
    assert.equal("libration " .. require("libration").version .. "\n", text)
    files.remove(folder)
  end)
end)
