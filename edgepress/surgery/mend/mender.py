"""What a mender is: it changes one node of a graphsurgeon graph whose tensors lost positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from edgepress.model import Model, Node
from edgepress.surgery.mend.survivors import Survivors

Mender = Callable[[Model, Node, gs.Node, Survivors], None]
"""``mender(model, node, target, left)``: ``target`` mirrors ``node`` of ``model`` and is changed."""


def set_constant(node: gs.Node, slot: int, name: str, values: list[int] | np.ndarray) -> None:
    """Make input ``slot`` of a node a new integer constant."""
    constant = gs.Constant(name, np.asarray(values, np.int64))
    while len(node.inputs) <= slot:
        node.inputs.append(gs.Variable.empty())
    node.inputs[slot] = constant
