"""Mends what mentions a width: attributes and constants that a cut makes stale.

    Conv, ConvTranspose   group = blocks that are left
    GroupNormalization    num_groups = blocks that are left
    LSTM, GRU, RNN        hidden_size = units that are left
    Reshape   target entries that name a width (0, -1 and unchanged entries stay as they are)
    Expand    the same, aligned to the right; 1 stays
    Split     sizes, written out when the parts changed
    Slice     bounds on a channel axis, counted in channels that are left
    Resize    sizes that name a width
    Gather    indices on a channel axis, renumbered, those of removed channels dropped

Numbers computed at run time are mended too (:mod:`edgepress.surgery.mend.computed`). A mended constant is always a new
one, because the old one may be shared. Works on a graphsurgeon graph that belongs to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from edgepress.model import Model, Node
from edgepress.surgery.mend import attention, computed, counts, movement
from edgepress.surgery.mend.computed import Program, Valued
from edgepress.surgery.mend.mender import Mender
from edgepress.surgery.mend.survivors import Survivors

MENDERS: Mapping[str, Mender] = {**counts.MENDERS, **movement.MENDERS, **attention.MENDERS, **computed.MENDERS}
"""Operator -> mender."""

__all__ = ["MENDERS", "Survivors", "mend"]


def mend(graph: gs.Graph, model: Model, left: Survivors) -> None:
    """Mend every node of ``graph`` (which mirrors ``model.nodes``) that mentions a changed width.

    Args:
        graph: is changed.
        model: the model before the cut.
        left: what stays.
    """
    valued = Valued(model, left.values)
    program = Program(valued, left.values, left)
    nodes = []
    for node, target in zip(model.nodes, graph.nodes, strict=True):
        _mend(valued, node, target, left, program)
        nodes += [*program.added.pop(node.outputs, ()), target]
    graph.nodes.clear()
    graph.nodes.extend(nodes)


def _mend(model: Valued, node: Node, target: gs.Node, left: Survivors, program: Program) -> None:
    mender = MENDERS.get(node.op) if any(left.changed(name) for name in (*node.inputs, *node.outputs)) else None
    targets = program.targets(node)
    wanted: dict[int, np.ndarray] = {}
    if targets:
        wanted = computed.asked(mender, model, node, target, left)
        for slot in targets:
            program.scale(node, target, slot, wanted[slot])
    elif mender is not None:
        mender(model, node, target, left)
    program.step(node, {node.inputs[slot]: wanted[slot] for slot in targets})
