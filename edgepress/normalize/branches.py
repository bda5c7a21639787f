"""Step: an If whose condition is constant becomes the branch it takes.

Exporters leave such conditions behind where they could not see a size (a squeeze of an axis that is always 1). What
the branch computes is folded like everything else afterwards.

A branch with control flow inside stays as it is; so does an If that makes a graph output.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from edgepress.errors import Refusal
from edgepress.normalize import constants, passthrough, shapes
from edgepress.normalize.feeds import Feed
from edgepress.normalize.flatten import hoist_constants, name_nodes
from edgepress.normalize.graph import DEFAULT_DOMAIN, attributes, fresh, initializers, names_in_use, subgraphs


def take_branches(proto: onnx.ModelProto, samples: Sequence[Feed]) -> onnx.ModelProto | Refusal:
    """Replace every If with a constant condition by its branch, and fold what that makes constant.

    Raises:
        ModelError: as the folding steps do.
    """
    while (position := _decided(proto.graph)) is not None:
        _inline(proto.graph, position)
        proto = passthrough.remove_passthrough(name_nodes(hoist_constants(proto)))
        folded = shapes.fold_shapes(constants.fold_constants(proto), samples)
        if isinstance(folded, Refusal):
            return folded
        proto = folded
    return proto


def _decided(graph: onnx.GraphProto) -> int | None:
    """Position of the first If whose branch is known and simple."""
    known = initializers(graph)
    for position, node in enumerate(graph.node):
        if node.op_type == "If" and node.domain in DEFAULT_DOMAIN and node.input[0] in known:
            branch = _branch(graph, node)
            inside = {name for inner in branch.node for name in inner.output}
            named = {value.name for value in branch.output}
            plain = not any(subgraphs(inner) for inner in branch.node) and not branch.sparse_initializer
            if plain and len(named) == len(branch.output) and named <= inside:
                return position
    return None


def _branch(graph: onnx.GraphProto, node: onnx.NodeProto) -> onnx.GraphProto:
    taken = bool(np.all(numpy_helper.to_array(initializers(graph)[node.input[0]])))
    branch: onnx.GraphProto = attributes(node)["then_branch" if taken else "else_branch"]
    return branch


def _inline(graph: onnx.GraphProto, position: int) -> None:
    """Put the nodes and constants of the branch in the place of the If, under names of their own."""
    node = onnx.NodeProto()
    node.CopyFrom(graph.node[position])
    branch = _branch(graph, node)
    taken = names_in_use(graph)
    renamed = {inner.name: outer for inner, outer in zip(branch.output, node.output, strict=True) if outer}
    made = [item.name for item in branch.initializer] + [name for inner in branch.node for name in inner.output if name]
    for name in made:
        if name not in renamed:
            renamed[name] = fresh(f"{node.name}/{name}", taken)
            taken.add(renamed[name])
    for item in branch.initializer:
        graph.initializer.add().CopyFrom(item)
        graph.initializer[-1].name = renamed[item.name]
    nodes = [_renamed(inner, renamed) for inner in branch.node]
    after = [onnx.NodeProto.FromString(other.SerializeToString()) for other in graph.node[position + 1 :]]
    del graph.node[position:]
    graph.node.extend([*nodes, *after])


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.input[:] = [names.get(name, name) for name in node.input]
    made.output[:] = [names.get(name, name) for name in node.output]
    return made
