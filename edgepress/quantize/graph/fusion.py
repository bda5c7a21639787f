"""Did everything fuse? Compares what a QDQ file asks for with the operators onnxruntime really runs.

A file asks for int8 wherever a Conv, Gemm or MatMul reads dequantized weights. onnxruntime runs it in int8 only if
the pattern around it fuses; otherwise it dequantizes, computes in float, 1.3 to 17 times slower than the float model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx

from edgepress import runtime
from edgepress.ops.row import Role
from edgepress.ops.table import lookup

KERNELS = {"Conv": ("QLinearConv",), "Gemm": ("QGemm", "QLinearMatMul", "MatMulIntegerToFloat")}
"""Int8 kernels of the weighted operators; Gemm and MatMul turn into one another."""
KIND = {"Conv": "Conv", "Gemm": "Gemm", "MatMul": "Gemm"}
MOVED = (Role.JOINED, Role.MAPPED, Role.ALIKE, Role.POOLED)
ENDS = ("Relu", "Clip")


def unfused(model: bytes) -> list[str]:
    """What did not fuse in a QDQ model, one line each; an empty list when all is well.

    Args:
        model: a serialized ModelProto.

    Raises:
        ModelError: onnxruntime cannot load it.
    """
    graph = _Graph(onnx.load_from_string(model))
    seen = runtime.fused_operators(model)
    wanted = Counter(KIND[node.op_type] for node in graph.nodes if graph.reads_int8_weights(node))
    lines = [
        f"{kind}: {wanted[kind] - found} of {wanted[kind]} with int8 weights run in float"
        for kind, kernels in KERNELS.items()
        if (found := sum(seen.get(name, 0) for name in kernels)) < wanted[kind]
    ]
    expected, found = len(list(graph.borders())), seen.get("DequantizeLinear", 0)
    if found > expected:
        lines.append(f"DequantizeLinear: {found} run where {expected} lead to float nodes")
    return lines


def _folded(graph: onnx.GraphProto) -> set[str]:
    """Initializers and what is computed from them alone: stored weights are unpacked when the file is loaded."""
    found = {item.name for item in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" and node.input and found.issuperset(filter(None, node.input)):
            found.update(node.output)
    return found


class _Graph:
    """A graph with what dequantizes what."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self.nodes = list(graph.node)
        self.outputs = [value.name for value in graph.output]
        constants = _folded(graph)
        opening = [node for node in self.nodes if node.op_type == "DequantizeLinear"]
        self.weights = {node.output[0] for node in opening if node.input[0] in constants}
        self.activations = {node.output[0] for node in opening} - self.weights
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def reads_int8_weights(self, node: onnx.NodeProto) -> bool:
        return node.op_type in KIND and node.input[1] in self.weights

    def borders(self) -> Iterator[str]:
        """Dequantized tensors that a float node or the outside reads, once for each reader."""
        yield from (name for name in self.outputs if name in self.activations)
        for node in self.nodes:
            if not self._runs_in_int8(node):
                yield from (name for name in node.input if name in self.activations)

    def _runs_in_int8(self, node: onnx.NodeProto) -> bool:
        if node.op_type in KIND:
            return self.reads_int8_weights(node)
        row = lookup(node.op_type, node.domain, self.opset)
        if row is None or row.role not in MOVED:
            return False
        read = node.input if row.role is Role.JOINED else node.input[:1]
        return self.activations.issuperset(read) and all(self._ends_in_q(name) for name in node.output)

    def _ends_in_q(self, tensor: str) -> bool:
        readers = self.readers.get(tensor, [])
        if len(readers) == 1 and readers[0].op_type in ENDS:
            return self._ends_in_q(readers[0].output[0])
        return bool(readers) and all(node.op_type == "QuantizeLinear" for node in readers)
