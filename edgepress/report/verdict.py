"""The verdict: what was won and lost in one sentence, and the state of the limit in another.

Nothing is claimed that was not measured, and no speed-up inside the noise floor of the timing.
"""

from __future__ import annotations

from typing import Literal

from edgepress.devices import Level
from edgepress.report import numbers
from edgepress.report.costs import WORDS, device_name
from edgepress.report.result import CLEANED, Quality, Variant
from edgepress.report.rows import change, speed

Outcome = Literal["written", "dry run", "missed"]

FASTEST = "Nothing was faster within your limit"
FEWEST = "Nothing needed fewer instructions within your limit"
UNTIMED = "Nothing was smaller within your limit"
NOTHING = f"{FASTEST}: the cleaned fp32 model was written."
MARKS = {"within": "✓", "probably within": "≈", "over": "✗"}


def sentence(
    original: Variant,
    chosen: Variant,
    *,
    outcome: Outcome = "written",
    why: str = FASTEST,
    level: Level = "measured",
    device: str | None = None,
) -> str:
    """One sentence on the chosen variant against the original.

    Args:
        original: the model as it came.
        chosen: the variant that was taken.
        outcome: what became of it; ``missed``: a budget was out of reach and nothing is written.
        why: why only the cleaned model is left, if it is.
        level: what costs are worth.
        device: where they were taken; None: on this CPU.
    """
    only_cleaned = chosen.name in (CLEANED, original.name)
    if outcome == "missed":
        best = "the cleaned fp32 model" if only_cleaned else _found(original, chosen, level, device)
        return f"The budget was missed, nothing was written; the best found: {best}."
    if only_cleaned:
        return f"{why}: the cleaned fp32 model {'was' if outcome == 'written' else 'would be'} written."
    text = _found(original, chosen, level, device)
    return f"{text[0].upper()}{text[1:]}."


def _found(original: Variant, chosen: Variant, level: Level, device: str | None) -> str:
    kept = (_size(original, chosen), _quality(chosen.quality))
    if chosen.ratio and level != "measured":
        return ", ".join((_need(chosen, level, device), *kept))
    here = ["on this CPU" if device is None else f"on {device_name(device)}"] if chosen.ratio else []
    return ", ".join((_speed(chosen), *kept, *here))


def _need(chosen: Variant, level: Level, device: str | None) -> str:
    """The share of instructions, and that it is no time."""
    share = numbers.short(chosen.ratio[min(chosen.ratio)].median)
    where = "" if device is None else f", {device_name(device)}"
    return f"needs {share} of the {WORDS[level].noun} of fp32 ({WORDS[level].how}{where}; no time was taken)"


def limit_line(quality: Quality) -> str:
    """How the chosen variant stands to the limit; says how many samples would settle an open question."""
    head = f"{quality.state} your limit: {_against(quality)}"
    if quality.state == "over":
        return f"{head}."
    if quality.state == "probably within" and quality.settle_samples is not None:
        return f"{head}; about {numbers.count(quality.settle_samples, 2)} {_source(quality)} would settle it."
    return f"{head}, on {numbers.count(quality.samples)} {_source(quality)}."


def _speed(chosen: Variant) -> str:
    if not chosen.ratio:
        return "speed not measured"
    word, median, _, _ = speed(chosen.ratio[min(chosen.ratio)])
    as_fast = word == "no difference" or numbers.short(median) == "1.0"
    return "not measurably faster" if as_fast else f"{numbers.short(median)}× {word}"


def _size(original: Variant, chosen: Variant) -> str:
    word, found = change(original.file_bytes, chosen.file_bytes, ("smaller", "larger"))
    return "the same size" if numbers.short(found) == "1.0" else f"{numbers.short(found)}× {word}"


def _quality(quality: Quality | None) -> str:
    if quality is None:
        return "quality not measured"
    if quality.measure == "sqnr":
        return f"signal to noise {numbers.decibel(quality.after)}"
    if quality.measure == "agreement":
        return f"{numbers.percent(quality.after)} of the answers unchanged"
    drop = quality.drop or 0.0
    if numbers.fixed(drop) == "0.00":
        return "equally accurate"
    return f"{numbers.fixed(abs(drop), 1 if abs(drop) >= 0.1 else 2)} points {'less' if drop > 0 else 'more'} accurate"


def _against(quality: Quality) -> str:
    if quality.measure == "sqnr":
        text = f"{numbers.decibel(quality.after)} of at least {numbers.decibel(quality.limit)}"
        return text if quality.after >= numbers.EXACT else text + _interval(quality.low, quality.high, 1, " dB")
    if quality.measure == "agreement":
        found = numbers.DASH if quality.kl is None else numbers.fixed(quality.kl, 4)
        text = f"KL {found} of {numbers.fixed(quality.limit, 4)} nats"
        return text + _interval(quality.kl_low, quality.kl_high, 4, "")
    drop = numbers.DASH if quality.drop is None else numbers.fixed(quality.drop)
    return f"{drop} of {numbers.fixed(quality.limit)} points{_interval(quality.low, quality.high, 2, '')}"


def _interval(low: float | None, high: float | None, decimals: int, unit: str) -> str:
    if low is None or high is None:
        return ""
    return f", 95 % interval {numbers.fixed(low, decimals)} to {numbers.fixed(high, decimals)}{unit}"


def _source(quality: Quality) -> str:
    return "hold-out samples" if quality.source == "hold-out" else "samples of --eval-data"
