"""Instructions of a few networks on emulated cores, compared with kept ones: `python tools/arm/reference.py [--write]`.

A change of these figures is a change of what edgepress writes, or of what is set up; ``--write`` accepts it. Figures of
other versions are not compared: onnxruntime's kernels, and what numpy and Python do around them, are counted too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import emulator
import integer
import numpy as np
import onnx
import onnx.compose
import onnx.parser

from edgepress.bench.counted import MARGIN, SLACK
from edgepress.devices import Agent
from edgepress.devices.counting import Counts, counts_each
from edgepress.devices.emulated import Emulated, Place
from edgepress.errors import EdgepressError

FIGURES = Path(__file__).with_name("counts.json")
CORES = ("cortex-a53", "cortex-a76")
"""Without and with dot products; the other two run the same kernels."""

EXACT = ("fp_fma", "int_dot", "int_mmla", "int_widen_mla")
"""What multiplies and adds must be the same to the instruction."""

DIGITS = emulator.ROOT / "calibration" / "digits_cnn.onnx"
SAMPLES = 32
SEED = 0

SEPARABLE = """<ir_version: 10, opset_import: ["": 21]> separable (float[1,8,16,16] x) => (float[1,10] y) {
    a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1, b1)  ar = Relu(a)
    d = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 32> (ar, w2, b2)  dr = Relu(d)
    p = Conv <kernel_shape = [1, 1]> (dr, w3, b3)  pr = Relu(p)
    m = GlobalAveragePool(pr)  f = Flatten(m)  y = Gemm <transB = 1> (f, w4, b4)
}"""
DENSE = """<ir_version: 10, opset_import: ["": 21]> dense (float[1,256] x) => (float[1,64] y) {
    a = Gemm <transB = 1> (x, w1, b1)  ar = Relu(a)
    d = Gemm <transB = 1> (ar, w2, b2)  dr = Relu(d)
    y = Gemm <transB = 1> (dr, w3, b3)
}"""
WEIGHTS: Mapping[str, Sequence[Sequence[int]]] = {
    SEPARABLE: ((32, 8, 3, 3), (32, 1, 3, 3), (64, 32, 1, 1), (10, 64)),
    DENSE: ((256, 256), (256, 256), (64, 256)),
}

Item = tuple[bytes, dict[str, np.ndarray]]


def items() -> dict[str, Item]:
    """Every network, in float and all in int8: its bytes, and samples stacked by input, [samples, 1, ...]."""
    found: dict[str, Item] = {}
    with tempfile.TemporaryDirectory(prefix="edgepress-arm-") as made, np.load(DIGITS.with_name("digits.npz")) as known:
        place, data = Path(made, "model.onnx"), Path(made, "data.npz")
        for name, text in (("digits", ""), ("separable", SEPARABLE), ("dense", DENSE)):
            model = onnx.parser.parse_model(text) if text else onnx.load(DIGITS)
            if text:
                fill(model, WEIGHTS[text])
            entry = model.graph.input[0]
            shape = [size.dim_value or 1 for size in entry.type.tensor_type.shape.dim]
            values = np.random.default_rng(SEED).standard_normal((SAMPLES, *shape)).astype(np.float32)
            if not text:
                values = known["image"][:SAMPLES, None].astype(np.float32)
            onnx.save(model, place)
            arrays: dict[str, Any] = {entry.name: values[:, 0]}
            np.savez(data, **arrays)
            found[name] = model.SerializeToString(), {entry.name: values}
            found[f"{name}_int8"] = integer.integer(place, str(data)).edit().SerializeToString(), {entry.name: values}
    return found


def fill(model: onnx.ModelProto, shapes: Sequence[Sequence[int]]) -> None:
    """Give a network random weights ``w1``, ``w2``, ... of these shapes, and biases."""
    random = np.random.default_rng(SEED)
    for number, shape in enumerate(shapes, 1):
        weights = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        biases = random.standard_normal(shape[0]) / 10
        for letter, values in (("w", weights), ("b", biases)):
            model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), f"{letter}{number}"))


def together(given: Mapping[str, Item]) -> Item:
    """One network of all of them side by side, so that one process runs them: names become ``<network>/<name>``."""
    whole = onnx.ModelProto()
    samples: dict[str, np.ndarray] = {}
    for name, (content, values) in given.items():
        part = onnx.compose.add_prefix(onnx.load_model_from_string(content), f"{name}/")
        if not samples:
            whole.CopyFrom(part)
        else:
            for field in ("node", "initializer", "input", "output"):
                getattr(whole.graph, field).extend(getattr(part.graph, field))
        samples.update({f"{name}/{key}": value for key, value in values.items()})
    newest = max(
        entry.version for content, _ in given.values() for entry in onnx.load_model_from_string(content).opset_import
    )
    del whole.opset_import[:]
    whole.opset_import.append(onnx.helper.make_opsetid("", newest))
    return whole.SerializeToString(), samples


def counted(folder: Path, core: str, given: Mapping[str, Item]) -> dict[str, Counts]:
    """Instructions of one run of each on a core, on its first sample."""
    small = [(content, {key: values[0] for key, values in samples.items()}) for content, samples in given.values()]
    with Emulated(f"emulated://{core}", Place(core, folder)) as device:
        return dict(zip(given, counts_each(Agent(device), small), strict=True))


def differences(known: Mapping[str, Mapping[str, int]], found: Mapping[str, Counts], core: str) -> list[str]:
    """What is not as it was on a core, a line each."""
    lines = []
    for name, counts in found.items():
        before = known.get(name, {})
        exact = [kind for kind in EXACT if before.get(kind) != getattr(counts, kind)]
        lines += [f"{core} {name} {kind}: {before.get(kind)} before, {getattr(counts, kind)} now" for kind in exact]
        total = before.get("total", 0)
        if abs(counts.total - total) > max(MARGIN * total, SLACK):
            lines.append(f"{core} {name} total: {total} before, {counts.total} now")
    return lines


def figures() -> dict[str, Any]:
    """The figures that are kept: ``versions`` and, by core and network, ``counts``."""
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, or write the figures anew."""
    parser = argparse.ArgumentParser(description="Instructions of a few networks on emulated cores.")
    parser.add_argument("--write", action="store_true", help=f"write them to {FIGURES.name} instead of comparing")
    parser.add_argument("--arm", type=Path, default=emulator.default_folder(), help="where setup.py has put it")
    given = parser.parse_args(arguments)
    try:
        models = items()
        found = {core: counted(given.arm, core, models) for core in CORES}
    except EdgepressError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    for core, rows in found.items():
        for name, counts in rows.items():
            print(f"{core:12} {name:16} {counts.total:12,}")
    if given.write:
        kept = {core: {name: asdict(counts) for name, counts in rows.items()} for core, rows in found.items()}
        text = json.dumps({"versions": emulator.versions(given.arm), "counts": kept}, indent=1)
        FIGURES.write_text(text + "\n", encoding="utf-8")
        return 0
    known = figures()
    if known["versions"] != emulator.versions(given.arm):
        print(f"Not compared: {FIGURES.name} is of {known['versions']}, this is {emulator.versions(given.arm)}.")
        return 0
    lines = [line for core, rows in found.items() for line in differences(known["counts"][core], rows, core)]
    print("\n".join(lines) or f"As in {FIGURES.name}.")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
