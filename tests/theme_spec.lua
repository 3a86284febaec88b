-- Specs of colours: told apart with every common colour vision, and strong enough against their ground, on plots and on pages.
local html = require "libration.report.html"
local theme = require "libration.report.theme"

-- What the three dichromacies see, linear RGB (Machado, Oliveira & Fernandes 2009, severity 1).
local SIGHTS = {
  { name = "normal sight", 1, 0, 0, 0, 1, 0, 0, 0, 1 },
  { name = "protanopia", 0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998 },
  { name = "deuteranopia", 0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820, 0.042940, 0.968881 },
  { name = "tritanopia", 1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.303900 },
}

local function linear(hex)
  local out = {}
  for i = 1, 3 do
    local c = tonumber(hex:sub(2 * i, 2 * i + 1), 16) / 255
    out[i] = c <= 0.04045 and c / 12.92 or ((c + 0.055) / 1.055) ^ 2.4
  end
  return out[1], out[2], out[3]
end

local function seen(hex, m)
  local r, g, b = linear(hex)
  local function mix(i) return math.max(0, math.min(1, m[i] * r + m[i + 1] * g + m[i + 2] * b)) end
  return mix(1), mix(4), mix(7)
end

-- OKLab (Ottosson 2020): distances in it are about as large as they look; .02 is just seen side by side.
local function oklab(r, g, b)
  local l = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ^ (1 / 3)
  local m = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ^ (1 / 3)
  local s = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ^ (1 / 3)
  return 0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s, 1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s
end

local function distance(a, b, sight)
  local l, x, y = oklab(seen(a, sight))
  local L, X, Y = oklab(seen(b, sight))
  return math.sqrt((l - L) ^ 2 + (x - X) ^ 2 + (y - Y) ^ 2)
end

-- contrast as WCAG 2.2 defines it, 1 to 21
local function contrast(a, b)
  local function luminance(hex)
    local r, g, bl = linear(hex)
    return 0.2126 * r + 0.7152 * g + 0.0722 * bl
  end
  local x, y = luminance(a), luminance(b)
  return (math.max(x, y) + 0.05) / (math.min(x, y) + 0.05)
end

describe("colours", function()
  it("measure as the definitions say", function()
    assert.near(21, contrast("#000000", "#ffffff"), 1e-9)
    assert.near(4.54, contrast("#767676", "#ffffff"), 0.01)
    assert.near(1, (oklab(1, 1, 1)), 1e-4)
    assert.is_true(distance("#00a000", "#d06000", SIGHTS[3]) < 0.6 * distance("#00a000", "#d06000", SIGHTS[1]))
  end)

  it("of series lie at least .12 (OKLab) apart for every sight, in light and dark", function()
    for ground = 1, 2 do
      for i = 1, theme.series do
        for k = i + 1, theme.series do
          for _, sight in ipairs(SIGHTS) do
            local a, b = theme.roles["s" .. i][ground], theme.roles["s" .. k][ground]
            local d = distance(a, b, sight)
            assert.is_true(d >= 0.12, ("s%d %s and s%d %s: %.3f with %s"):format(i, a, k, b, d, sight.name))
          end
        end
      end
    end
  end)

  it("of plots stand out from their ground: 3:1 for marks, 4.5:1 for text", function()
    local least = { ink = 4.5, muted = 4.5, threshold = 4.5, axis = 3, flag = 3 }
    for i = 1, theme.series do least["s" .. i] = 3 end
    for role, want in pairs(least) do
      for ground = 1, 2 do
        local c = contrast(theme.roles[role][ground], theme.roles.paper[ground])
        assert.is_true(c >= want, ("%s %s: %.2f"):format(role, theme.roles[role][ground], c))
      end
    end
  end)

  it("of pages stand out in light, dark and print: 4.5:1 for every text on its ground", function()
    local style = html.page({ title = "t", population = "p", sections = {} }):match "<style>(.-)</style>"
    local light = {}
    for name, hex in style:match(":root(%b{})"):gmatch "%-%-([%w-]+):(#%x+)" do light[name] = hex end
    local sets = { light = light }
    for _, media in ipairs { "screen and %(prefers%-color%-scheme:dark%)", "print" } do
      local set = setmetatable({}, { __index = light })
      for name, hex in style:match("@media " .. media .. "{:root(%b{})"):gmatch "%-%-([%w-]+):(#%x+)" do set[name] = hex end
      sets[media] = set
    end
    local function full(hex) return #hex == 4 and (hex:gsub("%x", "%0%0")) or hex end
    for media, set in pairs(sets) do
      for _, pair in ipairs {
        { "ink", "paper" }, { "ink", "ground" }, { "muted", "paper" }, { "muted", "ground" }, { "flag", "paper" }, { "flag", "flag-ground" },
        { "good", "paper" }, { "good", "good-ground" }, { "note", "note-ground" }, { "ink", "note-ground" }, { "ink", "calm-ground" },
        { "ink", "flag-ground" }, { "ink", "good-ground" }, { "stamp-ink", "stamp" }, { "link", "paper" }, { "link", "ground" },
      } do
        local a, b = full(set[pair[1]]), full(set[pair[2]])
        assert.is_true(contrast(a, b) >= 4.5, ("%s: %s on %s is %.2f"):format(media, pair[1], pair[2], contrast(a, b)))
      end
    end
  end)
end)
