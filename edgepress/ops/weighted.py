"""Weighted operators: which they are, and which axis of their weight makes the output channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgepress.ops.row import Role
from edgepress.ops.rows import ROWS

WEIGHTED = tuple(row.name for row in ROWS if row.role is Role.WEIGHTED)
"""Names of the operators that multiply by a constant weight: Conv, Gemm, MatMul."""


def output_axis(op: str, attributes: Mapping[str, Any]) -> int:
    """Axis of the weight that makes output channels: 0 for Conv and a transposed Gemm, else the last (-1)."""
    return 0 if op == "Conv" or (op == "Gemm" and attributes.get("transB", 0)) else -1
