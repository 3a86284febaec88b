-- Networks that people bring: recognised by their outputs, fed as they were trained, their answers in pixels of the frame. Each head is a table in this folder.
local device = require "libration.device"
local ops = require "libration.ops"
local regions = require "libration.regions"
local tensor = require "libration.tensor"
local boxes = require "libration.pose.adapters.boxes"

local adapters = {}

-- In order of recognition: the more special first.
local FILES = { "yolo_pose", "yolo_face", "scrfd", "centerface", "ultraface", "simcc", "movenet", "rtmdet", "yolox", "yolo_detect" }

---@class Adapter
---@field name string
---@field input table fit "letterbox" (centred), "corner" (letterbox with the picture in the upper left) or "stretch"; fill: byte beside the picture; value = (byte - mean) *
---  scale / deviation, by channel; bgr: order of the channels; multiple: sides are the frame's own, rounded up to it
---@field recognise fun(outputs: HeadOutput[]): boolean
---@field decode fun(outputs: HeadOutput[], least: number, size: {width: number, height: number}): table[] detections in input pixels: x0, y0, x1, y1, score, class (from 0),
---  points (x, y, score of each)
---@field class string|nil "face" or "person" where it finds nothing else
---@field classes fun(outputs: HeadOutput[]): integer where it finds several: how many
---@field joints string[]|nil names of body points
---@field points string[]|nil names of face points
---@field one boolean|nil true where it answers for one person in its input

local loaded

--- All adapters in order of recognition, and by name.
---@return Adapter[] list, table<string, Adapter> by_name
function adapters.all()
  if not loaded then
    loaded = { list = {}, by_name = {} }
    for i, file in ipairs(FILES) do
      local adapter = require("libration.pose.adapters." .. file)
      loaded.list[i], loaded.by_name[adapter.name] = adapter, adapter
    end
  end
  return loaded.list, loaded.by_name
end

--- Names for --adapter.
---@return string[]
function adapters.names()
  local names = {}
  for i, adapter in ipairs((adapters.all())) do names[i] = adapter.name end
  return names
end

--- The adapter that a network's outputs fit.
---@param outputs HeadOutput[] name and shape suffice
---@return Adapter|nil adapter, or nil and one line that says what outputs there are
function adapters.recognise(outputs)
  for _, adapter in ipairs((adapters.all())) do
    if adapter.recognise(outputs) then return adapter end
  end
  local shapes = {}
  for i, out in ipairs(outputs) do shapes[i] = ("%s [%s]"):format(out.name, table.concat(out.shape, ",")) end
  return nil, ("outputs %s fit no known head; --adapter takes %s"):format(table.concat(shapes, ", "), table.concat(adapters.names(), ", "))
end

---@class AdapterDetector a network with its adapter
local Detector = {}
Detector.__index = Detector

--- A detector around a network file.
---@param path string .onnx or .tflite
---@param options? {adapter: string, size: {width: integer, height: integer}, network: table, device: string, precision: string} adapter: its name instead of recognition;
---  size: of the input where the file leaves it open (640x640); network: a ready object with :run, :to and inputs; device "cpu" (default), "cuda", "cuda:N"; precision
---  "f32" (default), "bf16", on a CUDA device "f16"; int8 wants frames first: see quantise
---@return AdapterDetector|nil detector, or nil and one line
function adapters.detector(path, options)
  options = options or {}
  local network, err = options.network, nil -- luacheck: ignore 311
  if not network then network, err = require("libration.graph").load(path, { device = options.device, precision = options.precision }) end
  if not network then return nil, err end
  if #network.inputs ~= 1 then return nil, ("%s: %d inputs, want a network with one picture"):format(path, #network.inputs) end
  local shape = network.inputs[1].shape
  if not shape or #shape ~= 4 or shape[2] ~= 3 and shape[4] ~= 3 then
    return nil, ("%s: input '%s' is [%s], want a picture [B,3,H,W] or [B,H,W,3]"):format(path, network.inputs[1].name, table.concat(shape or {}, ","))
  end
  local first = shape[2] == 3
  local h, w = first and shape[3] or shape[2], first and shape[4] or shape[3]
  if type(h) ~= "number" or type(w) ~= "number" or h < 33 or w < 33 then w, h = 640, 640 end -- open, or a size that only the export had
  if options.size then w, h = options.size.width, options.size.height end
  local self = setmetatable({ path = path, network = network, first = first, size = { width = w, height = h }, device = network.device or "cpu", precision = options.precision },
    Detector)
  if options.adapter then
    local _, by_name = adapters.all()
    self.adapter = by_name[options.adapter]
    if not self.adapter then return nil, ("--adapter %s; there are %s"):format(options.adapter, table.concat(adapters.names(), ", ")) end
  else
    local outputs
    outputs, err = self:run(tensor.zeros({ 1, h, w, 3 }, "f32", self.device))
    if not outputs then return nil, err end
    self.adapter, err = adapters.recognise(outputs)
    if not self.adapter then return nil, path .. ": " .. err end
  end
  return self
end

--- Moves the network to a device.
---@param name string "cpu", "cuda", "cuda:N"
---@return AdapterDetector self
function Detector:to(name)
  name = device.name(device.id(name))
  if name ~= self.device then
    if name == "cpu" and self.precision == "f16" then -- which the CPU has not
      local network, err = require("libration.graph").load(self.path)
      self.network, self.precision = network or error(err, 0), nil
    else
      self.network:to(name)
    end
    self.device = name
  end
  return self
end

-- A picture [1,H,W,3] in the order of dims that the network takes.
local function laid_out(self, picture)
  return (self.first and picture:permute { 1, 4, 2, 3 } or picture):contiguous()
end

-- Outputs in the network's order, where it ran; those for one person are small and come to the CPU.
local function outputs_of(self, named)
  local list = {}
  for i, out in ipairs(self.network.outputs) do
    local t = named[out.name]
    if t.dtype ~= "f32" then t = t:to "f32" end
    if self.adapter and self.adapter.one then t = t:to "cpu" end
    list[i] = { name = out.name, shape = t.shape, tensor = t:contiguous() }
  end
  return list
end

-- Runs the network on a picture [1,H,W,3] that is normalised already, on its device; one line where it cannot. A file whose own shape is another is loaded for this one.
function Detector:run(picture)
  local want, there = picture.shape, self.network.inputs[1]
  if self.first then want = { 1, 3, want[2], want[3] } end
  local fits = true
  for d, n in ipairs(there.shape) do fits = fits and (type(n) ~= "number" or n == want[d]) end
  if not fits and self.path:find "%.onnx$" then
    local network, err = require("libration.graph").load(self.path, { shapes = { [there.name] = want }, device = self.device, precision = self.precision })
    if not network then return nil, err end
    self.network = network
  end
  local ok, named = pcall(self.network.run, self.network, laid_out(self, picture))
  if not ok then
    if tostring(named):find("interrupted", 1, true) then error(named, 0) end
    return nil, tostring(named)
  end
  return outputs_of(self, named)
end

-- Where the picture lies in the input: pixels of the box to pixels of the input.
local function placing(fit, box, size)
  if fit == "stretch" then return size.width / box.width, size.height / box.height, 0, 0 end
  local scale = math.min(size.width / box.width, size.height / box.height)
  local w, h = math.floor(box.width * scale + .5), math.floor(box.height * scale + .5)
  if fit == "corner" then return scale, scale, 0, 0, w, h end
  return scale, scale, math.floor((size.width - w) / 2), math.floor((size.height - h) / 2), w, h
end

-- Three numbers of the channels on a device: the same for all where they are not listed.
local function by_channel(values, usual, name)
  local list = {}
  for i = 1, 3 do list[i] = values and values[i] or usual end
  return tensor.constant(tensor.tensor(list), name)
end

-- The input picture [1,h,w,3] of a box in a frame, normalised, on the frame's device.
local function prepare(frame, box, size, how)
  local sx, sy, left, top, w, h = placing(how.fit, box, size)
  w, h = w or size.width, h or size.height
  local x, y = box.x + box.width / 2 + (1 / sx - 1) / 2, box.y + box.height / 2 + (1 / sy - 1) / 2
  -- centres of pixels to centres of pixels, as other libraries resize
  if how.fit ~= "stretch" then x, y = box.x + w / sx / 2 + (1 / sx - 1) / 2, box.y + h / sy / 2 + (1 / sy - 1) / 2 end
  local region = tensor.constant(tensor.tensor { { x, y, w / sx, h / sy, 0 } }, frame.device)
  local picture = regions.crop(frame, region, { size = { h, w }, border = "replicate" })
  if w < size.width or h < size.height then
    picture = ops.pad(picture, { 0, top, left, 0 }, { 0, size.height - h - top, size.width - w - left, 0 }, how.fill or 0)
  end
  if how.bgr then picture = picture:flip(4) end
  if not (how.mean or how.deviation) then return ops.affine(picture, how.scale, 0), sx, sy, left, top end
  picture = picture - by_channel(how.mean, 0, frame.device)
  return ops.affine(ops.div(picture, by_channel(how.deviation, 1, frame.device)), how.scale, 0), sx, sy, left, top
end

-- The input for a part of a frame, its size, and how it lies there.
local function input_of(self, frame, box)
  local how, size = self.adapter.input, self.size
  if how.multiple then
    local shrink = math.min(1, 1920 / math.max(box.width, box.height)) -- more takes long and finds little
    size = { width = math.ceil(box.width * shrink / how.multiple) * how.multiple, height = math.ceil(box.height * shrink / how.multiple) * how.multiple }
  end
  return size, prepare(frame, box, size, how)
end

local function whole(frame) return { x = 0, y = 0, width = frame:size(2), height = frame:size(1) } end

--- Puts the network into 8 bits, on the CPU, by the ranges of numbers that frames like those to come show in it; from the file, so that it can be done again.
---@param frames Tensor[] u8 [H,W,3], contiguous, all of one size
---@return boolean|nil ok, or nil
---@return string line how much of it is in 8 bits, or why nothing is
function Detector:quantise(frames)
  local samples = {}
  for i, frame in ipairs(frames) do
    samples[i] = tensor.unscoped(function()
      local _, picture = input_of(self, frame, whole(frame))
      return laid_out(self, picture)
    end)
  end
  local name = self.network.inputs[1].name
  local network, err = require("libration.graph").load(self.path, { precision = "int8", calibration = samples, shapes = samples[1] and { [name] = samples[1].shape } })
  if not network then return nil, err end
  self.network, self.precision = network, "int8"
  local done = network.graph and network.graph.quantised or { 0, 0 }
  return true, ("%d of %d convolutions in 8 bits, by the ranges of %d frames"):format(done[1], done[2], #frames)
end

--- What the network sees.
---@param frame Tensor u8 [H,W,3] RGB, contiguous, on the network's device
---@param least number smallest score
---@param box? {x: number, y: number, width: number, height: number} part of the frame to look at (left, top, size): what a network for one person needs
---@return table[] detections x0, y0, x1, y1 in pixels of the frame, score, class (name), points (x, y, score of each)
function Detector:see(frame, least, box)
  box = box or whole(frame)
  local size, picture, sx, sy, left, top = input_of(self, frame, box)
  local outputs, err = self:run(picture)
  if not outputs then error(err, 0) end
  local class, count = self.adapter.class, self.adapter.classes and self.adapter.classes(outputs)
  local found = self.adapter.decode(outputs, least, size)
  for _, d in ipairs(found) do
    for k = 1, 3, 2 do d[k], d[k + 1] = (d[k] - left) / sx + box.x, (d[k + 1] - top) / sy + box.y end
    for k = 1, d.points and #d.points or 0, 3 do d.points[k], d.points[k + 1] = (d.points[k] - left) / sx + box.x, (d.points[k + 1] - top) / sy + box.y end
    d.class = class or count == 80 and d.class == 0 and "person" or ("class%d"):format(d.class) -- COCO's first; what others are called the file does not say
  end
  return found
end

-- The face of a person by COCO's points: from eyes, ears and shoulders, those that are seen.
local function face_of(d, least)
  local p, NONE = d.points, 0 / 0
  local function at(k)
    if p[3 * k + 3] >= least then return p[3 * k + 1], p[3 * k + 2] end
  end
  local sum_x, sum_y, n, size = 0, 0, 0, 0
  for k = 0, 4 do
    local x, y = at(k)
    if x then sum_x, sum_y, n = sum_x + x, sum_y + y, n + 1 end
  end
  local function apart(a, b, factor)
    local ax, ay = at(a)
    local bx, by = at(b)
    if ax and bx then size = math.max(size, factor * math.sqrt((ax - bx) ^ 2 + (ay - by) ^ 2)) end
  end
  apart(1, 2, 2.4)
  apart(3, 4, 1.2)
  apart(5, 6, .45)
  apart(5, 11, .3)
  apart(6, 12, .3)
  local height = d[4] - d[2]
  if size == 0 then size = .14 * height end
  local points = {}
  for i, k in ipairs { 2, 1, 0, -1, 4, 3 } do
    local x, y
    if k >= 0 then x, y = at(k) end
    points[2 * i - 1], points[2 * i] = x or NONE, y or NONE
  end
  if n == 0 then return { x = (d[1] + d[3]) / 2, y = d[2] + .08 * height, width = size, height = size, score = d.score } end
  return { x = sum_x / n, y = sum_y / n, width = size, height = size, score = d.score, points = points[1] == points[1] and points[3] == points[3] and points or nil }
end

--- What is to be covered, as pose/finder.lua takes it: faces and persons' heads for target "face", whole persons for "person", boxes of a class for its name.
---@param frame Tensor u8 [H,W,3] RGB, contiguous
---@param least number smallest score
---@param target string
---@return table[] detections kind, x, y, width, height (centre), angle, score, points of faces
function Detector:detect(frame, least, target)
  local list = {}
  for _, d in ipairs(self:see(frame, least)) do
    local found = { x = (d[1] + d[3]) / 2, y = (d[2] + d[4]) / 2, width = math.max(1, d[3] - d[1]), height = math.max(1, d[4] - d[2]), score = math.min(1, d.score) }
    if d.class == "face" and target == "face" then
      local p = d.points
      if p then found.points = { p[1], p[2], p[4], p[5], p[7], p[8], (p[10] + p[13]) / 2, (p[11] + p[14]) / 2, 0 / 0, 0 / 0, 0 / 0, 0 / 0 } end
    elseif d.class == "person" and target == "face" and self.adapter.joints == boxes.coco then
      found = face_of(d, .3)
      found.score = math.min(1, found.score)
    elseif d.class ~= target then
      found = nil
    end
    if found then
      found.kind, found.angle = target, 0
      list[#list + 1] = found
    end
  end
  return list
end

--- Targets that a network can be asked for: "face", "person" or classes.
---@param target string
---@return boolean|nil ok, or nil and one line
function Detector:offers(target)
  local a, can = self.adapter, {}
  can[a.class or "person"] = true
  if a.joints then can.face = true end
  if can[target] or a.classes and target:find "^class%d+$" then return true end
  local names = {}
  for name in pairs(can) do names[#names + 1] = name end
  table.sort(names)
  if a.classes then names[#names + 1] = "class0, class1, ..." end
  return nil, ("%s (%s) finds %s, not %s"):format(self.path, a.name, table.concat(names, ", "), target)
end

return adapters
