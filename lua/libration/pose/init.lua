-- The room of poses: who is where in a picture. Each part is loaded when it is first named.
local parts = {
  landmarker = true, blazepose = true, smoothing = true, skeletons = true, draw = true, extract = true, watch = true, stability = true, ssd = true, face = true,
  people = true, tracks = true, masks = true, sidecar = true, finder = true, adapters = true, anonymiser = true, together = true,
}

return setmetatable({}, {
  __index = function(self, name)
    if not parts[name] then return nil end
    local part = require("libration.pose." .. name)
    rawset(self, name, part)
    return part
  end,
})
