"""The multiple-choice knapsack: one option of every row, the least error within a budget.

    minimize  sum_i error[i, c_i]   with   sum_i size[i, c_i] <= budget

Dynamic programming over the rows with sizes in units of 1 / ``STEPS`` of what the budget leaves above the smallest
options; sizes are rounded up, so that the budget is kept. Source: Pisinger, "A minimal algorithm for the
multiple-choice knapsack problem", 1995.
Guarantee: never above the budget; exact for whole sizes while the budget leaves at most ``STEPS``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STEPS = 4096
"""Units of the budget: finer ones change the error by next to nothing."""

_DUST = 1e-9
"""A size may reach over a unit by this much of it: rounding of sums, not a matter of the budget."""


@dataclass(frozen=True, slots=True)
class Options:
    """What there is to choose from in one row: float64 [options] each."""

    errors: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> Options:
        """From pairs of error and size."""
        errors, sizes = zip(*pairs, strict=True)
        return cls(np.array(errors, np.float64), np.array(sizes, np.float64))


def choose(rows: Sequence[Options], budget: float) -> list[int] | None:
    """The option of every row; None where nothing fits."""
    room = budget - sum(float(row.sizes.min()) for row in rows)
    if room < 0:
        return None
    unit = max(1.0, room / STEPS) if _whole(rows) else (room / STEPS or 1.0)
    best = np.zeros(int(room / unit + _DUST) + 1)  # least error of the rows so far, by units that may be used
    picks: list[np.ndarray] = []
    used = [_units(row, unit) for row in rows]
    for row, units in zip(rows, used, strict=True):
        tried = np.full((len(units), best.size), np.inf)
        for option, taken in enumerate(units):
            if taken < best.size:
                tried[option, taken:] = best[: best.size - taken] + row.errors[option]
        picks.append(tried.argmin(0))
        best = tried.min(0)
    return _traced(used, picks, best.size - 1)


def _whole(rows: Sequence[Options]) -> bool:
    return all((row.sizes == row.sizes.round()).all() for row in rows)


def _units(row: Options, unit: float) -> list[int]:
    """Units that every option takes, beyond those of the smallest one."""
    return [max(int(more > 0), math.ceil(more / unit - _DUST)) for more in row.sizes - row.sizes.min()]


def _traced(used: Sequence[Sequence[int]], picks: Sequence[np.ndarray], place: int) -> list[int]:
    """Follow the choices back from the last row."""
    found: list[int] = []
    for units, pick in zip(used[::-1], picks[::-1], strict=True):
        found.append(int(pick[place]))
        place -= units[found[-1]]
    return found[::-1]
