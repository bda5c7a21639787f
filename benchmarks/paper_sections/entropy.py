"""Wiedemann et al. 2018: training for the coded file, all of whose bytes are counted against the fp32 ONNX file.

    ladder    the network is pruned without labels or training (``compress``), then trained, for several sizes and
              betas, with seed 0; no test image is looked at
    entropy   the setting that ``ladder.chosen`` takes, for all seeds, with the test images; then, to show what lies
              around it, those of the ladder: nothing is decided by their rows

Both forms of ``finetune --method entropy`` climb a ladder of their own. A run and the pruning before it stay below ten
CPU minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from paper_sections.commands import Ran, Row, edgepress, held_out, judged, trained
from paper_sections.kept import Piece, rows_of
from paper_sections.ladder import chosen
from paper_sections.place import Place


@dataclass(frozen=True)
class Rung:
    """One setting.

    Attributes:
        size: share of the file that pruning leaves.
        beta: nats that 10,000 bits are worth.
        lr: learning rate.
    """

    size: float
    beta: float
    lr: float = 0.001

    @property
    def mark(self) -> str:
        """What names of files have of it."""
        return f"{self.size:g}-{self.beta:g}" + ("" if self.lr == Rung.lr else f"-{self.lr:g}")

    def __str__(self) -> str:
        return f"size {self.size:g}, beta {self.beta:g}" + ("" if self.lr == Rung.lr else f", rate {self.lr:g}")


@dataclass(frozen=True)
class Case:
    """A network to train for its file.

    Attributes:
        model: name of the trained model.
        data: its data set.
        known: its accuracy on images it has not seen, in percent, as its maker gives it.
        goal: times smaller, at least; None where it is only reported.
        limit: points that may be lost.
        epochs: of every run, by form.
        rungs: what is tried, by form.
        seeds: how many runs with what is chosen, by form.
        augment: how pictures are moved about.
    """

    model: str
    data: str
    known: float
    goal: float | None
    limit: float
    epochs: dict[str, float]
    rungs: dict[str, tuple[Rung, ...]]
    seeds: dict[str, int]
    augment: str = "shift"

    @property
    def floor(self) -> float:
        """Accuracy that must be kept, in percent."""
        return self.known - self.limit


CASES = {
    "lenet300100": Case(
        "mnist_lenet300100", "mnist", 98.35, 210, 0.5, {"straight": 16, "relaxed": 16},
        {
            "straight": (Rung(0.3, 0.04), Rung(0.3, 0.08), Rung(0.3, 0.16), Rung(0.2, 0.08)),
            "relaxed": (Rung(0.2, 0.08), Rung(0.2, 0.04)),
        },
        {"straight": 3, "relaxed": 3},
    ),
    "lenet5": Case(
        "mnist_lenet5caffe", "mnist", 99.27, 600, 0.5, {"straight": 14, "relaxed": 14},
        {"straight": (Rung(0.08, 0.09), Rung(0.08, 0.18), Rung(0.05, 0.18)), "relaxed": (Rung(0.08, 0.09),)},
        {"straight": 3, "relaxed": 3},
    ),
    "fashion_vgg7bn": Case(
        "fashion_vgg7bn_bn", "fashion", 92.62, 50, 0.7, {"straight": 12},
        {"straight": (Rung(0.55, 0.08), Rung(0.55, 0.08, 0.002), Rung(0.55, 0.04, 0.002))}, {"straight": 1},
    ),
    "cifar_vgg16q": Case(
        "cifar10jpeg_vgg16q_folded", "cifar", 75.9, 71, 1.0, {"straight": 20},
        {"straight": (Rung(0.3, 0.02), Rung(0.3, 0.06))}, {"straight": 1}, "flip",
    ),
    "fashion_vggw": Case(
        "fashion_vggw_bn", "fashion", 93.64, None, 0.7, {"straight": 1}, {"straight": (Rung(0.15, 0.02),)},
        {"straight": 1},
    ),
}  # fmt: skip


def ladder() -> Iterator[Piece]:
    """Everything that is tried, seed 0."""
    for name, case in CASES.items():
        for form, rungs in case.rungs.items():
            for rung in rungs:
                yield Piece("ladder", name, f"{form}, {rung}", 0, partial(tried, form, rung))


def pieces() -> Iterator[Piece]:
    """All runs with what was chosen."""
    for name, case in CASES.items():
        for form, seeds in case.seeds.items():
            for seed in range(seeds):
                yield Piece("entropy", name, form, seed, row)
    for name, case in CASES.items():
        for form, rungs in case.rungs.items():
            for rung in rungs:
                yield Piece("entropy", name, f"{form}, {rung}", 0, partial(around, form, rung))


def tried(form: str, rung: Rung, place: Place, name: str, kind: str, seed: int) -> Row:
    """One setting, with hold-out figures alone."""
    ran, line = run(place, name, form, rung, seed)
    return {
        **held_out(ran),
        "form": form,
        "size": rung.size,
        "beta": rung.beta,
        "lr": rung.lr,
        "commands": [line, ran.line],
    }


def row(place: Place, name: str, form: str, seed: int) -> Row:
    """The setting that was chosen, with the test images."""
    rows = [each for each in rows_of("ladder") if each["name"] == name and each["form"] == form]
    if not rows:
        raise SystemExit(f"No setting of {name}, {form}, has been tried yet: run the section ladder first.")
    best = chosen(rows, CASES[name].floor)
    return shown(place, name, form, Rung(best["size"], best["beta"], best["lr"]), seed)


def around(form: str, rung: Rung, place: Place, name: str, kind: str, seed: int) -> Row:
    """A setting of the ladder, whether it was chosen or not."""
    return shown(place, name, form, rung, seed)


def shown(place: Place, name: str, form: str, rung: Rung, seed: int) -> Row:
    """One setting, with the test images."""
    case, original = CASES[name], place.model(CASES[name].model)
    ran, line = run(place, name, form, rung, seed)
    found = judged(place, ran, case.data)
    before = place.accuracy(original.read_bytes(), case.data)
    coded = found["coded_bytes"]
    return {
        **found, "size": rung.size, "beta": rung.beta, "lr": rung.lr, "start_accuracy": before,
        "lost": before - found["accuracy"], "times": original.stat().st_size / coded if coded else None,
        "goal": case.goal, "limit": case.limit, "commands": [line, ran.line],
    }  # fmt: skip


def run(place: Place, name: str, form: str, rung: Rung, seed: int) -> tuple[Ran, str]:
    """Prune and train, or what that left behind before; the CPU seconds are those of both."""
    case, start = CASES[name], narrowed(place, name, rung.size)
    output = place.folder / f"{name}-{form}-{rung.mark}-{seed}.onnx"
    marks = output.with_suffix(".ran.json")
    if not marks.is_file():
        given = ("--method", "entropy", "--form", form, "--teacher", place.model(case.model), "--augment", case.augment)
        epochs = f"{case.epochs[form]:g}"
        options = (
            "--one-step",
            "--epochs",
            epochs,
            "--every",
            epochs,
            "--beta",
            f"{rung.beta:g}",
            "--lr",
            f"{rung.lr:g}",
        )
        ran = trained(place, start.output, case.data, output.name, *given, *options, "--max-drop", "100", "--seed",
                      str(seed))  # fmt: skip
        marks.write_text(json.dumps({"report": ran.report, "cpu": start.cpu + ran.cpu, "line": ran.line}))
    return Ran(**json.loads(marks.read_text()), output=output), start.line


def narrowed(place: Place, name: str, size: float) -> Ran:
    """The network without its cheapest channels, by ``compress`` on unlabelled images."""
    case = CASES[name]
    output = place.folder / f"{name}-narrow-{size:g}.onnx"
    marks = output.with_suffix(".ran.json")
    if not marks.is_file():
        given = ("--data", place.samples(case.data, "few"), "--no-quantize", "--size-ratio", f"{size:g}")
        ran = edgepress("compress", place.model(case.model), *given, "--max-drop", "5", "-q", "-o", output)
        marks.write_text(json.dumps({"report": {}, "cpu": ran.cpu, "line": ran.line}))
    return Ran(**json.loads(marks.read_text()), output=Path(output))
