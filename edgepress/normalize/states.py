"""Step: a recurrence that starts from zeros starts from nothing, which means the same.

LSTM, GRU and RNN start from zeros where ``initial_h`` and ``initial_c`` are left out. Exporters write the zeros all the
same: one tensor, filled at run time to the size of the batch, and a slice of it for every layer. It would tie the
hidden units of layers that have nothing to do with each other.

Guarantees: only what is zero for every input is taken away: constants of zeros, ConstantOfShape of zero, and whatever
operators that only move values make of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import numpy_helper

from edgepress.normalize.graph import DEFAULT_DOMAIN, attributes, drop_dead_nodes, initializers

RECURRENT = ("LSTM", "GRU", "RNN")
STATES = (5, 6)
"""Places of the states among the inputs."""

MOVING = frozenset(
    {"Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose"}
)
MOVING |= {"Unsqueeze"}
"""Operators whose outputs hold nothing but values of their first input."""


def drop_zero_states(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Leave out the states of recurrent operators that are zero."""
    graph = proto.graph
    constants = initializers(graph)
    makers = {name: node for node in graph.node for name in node.output if name}
    for node in graph.node:
        if node.op_type not in RECURRENT or node.domain not in DEFAULT_DOMAIN:
            continue
        inputs = list(node.input)
        for slot in STATES:
            if slot < len(inputs) and _is_zero(inputs[slot], makers, constants):
                inputs[slot] = ""
        if inputs != list(node.input):
            node.input[:] = inputs[: max(slot for slot, name in enumerate(inputs, 1) if name)]
    drop_dead_nodes(graph)
    return proto


def _is_zero(name: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a tensor is zero everywhere, whatever the inputs of the model."""
    if name in constants:
        return not numpy_helper.to_array(constants[name]).any()
    node = makers.get(name)
    if node is None or node.domain not in DEFAULT_DOMAIN:
        return False
    if node.op_type == "ConstantOfShape":
        value = attributes(node).get("value")
        return value is None or not numpy_helper.to_array(value).any()
    if node.op_type == "Concat":
        return all(_is_zero(part, makers, constants) for part in node.input)
    return node.op_type in MOVING and _is_zero(node.input[0], makers, constants)
