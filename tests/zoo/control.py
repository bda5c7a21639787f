"""Networks with control flow, as ONNX text: what stands before and after If and Loop is prunable, what enters is not.

torch writes control flow too seldom and too variably to rely on; the bodies here read tensors and weights of the graph
around them, as exported ones do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import helper, parser

from edgepress.model import Model

BRANCH = """<ir_version: 10, opset_import: ["": 21]>
branch (float[N,3,8,8] x) => (float[N,5] out) {
  a = Conv <pads = [1,1,1,1]> (x, conv1_w, conv1_b)
  b = Relu (a)
  c = Conv <strides = [2,2]> (b, conv2_w, conv2_b)
  d = Relu (c)
  e = GlobalAveragePool (d)
  f = Flatten (e)
  g = Gemm <transB = 1> (f, fc1_w, fc1_b)
  h = Relu (g)
  mean = ReduceMean <keepdims = 0> (x)
  bright = Greater (mean, zero)
  chosen = If (bright) <
    then_branch = bright_case () => (float[N,16] p) { o = MatMul (h, inner_w) p = Tanh (o) },
    else_branch = dark_case () => (float[N,16] q) { q = Neg (h) }
  >
  i = Gemm <transB = 1> (chosen, fc2_w, fc2_b)
  j = Relu (i)
  out = Gemm <transB = 1> (j, fc3_w)
}"""

LOOP = """<ir_version: 10, opset_import: ["": 21]>
repeat (float[N,6] x) => (float[N,5] out) {
  a = Gemm <transB = 1> (x, fc1_w, fc1_b)
  b = Relu (a)
  c = Gemm <transB = 1> (b, fc2_w, fc2_b)
  d = Loop (count, always, c) <
    body = step (int64 number, bool go, float[N,8] state) => (bool on, float[N,8] after) {
      on = Identity (go)
      mixed = MatMul (state, inner_w)
      after = Tanh (mixed)
    }
  >
  e = Gemm <transB = 1> (d, fc3_w, fc3_b)
  f = Relu (e)
  out = Gemm <transB = 1> (f, fc4_w)
}"""


@dataclass(frozen=True)
class Control:
    """A network with control flow.

    Attributes:
        text: the graph.
        weights: shapes of the weights.
        groups: prunable groups, by the output that is produced: channels.
        walled: what has to be left whole because it enters a body or comes out of one.
    """

    text: str
    weights: Mapping[str, tuple[int, ...]]
    groups: Mapping[str, int]
    walled: tuple[str, ...]

    def model(self) -> Model:
        """The model with seeded weights; nodes are named by what they produce."""
        proto = parser.parse_model(self.text)
        for node in proto.graph.node:
            node.name = node.output[0]
        random = np.random.default_rng(3)
        for name, shape in self.weights.items():
            values = random.standard_normal(shape) * (1.5 / max(1, int(np.prod(shape[1:])))) ** 0.5
            proto.graph.initializer.append(helper.make_tensor(name, 1, shape, values.astype(np.float32).ravel()))
        for name, kind, value in (("zero", 1, 0.0), ("count", 7, 3), ("always", 9, True)):
            if any(name in node.input for node in proto.graph.node):
                proto.graph.initializer.append(helper.make_tensor(name, kind, (), [value]))
        return Model.of(proto)

    def samples(self, count: int, seed: int) -> dict[str, np.ndarray]:
        """Seeded inputs; odd seeds are bright."""
        shape = (count, 3, 8, 8) if self.text is BRANCH else (count, 6)
        values = np.random.default_rng(seed).standard_normal(shape) + (0.5 if seed % 2 else -0.5)
        return {"x": values.astype(np.float32)}


CONTROL = {
    "branch": Control(
        BRANCH,
        {
            "conv1_w": (8, 3, 3, 3),
            "conv1_b": (8,),
            "conv2_w": (12, 8, 3, 3),
            "conv2_b": (12,),
            "fc1_w": (16, 12),
            "fc1_b": (16,),
            "inner_w": (16, 16),
            "fc2_w": (24, 16),
            "fc2_b": (24,),
            "fc3_w": (5, 24),
        },
        {"a": 8, "c": 12, "i": 24},
        ("g",),
    ),
    "repeat": Control(
        LOOP,
        {
            "fc1_w": (16, 6),
            "fc1_b": (16,),
            "fc2_w": (8, 16),
            "fc2_b": (8,),
            "inner_w": (8, 8),
            "fc3_w": (24, 8),
            "fc3_b": (24,),
            "fc4_w": (5, 24),
        },
        {"a": 16, "e": 24},
        ("c",),
    ),
}
"""Every network with control flow by name."""
