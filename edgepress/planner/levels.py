"""Bits under a budget of bytes: the least predicted error that fits.

    minimize  sum_l error[l, L_l]   with   sum_l bytes[l, L_l] <= budget

A multiple-choice knapsack (:mod:`edgepress.planner.knapsack`); what rounding sizes up to its units has left over is
spent where a byte saves most. (The Lagrangian, which takes ``argmin error + mu bytes`` for each layer, finds only
points of the convex hull: with three layers it lost to the same width everywhere.) The error of a layer is what
rounding costs the answer: half the Fisher information along the change of its weights (Tu 2016: more bits where Fisher
information is higher).
Guarantee: never above the budget, unless the smallest choice of every layer is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgepress.planner.knapsack import Options, choose


@dataclass(frozen=True, slots=True)
class Width:
    """One width of one layer: predicted error (nats, or share of the signal) and bytes in the file."""

    error: float
    size: int


Table = Mapping[str, Mapping[int, Width]]
"""Widths by layer and number of levels."""


def allocate(table: Table, budget: int) -> dict[str, int]:
    """Levels of every layer: the least predicted error within a budget of bytes."""
    rows = [list(widths.values()) for widths in table.values()]
    picks = choose([Options.of([(width.error, width.size) for width in row]) for row in rows], budget)
    if picks is None:
        found = {name: min(widths, key=lambda count: widths[count].size) for name, widths in table.items()}
    else:
        found = {name: list(widths)[pick] for (name, widths), pick in zip(table.items(), picks, strict=True)}
    return _filled(table, found, budget)


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
