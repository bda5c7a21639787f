"""Steps that make a model flat: sorted, no local functions, no sparse weights, no Constant nodes, every node named.

None of them changes a number. They hold for models with subgraphs too: only the main graph is rewritten, and
initializers of the main graph are visible inside subgraphs just as Constant outputs are.
"""

from __future__ import annotations

from graphlib import TopologicalSorter

import numpy as np
import onnx
from onnx import inliner, numpy_helper

from edgepress import storage
from edgepress.normalize.graph import (
    DEFAULT_DOMAIN,
    attributes,
    drop_nodes,
    every_graph,
    output_names,
    reads,
    set_constant,
)

FIRST_IR_WITH_FREE_INITIALIZERS = 4


def inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Replace calls of model-local functions by their bodies (``onnx.inliner``)."""
    if not proto.functions:
        return proto
    return storage.lightly(lambda light: inliner.inline_local_functions(light, convert_version=True), proto)


def sort_nodes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Put every node behind those whose outputs it reads, as ONNX wants; onnxruntime loads unsorted files, too."""
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in proto.graph.node]
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    before = {place: sorted({makers[name] for name in reads(node) & makers.keys()}) for place, node in enumerate(nodes)}
    if any(place <= last for place, first in before.items() for last in first[-1:]):
        del proto.graph.node[:]
        proto.graph.node.extend(nodes[place] for place in TopologicalSorter(before).static_order())
    return proto


def densify(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Turn sparse initializers into ordinary ones."""
    graph = proto.graph
    for item in graph.sparse_initializer:
        set_constant(graph, item.values.name, dense(item))
    del graph.sparse_initializer[:]
    return proto


def dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """A sparse tensor as a full array; indices are linear ``[n]`` or coordinates ``[n, rank]``."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    full = np.zeros(tuple(sparse.dims), values.dtype)
    where = np.unravel_index(indices, full.shape) if indices.ndim == 1 else tuple(indices.T)
    full[where] = values
    return full


def separate_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take initializers out of the graph inputs (files of IR 3 must list them there, later ones may)."""
    graph = proto.graph
    weights = {item.name for item in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) < len(graph.input):
        del graph.input[:]
        graph.input.extend(inputs)
        proto.ir_version = max(proto.ir_version, FIRST_IR_WITH_FREE_INITIALIZERS)
    return proto


def hoist_constants(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Turn Constant nodes into initializers named after their output; one that makes a graph output stays."""
    graph = proto.graph
    kept_outputs = output_names(graph)
    hoisted: set[int] = set()
    for position, node in enumerate(graph.node):
        if node.op_type != "Constant" or node.domain not in DEFAULT_DOMAIN or node.output[0] in kept_outputs:
            continue
        made = constant_value(node)
        made.name = node.output[0]
        graph.initializer.append(made)
        hoisted.add(position)
    if hoisted:
        drop_nodes(graph, hoisted)
        proto.ir_version = max(proto.ir_version, FIRST_IR_WITH_FREE_INITIALIZERS)
    return proto


def constant_value(node: onnx.NodeProto) -> onnx.TensorProto:
    """The value of a Constant node, whichever of its attributes holds it.

    Raises:
        onnx.checker.ValidationError: the node holds no value.
    """
    values = attributes(node)
    made = onnx.TensorProto()
    if "value" in values:
        made.CopyFrom(values["value"])
        return made
    if "sparse_value" in values:
        return numpy_helper.from_array(dense(values["sparse_value"]))
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64), ("value_string", np.object_)):
        for key in (name, f"{name}s"):
            if key in values:
                return numpy_helper.from_array(np.array(values[key], dtype))
    raise onnx.checker.ValidationError(f"Constant node {node.name!r} holds no value.")


def name_nodes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give every node of the main graph a name of its own, ``<Op>_<n>``; the first holder of a name keeps it."""
    inner = (node.name for part in every_graph(proto.graph) if part is not proto.graph for node in part.node)
    reserved = {*inner, *(node.name for node in proto.graph.node)}
    seen = {""}
    for position, node in enumerate(proto.graph.node):
        if node.name in seen:
            number = position
            while f"{node.op_type}_{number}" in reserved:
                number += len(proto.graph.node)
            node.name = f"{node.op_type}_{number}"
            reserved.add(node.name)
        seen.add(node.name)
    return proto
