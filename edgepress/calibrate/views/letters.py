"""Rows of an Einsum with one constant operand that is a product with a matrix.

Every index of the constant is either summed over (it is in the other operand, not in the result) or made (the other way
round); all other indices stand in the other operand and in the result: they count rows. ``...`` stands for as many of
those as there are axes left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgepress.calibrate.views.part import Arrays
from edgepress.calibrate.views.rows import choose, pick

DOTS = "..."


@dataclass(frozen=True, slots=True)
class Letters:
    """Geometry of such an Einsum.

    Attributes:
        source: the activation that goes in.
        answer: the activation that comes out.
        reads: indices of the input.
        makes: indices of the output.
        summed: indices that are contracted, in the order of the constant.
        made: indices that the constant makes, in its order.
    """

    source: str
    answer: str
    reads: str
    makes: str
    summed: str
    made: str

    @property
    def tensors(self) -> tuple[str, ...]:
        """What goes in and what comes out."""
        return self.source, self.answer

    def crosswise(self, tensor: str, rank: int) -> tuple[int, ...]:
        """Axes whose indices stand in the input and in the output."""
        term, own = (self.reads, self.summed) if tensor == self.source else (self.makes, self.made)
        return tuple(axis for axis, letter in enumerate(_spelled(term, rank)) if letter not in own)

    def choose(self, values: Arrays, count: int, generator: np.random.Generator) -> np.ndarray | None:
        """Positions of each sample, or rows of a matrix."""
        return choose(self._inputs(values).shape[:-1], count, generator)

    def rows(self, values: Arrays, chosen: np.ndarray | None) -> np.ndarray:
        """Rows of the input."""
        return pick(self._inputs(values), chosen)

    def states(self, values: Arrays, chosen: np.ndarray | None) -> None:
        """None: nothing is remembered."""

    def outputs(self, array: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
        """Rows of the output."""
        return pick(_last(array, _spelled(self.makes, array.ndim), self._counted(array.ndim), self.made), chosen)

    def _inputs(self, values: Arrays) -> np.ndarray:
        array = values[self.source]
        rank = array.ndim - len(self.summed) + len(self.made)
        return _last(array, _spelled(self.reads, array.ndim), self._counted(rank), self.summed)

    def _counted(self, rank: int) -> str:
        """Indices that count rows, in the order of the output (of that rank)."""
        return "".join(letter for letter in _spelled(self.makes, rank) if letter not in self.made)


def _spelled(term: str, rank: int) -> str:
    """A term with a letter for every axis: digits stand for the dots."""
    dots = rank - len(term.replace(DOTS, ""))
    return term.replace(DOTS, "0123456789"[:dots])


def _last(array: np.ndarray, term: str, first: str, last: str) -> np.ndarray:
    """Axes named ``first`` in front, those named ``last`` flattened into one behind."""
    moved = array.transpose([term.index(letter) for letter in first + last])
    return moved.reshape(*moved.shape[: len(first)], -1)
