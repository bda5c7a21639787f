"""Importance criteria side by side, on real trained models: which channels to remove, all else being equal.

    python benchmarks/criteria.py                             all sections and models, some hours of CPU
    python benchmarks/criteria.py prune --models mnist_lenet5caffe
    python benchmarks/criteria.py --report                    only the tables and plots, from what was measured before

    prune        every criterion, without and with the least-squares refit, at shares of the multiply-adds. All criteria
                 get the same widths (every group loses the same share), so that only the choice of channels differs.
    correlation  Spearman's rank correlation of each score with the true loss of removing single units, group by group
    goals        what is lost at the shares that were asked for, without labels or training
    allocation   how removals are spread over groups: the default criterion under every ``--allocation``
    cost         CPU time of the statistics against plain passes over the same samples, memory against their number

Every model gets up to 1024 unlabelled training images (4096 for the goals); seeds change their split and what is
drawn of them. Losses are counted on test images that were never seen (the first ``--most`` of them), KL(original ||
pruned) beside the points. ``fashion_vit`` is made by ``python -m tools.train_vit``. Rows go to
``results/criteria-SECTION.json`` as they are made; rows of the same model are replaced, others kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import quantize
import zoo

from edgepress.groups import Group
from edgepress.model import Model
from edgepress.pipeline.analysis import analyze, refusal_of
from edgepress.pipeline.build import pruned
from edgepress.pipeline.context import Context
from edgepress.pipeline.observing import observe
from edgepress.pipeline.passes import passes
from edgepress.pipeline.prepare import clean, context_of, read
from edgepress.plan import Cut
from edgepress.planner import ALLOCATIONS, Costs, removed_channels
from edgepress.request import Request
from edgepress.scores import Options, order_of
from edgepress.scores.base import consumers
from edgepress.scores.registry import BUILT_IN, find
from edgepress.surgery.cut import cut

Row = dict[str, Any]
Orders = dict[str, dict[str, np.ndarray]]

MODELS = (
    "mnist_lenet300100", "mnist_lenet5caffe", "fashion_vgg7bn_bn", "cifar10_resnet20_bn", "fashion_vit",
    "imagenet_mobilenetv1_025_bn", "cifar10_resnet56_bn", "fashion_vggw_bn",
)  # fmt: skip
SHARES = (0.75, 0.5, 0.35, 0.25)
SEEDS = 3
MOST = 2000
"""Test images that losses are counted on."""

UNITS, CHECKED = 12, 256
"""Units of a group that are removed alone, and test images that this is measured on."""

SAMPLES = zoo.SAMPLES
HOWS = ("uniform", "curve", "hybrid", "dynamic")
MANY = 4096
"""Unlabelled images for the goals: a fully connected layer gets one row of each, so 1024 are few for 784 inputs."""

GOALS = (
    ("fashion_vgg7bn_bn", "macs", 0.5, 0.8), ("cifar10_resnet56_bn", "macs", 0.5, 1.0),
    ("mnist_lenet5caffe", "weights", 0.05, 0.7), ("mnist_lenet300100", "weights", 0.2, 1.0),
)  # fmt: skip
"""Model, what is cut down and to which share, points it may lose."""


class Subject:
    """One model, split with one seed."""

    def __init__(self, name: str, seed: int, folder: Path, most: int) -> None:
        """Load everything and look at the graph."""
        self.name, self.seed = name, seed
        self.case = quantize.Case(name, folder)
        request = Request(model=self.case.path, output=None, data=str(self.case.calibration), seed=seed, dry_run=True)
        opened = read(request)
        if opened.feed is None:
            raise SystemExit(f"{name}: no samples")
        self.model = clean(opened).model
        self.context: Context
        self.context, _ = context_of(request, self.model, opened.feed)
        self.groups = [group for group in self.context.grouping.groups if refusal_of(self.context, group) is None]
        self.costs = Costs.of(self.model, self.groups, self.context.target, self.context.grouping)
        self.test, self.labels = self.case.test[:most], self.case.labels
        self.before = self.answers(self.model)

    def answers(self, model: Model, most: int | None = None) -> np.ndarray:
        """Outputs on the test images."""
        return zoo.evaluate(model.data, self.test[:most], self.case.batched)

    def judged(self, model: Model) -> Row:
        """Points lost, KL and the share of equal answers."""
        after = self.answers(model)
        labels = None if self.labels is None else self.labels[: len(after)]
        lost = (self.before.argmax(1) == labels).astype(float) - (after.argmax(1) == labels)
        return {
            "loss": 100 * float(lost.mean()),
            "kl": float(quantize.kl(self.before, after).mean()),
            "agreement": 100 * float((self.before.argmax(1) == after.argmax(1)).mean()),
        }

    def kept(self, share: float) -> dict[str, int]:
        """Channels that every group loses so that the model keeps a share of its multiply-adds."""
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            removed = self._removed(middle)
            low, high = (middle, high) if self.costs.macs(removed) > share * self.costs.macs({}) else (low, middle)
        return self._removed(high)

    def _removed(self, part: float) -> dict[str, int]:
        return {group.name: min(group.size - 1, round(part * group.size)) for group in self.groups}

    def scored(self, names: Iterable[str], use: Callable[[Any, Group, Mapping[str, Any]], np.ndarray]) -> Orders:
        """What every score makes of every group, from one pass over the samples for as many as fit into memory."""
        options = Options(self.context.positions, self.seed)
        scores = {name: find(name, options) for name in names}
        found: Orders = {name: {} for name in scores}
        for batch in passes(self.groups, _need(self.model)):
            probes = [probe for group in batch for score in scores.values() for probe in score.needs(self.model, group)]
            statistics = observe(
                self.model, self.context.fit, probes, classifies=True, workers=self.context.workers, seed=self.seed
            )
            for name, score in scores.items():
                found[name] |= {group.name: use(score, group, statistics) for group in batch}
        return found


def _need(model: Model) -> Callable[[Group], int]:
    return lambda group: sum(8 * (fit.width + 1) ** 2 for fit, _ in consumers(model, group))


# --- sections -----------------------------------------------------------------------------------------------------


def prune(subject: Subject, options: argparse.Namespace) -> list[Row]:
    """Every criterion at every share, without and with refit."""
    orders = subject.scored(options.scores, lambda score, group, found: order_of(score, subject.model, group, found))
    rows = []
    for name, order in orders.items():
        for share in options.shares:
            widths = subject.kept(share)
            cuts = tuple(
                Cut(group.name, group.size, tuple(sorted(int(i) for i in order[group.name][: widths[group.name]])))
                for group in subject.groups
                if widths[group.name]
            )
            removed = {entry.group: entry.removed for entry in cuts}
            plain = cut(subject.model, subject.context.grouping, removed).model
            for refit, model in (("none", plain), ("refit", pruned(subject.context, cuts))):
                rows.append({"model": subject.name, "seed": subject.seed, "score": name, "share": share,
                             "macs": subject.costs.macs(widths) / subject.costs.macs({}), "refit": refit,
                             **subject.judged(model)})  # fmt: skip
            _say(rows[-1])
    return rows


def correlation(subject: Subject, options: argparse.Namespace) -> list[Row]:
    """Rank correlation with the loss of removing units one by one."""
    scores = subject.scored(options.scores, lambda score, group, found: score.score(subject.model, group, found))
    before = subject.before[:CHECKED]
    rows = []
    for group in subject.groups:
        stable = zlib.crc32(group.name.encode())
        units = np.random.default_rng([subject.seed, stable]).permutation(group.size)[:UNITS]
        if len(units) < 4:
            continue
        truth = [float(quantize.kl(before, subject.answers(_without(subject.model, group, int(unit)), CHECKED)).mean())
                 for unit in units]  # fmt: skip
        for name, found in scores.items():
            rows.append({"model": subject.name, "seed": subject.seed, "score": name, "group": group.name,
                         "spearman": spearman(found[group.name][units], np.array(truth))})  # fmt: skip
    return rows


def _without(model: Model, group: Group, unit: int) -> Model:
    """The model with everything that reads one unit set to zero."""
    arrays: dict[str, np.ndarray] = {}
    for site in group.sites:
        if site.role == "in":
            array = arrays.setdefault(site.tensor, model.constants[site.tensor].copy())
            np.moveaxis(array, site.axis, 0)[site.index[unit]] = 0
    return model.with_constants(arrays)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; equal numbers share their mean rank; 0 where one side is all equal."""
    ranks = [_ranks(each) for each in (a, b)]
    left, right = (each - each.mean() for each in ranks)
    norm = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum()) / norm if norm else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[place])


def goals(subject: Subject, options: argparse.Namespace) -> list[Row]:
    """What is lost at the shares that were asked for: whole channels, no rounding of widths, all test images."""
    rows = []
    for name, what, share, allowed in GOALS:
        if name == subject.name:
            found = _spread(subject, 1, (what,), (share,), ("hybrid", "dynamic"))
            rows += [{**row, "met": {"loss": row["loss"] <= allowed}} for row in found]
    return rows


def allocation(subject: Subject, options: argparse.Namespace) -> list[Row]:
    """The default criterion under every way to spread removals, at the target's multiples and without rounding."""
    multiples = sorted({1, subject.context.multiple})
    return [row for multiple in multiples for row in _spread(subject, multiple, ("macs",), (0.75, 0.5), HOWS)]


def _spread(
    subject: Subject, multiple: int, costs: Sequence[str], shares: Sequence[float], hows: Sequence[str]
) -> list[Row]:
    """Pruned models, one for every cost, share and allocation."""
    context = dataclasses.replace(subject.context, multiple=multiple)
    ladder = analyze(context, classifies=True).ladder
    rows = []
    for name, share, how in ((name, share, how) for name in costs for share in shares for how in hows):
        cost = {"macs": ladder.costs.macs, "weights": ladder.costs.weights}[name]
        state = ALLOCATIONS[how].within(ladder, cost, share * cost({}))
        if state is None:
            continue
        model = pruned(context, removed_channels(ladder.groups, ladder.rankings, state))
        left = {each: function(state.removed) / function({}) for each, function in
                (("macs", ladder.costs.macs), ("weights", ladder.costs.weights))}  # fmt: skip
        rows.append({"model": subject.name, "seed": subject.seed, "cost": name, "share": share, "allocation": how,
                     "multiple": multiple, **left, "predicted": state.predicted, **subject.judged(model)})  # fmt: skip
        _say(rows[-1])
    return rows


CHILD = """
import json, resource, sys, time
from pathlib import Path
import criteria
print(json.dumps(criteria.spent(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
"""


def spent(name: str, samples: int, what: str) -> Row:
    """CPU seconds and peak memory of one kind of pass over the samples, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(name, 0, Path(folder), 8)
        rows = np.resize(np.arange(len(subject.context.fit)), samples)
        feed = subject.context.fit.subset(rows)
        context = dataclasses.replace(subject.context, fit=feed, workers=1)
        begin = time.process_time()
        PASSES[what](subject.model, context, subject.groups)
        cpu = time.process_time() - begin
    return {"cpu": cpu, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _statistics(loss: bool) -> Callable[[Model, Context, Sequence[Group]], None]:
    """All criteria together: the probes without gradients, or those with gradients, whatever of."""

    def run(model: Model, context: Context, groups: Sequence[Group]) -> None:
        options = Options(context.positions)
        scores = [find(name, options) for name in BUILT_IN]
        probes = [probe for group in groups for score in scores for probe in score.needs(model, group)]
        wanted = [probe for probe in probes if bool(probe.loss) == loss]
        observe(model, context.fit, wanted, classifies=True, workers=1, seed=0)

    return run


def _forward(model: Model, context: Context, _: Sequence[Group]) -> None:
    from edgepress.calibrate.run import outputs

    for _part in outputs(model, context.fit):
        pass


def _backward(model: Model, context: Context, _: Sequence[Group]) -> None:
    """A plain training step without the step: forward, and back to all parameters."""
    import torch

    from edgepress.executor import Executor
    from edgepress.executor.fisher import likelihood
    from edgepress.executor.gradients import gradients
    from edgepress.executor.run import single_threaded

    executor, generator = Executor(model), torch.Generator().manual_seed(0)
    with single_threaded():
        for chunk in context.fit.chunks(8):
            gradients(executor, chunk.inputs, lambda found: likelihood(found, 4.0, generator))


PASSES: dict[str, Callable[[Model, Context, Sequence[Group]], None]] = {
    "gradients": _statistics(True), "no gradients": _statistics(False), "backward": _backward, "forward": _forward,
}  # fmt: skip


def cost(name: str, _: argparse.Namespace) -> list[Row]:
    """Statistics against plain passes; memory at a quarter, the whole, and four times the samples."""

    def child(samples: int, what: str) -> Row:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(zoo.HERE), str(zoo.HERE.parent)])}
        words = [sys.executable, "-c", CHILD, name, str(samples), what]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))

    rows = []
    for samples in (512, 2048):
        found = {what: child(samples, what) for what in PASSES}
        row = {"model": name, "samples": samples, **{what: each["cpu"] for what, each in found.items()},
               "gradients / backward": found["gradients"]["cpu"] / found["backward"]["cpu"],
               "no gradients / forward": found["no gradients"]["cpu"] / found["forward"]["cpu"],
               "mb gradients": found["gradients"]["mb"], "mb no gradients": found["no gradients"]["mb"]}  # fmt: skip
        row["met"] = {key: row[key] <= 3 for key in ("gradients / backward", "no gradients / forward")}
        rows.append(row)
        _say(row)
    return rows


BY_SEED: dict[str, Callable[[Subject, argparse.Namespace], list[Row]]] = {
    "prune": prune, "correlation": correlation, "goals": goals, "allocation": allocation,
}  # fmt: skip
BY_MODEL: dict[str, Callable[[str, argparse.Namespace], list[Row]]] = {"cost": cost}


def _say(row: Row) -> None:
    sys.stderr.write(json.dumps(row) + "\n")


# --- results ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the chosen sections on the chosen models."""
    import criteria_report

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help=f"of {', '.join([*BY_SEED, *BY_MODEL])}; all without")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--scores", nargs="*", default=list(BUILT_IN))
    parser.add_argument("--shares", type=float, nargs="*", default=list(SHARES))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--most", type=int, default=MOST, help="test images that losses are counted on")
    parser.add_argument("--out", type=Path, default=zoo.HERE / "results")
    parser.add_argument("--report", action="store_true", help="only write tables and plots of what was measured")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for section in options.sections or [*BY_SEED, *BY_MODEL]:
        for name in () if options.report else options.models:
            if section in BY_MODEL:
                _keep(options.out, section, name, None, BY_MODEL[section](name, options))
                continue
            if section == "goals" and name not in {model for model, *_ in GOALS}:
                continue
            zoo.SAMPLES, most = (MANY, 10_000) if section == "goals" else (SAMPLES, options.most)
            for seed in range(options.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    rows = BY_SEED[section](Subject(name, seed, Path(folder), most), options)
                _keep(options.out, section, name, seed, rows)
        criteria_report.write(section, options.out)


def _keep(folder: Path, section: str, model: str, seed: int | None, rows: list[Row]) -> None:
    """Add rows to a section's file in place of those of the same model, seed and score."""
    path = folder / f"criteria-{section}.json"
    scores = {row.get("score") for row in rows}

    def replaced(row: Row) -> bool:
        return row["model"] == model and seed in (None, row.get("seed")) and row.get("score") in scores

    with (folder / ".criteria.lock").open("w") as lock:  # several runs may share the models between them
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(path.read_text()) if path.exists() else []
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps([*(row for row in known if not replaced(row)), *rows], indent=0) + "\n")
        temporary.rename(path)


if __name__ == "__main__":
    main()
