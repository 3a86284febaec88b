-- Finds faces in a frame with BlazeFace, short or full range: whole frame, tiles for small faces, turned views. Tracks nothing and draws nothing.
-- Numbers and order of steps are MediaPipe's (modules/face_detection); tests compare the answers with its own.
local core = require "libration.core"
local ops = require "libration.ops"
local device = require "libration.device"
local regions = require "libration.regions"
local tensor = require "libration.tensor"
local ssd = require "libration.pose.ssd"

local face = {}

local f32 = ssd.f32

face.points = { "right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear" }

-- What differs between the two networks; input in [-1, 1], square with a black border.
local ranges = {
  full = { weights = "face_detection_full_range_sparse", size = 192, layers = { { 48, 1 } } },
  short = { weights = "face_detection_short_range", size = 128, layers = { { 16, 2 }, { 8, 6 } } },
}

local IOU = .3 -- of the weighted suppression
local LOWEST = .05 -- score that counts in an opinion

---@class Face a detected face; x, y in pixels of the frame, corners of the frame at 0 and its size
---@field x number centre of the box
---@field y number
---@field width number of the box, across the face
---@field height number of the box, along the face
---@field angle number radians clockwise by which the face's box is turned: 0 but for faces found in a turned view
---@field score number 0..1
---@field points number[] x, y of face.points

---@class FaceDetector
---@field range string
local FaceDetector = {}
FaceDetector.__index = FaceDetector

local OPTIONS = { range = "string", weights = "string", precision = "string", confidence = "number", network = "table", batch = "number", device = "string", late = "boolean" }

--- A face detector.
---@param options? table range "full" (default: faces to about five metres) or "short" (selfies, two metres); confidence least score, .5; weights: file or folder;
---  precision "f32" or "bf16", "f16" on CUDA; batch: views run at once (as many as there are cores, at least 12); device "cpu" (default), "cuda", "cuda:N"; late: true
---  loads the network when it is first asked; network: a ready object with :run on that device
---@return FaceDetector
function face.detector(options)
  options = options or {}
  for name, value in pairs(options) do
    if not OPTIONS[name] then
      error(("face.detector: unknown option %s; there are batch, confidence, device, late, network, precision, range, weights"):format(tostring(name)), 2)
    end
    if type(value) ~= OPTIONS[name] then error(("face.detector: %s is a %s, want a %s"):format(name, type(value), OPTIONS[name]), 2) end
  end
  local range = options.range or "full"
  local kind = ranges[range]
  if not kind then error(("face.detector: range is %s, want full, short"):format(range), 2) end
  local network, name = options.network, device.name(device.id(options.device))
  if not network then
    local graph = require "libration.graph"
    local path = require("libration.weights").path(kind.weights, options.weights and { file = options.weights })
    local function load()
      local loaded, err = graph.load(path, { precision = options.precision, device = name })
      return loaded or error(err, 0)
    end
    network = options.late and graph.later(load) or load()
  end
  local anchors = tensor.unscoped(function() return tensor.constant(ssd.anchors(kind.layers), name) end)
  return setmetatable({
    range = range, size = kind.size, confidence = options.confidence or .5, network = network, device = name, anchors = anchors,
    batch = options.batch or math.max(12, core.threads()), -- a view a core: graph/rows.lua
  }, FaceDetector)
end

-- The two outputs by their width: names differ between the files.
local function outputs_of(self, outputs)
  local boxes, scores
  local count = self.anchors:size(1)
  for _, t in pairs(outputs) do
    local shape = t.shape
    if shape[2] == count and shape[3] == 16 then boxes = t elseif shape[2] == count and shape[3] == 1 then scores = t end
  end
  if not (boxes and scores) then error(("face.detector: the network has no outputs [B,%d,16] and [B,%d,1]"):format(count, count), 0) end
  return boxes, scores
end

-- Centre that a view is cropped round: corners go to corners without half pixels, so that a turned view would sample beside the pixels of an upright one.
local function centre_of(view)
  local c, s = math.cos(view.angle), math.sin(view.angle)
  return view.x + (c - s - 1) / 2, view.y + (c + s - 1) / 2, c, s
end

-- A detection in fractions of a square view as a Face in the frame.
local function to_frame(d, view)
  local side, cx, cy, c, s = view.side, centre_of(view)
  local function place(u, v)
    local x, y = (u - .5) * side, (v - .5) * side
    return cx + c * x - s * y, cy + s * x + c * y
  end
  local found = { width = (d[3] - d[1]) * side, height = (d[4] - d[2]) * side, angle = view.angle, score = d.score, points = {} }
  found.x, found.y = place((d[1] + d[3]) / 2, (d[2] + d[4]) / 2)
  for k = 5, 15, 2 do found.points[k - 4], found.points[k - 3] = place(d[k], d[k + 1]) end
  return found
end

-- Views first..last of a frame as the network takes them: f32 [n,size,size,3].
local function crop(self, frame, views, first, last)
  local parts = {}
  while first <= last do
    local n, rim = 1, views[first].rim or 0
    while first + n <= last and (views[first + n].rim or 0) == rim do n = n + 1 end
    local places = tensor.empty({ n, 5 })
    for k = 0, n - 1 do
      local view, p = views[first + k], places:ptr() + 5 * k
      p[0], p[1] = centre_of(view)
      p[2], p[3], p[4] = view.side, view.side, view.angle
    end
    places:touch()
    parts[#parts + 1] = regions.crop(frame, places:to(self.device), { size = { self.size, self.size }, rim = rim, scale = f32(2 / 255), shift = -1 })
    first = first + n
  end
  return #parts == 1 and parts[1] or ops.concat(parts, 1)
end

local function look(self, frame, views, least)
  local found = {}
  frame = frame:to(self.device)
  for first = 1, #views, self.batch do
    local boxes, scores = outputs_of(self, self.network:run(crop(self, frame, views, first, math.min(first + self.batch - 1, #views))))
    for k, list in ipairs(ssd.detections(boxes, scores, self.anchors, { size = self.size, least = least or self.confidence, iou = IOU })) do
      for i, d in ipairs(list) do list[i] = to_frame(d, views[first + k - 1]) end
      found[first + k - 1] = list
    end
  end
  return found
end

---@class FaceView a square of a frame: centre and side in pixels, angle in radians clockwise; rim: pixels around the frame in which it sees that mirrored (0)
---@field x number
---@field y number
---@field side number
---@field angle number
---@field rim integer|nil

--- Faces in square views of a frame, each view searched and suppressed by itself.
---@param frame Tensor u8 [H,W,3] RGB, contiguous, here or on the detector's device
---@param views FaceView[]
---@param least? number smallest score instead of the detector's own
---@return Face[][] faces of each view, best first
function FaceDetector:look(frame, views, least) return tensor.scope(look, self, frame, views, least) end

--- Faces in a whole frame, as MediaPipe finds them.
---@param frame Tensor u8 [H,W,3] RGB
---@param turn? number radians clockwise by which the view is turned, 0
---@param least? number smallest score instead of the detector's own
---@return Face[] faces best first
function FaceDetector:detect(frame, turn, least)
  local h, w = frame:size(1), frame:size(2)
  return self:look(frame:contiguous(), { { x = w / 2, y = h / 2, side = math.max(w, h), angle = turn or 0 } }, least)[1]
end

--- Square tiles that cover a frame, a quarter of each shared with its neighbour; none where one would be the frame.
---@param width integer pixels of the frame
---@param height integer
---@param side number pixels of a tile
---@return {x: number, y: number, side: number, angle: number}[]
function face.tiles(width, height, side)
  local tiles = {}
  if side >= math.max(width, height) then return tiles end
  local function places(length)
    if length <= side then return { length / 2 } end
    local n = math.ceil((length - side) / (.75 * side))
    local at = {}
    for i = 0, n do at[i + 1] = side / 2 + (length - side) * i / n end
    return at
  end
  for _, y in ipairs(places(height)) do
    for _, x in ipairs(places(width)) do tiles[#tiles + 1] = { x = x, y = y, side = side, angle = 0 } end
  end
  return tiles
end

-- Share of the smaller box that lies in the other; turned boxes by the upright squares round their centres.
local function shared(a, b)
  local function bounds(f)
    if f.angle == 0 then return { f.x - f.width / 2, f.y - f.height / 2, f.x + f.width / 2, f.y + f.height / 2 } end
    local r = math.max(f.width, f.height) / 2
    return { f.x - r, f.y - r, f.x + r, f.y + r }
  end
  local p, q = bounds(a), bounds(b)
  local w, h = math.min(p[3], q[3]) - math.max(p[1], q[1]), math.min(p[4], q[4]) - math.max(p[2], q[2])
  if w <= 0 or h <= 0 then return 0 end
  return w * h / math.max(1e-9, math.min((p[3] - p[1]) * (p[4] - p[2]), (q[3] - q[1]) * (q[4] - q[2])))
end
face.shared = shared

-- True where a face shares no more than half of the smaller box with any of a list.
local function is_apart(f, others)
  for _, other in ipairs(others) do
    if not (shared(f, other) <= .5) then return false end
  end
  return true
end

--- One list from several views: a face that shares more than half of the smaller box with a better one is the same.
---@param lists Face[][]
---@return Face[] faces best first
function face.merge(lists)
  local all, kept = {}, {}
  for _, list in ipairs(lists) do
    for _, f in ipairs(list) do all[#all + 1] = f end
  end
  for i, f in ipairs(all) do f.place = i end
  table.sort(all, function(a, b)
    if a.score ~= b.score then return a.score > b.score end
    return a.place < b.place
  end)
  for _, f in ipairs(all) do
    f.place = nil
    if is_apart(f, kept) then kept[#kept + 1] = f end
  end
  return kept
end

-- Faces of at least a score; the others.
local function part(list, least)
  local surer, weaker = {}, {}
  for _, f in ipairs(list) do
    local to = f.score >= least and surer or weaker
    to[#to + 1] = f
  end
  return surer, weaker
end

-- The same of lists, each merged; what is among the surer ones is not among the weaker.
local function sift(lists, least)
  local surer, weaker = {}, {}
  for i, list in ipairs(lists) do surer[i], weaker[i] = part(list, type(least) == "table" and least[i] or least) end
  surer = face.merge(surer)
  return surer, face.besides(face.merge(weaker), surer)
end

--- What is not in another list: shares no more than half of the smaller box with any of it.
---@param list Face[]
---@param others Face[]
---@return Face[]
function face.besides(list, others)
  local kept = {}
  for _, f in ipairs(list) do
    if is_apart(f, others) then kept[#kept + 1] = f end
  end
  return kept
end

-- Lists from the first-th on without the faces that are mirror images alone.
local function inside(lists, w, h, first)
  for i = first or 1, #lists do
    local kept = {}
    for _, f in ipairs(lists[i]) do
      local over = .3 * math.max(f.width, f.height)
      if f.x > -over and f.x < w + over and f.y > -over and f.y < h + over then kept[#kept + 1] = f end
    end
    lists[i] = kept
  end
  return lists
end

-- Views round the left and right edge, half of each beyond it, .8 and .5 of a tile wide.
local function edge_views(w, h, tile, rim)
  local views = {}
  for _, share in ipairs { .8, .5 } do
    local side = math.min(share * tile, 2 * rim)
    local n = math.max(1, math.ceil((h - side) / (.6 * side)) + 1)
    for i = 0, n - 1 do
      local y = n > 1 and side / 2 + (h - side) * i / (n - 1) or h / 2
      for _, x in ipairs { side / 4, w - side / 4 } do views[#views + 1] = { x = x, y = y, side = side, angle = 0, rim = rim } end
    end
  end
  return views
end

--- Faces that the left or right edge of a frame cuts, at which people sit and pass: closer views, mirrored beyond the edge.
---@param frame Tensor u8 [H,W,3] RGB, here or on the detector's device
---@param tile number|nil side of the tiles of the search in pixels (the longer side of the frame)
---@param ask? function called in place of look, as of search
---@param weak? number smallest score of the weaker ones
---@return Face[] faces best first, of an eighth of the rest more than the detector's least score
---@return Face[] weaker those that have less, but at least `weak`; none without it
function FaceDetector:edges(frame, tile, ask, weak)
  local h, w = frame:size(1), frame:size(2)
  tile, ask = tile or math.max(w, h), ask or self.look
  local rim, least = math.min(math.ceil(.4 * tile), w, h), self.confidence + (1 - self.confidence) / 8
  local lists = ask(self, frame:contiguous(), edge_views(w, h, tile, rim), weak or least)
  local function cut(list)
    local kept = {}
    for _, f in ipairs(list) do
      if math.min(f.x, w - f.x) < f.width then kept[#kept + 1] = f end
    end
    return kept
  end
  local found, weaker = sift(inside(lists, w, h), least)
  return cut(found), cut(weaker)
end

--- Faces in a frame, wherever they are: the whole frame, and with a rim in which it is mirrored (the half of a face that the edge cuts off is there again, and the
--- network finds it) its tiles or the whole again; where that finds none, the same turned by 90, 180 and 270 degrees.
---@param frame Tensor u8 [H,W,3] RGB, here or on the detector's device
---@param options? {tile: number, upright: boolean, turned: boolean, least: number, weak: number, ask: function} tile: side of the tiles in pixels (none without);
---  upright, turned: false leaves those views out; least: smallest score instead of the detector's own. All but the whole frame are asked for a quarter of the
---  rest more, as they show much that is no face. weak: smallest score of the weaker ones; ask: is called in place of look
---@return Face[] faces best first
---@return Face[] weaker those of the same views that have less than is asked for, but at least `weak`; none without it
function FaceDetector:search(frame, options)
  options = options or {}
  local h, w = frame:size(1), frame:size(2)
  local least, long, ask = options.least or self.confidence, math.max(w, h), options.ask or self.look
  frame = frame:contiguous()
  local rim = math.min(math.ceil((options.tile or long) / 8), w, h)
  local parts = options.tile and face.tiles(w + 2 * rim, h + 2 * rim, options.tile) or {}
  for _, tile in ipairs(parts) do tile.x, tile.y = tile.x - rim, tile.y - rim end
  if #parts == 0 then parts = { { x = w / 2, y = h / 2, side = long + 2 * rim } } end
  local function turned(quarters)
    local views, wanted = {}, {}
    local function add(view, quarter, within, score)
      views[#views + 1] = { x = view.x, y = view.y, side = view.side, angle = quarter * math.pi / 2, rim = within }
      wanted[#views] = score
    end
    for _, quarter in ipairs(quarters) do add({ x = w / 2, y = h / 2, side = long }, quarter, 0, least) end
    for _, quarter in ipairs(quarters) do
      for _, view in ipairs(parts) do add(view, quarter, rim, least + (1 - least) / 4) end
    end
    local surer, weaker = sift(inside(ask(self, frame, views, options.weak or least), w, h, #quarters + 1), wanted)
    return surer, options.weak and weaker or {}
  end
  local found, weaker = {}, {}
  if options.upright ~= false then found, weaker = turned { 0 } end
  if #found > 0 or options.turned == false then return found, weaker end
  return turned { 1, 2, 3 }
end

-- Sides of the closer views, in sizes of a face.
local CLOSER = { 1.5, 2, 2.6, 3.4, 4.5, 6 }

--- How sure the detector is of faces that another one found: the mean of its scores in closer views round each; 0 where it sees none at that place and of that size.
--- What only looks like a face in one view falls apart in others.
---@param frame Tensor u8 [H,W,3] RGB, here or on the detector's device
---@param faces Face[]
---@return number[] scores 0..1, one a face
function FaceDetector:opinions(frame, faces)
  local h, w, opinions = frame:size(1), frame:size(2), {}
  frame = frame:contiguous()
  for i, f in ipairs(faces) do
    local size, views, sum = math.max(f.width, f.height), {}, 0
    local rim = math.min(math.ceil(CLOSER[#CLOSER] / 2 * size), w, h)
    for k, times in ipairs(CLOSER) do views[k] = { x = f.x, y = f.y, side = times * size, angle = f.angle, rim = rim } end
    for _, list in ipairs(self:look(frame, views, LOWEST)) do
      local best = 0
      for _, d in ipairs(list) do
        local both, ratio = (d.width + d.height + f.width + f.height) / 4, (d.width + d.height) / (f.width + f.height)
        if math.sqrt((d.x - f.x) ^ 2 + (d.y - f.y) ^ 2) < both / 2 and ratio > .5 and ratio < 2 then best = math.max(best, d.score) end
      end
      sum = sum + best
    end
    opinions[i] = sum / #CLOSER
  end
  return opinions
end

return face
