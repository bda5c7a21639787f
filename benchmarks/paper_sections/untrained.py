"""The coded file without labels or training: ``compress -o small.epz``, all of whose bytes are counted.

A network gets some thousand unlabelled training images, and ``--max-drop`` is what a goal allows: without labels that
is a KL divergence of 0.01 nats for half a point, of 0.02 nats for one. Which loss goes with which divergence differs
from network to network (``edgepress.quality``): the LeNets, which are right 98 times of 100, lose less, so they get
limits half as large again as well, and all rows are shown. Everything else is decided by ``compress`` on the samples
that it holds out; the test images are looked at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgepress import codec
from paper_sections.commands import Row, edgepress
from paper_sections.kept import Piece
from paper_sections.place import Place


@dataclass(frozen=True)
class Case:
    """A network and its goals.

    Attributes:
        model: name of the trained model.
        data: its data set.
        goals: points that may be lost, and how many times smaller than the fp32 ONNX file the file has to be at least.
        asked: values of ``--max-drop``.
        unlabelled: images that it gets; fully connected layers learn little of each, and answer fast.
        seeds: splits of the samples.
    """

    model: str
    data: str
    goals: dict[float, float]
    asked: tuple[float, ...] = (0.5, 1)
    unlabelled: int = 4096
    seeds: int = 3


CASES = {
    "lenet300100": Case("mnist_lenet300100", "mnist", {0.5: 110, 1: 150}, (0.5, 0.75, 1, 1.5), 12_000),
    "lenet5": Case("mnist_lenet5caffe", "mnist", {0.5: 240, 1: 380}, (0.5, 0.75, 1, 1.5), 12_000),
    "fashion_vgg7bn": Case("fashion_vgg7bn_bn", "fashion", {1: 28}),
    "resnet20": Case("cifar10_resnet20_bn", "cifar-lossless", {1: 19}),
    "fashion_vggw": Case("fashion_vggw_bn", "fashion", {0.5: 100, 1: 140}, seeds=1),
}


def pieces() -> Iterator[Piece]:
    """Every network, seed and limit."""
    for name, case in CASES.items():
        for seed in range(case.seeds):
            for asked in case.asked:
                yield Piece("untrained", name, f"max-drop {asked:g}", seed, partial(row, asked))


def row(asked: float, place: Place, name: str, kind: str, seed: int) -> Row:
    """Compress, decode, and look at the test images."""
    case = CASES[name]
    original, output = place.model(case.model), place.folder / f"{name}-untrained-{asked:g}-{seed}.epz"
    given = ("--data", unlabelled(place, case), "--max-drop", f"{asked:g}", "--seed", str(seed))
    ran = edgepress("compress", original, *given, "-q", "-o", output)
    data = output.read_bytes()
    before, after = place.answers(original.read_bytes(), case.data), place.answers(codec.decode(data), case.data)
    labels = place.test(case.data)[1]
    lost = 100 * ((before.argmax(1) == labels).astype(float) - (after.argmax(1) == labels))
    report, right = ran.report, after.argmax(1) == labels
    variants = {variant["name"]: variant for variant in report["variants"]}
    taken = variants[report["chosen"]]
    return {
        "coded_bytes": len(data), "times": original.stat().st_size / len(data), "lost": float(lost.mean()),
        "lost_error": float(lost.std() / np.sqrt(len(lost))), "accuracy": 100 * float(right.mean()),
        "images": len(labels), "goals": case.goals, "kl": taken["quality"]["kl"],
        "weight_bits": report["weight_bits"], "chosen": report["chosen"],
        "parameters": taken["parameters"], "cpu": ran.cpu, "commands": [ran.line],
    }  # fmt: skip


def unlabelled(place: Place, case: Case) -> Path:
    """Training images without labels."""
    path = place.folder / f"{case.data}-unlabelled-{case.unlabelled}.npz"
    if not path.is_file():
        with np.load(place.samples(case.data, "train")) as arrays:
            np.savez(path, input=arrays["input"][: case.unlabelled])
    return path
