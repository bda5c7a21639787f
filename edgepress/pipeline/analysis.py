"""Which groups may lose channels, what each removal costs, and how much the answer feels it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from edgepress.calibrate.fits import LARGEST_GRAM
from edgepress.calibrate.run import collect
from edgepress.errors import Refusal
from edgepress.groups import Group
from edgepress.pipeline.context import SENSITIVITY_SAMPLES, Context, first
from edgepress.pipeline.passes import passes
from edgepress.planner import Costs, Ladder, Sensitivity, measure
from edgepress.scores import Ranking, Redundancy
from edgepress.scores.base import consumers, readers


@dataclass(frozen=True, slots=True)
class Analysis:
    """The ladder of widths over the groups that may shrink, and why the others may not."""

    ladder: Ladder
    refusals: tuple[Refusal, ...]


def analyze(context: Context) -> Analysis:
    """Rank every prunable group on the original model and measure its sensitivity on hold-out samples."""
    judged = [(group, refusal_of(context, group)) for group in context.grouping.groups]
    groups = [group for group, refusal in judged if refusal is None]
    refusals = [refusal for _, refusal in judged if refusal is not None]
    rankings: dict[str, Ranking] = {}
    sensitivities: dict[str, Sensitivity] = {}
    score = Redundancy(positions=context.positions, seed=context.seed)
    feeds = [part.inputs for part in first(context.hold_out, SENSITIVITY_SAMPLES).chunks(SENSITIVITY_SAMPLES)]
    for batch in passes(groups, lambda group: _need(context, group)):
        probes = {probe.name: probe for group in batch for probe in score.needs(context.model, group)}
        statistics = collect(context.model, context.fit, list(probes.values()), workers=context.workers)
        found = {group.name: score.rank(context.model, group, statistics) for group in batch}
        rankings |= found
        shrinkable = [group for group in batch if group.size >= 2]
        sensitivities |= measure(context.model, shrinkable, found, statistics, feeds, workers=context.workers)
    costs = Costs.of(context.model, groups, context.target, context.grouping)
    return Analysis(Ladder(tuple(groups), rankings, sensitivities, costs, context.multiple), tuple(refusals))


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
