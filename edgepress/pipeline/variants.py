"""The variants of a report: size, quality, times and verdict of every model that was weighed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from edgepress import runtime
from edgepress.model import Model
from edgepress.pipeline.candidates import Candidate, compare
from edgepress.pipeline.context import Context
from edgepress.pipeline.findings import Findings
from edgepress.pipeline.layers import integer_nodes
from edgepress.pipeline.prepare import with_evaluation
from edgepress.planner import Costs, instructions
from edgepress.quality import Limit, Verdict, judge
from edgepress.report.result import CLEANED, ORIGINAL, PLAIN_INT8, Pruning, Quality, Variant


def variants(findings: Findings) -> list[Variant]:
    """The original first, then plain int8, then every candidate."""
    cleaned = findings.candidates[0] if findings.candidates else findings.chosen
    lanes = Lanes.of(findings.context)
    macs, parameters = cleaned.macs, findings.opened.model.parameters
    times = {n: timing.latency(CLEANED) for n, timing in findings.timing.items()}
    found = [
        Variant(
            ORIGINAL,
            f"original ({'counts' if findings.place.counts else 'times'}: cleaned fp32)",
            findings.original_bytes,
            macs,
            parameters,
            None,
            times,
            {},
            runtime.fused_operators(findings.opened.model.data),
            "the model as it came",
            analytic=lanes.shown(cleaned),
        )
    ]
    if findings.plain is not None and findings.plain_verdict is not None:
        found.append(
            _variant(
                findings,
                PLAIN_INT8,
                "plain onnxruntime int8",
                findings.plain,
                findings.plain.size,
                macs,
                parameters,
                findings.plain_verdict,
                "for comparison",
            )
        )
    reasons = {} if findings.choice is None else findings.choice.reasons
    every = findings.candidates or (findings.chosen,)
    return [*found, *(_of_candidate(findings, item, reasons.get(item.name, "written"), lanes) for item in every)]


@dataclass(frozen=True, slots=True)
class Lanes:
    """Instructions of candidates by the lanes of the target; None without samples."""

    context: Context | None
    costs: Costs | None

    @classmethod
    def of(cls, context: Context | None) -> Lanes:
        """Those of a compression."""
        if context is None:
            return cls(None, None)
        grouping = context.grouping
        return cls(context, Costs.of(context.model, grouping.groups, context.target, grouping))

    def __call__(self, item: Candidate) -> float | None:
        """Millions of instructions of a candidate at the least; None where nothing is known of them."""
        if self.context is None or self.costs is None:
            return None
        removed = {cut.group: len(cut.removed) for cut in item.cuts}
        return instructions(self.costs, removed, integer_nodes(self.context, self.context.model, item.quantization))

    def ratio(self, item: Candidate) -> float | None:
        """The same over those of the float model."""
        found, whole = self(item), None if self.costs is None else instructions(self.costs, {})
        return found / whole if found is not None and whole else None

    def shown(self, item: Candidate) -> float | None:
        """The same where no costs were taken on a machine of the target's kind."""
        if self.context is None or self.context.target.timed_on(self.context.place.cpu):
            return None
        return self(item)


def _of_candidate(findings: Findings, item: Candidate, reason: str, lanes: Lanes) -> Variant:
    made = _variant(
        findings, item.name, item.label, item.model, item.size, item.macs, item.parameters, item.verdict, reason
    )
    pruning = _pruning(item, lanes)
    return dataclasses.replace(made, predicted=item.predicted, pruning=pruning, analytic=lanes.shown(item))


def _pruning(item: Candidate, lanes: Lanes) -> Pruning | None:
    """What was predicted of a candidate's lost channels; of an integer form, less."""
    if item.pruning is None or item.quantization is None:
        return item.pruning
    latency = lanes.ratio(item) if item.pruning.latency_by == "analytic" else None
    return dataclasses.replace(item.pruning, measured_error=None, file_bytes=None, latency=latency)


def _variant(
    findings: Findings,
    name: str,
    label: str,
    model: Model,
    size: int,
    macs: int,
    parameters: int,
    verdict: Verdict,
    reason: str,
) -> Variant:
    ratios = {n: timing.ratio(name) for n, timing in findings.timing.items()}
    return Variant(
        name=name,
        label=label,
        file_bytes=size,
        macs=macs,
        parameters=parameters,
        quality=_quality(findings, model, verdict, name),
        latency={n: timing.latency(name) for n, timing in findings.timing.items()},
        ratio={n: ratio for n, ratio in ratios.items() if ratio is not None},
        operators=runtime.fused_operators(model.data),
        verdict=reason,
    )


def _quality(findings: Findings, model: Model, verdict: Verdict, name: str) -> Quality | None:
    """Quality on the evaluation samples when they were given (chosen and plain only), else on the hold-out ones."""
    if not verdict.samples:
        return None
    evaluation, limit = findings.opened.evaluation, findings.limit
    shown = (findings.chosen.name, PLAIN_INT8)
    if evaluation is None or findings.context is None or limit is None or name not in shown:
        return _as_quality(verdict, "hold-out")
    judged = judge(
        compare(findings.opened.model, model, with_evaluation(findings.context, evaluation)),
        _evaluated(findings, limit),
    )
    return _as_quality(judged, "eval-data")


def _evaluated(findings: Findings, limit: Limit) -> Limit:
    """The limit on evaluation samples: by accuracy when they have labels, by agreement when they have none."""
    evaluation = findings.opened.evaluation
    if limit.measure == "sqnr" or evaluation is None:
        return limit
    return Limit("agreement" if evaluation.labels is None else "accuracy", limit.max_drop, limit.min_sqnr)


def _as_quality(verdict: Verdict, source: Literal["hold-out", "eval-data"]) -> Quality:
    """A verdict in the terms of the report: what the user reads as lost, and what decided."""
    sqnr, labelled = verdict.measure == "sqnr", verdict.measure == "accuracy"
    floor = verdict.after + verdict.loss
    changed = 100 - verdict.agreement, 100 - verdict.agreement_high, 100 - verdict.agreement_low
    lost = (verdict.loss, verdict.low, verdict.high) if labelled else changed
    drop, low, high = (None, floor - verdict.high, floor - verdict.low) if sqnr else lost
    return Quality(
        measure=verdict.measure,
        samples=verdict.samples,
        before=verdict.before,
        after=verdict.after,
        drop=drop,
        low=low,
        high=high,
        agreement=None if sqnr else verdict.agreement,
        kl=None if sqnr else verdict.kl,
        sqnr_db=verdict.sqnr,
        state=verdict.state,
        settle_samples=verdict.settle,
        limit=floor if sqnr else verdict.allowed,
        source=source,
        kl_low=None if sqnr or labelled else verdict.low,
        kl_high=None if sqnr or labelled else verdict.high,
    )
