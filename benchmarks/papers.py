"""What the papers did with training, done again by ``edgepress finetune``, beside the papers' own figures.

    python benchmarks/papers.py                                 everything, hours of CPU
    python benchmarks/papers.py entropy --only lenet5 --seconds 500
    python benchmarks/papers.py --report                        only the tables, from what was measured before

    entropy   Wiedemann 2018: all bytes of the coded file against the fp32 ONNX file, and points lost. The network is
              pruned first, without labels or training (``compress``), then trained for the file
    flat      Ebrahimi 2021: from scratch, pruned along the training, at once, or at its end: equal sizes, equal steps
    anneal    Shah 2020: units that depend on others go without a loss; LeNet-5 annealed to 3 % of its weights
    mint      Ganesh 2020: a perceptron with masks, and with units really removed; what both take to run

Every row is a piece of its own: rows that are in ``results/papers-SECTION.json`` already are not made again, so the
work can be done in pieces (``--seconds``: no piece is begun after that; a piece that was killed goes on where it was).
Training sees training images only, decisions are made on a part of them that is held out; accuracy is counted on the
whole test set at the end, once. CPU seconds are those of all commands of a row, one thread. Models and data are looked
for in ``../shared`` or the folder named by EDGEPRESS_SHARED; CIFAR-10 also in a folder of its binary version
(``--cifar``: data_batch_1.bin, ...).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import zoo
from onnx import helper, numpy_helper

from edgepress.bench import compare
from edgepress.calibrate import open_feed
from edgepress.model import Model, write_atomically
from edgepress.request import report_path
from edgepress.train.batches import Batches
from edgepress.train.pruning.anneal import thinned
from edgepress.train.ranks import Ranks
from edgepress.train.settings import Settings

Row = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SECTIONS = ("entropy", "flat", "anneal", "mint")
UNLABELLED = 2048
SEEDS = 3


# --- data ------------------------------------------------------------------------------------------------------


class Place:
    """Where models and data are, and where this benchmark keeps its files."""

    def __init__(self, folder: Path, cifar: Path | None) -> None:
        """Make the folder."""
        self.folder, self.cifar = folder, cifar
        folder.mkdir(parents=True, exist_ok=True)

    def model(self, name: str) -> Path:
        """A trained model."""
        return zoo.SHARED / "models" / f"{name}.onnx"

    def samples(self, data: str, kind: str) -> Path:
        """``train``, ``test`` or ``few`` (unlabelled training images) as an .npz."""
        path = self.folder / f"{data}-{kind}.npz"
        if not path.is_file():
            x, y = self._read(data, "test" if kind == "test" else "train")
            if kind == "few":
                np.savez(path, input=x[:UNLABELLED])
            else:
                np.savez(path, input=x, label=y)
        return path

    def _read(self, data: str, part: str) -> tuple[np.ndarray, np.ndarray]:
        share = zoo._shared()
        if data == "cifar" and self.cifar is not None:
            x, y = binary(self.cifar, part)
            return share.norm_torch(x), y
        names = {"mnist": "mnist", "fashion": "fashion_mnist", "cifar": "cifar10_jpegq75"}
        inputs = {"mnist": share.mnist_input, "fashion": share.fashion_input, "cifar": share.norm_torch}
        arrays = share.load(zoo.SHARED / "data" / f"{names[data]}.npz")
        return inputs[data](arrays[f"x_{part}"]), arrays[f"y_{part}"].astype(np.int64)


def binary(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 in its binary version: a label and 3072 bytes for each image."""
    names = ["test_batch.bin"] if part == "test" else [f"data_batch_{number}.bin" for number in range(1, 6)]
    raw = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names])
    return raw[:, 1:].reshape(-1, 3, 32, 32), raw[:, 0].astype(np.int64)


# --- commands --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """A command that was run: its report, CPU seconds, and the line."""

    report: Row
    cpu: float
    line: str


def edgepress(command: str, *arguments: str | Path) -> Ran:
    """Run a command in a process of its own, on one thread."""
    words = [command, *map(str, arguments)]
    output = Path(words[words.index("-o") + 1])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "edgepress", *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    line = shlex.join(["edgepress", *(Path(word).name if "/" in word else word for word in words)])
    return Ran(json.loads(report_path(output).read_text()), spent, line)


def trained(place: Place, model: Path, data: str, output: str, *arguments: str | Path) -> Ran:
    """``finetune`` on the whole training set, judged on the whole test set at the end; goes on where it was stopped."""
    given = ("--data", place.samples(data, "train"), "--eval-data", place.samples(data, "test"), "--threads", "1", "-q")
    return edgepress("finetune", model, *given, "-o", place.folder / output, "--resume", *arguments)


def judged(ran: Ran) -> Row:
    """Figures that every row has."""
    report = ran.report
    start, result = report["evaluated_start"], report["evaluated_result"]
    return {
        "accuracy": result["value"], "start_accuracy": start["value"], "hold_out_lost": report["result"]["lost"],
        "parameters": report["after"]["parameters"], "nonzero": report["after"]["nonzero"],
        "file_bytes": report["after"]["file_bytes"], "coded_bytes": report["after"]["coded_bytes"],
        "improved": report["improved"], "epochs": report["epochs"][-1]["number"], "figures": report["figures"],
    }  # fmt: skip


# --- entropy ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coded:
    """A network to train for its file.

    Attributes:
        model: name of the trained model.
        data: its data set.
        size: share of the file that pruning leaves.
        options: of the training.
        goal: at least so many times smaller, and at most so many points lost.
    """

    model: str
    data: str
    size: float
    options: tuple[str, ...]
    goal: tuple[float, float]


CODED = {
    "lenet5": Coded(
        "mnist_lenet5caffe",
        "mnist",
        0.08,
        ("--epochs", "20", "--every", "2", "--beta", "0.18", "--one-step"),
        (600, 0.5),
    ),
    "lenet300100": Coded(
        "mnist_lenet300100",
        "mnist",
        0.3,
        ("--epochs", "24", "--every", "4", "--beta", "0.1", "--one-step"),
        (210, 0.5),
    ),
    "fashion_vgg7bn": Coded(
        "fashion_vgg7bn_bn",
        "fashion",
        0.55,
        ("--epochs", "12", "--every", "2", "--beta", "0.08", "--one-step"),
        (50, 0.7),
    ),
    "cifar_vgg16q": Coded("cifar10jpeg_vgg16q_folded", "cifar", 0.3, ("--epochs", "8", "--beta", "0.02"), (71, 1.0)),
}
PUBLISHED = {
    "lenet5": "DeepCABAC ×139 (99.16 %), EPR ×606 (99.1 %), MIRACLE ×1110 (99.04 %)",
    "lenet300100": "DeepCABAC ×55 (98.04 %)",
    "fashion_vgg7bn": "Wiedemann ×71 (VGG-like, CIFAR-10)",
    "cifar_vgg16q": "Wiedemann ×71 (VGG-like), DeepCABAC ×62.5",
}


def entropy(place: Place, name: str, form: str, seed: int) -> Row:
    """Prune, then train for the coded file."""
    case = CODED[name]
    original, narrow = place.model(case.model), place.folder / f"{name}-narrow.onnx"
    cpu, lines = 0.0, []
    spent = place.folder / f"{name}-narrow.cpu"
    if not narrow.is_file():
        given = ("--data", place.samples(case.data, "few"), "--no-quantize", "--size-ratio", str(case.size))
        ran = edgepress("compress", original, *given, "--max-drop", "3", "-q", "-o", narrow)
        spent.write_text(json.dumps([ran.cpu, ran.line]))
    cpu, line = json.loads(spent.read_text())
    given = ("--method", "entropy", "--form", form, "--teacher", original, "--labels", "--seed", str(seed))
    more = ("--augment", "shift" if case.data != "cifar" else "flip", "--max-drop", "2", *case.options)
    ran = trained(place, narrow, case.data, f"{name}-{form}-{seed}.onnx", *given, *more)
    lines = [line, ran.line]
    before = zoo_accuracy(place, original, case.data)
    found = judged(ran)
    times = original.stat().st_size / found["coded_bytes"] if found["coded_bytes"] else None
    return {**found, "before": before, "lost": before - found["accuracy"], "times": times, "goal": case.goal,
            "cpu": cpu + ran.cpu, "commands": lines}  # fmt: skip


def zoo_accuracy(place: Place, model: Path, data: str) -> float:
    """Percent right on the test set, in onnxruntime."""
    loaded = Model.load(model)
    with np.load(place.samples(data, "test")) as arrays:
        right = zoo.evaluate(loaded.data, arrays["input"], True).argmax(1) == arrays["label"]
    return 100 * float(right.mean())


# --- flat --------------------------------------------------------------------------------------------------------

FLAT = {
    "lenet300100": ("mnist_lenet300100", "mnist", 0.0723, ("--epochs", "3.37")),
    "fashion_vgg7": ("fashion_vgg7bn_bn", "fashion", 0.25, ("--epochs", "4")),
}
SCHEDULES: dict[str, tuple[str, ...]] = {
    "along": ("--when", "along"),
    "along, no flatness term": ("--when", "along", "--flatness", "0"),
    "along, no redistribution": ("--when", "along", "--no-redistribute"),
    "cut at 70 %, train on": ("--when", "cut"),
    "at the end": ("--when", "end"),
}


def flat(place: Place, name: str, schedule: str, seed: int) -> Row:
    """Train from scratch and prune."""
    model, data, keep, options = FLAT[name]
    mark = schedule.replace(" ", "").replace(",", "-").replace("%", "")
    given = (
        "--method",
        "flat",
        "--from-scratch",
        "--labels",
        "--keep",
        str(keep),
        "--max-drop",
        "100",
        "--seed",
        str(seed),
    )
    ran = trained(
        place, place.model(model), data, f"flat-{name}-{mark}-{seed}.onnx", *given, *options, *SCHEDULES[schedule]
    )
    return {**judged(ran), "cpu": ran.cpu, "commands": [ran.line]}


# --- anneal ------------------------------------------------------------------------------------------------------


def dependent(place: Place, name: str, kind: str, seed: int) -> Row:
    """Double the hidden units of a trained perceptron by combinations of them, and take them away again."""
    model = doubled(Model.load(place.model("mnist_lenet300100")), seed)
    feed = open_feed(str(place.samples("mnist", "few")), model)
    batches = Batches(feed, Settings(batch=64, labels=True, seed=seed), Ranks())
    began = time.process_time()
    smaller, turns = model, 0
    while (
        found := thinned(smaller, batches.chosen_feed(2048), batches.first(2048), 0.1, goal(model), seed)
    ) is not None:
        smaller, turns = found[0], turns + 1
    with np.load(place.samples("mnist", "test")) as arrays:
        x, labels = arrays["input"], arrays["label"]
        before, after = (zoo.evaluate(each.data, x, True) for each in (model, smaller))
    return {
        "accuracy": 100 * float((after.argmax(1) == labels).mean()),
        "start_accuracy": 100 * float((before.argmax(1) == labels).mean()),
        "changed_answers": int((after.argmax(1) != before.argmax(1)).sum()),
        "relative_error": float(np.abs(after - before).max() / np.abs(before).max()),
        "start_parameters": model.parameters, "parameters": smaller.parameters, "turns": turns,
        "cpu": time.process_time() - began, "commands": [],
    }  # fmt: skip


def goal(model: Model) -> int:
    """Weights of the perceptron before its units were doubled."""
    return 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10


def doubled(model: Model, seed: int) -> Model:
    """Every hidden unit twice, a positive multiple of the first: it depends on it; readers share its work."""
    random = np.random.default_rng(seed)
    arrays = {name: array.astype(np.float64) for name, array in model.constants.items() if array.dtype == np.float32}
    gemms = [node for node in model.nodes if node.op == "Gemm"]
    for first, second in pairwise(gemms):
        weight, bias, after = (arrays[name] for name in (first.inputs[1], first.inputs[2], second.inputs[1]))
        rows = 0 if first.attributes.get("transB", 0) else 1
        columns = 1 if second.attributes.get("transB", 0) else 0
        scale, share = random.uniform(0.5, 2.0, len(bias)), random.uniform(0.2, 0.8, len(bias))
        along = [1, 1]
        along[rows] = len(bias)
        arrays[first.inputs[1]] = np.concatenate([weight, weight * scale.reshape(along)], axis=rows)
        arrays[first.inputs[2]] = np.concatenate([bias, bias * scale])
        across = [1, 1]
        across[columns] = len(bias)
        parts = [after * share.reshape(across), after * ((1 - share) / scale).reshape(across)]
        arrays[second.inputs[1]] = np.concatenate(parts, axis=columns)
    proto = model.edit()
    kept = [item for item in proto.graph.initializer if item.name not in arrays]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(
        [*kept, *(numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items())]
    )
    del proto.graph.value_info[:]
    return Model.of(proto)


def anneal(place: Place, name: str, kind: str, seed: int) -> Row:
    """LeNet-5 down to 3 % of its weights."""
    given = (
        "--method",
        "anneal",
        "--labels",
        "--augment",
        "shift",
        "--keep",
        "0.03",
        "--max-drop",
        "1",
        "--seed",
        str(seed),
    )
    options = ("--epochs", "16", "--every", "0.25")
    ran = trained(place, place.model("mnist_lenet5caffe"), "mnist", f"anneal-{name}-{seed}.onnx", *given, *options)
    return {**judged(ran), "cpu": ran.cpu, "commands": [ran.line]}


# --- mint --------------------------------------------------------------------------------------------------------

WIDTHS = (784, 500, 300, 10)


def perceptron(path: Path) -> Path:
    """The perceptron of the paper, with weights of zero: training starts it from random ones."""
    nodes, arrays = [helper.make_node("Flatten", ["input"], ["x0"])], {}
    for number, (inputs, outputs) in enumerate(pairwise(WIDTHS)):
        last = number == len(WIDTHS) - 2
        arrays[f"w{number}"], arrays[f"b{number}"] = (
            np.ones((outputs, inputs), np.float32),
            np.zeros(outputs, np.float32),
        )
        name = "logits" if last else f"y{number}"
        nodes.append(
            helper.make_node("Gemm", [f"x{number}", f"w{number}", f"b{number}"], [name], f"fc{number}", transB=1)
        )
        if not last:
            nodes.append(helper.make_node("Relu", [name], [f"x{number + 1}"]))
    kind = onnx.TensorProto.FLOAT
    given = [helper.make_tensor_value_info("input", kind, ["N", 1, 28, 28])]
    made = [helper.make_tensor_value_info("logits", kind, ["N", 10])]
    initial = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "perceptron", given, made, initial)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def mint(place: Place, name: str, kind: str, seed: int) -> Row:
    """The dense network, then masks of 96.2 % of the middle layer, or as many of all weights really removed."""
    dense = place.folder / f"mint-dense-{seed}.onnx"
    cpu = 0.0
    if not dense.is_file():
        start = perceptron(place.folder / "perceptron.onnx")
        given = (
            "--from-scratch",
            "--labels",
            "--augment",
            "shift",
            "--epochs",
            "20",
            "--every",
            "2",
            "--seed",
            str(seed),
        )
        cpu = trained(place, start, "mnist", dense.name, *given).cpu
    more = ("--labels", "--augment", "shift", "--seed", str(seed), "--max-drop", "5", "--every", "2")
    options = {
        "masks": ("--method", "mint", "--keep", "0.038", "--epochs", "20"),
        "removal": ("--method", "flat", "--keep", "0.04", "--epochs", "30"),
    }[kind]
    ran = trained(place, dense, "mnist", f"mint-{kind}-{seed}.onnx", *more, *options)
    result = place.folder / f"mint-{kind}-{seed}.onnx"
    found = judged(ran)
    with np.load(place.samples("mnist", "test")) as arrays:
        feeds = [{"input": arrays["input"][at : at + 1]} for at in range(16)]
    timing = compare({"dense": dense.read_bytes(), kind: result.read_bytes()}, feeds, threads=1, seconds=4, seed=0,
                     reference="dense")  # fmt: skip
    total = sum((a + 1) * b for a, b in pairwise(WIDTHS))
    return {**found, "removed": 100 * (1 - found["nonzero"] / total), "latency": timing.ratios[0].median,
            "notes": ran.report["notes"], "cpu": cpu + ran.cpu, "commands": [ran.line]}  # fmt: skip


# --- pieces, results, tables ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """One row to make."""

    section: str
    name: str
    kind: str
    seed: int
    make: Callable[[Place, str, str, int], Row]

    @property
    def key(self) -> Row:
        """What tells it from others."""
        return {"name": self.name, "kind": self.kind, "seed": self.seed}


def pieces() -> Iterable[Piece]:
    """All rows, in order."""
    for seed in range(SEEDS):
        for name in CODED:
            for form in ("straight", "relaxed") if name.startswith("lenet") else ("straight",):
                yield Piece("entropy", name, form, seed, entropy)
        for name in FLAT:
            for schedule in SCHEDULES:
                yield Piece("flat", name, schedule, seed, flat)
        yield Piece("anneal", "dependent units", "lossless", seed, dependent)
        yield Piece("anneal", "lenet5", "anneal", seed, anneal)
        for kind in ("masks", "removal"):
            yield Piece("mint", "perceptron", kind, seed, mint)


def results(section: str) -> Path:
    """Where rows of a section are kept."""
    return RESULTS / f"papers-{section}.json"


def rows_of(section: str) -> list[Row]:
    """The rows that were made."""
    path = results(section)
    return json.loads(path.read_text()) if path.is_file() else []


def keep(piece: Piece, row: Row) -> None:
    """Put a row to the others, in the place of an older one."""
    others = [each for each in rows_of(piece.section) if {k: each[k] for k in piece.key} != piece.key]
    every = sorted([*others, {**piece.key, **row}], key=lambda each: (each["name"], each["kind"], each["seed"]))
    write_atomically(results(piece.section), (json.dumps(every, indent=1) + "\n").encode())


def mean(rows: Sequence[Row], what: Callable[[Row], float | None]) -> str:
    """Mean over seeds, with the range where there are several."""
    values = [value for value in map(what, rows) if value is not None]
    if not values:
        return "—"
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (headings, ["---"] * len(headings), *lines))


def grouped(section: str) -> list[tuple[str, str, list[Row]]]:
    """Rows by name and kind."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows_of(section):
        found.setdefault((row["name"], row["kind"]), []).append(row)
    return [(*key, rows) for key, rows in found.items()]


Column = tuple[str, Callable[[Sequence[Row]], str]]


def averaged(what: str, per: float = 1.0) -> Callable[[Sequence[Row]], str]:
    """A figure of the rows, divided by something."""
    return lambda rows: mean(rows, lambda row: None if row.get(what) is None else row[what] / per)


def of_method(name: str) -> Callable[[Sequence[Row]], str]:
    """A figure that the method found out."""
    return lambda rows: mean(rows, lambda row: row["figures"].get(name))


def count(rows: Sequence[Row]) -> str:
    """How many seeds."""
    return str(len(rows))


MINUTES: Column = ("CPU min", averaged("cpu", 60))
COLUMNS: dict[str, tuple[Column, ...]] = {
    "entropy": (
        ("seeds", count),
        ("times smaller", averaged("times")),
        ("points lost", averaged("lost")),
        ("accuracy", averaged("accuracy")),
        ("coded bytes", averaged("coded_bytes")),
        MINUTES,
        ("goal", lambda rows: "×{:g} at {:g}".format(*rows[0]["goal"])),
        ("published", lambda rows: PUBLISHED.get(rows[0]["name"], "")),
    ),
    "flat": (
        ("seeds", count),
        ("accuracy", averaged("accuracy")),
        ("weights", averaged("parameters")),
        ("radius", of_method("spectral radius of the Kronecker factors after")),
        ("Hessian", of_method("largest eigenvalue of the Hessian after")),
        MINUTES,
    ),
    "anneal": (
        ("seeds", count),
        ("accuracy before", averaged("start_accuracy")),
        ("after", averaged("accuracy")),
        ("weights", averaged("parameters")),
        ("changed answers", averaged("changed_answers")),
        MINUTES,
    ),
    "mint": (
        ("seeds", count),
        ("accuracy before", averaged("start_accuracy")),
        ("after", averaged("accuracy")),
        ("weights removed, %", averaged("removed")),
        ("file, kB", averaged("file_bytes", 1e3)),
        ("latency", averaged("latency")),
        MINUTES,
    ),
}
WORDS = {
    "entropy": """## Entropy-constrained training (Wiedemann 2018)

All bytes of the coded file, graph included, against the fp32 ONNX file. Points lost against the trained original.""",
    "flat": """## Pruning toward flat minima (Ebrahimi 2021)

From scratch, with equal steps and equal sizes; radii are those of the Kronecker factors and of the true Hessian.""",
    "anneal": """## Annealed removal (Shah 2020)

Units that depend on others are added to LeNet-300-100, and found; LeNet-5 has 431,080 weights at the start.""",
    "mint": """## Masks and removal (Ganesh 2020)

Perceptron 784-500-300-10. Published: 96.20 % masked (of the middle layer), 98.59 % before, 98.47 % after. Latency is
relative to the dense network, batch 1, one thread.""",
}
HEAD = """# The papers, done again

Made by `python benchmarks/papers.py`; means over seeds, with their range. Only training images are trained and decided
on; accuracy is that of the whole test set. CPU minutes are those of all commands of a row, one thread."""


def report() -> str:
    """All tables."""
    parts = [HEAD]
    for section in SECTIONS:
        columns = COLUMNS[section]
        lines = [[name, kind, *(cell(rows) for _, cell in columns)] for name, kind, rows in grouped(section)]
        parts += [WORDS[section], table(("network", "how", *(heading for heading, _ in columns)), lines)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Make the rows that are missing, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all without")
    parser.add_argument("--only", help="pieces whose name or kind holds this")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no piece after so many")
    parser.add_argument("--again", action="store_true", help="make rows that are there already, too")
    parser.add_argument("--report", action="store_true", help="only the tables")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "papers")
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10's binary version")
    given = parser.parse_args()
    place, began = Place(given.folder, given.cifar), time.monotonic()
    for piece in () if given.report else pieces():
        wanted = piece.section in (given.sections or SECTIONS) and piece.seed < given.seeds
        if not wanted or (given.only and given.only not in (piece.name, piece.kind)):
            continue
        there = any({k: row[k] for k in piece.key} == piece.key for row in rows_of(piece.section))
        if (there and not given.again) or time.monotonic() - began > given.seconds:
            continue
        row = piece.make(place, piece.name, piece.kind, piece.seed)
        keep(piece, row)
        print(piece.section, json.dumps({**piece.key, **{k: v for k, v in row.items() if k != "figures"}}), flush=True)
    write_atomically(RESULTS / "papers.md", report().encode())


if __name__ == "__main__":
    main()
