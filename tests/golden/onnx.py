"""Remakes tests/golden/onnx/*.npy: ONNX Runtime's answers of the shared models to sin(.37 i). Needs onnxruntime; run in the repository root."""
import numpy
import onnxruntime

MODELS = "../shared/data/models/"
CASES = [("ultraface", "ultraface/version-RFB-320.onnx", (1, 3, 240, 320), 40), ("lstm_lower", "lstm_onnx/v0.3_lower/model.onnx", (2, 7, 47), 1),
         ("lstm_upper", "lstm_onnx/v0.3_upper/model.onnx", (2, 7, 23), 1)]
onnxruntime.set_default_logger_severity(3)
for name, path, shape, step in CASES:
    x = numpy.sin(.37 * numpy.arange(numpy.prod(shape))).reshape(shape).astype(numpy.float32)
    session = onnxruntime.InferenceSession(MODELS + path, providers=["CPUExecutionProvider"])
    for i, y in enumerate(session.run(None, {session.get_inputs()[0].name: x})):
        numpy.save(f"tests/golden/onnx/{name}_{i + 1}.npy", numpy.ascontiguousarray(y[:, ::step]))
