-- What must be said beside an autoencoder's result, and when. Sentences only; the figures come from scores and thresholds.

local statistics = require "libration.motion.statistics"
local thresholds = require "libration.anomaly.thresholds"

local honesty = {}

-- The limits are measured ones: autoencoders trained on 5 to 8 normal recordings of 300 frames.
honesty.LEAST_EXPLAINED = .20
honesty.LEAST_CALIBRATION = 20
local MOST_CORRELATION = .95

local function percent(share)
  if share < 0 and share > -.005 then share = 0 end
  return ("%.0f %%"):format(100 * share)
end

-- Too little, in words: a share below zero is worse than none.
local function little(share)
  return share <= -.005 and ("nothing (%.0f %%)"):format(100 * share) or "only " .. percent(share)
end

--- How much unseen normal movement each method explains, without saying whose.
---@param c Calibration
---@return string
function honesty.shares(c)
  local e = c.explained
  if not e then return "unknown, the calibration videos do not move" end
  return ("network %s, PCA-32 %s, zero output %s"):format(percent(e.network), percent(e.pca), percent(e.zero))
end

--- The line that stands under every result.
---@param c Calibration
---@return string
function honesty.explained(c)
  if not c.explained then return "share of unseen normal movement explained: " .. honesty.shares(c) end
  return ("share of unseen normal movement explained (1 - error / variance, %d calibration video%s): %s"):format(
    #c.sequences, #c.sequences == 1 and "" or "s", honesty.shares(c))
end

--- Warnings about a detector that its calibration alone shows.
---@param c Calibration
---@return string[]
function honesty.of_calibration(c)
  local list, e, _, n = {}, c.explained, thresholds.groups(c)
  if e then
    if e.network < e.pca then
      list[#list + 1] = ("the network explains less unseen normal movement (%s) than PCA-32 (%s)"):format(percent(e.network), percent(e.pca))
    end
    if e.network < honesty.LEAST_EXPLAINED then
      list[#list + 1] = ("the network explains %s of unseen normal movement: its error measures mostly how much the body moves"):format(little(e.network))
    end
    if e.network <= e.zero then
      list[#list + 1] = "the network is no better than zero output"
    end
  end
  if c.correlation and c.correlation > MOST_CORRELATION then
    list[#list + 1] = ("the window error follows the amount of movement (r = %.2f with the window's variance): not better than mean speed"):format(c.correlation)
  end
  if n < honesty.LEAST_CALIBRATION then
    list[#list + 1] = ("%d calibration %s%s: too few (%d wanted) to claim a rate of false alarms; the smallest p they allow is %.3g; "
      .. "the 95th percentile of one video gave 13-38 %% false windows on another"):format(
      n, n < #c.sequences and "subject" or "video", n == 1 and "" or "s", honesty.LEAST_CALIBRATION, 1 / (n + 1))
  end
  return list
end

--- How the network and its baselines separate labelled test videos.
---@param rows table[] {label: 0|1|nil, scored: Scored}
---@return table? {auc = {network, speed, pca, zero, variance}, warnings: string[]} nil without both labels
function honesty.of_test(rows)
  local groups = { [0] = {}, [1] = {} }
  for _, r in ipairs(rows) do
    if r.label and r.scored and #r.scored.error > 0 then table.insert(groups[r.label], r.scored) end
  end
  if #groups[0] == 0 or #groups[1] == 0 then return nil end
  local function auc(field)
    local values = { {}, {} }
    for g = 0, 1 do
      for i, s in ipairs(groups[g]) do values[g + 1][i] = s[field] end
    end
    return statistics.auc(values[1], values[2])
  end
  local out = {
    auc = { network = auc("mean"), speed = auc("mean_speed"), pca = auc("mean_pca"), zero = auc("mean_zero"), variance = auc("mean_variance") },
    warnings = {}, normals = #groups[0], abnormals = #groups[1],
  }
  for _, b in ipairs { { "speed", "mean speed" }, { "pca", "PCA-32" }, { "zero", "zero output" } } do
    if out.auc.network <= out.auc[b[1]] then
      out.warnings[#out.warnings + 1] = ("on the test videos the network (AUC %.2f) is not better than %s (AUC %.2f)"):format(
        out.auc.network, b[2], out.auc[b[1]])
    end
  end
  return out
end

--- What stands under the table of an evaluation, and its warnings.
---@param by_key table<string, Compared>
---@param explained table? {network, pca?, zero} of the normals that are judged
---@param normals integer
---@return string? line nil where no autoencoder ran
---@return string[] warnings
function honesty.of_comparison(by_key, explained, normals)
  local network, list = by_key.autoencoder, {}
  if not network then return nil, list end
  for _, key in ipairs { "speed", "pca" } do
    local other = by_key[key]
    if other and network.auc <= other.auc then
      list[#list + 1] = ("the autoencoder (AUC %.2f) is not better than %s (AUC %.2f)"):format(network.auc, other.name, other.auc)
    end
  end
  if not explained then return nil, list end
  if explained.pca and explained.network < explained.pca then
    list[#list + 1] = ("the autoencoder explains less unseen normal movement (%s) than PCA-32 (%s)"):format(percent(explained.network), percent(explained.pca))
  end
  if explained.network < honesty.LEAST_EXPLAINED then
    list[#list + 1] = ("the autoencoder explains %s of unseen normal movement: its error measures mostly how much the body moves"):format(little(explained.network))
  end
  return ("share of unseen normal movement explained (1 - error / variance, %d left-out normal recording%s): autoencoder %s%s, zero output %s"):format(
    normals, normals == 1 and "" or "s", percent(explained.network), explained.pca and ", PCA-32 " .. percent(explained.pca) or "", percent(explained.zero)), list
end

--- Whether the baselines say the same of one video.
---@param v Verdict
---@return string
function honesty.of_verdict(v)
  if v.abnormal == nil then return "" end
  local same = {}
  for _, key in ipairs { "speed", "pca", "zero" } do
    local b = v.baselines[key]
    if b and b.abnormal == v.abnormal then same[#same + 1] = b.name end
  end
  if #same == 0 then return "no baseline gives this verdict" end
  local last = table.remove(same)
  return ("%s%s give%s the same verdict"):format(#same > 0 and table.concat(same, ", ") .. " and " or "", last, #same == 0 and "s" or "")
end

return honesty
