"""What the weights of a node take in a file: bytes, numbers, scales, read off the graph itself.

A weight is stored as an initializer, or as what constant nodes make of some (``quantize.unpacking``): DequantizeLinear
or Mul by a scale, Cast, digits of packed words. All initializers behind it are its bytes; one that several nodes read
counts for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgepress.model import Model

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
    """

    size: int
    count: int
    integers: bool
    scales: tuple[float, float] | None


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
        found: dict[str, set[str]] = {}
        for name in tensors:
            behind = self._behind(name)
            if behind:
                found[name] = behind
        every = set[str]().union(*found.values())
        largest = max(every, key=lambda name: self.sizes[name], default="")
        scales = [scale for name in found if (scale := self._scale(name)) is not None]
        return InFile(
            size=sum(self.sizes[name] for name in every),
            count=sum(self._count(name) for name in found),
            integers=bool(largest) and self.model.constants[largest].dtype.kind not in "fc",
            scales=(float(min(s.min() for s in scales)), float(max(s.max() for s in scales))) if scales else None,
        )

    def _behind(self, name: str) -> set[str] | None:
        """The initializers that a constant is made of; None if it is none."""
        if not name:
            return set()
        if name in self.sizes:
            return {name}
        maker = self.model.producer(name)
        parts = [] if maker is None else [self._behind(each) for each in maker.inputs]
        if not parts or any(part is None for part in parts):
            return None
        return set[str]().union(*(part for part in parts if part is not None))

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
