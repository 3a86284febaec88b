-- The recording check: is a recording good enough to be judged? Points seen, body in the frame, camera, light, other people, usable seconds.
-- Judges what pose.watch and the landmarks tell; decodes nothing and scores no movement.

local watch = require "libration.pose.watch"
local body = require "libration.motion.body"
local Sequence = require "libration.motion.sequence"
local skeletons = require "libration.pose.skeletons"
local statistics = require "libration.motion.statistics"

local recording_check = {}

--- Limits, as the recipes' options change them. Shares are of 1.
---   likelihood, points   at least this share of the joint positions lies above this likelihood (Passmore et al. 2024: 70 % above .2)
---   seconds, share       usable seconds, and usable share of the recording, at least
---   outside              share of the joint positions beyond the border, at most
---   torso                pixels, at least
---   camera               torso lengths a second that the background moves in the fastest quarter of the time, at most
---   dark, bright         mean grey level, 0 black to 1 white
---   clipped              share of the picture that is black or white, at most (a warning)
---   step, steps          a change of light from frame to frame larger than `step` (of 1) is sudden; at most so many a minute (a warning)
---   flicker              median deviation of a frame's light from its neighbours' mean, of its light, at most (a warning)
---   others               share of the looks that find somebody else, at most (a warning); over: over the body, at most
---   sharp                see pose.watch, at least (a warning)
---   unsteady             torso lengths: a joint whose place is less certain counts as unseen
recording_check.LIMITS = {
  likelihood = .2, points = .7, seconds = 3, share = .5, outside = .2, torso = 20, camera = .15, dark = .1, bright = .92, clipped = .6,
  step = .05, steps = 6, flicker = .02, others = .1, over = .2, sharp = .27, unsteady = .1,
}

-- A frame that shows fewer joints than this share, or more beyond the border, is not usable.
local FRAME_SEEN, FRAME_OUTSIDE = .5, .3
-- Spans closer together than this are one; shorter ones are left out. Seconds.
local JOIN, SHORTEST = .3, .2
-- Looks at the background that tell how the camera moves: at least so many, and this share of all.
local LOOKS, TEXTURED = 5, .25
-- Looks that find somebody over the body before this stops a verdict: one may be a toy or a reflection.
local OVERLAPS = 3
local LIGHT = "light changes suddenly"

---@class Finding
---@field level "error"|"warning"|"note"
---@field code string short key
---@field text string one sentence that a person can act on
---@field detail? string[]

---@class RecordingMeasure
---@field key string
---@field name string
---@field value number? in `unit`; nil where it could not be taken
---@field unit string
---@field limit string in words: "at least 70", "10 to 92"
---@field passed boolean true also where it could not be taken
---@field stops boolean whether failing it stops a verdict; others only warn
---@field note string? why it could not be taken

---@class RecordingCheck
---@field passed boolean no measure that stops a verdict failed
---@field mode "strict"|"warn" strict: a recording that did not pass is not scored
---@field stops boolean not passed, and strict
---@field reason string? why not passed, in one line
---@field seconds number of the recording
---@field usable_seconds number outside the spans
---@field measures RecordingMeasure[]
---@field spans {from: number, to: number, reason: string}[] seconds; what is not usable
---@field findings Finding[]
---@field cost number? share of the landmarks' time that watching the frames took; nil where they were remembered

local Body = {}
Body.__index = Body

--- Begins a check of landmarks that come frame by frame.
---@param about table {skeleton: string, names: string[]?, channels: integer a joint, score: integer? position of the likelihood from 1, width, height: pixels?,
---  sx, sy, offset: how x and y become pixels (1, 1, 0), fps, limits: table over LIMITS, unsteady: table<string, boolean>? joints that count as unseen}
---@return RecordingBody
function recording_check.begin(about)
  local limits = setmetatable({}, { __index = recording_check.LIMITS })
  for name, value in pairs(about.limits or {}) do
    if recording_check.LIMITS[name] == nil then error(("recording check: no limit %q"):format(tostring(name)), 2) end
    limits[name] = value
  end
  local names = about.names or skeletons.get(about.skeleton).joints
  local self = setmetatable({
    limits = limits, channels = about.channels, score = about.score, width = about.width, height = about.height, fps = about.fps,
    sx = about.sx or 1, sy = about.sy or 1, offset = about.offset or 0, joints = body.default_joints(about.skeleton, names), names = names,
    unsteady = about.unsteady or {}, roles = body.roles(names), times = {}, seen = {}, out = {}, torso = {},
  }, Body)
  return self
end

-- Middle of two joints in pixels, NaN where one is not seen.
local function middle(self, p, a, b)
  a, b = self.roles[a], self.roles[b]
  if not (a and b) then return 0 / 0, 0 / 0 end
  a, b = (a - 1) * self.channels, (b - 1) * self.channels
  return ((p[a] + p[b]) / 2 + self.offset) * self.sx, ((p[a + 1] + p[b + 1]) / 2 + self.offset) * self.sy
end

--- Takes one frame.
---@param time number seconds
---@param p ffi.cdata* float or double[J*channels]
function Body:add(time, p)
  local channels, score, least = self.channels, self.score, self.limits.likelihood
  local w, h = self.width, self.height
  local seen, outside, there = 0, 0, 0
  for i = 1, #self.joints do
    local j = self.joints[i]
    local o = (j - 1) * channels
    local x, y = (p[o] + self.offset) * self.sx, (p[o + 1] + self.offset) * self.sy
    if x - x == 0 and y - y == 0 and (not score or p[o + score - 1] > 0) then
      there = there + 1
      if w and h and (x < 0 or y < 0 or x > w or y > h) then outside = outside + 1 end
      if (not score or p[o + score - 1] > least) and not self.unsteady[self.names[j]] then seen = seen + 1 end
    end
  end
  local n = #self.times + 1
  self.times[n], self.seen[n], self.out[n] = time, seen / #self.joints, there > 0 and outside / there or 0
  local sx, sy = middle(self, p, "left_shoulder", "right_shoulder")
  local hx, hy = middle(self, p, "left_hip", "right_hip")
  self.torso[n] = math.sqrt((sx - hx) ^ 2 + (sy - hy) ^ 2)
end

-- Values of a series' column by frame, NaN where none was taken.
local function column(series, name)
  local list, p, n, at = {}, series:ptr(), series:size(2), watch.at[name] - 1
  for t = 1, series:size(1) do list[t] = p[(t - 1) * n + at] end
  return list
end

-- Those that are there.
local function there(values)
  local list = {}
  for i = 1, #values do
    local v = values[i]
    if v == v and v > -math.huge and v < math.huge then list[#list + 1] = v end
  end
  return list
end

-- Marks frames as not usable.
local function mark(bad, first, last, reason)
  for t = math.max(first, 1), math.min(last, bad.n) do
    if not bad[t] then bad[t] = reason end
  end
end

-- Marked frames as spans of seconds; what is shorter than SHORTEST is dropped and its frames are usable again.
local function spans_of(bad, times, step)
  local list, t = {}, 1
  while t <= bad.n do
    if bad[t] then
      local last = t
      while last < bad.n and bad[last + 1] == bad[t] do last = last + 1 end
      local before, from, to = list[#list], times[t], times[last] + step
      if before and before.reason == bad[t] and from - before.to <= JOIN then
        before.to, before.last = to, last
      else
        list[#list + 1] = { from = from, to = to, reason = bad[t], first = t, last = last }
      end
      t = last
    end
    t = t + 1
  end
  local kept, usable = {}, bad.n
  for _, s in ipairs(list) do
    if s.to - s.from >= SHORTEST or s.last - s.first + 1 == bad.n then
      usable = usable - (s.last - s.first + 1)
      kept[#kept + 1] = { from = s.from, to = s.to, reason = s.reason }
    end
  end
  return kept, usable
end

-- What the landmarks alone tell.
local function measure_body(self, add, bad)
  local l, n = self.limits, bad.n
  local points = statistics.mean(self.seen)
  add { key = "points", name = ("joint positions above likelihood %.2g"):format(l.likelihood), value = 100 * points, unit = "%", limit = ("at least %.3g"):format(100 * l.points),
    passed = points >= l.points, stops = true,
    text = ("only %.0f %% of the joint positions lie above likelihood %.2g (at least %.0f %% wanted): show the whole body, larger and in more light"):format(
      100 * points, l.likelihood, 100 * l.points) }
  for t = 1, n do
    if self.seen[t] == 0 then mark(bad, t, t, "nobody found") elseif self.seen[t] < FRAME_SEEN then mark(bad, t, t, "less than half of the body seen") end
  end
  if self.width and self.height then
    local out = statistics.mean(self.out)
    add { key = "outside", name = "joint positions outside the frame", value = 100 * out, unit = "%", limit = ("at most %.3g"):format(100 * l.outside), passed = out <= l.outside,
      stops = true, text = ("%.0f %% of the joint positions lie outside the frame (at most %.0f %% wanted): film the whole body"):format(100 * out, 100 * l.outside) }
    for t = 1, n do
      if self.out[t] > FRAME_OUTSIDE then mark(bad, t, t, "body outside the frame") end
    end
  else
    add { key = "outside", name = "joint positions outside the frame", unit = "%", limit = ("at most %.3g"):format(100 * l.outside), stops = true,
      note = "the size of the picture is not known" }
  end
  local lengths = there(self.torso)
  local torso = #lengths > 0 and statistics.median(lengths) or nil
  -- coordinates that are no pixels tell nothing about size
  local pixels = torso and torso > 2
  add { key = "torso", name = "torso length", value = pixels and torso or nil, unit = "pixels", limit = ("at least %.3g"):format(l.torso), passed = not pixels or torso >= l.torso,
    stops = true, note = not pixels and (torso and "the coordinates are no pixels" or "shoulders and hips are never seen together") or nil,
    text = pixels and ("the body is small: its torso measures %.0f pixels (at least %.0f wanted)"):format(torso, l.torso) }
  return torso
end

local function measure_camera(self, series, torso, add, bad)
  local l = self.limits
  local row = { key = "camera", name = "camera motion, fastest quarter of the time", unit = "torso lengths/s", limit = ("at most %.3g"):format(l.camera), stops = true }
  local speeds, looks, before = column(series, "camera"), 0, 1
  for t, v in ipairs(speeds) do
    if v == v then
      -- where the light changes nothing can be followed
      for k = before, t do if bad[k] == LIGHT then speeds[t] = 0 / 0 end end
      before = t
    end
  end
  for _, v in ipairs(column(series, "sharp")) do if v == v then looks = looks + 1 end end
  local taken = there(speeds)
  if not torso or #taken < LOOKS or #taken < TEXTURED * looks then
    row.note = torso and "the background shows too little that could be followed" or "no torso to measure it by"
    return add(row)
  end
  for i, v in ipairs(taken) do taken[i] = v / torso end
  row.value = statistics.percentile(taken, 75)
  row.passed = row.value <= l.camera
  row.text = ("the camera moves: the background goes %.2f torso lengths a second or more in a quarter of the time (limit %.2g): put it on a stand"):format(row.value, l.camera)
  add(row)
  before = 1
  for t = 1, bad.n do
    if speeds[t] == speeds[t] then
      if speeds[t] / torso > l.camera then mark(bad, before + 1, t, "camera moves") end
      before = t
    elseif t - before > self.fps then
      before = t
    end
  end
end

local function measure_light(self, series, add, bad)
  local l = self.limits
  local light, behind = column(series, "light"), column(series, "background")
  local mean = statistics.mean(light) / 255
  add { key = "light", name = "mean light", value = 100 * mean, unit = "% of white", limit = ("%.3g to %.3g"):format(100 * l.dark, 100 * l.bright),
    passed = mean >= l.dark and mean <= l.bright, stops = true,
    text = ("the picture is too %s: its mean is %.0f %% of white (%.0f to %.0f %% wanted)"):format(mean < l.dark and "dark" or "bright", 100 * mean, 100 * l.dark, 100 * l.bright) }
  local dark, bright = statistics.mean(column(series, "dark")), statistics.mean(column(series, "bright"))
  add { key = "clipped", name = "picture black or white", value = 100 * (dark + bright), unit = "%", limit = ("at most %.3g"):format(100 * l.clipped),
    passed = dark + bright <= l.clipped,
    text = ("%.0f %% of the picture is wholly %s: nothing can be seen there"):format(100 * (dark + bright), dark > bright and "black" or "white") }
  -- of the whole and of the background, the smaller: the body's own movement changes one of them
  local function smaller(a, b) return b == b and math.min(math.abs(a), math.abs(b)) or math.abs(a) end
  local wobble, usual = {}, {}
  for t = 2, #light do
    usual[t - 1] = smaller(light[t] - light[t - 1], behind[t] - behind[t - 1])
    if t < #light then
      local d = smaller(light[t] - (light[t - 1] + light[t + 1]) / 2, behind[t] - (behind[t - 1] + behind[t + 1]) / 2)
      wobble[#wobble + 1] = d / math.max(light[t], 1)
    end
  end
  -- what light that flickers does all the time is not sudden
  local sudden, steps, last = math.max(255 * l.step, #usual > 0 and 4 * statistics.median(usual) or 0), 0, -math.huge
  for t = 2, #light do
    if usual[t - 1] > sudden then
      -- a flash is one change
      if self.times[t] - last > .5 then steps = steps + 1 end
      last = self.times[t]
      mark(bad, t - 1, t + math.ceil(.2 * self.fps), LIGHT)
    end
  end
  local minutes = math.max(#light / self.fps / 60, 1 / 60)
  add { key = "light_steps", name = "sudden changes of light", value = steps / minutes, unit = "a minute", limit = ("at most %.3g"):format(l.steps),
    passed = steps <= 1 or steps / minutes <= l.steps, text = ("the light changes suddenly %d times: the landmarks may jump there"):format(steps) }
  local flicker = #wobble > 0 and statistics.median(wobble) or 0
  add { key = "flicker", name = "flicker", value = 100 * flicker, unit = "% of the light", limit = ("at most %.3g"):format(100 * l.flicker), passed = flicker <= l.flicker,
    text = ("the light flickers by %.1f %% from frame to frame (limit %.1f %%): film by daylight, or set the camera to the mains' 50 or 60 Hz"):format(
      100 * flicker, 100 * l.flicker) }
end

local function measure_sharpness(self, series, add)
  local l, values = self.limits, there(column(series, "sharp"))
  local row = { key = "sharp", name = "sharpness of the body (1 crisp, 0.25 blurred)", unit = "", limit = ("at least %.3g"):format(l.sharp) }
  if #values == 0 then
    row.note = "the body is too small or never seen"
  else
    row.value = statistics.median(values)
    row.passed = row.value >= l.sharp
    row.text = ("the body is blurred (sharpness %.2f, at least %.2f wanted): focus the camera, or use more light"):format(row.value, l.sharp)
  end
  add(row)
end

local function measure_people(self, series, add, bad)
  local l = self.limits
  local others, over = column(series, "others"), column(series, "over")
  local looks, found, covered = 0, 0, 0
  for t = 1, #others do
    if others[t] == others[t] then
      looks = looks + 1
      if others[t] > 0 then found = found + 1 end
      if over[t] > 0 then
        covered = covered + 1
        mark(bad, t, t + math.floor(self.fps), "another person over the body")
      end
    end
  end
  local one = { key = "others", name = "looks that find another person", unit = "%", limit = ("at most %.3g"):format(100 * l.others) }
  local two = { key = "over", name = "looks that find another person over the body", unit = "%", limit = ("at most %.3g"):format(100 * l.over), stops = true }
  if looks == 0 then
    one.note, two.note = "the body is never seen", "the body is never seen"
  else
    one.value, two.value = 100 * found / looks, 100 * covered / looks
    one.passed, two.passed = found <= l.others * looks, covered < OVERLAPS or covered <= l.over * looks
    one.text = ("another person, a reflection or a doll is seen in %d of %d looks, one a second: make sure that the right one is followed (--person)"):format(found, looks)
    two.text = ("another person is over the body in %d of %d looks, one a second: film the person alone"):format(covered, looks)
  end
  add(one)
  add(two)
end

local function measure_steadiness(self, stability, add)
  local l, list, worst = self.limits, {}, {}
  for _, row in ipairs(stability.joints) do
    list[#list + 1] = row.torso
    if row.torso > l.unsteady then worst[#worst + 1] = (row.joint:gsub("_", " ")) end
  end
  add { key = "steady", name = "uncertainty of the joints, median", value = statistics.median(there(list)), unit = "torso lengths",
    limit = ("at most %.3g a joint"):format(l.unsteady), passed = #worst == 0,
    text = ("%d of %d joints move by more than %.2g torso lengths when the crop is shifted by half a pixel: %s"):format(
      #worst, #list, l.unsteady, #worst > 6 and ("%s ..."):format(table.concat(worst, ", ", 1, 6)) or table.concat(worst, ", ")) }
end

local WATCHED = {
  { "camera", "camera motion" }, { "light", "light" }, { "sharp", "sharpness" }, { "others", "other people" },
}

--- Judges what was added.
---@param options? table {watch: Tensor? as Recording.watch, stability: table? as pose.stability gives it, mode: "strict"|"warn", default strict, cost: number?}
---@return RecordingCheck
function Body:judge(options)
  options = options or {}
  local n, step = #self.times, 1 / self.fps
  if n == 0 then error("recording check: no frames", 2) end
  local mode = options.mode or "strict"
  local result = { mode = mode, measures = {}, findings = {}, spans = {}, seconds = math.max(self.times[n] - self.times[1] + step, n == 1 and 0 or step), cost = options.cost }
  local bad, reasons, missing = { n = n }, {}, {}
  local function add(m)
    if m.passed == nil then m.passed = true end
    m.stops = m.stops or false
    if m.value ~= nil and m.value ~= m.value then m.value = nil end
    if m.value == nil then missing[#missing + 1] = ("%s (%s)"):format(m.name, m.note or "nothing to take it from") end
    if not m.passed then
      if m.stops and not (m.key == "share" and result.usable_seconds < self.limits.seconds) then reasons[#reasons + 1] = m.text end -- too few seconds says it
      result.findings[#result.findings + 1] = { level = m.stops and mode == "strict" and "error" or "warning", code = m.key, text = m.text }
    end
    m.text = nil
    result.measures[#result.measures + 1] = m
  end
  local torso = measure_body(self, add, bad)
  local series = options.watch
  if series and watch.fits(series, n) then
    measure_light(self, series, add, bad)
    measure_camera(self, series, torso, add, bad)
    measure_sharpness(self, series, add)
    measure_people(self, series, add, bad)
  else
    for _, w in ipairs(WATCHED) do missing[#missing + 1] = w[2] .. " (no frames were watched)" end
  end
  if options.stability then measure_steadiness(self, options.stability, add) end
  local usable
  result.spans, usable = spans_of(bad, self.times, step)
  result.usable_seconds = usable * step
  local l = self.limits
  add { key = "seconds", name = "usable seconds", value = result.usable_seconds, unit = "s", limit = ("at least %.3g"):format(l.seconds),
    passed = result.usable_seconds >= l.seconds, stops = true,
    text = ("only %.1f usable seconds of %.1f (at least %.1f wanted)"):format(result.usable_seconds, result.seconds, l.seconds) }
  add { key = "share", name = "usable share", value = 100 * usable / n, unit = "%", limit = ("at least %.3g"):format(100 * l.share), passed = usable >= l.share * n, stops = true,
    text = ("only %.0f %% of the recording is usable (at least %.0f %% wanted)"):format(100 * usable / n, 100 * l.share) }
  if #missing > 0 then
    result.findings[#result.findings + 1] = { level = "note", code = "not-measured", text = "not measured: " .. table.concat(missing, ", ") }
  end
  result.passed = #reasons == 0
  result.stops = not result.passed and mode == "strict"
  result.reason = reasons[1] and table.concat(reasons, "; ") or nil
  return result
end

--- Checks a sequence, with what was watched while its landmarks were found.
---@param sequence Sequence
---@param recording Recording? of a video or pictures
---@param options? table {limits, mode, coordinates: of the sequence, stability}
---@return RecordingCheck
function recording_check.of_sequence(sequence, recording, options)
  options = options or {}
  local points = sequence.points:to("f32"):contiguous()
  local T, J, C = points:size(1), points:size(2), points:size(3)
  local sx, sy, offset = sequence:to_pixels(options.coordinates)
  local limits = options.limits or {}
  local stability, unsteady = options.stability or recording and recording.stability, {}
  if stability then
    local most = limits.unsteady or recording_check.LIMITS.unsteady
    for _, row in ipairs(stability.joints) do unsteady[row.joint] = row.torso > most end
  end
  local b = recording_check.begin {
    skeleton = sequence.skeleton, names = sequence.names, channels = C, score = sequence.score_channel, width = sequence.width, height = sequence.height,
    sx = sx, sy = sy, offset = offset, fps = sequence.fps, limits = limits, unsteady = unsteady,
  }
  local p = points:ptr()
  for t = 0, T - 1 do b:add(sequence:time(t), p + t * J * C) end
  local cost = recording and recording.watch_seconds
  return b:judge {
    watch = recording and recording.watch, stability = stability, mode = options.mode,
    cost = cost and cost > 0 and cost / math.max(recording.seconds - cost, 1e-9) or nil,
  }
end

--- The sequence without what is not usable: its joints are missing (NaN) there.
---@param sequence Sequence
---@param check RecordingCheck
---@return Sequence the same where everything is usable
function recording_check.usable(sequence, check)
  if #check.spans == 0 then return sequence end
  local points = sequence.points:to("f32"):clone():contiguous()
  local p, n = points:ptr(), points:size(2) * points:size(3)
  for t = 0, points:size(1) - 1 do
    local time = sequence:time(t)
    for _, s in ipairs(check.spans) do
      if time >= s.from - 1e-6 and time < s.to - 1e-6 then
        for i = t * n, (t + 1) * n - 1 do p[i] = 0 / 0 end
      end
    end
  end
  return Sequence.new {
    points = points, id = sequence.id, skeleton = sequence.skeleton, fps = sequence.fps, width = sequence.width, height = sequence.height, times = sequence.times,
    source = sequence.source, score_channel = sequence.score_channel,
  }
end

--- The result in one line.
---@param check RecordingCheck
---@return string
function recording_check.line(check)
  local warnings = 0
  for _, f in ipairs(check.findings) do if f.level == "warning" then warnings = warnings + 1 end end
  local usable = ("%.1f of %.1f s usable"):format(check.usable_seconds, check.seconds)
  if not check.passed then return ("not passed (%s): %s"):format(usable, check.reason) end
  return ("passed, %s%s"):format(usable, warnings > 0 and (", %d warning%s"):format(warnings, warnings == 1 and "" or "s") or "")
end

--- Rows for anomaly_stats.txt and the like: each measure with its limit, then the spans.
---@param check RecordingCheck
---@return string[][] {name, text}
function recording_check.rows(check)
  local rows = { { "recording check", recording_check.line(check) } }
  for _, m in ipairs(check.measures) do
    local fate = m.passed and "" or m.stops and ", FAILED" or ", warning"
    local value = m.value and ("%.3g%s (%s)%s"):format(m.value, m.unit ~= "" and " " .. m.unit or "", m.limit, fate) or "not measured: " .. (m.note or "no value")
    rows[#rows + 1] = { "  " .. m.name, value }
  end
  for i, s in ipairs(check.spans) do
    if i > 20 then
      rows[#rows + 1] = { "  not usable", ("and %d spans more"):format(#check.spans - 20) }
      break
    end
    rows[#rows + 1] = { "  not usable", ("%.2f to %.2f s: %s"):format(s.from, s.to, s.reason) }
  end
  return rows
end

return recording_check
