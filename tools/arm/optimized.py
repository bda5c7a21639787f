"""Two runs of the graph onnxruntime really runs: its operators, and the first of them whose outputs differ.

Which of them compute in float is said by :mod:`edgepress.bundle.exact`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx

from edgepress.bundle.exact import exposed, float_operators, step

__all__ = ["exposed", "first_difference", "float_operators", "operators", "step"]


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """How often every operator is there."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


def first_difference(model: onnx.ModelProto, some: Mapping[str, str], others: Mapping[str, str]) -> str | None:
    """The first node, in graph order, one of whose outputs has another hash in ``others``; None if there is none."""
    for node in model.graph.node:
        if any(name and some[name] != others[name] for name in node.output):
            return f"{node.op_type} {node.name or node.output[0]}"
    return None
