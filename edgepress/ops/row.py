"""A row of the operator table: what edgepress knows about one operator.

Three facets and what each input is:

    couple   how channels pass through: a rule of ``edgepress.ops.couple``; None: a wall
    kernel   how it runs in torch: a function of ``edgepress.ops.kernels``; None: by its function body in the ONNX
             specification, if it has one, else not at all
    role     what it does in an int8 graph
    inputs   what each input is: which constants are trained, which are read as shapes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

NEWEST_DEFINITION = 28
"""Newest operator definitions the rows were checked against (onnx 1.23)."""


class Role(Enum):
    """What an operator does in an int8 (QDQ) graph; facts of onnxruntime 1.31's fusions on CPU."""

    WEIGHTED = "weighted"  # Conv, Gemm, MatMul with a constant: int8 weights, int32 bias
    FUSED = "fused"  # Relu, Clip: vanish into the Q behind the weighted operator or the Add
    MAPPED = "mapped"  # LeakyRelu, Sigmoid: an int8 kernel of their own, QDQ on both sides
    ALIKE = "alike"  # MaxPool, Reshape, Slice, ...: run on int8 when input and output share scale and zero point
    POOLED = "pooled"  # AveragePool, GlobalAveragePool: int8 kernel, own output scale
    JOINED = "joined"  # Add, Mul, Concat: int8 when every input and the output carry QDQ
    FLOAT = "float"  # stays float: there is no int8 kernel, or it is slower


class Input(Enum):
    """What an input of an operator is."""

    DATA = "data"  # an activation; a constant here is a parameter if it holds more than one value
    WEIGHT = "weight"  # trained: matrices and filters
    BIAS = "bias"  # trained: added per channel
    SCALE = "scale"  # trained: multiplied per channel
    TABLE = "table"  # trained: rows are looked up (embeddings)
    STATISTIC = "statistic"  # measured, not trained: running mean and variance
    BOUND = "bound"  # a number of the formula: limits, padding values, exponents
    STATE = "state"  # what a recurrence or a cache starts from
    SHAPE = "shape"  # integers that decide shapes, axes or counts
    INDEX = "index"  # positions to read or write


TRAINED = frozenset({Input.WEIGHT, Input.BIAS, Input.SCALE, Input.TABLE})
"""Kinds of inputs whose constants are always parameters."""


@dataclass(frozen=True, slots=True)
class Op:
    """One row of the table.

    Attributes:
        name: the operator.
        couple: label rule: a name in ``edgepress.ops.couple.RULES``, a function, or None for a wall.
        kernel: torch function: a name in ``edgepress.ops.kernels.KERNELS``, a function, or None.
        role: what it does in an int8 graph.
        since: the first definition (version in ``onnx.defs``) the row holds for.
        until: the last one.
        domain: "" for the default domain of ONNX.
        inputs: what each input is, by the values of :class:`Input`; the last one repeats.
    """

    name: str
    couple: str | Callable[..., Any] | None
    kernel: str | Callable[..., Any] | None
    role: Role = Role.FLOAT
    since: int = 1
    until: int = NEWEST_DEFINITION
    domain: str = ""
    inputs: str = "data"

    def kind(self, slot: int) -> Input:
        """What input number ``slot`` is."""
        kinds = self.inputs.split()
        return Input(kinds[min(slot, len(kinds) - 1)])
