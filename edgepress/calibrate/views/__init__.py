"""Nodes seen as linear operators: the view in which statistics are gathered and weights are refitted.

    parts(model, node)   the linear operators of a node, or why it has none

What is a part is said in :mod:`edgepress.calibrate.views.part`; which operators have some in
:mod:`edgepress.calibrate.views.build`.
"""

from __future__ import annotations

from edgepress.calibrate.views.build import BUILDERS
from edgepress.calibrate.views.part import Arrays, Geometry, Part
from edgepress.calibrate.views.source import Source
from edgepress.errors import Refusal
from edgepress.model import Model, Node

__all__ = ["Arrays", "Geometry", "Part", "Source", "parts"]


def parts(model: Model, node: Node) -> tuple[Part, ...] | Refusal:
    """The linear operators of a node with constant weights; a Refusal that names the node where it has none."""
    builder = None if node.domain else BUILDERS.get(node.op)
    if builder is None:
        return Refusal(node.name, f"{node.op} is not a linear operator with constant weights")
    found = builder(model, node)
    if isinstance(found, str):
        return Refusal(node.name, found)
    if any(name in model.constants for part in found for name in part.geometry.tensors):
        return Refusal(node.name, "it reads constants only")
    return found
