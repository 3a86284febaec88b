-- The anomaly room: model, scores, baselines, the movement profile, protocols, thresholds, the detector file. Each part is loaded when it is first named.

local parts = {
  autoencoder = true, fit = true, baselines = true, pca = true, scores = true, thresholds = true, honesty = true, detector = true,
  outputs = true, overlay = true, done = true, profile = true, attribution = true, measures = true, methods = true, movement = true, comparison = true, protocols = true,
}

return setmetatable({}, {
  __index = function(self, name)
    if not parts[name] then return nil end
    local part = require("libration.anomaly." .. name)
    rawset(self, name, part)
    return part
  end,
})
