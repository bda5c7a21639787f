"""Label rules of Conv, ConvTranspose and Gemm: consume labels along the contracted axis, make fresh ones.

A grouped convolution of g blocks, each n channels wide, can shrink in two ways that are exact:

    n >= g   the same index goes in every block: the blocks stay equally wide, g stays
    n < g    whole blocks go, inputs and outputs together: the channels are carried along, g falls

The one with more, smaller pieces is taken: 32 blocks of 4 channels (ResNeXt) are 32 pieces, not 4, and a
depthwise convolution is the case n = 1. ConvTranspose is the same with the weight's axes exchanged.
"""

from __future__ import annotations

import numpy as np

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.couple import ties
from edgepress.ops.couple.rule import Rule
from edgepress.ops.couple.sliding import OVER_CHANNELS, slides_over_channels
from edgepress.ops.labels import spread


def conv(board: Board, node: NodeLike) -> str | None:
    """Weight [outputs, inputs / blocks, ...]."""
    weight = _weight(board, node)
    if weight is None:
        return "its weights are computed, not constant"
    ties.settle_copies(board, node, node.inputs[0], [1])
    if slides_over_channels(board, node):
        return OVER_CHANNELS
    blocks = _blocks(board, node, weight.shape[1])
    each = weight.shape[0] // len(blocks)
    if _goes_by_blocks(blocks):
        leaving = np.repeat(blocks[:, 0], each)
        board.use(node, 1, 0, leaving, "along")
    else:
        board.use(node, 1, 1, blocks[0], "in")
        leaving = np.tile(board.atoms.fresh(each), len(blocks))
        board.use(node, 1, 0, leaving, "out")
    _leave(board, node, leaving)
    return None


def conv_transpose(board: Board, node: NodeLike) -> str | None:
    """Weight [inputs, outputs / blocks, ...]."""
    weight = _weight(board, node)
    if weight is None:
        return "its weights are computed, not constant"
    ties.settle_copies(board, node, node.inputs[0], [1])
    if slides_over_channels(board, node):
        return OVER_CHANNELS
    blocks = _blocks(board, node, weight.shape[0] // int(node.attributes.get("group", 1)))
    if _goes_by_blocks(blocks):
        board.use(node, 1, 0, blocks.ravel(), "along")
        leaving = np.repeat(blocks[:, 0], weight.shape[1])
    else:
        board.use(node, 1, 0, blocks.ravel(), "in")
        fresh = board.atoms.fresh(weight.shape[1])
        board.use(node, 1, 1, fresh, "out")
        leaving = np.tile(fresh, len(blocks))
    _leave(board, node, leaving)
    return None


def _weight(board: Board, node: NodeLike) -> np.ndarray | None:
    """The filters; None unless they and the bias are constant."""
    if board.given(node, 2) and board.constant(node, 2) is None:
        return None
    return board.constant(node, 1)


def _goes_by_blocks(blocks: np.ndarray) -> bool:
    return len(blocks) > len(blocks[0])


def _blocks(board: Board, node: NodeLike, width: int) -> np.ndarray:
    """Labels of what enters, [blocks, width], tied as the module says."""
    blocks = board.channels(node.inputs[0], 1).reshape(-1, width)
    board.atoms.tie(blocks[:, :1] if _goes_by_blocks(blocks) else blocks[:1], blocks)
    return blocks


def _leave(board: Board, node: NodeLike, leaving: np.ndarray) -> None:
    """Carry the bias along and write what leaves."""
    if board.given(node, 2):
        board.use(node, 2, 0, leaving, "along")
    board.write(node.outputs[0], spread(leaving, board.shapes[node.outputs[0]], 1))


def gemm(board: Board, node: NodeLike) -> str | None:
    """A matrix from the right and a bias that broadcasts; either factor may be transposed."""
    weight, bias = board.constant(node, 1), board.constant(node, 2)
    if weight is None or (board.given(node, 2) and bias is None):
        return "its weights are computed, not constant"
    contracted = 0 if node.attributes.get("transA", 0) else 1
    ties.settle_copies(board, node, node.inputs[0], [contracted])
    into, out_of = (1, 0) if node.attributes.get("transB", 0) else (0, 1)
    board.use(node, 1, into, board.channels(node.inputs[0], contracted), "in")
    leaving = board.atoms.fresh(weight.shape[out_of])
    board.use(node, 1, out_of, leaving, "out")
    if bias is not None and bias.ndim and bias.shape[-1] > 1:
        board.use(node, 2, bias.ndim - 1, leaving, "along")
    board.write(node.outputs[0], spread(leaving, board.shapes[node.outputs[0]], 1))
    return None


RULES: dict[str, Rule] = {"conv": conv, "conv_transpose": conv_transpose, "gemm": gemm}
