"""Large models: what analysing, cutting and saving one takes in memory and time.

    python benchmarks/large.py [--gigabytes 1.0 2.3] [--out benchmarks/results] [--folder TEMP]

Makes a stack of feed-forward blocks of a transformer, x + W₂ relu(W₁ x) of width 2048 and 8192, with random float32
weights of that size; above 2 GiB with external data, as ONNX wants it. A fresh process then does what edgepress does:

    load > admit > normalize > groups > cut (every 16th inner neuron) > oracle > save > run the saved file

``oracle`` compares the cut model with the original whose consuming weights are zeroed, in onnxruntime; ``run`` loads
the saved file from its path and must get the outputs of the model in memory. Peak memory is what the kernel says
(``ru_maxrss``). The exit status is 1 when a model of ``LIMIT_FOR`` GB or less takes more than ``LIMIT`` GB.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HIDDEN = 2048, 8192
BLOCK = 2 * 4 * WIDTH * HIDDEN
"""Bytes of one block."""

EVERY = 16
"""One inner neuron of so many goes: few enough that what is left of the largest model does not fit one file either."""

LIMIT = 6.0
"""GB of memory that the work may take at its peak."""

LIMIT_FOR = 1.1
"""GB of the largest model that the limit is for."""

STAGES = ("load", "admit", "normalize", "groups", "cut", "oracle", "save", "run")


def make(path: Path, blocks: int) -> None:
    """Write a stack of blocks."""
    import onnx
    from onnx import helper, numpy_helper

    from edgepress.model import Model

    random = np.random.default_rng(0)
    nodes, weights, stream = [], [], "x"
    for number in range(blocks):
        names = [f"{number}/{part}" for part in ("up", "relu", "down", "add")]
        made = [f"{name}_output" for name in names]
        for part, shape in (("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH))):
            values = random.random(shape, dtype=np.float32)
            values -= 0.5
            values *= 2 / np.sqrt(shape[0])
            weights.append(numpy_helper.from_array(values, f"{number}/{part}.weight"))
        nodes += [
            helper.make_node("MatMul", [stream, f"{number}/up.weight"], made[:1], names[0]),
            helper.make_node("Relu", made[:1], made[1:2], names[1]),
            helper.make_node("MatMul", [made[1], f"{number}/down.weight"], made[2:3], names[2]),
            helper.make_node("Add", [stream, made[2]], made[3:], names[3]),
        ]
        stream = made[3]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", WIDTH]) for name in ("x", stream)]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], weights)
    Model.of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)).save(path)


class Stages:
    """Seconds and peak memory after every stage."""

    def __init__(self) -> None:
        """Nothing is done yet."""
        self.rows: list[dict[str, Any]] = []
        self._since = time.perf_counter()

    def done(self, name: str) -> None:
        """A stage ended."""
        now = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        self.rows.append({"name": name, "seconds": now - self._since, "peak_gb": peak * 1.024})
        self._since = now


def work(path: Path) -> dict[str, Any]:
    """All stages on one model, in this process."""
    from edgepress import runtime
    from edgepress.groups import find_groups
    from edgepress.model import Model
    from edgepress.normalize import admit, normalize
    from edgepress.surgery.cut import cut
    from edgepress.surgery.oracle import check_cut

    stages = Stages()
    model = Model.load(path)
    stages.done("load")
    admit(model)
    stages.done("admit")
    model = normalize(model, []).model
    stages.done("normalize")
    grouping = find_groups(model)
    stages.done("groups")
    removed = {group.name: range(0, group.size, EVERY) for group in grouping.prunable}
    cutting = cut(model, grouping, removed)
    stages.done("cut")
    feed = {"x": np.random.default_rng(1).standard_normal((2, WIDTH)).astype(np.float32)}
    error = check_cut(model, grouping, removed, cutting, [feed])
    stages.done("oracle")
    del model
    smaller = path.with_name("cut.onnx")
    cutting.model.save(smaller)
    stages.done("save")
    expected = runtime.run(cutting.model.session(), feed)
    del cutting
    found = runtime.run(runtime.session(smaller), feed)
    stages.done("run")
    same = all(np.allclose(found[name], expected[name], rtol=1e-5, atol=1e-5) for name in expected)
    files = [file for file in (smaller, smaller.with_name("cut.onnx.data")) if file.exists()]
    return {
        "stages": stages.rows,
        "groups": len(grouping.prunable),
        "removed": sum(len(channels) for channels in removed.values()),
        "error": error,
        "same": same,
        "saved_gb": sum(file.stat().st_size for file in files) / 1e9,
        "files": len(files),
    }


def measure(gigabytes: float, parent: Path | None) -> dict[str, Any]:
    """Make a model and let a fresh process work on it."""
    blocks = math.ceil(gigabytes * 1e9 / BLOCK)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        path = Path(folder) / "model.onnx"
        for task in ("--make", "--work"):
            command = [sys.executable, __file__, task, str(path), "--blocks", str(blocks)]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
            if done.returncode:
                raise SystemExit(f"{task} failed for {gigabytes} GB")
        size = sum(file.stat().st_size for file in Path(folder).glob("model.onnx*"))
    row: dict[str, Any] = json.loads(done.stdout)
    return {"gb": size / 1e9, "blocks": blocks, **row}


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Large models: peak memory and time of analysing, cutting and saving",
        "",
        "GB of memory are the highest so far of the process, seconds those of the stage.",
        "",
        "| model GB | groups | channels cut | " + " | ".join(STAGES) + " | error | saved GB | files |",
        "|" + "---|" * (len(STAGES) + 6),
    ]
    for row in rows:
        stages = {stage["name"]: f"{stage['peak_gb']:.1f} GB, {stage['seconds']:.0f} s" for stage in row["stages"]}
        cells = [f"{row['gb']:.2f}", str(row["groups"]), str(row["removed"]), *(stages[name] for name in STAGES)]
        cells += [f"{row['error']:.0e}", f"{row['saved_gb']:.2f}", str(row["files"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *map(verdict, rows)]) + "\n"


def verdict(row: dict[str, Any]) -> str:
    """One sentence on a model."""
    peak = row["stages"][-1]["peak_gb"]
    same = "answers as the model in memory does" if row["same"] else "answers DIFFERENTLY from the model in memory"
    limit = "" if row["gb"] > LIMIT_FOR else f" ({'within' if peak <= LIMIT else 'OVER'} the limit of {LIMIT:.0f} GB)"
    return f"- {row['gb']:.2f} GB: peak {peak:.1f} GB{limit}; the saved model, loaded from its file, {same}."


def main() -> int:
    """Measure every size, or do one of the tasks of the processes it starts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1.0, 2.3])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--folder", type=Path, help="where to put the models (twice their size)")
    for task in ("--make", "--work"):
        parser.add_argument(task, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--blocks", type=int, default=1, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if chosen.make is not None:
        make(chosen.make, chosen.blocks)
        return 0
    if chosen.work is not None:
        sys.stdout.write(json.dumps(work(chosen.work)))
        return 0
    rows = [measure(size, chosen.folder) for size in chosen.gigabytes]
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "large.md").write_text(table(rows), encoding="utf-8")
    sys.stdout.write(table(rows))
    over = any(row["gb"] <= LIMIT_FOR and row["stages"][-1]["peak_gb"] > LIMIT for row in rows)
    return int(over or not all(row["same"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
