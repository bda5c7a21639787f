"""The same graph in the operator set and IR version that an older onnxruntime loads.

    set = max over nodes of oldest(node)          (``versions``), at least 13, never newer than that of the file
    IR  = min(IR of the file, IR of the release)

The oldest set is taken even where the release loads a newer one, because it has the kernels of old definitions: 1.15
loads operator set 19 and has no kernel of it, 1.22 to 1.24 average some padded windows of AveragePool 19 wrongly, and
none of 11. Guarantees: the nodes compute what they computed, in the same order under the same names, here bit by bit
(AveragePool adds up in another order from 19 on); what the release does not have is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnx import defs, helper

from edgepress.errors import Refusal
from edgepress.model import Model
from edgepress.normalize.graph import DEFAULT_DOMAIN, every_graph, every_node, subgraphs
from edgepress.quantize.graph.versions import OLDEST, Site, older, oldest
from edgepress.targets.releases import BIASED4, RELEASES, Release

CONTRIBUTED: Mapping[str, tuple[int, int]] = {
    "BiasGelu": (1, 15),
    "DynamicQuantizeLSTM": (1, 15),
    "FastGelu": (1, 15),
    "FusedMatMul": (1, 15),
    "Gelu": (1, 15),
    "GroupQueryAttention": (1, 24),
    "MatMulNBits": BIASED4,
    "MultiHeadAttention": (1, 21),
    "QuickGelu": (1, 15),
    "RotaryEmbedding": (1, 17),
    "SimplifiedLayerNormalization": (1, 15),
    "SkipLayerNormalization": (1, 15),
    "SkipSimplifiedLayerNormalization": (1, 20),
}
"""Operators of onnxruntime itself: the first release (of those that can be tried, 1.15 on) in which all that edgepress
knows of them gives the answers of 1.31."""

KERNELS: Mapping[tuple[int, int], int] = {(1, 15): 18}
"""Releases that load a newer operator set than they have kernels of: the newest one with its kernels."""


def lowered(model: Model, runtime: Release) -> Model | Refusal:
    """The model as a release of onnxruntime loads it.

    Args:
        model: the model.
        runtime: the release.

    Returns:
        The model, or a refusal that names the node and the release it needs.
    """
    proto = model.edit()
    problem = _contributed(proto, runtime)
    if problem is not None:
        return problem
    if proto.functions:
        return Refusal("the model", "it holds local functions, which keep the operator set they were written in")
    needs = _needs(proto, model.opset)
    version = min(model.opset, max([OLDEST, *(need for _, need in needs)]))
    if version > _newest(runtime):
        node = next(node for node, need in needs if need >= version)
        return _refusal(node, f"as it is used needs operator set {version}", _first(version))
    _declare(proto, version, min(model.ir_version, runtime.ir))
    return Model.of(proto)


def _newest(runtime: Release) -> int:
    return KERNELS.get(runtime.version, runtime.opset)


def _refusal(node: onnx.NodeProto, needs: str, first: Release | None) -> Refusal:
    named = "which no release that is known has" if first is None else f"which onnxruntime has from {first} on"
    return Refusal(node.name or node.output[0], f"{node.op_type} {needs}, {named}")


def _first(version: int) -> Release | None:
    return next((known for known in RELEASES if _newest(known) >= version), None)


def _contributed(proto: onnx.ModelProto, runtime: Release) -> Refusal | None:
    """The first operator of onnxruntime's own that the release lacks."""
    for node in every_node(proto):
        if _is_standard(node):
            continue
        first = CONTRIBUTED.get(node.op_type)
        if first is None:
            return Refusal(node.name or node.output[0], f"it is not known which onnxruntime has a {node.op_type}")
        if runtime.version < first:
            return _refusal(
                node, "is an operator of its own", next(known for known in RELEASES if known.version == first)
            )
    return None


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in DEFAULT_DOMAIN and defs.has(node.op_type, "")


def _needs(proto: onnx.ModelProto, version: int) -> list[tuple[onnx.NodeProto, int]]:
    """The nodes of a model, those of bodies included, and the oldest operator set each may be written in."""
    inferred = onnx.shape_inference.infer_shapes(Model.of(proto).outline())
    return [(site.node, oldest(site, version)) for site in _sites(inferred.graph, {}, {}) if _is_standard(site.node)]


def _sites(graph: onnx.GraphProto, types: Mapping[str, str], ranks: Mapping[str, int]) -> Iterator[Site]:
    """Every node of a graph and of the bodies inside it, with what is known of the tensors it may see."""
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {**types, **{value.name: _type(value) for value in values if value.type.WhichOneof("value")}}
    types |= {item.name: _tensor(item.data_type) for item in graph.initializer}
    shaped = (value for value in values if value.type.tensor_type.HasField("shape"))
    ranks = {**ranks, **{value.name: len(value.type.tensor_type.shape.dim) for value in shaped}}
    ranks |= {item.name: len(item.dims) for item in graph.initializer}
    for node in graph.node:
        yield Site(node, types, ranks)
        for inner in subgraphs(node):
            yield from _sites(inner, types, ranks)


def _type(value: onnx.ValueInfoProto) -> str:
    kind = value.type.WhichOneof("value")
    return _tensor(value.type.tensor_type.elem_type) if kind == "tensor_type" else str(kind)


def _tensor(code: int) -> str:
    return f"tensor({onnx.TensorProto.DataType.Name(code).lower()})"


def _declare(proto: onnx.ModelProto, version: int, ir: int) -> None:
    """Write the model, in place, in an older operator set and IR version."""
    for graph in every_graph(proto.graph):
        _rewrite(graph, version)
    others = [entry for entry in proto.opset_import if entry.domain not in DEFAULT_DOMAIN]
    sets: Sequence[onnx.OperatorSetIdProto] = [helper.make_opsetid("", version), *others]
    del proto.opset_import[:]
    proto.opset_import.extend(sets)
    proto.ir_version = ir


def _rewrite(graph: onnx.GraphProto, version: int) -> None:
    for node in graph.node:
        if _is_standard(node):
            node.CopyFrom(older(node, version))
