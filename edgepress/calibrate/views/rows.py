"""Rows of matrix products: the contracted axis last, all other axes flattened.

    Gemm     y = alpha x' W' + beta b      x' may be transposed
    MatMul   y = x W  or  y = W x          contraction over the last or the last but one axis of x

A tensor of rank three or more holds samples along the first axis that is left, and positions along the others
(tokens); ``count`` of them are drawn for each sample. In a matrix every row is a sample, or a position of one: then as
many rows as a chunk of ``SAMPLES`` would give are enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgepress.calibrate.views.part import Arrays, draw

SAMPLES = 64
"""Samples of one chunk at the most."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Geometry of a product with a matrix.

    Attributes:
        source: the activation that goes in.
        answer: the activation that comes out.
        into: its axis that is contracted (negative).
        out_of: the axis of the answer that the matrix makes (negative).
    """

    source: str
    answer: str
    into: int = -1
    out_of: int = -1

    @property
    def tensors(self) -> tuple[str, ...]:
        """What goes in and what comes out."""
        return self.source, self.answer

    def crosswise(self, tensor: str, rank: int) -> tuple[int, ...]:
        """All axes but the contracted one, or the one that is made."""
        own = self.into if tensor == self.source else self.out_of
        return tuple(axis for axis in range(rank) if axis != own % rank)

    def choose(self, values: Arrays, count: int, generator: np.random.Generator) -> np.ndarray | None:
        """Positions of each sample, or rows of a matrix."""
        return choose(np.moveaxis(values[self.source], self.into, -1).shape[:-1], count, generator)

    def rows(self, values: Arrays, chosen: np.ndarray | None) -> np.ndarray:
        """Rows of the input."""
        return pick(np.moveaxis(values[self.source], self.into, -1), chosen)

    def states(self, values: Arrays, chosen: np.ndarray | None) -> None:
        """None: nothing is remembered."""

    def outputs(self, array: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
        """Rows of the output."""
        return pick(np.moveaxis(array, self.out_of, -1), chosen)


def choose(leading: tuple[int, ...], count: int, generator: np.random.Generator) -> np.ndarray | None:
    """Positions among the leading axes of rows (see the module)."""
    if len(leading) > 1:
        return draw(int(np.prod(leading[1:])), count, generator)
    return draw(int(np.prod(leading)), count * SAMPLES, generator)


def pick(array: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
    """[..., width] as rows [n, width], at the chosen positions."""
    width = array.shape[-1]
    if chosen is None:
        return array.reshape(-1, width)
    if array.ndim > 2:
        return array.reshape(array.shape[0], -1, width)[:, chosen].reshape(-1, width)
    return np.asarray(array[chosen])
