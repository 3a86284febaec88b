-- The room of poses: who is where in a picture. Each part is loaded when it is first named.
return require "libration.lazy"("libration.pose.", [[
  landmarker blazepose smoothing skeletons draw extract watch stability ssd face people tracks masks sidecar finder adapters anonymiser together]])
