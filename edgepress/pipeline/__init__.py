"""compress(): the whole flow, and its smaller sisters apply(), explain(), bench(), calibrate(), merge() and score().

    read > clean > baseline > analyze > prune > quantize > verify > write

Decisions are made on hold-out samples only, every model that is handed over was timed in onnxruntime first, here or on
the device that the user names.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from edgepress.benchmark import bench_files as bench
from edgepress.errors import BudgetMissed, PlanError, Refusal
from edgepress.model import write_atomically
from edgepress.pipeline.analysis import Analysis, analyze
from edgepress.pipeline.budgets import along_device
from edgepress.pipeline.build import as_overrides, integer, kept, material, pruned
from edgepress.pipeline.calibrating import calibrate, merge
from edgepress.pipeline.candidates import Candidate, Judge, candidate, distinct, named_apart
from edgepress.pipeline.choose import choose, finalists, time_all
from edgepress.pipeline.coding import coded, coded_size, save
from edgepress.pipeline.context import Context, first, inputs_of
from edgepress.pipeline.decisions import check_decisions
from edgepress.pipeline.explaining import explain, explain_operator, explain_tensor
from edgepress.pipeline.findings import Findings
from edgepress.pipeline.given import check_kept_float
from edgepress.pipeline.listing import operators
from edgepress.pipeline.narrowing import lossless
from edgepress.pipeline.place import Place, place_of
from edgepress.pipeline.prepare import clean, context_of, limit_of, read
from edgepress.pipeline.proposals import QUANTIZED_WIDTHS, coded_forms, integer_forms, narrow
from edgepress.pipeline.reporting import report
from edgepress.pipeline.scoring import score
from edgepress.plan import Plan
from edgepress.quality import Verdict
from edgepress.quantize import quantize_refusal
from edgepress.quantize.baseline import plain_static_int8
from edgepress.report.progress import Progress, Recorder, Silent
from edgepress.report.result import CLEANED, ORIGINAL, PLAIN_INT8, Applied, Report
from edgepress.request import Request, check_output, plan_path, report_path
from edgepress.scores import Options
from edgepress.scores.registry import find as find_score

__all__ = [
    "apply",
    "bench",
    "calibrate",
    "compress",
    "explain",
    "explain_operator",
    "explain_tensor",
    "merge",
    "operators",
    "score",
]

PLAIN_SAMPLES = 256


def compress(request: Request, progress: Progress | None = None) -> Report:
    """Compress a model within the limits of the request; writes the model, its plan and its report.

    Raises:
        InputError: the model, the samples or the output path cannot be used.
        BudgetMissed: an explicit budget is out of reach; ``report`` describes the best found, nothing is written.
    """
    recorder = Recorder(progress or Silent())
    find_score(request.score, Options(positions=1))  # a name that is none is said before any work
    with place_of(request) as place:
        return _compress(request, place, recorder)


def _compress(request: Request, place: Place, recorder: Recorder) -> Report:
    """The whole flow, at a place."""
    with recorder.stage("read") as stage:
        opened = read(request)
        stage.note(f"{len(opened.model.nodes)} nodes, {opened.model.parameters:,} weights, opset {opened.model.opset}")
    with recorder.stage("clean") as stage:
        normalized = clean(opened)
        check_kept_float(request.keep_float, opened.model, normalized.model)
        stage.note(
            f"{len(normalized.model.nodes)} nodes, {sum(step.changed for step in normalized.steps)} steps did something"
        )
    oldest = kept(normalized.model, request.min_ort)  # here already: what cannot be kept is said before any work
    if opened.feed is None:  # only what needs no samples is done, and the report says so
        only = dataclasses.replace(normalized, model=oldest)
        return _hand_over(request, Findings.start(request, opened, only), recorder)
    with recorder.stage("baseline") as stage:
        context, refusals = context_of(request, normalized.model, opened.feed, place)
        limit = limit_of(request, normalized.model, opened.feed, opened.evaluation)
        judged = Judge(context, limit, opened.model.size)
        cleaned = candidate(CLEANED, "cleaned fp32", context.model, (), judged(opened.model), context.grouping.sizes)
        stage.note(_baseline_note(context, cleaned.verdict))
    findings = Findings.start(request, opened, normalized, context, refusals)
    candidates, analysis = _candidates(request, context, judged, cleaned, recorder)
    with recorder.stage("verify") as stage:
        findings = _verify(request, findings, context, judged, cleaned, candidates, analysis)
        timed = "counted with the original" if place.counts else "timed with the original, interleaved"
        how = timed if findings.timing else f"weighed for {context.target.name}"
        stage.note(f"{len(findings.candidates)} candidates {how}")
    return _hand_over(request, findings, recorder)


def _candidates(
    request: Request, context: Context, judged: Judge, cleaned: Candidate, recorder: Recorder
) -> tuple[list[Candidate], Analysis | None]:
    """Narrower float models, then int8 or coded forms of the unpruned and of the strongest narrower ones."""
    found: list[Candidate] = []
    promising: list[Candidate] = []
    analysis = None
    if request.prune:
        with recorder.stage("analyze") as stage:
            analysis = analyze(context, request.score, classifies=judged.limit.measure != "sqnr")
            analysis = along_device(request, context, analysis)
            stage.note(f"{len(analysis.ladder.groups)} groups may shrink, {len(analysis.refusals)} may not")
        with recorder.stage("prune") as stage:
            free = lossless(context, analysis, judged)
            narrowed = narrow(request, context, analysis, judged)
            kept_whole = [free] if free is not None and free.verdict.acceptable else []
            found, promising = distinct([*kept_whole, *narrowed]), distinct([*narrowed, *kept_whole])
            stage.note(_prune_note(found))
    if (request.wants_integers and quantize_refusal(context.model) is None) or request.rounds_steps:
        with recorder.stage("quantize") as stage:
            whole = integer_forms(request, context, judged, [cleaned, *found[-QUANTIZED_WIDTHS:]])
            coded_ones = coded_forms(request, context, judged, [*promising, cleaned])
            found = named_apart([*found, *whole, *coded_ones])
            stage.note("; ".join(filter(None, (_integer_note(whole), _coded_note(coded_ones)))) or "nothing to round")
    return found, analysis


def _verify(
    request: Request,
    findings: Findings,
    context: Context,
    judged: Judge,
    cleaned: Candidate,
    candidates: list[Candidate],
    analysis: Analysis | None,
) -> Findings:
    """Plain onnxruntime int8 for comparison, one interleaved timing run, the choice."""
    with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
        plain = plain_static_int8(context.model, first(context.fit, PLAIN_SAMPLES), Path(folder))
    others = {CLEANED: context.model.data, ORIGINAL: findings.opened.model.data}
    refusals = list(analysis.refusals if analysis else ())
    plain_verdict = None
    if isinstance(plain, Refusal):
        refusals.append(plain)
    else:
        others[PLAIN_INT8] = plain.data
        plain_verdict = judged(plain)
    cleaned, *timed = (_finished(request, item) for item in (cleaned, *finalists(candidates)))
    timing = {}
    if not context.target.artifact:  # this machine's times say nothing about another device
        feeds = inputs_of(context.hold_out, 16, chunk=1)
        timing = time_all(timed, others, feeds, request, findings.threads, context.place.meter)
    choice = choose(timed, cleaned, timing.get(findings.decisive_threads), request, findings.original_bytes)
    return dataclasses.replace(
        findings,
        candidates=(cleaned, *timed),
        timing=timing,
        choice=choice,
        plain=None if isinstance(plain, Refusal) else plain,
        plain_verdict=plain_verdict,
        refusals=(*findings.refusals, *refusals),
        limit=judged.limit,
        table=None if analysis is None else analysis.table,
    )


def _finished(request: Request, item: Candidate) -> Candidate:
    """A candidate as it would be handed over."""
    model = kept(item.model, request.min_ort)
    size = item.coded_bytes
    if request.for_coding and (size is None or model is not item.model):
        size = coded_size(model)
    return dataclasses.replace(item, model=model, coded_bytes=size)


def _hand_over(request: Request, findings: Findings, recorder: Recorder) -> Report:
    """Write and report what was chosen; a missed budget is raised with its report, and nothing is written."""
    chosen = findings.chosen
    plan = _plan(findings, chosen)
    if findings.choice is not None and findings.choice.missed:
        missed = BudgetMissed(findings.choice.missed)
        missed.report = report(findings, recorder.rows)
        raise missed
    if request.dry_run or request.output is None:
        return report(findings, recorder.rows)
    with recorder.stage("write") as stage:
        write_atomically(plan_path(request.output), plan.to_json().encode())
        save(chosen.model, plan, request.output)
        _save_overrides(findings, chosen)
        stage.note(str(request.output))
    result = report(findings, recorder.rows, request.output)
    write_atomically(report_path(request.output), result.to_json().encode())
    return result


def _save_overrides(findings: Findings, chosen: Candidate) -> None:
    """Ranges and scales of the result, where they are asked for; of a float result there are none."""
    place, context = findings.request.save_overrides, findings.context
    if place is None:
        return
    text = "{}\n"
    if context is not None and chosen.quantization is not None:
        text = as_overrides(context, context.model, chosen.quantization)
    write_atomically(place, text.encode())


def _plan(findings: Findings, chosen: Candidate) -> Plan:
    context = findings.context
    return Plan(
        model_sha256=findings.opened.model.sha256,
        data_sha256="" if findings.opened.feed is None else findings.opened.feed.sha256,
        cuts=chosen.cuts,
        quantization=chosen.quantization,
        coding=chosen.coding,
        seed=findings.request.seed,
        settings={} if context is None else context.settings(),
        provenance=findings.provenance,
        min_ort=findings.request.min_ort,
    )


def apply(
    model: Path, plan: Path, data: str | None, output: Path, recipe: str | None = None, workers: int | None = None
) -> Applied:
    """Replay a plan: the same model, data and plan give the same bytes.

    Raises:
        PlanError: the plan belongs to another model or to other samples.
        InputError: as in :func:`compress`.
    """
    decisions = Plan.load(plan)
    target = str(decisions.settings.get("target", "auto"))
    request = Request(
        model=model,
        output=output,
        data=data,
        recipe=recipe,
        seed=decisions.seed,
        workers=workers,
        target=target,
        prune=bool(decisions.cuts),
        quantize=decisions.quantization is not None,
    )
    check_output(model, output, others=[plan])
    opened = read(request)
    decisions.check_model(opened.model.sha256)
    built = clean(opened).model
    if decisions.cuts or decisions.quantization is not None or decisions.coding is not None:
        if opened.feed is None:
            raise PlanError(
                "This plan redistributes or rounds, which needs samples: give those it was made with by --data."
            )
        if opened.feed.sha256 != decisions.data_sha256:
            raise PlanError("The plan was made with other samples: give the same --data, or make a new plan.")
        context, _ = context_of(request, built, opened.feed)
        if dict(decisions.settings) != context.settings():
            raise PlanError("The plan was made with other settings of edgepress: make a new plan with this version.")
        check_decisions(context, decisions)
        if decisions.coding is not None:
            built = coded(context, decisions.cuts, decisions.coding).model
        else:
            built = pruned(context, decisions.cuts)
        if decisions.quantization is not None:
            made = material(context, decisions.cuts, built, decisions.quantization)
            built = integer(context, made, decisions.quantization)
    size = save(kept(built, decisions.min_ort), decisions, output)
    return Applied(str(output), size, f"plan {plan.name} applied")


def _baseline_note(context: Context, verdict: Verdict) -> str:
    samples = f"{len(context.fit)} samples to fit, {len(context.hold_out)} held out"
    return samples + (f", accuracy {verdict.before:.2f} %" if verdict.measure == "accuracy" else "")


def _integer_note(found: list[Candidate]) -> str:
    kept_ones = sum(item.verdict.acceptable for item in found)
    return f"{len(found)} int8 forms, {kept_ones} keep the quality" if found else ""


def _coded_note(found: list[Candidate]) -> str:
    if not found:
        return ""
    return f"{len(found)} coded forms, down to {min(item.size for item in found):,} bytes"


def _prune_note(found: list[Candidate]) -> str:
    return (
        f"down to {found[-1].macs / 1e6:.3g} M MACs, {found[-1].parameters:,} weights" if found else "nothing to remove"
    )
