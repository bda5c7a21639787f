"""The coder of coded files against others on the same whole numbers, and large models in time and memory.

    python benchmarks/coder.py compare [--others PYTHON] [--bits 1.5 1.0] [--models NAME ...] [--out DIR]
    python benchmarks/coder.py large [--kinds steps int8 float] [--folder TEMP] [--out DIR]

``compare`` rounds the layers of four networks of ``../shared`` (or ``EDGEPRESS_SHARED``) to whole numbers: one step for
a layer, so that nearest rounding would have the entropy of ``--bits``, and second-order rounding
(``quantize.weights.obs``) under the Gram of 256 calibration images. The same numbers go to edgepress (codes, recipes,
low bits; no graph), to xz, and to what the interpreter ``--others`` has: nncodec (DeepCABAC, the layers of its encoder
without any header, with parameter optimization) and constriction (a range coder with each layer's own histogram, which
takes two bytes a value).

``large`` makes models of 26 million weights, codes and decodes them in fresh processes, and compares the bytes. MB/s
are of float32, whatever the file stores, and of CPU time; memory is what the kernel says, over that of the imports.

Both write ``results/coder-COMMAND.json`` and ``.md``; rows take the places of those of the same name, others stay.
Without ``--others`` the figures of other coders stay, too, where the numbers are the same.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from coder_report import Row, keep, kept

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("EDGEPRESS_SHARED", ROOT.parent / "shared"))
NETS = {
    "vgg7": ("fashion_vgg7bn_folded", "fashion_calib"),
    "resnet20": ("cifar10_resnet20_folded", "cifar10_resnet_calib"),
    "lenet5": ("mnist_lenet5caffe", "mnist_lenet_calib"),
    "lenet300": ("mnist_lenet300100", "mnist_lenet_calib"),
}
IMAGES, ROWS = 256, 20_000
OTHER = ("nncodec", "constriction")

OTHERS = """
import importlib.metadata, json, sys, time
import numpy as np
layers = np.load(sys.argv[1]); layers = [layers[name] for name in layers.files]
found = {}
def timed(code, decode=None):
    begin = time.process_time(); size = code(); return [size, time.process_time() - begin]
try:
    from nncodec.extensions import deepCABAC as cabac
except Exception:
    import glob, importlib.util, sysconfig
    place = glob.glob(sysconfig.get_paths()["platlib"] + "/nncodec/extensions/deepCABAC*.so")
    cabac = None
    if place:
        spec = importlib.util.spec_from_file_location("deepCABAC", place[0])
        cabac = importlib.util.module_from_spec(spec); spec.loader.exec_module(cabac)
if cabac is not None:
    def code():
        total = 0
        for layer in layers:
            encoder = cabac.Encoder(); encoder.initCtxModels(10, 1)
            encoder.encodeLayer(np.ascontiguousarray(layer, np.int32), 0, 0, 0, 0, 0, np.zeros(len(layer), np.int32),
                                cabac.HdspMode.AlwaysOff, np.zeros(2, np.int8), 0, 0)
            total += len(encoder.finish())
        return total
    found["nncodec"] = timed(code)
try:
    import constriction
except ImportError:
    constriction = None
if constriction is not None:
    def code():
        encoder, side = constriction.stream.queue.RangeEncoder(), 0
        for layer in layers:
            low, high = int(layer.min()), int(layer.max())
            counts = np.bincount(layer.ravel() - low).astype(np.float32)
            model = constriction.stream.model.Categorical(counts / counts.sum(), perfect=False)
            encoder.encode((layer.ravel() - low).astype(np.int32), model)
            side += 2 * len(counts) + 4
        return encoder.get_compressed().nbytes + side
    found["constriction"] = timed(code)
print(json.dumps({name: each + [importlib.metadata.version(name)] for name, each in found.items()}))
"""


# --- whole numbers --------------------------------------------------------------------------------------------------


def layers_of(net: str, bits: float) -> list[np.ndarray]:
    """The weights of all layers as whole numbers, of the shapes that the ONNX file has."""
    import onnx

    from edgepress.model import Model
    from edgepress.quantize.weights.obs import Factor, Grid, obs

    name, calibration = NETS[net]
    model = Model.of(onnx.load(SHARED / f"models/{name}.onnx"))
    archive = np.load(SHARED / f"calib/{calibration}.npz")
    inputs = _inputs(model, archive[archive.files[0]][:IMAGES].astype(np.float32))
    found = []
    for node in (each for each in model.nodes if each.op in ("Conv", "Gemm") and each.inputs[1] in model.constants):
        weight = model.constants[node.inputs[1]]
        turned = node.op == "Gemm" and not node.attributes.get("transB", 0)
        rows = (weight.T if turned else weight.reshape(len(weight), -1)).astype(np.float64)
        patches = _patches(node, inputs[node.inputs[0]], weight)
        gram = patches.T @ patches / len(patches)
        step = np.full(len(rows), _step(rows, bits))
        whole = obs(rows, Factor.of(gram), Grid.uniform(step, -127, 127))
        found.append(np.ascontiguousarray((whole.T if turned else whole).reshape(weight.shape)))
    return found


def _inputs(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """What the layers of a network read."""
    from edgepress import runtime

    (name, kind), *_ = model.inputs.items()
    images = images.reshape(-1, *kind.shape[1:])
    wanted = {node.inputs[0] for node in model.nodes if node.op in ("Conv", "Gemm")} - {name}
    session = runtime.session(model.exposing(sorted(wanted)))
    return {name: images, **runtime.run(session, {name: images})}


def _patches(node: Any, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Rows that a layer multiplies with its weights, ``ROWS`` at the most."""
    if node.op == "Gemm":
        return np.asarray(values.reshape(len(values), -1), np.float64)
    top, left, bottom, right = node.attributes.get("pads", (0, 0, 0, 0))
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    down, across = node.attributes.get("strides", (1, 1))
    windows = windows[:, :, ::down, ::across].transpose(0, 2, 3, 1, 4, 5)
    every = max(1, windows.shape[0] * windows.shape[1] * windows.shape[2] // ROWS)
    places = np.indices(windows.shape[:3]).reshape(3, -1)[:, ::every]
    return np.asarray(windows[tuple(places)].reshape(places.shape[1], -1), np.float64)


def _step(rows: np.ndarray, bits: float) -> float:
    """The step with which nearest rounding has an entropy of ``bits``."""
    from edgepress.codec import coded_bits

    low, high = 1e-5, 4 * float(np.abs(rows).max())
    for _ in range(30):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if coded_bits(np.rint(rows / middle)) > bits * rows.size else (low, middle)
    return high


# --- compare --------------------------------------------------------------------------------------------------------


def ours(layers: list[np.ndarray]) -> dict[str, Any]:
    """Bytes, and seconds of CPU time to code and to decode."""
    from edgepress.codec import decoder, matrices
    from edgepress.codec.coder import Coder, lanes_for
    from edgepress.codec.room import Pages
    from edgepress.codec.symbols import Matrix

    begin = time.process_time()
    widest = max(max(len(each), each.size // len(each)) for each in layers)
    coder = Coder(lanes_for(sum(each.size for each in layers), widest))
    side = Pages()
    recipes = []
    for each in layers:
        matrix = Matrix.of(each, each.shape, coder.learned.precision)
        _, way = matrices.best(matrix, coder.learned, coder.lanes)
        recipes.append(matrices.write(matrix, way, coder, side))
    codes = coder.finish()
    coded = time.process_time()
    recipe, rest = decoder.Bytes(b"".join(recipes)), decoder.Bytes(bytes(side))
    reader = decoder.Codes(bytes(codes))
    for each in layers:
        if not np.array_equal(decoder.matrix(recipe, reader, rest, each.size, each.shape), each.ravel()):
            raise SystemExit("What was decoded is not what was coded.")
    decoded = time.process_time()
    size = len(codes) + len(recipe.data) + len(rest.data)
    return {"bytes": size, "ideal": coder.ideal / 8, "encode": coded - begin, "decode": decoded - coded}


def compare(options: argparse.Namespace) -> None:
    """Keep a row for each network and width."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for net in options.models:
            for bits in options.bits:
                print(net, bits, "...", file=sys.stderr, flush=True)
                row = _row(net, bits, options.others, Path(folder))
                known = {} if options.others else _of_others(options.out, row)
                keep(options.out, "compare", {**row, **known})
    print((options.out / "coder-compare.md").read_text(encoding="utf-8"), end="")


def _of_others(out: Path, row: Row) -> Row:
    """What is kept of other coders on the same numbers, for runs without them."""
    before = kept(out, "compare").get(row["name"], {})
    same = before.get("weights") == row["weights"] and before.get("xz") == row["xz"]
    found = {name: before[name] for name in (*OTHER, "others") if name in before} if same else {}
    if "nncodec" in found:
        found["edgepress / nncodec"] = row["edgepress"] / found["nncodec"]
    return found


def _row(net: str, bits: float, python: str | None, folder: Path) -> Row:
    """Bits for each weight, MB/s of float32 and of CPU time."""
    layers = layers_of(net, bits)
    count = sum(each.size for each in layers)
    made, others = ours(layers), _others(layers, python, folder)
    xz = len(lzma.compress(b"".join(each.astype(np.int8).tobytes() for each in layers), preset=9))
    row = {"name": f"{net} {bits:g}", "weights": count, "edgepress": 8 * made["bytes"] / count,
           "ideal": 8 * made["ideal"] / count, "xz": 8 * xz / count,
           **{name: 8 * others[name][0] / count for name in OTHER if name in others}}  # fmt: skip
    if "nncodec" in others:
        row["edgepress / nncodec"] = made["bytes"] / others["nncodec"][0]
    if others:
        row["others"] = ", ".join(f"{name} {others[name][2]}" for name in OTHER if name in others)
    return row | {f"{what} MB/s": 4e-6 * count / made[what] for what in ("encode", "decode")}


def _others(layers: list[np.ndarray], python: str | None, folder: Path) -> dict[str, Any]:
    """Bytes, seconds and version of every other coder that ``python`` has."""
    if python is None:
        return {}
    named: dict[str, Any] = {f"{place:04}": each.reshape(len(each), -1) for place, each in enumerate(layers)}
    np.savez(folder / "layers.npz", **named)
    done = subprocess.run(
        [python, "-c", OTHERS, str(folder / "layers.npz")], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- large ----------------------------------------------------------------------------------------------------------

SHAPES = ((2048, 2048),) * 4 + ((512, 512, 3, 3),) * 3 + ((1000, 2048),)


def make(kind: str) -> bytes:
    """A model of 26 million weights: steps times whole numbers as floats, int8, or floats as training leaves them."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    tensors = []
    for place, shape in enumerate(SHAPES):
        sizes = np.exp(0.4 * random.normal(size=(shape[0], *[1] * (len(shape) - 1))))
        if kind == "steps":
            whole = np.rint(random.laplace(size=shape) * 0.6 * sizes).clip(-31, 31)
            values = whole.astype(np.float32) * np.float32(0.01)
        elif kind == "int8":
            values = np.rint(random.normal(size=shape) * 30).clip(-127, 127).astype(np.int8)
        else:
            values = (random.normal(size=shape) * 0.05).astype(np.float32)
        tensors.append(numpy_helper.from_array(values, f"w{place}"))
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:], tensors)
    return bytes(helper.make_model(graph).SerializeToString())


def work(task: str, source: Path, target: Path) -> None:
    """Code or decode in this process; prints CPU seconds and MB of memory over that of the imports."""
    from edgepress.codec import decode_to, encode

    before = _peak()
    begin = time.process_time()
    if task == "encode":
        target.write_bytes(encode(source.read_bytes()))
    else:
        with target.open("wb") as file:
            decode_to(source.read_bytes(), file.write)
    print(json.dumps([time.process_time() - begin, (_peak() - before) / 1e3]))


def _peak() -> int:
    """Peak memory of this process in kB; ``ru_maxrss`` would count what the parent had when it made it."""
    told = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("VmHWM"))


def large(options: argparse.Namespace) -> None:
    """Keep a row for each kind of model."""
    megabytes = 4e-6 * sum(int(np.prod(shape)) for shape in SHAPES)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for kind in options.kinds:
            print(kind, "...", file=sys.stderr, flush=True)
            model, coded, back = folder / "model.onnx", folder / "model.epz", folder / "back.onnx"
            model.write_bytes(make(kind))
            told = {}
            for task, source, target in (("encode", model, coded), ("decode", coded, back)):
                command = [sys.executable, __file__, "work", task, str(source), str(target)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                told[task] = json.loads(done.stdout)
            if back.read_bytes() != model.read_bytes():
                raise SystemExit("What was decoded is not what was coded.")
            size = model.stat().st_size / 1e6
            row = {"name": kind, "MB": size, "coded MB": coded.stat().st_size / 1e6}
            row |= {f"{task} MB/s": megabytes / seconds for task, (seconds, _) in told.items()}
            keep(options.out, "large", row | {f"{task} memory": used / size for task, (_, used) in told.items()})
    print((options.out / "coder-large.md").read_text(encoding="utf-8"), end="")


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("compare")
    first.add_argument("--others", metavar="PYTHON")
    first.add_argument("--bits", type=float, nargs="+", default=[1.5, 1.0])
    first.add_argument("--models", nargs="+", choices=NETS, default=list(NETS))
    second = commands.add_parser("large")
    second.add_argument("--kinds", nargs="+", choices=("steps", "int8", "float"), default=["steps", "int8", "float"])
    for each in (first, second):
        each.add_argument("--folder", type=Path)
        each.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    third = commands.add_parser("work")
    for name in ("task", "source", "target"):
        third.add_argument(name, type=str if name == "task" else Path)
    options = parser.parse_args()
    if options.command == "work":
        work(options.task, options.source, options.target)
    else:
        {"compare": compare, "large": large}[options.command](options)


if __name__ == "__main__":
    main()
