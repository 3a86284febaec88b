-- Specs of whole pages: markup that a screen reader can follow, nothing from outside, and headless Chromium's own measure of every page
-- at three widths, light and dark. What the figures of a page must be is in report_spec.
local bit = require "bit"
local cjson = require "cjson"
local ffi = require "ffi"
local files = require "libration.files"
local html = require "libration.report.html"
local media = require "libration.media"
local pages = require "pages"

local LIST = pages.all()
for _, entry in ipairs(LIST) do entry.text = html.page(entry.page) end

local WIDTHS = { 360, 768, 1280 }
local TALL = 640 -- of each page in the picture

-- that tags nest, the few that HTML never closes aside; gives the start tags
local function nested(text)
  local open, tags = {}, {}
  for close, name, inner in text:gsub("<style>.-</style>", ""):gmatch "<(/?)([%w]+)([^<>]*)>" do
    if close == "/" then
      assert.equal(name, open[#open])
      open[#open] = nil
    else
      tags[#tags + 1] = { name = name, inner = inner }
      if name ~= "meta" and name ~= "img" and not inner:find "/$" then open[#open + 1] = name end
    end
  end
  assert.same({}, open)
  return tags
end

describe("every page", function()
  for _, entry in ipairs(LIST) do
    it("is one file that nothing outside is fetched for, and that a screen reader can follow: " .. entry.name, function()
      local text = entry.text
      local lower = text:lower()
      for _, word in ipairs { "<script", "<link", "<iframe", "<object", "<embed", "<base", "@import", "javascript:", "srcset", "url(h", "url(/", "http:", "https:" } do
        assert.falsy(lower:find(word, 1, true), word)
      end
      for address in text:gmatch "url%(([^)]*)%)" do assert.truthy(address:find "^#", address) end
      for address in text:gmatch '%f[%w]src="([^"]*)"' do assert.truthy(address:find "^data:image/", address) end
      assert.truthy(text:find '<html lang="en">')
      local ids, level, headings, labels = {}, 0, 0, {}
      for _, tag in ipairs(nested(text)) do
        local id = tag.inner:match '%f[%w]id="([^"]*)"'
        if id then
          assert.falsy(ids[id], "id twice: " .. id)
          ids[id] = true
        end
        local h = tonumber(tag.name:match "^h(%d)$")
        if h then
          assert.is_true(h <= level + 1, "h" .. h .. " after h" .. level)
          level, headings = h, headings + (h == 1 and 1 or 0)
        elseif tag.name == "th" then
          assert.truthy(tag.inner:find 'scope="[rc]o[wl]')
        elseif tag.name == "img" then
          assert.truthy(tag.inner:find 'alt="[^"]')
        elseif tag.name == "svg" then
          labels[#labels + 1] = assert(tag.inner:match 'role="img" aria%-labelledby="([^"]+)"')
        elseif tag.name == "a" then
          local address = tag.inner:match 'href="([^"]*)"'
          assert.truthy(address:find "^#[%w-]+$" or address:find "^%./[%w%%._~/-]+$", address)
          labels[#labels + 1] = address:match "^#(.+)"
        end
      end
      assert.equal(1, headings)
      for _, names in ipairs(labels) do
        for id in names:gmatch "%S+" do assert.truthy(ids[id], "nothing has the id " .. id) end
      end
    end)
  end

  it("says first that it is no diagnosis and whom it was trained on; a leak stands above even that", function()
    for _, entry in ipairs(LIST) do
      local plain = entry.text:match("<body[^>]*>(.*)"):gsub("<[^>]*>", " "):gsub("%s+", " ")
      if entry.page.stamp then
        assert.truthy(plain:find "^ LEAK ALLOWED: Sequences 01 %(train%) and 11 %(test%) have the same content%. No figure on this page counts as a test%.")
      else
        assert.truthy(plain:find "^ Research use, not a diagnosis%. ", entry.name)
      end
    end
  end)

  it("of a leak carries the stamp into every printed page", function()
    for _, entry in ipairs(LIST) do
      local text = entry.text
      assert.equal(entry.page.stamp ~= nil, text:find('@top-right{content:"LEAK ALLOWED"', 1, true) ~= nil)
      assert.equal(entry.page.stamp ~= nil, text:find('class="watermark"', 1, true) ~= nil)
    end
  end)

  it("of an hour stays under half a megabyte", function()
    for _, entry in ipairs(LIST) do assert.is_true(#entry.text < 500000, entry.name) end
  end)
end)

-- Shows every page at every width in a frame (headless Chromium has no window narrower than 500), a row a page, and lists what sticks out:
-- boxes beyond the page, text cut or beyond its box, labels of figures beyond the figure, on each other, or too small to read.
local FRAMES = [[<body style="margin:0"><pre id="o" hidden></pre><script>
const pages = %s, widths = %s, tall = %d, lines = [];
const hidden = e => e && getComputedStyle(e).position == "absolute"; // the head of a table whose rows are cards
const visible = e => e.getClientRects().length > 0;
function measure(d, width) {
  const out = [], name = e => e.tagName + " " + (e.textContent || "").trim().slice(0, 40);
  if (d.documentElement.scrollWidth > width) out.push("page " + d.documentElement.scrollWidth);
  for (const e of d.querySelectorAll("body *")) {
    if (!visible(e) || e.closest("svg") || e.closest(".watermark")) continue;
    const r = e.getBoundingClientRect(), inside = e.closest(".scroll");
    if ((r.right > width + 0.5 || r.left < -0.5) && !inside) out.push("beyond the page: " + name(e));
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != "inline" && !hidden(e.closest("thead"))) out.push("wider than its box: " + name(e));
  }
  for (const s of d.querySelectorAll("svg")) {
    if (!visible(s)) continue;
    const box = s.getBoundingClientRect(), texts = [...s.querySelectorAll("text")], rects = texts.map(t => t.getBoundingClientRect());
    const scale = box.width / s.viewBox.baseVal.width;
    rects.forEach((r, i) => {
      const said = '"' + texts[i].textContent + '" in ' + s.querySelector("title").textContent;
      if (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1) out.push("beyond the figure: " + said);
      if (texts[i].getAttribute("font-size") * scale < 9.5) out.push("too small: " + said);
      for (let k = i + 1; k < rects.length; k++) {
        const q = rects[k], across = Math.min(r.right, q.right) - Math.max(r.left, q.left), down = Math.min(r.bottom, q.bottom) - Math.max(r.top, q.top);
        if (across > 1 && down > 4) out.push("over each other: " + said + ", " + texts[k].textContent);
      }
    });
  }
  return out;
}
let waiting = 0;
pages.forEach((page, i) => {
  let left = 0;
  for (const width of widths) {
    const f = document.createElement("iframe");
    f.style = "position:absolute;border:0;top:" + i * tall + "px;left:" + left + "px;height:" + tall + "px;width:" + width + "px";
    left += width;
    waiting++;
    f.onload = () => {
      for (const line of measure(f.contentDocument, width)) lines.push(page.name + " at " + width + ": " + line);
      if (--waiting == 0) document.getElementById("o").textContent = matchMedia("(prefers-color-scheme: dark)").matches + "\n" + lines.sort().join("\n");
    };
    f.srcdoc = page.text;
    document.body.appendChild(f);
  }
});
</script>]]

-- A page with one fault of each kind.
local WRONG = [[<!DOCTYPE html><body style="margin:0;font:16px sans-serif"><p style="margin:0;width:3000px">wide</p>
<div style="width:20px">unbreakable</div><svg width="200" height="100" viewBox="0 0 200 100"><title>t</title>
<text x="190" y="20" font-size="12">outside</text><text x="10" y="50" font-size="12">one</text><text x="12" y="51" font-size="12">two</text>
<text x="90" y="90" font-size="6">tiny</text></svg>]]

-- A tile of a picture, every second pixel: how many colours (4 bits a channel), share that is not of the commonest one, mean brightness 0..1.
local function tile(picture, x, y, width, height)
  local row, p = picture:size(2) * 3, picture:ptr()
  local count, sum, all = ffi.new "int32_t[4096]", 0, 0
  for v = y, y + height - 1, 2 do
    for u = x, x + width - 1, 2 do
      local at = v * row + u * 3
      local r, g, b = p[at], p[at + 1], p[at + 2]
      local bin = bit.rshift(r, 4) * 256 + bit.rshift(g, 4) * 16 + bit.rshift(b, 4)
      count[bin], sum, all = count[bin] + 1, sum + r + g + b, all + 1
    end
  end
  local colours, most = 0, 0
  for i = 0, 4095 do
    if count[i] > 0 then colours = colours + 1 end
    most = math.max(most, count[i])
  end
  return colours, 1 - most / all, sum / all / 765
end

describe("pages in a browser", function()
  for scheme, flag in pairs { light = 1, dark = 0 } do
    -- #slow: Chromium lays out and paints 36 pages in one start, about 5 s of processor time
    it("fit a phone, a tablet and a desk: no text cut, none over another, nothing blank, " .. scheme .. " #slow", function()
      local pipe = io.popen "command -v chromium chromium-browser google-chrome 2>/dev/null"
      local browser = pipe:read "*l"
      pipe:close()
      if not browser then return pending "needs chromium" end
      local folder = files.temporary_folder()
      local shown = {}
      for i, entry in ipairs(LIST) do shown[i] = { name = entry.name, text = entry.text } end
      shown[#shown + 1] = { name = "zz wrong", text = WRONG } -- what the measure must find
      files.write(files.join(folder, "frames.html"), FRAMES:format((cjson.encode(shown):gsub("</", "<\\/")), cjson.encode(WIDTHS), TALL))
      local total = WIDTHS[1] + WIDTHS[2] + WIDTHS[3]
      local shot = files.join(folder, "shot.png")
      local dump = io.popen(("timeout 600 %s --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --force-device-scale-factor=0.5 "
        .. "--blink-settings=preferredColorScheme=%d --user-data-dir=%s --window-size=%d,%d --screenshot=%s --dump-dom file://%s/frames.html 2>/dev/null"):format(
        browser, flag, files.quote(files.join(folder, "profile")), total, #LIST * TALL, files.quote(shot), folder))
      local seen = dump:read("*a"):match '<pre id="o"[^>]*>(.-)</pre>'
      dump:close()
      local want = { tostring(scheme == "dark") }
      for _, width in ipairs { 1280, 360, 768 } do
        for _, line in ipairs {
          'beyond the figure: "outside" in t', "beyond the page: P wide", 'over each other: "one" in t, two', "page 3000", 'too small: "tiny" in t',
          "wider than its box: DIV unbreakable",
        } do
          want[#want + 1] = ("zz wrong at %d: %s"):format(width, line)
        end
      end
      assert.equal(table.concat(want, "\n"), seen)
      local picture = assert(media.read_picture(shot))
      assert.same({ #LIST * TALL / 2, total / 2 }, { picture:size(1), picture:size(2) })
      local left = 0
      for _, width in ipairs(WIDTHS) do
        for i, entry in ipairs(LIST) do
          local colours, ink, brightness = tile(picture, left, (i - 1) * TALL / 2, width / 2, TALL / 2)
          local said = ("%s at %d, %s: %d colours, ink %.3f, brightness %.2f"):format(entry.name, width, scheme, colours, ink, brightness)
          assert.is_true(colours >= 12, said)
          assert.is_true(ink > 0.02 and ink < 0.8, said)
          assert.is_true(scheme == "light" and brightness > 0.75 or scheme == "dark" and brightness < 0.35, said)
        end
        left = left + width / 2
      end
      files.remove(folder)
    end)
  end
end)
