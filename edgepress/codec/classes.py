"""Classes and code lengths of whole numbers, at once for a whole matrix: what rounding and training charge for a bit.

The coder expects of every number a magnitude (from its row, and its column in the rows before) and has a table of
probabilities for each class of it (:mod:`edgepress.codec.decoder`). Numbers are counted by these very classes::

    bits(q | class) = -log2 ((count of q and of -q) / 2 + prior) / total

The coder may find a cheaper way for a whole matrix (turned, neighbours in a kernel; :mod:`edgepress.codec.contexts` has
that); this one is known at once.
"""

from __future__ import annotations

import numpy as np

from edgepress.codec.decoder import BY_CROSS, CLASSES, LAPLACE, LEVELS, MOST, WEIGHT, Expectation, prior

SHARE = 0.15
"""Weight of the coder's first expectation beside what was counted: it has mostly learned by the end of a file."""


def classes_of(whole: np.ndarray) -> np.ndarray:
    """The class of every number of a matrix [rows, columns], by its row and column: int64."""
    rows, columns = whole.shape
    means = 256 * np.abs(whole).mean(1)
    levels = np.maximum(0, np.searchsorted(np.array(LEVELS), means, side="right") - 1)
    expected = Expectation(BY_CROSS, 0, levels, columns)
    found = np.empty((rows, columns), np.int64)
    for row in range(rows):
        found[row] = expected.classes()
        expected.learn(np.clip(whole[row], -MOST, MOST).astype(np.int8), False)
    return found


def class_bits(whole: np.ndarray) -> float:
    """About what a matrix [rows, columns] costs, at once.

    Within 6 % of ``contexts.matrix_bits`` where there are thousands of numbers up to ``MOST``; too little for few of
    them, and where larger ones take escapes.
    """
    classes = classes_of(whole)
    inside = np.clip(whole, -MOST, MOST) + MOST
    return float(table_of(whole, classes)[classes, inside].sum())


def table_of(whole: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Bits of the numbers -MOST .. MOST in every class: float32 [CLASSES, 2 MOST + 1]."""
    width = 2 * MOST + 1
    places = classes * width + np.clip(whole, -MOST, MOST) + MOST
    counts = np.bincount(places.ravel(), minlength=CLASSES * width).reshape(CLASSES, width).astype(np.float64)
    counts = (counts + counts[:, ::-1]) / 2 + SHARE * prior(LAPLACE) / WEIGHT
    return np.asarray(-np.log2(counts / counts.sum(1, keepdims=True)), np.float32)
