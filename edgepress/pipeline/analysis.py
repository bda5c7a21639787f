"""Which groups may lose channels, what each removal costs, and how much the answer feels it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress.calibrate.fits import LARGEST_GRAM
from edgepress.calibrate.statistics import Probe
from edgepress.errors import Refusal
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.pipeline.context import SENSITIVITY_SAMPLES, Context, first
from edgepress.pipeline.observing import observe
from edgepress.pipeline.passes import passes
from edgepress.planner import Costs, Ladder, LatencyTable, Sensitivity, measure
from edgepress.request import SCORE
from edgepress.scores import Elimination, Options, Ranking, Redundancy, Score, order_of
from edgepress.scores.base import consumers, readers
from edgepress.scores.registry import find


@dataclass(frozen=True, slots=True)
class Analysis:
    """The ladder of widths over the groups that may shrink, and why the others may not.

    Attributes:
        ladder: widths and what they cost.
        refusals: why others may not shrink.
        table: the costs of the layers on the device that the user named; None without one.
    """

    ladder: Ladder
    refusals: tuple[Refusal, ...]
    table: LatencyTable | None = None


def analyze(context: Context, score: str = SCORE, *, classifies: bool = False) -> Analysis:
    """Rank every prunable group on the original model and measure its sensitivity on hold-out samples.

    Args:
        context: the compression.
        score: which channels go first (``scores.registry``); what that costs is always the error after a refit.
        classifies: the first output is that of a classifier; gradients of some scores follow its likelihood.
    """
    judged = [(group, refusal_of(context, group)) for group in context.grouping.groups]
    groups = [group for group, refusal in judged if refusal is None]
    refusals = [refusal for _, refusal in judged if refusal is not None]
    rankings: dict[str, Ranking] = {}
    sensitivities: dict[str, Sensitivity] = {}
    ranked = Ranked.of(context, score)
    feeds = [part.inputs for part in first(context.hold_out, SENSITIVITY_SAMPLES).chunks(SENSITIVITY_SAMPLES)]
    for batch in passes(groups, lambda group: _need(context, group)):
        probes = [probe for group in batch for probe in ranked.needs(context.model, group)]
        statistics = observe(
            context.model, context.fit, probes, classifies=classifies, workers=context.workers, seed=context.seed
        )
        found = {group.name: ranked.rank(context.model, group, statistics) for group in batch}
        rankings |= found
        shrinkable = [group for group in batch if group.size >= 2]
        sensitivities |= measure(context.model, shrinkable, found, statistics, feeds, workers=context.workers)
    costs = Costs.of(context.model, groups, context.target, context.grouping)
    return Analysis(Ladder(tuple(groups), rankings, sensitivities, costs, context.multiple), tuple(refusals))


@dataclass(frozen=True, slots=True)
class Ranked:
    """A score that says which channels go first, and redundancy, which says what that costs.

    Attributes:
        chosen: the score.
        errors: what its order costs when the other channels take over.
    """

    chosen: Score
    errors: Redundancy

    @classmethod
    def of(cls, context: Context, score: str) -> Ranked:
        """The score of that name, observed as the context says."""
        options = Options(context.positions, context.seed)
        return cls(find(score, options), Redundancy(context.positions, context.seed))

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """What both observe."""
        return (*self.chosen.needs(model, group), *self.errors.needs(model, group))

    def rank(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> Ranking:
        """The order of the score, lossless channels before all others, and its cost."""
        if isinstance(self.chosen, Elimination):
            return self.chosen.rank(model, group, statistics)
        order = order_of(self.chosen, model, group, statistics)
        return self.errors.along(model, group, statistics, order, free_first=True)


def refusal_of(context: Context, group: Group) -> Refusal | None:
    """Why a group must stay whole; None when it may shrink."""
    if group.refusal is not None:
        return group.refusal
    if not context.sweep_samples:
        return Refusal(group.name, "the torch executor does not run this model, so nothing could be redistributed")
    found = readers(context.model, group)
    if found.refusals:
        first_one = found.refusals[0]
        return Refusal(
            group.name, f"{first_one.what} reads its channels, where nothing can be refitted: {first_one.reason}"
        )
    if not found.fits:
        return Refusal(group.name, "no operator that can be refitted reads its channels")
    widest = max((fit for fit, _ in found.fits), key=lambda fit: fit.columns)
    if widest.columns > LARGEST_GRAM:
        reason = f"its consumer {widest.name} has {widest.columns} columns"
        return Refusal(group.name, f"{reason}: the least-squares fit would need too much memory")
    return None


def _need(context: Context, group: Group) -> int:
    """Bytes of the Grams that rank a group."""
    return sum(8 * (part.columns + 1) ** 2 for fit, _ in consumers(context.model, group) for part in fit.parts)


def shuffled(context: Context) -> Context:
    """The same context with the fit samples in seeded random order, so that any first part is a fair sample."""
    order = np.random.default_rng(context.seed).permutation(len(context.fit))
    return dataclasses.replace(context, fit=context.fit.subset(order))
