"""The notes of a report: what the user should know besides the table, one sentence each."""

from __future__ import annotations

import math
from collections.abc import Iterator

from edgepress.pipeline.candidates import Candidate
from edgepress.pipeline.choose import UNCERTAIN, counts, ratio_of
from edgepress.pipeline.findings import Findings
from edgepress.pipeline.given import Given
from edgepress.pipeline.place import Place
from edgepress.planner import LatencyTable
from edgepress.report.costs import WORDS, device_name
from edgepress.report.result import ORIGINAL
from edgepress.targets import Target

SHIPPED_SLOWER = 1.05
"""From this ratio on the report says that the file as shipped is slower than the cleaned one."""


IDLE = 5
"""Names listed of activations whose given range changes nothing."""


def notes(findings: Findings) -> Iterator[str]:
    """Every note."""
    if findings.context is None:
        yield "No samples were given, so nothing was pruned or quantized: the model was only cleaned; pass --data."
    if findings.choice is not None and UNCERTAIN in findings.choice.reasons.values():
        yield "Candidates were refused for want of evidence: more samples in --data would allow a better choice."
    for timing in list(findings.timing.values())[:1]:
        shipped = ratio_of(ORIGINAL, timing)
        if shipped > SHIPPED_SLOWER and counts(timing):
            yield f"The file as it came needs {shipped:.2f} times the instructions of the cleaned fp32 model."
        elif shipped > SHIPPED_SLOWER:
            yield f"The file as it came takes {shipped:.2f} times as long as the cleaned fp32 model all times refer to."
    if findings.request.for_coding:
        yield (
            "File sizes, but for the original and plain int8, are those of coded files: edgepress decode makes ONNX of "
            "them."
        )
        yield from _of_speed(findings)
        yield from _of_channels(findings.chosen)
    if findings.request.rounds_steps and findings.context is not None and not findings.context.sweep_samples:
        yield "Weights were not rounded for the coded file, which needs a network that the torch executor runs."
    if findings.context is not None:
        yield from _of_quality(findings.chosen)
        yield from _of_place(findings.context.place, findings.table)
        yield from _of_target(findings.context.target, findings.context.place)
        yield from _of_overrides(findings.context.given)


def _of_speed(findings: Findings) -> Iterator[str]:
    """Says so where the smallest coded file holds a model that is slower than the cleaned one."""
    timing = findings.timing.get(findings.decisive_threads)
    found = None if timing is None else timing.ratio(findings.chosen.name)
    if found is not None and found.noise == "slower" and findings.chosen.cuts:
        yield (
            f"The model in the coded file takes {found.median:.2f} times as long as the cleaned fp32 model, as its "
            "widths are odd ones: ask for --speedup 1 or --width-multiple 8 to avoid that."
        )


def _of_channels(chosen: Candidate) -> Iterator[str]:
    """Names layers that take more bytes than others, as no step could be chosen for them."""
    names = () if chosen.coding is None else chosen.coding.channels
    if names:
        some = ", ".join(names[:IDLE]) + (", ..." if len(names) > IDLE else "")
        yield f"Layers whose rounding could not be foreseen keep 127 numbers for each channel: {some}."


def _of_quality(chosen: Candidate) -> Iterator[str]:
    verdict = chosen.verdict
    if verdict.measure == "agreement":
        yield f"Without labels quality is agreement with the original; KL of the outputs is {verdict.kl:.4f} nats."
    if chosen.predicted is None:
        return
    if verdict.measure == "sqnr":
        expected = -10 * math.log10(max(chosen.predicted, 1e-20))
        yield (
            f"Bits went where rounding, nothing made up for, was predicted to leave {expected:.1f} dB in all; measured "
            f"are {verdict.sqnr:.1f} dB, with all else that was done."
        )
    else:
        yield (
            f"Bits went where rounding, nothing made up for, was predicted to cost {chosen.predicted:.4f} nats in all; "
            f"measured are {verdict.kl:.4f} nats of KL, with all else that was done."
        )


def _of_place(place: Place, table: LatencyTable | None) -> Iterator[str]:
    """What the choice rests on, where a device was named."""
    if not place.named:
        return
    name, machine = device_name(place.meter.spec), place.machine
    words = WORDS[place.meter.level]
    yield f"Chosen by {words.noun} {words.how} on {name} ({machine.cpu}, onnxruntime {machine.onnxruntime})."
    if table is not None:
        yield f"Widths follow {table.taken} costs of single layers there, {table.known} of them known from before."
        if table.note:
            yield table.note


def _of_target(target: Target, place: Place) -> Iterator[str]:
    here, where = place.cpu, f"there ({place.cpu.name})" if place.named else "on this machine"
    if target.artifact:
        yield (
            f"Made for {target.name}, which this machine is not: nothing was timed, and of what keeps your limit the "
            "smallest was chosen."
        )
    elif not target.timed_on(here):
        yield (
            f"Decided for {target.name}, but timed on this machine, whose times say little about it: time the result "
            "there with edgepress bench."
        )
    elif target != here:
        yield f"Decided for {target.name}, but {'counted' if place.counts else 'timed'} {where}."


def _of_overrides(given: Given) -> Iterator[str]:
    if given.idle:
        names = ", ".join(given.idle[:IDLE]) + (", ..." if len(given.idle) > IDLE else "")
        yield f"Ranges that change nothing, as these activations are never integers here: {names}."
