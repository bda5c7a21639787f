"""The same share of every group: what there is to beat.

    width_g = the next rewarded width from share * size_g on, within what is legal

The share falls through all values at which any group gets narrower.
"""

from __future__ import annotations

from edgepress.planner.allocations.base import Walk
from edgepress.planner.allocations.greedy import LEAST
from edgepress.planner.cost import Cost
from edgepress.planner.widths import Ladder, Widths


def _path(ladder: Ladder, cost: Cost) -> list[Widths]:
    choices = {group: ladder.choices(group) for group in ladder.groups}
    steps = sorted(
        ((1 - count / group.size, group.name, count) for group in choices for count in choices[group][1:]),
        key=lambda step: -step[0],
    )
    removed = dict(ladder.lossless().removed)
    states: list[Widths] = []
    last, least = cost(removed), LEAST * cost({})
    for position, (share, name, count) in enumerate(steps):
        removed[name] = count
        further = position + 1 < len(steps) and steps[position + 1][0] == share
        if not further and last - (now := cost(removed)) > least:
            states.append(ladder.state(removed))
            last = now
    return states


UNIFORM = Walk("uniform", _path)
