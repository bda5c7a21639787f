"""How wide groups may stay, and what each width is predicted to cost the answer.

    error_g(k) = curve_g[k] * sensitivity_g / curve_g[half_g]        error = sum over g of error_g(k_g)

Kept widths are multiples of the target's multiple; at least a tenth of a group stays. A group no wider than one
multiple is left alone, except for lossless removals when the multiple is 1. Which widths to take is the matter of
:mod:`edgepress.planner.allocations`.

The sum is a prediction of the mean squared change of the outputs, relative to their variance: each term is measured at
half the width, with this group alone pruned, and follows the group's curve elsewhere. Changes of several groups count
as uncorrelated, and that later layers are refitted to what earlier ones lost is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.groups import Group
from edgepress.plan import Cut
from edgepress.planner.cost import Costs
from edgepress.planner.sensitivity import Sensitivity
from edgepress.scores.base import Ranking

KEEP = 0.1


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels removed per group, and what the curves predict for it."""

    removed: Mapping[str, int]
    predicted: float


@dataclass(frozen=True, slots=True)
class Ladder:
    """Everything an allocation needs: which widths there are, and what they cost the answer."""

    groups: tuple[Group, ...]
    rankings: Mapping[str, Ranking]
    sensitivities: Mapping[str, Sensitivity]
    costs: Costs
    multiple: int

    def lossless(self) -> Widths:
        """Only what is free: dead, constant and exactly dependent channels, down to a rewarded width."""
        removed = {}
        for group in self.groups:
            width = self.up(group.size - self.rankings[group.name].free)
            if width < group.size:
                removed[group.name] = group.size - width
        return Widths(removed, 0.0)

    def choices(self, group: Group) -> list[int]:
        """Every number of channels that a group may lose, rising; the first is what is lossless."""
        free = self.lossless_of(group)
        floor = self.floor(group)
        widths = range(self.up(group.size - free), 0, -self.multiple)
        return [free, *(group.size - width for width in widths if floor <= width < group.size - free)]

    def lossless_of(self, group: Group) -> int:
        """Channels of one group that :meth:`lossless` removes."""
        return max(0, group.size - self.up(group.size - self.rankings[group.name].free))

    def floor(self, group: Group) -> int:
        """The least width."""
        return max(self.multiple, int(np.ceil(KEEP * group.size)))

    def up(self, width: int) -> int:
        """The next rewarded width."""
        return self.multiple * -(-max(width, 1) // self.multiple)

    def state(self, removed: Mapping[str, int]) -> Widths:
        """A state with its prediction; groups that lose nothing are left out."""
        kept = {name: count for name, count in removed.items() if count}
        return Widths(kept, sum(self.error(name, count) for name, count in kept.items()))

    def error(self, name: str, count: int) -> float:
        """Predicted error of the answer with the first ``count`` channels of one group gone."""
        sensitivity, curve = self.sensitivities.get(name), self.curve(name, count)
        if sensitivity is None:
            return curve
        at_half = self.curve(name, sensitivity.half)
        return curve * (sensitivity.error / at_half if at_half > 0 else 1.0)

    def curve(self, name: str, count: int) -> float:
        """Squared error of the outputs of the layers that read the group."""
        return float(self.rankings[name].cost[count])


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
