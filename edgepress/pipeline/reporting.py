"""From what a compression found out to its report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgepress import __version__
from edgepress.pipeline.findings import Findings, budgets
from edgepress.pipeline.layers import layers
from edgepress.pipeline.notes import notes
from edgepress.pipeline.variants import variants
from edgepress.report.result import Report, StageRow, average_bits
from edgepress.report.verdict import FASTEST, FEWEST, UNTIMED, Outcome, sentence
from edgepress.request import plan_path


def report(findings: Findings, stages: Sequence[StageRow], output: Path | None = None) -> Report:
    """The report of one compression; without ``output`` nothing was written."""
    request, chosen = findings.request, findings.chosen
    weighed = tuple(variants(findings))
    taken = next(item for item in weighed if item.name == chosen.name)
    rows = tuple(layers(findings.context, findings.normalized.model, chosen, request.keep_float))
    return Report(
        model=str(request.model),
        output=None if output is None else str(output),
        variants=weighed,
        chosen=chosen.name,
        verdict=sentence(
            weighed[0],
            taken,
            outcome=_outcome(findings, output),
            why=_why_cleaned(findings),
            level=findings.level,
            device=request.device,
        ),
        budgets=budgets(request),
        layers=rows,
        weight_bits=average_bits(rows),
        refusals=findings.refusals,
        notes=tuple(notes(findings)),
        stages=tuple(stages),
        machine=findings.place.machine,
        data=_data(findings),
        plan=None if output is None else str(plan_path(output)),
        command=shlex.join(["edgepress", *sys.argv[1:]]),
        next=_next(findings, output),
        versions={
            "edgepress": __version__,
            **{name: version(name) for name in ("onnx", "onnxruntime", "numpy", "torch")},
        },
        seed=request.seed,
        threads=tuple(findings.timing),
        level=findings.level,
        device=request.device,
    )


def _next(findings: Findings, output: Path | None) -> str:
    """The command that decodes or times the result; empty where nothing was written or could be timed."""
    if output is not None and findings.request.for_coding:
        place = output.with_suffix(".onnx")
        place = output.with_suffix(".decoded.onnx") if place.exists() else place
        return shlex.join(["edgepress", "decode", str(output), "-o", str(place)])
    if output is None or (findings.context is not None and findings.context.target.artifact):
        return ""
    device = [] if findings.request.device is None else ["--device", findings.request.device]
    return shlex.join(["edgepress", "bench", str(findings.request.model), str(output), *device])


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
    if not findings.timing or findings.request.for_coding:
        return UNTIMED
    return FASTEST if findings.level == "measured" else FEWEST


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
