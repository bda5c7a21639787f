"""Time the finalists in one interleaved run and choose.

Rule: among the candidates that keep the quality, meet every explicit budget and are not slower than the cleaned
fp32 model (with a budget of size or multiply-adds, a width that is named, or weights that are only stored as integers:
not measurably slower), the fastest; those whose time is the same within the noise compete by file size. If nothing is
left the cleaned fp32 model itself is the answer. Every loser gets the reason. Where a device counts instructions, what
is said of time holds for these. Of coded files the smallest is taken, however fast; ``--speedup`` sets a bound. For a
target that is no CPU nothing is timed: among those that keep the quality and
meet the budgets, the smallest file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.bench import Timing
from edgepress.bench.meter import Meter
from edgepress.model import Model
from edgepress.pipeline.candidates import Candidate
from edgepress.pipeline.sequences import only_stores
from edgepress.request import Request

MOST_TIMED = 9
"""Candidates in the timing run, the cleaned model not counted."""

QUICK = 1.0
"""Seconds of a timing that nothing is chosen by."""

TIE = 0.05
"""Least difference in time that counts; below it the smaller file is worth more. It stands for no noise of the
comparison, which averages over openings and knows its own (``Timing.noise_floor``): a user has one session, and of one
file another session is faster or slower by up to a percent in small networks, by several in a MobileNet."""

COUNTED_TIE = 0.01
"""The same for instructions: counts are exact, but one of a hundred says nothing about time."""

OVER = "over the quality limit on hold-out samples"
UNCERTAIN = "too few hold-out samples to be sure of its quality"


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome: the chosen name, why each candidate was or was not taken, and the budgets that were missed."""

    chosen: str
    reasons: Mapping[str, str]
    missed: str


def time_all(
    candidates: Sequence[Candidate],
    others: Mapping[str, bytes],
    feeds: Sequence[Mapping[str, np.ndarray]],
    request: Request,
    threads: Sequence[int],
    meter: Meter,
) -> dict[int, Timing]:
    """One comparison per thread count; ``others`` holds the cleaned model first, it is the reference."""
    models = {**others, **{candidate.name: candidate.model.data for candidate in candidates}}
    reference = next(iter(others))
    return {
        count: meter.compare(
            models, feeds, threads=count, seconds=request.bench_seconds, seed=request.seed, reference=reference
        )
        for count in threads
    }


def quick_ratio(
    model: Model, reference: Model, feeds: Sequence[Mapping[str, np.ndarray]], request: Request, meter: Meter
) -> float:
    """Time of a model over that of the reference, within a second: to correct a prediction by, not to choose by."""
    models = {"reference": reference.data, "model": model.data}
    timing = meter.compare(
        models, feeds, threads=request.threads or 1, seconds=QUICK, seed=request.seed, reference="reference"
    )
    return ratio_of("model", timing)


def finalists(candidates: Sequence[Candidate]) -> list[Candidate]:
    """At most ``MOST_TIMED``: acceptable ones first, then quantized ones, then the strongest cuts.

    A quantized form is as fast as its float form or faster, and smaller; only the strongest float one is timed as well.
    """
    strongest = [item for item in candidates if item.quantization is None][-1:]

    def rank(item: Candidate) -> tuple[bool, bool, float]:
        return not item.verdict.acceptable, item.quantization is None and item not in strongest, item.cost

    chosen = sorted(candidates, key=rank)[:MOST_TIMED]
    return [item for item in candidates if item in chosen]


def choose(
    candidates: Sequence[Candidate], cleaned: Candidate, timing: Timing | None, request: Request, original_bytes: int
) -> Choice:
    """Apply the rule of this module; ``timing`` is the run that decides, None where times say nothing."""
    reasons: dict[str, str] = {}
    eligible = []
    for candidate in (cleaned, *candidates):
        reason = _unfit(candidate, cleaned, timing, request, original_bytes)
        if reason:
            reasons[candidate.name] = reason
        else:
            eligible.append(candidate)
    if not eligible:
        nearest = _nearest([cleaned, *candidates], timing, request)
        return Choice(nearest.name, reasons, _missed(nearest, cleaned, timing, request, original_bytes))
    chosen = _smallest_of_fastest(eligible, None if request.for_coding else timing)
    for candidate in eligible:
        if candidate is not chosen:
            reasons[candidate.name] = _lost(candidate, chosen, None if request.for_coding else timing)
    return Choice(chosen.name, {**reasons, chosen.name: "written"}, "")


def ratio_of(name: str, timing: Timing | None) -> float:
    """Median time over the reference's; 1 for the reference itself, and where nothing was timed."""
    found = None if timing is None else timing.ratio(name)
    return 1.0 if found is None else found.median


def counts(timing: Timing | None) -> bool:
    """Whether what was taken are instructions, which are no time."""
    return timing is not None and timing.level != "measured"


def tie_of(timing: Timing) -> float:
    """Least difference that counts."""
    return COUNTED_TIE if counts(timing) else TIE


def _unfit(
    candidate: Candidate, cleaned: Candidate, timing: Timing | None, request: Request, original_bytes: int
) -> str:
    """Why a candidate cannot be handed over; empty when it can.

    The cleaned model computes what the original computes, which was checked: no samples are needed to allow it.
    """
    if not candidate.verdict.acceptable and candidate is not cleaned:
        return OVER if candidate.verdict.state == "over" else UNCERTAIN
    ratio = ratio_of(candidate.name, timing)
    if candidate is not cleaned and not request.for_coding and _slower(candidate, timing, request):
        if counts(timing):
            return f"{'more' if ratio >= 1.005 else 'no fewer'} instructions than fp32 ({ratio:.2f} of them)"
        return f"{'slower' if ratio >= 1.005 else 'no faster'} than fp32 ({ratio:.2f} of its time)"
    return _budget(candidate, cleaned, timing, request, original_bytes)


def _slower(candidate: Candidate, timing: Timing | None, request: Request) -> bool:
    """Slower than the cleaned model; only what can be told from noise, when something else than speed is asked for.

    The same for weights that are only stored as integers: what runs is the float model, as fast as itself.
    """
    found = None if timing is None else timing.ratio(candidate.name)
    if found is None or found.median <= 1.0:
        return False
    for_size = request.size_ratio is not None or request.bits is not None or request.activations == "float"
    for_size = for_size or (candidate.quantization is not None and only_stores(candidate.quantization))
    return found.noise == "slower" or not (for_size or request.mac_ratio is not None)


def _budget(
    candidate: Candidate, cleaned: Candidate, timing: Timing | None, request: Request, original_bytes: int
) -> str:
    ratio = ratio_of(candidate.name, timing)
    if request.speedup is not None and 1 / ratio < request.speedup:
        if counts(timing):
            return f"{ratio:.3f} of the instructions, {1 / request.speedup:.3g} was asked for"
        return f"{1 / ratio:.2f} times as fast, {request.speedup:g} was asked for"
    size = candidate.size / original_bytes
    if request.size_ratio is not None and size > request.size_ratio:
        return f"{size:.3f} of the file size, {request.size_ratio:g} was asked for"
    macs = candidate.macs / max(1, cleaned.macs)
    if request.mac_ratio is not None and macs > request.mac_ratio + 1e-9:
        return f"{macs:.3f} of the multiply-adds, {request.mac_ratio:g} was asked for"
    return ""


def _smallest_of_fastest(eligible: Sequence[Candidate], timing: Timing | None) -> Candidate:
    if timing is None:
        return min(eligible, key=lambda item: item.size)
    fastest = min(ratio_of(item.name, timing) for item in eligible)
    slack = math.exp(max(timing.noise_floor, math.log1p(tie_of(timing))))
    tied = [item for item in eligible if ratio_of(item.name, timing) <= fastest * slack]
    return min(tied, key=lambda item: item.size)


def _lost(candidate: Candidate, chosen: Candidate, timing: Timing | None) -> str:
    if timing is None:
        return f"larger ({candidate.size} against {chosen.size} bytes)"
    mine, best = ratio_of(candidate.name, timing), ratio_of(chosen.name, timing)
    if mine > best:
        than = "more instructions" if counts(timing) else "slower"
        return f"{than} than the chosen one ({mine:.2f} against {best:.2f} of fp32)"
    same = "as many instructions" if counts(timing) else "as fast within the noise"
    return f"{same}, but larger ({candidate.size} against {chosen.size} bytes)"


def _nearest(candidates: Sequence[Candidate], timing: Timing | None, request: Request) -> Candidate:
    """The best found when a budget is out of reach: acceptable first, then by what was asked for."""

    def key(item: Candidate) -> tuple[bool, float]:
        if request.speedup is not None:
            return not item.verdict.acceptable, ratio_of(item.name, timing)
        return not item.verdict.acceptable, float(item.macs if request.mac_ratio is not None else item.size)

    return min(candidates, key=key)


def _missed(best: Candidate, cleaned: Candidate, timing: Timing | None, request: Request, original_bytes: int) -> str:
    what = "instructions" if counts(timing) else "time"
    took = "" if timing is None else f"{ratio_of(best.name, timing):.2f} of the fp32 {what}, "
    reason = _unfit(best, cleaned, timing, request, original_bytes)
    return (
        f"No model met the budget within the quality limit: the best found ({best.label}) has {took}"
        f"{best.size / original_bytes:.3f} of the file size and "
        f"{best.macs / max(1, cleaned.macs):.3f} of the multiply-adds ({reason}); "
        "allow more with --max-drop or ask for less."
    )
