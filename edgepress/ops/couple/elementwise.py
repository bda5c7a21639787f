"""Label rule of elementwise operators: ties what it joins; constants that vary along a labelled axis go along.

Two streams of one shape that are added make a residual join: a stream that layers share. A product is not one: it
gates the neurons of one layer with those of another (gated linear units).
"""

from __future__ import annotations

from functools import partial, reduce
from itertools import compress

import numpy as np

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.couple import ties
from edgepress.ops.couple.rule import Rule
from edgepress.ops.labels import core, varying

ADDING = frozenset({"Add", "Sub", "Sum", "Mean", "Min", "Max"})
"""What joins streams; Mul and its like make gates."""


def elementwise(board: Board, node: NodeLike) -> str | None:
    """One element of the result from one of each operand, broadcast."""
    shape = board.shapes[node.outputs[0]]
    operands = node.inputs[:1] if node.op == "CastLike" else node.inputs  # of its second input only the type is read
    moving = [_aligned(board.labels[name], len(shape)) for name in operands if name in board.labels]
    if not moving:
        return "it takes nothing but the type from them"
    axes = sorted({axis for labels in moving for axis in varying(labels)})
    single = [axes != [] and all(labels.shape[axis] == 1 for axis in axes) for labels in moving]
    if any(single):  # one channel spread over many (a spatial mask): it stays, the many keep their own labels
        spreads = board.atoms.source(node.name, "it spreads one channel over many", wall=True)
        for labels in compress(moving, single):
            board.atoms.pin(labels, spreads)
    many = [labels for labels, alone in zip(moving, single, strict=True) if not alone]
    stuck = [labels for labels in many if ties.fixed(labels)]
    free = [ties.respect(board, labels, stuck) for labels in many if not ties.fixed(labels)]
    result = np.broadcast_to(reduce(partial(_join, board, node), free or stuck), shape)
    for slot, name in enumerate(operands):
        if name in board.constants:
            _carry(board, node, slot, result)
    for name in filter(None, node.outputs):
        board.write(name, result)
    return None


def _aligned(labels: np.ndarray, rank: int) -> np.ndarray:
    """The labels with leading axes of length 1 added, as broadcasting does."""
    return labels[(None,) * (rank - labels.ndim)]


def _join(board: Board, node: NodeLike, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Tie two tensors position by position; adding two different streams of one shape makes a residual stream."""
    if node.op in ADDING and left.shape == right.shape:
        board.meet(left, right)
    ours, theirs = set(varying(left)), set(varying(right))
    return _cross(board, node, left, right) if ours and theirs and not ours & theirs else ties.join(board, left, right)


def _cross(board: Board, node: NodeLike, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Channels along different axes: removing one of either would leave a hole, so all stay; a stream passes on."""
    crossing = board.atoms.source(node.name, "it joins channels that lie along different axes", wall=True)
    passing = right if ties.fixed(ties.settled(board, right)) else left
    for labels in (left, right):
        board.atoms.pin(labels, crossing)
    return np.broadcast_to(core(passing), np.broadcast_shapes(left.shape, right.shape))


def _carry(board: Board, node: NodeLike, slot: int, result: np.ndarray) -> None:
    """Note that a constant operand shrinks with the labels of the result, if it varies along their axis."""
    if board.constants[node.inputs[slot]].size > 1:
        board.lay(node, slot, result, "along")


RULES: dict[str, Rule] = {"elementwise": elementwise}
