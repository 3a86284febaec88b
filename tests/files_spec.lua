-- Files: atomic writes, natural order, locks, checksums; log and progress, which write to streams. No file format is tested here.
local files = require "libration.files"
local log = require "libration.log"
local progress = require "libration.progress"
local shell = require "shell"
local small_disk = require "small_disk"

-- Runs Lua in a process of its own; what it printed on both streams, its exit code.
local function process(body, before, environment)
  local path = files.temporary_folder() .. "/script.lua"
  files.write(path, 'package.path = "lua/?.lua;" .. package.path\nlocal files = require "libration.files"\n' .. body)
  local text, code = shell(("%s %s luajit %s"):format(before or "", environment or "", files.quote(path)))
  files.remove(files.folder(path))
  return text, code
end

describe("files", function()
  local folder
  before_each(function() folder = files.temporary_folder() end)
  after_each(function() files.remove(folder) end)

  local function here(...) return files.join(folder, ...) end

  it("a small file is read in little memory, whatever its limit; a file of several pieces is whole", function()
    local path = os.tmpname()
    files.write(path, ("0123456789"):rep(20000))
    collectgarbage()
    collectgarbage()
    local before = collectgarbage "count"
    assert.equal(200000, #files.read(path, 2 ^ 30))
    assert.is_true(collectgarbage "count" - before < 4096)
    assert.is_true(files.read(path) == ("0123456789"):rep(20000))
    assert.matches("more than 199999 bytes", select(2, files.read(path, 199999)))
    os.remove(path)
  end)

  it("joins and takes apart", function()
    assert.equal("a/b/c.txt", files.join("a", "b/", "c.txt"))
    assert.equal("/x", files.join("a", "/x"))
    assert.equal("a/b", files.join("a", "", "b"))
    assert.equal("/b", files.join("/", "b"))
    assert.equal("a/b", files.folder("a/b/c"))
    assert.equal(".", files.folder("c"))
    assert.equal("/", files.folder("/c"))
    assert.equal("c", files.name("a/b/c/"))
  end)

  it("makes folders and says what is in the way", function()
    assert.equal(here("a/b/c"), files.mkdirs(here("a/b/c")))
    assert.is_true(files.is_folder(here("a/b/c")))
    files.write(here("file"), "x")
    local ok, reason = files.mkdirs(here("file/below"))
    assert.is_nil(ok)
    assert.truthy(reason:find("a file is in the way", 1, true))
  end)

  it("writes text and pieces whole or not at all", function()
    files.write(here("deep/text"), "one\0two")
    assert.equal("one\0two", files.read(here("deep/text")))
    files.write(here("pieces"), function(out)
      out:write("....", "b")
      out:seek("set", 1)
      out:write("a", 7)
    end)
    assert.equal(".a7.b", files.read(here("pieces")))
    assert.error_matches(function()
      files.write(here("pieces"), function(out)
        out:write("half")
        error("the writer broke", 0)
      end)
    end, "^the writer broke$")
    assert.equal(".a7.b", files.read(here("pieces")))
    assert.error_matches(function() files.replace(here("pieces"), function(t) files.write(t, "x") error("later", 0) end) end, "^later$")
    local names = {}
    for name in require("lfs").dir(folder) do names[#names + 1] = name end
    table.sort(names)
    assert.same({".", "..", "deep", "pieces"}, names)
  end)

  it("keeps the ending in temporary names, in the same folder", function()
    local seen
    files.replace(here("clip.mp4"), function(temporary)
      seen = temporary
      files.write(temporary, "x")
    end)
    assert.equal(folder, files.folder(seen))
    assert.truthy(files.name(seen):find("^%.tmp%-.*%.mp4$"))
    assert.equal("x", files.read(here("clip.mp4")))
  end)

  it("refuses to write over a folder or into a file, in one line", function()
    files.mkdirs(here("d"))
    assert.error_matches(function() files.write(here("d"), "x") end, "cannot write .*/d: it is a folder$")
    files.write(here("f"), "x")
    assert.error_matches(function() files.write(here("f/g"), "x") end, "a file is in the way$")
  end)

  it("leaves nothing behind when the disk or the limit is full", function()
    -- an ignored SIGXFSZ turns the limit of 4 KiB into an error of write, as a full disk does
    local text, code = process(("files.write(%q, ('x'):rep(100000))"):format(here("big")), "trap '' XFSZ; ulimit -f 8;")
    assert.equal(1, code)
    assert.truthy(text:find("cannot write " .. here("big") .. ": File too large", 1, true))
    assert.same({}, files.list(folder))
  end)

  it("names a full disk as such", function()
    local mount = here("small")
    files.mkdirs(mount)
    local body = ("local ok, e = pcall(files.write, %q, ('x'):rep(1e6)) print(e) print(#files.list(%q))"):format(mount .. "/f", mount)
    local script = here("script.lua")
    files.write(script, 'package.path = "lua/?.lua;" .. package.path\nlocal files = require "libration.files"\n' .. body)
    local text = small_disk(mount, "64k", "luajit " .. files.quote(script))
    if not text then return pending "needs the right to mount" end
    assert.truthy(text:find("cannot write " .. mount .. "/f: the disk is full (no space left)\n0\n", 1, true), text)
  end)

  it("sorts names as people do", function()
    for _, name in ipairs {"f10.png", "F2.png", "f1.png", "f01.PNG", "g", ".hidden"} do files.write(here(name), "") end
    assert.same({"f01.PNG", "f1.png", "F2.png", "f10.png", "g"}, files.list(folder))
    assert.same({"f01.PNG", "f1.png", "F2.png", "f10.png"}, files.list(folder, "%.png$"))
    local names, reason = files.list(here("none"))
    assert.is_nil(names)
    assert.truthy(reason:find("cannot list .*none: No such file"))
    names, reason = files.list(here("g"))
    assert.is_nil(names)
    assert.truthy(reason:find("it is not a folder", 1, true))
  end)

  it("reads with a limit", function()
    files.write(here("t"), "12345")
    assert.equal("12345", files.read(here("t"), 5))
    assert.truthy(select(2, files.read(here("t"), 4)):find("more than 4 bytes", 1, true))
    assert.truthy(select(2, files.read(here("u"))):find("No such file", 1, true))
    assert.truthy(select(2, files.read(folder)):find("it is a folder", 1, true))
  end)

  it("copies and removes trees, not what links point to", function()
    files.write(here("keep/k"), "k")
    files.write(here("tree/a/b"), "b")
    require("lfs").link(here("keep"), here("tree/link"), true)
    files.copy(here("tree/a/b"), here("tree/c"))
    assert.equal("b", files.read(here("tree/c")))
    files.remove(here("tree"))
    assert.is_false(files.exists(here("tree")))
    assert.equal("k", files.read(here("keep/k")))
    files.remove(here("tree"))
  end)

  it("hashes text and files as sha256sum does, at every length around a block", function()
    assert.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", files.sha256_text(""))
    assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", files.sha256_text("abc"))
    assert.equal("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", files.sha256_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))
    for _, n in ipairs {1, 55, 56, 57, 63, 64, 65, 119, 120, 128, 1000, 70000} do
      local text = ("libration %d "):format(n):rep(n):sub(1, n)
      files.write(here("h"), text)
      local pipe = io.popen("sha256sum < " .. files.quote(here("h")))
      assert.equal(pipe:read("*a"):match("%x+"), files.sha256_text(text))
      pipe:close()
      assert.equal(files.sha256_text(text), files.sha256(here("h")))
    end
    assert.is_nil((files.sha256(here("nothing"))))
    assert.is_nil((files.sha256(folder)))
  end)

  it("hashes a large file without reading it whole", function()
    local text = ("0123456789abcdef"):rep(327680)
    files.write(here("large"), text)
    local pipe = io.popen("sha256sum < " .. files.quote(here("large")))
    assert.equal(pipe:read("*a"):match("%x+"), files.sha256(here("large")))
    pipe:close()
  end)

  it("quotes anything for the shell", function()
    for _, word in ipairs {"a b", "it's", "$(touch x)", "`x`", "a\nb", "", "\\", '"'} do
      local pipe = io.popen("printf %s " .. files.quote(word))
      assert.equal(word, pipe:read("*a"))
      pipe:close()
    end
  end)

  it("locks a folder against other runs, and is freed by their death", function()
    local out = here("run")
    local lock = assert(files.lock(out))
    local second, reason = files.lock(out)
    assert.is_nil(second)
    assert.truthy(reason:find("by this process", 1, true))
    local text = process(("local l, e = files.lock(%q) print(l, e)"):format(out))
    assert.truthy(text:find("nil\t" .. out .. " is in use by another run (process ", 1, true), text)
    lock:release()
    lock:release()
    text = process(("local l = files.lock(%q) print(l ~= nil) io.stdout:flush() os.execute('kill -9 $PPID')"):format(out))
    assert.truthy(text:find("true", 1, true))
    files.write(out .. "/.tmp-1-1-x.npy", "left by a killed run")
    lock = assert(files.lock(out))
    assert.is_false(files.exists(out .. "/.tmp-1-1-x.npy"))
    lock:release()
  end)

  it("finds the cache folder and says what to set where it cannot write", function()
    assert.equal(here("c/libration/weights") .. "\n", (process('print(files.cache("weights"))', "", "XDG_CACHE_HOME=" .. here("c"))))
    assert.equal(here("h/.cache/libration") .. "\n", (process("print(files.cache())", "", "XDG_CACHE_HOME= HOME=" .. here("h"))))
    files.write(here("blocked"), "")
    local text, code = process("print(files.cache())", "", "XDG_CACHE_HOME=" .. here("blocked"))
    assert.equal(1, code)
    assert.truthy(text:find("a file is in the way (set XDG_CACHE_HOME to a folder that can be written)", 1, true), text)
    text = process("print(files.cache())", "env -u HOME -u XDG_CACHE_HOME")
    assert.truthy(text:find("neither XDG_CACHE_HOME nor HOME is set", 1, true))
  end)
end)

-- A stream that keeps what is written.
local function memory()
  local stream = {text = ""}
  function stream:write(...) self.text = self.text .. table.concat({...}) end
  function stream.flush() end
  return stream
end

describe("log", function()
  it("sends levels to the console and everything to the file, a line at once", function()
    local folder = files.temporary_folder()
    local console = memory()
    assert(log.setup {stream = console, path = folder .. "/a.log"})
    log.debug("fine %d", 1)
    log.info("epoch %d", 3)
    log.warn("100% of nothing")
    local text = files.read(folder .. "/a.log")
    assert.equal("epoch 3\nwarning: 100% of nothing\n", console.text)
    assert.truthy(text:match("^%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d debug fine 1\n.- info  epoch 3\n.- warn  100%% of nothing\n$"))
    log.setup {level = "error"}
    log.warn("unseen")
    assert.falsy(console.text:find("unseen"))
    assert.truthy(files.read(folder .. "/a.log"):find("unseen"))
    log.setup {level = "info", stream = io.stderr}
    log.close()
    local ok, reason = log.setup {path = folder .. "/none/a.log"}
    assert.is_nil(ok)
    assert.truthy(reason:find("cannot write log .*none"))
    assert.error_matches(function() log.setup {level = "loud"} end, "want debug, info, warn or error")
    files.remove(folder)
  end)
end)

describe("progress", function()
  it("prints plain sparse lines where there is no terminal", function()
    local stream = memory()
    local bar = progress.new {label = "landmarks", total = 4, unit = "frames", stream = stream, terminal = false, every = 0}
    bar:update(1)
    bar:add(1, "found 2")
    bar:finish()
    bar:finish()
    assert.truthy(stream.text:match("^landmarks: 1/4 frames, [%d.]+/s, %d+ s left\nlandmarks: 2/4 frames, .-, found 2\nlandmarks: 2/4 frames, .-, in 0 s, found 2\n$"), stream.text)
    stream = memory()
    bar = progress.new {label = "x", stream = stream, terminal = false}
    for i = 1, 100 do bar:update(i) end
    assert.equal("", stream.text)
    bar = progress.new {label = "x", stream = stream, terminal = false, quiet = true}
    bar:finish()
    assert.equal("", stream.text)
  end)

  it("redraws one line on a terminal and steps aside for log lines", function()
    local stream = memory()
    log.setup {stream = stream}
    local bar = progress.new {label = "train", total = 10, stream = stream, terminal = true}
    bar.shown = -1e9
    bar:update(5)
    assert.truthy(stream.text:find("\rtrain [============            ] 5/10", 1, true), stream.text)
    log.info("hello")
    assert.truthy(stream.text:find("\r\27%[Khello\n\rtrain"))
    bar:finish()
    log.setup {stream = io.stderr}
    assert.is_nil(log.before)
    assert.truthy(stream.text:find("train: 5/10, .- in 0 s\n$"))
  end)

  it("writes times as people do", function()
    assert.equal("42 s", progress.duration(41.7))
    assert.equal("3:07", progress.duration(187))
    assert.equal("1:02:05", progress.duration(3725))
  end)
end)
