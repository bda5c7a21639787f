"""Candidates: float models along the ladder of widths, and their int8 forms, each judged on hold-out samples.

Pruning: the states that the greedy allocation passes are bisected for the strongest one whose model is acceptable;
the milder ones tried on the way are kept as well, because on some CPUs a milder cut in int8 is as fast. Int8:
ranges by minmax or percentile, whichever keeps the answers closer; when that is not close enough a growing prefix
of layers stays float (the layers next to the input feed all others), each length that helps is kept and timed.
Where the CPU is no faster in int8 the weights are stored as int8 and the arithmetic stays float: a quarter of the
file at the speed of float.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.calibrate.run import outputs
from edgepress.model import Model
from edgepress.ops.weighted import WEIGHTED
from edgepress.pipeline.analysis import Analysis
from edgepress.pipeline.answers import compared
from edgepress.pipeline.build import integer, mark_bytes, observed, pruned, rounded
from edgepress.pipeline.context import Context
from edgepress.plan import Cut, Quantization
from edgepress.planner import Widths, count_macs, removed_channels
from edgepress.quality import Comparison, Limit, Verdict, judge
from edgepress.quantize import stays_float

CLOSE_COST = 0.04
"""Bisection stops when an accepted and a refused state differ by no more than this share of their cost."""

PREFIXES = (1, 3, 5, 9, 13)
"""How many weighted layers next to the input may stay float."""

CLOSE_KL = 0.01
CLOSE_SQNR = 30.0
"""Closer than this, no float prefix is tried."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model that could be handed over, and the decisions that make it."""

    name: str
    label: str
    model: Model
    cuts: tuple[Cut, ...]
    quantization: Quantization | None
    verdict: Verdict
    macs: int
    parameters: int
    cost: float = 1.0

    @property
    def size(self) -> int:
        """Bytes of the file, with the metadata that it is handed over with."""
        return self.model.size + mark_bytes(self.cuts, self.quantization)


class Judge:
    """Compares candidates with the original model on the hold-out samples."""

    def __init__(self, context: Context, limit: Limit) -> None:
        """Judge by the hold-out samples of the context, against a limit."""
        self.context, self.limit = context, limit

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


def integers(context: Context, source: Candidate, judged: Judge) -> list[Candidate]:
    """Int8 forms of a float candidate: best ranges, then growing float prefixes while that helps, then stored only."""
    seen = observed(context, source.model)
    base = Quantization(weight_limit=context.target.weight_limit, repair=bool(context.sweep_samples))
    weights = rounded(context, source.model, base, seen)

    def make(settings: Quantization) -> Candidate:
        same = weights if not settings.float_nodes else None
        model = integer(context, source.model, settings, seen, same)
        name, label = _names(source, settings)
        verdict = judged(model)
        return dataclasses.replace(source, name=name, label=label, model=model, quantization=settings, verdict=verdict)

    best = min(
        (make(base), make(dataclasses.replace(base, ranges="percentile"))), key=lambda item: distance(item.verdict)
    )
    found, settings = [best], best.quantization or base
    order = _quantized_order(context, source.model)
    for length in PREFIXES:
        if length >= len(order) or close(found[-1].verdict, source.verdict):
            break
        found.append(make(dataclasses.replace(settings, float_nodes=tuple(order[:length]))))
    found.append(make(dataclasses.replace(base, compute="float")))
    return [item for item in found if item.verdict.acceptable] or [min(found, key=lambda item: distance(item.verdict))]


def _names(source: Candidate, settings: Quantization) -> tuple[str, str]:
    """Name and label of an int8 form."""
    before = "pruned " if source.cuts else ""
    if settings.compute == "float":
        return f"{source.name}-stored", f"{before}fp32, weights stored as int8"
    if not settings.float_nodes:
        return f"{source.name}-int8", f"{before}int8"
    count = len(settings.float_nodes)
    return f"{source.name}-int8-float{count}", f"{before}int8, first {count} layers float"


def distance(verdict: Verdict) -> float:
    """How far a candidate's answers are from the original's: KL, or noise to signal."""
    return -verdict.sqnr if verdict.measure == "sqnr" else verdict.kl


def close(verdict: Verdict, source: Verdict) -> bool:
    """Rounding costs so little, beside what pruning has cost already, that more float layers are not worth trying."""
    if verdict.measure == "sqnr":
        return verdict.sqnr >= min(CLOSE_SQNR, source.sqnr - 1)
    return verdict.kl <= max(CLOSE_KL, 1.25 * source.kl)


def _quantized_order(context: Context, model: Model) -> list[str]:
    """Weighted nodes in graph order that would be int8 by the target's rules."""
    kept = stays_float(model, context.target)
    return [node.name for node in model.nodes if node.op in WEIGHTED and node.name not in kept]
