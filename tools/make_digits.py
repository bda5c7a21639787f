"""Make the digits of `calibration/`: two sample files and the small network trained on them.

Data: the 1797 handwritten 8x8 digits that scikit-learn ships (UCI Optical Recognition of Handwritten
Digits), in file order. The first 1197 go to `digits.npz` (training and calibration), the last 600 to
`digits_test.npz` (never trained or calibrated on). File order follows the writers, so the test part is
written by hands the network has seen little of. Pixels 0..16 become float32 multiples of 1/16.

Network: a stem, a residual block, a strided convolution, a depthwise and a pointwise convolution, global
average pool, Gemm; wider than the task needs, on purpose. It is written with `onnx.helper` and keeps
its BatchNormalization nodes: an exporter would fold them away.

One torch thread and fixed seeds: a second run on the same machine with the same torch writes the same
bytes. Another CPU or torch version rounds differently, so the weights differ in their last bits or more;
the data files stay the same wherever zlib is.

    python -m tools.make_digits [folder]        (about half a minute; needs the extra dev)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

TRAIN = 1197
EPOCHS = 30
BATCH = 64
SEED = 7
STEM, WIDE, DEEP, TOP = 32, 96, 64, 128
# (path, input channels, output channels, kernel, stride, groups) of every convolution
CONVOLUTIONS = (
    ("stem/conv", 1, STEM, 3, 1, 1),
    ("block1/conv1", STEM, WIDE, 3, 1, 1),
    ("block1/conv2", WIDE, STEM, 3, 1, 1),
    ("down/conv", STEM, DEEP, 3, 2, 1),
    ("block2/depthwise", DEEP, DEEP, 3, 1, DEEP),
    ("block2/pointwise", DEEP, TOP, 1, 1, 1),
)


class Digits(nn.Module):
    """The network; module names are the node paths with `/` as `_`."""

    def __init__(self) -> None:
        """Make the layers of CONVOLUTIONS, each with its batch normalization, and the classifier."""
        super().__init__()
        for path, wide_in, wide_out, kernel, stride, groups in CONVOLUTIONS:
            layer = nn.Conv2d(wide_in, wide_out, kernel, stride, kernel // 2, groups=groups, bias=False)
            self.add_module(_key(path), layer)
            self.add_module(_key(path) + "_bn", nn.BatchNorm2d(wide_out))
        self.fc = nn.Linear(TOP, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [n, 10] of images [n, 1, 8, 8]."""
        x = functional.relu(self._conv("stem/conv", image))
        y = functional.relu(self._conv("block1/conv1", x))
        x = functional.relu(x + self._conv("block1/conv2", y))
        x = functional.relu(self._conv("down/conv", x))
        x = functional.relu(self._conv("block2/depthwise", x))
        x = functional.relu(self._conv("block2/pointwise", x))
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits

    def _conv(self, path: str, x: torch.Tensor) -> torch.Tensor:
        normalized: torch.Tensor = self.get_submodule(_key(path) + "_bn")(self.get_submodule(_key(path))(x))
        return normalized


class Graph:
    """Collects nodes and initializers; each method adds one layer and returns its output's name."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Start empty; `weights` is the state dict the initializers come from."""
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, op: str, path: str, *inputs: str, **attributes: Any) -> str:
        """One node `/path`."""
        self.nodes.append(helper.make_node(op, list(inputs), [f"/{path}_output"], name=f"/{path}", **attributes))
        return f"/{path}_output"

    def weight(self, key: str) -> str:
        """One entry of the state dict as an initializer of the same name."""
        array = np.ascontiguousarray(self._weights[key].numpy())
        self.initializers.append(numpy_helper.from_array(array, key))
        return key

    def conv_bn(self, path: str, x: str) -> str:
        """A convolution of CONVOLUTIONS and its batch normalization."""
        _, _, _, kernel, stride, groups = next(row for row in CONVOLUTIONS if row[0] == path)
        shape: dict[str, Any] = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": [kernel // 2] * 4,
            "group": groups,
        }
        x = self.add("Conv", path, x, self.weight(_key(path) + ".weight"), **shape)
        keys = (f"{_key(path)}_bn.{name}" for name in ("weight", "bias", "running_mean", "running_var"))
        return self.add("BatchNormalization", path + "_bn", x, *map(self.weight, keys), epsilon=1e-5)

    def relu(self, path: str, x: str) -> str:
        """A Relu named after the layer it follows."""
        return self.add("Relu", path + "_relu", x)


def main(folder: Path) -> None:
    """Write `digits.npz`, `digits_test.npz` and `digits_cnn.onnx` to `folder`."""
    image, label = samples()
    np.savez_compressed(folder / "digits.npz", image=image[:TRAIN], label=label[:TRAIN])
    np.savez_compressed(folder / "digits_test.npz", image=image[TRAIN:], label=label[TRAIN:])
    net = trained(image[:TRAIN], label[:TRAIN])
    (folder / "digits_cnn.onnx").write_bytes(to_onnx(net.state_dict()).SerializeToString(deterministic=True))
    for name, part in (("train", slice(TRAIN)), ("test", slice(TRAIN, None))):
        print(f"{name} accuracy {accuracy(net, image[part], label[part]):.4f}")
    print(f"{sum(weight.numel() for weight in net.parameters())} parameters")


def samples() -> tuple[np.ndarray, np.ndarray]:
    """All images, float32 [1797, 1, 8, 8] in multiples of 1/16, and labels, int64 [1797]."""
    digits = load_digits()
    return (digits.images[:, None] / 16).astype(np.float32), digits.target.astype(np.int64)


def trained(image: np.ndarray, label: np.ndarray) -> Digits:
    """Train for EPOCHS with AdamW, a one-cycle rate, label smoothing and small random distortions."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    net = Digits()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=5e-2)
    steps = EPOCHS * (len(image) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in random.permutation(len(image))[: len(image) // BATCH * BATCH].reshape(-1, BATCH):
            optimizer.zero_grad()
            logits = net(distorted(torch.from_numpy(image[rows])))
            loss = functional.cross_entropy(logits, torch.from_numpy(label[rows]), label_smoothing=0.05)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return net.eval()


def distorted(image: torch.Tensor) -> torch.Tensor:
    """Random affine maps (turn, shear, scale, shift by up to a pixel) of a batch, and a little noise."""
    unit = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    reach = torch.tensor([[0.12, 0.15, 0.2], [0.15, 0.12, 0.2]])
    maps = unit + reach * (2 * torch.rand(len(image), 2, 3) - 1)
    grid = functional.affine_grid(maps, list(image.shape), align_corners=False)
    moved = functional.grid_sample(image, grid, align_corners=False)
    return moved + 0.05 * torch.randn_like(moved)


def accuracy(net: Digits, image: np.ndarray, label: np.ndarray) -> float:
    """Share of images whose largest logit is their label."""
    with torch.no_grad():
        return float((net(torch.from_numpy(image)).argmax(1).numpy() == label).mean())


def to_onnx(weights: Mapping[str, torch.Tensor]) -> onnx.ModelProto:
    """The inference graph, opset 17, IR 8, with a symbolic batch axis."""
    graph = Graph(weights)
    x = graph.relu("stem/conv", graph.conv_bn("stem/conv", "image"))
    y = graph.relu("block1/conv1", graph.conv_bn("block1/conv1", x))
    x = graph.relu("block1/add", graph.add("Add", "block1/add", x, graph.conv_bn("block1/conv2", y)))
    for path in ("down/conv", "block2/depthwise", "block2/pointwise"):
        x = graph.relu(path, graph.conv_bn(path, x))
    x = graph.add("Flatten", "head/flatten", graph.add("GlobalAveragePool", "head/pool", x))
    graph.nodes.append(
        helper.make_node(
            "Gemm", [x, graph.weight("fc.weight"), graph.weight("fc.bias")], ["logits"], name="/head/fc", transB=1
        )
    )
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "digits",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="edgepress tools/make_digits.py",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _key(path: str) -> str:
    return path.replace("/", "_")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "calibration")
