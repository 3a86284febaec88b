-- Colours and type of every plot and page: names of roles, never literal colours elsewhere. Draws nothing.
--
-- Series colours were searched for by hue: largest least distance (OKLab) of any two as seen with normal sight, protanopia,
-- deuteranopia and tritanopia (Machado et al. 2009), at 3:1 or more against their ground. tests/theme_spec.lua measures them.
-- The dark set keeps the hues and order, so that a legend reads the same on both.

local theme = {}

---@class libration.report.theme.Role
---@field [1] string colour on a light ground, "#rrggbb"
---@field [2] string colour on a dark ground, "#rrggbb"

theme.roles = {
  paper = { "#ffffff", "#161a20" },
  ink = { "#1c2128", "#e8eaed" },
  muted = { "#5b6470", "#a3abb6" },
  axis = { "#7d8590", "#7c8593" },
  panel = { "#46505c", "#2b313a" },
  grid = { "#e6e9ed", "#2b313a" },
  flag = { "#dd6910", "#ee5f24" },
  threshold = { "#1c2128", "#e8eaed" },
  s1 = { "#2560c1", "#3c93fa" }, -- blue
  s2 = { "#dd6910", "#e7490a" }, -- vermillion
  s3 = { "#2ca07f", "#c2ffcc" }, -- green
  s4 = { "#a9047f", "#aa5d91" }, -- purple
  s5 = { "#795613", "#f5a208" }, -- brown, amber
  s6 = { "#403d37", "#b8bebd" }, -- grey
}

---How many series colours there are before they repeat.
theme.series = 6

---The family asked for: Cairo's toy text takes one name, fontconfig maps it to the nearest metric twin.
theme.family = "Helvetica"
theme.css_family = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"

---Role of the nth series.
---@param n integer counted from 1
---@return string role
function theme.nth(n)
  return "s" .. ((n - 1) % theme.series + 1)
end

---Colour of a role as three numbers.
---@param role string a name in `theme.roles`, or "#rrggbb"
---@param dark boolean|nil
---@return number r 0..1
---@return number g 0..1
---@return number b 0..1
function theme.rgb(role, dark)
  local hex = theme.hex(role, dark)
  return tonumber(hex:sub(2, 3), 16) / 255, tonumber(hex:sub(4, 5), 16) / 255, tonumber(hex:sub(6, 7), 16) / 255
end

---Colour of a role as text. Raises for a name that is neither a role nor "#rrggbb".
---@param role string
---@param dark boolean|nil
---@return string hex "#rrggbb"
function theme.hex(role, dark)
  local pair = theme.roles[role]
  if pair then
    return pair[dark and 2 or 1]
  end
  if type(role) == "string" and role:match("^#%x%x%x%x%x%x$") then
    return role
  end
  error("plot colour: came " .. tostring(role) .. ", wanted a role (s1..s" .. theme.series .. ", ink, muted, flag) or #rrggbb", 2)
end

return theme
