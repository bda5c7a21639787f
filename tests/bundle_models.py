"""Small models to bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser

ODD = 'a "b"/\\c?$x|`é\U0001f600'
"""A name of a tensor that is hard to write in any language; "/" also separates the parts of the arrays' names."""


def parsed(body: str, *, opset: int = 17, ir: int = 8, more: str = "") -> onnx.ModelProto:
    """A model from ONNX text."""
    return onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}{more}]> {body}')


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """The model as a file."""
    path.write_bytes(model.SerializeToString())
    return path


def linear(rows: str = "N") -> onnx.ModelProto:
    """A float layer: x [rows, 3] to y [rows, 2]."""
    return parsed(
        f"g (float[{rows},3] x) => (float[{rows},2] y) <float[3,2] w = {{1, 2, 3, 4, 5, 6}}> {{ y = MatMul(x, w) }}"
    )


def two() -> onnx.ModelProto:
    """Two inputs of odd names and other types, three outputs: floats, labels, bits moved only."""
    model = parsed(
        """g (float[N,4] first, int64[N] second) => (float[N,4] third, int64[N] fourth, int64[N] fifth) {
            a = Softmax <axis = 1> (first) s = Cast <to = 1> (second) t = Unsqueeze(s, one) third = Add(a, t)
            fourth = ArgMax <axis = 1, keepdims = 0> (third) fifth = Identity(second) }""",
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "one"))
    names = {"first": ODD, "third": "out " + ODD}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    return model


def every_type() -> onnx.ModelProto:
    """An input and an output of every type that numpy has."""
    kinds = (
        "float",
        "double",
        "float16",
        "bool",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    )
    inputs = ", ".join(f"{kind}[N,2] in_{kind}" for kind in kinds)
    outputs = ", ".join(f"{kind}[N,2] out_{kind}" for kind in kinds)
    return parsed(
        f"g ({inputs}) => ({outputs}) {{ {' '.join(f'out_{kind} = Identity(in_{kind})' for kind in kinds)} }}"
    )


def integers(add: bool = False) -> onnx.ModelProto:
    """A quantized product, all of it in integers; with an addition of two scaled integers behind it if asked for."""
    end = "d = Add(c, x2) yq = QuantizeLinear(d, s, z) y = DequantizeLinear(yq, s, z)" if add else "y = Identity(c)"
    return parsed(
        f"""g (float[N,4] x) => (float[N,4] y)
        <float s = {{0.05}}, uint8 z = {{128}}, float ws = {{0.01}}, int8 wz = {{0}},
         int8[4,4] w = {{1,2,3,4,-5,6,7,8,9,-10,11,12,13,14,-15,16}}> {{
        xq = QuantizeLinear(x, s, z) x2 = DequantizeLinear(xq, s, z) w2 = DequantizeLinear(w, ws, wz)
        a = MatMul(x2, w2) b = QuantizeLinear(a, s, z) c = DequantizeLinear(b, s, z) {end} }}"""
    )


def integers_and_floats() -> onnx.ModelProto:
    """The quantized product, and beside it one of floats that other CPUs add up in another order."""
    model = integers()
    weights = np.random.default_rng(0).standard_normal((4, 512)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "v"))
    beside = parsed(
        """g (float[N,4] x, float[4,512] v) => (float[N,512] f) {
            m = MatMul(x, v) t = Tanh(m) f = Softmax <axis = 1> (t) }"""
    )
    model.graph.node.extend(beside.graph.node)
    model.graph.output.extend(beside.graph.output)
    return model


def external(folder: Path) -> Path:
    """A model that keeps its weights in a file beside it."""
    random = np.random.default_rng(0)
    model = parsed("g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }")
    weights = random.standard_normal((64, 64)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    path = folder / "apart.onnx"
    onnx.save(model, path, save_as_external_data=True, location="odd name.bin", size_threshold=0)
    return path
