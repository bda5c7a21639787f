"""How wide each group stays: greedy on error per cost, in steps that the target rewards.

Start with everything (less what is lossless). Take, again and again, the step (group, 1, 2, 4 or 8 multiples) with the
least rise of scaled error per unit of cost saved; the states passed on the way are the ladder of candidates::

    error_g(k) = curve_g[k] * sensitivity_g / curve_g[half_g]

Kept widths are multiples of the target's multiple; at least a tenth of a group stays. A group no wider than one
multiple is left alone, except for lossless removals when the multiple is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.groups import Group
from edgepress.plan import Cut
from edgepress.planner.cost import Costs
from edgepress.planner.sensitivity import Sensitivity
from edgepress.scores.base import Ranking

STEPS = (1, 2, 4, 8)
KEEP = 0.1

Cost = Callable[[Mapping[str, int]], float]


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels removed per group, and what the curves predict for it."""

    removed: Mapping[str, int]
    predicted: float


@dataclass(frozen=True, slots=True)
class Ladder:
    """Everything the greedy needs; :meth:`path` walks down."""

    groups: tuple[Group, ...]
    rankings: Mapping[str, Ranking]
    sensitivities: Mapping[str, Sensitivity]
    costs: Costs
    multiple: int

    def lossless(self) -> Widths:
        """Only what is free: dead, constant and exactly dependent channels, down to a rewarded width."""
        removed = {}
        for group in self.groups:
            width = self._up(group.size - self.rankings[group.name].free)
            if width < group.size:
                removed[group.name] = group.size - width
        return Widths(removed, 0.0)

    def path(self, cost: Cost) -> list[Widths]:
        """Every state of the greedy, mildest first, down to the narrowest widths allowed (the start is left out)."""
        removed = dict(self.lossless().removed)
        states = []
        while step := self._best(removed, cost(removed), cost):
            removed = {**removed, step[0]: step[1]}
            states.append(self._state(removed))
        return states

    def _state(self, removed: Mapping[str, int]) -> Widths:
        return Widths(removed, sum(self._error(name, count) for name, count in removed.items()))

    def _best(self, removed: Mapping[str, int], now: float, cost: Cost) -> tuple[str, int] | None:
        """The cheapest next step as (group, removed in total)."""
        best: tuple[float, str, int] | None = None
        for group in self.groups:
            gone = removed.get(group.name, 0)
            for count in self._choices(group, gone):
                saved = now - cost({**removed, group.name: count})
                rise = self._error(group.name, count) - self._error(group.name, gone)
                if saved > 1e-12 and (best is None or rise / saved < best[0]):
                    best = (rise / saved, group.name, count)
        return None if best is None else best[1:]

    def _choices(self, group: Group, gone: int) -> list[int]:
        """Removed totals that the next step may reach."""
        floor = max(self.multiple, int(np.ceil(KEEP * group.size)))
        start = self._up(group.size - gone)
        widths = [start - step * self.multiple for step in STEPS]
        return sorted({group.size - width for width in widths if floor <= width < group.size - gone})

    def _error(self, name: str, count: int) -> float:
        ranking, sensitivity = self.rankings[name], self.sensitivities.get(name)
        if sensitivity is None:
            return float(ranking.cost[count])
        at_half = float(ranking.cost[sensitivity.half])
        return float(ranking.cost[count]) * (sensitivity.error / at_half if at_half > 0 else 1.0)

    def _up(self, width: int) -> int:
        """The next rewarded width."""
        return self.multiple * -(-max(width, 1) // self.multiple)


def removed_channels(groups: Sequence[Group], rankings: Mapping[str, Ranking], widths: Widths) -> tuple[Cut, ...]:
    """The plan's cuts: for each group the first channels of its ranking, in rising order."""
    return tuple(
        Cut(
            group.name,
            group.size,
            tuple(sorted(int(i) for i in rankings[group.name].order[: widths.removed[group.name]])),
        )
        for group in groups
        if widths.removed.get(group.name, 0) > 0
    )
