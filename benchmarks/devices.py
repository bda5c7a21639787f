"""Devices: whether the figures of `edgepress bench` can be trusted.

    python benchmarks/devices.py aa [--runs 100] [--seconds 3] [--loaded 10] [--minutes 9] [--models NAME...]

``aa`` times networks of ``../shared`` (or the folder named by EDGEPRESS_SHARED) against themselves, in this process:

    again     the same file once more: the 95 % interval of the ratio must contain 1
    more      the file with two further products of matrices that take 5 % of its time: must be found slower, that is
              with an interval outside the noise floor
    loaded    plain int8 against float, by turns alone and beside a second process that loads all cores: the ratio must
              move by less than 5 % (from the median of the runs alone)

A part takes ``--minutes`` at most; what is done is kept in ``devices-aa.json``, and the same command goes on with the
rest. How large the two products must be is measured before the first run and kept as well. What 5 % came out as is in
the table. The exit status is 1 while a goal is missed or runs are missing. Take figures on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import zoo
from onnx import helper, numpy_helper

from edgepress.bench import Machine, Timing, compare, describe
from edgepress.devices import agent

MODELS = {"cifar10_resnet20_bn": "cifar10_resnet_calib", "mnist_lenet5caffe": "mnist_lenet_calib"}
"""Networks, and the samples that their int8 form is calibrated with."""

EXTRA = 0.05
GOAL = 95
"""Of a hundred runs."""

MOVES = 0.05
"""Most that a ratio may move under load, relatively."""

FIRST_WIDTH, CORRECTIONS, CORRECTION_S = 1000, 6, 4.0

BURN = """
import numpy
a = numpy.random.default_rng(0).random((1024, 1024), dtype=numpy.float32)
print("busy", flush=True)
while True:
    a @ a
"""


def network(name: str) -> tuple[bytes, dict[str, np.ndarray]]:
    """A network of the shared folder, and one made-up sample."""
    data = (zoo.SHARED / "models" / f"{name}.onnx").read_bytes()
    (stated,) = agent.opened(data, 1).get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in stated.shape]
    return data, {stated.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}


def heavier(data: bytes, width: int) -> bytes:
    """The network with more work: its output through a layer of that many neurons, and back."""
    proto = onnx.load_from_string(data)
    graph, random = proto.graph, np.random.default_rng(0)
    output = graph.output[0].name
    classes = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    for node in graph.node:
        node.output[:] = ["before_more" if name == output else name for name in node.output]
    for name, shape in (("more_up", (classes, width)), ("more_down", (width, classes))):
        graph.initializer.append(numpy_helper.from_array(random.random(shape, dtype=np.float32) / width, name))
    graph.node.append(helper.make_node("MatMul", ["before_more", "more_up"], ["in_more"]))
    graph.node.append(helper.make_node("MatMul", ["in_more", "more_down"], [output]))
    return bytes(proto.SerializeToString())


def width_for(data: bytes, feed: Mapping[str, np.ndarray], extra: float) -> int:
    """The width at which :func:`heavier` takes that much longer, relatively: time rises about evenly with it."""
    width = FIRST_WIDTH
    for seed in range(CORRECTIONS):
        models = {"first": data, "more": heavier(data, width)}
        ratio = compare(models, [feed], seconds=CORRECTION_S, seed=seed, reference="first").ratio("more")
        assert ratio is not None
        width = max(1, round(width * float(np.clip(extra / max(ratio.median - 1, 1e-6), 1 / 8, 8))))
    return width


@contextmanager
def load() -> Iterator[None]:
    """A second process that keeps all cores busy."""
    cores = str(os.cpu_count() or 1)
    variables = {**os.environ, "OPENBLAS_NUM_THREADS": cores, "OMP_NUM_THREADS": cores}
    with subprocess.Popen([sys.executable, "-c", BURN], env=variables, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def int8(name: str) -> bytes:
    """The network in plain int8 by onnxruntime's own tool."""
    from edgepress.calibrate import open_feed
    from edgepress.errors import Refusal
    from edgepress.model import Model
    from edgepress.normalize import normalize
    from edgepress.quantize.baseline import plain_static_int8

    model = normalize(Model.load(zoo.SHARED / "models" / f"{name}.onnx"), []).model
    feed = open_feed(str(zoo.SHARED / "calib" / f"{MODELS[name]}.npz"), model)
    with tempfile.TemporaryDirectory() as folder:
        made = plain_static_int8(model, feed, Path(folder))
    if isinstance(made, Refusal):
        raise SystemExit(str(made))
    return made.data


def found(timing: Timing, name: str) -> dict[str, Any]:
    """What a run said of a model."""
    ratio = timing.ratio(name)
    assert ratio is not None
    return {"ratio": ratio.median, "low": ratio.low, "high": ratio.high, "finding": ratio.noise}


class Kept:
    """Results in a file, written after every run."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Go on with a file of the same settings; begin anew otherwise."""
        self.path = path
        before = json.loads(path.read_text()) if path.is_file() else {}
        self.all: dict[str, Any] = before if before.get("settings") == settings else {"settings": settings}

    def of(self, name: str) -> dict[str, Any]:
        """What is known of a network."""
        found: dict[str, Any] = self.all.setdefault("models", {}).setdefault(name, {"runs": {}, "loads": {}})
        return found

    def save(self) -> None:
        """Write beside and rename."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self.all, indent=1) + "\n")
        beside.replace(self.path)


def take(kept: Kept, names: Sequence[str], runs: int, loaded: int, seconds: float, until: float) -> None:
    """Take the runs that are missing, until the time is up."""
    kept.all["machine"] = _said(describe())
    for name in names:
        data, feed = network(name)
        state = kept.of(name)
        if "width" not in state:
            state["width"] = width_for(data, feed, EXTRA)
            kept.save()
        models = {"first": data, "again": data, "more": heavier(data, state["width"])}
        for seed in range(runs):
            if str(seed) not in state["runs"] and time.monotonic() < until:
                timing = compare(models, [feed], seconds=seconds, seed=seed, reference="first")
                row = {key: found(timing, key) for key in ("again", "more")}
                state["runs"][str(seed)] = {
                    **row, "floor": timing.noise_floor, "openings": len(timing.openings), "rounds": timing.rounds
                }  # fmt: skip
                kept.save()
        _take_loaded(kept, name, data, feed, loaded, seconds, until)


def _take_loaded(
    kept: Kept, name: str, data: bytes, feed: Mapping[str, np.ndarray], count: int, seconds: float, until: float
) -> None:
    state = kept.of(name)["loads"]
    missing = [seed for seed in range(count) if str(seed) not in state]
    if not missing or time.monotonic() >= until:
        return
    models = {"first": data, "int8": int8(name)}
    for seed in missing:
        if time.monotonic() >= until:
            return
        alone = compare(models, [feed], seconds=seconds, seed=seed, reference="first")
        with load():
            beside = compare(models, [feed], seconds=seconds, seed=seed, reference="first")
        state[str(seed)] = {"alone": found(alone, "int8"), "loaded": found(beside, "int8")}
        kept.save()


def _said(machine: Machine) -> str:
    return f"{machine.cpu}, {machine.cores} cores, onnxruntime {machine.onnxruntime}, {machine.os}"


def summary(name: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one network."""
    runs, loads = list(state["runs"].values()), list(state["loads"].values())
    within = sum(run["again"]["low"] <= 1.0 <= run["again"]["high"] for run in runs)
    claimed = sum(run["again"]["finding"] != "no difference" for run in runs)
    slower = sum(run["more"]["finding"] == "slower" for run in runs)
    more = float(np.median([run["more"]["ratio"] for run in runs])) if runs else float("nan")
    moved = float("nan")
    if loads:
        alone = float(np.median([run["alone"]["ratio"] for run in loads]))
        moved = max(abs(run["loaded"]["ratio"] / alone - 1) for run in loads)
    wide = [run["again"]["high"] / run["again"]["low"] - 1 for run in runs] or [float("nan")]
    return {
        "name": name, "runs": len(runs), "within": within, "claimed": claimed, "slower": slower, "more": more,
        "width": float(np.median(wide)), "loads": len(loads), "moved": moved,
    }  # fmt: skip


def page(kept: Kept) -> str:
    """The results as Markdown."""
    settings = kept.all["settings"]
    rows = [summary(name, state) for name, state in kept.all.get("models", {}).items()]
    lines = [
        "# Trust in `edgepress bench`",
        "",
        f"Runs of {settings['seconds']:g} s on {kept.all.get('machine', 'an unknown machine')}.",
        "",
        "| network | runs | same file: interval contains 1 | a difference is claimed | median width of the interval "
        "| 5 % more work: found slower | it takes | runs beside a load | greatest move of int8 against float |",
        "|" + "---|" * 9,
    ]
    lines += [
        f"| {row['name']} | {row['runs']} | {row['within']} | {row['claimed']} | {100 * row['width']:.2f} % "
        f"| {row['slower']} | {row['more']:.3f} | {row['loads']} | {_percent(row['moved'])} |"
        for row in rows
    ]
    goals = (
        f"Goals: the interval contains 1, and more work is found, in {GOAL} of 100 runs at least; under load the ratio "
        f"moves by less than {100 * MOVES:.0f} %."
    )
    return "\n".join([*lines, "", goals, "", "`python benchmarks/devices.py aa` measures it again."]) + "\n"


def _percent(value: float) -> str:
    return "not taken" if np.isnan(value) else f"{100 * value:.1f} %"


def reached(kept: Kept, names: Sequence[str], runs: int, loaded: int) -> bool:
    """Whether every run was taken and every goal is met."""
    rows = [summary(name, kept.of(name)) for name in names]
    return all(
        row["runs"] >= runs
        and row["loads"] >= loaded
        and min(row["within"], row["slower"]) >= GOAL / 100 * row["runs"]
        and (not loaded or row["moved"] < MOVES)
        for row in rows
    )


def aa(chosen: argparse.Namespace) -> int:
    """Same against same, a little more work, and a load beside."""
    kept = Kept(chosen.out / "devices-aa.json", {"seconds": chosen.seconds})
    take(kept, chosen.models, chosen.runs, chosen.loaded, chosen.seconds, time.monotonic() + 60 * chosen.minutes)
    kept.save()
    (chosen.out / "devices-aa.md").write_text(page(kept))
    sys.stdout.write(page(kept))
    return 0 if reached(kept, chosen.models, chosen.runs, chosen.loaded) else 1


def main() -> int:
    """Run a section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sections = parser.add_subparsers(required=True)
    section = sections.add_parser("aa", help="same against same")
    section.add_argument("--runs", type=int, default=100)
    section.add_argument("--seconds", type=float, default=3.0)
    section.add_argument("--loaded", type=int, default=10)
    section.add_argument("--minutes", type=float, default=9.0)
    section.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    section.add_argument("--out", type=Path, default=zoo.HERE / "results")
    section.set_defaults(run=aa)
    chosen = parser.parse_args()
    return int(chosen.run(chosen))


if __name__ == "__main__":
    sys.exit(main())
