"""Steps with the least rise of error per unit of cost saved.

Again and again the best step (group, 1, 2, 4 or 8 multiples) is taken::

    argmin (error(k') - error(k)) / (cost(k) - cost(k'))

Longer steps than one multiple reach over the flat parts of a staircase.
Guarantee: every step saves something; it ends where none does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from edgepress.groups import Group
from edgepress.planner.cost import Cost
from edgepress.planner.widths import Ladder, Widths

STEPS = (1, 2, 4, 8)
LEAST = 1e-12
"""Share of the cost of the whole that counts as saved."""

Error = Callable[[str, int], float]
"""What the loss of so many channels of a group costs."""


def path(ladder: Ladder, cost: Cost, error: Error) -> list[Widths]:
    """Every state of the greedy, down to the narrowest widths allowed."""
    return list(descend(ladder, ladder.lossless().removed, cost, error))


def descend(ladder: Ladder, removed: Mapping[str, int], cost: Cost, error: Error) -> Iterator[Widths]:
    """The states that follow on one."""
    least = LEAST * cost({})
    while step := _best(ladder, removed, cost, error, least):
        removed = {**removed, step[0]: step[1]}
        yield ladder.state(removed)


def _best(ladder: Ladder, removed: Mapping[str, int], cost: Cost, error: Error, least: float) -> tuple[str, int] | None:
    """The cheapest next step as (group, removed in total)."""
    now = cost(removed)
    best: tuple[float, str, int] | None = None
    for group in ladder.groups:
        gone = removed.get(group.name, 0)
        for count in _reached(ladder, group, gone):
            saved = now - cost({**removed, group.name: count})
            rise = error(group.name, count) - error(group.name, gone)
            if saved > least and (best is None or rise / saved < best[0]):
                best = (rise / saved, group.name, count)
    return None if best is None else best[1:]


def _reached(ladder: Ladder, group: Group, gone: int) -> list[int]:
    """Removed totals that the next step may reach."""
    floor, start = ladder.floor(group), ladder.up(group.size - gone)
    widths = [start - step * ladder.multiple for step in STEPS]
    return sorted({group.size - width for width in widths if floor <= width < group.size - gone})
