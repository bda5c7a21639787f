"""Narrower float models: states of an allocation, built, judged on hold-out samples and searched.

With budgets the mildest state that is predicted to keep them is built; where what is measured of it does not keep them,
the goal is corrected by what was predicted wrong, and the next state built. Without budgets, or where that state costs
too much, the states of the allocation are bisected for the strongest one whose model is acceptable; the milder ones
tried on the way are kept as well, because on some CPUs a milder cut in int8 is as fast. ``anneal`` asks the samples at
every step instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from edgepress.model import Model
from edgepress.pipeline.analysis import Analysis
from edgepress.pipeline.build import mark_bytes, pruned
from edgepress.pipeline.candidates import Candidate, Judge, candidate
from edgepress.pipeline.context import SENSITIVITY_SAMPLES, Context, first
from edgepress.plan import Cut
from edgepress.planner import (
    ALLOCATIONS,
    Budget,
    FileSize,
    Ladder,
    LatencyTable,
    Widths,
    joint,
    output_error,
    removed_channels,
)
from edgepress.planner.anneal import NAME as ANNEAL
from edgepress.planner.anneal import anneal, cheapest_share
from edgepress.planner.cost import Cost
from edgepress.report.result import Pruning

CLOSE_COST = 0.04
"""Bisection stops when an accepted and a refused state differ by no more than this share of their cost."""

Tried = tuple[Widths, Candidate]
Made = dict[tuple[tuple[str, int], ...], Model]
"""Models by the channels that each group lost."""

CORRECTIONS = 3
"""States that are built for budgets, each with the goal corrected by what was measured of the one before."""


@dataclass(frozen=True, slots=True)
class Search:
    """How narrower models are looked for.

    Attributes:
        allocation: its name.
        budgets: what has to be reached; none: as much as quality allows.
        table: measured latency; None without.
        for_file: without budgets go along the weights alone, as only the file counts.
    """

    allocation: str = "hybrid"
    budgets: tuple[Budget, ...] = ()
    table: LatencyTable | None = None
    for_file: bool = False

    def beyond(self, start: Widths) -> Search:
        """The search without budgets that the start is predicted to keep: what is kept asks for nothing."""
        left = tuple(budget for budget in self.budgets if budget.cost(start.removed) > budget.goal)
        return replace(self, budgets=left)

    def cost(self, ladder: Ladder) -> Cost:
        """What the search goes along: the budgets, at most 1 where they are kept, or time and weights together."""
        if self.budgets:
            return joint(self.budgets)
        return ladder.costs.weights if self.for_file else ladder.costs.blend


@dataclass(frozen=True)
class Narrower:
    """Builds and judges the model of a state; ``made`` are models that were built before, by what they lost."""

    context: Context
    analysis: Analysis
    judged: Judge
    table: LatencyTable | None = None
    made: Made = field(default_factory=dict)

    @cached_property
    def size(self) -> FileSize:
        """Bytes of the float file."""
        return FileSize.of(self.context.model, self.analysis.ladder.groups, self.context.model.size)

    def __call__(self, widths: Widths) -> Candidate:
        """The candidate, with what was predicted of it."""
        ladder = self.analysis.ladder
        cuts = removed_channels(ladder.groups, ladder.rankings, widths)
        lost = tuple(sorted(widths.removed.items()))
        model = self.made.setdefault(lost, self.made.get(lost) or pruned(self.context, cuts))
        cost = ladder.costs.blend(widths.removed)
        name, sizes = f"pruned-{cost:.2f}", self.context.grouping.sizes
        return candidate(
            name, "pruned fp32", model, cuts, self.judged(model), sizes, cost, self._predicted(widths, cuts, model)
        )

    def _predicted(self, widths: Widths, cuts: Sequence[Cut], model: Model) -> Pruning:
        costs, original = self.analysis.ladder.costs, self.context.model
        feeds = [part.inputs for part in first(self.context.hold_out, SENSITIVITY_SAMPLES).chunks(SENSITIVITY_SAMPLES)]
        staircase = costs.staircase(widths.removed) / (costs.staircase({}) or 1.0)
        return Pruning(
            error=widths.predicted,
            measured_error=output_error(original, model, feeds),
            file_bytes=round(self.size(widths.removed)) + mark_bytes(cuts, None),
            latency=staircase if self.table is None else self.table.ratio(widths.removed),
            latency_by="analytic" if self.table is None else self.table.level,
        )


def lossless(context: Context, analysis: Analysis, judged: Judge) -> Candidate | None:
    """The model without its dead, constant and exactly dependent channels; None when there are none."""
    widths = analysis.ladder.lossless()
    return Narrower(context, analysis, judged, analysis.table)(widths) if widths.removed else None


def narrower(
    context: Context, analysis: Analysis, judged: Judge, search: Search, made: Made | None = None
) -> list[Candidate]:
    """Float candidates, mildest first: acceptable ones only; ``made`` keeps models for another search."""
    build = Narrower(context, analysis, judged, search.table, {} if made is None else made)
    ladder = analysis.ladder
    search = search.beyond(ladder.lossless())
    if search.allocation == ANNEAL:
        return _annealed(build, ladder, search)
    tried = _reaching(build, ladder, search) if search.budgets else []
    if not tried or not tried[-1][1].verdict.acceptable:
        tried += _bisected(build, ladder, search, tried)
    found = [item for _, item in tried if item.verdict.acceptable]
    return sorted(found, key=lambda item: -item.cost)


def _reaching(build: Narrower, ladder: Ladder, search: Search) -> list[Tried]:
    """States for the budgets, each stronger than the one before, until one keeps them or is not acceptable."""
    allocation, budgets = ALLOCATIONS[search.allocation], search.budgets
    tried: list[Tried] = []
    for _ in range(CORRECTIONS):
        widths = allocation.within(ladder, joint(budgets), 1.0)
        if widths is None or (tried and widths == tried[-1][0]):
            break
        item = build(widths)
        tried.append((widths, item))
        missed = [budget.corrected(widths.removed, item.model) for budget in budgets]
        if not item.verdict.acceptable or not any(missed):
            break
        budgets = tuple(new or old for new, old in zip(missed, budgets, strict=True))
    return tried


def _bisected(build: Narrower, ladder: Ladder, search: Search, before: Sequence[Tried]) -> list[Tried]:
    """The states that bisection tries: those between what was accepted and what was refused before."""
    cost, tried = search.cost(ladder), list[Tried]()
    costs = {True: [math.inf], False: [0.0]}
    for widths, item in before:
        costs[item.verdict.acceptable].append(cost(widths.removed))
    path = ALLOCATIONS[search.allocation].path(ladder, cost)
    states = [state for state in path if max(costs[False]) < cost(state.removed) < min(costs[True])]

    def acceptable(position: int) -> bool:
        tried.append((states[position], build(states[position])))
        return tried[-1][1].verdict.acceptable

    bisect(acceptable, -np.log([cost(state.removed) / cost({}) for state in states]))
    return tried


def _annealed(build: Narrower, ladder: Ladder, search: Search) -> list[Candidate]:
    """The states that annealing keeps."""
    kept: list[Candidate] = []

    def acceptable(widths: Widths) -> bool:
        item = build(widths)
        if item.verdict.acceptable:
            kept.append(item)
        return item.verdict.acceptable

    goal = 1.0 if search.budgets else None
    anneal(ladder.lossless(), cheapest_share(ladder, search.cost(ladder), goal), acceptable)
    return kept


def bisect(acceptable: Callable[[int], bool], depths: np.ndarray) -> None:
    """Close in on the last acceptable position, assuming that acceptance does not come back.

    Args:
        acceptable: tries a position.
        depths: rising depth of every position; halved between the last accepted (at first 0) and the first refused.
    """
    low, high = -1, len(depths)
    while high - low > 1:
        accepted = depths[low] if low >= 0 else 0.0
        refused = depths[high] if high < len(depths) else depths[-1]
        if low >= 0 and high < len(depths) and refused - accepted <= CLOSE_COST:
            return
        middle = int(np.clip(np.searchsorted(depths, (accepted + refused) / 2), low + 1, high - 1))
        if acceptable(middle):
            low = middle
        else:
            high = middle
