"""Label rule of Gather: data movement where the positions are known, a table where they are computed.

    y[.., d] = table[index[..], d]        an embedding: every column of the table makes a channel

A table is a constant that is looked up by computed positions: the axis that is looked up stays whole, the other one
makes fresh channels (role ``out``). Computed data that is looked up by computed positions keeps its labels, as long
as they do not vary along the axis that is looked up. Positions are no channels: those that are computed stay whole.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.couple.movement import AMONG, among_free_lengths, movement
from edgepress.ops.couple.rule import Rule
from edgepress.ops.labels import core, fill, varying

POSITIONS = "it looks up every one of its channels, so removing one would take its answer away"


def gather(board: Board, node: NodeLike) -> str | None:
    """Gather."""
    data, index = node.inputs[:2]
    if index in board.labels:
        board.atoms.pin(board.labels[index], board.atoms.source(node.name, POSITIONS, wall=True))
    if data in board.labels:
        if among_free_lengths(board, node, int(node.attributes.get("axis", 0)) % len(board.shapes[data])):
            return AMONG
        return movement(board, node) if board.known(node, 1) is not None else _picked(board, node)
    if index not in board.labels:
        return "it looks up a constant in another one"
    table = board.constants[data]
    axis = int(node.attributes.get("axis", 0)) % table.ndim
    made = [place for place, length in enumerate(table.shape) if place != axis and length > 1]
    if not made:
        one = board.atoms.source(node.name, "it looks up single values", wall=True)
        board.write(node.outputs[0], fill(one, board.shapes[node.outputs[0]]))
        return None
    sizes = [1 if place == axis else length for place, length in enumerate(table.shape)]
    fresh = board.atoms.fresh(int(np.prod(sizes))).reshape(sizes)
    if len(made) == 1:
        board.use(node, 0, made[0], fresh.ravel(), "out")
    else:
        board.lay(node, 0, np.broadcast_to(fresh, table.shape), "out")
    board.write(node.outputs[0], _placed(board, node, fresh, axis))
    return None


def _picked(board: Board, node: NodeLike) -> str | None:
    """Positions along an axis without labels, picked while it runs."""
    labels = board.labels[node.inputs[0]]
    axis = int(node.attributes.get("axis", 0)) % labels.ndim
    if axis in varying(labels):
        return "which channels it picks is computed, not constant"
    inner = core(labels)
    board.write(node.outputs[0], _placed(board, node, inner, axis))
    return None


def _placed(board: Board, node: NodeLike, inner: np.ndarray, axis: int) -> np.ndarray:
    """Labels of length 1 along ``axis``, with the axes of the index in its place."""
    rank = len(board.shapes[node.inputs[1]])
    shape = [*inner.shape[:axis], *[1] * rank, *inner.shape[axis + 1 :]]
    return np.broadcast_to(inner.reshape(shape), board.shapes[node.outputs[0]])


RULES: Mapping[str, Rule] = {"gather": gather}
