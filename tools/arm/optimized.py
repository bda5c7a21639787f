"""The graph onnxruntime really runs: its operators, and which of them compute in float.

A network is *all integer* if its floats are at its borders only: QuantizeLinear reads what comes from a graph input,
and DequantizeLinear, or a product that scales its sums itself (QGemm), makes what goes to a graph output. What moves
values without computing (Reshape, Transpose, ...) is neither. Integer sums are exact in any order; the float steps
inside an operator (scaling its sums, joining two inputs) are taken value by value, so that cores of one instruction set
take the same ones. x64 may take others: QLinearAdd rounds a sum next to a half another way there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

MOVES = frozenset(
    ("Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose")
) | {"DepthToSpace", "SpaceToDepth", "Unsqueeze"}
"""Operators that copy values; whatever the type, no bit of them changes."""

FLOATS = frozenset(f"tensor({name})" for name in ("float", "float16", "double", "bfloat16"))


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """How often every operator is there."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


def exposed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every tensor as a graph output; onnxruntime fills in what type it has."""
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    known = {value.name for value in wider.graph.output}
    made = [name for node in model.graph.node for name in node.output if name and name not in known]
    wider.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    return wider


def float_operators(model: onnx.ModelProto, types: Mapping[str, str]) -> dict[str, int]:
    """Operators that compute in float or convert inside the network, and how often; empty if all is integer.

    Args:
        model: the optimized graph.
        types: the type of every tensor a node makes, as onnxruntime names it (``tensor(uint8)``).
    """
    graph = _Graph(model, types)
    return dict(sorted(Counter(node.op_type for node in model.graph.node if graph.computes_in_float(node)).items()))


def first_difference(model: onnx.ModelProto, some: Mapping[str, str], others: Mapping[str, str]) -> str | None:
    """The first node, in graph order, one of whose outputs has another hash in ``others``; None if there is none."""
    for node in model.graph.node:
        if any(name and some[name] != others[name] for name in node.output):
            return f"{node.op_type} {node.name or node.output[0]}"
    return None


def step(model: onnx.ModelProto, output: str) -> float | None:
    """By how much neighbouring values of a graph output differ, if a DequantizeLinear with one scale makes it."""
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if output in node.output and node.op_type == "DequantizeLinear" and node.input[1] in constants:
            scale = numpy_helper.to_array(constants[node.input[1]])
            return float(np.ravel(scale)[0]) if scale.size == 1 else None
    return None


class _Graph:
    """A graph with the types of its tensors and who reads them."""

    def __init__(self, model: onnx.ModelProto, types: Mapping[str, str]) -> None:
        graph = model.graph
        name_of = onnx.TensorProto.DataType.Name
        inputs = {value.name: f"tensor({name_of(value.type.tensor_type.elem_type).lower()})" for value in graph.input}
        self.types = {**inputs, **types}
        self.raw = set(inputs)  # what comes from outside, moved at most
        for node in graph.node:
            if node.op_type in MOVES and self.raw.issuperset(self._read(node)):
                self.raw.update(node.output)
        self.final = {value.name for value in graph.output}  # what goes outside, moved at most
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        for node in reversed(graph.node):
            for name in node.output:
                after = readers.get(name, [])
                moved = all(reader.op_type in MOVES and self.final.issuperset(reader.output) for reader in after)
                if (after or name in self.final) and moved:
                    self.final.add(name)
                else:
                    self.final.discard(name)

    def computes_in_float(self, node: onnx.NodeProto) -> bool:
        if any(entry.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for entry in node.attribute):
            return True  # a body is not looked into
        read, made = self._floats(self._read(node)), self._floats(name for name in node.output if name)
        if node.op_type in MOVES or not (read or made):
            return False
        if node.op_type == "QuantizeLinear":
            return not self.raw.issuperset(read)
        return bool(read) or not self.final.issuperset(made)

    def _read(self, node: onnx.NodeProto) -> list[str]:
        """What a node reads that is no constant: scales, weights and biases are left out."""
        return [name for name in node.input if name in self.types]

    def _floats(self, names: Iterator[str] | list[str]) -> list[str]:
        return [name for name in names if self.types[name] in FLOATS]
