-- The rock: `luarocks make` into an empty tree, used from a folder that holds no checkout.
local files = require "libration.files"
local shell = require "shell"

describe("rock", function()
  local folder, tree, installed

  setup(function()
    folder = files.temporary_folder()
    tree = folder .. "/tree"
    files.mkdirs(folder .. "/elsewhere")
  end)
  teardown(function() files.remove(folder) end)

  local function install()
    if select(2, shell("command -v luarocks")) ~= 0 then pending("needs luarocks") end
    if installed == nil then
      local text, code = shell(("env -u LUA_PATH -u LUA_CPATH CUDA=0 luarocks --lua-version=5.1 make --deps-mode=none --tree %s"):format(tree))
      installed = code == 0 or text
    end
    assert.is_true(installed)
  end

  -- In a folder without a checkout, with the tree's paths as `luarocks path` gives them.
  local function elsewhere(command)
    return shell(("cd %s/elsewhere && LUA_PATH='%s/share/lua/5.1/?.lua;%s/share/lua/5.1/?/init.lua;;' LUA_CPATH='%s/lib/lua/5.1/?.so;;' %s")
      :format(folder, tree, tree, tree, command))
  end

  it("installs modules, libraries, recipes and definitions #slow", function()
    install()
    for _, path in ipairs {"lib/lua/5.1/libration_core.so", "lib/lua/5.1/libration_media.so", "share/lua/5.1/libration/init.lua",
      "share/lua/5.1/libration/models/manifest.lua", "share/lua/5.1/libration/recipes/models.lua", "bin/libration"} do
      assert.is_true(files.exists(tree .. "/" .. path), path .. " is missing")
    end
  end)

  it("answers require \"libration\".version from any folder #slow", function()
    install()
    local text, code = elsewhere([[luajit -e 'print(require "libration".version)']])
    assert.equal(0, code, text)
    assert.equal(require("libration").version .. "\n", text)
    assert.equal("libration " .. text, (shell(("cd %s/elsewhere && env -u LUA_PATH -u LUA_CPATH %s/bin/libration --version"):format(folder, tree))))
  end)

  it("gives each recipe's --help as the checkout does #slow", function()
    install()
    local count = 0
    for _, name in ipairs(files.list("recipes", "%.lua$")) do
      local recipe = name:gsub("%.lua$", "")
      local want, code = shell(("luajit recipes/%s --help"):format(name))
      assert.equal(0, code, want)
      assert.same({want, 0}, {elsewhere(("%s/bin/libration %s --help"):format(tree, recipe))})
      count = count + 1
    end
    assert.is_true(count >= 1)
  end)

  it("lists its dependencies and is what luarocks accepts #slow", function()
    install()
    local text, code = shell("luarocks --lua-version=5.1 lint libration-scm-1.rockspec")
    assert.equal(0, code, text)
    local spec = {}
    setfenv(assert(loadfile("libration-scm-1.rockspec")), spec)()
    assert.truthy(table.concat(spec.dependencies, "\n"):find("lua == 5.1", 1, true))
  end)
end)
