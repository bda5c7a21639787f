"""The report of a compression on a terminal: verdict, limit, table, what was left, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from edgepress.devices import Level
from edgepress.errors import Refusal
from edgepress.report import layout, numbers
from edgepress.report.costs import MILLION, WORDS, amount
from edgepress.report.result import LayerRow, Report, Variant
from edgepress.report.rows import CHOSEN, Row, columns, rows
from edgepress.report.verdict import MARKS, limit_line

SHORT = 4
"""Reasons listed without ``-v``."""

_STYLES = {"within": "green", "probably within": "yellow", "over": "red"}
_CELLS = {
    "ms": numbers.time,
    "millions": lambda value: numbers.count(value * MILLION),
    "percent": numbers.percent,
    "dB": numbers.decibel,
    "bytes": numbers.size,
    "count": numbers.count,
}


def render(report: Report, console: Console, *, verbose: bool = False) -> None:
    """Print the report; ``verbose`` adds every variant, layer and refusal."""
    layout.sentence(console, report.verdict, "bold")
    quality = report.taken.quality
    if quality is not None:
        layout.sentence(console, limit_line(quality), _STYLES[quality.state], mark=MARKS[quality.state])
    console.print()
    found = rows(report)
    headings = ["", *columns(report)]
    if CHOSEN in headings:
        headings += ["change", "95 % interval"]
    body = [_cells(row, headings) for row in found]
    layout.show(console, layout.table(console, headings, body, bold=CHOSEN))
    if verbose:
        _everything(report, console)
    _remarks(report, console, verbose)
    _ending(report, console)


def change_text(row: Row) -> str:
    """The change of a row in words."""
    if row.change is None:
        return numbers.DASH
    if row.word == "points":
        return f"{numbers.fixed(row.change)} points"
    return row.word if row.word in ("same", "no difference") else f"{numbers.factor(row.change)} {row.word}"


def interval_text(row: Row) -> str:
    """The interval of a row; sizes are exact."""
    if row.low is None or row.high is None:
        return "exact" if row.unit in ("bytes", "count", "millions") else numbers.DASH
    decimals = 1 if row.unit == "dB" else 2
    return f"{numbers.fixed(row.low, decimals)} – {numbers.fixed(row.high, decimals)}"


def cell(value: float | None, unit: str) -> str:
    """One value with its unit."""
    return numbers.DASH if value is None or numbers.missing(value) else _CELLS[unit](value)


def merged(refusals: Sequence[Refusal], limit: int | None) -> list[str]:
    """One text per reason, the most frequent first; at most ``limit`` texts, then how many there are besides."""
    by_reason: dict[str, list[str]] = {}
    for refusal in refusals:
        by_reason.setdefault("; ".join(filter(None, (refusal.reason, refusal.hint))), []).append(refusal.what)
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    texts = [_several(reason, whats) for reason, whats in ordered]
    hidden = texts[limit:] if limit is not None else []
    return texts[: len(texts) - len(hidden)] + ([f"{len(hidden)} more reasons (-v)"] if hidden else [])


def _several(reason: str, whats: Sequence[str]) -> str:
    return f"{whats[0]}: {reason}" if len(whats) == 1 else f"{len(whats)} × {reason} ({whats[0]}, …)"


def _cells(row: Row, headings: Sequence[str]) -> list[str]:
    fixed = {"": row.label, "change": change_text(row), "95 % interval": interval_text(row)}
    return [fixed.get(heading) or cell(row.values.get(heading), row.unit) for heading in headings]


def _remarks(report: Report, console: Console, verbose: bool) -> None:
    limit = None if verbose else SHORT
    widths = widths_line(report)
    if widths:
        layout.paragraph(console, "weights", widths)
    if report.refusals:
        layout.items(console, "not done", merged(report.refusals, limit))
    kept = kept_float(report.layers)
    if kept:
        layout.items(console, "kept float", merged(kept, limit))
    for note in (*report.notes, *_reference(report)):
        layout.paragraph(console, "note", note)


def _reference(report: Report) -> list[str]:
    """Says so when times are not compared with the original itself."""
    ratios = report.taken.ratio.values()
    other = {ratio.reference for ratio in ratios} - {report.original.name}
    labels = [variant.label for name in sorted(other) if (variant := report.variant(name)) is not None]
    nouns = {"time": "times"}.get(noun := WORDS[report.level].noun, noun)
    return [f"{nouns} are compared with the {label} model." for label in labels]


def kept_float(layers: Sequence[LayerRow]) -> list[Refusal]:
    """Layers that stayed float although others became int8."""
    if all(layer.runs_as == "float32" for layer in layers):
        return []
    return [Refusal(layer.node, layer.reason or "no reason given") for layer in layers if layer.runs_as == "float32"]


def widths_line(report: Report) -> str:
    """How many bits the weights have; empty if none of them is an integer."""
    widths = [layer.bits for layer in report.layers if layer.bits is not None]
    if report.weight_bits is None or not widths:
        return ""
    least, most = (f"{value:.3g}" for value in (min(widths), max(widths)))
    average = numbers.fixed(report.weight_bits)
    text = f"{least} bits" if least == most else f"{average} bits on average, {least} to {most}"
    left = [layer.node for layer in report.layers if layer.bits is None]
    return text + (f"; float weights in {', '.join(_few(left))}" if left else "")


def _few(names: Sequence[str]) -> list[str]:
    return [*names[:SHORT], "…"] if len(names) > SHORT else list(names)


def written(report: Report) -> list[str]:
    """Paths of everything that was written."""
    if report.output is None:
        return []
    beside = str(Path(report.output).with_suffix(".report.json"))
    return [report.output, *([report.plan] if report.plan else []), beside]


def _ending(report: Report, console: Console) -> None:
    layout.paths(console, "written", written(report) or ["nothing"])
    if report.next:
        layout.line(console, "next", report.next)


def _everything(report: Report, console: Console) -> None:
    noun = WORDS[report.level].noun
    headings = ["variant", "file", "latency" if noun == "time" else noun, "quality", "verdict"]
    variants = [_variant_cells(variant, report.level) for variant in report.variants]
    layout.show(console, layout.table(console, headings, variants, prose=True))
    foreseen = _foreseen(report)
    pruned = [_pruned_cells(variant, foreseen) for variant in report.variants if variant.pruning is not None]
    if pruned:
        kinds = ["predicted" if level == report.level else level for level in foreseen]
        headings = ["pruned", "error", "predicted", "file", "predicted", noun, *kinds]
        layout.show(console, layout.table(console, headings, pruned))
    if report.layers:
        headings = ["layer", "op", "width", "runs as", "reason"]
        body = [[row.node, row.op, _width(row), row.runs_as, row.reason] for row in report.layers]
        layout.show(console, layout.table(console, headings, body, prose=True))
        headings = ["layer", "bits", "file", "share", "signal/noise", "scales"]
        layout.show(console, layout.table(console, headings, [_stored_cells(row) for row in report.layers]))


def _width(row: LayerRow) -> str:
    same = row.width_before == row.width_after
    return str(row.width_after) if same else f"{row.width_before} → {row.width_after}"


def _stored_cells(row: LayerRow) -> list[str]:
    bits = "float" if row.bits is None else f"{row.bits:.3g}"
    scales = numbers.DASH
    if row.scale_low is not None and row.scale_high is not None:
        scales = f"{row.scale_low:.2g} – {row.scale_high:.2g}"
    share = numbers.percent(row.share)
    return [row.node, bits, cell(row.file_bytes, "bytes"), share, cell(row.sqnr_db, "dB"), scales]


def _variant_cells(variant: Variant, level: Level) -> list[str]:
    threads = min(variant.latency, default=None)
    took = None if threads is None else variant.latency[threads].p50
    quality = variant.quality
    unit = "dB" if quality is not None and quality.measure == "sqnr" else "percent"
    after = None if quality is None else quality.after
    cost = numbers.DASH if took is None else amount(took, level)
    return [variant.name, cell(variant.file_bytes, "bytes"), cost, cell(after, unit), variant.verdict]


def _foreseen(report: Report) -> list[Level]:
    """Levels of the costs that were predicted, each of which has a column of its own; that of the report first."""
    found = {item.pruning.latency_by for item in report.variants if item.pruning and item.pruning.latency is not None}
    return sorted(found, key=lambda level: (level != report.level, level))


def _pruned_cells(variant: Variant, foreseen: Sequence[Level]) -> list[str]:
    """What was measured of a variant that lost channels, and what was predicted: costs are over the cleaned model's."""
    pruning, ratio = variant.pruning, variant.ratio.get(min(variant.ratio, default=0))
    if pruning is None:
        return [variant.name]
    measured = None if ratio is None else ratio.median
    errors = (
        numbers.DASH if value is None else numbers.short(value) for value in (pruning.measured_error, pruning.error)
    )
    files = (cell(value, "bytes") for value in (variant.file_bytes, pruning.file_bytes))
    predicted = (pruning.latency if level == pruning.latency_by else None for level in foreseen)
    times = (numbers.DASH if value is None else numbers.fixed(value) for value in (measured, *predicted))
    return [variant.name, *errors, *files, *times]


def pairs(report: Report) -> list[tuple[str, str]]:
    """The report as keys and values for a pipe: ASCII numbers without units (ms, bytes, millions of instructions)."""
    quality = report.taken.quality
    found = [("verdict", report.verdict), ("chosen", report.chosen), ("state", quality.state if quality else "")]
    for row in rows(report):
        found += _row_pairs(row)
    found += [("weight_bits", numbers.raw(report.weight_bits))]
    found += [("note", note) for note in report.notes]
    found += [("refused", str(refusal)) for refusal in report.refusals]
    found += [("written", path) for path in written(report)]
    return [*found, ("next", report.next)]


def _row_pairs(row: Row) -> list[tuple[str, str]]:
    unit = {"percent": "_percent", "dB": "_db", "count": ""}.get(row.unit, f"_{row.unit}")
    values: Mapping[str, float | None] = row.values
    found = [(f"{row.key}{unit}.{name.replace(' ', '_')}", numbers.raw(value)) for name, value in values.items()]
    if row.change is not None:
        found += [(f"{row.key}.change", f"{numbers.raw(row.change)} {row.word}")]
    if row.low is not None and row.high is not None:
        found += [(f"{row.key}.low", numbers.raw(row.low)), (f"{row.key}.high", numbers.raw(row.high))]
    return found
