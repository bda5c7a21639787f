"""The lean file: nothing in it that onnxruntime does not need to compute the same thing.

Equal constants are stored once, unused ones go, intermediate shapes go, and every name that only the inside of the
graph uses becomes as short as it can be (base 36, the most used first). What people and tools hold on to stays:
graph inputs and outputs, names of nodes, metadata of the model. Guarantees: same nodes in the same order, same values.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import onnx

from edgepress.model import METADATA_PREFIX, Model

SPATIAL = ("Conv", "ConvTranspose", "MaxPool", "AveragePool")
SPATIAL_DEFAULT = {"dilations": 1, "strides": 1, "pads": 0}
"""Lists whose default has the length of the kernel, so that the schema cannot state it."""
DIGITS = string.digits + string.ascii_lowercase


def slim(model: Model) -> Model:
    """The same graph in as few bytes as names and constants allow."""
    proto = model.edit()
    graph = proto.graph
    pinned = {value.name for value in (*graph.input, *graph.output)} | set(_inner_names(graph))
    _raw(graph)
    _drop_unused(graph, pinned)
    _rename(graph, _equal_constants(graph, pinned))
    _drop_unused(graph, pinned)
    _rename(graph, _short_names(graph, pinned))
    _drop_notes(proto)
    return Model.of(proto)


def lean(model: Model) -> Model:
    """The same without notes of edgepress, for a coded file: beside weights of a few kB they count."""
    proto = slim(model).edit()
    kept = [entry for entry in proto.metadata_props if not entry.key.startswith(METADATA_PREFIX)]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return Model.of(proto)


def _inner_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every tensor name inside subgraphs: they may mean tensors of this graph, so they keep their names."""
    for node in graph.node:
        for item in node.attribute:
            for inner in (item.g, *item.graphs):
                for each in inner.node:
                    yield from (*each.input, *each.output)
                yield from (value.name for value in (*inner.input, *inner.output, *inner.initializer))
                yield from _inner_names(inner)


def _raw(graph: onnx.GraphProto) -> None:
    """Weights as plain bytes (the typed fields of the format take up to five bytes for a small integer)."""
    for item in graph.initializer:
        if not item.HasField("raw_data") and item.data_type != onnx.TensorProto.STRING:
            item.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(item), item.name))
        item.ClearField("doc_string")
        del item.metadata_props[:]


def _drop_unused(graph: onnx.GraphProto, pinned: Iterable[str]) -> None:
    """Keep the constants that are read, each once."""
    used = {name for node in graph.node for name in node.input} | set(pinned)
    kept = {item.name: item for item in reversed(graph.initializer) if item.name in used}
    first = list(reversed(kept.values()))
    del graph.initializer[:]
    graph.initializer.extend(first)


def _equal_constants(graph: onnx.GraphProto, pinned: Iterable[str]) -> dict[str, str]:
    """Names of constants that repeat an earlier one -> the earlier name."""
    first: dict[tuple[object, ...], str] = {}
    fixed, renamed = set(pinned), {}
    for item in graph.initializer:
        if item.name in fixed or item.data_type == onnx.TensorProto.STRING:
            continue
        earlier = first.setdefault((item.data_type, tuple(item.dims), item.raw_data), item.name)
        if earlier != item.name:
            renamed[item.name] = earlier
    return renamed


def _short_names(graph: onnx.GraphProto, pinned: Iterable[str]) -> dict[str, str]:
    fixed = set(pinned)
    uses = Counter(name for node in graph.node for name in (*node.input, *node.output))
    uses.update(item.name for item in graph.initializer)
    names = (name for name in _counting() if name not in fixed)
    return {name: next(names) for name, _ in uses.most_common() if name and name not in fixed}


def _counting() -> Iterator[str]:
    """0 .. 9, a .. z, 00, 01, ...: every word of one digit, then of two, ..."""
    words = [""]
    while True:
        words = [word + digit for word in words for digit in DIGITS]
        yield from words


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for item in graph.initializer:
        item.name = names.get(item.name, item.name)


def _drop_notes(proto: onnx.ModelProto) -> None:
    """Intermediate types, the exporter's notes on nodes and graph (they speak of old names), defaults, unused sets."""
    graph = proto.graph
    del graph.value_info[:]
    del graph.quantization_annotation[:]
    del graph.metadata_props[:]
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    for node in graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
        kept_attributes = [item for item in node.attribute if not _is_default(node, item, versions)]
        del node.attribute[:]
        node.attribute.extend(kept_attributes)
    used = {node.domain for node in graph.node} | {""}
    kept = [entry for entry in proto.opset_import if entry.domain in used or any(_inner_names(graph))]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)


def _is_default(node: onnx.NodeProto, item: onnx.AttributeProto, versions: Mapping[str, int]) -> bool:
    """Whether an attribute says what the operator does without it."""
    if node.op_type in SPATIAL and not node.domain and item.name in SPATIAL_DEFAULT:
        return set(item.ints) <= {SPATIAL_DEFAULT[item.name]}
    if not onnx.defs.has(node.op_type, node.domain):
        return False
    known = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain).attributes.get(item.name)
    return known is not None and known.default_value.type != 0 and known.default_value == item
