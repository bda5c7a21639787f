"""Step: remove nodes that hand their input on unchanged: Identity, and Dropout in inference mode.

Graph outputs keep their names: where the removed node makes one, the producer takes over that name. A node
between a graph input (or a weight) and a graph output stays, because there is no producer to rename.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgepress.normalize.graph import (
    DEFAULT_DOMAIN,
    drop_nodes,
    initializers,
    opset,
    output_names,
    read_inside,
    readers,
    rename_reads,
)

FIRST_OPSET_WITH_INFERENCE_DROPOUT = 7


def remove_passthrough(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Remove Identity and inference-mode Dropout nodes; what bodies of control flow read keeps its name."""
    graph = proto.graph
    forward: dict[str, str] = {}
    removed = {position for position, node in enumerate(graph.node) if _passes(proto, node)}
    kept_outputs = output_names(graph)
    inside = read_inside(graph)
    produced = {name for position, node in enumerate(graph.node) if position not in removed for name in node.output}
    renamed: dict[str, str] = {}
    for position in sorted(removed):
        node = graph.node[position]
        source = forward.get(node.input[0], node.input[0])
        if node.output[0] in inside:
            removed.discard(position)
        elif node.output[0] not in kept_outputs:
            forward[node.output[0]] = source
        elif source in produced and source not in kept_outputs | inside and source not in renamed:
            renamed[source] = node.output[0]
        else:
            removed.discard(position)
    forward = {name: renamed.get(source, source) for name, source in forward.items()}
    drop_nodes(graph, removed)
    for node in graph.node:
        for position, name in enumerate(node.output):
            node.output[position] = renamed.get(name, name)
    rename_reads(graph, {**renamed, **forward})
    return proto


def _passes(proto: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    if node.domain not in DEFAULT_DOMAIN:
        return False
    return node.op_type == "Identity" or (node.op_type == "Dropout" and _infers(proto, node))


def _infers(proto: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    if opset(proto) < FIRST_OPSET_WITH_INFERENCE_DROPOUT:
        return False
    mask = node.output[1] if len(node.output) > 1 else ""
    if mask and (mask in output_names(proto.graph) or readers(proto.graph).get(mask)):
        return False
    training = node.input[2] if len(node.input) > 2 else ""
    if not training:
        return True
    flag = initializers(proto.graph).get(training)
    return flag is not None and not np.any(numpy_helper.to_array(flag))
