"""Label rules of what mixes along an axis: harmless over axes without labels, a wall along labelled ones.

A sum over channels reads every channel with a weight of one. There is nothing to zero that would make it
forget a channel, so a removal would change the result: not exact, hence a wall, with the reason in words.
Where channels are apart along another axis as well (heads), they are tied along the axis that is mixed instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.couple import ties
from edgepress.ops.couple.rule import Rule
from edgepress.ops.labels import core, varying

REDUCED: Mapping[str, str] = {
    "ReduceMean": "it averages over channels",
    "ReduceMax": "it takes the largest of the channels",
    "ReduceMin": "it takes the smallest of the channels",
    "ReduceProd": "it multiplies channels with each other",
    "ArgMax": "it looks for the largest channel",
    "ArgMin": "it looks for the smallest channel",
}
"""What a reduction does to channels; all others add them up."""

MIXED: Mapping[str, str] = {
    "Softmax": "it normalizes over channels",
    "LogSoftmax": "it normalizes over channels",
    "LpNormalization": "it normalizes over channels",
    "LRN": "it divides every channel by its neighbours",
    "Hardmax": "it looks for the largest channel",
    "TopK": "it looks for the largest channels",
    "CumSum": "it adds each channel to the next",
    "CumProd": "it multiplies each channel with the next",
}
"""What an operator that mixes does to channels."""


def reduction(board: Board, node: NodeLike) -> str | None:
    """Axes vanish or become one long."""
    labels = board.labels.get(node.inputs[0])
    if labels is None:
        return "it reduces a constant"
    axes = _reduced(board, node, labels.ndim)
    if axes is None:
        return "its axes are computed, not constant"
    kept = ties.together(board, labels, axes)
    if kept is None or axes & set(varying(kept)):
        return _not_exact(REDUCED.get(node.op, "it adds up channels"))
    inner = core(kept)
    if not node.attributes.get("keepdims", 1):
        inner = inner.squeeze(tuple(sorted(axes)))
    board.write(node.outputs[0], np.broadcast_to(inner, board.shapes[node.outputs[0]]))
    return None


def mixing(board: Board, node: NodeLike) -> str | None:
    """Axes stay, but their positions depend on each other."""
    labels = board.labels.get(node.inputs[0])
    if labels is None:
        return "it mixes a constant"
    axes = _mixed(board, node, labels.ndim)
    if axes is None:
        return "its axis is computed, not constant"
    kept = ties.together(board, labels, axes)
    if kept is None or set(axes) & set(varying(kept)):
        return _not_exact(MIXED[node.op])
    for name in filter(None, node.outputs):
        board.write(name, np.broadcast_to(core(kept), board.shapes[name]))
    return None


def _not_exact(what: str) -> str:
    return f"{what}, so removing one would change the rest"


def _reduced(board: Board, node: NodeLike, rank: int) -> set[int] | None:
    """The axes a reduction runs over; None if they are not known."""
    if node.op in ("ArgMax", "ArgMin"):
        return {int(node.attributes.get("axis", 0)) % rank}
    axes: Sequence[int] = node.attributes.get("axes", ())
    if board.given(node, 1):
        values = board.known(node, 1)
        if values is None:
            return None
        axes = values.ravel().tolist()
    if len(axes) == 0 and not node.attributes.get("noop_with_empty_axes", 0):
        axes = range(rank)
    return {int(axis) % rank for axis in axes}


def _mixed(board: Board, node: NodeLike, rank: int) -> Sequence[int] | None:
    """The axes along which an operator mixes; None if they are not known."""
    if node.op == "LRN":
        return [1]
    if node.op in ("CumSum", "CumProd"):
        axis = board.known(node, 1)
        return None if axis is None else [int(axis.ravel()[0]) % rank]
    if node.op in ("Softmax", "LogSoftmax", "Hardmax") and board.opset < 13:  # flattened from this axis on
        return range(int(node.attributes.get("axis", 1)) % rank, rank)
    return [int(node.attributes.get("axis", -1)) % rank]


RULES: dict[str, Rule] = {"reduction": reduction, "mixing": mixing}
