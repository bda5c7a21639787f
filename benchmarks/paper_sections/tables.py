"""The tables of ``results/papers.md``, beside what was published."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from paper_sections.commands import Row
from paper_sections.entropy import CASES
from paper_sections.kept import rows_of
from paper_sections.ladder import chosen, low

Rows = Sequence[Row]
Column = tuple[str, Callable[[Rows], str]]

PUBLISHED = {
    "lenet300100": "DeepCABAC ×55 (98.04 %)",
    "lenet5": "DeepCABAC ×139 (99.16 %), EPR ×606 (99.1 %), MIRACLE ×1110 (99.04 %)",
    "fashion_vgg7bn": "Wiedemann ×71 (VGG-like, CIFAR-10)",
    "cifar_vgg16q": "Wiedemann ×71 (VGG-like), DeepCABAC ×62.5 (91.0 %)",
    "fashion_vggw": "Wiedemann ×71 (VGG-like, CIFAR-10)",
}
RADIUS, HESSIAN = "spectral radius of the Kronecker factors after", "largest eigenvalue of the Hessian after"

HEAD = """# The papers, done again

Made by `python benchmarks/papers.py`; means over seeds, with their range. Training and every decision see training
images alone, decisions those that are held out; accuracy is that of the whole test set, looked at once. CPU minutes are
those of all commands of a row, one thread, on a machine at work on other things, too."""

WORDS = {
    "untrained": """## The coded file without labels or training

`compress -o small.epz` on unlabelled training images. All bytes of the coded file, graph included, against the fp32
ONNX file; points are lost against the trained original on the whole test set. `--max-drop` is what a goal allows, and
stands for a KL divergence of 0.02 nats for each point; the LeNets, which lose less at the same
divergence, get half as much again, too.""",
    "ladder": """## Settings of the entropy-constrained training

Tried with seed 0, judged on training images that are held out (3,000; of CIFAR-10 1,250). Taken is the smallest file
whose 95 % interval there lies above the floor: the accuracy that the original has on images it has not seen, less the
points that the goal allows. (On the hold-out images the original has about 100 %: it was trained on them.) A first rule
allowed for no chance: the two rows of it that had seen test images by then are "first rule" below.""",
    "entropy": """## Entropy-constrained training (Wiedemann 2018)

All bytes of the coded file, graph included, against the fp32 ONNX file; published figures mostly count weights alone.
Points are lost against the trained original. Rows that name their setting are those of the ladder, shown the test
images after the choice: they decide nothing. One of them (fashion_vgg7bn, beta 0.04) was tried after the test images
had shown that the chosen one loses too much: Fashion-MNIST's hold-out images flatter by more than chance.""",
    "flat": """## Pruning toward flat minima (Ebrahimi 2021)

From scratch, with equal steps and equal sizes; radii are those of the Kronecker factors and of the true Hessian. The
paper's own tables are not at hand.""",
    "anneal": """## Annealed removal (Shah 2020)

Every hidden unit of LeNet-300-100 is doubled by a multiple of itself, and as many are removed again; LeNet-5 is
annealed to 3 % of its weights, on hold-out images. Published: up to 99 % fewer weights with a small loss.""",
    "mint": """## Masks and removal (Ganesh 2020)

Perceptron 784-500-300-10. Published: 98.59 % before; 96.20 % of the weights between the hidden layers masked, 98.47 %
after retraining. `removal` takes whole units away until as much of that matrix is gone, `removal, all` until 96 % of
all weights are. Time of a run is relative to the dense network, batch 1, one thread: masks save none.""",
}


def averaged(what: str, per: float = 1.0, digits: int = 2) -> Callable[[Rows], str]:
    """A figure of the rows, divided by something: mean over seeds, with the range where there are several."""

    def cell(rows: Rows) -> str:
        values = [found / per for row in rows if (found := row.get(what)) is not None]
        return _spread(values, digits)

    return cell


def of_method(name: str) -> Callable[[Rows], str]:
    """A figure that the method found out."""
    return lambda rows: _spread([row["figures"][name] for row in rows if row["figures"].get(name) is not None], 2)


def units(rows: Rows) -> str:
    """Units that are left, group by group, of the first seed."""
    found = {name: value for name, value in rows[0]["figures"].items() if name.startswith("units of ")}
    return " ".join(f"{value:.0f}" for value in found.values())


def goal(rows: Rows) -> str:
    """What is to be reached, and whether all seeds do."""
    row = rows[0]
    if row["goal"] is None:
        return "reported"
    reached = all(each["times"] >= row["goal"] and each["lost"] <= row["limit"] for each in rows)
    apart = " by the ladder" if "," in row["kind"] else ""
    return f"×{row['goal']:g} at {row['limit']:g}: {'reached' if reached else 'missed'}{apart}"


def goals(rows: Rows) -> str:
    """Goals that all seeds reach, and those that they miss for their size alone."""
    found = []
    for limit, times in rows[0]["goals"].items():
        if all(row["lost"] <= float(limit) for row in rows):
            reached = all(row["times"] >= times for row in rows)
            found.append(f"×{times:g} at {float(limit):g}: {'reached' if reached else 'missed'}")
    return ", ".join(found)


MINUTES: Column = ("CPU min", averaged("cpu", 60, 1))
SEEDS: Column = ("seeds", lambda rows: str(len(rows)))
COLUMNS: dict[str, tuple[Column, ...]] = {
    "untrained": (
        SEEDS,
        ("times smaller", averaged("times", digits=0)),
        ("points lost", averaged("lost")),
        ("standard error", averaged("lost_error")),
        ("KL, hold-out", averaged("kl", digits=4)),
        ("bits of a weight", averaged("weight_bits")),
        ("weights left", averaged("parameters", digits=0)),
        ("coded bytes", averaged("coded_bytes", digits=0)),
        MINUTES,
        ("goals that it keeps", goals),
    ),
    "ladder": (
        ("coded bytes", averaged("coded_bytes", digits=0)),
        ("hold-out accuracy", averaged("hold_out_accuracy")),
        ("from", lambda rows: f"{low(rows[0]):.2f}"),
        ("floor", lambda rows: f"{CASES[rows[0]['name']].floor:.2f}"),
        ("taken", lambda rows: "yes" if _taken(rows[0]) else ""),
        MINUTES,
    ),
    "entropy": (
        SEEDS,
        ("times smaller", averaged("times", digits=0)),
        ("points lost", averaged("lost")),
        ("accuracy", averaged("accuracy")),
        ("coded bytes", averaged("coded_bytes", digits=0)),
        MINUTES,
        ("goal", goal),
        ("published", lambda rows: PUBLISHED.get(rows[0]["name"], "")),
    ),
    "flat": (
        SEEDS,
        ("accuracy", averaged("accuracy")),
        ("weights", averaged("parameters", digits=0)),
        ("units", units),
        ("radius", of_method(RADIUS)),
        ("Hessian", of_method(HESSIAN)),
        MINUTES,
    ),
    "anneal": (
        SEEDS,
        ("accuracy before", averaged("start_accuracy")),
        ("after", averaged("accuracy")),
        ("weights before", averaged("start_parameters", digits=0)),
        ("after", averaged("parameters", digits=0)),
        ("changed answers", averaged("changed_answers", digits=0)),
        MINUTES,
    ),
    "mint": (
        SEEDS,
        ("accuracy before", averaged("start_accuracy")),
        ("after", averaged("accuracy")),
        ("removed between the hidden layers, %", averaged("middle")),
        ("of all weights, %", averaged("removed")),
        ("file, kB", averaged("file_bytes", 1e3, 1)),
        ("time of a run", averaged("latency")),
        MINUTES,
    ),
}


def report() -> str:
    """All tables."""
    parts = [HEAD]
    for section, columns in COLUMNS.items():
        lines = [[name, kind, *(cell(rows) for _, cell in columns)] for name, kind, rows in _grouped(section)]
        headings = ("network", "how", *(heading for heading, _ in columns))
        parts += [WORDS[section], _table(headings, lines)]
    return "\n\n".join(parts) + "\n"


def _taken(row: Row) -> bool:
    """Whether it is the setting of its network and form."""
    rivals = [each for each in rows_of("ladder") if (each["name"], each["form"]) == (row["name"], row["form"])]
    return chosen(rivals, CASES[row["name"]].floor)["kind"] == row["kind"]


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "—"
    middle, low, high = (f"{value:,.{digits}f}" for value in (float(np.mean(values)), min(values), max(values)))
    return middle if len(values) == 1 or low == high else f"{middle} ({low} to {high})"


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (headings, ["---"] * len(headings), *lines))


def _grouped(section: str) -> list[tuple[str, str, list[Row]]]:
    """Rows by name and kind."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows_of(section):
        found.setdefault((row["name"], row["kind"]), []).append(row)
    return [(*key, rows) for key, rows in found.items()]
