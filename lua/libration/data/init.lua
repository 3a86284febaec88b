-- The data room: data sets, splits, the audit, and the rendered infant. Each part is loaded when it is first named.

local parts = { dataset = true, splits = true, audit = true, rows = true, accuracy = true, landmarks = true, infant = true, recording_check = true, near_duplicates = true }

return setmetatable({}, {
  __index = function(self, name)
    if not parts[name] then return nil end
    local part = require("libration.data." .. name)
    rawset(self, name, part)
    return part
  end,
})
