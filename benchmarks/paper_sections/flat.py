"""Ebrahimi & Klabjan 2021: from scratch, pruned along the training, at once, or at its end; equal sizes, equal steps.

The paper's tables are not at hand. The comparison is the one of its abstract: training and pruning at the same time
against pruning a trained network, with or without training after it, and the spectral radius of what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from paper_sections.commands import Row, judged, trained
from paper_sections.kept import Piece
from paper_sections.place import Place


@dataclass(frozen=True)
class Case:
    """A network to train from scratch.

    Attributes:
        model: file that gives the architecture.
        data: its data set.
        keep: share of the weights that is left.
        epochs: of all schedules.
    """

    model: str
    data: str
    keep: float
    epochs: float


SEEDS = 3
CASES = {
    "lenet300100": Case("mnist_lenet300100", "mnist", 0.0723, 3.37),
    "fashion_vgg7": Case("fashion_vgg7bn_bn", "fashion", 0.25, 3.0),
}
SCHEDULES: dict[str, tuple[str, ...]] = {
    "along": ("--when", "along"),
    "cut at 70 %, train on": ("--when", "cut"),
    "at the end": ("--when", "end"),
    "along, no redistribution": ("--when", "along", "--no-redistribute"),
    "along, no flatness term": ("--when", "along", "--flatness", "0"),
}


def pieces() -> Iterator[Piece]:
    """All rows, cheap ones first."""
    for name in CASES:
        for seed in range(SEEDS):
            for schedule in SCHEDULES:
                yield Piece("flat", name, schedule, seed, row)


def row(place: Place, name: str, schedule: str, seed: int) -> Row:
    """Train from scratch and prune."""
    case = CASES[name]
    mark = "-".join("".join(each for each in schedule if each.isalnum() or each == " ").split())
    given = ("--method", "flat", "--from-scratch", "--keep", str(case.keep), "--max-drop", "100", "--seed", str(seed))
    options = ("--epochs", str(case.epochs), *SCHEDULES[schedule])
    ran = trained(place, place.model(case.model), case.data, f"flat-{name}-{mark}-{seed}.onnx", *given, *options)
    return judged(place, ran, case.data)
