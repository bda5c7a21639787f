"""Every network of the test zoo in every export, the classifiers inside the onnx package, and real trained models.

    python benchmarks/architectures.py                     everything (about an hour on two cores)
    python benchmarks/architectures.py --quick             one export of each network, small classifiers
    python benchmarks/architectures.py --only vit light    networks, or parts: zoo, light, shared, speed

For each: cuts of all prunable groups (60 random ones where there are more) against the original with their consumers
zeroed, in onnxruntime; the groups against what must be prunable (``tests/zoo``); the torch executor against
onnxruntime, tensor by tensor; and the error on held-out samples after a quarter of every group went, with
redistribution and without. ``speed`` measures how long finding the groups takes, on one core, over nodes × channels.

Writes ``results/architectures.md`` and ``results/architectures.svg``; the exit status is 1 when anything is wrong.
Trained models are looked for in ``../shared`` or the folder named by EDGEPRESS_SHARED.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("EDGEPRESS_SHARED", HERE.parent.parent / "shared")) / "models"
sys.path[0] = str(HERE.parent / "tests")  # in place of this folder, whose zoo.py is another

TOLERANCE = 1e-5
SECONDS = 3.0
"""Longest time that the groups of densenet121 and resnet50 may take."""

STEEPEST = 1.2
"""Largest exponent of time over nodes × channels that counts as about linear."""

COLUMNS, WIDER = 2500, {"zfnet512": 5000}
"""Widest consumer whose redistribution is tried on the models of others; WIDER where that leaves no convolution."""

GROUPS = 6
"""So many groups, evenly spread, lose channels for it in the classifiers of the onnx package: their layers are wide."""

DEPTHS, WIDTHS = (16, 64, 256), (16, 48, 144)
"""Blocks and channels of the synthetic networks."""


@dataclass(frozen=True)
class Outcome:
    """What was found out about one export or model.

    Attributes:
        name: the network.
        variant: the export; empty for files of others.
        wrong: what is wrong, in words.
        gap: why groups are missing that are known to be missing; empty when none are.
        skipped: why there is no such export.
        nodes: nodes after normalization.
        groups: prunable groups.
        channels: their channels.
        worst: largest relative difference of a cut from silence.
        plain: error after removal, relative to the variance of the outputs.
        refitted: error after removal with redistribution.
        seconds: seconds of normalizing and of finding the groups.
    """

    name: str
    variant: str = ""
    wrong: tuple[str, ...] = ()
    gap: str = ""
    skipped: str = ""
    nodes: int = 0
    groups: int = 0
    channels: int = 0
    worst: float = 0.0
    plain: float | None = None
    refitted: float | None = None
    seconds: tuple[float, float] = (0.0, 0.0)

    @property
    def ratio(self) -> float | None:
        """Error with redistribution over error without."""
        return None if self.plain is None or self.refitted is None else self.refitted / max(self.plain, 1e-30)


@dataclass(frozen=True)
class Point:
    """One measurement of the analysis.

    Attributes:
        name: what was analysed.
        size: nodes × channels: the channels of all tensors, counted per node.
        seconds: what finding the groups took.
        synthetic: whether it belongs to the series.
    """

    name: str
    size: int
    seconds: float
    synthetic: bool = field(default=True)


def _alone() -> None:
    """One thread for everything that computes: the cores are for other models."""
    import torch

    torch.set_num_threads(1)


def zoo_outcomes(name: str, quick: bool, folder: str) -> list[Outcome]:
    """All exports of a network of the zoo."""
    _alone()
    from zoo import NETS
    from zoo.parts import DYNAMO, OPSETS, Variant

    net = NETS[name]
    first = net.first.get(DYNAMO, 0)
    tried = [Variant(DYNAMO, opset) for opset in OPSETS[DYNAMO] if opset < first]  # torch converts if it can
    chosen = [net.quick] if quick else [*net.variants, *tried]
    return [_zoo_outcome(name, variant, Path(folder)) for variant in chosen]


def _zoo_outcome(name: str, variant, folder: Path) -> Outcome:  # type: ignore[no-untyped-def]
    from zoo import NETS, ExportError, export
    from zoo.proof import errors, exactness, feeds_of, groups_by_module

    from edgepress.errors import EdgepressError
    from edgepress.executor import Executor
    from edgepress.model import Model

    net = NETS[name]
    promised = variant.opset >= net.first[variant.exporter]
    path = folder / f"{name}.{variant}.onnx"
    try:
        export(net, variant, path)
    except ExportError as error:
        return Outcome(name, str(variant), wrong=(f"not exported: {error}",) if promised else (), skipped=str(error))
    feeds, wrong, gap = feeds_of(net, variant), [], ""
    try:
        found, seconds = _analyzed(Model.load(path), feeds)
        groups, wanted = groups_by_module(net, path, found.grouping), net.groups[variant.exporter]
        if not promised:  # torch's conversion drops what says where nodes come from
            groups, wanted = _sizes(groups), _sizes(wanted)
        if groups != wanted:
            gap = net.gaps[variant.exporter]
            wrong += [] if gap else [f"groups missing {dict(wanted - groups)}, not expected {dict(groups - wanted)}"]
        elif net.gaps[variant.exporter]:
            wrong.append(f"a known gap is closed, take it off: {net.gaps[variant.exporter]}")
        exact = exactness(found, feeds, net.seed)
        wrong += _exact(exact.worst, exact.moved, exact.groups)
        tensor = Executor(found.model).parity(feeds[-1])
        wrong += [] if tensor is None else [f"torch differs at {tensor!r}"]
        error = errors(net, found) if exact.groups else None
    except (EdgepressError, KeyError, ValueError, RuntimeError) as problem:
        return Outcome(name, str(variant), wrong=(*wrong, f"{type(problem).__name__}: {problem}"))
    if error is not None and not error.refitted < error.plain:
        wrong.append(f"redistribution does not help: {error.plain:.2g} to {error.refitted:.2g}")
    prunable = found.grouping.prunable
    return Outcome(
        name,
        str(variant),
        tuple(wrong),
        gap,
        nodes=len(found.model.nodes),
        groups=len(prunable),
        channels=sum(group.size for group in prunable),
        worst=exact.worst,
        plain=None if error is None else error.plain,
        refitted=None if error is None else error.refitted,
        seconds=seconds,
    )


def _sizes(groups: Counter[str]) -> Counter[str]:
    """How often each size occurs, whoever the producers."""
    found: Counter[str] = Counter()
    for group, count in groups.items():
        found[group.rpartition(":")[2]] += count
    return found


def _exact(worst: float, moved: float, groups: int) -> list[str]:
    wrong = [f"a cut differs from silence by {worst:.1e}"] if not worst <= TOLERANCE else []
    return [*wrong, "silence changes nothing"] if groups and not moved > 1e-3 else wrong


def _analyzed(model, feeds):  # type: ignore[no-untyped-def]
    """The analyzed model, and the seconds of its two parts."""
    from zoo.proof import Analyzed

    from edgepress.groups import find_groups
    from edgepress.normalize import normalize

    begin = time.perf_counter()
    normal = normalize(model, feeds).model
    middle = time.perf_counter()
    grouping = find_groups(normal)
    return Analyzed(normal, grouping), (middle - begin, time.perf_counter() - middle)


def other_outcomes(kind: str, name: str) -> list[Outcome]:
    """A classifier of the onnx package, or a trained model."""
    _alone()
    from zoo.light import light, pictures, runs
    from zoo.proof import exactness, losses

    from edgepress.errors import EdgepressError
    from edgepress.executor import Executor
    from edgepress.model import Model

    try:
        model = light(name) if kind == "light" else Model.load(SHARED / f"{name}.onnx")
        feeds = [pictures(model, 1, seed) for seed in (5, 6)]
        found, seconds = _analyzed(model, feeds[:1])
        exact = exactness(found, feeds[1:], 0, parts=3)
        wrong = _exact(exact.worst, exact.moved, exact.groups)
        tensor = Executor(found.model).parity(feeds[1])
        wrong += [] if tensor is None else [f"torch differs at {tensor!r}"]
        count = 24 if kind == "light" else 96
        samples, held = (runs(model, n, seed) for n, seed in ((count, 100), (count // 3, 900)))
        most = GROUPS if kind == "light" else len(found.model.nodes)
        error = losses(found, samples, held, widest=WIDER.get(name, COLUMNS), most=most)
    except (EdgepressError, KeyError, ValueError, RuntimeError) as problem:
        return [Outcome(name, wrong=(f"{type(problem).__name__}: {problem}",))]
    if error is not None and not error.refitted < error.plain:
        wrong.append(f"redistribution does not help: {error.plain:.2g} to {error.refitted:.2g}")
    prunable = found.grouping.prunable
    return [
        Outcome(
            name,
            wrong=tuple(wrong),
            nodes=len(found.model.nodes),
            groups=len(prunable),
            channels=sum(group.size for group in prunable),
            worst=exact.worst,
            plain=None if error is None else error.plain,
            refitted=None if error is None else error.refitted,
            seconds=seconds,
        )
    ]


# --- the speed of the analysis -----------------------------------------------------------------------------


def speed(quick: bool) -> list[Point]:
    """Time finding the groups of a series of residual networks, and of two well-known ones."""
    from zoo.light import light, pictures

    from edgepress.normalize import normalize

    sizes = [(depth, width) for depth in DEPTHS for width in WIDTHS]
    points = [_timed(f"{depth} × {width}", _stack(depth, width)) for depth, width in sizes]
    for name in () if quick else ("densenet121", "resnet50"):
        model = light(name)
        points.append(_timed(name, normalize(model, [pictures(model, 1, 5)]).model, synthetic=False))
    return points


def _timed(name: str, model, synthetic: bool = True) -> Point:  # type: ignore[no-untyped-def]
    from edgepress.groups import find_groups

    rounds = []
    for _ in range(3):
        begin = time.perf_counter()
        grouping = find_groups(model)
        rounds.append(time.perf_counter() - begin)
    widths = (grouping.channels[node.outputs[0]].shape for node in model.nodes if node.outputs[0] in grouping.channels)
    return Point(name, sum(shape[1] for shape in widths if len(shape) > 1), min(rounds), synthetic)


def _stack(depth: int, width: int):  # type: ignore[no-untyped-def]
    """Residual blocks of two 1x1 convolutions."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from edgepress.model import Model

    nodes, weights, stream = [], [], "x"

    def convolve(inputs: str, output: str, *shape: int) -> None:
        weights.append(numpy_helper.from_array(np.full(shape, 0.01, np.float32), f"{output}_w"))
        nodes.append(helper.make_node("Conv", [inputs, f"{output}_w"], [output], output))

    convolve("x", "stem", width, 3, 1, 1)
    stream = "stem"
    for number in range(depth):
        convolve(stream, f"a{number}", width, width, 1, 1)
        nodes.append(helper.make_node("Relu", [f"a{number}"], [f"r{number}"], f"r{number}"))
        convolve(f"r{number}", f"b{number}", width, width, 1, 1)
        nodes.append(helper.make_node("Add", [stream, f"b{number}"], [f"s{number}"], f"s{number}"))
        stream = f"s{number}"
    convolve(stream, "out", 10, width, 1, 1)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size, 16, 16])
        for name, size in (("x", 3), ("out", 10))
    ]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], weights)
    return Model.of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def exponents(points: Iterable[Point]) -> tuple[float, float]:
    """Slopes of log(seconds) over log(nodes) at the largest width, and over log(channels) at the largest depth."""
    import numpy as np

    seconds = np.log([point.seconds for point in points if point.synthetic]).reshape(len(DEPTHS), len(WIDTHS))
    deeper, wider = np.polyfit(np.log(DEPTHS), seconds[:, -1], 1)[0], np.polyfit(np.log(WIDTHS), seconds[-1], 1)[0]
    return float(deeper), float(wider)


def drawing(points: Sequence[Point]) -> str:
    """A plain SVG: seconds over nodes × channels, both logarithmic, with a line of slope one through the middle."""
    import numpy as np

    left, bottom, width, height = 60, 300, 480, 270
    sizes, seconds = (np.log10([getattr(point, key) for point in points]) for key in ("size", "seconds"))
    low, high = (np.floor(sizes.min()), np.floor(seconds.min())), (np.ceil(sizes.max()), np.ceil(seconds.max()))

    def place(size: float, second: float) -> tuple[float, float]:
        across, up = (size - low[0]) / (high[0] - low[0]), (second - low[1]) / (high[1] - low[1])
        return round(left + width * across, 1), round(bottom - height * up, 1)

    parts = [f'<rect x="{left}" y="{bottom - height}" width="{width}" height="{height}" fill="none" stroke="#999"/>']
    for power in np.arange(low[0], high[0] + 1):
        x, _ = place(power, low[1])
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">10^{power:.0f}</text>')
    for power in np.arange(low[1], high[1] + 1):
        _, y = place(low[0], power)
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">10^{power:.0f} s</text>')
    middle = float(np.median(seconds - sizes))
    ends = [size for size in (low[0], high[0], low[1] - middle, high[1] - middle) if low[0] <= size <= high[0]]
    ends = sorted(size for size in ends if low[1] - 1e-9 <= size + middle <= high[1] + 1e-9)
    (x1, y1), (x2, y2) = place(ends[0], ends[0] + middle), place(ends[-1], ends[-1] + middle)
    parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#999" stroke-dasharray="4"/>')
    for point, size, second in zip(points, sizes, seconds, strict=True):
        x, y = place(size, second)
        color = "#36c" if point.synthetic else "#c33"
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{color}"><title>{point.name}</title></circle>')
        parts += [] if point.synthetic else [f'<text x="{x - 8}" y="{y - 6}" text-anchor="end">{point.name}</text>']
    parts.append(f'<text x="{left + width / 2}" y="{bottom + 38}" text-anchor="middle">nodes × channels</text>')
    body = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 560 350" font-family="sans-serif" font-size="12">\n'
        f'<rect width="560" height="350" fill="#fff"/>\n{body}\n</svg>\n'
    )


# --- what is written -----------------------------------------------------------------------------------------


def row(name: str, outcomes: Sequence[Outcome]) -> str:
    """One line of the table: all exports of a network."""
    done = [item for item in outcomes if item.nodes]
    tried = [item for item in outcomes if not item.skipped or item.wrong]
    if not done:
        return f"| {name} | 0 of {len(tried)} | | | | | | {_remarks(outcomes)} |"
    ratios = [item.ratio for item in done if item.ratio is not None]
    fits = f"{statistics.median(ratios):.2f} ({max(ratios):.2f})" if ratios else ""
    cells = [
        f"{len(done)} of {len(tried)}" if any(item.variant for item in done) else "",
        _span([item.groups for item in done]),
        _span([item.channels for item in done]),
        f"{max(item.worst for item in done):.0e}".replace("0e+00", "0"),
        fits,
        f"{max(item.seconds[0] for item in done):.2f} + {max(item.seconds[1] for item in done):.2f}",
        _remarks(outcomes),
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}–{high}"


def _remarks(outcomes: Sequence[Outcome]) -> str:
    """What is wrong and what is known to be missing, with the exports it concerns."""
    found: dict[str, list[str]] = {}
    for item in outcomes:
        for text in (*item.wrong, *([f"known gap: {item.gap}"] if item.gap else [])):
            found.setdefault(" ".join(text.split())[:300].replace("|", "/"), []).append(item.variant)
    return "; ".join(f"{text} ({', '.join(variants)})" if any(variants) else text for text, variants in found.items())


HEAD = (
    "| network | exports | groups | channels | worst cut | error ratio, median (largest) | seconds | remarks |\n"
    "|---|---|---|---|---|---|---|---|"
)


def report(tables: dict[str, list[list[Outcome]]], points: Sequence[Point]) -> str:
    """The Markdown file."""
    every = [item for rows in tables.values() for outcomes in rows for item in outcomes]
    done, bad = sum(bool(item.nodes) for item in every), sum(bool(item.wrong) for item in every)
    lines = [
        "# Architectures",
        "",
        f"{done} models analysed, {bad} wrong. Made by `python benchmarks/architectures.py`.",
        "",
        "* exports: how many of the exports that torch wrote went through (both exporters, opsets 13 to 23)",
        "* groups, channels: what is prunable; all of it is what was expected unless the remarks say otherwise",
        "* worst cut: largest relative difference between cutting channels and zeroing the weights that read them",
        "* error ratio: held-out error after a quarter of every group went, with redistribution over without it",
        f"  (inside the onnx package of {GROUPS} groups, evenly spread over those read by at most {COLUMNS} columns)",
        "* seconds: normalizing (which runs onnxruntime) + finding the groups, the slowest export, one thread",
        "",
    ]
    for title, rows in tables.items():
        lines += [f"## {title}", "", HEAD, *(row(outcomes[0].name, outcomes) for outcomes in rows), ""]
    if points:
        lines += ["## Time to find the groups", "", "Exponent over nodes {:.2f}, over channels {:.2f}.", ""]
        lines[-2] = lines[-2].format(*exponents(points))
        lines += [
            "![seconds over nodes × channels](architectures.svg)",
            "",
            "| blocks × width | nodes × channels | s |",
        ]
        lines += ["|---|---|---|", *(f"| {p.name} | {p.size} | {p.seconds:.3f} |" for p in points), ""]
    return "\n".join(lines)


def too_slow(points: Sequence[Point]) -> list[str]:
    """What takes longer than it may."""
    slow = [f"{p.name} takes {p.seconds:.1f} s" for p in points if not p.synthetic and p.seconds > SECONDS]
    steep = max(exponents(points)) if points else 0.0
    return [*slow, *([f"time grows with exponent {steep:.2f}"] if steep > STEEPEST else [])]


def main() -> int:
    """Run what was chosen and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="networks, or parts: zoo, light, shared, speed")
    parser.add_argument("--quick", action="store_true", help="one export of each network, small models")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    chosen = parser.parse_args()
    from zoo import NETS
    from zoo.light import LIGHT, SMALL

    def wanted(part: str, names: Iterable[str]) -> list[str]:
        whole = not chosen.only or part in chosen.only
        return [name for name in names if whole or name in chosen.only]

    trained = sorted(path.stem for path in SHARED.glob("*.onnx"))
    jobs: list[tuple[str, Callable[..., list[Outcome]], tuple[object, ...]]] = []
    with tempfile.TemporaryDirectory() as folder:
        jobs += [("Zoo", zoo_outcomes, (name, chosen.quick, folder)) for name in wanted("zoo", NETS)]
        light = wanted("light", SMALL if chosen.quick else LIGHT)
        jobs += [("Inside the onnx package", other_outcomes, ("light", name)) for name in light]
        jobs += [("Trained models", other_outcomes, ("shared", name)) for name in wanted("shared", trained)]
        tables: dict[str, list[list[Outcome]]] = {}
        with ProcessPoolExecutor(chosen.workers, get_context("spawn")) as pool:
            started = [(title, pool.submit(function, *given)) for title, function, given in jobs]
            for title, future in started:
                tables.setdefault(title, []).append(outcomes := future.result())
                sys.stderr.write(row(outcomes[0].name, outcomes) + "\n")
    points = speed(chosen.quick) if not chosen.only or "speed" in chosen.only else []
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "architectures.md").write_text(report(tables, points))
    if points:
        (chosen.out / "architectures.svg").write_text(drawing(points))
    wrong = [text for rows in tables.values() for outcomes in rows for item in outcomes for text in item.wrong]
    wrong += too_slow(points)
    sys.stderr.write("\n".join(wrong) + "\n" if wrong else "all as it should be\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
