-- JSON with sorted keys and numbers that read back the same, so that equal tables give equal bytes. Reading is cjson's.

local cjson = require "cjson"

local json = {}

--- Stands for null in tables to be written.
json.null = cjson.null

local function quote(text)
  return '"' .. text:gsub('[%c"\\\127]', function(c)
    local short = ({ ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" })[c]
    return short or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local function number(v)
  if v ~= v or v == math.huge or v == -math.huge then return "null" end
  if v % 1 == 0 and math.abs(v) < 2 ^ 53 then return ("%.0f"):format(v) end
  for digits = 6, 17 do
    local text = ("%." .. digits .. "g"):format(v)
    if tonumber(text) == v then return text end
  end
end

local function write(v, indent, out, seen)
  local kind = type(v)
  if v == cjson.null or v == nil then
    out[#out + 1] = "null"
  elseif kind == "string" then
    out[#out + 1] = quote(v)
  elseif kind == "number" then
    out[#out + 1] = number(v)
  elseif kind == "boolean" then
    out[#out + 1] = tostring(v)
  elseif kind == "table" then
    if seen[v] then error("json: a table that holds itself", 0) end
    seen[v] = true
    local inner = indent and indent .. "  "
    local before = indent and "\n" .. inner or ""
    local keys, list = {}, #v > 0 or (getmetatable(v) or {}).list
    if list then
      out[#out + 1] = "["
      local flat = type(v[1]) ~= "table"
      for i = 1, #v do
        out[#out + 1] = (i > 1 and "," or "") .. (flat and (indent and i > 1 and " " or "") or before)
        write(v[i], inner, out, seen)
      end
      out[#out + 1] = (flat or not indent) and "]" or "\n" .. indent .. "]"
    else
      for k in pairs(v) do
        if type(k) ~= "string" then error(("json: a table with the key %s, want a list or names"):format(tostring(k)), 0) end
        keys[#keys + 1] = k
      end
      table.sort(keys)
      out[#out + 1] = "{"
      for i, k in ipairs(keys) do
        out[#out + 1] = (i > 1 and "," or "") .. before .. quote(k) .. (indent and ": " or ":")
        write(v[k], inner, out, seen)
      end
      out[#out + 1] = (indent and #keys > 0) and "\n" .. indent .. "}" or "}"
    end
    seen[v] = nil
  else
    error(("json: cannot write a %s"):format(kind), 0)
  end
end

--- An empty list, which would else be written as {}.
---@param t table?
---@return table
function json.list(t)
  return setmetatable(t or {}, { list = true })
end

--- Text of a value; NaN and infinity become null.
---@param value any tables are lists where they have a first element, else objects by name
---@param pretty boolean? on several lines
---@return string
function json.encode(value, pretty)
  local out = {}
  write(value, pretty and "" or nil, out, {})
  return table.concat(out)
end

--- Value of a text.
---@param text string
---@return any value, or nil and the reason
function json.decode(text)
  if text:find("\0", 1, true) then return nil, "it holds a zero byte" end -- where cjson would stop reading
  local ok, value = pcall(cjson.decode, text)
  if not ok then return nil, tostring(value) end
  return value
end

return json
