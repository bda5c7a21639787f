"""Last steps: state every tensor's type afresh, and drop what nothing reads.

Rewriting leaves stale ``value_info`` behind, with which onnxruntime may refuse the model; so all of it is cleared and
inferred again, strictly (an operator that contradicts its inputs is an error). Graph outputs keep the types the file
declares, free axes included.
"""

from __future__ import annotations

import onnx

from edgepress import storage
from edgepress.normalize.graph import DEFAULT_DOMAIN, drop_dead_nodes, every_graph, every_node, output_names, reads
from edgepress.ops.inference import infer_shapes


def infer_types(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Replace ``value_info`` by what strict shape inference finds.

    Raises:
        onnx.shape_inference.InferenceError: the operators contradict each other.
    """
    del proto.graph.value_info[:]
    inferred = infer_shapes(storage.outline(proto), check_type=True)
    proto.graph.value_info.extend(inferred.graph.value_info)
    return proto


def remove_unused(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Drop dead nodes, initializers nothing reads, their value_info, and operator sets of domains not in use."""
    graph = proto.graph
    drop_dead_nodes(graph)
    read = output_names(graph).union(*(reads(node) for node in graph.node))
    kept = [item for item in graph.initializer if item.name in read]
    if len(kept) < len(graph.initializer):
        copies = [onnx.TensorProto.FromString(item.SerializeToString()) for item in kept]
        del graph.initializer[:]
        graph.initializer.extend(copies)
    made = {name for part in every_graph(graph) for node in part.node for name in node.output}
    stated = [value for value in graph.value_info if value.name in made]
    del graph.value_info[:]
    graph.value_info.extend(stated)
    domains = {node.domain for node in every_node(proto)} | {function.domain for function in proto.functions}
    imports = [item for item in proto.opset_import if item.domain in DEFAULT_DOMAIN or item.domain in domains]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    return proto
