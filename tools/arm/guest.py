"""What runs on a core: python guest.py MODEL SAMPLES [--values NPZ] [--optimized PATH] [--as-is].

It needs numpy and onnxruntime only. SAMPLES is an .npz with an array for every input, whose first axis counts the
runs. Prints a JSON list of the graph outputs: name, type, sha256 of the bytes of all runs. NPZ gets their values,
stacked, by position.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from typing import Any

import numpy as np
import onnxruntime as ort


def main() -> None:
    """Run the model once for every sample."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("samples")
    parser.add_argument("--values")
    parser.add_argument("--optimized")
    parser.add_argument("--as-is", action="store_true")
    given = parser.parse_args()
    session = opened(given.model, given.optimized, given.as_is)
    outputs = session.get_outputs()
    names = [output.name for output in outputs]
    hashes = [hashlib.sha256() for _ in outputs]
    kept: list[list[np.ndarray]] = [[] for _ in outputs]
    with np.load(given.samples) as archive:
        samples = {name: archive[name] for name in archive.files}
    for number in range(len(next(iter(samples.values())))):
        found = session.run(names, {name: values[number] for name, values in samples.items()})
        for array, sum_, values in zip(found, hashes, kept, strict=True):
            sum_.update(np.ascontiguousarray(array).tobytes())
            if given.values:
                values.append(array)
    if given.values:
        arrays: dict[str, Any] = {str(place): np.stack(values) for place, values in enumerate(kept)}
        np.savez(given.values, **arrays)
    rows = zip(outputs, hashes, strict=True)
    print(json.dumps([{"name": out.name, "type": out.type, "sha256": sum_.hexdigest()} for out, sum_ in rows]))


def opened(model: str, optimized: str | None, as_is: bool) -> ort.InferenceSession:
    """A session with one thread, at the level that is shipped for."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL if as_is else level.ORT_ENABLE_ALL
    if optimized:
        options.optimized_model_filepath = optimized
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
