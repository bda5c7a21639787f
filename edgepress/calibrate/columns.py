"""Columns: the values of one input for all samples, wherever they are, by index.

A column looks like one array ``[samples, ...]`` of which only the asked rows are ever in memory.
``Table`` (rows on disk) and the picture column are columns too; here are the ones made of other columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from edgepress.calibrate.rows import Bytes, raw
from edgepress.errors import DataError


class Column(Protocol):
    """One input for all samples."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole column, samples first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type as stored."""

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The rows at ``indices``, stacked."""


@dataclass(frozen=True)
class Concat:
    """Several columns one behind the other (the files of a folder)."""

    parts: Sequence[Column]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all parts together."""
        return (int(self._ends[-1]), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The common element type."""
        return self.parts[0].dtype

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([part.shape[0] for part in self.parts])

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The rows at ``indices``, stacked."""
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        owner = np.searchsorted(self._ends, indices, side="right")
        for part in np.unique(owner):
            mine = owner == part
            first = self._ends[part] - self.parts[part].shape[0]
            rows[mine] = self.parts[part].read(indices[mine] - first)
        return rows


@dataclass(frozen=True, slots=True)
class Grouped:
    """A column whose rows are taken ``size`` at a time: row ``i`` is ``[size, ...]``, a complete input."""

    column: Column
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """``[complete inputs, size, ...]``."""
        return (self.column.shape[0] // self.size, self.size, *self.column.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type as stored."""
        return self.column.dtype

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The complete inputs at ``indices``, stacked."""
        rows = (indices[:, None] * self.size + np.arange(self.size)).reshape(-1)
        return self.column.read(rows).reshape(len(indices), *self.shape[1:])


@dataclass(frozen=True, slots=True)
class Ragged:
    """Complete inputs of differing shapes in one store; read one at a time."""

    shapes: Sequence[tuple[int, ...]]
    offsets: Sequence[int]
    dtype: np.dtype[Any]
    store: Bytes

    @property
    def shape(self) -> tuple[int, ...]:
        """``[complete inputs]`` and the shape of the first; the others may differ."""
        return (len(self.shapes), *self.shapes[0])

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The complete input at the one index, with an axis in front."""
        (index,) = indices.tolist()
        array = np.empty((1, *self.shapes[index]), self.dtype)
        self.store.read(self.offsets[index], raw(array))
        return array


def concat(parts: Sequence[Column], names: Sequence[str], what: str) -> Column:
    """Put columns of the same type and row shape one behind the other.

    Raises:
        DataError: a part differs from the first one; ``names`` says which file it is.
    """
    first = parts[0]
    for part, name in zip(parts, names, strict=True):
        if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
            raise DataError(
                f"{name}: {what} is {part.dtype} {list(part.shape)}, but {names[0]} holds {first.dtype} "
                f"{list(first.shape)}: files of one folder need one type and one shape behind the first axis."
            )
    return first if len(parts) == 1 else Concat(parts)
