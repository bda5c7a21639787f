"""What releases of onnxruntime load and fold, tried on the real wheels: the source of ``edgepress.targets.releases``.

``python -m tools.releases PYTHON...`` takes interpreters of environments that hold an onnxruntime and a numpy each
(``pip install --no-deps onnxruntime==1.16.3 'numpy<2'``); without any, the interpreter it runs in. Per release a row:

- the newest operator set and IR version of which a one-node model loads;
- every form of ``FORMS``: ``fast`` if the kernels of the form are in the optimized graph, and no layer in float, no
  DequantizeLinear of weights and no decompressor beside them; ``slow`` if it runs, but not so; ``-`` if it does not
  load;
- a ``!`` behind it if its outputs are not those of the reference: for forms of storage the plain int8 form (exactly),
  for the others the same form, in the onnxruntime of the environment this runs in.

``--errors`` prints why a form does not load.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

PROBE = Path(__file__).with_name("release_probe.py")
CHANNELS = 16
INPUT = f"1,{CHANNELS},9,9"
SHAPE = (CHANNELS, CHANNELS, 3, 3)
INT8 = {"QLinearConv": 2, "QGemm": 1, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1}
STRAY = (
    "Cast",
    "Div",
    "Mod",
    "Gather",
    "Reshape",
    "Slice",
    "Mul",
    "Conv",
    "FusedConv",
    "Gemm",
    "MatMul",
    "MatMulInteger",
)
"""Operators that an optimized graph must not have: a decompressor that runs every time, a layer in float."""

Arrays = dict[str, np.ndarray]
Kernels = Mapping[str, int]


@dataclass(frozen=True)
class Form:
    """A form of a small network.

    Attributes:
        name: column of the table.
        opset: operator set of the model.
        ir: IR version of the model.
        body: its nodes, in ONNX text.
        arrays: its initializers.
        kernels: what the optimized graph must have, and how many of each.
        reference: name of the form that has the same outputs.
        tolerance: how far they may be from them, as a share of the largest.
    """

    name: str
    opset: int
    ir: int
    body: str
    arrays: Arrays
    kernels: Kernels
    reference: str
    tolerance: float = 0.0


def plain(index: np.ndarray) -> Arrays:
    """The int8 values themselves."""
    return {"w": values(index)}


def values(index: np.ndarray) -> np.ndarray:
    """The int8 values of levels: symmetric around zero."""
    return (index - int(index.max()) // 2).astype(np.int8)


def narrow(kind: str, name: str = "stored") -> Callable[[np.ndarray], Arrays]:
    """The values in one of onnx's 2-bit or 4-bit types."""
    return lambda index: {name: values(index).astype(getattr(ml_dtypes, kind))}


def codebook(kind: str) -> Callable[[np.ndarray], Arrays]:
    """Indices and a table of values."""
    return lambda index: {"stored": index.astype(getattr(ml_dtypes, kind, kind)), "table": table(index)}


def table(index: np.ndarray) -> np.ndarray:
    """The int8 value of every level."""
    return values(np.arange(int(index.max()) + 1))


def packed(word: str, digits: int) -> Callable[[np.ndarray], Arrays]:
    """Mixed radix: a word holds that many base-3 digits; ``w = table[(word / 3^k) mod 3]``."""

    def made(index: np.ndarray) -> Arrays:
        flat = np.pad(index.ravel(), (0, -index.size % digits)).reshape(-1, digits).astype(np.int64)
        powers = 3 ** np.arange(digits, dtype=np.int64)
        constants = {"divisors": powers, "radix": np.array(3), "table": table(index), "flat": np.array([-1])}
        ends = {"start": np.array([0]), "end": np.array([index.size]), "shape": np.array(index.shape)}
        return {"stored": (flat @ powers).astype(word)[:, None], **constants, **ends}

    return made


UNPACK = """quotients = Div({word}, divisors) digits = Mod(quotients, radix) levels = Gather(table, digits)
    row = Reshape(levels, flat) filled = Slice(row, start, end) w = Reshape(filled, shape)"""

NETWORK = """
    xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)
    v1 = DequantizeLinear<axis=0>(w1, ws) b1 = DequantizeLinear<axis=0>(bias, bs)
    h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(xd, v1, b1) r = Relu(h)
    rq = QuantizeLinear(r, s, z0) rd = DequantizeLinear(rq, s, z0)
    {nodes}
    v2 = DequantizeLinear<axis=0>(w, ws)
    c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(rd, v2, b1)
    cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z)
    a = Add(cd, rd) aq = QuantizeLinear(a, s, z) ad = DequantizeLinear(aq, s, z)
    p = GlobalAveragePool(ad) pq = QuantizeLinear(p, s, z) pd = DequantizeLinear(pq, s, z)
    f = Flatten(pd) fq = QuantizeLinear(f, s, z) fd = DequantizeLinear(fq, s, z)
    v3 = DequantizeLinear<axis=0>(w3, ws, wz)
    y = Gemm<transB=1>(fd, v3, b1)
"""


def stored(name: str, opset: int, ir: int, nodes: str, arrays: Callable[[np.ndarray], Arrays], levels: int = 3) -> Form:
    """Conv, Relu, Conv, Add, pooling and Gemm in the int8 form that edgepress writes.

    Args:
        name: of the form.
        opset: operator set.
        ir: IR version.
        nodes: ONNX text that makes the int8 weights ``w`` of the second Conv from what is stored.
        arrays: what is stored, given the levels (0 .. levels - 1) of the weights.
        levels: how many values a weight takes.
    """
    random = np.random.default_rng(levels)
    given = fixed(random) | arrays(random.integers(0, levels, SHAPE))
    return Form(
        name, opset, ir, NETWORK.format(nodes=nodes), given, INT8, "int8" if levels == 3 else f"int8 of {levels}"
    )


def fixed(random: np.random.Generator) -> Arrays:
    """Scales, zero points, bias, and the weights that are stored plainly."""

    def small(*shape: int) -> np.ndarray:
        return random.integers(-127, 128, shape).astype(np.int8)

    scales = np.linspace(0.001, 0.002, CHANNELS, dtype=np.float32)
    return {
        "s": np.array(0.05, np.float32), "z": np.array(128, np.uint8), "z0": np.array(0, np.uint8),
        "ws": scales, "bs": (np.float32(0.05) * scales).astype(np.float32), "wz": np.zeros(CHANNELS, np.int8),
        "w1": small(*SHAPE), "w3": small(CHANNELS, CHANNELS), "bias": np.arange(CHANNELS, dtype=np.int32) * 100,
    }  # fmt: skip


def wide() -> Form:
    """A Conv between 16-bit activations."""
    conv = "c = Conv<kernel_shape=[3,3]>(d, v)"
    body = f"""q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=0>(w1, ws)
        {conv} e = QuantizeLinear(c, s, z) g = DequantizeLinear(e, s, z) y = Flatten(g)"""
    arrays = fixed(np.random.default_rng(0))
    given: Arrays = {"s": np.array(0.001, np.float32), "z": np.array(32768, np.uint16)}
    given |= {name: arrays[name] for name in ("w1", "ws")}
    return Form("uint16", 21, 10, body, given, {"QLinearConv": 1}, "uint16", 1e-3)


def kept() -> Form:
    """A float Conv whose weights are stored as int8 and multiplied out once: Cast -> Mul."""
    body = "wide = Cast<to=1>(w1) w = Mul(wide, s) c = Conv<kernel_shape=[9,9]>(x, w) y = Flatten(c)"
    weights = fixed(np.random.default_rng(0))["w1"]
    given: Arrays = {"w1": np.tile(weights, (1, 1, 3, 3)), "s": np.array(0.01, np.float32)}
    return Form("int8 for float", 13, 8, body, given, {"Conv": 1}, "int8 for float", 1e-5)


def dynamic() -> Form:
    """MatMul with int8 weights and activations that are quantized as they come."""
    body = """f = Flatten(x) q, s, z = DynamicQuantizeLinear(f) m = MatMulInteger(q, w, z) c = Cast<to=1>(m)
        t = Mul(s, ws) y = Mul(c, t)"""
    random = np.random.default_rng(0)
    given: Arrays = {
        "w": random.integers(-127, 128, (CHANNELS * 81, 8)).astype(np.int8),
        "ws": np.full(8, 0.01, np.float32),
    }
    return Form("dynamic int8", 13, 8, body, given, {"DynamicQuantizeMatMul": 1}, "dynamic int8", 1e-4)


def blocked() -> Form:
    """MatMul with 4-bit weights in blocks of 128 input channels, summed in int8 (accuracy level 4)."""
    width, block = 1280, 128
    body = f"""f = Flatten(x) g = Slice(f, start, end, axis)
        y = com.microsoft.MatMulNBits<K={width}, N=8, bits=4, block_size={block}, accuracy_level=4>(g, w, s)"""
    random = np.random.default_rng(0)
    given: Arrays = {
        "w": random.integers(0, 256, (8, width // block, block // 2)).astype(np.uint8),
        "s": np.full(8 * width // block, 0.01, np.float32),
        "start": np.array([0]), "end": np.array([width]), "axis": np.array([1]),
    }  # fmt: skip
    return Form("4-bit blocks", 13, 8, body, given, {"MatMulNBits": 1, "Slice": 1}, "4-bit blocks", 0.02)


CODEBOOK = "index = Cast<to=6>(stored) w = Gather(table, index)"
FORMS = (
    stored("int8", 13, 8, "", plain),
    stored("int8, set 21", 21, 10, "", plain),
    stored("uint8 codebook", 13, 8, CODEBOOK, codebook("uint8")),
    stored("packed int64", 13, 8, UNPACK.format(word="stored"), packed("int64", 39)),
    stored("packed uint8", 13, 8, "wide = Cast<to=7>(stored) " + UNPACK.format(word="wide"), packed("uint8", 5)),
    stored("int4 Cast", 21, 10, "w = Cast<to=3>(stored)", narrow("int4"), levels=15),
    stored("uint4 codebook", 21, 10, CODEBOOK, codebook("uint4"), levels=15),
    stored("int2 Cast", 25, 12, "w = Cast<to=3>(stored)", narrow("int2")),
    stored("uint2 codebook", 25, 12, CODEBOOK, codebook("uint2")),
    stored("int4 bare", 21, 10, "", narrow("int4", "w"), levels=15),
    stored("int2 bare", 25, 12, "", narrow("int2", "w")),
    wide(),
    kept(),
    dynamic(),
    blocked(),
)
REFERENCES = {form.name: form for form in (*FORMS, stored("int8 of 15", 13, 8, "", plain, levels=15))}


def parsed(body: str, output: str, opset: int, ir: int, arrays: Arrays) -> onnx.ModelProto:
    """A model from ONNX text, with initializers."""
    sets = f'"": {opset}, "com.microsoft": 1'
    head = f"<ir_version: {ir}, opset_import: [{sets}]> tiny (float[{INPUT}] x) => (float[{output}] y)"
    proto = onnx.parser.parse_model(f"{head} {{ {body} }}")
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return proto


def network(form: Form) -> onnx.ModelProto:
    """The model of a form."""
    return parsed(form.body, "N,C", form.opset, form.ir, form.arrays)


def candidates() -> dict[str, onnx.ModelProto]:
    """Every model that is tried, by file name."""
    found = {form.name: network(form) for form in FORMS}
    found |= {f"opset_{opset}": parsed("y = Relu(x)", INPUT, opset, 8, {}) for opset in range(13, 31)}
    return found | {f"ir_{ir}": parsed("y = Relu(x)", INPUT, 13, ir, {}) for ir in range(7, 16)}


def attempted(python: str, models: Mapping[str, onnx.ModelProto], folder: Path) -> dict[str, Any]:
    """What an interpreter makes of models: the version of its onnxruntime, and by name the problem, empty for none."""
    for name, proto in models.items():
        (folder / f"{name}.onnx").write_bytes(proto.SerializeToString())
    x = np.random.default_rng(1).standard_normal((1, CHANNELS, 9, 9)).astype(np.float32)
    np.savez(folder / "input.npz", x=x)
    subprocess.run([python, str(PROBE), str(folder)], check=True, env={"OMP_NUM_THREADS": "1"})
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer


def tried(python: str, folder: Path) -> dict[str, str]:
    """The row of one interpreter, and ``error NAME`` for every form that does not load."""
    answer = attempted(python, candidates(), folder)
    problems: dict[str, str] = answer["problems"]
    row = {"onnxruntime": answer["onnxruntime"], "set": newest(problems, "opset_"), "IR": newest(problems, "ir_")}
    row |= {form.name: verdict(form, problems[form.name], folder) for form in FORMS}
    return row | {f"error {form.name}": problems[form.name] for form in FORMS if problems[form.name]}


def newest(problems: Mapping[str, str], prefix: str) -> str:
    """The largest number among the models of that name that load."""
    numbers = (
        int(name.removeprefix(prefix)) for name, text in problems.items() if name.startswith(prefix) and not text
    )
    return str(max(numbers))


def verdict(form: Form, problem: str, folder: Path) -> str:
    """What became of a form: ``fast``, ``slow`` or ``-``, and ``!`` for other outputs than those of its reference."""
    if problem:
        return "-"
    graph = onnx.load(folder / f"{form.name}.optimized").graph
    kinds, constants = Counter(node.op_type for node in graph.node), {item.name for item in graph.initializer}
    whole = all(kinds[op] == count for op, count in form.kernels.items())
    stray = any(kinds[op] for op in STRAY if op not in form.kernels)
    stray |= any(node.op_type == "DequantizeLinear" and node.input[0] in constants for node in graph.node)
    return ("fast" if whole and not stray else "slow") + ("" if agrees(form, folder) else "!")


def agrees(form: Form, folder: Path) -> bool:
    """Whether the outputs are those of the reference in the onnxruntime of this environment."""
    import onnxruntime as ort

    model = network(REFERENCES[form.reference]).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(folder / "input.npz") as feed, np.load(folder / f"{form.name}.npz") as found:
        wanted = session.run(None, dict(feed))[0]
        return bool(np.abs(wanted - found["y"]).max() <= form.tolerance * np.abs(wanted).max())


def page(rows: Sequence[dict[str, str]]) -> str:
    """The rows as a Markdown table."""
    names = [name for name in rows[0] if not name.startswith("error ")]
    lines = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Try the interpreters and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.releases", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("python", nargs="*", help="interpreters with an onnxruntime and a numpy")
    parser.add_argument("--errors", action="store_true", help="say why a form does not load")
    given = parser.parse_args(arguments)
    rows = []
    for python in [*given.python, *(() if given.python else (sys.executable,))]:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(tried(python, Path(folder)))
    print(page(rows))
    for row in rows if given.errors else ():
        for name, text in row.items():
            if name.startswith("error "):
                print(f"{row['onnxruntime']} {name.removeprefix('error ')}: {text}")


if __name__ == "__main__":
    main()
