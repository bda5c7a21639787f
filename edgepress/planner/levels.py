"""Bits under a budget of bytes: the least predicted error that fits.

    minimize  sum_l error[l, L_l]   with   sum_l bytes[l, L_l] <= budget

A multiple-choice knapsack (Pisinger 1995), solved by dynamic programming over the layers with sizes in units of
1 / ``STEPS`` of the budget; what rounding sizes up has left over is spent where a byte saves most. (The Lagrangian,
which takes ``argmin error + mu bytes`` for each layer, finds only points of the convex hull: with three layers it lost
to the same width everywhere.) The error of a layer is what rounding costs the answer: half the Fisher information along
the change of its weights (Tu 2016: more bits where Fisher information is higher).
Guarantee: never above the budget, unless the smallest choice of every layer is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

STEPS = 4096
"""Units of the budget: finer ones change the error by next to nothing."""


@dataclass(frozen=True, slots=True)
class Width:
    """One width of one layer: predicted error (nats, or share of the signal) and bytes in the file."""

    error: float
    size: int


Table = Mapping[str, Mapping[int, Width]]
"""Widths by layer and number of levels."""


def allocate(table: Table, budget: int) -> dict[str, int]:
    """Levels of every layer: the least predicted error within a budget of bytes."""
    found = _knapsack(table, budget)
    if found is None:
        found = {name: min(widths, key=lambda count: widths[count].size) for name, widths in table.items()}
    return _filled(table, found, budget)


def _knapsack(table: Table, budget: int) -> dict[str, int] | None:
    """The best choice with sizes rounded up to units; None where nothing fits."""
    if budget < 0:
        return None
    unit = max(1, -(-budget // STEPS))
    best = np.zeros(budget // unit + 1)  # least error of the layers so far, by units that may be used
    picks: list[np.ndarray] = []
    for widths in table.values():
        tried = np.full((len(widths), best.size), np.inf)
        for row, width in enumerate(widths.values()):
            used = -(-width.size // unit)
            if used < best.size:
                tried[row, used:] = best[: best.size - used] + width.error
        picks.append(tried.argmin(0))
        best = tried.min(0)
    if not np.isfinite(best[-1]):
        return None
    return _traced(table, picks, best.size - 1, unit)


def _traced(table: Table, picks: list[np.ndarray], place: int, unit: int) -> dict[str, int]:
    """Follow the choices back from the last layer."""
    found: dict[str, int] = {}
    for (name, widths), pick in zip(list(table.items())[::-1], picks[::-1], strict=True):
        found[name] = list(widths)[pick[place]]
        place -= -(-widths[found[name]].size // unit)
    return {name: found[name] for name in table}


def total(table: Table, levels: Mapping[str, int]) -> int:
    """Bytes of an allocation."""
    return sum(table[name][count].size for name, count in levels.items())


def predicted(table: Table, levels: Mapping[str, int]) -> float:
    """Predicted error of an allocation."""
    return sum(table[name][count].error for name, count in levels.items())


def _filled(table: Table, levels: dict[str, int], budget: int) -> dict[str, int]:
    """What units leave of the budget, spent where a byte saves most."""
    chosen = dict(levels)
    while True:
        room = budget - total(table, chosen)
        steps = [
            ((table[name][now].error - width.error) / (width.size - table[name][now].size), name, count)
            for name, now in chosen.items()
            for count, width in table[name].items()
            if 0 < width.size - table[name][now].size <= room and width.error < table[name][now].error
        ]
        if not steps:
            return chosen
        _, name, count = max(steps)
        chosen[name] = count
