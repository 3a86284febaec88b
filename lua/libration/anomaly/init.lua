-- The anomaly room: model, scores, baselines, the movement profile, protocols, thresholds, the detector file. Each part is loaded when it is first named.
return require "libration.lazy"("libration.anomaly.", [[
  autoencoder fit baselines pca scores thresholds honesty detector outputs overlay done profile attribution measures methods movement comparison protocols]])
