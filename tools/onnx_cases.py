"""Writes the node cases of the onnx Python package into a folder: NAME/model.onnx, NAME/input_0.pb, NAME/output_0.pb (TensorProto), and cases.txt with tolerances.

Runs no network and is needed for `make conformance` only:  python3 tools/onnx_cases.py build/conformance
"""
import os
import sys
import warnings

import numpy
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests


def tensor_bytes(value):
    """TensorProto of an array; None for a sequence or an optional, which the runner lists."""
    if isinstance(value, onnx.TensorProto):
        return value.SerializeToString()
    if isinstance(value, (list, tuple, dict)) or value is None:
        return None
    return numpy_helper.from_array(numpy.asarray(value)).SerializeToString()


def main(folder):
    warnings.simplefilter("ignore")
    os.makedirs(folder, exist_ok=True)
    lines = []
    for case in load_model_tests(kind="node"):
        own = os.path.join(folder, case.name)
        os.makedirs(own, exist_ok=True)
        with open(os.path.join(own, "model.onnx"), "wb") as f:
            f.write(case.model.SerializeToString())
        counts = []
        for kind, values in zip(("input", "output"), case.data_sets[0]):
            counts.append(len(values))
            for i, value in enumerate(values):
                data = tensor_bytes(value)
                if data is not None:
                    with open(os.path.join(own, f"{kind}_{i}.pb"), "wb") as f:
                        f.write(data)
        lines.append(f"{case.name} {counts[0]} {counts[1]} {case.rtol:g} {case.atol:g}")
    with open(os.path.join(folder, "cases.txt.tmp"), "w") as f:
        f.write(f"onnx {onnx.__version__}\n" + "\n".join(lines) + "\n")
    os.replace(os.path.join(folder, "cases.txt.tmp"), os.path.join(folder, "cases.txt"))
    print(f"{len(lines)} cases of onnx {onnx.__version__} in {folder}")


main(sys.argv[1])
