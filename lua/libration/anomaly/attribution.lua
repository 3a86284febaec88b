-- Where an error comes from: by joint, by limb, left against right, second by second. Reads one scored sequence; judges nothing.

local csv = require "libration.formats.csv"
local skeletons = require "libration.pose.skeletons"

local attribution = {}

-- Seconds of a row of the course over time.
local ROW = 1

---@class Attribution
---@field joints table[] {name: "left wrist", error: mean squared error over the frames where it is seen, share: of all squared error, limb: "left arm"}
---@field limbs table[] {name: "left arm", error: mean over its joints, share}; shares of all joints and of all limbs add up to 1
---@field left number? mean error of the left arm and leg; nil where none of their joints is used
---@field right number?
---@field time table[] a row a second: {from, to: seconds, error: mean error, [name of a limb]: its share of the squared error in this second}

local function words(name) return (name:gsub("_", " ")) end

-- A bone belongs to the limb of the joint at its end.
local function limb_of(name) return skeletons.limb_of(name:match("[^-]+$")) end

--- Attributes the error of a sequence. Joints that are never seen are left out; a second without windows has no row.
---@param s Scored with at least one window
---@return Attribution
function attribution.of(s)
  local J = #s.joints
  local a = { joints = {}, limbs = {}, time = {} }
  local limb, sum, n, total = {}, {}, {}, 0
  local limb_sum, limb_n = {}, {}
  for j = 1, J do limb[j], sum[j], n[j] = limb_of(s.joints[j]), 0, 0 end
  local rows = {}
  for t = 0, s.frames - 1 do
    local k = math.floor(t / s.fps / ROW + 1e-9) + 1
    for j = 1, J do
      local e = s.joint_error[t * J + j - 1]
      if e == e then
        sum[j], n[j], total = sum[j] + e, n[j] + 1, total + e
        local row = rows[k]
        if not row then
          row = { sum = 0, n = 0, limbs = {} }
          rows[k] = row
        end
        row.sum, row.n = row.sum + e, row.n + 1
        row.limbs[limb[j]] = (row.limbs[limb[j]] or 0) + e
      end
    end
  end
  local function share(part, whole) return whole > 0 and part / whole or 0 end
  for j = 1, J do
    if n[j] > 0 then
      a.joints[#a.joints + 1] = { name = words(s.joints[j]), error = sum[j] / n[j], share = share(sum[j], total), limb = words(limb[j]) }
      limb_sum[limb[j]], limb_n[limb[j]] = (limb_sum[limb[j]] or 0) + sum[j] / n[j], (limb_n[limb[j]] or 0) + 1
    end
  end
  local sides = { left = { 0, 0 }, right = { 0, 0 } }
  for _, name in ipairs(skeletons.limbs) do
    if limb_n[name] then
      local all = 0
      for j = 1, J do if limb[j] == name then all = all + sum[j] end end
      a.limbs[#a.limbs + 1] = { name = words(name), error = limb_sum[name] / limb_n[name], share = share(all, total) }
      local side = sides[name:match("^%a+")]
      if side then side[1], side[2] = side[1] + limb_sum[name], side[2] + limb_n[name] end
    end
  end
  for side, v in pairs(sides) do if v[2] > 0 then a[side] = v[1] / v[2] end end
  for k = 1, math.ceil(s.frames / s.fps / ROW) do
    local row = rows[k]
    if row then
      local out = { from = s.begin + (k - 1) * ROW, to = s.begin + math.min(k * ROW, s.frames / s.fps), error = row.sum / row.n }
      for _, l in ipairs(a.limbs) do out[l.name] = share(row.limbs[l.name:gsub(" ", "_")] or 0, row.sum) end
      a.time[#a.time + 1] = out
    end
  end
  return a
end

--- Writes attribution.csv: a row a joint, a limb, a side, and a row a limb and second; the share is of the whole, or of its second.
---@param path string
---@param a Attribution
---@return string path
function attribution.write(path, a)
  local rows = {}
  for _, r in ipairs(a.joints) do rows[#rows + 1] = { "joint", r.name, r.limb, nil, nil, r.error, r.share } end
  for _, r in ipairs(a.limbs) do rows[#rows + 1] = { "limb", r.name, r.name, nil, nil, r.error, r.share } end
  for _, side in ipairs { "left", "right" } do
    if a[side] then rows[#rows + 1] = { "side", side, nil, nil, nil, a[side], a[side] / (a.left and a.right and a.left + a.right or a[side]) } end
  end
  for _, r in ipairs(a.time) do
    for _, l in ipairs(a.limbs) do rows[#rows + 1] = { "time", l.name, l.name, r.from, r.to, r.error, r[l.name] } end
  end
  return csv.save(path, { "part", "name", "limb", "from", "to", "error", "share" }, rows)
end

return attribution
