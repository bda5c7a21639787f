"""The zoo: run edgepress on real trained models and hold it against the figures to reach.

    python benchmarks/zoo.py
    python benchmarks/zoo.py cifar10_resnet20_folded cifar10_resnet20_dynamo fashion_vgg7bn_folded --name zoo-exports

Every model gets up to 1024 unlabelled training images (other kinds of samples where there are fewer), exactly as a user
would hand them over: ``edgepress compress MODEL --data calib.npz --max-drop GOAL``, in a process of its own whose wall
time and peak memory are measured. Accuracy is then counted on test sets the tool never saw. Latency: batch 1, one
thread, interleaved pairs, ratio to the CLEANED fp32 model, measured again after all tools ran. Models and data are
looked for in ``../shared`` or the folder named by EDGEPRESS_SHARED.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("EDGEPRESS_SHARED", HERE.parent.parent / "shared"))
SAMPLES = 1024

Arrays = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class Entry:
    """One model, its data and its goals (None: only reported)."""

    model: str
    data: Callable[[], tuple[np.ndarray, Arrays]]
    loss: float | None
    latency: float | None
    size: float | None


def _shared() -> ModuleType:
    place = SHARED / "load_share.py"
    spec = importlib.util.spec_from_file_location("load_share", place) if place.is_file() else None
    if spec is None or spec.loader is None:
        raise SystemExit(f"{SHARED} holds no load_share.py: set EDGEPRESS_SHARED to the folder of models and data.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _mnist() -> tuple[np.ndarray, Arrays]:
    share = _shared()
    z = share.load(SHARED / "data/mnist.npz")
    return share.mnist_input(z["x_train"][:SAMPLES]), (share.mnist_input(z["x_test"]), z["y_test"])


def _fashion() -> tuple[np.ndarray, Arrays]:
    share = _shared()
    z = share.load(SHARED / "data/fashion_mnist.npz")
    return share.fashion_input(z["x_train"][:SAMPLES]), (share.fashion_input(z["x_test"]), z["y_test"])


def _cifar(prepare: str) -> Callable[[], tuple[np.ndarray, Arrays]]:
    def load() -> tuple[np.ndarray, Arrays]:
        share = _shared()
        z = share.load(SHARED / "data/cifar10_lossless.npz")
        function = getattr(share, prepare)
        return function(z["x_train"][:SAMPLES]), (function(z["x_test"]), z["y_test"])

    return load


def _imagenet() -> tuple[np.ndarray, Arrays]:
    share = _shared()
    z = share.load(SHARED / "data/imagenet_sample224.npz")
    return share.imagenet_input(z["x_calib"]), (share.imagenet_input(z["x_eval"]), z["y_eval"])


def _kws() -> tuple[np.ndarray, Arrays]:
    share = _shared()
    z = share.load(SHARED / "data/kws_mfcc.npz")
    scale, zero = z["scale"], z["zero_point"]
    return share.kws_input(z["x_calib"], scale, zero), (share.kws_input(z["x_eval"], scale, zero), z["y_eval"])


def _faces() -> tuple[np.ndarray, Arrays]:
    share = _shared()
    pictures = share.face_input(share.load(SHARED / "data/faces_320x240.npz")["x"])
    return pictures[:12], (pictures[12:], None)


ZOO = (
    Entry("mnist_lenet300100", _mnist, 1.0, 0.45, 0.07),
    Entry("mnist_lenet5caffe", _mnist, 1.0, 0.45, 0.03),
    Entry("fashion_vgg7bn_bn", _fashion, 1.0, 0.62, 0.17),
    Entry("fashion_vggw_bn", _fashion, 0.5, 0.15, 0.07),
    Entry("cifar10_resnet20_bn", _cifar("norm_torch"), 1.0, 0.45, 0.26),
    Entry("cifar10_resnet56_bn", _cifar("norm_torch"), 1.0, 0.41, 0.22),
    Entry("cifar10_resnet8_mlperf", _cifar("resnet8_input"), 1.0, 0.65, 0.28),
    Entry("imagenet_mobilenetv1_025_bn", _imagenet, 1.0, 0.93, None),
    Entry("kws_dscnn", _kws, 1.0, 0.95, 0.42),
    Entry("ultraface_rfb320_opset9", _faces, None, 1.0, 0.40),
)
"""The goals are those of the project's first milestone; ultraface is held to 20 dB of SQNR instead of a loss."""

VARIANTS = (
    Entry("fashion_vgg7bn_folded", _fashion, 1.0, 0.62, 0.17),
    Entry("cifar10_resnet20_folded", _cifar("norm_torch"), 1.0, 0.45, 0.26),
    Entry("cifar10_resnet20_dynamo", _cifar("norm_torch"), 1.0, 0.45, 0.26),
    Entry("imagenet_mobilenetv1_025_folded", _imagenet, 1.0, 0.93, None),
)
"""Other exports of the same networks; run when named."""

MADE = (Entry("fashion_vit", _fashion, None, None, None),)
"""Models that scripts make, in the folder ``build`` (``python -m tools.train_vit``)."""


def path_of(entry: Entry) -> Path:
    """Where a model lies."""
    folder = HERE.parent / "build" if entry in MADE else SHARED / "models"
    path = folder / f"{entry.model}.onnx"
    if not path.is_file():
        raise SystemExit(f"{path} is not there: make it, or set EDGEPRESS_SHARED to the folder of models and data.")
    return path


def compress(entry: Entry, folder: Path, options: list[str]) -> dict[str, Any]:
    """Run the tool as a user does; returns its report with wall seconds and peak megabytes of its process."""
    from edgepress.model import Model

    path = path_of(entry)
    calibration, _ = entry.data()
    name = next(iter(Model.load(path).inputs))
    np.savez(folder / "calib.npz", **{name: calibration})
    output = folder / f"{entry.model}.onnx"
    command = [sys.executable, "-m", "edgepress", "compress", str(path), "--data", str(folder / "calib.npz")]
    command += [] if entry.loss is None else ["--max-drop", str(entry.loss)]
    begin = time.perf_counter()
    done = subprocess.run(
        [*command, "-o", str(output), "--json", *options], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        raise SystemExit(f"{entry.model}: exit code {done.returncode}\n{done.stderr}")
    sys.stderr.write(done.stderr)
    places = done.stdout.replace(str(folder), "out").replace(str(SHARED), "../shared")  # no paths of one machine
    report = json.loads(places)
    return {"report": report, "seconds": seconds, "peak_mb": max(row["peak_mb"] for row in report["stages"])}


def evaluate(model: bytes, inputs: np.ndarray, batched: bool) -> np.ndarray:
    """First-output rows of a model over the test set."""
    from edgepress import runtime

    opened = runtime.session(model)
    name, size = opened.get_inputs()[0].name, 100 if batched else 1
    parts = [opened.run(None, {name: inputs[i : i + size]}) for i in range(0, len(inputs), size)]
    return np.concatenate([np.concatenate([array.reshape(len(array), -1) for array in part], axis=1) for part in parts])


def measure(entry: Entry, folder: Path, seconds: float) -> dict[str, Any]:
    """Accuracy before and after on the test set, paired latency against the cleaned model, sizes."""
    from edgepress.bench import compare
    from edgepress.model import Model
    from edgepress.normalize import normalize

    path = path_of(entry)
    original, small = Model.load(path), Model.load(folder / f"{entry.model}.onnx")
    calibration, (inputs, labels) = entry.data()
    name = next(iter(original.inputs))
    batched = not isinstance((original.inputs[name].shape or (None,))[0], int)
    cleaned = normalize(original, [{name: calibration[:1]}]).model
    before, after = (evaluate(model.data, inputs, batched) for model in (original, small))
    feeds = [{name: inputs[i : i + 1]} for i in range(16 if len(inputs) >= 16 else len(inputs))]
    timing = compare({"cleaned": cleaned.data, "small": small.data}, feeds, seconds=seconds, reference="cleaned")
    ratio = timing.ratio("small")
    if ratio is None:
        raise SystemExit("the timing lacks the compressed model")
    found: dict[str, Any] = {
        "samples": len(inputs),
        "latency": ratio.median,
        "latency_low": ratio.low,
        "latency_high": ratio.high,
        "noise_floor": timing.noise_floor,
        "load": timing.machine.load_1m,
        "size": small.size / path.stat().st_size,
        "bytes": small.size,
    }
    if labels is None:
        return {**found, "sqnr": float(10 * np.log10((before**2).sum() / ((before - after) ** 2).sum()))}
    right = [float((rows.argmax(1) == labels).mean()) * 100 for rows in (before, after)]
    lost = 100 * ((before.argmax(1) == labels).astype(float) - (after.argmax(1) == labels))
    half = 1.96 * float(lost.std()) / len(lost) ** 0.5
    agreement = float((before.argmax(1) == after.argmax(1)).mean()) * 100
    return {
        **found,
        "accuracy": right[0],
        "after": right[1],
        "loss": right[0] - right[1],
        "half": half,
        "agreement": agreement,
    }


def met(entry: Entry, row: dict[str, Any]) -> dict[str, bool]:
    """Which goals are met."""
    goals = {"latency": entry.latency, "size": entry.size, "loss": entry.loss}
    found = {key: row[key] <= goal for key, goal in goals.items() if goal is not None and key in row}
    return {**found, **({"sqnr": row["sqnr"] >= 20} if "sqnr" in row else {})}


def table(rows: list[dict[str, Any]]) -> str:
    """The results as a Markdown table; a goal that was missed is marked with an exclamation mark."""
    head = (
        "| model | quality before → after | loss (95 %) | goal | latency (95 %) | goal | size | goal | seconds | MB |"
    )
    lines = [head, "|" + "---|" * 10]
    for row in rows:
        bad = {key: "" if fine else " !" for key, fine in row["met"].items()}
        quality = f"{row['sqnr']:.1f} dB" if "sqnr" in row else f"{row['accuracy']:.2f} → {row['after']:.2f}"
        loss = "" if "sqnr" in row else f"{row['loss']:+.2f} ± {row['half']:.2f}{bad.get('loss', '')}"
        goals = [row["goals"][key] for key in ("loss", "latency", "size")]
        shown = ["" if goal is None else f"{goal:g}" for goal in goals]
        latency = f"{row['latency']:.3f} ({row['latency_low']:.3f}–{row['latency_high']:.3f}){bad.get('latency', '')}"
        size = f"{row['size']:.3f}{bad.get('size', '')}"
        lines.append(
            f"| {row['model']} | {quality} | {loss} | {shown[0]} | {latency} | {shown[1]} | {size} | {shown[2]} "
            f"| {row['seconds']:.0f} | {row['peak_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the chosen models and write JSON and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="names; all of the zoo without")
    parser.add_argument("--seconds", type=float, default=15.0, help="timing per model")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--name", default="zoo", help="name of the files written there")
    parser.add_argument("--tool", default="", help="further options for edgepress compress, separated by spaces")
    chosen = parser.parse_args()
    entries = [entry for entry in (*ZOO, *VARIANTS) if entry.model in chosen.models] or list(ZOO)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for entry in entries:
            place = Path(folder)
            ran = compress(entry, place, chosen.tool.split())
            measured = measure(entry, place, chosen.seconds)
            goals = {"loss": entry.loss, "latency": entry.latency, "size": entry.size}
            row = {"model": entry.model, **measured, "goals": goals, "met": met(entry, measured), **ran}
            rows.append(row)
            sys.stderr.write(table([row]).splitlines()[-1] + "\n")
    chosen.out.mkdir(parents=True, exist_ok=True)
    name = chosen.name
    (chosen.out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    (chosen.out / f"{name}.md").write_text(table(rows))
    sys.stdout.write(table(rows))
    sys.stderr.write(f"peak of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB\n")


if __name__ == "__main__":
    main()
