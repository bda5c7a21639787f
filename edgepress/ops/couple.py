"""How channels couple through each kind of operator: one label rule per kind.

A rule reads the labels of a node's inputs from the board (:mod:`edgepress.ops.board`), ties what must live
and die together, notes every axis of every constant that shrinks with the channels (``Use``) and writes the
labels of the outputs. A rule that cannot do so changes nothing and returns the reason: the node becomes a wall.

    conv, gemm, matmul   consume labels along the contracted axis, make fresh ones along the other
    normalization        carries labels along axis 1, with its constants
    elementwise          ties what it joins; constants that vary along a labelled axis go along
    pooling              keeps axis 1, forgets the rest
    reduction, softmax   harmless over axes without labels, a wall along labelled ones
    movement             is EXECUTED on the labels by onnx's reference evaluator: no rule per operator

What the rules promise: removing a channel everywhere equals zeroing the weights that consume it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from itertools import compress

import numpy as np

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.labels import core, spread, varying
from edgepress.ops.movement import movement

Rule = Callable[[Board, NodeLike], str | None]

# --- contract over channels and make new ones -----------------------------------------------------------


def _conv(board: Board, node: NodeLike) -> str | None:
    weight = board.constant(node, 1)
    if weight is None or (board.given(node, 2) and board.constant(node, 2) is None):
        return "its weights are computed, not constant"
    groups = int(node.attributes.get("group", 1))
    outputs, inner = weight.shape[:2]
    entering = board.channels(node.inputs[0], 1)
    if groups > 1 and inner == 1:  # depthwise: every channel is carried along
        leaving, role = np.repeat(entering, outputs // groups), "along"
    else:
        blocks = entering.reshape(groups, inner)  # groups must stay equally wide: same index in every block
        board.atoms.tie(blocks[:1], blocks)
        board.use(node, 1, 1, blocks[0], "in")
        leaving, role = np.tile(board.atoms.fresh(outputs // groups), groups), "out"
    board.use(node, 1, 0, leaving, "out" if role == "out" else "along")
    if board.given(node, 2):
        board.use(node, 2, 0, leaving, "along")
    board.write(node.outputs[0], spread(leaving, board.shapes[node.outputs[0]], 1))
    return None


def _gemm(board: Board, node: NodeLike) -> str | None:
    weight, bias = board.constant(node, 1), board.constant(node, 2)
    if weight is None or (board.given(node, 2) and bias is None):
        return "its weights are computed, not constant"
    if node.attributes.get("transA", 0):
        return "it transposes its input"
    into, out_of = (1, 0) if node.attributes.get("transB", 0) else (0, 1)
    board.use(node, 1, into, board.channels(node.inputs[0], 1), "in")
    leaving = board.atoms.fresh(weight.shape[out_of])
    board.use(node, 1, out_of, leaving, "out")
    if bias is not None and bias.ndim and bias.shape[-1] > 1:
        board.use(node, 2, bias.ndim - 1, leaving, "along")
    board.write(node.outputs[0], spread(leaving, board.shapes[node.outputs[0]], 1))
    return None


def _matmul(board: Board, node: NodeLike) -> str | None:
    left, right = board.constant(node, 0), board.constant(node, 1)
    if (left is None) == (right is None):
        return "it multiplies two computed tensors"
    slot, weight = (1, right) if right is not None else (0, left)
    shape = board.shapes[node.outputs[0]]
    moving = node.inputs[1 - slot]
    if weight is None or weight.ndim != 2 or len(board.shapes[moving]) < 2:
        return "its weight is not a matrix"
    contracted = -1 if slot == 1 else -2  # x W contracts the last axis of x, W x the one before
    board.use(node, slot, 1 - slot, board.channels(moving, contracted), "in")
    leaving = board.atoms.fresh(weight.shape[slot])
    board.use(node, slot, slot, leaving, "out")
    board.write(node.outputs[0], spread(leaving, shape, contracted))
    return None


# --- keep channels apart ----------------------------------------------------------------------------------


def _normalization(board: Board, node: NodeLike) -> str | None:
    slots = range(1, len(node.inputs))
    if any(board.constant(node, slot) is None for slot in slots):
        return "its parameters are computed, not constant"
    if node.attributes.get("training_mode", 0) or len(node.outputs) > 1:
        return "it is in training mode"
    labels = board.channels(node.inputs[0], 1)
    for slot in slots:
        board.use(node, slot, 0, labels, "along")
    board.write(node.outputs[0], spread(labels, board.shapes[node.outputs[0]], 1))
    return None


def _pooling(board: Board, node: NodeLike) -> str | None:
    if len([name for name in node.outputs if name]) > 1:
        return "it also returns positions"
    labels = board.channels(node.inputs[0], 1)
    board.write(node.outputs[0], spread(labels, board.shapes[node.outputs[0]], 1))
    return None


def _reduction(board: Board, node: NodeLike) -> str | None:
    labels = board.labels[node.inputs[0]]
    axes = node.attributes.get("axes")
    if board.given(node, 1):
        constant = board.constant(node, 1)
        if constant is None:
            return "its axes are computed, not constant"
        axes = constant.ravel().tolist()
    if not axes:
        axes = [] if node.attributes.get("noop_with_empty_axes", 0) else range(labels.ndim)
    axes = {axis % labels.ndim for axis in axes}
    if axes & set(varying(labels)):
        return "it reduces over channels"
    keep = node.attributes.get("keepdims", 1)
    inner = core(labels)
    if not keep:
        inner = inner.squeeze(tuple(sorted(axes)))
    board.write(node.outputs[0], np.broadcast_to(inner, board.shapes[node.outputs[0]]))
    return None


def _softmax(board: Board, node: NodeLike) -> str | None:
    labels = board.labels[node.inputs[0]]
    if node.attributes.get("axis", -1) % labels.ndim in varying(labels):
        return "it normalizes over channels"
    board.write(node.outputs[0], labels)
    return None


# --- joins ------------------------------------------------------------------------------------------------


def _elementwise(board: Board, node: NodeLike) -> str | None:
    shape = board.shapes[node.outputs[0]]
    moving = [_aligned(board.labels[name], len(shape)) for name in node.inputs if name in board.labels]
    axes = sorted({axis for labels in moving for axis in varying(labels)})
    single = [axes != [] and all(labels.shape[axis] == 1 for axis in axes) for labels in moving]
    if any(single):  # one channel spread over many (a spatial mask): it stays, the many keep their own labels
        spreads = board.atoms.source(node.name, "it spreads one channel over many", wall=True)
        for labels in compress(moving, single):
            board.atoms.pin(labels, spreads)
    joined = reduce(partial(_join, board), [labels for labels, alone in zip(moving, single, strict=True) if not alone])
    result = np.broadcast_to(joined, shape)
    for slot, name in enumerate(node.inputs):
        if name in board.constants:
            _carry(board, node, slot, result)
    for name in filter(None, node.outputs):
        board.write(name, result)
    return None


def _aligned(labels: np.ndarray, rank: int) -> np.ndarray:
    """The labels with leading axes of length 1 added, as broadcasting does."""
    return labels[(None,) * (rank - labels.ndim)]


def _join(board: Board, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Tie two tensors position by position; two different streams of one shape make a residual join."""
    board.atoms.tie(left, right)
    shape = np.broadcast_shapes(left.shape, right.shape)
    a, b = np.broadcast_arrays(core(left), core(right))
    if left.shape == right.shape and bool(((a != b) & (a > 0) & (b > 0)).any()):
        board.joins.append(a[(a > 0) & (b > 0)])
    return np.broadcast_to(np.where(a > 0, a, b), shape)


def _carry(board: Board, node: NodeLike, slot: int, result: np.ndarray) -> None:
    """Note the axes of a constant operand that vary together with the labels of the result."""
    shape = board.constants[node.inputs[slot]].shape
    for axis, length in enumerate(shape):
        position = result.ndim - len(shape) + axis
        if length > 1 and position in varying(result):
            inner = core(result)
            rows = np.moveaxis(inner, position, 0).reshape(length, -1)
            board.atoms.tie(rows[:, :1], rows)
            board.use(node, slot, axis, rows[:, 0], "along")


RULES: Mapping[str, Rule] = {
    "conv": _conv,
    "gemm": _gemm,
    "matmul": _matmul,
    "normalization": _normalization,
    "elementwise": _elementwise,
    "pooling": _pooling,
    "reduction": _reduction,
    "softmax": _softmax,
    "movement": movement,
}
"""Every name a row of the operator table may give as ``couple``."""
