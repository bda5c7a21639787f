"""Step: bring the model to operator set 21 (IR 10) with ``onnx.version_converter``, working round its known faults.

Faults of onnx 1.23 mended here (each has a test):

- Upsample 7-9 and Resize 10 lose their sampling rule (asymmetric): the converter writes none, and from version 11 on
  the default is half_pixel, which gives other values. We write the rule.
- GroupNormalization 18 has one scale per group, 21 one per channel: the converter copies the constants unchanged.
  We repeat them.
- metadata of nodes, values and the graph, and quantization annotations, are dropped. We copy them back by name.
- local functions are dropped; ``inline functions`` has run before, and if it could not, this step refuses.
- attributes that became inputs arrive as nameless Constant nodes; they are hoisted and named.

Models at 21 or above keep their operator set. Anything else the converter gets wrong is caught by the parity check.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import numpy_helper, shape_inference, version_converter

from edgepress import storage
from edgepress.errors import Refusal
from edgepress.model import Model
from edgepress.normalize.flatten import hoist_constants, name_nodes
from edgepress.normalize.graph import (
    DEFAULT_DOMAIN,
    attributes,
    fresh,
    initializers,
    names_in_use,
    opset,
    set_attribute,
    set_constant,
)

OPSET = 21
IR_VERSION = 10


def convert(proto: onnx.ModelProto) -> onnx.ModelProto | Refusal:
    """The model at operator set 21 or above and IR 10 or above.

    Raises:
        onnx.version_converter.ConvertError, RuntimeError: the converter cannot convert an operator.
    """
    if proto.functions:
        return Refusal("operator set", "the model still holds local functions, which the converter would drop")
    if opset(proto) < OPSET:
        before = proto
        proto = storage.lightly(lambda light: version_converter.convert_version(light, OPSET), before)
        _restore_metadata(proto, before)
        _mend_resize(proto.graph, before)
        problem = _mend_group_normalization(proto.graph, before)
        if problem:
            return problem
        proto = name_nodes(hoist_constants(proto))
    proto.ir_version = max(proto.ir_version, IR_VERSION)
    return proto


def _restore_metadata(proto: onnx.ModelProto, before: onnx.ModelProto) -> None:
    new, old = proto.graph, before.graph
    _copy_field(new, old, "metadata_props")
    _copy_field(new, old, "quantization_annotation")
    _copy_field(proto, before, "metadata_props")
    nodes = {node.name: node for node in old.node if node.name}
    for node in new.node:
        if node.name in nodes and node.op_type in (nodes[node.name].op_type, "Resize"):
            _copy_field(node, nodes[node.name], "metadata_props")
            node.doc_string = nodes[node.name].doc_string
    weights = initializers(old)
    for item in new.initializer:
        if item.name in weights:
            _copy_field(item, weights[item.name], "metadata_props")
            item.doc_string = weights[item.name].doc_string
    for made, stated in ((new.input, old.input), (new.output, old.output)):
        values = {value.name: value for value in stated}
        for value in made:
            value.CopyFrom(values.get(value.name, value))


def _copy_field(new: Message, old: Message, field: str) -> None:
    new.ClearField(field)
    getattr(new, field).extend(getattr(old, field))


def _mend_resize(graph: onnx.GraphProto, before: onnx.ModelProto) -> None:
    """Before version 11 every resize was asymmetric; nearest rounded down growing and up shrinking."""
    if opset(before) > 10:
        return
    constants = initializers(graph)
    made = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        if node.op_type != "Resize" or node.domain not in DEFAULT_DOMAIN:
            continue
        set_attribute(node, "coordinate_transformation_mode", "asymmetric")
        if attributes(node).get("mode", b"nearest") == b"nearest":
            scales = constants.get(node.input[2], made.get(node.input[2]))
            shrinks = scales is not None and bool((numpy_helper.to_array(scales) < 1).any())
            set_attribute(node, "nearest_mode", "ceil" if shrinks else "floor")


def _mend_group_normalization(graph: onnx.GraphProto, before: onnx.ModelProto) -> Refusal | None:
    nodes = [node for node in graph.node if node.op_type == "GroupNormalization" and node.domain in DEFAULT_DOMAIN]
    if not nodes:
        return None
    types = Model.of(shape_inference.infer_shapes(storage.outline(before))).types
    constants = {name: numpy_helper.to_array(item) for name, item in initializers(graph).items()}
    for node in nodes:
        shape = types[node.input[0]].shape if node.input[0] in types else None
        channels = shape[1] if shape is not None and len(shape) > 1 else None
        if not isinstance(channels, int) or not constants.keys() >= set(node.input[1:]):
            return Refusal(node.name, "GroupNormalization with an unknown channel count or computed scales")
        _repeat_per_channel(graph, node, channels, constants)
    return None


def _repeat_per_channel(
    graph: onnx.GraphProto, node: onnx.NodeProto, channels: int, constants: Mapping[str, np.ndarray]
) -> None:
    for position in (1, 2):
        old = constants[node.input[position]]
        # the same constant may serve several nodes with other channel counts, so it gets a name of its own
        name = fresh(f"{node.input[position]}.{channels}", names_in_use(graph))
        set_constant(graph, name, np.repeat(old, channels // old.size))
        node.input[position] = name
