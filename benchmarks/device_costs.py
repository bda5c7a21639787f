"""Costs of devices: whether widths that follow them cost what was predicted, and what models then need.

    python benchmarks/device_costs.py predicted [--device local] [--models NAME...] [--minutes 9]
    python benchmarks/device_costs.py emulated [--cores cortex-a53 ...] [--models NAME...] [--minutes 9]

``predicted`` plans widths by the device's table of layer costs, for speed-ups (``--speedup``) and for quality
(``--max-drop``), and compares the models of these widths with the whole one in one interleaved run: the ratio that the
table says beside the ratio that was measured. The goal is a median error of 10 % over all widths.

``emulated`` hands models over as a user gets them, ``edgepress compress --device emulated://CORE`` with ``--no-prune``
(int8), ``--no-quantize`` (pruned) and neither (both), and counts what a run of each needs on that core, beside fp32 and
onnxruntime's own static int8. Instructions are no time. Needs the emulator (``make test-arm`` sets it up).

Models, samples and test sets are those of ``zoo.py``. Rows go to ``results/device-SECTION.json`` as they are made, by
model, or by model and core; those that are there are not made again unless ``--again``. A part takes ``--minutes`` at
most, about; the same command goes on with the rest, and exits with status 1 while rows are missing or a goal is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import quantize
import zoo

from edgepress.bench.meter import meter_of
from edgepress.errors import Refusal
from edgepress.model import Model
from edgepress.pipeline.analysis import analyze
from edgepress.pipeline.budgets import along_device, search_of
from edgepress.pipeline.candidates import Judge
from edgepress.pipeline.context import first, inputs_of
from edgepress.pipeline.narrowing import narrower
from edgepress.pipeline.place import place_of
from edgepress.pipeline.prepare import clean, context_of, limit_of, read
from edgepress.planner import ALLOCATIONS, removed_channels
from edgepress.quantize.baseline import plain_static_int8
from edgepress.request import Request
from edgepress.surgery.cut import cut

Row = dict[str, Any]

NETWORKS = (
    "mnist_lenet5caffe", "cifar10_resnet8_mlperf", "kws_dscnn", "fashion_vgg7bn_bn", "cifar10_resnet20_bn",
    "imagenet_mobilenetv1_025_bn", "cifar10_resnet56_bn", "fashion_vggw_bn",
)  # fmt: skip
"""Convolutional networks of the zoo, quick ones first."""

CORES = ("cortex-a53", "cortex-a72", "cortex-a55", "cortex-a76")
GOAL = 0.10
"""Median of predicted over measured, less 1."""

FORMS = {"int8": ["--no-prune"], "pruned": ["--no-quantize"], "pruned int8": []}
"""What is handed over, and what is asked of compress for it."""

MADE_BY = """
Made by `python benchmarks/device_costs.py {section}`. `!`: the goal was missed. `load`: of the machine when the row was
done.
"""


# --- predicted against measured -----------------------------------------------------------------------------------


def predicted(case: quantize.Case, key: str, options: argparse.Namespace) -> list[Row]:
    """Widths that were planned, by what the table says and by what was measured."""
    request = Request(
        model=case.path, output=None, data=str(case.calibration), dry_run=True, device=options.device, quantize=False
    )
    opened = read(request)
    assert opened.feed is not None
    with place_of(request) as place:
        cleaned = clean(opened).model
        context, _ = context_of(request, cleaned, opened.feed, place)
        limit = limit_of(request, cleaned, opened.feed)
        analysis = along_device(request, context, analyze(context, classifies=limit.measure != "sqnr"))
        ladder, table = analysis.ladder, analysis.table
        if table is None:
            return []
        states: dict[str, dict[str, int]] = {}
        for speedup in options.speedup:
            found = ALLOCATIONS["hybrid"].within(ladder, table, table({}) / speedup)
            if found is not None:
                states[f"--speedup {speedup:g}"] = dict(found.removed)
        for drop in options.max_drop:
            judged = Judge(context, dataclasses.replace(limit, max_drop=drop), opened.model.size)
            search = search_of(dataclasses.replace(request, max_drop=drop), context, analysis, opened.model.size)
            for item in narrower(context, analysis, judged, search)[-1:]:
                states[f"--max-drop {drop:g}"] = {entry.group: len(entry.removed) for entry in item.cuts}
        models = {"whole": context.model.data}
        for name, removed in states.items():
            cuts = removed_channels(ladder.groups, ladder.rankings, ladder.state(removed))
            models[name] = cut(
                context.model, context.grouping, {entry.group: entry.removed for entry in cuts}
            ).model.data
        feeds = inputs_of(context.hold_out, 8, chunk=1)
        timing = place.meter.compare(models, feeds, seconds=options.seconds, reference="whole")
        rows = []
        for name, removed in states.items():
            ratio, said = timing.ratio(name), table.ratio(removed)
            assert ratio is not None
            row = {"model": case.name, "asked": name, "device": place.machine.cpu, "level": timing.level,
                   "predicted": said, "measured": ratio.median, "low": ratio.low, "high": ratio.high,
                   "error": abs(said / ratio.median - 1), "costs": table.taken, "known": table.known}  # fmt: skip
            rows.append(row)
        return rows


def predicted_summary(rows: Sequence[Row]) -> tuple[str, bool]:
    """The median error over all widths, and whether it is as small as it should be."""
    errors = [row["error"] for row in rows]
    if not errors:
        return "", False
    median = float(np.median(errors))
    text = f"{len(errors)} widths: median error {100 * median:.1f} %, largest {100 * max(errors):.1f} %; goal 10 %.\n"
    return text, median <= GOAL


# --- what models need on emulated cores ---------------------------------------------------------------------------


def emulated(case: quantize.Case, key: str, options: argparse.Namespace) -> list[Row]:
    """Instructions of the forms that are handed over for a core."""
    core = key.split(" ")[1]
    device, begin = f"emulated://{core}", time.perf_counter()
    limit = [] if case.entry.loss is None else ["--max-drop", str(case.entry.loss)]
    models, row = {"fp32": case.cleaned}, {"model": case.name, "core": core}
    plain = _plain(case)
    if plain is not None:
        models["onnxruntime int8"] = plain
    for form, words in FORMS.items():
        models[form], report = case.tool("compress", "--device", device, *limit, *words)
        if form == "pruned":
            chosen = next(item for item in report["variants"] if item["name"] == report["chosen"])
            row["predicted"] = None if chosen["pruning"] is None else chosen["pruning"]["latency"]
    with meter_of(device) as meter:
        feeds = [{case.input: case.test[:1]}]
        timing = meter.compare({name: model.data for name, model in models.items()}, feeds, reference="fp32")
    row |= {"fp32, millions": timing.latency("fp32").p50}
    row |= {name: ratio.median for name in models if (ratio := timing.ratio(name)) is not None}
    row |= {f"{_lost(case)}, {form}": _loss(case, models[form]) for form in FORMS}
    return [row | {"seconds": round(time.perf_counter() - begin)}]


def _plain(case: quantize.Case) -> Model | None:
    """Onnxruntime's static quantization as its documentation advises; None where it fails."""
    from edgepress.calibrate import open_feed

    feed = first(open_feed(str(case.calibration), case.cleaned), 256)
    found = plain_static_int8(case.cleaned, feed, case.folder)
    return None if isinstance(found, Refusal) else found


def _lost(case: quantize.Case) -> str:
    return "dB" if case.labels is None else "lost"


def _loss(case: quantize.Case, model: Model) -> float:
    """Points lost on the test set, or signal to noise in dB, by the onnxruntime of this machine."""
    found = case.loss(model)
    return float(found["sqnr"] if case.labels is None else found["loss"])


def emulated_summary(rows: Sequence[Row]) -> tuple[str, bool]:
    """What the columns are."""
    if not rows:
        return "", False
    return "Ratios of instructions to fp32's on the same core, counted under an emulator; they are no times.\n", True


# --- rows ---------------------------------------------------------------------------------------------------------

Make = Callable[[quantize.Case, str, argparse.Namespace], list[Row]]
SECTIONS: dict[str, tuple[Make, Callable[[Sequence[Row]], tuple[str, bool]]]] = {
    "predicted": (predicted, predicted_summary),
    "emulated": (emulated, emulated_summary),
}


def keys(section: str, options: argparse.Namespace) -> Iterator[str]:
    """What there is a row, or a few, for."""
    for name in options.models or NETWORKS:
        if section == "predicted":
            yield name
        else:
            yield from (f"{name} {core}" for core in options.cores)


def main() -> int:
    """Make the rows that are missing, until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument(
        "--models", nargs="*", default=[], metavar="NAME", help="of the zoo; those of this file without"
    )
    parser.add_argument("--cores", nargs="*", default=list(CORES), choices=CORES, metavar="CORE")
    parser.add_argument("--device", default="local", metavar="SPEC", help="of predicted")
    parser.add_argument("--speedup", type=float, nargs="*", default=[1.25, 1.5, 2.0, 3.0])
    parser.add_argument("--max-drop", type=float, nargs="*", default=[0.5, 2.0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of the comparison of one model")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--again", action="store_true", help="make rows anew")
    parser.add_argument("--out", type=Path, default=zoo.HERE / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path, begin = options.out / f"device-{options.section}.json", time.monotonic()
    make, summary = SECTIONS[options.section]
    done: dict[str, list[Row]] = json.loads(path.read_text()) if path.exists() else {}
    left = [key for key in keys(options.section, options) if options.again or key not in done]
    for place, key in enumerate(left):
        took = (time.monotonic() - begin) / 60
        if place and took * (place + 1) / place > options.minutes:  # the next one would not be done in time
            break
        print(key, "...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            rows = make(quantize.Case(key.split(" ")[0], Path(folder)), key, options)
        done[key] = [row | {"load": round(os.getloadavg()[0], 1)} for row in rows]
        write(path, options.section, done)
    missing = [key for key in keys(options.section, options) if key not in done]
    write(path, options.section, done)
    print(path.with_suffix(".md").read_text(), end="")
    if missing:
        print(f"{len(missing)} are missing: run this again.", file=sys.stderr)
    return int(bool(missing) or not summary([row for rows in done.values() for row in rows])[1])


def write(path: Path, section: str, done: dict[str, list[Row]]) -> None:
    """The rows as JSON and as a page."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(done, indent=1) + "\n")
    beside.replace(path)
    rows = [row for found in done.values() for row in found]
    text, _ = SECTIONS[section][1](rows)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=zoo.HERE)
    note = MADE_BY.format(section=section) + (f"Commit {commit.stdout.strip()}.\n" if commit.returncode == 0 else "")
    path.with_suffix(".md").write_text(f"{text}\n{quantize.table(rows)}{note}")


if __name__ == "__main__":
    sys.exit(main())
