"""Memory: run edgepress on the same model with more and more samples and look at what it takes.

    python benchmarks/memory.py [--samples 256 1024 4096] [--out benchmarks/results] [--tool=--no-quantize]

Samples are streamed, so peak memory is bounded by budgets of edgepress (activations of a sweep, Gram matrices of
a pass), not by how many samples there are; with fewer samples than a sweep holds (512) it is lower. Each run is
``edgepress compress`` in a process of its own; its peak is what the kernel says when it ends. The model is
fashion_vgg7bn_bn with training images of ``../shared`` (or the folder named by EDGEPRESS_SHARED); without it the
embedded digits network with embedded digits, slightly noisy copies beyond 1197.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zoo

ROOT = zoo.HERE.parent
GROWTH = 1.10
"""Peak of the largest run over that of the one before it that still counts as flat: allocators alone make 5 %."""


def material(most: int) -> tuple[Path, str, np.ndarray]:
    """The model, the name of its input, and ``most`` samples."""
    model = zoo.SHARED / "models" / "fashion_vgg7bn_bn.onnx"
    if not model.is_file():
        return ROOT / "calibration" / "digits_cnn.onnx", "image", _digits(most)
    from edgepress.model import Model

    share = zoo._shared()
    pictures = share.load(zoo.SHARED / "data" / "fashion_mnist.npz")["x_train"]
    if len(pictures) < most:
        raise SystemExit(f"There are {len(pictures)} training images: ask for no more by --samples.")
    return model, next(iter(Model.load(model).inputs)), share.fashion_input(pictures[:most])


def _digits(most: int) -> np.ndarray:
    with np.load(ROOT / "calibration" / "digits.npz") as archive:
        digits = archive["image"]
    random = np.random.default_rng(0)
    rounds = -(-most // len(digits))
    copies = [digits + (0.01 * random.standard_normal(digits.shape) if i else 0.0) for i in range(rounds)]
    return np.concatenate(copies)[:most].astype(np.float32)


def measure(model: Path, name: str, samples: np.ndarray, options: list[str]) -> dict[str, Any]:
    """Compress with these samples; seconds, peak megabytes of the process and of its stages."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        np.savez(place / "samples.npz", **{name: samples})
        command = [sys.executable, "-m", "edgepress", "compress", str(model), "--data", str(place / "samples.npz")]
        begin = time.perf_counter()
        with (place / "report.json").open("wb") as out, (place / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "-o", str(place / "small.onnx"), "--json", "-q", *options], stdout=out, stderr=log, cwd=ROOT
            )
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        if status != 0:
            raise SystemExit(f"edgepress failed with {len(samples)} samples:\n{(place / 'log').read_text()}")
        report = json.loads((place / "report.json").read_text())
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # a child starts its count with ours
    if usage.ru_maxrss / 1024 <= own:
        raise SystemExit(f"This script took {own:.0f} MB itself, which hides the peak: ask for fewer samples.")
    stages = {row["name"]: row["peak_mb"] for row in report["stages"]}
    return {
        "model": model.stem,
        "samples": len(samples),
        "seconds": seconds,
        "peak_mb": usage.ru_maxrss / 1024,
        "stages": stages,
        "chosen": report["chosen"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    before, last = rows[-2:] if len(rows) > 1 else (rows[0], rows[0])
    growth = last["peak_mb"] / before["peak_mb"]
    stages = list(rows[0]["stages"])
    lines = [
        f"# Memory of `edgepress compress` on {rows[0]['model']}",
        "",
        "| samples | seconds | peak MB | " + " | ".join(f"after {name}" for name in stages) + " |",
        "|" + "---|" * (3 + len(stages)),
    ]
    for row in rows:
        peaks = " | ".join(f"{row['stages'].get(name, 0):.0f}" for name in stages)
        lines.append(f"| {row['samples']} | {row['seconds']:.0f} | {row['peak_mb']:.0f} | {peaks} |")
    word = "flat" if growth <= GROWTH else "NOT flat"
    lines += [
        "",
        f"From {before['samples']} to {last['samples']} samples the peak changes by a factor of {growth:.2f}: {word}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every number of samples and write JSON and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--out", type=Path, default=zoo.HERE / "results")
    parser.add_argument("--tool", default="", help="further options for edgepress compress, separated by spaces")
    chosen = parser.parse_args()
    model, name, samples = material(max(chosen.samples))
    rows = [measure(model, name, samples[:count], chosen.tool.split()) for count in sorted(chosen.samples)]
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "memory.json").write_text(json.dumps(rows, indent=1) + "\n")
    (chosen.out / "memory.md").write_text(table(rows))
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    main()
