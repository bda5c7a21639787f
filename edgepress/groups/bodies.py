"""Bodies of If, Loop and Scan: graphs inside a node, which may read any tensor of the graphs around them."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from edgepress.ops.board import NodeLike

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators with bodies."""


def read_inside(node: NodeLike) -> tuple[str, ...]:
    """Tensors of the main graph that the bodies of a node read."""
    if node.op not in CONTROL_FLOW:
        return ()
    graphs = [value for value in node.attributes.values() if isinstance(value, onnx.GraphProto)]
    return tuple(dict.fromkeys(name for graph in graphs for name in free(graph)))


def captured(nodes: Iterable[onnx.NodeProto]) -> tuple[str, ...]:
    """Tensors that these nodes read from outside themselves, through the bodies of If, Loop and Scan too."""
    found: dict[str, None] = {}
    made: set[str] = set()
    for node in nodes:
        for name in (*node.input, *(name for body in bodies(node) for name in free(body))):
            if name and name not in made:
                found[name] = None
        made.update(node.output)
    return tuple(found)


def free(body: onnx.GraphProto) -> tuple[str, ...]:
    """Tensors of the graphs around it that a body reads."""
    own = {value.name for value in body.input} | {item.name for item in body.initializer}
    own |= {item.values.name for item in body.sparse_initializer}
    made = {name for node in body.node for name in node.output}
    read = (*captured(body.node), *(value.name for value in body.output))
    return tuple(dict.fromkeys(name for name in read if name not in own and name not in made))


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs a node carries in its attributes."""
    single = [item.g for item in node.attribute if item.type == onnx.AttributeProto.GRAPH]
    return single + [graph for item in node.attribute for graph in item.graphs]
