"""Shah, Olivier & Raj 2020: units that depend on others go without a loss; LeNet-5 annealed to 3 % of its weights."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from onnx import numpy_helper

from edgepress.calibrate import open_feed
from edgepress.model import Model
from edgepress.train.batches import Batches
from edgepress.train.pruning.anneal import thinned
from edgepress.train.ranks import Ranks
from edgepress.train.settings import Settings
from paper_sections.commands import Row, judged, trained
from paper_sections.kept import Piece
from paper_sections.place import Place

SEEDS = 3
SHARE = 0.1
"""Of the units that are left, how many go at a time."""


def pieces() -> Iterator[Piece]:
    """All rows, cheap ones first."""
    for seed in range(SEEDS):
        yield Piece("anneal", "lenet300100, units doubled", "lossless", seed, dependent)
    for seed in range(SEEDS):
        yield Piece("anneal", "lenet5", "anneal", seed, lenet5)


def lenet5(place: Place, name: str, kind: str, seed: int) -> Row:
    """LeNet-5 down to 3 % of its weights."""
    start = place.model("mnist_lenet5caffe")
    given = ("--method", "anneal", "--augment", "shift", "--keep", "0.03", "--max-drop", "1", "--seed", str(seed))
    ran = trained(place, start, "mnist", f"anneal-{name}-{seed}.onnx", *given, "--epochs", "16", "--every", "0.25")
    before = Model.load(start)
    return {
        **judged(place, ran, "mnist"),
        "start_accuracy": place.accuracy(before.data, "mnist"), "start_parameters": before.parameters,
    }  # fmt: skip


def dependent(place: Place, name: str, kind: str, seed: int) -> Row:
    """Double the hidden units of a trained perceptron by multiples of them, and take as many away again."""
    original = Model.load(place.model("mnist_lenet300100"))
    model = doubled(original, seed)
    feed = open_feed(str(place.samples("mnist", "few")), model)
    batches = Batches(feed, Settings(batch=64, labels=True, seed=seed), Ranks())
    began, smaller, turns = time.process_time(), model, 0
    while found := thinned(smaller, batches.chosen_feed(2048), batches.first(2048), SHARE, original.parameters, seed):
        smaller, turns = found[0], turns + 1
    cpu = time.process_time() - began
    labels = place.test("mnist")[1]
    before, after = (place.answers(each.data, "mnist") for each in (model, smaller))
    return {
        "accuracy": 100 * float((after.argmax(1) == labels).mean()),
        "start_accuracy": 100 * float((before.argmax(1) == labels).mean()),
        "changed_answers": int((after.argmax(1) != before.argmax(1)).sum()),
        "relative_error": float(np.abs(after - before).max() / np.abs(before).max()),
        "start_parameters": model.parameters, "parameters": smaller.parameters, "turns": turns,
        "cpu": cpu, "commands": [],
    }  # fmt: skip


def doubled(model: Model, seed: int) -> Model:
    """Every hidden unit twice, the second a positive multiple of the first; readers share its work between both."""
    random = np.random.default_rng(seed)
    arrays = {name: array.astype(np.float64) for name, array in model.constants.items() if array.dtype == np.float32}
    gemms = [node for node in model.nodes if node.op == "Gemm"]
    for first, second in pairwise(gemms):
        weight, bias, after = (arrays[name] for name in (first.inputs[1], first.inputs[2], second.inputs[1]))
        rows = 0 if first.attributes.get("transB", 0) else 1
        columns = 1 if second.attributes.get("transB", 0) else 0
        scale, share = random.uniform(0.5, 2.0, len(bias)), random.uniform(0.2, 0.8, len(bias))
        along, across = _along(rows, bias), _along(columns, bias)
        arrays[first.inputs[1]] = np.concatenate([weight, weight * scale.reshape(along)], axis=rows)
        arrays[first.inputs[2]] = np.concatenate([bias, bias * scale])
        parts = [after * share.reshape(across), after * ((1 - share) / scale).reshape(across)]
        arrays[second.inputs[1]] = np.concatenate(parts, axis=columns)
    return _with(model, arrays)


def _along(axis: int, bias: np.ndarray) -> list[int]:
    """Shape of one number for each unit, along an axis of a matrix."""
    return [len(bias) if each == axis else 1 for each in range(2)]


def _with(model: Model, arrays: dict[str, np.ndarray]) -> Model:
    """The model with weights of other shapes."""
    proto = model.edit()
    kept = [item for item in proto.graph.initializer if item.name not in arrays]
    made = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend([*kept, *made])
    del proto.graph.value_info[:]
    return Model.of(proto)
