# peer.py: the peers of tools/bench.lua, kept alive: a command a line on stdin, an answer a line on stdout ("ok SECONDS [VALUE]" or "error TEXT").
# Runs one repetition at a time and keeps its own clock. Knows nothing of the ratios.
import json
import os
import sys
import time

import numpy as np

answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what libraries print goes to the log

F, T, HIDDEN = 99, 30, ((99, 128), (128, 64), (32, 64), (64, 128))
LAYERS = ("encoder1", "encoder2", "decoder1", "decoder2")


def load_safetensors(path):
    with open(path, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        head = json.loads(f.read(size))
        body = f.read()
    out = {}
    for name, entry in head.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            out[name] = np.frombuffer(body[first:last], np.float32).reshape(entry["shape"]).copy()
    return out


def windows_of(frames):
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(frames, T, axis=0).transpose(0, 2, 1))


class MediaPipe:
    def open(self, path, width, height, count):
        import mediapipe as mp

        self.frames = np.fromfile(path, np.uint8).reshape(int(count), int(height), int(width), 3)
        self.solution = mp.solutions.pose.Pose(model_complexity=1)
        self.points = np.full((int(count), 33, 2), np.nan, np.float32)
        self.version = mp.__version__
        return 0, self.version

    def reset(self):
        import mediapipe as mp

        self.solution.close()
        self.solution = mp.solutions.pose.Pose(model_complexity=1)
        return 0, ""

    def run(self, first, last):
        h, w = self.frames.shape[1:3]
        start = time.perf_counter()
        results = [self.solution.process(self.frames[i]) for i in range(int(first), int(last))]
        took = time.perf_counter() - start
        for i, r in zip(range(int(first), int(last)), results):
            if r.pose_landmarks:
                self.points[i] = [(p.x * w, p.y * h) for p in r.pose_landmarks.landmark]
        return took, ""

    def save(self, path):
        np.save(path, self.points)
        return 0, ""


class Onnx:
    def export(self, weights, path):
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        w = load_safetensors(weights)
        nodes, constants = [], []

        def constant(name, value):
            constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
            return name

        def order(x):  # i, f, g, o -> ONNX's i, o, f, c
            i, f, g, o = np.split(x, 4)
            return np.concatenate((i, o, f, g))

        def lstm(name, x, hidden):
            bias = np.concatenate((order(w[name + ".bias_ih_l0"]), order(w[name + ".bias_hh_l0"])))
            inputs = [x, constant(name + "_w", order(w[name + ".weight_ih_l0"])[None]), constant(name + "_r", order(w[name + ".weight_hh_l0"])[None]),
                      constant(name + "_b", bias[None])]
            nodes.append(helper.make_node("LSTM", inputs, [name + "_y", name + "_h"], hidden_size=hidden))
            nodes.append(helper.make_node("Squeeze", [name + "_y", constant(name + "_one", np.array([1]))], [name]))
            return name

        y = "x"
        for name, (_, hidden) in zip(LAYERS[:2], HIDDEN[:2]):
            y = lstm(name, y, hidden)
        nodes.append(helper.make_node("Squeeze", ["encoder2_h", constant("zero", np.array([0]))], ["last"]))
        nodes.append(helper.make_node("Gemm", ["last", constant("lw", w["latent.weight"]), constant("lb", w["latent.bias"])], ["latent"], transB=1))
        nodes.append(helper.make_node("Unsqueeze", ["latent", "zero"], ["lifted"]))
        nodes.append(helper.make_node("Expand", ["lifted", constant("steps", np.array([T, 1, 1]))], ["repeated"]))
        y = "repeated"
        for name, (_, hidden) in zip(LAYERS[2:], HIDDEN[2:]):
            y = lstm(name, y, hidden)
        nodes.append(helper.make_node("MatMul", [y, constant("ow", w["output.weight"].T)], ["product"]))
        nodes.append(helper.make_node("Add", ["product", constant("ob", w["output.bias"])], ["out"]))
        nodes.append(helper.make_node("Sub", ["out", "x"], ["difference"]))
        nodes.append(helper.make_node("Mul", ["difference", "difference"], ["square"]))
        nodes.append(helper.make_node("ReduceMean", ["square"], ["error"], axes=[0, 2], keepdims=0))
        graph = helper.make_graph(nodes, "autoencoder", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, "B", F])],
                                  [helper.make_tensor_value_info("error", TensorProto.FLOAT, ["B"])], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        self.path, self.sessions = path, {}
        import onnxruntime

        return 0, onnxruntime.__version__

    def frames(self, path):
        self.windows = windows_of(np.load(path))
        return 0, ""

    def prepare(self, threads, batch):
        import onnxruntime as ort

        if threads not in self.sessions:
            o = ort.SessionOptions()
            o.intra_op_num_threads = int(threads)
            o.add_session_config_entry("session.force_spinning_stop", "1")  # its threads wait only while it runs
            self.sessions[threads] = ort.InferenceSession(self.path, o, providers=["CPUExecutionProvider"])
        self.session, batch = self.sessions[threads], int(batch)
        self.chunks = [np.ascontiguousarray(self.windows[i:i + batch].transpose(1, 0, 2)) for i in range(0, len(self.windows), batch)]
        return 0, ""

    def run(self):
        start = time.perf_counter()
        self.errors = [self.session.run(None, {"x": c})[0] for c in self.chunks]
        return time.perf_counter() - start, ""

    def save(self, path):
        np.save(path, np.concatenate(self.errors))
        return 0, ""


class Network:
    def open(self, path, x):
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        self.path, self.x, self.sessions = path, np.load(x), {}
        return 0, onnxruntime.__version__

    def prepare(self, threads):
        import onnxruntime as ort

        if threads not in self.sessions:
            o = ort.SessionOptions()
            o.intra_op_num_threads = int(threads)
            o.add_session_config_entry("session.force_spinning_stop", "1")
            self.sessions[threads] = ort.InferenceSession(self.path, o, providers=["CPUExecutionProvider"])
        self.session = self.sessions[threads]
        return 0, ""

    def run(self):
        feed = {self.session.get_inputs()[0].name: self.x}
        start = time.perf_counter()
        self.result = self.session.run(None, feed)[0]
        return time.perf_counter() - start, ""

    def save(self, path):
        np.save(path, self.result)
        return 0, ""


class Torch:
    def build(self, weights):
        import torch

        class Autoencoder(torch.nn.Module):
            def __init__(self):
                super().__init__()
                for name, (i, h) in zip(LAYERS, HIDDEN):
                    setattr(self, name, torch.nn.LSTM(i, h, batch_first=True))
                self.latent, self.output = torch.nn.Linear(64, 32), torch.nn.Linear(128, F)

            def forward(self, x):
                y, _ = self.encoder1(x)
                _, (last, _) = self.encoder2(y)
                z = self.latent(last[-1])
                y, _ = self.decoder1(z.unsqueeze(1).expand(-1, x.shape[1], -1))
                y, _ = self.decoder2(y)
                return self.output(y)

        self.torch, self.state = torch, {k: torch.from_numpy(v) for k, v in load_safetensors(weights).items()}
        self.fresh = Autoencoder
        self.model = Autoencoder()
        self.model.load_state_dict(self.state)
        return 0, torch.__version__

    def threads(self, n):
        self.torch.set_num_threads(int(n))
        return 0, ""

    def frames(self, path):
        self.windows = self.torch.from_numpy(windows_of(np.load(path)))
        return 0, ""

    def prepare(self, batch):
        self.chunks = self.windows.split(int(batch))
        return 0, ""

    def run(self):
        with self.torch.inference_mode():
            start = time.perf_counter()
            self.errors = [((self.model(c) - c) ** 2).mean((1, 2)) for c in self.chunks]
            return time.perf_counter() - start, ""

    def save(self, path):
        np.save(path, self.torch.cat(self.errors).numpy())
        return 0, ""

    def training(self, path):
        self.x = self.torch.from_numpy(np.load(path))
        self.trained = self.fresh()
        self.trained.load_state_dict(self.state)
        self.optimizer = self.torch.optim.Adam(self.trained.parameters(), lr=1e-3, fused=True)
        return 0, ""

    def step(self):
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.torch.nn.functional.mse_loss(self.trained(self.x), self.x)
        loss.backward()
        self.optimizer.step()
        value = loss.item()
        return time.perf_counter() - start, "%.9g" % value

    def chain(self, n):
        x, y = self.torch.randn(1), self.torch.randn(1)
        with self.torch.inference_mode():
            start = time.perf_counter()
            v = x
            for _ in range(int(n)):
                v = v + y
            return time.perf_counter() - start, ""


def main():
    peer = {"mediapipe": MediaPipe, "onnx": Onnx, "network": Network, "torch": Torch}[sys.argv[1]]()
    answers.write("ok 0 ready\n")
    for line in sys.stdin:
        words = line.rstrip("\n").split("\t")
        try:
            seconds, value = getattr(peer, words[0])(*words[1:])
            answers.write("ok %.9f %s\n" % (seconds, value))
        except Exception as e:  # the bench prints it and goes on with the next row
            answers.write("error %s: %s\n" % (words[0], str(e).replace("\n", " ")[:300]))


main()
