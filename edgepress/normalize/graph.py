"""Small tools on ONNX protos that the normalization steps share.

Every function that changes a proto says so in its name (``set_``, ``drop_``, ``rename_``) and is called on the
private copy a step was given. Subgraphs (If, Loop, Scan) read tensors of the outer graph by name; a node with
subgraphs therefore counts as a reader of every name its subgraphs mention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

DEFAULT_DOMAIN = ("", "ai.onnx")


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs a node carries in its attributes."""
    single = [item.g for item in node.attribute if item.type == onnx.AttributeProto.GRAPH]
    return single + [graph for item in node.attribute for graph in item.graphs]


def every_graph(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and all graphs inside it."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from every_graph(inner)


def every_node(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a model: main graph, subgraphs and local functions."""
    for graph in every_graph(proto.graph):
        yield from graph.node
    for function in proto.functions:
        for node in function.node:
            yield node
            for inner in subgraphs(node):
                yield from (found for graph in every_graph(inner) for found in graph.node)


def reads(node: onnx.NodeProto) -> set[str]:
    """Names of the tensors a node may read, those its subgraphs mention included."""
    names = {name for name in node.input if name}
    for inner in subgraphs(node):
        for graph in every_graph(inner):
            names.update(value.name for value in graph.output)
            names.update(name for found in graph.node for name in found.input if name)
    return names


def read_inside(graph: onnx.GraphProto) -> set[str]:
    """Names that bodies of control flow read: nothing may rename or remove what makes them."""
    held = (node for node in graph.node if subgraphs(node))
    return {name for node in held for name in reads(node)}


def readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Which nodes read a tensor, once per node, in graph order."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in sorted(reads(node)):
            found.setdefault(name, []).append(node)
    return found


def output_names(graph: onnx.GraphProto) -> set[str]:
    """Names of the graph outputs."""
    return {value.name for value in graph.output}


def initializers(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Initializers by name."""
    return {item.name: item for item in graph.initializer}


def opset(proto: onnx.ModelProto) -> int:
    """Version of the default operator set (1 when the file does not say)."""
    return next((int(item.version) for item in proto.opset_import if item.domain in DEFAULT_DOMAIN), 1)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attribute values by name, as ``onnx.helper`` decodes them."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def drop_attribute(node: onnx.NodeProto, name: str) -> None:
    """Remove an attribute if it is there."""
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Set an attribute, replacing the old value."""
    drop_attribute(node, name)
    node.attribute.append(helper.make_attribute(name, value))


def set_constant(graph: onnx.GraphProto, name: str, array: np.ndarray) -> None:
    """Make ``name`` an initializer with that value, replacing one of the same name."""
    made = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
    for item in graph.initializer:
        if item.name == name:
            item.CopyFrom(made)
            return
    graph.initializer.append(made)


def drop_nodes(graph: onnx.GraphProto, positions: set[int]) -> None:
    """Remove the nodes at these positions."""
    kept = [node for position, node in enumerate(graph.node) if position not in positions]
    set_nodes(graph, kept)


def set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace the node list (``nodes`` may hold nodes of the same graph)."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def drop_dead_nodes(graph: onnx.GraphProto) -> None:
    """Remove nodes that no graph output depends on."""
    needed = output_names(graph)
    dead: set[int] = set()
    for position in reversed(range(len(graph.node))):
        node = graph.node[position]
        if needed.isdisjoint(name for name in node.output if name):
            dead.add(position)
        else:
            needed |= reads(node)
    if dead:
        drop_nodes(graph, dead)


def rename_reads(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    """Let nodes of the main graph read other tensors (subgraphs are not looked into)."""
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in renamed:
                node.input[position] = renamed[name]


def names_in_use(graph: onnx.GraphProto) -> set[str]:
    """Every tensor name the graph and its subgraphs use."""
    found: set[str] = set()
    for part in every_graph(graph):
        found.update(value.name for value in (*part.input, *part.output, *part.value_info))
        found.update(item.name for item in part.initializer)
        found.update(item.values.name for item in part.sparse_initializer)
        found.update(name for node in part.node for name in (*node.input, *node.output))
    return found


def fresh(wanted: str, taken: set[str]) -> str:
    """``wanted``, or ``wanted_2``, ``wanted_3``, ...: the first one that is not taken."""
    if wanted not in taken:
        return wanted
    number = 2
    while f"{wanted}_{number}" in taken:
        number += 1
    return f"{wanted}_{number}"
