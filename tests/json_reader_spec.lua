-- Specs of reading JSON piece by piece: what lies across the ends of the pieces that a file is read in, long texts, lines of errors far into a file. Fields: sidecar_spec.
local files = require "libration.files"
local json_reader = require "libration.formats.json_reader"

describe("json reader", function()
  local folder, path
  setup(function()
    folder = files.temporary_folder()
    path = folder .. "/a.json"
  end)
  teardown(function() files.remove(folder) end)

  local function open(text, limit)
    files.write(path, text)
    return json_reader.open(path, limit or 1e9)
  end

  it("reads texts, escapes and numbers across the ends of pieces", function()
    for _, from in ipairs { 65536, 262144, 262144 + 65536 } do
      for shift = -16, 4, 2 do
        local long = ("x"):rep(from + shift - 2)
        local r = assert(open('["' .. long .. '\\u00e9\\n\\"", -1.25e2, true, null,  "' .. long .. '"]'))
        local seen = {}
        r:list(function(i)
          if i == 2 then seen[i] = r:number() elseif i == 3 then seen[i] = r:boolean() elseif i == 4 then seen[i] = r:null() else seen[i] = r:string() end
        end)
        r:finish()
        assert.is_true(seen[1] == long .. 'é\n"' and seen[5] == long)
        assert.same({ -125, true, true }, { seen[2], seen[3], seen[4] })
      end
    end
  end)

  it("counts the lines of a long file, keeps no more than a window of it, and stops at its limit", function()
    local lines = {}
    for i = 1, 100000 do lines[i] = ('{"a": %d}'):format(i) end
    lines[77777] = '{"b": 1}'
    local text = "[" .. table.concat(lines, ",\n") .. "]"
    local r, widest = assert(open(text)), 0
    local ok, err = pcall(r.list, r, function(i)
      r:object({ a = function() assert.equal(i, r:number()) end }, { "a" })
      widest = math.max(widest, #r.text)
    end)
    assert.is_false(ok)
    assert.equal(path .. ", line 77777, [77777].b: unknown field; known are a", err)
    assert.is_true(widest < 400000)
    lines[77777], lines[88888] = '{"a": 77777}', "{\n\n}"
    r = assert(open("[" .. table.concat(lines, ",\n") .. "]"))
    ok, err = pcall(r.list, r, function() r:object({ a = function() r:number() end }, { "a" }) end)
    assert.is_false(ok)
    assert.equal(path .. ", line 88888, [88888]: the field 'a' is missing", err)
    r = assert(open(text, 1000))
    ok, err = pcall(r.list, r, function() end)
    assert.is_false(ok)
    assert.matches("it has more than 1000 bytes", err, 1, true)
    assert.is_nil((json_reader.open(folder, 10)))
  end)

  it("refuses what ends too early, and what follows the end", function()
    for text, want in pairs { ['["' .. ("y"):rep(300000)] = "text without its closing quote", ["[1] 2"] = "'2' after the end", [("\n"):rep(300000) .. "?"] = "line 300001" } do
      local r = assert(open(text))
      local ok, err = pcall(function()
        r:list(function() if text:find("^%[\"") then r:string() else r:number() end end)
        r:finish()
      end)
      assert.is_false(ok)
      assert.matches(want, err, 1, true)
    end
  end)
end)
