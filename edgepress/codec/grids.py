"""Floats that are whole numbers times a step: found, and proven bit by bit.

    w = float32(q) * s      in single precision, one rounding; s one for the tensor, or one for every row or column

Rounded weights and biases are such floats. The smallest magnitude of a row is the step if the row has a 1, and a small
multiple of it otherwise; a step counts only if every value comes back with its very bits. Steps of rows may lie on the
grid ``base * 2^(code / 64)`` (``decoder.grid_steps``): then a row costs a code instead of four bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgepress.codec.decoder import OCTAVE, POWERS, grid_steps

FARTHEST, FARTHEST_FEW = 24, 128
"""The smallest number of a row may be as large as this; of a row of few numbers."""

FEW = 1 << 10

LARGEST = 1 << 20
"""Greater multiples than that are no rounding worth the name."""

PROBE = 1 << 10
"""Values of a row that a step must fit before all are looked at."""

ROUNDINGS = (0, 1, -1, 2, -2)
"""Units in the last place that a quotient may be off the step."""


@dataclass(frozen=True, slots=True)
class Multiples:
    """``values[i, j] = float32(whole[i, j]) * steps[i]``, to the bit but for signs of zeros.

    Attributes:
        whole: the smallest integer type, ``[rows, columns]``.
        steps: float32 ``[rows]``, or ``[1]``: one for all.
    """

    whole: np.ndarray
    steps: np.ndarray


def one_step(values: np.ndarray) -> Multiples | None:
    """A single step for all of a matrix of float32, if there is one."""
    flat = values.reshape(1, -1)
    step = _row_step(flat[0])
    return None if step is None else _proven(flat, np.array([step], np.float32), values.shape)


def step_each(values: np.ndarray) -> Multiples | None:
    """A step for every row of a matrix of float32, if there are."""
    first = values[:1]
    if len(first) and not _fits(first, _least(first))[0] and _row_step(first[0]) is None:
        return None  # before anything as large as the tensor is made
    if not np.isfinite(values).all():
        return None
    values = np.ascontiguousarray(values)
    least = _least(values)
    made = _proven(values, least, values.shape)
    if made is not None:
        return made
    wrong = np.flatnonzero(~_fits(values, least))
    steps = least.copy()
    for row in wrong.tolist():
        step = _row_step(values[row])
        if step is None:
            return None
        steps[row] = step
    return _proven(values, steps, values.shape)


def _least(values: np.ndarray) -> np.ndarray:
    """Smallest magnitude but zero of every row; 1 for rows of zeros."""
    magnitudes = np.abs(values)
    least = np.where(magnitudes > 0, magnitudes, np.float32(np.inf)).min(1, initial=np.inf)
    return np.where(np.isfinite(least), least, 1).astype(np.float32)


def _row_step(row: np.ndarray) -> np.float32 | None:
    """The largest step that all values of a row are multiples of."""
    least = _least(row[None])[0]
    probe = np.unique(np.abs(row[:: max(1, len(row) // PROBE)]))[None]
    if not np.isfinite(probe[0, -1]):
        return None
    for multiple in range(1, (FARTHEST_FEW if len(row) <= FEW else FARTHEST) + 1):
        middle = least / np.float32(multiple)
        for off in ROUNDINGS if multiple > 1 else ROUNDINGS[:1]:
            step = _neighbour(middle, off)
            if step > 0 and _fits(probe, np.array([step]))[0] and _fits(row[None], np.array([step]))[0]:
                return step
    return None


def _neighbour(value: np.float32, off: int) -> np.float32:
    bits = np.array(value, np.float32).view(np.int32) + np.int32(off)
    return np.float32(bits.view(np.float32))


def _fits(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Whether each row is made of multiples of its step: bool ``[rows]``."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        whole = np.rint(values / steps[:, None])
        return np.asarray(((whole * steps[:, None] == values) & (np.abs(whole) < LARGEST)).all(1))


def _proven(values: np.ndarray, steps: np.ndarray, shape: tuple[int, ...]) -> Multiples | None:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        whole = np.rint(values / steps[:, None])
        if not (np.abs(whole) < LARGEST).all() or not np.array_equal(whole * steps[:, None], values):
            return None
        largest = float(np.abs(whole).max(initial=0))
    kind = np.int8 if largest <= 127 else np.int16 if largest < 1 << 15 else np.int32
    return Multiples(whole.astype(kind).reshape(shape), steps)


def on_grid(steps: np.ndarray) -> tuple[float, np.ndarray] | None:
    """Base and codes that give these very steps by ``decoder.grid_steps``; None if they are on no such grid."""
    wide = steps.astype(np.float64)
    if len(wide) < 2 or not (wide > 0).all():
        return None
    codes = np.rint(np.log2(wide / wide[0]) * OCTAVE).astype(np.int64)
    factors = np.ldexp(POWERS[codes % OCTAVE], codes // OCTAVE)
    up, down = (np.nextafter(steps, np.float32(bound)).astype(np.float64) for bound in (np.inf, 0))
    low, high = ((wide + down) / 2 / factors).max(), ((wide + up) / 2 / factors).min()
    if not 0 < low <= high:
        return None
    for base, moved in _bases(low, high):
        if np.array_equal(grid_steps(base, codes + moved), steps):
            return base, codes + moved
    return None


def _bases(low: float, high: float) -> Iterator[tuple[float, int]]:
    """Bases between two bounds and how far the codes move then: a float32 times a power of the grid, or any double."""
    for code in range(-OCTAVE // 2, OCTAVE // 2):
        factor = float(np.ldexp(POWERS[code % OCTAVE], code // OCTAVE))
        single = float(np.float32((low + high) / 2 / factor))
        if low < single * factor < high:
            yield single, code
            break
    yield (low + high) / 2, 0
