"""Small float models, samples and the whole way to int8 for the tests of `edgepress.quantize`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from edgepress import runtime
from edgepress.model import Model
from edgepress.ops.row import Role
from edgepress.plan import Quantization
from edgepress.quantize import (
    Rounded,
    activations_to_observe,
    bias_correction,
    observe,
    quantize,
    ranges,
    round_weights,
)
from edgepress.quantize.graph.regions import typed, units
from edgepress.targets import TARGETS, Target, detect

VNNI = TARGETS["x64-vnni"]
HERE = min(VNNI, detect(), key=lambda target: target.weight_limit)
"""The target whose int8 weights onnxruntime adds up right on this machine."""
LIMIT = HERE.weight_limit
"""Its largest int8 weight; wider ones saturate."""
CONV = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"


@dataclass(frozen=True)
class Chunk:
    inputs: dict[str, np.ndarray]


@dataclass(frozen=True)
class Arrays:
    """Samples held in memory, in chunks of at most `most`."""

    inputs: Mapping[str, np.ndarray]
    most: int = 64

    def chunks(self, size: int, /) -> Iterator[Chunk]:
        step = min(size, self.most)
        for start in range(0, len(next(iter(self.inputs.values()))), step):
            yield Chunk({name: values[start : start + step] for name, values in self.inputs.items()})


def parse(
    body: str,
    *,
    x: str = "N,16,14,14",
    outputs: str = "float[N,C,H,W] y",
    arrays: Mapping[str, np.ndarray] | None = None,
    **weights: np.ndarray,
) -> Model:
    """A model with input x from ONNX text, with initializers (`arrays` and `weights` alike)."""
    text = f'<ir_version: 10, opset_import: ["": 21]> tiny (float[{x}] x) => ({outputs}) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    for name, values in {**(arrays or {}), **weights}.items():
        array = values if values.dtype == np.int64 else values.astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    for position, node in enumerate(proto.graph.node):
        node.name = f"/net/{node.op_type}.{position}"
    return Model.of(proto)


def kernel(*shape: int, seed: int = 0) -> np.ndarray:
    """Random weights that keep the variance of what they read."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return np.asarray(values / np.sqrt(np.prod(shape[1:])), np.float32)


def samples(*shape: int, count: int = 24, seed: int = 0) -> Arrays:
    """Normal samples for the input x."""
    return Arrays({"x": np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)})


def rounded_weights(model: Model, settings: Quantization, means: Mapping[str, np.ndarray]) -> dict[str, Rounded]:
    """Every weighted node rounded, with bias correction where it has a bias."""
    found = {}
    for unit in units(typed(model)):
        if unit.role is not Role.WEIGHTED:
            continue
        node = unit.node
        weight = model.constants[node.inputs[1]]
        by_row = node.op == "Conv" or bool(node.attributes.get("transB", 0))
        item = round_weights(weight, 0 if by_row else 1, settings.weight_limit)
        if len(node.inputs) > 2 and unit.name in means:
            bias = model.constants[node.inputs[2]].ravel() + bias_correction(weight, item, means[unit.name])
            item = dataclasses.replace(item, bias=bias)
        found[unit.name] = item
    return found


def to_int8(
    model: Model, feed: Arrays, settings: Quantization | None = None, target: Target = VNNI, *, correct: bool = True
) -> Model:
    """The whole way: observe, round, quantize."""
    settings = settings or Quantization(weight_limit=LIMIT)
    seen = observe(model, feed, activations_to_observe(model))
    weights = rounded_weights(model, settings, seen.means if correct else {})
    return quantize(model, ranges(seen, settings), weights, settings, target)


def answers(model: Model, feed: Arrays) -> list[np.ndarray]:
    """Outputs of a model on all samples."""
    opened = runtime.session(model.data)
    found = [list(runtime.run(opened, chunk.inputs).values()) for chunk in feed.chunks(64)]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def sqnr(wanted: np.ndarray, found: np.ndarray) -> float:
    """Signal to quantization noise, dB."""
    noise = max(float(((wanted - found) ** 2).sum()), 1e-30)
    return float(10 * np.log10((wanted**2).sum() / noise))


def worst_sqnr(model: Model, other: Model, feed: Arrays) -> float:
    """The least SQNR over the outputs."""
    pairs = zip(answers(model, feed), answers(other, feed), strict=True)
    return min(sqnr(wanted, found) for wanted, found in pairs)
