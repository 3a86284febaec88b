-- The report room: plots, statistics and pages, each a module of its own, and the two reports that the recipes write.

local report = {
  plot = require "libration.report.plot",
  html = require "libration.report.html",
  statistics = require "libration.report.statistics",
}

local training = require "libration.report.training"
local detection = require "libration.report.detection"

---Writes training.png, training.svg and report.html of a training run into a folder.
---@param folder string
---@param run libration.report.Run
---@return string html path of the page
---@return string|nil png path of the picture, nil without Cairo
function report.training(folder, run)
  return training.write(folder, run)
end

---Writes reconstruction_error and attribution (png, svg), anomaly_stats.txt and report.html of one recording into a folder.
---@param folder string
---@param result libration.report.Result
---@return string html path of the page
function report.detection(folder, result)
  return detection.write(folder, result)
end

return report
