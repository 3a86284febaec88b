-- Runs a spec's program with tests/meter.c preloaded: what it printed, its exit code; nil and the reason where that cannot be (no compiler, AddressSanitizer's own malloc).
local files = require "libration.files"
local shell = require "shell"

---@param command string as for the shell
---@return string? text, integer|string code or the reason
return function(command)
  if (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true) then return nil, "AddressSanitizer has a malloc of its own" end
  local folder = files.temporary_folder()
  local meter = folder .. "/meter.so"
  local text, code = shell(("gcc -O1 -shared -fPIC -o %s tests/meter.c"):format(files.quote(meter)))
  if code == 0 then
    text, code = shell(("LD_PRELOAD=%s timeout 900 %s"):format(files.quote(meter), command))
  else
    text, code = nil, "needs gcc: " .. text
  end
  files.remove(folder)
  return text, code
end
