"""Label rule of Shape and Size: what they return holds no channels, and reading a width ties nothing.

Where the shape is known, the trace takes their outputs as values (``Board.values``) and this rule is not asked.
"""

from __future__ import annotations

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.couple.rule import Rule
from edgepress.ops.labels import fill


def shape(board: Board, node: NodeLike) -> str | None:
    """Label rule; it never gives up."""
    free = board.atoms.source(node.name, "it is a size, not a channel", wall=False)
    board.write(node.outputs[0], fill(free, board.shapes[node.outputs[0]]))
    return None


RULES: dict[str, Rule] = {"shape": shape}
