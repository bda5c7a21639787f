"""Ties that several label rules share: along axes that cannot be cut, and between operands of one operation.

Where labels vary along an axis whose channels depend on each other (a sum, a mean or a softmax runs over it, or the
other operand is fixed there), everything along that axis is tied. Labels that still vary along another axis are then
channels of that one: an attention head is what is left of the channels of a query when its products tie them head
by head. Labels that vary along no axis any more stand for the whole tensor, which cannot go: they are pinned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.labels import core, fill, thin, varying


def settled(board: Board, labels: np.ndarray) -> np.ndarray:
    """The labels by what is tied and pinned so far: they vary along an axis only where channels are still apart."""
    inner = core(board.atoms.find(labels))
    reason = board.atoms.pinned()[np.maximum(inner, 0)]
    return thin(np.broadcast_to(np.where((inner > 0) & (reason >= 0), -reason, inner), labels.shape))


def fixed(labels: np.ndarray) -> bool:
    """Whether no position is a channel."""
    return not bool((core(labels) > 0).any())


def apart(board: Board, labels: np.ndarray) -> set[int]:
    """The axes along which two channels are apart by what is known so far; fixed positions count for none."""
    if not varying(labels):
        return set()
    now = core(settled(board, labels))
    low, high = np.where(now > 0, now, np.iinfo(np.int64).max), now
    return {axis for axis in varying(now) if bool((low.min(axis) < high.max(axis)).any())}


def together(board: Board, labels: np.ndarray, axes: Iterable[int]) -> np.ndarray | None:
    """Tie everything along ``axes``; None, and nothing tied, when the labels would vary along no axis any more.

    Args:
        board: the analysis.
        labels: the labels of a tensor.
        axes: the axes along which nothing may be cut alone, counted from the front or the back.

    Returns:
        The labels, constant along these axes; as they are where no channels are apart along them.
    """
    wanted = {axis % labels.ndim for axis in axes}
    if not wanted & set(varying(labels)):
        return labels
    now = settled(board, labels)
    if fixed(now):
        return labels
    free = apart(board, now)
    crossed = wanted & free
    if not crossed:
        return now
    if free <= crossed:
        return None
    inner = core(now)
    low, high = (pick(inner, axis=tuple(crossed), keepdims=True) for pick in (np.min, np.max))
    board.atoms.tie(high, inner)
    return np.broadcast_to(np.where(low > 0, high, low), labels.shape)  # one fixed label among them fixes all


def hold(board: Board, labels: np.ndarray, source: int) -> np.ndarray:
    """Pin these labels for the reason of ``source``; what is left of them is fixed."""
    board.atoms.pin(labels, source)
    return fill(source, labels.shape)


def settle_copies(board: Board, node: NodeLike, tensor: str, summed: Iterable[int]) -> None:
    """Copies of one position (Expand), or constants, along axes that ``node`` does not sum over are no channels.

    Otherwise steps or pixels that something is repeated over would pass for channels, and what the node makes would be
    none. What has met channels is left as it is.
    """
    labels = board.labels.get(tensor)
    if not board.copies or labels is None or apart(board, labels) & {axis % labels.ndim for axis in summed}:
        return
    copies = np.zeros(len(board.atoms), bool)
    copies[np.concatenate(board.copies)] = True
    met = np.zeros(len(copies), bool)
    met[board.atoms.find(np.flatnonzero(~copies))] = True
    inner = core(board.atoms.find(labels))
    inner = inner[inner > 0]
    if inner.size and not met[inner].any():
        source = board.atoms.source(node.name, "they are copies or constants, no channels", wall=False)
        board.write(tensor, hold(board, labels, source))


def respect(board: Board, labels: np.ndarray, stuck: Sequence[np.ndarray]) -> np.ndarray:
    """The labels of an operand that meets fixed ones: it cannot be cut along any axis that a fixed operand has.

    Args:
        board: the analysis.
        labels: labels of one operand.
        stuck: labels of the fixed operands, of the same rank; axes of length 1 are broadcast.
    """
    for other in stuck:
        axes = [axis for axis in varying(labels) if other.shape[axis] > 1]
        kept = together(board, labels, axes)
        labels = hold(board, labels, int(core(other).ravel()[0])) if kept is None else kept
    return labels


def join(board: Board, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Tie two operands position by position, broadcast against each other; the labels of the result."""
    board.atoms.tie(left, right)
    shape = np.broadcast_shapes(left.shape, right.shape)
    a, b = np.broadcast_arrays(core(left), core(right))
    return np.broadcast_to(np.where(a > 0, a, b), shape)
