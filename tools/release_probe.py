"""The half of ``tools.releases`` that runs inside an old environment: it knows numpy and onnxruntime only.

``python tools/release_probe.py FOLDER`` opens every ``*.onnx`` of the folder at full optimisation, writes the optimized
graph to ``NAME.optimized``, runs it on ``input.npz`` and saves the outputs as ``NAME.npz``; ``answer.json`` says what
happened: the version of onnxruntime, and by file either an empty text or the first line of the error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

NAMES = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
REFUSALS = tuple(getattr(state, name) for name in NAMES)


def main(folder: Path) -> None:
    """Try every model of a folder."""
    with np.load(folder / "input.npz") as stored:
        feed = dict(stored)
    problems = {path.stem: attempt(path, feed) for path in sorted(folder.glob("*.onnx"))}
    (folder / "answer.json").write_text(json.dumps({"onnxruntime": ort.__version__, "problems": problems}))


def attempt(path: Path, feed: dict[str, np.ndarray]) -> str:
    """Load and run one model; the first line of the error, empty if there is none."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = session.run(None, {item.name: feed[item.name] for item in session.get_inputs()})
    except REFUSALS as error:
        return str(error).strip().split("\n")[0]
    names = [item.name for item in session.get_outputs()]
    np.savez(path.with_suffix(".npz"), **dict(zip(names, found, strict=True)))
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
