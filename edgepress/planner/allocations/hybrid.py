"""Greedy on curves that are scaled by what the answer was measured to feel: the default.

    error_g(k) = curve_g[k] * sensitivity_g / curve_g[half_g]

The shape of the curve times one measured number for each group (:mod:`edgepress.planner.sensitivity`).
"""

from __future__ import annotations

from edgepress.planner.allocations import greedy
from edgepress.planner.allocations.base import Walk
from edgepress.planner.cost import Cost
from edgepress.planner.widths import Ladder, Widths


def _path(ladder: Ladder, cost: Cost) -> list[Widths]:
    return greedy.path(ladder, cost, ladder.error)


HYBRID = Walk("hybrid", _path)
