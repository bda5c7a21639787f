"""Classes of many rows of a matrix at once: the encoder knows all numbers, so it need not go row by row.

``decoder.Expectation`` says what is expected of a row once those before it are known; here is the same for a block of
rows, number by number equal. What a column has had is a recurrence, and is walked: with numpy where there are many
columns, with plain whole numbers where there are so few that numpy's calls would cost more than they do. Rows between
two renewals of the tables are handed on as one, for no number in them changes what the others cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgepress.codec import decoder
from edgepress.codec.decoder import (
    BY_ROW,
    CLASS_OF,
    EDGES,
    IN_KERNEL,
    LEANINGS,
    RAMP,
    UNIT,
    Expectation,
    Layout,
    Tables,
)

AT_ONCE = 1 << 16
"""Numbers of a block, about."""

FEW_COLUMNS = 16
"""Columns up to which plain whole numbers are faster than numpy."""

Row = Callable[[Tables, Any, np.ndarray], None]
"""Takes tables, classes (one number, or as many as symbols) and symbols 0 .. 2 limit; it must learn them."""


def alike(numbers: np.ndarray, lanes: int, stride: int) -> Iterator[np.ndarray]:
    """Every so many of the rows of a matrix without rows of its own, in blocks ``[rows, width]``."""
    lengths = decoder.widths(numbers.size, lanes)
    if not lengths:
        return
    width = lengths[0]
    whole = numbers.size // width
    for block in _blocks(numbers[: whole * width].reshape(whole, width)[::stride], width):
        yield np.ascontiguousarray(block)
    if whole < len(lengths) and whole % stride == 0:
        yield numbers[whole * width :][None]


def laid_out(layout: Layout, numbers: np.ndarray, stride: int) -> Iterator[np.ndarray]:
    """The rows of every so many first indices, ``[rows, columns]``, so many at a time that they take little memory."""
    view = numbers.reshape(layout.shape).transpose((1, 2, 0) if layout.turned else (0, 2, 1))[::stride]
    for block in _blocks(view, view.shape[1] * view.shape[2]):
        yield np.ascontiguousarray(block).reshape(-1, layout.columns)


def _blocks(view: np.ndarray, size: int) -> Iterator[np.ndarray]:
    step = max(1, AT_ONCE // max(1, size))
    for start in range(0, len(view), step):
        yield view[start : start + step]


def handed(tables: Tables, classes: Any, symbols: np.ndarray, row: Row, alone: bool) -> None:
    """Hand rows to ``row``, all that come before the next renewal of the tables as one, or each ``alone``.

    Args:
        tables: of the matrix.
        classes: one for all, or ``[rows, columns]``, or ``[rows, 1]``.
        symbols: ``[rows, columns]``.
        row: what takes them.
        alone: whether rows stay apart (lanes start anew with each).
    """
    at, (count, columns) = 0, symbols.shape
    while at < count:
        waits = max(64, tables.seen >> 3) - tables.waiting
        stop = at + 1 if alone else min(count, at + max(1, -(-waits // max(1, columns))))
        row(tables, _of_rows(classes, at, stop, columns), symbols[at:stop].ravel())
        at = stop


def _of_rows(classes: Any, start: int, stop: int, columns: int) -> Any:
    if isinstance(classes, int):
        return classes
    part = classes[start:stop]
    if part.shape == (1, 1):
        return int(part[0, 0])
    return np.broadcast_to(part, (stop - start, columns)).ravel()


class Foreseen:
    """The classes of the rows of a matrix, block by block."""

    def __init__(self, expected: Expectation, floored: bool) -> None:
        """Go on from ``expected``, which has seen no row; ``floored``: as for ``Expectation.learn``."""
        self.expected, self.floored, self.row = expected, floored, 0

    def block(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Classes and what is coded in their places, ``[rows, columns]``, of the next rows (of whole kernels).

        Classes are ``[rows, 1]`` where a row has a single one.
        """
        expected = self.expected
        levels = expected.rows[self.row : self.row + len(numbers), None]
        if expected.mode == BY_ROW:
            self.row += len(numbers)
            return CLASS_OF[np.minimum(levels * UNIT >> 8, EDGES[-1])], numbers
        classes = self._columns(numbers)
        classes *= levels * UNIT * 512 // expected.middle
        classes >>= 16
        classes = CLASS_OF[np.minimum(classes, EDGES[-1], out=classes)]
        if expected.mode != IN_KERNEL:
            return classes, numbers
        leaning = _leaning(numbers, expected.places, expected.width)
        classes *= LEANINGS
        classes += np.minimum(np.abs(leaning), LEANINGS - 1)
        return classes, np.where(leaning < 0, -numbers, numbers)

    def _columns(self, numbers: np.ndarray) -> np.ndarray:
        """What each column has had before each row: int64 ``[rows, columns]``."""
        wide = numbers.astype(np.int64)
        scaled = wide ^ wide >> 63 if self.floored else np.abs(wide, out=wide)
        scaled <<= 7
        met = self._few(scaled) if numbers.shape[1] <= FEW_COLUMNS else self._many(scaled)
        self.row += len(numbers)
        return met

    def _many(self, scaled: np.ndarray) -> np.ndarray:
        met, column = scaled, self.expected.column  # what was scaled of a row is read once: its place is free then
        for row, each in enumerate(scaled, self.row):
            if row < 1 << RAMP:
                after = (column * (row + 2) + each) // (row + 3)
            else:
                after = each - column
                after >>= RAMP
                after += column
            met[row - self.row] = column
            column = after
        self.expected.column = column
        return met

    def _few(self, scaled: np.ndarray) -> np.ndarray:
        met = np.empty_like(scaled)
        for place, mean in enumerate(self.expected.column.tolist()):
            before = []
            for row, each in enumerate(scaled[:, place].tolist(), self.row):
                before.append(mean)
                if row < 1 << RAMP:
                    mean = (mean * (row + 2) + each) // (row + 3)
                else:
                    mean += (each - mean) >> RAMP
            met[:, place] = before
            self.expected.column[place] = mean
        return met


def _leaning(numbers: np.ndarray, places: int, width: int) -> np.ndarray:
    """The sum of the neighbours to the left and above, of rows that are places of kernels: int8 ``[rows, columns]``."""
    kernels = numbers.reshape(-1, places // width, width, numbers.shape[1])
    made = np.zeros_like(kernels)
    made[:, :, 1:] = kernels[:, :, :-1]
    made[:, 1:] += kernels[:, :-1]
    return made.reshape(numbers.shape)
