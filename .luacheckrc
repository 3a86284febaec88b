-- What luacheck reads: LuaJIT everywhere, the words of busted in specs.
std = "luajit"
max_line_length = 180
codes = true
ignore = {"581"} -- not (x <= y) is meant where x may be NaN
include_files = {"lua/**/*.lua", "recipes/**/*.lua", "models/**/*.lua", "tests/**/*.lua", "tools/**/*.lua", "bin/libration",
  "tests/emu/mutate", ".busted", ".luacheckrc", "*.rockspec"}
exclude_files = {"build", "lua/libration/models", "lua/libration/recipes"}
files["tests/**/*_spec.lua"] = {std = "luajit+busted"}
files["tests/helper.lua"] = {std = "luajit+busted"}
files["*.rockspec"] = {std = "rockspec"}
