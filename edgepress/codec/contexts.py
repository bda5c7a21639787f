"""What the coder of coded files charges for a number of a matrix: the rate that training and rounding can work with.

    contexts = Contexts.of(q)                       q: whole numbers [rows, columns], as the file will hold them
    contexts.classes                                class of every number: what the coder expects there
    contexts.lengths(contexts.classes, candidates)  bits of other numbers in the same places
    contexts.bits                                   the whole table, [classes, values -MOST .. MOST]
    matrix_bits(q)                                  bits of a matrix, exactly as the coder counts them

The class of a number is that of the magnitude that the coder expects there: from the mean magnitude of its row, which
the file tells, and that of its column in the rows before (or of neither, whatever is cheapest for this matrix). So a
row or a column of small numbers is cheap as a whole, and its zeros are the cheapest of all. Tables are those that the
coder ends with, and the priors that it starts from count in them: values that never occurred have finite lengths. A
step of training that moves numbers between neighbours interpolates ``bits``; classes and tables change slowly, so that
it is enough to take them anew every so many steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress.codec import matrices
from edgepress.codec.coder import cost
from edgepress.codec.decoder import ALIKE, FINE, MOST, Tables

VALUES = 2 * MOST + 1
"""Values that a table has a length for: -MOST .. MOST; beyond it every further step costs what the last one did."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """The classes of a matrix and what its numbers cost in each.

    Attributes:
        classes: uint8 ``[rows, columns]``.
        bits: code lengths, float64 ``[classes, VALUES]``; value ``v`` is at ``v + MOST``.
        offset: what is taken off a number before it is looked up (0 for weights about zero).
        shift: low bits that are coded as they are, at a bit each (0 for numbers of mean magnitude up to 6).
    """

    classes: np.ndarray
    bits: np.ndarray
    offset: int = 0
    shift: int = 0

    @classmethod
    def of(cls, values: np.ndarray) -> Contexts:
        """The contexts that the coder has in a matrix, coded by itself.

        Args:
            values: whole numbers ``[rows, columns]``: one row for each output channel, as in the file.
        """
        matrix = _matrix(values)
        tables, levels = Tables(FINE), Tables(FINE)
        _, way = matrices.best(matrix, tables, levels, 1)
        classes: list[np.ndarray] = []

        def row(which: Tables, expected: Any, symbols: np.ndarray) -> None:
            if which is tables:
                classes.append(np.broadcast_to(np.asarray(expected, np.uint8), symbols.shape))
            which.learn(expected, symbols)

        matrices.walk(matrix, way, tables, levels, 1, row)
        tables.begin(MOST, None)  # counts the last symbols
        shape = matrix.symbols.shape[::-1] if way.turned and way.mode != ALIKE else matrix.symbols.shape
        found = np.concatenate(classes).reshape(shape) if classes else np.zeros(shape, np.uint8)
        placed = found.T if shape != matrix.symbols.shape else found
        counts = tables.counts.astype(np.float64)
        bits = np.log2(counts.sum(1, keepdims=True)) - np.log2(counts)
        return cls(np.ascontiguousarray(placed), bits, matrix.offset, matrix.shift)

    def lengths(self, classes: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Bits of numbers in places of some classes: float64 of their common shape."""
        symbols = (np.asarray(values, np.int64) - self.offset) >> self.shift
        inside = symbols.clip(-MOST, MOST)
        last = np.stack([self.bits[:, 0] - self.bits[:, 1], self.bits[:, -1] - self.bits[:, -2]])
        beyond = np.abs(symbols - inside) * np.maximum(last[(symbols > 0).astype(int), classes], 0.0)
        return np.asarray(self.bits[classes, inside + MOST] + beyond + self.shift)


def matrix_bits(values: np.ndarray) -> float:
    """Bits of a matrix of whole numbers ``[rows, columns]`` that is coded by itself: codes, low bits and recipe."""
    matrix = _matrix(values)
    tables, levels = Tables(FINE), Tables(FINE)
    _, way = matrices.best(matrix, tables, levels, 1)
    spent = matrix.fixed_bits + 8 * len(matrices.recipe(matrix, way))

    def row(which: Tables, classes: Any, symbols: np.ndarray) -> None:
        nonlocal spent
        spent += cost(which, classes, symbols)

    matrices.walk(matrix, way, tables, levels, 1, row)
    return spent


def _matrix(values: np.ndarray) -> matrices.Matrix:
    whole = np.asarray(values)
    if whole.dtype.kind == "f":
        whole = np.rint(whole).astype(np.int64)
    return matrices.Matrix.of(whole.reshape(len(whole), -1), whole[:1].size, FINE)
