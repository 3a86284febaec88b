-- The figures beside a verdict: each score of a sequence with its range over the calibration sequences and its conformal p. Decides nothing.

local attribution = require "libration.anomaly.attribution"
local statistics = require "libration.motion.statistics"

local measures = {}

-- Scores of the autoencoder, as a summary of a sequence names them.
local LIST = {
  { key = "mean", field = "mean", name = "mean window error", note = "the headline score; follows the amount of movement" },
  { key = "p95", field = "p95", name = "95th percentile of the window errors", note = "short episodes weigh more" },
  { key = "ratio", field = "ratio", name = "error / window variance", note = "1 - share of the movement explained" },
  { key = "log_sd", field = "log_sd", name = "SD of the log error", note = "how unevenly the error is spread over time" },
}

---@class Measure
---@field key string mean, p95, ratio, log_sd, or a limb such as "left arm"
---@field name string
---@field value number
---@field p number? conformal, large values unusual; nil where the detector file does not hold this score of its calibration sequences
---@field p_two_sided number? large and small values unusual
---@field smallest_p number?
---@field low number? range over the calibration sequences
---@field high number?
---@field note string?

--- Fills p and range from the values of the calibration sequences that have the score.
local function with_calibration(m, values, groups)
  if #values == 0 then return m end
  m.p, m.smallest_p = statistics.conformal(values, m.value, false, groups)
  m.p_two_sided = statistics.conformal(values, m.value, true, groups)
  m.low, m.high = statistics.percentile(values, 0), statistics.percentile(values, 100)
  return m
end

--- Every score of a sequence, then the error by limb.
---@param c Calibration
---@param s Scored with at least one window
---@param a Attribution? of the sequence, where it is at hand
---@return Measure[]
function measures.of(c, s, a)
  local list = {}
  local function add(m, pick)
    local values, groups = {}, {}
    for _, row in ipairs(c.sequences) do
      values[#values + 1] = pick(row)
      groups[#values] = row.subject or row -- where pick gave nothing the next row writes here
    end
    list[#list + 1] = with_calibration(m, values, groups)
  end
  for _, d in ipairs(LIST) do
    add({ key = d.key, name = d.name, value = s[d.field], note = d.note }, function(row) return row[d.field] end)
  end
  for _, limb in ipairs((a or attribution.of(s)).limbs) do
    add({ key = limb.name, name = "error of the " .. limb.name, value = limb.error }, function(row) return row.limbs and row.limbs[limb.name] end)
  end
  return list
end

return measures
