"""Where a matrix is kept: a region of one initializer, with its axes put in order.

    matrix = scale * array[region].transpose(order).reshape(outputs, columns)

A region is a product of ranges, so it is always a view of the array: reading copies once, writing touches nothing else.
One group of a Conv, one phase of a ConvTranspose, one direction of an LSTM, a transposed Gemm and a bias (one column)
are all regions. Two sources are equal when they name the same numbers in the same order: then their matrices are one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np


@dataclass(frozen=True, slots=True)
class Source:
    """A matrix inside an initializer.

    Attributes:
        tensor: the initializer.
        shape: its shape.
        region: the positions of every axis.
        order: its axes, those that make outputs first.
        into: how many of the ordered axes make outputs; the others make columns.
        scale: what the operator multiplies the numbers by.
    """

    tensor: str
    shape: tuple[int, ...]
    region: tuple[range, ...]
    order: tuple[int, ...]
    into: int
    scale: float = 1.0

    @property
    def outputs(self) -> int:
        """Rows of the matrix."""
        return prod(len(self.region[axis]) for axis in self.order[: self.into])

    @property
    def columns(self) -> int:
        """Columns of the matrix."""
        return prod(len(self.region[axis]) for axis in self.order[self.into :])

    def some(self, outputs: range) -> Source:
        """The same, with some of the outputs (where one axis makes them)."""
        region = tuple(outputs if axis == self.order[0] else kept for axis, kept in enumerate(self.region))
        return dataclasses.replace(self, region=region)

    def read(self, array: np.ndarray) -> np.ndarray:
        """The matrix: float64 [outputs, columns]."""
        return self.scale * np.asarray(self._view(array), np.float64).reshape(self.outputs, self.columns)

    def written(self, array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """A copy of the array with this matrix in it, in the array's element type."""
        copy = np.array(array, order="C")
        view = self._view(copy)
        view[...] = (matrix / self.scale).reshape(view.shape)
        return copy

    def columns_along(self, axis: int) -> np.ndarray | None:
        """Position on ``axis`` that each column belongs to (int64 [columns]); None if the axis makes outputs."""
        return self._along(axis, self.order[self.into :])

    def outputs_along(self, axis: int) -> np.ndarray | None:
        """Position on ``axis`` that each output belongs to (int64 [outputs]); None if the axis makes columns."""
        return self._along(axis, self.order[: self.into])

    def kept(self, axes: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
        """Which outputs and columns are left when the axes keep these positions (None: all): two masks."""
        outputs, columns = np.ones(self.outputs, bool), np.ones(self.columns, bool)
        for axis, positions in enumerate(axes):
            if positions is not None:
                for mask, along in ((outputs, self.outputs_along(axis)), (columns, self.columns_along(axis))):
                    if along is not None:
                        mask &= np.isin(along, positions)
        return outputs, columns

    def _view(self, array: np.ndarray) -> np.ndarray:
        return array[tuple(slice(r.start, r.stop, r.step) for r in self.region)].transpose(self.order)

    def _along(self, axis: int, axes: tuple[int, ...]) -> np.ndarray | None:
        if axis not in axes:
            return None
        lengths = [len(self.region[a]) for a in axes]
        inner = [length if a == axis else 1 for a, length in zip(axes, lengths, strict=True)]
        return np.broadcast_to(np.array(self.region[axis], np.int64).reshape(inner), lengths).ravel()


def whole(shape: Sequence[int]) -> tuple[range, ...]:
    """The region that is everything."""
    return tuple(range(size) for size in shape)


def vector(tensor: str, shape: Sequence[int], axes: Sequence[int], scale: float = 1.0) -> Source:
    """One column: the numbers along some axes, the other axes being of length one."""
    first = [axis % len(shape) for axis in axes]
    order = (*first, *(axis for axis in range(len(shape)) if axis not in first))
    return Source(tensor, tuple(shape), whole(shape), order, len(first), scale)
