"""Greedy on the raw curves: squared error of the outputs of the layers that read a group, whatever follows them.

Needs no run of the network. Good where all layers matter alike; a late layer with large outputs is spared more than the
answer asks for.
"""

from __future__ import annotations

from edgepress.planner.allocations import greedy
from edgepress.planner.allocations.base import Walk
from edgepress.planner.cost import Cost
from edgepress.planner.widths import Ladder, Widths


def _path(ladder: Ladder, cost: Cost) -> list[Widths]:
    return greedy.path(ladder, cost, ladder.curve)


CURVE = Walk("curve", _path)
