"""Whether a window slides over channels: they lie along a spatial axis instead of axis 1.

Efficient channel attention lays the channels of a pooled map along the axis of a one-dimensional convolution. Every
window then mixes neighbouring channels, and none can go alone.
"""

from __future__ import annotations

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.labels import varying

OVER_CHANNELS = "its window slides over channels, so removing one would move its neighbours"


def slides_over_channels(board: Board, node: NodeLike) -> bool:
    """Whether the labels of what enters vary along spatial axes alone."""
    axes = varying(board.labels[node.inputs[0]])
    return bool(axes) and min(axes) > 1
