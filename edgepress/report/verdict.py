"""The verdict: what was won and lost in one sentence, and the state of the limit in another.

Nothing is claimed that was not measured, and no speed-up inside the noise floor of the timing.
"""

from __future__ import annotations

from edgepress.report import numbers
from edgepress.report.result import CLEANED, Quality, Variant
from edgepress.report.rows import change, speed

NOTHING = "Nothing was faster within your limit: the cleaned fp32 model was written."
MARKS = {"within": "✓", "probably within": "≈", "over": "✗"}


def sentence(original: Variant, chosen: Variant, *, written: bool = True) -> str:
    """One sentence on the chosen variant against the original.

    Args:
        original: the model as it came.
        chosen: the variant that was taken.
        written: False for a dry run.
    """
    if chosen.name in (CLEANED, original.name):
        return NOTHING if written else NOTHING.replace("was written", "would be written")
    parts = (_speed(chosen), _size(original, chosen), _quality(chosen.quality))
    text = ", ".join(parts) + ", on this CPU."
    return text[0].upper() + text[1:]


def limit_line(quality: Quality) -> str:
    """How the chosen variant stands to the limit; says how many samples would settle an open question."""
    head = f"{quality.state} your limit: {_against(quality)}"
    if quality.state == "over":
        return f"{head}."
    if quality.state == "probably within" and quality.settle_samples is not None:
        return f"{head}; about {numbers.count(quality.settle_samples, 2)} samples would settle it."
    return f"{head}, on {numbers.count(quality.samples)} {_source(quality)}."


def _speed(chosen: Variant) -> str:
    if not chosen.ratio:
        return "speed not measured"
    word, median, _, _ = speed(chosen.ratio[min(chosen.ratio)])
    return "not measurably faster" if word == "no difference" else f"{numbers.short(median)}× {word}"


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
        return text + _interval(quality.low, quality.high, 1, " dB")
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
