-- Broken copies of a small valid file, for specs of readers: every one of them must end in a result or a one-line error. The same copies every run.
local M = {}

-- Park and Miller's generator: the specs draw the same numbers everywhere.
local function generator(seed)
  local state = seed
  return function(n)
    state = state * 16807 % 2147483647
    return state % n + 1
  end
end

-- What a length, an offset or a value becomes: little endian, or the other way round.
local WORDS = {
  "\255\255\255\255", "\255\255\255\127", "\0\0\0\128", "\255\255\0\0", "\0\0\1\0", "\0\0\192\127", "\0\0\128\127", "\1\0\0\0", "\0\0\0\0",
  "\255\255\255\255\255\255\255\127", "\0\0\0\0\0\0\0\128", "\0\0\0\0\0\0\32\0", "\0\0\0\0\1\0\0\0", "\0\0\0\0\0\0\240\127",
}
local NUMBERS = {
  "1e308", "-1e308", "1e400", "-1e400", "nan", "inf", "-1", "0", "1e-320", "2147483648", "-2147483649", "9007199254740993", "99999999999999999999", "0x7fffffff",
  "1e9", "4294967296", ".5", "-0", "", "1 2", "null",
}

-- A number in the text at or after `at` replaced by an extreme one; nil where none follows.
local function other_number(bytes, at, pick)
  local first, last = bytes:find("%-?%d+%.?%d*[eE]?[%-+]?%d*", at)
  return first and bytes:sub(1, first - 1) .. NUMBERS[pick(#NUMBERS)] .. bytes:sub(last + 1)
end

---`count` copies of `bytes`: single bytes changed, runs overwritten, cut off, doubled, with a huge number inside, or a number in its text made an extreme one.
---@param bytes string
---@param count integer
---@param seed? integer
---@return fun(): string? iterator
function M.copies(bytes, count, seed)
  local pick, made = generator(seed or 20250101), 0
  local values = { "\0", "\255", "\127", "\128", "\1" }
  return function()
    made = made + 1
    if made > count then return nil end
    local kind, at = pick(8), pick(#bytes)
    if kind == 1 then return bytes:sub(1, at - 1) end
    if kind == 2 then return bytes:sub(1, at - 1) .. ("\255"):rep(4) .. bytes:sub(at + 4) end
    if kind == 3 then return bytes:sub(1, at) .. bytes:sub(at - math.min(at - 1, pick(16))) end
    if kind == 4 then return bytes:sub(1, at - 1) .. bytes:sub(at + pick(8)) end
    if kind == 7 then
      local word = WORDS[pick(#WORDS)]
      if pick(2) == 1 then word = word:reverse() end
      return bytes:sub(1, at - 1) .. word .. bytes:sub(at + #word)
    end
    local changed = kind == 8 and other_number(bytes, at, pick)
    if changed then return changed end
    changed = bytes
    for _ = 1, kind == 5 and 1 or pick(4) do
      local spot = pick(#bytes)
      local value = pick(2) == 1 and values[pick(#values)] or string.char(pick(256) - 1)
      changed = changed:sub(1, spot - 1) .. value .. changed:sub(spot + 1)
    end
    return changed
  end
end

---Reads every copy: fails the spec where reading raises, where the error is not one line, or where it tells of a place in our own code.
---@param bytes string a valid file
---@param count integer
---@param read fun(copy: string): any, string? returns nil, err for a broken file
---@param seed? integer of the copies
---@return integer refused
function M.survive(bytes, count, read, seed)
  local refused = 0
  for copy in M.copies(bytes, count, seed) do
    local ok, result, err = pcall(read, copy)
    if not ok then error("reading a broken copy raised: " .. tostring(result)) end
    if result == nil then
      refused = refused + 1
      if type(err) ~= "string" or err:find("\n") or err:find("%.lua:%d+:") then error("not a clean error: " .. tostring(err)) end
    end
  end
  return refused
end

return M
