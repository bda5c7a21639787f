"""The graph onnxruntime really runs: which of its operators compute in float, and what that means for each output.

A network is *all integer* if its floats are at its borders only: QuantizeLinear reads what comes from a graph input,
and DequantizeLinear, or a product that scales its sums itself (QGemm), makes what goes to a graph output. What moves
values without computing (Reshape, Transpose, ...) is neither. Integer sums are exact in any order; the float steps
inside an operator (scaling its sums, joining two inputs) are taken value by value, so that cores of one instruction set
take the same ones. x64 may take others: QLinearAdd rounds a sum next to a half another way there. So an output is
*exact* if all it depends on is integer and of operators that were seen to agree between x64 and ARM, bit by bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from edgepress.normalize.graph import subgraphs
from edgepress.storage import read_names

MOVES = frozenset(
    ("Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose")
) | {"DepthToSpace", "SpaceToDepth", "Unsqueeze"}
"""Operators that copy values; whatever the type, no bit of them changes."""

FLOATS = frozenset(f"tensor({name})" for name in ("float", "float16", "double", "bfloat16"))
HALVES = frozenset(("tensor(float16)", "tensor(bfloat16)"))

AGREEING = frozenset(("QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMatMul"))
"""Operators of scaled integers with the same bits on x64 and every ARM core (``tools/arm/identical.py`` shows it)."""

_QUANTIZED = ("QLinear", "Quantize", "Dequantize", "QGemm", "QAttention", "Integer", "NBits")


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
    graph = Graph(model, types)
    return _counted(node for node in model.graph.node if graph.computes_in_float(node))


def step(model: onnx.ModelProto, output: str) -> float | None:
    """By how much neighbouring values of a graph output differ, if a DequantizeLinear with one scale makes it."""
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if output in node.output and node.op_type == "DequantizeLinear" and node.input[1] in constants:
            scale = numpy_helper.to_array(constants[node.input[1]])
            return float(np.ravel(scale)[0]) if scale.size == 1 else None
    return None


class Graph:
    """An optimized graph with the types of its tensors and who makes and reads them."""

    def __init__(self, model: onnx.ModelProto, types: Mapping[str, str]) -> None:
        """Look at a graph; ``types`` as for :func:`float_operators`."""
        graph = model.graph
        name_of = onnx.TensorProto.DataType.Name
        inputs = {value.name: f"tensor({name_of(value.type.tensor_type.elem_type).lower()})" for value in graph.input}
        self.types = {**inputs, **types}
        self._makers = {name: node for node in graph.node for name in node.output if name}
        self._raw = set(inputs)  # what comes from outside, moved at most
        for node in graph.node:
            if node.op_type in MOVES and self._raw.issuperset(self._read(node)):
                self._raw.update(node.output)
        self._final = {value.name for value in graph.output}  # what goes outside, moved at most
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        for node in reversed(graph.node):
            for name in node.output:
                after = readers.get(name, [])
                moved = all(reader.op_type in MOVES and self._final.issuperset(reader.output) for reader in after)
                if (after or name in self._final) and moved:
                    self._final.add(name)
                else:
                    self._final.discard(name)

    def computes_in_float(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes in float, or converts inside the network."""
        if any(subgraphs(node)):
            return True  # what a body computes is not looked into
        read, made = self._floats(self._read(node)), self._floats(name for name in node.output if name)
        if node.op_type in MOVES or not (read or made):
            return False
        if node.op_type == "QuantizeLinear":
            return not self._raw.issuperset(read)
        return bool(read) or not self._final.issuperset(made)

    def behind(self, output: str) -> list[onnx.NodeProto]:
        """Every node that a tensor depends on."""
        found: dict[str, onnx.NodeProto] = {}
        waiting = [output]
        while waiting:
            node = self._makers.get(waiting.pop())
            if node is not None and (key := "\0".join(node.output)) not in found:
                found[key] = node
                waiting.extend(node.input)
                for body in subgraphs(node):
                    waiting.extend(read_names(body))  # bodies may read what is outside of them
        return list(found.values())

    def inexact(self, output: str) -> dict[str, int]:
        """Operators behind an output that other CPUs may round otherwise, and how often; empty if it is exact."""
        return _counted(
            node for node in self.behind(output) if self.computes_in_float(node) or _rounds_its_own_way(node)
        )

    def quantized(self, output: str) -> bool:
        """Whether an operator behind an output rounds to integers: a value next to a half may go either way."""
        return any(map(_quantizes, self.behind(output)))

    def rounded(self, output: str) -> bool:
        """Whether an output of integers is made by rounding or cutting off, so that neighbours are near each other."""
        node = self._makers.get(output)
        while node is not None and (node.op_type in MOVES or self._casts_integers(node)):
            node = self._makers.get(node.input[0])
        return node is not None and (node.op_type == "Cast" or _quantizes(node))

    def half(self, output: str) -> bool:
        """Whether something behind an output is of half precision."""
        names = (name for node in self.behind(output) for name in (*node.input, *node.output))
        return any(self.types.get(name) in HALVES for name in names)

    def _casts_integers(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "Cast" and not self._floats(self._read(node))

    def _read(self, node: onnx.NodeProto) -> list[str]:
        """What a node reads that is no constant: scales, weights and biases are left out."""
        return [name for name in node.input if name in self.types]

    def _floats(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self.types[name] in FLOATS]


def _rounds_its_own_way(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("QLinear") and node.op_type not in AGREEING


def _quantizes(node: onnx.NodeProto) -> bool:
    """Whether a node, or one in a body of it, rounds to integers."""
    inside = (inner for body in subgraphs(node) for inner in body.node)
    return any(word in node.op_type for word in _QUANTIZED) or any(map(_quantizes, inside))


def _counted(nodes: Iterable[onnx.NodeProto]) -> dict[str, int]:
    return dict(sorted(Counter(node.op_type for node in nodes).items()))
