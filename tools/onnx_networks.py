"""Exports networks with random weights to ONNX and keeps ONNX Runtime's answers beside them: NAME/model.onnx, NAME/in_0.npy, NAME/out_0.npy, for tools/onnx_networks.lua.

Needs torch, torchvision, transformers, onnxruntime; the YOLO ones also ultralytics (left out where it is not installed).
    python3 tools/onnx_networks.py build/networks [NAME...]
"""
import os
import sys
import warnings

import numpy
import onnxruntime
import torch

warnings.simplefilter("ignore")
onnxruntime.set_default_logger_severity(3)


def shaken(model):
    """Weights and statistics as of a trained network: no layer is the identity or zero."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, .1)
            layer.running_var.uniform_(.5, 1.5)
            layer.weight.data.uniform_(.5, 1.5)
            layer.bias.data.normal_(0, .1)
        elif isinstance(layer, torch.nn.Linear) and float(layer.weight.abs().max()) == 0:
            layer.weight.data.normal_(0, .05)
    return model.eval()


def vision(name, size=224):
    import torchvision
    return shaken(getattr(torchvision.models, name)(weights=None)), (torch.randn(1, 3, size, size),)


def yolo(name, size=320):
    from ultralytics import YOLO
    model = shaken(YOLO(name + ".yaml").model)
    model.model[-1].export, model.model[-1].format = True, "onnx"
    return model, (torch.randn(1, 3, size, size),)


class Recurrent(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = kind(12, 24, 2, batch_first=True, bidirectional=True)
        self.head = torch.nn.Linear(48, 5)

    def forward(self, x):
        return self.head(self.layer(x)[0])


class Bert(torch.nn.Module):
    def __init__(self):
        super().__init__()
        from transformers import BertConfig, BertModel
        config = BertConfig(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256, vocab_size=1000, attn_implementation="eager")
        self.model = BertModel(config)

    def forward(self, ids, mask):
        out = self.model(input_ids=ids, attention_mask=mask)
        return out.last_hidden_state, out.pooler_output


def bert():
    mask = torch.ones(2, 16, dtype=torch.int64)
    mask[1, 10:] = 0
    return Bert().eval(), (torch.randint(0, 1000, (2, 16)), mask)


NETWORKS = {
    "resnet18": lambda: vision("resnet18"), "mobilenet_v2": lambda: vision("mobilenet_v2"), "mobilenet_v3_small": lambda: vision("mobilenet_v3_small"),
    "efficientnet_b0": lambda: vision("efficientnet_b0"), "shufflenet_v2": lambda: vision("shufflenet_v2_x1_0"), "vit_b_16": lambda: vision("vit_b_16"),
    "yolov8n": lambda: yolo("yolov8n"), "yolov8n-pose": lambda: yolo("yolov8n-pose"), "yolov8n-pose-640": lambda: yolo("yolov8n-pose", 640), "yolo11n": lambda: yolo("yolo11n"), "bert": bert,
    "lstm": lambda: (Recurrent(torch.nn.LSTM).eval(), (torch.randn(3, 25, 12),)), "gru": lambda: (Recurrent(torch.nn.GRU).eval(), (torch.randn(3, 25, 12),)),
}


def save(path, array):
    numpy.save(path, array.astype(numpy.int32) if array.dtype == numpy.int64 else array)


def main(folder, names):
    for name in names or NETWORKS:
        torch.manual_seed(0)
        try:
            model, inputs = NETWORKS[name]()
        except ImportError as missing:
            print(f"{name}: left out, {missing}")
            continue
        own = os.path.join(folder, name)
        os.makedirs(own, exist_ok=True)
        path = os.path.join(own, "model.onnx")
        torch.onnx.export(model, inputs, path, dynamo=False, opset_version=17)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        feed = {info.name: x.numpy() for info, x in zip(session.get_inputs(), inputs)}
        for i, x in enumerate(feed.values()):
            save(os.path.join(own, f"in_{i}.npy"), x)
        for i, y in enumerate(session.run(None, feed)):
            save(os.path.join(own, f"out_{i}.npy"), y)
        print(name)


main(sys.argv[1], sys.argv[2:])
