"""What the weights of a node take in a file: bytes, numbers, scales, read off the graph itself.

A weight is stored as an initializer, or as what constant nodes make of some (``quantize.storage.unpacking``):
DequantizeLinear or Mul by a scale, Cast, digits of packed words. All initializers behind it are its bytes; one that
several nodes read counts for each of them. In a coded file whole numbers take what their classes say
(``codec.classes``), and a byte for the gain of each row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgepress.codec.classes import class_bits
from edgepress.codec.grids import step_each
from edgepress.model import Model, Node
from edgepress.ops.weighted import WEIGHTED, output_axis

FLOAT_BITS = 27
"""About what a float that no rounding has touched takes in a coded file."""

SCALED = ("DequantizeLinear", "Mul")
"""Nodes whose second input is a scale."""


@dataclass(frozen=True, slots=True)
class InFile:
    """Weights of one node as they are stored.

    Attributes:
        size: bytes.
        count: numbers.
        integers: whether they are stored as integers.
        scales: least and greatest; None where none is known.
        bits: of a number, on average, where it is coded; None elsewhere.
    """

    size: int
    count: int
    integers: bool
    scales: tuple[float, float] | None
    bits: float | None = None


def in_coded_file(model: Model, tensors: Iterable[str], node: Node) -> InFile:
    """What the constants among some inputs of a node take in the coded file of a model."""
    arrays = [model.constants[name] for name in tensors if name in model.constants]
    axis = output_axis(node.op, node.attributes) if node.op in WEIGHTED else 0
    found = [
        _coded(array, axis if array.ndim > 1 else 0) for array in arrays if array.dtype == np.float32 and array.ndim
    ]
    scales = [each.scales for each in found if each.scales is not None]
    count, size = sum(each.count for each in found), sum(each.size for each in found)
    bits = sum((each.bits or FLOAT_BITS) * each.count for each in found) / max(1, count)
    ends = (min(low for low, _ in scales), max(high for _, high in scales)) if scales else None
    return InFile(size, count, False, ends, bits if scales else None)


def _coded(weight: np.ndarray, axis: int) -> InFile:
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    found = step_each(rows)
    if found is None:
        return InFile(math.ceil(FLOAT_BITS * weight.size / 8), weight.size, False, None)
    bits = class_bits(found.whole.astype(np.int64))
    scales = float(found.steps.min()), float(found.steps.max())
    return InFile(math.ceil(bits / 8) + len(rows), weight.size, False, scales, bits / max(1, weight.size))


@dataclass(frozen=True)
class File:
    """A model, and where its constants come from."""

    model: Model

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes by initializer."""
        return {item.name: item.ByteSize() for item in self.model.edit().graph.initializer}

    def weights(self, tensors: Iterable[str]) -> InFile:
        """What is stored of some inputs of a node; those that are computed from activations are passed over."""
        found = {name: self._behind[name] for name in tensors if name in self._behind}
        every = set[str]().union(*found.values())
        largest = max(every, key=lambda name: self.sizes[name], default="")
        scales = [scale for name in found if (scale := self._scale(name)) is not None]
        return InFile(
            size=sum(self.sizes[name] for name in every),
            count=sum(self._count(name) for name in found),
            integers=bool(largest) and self.model.constants[largest].dtype.kind not in "fc",
            scales=(float(min(s.min() for s in scales)), float(max(s.max() for s in scales))) if scales else None,
        )

    @cached_property
    def _behind(self) -> dict[str, frozenset[str]]:
        """By constant the initializers that it is made of; in graph order, so each node is looked at once."""
        found = {name: frozenset([name]) for name in self.sizes}
        for node in self.model.nodes:
            parts = [found.get(name) for name in node.inputs if name]
            known = [part for part in parts if part is not None]
            if known and len(known) == len(parts):
                found.update(dict.fromkeys(node.outputs, frozenset().union(*known)))
        return found

    def _scale(self, name: str) -> np.ndarray | None:
        maker = self.model.producer(name)
        if maker is None or maker.op not in SCALED:
            return None
        scale = maker.inputs[1]
        before = self.model.producer(scale)
        return self.model.constants.get(before.inputs[0] if before is not None and before.op == "Cast" else scale)

    def _count(self, name: str) -> int:
        """Numbers of a constant, as far as its making is known."""
        if name in self.sizes:
            return self.model.constants[name].size
        maker = self.model.producer(name)
        if maker is not None and maker.op == "Reshape" and maker.inputs[1] in self.sizes:
            return math.prod(self.model.constants[maker.inputs[1]].tolist())
        return self._count(maker.inputs[0]) if maker is not None and maker.inputs else 0
