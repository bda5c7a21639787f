"""From what a compression found out to its report."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgepress import __version__, runtime, targets
from edgepress.bench import Timing, describe
from edgepress.errors import Refusal
from edgepress.model import Model
from edgepress.normalize import Normalized
from edgepress.pipeline.candidates import Candidate, candidate, compare
from edgepress.pipeline.choose import UNCERTAIN, Choice, ratio_of
from edgepress.pipeline.context import Context
from edgepress.pipeline.layers import layers
from edgepress.pipeline.prepare import Opened, with_evaluation
from edgepress.quality import Comparison, Limit, Verdict, judge
from edgepress.report.result import (
    CLEANED,
    ORIGINAL,
    PLAIN_INT8,
    Quality,
    Report,
    StageRow,
    Variant,
)
from edgepress.report.verdict import FASTEST, Outcome, sentence
from edgepress.request import Request, plan_path

SHIPPED_SLOWER = 1.05
"""From this ratio on the report says that the file as shipped is slower than the cleaned one."""


@dataclass(frozen=True)
class Findings:
    """Everything the stages found out, before it is put into words."""

    request: Request
    opened: Opened
    normalized: Normalized
    context: Context | None
    limit: Limit | None
    candidates: tuple[Candidate, ...]
    timing: Mapping[int, Timing]
    choice: Choice | None
    plain: Model | None
    plain_verdict: Verdict | None
    refusals: tuple[Refusal, ...]
    provenance: Mapping[str, Any]

    @classmethod
    def start(
        cls,
        request: Request,
        opened: Opened,
        normalized: Normalized,
        context: Context | None = None,
        refusals: Sequence[Refusal] = (),
    ) -> Findings:
        """What is known before anything was tried."""
        skipped = [Refusal(step.name, step.skipped) for step in normalized.steps if step.skipped]
        return cls(
            request=request,
            opened=opened,
            normalized=normalized,
            context=context,
            limit=None,
            candidates=(),
            timing={},
            choice=None,
            plain=None,
            plain_verdict=None,
            refusals=(*skipped, *refusals),
            provenance={"version": __version__, "budgets": _budgets(request)},
        )

    @property
    def original_bytes(self) -> int:
        """Size of the model as it came, weights inside."""
        return self.opened.model.size

    @property
    def threads(self) -> tuple[int, ...]:
        """Thread counts to time: one, and what was asked for or all cores."""
        return tuple(sorted({1, self.request.threads or describe().cores}))

    @property
    def decisive_threads(self) -> int:
        """The count the choice is made by: one, unless the user names another."""
        return self.request.threads or 1

    @property
    def chosen(self) -> Candidate:
        """The candidate that was chosen; the cleaned model when nothing was tried."""
        if self.choice is None:
            return candidate(CLEANED, "cleaned fp32", self.normalized.model, (), never_measured(), None)
        return next(item for item in self.candidates if item.name == self.choice.chosen)


def never_measured() -> Verdict:
    """Verdict of a model that was only cleaned, without samples: nothing was measured."""
    nothing = np.zeros(1)
    same = Comparison(np.zeros(1, bool), nothing, None, np.ones((1, 1)), nothing[:, None])
    return dataclasses.replace(judge(same, Limit("sqnr", 0.0, 0.0)), samples=0)


def report(findings: Findings, stages: Sequence[StageRow], output: Path | None = None) -> Report:
    """The report of one compression; without ``output`` nothing was written."""
    request, chosen = findings.request, findings.chosen
    variants = tuple(_variants(findings))
    taken = next(item for item in variants if item.name == chosen.name)
    return Report(
        model=str(request.model),
        output=None if output is None else str(output),
        variants=variants,
        chosen=chosen.name,
        verdict=sentence(variants[0], taken, outcome=_outcome(findings, output), why=_why_cleaned(findings)),
        budgets=_budgets(request),
        layers=tuple(layers(findings.context, findings.normalized.model, chosen)),
        refusals=findings.refusals,
        notes=tuple(_notes(findings)),
        stages=tuple(stages),
        machine=describe(),
        data=_data(findings),
        plan=None if output is None else str(plan_path(output)),
        command=shlex.join(["edgepress", *sys.argv[1:]]),
        next="" if output is None else shlex.join(["edgepress", "bench", str(request.model), str(output)]),
        versions={
            "edgepress": __version__,
            **{name: version(name) for name in ("onnx", "onnxruntime", "numpy", "torch")},
        },
        seed=request.seed,
        threads=tuple(findings.timing),
    )


def _outcome(findings: Findings, output: Path | None) -> Outcome:
    if findings.choice is not None and findings.choice.missed:
        return "missed"
    return "dry run" if output is None else "written"


def _why_cleaned(findings: Findings) -> str:
    """Why nothing better than the cleaned model is left, if that is what was chosen."""
    if findings.context is None:
        return "Without samples nothing could be pruned or quantized"
    if not findings.request.prune and not findings.request.quantize:
        return "Neither pruning nor quantization was allowed"
    tried = findings.candidates[1:]
    if tried and not any(item.verdict.acceptable for item in tried):
        return "Nothing was sure to keep your limit"
    return FASTEST


def _budgets(request: Request) -> dict[str, float | None]:
    return {
        "max_drop": request.max_drop,
        "min_sqnr": request.min_sqnr,
        "mac_ratio": request.mac_ratio,
        "size_ratio": request.size_ratio,
        "speedup": request.speedup,
    }


def _variants(findings: Findings) -> list[Variant]:
    """The original first, then plain int8, then every candidate."""
    cleaned = findings.candidates[0] if findings.candidates else findings.chosen
    macs, parameters = cleaned.macs, findings.opened.model.parameters
    times = {n: timing.latency(CLEANED) for n, timing in findings.timing.items()}
    found = [
        Variant(
            ORIGINAL,
            "original (times: cleaned fp32)",
            findings.original_bytes,
            macs,
            parameters,
            None,
            times,
            {},
            runtime.fused_operators(findings.opened.model.data),
            "the model as it came",
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
    return [*found, *(_of_candidate(findings, item, reasons.get(item.name, "written")) for item in every)]


def _of_candidate(findings: Findings, item: Candidate, reason: str) -> Variant:
    return _variant(
        findings, item.name, item.label, item.model, item.size, item.macs, item.parameters, item.verdict, reason
    )


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


def _notes(findings: Findings) -> list[str]:
    notes = []
    if findings.context is None:
        notes.append(
            "No samples were given, so nothing was pruned or quantized: the model was only cleaned; pass --data."
        )
    if findings.choice is not None and UNCERTAIN in findings.choice.reasons.values():
        notes.append(
            "Candidates were refused for want of evidence: more samples in --data would allow a better choice."
        )
    for timing in list(findings.timing.values())[:1]:
        shipped = ratio_of(ORIGINAL, timing)
        if shipped > SHIPPED_SLOWER:
            notes.append(
                f"The file as it came takes {shipped:.2f} times as long as the cleaned fp32 model all times refer to."
            )
    decided = findings.chosen.verdict
    if findings.context is not None and decided.measure == "agreement":
        notes.append(
            f"Without labels quality is agreement with the original; KL of the outputs is {decided.kl:.4f} nats."
        )
    if findings.context is not None and findings.context.target != targets.detect():
        notes.append(f"Decided for {findings.context.target.name}, but timed on this machine.")
    return notes


def _data(findings: Findings) -> dict[str, Any]:
    context, opened = findings.context, findings.opened
    if context is None or opened.feed is None:
        return {"source": None}
    return {
        "source": findings.request.data,
        "sha256": opened.feed.sha256,
        "fit": len(context.fit),
        "hold_out": len(context.hold_out),
        "labelled": opened.feed.labels is not None,
        "evaluation": findings.request.eval_data,
    }
