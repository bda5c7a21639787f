"""A benchmark of several files, on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from edgepress.bench import Conditions, Ratio
from edgepress.report import layout, numbers, profile
from edgepress.report.costs import WORDS, device_name
from edgepress.report.found import Benchmark, BenchModel
from edgepress.report.rows import speed

_TIMED = ("model", "median", "against first", "95 % interval", "memory", "p90", "p99", "first run", "load")
"""A narrow terminal loses the last ones."""


def render(benchmark: Benchmark, console: Console) -> None:
    """Print what was found in a sentence per model, the tables, the operators and the warnings."""
    timing = benchmark.timing
    for ratio in timing.ratios:
        layout.sentence(console, _sentence(ratio, benchmark), "bold")
    if timing.ratios:
        console.print()
    cells = _times if timing.level == "measured" else _costs
    words = WORDS[timing.level]
    headings = _TIMED if timing.level == "measured" else ("model", f"M {words.noun} ({words.how})", "against first")
    body = [cells(benchmark, model) for model in benchmark.models]
    layout.show(console, layout.table(console, headings, body))
    profile.render(benchmark.models, console)
    for model in benchmark.models:
        layout.items(console, "runs", _histogram(model.name, model.operators))
    for warning in warnings(benchmark):
        layout.paragraph(console, "warning", warning, "yellow")
    for note in (*benchmark.notes, _how(benchmark), _conditions(timing.conditions)):
        if note:
            layout.paragraph(console, "note", note)


def warnings(benchmark: Benchmark) -> list[str]:
    """What should not be so: with the models, and with the machine while it was measured."""
    found = [f"{model.name}: {warning}" for model in benchmark.models for warning in model.warnings]
    return [*found, *benchmark.timing.conditions.warnings(benchmark.timing.machine.cores)]


def _sentence(ratio: Ratio, benchmark: Benchmark) -> str:
    level = benchmark.timing.level
    word, median, low, high = speed(ratio, level)
    if word == "no difference":
        return f"{ratio.name}: no difference from {ratio.reference} could be shown."
    if level != "measured":
        words = WORDS[level]
        factor = numbers.factor(median)
        return f"{ratio.name} needs {factor} {word} {words.noun} than {ratio.reference} ({words.how}: this is no time)."
    bounds = f"{numbers.fixed(low)} to {numbers.fixed(high)}"
    return f"{ratio.name} is {numbers.factor(median)} {word} than {ratio.reference} (95 % interval {bounds})."


def _times(benchmark: Benchmark, model: BenchModel) -> list[str]:
    latency, ratio = benchmark.timing.latency(model.name), benchmark.timing.ratio(model.name)
    interval = numbers.DASH
    if ratio is not None:
        _, _, low, high = speed(ratio)
        interval = f"{numbers.fixed(low)} – {numbers.fixed(high)}"
    taken = None if model.memory is None else model.memory.model_bytes
    memory = numbers.DASH if taken is None else numbers.size(taken)
    others = (latency.p90, latency.p99, latency.first_ms, latency.load_ms)
    cells = [model.name, numbers.time(latency.p50), _against(benchmark, model), interval, memory]
    return [*cells, *map(numbers.time, others)]


def _costs(benchmark: Benchmark, model: BenchModel) -> list[str]:
    """Counted: no quantiles, no interval."""
    latency = benchmark.timing.latency(model.name)
    return [model.name, numbers.significant(latency.p50), _against(benchmark, model)]


def _against(benchmark: Benchmark, model: BenchModel) -> str:
    ratio = benchmark.timing.ratio(model.name)
    if ratio is None:
        return "reference"
    word, median, _, _ = speed(ratio, benchmark.timing.level)
    return word if word == "no difference" else f"{numbers.factor(median)} {word}"


def _histogram(name: str, operators: Mapping[str, int]) -> list[str]:
    counts = sorted(operators.items(), key=lambda item: (-item[1], item[0]))
    texts = [f"{number} {operator}" for operator, number in counts]
    return [f"{name}: {texts[0]}", *texts[1:]] if texts else [name]


def _how(benchmark: Benchmark) -> str:
    """On what, and how sure."""
    timing, machine = benchmark.timing, benchmark.timing.machine
    where = machine.cpu if benchmark.device is None else f"{device_name(benchmark.device)} ({machine.cpu})"
    floor = numbers.fixed(100 * timing.noise_floor)
    if timing.level != "measured":
        return (
            f"One run of every model on {where} with onnxruntime {machine.onnxruntime}; less than {floor} % of a count "
            "is no difference."
        )
    threads = f"{timing.threads} thread{'s' * (timing.threads > 1)}"
    opened = f", all sessions opened {len(timing.openings)} times" if timing.openings else ""
    return (
        f"{timing.rounds} rounds{opened}, {threads}, on {where} with onnxruntime {machine.onnxruntime}; "
        f"two sessions of the first model differed by up to {floor} %."
    )


def _conditions(found: Conditions) -> str:
    """What the machine said of itself."""
    before, after, said = found.before, found.after, []
    if before.governor:
        said.append(f"governor {before.governor}")
    if before.frequency_mhz:
        said.append(f"{before.frequency_mhz:.0f} MHz")
    if before.temperature_c is not None and after.temperature_c is not None:
        said.append(f"{before.temperature_c:.0f} °C before and {after.temperature_c:.0f} °C after")
    if before.load_1m is not None:
        said.append(f"load {before.load_1m:.1f}")
    return f"The machine: {', '.join(said)}." if said else ""


def pairs(benchmark: Benchmark) -> list[tuple[str, str]]:
    """The benchmark as keys and values for a pipe: ASCII numbers without units (times in ms)."""
    timing, found = benchmark.timing, []
    for model in benchmark.models:
        found += [(f"{model.name}.{key}", value) for key, value in _pairs_of(benchmark, model)]
    found += [("warning", warning) for warning in timing.conditions.warnings(timing.machine.cores)]
    found += [("noise_floor", numbers.raw(timing.noise_floor)), ("rounds", str(timing.rounds))]
    found += [("threads", str(timing.threads)), ("device", benchmark.device or ""), ("level", timing.level)]
    return [*found, *(("note", note) for note in benchmark.notes)]


def _pairs_of(benchmark: Benchmark, model: BenchModel) -> list[tuple[str, str]]:
    latency, ratio = benchmark.timing.latency(model.name), benchmark.timing.ratio(model.name)
    level = benchmark.timing.level
    values: dict[str, float | int | None] = {f"m_{WORDS[level].noun}": latency.p50}
    if level == "measured":
        values = {"p50_ms": latency.p50, "p90_ms": latency.p90, "p99_ms": latency.p99}
        values |= {"load_ms": latency.load_ms, "first_ms": latency.first_ms}
    values["memory_bytes"] = None if model.memory is None else model.memory.model_bytes
    if ratio is not None:
        values |= {"ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}
    found = [(key, numbers.raw(value)) for key, value in values.items()]
    if ratio is not None:
        found.append(("finding", WORDS[level].change(ratio.noise)))
    found += [(f"us.{operator}", numbers.raw(took)) for operator, took in profile.totals(model)]
    return [*found, *(("warning", warning) for warning in model.warnings)]
