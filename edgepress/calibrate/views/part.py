"""A part of a node seen as linear regression: rows of inputs times a matrix give rows of outputs.

    Y = [X, 1] [W, b]^T      X: rows x columns, W: outputs x columns, the column of ones carries the bias

A dense Conv, Gemm or MatMul is one part; a grouped Conv has one for every group, a ConvTranspose one for every phase
of its output, a recurrent operator some for every direction. A part knows where its matrix is kept (sources) and how
its rows are gathered from activations (its geometry). What a recurrent operator remembers (states) also makes columns;
they come after the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edgepress.calibrate.views.source import Source
from edgepress.model import Node

Arrays = Mapping[str, np.ndarray]


class Geometry(Protocol):
    """How rows are gathered from activations. ``chosen`` are positions that :meth:`choose` drew; None means all."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Activations that are looked at."""
        ...

    @property
    def answer(self) -> str | None:
        """The activation that holds the outputs; None where no tensor does (gates of a recurrent operator)."""
        ...

    def crosswise(self, tensor: str, rank: int) -> tuple[int, ...]:
        """The axes of one of ``tensors`` that count rows and may be channels of another kind (tokens, mixed)."""
        ...

    def choose(self, values: Arrays, count: int, generator: np.random.Generator) -> np.ndarray | None:
        """Positions to observe: ``count`` of each sample, rising; None means all."""
        ...

    def rows(self, values: Arrays, chosen: np.ndarray | None) -> np.ndarray:
        """Inputs: [samples * positions, columns]."""
        ...

    def states(self, values: Arrays, chosen: np.ndarray | None) -> np.ndarray | None:
        """Columns that come from the operator's own past, aligned with :meth:`rows`; None where it has none."""
        ...

    def outputs(self, array: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
        """An array of the shape of ``answer``: [samples * positions, outputs], aligned with :meth:`rows`."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """One linear operator.

    Attributes:
        name: unique among the parts of a model.
        node: the node it belongs to.
        geometry: how its rows are gathered.
        weights: sources side by side: the columns.
        bias: vectors whose sum is the bias; the first one is written when it changes. Empty: no bias.
        readers: names of the nodes that read the sources (its node, an Add behind it).
        constants: initializers of its model.
        outside: True when the bias is added behind the node: ``answer`` is without it.
    """

    name: str
    node: Node
    geometry: Geometry
    weights: tuple[Source, ...]
    bias: tuple[Source, ...]
    readers: tuple[str, ...]
    constants: Arrays = field(repr=False, compare=False)
    outside: bool = False

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return self.weights[0].outputs

    @property
    def columns(self) -> int:
        """Number of columns, without the bias."""
        return sum(source.columns for source in self.weights)

    def matrix(self, constants: Arrays | None = None) -> np.ndarray:
        """[W, b] as float64 [outputs, columns + 1]; no bias counts as zeros."""
        known = self.constants if constants is None else constants
        return np.column_stack([*(source.read(known[source.tensor]) for source in self.weights), self._bias(known)])

    def rows(self, values: Arrays, chosen: np.ndarray | None, states: np.ndarray | None = None) -> np.ndarray:
        """Input activations as float64 rows [samples * positions, columns + 1], last column ones.

        Args:
            values: activations by name.
            chosen: positions.
            states: columns of the operator's own past, where they are not those of ``values``.
        """
        past = self.geometry.states(values, chosen) if states is None else states
        flat = self.geometry.rows(values, chosen)
        rows = np.empty((len(flat), self.columns + 1), np.float64)
        rows[:, : flat.shape[1]] = flat
        if past is not None:
            rows[:, flat.shape[1] : -1] = past
        rows[:, -1] = 1.0
        return rows

    def targets(self, values: Arrays, chosen: np.ndarray | None) -> np.ndarray:
        """Outputs with their bias as float64 rows [samples * positions, outputs], aligned with :meth:`rows`."""
        if self.geometry.answer is None:
            return np.asarray(self.rows(values, chosen) @ self.matrix().T)
        found = self.geometry.outputs(values[self.geometry.answer], chosen).astype(np.float64)
        return found + self._bias(self.constants) if self.outside else found

    def choose(self, values: Arrays, count: int, generator: np.random.Generator) -> np.ndarray | None:
        """Positions to observe: ``count`` of each sample, rising; None means all."""
        return self.geometry.choose(values, count, generator)

    def _bias(self, constants: Arrays) -> np.ndarray:
        parts = [source.read(constants[source.tensor])[:, 0] for source in self.bias]
        return sum(parts, np.zeros(self.outputs))


def draw(available: int, count: int, generator: np.random.Generator) -> np.ndarray | None:
    """``count`` of the available positions, rising; None when that is all of them."""
    if count >= available:
        return None
    return np.sort(generator.choice(available, count, replace=False))
