"""Candidates: models that could be handed over, each judged on hold-out samples.

Narrower float ones are made in :mod:`edgepress.pipeline.narrowing`, integer forms in
:mod:`edgepress.pipeline.integers`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgepress.calibrate.run import outputs
from edgepress.model import Model
from edgepress.pipeline.answers import compared
from edgepress.pipeline.build import mark_bytes
from edgepress.pipeline.context import Context
from edgepress.plan import Coding, Cut, Quantization
from edgepress.planner import count_macs
from edgepress.quality import Comparison, Limit, Verdict, judge
from edgepress.report.result import Pruning


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
        pruning: what was predicted of its lost channels; None where it lost none.
        coding: how it was rounded for a coded file; None: it was not.
        coded_bytes: of its coded file, where that is what is handed over.
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
    pruning: Pruning | None = None
    coding: Coding | None = None
    coded_bytes: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the file, with the metadata that it is handed over with."""
        if self.coded_bytes is not None:
            return self.coded_bytes
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


def candidate(
    name: str,
    label: str,
    model: Model,
    cuts: tuple[Cut, ...],
    verdict: Verdict,
    sizes: Mapping[str, int] | None,
    cost: float = 1.0,
    pruning: Pruning | None = None,
) -> Candidate:
    """A float candidate; ``sizes`` are those of symbolic dimensions (``Grouping.sizes``)."""
    macs = sum(count_macs(model, sizes).values())
    return Candidate(name, label, model, cuts, None, verdict, macs, model.parameters, cost, pruning=pruning)
