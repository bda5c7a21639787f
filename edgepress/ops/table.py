"""The operator table: one row per operator, the only list of what edgepress understands.

A row names three facets: how channels couple through the operator (``couple``: a rule of
``edgepress.ops.couple``), how it runs in torch (``kernel``: a function of ``edgepress.ops.kernels``)
and its role in an int8 graph (``role``). Rows hold for the operator-set versions ``since..until`` of the
default domain. An operator without a row is a wall: channels stop there, the reason is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

NEWEST_OPSET = 26
"""Newest default operator set that onnxruntime 1.31 loads."""


class Role(Enum):
    """What an operator does in an int8 (QDQ) graph; facts of onnxruntime 1.31's fusions on CPU."""

    WEIGHTED = "weighted"  # Conv, Gemm, MatMul with a constant: int8 weights, int32 bias
    FUSED = "fused"  # Relu, Clip: vanish into the Q behind the weighted operator or the Add
    MAPPED = "mapped"  # LeakyRelu, Sigmoid: an int8 kernel of their own, QDQ on both sides
    ALIKE = "alike"  # MaxPool, Reshape, Slice, ...: run on int8 when input and output share scale and zero point
    POOLED = "pooled"  # AveragePool, GlobalAveragePool: int8 kernel, own output scale
    JOINED = "joined"  # Add, Mul, Concat: int8 when every input and the output carry QDQ
    FLOAT = "float"  # stays float: there is no int8 kernel, or it is slower


@dataclass(frozen=True, slots=True)
class Op:
    """One row of the table. ``couple`` and ``kernel`` are names, so that reading the table imports nothing heavy."""

    name: str
    couple: str | None
    kernel: str | None
    role: Role = Role.FLOAT
    since: int = 1
    until: int = NEWEST_OPSET


W, F, M, A, P, J = Role.WEIGHTED, Role.FUSED, Role.MAPPED, Role.ALIKE, Role.POOLED, Role.JOINED

ROWS: tuple[Op, ...] = (
    # contract over channels and make new ones
    Op("Conv", "conv", "conv", W),
    Op("Gemm", "gemm", "gemm", W, since=7),
    Op("MatMul", "matmul", "matmul", W),
    # normalisation along channels
    Op("BatchNormalization", "normalization", "batch_normalization", since=9),
    # one output element from one input element
    Op("Relu", "elementwise", "relu", F),
    Op("Clip", "elementwise", "clip", F, since=11),
    Op("LeakyRelu", "elementwise", "leaky_relu", M),
    Op("PRelu", "elementwise", "prelu", since=7),
    Op("Sigmoid", "elementwise", "sigmoid", M),
    Op("HardSigmoid", "elementwise", "hard_sigmoid"),
    Op("HardSwish", "elementwise", "hard_swish", since=14),
    Op("Tanh", "elementwise", "tanh"),
    Op("Elu", "elementwise", "elu"),
    Op("Softplus", "elementwise", "softplus"),
    Op("Gelu", "elementwise", "gelu", since=20),
    Op("Erf", "elementwise", "erf", since=9),
    Op("Exp", "elementwise", "exp"),
    Op("Log", "elementwise", "log"),
    Op("Sqrt", "elementwise", "sqrt"),
    Op("Abs", "elementwise", "abs"),
    Op("Neg", "elementwise", "neg"),
    Op("Cast", "elementwise", "cast", since=6),
    Op("Identity", "elementwise", "identity", A),
    Op("Dropout", "elementwise", "dropout", A, since=7),
    # joins
    Op("Add", "elementwise", "add", J, since=7),
    Op("Sub", "elementwise", "sub", since=7),
    Op("Mul", "elementwise", "mul", J, since=7),
    Op("Div", "elementwise", "div", since=7),
    Op("Pow", "elementwise", "pow", since=7),
    Op("Sum", "elementwise", "sum", since=8),
    Op("Min", "elementwise", "min", since=8),
    Op("Max", "elementwise", "max", since=8),
    Op("Concat", "movement", "concat", J, since=4),
    # pooling keeps channels apart
    Op("MaxPool", "pooling", "max_pool", A),
    Op("AveragePool", "pooling", "average_pool", P, since=7),
    Op("GlobalAveragePool", "pooling", "global_average_pool", P),
    Op("GlobalMaxPool", "pooling", "global_max_pool"),
    # reductions and softmax: fine along other axes, a wall along channels
    Op("ReduceMean", "reduction", "reduce_mean", since=11),
    Op("ReduceSum", "reduction", "reduce_sum", since=11),
    Op("ReduceMax", "reduction", "reduce_max", since=11),
    Op("Softmax", "softmax", "softmax", since=13),
    Op("LogSoftmax", "softmax", "log_softmax", since=13),
    # data movement: executed on labels as it is
    Op("Reshape", "movement", "reshape", A, since=5),
    Op("Flatten", "movement", "flatten", A),
    Op("Transpose", "movement", "transpose", A),
    Op("Squeeze", "movement", "squeeze", A, since=11),
    Op("Unsqueeze", "movement", "unsqueeze", A, since=11),
    Op("Slice", "movement", "slice", A, since=10),
    Op("Split", "movement", "split", A, since=11),
    Op("Gather", "movement", "gather", A),
    Op("Pad", "movement", "pad", since=11),
    Op("Expand", "movement", "expand", since=8),
    Op("Tile", "movement", "tile", since=6),
    Op("DepthToSpace", "movement", "depth_to_space", A),
    Op("SpaceToDepth", "movement", "space_to_depth"),
)


def _index(rows: Iterable[Op]) -> dict[str, Op]:
    found: dict[str, Op] = {}
    for row in rows:
        if row.name in found:
            raise ValueError(f"operator {row.name} has two rows in the table")
        found[row.name] = row
    return found


TABLE = _index(ROWS)


def lookup(op: str, domain: str, opset: int) -> Op | None:
    """The row for an operator of a model with that opset; None when edgepress does not know it."""
    row = TABLE.get(op) if domain in ("", "ai.onnx") else None
    return row if row is not None and row.since <= opset <= row.until else None
