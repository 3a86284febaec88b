-- Files in and out, by name: formats.npy, formats.csv and so on load when first touched. docs/FORMATS.md describes the files.
local names = { csv = true, dlc = true, flatbuffer = true, json = true, npy = true, openpose = true, reader = true, safetensors = true, stream = true, tflite = true, trc = true }

return setmetatable({}, {
  __index = function(self, name)
    if not names[name] then
      local known = {}
      for k in pairs(names) do known[#known + 1] = k end
      table.sort(known)
      error(("formats has no '%s', but %s"):format(tostring(name), table.concat(known, ", ")), 2)
    end
    local format = require("libration.formats." .. name)
    rawset(self, name, format)
    return format
  end,
})
