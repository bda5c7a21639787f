"""Rows: the table of a report as raw numbers, one row per fact, derived once for terminal, pipe and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from edgepress.bench import Ratio
from edgepress.devices import Level
from edgepress.report import numbers
from edgepress.report.costs import WORDS
from edgepress.report.result import ORIGINAL, PLAIN_INT8, Quality, Report, Variant

Unit = Literal["ms", "millions", "percent", "dB", "bytes", "count"]

CHOSEN = "edgepress"
PLAIN = "plain int8"

_LABELS = {"accuracy": "accuracy", "agreement": "same answer", "sqnr": "signal/noise"}


@dataclass(frozen=True, slots=True)
class Row:
    """One fact about the original, plain int8 and the chosen variant.

    Attributes:
        key: for programs.
        label: for people.
        unit: of the values.
        values: by column; None where it was not measured.
        change: a factor of 1 or more, or points; None if nothing can be said.
        word: what the change is: ``faster``, ``fewer``, ``smaller``, ``points``, ``no difference``, ``same`` ...
        low: lower end of the 95 % interval of the change; None for facts that are exact.
        high: upper end of it.
    """

    key: str
    label: str
    unit: Unit
    values: Mapping[str, float | None]
    change: float | None
    word: str
    low: float | None = None
    high: float | None = None


def columns(report: Report) -> dict[str, Variant]:
    """The variants the table shows, by heading; plain int8 only if it is there and was not the one chosen."""
    found = {ORIGINAL: report.original}
    plain = report.variant(PLAIN_INT8)
    if plain is not None and plain.name != report.chosen:
        found[PLAIN] = plain
    if report.taken is not report.original:
        found[CHOSEN] = report.taken
    return found


def rows(report: Report) -> tuple[Row, ...]:
    """Every row of the report: costs, quality, file, MACs, parameters."""
    shown = columns(report)
    found = [_latency(shown, threads, report.level) for threads in sorted(report.original.latency)]
    if report.original.analytic is not None:
        found.append(_analytic(shown))
    quality = report.taken.quality
    if quality is not None:
        found.append(_quality(shown, quality))
    found.append(_factor("file", "file", "bytes", shown, lambda v: v.file_bytes, ("smaller", "larger")))
    if report.original.macs is not None:
        found.append(_factor("macs", "MACs", "count", shown, lambda v: v.macs, ("fewer", "more")))
    found.append(_factor("parameters", "parameters", "count", shown, lambda v: v.parameters, ("fewer", "more")))
    return tuple(found)


def speed(ratio: Ratio, level: Level = "measured") -> tuple[str, float, float, float]:
    """A ratio in words: faster (of what is no time: fewer), slower (more) or no difference; and median, low and high.

    Without a difference the factor is that of the speed-up, so its interval lies around 1.
    """
    noise = "no difference" if numbers.factor(max(ratio.median, 1 / ratio.median)) == "1.00×" else ratio.noise
    word = WORDS[level].change(noise)
    if noise == "slower":
        return word, ratio.median, ratio.low, ratio.high
    return word, 1 / ratio.median, 1 / ratio.high, 1 / ratio.low


def change(before: float, after: float, words: tuple[str, str]) -> tuple[str, float]:
    """The factor between two exact values, at least 1, and its word: less, more or ``same``."""
    if before == after or not before or not after:
        return "same" if before == after else words[before < after], 1.0
    found = max(before / after, after / before)
    return words[before < after], found


def _latency(shown: Mapping[str, Variant], threads: int, level: Level) -> Row:
    values = {name: v.latency[threads].p50 if threads in v.latency else None for name, v in shown.items()}
    ratio = shown[CHOSEN].ratio.get(threads) if CHOSEN in shown else None
    if level != "measured":  # a count has no interval
        word, median, _, _ = ("", None, None, None) if ratio is None else speed(ratio, level)
        return Row(WORDS[level].noun, f"{WORDS[level].noun}, {WORDS[level].how}", "millions", values, median, word)
    key, label = f"latency_{threads}", f"time, {threads} thread{'s' * (threads > 1)}"
    if ratio is None:
        return Row(key, label, "ms", values, None, "")
    word, median, low, high = speed(ratio)
    return Row(key, label, "ms", values, median, word, low, high)


def _analytic(shown: Mapping[str, Variant]) -> Row:
    """Instructions that multiply-adds take at the least, where nothing was taken on a machine of the target's kind."""
    words = WORDS["analytic"]
    label = f"{words.noun}, {words.how}"
    return _factor(words.noun, label, "millions", shown, lambda v: v.analytic, (words.less, words.more))


def _quality(shown: Mapping[str, Variant], quality: Quality) -> Row:
    label = _LABELS[quality.measure]
    values = {name: _same_measure(variant.quality, quality) for name, variant in shown.items()}
    values[ORIGINAL] = None if quality.measure == "sqnr" else quality.before
    if quality.measure == "sqnr":
        exact = quality.after >= numbers.EXACT
        low, high = (None, None) if exact else (quality.low, quality.high)
        return Row("sqnr", label, "dB", values, None, "", low, high)
    if quality.drop is None:
        return Row(quality.measure, label, "percent", values, None, "")
    low, high = _negated(quality.high), _negated(quality.low)
    return Row(quality.measure, label, "percent", values, _negated(quality.drop), "points", low, high)


def _negated(value: float | None) -> float | None:
    """The other sign, but no -0 and no dust of rounding."""
    return None if value is None else round(-value, 9) + 0.0


def _same_measure(found: Quality | None, wanted: Quality) -> float | None:
    return found.after if found is not None and found.measure == wanted.measure else None


def _factor(
    key: str,
    label: str,
    unit: Unit,
    shown: Mapping[str, Variant],
    value: Callable[[Variant], float | None],
    words: tuple[str, str],
) -> Row:
    values: dict[str, float | None] = {name: value(variant) for name, variant in shown.items()}
    before, after = values[ORIGINAL], values.get(CHOSEN)
    if before is None or after is None:
        return Row(key, label, unit, values, None, "")
    word, found = change(before, after, words)
    return Row(key, label, unit, values, found, word)
