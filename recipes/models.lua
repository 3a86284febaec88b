-- Fetches pretrained weights into the cache folder and verifies them.
local here = arg and arg[0] and arg[0]:match("^(.*)[/\\]") or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/../lua/?/init.lua;" .. package.path
local options = require "libration.options"
local weights = require "libration.weights"

options.main(function()
  local manifest = weights.manifest()
  local names = {}
  for i, entry in ipairs(manifest.files) do names[i] = entry.name end

  local o = options.parse("models", "Fetches pretrained weights into the cache folder and verifies them.", {
    {"list", false, "print the names that can be fetched and where those present lie, fetch nothing"},
    {"all", false, "fetch every file that can be had"},
    positional = {"name", manifest.default, "weights to fetch, one or more of those that --list prints", metavar = "NAME", many = true, required = false, choices = names},
  }, arg)

  if o.list then
    for _, name in ipairs(names) do
      print(("%-34s %s"):format(name, weights.find(name) or "not fetched"))
    end
    return
  end
  local missing = {}
  for _, name in ipairs(o.all and names or o.name) do
    local ok, path = pcall(weights.path, name)
    if ok then
      print(("%-34s %s"):format(name, path))
    elseif o.all and not tostring(path):find("interrupted", 1, true) then
      missing[#missing + 1] = tostring(path)
    else
      error(path, 0)
    end
  end
  if #missing > 0 then error(table.concat(missing, "; "), 0) end
end)
