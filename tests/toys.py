"""What a toy model is: ONNX text, weights, and what is expected of its channel groups."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgepress.model import Model


@dataclass(frozen=True)
class Toy:
    """A model and what is expected of its groups.

    Attributes:
        text: the graph; inputs have a symbolic batch N.
        constants: a tuple is the shape of random float weights, a list holds int64 values, an array is meant as it is.
        sizes: sizes of the prunable groups, in graph order.
        shared: number of groups refused as residual streams.
        stopped: pieces of the other groups' refusals, in order.
        opset: operator set, 18 where nothing else is said.
        foreign: whether it uses operators of com.microsoft.
    """

    text: str
    constants: Mapping[str, Any]
    sizes: tuple[int, ...]
    shared: int = 0
    stopped: tuple[str, ...] = ("graph output 'y'",)
    opset: int = 18
    foreign: bool = False

    def build(self, opset: int | None = None) -> Model:
        """The model, with seeded weights and named nodes."""
        return Model.of(self.proto(opset))

    def proto(self, opset: int | None = None) -> onnx.ModelProto:
        """The model as a proto of its own."""
        sets = f'"" : {opset or self.opset}' + (', "com.microsoft" : 1' if self.foreign else "")
        proto = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{sets}]>\n{self.text}")
        random = np.random.default_rng(zlib.crc32(self.text.encode()))
        for name, value in self.constants.items():
            array = _weights(random, value) if isinstance(value, tuple) else np.asarray(value)
            array = np.abs(array) if name == "variance" else array
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
        for node in proto.graph.node:
            node.name = f"n_{node.output[0]}"
        onnx.checker.check_model(proto)
        return proto


def _weights(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (random.random(shape) + 0.1).astype(np.float32) * random.choice([-0.3, 0.3], shape).astype(np.float32)


def feed(model: Model, batch: int, seed: int) -> dict[str, np.ndarray]:
    """Random inputs; every symbolic dimension is ``batch``."""
    random = np.random.default_rng(seed)
    found = {}
    for name, type_ in model.inputs.items():
        shape = [size if isinstance(size, int) else batch for size in type_.shape or ()]
        integer = np.issubdtype(type_.dtype, np.integer)
        values = random.integers(0, 4, shape) if integer else random.standard_normal(shape)
        found[name] = values.astype(type_.dtype)
    return found


IMAGE = "float[N,3,8,8] x"
"""The usual graph input."""
