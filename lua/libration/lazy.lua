-- Tables whose fields are modules, each loaded when it is first named. Knows no module.

--- Lets a table load what is first named of it; what it does not know is nil.
---@param prefix string "libration.pose."
---@param names string modules under it, with spaces between
---@param self? table {}
---@return table self
return function(prefix, names, self)
  local known = {}
  for name in names:gmatch "%S+" do known[name] = true end
  return setmetatable(self or {}, { __index = function(t, name)
    if not known[name] then return nil end
    local part = require(prefix .. name)
    rawset(t, name, part)
    return part
  end })
end
