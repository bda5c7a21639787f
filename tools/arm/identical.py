"""Are int8 outputs the same on every ARM core? `python tools/arm/identical.py MODEL... [--data SRC]...`.

Each model runs on the same samples, one at a time and in one thread, under every emulated core (``setup.py``) and on
this machine. Reported are

    identical     sha256 of the output bytes of all samples, equal between the cores
    integer       nothing computes in float but the borders, by the graph onnxruntime runs there (``optimized``)
    against here  outputs whose bits differ, and the largest difference, on this machine's onnxruntime

and, where something differs, the first node of that graph that does. Exit code 1 if the cores differ on a model that is
all integer, or one of them cannot run a model; 2 if something handed over cannot be used. No times are taken: those of
an emulator mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import emulator
import numpy as np
import onnx
import onnxruntime as ort
import optimized
from emulator import Machine, Run

from edgepress import targets
from edgepress.calibrate import open_feed
from edgepress.devices.emulated_cores import CORES, Crash
from edgepress.errors import DataError, DeviceError, EdgepressError
from edgepress.model import Model

CHECKED = "cortex-a53,cortex-a72,cortex-a76"
SAMPLES = 16
HERE = {"x86_64": "x64", "AMD64": "x64"}.get(platform.machine(), platform.machine())
HEADINGS = ("model", "samples", "operators on ARM", "in float", "cores", "between cores", "sha256", f"against {HERE}")


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two runs of a model, over all outputs."""

    differing: int
    elements: int
    largest: float
    steps: float | None = None  # the largest difference in steps of the output's quantization

    def __str__(self) -> str:
        if not self.differing:
            return f"identical ({self.elements} values)"
        steps = "" if self.steps is None else f" ({self.steps:.3g} steps)"
        return f"{self.differing} of {self.elements} differ, by {self.largest:.2g} at most{steps}"


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of a model.

    Attributes:
        name: of the model.
        count: samples.
        operators: how often every operator is in the graph run on ARM.
        floats: those that compute in float.
        sha256: of all output bytes by core; crashes are missing.
        crashes: by core, what happened.
        between: the largest difference between two cores.
        here: the difference between the first core and this machine.
        notes: what else is to be said.
    """

    name: str
    count: int
    operators: Mapping[str, int]
    floats: Mapping[str, int]
    sha256: Mapping[str, str]
    crashes: Mapping[str, str]
    between: Difference
    here: Difference
    notes: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether all cores that answered answered the same."""
        return len(set(self.sha256.values())) == 1

    @property
    def failed(self) -> bool:
        """Whether this is something that must not be."""
        return bool(self.crashes) or not (self.identical or self.floats)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print the page, and write it if asked to."""
    given = parsed(arguments)
    try:
        cores = [emulator.emulated(given.arm, core) for core in given.cores.split(",")]
        summary = (emulator.ready(given.arm) or {}).get("summary", "unfinished set-up")
        results = []
        for path in (*given.models, *given.float):
            print(f"{path.stem} ...", file=sys.stderr, flush=True)
            result = compare(path, samples_of(path, given.data, given.samples), cores)
            results.append(dataclasses.replace(result, name=f"{path.stem} (float)") if path in given.float else result)
        text = page(results, summary, bool(given.data))
        if given.write:
            given.write.write_text(text, encoding="utf-8")
    except (EdgepressError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1 if isinstance(error, Crash) else 2
    print(text, end="")
    return int(any(result.failed for result in results))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Are int8 outputs the same on every ARM core?")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="int8 models")
    parser.add_argument(
        "--data", action="append", default=[], metavar="SRC", help="samples; each model takes what fits"
    )
    parser.add_argument("--samples", type=int, default=SAMPLES, metavar="N", help=f"how many of them ({SAMPLES})")
    parser.add_argument("--cores", default=CHECKED, help=f"among {', '.join(CORES)} ({CHECKED})")
    parser.add_argument("--float", action="append", default=[], type=Path, metavar="MODEL", help="to compare with")
    parser.add_argument("--arm", type=Path, default=emulator.default_folder(), help="where setup.py has put it")
    parser.add_argument("--write", type=Path, metavar="PATH", help="write the page there")
    given = parser.parse_args(arguments)
    if given.samples < 1:
        parser.error("--samples must be at least 1")
    return given


def samples_of(path: Path, sources: Sequence[str], count: int) -> dict[str, np.ndarray]:
    """Samples of a model, stacked by input: the first of ``sources`` that fits, made up if there are none at all."""
    model = Model.load(path)
    problem: Exception | None = None
    for source in sources:
        try:
            feed = open_feed(source, model)
        except DataError as error:
            problem = error
            continue
        chunks = [chunk.inputs for chunk, _ in zip(feed.chunks(1), range(count), strict=False)]
        return {name: np.stack([chunk[name] for chunk in chunks]) for name in model.inputs}
    if problem is not None:
        raise DeviceError(f"None of the samples fit {path}: {problem}")
    random, found = np.random.default_rng(0), {}
    for name, known in model.inputs.items():
        if known.dtype != "float32" or known.shape is None:
            raise DeviceError(f"Input {name!r} of {path} cannot be made up: hand over samples by --data.")
        shape = [size if isinstance(size, int) else 1 for size in known.shape]
        found[name] = random.standard_normal((count, *shape)).astype(np.float32)
    return found


def compare(path: Path, samples: Mapping[str, np.ndarray], cores: Sequence[Machine]) -> Result:
    """Run a model everywhere and compare.

    Raises:
        Crash: no core at all can run it.
    """
    with tempfile.TemporaryDirectory(prefix="edgepress-arm-") as place:
        runs, graphs, crashes = run_on(cores, path, samples, Path(place))
        first, answer = next(iter(runs.items()))
        graph, wide = graphs[first], Path(place) / "exposed.onnx"
        onnx.save(optimized.exposed(graph), wide)
        known = {core.name: core for core in cores}
        inner = emulator.run(known[first], wide, samples, as_is=True, values=False)
        pairs = {name: difference(answer, run, graph) for name, run in runs.items()}
        here = difference(answer, emulator.run(emulator.here(), path, samples), graph)
        unlike = [known[name] for name, pair in pairs.items() if pair.differing]
        unlike += [emulator.here()] if here.differing else []
        notes = [*crashes.values()]
        notes += [f"{name} runs other operators than {first}" for name in runs if not alike(graph, graphs[name])]
        notes += [located(graph, wide, samples, inner, machine) for machine in unlike]
    return Result(
        name=path.stem,
        count=len(next(iter(samples.values()))),
        operators=optimized.operators(graph),
        floats=optimized.float_operators(graph, {name: tensor.type for name, tensor in inner.tensors.items()}),
        sha256={name: run.digest for name, run in runs.items()},
        crashes=crashes,
        between=max(pairs.values(), key=lambda pair: pair.differing),
        here=here,
        notes=tuple(notes),
    )


def run_on(
    cores: Sequence[Machine], path: Path, samples: Mapping[str, np.ndarray], place: Path
) -> tuple[dict[str, Run], dict[str, onnx.ModelProto], dict[str, str]]:
    """By core: what the model answers, the graph onnxruntime runs, and how it ended where it did not answer.

    Raises:
        Crash: no core at all can run it.
    """
    runs, graphs, crashes = {}, {}, {}
    for core in cores:
        written = place / f"{core.name}.onnx"
        try:
            runs[core.name] = emulator.run(core, path, samples, optimized=written)
            graphs[core.name] = onnx.load(written)
        except Crash as error:
            crashes[core.name] = str(error)
    if not runs:
        raise Crash(f"{path} runs on no core: {'; '.join(crashes.values())}")
    return runs, graphs, crashes


def alike(some: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Whether two cores run the same operators."""
    return optimized.operators(some) == optimized.operators(other)


def difference(some: Run, other: Run, graph: onnx.ModelProto) -> Difference:
    """Compare the outputs of two runs bit by bit."""
    differing = elements = 0
    largest, steps = 0.0, None
    for name, values in some.values.items():
        others = other.values[name]
        if values.shape != others.shape or values.dtype != others.dtype:
            raise DeviceError(
                f"Output {name!r} has another shape or type on another machine: {values.shape}, {others.shape}."
            )
        bits = np.dtype(f"u{values.dtype.itemsize}")
        unequal = np.ascontiguousarray(values).view(bits) != np.ascontiguousarray(others).view(bits)
        differing += int(unequal.sum())
        elements += values.size
        if unequal.any():
            apart = np.abs(values[unequal].astype(np.float64) - others[unequal].astype(np.float64))
            worst = float(np.nan_to_num(apart, nan=np.inf).max())
            largest = max(largest, worst)
            scale = optimized.step(graph, name)
            steps = steps if scale is None else max(steps or 0.0, worst / scale)
    return Difference(differing, elements, largest, steps)


def located(graph: onnx.ModelProto, wide: Path, samples: Mapping[str, np.ndarray], inner: Run, machine: Machine) -> str:
    """Where a machine first answers otherwise, in words."""
    name = HERE if machine.name == "here" else machine.name
    try:
        found = emulator.run(machine, wide, samples, as_is=True, values=False)
    except Crash as error:
        return f"where {name} first differs is not known: {error}"
    where = optimized.first_difference(graph, inner.sha256, found.sha256)
    return f"{name} first differs at {where}" if where else f"{name} runs the graph of ARM to the same bits"


def page(results: Sequence[Result], summary: str, real: bool) -> str:
    """The results as Markdown."""
    rows = [HEADINGS, ("---",) * len(HEADINGS), *map(row, results)]
    lines = [
        "# int8 outputs on emulated ARM cores",
        "",
        f"Made by `python tools/arm/identical.py`. Emulated: {summary}. {HERE}: onnxruntime {ort.__version__}, "
        f"a CPU of kind {targets.detect().name}. {'Real' if real else 'Made-up'} samples, one at a time, one thread; "
        "no times are taken. *In float* are operators that compute in float, and conversions inside the network: if "
        "there are none, the cores have to agree in every bit.",
        "",
        *("| " + " | ".join(cells) + " |" for cells in rows),
    ]
    notes = [f"- {result.name}: {note}." for result in results for note in result.notes]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def row(result: Result) -> tuple[str, ...]:
    """The cells of one model."""
    same = "identical" if result.identical else str(result.between)
    return (
        result.name,
        str(result.count),
        counted(result.operators),
        counted(result.floats) or "none",
        ", ".join([*result.sha256, *(f"{core} crashed" for core in result.crashes)]),
        same if len(result.sha256) > 1 else "one core only",
        next(iter(result.sha256.values()))[:12],
        str(result.here),
    )


def counted(operators: Mapping[str, int]) -> str:
    """Operators in words."""
    return ", ".join(f"{count} {name}" for name, count in operators.items())


if __name__ == "__main__":
    sys.exit(main())
