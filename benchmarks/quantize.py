"""The quantizer on real trained models, against onnxruntime's own and against the figures to reach.

    python benchmarks/quantize.py                 all sections, about an hour
    python benchmarks/quantize.py int8 lowbit     some of them; --models NAME... for some models

    int8     ``edgepress quantize --bits 7`` (int8 arithmetic, 7.1 bits in the file) beside onnxruntime's quantizer,
             naive and careful, in the same timing run
    lowbit   ``--bits auto`` at two quality limits: file, loss, latency beside int8
    pruned   ``edgepress compress --bits auto``: channels removed as well (``--size-ratio`` for fashion_vggw)
    fisher   widths by Fisher information against the same width everywhere, at equal bytes, over seeds
    fixed    power-of-two scales against free ones, at 3 and 4 bits on average
    cost     CPU time against onnxruntime's static quantization, memory against the number of samples
    curve    file size against loss, with a plot

Every model gets up to 1024 unlabelled training images as in ``zoo.py``; the tool chooses on those it holds out of them,
and what is reported is counted on test sets it never saw. Results go to ``results/quantize-SECTION.{json,md}``.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zoo

from edgepress.bench import compare
from edgepress.model import Model
from edgepress.normalize import normalize

Row = dict[str, Any]

PEERS = {
    "mnist_lenet300100": 0.255, "mnist_lenet5caffe": 0.255, "fashion_vgg7bn_bn": 0.303, "cifar10_resnet20_bn": 0.305,
    "cifar10_resnet56_bn": 0.298, "imagenet_mobilenetv1_025_bn": 0.318, "kws_dscnn": 0.423,
    "ultraface_rfb320_opset9": 0.356,
}  # fmt: skip
"""Smallest int8 file of other tools that kept the quality, as a share of fp32 (nncf, aimet, quark, olive, onnxruntime,
all of 2026-11-20; for mobilenet none kept it). Their latencies are not repeated: onnxruntime's own were the best."""

LOWBIT_GOALS = {
    ("cifar10_resnet20_bn", 0.5): 0.13, ("cifar10_resnet20_bn", 1.0): 0.115, ("fashion_vgg7bn_bn", 0.5): 0.11,
    ("mnist_lenet300100", 0.5): 0.06, ("mnist_lenet5caffe", 0.5): 0.06,
}  # fmt: skip
PRUNED_GOALS = {("fashion_vggw_bn", 0.5): (0.025, 0.15), ("mnist_lenet5caffe", 1.0): (0.01, math.inf)}
SIZED = ("fashion_vggw_bn",)
"""Asked for the size of their goal; what ``--bits auto`` finds for it is smaller, at 0.54 points."""
SEEDS = 3
STORED = ("imagenet_mobilenetv1_025_bn", "kws_dscnn", "ultraface_rfb320_opset9")
"""What the tool does not run in int8 as a whole: widths are compared with weights stored as integers, float arithmetic,
or the error of the activations would hide that of the weights."""


def entry_of(name: str) -> zoo.Entry:
    """The model of that name."""
    return next(entry for entry in (*zoo.ZOO, *zoo.VARIANTS, *zoo.MADE) if entry.model == name)


class Case:
    """One model with its samples and test set."""

    def __init__(self, name: str, folder: Path) -> None:
        """Load everything; writes the calibration file."""
        self.entry, self.folder, self.name = entry_of(name), folder, name
        self.path = zoo.path_of(self.entry)
        self.model = Model.load(self.path)
        self.input = next(iter(self.model.inputs))
        self.samples, (self.test, self.labels) = self.entry.data()
        self.calibration = folder / f"{name}.npz"
        np.savez(self.calibration, **{self.input: self.samples})
        self.cleaned = normalize(self.model, [{self.input: self.samples[:1]}]).model
        self.batched = not isinstance((self.model.inputs[self.input].shape or (None,))[0], int)
        self.bytes = self.path.stat().st_size
        self.before = self.answers(self.cleaned)

    def answers(self, model: Model) -> np.ndarray:
        """Outputs on the test set, a row for each sample."""
        return zoo.evaluate(model.data, self.test, self.batched)

    def unseen(self) -> np.ndarray:
        """Inputs for comparing answers without labels: the test set; of CIFAR-10 all 10,000 pictures, as JPEG copies.

        The 761 lossless ones tell little about small differences.
        """
        if not self.name.startswith("cifar10"):
            return self.test
        share = zoo._shared()
        prepare = share.resnet8_input if "resnet8" in self.name else share.norm_torch
        return np.asarray(prepare(share.load(zoo.SHARED / "data/cifar10_jpegq75.npz")["x_test"]))

    def tool(self, command: str, *options: str) -> tuple[Model, Row]:
        """Run edgepress as a user does; the model and its report."""
        output = self.folder / f"{self.name}.out.onnx"
        words = [sys.executable, "-m", "edgepress", command, str(self.path), "--data", str(self.calibration)]
        done = subprocess.run([*words, "-o", str(output), "--json", "-q", *options], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{self.name} {' '.join(options)}: exit code {done.returncode}\n{done.stderr}")
        return Model.load(output), json.loads(done.stdout)

    def loss(self, model: Model) -> Row:
        """Points lost on the test set with half a 95 % interval, or SQNR; mean KL and its standard error."""
        after = self.answers(model)
        if self.labels is None:
            return {"sqnr": float(10 * np.log10((self.before**2).sum() / ((self.before - after) ** 2).sum()))}
        lost = 100 * ((self.before.argmax(1) == self.labels).astype(float) - (after.argmax(1) == self.labels))
        divergence = kl(self.before, after)
        return {
            "loss": float(lost.mean()),
            "half": 1.96 * float(lost.std()) / len(lost) ** 0.5,
            "kl": float(divergence.mean()),
        }

    def latency(self, models: dict[str, Model], seconds: float) -> dict[str, float]:
        """Latency of each, batch 1, one thread, over that of the cleaned fp32 model."""
        feeds = [{self.input: self.test[i : i + 1]} for i in range(min(16, len(self.test)))]
        data = {"cleaned": self.cleaned.data, **{name: model.data for name, model in models.items()}}
        timing = compare(data, feeds, threads=1, seconds=seconds, reference="cleaned")
        return {name: found.median for name in models if (found := timing.ratio(name)) is not None}


def kl(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """KL(before || after) of each row of logits or probabilities, in nats."""
    from edgepress.quality import are_probabilities, log_probabilities

    squashed = are_probabilities(before)
    a, b = (log_probabilities(rows.astype(np.float64), squashed) for rows in (before, after))
    return np.asarray((np.exp(a) * (a - b)).sum(1))


# --- int8 ---------------------------------------------------------------------------------------------------------


def int8(case: Case, options: argparse.Namespace) -> list[Row]:
    """Int8 beside onnxruntime's quantizer."""
    goal = 1.0 if "mobilenet" in case.name else 0.3
    limit = [] if case.labels is None else ["--max-drop", str(goal)]
    mine, report = case.tool("quantize", "--bits", "7", *limit)
    peers = {name: model for name, make in ONNXRUNTIME.items() if (model := make(case)) is not None}
    models = {"edgepress": mine, **peers}
    latency = case.latency(models, options.seconds)
    losses = {name: case.loss(model) for name, model in models.items()}
    kept = [name for name in peers if losses[name].get("loss", 0) <= 1.0 and losses[name].get("sqnr", 99) >= 20]
    best = min((latency[name] for name in kept), default=math.inf)
    smallest = min([*(peers[name].size / case.bytes for name in kept), PEERS.get(case.name, math.inf)])
    row = {
        "model": case.name, "form": report["chosen"], **losses["edgepress"], "latency": latency["edgepress"],
        "size": mine.size / case.bytes, "peer latency": best, "peer size": smallest,
        "peers": {
            name: {"latency": latency[name], "size": peers[name].size / case.bytes, **losses[name]} for name in peers
        },
    }  # fmt: skip
    row["met"] = {
        "loss": row.get("loss", 0) <= goal,
        "latency": row["latency"] <= (0.93 if "mobilenet" in case.name else 0.98 * best),
        "size": row["size"] <= 0.97 * smallest,
    }
    return [row]


def _careful(case: Case) -> Model | None:
    from edgepress.errors import Refusal
    from edgepress.quantize.baseline import plain_static_int8

    made = plain_static_int8(case.cleaned, _feed(case, 256), case.folder)
    return None if isinstance(made, Refusal) else made


def _naive(case: Case) -> Model | None:
    """``quantize_static(model, out, reader)`` with nothing else said: signed activations, one scale per tensor."""
    import onnx
    from onnxruntime.quantization import quantize_static

    from edgepress.quantize import baseline

    source, target = case.folder / "naive-in.onnx", case.folder / "naive-out.onnx"
    source.write_bytes(case.cleaned.data)
    with baseline._quiet():
        quantize_static(str(source), str(target), baseline._reader(_feed(case, 256)))
    return Model.of(onnx.load(target))


ONNXRUNTIME: dict[str, Callable[[Case], Model | None]] = {"ort careful": _careful, "ort naive": _naive}


def _feed(case: Case, count: int) -> Any:
    from edgepress.calibrate import open_feed

    feed = open_feed(str(case.calibration), case.cleaned)
    return feed.subset(np.arange(min(count, len(feed))))


# --- low bits -----------------------------------------------------------------------------------------------------


def lowbit(case: Case, options: argparse.Namespace) -> list[Row]:
    """``--bits auto`` at two limits, timed beside int8."""
    wide, _ = case.tool("quantize", "--bits", "8")
    made = {drop: case.tool("quantize", "--bits", "auto", *_limit(case, drop)) for drop in _drops(case, options)}
    latency = case.latency({"int8": wide, **{str(drop): model for drop, (model, _) in made.items()}}, options.seconds)
    rows = []
    for drop, (model, report) in made.items():
        row = {
            "model": case.name, "allowed": drop, "form": report["chosen"], **case.loss(model),
            "size": model.size / case.bytes, "bytes": model.size, "latency": latency[str(drop)],
            "int8 latency": latency["int8"], "int8 size": wide.size / case.bytes,
        }  # fmt: skip
        goal = LOWBIT_GOALS.get((case.name, drop))
        row["met"] = {
            **({} if goal is None else {"size": row["size"] <= goal, "loss": row["loss"] <= drop}),
            "latency": row["latency"] <= 1.05 * row["int8 latency"],
        }
        rows.append(row)
    return rows


def pruned(case: Case, options: argparse.Namespace) -> list[Row]:
    """Channels removed, widths mixed."""
    rows = []
    for drop in _drops(case, options):
        goal = PRUNED_GOALS.get((case.name, drop))
        sized = goal is not None and case.name in SIZED
        budget = ["--size-ratio", str(goal[0])] if goal is not None and sized else ["--bits", "auto"]
        model, report = case.tool("compress", *budget, *_limit(case, drop))
        row = {
            "model": case.name, "allowed": drop, "form": report["chosen"], **case.loss(model),
            "size": model.size / case.bytes, "bytes": model.size,
            "latency": case.latency({"small": model}, options.seconds)["small"],
        }  # fmt: skip
        if goal is not None:
            row["met"] = {
                "size": row["size"] <= goal[0], "latency": row["latency"] <= goal[1], "loss": row["loss"] <= drop,
            }  # fmt: skip
        rows.append(row)
    return rows


def _drops(case: Case, options: argparse.Namespace) -> list[float]:
    return list(options.limits) if case.labels is not None else [1.0]


def _limit(case: Case, drop: float) -> list[str]:
    return [] if case.labels is None else ["--max-drop", str(drop)]


# --- widths -------------------------------------------------------------------------------------------------------


class Widths:
    """The joint pass at chosen widths, as the tool does it, for one seed."""

    def __init__(self, case: Case, seed: int) -> None:
        """Split the samples and make the table of widths."""
        from edgepress.pipeline.prepare import clean, context_of, limit_of, read
        from edgepress.pipeline.widths import width_table
        from edgepress.quantize import has_float32_weight
        from edgepress.request import Request

        request = Request(model=case.path, output=None, data=str(case.calibration), seed=seed, dry_run=True)
        opened = read(request)
        self.model = clean(opened).model
        self.stored = case.name in STORED
        if opened.feed is None:
            raise SystemExit(f"{case.name}: no samples")
        self.context, _ = context_of(request, self.model, opened.feed)
        self.nodes = [node.name for node in self.model.nodes if has_float32_weight(self.model, node)]
        classifies = limit_of(request, self.model, opened.feed).measure != "sqnr"
        self.table = width_table(self.context, self.model, self.nodes, classifies=classifies, narrow=8, limit=127)
        self.weights = {name: self.model.constants[self.model.node(name).inputs[1]].size for name in self.table}

    def uniform(self, levels: int) -> dict[str, int]:
        """The same number of levels everywhere."""
        return dict.fromkeys(self.table, levels)

    def chosen(self, budget: int) -> dict[str, int]:
        """Levels by Fisher information within a budget of bytes."""
        from edgepress.planner.levels import allocate

        return allocate(self.table, budget)

    def size(self, levels: dict[str, int]) -> int:
        """Bytes of the weights."""
        from edgepress.planner.levels import total

        return total(self.table, levels)

    def bits(self, levels: dict[str, int]) -> float:
        """Bits of a weight on average."""
        return 8 * self.size(levels) / sum(self.weights.values())

    def form(self, levels: dict[str, int], scales: str = "free") -> Model:
        """The int8 model."""
        from edgepress.pipeline.build import integer, material
        from edgepress.plan import Quantization

        few = {name: count for name, count in levels.items() if count < 255}
        settings = Quantization(
            rounding="joint",
            levels=few,
            scales=scales,  # type: ignore[arg-type]
            weight_limit=self.context.target.weight_limit,
            compute="float" if self.stored else "int8",
        )
        made = material(self.context, (), self.model, settings)
        return integer(self.context, made, settings)


def fisher(case: Case, options: argparse.Namespace) -> list[Row]:
    """Fisher widths against uniform ones at equal bytes: KL on the test set, samples paired, over seeds."""
    if case.labels is None:
        return []
    rows = []
    unseen = case.unseen()
    before = zoo.evaluate(case.cleaned.data, unseen, case.batched)
    for levels in (5, 7, 16):
        found = []
        for seed in range(options.seeds):
            widths = Widths(case, seed)
            even = widths.uniform(levels)
            mixed = widths.chosen(widths.size(even))
            forms = [widths.form(each).data for each in (even, mixed)]
            pair = [kl(before, zoo.evaluate(form, unseen, case.batched)) for form in forms]
            found.append((widths.bits(even), widths.bits(mixed), *pair))
        gain = np.concatenate([even - mixed for *_, even, mixed in found])
        ratio = [float(mixed.mean() / even.mean()) for *_, even, mixed in found]
        error = float(gain.std() / math.sqrt(len(gain)))
        rows.append({
            "model": case.name, "levels": levels, "bits": found[0][0], "fisher bits": found[0][1],
            "uniform kl": float(np.mean([even.mean() for *_, even, _ in found])),
            "fisher kl": float(np.mean([mixed.mean() for *_, mixed in found])),
            "ratios": ratio, "gain": float(gain.mean()), "z": float(gain.mean()) / max(error, 1e-30),
            "seeds": options.seeds,
            "samples": len(unseen),
            "met": {"lower": float(gain.mean()) > 1.96 * error and max(ratio) < 1},
        })  # fmt: skip
    return rows


def fixed(case: Case, options: argparse.Namespace) -> list[Row]:
    """Power-of-two scales against free ones."""
    if case.name not in ("cifar10_resnet20_bn", "fashion_vgg7bn_bn"):
        return []
    rows = []
    for bits in (3.0, 4.0):
        pairs = []
        for seed in range(options.seeds):
            widths = Widths(case, seed)
            levels = widths.chosen(int(bits * sum(widths.weights.values()) / 8))
            pairs.append([case.loss(widths.form(levels, scales)) for scales in ("free", "power-of-two")])
        free, po2 = (float(np.mean([pair[side]["loss"] for pair in pairs])) for side in (0, 1))
        rows.append({
            "model": case.name, "bits": bits, "free loss": free, "fixed loss": po2, "difference": po2 - free,
            "half": float(np.mean([pair[1]["half"] for pair in pairs])),
            "free kl": float(np.mean([pair[0]["kl"] for pair in pairs])),
            "fixed kl": float(np.mean([pair[1]["kl"] for pair in pairs])),
            "seeds": options.seeds, "met": {"difference": po2 - free <= 0.3},
        })  # fmt: skip
    return rows


def curve(case: Case, _: argparse.Namespace) -> list[Row]:
    """File size against loss."""
    widths = Widths(case, 0)
    rows = []
    for bits in (8.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.6, 2.3, 2.0, 1.8):
        levels = widths.chosen(int(bits * sum(widths.weights.values()) / 8))
        model = widths.form(levels)
        rows.append({
            "model": case.name, "bits": widths.bits(levels), "size": model.size / case.bytes, "bytes": model.size,
            **case.loss(model),
        })  # fmt: skip
    return rows


# --- cost ---------------------------------------------------------------------------------------------------------

CHILD = """
import json, resource, sys, time
from pathlib import Path
import quantize
begin = time.process_time()
quantize.COSTS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
spent = time.process_time() - begin
print(json.dumps({"cpu": spent, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def _own_cost(path: Path, samples: Path) -> None:
    """All that ``edgepress quantize --bits 8`` does but for timing, from loading torch to judging the forms."""
    from edgepress.pipeline.candidates import Judge, candidate
    from edgepress.pipeline.integers import integers
    from edgepress.pipeline.prepare import clean, context_of, limit_of, read
    from edgepress.request import Request

    request = Request(model=path, output=None, data=str(samples), dry_run=True, bits="8", prune=False)
    opened = read(request)
    model = clean(opened).model
    if opened.feed is None:
        raise SystemExit("no samples")
    context, _refusals = context_of(request, model, opened.feed)
    judged = Judge(context, limit_of(request, model, opened.feed), opened.model.size)
    source = candidate("cleaned", "cleaned", model, (), judged(model), context.grouping.sizes)
    integers(context, source, judged, request)


def _ort_cost(path: Path, samples: Path) -> None:
    from edgepress.calibrate import open_feed
    from edgepress.quantize.baseline import plain_static_int8

    model = Model.load(path)
    plain_static_int8(model, open_feed(str(samples), model), path.parent)


COSTS: dict[str, Callable[[Path, Path], None]] = {"edgepress": _own_cost, "onnxruntime": _ort_cost}


def cost(case: Case, _: argparse.Namespace) -> list[Row]:
    """CPU seconds on the same samples, peak memory on few and on many."""
    cleaned = case.folder / "cleaned.onnx"
    cleaned.write_bytes(case.cleaned.data)

    def child(count: int, who: str) -> Row:
        part = case.folder / f"{case.name}-{count}.npz"
        np.savez(part, **{case.input: np.concatenate([case.samples] * -(-count // len(case.samples)))[:count]})
        words = [sys.executable, "-c", CHILD, who, str(cleaned), str(part)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(zoo.HERE), str(zoo.HERE.parent)])}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))

    full = len(case.samples)
    mine, theirs = child(full, "edgepress"), child(full, "onnxruntime")
    few, many = (child(count, "edgepress")["mb"] for count in (max(64, full // 4), full * 4))
    ratio = mine["cpu"] / theirs["cpu"]
    return [{
        "model": case.name, "samples": full, "cpu": mine["cpu"], "ort cpu": theirs["cpu"], "ratio": ratio,
        "mb few": few, "mb": mine["mb"], "mb many": many, "ort mb": theirs["mb"],
        "met": {"ratio": ratio <= 5},
    }]  # fmt: skip


# --- tables -------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Case, argparse.Namespace], list[Row]]] = {
    "int8": int8, "lowbit": lowbit, "pruned": pruned, "fisher": fisher, "fixed": fixed, "cost": cost, "curve": curve,
}  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table; a goal that was missed is marked with an exclamation mark."""
    keys = list(dict.fromkeys(key for row in rows for key in row if key not in ("met", "peers")))
    lines = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    for row in rows:
        bad = {key for key, fine in row.get("met", {}).items() if not fine}
        lines.append("| " + " | ".join(_cell(row.get(key)) + (" !" if key in bad else "") for key in keys) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "-"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return "" if value is None else str(value)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Loss over file size of every classifier, as SVG by hand: no plotting library is needed for a few lines."""
    from curves_svg import draw

    names = list(dict.fromkeys(row["model"] for row in rows if "loss" in row))
    series = {name: [(row["size"], row["loss"]) for row in rows if row["model"] == name] for name in names}
    path.write_text(draw(series, across="file size / fp32", up="points lost", top=3.0))


def main() -> None:
    """Run the chosen sections on the chosen models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all without")
    parser.add_argument("--models", nargs="*", default=[], help="names; all of the zoo without")
    parser.add_argument("--seconds", type=float, default=12.0, help="timing per model")
    parser.add_argument("--limits", type=float, nargs="*", default=[0.5, 1.0], help="points that may be lost")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=zoo.HERE / "results")
    options = parser.parse_args()
    names = [entry.model for entry in zoo.ZOO if not options.models or entry.model in options.models]
    options.out.mkdir(parents=True, exist_ok=True)
    for section in options.sections or SECTIONS:
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                made = SECTIONS[section](Case(name, Path(folder)), options)
            sys.stderr.write("".join(line + "\n" for line in table(made).splitlines()[2:]) if made else "")
            write(section, name, made, options.out)
        sys.stdout.write((options.out / f"quantize-{section}.md").read_text())


def write(section: str, name: str, rows: Sequence[Row], folder: Path) -> None:
    """Put the rows of a model in place of those that were there: models may be run one by one, or side by side."""
    path = folder / f"quantize-{section}.json"
    with (folder / ".quantize.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(path.read_text()) if path.exists() else []
        for row in rows:
            row["load"] = round(os.getloadavg()[0], 1)
        order = [entry.model for entry in zoo.ZOO]
        whole = sorted(
            [*(row for row in known if row["model"] != name), *rows], key=lambda row: order.index(row["model"])
        )
        path.write_text(json.dumps(whole, indent=1) + "\n")
    note = "\n`!`: the goal was missed. `load`: of the machine when the row was done.\n"
    path.with_suffix(".md").write_text(table(whole) + note)
    if section == "curve":
        plot(whole, folder / "quantize-curve.svg")


if __name__ == "__main__":
    main()
