# first_score.py: the peer of first_score.lua: a whole process from its start to the first score: first_score.py MODEL.onnx WINDOW.npy
import sys

import numpy as np
import onnxruntime

x = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print("%.6f" % session.run(None, {"x": np.ascontiguousarray(x.transpose(1, 0, 2))})[0][0])
