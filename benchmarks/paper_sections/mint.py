"""Ganesh, Corso & Sekeh 2020: a perceptron 784-500-300-10 with masks, and with units that are really removed.

The paper prunes 96.20 % of the weights between the two hidden layers, where alone its method has something to remove,
and counts zeros in masks. Here that is done as it says (``masks``); by removing units until as much of that matrix is
gone (``removal``); and until 96 % of all weights are gone, those of the first layer included (``removal, all``). The
dense network, trained from random weights, is the start of all three, and its answers are learned again. It has not
seen the hold-out images, so what is chosen by them (shares, epochs, rates) is chosen fairly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgepress.bench import compare
from edgepress.model import Model
from paper_sections.commands import Row, judged, trained
from paper_sections.kept import Piece
from paper_sections.place import Place

WIDTHS = (784, 500, 300, 10)
SEEDS = 3
OPTIONS = {
    "masks": ("--method", "mint", "--keep", "0.038", "--epochs", "20"),
    "removal": ("--method", "flat", "--keep", "0.082", "--epochs", "20"),
    "removal, all": ("--method", "flat", "--keep", "0.04", "--epochs", "20"),
}
AFTER = ("--method", "distil", "--epochs", "40", "--lr", "0.002")
"""Of the training after a removal; masks are trained under by their own method."""


def pieces() -> Iterator[Piece]:
    """All rows."""
    for seed in range(SEEDS):
        for kind in OPTIONS:
            yield Piece("mint", "perceptron", kind, seed, row)


def row(place: Place, name: str, kind: str, seed: int) -> Row:
    """The dense network, then masks or removal."""
    start, spent = dense(place, seed)
    given = ("--augment", "shift", "--seed", str(seed), "--teacher", start, "--every", "2")
    mark = kind.replace(", ", "-")
    ran = trained(place, start, "mnist", f"mint-{mark}-{seed}.onnx", *given, "--max-drop", "5", *OPTIONS[kind])
    runs = [ran]
    if kind != "masks":
        runs.append(trained(place, ran.output, "mnist", f"mint-{mark}-after-{seed}.onnx", *given, *AFTER))
    small, files = runs[-1], {"dense": start.read_bytes(), "small": runs[-1].output.read_bytes()}
    images = place.test("mnist")[0]
    feeds = [{"input": images[at : at + 1]} for at in range(16)]
    timing = compare(files, feeds, threads=1, seconds=4, seed=0, reference="dense")
    return {
        **judged(place, small, "mnist"), "start_accuracy": place.accuracy(files["dense"], "mnist"),
        "removed": removed(small.output, ""), "middle": removed(small.output, "middle"),
        "latency": timing.ratio("small").median, "cpu": spent + sum(each.cpu for each in runs),
        "commands": [each.line for each in runs],
    }  # fmt: skip


def removed(path: Path, part: str) -> float:
    """Percent of the weights that are zero or gone; ``middle``: of the matrix between both hidden layers alone."""
    constants = Model.load(path).constants
    if part == "middle":
        total, arrays = WIDTHS[1] * WIDTHS[2], [constants["w1"]]
    else:
        total = sum((inputs + 1) * outputs for inputs, outputs in pairwise(WIDTHS))
        arrays = [array for array in constants.values() if array.dtype == np.float32]
    return 100 * (1 - sum(int(np.count_nonzero(array)) for array in arrays) / total)


def dense(place: Place, seed: int) -> tuple[Path, float]:
    """The dense network, and the CPU seconds of its training."""
    path, spent = place.folder / f"mint-dense-{seed}.onnx", place.folder / f"mint-dense-{seed}.cpu"
    if not spent.is_file():
        start = perceptron(place.folder / "perceptron.onnx")
        options = ("--from-scratch", "--augment", "shift", "--epochs", "20", "--every", "2", "--seed", str(seed))
        spent.write_text(json.dumps(trained(place, start, "mnist", path.name, *options).cpu))
    return path, float(json.loads(spent.read_text()))


def perceptron(path: Path) -> Path:
    """The perceptron of the paper, with weights of one: training starts it from random ones."""
    nodes, arrays = [helper.make_node("Flatten", ["input"], ["x0"])], {}
    for number, (inputs, outputs) in enumerate(pairwise(WIDTHS)):
        last = number == len(WIDTHS) - 2
        arrays[f"w{number}"] = np.ones((outputs, inputs), np.float32)
        arrays[f"b{number}"] = np.zeros(outputs, np.float32)
        name = "logits" if last else f"y{number}"
        operands = [f"x{number}", f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Gemm", operands, [name], f"fc{number}", transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [name], [f"x{number + 1}"]))
    kind = onnx.TensorProto.FLOAT
    given = [helper.make_tensor_value_info("input", kind, ["N", 1, 28, 28])]
    made = [helper.make_tensor_value_info("logits", kind, ["N", 10])]
    initial = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "perceptron", given, made, initial)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
