"""Networks with channels that are not needed, planted on purpose, and what must be found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from quantize_tools import parse

from edgepress.model import Model

SIZE = 12
"""Channels of the layer that gets the plants: 0..3 are models for the plants at the end, the rest is random."""


@dataclass(frozen=True)
class Planted:
    """A network and its unneeded channels.

    Attributes:
        model: input x, output y, one prunable group of ``SIZE`` channels.
        free: how many channels can go without a trace.
        families: sets of channels; as many of each as it says must go (whichever they are).
        shape: shape of one sample.
    """

    model: Model
    free: int
    families: Mapping[frozenset[int], int] = field(default_factory=dict)
    shape: tuple[int, ...] = (6,)

    def samples(self, count: int, seed: int = 0) -> np.ndarray:
        """Samples in [0, 1)."""
        return np.random.default_rng(seed).random((count, *self.shape)).astype(np.float32)


def plant(kind: str, weight: np.ndarray, bias: np.ndarray, after: np.ndarray) -> tuple[int, dict[frozenset[int], int]]:
    """Plant channels of one kind into a layer, in place; ``after`` reads its channels along axis 1."""
    last = SIZE - 1
    random = np.random.default_rng(9)
    if kind == "duplicate":
        weight[last], bias[last] = weight[0], bias[0]
        return 1, {frozenset({0, last}): 1}
    if kind == "three alike":
        for copy in (last, last - 1):
            weight[copy], bias[copy] = weight[0], bias[0]
        return 2, {frozenset({0, last, last - 1}): 2}
    if kind == "scaled":
        weight[last], bias[last] = 2.5 * weight[1], 2.5 * bias[1]
        return 1, {frozenset({1, last}): 1}
    if kind == "sum":  # samples are positive, so positive filters are never cut off by Relu
        weight[:2], bias[:2] = np.abs(weight[:2]), np.abs(bias[:2])
        weight[last], bias[last] = weight[0] + 0.5 * weight[1], bias[0] + 0.5 * bias[1]
        return 1, {frozenset({0, 1, last}): 1}
    if kind == "dead":
        bias[last] = -1e3
        return 1, {frozenset({last}): 1}
    if kind == "constant":
        weight[last], bias[last] = 0, 1.3
        return 1, {frozenset({last}): 1}
    if kind == "two constants":
        weight[last - 1 :] = 0
        bias[last - 1 :] = 1.3, 0.4
        return 2, {frozenset({last, last - 1}): 2}
    if kind == "unread":
        after[:, last] = 0
        return 1, {frozenset({last}): 1}
    if kind == "nearly":
        weight[last] = weight[0] + 1e-3 * random.standard_normal(weight[0].shape)
        bias[last] = bias[0]
        return 0, {}
    if kind == "nothing":
        return 0, {}
    raise AssertionError(kind)


KINDS = (
    "duplicate",
    "three alike",
    "scaled",
    "sum",
    "dead",
    "constant",
    "two constants",
    "unread",
    "nearly",
    "nothing",
)


def mlp(kind: str) -> Planted:
    """Gemm, Relu, Gemm."""
    random = np.random.default_rng(5)
    w1, b1 = random.standard_normal((SIZE, 16)), 0.1 * random.standard_normal(SIZE)
    w1 -= w1.mean(1, keepdims=True)  # samples are positive: else some channels would be dead by chance
    w2, b2 = 0.3 * random.standard_normal((4, SIZE)), random.standard_normal(4)
    free, families = plant(kind, w1, b1, w2)
    body = "a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  y = Gemm<transB=1>(r, w2, b2)"
    return Planted(parse(body, x="N,16", outputs="float[N,4] y", w1=w1, b1=b1, w2=w2, b2=b2), free, families, (16,))


def cnn(kind: str, pads: int = 0, bias: bool = True) -> Planted:
    """Conv, Relu, Conv; the second one has ``pads`` and perhaps a bias."""
    random = np.random.default_rng(6)
    w1, b1 = 0.4 * random.standard_normal((SIZE, 3, 3, 3)), 0.2 * random.standard_normal(SIZE)
    w2, b2 = 0.1 * random.standard_normal((4, SIZE, 3, 3)), random.standard_normal(4)
    free, families = plant(kind, w1, b1, w2)
    if "constant" in kind and (pads or not bias):  # zeros beside it make a frame that no bias can stand in for
        free, families = free - 1, {next(iter(families)): free - 1}
    second = f"Conv<kernel_shape=[3,3],pads=[{pads},{pads},{pads},{pads}]>(r, w2{', b2' if bias else ''})"
    body = f"a = Conv<kernel_shape=[3,3]>(x, w1, b1)  r = Relu(a)  y = {second}"
    arrays = {"w1": w1, "b1": b1, "w2": w2} | ({"b2": b2} if bias else {})
    return Planted(parse(body, x="N,3,9,9", arrays=arrays), free, families, (3, 9, 9))


def everything() -> onnx.ModelProto:
    """A CNN classifier with every kind of plant in both of its hidden layers; see :func:`everything_free`."""
    random = np.random.default_rng(7)
    w1, b1 = 0.4 * random.standard_normal((20, 3, 3, 3)), 0.2 * random.standard_normal(20)
    w2, b2 = 0.1 * random.standard_normal((18, 20, 3, 3)), 1.0 + random.random(18)
    w2 -= w2.mean((1, 2, 3), keepdims=True)
    w3, b3 = 0.2 * random.standard_normal((5, 18)), random.standard_normal(5)
    for weight, bias, after in ((w1, b1, w2), (w2, b2, w3)):
        weight[-1], bias[-1] = weight[0], bias[0]
        weight[-2], bias[-2] = 3 * weight[1], 3 * bias[1]
        bias[-3] = -1e3
        after[:, -4] = 0
    w1[:2], b1[:2] = np.abs(w1[:2]), np.abs(b1[:2])  # of the first layer only: its inputs are positive
    w1[-1], b1[-1], w1[-2], b1[-2] = w1[0], b1[0], 3 * w1[1], 3 * b1[1]
    w1[-5], b1[-5] = w1[0] + w1[1], b1[0] + b1[1]
    w2[-5], b2[-5] = 0, 0.7
    body = """a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)
        c = Conv<kernel_shape=[3,3],pads=[1,1,1,1],strides=[2,2]>(r, w2, b2)  s = Relu(c)
        p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm<transB=1>(f, w3, b3)"""
    weights = {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "w3": w3, "b3": b3}
    return parse(body, x="N,3,16,16", outputs="float[N,5] y", arrays=weights).edit()


def everything_free() -> list[int]:
    """Unneeded channels of the hidden layers of :func:`everything`."""
    return [5, 5]
