"""How ``PRIMER`` of the decoder was made: ``python tests/golden/primer.py``. Never change it in version 1.

The heads of a small network as torch exports it: once with weights of whole numbers times steps, once quantized to
4 bits by edgepress. Encoders that came after it write other recipes, so what is printed today is like it, not the same.
A new primer needs a new version of the format.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from edgepress.codec import encoder, wire
from edgepress.codec.coder import Coder
from edgepress.codec.decoder import grid_steps, number
from edgepress.codec.room import Pages
from edgepress.model import Model
from edgepress.quantize import slim


class Net(nn.Module):
    """A stem, a separable convolution, a shortcut, two products."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.dw = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 12, 3, 1, 1, groups=12)
        self.pw, self.skip = nn.Conv2d(12, 24, 1), nn.Conv2d(12, 24, 1)
        self.pool, self.gap, self.relu = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.ReLU()
        self.fc1, self.fc = nn.Linear(24, 20), nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        y = self.pool(self.relu(self.pw(self.relu(self.dw(x))) + self.skip(x)))
        return torch.as_tensor(self.fc(self.relu(self.fc1(self.gap(y).flatten(1)))))


def stepped(model: onnx.ModelProto) -> bytes:
    """The model with whole numbers times steps for weights."""
    random = np.random.default_rng(0)
    proto = slim(Model.of(model)).edit()
    for item in proto.graph.initializer:
        values = numpy_helper.to_array(item)
        step = np.float32(np.abs(values).max() / (3 if values.ndim > 1 else 100) + 1e-6)
        steps: np.ndarray = np.array(step)
        if values.ndim > 1 and len(values) > 10:
            steps = grid_steps(float(step), random.integers(-9, 9, size=len(values)))
            steps = steps.reshape(-1, *[1] * (values.ndim - 1))
        whole = np.rint(values / step)
        item.CopyFrom(numpy_helper.from_array(np.where(whole == 0, 0, whole * steps).astype(np.float32), item.name))
    return bytes(proto.SerializeToString(deterministic=True))


def head(model: bytes) -> bytes:
    """Graph and recipes, each with its length."""
    tokens, coder, recipes = wire.taken_apart(model), Coder(1), list[bytes]()
    for hole, data in tokens.holes:
        encoder._one(hole, data, coder, tokens.shapes, recipes, Pages())
    graph = number(len(tokens.graph)) + tokens.graph + number(len(recipes))
    return graph + b"".join(number(len(each)) + each for each in recipes)


def main() -> None:
    """Print the primer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(7)
        torch.onnx.export(
            Net().eval(), (torch.zeros(1, 3, 16, 16),), str(folder / "net.onnx"), opset_version=17, dynamo=False,
            input_names=["input"], output_names=["output"], dynamic_axes={"input": {0: "N"}, "output": {0: "N"}},
        )  # fmt: skip
        images = np.random.default_rng(0).normal(size=(256, 3, 16, 16)).astype(np.float32)
        np.savez(folder / "data.npz", input=images)
        command = ["edgepress", "quantize", "net.onnx", "--data", "data.npz", "-o", "q.onnx", "--bits", "4", "-q"]
        subprocess.run([sys.executable, "-m", *command, "--max-drop", "100"], cwd=folder, check=True)
        plain = stepped(onnx.load(folder / "net.onnx"))
        heads = head(plain) + head((folder / "q.onnx").read_bytes())
    print(base64.b85encode(zlib.compress(heads, 9)).decode())


if __name__ == "__main__":
    main()
