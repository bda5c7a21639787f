"""One small network for every kind of consumer of channels, and what to do to its first group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import shape_inference
from quantize_tools import kernel, parse

from edgepress.groups import Group, Grouping, find_groups
from edgepress.model import Model

B = 0.3 * np.sin(np.arange(99, dtype=np.float32))


@dataclass(frozen=True)
class Kind:
    """A network whose group ``group`` is read by one kind of consumer.

    Attributes:
        body: the graph, from x to y.
        x: the shape of x; the first size is the batch, or the second one where ``steps`` come first.
        arrays: initializers.
        group: name of the group's first node.
        consumers: operators that read it.
        fixed: the batch is fixed at its size in ``x``.
    """

    body: str
    x: tuple[int, ...]
    arrays: Mapping[str, np.ndarray]
    group: str
    consumers: tuple[str, ...]
    y: str = "float y"
    fixed: bool = False

    def build(self) -> Model:
        """The model, shapes stated."""
        sizes = self.x if self.fixed else ("N", *self.x[1:])
        axes = ",".join(map(str, sizes))
        proto = parse(self.body, x=axes, outputs=self.y, arrays=self.arrays).edit()
        if self.y == "float y":
            proto.graph.output[0].type.tensor_type.ClearField("shape")
        return Model.of(shape_inference.infer_shapes(proto))

    def samples(self, chunks: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
        """Chunks of correlated inputs."""
        random = np.random.default_rng([seed, 1])
        mixing = np.random.default_rng(7)
        count = int(np.prod(self.x[1:]))
        mix = mixing.standard_normal((count, count)) * (0.85 ** np.arange(count))[:, None]
        found = []
        for _ in range(chunks):
            draws = random.standard_normal((self.x[0], count)) @ mix / 2
            found.append({"x": draws.reshape(self.x).astype(np.float32)})
        return found


FRONT = "a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)"
IMAGE, CONV = (32, 3, 6, 6), {"w1": 2 * kernel(12, 3, 3, 3), "b1": B[:12]}
ROWS, GEMM = (64, 10), {"w1": 2 * kernel(16, 10), "b1": B[:16]}
FRONT_ROWS = "a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)"
TOKENS, DENSE = (32, 5, 10), {"w1": 2 * kernel(10, 16), "b1": B[:16]}
FRONT_TOKENS = "m = MatMul(x, w1)  a = Add(m, b1)  r = Gelu(a)"
CONV1, GEMM1 = "/net/Conv.0", "/net/Gemm.0"

ATTENTION = """q0 = MatMul(x, wq)  q1 = Reshape(q0, s)  q = Transpose<perm=[0,2,1,3]>(q1)
    k0 = MatMul(x, wk)  k1 = Reshape(k0, s)  k = Transpose<perm=[0,2,3,1]>(k1)
    v0 = MatMul(x, wv)  v1 = Add(v0, bv)  v2 = Reshape(v1, s)  v = Transpose<perm=[0,2,1,3]>(v2)
    qk = MatMul(q, k)  p = Softmax<axis=-1>(qk)  o = MatMul(p, v)  o1 = Transpose<perm=[0,2,1,3]>(o)
    o2 = Reshape(o1, t)  o3 = MatMul(o2, wo)  y = Add(o3, bo)"""
HEADS = {
    **{f"w{name}": kernel(10, 32, seed=seed) for seed, name in enumerate("qkv")},
    "bv": B[:32], "wo": kernel(32, 10), "bo": B[:10], "s": np.array([0, 5, 8, 4]), "t": np.array([0, 5, 32]),
}  # fmt: skip


def recurrent(op: str, direction: str = "forward", attributes: str = "") -> Kind:
    """Recurrent units read by themselves and by the MatMul behind."""
    gates, directions = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if direction == "bidirectional" else 1
    body = f"""h = {op}<hidden_size=12,direction="{direction}"{attributes}>(x, w, r, b)
        t = Transpose<perm=[0,2,1,3]>(h)  u = Reshape(t, s)  m = MatMul(u, w2)  y = Add(m, b2)"""
    arrays = {
        "w": 2 * kernel(directions, gates * 12, 6), "r": 2 * kernel(directions, gates * 12, 12),
        "b": kernel(directions, gates * 24), "s": np.array([0, 0, directions * 12]), "w2": kernel(directions * 12, 5),
        "b2": B[:5],
    }  # fmt: skip
    return Kind(body, (7, 16, 6), arrays, f"/net/{op}.0", (op, "MatMul"), fixed=True)


def transposed(attributes: str, weight: np.ndarray, bias: bool = True, front: str = FRONT) -> Kind:
    """A ConvTranspose behind a Conv."""
    body = f"{front}  y = ConvTranspose<{attributes}>(r, w2{', b2' if bias else ''})"
    return Kind(body, IMAGE, {**CONV, "w2": weight, **({"b2": B[:4]} if bias else {})}, CONV1, ("ConvTranspose",))


KINDS: dict[str, Kind] = {
    "conv": Kind(f"{FRONT}  y = Conv<kernel_shape=[3,3]>(r, w2, b2)", IMAGE,
                 {**CONV, "w2": kernel(5, 12, 3, 3), "b2": B[:5]}, CONV1, ("Conv",)),
    "grouped conv": Kind(f"{FRONT}  y = Conv<kernel_shape=[3,3],group=2>(r, w2, b2)", IMAGE,
                         {**CONV, "w2": kernel(6, 6, 3, 3), "b2": B[:6]}, CONV1, ("Conv",)),
    "depthwise conv": Kind(
        f"""{FRONT}  d = Conv<kernel_shape=[3,3],group=12>(r, w2, b2)  e = Relu(d)
        y = Conv<kernel_shape=[1,1]>(e, w3, b3)""", IMAGE,
        {**CONV, "w2": 2 * kernel(12, 1, 3, 3), "b2": B[:12] + 0.3, "w3": kernel(5, 12, 1, 1), "b3": B[:5]}, CONV1,
        ("Conv",)),
    "conv transpose": transposed("kernel_shape=[4,4],strides=[2,2],pads=[1,1,1,1]", kernel(12, 4, 4, 4)),
    "conv transpose without a bias": transposed("kernel_shape=[2,2],strides=[2,2]", kernel(12, 4, 2, 2), bias=False),
    "grouped conv transpose": transposed("kernel_shape=[3,3],strides=[2,1],group=2", kernel(12, 2, 3, 3)),
    "gemm": Kind(f"{FRONT_ROWS}  y = Gemm<alpha=0.5,beta=2.0>(r, w2, b2)", ROWS,
                 {**GEMM, "w2": kernel(16, 5), "b2": B[:5]}, GEMM1, ("Gemm",)),
    "matmul": Kind(f"{FRONT_ROWS}  y = MatMul(r, w2)", ROWS, {**GEMM, "w2": kernel(16, 5)}, GEMM1, ("MatMul",)),
    "matmul and add": Kind(f"{FRONT_TOKENS}  n = MatMul(r, w2)  y = Add(n, b2)", TOKENS,
                           {**DENSE, "w2": kernel(16, 5), "b2": B[:5]}, "/net/MatMul.0", ("MatMul",)),
    "left matmul": Kind("m = MatMul(w1, x)  a = Add(m, b1)  r = Relu(a)  n = MatMul(w2, r)  y = Add(b2, n)",
                        (32, 10, 5), {"w1": 2 * kernel(16, 10), "b1": B[:16, None], "w2": kernel(5, 16),
                                      "b2": B[:5, None]}, "/net/MatMul.0", ("MatMul",)),
    "einsum": Kind(
        f'{FRONT_TOKENS}  n = Einsum<equation="btk,km->bmt">(r, w2)  y = Add(n, b2)', TOKENS,
        {**DENSE, "w2": kernel(16, 5), "b2": B[:5, None]}, "/net/MatMul.0", ("Einsum",)),
    "flattened": Kind(f"{FRONT}  f = Flatten(r)  y = Gemm<transB=1>(f, w2, b2)", (64, 3, 3, 3),
                      {**CONV, "w2": kernel(5, 108), "b2": B[:5]}, CONV1, ("Gemm",)),
    "two consumers": Kind(
        f"{FRONT_ROWS}  m = Gemm(r, w2, b2)  n = MatMul(r, w3)  y = Concat<axis=1>(m, n)", ROWS,
        {**GEMM, "w2": kernel(16, 5), "b2": B[:5], "w3": kernel(16, 4)}, GEMM1, ("Gemm", "MatMul")),
    "shared weights": Kind(
        f"{FRONT_ROWS}  s = Sigmoid(a)  m = Gemm(r, w2, b2)  n = Gemm(s, w2, b3)  y = Concat<axis=1>(m, n)", ROWS,
        {**GEMM, "w2": kernel(16, 5), "b2": B[:5], "b3": B[5:10]}, GEMM1, ("Gemm", "Gemm")),
    "concatenated": Kind(
        f"""{FRONT}  c = Conv<kernel_shape=[1,1]>(x, w3, b3)  s = Relu(c)  j = Concat<axis=1>(s, r)
        y = Conv<kernel_shape=[3,3]>(j, w2, b2)""", IMAGE,
        {**CONV, "w3": 2 * kernel(6, 3, 1, 1), "b3": B[:6], "w2": kernel(5, 18, 3, 3), "b2": B[:5]}, CONV1,
        ("Conv",)),
    "gated ffn": Kind(
        "g = MatMul(x, w1)  h = Sigmoid(g)  i = Mul(g, h)  u = MatMul(x, w2)  r = Mul(i, u)  y = MatMul(r, w3)", TOKENS,
        {"w1": 2 * kernel(10, 16), "w2": 2 * kernel(10, 16, seed=1), "w3": kernel(16, 10)}, "/net/MatMul.0",
        ("MatMul",)),
    "heads": Kind(ATTENTION, TOKENS, HEADS, "/net/MatMul.0", ("MatMul",)),
    # rows of the product hold the channels of every sample: it cannot be refitted, and stays as it is
    "merged with the batch": Kind(
        """a = Conv<kernel_shape=[1]>(x, w1, b1)  r = Reshape(a, s)  m = MatMul(r, w2)  n = Relu(m)  u = Reshape(n, t)
        y = Conv<kernel_shape=[1]>(u, w3, b3)""", (32, 3, 6),
        {"w1": 2 * kernel(12, 3, 1), "b1": B[:12], "s": np.array([-1, 6]), "w2": kernel(6, 5),
         "t": np.array([-1, 12, 5]), "w3": kernel(5, 12, 1), "b3": B[:5]}, CONV1, ("Conv",)),
    "rnn": recurrent("RNN"),
    "gru": recurrent("GRU"),
    "gru, reset behind": recurrent("GRU", attributes=",linear_before_reset=1"),
    "lstm": recurrent("LSTM"),
    "lstm, both ways": recurrent("LSTM", "bidirectional"),
}  # fmt: skip


def group_of(model: Model, kind: Kind) -> tuple[Grouping, Group]:
    """The grouping and the group the kind is about."""
    grouping = find_groups(model)
    return grouping, grouping.group(kind.group)


def duplicated(model: Model, group: Group, source: int, copy: int) -> Model:
    """The model with one channel made exactly like another one: the same weights, whoever reads it."""
    arrays: dict[str, np.ndarray] = {}
    for site in group.sites:
        if site.role != "in":
            values = arrays.setdefault(site.tensor, model.constants[site.tensor].copy())
            moved = np.moveaxis(values, site.axis, 0)
            moved[site.index[copy]] = moved[site.index[source]]
    return model.with_constants(arrays)
