"""What whole numbers cost in the coded file, as tables that training can look up.

Training counts the numbers of now by the classes of the coder (:mod:`edgepress.codec.classes`), and reads between
whole numbers linearly, so that the slope at ``u`` is what the next number costs more than this one.
"""

from __future__ import annotations

import numpy as np
import torch

from edgepress.codec.classes import classes_of, table_of
from edgepress.codec.decoder import MOST


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
