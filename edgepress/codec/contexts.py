"""What the coder of coded files charges for a number of a matrix: the rate that training and rounding can work with.

    contexts = Contexts.of(q)                       q: whole numbers [rows, columns], as the file will hold them
    contexts.classes                                class of every number: what the coder expects there
    contexts.lengths(contexts.classes, candidates)  bits of other numbers in the same places
    contexts.bits                                   the whole table, [classes, values -MOST .. MOST]
    matrix_bits(q)                                  bits of a matrix, exactly as the coder counts them

The class of a number is that of the magnitude that the coder expects there: from the mean magnitude of its row, which
the file tells, and that of its column in the rows before (or of neither, whatever is cheapest for this matrix). So a
row or a column of small numbers is cheap as a whole, and its zeros are the cheapest of all. Tables are those that the
coder ends with, so they charge a few percent less than coding takes, which has to learn them first; priors count in
them, so values that never occurred have finite lengths. What neighbours in the kernel of a convolution tell
(``decoder.Expectation``) is left out of the classes: it favours signs, not sizes, and moves with every number;
``matrix_bits`` has it. A step of training that moves numbers between neighbours interpolates ``bits``; classes and
tables change slowly, so that it is enough to take them anew every so many steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress.codec import matrices
from edgepress.codec.coder import Learned, cost
from edgepress.codec.decoder import ALIKE, CLASSES, FINE, LAPLACE, MOST, WEIGHT, Tables, prior
from edgepress.codec.symbols import Matrix

VALUES = 2 * MOST + 1
"""Values that a table has a length for: -MOST .. MOST; what is beyond is an escape and costs bytes of its own."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """The classes of a matrix and what its numbers cost in each.

    Attributes:
        classes: uint8, as many as numbers, below ``decoder.CLASSES``.
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
            values: whole numbers ``[rows, columns, ...]``: one row for each output channel, as in the file; what is
                beyond two axes is the kernel of a convolution.
        """
        matrix = _matrix(values)
        learned = Learned(FINE)
        _, way = matrices.best(matrix, learned, 1)
        rows: list[np.ndarray] = []

        def row(which: Tables, expected: Any, symbols: np.ndarray) -> None:
            if which is not learned.levels:
                rows.append(np.broadcast_to(np.asarray(expected // which.leanings, np.uint8), symbols.shape))
            which.learn(expected, symbols)

        matrices.walk(matrix, way, learned, 1, row)
        found = np.concatenate(rows) if rows else np.zeros(0, np.uint8)
        classes = found if way.mode == ALIKE or not len(found) else way.layout(found.size).back(found)
        places = classes.astype(np.int64) * VALUES + matrix.symbols + MOST
        met = np.bincount(places, minlength=CLASSES * VALUES).reshape(CLASSES, VALUES) * WEIGHT
        counts = (met + prior(LAPLACE if way.prior is None else way.prior)).astype(np.float64)
        bits = np.log2(counts.sum(1, keepdims=True)) - np.log2(counts)
        return cls(classes.reshape(np.shape(values)), bits, matrix.offset, matrix.shift)

    def lengths(self, classes: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Bits of numbers in places of some classes: float64 of their common shape."""
        symbols = (np.asarray(values, np.int64) - self.offset) >> self.shift
        inside = symbols.clip(-MOST, MOST)
        beyond = 8 * np.ceil(np.log2(1.0 + np.abs(symbols - inside)) / 7)  # an escape: seven bits to a byte
        return np.asarray(self.bits[classes, inside + MOST] + beyond + self.shift)


def matrix_bits(values: np.ndarray) -> float:
    """Bits of whole numbers ``[rows, columns, ...]`` that are coded by themselves: codes, low bits and recipe."""
    matrix = _matrix(values)
    learned = Learned(FINE)
    _, way = matrices.best(matrix, learned, 1)
    spent = matrix.fixed_bits + 8 * len(matrices.recipe(matrix, way))

    def row(which: Tables, classes: Any, symbols: np.ndarray) -> None:
        nonlocal spent
        spent += cost(which, classes, symbols)

    matrices.walk(matrix, way, learned, 1, row)
    return spent


def _matrix(values: np.ndarray) -> Matrix:
    whole = np.asarray(values)
    if whole.dtype.kind == "f":
        whole = np.rint(whole).astype(np.int64)
    return Matrix.of(whole, whole.shape, FINE)
