"""What whole numbers cost in the coded file, as tables that training can look up.

The coder expects of every number a magnitude (from its row, and its column in the rows before) and has a table of
probabilities for each class of it (:mod:`edgepress.codec.decoder`). Training counts the numbers of now by these very
classes::

    bits(q | class) = -log2 ((count of q and of -q) / 2 + prior) / total

and reads between whole numbers linearly, so that the slope at ``u`` is what the next number costs more than this one.
"""

from __future__ import annotations

import numpy as np
import torch

from edgepress.codec.decoder import BY_CROSS, CLASSES, LAPLACE, LEVELS, MOST, WEIGHT, Expectation, prior

SHARE = 0.15
"""Weight of the coder's first expectation beside what was counted: it has mostly learned by the end of a file."""


def classes_of(whole: np.ndarray) -> np.ndarray:
    """The class of every number of a matrix [rows, columns], by its row and column: int64.

    The coder may find a cheaper way for a whole matrix (turned, neighbours in a kernel); this one is known at once.
    """
    rows, columns = whole.shape
    means = 256 * np.abs(whole).mean(1)
    levels = np.maximum(0, np.searchsorted(np.array(LEVELS), means, side="right") - 1)
    expected = Expectation(BY_CROSS, 0, levels, columns)
    found = np.empty((rows, columns), np.int64)
    for row in range(rows):
        found[row] = expected.classes()
        expected.learn(np.clip(whole[row], -MOST, MOST).astype(np.int8), False)
    return found


def table_of(whole: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Bits of the numbers -MOST .. MOST in every class: float32 [CLASSES, 2 MOST + 1]."""
    width = 2 * MOST + 1
    places = classes * width + np.clip(whole, -MOST, MOST) + MOST
    counts = np.bincount(places.ravel(), minlength=CLASSES * width).reshape(CLASSES, width).astype(np.float64)
    counts = (counts + counts[:, ::-1]) / 2 + SHARE * prior(LAPLACE) / WEIGHT
    return np.asarray(-np.log2(counts / counts.sum(1, keepdims=True)), np.float32)


class Rates:
    """Tables of one layer."""

    def __init__(self, device: str) -> None:
        """Begin without any."""
        self.device = device
        self.classes = torch.empty(0, dtype=torch.int64)
        self.table = torch.empty(0)
        self._classes = np.empty((0, 0), np.int64)

    @property
    def known(self) -> np.ndarray:
        """The classes, [rows, columns]."""
        return self._classes

    def restore(self, classes: np.ndarray, table: np.ndarray) -> None:
        """Go on with classes and a table."""
        self._classes = classes
        self.classes = torch.from_numpy(classes * (2 * MOST + 1) + MOST).to(self.device)
        self.table = torch.from_numpy(table.copy()).to(self.device)

    def count(self, whole: np.ndarray, *, anew: bool) -> None:
        """Count the numbers of now [rows, columns]; ``anew``: find their classes again, too."""
        if anew or self._classes.shape != whole.shape:
            self._classes = classes_of(whole)
            self.classes = torch.from_numpy(self._classes * (2 * MOST + 1) + MOST).to(self.device)
        self.table = torch.from_numpy(table_of(whole, self._classes).ravel()).to(self.device)

    def bits(self, steps: torch.Tensor) -> torch.Tensor:
        """Bits of weights in units of their step [rows, columns], summed; read linearly between whole numbers."""
        inside = steps.clamp(-MOST + 1.01, MOST - 1.01)
        low = inside.detach().floor()
        share = inside - low
        place = self.classes + low.long()
        return (self.table[place] * (1 - share) + self.table[place + 1] * share).sum()
