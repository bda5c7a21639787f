"""Label rules of normalization, pooling and resampling: channels stay apart, their constants go along.

BatchNormalization and InstanceNormalization treat every channel alone. GroupNormalization treats a block of
neighbouring channels together, so blocks go whole: channels of one block are tied and ``num_groups`` falls.
Exporters write the same as Reshape [N, G, -1] -> InstanceNormalization -> Reshape, which needs no rule of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.couple.rule import Rule
from edgepress.ops.couple.sliding import OVER_CHANNELS, slides_over_channels
from edgepress.ops.labels import core, spread, varying


def normalization(board: Board, node: NodeLike) -> str | None:
    """Every channel alone, with its constants."""
    slots = range(1, len(node.inputs))
    parameters = [board.constant(node, slot) for slot in slots]
    if any(values is None for values in parameters):
        return "its parameters are computed, not constant"
    if any(values is not None and values.ndim > 1 for values in parameters):
        return "it has a mean for every position"  # BatchNormalization before version 9, spatial=0
    if node.attributes.get("training_mode", 0) or any(node.outputs[1:]):
        return "it is in training mode"
    apart = set(varying(board.labels[node.inputs[0]]))
    if apart and 1 not in apart:  # they lie along another axis than its constants
        if node.op == "InstanceNormalization" and apart != {0}:
            return "it normalizes over channels, so removing one would change the rest"
        board.write(node.outputs[0], board.labels[node.inputs[0]])
        return None
    labels = board.channels(node.inputs[0], 1)
    for slot in slots:
        board.use(node, slot, 0, labels, "along")
    board.write(node.outputs[0], spread(labels, board.shapes[node.outputs[0]], 1))
    return None


def group_normalization(board: Board, node: NodeLike) -> str | None:
    """Its scale and bias have one entry per block before version 21, and one per channel since."""
    parameters = [board.constant(node, slot) for slot in (1, 2)]
    if any(values is None for values in parameters):
        return "its parameters are computed, not constant"
    labels = board.channels(node.inputs[0], 1)
    blocks = labels.reshape(int(node.attributes["num_groups"]), -1)
    board.atoms.tie(blocks[:, :1], blocks)
    for slot, values in enumerate(parameters, start=1):
        board.use(node, slot, 0, labels if values is not None and len(values) == len(labels) else blocks[:, 0], "along")
    board.write(node.outputs[0], spread(labels, board.shapes[node.outputs[0]], 1))
    return None


def pooling(board: Board, node: NodeLike) -> str | None:
    """Every channel alone, whatever happens to its pixels."""
    if len([name for name in node.outputs if name]) > 1:
        return "it also returns positions, which count channels"
    if slides_over_channels(board, node):
        return OVER_CHANNELS
    labels = board.channels(node.inputs[0], 1)
    board.write(node.outputs[0], spread(labels, board.shapes[node.outputs[0]], 1))
    return None


def resize(board: Board, node: NodeLike) -> str | None:
    """Resize and Upsample: channels may lie on any axis that keeps its size."""
    labels = board.labels.get(node.inputs[0])
    if labels is None:
        return "it resamples a constant"
    shape = board.shapes[node.outputs[0]]
    if any(not _keeps(board, node, axis, labels.shape[axis], shape[axis]) for axis in varying(labels)):
        return "it resizes the axis of the channels"
    board.write(node.outputs[0], np.broadcast_to(core(labels), shape))
    return None


def _keeps(board: Board, node: NodeLike, axis: int, before: int, after: int) -> bool:
    """Whether resampling leaves this axis exactly as it is."""
    if before != after:
        return False
    rank = len(board.shapes[node.inputs[0]])
    axes = [chosen % rank for chosen in node.attributes.get("axes", range(rank))]
    if axis not in axes:
        return True
    if node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return False  # the region of interest may cut into it
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False  # its scale is that of another axis
    scales = _scales(board, node)
    return not scales or scales[axes.index(axis)] == 1


def _scales(board: Board, node: NodeLike) -> Sequence[float]:
    """The scales of Resize and Upsample, old and new form; empty where sizes are given (equal sizes: scale 1)."""
    if "scales" in node.attributes:
        return list(node.attributes["scales"])
    values = board.known(node, 2 if node.op == "Resize" and board.opset >= 11 else 1)
    return [] if values is None else values.ravel().tolist()


def grid_sample(board: Board, node: NodeLike) -> str | None:
    """Every channel is sampled at the same positions; the positions themselves cannot shrink."""
    positions = board.labels.get(node.inputs[1])
    if node.inputs[0] not in board.labels:
        return "it samples a constant"
    if positions is not None:
        board.atoms.pin(positions, board.atoms.source(node.name, "it reads positions from them", wall=True))
    labels = board.channels(node.inputs[0], 1)
    board.write(node.outputs[0], spread(labels, board.shapes[node.outputs[0]], 1))
    return None


def resampling(board: Board, node: NodeLike) -> str | None:
    """Resize, Upsample and GridSample."""
    return grid_sample(board, node) if node.op == "GridSample" else resize(board, node)


RULES: dict[str, Rule] = {
    "normalization": normalization,
    "group_normalization": group_normalization,
    "pooling": pooling,
    "resampling": resampling,
}
