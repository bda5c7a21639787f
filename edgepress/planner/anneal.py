"""Annealed removal: a share of the cheapest channels at a time, each time asking the hold-out samples.

    loop    remove the p % cheapest units of all groups, redistribute
            keep it if the hold-out samples accept, else halve p              p from 10 % down

Cheapest is what raises the predicted error least per unit of cost, over all groups. Every state is built from the
original network: orders are those of the original, and the refit makes up for all that is gone at once.
Source: Shah, Olivier and Raj 2020 (removal is annealed there between steps of training); the loop on a trained network
is ours.
Guarantee: every state kept was accepted, each is narrower than the one before, and nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Callable

from edgepress.planner.allocations.greedy import descend
from edgepress.planner.cost import Cost
from edgepress.planner.widths import Ladder, Widths

NAME = "anneal"
"""What the user types after ``--allocation``."""

SHARE = 0.1
"""Share of the channels left that the first step removes."""

LEAST = 0.02
"""Smaller shares are not tried: another model is built and judged for each."""

Thinner = Callable[[Widths, float], Widths | None]
"""From a state and a share to a narrower one; None where there is none."""


def anneal(start: Widths, thinner: Thinner, acceptable: Callable[[Widths], bool]) -> list[Widths]:
    """The states that were kept, mildest first.

    Args:
        start: where to begin; it counts as accepted.
        thinner: removes a share of the cheapest channels.
        acceptable: asks the hold-out samples.
    """
    kept: list[Widths] = []
    refused: list[Widths] = []
    state, share = start, SHARE
    while share >= LEAST:
        tried = thinner(state, share)
        if tried is None:
            break
        if tried not in refused and acceptable(tried):
            state = tried
            kept.append(tried)
        else:
            refused.append(tried)
            share /= 2
    return kept


def cheapest_share(ladder: Ladder, cost: Cost, goal: float | None = None) -> Thinner:
    """Thins along the cheapest steps of all groups.

    Args:
        ladder: the groups.
        cost: what a step saves.
        goal: a cost that is low enough: no step is taken from there on.
    """

    def thinner(state: Widths, share: float) -> Widths | None:
        if goal is not None and cost(state.removed) <= goal:
            return None
        left = _left(ladder, state)
        found = None
        for found in descend(ladder, state.removed, cost, ladder.error):
            reached = goal is not None and cost(found.removed) <= goal
            if reached or left - _left(ladder, found) >= share * left:
                break
        return found

    return thinner


def _left(ladder: Ladder, state: Widths) -> int:
    """Channels of all groups that are left."""
    return sum(group.size - state.removed.get(group.name, 0) for group in ladder.groups)
