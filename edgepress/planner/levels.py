"""Bits under a budget of bytes: the Lagrangian of predicted error and file size.

    minimize  sum_l error[l, L_l]   with   sum_l bytes[l, L_l] <= budget

For a price mu of a byte every layer takes ``argmin error + mu bytes`` on its own; mu is found by bisection (Everett
1963; Shoham & Gersho 1988). The error of a layer is what rounding costs the answer, half the Fisher-weighted squared
error of its outputs (Tu 2016: more bits where Fisher information is higher).
Guarantee: never above the budget, unless the smallest choice of every layer is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Width:
    """One width of one layer: predicted error (nats, or share of the signal) and bytes in the file."""

    error: float
    size: int


Table = Mapping[str, Mapping[int, Width]]
"""Widths by layer and number of levels."""


def allocate(table: Table, budget: int) -> dict[str, int]:
    """Levels of every layer: the least predicted error within a budget of bytes."""
    low, high = 1e-30, 1e30
    best = _at(table, high)
    for _ in range(ROUNDS):
        price = (low * high) ** 0.5
        found = _at(table, price)
        if total(table, found) <= budget:
            best, high = found, price
        else:
            low = price
    return _filled(table, best, budget)


def total(table: Table, levels: Mapping[str, int]) -> int:
    """Bytes of an allocation."""
    return sum(table[name][count].size for name, count in levels.items())


def predicted(table: Table, levels: Mapping[str, int]) -> float:
    """Predicted error of an allocation."""
    return sum(table[name][count].error for name, count in levels.items())


def _at(table: Table, price: float) -> dict[str, int]:
    """The best width of every layer at a price of a byte; of equal ones the smaller."""
    return {
        name: min(widths, key=lambda count: (widths[count].error + price * widths[count].size, widths[count].size))
        for name, widths in table.items()
    }


def _filled(table: Table, levels: dict[str, int], budget: int) -> dict[str, int]:
    """What the convex hull leaves of the budget, spent where a byte saves most."""
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
