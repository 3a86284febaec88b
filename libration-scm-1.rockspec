rockspec_format = "3.0"
package = "libration"
version = "scm-1"
-- What `luarocks make` in a checkout builds and installs; the sources are those beside this file.
source = {url = "."}
description = {
  summary = "From video to landmarks, motion and decisions, in LuaJIT with a C core",
  detailed = [[
libration turns RGB video into motion and motion into decisions: landmarks from frames, models trained on how bodies move,
and reports a person can act on. Needs LuaJIT 2.1, oneDNN, FFmpeg, libpng and Cairo (tools/packages.txt lists their packages).]],
  license = "MIT",
}
supported_platforms = {"unix"}
dependencies = {"lua == 5.1", "luafilesystem >= 1.8", "lua-cjson >= 2.1"}
build = {
  type = "make",
  build_target = "all",
  install_target = "install",
  install_variables = {BINDIR = "$(BINDIR)", LUADIR = "$(LUADIR)", LIBDIR = "$(LIBDIR)"},
}
-- The command finds its modules from where it lies and runs under luajit; a wrapper would start the Lua that LuaRocks runs under.
deploy = {wrap_bin_scripts = false}
