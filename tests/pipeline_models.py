"""Small models and samples for the tests of the whole flow: every kind of graph that a user may hand over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1, "no.such.domain" : 1]>\n'


@dataclass(frozen=True)
class Small:
    """A graph as text; a tuple among its constants is the shape of random weights, a list holds int64 values.

    ``samples`` are shapes of one sample by input name.
    """

    text: str
    constants: Mapping[str, Sequence[int]]
    samples: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"x": (3, 8, 8)})

    def proto(self, seed: int = 0) -> onnx.ModelProto:
        """The model, with seeded weights of a sensible scale and named nodes."""
        proto = onnx.parser.parse_model(HEADER + self.text)
        used = {node.domain for node in proto.graph.node}
        kept = [entry for entry in proto.opset_import if entry.domain in used or not entry.domain]
        del proto.opset_import[:]
        proto.opset_import.extend(kept)
        random = np.random.default_rng(seed)
        for name, value in self.constants.items():
            array = np.array(value, np.int64) if isinstance(value, list) else _weights(random, value)
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
        for node in proto.graph.node:
            node.name = f"n_{node.output[0]}"
        return proto

    def save(self, path: Path, seed: int = 0) -> Path:
        """Write the model."""
        onnx.save(self.proto(seed), path)
        return path

    def arrays(self, count: int, seed: int = 1) -> dict[str, np.ndarray]:
        """Random samples by input name."""
        random = np.random.default_rng(seed)
        return {
            name: random.standard_normal((count, *shape)).astype(np.float32) for name, shape in self.samples.items()
        }

    def save_samples(self, path: Path, count: int, seed: int = 1, **more: np.ndarray) -> Path:
        """Write random samples."""
        np.savez(path, **self.arrays(count, seed), **more)  # type: ignore[arg-type]  # numpy's stub takes no mapping
        return path


def _weights(random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """He-like scale, so that activations neither vanish nor explode."""
    fan_in = max(1, int(np.prod(shape[1:])))
    return np.asarray(random.standard_normal(shape) * np.sqrt(2 / fan_in), np.float32)


CONV = "Conv<kernel_shape=[3,3],pads=[1,1,1,1]>"
HEAD = "p = GlobalAveragePool(r2)  f = Flatten(p)  y = Gemm<transB=1>(f,w3,b3)"
TWO_CONVS = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "b2": (16,)}
CLASSES = {"w3": (5, 16), "b3": (5,)}


def _convs(batch: str, between: str = "h = Identity(r1)", head: str = HEAD, outputs: str = "float[{},5] y") -> str:
    return f"""g (float[{batch},3,8,8] x) => ({outputs.format(batch)}) {{
        a = {CONV}(x,w1,b1)  r1 = Relu(a)  {between}  c = {CONV}(h,w2,b2)  r2 = Relu(c)  {head} }}"""


CONVNET = Small(_convs("N"), TWO_CONVS | CLASSES)

MAP = Small(
    _convs("N", head=f"y = {CONV}(r2,w3,b3)", outputs="float[{},1,8,8] y"),
    TWO_CONVS | {"w3": (1, 16, 3, 3), "b3": (1,)},
)

FIXED = Small(_convs("1"), TWO_CONVS | CLASSES)

FIXED_FOUR = Small(_convs("4"), TWO_CONVS | CLASSES)

UNKNOWN_OPERATOR = Small(_convs("N", "d = Det(r1) h = Unsqueeze(d,axes)"), TWO_CONVS | CLASSES | {"axes": [2, 3]})

CUSTOM_OPERATOR = Small(_convs("N", "h = no.such.domain.Twist(r1)"), TWO_CONVS | CLASSES)

MLP = Small(
    """g (float[N,24] x) => (float[N,6] y) {
    a = Gemm<transB=1>(x,w1,b1)  r = Relu(a)  c = Gemm<transB=1>(r,w2,b2)  s = Relu(c)
    y = Gemm<transB=1>(s,w3,b3) }""",
    {"w1": (48, 24), "b1": (48,), "w2": (48, 48), "b2": (48,), "w3": (6, 48), "b3": (6,)},
    {"x": (24,)},
)

TWO_INPUTS = Small(
    f"""g (float[N,3,8,8] x, float[N,6] extra) => (float[N,5] y) {{
    a = {CONV}(x,w1,b1)  r = Relu(a)  p = GlobalAveragePool(r)  f = Flatten(p)
    e = Gemm<transB=1>(extra,w2,b2)  s = Relu(e)  j = Concat<axis=1>(f,s)  y = Gemm<transB=1>(j,w3,b3) }}""",
    {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 6), "b2": (16,), "w3": (5, 32), "b3": (5,)},
    {"x": (3, 8, 8), "extra": (6,)},
)

TINY = Small("g (float[N,4] x) => (float[N,2] y) { y = Gemm<transB=1>(x,w,b) }", {"w": (2, 4), "b": (2,)}, {"x": (4,)})

SCALAR = Small(
    _convs("N", head="y = ReduceMean<keepdims=0>(r2)", outputs="float y"),
    TWO_CONVS,
)

CHANGING_ROWS = Small(
    _convs("N", head="z = NonZero(r2)  t = Transpose(z)  y = Cast<to=1>(t)", outputs="float[M,4] y"),
    TWO_CONVS,
)

NOT_A_NUMBER = Small(
    _convs("N", head="q = Neg(r2)  l = Log(q)  p = GlobalAveragePool(l)  y = Flatten(p)", outputs="float[{},16] y"),
    TWO_CONVS,
)

ANSWERS_ONLY = Small(
    _convs(
        "N",
        head="p = GlobalAveragePool(r2)  f = Flatten(p)  l = Gemm<transB=1>(f,w3,b3)  y = ArgMax<axis=1,keepdims=0>(l)",
        outputs="int64[{}] y",
    ),
    TWO_CONVS | CLASSES,
)

TIME_FIRST = Small(
    """g (float[N,6,8] x) => (float[T,N,5] y) {
    t = Transpose<perm=[1,0,2]>(x)  h = LSTM<hidden_size=16>(t,w,r)  s = Squeeze(h,one)  y = MatMul(s,v) }""",
    {"w": (1, 64, 8), "r": (1, 64, 16), "one": [1], "v": (16, 5)},
    {"x": (6, 8)},
)

WITH_ANCHORS = Small(
    """g (float[N,24] x) => (float[N,6] y, float[3] anchors) {
    a = Gemm<transB=1>(x,w1,b1)  r = Relu(a)  y = Gemm<transB=1>(r,w2,b2)  anchors = Identity(w3) }""",
    {"w1": (48, 24), "b1": (48,), "w2": (6, 48), "b2": (6,), "w3": (3,)},
    {"x": (24,)},
)

CONTROL_FLOW = Small(
    _convs(
        "N",
        """s = ReduceMax<keepdims=0>(r1)  zero = Constant<value_float=0.0>()  more = Greater(s,zero)
        h = If(more) <then_branch = t () => (float[N,16,8,8] u) { u = Identity(r1) },
        else_branch = e () => (float[N,16,8,8] v) { v = Neg(r1) }>""",
    ),
    TWO_CONVS | CLASSES,
)
