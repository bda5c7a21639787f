"""What a label rule is."""

from __future__ import annotations

from collections.abc import Callable

from edgepress.ops.board import Board, NodeLike

Rule = Callable[[Board, NodeLike], str | None]
"""Reads the labels of a node's inputs from the board, writes those of its outputs; or changes nothing, says why."""
