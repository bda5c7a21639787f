"""Whether given files load in releases of onnxruntime, run in integers there, and give the outputs they give here.

``python -m tools.release_files --data samples.npz --file small.onnx PYTHON...`` takes interpreters as
``tools.releases`` does and prints a row for every file and interpreter:

- ``int8`` and ``float``: how many layers with weights the optimized graph has in integers, and how many in float;
- ``off``: the largest difference of an output from that of the onnxruntime here, as a share of the largest output;
- ``-`` where the file does not load, and why.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

PROBE = Path(__file__).with_name("release_probe.py")
SAMPLES = 8
INTEGER = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits")
FLOAT = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")

Arrays = dict[str, np.ndarray]


def tried(python: str, file: Path, samples: Arrays) -> list[str]:
    """The row of one file and interpreter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        feed = fed(file, samples)
        shutil.copy(file, folder / "file.onnx")
        np.savez(folder / "input.npz", **feed)  # type: ignore[arg-type]  # numpy's stub takes no mapping
        subprocess.run([python, str(PROBE), name], check=True, env={"OMP_NUM_THREADS": "1"})
        answer = json.loads((folder / "answer.json").read_text())
        problem = str(answer["problems"]["file"])
        cells = ["-", "-", "-"] if problem else [*kernels(folder / "file.optimized"), off(file, feed, folder)]
    return [file.stem, str(answer["onnxruntime"]), *cells, problem]


def fed(file: Path, samples: Arrays) -> Arrays:
    """The first samples, as many as the batch of the model takes."""
    inputs = {value.name: value.type.tensor_type.shape.dim for value in onnx.load(file).graph.input}
    return {name: samples[name][: dims[0].dim_value or SAMPLES] for name, dims in inputs.items()}


def kernels(optimized: Path) -> list[str]:
    """How many layers run in integers, and how many in float."""
    kinds = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    return [str(sum(kinds[op] for op in ops)) for ops in (INTEGER, FLOAT)]


def off(file: Path, feed: Arrays, folder: Path) -> str:
    """The largest difference from the outputs here, relative."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    with np.load(folder / "file.npz") as found:
        pairs = [(found[name], wanted) for name, wanted in zip(names, session.run(names, feed), strict=True)]
    return f"{max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs):.1e}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Try the files and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.release_files", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("python", nargs="*", help="interpreters with an onnxruntime and a numpy")
    parser.add_argument("--file", action="append", type=Path, required=True, help="a model; may be repeated")
    parser.add_argument("--data", type=Path, required=True, help="samples: an .npz with an array per input")
    given = parser.parse_args(arguments)
    with np.load(given.data) as stored:
        samples = dict(stored)
    names = ["file", "onnxruntime", "int8", "float", "off", "error"]
    rows = [tried(python, file, samples) for file in given.file for python in given.python or [sys.executable]]
    for line in (names, ["---"] * len(names), *rows):
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
