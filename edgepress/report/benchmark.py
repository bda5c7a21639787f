"""A benchmark of several files, on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from edgepress.bench import Ratio
from edgepress.report import layout, numbers
from edgepress.report.result import Benchmark
from edgepress.report.rows import speed

_HEADINGS = ("model", "median", "p90", "p99", "against first", "95 % interval", "first run", "load")


def render(benchmark: Benchmark, console: Console) -> None:
    """Print what was found in a sentence per model, the table, the operators and the warnings."""
    timing = benchmark.timing
    for ratio in timing.ratios:
        layout.sentence(console, _sentence(ratio), "bold")
    if timing.ratios:
        console.print()
    body = [_cells(benchmark, model.name) for model in benchmark.models]
    layout.show(console, layout.table(console, _HEADINGS, body))
    for model in benchmark.models:
        layout.items(console, "runs", _histogram(model.name, model.operators))
    for model in benchmark.models:
        for warning in model.warnings:
            layout.paragraph(console, "warning", f"{model.name}: {warning}", "yellow")
    for note in (*benchmark.notes, _conditions(benchmark)):
        layout.paragraph(console, "note", note)


def _sentence(ratio: Ratio) -> str:
    word, median, low, high = speed(ratio)
    if word == "no difference":
        return f"{ratio.name}: no difference from {ratio.reference} could be shown."
    bounds = f"{numbers.fixed(low)} to {numbers.fixed(high)}"
    return f"{ratio.name} is {numbers.factor(median)} {word} than {ratio.reference} (95 % interval {bounds})."


def _cells(benchmark: Benchmark, name: str) -> list[str]:
    latency, ratio = benchmark.timing.latency(name), benchmark.timing.ratio(name)
    against, interval = "reference", numbers.DASH
    if ratio is not None:
        word, median, low, high = speed(ratio)
        against = word if word == "no difference" else f"{numbers.factor(median)} {word}"
        interval = f"{numbers.fixed(low)} – {numbers.fixed(high)}"
    quantiles = [numbers.time(value) for value in (latency.p50, latency.p90, latency.p99)]
    return [name, *quantiles, against, interval, numbers.time(latency.first_ms), numbers.time(latency.load_ms)]


def _histogram(name: str, operators: Mapping[str, int]) -> list[str]:
    counts = sorted(operators.items(), key=lambda item: (-item[1], item[0]))
    texts = [f"{number} {operator}" for operator, number in counts]
    return [f"{name}: {texts[0]}", *texts[1:]] if texts else [name]


def _conditions(benchmark: Benchmark) -> str:
    timing, machine = benchmark.timing, benchmark.timing.machine
    threads = f"{timing.threads} thread{'s' * (timing.threads > 1)}"
    floor = numbers.fixed(100 * timing.noise_floor)
    return (
        f"{timing.rounds} rounds, {threads}, on {machine.cpu} with onnxruntime {machine.onnxruntime}; "
        f"two sessions of the first model differed by up to {floor} %."
    )


def pairs(benchmark: Benchmark) -> list[tuple[str, str]]:
    """The benchmark as keys and values for a pipe: ASCII numbers without units (times in ms)."""
    found: list[tuple[str, str]] = []
    for model in benchmark.models:
        latency, ratio = benchmark.timing.latency(model.name), benchmark.timing.ratio(model.name)
        values = {"p50_ms": latency.p50, "p90_ms": latency.p90, "p99_ms": latency.p99}
        values |= {"load_ms": latency.load_ms, "first_ms": latency.first_ms}
        found += [(f"{model.name}.{key}", numbers.raw(value)) for key, value in values.items()]
        if ratio is not None:
            bounds = {"ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}
            found += [(f"{model.name}.{key}", numbers.raw(value)) for key, value in bounds.items()]
            found += [(f"{model.name}.finding", ratio.noise)]
        found += [(f"{model.name}.warning", warning) for warning in model.warnings]
    timing = benchmark.timing
    found += [("noise_floor", numbers.raw(timing.noise_floor)), ("rounds", str(timing.rounds))]
    return [*found, ("threads", str(timing.threads)), *(("note", note) for note in benchmark.notes)]
