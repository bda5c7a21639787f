"""Candidates: models that could be handed over, each judged on hold-out samples; float ones along the ladder of widths.

Pruning: the states that the greedy allocation passes are bisected for the strongest one whose model is acceptable;
the milder ones tried on the way are kept as well, because on some CPUs a milder cut in int8 is as fast. Integer forms
are in :mod:`edgepress.pipeline.integers`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgepress.calibrate.run import outputs
from edgepress.model import Model
from edgepress.pipeline.analysis import Analysis
from edgepress.pipeline.answers import compared
from edgepress.pipeline.build import mark_bytes, pruned
from edgepress.pipeline.context import Context
from edgepress.plan import Cut, Quantization
from edgepress.planner import Widths, count_macs, removed_channels
from edgepress.quality import Comparison, Limit, Verdict, judge

CLOSE_COST = 0.04
"""Bisection stops when an accepted and a refused state differ by no more than this share of their cost."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model that could be handed over, and the decisions that make it.

    Attributes:
        name: short, unique among the candidates.
        label: for people.
        model: what could be handed over.
        cuts: the channels that are gone.
        quantization: how it became integers; None: it did not.
        verdict: on the hold-out samples.
        macs: multiply-adds of one sample.
        parameters: numbers in its float form.
        cost: share of the cost that pruning has left.
        predicted: error that the allocation of bits predicts for its answers; None where there was none.
    """

    name: str
    label: str
    model: Model
    cuts: tuple[Cut, ...]
    quantization: Quantization | None
    verdict: Verdict
    macs: int
    parameters: int
    cost: float = 1.0
    predicted: float | None = None

    @property
    def size(self) -> int:
        """Bytes of the file, with the metadata that it is handed over with."""
        return self.model.size + mark_bytes(self.cuts, self.quantization)


class Judge:
    """Compares candidates with the original model on the hold-out samples."""

    def __init__(self, context: Context, limit: Limit, original_bytes: int) -> None:
        """Judge by the hold-out samples of the context, against a limit; ``original_bytes``: of the file as it came."""
        self.context, self.limit, self.original_bytes = context, limit, original_bytes

    def at(self, share: float) -> Judge:
        """The judge that allows a share of the limit: of the points, or of the noise."""
        floor = self.limit.min_sqnr - 10 * math.log10(share)
        limit = dataclasses.replace(self.limit, max_drop=share * self.limit.max_drop, min_sqnr=floor)
        return Judge(self.context, limit, self.original_bytes)

    def __call__(self, model: Model) -> Verdict:
        """The verdict on a model."""
        return judge(compare(self.context.model, model, self.context), self.limit)


def compare(original: Model, model: Model, context: Context) -> Comparison:
    """Outputs of both models on the hold-out samples."""
    before = outputs(original, context.hold_out, workers=context.workers)
    after = outputs(model, context.hold_out, workers=context.workers)
    return Comparison.join(
        compared(part, mine, theirs, context.row_axes) for (part, mine), (_, theirs) in zip(before, after, strict=True)
    )


def narrower(context: Context, analysis: Analysis, judged: Judge, mac_ratio: float | None = None) -> list[Candidate]:
    """Float candidates, mildest first: acceptable ones only, the strongest found by bisection.

    With ``mac_ratio`` only the mildest state that reaches this share of the multiply-adds is tried; when that costs too
    much the search goes on, for the best that can be had.
    """
    costs = analysis.ladder.costs
    if mac_ratio is not None:
        goal = mac_ratio * costs.macs({})
        reached = [state for state in analysis.ladder.path(costs.macs) if costs.macs(state.removed) <= goal]
        found = [_narrow(context, analysis, judged, state) for state in reached[:1]]
        if found and found[0].verdict.acceptable:
            return found
    states = analysis.ladder.path(costs.blend)
    tried: list[Candidate] = []

    def acceptable(position: int) -> bool:
        tried.append(_narrow(context, analysis, judged, states[position]))
        return tried[-1].verdict.acceptable

    _bisect(acceptable, -np.log([costs.blend(state.removed) for state in states]))
    return sorted((item for item in tried if item.verdict.acceptable), key=lambda item: -item.cost)


def lossless(context: Context, analysis: Analysis, judged: Judge) -> Candidate | None:
    """The model without its dead, constant and exactly dependent channels; None when there are none."""
    widths = analysis.ladder.lossless()
    return _narrow(context, analysis, judged, widths) if widths.removed else None


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One candidate per name: of those whose cost is the same to two digits the strongest (the last) stands for all.

    Models are timed and chosen by name, so names must differ; timing near twins would also tell nothing.
    """
    return list({item.name: item for item in candidates}.values())


def named_apart(candidates: Sequence[Candidate]) -> list[Candidate]:
    """All of them, with a number behind every name that was there before: models are timed and chosen by name."""
    seen: Counter[str] = Counter()
    found = []
    for item in candidates:
        seen[item.name] += 1
        found.append(replace(item, name=f"{item.name}-{seen[item.name]}") if seen[item.name] > 1 else item)
    return found


def _narrow(context: Context, analysis: Analysis, judged: Judge, widths: Widths) -> Candidate:
    ladder = analysis.ladder
    cuts = removed_channels(ladder.groups, ladder.rankings, widths)
    model = pruned(context, cuts)
    cost = ladder.costs.blend(widths.removed)
    return candidate(f"pruned-{cost:.2f}", "pruned fp32", model, cuts, judged(model), context.grouping.sizes, cost)


def candidate(
    name: str,
    label: str,
    model: Model,
    cuts: tuple[Cut, ...],
    verdict: Verdict,
    sizes: Mapping[str, int] | None,
    cost: float = 1.0,
) -> Candidate:
    """A float candidate; ``sizes`` are those of symbolic dimensions (``Grouping.sizes``)."""
    macs = sum(count_macs(model, sizes).values())
    return Candidate(name, label, model, cuts, None, verdict, macs, model.parameters, cost)


def _bisect(acceptable: Callable[[int], bool], depths: np.ndarray) -> None:
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
