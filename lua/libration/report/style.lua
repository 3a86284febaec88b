-- What a page looks like: one style sheet for screen, phone, dark mode and print. Colours of figures come from the theme; no markup here.

local theme = require "libration.report.theme"

local style = {}

-- Wide and narrow drawings of each figure stand in the page; a media query shows the one that fits.
local SHEET = [[
:root{color-scheme:light dark;--paper:#fff;--ground:#f4f5f7;--ink:#1c2128;--muted:#5b6470;--rule:#dfe3e8;--flag:#a83f00;--flag-ground:#fdf0e6;
--good:#00694d;--good-ground:#e8f5f0;--note:#7a5200;--note-ground:#fdf6e3;--calm-ground:#eef1f5;--link:#1f55ad;--stamp:#8a1c00;--stamp-ink:#ffffff;--amber:#c27c00}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Liberation Sans",sans-serif;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main,.banner div,.stamp div{max-width:832px;margin:0 auto;padding:0 20px}
main{padding-bottom:48px}
.roomy main,.roomy .banner div,.roomy .stamp div{max-width:1140px}
.banner{background:var(--note-ground);color:var(--note);border-bottom:1px solid var(--rule);padding:12px 0}
.banner strong{display:block;font-size:17px}
.banner span{font-size:14.5px}
.stamp{background:var(--stamp);color:var(--stamp-ink);padding:11px 0;font-weight:650}
.watermark{display:none}
header{padding:28px 0 4px}
h1{font-size:28px;line-height:1.2;margin:0;font-weight:650;letter-spacing:-.01em}
h2{font-size:19px;line-height:1.3;margin:0 0 12px;font-weight:650}
h3{font-size:15.5px;line-height:1.35;margin:18px 0 8px;font-weight:650}
h2+h3{margin-top:0}
p{margin:0 0 12px}
a{color:var(--link)}
h1,td,th,dd,dt,figcaption,li{unicode-bidi:isolate}
.under{color:var(--muted);margin:6px 0 0}
nav{font-size:14px;margin:14px 0 0;line-height:1.9}
nav a{margin-right:14px;white-space:nowrap;text-decoration:none}nav a:hover{text-decoration:underline}
section{background:var(--paper);border:1px solid var(--rule);border-radius:10px;padding:22px 24px;margin-top:18px}
section>:last-child,.verdict>:last-child,details>:last-child{margin-bottom:0}
.verdict{border-left:5px solid var(--muted);background:var(--calm-ground);border-radius:6px;padding:14px 20px;margin:0 0 14px}
.verdict.flag{border-color:var(--flag);background:var(--flag-ground)}
.verdict.good{border-color:var(--good);background:var(--good-ground)}
.verdict small{display:block;font-size:13.5px;color:var(--ink)}
.verdict b{display:block;font-size:21px;line-height:1.3;margin-bottom:6px;font-weight:650}
.verdict.flag b{color:var(--flag)}.verdict.good b{color:var(--good)}
.verdict p{margin:0 0 4px}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:14px 20px;margin:0 0 14px}
.facts dt{color:var(--muted);font-size:13.5px;line-height:1.35}
.facts dd{margin:2px 0 0;font-size:21px;line-height:1.25;font-weight:600}
.facts dd small{display:block;color:var(--muted);font-size:13px;font-weight:400;line-height:1.35}
.scroll{overflow-x:auto;margin:0 0 12px}
table{border-collapse:collapse;width:100%;font-size:14.5px;line-height:1.4}
th,td{padding:7px 14px 7px 0;border-bottom:1px solid var(--rule);text-align:left;vertical-align:baseline;overflow-wrap:break-word}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--muted);font-weight:500;font-size:13px;vertical-align:bottom}
tbody th{font-weight:500}
tbody tr:last-child>*{border-bottom:0}
.number{text-align:right}td.number,.short{white-space:nowrap}
.long{overflow-wrap:anywhere;min-width:8em}
.flagged{color:var(--flag);font-weight:600}td.good{color:var(--good);font-weight:600}.muted{color:var(--muted)}
.pairs{display:grid;grid-template-columns:minmax(9em,15em) minmax(0,1fr);gap:5px 22px;margin:0 0 12px;font-size:14.5px}
.pairs dt{color:var(--muted)}.pairs dd{margin:0;min-width:0}
figure{margin:0 0 14px}
figure svg{display:block;width:100%;height:auto}
figure img{display:block;width:100%;height:auto;border-radius:6px}
figcaption{color:var(--muted);font-size:14px;margin-top:8px}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:14px 18px;margin:0 0 12px}
.gallery.small{grid-template-columns:repeat(auto-fill,minmax(150px,1fr))}
.gallery figure{margin:0;min-width:0}.gallery figcaption{margin-top:5px}
.narrow{display:none}
.warnings,.findings{margin:0 0 12px;padding:0;list-style:none}
.warnings{background:var(--note-ground);border-left:5px solid var(--amber);border-radius:6px;padding:12px 18px}
.warnings li+li,.findings>li+li{margin-top:8px}
.findings b{font-weight:650}
.findings .error b{color:var(--flag)}.findings .warning b{color:var(--note)}.findings .note b{color:var(--muted)}
.findings ul{margin:2px 0 0;padding-left:18px;font-size:14px;color:var(--muted)}
.list{margin:0 0 12px;padding-left:20px}.list li{margin-bottom:4px}
.small{color:var(--muted);font-size:14px}
.warnings li,.findings,.list,.small,.verdict p,.text{max-width:46em}
details{margin:0 0 12px}
summary{cursor:pointer;font-weight:600;color:var(--link);padding:3px 0;margin-bottom:6px}
footer{color:var(--muted);font-size:13.5px;padding:20px 0 0}
@media (max-width:640px){
body{font-size:15.5px}main{padding:0 10px 32px}.banner div,.stamp div{padding:0 14px}.banner{padding:10px 0}header{padding:20px 4px 4px}nav{padding:0 4px}
h1{font-size:23px}section{padding:16px 14px;border-radius:8px;margin-top:12px}.verdict{padding:12px 14px}.verdict b{font-size:18.5px}
.wide{display:none}.narrow{display:block}.facts{grid-template-columns:1fr 1fr;gap:12px 14px}.facts dd{font-size:18px}
table{font-size:14px}.pairs{grid-template-columns:minmax(0,38%) minmax(0,1fr);gap:5px 12px}.gallery.small{grid-template-columns:1fr 1fr}
.warnings{padding:10px 14px}}
%CARDS%
@media screen and (prefers-color-scheme:dark){:root{--paper:%PAPER%;--ground:#0e1115;--ink:#e8eaed;--muted:#a3abb6;--rule:#2b313a;--flag:#ff9d66;--flag-ground:#2c1d14;
--good:#55d6ae;--good-ground:#10251f;--note:#f0cf86;--note-ground:#2a2313;--calm-ground:#1d2229;--link:#8fbcff;--stamp:#ffb4a0;--stamp-ink:#2a0b00;--amber:#e69f00}
%DARK%}
@media print{:root{color-scheme:light;--paper:#fff;--ground:#fff;--ink:#000;--muted:#444;--rule:#bbb;--flag:#8a3600;--flag-ground:#fff;--good:#004d38;--good-ground:#fff;
--note:#4a3200;--note-ground:#fff;--calm-ground:#fff;--link:#000;--stamp:#fff;--stamp-ink:#000;--amber:#888}
body{font-size:10.5pt;background:#fff}main,.banner div,.stamp div{max-width:none;padding:0}nav{display:none}header{padding:14pt 0 0}
section{border:0;border-top:1px solid #bbb;border-radius:0;padding:10pt 0;margin:0}h1{font-size:19pt}h2{font-size:13pt}table,.pairs{font-size:9.5pt}
figure,table,.verdict,.facts,.gallery figure,tr,.warnings li,.findings li,.pairs dd{break-inside:avoid}h2,h3,thead,summary{break-after:avoid}thead{display:table-header-group}
.many td:last-child:not(.number){min-width:15em}
.verdict,.warnings{border:1px solid #888;border-left-width:5px}.banner{padding:0 0 8px;border-bottom:2px solid #000}.scroll{overflow:visible}
.stamp{border:3px solid #000;padding:8px 12px;margin-bottom:10px}
.watermark{display:block;position:fixed;top:40%;left:0;right:0;text-align:center;font-size:52pt;white-space:nowrap;font-weight:800;opacity:.1;transform:rotate(-24deg)}
.wide{display:block}.narrow{display:none}a{text-decoration:none}
summary{list-style:none}details::details-content{content-visibility:visible;block-size:auto}
td.number{white-space:nowrap}
%LIGHT%}
@page{size:A4;margin:18mm 16mm;@top-left{content:"Research use, not a diagnosis.";font:9pt sans-serif;color:#444}
@bottom-right{content:counter(page) " of " counter(pages);font:9pt sans-serif;color:#444}}
]]

-- A table whose rows become cards: every cell carries the name of its column. "@" is the class of the table.
local CARDS = [[
@,@ tbody,@ tr,@ tbody th{display:block;width:100%;padding:0;border:0}
@ thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
@ tr{padding:9px 0;border-bottom:1px solid var(--rule)}@ tr:last-child{border:0}
@ tbody th{font-weight:650;padding-bottom:2px;text-align:left;white-space:normal}
@ td{display:inline-block;max-width:100%;padding:0 10px 0 0;border:0;text-align:left;white-space:normal}
@ td:empty{display:none}
@ td::before{content:attr(data-label) " ";color:var(--muted);font-weight:400}]]

local STAMPED = [[
@page{@top-right{content:"LEAK ALLOWED";font:bold 10pt sans-serif;color:#000}}
]]

local sheet

---The style sheet, with the colours of figures under the dark and the print media query.
---@param stamped boolean|nil whether each printed page carries the stamp
---@return string
function style.sheet(stamped)
  if not sheet then
    local sets, names = { {}, {} }, {}
    for role in pairs(theme.roles) do
      names[#names + 1] = role
    end
    table.sort(names)
    for _, role in ipairs(names) do
      for i = 1, 2 do
        local colour = theme.roles[role][i]
        sets[i][#sets[i] + 1] = (".fi-%s{fill:%s}.st-%s{stroke:%s}"):format(role, colour, role, colour)
      end
    end
    local cards = ("@media screen and (max-width:640px){\n%s}\n@media screen and (max-width:900px){\n%s}"):format(
      (CARDS:gsub("@", ".cards")), (CARDS:gsub("@", ".many")))
    sheet = SHEET:gsub("%%(%u+)%%", { CARDS = cards, PAPER = theme.roles.paper[2], LIGHT = table.concat(sets[1]), DARK = table.concat(sets[2]) })
  end
  return stamped and sheet .. STAMPED or sheet
end

return style
