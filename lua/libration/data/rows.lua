-- Option rows that several recipes share, each written once; `libration.options` says what a row holds. Reads no options itself.

local rows = {}

--- Width and height from "640x480".
---@param text string
---@return integer|nil width nil where the text is empty or no size
---@return integer|string height or, without a width, the reason
function rows.size_of(text)
  local width, height = text:match("^(%d+)[xX](%d+)$")
  if not width then return nil, ("%q, want WIDTHxHEIGHT such as 640x480"):format(text) end
  return tonumber(width), tonumber(height)
end

--- Whether a skeleton has this name.
---@param name string
---@return boolean|nil true, or nil and the reason
function rows.skeleton(name)
  local names = require("libration.pose.skeletons").names()
  for _, known in ipairs(names) do if known == name then return true end end
  return nil, ("no skeleton %q; there are %s"):format(name, table.concat(names, ", "))
end

local LIST = {
  -- recordings
  { "kind", "auto", "what to take from the folder where it holds several kinds", choices = { "auto", "frames", "videos", "landmarks" } },
  { "fps", 0, "frames a second of picture folders and of landmark files without times; 0: 25", min = 0, type = "number" },
  { "skeleton", "", "skeleton of the landmark files; empty: by their number of joints", metavar = "NAME", check = rows.skeleton },
  { "size", "", "width and height of the picture that landmark files refer to, as 640x480 (for --coordinates unit and centred)", metavar = "WxH",
    check = function(v) return rows.size_of(v) end },
  { "coordinates", "pixels", "of landmark files: pixels, unit (x / width) or centred (x / width - 0.5, as MINI-RGBD's OpenPose files)",
    choices = { "pixels", "unit", "centred" } },
  { "cache", true, "remember landmarks, and take remembered ones (in the user's cache folder)" },
  { "check", "warn", "recording check of every recording; warn: what does not pass is a warning; off: not looked at", choices = { "warn", "off" } },
  -- the landmarker
  { "model", "full", "landmark network", choices = { "lite", "full", "heavy" } },
  { "precision", "f32", "number type of the landmark network's products; f16 on CUDA devices", choices = { "f32", "bf16", "f16" } },
  { "smooth", "one-euro", "smoothing of the landmarks", choices = { "one-euro", "offline", "none" } },
  { "person", "best", "whom to follow where the landmarker finds several", choices = { "best", "largest", "central" } },
  { "weights", "", "your own file of the landmark network, or a folder with the files of both networks", metavar = "FILE" },
  { "at-once", 0, "videos whose landmarks are found at once, in batches of the networks, unless they are remembered; 0: 8 on CUDA devices, 1 on the CPU", min = 0, max = 64 },
  -- features and windows
  { "window", 30, "frames a window", min = 2, max = 4096 },
  { "stride", 1, "frames between training windows; scores always take every window", min = 1, max = 4096 },
  { "features", "positions", "what is seen of each joint; angles: the direction of each bone", choices = { "positions", "velocities", "both", "angles" } },
  { "mask", true, "give the network each joint's mask beside x and y" },
  { "post", "window", "window: each window minus its own mean; none; unit: also of unit amplitude", choices = { "window", "none", "unit" } },
  { "joints", "default", "default, all, body, or names separated by commas" },
  { "max-gap", 1, "seconds; longer gaps stay missing and are masked; 0: no limit", type = "number", min = 0 },
  { "min-score", 0, "joints whose score is not above this are missing", type = "number", min = 0, max = 1 },
  -- the autoencoder
  { "hidden", { 128, 64 }, "units of the encoder's LSTM layers; the decoder has them in reverse", of = "integer", min = 1, max = 4096 },
  { "latent", 32, "numbers between encoder and decoder", min = 1, max = 4096 },
  { "task", "reconstruct", "what the network is trained to give: the window, the window backwards, or its last third from the first two",
    choices = { "reconstruct", "reverse", "predict" } },
  { "batch", 32, "windows a step", min = 1, max = 65536 },
  { "learning-rate", .001, "of Adam", above = 0, type = "number" },
  -- the verdict
  { "two-sided", false, "a too low error is abnormal too, by the mirrored rule; p counts both sides" },
  { "unit", "video", "what one p counts: videos, or contiguous blocks of them (more of them, but alike)", choices = { "video", "block" } },
  { "block", 5, "seconds of --unit block", above = 0, type = "number" },
  -- the machine
  { "device", "auto", "where the networks run: auto (CUDA where there is a device), cpu, cuda or cuda:N; cuda never becomes the CPU", metavar = "DEVICE",
    check = function(v)
      if v == "auto" or v == "cpu" or v:match "^cuda$" or v:match "^cuda:%d+$" then return true end
      return nil, "want auto, cpu, cuda or cuda:N"
    end },
  { "threads", 0, "processor threads; 0: all cores", min = 0 },
  { "log-level", "info", "what the console shows", choices = { "debug", "info", "warn", "error" } },
}

local by_name = {}
for _, row in ipairs(LIST) do by_name[row[1]] = row end

--- Rows of a recipe: a name stands for the shared row, {name, default} for the shared row with another default, a whole row for itself.
---@param list table[]|string[]
---@return table[]
function rows.of(list)
  local out = {}
  for i, item in ipairs(list) do
    local name = type(item) == "string" and item or item[3] == nil and item[1]
    if not name then
      out[i] = item
    else
      local shared = by_name[name] or error(("rows: no shared row %q"):format(tostring(name)), 2)
      out[i] = {}
      for k, v in pairs(shared) do out[i][k] = v end
      if type(item) == "table" then out[i][2] = item[2] end
    end
  end
  return out
end

return rows
