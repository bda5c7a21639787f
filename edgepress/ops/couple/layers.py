"""Label rules of layer normalization: what it normalizes over stays whole, with the reason.

    y = (x - mean(x)) / sqrt(var(x) + eps) * scale + bias        LayerNormalization (RMSNormalization without the mean)

Mean and variance run over every channel of the normalized axes. Removing a channel that is zero still changes how
many they run over, so the rest changes: not exact, and no weight could be zeroed to make it so. The labels pass on,
so that a residual stream is found once, with all its layers, and refused once. Heads that are each normalized on
their own (queries and keys) are not touched: their channels are tied head by head.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.couple import ties
from edgepress.ops.couple.rule import Rule
from edgepress.ops.labels import core

NORMALIZED = "it normalizes over its channels, so removing one would change the mean and the variance of the rest"
SCALED = "it normalizes over its channels, so removing one would change the scale of the rest"
WITHOUT_MEAN = frozenset({"RMSNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"})


def layer_normalization(board: Board, node: NodeLike) -> str | None:
    """LayerNormalization, RMSNormalization, SimplifiedLayerNormalization."""
    labels = board.labels.get(node.inputs[0])
    if labels is None:
        return "it normalizes a constant"
    return _normalize(board, node, labels, range(1, len(node.inputs)))


def skip_layer_normalization(board: Board, node: NodeLike) -> str | None:
    """``input + skip (+ bias)``, then layer normalization: a residual join in one operator."""
    if any(name not in board.labels for name in node.inputs[:2]):
        return "it adds a constant"
    left, right = (board.labels[name] for name in node.inputs[:2])
    board.meet(left, right)
    labels = ties.join(board, left, right)
    if len(node.outputs) > 3 and node.outputs[3]:
        board.write(node.outputs[3], labels)
    return _normalize(board, node, labels, range(2, len(node.inputs)))


def _normalize(board: Board, node: NodeLike, labels: np.ndarray, slots: range) -> str | None:
    given = [slot for slot in slots if board.given(node, slot)]
    if any(board.constant(node, slot) is None for slot in given):
        return "its parameters are computed, not constant"
    first = int(node.attributes.get("axis", -1)) % labels.ndim
    kept = ties.together(board, labels, range(first, labels.ndim))
    if kept is None:
        reason = SCALED if node.op in WITHOUT_MEAN else NORMALIZED
        board.atoms.pin(labels, board.atoms.source(node.name, reason, wall=True))
        kept = labels
    for slot in given:
        board.lay(node, slot, kept, "along")
    board.write(node.outputs[0], np.broadcast_to(core(kept), board.shapes[node.outputs[0]]))
    for name in filter(None, node.outputs[1:3]):  # mean and inverse deviation, of length 1 over what was normalized
        inner = core(ties.settled(board, kept))
        first_places = tuple(slice(None) if axis < first else slice(0, 1) for axis in range(inner.ndim))
        board.write(name, np.broadcast_to(inner[first_places], board.shapes[name]))
    return None


RULES: Mapping[str, Rule] = {
    "layer_normalization": layer_normalization,
    "skip_layer_normalization": skip_layer_normalization,
}
