"""Step: compute once what depends on constants only.

A node of the main graph is constant when it has inputs, all of them are initializers or made by constant nodes, and it
is deterministic, of the default domain and without subgraphs. All constant nodes are evaluated together by onnxruntime
(without its graph optimizer), and the tensors other nodes read become initializers of the same name.

Guarantees: a node that makes a graph output stays; quantized weights stay quantized; the initializers grow by no more
than :data:`GROWTH_LIMIT` bytes over the constants they replace.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgepress.normalize.graph import (
    DEFAULT_DOMAIN,
    drop_dead_nodes,
    drop_nodes,
    initializers,
    output_names,
    reads,
    set_constant,
    set_nodes,
    subgraphs,
)
from edgepress.normalize.parity import as_bytes
from edgepress.runtime import run, session

GROWTH_LIMIT = 16 * 2**20

RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
NEVER = RANDOM | {"Dropout", "DequantizeLinear"}


def fold_constants(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Replace constant nodes of the main graph by their results.

    Raises:
        ModelError: onnxruntime cannot evaluate one of them.
    """
    positions = _constant_positions(proto.graph)
    frontier = _frontier(proto.graph, positions)
    if not frontier:
        return proto
    values = run(session(as_bytes(_only(proto, positions, frontier)), optimize=False), {})
    kept = _within_limit(proto.graph, positions, values)
    done = {position for position in positions if any(name in kept for name in proto.graph.node[position].output)}
    drop_nodes(proto.graph, done)
    for name in kept:
        set_constant(proto.graph, name, values[name])
    drop_dead_nodes(proto.graph)
    return proto


def is_deterministic(node: onnx.NodeProto) -> bool:
    """Whether equal inputs give equal outputs, as far as the operator's name tells."""
    return node.domain in DEFAULT_DOMAIN and node.op_type not in NEVER and not subgraphs(node)


def _constant_positions(graph: onnx.GraphProto) -> list[int]:
    known = set(initializers(graph))
    kept_outputs = output_names(graph)
    found: list[int] = []
    for position, node in enumerate(graph.node):
        inputs = [name for name in node.input if name]
        if not inputs or not known.issuperset(inputs) or not is_deterministic(node):
            continue
        if kept_outputs.isdisjoint(node.output):
            known.update(node.output)
            found.append(position)
    return found


def _frontier(graph: onnx.GraphProto, positions: list[int]) -> list[str]:
    inside = set(positions)
    made = [name for position in positions for name in graph.node[position].output if name]
    read = {name for position, node in enumerate(graph.node) if position not in inside for name in reads(node)}
    return [name for name in made if name in read]


def _only(proto: onnx.ModelProto, positions: list[int], outputs: list[str]) -> onnx.ModelProto:
    part = onnx.ModelProto(ir_version=max(proto.ir_version, 4))
    part.opset_import.extend(proto.opset_import)
    part.graph.name = "constants"
    set_nodes(part.graph, [proto.graph.node[position] for position in positions])
    wanted = {name for node in part.graph.node for name in node.input}
    part.graph.initializer.extend(item for item in proto.graph.initializer if item.name in wanted)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return part


def _within_limit(graph: onnx.GraphProto, positions: list[int], values: dict[str, np.ndarray]) -> list[str]:
    """The results to keep, in graph order, whole nodes at a time, as long as the file does not grow too much."""
    sizes = {item.name: numpy_helper.to_array(item).nbytes for item in graph.initializer}
    leaves: dict[str, frozenset[str]] = {name: frozenset({name}) for name in sizes}
    kept: list[str] = []
    grown = 0
    for position in positions:
        node = graph.node[position]
        ancestry = frozenset().union(*(leaves[name] for name in node.input if name))
        leaves.update(dict.fromkeys(node.output, ancestry))
        results = [name for name in node.output if name in values]
        growth = sum(values[name].nbytes for name in results) - sum(sizes[name] for name in ancestry)
        if results and grown + max(growth, 0) <= GROWTH_LIMIT:
            grown += max(growth, 0)
            kept += results
    return kept
